//! What has changed, told to the client: EXISTS, EXPUNGE or VANISHED, FETCH with flags.
//! RFC 9051 §5.2, §7.4, §7.5; RFC 7162 §3.2.10.

use directory_api::AccountId;
use mail_proto::imap::command::{Command, Fetch, FetchItem, Flag};
use mail_proto::imap::encode::{Code, Condition, FetchWriter};
use mail_proto::imap::sequence::{Addressing, SequenceSet};

use super::place::check_open;
use super::reply::Failure;
use super::view::View;
use super::{Session, fetch, flags};
use crate::volume::{Changes, KEYWORDS_MAX, MailboxId, Rights, Snapshot, Summary};

/// What of the open mailbox may be told with the answer to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MayTell {
    All,
    /// All but EXPUNGE: a client numbers the answers by the messages it knew when it sent the command, and may have sent the
    /// next one already (RFC 9051 §7.5.1, RFC 5256).
    NoExpunge,
    /// Nothing: what SELECT tells is the mailbox at one moment. A client that resynchronises takes EXISTS as the count after
    /// VANISHED (EARLIER), and one message less behind it for one that it has still (RFC 7162 §3.2.5).
    Nothing,
}

/// What may be told with the answer to this command.
pub(super) fn may_tell(command: &Command) -> MayTell {
    let by = match command {
        Command::Fetch(fetch) => fetch.by,
        Command::Store(store) => store.by,
        Command::Search(search) => search.by,
        Command::Sort(sort) => sort.by,
        Command::Thread(thread) => thread.by,
        Command::Select(_) | Command::Examine(_) => return MayTell::Nothing,
        _ => return MayTell::All,
    };
    match by {
        Addressing::Uid => MayTell::All,
        Addressing::Sequence => MayTell::NoExpunge,
    }
}

/// Brings the client's view up to date with the mailbox.
pub(super) async fn tell(session: &mut Session<'_>, may_expunge: bool) -> Result<(), Failure> {
    session.note_rung().await;
    let hears = session.state.hears();
    if !hears.messages && !session.acts {
        // NOTIFY without SELECTED: it stays to be told until it is asked for again.
        return match session.has_changed {
            true => check_open(session).await,
            false => Ok(()),
        };
    }
    let (hears_flags, items) = (hears.flags, hears.items.to_vec());
    let has_news = std::mem::take(&mut session.has_changed);
    let Some(selected) = &session.state.selected else {
        return Ok(());
    };
    if !has_news {
        // What was held back needs no look into the index.
        if may_expunge && !selected.gone.is_empty() {
            tell_gone(session);
        }
        return Ok(());
    }
    let (place, since, known_below) = (selected.place, selected.modseq, selected.uid_next);
    let volume = session.volume_of(place.account).await?;
    let changes = volume
        .changes_since(place.account, place.mailbox, since)
        .await;
    let may_tell = check_open(session).await;
    // Until it could be read, it is not told.
    session.has_changed = changes.is_err() || may_tell.is_err();
    may_tell?;
    let Some(changes) = changes? else {
        return Err(Failure::MailboxGone);
    };
    note_vanished(session, &changes);
    if may_expunge {
        tell_gone(session);
    }
    let uids = changes.now.messages.iter().map(|message| message.uid);
    tell_arrived(session, uids, changes.now.mailbox.uidnext);
    tell_keywords(session, &changes.now.keywords);
    if hears_flags {
        tell_flags(session, &changes.now, since, known_below).await?;
    }
    if let Some(selected) = &mut session.state.selected {
        selected.modseq = changes.now.mailbox.highestmodseq;
    }
    match items.is_empty() {
        true => Ok(()),
        false => tell_items(session, &changes.now, known_below, items).await,
    }
}

/// What NOTIFY asks for of each new message; not of those that the session has added itself. RFC 5465 §5.2.
async fn tell_items(
    session: &mut Session<'_>,
    now: &Snapshot,
    known_below: u32,
    items: Vec<FetchItem>,
) -> Result<(), Failure> {
    let uids = now.messages.iter().map(|message| message.uid);
    let new: View = uids
        .filter(|uid| *uid >= known_below && !session.made.contains(uid))
        .collect();
    let request = Fetch {
        by: Addressing::Uid,
        set: SequenceSet::from_ranges(new.ranges()).into(),
        items,
        changed_since: None,
        vanished: false,
        partial: None,
    };
    // One that cannot be read was logged; there is no command that could be answered NO.
    fetch::new_messages(session, &request, &new).await
}

fn note_vanished(session: &mut Session<'_>, changes: &Changes) {
    if let Some(selected) = &mut session.state.selected {
        for (first, last) in &changes.vanished {
            // Also those that are still in the view only because they could not be told yet.
            let gone: Vec<u32> = selected.view.uids_between(*first, *last).collect();
            selected.note_gone(gone.into_iter());
        }
    }
}

/// EXPUNGE for each, or VANISHED for all at once.
fn tell_gone(session: &mut Session<'_>) {
    let enabled = session.state.enabled;
    let Some(selected) = &mut session.state.selected else {
        return;
    };
    let gone = std::mem::take(&mut selected.gone);
    if gone.is_empty() {
        return;
    }
    // From the end, so that no number changes before it is told.
    let numbers: Vec<u32> = match enabled.qresync || enabled.uid_only {
        true => Vec::new(),
        false => gone
            .uids()
            .rev()
            .filter_map(|uid| selected.view.sequence(uid))
            .collect(),
    };
    selected.view.subtract(&gone);
    selected.saved.subtract(&gone);
    selected.recent.subtract(&gone);
    if enabled.qresync || enabled.uid_only {
        let uids = SequenceSet::from_ranges(gone.ranges());
        session.encoder().vanished(false, &uids);
    } else {
        let mut encoder = session.encoder();
        for number in numbers {
            encoder.expunge(number);
        }
    }
}

/// The first UID from which on messages are `\Recent` to this session. It is the first to be told of them, unless it
/// only looks. IMAP4rev2 has no such flag (RFC 9051 §E).
pub(super) fn first_recent(
    session: &Session<'_>,
    (account, mailbox): (AccountId, MailboxId),
    uid_next: u32,
    looks_only: bool,
) -> Option<u32> {
    if session.state.enabled.imap4rev2 {
        return None;
    }
    let volume = session.volume_asked(account)?;
    match looks_only {
        true => volume.first_recent(account, mailbox),
        false => volume.take_recent(account, mailbox, uid_next),
    }
}

/// EXISTS when there are messages behind those that the client knows.
pub(super) fn tell_arrived(
    session: &mut Session<'_>,
    uids: impl Iterator<Item = u32>,
    uid_next: u32,
) {
    let Some(selected) = &session.state.selected else {
        return;
    };
    let place = (selected.place.account, selected.place.mailbox);
    let first_recent = match selected.uid_next < uid_next {
        true => first_recent(session, place, uid_next, selected.read_only).unwrap_or(u32::MAX),
        false => u32::MAX,
    };
    let Some(selected) = &mut session.state.selected else {
        return;
    };
    let mut has_new = false;
    for uid in uids.filter(|uid| *uid >= selected.uid_next) {
        has_new = true;
        selected.view.insert(uid);
        if uid >= first_recent {
            selected.recent.insert(uid);
        }
    }
    selected.uid_next = uid_next;
    if has_new {
        let (count, recent_count) = (selected.view.count(), selected.recent.count());
        let mut encoder = session.encoder();
        encoder.exists(count);
        if first_recent < u32::MAX {
            encoder.recent(recent_count);
        }
    }
}

/// FLAGS again when there are new keywords: a client may know only those it was told of.
pub(super) fn tell_keywords(session: &mut Session<'_>, keywords: &[String]) {
    let Some(selected) = &mut session.state.selected else {
        return;
    };
    if selected.keyword_count < keywords.len() {
        selected.keyword_count = keywords.len();
        let rights = selected.flag_rights();
        tell_flag_names(session, keywords, rights);
    }
}

/// FLAGS and PERMANENTFLAGS.
pub(super) fn tell_flag_names(session: &mut Session<'_>, keywords: &[String], rights: Rights) {
    let names = flags::of_mailbox(keywords);
    let mut encoder = session.encoder();
    encoder.flags(&names);
    let may_add = rights.has(Rights::WRITE) && keywords.len() < KEYWORDS_MAX;
    let permanent: Vec<Flag> = names
        .into_iter()
        .filter(|flag| flags::may_change(flag, rights))
        .collect();
    let code = Code::PermanentFlags(&permanent, may_add);
    encoder.untagged(Condition::Ok, Some(&code), "flags that stay");
}

/// FETCH for messages whose flags the client knows otherwise. New ones it will fetch itself.
async fn tell_flags(
    session: &mut Session<'_>,
    now: &Snapshot,
    since: u64,
    known_below: u32,
) -> Result<(), Failure> {
    for message in &now.messages {
        let Some(selected) = &session.state.selected else {
            return Ok(());
        };
        let is_news = message.modseq > since
            && message.uid < known_below
            && !session.told.contains(&message.modseq)
            && !selected.gone.contains(message.uid);
        if is_news && let Some(sequence) = selected.view.sequence(message.uid) {
            write_flags(session, now, message, sequence);
            session.flush_if_full().await?;
        }
    }
    Ok(())
}

/// FETCH with the flags of one message, as anybody who did not ask for it is told.
pub(super) fn write_flags(
    session: &mut Session<'_>,
    now: &Snapshot,
    message: &Summary,
    sequence: u32,
) {
    let (enabled, form) = (session.state.enabled, session.state.form());
    let selected = session.state.selected.as_ref();
    let is_recent = selected.is_some_and(|selected| selected.recent.contains(message.uid));
    let out = &mut session.out;
    let mut fetch = match enabled.uid_only {
        true => FetchWriter::begin_uid(out, message.uid, form),
        false => FetchWriter::begin(out, sequence, form),
    };
    // RFC 7162 §3.2.10: with QRESYNC the UID is always told; without, it does no harm and
    // spares the client its own table.
    if !enabled.uid_only {
        fetch.uid(out, message.uid);
    }
    fetch.flags(out, &flags::of_message(now, message), is_recent);
    if enabled.condstore {
        fetch.modseq(out, message.modseq);
    }
    fetch.end(out);
}
