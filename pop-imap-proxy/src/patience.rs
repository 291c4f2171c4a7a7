//! How long a back-end is waited for. One that has just let a session wait in vain is not waited for as long again: its users
//! are told at once, and each of them holds a connection and a place for so much shorter (P7).

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use directory_api::BackendName;
use tokio::time::Instant;

pub(crate) struct Patience {
    usual: Duration,
    silent_until: Mutex<HashMap<BackendName, Instant>>,
}

impl Patience {
    pub(crate) fn new(usual: Duration) -> Self {
        Self {
            usual,
            silent_until: Mutex::default(),
        }
    }

    /// How long this one may take to open a session.
    pub(crate) fn with(&self, backend: &BackendName, now: Instant) -> Duration {
        let is_silent = |until: &Instant| now < *until;
        match self.silent().get(backend).is_some_and(is_silent) {
            true => self.usual.min(SHORT),
            false => self.usual,
        }
    }

    /// It gave no answer in the time it had. A short one tells nothing new: a back-end that is slow would never be waited
    /// for long enough again.
    pub(crate) fn was_silent(&self, backend: &BackendName, had: Duration, now: Instant) {
        if had == self.usual {
            self.silent().insert(backend.clone(), now + REMEMBERED);
        }
    }

    /// It gave one, be it a refusal.
    pub(crate) fn has_answered(&self, backend: &BackendName) {
        self.silent().remove(backend);
    }

    fn silent(&self) -> MutexGuard<'_, HashMap<BackendName, Instant>> {
        self.silent_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection inside is made within this, and a session is opened in milliseconds.
const SHORT: Duration = Duration::from_secs(1);
/// Then some wait for the usual time again.
const REMEMBERED: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_back_end_is_waited_for_shortly_until_it_answers_or_for_a_while() {
        let patience = Patience::new(Duration::from_secs(10));
        let name = |name: &str| BackendName::new(name).unwrap();
        let (b1, b2) = (name("b1"), name("b2"));
        let long = Duration::from_secs(10);
        let now = Instant::now();
        assert_eq!(patience.with(&b1, now), long);
        patience.was_silent(&b1, long, now);
        assert_eq!(
            (patience.with(&b1, now), patience.with(&b2, now)),
            (SHORT, long)
        );
        patience.has_answered(&b1);
        assert_eq!(patience.with(&b1, now), long);
        patience.was_silent(&b1, long, now);
        patience.was_silent(&b1, SHORT, now + SHORT);
        assert_eq!(patience.with(&b1, now + REMEMBERED), long);
    }
}
