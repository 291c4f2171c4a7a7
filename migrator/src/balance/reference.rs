//! The published rules, as a measure for [`super::peak`].
//!
//! A metric per server over a reasonable time; nothing happens unless a server deviates
//! significantly from the average. Then, from the most loaded server on, its users are ordered by
//! a draw that is weighted with their decayed cost; a migration is remembered for some days and
//! discounts the cost of its account by the time since. An account goes to the least loaded server,
//! and only if that does not come above the average. So with the next most loaded, until nobody
//! deviates any more or nothing is possible.
//!
//! Where the rules leave a choice: the metric is the mean over the hours of the (already decayed)
//! week, against the back-end's weight; a server gives until it is at the average. Pins and room on
//! disk are respected; hours, octets, budgets and groups are what these rules do not know.

use directory_api::BackendState;

use super::plan::{Idle, Left, Move, Obstacle, Plan, Why};
use super::{HOURS, Random, Snapshot};

/// What the rules leave open.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// A server deviates significantly when it is this share above or below the average.
    pub significant: f64,
    /// For how many days a migration is remembered.
    pub memory_days: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // The same as where `peak` starts, so that the two can be compared.
            significant: 0.08,
            memory_days: 14.0,
        }
    }
}

/// Plans by the published rules.
#[must_use]
pub fn plan(snapshot: &Snapshot, settings: &Settings, seed: u64) -> Plan {
    if snapshot.accounts().is_empty() {
        return Plan::idle(Idle::NoAccounts);
    }
    let costs = costs(snapshot);
    let mut servers = Servers::new(snapshot, &costs);
    if servers.average <= 0.0 {
        return Plan::idle(Idle::NoLoad);
    }
    if servers.active.len() < 2 {
        return Plan::idle(Idle::NoReceiver);
    }
    let mut order = servers.active.clone();
    order.sort_by(|a, b| {
        servers
            .metric(*b)
            .total_cmp(&servers.metric(*a))
            .then(a.cmp(b))
    });
    let mut random = Random::new(seed);
    let mut plan = Plan::default();
    for from in order {
        if !servers.any_deviates(settings.significant) || servers.metric(from) <= servers.average {
            break;
        }
        let users = draw(snapshot, &costs, from, settings, &mut random);
        let mut obstacle = Obstacle::NothingMovable;
        for account in users {
            if servers.metric(from) <= servers.average {
                break;
            }
            let cost = costs[account];
            match servers.receiver(from, cost, snapshot.accounts()[account].octets) {
                Ok(to) => {
                    servers.carry(from, to, cost, snapshot.accounts()[account].octets);
                    plan.moves.push(Move {
                        account: account as u32,
                        from: from as u32,
                        to: to as u32,
                        why: Why::Drawn {
                            share: cost / servers.average,
                        },
                    });
                }
                Err(in_the_way) => obstacle = in_the_way,
            }
        }
        let above = servers.metric(from) / servers.average - 1.0;
        if above > settings.significant {
            plan.left.push(Left {
                backend: from as u32,
                above,
                accounts: 0,
                obstacle,
            });
        }
    }
    if plan.moves.is_empty() {
        plan.idle = Some(if plan.left.is_empty() {
            Idle::Balanced
        } else {
            Idle::Nothing
        });
    }
    plan
}

/// The mean load of each account over the week.
fn costs(snapshot: &Snapshot) -> Vec<f64> {
    (0..snapshot.accounts().len())
        .map(|account| snapshot.hours(account).iter().sum::<f64>() / HOURS as f64)
        .collect()
}

/// The users of a server that have a cost and may move, in the order in which they are drawn:
/// without replacement, each time with a probability in proportion to the weight. The smallest of
/// exponential times with those rates has that distribution (Efraimidis and Spirakis).
fn draw(
    snapshot: &Snapshot,
    costs: &[f64],
    server: usize,
    settings: &Settings,
    random: &mut Random,
) -> Vec<usize> {
    let mut drawn = Vec::new();
    for (index, account) in snapshot.accounts().iter().enumerate() {
        if account.home as usize != server || account.pinned {
            continue;
        }
        let weight = costs[index] * discount(snapshot.days_since_move(account), settings);
        if weight > 0.0 {
            drawn.push((-random.share().ln() / weight, index));
        }
    }
    drawn.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    drawn.into_iter().map(|(_, index)| index).collect()
}

/// What is left of a cost this long after a move: nothing at once, all when it is forgotten.
fn discount(days_since_move: Option<f64>, settings: &Settings) -> f64 {
    match days_since_move {
        Some(days) if days < settings.memory_days => days / settings.memory_days,
        _ => 1.0,
    }
}

/// Metric and room of each server while moves are chosen.
struct Servers {
    costs: Vec<f64>,
    weights: Vec<f64>,
    free: Vec<u64>,
    active: Vec<usize>,
    average: f64,
}

impl Servers {
    fn new(snapshot: &Snapshot, costs: &[f64]) -> Self {
        let backends = snapshot.backends();
        let mut sums = vec![0.0; backends.len()];
        for (account, cost) in snapshot.accounts().iter().zip(costs) {
            sums[account.home as usize] += cost;
        }
        let weights: Vec<f64> = backends.iter().map(|b| f64::from(b.weight)).collect();
        let active: Vec<usize> = (0..backends.len())
            .filter(|b| backends[*b].state == BackendState::Active)
            .collect();
        let cost: f64 = active.iter().map(|b| sums[*b]).sum();
        let weight: f64 = active.iter().map(|b| weights[*b]).sum();
        Self {
            costs: sums,
            weights,
            free: backends.iter().map(|b| b.free).collect(),
            active,
            average: if weight > 0.0 { cost / weight } else { 0.0 },
        }
    }

    fn metric(&self, server: usize) -> f64 {
        self.costs[server] / self.weights[server]
    }

    fn any_deviates(&self, significant: f64) -> bool {
        self.active
            .iter()
            .any(|server| (self.metric(*server) / self.average - 1.0).abs() > significant)
    }

    /// The least loaded, if it stays at the average or below and has room.
    fn receiver(&self, from: usize, cost: f64, octets: u64) -> Result<usize, Obstacle> {
        let others = self.active.iter().copied().filter(|server| *server != from);
        let to = others
            .min_by(|a, b| self.metric(*a).total_cmp(&self.metric(*b)))
            .ok_or(Obstacle::NoReceiver)?;
        if self.metric(to) + cost / self.weights[to] > self.average {
            return Err(Obstacle::Average);
        }
        if self.free[to] < octets {
            return Err(Obstacle::Disk);
        }
        Ok(to)
    }

    /// The room at the giver stays taken: what has moved is kept there for a time of grace.
    fn carry(&mut self, from: usize, to: usize, cost: f64, octets: u64) {
        self.costs[from] -= cost;
        self.costs[to] += cost;
        self.free[to] -= octets;
    }
}

#[cfg(test)]
mod tests;
