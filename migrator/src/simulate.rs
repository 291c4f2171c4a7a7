//! Lets policies balance a simulated provider for weeks, and measures what they reach.
//!
//! Each hour each account causes a load; the planner sees only what back-ends measure of it, by
//! hour of the week and decayed. A plan is made each night and done before the morning. What is
//! simulated and what each figure means is told in `infra/docs/BALANCE.md`; the numbers of the
//! workload stand at [`workload::Parameters`].

mod noise;
pub mod report;
mod run;
pub mod shapes;
pub mod sizes;
pub mod workload;

pub use report::Report;
pub use run::{run, run_recorded};

use crate::balance::Policy;

/// What happens beside the daily changes that every simulation has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// Noise, drift, churn; and at half time a new back-end joins, as in all of them.
    #[default]
    Standard,
    /// In one day of each week, from 12 to 20 h, one account in twenty has five times its load.
    FlashCrowd,
    /// On two days of each week, for three hours, the members of one list (2 % of all accounts)
    /// have twenty times their load.
    ListStorm,
    /// At three quarters of the time a back-end is lost; its accounts come back on the others.
    NodeLoss,
    /// The largest domain that was imported grows by 3 % a day.
    GrowingDomain,
}

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Days that are reported. A week before them is only measured.
    pub days: u32,
    /// What happens.
    pub scenario: Scenario,
    /// By which rules it is balanced; none: nothing is moved.
    pub policy: Option<Policy>,
    /// For all that is random.
    pub seed: u64,
    /// Days after which what was measured counts half.
    pub half_life_days: f64,
}

/// Who is simulated.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Accounts, from 1 to [`ACCOUNTS_MAX`].
    pub accounts: u64,
    /// Equal back-ends, from 1 to [`BACKENDS_MAX`].
    pub backends: usize,
}

/// Above a million, accounts are put together in cohorts.
pub const ACCOUNTS_MAX: u64 = 100_000_000;

/// One below the planner's limit: another joins.
pub const BACKENDS_MAX: usize = crate::balance::limit::BACKENDS_MAX - 1;

/// Ten years.
pub const DAYS_MAX: u32 = 3_650;

#[cfg(test)]
mod tests;
