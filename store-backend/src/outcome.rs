//! What became of a delivery: from the volume's word to the wire's, and on to LMTP's.

use mail_proto::smtp::Reply;
use store_api::deliver::Outcome as WireOutcome;

use crate::volume::Outcome;

/// The word of the deliver stream for what the volume did.
pub(crate) fn to_wire(outcome: Outcome) -> WireOutcome {
    match outcome {
        Outcome::Committed { uid, lsn: _ } => WireOutcome::Committed { uid },
        Outcome::Duplicate => WireOutcome::Duplicate,
        Outcome::StaleEpoch { ours } => WireOutcome::StaleEpoch { epoch: ours },
        Outcome::Frozen => WireOutcome::Frozen,
        Outcome::Moved { backend, epoch } => WireOutcome::Moved { backend, epoch },
        // The directory named an account or a mailbox that this volume cannot have. That is a fault
        // of ours, and a fault of ours is never "no such user" (P6).
        Outcome::NoAccount | Outcome::NoMailbox | Outcome::ReadOnly => WireOutcome::Unavailable,
        Outcome::Full | Outcome::NoRoom => WireOutcome::Full,
    }
}

/// A fixed word for logs and metrics.
pub(crate) fn label(outcome: &WireOutcome) -> &'static str {
    match outcome {
        WireOutcome::Committed { .. } => "committed",
        WireOutcome::Duplicate => "duplicate",
        WireOutcome::Held => "held",
        WireOutcome::Moved { .. } => "moved",
        WireOutcome::StaleEpoch { .. } => "stale_epoch",
        WireOutcome::Frozen => "frozen",
        WireOutcome::Unavailable => "unavailable",
        WireOutcome::Full => "full",
    }
}

/// The reply after the final dot of LMTP. Everything that is not kept is temporary (P6): the
/// sending server has the message and asks again.
pub(crate) fn to_reply(outcome: &WireOutcome) -> Reply {
    match outcome {
        WireOutcome::Committed { .. } => Reply::new(250, (2, 0, 0), "delivered"),
        WireOutcome::Duplicate => Reply::new(250, (2, 0, 0), "delivered before"),
        WireOutcome::Held => Reply::new(250, (2, 0, 0), "held until the mailbox is back"),
        WireOutcome::Frozen => Reply::new(
            451,
            (4, 3, 2),
            "mailbox is being moved, try again in a moment",
        ),
        WireOutcome::Moved { .. } | WireOutcome::StaleEpoch { .. } => Reply::new(
            451,
            (4, 3, 2),
            "mailbox has just moved, try again in a moment",
        ),
        WireOutcome::Unavailable => Reply::new(
            451,
            (4, 3, 0),
            "mailbox is not available now, try again later",
        ),
        // Quota refuses nothing here: it is the system that is full. RFC 3463 §3.4.
        WireOutcome::Full => Reply::new(452, (4, 3, 1), "the store is full, try again later"),
    }
}
