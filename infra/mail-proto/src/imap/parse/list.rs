//! LIST and LSUB. RFC 9051 §6.3.9, RFC 5258, RFC 5819, RFC 6154, RFC 8440.

use super::super::command::{Command, List};
use super::cursor::Cursor;
use super::error::ParseError;
use super::mailbox::status_items;

/// The arguments of LIST.
pub(super) fn list(cursor: &mut Cursor<'_>) -> Result<List, ParseError> {
    let mut list = List::default();
    cursor.spaces_or_open()?;
    if cursor.peek() == Some(b'(') {
        list.extended = true;
        selection(&mut list, cursor)?;
        cursor.spaces()?;
    }
    list.reference = cursor.reference()?;
    cursor.spaces_or_open()?;
    if cursor.peek() == Some(b'(') {
        list.extended = true;
        let start = cursor.at();
        cursor.list(|cursor| {
            if list.patterns.len() == PATTERNS_MAX {
                return Err(cursor.over_limit("at most 100 patterns"));
            }
            list.patterns.push(cursor.pattern()?);
            Ok(())
        })?;
        if list.patterns.is_empty() {
            return Err(cursor.expected_from(start, "at least one pattern"));
        }
    } else {
        list.patterns.push(cursor.pattern()?);
    }
    if cursor.has_more() {
        list.extended = true;
        if !cursor.take_word("RETURN") {
            return Err(cursor.expected("RETURN"));
        }
        returns(&mut list, cursor)?;
    }
    Ok(list)
}

/// LSUB.
pub(super) fn lsub(cursor: &mut Cursor<'_>) -> Result<Command, ParseError> {
    cursor.spaces()?;
    let reference = cursor.reference()?;
    cursor.spaces()?;
    Ok(Command::Lsub(reference, cursor.pattern()?))
}

fn selection(list: &mut List, cursor: &mut Cursor<'_>) -> Result<(), ParseError> {
    let opened_at = cursor.at();
    let selection = &mut list.selection;
    cursor.list(|cursor| {
        let start = cursor.at();
        match cursor.name("a LIST selection option")?.as_ref() {
            "SUBSCRIBED" => selection.subscribed = true,
            "REMOTE" => selection.remote = true,
            "RECURSIVEMATCH" => selection.recursive_match = true,
            "SPECIAL-USE" => selection.special_use = true,
            _ => return Err(cursor.expected_from(start, "a known LIST selection option")),
        }
        Ok(())
    })?;
    // RFC 5258 §3.1: by itself it selects nothing; REMOTE does not count.
    if selection.recursive_match && !selection.subscribed && !selection.special_use {
        return Err(cursor.expected_from(opened_at, "RECURSIVEMATCH with another option"));
    }
    Ok(())
}

fn returns(list: &mut List, cursor: &mut Cursor<'_>) -> Result<(), ParseError> {
    let returns = &mut list.returns;
    cursor.list(|cursor| {
        let start = cursor.at();
        match cursor.name("a LIST return option")?.as_ref() {
            "SUBSCRIBED" => returns.subscribed = true,
            "CHILDREN" => returns.children = true,
            "SPECIAL-USE" => returns.special_use = true,
            "MYRIGHTS" => returns.my_rights = true,
            "STATUS" => returns.status = status_items(cursor)?,
            _ => return Err(cursor.expected_from(start, "a known LIST return option")),
        }
        Ok(())
    })
}

/// Each pattern is matched against every mailbox; clients send two or three.
const PATTERNS_MAX: usize = 100;
