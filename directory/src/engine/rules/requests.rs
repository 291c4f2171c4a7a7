//! Every database with transactions is an engine: each request is one transaction of the rules.

use directory_api::wire::{
    Account, AccountBatchReply, AccountHome, AddressEdit, AddressEntry, AddressPut, AnnounceReply,
    AnnounceRequest, Backend, BackendPut, Changed, ChangesReply, CompareAndSet, CompareAndSetReply,
    Domain, DomainPut, ListQuery, LookupReply, MoveRecord, Page,
};
use directory_api::{AccountId, Address, BackendName, ChangeNumber, DomainName, LoginName};
use tokio::sync::watch;

use super::{Answer, View, Write};
use crate::engine::{
    AccountDraft, AccountEdit, Brought, CredentialUse, Engine, ImportDraft, LdapBatch, LinkRow,
    LoginRecord, StoredCredential, Taken, Unusables,
};

/// How a write is to be done.
#[derive(Clone, Copy)]
pub(in crate::engine) struct How {
    pub(in crate::engine) now_ms: i64,
    /// It finds out what a write would do and leaves everything as it was.
    pub(in crate::engine) on_trial: bool,
    /// Who asked waits longer than others do, so it may wait for its turn behind another large one.
    pub(in crate::engine) is_large: bool,
}

impl How {
    fn at(now_ms: i64) -> Self {
        Self {
            now_ms,
            on_trial: false,
            is_large: false,
        }
    }

    pub(in crate::engine) fn large(now_ms: i64) -> Self {
        Self {
            is_large: true,
            ..Self::at(now_ms)
        }
    }
}

/// A database that runs what it is given in one transaction.
pub(in crate::engine) trait Database: Send + Sync + 'static {
    /// Reads one state.
    fn read<R: Send + 'static>(
        &self,
        work: impl FnOnce(View<'_>) -> Answer<R> + Send + 'static,
    ) -> impl Future<Output = Answer<R>> + Send;

    /// Writes, while nobody else does, and is durable when it answers `Ok`; what is refused leaves nothing.
    fn write<R: Send + 'static>(
        &self,
        how: How,
        work: impl FnOnce(&mut Write<'_>) -> Answer<R> + Send + 'static,
    ) -> impl Future<Output = Answer<R>> + Send;

    /// Who waits for changes listens to it.
    fn wake(&self) -> &watch::Sender<ChangeNumber>;

    /// A change was committed. Called where it is, on the thread that committed: whoever asked for it may be gone,
    /// and nothing behind its `.await` runs then.
    fn wake_up(&self, last: ChangeNumber) {
        self.wake().send_if_modified(|known| {
            let news = *known < last;
            *known = last.max(*known);
            news
        });
    }
}

impl<D: Database> Engine for D {
    async fn lookup(&self, addresses: Vec<Address>) -> Answer<LookupReply> {
        self.read(move |view| view.lookup(&addresses)).await
    }

    async fn login_record(&self, name: LoginName) -> Answer<Option<LoginRecord>> {
        self.read(move |view| view.login_record(&name)).await
    }

    async fn other_login_name(&self, name: LoginName) -> Answer<Option<LoginName>> {
        self.read(move |view| view.other_login_name(&name)).await
    }

    async fn credentials(
        &self,
        after: AccountId,
        limit: usize,
    ) -> Answer<Vec<(AccountId, Vec<StoredCredential>)>> {
        self.read(move |view| view.credentials(after, limit)).await
    }

    async fn credentials_of(
        &self,
        account: AccountId,
    ) -> Answer<Vec<(StoredCredential, Option<i64>)>> {
        self.read(move |view| view.credentials_of(account)).await
    }

    async fn keep_uses(&self, uses: Vec<CredentialUse>) -> Answer<usize> {
        self.write(How::at(0), move |write| write.keep_uses(&uses))
            .await
    }

    async fn domains(&self, query: ListQuery) -> Answer<Page<Domain>> {
        self.read(move |view| view.list_domains(&query)).await
    }

    async fn domain(&self, name: DomainName) -> Answer<Domain> {
        self.read(move |view| view.domain(&name)).await
    }

    async fn put_domain(
        &self,
        name: DomainName,
        put: DomainPut,
        now_ms: i64,
    ) -> Answer<Changed<Domain>> {
        self.write(How::at(now_ms), move |write| write.put_domain(name, put))
            .await
    }

    async fn delete_domain(&self, name: DomainName, now_ms: i64) -> Answer<Changed<Domain>> {
        self.write(How::at(now_ms), move |write| write.delete_domain(&name))
            .await
    }

    async fn addresses(&self, query: ListQuery) -> Answer<Page<AddressEntry>> {
        self.read(move |view| view.list_addresses(&query)).await
    }

    async fn address(&self, address: Address) -> Answer<AddressEntry> {
        self.read(move |view| view.address(address)).await
    }

    async fn put_address(
        &self,
        address: Address,
        put: AddressPut,
        now_ms: i64,
    ) -> Answer<Changed<AddressEntry>> {
        self.write(How::at(now_ms), move |write| {
            write.put_address(address, put.targets)
        })
        .await
    }

    async fn edit_address(
        &self,
        address: Address,
        edit: AddressEdit,
        now_ms: i64,
    ) -> Answer<Changed<AddressEntry>> {
        self.write(How::at(now_ms), move |write| {
            write.edit_address(address, edit)
        })
        .await
    }

    async fn delete_address(&self, address: Address, now_ms: i64) -> Answer<Changed<AddressEntry>> {
        self.write(How::at(now_ms), move |write| write.delete_address(address))
            .await
    }

    async fn accounts(&self, query: ListQuery) -> Answer<Page<Account>> {
        self.read(move |view| view.list_accounts(&query)).await
    }

    async fn account(&self, account: AccountId) -> Answer<Account> {
        self.read(move |view| view.account(account)).await
    }

    async fn create_account(&self, draft: AccountDraft, now_ms: i64) -> Answer<Changed<Account>> {
        self.write(How::at(now_ms), move |write| write.create_account(draft))
            .await
    }

    async fn create_accounts(
        &self,
        drafts: Vec<AccountDraft>,
        now_ms: i64,
    ) -> Answer<AccountBatchReply> {
        self.write(How::large(now_ms), move |write| {
            write.create_accounts(drafts)
        })
        .await
    }

    async fn change_account(
        &self,
        account: AccountId,
        edit: AccountEdit,
        now_ms: i64,
    ) -> Answer<Changed<Account>> {
        self.write(How::at(now_ms), move |write| {
            write.check_not_ldaps(account, &edit)?;
            write.change_account(account, edit)
        })
        .await
    }

    async fn replace_credential(
        &self,
        account: AccountId,
        from: StoredCredential,
        to: StoredCredential,
        now_ms: i64,
    ) -> Answer<Option<ChangeNumber>> {
        self.write(How::at(now_ms), move |write| {
            write.replace_credential(account, &from, to)
        })
        .await
    }

    async fn delete_account(&self, account: AccountId, now_ms: i64) -> Answer<Changed<Account>> {
        self.write(How::at(now_ms), move |write| write.delete_account(account))
            .await
    }

    async fn import(
        &self,
        import: ImportDraft,
        now_ms: i64,
    ) -> Answer<Changed<Vec<Answer<Brought>>>> {
        let how = How {
            on_trial: import.on_trial,
            ..How::large(now_ms)
        };
        self.write(how, move |write| write.import(import)).await
    }

    async fn take_users(&self, batch: LdapBatch, now_ms: i64) -> Answer<Changed<Vec<Taken>>> {
        self.write(How::large(now_ms), move |write| write.take_users(batch))
            .await
    }

    async fn users_gone(&self, accounts: Vec<AccountId>, now_ms: i64) -> Answer<usize> {
        self.write(How::large(now_ms), move |write| write.users_gone(&accounts))
            .await
    }

    async fn users_unusable(
        &self,
        ids: Vec<String>,
        losses_max: usize,
        now_ms: i64,
    ) -> Answer<Unusables> {
        self.write(How::large(now_ms), move |write| {
            write.users_unusable(&ids, losses_max)
        })
        .await
    }

    async fn links(&self, after: AccountId, limit: usize) -> Answer<Vec<(AccountId, LinkRow)>> {
        self.read(move |view| view.links(after, limit)).await
    }

    async fn ldap_turn(
        &self,
        server: String,
        force: bool,
        now_ms: i64,
        until_ms: i64,
    ) -> Answer<bool> {
        self.write(How::at(now_ms), move |write| {
            write.ldap_turn(server, force, until_ms)
        })
        .await
    }

    async fn backends(&self, query: ListQuery) -> Answer<Page<Backend>> {
        self.read(move |view| view.list_backends(&query)).await
    }

    async fn backend(&self, name: BackendName) -> Answer<Backend> {
        self.read(move |view| view.backend(&name)).await
    }

    async fn put_backend(
        &self,
        name: BackendName,
        put: BackendPut,
        now_ms: i64,
    ) -> Answer<Changed<Backend>> {
        self.write(How::at(now_ms), move |write| write.put_backend(&name, put))
            .await
    }

    async fn delete_backend(&self, name: BackendName, now_ms: i64) -> Answer<Changed<Backend>> {
        self.write(How::at(now_ms), move |write| write.delete_backend(&name))
            .await
    }

    async fn announce(&self, request: AnnounceRequest, now_ms: i64) -> Answer<AnnounceReply> {
        self.write(How::at(now_ms), move |write| write.announce(request))
            .await
    }

    async fn homes(&self, query: ListQuery) -> Answer<Page<AccountHome>> {
        self.read(move |view| view.list_homes(&query)).await
    }

    async fn home(&self, account: AccountId) -> Answer<AccountHome> {
        self.read(move |view| view.home(account)).await
    }

    async fn compare_and_set(
        &self,
        account: AccountId,
        request: CompareAndSet,
        now_ms: i64,
    ) -> Answer<CompareAndSetReply> {
        self.write(How::at(now_ms), move |write| {
            write.compare_and_set(account, request)
        })
        .await
    }

    async fn moves(&self, query: ListQuery) -> Answer<Page<MoveRecord>> {
        self.read(move |view| view.list_moves(&query)).await
    }

    async fn move_of(&self, account: AccountId) -> Answer<MoveRecord> {
        self.read(move |view| view.move_of(account)).await
    }

    async fn put_move(&self, record: MoveRecord, now_ms: i64) -> Answer<Changed<MoveRecord>> {
        self.write(How::at(now_ms), move |write| write.put_move(record))
            .await
    }

    async fn delete_move(&self, account: AccountId, now_ms: i64) -> Answer<Changed<MoveRecord>> {
        self.write(How::at(now_ms), move |write| write.delete_move(account))
            .await
    }

    async fn changes(&self, after: ChangeNumber, limit: usize) -> Answer<ChangesReply> {
        self.read(move |view| view.changes(after, limit)).await
    }

    fn wakes(&self) -> watch::Receiver<ChangeNumber> {
        self.wake().subscribe()
    }
}
