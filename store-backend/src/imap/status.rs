//! STATUS. RFC 9051 §6.3.11, RFC 8438, RFC 7889, RFC 8474.

use mail_proto::imap::command::StatusItem;
use mail_proto::imap::encode::StatusValue;
use mail_proto::imap::mailbox::MailboxName;

use super::Session;
use super::place::{Found, demand};
use super::reply::{Failure, Reply};
use super::state::Place;
use crate::volume::{Flags, MailboxInfo, Rights};

pub(super) async fn run(
    session: &mut Session<'_>,
    name: &MailboxName,
    items: &[StatusItem],
) -> Result<Reply, Failure> {
    let found = demand(session, name).await?;
    found.place.need(Rights::READ)?;
    tell(session, name, &found, items).await?;
    Ok(Reply::ok("done"))
}

/// STATUS of one mailbox; LIST tells it too.
pub(super) async fn tell(
    session: &mut Session<'_>,
    name: &MailboxName,
    found: &Found,
    items: &[StatusItem],
) -> Result<(), Failure> {
    let mailbox = &found.info;
    // The two items that are not in the mailbox's own record.
    let deleted_octets = match items.contains(&StatusItem::DeletedStorage) {
        true => deleted_octets(session, found).await?,
        false => 0,
    };
    let recent_count = match items.contains(&StatusItem::Recent) {
        true => recent_count(session, found).await?,
        false => 0,
    };
    let id = mailbox_id(mailbox);
    let limit = session.service.message_size_max_bytes;
    let value = |item: &StatusItem| match item {
        StatusItem::Messages => StatusValue::Number(mailbox.message_count),
        StatusItem::Recent => StatusValue::Number(recent_count),
        StatusItem::UidNext => StatusValue::Number(mailbox.uidnext.into()),
        StatusItem::UidValidity => StatusValue::Number(mailbox.uidvalidity.into()),
        StatusItem::Unseen => StatusValue::Number(mailbox.unseen_count),
        StatusItem::Deleted => StatusValue::Number(mailbox.deleted_count),
        StatusItem::DeletedStorage => StatusValue::Number(deleted_octets),
        StatusItem::Size => StatusValue::Number(mailbox.size_octets),
        StatusItem::HighestModSeq => StatusValue::Number(mailbox.highestmodseq),
        StatusItem::AppendLimit => StatusValue::Number(limit),
        StatusItem::MailboxId => StatusValue::Id(&id),
    };
    let values: Vec<_> = items.iter().map(|item| (*item, value(item))).collect();
    session.encoder().status(name, &values);
    // RFC 7162 §3.1: asking for it switches it on.
    if items.contains(&StatusItem::HighestModSeq) {
        session.use_modseq();
        let selected = session.state.selected.as_ref();
        if selected.is_some_and(|selected| selected.place == found.place) {
            session.saw(mailbox.highestmodseq);
        }
    }
    Ok(())
}

/// Messages that no session was told of.
async fn recent_count(session: &mut Session<'_>, found: &Found) -> Result<u64, Failure> {
    let Place {
        account, mailbox, ..
    } = found.place;
    let volume = session.volume_of(account).await?;
    let Some(first) = volume.first_recent(account, mailbox) else {
        return Ok(0);
    };
    let snapshot = volume.snapshot(account, mailbox).await?;
    let messages = snapshot.map_or(Vec::new(), |now| now.messages);
    let count = messages.len() - messages.partition_point(|message| message.uid < first);
    Ok(count as u64)
}

async fn deleted_octets(session: &mut Session<'_>, found: &Found) -> Result<u64, Failure> {
    if found.info.deleted_count == 0 {
        return Ok(0);
    }
    let Found { place, .. } = found;
    let volume = session.volume_of(place.account).await?;
    let snapshot = volume.snapshot(place.account, place.mailbox);
    let messages = snapshot.await?.map_or(Vec::new(), |now| now.messages);
    let deleted = messages
        .iter()
        .filter(|message| message.flags.contains(Flags::DELETED));
    Ok(deleted.map(|message| message.size_octets).sum())
}

/// MAILBOXID: letters and digits. RFC 8474 §4.
pub(super) fn mailbox_id(mailbox: &MailboxInfo) -> String {
    data_encoding::HEXLOWER.encode(&mailbox.identity)
}
