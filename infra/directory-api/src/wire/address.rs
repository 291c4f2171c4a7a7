//! Domains, addresses and what they point to.

use serde::{Deserialize, Serialize};

use crate::types::{AccountId, Address, DomainName};

/// A domain whose mail is ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// The domain.
    pub name: DomainName,
    /// The domain that it is another name of: mail for `x@name`, and a login as `x@name`, is what it
    /// is for `x@alias_of`. None: it has addresses of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias_of: Option<DomainName>,
}

/// Sets a domain: PUT to its path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainPut {
    /// Another domain of ours, which is no alias itself; the one that is set must have no
    /// addresses and no aliases then. Not given: one that is there stays what it is, and a new one
    /// has addresses of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias_of: Option<DomainName>,
    /// An alias shall be one no more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own: bool,
}

/// What an address delivers to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// An account.
    Account(AccountId),
    /// Another address of ours: this one is an alias of it.
    Address(Address),
}

/// An address of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressEntry {
    /// The address.
    pub address: Address,
    /// Never empty, but in the answer to an edit that took the last one.
    pub targets: Vec<Target>,
}

/// Sets an address: PUT to its path. Its domain must be one of ours, accounts must exist;
/// addresses among the targets may come later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressPut {
    /// From 1 to [`super::limit::TARGETS_MAX`].
    pub targets: Vec<Target>,
}

/// Changes the targets of an address one by one: POST to `<address>/targets`, answered with
/// [`super::Changed`]`<`[`AddressEntry`]`>`. An address that is not there is made, one that delivers to
/// nothing any more goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressEdit {
    /// Targets that it shall have; one that it has stays.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<Target>,
    /// Targets that it shall not have; one that it does not have is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<Target>,
}
