//! Things kept by account and found by the names under which its user logs in, so that what is told of an account finds them
//! without a walk.

use std::time::Duration;

use moka::future::Cache;
use moka::policy::EvictionPolicy;

use crate::types::{AccountId, LoginName};

/// Something of each account.
pub(super) struct OfUsers<V> {
    /// Whose name it was last.
    names: Cache<LoginName, AccountId>,
    pub(super) accounts: Cache<AccountId, V>,
}

impl<V: Clone + Send + Sync + 'static> OfUsers<V> {
    /// So many at most, by weight, those forgotten first that were of no use for longest, or none for so long.
    pub(super) fn new(
        weight_max: u64,
        weigher: impl Fn(&V) -> u32 + Send + Sync + 'static,
        kept: Duration,
    ) -> Self {
        Self {
            names: Cache::builder()
                .eviction_policy(EvictionPolicy::lru())
                .max_capacity(weight_max)
                .time_to_idle(kept)
                .build(),
            accounts: Cache::builder()
                .eviction_policy(EvictionPolicy::lru())
                .max_capacity(weight_max)
                .weigher(move |_, value| weigher(value))
                .time_to_idle(kept)
                .build(),
        }
    }

    pub(super) async fn name(&self, user: LoginName, account: AccountId) {
        self.names.insert(user, account).await;
    }

    /// What is kept of the account that this was the name of.
    pub(super) async fn get(&self, user: &LoginName) -> Option<V> {
        let account = self.names.get(user).await?;
        self.accounts.get(&account).await
    }

    pub(super) fn drop_all(&self) {
        self.accounts.invalidate_all();
        self.names.invalidate_all();
    }

    /// Walks everything.
    pub(super) fn accounts_where(&self, is_meant: impl Fn(&V) -> bool) -> Vec<AccountId> {
        let meant = self.accounts.iter().filter(|(_, value)| is_meant(value));
        meant.map(|(account, _)| *account).collect()
    }
}
