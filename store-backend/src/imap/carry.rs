//! Messages from one account to another: what COPY and MOVE do when source and target have different owners, or when
//! not every flag may go along.
//!
//! A volume copies within an account only, and the other account may live on another volume. Here the octets are written
//! once more, read whole and so verified (P9), and added by one command: all messages or none. They are new messages at their new owner's, whose quota counts them.

use mail_proto::imap::sequence::SequenceSet;

use super::Session;
use super::place::check_open;
use super::reply::Failure;
use super::state::Place;
use super::store::rows;
use crate::volume::{
    APPEND_MESSAGES_MAX, AppendBody, AppendMessage, FlagSet, Flags, Refusal, Rights,
};

/// What was added where.
pub(super) struct Carried {
    pub(super) uidvalidity: u32,
    /// UIDs in the source, of those that were there.
    pub(super) from: Vec<u32>,
    to: Vec<u32>,
}

impl Carried {
    /// Source and target of COPYUID, in corresponding order: both grow.
    pub(super) fn sets(&self) -> (SequenceSet, SequenceSet) {
        (
            SequenceSet::from_numbers(self.from.iter().copied()),
            SequenceSet::from_numbers(self.to.iter().copied()),
        )
    }
}

/// Whether it takes this way.
pub(super) fn is_needed(from: &Place, to: &Place) -> bool {
    from.account != to.account || !to.rights.has(Rights::SEEN | Rights::DELETE | Rights::WRITE)
}

/// Adds messages of one mailbox to another; at most [`APPEND_MESSAGES_MAX`]. Nothing is added when the user has no longer
/// what is `needed` of the mailbox they are in.
pub(super) async fn carry(
    session: &mut Session<'_>,
    from: Place,
    uids: &[u32],
    to: Place,
    needed: Rights,
) -> Result<Carried, Failure> {
    if uids.len() > APPEND_MESSAGES_MAX {
        return Err(Refusal::Full.into());
    }
    let source = session.volume_of(from.account).await?;
    let target = session.volume_of(to.account).await?;
    let (mut bodies, mut held) = (Vec::new(), Vec::new());
    for uid in uids {
        // The right to read it may go with any message: they may be large.
        check_open(session).await?;
        let found = source.read_message(from.account, from.mailbox, *uid);
        let Some(mut found) = found.await? else {
            continue;
        };
        let mut writer = target.begin_blob();
        writer.write(&found.prologue).await?;
        while let Some(octets) = found.blob.next().await? {
            writer.write(&octets).await?;
        }
        let blob = writer.finish().await?;
        let body = AppendBody::Put {
            hash: blob.hash(),
            octets: blob.size(),
            // RFC 8474 §5.1.
            identity: Some(found.info.identity),
        };
        held.push(target.put_blob(blob).await?);
        bodies.push((*uid, body));
    }
    // That has taken a while: what is there now, with the flags it has now.
    let reader = source.mailbox_reader(from.account, from.mailbox).await;
    let uids = bodies.iter().map(|(uid, _)| *uid).collect();
    let batch = rows(&reader, uids).await?.ok_or(Failure::MailboxGone)?;
    check_open(session).await?;
    session.selected()?.place.need(needed)?;
    let mut messages = Vec::with_capacity(bodies.len());
    let mut carried = Carried {
        uidvalidity: 0,
        from: Vec::new(),
        to: Vec::new(),
    };
    let mut bodies = bodies.into_iter();
    for summary in &batch.now.messages {
        // Both grow.
        let Some((_, body)) = bodies.find(|(uid, _)| *uid == summary.uid) else {
            continue;
        };
        let keywords = batch.now.keywords_of(summary).map(str::to_owned);
        let flags = FlagSet {
            system: summary.flags,
            keywords: keywords.collect(),
        };
        messages.push(AppendMessage {
            body,
            flags: permitted(flags, to.rights),
            internal_date_ms: summary.internal_date_ms,
        });
        carried.from.push(summary.uid);
    }
    if !messages.is_empty() {
        let by = to.writer(session.state.account);
        let appended = target.append(to.account, by, to.mailbox, messages);
        let appended = appended.await?;
        carried.uidvalidity = appended.uidvalidity;
        carried.to = appended.uids;
        // As after any other change of the open mailbox. Its flags and keywords are not known here.
        session.has_changed |= (from.account, from.mailbox) == (to.account, to.mailbox);
        session.made(to, &carried.to, appended.modseq);
    }
    Ok(carried)
}

/// Those flags that may be set with these rights (RFC 4314 §4: the others are passed over).
pub(super) fn permitted(mut flags: FlagSet, rights: Rights) -> FlagSet {
    flags.system.0 &= system(rights).0;
    if !rights.has(Rights::WRITE) {
        flags.keywords.clear();
    }
    flags
}

/// The system flags that may be changed with these rights.
pub(super) fn system(rights: Rights) -> Flags {
    let mut flags = Flags::default();
    for (right, named) in [
        (Rights::SEEN, Flags::SEEN),
        (Rights::DELETE, Flags::DELETED),
        (
            Rights::WRITE,
            Flags::ANSWERED | Flags::FLAGGED | Flags::DRAFT,
        ),
    ] {
        if rights.has(right) {
            flags = flags | named;
        }
    }
    flags
}
