//! Users who are entries in LDAP: how one becomes an account, and what of it an operator may not change.
//!
//! An account belongs to an entry by what the entry keeps for ever, so that whoever is renamed keeps the mail, and whoever
//! gets the name of somebody gone does not get that one's (P8). An address that delivers to somebody else stays
//! that one's: who may write an attribute of LDAP shall not be able to take another's mail.

use std::borrow::Cow;
use std::collections::BTreeSet;

use directory_api::wire::{ChangeKind, Changed, LdapOrigin, Target};
use directory_api::{AccountId, AccountStatus, Address, DomainName, LoginName, Service};
use serde::{Deserialize, Serialize};

use super::accounts::{Backends, hashed, login_key};
use super::addresses::address_key;
use super::{Answer, Bound, EngineError, Table, View, Write, account_key, decode, number};
use crate::engine::record::{AccountRow, DomainRow};
use crate::engine::{
    AccountDraft, AccountEdit, Brought, LdapBatch, LdapUser, LinkRow, StoredCredential, Taken,
    Unusables,
};

/// Who of several servers takes users, and until when.
#[derive(Serialize, Deserialize)]
struct Turn {
    server: String,
    until_ms: i64,
}

const TURN: &[u8] = b"ldap";
/// Every server that may look has its turn, or tries, more often: without one for so long, the settings name no LDAP any
/// more.
const NOBODY_LOOKS_MS: i64 = 2 * 3_600_000;

/// Where the account of an entry stands among the logins.
fn entry_key(id: &str) -> [u8; 32] {
    hashed(["\0ldap\0", id].concat().as_bytes())
}

impl View<'_> {
    pub(super) fn link(&self, account: AccountId) -> Answer<Option<LinkRow>> {
        self.read(Table::Links, &account_key(account))
    }

    pub(super) fn ldap_origin(&self, account: AccountId) -> Answer<Option<LdapOrigin>> {
        Ok(self.link(account)?.map(|link| LdapOrigin {
            dn: link.dn,
            gone_ms: link.gone_ms,
        }))
    }

    pub(super) fn links(
        &self,
        after: AccountId,
        limit: usize,
    ) -> Answer<Vec<(AccountId, LinkRow)>> {
        let after = account_key(after);
        let rows = self.rows.walk(Table::Links, Bound::Excluded(&after))?;
        rows.take(limit)
            .map(|row| {
                let (key, row) = row?;
                Ok((AccountId(number(&key)), decode(&row)?))
            })
            .collect()
    }

    fn account_of_entry(&self, id: &str) -> Answer<Option<AccountId>> {
        let Some(key) = self.rows.get(Table::Logins, &entry_key(id))? else {
            return Ok(None);
        };
        // A program that knew nothing of entries may have removed the account.
        let is_there = self.rows.get(Table::Accounts, &key)?.is_some();
        Ok(is_there.then(|| AccountId(number(&key))))
    }

    fn targets(&self, address: &Address) -> Answer<Vec<Target>> {
        let targets = self.read(Table::Addresses, &address_key(address))?;
        Ok(targets.unwrap_or_default())
    }

    /// The address where it stands: in the domain that its own is an alias of.
    fn ours(&self, address: &Address) -> Answer<Address> {
        if address.local() == "*" {
            return Err(EngineError::Invalid(
                "the catch-all of a domain is not LDAP's to give",
            ));
        }
        let unknown = || match DomainName::new(address.domain()) {
            Ok(domain) => EngineError::UnknownDomain(domain),
            Err(_) => EngineError::Invalid("the address's domain is no name"),
        };
        let row = self.domain_row(address.domain())?;
        match row.ok_or_else(unknown)? {
            DomainRow { alias_of: None } => Ok(address.clone()),
            DomainRow { alias_of: Some(of) } => Address::new(address.local(), of.as_str())
                .map_err(|_| EngineError::Invalid("the address is none in the alias's domain")),
        }
    }
}

/// On what terms a user of LDAP is taken.
#[derive(Clone, Copy)]
struct How {
    adopt: bool,
    over_catch_all: bool,
    losses_left: usize,
}

/// What a user of LDAP is to be.
struct Wanted {
    /// To come, with what they deliver to already.
    addresses: BTreeSet<Address>,
    /// To go.
    gone: Vec<Address>,
    status: Option<AccountStatus>,
}

impl Write<'_> {
    pub(super) fn take_users(&mut self, batch: LdapBatch) -> Answer<Changed<Vec<Taken>>> {
        self.fetch_users(&batch.users)?;
        let mut backends = Backends::read(self)?;
        let mut losses_left = batch.losses_max;
        let mut all = Vec::with_capacity(batch.users.len());
        for user in batch.users {
            let how = How {
                adopt: batch.adopt,
                over_catch_all: batch.over_catch_all,
                losses_left,
            };
            let taken = match self.take_user(&user, how, &mut backends) {
                Ok(taken) => taken,
                Err(EngineError::Storage(error)) => return Err(EngineError::Storage(error)),
                Err(error) => Taken {
                    account: None,
                    brought: Brought::Equal,
                    is_loss: false,
                    left_out: vec![error],
                },
            };
            losses_left = losses_left.saturating_sub(usize::from(taken.is_loss));
            all.push(taken);
        }
        backends.write(self)?;
        Ok(self.reply(all))
    }

    fn fetch_users(&self, users: &[LdapUser]) -> Answer<()> {
        let entries = users.iter().map(|user| entry_key(&user.id).to_vec());
        let names = users
            .iter()
            .map(|user| login_key(&user.login_name).to_vec());
        let logins: Vec<_> = entries.chain(names).collect();
        let found = self.rows.get_all(Table::Logins, &logins)?;
        let accounts: BTreeSet<_> = found.into_iter().flatten().map(Cow::into_owned).collect();
        let accounts: Vec<_> = accounts.into_iter().collect();
        self.rows.fetch(Table::Accounts, &accounts)?;
        self.rows.fetch(Table::Links, &accounts)?;
        let addresses = || users.iter().flat_map(|user| &user.addresses);
        let mut keys: BTreeSet<_> = addresses().map(address_key).collect();
        keys.extend(addresses().map(|address| address_key(&address.catch_all())));
        self.rows
            .fetch(Table::Addresses, &keys.into_iter().collect::<Vec<_>>())?;
        let domains: BTreeSet<_> = addresses().map(Address::domain).collect();
        let domains: Vec<_> = domains.into_iter().map(Into::into).collect();
        self.rows.fetch(Table::Domains, &domains)
    }

    /// An error has changed nothing.
    fn take_user(&mut self, user: &LdapUser, how: How, backends: &mut Backends) -> Answer<Taken> {
        let before = self.last;
        let (id, is_new) = match self.view().account_of_entry(&user.id)? {
            Some(id) => (id, false),
            None => self.account_for(user, how.adopt, backends)?,
        };
        let key = account_key(id);
        let row: Option<AccountRow> = self.view().read(Table::Accounts, &key)?;
        let mut row = row.ok_or(EngineError::NotFound)?;
        let link = self.view().link(id)?;
        let mut left_out = Vec::new();
        let wanted = self.wanted(id, user, how, link.as_ref(), &mut left_out)?;
        let locks_out = row.status == AccountStatus::Active
            && wanted
                .status
                .is_some_and(|status| status != AccountStatus::Active);
        let is_loss = !is_new && (locks_out || !wanted.gone.is_empty());
        if is_loss && how.losses_left == 0 {
            return Err(EngineError::LossHeld);
        }
        for address in &wanted.addresses {
            self.deliver(address, id, true)?;
        }
        for address in &wanted.gone {
            self.deliver(address, id, false)?;
        }
        let was = octets(&row)?;
        match self.take_name(id, &mut row, &user.login_name) {
            Ok(()) => {}
            Err(EngineError::Storage(error)) => return Err(EngineError::Storage(error)),
            Err(error) => left_out.push(error),
        }
        self.set_status(id, &mut row, wanted.status)?;
        self.set_quota(id, &mut row, user.quota_octets, None)?;
        self.set_password(&mut row, user);
        if octets(&row)? != was {
            self.put(Table::Accounts, &key, &row)?;
            self.changed(ChangeKind::Account, &id.to_string())?;
        }
        if link.is_none() {
            self.rows.put(Table::Logins, &entry_key(&user.id), &key)?;
        }
        let now = LinkRow {
            id: user.id.clone(),
            dn: user.dn.clone(),
            addresses: wanted.addresses.into_iter().collect(),
            owns_status: user.status.is_some(),
            owns_quota: user.quota_octets.is_some(),
            suspended: false,
            gone_ms: None,
        };
        if link.as_ref() != Some(&now) {
            self.put(Table::Links, &key, &now)?;
        }
        let brought = match (is_new, self.last == before) {
            (true, _) => Brought::Created,
            (false, true) => Brought::Equal,
            (false, false) => Brought::Updated,
        };
        Ok(Taken {
            account: Some(id),
            brought,
            is_loss,
            left_out,
        })
    }

    /// The account of an entry that has none yet, and whether it is new.
    fn account_for(
        &mut self,
        user: &LdapUser,
        adopt: bool,
        backends: &mut Backends,
    ) -> Answer<(AccountId, bool)> {
        self.check_aliased_name(None, &user.login_name)?;
        let bearer = self.view().account_of(&user.login_name)?;
        let mut gone = None;
        if let Some((id, row)) = bearer {
            match self.view().link(id)? {
                None if adopt => return Ok((id, false)),
                Some(link) if link.gone_ms.is_some() => gone = Some((id, row)),
                _ => {
                    let name = &user.login_name;
                    return Err(EngineError::Exists(format!("account {name}")));
                }
            }
        }
        let draft = AccountDraft {
            login_name: user.login_name.clone(),
            credential: Some(StoredCredential::in_ldap(user)),
            addresses: Vec::new(),
            status: user.status.unwrap_or(AccountStatus::Active),
            services: Service::ALL.to_vec(),
            quota_octets: user.quota_octets.filter(|most| *most > 0),
            quota_messages: None,
            backend: None,
            volume: None,
        };
        let account = self.create_one(draft, backends)?;
        if let Some((id, row)) = gone {
            self.call_otherwise(id, row)?;
        }
        Ok((account.id, true))
    }

    /// The account of who is gone lets its name to the one that bears it already.
    fn call_otherwise(&mut self, id: AccountId, mut row: AccountRow) -> Answer<()> {
        let name = LoginName::new(format!("{}#{id}", row.login_name));
        let short = || LoginName::new(format!("#{id}")).expect("a number is a name");
        row.login_name = name.unwrap_or_else(|_| short());
        let key = account_key(id);
        self.rows
            .put(Table::Logins, &login_key(&row.login_name), &key)?;
        self.put(Table::Accounts, &key, &row)?;
        self.changed(ChangeKind::Account, &id.to_string())
    }

    /// Of who logs in by a name in an alias's domain somebody else may be meant already.
    fn check_aliased_name(&self, id: Option<AccountId>, name: &LoginName) -> Answer<()> {
        let Some(other) = self.view().other_login_name(name)? else {
            return Ok(());
        };
        match self.view().account_of(&other)? {
            Some((bearer, _)) if Some(bearer) != id => {
                let link = self.view().link(bearer)?;
                match link.is_some_and(|link| link.gone_ms.is_some()) {
                    true => Ok(()),
                    false => Err(EngineError::Exists(format!(
                        "account {other}, whose login name {name} is too"
                    ))),
                }
            }
            _ => Ok(()),
        }
    }

    fn take_name(&mut self, id: AccountId, row: &mut AccountRow, name: &LoginName) -> Answer<()> {
        if *name != row.login_name {
            self.check_aliased_name(Some(id), name)?;
        }
        if let Some((other, bearer)) = self.view().account_of(name)?
            && other != id
            && self
                .view()
                .link(other)?
                .is_some_and(|link| link.gone_ms.is_some())
        {
            self.call_otherwise(other, bearer)?;
            self.rows.delete(Table::Logins, &login_key(name))?;
        }
        self.rename(id, row, name.clone())
    }

    fn wanted(
        &self,
        id: AccountId,
        user: &LdapUser,
        how: How,
        link: Option<&LinkRow>,
        left_out: &mut Vec<EngineError>,
    ) -> Answer<Wanted> {
        let mut addresses = BTreeSet::new();
        for address in &user.addresses {
            let ours = match self.view().ours(address) {
                Ok(ours) => ours,
                Err(EngineError::Storage(error)) => return Err(EngineError::Storage(error)),
                Err(error) => {
                    left_out.push(error);
                    continue;
                }
            };
            let is_free =
                |targets: &[Target]| targets.is_empty() || targets.contains(&Target::Account(id));
            // A subaddress is its owner's, before anybody has named it.
            let whole = ours
                .subaddress()
                .map(|(whole, _)| self.view().targets(&whole));
            let whole = whole.transpose()?.unwrap_or_default();
            let own = self.view().targets(&ours)?;
            // What is his already, or is to be, by an operator's word, no catch-all has.
            let caught = match how.over_catch_all || !own.is_empty() || !whole.is_empty() {
                true => Vec::new(),
                false => self.view().targets(&ours.catch_all())?,
            };
            let whose = match (is_free(&own) && is_free(&whole), is_free(&caught)) {
                (true, true) => {
                    addresses.insert(ours);
                    continue;
                }
                (false, _) => "which delivers to somebody else,",
                (true, false) => "which its domain's catch-all delivers to somebody else,",
            };
            left_out.push(EngineError::Exists(format!("address {ours}, {whose}")));
        }
        let had = link.map_or(&[][..], |link| &link.addresses);
        let gone = had.iter().filter(|one| !addresses.contains(*one)).cloned();
        let is_back = link.is_some_and(|link| link.gone_ms.is_some() || link.suspended);
        let status = match user.status {
            None if is_back => Some(AccountStatus::Active),
            said => said,
        };
        Ok(Wanted {
            gone: gone.collect(),
            addresses,
            status,
        })
    }

    fn deliver(&mut self, address: &Address, id: AccountId, delivers: bool) -> Answer<()> {
        let mut targets = self.view().targets(address)?;
        targets.retain(|target| *target != Target::Account(id));
        if delivers {
            targets.push(Target::Account(id));
            targets.sort();
        }
        self.set_targets(address, &targets)
    }

    /// Uses stay, for the entry may have changed in something else than its password.
    fn set_password(&self, row: &mut AccountRow, user: &LdapUser) {
        let mut new = StoredCredential::in_ldap(user);
        let own = row.credentials.iter().position(|one| one.name.is_none());
        if let Some(own) = own {
            let old = row.credentials.remove(own);
            new.set_ms = match old.entry() {
                Some(_) => old.set_ms,
                None => self.now_ms,
            };
        }
        row.credentials.insert(0, new);
    }

    pub(super) fn users_gone(&mut self, accounts: &[AccountId]) -> Answer<usize> {
        let mut closed = 0;
        for id in accounts {
            let key = account_key(*id);
            let Some(link) = self.view().link(*id)?.filter(|link| link.gone_ms.is_none()) else {
                continue;
            };
            let Some(mut row) = self.view().read::<AccountRow>(Table::Accounts, &key)? else {
                self.forget_entry(*id, &link)?;
                continue;
            };
            self.set_status(*id, &mut row, Some(AccountStatus::Closing))?;
            for address in &link.addresses {
                self.deliver(address, *id, false)?;
            }
            self.put(Table::Accounts, &key, &row)?;
            self.changed(ChangeKind::Account, &id.to_string())?;
            let gone = LinkRow {
                addresses: Vec::new(),
                gone_ms: Some(self.now_ms),
                ..link
            };
            self.put(Table::Links, &key, &gone)?;
            closed += 1;
        }
        Ok(closed)
    }

    pub(super) fn users_unusable(
        &mut self,
        ids: &[String],
        losses_max: usize,
    ) -> Answer<Unusables> {
        let mut active = Vec::new();
        for id in ids {
            let Some(account) = self.view().account_of_entry(id)? else {
                continue;
            };
            let link = self.view().link(account)?;
            let row = self.view().read(Table::Accounts, &account_key(account))?;
            if let (Some(link), Some(row)) = (link, row) {
                let row: AccountRow = row;
                let is_there = link.gone_ms.is_none();
                if is_there && row.status == AccountStatus::Active {
                    active.push((account, link, row));
                }
            }
        }
        if active.len() > losses_max {
            return Ok(Unusables {
                suspended: Vec::new(),
                held: active.len(),
            });
        }
        let mut suspended = Vec::with_capacity(active.len());
        for (account, link, mut row) in active {
            let key = account_key(account);
            self.set_status(account, &mut row, Some(AccountStatus::Suspended))?;
            self.put(Table::Accounts, &key, &row)?;
            self.changed(ChangeKind::Account, &account.to_string())?;
            let link = LinkRow {
                suspended: true,
                ..link
            };
            self.put(Table::Links, &key, &link)?;
            suspended.push(account);
        }
        Ok(Unusables { suspended, held: 0 })
    }

    pub(super) fn ldap_turn(&mut self, server: String, force: bool, until_ms: i64) -> Answer<bool> {
        let turn: Option<Turn> = self.view().read(Table::Meta, TURN)?;
        let is_others =
            turn.is_some_and(|turn| turn.server != server && turn.until_ms > self.now_ms);
        if is_others && !force {
            return Ok(false);
        }
        self.put(Table::Meta, TURN, &Turn { server, until_ms })?;
        Ok(true)
    }

    /// Whether LDAP says anything any more of an account with this link: the entry is there, and some server looks.
    fn is_ldaps(&self, link: &LinkRow) -> Answer<bool> {
        if link.gone_ms.is_some() {
            return Ok(false);
        }
        let turn: Option<Turn> = self.view().read(Table::Meta, TURN)?;
        let last = turn.map_or(i64::MIN, |turn| turn.until_ms);
        Ok(last.saturating_add(NOBODY_LOOKS_MS) > self.now_ms)
    }

    /// What LDAP says of an account only LDAP changes. Where it says nothing any more, whoever gets a password from an
    /// operator is ours.
    pub(super) fn check_not_ldaps(&mut self, id: AccountId, edit: &AccountEdit) -> Answer<()> {
        let Some(link) = self.view().link(id)? else {
            return Ok(());
        };
        let is_ldaps = self.is_ldaps(&link)?;
        if !is_ldaps && edit.credential.is_some() {
            return self.forget_entry(id, &link);
        }
        let owned = [
            (edit.login_name.is_some(), "the login name"),
            (edit.credential.is_some(), "the password"),
            (edit.status.is_some() && link.owns_status, "the status"),
            (edit.quota_octets.is_some() && link.owns_quota, "the quota"),
        ];
        let mut owned = owned.into_iter().filter(|_| is_ldaps);
        if let Some((_, what)) = owned.find(|(changes, _)| *changes) {
            return Err(EngineError::OwnedByLdap(what));
        }
        if edit.status.is_some() && link.suspended {
            // From now on it is as the operator says.
            let link = LinkRow {
                suspended: false,
                ..link
            };
            self.put(Table::Links, &account_key(id), &link)?;
        }
        Ok(())
    }

    /// An operator may have an address deliver to others too, and not take it from whom LDAP gives it.
    pub(super) fn check_keeps_ldaps(&self, address: &Address, targets: &[Target]) -> Answer<()> {
        for target in self.view().targets(address)? {
            let Target::Account(account) = target else {
                continue;
            };
            if targets.contains(&target) {
                continue;
            }
            let Some(link) = self.view().link(account)? else {
                continue;
            };
            if link.addresses.contains(address) && self.is_ldaps(&link)? {
                return Err(EngineError::OwnedByLdap("the address"));
            }
        }
        Ok(())
    }

    /// Before an account is removed.
    pub(super) fn forget_link(&mut self, id: AccountId) -> Answer<()> {
        match self.view().link(id)? {
            None => Ok(()),
            Some(link) if self.is_ldaps(&link)? => Err(EngineError::OwnedByLdap("the account")),
            Some(link) => self.forget_entry(id, &link),
        }
    }

    fn forget_entry(&mut self, id: AccountId, link: &LinkRow) -> Answer<()> {
        self.rows.delete(Table::Logins, &entry_key(&link.id))?;
        self.rows.delete(Table::Links, &account_key(id))
    }
}

fn octets(row: &AccountRow) -> Answer<Vec<u8>> {
    serde_json::to_vec(row).map_err(|error| EngineError::Storage(Box::new(error)))
}
