//! Commands about the session itself. RFC 2971, RFC 4978, RFC 5161.

use super::super::capability::Enable;
use super::super::command::Command;
use super::ID_FIELDS_MAX;
use super::cursor::Cursor;
use super::error::ParseError;

/// ID.
pub(super) fn id(cursor: &mut Cursor<'_>) -> Result<Command, ParseError> {
    let mut fields = Vec::new();
    if !cursor.has_more() || cursor.take_word("NIL") {
        return Ok(Command::Id(fields));
    }
    cursor.list(|cursor| {
        if fields.len() == ID_FIELDS_MAX {
            return Err(cursor.over_limit("at most 30 fields"));
        }
        // What a client says of itself goes to logs: no control characters,
        // whatever its charset.
        let name = shown(&cursor.string("a field's name")?);
        cursor.spaces()?;
        let value = match cursor.take_word("NIL") {
            true => None,
            false => Some(shown(&cursor.string("a field's value")?)),
        };
        fields.push((name, value));
        Ok(())
    })?;
    Ok(Command::Id(fields))
}

/// ENABLE.
pub(super) fn enable(cursor: &mut Cursor<'_>) -> Result<Command, ParseError> {
    let mut known = Vec::new();
    cursor.spaces()?;
    loop {
        let name = cursor.atom("a capability")?;
        if let Some(one) = Enable::from_name(name.as_bytes())
            && !known.contains(&one)
        {
            known.push(one);
        }
        if !cursor.has_more() {
            return Ok(Command::Enable(known));
        }
    }
}

/// COMPRESS.
pub(super) fn compress(cursor: &mut Cursor<'_>) -> Result<Command, ParseError> {
    cursor.spaces()?;
    match cursor.take_word("DEFLATE") {
        true => Ok(Command::Compress),
        false => Err(cursor.expected("DEFLATE")),
    }
}

fn shown(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).replace(char::is_control, "?")
}
