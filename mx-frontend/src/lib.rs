//! The MX front-end: takes mail in by SMTP and feeds it to the homes of its recipients.
//!
//! Keeps nothing: no spool, no state beyond the open sessions, so that it can be killed at any
//! octet (P5). A `250` to the final dot comes only from the homes' own word that every recipient is
//! durable (P1). Begin reading at `session.rs`.
//!
//! This package never writes to a disk, never decides where an account lives, never parses a
//! message.

mod answered;
mod body;
mod checks;
mod config;
mod door;
mod frontend;
mod holders;
mod meter;
mod pace;
mod rates;
mod recipients;
mod reply;
mod session;
mod settlement;
mod stress;
mod timeline;

#[cfg(test)]
mod made_up;

pub use config::{
    Action, CheckSettings, Config, DnsList, DnsSettings, Limits, Rates, StressSettings,
};
pub use frontend::{Frontend, RunError, run};
