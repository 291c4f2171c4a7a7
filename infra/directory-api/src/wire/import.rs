//! Many things at once, brought from another system: each row is made, found equal, or refused by itself.

use serde::{Deserialize, Serialize};

use super::Credential;
use crate::types::{
    AccountId, AccountStatus, Address, BackendName, ChangeNumber, DomainName, LoginName, Service,
    VolumeName,
};

/// Brings rows in one transaction: POST to [`super::path::IMPORT`].
///
/// Repeating it changes nothing. A row that is refused leaves the others as they are. Rows are taken
/// in their order, so what one needs must stand before it, or be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Import {
    /// At most [`super::limit::IMPORT_ROWS_MAX`].
    pub rows: Vec<ImportRow>,
    /// What is there and differs is changed; otherwise it is refused as `exists`.
    #[serde(default)]
    pub update: bool,
    /// Accounts that are there get the password of their row, too. Otherwise their password stays
    /// and is not compared: it may be newer.
    #[serde(default)]
    pub update_passwords: bool,
    /// Everything is checked, and nothing changed.
    #[serde(default)]
    pub on_trial: bool,
}

/// One thing to bring. What is not given is not compared with what is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportRow {
    /// A domain of ours.
    Domain(ImportDomain),
    /// An account.
    Account(ImportAccount),
    /// An address with all that it delivers to.
    Address(ImportAddress),
}

/// A domain of ours, or another name of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportDomain {
    /// The domain.
    pub name: DomainName,
    /// What it is an alias of. Not given: a new one has addresses of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias_of: Option<DomainName>,
}

/// An account. Where it lives is not compared: accounts move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportAccount {
    /// What the user logs in with.
    pub login_name: LoginName,
    /// A stored form, or none; [`Credential::Password`] is refused, for it would cost an Argon2id
    /// each: `{PLAIN}` in front of a clear one does the same by the next login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Credential>,
    /// A new one is active when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<AccountStatus>,
    /// A new one has all when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<Service>>,
    /// 0 is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_octets: Option<u64>,
    /// 0 is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_messages: Option<u64>,
    /// Where a new one shall live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendName>,
    /// The volume there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeName>,
}

/// An address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportAddress {
    /// The address.
    pub address: Address,
    /// All that it delivers to.
    pub targets: Vec<ImportTarget>,
}

/// What an address delivers to, by the names that other systems know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportTarget {
    /// The account that logs in under this name.
    Login(LoginName),
    /// An account by its number here.
    Account(AccountId),
    /// Another address.
    Address(Address),
}

/// What became of each row, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportReply {
    /// The newest change after them.
    pub change: ChangeNumber,
    /// One for each row.
    pub outcomes: Vec<ImportOutcome>,
}

/// What became of one row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportOutcome {
    /// It was not there and is now.
    Created,
    /// It is there and is as the row says.
    Equal,
    /// It was there and was changed.
    Updated,
    /// It is not as the row says.
    Refused {
        /// One of [`super::code`].
        code: String,
        /// Why.
        message: String,
    },
}
