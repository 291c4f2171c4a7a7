//! Held mail: what a back-end keeps for accounts whose home could not take it, until the home can (P6).
//!
//! A front-end asks for it in a delivery ([`Hold`] of a recipient); the holder feeds the home by an ordinary delivery under the
//! same transaction, so that nothing comes twice (P2). Operators look at it and act by the paths here.

use std::time::Duration;

use daemon::link::{CallError, Link};
use directory_api::{AccountId, BackendName, VolumeName};
use http::Method;
use serde::{Deserialize, Serialize};

/// The paths of version 1.
pub mod path {
    /// [`List`](super::List) to [`Listed`](super::Listed).
    pub const LIST: &str = "/v1/hold/list";
    /// `()` to `()`.
    pub const FLUSH: &str = "/v1/hold/flush";
    /// [`Drop`](super::Drop) to [`Dropped`](super::Dropped).
    pub const DROP: &str = "/v1/hold/drop";
}

/// The message of this recipient may be held, or shall be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// The address as RCPT named it, for operators; at most 1,024 octets.
    pub address: String,
    /// The account does not live here: it is held without asking for it. Else only when it cannot be delivered here, because the
    /// account has just gone or is on its way.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only: bool,
}

/// Accounts of one [`Listed`].
pub const ACCOUNTS_MAX: usize = 1000;

/// Upper ends of the first nine ages, in minutes; the tenth has no end.
pub const AGES_MIN: [u64; 9] = [5, 10, 20, 40, 80, 160, 320, 640, 1280];
/// How many counts there are: the last is of all that is older.
pub const AGES: usize = AGES_MIN.len() + 1;

/// `POST /v1/hold/list`. Role: operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// Accounts behind this one; from the first when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<(VolumeName, AccountId)>,
}

/// Some of what one back-end holds, by volume and account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    /// At most [`ACCOUNTS_MAX`].
    pub accounts: Vec<Held>,
    /// Whether there are more behind the last one.
    pub has_more: bool,
}

/// What is held for one account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    /// The holder's volume.
    pub volume: VolumeName,
    /// For whom.
    pub account: AccountId,
    /// Where the account lives, as the holder has heard last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<BackendName>,
    /// How many messages, by age: see [`AGES_MIN`].
    pub messages: [u64; AGES],
    /// Their octets, trace lines included.
    pub octets: u64,
    /// When the oldest was received, Unix milliseconds.
    pub oldest_ms: i64,
    /// Why nothing of it is fed now, if there is a reason besides a home that does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<Waits>,
    /// How many messages are set aside, because their home did not take them: the others go on without them.
    #[serde(default)]
    pub aside_count: u64,
    /// At most [`ASIDE_MAX`] of them, the oldest first.
    #[serde(default)]
    pub aside: Vec<Aside>,
}

/// Messages of one [`Held`] that are told one by one.
pub const ASIDE_MAX: usize = 10;

/// Why something is not fed, and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waits {
    /// A fixed word.
    pub reason: String,
    /// How often it was tried.
    pub tries: u32,
    /// It is tried again in so many seconds.
    pub next_s: u64,
}

/// One message that was set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aside {
    /// Its UID in the holder's INBOX.
    pub uid: u32,
    /// Why.
    pub waits: Waits,
}

/// `POST /v1/hold/drop`. Role: operator. What is held for the account goes and is not delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drop {
    /// For whom it is held.
    pub account: AccountId,
    /// Only the messages that are set aside.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_aside: bool,
}

/// What went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dropped {
    /// How many messages.
    pub messages: u64,
}

/// Speaks these paths to one back-end.
#[derive(Clone, Debug)]
pub struct HoldClient {
    link: Link,
}

/// A walk over all that is held, or a journal's sync for a thousand messages.
const DEADLINE: Duration = Duration::from_secs(60);

impl HoldClient {
    /// Speaks over `link`.
    #[must_use]
    pub fn new(link: Link) -> Self {
        Self { link }
    }

    /// Lists what is held for the next accounts.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn list(&self, request: &List) -> Result<Listed, CallError> {
        let call = self.link.json(Method::POST, path::LIST, request, DEADLINE);
        call.await
    }

    /// Has all homes, accounts and messages tried at once, wherever the directory says they are now.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn flush(&self) -> Result<(), CallError> {
        let call = self.link.json(Method::POST, path::FLUSH, &(), DEADLINE);
        call.await
    }

    /// Removes what is held for an account. Durable when it returns; repeatable.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn drop(&self, request: &Drop) -> Result<Dropped, CallError> {
        let call = self.link.json(Method::POST, path::DROP, request, DEADLINE);
        call.await
    }
}
