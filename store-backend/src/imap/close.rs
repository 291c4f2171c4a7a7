//! CLOSE and UNSELECT. RFC 9051 §6.4.1, §6.4.2.

use super::Session;
use super::expunge::remove_deleted;
use super::reply::{Failure, Reply};
use crate::volume::{Refusal, Rights};

/// CLOSE removes what has `\Deleted` and tells nothing of it.
pub(super) async fn run(session: &mut Session<'_>) -> Result<Reply, Failure> {
    let open = session.selected()?;
    // RFC 4314 §4: without the right it is only closed.
    if !open.read_only && open.place.rights.has(Rights::EXPUNGE) {
        // Refused, the mailbox stays open, and the client can still UNSELECT.
        let known = open.view.clone();
        match remove_deleted(session, &known).await {
            // The right has gone meanwhile.
            Ok(_) | Err(Failure::Refused(Refusal::NotPermitted)) => {}
            Err(failure) => return Err(failure),
        }
    }
    unselect(session)
}

/// UNSELECT removes nothing.
pub(super) fn unselect(session: &mut Session<'_>) -> Result<Reply, Failure> {
    session.selected()?;
    session.deselect();
    Ok(Reply::ok("done"))
}
