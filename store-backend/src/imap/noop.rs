//! NOOP, and CHECK of IMAP4rev1: what has changed is told before any command's answer, so that
//! there is nothing left to do. RFC 9051 §6.1.2, RFC 3501 §6.4.1.

use super::Session;
use super::reply::{Failure, Reply};

pub(super) fn noop() -> Reply {
    Reply::ok("done")
}

/// CHECK. Everything that was answered is durable already.
pub(super) fn check(session: &Session<'_>) -> Result<Reply, Failure> {
    session.selected()?;
    Ok(Reply::ok("done"))
}
