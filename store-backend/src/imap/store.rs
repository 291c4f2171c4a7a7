//! STORE. RFC 9051 §6.4.6, RFC 7162 §3.1.3.

use mail_proto::imap::command::{Store, StoreAction};
use mail_proto::imap::encode::{Code, FetchWriter};
use mail_proto::imap::sequence::{Addressing, SequenceSet};

use super::fetch::blocking;
use super::reply::{Failure, Reply};
use super::view::View;
use super::{Session, carry, flags, limit, updates};
use crate::volume::{
    Batch, FlagChange, FlagSet, Flags, FlagsNow, MailboxReader, Refusal, Rights, Stored, Want,
};

pub(super) async fn run(session: &mut Session<'_>, request: Store) -> Result<Reply, Failure> {
    let selected = session.selected_writable()?;
    let mut uids = selected.resolve(&request.set, request.by)?;
    let beyond = limit::keep_last(session, &mut uids);
    let selected = session.selected()?;
    let place = selected.place;
    let by = place.writer(session.state.account);
    if request.unchanged_since.is_some() {
        session.use_modseq();
    }
    let named = flags::to_store(&request.flags);
    let change = match request.action {
        StoreAction::Replace => FlagChange::Replace(named),
        StoreAction::Add => FlagChange::Add(named),
        StoreAction::Remove => FlagChange::Remove(named),
    };
    let change = within(change, place.rights)?;
    let volume = session.volume_of(place.account).await?;
    let uids: Vec<u32> = uids.uids().collect();
    let mut unchanged = View::default();
    let mut has_missing = false;
    for slice in uids.chunks(SLICE) {
        let selected = session.selected()?;
        let known = selected.modseq;
        let stored = volume.store_flags(
            place.account,
            by,
            place.mailbox,
            slice.to_vec(),
            change.clone(),
            request.unchanged_since,
        );
        let stored = stored.await?;
        let told_before = session.told.clone();
        if stored.modseq > 0 {
            session.told(stored.modseq);
        }
        unchanged.unite(&stored.failed.iter().copied().collect());
        has_missing |= stored.now.len() + stored.failed.len() < slice.len();
        // A client may know only those keywords that it was told of.
        updates::tell_keywords(session, &stored.keywords);
        for message in &stored.now {
            let is_ours = stored.modseq > 0 && message.modseq == stored.modseq;
            // What somebody else has changed since the client was told `.SILENT` does not keep from it.
            let before = message.modseq_before;
            let is_news = before > known && !told_before.contains(&before);
            let tells_flags = !request.silent || (is_ours && is_news);
            let tells_modseq = session.state.enabled.condstore && (tells_flags || is_ours);
            if tells_flags || tells_modseq {
                session.saw(message.modseq);
                tell(session, &stored, message, tells_flags, request.by);
                session.flush_if_full().await?;
            }
        }
    }
    let reply = answer(session, &request, &unchanged, has_missing)?;
    Ok(limit::conclude(session, reply, beyond))
}

/// What of a change these rights permit; the rest is passed over (RFC 4314 §4).
fn within(change: FlagChange, rights: Rights) -> Result<FlagChange, Failure> {
    let flags = Rights::SEEN | Rights::DELETE | Rights::WRITE;
    if rights.has(flags) {
        return Ok(change);
    }
    let system = carry::system(rights);
    let is_nothing = |set: &FlagSet| set.system == Flags::default() && set.keywords.is_empty();
    let is_any = !is_nothing(change.named());
    let set = carry::permitted(change.named().clone(), rights);
    // Of what was named nothing is permitted, or nothing at all is.
    if is_any && is_nothing(&set) || system == Flags::default() {
        return Err(Refusal::NotPermitted.into());
    }
    Ok(match change {
        FlagChange::Add(_) => FlagChange::Add(set),
        FlagChange::Remove(_) => FlagChange::Remove(set),
        FlagChange::Replace(_) | FlagChange::ReplaceWithin { .. } => FlagChange::ReplaceWithin {
            set,
            system,
            keywords: rights.has(Rights::WRITE),
        },
    })
}

fn answer(
    session: &mut Session<'_>,
    request: &Store,
    unchanged: &View,
    has_missing: bool,
) -> Result<Reply, Failure> {
    if !unchanged.is_empty() {
        let selected = session.selected()?;
        let numbers = match request.by {
            Addressing::Uid => SequenceSet::from_ranges(unchanged.ranges()),
            Addressing::Sequence => SequenceSet::from_numbers(
                unchanged
                    .uids()
                    .filter_map(|uid| selected.view.sequence(uid)),
            ),
        };
        let text = "messages changed since were left as they are";
        return Ok(Reply::ok_with(&Code::Modified(&numbers), text));
    }
    Ok(match has_missing && request.by == Addressing::Sequence {
        true => Reply::some_gone(),
        false => Reply::ok("done"),
    })
}

/// One message after the change. With CONDSTORE its MODSEQ too, which is told even where the flags are not asked for
/// (RFC 7162 §3.1.3).
fn tell(
    session: &mut Session<'_>,
    stored: &Stored,
    message: &FlagsNow,
    tells_flags: bool,
    by: Addressing,
) {
    let (enabled, form) = (session.state.enabled, session.state.form());
    let selected = session.state.selected.as_ref();
    let Some(sequence) = selected.and_then(|selected| selected.view.sequence(message.uid)) else {
        return;
    };
    let is_recent = selected.is_some_and(|selected| selected.recent.contains(message.uid));
    let out = &mut session.out;
    let mut fetch = match enabled.uid_only {
        true => FetchWriter::begin_uid(out, message.uid, form),
        false => FetchWriter::begin(out, sequence, form),
    };
    // RFC 7162 §3.2.10: with QRESYNC always.
    if !enabled.uid_only && (by == Addressing::Uid || enabled.qresync) {
        fetch.uid(out, message.uid);
    }
    if tells_flags {
        fetch.flags(out, &flags::of_stored(stored, message), is_recent);
    }
    if enabled.condstore {
        fetch.modseq(out, message.modseq);
    }
    fetch.end(out);
}

pub(super) async fn rows(reader: &MailboxReader, uids: Vec<u32>) -> Result<Option<Batch>, Failure> {
    let (_, batch) = blocking(&reader.turns(), reader.clone(), move |reader| {
        reader.messages(&uids, Want::ROWS)
    })
    .await?;
    Ok(batch?)
}

/// Messages changed in one command of the volume: some thousand, so that others get between.
const SLICE: usize = 4000;
