//! What operators and the migrator do: every collection's list, read, write and remove. Never cached.

use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{CALL_DEADLINE, DirectoryClient, DirectoryError, WRITE_DEADLINE, item};
use crate::types::{AccountId, Address, BackendName, DomainName, LoginName};
use crate::wire::{
    Account, AccountBatch, AccountBatchReply, AccountChange, AccountHome, AccountNew, AddressEdit,
    AddressEntry, AddressPut, Backend, BackendPut, Changed, CompareAndSet, CompareAndSetReply,
    Credentials, Domain, DomainPut, Import, ImportReply, LdapState, LdapSync, ListQuery,
    MoveRecord, Page, Refusals, encode_path_segment, path,
};

/// Reads, writes and removals answer [`DirectoryError::Unknown`] when nothing bears the name,
/// `Refused` when the directory's rules forbid it, and `Away` otherwise.
impl DirectoryClient {
    /// A page of our domains.
    ///
    /// # Errors
    /// See above.
    pub async fn domains(&self, query: &ListQuery) -> Result<Page<Domain>, DirectoryError> {
        self.page(path::DOMAINS, query).await
    }

    /// One domain.
    ///
    /// # Errors
    /// See above.
    pub async fn domain(&self, name: &DomainName) -> Result<Domain, DirectoryError> {
        self.one(path::DOMAINS, name.as_str()).await
    }

    /// Adds a domain with addresses of its own; one that is there stays what it is.
    ///
    /// # Errors
    /// See above.
    pub async fn put_domain(&self, name: &DomainName) -> Result<Changed<Domain>, DirectoryError> {
        self.put(path::DOMAINS, name.as_str(), &DomainPut::default())
            .await
    }

    /// Makes a domain one with addresses of its own, also if it is an alias.
    ///
    /// # Errors
    /// See above.
    pub async fn put_domain_own(
        &self,
        name: &DomainName,
    ) -> Result<Changed<Domain>, DirectoryError> {
        let put = DomainPut {
            alias_of: None,
            own: true,
        };
        self.put(path::DOMAINS, name.as_str(), &put).await
    }

    /// Makes a domain another name of one of ours.
    ///
    /// # Errors
    /// See above; `unknown_domain`, `in_use` and `bad_request` are `Refused`.
    pub async fn put_domain_alias(
        &self,
        name: &DomainName,
        of: &DomainName,
    ) -> Result<Changed<Domain>, DirectoryError> {
        let put = DomainPut {
            alias_of: Some(of.clone()),
            own: false,
        };
        self.put(path::DOMAINS, name.as_str(), &put).await
    }

    /// Removes a domain that has no address and no alias left.
    ///
    /// # Errors
    /// See above.
    pub async fn delete_domain(
        &self,
        name: &DomainName,
    ) -> Result<Changed<Domain>, DirectoryError> {
        self.delete(path::DOMAINS, name.as_str()).await
    }

    /// How the users of LDAP are kept up.
    ///
    /// # Errors
    /// See above.
    pub async fn ldap(&self) -> Result<LdapState, DirectoryError> {
        self.get(path::LDAP).await
    }

    /// Looks at everything in LDAP, and says how it went; a look that takes longer than 25 s goes on.
    ///
    /// # Errors
    /// See above.
    pub async fn ldap_sync(&self, sync: &LdapSync) -> Result<LdapState, DirectoryError> {
        self.call(Method::POST, path::LDAP, sync, WRITE_DEADLINE)
            .await
    }

    /// A page of accounts, in the order of their numbers.
    ///
    /// # Errors
    /// See above.
    pub async fn accounts(&self, query: &ListQuery) -> Result<Page<Account>, DirectoryError> {
        self.page(path::ACCOUNTS, query).await
    }

    /// One account.
    ///
    /// # Errors
    /// See above.
    pub async fn account(&self, account: AccountId) -> Result<Account, DirectoryError> {
        self.one(path::ACCOUNTS, &account.to_string()).await
    }

    /// How an account's user proves who they are: names and times, never what is secret.
    ///
    /// # Errors
    /// See above.
    pub async fn credentials(&self, account: AccountId) -> Result<Credentials, DirectoryError> {
        let path = format!("{}/credentials", item(path::ACCOUNTS, &account.to_string()));
        self.get(&path).await
    }

    /// The account that logs in under this name.
    ///
    /// # Errors
    /// See above.
    pub async fn account_of(&self, login_name: &LoginName) -> Result<Account, DirectoryError> {
        let query = ListQuery {
            login_name: Some(login_name.to_string()),
            ..ListQuery::default()
        };
        let page = self.accounts(&query).await?;
        page.items.into_iter().next().ok_or(DirectoryError::Unknown)
    }

    /// Creates an account and its addresses. The directory gives the number and, if none is
    /// demanded, the home.
    ///
    /// # Errors
    /// See above; an account of that login name is `Refused` with the code `exists`.
    pub async fn create_account(
        &self,
        account: &AccountNew,
    ) -> Result<Changed<Account>, DirectoryError> {
        self.call(Method::POST, path::ACCOUNTS, account, CALL_DEADLINE)
            .await
    }

    /// Creates many accounts in one transaction; those that exist are left as they are.
    ///
    /// # Errors
    /// See above.
    pub async fn create_accounts(
        &self,
        batch: &AccountBatch,
    ) -> Result<AccountBatchReply, DirectoryError> {
        self.call(Method::POST, path::ACCOUNTS_BATCH, batch, WRITE_DEADLINE)
            .await
    }

    /// Changes an account.
    ///
    /// # Errors
    /// See above.
    pub async fn change_account(
        &self,
        account: AccountId,
        change: &AccountChange,
    ) -> Result<Changed<Account>, DirectoryError> {
        self.put(path::ACCOUNTS, &account.to_string(), change).await
    }

    /// Removes an account with its home, credentials, and itself from every address; addresses
    /// that delivered to nothing else go too. Its number is never given again.
    ///
    /// # Errors
    /// See above; `in_use` while it is being moved.
    pub async fn delete_account(
        &self,
        account: AccountId,
    ) -> Result<Changed<Account>, DirectoryError> {
        self.delete(path::ACCOUNTS, &account.to_string()).await
    }

    /// A page of addresses.
    ///
    /// # Errors
    /// See above.
    pub async fn addresses(&self, query: &ListQuery) -> Result<Page<AddressEntry>, DirectoryError> {
        self.page(path::ADDRESSES, query).await
    }

    /// One address with its direct targets.
    ///
    /// # Errors
    /// See above.
    pub async fn address(&self, address: &Address) -> Result<AddressEntry, DirectoryError> {
        self.one(path::ADDRESSES, address.as_str()).await
    }

    /// Sets what an address delivers to.
    ///
    /// # Errors
    /// See above; `unknown_domain` and `unknown_account` are `Refused`.
    pub async fn put_address(
        &self,
        address: &Address,
        put: &AddressPut,
    ) -> Result<Changed<AddressEntry>, DirectoryError> {
        self.put(path::ADDRESSES, address.as_str(), put).await
    }

    /// Adds and removes targets of an address.
    ///
    /// # Errors
    /// See above.
    pub async fn edit_address(
        &self,
        address: &Address,
        edit: &AddressEdit,
    ) -> Result<Changed<AddressEntry>, DirectoryError> {
        let path = format!("{}/targets", item(path::ADDRESSES, address.as_str()));
        self.call(Method::POST, &path, edit, CALL_DEADLINE).await
    }

    /// Brings many things at once; what is there and equal stays.
    ///
    /// # Errors
    /// See above. What is refused of single rows stands in the reply.
    pub async fn import(&self, import: &Import) -> Result<ImportReply, DirectoryError> {
        self.call(Method::POST, path::IMPORT, import, WRITE_DEADLINE)
            .await
    }

    /// The last refusals of an address or login name that the directory remembers.
    ///
    /// # Errors
    /// See above.
    pub async fn refusals(&self, name: &str) -> Result<Refusals, DirectoryError> {
        let name = encode_path_segment(name);
        self.get(&format!("{}?name={name}", path::REFUSALS)).await
    }

    /// Removes an address.
    ///
    /// # Errors
    /// See above.
    pub async fn delete_address(
        &self,
        address: &Address,
    ) -> Result<Changed<AddressEntry>, DirectoryError> {
        self.delete(path::ADDRESSES, address.as_str()).await
    }

    /// A page of back-ends.
    ///
    /// # Errors
    /// See above.
    pub async fn backends(&self, query: &ListQuery) -> Result<Page<Backend>, DirectoryError> {
        self.page(path::BACKENDS, query).await
    }

    /// All back-ends that are ours, whatever their state: those on other mail systems are left out.
    ///
    /// # Errors
    /// See above.
    pub async fn own_backends(&self) -> Result<Vec<Backend>, DirectoryError> {
        let mut own = Vec::new();
        let mut query = ListQuery::default();
        loop {
            let page = self.backends(&query).await?;
            own.extend(page.items.into_iter().filter(|one| one.foreign.is_none()));
            match page.next {
                Some(next) => query.after = Some(next),
                None => return Ok(own),
            }
        }
    }

    /// Adds or changes a back-end.
    ///
    /// # Errors
    /// See above.
    pub async fn put_backend(
        &self,
        name: &BackendName,
        put: &BackendPut,
    ) -> Result<Changed<Backend>, DirectoryError> {
        self.put(path::BACKENDS, name.as_str(), put).await
    }

    /// Removes a back-end on which no account lives.
    ///
    /// # Errors
    /// See above.
    pub async fn delete_backend(
        &self,
        name: &BackendName,
    ) -> Result<Changed<Backend>, DirectoryError> {
        self.delete(path::BACKENDS, name.as_str()).await
    }

    /// A page of homes; the filter is a back-end's whole name.
    ///
    /// # Errors
    /// See above.
    pub async fn homes(&self, query: &ListQuery) -> Result<Page<AccountHome>, DirectoryError> {
        self.page(path::HOMES, query).await
    }

    /// The present home of an account, not from a cache.
    ///
    /// # Errors
    /// See above.
    pub async fn home(&self, account: AccountId) -> Result<AccountHome, DirectoryError> {
        self.one(path::HOMES, &account.to_string()).await
    }

    /// Moves a home if its epoch is still the one expected. Durable when it returns.
    ///
    /// After `Away` it is not known whether the home moved: ask [`DirectoryClient::home`].
    ///
    /// # Errors
    /// See above; [`DirectoryError::stale_home`] gives the present home when the epoch was another.
    pub async fn compare_and_set(
        &self,
        account: AccountId,
        request: &CompareAndSet,
    ) -> Result<CompareAndSetReply, DirectoryError> {
        let path = format!(
            "{}/compare-and-set",
            item(path::HOMES, &account.to_string())
        );
        self.call(Method::POST, &path, request, CALL_DEADLINE).await
    }

    /// A page of moves; the filter is a state.
    ///
    /// # Errors
    /// See above.
    pub async fn moves(&self, query: &ListQuery) -> Result<Page<MoveRecord>, DirectoryError> {
        self.page(path::MOVES, query).await
    }

    /// The last move of an account.
    ///
    /// # Errors
    /// See above.
    pub async fn move_of(&self, account: AccountId) -> Result<MoveRecord, DirectoryError> {
        self.one(path::MOVES, &account.to_string()).await
    }

    /// Writes the record of a move.
    ///
    /// # Errors
    /// See above; [`DirectoryError::move_in_progress`] gives the unfinished move of another id.
    pub async fn put_move(
        &self,
        record: &MoveRecord,
    ) -> Result<Changed<MoveRecord>, DirectoryError> {
        self.put(path::MOVES, &record.account.to_string(), record)
            .await
    }

    /// Removes the record of a finished move.
    ///
    /// # Errors
    /// See above.
    pub async fn delete_move(
        &self,
        account: AccountId,
    ) -> Result<Changed<MoveRecord>, DirectoryError> {
        self.delete(path::MOVES, &account.to_string()).await
    }

    async fn page<T: DeserializeOwned>(
        &self,
        collection: &str,
        query: &ListQuery,
    ) -> Result<Page<T>, DirectoryError> {
        self.get(&format!("{collection}?{}", query.to_query_string()))
            .await
    }

    async fn put<Q: Serialize, A: DeserializeOwned>(
        &self,
        collection: &str,
        key: &str,
        body: &Q,
    ) -> Result<A, DirectoryError> {
        self.call(Method::PUT, &item(collection, key), body, CALL_DEADLINE)
            .await
    }

    async fn delete<A: DeserializeOwned>(
        &self,
        collection: &str,
        key: &str,
    ) -> Result<A, DirectoryError> {
        self.call(Method::DELETE, &item(collection, key), &(), CALL_DEADLINE)
            .await
    }
}
