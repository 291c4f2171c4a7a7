//! The tables, and how an older database gets them.

use tokio_postgres::Client;
use tracing::info;

use super::PostgresError;

/// Each makes of a schema the next one; the first of none the first.
const MIGRATIONS: [&str; 2] = [include_str!("1.sql"), include_str!("2.sql")];

/// The schema that this program reads and writes.
pub(super) const SCHEMA: i32 = MIGRATIONS.len() as i32;

/// Two servers that start at once migrate one after the other. The number is this lock's alone in the database.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7310030950155413349)";

/// Brings the schema to ours, each step in one transaction. It waits for one of another server, and for writers, who
/// must not write under the schema that goes.
pub(super) async fn migrate(client: &mut Client) -> Result<(), PostgresError> {
    loop {
        let step = client.transaction().await?;
        step.batch_execute(UNHURRIED).await?;
        step.batch_execute(LOCK).await?;
        let made = step.query_one("SELECT to_regclass('schema_version') IS NOT NULL", &[]);
        let found = match made.await?.try_get(0)? {
            true => {
                let locked = "SELECT version FROM schema_version FOR UPDATE";
                match step.query(locked, &[]).await?.as_slice() {
                    [one] => one.try_get(0)?,
                    _ => return Err(PostgresError::Strange),
                }
            }
            false => 0,
        };
        check(found)?;
        let Some(migration) = usize::try_from(found)
            .ok()
            .and_then(|at| MIGRATIONS.get(at))
        else {
            return Ok(());
        };
        step.batch_execute(migration).await?;
        let next = found + 1;
        step.execute("UPDATE schema_version SET version = $1", &[&next])
            .await?;
        step.commit().await?;
        info!(schema = next, "the database has a new schema");
    }
}

/// Refuses what a newer program made, or none of ours.
pub(super) fn check(found: i32) -> Result<(), PostgresError> {
    match found {
        0..=SCHEMA => Ok(()),
        ..0 => Err(PostgresError::Strange),
        _ => Err(PostgresError::Newer { found }),
    }
}

/// A step on large tables takes longer than any request may. That the server is gone, TCP says.
const UNHURRIED: &str = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0";
