//! The slowest sender that is still served: octets a body must bring in each window of waiting.

use std::time::Duration;

/// Counts one body. Only time spent waiting for the client counts; a slow back-end is not its fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    window: Duration,
    octets_per_s_min: u64,
    waited: Duration,
    octets: u64,
}

/// The client brought less than the least in a whole window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooSlow;

impl Pace {
    /// DESIGN §10: 100 octets a second, seen over 60 s. A rate of 0 allows any.
    pub(crate) fn new(octets_per_s_min: u64, window: Duration) -> Self {
        Self {
            window,
            octets_per_s_min,
            waited: Duration::ZERO,
            octets: 0,
        }
    }

    /// From now on it is seen over this time.
    pub(crate) fn see_over(&mut self, window: Duration) {
        self.window = window;
    }

    /// How long the next read may wait before the window is over.
    pub(crate) fn patience(&self) -> Duration {
        if self.octets_per_s_min == 0 {
            // Any pace is allowed; how long silence may last is for others to say.
            return Duration::MAX;
        }
        self.window.saturating_sub(self.waited)
    }

    /// Takes one read: how long it waited and what it brought, which is nothing when it ran out of patience.
    pub(crate) fn read(&mut self, waited: Duration, octets: usize) -> Result<(), TooSlow> {
        self.waited += waited;
        self.octets += octets as u64;
        if self.waited < self.window {
            return Ok(());
        }
        if self.octets < self.octets_per_s_min.saturating_mul(self.window.as_secs()) {
            return Err(TooSlow);
        }
        self.waited = Duration::ZERO;
        self.octets = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_sender_at_the_limit_is_served_and_one_below_is_not() {
        let mut pace = Pace::new(100, 60 * SECOND);
        for _ in 0..600 {
            assert_eq!(pace.read(SECOND, 100), Ok(()));
        }
        let mut pace = Pace::new(100, 60 * SECOND);
        for _ in 0..59 {
            assert_eq!(pace.read(SECOND, 100), Ok(()));
        }
        assert_eq!(pace.patience(), SECOND);
        assert_eq!(pace.read(SECOND, 99), Err(TooSlow));
    }

    #[test]
    fn silence_ends_with_the_window_and_is_allowed_when_no_rate_is_asked_for() {
        let mut pace = Pace::new(100, 60 * SECOND);
        assert_eq!(pace.read(60 * SECOND, 0), Err(TooSlow));
        let mut pace = Pace::new(0, 60 * SECOND);
        assert_eq!(pace.read(60 * SECOND, 0), Ok(()));
        assert!(pace.patience() > 3600 * SECOND);
    }

    #[test]
    fn a_shorter_window_ends_a_trickle_sooner() {
        let mut pace = Pace::new(100, 60 * SECOND);
        assert_eq!(pace.read(9 * SECOND, 10), Ok(()));
        pace.see_over(10 * SECOND);
        assert_eq!(pace.patience(), SECOND);
        assert_eq!(pace.read(SECOND, 10), Err(TooSlow));
        let mut pace = Pace::new(100, 60 * SECOND);
        pace.see_over(10 * SECOND);
        assert_eq!(pace.read(10 * SECOND, 1000), Ok(()));
    }

    #[test]
    fn a_fast_start_does_not_pay_for_a_later_window() {
        let mut pace = Pace::new(100, 60 * SECOND);
        assert_eq!(pace.read(60 * SECOND, 1 << 20), Ok(()));
        assert_eq!(pace.read(60 * SECOND, 1), Err(TooSlow));
    }
}
