//! Moves accounts between back-ends.
//!
//! A move is a record at the directory ([`directory_api::wire::MoveRecord`]); the migrator itself
//! keeps nothing (P5), so any migrator can take up what another left. [`step`] decides what comes
//! next, purely; [`perform`] does it; every step may be repeated. This package never sees mail:
//! the target fetches it from the source.

pub mod balance;
pub mod cli;
pub mod config;
pub mod execute;
pub mod gate;
pub mod inventory;
pub mod perform;
pub mod plan_file;
mod present;
mod progress;
mod service;
pub mod simulate;
pub mod step;

pub use config::Config;
pub use service::{RunError, run};
