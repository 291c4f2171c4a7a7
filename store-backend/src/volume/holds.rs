//! Mail held for accounts that live elsewhere: messages in the INBOX of an account of its own for each of them.
//!
//! Its number is that of the account it holds for with one bit more, which the directory never gives and nobody can name to us
//! ([`AccountId::MAX`]): no session, move, backup or undelete reaches it. So held mail is kept, recovered,
//! scrubbed, made anew and checked as all mail is, and a transaction is held once as it is delivered once (P2).

use std::ops::Bound;

use directory_api::{AccountId, Epoch};

use super::Volume;
use super::error::{IndexError, ReadError};
use super::read::blocking;
use super::rows::{AccountRow, MessageRow, mailbox_key, mailbox_of};
use super::types::MailboxId;

/// The bit. Accounts of the directory are below it, and folders are named for numbers below its double.
const HOLD: u64 = AccountId::MAX.0 + 1;

/// The epoch of all these accounts: nobody moves them.
pub const HOLD_EPOCH: Epoch = Epoch::FIRST;

/// The account that holds for this one; none when it is none that the directory gives.
#[must_use]
pub fn holder_of(account: AccountId) -> Option<AccountId> {
    (account.0 < HOLD).then_some(AccountId(account.0 | HOLD))
}

/// The account for which this one holds; none when it is a user's.
#[must_use]
pub fn held_for(account: AccountId) -> Option<AccountId> {
    (account.0 >= HOLD).then_some(AccountId(account.0 & !HOLD))
}

/// What is held for one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldMail {
    /// For whom.
    pub account: AccountId,
    /// How many messages.
    pub messages: u64,
    /// Octets, bodies shared by several each time.
    pub octets: u64,
    /// When the oldest was received, in milliseconds since 1970.
    pub oldest_ms: i64,
}

impl Volume {
    /// Everything that is held here, by account, with all that was answered before. Costs a row for each account for which something was ever held.
    ///
    /// # Errors
    /// The index cannot be read.
    pub async fn held_mail(&self) -> Result<Vec<HeldMail>, ReadError> {
        self.inner.shared().settled_all().await?;
        blocking(self.inner.shared(), |shared| {
            let index = &shared.index;
            index.read(|txn| {
                let first = mailbox_key(AccountId(HOLD), MailboxId(0));
                let range = (Bound::Included(&first[..]), Bound::Unbounded);
                let mut held = Vec::new();
                for row in index.mailboxes.range(txn, &range)? {
                    let (key, bytes) = row?;
                    let (account, mailbox) =
                        mailbox_of(key).ok_or(IndexError::Contradiction("a mailbox's key"))?;
                    if mailbox != MailboxId(0) {
                        continue;
                    }
                    let row = AccountRow::decode(bytes).map_err(IndexError::from)?;
                    if let (Some(for_account), 1..) = (held_for(account), row.message_count) {
                        let inbox = mailbox_key(account, MailboxId::INBOX);
                        let oldest = index
                            .messages
                            .prefix_iter(txn, &inbox)?
                            .next()
                            .transpose()?;
                        let oldest = oldest.map(|(_, row)| MessageRow::decode(row));
                        let oldest = oldest.transpose().map_err(IndexError::from)?;
                        held.push(HeldMail {
                            account: for_account,
                            messages: row.message_count,
                            octets: row.size_octets,
                            oldest_ms: oldest.map_or(0, |(row, _)| row.info(0).internal_date_ms),
                        });
                    }
                }
                Ok(held)
            })
        })
        .await
    }
}
