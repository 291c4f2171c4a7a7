//! Annotations of mailboxes and of the account (RFC 5464).

use directory_api::{AccountId, Epoch};

use super::super::intake::Reply;
use super::super::record::{Annotate, Record};
use super::super::types::{
    ANNOTATION_MAX_BYTES, ANNOTATION_NAME_MAX_BYTES, ANNOTATIONS_MAX, AnnotationChange, MailboxId,
    Refusal,
};
use super::{Batch, Decided, Sequencer, Stop};

impl Sequencer {
    /// All changes or none.
    pub(super) fn annotate(
        &mut self,
        batch: &mut Batch<'_>,
        account: AccountId,
        epoch: Epoch,
        mailbox: MailboxId,
        mut changes: Vec<AnnotationChange>,
    ) -> Result<Decided, Stop> {
        for (entry, value) in &changes {
            if !is_annotation(entry) {
                return Err(Refusal::BadName.into());
            }
            if value
                .as_ref()
                .is_some_and(|value| value.len() > ANNOTATION_MAX_BYTES)
            {
                return Err(Refusal::Full.into());
            }
        }
        // Of changes of one entry the last one holds.
        changes.reverse();
        changes.sort_by(|(one, _), (other, _)| one.cmp(other));
        changes.dedup_by(|(later, _), (kept, _)| later == kept);
        let (lsn, record_max_bytes) = (batch.lsn(), self.rules.record_max_bytes);
        let entry = self.account(batch, account)?;
        entry.writable(epoch)?;
        if mailbox.0 != 0 && !entry.mailboxes.contains_key(&mailbox) {
            return Err(Refusal::NoMailbox.into());
        }
        if entry.annotations.is_none() {
            // As with subscriptions: nothing of it is in flight.
            let known = self.index.annotations_of(batch.txn, account)?;
            self.account(batch, account)?.annotations = Some(known);
        }
        let entry = self.account(batch, account)?;
        let mut known = entry.annotations.clone().unwrap_or_default();
        let mut record_bytes = 0;
        changes.retain(|(name, value)| {
            let key = (mailbox, name.clone());
            match value {
                Some(value) => {
                    record_bytes += 9 + name.len() + value.len();
                    known.insert(key, value.len());
                    true
                }
                None => {
                    record_bytes += 9 + name.len();
                    known.remove(&key).is_some()
                }
            }
        });
        let of_mailbox = known.range((mailbox, String::new())..);
        let count = of_mailbox.take_while(|((of, _), _)| *of == mailbox).count();
        let bytes: usize = known
            .iter()
            .map(|((_, name), octets)| ROW_BYTES + name.len() + octets)
            .sum();
        let grows = changes.iter().any(|(_, value)| value.is_some());
        if grows && (count > ANNOTATIONS_MAX || bytes > ACCOUNT_MAX_BYTES)
            || record_bytes > record_max_bytes
        {
            return Err(Refusal::Full.into());
        }
        if !changes.is_empty() {
            entry.annotations = Some(known);
            entry.last = lsn;
            batch.records.push(Record::Annotate(Annotate {
                account,
                mailbox,
                changes,
            }));
        }
        Ok(Decided::AfterApply(Reply::Done))
    }
}

/// The one form in which an entry's name is kept: lower case, for RFC 5464 §3.2 has names in any case; below `/private`
/// or `/shared`; without empty parts, wildcards, or what is not printable ASCII.
pub(super) fn is_annotation(entry: &str) -> bool {
    let below = |root| {
        entry
            .strip_prefix(root)
            .is_some_and(|rest| !rest.is_empty())
    };
    entry.len() <= ANNOTATION_NAME_MAX_BYTES
        && (below("/private/") || below("/shared/"))
        && !entry.ends_with('/')
        && !entry.contains("//")
        && entry.bytes().all(|octet| {
            matches!(octet, b' '..=b'~') && !matches!(octet, b'*' | b'%' | b'A'..=b'Z')
        })
}

/// Of all annotations of an account together: an import reads them at once, and no quota counts them.
const ACCOUNT_MAX_BYTES: usize = 4 << 20;
/// What an annotation costs besides its name and value.
const ROW_BYTES: usize = 64;
