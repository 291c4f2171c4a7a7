//! Writes responses. RFC 9051 §7 and the extensions named at each.
//!
//! Whatever a value holds, the stream stays whole: strings choose for themselves
//! between quoted and literal, texts lose their control characters, and nothing
//! that came from a client or a message is ever written as it is.

mod access;
mod code;
mod fetch;
mod mailbox;
mod search;
mod string;

pub use code::Code;
pub use fetch::FetchWriter;
pub use mailbox::{ListResponse, Namespace, StatusValue};
pub use search::{Numbers, SearchResult, ThreadEntry};
pub use string::{astring, literal_head, nstring, nstring8, string};

pub use crate::output::number;

use super::command::Flag;
use super::mailbox::{MailboxName, NameForm};
use super::sequence::SequenceSet;

/// Adds responses to a buffer.
#[derive(Debug)]
pub struct Encoder<'o> {
    out: &'o mut Vec<u8>,
    form: NameForm,
}

/// How a command or the connection fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// OK.
    Ok,
    /// NO.
    No,
    /// BAD.
    Bad,
    /// BYE; never tagged.
    Bye,
}

impl Condition {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::No => "NO",
            Self::Bad => "BAD",
            Self::Bye => "BYE",
        }
    }
}

impl<'o> Encoder<'o> {
    /// Writes behind what the buffer has. `form` is [`Enabled::utf8`]'s answer.
    ///
    /// [`Enabled::utf8`]: super::capability::Enabled::utf8
    pub fn new(out: &'o mut Vec<u8>, form: NameForm) -> Self {
        Self { out, form }
    }

    /// The answer that ends a command.
    pub fn tagged(&mut self, tag: &str, condition: Condition, code: Option<&Code<'_>>, text: &str) {
        self.text(tag);
        self.condition(condition, code, text);
    }

    /// A condition that ends nothing.
    pub fn untagged(&mut self, condition: Condition, code: Option<&Code<'_>>, text: &str) {
        self.out.push(b'*');
        self.condition(condition, code, text);
    }

    /// The go-ahead for a literal, IDLE's answer.
    pub fn continuation(&mut self, text: &str) {
        self.out.extend_from_slice(b"+ ");
        self.text(text);
        self.end();
    }

    /// `* n EXISTS`.
    pub fn exists(&mut self, count: u32) {
        self.counted(count, "EXISTS");
    }

    /// `* n RECENT`, of IMAP4rev1.
    pub fn recent(&mut self, count: u32) {
        self.counted(count, "RECENT");
    }

    /// `* n EXPUNGE`.
    pub fn expunge(&mut self, sequence: u32) {
        self.counted(sequence, "EXPUNGE");
    }

    /// VANISHED, of QRESYNC and UIDONLY. Nothing when there is no UID.
    pub fn vanished(&mut self, earlier: bool, uids: &SequenceSet) {
        if !uids.is_empty() {
            self.out.extend_from_slice(match earlier {
                true => b"* VANISHED (EARLIER) ",
                false => b"* VANISHED ",
            });
            uids.encode(self.out);
            self.end();
        }
    }

    /// FLAGS: what the mailbox can hold.
    pub fn flags<'f>(&mut self, flags: impl IntoIterator<Item = &'f Flag>) {
        self.out.extend_from_slice(b"* FLAGS ");
        string::flag_list(self.out, flags, false);
        self.end();
    }

    /// CAPABILITY.
    pub fn capability<'c>(&mut self, names: impl IntoIterator<Item = &'c str>) {
        self.words("* CAPABILITY", names);
    }

    /// ENABLED.
    pub fn enabled<'c>(&mut self, names: impl IntoIterator<Item = &'c str>) {
        self.words("* ENABLED", names);
    }

    fn condition(&mut self, condition: Condition, code: Option<&Code<'_>>, text: &str) {
        self.out.push(b' ');
        self.out.extend_from_slice(condition.as_str().as_bytes());
        self.out.push(b' ');
        if let Some(code) = code {
            self.out.push(b'[');
            code.encode(self.out);
            self.out.extend_from_slice(b"] ");
        }
        self.text(text);
        self.end();
    }

    /// `text`, which must not be empty. Made safe: no caller needs to think of it.
    fn text(&mut self, text: &str) {
        let safe = |octet: u8| {
            if (b' '..=b'~').contains(&octet) {
                octet
            } else {
                b'?'
            }
        };
        match text {
            "" => self.out.push(b'.'),
            text => self.out.extend(text.bytes().map(safe)),
        }
    }

    fn counted(&mut self, count: u32, what: &str) {
        self.out.extend_from_slice(b"* ");
        number(self.out, count.into());
        self.out.push(b' ');
        self.out.extend_from_slice(what.as_bytes());
        self.end();
    }

    fn words<'c>(&mut self, first: &str, words: impl IntoIterator<Item = &'c str>) {
        self.out.extend_from_slice(first.as_bytes());
        for word in words {
            self.out.push(b' ');
            self.text(word);
        }
        self.end();
    }

    fn name(&mut self, name: &MailboxName) {
        astring(self.out, name.encode(self.form).as_bytes(), self.form);
    }

    fn end(&mut self) {
        self.out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests;
