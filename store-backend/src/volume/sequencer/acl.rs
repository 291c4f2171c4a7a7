//! Who besides the owner may use a mailbox (RFC 4314): changes of the lists, and what they permit when it is decided.

use directory_api::{AccountId, Epoch};

use super::super::acl::{ACL_ENTRIES_MAX, Acl, AclChange, Rights, is_name};
use super::super::intake::{Command, Reply, Which};
use super::super::record::{Record, SetAcl};
use super::super::types::{AnnotationChange, MailboxId, Refusal};
use super::accounts::Account;
use super::mailbox::{below, canonical};
use super::{Batch, Decided, Sequencer, Stop};

impl Sequencer {
    /// Whether another user than the owner may do this (P8), by the lists as they are with all that was decided before, in
    /// this batch or an earlier one: a write that was queued just behind the end of its right is refused.
    ///
    /// Sessions ask too, to answer early and to pass over what is not permitted; what they found may be old.
    pub(super) fn check_rights(
        &mut self,
        batch: &Batch<'_>,
        user: AccountId,
        command: &Command,
    ) -> Result<(), Stop> {
        let owner = command.account().ok_or(Refusal::NotPermitted)?;
        let entry = self.account(batch, owner)?;
        let may = |mailbox: &MailboxId, rights| entry.check_rights(user, *mailbox, rights);
        Ok(match command {
            Command::Append {
                mailbox,
                messages,
                replaced,
                ..
            } => {
                let flags = messages.iter().map(|one| Rights::to_set(&one.flags));
                let added = may(mailbox, flags.fold(Rights::INSERT, |all, one| all | one));
                match replaced {
                    None => added,
                    Some((from, _)) => {
                        let rights = Rights::READ | Rights::DELETE | Rights::EXPUNGE;
                        added.and(may(from, rights).map_err(Refusal::of_source))
                    }
                }
            }
            Command::Copy {
                source,
                target,
                leave,
                ..
            } => {
                let leaves = match leave {
                    true => Rights::DELETE | Rights::EXPUNGE,
                    false => Rights::default(),
                };
                // Flags go along, whichever they are.
                let flags = Rights::SEEN | Rights::DELETE | Rights::WRITE;
                let may_take = may(source, Rights::READ | leaves);
                let may_take = may_take.map_err(Refusal::of_source);
                may_take.and(may(target, Rights::INSERT | flags))
            }
            Command::Expunge { mailbox, which, .. } => match which {
                Which::Deleted(_) => may(mailbox, Rights::READ | Rights::EXPUNGE),
                // Whether they have `\Deleted` or not: what is left of a MOVE.
                Which::Uids { .. } => may(mailbox, Rights::READ | Rights::DELETE | Rights::EXPUNGE),
            },
            Command::StoreFlags {
                mailbox, change, ..
            } => may(mailbox, Rights::READ | Rights::to_store(change)),
            Command::CreateMailbox { name, .. } => entry.check_below(user, &canonical(name)?),
            Command::DeleteMailbox { name, .. } => {
                let mailbox = entry.mailbox_named(&canonical(name)?);
                may(&mailbox.ok_or(Refusal::NoMailbox)?, Rights::DELETE_MAILBOX)
            }
            Command::RenameMailbox { from, to, .. } => entry
                .check_rename(user, &canonical(from)?)
                .and(entry.check_below(user, &canonical(to)?)),
            Command::SetAcl {
                mailbox,
                owner_name: None,
                ..
            } => may(mailbox, Rights::ADMINISTER),
            Command::Annotate {
                mailbox, changes, ..
            } if !changes.iter().any(is_private) => may(mailbox, Rights::WRITE),
            // What no list can permit.
            _ => Err(Refusal::NotPermitted),
        }?)
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one command")]
    pub(super) fn set_acl(
        &mut self,
        batch: &mut Batch<'_>,
        account: AccountId,
        epoch: Epoch,
        mailbox: MailboxId,
        owner_name: Option<String>,
        grantee: &(AccountId, String),
        change: &AclChange,
    ) -> Result<Decided, Stop> {
        let before = &self.writable_mailbox(batch, account, epoch, mailbox)?.acl;
        let mut acl = before.clone();
        if let Some(name) = owner_name {
            acl.owner = name;
        }
        // Nobody can lock the owner out, who needs no entry.
        if grantee.0 == account || acl.owner.is_empty() {
            return Err(Refusal::NotAllowed.into());
        }
        if !is_name(&acl.owner) || !is_name(&grantee.1) {
            return Err(Refusal::BadName.into());
        }
        acl.change(grantee.0, &grantee.1, change);
        if acl.entries.is_empty() {
            acl = Acl::default();
        }
        if acl != *before {
            let more = acl.octets().saturating_sub(before.octets());
            if more > 0 && acl.entries.len() > ACL_ENTRIES_MAX {
                return Err(Refusal::Full.into());
            }
            self.account(batch, account)?.check_acl_room(more)?;
            self.push_acl(batch, account, mailbox, acl)?;
        }
        Ok(Decided::AfterApply(Reply::Done))
    }

    /// A record that sets a mailbox's list.
    pub(super) fn push_acl(
        &mut self,
        batch: &mut Batch<'_>,
        account: AccountId,
        mailbox: MailboxId,
        acl: Acl,
    ) -> Result<(), Stop> {
        let lsn = batch.lsn();
        let entry = self.account(batch, account)?;
        let row = entry
            .mailboxes
            .get_mut(&mailbox)
            .ok_or(Refusal::NoMailbox)?;
        row.acl.clone_from(&acl);
        entry.last = lsn;
        batch.records.push(Record::Acl(SetAcl {
            account,
            mailbox,
            acl,
        }));
        Ok(())
    }
}

/// An annotation that is for the owner alone.
fn is_private((entry, _): &AnnotationChange) -> bool {
    !entry.starts_with("/shared/")
}

impl Account {
    /// Whether a user has all of these rights to a mailbox. Without `l` it is not there for any of them.
    fn check_rights(
        &self,
        user: AccountId,
        mailbox: MailboxId,
        needed: Rights,
    ) -> Result<(), Refusal> {
        let row = self.mailboxes.get(&mailbox).ok_or(Refusal::NoMailbox)?;
        let rights = row.acl.rights(user);
        match (rights.has(Rights::LOOKUP), rights.has(needed)) {
            (false, _) => Err(Refusal::NoMailbox),
            (true, false) => Err(Refusal::NotPermitted),
            (true, true) => Ok(()),
        }
    }

    /// Whether a user may make a mailbox of that name: it takes `k` to the nearest one above it, also when that one is hidden
    /// from him.
    fn check_below(&self, user: AccountId, name: &str) -> Result<(), Refusal> {
        let above = self.above(name).ok_or(Refusal::NotPermitted)?;
        let may = self.check_rights(user, above, Rights::CREATE);
        may.map_err(|_| Refusal::NotPermitted)
    }

    /// Whether a user may give a mailbox another name: it takes `x` to it, and to every one below it, for their names change
    /// too (RFC 9051 §6.3.6) and RFC 4314 §4 lets nobody rename without it.
    fn check_rename(&self, user: AccountId, from: &str) -> Result<(), Refusal> {
        let renamed = self.mailbox_named(from).ok_or(Refusal::NoMailbox)?;
        self.check_rights(user, renamed, Rights::DELETE_MAILBOX)?;
        if renamed == MailboxId::INBOX {
            // It would only be emptied.
            return Err(Refusal::NotAllowed);
        }
        let mut all = self.mailboxes.iter();
        let may = all.all(|(mailbox, row)| {
            below(&row.name, from).is_none()
                || self
                    .check_rights(user, *mailbox, Rights::DELETE_MAILBOX)
                    .is_ok()
        });
        may.then_some(()).ok_or(Refusal::NotPermitted)
    }

    /// The nearest mailbox above a name.
    fn above(&self, name: &str) -> Option<MailboxId> {
        let mut above = name.rmatch_indices('/').map(|(place, _)| &name[..place]);
        above.find_map(|parent| self.mailbox_named(parent))
    }

    /// Whether lists may take so many octets more.
    pub(super) fn check_acl_room(&self, more: usize) -> Result<(), Refusal> {
        let known = self.mailboxes.values().map(|row| &row.acl);
        let known = known.filter(|acl| !acl.entries.is_empty());
        let bytes: usize = known.map(Acl::octets).sum();
        if more > 0 && bytes + more > ACCOUNT_ACLS_MAX_BYTES {
            return Err(Refusal::Full);
        }
        Ok(())
    }

    /// The list of the nearest mailbox above a name: one that is made below a shared mailbox begins as that is shared.
    pub(super) fn acl_above(&self, name: &str) -> Acl {
        let above = self
            .above(name)
            .and_then(|above| self.mailboxes.get(&above));
        above.map(|row| row.acl.clone()).unwrap_or_default()
    }
}

/// All of an account's mailboxes are in memory while it is written to, with their lists.
const ACCOUNT_ACLS_MAX_BYTES: usize = 1 << 20;
