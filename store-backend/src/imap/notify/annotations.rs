//! Annotations of mailboxes and of the server that have changed. RFC 5465 §5.6, §5.7, RFC 5464 §4.4.2.

use std::collections::{BTreeMap, BTreeSet};

use mail_proto::imap::mailbox::MailboxName;

use super::super::Session;
use super::super::list::{self, Names};
use super::super::reply::Failure;
use super::known::{Annotation, Registration};
use crate::volume::MailboxId;

/// The annotations that a registration is about.
pub(super) async fn read(
    session: &mut Session<'_>,
    registration: &Registration,
    names: &Names,
) -> Result<BTreeSet<Annotation>, Failure> {
    let watched = names.iter().filter_map(|(name, entry)| {
        let wanted = registration.wanted(name, entry.is_subscribed);
        let mailbox = entry.mailbox.as_ref().map(|mailbox| mailbox.mailbox);
        mailbox.filter(|_| wanted.annotations).map(Some)
    });
    let server = registration.has_server().then_some(None);
    let watched: Vec<Option<MailboxId>> = server.into_iter().chain(watched).collect();
    let (account, volume) = (session.state.account, session.service.volume);
    let mut found = BTreeSet::new();
    for mailbox in watched {
        let mut after = String::new();
        loop {
            let page = volume.annotations(account, mailbox, &after).await?;
            match page.last() {
                Some((entry, _)) => after.clone_from(entry),
                None => break,
            }
            for (entry, value) in page {
                let hash = blake3::hash(&value);
                let (first, _) = hash.as_bytes().split_at(size_of::<u64>());
                let hash = first.try_into().map_or(0, u64::from_le_bytes);
                found.insert((mailbox.map_or(0, |mailbox| mailbox.0), entry, hash));
            }
        }
    }
    Ok(found)
}

/// METADATA with the entries that are other than they were.
pub(super) async fn tell(session: &mut Session<'_>) -> Result<(), Failure> {
    let Some(registration) = session.state.notify.clone() else {
        return Ok(());
    };
    let names = list::names(session).await?;
    let now = read(session, &registration, &names).await?;
    let Some(registration) = &mut session.state.notify else {
        return Ok(());
    };
    let mut changed: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for (number, entry) in registration.annotate(now) {
        let own = session.own.as_ref().map(|own| &own.entries);
        if own.is_none_or(|own| !own.contains(&(number, entry.clone()))) {
            changed.entry(number).or_default().push(entry);
        }
    }
    if registration.is_too_large() {
        super::overflow(session);
        return Ok(());
    }
    let named: BTreeMap<u32, &String> = names
        .iter()
        .filter_map(|(name, entry)| Some((entry.mailbox.as_ref()?.mailbox.0, name)))
        .collect();
    for (number, entries) in changed {
        let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
        // Those of a mailbox that is gone went with it.
        match (number, named.get(&number)) {
            (0, _) => session.encoder().metadata_changed(None, &entries),
            (_, Some(name)) => {
                if let Ok(name) = MailboxName::new(name) {
                    session.encoder().metadata_changed(Some(&name), &entries);
                }
            }
            (_, None) => {}
        }
        session.flush_if_full().await?;
    }
    Ok(())
}
