//! COPY. RFC 9051 §6.4.7, RFC 4315.

use mail_proto::imap::encode::Code;
use mail_proto::imap::mailbox::MailboxName;
use mail_proto::imap::sequence::{Addressing, MessageSet, SequenceSet};

use super::carry::{carry, is_needed};
use super::place::find;
use super::reply::{Failure, Reply};
use super::state::Place;
use super::store::rows;
use super::{Session, limit, quota};
use crate::volume::{APPEND_MESSAGES_MAX, Copied, Refusal, Rights, UIDS_MAX};

/// All messages or none.
pub(super) async fn run(
    session: &mut Session<'_>,
    by: Addressing,
    set: MessageSet,
    target: MailboxName,
) -> Result<Reply, Failure> {
    session.selected()?;
    session.writable()?;
    let named = session.selected()?.resolve(&set, by)?;
    let uids: Vec<u32> = named.uids().collect();
    let Some(target) = find_target(session, &target).await? else {
        return Ok(no_target());
    };
    let source = session.selected()?.place;
    let is_carried = is_needed(&source, &target);
    // One record of the journal, or what one APPEND takes.
    let max = match is_carried {
        true => APPEND_MESSAGES_MAX,
        false => UIDS_MAX,
    };
    let kept = session.service.message_limit.kept();
    let max = kept.map_or(max, |kept| max.min(kept.try_into().unwrap_or(max)));
    if uids.len() > max {
        return Ok(limit::refused(session, max, Some(&named)));
    }
    if by == Addressing::Sequence && has_missing(session, &uids).await? {
        return Ok(missing());
    }
    if is_carried {
        return match carry(session, source, &uids, target, Rights::READ).await {
            Ok(carried) if carried.from.is_empty() => Ok(Reply::ok("there is nothing to copy")),
            Ok(carried) => {
                quota::warn(session, target.account).await?;
                let (from, to) = carried.sets();
                let code = Code::CopyUid(carried.uidvalidity, &from, &to);
                Ok(Reply::ok_with(&code, "copied"))
            }
            Err(Failure::Refused(Refusal::NoMailbox)) => Ok(no_target()),
            Err(failure) => Err(failure),
        };
    }
    let volume = session.volume_of(source.account).await?;
    let copied = volume.copy_messages(
        source.account,
        source.writer(session.state.account),
        source.mailbox,
        uids,
        target.mailbox,
    );
    match copied.await {
        Ok(copied) if copied.uids.is_empty() => Ok(Reply::ok("there is nothing to copy")),
        Ok(copied) => {
            // Their flags and keywords are not known here.
            session.has_changed |= target.mailbox == source.mailbox;
            quota::warn(session, target.account).await?;
            made(session, target, &copied);
            let (from, to) = copied_sets(&copied);
            let code = Code::CopyUid(copied.uidvalidity, &from, &to);
            Ok(Reply::ok_with(&code, "copied"))
        }
        Err(Refusal::NoMailbox) => Ok(no_target()),
        Err(refusal) => Err(refusal.into()),
    }
}

pub(super) async fn find_target(
    session: &mut Session<'_>,
    name: &MailboxName,
) -> Result<Option<Place>, Failure> {
    let found = find(session, name).await?;
    if let Some(found) = &found {
        found.place.need(Rights::INSERT)?;
    }
    Ok(found.map(|found| found.place))
}

/// RFC 9051 §6.4.7: creating it would help.
pub(super) fn no_target() -> Reply {
    Reply::no("TRYCREATE", "there is no such mailbox")
}

/// Whether a message that the client named by its number is gone. Then nothing is copied: it could not tell
/// which ones were (RFC 2180 §4.4).
pub(super) async fn has_missing(session: &mut Session<'_>, uids: &[u32]) -> Result<bool, Failure> {
    let Place {
        account, mailbox, ..
    } = session.selected()?.place;
    let volume = session.volume_of(account).await?;
    let reader = volume.mailbox_reader(account, mailbox).await;
    let batch = rows(&reader, uids.to_vec()).await?;
    let batch = batch.ok_or(Failure::MailboxGone)?;
    Ok(batch.now.messages.len() < uids.len())
}

pub(super) fn missing() -> Reply {
    Reply::no("EXPUNGEISSUED", "some of the messages are gone")
}

/// Nobody needs to be told of what the command has added itself.
pub(super) fn made(session: &mut Session<'_>, target: Place, copied: &Copied) {
    let uids: Vec<u32> = copied.uids.iter().map(|(_, to)| *to).collect();
    session.made(target, &uids, copied.modseq);
}

/// Source and target of COPYUID, in corresponding order: both grow.
pub(super) fn copied_sets(copied: &Copied) -> (SequenceSet, SequenceSet) {
    let from = copied.uids.iter().map(|(from, _)| *from);
    let to = copied.uids.iter().map(|(_, to)| *to);
    (
        SequenceSet::from_numbers(from),
        SequenceSet::from_numbers(to),
    )
}
