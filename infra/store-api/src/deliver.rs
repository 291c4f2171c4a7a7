//! One delivery: `POST /v1/deliver`, one stream per transaction and back-end.
//!
//! ```text
//! front-end                                  back-end
//!   Open {txn, sender, recipients}   ──▶     reads the accounts, begins a blob
//!   Data …                           ──▶     writes it as it arrives
//!   Commit {hash, prologues}         ──▶     checks the hash, journal, sync
//!                                    ◀──     200 {results: one per recipient}
//! ```
//! A stream that ends without `Commit` leaves nothing. The reply is sent after the journal's sync,
//! so a [`Outcome::Committed`] is durable (P1). A refusal of the whole stream (read-only volume,
//! starting, malformed) is a typed problem and may come before the body has been sent.

mod client;
mod fanout;

use data_encoding::BASE64;
use directory_api::{AccountId, BackendName, Epoch};
use serde::{Deserialize, Serialize};

pub use client::{DeliverClient, DeliverError};
pub use fanout::{Fanout, FanoutLimits};

use crate::hold::Hold;
use crate::{BlobHash, ContentKey, TxnId};

/// The path of version 1.
pub const PATH: &str = "/v1/deliver";

/// The first frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliverOpen {
    /// Made by the front-end, once per transaction of a sender.
    pub txn: TxnId,
    /// Tells this transaction apart in the logs of every tier; at most 64 octets.
    pub trace_id: String,
    /// The reverse path without `<>`; empty for the null sender.
    pub reverse_path: String,
    /// What MAIL said with SIZE. RFC 1870.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declared_octets: Option<u64>,
    /// At most 1,000.
    pub recipients: Vec<DeliverRecipient>,
}

/// One account that shall receive the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliverRecipient {
    /// The account.
    pub account: AccountId,
    /// The epoch the front-end believes in (P4).
    pub epoch: Epoch,
    /// It lives elsewhere: the message shall be held for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hold: bool,
}

/// The last frame. Recipients of `Open` that are missing here get nothing; others may be named to be held, when their home was lost on
/// the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliverCommit {
    /// BLAKE3-256 of the data of this stream. Verified by the back-end (P9).
    pub blob_hash: BlobHash,
    /// BLAKE3-256 of the octets as received.
    pub content_key: ContentKey,
    /// What becomes of the same message by another transaction.
    #[serde(default, skip_serializing_if = "Repeats::is_default")]
    pub repeats: Repeats,
    /// How many octets the stream carried.
    pub octets: u64,
    /// When the final dot arrived, Unix milliseconds: the internal date.
    pub received_ms: i64,
    /// The final recipients, each once.
    pub recipients: Vec<CommitRecipient>,
}

/// How a message is treated that an account has by another transaction, with the same reverse path, content key and detail: its sender may
/// not have read the answer, and send it again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Repeats {
    /// As a new one.
    #[default]
    Deliver,
    /// As a duplicate, until its sender is known to have read the answer ([`crate::answered`]).
    Suppress,
    /// As a duplicate, even then: it was held, and the sender may have sent it again in between.
    SuppressRead,
}

impl Repeats {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// One final recipient and the trace lines that stand before the blob for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitRecipient {
    /// The account.
    pub account: AccountId,
    /// The epoch the front-end believes in (P4).
    pub epoch: Epoch,
    /// Whole header lines with CRLF, Received last.
    pub prologue: Prologue,
    /// The detail of the subaddress that was named, `lists` of `ann+lists@x.test`: which mailbox gets it is decided at the home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Whether the message may be held here for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
}

/// Trace lines of one delivery; base64 in JSON, because a header may hold any octet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prologue(pub Vec<u8>);

impl TryFrom<String> for Prologue {
    type Error = data_encoding::DecodeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        BASE64.decode(text.as_bytes()).map(Self)
    }
}

impl From<Prologue> for String {
    fn from(prologue: Prologue) -> Self {
        BASE64.encode(&prologue.0)
    }
}

/// The reply to `Commit`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliverReply {
    /// One for each recipient of `Commit`, in its order.
    pub results: Vec<DeliverResult>,
}

/// What became of one recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliverResult {
    /// The account.
    pub account: AccountId,
    /// Its outcome.
    pub outcome: Outcome,
}

/// What became of a delivery to one account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// In a synced journal.
    Committed {
        /// The UID in the INBOX.
        uid: u32,
    },
    /// This transaction was committed to this account before, or it is a repeat ([`Repeats`]); it is there once.
    Duplicate,
    /// In a synced journal, and on its way to where the account lives. Only who allowed it hears it.
    Held,
    /// The account lives elsewhere now; look it up again.
    Moved {
        /// The back-end that took it.
        backend: BackendName,
        /// Its epoch there.
        epoch: Epoch,
    },
    /// The epoch given is not the account's here; look it up again.
    StaleEpoch {
        /// The epoch known here.
        epoch: Epoch,
    },
    /// The account is being moved; try again soon.
    Frozen,
    /// The back-end cannot write now.
    Unavailable,
    /// The disk or the account is full; nothing was written.
    Full,
}

impl Outcome {
    /// Whether the message is durable for this recipient.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        matches!(self, Self::Committed { .. } | Self::Duplicate | Self::Held)
    }
}
