//! What a simulation has shown.

use serde::Serialize;

use super::{Scenario, Settings};
use crate::balance::Policy;

/// What one day was like, and what was moved in the night after it.
#[derive(Clone, Debug, Default)]
pub struct Day {
    /// Of each back-end that is up: its load by weight in the worst hour of the day, that in which
    /// all together have most to carry, against the mean of all.
    pub above: Vec<Option<f64>>,
    /// The most that any back-end had in any hour of the day, against the mean in that hour.
    pub any_hour: f64,
    /// Octets stored by all.
    pub stored: f64,
    /// Accounts moved.
    pub moves: u64,
    /// Their octets.
    pub moved: f64,
    /// Of the moves: those of an account that had moved within 14 days.
    pub removed: u64,
    /// Of the moves: those back to where the account came from within 28 days.
    pub returned: u64,
    /// Load of the new back-end in the worst hour of all, against the mean; none before it is there.
    pub new_backend: Option<f64>,
}

impl Day {
    /// The most loaded back-end against the mean.
    #[must_use]
    pub fn peak_to_mean(&self) -> f64 {
        self.above.iter().flatten().copied().fold(1.0, f64::max)
    }
}

/// The figures. Names are a contract with whoever reads the JSON; more may follow.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `reference`, `peak` or `none`.
    pub policy: &'static str,
    /// What happened.
    pub scenario: String,
    /// As given.
    pub seed: u64,
    /// As given.
    pub accounts: u64,
    /// Without the one that joins.
    pub backends: usize,
    /// As given.
    pub days: u32,
    /// Mean over the days of the most loaded back-end in its worst hour against the mean of all.
    pub peak_to_mean_mean: f64,
    /// The same: 95 of 100 days were not worse.
    pub peak_to_mean_p95: f64,
    /// The worst day.
    pub peak_to_mean_max: f64,
    /// Not in the worst hour of all, but in that of whoever had the most: 95 of 100 days were not
    /// worse.
    pub any_hour_peak_to_mean_p95: f64,
    /// Share of all stored octets that was moved in a day, in steady state: without the days in
    /// which the new back-end was filled, 14 at most.
    pub moved_share_per_day: f64,
    /// Octets moved in all days against those stored in the mean.
    pub moved_share_total: f64,
    /// Of all moves, those of an account that had moved within 14 days before.
    pub removed_14d_share: f64,
    /// Of all moves, those back to where the account came from within 28 days.
    pub returned_28d_share: f64,
    /// Accounts moved.
    pub moves: u64,
    /// Octets moved in a day, mean of all days.
    pub moved_octets_per_day: f64,
    /// Days until the new back-end carried nine tenths of the mean; null when it never did.
    pub fill_days: Option<u32>,
    /// Day by day.
    #[serde(skip)]
    pub daily: Vec<Day>,
}

impl Report {
    pub(super) fn new(
        settings: &Settings,
        accounts: u64,
        backends: usize,
        daily: Vec<Day>,
    ) -> Self {
        let ratios: Vec<f64> = daily.iter().map(Day::peak_to_mean).collect();
        let any_hour: Vec<f64> = daily.iter().map(|day| day.any_hour).collect();
        let join = daily.iter().position(|day| day.new_backend.is_some());
        let filled = daily
            .iter()
            .position(|day| day.new_backend.is_some_and(|share| share >= FILLED));
        let filling = join.unwrap_or(0)
            ..filled
                .unwrap_or(usize::MAX)
                .min(join.map_or(0, |join| join + FILL_DAYS_MAX));
        let steady = daily
            .iter()
            .enumerate()
            .filter(|(day, _)| !filling.contains(day));
        let shares: Vec<f64> = steady
            .map(|(_, day)| day.moved / day.stored.max(1.0))
            .collect();
        let moves: u64 = daily.iter().map(|day| day.moves).sum();
        let moved: f64 = daily.iter().map(|day| day.moved).sum();
        let share = |part: u64| part as f64 / moves.max(1) as f64;
        Self {
            policy: settings.policy.as_ref().map_or("none", Policy::name),
            scenario: name(settings.scenario),
            seed: settings.seed,
            accounts,
            backends,
            days: settings.days,
            peak_to_mean_mean: mean(&ratios),
            peak_to_mean_p95: quantile(&ratios, 0.95),
            peak_to_mean_max: quantile(&ratios, 1.0),
            any_hour_peak_to_mean_p95: quantile(&any_hour, 0.95),
            moved_share_per_day: mean(&shares),
            moved_share_total: daily
                .iter()
                .map(|day| day.moved / day.stored.max(1.0))
                .sum(),
            removed_14d_share: share(daily.iter().map(|day| day.removed).sum()),
            returned_28d_share: share(daily.iter().map(|day| day.returned).sum()),
            moves,
            moved_octets_per_day: moved / daily.len().max(1) as f64,
            fill_days: join
                .zip(filled)
                .map(|(join, filled)| (filled - join) as u32),
            daily,
        }
    }
}

fn name(scenario: Scenario) -> String {
    use clap::ValueEnum;
    scenario
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}

fn mean(values: &[f64]) -> f64 {
    if values.is_empty() {
        0.0
    } else {
        values.iter().sum::<f64>() / values.len() as f64
    }
}

/// The smallest value that so many of all do not exceed.
fn quantile(values: &[f64], share: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.max(1) - 1).copied().unwrap_or(0.0)
}

/// Of the mean: the new back-end counts as filled.
const FILLED: f64 = 0.9;

/// A policy that does not fill the new back-end within so many days is not excused for longer.
const FILL_DAYS_MAX: usize = 14;
