//! Annotations of mailboxes and of the server that have changed. RFC 5465 §5.6, §5.7, RFC 5464 §4.4.2.

use std::collections::{BTreeMap, BTreeSet};

use directory_api::AccountId;
use mail_proto::imap::mailbox::MailboxName;

use super::super::Session;
use super::super::list::Names;
use super::super::reply::Failure;
use super::known::{Annotation, Of, Registration};
use crate::volume::MailboxId;

/// The annotations that a registration is about.
pub(super) async fn read(
    session: &mut Session<'_>,
    registration: &Registration,
    names: &Names,
) -> Result<BTreeSet<Annotation>, Failure> {
    let own = session.state.account;
    let mailboxes = watched(registration, names).map(|(account, one, _)| (account, Some(one)));
    let server = registration.has_server().then_some((own, None));
    let watched: Vec<(AccountId, Option<MailboxId>)> =
        server.into_iter().chain(mailboxes).collect();
    let mut found = BTreeSet::new();
    for (account, mailbox) in watched {
        let volume = session.volume_of(account).await?;
        let mut after = String::new();
        loop {
            let mut page = volume.annotations(account, mailbox, &after).await?;
            match page.last() {
                Some((entry, _)) => after.clone_from(entry),
                None => break,
            }
            // What the owner keeps for himself.
            page.retain(|(entry, _)| account == own || !entry.starts_with("/private/"));
            if let Some(mailbox) = mailbox.filter(|_| account != own)
                && super::current(session, account, mailbox).await?.is_none()
            {
                // The right may have gone while the page was read.
                break;
            }
            for (entry, value) in page {
                let hash = blake3::hash(&value);
                let (first, _) = hash.as_bytes().split_at(size_of::<u64>());
                let hash = first.try_into().map_or(0, u64::from_le_bytes);
                let of = (account, mailbox.map_or(0, |mailbox| mailbox.0));
                found.insert((of, entry, hash));
            }
        }
    }
    Ok(found)
}

/// The mailboxes whose annotations are asked for, with the owner and the name of each.
fn watched<'n>(
    registration: &Registration,
    names: &'n Names,
) -> impl Iterator<Item = (AccountId, MailboxId, &'n String)> {
    names.iter().filter_map(|(name, entry)| {
        let wanted = registration.wanted(name, entry.is_subscribed);
        let (account, mailbox) = entry.readable().filter(|_| wanted.annotations)?;
        Some((account, mailbox.mailbox, name))
    })
}

/// METADATA with the entries that are other than they were.
pub(super) async fn tell(session: &mut Session<'_>) -> Result<(), Failure> {
    let Some(registration) = session.state.notify.clone() else {
        return Ok(());
    };
    let has_shared = Registration::has_shared(registration.groups());
    let names = super::names(session, has_shared).await?;
    let now = read(session, &registration, &names).await?;
    let Some(registration) = &mut session.state.notify else {
        return Ok(());
    };
    let mut changed: BTreeMap<Of, Vec<String>> = BTreeMap::new();
    for (of, entry) in registration.annotate(now) {
        let own = session.own.as_ref().map(|own| &own.entries);
        if own.is_none_or(|own| !own.contains(&(of, entry.clone()))) {
            changed.entry(of).or_default().push(entry);
        }
    }
    if registration.is_too_large() {
        super::overflow(session);
        return Ok(());
    }
    let named: BTreeMap<Of, &String> = watched(registration, &names)
        .map(|(account, mailbox, name)| ((account, mailbox.0), name))
        .collect();
    for (of, entries) in changed {
        let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
        // Those of a mailbox that is gone, or has another name now, went with it.
        match (of.1, named.get(&of)) {
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
