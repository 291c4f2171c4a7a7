//! Reads a request's body, query or key; what cannot be read is a typed refusal.

use std::fmt::Display;
use std::str::FromStr;

use axum::body::to_bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use daemon::link::Problem;
use directory_api::wire::limit;
use http::request::Parts;
use serde::de::DeserializeOwned;

/// A JSON body of at most [`limit::BODY_MAX_OCTETS`].
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let octets = to_bytes(request.into_body(), limit::BODY_MAX_OCTETS)
            .await
            .map_err(|error| Problem::bad_request(format!("body cannot be read: {error}")))?;
        serde_json::from_slice(&octets)
            .map(Self)
            .map_err(|error| Problem::bad_request(format!("body: {error}")))
    }
}

/// The query behind the `?`.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(query)| Self(query))
            .map_err(|error| Problem::bad_request(error.body_text()))
    }
}

/// The key of an item, the last segment of its path.
pub(super) struct Key<T>(pub(super) T);

impl<T, S> FromRequestParts<S> for Key<T>
where
    T: FromStr,
    T::Err: Display,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|error| Problem::bad_request(error.body_text()))?;
        text.parse()
            .map(Self)
            .map_err(|error| Problem::bad_request(format!("{text:?} cannot be a key: {error}")))
    }
}
