//! The numbered changes, followed by every cache.

use serde::{Deserialize, Serialize};

use crate::types::ChangeNumber;

/// The reply to a write: the number of its change beside what is now there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed<T> {
    /// The number of the change; when the write changed nothing, the newest one.
    pub change: ChangeNumber,
    /// The thing as it is now; as it was for a removal.
    pub now: T,
}

/// What kind of thing changed. Kinds may be added; a client passes over those it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// Key: the domain's name.
    Domain,
    /// Key: the account's number.
    Account,
    /// Key: the address.
    Address,
    /// Key: the back-end's name.
    Backend,
    /// Key: the account's number.
    Home,
    /// Key: the account's number.
    Move,
    /// Key: the signing key's id.
    Key,
    /// Key: the account's number. Its limits changed.
    Quota,
    /// Key: the account's number. The same password is kept in another form: no answer is touched.
    /// A kind of its own, for there are many while accounts from another server log in, and who
    /// drops something when a password changes shall not do so for each of them.
    Hash,
    /// A kind of a later version.
    #[serde(other)]
    Other,
}

/// One change: what it was is asked for by the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Its number; a write of many things is many changes with one number each.
    pub number: ChangeNumber,
    /// The kind of thing.
    pub kind: ChangeKind,
    /// Which one.
    pub key: String,
    /// When, Unix milliseconds.
    pub at_ms: i64,
}

/// Asks for the changes after one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangesQuery {
    /// Changes with greater numbers are wanted; 0 for all that are kept.
    pub after: ChangeNumber,
    /// At most [`super::limit::CHANGES_MAX`], which is also the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Wait so long for the first change when there is none yet; at most
    /// [`super::limit::CHANGES_WAIT_MAX_MS`], 0 when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

/// Changes in order, without gaps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangesReply {
    /// In order. Empty when nothing came in time.
    pub changes: Vec<Change>,
    /// The newest change there is. One below `after` means that the directory itself was
    /// restored: drop every cached answer.
    pub last: ChangeNumber,
    /// When the change was behind which these come, or the newest one where that is older; Unix milliseconds. None if it is no
    /// longer kept. Who has heard another time of it has heard of a directory that was restored since, and has gone on: as
    /// above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_at_ms: Option<i64>,
}
