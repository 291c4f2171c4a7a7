//! The last refusals of each name, for the operator who is asked why.
//!
//! In memory alone, without a look at the database: a write for each guess at a password would be
//! the guesser's to cause, and a read would be felt, or its absence. A restart forgets all of them.
//! One like the last takes its place, so that a guesser leaves one line and not five. Logins of accounts that are
//! there are kept apart from names that are nobody's, so that whoever tries names by the hundred
//! thousand makes nobody's own refusals be forgotten.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use daemon::clock::now_ms;
use directory_api::wire::{Refusal, Refused};
use directory_api::{AccountId, Address, LoginName};
use moka::future::Cache;
use moka::policy::EvictionPolicy;

use crate::engine::{Answer, Engine};
use crate::login::Seen;

/// What is remembered.
pub(crate) struct Memory {
    since_ms: i64,
    accounts: Cache<AccountId, Last>,
    names: Cache<String, Last>,
}

type Last = Arc<Mutex<VecDeque<Refusal>>>;

impl Memory {
    pub(crate) fn new() -> Self {
        Self {
            since_ms: now_ms(),
            accounts: least_recent(),
            names: least_recent(),
        }
    }

    /// Remembers a login that was refused.
    pub(crate) async fn login(&self, seen: &Seen, code: &str, by: &str) {
        let refusal = Refusal {
            at_ms: now_ms(),
            of: Refused::Login {
                service: seen.service,
                client_address: seen.client,
            },
            code: code.to_owned(),
            by: by.to_owned(),
        };
        match seen.account {
            Some(account) => push(&self.accounts, account, refusal).await,
            None => self.name(&seen.user, refusal).await,
        }
    }

    /// Remembers a recipient that is unknown.
    pub(crate) async fn recipient(&self, address: &Address, code: &str, by: &str) {
        let refusal = Refusal {
            at_ms: now_ms(),
            of: Refused::Recipient,
            code: code.to_owned(),
            by: by.to_owned(),
        };
        self.name(address.as_str(), refusal).await;
    }

    async fn name(&self, name: &str, refusal: Refusal) {
        if name.len() <= NAME_MAX_OCTETS {
            push(&self.names, name.to_lowercase(), refusal).await;
        }
    }

    /// The last refusals of a name, the newest first.
    pub(crate) async fn of<E: Engine>(
        &self,
        engine: &E,
        name: &str,
    ) -> Answer<directory_api::wire::Refusals> {
        let mut items = all(self.names.get(&name.to_lowercase()).await);
        if let Some(account) = account_of(engine, name).await? {
            items.extend(all(self.accounts.get(&account).await));
        }
        items.sort_by_key(|refusal| std::cmp::Reverse(refusal.at_ms));
        Ok(directory_api::wire::Refusals {
            since_ms: self.since_ms,
            items,
        })
    }
}

async fn account_of<E: Engine>(engine: &E, name: &str) -> Answer<Option<AccountId>> {
    let Ok(name) = LoginName::new(name) else {
        return Ok(None);
    };
    let record = engine.login_record(name).await?;
    Ok(record.map(|record| record.account.id))
}

fn least_recent<K: std::hash::Hash + Eq + Send + Sync + 'static>() -> Cache<K, Last> {
    Cache::builder()
        .max_capacity(NAMES_MAX)
        .eviction_policy(EvictionPolicy::lru())
        .build()
}

async fn push<K: std::hash::Hash + Eq + Send + Sync + 'static>(
    cache: &Cache<K, Last>,
    key: K,
    refusal: Refusal,
) {
    let last = cache.get_with(key, async { Last::default() }).await;
    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
    if last.front().is_some_and(|before| is_like(before, &refusal)) {
        last.pop_front();
    }
    last.truncate(EACH_MAX - 1);
    last.push_front(refusal);
}

/// The same reason for the same client, or for the same server that asks about a recipient.
fn is_like(one: &Refusal, other: &Refusal) -> bool {
    let who = |refusal: &Refusal| match refusal.of {
        Refused::Login { client_address, .. } => (Some(client_address), None),
        Refused::Recipient => (None, Some(refusal.by.clone())),
    };
    one.code == other.code && who(one) == who(other)
}

fn all(last: Option<Last>) -> Vec<Refusal> {
    let Some(last) = last else {
        return Vec::new();
    };
    let last = last.lock().unwrap_or_else(PoisonError::into_inner);
    last.iter().cloned().collect()
}

/// Names of either kind; some 10 MB each when full.
const NAMES_MAX: u64 = 10_000;
/// Refusals of one name.
const EACH_MAX: usize = 5;
/// As long as an address or login name may be.
const NAME_MAX_OCTETS: usize = 512;
