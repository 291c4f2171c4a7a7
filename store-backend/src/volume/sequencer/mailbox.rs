//! Verbs on one mailbox: expunge, flags, create.

use directory_api::{AccountId, Epoch};

use super::super::error::IndexError;
use super::super::intake::Reply;
use super::super::record::{CreateMailbox, Expunge, Record, StoreFlags};
use super::super::rows::MailboxRow;
use super::super::types::{FlagChange, Flags, MailboxId, Refusal, StoredFlags};
use super::accounts::InFlight;
use super::{Batch, Decided, Sequencer, Stop};

impl Sequencer {
    pub(super) fn expunge(
        &mut self,
        batch: &mut Batch<'_>,
        account: AccountId,
        epoch: Epoch,
        mailbox: MailboxId,
        uids: Vec<u32>,
    ) -> Result<Decided, Stop> {
        self.writable_mailbox(batch, account, epoch, mailbox)?;
        let mut uids = checked(uids)?;
        let mut failed = None;
        uids.retain(|uid| match self.flags_now(batch, account, mailbox, *uid) {
            Ok(flags) => flags.is_some(),
            Err(error) => {
                failed.get_or_insert(error);
                false
            }
        });
        if let Some(error) = failed {
            return Err(error.into());
        }
        let count = uids.len();
        if count > 0 {
            let lsn = batch.lsn();
            let keep_until_ms = batch.now_ms + self.rules.expunge_grace_ms;
            let (modseq, entry) = self.next_modseq(batch, account, mailbox)?;
            for uid in &uids {
                entry.touch_message(lsn, mailbox, *uid, InFlight::Gone);
            }
            if let Some(row) = &mut entry.row {
                row.message_count -= count as u64;
            }
            batch.records.push(Record::Expunge(Expunge {
                account,
                mailbox,
                modseq,
                keep_until_ms,
                uids,
            }));
        }
        Ok(Decided::AfterApply(Reply::Expunged(count)))
    }

    pub(super) fn store_flags(
        &mut self,
        batch: &mut Batch<'_>,
        account: AccountId,
        epoch: Epoch,
        mailbox: MailboxId,
        uids: Vec<u32>,
        change: FlagChange,
    ) -> Result<Decided, Stop> {
        self.writable_mailbox(batch, account, epoch, mailbox)?;
        let mut changes = Vec::new();
        for uid in checked(uids)? {
            if let Some(before) = self.flags_now(batch, account, mailbox, uid)? {
                let after = change.apply(before);
                if after != before {
                    changes.push((uid, after));
                }
            }
        }
        let mut stored = Vec::new();
        if !changes.is_empty() {
            let lsn = batch.lsn();
            let (modseq, entry) = self.next_modseq(batch, account, mailbox)?;
            for (uid, flags) in &changes {
                entry.touch_message(lsn, mailbox, *uid, InFlight::Has(*flags));
                stored.push(StoredFlags {
                    uid: *uid,
                    flags: *flags,
                    modseq,
                });
            }
            batch.records.push(Record::Flags(StoreFlags {
                account,
                mailbox,
                modseq,
                changes,
            }));
        }
        Ok(Decided::AfterApply(Reply::Stored(stored)))
    }

    pub(super) fn create_mailbox(
        &mut self,
        batch: &mut Batch<'_>,
        account: AccountId,
        epoch: Epoch,
        name: String,
    ) -> Result<Decided, Stop> {
        if name.is_empty()
            || name.len() > MAILBOX_NAME_MAX_BYTES
            || name.chars().any(char::is_control)
        {
            return Err(Refusal::Full.into());
        }
        let lsn = batch.lsn();
        let now_s = u32::try_from(batch.now_ms / 1000).unwrap_or(u32::MAX);
        let entry = self.account(batch, account)?;
        entry.writable(epoch)?;
        let taken = entry
            .mailboxes
            .values()
            .any(|mailbox| same_name(&mailbox.name, &name));
        if taken {
            return Err(Refusal::MailboxExists.into());
        }
        if entry.mailboxes.len() >= MAILBOXES_MAX {
            return Err(Refusal::Full.into());
        }
        let row = entry.row.as_mut().ok_or(Refusal::NoAccount)?;
        // Seconds, so that a volume restored from an old copy gives others; growing, so that they are unique.
        row.uidvalidity_last = now_s.max(row.uidvalidity_last.saturating_add(1));
        let (uidvalidity, mailbox) = (row.uidvalidity_last, MailboxId(row.mailbox_next));
        row.mailbox_next += 1;
        entry
            .mailboxes
            .insert(mailbox, MailboxRow::new(name.clone(), uidvalidity));
        entry.last = lsn;
        batch.records.push(Record::Mailbox(CreateMailbox {
            account,
            mailbox,
            uidvalidity,
            name,
        }));
        Ok(Decided::AfterApply(Reply::Mailbox(mailbox)))
    }

    fn writable_mailbox(
        &mut self,
        batch: &Batch<'_>,
        account: AccountId,
        epoch: Epoch,
        mailbox: MailboxId,
    ) -> Result<(), Stop> {
        let entry = self.account(batch, account)?;
        entry.writable(epoch)?;
        entry.mailboxes.get(&mailbox).ok_or(Refusal::NoMailbox)?;
        Ok(())
    }

    fn next_modseq(
        &mut self,
        batch: &Batch<'_>,
        account: AccountId,
        mailbox: MailboxId,
    ) -> Result<(u64, &mut super::accounts::Account), Stop> {
        let entry = self.account(batch, account)?;
        let row = entry
            .mailboxes
            .get_mut(&mailbox)
            .ok_or(Refusal::NoMailbox)?;
        row.highestmodseq += 1;
        Ok((row.highestmodseq, entry))
    }

    /// The flags a message will have when all that is in flight is applied; `None` if it does not exist then.
    fn flags_now(
        &self,
        batch: &Batch<'_>,
        account: AccountId,
        mailbox: MailboxId,
        uid: u32,
    ) -> Result<Option<Flags>, IndexError> {
        match self
            .accounts
            .get(&account)
            .and_then(|entry| entry.in_flight(mailbox, uid))
        {
            Some(InFlight::Has(flags)) => Ok(Some(flags)),
            Some(InFlight::Gone) => Ok(None),
            None => {
                let row = self.index.message(batch.txn, account, mailbox, uid)?;
                Ok(row.map(|row| Flags(row.flags.get())))
            }
        }
    }
}

/// INBOX is one name in any case (RFC 9051 §5.1).
pub(in crate::volume) fn same_name(one: &str, other: &str) -> bool {
    one == other || one.eq_ignore_ascii_case("INBOX") && other.eq_ignore_ascii_case("INBOX")
}

fn checked(mut uids: Vec<u32>) -> Result<Vec<u32>, Refusal> {
    if uids.len() > UIDS_MAX {
        return Err(Refusal::Full);
    }
    uids.sort_unstable();
    uids.dedup();
    Ok(uids)
}

/// DESIGN §13.
const MAILBOX_NAME_MAX_BYTES: usize = 1024;
/// An account's mailboxes are all in memory while it is written to.
const MAILBOXES_MAX: usize = 10_000;
/// One command's UIDs stand in one record and are applied in one transaction.
const UIDS_MAX: usize = 100_000;
