//! GETMETADATA and SETMETADATA. RFC 5464.
//!
//! `/private` entries of the server are the user's own and stand in the account; its `/shared` ones are settings.

use std::collections::BTreeSet;

use bytes::Bytes;
use directory_api::AccountId;
use mail_proto::imap::command::{GetMetadata, MetadataDepth, SetMetadata};
use mail_proto::imap::encode::{Code, Condition};
use mail_proto::imap::mailbox::MailboxName;

use super::Session;
use super::place::demand;
use super::reply::{Failure, Reply};
use super::state::Place;
use crate::volume::{ANNOTATION_MAX_BYTES, ANNOTATION_NAME_MAX_BYTES, MailboxId, Refusal, Rights};

/// What GETMETADATA asks for and has found.
struct Asked {
    /// In lower case, each once.
    entries: BTreeSet<String>,
    depth: MetadataDepth,
    size_max: u64,
    /// Entries asked for that have a value, wanted or too long.
    found: BTreeSet<String>,
    /// The largest value that was too long.
    longest: u64,
}

/// GETMETADATA.
pub(super) async fn get(session: &mut Session<'_>, request: GetMetadata) -> Result<Reply, Failure> {
    let entries: BTreeSet<String> = request.entries.iter().map(|e| lower(e)).collect();
    if !entries.iter().all(|entry| is_rooted(entry)) {
        return Ok(not_rooted());
    }
    let place = find(session, request.mailbox.as_ref(), Rights::READ).await?;
    let mut asked = Asked {
        entries,
        depth: request.depth,
        size_max: request.size_max_bytes.unwrap_or(u64::MAX),
        found: BTreeSet::new(),
        longest: 0,
    };
    let name = request.mailbox.as_ref();
    if name.is_none() {
        let about = session.service.about;
        let settings = [
            ("/shared/admin", &about.admin),
            ("/shared/comment", &about.comment),
        ];
        let settings = settings.into_iter().filter_map(|(entry, value)| {
            let value = Bytes::copy_from_slice(value.as_ref()?.as_bytes());
            Some((entry.to_owned(), value))
        });
        let settings: Vec<_> = settings.collect();
        tell(session, name, &mut asked, &settings);
    }
    let (account, mailbox, is_own) = target(session, place);
    let volume = session.volume_of(account).await?;
    let mut after = String::new();
    loop {
        let mut page = volume.annotations(account, mailbox, &after).await?;
        match page.last() {
            Some((entry, _)) => after.clone_from(entry),
            None => break,
        }
        if !is_own {
            // The right may have gone while the page was read.
            let still = find(session, name, Rights::READ).await?;
            let still = still.map(|still| (still.account, still.mailbox));
            if still != mailbox.map(|mailbox| (account, mailbox)) {
                return Err(Refusal::NoMailbox.into());
            }
        }
        // What the owner keeps for himself.
        page.retain(|(entry, _)| is_own || !entry.starts_with("/private/"));
        tell(session, name, &mut asked, &page);
        session.flush_if_full().await?;
    }
    // Who asks for an entry by its name is told that it has no value.
    let missing: Vec<(&str, Option<&[u8]>)> = asked
        .entries
        .difference(&asked.found)
        .filter(|entry| is_entry(entry))
        .map(|entry| (entry.as_str(), None))
        .collect();
    if !missing.is_empty() {
        session.encoder().metadata(name, &missing);
    }
    Ok(match asked.longest {
        0 => Reply::ok("done"),
        longest => Reply::ok_with(&Code::MetadataLongEntries(longest), "done"),
    })
}

/// Tells those of a page that were asked for.
fn tell(
    session: &mut Session<'_>,
    name: Option<&MailboxName>,
    asked: &mut Asked,
    page: &[(String, Bytes)],
) {
    let mut told: Vec<(&str, Option<&[u8]>)> = Vec::new();
    for (entry, value) in page {
        if !asked.wants(entry) {
            continue;
        }
        if asked.entries.contains(entry) {
            asked.found.insert(entry.clone());
        }
        let octets = value.len() as u64;
        if octets > asked.size_max {
            asked.longest = asked.longest.max(octets);
        } else {
            told.push((entry, Some(value)));
        }
    }
    if !told.is_empty() {
        session.encoder().metadata(name, &told);
    }
}

impl Asked {
    fn wants(&self, entry: &str) -> bool {
        if self.entries.contains(entry) {
            return true;
        }
        // The entries above it, the nearest first: no more of them than the name has parts.
        let mut above = entry.rmatch_indices('/').map(|(place, _)| &entry[..place]);
        match self.depth {
            MetadataDepth::Zero => false,
            MetadataDepth::One => above.next().is_some_and(|one| self.entries.contains(one)),
            MetadataDepth::Infinity => above.any(|one| self.entries.contains(one)),
        }
    }
}

/// SETMETADATA: all entries or none.
pub(super) async fn set(session: &mut Session<'_>, request: SetMetadata) -> Result<Reply, Failure> {
    session.writable()?;
    let place = find(session, request.mailbox.as_ref(), Rights::WRITE).await?;
    let (account, mailbox, is_own) = target(session, place);
    let mut changes = Vec::with_capacity(request.entries.len());
    for (entry, value) in request.entries {
        let entry = lower(&entry);
        if !is_rooted(&entry) || !is_entry(&entry) {
            return Ok(not_rooted());
        }
        if mailbox.is_none() && entry.starts_with("/shared/") {
            return Ok(Reply::no("NOPERM", "only the administrator sets these"));
        }
        if !is_own && entry.starts_with("/private/") {
            let code = Code::MetadataNoPrivate;
            let text = "private entries are for mailboxes of your own";
            return Ok(Reply::new(Condition::No, Some(&code), text));
        }
        if entry.len() > ANNOTATION_NAME_MAX_BYTES {
            return Ok(Reply::no("LIMIT", "name of the entry is too long"));
        }
        if value
            .as_ref()
            .is_some_and(|value| value.len() > ANNOTATION_MAX_BYTES)
        {
            let code = Code::MetadataMaxSize(ANNOTATION_MAX_BYTES as u64);
            return Ok(Reply::new(Condition::No, Some(&code), "value is too long"));
        }
        changes.push((entry, value.map(Bytes::from)));
    }
    let by = match place {
        Some(place) => place.writer(session.state.account),
        None => session.state.epoch.into(),
    };
    let volume = session.volume_of(account).await?;
    let of = (account, mailbox.map_or(0, |mailbox| mailbox.0));
    let own = changes.iter().map(|(entry, _)| (of, entry.clone()));
    session.own().entries.extend(own);
    match volume.annotate(account, by, mailbox, changes).await {
        Ok(()) => Ok(Reply::ok("done")),
        Err(Refusal::Full) => {
            let code = Code::MetadataTooMany;
            Ok(Reply::new(Condition::No, Some(&code), "too many entries"))
        }
        Err(refusal) => Err(refusal.into()),
    }
}

/// The mailbox whose entries are meant; of the server there is none.
async fn find(
    session: &mut Session<'_>,
    name: Option<&MailboxName>,
    rights: Rights,
) -> Result<Option<Place>, Failure> {
    let Some(name) = name else {
        return Ok(None);
    };
    let place = demand(session, name).await?.place;
    place.need(rights)?;
    Ok(Some(place))
}

/// Where the entries stand, and whether the user's own do: those of the server are in the user's account.
fn target(session: &Session<'_>, place: Option<Place>) -> (AccountId, Option<MailboxId>, bool) {
    let own = session.state.account;
    match place {
        Some(place) => (place.account, Some(place.mailbox), place.account == own),
        None => (own, None, true),
    }
}

/// RFC 5464 §3.2: names of entries are the same in any case.
fn lower(entry: &str) -> String {
    entry.to_ascii_lowercase()
}

/// Whether it is one of the two roots or below one.
fn is_rooted(entry: &str) -> bool {
    ["/private", "/shared"].iter().any(|root| {
        entry
            .strip_prefix(root)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// Whether it is below a root: the roots themselves have no value.
fn is_entry(entry: &str) -> bool {
    entry[1..].contains('/')
}

fn not_rooted() -> Reply {
    Reply::bad("entries begin with /private/ or /shared/")
}
