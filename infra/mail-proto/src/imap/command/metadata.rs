//! GETMETADATA and SETMETADATA. RFC 5464.

use super::super::mailbox::MailboxName;

/// GETMETADATA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetMetadata {
    /// Whose; `None` for the server's own.
    pub mailbox: Option<MailboxName>,
    /// Values over this many octets are not wanted.
    pub size_max_bytes: Option<u64>,
    /// How far below the entries named.
    pub depth: MetadataDepth,
    /// Entry names, beginning with `/`.
    pub entries: Vec<String>,
}

/// How far below an entry GETMETADATA looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MetadataDepth {
    /// Itself only.
    #[default]
    Zero,
    /// And its children.
    One,
    /// And all below.
    Infinity,
}

/// SETMETADATA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetMetadata {
    /// Whose; `None` for the server's own.
    pub mailbox: Option<MailboxName>,
    /// Entry names and values; `None` removes one.
    pub entries: Vec<(String, Option<Vec<u8>>)>,
}
