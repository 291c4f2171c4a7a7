//! How much an account may still take: asked by front-ends and siblings, and by our own LMTP, at RCPT.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use daemon::identity::{Peer, Role};
use daemon::link::{Problem, require};
use directory_api::wire::Located;
use store_api::room::{Room, RoomRequest};
use tracing::{info, warn};

use crate::backend::Backend;
use crate::link::Asked;
use crate::metrics;
use crate::volume::AccountState;

/// Serves `POST /v1/room`.
pub(crate) async fn serve(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    Asked(request): Asked<RoomRequest>,
) -> Result<Json<Room>, Problem> {
    require(&peer, &[Role::MxFrontend, Role::StoreBackend])?;
    backend.room(&request).await.map(Json)
}

impl Backend {
    /// What mail the account may still take by the newer of the limits known here and to the caller.
    async fn room(&self, request: &RoomRequest) -> Result<Room, Problem> {
        let RoomRequest { account, quota } = *request;
        let grace = self.config.limits.quota_grace_percent;
        let home = self.volumes.of(account).await?;
        let Some(info) = home.account(account).await? else {
            return Ok(Room::left_with_grace(&quota, 0, 0, grace));
        };
        if info.state != AccountState::Active {
            // It is moving or has moved: the delivery will find out.
            return Ok(Room::ANY);
        }
        let is_news = quota.as_of > info.quota.as_of;
        if is_news && home.may_write() {
            // For sessions that are open for long. It may freeze meanwhile; the next login brings it too.
            let told = home.volume.limit_account(account, info.epoch, quota).await;
            if let Err(refusal) = told {
                warn!(%account, error = %refusal, "new quota was not taken over");
            }
        }
        let quota = if is_news { quota } else { info.quota };
        let room = Room::left_with_grace(&quota, info.message_count, info.size_octets, grace);
        if !room.takes(None) {
            metrics::quota("recipient");
            info!(%account, reason = "over_quota", messages = info.message_count, octets = info.size_octets,
                ?quota, "account is full");
        }
        Ok(room)
    }

    /// Whether all of a recipient's accounts are full; see [`store_api::room::Rooms::are_full`].
    pub(crate) async fn are_full(&self, homes: &[Located], declared_octets: Option<u64>) -> bool {
        for located in homes {
            let room = if !located.quota.is_limited() {
                Room::ANY
            } else if located.home.backend == self.name {
                let request = RoomRequest {
                    account: located.account,
                    quota: located.quota,
                };
                self.room(&request).await.unwrap_or_else(|error| {
                    warn!(account = %located.account, %error, "quota cannot be read, it is passed over");
                    Room::ANY
                })
            } else {
                self.rooms.of(&self.backends, located).await
            };
            if room.takes(declared_octets) {
                return false;
            }
        }
        !homes.is_empty()
    }
}
