//! What a session has asked to hear of, and what it was last told of it.

use std::collections::{BTreeMap, BTreeSet};

use directory_api::AccountId;
use mail_proto::imap::command::{FetchItem, MailboxFilter, NotifyEvent, NotifyGroup};
use serde::{Deserialize, Serialize};

use super::super::list::{Entry, Names};
use super::super::place::is_others;
use super::super::state::Selected;
use crate::volume::{MailboxId, MailboxInfo};

/// What NOTIFY has registered. Nothing at all after NOTIFY NONE.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Registration {
    groups: Vec<NotifyGroup>,
    /// The mailboxes that are watched, by number.
    known: Vec<Known>,
    /// Others whose mailboxes may be seen: any of these may get a name that is watched.
    others: BTreeSet<AccountId>,
    /// None of the user's own mailboxes that there were had this number or a higher one.
    next: u32,
    /// The names subscribed, if that matters.
    subscribed: BTreeSet<String>,
    /// The annotations, if that matters.
    annotations: BTreeSet<Annotation>,
}

/// A mailbox: whose, and its number there; 0 for the server, whose annotations stand with the user's own.
pub(in super::super) type Of = (AccountId, u32);

/// An annotation: of what; its entry; a hash of its value.
pub(super) type Annotation = (Of, String, u64);

/// A mailbox as the client was last told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    of: Of,
    uidnext: u32,
    message_count: u64,
    /// `None` if it was changed by the session itself: then what it is, is known.
    unseen_count: Option<u64>,
    modseq: u64,
    /// Empty if nobody asks for names.
    name: Box<str>,
}

/// What is wanted of one mailbox that is not selected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Wanted {
    pub(super) messages: bool,
    pub(super) flags: bool,
    pub(super) name: bool,
    pub(super) subscription: bool,
    pub(super) annotations: bool,
}

/// What is wanted of the selected mailbox.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Hears<'a> {
    /// EXISTS, EXPUNGE.
    pub(in super::super) messages: bool,
    /// FETCH with flags.
    pub(in super::super) flags: bool,
    /// EXPUNGE at any time.
    pub(in super::super) at_once: bool,
    /// What is fetched of each new message.
    pub(in super::super) items: &'a [FetchItem],
}

impl Default for Hears<'_> {
    /// Without NOTIFY.
    fn default() -> Self {
        Self {
            messages: true,
            flags: true,
            at_once: false,
            items: &[],
        }
    }
}

/// What has rung and was not looked at.
#[derive(Debug, Default)]
pub(in super::super) struct News {
    /// Mailboxes, names, subscriptions; or it is not known what.
    pub(in super::super) list: bool,
    pub(in super::super) annotations: bool,
    pub(in super::super) mailboxes: BTreeSet<(AccountId, MailboxId)>,
}

/// How names have changed.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) made: Vec<String>,
    pub(super) deleted: Vec<String>,
    /// From, to.
    pub(super) renamed: Vec<(String, String)>,
    /// Subscribed, or not any more.
    pub(super) subscribed: Vec<String>,
}

impl Registration {
    /// With everything known as it is now.
    pub(super) fn new(account: AccountId, groups: Vec<NotifyGroup>, names: &Names) -> Self {
        let mailboxes = names.values().filter_map(Entry::readable);
        let own = mailboxes.filter(|(owner, _)| *owner == account);
        let mut registration = Self {
            groups,
            next: own.map(|(_, one)| one.mailbox.0 + 1).max().unwrap_or(0),
            ..Self::default()
        };
        registration.follow(account, names, &[], true);
        registration
    }

    pub(super) fn groups(&self) -> &[NotifyGroup] {
        &self.groups
    }

    /// Whether it is about any mailbox but the selected one.
    pub(in super::super) fn has_others(&self) -> bool {
        self.groups.iter().any(|group| !group.filter.is_selected())
    }

    /// Whether it may be about mailboxes of others.
    pub(super) fn has_shared(groups: &[NotifyGroup]) -> bool {
        groups.iter().any(|group| match &group.filter {
            MailboxFilter::Subscribed => true,
            MailboxFilter::Mailboxes(names) | MailboxFilter::Subtree(names) => {
                names.iter().any(|name| is_others(name.as_str()))
            }
            _ => false,
        })
    }

    pub(in super::super) fn others(&self) -> &BTreeSet<AccountId> {
        &self.others
    }

    /// What must not grow without limit, for it lives as long as the session.
    pub(super) fn is_too_large(&self) -> bool {
        let names = self.known.iter().map(|known| known.name.len());
        let octets = names
            .chain(self.subscribed.iter().map(String::len))
            .chain(self.annotations.iter().map(|(_, entry, _)| entry.len()));
        self.known.len() > WATCHED_MAX
            || self.others.len() > WATCHED_MAX
            || octets.sum::<usize>() > NAMES_MAX_OCTETS
    }

    /// Whether it is about annotations of the server.
    pub(super) fn has_server(&self) -> bool {
        let mut events = self.groups.iter().flat_map(|group| &group.events);
        events.any(|event| *event == NotifyEvent::ServerMetadataChange)
    }

    /// Takes in the annotations there are; of what and which entries are other now.
    pub(super) fn annotate(&mut self, now: BTreeSet<Annotation>) -> BTreeSet<(Of, String)> {
        let differing = now.symmetric_difference(&self.annotations);
        let entry = |one: &Annotation| (one.0, one.1.clone());
        let differing = differing.map(entry).collect();
        self.annotations = now;
        differing
    }

    pub(super) fn is_subscribed(&self, name: &str) -> bool {
        self.subscribed.contains(name)
    }

    pub(super) fn hears(&self) -> Hears<'_> {
        let mut selected = self.groups.iter().filter(|one| one.filter.is_selected());
        let Some(group) = selected.next() else {
            return Hears {
                messages: false,
                flags: false,
                ..Hears::default()
            };
        };
        Hears {
            // The grammar takes it only together with MessageNew.
            messages: group.events.contains(&NotifyEvent::MessageExpunge),
            flags: group.events.contains(&NotifyEvent::FlagChange),
            at_once: group.filter == MailboxFilter::Selected,
            items: super::items(&self.groups),
        }
    }

    /// More than one group may be about a mailbox: everything that any of them wants (RFC 5465 §6).
    pub(super) fn wanted(&self, name: &str, is_subscribed: bool) -> Wanted {
        let mut wanted = Wanted::default();
        for group in &self.groups {
            if super::covers(&group.filter, name, is_subscribed) {
                for event in &group.events {
                    match event {
                        NotifyEvent::MessageNew(_) | NotifyEvent::MessageExpunge => {
                            wanted.messages = true;
                        }
                        NotifyEvent::FlagChange => wanted.flags = true,
                        NotifyEvent::MailboxName => wanted.name = true,
                        NotifyEvent::SubscriptionChange => wanted.subscription = true,
                        NotifyEvent::MailboxMetadataChange => wanted.annotations = true,
                        // Of no mailbox, and refused.
                        NotifyEvent::ServerMetadataChange | NotifyEvent::AnnotationChange => {}
                    }
                }
            }
        }
        wanted
    }

    fn place_of(&self, of: Of) -> Option<usize> {
        self.known.binary_search_by_key(&of, |known| known.of).ok()
    }

    fn of(&mut self, account: AccountId, mailbox: MailboxId) -> Option<&mut Known> {
        let place = self.place_of((account, mailbox.0));
        place.map(|place| &mut self.known[place])
    }

    pub(in super::super) fn watches(&self, account: AccountId, mailbox: MailboxId) -> bool {
        self.place_of((account, mailbox.0)).is_some()
    }

    /// Takes in what a mailbox is; whether the client must be told of it.
    pub(super) fn meet(
        &mut self,
        account: AccountId,
        now: &MailboxInfo,
        wanted: Wanted,
        condstore: bool,
    ) -> bool {
        let Some(known) = self.of(account, now.mailbox) else {
            return false;
        };
        let has_other_messages =
            (known.uidnext, known.message_count) != (now.uidnext, now.message_count);
        let has_other_flags = match known.unseen_count {
            Some(unseen) if !condstore => unseen != now.unseen_count,
            _ => known.modseq != now.highestmodseq,
        };
        known.uidnext = now.uidnext;
        known.message_count = now.message_count;
        known.unseen_count = Some(now.unseen_count);
        known.modseq = now.highestmodseq;
        wanted.messages && has_other_messages || wanted.flags && has_other_flags
    }

    /// The session has added messages itself.
    pub(super) fn made(
        &mut self,
        (account, mailbox): (AccountId, MailboxId),
        uids: &[u32],
        modseq: u64,
    ) {
        // A mailbox's MODSEQs have no gaps: when it is the next one, nothing else has happened.
        if let (Some(known), Some(last)) = (self.of(account, mailbox), uids.last())
            && known.modseq + 1 == modseq
        {
            known.uidnext = last + 1;
            known.message_count += uids.len() as u64;
            known.unseen_count = None;
            known.modseq = modseq;
        }
    }

    /// The mailbox is not selected any more; what was told of it as such is what the client knows.
    pub(super) fn leave(&mut self, selected: &Selected) {
        let place = &selected.place;
        if let Some(known) = self.of(place.account, place.mailbox) {
            known.uidnext = selected.uid_next;
            known.message_count = selected.view.count().into();
            known.unseen_count = None;
            known.modseq = selected.modseq;
        }
    }

    /// Takes in which mailboxes and subscriptions there are; what of that has changed.
    /// What is the session's own doing is taken as it is. Unless all volumes are there, `is_whole`, nothing of others is gone.
    pub(super) fn follow(
        &mut self,
        account: AccountId,
        names: &Names,
        own: &[String],
        is_whole: bool,
    ) -> Changes {
        let mut changes = Changes::default();
        let mut before: BTreeMap<Of, Known> = std::mem::take(&mut self.known)
            .into_iter()
            .map(|known| (known.of, known))
            .collect();
        let owners = names.values().filter_map(Entry::owner);
        self.others = owners.filter(|owner| *owner != account).collect();
        let mut next = self.next;
        for (name, entry) in names {
            let Some((owner, now)) = entry.readable() else {
                continue;
            };
            let number = now.mailbox.0;
            let wanted = self.wanted(name, entry.is_subscribed);
            let known = before.remove(&(owner, number));
            if let Some(known) = &known
                && !known.name.is_empty()
                && *known.name != **name
            {
                changes.renamed.push((known.name.to_string(), name.clone()));
            }
            let is_own = owner == account;
            let is_new = is_own && number >= self.next;
            // RFC 5465 §5.4: one of another user that comes into sight counts as made.
            if known.is_none() && wanted.name && (is_new || !is_own || self.is_named(name)) {
                changes.made.push(name.clone());
            }
            if is_own {
                next = next.max(number + 1);
            }
            if wanted.messages || wanted.flags || wanted.name || wanted.annotations {
                let is_new = is_new && !own.contains(name);
                let mut known = known.unwrap_or_else(|| Known::of(owner, now, is_new));
                known.name = match wanted.name {
                    true => name.as_str().into(),
                    false => Box::default(),
                };
                self.known.push(known);
            }
        }
        if !is_whole {
            let away = before.extract_if(.., |(owner, _), _| *owner != account);
            let away: Vec<Known> = away.map(|(_, known)| known).collect();
            self.others.extend(away.iter().map(|known| known.of.0));
            self.known.extend(away);
        }
        self.known.sort_unstable_by_key(|known| known.of);
        self.next = next;
        let gone = before.into_values().filter(|known| !known.name.is_empty());
        changes.deleted = gone.map(|known| known.name.into()).collect();
        if self.has_subscriptions() {
            let subscribed = names.iter().filter(|(_, entry)| entry.is_subscribed);
            let now: BTreeSet<String> = subscribed.map(|(name, _)| name.clone()).collect();
            let differing = now.symmetric_difference(&self.subscribed);
            changes.subscribed = differing.cloned().collect();
            self.subscribed = now;
        }
        changes
    }

    /// Whether a name is watched for what it is, not for being subscribed: then it is news when a mailbox gets it.
    fn is_named(&self, name: &str) -> bool {
        self.wanted(name, false).name
    }

    fn has_subscriptions(&self) -> bool {
        self.groups.iter().any(|group| {
            group.filter == MailboxFilter::Subscribed
                || group.events.contains(&NotifyEvent::SubscriptionChange)
        })
    }
}

impl Known {
    /// A mailbox that was just made is told of with all it has; one that came into sight is taken as it is.
    fn of(account: AccountId, now: &MailboxInfo, is_new: bool) -> Self {
        let mut known = Self {
            of: (account, now.mailbox.0),
            uidnext: now.uidnext,
            message_count: now.message_count,
            unseen_count: Some(now.unseen_count),
            modseq: now.highestmodseq,
            name: Box::default(),
        };
        if is_new {
            (known.uidnext, known.message_count) = (1, 0);
            // RFC 5465 §5.1: its UIDVALIDITY is news, if there was one of this name before.
            (known.unseen_count, known.modseq) = (Some(u64::MAX), 0);
        }
        known
    }
}

/// Mailboxes that one session may watch: some 40 octets each. Others besides, whose own are watched for their names.
const WATCHED_MAX: usize = 1000;
/// Octets of their names, where those are asked for.
const NAMES_MAX_OCTETS: usize = 32 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::SpecialUse;

    const ANN: AccountId = AccountId(1);

    #[test]
    fn flags_that_changed_since_the_session_last_wrote_are_told() {
        let mut now = MailboxInfo {
            mailbox: MailboxId::INBOX,
            name: "INBOX".to_owned(),
            identity: [0; 16],
            special_use: SpecialUse::default(),
            uidvalidity: 1,
            uidnext: 2,
            highestmodseq: 2,
            message_count: 1,
            unseen_count: 1,
            deleted_count: 0,
            size_octets: 1,
        };
        let wanted = Wanted {
            flags: true,
            ..Wanted::default()
        };
        let mut registration = Registration {
            known: vec![Known::of(ANN, &now, false)],
            ..Registration::default()
        };
        registration.made((ANN, MailboxId::INBOX), &[2], 3);
        (now.uidnext, now.message_count, now.highestmodseq) = (3, 2, 3);
        let mut unchanged = registration.clone();
        assert!(!unchanged.meet(ANN, &now, wanted, false));
        // How many were unseen is not known: only the MODSEQ tells.
        now.highestmodseq = 4;
        assert!(registration.meet(ANN, &now, wanted, false));
    }
}
