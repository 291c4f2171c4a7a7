//! What an operator may ask of a proxy, and the client that asks: which sessions are open, end some, take no new ones.
//!
//! Over the inside listener, in JSON, by certificates with the role operator alone. Everything asked for that changes
//! something is logged with who asked.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use daemon::health::Health;
use daemon::identity::{Identity, Peer, Role, role_name};
use daemon::link::{CallError, Link, LinkOptions, LinkTarget, Problem, require};
use directory_api::{AccountId, BackendName, LoginName};
use http::Method;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::proxy::Shared;

/// Sessions in one answer at most.
pub const PAGE_MAX: usize = 1_000;
const STATE: &str = "/v1/proxy";
const CONNECTIONS: &str = "/v1/proxy/connections";
const KICK: &str = "/v1/proxy/kick";
const DRAIN: &str = "/v1/proxy/drain";
/// What health says of a proxy that takes no new sessions.
pub(crate) const DRAINED: &str = "an operator, who has drained it";
/// Answers come from memory.
const DEADLINE: Duration = Duration::from_secs(5);

/// Which sessions are meant: all for which everything that is given is true.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Which {
    /// The one with this trace id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// Whose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<LoginName>,
    /// Where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendName>,
}

/// Asks for one page of the open sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListConnections {
    /// Which.
    #[serde(default)]
    pub which: Which,
    /// Behind this number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// At most so many; [`PAGE_MAX`] is the most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// One page, in the order in which the sessions were opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// The sessions.
    pub connections: Vec<Connection>,
    /// There are more behind this number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// One open session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Its number at this proxy, for the next page; another process begins anew.
    pub id: u64,
    /// Whose.
    pub user: LoginName,
    /// The same by number.
    pub account: AccountId,
    /// The listener: `imap`, `imaps`, `pop3`, `pop3s`.
    pub service: String,
    /// The user's end, `host:port`.
    pub client: String,
    /// Where the session is open.
    pub backend: BackendName,
    /// Seconds since the login.
    pub age_s: u64,
    /// Octets from the user since the login.
    pub octets_from_user: u64,
    /// Octets to the user.
    pub octets_to_user: u64,
    /// As in the logs of every tier; no other session has it, here or elsewhere.
    pub trace_id: String,
}

/// How many sessions have been asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kicked {
    /// They say good-bye first, which may take some seconds.
    pub ended: usize,
}

/// Takes no new sessions, or takes them again. Forgotten when the process ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// Only those at this back-end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendName>,
    /// Whether to take none; nothing changes without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<bool>,
}

/// Which proxy it is, and how it takes part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyState {
    /// Its name, as in its certificate.
    pub proxy: String,
    /// Sessions that are open.
    pub open: usize,
    /// It takes no new ones.
    pub is_drained: bool,
    /// It opens none at these.
    pub drained_backends: Vec<BackendName>,
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// The proxy's name, as in its certificate.
    pub proxy: String,
    /// Open sessions, at the back-end if one was named.
    pub open: usize,
    /// No new ones are taken.
    pub is_on: bool,
}

/// The paths of version 1.
pub(crate) fn routes(shared: Arc<Shared>, health: Health, node: &str) -> Router {
    Router::new()
        .route(STATE, get(state))
        .route(CONNECTIONS, post(connections))
        .route(KICK, post(kick))
        .route(DRAIN, post(drain))
        .with_state(Inside {
            shared,
            health,
            node: node.into(),
        })
}

#[derive(Clone)]
struct Inside {
    shared: Arc<Shared>,
    health: Health,
    node: Arc<str>,
}

async fn state(
    State(inside): State<Inside>,
    Extension(peer): Extension<Peer>,
) -> Result<Json<ProxyState>, Problem> {
    require(&peer, &[Role::Operator])?;
    let sessions = &inside.shared.sessions;
    let (is_drained, drained_backends) = sessions.drained();
    Ok(Json(ProxyState {
        proxy: inside.node.to_string(),
        open: sessions.count(&Which::default()),
        is_drained,
        drained_backends,
    }))
}

async fn connections(
    State(inside): State<Inside>,
    Extension(peer): Extension<Peer>,
    Json(asked): Json<ListConnections>,
) -> Result<Json<Connections>, Problem> {
    require(&peer, &[Role::Operator])?;
    Ok(Json(inside.shared.sessions.list(&asked)))
}

async fn kick(
    State(inside): State<Inside>,
    Extension(peer): Extension<Peer>,
    Json(which): Json<Which>,
) -> Result<Json<Kicked>, Problem> {
    require(&peer, &[Role::Operator])?;
    let ended = inside.shared.sessions.end(&which);
    warn!(by = %peer, ?which, ended, "an operator ends sessions");
    Ok(Json(Kicked { ended }))
}

async fn drain(
    State(inside): State<Inside>,
    Extension(peer): Extension<Peer>,
    Json(Drain { backend, on }): Json<Drain>,
) -> Result<Json<Drained>, Problem> {
    require(&peer, &[Role::Operator])?;
    let sessions = &inside.shared.sessions;
    if let Some(on) = on
        && sessions.drain(backend.clone(), on)
    {
        let at = backend.as_ref().map(BackendName::as_str);
        warn!(by = %peer, at, on, "an operator stops or starts new sessions");
    }
    if backend.is_none() {
        // So that a load balancer sends its clients elsewhere.
        match on {
            Some(true) => inside.health.set_waiting(DRAINED),
            Some(false) => inside.health.arrived(DRAINED),
            None => {}
        }
    }
    let is_on = sessions.is_drained_at(backend.as_ref());
    let which = Which {
        backend,
        ..Which::default()
    };
    Ok(Json(Drained {
        proxy: inside.node.to_string(),
        open: sessions.count(&which),
        is_on,
    }))
}

/// An operator's way to one proxy.
pub struct ProxyClient {
    link: Link,
}

impl ProxyClient {
    /// A client of the proxy whose inside listener is at `address`. Nothing is connected yet.
    #[must_use]
    pub fn new(address: &str, identity: &Identity) -> Self {
        let target = LinkTarget {
            address: address.to_owned(),
            server_name: role_name(Role::PopImapProxy),
        };
        let options = LinkOptions {
            connections: 1,
            ..LinkOptions::default()
        };
        Self {
            link: Link::new(target, identity, options),
        }
    }

    /// Which proxy it is, and how it takes part.
    ///
    /// # Errors
    /// As [`connections`](Self::connections).
    pub async fn state(&self) -> Result<ProxyState, CallError> {
        self.link.json(Method::GET, STATE, &(), DEADLINE).await
    }

    /// One page of the open sessions.
    ///
    /// # Errors
    /// `Refused` with the proxy's reason; the others say that there is no answer.
    pub async fn connections(&self, asked: &ListConnections) -> Result<Connections, CallError> {
        self.link
            .json(Method::POST, CONNECTIONS, asked, DEADLINE)
            .await
    }

    /// Ends sessions; all of them when nothing says which.
    ///
    /// # Errors
    /// As [`connections`](Self::connections).
    pub async fn kick(&self, which: &Which) -> Result<Kicked, CallError> {
        self.link.json(Method::POST, KICK, which, DEADLINE).await
    }

    /// Takes no new sessions, or takes them again; or only hears what is left.
    ///
    /// # Errors
    /// As [`connections`](Self::connections).
    pub async fn drain(&self, drain: &Drain) -> Result<Drained, CallError> {
        self.link.json(Method::POST, DRAIN, drain, DEADLINE).await
    }
}
