//! Whether the directory answers logins. It may answer everything else and these not, as when what checks passwords hangs:
//! then each would hold a turn, and let its user wait, for as long as a login may take.
//!
//! ```text
//! answered ◀── any answer ──┐
//!    │ so many in a row without one
//!    ▼                      │
//! unanswered: one at a time is asked, the others hear at once that it is away
//! ```

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// What has become of the logins that were asked for.
#[derive(Default)]
pub(super) struct Verdicts {
    /// In a row.
    unanswered: AtomicU32,
    is_tried: AtomicBool,
}

/// A login that is asked for.
pub(super) struct Asked<'a> {
    verdicts: &'a Verdicts,
    /// The one that finds out whether they are answered again.
    is_trial: bool,
}

impl Verdicts {
    /// Whether none is answered.
    fn are_missing(&self) -> bool {
        self.unanswered.load(Ordering::Relaxed) >= UNANSWERED_MAX
    }

    /// Whether none is answered, and somebody finds out whether one is again.
    pub(super) fn are_waited_for(&self) -> bool {
        self.are_missing() && self.is_tried.load(Ordering::Relaxed)
    }

    /// Leave to ask; none while somebody else finds out whether it is of use.
    pub(super) fn ask(&self) -> Option<Asked<'_>> {
        let is_trial = self.are_missing();
        let leave = !is_trial || !self.is_tried.swap(true, Ordering::Relaxed);
        leave.then_some(Asked {
            verdicts: self,
            is_trial,
        })
    }
}

impl Asked<'_> {
    /// It was answered, be it with a refusal.
    pub(super) fn was_answered(self) {
        self.verdicts.unanswered.store(0, Ordering::Relaxed);
        metrics::gauge!(UNANSWERED).set(0.0);
    }

    /// Its time was over before an answer came.
    pub(super) fn was_not_answered(self) {
        self.verdicts.unanswered.fetch_add(1, Ordering::Relaxed);
        if self.verdicts.are_missing() {
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
        let verdicts = Verdicts::default();
        for _ in 1..UNANSWERED_MAX {
            verdicts.ask().unwrap().was_not_answered();
        }
        verdicts.ask().unwrap().was_answered();
        let under_way: Vec<_> = (0..UNANSWERED_MAX).map(|_| verdicts.ask()).collect();
        assert!(!verdicts.are_missing());
        for one in under_way {
            one.unwrap().was_not_answered();
        }
        assert!(verdicts.are_missing());
        for _ in 0..2 {
            let trial = verdicts.ask().unwrap();
            assert!(verdicts.ask().is_none());
            trial.was_not_answered();
        }
        // Who was given up in the middle leaves the place.
        drop(verdicts.ask().unwrap());
        verdicts.ask().unwrap().was_answered();
        assert!(!verdicts.are_missing());
        let (_one, _other) = (verdicts.ask().unwrap(), verdicts.ask().unwrap());
    }
}
