//! Tests over all tiers: real processes, real sockets. The tools for them are here, the tests in `tests/`.
//!
//! This package never looks inside a tier: it starts programs, speaks protocols, and reads what an
//! operator could read. A failed step panics with what was expected and seen.
#![allow(
    clippy::unwrap_used,
    reason = "everything here is for tests, where a panic is the verdict"
)]

pub mod foreign;
pub mod imap;
pub mod pop3;
pub mod ports;
pub mod programs;
pub mod provider;
pub mod samples;
pub mod smtp;
pub mod system;
mod wire;

use std::time::{Duration, Instant};

/// Tries until something is there; panics with `what` after half a minute.
pub fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "not within {} s: {what}",
            PATIENCE.as_secs()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Long enough for a debug build on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
