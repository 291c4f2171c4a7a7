//! Stress: whether connections run out, and what is borne then.
//!
//! ```text
//!            open ≥ enter, or none is free
//!   Calm ─────────────────────────────────────▶ Stressed
//!        ◀───── open ≤ leave for a while ──────
//! ```
//! Two marks and a while, so that it does not come and go with each connection.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use daemon::health::Health;
use daemon::listener::Slots;
use daemon::shutdown::Shutdown;
use mail_proto::smtp::ErrorLimits;
use moka::future::Cache;
use moka::policy::EvictionPolicy;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::StressSettings;
use crate::meter;

/// What is borne of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Manner {
    /// How long it may be silent, or take for a whole command.
    pub(crate) command_timeout: Duration,
    pub(crate) starttls_timeout: Duration,
    /// Whether that time is for a whole command.
    pub(crate) command_deadline: bool,
    /// Over how long a body's pace is seen.
    pub(crate) sender_window: Duration,
    /// How long it may stay without bringing a message.
    pub(crate) session_timeout: Option<Duration>,
    pub(crate) errors: ErrorLimits,
}

/// How short connections are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Calm,
    Stressed,
    /// Those too are taken that are left to good clients.
    Full,
}

impl Level {
    /// Whether strangers are borne with less.
    pub(crate) fn is_stressed(self) -> bool {
        self != Self::Calm
    }
}

/// The figure above: what is open goes in, and what changes comes out.
#[derive(Debug)]
struct Marks {
    enter: usize,
    leave: usize,
    leave_after: Duration,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Calm,
    /// Since when no more are open than the lower mark.
    Stressed(Option<Instant>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Entered,
    Left,
}

impl Marks {
    fn new(settings: &StressSettings, limit: usize) -> Self {
        Self {
            enter: share(limit, settings.enter_percent).max(1),
            leave: share(limit, settings.leave_percent),
            leave_after: Duration::from_secs(settings.leave_after_s),
            state: State::Calm,
        }
    }

    /// So many are open now; `is_full`: one more found no room.
    fn on_open(&mut self, open: usize, is_full: bool, now: Instant) -> Option<Change> {
        let is_high = is_full || open >= self.enter;
        self.state = match self.state {
            State::Calm if is_high => {
                self.state = State::Stressed(None);
                return Some(Change::Entered);
            }
            State::Calm => State::Calm,
            State::Stressed(_) if is_full || open > self.leave => State::Stressed(None),
            State::Stressed(None) => State::Stressed(Some(now)),
            State::Stressed(Some(since)) if now - since >= self.leave_after => {
                self.state = State::Calm;
                return Some(Change::Left);
            }
            low => low,
        };
        None
    }
}

fn share(of: usize, percent: u8) -> usize {
    of.saturating_mul(usize::from(percent)) / 100
}

/// The state of one process. Sessions follow it.
#[derive(Debug)]
pub(crate) struct Stress {
    marks: Mutex<Marks>,
    slots: Slots,
    reserved: usize,
    level: watch::Sender<Level>,
    pub(crate) calm: Manner,
    pub(crate) stressed: Manner,
    /// By client, how many messages it has brought. Bounded, and no longer kept than the settings say.
    brought: Cache<IpAddr, u32>,
    good_messages_min: u32,
    pub(crate) good_connections_max: usize,
    health: Health,
}

impl Stress {
    pub(crate) fn new(
        settings: &StressSettings,
        calm: Manner,
        slots: Slots,
        health: Health,
    ) -> Self {
        Self {
            marks: Mutex::new(Marks::new(settings, slots.limit())),
            reserved: share(slots.limit(), settings.reserved_percent),
            slots,
            level: watch::Sender::new(Level::Calm),
            calm,
            stressed: settings.manner(),
            brought: Cache::builder()
                .max_capacity(settings.good_clients_max)
                // By default one that comes seldom would find no room beside those that come often, and never become known.
                .eviction_policy(EvictionPolicy::lru())
                .time_to_live(Duration::from_secs(settings.good_days * 86_400))
                .build(),
            good_messages_min: settings.good_messages_min,
            good_connections_max: settings.good_connections_max,
            health,
        }
    }

    /// What is borne of a client: as ever, or as of a stranger while connections run out.
    pub(crate) fn manner(&self, is_stressed: bool) -> &Manner {
        if is_stressed {
            &self.stressed
        } else {
            &self.calm
        }
    }

    /// To be followed by a session.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Level> {
        self.level.subscribe()
    }

    /// Whether only clients with a good history may have one of the connections that are left.
    pub(crate) fn is_reserved(&self) -> bool {
        self.slots.limit() - self.slots.taken() < self.reserved
    }

    /// Not even one that is left to good clients is free.
    pub(crate) fn on_none_free(&self) {
        self.on_connection(true);
        // Sessions wake up once, and not for each that finds no room.
        self.level.send_if_modified(|level| {
            let is_news = *level != Level::Full;
            *level = Level::Full;
            is_news
        });
    }

    /// A connection was opened, or found no room (`is_full`).
    pub(crate) fn on_connection(&self, is_full: bool) {
        let open = self.slots.taken();
        let change = {
            let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
            marks.on_open(open, is_full, Instant::now())
        };
        match change {
            Some(Change::Entered) => {
                let limit = self.slots.limit();
                // This logs it too.
                let text = format!(
                    "connections run out, slow and faulty clients are ended soon: since {open} of {limit} were open"
                );
                self.health.note(NOTE, Some(text));
                meter::stress(true);
                self.level.send_replace(Level::Stressed);
            }
            Some(Change::Left) => {
                self.health.note(NOTE, None);
                meter::stress(false);
                self.level.send_replace(Level::Calm);
            }
            // As many are free again as are left to good clients.
            None if !self.is_reserved() && open < self.slots.limit() => {
                self.level.send_if_modified(|level| {
                    let was_full = *level == Level::Full;
                    if was_full {
                        *level = Level::Stressed;
                    }
                    was_full
                });
            }
            None => {}
        }
    }

    /// Looks from time to time whether it is over, until the shutdown.
    pub(crate) async fn watch(&self, shutdown: &Shutdown) {
        meter::stress_is(false);
        loop {
            tokio::select! {
                () = shutdown.requested() => return,
                () = tokio::time::sleep(LOOK_INTERVAL) => self.on_connection(false),
            }
        }
    }

    /// Whether a client has brought mail lately and is served as ever.
    pub(crate) async fn is_good(&self, client: IpAddr) -> bool {
        let brought = self.brought.get(&client).await;
        brought.is_some_and(|messages| messages >= self.good_messages_min)
    }

    /// A message of a client was kept.
    pub(crate) async fn brought(&self, client: IpAddr) {
        let before = self.brought.get(&client).await.unwrap_or(0);
        self.brought.insert(client, before.saturating_add(1)).await;
    }

    /// A client was ended for its mistakes or its slowness. A key is a whole network: what one host in it did does not make
    /// strangers of neighbours that bring much.
    pub(crate) async fn misbehaved(&self, client: IpAddr) {
        if let Some(messages) = self.brought.get(&client).await {
            self.brought.insert(client, messages / 2).await;
        }
    }
}

const NOTE: &str = "stress";
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn marks() -> Marks {
        Marks::new(&StressSettings::default(), 100)
    }

    #[test]
    fn it_begins_at_the_upper_mark_and_ends_a_while_below_the_lower_one() {
        use Change::{Entered, Left};
        let (mut marks, start) = (marks(), Instant::now());
        assert_eq!(marks.on_open(89, false, start), None);
        assert_eq!(marks.on_open(90, false, start), Some(Entered));
        assert_eq!(marks.on_open(100, false, start), None);
        // Between the marks nothing changes, however long.
        for second in 0..1000 {
            assert_eq!(marks.on_open(71, false, start + second * SECOND), None);
        }
        let low = start + 1000 * SECOND;
        assert_eq!(marks.on_open(70, false, low), None);
        assert_eq!(marks.on_open(70, false, low + 29 * SECOND), None);
        assert_eq!(marks.on_open(70, false, low + 30 * SECOND), Some(Left));
        assert_eq!(marks.on_open(89, false, low + 31 * SECOND), None);
    }

    #[test]
    fn a_peak_in_the_while_begins_it_anew() {
        let (mut marks, start) = (marks(), Instant::now());
        assert!(marks.on_open(95, false, start).is_some());
        assert_eq!(marks.on_open(10, false, start), None);
        assert_eq!(marks.on_open(80, false, start + 29 * SECOND), None);
        assert_eq!(marks.on_open(10, false, start + 31 * SECOND), None);
        assert_eq!(marks.on_open(10, false, start + 60 * SECOND), None);
        let over = marks.on_open(10, false, start + 61 * SECOND);
        assert_eq!(over, Some(Change::Left));
    }

    #[test]
    fn one_that_finds_no_room_begins_it_whatever_the_mark() {
        let settings = StressSettings {
            enter_percent: 100,
            ..StressSettings::default()
        };
        let mut marks = Marks::new(&settings, 3);
        let now = Instant::now();
        assert_eq!(marks.on_open(2, false, now), None);
        assert_eq!(marks.on_open(2, true, now), Some(Change::Entered));
    }

    #[tokio::test]
    async fn a_history_is_earned_and_lost_and_there_are_only_so_many() {
        let settings = StressSettings {
            good_clients_max: 10,
            ..StressSettings::default()
        };
        let calm = settings.manner();
        let slots = Slots::new(100);
        let stress = Stress::new(&settings, calm, slots, Health::new("test"));
        let client = |last: u8| IpAddr::from([192, 0, last, 0]);
        stress.brought(client(1)).await;
        assert!(!stress.is_good(client(1)).await, "one is chance");
        stress.brought(client(1)).await;
        assert!(stress.is_good(client(1)).await);
        assert!(!stress.is_good(client(2)).await);
        stress.misbehaved(client(1)).await;
        assert!(!stress.is_good(client(1)).await);
        for _ in 0..4 {
            stress.brought(client(3)).await;
        }
        stress.misbehaved(client(3)).await;
        assert!(stress.is_good(client(3)).await, "one strike of many hosts");
        stress.misbehaved(client(3)).await;
        assert!(!stress.is_good(client(3)).await);
        for last in 0..=255 {
            stress.brought(client(last)).await;
        }
        stress.brought.run_pending_tasks().await;
        assert!(stress.brought.entry_count() <= 10);
    }

    #[tokio::test]
    async fn a_new_client_is_remembered_beside_as_many_busy_ones_as_there_is_room_for() {
        let settings = StressSettings {
            good_clients_max: 10,
            ..StressSettings::default()
        };
        let calm = settings.manner();
        let stress = Stress::new(&settings, calm, Slots::new(100), Health::new("test"));
        let client = |last: u8| IpAddr::from([192, 0, last, 0]);
        for _ in 0..20 {
            for busy in 0..10 {
                stress.brought(client(busy)).await;
                stress.brought.run_pending_tasks().await;
            }
        }
        for _ in 0..2 {
            stress.brought(client(99)).await;
            stress.brought.run_pending_tasks().await;
        }
        assert!(stress.is_good(client(99)).await);
    }
}
