//! What may come back instead of an answer, sorted by what the asker does then.

use std::sync::Arc;

use daemon::link::{CallError, LinkError, Problem};
use http::StatusCode;

use crate::types::Home;
use crate::wire::{MoveRecord, code};

/// Why the directory gave no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It cannot be reached, is too slow, is in trouble itself or answers nonsense: answer
    /// temporarily and try again. Never to be taken for "unknown" (P6).
    #[error("directory is away")]
    Away(#[source] Arc<AwayCause>),
    /// It has nothing under that name.
    #[error("directory has nothing under that name")]
    Unknown,
    /// It refuses, and would again.
    #[error("directory refuses: {}", .0.message)]
    Refused(Problem),
}

/// Why the directory counts as away.
#[derive(Debug, thiserror::Error)]
pub enum AwayCause {
    /// No answer came, or it could not be read.
    #[error("call failed")]
    Call(#[source] CallError),
    /// The directory says that it cannot answer now.
    #[error("directory is in trouble: {}: {}", .0.code, .0.message)]
    Trouble(Problem),
    /// The answer contradicts the question.
    #[error("{0}")]
    Nonsense(&'static str),
    /// It was not asked: it has just given no answer to somebody else here.
    #[error("it gave no answer a moment ago")]
    Silent,
}

impl DirectoryError {
    /// Whether trying again later may help.
    #[must_use]
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Away(_))
    }

    /// Whether the directory itself has said something, be it nonsense.
    pub(super) fn is_answer(&self) -> bool {
        let silence = |cause: &AwayCause| {
            matches!(
                cause,
                AwayCause::Call(CallError::Link(_) | CallError::Deadline(_)) | AwayCause::Silent
            )
        };
        !matches!(self, Self::Away(cause) if silence(cause))
    }

    /// Whether its time was over before an answer came.
    pub(super) fn is_too_late(&self) -> bool {
        let late = |cause: &AwayCause| matches!(cause, AwayCause::Call(CallError::Deadline(_)));
        matches!(self, Self::Away(cause) if late(cause))
    }

    /// Whether nobody was there.
    pub(super) fn is_unreachable(&self) -> bool {
        let nobody = |cause: &AwayCause| {
            matches!(
                cause,
                AwayCause::Call(CallError::Link(LinkError::Unreachable { .. }))
            )
        };
        matches!(self, Self::Away(cause) if nobody(cause))
    }

    /// The present home, when a compare-and-set came too late.
    #[must_use]
    pub fn stale_home(&self) -> Option<Home> {
        self.detail(code::STALE_EPOCH)
    }

    /// The move that is in the way of another.
    #[must_use]
    pub fn move_in_progress(&self) -> Option<MoveRecord> {
        self.detail(code::MOVE_IN_PROGRESS)
    }

    pub(crate) fn nonsense(what: &'static str) -> Self {
        Self::Away(Arc::new(AwayCause::Nonsense(what)))
    }

    pub(super) fn silent() -> Self {
        Self::Away(Arc::new(AwayCause::Silent))
    }

    fn detail<T: serde::de::DeserializeOwned>(&self, code: &str) -> Option<T> {
        match self {
            Self::Refused(problem) if problem.code == code => {
                serde_json::from_value(problem.detail.clone()?).ok()
            }
            _ => None,
        }
    }
}

impl From<CallError> for DirectoryError {
    fn from(error: CallError) -> Self {
        let CallError::Refused(problem) = error else {
            return Self::Away(Arc::new(AwayCause::Call(error)));
        };
        if problem.code == code::NOT_FOUND {
            Self::Unknown
        } else if problem.status.is_server_error()
            || problem.status == StatusCode::TOO_MANY_REQUESTS
        {
            Self::Away(Arc::new(AwayCause::Trouble(problem)))
        } else {
            Self::Refused(problem)
        }
    }
}

/// Why a login brought no grant.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LoginError {
    /// No such user, or not this password.
    #[error("unknown user or wrong password")]
    BadCredentials,
    /// The account may not use this service.
    #[error("account may not use this service")]
    ServiceForbidden,
    /// The account is suspended.
    #[error("account is suspended")]
    Suspended,
    /// The account is being closed.
    #[error("account is being closed")]
    Closing,
    /// The account is being moved: try again in a moment.
    #[error("account is being moved")]
    Moving,
    /// The account's home is out of service for now.
    #[error("home is down")]
    HomeDown,
    /// The account lives elsewhere than on the back-end demanded.
    #[error("account lives on another back-end")]
    ForeignBackend,
    /// Too many logins at once.
    #[error("too many logins at once")]
    Throttled,
    /// The client's message is not as its mechanism says.
    #[error("malformed message of the mechanism")]
    SaslMalformed,
    /// The mechanism is not offered, or not any more.
    #[error("mechanism is not offered")]
    SaslNotOffered,
    /// The dialogue took too long, or its state was used before.
    #[error("state of the dialogue is refused")]
    SaslState,
    /// The client is bound to another channel than the one that ends here.
    #[error("channel binding does not fit")]
    ChannelBinding,
    /// The directory gave no verdict.
    #[error(transparent)]
    Away(DirectoryError),
}

impl From<DirectoryError> for LoginError {
    fn from(error: DirectoryError) -> Self {
        let problem = match &error {
            DirectoryError::Refused(problem) => problem,
            DirectoryError::Away(cause) => match cause.as_ref() {
                AwayCause::Trouble(problem) => problem,
                _ => return Self::Away(error),
            },
            DirectoryError::Unknown => return Self::Away(error),
        };
        match problem.code.as_ref() {
            code::BAD_CREDENTIALS => Self::BadCredentials,
            code::SERVICE_FORBIDDEN => Self::ServiceForbidden,
            code::SUSPENDED => Self::Suspended,
            code::CLOSING => Self::Closing,
            code::MOVING => Self::Moving,
            code::HOME_DOWN => Self::HomeDown,
            code::FOREIGN_BACKEND => Self::ForeignBackend,
            code::THROTTLED => Self::Throttled,
            code::SASL_MALFORMED => Self::SaslMalformed,
            code::SASL_NOT_OFFERED => Self::SaslNotOffered,
            code::SASL_STATE => Self::SaslState,
            code::CHANNEL_BINDING => Self::ChannelBinding,
            _ => Self::Away(error),
        }
    }
}

impl LoginError {
    /// The reason in logs and metrics: the code of the refusal, or `directory_away`;
    /// `directory_refused` when this process may not ask.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadCredentials => code::BAD_CREDENTIALS,
            Self::ServiceForbidden => code::SERVICE_FORBIDDEN,
            Self::Suspended => code::SUSPENDED,
            Self::Closing => code::CLOSING,
            Self::Moving => code::MOVING,
            Self::HomeDown => code::HOME_DOWN,
            Self::ForeignBackend => code::FOREIGN_BACKEND,
            Self::Throttled => code::THROTTLED,
            Self::SaslMalformed => code::SASL_MALFORMED,
            Self::SaslNotOffered => code::SASL_NOT_OFFERED,
            Self::SaslState => code::SASL_STATE,
            Self::ChannelBinding => code::CHANNEL_BINDING,
            Self::Away(DirectoryError::Refused(_)) => "directory_refused",
            Self::Away(_) => "directory_away",
        }
    }
}
