//! From a name to a mailbox, the user's own or another's, and what may be done there. RFC 2342, RFC 4314.
//!
//! Every verb that takes a name comes here: what a name means, whether it is there, and with which rights, is decided in
//! no other place. Mailboxes of others are those whose owner lives on this back-end, on whichever of its volumes, and has let
//! the user see them; any
//! other name below `Other Users` is as absent as one that nobody has (P8).
//!
//! What is found here says what to answer early and what to pass over. It is not what permits: a list may change at any
//! moment, so the sequencer asks it for each write ([`Writer`]), and who reads asks it again before anything is told
//! ([`check_open`]).
//!
//! | right | lets |
//! |---|---|
//! | `l` | LIST, LSUB; without it the mailbox is not there for any verb |
//! | `r` | SELECT, EXAMINE, STATUS, GETMETADATA; COPY and MOVE from it; NOTIFY of it |
//! | `i` | APPEND; COPY and MOVE to it |
//! | `s`, `t`, `w` | STORE, and flags that APPEND and COPY bring, of `\Seen`, of `\Deleted`, of all others; what is not permitted is passed over. `w` also SETMETADATA |
//! | `t` and `e` | MOVE from it; REPLACE in it, with `i` in the mailbox that gets the new message |
//! | `e` | EXPUNGE, and that CLOSE expunges |
//! | `k` | CREATE below it, RENAME to a place below it |
//! | `x` | DELETE, RENAME; the latter to those below it too, whose names change with it |
//! | `a` | GETACL, SETACL, DELETEACL, LISTRIGHTS |
//!
//! The owner has all of them, always, and needs no entry.

use directory_api::AccountId;
use mail_proto::imap::mailbox::MailboxName;

use super::Session;
use super::reply::Failure;
use super::state::Place;
use crate::volume::{MailboxInfo, OpenedMailbox, Refusal, Rights, Shared, Writer};
use crate::volumes::Named;

/// The first level of the mailboxes of others; below it stand their login names.
pub(super) const OTHERS: &str = "Other Users";

/// A mailbox that is there and may be seen.
#[derive(Clone)]
pub(super) struct Found {
    pub(super) place: Place,
    /// With its name at its owner's.
    pub(super) info: MailboxInfo,
}

/// Where a mailbox would be that is to be made.
pub(super) struct Vacant {
    pub(super) account: AccountId,
    pub(super) by: Writer,
    /// Its name at its owner's.
    pub(super) name: String,
}

impl Place {
    /// Who writes there: its owner, or this user by what the owner permits.
    pub(super) fn writer(&self, user: AccountId) -> Writer {
        Writer {
            epoch: self.epoch,
            user: (self.account != user).then_some(user),
        }
    }

    /// Whether all of these rights are there.
    ///
    /// # Errors
    /// [`Refusal::NotPermitted`].
    pub(super) fn need(&self, rights: Rights) -> Result<(), Failure> {
        match self.rights.has(rights) {
            true => Ok(()),
            false => Err(Refusal::NotPermitted.into()),
        }
    }
}

/// Whether a name is of another user's mailbox, or above one.
pub(super) fn is_others(name: &str) -> bool {
    below_others(name).is_some()
}

fn below_others(name: &str) -> Option<&str> {
    name.strip_prefix(OTHERS)
        .filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The owner's login name, which is in lower case, and the name at the owner's.
fn split(name: &str) -> Option<(String, &str)> {
    let (owner, name) = below_others(name)?.strip_prefix('/')?.split_once('/')?;
    Some((owner.to_ascii_lowercase(), name))
}

/// The name by which others see a mailbox.
pub(super) fn name_of(shared: &Shared) -> String {
    format!("{OTHERS}/{}/{}", shared.owner_name, shared.mailbox.name)
}

/// A mailbox of another account, with what may be done there.
pub(super) fn found(shared: Shared) -> Found {
    Found {
        place: Place {
            account: shared.owner,
            epoch: shared.epoch,
            mailbox: shared.mailbox.mailbox,
            rights: shared.rights,
        },
        info: shared.mailbox,
    }
}

/// The session's own mailbox.
pub(super) fn own(session: &Session<'_>, info: MailboxInfo) -> Found {
    Found {
        place: Place {
            account: session.state.account,
            epoch: session.state.epoch,
            mailbox: info.mailbox,
            rights: Rights::ALL,
        },
        info,
    }
}

/// The mailbox of a name, if there is one that may be seen.
pub(super) async fn find(
    session: &mut Session<'_>,
    name: &MailboxName,
) -> Result<Option<Found>, Failure> {
    let account = session.state.account;
    if !is_others(name.as_str()) {
        let info = session.service.home.volume.mailbox(account, name.as_str());
        return Ok(info.await?.map(|info| own(session, info)));
    }
    let Some((owner, name)) = split(name.as_str()) else {
        return Ok(None);
    };
    Ok(shared(session, &owner, name).await?.map(found))
}

/// A mailbox of another user, by its owner's name and the one it has there.
async fn shared(
    session: &mut Session<'_>,
    owner: &str,
    name: &str,
) -> Result<Option<Shared>, Failure> {
    let (home, volumes) = (session.service.home, session.service.volumes);
    let named = volumes.shared_named(home, session.state.account, owner, name);
    match named.await? {
        Named::Found(shared) if shared.is_away => Err(Refusal::Frozen.into()),
        Named::Found(shared) => Ok(Some(*shared)),
        Named::Absent => Ok(None),
        Named::Away => Err(Failure::VolumeAway),
    }
}

/// The mailbox of a name.
///
/// # Errors
/// [`Refusal::NoMailbox`], which is the same whether it is not there or may not be seen.
pub(super) async fn demand(
    session: &mut Session<'_>,
    name: &MailboxName,
) -> Result<Found, Failure> {
    let found = find(session, name).await?;
    found.ok_or(Failure::Refused(Refusal::NoMailbox))
}

/// The mailbox of a name, with what SELECT tells of it; the user's own in one visit to the index.
pub(super) async fn open(
    session: &mut Session<'_>,
    name: &MailboxName,
) -> Result<(Place, OpenedMailbox), Failure> {
    if !is_others(name.as_str()) {
        let volume = &session.service.home.volume;
        let now = volume.opened(session.state.account, name.as_str()).await?;
        let now = now.ok_or(Failure::Refused(Refusal::NoMailbox))?;
        return Ok((own(session, now.mailbox.clone()).place, now));
    }
    let Found { place, info } = demand(session, name).await?;
    let volume = session.volume_of(place.account).await?;
    let now = volume.opened(place.account, &info.name).await?;
    // Renamed meanwhile, it would be another one.
    let now = now.filter(|now| now.mailbox.mailbox == place.mailbox);
    Ok((place, now.ok_or(Failure::Refused(Refusal::NoMailbox))?))
}

/// Where a mailbox of that name would be. At another user's that takes the right to make mailboxes below the nearest one
/// above it.
pub(super) async fn vacant(
    session: &mut Session<'_>,
    name: &MailboxName,
) -> Result<Vacant, Failure> {
    if name.has_hidden() {
        // RFC 9051 §5.1: what is there already keeps its name, nothing new gets one like it.
        return Err(Refusal::BadName.into());
    }
    let account = session.state.account;
    if !is_others(name.as_str()) {
        return Ok(Vacant {
            account,
            by: session.state.epoch.into(),
            name: name.as_str().to_owned(),
        });
    }
    let Some((owner, name)) = split(name.as_str()) else {
        return Err(Refusal::NotPermitted.into());
    };
    for (place, _) in name.trim_end_matches('/').rmatch_indices('/') {
        let Some(above) = shared(session, &owner, &name[..place]).await? else {
            continue;
        };
        let place = found(above).place;
        place.need(Rights::CREATE)?;
        return Ok(Vacant {
            account: place.account,
            by: place.writer(account),
            name: name.to_owned(),
        });
    }
    Err(Refusal::NotPermitted.into())
}

/// Looks again whether the open mailbox may be read, when it is another user's, and with which rights. Its owner may
/// change that at any moment. Asked before a command, so that nothing is done in vain, and after each piece of what was read,
/// before it is told: so nothing is told that came after the end of the right.
///
/// Who may not read it any more is told what is told of a mailbox that was deleted, BYE: the two look the same (RFC 4314
/// §6), and no client expects its mailbox to be closed under it by anything milder.
///
/// # Errors
/// [`Failure::MailboxGone`]; [`Failure::OwnerAway`].
pub(super) async fn check_open(session: &mut Session<'_>) -> Result<(), Failure> {
    let account = session.state.account;
    let Some(open) = &session.state.selected else {
        return Ok(());
    };
    let place = open.place;
    if place.account == account {
        return Ok(());
    }
    let volume = session
        .volume_of(place.account)
        .await
        .map_err(|_| Failure::OwnerAway)?;
    let still = volume.shared_still(account, place.account, place.mailbox);
    let still = still.await?.ok_or(Failure::MailboxGone)?;
    // With another epoch it was elsewhere meanwhile.
    if still.is_away || still.epoch != place.epoch {
        return Err(Failure::OwnerAway);
    }
    if !still.rights.has(Rights::READ) {
        return Err(Failure::MailboxGone);
    }
    if let Some(open) = &mut session.state.selected {
        open.place.rights = still.rights;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_split_where_its_owner_ends() {
        for (name, parts) in [
            (
                "Other Users/Ann@x.test/INBOX",
                Some(("ann@x.test", "INBOX")),
            ),
            ("Other Users/ann@x.test/a/b", Some(("ann@x.test", "a/b"))),
            ("Other Users/ann@x.test", None),
            ("Other Users", None),
            ("Other Users Too/a/b", None),
            ("a/Other Users/b/c", None),
        ] {
            let parts = parts.map(|(owner, name)| (owner.to_owned(), name));
            assert_eq!(split(name), parts, "{name}");
        }
        assert!(is_others("Other Users") && is_others("Other Users/ann@x.test"));
        assert!(!is_others("Other Users Too") && !is_others("a/Other Users/b"));
    }
}
