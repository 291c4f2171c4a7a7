//! Opens the volumes, each for itself, keeps their figures, and closes them together.
//!
//! ```text
//! Opening ─▶ open ──▶ taken in: announced, watched, served
//!    ▲    └▶ cannot be opened ─▶ one line in the log, health says it; tried again after a while
//!    └──────────────────────────────┘
//! ```
//! A back-end with one volume does not start when that cannot be opened; one with several starts as soon as one is open and
//! the others have had their time, and does not start when none can be opened. One that only wants room on its disk is waited
//! for: to end the process and be started again would say the same many times and make no room.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use daemon::clock::now_ms;
use daemon::log::causes;
use directory_api::VolumeName;
use directory_api::client::DirectoryError;
use durable::Disk;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{error, info, warn};

use crate::backend::Backend;
use crate::conditions::{Condition, Conditions};
use crate::volume::{OpenError, ReadError, Volume, VolumeConfig, VolumeStatus};
use crate::volumes::Mounted;
use crate::{announce, load, metrics};

/// How one volume is opened.
pub(crate) struct Opening {
    pub(crate) config: VolumeConfig,
    /// Whether a new one may be begun without asking the directory.
    pub(crate) anew: bool,
}

/// Why a volume is not open.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// No disk is mounted there, or it was lost.
    #[error(
        "open the volume {path}: there is none, but the directory knows one of the name {name}; mount its disk, or if that is lost for good, begin a new one with `anew = true` beside the folder, restore a backup and adopt it"
    )]
    NotThere {
        /// Its name.
        name: VolumeName,
        /// Where it should be.
        path: PathBuf,
    },
    /// Nobody can say whether one is there.
    #[error("look for a volume in {path}")]
    Look {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The process is stopping.
    #[error("process is stopping")]
    Stopped,
}

impl MountError {
    fn is_no_room(&self) -> bool {
        matches!(self, Self::Open(error) if error.is_no_room())
    }
}

/// Opens them. Answers when mail can be served, while some of them may still be tried, or when the process shall stop.
///
/// # Errors
/// None of them can be opened: the cause of the first.
pub(crate) async fn open_all(
    backend: &Arc<Backend>,
    disk: &Arc<dyn Disk>,
    openings: Vec<Opening>,
    conditions: &Arc<Conditions>,
) -> Result<(), MountError> {
    let count = openings.len();
    let (told, mut told_by) = mpsc::unbounded_channel();
    for (at, opening) in openings.into_iter().enumerate() {
        let task = Task {
            backend: Arc::clone(backend),
            disk: Arc::clone(disk),
            conditions: Arc::clone(conditions),
            at,
            opening,
            is_only: count == 1,
            told: told.clone(),
        };
        backend.shutdown.spawn(task.run());
    }
    drop(told);
    let mut states = vec![State::Tried; count];
    let mut deadline = None;
    let mut first_error = None;
    let goes_on = |states: &[State]| {
        let waits = states.contains(&State::WantsRoom) && !states.contains(&State::Open);
        states.contains(&State::Tried) || waits
    };
    while goes_on(&states) {
        let next = async {
            match deadline {
                // Those that are slow do not keep out the others.
                Some(deadline) => timeout_at(deadline, told_by.recv()).await.ok().flatten(),
                None => told_by.recv().await,
            }
        };
        let next = tokio::select! {
            next = next => next,
            () = backend.shutdown.requested() => return Ok(()),
        };
        match next {
            Some((at, Ok(()))) => {
                states[at] = State::Open;
                let soon = Instant::now() + TOGETHER_WITHIN;
                deadline.get_or_insert(soon);
            }
            Some((at, Err(error))) => {
                states[at] = match error.is_no_room() {
                    true => State::WantsRoom,
                    false => State::Failed,
                };
                first_error.get_or_insert(error);
            }
            None => break,
        }
    }
    match (states.contains(&State::Open), first_error) {
        (false, Some(error)) => Err(error),
        _ => Ok(()),
    }
}

/// How the first attempt at a volume has gone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Tried,
    Open,
    WantsRoom,
    Failed,
}

/// Closes all that are open at the same time, and tells the directory where they end.
pub(crate) async fn close_all(backend: &Arc<Backend>) {
    let mut closing = JoinSet::new();
    for mounted in backend.volumes.mounted() {
        let (backend, mounted) = (Arc::clone(backend), Arc::clone(mounted));
        closing.spawn(async move {
            let volume = mounted.volume.clone();
            let name = mounted.name.clone();
            let closed = spawn_blocking(move || {
                load::keep(&name, &volume);
                volume.close();
                volume.status()
            });
            if let Ok(closed) = closed.await {
                announce::last(&backend, &mounted, &closed).await;
            }
        });
    }
    while closing.join_next().await.is_some() {}
}

struct Task {
    backend: Arc<Backend>,
    disk: Arc<dyn Disk>,
    conditions: Arc<Conditions>,
    at: usize,
    opening: Opening,
    is_only: bool,
    told: mpsc::UnboundedSender<(usize, Result<(), MountError>)>,
}

impl Task {
    async fn run(self) {
        let mut pause = RETRY_FIRST;
        let mut said = String::new();
        // Of the only one nobody has said so.
        if self.opening.anew && !self.is_only && matches!(self.is_begun().await, Ok(true)) {
            warn!(volume = %self.opening.config.name, "`anew = true` is set, and the volume is there: take it out, or it is begun empty when its disk is missing");
        }
        loop {
            let name = &self.opening.config.name;
            metrics::volume_open(&self.backend.name, name, false);
            let why = match self.mount().await {
                Ok((mounted, status)) => return self.serve(mounted, status).await,
                Err(why) => why,
            };
            let wants_room = why.is_no_room();
            let text = causes(&why).to_string();
            // Its octets are others each time.
            let key = match wants_room {
                true => "no room".to_owned(),
                false => text.clone(),
            };
            // The others wait for no more than the first word of this one.
            let _ = self.told.send((self.at, Err(why)));
            if self.is_only && !wants_room {
                return;
            }
            if key != said {
                match self.is_only {
                    true => {
                        error!(volume = %name, cause = text, "volume cannot be opened: nobody is served")
                    }
                    false => {
                        error!(volume = %name, cause = text, "volume cannot be opened: its accounts are told to come again, all others are served")
                    }
                }
                self.conditions.set(
                    name,
                    Condition::Failing(format!("volume {name} is not open: {text}")),
                );
                said = key;
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = self.backend.shutdown.requested() => return,
            }
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    async fn mount(&self) -> Result<(Arc<Mounted>, VolumeStatus), MountError> {
        let config = &self.opening.config;
        if !self.opening.anew && !self.is_begun().await? {
            self.check_new().await?;
        }
        let (disk, opened) = (Arc::clone(&self.disk), config.clone());
        let opening = spawn_blocking(move || {
            let volume = Volume::open(opened, disk)?;
            volume.restore_load(now_ms());
            let status = volume.status();
            Ok::<_, OpenError>((volume, status))
        });
        let (volume, status) = opening.await.map_err(|_| MountError::Stopped)??;
        Ok((self.backend.volumes.mount(&config.name, volume), status))
    }

    /// A disk that answers late keeps no thread that others need.
    async fn is_begun(&self) -> Result<bool, MountError> {
        let path = self.opening.config.path.clone();
        let looked = spawn_blocking(move || {
            let begun = Volume::is_begun(&path);
            begun.map_err(|source| MountError::Look { path, source })
        });
        looked.await.map_err(|_| MountError::Stopped)?
    }

    /// Where no volume was begun, one may be begun only if the directory says that there was none: the disk may not be
    /// mounted, and an empty volume in its place would be served as empty mailboxes (P6).
    async fn check_new(&self) -> Result<(), MountError> {
        let config = &self.opening.config;
        loop {
            match announce::listed(&self.backend, &config.name).await {
                Ok(None) => return Ok(()),
                // Also one that was adopted while its disk was away: that says what the next life is, not that it is empty.
                Ok(Some(_)) => {
                    return Err(MountError::NotThere {
                        name: config.name.clone(),
                        path: config.path.clone(),
                    });
                }
                Err(DirectoryError::Refused(problem)) => {
                    error!(volume = %config.name, cause = problem.message, "the directory does not say whether it knows the volume");
                }
                // Health says that it is away.
                Err(_) => {}
            }
            tokio::select! {
                () = sleep(ASK_AGAIN) => {}
                () = self.backend.shutdown.requested() => return Err(MountError::Stopped),
            }
        }
    }

    async fn serve(self, mounted: Arc<Mounted>, opened: VolumeStatus) {
        let Self {
            backend,
            conditions,
            told,
            at,
            ..
        } = self;
        info!(volume = %mounted.name, position = opened.position.0, "volume is open");
        metrics::volume_open(&backend.name, &mounted.name, true);
        conditions.opened(&mounted.name);
        backend
            .shutdown
            .spawn(watch(Arc::clone(&backend), Arc::clone(&mounted)));
        backend
            .shutdown
            .spawn(load::run(Arc::clone(&backend), Arc::clone(&mounted)));
        let _ = told.send((at, Ok(())));
        drop(told);
        announce::run(backend, mounted, opened, conditions).await;
    }
}

/// Keeps a volume's figures fresh, and whether it takes mail, whether or not the directory can be reached.
async fn watch(backend: Arc<Backend>, mounted: Arc<Mounted>) {
    loop {
        // Reads the index.
        let asked = |volume: Volume| async move {
            let status = spawn_blocking(move || volume.status());
            status.await.map_err(|_| ReadError::Stopped)
        };
        if let Ok(status) = mounted.ask(asked).await {
            mounted.looked_at(&status, backend.config.hold.disk_free_min_percent);
            metrics::volume(&backend.name, &mounted.name, &status);
        }
        tokio::select! {
            () = sleep(WATCH_EVERY) => {}
            () = backend.shutdown.requested() => return,
        }
    }
}

/// What a start after a crash takes: until then users wait at the door rather than hear that they shall come again.
const TOGETHER_WITHIN: Duration = Duration::from_secs(15);
/// A disk that is mounted a moment later is found soon; one whose journal has rotted is not read all the time.
const RETRY_FIRST: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(300);
/// As announcements are.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// Often enough for alarms, which ask every few seconds at most.
const WATCH_EVERY: Duration = Duration::from_secs(1);
