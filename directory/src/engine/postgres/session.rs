//! One transaction: rows by their keys over a connection, on a thread that may block.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::ready;
use std::ops::Bound;
use std::pin::pin;
use std::sync::Weak;
use std::task::{Context, Waker};

use deadpool_postgres::Object;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row, SimpleQueryMessage};

use super::{ANSWER_MAX, CHANNEL, PostgresError, schema};
use crate::engine::Answer;
use crate::engine::rows::{Octets, Rows, RowsMut, Table, Walk};

/// A transaction that ends without a commit when it is dropped.
pub(super) struct Session {
    /// None only while it is dropped.
    client: Option<Object>,
    runtime: Handle,
    begin: &'static str,
    has_begun: Cell<bool>,
    /// The connection is not to be used again.
    is_broken: Cell<bool>,
}

impl Session {
    /// One that sees one state.
    pub(super) fn reading(client: Object, runtime: Handle) -> Self {
        Self::new(
            client,
            runtime,
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT version FROM schema_version",
        )
    }

    fn new(client: Object, runtime: Handle, begin: &'static str) -> Self {
        Self {
            client: Some(client),
            runtime,
            begin,
            has_begun: Cell::new(false),
            is_broken: Cell::new(false),
        }
    }

    fn client(&self) -> &Object {
        self.client.as_ref().expect("it is there until the drop")
    }

    fn wait<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, PostgresError> {
        let has_begun = self.has_begun.replace(true);
        let answered = self.runtime.block_on(timeout(ANSWER_MAX, async {
            if has_begun {
                return Ok(work.await?);
            }
            // Both are sent at once, in this order: the transaction costs no round trip of its own.
            let (begun, answer) = tokio::join!(self.begin(), work);
            begun?;
            Ok(answer?)
        }));
        let answer = answered.unwrap_or(Err(PostgresError::Silent));
        if answer.as_ref().is_err_and(PostgresError::ends_connection) {
            self.is_broken.set(true);
        }
        answer
    }

    /// Nothing is read or written under a schema that is not ours.
    async fn begin(&self) -> Result<(), PostgresError> {
        let mut versions = Vec::new();
        for told in self.client().simple_query(self.begin).await? {
            if let SimpleQueryMessage::Row(row) = told {
                versions.push(row.try_get(0)?.and_then(|version| version.parse().ok()));
            }
        }
        match *versions {
            [Some(schema::SCHEMA)] => Ok(()),
            [Some(found)] => Err(schema::check(found).err().unwrap_or(PostgresError::Strange)),
            _ => Err(PostgresError::Strange),
        }
    }

    async fn ask(
        &self,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        let statement = self.client().prepare_cached(statement).await?;
        self.client().query(&statement, parameters).await
    }

    /// All are sent before the first is answered.
    async fn send(&self, statements: &[Statement]) -> Result<(), Error> {
        let Some((first, others)) = statements.split_first() else {
            return Ok(());
        };
        let parameters: Vec<_> = first.parameters.iter().map(AsRef::as_ref).collect();
        let (one, others) = tokio::join!(
            self.ask(&first.text, &parameters),
            Box::pin(self.send(others)),
        );
        one.and(others)
    }

    fn query(&self, statement: &str, parameters: &[&(dyn ToSql + Sync)]) -> Answer<Vec<Row>> {
        Ok(self.wait(self.ask(statement, parameters))?)
    }

    fn pairs(&self, rows: &[Row]) -> Answer<Vec<(Vec<u8>, Vec<u8>)>> {
        let pair = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?));
        let pairs: Result<_, Error> = rows.iter().map(pair).collect();
        Ok(pairs.map_err(PostgresError::from)?)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(client) = self.client.take() else {
            return;
        };
        if self.is_broken.get() {
            drop(Object::take(client));
        } else if self.has_begun.get() {
            // Sent, not waited for: whoever gets the connection next speaks behind it.
            let _ = pin!(client.batch_execute("ROLLBACK"))
                .poll(&mut Context::from_waker(Waker::noop()));
        }
    }
}

impl Rows for Session {
    fn get(&self, table: Table, key: &[u8]) -> Answer<Option<Octets<'_>>> {
        let statement = format!("SELECT key, value FROM {} WHERE key = $1", table.name());
        let mut found = self.pairs(&self.query(&statement, &[&key])?)?;
        Ok(found.pop().map(|(_, value)| Cow::Owned(value)))
    }

    fn get_all(&self, table: Table, keys: &[Vec<u8>]) -> Answer<Vec<Option<Octets<'_>>>> {
        let mut found = HashMap::new();
        for some in each_once(keys).chunks(KEYS_AT_ONCE) {
            let rows = self.query(&statement_of_all(table), &[&some])?;
            found.extend(self.pairs(&rows)?);
        }
        Ok(in_order(keys, &found))
    }

    fn get_all_and_last_key(
        &self,
        table: Table,
        keys: &[Vec<u8>],
        last_of: Table,
    ) -> Answer<(Vec<Option<Octets<'_>>>, Option<Octets<'_>>)> {
        let once = each_once(keys);
        if once.len() > KEYS_AT_ONCE {
            return Ok((self.get_all(table, keys)?, self.last_key(last_of)?));
        }
        let (all, last) = (statement_of_all(table), statement_of_last(last_of));
        let (rows, last) = self.wait(async {
            let parameters: [&(dyn ToSql + Sync); 1] = [&once];
            let (rows, last) = tokio::join!(self.ask(&all, &parameters), self.ask(&last, &[]));
            Ok((rows?, last?))
        })?;
        let found = self.pairs(&rows)?.into_iter().collect();
        Ok((in_order(keys, &found), first_key(&last)?))
    }

    fn walk(&self, table: Table, from: Bound<&[u8]>) -> Answer<Walk<'_>> {
        let pages = Pages {
            session: self,
            table,
            from: from.map(<[u8]>::to_vec),
            page: VecDeque::new(),
            page_rows: PAGE_ROWS_FIRST,
            is_last: false,
        };
        Ok(Box::new(pages.map(|row| {
            row.map(|(key, value)| (Cow::Owned(key), Cow::Owned(value)))
        })))
    }

    fn last_key(&self, table: Table) -> Answer<Option<Octets<'_>>> {
        first_key(&self.query(&statement_of_last(table), &[])?)
    }
}

fn statement_of_all(table: Table) -> String {
    let table = table.name();
    format!("SELECT key, value FROM {table} WHERE key = ANY($1)")
}

fn statement_of_last(table: Table) -> String {
    let table = table.name();
    format!("SELECT key FROM {table} ORDER BY key DESC LIMIT 1")
}

fn first_key(rows: &[Row]) -> Answer<Option<Octets<'static>>> {
    let key: Result<Option<Vec<u8>>, _> = rows.first().map(|row| row.try_get(0)).transpose();
    Ok(key.map_err(PostgresError::from)?.map(Cow::Owned))
}

fn each_once(keys: &[Vec<u8>]) -> Vec<&[u8]> {
    let mut once: Vec<_> = keys.iter().map(Vec::as_slice).collect();
    once.sort_unstable();
    once.dedup();
    once
}

fn in_order(keys: &[Vec<u8>], found: &HashMap<Vec<u8>, Vec<u8>>) -> Vec<Option<Octets<'static>>> {
    let row = |key: &Vec<u8>| found.get(key).cloned().map(Cow::Owned);
    keys.iter().map(row).collect()
}

/// Rows in the order of their keys, a page at a time: few are asked for first, for most walks end soon.
struct Pages<'a> {
    session: &'a Session,
    table: Table,
    from: Bound<Vec<u8>>,
    page: VecDeque<(Vec<u8>, Vec<u8>)>,
    page_rows: i64,
    is_last: bool,
}

impl Pages<'_> {
    fn turn(&mut self) -> Answer<()> {
        let (compares, from) = match &self.from {
            Bound::Included(from) => (">=", from.as_slice()),
            Bound::Excluded(from) => (">", from.as_slice()),
            Bound::Unbounded => (">=", [].as_slice()),
        };
        let statement = format!(
            "SELECT key, value FROM (SELECT key, value, sum(octet_length(value)) OVER (ORDER BY key) AS octets \
                FROM (SELECT key, value FROM {} WHERE key {compares} $1 ORDER BY key LIMIT $2) AS page) AS summed \
             WHERE octets - octet_length(value) < $3 ORDER BY key",
            self.table.name()
        );
        let rows = self
            .session
            .query(&statement, &[&from, &self.page_rows, &PAGE_OCTETS_MAX])?;
        self.page = self.session.pairs(&rows)?.into();
        let octets: usize = self.page.iter().map(|(_, value)| value.len()).sum();
        let is_cut = octets as i64 >= PAGE_OCTETS_MAX;
        self.is_last = !is_cut && (rows.len() as i64) < self.page_rows;
        if let Some((last, _)) = self.page.back() {
            self.from = Bound::Excluded(last.clone());
        }
        self.page_rows = (self.page_rows * 8).min(PAGE_ROWS_MAX);
        Ok(())
    }
}

impl Iterator for Pages<'_> {
    type Item = Answer<(Vec<u8>, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.is_empty()
            && !self.is_last
            && let Err(error) = self.turn()
        {
            self.is_last = true;
            return Some(Err(error));
        }
        self.page.pop_front().map(Ok)
    }
}

struct Statement {
    text: String,
    parameters: Vec<Box<dyn ToSql + Sync>>,
}

/// A transaction that writes, while no other does. What it writes stays in memory until the end, or until its table
/// is walked, and goes out at once then; what it has read or written is not asked for again.
pub(super) struct Writing {
    session: Session,
    asked: Weak<()>,
    known: RefCell<BTreeMap<Table, BTreeMap<Vec<u8>, Known>>>,
}

struct Known {
    /// None: there is no such row.
    value: Option<Vec<u8>>,
    is_written: bool,
}

impl Writing {
    /// `asked` is gone when nobody waits for the answer any more.
    pub(super) fn begin(
        client: Object,
        runtime: Handle,
        asked: Weak<()>,
        is_large: bool,
    ) -> Answer<Self> {
        // Each statement sees what was committed before it, whatever the database's own default is: under one
        // snapshot it would be what was there before the lock was waited for.
        let begin = if is_large { BEGIN_LARGE } else { BEGIN };
        let session = Session::new(client, runtime, begin);
        session.wait(ready(Ok(())))?;
        let known = RefCell::default();
        let writing = Self {
            session,
            asked,
            known,
        };
        writing.check_asked()?;
        Ok(writing)
    }

    /// Who got no answer may have asked for something else meanwhile, which must not be undone.
    fn check_asked(&self) -> Result<(), PostgresError> {
        match self.asked.strong_count() {
            0 => Err(PostgresError::Abandoned),
            _ => Ok(()),
        }
    }

    /// Durable when it returns `Ok`. When it does not, the write may have been kept all the same.
    pub(super) fn commit(self) -> Answer<()> {
        let has_news = !self
            .known
            .borrow()
            .get(&Table::Changes)
            .is_none_or(BTreeMap::is_empty);
        let mut statements: Vec<_> = Table::ALL
            .into_iter()
            .flat_map(|table| self.take_written(table))
            .collect();
        if has_news {
            statements.push(Statement {
                text: format!("NOTIFY {CHANNEL}"),
                parameters: Vec::new(),
            });
        }
        self.session.wait(self.session.send(&statements))?;
        self.check_asked()?;
        let committed = self
            .session
            .wait(self.session.client().batch_execute("COMMIT"));
        self.session.has_begun.set(false);
        Ok(committed.map_err(|error| match error.ends_connection() {
            true => PostgresError::Unknown(Box::new(error)),
            false => error,
        })?)
    }

    /// A walk sees what was written before it.
    fn flush(&self, table: Table) -> Answer<()> {
        let written = self.take_written(table);
        if !written.is_empty() {
            self.session.wait(self.session.send(&written))?;
        }
        Ok(())
    }

    fn take_written(&self, table: Table) -> Vec<Statement> {
        let mut known = self.known.borrow_mut();
        let (mut put, mut values, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for (key, row) in known.entry(table).or_default() {
            if !std::mem::replace(&mut row.is_written, false) {
                continue;
            }
            match &row.value {
                Some(value) => {
                    put.push(key.clone());
                    values.push(value.clone());
                }
                None => gone.push(key.clone()),
            }
        }
        let table = table.name();
        let mut statements = Vec::new();
        if !put.is_empty() {
            statements.push(Statement {
                text: format!(
                    "INSERT INTO {table} (key, value) SELECT * FROM unnest($1::bytea[], $2::bytea[]) \
                     ON CONFLICT (key) DO UPDATE SET value = excluded.value"
                ),
                parameters: vec![Box::new(put), Box::new(values)],
            });
        }
        if !gone.is_empty() {
            statements.push(Statement {
                text: format!("DELETE FROM {table} WHERE key = ANY($1)"),
                parameters: vec![Box::new(gone)],
            });
        }
        statements
    }

    fn write(&mut self, table: Table, key: &[u8], value: Option<&[u8]>) {
        let row = Known {
            value: value.map(<[u8]>::to_vec),
            is_written: true,
        };
        let known = self.known.get_mut().entry(table).or_default();
        known.insert(key.to_vec(), row);
    }
}

impl Rows for Writing {
    fn get(&self, table: Table, key: &[u8]) -> Answer<Option<Octets<'_>>> {
        let mut found = self.get_all(table, &[key.to_vec()])?;
        Ok(found.pop().flatten())
    }

    fn get_all(&self, table: Table, keys: &[Vec<u8>]) -> Answer<Vec<Option<Octets<'_>>>> {
        let mut known = self.known.borrow_mut();
        let known = known.entry(table).or_default();
        let asked: Vec<_> = keys
            .iter()
            .filter(|key| !known.contains_key(*key))
            .cloned()
            .collect();
        let found = self.session.get_all(table, &asked)?;
        for (key, value) in asked.into_iter().zip(found) {
            let value = value.map(Cow::into_owned);
            let is_written = false;
            known.insert(key, Known { value, is_written });
        }
        let value = |key: &Vec<u8>| known.get(key).and_then(|row| row.value.clone());
        Ok(keys.iter().map(|key| value(key).map(Cow::Owned)).collect())
    }

    fn walk(&self, table: Table, from: Bound<&[u8]>) -> Answer<Walk<'_>> {
        self.flush(table)?;
        self.session.walk(table, from)
    }

    fn last_key(&self, table: Table) -> Answer<Option<Octets<'_>>> {
        self.flush(table)?;
        self.session.last_key(table)
    }
}

impl RowsMut for Writing {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Answer<()> {
        self.write(table, key, Some(value));
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Answer<()> {
        self.write(table, key, None);
        Ok(())
    }

    fn fetch(&self, table: Table, keys: &[Vec<u8>]) -> Answer<()> {
        self.get_all(table, keys).map(drop)
    }

    fn relieve(&mut self) -> Answer<()> {
        let all = Table::ALL.into_iter();
        let statements: Vec<_> = all.flat_map(|table| self.take_written(table)).collect();
        self.session.wait(self.session.send(&statements))?;
        self.known.get_mut().clear();
        Ok(())
    }

    fn as_rows(&self) -> &dyn Rows {
        self
    }
}

const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
    SELECT version FROM schema_version FOR UPDATE";
/// It waits for the lock as long as for its turn (`LARGE_TURN_MAX`).
const BEGIN_LARGE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = '10s'; \
    SELECT version FROM schema_version FOR UPDATE";
const PAGE_ROWS_FIRST: i64 = 16;
const PAGE_ROWS_MAX: i64 = 1_024;
/// Of a page, unless its first row alone has more: rows of addresses may have hundreds of thousands of octets.
const PAGE_OCTETS_MAX: i64 = 1 << 20;
/// Keys of one statement.
const KEYS_AT_ONCE: usize = 256;
