//! FETCH. RFC 9051 §6.4.5, RFC 7162 §3.1.4, RFC 9394, RFC 3516, 8474, 8514, 8970.

use super::super::command::{Fetch, FetchItem};
use super::super::sequence::Addressing;
use super::FETCH_ITEMS_MAX;
use super::cursor::Cursor;
use super::error::ParseError;
use super::{section, set};

/// The arguments of FETCH.
pub(super) fn fetch(by: Addressing, cursor: &mut Cursor<'_>) -> Result<Fetch, ParseError> {
    cursor.spaces()?;
    let set = set::message_set(cursor)?;
    cursor.spaces_or_open()?;
    let mut fetch = Fetch {
        by,
        set,
        items: items(cursor)?,
        changed_since: None,
        vanished: false,
        partial: None,
    };
    if cursor.has_more() {
        cursor.list(|cursor| modifier(&mut fetch, cursor))?;
    }
    if fetch.vanished && (by == Addressing::Sequence || fetch.changed_since.is_none()) {
        // RFC 7162 §3.2.6.
        return Err(cursor.expected("VANISHED with UID FETCH and CHANGEDSINCE only"));
    }
    Ok(fetch)
}

/// A list of items, or one item or macro; more of them without parentheses too, see [`crate::quirks`].
fn items(cursor: &mut Cursor<'_>) -> Result<Vec<FetchItem>, ParseError> {
    if cursor.peek() == Some(b'(') {
        return list(cursor);
    }
    let mut items = Vec::new();
    loop {
        item_or_macro(&mut items, cursor)?;
        let end = cursor.at();
        if !cursor.has_more() || cursor.peek() == Some(b'(') {
            cursor.back_to(end);
            return Ok(items);
        }
    }
}

/// A list of items, not empty.
pub(super) fn list(cursor: &mut Cursor<'_>) -> Result<Vec<FetchItem>, ParseError> {
    let mut items = Vec::new();
    let start = cursor.at();
    cursor.list(|cursor| item_or_macro(&mut items, cursor))?;
    match items.is_empty() {
        true => Err(cursor.expected_from(start, "at least one item")),
        false => Ok(items),
    }
}

fn item_or_macro(items: &mut Vec<FetchItem>, cursor: &mut Cursor<'_>) -> Result<(), ParseError> {
    let start = cursor.at();
    let name = cursor.name("an item to fetch")?;
    let written_out: &[FetchItem] = match name.as_ref() {
        "ALL" => &MACRO[..4],
        "FAST" => &MACRO[..3],
        "FULL" => &MACRO,
        name => {
            let item = item(name, start, cursor)?;
            return push(items, item, cursor);
        }
    };
    for item in written_out {
        push(items, item.clone(), cursor)?;
    }
    Ok(())
}

fn push(
    items: &mut Vec<FetchItem>,
    item: FetchItem,
    cursor: &Cursor<'_>,
) -> Result<(), ParseError> {
    // A short list: comparing is cheaper than hashing, and 1,000 bounds it.
    if items.contains(&item) {
        return Ok(());
    }
    if items.len() == FETCH_ITEMS_MAX {
        return Err(cursor.over_limit("at most 1000 items"));
    }
    items.push(item);
    Ok(())
}

fn item(name: &str, start: usize, cursor: &mut Cursor<'_>) -> Result<FetchItem, ParseError> {
    Ok(match name {
        "FLAGS" => FetchItem::Flags,
        "UID" => FetchItem::Uid,
        "ENVELOPE" => FetchItem::Envelope,
        "INTERNALDATE" => FetchItem::InternalDate,
        "RFC822.SIZE" => FetchItem::Rfc822Size,
        "BODYSTRUCTURE" => FetchItem::BodyStructure,
        "BODY" if cursor.peek() != Some(b'[') => FetchItem::Body,
        "BODY" | "BODY.PEEK" => FetchItem::Section {
            section: section::section(cursor)?,
            peek: name == "BODY.PEEK",
            window: section::window(cursor)?,
        },
        "BINARY" | "BINARY.PEEK" => FetchItem::Binary {
            part: section::binary(cursor)?,
            peek: name == "BINARY.PEEK",
            window: section::window(cursor)?,
        },
        "BINARY.SIZE" => FetchItem::BinarySize(section::binary(cursor)?),
        "RFC822" => FetchItem::Rfc822,
        "RFC822.HEADER" => FetchItem::Rfc822Header,
        "RFC822.TEXT" => FetchItem::Rfc822Text,
        "MODSEQ" => FetchItem::ModSeq,
        "EMAILID" => FetchItem::EmailId,
        "THREADID" => FetchItem::ThreadId,
        "SAVEDATE" => FetchItem::SaveDate,
        "PREVIEW" => FetchItem::Preview {
            lazy: lazy(cursor)?,
        },
        _ => return Err(cursor.expected_from(start, "an item to fetch")),
    })
}

/// `(LAZY)` behind PREVIEW. RFC 8970 §3.
fn lazy(cursor: &mut Cursor<'_>) -> Result<bool, ParseError> {
    let start = cursor.at();
    cursor.optional_spaces();
    if cursor.peek() != Some(b'(') {
        cursor.back_to(start);
        return Ok(false);
    }
    let mut lazy = false;
    let inner = cursor.at();
    cursor
        .list(|cursor| {
            let start = cursor.at();
            lazy |= cursor.take_word("LAZY");
            match cursor.at() > start {
                true => Ok(()),
                false => Err(cursor.expected("LAZY")),
            }
        })
        .or_else(|error| {
            // `FETCH 1 PREVIEW (CHANGEDSINCE 5)`: a modifier, not LAZY.
            cursor.back_to(inner + 1);
            cursor.optional_spaces();
            let is_modifier =
                matches!(cursor.peek(), Some(b'C' | b'c' | b'V' | b'v' | b'P' | b'p'));
            cursor.back_to(start);
            if is_modifier { Ok(()) } else { Err(error) }
        })?;
    Ok(lazy)
}

fn modifier(fetch: &mut Fetch, cursor: &mut Cursor<'_>) -> Result<(), ParseError> {
    let start = cursor.at();
    match cursor.name("a FETCH modifier")?.as_ref() {
        "CHANGEDSINCE" => {
            cursor.spaces()?;
            fetch.changed_since = Some(cursor.modseq()?);
        }
        "VANISHED" => fetch.vanished = true,
        "PARTIAL" if fetch.partial.is_some() => {
            return Err(cursor.expected_from(start, "PARTIAL only once"));
        }
        "PARTIAL" => {
            cursor.spaces()?;
            fetch.partial = Some(set::partial(cursor)?);
        }
        _ => return Err(cursor.expected_from(start, "CHANGEDSINCE, VANISHED or PARTIAL")),
    }
    Ok(())
}

/// FAST is the first three, ALL the first four, FULL all. RFC 9051 §6.4.5.
const MACRO: [FetchItem; 5] = [
    FetchItem::Flags,
    FetchItem::InternalDate,
    FetchItem::Rfc822Size,
    FetchItem::Envelope,
    FetchItem::Body,
];
