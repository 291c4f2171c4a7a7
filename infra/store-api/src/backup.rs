//! Backups: an operator's command reads accounts at their homes, and puts mail back. Paths under `/v1/backup`.
//!
//! Role operator, and the back-end's settings must name the operator's certificate (`backup_operators`): whoever may ask this
//! reads everybody's mail (P8). Every request is logged with who asked.
//!
//! ```text
//! backup:            snapshot ──▶ items … of one instant      blob ──▶ octets, of those that the backup has not
//! restore a mailbox: append   ──▶ one message, as a new one
//! restore a volume:  begin, missing, blob …, items …, finish: only into a volume that takes no mail (not adopted yet)
//! ```

mod client;

use directory_api::{AccountId, Epoch};
use serde::{Deserialize, Serialize};

pub use client::{BackupClient, BodyOctets, SnapshotItems};

use crate::{BlobHash, EmailId, MoveId, SetHash};

/// The paths of version 1.
pub mod path {
    /// [`Snapshot`](super::Snapshot) to a stream of items, the last frame before its end a [`SnapshotEnd`](super::SnapshotEnd).
    pub const SNAPSHOT: &str = "/v1/backup/snapshot";
    /// [`Blob`](super::Blob) to its octets.
    pub const BLOB: &str = "/v1/backup/blob";
    /// [`Append`](super::Append) and the message to [`Appended`](super::Appended).
    pub const APPEND: &str = "/v1/backup/append";
    /// [`Begin`](super::Begin) to nothing.
    pub const BEGIN: &str = "/v1/backup/restore/begin";
    /// [`Missing`](super::Missing) to the same, of those that are not here.
    pub const MISSING: &str = "/v1/backup/restore/missing";
    /// [`Put`](super::Put) and the octets to nothing.
    pub const PUT: &str = "/v1/backup/restore/blob";
    /// [`Begin`](super::Begin) and items to nothing.
    pub const ITEMS: &str = "/v1/backup/restore/items";
    /// [`Finish`](super::Finish) to nothing.
    pub const FINISH: &str = "/v1/backup/restore/finish";
}

/// Hashes that one [`Missing`] asks for at most.
pub const HASHES_MAX: usize = 500;

/// `POST /v1/backup/snapshot`: all items of an account, read at one instant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// The account.
    pub account: AccountId,
    /// What the caller has: if the account still is that, no item comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<SetHash>,
}

/// After the items: what they are. A stream without it was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotEnd {
    /// The account's epoch.
    pub epoch: Epoch,
    /// Over every item.
    pub set_hash: SetHash,
    /// How many there are.
    pub items: u64,
    /// The caller has them: none were sent.
    pub unchanged: bool,
}

/// `POST /v1/backup/blob`: the answer is the octets, unframed. The account must hold it: the message named has this very blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blob {
    /// The account.
    pub account: AccountId,
    /// The mailbox of a message of the account that has the blob.
    pub mailbox: u32,
    /// Its UID.
    pub uid: u32,
    /// Which blob.
    pub hash: BlobHash,
}

/// `POST /v1/backup/append`: the open frame, before the message's octets as data and an end. Durable when answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Append {
    /// The account; made when it is not there.
    pub account: AccountId,
    /// Its epoch, as the directory tells it.
    pub epoch: Epoch,
    /// The mailbox's name; made when it is not there.
    pub mailbox: String,
    /// System flags, numbered as in transfer items.
    pub flags: u32,
    /// Keywords.
    pub keywords: Vec<String>,
    /// In milliseconds since 1970.
    pub internal_date_ms: i64,
    /// The message's EMAILID, which it keeps.
    pub identity: EmailId,
    /// Of all that follows.
    pub hash: BlobHash,
}

/// Where a message was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appended {
    /// Of the mailbox.
    pub uidvalidity: u32,
    /// The new one.
    pub uid: u32,
}

/// `POST /v1/backup/restore/begin`; and the open frame of `…/items`, before the items and an end. Repeatable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Begin {
    /// The account.
    pub account: AccountId,
    /// Names this restore, so that one that broke off goes on.
    pub restore_id: MoveId,
}

/// `POST /v1/backup/restore/missing`: at most [`HASHES_MAX`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Missing {
    /// An account that lives on the volume.
    pub account: AccountId,
    /// The blobs.
    pub hashes: Vec<BlobHash>,
}

/// `POST /v1/backup/restore/blob`: the open frame, before the octets as data and an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Put {
    /// An account that lives on the volume.
    pub account: AccountId,
    /// What they hash to.
    pub hash: BlobHash,
}

/// `POST /v1/backup/restore/finish`: opens the account, if it is what the backup has. Durable when answered; repeatable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finish {
    /// The account.
    pub account: AccountId,
    /// As it was begun.
    pub restore_id: MoveId,
    /// The account's epoch, as the directory tells it.
    pub epoch: Epoch,
    /// Of the backup.
    pub set_hash: SetHash,
}
