//! NOTIFY. RFC 5465.
//!
//! No event is queued. What the client was last told of each mailbox stands in the session's state; when the volume's bell rings it
//! is compared with what is, and the difference is told. So a burst of changes costs one STATUS, and a session that was carried over
//! to another back-end misses nothing.
//!
//! The selected mailbox is [`updates`](super::updates)'s; [`Hears`] tells it what of it the client wants to hear.

mod annotations;
mod known;

use std::collections::BTreeMap;

use directory_api::AccountId;
use mail_proto::imap::command::{
    FetchItem, MailboxFilter, NotifyEvent, NotifyGroup, NotifySet, StatusItem,
};
use mail_proto::imap::encode::{Code, Condition, StatusValue};
use mail_proto::imap::mailbox::MailboxName;

use super::list::{self, Names};
use super::reply::{Failure, Reply};
use super::state::{Place, State};
use super::{Session, place, updates};
use crate::volume::{MailboxId, MailboxInfo, Rights};
pub(super) use known::{Hears, News, Of, Registration, Wanted};

/// NOTIFY SET, or NONE.
pub(super) async fn run(
    session: &mut Session<'_>,
    set: Option<NotifySet>,
) -> Result<Reply, Failure> {
    let Some(set) = set else {
        session.state.notify = Some(Box::default());
        return Ok(Reply::ok("done"));
    };
    let mut events = set.groups.iter().flat_map(|group| &group.events);
    if !events.all(is_supported) {
        return Ok(Reply::bad_event());
    }
    // RFC 5465 §3.1: as NOOP, whatever was registered before.
    let before = session.state.notify.take();
    updates::tell(session, true).await?;
    let account = session.state.account;
    let names = names(session, Registration::has_shared(&set.groups)).await?;
    let mut registration = Registration::new(account, set.groups, &names);
    let annotations = annotations::read(session, &registration, &names).await?;
    registration.annotate(annotations);
    if registration.is_too_large() {
        session.state.notify = before;
        return Ok(Reply::no("NOTIFICATIONOVERFLOW", "too many mailboxes"));
    }
    session.state.notify = Some(Box::new(registration));
    for (name, entry) in &names {
        let wanted = wanted(session, name, entry.is_subscribed);
        if entry.is_closed() && wanted != Wanted::default() {
            // RFC 5465 §3.1: nothing is told of it, and it would seem that nothing happens.
            list::announce(session, &names, name, None);
        }
        if let Some((owner, now)) = entry.readable()
            && (set.status && wanted.messages)
            && !is_selected(session, owner, now.mailbox)
            && let Some((name, now)) = still(session, name, owner, now).await?
        {
            // Also without CONDSTORE enabled, for it is supported.
            tell_status(session, &name, &now, wanted, wanted.flags)?;
        }
        session.flush_if_full().await?;
    }
    Ok(Reply::ok("done"))
}

/// The names that a registration may be about.
async fn names(session: &mut Session<'_>, has_shared: bool) -> Result<Names, Failure> {
    match has_shared {
        true => list::all_names(session).await,
        false => list::names(session).await,
    }
}

/// A mailbox as it is now, and the name that it has for the user, if it may be read.
async fn current(
    session: &mut Session<'_>,
    account: AccountId,
    mailbox: MailboxId,
) -> Result<Option<(String, MailboxInfo)>, Failure> {
    let own = session.state.account;
    let volume = session.volume_of(account).await?;
    if account == own {
        let now = volume.mailbox_status(own, mailbox).await?;
        return Ok(now.map(|now| (now.name.clone(), now)));
    }
    let still = volume.shared_still(own, account, mailbox).await?;
    let still = still.filter(|still| still.rights.has(Rights::READ));
    Ok(still.map(|still| (place::name_of(&still), still.mailbox)))
}

/// A mailbox that was listed. The client may have taken minutes for what came before: one of another user is asked for again.
async fn still(
    session: &mut Session<'_>,
    name: &str,
    owner: AccountId,
    listed: &MailboxInfo,
) -> Result<Option<(String, MailboxInfo)>, Failure> {
    match owner == session.state.account {
        true => Ok(Some((name.to_owned(), listed.clone()))),
        false => current(session, owner, listed.mailbox).await,
    }
}

/// What cannot happen here is refused: messages have no annotations (RFC 5257).
fn is_supported(event: &NotifyEvent) -> bool {
    *event != NotifyEvent::AnnotationChange
}

/// Those, for BADEVENT.
pub(super) const SUPPORTED: &[&str] = &[
    "MessageNew",
    "MessageExpunge",
    "FlagChange",
    "MailboxName",
    "SubscriptionChange",
    "MailboxMetadataChange",
    "ServerMetadataChange",
];

/// Tells what has changed outside the selected mailbox.
pub(super) async fn tell(session: &mut Session<'_>) -> Result<(), Failure> {
    let news = std::mem::take(&mut session.news);
    let is_asked = session.state.notify.as_ref();
    if !is_asked.is_some_and(|registration| registration.has_others()) {
        return Ok(());
    }
    let mut told = match news.list {
        true => tell_all(session).await,
        false => tell_mailboxes(session, &news).await,
    };
    if told.is_ok() && (news.list || news.annotations) {
        told = annotations::tell(session).await;
    }
    // Until it could be read, it is not told.
    session.news.list |= told.is_err();
    told
}

/// Messages came or went, or changed their flags, and nothing else happened.
async fn tell_mailboxes(session: &mut Session<'_>, news: &News) -> Result<(), Failure> {
    for (account, mailbox) in &news.mailboxes {
        if let Some((name, now)) = current(session, *account, *mailbox).await? {
            let is_subscribed = session
                .state
                .notify
                .as_ref()
                .is_some_and(|registration| registration.is_subscribed(&name));
            tell_mailbox(session, &name, (*account, &now), is_subscribed)?;
            session.flush_if_full().await?;
        }
    }
    Ok(())
}

/// STATUS of a mailbox that is watched, if it is not as the client knows it.
fn tell_mailbox(
    session: &mut Session<'_>,
    name: &str,
    (account, now): (AccountId, &MailboxInfo),
    is_subscribed: bool,
) -> Result<(), Failure> {
    let wanted = wanted(session, name, is_subscribed);
    let condstore = session.state.enabled.condstore;
    if is_selected(session, account, now.mailbox) {
        // Told as such; what it is then known by is noted when it is closed.
        return Ok(());
    }
    let Some(registration) = &mut session.state.notify else {
        return Ok(());
    };
    match registration.meet(account, now, wanted, condstore) {
        true => tell_status(session, name, now, wanted, condstore),
        false => Ok(()),
    }
}

fn tell_status(
    session: &mut Session<'_>,
    name: &str,
    now: &MailboxInfo,
    wanted: Wanted,
    tells_modseq: bool,
) -> Result<(), Failure> {
    let Ok(name) = MailboxName::new(name) else {
        return Ok(());
    };
    let number = |item, value: u64| (item, StatusValue::Number(value));
    let mut values = vec![
        number(StatusItem::Messages, now.message_count),
        number(StatusItem::UidNext, now.uidnext.into()),
        number(StatusItem::UidValidity, now.uidvalidity.into()),
    ];
    if wanted.flags {
        values.push(number(StatusItem::Unseen, now.unseen_count));
    }
    if tells_modseq {
        values.push(number(StatusItem::HighestModSeq, now.highestmodseq));
    }
    session.encoder().status(&name, &values);
    Ok(())
}

/// Mailboxes were made, renamed or deleted, or names subscribed; and perhaps messages came too.
async fn tell_all(session: &mut Session<'_>) -> Result<(), Failure> {
    let groups = session.state.notify.as_ref().map(|one| one.groups());
    let has_shared = groups.is_some_and(Registration::has_shared);
    let (names, is_whole) = match has_shared {
        true => list::all_there_are(session).await?,
        // None of others is watched.
        false => (list::names(session).await?, true),
    };
    let account = session.state.account;
    let Some(registration) = &mut session.state.notify else {
        return Ok(());
    };
    let own = session.own.as_ref().map(|own| own.names.clone());
    let own = own.unwrap_or_default();
    let changes = registration.follow(account, &names, &own, is_whole);
    if registration.is_too_large() {
        overflow(session);
        return Ok(());
    }
    for (name, old) in listed(session, &names, &changes, &own) {
        list::announce(session, &names, &name, old.as_deref());
        session.flush_if_full().await?;
    }
    for (name, entry) in &names {
        let registration = session.state.notify.as_ref();
        let watches = |owner, mailbox| registration.is_some_and(|one| one.watches(owner, mailbox));
        if let Some((owner, now)) = entry.readable()
            && watches(owner, now.mailbox)
            && let Some((name, now)) = still(session, name, owner, now).await?
        {
            tell_mailbox(session, &name, (owner, &now), entry.is_subscribed)?;
            session.flush_if_full().await?;
        }
    }
    Ok(())
}

/// RFC 5465 §5.8: from now on as after NOTIFY NONE.
fn overflow(session: &mut Session<'_>) {
    session.state.notify = Some(Box::default());
    let code = Code::Word("NOTIFICATIONOVERFLOW");
    session
        .encoder()
        .untagged(Condition::Ok, Some(&code), "too many mailboxes");
}

/// The names to be listed, each with the one it had if it was renamed. What the command that runs did itself is left out.
fn listed(
    session: &Session<'_>,
    names: &Names,
    changes: &known::Changes,
    own: &[String],
) -> BTreeMap<String, Option<String>> {
    let mut listed = BTreeMap::new();
    let is_own = |name: &String| own.contains(name);
    let made_above = |name: &str| own.iter().any(|own| is_below(own, name));
    let is_subscribed = |name: &str| names.get(name).is_some_and(|entry| entry.is_subscribed);
    let parent = |name: &str| name.rfind('/').map(|place| name[..place].to_owned());
    let with_parent = |listed: &mut BTreeMap<_, _>, name: &String| {
        // RFC 5465 §5.4: its parent may have children now, or none any more.
        if let Some(parent) = parent(name)
            && wanted(session, &parent, is_subscribed(&parent)).name
        {
            listed.entry(parent).or_insert(None);
        }
        listed.insert(name.clone(), None);
    };
    for name in &changes.deleted {
        if !is_own(name) {
            with_parent(&mut listed, name);
        }
    }
    for name in &changes.made {
        if !is_own(name) && !made_above(name) {
            with_parent(&mut listed, name);
        }
    }
    for (old, new) in &changes.renamed {
        // RFC 5465 §5.4: not for those that went along with one above them.
        let goes_along = changes.renamed.iter().any(|(above, to)| {
            is_below(old, above) && is_below(new, to) && old[above.len()..] == new[to.len()..]
        });
        if !goes_along && !is_own(new) {
            listed.insert(new.clone(), Some(old.clone()));
        }
    }
    for name in &changes.subscribed {
        if !is_own(name) && wanted(session, name, true).subscription {
            listed.entry(name.clone()).or_insert(None);
        }
    }
    listed
}

fn is_below(name: &str, above: &str) -> bool {
    name.strip_prefix(above)
        .is_some_and(|rest| rest.starts_with('/'))
}

fn wanted(session: &Session<'_>, name: &str, is_subscribed: bool) -> Wanted {
    let registration = session.state.notify.as_ref();
    registration.map_or(Wanted::default(), |registration| {
        registration.wanted(name, is_subscribed)
    })
}

fn is_selected(session: &Session<'_>, account: AccountId, mailbox: MailboxId) -> bool {
    let selected = session.state.selected.as_ref();
    selected.is_some_and(|selected| {
        (selected.place.account, selected.place.mailbox) == (account, mailbox)
    })
}

impl State {
    /// What of the selected mailbox the client wants to hear.
    pub(super) fn hears(&self) -> Hears<'_> {
        match &self.notify {
            None => Hears::default(),
            Some(registration) => registration.hears(),
        }
    }

    /// Whether anything is told while no command runs.
    pub(super) fn hears_always(&self) -> bool {
        let notify = self.notify.as_ref();
        notify.is_some_and(|registration| !registration.groups().is_empty())
    }
}

impl Session<'_> {
    /// Closes the open mailbox; whether there was one.
    pub(super) fn deselect(&mut self) -> bool {
        let Some(selected) = self.state.selected.take() else {
            return false;
        };
        if let Some(registration) = &mut self.state.notify {
            // As one that is not selected it is known by what was told of it.
            registration.leave(&selected);
            let Place {
                account, mailbox, ..
            } = selected.place;
            if registration.watches(account, mailbox) {
                self.news.mailboxes.insert((account, mailbox));
            }
        }
        true
    }

    /// The command that runs has added messages: nobody needs to be told of these. RFC 5465 §5, §5.2.
    pub(super) fn made(&mut self, place: Place, uids: &[u32], modseq: u64) {
        let selected = self.state.selected.as_ref();
        if selected.is_some_and(|selected| {
            (selected.place.account, selected.place.mailbox) == (place.account, place.mailbox)
        }) {
            self.made.extend(uids);
        } else if let Some(registration) = &mut self.state.notify {
            registration.made((place.account, place.mailbox), uids, modseq);
        }
    }
}

/// The items to fetch of new messages.
pub(super) fn items(groups: &[NotifyGroup]) -> &[FetchItem] {
    let selected = groups.iter().find(|group| group.filter.is_selected());
    let mut events = selected.into_iter().flat_map(|group| &group.events);
    let found = events.find_map(|event| match event {
        NotifyEvent::MessageNew(items) => Some(items.as_slice()),
        _ => None,
    });
    found.unwrap_or_default()
}

/// Whether a group is about a mailbox of this name that is not selected.
fn covers(filter: &MailboxFilter, name: &str, is_subscribed: bool) -> bool {
    let is_one = |one: &MailboxName| one.as_str().trim_end_matches('/') == name;
    match filter {
        MailboxFilter::Selected | MailboxFilter::SelectedDelayed => false,
        // Nothing is delivered anywhere else.
        MailboxFilter::Inboxes => name == "INBOX",
        MailboxFilter::Personal => !place::is_others(name),
        MailboxFilter::Subscribed => is_subscribed,
        MailboxFilter::Mailboxes(names) => names.iter().any(is_one),
        MailboxFilter::Subtree(names) => {
            let is_in = |one: &MailboxName| is_below(name, one.as_str().trim_end_matches('/'));
            names.iter().any(|one| is_one(one) || is_in(one))
        }
    }
}
