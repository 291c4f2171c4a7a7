//! Which volumes take no mail now: asked by front-ends at RCPT.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use daemon::identity::{Peer, Role};
use daemon::link::{Problem, require};
use store_api::away::Away;

use crate::backend::Backend;

/// Serves `GET /v1/away`.
pub(crate) async fn serve(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
) -> Result<Json<Away>, Problem> {
    require(&peer, &[Role::MxFrontend])?;
    Ok(Json(Away {
        volumes: backend.volumes.away().collect(),
        holds: backend.may_hold().is_ok(),
    }))
}
