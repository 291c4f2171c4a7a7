//! Mailboxes that are shared between accounts of different volumes (RFC 4314).
//!
//! Each volume keeps the lists of rights of its own owners, and knows for each account what they let it see. Of a volume that
//! is not open nobody knows what it shares, and an old copy knows it of the past: a name that is not found then is no name
//! that is not there (P6). What a volume says of an owner counts only while he lives there.

use std::collections::BTreeMap;

use directory_api::AccountId;

use super::{Away, Mounted, Volumes};
use crate::volume::{ReadError, Shared, Volume};

/// What was found of one name.
pub(crate) enum Named {
    /// A mailbox that the account may see.
    Found(Box<Shared>),
    /// There is none.
    Absent,
    /// There may be one on a volume that cannot be asked.
    Away,
}

impl Volumes {
    /// The mailboxes that owners on all open volumes let an account see; `shared` is what its own volume has. Of two owners
    /// of one name the later account bears it now. With it, whether that is all: every volume was there and was read, none of
    /// them an old copy, and of each owner it is known where he lives. Only then what is not among them is gone.
    pub(crate) async fn add_shared(
        &self,
        own: &Mounted,
        account: AccountId,
        shared: Vec<Shared>,
    ) -> (Vec<Shared>, bool) {
        if self.slots.len() == 1 {
            return (shared, self.is_whole());
        }
        // Before: of one that is opened or adopted while others are asked, nothing may have been asked yet.
        let mut is_whole = self.is_whole();
        let mut here = Some(shared);
        let mut shared = Vec::new();
        for mounted in self.mounted() {
            let found = match here.take_if(|_| mounted.name == own.name) {
                Some(here) => here,
                None => {
                    let asked =
                        |volume: Volume| async move { volume.shared_with(account, None).await };
                    let Ok(found) = mounted.ask(asked).await else {
                        is_whole = false;
                        continue;
                    };
                    found
                }
            };
            for one in found {
                match self.is_home(mounted, one.owner).await {
                    Ok(true) => shared.push(seen(own, mounted, one)),
                    Ok(false) => {}
                    Err(Away) => is_whole = false,
                }
            }
        }
        let mut bearers: BTreeMap<String, AccountId> = BTreeMap::new();
        for one in &shared {
            let bearer = bearers.entry(one.owner_name.clone()).or_insert(one.owner);
            *bearer = one.owner.max(*bearer);
        }
        shared.retain(|one| bearers.get(&one.owner_name) == Some(&one.owner));
        // And after: one may have been found to be an old copy.
        (shared, is_whole && self.is_whole())
    }

    /// A mailbox of another account by the name it has at its owner's, on whichever volume.
    ///
    /// # Errors
    /// The account's own volume cannot be read.
    pub(crate) async fn shared_named(
        &self,
        own: &Mounted,
        account: AccountId,
        owner: &str,
        name: &str,
    ) -> Result<Named, ReadError> {
        let mut best: Option<Shared> = None;
        let mut is_one_away = false;
        for slot in &self.slots {
            let Some(mounted) = slot.mounted.get() else {
                is_one_away = true;
                continue;
            };
            let (owner, name) = (owner.to_owned(), name.to_owned());
            let asked =
                |volume: Volume| async move { volume.shared_named(account, &owner, &name).await };
            match mounted.ask(asked).await {
                Ok(Some(one)) => match self.is_home(mounted, one.owner).await {
                    Ok(true) => {
                        if best.as_ref().is_none_or(|best| best.owner < one.owner) {
                            best = Some(seen(own, mounted, one));
                        }
                    }
                    Ok(false) => is_one_away |= !mounted.may_write(),
                    Err(Away) => is_one_away = true,
                },
                // What an old copy does not have may only not be there yet.
                Ok(_) => is_one_away |= !mounted.may_write(),
                Err(error) if mounted.name == own.name => return Err(error),
                Err(_) => is_one_away = true,
            }
        }
        Ok(match (best, is_one_away) {
            (Some(one), _) => Named::Found(Box::new(one)),
            (None, true) => Named::Away,
            (None, false) => Named::Absent,
        })
    }

    /// Whether all volumes are there, none of them an old copy: then what is not found is gone.
    fn is_whole(&self) -> bool {
        let mut slots = self.slots.iter().map(|slot| slot.mounted.get());
        slots.all(|slot| slot.is_some_and(|mounted| mounted.may_write()))
    }

    /// Whether an owner lives on this volume. Of one who also has a row on another, perhaps an old copy that was adopted, the
    /// rights that he has given since, and taken away, stand where his epoch is the last (P4, P8).
    async fn is_home(&self, mounted: &Mounted, owner: AccountId) -> Result<bool, Away> {
        let live = self.live_or_away(owner).await?;
        Ok(live.is_some_and(|live| live.name == mounted.name))
    }

    /// What others share with an account has changed: its sessions, which watch it on its own volume, look again.
    pub(crate) fn ring(&self, account: AccountId) {
        if self.slots.len() > 1 {
            self.mounted().for_each(|one| one.volume.ring(account));
        }
    }
}

/// Whose volume takes no writes is away for users of other volumes: what their own sessions may write was decided by their
/// own volume.
fn seen(own: &Mounted, mounted: &Mounted, one: Shared) -> Shared {
    let is_away = mounted.name != own.name && !mounted.may_write();
    Shared {
        is_away: one.is_away || is_away,
        ..one
    }
}
