//! Rows of the index: fixed-size parts as structs, little-endian; keys big-endian so that they sort by number.
//!
//! Every value begins with its version (1). A reader refuses a version it does not know; new fields go into reserved
//! octets (zero means "not known") or into a new version, and a row is rewritten when it is next changed.

mod access;
mod account;
mod kept;

use bytes::Bytes;
use directory_api::{AccountId, ChangeNumber, Quota};
use durable::{Lsn, Place};
use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::acl::Acl;
use super::bundle;
use super::codec::{Malformed, Take};
use super::types::{Flags, Hash, MailboxId, MailboxInfo, MessageInfo, SpecialUse};
pub(super) use access::{
    annotation_key, annotation_of, decode_annotation, decode_share, encode_annotation,
    encode_share, share_key, share_of,
};
pub(super) use account::{AccountRow, State};
pub(super) use kept::{KeptRow, kept_until_key, kept_until_of};

/// Key of the tables `mailboxes`; mailbox 0 is the account's own row.
pub(super) fn mailbox_key(account: AccountId, mailbox: MailboxId) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&account.0.to_be_bytes());
    key[8..].copy_from_slice(&mailbox.0.to_be_bytes());
    key
}

/// Account and mailbox of a key of `mailboxes`.
pub(super) fn mailbox_of(key: &[u8]) -> Option<(AccountId, MailboxId)> {
    let (account, mailbox) = (key.get(..8)?, key.get(8..12)?);
    Some((
        AccountId(u64::from_be_bytes(account.try_into().ok()?)),
        MailboxId(u32::from_be_bytes(mailbox.try_into().ok()?)),
    ))
}

/// Key of the tables `messages` and `prologues`.
pub(super) fn message_key(account: AccountId, mailbox: MailboxId, uid: u32) -> [u8; 16] {
    let mut key = [0; 16];
    key[..12].copy_from_slice(&mailbox_key(account, mailbox));
    key[12..].copy_from_slice(&uid.to_be_bytes());
    key
}

/// Mailbox and UID of a key of `messages`.
pub(super) fn message_of(key: &[u8]) -> Option<(MailboxId, u32)> {
    let (mailbox, uid) = (key.get(8..12)?, key.get(12..16)?);
    Some((
        MailboxId(u32::from_be_bytes(mailbox.try_into().ok()?)),
        u32::from_be_bytes(uid.try_into().ok()?),
    ))
}

/// Key of the table `bundles`.
pub(super) fn bundle_key(lsn: u64, number: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&lsn.to_be_bytes());
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Key of the table `transactions`.
pub(super) fn transaction_key(account: AccountId, txn: &[u8; 16]) -> [u8; 24] {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&account.0.to_be_bytes());
    key[8..].copy_from_slice(txn);
    key
}

/// Key of the table `unlinked`: when the blob may go, then its number.
pub(super) fn unlinked_key(keep_until_ms: i64, number: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&u64::try_from(keep_until_ms).unwrap_or(0).to_be_bytes());
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Limits as they are stored: 0 is none. The directory knows no limit of 0.
pub(super) fn quota_of(octets: u64, messages: u64, as_of: u64) -> Quota {
    let most = |stored: u64| Some(stored).filter(|most| *most > 0);
    Quota {
        octets: most(octets),
        messages: most(messages),
        as_of: ChangeNumber(as_of),
    }
}

/// A mailbox: the fixed part, followed by the name, the keywords (each a length of one octet and that many), and the list
/// of rights.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
struct MailboxBytes {
    version: u8,
    special_use: u8,
    name_octets: U16,
    uidvalidity: U32,
    uidnext: U32,
    keyword_octets: U32,
    highestmodseq: U64,
    message_count: U64,
    size_octets: U64,
    unseen_count: U32,
    deleted_count: U32,
    identity: [u8; 16],
    stored_modseq: U64,
    expunged_floor: U64,
    expunged_ranges: U32,
    acl_octets: U32,
    reserved_later: [u8; 8],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MailboxRow {
    pub(super) special_use: SpecialUse,
    pub(super) uidvalidity: u32,
    pub(super) uidnext: u32,
    pub(super) highestmodseq: u64,
    pub(super) message_count: u64,
    pub(super) size_octets: u64,
    pub(super) unseen_count: u32,
    pub(super) deleted_count: u32,
    /// MAILBOXID.
    pub(super) identity: [u8; 16],
    /// The last change of flags. Messages with a greater MODSEQ are new since, and the last ones.
    pub(super) stored_modseq: u64,
    /// The history of expunged UIDs is whole for every MODSEQ above this.
    pub(super) expunged_floor: u64,
    /// Ranges of UIDs in that history.
    pub(super) expunged_ranges: u32,
    pub(super) name: String,
    /// A keyword's number is its place; none ever goes.
    pub(super) keywords: Vec<String>,
    /// Nobody, for most.
    pub(super) acl: Acl,
}

impl MailboxRow {
    pub(super) fn new(
        account: AccountId,
        mailbox: MailboxId,
        name: impl Into<String>,
        uidvalidity: u32,
    ) -> Self {
        // Neither account nor number nor UIDVALIDITY is ever given twice; the row keeps it through renames and moves.
        let mut hasher = blake3::Hasher::new();
        hasher.update(&mailbox_key(account, mailbox));
        hasher.update(&uidvalidity.to_be_bytes());
        let mut identity = [0; 16];
        identity.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self {
            special_use: SpecialUse::default(),
            uidvalidity,
            uidnext: 1,
            highestmodseq: 1,
            message_count: 0,
            size_octets: 0,
            unseen_count: 0,
            deleted_count: 0,
            identity,
            stored_modseq: 0,
            expunged_floor: 0,
            expunged_ranges: 0,
            name: name.into(),
            keywords: Vec::new(),
            acl: Acl::default(),
        }
    }

    /// The number of a keyword, in any case.
    pub(super) fn keyword(&self, keyword: &str) -> Option<u16> {
        let place = self
            .keywords
            .iter()
            .position(|known| known.eq_ignore_ascii_case(keyword))?;
        u16::try_from(place).ok()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let keyword_octets: usize = self.keywords.iter().map(|keyword| 1 + keyword.len()).sum();
        let has_acl = self.acl != Acl::default();
        let acl_octets = if has_acl { self.acl.octets() } else { 0 };
        let fixed = MailboxBytes {
            version: 1,
            special_use: self.special_use.0,
            name_octets: u16::try_from(self.name.len())
                .expect("a mailbox's name is limited")
                .into(),
            uidvalidity: self.uidvalidity.into(),
            uidnext: self.uidnext.into(),
            keyword_octets: u32::try_from(keyword_octets)
                .expect("keywords are limited")
                .into(),
            highestmodseq: self.highestmodseq.into(),
            message_count: self.message_count.into(),
            size_octets: self.size_octets.into(),
            unseen_count: self.unseen_count.into(),
            deleted_count: self.deleted_count.into(),
            identity: self.identity,
            stored_modseq: self.stored_modseq.into(),
            expunged_floor: self.expunged_floor.into(),
            expunged_ranges: self.expunged_ranges.into(),
            acl_octets: u32::try_from(acl_octets)
                .expect("entries are limited")
                .into(),
            reserved_later: [0; 8],
        };
        let mut out = [fixed.as_bytes(), self.name.as_bytes()].concat();
        for keyword in &self.keywords {
            out.push(u8::try_from(keyword.len()).expect("a keyword is limited"));
            out.extend_from_slice(keyword.as_bytes());
        }
        if has_acl {
            self.acl.put(&mut out);
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let bad = Malformed {
            what: "mailbox row",
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| bad);
        let (fixed, rest) = MailboxBytes::read_from_prefix(bytes).map_err(|_| bad)?;
        if fixed.version != 1 {
            return Err(bad);
        }
        let (name, rest) = rest
            .split_at_checked(usize::from(fixed.name_octets.get()))
            .ok_or(bad)?;
        let (mut rest, behind) = rest
            .split_at_checked(fixed.keyword_octets.get() as usize)
            .ok_or(bad)?;
        let acl = match behind.get(..fixed.acl_octets.get() as usize).ok_or(bad)? {
            [] => Acl::default(),
            octets => {
                let mut take = Take::new(Bytes::copy_from_slice(octets), "mailbox row");
                let acl = Acl::take(&mut take)?;
                take.end()?;
                acl
            }
        };
        let mut keywords = Vec::new();
        while let Some((octets, behind)) = rest.split_first() {
            let (keyword, behind) = behind.split_at_checked(usize::from(*octets)).ok_or(bad)?;
            keywords.push(text(keyword)?);
            rest = behind;
        }
        Ok(Self {
            special_use: SpecialUse(fixed.special_use),
            uidvalidity: fixed.uidvalidity.get(),
            uidnext: fixed.uidnext.get(),
            highestmodseq: fixed.highestmodseq.get(),
            message_count: fixed.message_count.get(),
            size_octets: fixed.size_octets.get(),
            unseen_count: fixed.unseen_count.get(),
            deleted_count: fixed.deleted_count.get(),
            identity: fixed.identity,
            stored_modseq: fixed.stored_modseq.get(),
            expunged_floor: fixed.expunged_floor.get(),
            expunged_ranges: fixed.expunged_ranges.get(),
            name: text(name)?,
            keywords,
            acl,
        })
    }

    pub(super) fn info(self, mailbox: MailboxId) -> MailboxInfo {
        MailboxInfo {
            mailbox,
            name: self.name,
            identity: self.identity,
            special_use: self.special_use,
            uidvalidity: self.uidvalidity,
            uidnext: self.uidnext,
            highestmodseq: self.highestmodseq,
            message_count: self.message_count,
            unseen_count: self.unseen_count.into(),
            deleted_count: self.deleted_count.into(),
            size_octets: self.size_octets,
        }
    }
}

/// Key of the table `expunged`: the UIDs that went with one MODSEQ.
pub(super) fn expunged_key(account: AccountId, mailbox: MailboxId, modseq: u64) -> [u8; 20] {
    let mut key = [0; 20];
    key[..12].copy_from_slice(&mailbox_key(account, mailbox));
    key[12..].copy_from_slice(&modseq.to_be_bytes());
    key
}

/// Mailbox and MODSEQ of a key of `expunged`.
pub(super) fn expunged_of(key: &[u8]) -> Option<(MailboxId, u64)> {
    let (mailbox, modseq) = (key.get(8..12)?, key.get(12..20)?);
    Some((
        MailboxId(u32::from_be_bytes(mailbox.try_into().ok()?)),
        u64::from_be_bytes(modseq.try_into().ok()?),
    ))
}

/// A value of `expunged`: version, three octets reserved, then ranges of UIDs with both ends.
pub(super) fn encode_ranges(ranges: &[(u32, u32)]) -> Vec<u8> {
    let mut out = vec![1, 0, 0, 0];
    for (first, last) in ranges {
        out.extend_from_slice(&first.to_le_bytes());
        out.extend_from_slice(&last.to_le_bytes());
    }
    out
}

pub(super) fn decode_ranges(bytes: &[u8]) -> Result<Vec<(u32, u32)>, Malformed> {
    let bad = Malformed {
        what: "expunged row",
    };
    let (head, rest) = bytes.split_at_checked(4).ok_or(bad)?;
    let ranges = <[[U32; 2]]>::ref_from_bytes(rest).map_err(|_| bad)?;
    if head[0] != 1 {
        return Err(bad);
    }
    Ok(ranges
        .iter()
        .map(|[first, last]| (first.get(), last.get()))
        .collect())
}

/// Sorted UIDs as ranges.
pub(super) fn ranges_of(uids: impl IntoIterator<Item = u32>) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for uid in uids {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(uid) => *last = uid,
            _ => ranges.push((uid, uid)),
        }
    }
    ranges
}

/// Key of the table `subscriptions`. Names may be longer than a key.
pub(super) fn subscription_key(account: AccountId, name: &str) -> [u8; 24] {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&account.0.to_be_bytes());
    key[8..].copy_from_slice(&blake3::hash(name.as_bytes()).as_bytes()[..16]);
    key
}

/// A value of `subscriptions`: version, then the name.
pub(super) fn encode_subscription(name: &str) -> Vec<u8> {
    [&[1], name.as_bytes()].concat()
}

pub(super) fn decode_subscription(bytes: &[u8]) -> Result<String, Malformed> {
    let bad = Malformed {
        what: "subscription row",
    };
    match bytes.split_first() {
        Some((1, name)) => String::from_utf8(name.to_vec()).map_err(|_| bad),
        _ => Err(bad),
    }
}

/// A message: all that SELECT and a fetch of flags need, so that they are one sequential scan. Followed by the numbers
/// of its keywords, growing, 16 bits each.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub(super) struct MessageRow {
    pub(super) version: u8,
    pub(super) reserved: [u8; 3],
    /// System flags, see [`super::types::Flags`].
    pub(super) flags: U32,
    pub(super) modseq: U64,
    /// Number of the blob (the inode) this message is a link of.
    pub(super) blob: U64,
    pub(super) blob_octets: U64,
    pub(super) internal_date_ms: I64,
    pub(super) identity: [u8; 16],
    pub(super) prologue_octets: U32,
    /// How many keywords follow.
    pub(super) keyword_count: U32,
    /// When it came into this mailbox (RFC 8514).
    pub(super) save_date_ms: I64,
    /// THREADID; 0 not known.
    pub(super) thread: U64,
    /// Octets of the blob's header, 0 not known; then room for part offsets.
    pub(super) header_octets: U32,
    /// The record whose bundle has its prologue (version 2); 0: the prologue has a row of its own.
    pub(super) bundle: U64,
    /// Which of that record's recipients it was delivered to.
    pub(super) bundle_recipient: U32,
}

impl MessageRow {
    /// The row and its keywords.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, &[U16]), Malformed> {
        let bad = Malformed {
            what: "message row",
        };
        let (row, rest) = Self::read_from_prefix(bytes).map_err(|_| bad)?;
        let keywords = <[U16]>::ref_from_bytes(rest).map_err(|_| bad)?;
        let is_known = row.version == if row.bundle.get() == 0 { 1 } else { 2 };
        if is_known && keywords.len() == row.keyword_count.get() as usize {
            Ok((row, keywords))
        } else {
            Err(bad)
        }
    }

    /// The row with these keywords.
    pub(super) fn encode(mut self, keywords: &[u16]) -> Vec<u8> {
        self.keyword_count = u32::try_from(keywords.len())
            .expect("keywords are limited")
            .into();
        let mut out = self.as_bytes().to_vec();
        for keyword in keywords {
            out.extend_from_slice(&keyword.to_le_bytes());
        }
        out
    }

    /// With its prologue in a bundle: that of this record, as this recipient's. Builds that know no bundles refuse the row.
    pub(super) fn bundled(self, lsn: Lsn, recipient: u32) -> Self {
        Self {
            version: 2,
            bundle: lsn.0.into(),
            bundle_recipient: recipient.into(),
            ..self
        }
    }

    /// With its prologue elsewhere than in a bundle.
    pub(super) fn unbundled(self) -> Self {
        Self {
            version: 1,
            bundle: 0.into(),
            bundle_recipient: 0.into(),
            ..self
        }
    }

    /// The key of its bundle, and its number in that.
    pub(super) fn bundle_place(&self) -> Option<([u8; 12], u8)> {
        let (bundle, number) = bundle::place(self.bundle_recipient.get());
        let lsn = Some(self.bundle.get()).filter(|lsn| *lsn > 0)?;
        Some((bundle_key(lsn, bundle), number))
    }

    pub(super) fn flags(&self) -> Flags {
        Flags(self.flags.get())
    }

    pub(super) fn size_octets(&self) -> u64 {
        self.blob_octets.get() + u64::from(self.prologue_octets.get())
    }

    pub(super) fn info(&self, uid: u32) -> MessageInfo {
        MessageInfo {
            uid,
            modseq: self.modseq.get(),
            flags: self.flags(),
            size_octets: self.size_octets(),
            prologue_octets: self.prologue_octets.get(),
            internal_date_ms: self.internal_date_ms.get(),
            save_date_ms: self.save_date_ms.get(),
            thread: self.thread.get(),
            identity: self.identity,
        }
    }
}

/// A blob: one inode.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub(super) struct BlobRow {
    pub(super) version: u8,
    /// See [`super::record::Body`]: where the octets are until the files thread has been there.
    pub(super) source: u8,
    pub(super) reserved: [u8; 2],
    /// Place of the record that brought it (`Inline`).
    segment: U32,
    offset: U32,
    len: U32,
    /// Where the octets begin in that record's payload.
    pub(super) body_offset: U32,
    pub(super) reserved_later: U32,
    pub(super) octets: U64,
    /// Messages that are links of it.
    pub(super) link_count: U64,
    /// The record that brought it.
    pub(super) lsn: U64,
    /// Not to go before: the latest of the times that those who expunged it were given. While `link_count` is 0 also its
    /// key in `unlinked`.
    pub(super) keep_until_ms: I64,
    pub(super) hash: Hash,
    /// Name in `incoming/` (`Spilled`), or the number of the blob to copy in the first eight octets (`Copied`).
    pub(super) token: [u8; 16],
}

impl BlobRow {
    #[allow(clippy::too_many_arguments, reason = "it is the row's only maker")]
    pub(super) fn new(
        hash: Hash,
        octets: u64,
        lsn: Lsn,
        source: u8,
        token: [u8; 16],
        place: Place,
        body_offset: u32,
        keep_until_ms: i64,
    ) -> Self {
        Self {
            version: 1,
            source,
            reserved: [0; 2],
            segment: place.segment.into(),
            offset: place.offset.into(),
            len: place.len.into(),
            body_offset: body_offset.into(),
            reserved_later: 0.into(),
            octets: octets.into(),
            link_count: 0.into(),
            lsn: lsn.0.into(),
            keep_until_ms: keep_until_ms.into(),
            hash,
            token,
        }
    }

    pub(super) fn place(&self) -> Place {
        Place {
            segment: self.segment.get(),
            offset: self.offset.get(),
            len: self.len.get(),
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let bad = Malformed { what: "blob row" };
        let row = Self::read_from_bytes(bytes).map_err(|_| bad)?;
        if row.version == 1 { Ok(row) } else { Err(bad) }
    }
}

/// A transaction an account has had.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub(super) struct TransactionRow {
    pub(super) version: u8,
    pub(super) reserved: [u8; 3],
    pub(super) mailbox: U32,
    pub(super) uid: U32,
    /// Of a message by its key: 1 when its sender is known to have read the answer.
    pub(super) is_answered: U32,
    pub(super) committed_ms: I64,
}

impl TransactionRow {
    /// Whether it belongs to what an account is elsewhere: what was answered and read is looked for by nobody there.
    pub(super) fn moves_along(&self) -> bool {
        self.is_answered.get() == 0
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let bad = Malformed {
            what: "transaction row",
        };
        let row = Self::read_from_bytes(bytes).map_err(|_| bad)?;
        if row.version == 1 { Ok(row) } else { Err(bad) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::acl::{AclEntry, Rights};
    use super::*;

    #[test]
    fn rows_have_the_sizes_the_format_page_says() {
        assert_eq!(size_of::<MailboxBytes>(), 96);
        assert_eq!(size_of::<MessageRow>(), 96);
        assert_eq!(size_of::<BlobRow>(), 104);
        assert_eq!(size_of::<TransactionRow>(), 24);
    }

    #[test]
    fn rows_read_back_as_they_were_written_and_other_versions_are_refused() {
        let mailbox = MailboxRow {
            uidnext: 9,
            keywords: vec!["$Forwarded".into(), "x".into()],
            acl: Acl {
                owner: "ann@example.test".into(),
                entries: vec![AclEntry {
                    account: AccountId(9),
                    name: "bob@example.test".into(),
                    rights: Rights::LOOKUP | Rights::READ,
                }],
            },
            ..MailboxRow::new(AccountId(1), MailboxId(2), "Ärger", 5)
        };
        let mut bytes = mailbox.encode();
        assert_eq!(MailboxRow::decode(&bytes).unwrap(), mailbox);
        assert!(MailboxRow::decode(&bytes[..bytes.len() - 1]).is_err());
        bytes[0] = 2;
        assert!(MailboxRow::decode(&bytes).is_err());
        let ranges = ranges_of([1, 2, 3, 7, 9, 10]);
        assert_eq!(ranges, [(1, 3), (7, 7), (9, 10)]);
        assert_eq!(decode_ranges(&encode_ranges(&ranges)).unwrap(), ranges);
        assert_eq!(decode_subscription(&encode_subscription("a")).unwrap(), "a");
    }

    #[test]
    fn keys_sort_as_their_numbers_do() {
        let key = |account, mailbox, uid| message_key(AccountId(account), MailboxId(mailbox), uid);
        let sorted = [key(1, 1, 255), key(1, 1, 256), key(1, 2, 1), key(256, 1, 1)];
        assert!(sorted.is_sorted());
        assert_eq!(message_of(&sorted[1]), Some((MailboxId(1), 256)));
        assert!(unlinked_key(1, 2) < unlinked_key(2, 1));
    }
}
