//! The process around the sessions: listener, links, health, drain.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use daemon::balancers::{Balancers, Network};
use daemon::clients::{Clients, Grouping};
use daemon::health::{self, Health};
use daemon::identity::{Identity, IdentityError};
use daemon::listener::{self, BindError, Slots};
use daemon::open_files;
use daemon::public_tls::PublicTls;
use daemon::shutdown::Shutdown;
use directory_api::wire::Verdict;
use directory_api::{Address as Key, ChangeNumber, ClientOptions, DirectoryClient};
use mail_proto::Address;
use store_api::Backends;
use store_api::away::AwayVolumes;
use store_api::room::Rooms;
use tokio::net::TcpListener;
use tracing::{debug, info};

use crate::answered::{self, Answers, Waiting};
use crate::checks::Checks;
use crate::config::{Config, Limits};
use crate::door::{self, Door};
use crate::holders::Holders;
use crate::meter;
use crate::rates::Rates;
use crate::stress::Stress;

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
    /// Where it is said which answers were read.
    pub(crate) answers: Answers,
    /// Who holds mail for homes that cannot be reached.
    pub(crate) holders: Holders,
    pub(crate) tls: Option<PublicTls>,
    pub(crate) balancers: Balancers,
    pub(crate) xclient_networks: Vec<Network>,
    pub(crate) limits: Limits,
    /// The connections of all listeners.
    pub(crate) slots: Slots,
    pub(crate) clients: Clients,
    pub(crate) grouping: Grouping,
    /// Which clients share a history.
    pub(crate) histories: Grouping,
    /// The connections of those.
    pub(crate) sites: Clients,
    pub(crate) rates: Rates,
    pub(crate) stress: Stress,
    pub(crate) checks: Checks,
}

impl Shared {
    /// Whether XCLIENT is believed from there: who may say it, and who is no client before it has.
    pub(crate) fn is_relay(&self, address: IpAddr) -> bool {
        let mut relays = self.xclient_networks.iter();
        relays.any(|one| one.holds(address))
    }
}

/// A front-end that listens already and serves nobody yet.
pub struct Frontend {
    shared: Arc<Shared>,
    doors: Vec<(Door, TcpListener)>,
    observability: TcpListener,
    directory_address: String,
    waiting: Waiting,
    health: Health,
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
        let listens = [
            (Door::Smtp, Some(config.listen)),
            (Door::Smtps, config.smtps_listen),
            (Door::Stressed, config.stressed_listen),
        ];
        let mut doors = Vec::new();
        for (door, address) in listens {
            if let Some(address) = address {
                let keepalive = config.limits.keepalive();
                let socket = listener::bind_for_clients(address, door.what(), keepalive)?;
                doors.push((door, socket));
            }
        }
        let health = Health::new("mx-frontend");
        let limits = config.limits;
        let slots = Slots::new(limits.connections_max);
        let grouping = limits.grouping();
        let histories = Grouping {
            ipv6_bits: grouping.ipv6_bits.min(SITE_IPV6_BITS),
            ..grouping.clone()
        };
        let calm = limits.manner();
        let (answers, waiting) = answered::queue();
        Ok(Self {
            doors,
            waiting,
            observability: listener::bind(config.metrics_listen, "mx metrics")?,
            directory_address: config.directory,
            shared: Arc::new(Shared {
                checks: Checks::new(config.checks, config.hostname.clone()),
                hostname: config.hostname,
                postmaster,
                directory,
                backends,
                rooms: Rooms::default(),
                away: AwayVolumes::default(),
                answers,
                holders: Holders::default(),
                tls,
                balancers: config.balancers,
                xclient_networks: config.xclient_networks,
                clients: Clients::new(limits.client_connections_max, grouping.clone()),
                grouping,
                sites: Clients::new(usize::MAX, histories.clone()),
                histories,
                rates: Rates::new(&config.rates),
                stress: Stress::new(&config.stress, calm, slots.clone(), health.clone()),
                slots,
                limits,
            }),
            health,
        })
    }

    /// Where the listener of this setting (`listen`, `smtps_listen`, `stressed_listen`) listens: the port that was taken when
    /// port 0 was asked for.
    #[must_use]
    pub fn address(&self, setting: &str) -> Option<SocketAddr> {
        let mut doors = self.doors.iter();
        let (_, socket) = doors.find(|(door, _)| door.setting() == setting)?;
        socket.local_addr().ok()
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
            observability,
            directory_address,
            waiting,
            health,
        } = self;
        meter::describe();
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
            Arc::clone(&shared),
            directory_address,
            health,
            shutdown.clone(),
        ));

        shutdown.spawn(waiting.tell(shared.backends.clone()));
        let upkeep = (Arc::clone(&shared), shutdown.clone());
        shutdown.spawn(async move { upkeep.0.rates.upkeep(&upkeep.1).await });
        let watched = (Arc::clone(&shared), shutdown.clone());
        shutdown.spawn(async move { watched.0.stress.watch(&watched.1).await });
        for (door, socket) in doors {
            shutdown.spawn(door::attend(
                Arc::clone(&shared),
                door,
                socket,
                shutdown.clone(),
            ));
        }
        shutdown.requested().await;
    }
}

/// Tells in health whether the directory answers, and asks it who may hold mail. What it said before is used meanwhile.
async fn watch(shared: Arc<Shared>, address: String, health: Health, shutdown: Shutdown) {
    let what = format!("directory at {address}");
    loop {
        let last = ChangeNumber(u64::MAX);
        let pause = match shared.directory.changes(last, 0, Duration::ZERO).await {
            Ok(_) => {
                if let Err(error) = shared.holders.renew(&shared.directory).await {
                    debug!(%error, "directory does not tell which back-ends there are");
                }
                health.set_ready();
                see_postmaster(&shared, &health).await;
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

/// Tells in health when nobody reads the mail for postmaster: RFC 5321 §4.5.1 wants somebody to, and who writes there mostly
/// has no other way to say that something is wrong. It waits meanwhile, and a few days later bounces.
async fn see_postmaster(shared: &Shared, health: &Health) {
    let postmaster = &shared.postmaster;
    let text = match Key::new(postmaster.local(), postmaster.domain()) {
        Ok(key) => match shared.directory.lookup(&key).await {
            Ok(Verdict::Accounts(_)) => None,
            Ok(Verdict::External { .. }) => Some("leads to addresses that are not ours"),
            Ok(Verdict::UnknownAddress | Verdict::UnknownDomain) => Some("is nobody's"),
            // It may be as it was.
            Err(_) => return,
        },
        Err(_) => Some("is in no domain"),
    };
    let text = text.map(|why| {
        format!(
            "{postmaster} {why}, its mail and that of every postmaster@ without one is answered 451: \
             `posthouse address add {postmaster} LOGIN`, or name another address in `postmaster`"
        )
    });
    health.note("postmaster", text);
}

/// What a provider gives a site at least (RFC 6177 §2): its hosts, and who has taken one over, choose their /64 themselves.
const SITE_IPV6_BITS: u8 = 56;
/// How often a directory that answers is asked whether it still does.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);
/// How soon one that does not is asked again.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// Runs a front-end until the shutdown begins.
///
/// # Errors
/// [`RunError`]: it could not begin. Once it serves, nothing ends it but the shutdown.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), RunError> {
    open_files::expect(config.limits.connections_max);
    let frontend = Frontend::bind(config)?;
    for (door, socket) in &frontend.doors {
        if let Ok(address) = socket.local_addr() {
            info!(%address, what = door.what(), "listening");
        }
    }
    frontend.serve(shutdown).await;
    Ok(())
}
