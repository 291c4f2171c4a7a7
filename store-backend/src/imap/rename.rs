//! RENAME. RFC 9051 §6.3.6.

use mail_proto::imap::mailbox::MailboxName;

use super::Session;
use super::list::own_name;
use super::place::{Found, demand, is_others, vacant};
use super::reply::{Failure, Reply};
use crate::volume::{MailboxId, Named, Refusal, Rights};

/// A session that has the mailbox open goes on with it.
pub(super) async fn run(
    session: &mut Session<'_>,
    from: &MailboxName,
    to: &MailboxName,
) -> Result<Reply, Failure> {
    session.writable()?;
    let at = vacant(session, to).await?;
    // A name of the user's own may have mailboxes below it and be none itself; they are renamed then.
    let (owner, known, from) = if is_others(from.as_str()) {
        let Found { place, info } = demand(session, from).await?;
        place.need(Rights::DELETE_MAILBOX)?;
        if place.mailbox == MailboxId::INBOX {
            // It would only be emptied.
            return Err(Refusal::NotAllowed.into());
        }
        (place.account, Some(place.mailbox), info.name)
    } else {
        (session.state.account, None, from.as_str().to_owned())
    };
    if owner != at.account {
        return Ok(Reply::no("CANNOT", "a mailbox stays with its owner"));
    }
    let volume = session.service.volume;
    // The one that was found: meanwhile the name may have come to mean another one.
    let from = Named {
        name: &from,
        mailbox: known,
    };
    volume
        .rename_mailbox(at.account, at.by, from, &at.name)
        .await?;
    session.own().names.push(own_name(to));
    Ok(Reply::ok("done"))
}
