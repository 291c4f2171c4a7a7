//! Tells the directory that this back-end is there, and learns the keys of grants.
//!
//! Writes wait for the first attempt alone: a delivery that names the right epoch is taken while the
//! directory is away. Only a login cannot be, and is refused by whoever asked the directory for it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use daemon::health::Health;
use daemon::log::causes;
use directory_api::VolumeName;
use directory_api::client::DirectoryError;
use directory_api::wire::{AnnounceRequest, Incarnation, VolumePosition};
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use crate::backend::Backend;
use crate::config::Config;
use crate::metrics;
use crate::volume::{AdoptError, VolumeStatus};

/// While all is well.
const EVERY: Duration = Duration::from_secs(10);
/// While the directory is missing: soon enough that a start in any order takes seconds.
const RETRY: Duration = Duration::from_millis(500);
/// A stop does not wait longer for a directory that is away.
const LAST_WITHIN: Duration = Duration::from_secs(1);

/// Announces until the shutdown. `opened` is how the volume was before anything was written to it; `taken` is set when the
/// directory has taken that.
pub(crate) async fn run(
    backend: Arc<Backend>,
    volume: VolumeName,
    opened: VolumeStatus,
    health: Health,
    taken: Arc<AtomicBool>,
) {
    let waiting = waiting_for(&backend.config);
    let is_marked = backend.volume.is_restored();
    let mut announced = false;
    let mut opening = Some(position(&volume, &opened));
    let mut is_first = true;
    loop {
        let pause = match announce(&backend, &volume, &mut opening, &health).await {
            Ok(()) => {
                if !announced {
                    info!(directory = backend.config.directory, "announced");
                }
                announced = true;
                taken.store(opening.is_none(), Ordering::Relaxed);
                EVERY
            }
            Err(error) => {
                // Without a directory, what names the right epoch is taken. That it cannot be written down that this is
                // an old copy is no such case.
                if is_first && matches!(error, AnnounceError::Directory(_)) {
                    backend.restored.store(is_marked, Ordering::Relaxed);
                }
                if announced {
                    warn!(%error, directory = backend.config.directory, "directory does not take our announcement");
                }
                announced = false;
                health.set_waiting(&waiting);
                RETRY
            }
        };
        is_first = false;
        metrics::announced(&backend.name, announced);
        tokio::select! {
            () = sleep(pause) => {}
            () = backend.shutdown.requested() => return,
        }
    }
}

/// Tells the directory where the volume ends that was just closed: a copy of it that is older by a single record is one too
/// old. Without a directory it is as after a crash: what was written since the last announcement does not tell.
pub(crate) async fn last(backend: &Backend, volume: &VolumeName, closed: &VolumeStatus) {
    if !backend.may_write() {
        return;
    }
    let request = AnnounceRequest {
        backend: backend.name.clone(),
        address: backend.config.advertised(),
        volumes: vec![position(volume, closed)],
    };
    let announced = timeout(LAST_WITHIN, backend.directory.announce(&request)).await;
    if !matches!(announced, Ok(Ok(_))) {
        info!(volume = %volume, "the directory was not told where the volume ends");
    }
}

/// What health says while the directory is missing.
pub(crate) fn waiting_for(config: &Config) -> String {
    format!("directory at {}", config.directory)
}

/// Announces once. Until the directory has taken the position of the `opening` it is told no later one: a volume restored
/// from an old copy must not be written past what the directory knows, by mail taken without the directory or by its own
/// housekeeping, and then look new.
async fn announce(
    backend: &Backend,
    volume: &VolumeName,
    opening: &mut Option<VolumePosition>,
    health: &Health,
) -> Result<(), AnnounceError> {
    let asked = backend.volume.clone();
    // Reads the index.
    let Ok(status) = tokio::task::spawn_blocking(move || asked.status()).await else {
        return Ok(());
    };
    let was_used = opening.as_ref().is_some_and(|opened| opened.position > 0);
    if was_used && !is_known(backend, volume).await? {
        // Adopted before it was started, perhaps: then it has to skip ahead.
        backend.volume.mark_restored(0).await?;
    }
    let position = VolumePosition {
        incarnation: backend
            .volume
            .incarnation()
            .parse()
            .unwrap_or(Incarnation(0)),
        ..opening.clone().unwrap_or_else(|| position(volume, &status))
    };
    let request = AnnounceRequest {
        backend: backend.name.clone(),
        address: backend.config.advertised(),
        volumes: vec![position.clone()],
    };
    let keys = backend.directory.keys().await?;
    backend.grants.set_keys(&keys);
    let reply = backend.directory.announce(&request).await?;
    let mut known = reply.known.iter();
    let known = known.find(|known| known.name == position.name);
    if let Some(known) = known.filter(|known| is_older(&position, known)) {
        // Its UIDs may have been given to messages that this copy does not know (P3).
        backend.restored.store(true, Ordering::Relaxed);
        error!(volume = %volume, "the directory knows a newer state of this volume: it was restored from an old copy");
        health.set_failing(format!(
            "volume {volume} is older than the directory knows it; adopt it with `posthouse backend set {} --adopt-volume {volume}`",
            backend.name
        ));
        let is_same_life = known.incarnation == position.incarnation;
        let lost = known.position.saturating_sub(position.position);
        let lost = if is_same_life { lost } else { 0 };
        backend.volume.mark_restored(lost).await?;
        return Ok(());
    }
    if was_used && known.is_none() {
        backend.volume.mark_restored(0).await?;
    }
    if backend.volume.is_restored() {
        backend.restored.store(true, Ordering::Relaxed);
        info!(volume = %volume, "the volume is adopted: its mailboxes skip ahead");
        health.set_failing(format!(
            "volume {volume} is adopted, and takes mail when its mailboxes have skipped ahead"
        ));
        backend.volume.adopt().await?;
        warn!(volume = %volume, "the volume is adopted, and takes mail");
    }
    backend.restored.store(false, Ordering::Relaxed);
    *opening = None;
    if let Some(why) = status.read_only {
        health.set_failing(format!("volume {volume} takes no writes: {why}"));
    } else {
        health.set_ready();
    }
    Ok(())
}

/// Why the volume is not announced, or not as it should be.
#[derive(Debug, thiserror::Error)]
enum AnnounceError {
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error("the volume's folder cannot be written: {0}")]
    Folder(#[from] io::Error),
    #[error("the volume cannot be adopted: {}", causes(.0))]
    Adopt(#[from] AdoptError),
}

/// Whether the directory has a life of the volume. One that was used and is not known was adopted while it was away, or
/// the directory is a new one.
async fn is_known(backend: &Backend, volume: &VolumeName) -> Result<bool, DirectoryError> {
    match backend.directory.backend(&backend.name).await {
        Ok(known) => Ok(known
            .volumes
            .iter()
            .any(|known| known.name == *volume && known.incarnation.is_some())),
        Err(DirectoryError::Unknown) => Ok(false),
        Err(error) => Err(error),
    }
}

fn position(volume: &VolumeName, status: &VolumeStatus) -> VolumePosition {
    VolumePosition {
        name: volume.clone(),
        incarnation: status.incarnation.parse().unwrap_or(Incarnation(0)),
        position: status.position.0,
    }
}

fn is_older(ours: &VolumePosition, known: &VolumePosition) -> bool {
    known.incarnation != ours.incarnation || known.position > ours.position
}
