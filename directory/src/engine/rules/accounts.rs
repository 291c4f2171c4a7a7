//! Accounts, their names, and the choice of a home for a new one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use directory_api::wire::{
    Account, AccountBatchReply, ChangeKind, Changed, ListQuery, MoveRecord, Page, Placed, PlacedBy,
    Target,
};
use directory_api::{
    AccountId, AccountStatus, BackendName, BackendState, ChangeNumber, Epoch, Home, LoginName,
    Quota,
};

use super::addresses::address_key;
use super::{Answer, EngineError, Table, View, Write, account_key, decode, number, scan};
use crate::engine::record::{AccountRow, BackendRow};
use crate::engine::{AccountDraft, AccountEdit, LoginRecord};

pub(super) fn login_key(name: &LoginName) -> [u8; 32] {
    hashed(name.as_str().to_lowercase().as_bytes())
}

/// What stands among the logins is found by the SHA-256 of its name.
pub(super) fn hashed(name: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, name);
    digest.as_ref().try_into().expect("SHA-256 has 32 octets")
}

/// The first account has the number 1.
const NOBODY: AccountId = AccountId(0);

impl View<'_> {
    pub(super) fn account_of(&self, name: &LoginName) -> Answer<Option<(AccountId, AccountRow)>> {
        let Some(id) = self.rows.get(Table::Logins, &login_key(name))? else {
            return Ok(None);
        };
        let id = number(&id);
        let row = self.read(Table::Accounts, &id.to_be_bytes())?;
        Ok(row.map(|row| (AccountId(id), row)))
    }

    /// Every way takes the same reads, those of nothing included: where rows come over a wire, their number would tell
    /// who guesses whether there is such a user (P8).
    pub(super) fn login_record(&self, name: &LoginName) -> Answer<Option<LoginRecord>> {
        let own = self.rows.get(Table::Logins, &login_key(name))?;
        // That there is another name is the domain's, whoever the user is.
        let others = match self.other_login_name(name)? {
            Some(other) => self.rows.get(Table::Logins, &login_key(&other))?,
            None => None,
        };
        // A name that an account bears counts before what an alias of a domain makes of it.
        let id = own.or(others).map_or(NOBODY, |id| AccountId(number(&id)));
        let row: Option<AccountRow> = self.read(Table::Accounts, &account_key(id))?;
        let home = row.as_ref().map_or("-", |row| row.home.backend.as_str());
        let home: Option<BackendRow> = self.read(Table::Backends, home.as_bytes())?;
        let moving: Option<MoveRecord> = self.read(Table::Moves, &account_key(id))?;
        let as_of = self.last_change()?;
        let Some(row) = row else {
            return Ok(None);
        };
        Ok(Some(LoginRecord {
            account: row.shown(id),
            quota: row.quota,
            credentials: row.credentials,
            foreign: home.as_ref().and_then(|backend| backend.foreign.clone()),
            backend: home
                .filter(|backend| !backend.address.is_empty())
                .map(|backend| (backend.address, backend.state)),
            held_by_move: moving.is_some_and(|moving| moving.state.holds_logins()),
            as_of,
        }))
    }

    pub(super) fn account(&self, id: AccountId) -> Answer<Account> {
        let row: Option<AccountRow> = self.read(Table::Accounts, &account_key(id))?;
        let row = row.ok_or(EngineError::NotFound)?;
        Ok(Account {
            ldap: self.ldap_origin(id)?,
            ..row.shown(id)
        })
    }

    pub(super) fn list_accounts(&self, query: &ListQuery) -> Answer<Page<Account>> {
        if let Some(name) = &query.login_name {
            let found = match LoginName::new(name.as_str()) {
                Ok(name) => self.account_of(&name)?,
                Err(_) => None,
            };
            let items = found.map(|(id, row)| row.shown(id)).into_iter().collect();
            return Ok(Page { items, next: None });
        }
        let after = account_after(query)?;
        let status: Option<AccountStatus> = scan::status(query)?;
        check_status(status)?;
        scan::page(
            self.rows,
            Table::Accounts,
            query,
            after.as_deref(),
            account_name,
            |key, row| {
                let row: AccountRow = decode(row)?;
                let shown = scan::passes(query, row.login_name.as_str())
                    && status.is_none_or(|status| status == row.status);
                Ok(shown.then(|| row.shown(AccountId(number(key)))))
            },
        )
    }
}

/// What a newer program calls a status cannot be written by this one.
fn check_status(status: Option<AccountStatus>) -> Answer<()> {
    match status {
        Some(AccountStatus::Other) => Err(EngineError::Invalid(
            "the status is none of active, suspended and closing",
        )),
        _ => Ok(()),
    }
}

/// The key behind which a page of a table keyed by account begins.
pub(super) fn account_after(query: &ListQuery) -> Answer<Option<Vec<u8>>> {
    query
        .after
        .as_ref()
        .map(|text| match text.parse::<AccountId>() {
            Ok(account) => Ok(account_key(account).to_vec()),
            Err(_) => Err(EngineError::Invalid("after is not an account's number")),
        })
        .transpose()
}

/// A key of such a table as text.
pub(super) fn account_name(key: &[u8]) -> String {
    number(key).to_string()
}

impl Write<'_> {
    pub(super) fn create_account(&mut self, draft: AccountDraft) -> Answer<Changed<Account>> {
        if self.view().account_of(&draft.login_name)?.is_some() {
            return Err(EngineError::Exists(format!("account {}", draft.login_name)));
        }
        let mut backends = Backends::read(self)?;
        let account = self.create_one(draft, &mut backends)?;
        backends.write(self)?;
        Ok(self.reply(account))
    }

    pub(super) fn create_accounts(
        &mut self,
        drafts: Vec<AccountDraft>,
    ) -> Answer<AccountBatchReply> {
        let mut backends = Backends::read(self)?;
        let names: Vec<_> = drafts
            .iter()
            .map(|draft| login_key(&draft.login_name).to_vec())
            .collect();
        self.rows.fetch(Table::Logins, &names)?;
        let addresses = drafts.iter().flat_map(|draft| &draft.addresses);
        let addresses: Vec<_> = addresses.map(address_key).collect();
        self.rows.fetch(Table::Addresses, &addresses)?;
        let addresses = drafts.iter().flat_map(|draft| &draft.addresses);
        let domains: BTreeSet<_> = addresses
            .map(|address| address.domain().as_bytes().to_vec())
            .collect();
        let domains: Vec<_> = domains.into_iter().collect();
        self.rows.fetch(Table::Domains, &domains)?;
        let (mut created, mut existing) = (0, 0);
        for draft in drafts {
            if self
                .rows
                .get(Table::Logins, &login_key(&draft.login_name))?
                .is_some()
            {
                existing += 1;
            } else {
                self.create_one(draft, &mut backends)?;
                created += 1;
            }
        }
        backends.write(self)?;
        Ok(AccountBatchReply {
            change: self.last,
            created,
            existing,
        })
    }

    pub(super) fn create_one(
        &mut self,
        draft: AccountDraft,
        backends: &mut Backends,
    ) -> Answer<Account> {
        check_status(Some(draft.status))?;
        let home = backends.place(&draft)?;
        let by = match draft.backend {
            Some(_) => PlacedBy::Demand,
            None => PlacedBy::Balance,
        };
        let id = self.next_account()?;
        for address in &draft.addresses {
            self.check_domain(address)?;
            if self
                .rows
                .get(Table::Addresses, &address_key(address))?
                .is_some()
            {
                return Err(EngineError::Exists(format!("address {address}")));
            }
            self.set_targets(address, &[Target::Account(id)])?;
        }
        let row = AccountRow {
            login_name: draft.login_name,
            status: draft.status,
            services: draft.services,
            quota: self.quota(Quota::NONE, draft.quota_octets, draft.quota_messages),
            home,
            placed: Some(Placed {
                at_ms: self.now_ms,
                by,
            }),
            created_ms: self.now_ms,
            credentials: draft.credential.into_iter().collect(),
        };
        self.put(Table::Accounts, &account_key(id), &row)?;
        self.rows
            .put(Table::Logins, &login_key(&row.login_name), &account_key(id))?;
        self.changed(ChangeKind::Account, &id.to_string())?;
        Ok(row.shown(id))
    }

    /// The limits after a change of them: what is not named stays, and 0 is no limit.
    fn quota(&self, now: Quota, octets: Option<u64>, messages: Option<u64>) -> Quota {
        let most = |named: Option<u64>, now| match named {
            Some(0) => None,
            Some(most) => Some(most),
            None => now,
        };
        let changed = Quota {
            octets: most(octets, now.octets),
            messages: most(messages, now.messages),
            ..now
        };
        if changed == now {
            return now;
        }
        Quota {
            as_of: ChangeNumber(self.last.0 + 1),
            ..changed
        }
    }

    /// Numbers are given once, also those of accounts that were removed.
    fn next_account(&mut self) -> Answer<AccountId> {
        let id = self
            .rows
            .get(Table::Meta, b"next_account")?
            .map_or(1, |octets| number(&octets));
        self.rows
            .put(Table::Meta, b"next_account", &(id + 1).to_be_bytes())?;
        Ok(AccountId(id))
    }

    pub(super) fn change_account(
        &mut self,
        id: AccountId,
        edit: AccountEdit,
    ) -> Answer<Changed<Account>> {
        let mut row: AccountRow = self
            .view()
            .read(Table::Accounts, &account_key(id))?
            .ok_or(EngineError::NotFound)?;
        check_status(edit.status)?;
        if let Some(name) = edit.login_name {
            self.rename(id, &mut row, name)?;
        }
        self.change_credentials(
            id,
            &mut row.credentials,
            edit.credential,
            edit.app_passwords,
            &edit.remove_app_passwords,
        )?;
        self.set_status(id, &mut row, edit.status)?;
        row.services = edit.services.unwrap_or(row.services);
        self.set_quota(id, &mut row, edit.quota_octets, edit.quota_messages)?;
        self.put(Table::Accounts, &account_key(id), &row)?;
        self.changed(ChangeKind::Account, &id.to_string())?;
        Ok(self.reply(row.shown(id)))
    }

    pub(super) fn rename(
        &mut self,
        id: AccountId,
        row: &mut AccountRow,
        name: LoginName,
    ) -> Answer<()> {
        if name == row.login_name {
            return Ok(());
        }
        let bearer = self.view().account_of(&name)?;
        if bearer.is_some_and(|(other, _)| other != id) {
            return Err(EngineError::Exists(format!("account {name}")));
        }
        self.rows
            .delete(Table::Logins, &login_key(&row.login_name))?;
        self.rows
            .put(Table::Logins, &login_key(&name), &account_key(id))?;
        row.login_name = name;
        Ok(())
    }

    pub(super) fn set_status(
        &mut self,
        id: AccountId,
        row: &mut AccountRow,
        status: Option<AccountStatus>,
    ) -> Answer<()> {
        let status = status.unwrap_or(row.status);
        let closing = |status| status == AccountStatus::Closing;
        if closing(status) != closing(row.status) {
            self.verdicts_changed(id)?;
        }
        row.status = status;
        Ok(())
    }

    pub(super) fn set_quota(
        &mut self,
        id: AccountId,
        row: &mut AccountRow,
        octets: Option<u64>,
        messages: Option<u64>,
    ) -> Answer<()> {
        let quota = self.quota(row.quota, octets, messages);
        if quota != row.quota {
            row.quota = quota;
            self.changed(ChangeKind::Quota, &id.to_string())?;
        }
        Ok(())
    }

    pub(super) fn delete_account(&mut self, id: AccountId) -> Answer<Changed<Account>> {
        let key = account_key(id);
        let row: AccountRow = self
            .view()
            .read(Table::Accounts, &key)?
            .ok_or(EngineError::NotFound)?;
        let moving: Option<MoveRecord> = self.view().read(Table::Moves, &key)?;
        if moving.is_some_and(|moving| !moving.state.is_final()) {
            return Err(EngineError::InUse("the account is being moved"));
        }
        self.forget_link(id)?;
        self.forget_deliveries(id)?;
        self.rows.delete(Table::Moves, &key)?;
        self.forget_uses(id)?;
        self.rows
            .delete(Table::Logins, &login_key(&row.login_name))?;
        self.rows.delete(Table::Accounts, &key)?;
        self.count_account(&row.home.backend, -1)?;
        self.changed(ChangeKind::Account, &id.to_string())?;
        Ok(self.reply(row.shown(id)))
    }

    /// Keeps the number of accounts of a back-end.
    pub(super) fn count_account(&mut self, backend: &BackendName, difference: i64) -> Answer<()> {
        let key = backend.as_str().as_bytes();
        let Some(mut row) = self.view().read::<BackendRow>(Table::Backends, key)? else {
            return Ok(());
        };
        row.accounts = row.accounts.saturating_add_signed(difference);
        self.put(Table::Backends, key, &row)
    }
}

/// Every back-end, in memory while accounts are placed.
pub(super) struct Backends {
    rows: BTreeMap<BackendName, BackendRow>,
    before: BTreeMap<BackendName, u64>,
}

impl Backends {
    pub(super) fn read(write: &Write<'_>) -> Answer<Self> {
        let mut rows = BTreeMap::new();
        for row in write.view().rows.walk(Table::Backends, Bound::Unbounded)? {
            let (key, row) = row?;
            rows.insert(super::backends::name_of(&key)?, decode::<BackendRow>(&row)?);
        }
        let before = rows
            .iter()
            .map(|(name, row)| (name.clone(), row.accounts))
            .collect();
        Ok(Self { rows, before })
    }

    pub(super) fn write(&self, write: &mut Write<'_>) -> Answer<()> {
        for (name, row) in &self.rows {
            if self.before.get(name) != Some(&row.accounts) {
                write.put(Table::Backends, name.as_str().as_bytes(), row)?;
            }
        }
        Ok(())
    }

    /// Gives a new account its home: where it is demanded to be, or on the active back-end with
    /// the fewest accounts for its weight. Volumes of a back-end take turns.
    fn place(&mut self, draft: &AccountDraft) -> Answer<Home> {
        let name = match &draft.backend {
            Some(name) => name.clone(),
            None => self
                .rows
                .iter()
                .filter(|(_, row)| row.state == BackendState::Active && !row.volumes.is_empty())
                // Who is new begins on ours.
                .filter(|(_, row)| row.foreign.is_none())
                .min_by(|(_, a), (_, b)| {
                    let a_load = u128::from(a.accounts) * u128::from(b.weight);
                    let b_load = u128::from(b.accounts) * u128::from(a.weight);
                    a_load.cmp(&b_load)
                })
                .map(|(name, _)| name.clone())
                .ok_or(EngineError::NoBackend)?,
        };
        let unknown = || EngineError::UnknownPlace(name.clone());
        let row = self.rows.get_mut(&name).ok_or_else(unknown)?;
        let volume = match &draft.volume {
            Some(wanted) => row.volumes.iter().find(|volume| volume.name == *wanted),
            None if row.volumes.is_empty() => None,
            None => {
                let turn = row.accounts % row.volumes.len() as u64;
                row.volumes.get(usize::try_from(turn).unwrap_or(0))
            }
        };
        let volume = volume.ok_or_else(unknown)?.name.clone();
        row.accounts += 1;
        Ok(Home {
            backend: name,
            volume,
            epoch: Epoch::FIRST,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::borrow::Cow;
    use std::cell::RefCell;

    use super::super::Rows;
    use super::*;
    use crate::engine::record::DomainRow;
    use crate::engine::rows::{Octets, Walk};

    /// Rows that remember which tables were asked.
    #[derive(Default)]
    struct Asked {
        rows: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
        tables: RefCell<Vec<Table>>,
    }

    impl Rows for Asked {
        fn get(&self, table: Table, key: &[u8]) -> Answer<Option<Octets<'_>>> {
            self.tables.borrow_mut().push(table);
            let row = self.rows.get(&(table, key.to_vec()));
            Ok(row.map(|row| Cow::Borrowed(row.as_slice())))
        }

        fn walk(&self, _: Table, _: Bound<&[u8]>) -> Answer<Walk<'_>> {
            unreachable!("a login reads rows by their keys")
        }

        fn last_key(&self, table: Table) -> Answer<Option<Octets<'_>>> {
            self.tables.borrow_mut().push(table);
            Ok(None)
        }
    }

    #[test]
    fn a_login_of_nobody_takes_the_reads_of_a_users() {
        let mut asked = Asked::default();
        let row = AccountRow {
            login_name: "ann@x.test".parse().unwrap(),
            status: AccountStatus::Active,
            services: Vec::new(),
            quota: Quota::NONE,
            home: Home {
                backend: "b1".parse().unwrap(),
                volume: "v1".parse().unwrap(),
                epoch: Epoch::FIRST,
            },
            placed: None,
            created_ms: 1,
            credentials: Vec::new(),
        };
        let ann = account_key(AccountId(1)).to_vec();
        let login = login_key(&row.login_name).to_vec();
        asked.rows.insert((Table::Logins, login), ann.clone());
        let row = serde_json::to_vec(&row).unwrap();
        asked.rows.insert((Table::Accounts, ann), row);
        let alias_of = Some("x.test".parse().unwrap());
        for (name, alias_of) in [("x.test", None), ("alias.test", alias_of)] {
            let row = serde_json::to_vec(&DomainRow { alias_of }).unwrap();
            asked.rows.insert((Table::Domains, name.into()), row);
        }
        let reads = |name: &str| {
            let found = View::of(&asked).login_record(&name.parse().unwrap());
            (found.unwrap().is_some(), asked.tables.take())
        };
        for domain in ["x.test", "alias.test"] {
            let (is_there, of_ann) = reads(&format!("ann@{domain}"));
            let (nobody, of_nobody) = reads(&format!("nobody@{domain}"));
            assert_eq!((is_there, nobody), (true, false), "{domain}");
            assert_eq!(of_ann, of_nobody, "{domain}");
        }
    }
}
