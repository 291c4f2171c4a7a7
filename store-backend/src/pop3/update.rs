//! UPDATE: the deletions of QUIT, and the provider's retention. RFC 1939 §6, RFC 2449 §6.7.

use mail_proto::pop3::Update;
use tracing::{info, warn};

use super::Pop3;
use crate::metrics;
use crate::volume::{FlagChange, Flags, MailboxId, Refusal};

impl Pop3<'_> {
    /// Does what QUIT is to do; whether the client's deletions are durable: all of them or none.
    pub(super) async fn update(&self, update: Update) -> bool {
        if !self.may_write {
            return update.deleted.is_empty();
        }
        let (deleted, kept) = (
            self.delete(update.deleted).await,
            self.retain(update.seen, update.expired).await,
        );
        if let Err(refusal) = kept {
            // Not asked for by the client, and the next QUIT does it.
            warn!(account = %self.account, error = %refusal, "retention at QUIT was refused");
        }
        deleted
    }

    async fn delete(&self, uids: Vec<u32>) -> bool {
        if uids.is_empty() {
            return true;
        }
        let inbox = MailboxId::INBOX;
        match self
            .volume
            .expunge(self.account, self.epoch, inbox, uids)
            .await
        {
            Ok(_) => true,
            Err(refusal) => {
                warn!(account = %self.account, error = %refusal, "deletions at QUIT were refused");
                false
            }
        }
    }

    /// Marks as read what was retrieved, then removes what has stayed its days and is marked so still: a message that
    /// another session has just marked unread stays.
    async fn retain(&self, seen: Vec<u32>, expired: Vec<u32>) -> Result<(), Refusal> {
        let (volume, inbox) = (self.volume, MailboxId::INBOX);
        for slice in seen.chunks(SLICE) {
            let change = FlagChange::Add(Flags::SEEN.into());
            volume
                .store_flags(
                    self.account,
                    self.epoch,
                    inbox,
                    slice.to_vec(),
                    change,
                    None,
                )
                .await?;
        }
        let mut removed = 0;
        for slice in expired.chunks(SLICE) {
            let uids = slice.to_vec();
            let expunged = volume
                .expunge_seen(self.account, self.epoch, inbox, uids)
                .await?;
            removed += expunged.uids.len();
            metrics::pop3_expired(expunged.uids.len());
        }
        if removed > 0 {
            info!(account = %self.account, removed, expire = %self.policy.expiry, "messages whose retention is over were removed");
        }
        Ok(())
    }
}

/// Messages of one command of the volume: some thousand, so that others get between.
const SLICE: usize = 5000;
