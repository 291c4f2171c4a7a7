//! Makes connections to the one of the hosts that can be written to.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use daemon::log::causes;
use deadpool_postgres::{Connect, HookError};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, Connection, Error, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{ANSWER_MAX, PostgresError, WAIT_MAX, schema};

/// Clones share what they know of the hosts.
#[derive(Clone)]
pub(super) struct Connector(Arc<Hosts>);

struct Hosts {
    each: Vec<Config>,
    tls: MakeRustlsConnect,
    /// The one that took the last connection.
    last: AtomicUsize,
}

type Connected = (
    Client,
    Connection<
        Socket,
        <<MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect as TlsConnect<Socket>>::Stream,
    >,
);

impl Connector {
    pub(super) fn new(each: Vec<Config>, tls: MakeRustlsConnect) -> Self {
        let last = AtomicUsize::new(0);
        Self(Arc::new(Hosts { each, tls, last }))
    }

    pub(super) async fn connect(&self) -> Result<Connected, PostgresError> {
        let hosts = Arc::clone(&self.0);
        // A task of its own: where nobody waits any more it still goes on to the host that answers, and the next one
        // begins there.
        match tokio::spawn(async move { hosts.connect().await }).await {
            Ok(Ok(connected)) => Ok(connected),
            Ok(Err(Some(error))) => Err(PostgresError::Connect(Box::new(error))),
            Ok(Err(None)) => Err(PostgresError::Silent),
            Err(panicked) => Err(PostgresError::Connect(Box::new(panicked))),
        }
    }

    /// How many connections like this one there are besides.
    pub(super) async fn servers(&self) -> Result<i64, PostgresError> {
        let (client, connection) = self.connect().await?;
        let driven = tokio::spawn(connection);
        let question = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
            AND application_name = current_setting('application_name') AND pid <> pg_backend_pid()";
        let answer = timeout(ANSWER_MAX, client.query_one(question, &[])).await;
        let count = answer.map_err(|_| PostgresError::Silent)??.try_get(0)?;
        drop(client);
        let _ = driven.await;
        Ok(count)
    }

    /// Looks whether what is acknowledged is kept, and makes the tables.
    pub(super) async fn prepare(&self) -> Result<(), PostgresError> {
        let (mut client, connection) = self.connect().await?;
        let driven = tokio::spawn(connection);
        check_durable(&client).await?;
        schema::migrate(&mut client).await?;
        drop(client);
        let _ = driven.await;
        Ok(())
    }
}

impl Hosts {
    /// `None`: all that were tried said nothing.
    async fn connect(&self) -> Result<Connected, Option<Error>> {
        let count = self.each.len();
        let limit = if count > 1 { HOST_MAX } else { WAIT_MAX };
        let last = self.last.load(Ordering::Relaxed);
        let mut refused = None;
        for number in (last..last + count).map(|number| number % count) {
            // The limit is of name, TCP, TLS and login together: a host may stop at each.
            match timeout(limit, self.each[number].connect(self.tls.clone())).await {
                Ok(Ok(connected)) => {
                    self.last.store(number, Ordering::Relaxed);
                    return Ok(connected);
                }
                Ok(Err(error)) => refused = Some(error),
                Err(_) => {}
            }
        }
        Err(refused)
    }
}

type Connecting<'a> =
    Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + 'a>>;

/// For the pool.
impl Connect for Connector {
    fn connect(&self, _: &Config) -> Connecting<'_> {
        let hosts = Arc::clone(&self.0);
        Box::pin(async move {
            match tokio::spawn(async move { hosts.connect().await }).await {
                Ok(Ok((client, connection))) => {
                    let driven = tokio::spawn(async move {
                        // Who uses the client is told.
                        let _ = connection.await;
                    });
                    Ok((client, driven))
                }
                Ok(Err(Some(error))) => Err(error),
                // There is no such error of the library's: the pool's own limit says it.
                _ => pending().await,
            }
        })
    }
}

/// What is new in the pool may be of another host than what was looked at before.
pub(super) async fn admit(client: &Client) -> Result<(), HookError> {
    let durable = check_durable(client).await;
    durable.map_err(|error| HookError::message(causes(&error)))
}

async fn check_durable(client: &Client) -> Result<(), PostgresError> {
    let question = "SELECT current_setting('fsync'), current_setting('full_page_writes'), \
        current_setting('synchronous_commit')";
    let answer = timeout(ANSWER_MAX, client.query_one(question, &[])).await;
    let row = answer.map_err(|_| PostgresError::Silent)??;
    for (at, setting) in SETTINGS.into_iter().enumerate() {
        let is: String = row.try_get(at)?;
        if is != "on" && is != "remote_apply" {
            return Err(PostgresError::Forgetful(setting, is));
        }
    }
    Ok(())
}

/// The last has values between on and off, under which a standby that takes over may lack what was acknowledged.
const SETTINGS: [&str; 3] = ["fsync", "full_page_writes", "synchronous_commit"];
/// Of several hosts: callers wait 2 s, and the second shall have taken the connection by then.
const HOST_MAX: Duration = Duration::from_secs(1);
