//! LIST and LSUB. RFC 9051 §6.3.9, RFC 3501 §6.3.9, RFC 5258, RFC 5819, RFC 6154.

use std::collections::BTreeMap;

use directory_api::AccountId;
use mail_proto::imap::command::{List, SpecialUse};
use mail_proto::imap::encode::ListResponse;
use mail_proto::imap::mailbox::{MailboxName, composed};

use super::namespace::DELIMITER;
use super::pattern::matches;
use super::place::Found;
use super::reply::{Failure, Reply};
use super::state::Place;
use super::{Session, acl, place, status};
use crate::volume::{Listing, MailboxInfo, Rights, Shared, SpecialUse as Stored};

/// Every name there is to list, in order.
pub(super) type Names = BTreeMap<String, Entry>;

/// One name: of a mailbox, of a subscription, or above one of these.
#[derive(Default)]
pub(super) struct Entry {
    pub(super) mailbox: Option<MailboxInfo>,
    /// Where the mailbox is.
    place: Option<Place>,
    pub(super) is_subscribed: bool,
    /// Whether a mailbox is below it.
    pub(super) has_children: bool,
}

impl Entry {
    /// The mailbox, and whose it is, where its events may be told: it takes the right to read it (RFC 5465 §5).
    pub(super) fn readable(&self) -> Option<(AccountId, &MailboxInfo)> {
        let place = self.place.filter(|place| place.rights.has(Rights::READ))?;
        Some((place.account, self.mailbox.as_ref()?))
    }

    /// Whose the mailbox is.
    pub(super) fn owner(&self) -> Option<AccountId> {
        self.place.map(|place| place.account)
    }

    /// Whether there is a mailbox that may be seen and not be read.
    pub(super) fn is_closed(&self) -> bool {
        self.mailbox.is_some() && self.readable().is_none()
    }
}

/// LIST.
pub(super) async fn run(session: &mut Session<'_>, request: List) -> Result<Reply, Failure> {
    // RFC 9051 §6.3.9: by itself it asks for the delimiter; with extensions it matches nothing.
    if !request.extended && request.patterns.iter().all(String::is_empty) {
        session.encoder().list_root(DELIMITER, "");
        return Ok(Reply::ok("done"));
    }
    let patterns: Vec<String> = request
        .patterns
        .iter()
        .filter(|pattern| !pattern.is_empty())
        .map(|pattern| format!("{}{pattern}", request.reference))
        .map(|pattern| composed(&pattern).into_owned())
        .collect();
    if patterns.iter().map(String::len).sum::<usize>() > PATTERNS_MAX_OCTETS {
        return Ok(Reply::no("LIMIT", "patterns are too long"));
    }
    let is_match = |name: &str| {
        let name = composed(name);
        patterns.iter().any(|pattern| matches(pattern, &name))
    };
    // RFC 5258 §4: by which options. RECURSIVEMATCH stands beside one of these at least.
    let selection = request.selection;
    let mut child_info = Vec::new();
    if selection.subscribed {
        child_info.push("SUBSCRIBED");
    }
    if selection.special_use {
        child_info.push("SPECIAL-USE");
    }
    let names = all_names(session).await?;
    for (place, (name, entry)) in names.iter().enumerate() {
        breathe(place).await;
        if !is_match(name) {
            continue;
        }
        let is_selected = is_selected_by(&request, entry);
        // RFC 5258 §3.5: a name that is not selected itself is told for what is below it and is not listed.
        let has_selected_child = request.selection.recursive_match
            && below(&names, name)
                .any(|(name, below)| is_selected_by(&request, below) && !is_match(name));
        if is_selected || has_selected_child {
            let info = match has_selected_child {
                true => child_info.as_slice(),
                false => &[],
            };
            tell(session, &request, name, entry, info).await?;
        }
    }
    Ok(Reply::ok("done"))
}

/// LSUB, of IMAP4rev1: subscribed names, and with `%` those above them as `\Noselect`.
pub(super) async fn lsub(
    session: &mut Session<'_>,
    reference: &str,
    pattern: &str,
) -> Result<Reply, Failure> {
    if pattern.is_empty() {
        session.encoder().list_root(DELIMITER, "");
        return Ok(Reply::ok("done"));
    }
    let pattern = format!("{reference}{pattern}");
    let pattern = composed(&pattern);
    let names = all_names(session).await?;
    for (place, (name, entry)) in names.iter().enumerate() {
        breathe(place).await;
        let is_above = !entry.is_subscribed
            && pattern.ends_with('%')
            && below(&names, name).any(|(_, entry)| entry.is_subscribed);
        if !(entry.is_subscribed || is_above) || !matches(&pattern, &composed(name)) {
            continue;
        }
        let attributes: &[&str] = match entry.is_subscribed {
            true => &[],
            false => &["\\Noselect"],
        };
        if let Ok(name) = MailboxName::new(name) {
            session.encoder().lsub(&response(&name, attributes, &[]));
            session.flush_if_full().await?;
        }
    }
    Ok(Reply::ok("done"))
}

/// LIST of a mailbox that is being selected or made, with all that is known of it. RFC 9051 §6.3.2, §6.3.4.
pub(super) async fn tell_one(session: &mut Session<'_>, name: &MailboxName) -> Result<(), Failure> {
    let names = all_names(session).await?;
    match names.get(name.as_str()) {
        Some(entry) => tell(session, &List::default(), name.as_str(), entry, &[]).await,
        None => Ok(()),
    }
}

/// LIST that nobody asked for: what there is under a name now, and the name that it had before if it was renamed.
/// RFC 5465 §5.4, §5.5.
pub(super) fn announce(session: &mut Session<'_>, names: &Names, name: &str, old: Option<&str>) {
    let (Ok(shown), old) = (MailboxName::new(name), old.map(MailboxName::new)) else {
        return;
    };
    let none = Entry::default();
    let entry = names.get(name).unwrap_or(&none);
    let mut attributes = Vec::new();
    if entry.mailbox.is_none() {
        attributes.push("\\NonExistent");
    }
    if entry.is_closed() {
        attributes.push("\\NoAccess");
    }
    if entry.is_subscribed {
        attributes.push("\\Subscribed");
    }
    attributes.push(children(entry));
    attributes.extend(uses(entry));
    let old = old.and_then(Result::ok);
    session.encoder().list(&ListResponse {
        old_name: old.as_ref(),
        ..response(&shown, &attributes, &[])
    });
}

fn children(entry: &Entry) -> &'static str {
    match entry.has_children {
        true => "\\HasChildren",
        false => "\\HasNoChildren",
    }
}

/// The names of the user's own mailboxes and subscriptions.
pub(super) async fn names(session: &mut Session<'_>) -> Result<Names, Failure> {
    let home = session.service.home;
    let listing = home.volume.listing(session.state.account).await?;
    Ok(own_names(session, listing).0)
}

/// These, and the names of the mailboxes that others share with the user.
pub(super) async fn all_names(session: &mut Session<'_>) -> Result<Names, Failure> {
    Ok(all_there_are(session).await?.0)
}

/// The same, and whether those of others that are not among them are gone, rather than away.
pub(super) async fn all_there_are(session: &mut Session<'_>) -> Result<(Names, bool), Failure> {
    let account = session.state.account;
    let (home, volumes) = (session.service.home, session.service.volumes);
    let listing = home.volume.listing(account).await?;
    let (mut names, shared) = own_names(session, listing);
    let (shared, is_whole) = volumes.add_shared(home, account, shared).await;
    for shared in shared {
        add(&mut names, place::name_of(&shared), place::found(shared));
    }
    Ok((names, is_whole))
}

/// The user's own names of a listing, and what is left of it.
fn own_names(session: &Session<'_>, listing: Listing) -> (Names, Vec<Shared>) {
    let mut names = Names::new();
    for mailbox in listing.mailboxes {
        if !place::is_others(&mailbox.name) {
            add(
                &mut names,
                mailbox.name.clone(),
                place::own(session, mailbox),
            );
        }
    }
    for name in listing.subscriptions {
        for above in levels_above(&name) {
            names.entry(above.to_owned()).or_default();
        }
        names.entry(name).or_default().is_subscribed = true;
    }
    (names, listing.shared)
}

fn add(names: &mut Names, name: String, found: Found) {
    for above in levels_above(&name) {
        names.entry(above.to_owned()).or_default().has_children = true;
    }
    let entry = names.entry(name).or_default();
    (entry.place, entry.mailbox) = (Some(found.place), Some(found.info));
}

/// Whether LIST's selection options, or their absence, select a name that matches.
fn is_selected_by(request: &List, entry: &Entry) -> bool {
    let selection = request.selection;
    // A name without a mailbox is shown where something is below it.
    let is_there = entry.mailbox.is_some() || entry.has_children;
    (!selection.subscribed || entry.is_subscribed)
        && (!selection.special_use || !uses(entry).is_empty())
        && (selection.subscribed || is_there)
}

async fn tell(
    session: &mut Session<'_>,
    request: &List,
    name: &str,
    entry: &Entry,
    child_info: &[&str],
) -> Result<(), Failure> {
    let Ok(name) = MailboxName::new(name) else {
        return Ok(());
    };
    let (selection, returns) = (request.selection, &request.returns);
    let is_plain = !request.extended;
    let mut attributes = Vec::new();
    if entry.mailbox.is_none() {
        // RFC 9051 §7.3.1: `\NonExistent` implies `\Noselect`, which is all that old clients know.
        attributes.push(match is_plain && !session.state.enabled.imap4rev2 {
            true => "\\Noselect",
            false => "\\NonExistent",
        });
    }
    if (selection.subscribed || returns.subscribed) && entry.is_subscribed {
        attributes.push("\\Subscribed");
    }
    if is_plain || returns.children {
        attributes.push(children(entry));
    }
    if is_plain || returns.special_use || selection.special_use {
        attributes.extend(uses(entry));
    }
    let sent = sent_as(session, &name);
    session.encoder().list(&ListResponse {
        old_name: sent.as_ref(),
        ..response(&name, &attributes, child_info)
    });
    if let (Some(info), Some(place)) = (&entry.mailbox, entry.place) {
        if returns.my_rights {
            // RFC 8440.
            session
                .encoder()
                .my_rights(&name, acl::letters(place.rights));
        }
        // RFC 5819 §2: nothing is told of those that STATUS would refuse.
        if !returns.status.is_empty() && place.rights.has(Rights::READ) {
            let mut found = Found {
                place,
                info: info.clone(),
            };
            if place.account != session.state.account {
                // As STATUS itself would tell it.
                let account = session.state.account;
                let volume = session.volume_of(place.account).await?;
                let still = volume.shared_still(account, place.account, place.mailbox);
                match still.await?.filter(|still| still.rights.has(Rights::READ)) {
                    Some(still) => found = place::found(still),
                    None => return Ok(()),
                }
            }
            status::tell(session, &name, &found, &returns.status).await?;
        }
    }
    session.flush_if_full().await
}

/// How the command that runs has called this mailbox, where that looks the same and is not: RFC 9051 §6.3.2, §6.3.4.
fn sent_as(session: &Session<'_>, name: &MailboxName) -> Option<MailboxName> {
    let sent = session.own.as_ref()?.sent_name.as_ref();
    let (_, sent) = sent.filter(|(kept, _)| kept == name)?;
    Some(sent.clone())
}

fn response<'r>(
    name: &'r MailboxName,
    attributes: &'r [&'r str],
    child_info: &'r [&'r str],
) -> ListResponse<'r> {
    ListResponse {
        attributes,
        delimiter: DELIMITER,
        name,
        child_info,
        old_name: None,
    }
}

/// The names above a name, the topmost first.
fn levels_above(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('/').map(|(place, _)| &name[..place])
}

/// The names below a name. Those of one tree do not stand together, for `-` sorts before `/`.
fn below<'n>(
    names: &'n Names,
    name: &str,
) -> impl Iterator<Item = (&'n String, &'n Entry)> + use<'n> {
    let first = format!("{name}/");
    let range = names.range(first.clone()..);
    range.take_while(move |(name, _)| name.starts_with(&first))
}

fn uses(entry: &Entry) -> Vec<&'static str> {
    // What another user's mailbox is for is that user's: nobody wants his mail in another one's Sent.
    let is_whole = |place: &Place| place.rights == Rights::ALL;
    let stored = entry
        .mailbox
        .as_ref()
        .filter(|_| entry.place.as_ref().is_some_and(is_whole))
        .map_or(Stored::default(), |mailbox| mailbox.special_use);
    SpecialUse::ALL
        .into_iter()
        .filter(|one| stored.0 & to_store(*one).0 != 0)
        .map(SpecialUse::as_str)
        .collect()
}

/// A name as the store keeps it: NOTIFY does not tell a session what it did itself.
pub(super) fn own_name(name: &MailboxName) -> String {
    name.as_str().trim_end_matches('/').to_owned()
}

/// A special use in the store's bits.
pub(super) fn to_store(one: SpecialUse) -> Stored {
    match one {
        SpecialUse::All => Stored::ALL,
        SpecialUse::Archive => Stored::ARCHIVE,
        SpecialUse::Drafts => Stored::DRAFTS,
        SpecialUse::Flagged => Stored::FLAGGED,
        SpecialUse::Important => Stored::IMPORTANT,
        SpecialUse::Junk => Stored::JUNK,
        SpecialUse::Sent => Stored::SENT,
        SpecialUse::Trash => Stored::TRASH,
    }
}

/// Lets others run: thousands of names matched against long patterns take milliseconds.
async fn breathe(place: usize) {
    if place % 64 == 63 {
        tokio::task::yield_now().await;
    }
}

/// Each pattern is matched against every name; those in use have some dozen octets.
const PATTERNS_MAX_OCTETS: usize = 4096;
