//! Expunged messages that can be brought back until their grace is over (DESIGN §5): listed, and made messages again.
//!
//! They cost no quota, and stay behind when the account moves: the new home has only what the account holds.

use std::ops::Bound;

use bytes::Bytes;
use directory_api::{AccountId, Epoch};

use super::Volume;
use super::error::{IndexError, ReadError};
use super::intake::{Command, Reply};
use super::rows::{KeptRow, message_key, message_of};
use super::types::{KeptMessage, MailboxId, Refusal, Undeleted};
use crate::card::Card;

impl Volume {
    /// Expunged messages of an account that can be brought back, by mailbox and UID: `max` of them at most, beginning behind
    /// `after`. `now_ms`: those that are kept until then or less are left out, for they may go at any moment.
    ///
    /// # Errors
    /// The index cannot be read.
    pub async fn kept(
        &self,
        account: AccountId,
        after: Option<(MailboxId, u32)>,
        max: usize,
        now_ms: i64,
    ) -> Result<Vec<KeptMessage>, ReadError> {
        self.query(account, move |shared, txn| {
            let index = &shared.index;
            let prefix = account.0.to_be_bytes();
            let (mailbox, uid) = after.unwrap_or((MailboxId(0), 0));
            let first = message_key(account, mailbox, uid);
            let range = (Bound::Excluded(&first[..]), Bound::Unbounded);
            let mut found = Vec::new();
            let mut name: Option<(MailboxId, Option<String>)> = None;
            for row in index.kept.range(txn, &range)? {
                let (key, bytes) = row?;
                if !key.starts_with(&prefix) || found.len() == max {
                    break;
                }
                let (mailbox, uid) =
                    message_of(key).ok_or(IndexError::Contradiction("a kept key"))?;
                let kept = KeptRow::decode(bytes)?;
                if kept.until_ms <= now_ms {
                    continue;
                }
                if name.as_ref().is_none_or(|(of, _)| *of != mailbox) {
                    let row = index.mailbox(txn, account, mailbox)?;
                    name = Some((mailbox, row.map(|row| row.name)));
                }
                let now_called = name.as_ref().and_then(|(_, name)| name.clone());
                let number = kept.message.blob.get().to_be_bytes();
                let card = index.cards.get(txn, &number)?;
                let card = card.and_then(|card| Card::read(Bytes::copy_from_slice(card)));
                found.push(KeptMessage {
                    mailbox,
                    uid,
                    name: now_called.unwrap_or(kept.name),
                    size_octets: kept.message.size_octets(),
                    internal_date_ms: kept.message.internal_date_ms.get(),
                    expunged_ms: kept.at_ms,
                    until_ms: kept.until_ms,
                    fields: card.and_then(|card| card.fields()),
                });
            }
            Ok(found)
        })
        .await
    }

    /// Makes new messages of expunged ones of one mailbox, [`super::UNDELETE_MAX`] at most: with their identity, internal date,
    /// flags without `\Deleted`, and keywords. They come to that mailbox, whatever it is called by now; to one of its last name
    /// when it was deleted, which is made where there is none; or to the one named. No quota refuses it, for an operator asks;
    /// it counts. UIDs that are not kept, or not any more, are passed over. Durable when it returns, and in the index.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was brought back.
    pub async fn undelete(
        &self,
        account: AccountId,
        epoch: Epoch,
        mailbox: MailboxId,
        uids: Vec<u32>,
        to: Option<String>,
    ) -> Result<Undeleted, Refusal> {
        let command = Command::Undelete {
            account,
            epoch,
            mailbox,
            uids,
            to,
        };
        // It is decided by what the index has: all that was expunged so far.
        let settled = self.settled(account).await;
        settled.map_err(|_| Refusal::NoRoom)?;
        match self.inner.submit(command).await {
            Reply::Undeleted(undeleted) => Ok(undeleted),
            other => other.refused(),
        }
    }
}
