//! RETR and TOP: one message, streamed. RFC 1939 §5, §7.

use std::collections::VecDeque;

use mail_proto::pop3::{Maildrop, MessageEncoder, Retrieve, RetrieveError, Transaction};
use tracing::error;

use super::Pop3;
use crate::sessions::Registration;
use crate::user::{Cut, User, WRITE_MAX_OCTETS};
use crate::volume::{MailboxId, MessageBytes, ReadError};

/// Messages read before they are asked for. Most clients take one after the other, and the way to a thread that may block
/// and back costs as much as a small message: the next ones are read along with the first, and with each that is next in
/// its turn.
#[derive(Default)]
pub(super) struct Ahead {
    /// The place after the last one asked for.
    next_index: Option<usize>,
    /// UIDs and messages, in their order.
    messages: VecDeque<(u32, MessageBytes)>,
}

/// Ten are read in one visit, and what they may hold: a client that stops in the middle keeps this for nothing.
const AHEAD_MAX_COUNT: usize = 9;
const AHEAD_MAX_OCTETS: u64 = 64 << 10;

impl Ahead {
    /// The wanted message if it was read before; else the UIDs to read now, its own first.
    fn take(&mut self, maildrop: &Maildrop, wanted: &Retrieve) -> Result<MessageBytes, Vec<u32>> {
        let next_index = wanted.index + 1;
        let last = self.next_index.replace(next_index);
        let in_order = last.is_none_or(|next_index| next_index == wanted.index);
        while let Some((uid, message)) = self.messages.pop_front() {
            if uid == wanted.uid {
                return Ok(message);
            }
        }
        let mut uids = vec![wanted.uid];
        if in_order {
            let mut octets = 0;
            let behind = maildrop.entries().iter().skip(next_index);
            let behind = behind.filter(|entry| !entry.deleted).take_while(|entry| {
                octets += entry.size;
                octets <= AHEAD_MAX_OCTETS
            });
            uids.extend(behind.take(AHEAD_MAX_COUNT).map(|entry| entry.uid));
        }
        Err(uids)
    }
}

impl Pop3<'_> {
    /// Sends the prologue, then exactly the blob's octets, dot-stuffed; one chunk in memory at a time.
    pub(super) async fn retrieve(
        &self,
        user: &mut User,
        transaction: &mut Transaction,
        ahead: &mut Ahead,
        registration: &mut Registration,
        wanted: Retrieve,
    ) -> Result<(), Cut> {
        match self.read(transaction.maildrop(), ahead, &wanted).await {
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

    /// The wanted message, read ahead or now.
    async fn read(
        &self,
        maildrop: &Maildrop,
        ahead: &mut Ahead,
        wanted: &Retrieve,
    ) -> Result<Option<MessageBytes>, ReadError> {
        let uids = match ahead.take(maildrop, wanted) {
            Ok(message) => return Ok(Some(message)),
            Err(uids) => uids,
        };
        let read = self
            .volume
            .read_messages(self.account, MailboxId::INBOX, uids.clone());
        let mut read = uids.into_iter().zip(read.await?);
        let first = read.next();
        // What could not be read is read again, and its failure told, when it is asked for.
        let found = |(uid, message): (u32, Result<Option<_>, _>)| Some((uid, message.ok()??));
        ahead.messages.extend(read.map_while(found));
        first.map_or(Err(ReadError::Stopped), |(_, message)| message)
    }

    async fn stream(
        &self,
        user: &mut User,
        mut message: MessageBytes,
        mut encoder: MessageEncoder,
        registration: &mut Registration,
        wanted: Retrieve,
    ) -> Result<(), Cut> {
        // Some octets more for dots that are doubled.
        let octets = usize::try_from(wanted.size).map_or(WRITE_MAX_OCTETS, |size| size + 64);
        let mut out = Vec::with_capacity(octets.min(WRITE_MAX_OCTETS));
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
