//! Annotations of mailboxes and of the account (RFC 5464).

use std::collections::BTreeMap;

use bytes::Bytes;
use directory_api::{AccountId, Epoch};

use super::super::intake::Reply;
use super::super::record::{Annotate, Record, StoreFlags};
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
            let mut known = Annotations::default();
            for ((of, name), octets) in self.index.annotations_of(batch.txn, account)? {
                known.set(of, &name, Some(octets));
            }
            self.account(batch, account)?.annotations = Some(known);
        }
        let entry = self.account(batch, account)?;
        let known = entry.annotations.get_or_insert_default();
        changes.retain(|(name, value)| value.is_some() || known.has(mailbox, name));
        let octets = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
        let record_bytes: usize = changes
            .iter()
            .map(|(name, value)| 9 + name.len() + octets(value))
            .sum();
        if known.is_too_much(mailbox, &changes) || record_bytes > record_max_bytes {
            return Err(Refusal::Full.into());
        }
        if !changes.is_empty() {
            for (name, value) in &changes {
                known.set(mailbox, name, value.as_ref().map(Bytes::len));
            }
            entry.last = lsn;
            batch.records.push(Record::Annotate(Annotate {
                account,
                mailbox,
                changes,
            }));
            if mailbox.0 != 0 {
                // RFC 7162 §3.2: whoever knows the mailbox by its MODSEQ must see that something of it is other now.
                let (modseq, _) = self.next_modseq(batch, account, mailbox)?;
                batch.records.push(Record::Flags(StoreFlags {
                    account,
                    mailbox,
                    modseq,
                    new_keywords: Vec::new(),
                    changes: Vec::new(),
                }));
            }
        }
        Ok(Decided::AfterApply(Reply::Done))
    }
}

/// What an account has of annotations, without their values.
#[derive(Debug, Default)]
pub(super) struct Annotations {
    /// Octets of each entry's value.
    entries: BTreeMap<(MailboxId, String), usize>,
    /// What all of them cost. Kept, for a change must not cost what there is: there may be tens of thousands.
    cost_bytes: usize,
}

impl Annotations {
    fn has(&self, mailbox: MailboxId, name: &str) -> bool {
        self.entries.contains_key(&(mailbox, name.to_owned()))
    }

    /// Takes in the octets of an entry's new value, or that it goes.
    pub(super) fn set(&mut self, mailbox: MailboxId, name: &str, octets: Option<usize>) {
        let key = (mailbox, name.to_owned());
        let before = match octets {
            Some(octets) => self.entries.insert(key, octets),
            None => self.entries.remove(&key),
        };
        self.cost_bytes += octets.map_or(0, |octets| cost(name, octets));
        self.cost_bytes -= before.map_or(0, |octets| cost(name, octets));
    }

    /// The mailbox is gone.
    pub(super) fn remove_all(&mut self, mailbox: MailboxId) {
        let of_mailbox = self.entries.range((mailbox, String::new())..);
        let names: Vec<String> = of_mailbox
            .take_while(|((of, _), _)| *of == mailbox)
            .map(|((_, name), _)| name.clone())
            .collect();
        for name in names {
            self.set(mailbox, &name, None);
        }
    }

    /// Whether it would be more than an account or one of its mailboxes may have. Of no entry two changes.
    fn is_too_much(&self, mailbox: MailboxId, changes: &[AnnotationChange]) -> bool {
        if changes.iter().all(|(_, value)| value.is_none()) {
            return false;
        }
        let of_mailbox = self.entries.range((mailbox, String::new())..);
        let mut count = of_mailbox.take_while(|((of, _), _)| *of == mailbox).count();
        let mut cost_bytes = self.cost_bytes;
        for (name, value) in changes {
            if let Some(octets) = self.entries.get(&(mailbox, name.clone())) {
                count -= 1;
                cost_bytes -= cost(name, *octets);
            }
            if let Some(value) = value {
                count += 1;
                cost_bytes += cost(name, value.len());
            }
        }
        count > ANNOTATIONS_MAX || cost_bytes > ACCOUNT_MAX_BYTES
    }
}

fn cost(name: &str, octets: usize) -> usize {
    ROW_BYTES + name.len() + octets
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
