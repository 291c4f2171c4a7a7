//! STORE, COPY, MOVE and the flags they and APPEND carry. RFC 9051 §6.4.6, §6.4.7.

use super::super::command::{Flag, Keyword, Store, StoreAction};
use super::super::mailbox::MailboxName;
use super::super::sequence::{Addressing, MessageSet};
use super::cursor::Cursor;
use super::error::ParseError;
use super::set;

/// The arguments of STORE.
pub(super) fn store(by: Addressing, cursor: &mut Cursor<'_>) -> Result<Store, ParseError> {
    cursor.spaces()?;
    let set = set::message_set(cursor)?;
    let mut unchanged_since = None;
    cursor.spaces_or_open()?;
    if cursor.peek() == Some(b'(') {
        cursor.list(|cursor| {
            if !cursor.take_word("UNCHANGEDSINCE") {
                return Err(cursor.expected("UNCHANGEDSINCE"));
            }
            cursor.spaces()?;
            unchanged_since = Some(cursor.modseq()?);
            Ok(())
        })?;
        cursor.spaces()?;
    }
    let action = if cursor.take(b'+') {
        StoreAction::Add
    } else if cursor.take(b'-') {
        StoreAction::Remove
    } else {
        StoreAction::Replace
    };
    let start = cursor.at();
    let silent = match cursor.name("FLAGS or FLAGS.SILENT")?.as_ref() {
        "FLAGS" => false,
        "FLAGS.SILENT" => true,
        _ => return Err(cursor.expected_from(start, "FLAGS or FLAGS.SILENT")),
    };
    cursor.spaces_or_open()?;
    let mut flags = Vec::new();
    if cursor.peek() == Some(b'(') {
        cursor.list(|cursor| flag(&mut flags, cursor))?;
    } else {
        flag(&mut flags, cursor)?;
        while cursor.has_more() {
            flag(&mut flags, cursor)?;
        }
    }
    Ok(Store {
        by,
        set,
        unchanged_since,
        action,
        silent,
        flags,
    })
}

/// The arguments of COPY and MOVE.
pub(super) fn copy(cursor: &mut Cursor<'_>) -> Result<(MessageSet, MailboxName), ParseError> {
    cursor.spaces()?;
    let set = set::message_set(cursor)?;
    Ok((set, cursor.spaced_mailbox()?))
}

/// Flags before a message, if there are any, and the spaces behind them.
pub(super) fn flags_before(cursor: &mut Cursor<'_>) -> Result<Vec<Flag>, ParseError> {
    let mut flags = Vec::new();
    if cursor.peek() == Some(b'(') {
        cursor.list(|cursor| flag(&mut flags, cursor))?;
        cursor.optional_spaces();
    }
    while cursor.peek() == Some(b'\\') {
        flag(&mut flags, cursor)?;
        cursor.spaces()?;
    }
    Ok(flags)
}

/// One flag; one that is there already is passed over.
fn flag(flags: &mut Vec<Flag>, cursor: &mut Cursor<'_>) -> Result<(), ParseError> {
    let flag = match cursor.take(b'\\') {
        true => {
            let name = cursor.atom("a flag")?;
            let meant = match name.starts_with('$') {
                true => Keyword::new(name).map(Flag::Keyword),
                false => Flag::system(name.as_bytes()),
            };
            match meant {
                Some(flag) => flag,
                // `\Recent`, or one that is not among PERMANENTFLAGS: RFC 9051 §7.1 lets us ignore it.
                None => return Ok(()),
            }
        }
        false => Flag::Keyword(keyword(cursor)?),
    };
    if flags.contains(&flag) {
        return Ok(());
    }
    // DESIGN, limits: keywords per message; the store counts those of the
    // mailbox. Here it bounds the work.
    if flags.len() == FLAGS_MAX {
        return Err(cursor.over_limit("at most 133 flags"));
    }
    flags.push(flag);
    Ok(())
}

/// A keyword.
pub(super) fn keyword(cursor: &mut Cursor<'_>) -> Result<Keyword, ParseError> {
    let start = cursor.at();
    Keyword::new(cursor.atom("a keyword")?).ok_or_else(|| cursor.expected_from(start, "a keyword"))
}

/// 128 keywords and the five system flags.
const FLAGS_MAX: usize = 133;
