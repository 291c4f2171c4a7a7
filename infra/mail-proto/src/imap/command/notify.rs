//! NOTIFY: what a session wants to hear of. RFC 5465.

use serde::{Deserialize, Serialize};

use super::super::mailbox::MailboxName;
use super::FetchItem;

/// A registration. Lives as long as the session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotifySet {
    /// Whether STATUS of every mailbox is wanted at once.
    pub status: bool,
    /// In the order sent. More than one may be about a mailbox: then of each what it wants (RFC 5465 §6).
    pub groups: Vec<NotifyGroup>,
}

/// Some mailboxes and what is wanted of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotifyGroup {
    /// Which mailboxes.
    pub filter: MailboxFilter,
    /// What of them; empty for NONE.
    pub events: Vec<NotifyEvent>,
}

/// Which mailboxes a group is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MailboxFilter {
    /// The selected one, told at once.
    Selected,
    /// The selected one, told when a command allows it.
    SelectedDelayed,
    /// Those that mail is delivered to.
    Inboxes,
    /// Those of the personal namespace.
    Personal,
    /// Subscribed ones.
    Subscribed,
    /// These and all below.
    Subtree(Vec<MailboxName>),
    /// These.
    Mailboxes(Vec<MailboxName>),
}

/// What can happen to a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotifyEvent {
    /// MessageNew, with what to fetch of it.
    MessageNew(Vec<FetchItem>),
    /// MessageExpunge.
    MessageExpunge,
    /// FlagChange.
    FlagChange,
    /// AnnotationChange.
    AnnotationChange,
    /// MailboxName: created, deleted, renamed.
    MailboxName,
    /// SubscriptionChange.
    SubscriptionChange,
    /// MailboxMetadataChange.
    MailboxMetadataChange,
    /// ServerMetadataChange.
    ServerMetadataChange,
}

impl MailboxFilter {
    /// Whether it is about the selected mailbox.
    pub fn is_selected(&self) -> bool {
        matches!(self, Self::Selected | Self::SelectedDelayed)
    }

    /// The names in it.
    pub(super) fn names(&mut self) -> impl Iterator<Item = &mut MailboxName> {
        let names = match self {
            Self::Subtree(names) | Self::Mailboxes(names) => names.as_mut_slice(),
            _ => &mut [],
        };
        names.iter_mut()
    }
}
