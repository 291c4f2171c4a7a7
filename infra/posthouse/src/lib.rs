//! The `posthouse` command: the whole system on one machine (`up`), and the verbs by which an operator runs it.
//!
//! This package starts tiers and asks them; it never handles a message or a mailbox itself.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod data;
pub mod endpoints;
pub mod health;
pub mod nodes;
pub mod ports;
pub mod up;

mod backup;
mod certificate;
mod cli;
mod copy_directory;
mod down;
mod fsck;
mod status;
mod tier;
mod verbs;

pub use cli::main;
