//! The one transport inside: HTTP/2 over mutual TLS, a few cached connections between any two processes.
//!
//! Every unit of work is one stream, so flow control, reset and multiplexing come from HTTP/2. A stream whose sender
//! goes away unfinished is reset: the receiver sees a cut and never a clean end.

mod body;
mod client;
mod connection;
mod problem;
mod queue;
mod server;

pub use body::{BodySender, Cut, Gone, LinkBody, next_data};
pub use client::{CallError, Link, LinkError, LinkOptions, LinkTarget};
pub use connection::ConnectError;
pub use problem::{Problem, require};
pub use server::serve;

use std::time::Duration;

/// Room for one stream's body that its reader has not taken yet: a 10 Gbit/s link of 0.2 ms stays full.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same for all streams of a connection together, and deliberately no limit (RFC 9113 §6.9.1 allows 2^31-1): with
/// 8 MiB, thirty-two users who stop reading would stop everyone on the connection. The streams' own windows bound memory.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
/// Streams at once on a connection; each idle user session is one.
const STREAMS_MAX: u32 = 200_000;
/// A ping after this silence, and the wait for its answer: together a dead peer is noticed in 10 s.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// What one stream may have waiting on our side for its reader; more was no faster for 64 MiB over loopback.
const SEND_BUFFER_MAX: usize = 64 * 1024;
/// Streams of ours that were reset and of which late frames may still arrive. A thousand sessions end at once when a
/// back-end drains, and frames for forgotten streams count as errors of the connection.
const RESET_STREAMS_MAX: usize = 10_000;
