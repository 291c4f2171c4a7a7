//! RETR and TOP: one message, streamed. RFC 1939 §5, §7.

use mail_proto::pop3::{MessageEncoder, Retrieve, RetrieveError, Transaction};
use tracing::error;

use super::Pop3;
use crate::sessions::Registration;
use crate::user::{Cut, User, WRITE_MAX_OCTETS};
use crate::volume::{MailboxId, MessageBytes};

impl Pop3<'_> {
    /// Sends the prologue, then exactly the blob's octets, dot-stuffed; one chunk in memory at a time.
    pub(super) async fn retrieve(
        &self,
        user: &mut User,
        transaction: &mut Transaction,
        registration: &mut Registration,
        wanted: Retrieve,
    ) -> Result<(), Cut> {
        match self
            .volume
            .read_message(self.account, MailboxId::INBOX, wanted.uid)
            .await
        {
            Ok(Some(message)) => {
                let encoder = transaction.message_found();
                self.stream(user, message, encoder, registration, wanted)
                    .await?;
                transaction.message_sent();
            }
            Ok(None) => transaction.message_failed(RetrieveError::Gone),
            Err(why) => {
                error!(account = %self.account, uid = wanted.uid, error = %why, "message cannot be read");
                transaction.message_failed(RetrieveError::Temporary);
            }
        }
        Ok(())
    }

    async fn stream(
        &self,
        user: &mut User,
        mut message: MessageBytes,
        mut encoder: MessageEncoder,
        registration: &mut Registration,
        wanted: Retrieve,
    ) -> Result<(), Cut> {
        let mut out = Vec::new();
        let mut satisfied = encoder.encode(&message.prologue, &mut out);
        while !satisfied {
            match message.blob.next().await {
                Ok(Some(chunk)) => satisfied = encoder.encode(&chunk, &mut out),
                Ok(None) => break,
                Err(why) => {
                    // `+OK` has been said, so there is no way left to say no: the user must not
                    // take what came so far for the message (P9).
                    error!(account = %self.account, uid = wanted.uid, error = %why, "message broke off while it was read");
                    return Err(Cut::Gone);
                }
            }
            if out.len() >= WRITE_MAX_OCTETS {
                user.write_until(&out, registration).await?;
                out.clear();
            }
        }
        encoder.finish(&mut out);
        user.write_until(&out, registration).await
    }
}
