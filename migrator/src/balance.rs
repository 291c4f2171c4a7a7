//! Decides which accounts should live elsewhere: pure functions of a snapshot of the load.
//!
//! [`Snapshot`] is what is known, [`plan`] decides by one of two policies, [`Plan`] says what to
//! move and why, and what is left as it is and why. Nothing here does I/O or reads a clock; the
//! same snapshot, settings and seed give the same plan. What the policies are worth is measured by
//! [`crate::simulate`]; the results are kept in `infra/docs/BALANCE.md`.

mod loads;
pub mod peak;
mod plan;
mod random;
pub mod reference;
mod snapshot;

pub use loads::{HOURS, Hours, Loads};
pub use plan::{Giant, Idle, Left, Move, Obstacle, Plan, Why};
pub use random::Random;
pub use snapshot::{Account, Backend, Snapshot, Unusable, limit};

/// By which rules a plan is made.
#[derive(Clone, Debug, PartialEq)]
pub enum Policy {
    /// The published rules: [`reference`].
    Reference(reference::Settings),
    /// Ours: [`peak`].
    Peak(peak::Settings),
}

impl Policy {
    /// As the command line and the plan file name it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Reference(_) => "reference",
            Self::Peak(_) => "peak",
        }
    }
}

/// Says which accounts should move, for one day. `seed` is used by policies that draw.
#[must_use]
pub fn plan(snapshot: &Snapshot, policy: &Policy, seed: u64) -> Plan {
    match policy {
        Policy::Reference(settings) => reference::plan(snapshot, settings, seed),
        Policy::Peak(settings) => peak::plan(snapshot, settings),
    }
}

#[cfg(test)]
mod tests;
