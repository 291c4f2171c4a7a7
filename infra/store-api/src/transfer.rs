//! Moving one account: the paths under `/v1/transfer`, called by the migrator, and between
//! back-ends for the copying itself.
//!
//! ```text
//! migrator        source                     target
//!   freeze  ──▶   no writer, no session
//!   pull    ────────────────────────▶        begins the import, reads items and missing blobs
//!                 items, blobs   ◀── ─── ──  from the source itself
//!           ◀── Progress … ── ── ── ──
//!   summary ──▶   set-hash           ──▶     set-hash: equal, or the move is aborted
//!   (compare-and-set at the directory: the commit point)
//!   activate ───────────────────────▶        owns the account at the new epoch
//!   release ──▶   answers `moved`, keeps the data read-only
//! ```
//! Every step may be repeated with the same [`MoveId`](crate::MoveId) and then changes nothing, so
//! that a restarted migrator just says it again. `thaw` (source) and `discard` (target) undo
//! everything before the commit point. The source never unfreezes by itself.

mod client;

use directory_api::{AccountId, BackendName, Epoch, VolumeName};
use serde::{Deserialize, Serialize};

pub use client::{BlobOctets, Items, PullEvents, TransferClient, TransferError};
pub(crate) use client::{Framed, post};

use crate::{BlobHash, MoveId, SetHash};

/// The paths of version 1.
pub mod path {
    /// [`Freeze`](super::Freeze) to [`Summary`](super::Summary), at the source.
    pub const FREEZE: &str = "/v1/transfer/freeze";
    /// [`Undo`](super::Undo) to [`Summary`](super::Summary), at the source.
    pub const THAW: &str = "/v1/transfer/thaw";
    /// [`Undo`](super::Undo) to [`Summary`](super::Summary), at the target.
    pub const DISCARD: &str = "/v1/transfer/discard";
    /// [`Pull`](super::Pull) to a stream of [`PullProgress`](super::PullProgress), at the target.
    pub const PULL: &str = "/v1/transfer/pull";
    /// [`Export`](super::Export) to a stream of items, at the source.
    pub const EXPORT: &str = "/v1/transfer/export";
    /// [`Blob`](super::Blob) to its octets, at the source.
    pub const BLOB: &str = "/v1/transfer/blob";
    /// [`SummaryQuery`](super::SummaryQuery) to [`Summary`](super::Summary), at either side.
    pub const SUMMARY: &str = "/v1/transfer/summary";
    /// [`Activate`](super::Activate) to [`Summary`](super::Summary), at the target.
    pub const ACTIVATE: &str = "/v1/transfer/activate";
    /// [`Release`](super::Release) to [`Summary`](super::Summary), at the source.
    pub const RELEASE: &str = "/v1/transfer/release";
}

/// `POST /v1/transfer/freeze` at the source. Durable when answered. Roles: migrator, operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Freeze {
    /// The account.
    pub account: AccountId,
    /// The epoch at which the source owns it.
    pub epoch: Epoch,
    /// The move.
    pub move_id: MoveId,
}

/// `POST /v1/transfer/thaw` at the source, `POST /v1/transfer/discard` at the target: before the commit point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Undo {
    /// The account.
    pub account: AccountId,
    /// The move.
    pub move_id: MoveId,
}

/// `POST /v1/transfer/pull` at the target: it fetches everything from the source itself.
/// The answer is a stream of [`PullProgress`] frames, the last with `done`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pull {
    /// The account.
    pub account: AccountId,
    /// The move.
    pub move_id: MoveId,
    /// Where it lives now.
    pub source: BackendName,
    /// The source's link address, `host:port`.
    pub source_address: String,
    /// The source's epoch.
    pub source_epoch: Epoch,
    /// The target's volume, as the move's record has it. A target with one volume needs no name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeName>,
}

/// How far a pull has come. Cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PullProgress {
    /// Messages imported.
    pub messages: u64,
    /// Messages in all.
    pub messages_total: u64,
    /// Octets of messages accounted for (shared blobs count as they are found).
    pub octets: u64,
    /// Octets in all.
    pub octets_total: u64,
    /// Octets of blobs really copied; the rest was there already.
    pub copied_octets: u64,
    /// Everything is durable at the target.
    pub done: bool,
}

/// `POST /v1/transfer/export` at the source (role: store-backend): the answer is a stream of
/// [`Kind::Item`](crate::frame::Kind::Item) frames, canonical items in canonical order, then an `End` frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// The account, frozen for this move.
    pub account: AccountId,
    /// The move.
    pub move_id: MoveId,
}

/// `POST /v1/transfer/blob` at the source (role: store-backend): the answer is the blob's octets,
/// unframed, with its length in `content-length`. The account must hold it: the message named must have this very blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blob {
    /// The account, frozen for this move.
    pub account: AccountId,
    /// The move.
    pub move_id: MoveId,
    /// The mailbox of a message of the account that has the blob.
    pub mailbox: u32,
    /// Its UID.
    pub uid: u32,
    /// Which blob.
    pub hash: BlobHash,
}

/// `POST /v1/transfer/summary` at either side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SummaryQuery {
    /// The account.
    pub account: AccountId,
}

/// What a back-end holds of an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// What the back-end would do with a writer.
    pub state: AccountState,
    /// The account's epoch here.
    pub epoch: Epoch,
    /// The move in progress, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub move_id: Option<MoveId>,
    /// How many messages.
    pub messages: u64,
    /// Their octets, prologue and blob.
    pub octets: u64,
    /// Over every canonical item; equal on both sides if and only if identity and content are equal.
    pub set_hash: SetHash,
}

/// The life of an account on one back-end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountState {
    /// Never heard of, or discarded.
    Absent,
    /// Owned: reads and writes.
    Active,
    /// Owned, no writer and no session until the migrator says so.
    Frozen,
    /// A copy being made; serves nothing.
    Importing,
    /// Given away; read-only remains, kept for a grace period.
    Moved,
}

/// `POST /v1/transfer/activate` at the target, after the commit point. Durable when answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Activate {
    /// The account.
    pub account: AccountId,
    /// The move.
    pub move_id: MoveId,
    /// The epoch the directory gave at the compare-and-set.
    pub epoch: Epoch,
}

/// `POST /v1/transfer/release` at the source, after the commit point. Durable when answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The account.
    pub account: AccountId,
    /// The move.
    pub move_id: MoveId,
    /// Who has it now.
    pub backend: BackendName,
    /// The epoch there.
    pub epoch: Epoch,
}
