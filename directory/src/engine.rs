//! What the directory asks of a database.
//!
//! One method is one transaction: it sees one state and leaves one. Every write is at least one
//! numbered change, committed with what it describes; a write that finds everything as wanted is
//! none. The rules of the model (what must exist, what may not be removed, epochs) are checked in the
//! transaction. They are written once (`rules`), over what each database can do (`rows`): rows by
//! their keys, in one state. The conformance suite in `tests/conformance/` runs on every engine.

mod copy;
mod lmdb;
mod postgres;
mod record;
mod rows;
mod rules;

use directory_api::wire::{
    Account, AccountBatchReply, AccountHome, AddressEdit, AddressEntry, AddressPut, AnnounceReply,
    AnnounceRequest, Backend, BackendPut, Changed, ChangesReply, CompareAndSet, CompareAndSetReply,
    Domain, DomainPut, ListQuery, LookupReply, MoveRecord, Page, limit,
};
use directory_api::{AccountId, Address, BackendName, ChangeNumber, DomainName, Home, LoginName};
use tokio::sync::watch;

pub(crate) use copy::{copy_to_lmdb, copy_to_postgres};
pub use lmdb::{Lmdb, LmdbError};
pub(crate) use postgres::NamedKey;
pub use postgres::{Postgres, PostgresError, PostgresSettings};
pub use record::{
    AccountDraft, AccountEdit, Brought, CredentialUse, EntryName, ImportDraft, LdapBatch, LdapUser,
    LinkRow, LoginRecord, RowDraft, StoredCredential, Taken, Unusables,
};
use rules::Database;

/// What an engine answers.
pub type Answer<T> = Result<T, EngineError>;

/// Why an engine refuses.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The thing named is not there.
    #[error("nothing is there under that name")]
    NotFound,
    /// Another thing bears that name.
    #[error("{0} exists already")]
    Exists(String),
    /// Something else still needs it.
    #[error("{0}")]
    InUse(&'static str),
    /// The domain of an address is not ours.
    #[error("domain {0} is not one of ours")]
    UnknownDomain(DomainName),
    /// The domain of an address is an alias, and has none of its own.
    #[error("domain {domain} is an alias of {of}: the address is wanted there")]
    AliasDomain {
        /// The domain.
        domain: DomainName,
        /// Where its addresses are.
        of: DomainName,
    },
    /// An account named as target is not there.
    #[error("account {0} does not exist")]
    UnknownAccount(AccountId),
    /// No account logs in under this name.
    #[error("no account logs in as {0}")]
    UnknownLogin(LoginName),
    /// A back-end or volume named is not there.
    #[error("back-end {0} does not exist, or has no such volume")]
    UnknownPlace(BackendName),
    /// No active back-end has a volume: nobody can live anywhere.
    #[error("no active back-end with a volume has announced itself")]
    NoBackend,
    /// The home's epoch is another one.
    #[error("home is at epoch {}", .0.epoch)]
    StaleEpoch(Home),
    /// Another move is not finished, or the one that asks is not where it must be.
    #[error("move {} of this account is {:?}", .0.id, .0.state)]
    MoveInProgress(Box<MoveRecord>),
    /// The changes asked for are no longer kept.
    #[error("changes before {0} are no longer kept")]
    ChangesGone(ChangeNumber),
    /// The aliases behind an address are more than a lookup follows.
    #[error("address {0} comes to more targets than {max}", max = limit::TARGETS_MAX)]
    TooManyTargets(Address),
    /// It is LDAP's to change.
    #[error("{0} is taken from LDAP: change it there, and it is changed here with the next look")]
    OwnedByLdap(&'static str),
    /// More would be lost at once than an operator has allowed.
    #[error("too many users of LDAP would lose something at once")]
    LossHeld,
    /// The request contradicts itself.
    #[error("{0}")]
    Invalid(&'static str),
    /// The database failed: the disk is full, or worse. For the log.
    #[error("storage failed")]
    Storage(#[source] Box<dyn std::error::Error + Send + Sync>),
}

async fn on_blocking_thread<R: Send + 'static>(
    work: impl FnOnce() -> Answer<R> + Send + 'static,
) -> Answer<R> {
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => answer,
        Err(panicked) => Err(EngineError::Storage(Box::new(panicked))),
    }
}

/// Rows that one page looks at before it is answered short: a filter that finds nothing in
/// 600,000 addresses must not hold a snapshot for seconds.
pub const ROWS_SCANNED_MAX: usize = 20_000;

/// A use of a credential is kept when the one kept before it is older than this: a program that
/// polls shall not cost a write each time.
pub const USE_KEPT_EVERY_MS: i64 = 3_600_000;

/// A database that holds the directory. Times are given in Unix milliseconds.
#[expect(
    missing_docs,
    reason = "each method is the request of the same name in directory_api::wire"
)]
pub trait Engine: Send + Sync + 'static {
    fn lookup(&self, addresses: Vec<Address>) -> impl Future<Output = Answer<LookupReply>> + Send;
    /// Everything that decides a login, read at once. `None`: no such login name.
    fn login_record(
        &self,
        name: LoginName,
    ) -> impl Future<Output = Answer<Option<LoginRecord>>> + Send;
    /// The login name that an alias of a domain makes of one. `None`: its domain is no alias.
    fn other_login_name(
        &self,
        name: LoginName,
    ) -> impl Future<Output = Answer<Option<LoginName>>> + Send;
    /// The credentials of the accounts behind one, by number, at most so many accounts; none: there
    /// are no more.
    fn credentials(
        &self,
        after: AccountId,
        limit: usize,
    ) -> impl Future<Output = Answer<Vec<(AccountId, Vec<StoredCredential>)>>> + Send;

    /// The credentials of one account, its own password first, then by name, each with the last use
    /// that is kept.
    fn credentials_of(
        &self,
        account: AccountId,
    ) -> impl Future<Output = Answer<Vec<(StoredCredential, Option<i64>)>>> + Send;
    /// Keeps uses of credentials, each unless a younger one than [`USE_KEPT_EVERY_MS`] is kept or the
    /// credential is gone. The one write that is no numbered change: nobody decides by it.
    fn keep_uses(&self, uses: Vec<CredentialUse>) -> impl Future<Output = Answer<usize>> + Send;

    fn domains(&self, query: ListQuery) -> impl Future<Output = Answer<Page<Domain>>> + Send;
    fn domain(&self, name: DomainName) -> impl Future<Output = Answer<Domain>> + Send;
    fn put_domain(
        &self,
        name: DomainName,
        put: DomainPut,
        now_ms: i64,
    ) -> impl Future<Output = Answer<Changed<Domain>>> + Send;
    fn delete_domain(
        &self,
        name: DomainName,
        now_ms: i64,
    ) -> impl Future<Output = Answer<Changed<Domain>>> + Send;

    fn addresses(
        &self,
        query: ListQuery,
    ) -> impl Future<Output = Answer<Page<AddressEntry>>> + Send;
    fn address(&self, address: Address) -> impl Future<Output = Answer<AddressEntry>> + Send;
    fn put_address(
        &self,
        address: Address,
        put: AddressPut,
        now_ms: i64,
    ) -> impl Future<Output = Answer<Changed<AddressEntry>>> + Send;
    fn edit_address(
        &self,
        address: Address,
        edit: AddressEdit,
        now_ms: i64,
    ) -> impl Future<Output = Answer<Changed<AddressEntry>>> + Send;
    fn delete_address(
        &self,
        address: Address,
        now_ms: i64,
    ) -> impl Future<Output = Answer<Changed<AddressEntry>>> + Send;

    fn accounts(&self, query: ListQuery) -> impl Future<Output = Answer<Page<Account>>> + Send;
    fn account(&self, account: AccountId) -> impl Future<Output = Answer<Account>> + Send;
    fn create_account(
        &self,
        draft: AccountDraft,
        now_ms: i64,
    ) -> impl Future<Output = Answer<Changed<Account>>> + Send;
    fn create_accounts(
        &self,
        drafts: Vec<AccountDraft>,
        now_ms: i64,
    ) -> impl Future<Output = Answer<AccountBatchReply>> + Send;
    fn change_account(
        &self,
        account: AccountId,
        edit: AccountEdit,
        now_ms: i64,
    ) -> impl Future<Output = Answer<Changed<Account>>> + Send;
    /// Keeps the same password in another's form and with its keys, if `from` is still one of the account's
    /// credentials. `None`: it is not, or the account is gone, and nothing has changed.
    fn replace_credential(
        &self,
        account: AccountId,
        from: StoredCredential,
        to: StoredCredential,
        now_ms: i64,
    ) -> impl Future<Output = Answer<Option<ChangeNumber>>> + Send;
    fn delete_account(
        &self,
        account: AccountId,
        now_ms: i64,
    ) -> impl Future<Output = Answer<Changed<Account>>> + Send;

    /// What became of each row, in their order. A row that is refused has changed nothing, and only
    /// [`EngineError::Storage`] ends the whole.
    fn import(
        &self,
        import: ImportDraft,
        now_ms: i64,
    ) -> impl Future<Output = Answer<Changed<Vec<Answer<Brought>>>>> + Send;

    /// Takes users from LDAP; what became of each, in their order. Only [`EngineError::Storage`] ends the whole.
    fn take_users(
        &self,
        batch: LdapBatch,
        now_ms: i64,
    ) -> impl Future<Output = Answer<Changed<Vec<Taken>>>> + Send;
    /// Closes accounts whose entries are gone, and gives back their addresses; how many it closed.
    fn users_gone(
        &self,
        accounts: Vec<AccountId>,
        now_ms: i64,
    ) -> impl Future<Output = Answer<usize>> + Send;
    /// Suspends the active accounts of entries that can be no users any more, or none when more than so many would be.
    fn users_unusable(
        &self,
        ids: Vec<String>,
        losses_max: usize,
        now_ms: i64,
    ) -> impl Future<Output = Answer<Unusables>> + Send;
    /// The entries that accounts behind one are of, by number, at most so many; none: there are no more.
    fn links(
        &self,
        after: AccountId,
        limit: usize,
    ) -> impl Future<Output = Answer<Vec<(AccountId, LinkRow)>>> + Send;
    /// Whether this one of several servers takes users from LDAP until then; with `force` it does. No numbered
    /// change: nobody decides by it.
    fn ldap_turn(
        &self,
        server: String,
        force: bool,
        now_ms: i64,
        until_ms: i64,
    ) -> impl Future<Output = Answer<bool>> + Send;

    fn backends(&self, query: ListQuery) -> impl Future<Output = Answer<Page<Backend>>> + Send;
    fn backend(&self, name: BackendName) -> impl Future<Output = Answer<Backend>> + Send;
    fn put_backend(
        &self,
        name: BackendName,
        put: BackendPut,
        now_ms: i64,
    ) -> impl Future<Output = Answer<Changed<Backend>>> + Send;
    fn delete_backend(
        &self,
        name: BackendName,
        now_ms: i64,
    ) -> impl Future<Output = Answer<Changed<Backend>>> + Send;
    fn announce(
        &self,
        request: AnnounceRequest,
        now_ms: i64,
    ) -> impl Future<Output = Answer<AnnounceReply>> + Send;

    fn homes(&self, query: ListQuery) -> impl Future<Output = Answer<Page<AccountHome>>> + Send;
    fn home(&self, account: AccountId) -> impl Future<Output = Answer<AccountHome>> + Send;
    fn compare_and_set(
        &self,
        account: AccountId,
        request: CompareAndSet,
        now_ms: i64,
    ) -> impl Future<Output = Answer<CompareAndSetReply>> + Send;

    fn moves(&self, query: ListQuery) -> impl Future<Output = Answer<Page<MoveRecord>>> + Send;
    fn move_of(&self, account: AccountId) -> impl Future<Output = Answer<MoveRecord>> + Send;
    fn put_move(
        &self,
        record: MoveRecord,
        now_ms: i64,
    ) -> impl Future<Output = Answer<Changed<MoveRecord>>> + Send;
    fn delete_move(
        &self,
        account: AccountId,
        now_ms: i64,
    ) -> impl Future<Output = Answer<Changed<MoveRecord>>> + Send;

    /// Changes after one, at most `limit`; does not wait.
    fn changes(
        &self,
        after: ChangeNumber,
        limit: usize,
    ) -> impl Future<Output = Answer<ChangesReply>> + Send;
    /// Wakes whenever a change was committed. The number is a hint; [`Engine::changes`] tells.
    fn wakes(&self) -> watch::Receiver<ChangeNumber>;
}
