//! Says whether a process can do its work, to people and to load balancers; also serves its metrics.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{Json, Router, http::StatusCode, response::IntoResponse, routing::get};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    time::interval,
};
use tower_service::Service;
use tracing::{debug, info, warn};

use crate::{listener::accept_each, metrics, shutdown::Shutdown};

/// The state of one process; clones share it. Waiting for "start-up" until something else is said.
#[derive(Clone, Debug)]
pub struct Health {
    /// Whose health this is, for the log: with `posthouse up` all tiers write to one.
    of: Arc<str>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    waiting: BTreeSet<String>,
    failing: Option<String>,
    notes: BTreeMap<String, String>,
}

impl Health {
    /// Begins as waiting for "start-up"; `of` names the tier in the log.
    #[must_use]
    pub fn new(of: &str) -> Self {
        let waiting = BTreeSet::from([START_UP.to_owned()]);
        Self {
            of: of.into(),
            state: Arc::new(Mutex::new(State {
                waiting,
                failing: None,
                notes: BTreeMap::new(),
            })),
        }
    }

    /// Says that something we need is not there, for example "directory at 127.0.0.1:4205". Several may be missing.
    pub fn set_waiting(&self, what: impl Into<String>) {
        let what = what.into();
        let mut state = self.state();
        state.waiting.remove(START_UP);
        if state.waiting.insert(what.clone()) {
            drop(state);
            info!(of = &*self.of, what, "waiting");
        }
    }

    /// Takes back one [`set_waiting`](Self::set_waiting).
    pub fn arrived(&self, what: &str) {
        if self.state().waiting.remove(what) {
            info!(of = &*self.of, what, "arrived");
        }
    }

    /// Says that all is there and works, whatever was said before.
    pub fn set_ready(&self) {
        let mut state = self.state();
        let changed = !state.waiting.is_empty() || state.failing.is_some();
        state.waiting.clear();
        state.failing = None;
        drop(state);
        if changed {
            info!(of = &*self.of, "ready");
        }
    }

    /// Says that the process cannot do its work and somebody must act.
    pub fn set_failing(&self, why: impl Into<String>) {
        let why = why.into();
        let before = self.state().failing.replace(why.clone());
        if before.as_ref() != Some(&why) {
            warn!(of = &*self.of, why, "failing");
        }
    }

    /// Takes back [`set_failing`](Self::set_failing); what is missing is still missing.
    pub fn clear_failing(&self) {
        if self.state().failing.take().is_some() {
            info!(of = &*self.of, "failing no more");
        }
    }

    /// Says something about `what` that somebody should look at, and that keeps nobody from being served; nothing takes it
    /// back.
    pub fn note(&self, what: &str, text: Option<String>) {
        let mut state = self.state();
        let before = match &text {
            Some(text) => state.notes.insert(what.to_owned(), text.clone()),
            None => state.notes.remove(what),
        };
        drop(state);
        match text {
            Some(text) if before.as_ref() != Some(&text) => {
                warn!(of = &*self.of, what, text, "to be looked at");
            }
            None if before.is_some() => {
                info!(of = &*self.of, what, "nothing to be looked at any more")
            }
            _ => {}
        }
    }

    /// Tells whether nothing is missing or broken.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let state = self.state();
        state.waiting.is_empty() && state.failing.is_none()
    }

    fn answer(&self) -> (StatusCode, Json<serde_json::Value>) {
        let state = self.state();
        let (status, mut body) = if let Some(why) = &state.failing {
            (
                StatusCode::SERVICE_UNAVAILABLE,
                json!({ "status": "failing", "why": why }),
            )
        } else if state.waiting.is_empty() {
            (StatusCode::OK, json!({ "status": "ready" }))
        } else {
            (
                StatusCode::SERVICE_UNAVAILABLE,
                json!({ "status": "waiting", "for": state.waiting }),
            )
        };
        if !state.notes.is_empty() {
            body["notes"] = json!(state.notes);
        }
        (status, Json(body))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves `GET /health` and `GET /metrics` over plain HTTP/1.1 until the shutdown begins.
///
/// # Panics
/// As [`metrics::install`].
pub async fn serve_observability(listener: TcpListener, health: Health, shutdown: Shutdown) {
    let collected = metrics::install();
    let upkeep = collected.clone();
    let ending = shutdown.clone();
    shutdown.spawn(async move {
        let mut due = interval(metrics::UPKEEP_INTERVAL);
        loop {
            tokio::select! {
                () = ending.requested() => return,
                _ = due.tick() => upkeep.run_upkeep(),
            }
        }
    });
    let router = Router::new()
        .route("/health", get(async move || health.answer()))
        .route(
            "/metrics",
            get(async move || {
                ([("content-type", PROMETHEUS_TEXT)], collected.render()).into_response()
            }),
        );
    accept_each(listener, CONNECTIONS_MAX, shutdown, move |socket, _| {
        converse(socket, router.clone())
    })
    .await;
}

async fn converse(socket: TcpStream, router: Router) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = router.clone().call(request);
        async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .keep_alive(false)
        .max_buf_size(REQUEST_MAX_BYTES)
        .serve_connection(TokioIo::new(socket), service);
    match tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(cause = %error, "observability request failed"),
        Err(_) => debug!("observability request took too long"),
    }
}

const START_UP: &str = "start-up";
/// Version 0.0.4 of the text form, as Prometheus names it.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Scrapers and balancers are few; whoever opens more is no scraper.
const CONNECTIONS_MAX: usize = 64;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const REQUEST_MAX_BYTES: usize = 16 * 1024;
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
