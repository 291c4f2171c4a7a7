//! UPDATE: the deletions of QUIT. RFC 1939 §6.

use tracing::warn;

use super::Pop3;
use crate::volume::MailboxId;

impl Pop3<'_> {
    /// Removes the messages; whether that is durable. All of them or none.
    pub(super) async fn update(&self, deleted: Vec<u32>) -> bool {
        if deleted.is_empty() {
            return true;
        }
        if !self.may_write {
            return false;
        }
        match self
            .volume
            .expunge(self.account, self.epoch, MailboxId::INBOX, deleted)
            .await
        {
            Ok(_) => true,
            Err(refusal) => {
                warn!(account = %self.account, error = %refusal, "deletions at QUIT were refused");
                false
            }
        }
    }
}
