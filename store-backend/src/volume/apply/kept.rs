//! Expunged messages: kept for a time, brought back, purged.

use std::ops::Bound;

use directory_api::AccountId;

use super::super::error::IndexError;
use super::super::record::{Grace, Purge};
use super::super::rows::{
    KeptRow, MailboxRow, MessageRow, kept_until_key, kept_until_of, mailbox_key, message_key,
};
use super::super::types::MailboxId;
use super::{Apply, prologue};

impl Apply<'_, '_> {
    /// Keeps a message that is about to go. Costs nothing where there is no grace.
    pub(super) fn keep(
        &mut self,
        account: AccountId,
        (id, mailbox): (MailboxId, &MailboxRow),
        uid: u32,
        (message, keywords): (&MessageRow, &[u16]),
        grace: Grace,
    ) -> Result<(), IndexError> {
        if grace.is_none() {
            return Ok(());
        }
        let prologue = prologue(self.index, self.txn, account, id, uid, message)?;
        let name = |number: &u16| mailbox.keywords.get(usize::from(*number)).cloned();
        let row = KeptRow {
            at_ms: grace.at_ms,
            until_ms: grace.until_ms,
            message: *message,
            name: mailbox.name.clone(),
            prologue: prologue.to_vec(),
            keywords: keywords.iter().filter_map(name).collect(),
        };
        let key = message_key(account, id, uid);
        self.index.kept.put(self.txn, &key, &row.encode())?;
        let until = kept_until_key(grace.until_ms, account, id, uid);
        Ok(self.index.kept_until.put(self.txn, &until, &[])?)
    }

    /// Keeps all messages of a mailbox that is about to go.
    pub(super) fn keep_all(
        &mut self,
        account: AccountId,
        id: MailboxId,
        mailbox: &MailboxRow,
        grace: Grace,
    ) -> Result<(), IndexError> {
        if grace.is_none() {
            return Ok(());
        }
        let prefix = mailbox_key(account, id);
        let mut next = 0;
        loop {
            let mut slice = Vec::new();
            let first = message_key(account, id, next);
            let range = (Bound::Included(&first[..]), Bound::Unbounded);
            for row in self.index.messages.range(self.txn, &range)?.take(SLICE) {
                let (key, bytes) = row?;
                if !key.starts_with(&prefix) {
                    break;
                }
                let (_, uid) =
                    super::message_of(key).ok_or(IndexError::Contradiction("a message's key"))?;
                let (row, keywords) = MessageRow::decode(bytes)?;
                let keywords: Vec<u16> = keywords.iter().map(|number| number.get()).collect();
                slice.push((uid, row, keywords));
            }
            let Some((last, ..)) = slice.last() else {
                return Ok(());
            };
            next = *last + 1;
            for (uid, row, keywords) in &slice {
                self.keep(account, (id, mailbox), *uid, (row, keywords), grace)?;
            }
        }
    }

    /// A kept message that comes back: it is kept no more.
    pub(super) fn take_kept(
        &mut self,
        (account, mailbox, uid): (AccountId, MailboxId, u32),
    ) -> Result<(MessageRow, Vec<u8>), IndexError> {
        let kept = self.index.kept(self.txn, account, mailbox, uid)?;
        let kept = kept.ok_or(IndexError::Contradiction("a kept message"))?;
        self.forget_kept(kept.until_ms, account, mailbox, uid)?;
        Ok((kept.message, kept.prologue))
    }

    pub(super) fn purge(&mut self, record: &Purge) -> Result<(), IndexError> {
        let last = kept_until_key(record.until_ms, record.account, record.mailbox, record.uid);
        let range = (Bound::Unbounded, Bound::Included(&last[..]));
        let mut gone = Vec::new();
        for row in self.index.kept_until.range(self.txn, &range)? {
            let (key, _) = row?;
            gone.push(kept_until_of(key).ok_or(IndexError::Contradiction("a key of kept_until"))?);
        }
        for (until_ms, account, mailbox, uid) in gone {
            self.forget_kept(until_ms, account, mailbox, uid)?;
        }
        Ok(())
    }

    /// Forgets what an account has expunged.
    pub(super) fn forget_all_kept(&mut self, account: AccountId) -> Result<(), IndexError> {
        let mut gone = Vec::new();
        for row in self
            .index
            .kept
            .prefix_iter(self.txn, &account.0.to_be_bytes())?
        {
            let (key, bytes) = row?;
            let (mailbox, uid) =
                super::message_of(key).ok_or(IndexError::Contradiction("a kept key"))?;
            gone.push((KeptRow::decode(bytes)?.until_ms, mailbox, uid));
        }
        for (until_ms, mailbox, uid) in gone {
            self.forget_kept(until_ms, account, mailbox, uid)?;
        }
        Ok(())
    }

    fn forget_kept(
        &mut self,
        until_ms: i64,
        account: AccountId,
        mailbox: MailboxId,
        uid: u32,
    ) -> Result<(), IndexError> {
        let key = message_key(account, mailbox, uid);
        self.index.kept.delete(self.txn, &key)?;
        let until = kept_until_key(until_ms, account, mailbox, uid);
        self.index.kept_until.delete(self.txn, &until)?;
        Ok(())
    }
}

/// Rows taken into memory at a time.
const SLICE: usize = 1000;
