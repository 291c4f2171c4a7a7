//! Real `store-backend` processes on real sockets, with a directory made of a few maps.
#![allow(clippy::unwrap_used)]

mod site;

mod bad_input;
mod crash;
mod deliver;
mod grants;
mod life;
mod lmtp;
mod pop3;
mod tls;
mod transfer;
