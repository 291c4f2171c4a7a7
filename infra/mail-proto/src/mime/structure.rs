//! The structure of one blob, in the form kept in the index.
//!
//! Version 1. `n` is an unsigned LEB128 number of at most 10 octets; a string
//! is its length (`n`) and its octets.
//!
//! ```text
//! structure  version octet (1), size of the blob (n), one part: the message
//! part       length of the record (n), record, the parts inside in order
//! record     kind octet: 0 leaf, 1 multipart, 2 nested message; + 4 if opaque
//!            length of all parts inside (n)
//!            header start, header length, body length, body lines (n each);
//!            the start counts from the beginning of the blob
//!            bits of the strings present (n), lowest first as in `Slot`
//!            these strings; a list is a string of strings
//! ```
//!
//! A reader refuses a version it does not know; the structure is then scanned
//! from the blob again.

use std::ops::Range;

use thiserror::Error;

use super::content::{Slot, Strings};
use super::envelope::Envelope;
use super::{DEPTH_MAX, PARTS_MAX};

/// What a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It has a body and no parts.
    Leaf,
    /// It holds parts, perhaps none.
    Multipart,
    /// It holds a message, which is its only child.
    Message,
}

/// Why octets are no [`Structure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum StructureError {
    /// A version this build does not know: scan the blob again.
    #[error("structure has unknown version {0}")]
    Version(u8),
    /// The octets were changed or cut.
    #[error("structure is damaged")]
    Damaged,
}

/// The MIME structure of one blob, with offsets in the blob.
///
/// It is the octets of the index themselves, checked once; reading parts from
/// it allocates nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Structure<B = Vec<u8>> {
    octets: B,
    /// Where the part of the message begins.
    root: usize,
    blob_size: u64,
}

impl<B: AsRef<[u8]>> Structure<B> {
    /// Reads what [`Structure::as_bytes`] gave.
    ///
    /// # Errors
    /// `Version` if a newer build wrote it, `Damaged` if no build did.
    pub fn from_bytes(octets: B) -> Result<Self, StructureError> {
        let mut rest = octets.as_ref();
        match take_octet(&mut rest) {
            Some(VERSION) => {}
            Some(other) => return Err(StructureError::Version(other)),
            None => return Err(StructureError::Damaged),
        }
        let blob_size = take_number(&mut rest).ok_or(StructureError::Damaged)?;
        let root = octets.as_ref().len() - rest.len();
        check(rest, blob_size).ok_or(StructureError::Damaged)?;
        Ok(Self {
            octets,
            root,
            blob_size,
        })
    }

    /// The octets to keep.
    pub fn as_bytes(&self) -> &[u8] {
        self.octets.as_ref()
    }

    /// The size of the blob in octets.
    pub fn blob_size(&self) -> u64 {
        self.blob_size
    }

    /// The message itself.
    pub fn root(&self) -> Part<'_> {
        Part::read(&self.octets.as_ref()[self.root..]).map_or(Part::EMPTY, |(part, _)| part)
    }
}

/// One part of a message, or the message itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    kind: Kind,
    opaque: bool,
    header_start: u64,
    body_start: u64,
    end: u64,
    lines: u64,
    present: u64,
    strings: &'a [u8],
    inside: &'a [u8],
}

impl<'a> Part<'a> {
    const EMPTY: Part<'static> = Part {
        kind: Kind::Leaf,
        opaque: true,
        header_start: 0,
        body_start: 0,
        end: 0,
        lines: 0,
        present: 0,
        strings: &[],
        inside: &[],
    };

    /// What it is. An opaque part is a leaf.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// True if a limit stopped the scanner here: the part is shown as
    /// application/octet-stream.
    pub fn is_opaque(&self) -> bool {
        self.opaque
    }

    /// Its header in the blob, empty line included.
    pub fn header(&self) -> Range<u64> {
        self.header_start..self.body_start
    }

    /// Its body in the blob.
    pub fn body(&self) -> Range<u64> {
        self.body_start..self.end
    }

    /// Its header and body in the blob.
    pub fn octets(&self) -> Range<u64> {
        self.header_start..self.end
    }

    /// The line ends in its body.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Type and subtype as the mail writes them, or the default for what it
    /// does not write (RFC 2045 §5.2).
    pub fn media_type(&self) -> (&'a [u8], &'a [u8]) {
        match (self.string(Slot::Type), self.string(Slot::Subtype)) {
            (Some(main), Some(sub)) => (main, sub),
            _ if self.opaque => (b"application", b"octet-stream"),
            _ if self.kind == Kind::Message => (b"message", b"rfc822"),
            _ => (b"text", b"plain"),
        }
    }

    /// The parameters of its Content-Type.
    pub fn parameters(&self) -> Pairs<'a> {
        match self.string(Slot::Parameters) {
            Some(list) => Pairs(list),
            // RFC 2045 §5.2: what is not written is text in US-ASCII.
            None if self.is_default_text() => Pairs(US_ASCII),
            None => Pairs(&[]),
        }
    }

    fn is_default_text(&self) -> bool {
        self.kind == Kind::Leaf && !self.opaque && self.string(Slot::Type).is_none()
    }

    /// Content-ID.
    pub fn id(&self) -> Option<&'a [u8]> {
        self.string(Slot::Id)
    }

    /// Content-Description, encoded words and all.
    pub fn description(&self) -> Option<&'a [u8]> {
        self.string(Slot::Description)
    }

    /// Content-Transfer-Encoding, `7bit` if the mail does not say.
    pub fn encoding(&self) -> &'a [u8] {
        self.string(Slot::Encoding).unwrap_or(b"7bit")
    }

    /// Content-Disposition without its parameters.
    pub fn disposition(&self) -> Option<&'a [u8]> {
        self.string(Slot::Disposition)
    }

    /// The parameters of its Content-Disposition.
    pub fn disposition_parameters(&self) -> Pairs<'a> {
        Pairs(self.string(Slot::DispositionParameters).unwrap_or_default())
    }

    /// The tags of Content-Language.
    pub fn languages(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut list = self.string(Slot::Language).unwrap_or_default();
        std::iter::from_fn(move || take_string(&mut list))
    }

    /// Content-Location.
    pub fn location(&self) -> Option<&'a [u8]> {
        self.string(Slot::Location)
    }

    /// Content-MD5.
    pub fn md5(&self) -> Option<&'a [u8]> {
        self.string(Slot::Md5)
    }

    /// For the child of a [`Kind::Message`] part, the envelope of that message.
    pub fn envelope(&self) -> Envelope<'a> {
        Envelope::from_bytes(self.string(Slot::Envelope).unwrap_or_default())
    }

    /// The parts directly inside.
    pub fn children(&self) -> Children<'a> {
        Children(self.inside)
    }

    fn string(&self, slot: Slot) -> Option<&'a [u8]> {
        let bit = 1u64 << slot as u32;
        if self.present & bit == 0 {
            return None;
        }
        let before = (self.present & (bit - 1)).count_ones();
        let mut rest = self.strings;
        for _ in 0..before {
            take_string(&mut rest)?;
        }
        take_string(&mut rest)
    }

    /// Reads a part; gives also what follows it and the parts inside.
    fn read(mut rest: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (octet, inside, mut record) = Self::take_head(&mut rest)?;
        let opaque = octet & OPAQUE != 0;
        let kind = match octet & !OPAQUE {
            0 => Kind::Leaf,
            1 if !opaque => Kind::Multipart,
            2 if !opaque => Kind::Message,
            _ => return None,
        };
        let header_start = take_number(&mut record)?;
        let body_start = header_start.checked_add(take_number(&mut record)?)?;
        let end = body_start.checked_add(take_number(&mut record)?)?;
        let lines = take_number(&mut record)?;
        let present = take_number(&mut record)?;
        let part = Self {
            kind,
            opaque,
            header_start,
            body_start,
            end,
            lines,
            present,
            strings: record,
            inside,
        };
        Some((part, rest))
    }

    /// Takes a part off the front: its kind octet, the parts inside, and what
    /// else its record holds.
    fn take_head(rest: &mut &'a [u8]) -> Option<(u8, &'a [u8], &'a [u8])> {
        let mut record = take_string(rest)?;
        let octet = take_octet(&mut record)?;
        let length = usize::try_from(take_number(&mut record)?).ok()?;
        let (inside, after) = rest.split_at_checked(length)?;
        *rest = after;
        Some((octet, inside, record))
    }
}

/// Iterates the parts directly inside another. Passing parts with `nth` costs
/// little, whatever is inside them.
#[derive(Debug, Clone, Copy)]
pub struct Children<'a>(&'a [u8]);

impl<'a> Iterator for Children<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        let (part, after) = Part::read(self.0)?;
        self.0 = after;
        Some(part)
    }

    fn nth(&mut self, count: usize) -> Option<Part<'a>> {
        for _ in 0..count {
            Part::take_head(&mut self.0)?;
        }
        self.next()
    }
}

/// Iterates names and values of parameters as the mail writes them, RFC 2231
/// pieces joined.
#[derive(Debug, Clone, Copy)]
pub struct Pairs<'a>(&'a [u8]);

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        Some((take_string(&mut self.0)?, take_string(&mut self.0)?))
    }
}

/// A part as the scanner finds it, in the order of the blob.
#[derive(Debug)]
pub(super) struct FoundPart {
    pub(super) kind: Kind,
    pub(super) opaque: bool,
    pub(super) parent: Option<usize>,
    pub(super) header_start: u64,
    pub(super) body_start: u64,
    pub(super) end: u64,
    pub(super) lines: u64,
    pub(super) strings: Strings,
}

impl Structure {
    /// Writes the parts of a blob, each after its parent.
    pub(super) fn from_parts(parts: &[FoundPart], blob_size: u64) -> Self {
        let mut octets = vec![VERSION];
        put_number(blob_size, &mut octets);
        let root = octets.len();
        // Records need the length of what follows them: from the last to the
        // first, each adds its own to that of its parent.
        let mut inside = vec![0u64; parts.len()];
        let mut heads = vec![(0, 0); parts.len()];
        let mut head_octets = Vec::new();
        for (at, part) in parts.iter().enumerate().rev() {
            let start = head_octets.len();
            let kind = match part.kind {
                Kind::Leaf => 0,
                Kind::Multipart => 1,
                Kind::Message => 2,
            };
            head_octets.push(kind | if part.opaque { OPAQUE } else { 0 });
            for number in [
                inside[at],
                part.header_start,
                part.body_start - part.header_start,
                part.end - part.body_start,
                part.lines,
                part.strings.present(),
            ] {
                put_number(number, &mut head_octets);
            }
            heads[at] = (start, head_octets.len());
            let record = head_octets.len() - start + part.strings.octets().len();
            if let Some(parent) = part.parent {
                inside[parent] += (number_length(record as u64) + record) as u64 + inside[at];
            }
        }
        for (part, (start, end)) in parts.iter().zip(heads) {
            let record = end - start + part.strings.octets().len();
            put_number(record as u64, &mut octets);
            octets.extend_from_slice(&head_octets[start..end]);
            octets.extend_from_slice(part.strings.octets());
        }
        Self {
            octets,
            root,
            blob_size,
        }
    }
}

/// Checks every part, so that readers need not.
fn check(mut rest: &[u8], blob_size: u64) -> Option<()> {
    // The ends of the parts that are open: in the octets left, in the blob.
    let mut open: Vec<(usize, u64, Kind)> = Vec::with_capacity(8);
    open.push((0, blob_size, Kind::Message));
    let mut start = 0;
    let mut count = 0;
    while !rest.is_empty() {
        while open.last().is_some_and(|(left, ..)| *left == rest.len()) {
            open.pop();
        }
        let (left, end, kind) = *open.last()?;
        let (part, _) = Part::read(rest)?;
        take_string(&mut rest)?;
        count += 1;
        let inside_left = rest.len().checked_sub(part.inside.len())?;
        let fits = part.header_start >= start && part.end <= end && inside_left >= left;
        // A nested message is one, and only containers hold anything.
        let lone = kind == Kind::Multipart || inside_left == left;
        let holds = match part.kind {
            Kind::Leaf => part.inside.is_empty(),
            Kind::Multipart => true,
            Kind::Message => !part.inside.is_empty(),
        };
        let mut strings = part.strings;
        for _ in 0..part.present.count_ones() {
            take_string(&mut strings)?;
        }
        if !(fits && lone && holds && strings.is_empty())
            || open.len() > DEPTH_MAX
            || count > PARTS_MAX
        {
            return None;
        }
        start = part.header_start;
        open.push((inside_left, part.end, part.kind));
    }
    (count > 0 && open.iter().all(|(left, ..)| *left == 0)).then_some(())
}

/// Appends a string: its length and its octets.
pub(super) fn put_string(text: &[u8], out: &mut Vec<u8>) {
    put_number(text.len() as u64, out);
    out.extend_from_slice(text);
}

/// Takes a string off the front.
pub(super) fn take_string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_number(rest)?).ok()?;
    let (text, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(text)
}

/// Appends a number.
pub(super) fn put_number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes a number off the front.
pub(super) fn take_number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let octet = take_octet(rest)?;
        let bits = u64::from(octet & 0x7f);
        number |= bits
            .checked_shl(shift)
            .filter(|shifted| shifted >> shift == bits)?;
        if octet & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn take_octet(rest: &mut &[u8]) -> Option<u8> {
    let (first, after) = rest.split_first()?;
    *rest = after;
    Some(*first)
}

fn number_length(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

const VERSION: u8 = 1;
const OPAQUE: u8 = 4;
/// `charset=us-ascii` as a list.
const US_ASCII: &[u8] = b"\x07charset\x08us-ascii";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Scanner;
    use super::*;

    #[test]
    fn version_1_is_these_octets() {
        let mut scanner = Scanner::new();
        scanner.push(
            b"Content-Type: multipart/x; boundary=b\n\n--b\n\nhi\nho\n--b\nContent-ID: <i>\n\n\n--b--\n",
        );
        let structure = scanner.finish().structure;
        let expected = b"\x01\x4e\
            \x1f\x01\x14\x00\x27\x27\x09\x07\x09multipart\x01x\x0b\x08boundary\x01b\
            \x07\x00\x00\x2b\x01\x05\x01\x00\
            \x0b\x00\x00\x36\x11\x00\x00\x08\x03<i>";
        assert_eq!(
            structure.as_bytes().escape_ascii().to_string(),
            expected.escape_ascii().to_string()
        );
        assert_eq!(Structure::from_bytes(expected.to_vec()), Ok(structure));
    }

    #[test]
    fn damaged_and_newer_octets_are_refused() {
        let whole = {
            let mut scanner = Scanner::new();
            scanner.push(b"Content-Type: multipart/x; boundary=b\n\n--b\n\nhi\n--b--\n");
            scanner.finish().structure
        };
        let octets = whole.as_bytes();
        for cut in 0..octets.len() {
            assert_eq!(
                Structure::from_bytes(&octets[..cut]),
                Err(StructureError::Damaged)
            );
        }
        let newer = [&[2], &octets[1..]].concat();
        assert_eq!(
            Structure::from_bytes(newer),
            Err(StructureError::Version(2))
        );
        // Any flipped bit is refused or read without a panic.
        for bit in 8..octets.len() * 8 {
            let mut flipped = octets.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(read) = Structure::from_bytes(flipped) {
                assert!(read.root().octets().end <= read.blob_size());
            }
        }
    }
}
