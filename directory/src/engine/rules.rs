//! The rules of the model (what must exist, what may not be removed, epochs), the same on every engine:
//! what a request reads and writes in one transaction.

mod accounts;
mod addresses;
mod backends;
mod credentials;
mod domains;
mod homes;
mod import;
mod ldap;
mod requests;
mod scan;

use std::ops::Bound;

use directory_api::ChangeNumber;
use directory_api::wire::{Change, ChangeKind, Changed, ChangesReply};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::rows::{Octets, Rows, RowsMut, Table, account_key, beginning_with, decode, number};
use super::{Answer, EngineError};
pub(super) use requests::{Database, How};

/// Changes kept for clients that were away. At 100 changes a second it is half an hour; a client
/// that was away for longer drops its cache.
const CHANGES_KEPT: u64 = 200_000;
/// Old changes are removed when the number passes a multiple of this: to look for them costs round trips, where the
/// database is behind a wire. Twice as many as came go, so that the log shrinks again after a large write.
const CHANGES_TRIMMED_EVERY: u64 = 100;

/// One state of the directory.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    rows: &'a dyn Rows,
}

impl<'a> View<'a> {
    pub(super) fn of(rows: &'a dyn Rows) -> Self {
        Self { rows }
    }

    /// For who copies them as they are.
    pub(super) fn rows(&self) -> &'a dyn Rows {
        self.rows
    }

    fn read<T: DeserializeOwned>(&self, table: Table, key: &[u8]) -> Answer<Option<T>> {
        let row = self.rows.get(table, key)?;
        row.map(|row| decode(&row)).transpose()
    }

    pub(super) fn last_change(&self) -> Answer<ChangeNumber> {
        let last = self.rows.last_key(Table::Changes)?;
        Ok(ChangeNumber(last.map_or(0, |key| number(&key))))
    }

    pub(super) fn changes(&self, after: ChangeNumber, limit: usize) -> Answer<ChangesReply> {
        let last = self.last_change()?;
        let mut reply = ChangesReply {
            changes: Vec::new(),
            last,
            after_at_ms: self.changed_at_ms(after.min(last))?,
        };
        if limit == 0 || after >= last {
            return Ok(reply);
        }
        let oldest = self.rows.walk(Table::Changes, Bound::Unbounded)?.next();
        let oldest = oldest.transpose()?.map_or(1, |(key, _)| number(&key));
        if after.0 > 0 && after.0 + 1 < oldest {
            return Err(EngineError::ChangesGone(ChangeNumber(oldest)));
        }
        let from = (after.0 + 1).to_be_bytes();
        let walk = self.rows.walk(Table::Changes, Bound::Included(&from))?;
        for row in walk.take(limit) {
            reply.changes.push(decode::<Change>(&row?.1)?);
        }
        Ok(reply)
    }

    fn changed_at_ms(&self, change: ChangeNumber) -> Answer<Option<i64>> {
        let change: Option<Change> = self.read(Table::Changes, &change.0.to_be_bytes())?;
        Ok(change.map(|change| change.at_ms))
    }
}

/// A write transaction that numbers what it changes.
pub(super) struct Write<'a> {
    rows: &'a mut dyn RowsMut,
    now_ms: i64,
    /// The newest change before.
    first: ChangeNumber,
    /// The newest change now.
    last: ChangeNumber,
}

impl<'a> Write<'a> {
    /// What a transaction does from its first read to its commit, and the number of its last change. With
    /// `on_trial` the rows may be left in any state: they are not kept.
    pub(super) fn perform<R>(
        rows: &'a mut dyn RowsMut,
        now_ms: i64,
        on_trial: bool,
        work: impl FnOnce(&mut Write<'_>) -> Answer<R>,
    ) -> Answer<(R, ChangeNumber)> {
        let last = View::of(rows.as_rows()).last_change()?;
        let mut write = Write {
            rows,
            now_ms,
            first: last,
            last,
        };
        let reply = work(&mut write)?;
        if !on_trial {
            write.trim_changes()?;
        }
        Ok((reply, write.last))
    }

    /// For who copies them as they are.
    pub(super) fn rows(&mut self) -> &mut dyn RowsMut {
        self.rows
    }

    fn view(&self) -> View<'_> {
        View::of(self.rows.as_rows())
    }

    fn put<T: Serialize>(&mut self, table: Table, key: &[u8], row: &T) -> Answer<()> {
        let row = serde_json::to_vec(row).map_err(|error| EngineError::Storage(Box::new(error)))?;
        self.rows.put(table, key, &row)
    }

    /// Numbers a change.
    fn changed(&mut self, kind: ChangeKind, key: &str) -> Answer<()> {
        self.last.0 += 1;
        let change = Change {
            number: self.last,
            kind,
            key: key.to_owned(),
            at_ms: self.now_ms,
        };
        self.put(Table::Changes, &self.last.0.to_be_bytes(), &change)
    }

    /// What the caller is told of a write.
    fn reply<T>(&self, now: T) -> Changed<T> {
        Changed {
            change: self.last,
            now,
        }
    }

    /// The keys that begin so, apart from the walk, which would keep them from being changed.
    fn keys_beginning_with(&self, table: Table, prefix: &[u8]) -> Answer<Vec<Vec<u8>>> {
        let rows = beginning_with(self.rows.as_rows(), table, prefix)?;
        rows.map(|row| Ok(row?.0.into_owned())).collect()
    }

    fn trim_changes(&mut self) -> Answer<()> {
        let (first, last) = (self.first.0, self.last.0);
        let is_due = first / CHANGES_TRIMMED_EVERY < last / CHANGES_TRIMMED_EVERY;
        if !is_due || last <= CHANGES_KEPT {
            return Ok(());
        }
        let keep_from = last - CHANGES_KEPT + 1;
        let came = (last - first).max(CHANGES_TRIMMED_EVERY);
        let most = usize::try_from(2 * came).unwrap_or(usize::MAX);
        let walk = self.rows.walk(Table::Changes, Bound::Unbounded)?;
        let old = walk.take(most).map(|row| Ok(row?.0.into_owned()));
        let old: Vec<Vec<u8>> = old.collect::<Answer<_>>()?;
        for key in old {
            if number(&key) < keep_from {
                self.rows.delete(Table::Changes, &key)?;
            }
        }
        Ok(())
    }
}
