//! The POP3 and IMAP proxy: users log in here, wherever they live.
//!
//! It leads the dialogue up to the login, asks the directory, opens a session at the user's home
//! with the grant, and from then on only copies octets. Keeps nothing (P5). Begin reading at
//! `session.rs`.
//!
//! This package never parses anything after the login, never verifies a password, never decides
//! where an account lives.

mod announced;
mod config;
mod door;
mod foreign;
mod meter;
pub mod operate;
mod patience;
mod proxy;
mod session;
mod sessions;

pub use config::{Config, Limits};
pub use foreign::{ForeignLogin, SecretError};
pub use proxy::{Proxy, RunError, run};
