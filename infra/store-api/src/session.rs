//! One user's session: `POST /v1/session`, one stream per logged-in user.
//!
//! ```text
//! proxy                                      back-end
//!   Open {grant, client, tls, tag}   ──▶     verifies the grant itself (P8)
//!                                    ◀──     200, or a typed problem: `moved` names the new home
//!   Data, End                        ──▶
//!                                    ◀──     Data (the reply to the login first), End
//! ```
//! The back-end speaks first: the answer to PASS, AUTH or LOGIN is its own, because only it knows
//! whether the mailbox opens. `End` closes a direction in order; a stream that stops without it was
//! cut, and the proxy cuts the user's connection likewise.
//!
//! ```text
//! proxy                                      back-end
//!                                    ◀──     Pause {taken, sent} at a command's edge
//!   Pause {sent, passed on}          ──▶     what lies between is the back-end's to hand on
//!                                    ◀──     Resume {sent, passed on, elsewhere?}
//! ```
//! Then the session goes on where it was, or the proxy opens the next stream at the back-end that
//! is named, with `Resume {token, sent, passed on}` in place of `Open`.

mod client;
mod relay;

use std::time::Duration;

use daemon::config::Secret;
use daemon::link::{CallError, Link};
use directory_api::{AccountId, BackendName, Epoch, LoginName, Service};
use http::Method;
use serde::{Deserialize, Serialize};

pub use client::{OpenError, Session, SessionReceiver, SessionSender};
pub use relay::{DRAIN_MAX, Passed, QUIET, RelayEnd, Terms, relay, relay_plain};

/// The path of version 1.
pub const PATH: &str = "/v1/session";
/// The path of a session while the directory is away: with the user's password in place of a grant.
pub const SHOWN_PATH: &str = "/v1/session/shown";
/// The path on which a back-end is asked whether a user has left a ticket there; [`Left`] → [`LeftReply`].
pub const LEFT_PATH: &str = "/v1/session/left";
/// The header of a back-end's yes to an IMAP session: what it can do, as it tells clients.
pub const CAPABILITIES: &str = "posthouse-imap-capabilities";

/// The first frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionOpen {
    /// The directory's signed grant, as text.
    pub grant: String,
    /// What the grant must be for.
    pub service: Service,
    /// The user's own address, `host:port`.
    pub client: String,
    /// TLS towards the user: version and cipher suite; absent for plaintext.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// IMAP: the tag of the login command, which the back-end answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// What the user's program has told of itself before the login (RFC 2971), for the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Tells this session apart in the logs of every tier.
    pub trace_id: String,
}

/// The first frame on [`SHOWN_PATH`]: a user whom the directory could not be asked about. The back-end finds out whether it
/// is the password, asking the directory itself if it can and else by a ticket of an earlier login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionShown {
    /// As the user typed it.
    pub user: String,
    /// The password.
    pub password: Secret,
    /// The rest; its grant is empty.
    pub session: SessionOpen,
}

/// Whom a proxy looks for while the directory is away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Left {
    /// The name under which the user logs in.
    pub user: LoginName,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftReply {
    /// The account, if a login under that name has left a ticket.
    pub account: Option<AccountId>,
    /// The user's canonical name.
    pub login_name: Option<LoginName>,
}

/// Asks a back-end whether this user has left a ticket there.
///
/// # Errors
/// It gave no answer, or one that cannot be read.
pub async fn left(link: &Link, user: &LoginName) -> Result<LeftReply, CallError> {
    let left = Left { user: user.clone() };
    link.json(Method::POST, LEFT_PATH, &left, LEFT_WITHIN).await
}

/// It is a look into memory, and a user waits for it.
const LEFT_WITHIN: Duration = Duration::from_secs(2);

/// Offsets of both directions at a command's edge, in octets since the session's first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offsets {
    /// Octets from the user that the sender of this frame has taken or sent.
    pub from_user: u64,
    /// Octets to the user that the sender of this frame has sent or passed on.
    pub to_user: u64,
}

/// What a back-end says that has paused a session: it goes on. The offsets are those of the proxy's own `Pause`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// Octets from the user that the proxy has sent.
    pub from_user: u64,
    /// Octets to the user that the proxy has passed on.
    pub to_user: u64,
    /// Where it goes on; here when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<Elsewhere>,
}

/// The back-end that has the session now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elsewhere {
    /// Its name.
    pub backend: BackendName,
    /// What it knows the session by, once; a secret between the two back-ends and the proxy.
    pub token: String,
}

/// The first frame of a session's next stream, of the kind `Resume`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionResume {
    /// As the last back-end has said.
    pub token: String,
    /// Octets from the user that the last back-end was sent; the next ones follow.
    pub from_user: u64,
    /// Octets that the user has been sent; the next ones are to follow.
    pub to_user: u64,
    /// As when the session was opened.
    pub trace_id: String,
}

/// The detail of the problem `moved`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MovedTo {
    /// The back-end that has the account now.
    pub backend: BackendName,
    /// Its epoch there.
    pub epoch: Epoch,
}

/// The detail of the problem `login_delay`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    /// Seconds until the account may log in again.
    pub wait_s: u64,
}

/// Problem codes of `/v1/session` and, where they fit, of the other paths.
pub mod problem {
    /// The grant is missing, malformed, forged, expired, used, or for another back-end or service.
    pub const GRANT_REFUSED: &str = "grant_refused";
    /// The account lives elsewhere; the detail is a [`MovedTo`](super::MovedTo).
    pub const MOVED: &str = "moved";
    /// The grant's epoch is not the account's here.
    pub const STALE_EPOCH: &str = "stale_epoch";
    /// The password was not found to be the user's, for whatever reason: none of them is told (P8). Temporary.
    pub const NOT_VERIFIED: &str = "not_verified";
    /// The account logged in a moment ago; the detail is a [`Wait`](super::Wait).
    pub const LOGIN_DELAY: &str = "login_delay";
    /// The account is being moved right now.
    pub const FROZEN: &str = "frozen";
    /// The back-end is starting, stopping, or its volume is out of service.
    pub const UNAVAILABLE: &str = "unavailable";
    /// The request is not of this version's form.
    pub const MALFORMED: &str = "malformed";
}
