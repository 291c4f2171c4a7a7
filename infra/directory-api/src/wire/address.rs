//! Domains, addresses and what they point to.

use serde::{Deserialize, Serialize};

use crate::types::{AccountId, Address, DomainName};

/// A domain whose mail is ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// The domain.
    pub name: DomainName,
}

/// Adds a domain: PUT to its path. It has no settings yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainPut {}

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
    /// Never empty.
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
