//! SUBSCRIBE and UNSUBSCRIBE. RFC 9051 §6.3.7, §6.3.8.

use mail_proto::imap::mailbox::MailboxName;

use super::Session;
use super::list::own_name;
use super::reply::{Failure, Reply};

/// The name need not be a mailbox's, so that a subscription outlives a mailbox that comes and goes.
pub(super) async fn run(
    session: &mut Session<'_>,
    name: &MailboxName,
    subscribed: bool,
) -> Result<Reply, Failure> {
    session.writable()?;
    let (account, epoch) = (session.state.account, session.state.epoch);
    session
        .service
        .home
        .volume
        .subscribe(account, epoch, name.as_str(), subscribed)
        .await?;
    session.own().names.push(own_name(name));
    Ok(Reply::ok("done"))
}
