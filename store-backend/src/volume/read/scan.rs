//! Messages of one mailbox looked at where the index has them: nothing is copied, and nothing is kept.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ops::{Bound, ControlFlow};

use lmdb::heed::types::Bytes;
use lmdb::heed::{self, RoRange};
use zerocopy::little_endian::U16;

use super::super::bundle;
use super::super::error::{IndexError, ReadError};
use super::super::index::{Index, RoTxn, Table};
use super::super::rows::{MessageRow, message_key, message_of};
use super::super::types::Summary;
use super::{MailboxReader, summary};

/// One message, while it is looked at.
pub(crate) struct Sight<'s, 't> {
    /// Its row; the set of keywords is not known.
    pub(crate) summary: Summary,
    /// Numbers of its keywords.
    pub(crate) keywords: &'s [U16],
    /// The mailbox's keywords, by number.
    pub(crate) names: &'s [String],
    /// EMAILID (RFC 8474).
    pub(crate) identity: [u8; 16],
    /// THREADID (RFC 8474); 0 not known.
    pub(crate) thread: u64,
    key: &'t [u8],
    row: &'s MessageRow,
    prologues: &'s mut Prologues<'t>,
    cards: &'s mut Follow<'t>,
}

impl<'t> Sight<'_, 't> {
    /// The trace lines of its delivery.
    pub(crate) fn prologue(&mut self) -> Result<Cow<'t, [u8]>, ReadError> {
        Ok(self.prologues.get(self.key, self.summary.uid, self.row)?)
    }

    /// The octets of its card; `None` if there is none.
    pub(crate) fn card(&mut self) -> Result<Option<&'t [u8]>, ReadError> {
        let blob = self.row.blob.get();
        Ok(self.cards.get(&blob.to_be_bytes(), blob)?)
    }
}

impl MailboxReader {
    /// Shows those of `uids` (growing) that there are, in order, until `each` breaks: how many of the UIDs that answers.
    /// The index is held meanwhile, which keeps its old pages: not for long. `None`: no such mailbox.
    pub(crate) fn look(
        &self,
        uids: &[u32],
        mut each: impl FnMut(&mut Sight<'_, '_>) -> Result<ControlFlow<()>, ReadError>,
    ) -> Result<Option<usize>, ReadError> {
        if self.is_behind {
            return Err(ReadError::Behind);
        }
        let index = &self.shared.index;
        index.read(|txn| {
            let Some(mailbox) = index.mailbox(txn, self.account, self.mailbox)? else {
                return Ok(None);
            };
            let mut prologues = Prologues::new(index, txn);
            let mut cards = Follow::new(&index.cards, txn);
            let done_count = self.walk(index, txn, uids, |key, uid, row, keywords| {
                each(&mut Sight {
                    summary: summary(uid, row, 0),
                    keywords,
                    names: &mailbox.keywords,
                    identity: row.identity,
                    thread: row.thread.get(),
                    key,
                    row,
                    prologues: &mut prologues,
                    cards: &mut cards,
                })
            })?;
            Ok(Some(done_count))
        })
    }

    /// Every row of `uids` (growing) that there is, with its key, until `each` breaks: how many of the UIDs were passed.
    /// Neighbours are one scan, so that all of a mailbox costs one walk through it.
    pub(super) fn walk<'t>(
        &self,
        index: &Index,
        txn: &'t RoTxn<'_>,
        uids: &[u32],
        mut each: impl FnMut(
            &'t [u8],
            u32,
            &MessageRow,
            &'t [U16],
        ) -> Result<ControlFlow<()>, ReadError>,
    ) -> Result<usize, ReadError> {
        let mut done_count = 0;
        for run in uids.chunk_by(|one, next| next - one <= GAP_MAX) {
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
                done_count += 1;
                let (row, keywords) = MessageRow::decode(bytes).map_err(IndexError::from)?;
                if each(key, uid, &row, keywords)?.is_break() {
                    return Ok(done_count);
                }
            }
            done_count += wanted.count();
        }
        Ok(done_count)
    }
}

/// The prologues of one mailbox's messages, of growing UIDs.
pub(in crate::volume) struct Prologues<'t> {
    /// Those with rows of their own.
    own: Follow<'t>,
    /// Those of one delivery, by its record's number: mail that came together has neighbours.
    bundles: Follow<'t>,
}

impl<'t> Prologues<'t> {
    pub(in crate::volume) fn new(index: &'t Index, txn: &'t RoTxn<'t>) -> Self {
        Self {
            own: Follow::new(&index.prologues, txn),
            bundles: Follow::new(&index.bundles, txn),
        }
    }

    pub(in crate::volume) fn get(
        &mut self,
        key: &[u8],
        uid: u32,
        row: &MessageRow,
    ) -> Result<Cow<'t, [u8]>, IndexError> {
        if row.prologue_octets.get() == 0 {
            return Ok(Cow::Borrowed(&[]));
        }
        let found = match row.bundle_place() {
            None => self.own.get(key, uid.into())?.map(Cow::Borrowed),
            Some((key, number)) => match self.bundles.get(&key, row.bundle.get())? {
                Some(bundle) => bundle::member(bundle, number)?,
                None => None,
            },
        };
        found.ok_or(IndexError::Contradiction("a prologue"))
    }
}

/// Finds rows whose keys mostly come in the order of the table: it steps where that is cheaper than to search.
pub(super) struct Follow<'t> {
    table: &'t Table,
    txn: &'t RoTxn<'t>,
    range: Option<RoRange<'t, Bytes, Bytes>>,
    /// Stepped upon, but behind what was looked for.
    ahead: Option<(&'t [u8], &'t [u8])>,
    place: u64,
}

impl<'t> Follow<'t> {
    pub(super) fn new(table: &'t Table, txn: &'t RoTxn<'t>) -> Self {
        Self {
            table,
            txn,
            range: None,
            ahead: None,
            place: 0,
        }
    }

    /// The row of a key. Its place is a number that grows with the key, by one from neighbour to neighbour.
    pub(super) fn get(&mut self, key: &[u8], place: u64) -> Result<Option<&'t [u8]>, heed::Error> {
        let steps = place.wrapping_sub(self.place);
        self.place = place;
        if !(1..=STEPS_MAX).contains(&steps) {
            (self.range, self.ahead) = (None, None);
            return self.table.get(self.txn, key);
        }
        if self.range.is_none() {
            let bounds = (Bound::Included(key), Bound::Unbounded);
            self.range = Some(self.table.range(self.txn, &bounds)?);
        }
        let Some(range) = &mut self.range else {
            return Ok(None);
        };
        loop {
            let next = match self.ahead.take() {
                Some(next) => Some(next),
                None => range.next().transpose()?,
            };
            let Some(next) = next else {
                return Ok(None);
            };
            match next.0.cmp(key) {
                Ordering::Less => {}
                Ordering::Equal => return Ok(Some(next.1)),
                Ordering::Greater => {
                    self.ahead = Some(next);
                    return Ok(None);
                }
            }
        }
    }
}

/// UIDs that are not asked for are walked over rather than jumped over when they are no more than this.
const GAP_MAX: u32 = 16;
/// Steps that are cheaper than one search from the top: a search reads three or four pages, and compares some ten keys
/// in each.
const STEPS_MAX: u64 = 8;
