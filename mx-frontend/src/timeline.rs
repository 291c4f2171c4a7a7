//! Where the time of one delivery went: stages that sum to wall time.

use std::time::Duration;

use tokio::time::Instant;

/// One part of a delivery's time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stage {
    /// From the connection, or the end of the transaction before, to MAIL.
    BeforeMail,
    /// From MAIL to DATA, less what `Connect` took.
    Recipients,
    /// Finding and reaching back-ends.
    Connect,
    /// From DATA to the final dot.
    Body,
    /// From the final dot to the verdict.
    Commit,
    /// From the verdict until the reply was written.
    Reply,
}

/// A stopwatch with one hand for each [`Stage`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeline {
    last: Instant,
    spent: [Duration; 6],
}

impl Timeline {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            last: now,
            spent: [Duration::ZERO; 6],
        }
    }

    /// Charges the time since the last call to this stage.
    pub(crate) fn charge(&mut self, stage: Stage, now: Instant) {
        self.spent[stage as usize] += now.saturating_duration_since(self.last);
        self.last = now;
    }

    pub(crate) fn spent(&self, stage: Stage) -> Duration {
        self.spent[stage as usize]
    }

    /// In milliseconds with three digits after the point, for the log.
    pub(crate) fn spent_ms(&self, stage: Stage) -> f64 {
        (self.spent(stage).as_micros() as f64) / 1000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stages_sum_to_wall_time() {
        let start = Instant::now();
        let mut timeline = Timeline::new(start);
        let at = |ms| start + Duration::from_millis(ms);
        timeline.charge(Stage::BeforeMail, at(5));
        timeline.charge(Stage::Recipients, at(7));
        timeline.charge(Stage::Connect, at(10));
        timeline.charge(Stage::Recipients, at(11));
        timeline.charge(Stage::Body, at(20));
        timeline.charge(Stage::Commit, at(30));
        timeline.charge(Stage::Reply, at(31));
        assert_eq!(timeline.spent(Stage::Recipients), Duration::from_millis(3));
        assert_eq!(
            timeline.spent.iter().sum::<Duration>(),
            Duration::from_millis(31)
        );
    }
}
