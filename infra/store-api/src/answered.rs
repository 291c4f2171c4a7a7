//! Word that senders have read the answer to their messages: `POST /v1/answered`.
//!
//! A sender whose answer was lost sends the message again, by another transaction. So a back-end takes the same message from the same
//! sender for that (P2), until a front-end tells that the answer was read: from then on the same octets are a new message. What is
//! told is durable some time later, and may be lost: that errs towards taking a message for a repeat, for at most five days.

use directory_api::AccountId;
use serde::{Deserialize, Serialize};

use crate::ContentKey;

/// The path of version 1.
pub const PATH: &str = "/v1/answered";

/// What one request may name, over all its messages: a message for more is named several times.
pub const RECIPIENTS_MAX: usize = 100;

/// Messages whose answers were read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answered {
    /// With at most [`RECIPIENTS_MAX`] recipients together.
    pub messages: Vec<AnsweredMessage>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnsweredMessage {
    /// As its transaction had it.
    pub reverse_path: String,
    /// As its commit had it.
    pub content_key: ContentKey,
    /// Those who have it at this back-end, or for whom it is held there.
    pub recipients: Vec<AnsweredRecipient>,
}

/// One recipient as the commit named it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnsweredRecipient {
    /// The account.
    pub account: AccountId,
    /// The detail of its subaddress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}
