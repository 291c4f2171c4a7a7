//! The index: tables in LMDB, all of them views of the journal.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | name | a number: `applied`, `checkpoint`, `blob_next`, `accounts` |
//! | `mailboxes` | account, mailbox (0: the account itself) | [`AccountRow`], [`MailboxRow`] |
//! | `messages` | account, mailbox, uid | [`MessageRow`] |
//! | `prologues` | account, mailbox, uid | the prologue, unless it is in a bundle |
//! | `bundles` | the record's LSN, number | prologues of its recipients ([`bundle`](super::bundle)) |
//! | `transactions` | account, transaction | [`TransactionRow`] |
//! | `blobs` | number | [`BlobRow`] |
//! | `hashes` | hash | number of the blob that takes new links |
//! | `cards` | number | a [`Card`](crate::card::Card), derived from the blob; may be missing |
//! | `unlinked` | keep-until, number | nothing |
//! | `expunged` | account, mailbox, MODSEQ | ranges of UIDs that went |
//! | `deleted` | account, mailbox, uid | nothing: the message has `\Deleted` |
//! | `subscriptions` | account, hash of the name | the name |
//! | `kept` | account, mailbox, uid | [`KeptRow`]: an expunged message that can be brought back |
//! | `kept_until` | until when, account, mailbox, uid | nothing: when it goes from `kept` |
//! | `shares` | account that may, owner, mailbox | the owner's name |
//! | `annotations` | account, mailbox (0: the account itself), entry | the value |

mod compact;
mod environment;
mod notes;
mod weight;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use directory_api::AccountId;
use durable::Lsn;
use lmdb::Usage;
use lmdb::heed;
use zerocopy::little_endian::U16;

use super::bundle;
use super::error::{IndexError, OpenError};
use super::rows::{
    AccountRow, BlobRow, KeptRow, MailboxRow, MessageRow, TransactionRow, annotation_of,
    decode_annotation, decode_subscription, mailbox_key, message_key, message_of, transaction_key,
};
#[cfg(test)]
use super::tests::{IndexTape, Refusing};
use super::types::{Hash, MailboxId, TransactionId};
#[cfg(test)]
pub(super) use compact::Compaction;
pub(super) use compact::{CompactError, Compacted, remove_left_over};
use environment::Environment;
pub(super) use environment::{RoTxn, RwTxn, Table};
use notes::Notes;

#[derive(Clone)]
pub(super) struct Index {
    /// What the index is in now. Whoever reads stays in what it was when he began.
    environment: Arc<RwLock<Arc<Environment>>>,
    /// Held by the one who writes.
    writer: Arc<Mutex<Writer>>,
    /// Keeps what each commit left, where a test asks for it.
    #[cfg(test)]
    tape: Option<Arc<IndexTape>>,
    /// What the system answers to writes, if a test wants them to fail.
    #[cfg(test)]
    refusing: Arc<Refusing>,
    /// And to the sync of a smaller one's name; or 0.
    #[cfg(test)]
    pub(super) name_errno: Arc<std::sync::atomic::AtomicI32>,
    /// Whether reads hang, if a test wants them to.
    #[cfg(test)]
    pub(super) hanging: Arc<super::tests::Hanging>,
    readers: Arc<Readers>,
    pub(super) meta: Table,
    pub(super) mailboxes: Table,
    pub(super) messages: Table,
    pub(super) prologues: Table,
    pub(super) bundles: Table,
    pub(super) transactions: Table,
    pub(super) blobs: Table,
    pub(super) hashes: Table,
    pub(super) unlinked: Table,
    pub(super) expunged: Table,
    pub(super) deleted: Table,
    pub(super) subscriptions: Table,
    pub(super) annotations: Table,
    pub(super) cards: Table,
    pub(super) shares: Table,
    pub(super) kept: Table,
    pub(super) kept_until: Table,
}

impl Index {
    pub(super) fn open(path: &Path, map_size_bytes: usize) -> Result<Self, OpenError> {
        #[cfg(test)]
        let tape = IndexTape::of(path);
        #[cfg(test)]
        let commit = tape.as_ref().map(|tape| tape.commit());
        let environment = Environment::open(path, map_size_bytes)?;
        #[cfg(test)]
        drop(commit);
        let [
            meta,
            mailboxes,
            messages,
            prologues,
            bundles,
            transactions,
            blobs,
            hashes,
            unlinked,
            expunged,
            deleted,
            subscriptions,
            annotations,
            cards,
            shares,
            kept,
            kept_until,
        ] = Table::all();
        Ok(Self {
            environment: Arc::new(RwLock::new(Arc::new(environment))),
            writer: Arc::default(),
            #[cfg(test)]
            tape,
            #[cfg(test)]
            refusing: Refusing::of(path),
            #[cfg(test)]
            name_errno: Arc::default(),
            #[cfg(test)]
            hanging: Arc::default(),
            readers: Arc::default(),
            meta,
            mailboxes,
            messages,
            prologues,
            bundles,
            transactions,
            blobs,
            hashes,
            unlinked,
            expunged,
            deleted,
            subscriptions,
            annotations,
            cards,
            shares,
            kept,
            kept_until,
        })
    }

    /// Closes it when its last clone is gone, and waits for that: its files may be moved then.
    pub(super) fn close(self) {
        let closed = self.environment().env.clone().prepare_for_closing();
        drop(self);
        closed.wait();
    }

    fn environment(&self) -> Arc<Environment> {
        let environment = self.environment.read();
        Arc::clone(&environment.unwrap_or_else(PoisonError::into_inner))
    }

    fn lock_writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names and tables, for a dump.
    pub(super) fn tables(&self) -> [(&'static str, Table); TABLES.len()] {
        let tables = [
            self.meta,
            self.mailboxes,
            self.messages,
            self.prologues,
            self.bundles,
            self.transactions,
            self.blobs,
            self.hashes,
            self.unlinked,
            self.expunged,
            self.deleted,
            self.subscriptions,
            self.annotations,
            self.cards,
            self.shares,
            self.kept,
            self.kept_until,
        ];
        std::array::from_fn(|i| (TABLES[i], tables[i]))
    }

    pub(super) fn read<R, E: From<heed::Error>>(
        &self,
        read: impl FnOnce(&RoTxn<'_>) -> Result<R, E>,
    ) -> Result<R, E> {
        #[cfg(test)]
        self.hanging.wait()?;
        let _reader = self.readers.enter();
        let environment = self.environment();
        let txn = environment.read()?;
        read(&txn)
    }

    /// The reads under way. What they see is pinned: pages given back since the oldest began cannot be used again.
    pub(super) fn readers(&self) -> ReadersStatus {
        self.readers.status()
    }

    pub(super) fn write<R, E: From<heed::Error>>(
        &self,
        write: impl FnOnce(&mut RwTxn<'_>) -> Result<R, E>,
    ) -> Result<R, E> {
        // First: nobody writes to an environment that is left.
        let mut writer = self.lock_writer();
        writer.check()?;
        #[cfg(test)]
        let _commit = self.tape.as_ref().map(|tape| tape.commit());
        #[cfg(test)]
        self.refusing.pass()?;
        let environment = self.environment();
        let mut txn = environment.write(writer.notes.as_ref().map(Notes::behind))?;
        let result = write(&mut txn)?;
        let committed = txn.commit()?;
        if let (Some(notes), Some(committed)) = (&mut writer.notes, committed) {
            notes.join(committed);
        }
        self.readers.commits.fetch_add(1, Ordering::Relaxed);
        Ok(result)
    }

    /// Makes all that was written durable: before the journal lets go what the index alone has then.
    pub(super) fn sync(&self) -> Result<(), heed::Error> {
        #[cfg(test)]
        let _sync = self.tape.as_ref().map(|tape| tape.sync());
        lmdb::sync(&self.environment().env)?;
        // It may have been one that has no name yet, and comes to have none.
        self.lock_writer().check()
    }

    /// How much of the map is in use.
    pub(super) fn usage(&self) -> Result<Usage, heed::Error> {
        self.environment().usage()
    }

    /// A number of the table `meta`; 0 when it was never set.
    pub(super) fn number(&self, txn: &RoTxn<'_>, name: Meta) -> Result<u64, IndexError> {
        let bytes = self.meta.get(txn, name.key())?;
        Ok(bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, u64::from_le_bytes))
    }

    pub(super) fn set_number(
        &self,
        txn: &mut RwTxn<'_>,
        name: Meta,
        value: u64,
    ) -> Result<(), IndexError> {
        Ok(self.meta.put(txn, name.key(), &value.to_le_bytes())?)
    }

    pub(super) fn lsn(&self, txn: &RoTxn<'_>, name: Meta) -> Result<Lsn, IndexError> {
        self.number(txn, name).map(Lsn)
    }

    pub(super) fn account(
        &self,
        txn: &RoTxn<'_>,
        account: AccountId,
    ) -> Result<Option<AccountRow>, IndexError> {
        let bytes = self
            .mailboxes
            .get(txn, &mailbox_key(account, MailboxId(0)))?;
        Ok(bytes.map(AccountRow::decode).transpose()?)
    }

    pub(super) fn put_account(
        &self,
        txn: &mut RwTxn<'_>,
        account: AccountId,
        row: &AccountRow,
    ) -> Result<(), IndexError> {
        Ok(self
            .mailboxes
            .put(txn, &mailbox_key(account, MailboxId(0)), &row.encode())?)
    }

    pub(super) fn mailbox(
        &self,
        txn: &RoTxn<'_>,
        account: AccountId,
        mailbox: MailboxId,
    ) -> Result<Option<MailboxRow>, IndexError> {
        let bytes = self.mailboxes.get(txn, &mailbox_key(account, mailbox))?;
        Ok(bytes.map(MailboxRow::decode).transpose()?)
    }

    pub(super) fn put_mailbox(
        &self,
        txn: &mut RwTxn<'_>,
        account: AccountId,
        mailbox: MailboxId,
        row: &MailboxRow,
    ) -> Result<(), IndexError> {
        Ok(self
            .mailboxes
            .put(txn, &mailbox_key(account, mailbox), &row.encode())?)
    }

    /// All mailboxes of an account, by number.
    pub(super) fn mailboxes_of(
        &self,
        txn: &RoTxn<'_>,
        account: AccountId,
    ) -> Result<Vec<(MailboxId, MailboxRow)>, IndexError> {
        let mut found = Vec::new();
        for row in self.mailboxes.prefix_iter(txn, &account.0.to_be_bytes())? {
            let (key, bytes) = row?;
            let id = key
                .get(8..12)
                .and_then(|id| id.try_into().ok())
                .map_or(0, u32::from_be_bytes);
            if id != 0 {
                found.push((MailboxId(id), MailboxRow::decode(bytes)?));
            }
        }
        Ok(found)
    }

    pub(super) fn message(
        &self,
        txn: &RoTxn<'_>,
        account: AccountId,
        mailbox: MailboxId,
        uid: u32,
    ) -> Result<Option<(MessageRow, Vec<u16>)>, IndexError> {
        let bytes = self
            .messages
            .get(txn, &message_key(account, mailbox, uid))?;
        let Some((row, keywords)) = bytes.map(MessageRow::decode).transpose()? else {
            return Ok(None);
        };
        let keywords = keywords.iter().map(|number| number.get()).collect();
        Ok(Some((row, keywords)))
    }

    /// The prologue of the message that has this key and row; `None`: it should be there.
    pub(super) fn prologue<'t>(
        &self,
        txn: &'t RoTxn<'_>,
        key: &[u8],
        row: &MessageRow,
    ) -> Result<Option<Cow<'t, [u8]>>, IndexError> {
        if row.prologue_octets.get() == 0 {
            return Ok(Some(Cow::Borrowed(&[])));
        }
        let Some((key, number)) = row.bundle_place() else {
            return Ok(self.prologues.get(txn, key)?.map(Cow::Borrowed));
        };
        match self.bundles.get(txn, &key)? {
            Some(found) => Ok(bundle::member(found, number)?),
            None => Ok(None),
        }
    }

    /// An expunged message that can be brought back.
    pub(super) fn kept(
        &self,
        txn: &RoTxn<'_>,
        account: AccountId,
        mailbox: MailboxId,
        uid: u32,
    ) -> Result<Option<KeptRow>, IndexError> {
        let bytes = self.kept.get(txn, &message_key(account, mailbox, uid))?;
        Ok(bytes.map(KeptRow::decode).transpose()?)
    }

    /// Calls `each` for every message whose key begins with `prefix`, by mailbox and UID.
    pub(super) fn each_message<E: From<IndexError> + From<heed::Error>>(
        &self,
        txn: &RoTxn<'_>,
        prefix: &[u8],
        mut each: impl FnMut(MailboxId, u32, &MessageRow, &[U16]) -> Result<(), E>,
    ) -> Result<(), E> {
        for row in self.messages.prefix_iter(txn, prefix)? {
            let (key, bytes) = row?;
            let (mailbox, uid) =
                message_of(key).ok_or(IndexError::Contradiction("a message's key"))?;
            let (row, keywords) = MessageRow::decode(bytes).map_err(IndexError::from)?;
            each(mailbox, uid, &row, keywords)?;
        }
        Ok(())
    }

    /// UIDs of the messages of a mailbox that have `\Deleted`, growing: EXPUNGE costs what it removes, not what stays.
    pub(super) fn deleted_of(
        &self,
        txn: &RoTxn<'_>,
        account: AccountId,
        mailbox: MailboxId,
    ) -> Result<impl Iterator<Item = Result<u32, IndexError>>, IndexError> {
        let rows = self
            .deleted
            .prefix_iter(txn, &mailbox_key(account, mailbox))?;
        Ok(rows.map(|row| {
            let (_, uid) = message_of(row?.0).ok_or(IndexError::Contradiction("a deleted key"))?;
            Ok(uid)
        }))
    }

    /// All names an account has subscribed.
    pub(super) fn subscriptions_of(
        &self,
        txn: &RoTxn<'_>,
        account: AccountId,
    ) -> Result<BTreeSet<String>, IndexError> {
        let mut found = BTreeSet::new();
        for row in self
            .subscriptions
            .prefix_iter(txn, &account.0.to_be_bytes())?
        {
            found.insert(decode_subscription(row?.1)?);
        }
        Ok(found)
    }

    /// The entries of an account's annotations with the octets of their values.
    pub(super) fn annotations_of(
        &self,
        txn: &RoTxn<'_>,
        account: AccountId,
    ) -> Result<BTreeMap<(MailboxId, String), usize>, IndexError> {
        let mut found = BTreeMap::new();
        for row in self
            .annotations
            .prefix_iter(txn, &account.0.to_be_bytes())?
        {
            let (key, value) = row?;
            let (mailbox, entry) =
                annotation_of(key).ok_or(IndexError::Contradiction("a key of annotations"))?;
            let octets = decode_annotation(value)?.len();
            found.insert((mailbox, entry.to_owned()), octets);
        }
        Ok(found)
    }

    pub(super) fn has_transaction(
        &self,
        txn: &RoTxn<'_>,
        account: AccountId,
        transaction: &TransactionId,
    ) -> Result<bool, IndexError> {
        Ok(self.transaction(txn, account, transaction)?.is_some())
    }

    pub(super) fn transaction(
        &self,
        txn: &RoTxn<'_>,
        account: AccountId,
        transaction: &TransactionId,
    ) -> Result<Option<TransactionRow>, IndexError> {
        let key = transaction_key(account, transaction);
        let bytes = self.transactions.get(txn, &key)?;
        Ok(bytes.map(TransactionRow::decode).transpose()?)
    }

    pub(super) fn blob(&self, txn: &RoTxn<'_>, number: u64) -> Result<Option<BlobRow>, IndexError> {
        let bytes = self.blobs.get(txn, &number.to_be_bytes())?;
        Ok(bytes.map(BlobRow::decode).transpose()?)
    }

    /// The blob that takes new links for these octets.
    pub(super) fn blob_of(
        &self,
        txn: &RoTxn<'_>,
        hash: &Hash,
    ) -> Result<Option<(u64, BlobRow)>, IndexError> {
        let Some(bytes) = self.hashes.get(txn, hash)? else {
            return Ok(None);
        };
        let number = bytes
            .try_into()
            .map(u64::from_le_bytes)
            .map_err(|_| IndexError::Contradiction("a number"))?;
        let row = self
            .blob(txn, number)?
            .ok_or(IndexError::Contradiction("a blob"))?;
        Ok(Some((number, row)))
    }
}

/// What the one who writes finds.
#[derive(Default)]
struct Writer {
    /// What was written and a compaction does not have yet, while there is one.
    notes: Option<Notes>,
    /// The name is that of another file, and a power cut may take it back: with what was written since, which a checkpoint
    /// would rely on.
    is_sealed: bool,
}

impl Writer {
    fn check(&self) -> Result<(), heed::Error> {
        match self.is_sealed {
            false => Ok(()),
            true => Err(io::Error::other(SEALED).into()),
        }
    }
}

/// Reads under way, in the order in which they began.
#[derive(Default)]
struct Readers {
    open: Mutex<BTreeMap<u64, (Instant, u64)>>,
    next: AtomicU64,
    commits: AtomicU64,
}

/// How many reads are under way, and of the oldest its age.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadersStatus {
    /// Reads under way.
    pub count: u64,
    /// Since when the oldest is.
    pub oldest: Duration,
    /// Writes since then.
    pub oldest_lag_commits: u64,
}

struct Reader<'r> {
    readers: &'r Readers,
    number: u64,
}

impl Readers {
    fn enter(&self) -> Reader<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let began = (Instant::now(), self.commits.load(Ordering::Relaxed));
        self.lock().insert(number, began);
        Reader {
            readers: self,
            number,
        }
    }

    fn status(&self) -> ReadersStatus {
        let open = self.lock();
        let Some((began, commits)) = open.values().next() else {
            return ReadersStatus::default();
        };
        ReadersStatus {
            count: open.len() as u64,
            oldest: began.elapsed(),
            oldest_lag_commits: self
                .commits
                .load(Ordering::Relaxed)
                .saturating_sub(*commits),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, (Instant, u64)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.readers.lock().remove(&self.number);
    }
}

/// Names in the table `meta`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Meta {
    /// The last record in the index.
    Applied,
    /// The last record before which every file is on disk.
    Checkpoint,
    /// The number the next blob gets.
    BlobNext,
    /// How many accounts there are.
    Accounts,
}

impl Meta {
    fn key(self) -> &'static [u8] {
        match self {
            Self::Applied => b"applied",
            Self::Checkpoint => b"checkpoint",
            Self::BlobNext => b"blob_next",
            Self::Accounts => b"accounts",
        }
    }
}

const SEALED: &str =
    "it was made small, and which of two files a power cut would leave is not known";
const TABLES: [&str; 17] = [
    "meta",
    "mailboxes",
    "messages",
    "prologues",
    "bundles",
    "transactions",
    "blobs",
    "hashes",
    "unlinked",
    "expunged",
    "deleted",
    "subscriptions",
    "annotations",
    "cards",
    "shares",
    "kept",
    "kept_until",
];
