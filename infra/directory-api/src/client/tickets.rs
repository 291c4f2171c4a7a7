//! Tickets that logins have left here, by which a back-end checks passwords while the directory is away.
//!
//! They are in memory, so many at most, and none outlives its time, the feed that would have told of a change by more than
//! `stale_max`, or a change of its account that the feed does tell. What is decided here is told to nobody but the log: a
//! user without a ticket and one with another password hear the same, after the same time (P8). A client has few turns, and a
//! wrong password holds one for half a second; nobody is locked out. Who was right once in an outage costs no Argon2id again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use daemon::clock::now_ms;
use moka::future::Cache;
use moka::ops::compute::Op;
use moka::policy::EvictionPolicy;
use tokio::sync::Semaphore;
use tokio::time::{sleep_until, timeout};

use super::cached::Seen;
use super::logins::{Tag, tag};
use super::{ClientOptions, DirectoryClient};
use crate::grant::Grant;
use crate::ticket::Ticket;
use crate::types::{AccountId, LoginName};
use crate::wire::LoginRequest;
use crate::wire::limit::PASSWORD_MAX_OCTETS;

/// Why no ticket here lets a user in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTicket {
    /// The user has not logged in here lately, or something has changed since.
    #[error("the user has left no ticket here")]
    Absent,
    /// The ticket is too old, or the directory has been away for too long.
    #[error("the ticket is too old, or the directory is away for too long")]
    Expired,
    /// The password does not open this service.
    #[error("the ticket is for another service")]
    Service,
    /// It is another password.
    #[error("it is not the ticket's password")]
    WrongPassword,
    /// Too many passwords are being checked.
    #[error("too many passwords are being checked")]
    Busy,
}

impl NoTicket {
    /// The reason in logs and metrics.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Absent => "ticket_absent",
            Self::Expired => "ticket_expired",
            Self::Service => "ticket_service",
            Self::WrongPassword => "ticket_wrong_password",
            Self::Busy => "ticket_busy",
        }
    }
}

/// The tickets of one back-end.
pub(super) struct Tickets {
    /// Of what is remembered of a password that was right. Lives as long as the process.
    key: hmac::Key,
    held: Cache<LoginName, Arc<[Arc<Held>]>>,
    /// When accounts last changed: a ticket that is on its way may be older.
    changed: Cache<AccountId, i64>,
    checks: Arc<Semaphore>,
    seen: Seen,
    stale_max: Duration,
}

struct Held {
    /// What the login that left the ticket was granted.
    grant: Grant,
    ticket: Ticket,
    came: Instant,
    right: Mutex<Option<Tag>>,
}

impl Tickets {
    pub(super) fn new(options: &ClientOptions, seen: &Seen) -> Self {
        let mut key = [0; 32];
        daemon::random::fill(&mut key);
        // The other half is for the users who are in.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            held: Cache::builder()
                .eviction_policy(EvictionPolicy::lru())
                .max_capacity(TICKETS_MAX)
                .weigher(|_, held: &Arc<[Arc<Held>]>| u32::try_from(held.len()).unwrap_or(u32::MAX))
                .time_to_idle(KEPT_MAX)
                .build(),
            changed: Cache::builder()
                .max_capacity(CHANGED_MAX)
                .time_to_live(CHANGED_KEPT)
                .build(),
            checks: Arc::new(Semaphore::new((cores / 2).max(1))),
            seen: seen.clone(),
            stale_max: options.stale_max,
        }
    }

    /// Accounts, by number, have changed, and when: what their tickets say may not be so any more.
    pub(super) async fn drop_of(&self, accounts: &HashMap<u64, i64>) {
        for (account, at_ms) in accounts {
            self.changed.insert(AccountId(*account), *at_ms).await;
        }
        self.drop_where(|held| accounts.contains_key(&held.grant.account.0))
            .await;
    }

    /// The names in a domain may lead elsewhere now.
    pub(super) async fn drop_in(&self, domain: &str) {
        let is_in = |name: &LoginName| {
            let domain_of = name.as_str().rsplit_once('@').map(|(_, domain)| domain);
            domain_of == Some(domain)
        };
        self.drop_where(|held| is_in(&held.ticket.user)).await;
    }

    async fn drop_where(&self, touched: impl Fn(&Held) -> bool) {
        let is_touched = |held: &Arc<[Arc<Held>]>| held.iter().any(|one| touched(one));
        let users: Vec<Arc<LoginName>> = self
            .held
            .iter()
            .filter(|(_, held)| is_touched(held))
            .map(|(user, _)| user)
            .collect();
        for user in &users {
            self.held.invalidate(user.as_ref()).await;
        }
    }

    pub(super) fn drop_all(&self) {
        self.held.invalidate_all();
    }

    async fn keep(&self, mut grant: Grant) {
        let Some(ticket) = grant.ticket.take() else {
            return;
        };
        let (account, issued_at_ms) = (grant.account, grant.issued_at_ms);
        let user = ticket.user.clone();
        let new = Arc::new(Held {
            grant,
            ticket: *ticket,
            came: Instant::now(),
            right: Mutex::default(),
        });
        self.held
            .entry_by_ref(&user)
            .and_compute_with(async |old| {
                let old = old.map(moka::Entry::into_value);
                let others = old.iter().flat_map(|old| old.iter());
                let others = others.filter(|one| {
                    one.ticket.credential != new.ticket.credential
                        && one.grant.account == account
                        && one.ticket.expires_at_ms > now_ms()
                });
                Op::Put(
                    others
                        .take(OF_A_USER_MAX - 1)
                        .cloned()
                        .chain([Arc::clone(&new)])
                        .collect(),
                )
            })
            .await;
        // In this order: a change that is told from now on finds the ticket.
        let changed = self.changed.get(&account).await;
        if changed.is_some_and(|at_ms| issued_at_ms <= at_ms.saturating_add(LOOKED_MAX_MS)) {
            self.held.invalidate(&user).await;
        }
    }

    async fn check(&self, request: &LoginRequest) -> Result<Grant, NoTicket> {
        let octets = request.password.reveal().len();
        let user = LoginName::new(request.user.as_str())
            .ok()
            .filter(|_| octets <= PASSWORD_MAX_OCTETS);
        let user = user.ok_or(NoTicket::Absent)?;
        let held = self.held.get(&user).await.ok_or(NoTicket::Absent)?;
        let is_good = |one: &&Arc<Held>| {
            one.ticket.expires_at_ms > now_ms() && self.seen.vouches(one.came, self.stale_max)
        };
        let mut good: Vec<Arc<Held>> = held.iter().filter(is_good).cloned().collect();
        if good.is_empty() {
            return Err(NoTicket::Expired);
        }
        good.retain(|one| one.ticket.services.contains(&request.service));
        if good.is_empty() {
            return Err(NoTicket::Service);
        }
        let shown = tag(&self.key, request);
        let known = good.iter().find(|one| *one.right() == Some(shown));
        if let Some(known) = known {
            return Ok(known.grant.clone());
        }
        let (slow, fast): (Vec<_>, Vec<_>) = good
            .into_iter()
            .partition(|one| one.ticket.verifier.is_slow());
        let password = request.password.reveal();
        let mut right = fast
            .into_iter()
            .find(|one| one.ticket.verifier.matches(password));
        if right.is_none() && !slow.is_empty() {
            let permit = Arc::clone(&self.checks).acquire_owned().await;
            let password = request.password.clone();
            let checked = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                slow.into_iter()
                    .find(|one| one.ticket.verifier.matches(password.reveal()))
            });
            right = checked.await.map_err(|_| NoTicket::Busy)?;
        }
        let right = right.ok_or(NoTicket::WrongPassword)?;
        *right.right() = Some(shown);
        Ok(right.grant.clone())
    }
}

impl Held {
    fn right(&self) -> MutexGuard<'_, Option<Tag>> {
        self.right.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DirectoryClient {
    /// Keeps the ticket of a grant that has just been verified, if there is one.
    pub async fn keep_ticket(&self, grant: Grant) {
        self.inner.tickets.keep(grant).await;
    }

    /// Checks a password by a ticket that is kept here: for when the directory is away, which the caller has found out.
    ///
    /// What it gives is the grant of the login that left the ticket.
    ///
    /// # Errors
    /// [`NoTicket`]: temporary for the user, whichever it is. It comes half a second late.
    pub async fn check_ticket(&self, request: &LoginRequest) -> Result<Grant, NoTicket> {
        let turn = self
            .inner
            .turns
            .turn(request.client_address, std::future::pending());
        let decided = match timeout(WAIT_MAX, turn).await {
            Ok(Ok(_turn)) => {
                let refused_at = tokio::time::Instant::now() + REFUSED_AFTER;
                let decided = self.inner.tickets.check(request).await;
                if decided.is_err() {
                    sleep_until(refused_at).await;
                }
                decided
            }
            _ => Err(NoTicket::Busy),
        };
        let outcome = decided.as_ref().map_or_else(|no| no.code(), |_| "ok");
        metrics::counter!(super::TICKETS, "outcome" => outcome).increment(1);
        decided
    }
}

/// Tickets at once, those forgotten first that were of no use for longest: some 120 MB when full.
const TICKETS_MAX: u64 = 200_000;
/// No ticket is good for longer; the directory's setting has this limit.
const KEPT_MAX: Duration = Duration::from_secs(72 * 3600);
/// The own password and each app password that an account may have.
const OF_A_USER_MAX: usize = 33;
/// A grant lives 10 s, and clocks differ by 2 s.
const CHANGED_KEPT: Duration = Duration::from_secs(30);
/// An import changes many at once. Beyond, a ticket that was on its way while its account was changed is kept, until it expires.
const CHANGED_MAX: u64 = 100_000;
/// From the directory's look at an account to its grant.
const LOOKED_MAX_MS: i64 = 1_000;
/// Of the time for opening a session, for the turn.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// So few guesses has a client's turn in a second; a check takes a tenth of it.
const REFUSED_AFTER: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::ticket::Verifier;
    use crate::types::{Epoch, Quota, Service};
    use crate::wire::Secret;

    /// Long enough to be a random one, so that its check is fast.
    const RIGHT: &str = "kvoxgltvqvgh4lmzbhvxpaq3zi";
    const OTHER: &str = "another password, as long";
    const HOUR_MS: i64 = 3_600_000;

    fn tickets(stale_max: Duration) -> (Tickets, Seen) {
        let seen = Seen::default();
        let options = ClientOptions {
            stale_max,
            ..ClientOptions::default()
        };
        (Tickets::new(&options, &seen), seen)
    }

    fn grant(user: &str, account: u64, credential: Option<&str>, password: &str) -> Grant {
        Grant {
            account: AccountId(account),
            backend: "b1".parse().unwrap(),
            epoch: Epoch(1),
            service: Service::Imap,
            login_name: user.parse().unwrap(),
            quota: Quota::NONE,
            ticket: Some(Box::new(Ticket {
                user: user.parse().unwrap(),
                credential: credential.map(|name| name.parse().unwrap()),
                services: vec![Service::Imap],
                expires_at_ms: now_ms() + HOUR_MS,
                verifier: Verifier::of_random(password).unwrap(),
            })),
            issued_at_ms: now_ms(),
            expires_at_ms: now_ms() + crate::grant::LIFE_MS,
            nonce: daemon::random::token128(),
        }
    }

    fn shown(user: &str, password: &str) -> LoginRequest {
        LoginRequest {
            user: user.to_owned(),
            password: Secret::new(password.to_owned()),
            service: Service::Imap,
            client_address: [192, 0, 2, 1].into(),
            secured: true,
            backend: None,
        }
    }

    async fn opens(tickets: &Tickets, user: &str, password: &str) -> Result<u64, NoTicket> {
        let grant = tickets.check(&shown(user, password)).await?;
        Ok(grant.account.0)
    }

    #[tokio::test]
    async fn a_ticket_opens_its_account_to_its_password_and_service() {
        let (tickets, _) = tickets(Duration::from_secs(60));
        tickets.keep(grant("ann@x.test", 7, None, RIGHT)).await;
        for _ in 0..2 {
            assert_eq!(opens(&tickets, "Ann@X.test", RIGHT).await, Ok(7));
        }
        let wrong = opens(&tickets, "ann@x.test", OTHER).await;
        assert_eq!(wrong, Err(NoTicket::WrongPassword));
        for nobody in ["eve@x.test", "ann", "", "not a name"] {
            let absent = opens(&tickets, nobody, RIGHT).await;
            assert_eq!(absent, Err(NoTicket::Absent), "{nobody}");
        }
        let pop3 = LoginRequest {
            service: Service::Pop3,
            ..shown("ann@x.test", RIGHT)
        };
        assert_eq!(tickets.check(&pop3).await.err(), Some(NoTicket::Service));
    }

    #[tokio::test]
    async fn each_password_has_its_ticket_and_the_last_of_each_counts() {
        let (tickets, _) = tickets(Duration::from_secs(60));
        tickets.keep(grant("ann@x.test", 7, None, OTHER)).await;
        tickets
            .keep(grant("ann@x.test", 7, Some("phone"), RIGHT))
            .await;
        assert_eq!(opens(&tickets, "ann@x.test", OTHER).await, Ok(7));
        assert_eq!(opens(&tickets, "ann@x.test", RIGHT).await, Ok(7));
        tickets
            .keep(grant(
                "ann@x.test",
                7,
                Some("phone"),
                "a phone that was set up anew",
            ))
            .await;
        assert!(opens(&tickets, "ann@x.test", RIGHT).await.is_err());
        for number in 0..2 * OF_A_USER_MAX {
            let name = format!("phone-{number}");
            tickets
                .keep(grant("ann@x.test", 7, Some(&name), RIGHT))
                .await;
        }
        let name: LoginName = "ann@x.test".parse().unwrap();
        assert_eq!(tickets.held.get(&name).await.unwrap().len(), OF_A_USER_MAX);
        // The name is somebody else's now: what the last bearer left is gone.
        tickets.keep(grant("ann@x.test", 8, None, RIGHT)).await;
        assert_eq!(opens(&tickets, "ann@x.test", RIGHT).await, Ok(8));
        assert!(opens(&tickets, "ann@x.test", OTHER).await.is_err());
    }

    #[tokio::test]
    async fn a_ticket_ends_with_its_time_and_with_the_time_for_which_the_feed_vouches() {
        let (tickets, seen) = tickets(Duration::from_millis(50));
        let mut old = grant("ann@x.test", 7, None, RIGHT);
        old.ticket.as_mut().unwrap().expires_at_ms = now_ms();
        tickets.keep(old).await;
        let expired = opens(&tickets, "ann@x.test", RIGHT).await;
        assert_eq!(expired, Err(NoTicket::Expired));
        tickets.keep(grant("ann@x.test", 7, None, RIGHT)).await;
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert!(opens(&tickets, "ann@x.test", RIGHT).await.is_err());
        seen.note_complete();
        assert!(opens(&tickets, "ann@x.test", RIGHT).await.is_ok());
    }

    #[tokio::test]
    async fn a_change_drops_the_tickets_it_touches_and_those_on_their_way() {
        let (tickets, _) = tickets(Duration::from_secs(60));
        let keep = async |at_ms| {
            let of_ann = Grant {
                issued_at_ms: at_ms,
                ..grant("ann@x.test", 7, None, RIGHT)
            };
            tickets.keep(of_ann).await;
            tickets.keep(grant("ben@y.test", 8, None, RIGHT)).await;
        };
        let now = now_ms();
        keep(now).await;
        tickets.drop_of(&HashMap::from([(7, now)])).await;
        assert!(opens(&tickets, "ann@x.test", RIGHT).await.is_err());
        assert!(opens(&tickets, "ben@y.test", RIGHT).await.is_ok());
        // Its login had seen the account as it was.
        keep(now + LOOKED_MAX_MS).await;
        assert!(opens(&tickets, "ann@x.test", RIGHT).await.is_err());
        keep(now + LOOKED_MAX_MS + 1).await;
        assert!(opens(&tickets, "ann@x.test", RIGHT).await.is_ok());
        tickets.drop_in("x.test").await;
        assert!(opens(&tickets, "ann@x.test", RIGHT).await.is_err());
        assert!(opens(&tickets, "ben@y.test", RIGHT).await.is_ok());
    }
}
