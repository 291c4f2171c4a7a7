//! Annotations of mailboxes and of the account (RFC 5464). In the index when a change returns.
//!
//! Entry names are in lower case here. An annotation belongs to a mailbox's number: a rename keeps it, a deletion takes it
//! along. Mailbox `None` is the account itself: what IMAP calls the server's entries as far as they are the user's own.

use std::ops::Bound;

use bytes::Bytes;
use directory_api::AccountId;

use super::Volume;
use super::acl::Writer;
use super::error::{IndexError, ReadError};
use super::intake::Command;
use super::rows::{annotation_key, annotation_of, decode_annotation, mailbox_key};
use super::types::{AnnotationChange, MailboxId, Refusal};

impl Volume {
    /// Sets and removes annotations, all of them or none.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was changed. [`Refusal::BadName`]: an entry is none; [`Refusal::Full`]: a value is too long,
    /// or the mailbox or the account has too many.
    pub async fn annotate(
        &self,
        account: AccountId,
        by: impl Into<Writer>,
        mailbox: Option<MailboxId>,
        changes: Vec<AnnotationChange>,
    ) -> Result<(), Refusal> {
        let by = by.into();
        let command = Command::Annotate {
            account,
            epoch: by.epoch,
            mailbox: mailbox.unwrap_or(MailboxId(0)),
            changes,
        };
        self.inner.submit_by(by.user, command).await.done()
    }

    /// Annotations by entry, those behind `after`: some hundred KiB at a time, none when there are no more.
    ///
    /// # Errors
    /// The index cannot be read.
    pub async fn annotations(
        &self,
        account: AccountId,
        mailbox: Option<MailboxId>,
        after: &str,
    ) -> Result<Vec<(String, Bytes)>, ReadError> {
        let mailbox = mailbox.unwrap_or(MailboxId(0));
        let after = annotation_key(account, mailbox, after);
        self.query(account, move |shared, txn| {
            let prefix = mailbox_key(account, mailbox);
            let mut found = Vec::new();
            let mut octets = 0;
            let table = shared.index.annotations;
            for row in table.range(txn, &(Bound::Excluded(&after[..]), Bound::Unbounded))? {
                let (key, value) = row?;
                if !key.starts_with(&prefix) || octets >= PAGE_OCTETS {
                    break;
                }
                let (_, entry) =
                    annotation_of(key).ok_or(IndexError::Contradiction("a key of annotations"))?;
                let value = Bytes::copy_from_slice(decode_annotation(value)?);
                octets += value.len();
                found.push((entry.to_owned(), value));
            }
            Ok(found)
        })
        .await
    }
}

/// With the longest value behind it, a quarter of what a session may hold.
const PAGE_OCTETS: usize = 192 << 10;
