//! Finds the octets of a FETCH section. RFC 9051 §6.4.5.1.

use std::cmp::Ordering;
use std::ops::Range;

use super::header::{Field, Fields};
use super::structure::{Kind, Part, Structure};
use crate::imap::command::{Section, SectionText};

/// Octet ranges of a message, in order, that are sent one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(Vec<Range<u64>>);

impl Ranges {
    fn one(range: Range<u64>) -> Self {
        let mut ranges = Self::default();
        ranges.add(range);
        ranges
    }

    fn add(&mut self, range: Range<u64>) {
        match self.0.last_mut() {
            _ if range.is_empty() => {}
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.0.push(range),
        }
    }

    /// The number of octets.
    pub fn octets(&self) -> u64 {
        self.0.iter().map(|range| range.end - range.start).sum()
    }

    /// The ranges, in the message. None is empty.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.0.iter().cloned()
    }

    /// The part `<origin.count>` of it: fewer octets at its end, none beyond.
    pub fn partial(&self, origin: u64, count: u64) -> Self {
        let mut skip = origin;
        let mut left = count;
        let mut ranges = Self::default();
        for range in self.iter() {
            let length = range.end - range.start;
            let skipped = skip.min(length);
            skip -= skipped;
            let taken = left.min(length - skipped);
            left -= taken;
            if taken > 0 {
                let start = range.start + skipped;
                ranges.add(start..start + taken);
            }
        }
        ranges
    }
}

/// The fields that HEADER.FIELDS or HEADER.FIELDS.NOT names.
#[derive(Debug, Clone)]
pub struct FieldFilter {
    /// Sorted, for a client may name thousands.
    names: Vec<Box<[u8]>>,
    not: bool,
}

impl FieldFilter {
    /// One for these names; with `not` for all others.
    pub fn new(names: &[String], not: bool) -> Self {
        let mut names: Vec<Box<[u8]>> = names.iter().map(|name| name.as_bytes().into()).collect();
        names.sort_unstable_by(|one, other| compare_ignoring_case(one, other));
        Self { names, not }
    }

    /// The ranges of these fields in a prologue and the header block of a
    /// blob behind it, counted from `start`.
    pub fn ranges(&self, prologue: &[u8], header: &[u8], start: u64) -> Ranges {
        let mut ranges = Ranges::default();
        // Our lines and the blob's are two headers, whatever the second
        // begins with.
        let behind = start + prologue.len() as u64;
        for (block, start) in [(prologue, start), (header, behind)] {
            let at = |octet: usize| start + octet as u64;
            let mut fields = Fields::new(block);
            for field in fields.by_ref() {
                if self.names(&field) != self.not {
                    ranges.add(at(field.range().start)..at(field.range().end));
                }
            }
            // The empty line is always there, if the message has one.
            ranges.add(at(fields.position())..at(block.len()));
        }
        ranges
    }

    fn names(&self, field: &Field<'_>) -> bool {
        self.names
            .binary_search_by(|name| compare_ignoring_case(name, field.name))
            .is_ok()
    }
}

/// A message as a client sees it: a prologue followed by a blob.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    root: Part<'a>,
    blob_size: u64,
    prologue_size: u64,
}

impl<'a> Message<'a> {
    /// The message of a blob and a prologue of this many octets, 0 if there
    /// is none.
    pub fn new<B: AsRef<[u8]>>(structure: &'a Structure<B>, prologue_size: u64) -> Self {
        Self {
            root: structure.root(),
            blob_size: structure.blob_size(),
            prologue_size,
        }
    }

    /// RFC822.SIZE.
    pub fn size(&self) -> u64 {
        self.prologue_size + self.blob_size
    }

    /// The header: the prologue and the header of the blob.
    pub fn header(&self) -> Range<u64> {
        0..self.prologue_size + self.root.header().end
    }

    /// The part with these numbers, if there is one. For the encoding that
    /// BINARY undoes, and for its type.
    pub fn part(&self, numbers: &[u32]) -> Option<Part<'a>> {
        match self.find(numbers)? {
            Found::Part(part) => Some(part),
            Found::Missing(_) => None,
        }
    }

    /// The octets of a section, or `None` if the message has none such.
    ///
    /// For HEADER.FIELDS and HEADER.FIELDS.NOT these are the octets of the
    /// header to be read; give them to [`Message::ranges`].
    pub fn range(&self, section: &Section) -> Option<Range<u64>> {
        if section.part.is_empty() {
            return match section.text {
                SectionText::All => Some(0..self.size()),
                SectionText::Text => Some(self.header().end..self.size()),
                SectionText::Mime => None,
                _ => Some(self.header()),
            };
        }
        let part = match self.find(&section.part)? {
            Found::Part(part) => part,
            Found::Missing(at) => {
                let exists = matches!(section.text, SectionText::All | SectionText::Mime);
                return exists.then_some(self.shifted(&(at..at)));
            }
        };
        match section.text {
            SectionText::All => Some(self.shifted(&part.body())),
            // The message itself as its part 1: its header has our lines.
            SectionText::Mime if part == self.root => Some(self.header()),
            SectionText::Mime => Some(self.shifted(&part.header())),
            _ if part.kind() != Kind::Message => None,
            SectionText::Text => Some(self.shifted(&part.children().next()?.body())),
            _ => Some(self.shifted(&part.children().next()?.header())),
        }
    }

    /// The octets of a section as ranges to send. `header` is the octets of
    /// [`Message::range`], looked at only for HEADER.FIELDS and
    /// HEADER.FIELDS.NOT.
    pub fn ranges(&self, section: &Section, header: &[u8]) -> Option<Ranges> {
        let range = self.range(section)?;
        let SectionText::HeaderFields { not, names } = &section.text else {
            return Some(Ranges::one(range));
        };
        let ours = if section.part.is_empty() {
            self.prologue_size
        } else {
            0
        };
        let ours = usize::try_from(ours).map_or(header.len(), |ours| ours.min(header.len()));
        let (prologue, blob) = header.split_at(ours);
        Some(FieldFilter::new(names, *not).ranges(prologue, blob, range.start))
    }

    /// A range of the blob as one of the message.
    fn shifted(&self, range: &Range<u64>) -> Range<u64> {
        range.start + self.prologue_size..range.end + self.prologue_size
    }

    fn find(&self, numbers: &[u32]) -> Option<Found<'a>> {
        let mut holder = Holder::Message(self.root);
        let (last, before) = numbers.split_last()?;
        for number in before {
            match holder.part(*number)? {
                Found::Part(part) => holder = Holder::of(part)?,
                Found::Missing(_) => return None,
            }
        }
        holder.part(*last)
    }
}

enum Found<'a> {
    Part(Part<'a>),
    /// The part that is announced where a multipart has none: empty, here.
    Missing(u64),
}

/// What numbers count in.
enum Holder<'a> {
    Multipart(Part<'a>),
    /// A message: if it is no multipart, its body is part 1.
    Message(Part<'a>),
}

impl<'a> Holder<'a> {
    fn of(part: Part<'a>) -> Option<Self> {
        match part.kind() {
            Kind::Leaf => None,
            Kind::Multipart => Some(Self::Multipart(part)),
            Kind::Message => Some(Self::Message(part.children().next()?)),
        }
    }

    fn part(&self, number: u32) -> Option<Found<'a>> {
        let at = usize::try_from(number).ok()?.checked_sub(1)?;
        match self {
            Self::Message(message) if message.kind() != Kind::Multipart => {
                (at == 0).then_some(Found::Part(*message))
            }
            Self::Message(multipart) | Self::Multipart(multipart) => {
                match multipart.children().nth(at) {
                    Some(part) => Some(Found::Part(part)),
                    // The part announced where there is none.
                    None if at == 0 => Some(Found::Missing(multipart.body().start)),
                    None => None,
                }
            }
        }
    }
}

fn compare_ignoring_case(one: &[u8], other: &[u8]) -> Ordering {
    let one = one.iter().map(u8::to_ascii_lowercase);
    one.cmp(other.iter().map(u8::to_ascii_lowercase))
}
