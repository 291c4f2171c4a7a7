//! Who besides the owner may use a mailbox (RFC 4314).

use directory_api::{AccountId, Epoch};

use super::super::acl::{ACL_ENTRIES_MAX, Acl, AclChange, is_name};
use super::super::intake::Reply;
use super::super::record::{Record, SetAcl};
use super::super::types::{MailboxId, Refusal};
use super::accounts::Account;
use super::{Batch, Decided, Sequencer, Stop};

impl Sequencer {
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

impl Account {
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
        let mut above = name.rmatch_indices('/').map(|(place, _)| &name[..place]);
        above
            .find_map(|parent| self.mailboxes.values().find(|row| row.name == parent))
            .map(|row| row.acl.clone())
            .unwrap_or_default()
    }
}

/// All of an account's mailboxes are in memory while it is written to, with their lists.
const ACCOUNT_ACLS_MAX_BYTES: usize = 1 << 20;
