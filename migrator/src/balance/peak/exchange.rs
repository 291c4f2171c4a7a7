//! Exchanges accounts between a back-end that is too high and one that has no room in hours of its own.
//!
//! With many home users on one back-end and many office users on another, one is too high on Sundays and the other at its limit
//! on weekdays: nobody may take anything, and both come down when they exchange. It is tried on copies of their loads, one
//! account after the other: one is given as long as the receiver is within its limit, and one is taken for it when it is not. Only what
//! ends with both better off is planned.

use super::super::plan::Why;
use super::super::{HOURS, Hours};
use super::units::Unit;
use super::work::{ROUNDING, Work, excess, highest};

/// A side of an exchange while it is tried.
struct Side {
    backend: usize,
    hours: Hours,
    squares: f64,
    /// Its share of the average in its worst hour.
    worst: f64,
}

/// What would be carried.
struct Step {
    /// From the one that is too high.
    is_given: bool,
    /// Index into the units of whoever has it.
    unit: usize,
    hours: Hours,
}

impl Work<'_> {
    /// Gives accounts to whoever has room in the hours that are too high here, and takes others for them that are light in these
    /// and heavy where the receiver has none. Until the worst hour is at most `stop` above the average, or nobody is left to
    /// exchange with.
    pub(super) fn exchange(&mut self, from: usize, stop: f64, receivers: &[usize]) {
        let mut order: Vec<usize> = receivers.iter().copied().filter(|to| *to != from).collect();
        order.sort_by(|a, b| self.above(*a).total_cmp(&self.above(*b)).then(a.cmp(b)));
        for to in order.into_iter().take(PARTNERS_MAX) {
            if self.above(from) <= stop {
                break;
            }
            self.exchange_with(from, to, stop);
        }
        let above = self.above(from);
        self.plan
            .left
            .retain(|left| left.backend != from as u32 || above > stop + ROUNDING);
        let mut left = self.plan.left.iter_mut();
        if let Some(left) = left.find(|left| left.backend == from as u32) {
            left.above = above;
        }
    }

    fn exchange_with(&mut self, from: usize, to: usize, stop: f64) {
        let (limit_from, limit_to) = (self.limit(from, stop), self.limit(to, stop));
        let (hot, _) = excess(&self.loads[from], &limit_from);
        // Where it is so near to its limit that it can take nothing to speak of.
        let near = limit_to.map(|hour| hour * (1.0 - NEAR));
        let (tight, _) = excess(&self.loads[to], &near);
        let given = self.candidates(from, &hot, &tight);
        let taken = self.candidates(to, &tight, &hot);
        let mut giver = self.side(from);
        let mut taker = self.side(to);
        let before = giver.worst;
        let ceiling = (1.0 + stop).max(taker.worst);
        let (mut given, mut taken) = (given.into_iter(), taken.into_iter());
        let mut free = [self.free[from], self.free[to]];
        let mut spent = self.spent.clone();
        let mut steps: Vec<Step> = Vec::new();
        // How many steps to keep: those after which the taker is within its limit, with the lowest giver.
        let mut best = (before - GAIN_MIN, 0);
        while giver.worst > 1.0 + stop && steps.len() < STEPS_MAX {
            let is_given = taker.worst <= ceiling;
            let next = match is_given {
                true => given.next(),
                false => taken.next(),
            };
            let Some(unit) = next else { break };
            let home = if is_given { from } else { to };
            let one: &Unit = &self.units[home][unit];
            let hours = one.hours(self.snapshot);
            let other = if is_given { to } else { from };
            // A heavy one leaves the receiver too far above its limit for others to make up for it.
            let (octets, count) = (one.octets, one.members().len());
            if highest(&hours) > self.settings.giant * self.fair / HEAVY
                || free[usize::from(is_given)] < octets
                || !spent.allows(&self.settings.budget, (home, other), octets, count)
            {
                continue;
            }
            // What is tried takes room and budget too: all of it is done, or nothing.
            free[usize::from(is_given)] -= octets;
            spent.add((home, other), octets, count);
            self.shift(&mut giver, &hours, if is_given { -1.0 } else { 1.0 });
            self.shift(&mut taker, &hours, if is_given { 1.0 } else { -1.0 });
            steps.push(Step {
                is_given,
                unit,
                hours,
            });
            if taker.worst <= ceiling && giver.worst < best.0 {
                best = (giver.worst, steps.len());
            }
        }
        steps.truncate(best.1);
        self.perform(from, to, steps);
    }

    fn perform(&mut self, from: usize, to: usize, steps: Vec<Step>) {
        let mut gone = [
            vec![false; self.units[from].len()],
            vec![false; self.units[to].len()],
        ];
        for step in steps {
            let (home, other) = if step.is_given {
                (from, to)
            } else {
                (to, from)
            };
            let hour = self.worst[from].0;
            let why = match step.is_given {
                true => Why::WorstHour {
                    hour: hour as u16,
                    above: self.above(from),
                    relief: step.hours[hour] / self.weights[from] / self.average[hour],
                },
                false => Why::Exchange {
                    hour: hour as u16,
                    share: step.hours[hour] / self.fair,
                },
            };
            let units = std::mem::take(&mut self.units[home]);
            let unit = &units[step.unit];
            self.carry(unit, &step.hours, home, other, why);
            gone[usize::from(!step.is_given)][step.unit] = true;
            self.units[home] = units;
        }
        for (home, gone) in [from, to].into_iter().zip(gone) {
            let mut gone = gone.into_iter();
            self.units[home].retain(|_| !gone.next().unwrap_or(false));
        }
    }

    fn limit(&self, backend: usize, stop: f64) -> Hours {
        let unsteady = self.unsteady(backend, self.squares[backend]) - self.unsteady_mean;
        let share = (1.0 + stop - unsteady).max(0.0);
        self.average
            .map(|hour| hour * share * self.weights[backend])
    }

    fn side(&self, backend: usize) -> Side {
        Side {
            backend,
            hours: self.loads[backend],
            squares: self.squares[backend],
            worst: self.worst[backend].1,
        }
    }

    fn shift(&self, side: &mut Side, hours: &Hours, times: f64) {
        for (sum, hour) in side.hours.iter_mut().zip(hours) {
            *sum += hour * times;
        }
        side.squares += highest(hours).powi(2) * times;
        side.worst = self.worst_of(side.backend, &side.hours, side.squares).1;
    }

    /// Units that are heavy in `here` and light in `there`, the best for their octets first.
    fn candidates(&self, home: usize, here: &[f32; HOURS], there: &[f32; HOURS]) -> Vec<usize> {
        let total = |weights: &[f32; HOURS]| weights.iter().sum::<f32>().max(f32::MIN_POSITIVE);
        let (a, b) = (total(here), total(there));
        let weights: [f32; HOURS] = std::array::from_fn(|hour| here[hour] / a - there[hour] / b);
        let mut order: Vec<(f64, usize)> = self.units[home]
            .iter()
            .enumerate()
            .filter(|(_, unit)| unit.free)
            .map(|(index, unit)| {
                let gain = unit.weighted(self.snapshot, &weights);
                let cost = unit.octets.saturating_add(self.settings.move_octets) as f64;
                (gain / cost, index)
            })
            .filter(|(gain, _)| *gain > 0.0)
            .collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        order.truncate(STEPS_MAX);
        order.into_iter().map(|(_, index)| index).collect()
    }
}

/// Back-ends that are tried, the lowest first.
const PARTNERS_MAX: usize = 16;
/// Accounts of one exchange.
const STEPS_MAX: usize = 400;
/// A receiver has no room in hours that are nearer than this to its limit.
const NEAR: f64 = 0.04;
/// What the giver must come down at least.
const GAIN_MIN: f64 = 0.005;
/// Accounts of more than this part of a giant are not exchanged.
const HEAVY: f64 = 4.0;
