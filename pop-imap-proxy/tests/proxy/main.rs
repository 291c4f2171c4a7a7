//! A proxy between real users and played neighbours, over real sockets.
#![allow(clippy::unwrap_used)]

mod balancer;
mod foreign;
mod foreign_relay;
mod hand_over;
mod herd;
mod login;
mod operate;
mod played;
mod relay;
mod user;
