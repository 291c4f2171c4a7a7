//! GETACL, SETACL, DELETEACL, LISTRIGHTS, MYRIGHTS. RFC 4314.
//!
//! Identifiers are addresses that deliver to one account; the right belongs to that account, not to the address.
//! There is no `anyone`: it would show a mailbox to every account of every domain here. Rights cannot be negative
//! (RFC 4314 §2 leaves both to the server).

use directory_api::client::DirectoryError;
use directory_api::wire::Verdict;
use directory_api::{AccountId, Address};
use mail_proto::imap::command::{Rights as Letters, RightsChange};
use mail_proto::imap::encode::Condition;
use mail_proto::imap::mailbox::MailboxName;

use super::Session;
use super::place::demand;
use super::reply::{Failure, Reply};
use crate::volume::{AclChange, Refusal, Rights};

/// The letters of the rights, in the order of RFC 4314 §2.1.
const LETTERS: [(char, Rights); 11] = [
    ('l', Rights::LOOKUP),
    ('r', Rights::READ),
    ('s', Rights::SEEN),
    ('w', Rights::WRITE),
    ('i', Rights::INSERT),
    ('p', Rights::POST),
    ('k', Rights::CREATE),
    ('x', Rights::DELETE_MAILBOX),
    ('t', Rights::DELETE),
    ('e', Rights::EXPUNGE),
    ('a', Rights::ADMINISTER),
];

/// RFC 4314 §2.1.1: rights of RFC 2086, each of which is several now.
const OBSOLETE: [(char, [Rights; 2]); 2] = [
    ('c', [Rights::CREATE, Rights::DELETE_MAILBOX]),
    ('d', [Rights::DELETE, Rights::EXPUNGE]),
];

/// GETACL.
pub(super) async fn get(session: &mut Session<'_>, name: &MailboxName) -> Result<Reply, Failure> {
    let found = demand(session, name).await?;
    found.place.need(Rights::ADMINISTER)?;
    let volume = session.volume_of(found.place.account).await?;
    let acl = volume.acl(found.place.account, found.place.mailbox).await?;
    let owner = match found.place.account == session.state.account {
        true => session.state.login_name.to_string(),
        // By the list that is told, which may be newer than the one that was asked.
        false if !acl.rights(session.state.account).has(Rights::ADMINISTER) => {
            return Err(Refusal::NotPermitted.into());
        }
        false => acl.owner.clone(),
    };
    let owner = (owner.as_str(), letters(Rights::ALL));
    let others = acl.entries.iter();
    let others = others.map(|entry| (entry.name.as_str(), letters(entry.rights)));
    let entries: Vec<_> = std::iter::once(owner).chain(others).collect();
    session.encoder().acl(name, &entries);
    Ok(Reply::ok("done"))
}

/// SETACL.
pub(super) async fn set(
    session: &mut Session<'_>,
    name: &MailboxName,
    identifier: &str,
    change: RightsChange,
) -> Result<Reply, Failure> {
    let change = match change {
        RightsChange::Replace(letters) => from_letters(letters).map(AclChange::Replace),
        RightsChange::Add(letters) => from_letters(letters).map(AclChange::Add),
        RightsChange::Remove(letters) => from_letters(letters).map(AclChange::Remove),
    };
    let Some(change) = change else {
        // RFC 4314 §3.1.
        return Ok(Reply::bad("not all of these are rights"));
    };
    change_entry(session, name, identifier, change).await
}

/// DELETEACL.
pub(super) async fn delete(
    session: &mut Session<'_>,
    name: &MailboxName,
    identifier: &str,
) -> Result<Reply, Failure> {
    change_entry(
        session,
        name,
        identifier,
        AclChange::Replace(Rights::default()),
    )
    .await
}

async fn change_entry(
    session: &mut Session<'_>,
    name: &MailboxName,
    identifier: &str,
    change: AclChange,
) -> Result<Reply, Failure> {
    session.writable()?;
    let place = demand(session, name).await?.place;
    place.need(Rights::ADMINISTER)?;
    if identifier.starts_with('-') || identifier.eq_ignore_ascii_case("anyone") {
        return Ok(refused("rights are for single users, and never negative"));
    }
    let volume = session.volume_of(place.account).await?;
    let identifier = identifier.to_ascii_lowercase();
    let acl = volume.acl(place.account, place.mailbox).await?;
    let known = acl.entries.iter().find(|entry| entry.name == identifier);
    // Who has an entry can lose rights without the directory: that must not wait for anything.
    let takes = match &change {
        AclChange::Replace(rights) => *rights == Rights::default(),
        AclChange::Add(_) => false,
        AclChange::Remove(_) => true,
    };
    let grantee = match known {
        Some(entry) if takes => entry.account,
        _ => match account_of(session, &identifier).await? {
            Ok(grantee) => grantee,
            Err(reply) => return Ok(reply),
        },
    };
    let is_own = place.account == session.state.account;
    let login_name = session.state.login_name.to_string();
    let owner_name = is_own.then_some(login_name.as_str());
    let changed = volume.set_acl(
        place.account,
        place.writer(session.state.account),
        place.mailbox,
        owner_name,
        grantee,
        &identifier,
        change,
    );
    match changed.await {
        Ok(()) => {
            session.service.volumes.ring(grantee);
            Ok(Reply::ok("done"))
        }
        Err(Refusal::NotAllowed) => Ok(refused("the owner has all rights, always")),
        Err(Refusal::BadName) => Ok(refused("a name with / cannot stand in a list of rights")),
        Err(refusal) => Err(refusal.into()),
    }
}

/// The one account that an address delivers to.
async fn account_of(
    session: &mut Session<'_>,
    identifier: &str,
) -> Result<Result<AccountId, Reply>, Failure> {
    let Ok(address) = identifier.parse::<Address>() else {
        return Ok(Err(refused("there is no such user")));
    };
    let directory = session.service.volumes.directory();
    Ok(match directory.lookup(&address).await {
        Ok(Verdict::Accounts(accounts)) => match &accounts[..] {
            [one] if !one.is_caught => Ok(one.account),
            [_] => Err(refused("there is no such user")),
            _ => Err(refused("more than one user has this address")),
        },
        Ok(Verdict::External { .. }) => Err(refused("this address leads elsewhere, too")),
        Ok(Verdict::UnknownAddress | Verdict::UnknownDomain) => {
            Err(refused("there is no such user"))
        }
        // P6: away is not absent.
        Err(DirectoryError::Away(_)) => Err(Reply::no(
            "UNAVAILABLE",
            "users cannot be looked up now, try again",
        )),
        Err(_) => Err(refused("this user cannot be looked up")),
    })
}

/// LISTRIGHTS: the owner has all rights and cannot lose one; anybody else can be given each by itself.
pub(super) async fn list(
    session: &mut Session<'_>,
    name: &MailboxName,
    identifier: &str,
) -> Result<Reply, Failure> {
    let found = demand(session, name).await?;
    found.place.need(Rights::ADMINISTER)?;
    let place = found.place;
    let owner = match place.account == session.state.account {
        true => session.state.login_name.to_string(),
        false => {
            let volume = session.volume_of(place.account).await?;
            volume.acl(place.account, place.mailbox).await?.owner
        }
    };
    let mut encoder = session.encoder();
    if identifier.eq_ignore_ascii_case(&owner) {
        encoder.list_rights(name, identifier, letters(Rights::ALL), &[]);
    } else {
        let each = LETTERS.iter().map(|(letter, _)| *letter);
        let each: Vec<Letters> = each
            .chain(OBSOLETE.iter().map(|(letter, _)| *letter))
            .filter_map(|letter| Letters::new(&letter.to_string()))
            .collect();
        encoder.list_rights(name, identifier, Letters::default(), &each);
    }
    Ok(Reply::ok("done"))
}

/// MYRIGHTS.
pub(super) async fn mine(session: &mut Session<'_>, name: &MailboxName) -> Result<Reply, Failure> {
    let found = demand(session, name).await?;
    session
        .encoder()
        .my_rights(name, letters(found.place.rights));
    Ok(Reply::ok("done"))
}

/// As they are told: with the obsolete ones that any of their parts implies (RFC 4314 §2.1.1).
pub(super) fn letters(rights: Rights) -> Letters {
    let new = LETTERS.iter().filter(|(_, right)| rights.has(*right));
    let old = OBSOLETE
        .iter()
        .filter(|(_, parts)| parts.iter().any(|part| rights.has(*part)));
    let all: String = new
        .map(|(letter, _)| *letter)
        .chain(old.map(|(letter, _)| *letter))
        .collect();
    Letters::new(&all).unwrap_or_default()
}

/// As they are named by a client; `None` when one of them is no right here.
fn from_letters(letters: Letters) -> Option<Rights> {
    letters
        .letters()
        .chars()
        .try_fold(Rights::default(), |all, letter| {
            let new = LETTERS.iter().find(|(one, _)| *one == letter);
            let old = OBSOLETE.iter().find(|(one, _)| *one == letter);
            let named = new.map(|(_, right)| *right);
            Some(all | named.or_else(|| old.map(|(_, [one, other])| *one | *other))?)
        })
}

fn refused(text: &str) -> Reply {
    Reply::new(Condition::No, None, text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn obsolete_rights_are_taken_for_their_parts_and_told_for_any_of_them() {
        let read = |text: &str| from_letters(Letters::new(text).unwrap());
        assert_eq!(read("c"), Some(Rights::CREATE | Rights::DELETE_MAILBOX));
        assert_eq!(read("d"), read("te"));
        assert_eq!(read("lrswipkxtea"), Some(Rights::ALL));
        assert_eq!(read("lrswipcda"), Some(Rights::ALL));
        assert_eq!(read(""), Some(Rights::default()));
        for unknown in ["n", "lr0", "z"] {
            assert_eq!(read(unknown), None, "{unknown}");
        }
        assert_eq!(letters(Rights::EXPUNGE), Letters::new("ed").unwrap());
        assert_eq!(letters(Rights::CREATE), Letters::new("kc").unwrap());
        assert_eq!(letters(Rights::ALL), Letters::new("lrswipkxteacd").unwrap());
    }
}
