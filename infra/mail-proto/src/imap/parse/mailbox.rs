//! SELECT, EXAMINE, CREATE, STATUS. RFC 9051 §6.3, RFC 7162 §3.2.5, RFC 6154 §3.

use super::super::command::{Command, QuickResync, Select, SpecialUse, StatusItem};
use super::cursor::Cursor;
use super::error::ParseError;
use super::set;

/// The arguments of SELECT and EXAMINE.
pub(super) fn select(cursor: &mut Cursor<'_>) -> Result<Select, ParseError> {
    let mut select = Select {
        mailbox: cursor.spaced_mailbox()?,
        condstore: false,
        resync: None,
    };
    if cursor.has_more() {
        cursor.list(|cursor| {
            let start = cursor.at();
            match cursor.name("a SELECT parameter")?.as_ref() {
                "CONDSTORE" => select.condstore = true,
                "QRESYNC" => select.resync = Some(resync(cursor)?),
                _ => return Err(cursor.expected_from(start, "CONDSTORE or QRESYNC")),
            }
            Ok(())
        })?;
    }
    Ok(select)
}

fn resync(cursor: &mut Cursor<'_>) -> Result<QuickResync, ParseError> {
    cursor.open()?;
    let uid_validity = cursor.positive("a UIDVALIDITY")?;
    cursor.spaces()?;
    let mut resync = QuickResync {
        uid_validity,
        modseq: cursor.modseq()?,
        known_uids: None,
        known_pairs: None,
    };
    let mut has_more = cursor.next_in_list(false)?;
    if has_more && cursor.peek() != Some(b'(') {
        resync.known_uids = Some(set::known_set(cursor)?);
        has_more = cursor.next_in_list(false)?;
    }
    if has_more {
        cursor.open()?;
        let numbers = set::known_set(cursor)?;
        cursor.spaces()?;
        let uids = set::known_set(cursor)?;
        cursor.optional_spaces();
        cursor.require(b')', "a closing parenthesis")?;
        let start = cursor.at();
        let size = |set: &super::super::sequence::SequenceSet| {
            let ranges = set.ranges().iter();
            ranges
                .map(|(first, last)| u64::from(last - first) + 1)
                .sum::<u64>()
        };
        if size(&numbers) != size(&uids) {
            return Err(cursor.expected_from(start, "as many UIDs as sequence numbers"));
        }
        resync.known_pairs = Some((numbers, uids));
        if cursor.next_in_list(false)? {
            return Err(cursor.expected("a closing parenthesis"));
        }
    }
    Ok(resync)
}

/// CREATE.
pub(super) fn create(cursor: &mut Cursor<'_>) -> Result<Command, ParseError> {
    let mailbox = cursor.spaced_mailbox()?;
    let mut uses = Vec::new();
    if cursor.has_more() {
        cursor.list(|cursor| {
            if !cursor.take_word("USE") {
                return Err(cursor.expected("USE"));
            }
            cursor.list(|cursor| {
                let one = special_use(cursor)?;
                if !uses.contains(&one) {
                    uses.push(one);
                }
                Ok(())
            })
        })?;
    }
    Ok(Command::Create(mailbox, uses))
}

/// RFC 6154 §6: any atom behind the backslash may become one.
fn special_use(cursor: &mut Cursor<'_>) -> Result<Option<SpecialUse>, ParseError> {
    cursor.require(b'\\', "a special use such as \\Sent")?;
    let name = cursor.atom("a special use such as \\Sent")?;
    let is_it = |one: &SpecialUse| one.as_str()[1..].eq_ignore_ascii_case(name);
    Ok(SpecialUse::ALL.into_iter().find(is_it))
}

/// STATUS.
pub(super) fn status(cursor: &mut Cursor<'_>) -> Result<Command, ParseError> {
    let mailbox = cursor.spaced_mailbox()?;
    Ok(Command::Status(mailbox, status_items(cursor)?))
}

/// What STATUS, alone or in LIST, is asked for.
pub(super) fn status_items(cursor: &mut Cursor<'_>) -> Result<Vec<StatusItem>, ParseError> {
    let mut items = Vec::new();
    let start = cursor.at();
    cursor.list(|cursor| {
        let start = cursor.at();
        let name = cursor.name("a STATUS item")?;
        let item = StatusItem::ALL
            .into_iter()
            .find(|item| item.as_str() == name)
            .ok_or_else(|| cursor.expected_from(start, "a STATUS item"))?;
        if !items.contains(&item) {
            items.push(item);
        }
        Ok(())
    })?;
    match items.is_empty() {
        true => Err(cursor.expected_from(start, "at least one STATUS item")),
        false => Ok(items),
    }
}
