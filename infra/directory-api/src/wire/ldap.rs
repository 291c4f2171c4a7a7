//! Users who come from LDAP: how it goes, and an operator's word.

use serde::{Deserialize, Serialize};

/// How the users of LDAP are kept up: GET [`super::path::LDAP`], and the answer to [`LdapSync`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LdapState {
    /// The server that was asked takes no users from LDAP: its settings name none.
    #[serde(default)]
    pub off: bool,
    /// Another server takes them; what follows is what this one knew last.
    #[serde(default)]
    pub standby: bool,
    /// When the last look at what has changed was whole, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked_ms: Option<i64>,
    /// When the last look at everything was whole, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked_at_all_ms: Option<i64>,
    /// Entries that the last look at everything found.
    #[serde(default)]
    pub users: usize,
    /// Why the last look failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Users who are kept as they are, for too many would lose something at once: their account, an address, their
    /// login.
    #[serde(default)]
    pub held: usize,
    /// Entries of which something was not taken, and why; the first of them.
    #[serde(default)]
    pub left_out: Vec<String>,
    /// How many there are.
    #[serde(default)]
    pub left_out_count: usize,
}

/// Looks at everything in LDAP now: POST to [`super::path::LDAP`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LdapSync {
    /// So many users may lose their account, an address or their login by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub losses_max: Option<usize>,
}
