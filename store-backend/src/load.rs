//! What accounts cost: kept while a volume is open, and told to the migrator and to operators at `POST /v1/load`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::{Extension, Json};
use daemon::clock::now_ms;
use daemon::identity::{Peer, Role};
use daemon::link::{Problem, require};
use daemon::log::causes;
use directory_api::VolumeName;
use store_api::load::{
    ACCOUNTS_MAX, AccountLoad, Figures, LoadReply, LoadRequest, VolumeLoad, Week,
};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::backend::Backend;
use crate::link::Asked;
use crate::refusal::{self, malformed};
use crate::volume::{ReadError, Volume};
use crate::volumes::Mounted;

/// Serves `POST /v1/load`.
pub(crate) async fn serve(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    Asked(request): Asked<LoadRequest>,
) -> Result<Json<LoadReply>, Problem> {
    require(&peer, &[Role::Migrator, Role::Operator])?;
    let (mut accounts, mut has_more) = (Vec::new(), false);
    match request {
        LoadRequest::Volumes => {}
        LoadRequest::Accounts { volume, after } => {
            if after.is_none() {
                // How much everybody uses his mail, and who has asked for it.
                info!(%peer, %volume, "costs of accounts told");
            }
            let mut mounted = backend.volumes.mounted();
            let mounted = mounted.find(|one| one.name == volume);
            let mounted =
                mounted.ok_or_else(|| Problem::unavailable("no volume of this name is open"))?;
            let asked =
                |volume: Volume| async move { volume.loads_after(after, ACCOUNTS_MAX).await };
            (accounts, has_more) = mounted.ask(asked).await.map_err(|e| refusal::read(&e))?;
        }
        LoadRequest::Heaviest { count } => {
            if count > ACCOUNTS_MAX {
                return Err(malformed("more accounts than one answer has"));
            }
            info!(%peer, count, "heaviest accounts told");
            for mounted in backend.volumes.mounted() {
                let asked = |volume: Volume| async move { volume.heaviest(count).await };
                // One that does not answer is told as one that is not open.
                accounts.extend(mounted.ask(asked).await.unwrap_or_default());
            }
            let cost = |one: &AccountLoad| one.figures.cost_us();
            accounts.sort_by(|one, other| cost(other).total_cmp(&cost(one)));
            accounts.truncate(count);
        }
    }
    Ok(Json(LoadReply {
        volumes: volumes(&backend).await,
        accounts,
        has_more,
    }))
}

async fn volumes(backend: &Backend) -> Vec<VolumeLoad> {
    let mut loads = Vec::new();
    for (name, mounted) in backend.volumes.all() {
        let load = match mounted {
            Some(mounted) => {
                let asked = |volume: Volume| async move {
                    let load = spawn_blocking(move || volume.load_of_all());
                    load.await.map_err(|_| ReadError::Stopped)
                };
                mounted.ask(asked).await.ok()
            }
            None => None,
        };
        loads.push(load.unwrap_or_else(|| closed(name)));
    }
    loads
}

fn closed(name: &VolumeName) -> VolumeLoad {
    VolumeLoad {
        name: name.clone(),
        is_open: false,
        accounts: 0,
        size_bytes: 0,
        free_bytes: 0,
        is_nearly_full: false,
        outstanding: 0,
        observed_h: 0.0,
        total: Figures::default(),
        observed: Week::default(),
        rest: Week::default(),
    }
}

/// Takes note of what is counted each minute, and writes it down now and then, until the shutdown.
pub(crate) async fn run(backend: Arc<Backend>, mounted: Arc<Mounted>) {
    let mut saved = Instant::now();
    loop {
        tokio::select! {
            () = sleep(FOLD_EVERY) => {}
            () = backend.shutdown.requested() => return,
        }
        let is_due = saved.elapsed() >= SAVE_EVERY;
        if is_due {
            saved = Instant::now();
        }
        let (name, volume) = (mounted.name.clone(), mounted.volume.clone());
        // What waits for a disk that does not answer waits here.
        let kept = spawn_blocking(move || match is_due {
            true => keep(&name, &volume),
            false => volume.fold_load(now_ms()),
        });
        if kept.await.is_err() {
            return;
        }
    }
}

/// Takes note of what was counted, and writes it down. Blocking.
pub(crate) fn keep(name: &VolumeName, volume: &Volume) {
    volume.fold_load(now_ms());
    // The old one is more than the room that others need.
    if volume.status().space.refuses {
        return;
    }
    if let Err(error) = volume.save_load() {
        warn!(volume = %name, error = %causes(&error), "what accounts cost is not written down: a restart counts from the last time it was");
    }
}

/// In one pass over all rows: a million take some milliseconds.
const FOLD_EVERY: Duration = Duration::from_secs(60);
/// What a restart may forget. With a million accounts it is 55 MB: 90 KB/s.
const SAVE_EVERY: Duration = Duration::from_secs(600);
