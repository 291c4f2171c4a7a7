//! When each credential last let somebody in, kept without a write for each login.
//!
//! A login notes the moment in memory; every minute what was noted goes to the engine, in slices of
//! one transaction, and the engine keeps of each credential one use an hour. So a program that polls
//! costs one row an hour, and what is told is true to the hour, or to the moment as long as it is in
//! memory. A directory that is killed forgets a minute; one that ends in order forgets nothing.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use directory_api::{AccountId, CredentialName};
use tracing::warn;

use crate::engine::{CredentialUse, Engine, StoredCredential};

/// The uses noted since they were last kept.
#[derive(Default)]
pub(crate) struct Uses(Mutex<Noted>);

type Noted = HashMap<(AccountId, Option<CredentialName>), i64>;

impl Uses {
    /// Notes a use. Does not wait; beyond what memory is for, it is forgotten.
    pub(crate) fn note(&self, account: AccountId, name: Option<CredentialName>, now_ms: i64) {
        let mut noted = self.noted();
        let key = (account, name);
        if noted.len() < NOTED_MAX || noted.contains_key(&key) {
            noted.insert(key, now_ms);
        }
    }

    /// The use of a credential that is noted and not yet kept.
    pub(crate) fn of(&self, account: AccountId, stored: &StoredCredential) -> Option<i64> {
        let at_ms = self.noted().get(&(account, stored.name.clone())).copied();
        at_ms.filter(|at_ms| stored.may_be_used_at(*at_ms))
    }

    /// Until it is ended from outside.
    pub(crate) async fn keep_for_ever<E: Engine>(&self, engine: &E) {
        loop {
            tokio::time::sleep(EVERY).await;
            self.keep(engine).await;
        }
    }

    /// Has the engine keep what was noted. Until it has, it stays noted: whoever ends this while it
    /// waits can have it done again, and what fails is tried with the next.
    pub(crate) async fn keep<E: Engine>(&self, engine: &E) {
        let uses: Vec<CredentialUse> = self
            .noted()
            .iter()
            .map(|((account, name), at_ms)| CredentialUse {
                account: *account,
                name: name.clone(),
                at_ms: *at_ms,
            })
            .collect();
        for slice in uses.chunks(SLICE) {
            match engine.keep_uses(slice.to_vec()).await {
                Ok(_) => self.forget(slice),
                Err(error) => warn!(%error, "when passwords were last used could not be kept"),
            }
        }
    }

    /// They are kept; a later use that was noted meanwhile is not.
    fn forget(&self, kept: &[CredentialUse]) {
        let mut noted = self.noted();
        for one in kept {
            let key = (one.account, one.name.clone());
            if noted.get(&key) == Some(&one.at_ms) {
                noted.remove(&key);
            }
        }
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const EVERY: Duration = Duration::from_secs(60);
/// A minute of 3,000 different users a second; some 20 MB.
const NOTED_MAX: usize = 200_000;
/// Uses of one transaction: a tenth of a second of the engine's writer.
const SLICE: usize = 2_000;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use directory_api::wire::Secret;

    use super::*;
    use crate::engine::Lmdb;

    #[tokio::test]
    async fn what_is_ended_while_it_is_kept_is_still_noted() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Lmdb::open(folder.path()).unwrap();
        let own = StoredCredential::own(Secret::new(String::new()));
        let uses = Uses::default();
        // The engine answers from another thread, which is before us now and then.
        let mut was_cut = false;
        while !was_cut {
            uses.note(AccountId(1), None, 7);
            tokio::select! {
                biased;
                () = uses.keep(&engine) => {}
                () = std::future::ready(()) => was_cut = true,
            }
        }
        assert_eq!(uses.of(AccountId(1), &own), Some(7));
        uses.note(AccountId(2), None, 8);
        uses.keep(&engine).await;
        assert_eq!(uses.of(AccountId(1), &own), None);
        assert_eq!(uses.of(AccountId(2), &own), None);
    }

    #[test]
    fn a_use_of_the_password_before_is_none_of_this_one() {
        let uses = Uses::default();
        let mut own = StoredCredential::own(Secret::new(String::new()));
        uses.note(AccountId(1), None, 7);
        own.set_ms = 7;
        assert_eq!(uses.of(AccountId(1), &own), Some(7));
        own.set_ms = 8;
        assert_eq!(uses.of(AccountId(1), &own), None);
    }
}
