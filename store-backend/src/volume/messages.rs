//! What a session does to messages. Each is one command, decided and numbered as a whole, and durable when it
//! returns; whoever reads the account from then on finds it.
//!
//! Commands over many UIDs hold up the volume's others for as long as they are decided and applied: give some thousand
//! at a time where the protocol allows it, which is everywhere but in COPY.

use directory_api::AccountId;

use super::Volume;
use super::acl::Writer;
use super::intake::{Command, Reply, Which};
use super::types::{
    AppendMessage, Appended, Copied, Expunged, FlagChange, Flags, MailboxId, Refusal, Stored,
};

impl Volume {
    /// Adds messages that a client brought, all of them or none (RFC 3502), in order. They have no prologue: what a
    /// client reads is what it wrote. At most [`super::APPEND_MESSAGES_MAX`].
    ///
    /// # Errors
    /// [`Refusal`]; nothing was added. [`Refusal::BadName`]: a keyword is none; [`Refusal::Full`]: too many messages or
    /// keywords; [`Refusal::MissingBlobs`]: bodies given before were kept for too long, send them again.
    pub async fn append(
        &self,
        account: AccountId,
        by: impl Into<Writer>,
        mailbox: MailboxId,
        messages: Vec<AppendMessage>,
    ) -> Result<Appended, Refusal> {
        self.add(account, by, mailbox, messages, None).await
    }

    /// Adds a message to a mailbox, and the one it replaces leaves its own, in one record: no moment has both or neither
    /// (RFC 8508). `replaced` is mailbox and UID.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was added or removed. As [`Volume::append`], and [`Refusal::NoMessage`]: the one to be
    /// replaced is gone.
    pub async fn replace(
        &self,
        account: AccountId,
        by: impl Into<Writer>,
        replaced: (MailboxId, u32),
        mailbox: MailboxId,
        message: AppendMessage,
    ) -> Result<Appended, Refusal> {
        self.add(account, by, mailbox, vec![message], Some(replaced))
            .await
    }

    async fn add(
        &self,
        account: AccountId,
        by: impl Into<Writer>,
        mailbox: MailboxId,
        messages: Vec<AppendMessage>,
        replaced: Option<(MailboxId, u32)>,
    ) -> Result<Appended, Refusal> {
        let by = by.into();
        let command = Command::Append {
            account,
            epoch: by.epoch,
            mailbox,
            messages,
            replaced,
        };
        match self.inner.submit_by(by.user, command).await {
            Reply::Appended(appended) => Ok(appended),
            other => other.refused(),
        }
    }

    /// Adds messages of one mailbox to another one, or to the same. Identity, internal date, flags and keywords go along;
    /// the octets stay where they are. UIDs that do not exist are passed over.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was copied. [`Refusal::Full`]: more than fits into one record, or the target has no room
    /// for the keywords.
    pub async fn copy_messages(
        &self,
        account: AccountId,
        by: impl Into<Writer>,
        source: MailboxId,
        uids: Vec<u32>,
        target: MailboxId,
    ) -> Result<Copied, Refusal> {
        self.copy(account, by, source, uids, target, false).await
    }

    /// As [`Volume::copy_messages`], and the messages leave the source: no moment has them in both, or in none (RFC 6851).
    ///
    /// # Errors
    /// [`Refusal`]; nothing was moved.
    pub async fn move_messages(
        &self,
        account: AccountId,
        by: impl Into<Writer>,
        source: MailboxId,
        uids: Vec<u32>,
        target: MailboxId,
    ) -> Result<Copied, Refusal> {
        self.copy(account, by, source, uids, target, true).await
    }

    async fn copy(
        &self,
        account: AccountId,
        by: impl Into<Writer>,
        source: MailboxId,
        uids: Vec<u32>,
        target: MailboxId,
        leave: bool,
    ) -> Result<Copied, Refusal> {
        let by = by.into();
        let command = Command::Copy {
            account,
            epoch: by.epoch,
            source,
            uids,
            target,
            leave,
        };
        match self.inner.submit_by(by.user, command).await {
            Reply::Copied(copied) => Ok(copied),
            other => other.refused(),
        }
    }

    /// Removes messages, whatever their flags; answers which there were. UIDs that do not exist are passed over.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was removed.
    pub async fn expunge(
        &self,
        account: AccountId,
        by: impl Into<Writer>,
        mailbox: MailboxId,
        uids: Vec<u32>,
    ) -> Result<Expunged, Refusal> {
        let having = Flags::default();
        self.remove(account, by, mailbox, Which::Uids { uids, having })
            .await
    }

    /// Removes those of the messages that have `\Seen` when it is decided; as [`Self::expunge`] besides.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was removed.
    pub async fn expunge_seen(
        &self,
        account: AccountId,
        by: impl Into<Writer>,
        mailbox: MailboxId,
        uids: Vec<u32>,
    ) -> Result<Expunged, Refusal> {
        let having = Flags::SEEN;
        self.remove(account, by, mailbox, Which::Uids { uids, having })
            .await
    }

    /// Removes the first some thousand of the messages with `\Deleted` in ranges of UIDs (both ends included, growing and
    /// disjoint): EXPUNGE and UID EXPUNGE (RFC 4315), so that no message goes that the client has not seen. Costs what it
    /// removes. Ask again while there are more.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was removed.
    pub async fn expunge_deleted(
        &self,
        account: AccountId,
        by: impl Into<Writer>,
        mailbox: MailboxId,
        among: Vec<(u32, u32)>,
    ) -> Result<Expunged, Refusal> {
        self.remove(account, by, mailbox, Which::Deleted(among))
            .await
    }

    async fn remove(
        &self,
        account: AccountId,
        by: impl Into<Writer>,
        mailbox: MailboxId,
        which: Which,
    ) -> Result<Expunged, Refusal> {
        let by = by.into();
        let command = Command::Expunge {
            account,
            epoch: by.epoch,
            mailbox,
            which,
        };
        match self.inner.submit_by(by.user, command).await {
            Reply::Expunged(expunged) => Ok(expunged),
            other => other.refused(),
        }
    }

    /// Changes flags and keywords; with `unchanged_since` only of messages whose MODSEQ is not greater (RFC 7162).
    /// UIDs that do not exist are passed over.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed. [`Refusal::BadName`]: a keyword is none; [`Refusal::Full`]: too many keywords
    /// for the mailbox or a message.
    pub async fn store_flags(
        &self,
        account: AccountId,
        by: impl Into<Writer>,
        mailbox: MailboxId,
        uids: Vec<u32>,
        change: FlagChange,
        unchanged_since: Option<u64>,
    ) -> Result<Stored, Refusal> {
        let by = by.into();
        let command = Command::StoreFlags {
            account,
            epoch: by.epoch,
            mailbox,
            uids,
            change,
            unchanged_since,
        };
        match self.inner.submit_by(by.user, command).await {
            Reply::Stored(stored) => Ok(stored),
            other => other.refused(),
        }
    }
}
