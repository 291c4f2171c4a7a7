//! DELETE. RFC 9051 §6.3.5.

use mail_proto::imap::mailbox::MailboxName;

use super::Session;
use super::list::own_name;
use super::reply::{Failure, Reply};

/// Mailboxes below it stay, and LIST shows its name as one without a mailbox.
pub(super) async fn run(session: &mut Session<'_>, name: &MailboxName) -> Result<Reply, Failure> {
    session.writable()?;
    let (account, epoch) = (session.state.account, session.state.epoch);
    let volume = session.service.volume;
    let mailbox = volume.mailbox(account, name.as_str()).await?;
    volume.delete_mailbox(account, epoch, name.as_str()).await?;
    session.own.push(own_name(name));
    // Who deletes the mailbox it has open has closed it; other sessions hear BYE.
    let is_open = |open: &mut super::Selected| {
        mailbox.is_some_and(|mailbox| mailbox.mailbox == open.place.mailbox)
    };
    session.state.selected.take_if(is_open);
    Ok(Reply::ok("done"))
}
