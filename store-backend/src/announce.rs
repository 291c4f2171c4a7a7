//! Tells the directory that this back-end is there, and learns the keys of grants.
//!
//! Writes wait for the first attempt alone: a delivery that names the right epoch is taken while the
//! directory is away. Only a login cannot be, and is refused by whoever asked the directory for it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use daemon::log::causes;
use directory_api::VolumeName;
use directory_api::client::DirectoryError;
use directory_api::wire::{AnnounceRequest, Incarnation, Volume as Listed, VolumePosition};
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use crate::backend::Backend;
use crate::conditions::{Condition, Conditions};
use crate::metrics;
use crate::volume::{AdoptError, VolumeStatus};
use crate::volumes::Mounted;

/// While all is well.
const EVERY: Duration = Duration::from_secs(10);
/// While the directory is missing: soon enough that a start in any order takes seconds.
const RETRY: Duration = Duration::from_millis(500);
/// A stop does not wait longer for a directory that is away.
const LAST_WITHIN: Duration = Duration::from_secs(1);

/// Announces one volume until the shutdown, whatever becomes of the others. `opened` is how it was before anything was
/// written to it.
pub(crate) async fn run(
    backend: Arc<Backend>,
    mounted: Arc<Mounted>,
    opened: VolumeStatus,
    conditions: Arc<Conditions>,
) {
    let name = &mounted.name;
    // One without a record may be a folder on which no disk is mounted: the directory would know.
    let may_be_old = mounted.volume.is_restored() || opened.position.0 == 0;
    let mut announced = false;
    let mut opening = Some(position(&mounted, &opened));
    let mut is_first = true;
    loop {
        let pause = match announce(&backend, &mounted, &mut opening, &conditions).await {
            Ok(()) => {
                if !announced {
                    info!(directory = backend.config.directory, volume = %name, "announced");
                }
                announced = true;
                mounted.set_announced(opening.is_none());
                EVERY
            }
            Err(error) => {
                // Without a directory, what names the right epoch is taken. That it cannot be written down that this is
                // an old copy is no such case.
                if is_first && matches!(error, AnnounceError::Directory(_)) {
                    mounted.set_restored(may_be_old);
                }
                if announced {
                    warn!(%error, directory = backend.config.directory, volume = %name, "directory does not take our announcement");
                }
                announced = false;
                conditions.waits(name);
                RETRY
            }
        };
        is_first = false;
        metrics::announced(&backend.name, name, announced);
        tokio::select! {
            () = sleep(pause) => {}
            () = backend.shutdown.requested() => return,
        }
    }
}

/// Tells the directory where a volume ends that was just closed: a copy of it that is older by a single record is one too
/// old. Without a directory it is as after a crash: what was written since the last announcement does not tell.
pub(crate) async fn last(backend: &Backend, mounted: &Mounted, closed: &VolumeStatus) {
    if !mounted.may_write() || !mounted.is_announced() {
        return;
    }
    let request = AnnounceRequest {
        backend: backend.name.clone(),
        address: backend.config.advertised(),
        volumes: vec![position(mounted, closed)],
    };
    let announced = timeout(LAST_WITHIN, backend.directory.announce(&request)).await;
    if !matches!(announced, Ok(Ok(_))) {
        info!(volume = %mounted.name, "the directory was not told where the volume ends");
    }
}

/// Announces once. Until the directory has taken the position of the `opening` it is told no later one: a volume restored
/// from an old copy must not be written past what the directory knows, by mail taken without the directory or by its own
/// housekeeping, and then look new.
async fn announce(
    backend: &Backend,
    mounted: &Mounted,
    opening: &mut Option<VolumePosition>,
    conditions: &Conditions,
) -> Result<(), AnnounceError> {
    let Mounted {
        name: volume,
        volume: ours,
        ..
    } = mounted;
    let asked = ours.clone();
    // Reads the index.
    let Ok(status) = tokio::task::spawn_blocking(move || asked.status()).await else {
        return Ok(());
    };
    let was_used = opening.as_ref().is_some_and(|opened| opened.position > 0);
    let is_known = |listed: Option<Listed>| listed.is_some_and(|one| one.incarnation.is_some());
    // One that was used and is not known was adopted while it was away, or the directory is a new one.
    if was_used && !is_known(listed(backend, volume).await?) {
        // Adopted before it was started, perhaps: then it has to skip ahead.
        ours.mark_restored(0).await?;
    }
    let position = VolumePosition {
        incarnation: ours.incarnation().parse().unwrap_or(Incarnation(0)),
        ..opening
            .clone()
            .unwrap_or_else(|| position(mounted, &status))
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
        mounted.set_restored(true);
        let adopt = format!(
            "`posthouse backend set {} --adopt-volume {volume}`",
            backend.name
        );
        let why = match opening.as_ref().is_some_and(|opened| opened.position == 0) {
            true => {
                error!(volume = %volume, "the directory knows this volume with mail, and it is empty");
                format!(
                    "volume {volume} is empty, but older than the directory knows it: mount its disk and start again; if that is lost, restore a backup first, and only then adopt it with {adopt}"
                )
            }
            false => {
                error!(volume = %volume, "the directory knows a newer state of this volume: it was restored from an old copy");
                format!(
                    "volume {volume} is older than the directory knows it; adopt it with {adopt}"
                )
            }
        };
        let is_same_life = known.incarnation == position.incarnation;
        let lost = known.position.saturating_sub(position.position);
        let lost = if is_same_life { lost } else { 0 };
        // It is on disk before anybody is told to adopt the volume.
        let marked = ours.mark_restored(lost).await;
        conditions.set(volume, Condition::Failing(why));
        marked?;
        return Ok(());
    }
    if was_used && known.is_none() {
        ours.mark_restored(0).await?;
    }
    if ours.is_restored() {
        mounted.set_restored(true);
        info!(volume = %volume, "the volume is adopted: its mailboxes skip ahead");
        conditions.set(
            volume,
            Condition::Failing(format!(
                "volume {volume} is adopted, and takes mail when its mailboxes have skipped ahead"
            )),
        );
        ours.adopt().await?;
        warn!(volume = %volume, "the volume is adopted, and takes mail");
    }
    mounted.set_restored(false);
    *opening = None;
    let condition = match status.read_only {
        Some(why) => Condition::Failing(format!("volume {volume} takes no writes: {why}")),
        None => Condition::Open,
    };
    conditions.set(volume, condition);
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

/// What the directory has of the volume. Without a life it was there, and is adopted.
pub(crate) async fn listed(
    backend: &Backend,
    volume: &VolumeName,
) -> Result<Option<Listed>, DirectoryError> {
    match backend.directory.backend(&backend.name).await {
        Ok(known) => Ok(known.volumes.into_iter().find(|one| one.name == *volume)),
        Err(DirectoryError::Unknown) => Ok(None),
        Err(error) => Err(error),
    }
}

fn position(mounted: &Mounted, status: &VolumeStatus) -> VolumePosition {
    VolumePosition {
        name: mounted.name.clone(),
        incarnation: status.incarnation.parse().unwrap_or(Incarnation(0)),
        position: status.position.0,
    }
}

fn is_older(ours: &VolumePosition, known: &VolumePosition) -> bool {
    known.incarnation != ours.incarnation || known.position > ours.position
}
