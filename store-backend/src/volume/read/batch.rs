//! Many messages of one mailbox, read on a thread that may block: FETCH and SEARCH hop there once for
//! hundreds of them. Every call here blocks.

use std::io;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use directory_api::AccountId;

use super::super::Volume;
use super::super::apply::prologue;
use super::super::error::{IndexError, ReadError};
use super::super::recovery::Shared;
use super::super::rows::{BlobRow, MessageRow, message_key, message_of};
use super::super::types::{Hash, MailboxId, Snapshot};
use super::{BlobReader, Source, Taking};

/// Reads messages of one mailbox. Blocking; clones share what is below.
#[derive(Clone)]
pub struct MailboxReader {
    shared: Arc<Shared>,
    account: AccountId,
    mailbox: MailboxId,
}

impl std::fmt::Debug for MailboxReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MailboxReader")
            .field("account", &self.account)
            .field("mailbox", &self.mailbox)
            .finish_non_exhaustive()
    }
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
    /// The trace lines of this delivery.
    pub prologue: Bytes,
    /// BLAKE3 of the blob.
    pub hash: Hash,
    /// Octets of the blob.
    pub blob_octets: u64,
    uid: u32,
    number: u64,
    row: BlobRow,
}

impl Volume {
    /// A reader of many messages of a mailbox.
    #[must_use]
    pub fn mailbox_reader(&self, account: AccountId, mailbox: MailboxId) -> MailboxReader {
        MailboxReader {
            shared: Arc::clone(self.inner.shared()),
            account,
            mailbox,
        }
    }
}

impl MailboxReader {
    /// Those of `uids` (growing) that there are. With contents, fewer are answered when their prologues are large.
    /// Neighbours are one scan, so that all of a mailbox costs one walk through it. `None`: no such mailbox.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn messages(&self, uids: &[u32], contents: bool) -> Result<Option<Batch>, ReadError> {
        let index = &self.shared.index;
        index.read(|txn| {
            let Some(mailbox) = index.mailbox(txn, self.account, self.mailbox)? else {
                return Ok(None);
            };
            let mut taken = Taking::new(uids.len());
            let mut found = Vec::new();
            let mut prologue_octets = 0;
            let mut done_count = 0;
            'all: for run in uids.chunk_by(|one, next| next - one <= GAP_MAX) {
                let (Some(first), Some(last)) = (run.first(), run.last()) else {
                    continue;
                };
                let first = message_key(self.account, self.mailbox, *first);
                let last = message_key(self.account, self.mailbox, *last);
                let range = (Bound::Included(&first[..]), Bound::Included(&last[..]));
                let mut wanted = run.iter().copied().peekable();
                for row in index.messages.range(txn, &range)? {
                    let (key, bytes) = row?;
                    let (_, uid) =
                        message_of(key).ok_or(IndexError::Contradiction("a message's key"))?;
                    while wanted.next_if(|wanted| *wanted < uid).is_some() {
                        done_count += 1;
                    }
                    if wanted.next_if_eq(&uid).is_none() {
                        continue;
                    }
                    let (row, keywords) = MessageRow::decode(bytes).map_err(IndexError::from)?;
                    taken.add(uid, &row, keywords);
                    done_count += 1;
                    if contents {
                        let blob = index
                            .blob(txn, row.blob.get())?
                            .ok_or(IndexError::Contradiction("a blob"))?;
                        let prologue = prologue(index, txn, self.account, self.mailbox, uid, &row)?;
                        prologue_octets += prologue.len();
                        found.push(Content {
                            identity: row.identity,
                            thread: row.thread.get(),
                            prologue,
                            hash: blob.hash,
                            blob_octets: blob.octets.get(),
                            uid,
                            number: row.blob.get(),
                            row: blob,
                        });
                        if prologue_octets > PROLOGUES_MAX_OCTETS {
                            break 'all;
                        }
                    }
                }
                done_count += wanted.count();
            }
            Ok(Some(Batch {
                now: taken.finish(self.mailbox, mailbox),
                contents: found,
                done_count,
            }))
        })
    }

    /// Opens the blob of a message; `None` when the message has gone meanwhile.
    ///
    /// # Errors
    /// The index or the body cannot be read.
    pub fn open(&self, content: &Content) -> Result<Option<BlobReader>, ReadError> {
        let failure = match BlobReader::open(&self.shared, content.number, &content.row) {
            Ok(blob) => return Ok(Some(blob)),
            Err(error) => error,
        };
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
        match row {
            None => Ok(None),
            Some((number, row)) if row.hash == content.hash => {
                BlobReader::open(&self.shared, number, &row).map(Some)
            }
            Some(_) => Err(failure),
        }
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
            Source::Memory(bytes) => {
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

/// UIDs that are not asked for are walked over rather than jumped over when they are no more than this.
const GAP_MAX: u32 = 16;
/// Octets of prologues in one batch, the last one aside: 500 of the usual size.
const PROLOGUES_MAX_OCTETS: usize = 256 << 10;
