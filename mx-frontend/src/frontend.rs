//! The process around the sessions: listener, links, health, drain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use daemon::balancers::Balancers;
use daemon::health::{self, Health};
use daemon::identity::{Identity, IdentityError};
use daemon::listener::{self, BindError, accept_each_or};
use daemon::public_tls::PublicTls;
use daemon::shutdown::Shutdown;
use daemon::stream::UserStream;
use directory_api::{ChangeNumber, ClientOptions, DirectoryClient};
use mail_proto::Address;
use mail_proto::smtp::{self, Mode};
use store_api::Backends;
use store_api::away::AwayVolumes;
use store_api::room::Rooms;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, info};

use crate::config::{Config, Limits};
use crate::meter;
use crate::reply::Closing;
use crate::session::Session;
use daemon::clients::Clients;

/// Why a front-end cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A certificate or key cannot be used.
    #[error(transparent)]
    Certificate(#[from] IdentityError),
    /// The setting makes no address; the check of the settings says the same earlier.
    #[error("postmaster: not an address; write it like postmaster@example.test")]
    Postmaster,
}

/// What all sessions share.
pub(crate) struct Shared {
    pub(crate) hostname: String,
    pub(crate) postmaster: Address,
    pub(crate) directory: DirectoryClient,
    pub(crate) backends: Backends,
    pub(crate) rooms: Rooms,
    /// Volumes that take no mail now.
    pub(crate) away: AwayVolumes,
    pub(crate) tls: Option<PublicTls>,
    balancers: Balancers,
    pub(crate) limits: Limits,
}

impl Shared {
    /// The set-up of the core for one connection.
    pub(crate) fn core_config(&self, stream: &UserStream) -> smtp::Config {
        smtp::Config {
            size_max_bytes: self.limits.message_size_max_bytes,
            recipients_max: self.limits.recipients_max,
            text_line_max_bytes: self.limits.text_line_max_bytes,
            starttls: self.tls.is_some(),
            implicit_tls: stream.is_tls(),
            soft_error_limit: self.limits.soft_error_limit,
            hard_error_limit: self.limits.hard_error_limit,
            junk_limit: self.limits.junk_command_limit,
            ..smtp::Config::new(Mode::Smtp, self.hostname.clone())
        }
    }
}

/// A front-end that listens already and serves nobody yet.
pub struct Frontend {
    shared: Arc<Shared>,
    smtp: TcpListener,
    observability: TcpListener,
    directory_address: String,
}

impl Frontend {
    /// Reads the certificates and listens. Nothing is connected yet: the directory may start later.
    ///
    /// # Errors
    /// [`RunError`] names the address or the file.
    pub fn bind(config: Config) -> Result<Self, RunError> {
        let postmaster = config.postmaster_address().ok_or(RunError::Postmaster)?;
        let identity = Arc::new(Identity::load(&config.identity)?);
        let tls = config.tls.load()?;
        let options = ClientOptions {
            stale_max: config.limits.directory_stale_max(),
            ..ClientOptions::default()
        };
        let directory = DirectoryClient::new(&config.directory, &identity, &options);
        let backends = Backends::new(identity, directory.clone());
        Ok(Self {
            smtp: listener::bind_for_clients(config.listen, "mx smtp", config.limits.keepalive())?,
            observability: listener::bind(config.metrics_listen, "mx metrics")?,
            directory_address: config.directory,
            shared: Arc::new(Shared {
                hostname: config.hostname,
                postmaster,
                directory,
                backends,
                rooms: Rooms::default(),
                away: AwayVolumes::default(),
                tls,
                balancers: config.balancers,
                limits: config.limits,
            }),
        })
    }

    /// Where SMTP is listened for: the port that was taken when port 0 was asked for.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn smtp_address(&self) -> std::io::Result<SocketAddr> {
        self.smtp.local_addr()
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
            smtp,
            observability,
            directory_address,
        } = self;
        meter::describe();
        let health = Health::new("mx-frontend");
        shutdown.spawn(health::serve_observability(
            observability,
            health.clone(),
            shutdown.clone(),
        ));
        if let Some(tls) = &shared.tls {
            tls.follow(&shutdown);
        }
        shared.directory.follow(&shutdown);
        shutdown.spawn(watch(
            shared.directory.clone(),
            directory_address,
            health,
            shutdown.clone(),
        ));

        let limits = &shared.limits;
        let clients = Clients::new(
            limits.client_connections_max,
            limits.client_limit_on_loopback,
        );
        let connections_max = limits.connections_max;
        let sessions = shutdown.clone();
        accept_each_or(
            smtp,
            connections_max,
            shutdown,
            move |socket, client| {
                let (shared, clients, sessions) =
                    (Arc::clone(&shared), clients.clone(), sessions.clone());
                async move { converse(&shared, &clients, socket, client, &sessions).await }
            },
            |socket, _| refuse(socket),
        )
        .await;
    }
}

async fn converse(
    shared: &Shared,
    clients: &Clients,
    mut socket: TcpStream,
    peer: SocketAddr,
    shutdown: &Shutdown,
) {
    // First of all: whose connection it is decides what it may.
    let client = match shared.balancers.client(&mut socket, peer).await {
        Ok(client) => client,
        Err(fault) => {
            meter::refused("connection", fault.code());
            let cause = daemon::log::causes(&fault);
            return info!(%peer, reason = fault.code(), cause, "connection of a balancer refused");
        }
    };
    let Some(_counted) = clients.admit(client.ip()) else {
        return refuse(socket).await;
    };
    let open = meter::connection();
    open.increment(1);
    let stream = UserStream::plain(socket);
    let session = Session::new(shared, &stream, client);
    let end = Box::pin(session.run(stream, shutdown)).await;
    open.decrement(1);
    meter::connection_ended(end.code());
    debug!(%client, end = end.code(), "connection ended");
}

/// Says why and closes; a client that does not read is not waited for.
async fn refuse(mut socket: TcpStream) {
    meter::refused("connection", Closing::TooManyConnections.code());
    let mut words = Vec::new();
    Closing::TooManyConnections.reply().write_to(&mut words);
    // The send buffer of a new socket takes one line at once.
    _ = tokio::time::timeout(REFUSAL_TIMEOUT, socket.write_all(&words)).await;
}

/// Tells in health whether the directory answers. What it said before is used meanwhile.
async fn watch(directory: DirectoryClient, address: String, health: Health, shutdown: Shutdown) {
    let what = format!("directory at {address}");
    loop {
        let last = ChangeNumber(u64::MAX);
        let pause = match directory.changes(last, 0, Duration::ZERO).await {
            Ok(_) => {
                health.set_ready();
                WATCH_INTERVAL
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

/// How often a directory that answers is asked whether it still does.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);
/// How soon one that does not is asked again.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs a front-end until the shutdown begins.
///
/// # Errors
/// [`RunError`]: it could not begin. Once it serves, nothing ends it but the shutdown.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), RunError> {
    let frontend = Frontend::bind(config)?;
    if let Ok(address) = frontend.smtp_address() {
        info!(%address, "listening for SMTP");
    }
    frontend.serve(shutdown).await;
    Ok(())
}
