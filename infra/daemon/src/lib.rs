//! The shell every process shares: settings, listeners, TLS, the link between tiers, drain, health, metrics, logs.
//!
//! Knows no mail. A tier brings its settings and its `run(config, shutdown)`; [`tier::main`] does the rest.
#![cfg_attr(test, allow(clippy::unwrap_used))]

// The `settings!` macro names this package as its users do, so that it works in here as well.
extern crate self as daemon;

pub mod balancers;
pub mod channel_binding;
pub mod client_certificate;
pub mod clients;
pub mod clock;
pub mod config;
pub mod dial;
pub mod health;
pub mod identity;
pub mod link;
pub mod listener;
pub mod log;
pub mod metrics;
pub mod open_files;
pub mod output;
pub mod public_tls;
pub mod random;
pub mod shutdown;
pub mod stream;
pub mod tier;
