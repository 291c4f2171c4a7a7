//! FETCH and the parts of a message it can name. RFC 9051 §6.4.5.

use serde::{Deserialize, Serialize};

use super::super::sequence::{Addressing, MessageSet, PartialRange};

/// FETCH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// How `set` is meant.
    pub by: Addressing,
    /// Which messages.
    pub set: MessageSet,
    /// What of them; each once, macros written out.
    pub items: Vec<FetchItem>,
    /// Only messages changed after this MODSEQ. RFC 7162 §3.1.4.
    pub changed_since: Option<u64>,
    /// Also tell what vanished since then. RFC 7162 §3.2.6.
    pub vanished: bool,
    /// Only this window of the messages named. RFC 9394.
    pub partial: Option<PartialRange>,
}

/// One thing to know of a message.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FetchItem {
    /// ENVELOPE.
    Envelope,
    /// FLAGS.
    Flags,
    /// INTERNALDATE.
    InternalDate,
    /// BODY: BODYSTRUCTURE without extension data.
    Body,
    /// BODYSTRUCTURE.
    BodyStructure,
    /// UID.
    Uid,
    /// MODSEQ, RFC 7162.
    ModSeq,
    /// RFC822.SIZE.
    Rfc822Size,
    /// RFC822: `BODY[]` by its old name.
    Rfc822,
    /// RFC822.HEADER: `BODY.PEEK[HEADER]` by its old name.
    Rfc822Header,
    /// RFC822.TEXT: `BODY[TEXT]` by its old name.
    Rfc822Text,
    /// `BODY[…]` and `BODY.PEEK[…]`.
    Section {
        /// Which part.
        section: Section,
        /// Whether `\Seen` stays as it is.
        peek: bool,
        /// Some octets of it only.
        window: Option<SectionWindow>,
    },
    /// `BINARY[…]` and `BINARY.PEEK[…]`: a part decoded. RFC 3516.
    Binary {
        /// Which part.
        part: PartPath,
        /// Whether `\Seen` stays as it is.
        peek: bool,
        /// Some octets of it only.
        window: Option<SectionWindow>,
    },
    /// `BINARY.SIZE[…]`.
    BinarySize(PartPath),
    /// EMAILID, RFC 8474.
    EmailId,
    /// THREADID.
    ThreadId,
    /// PREVIEW, RFC 8970.
    Preview {
        /// Only if it is at hand.
        lazy: bool,
    },
    /// SAVEDATE, RFC 8514.
    SaveDate,
}

/// What stands between the brackets of `BODY[…]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Section {
    /// The part; empty for the message itself.
    pub part: PartPath,
    /// What of the part.
    pub text: SectionText,
}

/// A part's numbers from the outside in, each from 1.
pub type PartPath = Vec<u32>;

/// What of a part is meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum SectionText {
    /// All of it.
    #[default]
    All,
    /// HEADER.
    Header,
    /// HEADER.FIELDS or HEADER.FIELDS.NOT.
    HeaderFields {
        /// Whether the fields are those left out.
        not: bool,
        /// Field names as sent; no control characters.
        names: Vec<String>,
    },
    /// TEXT.
    Text,
    /// MIME: the header of the part itself. Never without a part.
    Mime,
}

/// `<first.count>`: some octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SectionWindow {
    /// Offset of the first octet, from 0.
    pub first: u64,
    /// How many octets at most; positive.
    pub count: u64,
}

impl FetchItem {
    /// Whether fetching it sets `\Seen`.
    pub fn sets_seen(&self) -> bool {
        match self {
            Self::Rfc822 | Self::Rfc822Text => true,
            Self::Section { peek, .. } | Self::Binary { peek, .. } => !peek,
            _ => false,
        }
    }
}
