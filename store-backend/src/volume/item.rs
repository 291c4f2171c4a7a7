//! Canonical items: an account's identity and content as octets that are the same on every back-end.
//!
//! An export is a sequence of items; the set-hash is the wrapping 256-bit sum (little-endian) of the BLAKE3 of each.
//! Each begins with its kind and its version (1); fields as in [`super::codec`]. What an item leaves out (epoch,
//! state, blob numbers, places) belongs to a back-end and not to the account.

use bytes::Bytes;
use directory_api::{AccountId, Quota};
use zerocopy::little_endian::U16;

use super::acl::Acl;
use super::codec::{Malformed, Put, Take};
use super::record::{put_quota, take_quota};
use super::rows::{AccountRow, BlobRow, MailboxRow, MessageRow, TransactionRow};
use super::types::{Flags, Hash, Item, MailboxId, NamedMessage, SpecialUse, TransactionId};

/// An item taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Kind 1.
    Account {
        account: AccountId,
        mailbox_next: u32,
        uidvalidity_last: u32,
        quota: Quota,
    },
    /// Kind 2.
    Mailbox(MailboxItem),
    /// Kind 3.
    Message(MessageItem),
    /// Kind 4: so that a retry after the move is still a duplicate (P2). UID 0, in a record alone: it goes.
    Transaction {
        txn: TransactionId,
        mailbox: MailboxId,
        uid: u32,
        committed_ms: i64,
    },
    /// Kind 5: UIDs that went with one MODSEQ, so that a client can resynchronise after the move. No ranges, in a record
    /// alone: it goes.
    Expunged {
        mailbox: MailboxId,
        modseq: u64,
        ranges: Vec<(u32, u32)>,
    },
    /// Kind 6.
    Subscription { name: String },
    /// Kind 7.
    Annotation {
        /// 0: of the account itself.
        mailbox: MailboxId,
        entry: String,
        value: Bytes,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MailboxItem {
    pub(super) mailbox: MailboxId,
    pub(super) uidvalidity: u32,
    pub(super) uidnext: u32,
    pub(super) highestmodseq: u64,
    pub(super) expunged_floor: u64,
    pub(super) identity: [u8; 16],
    pub(super) special_use: SpecialUse,
    pub(super) name: String,
    pub(super) keywords: Vec<String>,
    pub(super) acl: Acl,
}

impl MailboxItem {
    pub(super) fn new(mailbox: MailboxId, row: MailboxRow) -> Self {
        Self {
            mailbox,
            uidvalidity: row.uidvalidity,
            uidnext: row.uidnext,
            highestmodseq: row.highestmodseq,
            expunged_floor: row.expunged_floor,
            identity: row.identity,
            special_use: row.special_use,
            name: row.name,
            keywords: row.keywords,
            acl: row.acl,
        }
    }

    /// The row, with the counts of the one that is there.
    pub(super) fn row(&self, account: AccountId, known: Option<MailboxRow>) -> MailboxRow {
        let known =
            known.unwrap_or_else(|| MailboxRow::new(account, self.mailbox, "", self.uidvalidity));
        MailboxRow {
            uidvalidity: self.uidvalidity,
            uidnext: self.uidnext,
            highestmodseq: self.highestmodseq,
            // Which messages came after the last change of flags is not known here: perhaps none.
            stored_modseq: self.highestmodseq,
            expunged_floor: self.expunged_floor,
            identity: self.identity,
            special_use: self.special_use,
            name: self.name.clone(),
            keywords: self.keywords.clone(),
            acl: self.acl.clone(),
            ..known
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MessageItem {
    pub(super) mailbox: MailboxId,
    pub(super) uid: u32,
    pub(super) modseq: u64,
    pub(super) flags: Flags,
    /// Numbers of keywords of the mailbox, growing.
    pub(super) keywords: Vec<u16>,
    pub(super) internal_date_ms: i64,
    pub(super) save_date_ms: i64,
    pub(super) thread: u64,
    pub(super) identity: [u8; 16],
    pub(super) hash: Hash,
    pub(super) octets: u64,
    pub(super) prologue: Bytes,
}

impl MessageItem {
    pub(super) fn new(
        mailbox: MailboxId,
        uid: u32,
        (row, keywords): (&MessageRow, &[U16]),
        blob: &BlobRow,
        prologue: Bytes,
    ) -> Self {
        Self {
            mailbox,
            uid,
            modseq: row.modseq.get(),
            flags: row.flags(),
            keywords: keywords.iter().map(|number| number.get()).collect(),
            internal_date_ms: row.internal_date_ms.get(),
            save_date_ms: row.save_date_ms.get(),
            thread: row.thread.get(),
            identity: row.identity,
            hash: blob.hash,
            octets: blob.octets.get(),
            prologue,
        }
    }

    pub(super) fn row(&self, number: u64) -> MessageRow {
        MessageRow {
            version: 1,
            reserved: [0; 3],
            flags: self.flags.0.into(),
            modseq: self.modseq.into(),
            blob: number.into(),
            blob_octets: self.octets.into(),
            internal_date_ms: self.internal_date_ms.into(),
            identity: self.identity,
            prologue_octets: u32::try_from(self.prologue.len())
                .expect("a prologue is limited")
                .into(),
            // Set when it is written.
            keyword_count: 0.into(),
            save_date_ms: self.save_date_ms.into(),
            thread: self.thread.into(),
            header_octets: 0.into(),
            bundle: 0.into(),
            bundle_recipient: 0.into(),
        }
    }
}

impl Content {
    pub(super) fn account(account: AccountId, row: &AccountRow) -> Self {
        Self::Account {
            account,
            mailbox_next: row.mailbox_next,
            uidvalidity_last: row.uidvalidity_last,
            quota: row.quota,
        }
    }

    pub(super) fn mailbox(mailbox: MailboxId, row: MailboxRow) -> Self {
        Self::Mailbox(MailboxItem::new(mailbox, row))
    }

    pub(super) fn transaction(txn: TransactionId, row: &TransactionRow) -> Self {
        Self::Transaction {
            txn,
            mailbox: MailboxId(row.mailbox.get()),
            uid: row.uid.get(),
            committed_ms: row.committed_ms.get(),
        }
    }

    pub(super) fn encode(&self) -> Item {
        let mut out = Vec::with_capacity(160);
        match self {
            Self::Account {
                account,
                mailbox_next,
                uidvalidity_last,
                quota,
            } => {
                out.put_fixed(&[1, VERSION]);
                out.put_u64(account.0);
                out.put_u32(*mailbox_next);
                out.put_u32(*uidvalidity_last);
                put_quota(&mut out, quota);
            }
            Self::Mailbox(mailbox) => {
                out.put_fixed(&[2, VERSION]);
                out.put_u32(mailbox.mailbox.0);
                out.put_u32(mailbox.uidvalidity);
                out.put_u32(mailbox.uidnext);
                out.put_u64(mailbox.highestmodseq);
                out.put_u64(mailbox.expunged_floor);
                out.put_fixed(&mailbox.identity);
                out.put_u8(mailbox.special_use.0);
                out.put_string(mailbox.name.as_bytes());
                out.put_strings(&mailbox.keywords);
                mailbox.acl.put(&mut out);
            }
            Self::Message(message) => {
                out.put_fixed(&[3, VERSION]);
                out.put_u32(message.mailbox.0);
                out.put_u32(message.uid);
                out.put_u64(message.modseq);
                out.put_u32(message.flags.0);
                out.put_i64(message.internal_date_ms);
                out.put_i64(message.save_date_ms);
                out.put_u64(message.thread);
                out.put_fixed(&message.identity);
                out.put_fixed(&message.hash);
                out.put_u64(message.octets);
                out.put_string(&message.prologue);
                out.put_u16s(&message.keywords);
            }
            Self::Transaction {
                txn,
                mailbox,
                uid,
                committed_ms,
            } => {
                out.put_fixed(&[4, VERSION]);
                out.put_fixed(txn);
                out.put_u32(mailbox.0);
                out.put_u32(*uid);
                out.put_i64(*committed_ms);
            }
            Self::Expunged {
                mailbox,
                modseq,
                ranges,
            } => {
                out.put_fixed(&[5, VERSION]);
                out.put_u32(mailbox.0);
                out.put_u64(*modseq);
                out.put_count(ranges.len());
                for (first, last) in ranges {
                    out.put_u32(*first);
                    out.put_u32(*last);
                }
            }
            Self::Subscription { name } => {
                out.put_fixed(&[6, VERSION]);
                out.put_string(name.as_bytes());
            }
            Self::Annotation {
                mailbox,
                entry,
                value,
            } => {
                out.put_fixed(&[7, VERSION]);
                out.put_u32(mailbox.0);
                out.put_string(entry.as_bytes());
                out.put_string(value);
            }
        }
        Item(out.into())
    }

    pub(super) fn decode(item: &Bytes) -> Result<Self, Malformed> {
        let mut take = Take::new(item.clone(), "transfer item");
        let content = match take.fixed()? {
            [1, VERSION] => Self::Account {
                account: AccountId(take.u64()?),
                mailbox_next: take.u32()?,
                uidvalidity_last: take.u32()?,
                quota: take_quota(&mut take)?,
            },
            [2, VERSION] => Self::Mailbox(MailboxItem {
                mailbox: MailboxId(take.u32()?),
                uidvalidity: take.u32()?,
                uidnext: take.u32()?,
                highestmodseq: take.u64()?,
                expunged_floor: take.u64()?,
                identity: take.fixed()?,
                special_use: SpecialUse(take.u8()?),
                name: take.text()?,
                keywords: take.list(4, Take::text)?,
                acl: Acl::take(&mut take)?,
            }),
            [3, VERSION] => Self::Message(MessageItem {
                mailbox: MailboxId(take.u32()?),
                uid: take.u32()?,
                modseq: take.u64()?,
                flags: Flags(take.u32()?),
                internal_date_ms: take.i64()?,
                save_date_ms: take.i64()?,
                thread: take.u64()?,
                identity: take.fixed()?,
                hash: take.fixed()?,
                octets: take.u64()?,
                prologue: take.string()?,
                keywords: take.u16s()?,
            }),
            [4, VERSION] => Self::Transaction {
                txn: take.fixed()?,
                mailbox: MailboxId(take.u32()?),
                uid: take.u32()?,
                committed_ms: take.i64()?,
            },
            [5, VERSION] => Self::Expunged {
                mailbox: MailboxId(take.u32()?),
                modseq: take.u64()?,
                ranges: take.list(8, |take| Ok((take.u32()?, take.u32()?)))?,
            },
            [6, VERSION] => Self::Subscription { name: take.text()? },
            [7, VERSION] => Self::Annotation {
                mailbox: MailboxId(take.u32()?),
                entry: take.text()?,
                value: take.string()?,
            },
            _ => return Err(take.malformed()),
        };
        take.end()?;
        Ok(content)
    }
}

/// What an item says, as far as it has to be told to whoever puts mail back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemContent {
    /// The account itself.
    Account(AccountId),
    /// One of its mailboxes.
    Mailbox(MailboxTold),
    /// One of its messages.
    Message(Box<MessageTold>),
    /// Subscriptions, annotations, history.
    Other,
}

/// A mailbox, by an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailboxTold {
    /// Its number in the account.
    pub mailbox: MailboxId,
    /// Its name, `/` between levels.
    pub name: String,
    /// Its keywords; their places are the numbers that messages name them by.
    pub keywords: Vec<String>,
}

/// A message, by an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageTold {
    /// Which, and its blob.
    pub named: NamedMessage,
    /// System flags.
    pub flags: Flags,
    /// Numbers of its mailbox's keywords.
    pub keywords: Vec<u16>,
    /// In milliseconds since 1970.
    pub internal_date_ms: i64,
    /// EMAILID.
    pub identity: [u8; 16],
    /// What a client reads before the blob.
    pub prologue: Bytes,
}

impl Item {
    /// What it says; `None` for what is no item of a version that this build knows.
    #[must_use]
    pub fn content(&self) -> Option<ItemContent> {
        let content = match Content::decode(&self.0).ok()? {
            Content::Account { account, .. } => ItemContent::Account(account),
            Content::Mailbox(mailbox) => ItemContent::Mailbox(MailboxTold {
                mailbox: mailbox.mailbox,
                name: mailbox.name,
                keywords: mailbox.keywords,
            }),
            Content::Message(message) => ItemContent::Message(Box::new(MessageTold {
                named: NamedMessage {
                    mailbox: message.mailbox,
                    uid: message.uid,
                    hash: message.hash,
                    octets: message.octets,
                },
                flags: message.flags,
                keywords: message.keywords,
                internal_date_ms: message.internal_date_ms,
                identity: message.identity,
                prologue: message.prologue,
            })),
            Content::Transaction { .. }
            | Content::Expunged { .. }
            | Content::Subscription { .. }
            | Content::Annotation { .. } => ItemContent::Other,
        };
        Some(content)
    }

    /// What a message item names; `None` for other items and for what is not an item.
    #[must_use]
    pub fn message(&self) -> Option<NamedMessage> {
        match Content::decode(&self.0) {
            Ok(Content::Message(message)) => Some(NamedMessage {
                mailbox: message.mailbox,
                uid: message.uid,
                hash: message.hash,
                octets: message.octets,
            }),
            _ => None,
        }
    }
}

/// The wrapping sum of the hashes of items, in any order.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetHash([u64; 4]);

impl SetHash {
    /// Adds one item.
    pub fn add(&mut self, item: &Item) {
        let hash = blake3::hash(&item.0);
        let mut carry = false;
        for (sum, limb) in self.0.iter_mut().zip(hash.as_bytes().chunks_exact(8)) {
            let limb = u64::from_le_bytes(limb.try_into().expect("a chunk has 8 octets"));
            (*sum, carry) = sum.carrying_add(limb, carry);
        }
    }

    /// Adds all items of another sum.
    pub(super) fn join(&mut self, other: Self) {
        let mut carry = false;
        for (sum, limb) in self.0.iter_mut().zip(other.0) {
            (*sum, carry) = sum.carrying_add(limb, carry);
        }
    }

    /// The sum so far.
    #[must_use]
    pub fn bytes(self) -> Hash {
        let mut out = [0; 32];
        for (place, limb) in out.chunks_exact_mut(8).zip(self.0) {
            place.copy_from_slice(&limb.to_le_bytes());
        }
        out
    }
}

const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::acl::{AclEntry, Rights};
    use super::super::rows::quota_of;
    use super::*;

    fn items() -> Vec<Item> {
        let message = MessageItem {
            mailbox: MailboxId(1),
            uid: 2,
            modseq: 3,
            flags: Flags::SEEN,
            keywords: vec![0, 2],
            internal_date_ms: 4,
            save_date_ms: 5,
            thread: 6,
            identity: [7; 16],
            hash: [8; 32],
            octets: 9,
            prologue: Bytes::from_static(b"x: y\r\n"),
        };
        [
            Content::Account {
                account: AccountId(1),
                mailbox_next: 2,
                uidvalidity_last: 3,
                quota: quota_of(4, 5, 6),
            },
            Content::Mailbox(MailboxItem {
                mailbox: MailboxId(1),
                uidvalidity: 2,
                uidnext: 3,
                highestmodseq: 4,
                expunged_floor: 1,
                identity: [5; 16],
                special_use: SpecialUse::SENT,
                name: "a".into(),
                keywords: vec!["k".into(), "l".into()],
                acl: Acl {
                    owner: "ann@example.test".into(),
                    entries: vec![AclEntry {
                        account: AccountId(5),
                        name: "bob@example.test".into(),
                        rights: Rights::READ,
                    }],
                },
            }),
            Content::Message(message),
            Content::Transaction {
                txn: [1; 16],
                mailbox: MailboxId(1),
                uid: 2,
                committed_ms: 3,
            },
            Content::Expunged {
                mailbox: MailboxId(1),
                modseq: 9,
                ranges: vec![(1, 3), (5, 5)],
            },
            Content::Subscription { name: "a".into() },
            Content::Annotation {
                mailbox: MailboxId(1),
                entry: "/shared/comment".into(),
                value: Bytes::from_static(b"v"),
            },
        ]
        .iter()
        .map(Content::encode)
        .collect()
    }

    #[test]
    fn an_item_reads_back_as_it_was_written_and_is_refused_when_cut() {
        for item in items() {
            assert_eq!(Content::decode(&item.0).unwrap().encode(), item);
            for cut in 0..item.0.len() {
                assert!(Content::decode(&item.0.slice(..cut)).is_err());
            }
        }
    }

    #[test]
    fn the_set_hash_does_not_depend_on_order_but_on_every_item() {
        let sum = |items: &[Item]| {
            let mut hash = SetHash::default();
            items.iter().for_each(|item| hash.add(item));
            hash.bytes()
        };
        let items = items();
        let turned: Vec<_> = items.iter().rev().cloned().collect();
        assert_eq!(sum(&items), sum(&turned));
        assert_ne!(sum(&items), sum(&items[1..]));
        let mut twice = items.clone();
        twice.push(items[0].clone());
        assert_ne!(sum(&items), sum(&twice));
    }
}
