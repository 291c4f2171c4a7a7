//! Many messages of one mailbox, read on a thread that may block: FETCH and SEARCH hop there once for
//! hundreds of them. Every call here blocks.

use std::borrow::Cow;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use directory_api::AccountId;

use super::super::Volume;
use super::super::apply::NewCard;
use super::super::commit::{ApplyItem, ITEM_BYTES};
use super::super::error::{IndexError, ReadError};
use super::super::load::Charge;
use super::super::recovery::Shared;
use super::super::rows::{BlobRow, MessageRow};
use super::super::turns::Turns;
use super::super::types::{MailboxId, Snapshot};
use super::scan::{Follow, Prologues};
use super::{BlobReader, Source, Taking};
use crate::card::Card;

/// Reads messages of one mailbox. Blocking; clones share what is below.
#[derive(Clone)]
pub struct MailboxReader {
    /// The index lacks what was answered for the account, and waits for room.
    pub(super) is_behind: bool,
    pub(super) shared: Arc<Shared>,
    /// Paid for by the account.
    turns: Turns,
    pub(super) account: AccountId,
    pub(super) mailbox: MailboxId,
}

impl std::fmt::Debug for MailboxReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MailboxReader")
            .field("account", &self.account)
            .field("mailbox", &self.mailbox)
            .finish_non_exhaustive()
    }
}

/// What to read of each message besides its row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// What is kept of the blob to be told without opening it.
    pub card: bool,
    /// The trace lines.
    pub prologue: bool,
    /// Where the blob is, because it will be opened.
    pub blob: bool,
}

impl Want {
    /// Rows alone.
    pub const ROWS: Self = Self {
        card: false,
        prologue: false,
        blob: false,
    };
    /// All that a header takes.
    pub const HEADER: Self = Self {
        card: true,
        prologue: true,
        blob: false,
    };
}

/// Some messages of a mailbox at one instant.
#[derive(Debug)]
pub struct Batch {
    /// The mailbox with those of the messages that there are.
    pub now: Snapshot,
    /// What else there is to know of each message in `now`, in the same order; empty unless asked for.
    pub contents: Vec<Content>,
    /// How many of the UIDs asked for this answers; the others are for the next batch.
    pub done_count: usize,
}

/// Which message it is, and where its octets are.
#[derive(Clone, Debug)]
pub struct Content {
    /// EMAILID (RFC 8474).
    pub identity: [u8; 16],
    /// THREADID (RFC 8474); 0 not known.
    pub thread: u64,
    /// The trace lines of this delivery, if they were asked for.
    pub prologue: Bytes,
    /// What is kept of the blob; `None` if it was not asked for or is not there.
    pub(crate) card: Option<Card>,
    /// Octets of the blob.
    pub blob_octets: u64,
    uid: u32,
    number: u64,
    row: Option<BlobRow>,
}

impl Volume {
    /// A reader of many messages of a mailbox: of what was answered for it until now, or later.
    pub async fn mailbox_reader(&self, account: AccountId, mailbox: MailboxId) -> MailboxReader {
        let shared = self.inner.shared();
        shared.load.charge(account, Charge::OPERATION);
        MailboxReader {
            is_behind: self.settled(account).await.is_err(),
            turns: shared.turns_of(account),
            shared: Arc::clone(shared),
            account,
            mailbox,
        }
    }
}

impl MailboxReader {
    /// Those of the volume that it reads, whose time the account pays for.
    pub(crate) fn turns(&self) -> Turns {
        self.turns.clone()
    }

    /// Those of `uids` (growing) that there are, and what is wanted of them. Of that, some hundred KiB are given at a time,
    /// in one piece of memory. Neighbours are one scan, so that all of a mailbox costs one walk through it. `None`: no such
    /// mailbox.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn messages(&self, uids: &[u32], want: Want) -> Result<Option<Batch>, ReadError> {
        if self.is_behind {
            return Err(ReadError::Behind);
        }
        let index = &self.shared.index;
        index.read(|txn| {
            let Some(mailbox) = index.mailbox(txn, self.account, self.mailbox)? else {
                return Ok(None);
            };
            let mut taken = Taking::new(uids.len());
            let mut extras = Extras::new(want, uids.len());
            let mut prologues = Prologues::new(index, txn);
            let mut cards = Follow::new(&index.cards, txn);
            let mut blobs = Follow::new(&index.blobs, txn);
            let done_count = self.walk(index, txn, uids, |key, uid, row, keywords| {
                taken.add(uid, row, keywords);
                if want == Want::ROWS {
                    return Ok(ControlFlow::Continue(()));
                }
                let prologue = match want.prologue {
                    true => prologues.get(key, uid, row)?,
                    false => Cow::Borrowed(&[][..]),
                };
                let number = row.blob.get();
                let card = match want.card {
                    true => cards.get(&number.to_be_bytes(), number)?,
                    false => None,
                };
                let blob = match want.blob {
                    true => {
                        let blob = blobs.get(&number.to_be_bytes(), number)?;
                        let blob = blob.ok_or(IndexError::Contradiction("a blob"))?;
                        Some(BlobRow::decode(blob).map_err(IndexError::from)?)
                    }
                    false => None,
                };
                extras.add(uid, row, &prologue, card, blob);
                Ok(match extras.octets.len() > EXTRAS_MAX_OCTETS {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                })
            })?;
            Ok(Some(Batch {
                now: taken.finish(self.mailbox, mailbox),
                contents: extras.finish(),
                done_count,
            }))
        })
    }

    /// Opens the blob of a message; `None` when the message has gone meanwhile.
    ///
    /// # Errors
    /// The index or the body cannot be read.
    pub fn open(&self, content: &Content) -> Result<Option<BlobReader>, ReadError> {
        let opened = content
            .row
            .map(|row| BlobReader::open(&self.shared, &self.turns, content.number, &row));
        if let Some(Ok(blob)) = opened {
            return Ok(Some(blob));
        }
        // It may be expunged, and its blob removed, or the file made where the journal was.
        let index = &self.shared.index;
        let row = index.read(|txn| -> Result<_, IndexError> {
            let message = index.message(txn, self.account, self.mailbox, content.uid)?;
            let number = message.map(|(row, _)| row.blob.get());
            match number {
                Some(number) => Ok(index.blob(txn, number)?.map(|row| (number, row))),
                None => Ok(None),
            }
        })?;
        match (row, opened) {
            (None, _) => Ok(None),
            // A UID is never given twice: another number is another inode of the same octets.
            (Some((number, row)), opened) => {
                match (
                    BlobReader::open(&self.shared, &self.turns, number, &row),
                    opened,
                ) {
                    (Ok(blob), _) => Ok(Some(blob)),
                    (Err(_), Some(Err(first))) => Err(first),
                    (Err(error), _) => Err(error),
                }
            }
        }
    }

    /// Keeps the card of a blob that had none, when the index has time for it; or not, and it is made again.
    pub(crate) fn keep_card(&self, content: &Content, card: Vec<u8>) {
        let queue = &self.shared.apply_queue;
        if self.shared.read_only().is_none() && queue.is_roomy() {
            let cost = ITEM_BYTES + card.len();
            let number = content.number;
            let octets = card;
            queue.push(ApplyItem::cards(vec![NewCard { number, octets }]), cost);
        }
    }
}

/// Collects what is wanted besides rows, in one piece of memory.
struct Extras {
    octets: Vec<u8>,
    /// Where prologue and card end in it, and whether there is a card.
    found: Vec<(Content, [usize; 2], bool)>,
}

impl Extras {
    fn new(want: Want, count: usize) -> Self {
        let count = match want == Want::ROWS {
            true => 0,
            false => count.min(EXTRAS_COUNT),
        };
        let octets = match want.card {
            true => count * USUAL_EXTRAS_OCTETS,
            false => 0,
        };
        Self {
            octets: Vec::with_capacity(octets),
            found: Vec::with_capacity(count),
        }
    }

    fn add(
        &mut self,
        uid: u32,
        message: &MessageRow,
        prologue: &[u8],
        card: Option<&[u8]>,
        row: Option<BlobRow>,
    ) {
        self.octets.extend_from_slice(prologue);
        let prologue_end = self.octets.len();
        self.octets.extend_from_slice(card.unwrap_or_default());
        let content = Content {
            identity: message.identity,
            thread: message.thread.get(),
            prologue: Bytes::new(),
            card: None,
            blob_octets: message.blob_octets.get(),
            uid,
            number: message.blob.get(),
            row,
        };
        let ends = [prologue_end, self.octets.len()];
        self.found.push((content, ends, card.is_some()));
    }

    fn finish(self) -> Vec<Content> {
        let octets = Bytes::from(self.octets);
        let mut start = 0;
        let whole = |(mut content, [prologue_end, end], has_card): (Content, [usize; 2], bool)| {
            content.prologue = octets.slice(start..prologue_end);
            if has_card {
                content.card = Card::read(octets.slice(prologue_end..end));
            }
            start = end;
            content
        };
        self.found.into_iter().map(whole).collect()
    }
}

impl BlobReader {
    /// Whether anything was read from the front.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.offset > 0
    }

    /// Appends octets `from..from + count`, which must be in the blob. Octets read in order from the first on are
    /// checked like those of [`BlobReader::next`]; others cannot be.
    ///
    /// # Errors
    /// As [`BlobReader::next`]; nothing was appended.
    pub fn read_at(&mut self, from: u64, count: usize, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let start = out.len();
        match &self.source {
            Source::Memory(bytes) | Source::Checked(bytes) => {
                let begin = usize::try_from(from).unwrap_or(usize::MAX);
                let piece = begin
                    .checked_add(count)
                    .and_then(|end| bytes.get(begin..end));
                out.extend_from_slice(piece.ok_or_else(|| self.corrupt())?);
            }
            Source::File(file, path) => {
                out.resize(start + count, 0);
                if let Err(source) = file.read_exact_at(&mut out[start..], from) {
                    out.truncate(start);
                    return Err(match source.kind() {
                        io::ErrorKind::UnexpectedEof => self.corrupt(),
                        _ => ReadError::Io {
                            path: path.clone(),
                            source,
                        },
                    });
                }
            }
        }
        self.turns.charge_read(count);
        if from == self.offset {
            self.hasher.update(&out[start..]);
            self.offset += count as u64;
            if self.offset == self.size && *self.hasher.finalize().as_bytes() != self.hash {
                out.truncate(start);
                return Err(self.corrupt());
            }
        }
        Ok(())
    }
}

/// Octets of prologues and cards in one batch, the last ones aside: some 200 of the usual size.
const EXTRAS_MAX_OCTETS: usize = 256 << 10;
/// As many messages as that is, about.
const EXTRAS_COUNT: usize = 256;
/// One of the usual size.
const USUAL_EXTRAS_OCTETS: usize = EXTRAS_MAX_OCTETS / EXTRAS_COUNT;
