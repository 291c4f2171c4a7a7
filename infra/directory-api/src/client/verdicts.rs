//! Whether the directory answers logins. It may answer everything else and these not, as when what checks passwords hangs:
//! then each would hold a turn, and let its user wait, for as long as a login may take.
//!
//! ```text
//! answered ◀── any answer ──┐
//!    │ so many in a row without one, for as long as a login may take
//!    ▼                      │
//! unanswered: one at a time is asked, the others hear at once that it is away
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::LOGIN_DEADLINE;

/// What has become of the logins that were asked for.
#[derive(Default)]
pub(super) struct Verdicts {
    /// Those without an answer, in a row.
    unanswered: Mutex<Option<Row>>,
    are_missing: AtomicBool,
    is_tried: AtomicBool,
}

#[derive(Clone, Copy)]
struct Row {
    /// When the first of them was asked.
    since: Instant,
    count: u32,
}

/// A login that is asked for.
pub(super) struct Asked<'a> {
    verdicts: &'a Verdicts,
    began: Instant,
    /// The one that finds out whether they are answered again.
    is_trial: bool,
}

impl Verdicts {
    /// Whether none is answered.
    fn are_missing(&self) -> bool {
        self.are_missing.load(Ordering::Relaxed)
    }

    fn row(&self) -> MutexGuard<'_, Option<Row>> {
        self.unanswered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether none is answered, and somebody finds out whether one is again.
    pub(super) fn are_waited_for(&self) -> bool {
        self.are_missing() && self.is_tried.load(Ordering::Relaxed)
    }

    /// Leave to ask; none while somebody else finds out whether it is of use.
    pub(super) fn ask(&self, now: Instant) -> Option<Asked<'_>> {
        let is_trial = self.are_missing();
        let leave = !is_trial || !self.is_tried.swap(true, Ordering::Relaxed);
        leave.then_some(Asked {
            verdicts: self,
            began: now,
            is_trial,
        })
    }
}

impl Asked<'_> {
    /// It was answered, be it with a refusal.
    pub(super) fn was_answered(self) {
        *self.verdicts.row() = None;
        self.verdicts.are_missing.store(false, Ordering::Relaxed);
        metrics::gauge!(UNANSWERED).set(0.0);
    }

    /// Its time was over before an answer came. Who had less time than a login may take, as a home has that is shown a
    /// password, does not say that there is none: only that none came to anybody for that long does.
    pub(super) fn was_not_answered(self, now: Instant) {
        let row = {
            let mut last = self.verdicts.row();
            let row = last.get_or_insert(Row {
                since: self.began,
                count: 0,
            });
            row.count = row.count.saturating_add(1);
            *row
        };
        if row.count >= UNANSWERED_MAX && now.saturating_duration_since(row.since) >= LOGIN_DEADLINE
        {
            self.verdicts.are_missing.store(true, Ordering::Relaxed);
            metrics::gauge!(UNANSWERED).set(1.0);
        }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if self.is_trial {
            self.verdicts.is_tried.store(false, Ordering::Relaxed);
        }
    }
}

pub(super) const UNANSWERED: &str = "posthouse_directory_client_logins_unanswered";

/// One that was lost on its way says nothing.
const UNANSWERED_MAX: u32 = 4;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn where_none_is_answered_one_at_a_time_is_asked_until_one_is() {
        let (verdicts, start) = (Verdicts::default(), Instant::now());
        let later = start + LOGIN_DEADLINE;
        for _ in 1..UNANSWERED_MAX {
            verdicts.ask(start).unwrap().was_not_answered(later);
        }
        verdicts.ask(start).unwrap().was_answered();
        let under_way: Vec<_> = (0..UNANSWERED_MAX).map(|_| verdicts.ask(start)).collect();
        assert!(!verdicts.are_missing());
        for one in under_way {
            one.unwrap().was_not_answered(later);
        }
        assert!(verdicts.are_missing());
        for _ in 0..2 {
            let trial = verdicts.ask(later).unwrap();
            assert!(verdicts.ask(later).is_none());
            trial.was_not_answered(later);
        }
        // Who was given up in the middle leaves the place.
        drop(verdicts.ask(later).unwrap());
        verdicts.ask(later).unwrap().was_answered();
        assert!(!verdicts.are_missing());
        let (_one, _other) = (verdicts.ask(later).unwrap(), verdicts.ask(later).unwrap());
    }

    #[test]
    fn however_many_have_little_time_none_is_missing_while_there_may_be_an_answer() {
        let (verdicts, start) = (Verdicts::default(), Instant::now());
        let at = |quarters| start + LOGIN_DEADLINE / 4 * quarters;
        let patient = verdicts.ask(start).unwrap();
        for quarters in 0..3 {
            for _ in 0..100 {
                let hasty = verdicts.ask(at(quarters)).unwrap();
                hasty.was_not_answered(at(quarters + 1));
            }
            assert!(!verdicts.are_missing());
        }
        patient.was_answered();
        for quarters in 3..7 {
            assert!(!verdicts.are_missing());
            let hasty = verdicts.ask(at(quarters)).unwrap();
            hasty.was_not_answered(at(quarters + 1));
        }
        // Nobody has had any for long enough.
        assert!(verdicts.are_missing());
    }
}
