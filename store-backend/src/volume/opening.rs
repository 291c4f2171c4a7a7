//! What a session asks before anything else, in one visit to the index.

use directory_api::{AccountId, Epoch, Quota};

use super::Volume;
use super::error::ReadError;
use super::rows::{AccountRow, State, mailbox_key};
use super::types::{Flags, MailboxId, Refusal};

/// An INBOX as POP3 sees it: what STAT, LIST and UIDL tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inbox {
    /// 0 when nothing was ever delivered.
    pub uidvalidity: u32,
    /// Its messages, by UID.
    pub messages: Vec<InboxMessage>,
}

/// One message of an [`Inbox`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboxMessage {
    /// Its UID.
    pub uid: u32,
    /// Octets a client reads: prologue and blob.
    pub size_octets: u64,
    /// When it came into the INBOX (RFC 8514), in milliseconds since 1970.
    pub save_date_ms: i64,
    /// Whether it has `\Seen`.
    pub seen: bool,
}

/// Why an account could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpeningError {
    /// The account takes no session with this epoch.
    #[error("account is not open")]
    Refused(#[from] Refusal),
    /// The index cannot be read.
    #[error("volume cannot be read")]
    Read(#[from] ReadError),
}

impl Volume {
    /// Opens an account for a session of this epoch, with what it may keep; a new account is made. An account that is as the grant says, which is
    /// every login but the first, costs one look into the index and no record. That look may come before a freeze
    /// that is under way: who freezes ends the sessions it finds once the freeze is in the index, so a session has to be
    /// among those before it asks here.
    ///
    /// # Errors
    /// [`OpeningError`].
    pub async fn open_account(
        &self,
        account: AccountId,
        epoch: Epoch,
        quota: Quota,
    ) -> Result<(), OpeningError> {
        let is_open = self.query(account, move |shared, txn| {
            let row = shared.index.account(txn, account)?;
            Ok(row.is_some_and(|row| is_as_granted(&row, epoch, quota)))
        });
        if !is_open.await? {
            self.limit_account(account, epoch, quota).await?;
        }
        Ok(())
    }

    /// As [`Volume::open_account`], with every message of the INBOX.
    ///
    /// # Errors
    /// [`OpeningError`].
    pub async fn open_inbox(
        &self,
        account: AccountId,
        epoch: Epoch,
        quota: Quota,
    ) -> Result<Inbox, OpeningError> {
        if let Some(inbox) = self.inbox(account, epoch, quota).await? {
            return Ok(inbox);
        }
        self.limit_account(account, epoch, quota).await?;
        Ok(self.inbox(account, epoch, quota).await?.unwrap_or_default())
    }

    /// `None`: the account is not as the grant says.
    async fn inbox(
        &self,
        account: AccountId,
        epoch: Epoch,
        quota: Quota,
    ) -> Result<Option<Inbox>, ReadError> {
        self.query(account, move |shared, txn| {
            let row = shared.index.account(txn, account)?;
            if !row.is_some_and(|row| is_as_granted(&row, epoch, quota)) {
                return Ok(None);
            }
            let Some(row) = shared.index.mailbox(txn, account, MailboxId::INBOX)? else {
                return Ok(Some(Inbox::default()));
            };
            let mut messages =
                Vec::with_capacity(usize::try_from(row.message_count).unwrap_or_default());
            let prefix = mailbox_key(account, MailboxId::INBOX);
            shared
                .index
                .each_message::<ReadError>(txn, &prefix, |_, uid, row, _| {
                    messages.push(InboxMessage {
                        uid,
                        size_octets: row.size_octets(),
                        save_date_ms: row.save_date_ms.get(),
                        seen: row.flags().contains(Flags::SEEN),
                    });
                    Ok(())
                })?;
            Ok(Some(Inbox {
                uidvalidity: row.uidvalidity,
                messages,
            }))
        })
        .await
    }
}

fn is_as_granted(row: &AccountRow, epoch: Epoch, quota: Quota) -> bool {
    row.state == State::Active && row.epoch == epoch && row.quota == quota
}
