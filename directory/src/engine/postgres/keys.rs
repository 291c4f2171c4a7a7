//! The keys that all servers on a database share.

use std::time::Duration;

use deadpool_postgres::{Object, Transaction};
use tokio::time::timeout;
use tokio_postgres::{IsolationLevel, Row};
use tracing::info;

use super::{ANSWER_MAX, Postgres, PostgresError, WRITERS};
use crate::engine::Answer;

/// A key, under the name that its file has in a data folder.
pub(crate) type NamedKey = (String, Vec<u8>);

impl Postgres {
    /// What stands under a name; if nothing does, `new` from now on.
    pub(crate) async fn key_or(&self, name: &str, new: &[u8]) -> Answer<Vec<u8>> {
        self.ask(async |connection| {
            let put = "INSERT INTO keys (name, octets) VALUES ($1, $2) ON CONFLICT DO NOTHING";
            connection.execute(put, &[&name, &new]).await?;
            let get = "SELECT octets FROM keys WHERE name = $1";
            connection.query_one(get, &[&name]).await?.try_get(0)
        })
        .await
    }

    /// All of them.
    pub(crate) async fn all_keys(&self) -> Answer<Vec<NamedKey>> {
        self.ask(async |connection| {
            let all = "SELECT name, octets FROM keys ORDER BY name";
            connection
                .query(all, &[])
                .await?
                .iter()
                .map(named)
                .collect()
        })
        .await
    }

    /// The keys that sign grants, after the step that was due, whichever server takes it.
    pub(crate) async fn signing_keys(&self, step: Duration) -> Answer<Vec<NamedKey>> {
        let step_s = step.as_secs_f64();
        self.ask(async |connection| {
            let found = connection.query(SIGNING, &[&step_s]).await?;
            if due(&found)?.is_none() {
                return found.iter().map(named).collect();
            }
            let stepping = in_turn(connection).await?;
            let due = due(&stepping.query(SIGNING, &[&step_s]).await?)?;
            for statement in match due {
                Some(Due::Next) => [GONE, USED_IS_OLD, NEXT_IS_USED].as_slice(),
                Some(Due::Old) => [GONE].as_slice(),
                // Another server was before us.
                None => [].as_slice(),
            } {
                stepping.execute(*statement, &[]).await?;
            }
            let found = stepping.query(SIGNING, &[&step_s]).await?;
            stepping.commit().await?;
            match due {
                Some(Due::Next) => {
                    info!("every server on the database signs grants with a new key")
                }
                Some(Due::Old) => info!("no grant of the old key is left"),
                None => {}
            }
            found.iter().map(named).collect()
        })
        .await
    }

    /// Publishes a key that will sign; false if one is on its way already.
    pub(crate) async fn add_signing_key(&self, next: &[u8]) -> Answer<bool> {
        self.ask(async |connection| {
            let adding = in_turn(connection).await?;
            let added = adding.execute(ADD, &[&next]).await?;
            adding.commit().await?;
            Ok(added == 1)
        })
        .await
    }

    async fn ask<T>(
        &self,
        work: impl AsyncFnOnce(&mut Object) -> Result<T, tokio_postgres::Error>,
    ) -> Answer<T> {
        let mut connection = self.connection().await?;
        match timeout(ANSWER_MAX, work(&mut connection)).await {
            Ok(answer) => Ok(answer.map_err(PostgresError::from)?),
            Err(_) => {
                drop(Object::take(connection));
                Err(PostgresError::Silent.into())
            }
        }
    }
}

/// Each statement sees what was committed before it, whatever the database's own default is.
async fn in_turn(connection: &mut Object) -> Result<Transaction<'_>, tokio_postgres::Error> {
    let one = connection.build_transaction();
    let one = one.isolation_level(IsolationLevel::ReadCommitted);
    let one = one.read_only(false).start().await?;
    one.query_one(WRITERS, &[]).await?;
    Ok(one)
}

/// The step to take.
#[derive(Clone, Copy)]
enum Due {
    Next,
    Old,
}

fn due(rows: &[Row]) -> Result<Option<Due>, tokio_postgres::Error> {
    let mut step = None;
    for row in rows {
        let (name, is_due): (&str, bool) = (row.try_get(0)?, row.try_get(2)?);
        match name {
            "signing.next" => return Ok(is_due.then_some(Due::Next)),
            "signing.old" if is_due => step = Some(Due::Old),
            _ => {}
        }
    }
    Ok(step)
}

fn named(row: &Row) -> Result<NamedKey, tokio_postgres::Error> {
    Ok((row.try_get(0)?, row.try_get(1)?))
}

const SIGNING: &str = "SELECT name, octets, since + make_interval(secs => $1) <= now() FROM keys \
    WHERE name IN ('signing.key', 'signing.next', 'signing.old') ORDER BY name";
const ADD: &str = "INSERT INTO keys (name, octets, since) SELECT 'signing.next', $1, clock_timestamp() \
    WHERE NOT EXISTS (SELECT FROM keys WHERE name IN ('signing.next', 'signing.old'))";
const GONE: &str = "DELETE FROM keys WHERE name = 'signing.old'";
const USED_IS_OLD: &str =
    "UPDATE keys SET name = 'signing.old', since = clock_timestamp() WHERE name = 'signing.key'";
const NEXT_IS_USED: &str =
    "UPDATE keys SET name = 'signing.key', since = clock_timestamp() WHERE name = 'signing.next'";
