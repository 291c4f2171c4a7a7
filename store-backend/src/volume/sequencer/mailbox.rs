//! Verbs on mailboxes and their names: create, delete, rename, subscribe, special use.

use std::collections::HashSet;

use directory_api::{AccountId, Epoch};

use super::super::acl::Acl;
use super::super::intake::Reply;
use super::super::record::{
    CreateMailboxes, DeleteMailbox, NewMailbox, Record, RenameMailboxes, SetSpecialUse, Subscribe,
};
use super::super::rows::MailboxRow;
use super::super::types::{
    MAILBOX_DEPTH_MAX, MAILBOX_NAME_MAX_BYTES, MailboxId, Refusal, SpecialUse,
};
use super::accounts::Account;
use super::{Batch, Decided, Sequencer, Stop};

impl Sequencer {
    pub(super) fn create_mailbox(
        &mut self,
        batch: &mut Batch<'_>,
        account: AccountId,
        epoch: Epoch,
        name: &str,
        special_use: SpecialUse,
    ) -> Result<Decided, Stop> {
        let name = canonical(name)?;
        let entry = self.account(batch, account)?;
        entry.writable(epoch)?;
        if entry.mailbox_named(&name).is_some() {
            return Err(Refusal::MailboxExists.into());
        }
        let mut names = missing_parents(entry, &name);
        names.push(name);
        let created = self.new_mailboxes(batch, account, names, special_use)?;
        Ok(Decided::AfterApply(Reply::Mailbox(created)))
    }

    /// Makes mailboxes; the last one has the special use. Answers its number.
    pub(super) fn new_mailboxes(
        &mut self,
        batch: &mut Batch<'_>,
        account: AccountId,
        names: Vec<String>,
        special_use: SpecialUse,
    ) -> Result<MailboxId, Stop> {
        let lsn = batch.lsn();
        let now_s = u32::try_from(batch.now_ms / 1000).unwrap_or(u32::MAX);
        let entry = self.account(batch, account)?;
        if entry.mailboxes.len() + names.len() > MAILBOXES_MAX {
            return Err(Refusal::Full.into());
        }
        let acl = names.first().map(|first| entry.acl_above(first));
        let acl = acl.unwrap_or_default();
        if acl != Acl::default() {
            entry.check_acl_room(acl.octets() * names.len())?;
        }
        let row = entry.row.as_mut().ok_or(Refusal::NoAccount)?;
        let mut created = Vec::with_capacity(names.len());
        for name in names {
            // Seconds, so that a volume restored from an old copy gives others; growing, so that they are unique, and
            // a name made again has another one.
            row.uidvalidity_last = now_s.max(row.uidvalidity_last.saturating_add(1));
            created.push(NewMailbox {
                mailbox: MailboxId(row.mailbox_next),
                uidvalidity: row.uidvalidity_last,
                special_use: SpecialUse::default(),
                name,
            });
            row.mailbox_next += 1;
        }
        let last = created.last_mut().ok_or(Refusal::BadName)?;
        last.special_use = special_use;
        let mailbox = last.mailbox;
        for new in &created {
            let row = MailboxRow {
                special_use: new.special_use,
                ..MailboxRow::new(account, new.mailbox, new.name.clone(), new.uidvalidity)
            };
            entry.mailboxes.insert(new.mailbox, Box::new(row));
        }
        entry.last = lsn;
        let made: Vec<MailboxId> = created.iter().map(|new| new.mailbox).collect();
        batch
            .records
            .push(Record::Mailbox(CreateMailboxes { account, created }));
        if acl != Acl::default() {
            for one in made {
                self.push_acl(batch, account, one, acl.clone())?;
            }
        }
        Ok(mailbox)
    }

    /// Mailboxes below it stay, and with them its name (RFC 3501 §6.3.4).
    pub(super) fn delete_mailbox(
        &mut self,
        batch: &mut Batch<'_>,
        account: AccountId,
        epoch: Epoch,
        name: &str,
        known: Option<MailboxId>,
    ) -> Result<Decided, Stop> {
        let name = canonical(name)?;
        let lsn = batch.lsn();
        let entry = self.account(batch, account)?;
        entry.writable(epoch)?;
        let mailbox = entry.mailbox_named(&name).ok_or(Refusal::NoMailbox)?;
        if known.is_some_and(|known| known != mailbox) {
            return Err(Refusal::NoMailbox.into());
        }
        if mailbox == MailboxId::INBOX {
            return Err(Refusal::NotAllowed.into());
        }
        entry.remove_mailbox(mailbox);
        entry.last = lsn;
        batch.records.push(Record::Delete(DeleteMailbox {
            account,
            mailbox,
            grace: self.grace(batch, account),
        }));
        Ok(Decided::AfterApply(Reply::Done))
    }

    /// `from`: the name, and which mailbox it must be, if that is known. `inbox_uids`: the messages that go along when it is
    /// INBOX that gets another name.
    pub(super) fn rename_mailbox(
        &mut self,
        batch: &mut Batch<'_>,
        account: AccountId,
        epoch: Epoch,
        (from, known): (&str, Option<MailboxId>),
        to: &str,
        inbox_uids: &[u32],
    ) -> Result<Decided, Stop> {
        let (from, to) = (canonical(from)?, canonical(to)?);
        let record_max_bytes = self.rules.record_max_bytes;
        let entry = self.account(batch, account)?;
        entry.writable(epoch)?;
        if known.is_some() && known != entry.mailbox_named(&from) {
            return Err(Refusal::NoMailbox.into());
        }
        if entry.mailbox_named(&to).is_some() {
            return Err(Refusal::MailboxExists.into());
        }
        if from == INBOX {
            return self.rename_inbox(batch, account, epoch, to, inbox_uids);
        }
        if to == from || below(&to, &from).is_some() {
            return Err(Refusal::NotAllowed.into());
        }
        let mut renamed = Vec::new();
        let mut record_bytes = 0;
        for (mailbox, row) in &entry.mailboxes {
            let rest = if row.name == from {
                Some("")
            } else {
                below(&row.name, &from)
            };
            if let Some(rest) = rest {
                let name = canonical(&format!("{to}{rest}"))?;
                record_bytes += 8 + name.len();
                renamed.push((*mailbox, name));
            }
        }
        if renamed.is_empty() {
            return Err(Refusal::NoMailbox.into());
        }
        if record_bytes > record_max_bytes {
            return Err(Refusal::Full.into());
        }
        // A set, for both may be thousands.
        let stays = |row: &&MailboxRow| row.name != from && below(&row.name, &from).is_none();
        let staying = entry.mailboxes.values().map(Box::as_ref).filter(stays);
        let staying: HashSet<&str> = staying.map(|row| row.name.as_str()).collect();
        if renamed.iter().any(|(_, name)| staying.contains(&name[..])) {
            return Err(Refusal::MailboxExists.into());
        }
        let parents = missing_parents(entry, &to);
        if !parents.is_empty() {
            self.new_mailboxes(batch, account, parents, SpecialUse::default())?;
        }
        let lsn = batch.lsn();
        let entry = self.account(batch, account)?;
        for (mailbox, name) in &renamed {
            if let Some(row) = entry.mailboxes.get_mut(mailbox) {
                row.name.clone_from(name);
            }
        }
        entry.last = lsn;
        batch
            .records
            .push(Record::Rename(RenameMailboxes { account, renamed }));
        Ok(Decided::AfterApply(Reply::Done))
    }

    /// INBOX itself stays, and what is below it (RFC 3501 §6.3.5).
    fn rename_inbox(
        &mut self,
        batch: &mut Batch<'_>,
        account: AccountId,
        epoch: Epoch,
        to: String,
        uids: &[u32],
    ) -> Result<Decided, Stop> {
        let entry = self.account(batch, account)?;
        let mut names = missing_parents(entry, &to);
        names.push(to);
        let target = self.new_mailboxes(batch, account, names, SpecialUse::default())?;
        for slice in uids.chunks(RENAME_SLICE) {
            let inbox = MailboxId::INBOX;
            self.copy(batch, account, epoch, inbox, slice.to_vec(), target, true)?;
        }
        Ok(Decided::AfterApply(Reply::Done))
    }

    pub(super) fn subscribe(
        &mut self,
        batch: &mut Batch<'_>,
        account: AccountId,
        epoch: Epoch,
        name: &str,
        subscribed: bool,
    ) -> Result<Decided, Stop> {
        let name = canonical(name)?;
        let lsn = batch.lsn();
        self.account(batch, account)?.writable(epoch)?;
        if self.account(batch, account)?.subscriptions.is_none() {
            // Nothing of it is in flight: who changes it loads it, and an entry stays until all it has is applied.
            let known = self.index.subscriptions_of(batch.txn, account)?;
            self.account(batch, account)?.subscriptions = Some(known);
        }
        let entry = self.account(batch, account)?;
        let names = entry.subscriptions.get_or_insert_default();
        if subscribed && names.len() >= SUBSCRIPTIONS_MAX {
            return Err(Refusal::Full.into());
        }
        let differs = if subscribed {
            names.insert(name.clone())
        } else {
            names.remove(&name)
        };
        if differs {
            entry.last = lsn;
            batch.records.push(Record::Subscribe(Subscribe {
                account,
                subscribed,
                name,
            }));
        }
        Ok(Decided::AfterApply(Reply::Done))
    }

    pub(super) fn set_special_use(
        &mut self,
        batch: &mut Batch<'_>,
        account: AccountId,
        epoch: Epoch,
        mailbox: MailboxId,
        special_use: SpecialUse,
    ) -> Result<Decided, Stop> {
        let lsn = batch.lsn();
        if self
            .writable_mailbox(batch, account, epoch, mailbox)?
            .special_use
            != special_use
        {
            let entry = self.account(batch, account)?;
            if let Some(row) = entry.mailboxes.get_mut(&mailbox) {
                row.special_use = special_use;
            }
            entry.last = lsn;
            batch.records.push(Record::SpecialUse(SetSpecialUse {
                account,
                mailbox,
                special_use,
            }));
        }
        Ok(Decided::AfterApply(Reply::Done))
    }
}

impl Account {
    /// Forgets a mailbox and what it had; whether it was there.
    pub(super) fn remove_mailbox(&mut self, mailbox: MailboxId) -> bool {
        let Some(gone) = self.mailboxes.remove(&mailbox) else {
            return false;
        };
        if let Some(annotations) = &mut self.annotations {
            annotations.remove_all(mailbox);
        }
        if let Some(row) = &mut self.row {
            row.message_count = row.message_count.saturating_sub(gone.message_count);
            row.size_octets = row.size_octets.saturating_sub(gone.size_octets);
        }
        true
    }

    pub(super) fn mailbox_named(&self, name: &str) -> Option<MailboxId> {
        let mut all = self.mailboxes.iter();
        all.find(|(_, row)| row.name == name).map(|(id, _)| *id)
    }
}

/// The one way a name is kept: no `/` at its end (RFC 3501 §6.3.3 lets a client put one), INBOX as first level in
/// capitals, for it is one name in any case (RFC 9051 §5.1).
pub(in crate::volume) fn canonical(name: &str) -> Result<String, Refusal> {
    let name = name.strip_suffix('/').unwrap_or(name);
    let (first, rest) = name
        .find('/')
        .map_or((name, ""), |place| name.split_at(place));
    let levels = || name.split('/');
    if name.len() > MAILBOX_NAME_MAX_BYTES
        || levels().count() > MAILBOX_DEPTH_MAX
        || levels().any(str::is_empty)
        || name.chars().any(char::is_control)
    {
        return Err(Refusal::BadName);
    }
    if first.eq_ignore_ascii_case(INBOX) {
        return Ok(format!("{INBOX}{rest}"));
    }
    Ok(name.to_owned())
}

/// What follows `above` in a name below it, beginning with `/`.
pub(super) fn below<'n>(name: &'n str, above: &str) -> Option<&'n str> {
    name.strip_prefix(above)
        .filter(|rest| rest.starts_with('/'))
}

/// The mailboxes above a name that do not exist, the topmost first (RFC 9051 §6.3.4).
pub(super) fn missing_parents(entry: &Account, name: &str) -> Vec<String> {
    name.match_indices('/')
        .map(|(place, _)| &name[..place])
        .filter(|parent| entry.mailbox_named(parent).is_none())
        .map(str::to_owned)
        .collect()
}

const INBOX: &str = "INBOX";
/// An account's mailboxes are all in memory while it is written to.
const MAILBOXES_MAX: usize = 10_000;
/// Names may be subscribed that no mailbox has; as many as mailboxes.
const SUBSCRIPTIONS_MAX: usize = 10_000;
/// Messages moved by one record: far below a record's limit, whatever keywords they have.
const RENAME_SLICE: usize = 2000;
