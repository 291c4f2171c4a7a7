//! `posthouse up`: the whole system on this machine, from an empty folder to a running one and back.
//!
//! ```text
//! data folder locked ─▶ ports tried ─▶ certificates, settings files ─▶ tiers started ─▶ all ready
//!   ─▶ domain and accounts in the directory ─▶ endpoints files ─▶ (signal) ─▶ drained in order
//! ```

mod accounts;
mod children;
mod deployment;
mod tiers;
mod welcome;

use daemon::output::print_line;
use std::convert::Infallible;
use std::error::Error as StdError;
use std::fs;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use daemon::config::ConfigError;
use daemon::identity::{Identity, IdentityError, Role};
use daemon::log::LogSettings;
use daemon::shutdown::{Hangup, Shutdown};
use directory_api::operator::{DATA_DEFAULT, ENDPOINTS_FILE, identity_files};
use directory_api::{ClientOptions, DirectoryClient, DirectoryError};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::warn;

use crate::data::{DataError, DataFolder};
use crate::endpoints::Endpoints;
use crate::health::{self, Condition};
use crate::nodes::Node;
use crate::ports::{BASE_DEFAULT, Port, PortError, Ports};
pub(crate) use children::end_with;
use deployment::Deployment;
use tiers::{Pids, Tiers};

/// Options of `posthouse up`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Folder of all state; made when it is missing
    #[arg(long, value_name = "DIR", default_value = DATA_DEFAULT)]
    data: PathBuf,
    /// First port of the block that everything listens in, on loopback
    #[arg(long, value_name = "PORT", default_value_t = BASE_DEFAULT)]
    port_base: u16,
    /// Run each tier as a process of its own; one that dies is started again
    #[arg(long)]
    processes: bool,
    /// For load tests: make user00000@example.test, user00001@… with the password `pass`, and allow login without TLS
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    seed_accounts: Option<u32>,
    /// Also write where everything listens to this file (JSON), once everything does
    #[arg(long, value_name = "FILE")]
    endpoints: Option<PathBuf>,
}

/// Why the system could not be started, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// The data folder.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The ports.
    #[error(transparent)]
    Ports(#[from] PortError),
    /// Certificates.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A settings file just written does not read back; the environment can cause that.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The asynchronous runtime.
    #[error("cannot start: {0}; check the limits of open files and processes")]
    Runtime(std::io::Error),
    /// A child process could not be started.
    #[error("{node}: cannot start a process ({source}); check the limits of processes and memory")]
    Spawn {
        /// Which.
        node: Node,
        /// Why.
        source: std::io::Error,
    },
    /// A tier gave up while others depend on it.
    #[error("{node} ended: {}", daemon::log::causes(source.as_ref()))]
    Tier {
        /// Which.
        node: Node,
        /// Why, in its words.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A tier ended without being asked and without an error.
    #[error("{node} ended without being asked to; its last log lines say more")]
    Ended {
        /// Which.
        node: Node,
    },
    /// A child process gave up at its first start.
    #[error("{node} could not start ({status}); its own message stands above")]
    ChildEnded {
        /// Which.
        node: Node,
        /// How.
        status: ExitStatus,
    },
    /// The first accounts could not be made.
    #[error("cannot make the first accounts: {0}; see the directory's log lines")]
    Accounts(#[from] DirectoryError),
    /// The drain was cut.
    #[error("not everything drained within {} s ({left} still busy); nothing accepted is lost, their clients see a closed connection", DRAIN_MAX.as_secs())]
    DrainCut {
        /// Names of the nodes.
        left: String,
    },
}

/// Runs the system until it is told to end.
///
/// # Errors
/// [`UpError`]; each is one line with what to do.
pub fn run(options: &Options) -> Result<(), UpError> {
    let ports = Ports::new(options.port_base)?;
    let data = DataFolder::open(&options.data)?;
    ports.try_all()?;
    daemon::log::init(&LogSettings::default());
    daemon::tier::install_crypto();
    let deployment = Deployment::write(data.path(), ports, options.seed_accounts.is_some())?;
    // A death signal reaches a child when the thread that started it ends, and workers of a larger
    // runtime may: the supervisor of processes stays on this one thread.
    let mut builder = if options.processes {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = builder.enable_all().build().map_err(UpError::Runtime)?;
    let result = runtime.block_on(Box::pin(serve(options, &data, ports, deployment)));
    runtime.shutdown_timeout(Duration::from_secs(5));
    result
}

async fn serve(
    options: &Options,
    data: &DataFolder,
    ports: Ports,
    deployment: Deployment,
) -> Result<(), UpError> {
    let files = EndpointsFiles::new(options, data);
    // Whoever waits for these files must not find those of an earlier run.
    files.remove();
    let stop = Shutdown::new();
    tokio::spawn(stop.clone().on_signals(Hangup::Ends));
    print_line(format_args!(
        "posthouse: starting, state in {}",
        data.path().display()
    ));
    let mut tiers = if options.processes {
        Tiers::processes(&deployment)
    } else {
        Tiers::tasks(deployment)
    };

    let pids = tiers.pids();
    let started = tiers.started();
    let outcome = tokio::select! {
        outcome = open(options, data, ports, &pids, &files) => outcome,
        ended = tiers.ended() => Err(ended),
        () = stop.requested() => Ok(()),
    };
    let outcome = match outcome {
        Ok(()) => {
            started.store(true, Ordering::Relaxed);
            tokio::select! {
                ended = tiers.ended() => Err(ended),
                never = follow_processes(data, ports, pids, &files) => match never {},
                () = stop.requested() => Ok(()),
            }
        }
        failed => failed,
    };
    print_line(format_args!(
        "posthouse: draining: no new sessions, those that run may finish, at most {} s",
        DRAIN_MAX.as_secs()
    ));
    let drained = tiers.drain(DRAIN_MAX).await;
    files.remove();
    outcome?;
    drained.map_err(|left| UpError::DrainCut { left })?;
    print_line("posthouse: done");
    Ok(())
}

/// Waits for every tier, fills the directory, and says so.
async fn open(
    options: &Options,
    data: &DataFolder,
    ports: Ports,
    pids: &watch::Receiver<Pids>,
    files: &EndpointsFiles,
) -> Result<(), UpError> {
    all_ready(ports).await;
    let identity = Identity::load(&identity_files(data.path(), Role::Operator.as_str()))?;
    let address = ports.of(Port::Directory).to_string();
    let directory = DirectoryClient::new(&address, &identity, &ClientOptions::default());
    let demo = accounts::demo(&directory, data.path()).await?;
    if let Some(count) = options.seed_accounts {
        accounts::seed(&directory, count).await?;
        warn!(
            count,
            "accounts with a known password, login without TLS and LMTP are open on loopback: for tests only"
        );
    }
    files.write(&Endpoints::new(data.path(), ports, &pids.borrow()))?;
    print!(
        "{}",
        welcome::text(data.path(), ports, &demo, options.seed_accounts)
    );
    Ok(())
}

/// Asks every tier until all serve; says from time to time who waits for what.
async fn all_ready(ports: Ports) {
    let begun = Instant::now();
    let mut said = Duration::ZERO;
    for node in Node::ALL {
        loop {
            let condition = health::ask(ports.of(Port::Metrics(node))).await;
            if condition == Condition::Ready {
                break;
            }
            if begun.elapsed() >= said + WAITING_SAID_EVERY {
                said = begun.elapsed();
                match condition {
                    Condition::Waiting(what) => {
                        print_line(format_args!(
                            "posthouse: {node} waits for {}",
                            what.join(", ")
                        ));
                    }
                    _ => print_line(format_args!("posthouse: {node} does not answer yet")),
                }
            }
            sleep(HEALTH_INTERVAL).await;
        }
    }
}

/// Writes the endpoints again whenever a process was replaced. Never ends.
async fn follow_processes(
    data: &DataFolder,
    ports: Ports,
    mut pids: watch::Receiver<Pids>,
    files: &EndpointsFiles,
) -> Infallible {
    // Whoever was replaced since the file was written counts as a change.
    pids.mark_changed();
    while pids.changed().await.is_ok() {
        let endpoints = Endpoints::new(data.path(), ports, &pids.borrow_and_update());
        if let Err(error) = files.write(&endpoints) {
            warn!(cause = %error, "cannot write the endpoints again");
        }
    }
    std::future::pending().await
}

/// The endpoints file in the data folder, and the one asked for.
struct EndpointsFiles(Vec<PathBuf>);

impl EndpointsFiles {
    fn new(options: &Options, data: &DataFolder) -> Self {
        Self(
            [data.path().join(ENDPOINTS_FILE)]
                .into_iter()
                .chain(options.endpoints.clone())
                .collect(),
        )
    }

    fn write(&self, endpoints: &Endpoints) -> Result<(), DataError> {
        self.0.iter().try_for_each(|path| endpoints.write(path))
    }

    fn remove(&self) {
        for path in &self.0 {
            _ = fs::remove_file(path);
        }
    }
}

/// Sessions get this long to end; mail that was accepted is safe at any moment (P1).
const DRAIN_MAX: Duration = Duration::from_secs(10);
const HEALTH_INTERVAL: Duration = Duration::from_millis(25);
const WAITING_SAID_EVERY: Duration = Duration::from_secs(3);
