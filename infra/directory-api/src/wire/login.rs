//! From a user and a password to a grant.

use std::net::IpAddr;

use daemon::config::Secret;
use serde::{Deserialize, Serialize};

use crate::types::{AccountId, BackendName, Home, LoginName, Quota, Service};

/// Asks whether this user may open this service, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    /// As the user typed it. A text that is no login name is an unknown user, nothing else.
    pub user: String,
    /// The password, at most [`super::limit::PASSWORD_MAX_OCTETS`].
    pub password: Secret,
    /// What the grant shall open.
    pub service: Service,
    /// The user's address.
    pub client_address: IpAddr,
    /// Whether the user's connection is encrypted.
    pub secured: bool,
    /// Only this back-end may be granted: set by a back-end that users reach directly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendName>,
}

/// The login succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginReply {
    /// Whose mail.
    pub account: AccountId,
    /// The user's canonical name.
    pub login_name: LoginName,
    /// Where it lives.
    pub home: Home,
    /// Where that back-end listens for session streams: `host:port`.
    pub backend_address: String,
    /// What the account may keep, as in the grant: for a back-end that asked for a user of its own.
    #[serde(default, skip_serializing_if = "Quota::is_none")]
    pub quota: Quota,
    /// The signed grant in its text form; see [`crate::grant`].
    pub grant: String,
}

/// The keys by which grants are checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysReply {
    /// Every key whose grants are valid now or soon; the newest last.
    pub keys: Vec<PublicKey>,
}

/// An Ed25519 public key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKey {
    /// Stands in every grant signed with it.
    pub id: String,
    /// 32 octets (RFC 8032), base64url without padding.
    pub key: String,
}
