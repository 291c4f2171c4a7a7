//! A proxy between real users and played neighbours, over real sockets.
#![allow(clippy::unwrap_used)]

mod login;
mod played;
mod relay;
mod user;
