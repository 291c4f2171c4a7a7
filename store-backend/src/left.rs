//! Whether a user would find a ticket here: a proxy asks it that looks for homes while the directory is away.
//!
//! Who asks learns which names there are. So nobody is told while the directory answers, whom it is asked to stand in for,
//! and no caller, be it a proxy that somebody has taken over, hears more than a site's users need who all come back at once (P8).

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::{Extension, Json};
use daemon::identity::{Peer, Role};
use daemon::link::{Problem, require};
use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use http::StatusCode;
use store_api::session::{Left, LeftReply};
use tracing::warn;

use crate::backend::Backend;
use crate::link::Asked;
use crate::metrics::left_asked;

/// How often each caller may ask.
pub(crate) struct Askers<C: Clock = MonotonicClock> {
    limiter: RateLimiter<String, HashMapStateStore<String>, C, NoOpMiddleware<C::Instant>>,
    complained: Mutex<Option<Instant>>,
}

impl Default for Askers {
    fn default() -> Self {
        Self::with_clock(MonotonicClock)
    }
}

impl<C: Clock> Askers<C> {
    fn with_clock(clock: C) -> Self {
        let quota = Quota::per_second(EACH_S).allow_burst(AT_ONCE);
        Self {
            limiter: RateLimiter::new(quota, HashMapStateStore::default(), clock),
            complained: Mutex::default(),
        }
    }

    fn may_ask(&self, node: &str) -> bool {
        if self.limiter.len() >= NODES_MAX {
            self.limiter.retain_recent();
        }
        self.limiter.check_key(&node.to_owned()).is_ok()
    }

    /// One line a while: what it says does not change fifty times a second.
    fn complain(&self, peer: &Peer) {
        let mut last = self
            .complained
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= COMPLAINT_INTERVAL) {
            *last = Some(Instant::now());
            warn!(
                %peer,
                reason = TOO_OFTEN,
                "a proxy asks for more users than may be asked for: whoever is behind it may be guessing names"
            );
        }
    }
}

/// Serves `POST /v1/session/left`.
pub(crate) async fn serve(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    Asked(asked): Asked<Left>,
) -> Result<Json<LeftReply>, Problem> {
    require(&peer, &[Role::PopImapProxy])?;
    if !backend.askers.may_ask(&peer.node) {
        left_asked(TOO_OFTEN);
        backend.askers.complain(&peer);
        let message = "more users were asked for than may be, try again later";
        return Err(Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            TOO_OFTEN,
            message,
        ));
    }
    if !backend.directory.is_silent() {
        left_asked(NOT_AWAY);
        let message = "the directory answers here: it is to be asked";
        return Err(Problem::new(StatusCode::CONFLICT, NOT_AWAY, message));
    }
    let left = backend.directory.left_here(&asked.user).await;
    left_asked(if left.is_some() { "ok" } else { "absent" });
    let (account, login_name) = left.map(|left| (left.account, left.login_name)).unzip();
    Ok(Json(LeftReply {
        account,
        login_name,
    }))
}

const TOO_OFTEN: &str = "left_rate";
const NOT_AWAY: &str = "directory_answers";
/// All the users of one proxy who come back at once are found in minutes, and a guesser gets less than five million names a day.
const EACH_S: NonZeroU32 = NonZeroU32::new(50).expect("it is not 0");
const AT_ONCE: NonZeroU32 = NonZeroU32::new(1_000).expect("it is not 0");
/// Callers have certificates of ours, so there are few; whoever has asked for nothing lately is forgotten beyond this.
const NODES_MAX: usize = 1_000;
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    #[test]
    fn a_caller_is_answered_so_often_and_others_are_not_held_up_by_it() {
        let clock = FakeRelativeClock::default();
        let askers = Askers::with_clock(clock.clone());
        for _ in 0..AT_ONCE.get() {
            assert!(askers.may_ask("p1"));
        }
        assert!(!askers.may_ask("p1"));
        assert!(askers.may_ask("p2"));
        clock.advance(Duration::from_secs(1));
        for _ in 0..EACH_S.get() {
            assert!(askers.may_ask("p1"));
        }
        assert!(!askers.may_ask("p1"));
    }
}
