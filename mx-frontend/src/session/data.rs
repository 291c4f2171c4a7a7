//! DATA: the body on its way to every home, or who holds for it, at once, as it arrives. Nothing is spooled.

use std::time::Duration;

use bytes::Bytes;
use daemon::link::Link;
use directory_api::BackendName;
use mail_proto::smtp::BodyFault;
use store_api::deliver::{
    DeliverCommit, DeliverError, DeliverOpen, DeliverRecipient, DeliverReply, Fanout, FanoutLimits,
};
use tokio::time::Instant;

use super::envelope::Envelope;
use crate::body::{Body, Passed};
use crate::frontend::Shared;
use crate::pace::Pace;
use crate::recipients::{Recipient, by_backend};
use crate::timeline::Stage;

/// A transaction whose body is passing. Dropped, every stream of it ends without a commit.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) envelope: Envelope,
    pub(super) pace: Pace,
    body: Body,
    streams: Streams,
}

/// The streams to all back-ends of one transaction.
#[derive(Debug)]
pub(super) struct Streams {
    fanout: Fanout,
}

/// Opens the streams. They connect while the client reads our 354.
pub(super) async fn start(shared: &Shared, mut envelope: Envelope) -> Box<Delivery> {
    envelope.timeline.charge(Stage::Recipients, Instant::now());
    let mut targets = Vec::new();
    for (backend, here) in by_backend(envelope.recipients.list()) {
        let link = envelope
            .link(&backend)
            .expect("RCPT found a link to every home, or to its holder")
            .clone();
        targets.push((backend, link, open(&envelope, &here)));
    }
    let deadline = shared.limits.commit_timeout() / 2;
    let streams = Streams::open(shared, targets, deadline).await;
    Box::new(Delivery {
        pace: Pace::new(
            shared.limits.sender_octets_per_s_min,
            shared.stress.calm.sender_window,
        ),
        body: Body::new(
            shared.limits.retry_body_max_bytes,
            envelope.is_foreign.then_some(shared.hostname.as_str()),
        ),
        streams,
        envelope,
    })
}

impl Delivery {
    /// Sends on what came. Waits while the homes are slower than the client, which is then
    /// slowed by TCP; a home that stalls is given up by the fan-out and not awaited.
    pub(super) async fn chunk(&mut self, octets: &[u8]) {
        if let Some(piece) = self.body.take(octets) {
            self.streams.write(piece).await;
        }
    }

    pub(super) fn trace_id(&self) -> &str {
        &self.envelope.trace_id
    }

    /// The body has come to its end: the rest of it, the streams, and what is known of the whole.
    pub(super) fn finish(self) -> (Envelope, Streams, Option<Bytes>, Passed) {
        let (last, passed) = self.body.finish();
        (self.envelope, self.streams, last, passed)
    }
}

impl Streams {
    /// `deadline`: from the commit to the answer of the last back-end; behind it there must be time to have a sibling hold what
    /// one does not answer for.
    pub(super) async fn open(
        shared: &Shared,
        targets: Vec<(BackendName, Link, DeliverOpen)>,
        deadline: Duration,
    ) -> Self {
        let limits = FanoutLimits {
            stall_max: shared.limits.stall_timeout(),
            deadline,
        };
        Self {
            fanout: Fanout::open(targets, limits).await,
        }
    }

    pub(super) async fn write(&mut self, piece: Bytes) {
        self.fanout.write(piece).await;
    }

    /// Which back-ends still take the message.
    pub(super) fn live(&self) -> Vec<BackendName> {
        self.fanout.live().cloned().collect()
    }

    /// Goes on without those that take it no more, and tells why each does not.
    pub(super) async fn take_lost(&mut self) -> Vec<(BackendName, DeliverError)> {
        self.fanout.take_lost().await
    }

    /// Takes further back-ends in, which have got the same.
    pub(super) fn join(&mut self, other: Self) {
        self.fanout.join(other.fanout);
    }

    /// Asks every back-end to commit, all at once, and gives its answers.
    pub(super) async fn commit(
        self,
        of: impl Fn(&BackendName) -> DeliverCommit,
    ) -> Vec<(BackendName, Result<DeliverReply, DeliverError>)> {
        self.fanout.commit(of).await
    }
}

/// The reason code of a body that was refused.
pub(super) fn fault_code(fault: BodyFault) -> &'static str {
    match fault {
        BodyFault::BareCr => "bare_cr",
        BodyFault::BareLf => "bare_lf",
        BodyFault::LineTooLong => "line_too_long",
        BodyFault::TooLarge => "too_large",
    }
}

/// The first frame of the stream to one back-end.
pub(super) fn open(envelope: &Envelope, here: &[&Recipient]) -> DeliverOpen {
    let reverse_path = envelope.mail.reverse_path.address();
    DeliverOpen {
        txn: envelope.txn,
        trace_id: envelope.trace_id.clone(),
        reverse_path: reverse_path.map(ToString::to_string).unwrap_or_default(),
        declared_octets: envelope.mail.size,
        recipients: here
            .iter()
            .map(|one| DeliverRecipient {
                account: one.account,
                epoch: one.epoch,
                hold: one.hold,
            })
            .collect(),
    }
}
