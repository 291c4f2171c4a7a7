//! What is not fed for now: each time that it fails it waits twice as long.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Accounts, or messages, that wait.
pub(super) struct Delays<K> {
    first: Duration,
    max: Duration,
    of: HashMap<K, Delay>,
}

/// How long one waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delay {
    /// A fixed word.
    pub(super) why: &'static str,
    /// How often it has failed.
    pub(super) tries: u32,
    /// When it is tried again.
    pub(super) until: Instant,
}

impl<K: Eq + Hash> Delays<K> {
    /// `first`: how long who fails once waits; nobody waits longer than `max`.
    pub(super) fn new(first: Duration, max: Duration) -> Self {
        Self {
            first,
            max,
            of: HashMap::new(),
        }
    }

    pub(super) fn is_due(&self, one: &K, now: Instant) -> bool {
        self.of.get(one).is_none_or(|delay| delay.until <= now)
    }

    pub(super) fn of(&self, one: &K) -> Option<Delay> {
        self.of.get(one).copied()
    }

    /// How often it has failed.
    pub(super) fn tries(&self, one: &K) -> u32 {
        self.of.get(one).map_or(0, |delay| delay.tries)
    }

    /// It failed, and answers how often it has by now.
    pub(super) fn failed(&mut self, one: K, why: &'static str, now: Instant) -> u32 {
        let tries = self.tries(&one).saturating_add(1);
        let doubled = self.first.saturating_mul(1 << (tries - 1).min(20));
        let delay = Delay {
            why,
            tries,
            until: now + doubled.min(self.max),
        };
        self.of.insert(one, delay);
        tries
    }

    /// It waits no more.
    pub(super) fn forget(&mut self, one: &K) {
        self.of.remove(one);
    }

    /// All are tried now; who fails again has failed as often as before, and once more.
    pub(super) fn end_all(&mut self, now: Instant) {
        for delay in self.of.values_mut() {
            delay.until = delay.until.min(now);
        }
    }

    pub(super) fn retain(&mut self, mut keeps: impl FnMut(&K) -> bool) {
        self.of.retain(|one, _| keeps(one));
    }

    pub(super) fn len(&self) -> usize {
        self.of.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &Delay)> {
        self.of.iter()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_waits_twice_as_long_each_time_and_nobody_else_does() {
        let second = Duration::from_secs(1);
        let mut delays = Delays::new(second * 2, second * 10);
        let mut now = Instant::now();
        for (tries, waits) in [(1, 2), (2, 4), (3, 8), (4, 10), (5, 10)] {
            assert!(delays.is_due(&1, now) && delays.is_due(&2, now));
            assert_eq!(delays.failed(1, "no", now), tries);
            let until = now + second * waits;
            assert!(!delays.is_due(&1, until - second));
            assert!(delays.is_due(&2, now));
            now = until;
        }
        for _ in 0..100 {
            delays.failed(1, "no", now);
        }
        assert_eq!(delays.of(&1).unwrap().until, now + second * 10);
        delays.end_all(now);
        assert!(delays.is_due(&1, now));
        assert_eq!(delays.failed(1, "no", now), 106);
        delays.forget(&1);
        assert_eq!(delays.failed(1, "no", now), 1);
        delays.retain(|_| false);
        assert_eq!(delays.len(), 0);
    }
}
