//! Starts everything a back-end is made of, and stops it in the right order.

use std::sync::Arc;
use std::time::Duration;

use daemon::clock::now_ms;
use daemon::config::Settings as _;
use daemon::health::{Health, serve_observability};
use daemon::identity::{Identity, IdentityError};
use daemon::link;
use daemon::listener::{BindError, bind};
use daemon::shutdown::Shutdown;
use directory_api::client::{ClientOptions, DirectoryClient, KeptLogins};
use directory_api::grant::GrantVerifier;
use directory_api::{BackendName, NameError, VolumeName};
use durable::{Disk, RealDisk};
use store_api::Backends;
use store_api::room::Rooms;
use tokio::sync::{Mutex, Semaphore};
use tracing::{info, warn};

use crate::backend::Backend;
use crate::conditions::Conditions;
use crate::config::{Config, VolumeFolder};
use crate::hold::{self, Holds};
use crate::imap::SORTING_MAX_MIB;
use crate::left::Askers;
use crate::link::router;
use crate::listen::Bound;
use crate::login_delay::LoginDelays;
use crate::metrics;
use crate::mounting::{self, MountError, Opening};
use crate::sessions::Sessions;
use crate::transfer::{Pulls, Tallies};
use crate::volume::VolumeConfig;
use crate::volumes::Volumes;

/// Why a back-end did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A setting has a value that cannot be used.
    #[error("setting {key}: {problem}; {remedy}")]
    Setting {
        /// The dotted name.
        key: String,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// A name in the settings is not one.
    #[error("a name in the settings cannot be used")]
    Name(#[from] NameError),
    /// Certificates or keys cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The certificate is another back-end's.
    #[error(
        "the certificate of `identity` is that of {certificate}, but `name` is {name}; correct one of them"
    )]
    ForeignIdentity {
        /// Who the certificate says we are.
        certificate: String,
        /// Who the settings say we are.
        name: BackendName,
    },
    /// A port cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// No volume can be used; they are untouched.
    #[error(transparent)]
    Volume(#[from] MountError),
}

/// How long a drain waits before the volumes are closed under what still runs.
const DRAIN_WITHIN: Duration = Duration::from_secs(20);

/// Runs one back-end until the shutdown begins, then drains it and closes its volumes.
///
/// # Errors
/// [`RunError`]: it did not start, and nothing was changed.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), RunError> {
    run_on(Arc::new(RealDisk), config, shutdown).await
}

/// The same with files on `disk`, the index apart: for tests with a disk that fails.
///
/// # Errors
/// As [`run`].
pub async fn run_on(
    disk: Arc<dyn Disk>,
    config: Config,
    shutdown: Shutdown,
) -> Result<(), RunError> {
    // Its own, so that only what was started here is drained here, and ended when the start fails.
    let shutdown = shutdown.child();
    let ended = serve(disk, config, shutdown.clone()).await;
    shutdown.begin();
    ended
}

async fn serve(disk: Arc<dyn Disk>, config: Config, shutdown: Shutdown) -> Result<(), RunError> {
    if let Some(problem) = config.problems().into_iter().next() {
        return Err(RunError::Setting {
            key: problem.key,
            problem: problem.problem.into_owned(),
            remedy: problem.remedy.into_owned(),
        });
    }
    let name = BackendName::new(config.name.as_str())?;
    let identity = Arc::new(Identity::load(&config.identity)?);
    if identity.peer().node != name.as_str() {
        return Err(RunError::ForeignIdentity {
            certificate: identity.peer().to_string(),
            name,
        });
    }
    let public_tls = config.tls.load()?;
    if let Some(tls) = &public_tls {
        tls.follow(&shutdown);
    }
    let link_listener = bind(config.link_listen, "store link")?;
    let metrics_listener = bind(config.metrics_listen, "store metrics")?;
    let bound = Bound::bind(&config)?;
    warn_about_plaintext(&config);

    metrics::describe();
    let health = Health::new(&format!("store-backend {name}"));
    shutdown.spawn(serve_observability(
        metrics_listener,
        health.clone(),
        shutdown.clone(),
    ));
    let openings = openings(&config, &name)?;
    let names = || openings.iter().map(|one| one.config.name.clone());
    let conditions = Arc::new(Conditions::new(health, &config.directory, names()));
    let options = ClientOptions {
        logins: Some(KeptLogins {
            home: name.clone(),
            time: Duration::from_secs(config.limits.login_kept_s),
        }),
        stale_max: Duration::from_secs(config.limits.directory_stale_max_s),
        ..ClientOptions::default()
    };
    let directory = DirectoryClient::new(&config.directory, &identity, &options);
    directory.follow(&shutdown);
    let backend = Arc::new(Backend {
        volumes: Volumes::new(name.clone(), directory.clone(), names()),
        backends: Backends::new(Arc::clone(&identity), directory.clone()),
        grants: GrantVerifier::new(now_ms()),
        rooms: Rooms::default(),
        holds: Holds::default(),
        login_delays: LoginDelays::default(),
        sessions: Sessions::new(shutdown.clone()),
        pulls: Pulls::default(),
        tallies: Tallies::default(),
        compressions: Arc::new(Semaphore::new(config.limits.compressed_sessions_max)),
        sorting: Arc::new(Semaphore::new(SORTING_MAX_MIB)),
        keys_asked: Mutex::default(),
        askers: Askers::default(),
        shutdown: shutdown.clone(),
        name,
        directory,
        public_tls,
        config,
    });
    mounting::open_all(&backend, &disk, openings, &conditions).await?;
    shutdown.spawn(link::serve(
        link_listener,
        identity,
        router(Arc::clone(&backend)),
        shutdown.clone(),
    ));
    bound.serve(&backend);
    shutdown.spawn(hold::run(Arc::clone(&backend)));
    let volumes: Vec<&str> = backend
        .volumes
        .mounted()
        .map(|one| one.name.as_str())
        .collect();
    info!(name = %backend.name, link = %backend.config.link_listen, ?volumes, "store back-end started");

    shutdown.requested().await;
    if !shutdown.drained(DRAIN_WITHIN).await {
        warn!(
            tasks = shutdown.tasks_running(),
            "closing the volumes under sessions that still run"
        );
    }
    mounting::close_all(&backend).await;
    Ok(())
}

/// How each volume of the settings is opened.
fn openings(config: &Config, backend: &BackendName) -> Result<Vec<Opening>, NameError> {
    let folders = config.volume_folders().into_iter();
    let openings = folders.map(|VolumeFolder { name, folder, anew }| {
        let name = VolumeName::new(name)?;
        let config = VolumeConfig {
            quota_warning_percent: config.limits.quota_warning_percent,
            expunge_grace: Duration::from_secs(config.limits.expunge_grace_s),
            free_min_bytes: config.limits.disk_free_min_bytes,
            free_min_percent: config.limits.disk_free_min_percent,
            scrub_bytes_per_s: config.keeping.scrub_bytes_per_s,
            load_half_life: Duration::from_secs(config.keeping.load_half_life_h * 3600),
            index_copy_interval: Duration::from_secs(config.keeping.index_copy_h * 3600),
            index_compact_above_bytes: config.keeping.index_compact_above_bytes,
            ..VolumeConfig::new(&folder, backend.clone(), name)
        };
        Ok(Opening { config, anew })
    });
    openings.collect()
}

fn warn_about_plaintext(config: &Config) {
    if config.listen.plaintext_login {
        warn!("users may log in without TLS from loopback");
    }
    if config
        .listen
        .lmtp
        .is_some_and(|address| !address.ip().is_loopback())
    {
        warn!("LMTP is open beyond loopback, and asks nobody who they are");
    }
}
