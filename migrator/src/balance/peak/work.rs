//! The state of a plan while it is made.

use std::collections::{BTreeMap, HashMap};

use directory_api::BackendState;

use super::super::loads::{Loads, smooth};
use super::super::plan::{Giant, Idle, Left, Move, Obstacle, Plan, Why};
use super::super::{HOURS, Hours, Snapshot};
use super::Settings;
use super::units::{Unit, by_home};

/// Why a back-end gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It is too high itself.
    WorstHour,
    /// Another one is to be filled.
    Fill,
}

/// What an account's relief is set against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// What has to be copied.
    Octets,
    /// All of its load: where receivers have room only in the hours that are too high here.
    Load,
}

pub(super) struct Work<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) settings: &'a Settings,
    /// Smoothed, and as if what is planned were done.
    pub(super) loads: Vec<Hours>,
    /// Of each back-end: its worst hour, and its load then by its weight against the average, with
    /// what is added because its accounts are unsteady.
    pub(super) worst: Vec<(usize, f64)>,
    /// Of each back-end: the sum of squares of its accounts' worst hours.
    pub(super) squares: Vec<f64>,
    /// What being unsteady adds to the average back-end.
    pub(super) unsteady_mean: f64,
    pub(super) weights: Vec<f64>,
    pub(super) free: Vec<u64>,
    active: Vec<usize>,
    /// Of each hour: the load by weight of all in the worst hour of its day; on quiet days, a share
    /// of that of the week.
    pub(super) average: Hours,
    /// The load of an average back-end in the worst hour of the week.
    pub(super) fair: f64,
    mean_weight: f64,
    /// What has not been moved yet.
    pub(super) units: Vec<Vec<Unit>>,
    pub(super) spent: Spent,
    giants: BTreeMap<u32, Giant>,
    pub(super) plan: Plan,
}

impl<'a> Work<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, settings: &'a Settings) -> Self {
        let backends = snapshot.backends();
        let loads: Vec<Hours> = Loads::of(snapshot).0.iter().map(smooth).collect();
        let weights: Vec<f64> = backends.iter().map(|b| f64::from(b.weight)).collect();
        let in_state = |state| -> Vec<usize> {
            let all = 0..backends.len();
            all.filter(|b| backends[*b].state == state).collect()
        };
        let active = in_state(BackendState::Active);
        let weight: f64 = active.iter().map(|b| weights[*b]).sum();
        // What is being drained has to be carried by the active ones; of what is down nobody can
        // take anything.
        let carried: Vec<usize> = in_state(BackendState::Draining)
            .into_iter()
            .chain(active.iter().copied())
            .collect();
        let sum = |hour: usize| carried.iter().map(|b| loads[*b][hour]).sum::<f64>();
        let worst_of_day = |day: usize| (day * 24..day * 24 + 24).map(sum).fold(0.0, f64::max);
        let worst_sums: [f64; HOURS / 24] = std::array::from_fn(worst_of_day);
        let worst_sum = highest(&worst_sums);
        let average = std::array::from_fn(|hour| {
            worst_sums[hour / 24].max(worst_sum * QUIET) / weight.max(1.0)
        });
        let mut work = Self {
            snapshot,
            settings,
            worst: Vec::new(),
            squares: Vec::new(),
            unsteady_mean: 0.0,
            free: backends.iter().map(|b| b.free).collect(),
            average,
            mean_weight: weight / active.len().max(1) as f64,
            fair: worst_sum / active.len().max(1) as f64,
            units: by_home(snapshot, settings.memory_days),
            loads,
            weights,
            active,
            spent: Spent::default(),
            giants: BTreeMap::new(),
            plan: Plan::default(),
        };
        work.squares = work
            .units
            .iter()
            .map(|units| squares(units, snapshot))
            .collect();
        let unsteady = work
            .active
            .iter()
            .map(|b| work.unsteady(*b, work.squares[*b]));
        work.unsteady_mean = unsteady.sum::<f64>() / work.active.len().max(1) as f64;
        work.worst = (0..backends.len())
            .map(|b| work.worst_of(b, &work.loads[b], work.squares[b]))
            .collect();
        work
    }

    /// What is added to a back-end's worst hour because the load of its accounts is not the same
    /// every week: much where a few heavy ones make most of it.
    pub(super) fn unsteady(&self, backend: usize, squares: f64) -> f64 {
        if self.fair > 0.0 {
            let share = squares.max(0.0).sqrt() / self.weights[backend] * self.mean_weight;
            self.settings.unsteady * share / self.fair
        } else {
            0.0
        }
    }

    /// The worst hour of a back-end with this load, and what it is against the average.
    pub(super) fn worst_of(&self, backend: usize, hours: &Hours, squares: f64) -> (usize, f64) {
        let mut worst = (0, 0.0);
        for (hour, load) in hours.iter().enumerate() {
            let share = load / self.weights[backend] / self.average[hour];
            // Not a number on a day without load.
            if share > worst.1 {
                worst = (hour, share);
            }
        }
        let unsteady = self.unsteady(backend, squares) - self.unsteady_mean;
        (worst.0, (worst.1 + unsteady).max(0.0))
    }

    pub(super) fn active(&self) -> &[usize] {
        &self.active
    }

    /// How far the worst hour of a back-end is above the average, as a share of it.
    pub(super) fn above(&self, backend: usize) -> f64 {
        if self.fair > 0.0 {
            self.worst[backend].1 - 1.0
        } else {
            0.0
        }
    }

    /// The active back-ends, the one with the highest worst hour first.
    pub(super) fn heaviest_first(&self) -> Vec<usize> {
        let mut order = self.active.clone();
        order.sort_by(|a, b| self.worst[*b].1.total_cmp(&self.worst[*a].1).then(a.cmp(b)));
        order
    }

    /// Those of `among` whose worst hour is more than `share` below the average.
    pub(super) fn below(&self, share: f64, among: &[usize]) -> Vec<usize> {
        let among = among.iter().copied();
        among
            .filter(|backend| self.above(*backend) < -share)
            .collect()
    }

    /// Empties a back-end as far as the budget and the others' disks allow.
    pub(super) fn drain(&mut self, from: usize) {
        let mut units: Vec<(f64, Unit)> = std::mem::take(&mut self.units[from])
            .into_iter()
            .map(|unit| (highest(&unit.hours(self.snapshot)), unit))
            .collect();
        units.sort_by(|a, b| {
            b.0.total_cmp(&a.0)
                .then_with(|| a.1.members().cmp(b.1.members()))
        });
        let mut obstacle = None;
        let mut failures = 0;
        for (load, unit) in units {
            let mut kept_by = None;
            if unit.pinned {
                kept_by = Some(Obstacle::NothingMovable);
            } else if failures < FAILURES_MAX {
                let hours = unit.hours(self.snapshot);
                match self.refuge(from, &unit, &hours) {
                    Ok(to) => {
                        if load > self.settings.giant * self.fair {
                            self.note_giant(&unit, &hours, true);
                        }
                        self.carry(&unit, &hours, from, to, Why::Draining);
                        failures = 0;
                    }
                    Err(in_the_way) => {
                        kept_by = Some(in_the_way);
                        failures += 1;
                    }
                }
            }
            if kept_by.is_some() || failures == FAILURES_MAX {
                obstacle = kept_by.or(obstacle);
                self.units[from].push(unit);
            }
        }
        if let Some(obstacle) = obstacle {
            let accounts = self.units[from]
                .iter()
                .map(|unit| unit.members().len())
                .sum::<usize>();
            self.plan.left.push(Left {
                backend: from as u32,
                above: self.above(from),
                accounts: accounts as u32,
                obstacle,
            });
        }
    }

    /// Moves accounts from a back-end to `receivers` until its worst hour is at most `stop` above
    /// the average.
    pub(super) fn relieve(
        &mut self,
        from: usize,
        stop: f64,
        receivers: &[usize],
        purpose: Purpose,
    ) {
        let mut obstacle = Obstacle::NothingMovable;
        let mut by = By::Octets;
        loop {
            let unsteady = self.unsteady(from, self.squares[from]) - self.unsteady_mean;
            let share = (1.0 + stop - unsteady).max(0.0);
            let limit = self.average.map(|hour| hour * share * self.weights[from]);
            let (weights, highest_excess) = excess(&self.loads[from], &limit);
            if self.above(from) <= stop + ROUNDING || highest_excess <= 0.0 {
                return;
            }
            let before = self.plan.moves.len();
            let in_the_way = self.round(from, &limit, &weights, receivers, (purpose, by));
            obstacle = in_the_way.unwrap_or(obstacle);
            if self.plan.moves.len() > before {
                continue;
            }
            if by == By::Load {
                break;
            }
            by = By::Load;
        }
        if purpose == Purpose::WorstHour {
            self.plan.left.push(Left {
                backend: from as u32,
                above: self.above(from),
                accounts: 0,
                obstacle,
            });
        }
    }

    /// Goes once through the accounts of a back-end in the order of what they relieve per octet,
    /// until half of the excess is gone: by then other hours may be the worst, and the order is
    /// another. Returns what was in the way, if anything was.
    fn round(
        &mut self,
        from: usize,
        limit: &Hours,
        weights: &[f32; HOURS],
        receivers: &[usize],
        (purpose, by): (Purpose, By),
    ) -> Option<Obstacle> {
        let mut units = std::mem::take(&mut self.units[from]);
        let mut order: Vec<(f64, usize)> = units
            .iter()
            .enumerate()
            .filter(|(_, unit)| unit.free)
            .map(|(index, unit)| {
                let relief = unit.weighted(self.snapshot, weights);
                let cost = match by {
                    By::Octets => unit.octets.saturating_add(self.settings.move_octets) as f64,
                    By::Load => unit.weighted(self.snapshot, &[1.0; HOURS]),
                };
                (relief / cost, index)
            })
            .filter(|(score, _)| *score > 0.0)
            .collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let (_, at_start) = excess(&self.loads[from], limit);
        let slack = (self.settings.start - self.settings.stop).max(0.0);
        let budget = &self.settings.budget;
        let octets_max = budget.octets.min(budget.pair_octets);
        let mut obstacle = None;
        let mut failures = 0;
        let mut moved = vec![false; units.len()];
        for (_, index) in order {
            let (_, left) = excess(&self.loads[from], limit);
            if left <= at_start / 2.0 || failures == FAILURES_MAX {
                break;
            }
            let unit = &units[index];
            let hours = unit.hours(self.snapshot);
            if highest(&hours) > self.settings.giant * self.fair || unit.octets > octets_max {
                self.note_giant(unit, &hours, false);
                continue;
            }
            // Far more than what is too much would only make a hole here.
            let (hour, _) = self.worst[from];
            if hours[hour] > (left + slack) * limit[hour] {
                continue;
            }
            match self.receiver(from, unit, &hours, receivers) {
                Ok(to) => {
                    let why = self.why(purpose, from, hours[hour]);
                    self.carry(unit, &hours, from, to, why);
                    moved[index] = true;
                    failures = 0;
                }
                Err(in_the_way) => {
                    obstacle = Some(in_the_way);
                    failures += 1;
                }
            }
        }
        let mut moved = moved.into_iter();
        units.retain(|_| !moved.next().unwrap_or(false));
        self.units[from] = units;
        obstacle
    }

    fn why(&self, purpose: Purpose, from: usize, load: f64) -> Why {
        let hour = self.worst[from].0 as u16;
        match purpose {
            Purpose::WorstHour => Why::WorstHour {
                hour,
                above: self.above(from),
                relief: load / self.weights[from] / self.average[hour as usize],
            },
            Purpose::Fill => Why::Fill {
                hour,
                share: load / self.fair,
            },
        }
    }

    /// Whom an account may be given without bringing the receiver above the average: the one whose
    /// worst hour stays lowest.
    fn receiver(
        &self,
        from: usize,
        unit: &Unit,
        hours: &Hours,
        among: &[usize],
    ) -> Result<usize, Obstacle> {
        let mut best: Option<(f64, usize)> = None;
        let mut obstacle = Obstacle::NoReceiver;
        for to in among.iter().copied().filter(|to| *to != from) {
            if best.is_some_and(|(worst, _)| self.worst[to].1 >= worst) {
                continue;
            }
            let worst = self.worst_with(to, hours);
            if worst > 1.0 + self.settings.stop {
                obstacle = obstacle.or(Obstacle::Average);
            } else if let Err(in_the_way) = self.fits(unit, from, to) {
                obstacle = obstacle.or(in_the_way);
            } else if best.is_none_or(|(other, _)| worst < other) {
                best = Some((worst, to));
            }
        }
        best.map(|(_, to)| to).ok_or(obstacle)
    }

    /// Where an account from a draining back-end goes: to the rest of its group, or to whose worst
    /// hour stays lowest.
    fn refuge(&self, from: usize, unit: &Unit, hours: &Hours) -> Result<usize, Obstacle> {
        if let Some(to) = unit.other_part.map(|to| to as usize)
            && self.active.contains(&to)
        {
            return self.fits(unit, from, to).map(|()| to);
        }
        let mut best: Option<(f64, usize)> = None;
        let mut obstacle = Obstacle::NoReceiver;
        for to in self.active.iter().copied() {
            if best.is_some_and(|(worst, _)| self.worst[to].1 >= worst) {
                continue;
            }
            match self.fits(unit, from, to) {
                Ok(()) => {
                    let worst = self.worst_with(to, hours);
                    if best.is_none_or(|(other, _)| worst < other) {
                        best = Some((worst, to));
                    }
                }
                Err(in_the_way) => obstacle = obstacle.or(in_the_way),
            }
        }
        best.map(|(_, to)| to).ok_or(obstacle)
    }

    /// Whether disk and budget allow it.
    fn fits(&self, unit: &Unit, from: usize, to: usize) -> Result<(), Obstacle> {
        if self.free[to] < unit.octets {
            return Err(Obstacle::Disk);
        }
        let budget = &self.settings.budget;
        if !self
            .spent
            .allows(budget, (from, to), unit.octets, unit.members().len())
        {
            return Err(Obstacle::Budget);
        }
        Ok(())
    }

    fn worst_with(&self, to: usize, hours: &Hours) -> f64 {
        let sum = std::array::from_fn(|hour| self.loads[to][hour] + hours[hour]);
        let square = highest(hours).powi(2);
        self.worst_of(to, &sum, self.squares[to] + square).1
    }

    pub(super) fn carry(&mut self, unit: &Unit, hours: &Hours, from: usize, to: usize, why: Why) {
        for (hour, load) in hours.iter().enumerate() {
            self.loads[from][hour] -= load;
            self.loads[to][hour] += load;
        }
        self.squares[from] -= highest(hours).powi(2);
        self.squares[to] += highest(hours).powi(2);
        for backend in [from, to] {
            self.worst[backend] =
                self.worst_of(backend, &self.loads[backend], self.squares[backend]);
        }
        // The room at the giver stays taken: what has moved is kept there for a time of grace.
        self.free[to] -= unit.octets;
        self.spent
            .add((from, to), unit.octets, unit.members().len());
        self.plan
            .moves
            .extend(unit.members().iter().map(|account| Move {
                account: *account,
                from: from as u32,
                to: to as u32,
                why,
            }));
    }

    fn note_giant(&mut self, unit: &Unit, hours: &Hours, moved: bool) {
        let account = unit.members()[0];
        let share = if self.fair > 0.0 {
            highest(hours) / self.fair
        } else {
            0.0
        };
        let giant = Giant {
            account,
            share,
            moved,
        };
        self.giants.insert(account, giant);
    }

    pub(super) fn into_plan(self) -> Plan {
        let mut plan = self.plan;
        plan.giants = self.giants.into_values().collect();
        plan.giants
            .sort_by(|a, b| b.share.total_cmp(&a.share).then(a.account.cmp(&b.account)));
        if plan.moves.is_empty() {
            plan.idle = Some(if !plan.left.is_empty() {
                Idle::Nothing
            } else if self.fair <= 0.0 {
                Idle::NoLoad
            } else if self.active.len() < 2 {
                Idle::NoReceiver
            } else {
                Idle::Balanced
            });
        }
        plan
    }
}

/// What the plan has used of its budget.
#[derive(Clone, Default)]
pub(super) struct Spent {
    octets: u64,
    moves: usize,
    pairs: HashMap<(usize, usize), (u64, usize)>,
}

impl Spent {
    pub(super) fn allows(
        &self,
        budget: &super::Budget,
        pair: (usize, usize),
        octets: u64,
        moves: usize,
    ) -> bool {
        let (pair_octets, pair_moves) = self.pairs.get(&pair).copied().unwrap_or_default();
        // The sums are of octets that the snapshot could count in 64 bits.
        self.octets + octets <= budget.octets
            && pair_octets + octets <= budget.pair_octets
            && self.moves + moves <= budget.moves as usize
            && pair_moves + moves <= budget.pair_moves as usize
    }

    pub(super) fn add(&mut self, pair: (usize, usize), octets: u64, moves: usize) {
        self.octets += octets;
        self.moves += moves;
        let used = self.pairs.entry(pair).or_default();
        used.0 += octets;
        used.1 += moves;
    }
}

impl Obstacle {
    /// The one that says more: what could be changed goes before what could not.
    fn or(self, other: Self) -> Self {
        let rank = |obstacle| match obstacle {
            Self::NoReceiver => 0,
            Self::NothingMovable => 1,
            Self::Average => 2,
            Self::Disk => 3,
            Self::Budget => 4,
        };
        if rank(other) > rank(self) {
            other
        } else {
            self
        }
    }
}

/// What each hour is above its limit, as weights for accounts' loads; and the most of them, as a
/// share of the limit.
pub(super) fn excess(hours: &Hours, limit: &Hours) -> ([f32; HOURS], f64) {
    let above: Hours = std::array::from_fn(|hour| {
        let above = hours[hour] / limit[hour] - 1.0;
        // No limit, no load: on a day without any.
        if above > 0.0 && limit[hour] > 0.0 {
            above
        } else {
            0.0
        }
    });
    let most = highest(&above);
    if most <= 0.0 {
        return ([0.0; HOURS], 0.0);
    }
    // Each by what it is of its limit. An account's load is smoothed where it is added; the same
    // comes of smoothing the weights.
    let weights =
        std::array::from_fn(|hour| above[hour] / most / limit[hour].max(f64::MIN_POSITIVE));
    (smooth(&weights).map(|hour| hour as f32), most)
}

pub(super) fn highest(hours: &[f64]) -> f64 {
    hours.iter().copied().fold(0.0, f64::max)
}

fn squares(units: &[Unit], snapshot: &Snapshot) -> f64 {
    let worst = units.iter().map(|unit| highest(&unit.hours(snapshot)));
    worst.map(|load| load * load).sum()
}

/// After so many accounts in a row that nobody can take, the rest is not tried: it keeps a plan
/// within seconds where nothing is possible.
const FAILURES_MAX: usize = 5_000;

/// On a day whose worst hour is a smaller share of the week's than this, nobody has too much.
const QUIET: f64 = 0.5;

/// A share of the limit that is only the rounding of sums.
pub(super) const ROUNDING: f64 = 1e-9;
