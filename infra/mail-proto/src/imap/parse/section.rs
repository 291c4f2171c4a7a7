//! What stands between the brackets of BODY and BINARY. RFC 9051 §6.4.5, RFC 3516.

use super::super::command::{PartPath, Section, SectionText, SectionWindow};
use super::PART_DEPTH_MAX;
use super::cursor::Cursor;
use super::error::ParseError;

/// `[…]` of BODY.
pub(super) fn section(cursor: &mut Cursor<'_>) -> Result<Section, ParseError> {
    cursor.require(b'[', "an opening bracket")?;
    cursor.optional_spaces();
    let part = part(cursor)?;
    let text = match cursor.peek() {
        Some(octet) if octet.is_ascii_alphabetic() => text(cursor, !part.is_empty())?,
        _ => SectionText::All,
    };
    close(cursor)?;
    Ok(Section { part, text })
}

/// `[…]` of BINARY: numbers only.
pub(super) fn binary(cursor: &mut Cursor<'_>) -> Result<PartPath, ParseError> {
    cursor.require(b'[', "an opening bracket")?;
    let part = part(cursor)?;
    close(cursor)?;
    Ok(part)
}

/// `<first.count>`, if it is there.
pub(super) fn window(cursor: &mut Cursor<'_>) -> Result<Option<SectionWindow>, ParseError> {
    if !cursor.take(b'<') {
        return Ok(None);
    }
    let first = cursor.number64("the first octet's offset")?;
    cursor.require(b'.', "a dot and the count of octets")?;
    let start = cursor.at();
    let count = cursor.number64("the count of octets")?;
    if count == 0 {
        return Err(cursor.expected_from(start, "a positive count of octets"));
    }
    cursor.require(b'>', "a closing angle bracket")?;
    Ok(Some(SectionWindow { first, count }))
}

fn close(cursor: &mut Cursor<'_>) -> Result<(), ParseError> {
    cursor.optional_spaces();
    cursor.require(b']', "a closing bracket")
}

/// Numbers with dots; the dot before a word is taken too.
fn part(cursor: &mut Cursor<'_>) -> Result<PartPath, ParseError> {
    let mut part = PartPath::new();
    while cursor.peek().is_some_and(|octet| octet.is_ascii_digit()) {
        if part.len() == PART_DEPTH_MAX {
            return Err(cursor.over_limit("a part that is not nested so deep"));
        }
        part.push(cursor.positive("a part number")?);
        if !cursor.take(b'.') {
            return Ok(part);
        }
        if !cursor
            .peek()
            .is_some_and(|octet| octet.is_ascii_alphanumeric())
        {
            return Err(cursor.expected("a part number or a word"));
        }
    }
    Ok(part)
}

fn text(cursor: &mut Cursor<'_>, has_part: bool) -> Result<SectionText, ParseError> {
    let start = cursor.at();
    // `1HEADER` without a dot is none.
    let word = cursor.name("HEADER, TEXT or MIME")?;
    let not = match word.as_ref() {
        "HEADER" => return Ok(SectionText::Header),
        "TEXT" => return Ok(SectionText::Text),
        "MIME" if has_part => return Ok(SectionText::Mime),
        "HEADER.FIELDS" => false,
        "HEADER.FIELDS.NOT" => true,
        _ => return Err(cursor.expected_from(start, "HEADER, TEXT or MIME")),
    };
    let mut names = Vec::new();
    cursor.list(|cursor| {
        let start = cursor.at();
        let name = cursor.astring_text("a header field's name")?;
        // A name that RFC 5322 does not know is in no header, and harmless in
        // the answer that repeats it; a line break is not harmless.
        if name.chars().any(char::is_control) {
            return Err(cursor.expected_from(start, "a header field's name"));
        }
        names.push(name);
        Ok(())
    })?;
    match names.is_empty() {
        true => Err(cursor.expected_from(start, "at least one header field's name")),
        false => Ok(SectionText::HeaderFields { not, names }),
    }
}
