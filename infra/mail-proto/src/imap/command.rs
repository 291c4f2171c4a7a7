//! Commands of the authenticated and selected states, as values.
//! RFC 9051 §6, and the extensions named at each.
//!
//! Values own what they hold, so that a verb can take them to another thread.
//! What a session keeps between commands (sets, names, items, NOTIFY's
//! registration) can be serialised, so that a session can be handed over.

mod acl;
mod date;
mod fetch;
mod flag;
mod list;
mod mailbox;
mod message;
mod metadata;
mod notify;
mod search;

pub use acl::{Rights, RightsChange};
pub(super) use date::MONTHS;
pub use date::{Date, DateTime};
pub use fetch::{Fetch, FetchItem, PartPath, Section, SectionText, SectionWindow};
pub use flag::{Flag, Keyword, Store, StoreAction};
pub use list::{List, ListReturn, ListSelection, SpecialUse};
pub use mailbox::{QuickResync, Select, StatusItem};
pub use message::{AppendHead, MessageHead, MessageOptions, ReplaceHead};
pub use metadata::{GetMetadata, MetadataDepth, SetMetadata};
pub use notify::{MailboxFilter, NotifyEvent, NotifyGroup, NotifySet};
pub use search::{
    DateField, DateTest, ReturnOptions, Search, SearchKey, Sort, SortCriterion, SortKey, Thread,
    ThreadAlgorithm,
};

use super::capability::Enable;
use super::mailbox::MailboxName;
use super::sequence::{Addressing, MessageSet, SequenceSet};

/// A command and the tag that its answer carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagged<T = Command> {
    /// As sent.
    pub tag: String,
    /// The rest.
    pub command: T,
}

/// One command. APPEND and REPLACE are not here: their message is streamed,
/// see [`AppendHead`] and [`ReplaceHead`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// CAPABILITY.
    Capability,
    /// NOOP.
    Noop,
    /// LOGOUT.
    Logout,
    /// STARTTLS, LOGIN or AUTHENTICATE: known, but too late. Arguments unread.
    LoginAgain,
    /// ID, RFC 2971: what the client says of itself; empty for NIL.
    Id(Vec<(String, Option<String>)>),
    /// ENABLE, RFC 5161: those that we know; the others are ignored.
    Enable(Vec<Enable>),
    /// COMPRESS DEFLATE, RFC 4978.
    Compress,
    /// IDLE, RFC 2177. Ends with a line of its own, see [`super::framing`].
    Idle,
    /// NOTIFY, RFC 5465. `None` for NOTIFY NONE.
    Notify(Option<NotifySet>),
    /// SELECT.
    Select(Select),
    /// EXAMINE.
    Examine(Select),
    /// CREATE with what the mailbox is for, RFC 6154; none for a use that is not known here.
    Create(MailboxName, Vec<Option<SpecialUse>>),
    /// DELETE.
    Delete(MailboxName),
    /// RENAME from the first name to the second.
    Rename(MailboxName, MailboxName),
    /// SUBSCRIBE.
    Subscribe(MailboxName),
    /// UNSUBSCRIBE.
    Unsubscribe(MailboxName),
    /// LIST, with LIST-EXTENDED.
    List(List),
    /// LSUB: reference and pattern.
    Lsub(String, String),
    /// NAMESPACE, RFC 2342.
    Namespace,
    /// STATUS.
    Status(MailboxName, Vec<StatusItem>),
    /// CHECK, of IMAP4rev1.
    Check,
    /// CLOSE.
    Close,
    /// UNSELECT, RFC 3691.
    Unselect,
    /// EXPUNGE, or UID EXPUNGE of some, RFC 4315.
    Expunge(Option<MessageSet>),
    /// SEARCH.
    Search(Search),
    /// SORT, RFC 5256.
    Sort(Sort),
    /// THREAD, RFC 5256.
    Thread(Thread),
    /// FETCH.
    Fetch(Fetch),
    /// STORE.
    Store(Store),
    /// COPY.
    Copy(Addressing, MessageSet, MailboxName),
    /// MOVE, RFC 6851.
    Move(Addressing, MessageSet, MailboxName),
    /// GETQUOTA of a quota root, RFC 9208.
    GetQuota(String),
    /// GETQUOTAROOT.
    GetQuotaRoot(MailboxName),
    /// SETQUOTA: root, then resource names in capitals with their limits.
    SetQuota(String, Vec<(String, u64)>),
    /// GETACL, RFC 4314.
    GetAcl(MailboxName),
    /// SETACL: whose rights change how.
    SetAcl(MailboxName, String, RightsChange),
    /// DELETEACL.
    DeleteAcl(MailboxName, String),
    /// LISTRIGHTS.
    ListRights(MailboxName, String),
    /// MYRIGHTS.
    MyRights(MailboxName),
    /// GETMETADATA, RFC 5464.
    GetMetadata(GetMetadata),
    /// SETMETADATA.
    SetMetadata(SetMetadata),
}

impl Command {
    /// The names of mailboxes in it, as sent: what they stand for is the server's to find. LIST's patterns are none.
    pub fn mailbox_names(&mut self) -> Vec<&mut MailboxName> {
        match self {
            Self::Select(Select { mailbox, .. }) | Self::Examine(Select { mailbox, .. }) => {
                vec![mailbox]
            }
            Self::Rename(from, to) => vec![from, to],
            Self::Create(name, _)
            | Self::Delete(name)
            | Self::Subscribe(name)
            | Self::Unsubscribe(name)
            | Self::Status(name, _)
            | Self::Copy(_, _, name)
            | Self::Move(_, _, name)
            | Self::GetQuotaRoot(name)
            | Self::GetAcl(name)
            | Self::SetAcl(name, ..)
            | Self::DeleteAcl(name, _)
            | Self::ListRights(name, _)
            | Self::MyRights(name) => vec![name],
            Self::GetMetadata(GetMetadata { mailbox, .. })
            | Self::SetMetadata(SetMetadata { mailbox, .. }) => mailbox.iter_mut().collect(),
            Self::Notify(Some(set)) => {
                let filters = set.groups.iter_mut().map(|group| &mut group.filter);
                filters.flat_map(MailboxFilter::names).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Whether it names messages by sequence number anywhere, search keys
    /// included; then UIDONLY refuses it. RFC 9586 §3.
    pub fn uses_sequence_numbers(&self) -> bool {
        match self {
            Self::Search(search) => is_plain(search.by) || search.keys.has_sequence(),
            Self::Sort(sort) => is_plain(sort.by) || sort.keys.has_sequence(),
            Self::Thread(thread) => is_plain(thread.by) || thread.keys.has_sequence(),
            Self::Fetch(fetch) => is_plain(fetch.by),
            Self::Store(store) => is_plain(store.by),
            Self::Copy(by, ..) | Self::Move(by, ..) => is_plain(*by),
            Self::Select(select) | Self::Examine(select) => select
                .resync
                .as_ref()
                .is_some_and(|resync| resync.known_pairs.is_some()),
            _ => false,
        }
    }
}

fn is_plain(by: Addressing) -> bool {
    by == Addressing::Sequence
}

impl From<SequenceSet> for MessageSet {
    fn from(set: SequenceSet) -> Self {
        Self::Numbers(set)
    }
}
