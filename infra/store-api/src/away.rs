//! Volumes of a back-end that take no mail now: `GET /v1/away`, asked at RCPT.
//!
//! A recipient whose volume is away is refused before the body is sent. Were it refused after that, with recipients of other
//! volumes in one transaction, the sender would send all of it again until the volume is back, and the others get it each time.
//! The answer may be some seconds old. While a back-end does not answer, what it said last holds for half a minute; after that
//! none is taken to be away, and the delivery finds out.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use daemon::link::Link;
use directory_api::{BackendName, Home, VolumeName};
use http::Method;
use serde::{Deserialize, Serialize};
use tracing::debug;

/// The path of version 1.
pub const PATH: &str = "/v1/away";

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Away {
    /// Not open, not adopted, read-only, or without room.
    pub volumes: Vec<VolumeName>,
    /// Whether it holds mail for accounts of siblings now.
    #[serde(default)]
    pub holds: bool,
}

/// What back-ends have answered in the last seconds.
#[derive(Debug, Default)]
pub struct AwayVolumes {
    known: Mutex<HashMap<BackendName, Known>>,
}

#[derive(Debug)]
struct Known {
    away: Away,
    answered: Instant,
    /// When it was asked last, answered or not.
    asked: Instant,
}

impl AwayVolumes {
    /// Whether the volume of this home takes no mail: as its back-end said a moment ago, or says now over `link`.
    pub async fn is_away(&self, link: &Link, home: &Home) -> bool {
        let away = self.of(link, &home.backend).await;
        away.volumes.contains(&home.volume)
    }

    /// Whether a back-end would hold mail for accounts of others. One that does not answer would not.
    pub async fn holds(&self, link: &Link, backend: &BackendName) -> bool {
        self.of(link, backend).await.holds
    }

    async fn of(&self, link: &Link, backend: &BackendName) -> Away {
        if let Some(kept) = self.kept(backend, Instant::now()) {
            return kept;
        }
        let asked = link.json(Method::GET, PATH, &(), ASK_WITHIN).await;
        let answer = asked.inspect_err(|error| {
            debug!(%backend, %error, "back-end does not tell which volumes are away");
        });
        self.keep(backend, answer.ok(), Instant::now())
    }

    fn kept(&self, backend: &BackendName, now: Instant) -> Option<Away> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get(backend)?;
        (now.saturating_duration_since(known.asked) < KEEP).then(|| known.away.clone())
    }

    /// Keeps an answer; without one, what holds in its place.
    fn keep(&self, backend: &BackendName, answer: Option<Away>, now: Instant) -> Away {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known
            .remove(backend)
            .filter(|before| now.saturating_duration_since(before.answered) < HOLD);
        let (away, answered) = match (answer, before) {
            (Some(away), _) => (away, now),
            (None, Some(before)) => (before.away, before.answered),
            (None, None) => (Away::default(), now),
        };
        let asked = now;
        let kept = Known {
            away: away.clone(),
            answered,
            asked,
        };
        known.insert(backend.clone(), kept);
        away
    }
}

/// A disk that fails does so within a moment, and one that is mounted again is not waited for long.
const KEEP: Duration = Duration::from_secs(2);
/// A busy back-end answers again before that, and to one that is gone nothing is delivered.
const HOLD: Duration = Duration::from_secs(30);
/// The answer is at hand there.
const ASK_WITHIN: Duration = Duration::from_secs(1);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_kept_for_seconds() {
        let away = Away {
            volumes: vec!["d2".parse().unwrap()],
            holds: true,
        };
        let (known, now) = (AwayVolumes::default(), Instant::now());
        let (b1, b2) = ("b1".parse().unwrap(), "b2".parse().unwrap());
        known.keep(&b1, Some(away.clone()), now);
        assert_eq!(known.kept(&b1, now + KEEP / 2), Some(away));
        assert_eq!(known.kept(&b1, now + KEEP), None);
        assert_eq!(known.kept(&b2, now), None);
    }

    #[test]
    fn what_was_said_last_holds_for_a_while_when_nothing_is_answered() {
        let away = Away {
            volumes: vec!["d2".parse().unwrap()],
            holds: true,
        };
        let (known, now) = (AwayVolumes::default(), Instant::now());
        let b1 = "b1".parse().unwrap();
        known.keep(&b1, Some(away.clone()), now);
        let late = now + HOLD - KEEP;
        assert_eq!(known.keep(&b1, None, late), away);
        assert_eq!(known.kept(&b1, late + KEEP / 2), Some(away.clone()));
        assert_eq!(known.keep(&b1, None, now + HOLD), Away::default());
        known.keep(&b1, Some(away), now + HOLD);
        let none = Some(Away::default());
        assert_eq!(known.keep(&b1, none, now + HOLD), Away::default());
    }
}
