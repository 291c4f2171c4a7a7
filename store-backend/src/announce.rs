//! Tells the directory that this back-end is there, and learns the keys of grants.
//!
//! Writes wait for the first attempt alone: a delivery that names the right epoch is taken while the
//! directory is away. Only a login cannot be, and is refused by whoever asked the directory for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use daemon::health::Health;
use directory_api::VolumeName;
use directory_api::client::DirectoryError;
use directory_api::wire::{AnnounceRequest, Incarnation, VolumePosition};
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::backend::Backend;
use crate::config::Config;
use crate::metrics;
use crate::volume::VolumeStatus;

/// While all is well.
const EVERY: Duration = Duration::from_secs(10);
/// While the directory is missing: soon enough that a start in any order takes seconds.
const RETRY: Duration = Duration::from_millis(500);

/// Announces until the shutdown. `opened` is how the volume was before anything was written to it.
pub(crate) async fn run(
    backend: Arc<Backend>,
    volume: VolumeName,
    opened: VolumeStatus,
    health: Health,
) {
    let waiting = waiting_for(&backend.config);
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
                EVERY
            }
            Err(error) => {
                if is_first {
                    backend.restored.store(false, Ordering::Relaxed);
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
) -> Result<(), DirectoryError> {
    let asked = backend.volume.clone();
    // Reads the index.
    let Ok(status) = tokio::task::spawn_blocking(move || asked.status()).await else {
        return Ok(());
    };
    metrics::volume(&backend.name, &status);
    let position = opening.clone().unwrap_or_else(|| position(volume, &status));
    let request = AnnounceRequest {
        backend: backend.name.clone(),
        address: backend.config.advertised(),
        volumes: vec![position.clone()],
    };
    let keys = backend.directory.keys().await?;
    backend.grants.set_keys(&keys);
    let reply = backend.directory.announce(&request).await?;
    let restored = reply
        .known
        .iter()
        .any(|known| known.name == position.name && is_older(&position, known));
    backend.restored.store(restored, Ordering::Relaxed);
    if !restored {
        *opening = None;
    }
    if restored {
        // Its UIDs may have been given to messages that this copy does not know (P3).
        error!(volume = %volume, "the directory knows a newer state of this volume: it was restored from an old copy");
        health.set_failing(format!(
            "volume {volume} is older than the directory knows it; adopt it with `posthouse backend set {} --adopt-volume {volume}`",
            backend.name
        ));
    } else if let Some(why) = status.read_only {
        health.set_failing(format!("volume {volume} takes no writes: {why}"));
    } else {
        health.set_ready();
    }
    Ok(())
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
