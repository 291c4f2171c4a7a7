//! Brings the index up to the journal: a pure function of the index and one record. It cannot refuse.

mod copy;
mod kept;
mod mailboxes;
mod transactions;

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use directory_api::{AccountId, Epoch};
use durable::{Lsn, Place};
use zerocopy::IntoBytes;

use super::acl::Acl;
use super::bundle;
use super::error::IndexError;
use super::index::{Index, Meta, RoTxn, RwTxn};
use super::item::{Content, MessageItem};
use super::record::{
    Append, BlobRef, Body, Deliver, DeliverTo, DropBlobs, Expunge, Grace, Import, MODSEQ_OF_IMPORT,
    NO_KEY, PutBlob, Record, SetAccount, StoreFlags,
};
use super::rows::{
    AccountRow, BlobRow, MailboxRow, MessageRow, bundle_key, decode_ranges, encode_ranges,
    expunged_key, expunged_of, mailbox_key, mailbox_of, message_key, message_of, ranges_of,
    unlinked_key,
};
use super::types::{Flags, MailboxId};
use crate::card::Card;

/// A record with its place in the journal.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) lsn: Lsn,
    pub(super) place: Place,
    pub(super) record: Record,
}

/// A card that was made when a message was read, for it had none.
#[derive(Clone, Debug)]
pub(super) struct NewCard {
    /// Of the blob.
    pub(super) number: u64,
    pub(super) octets: Vec<u8>,
}

/// Applies a run of records, in journal order, in one transaction, and keeps cards.
///
/// # Errors
/// The index cannot be written or contradicts the journal; nothing was applied.
pub(super) fn apply_run<'r>(
    index: &Index,
    run: impl Iterator<Item = &'r Placed>,
    cards: impl Iterator<Item = &'r NewCard>,
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
        for card in cards {
            // The blob may have gone meanwhile. Numbers are not given twice.
            if index.blob(txn, card.number)?.is_some() {
                index
                    .cards
                    .put(txn, &card.number.to_be_bytes(), &card.octets)?;
            }
        }
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
            Record::Append(append) => self.append(append),
            Record::Copy(copy) => self.copy(copy, Self::whole_message),
            Record::Delete(delete) => self.delete(delete),
            Record::Rename(rename) => self.rename(rename),
            Record::Subscribe(subscribe) => {
                self.subscribe(subscribe.account, &subscribe.name, subscribe.subscribed)
            }
            Record::SpecialUse(record) => {
                let mut row = self.mailbox_row(record.account, record.mailbox)?;
                row.special_use = record.special_use;
                self.index
                    .put_mailbox(self.txn, record.account, record.mailbox, &row)
            }
            Record::Acl(record) => {
                let mut row = self.mailbox_row(record.account, record.mailbox)?;
                self.share(record.account, record.mailbox, &row.acl, &record.acl)?;
                row.acl.clone_from(&record.acl);
                self.index
                    .put_mailbox(self.txn, record.account, record.mailbox, &row)
            }
            Record::Annotate(record) => record.changes.iter().try_for_each(|(entry, value)| {
                self.annotate(record.account, record.mailbox, entry, value.as_deref())
            }),
            Record::Undelete(undelete) => self.copy(undelete, Self::take_kept),
            Record::Purge(purge) => self.purge(purge),
            Record::Answered(answered) => self.answered(answered),
        }
    }

    fn deliver(&mut self, record: &Deliver) -> Result<(), IndexError> {
        if record.blob.body != Body::Known {
            self.new_blob(&record.blob, 0)?;
        }
        self.change_links(record.blob.number, 0, record.recipients.len() as u64, 0)?;
        self.put_bundles(&record.recipients)?;
        for (recipient, to) in (0..).zip(&record.recipients) {
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
                keywords: Vec::new(),
                internal_date_ms: record.received_ms,
                save_date_ms: record.at_ms,
                thread: 0,
                identity: to.identity,
                hash: record.blob.hash,
                octets: record.blob.octets,
                prologue: to.prologue.clone(),
            };
            let key = message_key(to.account, to.mailbox, to.uid);
            let row = item.row(record.blob.number);
            let (row, own) = match bundle::takes(&to.prologue) {
                true => (row.bundled(self.lsn, recipient), &[][..]),
                false => (row, &to.prologue[..]),
            };
            self.write_message(&key, row, &[], own)?;
            let at = (to.mailbox, to.uid);
            self.put_transaction(to.account, &record.txn, at, record.at_ms)?;
            self.forget_transactions(to.account, &record.txn, record.at_ms)?;
            if to.key != NO_KEY {
                self.put_transaction(to.account, &to.key, at, record.at_ms)?;
                self.forget_transactions(to.account, &to.key, record.at_ms)?;
            }
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

    /// Keeps the prologues of a delivery together. They are the table's last rows, for LSNs grow: pages are filled to the end.
    fn put_bundles(&mut self, recipients: &[DeliverTo]) -> Result<(), IndexError> {
        let mut bundles: BTreeMap<u32, Vec<bundle::Member<'_>>> = BTreeMap::new();
        for (recipient, to) in (0..).zip(recipients) {
            if bundle::takes(&to.prologue) {
                let (bundle, number) = bundle::place(recipient);
                let member = (number, Cow::Borrowed(&to.prologue[..]));
                bundles.entry(bundle).or_default().push(member);
            }
        }
        for (bundle, members) in bundles {
            let (key, row) = (bundle_key(self.lsn.0, bundle), bundle::encode(&members));
            self.index.bundles.append(self.txn, &key, &row)?;
        }
        Ok(())
    }

    /// Removes the prologue of a message that goes.
    fn remove_prologue(&mut self, key: &[u8], row: &MessageRow) -> Result<(), IndexError> {
        let Some((key, number)) = row.bundle_place() else {
            self.index.prologues.delete(self.txn, key)?;
            return Ok(());
        };
        let table = self.index.bundles;
        let found = table.get(self.txn, &key)?;
        let found = found.ok_or(IndexError::Contradiction("a bundle"))?;
        let mut members = bundle::members(found)?;
        members.retain(|(member, _)| *member != number);
        let left = (!members.is_empty()).then(|| bundle::encode(&members));
        match left {
            Some(left) => table.put(self.txn, &key, &left)?,
            None => {
                table.delete(self.txn, &key)?;
            }
        }
        Ok(())
    }

    fn expunge(&mut self, record: &Expunge) -> Result<(), IndexError> {
        self.remove_messages(
            record.account,
            record.mailbox,
            record.modseq,
            &record.uids,
            record.grace,
        )
    }

    /// Removes messages, and notes that they went with `modseq`. With a grace they can be brought back.
    fn remove_messages(
        &mut self,
        id: AccountId,
        mailbox_id: MailboxId,
        modseq: u64,
        uids: &[u32],
        grace: Grace,
    ) -> Result<(), IndexError> {
        let mut account = self.account_row(id)?;
        let mut mailbox = self.mailbox_row(id, mailbox_id)?;
        let mut lost: BTreeMap<u64, u64> = BTreeMap::new();
        for uid in uids {
            let (row, keywords) = self.message_row(id, mailbox_id, *uid)?;
            self.keep(id, (mailbox_id, &mailbox), *uid, (&row, &keywords), grace)?;
            let key = message_key(id, mailbox_id, *uid);
            self.index.messages.delete(self.txn, &key)?;
            self.remove_prologue(&key, &row)?;
            if row.flags().contains(Flags::DELETED) {
                self.index.deleted.delete(self.txn, &key)?;
            }
            *lost.entry(row.blob.get()).or_default() += 1;
            uncount(&mut account, &mut mailbox, &row);
        }
        for (number, links) in lost {
            self.change_links(number, links, 0, grace.until_ms)?;
        }
        // What an import takes back was nobody's here: its history is the source's, which comes with its items.
        if modseq != MODSEQ_OF_IMPORT {
            let ranges = ranges_of(uids.iter().copied());
            self.note_expunged(id, mailbox_id, &mut mailbox, modseq, &ranges)?;
            mailbox.highestmodseq = modseq;
        }
        self.index.put_account(self.txn, id, &account)?;
        self.index.put_mailbox(self.txn, id, mailbox_id, &mailbox)
    }

    /// Writes the history for QRESYNC, and forgets the oldest of it when it is long.
    fn note_expunged(
        &mut self,
        account: AccountId,
        mailbox: MailboxId,
        row: &mut MailboxRow,
        modseq: u64,
        ranges: &[(u32, u32)],
    ) -> Result<(), IndexError> {
        let table = self.index.expunged;
        let key = expunged_key(account, mailbox, modseq);
        // A resumed import brings it twice.
        if let Some(known) = table.get(self.txn, &key)? {
            row.expunged_ranges -= range_count(&decode_ranges(known)?);
        }
        if ranges.is_empty() {
            // The source of an import has forgotten it.
            table.delete(self.txn, &key)?;
            return Ok(());
        }
        table.put(self.txn, &key, &encode_ranges(ranges))?;
        row.expunged_ranges += range_count(ranges);
        while row.expunged_ranges > EXPUNGED_RANGES_MAX {
            let first = table
                .prefix_iter(self.txn, &mailbox_key(account, mailbox))?
                .next()
                .ok_or(IndexError::Contradiction("an expunged row"))?;
            let (key, ranges) = first.map(|(key, value)| (key.to_vec(), decode_ranges(value)))?;
            let (_, oldest) =
                expunged_of(&key).ok_or(IndexError::Contradiction("a key of expunged"))?;
            row.expunged_ranges -= range_count(&ranges?);
            row.expunged_floor = oldest;
            table.delete(self.txn, &key)?;
        }
        Ok(())
    }

    fn flags(&mut self, record: &StoreFlags) -> Result<(), IndexError> {
        let mut mailbox = self.mailbox_row(record.account, record.mailbox)?;
        for change in &record.changes {
            let (mut row, _) = self.message_row(record.account, record.mailbox, change.uid)?;
            count_flags(&mut mailbox, row.flags(), change.flags);
            let key = message_key(record.account, record.mailbox, change.uid);
            let is_deleted = change.flags.contains(Flags::DELETED);
            if is_deleted && !row.flags().contains(Flags::DELETED) {
                self.index.deleted.put(self.txn, &key, &[])?;
            } else if !is_deleted && row.flags().contains(Flags::DELETED) {
                self.index.deleted.delete(self.txn, &key)?;
            }
            row.flags = change.flags.0.into();
            row.modseq = record.modseq.into();
            self.index
                .messages
                .put(self.txn, &key, &row.encode(&change.keywords))?;
        }
        mailbox.keywords.extend_from_slice(&record.new_keywords);
        mailbox.highestmodseq = record.modseq;
        mailbox.stored_modseq = record.modseq;
        self.index
            .put_mailbox(self.txn, record.account, record.mailbox, &mailbox)
    }

    fn append(&mut self, record: &Append) -> Result<(), IndexError> {
        for copy in &record.copies {
            self.new_blob(copy, 0)?;
        }
        let mut account = self.account_row(record.account)?;
        let mut mailbox = self.mailbox_row(record.account, record.mailbox)?;
        for message in &record.messages {
            let item = MessageItem {
                mailbox: record.mailbox,
                uid: message.flags.uid,
                modseq: record.modseq,
                flags: message.flags.flags,
                keywords: message.flags.keywords.clone(),
                internal_date_ms: message.internal_date_ms,
                save_date_ms: record.saved_ms,
                thread: 0,
                identity: message.identity,
                hash: message.hash,
                octets: message.octets,
                prologue: Bytes::new(),
            };
            self.change_links(message.blob, 0, 1, 0)?;
            let row = self.put_message(record.account, &item, message.blob)?;
            count(&mut account, &mut mailbox, &row);
            mailbox.uidnext = item.uid + 1;
        }
        mailbox.keywords.extend_from_slice(&record.new_keywords);
        mailbox.highestmodseq = record.modseq;
        self.index.put_account(self.txn, record.account, &account)?;
        self.index
            .put_mailbox(self.txn, record.account, record.mailbox, &mailbox)?;
        match &record.replaced {
            Some(gone) => self.remove_messages(
                record.account,
                gone.mailbox,
                gone.modseq,
                &[gone.uid],
                gone.grace,
            ),
            None => Ok(()),
        }
    }

    fn account(&mut self, record: &SetAccount) -> Result<(), IndexError> {
        let before = self.index.account(self.txn, record.account)?;
        if record.wipe {
            self.wipe(record.account, record.keep_until_ms)?;
        }
        let row = if record.inbox_uidvalidity > 0 {
            self.new_account(record.account, record.epoch, record.inbox_uidvalidity)?
        } else if record.wipe {
            self.count_account(record.account)?;
            AccountRow::new(record.epoch)
        } else {
            self.account_row(record.account)?
        };
        let mut row = AccountRow {
            state: record.state,
            epoch: record.epoch,
            elsewhere: record.elsewhere.clone(),
            quota: record.quota,
            ..row
        };
        if let Some(before) = before {
            (row.move_id, row.moves_before) = (before.move_id, before.moves_before);
        }
        row.set_move(record.move_id);
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
                    quota,
                    ..
                } => {
                    let row = AccountRow {
                        mailbox_next,
                        uidvalidity_last,
                        quota,
                        ..self.account_row(record.account)?
                    };
                    self.index.put_account(self.txn, record.account, &row)?;
                }
                Content::Mailbox(item) => {
                    let known = self.index.mailbox(self.txn, record.account, item.mailbox)?;
                    let before = known.as_ref().map(|row| row.acl.clone());
                    let before = before.unwrap_or_default();
                    self.share(record.account, item.mailbox, &before, &item.acl)?;
                    let row = item.row(record.account, known);
                    self.index
                        .put_mailbox(self.txn, record.account, item.mailbox, &row)?;
                }
                Content::Expunged {
                    mailbox,
                    modseq,
                    ranges,
                } => {
                    let mut row = self.mailbox_row(record.account, mailbox)?;
                    self.note_expunged(record.account, mailbox, &mut row, modseq, &ranges)?;
                    self.index
                        .put_mailbox(self.txn, record.account, mailbox, &row)?;
                }
                Content::Subscription { name } => {
                    self.subscribe(record.account, &name, true)?;
                }
                Content::Annotation {
                    mailbox,
                    entry,
                    value,
                } => self.annotate(record.account, mailbox, &entry, Some(&value))?,
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
                    committed_ms,
                } => {
                    self.put_transaction(record.account, &txn, (mailbox, uid), committed_ms)?;
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
            self.index.cards.delete(self.txn, &number.to_be_bytes())?;
            if self.index.hashes.get(self.txn, hash)? == Some(&number.to_le_bytes()[..]) {
                self.index.hashes.delete(self.txn, hash)?;
            }
        }
        Ok(())
    }

    /// Removes all that an account has, its row excepted.
    fn wipe(&mut self, account: AccountId, keep_until_ms: i64) -> Result<(), IndexError> {
        self.forget_all_kept(account)?;
        self.remove_below(&account.0.to_be_bytes(), keep_until_ms)
    }

    /// Removes every row whose key begins with an account, or with an account and a mailbox; the account's own excepted.
    fn remove_below(&mut self, prefix: &[u8], keep_until_ms: i64) -> Result<(), IndexError> {
        let mut lost: BTreeMap<u64, u64> = BTreeMap::new();
        let mut bundled = Vec::new();
        self.index
            .each_message::<IndexError>(self.txn, prefix, |_, _, row, _| {
                *lost.entry(row.blob.get()).or_default() += 1;
                bundled.extend(row.bundle_place().map(|_| *row));
                Ok(())
            })?;
        for row in bundled {
            self.remove_prologue(&[], &row)?;
        }
        let mut shared = Vec::new();
        for row in self.index.mailboxes.prefix_iter(self.txn, prefix)? {
            let (key, value) = row?;
            // The account's row has the key of mailbox 0.
            if let Some((account, mailbox)) = mailbox_of(key).filter(|(_, id)| id.0 != 0) {
                shared.push((account, mailbox, MailboxRow::decode(value)?.acl));
            }
        }
        for (account, mailbox, acl) in shared {
            self.share(account, mailbox, &acl, &Acl::default())?;
        }
        let by_mailbox = [
            self.index.messages,
            self.index.prologues,
            self.index.deleted,
            self.index.expunged,
            self.index.annotations,
            self.index.mailboxes,
        ];
        // Their keys go on with other things than a mailbox.
        let by_account = [self.index.transactions, self.index.subscriptions];
        let is_account = prefix.len() == size_of::<u64>();
        for table in by_mailbox
            .into_iter()
            .chain(by_account.into_iter().filter(|_| is_account))
        {
            let mut keys: Vec<Vec<u8>> = Vec::new();
            for row in table.prefix_iter(self.txn, prefix)? {
                let (key, _) = row?;
                // The account's row has the key of mailbox 0.
                if key.len() != ACCOUNT_KEY_BYTES || key[8..] != [0; 4] {
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
        self.count_account(account)?;
        let mut row = AccountRow::new(epoch);
        row.uidvalidity_last = inbox_uidvalidity;
        self.index.put_account(self.txn, account, &row)?;
        let inbox = MailboxRow::new(account, MailboxId::INBOX, "INBOX", inbox_uidvalidity);
        self.index
            .put_mailbox(self.txn, account, MailboxId::INBOX, &inbox)?;
        Ok(row)
    }

    /// Counts an account that has no row yet.
    fn count_account(&mut self, account: AccountId) -> Result<(), IndexError> {
        if self.index.account(self.txn, account)?.is_none() {
            let count = self.index.number(self.txn, Meta::Accounts)?;
            self.index.set_number(self.txn, Meta::Accounts, count + 1)?;
        }
        Ok(())
    }

    fn new_blob(&mut self, blob: &BlobRef, keep_until_ms: i64) -> Result<(), IndexError> {
        let (source, token) = blob.body.tag();
        let body_octets = match &blob.body {
            Body::Inline(_) | Body::Left => {
                u32::try_from(blob.octets).map_err(|_| IndexError::Contradiction("a body"))?
            }
            _ => 0,
        };
        let body_offset = self.place.len.checked_sub(body_octets);
        let body_offset = body_offset.ok_or(IndexError::Contradiction("a body"))?;
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
        let card = match &blob.body {
            Body::Inline(octets) => Some(Card::of_blob(octets)),
            Body::Copied(from) => {
                let card = self.index.cards.get(self.txn, &from.to_be_bytes())?;
                card.map(<[u8]>::to_vec)
            }
            // A large one is not at hand: its card is made when it is first asked for.
            Body::Spilled(_) | Body::Known | Body::Left => None,
        };
        if let Some(card) = card {
            let key = blob.number.to_be_bytes();
            self.index.cards.put(self.txn, &key, &card)?;
        }
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
        }
        if lost > 0 {
            // The last one that goes may have been given less time than one before it: the setting was changed, or the clock.
            row.keep_until_ms = row.keep_until_ms.get().max(keep_until_ms).into();
        }
        if before > 0 && after == 0 {
            self.index.unlinked.put(
                self.txn,
                &unlinked_key(row.keep_until_ms.get(), number),
                &[],
            )?;
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
        self.write_message(&key, row, &item.keywords, &item.prologue)?;
        Ok(row)
    }

    fn write_message(
        &mut self,
        key: &[u8],
        row: MessageRow,
        keywords: &[u16],
        prologue: &[u8],
    ) -> Result<(), IndexError> {
        self.index
            .messages
            .put(self.txn, key, &row.encode(keywords))?;
        if !prologue.is_empty() {
            self.index.prologues.put(self.txn, key, prologue)?;
        }
        if row.flags().contains(Flags::DELETED) {
            self.index.deleted.put(self.txn, key, &[])?;
        }
        Ok(())
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
    ) -> Result<(MessageRow, Vec<u16>), IndexError> {
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
    count_flags(mailbox, Flags::SEEN, row.flags());
}

fn uncount(account: &mut AccountRow, mailbox: &mut MailboxRow, row: &MessageRow) {
    for (messages, octets) in [
        (&mut account.message_count, &mut account.size_octets),
        (&mut mailbox.message_count, &mut mailbox.size_octets),
    ] {
        *messages = messages.saturating_sub(1);
        *octets = octets.saturating_sub(row.size_octets());
    }
    count_flags(mailbox, row.flags(), Flags::SEEN);
}

/// Keeps the counts when flags change. A message that counts for nothing is seen and not deleted.
fn count_flags(mailbox: &mut MailboxRow, before: Flags, after: Flags) {
    let count = |flag: Flags, wanted: bool| {
        (
            u32::from(before.contains(flag) == wanted),
            u32::from(after.contains(flag) == wanted),
        )
    };
    for (total, (less, more)) in [
        (&mut mailbox.unseen_count, count(Flags::SEEN, false)),
        (&mut mailbox.deleted_count, count(Flags::DELETED, true)),
    ] {
        *total = (*total + more).saturating_sub(less);
    }
}

fn range_count(ranges: &[(u32, u32)]) -> u32 {
    u32::try_from(ranges.len()).expect("a record has far less than 2^32 octets")
}

/// The prologue of one message.
pub(super) fn prologue(
    index: &Index,
    txn: &RoTxn<'_>,
    account: AccountId,
    mailbox: MailboxId,
    uid: u32,
    row: &MessageRow,
) -> Result<Bytes, IndexError> {
    let found = index.prologue(txn, &message_key(account, mailbox, uid), row)?;
    let found = found.ok_or(IndexError::Contradiction("a prologue"))?;
    Ok(Bytes::from(found.into_owned()))
}

const ACCOUNT_KEY_BYTES: usize = 12;
/// Ranges of expunged UIDs kept for a mailbox: 30 KiB of index at most. A client that was away for longer is told every
/// UID without a message, which is as right and only longer.
const EXPUNGED_RANGES_MAX: u32 = 1000;
