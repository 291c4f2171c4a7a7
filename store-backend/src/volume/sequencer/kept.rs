//! Expunged messages: brought back, and let go when their grace is over.

use directory_api::{AccountId, Epoch};
use tracing::error;

use super::super::error::IndexError;
use super::super::holds::held_for;
use super::super::intake::Reply;
use super::super::record::{CopiedMessage, CopyMessages, FlagsOf, Grace, Purge, Record};
use super::super::rows::{KeptRow, kept_until_of};
use super::super::types::{Flags, Hash, MailboxId, Refusal, SpecialUse, UNDELETE_MAX, Undeleted};
use super::accounts::{InFlight, Known};
use super::mailbox::missing_parents;
use super::messages::{
    COPIED_BYTES, add_message, check_keyword_room, check_room, checked, copy_of, mailbox_of,
    number_keywords,
};
use super::{Batch, Decided, Sequencer, Stop, canonical};

impl Sequencer {
    /// How long messages of an account are kept that go now. Those held for somebody else not at all: nobody brings them back, and
    /// their home has them.
    pub(super) fn grace(&self, batch: &Batch<'_>, account: AccountId) -> Grace {
        if held_for(account).is_some() {
            return Grace::none(batch.now_ms);
        }
        Grace {
            at_ms: batch.now_ms,
            until_ms: batch.now_ms.saturating_add(self.rules.expunge_grace_ms),
        }
    }

    /// Makes new messages of expunged ones of one mailbox: in that mailbox whatever it is called by now, in one of its last
    /// name when it was deleted, or in the one named. An operator asks for it, who may put more into an account than its quota
    /// has room for; it counts. What is not kept any more, or was brought back, is passed over.
    pub(super) fn undelete(
        &mut self,
        batch: &mut Batch<'_>,
        account: AccountId,
        epoch: Epoch,
        source: MailboxId,
        uids: Vec<u32>,
        to: Option<&str>,
    ) -> Result<Decided, Stop> {
        batch.check_room()?;
        if uids.len() > UNDELETE_MAX {
            return Err(Refusal::Full.into());
        }
        let to = to.map(canonical).transpose()?;
        let applied = self.applied;
        let entry = self.account(batch, account)?;
        entry.writable(epoch)?;
        // A snapshot from before a wipe shows what is no more.
        let is_wiped = entry.wiped > applied;
        let mut found: Vec<(u32, KeptRow, Hash)> = Vec::new();
        for uid in checked(uids)? {
            let is_back = self
                .accounts
                .get(&account)
                .is_some_and(|entry| entry.in_flight(source, uid) == Some(&InFlight::Back));
            if is_wiped || is_back {
                continue;
            }
            if let Some(kept) = self.index.kept(batch.txn, account, source, uid)?
                // Its blob stays longer than that: see `drop_unlinked`.
                && kept.until_ms > batch.now_ms.max(self.purged_until_ms)
            {
                match self.index.blob(batch.txn, kept.message.blob.get())? {
                    Some(blob) => found.push((uid, kept, blob.hash)),
                    None => {
                        error!(%account, mailbox = source.0, uid, "a kept message has no octets, it is passed over")
                    }
                }
            }
        }
        let Some(last) = found.iter().max_by_key(|(_, kept, _)| kept.at_ms) else {
            return Ok(Decided::AfterApply(Reply::Undeleted(Undeleted::default())));
        };
        let last_name = last.1.name.clone();
        let record_bytes: usize = found
            .iter()
            .map(|(_, kept, _)| COPIED_BYTES + 2 * kept.keywords.len())
            .sum();
        if record_bytes > self.rules.record_max_bytes {
            return Err(Refusal::Full.into());
        }
        let entry = self.account(batch, account)?;
        let name = match to {
            Some(name) => name,
            None => match entry.mailboxes.get(&source) {
                Some(row) => row.name.clone(),
                None => last_name,
            },
        };
        let target = match entry.mailbox_named(&name) {
            Some(target) => target,
            None => {
                let mut names = missing_parents(entry, &name);
                names.push(name.clone());
                self.new_mailboxes(batch, account, names, SpecialUse::default())?
            }
        };
        let entry = self.account(batch, account)?;
        let row = mailbox_of(entry, target)?;
        check_room(row, found.len())?;
        let mut new_keywords = Vec::new();
        let keywords = found
            .iter()
            .map(|(_, kept, _)| number_keywords(row, &mut new_keywords, &kept.keywords))
            .collect::<Result<Vec<_>, _>>()?;
        check_keyword_room(entry, &new_keywords)?;
        // Nothing refuses from here on.
        let row = mailbox_of(entry, target)?;
        row.keywords.extend_from_slice(&new_keywords);
        let first = row.uidnext;
        let lsn = batch.lsn();
        let (modseq, _) = self.next_modseq(batch, account, target)?;
        let mut copies = Vec::new();
        let mut messages = Vec::with_capacity(found.len());
        let mut pairs = Vec::with_capacity(found.len());
        for (((source_uid, kept, hash), keywords), uid) in
            found.into_iter().zip(keywords).zip(first..)
        {
            let row = kept.message;
            let octets = row.blob_octets.get();
            let (blob, bring) = self.link_again(batch, &hash, row.blob.get())?;
            copies.extend(copy_of(blob, bring, hash, octets));
            let flags = FlagsOf {
                uid,
                // Or the next EXPUNGE of any program would remove it again.
                flags: Flags(row.flags().0 & !Flags::DELETED.0),
                keywords,
            };
            let known = Known {
                flags: flags.flags,
                keywords: flags.keywords.clone(),
                modseq,
                blob: blob.number,
                octets,
                size_octets: row.size_octets(),
                hash: Some(hash),
            };
            let entry = self.account(batch, account)?;
            entry.touch_message(lsn, source, source_uid, InFlight::Back);
            add_message(entry, lsn, target, uid, known)?;
            pairs.push((source_uid, uid));
            messages.push(CopiedMessage {
                source_uid,
                flags,
                blob: blob.number,
                hash,
            });
        }
        batch.records.push(Record::Undelete(CopyMessages {
            account,
            source,
            target,
            modseq,
            source_modseq: 0,
            saved_ms: batch.now_ms,
            new_keywords,
            copies,
            messages,
        }));
        Ok(Decided::AfterApply(Reply::Undeleted(Undeleted {
            name,
            uids: pairs,
        })))
    }

    /// Lets expunged messages go for good whose grace is over, some thousand at a time. Answers whether there may be more.
    pub(super) fn purge(&mut self, batch: &mut Batch<'_>) -> Result<bool, IndexError> {
        let (lsn, has_more) = self.purge;
        if lsn > self.applied {
            // The snapshot shows what goes by it.
            return Ok(has_more);
        }
        let mut count = 0;
        let mut last = None;
        for row in self.index.kept_until.iter(batch.txn)?.take(PURGE_MAX) {
            let (key, _) = row?;
            let place = kept_until_of(key);
            let place = place.ok_or(IndexError::Contradiction("a key of kept_until"))?;
            if place.0 > batch.now_ms {
                break;
            }
            count += 1;
            last = Some(place);
        }
        if let Some((until_ms, account, mailbox, uid)) = last {
            self.purged_until_ms = self.purged_until_ms.max(until_ms);
            self.purge = (batch.lsn(), count == PURGE_MAX);
            batch.records.push(Record::Purge(Purge {
                until_ms,
                account,
                mailbox,
                uid,
            }));
        }
        Ok(count == PURGE_MAX)
    }
}

/// Messages purged by one record.
const PURGE_MAX: usize = 4000;
