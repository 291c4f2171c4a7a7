//! Moving one account: the paths under `/v1/transfer`, called by the migrator, and between
//! back-ends for the copying itself.
//!
//! ```text
//! migrator        source                     target
//!   offer   ──▶   serves on; this target may read the account
//!   pull    ────────────────────────▶        begins the import, then in rounds, until little is left:
//!                 sums           ◀── ─── ──    which blocks differ
//!                 items, blobs   ◀── ─── ──    those blocks' items, blobs that are missing
//!           ◀── Progress … ── ── ── ──
//!   freeze  ──▶   no writer, no session
//!   pull    ────────────────────────▶        the last round: until no block differs
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

pub use client::{BlobOctets, Items, PullEvents, SumsOf, TransferClient, TransferError};
pub(crate) use client::{Framed, post};

pub use crate::hex::BlockName;
use crate::{BlobHash, MoveId, SetHash};

/// The paths of version 1.
pub mod path {
    /// [`Offer`](super::Offer) to [`Summary`](super::Summary), at the source.
    pub const OFFER: &str = "/v1/transfer/offer";
    /// [`Freeze`](super::Freeze) to [`Summary`](super::Summary), at the source.
    pub const FREEZE: &str = "/v1/transfer/freeze";
    /// [`Undo`](super::Undo) to [`Summary`](super::Summary), at the source.
    pub const THAW: &str = "/v1/transfer/thaw";
    /// [`Undo`](super::Undo) to [`Summary`](super::Summary), at the target.
    pub const DISCARD: &str = "/v1/transfer/discard";
    /// [`Pull`](super::Pull) to a stream of [`PullProgress`](super::PullProgress), at the target.
    pub const PULL: &str = "/v1/transfer/pull";
    /// [`SumsQuery`](super::SumsQuery) to a stream of sums, at the source.
    pub const SUMS: &str = "/v1/transfer/sums";
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

/// `POST /v1/transfer/offer` at the source: the account may be read by the target while it is served on. Not durable: a
/// source that was restarted is told again. Roles: migrator, operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// The account.
    pub account: AccountId,
    /// The epoch at which the source owns it.
    pub epoch: Epoch,
    /// The move.
    pub move_id: MoveId,
    /// Who may read it.
    pub target: BackendName,
}

/// The refusal of a [`Freeze`] that is not to be forced: a POP3 session is open, which ends with its `QUIT` and else loses
/// what its user has deleted.
pub const POP3_OPEN: &str = "pop3_open";

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
    /// Whether POP3 sessions are ended, too; else the answer is [`POP3_OPEN`] while there is one.
    #[serde(default)]
    pub force: bool,
    /// Who may read it, as with an [`Offer`]: a source that was restarted does not know any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<BackendName>,
}

/// `POST /v1/transfer/thaw` at the source, `POST /v1/transfer/discard` at the target: before the commit point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Undo {
    /// The account.
    pub account: AccountId,
    /// The move. Nothing of it is done any more by whoever has been told this.
    pub move_id: MoveId,
    /// Where the account lives: to a target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<BackendName>,
    /// The volume that it was to come to, as the move's record has it: to a target, which then takes nothing of the move there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeName>,
}

/// `POST /v1/transfer/pull` at the target: it fetches everything from the source itself.
/// The answer is a stream of [`PullProgress`] frames, the last with `done`; one comes each few seconds, also when nothing has changed.
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
    /// The source is frozen: it is asked until nothing differs. Else until so little does that a freeze is short.
    #[serde(default)]
    pub is_last: bool,
    /// At most so many octets of blobs a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub octets_per_s: Option<u64>,
}

/// How far a pull has come. Cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PullProgress {
    /// Which round it is in, from 1.
    pub round: u32,
    /// Messages that are here as they were at the source when it was asked.
    pub messages: u64,
    /// Messages in all.
    pub messages_total: u64,
    /// Octets of messages accounted for (shared blobs count as they are found).
    pub octets: u64,
    /// Octets in all.
    pub octets_total: u64,
    /// Octets of blobs really copied; the rest was there already.
    pub copied_octets: u64,
    /// What was written is durable at the target, and what differs is little, or nothing.
    pub done: bool,
}

/// The last frame of a pull that stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PullStopped {
    /// Why, in a sentence for the operator.
    pub why: String,
}

/// `POST /v1/transfer/sums` at the source (role: store-backend): the answer is a stream of
/// [`Kind::Open`](crate::frame::Kind::Open) with [`SumsHead`], [`Kind::Sums`](crate::frame::Kind::Sums) frames, then an `End`
/// frame. A `Sums` frame has any number of sums: [`BlockName`] (9 octets) and the sum (32), growing by name. While the account is
/// counted, which may take minutes, frames without any tell that the source is at work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SumsQuery {
    /// The account, offered to the asking back-end, or frozen for it.
    pub account: AccountId,
    /// The move.
    pub move_id: MoveId,
}

/// What the account has, in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SumsHead {
    /// Messages.
    pub messages: u64,
    /// Their octets, prologue and blob.
    pub octets: u64,
}

/// Blocks that one export may name.
pub const EXPORT_BLOCKS_MAX: usize = 256;

/// `POST /v1/transfer/export` at the source (role: store-backend): the answer is a stream of
/// [`Kind::Item`](crate::frame::Kind::Item) frames, the canonical items of these blocks in their order, then an `End` frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// The account, offered to the asking back-end or frozen for this move.
    pub account: AccountId,
    /// The move.
    pub move_id: MoveId,
    /// Growing, [`EXPORT_BLOCKS_MAX`] at most.
    pub blocks: Vec<BlockName>,
}

/// `POST /v1/transfer/blob` at the source (role: store-backend): the answer is the blob's octets,
/// unframed, with its length in `content-length`. The account must hold it: the message named must have this very blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blob {
    /// The account, offered to the asking back-end or frozen for this move.
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
    /// Over every canonical item; equal on both sides if and only if identity and content are equal. Only a
    /// [`SummaryQuery`] is answered with it: a step does not wait for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_hash: Option<SetHash>,
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
