//! Addresses, and the walk from one to accounts.

use std::collections::HashSet;

use directory_api::wire::{
    AddressEdit, AddressEntry, ChangeKind, Changed, ListQuery, Located, LookupReply, LookupResult,
    Page, Target, Verdict, limit,
};
use directory_api::{AccountId, AccountStatus, Address};

use super::{Answer, EngineError, Reader, Tables, Write, account_key, decode, get, scan};
use crate::engine::record::HomeOnly;

/// Ordered by domain, so that the addresses of one stand together. At most 255 + 1 + 64 octets,
/// three times the local part if its lower case is longer: under LMDB's limit of 511.
pub(super) fn address_key(address: &Address) -> Vec<u8> {
    [
        address.domain().as_bytes(),
        b"\0",
        address.local().as_bytes(),
    ]
    .concat()
}

fn address_of(key: &[u8]) -> Answer<Address> {
    std::str::from_utf8(key)
        .ok()
        .and_then(|key| key.split_once('\0'))
        .and_then(|(domain, local)| Address::new(local, domain).ok())
        .ok_or_else(|| EngineError::Storage("a key of the table of addresses is damaged".into()))
}

pub(super) fn delivery_key(account: AccountId, address_key: &[u8]) -> Vec<u8> {
    [account_key(account).as_slice(), address_key].concat()
}

impl Tables {
    pub(super) fn lookup(&self, txn: &Reader<'_>, addresses: &[Address]) -> Answer<LookupReply> {
        let change = self.last_change(txn)?;
        let results = addresses
            .iter()
            .map(|address| self.lookup_one(txn, address))
            .collect::<Answer<_>>()?;
        Ok(LookupReply { change, results })
    }

    /// Walks aliases breadth first. Each address is visited once, so loops end. Beyond the limit of
    /// targets there is no verdict: mail accepted for a part of them would be lost to the rest (P1).
    fn lookup_one(&self, txn: &Reader<'_>, address: &Address) -> Answer<LookupResult> {
        let mut waiting = vec![address.clone()];
        let mut seen: HashSet<Address> = HashSet::from([address.clone()]);
        let mut accounts = Vec::new();
        let mut via = Vec::new();
        let mut next = 0;
        let mut steps_left = limit::TARGETS_MAX;
        while let Some(step) = waiting.get(next).cloned() {
            next += 1;
            let Some(targets) = get::<Vec<Target>>(self.addresses, txn, &address_key(&step))?
            else {
                let domain = self.domain_row(txn, step.domain())?;
                if next == 1 && domain.is_none() {
                    return Ok(LookupResult {
                        address: step,
                        verdict: Verdict::UnknownDomain,
                        via,
                    });
                }
                // An alias of a domain has no addresses of its own, so it is looked for only here.
                let other_name = domain
                    .and_then(|row| row.alias_of)
                    .and_then(|of| Address::new(step.local(), of.as_str()).ok());
                if next > 1 {
                    via.push(step);
                }
                if let Some(other_name) = other_name
                    && seen.insert(other_name.clone())
                {
                    waiting.push(other_name);
                }
                continue;
            };
            if next > 1 {
                via.push(step);
            }
            for target in targets {
                if steps_left == 0 {
                    tracing::warn!(%address, "address comes to more targets than the limit, mail for it is deferred");
                    return Err(EngineError::TooManyTargets(address.clone()));
                }
                steps_left -= 1;
                match target {
                    Target::Account(account) => {
                        if !accounts.contains(&account) {
                            accounts.push(account);
                        }
                    }
                    Target::Address(alias) => {
                        if seen.insert(alias.clone()) {
                            waiting.push(alias);
                        }
                    }
                }
            }
        }
        let mut located = Vec::with_capacity(accounts.len());
        for account in accounts {
            let row: Option<HomeOnly> = get(self.accounts, txn, &account_key(account))?;
            if let Some(row) = row.filter(|row| row.status != AccountStatus::Closing) {
                located.push(Located {
                    account,
                    home: row.home,
                    quota: row.quota,
                });
            }
        }
        // An alias of which nothing is left is nobody, but stays "unknown" only until it is mended. So is an
        // account that is being closed: its senders are told what they will be told when it is gone.
        let verdict = if located.is_empty() {
            Verdict::UnknownAddress
        } else {
            Verdict::Accounts(located)
        };
        Ok(LookupResult {
            address: address.clone(),
            verdict,
            via,
        })
    }

    pub(super) fn list_addresses(
        &self,
        txn: &Reader<'_>,
        query: &ListQuery,
    ) -> Answer<Page<AddressEntry>> {
        let after = match &query.after {
            Some(text) => {
                let address: Address = text
                    .parse()
                    .map_err(|_| EngineError::Invalid("after is not an address"))?;
                Some(address_key(&address))
            }
            None => None,
        };
        let name_of = |key: &[u8]| address_of(key).map_or_else(|_| String::new(), String::from);
        scan::page(
            self.addresses,
            txn,
            query,
            after.as_deref(),
            name_of,
            |key, row| {
                let address = address_of(key)?;
                if !scan::passes(query, address.as_str()) {
                    return Ok(None);
                }
                Ok(Some(AddressEntry {
                    address,
                    targets: decode(row)?,
                }))
            },
        )
    }

    pub(super) fn address(&self, txn: &Reader<'_>, address: Address) -> Answer<AddressEntry> {
        let targets = get(self.addresses, txn, &address_key(&address))?;
        Ok(AddressEntry {
            address,
            targets: targets.ok_or(EngineError::NotFound)?,
        })
    }
}

impl Write<'_, '_> {
    pub(super) fn put_address(
        &mut self,
        address: Address,
        mut targets: Vec<Target>,
    ) -> Answer<Changed<AddressEntry>> {
        targets.sort();
        targets.dedup();
        if targets.is_empty() {
            return Err(EngineError::Invalid("an address needs a target"));
        }
        self.check_targets(&address, &targets)?;
        self.set_targets(&address, &targets)?;
        Ok(self.reply(AddressEntry { address, targets }))
    }

    fn check_targets(&self, address: &Address, targets: &[Target]) -> Answer<()> {
        if targets.len() > limit::TARGETS_MAX {
            return Err(EngineError::Invalid("an address has at most 1,000 targets"));
        }
        self.check_domain(address)?;
        for target in targets {
            if let Target::Account(account) = target
                && self
                    .tables
                    .accounts
                    .get(self.txn, &account_key(*account))?
                    .is_none()
            {
                return Err(EngineError::UnknownAccount(*account));
            }
        }
        Ok(())
    }

    pub(super) fn edit_address(
        &mut self,
        address: Address,
        edit: AddressEdit,
    ) -> Answer<Changed<AddressEntry>> {
        let before: Option<Vec<Target>> =
            self.get(self.tables.addresses, &address_key(&address))?;
        if before.is_none() && edit.add.is_empty() {
            return Err(EngineError::NotFound);
        }
        let mut targets = before.unwrap_or_default();
        for gone in &edit.remove {
            let place = targets.iter().position(|target| target == gone);
            let place = place.ok_or(EngineError::Invalid(
                "the address does not deliver to what shall be removed",
            ))?;
            targets.remove(place);
        }
        targets.extend(edit.add);
        targets.sort();
        targets.dedup();
        self.check_targets(&address, &targets)?;
        self.set_targets(&address, &targets)?;
        Ok(self.reply(AddressEntry { address, targets }))
    }

    pub(super) fn delete_address(&mut self, address: Address) -> Answer<Changed<AddressEntry>> {
        let key = address_key(&address);
        let targets = self
            .get(self.tables.addresses, &key)?
            .ok_or(EngineError::NotFound)?;
        self.set_targets(&address, &[])?;
        Ok(self.reply(AddressEntry { address, targets }))
    }

    /// Writes the targets of an address and keeps `deliveries` in step; none removes the address.
    pub(super) fn set_targets(&mut self, address: &Address, targets: &[Target]) -> Answer<()> {
        let key = address_key(address);
        let before: Vec<Target> = self.get(self.tables.addresses, &key)?.unwrap_or_default();
        if before == targets {
            return Ok(());
        }
        for target in &before {
            if let Target::Account(account) = target {
                self.tables
                    .deliveries
                    .delete(self.txn, &delivery_key(*account, &key))?;
            }
        }
        for target in targets {
            if let Target::Account(account) = target {
                self.tables
                    .deliveries
                    .put(self.txn, &delivery_key(*account, &key), b"")?;
            }
        }
        if targets.is_empty() {
            self.tables.addresses.delete(self.txn, &key)?;
        } else {
            self.put(self.tables.addresses, &key, &targets)?;
        }
        self.changed(ChangeKind::Address, address.as_str())
    }

    /// The addresses that deliver to an account itself.
    fn deliveries(&self, account: AccountId) -> Answer<Vec<Vec<u8>>> {
        let rows = self
            .tables
            .deliveries
            .prefix_iter(self.txn, &account_key(account))?;
        rows.map(|row| Ok(row?.0[8..].to_vec())).collect()
    }

    /// The verdicts on the addresses of an account are others from now on, though the addresses
    /// are not: who keeps one is told.
    pub(super) fn verdicts_changed(&mut self, account: AccountId) -> Answer<()> {
        for key in self.deliveries(account)? {
            let address = address_of(&key)?;
            self.changed(ChangeKind::Address, address.as_str())?;
        }
        Ok(())
    }

    /// Takes an account out of every address that delivers to it; an address that delivered to
    /// nothing else goes.
    pub(super) fn forget_deliveries(&mut self, account: AccountId) -> Answer<()> {
        for key in self.deliveries(account)? {
            let address = address_of(&key)?;
            let mut targets: Vec<Target> =
                self.get(self.tables.addresses, &key)?.unwrap_or_default();
            targets.retain(|target| *target != Target::Account(account));
            self.set_targets(&address, &targets)?;
        }
        Ok(())
    }
}
