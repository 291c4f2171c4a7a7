//! Domains, addresses, and the walk from an address to accounts.

use std::collections::HashSet;

use directory_api::wire::{
    AddressEntry, ChangeKind, Changed, Domain, ListQuery, Located, LookupReply, LookupResult, Page,
    Target, Verdict, limit,
};
use directory_api::{AccountId, Address, DomainName};

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
                if next == 1 {
                    let ours = self
                        .domains
                        .get(txn, address.domain().as_bytes())?
                        .is_some();
                    let verdict = if ours {
                        Verdict::UnknownAddress
                    } else {
                        Verdict::UnknownDomain
                    };
                    return Ok(LookupResult {
                        address: step,
                        verdict,
                        via,
                    });
                }
                via.push(step);
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
            if let Some(HomeOnly { home, quota }) = row {
                located.push(Located {
                    account,
                    home,
                    quota,
                });
            }
        }
        // An alias of which nothing is left is nobody, but stays "unknown" only until it is mended.
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

    pub(super) fn list_domains(&self, txn: &Reader<'_>, query: &ListQuery) -> Answer<Page<Domain>> {
        let name_of = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
        let after = query
            .after
            .as_ref()
            .map(|name| name.to_lowercase().into_bytes());
        scan::page(
            self.domains,
            txn,
            query,
            after.as_deref(),
            name_of,
            |key, _| {
                let name = DomainName::new(name_of(key))
                    .map_err(|error| EngineError::Storage(Box::new(error)))?;
                Ok(scan::passes(query, name.as_str()).then_some(Domain { name }))
            },
        )
    }

    pub(super) fn domain(&self, txn: &Reader<'_>, name: &DomainName) -> Answer<Domain> {
        match self.domains.get(txn, name.as_str().as_bytes())? {
            Some(_) => Ok(Domain { name: name.clone() }),
            None => Err(EngineError::NotFound),
        }
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
    pub(super) fn put_domain(&mut self, name: DomainName) -> Answer<Changed<Domain>> {
        let key = name.as_str().as_bytes();
        if self.tables.domains.get(self.txn, key)?.is_none() {
            self.tables.domains.put(self.txn, key, b"{}")?;
            self.changed(ChangeKind::Domain, name.as_str())?;
        }
        Ok(self.reply(Domain { name }))
    }

    pub(super) fn delete_domain(&mut self, name: DomainName) -> Answer<Changed<Domain>> {
        let prefix = [name.as_str().as_bytes(), b"\0"].concat();
        if self
            .tables
            .addresses
            .prefix_iter(self.txn, &prefix)?
            .next()
            .is_some()
        {
            return Err(EngineError::InUse("the domain still has addresses"));
        }
        if !self
            .tables
            .domains
            .delete(self.txn, name.as_str().as_bytes())?
        {
            return Err(EngineError::NotFound);
        }
        self.changed(ChangeKind::Domain, name.as_str())?;
        Ok(self.reply(Domain { name }))
    }

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
        if targets.len() > limit::TARGETS_MAX {
            return Err(EngineError::Invalid("an address has at most 1,000 targets"));
        }
        let domain = DomainName::new(address.domain())
            .map_err(|_| EngineError::Invalid("the address's domain is no name"))?;
        if self
            .tables
            .domains
            .get(self.txn, domain.as_str().as_bytes())?
            .is_none()
        {
            return Err(EngineError::UnknownDomain(domain));
        }
        for target in &targets {
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

    /// Takes an account out of every address that delivers to it; an address that delivered to
    /// nothing else goes.
    pub(super) fn forget_deliveries(&mut self, account: AccountId) -> Answer<()> {
        let mut keys = Vec::new();
        for row in self
            .tables
            .deliveries
            .prefix_iter(self.txn, &account_key(account))?
        {
            keys.push(row?.0[8..].to_vec());
        }
        for key in keys {
            let address = address_of(&key)?;
            let mut targets: Vec<Target> =
                self.get(self.tables.addresses, &key)?.unwrap_or_default();
            targets.retain(|target| *target != Target::Account(account));
            self.set_targets(&address, &targets)?;
        }
        Ok(())
    }
}
