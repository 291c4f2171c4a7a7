//! Expunged messages that can be brought back: listed and brought back by an operator, at the account's home.

use std::time::Duration;

use daemon::link::{CallError, Link};
use directory_api::{AccountId, Epoch};
use http::Method;
use serde::{Deserialize, Serialize};

/// The paths of version 1.
pub mod path {
    /// [`List`](super::List) to [`Listed`](super::Listed).
    pub const LIST: &str = "/v1/undelete/list";
    /// [`Undelete`](super::Undelete) to [`Undeleted`](super::Undeleted).
    pub const UNDELETE: &str = "/v1/undelete";
}

/// Messages of one [`Listed`], and of one [`Undelete`] at most.
pub const MESSAGES_MAX: usize = 1000;

/// Names an expunged message: the number of the mailbox it was in and its UID there, neither ever given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The mailbox's number.
    pub mailbox: u32,
    /// The UID.
    pub uid: u32,
}

/// `POST /v1/undelete/list`. Role: operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// The account.
    pub account: AccountId,
    /// Its epoch, as the directory tells it.
    pub epoch: Epoch,
    /// The messages behind this one; from the first when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Place>,
}

/// Some of an account's expunged messages, by mailbox and UID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    /// The messages.
    pub messages: Vec<Expunged>,
    /// Whether there are more behind the last one.
    pub has_more: bool,
}

/// One expunged message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expunged {
    /// Which.
    pub place: Place,
    /// What its mailbox is called, or was when it was deleted.
    pub mailbox: String,
    /// Octets that a client reads.
    pub octets: u64,
    /// Its internal date: when it was delivered.
    pub received_ms: i64,
    /// When it was expunged.
    pub expunged_ms: i64,
    /// Until when it is kept.
    pub until_ms: i64,
    /// `From` as it stands in the message, decoded, where it is at hand. Somebody wrote it: it may hold anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// `Subject` likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

/// `POST /v1/undelete`. Role: operator. Durable when answered. Said again it brings nothing back twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Undelete {
    /// The account.
    pub account: AccountId,
    /// Its epoch, as the directory tells it.
    pub epoch: Epoch,
    /// The number of the mailbox they were in.
    pub mailbox: u32,
    /// Their UIDs there, [`MESSAGES_MAX`] at most.
    pub uids: Vec<u32>,
    /// The mailbox they shall come to; made when there is none. Left out: the one they were in, or one of its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Undeleted {
    /// The mailbox they came to; empty when none came.
    pub mailbox: String,
    /// How many; those that were not kept any more are missing.
    pub messages: u64,
}

/// Speaks these paths to one back-end.
#[derive(Clone, Debug)]
pub struct UndeleteClient {
    link: Link,
}

/// A thousand rows and a journal's sync.
const DEADLINE: Duration = Duration::from_secs(60);

impl UndeleteClient {
    /// Speaks over `link`.
    #[must_use]
    pub fn new(link: Link) -> Self {
        Self { link }
    }

    /// Lists the next expunged messages.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn list(&self, request: &List) -> Result<Listed, CallError> {
        let call = self.link.json(Method::POST, path::LIST, request, DEADLINE);
        call.await
    }

    /// Brings some back. Durable when it returns; repeatable.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn undelete(&self, request: &Undelete) -> Result<Undeleted, CallError> {
        let call = self
            .link
            .json(Method::POST, path::UNDELETE, request, DEADLINE);
        call.await
    }
}
