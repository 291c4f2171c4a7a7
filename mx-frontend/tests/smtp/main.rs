//! A front-end between a real sender and played neighbours, over real sockets.
#![allow(clippy::unwrap_used)]

mod balancer;
mod checks;
mod client;
mod delivery;
mod dialogue;
mod dns;
mod hostile;
mod limits;
mod look_ups;
mod played;
mod senders;
mod stress;
mod tls;
mod trouble;
mod xclient;
