//! Learns of changes that other servers on the same database made.
//!
//! A notification only wakes, for it is lost while the connection is; what is told is read from the table, and that is
//! looked at every second anyway.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use daemon::log::causes;
use directory_api::ChangeNumber;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::{AsyncMessage, Client};
use tracing::{error, info};

use super::{ANSWER_MAX, CHANNEL, Connector, Pool, PostgresError, describe};
use crate::engine::rows::number;

/// Ends what it does when it is dropped.
pub(super) struct Following(JoinHandle<()>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Listens for ever, with a connection of its own.
pub(super) fn follow(
    connector: Connector,
    pool: Pool,
    wake: Arc<watch::Sender<ChangeNumber>>,
) -> Following {
    describe();
    Following(tokio::spawn(async move {
        let mut was_away = false;
        loop {
            let Err(error) = listen(&connector, &pool, &wake, &mut was_away).await;
            metrics::gauge!(UP).set(0.0);
            if !std::mem::replace(&mut was_away, true) {
                let cause = causes(&error);
                error!(
                    cause,
                    "the database is away: what needs it is answered temporarily until it is back"
                );
            }
            sleep(AGAIN).await;
        }
    }))
}

async fn listen(
    connector: &Connector,
    pool: &Pool,
    wake: &watch::Sender<ChangeNumber>,
    was_away: &mut bool,
) -> Result<std::convert::Infallible, PostgresError> {
    let (client, mut connection) = connector.connect().await?;
    let notified = Arc::new(Notify::new());
    let notify = Arc::clone(&notified);
    let _driven = Following(tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(_) = message {
                notify.notify_one();
            }
        }
        // Whoever waits shall notice at once.
        notify.notify_one();
    }));
    answered(client.batch_execute(&format!("LISTEN {CHANNEL}"))).await?;
    loop {
        look(&client, wake).await?;
        metrics::gauge!(UP).set(1.0);
        if std::mem::replace(was_away, false) {
            info!("the database is back");
        }
        let status = pool.status();
        metrics::gauge!(IN_USE).set((status.size - status.available.min(status.size)) as f64);
        metrics::gauge!(WAITING).set(status.waiting as f64);
        tokio::select! {
            () = notified.notified() => {}
            () = sleep(EVERY) => {}
        }
    }
}

async fn look(client: &Client, wake: &watch::Sender<ChangeNumber>) -> Result<(), PostgresError> {
    let newest = "SELECT key FROM changes ORDER BY key DESC LIMIT 1";
    let row = answered(client.query_opt(newest, &[])).await?;
    let key: Option<Vec<u8>> = row.map(|row| row.try_get(0)).transpose()?;
    let last = ChangeNumber(key.map_or(0, |key| number(&key)));
    // Also when it is less: a database that was brought back from a backup goes on from there, and who knows more
    // must forget it. One that looked while this server committed wakes once too often.
    wake.send_if_modified(|known| std::mem::replace(known, last) != last);
    Ok(())
}

async fn answered<T>(
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, PostgresError> {
    match timeout(ANSWER_MAX, work).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(PostgresError::Silent),
    }
}

/// Whether the database answers.
pub(super) const UP: &str = "posthouse_directory_database_up";
/// Connections at work.
pub(super) const IN_USE: &str = "posthouse_directory_database_connections_in_use";
/// Requests that wait for a connection.
pub(super) const WAITING: &str = "posthouse_directory_database_requests_waiting";

/// How late a change of another server is told when its notification was lost.
const EVERY: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(500);
