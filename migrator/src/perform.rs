//! Does the steps of a move, each durable before the next.

use std::time::{Duration, Instant};

use daemon::clock;
use daemon::log::causes;
use directory_api::client::{DirectoryClient, DirectoryError};
use directory_api::wire::{CompareAndSet, ListQuery, MoveId, MoveRecord, MoveState, Place, code};
use directory_api::{AccountId, BackendName, VolumeName};
use store_api::Backends;
use store_api::backends::BackendAway;
use store_api::session::problem;
use store_api::transfer::{
    Activate, Freeze, Offer, POP3_OPEN, Pull, PullProgress, Release, Summary, SummaryQuery,
    TransferClient, TransferError, Undo,
};

use tokio::time::timeout;

use crate::gate::Gate;
use crate::step::{Mismatch, Step, Verified, can_abort, compare, next, urgency};

/// Why a move stopped. Its record tells how far it is; `migrator resume` goes on.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// The directory gave no answer or refused.
    #[error("directory did not do it")]
    Directory(#[from] DirectoryError),
    /// A back-end's address is not known now.
    #[error("back-end {0} has no known address")]
    Backend(BackendName, #[source] BackendAway),
    /// A back-end gave no answer or refused.
    #[error("back-end {backend} did not {what}")]
    Transfer {
        /// Which one.
        backend: BackendName,
        /// What it was asked to do.
        what: &'static str,
        /// Why not.
        #[source]
        cause: TransferError,
    },
    /// The copy is not what the source holds.
    #[error("copy differs from its source")]
    Different(#[from] Mismatch),
    /// The account lives there already.
    #[error("account {account} already lives on {backend}")]
    AlreadyThere {
        /// The account.
        account: AccountId,
        /// Its home.
        backend: BackendName,
    },
    /// Another move of the account is not finished.
    #[error("account {} is already being moved to {} ({:?}); finish it with `migrator resume` or give it up with `migrator abort {}`", .0.account, .0.to.backend, .0.state, .0.account)]
    InProgress(Box<MoveRecord>),
    /// The commit point has passed: the move can only be finished.
    #[error(
        "account {0} has already switched to its new home; finish the move with `migrator resume`"
    )]
    TooLate(AccountId),
    /// It could not be finished while nobody may write, in the time that users are let wait.
    #[error("account was frozen for {} s and its move was not finished", .0.as_secs())]
    FrozenTooLong(Duration),
    /// A back-end says nothing any more.
    #[error("back-end {0} has told nothing of the copy for {s} s; it is stuck or cannot be reached", s = SILENT_MAX.as_secs())]
    Silent(BackendName),
    /// A side is slow: the copy goes on later.
    #[error("copying waits for a back-end that is slow")]
    Paused,
    /// The back-end has no volume to move to.
    #[error("back-end {0} has announced no volume; is it running?")]
    NoVolume(BackendName),
}

/// Is told how a move goes.
pub trait Watch: Send {
    /// A step has begun.
    fn step(&mut self, step: Step);
    /// The copy has come this far.
    fn copied(&mut self, progress: &PullProgress);
}

/// What a move may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// An account that nobody may write is given back to its users after so long.
    pub frozen_max: Duration,
    /// Octets of bodies copied in a second, while the source serves.
    pub octets_per_s: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frozen_max: FROZEN_MAX,
            octets_per_s: None,
        }
    }
}

/// Performs moves.
#[derive(Clone)]
pub struct Mover {
    directory: DirectoryClient,
    backends: Backends,
    limits: Limits,
    gate: Option<Gate>,
}

impl Mover {
    /// Works by these two.
    #[must_use]
    pub fn new(directory: DirectoryClient, backends: Backends) -> Self {
        Self {
            directory,
            backends,
            limits: Limits::default(),
            gate: None,
        }
    }

    /// The same within these limits.
    #[must_use]
    pub fn within(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// The same, copying only while the gate is open.
    #[must_use]
    pub fn behind(self, gate: Gate) -> Self {
        let gate = Some(gate);
        Self { gate, ..self }
    }

    /// Writes down a new move. Nothing else is done yet.
    ///
    /// # Errors
    /// [`MoveError`]; `InProgress` when another move of the account is not finished.
    pub async fn plan(
        &self,
        account: AccountId,
        backend: &BackendName,
        volume: Option<VolumeName>,
    ) -> Result<MoveRecord, MoveError> {
        let from = self.directory.home(account).await?.home;
        if from.backend == *backend {
            return Err(MoveError::AlreadyThere {
                account,
                backend: backend.clone(),
            });
        }
        let volume = match volume {
            Some(volume) => volume,
            None => {
                let target = self.directory.backend(backend).await?;
                let volume = target.volumes.into_iter().next();
                volume
                    .ok_or_else(|| MoveError::NoVolume(backend.clone()))?
                    .name
            }
        };
        let now = clock::now_ms();
        let record = MoveRecord {
            account,
            id: MoveId::from_octets(daemon::random::token128()),
            from,
            to: Place {
                backend: backend.clone(),
                volume,
            },
            state: MoveState::Planned,
            started_ms: now,
            updated_ms: now,
        };
        match self.directory.put_move(&record).await {
            Ok(_) => Ok(record),
            Err(error) => Err(match error.move_in_progress() {
                Some(other) => MoveError::InProgress(Box::new(other)),
                None => error.into(),
            }),
        }
    }

    /// Takes a move from wherever it is to its end, or to the state `until`. May be repeated after
    /// any failure or kill.
    ///
    /// A failure before the commit point undoes the move as far as the back-ends answer; what
    /// cannot be undone now is left as `Aborting` for a later call. While the directory is away nothing can be decided: it is waited
    /// for, some minutes.
    ///
    /// # Errors
    /// [`MoveError`], the first one met; the record passed in tells the state reached.
    pub async fn finish(
        &self,
        record: &mut MoveRecord,
        until: Option<MoveState>,
        watch: &mut dyn Watch,
    ) -> Result<(), MoveError> {
        let mut verified = None;
        let mut away: Option<Instant> = None;
        while until != Some(record.state) {
            let step = next(record.state);
            watch.step(step);
            let done = match step {
                Step::Offer => self.offer(record).await,
                Step::Copy => self.copy(record, watch).await,
                Step::Verify => self
                    .verify_in_time(record, watch)
                    .await
                    .map(|same| verified = Some(same)),
                Step::Switch => self.switch(record, verified.take()).await,
                Step::Release => self.release(record).await,
                Step::Undo => self.undo(record).await,
                Step::Done => return Ok(()),
            };
            let Err(error) = done else {
                away = None;
                continue;
            };
            if matches!(&error, MoveError::Directory(why) if why.is_away())
                && away.get_or_insert_with(Instant::now).elapsed() < DIRECTORY_AWAY_MAX
            {
                tracing::warn!(account = %record.account, move_id = %record.id, error = causes(&error), "move waits for the directory");
                tokio::time::sleep(DIRECTORY_POLL).await;
                continue;
            }
            if step != Step::Undo && can_abort(record.state) {
                tracing::warn!(account = %record.account, move_id = %record.id, error = causes(&error), "move failed, giving it up");
                if let Err(undo) = self.abort(record, watch).await {
                    tracing::warn!(account = %record.account, move_id = %record.id, error = causes(&undo), "move is not undone yet");
                }
            }
            return Err(error);
        }
        Ok(())
    }

    /// Gives a move up, if its commit point has not passed.
    ///
    /// # Errors
    /// `TooLate` past the commit point; else [`MoveError`], and the call may be repeated.
    pub async fn abort(
        &self,
        record: &mut MoveRecord,
        watch: &mut dyn Watch,
    ) -> Result<(), MoveError> {
        if !can_abort(record.state) {
            return Err(MoveError::TooLate(record.account));
        }
        if record.state != MoveState::Aborting {
            // From here on the directory refuses the change of home, even one already on its way.
            if let Err(error) = self.save(record, MoveState::Aborting).await {
                let MoveError::Directory(refused) = &error else {
                    return Err(error);
                };
                if refused.stale_home().is_some() {
                    return Err(MoveError::TooLate(record.account));
                }
                return match refused.move_in_progress() {
                    // Another migrator has given it up. What we asked for last may have come
                    // after its undoing, and nobody else would come to undo that.
                    Some(now) if is_over(record, &now) => {
                        watch.step(Step::Undo);
                        self.undo_at_backends(record).await?;
                        record.state = MoveState::Aborted;
                        Ok(())
                    }
                    Some(now) if !can_abort(now.state) => Err(MoveError::TooLate(record.account)),
                    _ => Err(error),
                };
            }
        }
        watch.step(Step::Undo);
        self.undo(record).await
    }

    /// The moves that are not finished, every one; first those whose users wait, the longest at the beginning.
    ///
    /// # Errors
    /// [`DirectoryError`].
    pub async fn unfinished(&self) -> Result<Vec<MoveRecord>, DirectoryError> {
        let mut found = Vec::new();
        let mut query = ListQuery::default();
        loop {
            let page = self.directory.moves(&query).await?;
            found.extend(
                page.items
                    .into_iter()
                    .filter(|record| !record.state.is_final()),
            );
            match page.next {
                Some(after) => query.after = Some(after),
                None => break,
            }
        }
        found.sort_by_key(|record| (urgency(record.state), record.updated_ms));
        Ok(found)
    }

    async fn offer(&self, record: &mut MoveRecord) -> Result<(), MoveError> {
        self.offer_at_source(record).await?;
        self.save(record, MoveState::Copying).await
    }

    async fn offer_at_source(&self, record: &MoveRecord) -> Result<(), MoveError> {
        let request = Offer {
            account: record.account,
            epoch: record.from.epoch,
            move_id: record.id,
            target: record.to.backend.clone(),
        };
        let source = self.backend(&record.from.backend).await?;
        let offered = source.offer(&request).await;
        offered.map_err(|cause| failed(&record.from.backend, "offer the account", cause))?;
        Ok(())
    }

    /// Copies while the source serves, then freezes it. A POP3 session that is open is waited for, because
    /// its user would find again what he has deleted; copying goes on meanwhile.
    async fn copy(&self, record: &mut MoveRecord, watch: &mut dyn Watch) -> Result<(), MoveError> {
        let mut postponed: Option<Instant> = None;
        loop {
            self.wait_for_gate(record).await?;
            // Again each time: a source that was restarted does not know of it.
            self.offer_at_source(record).await?;
            match self.pull(record, watch, false).await {
                Err(MoveError::Paused) => continue,
                pulled => pulled?,
            }
            let force = postponed.is_some_and(|since| since.elapsed() >= POSTPONED_MAX);
            match self.freeze(record, force).await {
                Err(MoveError::Transfer {
                    cause: TransferError::Refused(problem),
                    ..
                }) if problem.code == POP3_OPEN => {
                    postponed.get_or_insert_with(Instant::now);
                    self.touch(record).await?;
                    tokio::time::sleep(POSTPONED_POLL).await;
                }
                frozen => {
                    frozen?;
                    self.save(record, MoveState::Frozen).await?;
                    return Ok(());
                }
            }
        }
    }

    async fn wait_for_gate(&self, record: &mut MoveRecord) -> Result<(), MoveError> {
        let Some(mut gate) = self.gate.clone() else {
            return Ok(());
        };
        while timeout(TOUCH_INTERVAL, gate.opens(record)).await.is_err() {
            self.touch(record).await?;
        }
        Ok(())
    }

    async fn freeze(&self, record: &MoveRecord, force: bool) -> Result<(), MoveError> {
        let request = Freeze {
            account: record.account,
            epoch: record.from.epoch,
            move_id: record.id,
            force,
            target: Some(record.to.backend.clone()),
        };
        let source = self.backend(&record.from.backend).await?;
        let frozen = source.freeze(&request).await;
        frozen.map_err(|cause| failed(&record.from.backend, "freeze the account", cause))?;
        Ok(())
    }

    async fn pull(
        &self,
        record: &mut MoveRecord,
        watch: &mut dyn Watch,
        is_last: bool,
    ) -> Result<(), MoveError> {
        let what = "copy the account";
        let source = self.directory.backend(&record.from.backend).await?;
        let target = self.backend(&record.to.backend).await?;
        let request = Pull {
            account: record.account,
            move_id: record.id,
            source: record.from.backend.clone(),
            source_address: source.address,
            source_epoch: record.from.epoch,
            volume: Some(record.to.volume.clone()),
            is_last,
            octets_per_s: self.limits.octets_per_s,
        };
        let to = record.to.backend.clone();
        let silent = || MoveError::Silent(to.clone());
        let events = timeout(SILENT_MAX, target.pull(&request)).await;
        let events = events.map_err(|_| silent())?;
        let mut events = events.map_err(|cause| failed(&to, what, cause))?;
        let mut done = false;
        let mut touched = Instant::now();
        // Nobody waits for a frozen account because others are slow.
        let mut gate = self.gate.clone().filter(|_| !is_last);
        let of = record.clone();
        loop {
            let next = timeout(SILENT_MAX, events.next());
            tokio::pin!(next);
            let progress = loop {
                let due = TOUCH_INTERVAL.saturating_sub(touched.elapsed());
                tokio::select! {
                    progress = &mut next => break progress,
                    () = closes(gate.as_mut(), &of) => return Err(MoveError::Paused),
                    () = tokio::time::sleep(due) => {
                        touched = Instant::now();
                        self.touch(record).await?;
                    }
                }
            };
            let progress = progress.map_err(|_| silent())?;
            match progress.map_err(|cause| failed(&to, what, cause))? {
                Some(progress) => {
                    done = progress.done;
                    watch.copied(&progress);
                }
                None if done => return Ok(()),
                None => return Err(failed(&to, what, TransferError::Cut)),
            }
        }
    }

    /// Whatever hangs, be it the target or the link between the two, users do not wait for it for ever.
    async fn verify_in_time(
        &self,
        record: &mut MoveRecord,
        watch: &mut dyn Watch,
    ) -> Result<Verified, MoveError> {
        let frozen_max = self.limits.frozen_max;
        let verified = timeout(frozen_max, self.verify(record, watch)).await;
        verified.unwrap_or(Err(MoveError::FrozenTooLong(frozen_max)))
    }

    /// The last round, while nobody may write, and the proof that both sides have the same.
    async fn verify(
        &self,
        record: &mut MoveRecord,
        watch: &mut dyn Watch,
    ) -> Result<Verified, MoveError> {
        // It is, unless the record was written by one who was then killed.
        self.freeze(record, true).await?;
        self.pull(record, watch, true).await?;
        let verified = self.compare(record).await?;
        self.save(record, MoveState::Verified).await?;
        Ok(verified)
    }

    async fn compare(&self, record: &MoveRecord) -> Result<Verified, MoveError> {
        let query = SummaryQuery {
            account: record.account,
        };
        let what = "sum up the account";
        let source = self.backend(&record.from.backend).await?;
        let target = self.backend(&record.to.backend).await?;
        let (source, target) = tokio::join!(source.summary(&query), target.summary(&query));
        let source = source.map_err(|cause| failed(&record.from.backend, what, cause))?;
        let target = target.map_err(|cause| failed(&record.to.backend, what, cause))?;
        Ok(compare(record.id, &source, &target)?)
    }

    /// The commit point. Where an earlier attempt may have got through, the home tells.
    async fn switch(
        &self,
        record: &mut MoveRecord,
        verified: Option<Verified>,
    ) -> Result<(), MoveError> {
        let verified = match verified {
            Some(verified) => verified,
            None => {
                let home = self.directory.home(record.account).await?.home;
                if is_switched(record, &home) {
                    return self.save(record, MoveState::Switched).await;
                }
                self.compare(record).await?
            }
        };
        if let Err(error) = self.compare_and_set(record, verified).await {
            let home = self.directory.home(record.account).await?.home;
            if !is_switched(record, &home) {
                return Err(error.into());
            }
        }
        self.save(record, MoveState::Switched).await
    }

    async fn compare_and_set(
        &self,
        record: &MoveRecord,
        _verified: Verified,
    ) -> Result<(), DirectoryError> {
        let request = CompareAndSet {
            from_epoch: record.from.epoch,
            to: record.to.clone(),
            move_id: Some(record.id),
        };
        self.directory
            .compare_and_set(record.account, &request)
            .await
            .map(|_| ())
    }

    async fn release(&self, record: &mut MoveRecord) -> Result<(), MoveError> {
        let epoch = record.from.epoch.next();
        let activate = Activate {
            account: record.account,
            move_id: record.id,
            epoch,
        };
        let target = self
            .backend(&record.to.backend)
            .await?
            .activate(&activate)
            .await;
        target.map_err(|cause| failed(&record.to.backend, "open the account", cause))?;
        let release = Release {
            account: record.account,
            move_id: record.id,
            backend: record.to.backend.clone(),
            epoch,
        };
        let source = self
            .backend(&record.from.backend)
            .await?
            .release(&release)
            .await;
        source.map_err(|cause| failed(&record.from.backend, "release the account", cause))?;
        self.save(record, MoveState::Released).await
    }

    async fn undo(&self, record: &mut MoveRecord) -> Result<(), MoveError> {
        self.undo_at_backends(record).await?;
        self.save(record, MoveState::Aborted).await
    }

    /// The source goes first: its users must not wait for a target that may never answer again.
    /// The copy cannot become the account meanwhile, because the directory takes no change of home.
    async fn undo_at_backends(&self, record: &MoveRecord) -> Result<(), MoveError> {
        let undo = Undo {
            account: record.account,
            move_id: record.id,
            source: Some(record.from.backend.clone()),
            volume: None,
        };
        let at_target = Undo {
            volume: Some(record.to.volume.clone()),
            ..undo.clone()
        };
        if let Some(source) = self.unless_removed(&record.from.backend).await? {
            undone(source.thaw(&undo).await)
                .map_err(|cause| failed(&record.from.backend, "thaw the account", cause))?;
        }
        if let Some(target) = self.unless_removed(&record.to.backend).await? {
            undone(target.discard(&at_target).await)
                .map_err(|cause| failed(&record.to.backend, "discard the copy", cause))?;
        }
        Ok(())
    }

    /// A back-end that an operator has removed from the directory has nothing to undo.
    async fn unless_removed(
        &self,
        name: &BackendName,
    ) -> Result<Option<TransferClient>, MoveError> {
        match self.backend(name).await {
            Err(MoveError::Backend(_, away)) if away.is_unknown() => Ok(None),
            backend => backend.map(Some),
        }
    }

    /// Shows that somebody is at work, and stops the copy when another has given the move up.
    async fn touch(&self, record: &mut MoveRecord) -> Result<(), MoveError> {
        match self.save(record, record.state).await {
            Err(MoveError::Directory(error)) if error.is_away() => {
                tracing::warn!(account = %record.account, move_id = %record.id, error = causes(&error), "move goes on without the directory");
                Ok(())
            }
            saved => saved,
        }
    }

    async fn save(&self, record: &mut MoveRecord, state: MoveState) -> Result<(), MoveError> {
        let saved = MoveRecord {
            state,
            updated_ms: clock::now_ms(),
            ..record.clone()
        };
        self.directory.put_move(&saved).await?;
        if record.state != state {
            tracing::info!(
                account = %record.account, move_id = %record.id, from = %record.from.backend,
                to = %record.to.backend, state = ?state, "move",
            );
        }
        *record = saved;
        Ok(())
    }

    async fn backend(&self, name: &BackendName) -> Result<TransferClient, MoveError> {
        let link = self.backends.link(name).await;
        link.map(TransferClient::new)
            .map_err(|cause| MoveError::Backend(name.clone(), cause))
    }
}

/// A POP3 session that is open is waited for so long (DESIGN §9), and asked for again so often.
const POSTPONED_MAX: Duration = Duration::from_secs(600);
const POSTPONED_POLL: Duration = Duration::from_secs(1);
/// A user's client waits about so long for an answer; a freeze that goes well takes some tenths of a second.
pub const FROZEN_MAX: Duration = Duration::from_secs(60);
/// A target tells each few seconds how far it is; one that is restarted is asked anew.
const SILENT_MAX: Duration = Duration::from_secs(60);
/// A directory that is restarted, or fails over, is back within this.
const DIRECTORY_AWAY_MAX: Duration = Duration::from_secs(300);
const DIRECTORY_POLL: Duration = Duration::from_secs(1);
/// A third of the shortest time after which a move counts as abandoned.
const TOUCH_INTERVAL: Duration = Duration::from_secs(20);

async fn closes(gate: Option<&mut Gate>, record: &MoveRecord) {
    match gate {
        Some(gate) => gate.closes(record).await,
        None => std::future::pending().await,
    }
}

fn is_switched(record: &MoveRecord, home: &directory_api::Home) -> bool {
    home.backend == record.to.backend && home.epoch == record.from.epoch.next()
}

/// Whether the move has been given up and undone, as the directory's present record tells: a new
/// one begins only after the one before is over.
fn is_over(record: &MoveRecord, now: &MoveRecord) -> bool {
    now.id != record.id || now.state == MoveState::Aborted
}

/// A back-end may have nothing of the move to undo: it never began there, or the account was never
/// used, or is in another move or another state by now.
fn undone(answer: Result<Summary, TransferError>) -> Result<(), TransferError> {
    match answer {
        Err(TransferError::Refused(problem)) if NOTHING_OF_IT.contains(&&*problem.code) => Ok(()),
        answer => answer.map(drop),
    }
}

/// Codes of refusals by which a back-end says so.
const NOTHING_OF_IT: [&str; 4] = [code::NOT_FOUND, "wrong_state", "other_move", problem::MOVED];

fn failed(backend: &BackendName, what: &'static str, cause: TransferError) -> MoveError {
    MoveError::Transfer {
        backend: backend.clone(),
        what,
        cause,
    }
}
