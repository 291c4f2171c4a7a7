//! APPEND with any number of messages, REPLACE with one. RFC 9051 §6.3.12, RFC 3502, RFC 4315, RFC 8508.
//!
//! ```text
//! on_message ─▶ Upload ─▶ write … ─▶ end_message ─┬─▶ on_message   the next message
//!                                                 └─▶ on_end ─▶ volume.append or replace ─▶ OK [APPENDUID …]
//! ```
//!
//! The octets go to the volume as they come; nothing of a command that does not come to its end stays.

use daemon::clock::now_ms;
use directory_api::AccountId;
use mail_proto::imap::command::{MessageHead, MessageOptions, ReplaceHead, Tagged};
use mail_proto::imap::encode::{Code, Condition};
use mail_proto::imap::framing::Frame;
use mail_proto::imap::mailbox::{MailboxName, NameForm};
use mail_proto::imap::parse;
use mail_proto::imap::sequence::{Addressing, SequenceSet};

use super::carry::permitted;
use super::copy::{find_target, no_target};
use super::name::settle;
use super::reply::{Failure, Reply};
use super::state::Place;
use super::{Session, binary, flags, limit, quota};
use crate::volume::{
    APPEND_MESSAGES_MAX, AppendBody, AppendMessage, BlobWriter, FinishedBlob, Held, MailboxId,
    Refusal, Rights, Volume,
};

/// An APPEND or REPLACE under way.
pub(super) struct Upload {
    place: Place,
    /// By which it was named.
    name: MailboxName,
    /// The message that goes for it: its mailbox and UID.
    replaced: Option<(MailboxId, u32)>,
    /// Those that are whole; their octets are with the volume.
    messages: Vec<AppendMessage>,
    held: Vec<Held>,
    /// The last one: taken, or being taken.
    options: MessageOptions,
    body: Body,
    has_nul: bool,
}

enum Body {
    Coming(Box<BlobWriter>),
    Whole(FinishedBlob),
    /// A write has failed: the command is given up.
    Lost,
}

/// Decides on a message that is announced. An error is the command's answer.
pub(super) async fn on_message(
    session: &mut Session<'_>,
    upload: Option<Box<Upload>>,
    frame: &Frame,
    size: u64,
) -> Result<Box<Upload>, Result<Reply, Failure>> {
    let upload = match upload {
        None => Box::new(begin(session, frame).await?),
        Some(upload) => Box::new(upload.next(session, frame).await?),
    };
    check(session, &upload.options, size)?;
    Ok(upload)
}

async fn begin(session: &mut Session<'_>, frame: &Frame) -> Result<Upload, Result<Reply, Failure>> {
    let head = match parse::message_head(frame, session.state.form()) {
        Ok(Tagged { tag, command }) => {
            session.tag = tag;
            command
        }
        Err(bad) => {
            session.tag = bad.tag.unwrap_or_else(|| "*".to_owned());
            return Err(Ok(Reply::unreadable(&bad.error)));
        }
    };
    let (mut name, options, replaced) = match head {
        MessageHead::Append(head) => (head.mailbox, head.options, None),
        MessageHead::Replace(head) => {
            let replaced = replaced(session, &head)?;
            (head.mailbox, head.options, Some(replaced))
        }
    };
    session.writable().map_err(Err)?;
    settle(session, &mut name).await.map_err(Err)?;
    let Some(place) = find_target(session, &name).await.map_err(Err)? else {
        return Err(Ok(no_target()));
    };
    let volume = session.volume_of(place.account).await.map_err(Err)?;
    if replaced.is_some() && place.account != session.selected().map_err(Err)?.place.account {
        // One record cannot change two accounts.
        return Err(Ok(Reply::no("CANNOT", "the mailbox is of another account")));
    }
    Ok(Upload {
        place,
        name,
        replaced,
        messages: Vec::new(),
        held: Vec::new(),
        options,
        body: Body::Coming(Box::new(volume.begin_blob())),
        has_nul: false,
    })
}

/// The message that a REPLACE names.
fn replaced(
    session: &Session<'_>,
    head: &ReplaceHead,
) -> Result<(MailboxId, u32), Result<Reply, Failure>> {
    if session.state.enabled.uid_only && head.by == Addressing::Sequence {
        return Err(Ok(Reply::uid_required()));
    }
    let selected = session.selected_writable().map_err(Err)?;
    // RFC 8508 §4.1.
    let rights = Rights::DELETE | Rights::EXPUNGE;
    selected.place.need(rights).map_err(Err)?;
    let uid = match (head.by, head.number) {
        (_, None) => selected.view.last(),
        (Addressing::Sequence, Some(number)) => selected.view.uid(number),
        (Addressing::Uid, Some(uid)) => Some(uid).filter(|uid| selected.view.contains(*uid)),
    };
    match (uid, head.by) {
        (Some(uid), _) => Ok((selected.place.mailbox, uid)),
        (None, Addressing::Sequence) => Err(Err(Failure::BeyondEnd)),
        (None, Addressing::Uid) => Err(Ok(Reply::no("NONEXISTENT", "there is no such message"))),
    }
}

/// What can be said before any octet has come.
fn check(
    session: &Session<'_>,
    options: &MessageOptions,
    size: u64,
) -> Result<(), Result<Reply, Failure>> {
    if size > session.service.message_size_max_bytes {
        return Err(Ok(Reply::no("TOOBIG", "message is too large")));
    }
    if size == 0 {
        // RFC 3502 §6.3.11: how a client says that it has changed its mind.
        return Err(Ok(Reply::no("CANNOT", "message is empty")));
    }
    if options.utf8 && session.state.form() != NameForm::Utf8 {
        return Err(Ok(Reply::bad("enable UTF8=ACCEPT first")));
    }
    Ok(())
}

impl Upload {
    /// The message before goes to the volume, so that a thousand small ones do not wait in memory.
    async fn next(
        mut self,
        session: &mut Session<'_>,
        frame: &Frame,
    ) -> Result<Self, Result<Reply, Failure>> {
        let options = parse::message_next(frame, &self.options)
            .map_err(|error| Ok(Reply::unreadable(&error)))?;
        if self.replaced.is_some() {
            // RFC 8508 §4.7.
            return Err(Ok(Reply::bad("REPLACE takes one message")));
        }
        let Body::Whole(blob) = self.body else {
            unreachable!("the framer ends a message before it announces the next")
        };
        if self.messages.len() + 1 >= APPEND_MESSAGES_MAX {
            return Err(Ok(limit::refused(session, APPEND_MESSAGES_MAX, None)));
        }
        let volume = session.volume_of(self.place.account).await.map_err(Err)?;
        let body = AppendBody::Put {
            hash: blob.hash(),
            octets: blob.size(),
            identity: None,
        };
        let held = volume.put_blob(blob).await;
        self.held.push(held.map_err(|refusal| Err(refusal.into()))?);
        let before = std::mem::replace(&mut self.options, options);
        self.messages.push(message(&before, body));
        self.body = Body::Coming(Box::new(volume.begin_blob()));
        Ok(self)
    }

    /// Whose the message will be.
    pub(super) fn owner(&self) -> AccountId {
        self.place.account
    }

    /// Takes octets of the message.
    pub(super) async fn write(&mut self, octets: &[u8]) -> Result<(), Failure> {
        self.has_nul |= self.options.binary && memchr::memchr(0, octets).is_some();
        match &mut self.body {
            Body::Coming(writer) => Ok(writer.write(octets).await?),
            _ => unreachable!("the framer gives octets of an announced message only"),
        }
    }

    /// The message is whole.
    pub(super) async fn end_message(&mut self, volume: &Volume) -> Result<(), Failure> {
        let Body::Coming(writer) = std::mem::replace(&mut self.body, Body::Lost) else {
            unreachable!("the framer ends a message once")
        };
        let blob = writer.finish().await?;
        self.body = Body::Whole(match std::mem::take(&mut self.has_nul) {
            true => binary::encoded(volume, blob).await?,
            false => blob,
        });
        Ok(())
    }
}

/// The command is whole: all messages are added, or none.
pub(super) async fn on_end(
    session: &mut Session<'_>,
    upload: Upload,
    frame: &Frame,
) -> Result<Reply, Failure> {
    let Upload {
        mut place,
        name,
        replaced,
        mut messages,
        held: _held,
        options,
        body,
        has_nul: _,
    } = upload;
    if let Err(error) = parse::message_end(frame, &options) {
        return Ok(Reply::unreadable(&error));
    }
    let Body::Whole(blob) = body else {
        unreachable!("the framer ends every message before the command")
    };
    session.acts = true;
    let mut last = message(&options, AppendBody::Finished(blob));
    let has_none = |one: &AppendMessage| one.flags.keywords.is_empty();
    let is_plain = replaced.is_none() && messages.iter().chain([&last]).all(has_none);
    if place.account != session.state.account {
        // The message may have taken minutes, and the right may have gone.
        let now = find_target(session, &name).await?;
        // The name may have passed to another account, in which every INBOX has the same number.
        let is_same = |now: &Place| (now.account, now.mailbox) == (place.account, place.mailbox);
        let Some(now) = now.filter(is_same) else {
            return Ok(no_target());
        };
        place = now;
        for message in messages.iter_mut().chain(std::iter::once(&mut last)) {
            let flags = std::mem::take(&mut message.flags);
            message.flags = permitted(flags, place.rights);
        }
    }
    let Place {
        account, mailbox, ..
    } = place;
    let by = place.writer(session.state.account);
    let volume = session.volume_of(account).await?;
    let added = match replaced {
        None => {
            messages.push(last);
            volume.append(account, by, mailbox, messages).await
        }
        Some(replaced) => volume.replace(account, by, replaced, mailbox, last).await,
    };
    let added = match added {
        Ok(added) => added,
        // Deleted while the message came.
        Err(Refusal::NoMailbox) => {
            return Ok(no_target());
        }
        Err(refusal) => return Err(refusal.into()),
    };
    match is_plain {
        true => session.arrived(account, mailbox, added.modseq, &added.uids),
        false => session.has_changed = true,
    }
    quota::warn(session, account).await?;
    session.made(place, &added.uids, added.modseq);
    let uids = SequenceSet::from_numbers(added.uids);
    let code = Code::AppendUid(added.uidvalidity, &uids);
    if replaced.is_none() {
        return Ok(Reply::ok_with(&code, "done"));
    }
    // RFC 8508 §4.3: before the client hears that the other one is gone.
    session
        .encoder()
        .untagged(Condition::Ok, Some(&code), "the new message is there");
    Ok(match session.state.enabled.qresync {
        // RFC 8508 §4.5, RFC 7162 §3.2.8: as UID EXPUNGE.
        true => Reply::ok_with(&Code::HighestModSeq(added.replaced_modseq), "replaced"),
        false => Reply::ok("replaced"),
    })
}

fn message(options: &MessageOptions, body: AppendBody) -> AppendMessage {
    let date = options.internal_date;
    AppendMessage {
        body,
        flags: flags::to_store(&options.flags),
        internal_date_ms: date.map_or_else(now_ms, |date| date.unix_s.saturating_mul(1000)),
    }
}
