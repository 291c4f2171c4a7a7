//! Tickets that logins have left here, by which a back-end checks passwords while the directory is away.
//!
//! They are in memory, so many at most, and none outlives its time, the feed that would have told of a change by more than
//! `stale_max`, or a change of its account that the feed does tell. Which came first, the login or the change, their numbers
//! say, and no clock: a ticket that is on its way while its account changes is not kept, and one that comes before the change
//! which it knows of already stays. What is decided here is told to nobody but the log: a
//! user without a ticket and one with another password hear the same, after the same time (P8). A client has few turns, and a
//! wrong password holds one of these for half a second, though none of those that all clients share; nobody is locked out.
//! Who was right once in an outage costs no Argon2id again.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use daemon::clock::now_ms;
use moka::ops::compute::Op;
use tokio::sync::Semaphore;
use tokio::time::{sleep, sleep_until, timeout_at};

use super::cached::Seen;
use super::changed::ChangedAccounts;
use super::homes::KnownHome;
use super::logins::{Tag, tag};
use super::users::OfUsers;
use super::{ClientOptions, DirectoryClient, GaveUp};
use crate::grant::Grant;
use crate::ticket::Ticket;
use crate::types::{AccountId, ChangeNumber, LoginName};
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
    held: OfUsers<Arc<[Arc<Held>]>>,
    changed: ChangedAccounts,
    checks: Arc<Semaphore>,
    seen: Seen,
    stale_max: Duration,
}

struct Held {
    /// What the login that left the ticket was granted.
    grant: Grant,
    ticket: Ticket,
    came: Instant,
    /// As long after that as the directory said: a clock that is set back does not make it longer.
    until: Instant,
    right: Mutex<Option<Tag>>,
}

impl Tickets {
    pub(super) fn new(options: &ClientOptions, seen: &Seen, changed: &ChangedAccounts) -> Self {
        let mut key = [0; 32];
        daemon::random::fill(&mut key);
        // The other half is for the users who are in.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = |held: &Arc<[Arc<Held>]>| u32::try_from(held.len()).unwrap_or(u32::MAX);
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            held: OfUsers::new(TICKETS_MAX, count, KEPT_MAX),
            changed: changed.clone(),
            checks: Arc::new(Semaphore::new((cores / 2).max(1))),
            seen: seen.clone(),
            stale_max: options.stale_max,
        }
    }

    /// Accounts have changed, each last by this change: what older tickets of theirs say may not be so any more.
    pub(super) async fn drop_of(&self, accounts: &[(AccountId, ChangeNumber)]) {
        for (account, change) in accounts {
            self.retain(*account, |one| one.ticket.as_of >= *change)
                .await;
        }
    }

    /// The names in these domains may lead elsewhere since a change.
    pub(super) async fn drop_in(&self, domains: &HashSet<&str>, change: ChangeNumber) {
        let is_in = |one: &Held| {
            let domain = one.ticket.user.as_str().rsplit_once('@');
            domain.is_some_and(|(_, domain)| domains.contains(domain))
        };
        self.retain_all(|one| one.ticket.as_of >= change || !is_in(one))
            .await;
    }

    /// The feed begins at a change: what it has told before is not known.
    pub(super) async fn drop_before(&self, change: ChangeNumber) {
        self.retain_all(|one| one.ticket.as_of >= change).await;
    }

    /// The feed goes on behind a change, after nobody was there for a while: where that was another directory, with an older
    /// copy of what this one had, its next changes have the numbers that these tickets know of already.
    pub(super) async fn drop_behind(&self, change: ChangeNumber) {
        self.retain_all(|one| one.ticket.as_of <= change).await;
    }

    pub(super) fn drop_all(&self) {
        self.held.drop_all();
    }

    async fn retain_all(&self, is_kept: impl Fn(&Held) -> bool) {
        let has_other = |held: &Arc<[Arc<Held>]>| held.iter().any(|one| !is_kept(one));
        for account in self.held.accounts_where(has_other) {
            self.retain(account, &is_kept).await;
        }
    }

    async fn retain(&self, account: AccountId, is_kept: impl Fn(&Held) -> bool) {
        self.held
            .accounts
            .entry(account)
            .and_compute_with(async |old| {
                let Some(old) = old.map(moka::Entry::into_value) else {
                    return Op::Nop;
                };
                let kept: Arc<[_]> = old.iter().filter(|one| is_kept(one)).cloned().collect();
                match kept.len() {
                    0 => Op::Remove,
                    all if all == old.len() => Op::Nop,
                    _ => Op::Put(kept),
                }
            })
            .await;
    }

    async fn keep(&self, mut grant: Grant, now: Instant) {
        let Some(ticket) = grant.ticket.take() else {
            return;
        };
        let (account, as_of) = (grant.account, ticket.as_of);
        let user = ticket.user.clone();
        let life_ms = ticket.expires_at_ms.saturating_sub(grant.issued_at_ms);
        let life = Duration::from_millis(u64::try_from(life_ms).unwrap_or(0));
        let new = Arc::new(Held {
            grant,
            ticket: *ticket,
            came: now,
            until: now + life.min(KEPT_MAX),
            right: Mutex::default(),
        });
        self.held.name(user, account).await;
        self.held
            .accounts
            .entry(account)
            .and_compute_with(async |old| {
                let old = old.map(moka::Entry::into_value);
                let others = old.iter().flat_map(|old| old.iter());
                let others = others.filter(|one| {
                    let is_same = one.ticket.user == new.ticket.user
                        && one.ticket.credential == new.ticket.credential;
                    !is_same && one.is_in_time(now)
                });
                let all = std::iter::once(&new).chain(others.take(OF_AN_ACCOUNT_MAX - 1));
                Op::Put(all.cloned().collect())
            })
            .await;
        // In this order: a change that is told from now on finds the ticket.
        if !self.changed.holds(account, as_of) {
            self.retain(account, |one| !std::ptr::eq(one, new.as_ref()))
                .await;
        }
    }

    /// Where the user lives who has left a ticket here: nowhere else.
    async fn home_of(&self, user: &LoginName) -> Option<KnownHome> {
        let held = self.held.get(user).await?;
        let one = held.iter().find(|one| one.ticket.user == *user)?;
        Some(KnownHome {
            account: one.grant.account,
            login_name: one.grant.login_name.clone(),
            backend: one.grant.backend.clone(),
            backend_address: String::new(),
        })
    }

    async fn check(&self, request: &LoginRequest, now: Instant) -> Result<Grant, NoTicket> {
        let octets = request.password.reveal().len();
        let user = LoginName::new(request.user.as_str())
            .ok()
            .filter(|_| octets <= PASSWORD_MAX_OCTETS);
        let user = user.ok_or(NoTicket::Absent)?;
        let held = self.held.get(&user).await.ok_or(NoTicket::Absent)?;
        let of_user = held.iter().filter(|one| one.ticket.user == user);
        let mut good: Vec<Arc<Held>> = of_user.cloned().collect();
        if good.is_empty() {
            return Err(NoTicket::Absent);
        }
        good.retain(|one| one.is_in_time(now) && self.seen.vouches(one.came, now, self.stale_max));
        if good.is_empty() {
            return Err(NoTicket::Expired);
        }
        good.retain(|one| one.ticket.services.contains(&request.service));
        if good.is_empty() {
            return Err(NoTicket::Service);
        }
        // Of the password alone: a mail program that comes by IMAP and one that comes by POP3 do not cost a hash each time.
        let shown = tag(&self.key, &[], request);
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
    fn is_in_time(&self, now: Instant) -> bool {
        now < self.until && self.ticket.expires_at_ms > now_ms()
    }

    fn right(&self) -> MutexGuard<'_, Option<Tag>> {
        self.right.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DirectoryClient {
    /// Keeps the ticket of a grant that has just been verified, if there is one.
    pub async fn keep_ticket(&self, grant: Grant) {
        self.inner.tickets.keep(grant, Instant::now()).await;
    }

    /// The account of a user who has left a ticket here, with what a proxy is to know of it.
    pub async fn left_here(&self, user: &LoginName) -> Option<KnownHome> {
        self.inner.tickets.home_of(user).await
    }

    /// Where a user lives: here, if the last login has left a ticket, or where it was at the last one that was asked for here.
    pub async fn known_home(&self, user: &str) -> Option<Arc<KnownHome>> {
        let user = LoginName::new(user).ok()?;
        match self.inner.tickets.home_of(&user).await {
            Some(here) => Some(Arc::new(here)),
            None => self.inner.homes.get(&user).await,
        }
    }

    /// Checks a password by a ticket that is kept here: for when the directory is away, which the caller has found out. It
    /// waits for its turn until then at most.
    ///
    /// What it gives is the grant of the login that left the ticket.
    ///
    /// # Errors
    /// [`NoTicket`]: temporary for the user, whichever it is. It comes half a second late, or at the time given.
    pub async fn check_ticket(
        &self,
        request: &LoginRequest,
        until: tokio::time::Instant,
    ) -> Result<Grant, NoTicket> {
        let gives_up = async {
            sleep_until(until).await;
            GaveUp::TooLong
        };
        let turn = self.inner.turns.turn(request.client_address, gives_up);
        let decided = match turn.await {
            Ok(mut turn) => {
                let late = sleep(REFUSED_AFTER);
                let check = self.inner.tickets.check(request, Instant::now());
                let checked = timeout_at(until, check).await;
                let decided = checked.unwrap_or(Err(NoTicket::Busy));
                if decided.is_err() {
                    // The others of this client wait, not everybody's.
                    turn.leave_common();
                    late.await;
                }
                decided
            }
            Err(_) => Err(NoTicket::Busy),
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
/// The own password and each app password that an account may have. One that logs in under two names may need more; the
/// oldest go.
const OF_AN_ACCOUNT_MAX: usize = 33;
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

    const HOUR: Duration = Duration::from_secs(3_600);

    fn tickets() -> (Tickets, Seen, ChangedAccounts) {
        let (seen, changed) = (Seen::default(), ChangedAccounts::new());
        let options = ClientOptions {
            stale_max: HOUR / 4,
            ..ClientOptions::default()
        };
        (Tickets::new(&options, &seen, &changed), seen, changed)
    }

    async fn keep(tickets: &Tickets, grant: Grant) {
        tickets.keep(grant, Instant::now()).await;
    }

    fn as_of(change: u64, mut grant: Grant) -> Grant {
        grant.ticket.as_mut().unwrap().as_of = ChangeNumber(change);
        grant
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
                as_of: ChangeNumber(1),
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

    async fn opens_at(
        tickets: &Tickets,
        user: &str,
        password: &str,
        now: Instant,
    ) -> Result<u64, NoTicket> {
        let grant = tickets.check(&shown(user, password), now).await?;
        Ok(grant.account.0)
    }

    async fn opens(tickets: &Tickets, user: &str, password: &str) -> Result<u64, NoTicket> {
        opens_at(tickets, user, password, Instant::now()).await
    }

    #[tokio::test]
    async fn a_ticket_opens_its_account_to_its_password_and_service() {
        let (tickets, ..) = tickets();
        keep(&tickets, grant("ann@x.test", 7, None, RIGHT)).await;
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
        let refused = tickets.check(&pop3, Instant::now()).await;
        assert_eq!(refused.err(), Some(NoTicket::Service));
        let home = tickets.home_of(&"ann@x.test".parse().unwrap()).await;
        assert_eq!(home.unwrap().account, AccountId(7));
        assert_eq!(tickets.home_of(&"eve@x.test".parse().unwrap()).await, None);
    }

    #[tokio::test]
    async fn each_password_has_its_ticket_and_the_last_of_each_counts() {
        let (tickets, ..) = tickets();
        let ann = |credential, password| grant("ann@x.test", 7, credential, password);
        keep(&tickets, ann(None, OTHER)).await;
        keep(&tickets, ann(Some("phone"), RIGHT)).await;
        assert_eq!(opens(&tickets, "ann@x.test", OTHER).await, Ok(7));
        assert_eq!(opens(&tickets, "ann@x.test", RIGHT).await, Ok(7));
        keep(&tickets, ann(Some("phone"), "a phone that was set up anew")).await;
        assert!(opens(&tickets, "ann@x.test", RIGHT).await.is_err());
        for number in 0..2 * OF_AN_ACCOUNT_MAX {
            let name = format!("phone-{number}");
            keep(&tickets, grant("ann@x.test", 7, Some(&name), RIGHT)).await;
        }
        let held = tickets.held.accounts.get(&AccountId(7)).await.unwrap();
        assert_eq!(held.len(), OF_AN_ACCOUNT_MAX);
        // The name is somebody else's now: what the last bearer left is gone.
        keep(&tickets, grant("ann@x.test", 8, None, RIGHT)).await;
        assert_eq!(opens(&tickets, "ann@x.test", RIGHT).await, Ok(8));
        assert!(opens(&tickets, "ann@x.test", OTHER).await.is_err());
    }

    #[tokio::test]
    async fn a_password_that_was_right_is_known_again_by_the_other_service() {
        let (tickets, ..) = tickets();
        let mut both = grant("ann@x.test", 7, None, RIGHT);
        both.ticket.as_mut().unwrap().services = vec![Service::Imap, Service::Pop3];
        keep(&tickets, both).await;
        let right = async || {
            let held = tickets.held.accounts.get(&AccountId(7)).await.unwrap();
            *held[0].right()
        };
        opens(&tickets, "ann@x.test", RIGHT).await.unwrap();
        let by_imap = right().await;
        let pop3 = LoginRequest {
            service: Service::Pop3,
            secured: false,
            ..shown("ann@x.test", RIGHT)
        };
        tickets.check(&pop3, Instant::now()).await.unwrap();
        assert!(by_imap.is_some() && right().await == by_imap);
        let wrong = LoginRequest {
            service: Service::Pop3,
            ..shown("ann@x.test", OTHER)
        };
        assert!(tickets.check(&wrong, Instant::now()).await.is_err());
    }

    #[tokio::test]
    async fn a_ticket_ends_with_its_time_on_either_clock_and_where_the_feed_vouches_no_longer() {
        let (tickets, seen, _) = tickets();
        let mut old = grant("ann@x.test", 7, None, RIGHT);
        old.ticket.as_mut().unwrap().expires_at_ms = now_ms();
        keep(&tickets, old).await;
        let expired = opens(&tickets, "ann@x.test", RIGHT).await;
        assert_eq!(expired, Err(NoTicket::Expired));

        keep(&tickets, grant("ann@x.test", 7, None, RIGHT)).await;
        let now = Instant::now();
        let opens_in = async |later| opens_at(&tickets, "ann@x.test", RIGHT, now + later).await;
        assert_eq!(opens_in(HOUR / 5).await, Ok(7));
        assert_eq!(opens_in(HOUR / 3).await, Err(NoTicket::Expired));
        // The feed has told everything so far.
        seen.note_complete(now + HOUR / 2);
        assert_eq!(opens_in(HOUR / 2).await, Ok(7));
        // The wall clock has not moved, as one that was set back.
        seen.note_complete(now + 2 * HOUR);
        assert_eq!(opens_in(2 * HOUR).await, Err(NoTicket::Expired));
    }

    #[tokio::test]
    async fn a_change_drops_older_tickets_of_its_account_and_those_on_their_way() {
        let (tickets, _, changed) = tickets();
        let ann = |change| as_of(change, grant("ann@x.test", 7, None, RIGHT));
        let told = async |change| {
            changed.note(AccountId(7), ChangeNumber(change));
            let account = (AccountId(7), ChangeNumber(change));
            tickets.drop_of(&[account]).await;
        };
        keep(&tickets, ann(4)).await;
        keep(&tickets, grant("ben@y.test", 8, None, RIGHT)).await;
        told(5).await;
        assert!(opens(&tickets, "ann@x.test", RIGHT).await.is_err());
        assert!(opens(&tickets, "ben@y.test", RIGHT).await.is_ok());
        // On its way meanwhile, whatever its grant's clock says.
        keep(&tickets, ann(4)).await;
        assert!(opens(&tickets, "ann@x.test", RIGHT).await.is_err());
        keep(&tickets, ann(5)).await;
        assert!(opens(&tickets, "ann@x.test", RIGHT).await.is_ok());
        // It comes before the change that it knows of is told.
        keep(&tickets, ann(7)).await;
        for change in [6, 7] {
            told(change).await;
            assert!(opens(&tickets, "ann@x.test", RIGHT).await.is_ok());
        }
        told(8).await;
        assert!(opens(&tickets, "ann@x.test", RIGHT).await.is_err());
    }

    #[tokio::test]
    async fn a_change_of_a_domain_drops_older_tickets_in_it_and_those_on_their_way() {
        let (tickets, _, changed) = tickets();
        let ann = |change| as_of(change, grant("ann@x.test", 7, None, RIGHT));
        keep(&tickets, ann(4)).await;
        keep(&tickets, grant("ben@y.test", 8, None, RIGHT)).await;
        changed.note_any(ChangeNumber(5));
        let domains = HashSet::from(["x.test"]);
        tickets.drop_in(&domains, ChangeNumber(5)).await;
        assert!(opens(&tickets, "ann@x.test", RIGHT).await.is_err());
        assert!(opens(&tickets, "ben@y.test", RIGHT).await.is_ok());
        keep(&tickets, ann(4)).await;
        assert!(opens(&tickets, "ann@x.test", RIGHT).await.is_err());
        keep(&tickets, ann(5)).await;
        tickets.drop_in(&domains, ChangeNumber(5)).await;
        assert!(opens(&tickets, "ann@x.test", RIGHT).await.is_ok());
    }

    #[tokio::test]
    async fn where_the_feed_begins_or_goes_on_behind_a_gap_only_what_it_can_tell_of_is_kept() {
        let (tickets, _, changed) = tickets();
        let both = async || {
            let ann = as_of(4, grant("ann@x.test", 7, None, RIGHT));
            keep(&tickets, ann).await;
            let ben = as_of(6, grant("ben@x.test", 8, None, RIGHT));
            keep(&tickets, ben).await;
        };
        both().await;
        tickets.drop_before(ChangeNumber(5)).await;
        assert!(opens(&tickets, "ann@x.test", RIGHT).await.is_err());
        assert!(opens(&tickets, "ben@x.test", RIGHT).await.is_ok());
        both().await;
        tickets.drop_behind(ChangeNumber(5)).await;
        assert!(opens(&tickets, "ann@x.test", RIGHT).await.is_ok());
        assert!(opens(&tickets, "ben@x.test", RIGHT).await.is_err());
        changed.begin_at(ChangeNumber(5));
        both().await;
        assert!(opens(&tickets, "ben@x.test", RIGHT).await.is_ok());
    }
}
