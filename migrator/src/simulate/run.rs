//! One simulation, day by day.

use std::collections::HashSet;

use directory_api::{AccountId, BackendName, BackendState};

use super::report::{Day, Report};
use super::workload::{MEMBERS_MAX, Population};
use super::{Scenario, Settings, Size};
use crate::balance::{Account, Backend, HOURS, Plan, Random, Snapshot, Unusable, plan};
use crate::inventory::Inventory;

/// Runs a simulation. The same size and settings give the same report.
///
/// # Errors
/// [`Unusable`]: there are more back-ends than a plan is made for, or none.
pub fn run(size: Size, settings: &Settings) -> Result<Report, Unusable> {
    let backends: Vec<Backend> = (0..size.backends)
        .map(|number| backend(number, 1))
        .collect();
    // What is asked for is checked before anything is done.
    Snapshot::new(0, backends.clone())?;
    let mut random = Random::new(settings.seed);
    let population = Population::synthetic(size.accounts, size.backends, &mut random);
    Provider::new(backends, population, random).run(settings)
}

/// The same with accounts, back-ends and loads as they were recorded; what changes from day to day is simulated.
///
/// # Errors
/// [`Unusable`]: no plan can be made for them, or there are more than are simulated.
pub fn run_recorded(inventory: &Inventory, settings: &Settings) -> Result<Report, Unusable> {
    let snapshot = inventory.snapshot(&HashSet::new())?;
    if snapshot.accounts().len() as u64 > MEMBERS_MAX {
        return Err(Unusable::Accounts);
    }
    let mut random = Random::new(settings.seed);
    let population = Population::recorded(&snapshot, &mut random);
    Provider::new(snapshot.backends().to_vec(), population, random).run(settings)
}

impl Provider {
    fn run(mut self, settings: &Settings) -> Result<Report, Unusable> {
        let provider = &mut self;
        for day in -MEASURED_FIRST..i64::from(settings.days) {
            provider.events(day, settings);
            let hours = provider.pass(day, settings);
            if day < 0 {
                continue;
            }
            let plan = match &settings.policy {
                Some(policy) => {
                    let snapshot = provider.snapshot(day)?;
                    // Each night has its own draw.
                    let seed = settings.seed.wrapping_add(day as u64 + 1);
                    plan(&snapshot, policy, seed)
                }
                None => Plan::default(),
            };
            provider.record(day, &hours, &plan);
        }
        Ok(self.report(settings))
    }
}

/// A week, so that every hour of it has been measured once before anything is planned.
const MEASURED_FIRST: i64 = 7;

struct Provider {
    random: Random,
    population: Population,
    backends: Vec<Backend>,
    /// Octets that each back-end has room for.
    capacity: Vec<f64>,
    /// Of each member, by hour of the week, as the back-ends measure it.
    measured: Vec<f32>,
    days: Vec<Day>,
    new_backend: Option<usize>,
}

impl Provider {
    fn new(backends: Vec<Backend>, population: Population, random: Random) -> Self {
        let mut provider = Self {
            measured: vec![0.0; population.members.len() * HOURS],
            random,
            population,
            capacity: Vec::new(),
            backends,
            days: Vec::new(),
            new_backend: None,
        };
        let used = provider.used();
        let fair = used.iter().sum::<f64>() / used.len() as f64;
        let capacity = used.iter().map(|used| used.max(fair) * DISK_TIMES);
        provider.capacity = capacity.collect();
        provider
    }

    fn events(&mut self, day: i64, settings: &Settings) {
        let days = i64::from(settings.days);
        if day == days / 2 {
            let weights = self.backends.iter().map(|backend| backend.weight);
            let weight = weights.max().unwrap_or(1);
            let largest = self.capacity.iter().copied().fold(0.0, f64::max);
            self.new_backend = Some(self.backends.len());
            // Those that were recorded may be called anything.
            let is_taken = |one: &Backend| self.backends.iter().any(|two| two.name == one.name);
            let mut names = (self.backends.len()..).map(|number| backend(number, weight));
            let joins = names.find(|one| !is_taken(one));
            self.backends.extend(joins);
            self.capacity.push(largest);
        }
        if settings.scenario == Scenario::NodeLoss && day == days * 3 / 4 {
            self.backends[0].state = BackendState::Down;
        }
        let active = self.active();
        if !active.is_empty() {
            for member in &mut self.population.members {
                if self.backends[member.home as usize].state == BackendState::Down {
                    member.home = active[self.random.below(active.len())];
                    member.moved = None;
                }
            }
            self.population
                .next_day(day, settings.scenario, &active, &mut self.random);
        }
    }

    fn active(&self) -> Vec<u32> {
        let all = 0..self.backends.len();
        all.filter(|b| self.backends[*b].state == BackendState::Active)
            .map(|b| b as u32)
            .collect()
    }

    /// Lets a day pass. Returns the load of each back-end in each of its hours.
    fn pass(&mut self, day: i64, settings: &Settings) -> Vec<[f64; 24]> {
        let weekday = day.rem_euclid(7) as usize;
        let mut loads = vec![[0.0; 24]; self.backends.len()];
        let newest = 1.0 - 0.5_f64.powf(7.0 / settings.half_life_days);
        for index in 0..self.population.members.len() {
            let mut hours = self.population.load(index, weekday, &mut self.random);
            let member = &mut self.population.members[index];
            apply(settings.scenario, weekday, member, &mut hours);
            let sums = &mut loads[member.home as usize];
            for (sum, hour) in sums.iter_mut().zip(hours) {
                *sum += f64::from(hour);
            }
            if member.weeks == 0 {
                // It is new: what was measured was another's.
                self.measured[index * HOURS..][..HOURS].fill(0.0);
                member.weeks = 1;
            } else if weekday == 0 {
                member.weeks = member.weeks.saturating_add(1);
            }
            // The mean while there are few weeks, decayed from then on.
            let weeks = f64::from(member.weeks);
            let share = newest.max(1.0 / weeks) as f32;
            let measured = &mut self.measured[index * HOURS + weekday * 24..][..24];
            for (measured, hour) in measured.iter_mut().zip(hours) {
                *measured += (hour - *measured) * share;
            }
        }
        loads
    }

    /// What the planner is told in the night after a day.
    fn snapshot(&self, day: i64) -> Result<Snapshot, Unusable> {
        let used = self.used();
        let mut backends = self.backends.clone();
        for ((backend, used), capacity) in backends.iter_mut().zip(&used).zip(&self.capacity) {
            backend.free = (capacity - used).max(0.0) as u64;
        }
        let mut snapshot = Snapshot::new((day + 1) * DAY_MS, backends)?;
        for (index, member) in self.population.members.iter().enumerate() {
            let account = Account {
                id: AccountId(member.id),
                home: member.home,
                octets: member.octets as u64,
                pinned: false,
                group: None,
                moved_ms: member.moved.map(|(day, _)| (day + 1) * DAY_MS),
            };
            let hours = &self.measured[index * HOURS..][..HOURS];
            let hours = hours.try_into().unwrap_or(&[0.0; HOURS]);
            snapshot.push(account, hours)?;
        }
        Ok(snapshot)
    }

    fn used(&self) -> Vec<f64> {
        let mut used = vec![0.0; self.backends.len()];
        for member in &self.population.members {
            used[member.home as usize] += member.octets;
        }
        used
    }

    /// Notes what a day was like, and does what was planned after it.
    fn record(&mut self, day: i64, hours: &[[f64; 24]], plan: &Plan) {
        let stored = self.used().iter().sum();
        let worst = self.worst_hour(hours);
        let above = self.above(hours, worst);
        let any_hour = self.any_hour(hours);
        let mut record = Day {
            new_backend: self.new_backend.and_then(|new| above[new]),
            any_hour,
            above,
            stored,
            ..Day::default()
        };
        let cohort = u64::from(self.population.cohort);
        for step in &plan.moves {
            let member = &mut self.population.members[step.account as usize];
            record.moves += cohort;
            record.moved += member.octets;
            if let Some((moved, from)) = member.moved {
                if day - moved < REMOVED_DAYS {
                    record.removed += cohort;
                }
                if day - moved < RETURNED_DAYS && from == step.to {
                    record.returned += cohort;
                }
            }
            member.home = step.to;
            member.moved = Some((day, step.from));
        }
        self.days.push(record);
    }

    /// The hour of the day in which all together have most to carry.
    fn worst_hour(&self, hours: &[[f64; 24]]) -> usize {
        let mean = |hour: usize| self.mean(hours, hour);
        let worst = (0..24).max_by(|a, b| mean(*a).total_cmp(&mean(*b)));
        worst.unwrap_or(0)
    }

    /// Of each back-end: its load by weight in an hour, against the mean of all; none of one that
    /// is down.
    fn above(&self, hours: &[[f64; 24]], hour: usize) -> Vec<Option<f64>> {
        let mean = self.mean(hours, hour);
        let one = |(backend, hours): (&Backend, &[f64; 24])| {
            let load = hours[hour] / f64::from(backend.weight);
            (backend.state != BackendState::Down && mean > 0.0).then_some(load / mean)
        };
        self.backends.iter().zip(hours).map(one).collect()
    }

    /// The most that any back-end has in any hour of the day, against the mean in that hour.
    fn any_hour(&self, hours: &[[f64; 24]]) -> f64 {
        let of_hour = |hour| {
            let above = self.above(hours, hour).into_iter().flatten();
            let above = above.fold(0.0, f64::max);
            (above * self.mean(hours, hour), above)
        };
        let most = (0..24).map(of_hour).max_by(|a, b| a.0.total_cmp(&b.0));
        most.map_or(1.0, |(_, above)| above)
    }

    fn mean(&self, hours: &[[f64; 24]], hour: usize) -> f64 {
        let up = self.backends.iter().zip(hours);
        let up = up.filter(|(backend, _)| backend.state != BackendState::Down);
        let (load, weight) = up.fold((0.0, 0.0), |(load, weight), (backend, hours)| {
            (load + hours[hour], weight + f64::from(backend.weight))
        });
        load / f64::max(weight, 1.0)
    }

    fn report(self, settings: &Settings) -> Report {
        let accounts = self.population.members.len() as u64 * u64::from(self.population.cohort);
        let backends = self.backends.len() - usize::from(self.new_backend.is_some());
        Report::new(settings, accounts, backends, self.days)
    }
}

/// What a scenario makes of a member's day.
fn apply(
    scenario: Scenario,
    weekday: usize,
    member: &super::workload::Member,
    hours: &mut [f32; 24],
) {
    let (days, share, times, during): (&[usize], f64, f32, std::ops::Range<usize>) = match scenario
    {
        Scenario::FlashCrowd => (&[3], 0.05, 5.0, 12..20),
        Scenario::ListStorm => (&[1, 4], 0.02, 20.0, 10..13),
        Scenario::Standard | Scenario::NodeLoss | Scenario::GrowingDomain => return,
    };
    if days.contains(&weekday) && Population::is_picked(member, share) {
        for hour in &mut hours[during] {
            *hour *= times;
        }
    }
}

fn backend(number: usize, weight: u32) -> Backend {
    Backend {
        name: BackendName::new(format!("store{}", number + 1)).expect("letters and digits"),
        state: BackendState::Active,
        weight,
        free: 0,
    }
}

/// Room on each disk, against what it holds at the beginning or the mean, whichever is more.
const DISK_TIMES: f64 = 2.0;

const DAY_MS: i64 = 86_400_000;

/// A move within so many days of the one before counts as moved again.
const REMOVED_DAYS: i64 = 14;

/// A move back to where an account came from within so many days counts as oscillation.
const RETURNED_DAYS: i64 = 28;
