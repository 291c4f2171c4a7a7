//! Messages that come from others: copied, moved, brought back.

use directory_api::AccountId;

use super::super::error::IndexError;
use super::super::record::{CopyMessages, Grace};
use super::super::rows::{MessageRow, message_key};
use super::super::types::MailboxId;
use super::{Apply, count, prologue};

impl Apply<'_, '_> {
    /// New messages of others, whose rows and prologues `take` finds by their UIDs.
    pub(super) fn copy(
        &mut self,
        record: &CopyMessages,
        take: impl Fn(
            &mut Self,
            (AccountId, MailboxId, u32),
        ) -> Result<(MessageRow, Vec<u8>), IndexError>,
    ) -> Result<(), IndexError> {
        let CopyMessages {
            account: id,
            source,
            target,
            modseq,
            ..
        } = *record;
        for copy in &record.copies {
            self.new_blob(copy, 0)?;
        }
        let mut account = self.account_row(id)?;
        let mut mailbox = self.mailbox_row(id, target)?;
        for message in &record.messages {
            let (from, prologue) = take(self, (id, source, message.source_uid))?;
            let row = MessageRow {
                flags: message.flags.flags.0.into(),
                modseq: modseq.into(),
                blob: message.blob.into(),
                save_date_ms: record.saved_ms.into(),
                ..from.unbundled()
            };
            self.change_links(message.blob, 0, 1, 0)?;
            let key = message_key(id, target, message.flags.uid);
            self.write_message(&key, row, &message.flags.keywords, &prologue)?;
            count(&mut account, &mut mailbox, &row);
            mailbox.uidnext = message.flags.uid + 1;
        }
        mailbox.keywords.extend_from_slice(&record.new_keywords);
        mailbox.highestmodseq = modseq;
        self.index.put_account(self.txn, id, &account)?;
        self.index.put_mailbox(self.txn, id, target, &mailbox)?;
        if record.source_modseq > 0 {
            let gone: Vec<u32> = record
                .messages
                .iter()
                .map(|message| message.source_uid)
                .collect();
            // No body goes by it: each has got the link that it loses here.
            self.remove_messages(id, source, record.source_modseq, &gone, Grace::none(0))?;
        }
        Ok(())
    }

    pub(super) fn whole_message(
        &mut self,
        (account, mailbox, uid): (AccountId, MailboxId, u32),
    ) -> Result<(MessageRow, Vec<u8>), IndexError> {
        let (row, _) = self.message_row(account, mailbox, uid)?;
        let prologue = prologue(self.index, self.txn, account, mailbox, uid, &row)?;
        Ok((row, prologue.to_vec()))
    }
}
