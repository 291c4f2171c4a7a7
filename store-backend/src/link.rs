//! What this back-end answers to the other tiers: the paths of its link.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::routing::{get, post};
use bytes::Bytes;
use daemon::link::{Problem, next_data};
use serde::de::DeserializeOwned;
use store_api::frame::{Decoder, Event, Kind};
use store_api::{
    answered as answered_api, away as away_api, deliver as deliver_api, load as load_api,
    room as room_api, session as session_api,
};
use tokio::time::timeout;

use crate::backend::Backend;
use crate::refusal::malformed;
use crate::{answered, away, backup, deliver, hold, left, load, room, session, transfer, undelete};

/// Every path of version 1.
pub(crate) fn router(backend: Arc<Backend>) -> Router {
    Router::new()
        .route(deliver_api::PATH, post(deliver::serve))
        .route(session_api::PATH, post(session::serve))
        .route(session_api::SHOWN_PATH, post(session::serve_shown))
        .route(session_api::LEFT_PATH, post(left::serve))
        .route(room_api::PATH, post(room::serve))
        .route(answered_api::PATH, post(answered::serve))
        .route(away_api::PATH, get(away::serve))
        .route(load_api::PATH, post(load::serve))
        .merge(transfer::routes())
        .merge(backup::routes())
        .merge(undelete::routes())
        .merge(hold::routes())
        .with_state(backend)
}

/// Reads the JSON frame that opens a stream. It is sent together with the request.
pub(crate) async fn first_frame<T: DeserializeOwned>(
    body: &mut Body,
    decoder: &mut Decoder,
) -> Result<T, Problem> {
    let frame = timeout(OPEN_WITHIN, next_event(body, decoder))
        .await
        .map_err(|_| malformed("no open frame came"))?;
    match frame? {
        Some(Event::Control(Kind::Open, payload)) => json(&payload),
        _ => Err(malformed("the first frame does not open the stream")),
    }
}

/// The next event of a framed body; `None` when the body ended between two frames.
pub(crate) async fn next_event(
    body: &mut Body,
    decoder: &mut Decoder,
) -> Result<Option<Event>, Problem> {
    loop {
        if let Some(event) = decoder
            .next()
            .map_err(|_| malformed("the framing is not of version 1"))?
        {
            return Ok(Some(event));
        }
        match next_data(body).await {
            Ok(Some(piece)) => decoder.push(piece),
            Ok(None) if decoder.at_edge() => return Ok(None),
            Ok(None) | Err(_) => return Err(malformed("the stream was cut")),
        }
    }
}

/// A JSON body of at most [`ASKED_MAX_OCTETS`]; what is not one is refused with a typed problem.
pub(crate) struct Asked<T>(pub(crate) T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let body = to_bytes(request.into_body(), ASKED_MAX_OCTETS);
        let body = timeout(OPEN_WITHIN, body)
            .await
            .map_err(|_| malformed("the body did not come"))?;
        json(&body.map_err(|_| malformed("the body is too large, or was cut"))?).map(Self)
    }
}

/// Reads a JSON payload.
pub(crate) fn json<T: DeserializeOwned>(payload: &Bytes) -> Result<T, Problem> {
    serde_json::from_slice(payload).map_err(|error| malformed_json(&error))
}

fn malformed_json(error: &serde_json::Error) -> Problem {
    // The position and the field's name tell the writer of the other tier what to mend.
    Problem {
        message: format!("not of this version's form: {error}"),
        ..malformed("")
    }
}

/// A peer sends the first frame, or a small body, together with its request.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// The questions of a move are some hundred octets.
const ASKED_MAX_OCTETS: usize = 64 << 10;
