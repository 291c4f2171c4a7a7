//! The order in which logins are asked for when many come at once, as when all users come back after a power cut.
//!
//! The directory takes only so many at a time; asked for all of them at once it would refuse most, and clients that are
//! refused come again and make it worse. Here each waits for its turn, first come first served, and who would wait too
//! long, or finds too many before him, is told at once to come later (P7).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

/// How many logins are asked for at once, and how many wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginTurns {
    /// Asked for at once.
    pub at_once_max: usize,
    /// Waiting at once, besides.
    pub waiting_max: usize,
    /// How long one waits at most.
    pub wait_max: Duration,
}

impl Default for LoginTurns {
    fn default() -> Self {
        Self {
            // The directory checks as many passwords at once as it has cores; the others are on their way.
            at_once_max: 64,
            waiting_max: 20_000,
            // Less than a user has for the login (DESIGN §13: 60 s), so that it ends in words.
            wait_max: Duration::from_secs(50),
        }
    }
}

/// The turns of one client.
pub(super) struct Turns {
    options: LoginTurns,
    slots: Semaphore,
    waiting: AtomicUsize,
}

/// Why there is no turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoTurn {
    Full,
    TooLong,
}

impl NoTurn {
    fn code(self) -> &'static str {
        match self {
            Self::Full => "queue_full",
            Self::TooLong => "waited_too_long",
        }
    }
}

impl Turns {
    pub(super) fn new(options: LoginTurns) -> Self {
        metrics::describe_histogram!(WAIT, "Time that logins waited here for their turn.");
        metrics::describe_gauge!(WAITING, "Logins that wait here for their turn.");
        metrics::describe_counter!(REFUSED, "Logins that got no turn here, by reason.");
        Self {
            slots: Semaphore::new(options.at_once_max),
            waiting: AtomicUsize::new(0),
            options,
        }
    }

    /// Waits for a turn, which lasts until it is dropped.
    pub(super) async fn turn(&self) -> Result<SemaphorePermit<'_>, NoTurn> {
        let turn = self.wait().await;
        if let Err(no) = turn {
            metrics::counter!(REFUSED, "reason" => no.code()).increment(1);
        }
        turn
    }

    async fn wait(&self) -> Result<SemaphorePermit<'_>, NoTurn> {
        // Never before those who wait: a permit that is free then is theirs already.
        if let Ok(turn) = self.slots.try_acquire() {
            return Ok(turn);
        }
        let _waiting = Waiting::enter(&self.waiting, self.options.waiting_max)?;
        let began = Instant::now();
        let turn = timeout(self.options.wait_max, self.slots.acquire()).await;
        metrics::histogram!(WAIT).record(began.elapsed());
        match turn {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(NoTurn::TooLong),
        }
    }
}

/// Counts one who waits, until dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize, max: usize) -> Result<Self, NoTurn> {
        let waiting = Self(count);
        let before = count.fetch_add(1, Ordering::Relaxed);
        metrics::gauge!(WAITING).increment(1);
        match before >= max {
            true => Err(NoTurn::Full),
            false => Ok(waiting),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        metrics::gauge!(WAITING).decrement(1);
    }
}

const WAIT: &str = "posthouse_directory_client_login_wait_seconds";
const WAITING: &str = "posthouse_directory_client_logins_waiting";
const REFUSED: &str = "posthouse_directory_client_logins_without_turn_total";

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    fn turns(at_once_max: usize, waiting_max: usize, wait_ms: u64) -> Arc<Turns> {
        Arc::new(Turns::new(LoginTurns {
            at_once_max,
            waiting_max,
            wait_max: Duration::from_millis(wait_ms),
        }))
    }

    #[tokio::test]
    async fn who_came_first_is_first_and_one_more_than_may_wait_is_told_at_once() {
        let turns = turns(1, 100, 60_000);
        let held = turns.turn().await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = Vec::new();
        for number in 0..100 {
            let (turns, order) = (Arc::clone(&turns), Arc::clone(&order));
            waiting.push(tokio::spawn(async move {
                let _turn = turns.turn().await.unwrap();
                order.lock().unwrap().push(number);
            }));
            // On one thread a task runs until it waits.
            tokio::task::yield_now().await;
        }
        assert_eq!(turns.turn().await.err(), Some(NoTurn::Full));
        drop(held);
        for one in waiting {
            one.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), (0..100).collect::<Vec<_>>());
        assert!(turns.turn().await.is_ok());
        assert_eq!(turns.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let turns = turns(1, 1, 20);
        let held = turns.turn().await.unwrap();
        assert_eq!(turns.turn().await.err(), Some(NoTurn::TooLong));
        drop(held);
        assert!(turns.turn().await.is_ok());
    }
}
