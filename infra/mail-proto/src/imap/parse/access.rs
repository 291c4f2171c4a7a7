//! QUOTA, ACL and METADATA. RFC 9208, RFC 4314, RFC 5464.

use super::super::command::{
    Command, GetMetadata, MetadataDepth, Rights, RightsChange, SetMetadata,
};
use super::cursor::Cursor;
use super::error::ParseError;

/// GETQUOTA.
pub(super) fn get_quota(cursor: &mut Cursor<'_>) -> Result<Command, ParseError> {
    cursor.spaces()?;
    Ok(Command::GetQuota(cursor.astring_text("a quota root")?))
}

/// SETQUOTA.
pub(super) fn set_quota(cursor: &mut Cursor<'_>) -> Result<Command, ParseError> {
    cursor.spaces()?;
    let root = cursor.astring_text("a quota root")?;
    let mut limits = Vec::new();
    cursor.list(|cursor| {
        let name = cursor
            .atom("a resource such as STORAGE")?
            .to_ascii_uppercase();
        cursor.spaces()?;
        limits.push((name, cursor.number64("a limit")?));
        Ok(())
    })?;
    Ok(Command::SetQuota(root, limits))
}

/// Spaces and whom rights are for.
pub(super) fn identifier(cursor: &mut Cursor<'_>) -> Result<String, ParseError> {
    cursor.spaces()?;
    cursor.astring_text("an identifier")
}

/// SETACL.
pub(super) fn set_acl(cursor: &mut Cursor<'_>) -> Result<Command, ParseError> {
    let mailbox = cursor.spaced_mailbox()?;
    let identifier = identifier(cursor)?;
    cursor.spaces()?;
    let start = cursor.at();
    let text = cursor.astring_text("rights")?;
    let (change, letters): (fn(Rights) -> RightsChange, &str) = match text.as_bytes().first() {
        Some(b'+') => (RightsChange::Add, &text[1..]),
        Some(b'-') => (RightsChange::Remove, &text[1..]),
        _ => (RightsChange::Replace, &text),
    };
    let rights = Rights::new(letters).ok_or_else(|| cursor.expected_from(start, "rights"))?;
    Ok(Command::SetAcl(mailbox, identifier, change(rights)))
}

/// GETMETADATA.
pub(super) fn get_metadata(cursor: &mut Cursor<'_>) -> Result<Command, ParseError> {
    let mut get = GetMetadata {
        mailbox: None,
        size_max_bytes: None,
        depth: MetadataDepth::Zero,
        entries: Vec::new(),
    };
    cursor.spaces_or_open()?;
    let has_options = cursor.peek() == Some(b'(');
    if has_options {
        cursor.list(|cursor| option(&mut get, cursor))?;
        cursor.spaces()?;
    }
    get.mailbox = cursor.mailbox_or_server()?;
    cursor.spaces_or_open()?;
    // Where the RFC's examples have the options. They are told from entries by
    // the slash that those begin with.
    if cursor.peek() == Some(b'(') && !has_options {
        let start = cursor.at();
        cursor.open()?;
        let is_option = cursor
            .peek()
            .is_some_and(|octet| octet.is_ascii_alphabetic());
        cursor.back_to(start);
        if is_option {
            cursor.list(|cursor| option(&mut get, cursor))?;
            cursor.spaces_or_open()?;
        }
    }
    if cursor.peek() == Some(b'(') {
        let start = cursor.at();
        cursor.list(|cursor| {
            get.entries.push(entry(cursor)?);
            Ok(())
        })?;
        if get.entries.is_empty() {
            return Err(cursor.expected_from(start, "at least one entry"));
        }
    } else {
        get.entries.push(entry(cursor)?);
        // As in the RFC's examples (§4.4.1).
        while cursor.has_more() {
            get.entries.push(entry(cursor)?);
        }
    }
    Ok(Command::GetMetadata(get))
}

/// SETMETADATA.
pub(super) fn set_metadata(cursor: &mut Cursor<'_>) -> Result<Command, ParseError> {
    cursor.spaces()?;
    let mailbox = cursor.mailbox_or_server()?;
    let mut entries = Vec::new();
    let start = cursor.at();
    cursor.list(|cursor| {
        let name = entry(cursor)?;
        cursor.spaces()?;
        let value = match cursor.take_word("NIL") {
            true => None,
            false => Some(cursor.string8("a value or NIL")?.into_owned()),
        };
        entries.push((name, value));
        Ok(())
    })?;
    match entries.is_empty() {
        true => Err(cursor.expected_from(start, "at least one entry")),
        false => Ok(Command::SetMetadata(SetMetadata { mailbox, entries })),
    }
}

fn option(get: &mut GetMetadata, cursor: &mut Cursor<'_>) -> Result<(), ParseError> {
    let start = cursor.at();
    match cursor.name("MAXSIZE or DEPTH")?.as_ref() {
        "MAXSIZE" => {
            cursor.spaces()?;
            get.size_max_bytes = Some(cursor.number64("a count of octets")?);
        }
        "DEPTH" => {
            cursor.spaces()?;
            get.depth = if cursor.take_word("0") {
                MetadataDepth::Zero
            } else if cursor.take_word("1") {
                MetadataDepth::One
            } else if cursor.take_word("infinity") {
                MetadataDepth::Infinity
            } else {
                return Err(cursor.expected("0, 1 or infinity"));
            };
        }
        _ => return Err(cursor.expected_from(start, "MAXSIZE or DEPTH")),
    }
    Ok(())
}

/// RFC 5464 §3.2.
fn entry(cursor: &mut Cursor<'_>) -> Result<String, ParseError> {
    const EXPECTED: &str = "an entry name such as /private/comment";
    let start = cursor.at();
    let name = cursor.astring_text(EXPECTED)?;
    let is_name = name.starts_with('/')
        && !name.ends_with('/')
        && !name.contains("//")
        && name
            .bytes()
            .all(|octet| (b' '..=b'~').contains(&octet) && !matches!(octet, b'*' | b'%'));
    match is_name {
        true => Ok(name),
        false => Err(cursor.expected_from(start, EXPECTED)),
    }
}
