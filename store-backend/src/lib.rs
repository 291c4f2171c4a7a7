//! The store back-end: keeps mailboxes on its volumes and serves them.
//!
//! Mail comes in by the deliver stream ([`mod@deliver`], from the front-ends) and by LMTP (from other mail
//! servers); it is read by POP3 and IMAP, through the proxy's session stream or over sockets of its
//! own; accounts come and go by the transfer paths (driven by the migrator). All of it asks [`volumes`] where an
//! account lives and meets in [`volume::Volume`], which alone touches the disk.
//!
//! The shells here do the I/O around pure protocol cores of `mail_proto`. They never decide where
//! an account lives: the directory says so, and a grant or an epoch proves it.

pub mod volume;

mod announce;
mod answered;
mod away;
mod backend;
mod backup;
mod card;
mod conditions;
mod config;
mod deflate;
mod deliver;
mod delivered;
mod hold;
mod imap;
mod left;
mod link;
mod listen;
mod lmtp;
mod load;
mod login_delay;
mod metrics;
mod mounting;
mod outcome;
mod pop3;
mod refusal;
mod room;
mod run;
mod session;
mod sessions;
mod spread;
mod subaddress;
mod transfer;
mod undelete;
mod user;
mod volumes;

pub use config::{Config, Limits, Listeners, VolumeFolder};
pub use mounting::MountError;
pub use run::{RunError, run, run_on};
