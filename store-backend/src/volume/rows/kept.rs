//! Expunged messages that can be brought back: rows of the tables `kept` and `kept_until`.

use directory_api::AccountId;
use zerocopy::little_endian::{I64, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::super::codec::Malformed;
use super::super::types::MailboxId;
use super::{MessageRow, message_key};

/// The fixed part, followed by the mailbox's name, the prologue, and keywords of one octet length each.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
struct KeptBytes {
    version: u8,
    reserved: [u8; 3],
    name_octets: U32,
    at_ms: I64,
    until_ms: I64,
    /// As it was when it went. Its count of keywords is that of the names behind.
    message: MessageRow,
}

/// An expunged message, with all that is needed to bring it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct KeptRow {
    /// When it was expunged.
    pub(in super::super) at_ms: i64,
    /// Until when it is kept; also its key in `kept_until`.
    pub(in super::super) until_ms: i64,
    pub(in super::super) message: MessageRow,
    /// What its mailbox was called then.
    pub(in super::super) name: String,
    pub(in super::super) prologue: Vec<u8>,
    /// Names and not numbers: the mailbox may be gone.
    pub(in super::super) keywords: Vec<String>,
}

impl KeptRow {
    pub(in super::super) fn encode(&self) -> Vec<u8> {
        let count = |octets: usize| U32::new(u32::try_from(octets).expect("rows are limited"));
        let fixed = KeptBytes {
            version: 1,
            reserved: [0; 3],
            name_octets: count(self.name.len()),
            at_ms: self.at_ms.into(),
            until_ms: self.until_ms.into(),
            message: MessageRow {
                prologue_octets: count(self.prologue.len()),
                keyword_count: count(self.keywords.len()),
                ..self.message.unbundled()
            },
        };
        let mut out = [fixed.as_bytes(), self.name.as_bytes(), &self.prologue].concat();
        for keyword in &self.keywords {
            out.push(u8::try_from(keyword.len()).expect("a keyword is limited"));
            out.extend_from_slice(keyword.as_bytes());
        }
        out
    }

    pub(in super::super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let bad = Malformed { what: "kept row" };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| bad);
        let (fixed, rest) = KeptBytes::read_from_prefix(bytes).map_err(|_| bad)?;
        if fixed.version != 1 || fixed.message.version != 1 {
            return Err(bad);
        }
        let (name, rest) = rest
            .split_at_checked(fixed.name_octets.get() as usize)
            .ok_or(bad)?;
        let (prologue, mut rest) = rest
            .split_at_checked(fixed.message.prologue_octets.get() as usize)
            .ok_or(bad)?;
        let mut keywords = Vec::new();
        while let Some((octets, behind)) = rest.split_first() {
            let (keyword, behind) = behind.split_at_checked(usize::from(*octets)).ok_or(bad)?;
            keywords.push(text(keyword)?);
            rest = behind;
        }
        if keywords.len() != fixed.message.keyword_count.get() as usize {
            return Err(bad);
        }
        Ok(Self {
            at_ms: fixed.at_ms.get(),
            until_ms: fixed.until_ms.get(),
            message: fixed.message,
            name: text(name)?,
            prologue: prologue.to_vec(),
            keywords,
        })
    }
}

/// Key of the table `kept_until`: until when a message is kept, then its key in `kept`.
pub(in super::super) fn kept_until_key(
    until_ms: i64,
    account: AccountId,
    mailbox: MailboxId,
    uid: u32,
) -> [u8; 24] {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&u64::try_from(until_ms).unwrap_or(0).to_be_bytes());
    key[8..].copy_from_slice(&message_key(account, mailbox, uid));
    key
}

/// Until when, and which: from a key of `kept_until`.
pub(in super::super) fn kept_until_of(key: &[u8]) -> Option<(i64, AccountId, MailboxId, u32)> {
    let (until, rest) = key.split_first_chunk::<8>()?;
    let (account, rest) = rest.split_first_chunk::<8>()?;
    let (mailbox, uid) = rest.split_first_chunk::<4>()?;
    Some((
        i64::try_from(u64::from_be_bytes(*until)).unwrap_or(i64::MAX),
        AccountId(u64::from_be_bytes(*account)),
        MailboxId(u32::from_be_bytes(*mailbox)),
        u32::from_be_bytes(uid.try_into().ok()?),
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::super::types::Flags;
    use super::*;

    #[test]
    fn a_kept_row_reads_back_as_it_was_written_and_not_when_it_is_cut() {
        assert_eq!(size_of::<KeptBytes>(), 120);
        let row = KeptRow {
            at_ms: 5,
            until_ms: 9,
            message: MessageRow {
                version: 1,
                reserved: [0; 3],
                flags: Flags::SEEN.0.into(),
                modseq: 3.into(),
                blob: 4.into(),
                blob_octets: 5.into(),
                internal_date_ms: 6.into(),
                identity: [7; 16],
                prologue_octets: 2.into(),
                keyword_count: 2.into(),
                save_date_ms: 8.into(),
                thread: 0.into(),
                header_octets: 0.into(),
                bundle: 0.into(),
                bundle_recipient: 0.into(),
            },
            name: "Ärger".into(),
            prologue: b"ab".to_vec(),
            keywords: vec!["$Junk".into(), "x".into()],
        };
        let bytes = row.encode();
        assert_eq!(KeptRow::decode(&bytes).unwrap(), row);
        for cut in 0..bytes.len() {
            assert!(KeptRow::decode(&bytes[..cut]).is_err(), "{cut}");
        }
        let key = kept_until_key(9, AccountId(1), MailboxId(2), 3);
        let place = (9, AccountId(1), MailboxId(2), 3);
        assert_eq!(kept_until_of(&key), Some(place));
        assert!(key < kept_until_key(10, AccountId(1), MailboxId(1), 1));
    }
}
