//! Flags and keywords, and the command that changes them. RFC 9051 §2.3.2, §6.4.6.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::super::chars::is_atom_char;
use super::super::sequence::{Addressing, MessageSet};

/// A flag that a client can set. `\Recent` is the server's alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Flag {
    /// `\Answered`.
    Answered,
    /// `\Deleted`.
    Deleted,
    /// `\Draft`.
    Draft,
    /// `\Flagged`.
    Flagged,
    /// `\Seen`.
    Seen,
    /// A word of the client's own, or a registered one such as `$Junk`.
    Keyword(Keyword),
}

/// A keyword: an atom, as sent. Clients may not tell two of them by case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Keyword(Box<str>);

/// STORE. RFC 9051 §6.4.6, RFC 7162 §3.1.3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// How `set` is meant.
    pub by: Addressing,
    /// Which messages.
    pub set: MessageSet,
    /// Messages changed after this MODSEQ are left alone.
    pub unchanged_since: Option<u64>,
    /// What to do with `flags`.
    pub action: StoreAction,
    /// Whether the client does without FETCH responses.
    pub silent: bool,
    /// The flags, each once.
    pub flags: Vec<Flag>,
}

/// What STORE does with its flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreAction {
    /// `FLAGS`.
    Replace,
    /// `+FLAGS`.
    Add,
    /// `-FLAGS`.
    Remove,
}

impl Keyword {
    /// A keyword, if this is an atom.
    pub fn new(word: &str) -> Option<Self> {
        let is_atom = !word.is_empty() && word.bytes().all(is_atom_char);
        is_atom.then(|| Self(word.into()))
    }

    /// As sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Flag {
    /// The five system flags.
    pub const SYSTEM: [Self; 5] = [
        Self::Answered,
        Self::Flagged,
        Self::Deleted,
        Self::Seen,
        Self::Draft,
    ];

    /// As written in FLAGS.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Answered => "\\Answered",
            Self::Deleted => "\\Deleted",
            Self::Draft => "\\Draft",
            Self::Flagged => "\\Flagged",
            Self::Seen => "\\Seen",
            Self::Keyword(keyword) => keyword.as_str(),
        }
    }

    /// The system flag of this name without its backslash, in any case.
    pub(crate) fn system(name: &[u8]) -> Option<Self> {
        Self::SYSTEM
            .into_iter()
            .find(|flag| flag.as_str().as_bytes()[1..].eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
