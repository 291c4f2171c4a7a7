//! What is stored of an account, and the forms in which it is written.

use std::fmt;

use directory_api::wire::{
    Account, Foreign, ImportAccount, ImportAddress, ImportDomain, Incarnation, Placed, Secret,
};
use directory_api::{
    AccountId, AccountStatus, Address, BackendName, BackendState, ChangeNumber, CredentialName,
    DomainName, Home, LoginName, Quota, Service, VolumeName,
};
use serde::{Deserialize, Serialize};

use super::EngineError;

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

    /// The password of an entry in LDAP, which is not kept here: who shows it binds there. `version` is another one whenever
    /// the entry may have another password, so that what was verified before counts no more.
    #[must_use]
    pub fn in_ldap(user: &LdapUser) -> Self {
        let LdapUser {
            id, dn, version, ..
        } = user;
        // An id has no control characters.
        Self::own(Secret::new(format!("{IN_LDAP}{version} {dn}\n{id}")))
    }

    /// The entry that knows the password.
    #[must_use]
    pub fn entry(&self) -> Option<EntryName<'_>> {
        let text = self.secret.reveal().strip_prefix(IN_LDAP)?;
        let (_, name) = text.split_once(' ')?;
        let (dn, id) = name.rsplit_once('\n').unwrap_or((name, ""));
        Some(EntryName { dn, id })
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

/// An entry of LDAP: a name that may be somebody else's by now, and what it keeps for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryName<'a> {
    /// Where it was when it was seen last.
    pub dn: &'a str,
    /// Whose that name was; empty where only the name was kept.
    pub id: &'a str,
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

/// An entry in LDAP as a user of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LdapUser {
    /// What the entry keeps for ever, also when it is renamed.
    pub id: String,
    /// Where it is now.
    pub dn: String,
    /// Another one when the entry has changed. Without white space.
    pub version: String,
    /// What the user logs in with.
    pub login_name: LoginName,
    /// Its addresses, each once.
    pub addresses: Vec<Address>,
    /// Whether LDAP lets the user in; none: it does not say.
    pub status: Option<AccountStatus>,
    /// The most octets, 0 for no limit; none: LDAP does not say.
    pub quota_octets: Option<u64>,
}

/// Users to take.
#[derive(Clone, Debug, Default)]
pub struct LdapBatch {
    /// In this order.
    pub users: Vec<LdapUser>,
    /// Accounts of ours that have the name of one become its own.
    pub adopt: bool,
    /// An address may be taken that a domain's catch-all has brought to somebody else.
    pub over_catch_all: bool,
    /// So many users may lose something: an address, or the right to log in. Others stay as they are.
    pub losses_max: usize,
}

/// What became of a user of LDAP.
#[derive(Debug)]
pub struct Taken {
    /// The account; none: there is none yet.
    pub account: Option<AccountId>,
    /// What was done.
    pub brought: Brought,
    /// It has lost something.
    pub is_loss: bool,
    /// What was not taken, and why.
    pub left_out: Vec<EngineError>,
}

/// What became of users whose entries can be none any more.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unusables {
    /// Who may not log in any more.
    pub suspended: Vec<AccountId>,
    /// How many would have been suspended, if that had not been too many.
    pub held: usize,
}

/// What ties an account to its entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRow {
    /// The entry's for ever.
    pub id: String,
    /// The entry's name when it was last taken.
    pub dn: String,
    /// The addresses that LDAP gives it; an operator's are not among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Address>,
    /// LDAP says the status.
    #[serde(default)]
    pub owns_status: bool,
    /// LDAP says the quota.
    #[serde(default)]
    pub owns_quota: bool,
    /// It was active, and is suspended until its entry can be a user again.
    #[serde(default)]
    pub suspended: bool,
    /// Since when there is no such entry any more, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_ms: Option<i64>,
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
    /// The newest change in what was read.
    pub as_of: ChangeNumber,
}

const IN_LDAP: &str = "{LDAP}";

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
            ldap: None,
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
