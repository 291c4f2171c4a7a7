//! Which mailbox gets mail for a subaddress: that for `ann+lists@x.test` goes to her mailbox `Lists` (RFC 5233).

use directory_api::{AccountId, Epoch};
use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use crate::volume::{MailboxId, SpecialUse, Volume};
use crate::volumes::Volumes;

/// Where mail for a subaddress goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SubaddressMailbox {
    /// To INBOX, like all other mail.
    Inbox,
    /// To the mailbox of that name if there is one, else to INBOX.
    #[default]
    Existing,
    /// To the mailbox of that name, which is made when there is none.
    Create,
}

/// The mailbox for mail whose address has this detail. Whatever is in the way of another one, it is INBOX: mail is not refused for that.
///
/// Mailboxes with a special use are not found: strangers shall not put mail among what somebody has sent or thrown away.
pub(crate) async fn mailbox_of(
    volumes: &Volumes,
    rule: SubaddressMailbox,
    (account, epoch): (AccountId, Epoch),
    detail: Option<&str>,
) -> MailboxId {
    let (Some(detail), true) = (detail, rule != SubaddressMailbox::Inbox) else {
        return MailboxId::INBOX;
    };
    let Ok(mounted) = volumes.of(account).await else {
        return MailboxId::INBOX;
    };
    let mailboxes = match mounted.volume.mailboxes(account).await {
        Ok(mailboxes) => mailboxes,
        Err(error) => {
            warn!(%account, %error, "mailbox of a subaddress cannot be looked for");
            return MailboxId::INBOX;
        }
    };
    // The directory knows addresses in lower case.
    let mut named = mailboxes
        .iter()
        .filter(|mailbox| mailbox.name.to_lowercase() == detail.to_lowercase());
    match (named.next(), rule) {
        (Some(found), _) if found.special_use == SpecialUse::default() => found.mailbox,
        (None, SubaddressMailbox::Create) => create(&mounted.volume, account, epoch, detail).await,
        _ => MailboxId::INBOX,
    }
}

async fn create(volume: &Volume, account: AccountId, epoch: Epoch, detail: &str) -> MailboxId {
    let created = volume
        .create_mailbox(account, epoch, detail, SpecialUse::default())
        .await;
    match created {
        Ok(mailbox) => {
            if let Err(refusal) = volume.subscribe(account, epoch, detail, true).await {
                debug!(%account, ?refusal, "mailbox of a subaddress is not subscribed");
            }
            mailbox
        }
        Err(refusal) => {
            debug!(%account, ?refusal, "mailbox of a subaddress is not made");
            MailboxId::INBOX
        }
    }
}
