//! The engine for more than one machine: PostgreSQL, and any number of directory servers on it.
//!
//! Each table has a key and a value, both octets, as LMDB has them; an operator reads the views `shown_…`. A reader has a
//! snapshot. Writers hold the lock of one row from their first statement to the commit, so that they come one after
//! the other whichever server they write through: a compare-and-set compares what nobody changes until it has set,
//! and changes are numbered without gaps in the order in which readers see them. That is also the bound: some
//! hundred writes a second, which are few beside look-ups and logins.
//!
//! A connection that breaks is an error of storage: temporary, and never "unknown" (P6). If it breaks at the commit, the write may
//! have been kept; whoever repeats it finds it so.

mod connector;
mod feed;
mod keys;
mod schema;
mod session;
mod settings;

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::{
    Hook, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime,
};
use directory_api::ChangeNumber;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_postgres::Config;
use tokio_postgres::error::Severity;

use super::rules::{How, View, Write};
use super::{Answer, Database, EngineError, on_blocking_thread};
use connector::Connector;
use feed::{Following, follow};
pub(crate) use keys::NamedKey;
use session::{Session, Writing};
pub use settings::PostgresSettings;

/// Why a database cannot be used, or not now.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// The settings have none.
    #[error("the url of [postgres] is none of a PostgreSQL database")]
    Url,
    /// A file of the settings.
    #[error("{}: the file cannot be read", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// It was made by a newer program.
    #[error(
        "the database has schema {found}, this program knows {} and older: use the version that made it",
        schema::SCHEMA
    )]
    Newer {
        /// Its schema.
        found: i32,
    },
    /// It is older, or not as this program made it.
    #[error(
        "the database's schema_version is not the one row that this program knows: has somebody else written it?"
    )]
    Strange,
    /// It would lose what it said it keeps.
    #[error("the database has {0} = {1} and could lose what was acknowledged: set it to on")]
    Forgetful(&'static str, String),
    /// No connection to it.
    #[error("connect to the database")]
    Connect(#[source] Box<dyn Error + Send + Sync>),
    /// No connection was free in time.
    #[error(
        "all connections to the database are in use: raise connections_max, if it has room for more"
    )]
    Busy,
    /// Those before it, here or on another server, took too long.
    #[error("the writes before this one took too long, it was not begun")]
    Queue,
    /// Nobody waits for the answer any more.
    #[error("whoever asked for the write has given up, it was not kept")]
    Abandoned,
    /// It refuses, or the connection broke.
    #[error("the database answers with an error")]
    Statement(#[from] tokio_postgres::Error),
    /// No answer in time.
    #[error("the database says nothing")]
    Silent,
    /// The connection broke at the commit.
    #[error("the database did not say whether the write was kept; it may be repeated")]
    Unknown(#[source] Box<Self>),
}

impl PostgresError {
    /// Whether nothing more can be asked over the connection; a mere refusal leaves it as it was.
    fn ends_connection(&self) -> bool {
        match self {
            Self::Newer { .. } | Self::Strange | Self::Abandoned => false,
            Self::Statement(error) => error
                .as_db_error()
                .is_none_or(|told| told.parsed_severity() != Some(Severity::Error)),
            _ => true,
        }
    }
}

impl From<PostgresError> for EngineError {
    fn from(error: PostgresError) -> Self {
        Self::Storage(Box::new(error))
    }
}

/// The directory in a PostgreSQL database. Clones share its connections.
#[derive(Clone)]
pub struct Postgres {
    pool: Pool,
    /// Who writes waits for one before it takes a connection: however many wait for the row's lock, look-ups and
    /// logins find connections.
    turns: Arc<Semaphore>,
    wake: Arc<watch::Sender<ChangeNumber>>,
    _following: Arc<Following>,
}

impl Postgres {
    /// Connects, and brings the schema to ours, for which it may wait long: for another server that does, and for
    /// large tables.
    ///
    /// # Errors
    /// [`PostgresError`]; the schema is ours or an older one, whole, and what is in the database is as it was.
    pub async fn open(settings: PostgresSettings) -> Result<Self, PostgresError> {
        let connections_max = settings.connections_max;
        let turns = TURNS.min(connections_max.saturating_sub(1)).max(1);
        let prepared = tokio::task::spawn_blocking(move || settings::prepare(&settings));
        let (hosts, tls) = prepared
            .await
            .map_err(|panicked| PostgresError::Connect(Box::new(panicked)))??;
        let connector = Connector::new(hosts, tls);
        connector.prepare().await?;
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        // The connector knows where to.
        let manager = Manager::from_connect(Config::new(), connector.clone(), recycling);
        let pool = Pool::builder(manager)
            .post_create(Hook::async_fn(|client, _| {
                Box::pin(connector::admit(client))
            }))
            .max_size(connections_max)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(WAIT_MAX))
            .create_timeout(Some(WAIT_MAX))
            .recycle_timeout(Some(WAIT_MAX))
            .build()
            .map_err(|error| PostgresError::Connect(Box::new(error)))?;
        let wake = Arc::new(watch::Sender::new(ChangeNumber(0)));
        let following = follow(connector, pool.clone(), Arc::clone(&wake));
        let engine = Self {
            pool,
            turns: Arc::new(Semaphore::new(turns)),
            wake,
            _following: Arc::new(following),
        };
        match engine.read(|view| view.last_change()).await {
            Ok(last) => engine.wake_up(last),
            Err(error) => return Err(PostgresError::Connect(Box::new(error))),
        }
        Ok(engine)
    }

    /// How many connections of directory servers the database has.
    pub(crate) async fn servers(settings: PostgresSettings) -> Result<i64, PostgresError> {
        let prepared = tokio::task::spawn_blocking(move || settings::prepare(&settings));
        let (hosts, tls) = prepared
            .await
            .map_err(|panicked| PostgresError::Connect(Box::new(panicked)))??;
        Connector::new(hosts, tls).servers().await
    }

    /// Begins no more requests; each connection ends once nobody uses it. Does not wait for them.
    pub fn close(&self) {
        self.pool.close();
    }

    async fn connection(&self) -> Answer<Object> {
        let began = Instant::now();
        let connection = self.pool.get().await;
        metrics::histogram!(WAIT).record(began.elapsed());
        let connection = connection.map_err(|error| match error {
            PoolError::Backend(error) => PostgresError::Connect(Box::new(error)),
            PoolError::Timeout(deadpool_postgres::TimeoutType::Wait) => PostgresError::Busy,
            error => PostgresError::Connect(Box::new(error)),
        });
        Ok(connection?)
    }
}

impl Database for Postgres {
    async fn read<R: Send + 'static>(
        &self,
        work: impl FnOnce(View<'_>) -> Answer<R> + Send + 'static,
    ) -> Answer<R> {
        let (connection, runtime) = (self.connection().await?, Handle::current());
        on_blocking_thread(move || work(View::of(&Session::reading(connection, runtime)))).await
    }

    async fn write<R: Send + 'static>(
        &self,
        how: How,
        work: impl FnOnce(&mut Write<'_>) -> Answer<R> + Send + 'static,
    ) -> Answer<R> {
        let How {
            now_ms,
            on_trial,
            is_large,
        } = how;
        let turn_max = if is_large { LARGE_TURN_MAX } else { TURN_MAX };
        let turn = timeout(turn_max, async {
            let turn = Arc::clone(&self.turns).acquire_owned().await;
            let turn = turn.expect("the semaphore is never closed");
            Answer::Ok((turn, self.connection().await?))
        });
        let (turn, connection) = turn.await.map_err(|_| PostgresError::Queue)??;
        let (engine, runtime) = (self.clone(), Handle::current());
        // Dropped with this future, when whoever asks gives up.
        let caller = Arc::new(());
        let asked = Arc::downgrade(&caller);
        let written = on_blocking_thread(move || {
            let _turn = turn;
            let mut writing = Writing::begin(connection, runtime, asked, is_large)?;
            let (reply, last) = Write::perform(&mut writing, now_ms, on_trial, work)?;
            if !on_trial {
                writing.commit()?;
                engine.wake_up(last);
            }
            Ok(reply)
        });
        let written = written.await;
        drop(caller);
        written
    }

    fn wake(&self) -> &watch::Sender<ChangeNumber> {
        &self.wake
    }
}

fn describe() {
    metrics::describe_gauge!(feed::UP, "Whether the PostgreSQL database answers.");
    metrics::describe_gauge!(feed::IN_USE, "Connections to the database at work.");
    metrics::describe_gauge!(
        feed::WAITING,
        "Requests that wait for a connection to the database."
    );
    metrics::describe_histogram!(
        WAIT,
        "Time that requests waited for a connection to the database."
    );
}

const WAIT: &str = "posthouse_directory_database_wait_seconds";

/// What each writer begins with: it waits for those before it.
const WRITERS: &str = "SELECT version FROM schema_version FOR UPDATE";
/// Where servers tell each other of changes.
const CHANNEL: &str = "posthouse_changes";
/// Writers of one server that wait for the lock at once: one at work, and one that has asked for it already.
const TURNS: usize = 2;
/// How long a write waits for its turn and a connection: less than the 2 s after which most callers give up. So long
/// it then waits for the lock (`settings::OPTIONS`).
const TURN_MAX: Duration = Duration::from_millis(1_500);
/// The same of a large write, such as an import, whose caller waits 30 s: one behind another.
const LARGE_TURN_MAX: Duration = Duration::from_secs(10);
/// How long a request waits for a connection.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// How long one statement is waited for: more than the server gives it.
const ANSWER_MAX: Duration = Duration::from_secs(20);
