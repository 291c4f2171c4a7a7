//! Accounts and their credentials.

use aws_lc_rs::digest;
use daemon::config::Secret;
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use crate::types::{
    AccountId, AccountStatus, Address, BackendName, ChangeNumber, CredentialName, Home, LoginName,
    Service, VolumeName,
};

/// What proves that a user is who they say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credential {
    /// A password in clear; the directory keeps only its Argon2id hash.
    Password(Secret),
    /// A stored form with its scheme in front, as other servers export it, for example
    /// `{SHA512-CRYPT}$6$…`. Schemes and their limits: `directory/src/password/form.rs`.
    Hashed(Secret),
}

impl Credential {
    /// The stored form `{SSHA256}` of a password: a fast scheme, for app passwords that a program made
    /// of 128 random bits, and for accounts that are made by the ten thousand for tests. A stolen
    /// database gives passwords that a person has thought of away within hours.
    #[must_use]
    pub fn salted_sha256(password: &str, salt: &[u8]) -> Self {
        let mut octets = salted_sha256(password.as_bytes(), salt).to_vec();
        octets.extend_from_slice(salt);
        Self::Hashed(Secret::new(format!(
            "{{SSHA256}}{}",
            BASE64.encode(&octets)
        )))
    }
}

/// The hash inside `{SSHA256}`: SHA-256 over the password and then the salt.
#[must_use]
pub fn salted_sha256(password: &[u8], salt: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, &[password, salt].concat());
    digest.as_ref().try_into().expect("SHA-256 has 32 octets")
}

/// A password beside the account's own, for one program or machine.
///
/// Made by a program and long, it is kept as a hash that takes microseconds, for a refusal costs one of
/// each: a clear one as `SSHA512`, and stored forms of slow schemes are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppPassword {
    /// Which one; a new one takes the place of one of the same name.
    pub name: CredentialName,
    /// The password.
    pub credential: Credential,
    /// What it opens, of what the account may; all of that when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<Service>>,
}

/// One credential of an account as it is shown: never what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialEntry {
    /// The app password's name; none for the account's own password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<CredentialName>,
    /// What it opens, of what the account may; none: all of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<Service>>,
    /// How it is kept, for example `ARGON2ID`.
    pub scheme: String,
    /// When it was set, Unix milliseconds; none for one that was set before this was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_ms: Option<i64>,
    /// When it last let somebody in, Unix milliseconds: true to the hour, or to the moment since
    /// the directory started; none when it never did. A directory that is killed forgets a minute of uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_ms: Option<i64>,
}

/// The credentials of an account: GET `<account>/credentials`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// The account's own password first, then the app passwords by name.
    pub items: Vec<CredentialEntry>,
}

/// One account as the directory shows it. Credentials are never shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Given by the directory.
    pub id: AccountId,
    /// What the user logs in with.
    pub login_name: LoginName,
    /// What the account may do.
    pub status: AccountStatus,
    /// What the user may open.
    pub services: Vec<Service>,
    /// Most octets kept; none when there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_octets: Option<u64>,
    /// Most messages kept; none when there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_messages: Option<u64>,
    /// Where it lives.
    pub home: Home,
    /// Since when, and why there; none for an account that came there before this was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placed: Option<Placed>,
    /// When it was created, Unix milliseconds.
    pub created_ms: i64,
    /// The entry in LDAP that it is of; not said in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ldap: Option<LdapOrigin>,
}

/// The entry in LDAP that an account is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LdapOrigin {
    /// Where it is.
    pub dn: String,
    /// Since when there is none any more, Unix milliseconds: the account is closing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_ms: Option<i64>,
}

/// Why an account lives where it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// Since when, Unix milliseconds.
    pub at_ms: i64,
    /// Why.
    pub by: PlacedBy,
}

/// What brought an account to its home.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlacedBy {
    /// It was made there because there were the fewest accounts for the back-end's weight.
    Balance,
    /// It was made there because that was demanded.
    Demand,
    /// A move brought it.
    Move,
    /// An operator pointed it there by hand.
    Hand,
    /// A reason of a later version.
    #[serde(other)]
    Other,
}

/// Creates an account: POST to [`super::path::ACCOUNTS`], answered with [`super::Changed`]`<`[`Account`]`>`.
///
/// Creating again under the same login name is [`super::code::EXISTS`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountNew {
    /// What the user logs in with.
    pub login_name: LoginName,
    /// None: nobody can log in until one is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Credential>,
    /// Addresses that shall deliver to the account, made in the same transaction.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Address>,
    /// Active when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<AccountStatus>,
    /// Every service when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<Service>>,
    /// No limit when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_octets: Option<u64>,
    /// No limit when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_messages: Option<u64>,
    /// When not given, the active back-end with the fewest accounts for its weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendName>,
    /// When not given, the back-end's first volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeName>,
}

impl AccountNew {
    /// An account with nothing but a name and a credential.
    #[must_use]
    pub fn new(login_name: LoginName, credential: Option<Credential>) -> Self {
        Self {
            login_name,
            credential,
            addresses: Vec::new(),
            status: None,
            services: None,
            quota_octets: None,
            quota_messages: None,
            backend: None,
            volume: None,
        }
    }
}

/// Changes an account: PUT to its path. What is not given stays. The home changes only by
/// compare-and-set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountChange {
    /// A new name to log in with; addresses are not touched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_name: Option<LoginName>,
    /// Replaces the account's own password; app passwords stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Credential>,
    /// App passwords to set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub app_passwords: Vec<AppPassword>,
    /// App passwords to remove, before others are set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove_app_passwords: Vec<CredentialName>,
    /// A new status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<AccountStatus>,
    /// The services allowed from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<Service>>,
    /// The most octets from now on; 0 takes the limit away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_octets: Option<u64>,
    /// The most messages from now on; 0 takes the limit away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_messages: Option<u64>,
}

/// Creates many accounts in one transaction. Repeating it changes nothing: accounts whose login
/// name exists are left as they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountBatch {
    /// At most [`super::limit::BATCH_ACCOUNTS_MAX`]. Without a back-end they are spread evenly.
    pub accounts: Vec<AccountNew>,
}

/// What a batch did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountBatchReply {
    /// The newest change after the batch.
    pub change: ChangeNumber,
    /// Accounts made.
    pub created: usize,
    /// Accounts that were there already.
    pub existing: usize,
}
