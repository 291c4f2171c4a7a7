//! From an address to the accounts it delivers to.

use serde::{Deserialize, Serialize};

use crate::types::{AccountId, Address, ChangeNumber, Home, Quota};

/// Asks where mail for these addresses goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LookupRequest {
    /// At most [`super::limit::LOOKUP_ADDRESSES_MAX`].
    pub addresses: Vec<Address>,
}

/// One result per address asked for, in that order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupReply {
    /// The results are those after this change.
    pub change: ChangeNumber,
    /// In the order of the request.
    pub results: Vec<LookupResult>,
}

/// Where mail for one address goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookupResult {
    /// The address asked for.
    pub address: Address,
    /// What became of it.
    pub verdict: Verdict,
    /// Other addresses that were walked through: a change of one of them changes the verdict.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<Address>,
    /// Nobody has the address itself: it was found without its detail, or as its domain's catch-all. True until somebody gets
    /// it, and there is no end of such addresses: who keeps answers keeps this one for a moment only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_derived: bool,
}

/// What an address is. Variants may be added; a client that meets one it does not know answers
/// temporarily (P6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Aliases resolved, each account once, never empty.
    Accounts(Vec<Located>),
    /// The same, and some of what it leads to is not ours. Mail must reach all of it: who cannot send it
    /// out takes it for none of them.
    External {
        /// Each once; there may be none.
        accounts: Vec<Located>,
        /// Addresses in domains that are not ours, each once, never empty.
        external: Vec<Address>,
    },
    /// The domain is ours, the address is not there.
    UnknownAddress,
    /// The domain is not ours.
    UnknownDomain,
}

/// An account and its present home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Located {
    /// The account.
    pub account: AccountId,
    /// Where it lives; the epoch fences the delivery (P4).
    pub home: Home,
    /// What it may keep.
    #[serde(default, skip_serializing_if = "Quota::is_none")]
    pub quota: Quota,
    /// The detail of a subaddress that led here: `lists` of `ann+lists@x.test` (RFC 5233). Lower case, never empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Nobody has the address: the catch-all of its domain led here. Good for mail, and says nothing of who somebody is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_caught: bool,
}
