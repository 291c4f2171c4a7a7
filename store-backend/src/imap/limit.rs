//! MESSAGELIMIT: how many messages one command may be about. RFC 9738.
//!
//! What may be done in part is done for the last messages, those with the largest UIDs, and the answer says how far it got.
//! What may not is refused whole. They may be told in any order: the RFC's own examples do it in both.

use mail_proto::imap::encode::{Code, Condition};

use super::Session;
use super::reply::Reply;
use super::view::View;

/// The limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MessageLimit {
    /// What clients are told; 0 for nothing.
    pub(crate) count: u32,
    /// Whether a command that is about more does no more.
    pub(crate) is_kept: bool,
}

impl MessageLimit {
    /// What a command may not go beyond.
    pub(super) fn kept(self) -> Option<u32> {
        (self.is_kept && self.count > 0).then_some(self.count)
    }
}

/// Leaves of the messages of a command those that it may be about. If there were more, the answer shall have this code:
/// see [`conclude`].
pub(super) fn keep_last(session: &Session<'_>, uids: &mut View) -> Option<Code<'static>> {
    let limit = session.service.message_limit.kept()?;
    let lowest = uids.keep_last(limit)?;
    Some(Code::MessageLimit(limit, Some(lowest)))
}

/// The answer to a command that was done in part.
pub(super) fn conclude(
    session: &mut Session<'_>,
    reply: Reply,
    beyond: Option<Code<'static>>,
) -> Reply {
    let text = "done for the last of the messages";
    match beyond {
        None => reply,
        Some(code) if reply.condition == Condition::Ok && !reply.has_code => {
            Reply::ok_with(&code, text)
        }
        Some(code) => {
            // RFC 9738 §3.1: an answer has one code, and the other one goes first.
            session.encoder().untagged(Condition::No, Some(&code), text);
            reply
        }
    }
}

/// The answer to a command about more messages than `max`: nothing was done. `uids`: those it names.
pub(super) fn refused(session: &Session<'_>, max: usize, uids: Option<&View>) -> Reply {
    let text = "too many messages in one command";
    if session.service.message_limit.count == 0 {
        return Reply::no("LIMIT", text);
    }
    let max = u32::try_from(max).unwrap_or(u32::MAX);
    let lowest = uids.and_then(|uids| uids.clone().keep_last(max));
    let code = Code::MessageLimit(max, lowest);
    Reply::new(Condition::No, Some(&code), text)
}
