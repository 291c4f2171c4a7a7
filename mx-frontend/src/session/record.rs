//! The one line that the log gets for each delivery.

use std::fmt::Write;
use std::net::SocketAddr;

use tokio::time::Instant;
use tracing::info;

use super::envelope::Envelope;
use super::trace::Connection;
use crate::body::Passed;
use crate::meter;
use crate::recipients::Recipient;
use crate::settlement::Short;
use crate::timeline::{Stage, Timeline};

/// A decided delivery whose reply is on its way.
#[derive(Debug)]
pub(super) struct Record {
    envelope: Envelope,
    client: SocketAddr,
    tls: bool,
    octets: u64,
    code: u16,
    short: Option<Short>,
}

/// Recipients named in a line; the rest are counted. A line must stay one that a log shipper takes.
const NAMED_MAX: usize = 20;

impl Record {
    pub(super) fn new(
        envelope: Envelope,
        passed: &Passed,
        connection: &Connection,
        code: u16,
        short: Option<Short>,
    ) -> Self {
        Self {
            envelope,
            client: connection.client,
            tls: connection.tls.is_some(),
            octets: passed.octets,
            code,
            short,
        }
    }

    /// Writes the line. `sent`: the reply went out. Gives the time of what comes next.
    pub(super) fn told(self, now: Instant, sent: bool) -> Timeline {
        let Self {
            mut envelope,
            client,
            tls,
            octets,
            code,
            short,
        } = self;
        envelope.timeline.charge(Stage::Reply, now);
        let outcome = short.map_or("kept", Short::code);
        let recipients = envelope.recipients.list();
        meter::delivery(outcome, octets, recipients.len());
        let spent = |stage| envelope.timeline.spent_ms(stage);
        info!(
            trace_id = envelope.trace_id,
            txn = %envelope.txn,
            %client,
            tls,
            from = %envelope.mail.reverse_path,
            recipients = recipients.len(),
            to = named(recipients),
            octets,
            reply = code,
            outcome,
            sent,
            before_mail_ms = spent(Stage::BeforeMail),
            rcpt_ms = spent(Stage::Recipients),
            connect_ms = spent(Stage::Connect),
            body_ms = spent(Stage::Body),
            commit_ms = spent(Stage::Commit),
            reply_ms = spent(Stage::Reply),
            "delivery"
        );
        Timeline::new(now)
    }
}

/// `address=account@back-end`, separated by spaces.
fn named(recipients: &[Recipient]) -> String {
    let mut text = String::new();
    for one in recipients.iter().take(NAMED_MAX) {
        let space = if text.is_empty() { "" } else { " " };
        _ = write!(
            text,
            "{space}{}={}@{}",
            one.address, one.account, one.backend
        );
    }
    if recipients.len() > NAMED_MAX {
        _ = write!(text, " and {} more", recipients.len() - NAMED_MAX);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made_up::recipient;

    #[test]
    fn a_thousand_recipients_are_one_bounded_line() {
        let many: Vec<_> = (0..1000).map(|number| recipient(number, "b1", 1)).collect();
        let text = named(&many);
        assert!(text.starts_with("someone@example.test=0@b1 someone@example.test=1@b1 "));
        assert!(text.ends_with(" and 980 more") && text.len() < 1000);
        assert_eq!(named(&many[..1]), "someone@example.test=0@b1");
    }
}
