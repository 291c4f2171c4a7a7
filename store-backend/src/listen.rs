//! The listeners of this back-end's own: users by POP3 and IMAP, other mail servers by LMTP.
//!
//! Any back-end may be asked for any user: a user who lives here is served here, one who lives on a
//! sibling is relayed to it, as the proxy would do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use daemon::listener::{BindError, accept_each, bind_for_clients};
use daemon::public_tls::PublicTls;
use daemon::stream::UserStream;
use directory_api::Service;
use directory_api::front::{
    Ended, Entry, FrontOptions, LoggedIn, LoginFacts, OpenError, SHOWN_WITHIN, log_in,
};
use mail_proto::login::{LoginDialogue, Refusal};
use mail_proto::{imap, pop3};
use store_api::session::{self, Passed, Session, SessionOpen, SessionShown, Terms, relay};
use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, info, warn};

use crate::backend::Backend;
use crate::config::Config;
use crate::lmtp;
use crate::session::{Opened, SessionRefusal};
use crate::user::User;
use crate::volume::Refusal as AccountRefusal;

/// Everything bound, nothing accepted yet: a busy port stops the start before anything else happens.
pub(crate) struct Bound {
    lmtp: Option<TcpListener>,
    users: Vec<UserListener>,
}

struct UserListener {
    listener: TcpListener,
    service: Service,
    implicit_tls: bool,
}

/// A session that opened, here or on the sibling where the user lives.
enum Home {
    Here(Box<Opened>),
    There { session: Session, trace_id: String },
}

impl Bound {
    /// Binds what is configured.
    pub(crate) fn bind(config: &Config) -> Result<Self, BindError> {
        let listen = &config.listen;
        let keepalive = Duration::from_secs(config.limits.keepalive_s);
        let bind = |address, what| bind_for_clients(address, what, keepalive);
        let wanted = [
            (listen.pop3, "store pop3", Service::Pop3, false),
            (listen.pop3s, "store pop3s", Service::Pop3, true),
            (listen.imap, "store imap", Service::Imap, false),
            (listen.imaps, "store imaps", Service::Imap, true),
        ];
        let mut users = Vec::new();
        for (address, what, service, implicit_tls) in wanted {
            if let Some(address) = address {
                users.push(UserListener {
                    listener: bind(address, what)?,
                    service,
                    implicit_tls,
                });
            }
        }
        let lmtp = listen
            .lmtp
            .map(|address| bind(address, "store lmtp"))
            .transpose()?;
        Ok(Self { lmtp, users })
    }

    /// Serves all of them until the shutdown.
    pub(crate) fn serve(self, backend: &Arc<Backend>) {
        let limits = &backend.config.limits;
        if let Some(listener) = self.lmtp {
            let serving = Arc::clone(backend);
            let accepting = accept_each(
                listener,
                limits.lmtp_connections_max,
                backend.shutdown.clone(),
                move |stream, client| lmtp::serve(Arc::clone(&serving), stream, client),
            );
            backend.shutdown.spawn(accepting);
        }
        for UserListener {
            listener,
            service,
            implicit_tls,
        } in self.users
        {
            let front = Arc::new(Front {
                options: FrontOptions {
                    service,
                    hostname: backend.config.hostname.clone(),
                    tls: backend.public_tls.clone(),
                    plaintext_on_loopback: backend.config.listen.plaintext_login,
                    login_timeout: Duration::from_secs(limits.login_s),
                    move_wait: MOVE_WAIT,
                    // A user who lives on a sibling is relayed there.
                    backend: None,
                    ask_home: None,
                    imap_capabilities: None,
                    pop3_policy: Some(limits.pop3_policy()),
                },
                implicit_tls: backend.public_tls.clone().filter(|_| implicit_tls),
                backend: Arc::clone(backend),
            });
            let accepting = accept_each(
                listener,
                limits.user_connections_max,
                backend.shutdown.clone(),
                move |stream, client| Arc::clone(&front).serve(stream, client),
            );
            backend.shutdown.spawn(accepting);
        }
    }
}

/// One listener for users.
struct Front {
    backend: Arc<Backend>,
    options: FrontOptions,
    implicit_tls: Option<PublicTls>,
}

impl Front {
    async fn serve(self: Arc<Self>, socket: TcpStream, client: SocketAddr) {
        // In boxes of their own, or every session would hold the room of its login.
        let Some(logged_in) = Box::pin(self.let_in(socket, client)).await else {
            return;
        };
        match logged_in.session {
            Home::Here(opened) => {
                let stall = self.backend.config.limits.stall();
                let user = User::direct(logged_in.stream, logged_in.leftover, stall);
                Arc::clone(&self.backend).run_session(opened, user).await;
            }
            Home::There { .. } => Box::pin(self.relay(logged_in)).await,
        }
    }

    /// TLS and login; nothing when the user did not come so far.
    async fn let_in(&self, mut socket: TcpStream, peer: SocketAddr) -> Option<LoggedIn<Home>> {
        let client = client_of(&self.backend, &mut socket, peer).await?;
        let stream = match &self.implicit_tls {
            Some(tls) => {
                match UserStream::implicit_tls(socket, tls, self.options.login_timeout).await {
                    Ok(stream) => stream,
                    Err(error) => {
                        debug!(%client, %error, "tls handshake failed");
                        return None;
                    }
                }
            }
            None => UserStream::plain(socket),
        };
        let directory = &self.backend.directory;
        let dialogue = self.options.dialogue(&stream, client, directory).await;
        let logged_in = match self.options.service {
            Service::Pop3 => {
                self.log_in(stream, pop3::Login::new(dialogue), client)
                    .await
            }
            Service::Imap => {
                self.log_in(stream, imap::Login::new(dialogue), client)
                    .await
            }
        };
        if let Err(ended) = &logged_in {
            debug!(%client, service = self.options.service.as_str(), %ended, "no login");
        }
        logged_in.ok()
    }

    /// Copies for a user who lives on a sibling.
    async fn relay(&self, logged_in: LoggedIn<Home>) {
        let LoggedIn {
            stream,
            session: Home::There { session, trace_id },
            leftover,
            facts,
            login,
        } = logged_in
        else {
            return;
        };
        let limits = &self.backend.config.limits;
        // The session's own idle limit is shorter and comes with a word to the user.
        let idle_max =
            Duration::from_secs(limits.pop3_idle_s.max(limits.imap_idle_s) + limits.stall_s);
        let passed = Passed::default();
        let terms = Terms {
            passed: &passed,
            idle_max,
            service: facts.service,
            backends: &self.backend.backends,
            went_on: &|home| info!(%home, trace_id, "relayed session went on"),
            trace_id: &trace_id,
            shutdown: &self.backend.shutdown,
        };
        let end = relay(stream, leftover, session, &terms).await;
        info!(
            service = facts.service.as_str(),
            account = %login.account,
            home = %login.backend,
            client = %facts.client,
            from_user = passed.from_user(),
            to_user = passed.to_user(),
            end = end.as_str(),
            "relayed session ended"
        );
    }

    async fn log_in<D: LoginDialogue>(
        &self,
        stream: UserStream,
        dialogue: D,
        client: SocketAddr,
    ) -> Result<LoggedIn<Home>, Ended> {
        let Backend {
            directory,
            shutdown,
            ..
        } = &*self.backend;
        log_in(
            stream,
            dialogue,
            client,
            directory,
            &self.options,
            shutdown,
            |login, facts| self.open(login, facts),
        )
        .await
    }

    /// Opens the session where the directory says that the user lives, or where the user lived before it was away.
    async fn open(&self, login: Entry, facts: LoginFacts) -> Result<Home, OpenError> {
        let open = SessionOpen {
            grant: match &login {
                Entry::Granted(login) => login.grant.clone(),
                Entry::Shown(_) => String::new(),
            },
            service: facts.service,
            client: facts.client.to_string(),
            tls: facts
                .tls
                .map(|tls| format!("{} {}", tls.version, tls.cipher)),
            tag: facts.tag,
            client_id: facts.client_id,
            trace_id: trace_id(),
        };
        if *login.backend() == self.backend.name {
            let opened = match &login {
                Entry::Granted(login) => self.backend.open_own(login, open).await,
                Entry::Shown(shown) => self.backend.open_by_ticket(&shown.request, open).await,
            };
            return match opened {
                Ok(opened) => Ok(Home::Here(opened)),
                Err(SessionRefusal::Account(
                    AccountRefusal::Moved { .. } | AccountRefusal::StaleEpoch { .. },
                )) => Err(OpenError::LookAgain),
                Err(SessionRefusal::Account(AccountRefusal::Frozen)) => Err(OpenError::Moving),
                Err(SessionRefusal::LoginDelay { wait_s }) => {
                    Err(OpenError::Refused(Refusal::LoginDelay { wait_s }))
                }
                Err(_) => Err(OpenError::Refused(Refusal::Temporary)),
            };
        }
        if let Entry::Granted(granted) = &login
            && granted.foreign.is_some()
        {
            info!(home = %login.backend(), trace_id = open.trace_id, "login refused: the user lives on a foreign back-end, the way there is through a proxy");
            return Err(OpenError::Refused(Refusal::NotAllowed));
        }
        let link = self
            .backend
            .backends
            .link_at(login.backend(), login.backend_address());
        let trace_id = open.trace_id.clone();
        let session = match &login {
            Entry::Granted(_) => Session::open(&link, &open, OPEN_WITHIN).await,
            Entry::Shown(shown) => {
                let shown = SessionShown {
                    user: shown.request.user.clone(),
                    password: shown.request.password.clone(),
                    session: open,
                };
                Session::open_shown(&link, &shown, SHOWN_WITHIN).await
            }
        };
        match session {
            Ok(session) => Ok(Home::There { session, trace_id }),
            Err(session::OpenError::Moved(_) | session::OpenError::StaleEpoch) => {
                Err(OpenError::LookAgain)
            }
            Err(session::OpenError::Frozen) => Err(OpenError::Moving),
            Err(session::OpenError::LoginDelay(wait_s)) => {
                Err(OpenError::Refused(Refusal::LoginDelay { wait_s }))
            }
            Err(error) => {
                warn!(home = %login.backend(), %error, trace_id, "session at the user's home did not open");
                Err(OpenError::Refused(Refusal::Temporary))
            }
        }
    }
}

/// Whose connection it is, before anything is said on it; nothing when a load balancer did not tell.
pub(crate) async fn client_of(
    backend: &Backend,
    socket: &mut TcpStream,
    peer: SocketAddr,
) -> Option<SocketAddr> {
    let client = backend.config.balancers.client(socket, peer).await;
    let told = client.inspect_err(|fault| {
        let cause = daemon::log::causes(fault);
        info!(%peer, reason = fault.code(), cause, "connection of a balancer refused");
    });
    told.ok()
}

fn trace_id() -> String {
    data_encoding::HEXLOWER.encode(&daemon::random::token128()[..8])
}

/// As a proxy's by default.
const MOVE_WAIT: Duration = Duration::from_secs(10);
/// Opening takes a snapshot of the maildrop: milliseconds, seconds for a very large one.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
