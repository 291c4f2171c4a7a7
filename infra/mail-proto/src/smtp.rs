//! The server's side of SMTP and LMTP. RFC 5321, RFC 2033.
//!
//! [`Server`] holds one connection's dialogue; the [crate] shows how a shell
//! drives it. One file a verb where the verb carries logic.

mod body;
mod chunk;
pub mod client;
mod command;
mod config;
mod data;
mod hello;
mod mail;
mod path;
mod rcpt;
mod reply;
mod server;
mod xclient;

pub use body::BodyFault;
pub use config::{Config, Mode};
pub use mail::{BodyType, Mail};
pub use path::{ForwardPath, ReversePath};
pub use reply::Reply;
pub use server::{CloseReason, ErrorLimits, Server, Step, Tally};
pub use xclient::XClient;
