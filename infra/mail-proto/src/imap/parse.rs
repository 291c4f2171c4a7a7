//! Reads framed commands. RFC 3501 §9, RFC 9051 §9 and the extensions' grammars.
//!
//! No step depends on anything but the frame, each octet is looked at a bounded
//! number of times, and what is allocated is the values themselves: the strings,
//! eight octets for each range of a set, and as many keys and items as the limits
//! below allow. Lists within lists are counted, not recursed into.
//!
//! What is forgiven beyond the grammar stands in [`crate::quirks`]; everything
//! else is strict.

mod access;
mod cursor;
mod date;
mod error;
mod fetch;
mod list;
mod mailbox;
mod message;
mod notify;
mod search;
mod section;
mod session;
mod set;
mod sort;
mod store;

use super::command::{Command, MessageHead, MessageOptions, Tagged};
use super::framing::Frame;
use super::mailbox::NameForm;
use super::sequence::Addressing;
use cursor::Cursor;
pub use error::{BadCommand, ErrorKind, ParseError};

/// DESIGN, limits: IMAP nesting.
pub const NESTING_MAX: usize = 32;
/// DESIGN, limits: SEARCH keys; OR, NOT and parentheses aside, which they bound.
pub const SEARCH_KEYS_MAX: usize = 1000;
/// Items of one FETCH. Clients that ask for many parts one by one stay far below.
pub const FETCH_ITEMS_MAX: usize = 1000;
/// Numbers in a section: one more than messages may nest (DESIGN, limits: MIME depth).
pub const PART_DEPTH_MAX: usize = 101;
/// RFC 2971 §3.3.
pub const ID_FIELDS_MAX: usize = 30;

/// Reads a whole command.
///
/// # Errors
/// [`BadCommand`] with the tag, if there was one.
pub fn command(frame: &Frame, form: NameForm) -> Result<Tagged, BadCommand> {
    tagged(frame, form, |verb, by, cursor| {
        let command = verb_command(verb, by, cursor)?;
        if !matches!(command, Command::LoginAgain) {
            cursor.end()?;
        }
        Ok(command)
    })
}

/// Reads APPEND or REPLACE up to the message announced at the end.
///
/// # Errors
/// [`BadCommand`] with the tag, if there was one.
pub fn message_head(frame: &Frame, form: NameForm) -> Result<Tagged<MessageHead>, BadCommand> {
    tagged(frame, form, |verb, by, cursor| {
        if verb == "APPEND" && by == Addressing::Sequence {
            message::append(cursor).map(MessageHead::Append)
        } else if verb == "REPLACE" {
            message::replace(by, cursor).map(MessageHead::Replace)
        } else {
            Err(cursor.unknown())
        }
    })
}

/// Reads what stands between two messages of one APPEND. RFC 3502.
///
/// # Errors
/// [`ParseError`].
pub fn message_next(
    frame: &Frame,
    previous: &MessageOptions,
) -> Result<MessageOptions, ParseError> {
    message::next(&mut Cursor::new(frame, NameForm::Utf7), previous)
}

/// Reads what stands behind the last message.
///
/// # Errors
/// [`ParseError`].
pub fn message_end(frame: &Frame, last: &MessageOptions) -> Result<(), ParseError> {
    message::end(&mut Cursor::new(frame, NameForm::Utf7), last)
}

/// Whether a line ends IDLE. RFC 2177.
pub fn is_done(frame: &Frame) -> bool {
    frame
        .octets()
        .trim_ascii_end()
        .eq_ignore_ascii_case(b"DONE")
}

fn tagged<T>(
    frame: &Frame,
    form: NameForm,
    read: impl FnOnce(&str, Addressing, &mut Cursor<'_>) -> Result<T, ParseError>,
) -> Result<Tagged<T>, BadCommand> {
    let mut cursor = Cursor::new(frame, form);
    let tag = match cursor.tag() {
        Ok(tag) => tag.to_owned(),
        Err(error) => return Err(BadCommand { tag: None, error }),
    };
    let command = cursor.spaces().and_then(|()| {
        let mut verb = cursor.verb()?;
        let mut by = Addressing::Sequence;
        if verb == "UID" {
            cursor.spaces()?;
            verb = cursor.verb()?;
            by = Addressing::Uid;
        }
        read(&verb, by, &mut cursor)
    });
    match command {
        Ok(command) => Ok(Tagged { tag, command }),
        Err(error) => Err(BadCommand {
            tag: Some(tag),
            error,
        }),
    }
}

fn verb_command(
    verb: &str,
    by: Addressing,
    cursor: &mut Cursor<'_>,
) -> Result<Command, ParseError> {
    let uid = by == Addressing::Uid;
    Ok(match verb {
        "FETCH" => Command::Fetch(fetch::fetch(by, cursor)?),
        "STORE" => Command::Store(store::store(by, cursor)?),
        "SEARCH" => Command::Search(search::search(by, cursor)?),
        "SORT" => Command::Sort(sort::sort(by, cursor)?),
        "THREAD" => Command::Thread(sort::thread(by, cursor)?),
        "COPY" => {
            let (set, mailbox) = store::copy(cursor)?;
            Command::Copy(by, set, mailbox)
        }
        "MOVE" => {
            let (set, mailbox) = store::copy(cursor)?;
            Command::Move(by, set, mailbox)
        }
        "EXPUNGE" if uid => {
            cursor.spaces()?;
            Command::Expunge(Some(set::message_set(cursor)?))
        }
        // Their message is missing, or they would not be here.
        "APPEND" | "REPLACE" => return Err(cursor.expected_at_end("a literal with the message")),
        _ if uid => return Err(cursor.unknown()),
        "NOOP" => Command::Noop,
        "IDLE" => Command::Idle,
        "CAPABILITY" => Command::Capability,
        "LOGOUT" => Command::Logout,
        "STARTTLS" | "LOGIN" | "AUTHENTICATE" => Command::LoginAgain,
        "ID" => session::id(cursor)?,
        "ENABLE" => session::enable(cursor)?,
        "COMPRESS" => session::compress(cursor)?,
        "NOTIFY" => Command::Notify(notify::notify(cursor)?),
        "SELECT" => Command::Select(mailbox::select(cursor)?),
        "EXAMINE" => Command::Examine(mailbox::select(cursor)?),
        "CREATE" => mailbox::create(cursor)?,
        "DELETE" => Command::Delete(cursor.spaced_mailbox()?),
        "RENAME" => Command::Rename(cursor.spaced_mailbox()?, cursor.spaced_mailbox()?),
        "SUBSCRIBE" => Command::Subscribe(cursor.spaced_mailbox()?),
        "UNSUBSCRIBE" => Command::Unsubscribe(cursor.spaced_mailbox()?),
        "LIST" => Command::List(list::list(cursor)?),
        "LSUB" => list::lsub(cursor)?,
        "NAMESPACE" => Command::Namespace,
        "STATUS" => mailbox::status(cursor)?,
        "CHECK" => Command::Check,
        "CLOSE" => Command::Close,
        "UNSELECT" => Command::Unselect,
        "EXPUNGE" => Command::Expunge(None),
        "GETQUOTA" => access::get_quota(cursor)?,
        "GETQUOTAROOT" => Command::GetQuotaRoot(cursor.spaced_mailbox()?),
        "SETQUOTA" => access::set_quota(cursor)?,
        "GETACL" => Command::GetAcl(cursor.spaced_mailbox()?),
        "SETACL" => access::set_acl(cursor)?,
        "DELETEACL" => Command::DeleteAcl(cursor.spaced_mailbox()?, access::identifier(cursor)?),
        "LISTRIGHTS" => Command::ListRights(cursor.spaced_mailbox()?, access::identifier(cursor)?),
        "MYRIGHTS" => Command::MyRights(cursor.spaced_mailbox()?),
        "GETMETADATA" => access::get_metadata(cursor)?,
        "SETMETADATA" => access::set_metadata(cursor)?,
        _ => return Err(cursor.unknown()),
    })
}

#[cfg(test)]
mod tests;
