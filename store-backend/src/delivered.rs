//! The one log line of a delivery, and its figures.

use std::collections::BTreeMap;
use std::time::Duration;

use store_api::TxnId;
use store_api::deliver::DeliverResult;
use tracing::info;

use crate::metrics;
use crate::outcome::label;

/// One transaction whose outcome is known.
pub(crate) struct Delivered<'a> {
    /// The way it came: `deliver` or `lmtp`.
    pub(crate) via: &'static str,
    pub(crate) trace_id: &'a str,
    pub(crate) txn: TxnId,
    pub(crate) sender: &'a str,
    pub(crate) octets: u64,
    /// From the beginning of the transaction to the last octet.
    pub(crate) receive: Duration,
    /// From the last octet to the answers of all homes.
    pub(crate) commit: Duration,
    /// From there until the reply was written, where that is ours to see.
    pub(crate) reply: Option<Duration>,
}

impl Delivered<'_> {
    /// Writes the line and counts. After the reply where the protocol allows, so that nobody waits for it.
    pub(crate) fn report(&self, results: &[DeliverResult]) {
        let mut outcomes = BTreeMap::new();
        for result in results {
            metrics::delivered(self.via, label(&result.outcome));
            *outcomes.entry(label(&result.outcome)).or_insert(0u32) += 1;
        }
        if results.iter().any(|result| result.outcome.is_kept()) {
            metrics::committed(self.octets, self.commit);
        }
        let accounts: Vec<u64> = results
            .iter()
            .take(ACCOUNTS_LOGGED_MAX)
            .map(|result| result.account.0)
            .collect();
        info!(
            trace_id = self.trace_id,
            txn = %self.txn,
            via = self.via,
            sender = self.sender,
            recipients = results.len(),
            ?accounts,
            octets = self.octets,
            receive_ms = milliseconds(self.receive),
            commit_ms = milliseconds(self.commit),
            reply_ms = self.reply.map(milliseconds),
            ?outcomes,
            "delivery"
        );
    }
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e5).round() / 100.0
}

/// A line stays a line: a list of a thousand says no more than its count.
const ACCOUNTS_LOGGED_MAX: usize = 20;
