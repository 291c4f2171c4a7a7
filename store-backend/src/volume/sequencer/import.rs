//! Taking over items and blobs from another back-end: every identity bit for bit (P3).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use directory_api::AccountId;

use super::super::acl::Acl;
use super::super::blob::FinishedBlob;
use super::super::intake::Reply;
use super::super::item::{Content, MessageItem};
use super::super::record::{
    Annotate, Body, DeleteMailbox, Expunge, FlagsOf, Grace, Import, MODSEQ_OF_IMPORT, PutBlob,
    Record, StoreFlags, Subscribe,
};
use super::super::rows::State;
use super::super::types::{
    ANNOTATION_MAX_BYTES, Flags, Hash, Item, KEYWORD_MAX_BYTES, KEYWORDS_MAX, MESSAGE_KEYWORDS_MAX,
    MailboxId, MoveId, PROLOGUE_MAX_BYTES, Refusal,
};
use super::accounts::{Account, InFlight, Known};
use super::annotations::is_annotation;
use super::messages::remove_message;
use super::{Batch, Bring, Decided, Sequencer, Stop, blob_ref, canonical};

impl Sequencer {
    pub(super) fn put_blob(
        &mut self,
        batch: &mut Batch<'_>,
        finished: FinishedBlob,
    ) -> Result<Decided, Stop> {
        batch.check_room()?;
        let (hash, octets) = (finished.hash(), finished.size());
        if !self.has_body(batch, &hash)? {
            let blob = self.new_blob(batch, hash, 0);
            batch.records.push(Record::Blob(PutBlob {
                keep_until_ms: batch.now_ms + IMPORTED_BLOB_KEEP_MS,
                blob: blob_ref(blob.number, hash, octets, finished.into_body()),
            }));
        }
        Ok(Decided::AfterApply(Reply::Done))
    }

    pub(super) fn import_items(
        &mut self,
        batch: &mut Batch<'_>,
        account: AccountId,
        move_id: MoveId,
        items: &[Item],
    ) -> Result<Decided, Stop> {
        batch.check_room()?;
        let entry = self.importing(batch, account, move_id)?;
        let contents = parse(account, items, entry)?;
        let (wanted, changed) = self.new_or_changed(batch, account, contents)?;
        self.check_blobs(batch, &wanted)?;
        let mut record = Import::of(account);
        let mut record_bytes = 0;
        for content in wanted {
            let item = content.encode().0;
            if record_bytes + item.len() > RECORD_MAX_BYTES && !record.items.is_empty() {
                let full = std::mem::replace(&mut record, Import::of(account));
                batch.records.push(Record::Import(full));
                record_bytes = 0;
            }
            record_bytes += item.len();
            let lsn = batch.lsn();
            self.account(batch, account)?.last = lsn;
            match &content {
                Content::Message(message) => {
                    let (blob, bring) = self
                        .link(batch, &message.hash)?
                        .expect("all blobs were found before");
                    if let Bring::CopyOf(from) = bring {
                        let body = Body::Copied(from);
                        record.copies.push(blob_ref(
                            blob.number,
                            message.hash,
                            message.octets,
                            body,
                        ));
                    }
                    record.numbers.push(blob.number);
                    let entry = self.account(batch, account)?;
                    let known = Known {
                        flags: message.flags,
                        keywords: message.keywords.clone(),
                        modseq: message.modseq,
                        blob: blob.number,
                        octets: message.octets,
                        size_octets: message.prologue.len() as u64 + message.octets,
                        hash: Some(message.hash),
                    };
                    entry.count_in(message.mailbox, known.size_octets);
                    let in_flight = InFlight::Has(known);
                    entry.touch_message(lsn, message.mailbox, message.uid, in_flight);
                }
                other => take_over(self.account(batch, account)?, account, other),
            }
            record.items.push(item);
        }
        if !record.items.is_empty() {
            batch.records.push(Record::Import(record));
        }
        self.follow_flags(batch, account, changed)?;
        Ok(Decided::AfterApply(Reply::Done))
    }

    /// The import that a move has under way here.
    fn importing(
        &mut self,
        batch: &Batch<'_>,
        account: AccountId,
        move_id: MoveId,
    ) -> Result<&mut Account, Stop> {
        self.check_import(batch, account)?;
        let applied = self.applied;
        let entry = self.account(batch, account)?;
        match &entry.row {
            Some(row) if row.state == State::Importing && row.move_id == move_id => {}
            Some(row) if row.state == State::Importing => return Err(Refusal::OtherMove.into()),
            _ => return Err(Refusal::WrongState.into()),
        }
        if entry.wiped > applied {
            return Err(Refusal::WrongState.into());
        }
        Ok(entry)
    }

    /// Takes back what the source has no more. The records are those by which an owner removes it, without a grace: nobody
    /// has seen it here.
    pub(super) fn import_gone(
        &mut self,
        batch: &mut Batch<'_>,
        account: AccountId,
        move_id: MoveId,
        items: &[Item],
    ) -> Result<Decided, Stop> {
        self.importing(batch, account, move_id)?;
        let contents: Result<Vec<Content>, _> =
            items.iter().map(|item| Content::decode(&item.0)).collect();
        let contents = contents.map_err(|_| Refusal::BadItem)?;
        let mut expunged: BTreeMap<MailboxId, BTreeSet<u32>> = BTreeMap::new();
        let mut forgotten = Import::of(account);
        for content in contents {
            let lsn = batch.lsn();
            match content {
                // Every account has these two.
                Content::Account { .. } => return Err(Refusal::BadItem.into()),
                Content::Mailbox(item) if item.mailbox == MailboxId::INBOX => {
                    return Err(Refusal::BadItem.into());
                }
                Content::Mailbox(item) => {
                    let entry = self.account(batch, account)?;
                    if entry.remove_mailbox(item.mailbox) {
                        entry.last = lsn;
                        batch.records.push(Record::Delete(DeleteMailbox {
                            account,
                            mailbox: item.mailbox,
                            grace: Grace::none(batch.now_ms),
                        }));
                    }
                }
                Content::Message(item) => {
                    expunged.entry(item.mailbox).or_default().insert(item.uid);
                }
                Content::Subscription { name } => {
                    let entry = self.account(batch, account)?;
                    entry.last = lsn;
                    if let Some(names) = &mut entry.subscriptions {
                        names.remove(&name);
                    }
                    batch.records.push(Record::Subscribe(Subscribe {
                        account,
                        subscribed: false,
                        name,
                    }));
                }
                Content::Annotation {
                    mailbox,
                    entry: name,
                    ..
                } => {
                    let entry = self.account(batch, account)?;
                    let is_there = mailbox.0 == 0 || entry.mailboxes.contains_key(&mailbox);
                    if is_there {
                        entry.last = lsn;
                        if let Some(annotations) = &mut entry.annotations {
                            annotations.set(mailbox, &name, None);
                        }
                        batch.records.push(Record::Annotate(Annotate {
                            account,
                            mailbox,
                            changes: vec![(name, None)],
                        }));
                    }
                }
                Content::Expunged {
                    mailbox, modseq, ..
                } => {
                    let entry = self.account(batch, account)?;
                    if entry.mailboxes.contains_key(&mailbox) {
                        forgotten.items.push(no_history(mailbox, modseq));
                    }
                }
                Content::Transaction {
                    txn,
                    mailbox,
                    committed_ms,
                    ..
                } => {
                    let nothing = Content::Transaction {
                        txn,
                        mailbox,
                        uid: 0,
                        committed_ms,
                    };
                    forgotten.items.push(nothing.encode().0);
                }
            }
        }
        for (mailbox, uids) in expunged {
            let mut there = Vec::with_capacity(uids.len());
            for uid in uids {
                if let Some(known) = self.message_now(batch, account, mailbox, uid)? {
                    there.push((uid, known.size_octets));
                }
            }
            let lsn = batch.lsn();
            let entry = self.account(batch, account)?;
            if there.is_empty() || !entry.mailboxes.contains_key(&mailbox) {
                continue;
            }
            for (uid, octets) in &there {
                remove_message(entry, lsn, mailbox, *uid, *octets)?;
            }
            batch.records.push(Record::Expunge(Expunge {
                account,
                mailbox,
                modseq: MODSEQ_OF_IMPORT,
                grace: Grace::none(batch.now_ms),
                uids: there.into_iter().map(|(uid, _)| uid).collect(),
            }));
        }
        if !forgotten.items.is_empty() {
            let lsn = batch.lsn();
            self.account(batch, account)?.last = lsn;
            batch.records.push(Record::Import(forgotten));
        }
        Ok(Decided::AfterApply(Reply::Done))
    }

    /// Gives messages that are here the flags and MODSEQs that they have at their source now.
    fn follow_flags(
        &mut self,
        batch: &mut Batch<'_>,
        account: AccountId,
        changed: BTreeMap<(MailboxId, u64), Vec<(FlagsOf, Known)>>,
    ) -> Result<(), Stop> {
        let mailboxes: BTreeSet<MailboxId> = changed.keys().map(|(mailbox, _)| *mailbox).collect();
        for ((mailbox, modseq), messages) in changed {
            let lsn = batch.lsn();
            let entry = self.account(batch, account)?;
            let mut changes = Vec::with_capacity(messages.len());
            for (flags, known) in messages {
                entry.touch_message(lsn, mailbox, flags.uid, InFlight::Has(known));
                changes.push(flags);
            }
            batch.records.push(Record::Flags(StoreFlags {
                account,
                mailbox,
                modseq,
                new_keywords: Vec::new(),
                changes,
            }));
        }
        // Those records have set the mailbox's MODSEQ, too.
        let lsn = batch.lsn();
        let entry = self.account(batch, account)?;
        let mut record = Import::of(account);
        for mailbox in mailboxes {
            record.items.extend(as_it_was(entry, mailbox));
        }
        if !record.items.is_empty() {
            entry.last = lsn;
            batch.records.push(Record::Import(record));
        }
        Ok(())
    }

    /// What is to be taken over, without the messages that are here already: an import that is resumed, or follows its source,
    /// brings some again. And those of them that have other flags now, by mailbox and MODSEQ.
    #[expect(clippy::type_complexity, reason = "it is taken apart at once")]
    fn new_or_changed(
        &self,
        batch: &Batch<'_>,
        account: AccountId,
        contents: Vec<Content>,
    ) -> Result<
        (
            Vec<Content>,
            BTreeMap<(MailboxId, u64), Vec<(FlagsOf, Known)>>,
        ),
        Stop,
    > {
        let mut wanted = Vec::with_capacity(contents.len());
        let mut changed: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for content in contents {
            if let Content::Message(message) = &content
                && let Some(known) =
                    self.message_now(batch, account, message.mailbox, message.uid)?
            {
                if self.hash_of(batch, &known)? != message.hash {
                    // A UID names one message for ever (P3).
                    return Err(Refusal::BadItem.into());
                }
                let after = Known {
                    flags: message.flags,
                    keywords: message.keywords.clone(),
                    modseq: message.modseq,
                    ..known.clone()
                };
                if after != known {
                    let flags = FlagsOf {
                        uid: message.uid,
                        flags: message.flags,
                        keywords: message.keywords.clone(),
                    };
                    let of_modseq = changed.entry((message.mailbox, message.modseq));
                    of_modseq.or_default().push((flags, after));
                }
                continue;
            }
            wanted.push(content);
        }
        Ok((wanted, changed))
    }

    fn check_blobs(&self, batch: &Batch<'_>, wanted: &[Content]) -> Result<(), Stop> {
        let mut missing: HashMap<Hash, ()> = HashMap::new();
        for content in wanted {
            if let Content::Message(MessageItem { hash, .. }) = content
                && self.current(batch, hash)?.is_none()
            {
                missing.insert(*hash, ());
            }
        }
        if missing.is_empty() {
            Ok(())
        } else {
            Err(Refusal::MissingBlobs(missing.into_keys().collect()).into())
        }
    }
}

/// An item by which a part of the history goes.
fn no_history(mailbox: MailboxId, modseq: u64) -> Bytes {
    let nothing = Content::Expunged {
        mailbox,
        modseq,
        ranges: Vec::new(),
    };
    nothing.encode().0
}

/// The mailbox's item, to be written again behind records that change more of it than was meant.
fn as_it_was(entry: &Account, mailbox: MailboxId) -> Option<Bytes> {
    let row = entry.mailboxes.get(&mailbox)?;
    Some(Content::mailbox(mailbox, (**row).clone()).encode().0)
}

/// Reads the items and refuses those that cannot belong to this account.
fn parse(account: AccountId, items: &[Item], entry: &Account) -> Result<Vec<Content>, Refusal> {
    let mut coming: Vec<MailboxId> = Vec::new();
    let mut seen: HashMap<(MailboxId, u32), Flags> = HashMap::new();
    let mut contents = Vec::with_capacity(items.len());
    for item in items {
        let content = Content::decode(&item.0).map_err(|_| Refusal::BadItem)?;
        let fits = match &content {
            Content::Account { account: named, .. } => *named == account,
            Content::Mailbox(item) => {
                coming.push(item.mailbox);
                let short = |keyword: &String| keyword.len() <= KEYWORD_MAX_BYTES;
                item.mailbox.0 > 0
                    && canonical(&item.name).is_ok_and(|name| name == item.name)
                    && item.keywords.len() <= KEYWORDS_MAX
                    && item.keywords.iter().all(short)
                    && (item.acl == Acl::default() || item.acl.is_valid())
            }
            Content::Message(message) => {
                let known = entry.mailboxes.contains_key(&message.mailbox)
                    || coming.contains(&message.mailbox);
                let keywords = &message.keywords;
                let numbered = keywords.len() <= MESSAGE_KEYWORDS_MAX
                    && keywords.is_sorted_by(|one, next| one < next)
                    && keywords
                        .last()
                        .is_none_or(|last| usize::from(*last) < KEYWORDS_MAX);
                let twice = seen
                    .insert((message.mailbox, message.uid), message.flags)
                    .is_some();
                known
                    && numbered
                    && !twice
                    && message.uid > 0
                    && message.prologue.len() <= PROLOGUE_MAX_BYTES
            }
            Content::Expunged {
                mailbox, ranges, ..
            } => {
                let known = entry.mailboxes.contains_key(mailbox) || coming.contains(mailbox);
                known
                    && ranges
                        .iter()
                        .all(|(first, last)| 0 < *first && first <= last)
            }
            Content::Subscription { name } => canonical(name).is_ok_and(|same| same == *name),
            Content::Annotation {
                mailbox,
                entry: name,
                value,
            } => {
                let known = mailbox.0 == 0
                    || entry.mailboxes.contains_key(mailbox)
                    || coming.contains(mailbox);
                known && is_annotation(name) && value.len() <= ANNOTATION_MAX_BYTES
            }
            Content::Transaction { .. } => true,
        };
        if !fits {
            return Err(Refusal::BadItem);
        }
        contents.push(content);
    }
    Ok(contents)
}

pub(super) fn take_over(entry: &mut Account, account: AccountId, content: &Content) {
    match content {
        Content::Account {
            mailbox_next,
            uidvalidity_last,
            quota,
            ..
        } => {
            if let Some(row) = &mut entry.row {
                (row.mailbox_next, row.uidvalidity_last) = (*mailbox_next, *uidvalidity_last);
                row.quota = *quota;
            }
        }
        Content::Mailbox(item) => {
            let known = entry.mailboxes.remove(&item.mailbox).map(|row| *row);
            let row = Box::new(item.row(account, known));
            entry.mailboxes.insert(item.mailbox, row);
        }
        Content::Subscription { name } => {
            // Emptied, and so known, since the import began or the entry was loaded.
            if let Some(names) = &mut entry.subscriptions {
                names.insert(name.clone());
            }
        }
        Content::Annotation {
            mailbox,
            entry: name,
            value,
        } => {
            if let Some(annotations) = &mut entry.annotations {
                annotations.set(*mailbox, name, Some(value.len()));
            }
        }
        Content::Message(_) | Content::Transaction { .. } | Content::Expunged { .. } => {}
    }
}

/// A move sends blobs before the items that link them; an hour is far longer than the time between.
const IMPORTED_BLOB_KEEP_MS: i64 = 3_600_000;
/// Keeps a record far below the smallest segment that is sensible.
pub(super) const RECORD_MAX_BYTES: usize = 512 << 10;
