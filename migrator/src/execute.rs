//! Carries out a plan, several accounts at once, each by the same steps as any move, and tells what came of it.
//!
//! A plan may be old by the time it is run, run twice, or run by two: an account that has gone, has moved since, or is there
//! already is passed over and told; a move to the same back-end that somebody left is finished. Nothing is done of which
//! the plan does not say so, and the directory takes one move of an account at a time.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use daemon::log::causes;
use daemon::shutdown::Shutdown;
use directory_api::client::{DirectoryClient, DirectoryError};
use directory_api::wire::MoveState;
use directory_api::{BackendName, VolumeName};
use serde::Serialize;
use store_api::Backends;
use store_api::load::{LoadClient, LoadRequest};
use store_api::transfer::PullProgress;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

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
    /// It was not tried, because too many before it have failed, or the end was asked for.
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

impl Done {
    fn not_tried(planned: &PlannedMove) -> Self {
        Self {
            planned: planned.clone(),
            outcome: Outcome::NotTried,
            moved_octets: 0,
            copied_octets: 0,
            seconds: 0.0,
        }
    }
}

/// What is told while it is done, by the number in the plan.
pub trait Progress {
    /// An account is begun.
    fn begin(&mut self, number: usize, planned: &PlannedMove);
    /// So far is its copy.
    fn copied(&mut self, number: usize, progress: &PullProgress);
    /// It is over.
    fn end(&mut self, number: usize, done: &Done);
}

/// How much is done at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Moves.
    pub moves_max: usize,
    /// Of them from or to one back-end.
    pub per_backend_max: usize,
}

/// Carries out plans.
pub struct Runner {
    job: Job,
    backends: Backends,
    budget: Budget,
    /// Volumes that accounts may be put on, with the room that is left.
    volumes: HashMap<BackendName, Vec<(VolumeName, u64)>>,
}

impl Runner {
    /// Works by these.
    #[must_use]
    pub fn new(
        mover: Mover,
        directory: DirectoryClient,
        backends: Backends,
        budget: Budget,
    ) -> Self {
        Self {
            job: Job { mover, directory },
            backends,
            budget,
            volumes: HashMap::new(),
        }
    }

    /// Does all of it that can be done. After [`FAILURES_MAX`] failures in a row the rest is left: something is wrong that the next
    /// would meet too. From the shutdown on nothing is begun, and what was begun is finished.
    pub async fn run(
        &mut self,
        plan: &PlanFile,
        progress: &mut dyn Progress,
        shutdown: &Shutdown,
    ) -> Vec<Done> {
        let mut all: Vec<Done> = plan.moves.iter().map(Done::not_tried).collect();
        let mut waiting: VecDeque<usize> = (0..all.len()).collect();
        let (mut busy, mut running) = (Busy::default(), JoinSet::new());
        let (tell, mut told) = mpsc::channel(TOLD_MAX);
        let mut failures = 0;
        loop {
            let has_room =
                |at: &usize| busy.has_room(&plan.moves[*at], self.budget.per_backend_max);
            let next = (running.len() < self.budget.moves_max
                && failures < FAILURES_MAX
                && !shutdown.is_requested())
            .then(|| waiting.iter().position(has_room))
            .flatten();
            if let Some(number) = next.and_then(|at| waiting.remove(at)) {
                let planned = &plan.moves[number];
                busy.begin(planned);
                progress.begin(number, planned);
                let volume = self.volume(planned).await;
                let (job, planned, tell) = (self.job.clone(), planned.clone(), tell.clone());
                running
                    .spawn(async move { (number, job.done(number, planned, volume, tell).await) });
                continue;
            }
            tokio::select! {
                ended = running.join_next() => {
                    let Some(ended) = ended else {
                        return all;
                    };
                    let (number, done) = ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
                    busy.end(&done.planned);
                    failures = match &done.outcome {
                        Outcome::Failed { .. } => failures + 1,
                        _ => 0,
                    };
                    progress.end(number, &done);
                    all[number] = done;
                }
                Some((number, copied)) = told.recv() => progress.copied(number, &copied),
            }
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

/// What one move needs.
#[derive(Clone)]
struct Job {
    mover: Mover,
    directory: DirectoryClient,
}

impl Job {
    async fn done(
        &self,
        number: usize,
        planned: PlannedMove,
        volume: Option<VolumeName>,
        tell: mpsc::Sender<(usize, PullProgress)>,
    ) -> Done {
        let began = Instant::now();
        let mut watch = Counting {
            number,
            tell,
            last: PullProgress::default(),
        };
        let outcome = self.one(&planned, volume, &mut watch).await;
        if let Outcome::Failed { cause } = &outcome {
            tracing::warn!(account = %planned.account, from = %planned.from, to = %planned.to, cause, "planned move failed");
        }
        Done {
            planned,
            outcome,
            moved_octets: watch.last.octets,
            copied_octets: watch.last.copied_octets,
            seconds: began.elapsed().as_secs_f64(),
        }
    }

    async fn one(
        &self,
        planned: &PlannedMove,
        volume: Option<VolumeName>,
        watch: &mut dyn Watch,
    ) -> Outcome {
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
}

/// How many moves are under way from or to each back-end.
#[derive(Default)]
struct Busy(HashMap<BackendName, usize>);

impl Busy {
    fn has_room(&self, planned: &PlannedMove, most: usize) -> bool {
        let count = |name| self.0.get(name).copied().unwrap_or(0);
        count(&planned.from) < most && count(&planned.to) < most
    }

    fn begin(&mut self, planned: &PlannedMove) {
        for name in [&planned.from, &planned.to] {
            *self.0.entry(name.clone()).or_default() += 1;
        }
    }

    fn end(&mut self, planned: &PlannedMove) {
        for name in [&planned.from, &planned.to] {
            let count = self.0.entry(name.clone()).or_default();
            *count = count.saturating_sub(1);
        }
    }
}

fn failed(error: &(dyn std::error::Error + 'static)) -> Outcome {
    Outcome::Failed {
        cause: causes(error).to_string(),
    }
}

/// Passes on what it hears, and keeps the last of it.
struct Counting {
    number: usize,
    tell: mpsc::Sender<(usize, PullProgress)>,
    last: PullProgress,
}

impl Watch for Counting {
    fn step(&mut self, _: Step) {}

    fn copied(&mut self, progress: &PullProgress) {
        self.last = *progress;
        // Where many are told at once the next one says it.
        let _ = self.tell.try_send((self.number, *progress));
    }
}

/// One account may be broken, and two; a disk that is full or a back-end that is gone fails all of them.
const FAILURES_MAX: usize = 5;
/// What is told and was not shown yet.
const TOLD_MAX: usize = 256;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use directory_api::{AccountId, Epoch};

    use super::*;
    use crate::balance::Why;

    #[test]
    fn a_back_end_takes_part_in_so_many_moves_as_it_may_in_either_direction() {
        let planned = |from: &str, to: &str| PlannedMove {
            account: AccountId(1),
            epoch: Epoch(1),
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
            octets: 1,
            why: Why::Draining,
        };
        let mut busy = Busy::default();
        busy.begin(&planned("b1", "b2"));
        assert!(busy.has_room(&planned("b2", "b1"), 2));
        assert!(!busy.has_room(&planned("b3", "b1"), 1));
        busy.begin(&planned("b2", "b1"));
        assert!(!busy.has_room(&planned("b3", "b1"), 2));
        assert!(busy.has_room(&planned("b3", "b4"), 2));
        busy.end(&planned("b1", "b2"));
        assert!(busy.has_room(&planned("b3", "b1"), 2));
    }
}
