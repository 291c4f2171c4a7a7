//! How long a login waits, for its turn or for the end of a move. A question that was sent is not waited for here: it is
//! finished, whatever happens.

use std::time::Duration;

use daemon::shutdown::Shutdown;
use daemon::stream::UserStream;
use tokio::time::{Instant, sleep, sleep_until};

use super::{FrontOptions, LoginFacts, MOVE_WAITS};
use crate::client::{GaveUp, LoginError};

/// One login that may have to wait.
pub(super) struct Wait<'a> {
    stream: &'a UserStream,
    shutdown: &'a Shutdown,
    until: Instant,
    move_max: Duration,
}

impl<'a> Wait<'a> {
    /// Of a login on this connection, whose time for it ends at `deadline`.
    pub(super) fn new(
        stream: &'a UserStream,
        shutdown: &'a Shutdown,
        deadline: Instant,
        options: &FrontOptions,
    ) -> Self {
        let kept = ANSWER_TIME.min(options.login_timeout / 2);
        Self {
            stream,
            shutdown,
            until: deadline.checked_sub(kept).unwrap_or(deadline),
            move_max: options.move_wait,
        }
    }

    /// Ends when there is no use in waiting any more.
    pub(super) async fn ends(&self) -> GaveUp {
        tokio::select! {
            () = self.stream.peer_ended() => GaveUp::Left,
            why = self.is_over() => why,
        }
    }

    /// The same, whether or not the user is there: a program may send all it has to say and end its direction.
    pub(super) async fn is_over(&self) -> GaveUp {
        tokio::select! {
            () = self.shutdown.requested() => GaveUp::GoingDown,
            () = sleep_until(self.until) => GaveUp::TooLong,
        }
    }

    pub(super) fn is_too_long(&self) -> bool {
        Instant::now() >= self.until
    }
}

/// The end of a move, waited for.
pub(super) struct MoveWait<'a> {
    wait: &'a Wait<'a>,
    /// None before the account is seen to be moving.
    until: Option<Instant>,
    pause: Duration,
}

impl<'a> MoveWait<'a> {
    pub(super) fn new(wait: &'a Wait<'a>) -> Self {
        Self {
            wait,
            until: None,
            pause: PAUSE_FIRST,
        }
    }

    /// Lets the move go on for a little, longer each time. Says whether there is time to ask again.
    pub(super) async fn pause(&mut self) -> bool {
        let now = Instant::now();
        let until = *self.until.get_or_insert(now + self.wait.move_max);
        if now + self.pause > until {
            return false;
        }
        let pause = self.pause;
        self.pause = (2 * pause).min(PAUSE_MAX);
        tokio::select! {
            () = sleep(pause) => true,
            _ = self.wait.ends() => false,
        }
    }
}

/// Asks until the account is not being moved any more, or for so long.
pub(super) async fn until_moved<T, Fut>(
    facts: &LoginFacts,
    moving: &mut MoveWait<'_>,
    ask: impl Fn() -> Fut,
) -> Result<T, LoginError>
where
    Fut: Future<Output = Result<T, LoginError>>,
{
    let mut waited = false;
    loop {
        let answer = ask().await;
        let is_moving = matches!(answer, Err(LoginError::Moving));
        if is_moving && moving.pause().await {
            waited = true;
            continue;
        }
        if waited {
            let outcome = if is_moving { "gave_up" } else { "over" };
            metrics::counter!(MOVE_WAITS, "service" => facts.service.as_str(), "outcome" => outcome)
                .increment(1);
        }
        return answer;
    }
}

/// Of the time for the login, kept for the answer, so that it ends in words.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// A freeze aims at a tenth of a second (DESIGN §9).
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);
