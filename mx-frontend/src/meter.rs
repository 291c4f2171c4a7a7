//! The metrics of this tier, each described where it is counted.

use std::time::Duration;

use mail_proto::smtp::Tally;

use metrics::{
    Counter, Gauge, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

/// Says what each metric means. Call once the recorder is installed.
pub(crate) fn describe() {
    describe_counter!("posthouse_mx_connections_total", "SMTP connections taken.");
    describe_gauge!(
        "posthouse_mx_connections_open",
        "SMTP connections open now."
    );
    describe_counter!(
        "posthouse_mx_connection_ends_total",
        "SMTP connections ended, by reason."
    );
    describe_counter!(
        "posthouse_mx_refusals_total",
        "Recipients, bodies and connections refused, by stage and reason."
    );
    describe_counter!(
        "posthouse_mx_check_findings_total",
        "What checks of clients and senders found, by check and by what was done about it."
    );
    describe_counter!(
        "posthouse_mx_spf_results_total",
        "What senders' domains say of clients (SPF), by result."
    );
    describe_counter!(
        "posthouse_mx_dns_lookups_total",
        "Look-ups in the DNS, by result; unknown: no server said in time."
    );
    describe_histogram!(
        "posthouse_mx_dns_lookup_seconds",
        "Time that a look-up in the DNS took, kept answers included."
    );
    describe_counter!(
        "posthouse_mx_deliveries_total",
        "Messages that reached their final dot, by outcome: kept, or why not."
    );
    describe_counter!(
        "posthouse_mx_recipients_kept_total",
        "Accounts for which a message was kept."
    );
    describe_histogram!("posthouse_mx_message_size_bytes", "Size of messages kept.");
    describe_histogram!(
        "posthouse_mx_commit_seconds",
        "Time from the final dot to the verdict."
    );
    describe_counter!(
        "posthouse_mx_asked_again_total",
        "Deliveries committed again, because a home had moved, its answer was lost, or a sibling is to hold it."
    );
    describe_counter!(
        "posthouse_mx_answers_untold_total",
        "Times that a back-end was not told which answers were read: the same messages again would be taken for repeats for five days."
    );
    describe_counter!(
        "posthouse_mx_errors_total",
        "Mistakes of clients: commands and messages refused for good, and commands beyond the junk limit."
    );
    describe_counter!(
        "posthouse_mx_delayed_replies_total",
        "Replies held back because their client had made many mistakes."
    );
    describe_gauge!(
        "posthouse_mx_stressed",
        "1 while connections run out and slow or faulty clients are ended soon."
    );
    describe_counter!(
        "posthouse_mx_stress_changes_total",
        "How often stress began and ended."
    );
    describe_counter!(
        "posthouse_mx_tls_handshakes_total",
        "TLS handshakes with senders, by what came of them."
    );
    describe_counter!(
        "posthouse_mx_bodies_cut_total",
        "Bodies that the client did not finish."
    );
}

/// A connection that is counted as open; dropped, it is so no more, also when its task panics.
pub(crate) struct Open(Gauge);

pub(crate) fn connection() -> Open {
    counter!("posthouse_mx_connections_total").increment(1);
    let open = gauge!("posthouse_mx_connections_open");
    open.increment(1);
    Open(open)
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

pub(crate) fn connection_ended(reason: &'static str) {
    counter!("posthouse_mx_connection_ends_total", "reason" => reason).increment(1);
}

pub(crate) fn refused(stage: &'static str, reason: &'static str) {
    counter!("posthouse_mx_refusals_total", "stage" => stage, "reason" => reason).increment(1);
}

pub(crate) fn found(check: &'static str, action: &'static str) {
    counter!("posthouse_mx_check_findings_total", "check" => check, "action" => action)
        .increment(1);
}

pub(crate) fn spf(result: &'static str) {
    counter!("posthouse_mx_spf_results_total", "result" => result).increment(1);
}

pub(crate) fn dns_lookup(result: &'static str, took: Duration) {
    counter!("posthouse_mx_dns_lookups_total", "result" => result).increment(1);
    histogram!("posthouse_mx_dns_lookup_seconds").record(took);
}

pub(crate) fn delivery(outcome: &'static str, octets: u64, recipients: usize) {
    counter!("posthouse_mx_deliveries_total", "outcome" => outcome).increment(1);
    if outcome == "kept" {
        counter!("posthouse_mx_recipients_kept_total").increment(recipients as u64);
        histogram!("posthouse_mx_message_size_bytes").record(octets as f64);
    }
}

pub(crate) fn committed(took: Duration) {
    histogram!("posthouse_mx_commit_seconds").record(took);
}

pub(crate) fn answers_untold() {
    counter!("posthouse_mx_answers_untold_total").increment(1);
}

pub(crate) fn asked_again() {
    counter!("posthouse_mx_asked_again_total").increment(1);
}

/// What the core refused by itself.
pub(crate) fn tally(tally: Tally) {
    for (stage, reason, count) in [
        ("mail", "too_large", tally.sizes_over),
        ("rcpt", "recipients_max", tally.recipients_over),
        ("command", "junk_command_limit", tally.junk),
    ] {
        if count > 0 {
            counter!("posthouse_mx_refusals_total", "stage" => stage, "reason" => reason)
                .increment(count.into());
        }
    }
    if tally.errors > 0 {
        counter!("posthouse_mx_errors_total").increment(tally.errors.into());
    }
}

pub(crate) fn delayed_reply() {
    counter!("posthouse_mx_delayed_replies_total").increment(1);
}

pub(crate) fn stress(begins: bool) {
    let change = if begins { "entered" } else { "left" };
    counter!("posthouse_mx_stress_changes_total", "change" => change).increment(1);
    stress_is(begins);
}

pub(crate) fn stress_is(on: bool) {
    gauge!("posthouse_mx_stressed").set(f64::from(u8::from(on)));
}

pub(crate) fn handshake(result: &'static str) {
    counter!("posthouse_mx_tls_handshakes_total", "result" => result).increment(1);
}

pub(crate) fn cut_bodies() -> Counter {
    counter!("posthouse_mx_bodies_cut_total")
}
