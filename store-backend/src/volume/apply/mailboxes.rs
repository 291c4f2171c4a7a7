//! Mailboxes: made, removed, renamed, subscribed, shared, annotated.

use directory_api::AccountId;

use super::super::acl::Acl;
use super::super::error::IndexError;
use super::super::record::{CreateMailboxes, DeleteMailbox, RenameMailboxes};
use super::super::rows::{
    MailboxRow, annotation_key, encode_annotation, encode_share, encode_subscription, mailbox_key,
    share_key, subscription_key,
};
use super::super::types::MailboxId;
use super::Apply;

impl Apply<'_, '_> {
    pub(super) fn mailbox(&mut self, record: &CreateMailboxes) -> Result<(), IndexError> {
        let mut account = self.account_row(record.account)?;
        for new in &record.created {
            account.mailbox_next = new.mailbox.0 + 1;
            account.uidvalidity_last = new.uidvalidity;
            let row = MailboxRow {
                special_use: new.special_use,
                ..MailboxRow::new(
                    record.account,
                    new.mailbox,
                    new.name.clone(),
                    new.uidvalidity,
                )
            };
            self.index
                .put_mailbox(self.txn, record.account, new.mailbox, &row)?;
        }
        self.index.put_account(self.txn, record.account, &account)
    }

    pub(super) fn delete(&mut self, record: &DeleteMailbox) -> Result<(), IndexError> {
        let prefix = mailbox_key(record.account, record.mailbox);
        let mailbox = self.mailbox_row(record.account, record.mailbox)?;
        let mut account = self.account_row(record.account)?;
        account.message_count = account.message_count.saturating_sub(mailbox.message_count);
        account.size_octets = account.size_octets.saturating_sub(mailbox.size_octets);
        self.keep_all(record.account, record.mailbox, &mailbox, record.grace)?;
        self.remove_below(&prefix, record.grace.until_ms)?;
        self.index.put_account(self.txn, record.account, &account)
    }

    pub(super) fn rename(&mut self, record: &RenameMailboxes) -> Result<(), IndexError> {
        for (mailbox, name) in &record.renamed {
            let mut row = self.mailbox_row(record.account, *mailbox)?;
            row.name.clone_from(name);
            self.index
                .put_mailbox(self.txn, record.account, *mailbox, &row)?;
        }
        Ok(())
    }

    pub(super) fn subscribe(
        &mut self,
        account: AccountId,
        name: &str,
        subscribed: bool,
    ) -> Result<(), IndexError> {
        let key = subscription_key(account, name);
        if subscribed {
            self.index
                .subscriptions
                .put(self.txn, &key, &encode_subscription(name))?;
        } else {
            self.index.subscriptions.delete(self.txn, &key)?;
        }
        Ok(())
    }

    /// Keeps the table of who may use what in step with a list of rights.
    pub(super) fn share(
        &mut self,
        owner: AccountId,
        mailbox: MailboxId,
        before: &Acl,
        after: &Acl,
    ) -> Result<(), IndexError> {
        let table = self.index.shares;
        for entry in &before.entries {
            table.delete(self.txn, &share_key(entry.account, owner, mailbox))?;
        }
        for entry in &after.entries {
            let key = share_key(entry.account, owner, mailbox);
            table.put(self.txn, &key, &encode_share(&after.owner))?;
        }
        Ok(())
    }

    pub(super) fn annotate(
        &mut self,
        account: AccountId,
        mailbox: MailboxId,
        entry: &str,
        value: Option<&[u8]>,
    ) -> Result<(), IndexError> {
        let key = annotation_key(account, mailbox, entry);
        let table = self.index.annotations;
        match value {
            Some(value) => table.put(self.txn, &key, &encode_annotation(value))?,
            None => {
                table.delete(self.txn, &key)?;
            }
        }
        Ok(())
    }
}
