//! The embedded engine: LMDB.
//!
//! Rows are JSON, so that a later version can add fields; keys are made for order:
//!
//! ```text
//! table        key                              row
//! meta         "format" | "next_account"        version | number, both 8 octets big-endian
//! domains      name                             DomainRow
//! addresses    domain NUL local                 [target, …]
//! deliveries   account (8, BE) domain NUL local (empty): the addresses that name an account
//! accounts     account (8, BE)                  AccountRow, home included
//! logins       SHA-256 of the login name        account (8, BE); a name may be longer than a key
//! uses         account (8, BE) name             last use of that credential, Unix milliseconds (8, BE)
//! backends     name                             BackendRow
//! moves        account (8, BE)                  MoveRecord
//! changes      number (8, BE)                   Change; the last CHANGES_KEPT of them
//! ```
//!
//! Every call runs on a blocking thread, in one transaction, synced before it answers.

mod accounts;
mod addresses;
mod backends;
mod credentials;
mod domains;
mod homes;
mod import;
mod scan;

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use ::lmdb::heed::types::Bytes;
use ::lmdb::heed::{self, Database, RoTxn, RwTxn, WithoutTls};
use ::lmdb::{Env, OpenError, Options, create_databases, with_read, with_write};
use directory_api::wire::{
    Account, AccountBatchReply, AccountHome, AddressEdit, AddressEntry, AddressPut, AnnounceReply,
    AnnounceRequest, Backend, BackendPut, Change, ChangeKind, Changed, ChangesReply, CompareAndSet,
    CompareAndSetReply, Domain, DomainPut, ListQuery, LookupReply, MoveRecord, Page,
};
use directory_api::{AccountId, Address, BackendName, ChangeNumber, DomainName, LoginName};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::{
    AccountDraft, AccountEdit, Answer, Brought, CredentialUse, Engine, EngineError, ImportDraft,
    LoginRecord, StoredCredential,
};

/// Changes kept for clients that were away. At 100 changes a second it is half an hour; a client
/// that was away for longer drops its cache.
const CHANGES_KEPT: u64 = 200_000;
/// Old changes removed by one write: twice what most writes add, so that the log shrinks again
/// after a large one.
const CHANGES_TRIMMED_MAX: usize = 100;
/// The version of the tables above. A program that knows only 1 would read an alias as a domain of its
/// own, an app password as one for everything, and could not read an account that is closing; else the
/// two are the same. So 1 is opened and becomes 2 at once: there is no way back.
const FORMAT: u64 = 2;
/// The oldest version that becomes it.
const FORMAT_OLDEST: u64 = 1;

type Table = Database<'static, Bytes, Bytes>;
type Reader<'a> = RoTxn<'a, WithoutTls>;

#[derive(Clone, Copy)]
struct Tables {
    meta: Table,
    domains: Table,
    addresses: Table,
    deliveries: Table,
    accounts: Table,
    logins: Table,
    uses: Table,
    backends: Table,
    moves: Table,
    changes: Table,
}

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
            let mut table = |name| opener.create_database::<Bytes, Bytes>(txn, Some(name));
            heed::Result::Ok((
                (
                    table("meta")?,
                    table("domains")?,
                    table("addresses")?,
                    table("deliveries")?,
                ),
                (table("accounts")?, table("logins")?, table("uses")?),
                (table("backends")?, table("moves")?, table("changes")?),
            ))
        })?;
        let (
            (meta, domains, addresses, deliveries),
            (accounts, logins, uses),
            (backends, moves, changes),
        ) = tables;
        let tables = Tables {
            meta,
            domains,
            addresses,
            deliveries,
            accounts,
            logins,
            uses,
            backends,
            moves,
            changes,
        };
        let found = with_write(&env, |txn| {
            let found = tables.meta.get(txn, b"format")?.map(number);
            let is_older = found.is_some_and(|found| (FORMAT_OLDEST..FORMAT).contains(&found));
            if found.is_none() || is_older {
                tables.meta.put(txn, b"format", &FORMAT.to_be_bytes())?;
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
        let last = with_read(&env, |txn| tables.last_change(txn))
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

    async fn read<R: Send + 'static>(
        &self,
        read: impl FnOnce(&Tables, &Reader<'_>) -> Answer<R> + Send + 'static,
    ) -> Answer<R> {
        let this = self.clone();
        on_blocking_thread(move || with_read(&this.env, |txn| read(&this.tables, txn))).await
    }

    async fn write<R: Send + 'static>(
        &self,
        now_ms: i64,
        write: impl FnOnce(&mut Write<'_, '_>) -> Answer<R> + Send + 'static,
    ) -> Answer<R> {
        self.write_unless(now_ms, false, write).await
    }

    /// Writes, or with `on_trial` finds out what a write would do and leaves everything as it was.
    async fn write_unless<R: Send + 'static>(
        &self,
        now_ms: i64,
        on_trial: bool,
        write: impl FnOnce(&mut Write<'_, '_>) -> Answer<R> + Send + 'static,
    ) -> Answer<R> {
        let this = self.clone();
        on_blocking_thread(move || {
            let written = with_write(&this.env, |txn| {
                let last = this.tables.last_change(txn)?;
                let mut write_on = Write {
                    tables: this.tables,
                    txn,
                    now_ms,
                    first: last,
                    last,
                };
                let reply = write(&mut write_on)?;
                if on_trial {
                    return Err(Unwritten::OnTrial(reply));
                }
                write_on.trim_changes()?;
                Ok((reply, write_on.last))
            });
            let (reply, last) = match written {
                Ok(written) => written,
                Err(Unwritten::OnTrial(reply)) => return Ok(reply),
                Err(Unwritten::Failed(error)) => return Err(error),
            };
            this.wake.send_if_modified(|known| {
                let news = *known < last;
                *known = last.max(*known);
                news
            });
            Ok(reply)
        })
        .await
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

async fn on_blocking_thread<R: Send + 'static>(
    work: impl FnOnce() -> Answer<R> + Send + 'static,
) -> Answer<R> {
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => answer,
        Err(panicked) => Err(EngineError::Storage(Box::new(panicked))),
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

impl Tables {
    fn last_change(&self, txn: &Reader<'_>) -> Answer<ChangeNumber> {
        let last = self.changes.last(txn)?;
        Ok(ChangeNumber(last.map_or(0, |(key, _)| number(key))))
    }

    fn changes(&self, txn: &Reader<'_>, after: ChangeNumber, limit: usize) -> Answer<ChangesReply> {
        let last = self.last_change(txn)?;
        let oldest = self.changes.first(txn)?.map_or(1, |(key, _)| number(key));
        if limit == 0 || after >= last {
            return Ok(ChangesReply {
                changes: Vec::new(),
                last,
            });
        }
        if after.0 > 0 && after.0 + 1 < oldest {
            return Err(EngineError::ChangesGone(ChangeNumber(oldest)));
        }
        let from = (after.0 + 1).to_be_bytes();
        let mut changes = Vec::new();
        let range = (Bound::Included(from.as_slice()), Bound::Unbounded);
        for row in self.changes.range(txn, &range)?.take(limit) {
            changes.push(decode::<Change>(row?.1)?);
        }
        Ok(ChangesReply { changes, last })
    }
}

/// A write transaction that numbers what it changes.
struct Write<'a, 'txn> {
    tables: Tables,
    txn: &'a mut RwTxn<'txn>,
    now_ms: i64,
    /// The newest change before.
    first: ChangeNumber,
    /// The newest change now.
    last: ChangeNumber,
}

impl Write<'_, '_> {
    fn put<T: Serialize>(&mut self, table: Table, key: &[u8], row: &T) -> Answer<()> {
        let row = serde_json::to_vec(row).map_err(|error| EngineError::Storage(Box::new(error)))?;
        Ok(table.put(self.txn, key, &row)?)
    }

    fn get<T: DeserializeOwned>(&self, table: Table, key: &[u8]) -> Answer<Option<T>> {
        get(table, self.txn, key)
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
        self.put(self.tables.changes, &self.last.0.to_be_bytes(), &change)
    }

    /// What the caller is told of a write.
    fn reply<T>(&self, now: T) -> Changed<T> {
        Changed {
            change: self.last,
            now,
        }
    }

    fn trim_changes(&mut self) -> Answer<()> {
        if self.last == self.first || self.last.0 <= CHANGES_KEPT {
            return Ok(());
        }
        let keep_from = (self.last.0 - CHANGES_KEPT + 1).to_be_bytes();
        let mut old = Vec::new();
        let range = (Bound::Unbounded, Bound::Excluded(keep_from.as_slice()));
        for row in self.tables.changes.range(self.txn, &range)? {
            old.push(row?.0.to_vec());
            if old.len() == CHANGES_TRIMMED_MAX {
                break;
            }
        }
        for key in old {
            self.tables.changes.delete(self.txn, &key)?;
        }
        Ok(())
    }
}

fn get<T: DeserializeOwned>(table: Table, txn: &Reader<'_>, key: &[u8]) -> Answer<Option<T>> {
    table.get(txn, key)?.map(decode).transpose()
}

fn decode<T: DeserializeOwned>(row: &[u8]) -> Answer<T> {
    serde_json::from_slice(row).map_err(|error| EngineError::Storage(Box::new(error)))
}

/// Reads a key or row of 8 octets; anything else is damage and reads as 0, which no number is.
fn number(octets: &[u8]) -> u64 {
    octets
        .get(..8)
        .and_then(|octets| octets.try_into().ok())
        .map_or(0, u64::from_be_bytes)
}

fn account_key(account: AccountId) -> [u8; 8] {
    account.0.to_be_bytes()
}

impl Engine for Lmdb {
    async fn lookup(&self, addresses: Vec<Address>) -> Answer<LookupReply> {
        self.read(move |tables, txn| tables.lookup(txn, &addresses))
            .await
    }

    async fn login_record(&self, name: LoginName) -> Answer<Option<LoginRecord>> {
        self.read(move |tables, txn| tables.login_record(txn, &name))
            .await
    }

    async fn other_login_name(&self, name: LoginName) -> Answer<Option<LoginName>> {
        self.read(move |tables, txn| tables.other_login_name(txn, &name))
            .await
    }

    async fn credentials(
        &self,
        after: AccountId,
        limit: usize,
    ) -> Answer<Vec<(AccountId, Vec<StoredCredential>)>> {
        self.read(move |tables, txn| tables.credentials(txn, after, limit))
            .await
    }

    async fn credentials_of(
        &self,
        account: AccountId,
    ) -> Answer<Vec<(StoredCredential, Option<i64>)>> {
        self.read(move |tables, txn| tables.credentials_of(txn, account))
            .await
    }

    async fn keep_uses(&self, uses: Vec<CredentialUse>) -> Answer<usize> {
        self.write(0, move |write| write.keep_uses(&uses)).await
    }

    async fn domains(&self, query: ListQuery) -> Answer<Page<Domain>> {
        self.read(move |tables, txn| tables.list_domains(txn, &query))
            .await
    }

    async fn domain(&self, name: DomainName) -> Answer<Domain> {
        self.read(move |tables, txn| tables.domain(txn, &name))
            .await
    }

    async fn put_domain(
        &self,
        name: DomainName,
        put: DomainPut,
        now_ms: i64,
    ) -> Answer<Changed<Domain>> {
        self.write(now_ms, move |write| write.put_domain(name, put))
            .await
    }

    async fn delete_domain(&self, name: DomainName, now_ms: i64) -> Answer<Changed<Domain>> {
        self.write(now_ms, move |write| write.delete_domain(&name))
            .await
    }

    async fn addresses(&self, query: ListQuery) -> Answer<Page<AddressEntry>> {
        self.read(move |tables, txn| tables.list_addresses(txn, &query))
            .await
    }

    async fn address(&self, address: Address) -> Answer<AddressEntry> {
        self.read(move |tables, txn| tables.address(txn, address))
            .await
    }

    async fn put_address(
        &self,
        address: Address,
        put: AddressPut,
        now_ms: i64,
    ) -> Answer<Changed<AddressEntry>> {
        self.write(now_ms, move |write| write.put_address(address, put.targets))
            .await
    }

    async fn edit_address(
        &self,
        address: Address,
        edit: AddressEdit,
        now_ms: i64,
    ) -> Answer<Changed<AddressEntry>> {
        self.write(now_ms, move |write| write.edit_address(address, edit))
            .await
    }

    async fn delete_address(&self, address: Address, now_ms: i64) -> Answer<Changed<AddressEntry>> {
        self.write(now_ms, move |write| write.delete_address(address))
            .await
    }

    async fn accounts(&self, query: ListQuery) -> Answer<Page<Account>> {
        self.read(move |tables, txn| tables.list_accounts(txn, &query))
            .await
    }

    async fn account(&self, account: AccountId) -> Answer<Account> {
        self.read(move |tables, txn| tables.account(txn, account))
            .await
    }

    async fn create_account(&self, draft: AccountDraft, now_ms: i64) -> Answer<Changed<Account>> {
        self.write(now_ms, move |write| write.create_account(draft))
            .await
    }

    async fn create_accounts(
        &self,
        drafts: Vec<AccountDraft>,
        now_ms: i64,
    ) -> Answer<AccountBatchReply> {
        self.write(now_ms, move |write| write.create_accounts(drafts))
            .await
    }

    async fn change_account(
        &self,
        account: AccountId,
        edit: AccountEdit,
        now_ms: i64,
    ) -> Answer<Changed<Account>> {
        self.write(now_ms, move |write| write.change_account(account, edit))
            .await
    }

    async fn replace_credential(
        &self,
        account: AccountId,
        from: StoredCredential,
        to: StoredCredential,
        now_ms: i64,
    ) -> Answer<Option<ChangeNumber>> {
        self.write(now_ms, move |write| {
            write.replace_credential(account, &from, to)
        })
        .await
    }

    async fn delete_account(&self, account: AccountId, now_ms: i64) -> Answer<Changed<Account>> {
        self.write(now_ms, move |write| write.delete_account(account))
            .await
    }

    async fn import(
        &self,
        import: ImportDraft,
        now_ms: i64,
    ) -> Answer<Changed<Vec<Answer<Brought>>>> {
        let on_trial = import.on_trial;
        self.write_unless(now_ms, on_trial, move |write| write.import(import))
            .await
    }

    async fn backends(&self, query: ListQuery) -> Answer<Page<Backend>> {
        self.read(move |tables, txn| tables.list_backends(txn, &query))
            .await
    }

    async fn backend(&self, name: BackendName) -> Answer<Backend> {
        self.read(move |tables, txn| tables.backend(txn, &name))
            .await
    }

    async fn put_backend(
        &self,
        name: BackendName,
        put: BackendPut,
        now_ms: i64,
    ) -> Answer<Changed<Backend>> {
        self.write(now_ms, move |write| write.put_backend(&name, put))
            .await
    }

    async fn delete_backend(&self, name: BackendName, now_ms: i64) -> Answer<Changed<Backend>> {
        self.write(now_ms, move |write| write.delete_backend(&name))
            .await
    }

    async fn announce(&self, request: AnnounceRequest, now_ms: i64) -> Answer<AnnounceReply> {
        self.write(now_ms, move |write| write.announce(request))
            .await
    }

    async fn homes(&self, query: ListQuery) -> Answer<Page<AccountHome>> {
        self.read(move |tables, txn| tables.list_homes(txn, &query))
            .await
    }

    async fn home(&self, account: AccountId) -> Answer<AccountHome> {
        self.read(move |tables, txn| tables.home(txn, account))
            .await
    }

    async fn compare_and_set(
        &self,
        account: AccountId,
        request: CompareAndSet,
        now_ms: i64,
    ) -> Answer<CompareAndSetReply> {
        self.write(now_ms, move |write| write.compare_and_set(account, request))
            .await
    }

    async fn moves(&self, query: ListQuery) -> Answer<Page<MoveRecord>> {
        self.read(move |tables, txn| tables.list_moves(txn, &query))
            .await
    }

    async fn move_of(&self, account: AccountId) -> Answer<MoveRecord> {
        self.read(move |tables, txn| tables.move_of(txn, account))
            .await
    }

    async fn put_move(&self, record: MoveRecord, now_ms: i64) -> Answer<Changed<MoveRecord>> {
        self.write(now_ms, move |write| write.put_move(record))
            .await
    }

    async fn delete_move(&self, account: AccountId, now_ms: i64) -> Answer<Changed<MoveRecord>> {
        self.write(now_ms, move |write| write.delete_move(account))
            .await
    }

    async fn changes(&self, after: ChangeNumber, limit: usize) -> Answer<ChangesReply> {
        self.read(move |tables, txn| tables.changes(txn, after, limit))
            .await
    }

    fn wakes(&self) -> watch::Receiver<ChangeNumber> {
        self.wake.subscribe()
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
            let meta = engine.tables.meta;
            with_write(&engine.env, |txn| {
                meta.put(txn, b"format", &format.to_be_bytes())
            })
            .unwrap();
            engine.close();
        };
        set(FORMAT_OLDEST);
        let engine = Lmdb::open(folder.path()).unwrap();
        let is = with_read(&engine.env, |txn| {
            heed::Result::Ok(engine.tables.meta.get(txn, b"format")?.map(number))
        });
        assert_eq!(is.unwrap(), Some(FORMAT));
        engine.close();
        set(FORMAT + 1);
        let refused = Lmdb::open(folder.path()).err();
        let expected = FORMAT + 1;
        assert!(matches!(refused, Some(LmdbError::Version { found }) if found == expected));
    }
}
