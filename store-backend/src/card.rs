//! What clients ask of a blob without opening it: ENVELOPE and BODYSTRUCTURE ready to send, the structure, and the
//! header fields that mail clients show, search and sort by.
//!
//! A card is a function of the blob's octets alone. The index keeps one a blob; it is derived, so a card that is missing or of
//! another version is made again from the blob. Version 1, numbers little-endian:
//!
//! | offset | |
//! |---|---|
//! | 0 | version u8 |
//! | 1 | bits u8: 1 `fields` is the whole header; 2 `fields` is left out, being large; 4, 8 ENVELOPE, BODYSTRUCTURE are the same in both dialects |
//! | 2 | reserved 2 |
//! | 4 | octets of the header u32 |
//! | 8 | octets of ENVELOPE, BODYSTRUCTURE, structure, fields u32 each; 0 for one that is left out |
//! | 24 | these four |
//!
//! ENVELOPE and BODYSTRUCTURE are in the words of IMAP4rev1. Either is left out when large: then it is written from the
//! fields or the structure. The structure is never left out, so that a blob is scanned once.

use bytes::Bytes;
use mail_proto::mime::{
    BodyForm, Dialect, Envelope, Fields, Scanned, Scanner, Structure, write_body_structure,
};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A card as it was kept; what it gives are pieces of the same octets.
#[derive(Clone, Debug)]
pub(crate) struct Card {
    head: Head,
    octets: Bytes,
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    version: u8,
    bits: u8,
    reserved: [u8; 2],
    header_octets: U32,
    /// ENVELOPE, BODYSTRUCTURE, structure, fields.
    lengths: [U32; 4],
}

impl Head {
    /// The head of a card of this version, and the four pieces behind it.
    fn of(octets: &[u8]) -> Option<(Self, &[u8])> {
        let (head, rest) = Self::read_from_prefix(octets).ok()?;
        let lengths = head.lengths.iter();
        let all: u64 = lengths.map(|length| u64::from(length.get())).sum();
        (head.version == VERSION && all == rest.len() as u64).then_some((head, rest))
    }
}

impl Card {
    /// Makes the card of a blob that is in memory.
    pub(crate) fn of_blob(octets: &[u8]) -> Vec<u8> {
        let mut scanner = Scanner::new();
        scanner.push(octets);
        Self::of(&scanner.finish())
    }

    /// Makes the card of a blob.
    pub(crate) fn of(scanned: &Scanned) -> Vec<u8> {
        let Scanned { structure, header } = scanned;
        let mut out = vec![0; size_of::<Head>()];
        let mut bits = 0;
        let mut lengths = [U32::ZERO; 4];
        let envelope = Envelope::read(header);
        let (length, is_same) = ready(&mut out, |dialect, out| envelope.write(dialect, out));
        lengths[0] = length;
        bits |= if is_same { SAME_ENVELOPE } else { 0 };
        let (length, is_same) = ready(&mut out, |dialect, out| {
            write_body_structure(structure, BodyForm::BodyStructure, dialect, out);
        });
        lengths[1] = length;
        bits |= if is_same { SAME_STRUCTURE } else { 0 };
        out.extend_from_slice(structure.as_bytes());
        lengths[2] = count(structure.as_bytes().len());
        let start = out.len();
        let mut fields = Fields::new(header);
        for field in fields.by_ref().filter(|field| is_kept(field.name)) {
            out.extend_from_slice(&header[field.range()]);
        }
        out.extend_from_slice(&header[fields.position()..]);
        if header.len() - (out.len() - start) <= OTHERS_MAX_OCTETS {
            out.truncate(start);
            out.extend_from_slice(header);
            bits |= WHOLE;
        }
        if out.len() - start > FIELDS_MAX_OCTETS {
            out.truncate(start);
            bits = bits & !WHOLE | NO_FIELDS;
        }
        lengths[3] = count(out.len() - start);
        let head = Head {
            version: VERSION,
            bits,
            reserved: [0; 2],
            header_octets: count(header.len()),
            lengths,
        };
        out[..size_of::<Head>()].copy_from_slice(head.as_bytes());
        out
    }

    /// Reads a card. `None`: another build wrote it, make it again.
    pub(crate) fn read(octets: Bytes) -> Option<Self> {
        let (head, _) = Head::of(&octets)?;
        Some(Self { head, octets })
    }

    /// What [`fields`](Self::fields) of such a card gives, and whether it is the whole header, without keeping the card.
    pub(crate) fn fields_in(octets: &[u8]) -> Option<(&[u8], bool)> {
        let (head, rest) = Head::of(octets)?;
        let start = rest.len() - head.lengths[3].get() as usize;
        (head.bits & NO_FIELDS == 0).then(|| (&rest[start..], head.bits & WHOLE != 0))
    }

    /// Octets of the blob's header.
    pub(crate) fn header_octets(&self) -> u64 {
        self.head.header_octets.get().into()
    }

    /// Appends ENVELOPE; `false` if it has to be written from the header.
    pub(crate) fn write_envelope(&self, dialect: Dialect, out: &mut Vec<u8>) -> bool {
        if self.is_ready(dialect, SAME_ENVELOPE) && !self.piece(0).is_empty() {
            out.extend_from_slice(self.piece(0));
            return true;
        }
        let has_fields = self.head.bits & NO_FIELDS == 0;
        if has_fields {
            Envelope::read(self.piece(3)).write(dialect, out);
        }
        has_fields
    }

    /// Appends BODY or BODYSTRUCTURE; `false` if the card is damaged.
    pub(crate) fn write_body(&self, form: BodyForm, dialect: Dialect, out: &mut Vec<u8>) -> bool {
        let is_ready = form == BodyForm::BodyStructure && self.is_ready(dialect, SAME_STRUCTURE);
        if is_ready && !self.piece(1).is_empty() {
            out.extend_from_slice(self.piece(1));
            return true;
        }
        let structure = Structure::from_bytes(self.piece(2)).ok();
        if let Some(structure) = &structure {
            write_body_structure(structure, form, dialect, out);
        }
        structure.is_some()
    }

    /// The structure of the blob; `None` if the card is damaged.
    pub(crate) fn structure(&self) -> Option<Structure<Bytes>> {
        Structure::from_bytes(self.octets.slice_ref(self.piece(2))).ok()
    }

    /// A header block with every field of which [`is_kept`] says so, in order, and perhaps others.
    pub(crate) fn fields(&self) -> Option<Bytes> {
        (self.head.bits & NO_FIELDS == 0).then(|| self.octets.slice_ref(self.piece(3)))
    }

    /// The whole header block.
    pub(crate) fn header(&self) -> Option<Bytes> {
        (self.head.bits & WHOLE != 0).then(|| self.octets.slice_ref(self.piece(3)))
    }

    fn is_ready(&self, dialect: Dialect, same: u8) -> bool {
        dialect == Dialect::Rev1 || self.head.bits & same != 0
    }

    fn piece(&self, at: usize) -> &[u8] {
        let length = |length: &U32| length.get() as usize;
        let before: usize = self.head.lengths[..at].iter().map(length).sum();
        let start = size_of::<Head>() + before;
        &self.octets[start..start + length(&self.head.lengths[at])]
    }
}

/// Whether a card has every field of this name.
pub(crate) fn is_kept(name: &[u8]) -> bool {
    name.first().is_some_and(u8::is_ascii_alphabetic)
        && KEPT
            .iter()
            .any(|kept| name.eq_ignore_ascii_case(kept.as_bytes()))
}

/// Appends a form ready to send, unless it is large: how long it is, and whether it is the same in both dialects.
fn ready(out: &mut Vec<u8>, write: impl Fn(Dialect, &mut Vec<u8>)) -> (U32, bool) {
    let start = out.len();
    write(Dialect::Rev1, out);
    let end = out.len();
    if end - start > READY_MAX_OCTETS {
        out.truncate(start);
        return (U32::ZERO, false);
    }
    // Only octets beyond ASCII and the inside of message/global are written differently.
    let text = &out[start..end];
    if text.is_ascii() && !holds_global(text) {
        return (count(end - start), true);
    }
    write(Dialect::Utf8, out);
    let is_same = out[start..end] == out[end..];
    out.truncate(end);
    (count(end - start), is_same)
}

fn holds_global(text: &[u8]) -> bool {
    let mut at = memchr::memchr2_iter(b'g', b'G', text);
    at.any(|at| {
        let word = text.get(at..at + GLOBAL.len());
        word.is_some_and(|word| word.eq_ignore_ascii_case(GLOBAL))
    })
}

fn count(octets: usize) -> U32 {
    // A header is limited, and so is the text in a structure.
    u32::try_from(octets)
        .expect("a piece of a card is limited")
        .into()
}

const VERSION: u8 = 1;
const WHOLE: u8 = 1;
const NO_FIELDS: u8 = 2;
const SAME_ENVELOPE: u8 = 4;
const SAME_STRUCTURE: u8 = 8;
const GLOBAL: &[u8] = b"global";
/// An ENVELOPE or BODYSTRUCTURE of usual mail takes 200 to 800 octets; one above this is written when it is asked for.
const READY_MAX_OCTETS: usize = 8 << 10;
/// The fields kept take some 500 octets, and some KiB with many recipients or references.
const FIELDS_MAX_OCTETS: usize = 16 << 10;
/// A header with no more than this of other fields is kept as a whole: about one Received line and what comes with MIME.
const OTHERS_MAX_OCTETS: usize = 256;
/// What ENVELOPE, SEARCH, SORT and THREAD read, and what clients ask for in lists: seen in Thunderbird, Apple Mail, K-9,
/// mutt, Roundcube, Outlook. A name that mail rarely has costs nothing.
const KEPT: [&str; 40] = [
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "Content-Type",
    "Cc",
    "Reply-To",
    "References",
    "In-Reply-To",
    "Sender",
    "Bcc",
    "MIME-Version",
    "Content-Transfer-Encoding",
    "Content-Disposition",
    "Content-Description",
    "List-ID",
    "List-Post",
    "List-Help",
    "List-Archive",
    "List-Subscribe",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "X-Priority",
    "Priority",
    "Importance",
    "Precedence",
    "Auto-Submitted",
    "Disposition-Notification-To",
    "Newsgroups",
    "Followup-To",
    "Mail-Followup-To",
    "Lines",
    "X-Label",
    "X-Mailer",
    "User-Agent",
    "X-Uniform-Type-Identifier",
    "X-Universally-Unique-Identifier",
    "X-K9mail-Identity",
    "Chat-Version",
];

#[cfg(test)]
mod tests;
