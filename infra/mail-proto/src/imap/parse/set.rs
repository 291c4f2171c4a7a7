//! Sets of numbers. RFC 9051 §9 `sequence-set`, RFC 5182, RFC 9394.

use super::super::sequence::{MessageSet, PartialRange, SequenceSet};
use super::cursor::Cursor;
use super::error::ParseError;

/// `sequence-set` or `$`.
pub(super) fn message_set(cursor: &mut Cursor<'_>) -> Result<MessageSet, ParseError> {
    match cursor.take(b'$') {
        true => Ok(MessageSet::Saved),
        false => sequence_set(cursor).map(MessageSet::Numbers),
    }
}

/// `sequence-set`.
pub(super) fn sequence_set(cursor: &mut Cursor<'_>) -> Result<SequenceSet, ParseError> {
    let mut set = SequenceSet::default();
    loop {
        let first = bound(cursor)?;
        let last = match cursor.take(b':') {
            true => bound(cursor)?,
            false => first,
        };
        match (first, last) {
            (Some(first), Some(last)) => set.push(first, last),
            (None, Some(from)) | (Some(from), None) => set.push_star(from),
            (None, None) => set.push_star(u32::MAX),
        }
        if !cursor.take(b',') || matches!(cursor.peek(), None | Some(b' ' | b')')) {
            break;
        }
    }
    set.normalise();
    Ok(set)
}

/// One UID, or `$`. RFC 9738 §3.2.
pub(super) fn one_uid(cursor: &mut Cursor<'_>) -> Result<MessageSet, ParseError> {
    match cursor.take(b'$') {
        true => Ok(MessageSet::Saved),
        false => {
            let uid = cursor.positive("a UID or $")?;
            Ok(MessageSet::Numbers(SequenceSet::from_numbers([uid])))
        }
    }
}

/// A set in which `*` cannot be: what a client knows by itself.
pub(super) fn known_set(cursor: &mut Cursor<'_>) -> Result<SequenceSet, ParseError> {
    let start = cursor.at();
    let set = sequence_set(cursor)?;
    match set.has_star() {
        true => Err(cursor.expected_from(start, "a set of numbers without *")),
        false => Ok(set),
    }
}

/// `1:100` or `-1:-100`. RFC 9394 §3.
pub(super) fn partial(cursor: &mut Cursor<'_>) -> Result<PartialRange, ParseError> {
    const EXPECTED: &str = "a range such as 1:100 or -1:-100";
    let from_end = cursor.take(b'-');
    let one = cursor.positive(EXPECTED)?;
    cursor.require(b':', EXPECTED)?;
    if cursor.take(b'-') != from_end {
        return Err(cursor.expected(EXPECTED));
    }
    let other = cursor.positive(EXPECTED)?;
    Ok(PartialRange {
        first: one.min(other),
        last: one.max(other),
        from_end,
    })
}

/// A number, or none for `*`.
fn bound(cursor: &mut Cursor<'_>) -> Result<Option<u32>, ParseError> {
    match cursor.take(b'*') {
        true => Ok(None),
        false => cursor.positive("a message number or *").map(Some),
    }
}
