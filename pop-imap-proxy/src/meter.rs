//! The metrics of this tier.

use std::time::Duration;

use metrics::{
    Gauge, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::announced::MISSING;
use crate::door::Door;

/// Says what each metric means. Call once the recorder is installed.
pub(crate) fn describe() {
    describe_counter!(
        "posthouse_proxy_connections_total",
        "Connections taken, by listener."
    );
    describe_gauge!(
        "posthouse_proxy_connections_open",
        "Connections open now, by listener."
    );
    describe_counter!(
        "posthouse_proxy_refusals_total",
        "Connections refused at once, by listener and the limit that was reached."
    );
    describe_counter!(
        "posthouse_proxy_ends_before_login_total",
        "Connections that ended without a login, by listener and reason."
    );
    describe_counter!(
        "posthouse_proxy_open_failures_total",
        "Sessions that a back-end did not open, by listener and reason."
    );
    describe_counter!(
        "posthouse_proxy_sessions_total",
        "Sessions ended, by listener and who ended them."
    );
    describe_gauge!(
        MISSING,
        "Capabilities announced before the login that a back-end lacks."
    );
    describe_histogram!(
        "posthouse_proxy_session_seconds",
        "Length of sessions, by listener."
    );
    describe_counter!(
        "posthouse_proxy_relayed_bytes_total",
        "Octets copied in sessions that have ended, by listener and direction."
    );
}

/// Counts a connection as open until dropped.
pub(crate) struct Open(Gauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

pub(crate) fn connection(door: Door) -> Open {
    counter!("posthouse_proxy_connections_total", "listener" => door.name()).increment(1);
    let open = gauge!("posthouse_proxy_connections_open", "listener" => door.name());
    open.increment(1);
    Open(open)
}

pub(crate) fn refused(door: Door, limit: &'static str) {
    counter!("posthouse_proxy_refusals_total", "listener" => door.name(), "limit" => limit)
        .increment(1);
}

pub(crate) fn ended_before_login(door: Door, reason: &'static str) {
    counter!("posthouse_proxy_ends_before_login_total", "listener" => door.name(), "reason" => reason)
        .increment(1);
}

pub(crate) fn open_failed(door: Door, reason: &'static str) {
    counter!("posthouse_proxy_open_failures_total", "listener" => door.name(), "reason" => reason)
        .increment(1);
}

pub(crate) fn session(door: Door, end: &'static str, took: Duration, from_user: u64, to_user: u64) {
    let listener = door.name();
    counter!("posthouse_proxy_sessions_total", "listener" => listener, "end" => end).increment(1);
    histogram!("posthouse_proxy_session_seconds", "listener" => listener).record(took);
    for (direction, octets) in [("from_user", from_user), ("to_user", to_user)] {
        counter!("posthouse_proxy_relayed_bytes_total", "listener" => listener, "direction" => direction)
            .increment(octets);
    }
}
