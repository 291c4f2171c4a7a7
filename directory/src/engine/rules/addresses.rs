//! Addresses, and the walk from one to accounts.

use std::collections::{BTreeSet, HashMap, HashSet};

use directory_api::wire::{
    AddressEdit, AddressEntry, ChangeKind, Changed, ListQuery, Located, LookupReply, LookupResult,
    Page, Target, Verdict, limit,
};
use directory_api::{AccountId, AccountStatus, Address, ChangeNumber};

use super::{Answer, EngineError, Octets, Table, View, Write, account_key, decode, number, scan};
use crate::engine::record::{DomainRow, HomeOnly};

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

impl View<'_> {
    pub(super) fn lookup(&self, addresses: &[Address]) -> Answer<LookupReply> {
        let mut change = None;
        let mut results = Vec::with_capacity(addresses.len());
        for addresses in addresses.chunks(WALKED_AT_ONCE) {
            results.extend(self.walk(addresses, &mut change)?);
        }
        let change = change.map_or_else(|| self.last_change(), Ok)?;
        Ok(LookupReply { change, results })
    }

    /// Walks from some addresses at once, a step of each one's aliases a round: where rows come over a wire,
    /// the rounds count and not the addresses.
    /// The newest change of all comes with the first rows.
    fn walk(
        &self,
        addresses: &[Address],
        change: &mut Option<ChangeNumber>,
    ) -> Answer<impl Iterator<Item = LookupResult>> {
        let mut walks: Vec<Walk<'_>> = addresses.iter().map(Walk::from).collect();
        loop {
            let mut steps = Vec::new();
            for (number, walk) in walks.iter_mut().enumerate() {
                steps.extend(walk.round().map(|step| (number, step)));
            }
            if steps.is_empty() {
                break;
            }
            let mut absent = Vec::new();
            while !steps.is_empty() {
                let some = steps.drain(..steps.len().min(STEPS_AT_ONCE)).collect();
                self.take_steps(some, &mut walks, &mut absent, change)?;
            }
            let domains = self.domains_of(&absent)?;
            for (number, step) in absent {
                walks[number].absent(step, &domains);
            }
        }
        let accounts = self.located(&walks)?;
        Ok(walks.into_iter().map(move |walk| walk.end(&accounts)))
    }

    fn take_steps(
        &self,
        steps: Vec<(usize, Step)>,
        walks: &mut [Walk<'_>],
        absent: &mut Vec<(usize, Step)>,
        change: &mut Option<ChangeNumber>,
    ) -> Answer<()> {
        let names: Vec<Vec<Name>> = steps.iter().map(|(_, step)| step.names()).collect();
        let keys = names
            .iter()
            .flatten()
            .map(|name| address_key(&name.address));
        let mut rows = self
            .rows_and_change(&keys.collect::<Vec<_>>(), change)?
            .into_iter();
        for ((number, step), names) in steps.into_iter().zip(names) {
            let rows: Vec<_> = rows.by_ref().take(names.len()).collect();
            let mut found = None;
            for (name, row) in names.into_iter().zip(rows) {
                walks[number].passed(&name.address);
                if let Some(row) = row {
                    found = Some((name, decode(&row)?));
                    break;
                }
            }
            match found {
                Some((name, targets)) => walks[number].found(&step, &name, targets)?,
                None => absent.push((number, step)),
            }
        }
        Ok(())
    }

    fn rows_and_change(
        &self,
        keys: &[Vec<u8>],
        change: &mut Option<ChangeNumber>,
    ) -> Answer<Vec<Option<Octets<'_>>>> {
        if change.is_some() {
            return self.rows.get_all(Table::Addresses, keys);
        }
        let last_of = Table::Changes;
        let (rows, last) = self
            .rows
            .get_all_and_last_key(Table::Addresses, keys, last_of)?;
        *change = Some(ChangeNumber(last.map_or(0, |key| number(&key))));
        Ok(rows)
    }

    fn domains_of(&self, absent: &[(usize, Step)]) -> Answer<HashMap<String, DomainRow>> {
        let names: BTreeSet<&str> = absent
            .iter()
            .map(|(_, step)| step.address.domain())
            .collect();
        let keys: Vec<_> = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut domains = HashMap::new();
        for (name, row) in names
            .into_iter()
            .zip(self.rows.get_all(Table::Domains, &keys)?)
        {
            if let Some(row) = row {
                domains.insert(name.to_owned(), decode(&row)?);
            }
        }
        Ok(domains)
    }

    /// Where the accounts that were come to live; those that get no mail are not among them.
    fn located(&self, walks: &[Walk<'_>]) -> Answer<HashMap<AccountId, Located>> {
        let accounts: BTreeSet<AccountId> = walks
            .iter()
            .flat_map(|walk| &walk.accounts)
            .map(|reached| reached.account)
            .collect();
        let accounts: Vec<_> = accounts.into_iter().collect();
        let mut located = HashMap::with_capacity(accounts.len());
        for some in accounts.chunks(ROWS_AT_ONCE) {
            let keys: Vec<_> = some.iter().map(|one| account_key(*one).to_vec()).collect();
            let rows = self.rows.get_all(Table::Accounts, &keys)?;
            for (account, row) in some.iter().copied().zip(rows) {
                let row: Option<HomeOnly> = row.map(|row| decode(&row)).transpose()?;
                let Some(row) = row.filter(|row| row.status != AccountStatus::Closing) else {
                    continue;
                };
                let HomeOnly { home, quota, .. } = row;
                located.insert(
                    account,
                    Located {
                        account,
                        home,
                        quota,
                        detail: None,
                        is_caught: false,
                    },
                );
            }
        }
        Ok(located)
    }

    pub(super) fn list_addresses(&self, query: &ListQuery) -> Answer<Page<AddressEntry>> {
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
            self.rows,
            Table::Addresses,
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

    pub(super) fn address(&self, address: Address) -> Answer<AddressEntry> {
        let targets = self.read(Table::Addresses, &address_key(&address))?;
        Ok(AddressEntry {
            address,
            targets: targets.ok_or(EngineError::NotFound)?,
        })
    }
}

/// As many as most senders name in one transaction. Each may come to a thousand targets, all in memory.
const WALKED_AT_ONCE: usize = 100;
/// Rows in memory at once, each up to some hundred thousand octets.
const ROWS_AT_ONCE: usize = 256;
/// Each asks for three rows at most.
const STEPS_AT_ONCE: usize = 85;

/// The way from one address to accounts, breadth first. Each address is visited once, so loops end. Beyond the
/// limit of targets there is no verdict: mail accepted for a part of them would be lost to the rest (P1).
struct Walk<'a> {
    from: &'a Address,
    is_ours: bool,
    next: Vec<Step>,
    seen: HashSet<Address>,
    accounts: Vec<Reached>,
    external: Vec<Address>,
    via: Vec<Address>,
    steps_left: usize,
    is_derived: bool,
}

/// An address on the way.
struct Step {
    address: Address,
    /// The address that was asked for, or the same in the domain of which its own is another name.
    is_asked: bool,
    /// Of the subaddress before it; its own comes before that.
    detail: Option<String>,
    is_caught: bool,
}

/// A name under which a step may be found.
struct Name {
    address: Address,
    detail: Option<String>,
    is_catch_all: bool,
}

/// An account, and how the first way to it came there.
struct Reached {
    account: AccountId,
    detail: Option<String>,
    is_caught: bool,
}

impl Step {
    /// What it may be found as, the first that is there: itself, itself without the detail, or the domain's catch-all. That is
    /// for who writes to the domain: what an alias leads to was meant to be there, and is nobody's when it has gone.
    fn names(&self) -> Vec<Name> {
        let mut names = vec![Name::new(self.address.clone(), self.detail.as_deref())];
        let subaddress = self.address.subaddress();
        names.extend(subaddress.map(|(address, detail)| Name::new(address, Some(detail))));
        let catch_all = self.address.catch_all();
        if self.is_asked && names.iter().all(|name| name.address != catch_all) {
            names.push(Name::new(catch_all, None));
        }
        names
    }
}

impl Name {
    fn new(address: Address, detail: Option<&str>) -> Self {
        // Also of who writes to `*@x.test` itself.
        let is_catch_all = address == address.catch_all();
        let detail = detail.filter(|_| !is_catch_all).map(str::to_owned);
        Self {
            address,
            detail,
            is_catch_all,
        }
    }
}

impl<'a> From<&'a Address> for Walk<'a> {
    fn from(from: &'a Address) -> Self {
        Self {
            from,
            is_ours: true,
            next: vec![Step {
                address: from.clone(),
                is_asked: true,
                detail: None,
                is_caught: false,
            }],
            seen: HashSet::from([from.clone()]),
            accounts: Vec::new(),
            external: Vec::new(),
            via: Vec::new(),
            steps_left: limit::TARGETS_MAX,
            is_derived: false,
        }
    }
}

impl Walk<'_> {
    /// The addresses to look at next, in their order.
    fn round(&mut self) -> impl Iterator<Item = Step> + use<> {
        std::mem::take(&mut self.next).into_iter()
    }

    fn found(&mut self, step: &Step, name: &Name, targets: Vec<Target>) -> Answer<()> {
        let is_caught = step.is_caught || name.is_catch_all;
        if step.is_asked {
            self.is_derived = name.is_catch_all || name.address != step.address;
        }
        // Of several users each has mailboxes of his own: a detail means none of them.
        let detail = name.detail.as_ref().filter(|_| targets.len() == 1);
        for target in targets {
            if self.steps_left == 0 {
                let address = self.from;
                tracing::warn!(%address, "address comes to more targets than the limit, mail for it is deferred");
                return Err(EngineError::TooManyTargets(address.clone()));
            }
            self.steps_left -= 1;
            match target {
                Target::Account(account) => {
                    if !self.accounts.iter().any(|one| one.account == account) {
                        self.accounts.push(Reached {
                            account,
                            detail: detail.cloned(),
                            is_caught,
                        });
                    }
                }
                Target::Address(address) => self.go_to(Step {
                    address,
                    is_asked: false,
                    detail: detail.cloned(),
                    is_caught,
                }),
            }
        }
        Ok(())
    }

    /// An alias of a domain has no addresses of its own, so it is looked for only where there is no address.
    fn absent(&mut self, step: Step, domains: &HashMap<String, DomainRow>) {
        let domain = domains.get(step.address.domain());
        if step.address == *self.from {
            self.is_ours = domain.is_some();
        } else if domain.is_none() {
            self.external.push(step.address);
            return;
        }
        let other_name = domain
            .and_then(|row| row.alias_of.as_ref())
            .and_then(|of| Address::new(step.address.local(), of.as_str()).ok());
        if let Some(address) = other_name {
            self.go_to(Step { address, ..step });
        }
    }

    fn go_to(&mut self, step: Step) {
        if self.seen.insert(step.address.clone()) {
            self.next.push(step);
        }
    }

    /// Whatever becomes of this name makes another verdict.
    fn passed(&mut self, name: &Address) {
        if name != self.from {
            self.via.push(name.clone());
        }
    }

    fn end(self, located: &HashMap<AccountId, Located>) -> LookupResult {
        let found = self.accounts.into_iter().filter_map(|reached| {
            let located = located.get(&reached.account)?.clone();
            Some(Located {
                detail: reached.detail,
                is_caught: reached.is_caught,
                ..located
            })
        });
        let accounts: Vec<Located> = found.collect();
        // An alias of which nothing is left is nobody, but stays "unknown" only until it is mended. So is an
        // account that is being closed: its senders are told what they will be told when it is gone.
        let verdict = match (self.is_ours, accounts.is_empty(), self.external.is_empty()) {
            (false, ..) => Verdict::UnknownDomain,
            (true, true, true) => Verdict::UnknownAddress,
            (true, false, true) => Verdict::Accounts(accounts),
            (true, _, false) => Verdict::External {
                accounts,
                external: self.external,
            },
        };
        LookupResult {
            address: self.from.clone(),
            verdict,
            via: self.via,
            is_derived: self.is_derived,
        }
    }
}

impl Write<'_> {
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
        self.check_keeps_ldaps(&address, &targets)?;
        self.set_targets(&address, &targets)?;
        Ok(self.reply(AddressEntry { address, targets }))
    }

    fn check_targets(&self, address: &Address, targets: &[Target]) -> Answer<()> {
        if targets.len() > limit::TARGETS_MAX {
            return Err(EngineError::Invalid("an address has at most 1,000 targets"));
        }
        self.check_domain(address)?;
        let accounts: Vec<AccountId> = targets
            .iter()
            .filter_map(|target| match target {
                Target::Account(account) => Some(*account),
                Target::Address(_) => None,
            })
            .collect();
        let keys: Vec<_> = accounts
            .iter()
            .map(|one| account_key(*one).to_vec())
            .collect();
        let rows = self.rows.get_all(Table::Accounts, &keys)?;
        match accounts
            .into_iter()
            .zip(rows)
            .find(|(_, row)| row.is_none())
        {
            Some((account, _)) => Err(EngineError::UnknownAccount(account)),
            None => Ok(()),
        }
    }

    pub(super) fn edit_address(
        &mut self,
        address: Address,
        edit: AddressEdit,
    ) -> Answer<Changed<AddressEntry>> {
        let before: Option<Vec<Target>> =
            self.view().read(Table::Addresses, &address_key(&address))?;
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
        self.check_keeps_ldaps(&address, &targets)?;
        self.set_targets(&address, &targets)?;
        Ok(self.reply(AddressEntry { address, targets }))
    }

    pub(super) fn delete_address(&mut self, address: Address) -> Answer<Changed<AddressEntry>> {
        let key = address_key(&address);
        let targets = self
            .view()
            .read(Table::Addresses, &key)?
            .ok_or(EngineError::NotFound)?;
        self.check_keeps_ldaps(&address, &[])?;
        self.set_targets(&address, &[])?;
        Ok(self.reply(AddressEntry { address, targets }))
    }

    /// Writes the targets of an address and keeps `deliveries` in step; none removes the address.
    pub(super) fn set_targets(&mut self, address: &Address, targets: &[Target]) -> Answer<()> {
        let key = address_key(address);
        let before: Vec<Target> = self
            .view()
            .read(Table::Addresses, &key)?
            .unwrap_or_default();
        if before == targets {
            return Ok(());
        }
        for target in &before {
            if let Target::Account(account) = target {
                self.rows
                    .delete(Table::Deliveries, &delivery_key(*account, &key))?;
            }
        }
        for target in targets {
            if let Target::Account(account) = target {
                self.rows
                    .put(Table::Deliveries, &delivery_key(*account, &key), b"")?;
            }
        }
        if targets.is_empty() {
            self.rows.delete(Table::Addresses, &key)?;
        } else {
            self.put(Table::Addresses, &key, &targets)?;
        }
        self.changed(ChangeKind::Address, address.as_str())
    }

    /// The addresses that deliver to an account itself.
    fn deliveries(&self, account: AccountId) -> Answer<Vec<Vec<u8>>> {
        let mut keys = self.keys_beginning_with(Table::Deliveries, &account_key(account))?;
        for key in &mut keys {
            key.drain(..8);
        }
        Ok(keys)
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
            let mut targets: Vec<Target> = self
                .view()
                .read(Table::Addresses, &key)?
                .unwrap_or_default();
            targets.retain(|target| *target != Target::Account(account));
            self.set_targets(&address, &targets)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::borrow::Cow;
    use std::cell::Cell;
    use std::collections::BTreeMap;
    use std::ops::Bound;

    use super::super::Rows;
    use super::*;
    use crate::engine::rows;

    /// Rows that come over a wire: each question is a round trip.
    #[derive(Default)]
    struct Far {
        rows: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
        trips: Cell<usize>,
        most: Cell<usize>,
    }

    impl Rows for Far {
        fn get(&self, table: Table, key: &[u8]) -> Answer<Option<Octets<'_>>> {
            Ok(self.get_all(table, &[key.to_vec()])?.pop().flatten())
        }

        fn get_all(&self, table: Table, keys: &[Vec<u8>]) -> Answer<Vec<Option<Octets<'_>>>> {
            self.trips
                .set(self.trips.get() + usize::from(!keys.is_empty()));
            self.most.set(self.most.get().max(keys.len()));
            let row = |key: &Vec<u8>| self.rows.get(&(table, key.clone()));
            Ok(keys
                .iter()
                .map(|key| row(key).map(|row| Cow::Borrowed(&**row)))
                .collect())
        }

        fn get_all_and_last_key(
            &self,
            table: Table,
            keys: &[Vec<u8>],
            _: Table,
        ) -> Answer<(Vec<Option<Octets<'_>>>, Option<Octets<'_>>)> {
            Ok((self.get_all(table, keys)?, None))
        }

        fn walk(&self, _: Table, _: Bound<&[u8]>) -> Answer<rows::Walk<'_>> {
            unreachable!("a lookup reads rows by their keys")
        }

        fn last_key(&self, _: Table) -> Answer<Option<Octets<'_>>> {
            self.trips.set(self.trips.get() + 1);
            Ok(None)
        }
    }

    #[test]
    fn a_lookup_is_two_round_trips_and_holds_a_bounded_number_of_rows() {
        let mut far = Far::default();
        let names: Vec<Address> = (0..100)
            .map(|number| format!("a{number}+x@x.test").parse().unwrap())
            .collect();
        let target = serde_json::to_vec(&[Target::Account(AccountId(1))]).unwrap();
        for name in &names {
            far.rows
                .insert((Table::Addresses, address_key(name)), target.clone());
        }
        for (count, trips) in [(1, 2), (STEPS_AT_ONCE, 2), (100, 3)] {
            let results = View::of(&far).lookup(&names[..count]).unwrap().results;
            assert_eq!(results.len(), count);
            assert_eq!(far.trips.take(), trips, "{count}");
        }
        assert!(far.most.get() <= ROWS_AT_ONCE, "{}", far.most.get());
    }
}
