//! The order in which logins are asked for when many come at once, as when all users come back after a power cut.
//!
//! The directory takes only so many at a time; asked for all of them at once it would refuse most, and clients that are
//! refused come again and make it worse. Here each waits for its turn, first come first served; who finds too many before
//! him is told at once to come later (P7). Who waits says when it is of no use any more ([`GaveUp`]).
//!
//! A turn lasts as long as the question, and a wrong password is answered late. So that one who guesses does not stand
//! before everybody, a client has few turns and places in the common line; its other logins wait among themselves:
//!
//! ```text
//! login ─▶ its client's line ─▶ common line ─▶ turn: the directory is asked
//! ```
//!
//! A mechanism's next step is not a login more: it has had its turn, and comes by its client's line alone. So it waits
//! once, as a password does, and a wrong proof, which is answered late, stands before nobody else.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use daemon::clients::Grouping;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// How many logins are asked for at once, and how many wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginTurns {
    /// Asked for at once.
    pub at_once_max: usize,
    /// Waiting at once in the common line, besides.
    pub waiting_max: usize,
    /// Of one client, asked for and waiting in the common line together.
    pub client_max: usize,
    /// Of one client, waiting for a place in the common line.
    pub client_waiting_max: usize,
    /// Whether a client on loopback is limited too: there a webmail speaks for many users.
    pub client_limit_on_loopback: bool,
}

impl Default for LoginTurns {
    fn default() -> Self {
        Self {
            // The directory checks as many passwords at once as it has cores; the others are on their way.
            at_once_max: 64,
            waiting_max: 20_000,
            // A mail program logs in on a few connections together. Sixteen who guess take all turns, not one.
            client_max: 4,
            // Users behind one NAT who come back together.
            client_waiting_max: 1_000,
            client_limit_on_loopback: false,
        }
    }
}

/// The turns of one process.
pub(super) struct Turns {
    options: LoginTurns,
    whom: Grouping,
    common: Line,
    next_steps: Line,
    /// By client, with how many of its logins are under way; those who have none are not here.
    clients: Mutex<HashMap<IpAddr, (usize, Arc<Line>)>>,
}

/// Lasts until it is dropped.
pub(super) struct Turn<'a> {
    common: Option<OwnedSemaphorePermit>,
    _own: Option<(OwnedSemaphorePermit, OwnLine<'a>)>,
}

impl Turn<'_> {
    /// Lets somebody else go on, though none of the same client.
    pub(super) fn leave_common(&mut self) {
        self.common = None;
    }
}

/// Why a login waits for its turn no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GaveUp {
    /// The user is gone.
    Left,
    /// The time for the login is over.
    TooLong,
    /// This process is going down.
    GoingDown,
}

/// Why there is no turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoTurn {
    Full,
    GaveUp(GaveUp),
}

impl NoTurn {
    fn code(self) -> &'static str {
        match self {
            Self::Full => "queue_full",
            Self::GaveUp(GaveUp::Left) => "left",
            Self::GaveUp(GaveUp::TooLong) => "waited_too_long",
            Self::GaveUp(GaveUp::GoingDown) => "going_down",
        }
    }
}

impl Turns {
    pub(super) fn new(options: LoginTurns) -> Self {
        metrics::describe_histogram!(WAIT, "Time that logins waited here for their turn.");
        metrics::describe_gauge!(WAITING, "Logins that wait here for their turn.");
        metrics::describe_counter!(REFUSED, "Logins that got no turn here, by reason.");
        Self {
            common: Line::new(options.at_once_max, options.waiting_max),
            next_steps: Line::new(NEXT_STEPS_MAX.max(options.at_once_max), options.waiting_max),
            clients: Mutex::default(),
            whom: Grouping::hosts(options.client_limit_on_loopback),
            options,
        }
    }

    /// Waits for a turn of the client at an address, until `gives_up`. A turn that is free is given even then.
    pub(super) async fn turn(
        &self,
        client: IpAddr,
        gives_up: impl Future<Output = GaveUp>,
    ) -> Result<Turn<'_>, NoTurn> {
        self.turn_in(&self.common, client, gives_up).await
    }

    /// The same for a login that has had a turn, and was given something to answer.
    pub(super) async fn turn_again(
        &self,
        client: IpAddr,
        gives_up: impl Future<Output = GaveUp>,
    ) -> Result<Turn<'_>, NoTurn> {
        self.turn_in(&self.next_steps, client, gives_up).await
    }

    async fn turn_in(
        &self,
        line: &Line,
        client: IpAddr,
        gives_up: impl Future<Output = GaveUp>,
    ) -> Result<Turn<'_>, NoTurn> {
        let began = Instant::now();
        let turn = tokio::select! {
            biased;
            turn = self.wait(line, client) => turn,
            why = gives_up => Err(NoTurn::GaveUp(why)),
        };
        metrics::histogram!(WAIT).record(began.elapsed());
        if let Err(no) = turn {
            metrics::counter!(REFUSED, "reason" => no.code()).increment(1);
        }
        turn
    }

    async fn wait(&self, line: &Line, client: IpAddr) -> Result<Turn<'_>, NoTurn> {
        let own = match self.own_line(client) {
            Some(own) => Some((own.line.place().await?, own)),
            None => None,
        };
        Ok(Turn {
            common: Some(line.place().await?),
            _own: own,
        })
    }

    /// The line of a client that is limited.
    fn own_line(&self, address: IpAddr) -> Option<OwnLine<'_>> {
        let options = &self.options;
        if self.whom.is_exempt(address) {
            return None;
        }
        let client = self.whom.client(address);
        let mut clients = self.clients();
        let (logins, line) = clients.entry(client).or_insert_with(|| {
            let line = Line::new(options.client_max, options.client_waiting_max);
            (0, Arc::new(line))
        });
        *logins += 1;
        Some(OwnLine {
            line: Arc::clone(line),
            turns: self,
            client,
        })
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<IpAddr, (usize, Arc<Line>)>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client's line, for as long as it has a login under way.
struct OwnLine<'a> {
    line: Arc<Line>,
    turns: &'a Turns,
    client: IpAddr,
}

impl Drop for OwnLine<'_> {
    fn drop(&mut self) {
        let mut clients = self.turns.clients();
        if let Some((logins, _)) = clients.get_mut(&self.client) {
            *logins -= 1;
            if *logins == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

/// So many have a place at once; so many more wait for one.
struct Line {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    waiting_max: usize,
}

impl Line {
    fn new(places: usize, waiting_max: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places)),
            waiting: AtomicUsize::new(0),
            waiting_max,
        }
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, NoTurn> {
        // Never before those who wait: a permit that is free then is theirs already.
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(place);
        }
        let _waiting = Waiting::enter(&self.waiting, self.waiting_max)?;
        let place = Arc::clone(&self.places).acquire_owned().await;
        Ok(place.expect("the semaphore is never closed"))
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

/// Next steps at once: no hash is made for them, and so many users at most are given something to answer in the seconds that
/// mail programs take for it.
const NEXT_STEPS_MAX: usize = 1_000;

const WAIT: &str = "posthouse_directory_client_login_wait_seconds";
const WAITING: &str = "posthouse_directory_client_logins_waiting";
const REFUSED: &str = "posthouse_directory_client_logins_without_turn_total";

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    fn turns(at_once_max: usize, waiting_max: usize) -> Arc<Turns> {
        Arc::new(Turns::new(LoginTurns {
            at_once_max,
            waiting_max,
            client_max: 4,
            client_waiting_max: 2,
            client_limit_on_loopback: false,
        }))
    }

    fn webmail() -> IpAddr {
        "127.0.0.1".parse().unwrap()
    }

    #[tokio::test]
    async fn who_came_first_is_first_and_one_more_than_may_wait_is_told_at_once() {
        let turns = turns(1, 100);
        let held = turns.turn(webmail(), pending()).await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = Vec::new();
        for number in 0..100 {
            let (turns, order) = (Arc::clone(&turns), Arc::clone(&order));
            waiting.push(tokio::spawn(async move {
                let _turn = turns.turn(webmail(), pending()).await.unwrap();
                order.lock().unwrap().push(number);
            }));
            // On one thread a task runs until it waits.
            tokio::task::yield_now().await;
        }
        assert_eq!(
            turns.turn(webmail(), pending()).await.err(),
            Some(NoTurn::Full)
        );
        drop(held);
        for one in waiting {
            one.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), (0..100).collect::<Vec<_>>());
        assert!(turns.turn(webmail(), pending()).await.is_ok());
        assert_eq!(turns.common.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn who_gives_up_leaves_the_place_to_others() {
        let turns = turns(1, 1);
        let held = turns.turn(webmail(), pending()).await.unwrap();
        for _ in 0..2 {
            let left = turns.turn(webmail(), ready(GaveUp::Left)).await;
            assert_eq!(left.err(), Some(NoTurn::GaveUp(GaveUp::Left)));
        }
        drop(held);
        // A login that needs not wait is asked for: a program may send all it has to say and end its direction.
        let turn = turns.turn(webmail(), ready(GaveUp::Left)).await;
        assert!(turn.is_ok());
    }

    #[tokio::test]
    async fn a_next_step_waits_for_its_own_client_alone_and_stands_before_no_other() {
        let turns = turns(1, 0);
        let [one, other] = [1, 2].map(|number| IpAddr::from([192, 0, 2, number]));
        let held = turns.turn(other, pending()).await.unwrap();
        let full = turns.turn(one, pending()).await;
        assert_eq!(full.err(), Some(NoTurn::Full));
        let mut steps = Vec::new();
        for _ in 0..4 {
            steps.push(turns.turn_again(one, pending()).await.unwrap());
        }
        let fifth = turns.turn_again(one, ready(GaveUp::TooLong)).await;
        assert_eq!(fifth.err(), Some(NoTurn::GaveUp(GaveUp::TooLong)));
        drop(held);
        assert!(turns.turn(other, pending()).await.is_ok());
    }

    #[tokio::test]
    async fn who_is_held_back_stands_before_the_same_client_alone() {
        let turns = turns(4, 0);
        let [guesses, other] = [1, 2].map(|number| IpAddr::from([192, 0, 2, number]));
        let mut held_back = Vec::new();
        for _ in 0..4 {
            let mut turn = turns.turn(guesses, pending()).await.unwrap();
            turn.leave_common();
            held_back.push(turn);
        }
        let again = turns.turn(guesses, ready(GaveUp::TooLong)).await;
        assert_eq!(again.err(), Some(NoTurn::GaveUp(GaveUp::TooLong)));
        let mut others = Vec::new();
        for _ in 0..4 {
            others.push(turns.turn(other, pending()).await.unwrap());
        }
        drop((held_back, others));
        assert!(turns.clients().is_empty());
    }

    #[tokio::test]
    async fn one_client_has_few_turns_and_its_others_wait_among_themselves() {
        let turns = turns(8, 0);
        let of = |number| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, number]);
        let mut held = Vec::new();
        for number in 0..4 {
            held.push(turns.turn(of(number), pending()).await.unwrap());
        }
        let mut waiting = Vec::new();
        for number in 4..6 {
            let turns = Arc::clone(&turns);
            waiting.push(tokio::spawn(async move {
                drop(turns.turn(of(number), pending()).await.unwrap());
            }));
            tokio::task::yield_now().await;
        }
        assert_eq!(turns.turn(of(6), pending()).await.err(), Some(NoTurn::Full));
        // Another client needs not wait, and nobody could: the common line has no place.
        let other = IpAddr::from([192, 0, 2, 1]);
        held.push(turns.turn(other, pending()).await.unwrap());
        drop(held);
        for one in waiting {
            one.await.unwrap();
        }
        assert!(turns.clients().is_empty());
    }
}
