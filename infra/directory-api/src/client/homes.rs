//! Where users who logged in through here live, for when the directory is away: their homes can check their passwords.
//!
//! Nothing here is secret. An answer may be old: a home that the user has left refuses. What the feed tells of moves is dropped.
//!
//! Who has not logged in through here may have done so elsewhere. Then the back-ends that are known here are asked, each for
//! the name alone, whether it has let that user in lately; which it tells to the other tiers and nobody else. The password is
//! shown to one that says yes. Where two do, one of them is wrong or worse, and neither is shown it.

use std::collections::BTreeMap;
use std::future::pending;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::future::Cache;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::DirectoryClient;
use super::changed::ChangedAccounts;
use super::users::OfUsers;
use crate::types::{AccountId, BackendName, ChangeNumber, LoginName};
use crate::wire::{LoginReply, LoginRequest};

/// Where a user lived at the last login through here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownHome {
    /// Whose mail.
    pub account: AccountId,
    /// The user's canonical name.
    pub login_name: LoginName,
    /// The back-end.
    pub backend: BackendName,
    /// Where that one listens for session streams: `host:port`.
    pub backend_address: String,
}

/// The homes that one process knows.
pub(super) struct Homes {
    known: OfUsers<Arc<KnownHome>>,
    changed: ChangedAccounts,
    /// Where logins through here have led, and where each listens.
    backends: Mutex<BTreeMap<BackendName, String>>,
    /// Whom no back-end knew a moment ago.
    in_vain: Cache<LoginName, ()>,
}

/// Asks the back-end of a name, which listens at an address, whether it has let this user in lately: in a second or so, for
/// the user waits.
pub type AskHome = Arc<
    dyn Fn(
            BackendName,
            String,
            LoginName,
        ) -> Pin<Box<dyn Future<Output = Result<Option<KnownHome>, Untold>> + Send>>
        + Send
        + Sync,
>;

/// A back-end does not tell now: it may a moment later, when it has found out as well that the directory is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Untold;

impl Homes {
    pub(super) fn new(entries_max: u64, changed: &ChangedAccounts) -> Self {
        Self {
            known: OfUsers::new(entries_max, |_| 1, KEPT),
            changed: changed.clone(),
            backends: Mutex::default(),
            in_vain: Cache::builder()
                .max_capacity(IN_VAIN_MAX)
                .time_to_live(IN_VAIN)
                .build(),
        }
    }

    /// Notes an answer that was asked for when `before` was the newest change known.
    pub(super) async fn note(&self, user: &str, reply: &LoginReply, before: ChangeNumber) {
        // A foreign back-end checks no ticket.
        let (Ok(user), None) = (LoginName::new(user), &reply.foreign) else {
            return;
        };
        let known = KnownHome {
            account: reply.account,
            login_name: reply.login_name.clone(),
            backend: reply.home.backend.clone(),
            backend_address: reply.backend_address.clone(),
        };
        self.note_backend(&known);
        self.put(user, Arc::new(known)).await;
        if !self.changed.holds(reply.account, before) {
            self.drop_of(reply.account).await;
        }
    }

    async fn put(&self, user: LoginName, home: Arc<KnownHome>) {
        self.known.name(user, home.account).await;
        self.known.accounts.insert(home.account, home).await;
    }

    fn note_backend(&self, home: &KnownHome) {
        let mut backends = self.backends.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(address) = backends.get_mut(&home.backend) {
            address.clone_from(&home.backend_address);
        } else if backends.len() < BACKENDS_MAX {
            backends.insert(home.backend.clone(), home.backend_address.clone());
        }
    }

    /// Asks all of them at once.
    async fn find(&self, user: &LoginName, ask: &AskHome) -> Option<Arc<KnownHome>> {
        let backends = {
            let backends = self.backends.lock();
            backends.unwrap_or_else(PoisonError::into_inner).clone()
        };
        let mut asked = JoinSet::new();
        for (name, address) in backends {
            asked.spawn(ask(name, address, user.clone()));
        }
        let answers = asked.join_all().await;
        let is_untold = answers.contains(&Err(Untold));
        let mut found = answers.into_iter().flatten().flatten();
        let (one, other) = (found.next(), found.next());
        // The directory has said where that account lives: a back-end that claims it for another name does not know better.
        let is_elsewhere = match &one {
            Some(home) => {
                let known = self.known.accounts.get(&home.account).await;
                known.is_some_and(|known| known.backend != home.backend)
            }
            None => false,
        };
        let outcome = match (one, other) {
            (Some(home), None) if is_elsewhere => {
                warn!(user = %user, account = %home.account, backend = %home.backend, "a back-end says that an account lives there which lives elsewhere, so it is not shown the password");
                Err("elsewhere")
            }
            (Some(home), None) => Ok(Arc::new(home)),
            (None, _) if is_untold => Err("untold"),
            (None, _) => Err("nobody"),
            (Some(one), Some(other)) => {
                warn!(user = %user, one = %one.backend, other = %other.backend, "two back-ends say that a user lives there, so neither is shown the password");
                Err("several")
            }
        };
        let told = outcome.as_ref().err().copied().unwrap_or("found");
        metrics::counter!(super::SEARCHES, "outcome" => told).increment(1);
        match outcome {
            Ok(home) => {
                info!(user = %user, backend = %home.backend, "home found by asking, for the directory is away");
                self.put(user.clone(), Arc::clone(&home)).await;
                Some(home)
            }
            Err("untold") => None,
            Err(_) => {
                self.in_vain.insert(user.clone(), ()).await;
                None
            }
        }
    }

    pub(super) async fn get(&self, user: &LoginName) -> Option<Arc<KnownHome>> {
        self.known.get(user).await
    }

    /// The account may live elsewhere now.
    pub(super) async fn drop_of(&self, account: AccountId) {
        self.known.accounts.invalidate(&account).await;
    }
}

impl DirectoryClient {
    /// The home of a user of whom none is known here, by asking back-ends: for when the directory is away. In a turn of the
    /// client's, and nobody is looked for again within half a minute of a search in vain.
    pub async fn find_home(&self, request: &LoginRequest, ask: &AskHome) -> Option<Arc<KnownHome>> {
        let user = LoginName::new(request.user.as_str()).ok()?;
        let (homes, turns) = (&self.inner.homes, &self.inner.turns);
        if homes.in_vain.contains_key(&user) {
            return None;
        }
        let turn = turns.turn(request.client_address, pending()).await;
        let _turn = turn.ok()?;
        homes.find(&user, ask).await
    }
}

/// Back-ends that are asked: one search costs a question to each.
const BACKENDS_MAX: usize = 256;
const IN_VAIN_MAX: u64 = 10_000;
const IN_VAIN: Duration = Duration::from_secs(30);
/// As long as a ticket may be good.
const KEPT: Duration = Duration::from_secs(72 * 3600);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::types::{Epoch, Home, Quota};

    fn reply(account: u64, backend: &str) -> LoginReply {
        LoginReply {
            account: AccountId(account),
            login_name: "ann@x.test".parse().unwrap(),
            home: Home {
                backend: backend.parse().unwrap(),
                volume: "v1".parse().unwrap(),
                epoch: Epoch(1),
            },
            backend_address: format!("{backend}.test:4300"),
            quota: Quota::NONE,
            grant: String::new(),
            foreign: None,
        }
    }

    #[tokio::test]
    async fn a_home_is_known_by_every_name_of_its_user_until_the_account_has_another() {
        let changed = ChangedAccounts::new();
        let homes = Homes::new(10, &changed);
        let knows = async |user: &str| {
            let home = homes.get(&user.parse().unwrap()).await;
            home.map(|home| home.backend.to_string())
        };
        let note = async |user, backend, before| {
            let reply = reply(7, backend);
            homes.note(user, &reply, ChangeNumber(before)).await;
        };
        note("Ann@X.test", "b1", 4).await;
        note("ann@alias.test", "b1", 4).await;
        for user in ["ann@x.test", "ann@alias.test"] {
            assert_eq!(knows(user).await.as_deref(), Some("b1"));
        }
        assert_eq!(knows("eve@x.test").await, None);
        changed.note(AccountId(7), ChangeNumber(5));
        homes.drop_of(AccountId(7)).await;
        // It was on its way while the account moved.
        note("ann@x.test", "b1", 4).await;
        for user in ["ann@x.test", "ann@alias.test"] {
            assert_eq!(knows(user).await, None);
        }
        note("ann@x.test", "b2", 5).await;
        assert_eq!(knows("ann@alias.test").await.as_deref(), Some("b2"));
    }

    #[tokio::test]
    async fn who_is_not_known_is_found_where_one_back_end_says_so_and_not_where_two_do() {
        let homes = Homes::new(10, &ChangedAccounts::new());
        for backend in ["b1", "b2", "b3"] {
            let user = format!("somebody@{backend}.test");
            homes.note(&user, &reply(7, backend), ChangeNumber(0)).await;
        }
        let count = Arc::new(AtomicUsize::new(0));
        let asked = Arc::clone(&count);
        let ask: AskHome = Arc::new(move |backend: BackendName, address, user: LoginName| {
            asked.fetch_add(1, Ordering::Relaxed);
            let is_there = match user.as_str() {
                "ben@x.test" => backend.as_str() == "b2",
                "eve@x.test" => backend.as_str() != "b3",
                "joe@x.test" => backend.as_str() == "b1",
                _ => false,
            };
            let user_is_untold = user.as_str() == "kim@x.test" && backend.as_str() == "b2";
            // Account 7 is known to live at b3.
            let account = if user.as_str() == "joe@x.test" { 7 } else { 8 };
            let home = KnownHome {
                account: AccountId(account),
                login_name: user,
                backend,
                backend_address: address,
            };
            let told = match user_is_untold {
                true => Err(Untold),
                false => Ok(is_there.then_some(home)),
            };
            Box::pin(std::future::ready(told))
        });
        let find = async |user: &str| homes.find(&user.parse().unwrap(), &ask).await;
        let found = find("ben@x.test").await.unwrap();
        assert_eq!(found.backend_address, "b2.test:4300");
        assert_eq!(count.load(Ordering::Relaxed), 3);
        let kept = homes.get(&"ben@x.test".parse().unwrap()).await;
        assert_eq!(kept, Some(found));
        for nobody in ["eve@x.test", "joe@x.test", "ann@x.test"] {
            assert_eq!(find(nobody).await, None);
            let nobody: LoginName = nobody.parse().unwrap();
            assert!(homes.in_vain.contains_key(&nobody));
        }
        // That one does not tell yet is no word of there being nobody.
        assert_eq!(find("kim@x.test").await, None);
        assert!(
            !homes
                .in_vain
                .contains_key(&"kim@x.test".parse::<LoginName>().unwrap())
        );
    }

    #[tokio::test]
    async fn so_many_back_ends_are_asked_and_no_more() {
        let homes = Homes::new(10, &ChangedAccounts::new());
        for number in 0..=BACKENDS_MAX {
            let reply = reply(7, &format!("b{number}"));
            homes.note("ann@x.test", &reply, ChangeNumber(0)).await;
        }
        assert_eq!(homes.backends.lock().unwrap().len(), BACKENDS_MAX);
    }
}
