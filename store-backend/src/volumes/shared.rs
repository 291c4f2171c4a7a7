//! Mailboxes that are shared between accounts of different volumes (RFC 4314).
//!
//! Each volume keeps the lists of rights of its own owners, and knows for each account what they let it see. Of a volume that
//! is not open nobody knows what it shares: a name that is not found then is no name that is not there (P6).

use std::collections::BTreeMap;

use directory_api::AccountId;

use super::{Mounted, Volumes};
use crate::volume::{ReadError, Shared};

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
    /// The mailboxes that owners on other volumes than this let an account see. It is added to what the account's own
    /// volume has; of two owners of one name the later account bears it now. What cannot be asked is left out.
    pub(crate) async fn add_shared(
        &self,
        own: &Mounted,
        account: AccountId,
        mut shared: Vec<Shared>,
    ) -> Vec<Shared> {
        if self.slots.len() == 1 {
            return shared;
        }
        for (at, slot) in self.slots.iter().enumerate() {
            let Some(other) = slot.mounted.get().filter(|other| other.name != own.name) else {
                continue;
            };
            let Ok(found) = other.volume.shared_with(account, None).await else {
                continue;
            };
            shared.extend(found.into_iter().map(|one| self.seen(at, other, one)));
        }
        let mut bearers: BTreeMap<String, AccountId> = BTreeMap::new();
        for one in &shared {
            let bearer = bearers.entry(one.owner_name.clone()).or_insert(one.owner);
            *bearer = one.owner.max(*bearer);
        }
        shared.retain(|one| bearers.get(&one.owner_name) == Some(&one.owner));
        shared
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
        let here = own.volume.shared_named(account, owner, name).await?;
        if self.slots.len() == 1 {
            return Ok(here.map_or(Named::Absent, |one| Named::Found(Box::new(one))));
        }
        let mut best = here;
        let mut is_one_away = false;
        for (at, slot) in self.slots.iter().enumerate() {
            let Some(other) = slot.mounted.get() else {
                is_one_away = true;
                continue;
            };
            if other.name == own.name {
                continue;
            }
            match other.volume.shared_named(account, owner, name).await {
                Ok(Some(one)) if best.as_ref().is_none_or(|best| best.owner < one.owner) => {
                    best = Some(self.seen(at, other, one));
                }
                Ok(_) => {}
                Err(_) => is_one_away = true,
            }
        }
        Ok(match (best, is_one_away) {
            (Some(one), _) => Named::Found(Box::new(one)),
            (None, true) => Named::Away,
            (None, false) => Named::Absent,
        })
    }

    /// What others share with an account has changed: its sessions, which watch it on its own volume, look again.
    pub(crate) fn ring(&self, account: AccountId) {
        if self.slots.len() > 1 {
            self.mounted().for_each(|one| one.volume.ring(account));
        }
    }

    /// From now on the owner's volume is known. Whose volume takes no writes is away for users of other volumes: what their
    /// own sessions may write was decided by their own volume.
    fn seen(&self, at: usize, other: &Mounted, one: Shared) -> Shared {
        self.lock().insert(one.owner, at);
        Shared {
            is_away: one.is_away || !other.may_write(),
            ..one
        }
    }
}
