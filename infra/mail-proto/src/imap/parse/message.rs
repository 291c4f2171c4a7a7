//! What stands around streamed messages: APPEND and REPLACE. RFC 9051 §6.3.12,
//! RFC 3502, RFC 8508, RFC 6855 §4.

use super::super::command::{AppendHead, MessageOptions, ReplaceHead};
use super::super::sequence::Addressing;
use super::cursor::Cursor;
use super::error::ParseError;
use super::{date, store};

/// APPEND up to its first message.
pub(super) fn append(cursor: &mut Cursor<'_>) -> Result<AppendHead, ParseError> {
    Ok(AppendHead {
        mailbox: cursor.spaced_mailbox()?,
        options: options(cursor)?,
    })
}

/// REPLACE up to its message.
pub(super) fn replace(by: Addressing, cursor: &mut Cursor<'_>) -> Result<ReplaceHead, ParseError> {
    cursor.spaces()?;
    let number = match cursor.take(b'*') {
        true => None,
        false => Some(cursor.positive("a message number or *")?),
    };
    Ok(ReplaceHead {
        by,
        number,
        mailbox: cursor.spaced_mailbox()?,
        options: options(cursor)?,
    })
}

/// Between two messages.
pub(super) fn next(
    cursor: &mut Cursor<'_>,
    previous: &MessageOptions,
) -> Result<MessageOptions, ParseError> {
    close(cursor, previous)?;
    options(cursor)
}

/// Behind the last message.
pub(super) fn end(cursor: &mut Cursor<'_>, last: &MessageOptions) -> Result<(), ParseError> {
    close(cursor, last)?;
    cursor.end()
}

fn close(cursor: &mut Cursor<'_>, previous: &MessageOptions) -> Result<(), ParseError> {
    if previous.utf8 {
        cursor.optional_spaces();
        cursor.require(b')', "a closing parenthesis")?;
    }
    Ok(())
}

fn options(cursor: &mut Cursor<'_>) -> Result<MessageOptions, ParseError> {
    let mut options = MessageOptions::default();
    cursor.spaces_or_open()?;
    options.flags = store::flags_before(cursor)?;
    if cursor.peek() == Some(b'"') {
        options.internal_date = Some(date::date_time(cursor)?);
        cursor.optional_spaces();
    }
    if cursor.take_word("UTF8") {
        options.utf8 = true;
        cursor.open()?;
    }
    options.binary = cursor.message()?;
    Ok(options)
}
