//! EXPUNGE and UID EXPUNGE. RFC 9051 §6.4.3, §6.4.9; RFC 7162 §3.2.7.

use mail_proto::imap::encode::Code;
use mail_proto::imap::sequence::{Addressing, MessageSet};

use super::reply::{Failure, Reply};
use super::state::Place;
use super::view::View;
use super::{Session, limit};
use crate::volume::{Flags, Rights};

/// The messages that go are told before the answer, as those are that other sessions remove.
pub(super) async fn run(
    session: &mut Session<'_>,
    set: Option<MessageSet>,
) -> Result<Reply, Failure> {
    let (wanted, beyond) = match set {
        Some(set) => last_deleted(session, &set).await?,
        // RFC 9738 §3.1: EXPUNGE and CLOSE have no limit.
        None => (session.selected_writable()?.view.clone(), None),
    };
    let modseq = remove_deleted(session, &wanted).await?;
    if modseq.is_none() {
        // What there was to remove may have been removed by another session a moment ago: it is told with this answer.
        session.settle().await;
    }
    let has_qresync = session.state.enabled.qresync;
    let reply = match modseq {
        Some(modseq) if has_qresync => Reply::ok_with(&Code::HighestModSeq(modseq), "done"),
        _ => Reply::ok("done"),
    };
    Ok(limit::conclude(session, reply, beyond))
}

/// The messages of a set; if that could be too many, those with `\Deleted`, and the last of them only: it is these that
/// the limit counts.
async fn last_deleted(
    session: &mut Session<'_>,
    set: &MessageSet,
) -> Result<(View, Option<Code<'static>>), Failure> {
    let selected = session.selected_writable()?;
    let mut wanted = selected.resolve(set, Addressing::Uid)?;
    let kept = session.service.message_limit.kept();
    if kept.is_none_or(|limit| wanted.count() <= limit) {
        return Ok((wanted, None));
    }
    let Place {
        account, mailbox, ..
    } = selected.place;
    let volume = session.volume_of(account).await?;
    let snapshot = volume.snapshot(account, mailbox).await?;
    let messages = snapshot.map_or(Vec::new(), |now| now.messages);
    let deleted = messages
        .iter()
        .filter(|message| message.flags.contains(Flags::DELETED));
    wanted.intersect(&deleted.map(|message| message.uid).collect());
    let beyond = limit::keep_last(session, &mut wanted);
    Ok((wanted, beyond))
}

/// Removes what has `\Deleted` among these messages, all of which the client knows. The MODSEQ of that, if there was one.
pub(super) async fn remove_deleted(
    session: &mut Session<'_>,
    wanted: &View,
) -> Result<Option<u64>, Failure> {
    let selected = session.selected_writable()?;
    let place = selected.place;
    place.need(Rights::EXPUNGE)?;
    let by = place.writer(session.state.account);
    let among = wanted.ranges();
    let volume = session.volume_of(place.account).await?;
    let mut modseq = None;
    loop {
        // Another session may take the flag away meanwhile: the volume says which there are.
        let removed = volume
            .expunge_deleted(place.account, by, place.mailbox, among.clone())
            .await?;
        if removed.modseq > 0 {
            modseq = Some(removed.modseq);
            session.removed(removed.modseq, &removed.uids);
        }
        if !removed.has_more {
            break;
        }
    }
    Ok(modseq)
}
