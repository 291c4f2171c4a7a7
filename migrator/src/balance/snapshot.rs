//! What a planner is told: back-ends, accounts, and the load of each account by hour of the week.

use std::collections::HashSet;

use directory_api::{AccountId, BackendName, BackendState};
use store_api::load::Packed;

use super::Hours;
use super::loads::HOURS;

/// What a snapshot holds at most (P7).
pub mod limit {
    /// Back-ends.
    pub const BACKENDS_MAX: usize = 1_000;
    /// Accounts: about 400 octets each, so less than 2 GiB.
    pub const ACCOUNTS_MAX: usize = 4_000_000;
    /// Load of an account in one hour. Far above what any unit makes of an hour, and the sum over
    /// all accounts still has every bit that counts.
    pub const LOAD_MAX: f32 = 1e15;
}

/// One back-end.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// Its name.
    pub name: BackendName,
    /// How it takes part: only an active one is given accounts.
    pub state: BackendState,
    /// How much it carries against the others. From 1.
    pub weight: u32,
    /// Octets that may still be placed there.
    pub free: u64,
}

/// One account.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    /// Its number.
    pub id: AccountId,
    /// Where it lives: an index into the snapshot's back-ends.
    pub home: u32,
    /// What it stores, in octets.
    pub octets: u64,
    /// An operator has said that it stays where it is.
    pub pinned: bool,
    /// Accounts of one group belong on one back-end: they share mailboxes.
    pub group: Option<u32>,
    /// When it was moved last, in milliseconds since 1970.
    pub moved_ms: Option<i64>,
}

/// Why what was found cannot be planned with.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Unusable {
    /// There is nothing to balance.
    #[error("there is no back-end")]
    NoBackends,
    /// More than a plan is made for.
    #[error("more than {} back-ends", limit::BACKENDS_MAX)]
    Backends,
    /// Two of one name.
    #[error("back-end {0} is there twice")]
    BackendTwice(BackendName),
    /// A weight of none.
    #[error("back-end {0} has weight 0; take it out by draining it")]
    Weightless(BackendName),
    /// More than a plan is made for.
    #[error("more than {} accounts", limit::ACCOUNTS_MAX)]
    Accounts,
    /// Two of one number.
    #[error("account {0} is there twice")]
    AccountTwice(AccountId),
    /// It lives on a back-end that is not among them.
    #[error("account {0} lives on a back-end that is not listed")]
    Home(AccountId),
    /// A load that is none.
    #[error(
        "account {account} has the load {load} in hour {hour}; 0 to {} can be used",
        limit::LOAD_MAX
    )]
    Load {
        /// Whose.
        account: AccountId,
        /// Hour of the week.
        hour: usize,
        /// What was said.
        load: f32,
    },
    /// They cannot be counted in 64 bits.
    #[error("all accounts together have more octets than 64 bits can count")]
    Octets,
}

/// What is known at one time.
#[derive(Clone, Debug)]
pub struct Snapshot {
    taken_ms: i64,
    backends: Vec<Backend>,
    accounts: Vec<Account>,
    profiles: Vec<Packed>,
    seen: HashSet<AccountId>,
    octets: u64,
}

impl Snapshot {
    /// Without accounts yet; `taken_ms` in milliseconds since 1970.
    ///
    /// # Errors
    /// [`Unusable`], about the back-ends.
    pub fn new(taken_ms: i64, backends: Vec<Backend>) -> Result<Self, Unusable> {
        if backends.is_empty() {
            return Err(Unusable::NoBackends);
        }
        if backends.len() > limit::BACKENDS_MAX {
            return Err(Unusable::Backends);
        }
        let mut names = HashSet::new();
        for backend in &backends {
            if !names.insert(&backend.name) {
                return Err(Unusable::BackendTwice(backend.name.clone()));
            }
            if backend.weight == 0 {
                return Err(Unusable::Weightless(backend.name.clone()));
            }
        }
        Ok(Self {
            taken_ms,
            backends,
            accounts: Vec::new(),
            profiles: Vec::new(),
            seen: HashSet::new(),
            octets: 0,
        })
    }

    /// Adds an account with its load by hour of the week.
    ///
    /// # Errors
    /// [`Unusable`], about this account; the snapshot is as before.
    pub fn push(&mut self, account: Account, hours: &[f32; HOURS]) -> Result<(), Unusable> {
        if self.accounts.len() == limit::ACCOUNTS_MAX {
            return Err(Unusable::Accounts);
        }
        if account.home as usize >= self.backends.len() {
            return Err(Unusable::Home(account.id));
        }
        for (hour, load) in hours.iter().enumerate() {
            if !(0.0..=limit::LOAD_MAX).contains(load) {
                return Err(Unusable::Load {
                    account: account.id,
                    hour,
                    load: *load,
                });
            }
        }
        let octets = self.octets.checked_add(account.octets);
        let octets = octets.ok_or(Unusable::Octets)?;
        if !self.seen.insert(account.id) {
            return Err(Unusable::AccountTwice(account.id));
        }
        self.octets = octets;
        self.accounts.push(account);
        self.profiles
            .extend(hours.iter().map(|load| Packed::new(*load)));
        Ok(())
    }

    /// When it was taken, in milliseconds since 1970.
    #[must_use]
    pub fn taken_ms(&self) -> i64 {
        self.taken_ms
    }

    /// The back-ends.
    #[must_use]
    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }

    /// The accounts, in the order in which they were added.
    #[must_use]
    pub fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    /// What all accounts store, in octets.
    #[must_use]
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// The load of an account by hour of the week.
    #[must_use]
    pub fn hours(&self, account: usize) -> Hours {
        let packed = self.packed(account);
        std::array::from_fn(|hour| f64::from(packed[hour].load()))
    }

    pub(super) fn packed(&self, account: usize) -> &[Packed] {
        &self.profiles[account * HOURS..][..HOURS]
    }

    /// Days since the account was moved last; none when it never was. A time in the future, by a
    /// clock that runs ahead, is taken for now.
    pub(super) fn days_since_move(&self, account: &Account) -> Option<f64> {
        let moved_ms = account.moved_ms?;
        let ms = self.taken_ms.saturating_sub(moved_ms).max(0);
        Some(ms as f64 / DAY_MS)
    }
}

const DAY_MS: f64 = 86_400_000.0;
