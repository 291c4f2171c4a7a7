//! From a user who shows who they are to a grant: by a password, or by a SASL mechanism step by step.

use std::net::IpAddr;

use daemon::config::Secret;
use serde::{Deserialize, Serialize};

use super::Foreign;
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
    /// The home is no back-end of ours: the user is logged in there, and nobody takes the grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign: Option<Foreign>,
}

/// Which SASL mechanisms the directory decides itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MechanismsReply {
    /// Their registered names, the most wanted first. PLAIN and LOGIN are not among them: where
    /// they end, a password has come, which is a [`LoginRequest`].
    pub mechanisms: Vec<String>,
}

/// One step of a SASL mechanism (RFC 4422): what the client says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SaslRequest {
    /// The mechanism's registered name.
    pub mechanism: String,
    /// The client's message, in base64. At most [`super::limit::SASL_MESSAGE_MAX_OCTETS`] when decoded.
    pub message: Secret,
    /// What came with the last challenge; none at the first step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// What the user's connection can be bound to. Not empty means that the client was offered to
    /// bind, and one that says that it was not is refused (RFC 5802 §6).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bindings: Vec<ChannelBinding>,
    /// The certificates (DER, base64) that the client has shown in TLS, its own first, whose key it has: for EXTERNAL.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<String>,
    /// What the grant shall open.
    pub service: Service,
    /// The user's address.
    pub client_address: IpAddr,
    /// Whether the user's connection is encrypted.
    pub secured: bool,
    /// Only this back-end may be granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendName>,
}

/// What tells a connection from all others (RFC 5056).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelBinding {
    /// Its registered name: `tls-exporter` (RFC 9266) or `tls-server-end-point` (RFC 5929).
    pub kind: String,
    /// The octets, in base64.
    pub data: String,
}

/// What a step leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SaslReply {
    /// Say this to the client, and come again with its response.
    Challenge {
        /// In base64.
        message: String,
        /// To be given back unread with the response: soon, by the same caller, for the same user's
        /// connection.
        state: String,
    },
    /// Nobody is let in; say this to the client, whose response to it does not count.
    Refused {
        /// In base64.
        message: String,
    },
    /// The user is who they say.
    LoggedIn {
        /// What the client is to be told before it is let in, in base64. Its response is empty.
        message: Option<String>,
        /// Their grant.
        login: Box<LoginReply>,
    },
}

/// The keys by which grants are checked; also the answer to the wish for a new one.
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
    /// What it is for now; none from a directory that has but one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<KeyState>,
}

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// No grant longer than its grants live.
    Old,
    /// Grants are signed with it.
    Used,
    /// Grants will be signed with it once every back-end has had the time to ask for it.
    Next,
    /// A state of a later version.
    #[serde(other)]
    Other,
}
