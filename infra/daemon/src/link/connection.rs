//! One cached connection of a link: made when needed, by one task for all who wait, again after it was lost.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use http::uri::Authority;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::AsyncBufReadExt,
    net::TcpStream,
    sync::watch,
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;
use tracing::{debug, info, warn};

use super::{
    CONNECTION_WINDOW, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, LinkBody, LinkOptions, LinkTarget,
    RESET_STREAMS_MAX, SEND_BUFFER_MAX, STREAM_WINDOW, STREAMS_MAX,
};
use crate::{
    log::causes,
    metrics::{counter, gauge},
};

/// Why a connection could not be made; nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address has no name or nobody listens there.
    #[error("cannot connect")]
    Tcp(#[source] io::Error),
    /// Nobody answered in time.
    #[error("no answer within {} ms", _0.as_millis())]
    Timeout(Duration),
    /// The certificates do not satisfy one of the two sides, or the other side speaks no TLS.
    #[error("TLS was refused")]
    Tls(#[source] io::Error),
    /// The other side speaks TLS, but not HTTP/2.
    #[error("the other side does not speak HTTP/2")]
    Http(#[source] hyper::Error),
    /// The configured server name is no DNS name.
    #[error("{0:?} is no server name")]
    ServerName(String),
    /// This process is ending.
    #[error("the attempt was given up, this process is ending")]
    GivenUp,
}

pub(super) type Requests = SendRequest<LinkBody>;
type Outcome = Result<Requests, Arc<ConnectError>>;

/// How connections of one link are made, and whether the last attempt worked.
pub(super) struct Connector {
    pub(super) target: LinkTarget,
    /// The target's server name as every request names it; `None` when it cannot be one.
    pub(super) authority: Option<Authority>,
    tls: Arc<ClientConfig>,
    options: LinkOptions,
    state: AtomicU8,
}

const UNKNOWN: u8 = 0;
const UP: u8 = 1;
const DOWN: u8 = 2;

/// The first wait after a failed attempt; it doubles up to `LinkOptions::backoff_max`.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);

impl Connector {
    pub(super) fn new(target: LinkTarget, tls: Arc<ClientConfig>, options: LinkOptions) -> Self {
        let authority = Authority::try_from(target.server_name.as_str()).ok();
        Self {
            target,
            authority,
            tls,
            options,
            state: AtomicU8::new(UNKNOWN),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.state.load(Ordering::Relaxed) == UP
    }

    async fn connect(&self) -> Result<Requests, ConnectError> {
        let within = self.options.connect_timeout;
        let result = timeout(within, self.handshakes()).await;
        result.unwrap_or(Err(ConnectError::Timeout(within)))
    }

    async fn handshakes(&self) -> Result<Requests, ConnectError> {
        let name = ServerName::try_from(self.target.server_name.clone())
            .map_err(|_| ConnectError::ServerName(self.target.server_name.clone()))?;
        let tcp = TcpStream::connect(&self.target.address)
            .await
            .map_err(ConnectError::Tcp)?;
        tcp.set_nodelay(true).map_err(ConnectError::Tcp)?;
        let mut tls = TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, tcp)
            .await
            .map_err(ConnectError::Tls)?;
        // In TLS 1.3 the client is done before the server has looked at its certificate. An HTTP/2 server speaks
        // first (RFC 9113 §3.4), so its first octets, or its alert, tell whether we were let in.
        let first = tls.fill_buf().await.map_err(ConnectError::Tls)?;
        if first.is_empty() {
            return Err(ConnectError::Tls(io::ErrorKind::UnexpectedEof.into()));
        }
        let (requests, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_max_send_streams(STREAMS_MAX as usize)
            .max_send_buf_size(SEND_BUFFER_MAX)
            .max_concurrent_reset_streams(RESET_STREAMS_MAX)
            .max_local_error_reset_streams(RESET_STREAMS_MAX)
            .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(tls))
            .await
            .map_err(ConnectError::Http)?;
        let target = self.target.to_string();
        tokio::spawn(async move {
            match connection.await {
                Ok(()) => debug!(target, "link connection ended"),
                Err(error) => debug!(target, cause = causes(&error), "link connection lost"),
            }
        });
        Ok(requests)
    }

    /// Says in the log that the link changed its state: once a change, not once an attempt.
    fn note(&self, outcome: &Outcome, others_up: bool) {
        let target = &self.target;
        let (result, up) = match outcome {
            Ok(_) => ("made", true),
            Err(_) => ("failed", others_up),
        };
        let node = target.server_name.clone();
        counter!("posthouse_link_connects_total", "to" => node.clone(), "result" => result)
            .increment(1);
        gauge!("posthouse_link_up", "to" => node).set(f64::from(u8::from(up)));
        match outcome {
            Ok(_) => {
                if self.state.swap(UP, Ordering::Relaxed) != UP {
                    info!(%target, "link up");
                }
            }
            Err(error) if !others_up => {
                if self.state.swap(DOWN, Ordering::Relaxed) != DOWN {
                    warn!(%target, cause = causes(error), "link down, trying again when needed");
                }
            }
            Err(error) => {
                debug!(%target, cause = causes(error), "a connection of this link cannot be made");
            }
        }
    }
}

/// A place for one connection.
pub(super) struct Slot(Mutex<State>);

enum State {
    Absent,
    Failed {
        error: Arc<ConnectError>,
        failures: u32,
        until: Instant,
    },
    Connecting(watch::Receiver<Option<Outcome>>),
    Up(Requests),
}

impl Slot {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State::Absent))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Each change is one assignment: a panic elsewhere leaves no half of one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the connection when there is a live one.
    pub(super) fn live(&self) -> Option<Requests> {
        let mut state = self.state();
        match &*state {
            State::Up(requests) if !requests.is_closed() => Some(requests.clone()),
            State::Up(_) => {
                *state = State::Absent;
                None
            }
            _ => None,
        }
    }
}

/// Gives slot `index`'s connection, making it first if needed; all who wait share one attempt.
pub(super) async fn connected(
    connector: &Arc<Connector>,
    slots: &Arc<[Slot]>,
    index: usize,
) -> Outcome {
    let mut attempt = match begin(connector, slots, index) {
        Begun::Done(outcome) => return outcome,
        Begun::Waiting(attempt) => attempt,
    };
    let outcome = match attempt.wait_for(Option::is_some).await {
        Ok(outcome) => outcome.clone(),
        Err(_) => None,
    };
    outcome.unwrap_or_else(|| Err(Arc::new(ConnectError::GivenUp)))
}

pub(super) enum Begun {
    Done(Outcome),
    Waiting(watch::Receiver<Option<Outcome>>),
}

/// Begins an attempt for a slot that needs one. It runs on its own, so that a caller who gives up harms nobody.
pub(super) fn begin(connector: &Arc<Connector>, slots: &Arc<[Slot]>, index: usize) -> Begun {
    let mut state = slots[index].state();
    let failures = match &*state {
        State::Up(requests) if !requests.is_closed() => return Begun::Done(Ok(requests.clone())),
        State::Connecting(attempt) if attempt.has_changed().is_ok() => {
            return Begun::Waiting(attempt.clone());
        }
        State::Failed { error, until, .. } if Instant::now() < *until => {
            return Begun::Done(Err(Arc::clone(error)));
        }
        State::Failed { failures, .. } => *failures,
        _ => 0,
    };
    let (done, attempt) = watch::channel(None);
    *state = State::Connecting(attempt.clone());
    drop(state);
    let (connector, slots) = (Arc::clone(connector), Arc::clone(slots));
    tokio::spawn(async move {
        let outcome = connector.connect().await.map_err(Arc::new);
        let others_up = outcome.is_err() && slots.iter().any(|slot| slot.live().is_some());
        connector.note(&outcome, others_up);
        *slots[index].state() = match &outcome {
            Ok(requests) => State::Up(requests.clone()),
            Err(error) => {
                let wait = BACKOFF_FIRST
                    .saturating_mul(1 << failures.min(10))
                    .min(connector.options.backoff_max);
                State::Failed {
                    error: Arc::clone(error),
                    failures: failures + 1,
                    until: Instant::now() + wait,
                }
            }
        };
        done.send_replace(Some(outcome));
    });
    Begun::Waiting(attempt)
}
