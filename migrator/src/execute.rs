//! Carries out a plan, account by account, each by the same steps as any move, and tells what came of it.
//!
//! A plan may be old by the time it is run, run twice, or run by two: an account that has gone, has moved since, or is there
//! already is passed over and told; a move to the same back-end that somebody left is finished. Nothing is done of which
//! the plan does not say so, and the directory takes one move of an account at a time.

use std::collections::HashMap;
use std::time::Instant;

use daemon::log::causes;
use directory_api::client::{DirectoryClient, DirectoryError};
use directory_api::wire::MoveState;
use directory_api::{BackendName, VolumeName};
use serde::Serialize;
use store_api::Backends;
use store_api::load::{LoadClient, LoadRequest};
use store_api::transfer::PullProgress;

use crate::perform::{MoveError, Mover, Watch};
use crate::plan_file::{PlanFile, PlannedMove};
use crate::step::Step;

/// What became of one move of the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Outcome {
    /// It is at its new home.
    Moved,
    /// It was there already.
    AlreadyThere,
    /// There is no such account any more.
    Gone,
    /// It lives elsewhere than the plan says, or was moved since and came back.
    MovedSince {
        /// Where it lives.
        home: BackendName,
    },
    /// Another move of it is not finished.
    Busy,
    /// It stays where it is, or `migrator resume` finishes it.
    Failed {
        /// Why.
        cause: String,
    },
    /// It was not tried, because too many before it have failed.
    NotTried,
}

/// One move and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Done {
    /// The plan's.
    #[serde(flatten)]
    pub planned: PlannedMove,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Octets of its messages.
    pub moved_octets: u64,
    /// Of them those that the new home did not have.
    pub copied_octets: u64,
    /// How long it took.
    pub seconds: f64,
}

/// What is told while it is done.
pub trait Progress: Watch {
    /// The next account is begun.
    fn begin(&mut self, number: usize, planned: &PlannedMove);
    /// It is over.
    fn end(&mut self, done: &Done);
}

/// Carries out plans.
pub struct Runner {
    mover: Mover,
    directory: DirectoryClient,
    backends: Backends,
    /// Volumes that accounts may be put on, with the room that is left.
    volumes: HashMap<BackendName, Vec<(VolumeName, u64)>>,
}

impl Runner {
    /// Works by these two.
    #[must_use]
    pub fn new(directory: DirectoryClient, backends: Backends) -> Self {
        Self {
            mover: Mover::new(directory.clone(), backends.clone()),
            directory,
            backends,
            volumes: HashMap::new(),
        }
    }

    /// Does all of it that can be done. After [`FAILURES_MAX`] failures in a row the rest is left: something is wrong that the next
    /// would meet too.
    pub async fn run(&mut self, plan: &PlanFile, progress: &mut dyn Progress) -> Vec<Done> {
        let mut all = Vec::new();
        let mut failures = 0;
        for (number, planned) in plan.moves.iter().enumerate() {
            let mut done = Done {
                planned: planned.clone(),
                outcome: Outcome::NotTried,
                moved_octets: 0,
                copied_octets: 0,
                seconds: 0.0,
            };
            if failures < FAILURES_MAX {
                progress.begin(number, planned);
                let began = Instant::now();
                let mut watch = Counting {
                    inner: &mut *progress,
                    last: PullProgress::default(),
                };
                done.outcome = self.one(planned, &mut watch).await;
                done.moved_octets = watch.last.octets;
                done.copied_octets = watch.last.copied_octets;
                done.seconds = began.elapsed().as_secs_f64();
                match &done.outcome {
                    Outcome::Failed { cause } => {
                        failures += 1;
                        tracing::warn!(account = %planned.account, from = %planned.from, to = %planned.to, cause, "planned move failed");
                    }
                    _ => failures = 0,
                }
                progress.end(&done);
            }
            all.push(done);
        }
        all
    }

    async fn one(&mut self, planned: &PlannedMove, watch: &mut dyn Watch) -> Outcome {
        let home = match self.directory.home(planned.account).await {
            Ok(now) => now.home,
            Err(DirectoryError::Unknown) => return Outcome::Gone,
            Err(error) => return failed(&error),
        };
        if home.backend == planned.to {
            return match self.finish_left(planned, watch).await {
                Ok(()) => Outcome::AlreadyThere,
                Err(error) => failed(&error),
            };
        }
        if home.backend != planned.from || home.epoch != planned.epoch {
            return Outcome::MovedSince { home: home.backend };
        }
        let volume = self.volume(planned).await;
        let mut record = match self.mover.plan(planned.account, &planned.to, volume).await {
            Ok(record) => record,
            Err(MoveError::InProgress(left)) if left.to.backend == planned.to => *left,
            Err(MoveError::InProgress(_)) => return Outcome::Busy,
            Err(MoveError::Directory(DirectoryError::Unknown)) => return Outcome::Gone,
            Err(error) => return failed(&error),
        };
        match self.mover.finish(&mut record, None, watch).await {
            Ok(()) if record.state == MoveState::Released => Outcome::Moved,
            // Somebody had given it up, and this has finished that.
            Ok(()) => Outcome::Busy,
            Err(error) => failed(&error),
        }
    }

    /// A move that has switched and was left before its end.
    async fn finish_left(
        &self,
        planned: &PlannedMove,
        watch: &mut dyn Watch,
    ) -> Result<(), MoveError> {
        match self.directory.move_of(planned.account).await {
            Ok(mut left) if !left.state.is_final() && left.to.backend == planned.to => {
                self.mover.finish(&mut left, None, watch).await
            }
            Ok(_) | Err(DirectoryError::Unknown) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The volume with most room at the new home; the first one if that does not tell.
    async fn volume(&mut self, planned: &PlannedMove) -> Option<VolumeName> {
        if !self.volumes.contains_key(&planned.to) {
            let link = self.backends.link(&planned.to).await.ok()?;
            let reply = LoadClient::new(link).ask(&LoadRequest::Volumes).await;
            let volumes = reply.ok()?.volumes.into_iter();
            let may_be_used = volumes.filter(|one| one.is_open && !one.is_nearly_full);
            let rooms = may_be_used.map(|one| (one.name, one.free_bytes)).collect();
            self.volumes.insert(planned.to.clone(), rooms);
        }
        let rooms = self.volumes.get_mut(&planned.to)?;
        let (name, free) = rooms.iter_mut().max_by_key(|(_, free)| *free)?;
        *free = free.saturating_sub(planned.octets);
        Some(name.clone())
    }
}

fn failed(error: &(dyn std::error::Error + 'static)) -> Outcome {
    Outcome::Failed {
        cause: causes(error).to_string(),
    }
}

/// Passes on what it hears, and keeps the last of it.
struct Counting<'a> {
    inner: &'a mut dyn Progress,
    last: PullProgress,
}

impl Watch for Counting<'_> {
    fn step(&mut self, step: Step) {
        self.inner.step(step);
    }

    fn copied(&mut self, progress: &PullProgress) {
        self.last = *progress;
        self.inner.copied(progress);
    }
}

/// One account may be broken, and two; a disk that is full or a back-end that is gone fails all of them.
const FAILURES_MAX: usize = 5;
