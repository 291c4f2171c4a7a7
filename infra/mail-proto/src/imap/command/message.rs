//! What stands before a message that is streamed: APPEND and REPLACE.
//! RFC 9051 §6.3.12, RFC 3502, RFC 8508, RFC 6855 §4.

use super::super::mailbox::MailboxName;
use super::super::sequence::Addressing;
use super::{DateTime, Flag};

/// The head of the command whose first message comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageHead {
    /// APPEND; further messages may follow the first.
    Append(AppendHead),
    /// REPLACE.
    Replace(ReplaceHead),
}

/// APPEND up to its first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendHead {
    /// Where to.
    pub mailbox: MailboxName,
    /// Of the first message.
    pub options: MessageOptions,
}

/// REPLACE up to its message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplaceHead {
    /// How `number` is meant.
    pub by: Addressing,
    /// The message to be replaced; `None` for `*`, the last.
    pub number: Option<u32>,
    /// Where the new one goes.
    pub mailbox: MailboxName,
    /// Of the new one.
    pub options: MessageOptions,
}

/// What a message comes with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MessageOptions {
    /// Its flags, each once.
    pub flags: Vec<Flag>,
    /// Its internal date; the server's clock when absent.
    pub internal_date: Option<DateTime>,
    /// Whether it stands in `UTF8 (…)`, so that its header may be UTF-8.
    pub utf8: bool,
    /// Whether it may hold NUL: `~{…}`. RFC 3516.
    pub binary: bool,
}
