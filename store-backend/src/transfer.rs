//! The paths under `/v1/transfer`: one account goes from one back-end to another.
//!
//! Every step is one command of the volume, durable when answered and harmless when repeated; what
//! may follow what is decided there. Here are roles, the end of the account's sessions at a freeze,
//! and the streams of items and blobs.

mod pull;
mod source;
mod tallies;

pub(crate) use pull::Pulls;
pub(crate) use source::{
    PIECE_OCTETS, STALL_MAX, Stopped, WINDOW_PIECES, blob_of, send, send_blob,
};
pub(crate) use tallies::Tallies;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::routing::post;
use axum::{Extension, Json, Router};
use daemon::identity::{Peer, Role};
use daemon::link::{Problem, require};
use directory_api::{AccountId, BackendName, Epoch};
use http::StatusCode;
use store_api::transfer::{
    AccountState as WireState, Activate, Freeze, Offer, POP3_OPEN, Release, Summary, SummaryQuery,
    Undo, path,
};
use store_api::{MoveId, SetHash};
use tracing::{info, warn};

use crate::backend::Backend;
use crate::link::Asked;
use crate::volume::{AccountState, Hash, ReadError, Refusal};
use crate::volumes::Mounted;
use crate::{metrics, refusal};

/// The paths, each with its roles checked first.
pub(crate) fn routes() -> Router<Arc<Backend>> {
    Router::new()
        .route(path::OFFER, post(offer))
        .route(path::FREEZE, post(freeze))
        .route(path::THAW, post(thaw))
        .route(path::DISCARD, post(discard))
        .route(path::SUMMARY, post(summary))
        .route(path::ACTIVATE, post(activate))
        .route(path::RELEASE, post(release))
        .route(path::PULL, post(pull::serve))
        .route(path::SUMS, post(source::sums))
        .route(path::EXPORT, post(source::export))
        .route(path::BLOB, post(source::blob))
}

/// Who drives a move.
const DRIVERS: [Role; 2] = [Role::Migrator, Role::Operator];

/// Sessions end at their next command's edge, most of them at once. The others are not waited for before the freeze: their
/// users' mail would wait, too.
const SESSIONS_END_FIRST: Duration = Duration::from_millis(100);
/// One that is sending a message to a slow reader is not waited for longer, because it cannot write any more.
const SESSIONS_END_WITHIN: Duration = Duration::from_secs(2);

type Answer = Result<Json<Summary>, Problem>;

async fn offer(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    Asked(request): Asked<Offer>,
) -> Answer {
    require(&peer, &DRIVERS)?;
    let Offer {
        account,
        epoch,
        move_id,
        target,
    } = request;
    let home = backend.volumes.of(account).await?;
    // An old copy must not be moved to where it would be taken for the account (P3).
    home.check_writable()?;
    let known = home.account(account).await?;
    let offered = match known.map(|info| (info.state, info.epoch)) {
        Some((AccountState::Active, ours)) if ours != epoch => Err(Refusal::StaleEpoch { ours }),
        Some((AccountState::Active, _)) => Ok(()),
        Some((AccountState::Frozen { move_id: frozen }, _)) if frozen == octets(move_id) => Ok(()),
        Some((AccountState::Frozen { .. } | AccountState::Importing { .. }, _)) => {
            Err(Refusal::OtherMove)
        }
        Some((AccountState::Moved { backend, epoch }, _)) => Err(Refusal::Moved { backend, epoch }),
        // An account that was never used moves like any other.
        None => home.volume.ensure_account(account, epoch).await,
    };
    if offered.is_ok() {
        backend.lets_read(account, move_id, target)?;
        // Behind that, so that a thaw which comes in between is seen or sees it.
        let has_ended = home.volume.has_ended(account, octets(move_id)).await;
        if has_ended.map_err(|error| refusal::read(&error))? {
            backend.tallies.forget(account, move_id);
            let ended = Err(Refusal::WrongState);
            return backend.done("offer", account, move_id, ended).await;
        }
    }
    backend.done("offer", account, move_id, offered).await
}

async fn freeze(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    Asked(request): Asked<Freeze>,
) -> Answer {
    require(&peer, &DRIVERS)?;
    let Freeze {
        account,
        epoch,
        move_id,
        force,
        target,
    } = request;
    let home = backend.volumes.of(account).await?;
    home.check_writable()?;
    if let Some(target) = target {
        backend.lets_read(account, move_id, target)?;
    }
    let known = home.account(account).await?;
    let has_ended = home.volume.has_ended(account, octets(move_id)).await;
    let has_ended = has_ended.map_err(|error| refusal::read(&error))?;
    let can_freeze =
        known.is_none_or(|info| info.state == AccountState::Active && info.epoch == epoch);
    let will_freeze = can_freeze && !has_ended;
    // No session opens from here on, until the volume itself says so; and those that can end before have written all they
    // were about to.
    let closing = match will_freeze {
        true => Some(backend.sessions.close(account, force).ok_or_else(|| {
            metrics::transfer("freeze", "postponed");
            Problem::new(StatusCode::CONFLICT, POP3_OPEN, "a POP3 session is open")
        })?),
        false => None,
    };
    if closing.is_some() {
        backend.sessions.end(account, SESSIONS_END_FIRST).await;
    }
    let frozen = home.volume.freeze(account, epoch, octets(move_id)).await;
    drop(closing);
    if frozen.is_err() {
        backend.tallies.forget(account, move_id);
    } else {
        let sessions = backend.sessions.clone();
        backend.shutdown.spawn(async move {
            let (open, all_ended) = sessions.end(account, SESSIONS_END_WITHIN).await;
            if !all_ended {
                warn!(%account, %move_id, sessions = open, "some sessions of a frozen account have not ended yet; they cannot write");
            }
        });
    }
    backend.done("freeze", account, move_id, frozen).await
}

async fn thaw(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    Asked(request): Asked<Undo>,
) -> Answer {
    require(&peer, &DRIVERS)?;
    let Undo {
        account, move_id, ..
    } = request;
    let home = backend.volumes.of(account).await?;
    let thawed = home.volume.thaw(account, octets(move_id)).await;
    backend.tallies.forget(account, move_id);
    backend.done("thaw", account, move_id, thawed).await
}

async fn discard(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    Asked(request): Asked<Undo>,
) -> Answer {
    require(&peer, &DRIVERS)?;
    let Undo {
        account,
        move_id,
        source,
        volume,
    } = request;
    let home = match &volume {
        // Where a pull of this move that comes late would begin.
        Some(volume) => backend.volumes.named(volume)?,
        None => backend.volumes.of_or_any(account).await?,
    };
    // A pull that is still running would go on writing.
    backend.pulls.stop(account, move_id);
    let discarded = home
        .volume
        .discard_import(account, octets(move_id), source)
        .await;
    backend.tallies.forget(account, move_id);
    backend.done("discard", account, move_id, discarded).await
}

async fn activate(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    Asked(request): Asked<Activate>,
) -> Answer {
    require(&peer, &DRIVERS)?;
    let Activate {
        account,
        move_id,
        epoch,
    } = request;
    let home = backend.volumes.of(account).await?;
    let activated = home.volume.activate(account, epoch, octets(move_id)).await;
    backend.tallies.forget(account, move_id);
    backend.done("activate", account, move_id, activated).await
}

async fn release(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    Asked(request): Asked<Release>,
) -> Answer {
    require(&peer, &DRIVERS)?;
    let Release {
        account,
        move_id,
        backend: new_home,
        epoch,
    } = request;
    let home = backend.volumes.of(account).await?;
    let released = home
        .volume
        .release(account, octets(move_id), new_home, epoch)
        .await;
    backend.tallies.forget(account, move_id);
    backend.done("release", account, move_id, released).await
}

async fn summary(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    Asked(request): Asked<SummaryQuery>,
) -> Answer {
    require(&peer, &DRIVERS)?;
    backend.summary(request.account, true).await.map(Json)
}

impl Backend {
    /// From here on this target may read the account for this move.
    fn lets_read(
        &self,
        account: AccountId,
        move_id: MoveId,
        target: BackendName,
    ) -> Result<(), Problem> {
        match self.tallies.offer(account, move_id, target) {
            true => Ok(()),
            false => Err(Problem::unavailable("too many moves are under way here")),
        }
    }

    /// Logs and counts one step and answers with what is here after it.
    async fn done(
        &self,
        step: &'static str,
        account: AccountId,
        move_id: MoveId,
        outcome: Result<(), Refusal>,
    ) -> Answer {
        // What has come or gone may be on another volume next time.
        self.volumes.forget(account);
        if let Err(refused) = outcome {
            metrics::transfer(step, "refused");
            warn!(step, %account, %move_id, why = %refused, "transfer step refused");
            return Err(refusal::account(refused));
        }
        let summary = self.summary(account, false).await?;
        metrics::transfer(step, "done");
        info!(step, %account, %move_id, state = ?summary.state, epoch = %summary.epoch, messages = summary.messages, "transfer step done");
        Ok(Json(summary))
    }

    /// `summed`: with the sum over all items.
    async fn summary(&self, account: AccountId, summed: bool) -> Result<Summary, Problem> {
        let absent = Summary {
            state: WireState::Absent,
            epoch: Epoch(0),
            move_id: None,
            messages: 0,
            octets: 0,
            set_hash: summed.then_some(SetHash([0; 32])),
        };
        let home = self.volumes.of_or_any(account).await?;
        let Some(info) = home.account(account).await? else {
            return Ok(absent);
        };
        let mailboxes = home
            .volume
            .mailboxes(account)
            .await
            .map_err(|error| refusal::read(&error))?;
        if mailboxes.is_empty() {
            // Discarded: what is left remembers only where the account lives (P4).
            return Ok(absent);
        }
        let (state, move_id) = match info.state {
            AccountState::Active => (WireState::Active, None),
            AccountState::Frozen { move_id } => {
                (WireState::Frozen, Some(MoveId::from_octets(move_id)))
            }
            AccountState::Importing { move_id } => {
                (WireState::Importing, Some(MoveId::from_octets(move_id)))
            }
            AccountState::Moved { .. } => (WireState::Moved, None),
        };
        let set_hash = match summed {
            true => Some(self.set_hash(&home, account, &info.state).await),
            false => None,
        };
        let set_hash = set_hash
            .transpose()
            .map_err(|error| refusal::read(&error))?;
        Ok(Summary {
            state,
            epoch: info.epoch,
            move_id,
            messages: info.message_count,
            octets: info.size_octets,
            set_hash: set_hash.map(SetHash),
        })
    }

    /// Of an account in a move the sums are at hand.
    async fn set_hash(
        &self,
        home: &Mounted,
        account: AccountId,
        state: &AccountState,
    ) -> Result<Hash, ReadError> {
        let (tallies, volume) = (&self.tallies, &home.volume);
        let tally = match state {
            AccountState::Frozen { move_id } => {
                let move_id = MoveId::from_octets(*move_id);
                tallies.refreshed(volume, account, move_id).await?
            }
            AccountState::Importing { move_id } => {
                let move_id = MoveId::from_octets(*move_id);
                tallies.counted(volume, account, move_id).await?
            }
            AccountState::Active | AccountState::Moved { .. } => {
                return volume.set_hash(account).await;
            }
        };
        Ok(tally.set_hash())
    }
}

/// The form in which the volume keeps it.
pub(crate) fn octets(move_id: MoveId) -> [u8; 16] {
    u128::from_str_radix(&move_id.to_string(), 16)
        .expect("a move's number prints as hexadecimal")
        .to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moves_number_is_the_same_in_the_volume_and_on_the_wire() {
        let number = [
            0x00, 0x12, 0xff, 0x80, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
        ];
        assert_eq!(octets(MoveId::from_octets(number)), number);
    }
}
