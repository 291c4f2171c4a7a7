//! The accounts of a simulation, and what each of them does in an hour.

use super::Scenario;
use super::noise::Noise;
use super::shapes::{self, Kind, Shape};
use super::sizes::{correlated, octets_at};
use crate::balance::{HOURS, Hours, Random, Snapshot};

/// Every number of the workload that is not in the profile, and where it comes from. None of them
/// is a setting: a policy is not to be helped by a tame workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    /// Deviation of the logarithm of an account's load. With 1.4 the busiest tenth makes 54 % of
    /// the load, the busiest hundredth 18 %.
    pub activity_sigma: f64,
    /// Correlation of that with the logarithm of its octets: who gets much keeps much.
    pub activity_correlation: f64,
    /// Share of accounts that programs use; they make 30 times the mean load or more (Pareto with
    /// exponent 1.5, to 2,000 times), at all hours alike.
    pub machines: f64,
    /// What an account does comes in events: logins and messages. Those of the mean account in the
    /// mean hour: the profile has 100 logins/s for 225,000 mailboxes in the peak hour, which is 2.6
    /// times the mean one, and 2 messages a day.
    pub events: f64,
    /// Squared coefficient of variation of what an event costs: the profile's messages have a long
    /// tail.
    pub event_variation: f64,
    /// Beside the number of its events, the deviation of the logarithm of an account's load from
    /// hour to hour.
    pub hour_sigma: f64,
    /// The same from day to day.
    pub day_sigma: f64,
    /// On a day, the share of users who are away; a tenth of the load remains.
    pub away: f64,
    /// What a day adds to the logarithm of an account's load for good: a random walk.
    pub drift_sigma: f64,
    /// The same for all accounts of a domain.
    pub domain_drift_sigma: f64,
    /// Share of accounts that are used quite differently from a day on: another person, program
    /// or filter.
    pub jumps: f64,
    /// Share of accounts that are closed in a day; as many are opened, on any back-end.
    pub churn: f64,
    /// What a mailbox grows by in a day.
    pub growth: f64,
    /// Share of accounts in the provider's own domain, which are spread over all back-ends. Those
    /// of any other domain begin together on one: so they were imported.
    pub own_domain: f64,
    /// Accounts of one of the other domains, in the mean (225,000 mailboxes in 6,800 domains).
    pub domain_mean: f64,
    /// Sizes of domains fall as their rank to this power.
    pub domain_exponent: f64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            activity_sigma: 1.4,
            activity_correlation: 0.6,
            machines: 0.0005,
            events: 0.7,
            event_variation: 4.0,
            hour_sigma: 0.4,
            day_sigma: 0.3,
            away: 0.03,
            drift_sigma: 0.03,
            domain_drift_sigma: 0.01,
            jumps: 0.0005,
            churn: 0.0007,
            growth: 0.0008,
            own_domain: 0.4,
            domain_mean: 33.0,
            domain_exponent: 0.8,
        }
    }
}

/// One account, or a cohort of like ones that live together.
#[derive(Clone, Debug)]
pub struct Member {
    /// Never given twice.
    pub id: u64,
    /// Back-end.
    pub home: u32,
    /// Octets stored.
    pub octets: f64,
    /// Mean load in an hour.
    pub activity: f64,
    /// Index of its shape.
    pub shape: u32,
    /// Index of its domain.
    pub domain: u32,
    /// Weeks in which it was measured, to 255.
    pub weeks: u8,
    /// The day it moved last, and from where.
    pub moved: Option<(i64, u32)>,
}

/// All accounts.
pub struct Population {
    /// They.
    pub members: Vec<Member>,
    /// Accounts that each of them stands for.
    pub cohort: u32,
    parameters: Parameters,
    shapes: Vec<Shape>,
    /// Of each domain: its load against the beginning, and the sum of sizes up to it.
    domains: Vec<Domain>,
    noise: Noise,
    next_id: u64,
}

struct Domain {
    factor: f64,
    office: bool,
    /// Share of accounts in this domain and those before it.
    up_to: f64,
}

impl Population {
    /// `accounts` accounts on `backends` back-ends. Above [`MEMBERS_MAX`] they are put together.
    #[must_use]
    pub fn synthetic(accounts: u64, backends: usize, random: &mut Random) -> Self {
        let parameters = Parameters::default();
        let cohort = accounts.div_ceil(MEMBERS_MAX).max(1);
        let domains = domains(accounts, &parameters, random);
        let homes: Vec<u32> = domains
            .iter()
            .map(|_| random.below(backends) as u32)
            .collect();
        let mut population = Self {
            members: Vec::new(),
            cohort: cohort as u32,
            noise: Noise::new(cohort, &parameters, random),
            parameters,
            shapes: shapes::all(),
            domains,
            next_id: 1,
        };
        for _ in 0..accounts / cohort {
            let mut member = population.born(0, random);
            member.home = if member.domain == OWN_DOMAIN {
                random.below(backends) as u32
            } else {
                homes[member.domain as usize]
            };
            population.members.push(member);
        }
        population
    }

    /// Accounts as they were recorded, each with a week of its own. The unit of their load becomes the mean account's.
    #[must_use]
    pub fn recorded(snapshot: &Snapshot, random: &mut Random) -> Self {
        let parameters = Parameters::default();
        let mut population = Self {
            members: Vec::new(),
            cohort: 1,
            noise: Noise::new(1, &parameters, random),
            parameters,
            // Who is born later has one of these.
            shapes: shapes::all(),
            domains: vec![Domain {
                factor: 1.0,
                office: false,
                up_to: 1.0,
            }],
            next_id: 1,
        };
        let accounts = snapshot.accounts();
        let mean_of = |hours: &Hours| hours.iter().sum::<f64>() / HOURS as f64;
        let all: f64 = (0..accounts.len())
            .map(|at| mean_of(&snapshot.hours(at)))
            .sum();
        let unit = (all / accounts.len().max(1) as f64).max(f64::MIN_POSITIVE);
        for (at, account) in accounts.iter().enumerate() {
            let hours = snapshot.hours(at);
            let mean = mean_of(&hours);
            let shape = match mean > 0.0 {
                true => std::array::from_fn(|hour| (hours[hour] / mean) as f32),
                false => [1.0; HOURS],
            };
            population.members.push(Member {
                id: account.id.0,
                home: account.home,
                octets: account.octets as f64,
                activity: mean / unit,
                shape: population.shapes.len() as u32,
                domain: OWN_DOMAIN,
                weeks: 0,
                moved: None,
            });
            population.shapes.push(shape);
            population.next_id = population.next_id.max(account.id.0 + 1);
        }
        population
    }

    /// What changes over night. `homes` are the back-ends that new accounts may come to.
    pub fn next_day(&mut self, day: i64, scenario: Scenario, homes: &[u32], random: &mut Random) {
        let sigma = self.parameters.domain_drift_sigma;
        for domain in self.domains.iter_mut().skip(1) {
            domain.factor *= (sigma * random.normal() - sigma * sigma / 2.0).exp();
        }
        if scenario == Scenario::GrowingDomain
            && day >= 0
            && let Some(domain) = self.domains.get_mut(GROWING_DOMAIN)
        {
            domain.factor *= GROWING_DOMAIN_DAILY;
        }
        let Parameters {
            drift_sigma,
            growth,
            ..
        } = self.parameters;
        let (jumps, churn) = (self.parameters.jumps, self.parameters.churn);
        for index in 0..self.members.len() {
            let drift = drift_sigma * random.normal() - drift_sigma * drift_sigma / 2.0;
            let member = &mut self.members[index];
            member.activity *= drift.exp();
            member.octets *= 1.0 + growth;
            let chance = random.share();
            if chance <= churn {
                let mut member = self.born(0, random);
                member.home = homes[random.below(homes.len())];
                self.members[index] = member;
            } else if chance <= churn + jumps {
                let other = self.born(0, random);
                let member = &mut self.members[index];
                (member.activity, member.shape) = (other.activity, other.shape);
                self.next_id -= 1;
            }
        }
    }

    /// The load of a member in each hour of a day.
    pub fn load(&self, index: usize, weekday: usize, random: &mut Random) -> [f32; 24] {
        let member = &self.members[index];
        let day = self.parameters.day_sigma * random.normal() / f64::from(self.cohort).sqrt();
        let away = self.cohort == 1 && random.happens(self.parameters.away);
        let level = member.activity
            * self.domains[member.domain as usize].factor
            * day.exp()
            * if away { 0.1 } else { 1.0 };
        let shape = &self.shapes[member.shape as usize][weekday * 24..][..24];
        let mut hours = [0.0; 24];
        for (hour, share) in hours.iter_mut().zip(shape) {
            *hour = self.noise.around(level as f32 * share, random);
        }
        hours
    }

    /// Whether a member belongs to those whom a scenario picks: always the same ones.
    #[must_use]
    pub fn is_picked(member: &Member, share: f64) -> bool {
        // Fibonacci hashing spreads consecutive numbers evenly.
        let spread = member.id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 11;
        (spread as f64) < share * (1_u64 << 53) as f64
    }

    fn born(&mut self, home: u32, random: &mut Random) -> Member {
        let id = self.next_id;
        self.next_id += 1;
        let domain = self.pick_domain(random);
        let mut member = Member {
            id,
            home,
            octets: 0.0,
            activity: 0.0,
            shape: 0,
            domain,
            weeks: 0,
            moved: None,
        };
        let sigma = self.parameters.activity_sigma;
        let mut kind = self.pick_kind(domain, random);
        for _ in 0..self.cohort {
            let (size, activity) = correlated(random, self.parameters.activity_correlation);
            member.octets += octets_at(size);
            if random.happens(self.parameters.machines) {
                let pareto = random.share().powf(-1.0 / MACHINE_EXPONENT);
                member.activity += (MACHINE_MIN * pareto).min(MACHINE_MAX);
                kind = if self.cohort == 1 {
                    Kind::Machine
                } else {
                    kind
                };
            } else {
                member.activity += (sigma * activity - sigma * sigma / 2.0).exp();
            }
        }
        member.shape = shapes::pick(kind, random);
        member
    }

    fn pick_domain(&self, random: &mut Random) -> u32 {
        let at = random.share();
        let domain = self.domains.partition_point(|domain| domain.up_to < at);
        domain.min(self.domains.len() - 1) as u32
    }

    fn pick_kind(&self, domain: u32, random: &mut Random) -> Kind {
        let office = match (domain, self.domains[domain as usize].office) {
            (OWN_DOMAIN, _) => 0.2,
            (_, true) => 0.85,
            (_, false) => 0.1,
        };
        if random.happens(office) {
            Kind::Office
        } else if random.happens(0.75) {
            Kind::Home
        } else {
            Kind::Phone
        }
    }
}

/// The domains of a population; the first is the provider's own.
fn domains(accounts: u64, parameters: &Parameters, random: &mut Random) -> Vec<Domain> {
    let others = accounts as f64 * (1.0 - parameters.own_domain) / parameters.domain_mean;
    let others = (others.round() as usize).min(DOMAINS_MAX);
    let size = |rank: usize| (rank as f64).powf(-parameters.domain_exponent);
    let all: f64 = (1..=others).map(size).sum();
    let mut up_to = parameters.own_domain;
    let mut domains = vec![Domain {
        factor: 1.0,
        office: false,
        up_to,
    }];
    for rank in 1..=others {
        up_to += (1.0 - parameters.own_domain) * size(rank) / all;
        domains.push(Domain {
            factor: 1.0,
            office: random.happens(0.6),
            up_to,
        });
    }
    domains
}

/// Accounts one by one up to here: 168 loads of each are kept.
pub const MEMBERS_MAX: u64 = 1_000_000;

/// More domains than this make no difference to 1,000 back-ends.
const DOMAINS_MAX: usize = 100_000;

const OWN_DOMAIN: u32 = 0;

/// The largest of the others.
const GROWING_DOMAIN: usize = 1;

/// Doubles in 24 days.
const GROWING_DOMAIN_DAILY: f64 = 1.03;

const MACHINE_MIN: f64 = 30.0;
const MACHINE_MAX: f64 = 2_000.0;
const MACHINE_EXPONENT: f64 = 1.5;
