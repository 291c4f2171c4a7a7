//! How a request on a link is refused: a status and a typed reason.

use std::borrow::Cow;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::identity::{Peer, Role};

/// The body of every refusal: `{"code":"stale_epoch","message":"…","detail":{…}}`.
///
/// The code is for programs and never changes its meaning; the message is for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{code} ({status}): {message}")]
pub struct Problem {
    /// The HTTP status; not in the body. 4xx: the caller's fault, 5xx: ours for now.
    #[serde(skip, default = "unknown_status")]
    pub status: StatusCode,
    /// What is wrong, for programs.
    pub code: Cow<'static, str>,
    /// What is wrong, for people.
    pub message: String,
    /// What the caller needs to go on, as the code defines it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Value>,
}

impl Problem {
    /// Describes a refusal without detail.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.into(),
            message: message.into(),
            detail: None,
        }
    }

    /// Adds what the caller needs to go on.
    #[must_use]
    pub fn with_detail(self, detail: Value) -> Self {
        Self {
            detail: Some(detail),
            ..self
        }
    }

    /// The request makes no sense (400 `bad_request`).
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// What the request names is not there (404 `not_found`).
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// We cannot answer now; the same request may do later (503 `unavailable`).
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// A fault of ours; the cause belongs in the log, not here (500 `internal`).
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "internal error, see the log of this server",
        )
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(self)).into_response()
    }
}

fn unknown_status() -> StatusCode {
    StatusCode::INTERNAL_SERVER_ERROR
}

/// Lets a request pass only when it comes from one of `roles`.
///
/// # Errors
/// 403 `role_forbidden`.
pub fn require(peer: &Peer, roles: &[Role]) -> Result<(), Problem> {
    if roles.contains(&peer.role) {
        return Ok(());
    }
    let message = format!("{peer} may not do this");
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "role_forbidden",
        message,
    ))
}
