//! SELECT and EXAMINE. RFC 9051 §6.3.2, §6.3.3; RFC 7162 §3.1.8, §3.2.5.

use mail_proto::imap::command::{QuickResync, Select};
use mail_proto::imap::encode::{Code, Condition};
use mail_proto::imap::sequence::SequenceSet;

use super::fetch::unknown_to;
use super::reply::{Failure, Reply};
use super::state::{Place, Selected};
use super::status::mailbox_id;
use super::view::View;
use super::{Session, list, place, quota, updates};
use crate::volume::{OpenedMailbox, Rights};

pub(super) async fn run(
    session: &mut Session<'_>,
    request: Select,
    read_only: bool,
) -> Result<Reply, Failure> {
    if request.resync.is_some() && !session.state.enabled.qresync {
        // RFC 7162 §3.2.5.
        return Ok(Reply::bad("enable QRESYNC first"));
    }
    // Whether or not this one opens, the one before is closed, without an expunge.
    if session.deselect() {
        let code = Code::Word("CLOSED");
        session
            .encoder()
            .untagged(Condition::Ok, Some(&code), "mailbox is closed");
    }
    let (place, now) = place::open(session, &request.mailbox).await?;
    place.need(Rights::READ)?;
    // RFC 4314 §5.2.
    let may_change = [
        Rights::INSERT,
        Rights::EXPUNGE,
        Rights::SEEN,
        Rights::DELETE,
        Rights::WRITE,
    ];
    let may_change = may_change.iter().any(|right| place.rights.has(*right));
    let read_only = read_only || !session.service.may_write || !may_change;
    session.state.enabled.condstore |= request.condstore || request.resync.is_some();
    let (at, uid_next) = ((place.account, place.mailbox), now.mailbox.uidnext);
    let first = updates::first_recent(session, at, uid_next, read_only);
    let recent = match first {
        Some(first) => intersection(&now.uids, &[(first, u32::MAX)]),
        None => Vec::new(),
    };
    let recent = View::from(recent);
    let rights = match read_only {
        true => Rights::default(),
        false => place.rights,
    };
    tell_mailbox(session, &now, rights, recent.count());
    if session.state.enabled.imap4rev2 {
        list::tell_one(session, &request.mailbox).await?;
    }
    session.state.selected = Some(Selected {
        place,
        name: request.mailbox,
        read_only,
        uidvalidity: now.mailbox.uidvalidity,
        view: now.uids.clone().into(),
        gone: View::default(),
        gone_since: 0,
        uid_next: now.mailbox.uidnext,
        modseq: now.mailbox.highestmodseq,
        keyword_count: now.keywords.len(),
        saved: View::default(),
        recent,
    });
    quota::warn(session, place.account).await?;
    if let Some(known) = request.resync {
        resync(session, place, &now, &known).await?;
    }
    Ok(match read_only {
        true => Reply::ok_with(&Code::Word("READ-ONLY"), "mailbox is open"),
        false => Reply::ok_with(&Code::Word("READ-WRITE"), "mailbox is open"),
    })
}

fn tell_mailbox(session: &mut Session<'_>, now: &OpenedMailbox, rights: Rights, recent_count: u32) {
    let enabled = session.state.enabled;
    let mailbox = &now.mailbox;
    updates::tell_flag_names(session, &now.keywords, rights);
    let mut encoder = session.encoder();
    encoder.exists(u32::try_from(mailbox.message_count).unwrap_or(u32::MAX));
    if !enabled.imap4rev2 {
        encoder.recent(recent_count);
        // RFC 9586 §3: with UIDONLY no sequence number in any response.
        if let Some(number) = now.first_unseen.filter(|_| !enabled.uid_only) {
            let code = Code::Unseen(number);
            encoder.untagged(Condition::Ok, Some(&code), "first unseen");
        }
    }
    let id = mailbox_id(mailbox);
    let codes = [
        (Code::UidValidity(mailbox.uidvalidity), "UIDs are valid"),
        (Code::UidNext(mailbox.uidnext), "next UID"),
        (Code::HighestModSeq(mailbox.highestmodseq), "highest MODSEQ"),
        (Code::MailboxId(&id), "mailbox id"),
    ];
    for (code, text) in codes {
        encoder.untagged(Condition::Ok, Some(&code), text);
    }
}

/// What has changed since the client had the mailbox open. RFC 7162 §3.2.5.1.
async fn resync(
    session: &mut Session<'_>,
    place: Place,
    now: &OpenedMailbox,
    known: &QuickResync,
) -> Result<(), Failure> {
    if known.uid_validity != now.mailbox.uidvalidity {
        // What it knows is of a mailbox that is not there any more.
        return Ok(());
    }
    let volume = session.volume_of(place.account).await?;
    let changes = volume.changes_since(place.account, place.mailbox, known.modseq);
    let Some(changes) = changes.await? else {
        return Ok(());
    };
    let is_known = |uid: u32| match &known.known_uids {
        Some(uids) => uids.contains(uid, u32::MAX),
        None => true,
    };
    session.saw(changes.now.mailbox.highestmodseq);
    let all = [(1, now.mailbox.uidnext.saturating_sub(1))];
    let known_uids = known.known_uids.as_ref().map(SequenceSet::ranges);
    let vanished = intersection(&changes.vanished, known_uids.unwrap_or(&all));
    // What EXISTS has counted and went since is told with the next command, as any other expunge.
    let vanished = SequenceSet::from_ranges(unknown_to(session.selected()?, &vanished));
    session.encoder().vanished(true, &vanished);
    updates::tell_keywords(session, &changes.now.keywords);
    for message in &changes.now.messages {
        let Some(selected) = &session.state.selected else {
            return Ok(());
        };
        // So is what came or changed since the snapshot.
        let is_in_it = message.modseq <= now.mailbox.highestmodseq;
        let sequence = selected.view.sequence(message.uid);
        if let Some(sequence) = sequence.filter(|_| is_in_it && is_known(message.uid)) {
            updates::write_flags(session, &changes.now, message, sequence);
            session.flush_if_full().await?;
        }
    }
    Ok(())
}

/// What two lists of ranges, each growing and disjoint, have in common.
pub(super) fn intersection(one: &[(u32, u32)], other: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let (mut a, mut b) = (one.iter().peekable(), other.iter().peekable());
    let mut common = Vec::new();
    while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
        let (first, last) = (x.0.max(y.0), x.1.min(y.1));
        if first <= last {
            common.push((first, last));
        }
        match x.1 < y.1 {
            true => a.next(),
            false => b.next(),
        };
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_intersect() {
        let one = [(1, 10), (20, 30), (40, 40)];
        assert_eq!(
            intersection(&one, &[(5, 25), (30, 50)]),
            [(5, 10), (20, 25), (30, 30), (40, 40)]
        );
        assert_eq!(intersection(&one, &[]), []);
    }
}
