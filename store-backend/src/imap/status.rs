//! STATUS. RFC 9051 §6.3.11, RFC 8438, RFC 7889, RFC 8474.

use mail_proto::imap::command::StatusItem;
use mail_proto::imap::encode::StatusValue;
use mail_proto::imap::mailbox::MailboxName;

use super::Session;
use super::reply::{Failure, Reply};
use crate::volume::{Flags, MailboxInfo};

pub(super) async fn run(
    session: &mut Session<'_>,
    name: &MailboxName,
    items: &[StatusItem],
) -> Result<Reply, Failure> {
    let account = session.state.account;
    let found = session.service.volume.mailbox(account, name.as_str());
    let Some(mailbox) = found.await? else {
        return Ok(Reply::no("NONEXISTENT", "there is no such mailbox"));
    };
    tell(session, name, &mailbox, items).await?;
    Ok(Reply::ok("done"))
}

/// STATUS of one mailbox; LIST tells it too.
pub(super) async fn tell(
    session: &mut Session<'_>,
    name: &MailboxName,
    mailbox: &MailboxInfo,
    items: &[StatusItem],
) -> Result<(), Failure> {
    // The two items that are not in the mailbox's own record.
    let deleted_octets = match items.contains(&StatusItem::DeletedStorage) {
        true => deleted_octets(session, mailbox).await?,
        false => 0,
    };
    let recent_count = match items.contains(&StatusItem::Recent) {
        true => recent_count(session, mailbox).await?,
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
    }
    Ok(())
}

/// Messages that no session was told of.
async fn recent_count(session: &mut Session<'_>, mailbox: &MailboxInfo) -> Result<u64, Failure> {
    let (account, volume) = (session.state.account, session.service.volume);
    let Some(first) = volume.first_recent(account, mailbox.mailbox) else {
        return Ok(0);
    };
    let snapshot = volume.snapshot(account, mailbox.mailbox).await?;
    let messages = snapshot.map_or(Vec::new(), |now| now.messages);
    let count = messages.len() - messages.partition_point(|message| message.uid < first);
    Ok(count as u64)
}

async fn deleted_octets(session: &mut Session<'_>, mailbox: &MailboxInfo) -> Result<u64, Failure> {
    if mailbox.deleted_count == 0 {
        return Ok(0);
    }
    let account = session.state.account;
    let snapshot = session.service.volume.snapshot(account, mailbox.mailbox);
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
