//! The dialling side of a link.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{
    HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::CONTENT_TYPE,
    uri::{PathAndQuery, Scheme},
};
use hyper::body::Incoming;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;

use super::{
    Cut, LinkBody, Problem,
    body::collect,
    connection::{self, ConnectError, Connector, Requests, Slot},
};
use crate::identity::Identity;

/// Where a link goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LinkTarget {
    /// `host:port`; the name is looked up at each connection.
    pub address: String,
    /// The name in the other side's certificate; [`server_name`](crate::identity::server_name) makes it.
    pub server_name: String,
}

impl fmt::Display for LinkTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.server_name, self.address)
    }
}

/// How a link keeps its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkOptions {
    /// Connections kept, at least 1. Streams are spread over them, so one lost packet delays a part.
    pub connections: usize,
    /// The longest wait for TCP, TLS and the first octets of HTTP/2 together.
    pub connect_timeout: Duration,
    /// The longest time in which calls fail at once after a failed attempt to connect.
    pub backoff_max: Duration,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            connections: 2,
            connect_timeout: Duration::from_secs(1),
            backoff_max: Duration::from_secs(1),
        }
    }
}

/// A way to one other process. Clones share its connections, which are made when first needed.
#[derive(Clone)]
pub struct Link {
    connector: Arc<Connector>,
    slots: Arc<[Slot]>,
    next: Arc<AtomicUsize>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Link").field(&self.connector.target).finish()
    }
}

impl Link {
    /// Prepares a link; nothing is dialled yet.
    #[must_use]
    pub fn new(target: LinkTarget, identity: &Identity, options: LinkOptions) -> Self {
        let slots = (0..options.connections.max(1))
            .map(|_| Slot::new())
            .collect();
        let connector = Connector::new(target, identity.client_config(), options);
        Self {
            connector: Arc::new(connector),
            slots,
            next: Arc::default(),
        }
    }

    /// Gives where this link goes.
    #[must_use]
    pub fn target(&self) -> &LinkTarget {
        &self.connector.target
    }

    /// Tells whether the last attempt to connect worked; false before the first.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.connector.is_up()
    }

    /// Connects if no connection is live, for those who want to know before they ask.
    ///
    /// # Errors
    /// `Unreachable`.
    pub async fn ready(&self) -> Result<(), LinkError> {
        self.requests().await.map(drop)
    }

    /// Sends a request as one stream and gives the head of the answer; its body follows as it arrives.
    ///
    /// Scheme and authority are filled in. There is no deadline in here: wrap it in one. Dropping the future resets the
    /// stream. The answer may come before the request's body has ended.
    ///
    /// # Errors
    /// `Unreachable` and `Unsent`: the other side has seen nothing. `Interrupted`: it may have.
    pub async fn send(
        &self,
        mut request: Request<LinkBody>,
    ) -> Result<Response<Incoming>, LinkError> {
        self.address(&mut request)?;
        let mut tries_left = SEND_TRIES;
        loop {
            let mut requests = self.requests().await?;
            let mut error = match requests.try_send_request(request).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            tries_left -= 1;
            // The request comes back when it was not begun, as when the connection was just closed by the other side.
            match error.take_message() {
                Some(unsent) if tries_left > 0 => request = unsent,
                Some(_) => {
                    return Err(LinkError::Unsent {
                        target: self.target().clone(),
                        source: error.into_error(),
                    });
                }
                None => {
                    return Err(LinkError::Interrupted {
                        target: self.target().clone(),
                        source: error.into_error(),
                    });
                }
            }
        }
    }

    /// Asks in JSON and gives the answer, also in JSON. `()` asks without a body and takes an empty answer.
    ///
    /// # Errors
    /// `Refused` with the other side's reason; the others say that there is no answer.
    pub async fn json<Q, A>(
        &self,
        method: Method,
        path: &str,
        question: &Q,
        deadline: Duration,
    ) -> Result<A, CallError>
    where
        Q: Serialize + ?Sized,
        A: DeserializeOwned,
    {
        let question = serde_json::to_vec(question).map_err(CallError::Question)?;
        let mut request = Request::builder().method(method).uri(path);
        let body = if question == b"null" {
            LinkBody::empty()
        } else {
            request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            LinkBody::full(question)
        };
        let request = request.body(body).map_err(|_| LinkError::Path {
            path: path.to_owned(),
        })?;
        timeout(deadline, self.answer(request))
            .await
            .map_err(|_| CallError::Deadline(deadline))?
    }

    /// Sends a request and gives its whole answer, which is JSON; an empty one stands for `()`.
    ///
    /// There is no deadline in here. The answer may come before the request's body has ended.
    ///
    /// # Errors
    /// As [`json`](Self::json).
    pub async fn answer<A: DeserializeOwned>(
        &self,
        request: Request<LinkBody>,
    ) -> Result<A, CallError> {
        let response = self.accepted(request).await?;
        let status = response.status();
        let answer = collect(response.into_body(), ANSWER_MAX_BYTES).await?;
        let answer: &[u8] = if answer.is_empty() { b"null" } else { &answer };
        serde_json::from_slice(answer).map_err(|source| CallError::Protocol { status, source })
    }

    /// Sends a request and gives the head of its answer if the other side accepts it; the body follows as it arrives.
    ///
    /// There is no deadline in here.
    ///
    /// # Errors
    /// `Refused` with the other side's reason; the others say that there is no answer.
    pub async fn accepted(
        &self,
        request: Request<LinkBody>,
    ) -> Result<Response<Incoming>, CallError> {
        let response = self.send(request).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let refusal = collect(response.into_body(), ANSWER_MAX_BYTES).await?;
        match serde_json::from_slice::<Problem>(&refusal) {
            Ok(problem) => Err(CallError::Refused(Problem { status, ..problem })),
            Err(source) => Err(CallError::Protocol { status, source }),
        }
    }

    fn address(&self, request: &mut Request<LinkBody>) -> Result<(), LinkError> {
        let wrong = |path: &Uri| LinkError::Path {
            path: path.to_string(),
        };
        let mut parts = request.uri().clone().into_parts();
        parts.scheme = Some(Scheme::HTTPS);
        let authority = self.connector.authority.clone();
        parts.authority = Some(authority.ok_or_else(|| wrong(request.uri()))?);
        parts
            .path_and_query
            .get_or_insert(PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| wrong(request.uri()))?;
        Ok(())
    }

    /// Picks a live connection, in turn. One that is missing is made beside, so that it costs nobody a wait.
    async fn requests(&self) -> Result<Requests, LinkError> {
        let count = self.slots.len();
        let first = self.next.fetch_add(1, Ordering::Relaxed) % count;
        for step in 0..count {
            if let Some(live) = self.slots[(first + step) % count].live() {
                if step > 0 {
                    connection::begin(&self.connector, &self.slots, first);
                }
                return Ok(live);
            }
        }
        connection::connected(&self.connector, &self.slots, first)
            .await
            .map_err(|source| LinkError::Unreachable {
                target: self.target().clone(),
                source,
            })
    }
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No connection; nothing was sent.
    #[error("{target} cannot be reached")]
    Unreachable {
        /// Where to.
        target: LinkTarget,
        /// Why.
        source: Arc<ConnectError>,
    },
    /// Connections kept closing before the request was begun; nothing was sent.
    #[error("{target} closed the connection before the request was sent")]
    Unsent {
        /// Where to.
        target: LinkTarget,
        /// Why.
        source: hyper::Error,
    },
    /// The request's path cannot be one; nothing was sent.
    #[error("{path:?} is no path")]
    Path {
        /// The path.
        path: String,
    },
    /// The stream broke; the other side may have acted on the request.
    #[error("the request to {target} was interrupted")]
    Interrupted {
        /// Where to.
        target: LinkTarget,
        /// Why.
        source: hyper::Error,
    },
    /// A body broke off; the other side may have acted on the request.
    #[error(transparent)]
    Cut(#[from] Cut),
}

impl LinkError {
    /// Tells that the other side has seen nothing of the request, so that it may be sent again, there or elsewhere.
    #[must_use]
    pub fn never_sent(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Unsent { .. } | Self::Path { .. } => true,
            Self::Interrupted { .. } | Self::Cut(_) => false,
        }
    }
}

/// Why [`Link::json`] gives no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The transport failed.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// No whole answer in time; the other side may have acted.
    #[error("no answer within {} ms", _0.as_millis())]
    Deadline(Duration),
    /// The other side says no, and why.
    #[error(transparent)]
    Refused(Problem),
    /// An answer that is not in the form agreed on: another version, or not our program.
    #[error("an answer that cannot be understood (status {status})")]
    Protocol {
        /// The HTTP status.
        status: StatusCode,
        /// What is wrong with the body.
        source: serde_json::Error,
    },
    /// The question cannot be written as JSON; nothing was sent.
    #[error("the question cannot be written as JSON")]
    Question(#[source] serde_json::Error),
}

impl CallError {
    /// Tells that the other side has seen nothing of the request.
    #[must_use]
    pub fn never_sent(&self) -> bool {
        match self {
            Self::Link(error) => error.never_sent(),
            Self::Question(_) => true,
            Self::Deadline(_) | Self::Refused(_) | Self::Protocol { .. } => false,
        }
    }
}

/// A connection can be closing when it is picked; its successor hardly ever is as well.
const SEND_TRIES: u32 = 3;
/// The largest JSON answer: small things travel in JSON, and a list comes in pages.
const ANSWER_MAX_BYTES: usize = 16 * 1024 * 1024;
