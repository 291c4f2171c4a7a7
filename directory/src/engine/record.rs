//! What is stored of an account, and the forms in which it is written.

use std::fmt;

use directory_api::wire::{
    Account, Foreign, ImportAccount, ImportAddress, ImportDomain, Incarnation, Placed, Secret,
};
use directory_api::{
    AccountId, AccountStatus, Address, BackendName, BackendState, CredentialName, DomainName, Home,
    LoginName, Quota, Service, VolumeName,
};
use serde::{Deserialize, Serialize};

/// One stored credential: a scheme in braces and its text, for example `{ARGON2ID}$argon2id$…`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredCredential {
    /// Checked by `password::verify`.
    pub secret: Secret,
    /// The keys of the same password by which SCRAM checks it, in their stored form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scram: Option<Secret>,
    /// None: the account's own password. Otherwise an app password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<CredentialName>,
    /// What it opens, of what the account may; none: all of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<Service>>,
    /// When it was set, Unix milliseconds; 0 before this was kept.
    #[serde(default)]
    pub set_ms: i64,
}

impl StoredCredential {
    /// An account's own password, for every service.
    #[must_use]
    pub fn own(secret: Secret) -> Self {
        Self {
            secret,
            scram: None,
            name: None,
            services: None,
            set_ms: 0,
        }
    }

    /// How it is kept, as it says in front: `ARGON2ID`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        let text = self.secret.reveal().strip_prefix('{');
        text.and_then(|text| text.split_once('}'))
            .map_or("", |(scheme, _)| scheme)
    }

    /// Whether a use can be its own: one before it was set was that of another password of its name.
    #[must_use]
    pub fn may_be_used_at(&self, at_ms: i64) -> bool {
        at_ms >= self.set_ms
    }

    /// Whether it opens a service, as far as it decides.
    #[must_use]
    pub fn opens(&self, service: Service) -> bool {
        self.services
            .as_ref()
            .is_none_or(|services| services.contains(&service))
    }
}

/// That a credential has let somebody in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialUse {
    /// Whose.
    pub account: AccountId,
    /// None: the account's own password.
    pub name: Option<CredentialName>,
    /// When, Unix milliseconds.
    pub at_ms: i64,
}

impl fmt::Debug for StoredCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoredCredential(hidden)")
    }
}

/// A new account, its password hashed.
#[derive(Clone, Debug)]
pub struct AccountDraft {
    /// What the user logs in with.
    pub login_name: LoginName,
    /// None: nobody can log in.
    pub credential: Option<StoredCredential>,
    /// Addresses that deliver to it.
    pub addresses: Vec<Address>,
    /// What it may do.
    pub status: AccountStatus,
    /// What may be opened.
    pub services: Vec<Service>,
    /// Most octets kept.
    pub quota_octets: Option<u64>,
    /// Most messages kept.
    pub quota_messages: Option<u64>,
    /// None: the engine chooses.
    pub backend: Option<BackendName>,
    /// None: the engine chooses.
    pub volume: Option<VolumeName>,
}

/// Rows to bring, their passwords in the form in which they are kept.
#[derive(Clone, Debug, Default)]
pub struct ImportDraft {
    /// Taken in this order.
    pub rows: Vec<RowDraft>,
    /// As in [`directory_api::wire::Import`].
    pub update: bool,
    /// As there.
    pub update_passwords: bool,
    /// As there.
    pub on_trial: bool,
}

/// One thing to bring.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "most rows are accounts")]
pub enum RowDraft {
    /// A domain.
    Domain(ImportDomain),
    /// An account, with its own password.
    Account(ImportAccount, Option<StoredCredential>),
    /// An address.
    Address(ImportAddress),
}

/// What became of a row that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brought {
    /// It is new.
    Created,
    /// It was there and is as the row says.
    Equal,
    /// It was there and has changed.
    Updated,
}

/// Changes to an account, its password hashed. What is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct AccountEdit {
    /// A new name.
    pub login_name: Option<LoginName>,
    /// Replaces the account's own password; app passwords stay.
    pub credential: Option<StoredCredential>,
    /// App passwords, each in the place of one of its name.
    pub app_passwords: Vec<StoredCredential>,
    /// App passwords that go, before others come.
    pub remove_app_passwords: Vec<CredentialName>,
    /// A new status.
    pub status: Option<AccountStatus>,
    /// The services from now on.
    pub services: Option<Vec<Service>>,
    /// The most octets from now on; 0 takes the limit away.
    pub quota_octets: Option<u64>,
    /// The most messages from now on; 0 takes the limit away.
    pub quota_messages: Option<u64>,
}

/// Everything that decides a login.
#[derive(Clone, Debug)]
pub struct LoginRecord {
    /// The account, with its home.
    pub account: Account,
    /// What the account may keep.
    pub quota: Quota,
    /// Any of them lets the user in.
    pub credentials: Vec<StoredCredential>,
    /// Where the home's back-end listens and how it takes part; none when it never announced itself.
    pub backend: Option<(String, BackendState)>,
    /// That back-end is another mail system.
    pub foreign: Option<Foreign>,
    /// A move holds logins back.
    pub held_by_move: bool,
}

/// The row of a domain.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DomainRow {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) alias_of: Option<DomainName>,
}

/// The row of an account. The home stands in it, so that a lookup reads one row.
#[derive(Serialize, Deserialize)]
pub(super) struct AccountRow {
    pub(super) login_name: LoginName,
    pub(super) status: AccountStatus,
    pub(super) services: Vec<Service>,
    #[serde(default, skip_serializing_if = "Quota::is_none")]
    pub(super) quota: Quota,
    pub(super) home: Home,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) placed: Option<Placed>,
    pub(super) created_ms: i64,
    pub(super) credentials: Vec<StoredCredential>,
}

impl AccountRow {
    pub(super) fn shown(&self, id: AccountId) -> Account {
        Account {
            id,
            login_name: self.login_name.clone(),
            status: self.status,
            services: self.services.clone(),
            quota_octets: self.quota.octets,
            quota_messages: self.quota.messages,
            home: self.home.clone(),
            placed: self.placed,
            created_ms: self.created_ms,
        }
    }
}

/// The part of an account's row that a lookup needs; the rest is skipped unread.
#[derive(Deserialize)]
pub(super) struct HomeOnly {
    pub(super) status: AccountStatus,
    pub(super) home: Home,
    #[serde(default)]
    pub(super) quota: Quota,
}

/// The part of an account's row that says how its owner proves who they are.
#[derive(Deserialize)]
pub(super) struct CredentialsOnly {
    pub(super) credentials: Vec<StoredCredential>,
}

/// The row of a back-end.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BackendRow {
    pub(super) address: String,
    pub(super) state: BackendState,
    pub(super) weight: u32,
    pub(super) volumes: Vec<VolumeRow>,
    /// Accounts whose home is here, kept up with every home that is made, moved or removed.
    pub(super) accounts: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) foreign: Option<Foreign>,
}

/// A volume of a back-end.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VolumeRow {
    pub(super) name: VolumeName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) incarnation: Option<Incarnation>,
    pub(super) position: u64,
}
