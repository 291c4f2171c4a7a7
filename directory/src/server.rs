//! Starts the directory, serves, and ends in order.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use daemon::health::{Health, serve_observability};
use daemon::identity::{Identity, IdentityError, Role};
use daemon::link::serve;
use daemon::listener::{BindError, bind};
use daemon::shutdown::Shutdown;
use tokio::net::TcpListener;
use tracing::info;

use crate::Config;
use crate::api::{App, describe_metrics, router};
use crate::engine::{Engine, Postgres, PostgresError};
use crate::folder::{DerivedKeys, Folder, FolderError};
use crate::keys::{KeepError, Keys, STEP};
use crate::last_use::Uses;
use crate::ldap::{Ldap, LdapSetupError};
use crate::login::TicketTerms;
use crate::oauth::{Issuer, KeysError};
use crate::password::Passwords;
use crate::refusals::Memory;
use crate::sasl::{External, Sasl, ScramKeys};
use crate::survey::survey;
use crate::upgrade::Upgrades;

/// Why the directory could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its certificate cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Its certificate is another tier's.
    #[error("the certificate in [identity] is for {role}, not for the directory: issue one for it")]
    WrongRole {
        /// The role in the certificate.
        role: Role,
    },
    /// Its data folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The PostgreSQL database cannot be used.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// Its keys cannot be used.
    #[error(transparent)]
    SharedKeys(#[from] KeepError),
    /// The keys of the issuer of tokens cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// LDAP cannot be used.
    #[error(transparent)]
    Ldap(#[from] LdapSetupError),
    /// A port cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// No randomness, or no thread to open the folder on.
    #[error("cannot prepare: {0}")]
    Prepare(&'static str),
}

/// Requests under way get so long to end. Logins are the longest.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Serves until the shutdown is requested. When it returns, the database is closed.
///
/// # Errors
/// [`RunError`]: it could not start.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), RunError> {
    let identity = Identity::load(&config.identity)?;
    let role = identity.peer().role;
    if role != Role::Directory {
        return Err(RunError::WrongRole { role });
    }
    describe_metrics();
    let open = Open {
        observed: bind(config.metrics_listen, "directory metrics")?,
        listener: bind(config.listen, "directory")?,
        identity,
        config,
        shutdown,
    };
    match &open.config.postgres.url {
        None => on_folder(open).await,
        Some(_) => on_postgres(open).await,
    }
}

/// What is open before the database is.
struct Open {
    config: Config,
    identity: Identity,
    observed: TcpListener,
    listener: TcpListener,
    shutdown: Shutdown,
}

async fn on_folder(open: Open) -> Result<(), RunError> {
    let data = open.config.data.clone();
    let opened = tokio::task::spawn_blocking(move || Folder::open(&data)).await;
    let Folder {
        engine,
        keys,
        derived,
        lock,
    } = opened.map_err(|_| RunError::Prepare("no thread"))??;
    info!(data = %open.config.data.display(), "the database is LMDB");
    let served = serve_on(engine.clone(), keys, &derived, open).await;
    let _ = tokio::task::spawn_blocking(move || {
        engine.close();
        drop(lock);
    })
    .await;
    served
}

async fn on_postgres(open: Open) -> Result<(), RunError> {
    let engine = Postgres::open(open.config.postgres.clone()).await?;
    let keys = Keys::shared(engine.clone(), STEP).await?;
    let derived = DerivedKeys::shared(&engine)
        .await
        .map_err(KeepError::from)?;
    info!("the database is PostgreSQL");
    let served = serve_on(engine.clone(), keys, &derived, open).await;
    engine.close();
    served
}

async fn serve_on<E: Engine + Clone>(
    engine: E,
    keys: Keys,
    derived: &DerivedKeys,
    open: Open,
) -> Result<(), RunError> {
    let Open {
        config,
        identity,
        observed,
        listener,
        shutdown,
    } = open;
    let health = Health::new("directory");
    let kept = Duration::from_secs(config.verified_passwords_kept_s);
    let threads = config.password_threads;
    let (oauth, ldap) = (config.oauth.clone(), config.ldap.clone());
    let external = External::open(config.external.clone())?;
    let (passwords, issuer, ldap) = tokio::task::spawn_blocking(move || {
        let ldap = Ldap::open(ldap)?;
        let issuer = Issuer::open(oauth)?;
        let passwords =
            Passwords::new(threads, kept).map_err(|_| RunError::Prepare("no randomness"))?;
        Ok::<_, RunError>((passwords, issuer, ldap))
    })
    .await
    .map_err(|_| RunError::Prepare("no thread"))??;
    let scram = NonZeroU32::new(config.scram_iterations)
        .map(|iterations| ScramKeys::new(derived.key("scram salts"), iterations));
    let (ldap, looks) = ldap.unzip();
    let passwords = passwords
        .with_scram(scram.clone())
        .with_ldap(ldap.as_ref().map(Ldap::binds));
    let tickets = TicketTerms {
        life_ms: i64::from(config.ticket_life_h) * 3_600_000,
    };

    // A child, so that the database is closed when our own requests have ended, whoever else runs
    // in this process.
    let ours = shutdown.child();
    let observability = ours.spawn(serve_observability(observed, health.clone(), ours.clone()));
    passwords.look_begins(true);
    let (upgrades, asked) = Upgrades::new();
    let app = Arc::new(App {
        engine: engine.clone(),
        passwords,
        upgrades: config.upgrade_passwords.then_some(upgrades),
        uses: Uses::default(),
        refusals: Memory::new(),
        sasl: Sasl::new(derived.key("sasl states"), scram, issuer, external, tickets),
        keys,
        ldap,
        tickets,
        shutdown: ours.clone(),
    });
    let (behind, ended) = (Arc::clone(&app), ours.clone());
    ours.spawn(async move {
        tokio::select! {
            () = ended.requested() => {}
            () = survey(&behind.engine, &behind.passwords) => {}
        }
    });
    let (behind, ended) = (Arc::clone(&app), ours.clone());
    ours.spawn(async move {
        tokio::select! {
            () = ended.requested() => {}
            () = asked.perform(&behind.engine, &behind.passwords) => {}
        }
    });
    let (behind, ended) = (Arc::clone(&app), ours.clone());
    ours.spawn(async move {
        tokio::select! {
            () = ended.requested() => {}
            () = behind.uses.keep_for_ever(&behind.engine) => {}
        }
    });
    if let Some(looks) = looks {
        let (behind, ended) = (Arc::clone(&app), ours.clone());
        ours.spawn(async move {
            tokio::select! {
                () = ended.requested() => {}
                () = looks.go_on_for_ever(&behind.engine) => {}
            }
        });
    }
    let (behind, ended) = (Arc::clone(&app), ours.clone());
    ours.spawn(async move {
        tokio::select! {
            () = ended.requested() => {}
            () = behind.keys.go_on_for_ever() => {}
        }
    });
    info!(listen = %config.listen, "directory serves");
    health.set_ready();
    let behind = Arc::clone(&app);
    serve(listener, Arc::new(identity), router(app), ours.clone()).await;
    ours.begin();
    let _ = observability.await;
    ours.drained(DRAIN_MAX).await;
    behind.uses.keep(&behind.engine).await;
    info!("directory has ended");
    Ok(())
}
