//! CREATE. RFC 9051 §6.3.4, RFC 6154 §5.

use mail_proto::imap::command::SpecialUse;
use mail_proto::imap::encode::Code;
use mail_proto::imap::mailbox::MailboxName;

use super::Session;
use super::list::{own_name, tell_one, to_store};
use super::place::{Vacant, vacant};
use super::reply::{Failure, Reply};
use super::status::mailbox_id;
use crate::volume::SpecialUse as Stored;

pub(super) async fn run(
    session: &mut Session<'_>,
    name: &MailboxName,
    uses: &[Option<SpecialUse>],
) -> Result<Reply, Failure> {
    session.writable()?;
    let mut stored = Stored::default();
    let Vacant {
        account,
        by,
        name: at,
    } = vacant(session, name).await?;
    // What another user's mailbox is for is that user's to say.
    if by.user.is_some() && !uses.is_empty() {
        return Ok(Reply::no("USEATTR", "the mailbox is of another user"));
    }
    for one in uses {
        match one {
            // These two would have to be views of other mailboxes. RFC 6154 §3.
            None | Some(SpecialUse::All | SpecialUse::Flagged) => {
                return Ok(Reply::no("USEATTR", "no mailbox can be for that here"));
            }
            Some(one) => stored.0 |= to_store(*one).0,
        }
    }
    let volume = session.volume_of(account).await?;
    let made = volume.create_mailbox(account, by, &at, stored).await?;
    session.own().names.push(own_name(name));
    let is_renamed = session.own().sent_name.is_some();
    if is_renamed && session.state.enabled.imap4rev2 {
        tell_one(session, name).await?;
    }
    let made = volume.mailbox_status(account, made).await?;
    Ok(match made {
        Some(made) => Reply::ok_with(&Code::MailboxId(&mailbox_id(&made)), "done"),
        // Another session has deleted it meanwhile.
        None => Reply::ok("done"),
    })
}
