//! MOVE. RFC 6851, RFC 9051 §6.4.8.

use mail_proto::imap::encode::{Code, Condition};
use mail_proto::imap::mailbox::MailboxName;
use mail_proto::imap::sequence::{Addressing, MessageSet};

use super::carry::{carry, is_needed};
use super::copy::{copied_sets, find_target, has_missing, made, missing, no_target};
use super::reply::{Failure, Reply};
use super::state::Place;
use super::{Session, limit};
use crate::volume::{APPEND_MESSAGES_MAX, Refusal, Rights};

/// Messages move in slices, each of them in one step: RFC 6851 §3.3 wants that of each message alone. COPYUID of each
/// slice comes untagged, before EXPUNGE.
pub(super) async fn run(
    session: &mut Session<'_>,
    by: Addressing,
    set: MessageSet,
    target: MailboxName,
) -> Result<Reply, Failure> {
    let selected = session.selected_writable()?;
    let source = selected.place;
    source.need(to_take_away())?;
    let mut uids = selected.resolve(&set, by)?;
    let beyond = limit::keep_last(session, &mut uids);
    let uids: Vec<u32> = uids.uids().collect();
    let Some(target) = find_target(session, &target).await? else {
        return Ok(no_target());
    };
    if by == Addressing::Sequence && has_missing(session, &uids).await? {
        return Ok(missing());
    }
    let moved = match is_needed(&source, &target) {
        true => carry_away(session, source, &uids, target).await,
        false => move_within(session, source, &uids, target).await,
    };
    match moved {
        Err(Failure::Refused(Refusal::NoMailbox)) => Ok(no_target()),
        moved => Ok(limit::conclude(session, moved?, beyond)),
    }
}

/// To a mailbox of the same owner.
async fn move_within(
    session: &mut Session<'_>,
    source: Place,
    uids: &[u32],
    target: Place,
) -> Result<Reply, Failure> {
    let volume = session.volume_of(source.account).await?;
    let by = source.writer(session.state.account);
    let mut modseq = 0;
    for slice in uids.chunks(SLICE) {
        let moved = volume.move_messages(
            source.account,
            by,
            source.mailbox,
            slice.to_vec(),
            target.mailbox,
        );
        let moved = moved.await?;
        if !moved.uids.is_empty() {
            modseq = modseq.max(moved.source_modseq);
            made(session, target, &moved);
            let gone: Vec<u32> = moved.uids.iter().map(|(from, _)| *from).collect();
            session.removed(moved.source_modseq, &gone);
            let (from, to) = copied_sets(&moved);
            let code = Code::CopyUid(moved.uidvalidity, &from, &to);
            session
                .encoder()
                .untagged(Condition::Ok, Some(&code), "moved");
        }
    }
    Ok(moved_by(session, modseq))
}

fn moved_by(session: &Session<'_>, modseq: u64) -> Reply {
    match session.state.enabled.qresync && modseq > 0 {
        true => Reply::ok_with(&Code::HighestModSeq(modseq), "done"),
        false => Reply::ok("done"),
    }
}

/// To a mailbox of another owner: slices are copied, then removed. A stop between leaves a slice in both.
async fn carry_away(
    session: &mut Session<'_>,
    source: Place,
    uids: &[u32],
    target: Place,
) -> Result<Reply, Failure> {
    let volume = session.volume_of(source.account).await?;
    let mut modseq = 0;
    for slice in uids.chunks(APPEND_MESSAGES_MAX) {
        let carried = carry(session, source, slice, target, to_take_away()).await?;
        if carried.from.is_empty() {
            continue;
        }
        let (from, to) = carried.sets();
        let by = source.writer(session.state.account);
        let removed = volume.expunge(source.account, by, source.mailbox, carried.from);
        let removed = removed.await.map_err(Refusal::of_source)?;
        if removed.modseq > 0 {
            modseq = modseq.max(removed.modseq);
            session.removed(removed.modseq, &removed.uids);
        }
        let code = Code::CopyUid(carried.uidvalidity, &from, &to);
        session
            .encoder()
            .untagged(Condition::Ok, Some(&code), "moved");
    }
    Ok(moved_by(session, modseq))
}

/// What a user must be permitted to do where the messages are. RFC 4314 §4, RFC 6851 §4.4.
fn to_take_away() -> Rights {
    Rights::DELETE | Rights::EXPUNGE
}

/// Messages moved in one command of the volume: some thousand, so that others get between.
const SLICE: usize = 2000;
