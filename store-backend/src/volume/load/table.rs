//! What accounts have cost so far: decayed sums, and costs by hour of the week.
//!
//! Of each account there is a row, found by bisection. The heaviest have a week of their own; of the others one is kept together,
//! from which, by their own sum, each gets its part ([`Shape`]): who becomes one of the heaviest begins with that and takes it out of
//! the others', and who ceases to be one brings his week back. So the sum of all weeks is what all have cost.

use std::collections::HashMap;
use std::time::Duration;

use directory_api::AccountId;
use store_api::load::{Figures, HOURS, Packed, Shape, Week};

use super::super::holds::held_for;
use super::Charge;

/// All of one volume.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Table {
    pub(super) half_life_h: f64,
    /// The sums are decayed to here, in milliseconds since 1970; 0: nothing was counted yet.
    pub(super) at_ms: i64,
    /// Hours for which was counted, decayed.
    pub(super) observed_h: f64,
    /// The hour that is under way, since 1970, and how much of it was counted.
    pub(super) hour: i64,
    pub(super) hour_observed: f64,
    /// By account.
    pub(super) rows: Vec<Row>,
    pub(super) weeks: HashMap<AccountId, Box<[Packed; HOURS]>>,
    /// How often each hour of the week was counted, decayed.
    pub(super) observed: [f32; HOURS],
    /// Costs of all without a week of their own.
    pub(super) rest: [f32; HOURS],
}

/// One account.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) account: AccountId,
    /// Synced octets, read octets, operations, microseconds of processor time, sessions.
    pub(super) sums: [f32; 5],
    /// Its cost in the hour that is under way.
    pub(super) hour: f32,
}

impl Row {
    pub(super) fn figures(&self) -> Figures {
        let [synced_octets, read_octets, operations, cpu_us, sessions] = self.sums.map(f64::from);
        Figures {
            synced_octets,
            read_octets,
            operations,
            cpu_us,
            sessions,
        }
    }

    fn cost(&self) -> f32 {
        self.figures().cost_us() as f32
    }

    fn add(&mut self, charge: &Charge) {
        let added = [
            charge.synced_octets as f64,
            charge.read_octets as f64,
            f64::from(charge.operations),
            charge.cpu_ns as f64 / 1000.0,
            f64::from(charge.sessions),
        ];
        let mut figures = [0.0; 5];
        for ((sum, figure), added) in self.sums.iter_mut().zip(&mut figures).zip(added) {
            *sum = (*sum + added as f32).min(SUM_MAX);
            *figure = added as f32;
        }
        let added = Self {
            sums: figures,
            ..*self
        };
        self.hour = (self.hour + added.cost()).min(SUM_MAX);
    }
}

impl Table {
    pub(super) fn new(half_life: Duration) -> Self {
        Self {
            half_life_h: half_life.as_secs_f64() / 3600.0,
            at_ms: 0,
            observed_h: 0.0,
            hour: 0,
            hour_observed: 0.0,
            rows: Vec::new(),
            weeks: HashMap::new(),
            observed: [0.0; HOURS],
            rest: [0.0; HOURS],
        }
    }

    /// Goes on from what another process has counted, with the half-life that is set now. Nothing was counted between.
    pub(super) fn restore(&mut self, mut kept: Self, now_ms: i64) {
        kept.half_life_h = self.half_life_h;
        let gap_h = hours(now_ms.saturating_sub(kept.at_ms));
        kept.decay(gap_h);
        kept.at_ms = now_ms;
        if kept.hour != hour_of(now_ms) {
            // What was left of it was not counted.
            kept.end_hour();
            kept.hour = hour_of(now_ms);
        }
        *self = kept;
    }

    /// Adds what was counted since the last time, by account.
    pub(super) fn fold(&mut self, now_ms: i64, counted: &[(AccountId, Charge)]) {
        if self.at_ms == 0 {
            self.at_ms = now_ms;
            self.hour = hour_of(now_ms);
        }
        // A clock that was put back stands still until then.
        let passed_h = hours(now_ms.saturating_sub(self.at_ms));
        self.at_ms = now_ms;
        self.decay(passed_h);
        self.observed_h += passed_h;
        self.hour_observed = (self.hour_observed + passed_h).min(1.0);
        self.add(counted);
        let hour = hour_of(now_ms);
        if hour != self.hour {
            self.end_hour();
            self.hour = hour;
        }
    }

    fn decay(&mut self, passed_h: f64) {
        let factor = 0.5_f64.powf(passed_h / self.half_life_h);
        self.observed_h *= factor;
        for row in &mut self.rows {
            for sum in &mut row.sums {
                *sum *= factor as f32;
            }
        }
    }

    fn add(&mut self, counted: &[(AccountId, Charge)]) {
        let mut new = Vec::new();
        let mut at = 0;
        for (account, charge) in counted {
            at += self.rows[at..].partition_point(|row| row.account < *account);
            match self.rows.get_mut(at).filter(|row| row.account == *account) {
                Some(row) => row.add(charge),
                None => {
                    let mut row = Row {
                        account: *account,
                        sums: [0.0; 5],
                        hour: 0.0,
                    };
                    row.add(charge);
                    new.push(row);
                }
            }
        }
        new.truncate(ROWS_MAX.saturating_sub(self.rows.len()));
        if !new.is_empty() {
            self.rows.extend(new);
            // Two runs that are in order: it finds that, and merges them.
            self.rows.sort_by_key(|row| row.account);
        }
    }

    /// Enters what the hour has cost into the weeks, and decides who has one of his own.
    fn end_hour(&mut self) {
        let at = usize::try_from((self.hour + MONDAY).rem_euclid(HOURS as i64)).unwrap_or_default();
        let factor = 0.5_f64.powf(HOURS as f64 / self.half_life_h) as f32;
        let observed_h = self.observed_h;
        self.choose(observed_h);
        self.observed[at] = self.observed[at] * factor + self.hour_observed as f32;
        let mut rest = 0.0_f64;
        for row in &mut self.rows {
            match self.weeks.get_mut(&row.account) {
                Some(week) => {
                    let sum = week[at].load() * factor + row.hour;
                    week[at] = Packed::new(sum.min(SUM_MAX));
                }
                None => rest += f64::from(row.hour),
            }
            row.hour = 0.0;
        }
        self.rest[at] = (self.rest[at] * factor + rest as f32).min(SUM_MAX);
        self.hour_observed = 0.0;
        let weeks = &self.weeks;
        self.rows.retain(|row| {
            let is_old = row.cost() < FORGOTTEN_US && observed_h > 1.0;
            !is_old || weeks.contains_key(&row.account)
        });
    }

    /// Gives the heaviest accounts a week and takes it from the others.
    fn choose(&mut self, observed_h: f64) {
        // Who has one keeps it while somebody else is only a little heavier.
        let weight = |row: &Row, weeks: &HashMap<_, _>| match weeks.contains_key(&row.account) {
            true => row.cost() * STAYS,
            false => row.cost(),
        };
        let mut weights: Vec<f32> = self
            .rows
            .iter()
            .map(|row| weight(row, &self.weeks))
            .collect();
        let least = match weights.len() > WEEKS_MAX {
            true => {
                let at = weights.len() - WEEKS_MAX;
                *weights.select_nth_unstable_by(at, f32::total_cmp).1
            }
            false => 0.0,
        }
        .max(FORGOTTEN_US);
        let observed = Week::of(&self.observed);
        let mut left: Vec<AccountId> = self.weeks.keys().copied().collect();
        left.retain(|account| {
            let row = self.row(*account);
            row.is_none_or(|row| row.cost() * STAYS < least)
        });
        for account in left {
            for (rest, hour) in self
                .rest
                .iter_mut()
                .zip(self.weeks.remove(&account).iter().flat_map(|w| w.iter()))
            {
                *rest += hour.load();
            }
        }
        let rest = Week::of(&self.rest);
        let shape = Shape::new(&rest, &observed);
        for row in &self.rows {
            let is_in = row.cost() >= least && !self.weeks.contains_key(&row.account);
            if !is_in || self.weeks.len() >= WEEKS_MAX {
                continue;
            }
            // Of the time before this hour.
            let before = f64::from((row.cost() - row.hour).max(0.0));
            let week: [f32; HOURS] =
                std::array::from_fn(|hour| shape.of_sum(before, observed_h, hour) as f32);
            for (rest, hour) in self.rest.iter_mut().zip(week) {
                *rest = (*rest - hour).max(0.0);
            }
            self.weeks
                .insert(row.account, Box::new(week.map(Packed::new)));
        }
    }

    pub(super) fn row(&self, account: AccountId) -> Option<&Row> {
        let at = self.rows.binary_search_by_key(&account, |row| row.account);
        Some(&self.rows[at.ok()?])
    }

    /// What an account has cost, and its week.
    pub(crate) fn of(&self, account: AccountId) -> (Figures, Option<Week>) {
        let figures = self.row(account).map(Row::figures).unwrap_or_default();
        let week = self.weeks.get(&account).cloned().map(Week);
        (figures, week)
    }

    /// What all have cost.
    pub(crate) fn total(&self) -> Figures {
        let mut total = Figures::default();
        self.rows.iter().for_each(|row| total.add(&row.figures()));
        total
    }

    /// Hours that were counted, of all the time and of each hour of the week, and the week of those without one.
    pub(crate) fn observed(&self) -> (f64, Week, Week) {
        (
            self.observed_h,
            Week::of(&self.observed),
            Week::of(&self.rest),
        )
    }

    /// Accounts of users by cost, the heaviest first.
    pub(crate) fn heaviest(&self, count: usize) -> Vec<AccountId> {
        let mut rows: Vec<(f32, AccountId)> = self
            .rows
            .iter()
            // Nobody moves what is held for others; its cost is in the volume's total.
            .filter(|row| held_for(row.account).is_none())
            .map(|row| (row.cost(), row.account))
            .collect();
        let heavier = |one: &(f32, AccountId), other: &(f32, AccountId)| {
            other.0.total_cmp(&one.0).then(one.1.cmp(&other.1))
        };
        if count < rows.len() {
            rows.select_nth_unstable_by(count, heavier);
            rows.truncate(count);
        }
        rows.sort_unstable_by(heavier);
        rows.into_iter().map(|(_, account)| account).collect()
    }
}

fn hours(ms: i64) -> f64 {
    ms.max(0) as f64 / HOUR_MS as f64
}

fn hour_of(ms: i64) -> i64 {
    ms.div_euclid(HOUR_MS)
}

const HOUR_MS: i64 = 3_600_000;
/// The first hour of 1970 was one of a Thursday; weeks begin on Monday.
const MONDAY: i64 = 72;
/// Weeks of their own that accounts of one volume have at most: 25 MB. Of a million accounts as a provider has them these
/// cause half of the load, and of the others no single one counts.
pub(super) const WEEKS_MAX: usize = 65_536;
/// Rows at most: 128 MB. Further accounts are not counted.
pub(super) const ROWS_MAX: usize = 4_000_000;
/// Who has cost less than this, an operation after two half-lives, is forgotten.
const FORGOTTEN_US: f32 = 12.0;
/// Or two accounts of equal weight would change places each hour.
const STAYS: f32 = 1.25;
/// Far above what anybody can cause; sums of such ones are still finite.
pub(super) const SUM_MAX: f32 = 1e15;
