//! SELECT, EXAMINE and STATUS. RFC 9051 §6.3.2, §6.3.11; RFC 7162 §3.2.5.

use serde::{Deserialize, Serialize};

use super::super::mailbox::MailboxName;
use super::super::sequence::SequenceSet;

/// SELECT or EXAMINE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Select {
    /// Which.
    pub mailbox: MailboxName,
    /// The CONDSTORE parameter.
    pub condstore: bool,
    /// The QRESYNC parameter.
    pub resync: Option<QuickResync>,
}

/// What a client knows of a mailbox it had selected before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuickResync {
    /// UIDVALIDITY it knows.
    pub uid_validity: u32,
    /// HIGHESTMODSEQ it knows.
    pub modseq: u64,
    /// UIDs it knows; without `*`. All, when absent.
    pub known_uids: Option<SequenceSet>,
    /// Some sequence numbers and the UIDs they had; both of one size.
    pub known_pairs: Option<(SequenceSet, SequenceSet)>,
}

/// What STATUS can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StatusItem {
    /// MESSAGES.
    Messages,
    /// RECENT, of IMAP4rev1.
    Recent,
    /// UIDNEXT.
    UidNext,
    /// UIDVALIDITY.
    UidValidity,
    /// UNSEEN: how many.
    Unseen,
    /// DELETED: how many.
    Deleted,
    /// DELETED-STORAGE: their octets. RFC 9208.
    DeletedStorage,
    /// SIZE: octets of all. RFC 8438.
    Size,
    /// HIGHESTMODSEQ, RFC 7162.
    HighestModSeq,
    /// APPENDLIMIT, RFC 7889.
    AppendLimit,
    /// MAILBOXID, RFC 8474.
    MailboxId,
}

impl StatusItem {
    /// Every one.
    pub const ALL: [Self; 11] = [
        Self::Messages,
        Self::Recent,
        Self::UidNext,
        Self::UidValidity,
        Self::Unseen,
        Self::Deleted,
        Self::DeletedStorage,
        Self::Size,
        Self::HighestModSeq,
        Self::AppendLimit,
        Self::MailboxId,
    ];

    /// As written in STATUS.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Messages => "MESSAGES",
            Self::Recent => "RECENT",
            Self::UidNext => "UIDNEXT",
            Self::UidValidity => "UIDVALIDITY",
            Self::Unseen => "UNSEEN",
            Self::Deleted => "DELETED",
            Self::DeletedStorage => "DELETED-STORAGE",
            Self::Size => "SIZE",
            Self::HighestModSeq => "HIGHESTMODSEQ",
            Self::AppendLimit => "APPENDLIMIT",
            Self::MailboxId => "MAILBOXID",
        }
    }
}
