//! Our policy: keeps the worst hour of the week low, for few octets.
//!
//! A back-end is judged by its worst hour in each day of the week, against the mean of all
//! back-ends in the worst hour of that day ("the average" here), each by its weight; the worst of
//! these seven is what it counts by. Days with less than half of the week's peak are taken as if
//! they had half. A back-end with few heavy accounts is less steady than one with many light ones,
//! so what they may add is added. Four rules:
//!
//! 1. Draining back-ends are emptied, the heaviest accounts first.
//! 2. A back-end more than `start` above the average gives until it is at most `stop` above. Those
//!    accounts go first that take most from the hours that are too high, per octet to be copied.
//!    Where nobody has room for them in all of their hours, they are exchanged for others.
//! 3. Where a back-end is more than `fill_start` below, it is new or was emptied: whoever is above
//!    the average gives, until that one is at most `stop` below.
//! 4. Whoever receives stays at most `stop` above the average in every hour, and has room on its
//!    disk. Only what comes off a draining back-end has to go somewhere, and goes where it hurts
//!    least.
//!
//! Between `start` and `stop` nothing happens, so that noise moves nobody back and forth, and what
//! was moved lately stays. Pinned accounts stay. Groups move as one; of a group whose parts live
//! apart, only a part on a draining back-end moves, to where another part lives. An account that is
//! a large share of a machine is named, not moved: where it goes, the trouble goes. What may be
//! copied in a day, and between two back-ends, is bounded.

mod exchange;
mod units;
mod work;

use directory_api::BackendState;

use super::Snapshot;
use super::plan::{Idle, Plan};
use work::{Purpose, Work};

/// What may be moved in a day.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// Octets, over all.
    pub octets: u64,
    /// Accounts, over all.
    pub moves: u32,
    /// Octets from one back-end to one other.
    pub pair_octets: u64,
    /// Accounts from one back-end to one other.
    pub pair_moves: u32,
}

impl Budget {
    /// No bound.
    pub const NONE: Self = Self {
        octets: u64::MAX,
        moves: u32::MAX,
        pair_octets: u64::MAX,
        pair_moves: u32::MAX,
    };
}

/// When the policy acts, and how far it goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Share above the average where a back-end begins to give.
    pub start: f64,
    /// Share above the average where it ends.
    pub stop: f64,
    /// Share below the average where a back-end is filled.
    pub fill_start: f64,
    /// Days for which an account that was moved stays.
    pub memory_days: f64,
    /// An account that is a larger share of the average back-end than this is named, not moved.
    pub giant: f64,
    /// How much of the deviation that unsteady accounts may cause is added to a back-end's worst
    /// hour: times the root of the sum of squares of their own worst hours.
    pub unsteady: f64,
    /// What a move costs beside its octets, in octets: users log in again, both sides sync.
    pub move_octets: u64,
    /// What may be moved in a day.
    pub budget: Budget,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            start: 0.08,
            stop: 0.03,
            fill_start: 0.20,
            memory_days: 14.0,
            giant: 0.20,
            unsteady: 1.0,
            move_octets: 256 * 1024,
            budget: Budget::NONE,
        }
    }
}

/// Plans a day. There is no draw in it.
#[must_use]
pub fn plan(snapshot: &Snapshot, settings: &Settings) -> Plan {
    if snapshot.accounts().is_empty() {
        return Plan::idle(Idle::NoAccounts);
    }
    let mut work = Work::new(snapshot, settings);
    for (backend, state) in snapshot.backends().iter().map(|b| b.state).enumerate() {
        if state == BackendState::Draining {
            work.drain(backend);
        }
    }
    let receivers = work.active().to_vec();
    for backend in work.heaviest_first() {
        if work.above(backend) > settings.start {
            work.relieve(backend, settings.stop, &receivers, Purpose::WorstHour);
            work.exchange(backend, settings.stop, &receivers);
        }
    }
    let mut empty = work.below(settings.fill_start, &receivers);
    for backend in work.heaviest_first() {
        empty = work.below(settings.stop, &empty);
        if empty.is_empty() || work.above(backend) <= 0.0 {
            break;
        }
        work.relieve(backend, 0.0, &empty, Purpose::Fill);
    }
    work.into_plan()
}

#[cfg(test)]
mod tests;
