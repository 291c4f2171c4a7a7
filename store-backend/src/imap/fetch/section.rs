//! Which octets of a message an item is: `BODY[…]` as ranges, `BINARY[…]` decoded. Everything here blocks.

use std::collections::VecDeque;
use std::ops::Range;

use mail_proto::imap::command::{Section, SectionText, SectionWindow};
use mail_proto::mime::{self, FieldFilter};

use super::super::message::{Message, Unreadable};
use super::super::transfer::Transfer;
use crate::volume::MailboxReader;

/// Appends the literal of a header: of the fields that the filter lets through, or all of it. Given are the prologue and
/// the header block of the blob, or one with the fields that the filter looks for.
pub(super) fn write_header(
    prologue: &[u8],
    block: &[u8],
    filter: Option<&FieldFilter>,
    window: Option<SectionWindow>,
    out: &mut Vec<u8>,
    announce: impl FnOnce(&mut Vec<u8>, u64),
) {
    let everything = FieldFilter::new(&[], true);
    let ranges = filter.unwrap_or(&everything).ranges(prologue, block, 0);
    let ranges = match window {
        Some(SectionWindow { first, count }) => ranges.partial(first, count),
        None => ranges,
    };
    announce(out, ranges.octets());
    for range in ranges.iter() {
        // Both are in memory.
        let at = |octet: u64| usize::try_from(octet).unwrap_or(usize::MAX);
        let (start, end, ours) = (at(range.start), at(range.end), prologue.len());
        out.extend_from_slice(&prologue[start.min(ours)..end.min(ours)]);
        out.extend_from_slice(&block[start.max(ours) - ours..end.max(ours) - ours]);
    }
}

/// The octets of a section, in the message.
pub(super) fn section_ranges(
    reader: &MailboxReader,
    message: &mut Message,
    section: &Section,
    window: Option<SectionWindow>,
) -> Result<Option<VecDeque<Range<u64>>>, Unreadable> {
    let all = SectionWindow {
        first: 0,
        count: u64::MAX,
    };
    let SectionWindow { first, count } = window.unwrap_or(all);
    if *section == Section::default() {
        let size = message.size();
        let whole = first.min(size)..first.saturating_add(count).min(size);
        return Ok(Some(
            [whole]
                .into_iter()
                .filter(|range| !range.is_empty())
                .collect(),
        ));
    }
    let structure = message.structure(reader)?;
    let structured = mime::Message::new(&structure, message.prologue_octets());
    let mut header = Vec::new();
    if let SectionText::HeaderFields { .. } = section.text
        && let Some(range) = structured.range(section)
    {
        message.read(reader, range, &mut header)?;
    }
    let ranges = structured.ranges(section, &header);
    Ok(ranges.map(|ranges| ranges.partial(first, count).iter().collect()))
}

pub(super) fn octets_of(ranges: &VecDeque<Range<u64>>) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

/// A part for BINARY. RFC 3516.
pub(super) enum Part {
    Missing,
    /// Its encoding is not known.
    Unknown,
    Decodable {
        range: Range<u64>,
        transfer: Transfer,
        octets: u64,
        has_nul: bool,
    },
}

/// Finds a part and measures what it decodes to: its literal announces that.
pub(super) fn decoded_part(
    reader: &MailboxReader,
    message: &mut Message,
    part: &[u32],
) -> Result<Part, Unreadable> {
    let (range, transfer) = if part.is_empty() {
        (0..message.size(), Transfer::Identity)
    } else {
        let structure = message.structure(reader)?;
        let structured = mime::Message::new(&structure, message.prologue_octets());
        let Some(found) = structured.part(part) else {
            // A multipart without parts is shown with an empty one, which BODY gives too.
            let shown = Section {
                part: part.to_vec(),
                text: SectionText::All,
            };
            return Ok(match structured.range(&shown) {
                Some(range) => Part::Decodable {
                    range,
                    transfer: Transfer::Identity,
                    octets: 0,
                    has_nul: false,
                },
                None => Part::Missing,
            });
        };
        let Some(transfer) = Transfer::of(found.encoding()) else {
            return Ok(Part::Unknown);
        };
        let ours = message.prologue_octets();
        (found.body().start + ours..found.body().end + ours, transfer)
    };
    let (mut octets, mut has_nul) = (0, false);
    let (mut left, mut decoder) = (range.clone(), transfer.clone());
    while !left.is_empty() {
        let piece = decode_piece(reader, message, &mut left, &mut decoder)?;
        octets += piece.len() as u64;
        has_nul = has_nul || memchr::memchr(0, &piece).is_some();
    }
    Ok(Part::Decodable {
        range,
        transfer,
        octets,
        has_nul,
    })
}

pub(super) fn decode_piece(
    reader: &MailboxReader,
    message: &mut Message,
    left: &mut Range<u64>,
    transfer: &mut Transfer,
) -> Result<Vec<u8>, Unreadable> {
    let piece = left.start..left.end.min(left.start + PIECE_OCTETS);
    let mut raw = Vec::new();
    message.read(reader, piece.clone(), &mut raw)?;
    left.start = piece.end;
    let mut decoded = Vec::with_capacity(raw.len());
    transfer.push(&raw, &mut decoded);
    if left.is_empty() {
        transfer.finish(&mut decoded);
    }
    Ok(decoded)
}

/// Octets read at once.
pub(super) const PIECE_OCTETS: u64 = 64 << 10;
