//! One user's session: `POST /v1/session` from the proxy, or a login at a listener of our own.
//!
//! Both are served by the same engine. The proxy's comes with a grant, which is verified by this
//! back-end itself (P8); for one of its own it has asked the directory itself. While the directory is away, a proxy shows the
//! user's password instead, and this back-end checks it by a ticket that an earlier login has left. Then the session is entered among the open ones, then the volume is
//! asked whether the account may be opened at the grant's epoch (P4); the order matters to a
//! freeze, see [`crate::sessions`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::response::Response;
use daemon::clock::now_ms;
use daemon::identity::{Peer, Role};
use daemon::link::{LinkBody, Problem, require};
use directory_api::client::{GaveUp, LoginError, NoTicket};
use directory_api::front::HOME_WITHIN;
use directory_api::grant::{Grant, GrantError};
use directory_api::wire::{LoginReply, LoginRequest};
use directory_api::{AccountId, Epoch, LoginName, Quota, Service};
use mail_proto::pop3::Maildrop;
use store_api::frame::Decoder;
use store_api::session::{CAPABILITIES, SessionOpen, SessionShown};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::backend::Backend;
use crate::imap;
use crate::link::first_frame;
use crate::metrics;
use crate::pop3::Pop3;
use crate::refusal::malformed;
use crate::sessions::Registration;
use crate::user::{Cut, User};
use crate::volume::{Charge, OpeningError, ReadError, Refusal};
use crate::volumes::{Away, Mounted};

/// Why a session was not opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionRefusal {
    /// The grant does not open this service here.
    #[error("grant was refused")]
    Grant(#[source] GrantError),
    /// The grant is for the other service.
    #[error("grant is for another service")]
    Service,
    /// The directory, asked about a password that was shown here, refuses it.
    #[error("directory does not let the user in")]
    Directory(#[source] LoginError),
    /// The directory is away, and no ticket lets the user in.
    #[error("no ticket lets the user in")]
    Ticket(#[from] NoTicket),
    /// The volume does not open the account.
    #[error("account is not open")]
    Account(#[from] Refusal),
    /// The account logged in less than the interval ago.
    #[error("account logged in a moment ago")]
    LoginDelay {
        /// Seconds to wait.
        wait_s: u64,
    },
    /// The volume cannot be read.
    #[error("volume cannot be read")]
    Read(#[from] ReadError),
    /// The account's volume is not open.
    #[error(transparent)]
    Away(#[from] Away),
}

impl From<OpeningError> for SessionRefusal {
    fn from(error: OpeningError) -> Self {
        match error {
            OpeningError::Refused(refusal) => Self::Account(refusal),
            OpeningError::Read(error) => Self::Read(error),
        }
    }
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionEnd {
    /// The user said good-bye.
    Quit,
    /// The user closed without a good-bye.
    Closed,
    /// No command for too long.
    Idle,
    /// We ended it: the account is being moved, or the process drains.
    Ended,
    /// Too many mistakes.
    Errors,
    /// The connection broke or stalled.
    Cut(Cut),
}

/// A session that may begin: nothing has been said to the user yet.
pub(crate) struct Opened {
    facts: Facts,
    home: Arc<Mounted>,
    registration: Registration,
    start: Start,
}

/// Whose mail is to be opened, as the directory has said.
struct Owner {
    account: AccountId,
    epoch: Epoch,
    login_name: LoginName,
    quota: Quota,
}

impl From<Grant> for Owner {
    fn from(grant: Grant) -> Self {
        Self {
            account: grant.account,
            epoch: grant.epoch,
            login_name: grant.login_name,
            quota: grant.quota,
        }
    }
}

impl From<&LoginReply> for Owner {
    fn from(login: &LoginReply) -> Self {
        Self {
            account: login.account,
            epoch: login.home.epoch,
            login_name: login.login_name.clone(),
            quota: login.quota,
        }
    }
}

/// Whose session it is. What else was said of the owner is of no use once the session is open.
struct Facts {
    service: Service,
    account: AccountId,
    epoch: Epoch,
    has_quota: bool,
    login_name: LoginName,
    client: String,
    tls: Option<String>,
    trace_id: String,
}

enum Start {
    Pop3(Maildrop),
    Imap { tag: String },
}

/// Pieces that wait to be sent to the proxy: with pieces of 64 KiB this bounds what a user who
/// reads slowly holds here.
const WINDOW_PIECES: usize = 2;
/// Of the time in which a home decides on a password that is shown to it: for a turn to ask the directory, and from then on
/// for its answer. The rest is for the ticket.
const TURN_WITHIN: Duration = Duration::from_secs(2);
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);

/// Serves `POST /v1/session`.
pub(crate) async fn serve(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    mut body: Body,
) -> Result<Response, Problem> {
    // A sibling relays users who came to its own listeners.
    require(&peer, &[Role::PopImapProxy, Role::StoreBackend])?;
    let mut decoder = Decoder::default();
    let open: SessionOpen = first_frame(&mut body, &mut decoder).await?;
    let opened = backend.open_granted(open).await.map_err(Problem::from)?;
    Ok(begin(&backend, opened, body, decoder))
}

/// Serves `POST /v1/session/shown`.
pub(crate) async fn serve_shown(
    State(backend): State<Arc<Backend>>,
    Extension(peer): Extension<Peer>,
    mut body: Body,
) -> Result<Response, Problem> {
    require(&peer, &[Role::PopImapProxy, Role::StoreBackend])?;
    let mut decoder = Decoder::default();
    let shown: SessionShown = first_frame(&mut body, &mut decoder).await?;
    let client: SocketAddr = shown
        .session
        .client
        .parse()
        .map_err(|_| malformed("client is no address"))?;
    let request = LoginRequest {
        user: shown.user,
        password: shown.password,
        service: shown.session.service,
        client_address: client.ip().to_canonical(),
        secured: shown.session.tls.is_some(),
        backend: Some(backend.name.clone()),
    };
    let opened = backend.open_shown(&request, shown.session).await;
    Ok(begin(
        &backend,
        opened.map_err(Problem::from)?,
        body,
        decoder,
    ))
}

/// Says yes and lets the session run.
fn begin(backend: &Arc<Backend>, opened: Box<Opened>, body: Body, decoder: Decoder) -> Response {
    let (sender, answer) = LinkBody::channel(WINDOW_PIECES);
    let user = User::framed(body, decoder, sender, backend.config.limits.stall());
    let is_imap = opened.facts.service == Service::Imap;
    let serving = Arc::clone(backend).run_session(opened, user);
    backend.shutdown.spawn(serving);
    let mut response = Response::new(Body::new(answer));
    if is_imap {
        let told = HeaderValue::from_static(imap::capability::advertised());
        response.headers_mut().insert(CAPABILITIES, told);
    }
    response
}

impl Backend {
    /// Decides whether a session may begin that a proxy or a sibling asks for. Nothing is said to the user here.
    async fn open_granted(&self, open: SessionOpen) -> Result<Box<Opened>, SessionRefusal> {
        let owner = self.verify(&open.grant, open.service).await;
        self.open(owner, open).await
    }

    /// Decides whether a session may begin for a user of our own listeners, of whom the directory has told us itself: the
    /// grant is not looked at.
    pub(crate) async fn open_own(
        &self,
        login: &LoginReply,
        open: SessionOpen,
    ) -> Result<Box<Opened>, SessionRefusal> {
        // Of a login that is kept it is old, and its ticket is here already.
        if let Ok(grant) = self.grants.check(&login.grant, now_ms(), &self.name) {
            self.directory.keep_ticket(grant).await;
        }
        self.open(Ok(login.into()), open).await
    }

    /// Decides whether a session may begin for a user of whom nobody has asked the directory, or got no answer. It may be
    /// away only for the one who came: it is asked first, if it is not known to be away here too. That many wait for their
    /// turn to ask it does not make it away.
    async fn open_shown(
        &self,
        request: &LoginRequest,
        open: SessionOpen,
    ) -> Result<Box<Opened>, SessionRefusal> {
        let until = tokio::time::Instant::now() + HOME_WITHIN;
        let gives_up = async {
            sleep(TURN_WITHIN).await;
            GaveUp::TooLong
        };
        let directory = &self.directory;
        let asked = directory.login_or_kept_within(request, false, ANSWERED_WITHIN, gives_up);
        match asked.await {
            Ok(login) => self.open_own(&login, open).await,
            Err(LoginError::Away(error)) if error.is_away() => {
                self.open_by_ticket_until(request, open, until).await
            }
            Err(error) => self.open(Err(SessionRefusal::Directory(error)), open).await,
        }
    }

    /// The same where the directory is known to be away.
    pub(crate) async fn open_by_ticket(
        &self,
        request: &LoginRequest,
        open: SessionOpen,
    ) -> Result<Box<Opened>, SessionRefusal> {
        let until = tokio::time::Instant::now() + HOME_WITHIN;
        self.open_by_ticket_until(request, open, until).await
    }

    async fn open_by_ticket_until(
        &self,
        request: &LoginRequest,
        open: SessionOpen,
        until: tokio::time::Instant,
    ) -> Result<Box<Opened>, SessionRefusal> {
        let owner = self.directory.check_ticket(request, until).await;
        if let Ok(grant) = &owner {
            info!(
                trace_id = open.trace_id,
                account = %grant.account,
                client = open.client,
                "password verified by a ticket, for the directory is away"
            );
        }
        let owner = owner.map(Owner::from).map_err(SessionRefusal::from);
        self.open(owner, open).await
    }

    async fn open(
        &self,
        owner: Result<Owner, SessionRefusal>,
        open: SessionOpen,
    ) -> Result<Box<Opened>, SessionRefusal> {
        let admitted: Result<_, SessionRefusal> = async {
            let owner = owner?;
            let (home, registration, start) = self.admit(&owner, &open).await?;
            Ok((owner, home, registration, start))
        }
        .await;
        if let Some(client_id) = &open.client_id {
            info!(
                trace_id = open.trace_id,
                client_id, "the user's program tells of itself"
            );
        }
        match admitted {
            Ok((owner, home, registration, start)) => Ok(Box::new(Opened {
                facts: Facts {
                    service: open.service,
                    account: owner.account,
                    epoch: owner.epoch,
                    has_quota: owner.quota.is_limited(),
                    login_name: owner.login_name,
                    client: open.client,
                    tls: open.tls,
                    trace_id: open.trace_id,
                },
                home,
                registration,
                start,
            })),
            Err(refusal) => {
                metrics::session_refused(open.service, refusal.code());
                warn!(
                    trace_id = open.trace_id,
                    service = open.service.as_str(),
                    client = open.client,
                    why = refusal.code(),
                    "session refused"
                );
                Err(refusal)
            }
        }
    }

    async fn admit(
        &self,
        owner: &Owner,
        open: &SessionOpen,
    ) -> Result<(Arc<Mounted>, Registration, Start), SessionRefusal> {
        let home = self.volumes.of(owner.account).await?;
        // What a restored volume does not have may only not be there yet: a mail program that is shown an empty account
        // throws its own copies away (P6).
        if !home.may_write() && home.volume.account(owner.account).await?.is_none() {
            return Err(SessionRefusal::Account(Refusal::ReadOnly));
        }
        let registration = self.sessions.register(owner.account, open.service);
        let registration = registration.ok_or(SessionRefusal::Account(Refusal::Frozen))?;
        let start = match open.service {
            Service::Pop3 => {
                if let Some(delay_s) = self.config.limits.pop3_policy().login_delay_s {
                    let delay = Duration::from_secs(delay_s);
                    let entered = self
                        .login_delays
                        .enter(owner.account, delay, Instant::now());
                    entered.map_err(|wait_s| SessionRefusal::LoginDelay { wait_s })?;
                }
                let pop3 = self.pop3(&home, owner.account, owner.epoch);
                let opened = pop3.snapshot(owner.quota).await;
                if opened.is_err() {
                    // A login that is refused in a move, or sent on to the account's new home, does not count.
                    self.login_delays.leave(owner.account);
                }
                Start::Pop3(opened?)
            }
            Service::Imap => {
                let tag = open.tag.clone().ok_or(SessionRefusal::Service)?;
                home.volume
                    .open_account(owner.account, owner.epoch, owner.quota)
                    .await?;
                Start::Imap { tag }
            }
        };
        Ok((home, registration, start))
    }

    /// A key that is not known may be newer than the last announcement: the directory is asked once.
    async fn verify(&self, grant: &str, wanted: Service) -> Result<Owner, SessionRefusal> {
        let verdict = match self.grants.verify(grant, now_ms(), &self.name) {
            Err(GrantError::UnknownKey) if self.renew_keys().await => {
                self.grants.verify(grant, now_ms(), &self.name)
            }
            verdict => verdict,
        };
        let grant = verdict.map_err(SessionRefusal::Grant)?;
        if grant.service != wanted {
            return Err(SessionRefusal::Service);
        }
        self.directory.keep_ticket(grant.clone()).await;
        Ok(grant.into())
    }

    fn pop3<'a>(&'a self, home: &'a Mounted, account: AccountId, epoch: Epoch) -> Pop3<'a> {
        Pop3 {
            volume: &home.volume,
            account,
            epoch,
            idle: Duration::from_secs(self.config.limits.pop3_idle_s),
            policy: self.config.limits.pop3_policy(),
            may_write: home.may_write(),
        }
    }

    fn imap<'a>(&'a self, home: &'a Mounted, has_quota: bool) -> imap::Service<'a> {
        imap::Service {
            home,
            volumes: &self.volumes,
            idle: Duration::from_secs(self.config.limits.imap_idle_s),
            stall: self.config.limits.stall(),
            message_size_max_bytes: self.config.limits.message_size_max_bytes,
            quota_warning_percent: Some(self.config.limits.quota_warning_percent)
                .filter(|_| has_quota),
            message_limit: imap::MessageLimit {
                count: self.config.limits.imap_message_limit_count,
                is_kept: self.config.limits.imap_message_limit_is_kept,
            },
            may_write: home.may_write(),
            about: &self.config.about,
            compressions: &self.compressions,
            sorting: &self.sorting,
        }
    }

    /// Serves the session to its end and logs one line.
    ///
    /// Its size is what a session costs that waits, times all of them: what is large and lives shorter, or is
    /// not of every session, has a box of its own.
    #[expect(
        clippy::manual_async_fn,
        reason = "an async fn holds what it was given twice"
    )]
    pub(crate) fn run_session(
        self: Arc<Self>,
        opened: Box<Opened>,
        mut user: User,
    ) -> impl Future<Output = ()> + Send {
        async move {
            let Opened {
                facts,
                home,
                mut registration,
                start,
            } = *opened;
            let Facts {
                account,
                epoch,
                has_quota,
                ..
            } = facts;
            let began = Instant::now();
            home.volume.load().charge(account, Charge::SESSION);
            let _open = metrics::SessionGauge::enter(facts.service);
            let end = match start {
                Start::Pop3(maildrop) => {
                    let pop3 = self.pop3(&home, account, epoch);
                    let session = Box::pin(pop3.run(&mut user, maildrop, &mut registration));
                    home.volume.metered(account, session).await
                }
                Start::Imap { tag } => {
                    let service = self.imap(&home, has_quota);
                    let name = facts.login_name.clone();
                    let session = imap::Session::new(
                        service,
                        &mut user,
                        &mut registration,
                        account,
                        epoch,
                        name,
                    );
                    let mut session = Box::new(session);
                    session.run(&tag).await
                }
            };
            // Gone from the registry first: whoever froze the account waits for that, not for the peer.
            drop(registration);
            let (from_user, to_user) = user.offsets();
            if !matches!(end, SessionEnd::Cut(_)) {
                // A peer that is gone already does not hear the end; nothing follows from that.
                let _ = Box::pin(user.finish()).await;
            }
            facts.log(began, (from_user, to_user), end);
        }
    }
}

impl Facts {
    fn log(&self, began: Instant, (from_user, to_user): (u64, u64), end: SessionEnd) {
        metrics::session_ended(self.service, end.label());
        info!(
            trace_id = self.trace_id,
            service = self.service.as_str(),
            account = %self.account,
            login_name = %self.login_name,
            client = self.client,
            tls = self.tls.as_deref().unwrap_or("none"),
            from_user,
            to_user,
            seconds = began.elapsed().as_secs_f64(),
            end = end.label(),
            "session ended"
        );
    }
}

impl SessionEnd {
    fn label(self) -> &'static str {
        match self {
            Self::Quit => "quit",
            Self::Closed => "closed",
            Self::Idle => "idle",
            Self::Ended => "ended",
            Self::Errors => "errors",
            Self::Cut(Cut::Gone) => "cut",
            Self::Cut(Cut::Stalled) => "stalled",
            Self::Cut(Cut::Malformed) => "malformed",
            Self::Cut(Cut::Garbage(_)) => "garbage",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task_size<A, B, C, F: Future>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// Ten thousand users wait at once. What a session allocates besides is measured from outside.
    #[test]
    fn a_session_that_waits_is_small() {
        let task = task_size(Backend::run_session);
        assert!(task <= 1_792, "{task} octets of task");
        let session = size_of::<imap::Session<'static>>();
        assert!(session <= 704, "{session} octets of session");
    }
}
