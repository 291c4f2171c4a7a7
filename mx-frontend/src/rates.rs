//! How often one client does what costs us something: per process, in memory.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use daemon::shutdown::Shutdown;
use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::{Quota, RateLimiter};

use crate::config;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Connection,
    Message,
    Recipient,
    /// A handshake that resumes no session.
    TlsSession,
    Auth,
}

/// A client did something too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooOften(pub(crate) Event);

impl TooOften {
    /// The reason code in logs and metrics.
    pub(crate) fn code(self) -> &'static str {
        match self.0 {
            Event::Connection => "connection_rate",
            Event::Message => "message_rate",
            Event::Recipient => "recipient_rate",
            Event::TlsSession => "tls_session_rate",
            Event::Auth => "auth_rate",
        }
    }
}

/// The rates of all clients. What has no limit is not counted.
#[derive(Debug)]
pub(crate) struct Rates<C: Clock = MonotonicClock> {
    limits: [Option<Limit<C>>; 5],
    clients_max: usize,
}

/// A limit, and what each event takes of it.
#[derive(Debug)]
struct Limit<C: Clock> {
    limiter: RateLimiter<IpAddr, Store, C, NoOpMiddleware<<C as Clock>::Instant>>,
    store: Store,
    each: Nanos,
}

impl Rates {
    pub(crate) fn new(settings: &config::Rates) -> Self {
        Self::with_clock(settings, &MonotonicClock, CLIENTS_MAX)
    }

    /// Forgets clients of whom nothing counts any more, until the shutdown. No client waits for that.
    pub(crate) async fn upkeep(&self, shutdown: &Shutdown) {
        for second in 1_u64.. {
            tokio::select! {
                () = shutdown.requested() => return,
                () = tokio::time::sleep(LOOK_INTERVAL) => self.forget(second.is_multiple_of(UPKEEP_LOOKS)),
            }
        }
    }
}

impl<C: Clock + Clone> Rates<C> {
    fn with_clock(settings: &config::Rates, clock: &C, clients_max: usize) -> Self {
        let limit = |each: u32| {
            let burst = NonZeroU32::new(each)?;
            let period = WINDOW / each;
            let quota = Quota::with_period(period)?.allow_burst(burst);
            let store = Store::new(clients_max);
            Some(Limit {
                limiter: RateLimiter::new(quota, store.clone(), clock.clone()),
                store,
                each: period.into(),
            })
        };
        Self {
            clients_max,
            limits: [
                settings.connections_max,
                settings.messages_max,
                settings.recipients_max,
                settings.tls_sessions_max,
                settings.auths_max,
            ]
            .map(limit),
        }
    }
}

impl<C: Clock> Rates<C> {
    /// Counts one event of a client; beyond its limit it is not counted.
    pub(crate) fn count(&self, event: Event, client: IpAddr) -> Result<(), TooOften> {
        let Some(limit) = &self.limits[event as usize] else {
            return Ok(());
        };
        let checked = limit.limiter.check_key(&client);
        checked.map_err(|_| TooOften(event))
    }

    /// An event that was counted turns out to be none. Counted only behind it, any number at once would be within the limit.
    pub(crate) fn give_back(&self, event: Event, client: IpAddr) {
        if let Some(limit) = &self.limits[event as usize] {
            limit.store.give_back(client, limit.each);
        }
    }

    /// Forgets whom nothing counts of, where there is hardly any room or at all events.
    fn forget(&self, in_any_case: bool) {
        for Limit { limiter, .. } in self.limits.iter().flatten() {
            if in_any_case || limiter.len() >= self.clients_max - self.clients_max / 8 {
                limiter.retain_recent();
                limiter.shrink_to_fit();
            }
        }
    }
}

/// When each client's next event would come evenly. The library's own stores have no bound. Clones are the same one.
#[derive(Clone, Debug)]
struct Store(Arc<Shards>);

#[derive(Debug)]
struct Shards {
    shards: [Mutex<HashMap<IpAddr, Nanos>>; SHARDS],
    shard_max: usize,
    hasher: RandomState,
}

impl Store {
    fn new(clients_max: usize) -> Self {
        Self(Arc::new(Shards {
            shards: std::array::from_fn(|_| Mutex::default()),
            shard_max: clients_max.div_ceil(SHARDS),
            hasher: RandomState::new(),
        }))
    }

    fn shard(&self, client: IpAddr) -> MutexGuard<'_, HashMap<IpAddr, Nanos>> {
        let hash = self.0.hasher.hash_one(client);
        lock(&self.0.shards[hash as usize % SHARDS])
    }

    fn give_back(&self, client: IpAddr, each: Nanos) {
        if let Some(next) = self.shard(client).get_mut(&client) {
            *next = Nanos::from(next.as_u64().saturating_sub(each.as_u64()));
        }
    }
}

impl StateStore for Store {
    type Key = IpAddr;

    fn measure_and_replace<T, F, E>(&self, &client: &Self::Key, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut shard = self.shard(client);
        let last = shard.get(&client).copied();
        let (yes, next) = decide(last)?;
        // Where there is no room nobody new is counted until some are forgotten: memory is not theirs to take. Those that are
        // known stay limited.
        if last.is_some() || shard.len() < self.0.shard_max {
            shard.insert(client, next);
        }
        Ok(yes)
    }
}

impl ShrinkableKeyedStateStore<IpAddr> for Store {
    fn retain_recent(&self, drop_below: Nanos) {
        for shard in &self.0.shards {
            lock(shard).retain(|_, next| *next > drop_below);
        }
    }

    /// To what is needed soon again, and only where much is free: whoever asks meanwhile waits for the move.
    fn shrink_to_fit(&self) {
        for shard in &self.0.shards {
            let mut shard = lock(shard);
            let needed = shard.len() * 2;
            if shard.capacity() > needed * 2 {
                shard.shrink_to(needed);
            }
        }
    }

    fn len(&self) -> usize {
        self.0.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn lock(shard: &Mutex<HashMap<IpAddr, Nanos>>) -> MutexGuard<'_, HashMap<IpAddr, Nanos>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

const WINDOW: Duration = Duration::from_secs(60);
/// How often it is looked whether there is room left.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Looks from one time to the next that all is gone through in any case.
const UPKEEP_LOOKS: u64 = 60;
/// So that clients do not wait for each other.
const SHARDS: usize = 64;
/// Clients of whom an event is remembered, for each rate: some 30 MB where somebody comes from as many networks within a minute.
const CLIENTS_MAX: usize = 500_000;

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn client(last: u8) -> IpAddr {
        [192, 0, last, 0].into()
    }

    #[test]
    fn a_client_at_its_rate_waits_and_others_do_not() {
        let clock = FakeRelativeClock::default();
        let settings = config::Rates {
            messages_max: 3,
            ..config::Rates::default()
        };
        let rates = Rates::with_clock(&settings, &clock, CLIENTS_MAX);
        for _ in 0..3 {
            assert_eq!(rates.count(Event::Message, client(1)), Ok(()));
        }
        let beyond = rates.count(Event::Message, client(1));
        assert_eq!(beyond, Err(TooOften(Event::Message)));
        assert_eq!(rates.count(Event::Message, client(2)), Ok(()));
        for _ in 0..1000 {
            assert_eq!(rates.count(Event::Recipient, client(1)), Ok(()), "no limit");
        }
        clock.advance(Duration::from_secs(19));
        assert!(rates.count(Event::Message, client(1)).is_err());
        clock.advance(Duration::from_secs(1));
        assert!(rates.count(Event::Message, client(1)).is_ok());
        assert!(rates.count(Event::Message, client(1)).is_err());
    }

    #[test]
    fn what_is_given_back_may_be_had_again_and_no_more() {
        let clock = FakeRelativeClock::default();
        let settings = config::Rates {
            tls_sessions_max: 2,
            ..config::Rates::default()
        };
        let rates = Rates::with_clock(&settings, &clock, CLIENTS_MAX);
        let count = || rates.count(Event::TlsSession, client(1));
        let give_back = || rates.give_back(Event::TlsSession, client(1));
        // Of nobody nothing comes back.
        give_back();
        let beyond = Err(TooOften(Event::TlsSession));
        // However many begin at once, before it is known what they are.
        assert_eq!([count(), count(), count()], [Ok(()), Ok(()), beyond]);
        give_back();
        assert_eq!([count(), count()], [Ok(()), beyond]);
        for _ in 0..10 {
            give_back();
            assert_eq!(count(), Ok(()));
        }
        assert_eq!(count(), beyond);
        clock.advance(Duration::from_secs(30));
        assert_eq!([count(), count()], [Ok(()), beyond]);
    }

    #[test]
    fn clients_of_whom_nothing_counts_are_forgotten() {
        let clock = FakeRelativeClock::default();
        let settings = config::Rates {
            connections_max: 10,
            ..config::Rates::default()
        };
        let rates = Rates::with_clock(&settings, &clock, CLIENTS_MAX);
        for last in 0..100 {
            rates.count(Event::Connection, client(last)).unwrap();
        }
        let limiter = &rates.limits[0].as_ref().unwrap().limiter;
        rates.forget(true);
        assert_eq!(limiter.len(), 100);
        clock.advance(Duration::from_secs(61));
        rates.forget(true);
        assert_eq!(limiter.len(), 0);
    }

    #[test]
    fn where_there_is_no_room_those_that_are_known_stay_limited() {
        let clock = FakeRelativeClock::default();
        let settings = config::Rates {
            connections_max: 1,
            ..config::Rates::default()
        };
        let rates = Rates::with_clock(&settings, &clock, SHARDS);
        let known = client(1);
        rates.count(Event::Connection, known).unwrap();
        let many = (0..2000_u16)
            .map(|net| IpAddr::from([10, net.to_be_bytes()[0], net.to_be_bytes()[1], 0]));
        for other in many {
            assert_eq!(rates.count(Event::Connection, other), Ok(()));
        }
        let limiter = &rates.limits[0].as_ref().unwrap().limiter;
        assert!(limiter.len() <= SHARDS, "{}", limiter.len());
        let beyond = Err(TooOften(Event::Connection));
        assert_eq!(rates.count(Event::Connection, known), beyond);
        // Nearly no room is looked after each second, and there is some once nothing counts any more: of one event in 60 s the
        // library knows for another 60 s.
        clock.advance(2 * WINDOW);
        rates.forget(false);
        let new = client(2);
        assert_eq!(rates.count(Event::Connection, new), Ok(()));
        assert_eq!(rates.count(Event::Connection, new), beyond);
    }
}
