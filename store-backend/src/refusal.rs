//! The one map from what we refuse to what another tier reads: a typed problem.

use daemon::link::Problem;
use directory_api::BackendName;
use directory_api::Epoch;
use http::StatusCode;
use store_api::session::{MovedTo, Wait, problem};

use crate::session::SessionRefusal;
use crate::volume::{ReadError, Refusal};

/// A body that is not of the version's form.
pub(crate) fn malformed(what: &'static str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, problem::MALFORMED, what)
}

/// The volume refused a command.
pub(crate) fn account(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::StaleEpoch { ours } => stale_epoch(ours),
        Refusal::Frozen => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            problem::FROZEN,
            "the account is being moved, try again in a moment",
        ),
        Refusal::Moved { backend, epoch } => moved(backend, epoch),
        Refusal::NoAccount => Problem::not_found("no such account on this back-end"),
        Refusal::ReadOnly => Problem::unavailable("the volume takes no writes"),
        Refusal::NoRoom => no_room(),
        Refusal::Full | Refusal::OverQuota => Problem::new(
            StatusCode::INSUFFICIENT_STORAGE,
            "full",
            "the volume or the account is at a limit",
        ),
        Refusal::WrongState => Problem::new(
            StatusCode::CONFLICT,
            "wrong_state",
            "the account is not in the state this step of a move begins with",
        ),
        Refusal::OtherMove => Problem::new(
            StatusCode::CONFLICT,
            "other_move",
            "the account is in another move",
        ),
        Refusal::Adopted => Problem::new(
            StatusCode::CONFLICT,
            "takes_mail",
            "accounts are restored whole only to a new volume in place of a lost one, before it is adopted; this one takes mail: restore mailboxes",
        ),
        // What these speak of is chosen by this back-end itself, never by the caller.
        Refusal::NoMailbox
        | Refusal::NoSource
        | Refusal::NoMessage
        | Refusal::MailboxExists
        | Refusal::BadName
        | Refusal::NotAllowed
        | Refusal::NotPermitted
        | Refusal::MissingBlobs(_)
        | Refusal::BadItem => Problem::internal(),
    }
}

/// The directory knows a newer state of the volume, or was not asked yet.
pub(crate) fn restored() -> Problem {
    Problem::unavailable(
        "the volume takes no writes: the directory knows a newer state of it, or was not asked yet",
    )
}

/// The disk is nearly full: the front-end's answer is the same as to an outcome `full`.
pub(crate) fn no_room() -> Problem {
    Problem::new(
        StatusCode::INSUFFICIENT_STORAGE,
        "full",
        "the disk is nearly full",
    )
}

/// The volume could not be read. The cause is in the log.
pub(crate) fn read(_: &ReadError) -> Problem {
    Problem::unavailable("the volume cannot be read now")
}

fn stale_epoch(ours: Epoch) -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        problem::STALE_EPOCH,
        "the account's epoch here is another, look it up again",
    )
    .with_detail(serde_json::json!({ "epoch": ours }))
}

fn moved(backend: BackendName, epoch: Epoch) -> Problem {
    let detail = serde_json::to_value(MovedTo { backend, epoch }).unwrap_or_default();
    Problem::new(
        StatusCode::MISDIRECTED_REQUEST,
        problem::MOVED,
        "the account lives on another back-end",
    )
    .with_detail(detail)
}

impl From<SessionRefusal> for Problem {
    fn from(refusal: SessionRefusal) -> Self {
        match refusal {
            // The caller learns that it was refused; which check failed is for our log alone.
            SessionRefusal::Grant(_) | SessionRefusal::Service => Self::new(
                StatusCode::FORBIDDEN,
                problem::GRANT_REFUSED,
                "the grant does not open this session",
            ),
            SessionRefusal::Directory(_) | SessionRefusal::Ticket(_) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                problem::NOT_VERIFIED,
                "the password cannot be verified here now",
            ),
            SessionRefusal::LoginDelay { wait_s } => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                problem::LOGIN_DELAY,
                "the account logged in a moment ago",
            )
            .with_detail(serde_json::to_value(Wait { wait_s }).unwrap_or_default()),
            SessionRefusal::Account(refusal) => account(refusal),
            SessionRefusal::Read(error) => read(&error),
            SessionRefusal::Away(away) => away.into(),
        }
    }
}

impl SessionRefusal {
    /// A fixed word for logs and metrics.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Grant(error) => error.code(),
            Self::Directory(error) => error.code(),
            Self::Ticket(no) => no.code(),
            Self::Service => "grant_foreign_service",
            Self::LoginDelay { .. } => "login_delay",
            Self::Account(Refusal::Frozen) => "frozen",
            Self::Account(Refusal::Moved { .. }) => "moved",
            Self::Account(Refusal::StaleEpoch { .. }) => "stale_epoch",
            Self::Account(_) | Self::Read(_) | Self::Away(_) => "unavailable",
        }
    }
}
