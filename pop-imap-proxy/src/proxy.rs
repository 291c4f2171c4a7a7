//! The process around the sessions: listeners, links, health, drain.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use daemon::balancers::Balancers;
use daemon::client_certificate::UserAuthorities;
use daemon::health::{self, Health};
use daemon::identity::{Identity, IdentityError};
use daemon::link::{self, CallError};
use daemon::listener::{self, BindError, accept_each_or};
use daemon::open_files;
use daemon::public_tls::PublicTls;
use daemon::shutdown::Shutdown;
use directory_api::client::{AskHome, DirectoryError, KnownHome, Untold};
use directory_api::front::FrontOptions;
use directory_api::wire::{Change, ChangeKind, code, limit};
use directory_api::{AccountId, ChangeNumber, ClientOptions, DirectoryClient, Service};
use mail_proto::login::Shut;
use store_api::Backends;
use store_api::session::{LeftReply, left};
use tokio::net::TcpListener;
use tracing::{debug, info, warn};

use crate::announced::Announced;
use crate::config::{Config, Limits};
use crate::door::Door;
use crate::foreign::{Masters, SecretError};
use crate::patience::Patience;
use crate::sessions::Sessions;
use crate::{meter, operate, session};
use daemon::clients::{Clients, Grouping};

/// Why a proxy cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A certificate or key cannot be used.
    #[error(transparent)]
    Certificate(#[from] IdentityError),
    /// A listener speaks TLS and there is no certificate; the check of the settings says the same earlier.
    #[error(
        "{0}: TLS needs a certificate; set tls.certificate and tls.key, or leave the listener out"
    )]
    NoCertificate(&'static str),
    /// A file that `foreign` names cannot be used.
    #[error(transparent)]
    Foreign(#[from] SecretError),
}

/// What all sessions share.
pub(crate) struct Shared {
    pub(crate) directory: DirectoryClient,
    pub(crate) backends: Backends,
    pub(crate) tls: Option<PublicTls>,
    pub(crate) announced: Announced,
    pub(crate) balancers: Balancers,
    pub(crate) clients: Clients,
    pub(crate) sessions: Sessions,
    pub(crate) patience: Patience,
    pub(crate) masters: Masters,
    pub(crate) limits: Limits,
    pop3: FrontOptions,
    imap: FrontOptions,
}

impl Shared {
    pub(crate) fn front(&self, service: Service) -> &FrontOptions {
        match service {
            Service::Pop3 => &self.pop3,
            Service::Imap => &self.imap,
        }
    }
}

/// A proxy that listens already and serves nobody yet.
pub struct Proxy {
    shared: Arc<Shared>,
    doors: Vec<(Door, TcpListener)>,
    inside: Option<TcpListener>,
    identity: Arc<Identity>,
    health: Health,
    observability: TcpListener,
    directory_address: String,
}

impl Proxy {
    /// Reads the certificates and listens. Nothing is connected yet: the directory may start later.
    ///
    /// # Errors
    /// [`RunError`] names the address or the file.
    pub fn bind(config: Config) -> Result<Self, RunError> {
        let identity = Arc::new(Identity::load(&config.identity)?);
        let users = config.users_ca.as_deref().map(UserAuthorities::load);
        let tls = config.tls.load_asking(users.transpose()?)?;
        let masters = Masters::load(config.foreign, config.limits.keepalive())?;
        let mut doors = Vec::new();
        let wanted = [
            (Door::POP3, config.pop3),
            (Door::POP3S, config.pop3s),
            (Door::IMAP, config.imap),
            (Door::IMAPS, config.imaps),
        ];
        for (door, address) in wanted {
            let Some(address) = address else { continue };
            if door.implicit_tls && tls.is_none() {
                return Err(RunError::NoCertificate(door.name()));
            }
            doors.push((
                door,
                listener::bind_for_clients(
                    address,
                    &format!("proxy {}", door.name()),
                    config.limits.keepalive(),
                )?,
            ));
        }
        let health = Health::new("pop-imap-proxy");
        let announced = Announced::new(config.imap_capabilities, health.clone());
        let limits = config.limits;
        let options = ClientOptions {
            login_turns: limits.login_turns(),
            stale_max: limits.directory_stale_max(),
            ..ClientOptions::default()
        };
        let directory = DirectoryClient::new(&config.directory, &identity, &options);
        let backends = Backends::new(Arc::clone(&identity), directory.clone());
        let ask_home = ask_home(&backends);
        let front = |service| FrontOptions {
            service,
            hostname: config.hostname.clone(),
            tls: tls.clone(),
            plaintext_on_loopback: config.plaintext_login_on_loopback,
            login_timeout: limits.login_timeout(),
            move_wait: Duration::from_secs(limits.move_wait_s),
            backend: None,
            ask_home: Some(Arc::clone(&ask_home)),
            imap_capabilities: Some(announced.line()),
            // Each home has its own; it announces them after the login.
            pop3_policy: None,
        };
        let (pop3, imap) = (front(Service::Pop3), front(Service::Imap));
        let inside = config.inside_listen;
        Ok(Self {
            doors,
            inside: inside
                .map(|address| listener::bind(address, "proxy inside"))
                .transpose()?,
            identity: Arc::clone(&identity),
            health,
            observability: listener::bind(config.metrics_listen, "proxy metrics")?,
            directory_address: config.directory,
            shared: Arc::new(Shared {
                backends,
                directory,
                tls,
                announced,
                balancers: config.balancers,
                clients: Clients::new(
                    limits.client_connections_max,
                    Grouping::hosts(limits.client_limit_on_loopback),
                ),
                patience: Patience::new(limits.open_timeout()),
                masters,
                sessions: Sessions::new(limits.user_sessions_max),
                limits,
                pop3,
                imap,
            }),
        })
    }

    /// Where a listener listens, by its name in the settings; the port that was taken when port 0 was asked for.
    #[must_use]
    pub fn address(&self, listener: &str) -> Option<SocketAddr> {
        let (_, socket) = self
            .doors
            .iter()
            .find(|(door, _)| door.name() == listener)?;
        socket.local_addr().ok()
    }

    /// Where operators are answered.
    #[must_use]
    pub fn inside_address(&self) -> Option<SocketAddr> {
        self.inside.as_ref()?.local_addr().ok()
    }

    /// Where health and metrics are answered.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn metrics_address(&self) -> std::io::Result<SocketAddr> {
        self.observability.local_addr()
    }

    /// Serves until the shutdown begins; sessions go on as tasks that the drain waits for.
    pub async fn serve(self, shutdown: Shutdown) {
        let Self {
            shared,
            doors,
            inside,
            identity,
            health,
            observability,
            directory_address,
        } = self;
        meter::describe();
        if let Some(tls) = &shared.tls {
            tls.follow(&shutdown);
        }
        // Where users live whom it has let in, and back-ends listen, is as true as what the feed tells.
        shared.directory.follow(&shutdown);
        shutdown.spawn(health::serve_observability(
            observability,
            health.clone(),
            shutdown.clone(),
        ));
        if let Some(inside) = inside {
            let node = identity.peer().node.clone();
            let routes = operate::routes(Arc::clone(&shared), health.clone(), &node);
            shutdown.spawn(link::serve(inside, identity, routes, shutdown.clone()));
        }
        for (door, socket) in doors {
            shutdown.spawn(attend(Arc::clone(&shared), door, socket, shutdown.clone()));
        }
        watch(&shared, &directory_address, &health, &shutdown).await;
    }
}

/// How back-ends are asked which of them has let a user in lately.
fn ask_home(backends: &Backends) -> AskHome {
    let backends = backends.clone();
    Arc::new(move |backend, address, user| {
        let link = backends.link_at(&backend, &address);
        Box::pin(async move {
            let left = left(&link, &user).await;
            let left = left.inspect_err(|error| {
                debug!(%backend, %error, "back-end does not tell whether a user lives there");
            });
            match left {
                Ok(LeftReply {
                    account: Some(account),
                    login_name: Some(login_name),
                }) => Ok(Some(KnownHome {
                    account,
                    login_name,
                    backend,
                    backend_address: address,
                })),
                Err(CallError::Refused(_)) => Err(Untold),
                // A home that cannot be reached lets nobody in either.
                Ok(_) | Err(_) => Ok(None),
            }
        })
    })
}

/// Accepts at one listener.
async fn attend(shared: Arc<Shared>, door: Door, socket: TcpListener, shutdown: Shutdown) {
    let sessions = shutdown.clone();
    let full = Arc::clone(&shared);
    accept_each_or(
        socket,
        shared.limits.connections_max,
        shutdown,
        move |socket, client| {
            let (shared, sessions) = (Arc::clone(&shared), sessions.clone());
            async move { session::serve(&shared, door, socket, client, &sessions).await }
        },
        move |socket, client| {
            meter::refused(door, "connections_max");
            let shared = Arc::clone(&full);
            async move {
                session::refuse(&shared, door, socket, client, Shut::Overloaded).await;
            }
        },
    )
    .await;
}

/// Tells in health whether the directory answers: without it nobody can log in, open sessions go on. Ends those at foreign
/// back-ends whose accounts get other homes; at back-ends of ours a move does so itself.
async fn watch(shared: &Shared, address: &str, health: &Health, shutdown: &Shutdown) {
    let what = format!("directory at {address}");
    let newest = ChangeNumber(u64::MAX);
    let mut seen = newest;
    loop {
        let changes = shared
            .directory
            .changes(seen, limit::CHANGES_MAX, Duration::ZERO);
        let pause = match changes.await {
            Ok(reply) => {
                end_changed_over(shared, &reply.changes);
                // More changes than one answer holds are asked for in the next turn.
                seen = match reply.changes.last() {
                    Some(change) => change.number,
                    None => reply.last,
                };
                health.arrived(&what);
                if !shared.sessions.is_drained_at(None) {
                    health.set_ready();
                }
                // It may have been drained just before health was told otherwise.
                if shared.sessions.is_drained_at(None) {
                    health.set_waiting(operate::DRAINED);
                }
                match seen < reply.last {
                    true => Duration::ZERO,
                    false => WATCH_INTERVAL,
                }
            }
            Err(DirectoryError::Refused(problem)) if problem.code == code::CHANGES_GONE => {
                warn!(
                    "away for more changes than the directory keeps: sessions at foreign back-ends may have changed their homes"
                );
                seen = newest;
                Duration::ZERO
            }
            Err(error) => {
                debug!(%error, "directory does not answer");
                health.set_waiting(what.clone());
                RETRY_INTERVAL
            }
        };
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Who was changed over is not to go on at the old home: what comes there is seen nowhere else.
fn end_changed_over(shared: &Shared, changes: &[Change]) {
    let accounts: HashSet<AccountId> = changes
        .iter()
        .filter(|change| change.kind == ChangeKind::Home)
        .filter_map(|change| change.key.parse().ok().map(AccountId))
        .collect();
    let ended = match accounts.is_empty() {
        true => 0,
        false => shared.sessions.end_abroad(&accounts),
    };
    if ended > 0 {
        info!(
            ended,
            "sessions at foreign back-ends end: their accounts have other homes now"
        );
    }
}

/// How often a directory that answers is asked whether it still does.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);
/// How soon one that does not is asked again.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// Runs a proxy until the shutdown begins.
///
/// # Errors
/// [`RunError`]: it could not begin. Once it serves, nothing ends it but the shutdown.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), RunError> {
    open_files::expect(config.limits.connections_max);
    let proxy = Proxy::bind(config)?;
    for (door, socket) in &proxy.doors {
        if let Ok(address) = socket.local_addr() {
            info!(%address, service = door.name(), "listening");
        }
    }
    proxy.serve(shutdown).await;
    Ok(())
}
