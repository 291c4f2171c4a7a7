//! Verbs on messages of one mailbox: append, copy, move, flags, expunge.

use std::collections::HashMap;

use directory_api::{AccountId, Epoch};

use super::super::error::IndexError;
use super::super::intake::{Reply, Which};
use super::super::record::{
    self, Append, BlobRef, Body, CopiedMessage, CopyMessages, Expunge, FlagsOf, PutBlob, Record,
    Replaced, StoreFlags,
};
use super::super::rows::MailboxRow;
use super::super::types::{
    APPEND_MESSAGES_MAX, AppendBody, AppendMessage, Appended, Copied, Expunged, FlagChange, Flags,
    FlagsNow, Hash, KEYWORD_MAX_BYTES, KEYWORDS_MAX, MESSAGE_KEYWORDS_MAX, MailboxId, Refusal,
    Stored, UIDS_MAX,
};
use super::accounts::{Account, InFlight, Known};
use super::{Batch, Blob, Bring, Decided, Sequencer, Stop, blob_ref};

impl Sequencer {
    /// APPEND, or REPLACE when a message leaves for it.
    pub(super) fn append(
        &mut self,
        batch: &mut Batch<'_>,
        account: AccountId,
        epoch: Epoch,
        mailbox: MailboxId,
        messages: Vec<AppendMessage>,
        replaced: Option<(MailboxId, u32)>,
    ) -> Result<Decided, Stop> {
        batch.check_room()?;
        if messages.is_empty() || messages.len() > APPEND_MESSAGES_MAX {
            return Err(Refusal::Full.into());
        }
        let row = self.writable_mailbox(batch, account, epoch, mailbox)?;
        check_room(row, messages.len())?;
        let mut new_keywords = Vec::new();
        let keywords = messages
            .iter()
            .map(|message| number_keywords(row, &mut new_keywords, &message.flags.keywords))
            .collect::<Result<Vec<_>, _>>()?;
        let entry = self.account(batch, account)?;
        check_keyword_room(entry, &new_keywords)?;
        let mut missing = Vec::new();
        for message in &messages {
            if let AppendBody::Put { hash, .. } = &message.body
                && self.current(batch, hash)?.is_none()
            {
                missing.push(*hash);
            }
        }
        if !missing.is_empty() {
            return Err(Refusal::MissingBlobs(missing).into());
        }
        let mut count = messages.len() as u64;
        let mut octets = messages.iter().map(|message| message.body.octets()).sum();
        let mut gone_octets = 0;
        if let Some((source, uid)) = replaced {
            self.writable_source(batch, account, epoch, source)?;
            let gone = self.message_now(batch, account, source, uid)?;
            let gone = gone.ok_or(Refusal::NoMessage)?;
            // RFC 8508 §3.4: only what comes to what was there.
            gone_octets = gone.size_octets;
            count -= 1;
            octets = u64::saturating_sub(octets, gone_octets);
        }
        self.account(batch, account)?.check_quota(count, octets)?;
        // Nothing refuses from here on. Bodies first, each in a record of its own; one last record makes messages of
        // all of them, or of none.
        let mut bodies = Vec::with_capacity(messages.len());
        for message in messages {
            let (hash, octets, identity) = match message.body {
                AppendBody::Put {
                    hash,
                    octets,
                    identity,
                } => (hash, octets, identity),
                AppendBody::Finished(finished) => {
                    let (hash, octets) = (finished.hash(), finished.size());
                    if !self.has_body(batch, &hash)? {
                        let blob = self.new_blob(batch, hash, 0);
                        batch.records.push(Record::Blob(PutBlob {
                            keep_until_ms: batch.now_ms,
                            blob: blob_ref(blob.number, hash, octets, finished.into_body()),
                        }));
                    }
                    (hash, octets, None)
                }
            };
            let flags = Flags(message.flags.system.0 & Flags::ALL.0);
            let identity = identity.unwrap_or_else(|| self.identities.next());
            bodies.push((hash, octets, identity, flags, message.internal_date_ms));
        }
        let lsn = batch.lsn();
        let (modseq, entry) = self.next_modseq(batch, account, mailbox)?;
        let row = mailbox_of(entry, mailbox)?;
        let (uidvalidity, first) = (row.uidvalidity, row.uidnext);
        row.keywords.extend_from_slice(&new_keywords);
        let mut copies = Vec::new();
        let mut appended = Vec::with_capacity(bodies.len());
        let uids: Vec<u32> = (first..).take(bodies.len()).collect();
        for (((hash, octets, identity, flags, internal_date_ms), keywords), uid) in
            bodies.into_iter().zip(keywords).zip(&uids)
        {
            let (blob, bring) = self
                .link(batch, &hash)?
                .expect("every body was found or brought before");
            copies.extend(copy_of(blob, bring, hash, octets));
            let flags = FlagsOf {
                uid: *uid,
                flags,
                keywords,
            };
            let entry = self.account(batch, account)?;
            let known = Known {
                flags: flags.flags,
                keywords: flags.keywords.clone(),
                modseq,
                blob: blob.number,
                octets,
                // There is no prologue.
                size_octets: octets,
                hash: Some(hash),
            };
            add_message(entry, lsn, mailbox, *uid, known)?;
            appended.push(record::Appended {
                flags,
                internal_date_ms,
                identity,
                blob: blob.number,
                hash,
                octets,
            });
        }
        let mut gone = None;
        if let Some((source, uid)) = replaced {
            let (modseq, entry) = self.next_modseq(batch, account, source)?;
            remove_message(entry, lsn, source, uid, gone_octets)?;
            gone = Some(Replaced {
                mailbox: source,
                uid,
                modseq,
                grace: self.grace(batch, account),
            });
        }
        let replaced_modseq = gone.as_ref().map_or(0, |gone| gone.modseq);
        batch.records.push(Record::Append(Append {
            account,
            mailbox,
            modseq,
            saved_ms: batch.now_ms,
            new_keywords,
            copies,
            messages: appended,
            replaced: gone,
        }));
        Ok(Decided::Settling(
            account,
            Reply::Appended(Appended {
                uidvalidity,
                modseq,
                replaced_modseq,
                uids,
            }),
        ))
    }

    /// COPY, or MOVE when the messages `leave`: the same octets under new UIDs, in the order of the old ones.
    #[allow(clippy::too_many_arguments, reason = "they are a command's fields")]
    pub(super) fn copy(
        &mut self,
        batch: &mut Batch<'_>,
        account: AccountId,
        epoch: Epoch,
        source: MailboxId,
        uids: Vec<u32>,
        target: MailboxId,
        leave: bool,
    ) -> Result<Decided, Stop> {
        // Most mail programs delete by moving to another mailbox.
        if !leave {
            batch.check_room()?;
        }
        self.writable_source(batch, account, epoch, source)?;
        self.writable_mailbox(batch, account, epoch, target)?;
        let mut found = Vec::new();
        let mut record_bytes = 0;
        for uid in checked(uids)? {
            if let Some(known) = self.message_now(batch, account, source, uid)? {
                let hash = self.hash_of(batch, &known)?;
                record_bytes += COPIED_BYTES + 2 * known.keywords.len();
                found.push((uid, known, hash));
            }
        }
        if record_bytes > self.rules.record_max_bytes {
            return Err(Refusal::Full.into());
        }
        let entry = self.account(batch, account)?;
        let row = mailbox_of(entry, target)?;
        check_room(row, found.len())?;
        let uidvalidity = row.uidvalidity;
        if found.is_empty() {
            let nothing = Copied {
                uidvalidity,
                modseq: 0,
                source_modseq: 0,
                uids: Vec::new(),
            };
            return Ok(Decided::Settling(account, Reply::Copied(nothing)));
        }
        let new_keywords = translate_keywords(entry, source, target, &mut found)?;
        check_keyword_room(entry, &new_keywords)?;
        // Within one account a MOVE adds nothing.
        if !leave {
            let octets = found.iter().map(|(_, known, _)| known.size_octets).sum();
            entry.check_quota(found.len() as u64, octets)?;
        }
        // Nothing refuses from here on.
        let lsn = batch.lsn();
        let row = mailbox_of(entry, target)?;
        row.keywords.extend_from_slice(&new_keywords);
        let first = row.uidnext;
        let (modseq, _) = self.next_modseq(batch, account, target)?;
        let source_modseq = if leave {
            self.next_modseq(batch, account, source)?.0
        } else {
            0
        };
        let mut copies = Vec::new();
        let mut messages = Vec::with_capacity(found.len());
        let mut pairs = Vec::with_capacity(found.len());
        for ((source_uid, known, hash), uid) in found.into_iter().zip(first..) {
            let blob = if leave {
                // It loses the link that it gets: the count stays.
                known.blob
            } else {
                let (blob, bring) = self.link_again(batch, &hash, known.blob)?;
                copies.extend(copy_of(blob, bring, hash, known.octets));
                blob.number
            };
            let flags = FlagsOf {
                uid,
                flags: known.flags,
                keywords: known.keywords,
            };
            let entry = self.account(batch, account)?;
            if leave {
                remove_message(entry, lsn, source, source_uid, known.size_octets)?;
            }
            let known = Known {
                flags: flags.flags,
                keywords: flags.keywords.clone(),
                modseq,
                blob,
                octets: known.octets,
                size_octets: known.size_octets,
                hash: Some(hash),
            };
            add_message(entry, lsn, target, uid, known)?;
            pairs.push((source_uid, uid));
            messages.push(CopiedMessage {
                source_uid,
                flags,
                blob,
                hash,
            });
        }
        batch.records.push(Record::Copy(CopyMessages {
            account,
            source,
            target,
            modseq,
            source_modseq,
            saved_ms: batch.now_ms,
            new_keywords,
            copies,
            messages,
        }));
        Ok(Decided::Settling(
            account,
            Reply::Copied(Copied {
                uidvalidity,
                modseq,
                source_modseq,
                uids: pairs,
            }),
        ))
    }

    pub(super) fn expunge(
        &mut self,
        batch: &mut Batch<'_>,
        account: AccountId,
        epoch: Epoch,
        mailbox: MailboxId,
        which: Which,
    ) -> Result<Decided, Stop> {
        self.writable_mailbox(batch, account, epoch, mailbox)?;
        let mut gone = Vec::new();
        let mut has_more = false;
        match which {
            Which::Uids { uids, having } => {
                for uid in checked(uids)? {
                    if let Some(known) = self.message_now(batch, account, mailbox, uid)?
                        && known.flags.contains(having)
                    {
                        gone.push((uid, known.size_octets));
                    }
                }
            }
            Which::Deleted(ranges) => {
                let found;
                (found, has_more) = self.deleted_in(batch, account, mailbox, &ranges)?;
                for uid in found {
                    let known = self.message_now(batch, account, mailbox, uid)?;
                    gone.extend(known.map(|known| (uid, known.size_octets)));
                }
            }
        }
        if gone.is_empty() {
            return Ok(Decided::Settling(
                account,
                Reply::Expunged(Expunged::default()),
            ));
        }
        let lsn = batch.lsn();
        let (modseq, entry) = self.next_modseq(batch, account, mailbox)?;
        for (uid, octets) in &gone {
            remove_message(entry, lsn, mailbox, *uid, *octets)?;
        }
        let gone: Vec<u32> = gone.into_iter().map(|(uid, _)| uid).collect();
        batch.records.push(Record::Expunge(Expunge {
            account,
            mailbox,
            modseq,
            grace: self.grace(batch, account),
            uids: gone.clone(),
        }));
        Ok(Decided::Settling(
            account,
            Reply::Expunged(Expunged {
                modseq,
                uids: gone,
                has_more,
            }),
        ))
    }

    /// The first of the messages with `\Deleted` in ranges of UIDs, and whether there are more.
    fn deleted_in(
        &self,
        batch: &Batch<'_>,
        account: AccountId,
        mailbox: MailboxId,
        ranges: &[(u32, u32)],
    ) -> Result<(Vec<u32>, bool), Stop> {
        let entry = self.accounts.get(&account).ok_or(Refusal::NoAccount)?;
        let is_named = |uid: u32| {
            let place = ranges.partition_point(|(_, last)| *last < uid);
            ranges.get(place).is_some_and(|(first, _)| *first <= uid)
        };
        let mut found: Vec<u32> = entry
            .all_in_flight(mailbox)
            .filter(|(uid, message)| {
                let deleted = |known: &Known| known.flags.contains(Flags::DELETED);
                is_named(*uid) && matches!(message, InFlight::Has(known) if deleted(known))
            })
            .map(|(uid, _)| uid)
            .collect();
        for uid in self.index.deleted_of(batch.txn, account, mailbox)? {
            let uid = uid?;
            // What is in flight was found above, or does not have it any more.
            if is_named(uid) && entry.in_flight(mailbox, uid).is_none() {
                found.push(uid);
                if found.len() > EXPUNGE_SLICE {
                    break;
                }
            }
        }
        found.sort_unstable();
        let has_more = found.len() > EXPUNGE_SLICE;
        found.truncate(EXPUNGE_SLICE);
        Ok((found, has_more))
    }

    #[allow(clippy::too_many_arguments, reason = "they are a command's fields")]
    pub(super) fn store_flags(
        &mut self,
        batch: &mut Batch<'_>,
        account: AccountId,
        epoch: Epoch,
        mailbox: MailboxId,
        uids: Vec<u32>,
        change: &FlagChange,
        unchanged_since: Option<u64>,
    ) -> Result<Decided, Stop> {
        let row = self.writable_mailbox(batch, account, epoch, mailbox)?;
        let mut new_keywords = Vec::new();
        let named = change.named();
        let keywords = match change {
            FlagChange::Remove(_) => {
                let known = named.keywords.iter().filter_map(|one| row.keyword(one));
                known.collect()
            }
            FlagChange::Add(_) | FlagChange::Replace(_) | FlagChange::ReplaceWithin { .. } => {
                number_keywords(row, &mut new_keywords, &named.keywords)?
            }
        };
        check_keyword_room(self.account(batch, account)?, &new_keywords)?;
        let mut stored = Stored::default();
        let mut changes = Vec::new();
        let mut record_bytes = 0;
        for uid in checked(uids)? {
            let Some(before) = self.message_now(batch, account, mailbox, uid)? else {
                continue;
            };
            if unchanged_since.is_some_and(|modseq| before.modseq > modseq) {
                stored.failed.push(uid);
                continue;
            }
            let after = changed(&before, change, &keywords);
            if after.keywords.len() > MESSAGE_KEYWORDS_MAX {
                return Err(Refusal::Full.into());
            }
            stored.now.push(FlagsNow {
                uid,
                flags: after.flags,
                keywords: after.keywords.clone(),
                modseq: before.modseq,
                modseq_before: before.modseq,
            });
            if (after.flags, &after.keywords) != (before.flags, &before.keywords) {
                record_bytes += FLAGS_BYTES + 2 * after.keywords.len();
                changes.push((uid, after));
            }
        }
        if record_bytes > self.rules.record_max_bytes {
            return Err(Refusal::Full.into());
        }
        if !changes.is_empty() {
            let lsn = batch.lsn();
            let (modseq, entry) = self.next_modseq(batch, account, mailbox)?;
            mailbox_of(entry, mailbox)?
                .keywords
                .extend_from_slice(&new_keywords);
            stored.modseq = modseq;
            let mut changed = changes.iter().map(|(uid, _)| *uid).peekable();
            for message in &mut stored.now {
                if changed.next_if_eq(&message.uid).is_some() {
                    message.modseq = modseq;
                }
            }
            let mut flags = Vec::with_capacity(changes.len());
            for (uid, after) in changes {
                stored.changed.push(uid);
                flags.push(FlagsOf {
                    uid,
                    flags: after.flags,
                    keywords: after.keywords.clone(),
                });
                let after = Known { modseq, ..after };
                entry.touch_message(lsn, mailbox, uid, InFlight::Has(after));
            }
            batch.records.push(Record::Flags(StoreFlags {
                account,
                mailbox,
                modseq,
                new_keywords,
                changes: flags,
            }));
        }
        let names_some = !named.keywords.is_empty();
        if names_some || stored.now.iter().any(|now| !now.keywords.is_empty()) {
            let row = self.writable_mailbox(batch, account, epoch, mailbox)?;
            stored.keywords.clone_from(&row.keywords);
        }
        Ok(Decided::Settling(account, Reply::Stored(stored)))
    }

    pub(super) fn writable_mailbox(
        &mut self,
        batch: &Batch<'_>,
        account: AccountId,
        epoch: Epoch,
        mailbox: MailboxId,
    ) -> Result<&MailboxRow, Stop> {
        let entry = self.account(batch, account)?;
        entry.writable(epoch)?;
        Ok(mailbox_of(entry, mailbox)?)
    }

    fn writable_source(
        &mut self,
        batch: &Batch<'_>,
        account: AccountId,
        epoch: Epoch,
        mailbox: MailboxId,
    ) -> Result<(), Stop> {
        match self.writable_mailbox(batch, account, epoch, mailbox) {
            Ok(_) => Ok(()),
            Err(Stop::Refused(refusal)) => Err(refusal.of_source().into()),
            Err(stop) => Err(stop),
        }
    }

    pub(super) fn next_modseq(
        &mut self,
        batch: &Batch<'_>,
        account: AccountId,
        mailbox: MailboxId,
    ) -> Result<(u64, &mut Account), Stop> {
        let entry = self.account(batch, account)?;
        let row = mailbox_of(entry, mailbox)?;
        row.highestmodseq += 1;
        Ok((row.highestmodseq, entry))
    }

    /// What a message will be when all that is in flight is applied; `None` if it does not exist then.
    pub(super) fn message_now(
        &self,
        batch: &Batch<'_>,
        account: AccountId,
        mailbox: MailboxId,
        uid: u32,
    ) -> Result<Option<Known>, IndexError> {
        match self
            .accounts
            .get(&account)
            .and_then(|entry| entry.in_flight(mailbox, uid))
        {
            Some(InFlight::Has(known)) => Ok(Some(known.clone())),
            Some(InFlight::Gone | InFlight::Back) => Ok(None),
            None => {
                let found = self.index.message(batch.txn, account, mailbox, uid)?;
                Ok(found.map(|(row, keywords)| Known {
                    flags: row.flags(),
                    keywords,
                    modseq: row.modseq.get(),
                    blob: row.blob.get(),
                    octets: row.blob_octets.get(),
                    size_octets: row.size_octets(),
                    hash: None,
                }))
            }
        }
    }

    pub(super) fn hash_of(&self, batch: &Batch<'_>, known: &Known) -> Result<Hash, IndexError> {
        match known.hash {
            Some(hash) => Ok(hash),
            // In the snapshot the message was read from, or a later one: a message keeps its blob there.
            None => Ok(self
                .index
                .blob(batch.txn, known.blob)?
                .ok_or(IndexError::Contradiction("a blob"))?
                .hash),
        }
    }
}

/// What a STORE makes of a message.
fn changed(before: &Known, change: &FlagChange, named: &[u16]) -> Known {
    let system = Flags(change.named().system.0 & Flags::ALL.0);
    let (flags, keywords) = match change {
        FlagChange::Replace(_) => (system, named.to_vec()),
        FlagChange::ReplaceWithin {
            system: may_change,
            keywords,
            ..
        } => {
            let kept = before.flags.0 & !may_change.0;
            let flags = Flags(kept | system.0 & may_change.0);
            let numbers = if *keywords { named } else { &before.keywords };
            (flags, numbers.to_vec())
        }
        FlagChange::Add(_) => {
            let mut all = [&before.keywords[..], named].concat();
            all.sort_unstable();
            all.dedup();
            (before.flags | system, all)
        }
        FlagChange::Remove(_) => {
            let mut left = before.keywords.clone();
            left.retain(|number| !named.contains(number));
            (Flags(before.flags.0 & !system.0), left)
        }
    };
    Known {
        flags,
        keywords,
        ..before.clone()
    }
}

/// The numbers of keywords, growing; those that the mailbox does not know are added to `new`.
pub(super) fn number_keywords(
    row: &MailboxRow,
    new: &mut Vec<String>,
    keywords: &[String],
) -> Result<Vec<u16>, Refusal> {
    let mut numbers = Vec::with_capacity(keywords.len());
    for keyword in keywords {
        if !is_keyword(keyword) {
            return Err(Refusal::BadName);
        }
        let known = row.keyword(keyword).map(usize::from).or_else(|| {
            let place = new
                .iter()
                .position(|one| one.eq_ignore_ascii_case(keyword))?;
            Some(row.keywords.len() + place)
        });
        let number = known.unwrap_or_else(|| {
            new.push(keyword.clone());
            row.keywords.len() + new.len() - 1
        });
        if number >= KEYWORDS_MAX {
            return Err(Refusal::Full);
        }
        numbers.push(u16::try_from(number).expect("it is below the maximum"));
    }
    numbers.sort_unstable();
    numbers.dedup();
    if numbers.len() > MESSAGE_KEYWORDS_MAX {
        return Err(Refusal::Full);
    }
    Ok(numbers)
}

/// All of an account's mailboxes are in memory while it is written to, with their keywords.
pub(super) fn check_keyword_room(entry: &Account, new: &[String]) -> Result<(), Refusal> {
    if new.is_empty() {
        return Ok(());
    }
    let known = entry.mailboxes.values().flat_map(|row| &row.keywords);
    let bytes: usize = known.chain(new).map(String::len).sum();
    if bytes > ACCOUNT_KEYWORDS_MAX_BYTES {
        return Err(Refusal::Full);
    }
    Ok(())
}

/// A flag-keyword is an atom (RFC 9051 §9).
fn is_keyword(keyword: &str) -> bool {
    (1..=KEYWORD_MAX_BYTES).contains(&keyword.len())
        && keyword
            .bytes()
            .all(|octet| octet.is_ascii_graphic() && !b"(){%*\"\\]".contains(&octet))
}

/// Gives messages the numbers that their keywords have in another mailbox; answers the keywords that are new there.
fn translate_keywords(
    entry: &Account,
    source: MailboxId,
    target: MailboxId,
    messages: &mut [(u32, Known, Hash)],
) -> Result<Vec<String>, Refusal> {
    let mut new = Vec::new();
    if source == target {
        return Ok(new);
    }
    let row = |mailbox| entry.mailboxes.get(&mailbox).ok_or(Refusal::NoMailbox);
    let (source, target) = (row(source)?, row(target)?);
    let mut numbers: HashMap<u16, u16> = HashMap::new();
    for (_, known, _) in messages {
        for number in &mut known.keywords {
            let translated = match numbers.get(number) {
                Some(translated) => *translated,
                None => {
                    let name = source.keywords.get(usize::from(*number));
                    let name = name.ok_or(Refusal::NoMailbox)?;
                    let one = number_keywords(target, &mut new, std::slice::from_ref(name))?;
                    *numbers.entry(*number).or_insert(one[0])
                }
            };
            *number = translated;
        }
        known.keywords.sort_unstable();
    }
    Ok(new)
}

pub(super) fn mailbox_of(
    entry: &mut Account,
    mailbox: MailboxId,
) -> Result<&mut MailboxRow, Refusal> {
    let row = entry.mailboxes.get_mut(&mailbox);
    row.map(Box::as_mut).ok_or(Refusal::NoMailbox)
}

/// UIDs end below 2³²−1.
pub(super) fn check_room(row: &MailboxRow, count: usize) -> Result<(), Refusal> {
    let left = usize::try_from(u32::MAX - row.uidnext).unwrap_or(usize::MAX);
    if count > left {
        return Err(Refusal::Full);
    }
    Ok(())
}

pub(super) fn add_message(
    entry: &mut Account,
    lsn: durable::Lsn,
    mailbox: MailboxId,
    uid: u32,
    known: Known,
) -> Result<(), Refusal> {
    let row = mailbox_of(entry, mailbox)?;
    row.uidnext = uid + 1;
    entry.count_in(mailbox, known.size_octets);
    entry.touch_message(lsn, mailbox, uid, InFlight::Has(known));
    Ok(())
}

pub(super) fn remove_message(
    entry: &mut Account,
    lsn: durable::Lsn,
    mailbox: MailboxId,
    uid: u32,
    octets: u64,
) -> Result<(), Refusal> {
    mailbox_of(entry, mailbox)?;
    entry.count_out(mailbox, octets);
    entry.touch_message(lsn, mailbox, uid, InFlight::Gone);
    Ok(())
}

pub(super) fn copy_of(blob: Blob, bring: Bring, hash: Hash, octets: u64) -> Option<BlobRef> {
    match bring {
        Bring::CopyOf(from) => Some(blob_ref(blob.number, hash, octets, Body::Copied(from))),
        _ => None,
    }
}

pub(super) fn checked(mut uids: Vec<u32>) -> Result<Vec<u32>, Refusal> {
    if uids.len() > UIDS_MAX {
        return Err(Refusal::Full);
    }
    uids.sort_unstable();
    uids.dedup();
    Ok(uids)
}

/// Messages removed by one record when a command names those with `\Deleted`: some thousand, so that others get between.
pub(in super::super) const EXPUNGE_SLICE: usize = 4000;
/// Twenty keywords of a dozen octets in each of four thousand mailboxes.
const ACCOUNT_KEYWORDS_MAX_BYTES: usize = 1 << 20;
/// What one message takes in a record besides its keywords.
pub(super) const COPIED_BYTES: usize = 56;
const FLAGS_BYTES: usize = 12;
