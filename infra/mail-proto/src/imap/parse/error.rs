//! Why a command could not be read.

use thiserror::Error;

/// A command that could not be read, and the tag its BAD carries.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("failed to read a command")]
pub struct BadCommand {
    /// None if not even that could be read: the answer is untagged.
    pub tag: Option<String>,
    /// What is wrong.
    #[source]
    pub error: ParseError,
}

/// What was expected where. The text is fixed and has nothing of the input, so
/// that it is safe both for the log and for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("expected {expected} at octet {at}")]
pub struct ParseError {
    /// Offset in the frame.
    pub at: usize,
    /// What should stand there.
    pub expected: &'static str,
    /// Which kind of answer it deserves.
    pub kind: ErrorKind,
}

/// Sorts errors by what a session does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// BAD: the grammar was not obeyed.
    Syntax,
    /// BAD: no such command.
    Unknown,
    /// BAD with `[LIMIT]` or `[TOOBIG]`: more than is allowed of something.
    Limit,
    /// NO with `[CANNOT]`: the grammar was obeyed, but no mailbox can have such a name.
    Name,
    /// NO with `[BADEVENT]`: an event of NOTIFY that we do not know. RFC 5465 §5.
    BadEvent,
}

impl ParseError {
    /// What the client is told behind BAD.
    pub fn text(&self) -> String {
        match self.kind {
            ErrorKind::Unknown => "unknown command".to_owned(),
            _ => self.to_string(),
        }
    }
}
