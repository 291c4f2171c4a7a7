//! What a session does to mailboxes and their names. In the index when it returns.
//!
//! Names are UTF-8 with `/` between levels; a `/` at the end is dropped, and INBOX is one name in any case, as first
//! level too. A name made again after a deletion has another number, UIDVALIDITY and MAILBOXID.

use directory_api::{AccountId, Epoch};

use super::Volume;
use super::acl::Writer;
use super::intake::{Command, Reply};
use super::sequencer::canonical;
use super::types::{MailboxId, Refusal, SpecialUse};

/// A mailbox by its name, and, when it was looked at before, which one that was: the name may have come to mean another one
/// since, and that is not what was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Named<'n> {
    /// The name.
    pub name: &'n str,
    /// It must be this one.
    pub mailbox: Option<MailboxId>,
}

impl<'n> From<&'n str> for Named<'n> {
    /// Whichever has the name.
    fn from(name: &'n str) -> Self {
        Self {
            name,
            mailbox: None,
        }
    }
}

impl Volume {
    /// Makes a mailbox, and those above it that do not exist.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was made. [`Refusal::BadName`]; [`Refusal::MailboxExists`]; [`Refusal::Full`]: too many.
    pub async fn create_mailbox(
        &self,
        account: AccountId,
        by: impl Into<Writer>,
        name: &str,
        special_use: SpecialUse,
    ) -> Result<MailboxId, Refusal> {
        let by = by.into();
        let command = Command::CreateMailbox {
            account,
            epoch: by.epoch,
            name: name.to_owned(),
            special_use,
        };
        match self.inner.submit_by(by.user, command).await {
            Reply::Mailbox(mailbox) => Ok(mailbox),
            other => other.refused(),
        }
    }

    /// Removes a mailbox with its messages. Those below it stay, and a subscription of its name.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was removed. [`Refusal::NotAllowed`]: it is INBOX.
    pub async fn delete_mailbox(
        &self,
        account: AccountId,
        by: impl Into<Writer>,
        which: impl Into<Named<'_>>,
    ) -> Result<(), Refusal> {
        let (by, Named { name, mailbox }) = (by.into(), which.into());
        let command = Command::DeleteMailbox {
            account,
            epoch: by.epoch,
            name: name.to_owned(),
            mailbox,
        };
        self.inner.submit_by(by.user, command).await.done()
    }

    /// Gives a mailbox another name; those below it follow, those missing above the new name are made. Subscriptions are
    /// of names and stay. INBOX stays too: its messages move to a new mailbox (RFC 3501 §6.3.5).
    ///
    /// # Errors
    /// [`Refusal`]; nothing was renamed. [`Refusal::NotAllowed`]: to a place below itself; [`Refusal::MailboxExists`]:
    /// for it or one below it.
    pub async fn rename_mailbox(
        &self,
        account: AccountId,
        by: impl Into<Writer>,
        from: impl Into<Named<'_>>,
        to: &str,
    ) -> Result<(), Refusal> {
        let (
            by,
            Named {
                name: from,
                mailbox,
            },
        ) = (by.into(), from.into());
        let inbox_uids = if canonical(from)? == "INBOX" {
            // What arrives from now on stays in INBOX.
            let inbox = self.messages(account, MailboxId::INBOX).await;
            let inbox = inbox.map_err(|_| Refusal::ReadOnly)?;
            inbox.iter().map(|message| message.uid).collect()
        } else {
            Vec::new()
        };
        let command = Command::RenameMailbox {
            account,
            epoch: by.epoch,
            from: from.to_owned(),
            mailbox,
            to: to.to_owned(),
            inbox_uids,
        };
        self.inner.submit_by(by.user, command).await.done()
    }

    /// Subscribes a name, whether a mailbox has it or not (RFC 9051 §6.3.7), or ends that. Repeatable.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed.
    pub async fn subscribe(
        &self,
        account: AccountId,
        epoch: Epoch,
        name: &str,
        subscribed: bool,
    ) -> Result<(), Refusal> {
        let command = Command::Subscribe {
            account,
            epoch,
            name: name.to_owned(),
            subscribed,
        };
        self.inner.submit(command).await.done()
    }

    /// Says what a mailbox is for. Repeatable.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed.
    pub async fn set_special_use(
        &self,
        account: AccountId,
        epoch: Epoch,
        mailbox: MailboxId,
        special_use: SpecialUse,
    ) -> Result<(), Refusal> {
        let command = Command::SetSpecialUse {
            account,
            epoch,
            mailbox,
            special_use,
        };
        self.inner.submit(command).await.done()
    }
}
