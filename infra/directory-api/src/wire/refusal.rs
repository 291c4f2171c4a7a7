//! The last refusals that the directory remembers of a name.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::types::Service;

/// Asks for the last refusals of an address or login name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusalsQuery {
    /// As a user types it, or as a sender writes it.
    pub name: String,
}

/// What the directory has refused of late, from memory: a restart forgets it, and so do many
/// refusals of others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusals {
    /// When the directory started, Unix milliseconds: it remembers nothing from before.
    pub since_ms: i64,
    /// The last ones, the newest first.
    pub items: Vec<Refusal>,
}

/// One thing that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// When, Unix milliseconds.
    pub at_ms: i64,
    /// What was asked for.
    pub of: Refused,
    /// Why, one of [`super::code`], or of a lookup `unknown_address` or `unknown_domain`.
    pub code: String,
    /// The node that asked.
    pub by: String,
}

/// What was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refused {
    /// A login.
    Login {
        /// To this service.
        service: Service,
        /// From there.
        client_address: IpAddr,
    },
    /// A recipient. Who asks keeps the answer for some seconds, so there may have been more.
    Recipient,
}
