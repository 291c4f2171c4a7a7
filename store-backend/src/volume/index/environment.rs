//! One LMDB environment with the tables of an index, and the transactions in which they are read and written.
//!
//! A volume's index may leave one environment for another while it is in use ([`compact`](super::compact)). So a [`Table`]
//! is only a name: which environment it is looked up in says the transaction, and what began in one ends in it.

use std::ops::{Deref, RangeBounds};
use std::path::Path;

use lmdb::heed::types::Bytes;
use lmdb::heed::{self, Database, PutFlags, RoIter, RoPrefix, RoRange, RoRevPrefix, WithoutTls};
use lmdb::{Env, Options, Usage};

use super::super::error::OpenError;
use super::TABLES;
use super::notes::{Change, Notes};

type Databases = [Database<'static, Bytes, Bytes>; TABLES.len()];

/// An open environment with all tables.
pub(super) struct Environment {
    pub(super) env: Env,
    databases: Databases,
}

impl Environment {
    /// Opens the environment of a folder; both are made when absent.
    pub(super) fn open(path: &Path, map_size_bytes: usize) -> Result<Self, OpenError> {
        let env = lmdb::open(
            path,
            Options {
                map_size_bytes,
                // The journal has every record until a checkpoint, which syncs the index.
                may_lose_last: true,
                databases_max: u32::try_from(TABLES.len()).expect("they are few"),
                ..Options::default()
            },
        )?;
        let databases = lmdb::create_databases(&env, |opener, txn| {
            let mut databases = Vec::with_capacity(TABLES.len());
            for name in TABLES {
                databases.push(opener.create_database::<Bytes, Bytes>(txn, Some(name))?);
            }
            let Ok(databases) = <[_; TABLES.len()]>::try_from(databases) else {
                unreachable!("one table was made for each name")
            };
            Ok::<_, OpenError>(databases)
        })?;
        Ok(Self { env, databases })
    }

    pub(super) fn read(&self) -> heed::Result<RoTxn<'_>> {
        Ok(RoTxn {
            txn: Txn::Read(self.env.read_txn()?),
            databases: &self.databases,
        })
    }

    /// Waits for another writer. `notes`: where to note what is changed, if that is wanted.
    pub(super) fn write(&self, notes: Option<Notes>) -> heed::Result<RwTxn<'_>> {
        Ok(RwTxn {
            txn: RoTxn {
                txn: Txn::Write(self.env.write_txn()?),
                databases: &self.databases,
            },
            notes,
        })
    }

    pub(super) fn usage(&self) -> heed::Result<Usage> {
        lmdb::usage(&self.env, self.databases)
    }
}

/// A snapshot of the index, or what a writer sees of what it has written.
pub(in crate::volume) struct RoTxn<'e> {
    txn: Txn<'e>,
    databases: &'e Databases,
}

enum Txn<'e> {
    Read(heed::RoTxn<'e, WithoutTls>),
    Write(heed::RwTxn<'e>),
}

impl RoTxn<'_> {
    fn inner(&self) -> &heed::RoTxn<'_> {
        match &self.txn {
            Txn::Read(txn) => txn,
            Txn::Write(txn) => txn,
        }
    }
}

/// The index's one writer.
pub(in crate::volume) struct RwTxn<'e> {
    /// A [`Txn::Write`].
    txn: RoTxn<'e>,
    notes: Option<Notes>,
}

impl<'e> Deref for RwTxn<'e> {
    type Target = RoTxn<'e>;

    fn deref(&self) -> &Self::Target {
        &self.txn
    }
}

impl<'e> RwTxn<'e> {
    fn inner(&mut self) -> &mut heed::RwTxn<'e> {
        match &mut self.txn.txn {
            Txn::Write(txn) => txn,
            Txn::Read(_) => unreachable!("it was made of a writer"),
        }
    }

    /// Answers what was noted.
    pub(super) fn commit(self) -> heed::Result<Option<Notes>> {
        match self.txn.txn {
            Txn::Write(txn) => txn.commit()?,
            Txn::Read(_) => unreachable!("it was made of a writer"),
        }
        Ok(self.notes)
    }

    pub(super) fn apply(&mut self, change: &Change) -> heed::Result<()> {
        match &change.value {
            Some(value) => change.table.put(self, &change.key, value),
            None => change.table.delete(self, &change.key).map(drop),
        }
    }
}

/// One table, by its place in [`TABLES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::volume) struct Table(usize);

impl Table {
    pub(super) fn all() -> [Self; TABLES.len()] {
        std::array::from_fn(Self)
    }

    fn of<'t>(self, txn: &RoTxn<'t>) -> Database<'t, Bytes, Bytes> {
        txn.databases[self.0]
    }

    pub(in crate::volume) fn get<'t>(
        self,
        txn: &'t RoTxn<'_>,
        key: &[u8],
    ) -> heed::Result<Option<&'t [u8]>> {
        self.of(txn).get(txn.inner(), key)
    }

    pub(in crate::volume) fn len(self, txn: &RoTxn<'_>) -> heed::Result<u64> {
        self.of(txn).len(txn.inner())
    }

    pub(in crate::volume) fn iter<'t>(
        self,
        txn: &'t RoTxn<'_>,
    ) -> heed::Result<RoIter<'t, Bytes, Bytes>> {
        self.of(txn).iter(txn.inner())
    }

    pub(in crate::volume) fn range<'t>(
        self,
        txn: &'t RoTxn<'_>,
        range: &impl RangeBounds<[u8]>,
    ) -> heed::Result<RoRange<'t, Bytes, Bytes>> {
        self.of(txn).range(txn.inner(), range)
    }

    pub(in crate::volume) fn prefix_iter<'t>(
        self,
        txn: &'t RoTxn<'_>,
        prefix: &[u8],
    ) -> heed::Result<RoPrefix<'t, Bytes, Bytes>> {
        self.of(txn).prefix_iter(txn.inner(), prefix)
    }

    pub(in crate::volume) fn rev_prefix_iter<'t>(
        self,
        txn: &'t RoTxn<'_>,
        prefix: &[u8],
    ) -> heed::Result<RoRevPrefix<'t, Bytes, Bytes>> {
        self.of(txn).rev_prefix_iter(txn.inner(), prefix)
    }

    pub(in crate::volume) fn put(
        self,
        txn: &mut RwTxn<'_>,
        key: &[u8],
        value: &[u8],
    ) -> heed::Result<()> {
        self.of(txn).put(txn.inner(), key, value)?;
        self.note(txn, key, Some(value));
        Ok(())
    }

    /// Puts a row behind all others, which fills the pages. It is an error if it does not come behind them.
    pub(in crate::volume) fn append(
        self,
        txn: &mut RwTxn<'_>,
        key: &[u8],
        value: &[u8],
    ) -> heed::Result<()> {
        let flags = PutFlags::APPEND;
        self.of(txn)
            .put_with_flags(txn.inner(), flags, key, value)?;
        self.note(txn, key, Some(value));
        Ok(())
    }

    /// Whether there was one.
    pub(in crate::volume) fn delete(self, txn: &mut RwTxn<'_>, key: &[u8]) -> heed::Result<bool> {
        let was_there = self.of(txn).delete(txn.inner(), key)?;
        self.note(txn, key, None);
        Ok(was_there)
    }

    /// For tests that damage an index; a compaction does not see it.
    #[cfg(test)]
    pub(in crate::volume) fn clear(self, txn: &mut RwTxn<'_>) -> heed::Result<()> {
        self.of(txn).clear(txn.inner())
    }

    #[cfg(test)]
    pub(in crate::volume) fn first<'t>(
        self,
        txn: &'t RoTxn<'_>,
    ) -> heed::Result<Option<(&'t [u8], &'t [u8])>> {
        self.of(txn).first(txn.inner())
    }

    fn note(self, txn: &mut RwTxn<'_>, key: &[u8], value: Option<&[u8]>) {
        if let Some(notes) = &mut txn.notes {
            notes.add(self, key, value);
        }
    }
}
