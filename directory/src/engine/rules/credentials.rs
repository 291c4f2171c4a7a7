//! Credentials of accounts, and when each last let somebody in.

use std::collections::BTreeSet;
use std::ops::Bound;

use directory_api::wire::{ChangeKind, limit};
use directory_api::{AccountId, ChangeNumber, CredentialName};

use super::{Answer, EngineError, Table, View, Write, account_key, decode, number};
use crate::engine::record::{AccountRow, CredentialsOnly};
use crate::engine::{CredentialUse, StoredCredential, USE_KEPT_EVERY_MS};

/// The account's own password has the empty name, which no app password has.
fn use_key(account: AccountId, name: Option<&CredentialName>) -> Vec<u8> {
    let name = name.map_or("", CredentialName::as_str);
    [account_key(account).as_slice(), name.as_bytes()].concat()
}

impl View<'_> {
    pub(super) fn credentials(
        &self,
        after: AccountId,
        limit: usize,
    ) -> Answer<Vec<(AccountId, Vec<StoredCredential>)>> {
        let after = account_key(after);
        let behind = Bound::Excluded(after.as_slice());
        let mut found = Vec::new();
        for row in self.rows.walk(Table::Accounts, behind)?.take(limit) {
            let (key, row) = row?;
            let row: CredentialsOnly = decode(&row)?;
            found.push((AccountId(number(&key)), row.credentials));
        }
        Ok(found)
    }

    pub(super) fn credentials_of(
        &self,
        account: AccountId,
    ) -> Answer<Vec<(StoredCredential, Option<i64>)>> {
        let row: Option<CredentialsOnly> = self.read(Table::Accounts, &account_key(account))?;
        let credentials = row.ok_or(EngineError::NotFound)?.credentials;
        credentials
            .into_iter()
            .map(|stored| {
                let last = self.last_use(account, stored.name.as_ref())?;
                let last = last.filter(|at_ms| stored.may_be_used_at(*at_ms));
                Ok((stored, last))
            })
            .collect()
    }

    fn last_use(&self, account: AccountId, name: Option<&CredentialName>) -> Answer<Option<i64>> {
        let row = self.rows.get(Table::Uses, &use_key(account, name))?;
        Ok(row.map(|octets| number(&octets).cast_signed()))
    }
}

impl Write<'_> {
    pub(super) fn keep_uses(&mut self, uses: &[CredentialUse]) -> Answer<usize> {
        let keys = uses
            .iter()
            .map(|one| use_key(one.account, one.name.as_ref()));
        self.rows.fetch(Table::Uses, &keys.collect::<Vec<_>>())?;
        let accounts: BTreeSet<_> = uses.iter().map(|one| account_key(one.account)).collect();
        let accounts: Vec<_> = accounts.iter().map(|key| key.to_vec()).collect();
        self.rows.fetch(Table::Accounts, &accounts)?;
        let mut kept = 0;
        for one in uses {
            let (account, name) = (one.account, one.name.as_ref());
            let last = self.view().last_use(account, name)?;
            if last.is_some_and(|last| one.at_ms < last.saturating_add(USE_KEPT_EVERY_MS)) {
                continue;
            }
            let row: Option<CredentialsOnly> =
                self.view().read(Table::Accounts, &account_key(account))?;
            let is_it = |is: &StoredCredential| is.name == one.name && is.may_be_used_at(one.at_ms);
            if row.is_some_and(|row| row.credentials.iter().any(is_it)) {
                let at = one.at_ms.cast_unsigned().to_be_bytes();
                self.rows.put(Table::Uses, &use_key(account, name), &at)?;
                kept += 1;
            }
        }
        Ok(kept)
    }

    /// Applies what an edit says of credentials and keeps them in order: the account's own, then by name.
    pub(super) fn change_credentials(
        &mut self,
        account: AccountId,
        credentials: &mut Vec<StoredCredential>,
        own: Option<StoredCredential>,
        set: Vec<StoredCredential>,
        remove: &[CredentialName],
    ) -> Answer<()> {
        let gone = remove.iter().map(|name| (Some(name), true));
        let replaced = set.iter().map(|one| (one.name.as_ref(), false));
        for (name, must_be_there) in gone.chain(replaced) {
            let Some(name) = name else {
                return Err(EngineError::Invalid("an app password needs a name"));
            };
            let before = credentials.len();
            credentials.retain(|one| one.name.as_ref() != Some(name));
            if must_be_there && credentials.len() == before {
                return Err(EngineError::Invalid(
                    "the account has no app password of that name",
                ));
            }
            // The uses were those of another password.
            self.rows
                .delete(Table::Uses, &use_key(account, Some(name)))?;
        }
        if own.is_some() {
            self.rows.delete(Table::Uses, &use_key(account, None))?;
            credentials.retain(|one| one.name.is_some());
        }
        credentials.extend(own.into_iter().chain(set));
        credentials.sort_by(|one, other| one.name.cmp(&other.name));
        if credentials.windows(2).any(|two| two[0].name == two[1].name) {
            return Err(EngineError::Invalid("an app password is named twice"));
        }
        if credentials.iter().filter(|one| one.name.is_some()).count() > limit::APP_PASSWORDS_MAX {
            return Err(EngineError::Invalid(
                "an account has at most 32 app passwords",
            ));
        }
        Ok(())
    }

    pub(super) fn replace_credential(
        &mut self,
        id: AccountId,
        from: &StoredCredential,
        to: StoredCredential,
    ) -> Answer<Option<ChangeNumber>> {
        let key = account_key(id);
        let Some(mut row) = self.view().read::<AccountRow>(Table::Accounts, &key)? else {
            return Ok(None);
        };
        let Some(stored) = row.credentials.iter_mut().find(|one| *one == from) else {
            return Ok(None);
        };
        stored.secret = to.secret;
        stored.scram = to.scram;
        self.put(Table::Accounts, &key, &row)?;
        self.changed(ChangeKind::Hash, &id.to_string())?;
        Ok(Some(self.last))
    }

    pub(super) fn forget_uses(&mut self, account: AccountId) -> Answer<()> {
        for key in self.keys_beginning_with(Table::Uses, &account_key(account))? {
            self.rows.delete(Table::Uses, &key)?;
        }
        Ok(())
    }
}
