//! Version 1 of the directory's interface: one type for each request and reply body.
//!
//! HTTP/2 over mutual TLS, JSON bodies. Requests refuse unknown fields, so that a misspelt one is
//! an error and not a silence; replies may grow fields, and a client ignores those it does not
//! know. Every refusal is a `daemon::link::Problem` with one of the codes in [`code`].
//! `infra/docs/DIRECTORY-API.md` is the page beside these types.

mod account;
mod address;
mod backend;
mod change;
mod home;
mod import;
mod ldap;
mod list;
mod login;
mod lookup;
mod refusal;

pub use daemon::config::Secret;

pub use account::{
    Account, AccountBatch, AccountBatchReply, AccountChange, AccountNew, AppPassword, Credential,
    CredentialEntry, Credentials, LdapOrigin, Placed, PlacedBy, salted_sha256,
};
pub use address::{AddressEdit, AddressEntry, AddressPut, Domain, DomainPut, Target};
pub use backend::{
    AnnounceReply, AnnounceRequest, Backend, BackendPut, FOREIGN_VOLUME, Foreign, ForeignService,
    ForeignServiceError, ForeignTls, Incarnation, Volume, VolumePosition,
};
pub use change::{Change, ChangeKind, Changed, ChangesQuery, ChangesReply};
pub use home::{
    AccountHome, CompareAndSet, CompareAndSetReply, MoveId, MoveRecord, MoveState, Place,
};
pub use import::{
    Import, ImportAccount, ImportAddress, ImportDomain, ImportOutcome, ImportReply, ImportRow,
    ImportTarget,
};
pub use ldap::{LdapState, LdapSync};
pub use list::{ListQuery, Page, encode_path_segment};
pub use login::{
    ChannelBinding, KeyState, KeysReply, LoginReply, LoginRequest, MechanismsReply, PublicKey,
    SaslReply, SaslRequest,
};
pub use lookup::{Located, LookupReply, LookupRequest, LookupResult, Verdict};
pub use refusal::{Refusal, Refusals, RefusalsQuery, Refused};

/// Paths of version 1. Items of a collection stand under `<collection>/<key>`, the key percent-encoded.
pub mod path {
    /// POST [`super::LookupRequest`] → [`super::LookupReply`].
    pub const LOOKUP: &str = "/v1/lookup";
    /// POST [`super::LoginRequest`] → [`super::LoginReply`].
    pub const LOGIN: &str = "/v1/login";
    /// POST [`super::SaslRequest`] → [`super::SaslReply`].
    pub const SASL: &str = "/v1/sasl";
    /// GET → [`super::MechanismsReply`].
    pub const MECHANISMS: &str = "/v1/mechanisms";
    /// GET → [`super::KeysReply`].
    pub const KEYS: &str = "/v1/keys";
    /// POST → [`super::KeysReply`]: a new key; [`super::code::IN_USE`] while one is on its way.
    pub const KEYS_ROTATE: &str = "/v1/keys/rotate";
    /// POST [`super::AnnounceRequest`] → [`super::AnnounceReply`].
    pub const ANNOUNCE: &str = "/v1/announce";
    /// GET with [`super::ChangesQuery`] → [`super::ChangesReply`].
    pub const CHANGES: &str = "/v1/changes";
    /// Collection of [`super::Domain`], keyed by name.
    pub const DOMAINS: &str = "/v1/domains";
    /// Collection of [`super::Account`], keyed by number;
    /// GET `<account>/credentials` → [`super::Credentials`].
    pub const ACCOUNTS: &str = "/v1/accounts";
    /// POST [`super::AccountBatch`] → [`super::AccountBatchReply`].
    pub const ACCOUNTS_BATCH: &str = "/v1/accounts/batch";
    /// GET → [`super::LdapState`]; POST [`super::LdapSync`] → the same, after a look at everything.
    pub const LDAP: &str = "/v1/ldap";
    /// GET with [`super::RefusalsQuery`] → [`super::Refusals`].
    pub const REFUSALS: &str = "/v1/refusals";
    /// POST [`super::Import`] → [`super::ImportReply`].
    pub const IMPORT: &str = "/v1/import";
    /// Collection of [`super::AddressEntry`], keyed by address;
    /// POST [`super::AddressEdit`] to `<address>/targets`.
    pub const ADDRESSES: &str = "/v1/addresses";
    /// Collection of [`super::Backend`], keyed by name.
    pub const BACKENDS: &str = "/v1/backends";
    /// Collection of [`super::AccountHome`], keyed by account number;
    /// POST [`super::CompareAndSet`] to `<account>/compare-and-set`.
    pub const HOMES: &str = "/v1/homes";
    /// Collection of [`super::MoveRecord`], keyed by account number.
    pub const MOVES: &str = "/v1/moves";
}

/// Codes of refusals, the `code` of a `Problem`.
pub mod code {
    /// 401: no such user, or not this password: the two are never told apart (P8).
    pub const BAD_CREDENTIALS: &str = "bad_credentials";
    /// 403: the password is right, the account may not use this service.
    pub const SERVICE_FORBIDDEN: &str = "service_forbidden";
    /// 403: the password is right, the account is suspended.
    pub const SUSPENDED: &str = "suspended";
    /// 403: the password is right, the account is being closed.
    pub const CLOSING: &str = "closing";
    /// 503: the password is right, the account is on its way to another home; try again shortly.
    pub const MOVING: &str = "moving";
    /// 503: the password is right, the home is not known to be in service.
    pub const HOME_DOWN: &str = "home_down";
    /// 409: the password is right, the account lives on another back-end than the one demanded.
    pub const FOREIGN_BACKEND: &str = "foreign_backend";
    /// 422: the client's message is not as its mechanism says.
    pub const SASL_MALFORMED: &str = "sasl_malformed";
    /// 422: the mechanism is not offered, or not any more.
    pub const SASL_NOT_OFFERED: &str = "sasl_not_offered";
    /// 409: the state that came back is too old, used up, somebody else's or not ours.
    pub const SASL_STATE: &str = "sasl_state";
    /// 403: the client is bound to another channel, or was kept from binding to this one.
    pub const CHANNEL_BINDING: &str = "channel_binding";
    /// 429: too many logins are waiting to be checked.
    pub const THROTTLED: &str = "throttled";
    /// 409: the home's epoch is not the one expected; `detail` is the present home.
    pub const STALE_EPOCH: &str = "stale_epoch";
    /// 409: another move of this account is not finished; `detail` is its record.
    pub const MOVE_IN_PROGRESS: &str = "move_in_progress";
    /// 404: the thing named by the path is not there.
    pub const NOT_FOUND: &str = "not_found";
    /// 409: a thing of that name exists and differs.
    pub const EXISTS: &str = "exists";
    /// 409: what shall be changed is taken from LDAP and is changed there.
    pub const OWNED_BY_LDAP: &str = "owned_by_ldap";
    /// 503: the LDAP server that knows the password gives no answer.
    pub const LDAP_AWAY: &str = "ldap_away";
    /// 409: other things still need the one to be removed.
    pub const IN_USE: &str = "in_use";
    /// 422: the domain of an address is not one of ours.
    pub const UNKNOWN_DOMAIN: &str = "unknown_domain";
    /// 422: the domain of an address is an alias of another, which has all its addresses.
    pub const ALIAS_DOMAIN: &str = "alias_domain";
    /// 422: an account named in the body is not there.
    pub const UNKNOWN_ACCOUNT: &str = "unknown_account";
    /// 422: a back-end or volume named in the body is not there.
    pub const UNKNOWN_PLACE: &str = "unknown_place";
    /// 422: the aliases behind an address come to more than [`super::limit::TARGETS_MAX`]. No
    /// verdict: its mail waits until an operator has mended it.
    pub const TOO_MANY_TARGETS: &str = "too_many_targets";
    /// 409: no back-end is active, so that a new account has no place to live.
    pub const NO_BACKEND: &str = "no_backend";
    /// 400 or 422: the body or query cannot be read, or a count is over its limit.
    pub const BAD_REQUEST: &str = "bad_request";
    /// 410: the changes asked for are no longer kept: drop every cached answer and follow from `last`.
    pub const CHANGES_GONE: &str = "changes_gone";
    /// 403: the caller's certificate bears another role, or another node's name.
    pub const ROLE_FORBIDDEN: &str = "role_forbidden";
    /// 503: the directory's own storage failed; the cause stands in its log.
    pub const STORAGE: &str = "storage";
}

/// Limits of version 1; beyond any of them a request is refused with [`code::BAD_REQUEST`].
pub mod limit {
    /// Octets of a request body. A batch of accounts is the largest.
    pub const BODY_MAX_OCTETS: usize = 8 * 1024 * 1024;
    /// Addresses of one lookup.
    pub const LOOKUP_ADDRESSES_MAX: usize = 1_000;
    /// Addresses and accounts that one address may resolve to, all steps together.
    pub const TARGETS_MAX: usize = 1_000;
    /// Accounts of one batch.
    pub const BATCH_ACCOUNTS_MAX: usize = 10_000;
    /// Rows of one import.
    pub const IMPORT_ROWS_MAX: usize = 10_000;
    /// Rows of one page of a list.
    pub const PAGE_ROWS_MAX: usize = 1_000;
    /// Changes of one reply of the feed.
    pub const CHANGES_MAX: usize = 1_000;
    /// Longest wait of one poll of the feed, in milliseconds.
    pub const CHANGES_WAIT_MAX_MS: u64 = 30_000;
    /// Octets of a password (DESIGN §13).
    pub const PASSWORD_MAX_OCTETS: usize = 1_024;
    /// Octets of one SASL message: 64 KiB of base64 (DESIGN §13).
    pub const SASL_MESSAGE_MAX_OCTETS: usize = 48 * 1_024;
    /// Octets of a user name (DESIGN §13).
    pub const USER_MAX_OCTETS: usize = 512;
    /// App passwords of one account.
    pub const APP_PASSWORDS_MAX: usize = 32;
    /// Volumes of one back-end.
    pub const VOLUMES_MAX: usize = 256;
}
