//! The embedded engine: LMDB, one database a table, and one more row in `meta`: "format", a version of 8
//! octets big-endian.
//!
//! Every call runs on a blocking thread, in one transaction, synced before it answers.

use std::borrow::Cow;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use ::lmdb::heed::types::Bytes;
use ::lmdb::heed::{self, RoTxn, RwTxn, WithoutTls};
use ::lmdb::{Env, OpenError, Options, create_databases, with_read, with_write};
use directory_api::ChangeNumber;
use tokio::sync::watch;

use super::rows::{Octets, Rows, RowsMut, Table, Walk, number};
use super::rules::{How, View, Write};
use super::{Answer, Database, EngineError, on_blocking_thread};

/// The version of the tables. A program that knows only 1 would read an alias as a domain of its
/// own, an app password as one for everything, and could not read an account that is closing; else the
/// two are the same. So 1 is opened and becomes 2 at once: there is no way back.
const FORMAT: u64 = 2;
/// The oldest version that becomes it.
const FORMAT_OLDEST: u64 = 1;

type Tables = [heed::Database<'static, Bytes, Bytes>; Table::ALL.len()];

/// The directory in an LMDB environment. Clones share it.
#[derive(Clone)]
pub struct Lmdb {
    env: Env,
    tables: Tables,
    wake: Arc<watch::Sender<ChangeNumber>>,
}

impl Lmdb {
    /// Opens or makes the environment in a folder that this process has locked. Blocking.
    ///
    /// # Errors
    /// [`LmdbError`]; the data is untouched.
    pub fn open(folder: &Path) -> Result<Self, LmdbError> {
        let options = Options {
            map_size_bytes: 64 << 30,
            ..Options::default()
        };
        let env = ::lmdb::open(folder, options)?;
        let tables = create_databases(&env, |opener, txn| {
            let mut opened = Vec::with_capacity(Table::ALL.len());
            for table in Table::ALL {
                opened.push(opener.create_database::<Bytes, Bytes>(txn, Some(table.name()))?);
            }
            let opened: [_; Table::ALL.len()] = opened.try_into().expect("as many as tables");
            heed::Result::Ok(opened)
        })?;
        let meta = tables[Table::Meta as usize];
        let found = with_write(&env, |txn| {
            let found = meta.get(txn, b"format")?.map(number);
            let is_older = found.is_some_and(|found| (FORMAT_OLDEST..FORMAT).contains(&found));
            if found.is_none() || is_older {
                meta.put(txn, b"format", &FORMAT.to_be_bytes())?;
            }
            heed::Result::Ok(if is_older {
                FORMAT
            } else {
                found.unwrap_or(FORMAT)
            })
        })?;
        if found != FORMAT {
            return Err(LmdbError::Version { found });
        }
        let last = with_read(&env, |txn| View::of(&Reader { tables, txn }).last_change())
            .map_err(|error| LmdbError::Unreadable(Box::new(error)))?;
        Ok(Self {
            env,
            tables,
            wake: Arc::new(watch::Sender::new(last)),
        })
    }

    /// Waits until nothing uses the environment any more, so that it can be opened again at once.
    /// Blocking.
    pub fn close(self) {
        let closing = self.env.prepare_for_closing();
        drop(self.wake);
        if !closing.wait_timeout(CLOSE_MAX) {
            tracing::warn!("the database was still in use when the directory ended");
        }
    }
}

impl Database for Lmdb {
    async fn read<R: Send + 'static>(
        &self,
        work: impl FnOnce(View<'_>) -> Answer<R> + Send + 'static,
    ) -> Answer<R> {
        let Self { env, tables, .. } = self.clone();
        on_blocking_thread(move || with_read(&env, |txn| work(View::of(&Reader { tables, txn }))))
            .await
    }

    async fn write<R: Send + 'static>(
        &self,
        how: How,
        work: impl FnOnce(&mut Write<'_>) -> Answer<R> + Send + 'static,
    ) -> Answer<R> {
        let How {
            now_ms, on_trial, ..
        } = how;
        let engine = self.clone();
        on_blocking_thread(move || {
            let tables = engine.tables;
            let written = with_write(&engine.env, |txn| {
                let mut writer = Writer { tables, txn };
                match Write::perform(&mut writer, now_ms, on_trial, work)? {
                    (reply, _) if on_trial => Err(Unwritten::OnTrial(reply)),
                    written => Ok(written),
                }
            });
            match written {
                Ok((reply, last)) => {
                    engine.wake_up(last);
                    Ok(reply)
                }
                Err(Unwritten::OnTrial(reply)) => Ok(reply),
                Err(Unwritten::Failed(error)) => Err(error),
            }
        })
        .await
    }

    fn wake(&self) -> &watch::Sender<ChangeNumber> {
        &self.wake
    }
}

/// Why a transaction has left nothing.
enum Unwritten<R> {
    OnTrial(R),
    Failed(EngineError),
}

impl<R> From<heed::Error> for Unwritten<R> {
    fn from(error: heed::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl<R> From<EngineError> for Unwritten<R> {
    fn from(error: EngineError) -> Self {
        Self::Failed(error)
    }
}

struct Reader<'a, 'txn> {
    tables: Tables,
    txn: &'a RoTxn<'txn, WithoutTls>,
}

struct Writer<'a, 'txn> {
    tables: Tables,
    txn: &'a mut RwTxn<'txn>,
}

fn get<'a>(
    tables: &Tables,
    txn: &'a RoTxn<'_, WithoutTls>,
    table: Table,
    key: &[u8],
) -> Answer<Option<Octets<'a>>> {
    Ok(tables[table as usize].get(txn, key)?.map(Cow::Borrowed))
}

fn walk<'a>(
    tables: &Tables,
    txn: &'a RoTxn<'_, WithoutTls>,
    table: Table,
    from: Bound<&[u8]>,
) -> Answer<Walk<'a>> {
    let rows = tables[table as usize].range(txn, &(from, Bound::Unbounded))?;
    Ok(Box::new(rows.map(|row| {
        let (key, row) = row?;
        Ok((Cow::Borrowed(key), Cow::Borrowed(row)))
    })))
}

fn last_key<'a>(
    tables: &Tables,
    txn: &'a RoTxn<'_, WithoutTls>,
    table: Table,
) -> Answer<Option<Octets<'a>>> {
    let last = tables[table as usize].last(txn)?;
    Ok(last.map(|(key, _)| Cow::Borrowed(key)))
}

/// A writer reads as a reader does, what it wrote included.
macro_rules! rows {
    ($name:ident) => {
        impl Rows for $name<'_, '_> {
            fn get(&self, table: Table, key: &[u8]) -> Answer<Option<Octets<'_>>> {
                get(&self.tables, self.txn, table, key)
            }

            fn walk(&self, table: Table, from: Bound<&[u8]>) -> Answer<Walk<'_>> {
                walk(&self.tables, self.txn, table, from)
            }

            fn last_key(&self, table: Table) -> Answer<Option<Octets<'_>>> {
                last_key(&self.tables, self.txn, table)
            }
        }
    };
}

rows!(Reader);
rows!(Writer);

impl RowsMut for Writer<'_, '_> {
    fn put(&mut self, table: Table, key: &[u8], row: &[u8]) -> Answer<()> {
        Ok(self.tables[table as usize].put(self.txn, key, row)?)
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Answer<()> {
        self.tables[table as usize].delete(self.txn, key)?;
        Ok(())
    }

    fn as_rows(&self) -> &dyn Rows {
        self
    }
}

/// How long `close` waits for calls under way.
const CLOSE_MAX: std::time::Duration = std::time::Duration::from_secs(5);

/// Why an environment cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LmdbError {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It was opened but not readable.
    #[error("database cannot be read or written")]
    Heed(#[from] heed::Error),
    /// Its rows are damaged.
    #[error("database is damaged")]
    Unreadable(#[source] Box<EngineError>),
    /// It was written by another version.
    #[error("database has format {found}, this program reads formats {FORMAT_OLDEST} to {FORMAT}")]
    Version {
        /// The version found.
        found: u64,
    },
}

impl From<heed::Error> for EngineError {
    fn from(error: heed::Error) -> Self {
        Self::Storage(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_older_format_becomes_ours_and_a_newer_one_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let set = |format: u64| {
            let engine = Lmdb::open(folder.path()).unwrap();
            let meta = engine.tables[Table::Meta as usize];
            with_write(&engine.env, |txn| {
                meta.put(txn, b"format", &format.to_be_bytes())
            })
            .unwrap();
            engine.close();
        };
        set(FORMAT_OLDEST);
        let engine = Lmdb::open(folder.path()).unwrap();
        let is = with_read(&engine.env, |txn| {
            heed::Result::Ok(
                engine.tables[Table::Meta as usize]
                    .get(txn, b"format")?
                    .map(number),
            )
        });
        assert_eq!(is.unwrap(), Some(FORMAT));
        engine.close();
        set(FORMAT + 1);
        let refused = Lmdb::open(folder.path()).err();
        let expected = FORMAT + 1;
        assert!(matches!(refused, Some(LmdbError::Version { found }) if found == expected));
    }
}
