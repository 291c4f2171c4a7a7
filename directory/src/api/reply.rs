//! The one map from refusals to the wire. Causes go to the log, not to the caller.

use daemon::link::Problem;
use daemon::log::causes;
use directory_api::wire::code;
use http::StatusCode;
use serde::Serialize;
use tracing::error;

use crate::engine::EngineError;
use crate::login::Refused;
use crate::password::HashError;

pub(super) fn refused(error: EngineError) -> Problem {
    let message = error.to_string();
    let problem = |status, code| Problem::new(status, code, message);
    match error {
        EngineError::NotFound => problem(StatusCode::NOT_FOUND, code::NOT_FOUND),
        EngineError::Exists(_) => problem(StatusCode::CONFLICT, code::EXISTS),
        EngineError::OwnedByLdap(_) => problem(StatusCode::CONFLICT, code::OWNED_BY_LDAP),
        EngineError::LossHeld => problem(StatusCode::CONFLICT, code::IN_USE),
        EngineError::InUse(_) => problem(StatusCode::CONFLICT, code::IN_USE),
        EngineError::UnknownDomain(_) => {
            problem(StatusCode::UNPROCESSABLE_ENTITY, code::UNKNOWN_DOMAIN)
        }
        EngineError::AliasDomain { .. } => {
            problem(StatusCode::UNPROCESSABLE_ENTITY, code::ALIAS_DOMAIN)
        }
        EngineError::UnknownAccount(_) | EngineError::UnknownLogin(_) => {
            problem(StatusCode::UNPROCESSABLE_ENTITY, code::UNKNOWN_ACCOUNT)
        }
        EngineError::UnknownPlace(_) => {
            problem(StatusCode::UNPROCESSABLE_ENTITY, code::UNKNOWN_PLACE)
        }
        EngineError::NoBackend => problem(StatusCode::CONFLICT, code::NO_BACKEND),
        EngineError::StaleEpoch(home) => {
            problem(StatusCode::CONFLICT, code::STALE_EPOCH).with_detail(detail(&home))
        }
        EngineError::MoveInProgress(record) => {
            problem(StatusCode::CONFLICT, code::MOVE_IN_PROGRESS).with_detail(detail(&record))
        }
        EngineError::ChangesGone(_) => problem(StatusCode::GONE, code::CHANGES_GONE),
        EngineError::TooManyTargets(_) => {
            problem(StatusCode::UNPROCESSABLE_ENTITY, code::TOO_MANY_TARGETS)
        }
        EngineError::Invalid(_) => problem(StatusCode::BAD_REQUEST, code::BAD_REQUEST),
        EngineError::Storage(_) => {
            error!(cause = causes(&error), "storage failed");
            problem(StatusCode::SERVICE_UNAVAILABLE, code::STORAGE)
        }
    }
}

pub(super) fn login_refused(error: Refused) -> Problem {
    let status = match error {
        Refused::Engine(error) => return refused(error),
        Refused::BadCredentials => StatusCode::UNAUTHORIZED,
        Refused::Suspended
        | Refused::Closing
        | Refused::ServiceForbidden
        | Refused::ChannelBinding => StatusCode::FORBIDDEN,
        Refused::Throttled => StatusCode::TOO_MANY_REQUESTS,
        Refused::Moving | Refused::HomeDown | Refused::LdapAway => StatusCode::SERVICE_UNAVAILABLE,
        Refused::ForeignBackend | Refused::SaslState => StatusCode::CONFLICT,
        Refused::SaslMalformed | Refused::SaslNotOffered => StatusCode::UNPROCESSABLE_ENTITY,
    };
    Problem::new(status, error.code(), error.to_string())
}

pub(super) fn hash_refused(error: HashError) -> Problem {
    let message = error.to_string();
    match error {
        HashError::Throttled => {
            Problem::new(StatusCode::TOO_MANY_REQUESTS, code::THROTTLED, message)
        }
        HashError::Form(_) | HashError::Empty | HashError::Slow => Problem::bad_request(message),
        HashError::Failed => Problem::internal(),
    }
}

pub(super) fn too_many(what: &str, limit: usize) -> Problem {
    Problem::bad_request(format!("too many {what}, the limit is {limit}"))
}

pub(super) fn role_forbidden(message: String) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, code::ROLE_FORBIDDEN, message)
}

fn detail(value: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_default()
}
