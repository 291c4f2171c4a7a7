//! RENAME. RFC 9051 §6.3.6.

use mail_proto::imap::mailbox::MailboxName;
use tracing::warn;

use super::list::own_name;
use super::place::{Found, Vacant, demand, is_others, vacant};
use super::reply::{Failure, Reply};
use super::{Causes, Session};
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
    let volume = session.volume_of(at.account).await?;
    // The one that was found: meanwhile the name may have come to mean another one.
    let from = Named {
        name: &from,
        mailbox: known,
    };
    volume
        .rename_mailbox(at.account, at.by, from, &at.name)
        .await?;
    session.own().names.push(own_name(to));
    if from.name == "INBOX"
        && let Err(failure) = annotate(session, &at).await
    {
        // The messages are there: were this NO, the client would try again what is done.
        warn!(account = %at.account, error = %Causes(&failure), "INBOX was renamed without all of its annotations");
    }
    Ok(Reply::ok("done"))
}

/// RFC 5464 §4.1: INBOX stays, and the mailbox that gets its messages has its annotations too. As far as there is room for
/// them: the messages are there already.
async fn annotate(session: &mut Session<'_>, made: &Vacant) -> Result<(), Failure> {
    let account = made.account;
    let volume = session.volume_of(account).await?;
    let Some(mailbox) = volume.mailbox(account, &made.name).await? else {
        return Ok(());
    };
    let mut after = String::new();
    loop {
        let page = volume.annotations(account, Some(MailboxId::INBOX), &after);
        let page = page.await?;
        match page.last() {
            Some((entry, _)) => after.clone_from(entry),
            None => return Ok(()),
        }
        let changes = page.into_iter().map(|(entry, value)| (entry, Some(value)));
        let done = volume.annotate(account, made.by, Some(mailbox.mailbox), changes.collect());
        match done.await {
            Ok(()) | Err(Refusal::Full) => {}
            Err(refusal) => return Err(refusal.into()),
        }
    }
}
