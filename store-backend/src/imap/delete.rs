//! DELETE. RFC 9051 §6.3.5.

use mail_proto::imap::mailbox::MailboxName;

use super::Session;
use super::list::own_name;
use super::place::{Found, demand};
use super::reply::{Failure, Reply};
use crate::volume::{Named, Rights};

/// Mailboxes below it stay, and LIST shows its name as one without a mailbox.
pub(super) async fn run(session: &mut Session<'_>, name: &MailboxName) -> Result<Reply, Failure> {
    session.writable()?;
    let Found { place, info } = demand(session, name).await?;
    place.need(Rights::DELETE_MAILBOX)?;
    let volume = session.volume_of(place.account).await?;
    // The one that was found: meanwhile the name may have come to mean another one.
    let found = Named {
        name: &info.name,
        mailbox: Some(place.mailbox),
    };
    let by = place.writer(session.state.account);
    volume.delete_mailbox(place.account, by, found).await?;
    session.own().names.push(own_name(name));
    // Who deletes the mailbox it has open has closed it; other sessions hear BYE.
    let is_open = |open: &mut super::Selected| {
        (open.place.account, open.place.mailbox) == (place.account, place.mailbox)
    };
    session.state.selected.take_if(is_open);
    Ok(Reply::ok("done"))
}
