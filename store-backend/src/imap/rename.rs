//! RENAME. RFC 9051 §6.3.6.

use mail_proto::imap::mailbox::MailboxName;

use super::Session;
use super::list::own_name;
use super::reply::{Failure, Reply};

/// A session that has the mailbox open goes on with it.
pub(super) async fn run(
    session: &mut Session<'_>,
    from: &MailboxName,
    to: &MailboxName,
) -> Result<Reply, Failure> {
    session.writable()?;
    let (account, epoch) = (session.state.account, session.state.epoch);
    session
        .service
        .volume
        .rename_mailbox(account, epoch, from.as_str(), to.as_str())
        .await?;
    session.own.push(own_name(to));
    Ok(Reply::ok("done"))
}
