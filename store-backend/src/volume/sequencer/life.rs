//! An old copy that is adopted: everything it gives out from now on lies above what the life it is a copy of has given.

use directory_api::{AccountId, Epoch};
use tracing::warn;

use super::super::intake::Reply;
use super::super::item::{Content, MailboxItem};
use super::super::record::{FlagsOf, Import, Record, StoreFlags};
use super::super::rows::State;
use super::super::types::{MailboxId, Refusal};
use super::accounts::InFlight;
use super::import::{RECORD_MAX_BYTES, take_over};
use super::moves::UIDVALIDITY_TO_COME;
use super::{Batch, Decided, Known, Sequencer, Stop};

impl Sequencer {
    /// From this decision on no account comes back from a backup: those that are known now are all that skip ahead.
    pub(super) fn begin_adoption(&self) -> Result<Decided, Stop> {
        self.life.begin_adoption();
        Ok(DONE)
    }

    /// Whether accounts may come from a backup.
    pub(super) fn check_restored(&self) -> Result<(), Stop> {
        match self.life.takes_accounts() {
            true => Ok(()),
            false => Err(Refusal::Adopted.into()),
        }
    }

    /// The same for an import under way, of which only the account knows where it comes from.
    pub(super) fn check_import(
        &mut self,
        batch: &Batch<'_>,
        account: AccountId,
    ) -> Result<(), Stop> {
        let row = self.account(batch, account)?.row.as_ref();
        match row.is_some_and(|row| row.state == State::Importing && row.elsewhere.is_none()) {
            true => self.check_restored(),
            false => Ok(()),
        }
    }

    /// Lets every mailbox of an account go on `uids` further; one that has not so many left gets a new UIDVALIDITY.
    pub(super) fn skip_ahead(
        &mut self,
        batch: &mut Batch<'_>,
        account: AccountId,
        uids: u32,
    ) -> Result<Decided, Stop> {
        let now_s = u32::try_from(batch.now_ms / 1000).unwrap_or(u32::MAX);
        let row = self.account(batch, account)?.row.as_mut();
        let row = row.ok_or(Refusal::NoAccount)?;
        match row.state {
            State::Active | State::Frozen => {}
            State::Importing if row.elsewhere.is_none() => {
                warn!(%account, messages = row.message_count, "its restore did not end: it is opened with what has come, `posthouse restore` of its mailboxes brings the rest");
                // Nobody has told the epoch: as an account of which only the files were left, it takes the first that comes.
                (row.state, row.epoch) = (State::Active, Epoch(0));
                self.push_account(batch, account, 0, false)?;
            }
            // It gives nothing out here: what comes back comes from its home, with what that has given.
            State::Importing | State::Moved => return Ok(DONE),
        }
        let entry = self.account(batch, account)?;
        let row = entry.row.as_mut().ok_or(Refusal::NoAccount)?;
        let mut mailboxes = Vec::with_capacity(entry.mailboxes.len());
        for (mailbox, known) in &entry.mailboxes {
            let mut item = MailboxItem::new(*mailbox, (**known).clone());
            if item.uidnext <= UIDNEXT_MAX && item.uidvalidity != UIDVALIDITY_TO_COME {
                item.uidnext = item.uidnext.saturating_add(uids);
            } else {
                row.uidvalidity_last = now_s.max(row.uidvalidity_last.saturating_add(1));
                item.uidvalidity = row.uidvalidity_last;
            }
            item.highestmodseq = item.highestmodseq.saturating_add(MODSEQS_AHEAD);
            // Whoever comes back with an older MODSEQ is told of every UID that has no message: the history that would
            // say what went is not this copy's.
            item.expunged_floor = item.highestmodseq;
            mailboxes.push(Content::Mailbox(item));
        }
        let first = Content::account(account, row);
        let mut record = Import::of(account);
        let mut record_bytes = 0;
        for content in std::iter::once(first).chain(mailboxes) {
            let item = content.encode().0;
            if record_bytes + item.len() > RECORD_MAX_BYTES && !record.items.is_empty() {
                let full = std::mem::replace(&mut record, Import::of(account));
                batch.records.push(Record::Import(full));
                record_bytes = 0;
            }
            record_bytes += item.len();
            let lsn = batch.lsn();
            let entry = self.account(batch, account)?;
            entry.last = lsn;
            take_over(entry, account, &content);
            record.items.push(item);
        }
        batch.records.push(Record::Import(record));
        Ok(DONE)
    }

    /// Gives messages a new MODSEQ and leaves them as they are: a client may know later flags of them.
    pub(super) fn renew_modseq(
        &mut self,
        batch: &mut Batch<'_>,
        account: AccountId,
        mailbox: MailboxId,
        uids: &[u32],
    ) -> Result<Decided, Stop> {
        let entry = self.account(batch, account)?;
        let state = entry.row.as_ref().map(|row| row.state);
        if !matches!(state, Some(State::Active | State::Frozen)) {
            return Ok(DONE);
        }
        let mut found = Vec::with_capacity(uids.len());
        for uid in uids {
            if let Some(known) = self.message_now(batch, account, mailbox, *uid)? {
                found.push((*uid, known));
            }
        }
        if found.is_empty() {
            return Ok(DONE);
        }
        let lsn = batch.lsn();
        let (modseq, entry) = self.next_modseq(batch, account, mailbox)?;
        let mut changes = Vec::with_capacity(found.len());
        for (uid, known) in found {
            changes.push(FlagsOf {
                uid,
                flags: known.flags,
                keywords: known.keywords.clone(),
            });
            let known = Known { modseq, ..known };
            entry.touch_message(lsn, mailbox, uid, InFlight::Has(known));
        }
        batch.records.push(Record::Flags(StoreFlags {
            account,
            mailbox,
            modseq,
            new_keywords: Vec::new(),
            changes,
        }));
        Ok(DONE)
    }
}

/// What is read next is after it.
const DONE: Decided = Decided::AfterApply(Reply::Done);
/// Half of all UIDs there are: above it, numbers are too few to skip any.
const UIDNEXT_MAX: u32 = 1 << 31;
/// A mailbox's MODSEQ grows by one a record. There are 2⁶³ (RFC 7162).
const MODSEQS_AHEAD: u64 = 1 << 32;
