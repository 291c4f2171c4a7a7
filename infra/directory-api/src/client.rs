//! The client every other tier asks the directory with.
//!
//! Answers about addresses and back-ends are kept: fresh for a short time, and, should the
//! directory be away, stale for a longer one. Many askers of one thing cause one request. The
//! client follows the directory's changes ([`DirectoryClient::follow`]) and drops what they touch,
//! so what is kept is as true as the last of them, however long ago it was asked for.
//!
//! **Away is never unknown** (P6): whatever keeps an answer from arriving is
//! [`DirectoryError::Away`], and a kept "unknown" is never served once it is stale. With the
//! directory missing, every call answers within two seconds.

mod cached;
mod changed;
mod error;
mod feed;
mod homes;
mod logins;
mod lookup;
mod tickets;
mod turns;
mod users;
mod verbs;
mod verdicts;

use std::fmt;
use std::future::pending;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::identity::{Identity, Role, role_name};
use daemon::link::{CallError, Link, LinkOptions, LinkTarget};
use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::types::{Address, BackendName};
use crate::wire::{
    AnnounceReply, AnnounceRequest, Backend, KeysReply, LoginReply, LoginRequest, LookupResult,
    MechanismsReply, PublicKey, SaslReply, SaslRequest, encode_path_segment, path,
};
use cached::{Cached, Seen, Stamped};
use changed::ChangedAccounts;
pub use error::{DirectoryError, LoginError};
use homes::Homes;
pub use homes::{AskHome, KnownHome, Untold};
pub use logins::KeptLogins;
use logins::Logins;
pub use tickets::NoTicket;
use tickets::Tickets;
use turns::Turns;
pub use turns::{GaveUp, LoginTurns};
use verdicts::Verdicts;

/// How a client keeps answers.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// How long an answer is used without asking again. The change feed usually is faster.
    pub positive_ttl: Duration,
    /// How long "unknown" is believed: short, because a new user's first mail follows at once.
    pub negative_ttl: Duration,
    /// How long what is known is good while the directory is away: from when it came, or from when the feed fell silent
    /// that had told of no change of it.
    pub stale_max: Duration,
    /// How many answers are kept. One that names a hundred accounts counts as that many.
    pub entries_max: u64,
    /// Which logins are kept; none but at a back-end.
    pub logins: Option<KeptLogins>,
    /// In which order logins are asked for.
    pub login_turns: LoginTurns,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            positive_ttl: Duration::from_secs(300),
            negative_ttl: Duration::from_secs(10),
            stale_max: Duration::from_secs(STALE_MAX_S),
            // About 60 MB when full of ordinary addresses.
            entries_max: 200_000,
            logins: None,
            login_turns: LoginTurns::default(),
        }
    }
}

/// A client of the directory. Clones share connections and cache.
#[derive(Clone)]
pub struct DirectoryClient {
    inner: Arc<Inner>,
}

impl fmt::Debug for DirectoryClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DirectoryClient({})", self.inner.link.target())
    }
}

struct Inner {
    link: Link,
    seen: Seen,
    changed: ChangedAccounts,
    lookups: Cached<Address, LookupResult>,
    backends: Cached<BackendName, Backend>,
    mechanisms: Cached<(), MechanismsReply>,
    logins: Logins,
    homes: Homes,
    tickets: Tickets,
    turns: Turns,
    /// On logins by a password.
    verdicts: Verdicts,
    /// On steps of mechanisms, which need no slow hash there.
    steps: Verdicts,
}

/// What a login is asked by.
#[derive(Clone, Copy)]
enum Kind {
    Password,
    FirstStep,
    /// Of a mechanism that has begun.
    NextStep,
}

/// [`ClientOptions::stale_max`] unless a setting says otherwise: four times what DESIGN §8 promises.
pub const STALE_MAX_S: u64 = 2 * 3600;

const ANSWERS: &str = "posthouse_directory_client_answers_total";
const SILENT: &str = "posthouse_directory_client_silent";
const TICKETS: &str = "posthouse_directory_client_tickets_total";
const SEARCHES: &str = "posthouse_directory_client_home_searches_total";
const KEPT_LOGINS: &str = "posthouse_directory_client_kept_logins_total";

/// Deadline of everything but a login: reading a page takes the server a millisecond.
const CALL_DEADLINE: Duration = Duration::from_secs(2);
/// Deadline of a login: it may wait behind many others for its turn to hash a password.
const LOGIN_DEADLINE: Duration = Duration::from_secs(10);
/// Deadline of a large write: 10,000 accounts in one transaction.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);

impl DirectoryClient {
    /// A client of the directory at `address` (`host:port`). Nothing is connected yet.
    #[must_use]
    pub fn new(address: &str, identity: &Identity, options: &ClientOptions) -> Self {
        let target = LinkTarget {
            address: address.to_owned(),
            server_name: role_name(Role::Directory),
        };
        metrics::describe_counter!(
            ANSWERS,
            "Answers by what was asked (lookup, backend, mechanisms) and where they came from: the directory, kept and fresh, stale because the directory was away, or none."
        );
        metrics::describe_gauge!(
            SILENT,
            "Whether the directory gives no answer, as who asks it for changes has found out."
        );
        metrics::describe_counter!(
            SEARCHES,
            "Searches for a user's home among the back-ends while the directory was away, by outcome (found; nobody; several; elsewhere; untold: some do not tell yet)."
        );
        metrics::describe_gauge!(
            verdicts::UNANSWERED,
            "Whether the directory answers no logins, though it may answer other questions."
        );
        if options.logins.is_some() {
            metrics::describe_counter!(
                KEPT_LOGINS,
                "Logins that were answered here, without the directory."
            );
            metrics::describe_counter!(
                TICKETS,
                "Passwords checked here while the directory was away, by outcome (ok, or why not)."
            );
        }
        let (seen, changed) = (Seen::default(), ChangedAccounts::new());
        Self {
            inner: Arc::new(Inner {
                link: Link::new(target, identity, LinkOptions::default()),
                lookups: Cached::new("lookup", options, &seen),
                backends: Cached::new("backend", options, &seen),
                mechanisms: Cached::new("mechanisms", options, &seen),
                logins: Logins::new(options.logins.as_ref(), &seen, &changed),
                homes: Homes::new(options.entries_max, &changed),
                tickets: Tickets::new(options, &seen, &changed),
                turns: Turns::new(options.login_turns.clone()),
                verdicts: Verdicts::default(),
                steps: Verdicts::default(),
                seen,
                changed,
            }),
        }
    }

    /// One back-end: where it listens and how it takes part, from the cache when it is known there.
    ///
    /// # Errors
    /// [`DirectoryError::Away`], or [`DirectoryError::Unknown`] when there is none of that name.
    pub async fn backend(&self, name: &BackendName) -> Result<Backend, DirectoryError> {
        let ask = async {
            // Backends carry no change number of their own: whatever change was seen before
            // asking is surely contained in the answer.
            let change = self.inner.seen.number();
            let value: Backend = self.one(path::BACKENDS, name.as_str()).await?;
            Ok(Stamped {
                value,
                change,
                known: true,
                weight: 1,
            })
        };
        self.inner.backends.get(name, ask).await
    }

    /// Checks a password and asks for a grant. Never cached. Many at once have their turn one after the other, and each waits
    /// for as long as that takes.
    ///
    /// # Errors
    /// [`LoginError`]: each variant is another answer to the user.
    pub async fn login(&self, request: &LoginRequest) -> Result<LoginReply, LoginError> {
        self.login_within(request, LOGIN_DEADLINE, pending()).await
    }

    async fn login_within(
        &self,
        request: &LoginRequest,
        deadline: Duration,
        gives_up: impl Future<Output = GaveUp>,
    ) -> Result<LoginReply, LoginError> {
        let client = request.client_address;
        let before = self.inner.seen.number();
        let reply: LoginReply = self
            .in_turn(Kind::Password, request, client, deadline, gives_up)
            .await?;
        self.inner.homes.note(&request.user, &reply, before).await;
        Ok(reply)
    }

    /// One step of a SASL mechanism. Never cached.
    ///
    /// # Errors
    /// [`LoginError`]: each variant is another answer to the user.
    pub async fn sasl(&self, request: &SaslRequest) -> Result<SaslReply, LoginError> {
        self.sasl_unless(request, pending()).await
    }

    /// The same, but waits for its turn no longer than until `gives_up`.
    ///
    /// # Errors
    /// [`LoginError`]; `Throttled` when there was no turn.
    pub async fn sasl_unless(
        &self,
        request: &SaslRequest,
        gives_up: impl Future<Output = GaveUp>,
    ) -> Result<SaslReply, LoginError> {
        let client = request.client_address;
        let kind = match request.state {
            None => Kind::FirstStep,
            Some(_) => Kind::NextStep,
        };
        self.in_turn(kind, request, client, LOGIN_DEADLINE, gives_up)
            .await
    }

    async fn in_turn<Q, A>(
        &self,
        kind: Kind,
        request: &Q,
        client: IpAddr,
        deadline: Duration,
        gives_up: impl Future<Output = GaveUp>,
    ) -> Result<A, LoginError>
    where
        Q: Serialize,
        A: DeserializeOwned,
    {
        let (path, verdicts) = match kind {
            Kind::Password => (path::LOGIN, &self.inner.verdicts),
            Kind::FirstStep | Kind::NextStep => (path::SASL, &self.inner.steps),
        };
        // A directory that hangs would hold every turn for as long as a login may take.
        let is_hopeless = || self.inner.seen.is_silent() || verdicts.are_waited_for();
        let silent = || LoginError::Away(DirectoryError::silent());
        if is_hopeless() {
            return Err(silent());
        }
        let turns = &self.inner.turns;
        let turn = match kind {
            Kind::Password | Kind::FirstStep => turns.turn(client, gives_up).await,
            Kind::NextStep => turns.turn_again(client, gives_up).await,
        };
        let _turn = turn.map_err(|_| LoginError::Throttled)?;
        // It may have waited for others who found that out.
        if is_hopeless() {
            return Err(silent());
        }
        let asked = verdicts.ask(Instant::now()).ok_or_else(silent)?;
        let answer = self.call(Method::POST, path, request, deadline).await;
        match &answer {
            Err(error) if error.is_too_late() => asked.was_not_answered(Instant::now()),
            Err(error) if !error.is_answer() => {}
            _ => asked.was_answered(),
        }
        answer.map_err(LoginError::from)
    }

    /// Whether the directory gives no answer, as far as is known here.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.inner.seen.is_silent()
    }

    /// The SASL mechanisms that the directory decides, from the cache when they are known there.
    /// None while it is away and has never answered, or when it is of a version that knows none.
    pub async fn mechanisms(&self) -> Vec<String> {
        // Whoever connects is greeted at once.
        if self.is_silent() && !self.inner.mechanisms.has(&()) {
            return Vec::new();
        }
        let ask = async {
            let change = self.inner.seen.number();
            let (value, known) = match self.get(path::MECHANISMS).await {
                Ok(value) => (value, true),
                Err(DirectoryError::Unknown) => (MechanismsReply::default(), false),
                Err(error) => return Err(error),
            };
            Ok(Stamped {
                value,
                change,
                known,
                weight: 1,
            })
        };
        let answer = self.inner.mechanisms.get(&(), ask).await;
        answer.map(|reply| reply.mechanisms).unwrap_or_default()
    }

    /// The keys by which grants are checked.
    ///
    /// # Errors
    /// [`DirectoryError::Away`].
    pub async fn keys(&self) -> Result<Vec<PublicKey>, DirectoryError> {
        let reply: KeysReply = self.get(path::KEYS).await?;
        Ok(reply.keys)
    }

    /// Has a new key made, which is used once every back-end has had the time to ask for it.
    ///
    /// # Errors
    /// [`DirectoryError::Away`], or `Refused`: `in_use` while one is on its way.
    pub async fn rotate_key(&self) -> Result<Vec<PublicKey>, DirectoryError> {
        let reply: KeysReply = self
            .call(Method::POST, path::KEYS_ROTATE, &(), CALL_DEADLINE)
            .await?;
        Ok(reply.keys)
    }

    /// Announces a back-end, with its own certificate.
    ///
    /// # Errors
    /// [`DirectoryError::Away`], or `Refused` when the certificate is not that back-end's.
    pub async fn announce(
        &self,
        request: &AnnounceRequest,
    ) -> Result<AnnounceReply, DirectoryError> {
        self.call(Method::POST, path::ANNOUNCE, request, CALL_DEADLINE)
            .await
    }

    async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        request: &Q,
        deadline: Duration,
    ) -> Result<A, DirectoryError> {
        let answer: Result<A, CallError> =
            self.inner.link.json(method, path, request, deadline).await;
        let answer = answer.map_err(DirectoryError::from);
        if answer.as_ref().err().is_none_or(DirectoryError::is_answer) {
            self.inner.seen.note_answer(Instant::now());
        }
        answer
    }

    async fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, DirectoryError> {
        self.call(Method::GET, path, &(), CALL_DEADLINE).await
    }

    async fn one<A: DeserializeOwned>(
        &self,
        collection: &str,
        key: &str,
    ) -> Result<A, DirectoryError> {
        self.get(&item(collection, key)).await
    }
}

fn item(collection: &str, key: &str) -> String {
    format!("{collection}/{}", encode_path_segment(key))
}
