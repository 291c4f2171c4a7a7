//! A plan as it is kept: what to move and why, and what that should come to.

use std::collections::HashSet;
use std::io::{self, Read as _};
use std::path::Path;

use directory_api::{AccountId, BackendName, BackendState, Epoch};
use serde::{Deserialize, Serialize};

use crate::balance::{
    self, Giant, HOURS, Hours, Idle, Loads, Obstacle, Policy, Unusable, Why, plan,
};
use crate::inventory::Inventory;

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanFile {
    /// The version of the form: 1.
    pub posthouse_plan: u32,
    /// When it was made, Unix milliseconds.
    pub made_ms: i64,
    /// When the load that it was made from was taken, Unix milliseconds.
    pub taken_ms: i64,
    /// `peak` or `reference`.
    pub policy: String,
    /// Of what was drawn.
    pub seed: u64,
    /// Accounts that were looked at, and what they store.
    pub accounts: u64,
    /// Octets of all of them.
    pub stored_octets: u64,
    /// All back-ends.
    pub backends: Vec<BackendPlan>,
    /// In the order in which they are done.
    pub moves: Vec<PlannedMove>,
    /// Octets of all moves: none has to copy more.
    pub moved_octets: u64,
    /// How long they should take, one after the other.
    pub duration_s: f64,
    /// What that was reckoned with.
    pub octets_per_s: u64,
    /// Accounts too heavy to be moved by a rule.
    pub giants: Vec<GiantPlan>,
    /// Back-ends that stay as they should not be.
    pub left: Vec<LeftPlan>,
    /// Why nothing is moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<Idle>,
}

/// One back-end before and after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendPlan {
    /// Its name.
    pub name: BackendName,
    /// How it takes part.
    pub state: BackendState,
    /// What it carries against the others.
    pub weight: u32,
    /// Cost in each hour of the week as it is, in microseconds.
    pub before: Vec<f64>,
    /// The same as it should be.
    pub after: Vec<f64>,
}

/// One account to move.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedMove {
    /// Which.
    pub account: AccountId,
    /// Its epoch: with another one it has moved since.
    pub epoch: Epoch,
    /// Where it lives.
    pub from: BackendName,
    /// Where it shall live.
    pub to: BackendName,
    /// What it stores.
    pub octets: u64,
    /// Why.
    pub why: Why,
}

/// An account to look at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GiantPlan {
    /// Which.
    pub account: AccountId,
    /// Where it lives.
    pub home: BackendName,
    /// Its worst hour against the average back-end's.
    pub share: f64,
    /// It is moved all the same.
    pub moved: bool,
}

/// A back-end that stays too high, or is not emptied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftPlan {
    /// Which.
    pub backend: BackendName,
    /// How far its worst hour stays above the average.
    pub above: f64,
    /// Accounts that stay though it is being emptied.
    pub accounts: u32,
    /// What is in the way.
    pub obstacle: Obstacle,
}

/// A file that is no plan.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not what it should be.
    #[error("it is no plan of this version: {0}")]
    Form(#[from] serde_json::Error),
    /// It is longer than any plan.
    #[error("it is longer than any plan can be")]
    Long,
    /// Of another version.
    #[error("form {0} of a plan is not known; this build reads form 1")]
    Version(u32),
    /// It contradicts itself.
    #[error("account {0} is moved twice, or names a back-end that is not in the plan")]
    Contradiction(AccountId),
}

impl PlanFile {
    /// Makes a plan of what there is.
    ///
    /// # Errors
    /// [`Unusable`]: no plan can be made of it.
    pub fn make(
        inventory: &Inventory,
        policy: &Policy,
        seed: u64,
        pinned: &HashSet<AccountId>,
        (made_ms, octets_per_s): (i64, u64),
    ) -> Result<Self, Unusable> {
        let snapshot = inventory.snapshot(pinned)?;
        let made = plan(&snapshot, policy, seed);
        let before = Loads::of(&snapshot);
        let mut after = before.clone();
        let name = |at: u32| inventory.backends[at as usize].name.clone();
        let mut moves = Vec::new();
        for one in &made.moves {
            let at = one.account as usize;
            let account = &inventory.accounts[at];
            after.carry(&snapshot.hours(at), one.from as usize, one.to as usize);
            moves.push(PlannedMove {
                account: account.account,
                epoch: account.epoch,
                from: name(one.from),
                to: name(one.to),
                octets: account.octets,
                why: one.why,
            });
        }
        let backends = inventory.backends.iter().zip(before.0.iter().zip(&after.0));
        let backend = |(one, (before, after)): (&crate::inventory::Backend, (&Hours, &Hours))| {
            BackendPlan {
                name: one.name.clone(),
                state: one.state,
                weight: one.weight,
                before: before.to_vec(),
                // What is left of a sum when all of it was taken away.
                after: after.iter().map(|hour| hour.max(0.0)).collect(),
            }
        };
        let moved_octets = moves.iter().map(|one| one.octets).sum::<u64>();
        let giant = |one: &Giant| {
            let account = &inventory.accounts[one.account as usize];
            GiantPlan {
                account: account.account,
                home: account.home.clone(),
                share: one.share,
                moved: one.moved,
            }
        };
        let left = |one: &balance::Left| LeftPlan {
            backend: name(one.backend),
            above: one.above,
            accounts: one.accounts,
            obstacle: one.obstacle,
        };
        Ok(Self {
            posthouse_plan: VERSION,
            made_ms,
            taken_ms: inventory.taken_ms,
            policy: policy.name().to_owned(),
            seed,
            accounts: snapshot.accounts().len() as u64,
            stored_octets: snapshot.octets(),
            backends: backends.map(backend).collect(),
            duration_s: moved_octets as f64 / octets_per_s.max(1) as f64
                + moves.len() as f64 * MOVE_S,
            moves,
            moved_octets,
            octets_per_s,
            giants: made.giants.iter().map(giant).collect(),
            left: made.left.iter().map(left).collect(),
            idle: made.idle,
        })
    }

    /// Reads one that was saved.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        let mut octets = Vec::new();
        let file = std::fs::File::open(path)?;
        file.take(FILE_MAX_OCTETS + 1).read_to_end(&mut octets)?;
        if octets.len() as u64 > FILE_MAX_OCTETS {
            return Err(ReadError::Long);
        }
        Self::parse(&octets)
    }

    fn parse(octets: &[u8]) -> Result<Self, ReadError> {
        #[derive(Deserialize)]
        struct Version {
            posthouse_plan: u32,
        }
        let version: Version = serde_json::from_slice(octets)?;
        if version.posthouse_plan != VERSION {
            return Err(ReadError::Version(version.posthouse_plan));
        }
        let plan: Self = serde_json::from_slice(octets)?;
        let names: HashSet<&BackendName> = plan.backends.iter().map(|one| &one.name).collect();
        let mut seen = HashSet::new();
        for one in &plan.moves {
            let is_known = names.contains(&one.from) && names.contains(&one.to);
            if !is_known || one.from == one.to || !seen.insert(one.account) {
                return Err(ReadError::Contradiction(one.account));
            }
        }
        let whole = |one: &BackendPlan| one.before.len() == HOURS && one.after.len() == HOURS;
        match plan.backends.iter().all(whole) {
            true => Ok(plan),
            false => Err(serde::de::Error::custom("a week has 168 hours")),
        }
        .map_err(ReadError::Form)
    }

    /// Saves it beside what may be there, then in its place: half a plan is never found.
    ///
    /// # Errors
    /// [`io::Error`].
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        crate::present::save(path, &text)
    }

    /// The average load of a back-end by its weight in the worst hour of all.
    #[must_use]
    pub fn average(&self) -> f64 {
        let carried = || {
            self.backends
                .iter()
                .filter(|b| b.state != BackendState::Down)
        };
        let sum = |hour: usize| carried().map(|b| b.before[hour]).sum::<f64>();
        let worst = (0..HOURS).map(sum).fold(0.0, f64::max);
        let active = carried().filter(|b| b.state == BackendState::Active);
        let weight: f64 = active.map(|b| f64::from(b.weight)).sum();
        worst / weight.max(1.0)
    }
}

impl BackendPlan {
    /// The worst hour of a week: which, and how much by weight against the average.
    #[must_use]
    pub fn worst(&self, hours: &[f64], average: f64) -> (usize, f64) {
        let mut worst = (0, 0.0);
        for (hour, load) in hours.iter().enumerate() {
            let share = load / f64::from(self.weight.max(1)) / average;
            if share > worst.1 {
                worst = (hour, share);
            }
        }
        worst
    }
}

impl Why {
    /// For people.
    #[must_use]
    pub fn told(&self) -> String {
        match self {
            Self::Drawn { share } => format!(
                "drawn by its cost, {:.1} % of an average back-end",
                share * 100.0
            ),
            Self::WorstHour {
                hour,
                above,
                relief,
            } => format!(
                "relieves {} by {:.2} %, which is {:.1} % above the average",
                hour_told(usize::from(*hour)),
                relief * 100.0,
                above * 100.0
            ),
            Self::Fill { hour, share } => format!(
                "fills a back-end far below the average; {:.2} % of one on {}",
                share * 100.0,
                hour_told(usize::from(*hour))
            ),
            Self::Exchange { hour, share } => format!(
                "makes room where another goes; only {:.2} % of a back-end on {}, the worst hour there",
                share * 100.0,
                hour_told(usize::from(*hour))
            ),
            Self::Draining => "its back-end is being emptied".to_owned(),
        }
    }
}

/// An hour of the week for people.
#[must_use]
pub fn hour_told(hour: usize) -> String {
    let days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    format!("{} {:02}:00", days[hour / 24 % 7], hour % 24)
}

const VERSION: u32 = 1;
/// Steps of a move besides its copying.
const MOVE_S: f64 = 0.5;
/// A million moves.
const FILE_MAX_OCTETS: u64 = 512 << 20;

#[cfg(test)]
mod tests;
