//! Whether the rows of the index agree with one another, and what can be counted anew where they do not.

use std::collections::HashMap;
use std::fmt;
use std::ops::Bound;

use directory_api::AccountId;
use durable::Lsn;
use zerocopy::IntoBytes;

use super::super::bundle;
use super::super::error::IndexError;
use super::super::index::{Index, Meta, RoTxn};
use super::super::rows::{
    AccountRow, BlobRow, MailboxRow, MessageRow, mailbox_key, mailbox_of, unlinked_key,
};
use super::super::types::{Flags, Hash, MailboxId};

/// What an index holds, and what is wrong with it.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) applied: Lsn,
    pub(super) checkpoint: Lsn,
    pub(super) account_count: u64,
    pub(super) mailbox_count: u64,
    pub(super) message_count: u64,
    pub(super) blob_count: u64,
    /// Counted anew, they are right.
    pub(super) fixes: Vec<Fix>,
    /// Only an index made anew is right.
    pub(super) contradictions: Vec<String>,
}

/// A number or a row that follows from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fix {
    Mailbox(AccountId, MailboxId, Tally),
    Account(AccountId, u64, u64),
    Links {
        number: u64,
        found: u64,
        wanted: u64,
    },
    Deleted(Vec<u8>, bool),
    Unlinked(Vec<u8>, bool),
    HashGone(Hash),
    Accounts(u64),
    BlobNext(u64),
}

/// What the messages of a mailbox add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) messages: u64,
    pub(super) octets: u64,
    pub(super) unseen: u32,
    pub(super) deleted: u32,
    pub(super) uid_last: u32,
    pub(super) modseq_last: u64,
}

impl fmt::Display for Fix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mailbox(account, mailbox, tally) => write!(
                f,
                "account {account}, mailbox {}: its row counts other messages than the {} of {} octets that it has",
                mailbox.0, tally.messages, tally.octets
            ),
            Self::Account(account, messages, octets) => write!(
                f,
                "account {account}: its row counts other messages than the {messages} of {octets} octets that it has"
            ),
            Self::Links {
                number,
                found,
                wanted,
            } => {
                write!(
                    f,
                    "blob {number}: its row counts {found} messages, {wanted} have it"
                )
            }
            Self::Deleted(key, true) => write!(
                f,
                "a message with \\Deleted is not listed as such: {}",
                hex(key)
            ),
            Self::Deleted(key, false) => write!(
                f,
                "a message is listed as \\Deleted and is not: {}",
                hex(key)
            ),
            Self::Unlinked(key, true) => write!(
                f,
                "a blob without messages is not listed as such: {}",
                hex(key)
            ),
            Self::Unlinked(key, false) => write!(
                f,
                "a blob is listed as one without messages and is not: {}",
                hex(key)
            ),
            Self::HashGone(hash) => write!(f, "hash {} leads to no blob that has it", hex(hash)),
            Self::Accounts(count) => write!(
                f,
                "the number of accounts is another one than the {count} there are"
            ),
            Self::BlobNext(number) => write!(
                f,
                "the number of the next blob would be given twice: it is {number} at least"
            ),
        }
    }
}

fn hex(octets: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(octets)
}

/// Compares all rows, at one instant.
pub(super) fn check(index: &Index, progress: &mut dyn FnMut(&str)) -> Result<Seen, IndexError> {
    index.read(|txn| {
        let mut check = Check {
            index,
            txn,
            seen: Seen {
                applied: index.lsn(txn, Meta::Applied)?,
                checkpoint: index.lsn(txn, Meta::Checkpoint)?,
                account_count: 0,
                mailbox_count: 0,
                message_count: 0,
                blob_count: 0,
                fixes: Vec::new(),
                contradictions: Vec::new(),
            },
            links: HashMap::new(),
            deleted: 0,
            prologues: 0,
            bundled: 0,
        };
        check.mailboxes(progress)?;
        check.blobs()?;
        Ok(check.seen)
    })
}

struct Check<'c> {
    index: &'c Index,
    txn: &'c RoTxn<'c>,
    seen: Seen,
    /// Messages of each blob.
    links: HashMap<u64, u64>,
    deleted: u64,
    /// With rows of their own.
    prologues: u64,
    /// In bundles.
    bundled: u64,
}

impl Check<'_> {
    fn wrong(&mut self, what: String) {
        if self.seen.contradictions.len() < CONTRADICTIONS_MAX {
            self.seen.contradictions.push(what);
        }
    }

    fn mailboxes(&mut self, progress: &mut dyn FnMut(&str)) -> Result<(), IndexError> {
        let mut account: Option<(AccountId, AccountRow, u64, u64)> = None;
        for row in self.index.mailboxes.iter(self.txn)? {
            let (key, bytes) = row?;
            let (id, mailbox) =
                mailbox_of(key).ok_or(IndexError::Contradiction("a mailbox's key"))?;
            if mailbox.0 == 0 {
                self.account_ends(account.take());
                account = Some((id, AccountRow::decode(bytes)?, 0, 0));
                self.seen.account_count += 1;
                continue;
            }
            let row = MailboxRow::decode(bytes)?;
            self.seen.mailbox_count += 1;
            let tally = self.mailbox(id, mailbox, &row)?;
            let Some((_, owner, messages, octets)) =
                account.as_mut().filter(|(owner, ..)| *owner == id)
            else {
                self.wrong(format!(
                    "mailbox {} of account {id}, which has no row",
                    mailbox.0
                ));
                continue;
            };
            *messages += tally.messages;
            *octets += tally.octets;
            if mailbox.0 >= owner.mailbox_next || row.uidvalidity > owner.uidvalidity_last {
                self.wrong(format!("account {id}: the number or the UIDVALIDITY of mailbox {} would be given twice", mailbox.0));
            }
            if self.seen.mailbox_count.is_multiple_of(1000) {
                progress(&format!(
                    "index: {} messages compared",
                    self.seen.message_count
                ));
            }
        }
        self.account_ends(account);
        let (index, txn) = (self.index, self.txn);
        if self.seen.message_count != index.messages.len(txn)? {
            self.wrong("there are messages without a mailbox".to_owned());
        }
        let mut bundled = 0;
        for row in index.bundles.iter(txn)? {
            let (_, bytes) = row?;
            bundled += bundle::members(bytes)?.len() as u64;
        }
        if (self.prologues, self.bundled) != (index.prologues.len(txn)?, bundled) {
            self.wrong("there are trace lines without a message".to_owned());
        }
        if self.deleted != index.deleted.len(txn)? {
            let mut stray = Vec::new();
            for row in index.deleted.iter(txn)? {
                let (key, _) = row?;
                let message = index
                    .messages
                    .get(txn, key)?
                    .map(MessageRow::decode)
                    .transpose()?;
                if message.is_none_or(|(row, _)| !row.flags().contains(Flags::DELETED)) {
                    stray.push(Fix::Deleted(key.to_vec(), false));
                }
            }
            self.seen.fixes.extend(stray);
        }
        if index.number(txn, Meta::Accounts)? != self.seen.account_count {
            self.seen.fixes.push(Fix::Accounts(self.seen.account_count));
        }
        Ok(())
    }

    fn account_ends(&mut self, account: Option<(AccountId, AccountRow, u64, u64)>) {
        if let Some((id, row, messages, octets)) = account
            && (row.message_count, row.size_octets) != (messages, octets)
        {
            self.seen.fixes.push(Fix::Account(id, messages, octets));
        }
    }

    fn mailbox(
        &mut self,
        account: AccountId,
        mailbox: MailboxId,
        row: &MailboxRow,
    ) -> Result<Tally, IndexError> {
        let mut tally = Tally::default();
        let (index, txn) = (self.index, self.txn);
        for found in index
            .messages
            .prefix_iter(txn, &mailbox_key(account, mailbox))?
        {
            let (key, bytes) = found?;
            let (message, keywords) = MessageRow::decode(bytes)?;
            let uid = key
                .get(12..16)
                .and_then(|uid| uid.try_into().ok())
                .map_or(0, u32::from_be_bytes);
            self.seen.message_count += 1;
            tally.messages += 1;
            tally.octets += message.size_octets();
            let flags = message.flags();
            tally.unseen += u32::from(!flags.contains(Flags::SEEN));
            tally.uid_last = uid;
            tally.modseq_last = tally.modseq_last.max(message.modseq.get());
            let here = || format!("account {account}, mailbox {}, UID {uid}", mailbox.0);
            let is_listed = index.deleted.get(txn, key)?.is_some();
            self.deleted += u64::from(is_listed);
            if flags.contains(Flags::DELETED) {
                tally.deleted += 1;
                if !is_listed {
                    self.seen.fixes.push(Fix::Deleted(key.to_vec(), true));
                }
            }
            if keywords
                .iter()
                .any(|number| usize::from(number.get()) >= row.keywords.len())
            {
                self.wrong(format!("{}: a keyword without a name", here()));
            }
            let prologue = index.prologue(txn, key, &message)?;
            let prologue = prologue.map_or(0, |prologue| prologue.len());
            let is_bundled = message.bundle_place().is_some();
            self.prologues += u64::from(prologue > 0 && !is_bundled);
            self.bundled += u64::from(prologue > 0 && is_bundled);
            if prologue != message.prologue_octets.get() as usize {
                self.wrong(format!("{}: other trace lines than its row says", here()));
            }
            let blob = index.blob(txn, message.blob.get())?;
            if blob.is_none_or(|blob| blob.octets != message.blob_octets) {
                self.wrong(format!("{}: no blob, or one of another size", here()));
            }
            *self.links.entry(message.blob.get()).or_default() += 1;
        }
        let counted = Tally {
            messages: row.message_count,
            octets: row.size_octets,
            unseen: row.unseen_count,
            deleted: row.deleted_count,
            ..tally
        };
        if counted != tally
            || row.uidnext <= tally.uid_last
            || row.highestmodseq < tally.modseq_last
        {
            self.seen.fixes.push(Fix::Mailbox(account, mailbox, tally));
        }
        Ok(tally)
    }

    fn blobs(&mut self) -> Result<(), IndexError> {
        let (index, txn) = (self.index, self.txn);
        let mut listed = 0_u64;
        let mut last = 0;
        let mut fixes = Vec::new();
        for row in index.blobs.iter(txn)? {
            let (key, bytes) = row?;
            let number = key.try_into().map(u64::from_be_bytes);
            let number = number.map_err(|_| IndexError::Contradiction("a blob's key"))?;
            let row = BlobRow::decode(bytes)?;
            self.seen.blob_count += 1;
            last = number;
            let wanted = self.links.remove(&number).unwrap_or(0);
            let found = row.link_count.get();
            if found != wanted {
                fixes.push(Fix::Links {
                    number,
                    found,
                    wanted,
                });
                continue;
            }
            let key = unlinked_key(row.keep_until_ms.get(), number);
            let is_listed = index.unlinked.get(txn, &key)?.is_some();
            listed += u64::from(is_listed && wanted == 0);
            if wanted == 0 && !is_listed {
                fixes.push(Fix::Unlinked(key.to_vec(), true));
            }
        }
        if listed != index.unlinked.len(txn)? {
            for row in index.unlinked.iter(txn)? {
                let (key, _) = row?;
                let number = key.get(8..16).and_then(|number| number.try_into().ok());
                let number = number
                    .map(u64::from_be_bytes)
                    .ok_or(IndexError::Contradiction("a key of unlinked"))?;
                let row = index.blob(txn, number)?;
                let is_right = |row: BlobRow| {
                    row.link_count.get() == 0
                        && unlinked_key(row.keep_until_ms.get(), number) == *key
                };
                if !row.is_some_and(is_right) {
                    fixes.push(Fix::Unlinked(key.to_vec(), false));
                }
            }
        }
        for row in index.hashes.iter(txn)? {
            let (hash, number) = row?;
            let bad = || IndexError::Contradiction("a row of hashes");
            let hash: Hash = hash.try_into().map_err(|_| bad())?;
            let number = number
                .try_into()
                .map(u64::from_le_bytes)
                .map_err(|_| bad())?;
            if index.blob(txn, number)?.is_none_or(|row| row.hash != hash) {
                fixes.push(Fix::HashGone(hash));
            }
        }
        if last > 0 && index.number(txn, Meta::BlobNext)? <= last {
            fixes.push(Fix::BlobNext(last + 1));
        }
        self.seen.fixes.extend(fixes);
        Ok(())
    }
}

/// Writes what was counted anew, in one transaction.
pub(super) fn fix(index: &Index, fixes: &[Fix]) -> Result<(), IndexError> {
    index.write(|txn| {
        for fix in fixes {
            match fix {
                Fix::Mailbox(account, mailbox, tally) => {
                    let row = index.mailbox(txn, *account, *mailbox)?;
                    let mut row = row.ok_or(IndexError::Contradiction("a mailbox"))?;
                    (row.message_count, row.size_octets) = (tally.messages, tally.octets);
                    (row.unseen_count, row.deleted_count) = (tally.unseen, tally.deleted);
                    // Numbers only grow (P3).
                    row.uidnext = row.uidnext.max(tally.uid_last.saturating_add(1));
                    row.highestmodseq = row.highestmodseq.max(tally.modseq_last);
                    index.put_mailbox(txn, *account, *mailbox, &row)?;
                }
                Fix::Account(account, messages, octets) => {
                    let row = index.account(txn, *account)?;
                    let mut row = row.ok_or(IndexError::Contradiction("an account"))?;
                    (row.message_count, row.size_octets) = (*messages, *octets);
                    index.put_account(txn, *account, &row)?;
                }
                Fix::Links { number, wanted, .. } => {
                    let row = index.blob(txn, *number)?;
                    let mut row = row.ok_or(IndexError::Contradiction("a blob"))?;
                    let key = unlinked_key(row.keep_until_ms.get(), *number);
                    row.link_count = (*wanted).into();
                    index
                        .blobs
                        .put(txn, &number.to_be_bytes(), row.as_bytes())?;
                    match wanted {
                        0 => index.unlinked.put(txn, &key, &[])?,
                        _ => drop(index.unlinked.delete(txn, &key)?),
                    }
                }
                Fix::Deleted(key, true) => index.deleted.put(txn, key, &[])?,
                Fix::Deleted(key, false) => drop(index.deleted.delete(txn, key)?),
                Fix::Unlinked(key, true) => index.unlinked.put(txn, key, &[])?,
                Fix::Unlinked(key, false) => drop(index.unlinked.delete(txn, key)?),
                Fix::HashGone(hash) => drop(index.hashes.delete(txn, hash)?),
                Fix::Accounts(count) => index.set_number(txn, Meta::Accounts, *count)?,
                Fix::BlobNext(number) => index.set_number(txn, Meta::BlobNext, *number)?,
            }
        }
        Ok(())
    })
}

/// Some blobs behind a number.
pub(super) fn blobs_after(
    index: &Index,
    after: u64,
    count: usize,
) -> Result<Vec<(u64, BlobRow)>, IndexError> {
    index.read(|txn| {
        let after = after.to_be_bytes();
        let range = (Bound::Excluded(&after[..]), Bound::Unbounded);
        let mut rows = Vec::new();
        for row in index.blobs.range(txn, &range)?.take(count) {
            let (key, bytes) = row?;
            let number = key.try_into().map(u64::from_be_bytes);
            let number = number.map_err(|_| IndexError::Contradiction("a blob's key"))?;
            rows.push((number, BlobRow::decode(bytes)?));
        }
        Ok(rows)
    })
}

/// Keys and blobs of some messages behind a key.
pub(super) fn messages_after(
    index: &Index,
    after: &[u8],
    count: usize,
) -> Result<Vec<(Vec<u8>, u64)>, IndexError> {
    index.read(|txn| {
        let range = (Bound::Excluded(after), Bound::Unbounded);
        let mut rows = Vec::new();
        for row in index.messages.range(txn, &range)?.take(count) {
            let (key, bytes) = row?;
            rows.push((key.to_vec(), MessageRow::decode(bytes)?.0.blob.get()));
        }
        Ok(rows)
    })
}

/// More say nothing new.
const CONTRADICTIONS_MAX: usize = 100;
