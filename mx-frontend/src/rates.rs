//! How often one client does what costs us something: per process, in memory.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use daemon::shutdown::Shutdown;
use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::{HashMapStateStore, ShrinkableKeyedStateStore};
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
    limits: [Option<Limiter<C>>; 5],
}

type Limiter<C> = RateLimiter<(IpAddr, Ask), Store, C, NoOpMiddleware<<C as Clock>::Instant>>;

impl Rates {
    pub(crate) fn new(settings: &config::Rates) -> Self {
        Self::with_clock(settings, &MonotonicClock)
    }

    /// Forgets clients of whom nothing counts any more, until the shutdown.
    pub(crate) async fn upkeep(&self, shutdown: &Shutdown) {
        loop {
            tokio::select! {
                () = shutdown.requested() => return,
                () = tokio::time::sleep(UPKEEP_INTERVAL) => self.forget(),
            }
        }
    }
}

impl<C: Clock + Clone> Rates<C> {
    fn with_clock(settings: &config::Rates, clock: &C) -> Self {
        let limit = |each: u32| {
            let burst = NonZeroU32::new(each)?;
            let quota = Quota::with_period(WINDOW / each)?.allow_burst(burst);
            Some(RateLimiter::new(quota, Store::default(), clock.clone()))
        };
        Self {
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
        self.ask(event, client, Ask::Take)
    }

    /// Whether one more would be within the limit. Counts nothing.
    pub(crate) fn look(&self, event: Event, client: IpAddr) -> Result<(), TooOften> {
        self.ask(event, client, Ask::Look)
    }

    fn ask(&self, event: Event, client: IpAddr, ask: Ask) -> Result<(), TooOften> {
        let Some(limiter) = &self.limits[event as usize] else {
            return Ok(());
        };
        if limiter.len() >= CLIENTS_MAX {
            limiter.retain_recent();
            if limiter.len() >= CLIENTS_MAX {
                // Nobody new is counted until some are forgotten: memory is not theirs to take.
                return Ok(());
            }
        }
        limiter
            .check_key(&(client, ask))
            .map_err(|_| TooOften(event))
    }

    fn forget(&self) {
        for limiter in self.limits.iter().flatten() {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
}

/// Whether what is asked is counted too: whether a handshake resumes a session is known only behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Ask {
    Take,
    Look,
}

/// The library's store, which can be looked at besides.
#[derive(Debug, Default)]
struct Store(HashMapStateStore<IpAddr>);

impl StateStore for Store {
    type Key = (IpAddr, Ask);

    fn measure_and_replace<T, F, E>(&self, (client, ask): &Self::Key, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        match ask {
            Ask::Take => self.0.measure_and_replace(client, decide),
            // An error changes nothing.
            Ask::Look => {
                let looked: Result<(), Result<T, E>> = self
                    .0
                    .measure_and_replace(client, |last| Err(decide(last).map(|(yes, _)| yes)));
                looked.expect_err("nothing is replaced")
            }
        }
    }
}

impl ShrinkableKeyedStateStore<(IpAddr, Ask)> for Store {
    fn retain_recent(&self, drop_below: Nanos) {
        self.0.retain_recent(drop_below);
    }

    fn shrink_to_fit(&self) {
        self.0.shrink_to_fit();
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

const WINDOW: Duration = Duration::from_secs(60);
const UPKEEP_INTERVAL: Duration = Duration::from_secs(60);
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
        let rates = Rates::with_clock(&settings, &clock);
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
    fn a_look_counts_nothing_and_tells_when_nothing_is_left() {
        let clock = FakeRelativeClock::default();
        let settings = config::Rates {
            tls_sessions_max: 2,
            ..config::Rates::default()
        };
        let rates = Rates::with_clock(&settings, &clock);
        for _ in 0..10 {
            assert_eq!(rates.look(Event::TlsSession, client(1)), Ok(()));
        }
        for _ in 0..2 {
            assert_eq!(rates.count(Event::TlsSession, client(1)), Ok(()));
        }
        let beyond = Err(TooOften(Event::TlsSession));
        assert_eq!(rates.look(Event::TlsSession, client(1)), beyond);
        clock.advance(Duration::from_secs(30));
        assert_eq!(rates.look(Event::TlsSession, client(1)), Ok(()));
    }

    #[test]
    fn clients_of_whom_nothing_counts_are_forgotten() {
        let clock = FakeRelativeClock::default();
        let settings = config::Rates {
            connections_max: 10,
            ..config::Rates::default()
        };
        let rates = Rates::with_clock(&settings, &clock);
        for last in 0..100 {
            rates.count(Event::Connection, client(last)).unwrap();
        }
        let limiter = rates.limits[0].as_ref().unwrap();
        rates.forget();
        assert_eq!(limiter.len(), 100);
        clock.advance(Duration::from_secs(61));
        rates.forget();
        assert_eq!(limiter.len(), 0);
    }
}
