//! LIST with everything it can select and return. RFC 5258, 5819, 6154, 8440.

use serde::{Deserialize, Serialize};

use super::StatusItem;

/// LIST.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct List {
    /// Which of the matching mailboxes.
    pub selection: ListSelection,
    /// The reference, in UTF-8.
    pub reference: String,
    /// Patterns with `%` and `*`, in UTF-8; an empty one asks for the delimiter.
    pub patterns: Vec<String>,
    /// What to say of each.
    pub returns: ListReturn,
    /// Whether any part of the extended syntax was used: then the answer is
    /// that of RFC 5258 (no special meaning of an empty pattern).
    pub extended: bool,
}

/// Which mailboxes LIST selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ListSelection {
    /// Subscribed ones, existing or not.
    pub subscribed: bool,
    /// Remote ones too.
    pub remote: bool,
    /// Parents of selected ones too.
    pub recursive_match: bool,
    /// Those with a special use.
    pub special_use: bool,
}

/// What LIST says of each mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListReturn {
    /// `\Subscribed`.
    pub subscribed: bool,
    /// `\HasChildren`, `\HasNoChildren`.
    pub children: bool,
    /// `\Sent` and its like.
    pub special_use: bool,
    /// A STATUS response with these. RFC 5819.
    pub status: Vec<StatusItem>,
    /// A MYRIGHTS response. RFC 8440.
    pub my_rights: bool,
}

/// What a mailbox is for. RFC 6154 §2, RFC 8457.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SpecialUse {
    /// `\All`.
    All,
    /// `\Archive`.
    Archive,
    /// `\Drafts`.
    Drafts,
    /// `\Flagged`.
    Flagged,
    /// `\Important`.
    Important,
    /// `\Junk`.
    Junk,
    /// `\Sent`.
    Sent,
    /// `\Trash`.
    Trash,
}

impl SpecialUse {
    /// Every one.
    pub const ALL: [Self; 8] = [
        Self::All,
        Self::Archive,
        Self::Drafts,
        Self::Flagged,
        Self::Important,
        Self::Junk,
        Self::Sent,
        Self::Trash,
    ];

    /// As written in LIST.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "\\All",
            Self::Archive => "\\Archive",
            Self::Drafts => "\\Drafts",
            Self::Flagged => "\\Flagged",
            Self::Important => "\\Important",
            Self::Junk => "\\Junk",
            Self::Sent => "\\Sent",
            Self::Trash => "\\Trash",
        }
    }
}
