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

use crate::engine::{CredentialUse, Engine};

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
    pub(crate) fn of(&self, account: AccountId, name: Option<&CredentialName>) -> Option<i64> {
        self.noted().get(&(account, name.cloned())).copied()
    }

    /// Until it is ended from outside.
    pub(crate) async fn keep_for_ever<E: Engine>(&self, engine: &E) {
        loop {
            tokio::time::sleep(EVERY).await;
            self.keep(engine).await;
        }
    }

    /// Has the engine keep what was noted.
    pub(crate) async fn keep<E: Engine>(&self, engine: &E) {
        let noted = std::mem::take(&mut *self.noted());
        let uses: Vec<CredentialUse> = noted
            .into_iter()
            .map(|((account, name), at_ms)| CredentialUse {
                account,
                name,
                at_ms,
            })
            .collect();
        for slice in uses.chunks(SLICE) {
            if let Err(error) = engine.keep_uses(slice.to_vec()).await {
                warn!(%error, "when passwords were last used could not be kept");
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
