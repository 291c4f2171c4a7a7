//! Brings the index up to the journal: a pure function of the index and one record. It cannot refuse.

use std::collections::BTreeMap;

use bytes::Bytes;
use directory_api::{AccountId, Epoch};
use durable::{Lsn, Place};
use lmdb::heed::{RoTxn, RwTxn};
use zerocopy::IntoBytes;

use super::error::IndexError;
use super::index::{Index, Meta};
use super::item::{Content, MessageItem};
use super::record::{
    BlobRef, Body, CreateMailbox, Deliver, DropBlobs, Expunge, Import, PutBlob, Record, SetAccount,
    StoreFlags,
};
use super::rows::{
    AccountRow, BlobRow, MailboxRow, MessageRow, TransactionRow, mailbox_key, message_key,
    message_of, transaction_key, unlinked_key,
};
use super::types::{Flags, MailboxId};

/// A record with its place in the journal.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) lsn: Lsn,
    pub(super) place: Place,
    pub(super) record: Record,
}

/// Applies a run of records, in journal order, in one transaction.
///
/// # Errors
/// The index cannot be written or contradicts the journal; nothing was applied.
pub(super) fn apply_run<'r>(
    index: &Index,
    run: impl Iterator<Item = &'r Placed>,
) -> Result<Lsn, IndexError> {
    index.write(|txn| {
        let mut last = index.lsn(txn, Meta::Applied)?;
        for placed in run {
            if placed.lsn.0 != last.0 + 1 {
                return Err(IndexError::Contradiction("the record before"));
            }
            Apply {
                index,
                txn,
                lsn: placed.lsn,
                place: placed.place,
            }
            .record(&placed.record)?;
            last = placed.lsn;
        }
        index.set_number(txn, Meta::Applied, last.0)?;
        Ok(last)
    })
}

struct Apply<'a, 't> {
    index: &'a Index,
    txn: &'a mut RwTxn<'t>,
    lsn: Lsn,
    place: Place,
}

impl Apply<'_, '_> {
    fn record(&mut self, record: &Record) -> Result<(), IndexError> {
        match record {
            Record::Deliver(deliver) => self.deliver(deliver),
            Record::Expunge(expunge) => self.expunge(expunge),
            Record::Flags(flags) => self.flags(flags),
            Record::Mailbox(mailbox) => self.mailbox(mailbox),
            Record::Account(account) => self.account(account),
            Record::Import(import) => self.import(import),
            Record::Blob(PutBlob {
                keep_until_ms,
                blob,
            }) => self.new_blob(blob, *keep_until_ms),
            Record::Drop(drop) => self.drop_blobs(drop),
        }
    }

    fn deliver(&mut self, record: &Deliver) -> Result<(), IndexError> {
        if record.blob.body != Body::Known {
            self.new_blob(&record.blob, 0)?;
        }
        self.change_links(record.blob.number, 0, record.recipients.len() as u64, 0)?;
        for to in &record.recipients {
            let mut account = if to.inbox_uidvalidity == 0 {
                self.account_row(to.account)?
            } else {
                self.new_account(to.account, to.epoch, to.inbox_uidvalidity)?
            };
            let mut mailbox = self.mailbox_row(to.account, to.mailbox)?;
            let item = MessageItem {
                mailbox: to.mailbox,
                uid: to.uid,
                modseq: to.modseq,
                flags: Flags::default(),
                internal_date_ms: record.received_ms,
                save_date_ms: record.at_ms,
                thread: 0,
                identity: to.identity,
                hash: record.blob.hash,
                octets: record.blob.octets,
                prologue: to.prologue.clone(),
            };
            let row = self.put_message(to.account, &item, record.blob.number)?;
            self.put_transaction(
                to.account,
                &record.txn,
                to.mailbox,
                to.uid,
                record.received_ms,
            )?;
            account.epoch = to.epoch;
            count(&mut account, &mut mailbox, &row);
            mailbox.uidnext = to.uid + 1;
            mailbox.highestmodseq = to.modseq;
            self.index.put_account(self.txn, to.account, &account)?;
            self.index
                .put_mailbox(self.txn, to.account, to.mailbox, &mailbox)?;
        }
        Ok(())
    }

    fn expunge(&mut self, record: &Expunge) -> Result<(), IndexError> {
        let Expunge {
            account: id,
            mailbox: mailbox_id,
            ..
        } = *record;
        let mut account = self.account_row(id)?;
        let mut mailbox = self.mailbox_row(id, mailbox_id)?;
        let mut lost: BTreeMap<u64, u64> = BTreeMap::new();
        for uid in &record.uids {
            let row = self.message_row(id, mailbox_id, *uid)?;
            let key = message_key(id, mailbox_id, *uid);
            self.index.messages.delete(self.txn, &key)?;
            self.index.prologues.delete(self.txn, &key)?;
            *lost.entry(row.blob.get()).or_default() += 1;
            for (messages, octets) in [
                (&mut account.message_count, &mut account.size_octets),
                (&mut mailbox.message_count, &mut mailbox.size_octets),
            ] {
                *messages = messages.saturating_sub(1);
                *octets = octets.saturating_sub(row.size_octets());
            }
        }
        for (number, links) in lost {
            self.change_links(number, links, 0, record.keep_until_ms)?;
        }
        mailbox.highestmodseq = record.modseq;
        self.index.put_account(self.txn, id, &account)?;
        self.index.put_mailbox(self.txn, id, mailbox_id, &mailbox)
    }

    fn flags(&mut self, record: &StoreFlags) -> Result<(), IndexError> {
        for (uid, flags) in &record.changes {
            let mut row = self.message_row(record.account, record.mailbox, *uid)?;
            row.flags = flags.0.into();
            row.modseq = record.modseq.into();
            let key = message_key(record.account, record.mailbox, *uid);
            self.index.messages.put(self.txn, &key, row.as_bytes())?;
        }
        let mut mailbox = self.mailbox_row(record.account, record.mailbox)?;
        mailbox.highestmodseq = record.modseq;
        self.index
            .put_mailbox(self.txn, record.account, record.mailbox, &mailbox)
    }

    fn mailbox(&mut self, record: &CreateMailbox) -> Result<(), IndexError> {
        let mut account = self.account_row(record.account)?;
        account.mailbox_next = record.mailbox.0 + 1;
        account.uidvalidity_last = record.uidvalidity;
        self.index.put_account(self.txn, record.account, &account)?;
        let row = MailboxRow::new(record.name.clone(), record.uidvalidity);
        self.index
            .put_mailbox(self.txn, record.account, record.mailbox, &row)
    }

    fn account(&mut self, record: &SetAccount) -> Result<(), IndexError> {
        if record.wipe {
            self.wipe(record.account, record.keep_until_ms)?;
        }
        let row = if record.inbox_uidvalidity > 0 {
            self.new_account(record.account, record.epoch, record.inbox_uidvalidity)?
        } else if record.wipe {
            AccountRow::new(record.epoch)
        } else {
            self.account_row(record.account)?
        };
        let row = AccountRow {
            state: record.state,
            epoch: record.epoch,
            move_id: record.move_id,
            elsewhere: record.elsewhere.clone(),
            ..row
        };
        self.index.put_account(self.txn, record.account, &row)
    }

    fn import(&mut self, record: &Import) -> Result<(), IndexError> {
        for copy in &record.copies {
            self.new_blob(copy, 0)?;
        }
        let mut numbers = record.numbers.iter();
        let mut gained: BTreeMap<u64, u64> = BTreeMap::new();
        for item in &record.items {
            match Content::decode(item)? {
                Content::Account {
                    mailbox_next,
                    uidvalidity_last,
                    ..
                } => {
                    let row = AccountRow {
                        mailbox_next,
                        uidvalidity_last,
                        ..self.account_row(record.account)?
                    };
                    self.index.put_account(self.txn, record.account, &row)?;
                }
                Content::Mailbox {
                    mailbox,
                    uidvalidity,
                    uidnext,
                    highestmodseq,
                    name,
                } => {
                    let known = self.index.mailbox(self.txn, record.account, mailbox)?;
                    let known = known.unwrap_or_else(|| MailboxRow::new("", uidvalidity));
                    let row = MailboxRow {
                        uidvalidity,
                        uidnext,
                        highestmodseq,
                        name,
                        ..known
                    };
                    self.index
                        .put_mailbox(self.txn, record.account, mailbox, &row)?;
                }
                Content::Message(message) => {
                    let number = *numbers
                        .next()
                        .ok_or(IndexError::Contradiction("a blob's number"))?;
                    let row = self.put_message(record.account, &message, number)?;
                    *gained.entry(number).or_default() += 1;
                    let mut account = self.account_row(record.account)?;
                    let mut mailbox = self.mailbox_row(record.account, message.mailbox)?;
                    count(&mut account, &mut mailbox, &row);
                    self.index.put_account(self.txn, record.account, &account)?;
                    self.index
                        .put_mailbox(self.txn, record.account, message.mailbox, &mailbox)?;
                }
                Content::Transaction {
                    txn,
                    mailbox,
                    uid,
                    received_ms,
                } => {
                    self.put_transaction(record.account, &txn, mailbox, uid, received_ms)?;
                }
            }
        }
        for (number, links) in gained {
            self.change_links(number, 0, links, 0)?;
        }
        Ok(())
    }

    fn drop_blobs(&mut self, record: &DropBlobs) -> Result<(), IndexError> {
        for (number, hash) in &record.blobs {
            let row = self.blob_row(*number)?;
            if row.link_count.get() != 0 {
                return Err(IndexError::Contradiction("a blob without links"));
            }
            self.index
                .unlinked
                .delete(self.txn, &unlinked_key(row.keep_until_ms.get(), *number))?;
            self.index.blobs.delete(self.txn, &number.to_be_bytes())?;
            if self.index.hashes.get(self.txn, hash)? == Some(&number.to_le_bytes()[..]) {
                self.index.hashes.delete(self.txn, hash)?;
            }
        }
        Ok(())
    }

    /// Removes all that an account has, its row excepted.
    fn wipe(&mut self, account: AccountId, keep_until_ms: i64) -> Result<(), IndexError> {
        let prefix = account.0.to_be_bytes();
        let mut lost: BTreeMap<u64, u64> = BTreeMap::new();
        self.index
            .each_message::<IndexError>(self.txn, &prefix, |_, _, row| {
                *lost.entry(row.blob.get()).or_default() += 1;
                Ok(())
            })?;
        for table in [
            self.index.messages,
            self.index.prologues,
            self.index.transactions,
            self.index.mailboxes,
        ] {
            let mut keys: Vec<Vec<u8>> = Vec::new();
            for row in table.prefix_iter(self.txn, &prefix)? {
                let (key, _) = row?;
                if key != mailbox_key(account, MailboxId(0)) {
                    keys.push(key.to_vec());
                }
            }
            for key in keys {
                table.delete(self.txn, &key)?;
            }
        }
        for (number, links) in lost {
            self.change_links(number, links, 0, keep_until_ms)?;
        }
        Ok(())
    }

    fn new_account(
        &mut self,
        account: AccountId,
        epoch: Epoch,
        inbox_uidvalidity: u32,
    ) -> Result<AccountRow, IndexError> {
        if self.index.account(self.txn, account)?.is_none() {
            let count = self.index.number(self.txn, Meta::Accounts)?;
            self.index.set_number(self.txn, Meta::Accounts, count + 1)?;
        }
        let mut row = AccountRow::new(epoch);
        row.uidvalidity_last = inbox_uidvalidity;
        self.index.put_account(self.txn, account, &row)?;
        let inbox = MailboxRow::new("INBOX", inbox_uidvalidity);
        self.index
            .put_mailbox(self.txn, account, MailboxId::INBOX, &inbox)?;
        Ok(row)
    }

    fn new_blob(&mut self, blob: &BlobRef, keep_until_ms: i64) -> Result<(), IndexError> {
        let (source, token) = blob.body.tag();
        let body_octets = match &blob.body {
            Body::Inline(bytes) => {
                u32::try_from(bytes.len()).expect("a record is below 2^32 octets")
            }
            _ => 0,
        };
        let body_offset = self.place.len - body_octets;
        let row = BlobRow::new(
            blob.hash,
            blob.octets,
            self.lsn,
            source,
            token,
            self.place,
            body_offset,
            keep_until_ms,
        );
        self.index
            .blobs
            .put(self.txn, &blob.number.to_be_bytes(), row.as_bytes())?;
        self.index
            .hashes
            .put(self.txn, &blob.hash, &blob.number.to_le_bytes())?;
        self.index
            .unlinked
            .put(self.txn, &unlinked_key(keep_until_ms, blob.number), &[])?;
        let next = self
            .index
            .number(self.txn, Meta::BlobNext)?
            .max(blob.number + 1);
        self.index.set_number(self.txn, Meta::BlobNext, next)
    }

    /// Keeps the count, and the table of those without links.
    fn change_links(
        &mut self,
        number: u64,
        lost: u64,
        gained: u64,
        keep_until_ms: i64,
    ) -> Result<(), IndexError> {
        let mut row = self.blob_row(number)?;
        let before = row.link_count.get();
        let after = (before + gained)
            .checked_sub(lost)
            .ok_or(IndexError::Contradiction("a link"))?;
        if before == 0 && after > 0 {
            self.index
                .unlinked
                .delete(self.txn, &unlinked_key(row.keep_until_ms.get(), number))?;
            row.keep_until_ms = 0.into();
        }
        if before > 0 && after == 0 {
            self.index
                .unlinked
                .put(self.txn, &unlinked_key(keep_until_ms, number), &[])?;
            row.keep_until_ms = keep_until_ms.into();
        }
        row.link_count = after.into();
        Ok(self
            .index
            .blobs
            .put(self.txn, &number.to_be_bytes(), row.as_bytes())?)
    }

    fn put_message(
        &mut self,
        account: AccountId,
        item: &MessageItem,
        number: u64,
    ) -> Result<MessageRow, IndexError> {
        let row = item.row(number);
        let key = message_key(account, item.mailbox, item.uid);
        debug_assert_eq!(message_of(&key), Some((item.mailbox, item.uid)));
        self.index.messages.put(self.txn, &key, row.as_bytes())?;
        self.index.prologues.put(self.txn, &key, &item.prologue)?;
        Ok(row)
    }

    fn put_transaction(
        &mut self,
        account: AccountId,
        txn: &[u8; 16],
        mailbox: MailboxId,
        uid: u32,
        received_ms: i64,
    ) -> Result<(), IndexError> {
        let row = TransactionRow {
            version: 1,
            reserved: [0; 3],
            mailbox: mailbox.0.into(),
            uid: uid.into(),
            reserved_later: 0.into(),
            received_ms: received_ms.into(),
        };
        Ok(self
            .index
            .transactions
            .put(self.txn, &transaction_key(account, txn), row.as_bytes())?)
    }

    fn account_row(&self, account: AccountId) -> Result<AccountRow, IndexError> {
        self.index
            .account(self.txn, account)?
            .ok_or(IndexError::Contradiction("an account"))
    }

    fn mailbox_row(
        &self,
        account: AccountId,
        mailbox: MailboxId,
    ) -> Result<MailboxRow, IndexError> {
        self.index
            .mailbox(self.txn, account, mailbox)?
            .ok_or(IndexError::Contradiction("a mailbox"))
    }

    fn message_row(
        &self,
        account: AccountId,
        mailbox: MailboxId,
        uid: u32,
    ) -> Result<MessageRow, IndexError> {
        self.index
            .message(self.txn, account, mailbox, uid)?
            .ok_or(IndexError::Contradiction("a message"))
    }

    fn blob_row(&self, number: u64) -> Result<BlobRow, IndexError> {
        self.index
            .blob(self.txn, number)?
            .ok_or(IndexError::Contradiction("a blob"))
    }
}

fn count(account: &mut AccountRow, mailbox: &mut MailboxRow, row: &MessageRow) {
    for (messages, octets) in [
        (&mut account.message_count, &mut account.size_octets),
        (&mut mailbox.message_count, &mut mailbox.size_octets),
    ] {
        *messages += 1;
        *octets += row.size_octets();
    }
}

/// The prologue of one message.
pub(super) fn prologue(
    index: &Index,
    txn: &RoTxn<'_>,
    account: AccountId,
    mailbox: MailboxId,
    uid: u32,
) -> Result<Bytes, IndexError> {
    let found = index
        .prologues
        .get(txn, &message_key(account, mailbox, uid))?;
    Ok(Bytes::copy_from_slice(
        found.ok_or(IndexError::Contradiction("a prologue"))?,
    ))
}
