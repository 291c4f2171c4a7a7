//! Domains, and domains that are another name of one.
//!
//! An alias has no addresses and no aliases of its own, and the domain it is of is none: there is
//! one step, never a chain or a loop, and no address is in two places.

use std::ops::Bound;

use directory_api::wire::{ChangeKind, Changed, Domain, DomainPut, ListQuery, Page};
use directory_api::{Address, DomainName, LoginName};

use super::{Answer, EngineError, Table, View, Write, beginning_with, decode, scan};
use crate::engine::record::DomainRow;

impl View<'_> {
    pub(super) fn domain_row(&self, name: &str) -> Answer<Option<DomainRow>> {
        self.read(Table::Domains, name.as_bytes())
    }

    /// What stands for a login name in a domain that is an alias.
    pub(super) fn other_login_name(&self, name: &LoginName) -> Answer<Option<LoginName>> {
        let Ok(address) = name.as_str().parse::<Address>() else {
            return Ok(None);
        };
        let row = self.domain_row(address.domain())?;
        let of = row.and_then(|row| row.alias_of);
        Ok(of.and_then(|of| LoginName::new(format!("{}@{of}", address.local())).ok()))
    }

    pub(super) fn list_domains(&self, query: &ListQuery) -> Answer<Page<Domain>> {
        let name_of = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
        let after = query
            .after
            .as_ref()
            .map(|name| name.to_lowercase().into_bytes());
        scan::page(
            self.rows,
            Table::Domains,
            query,
            after.as_deref(),
            name_of,
            |key, row| {
                let name = DomainName::new(name_of(key))
                    .map_err(|error| EngineError::Storage(Box::new(error)))?;
                if !scan::passes(query, name.as_str()) {
                    return Ok(None);
                }
                let DomainRow { alias_of } = decode(row)?;
                Ok(Some(Domain { name, alias_of }))
            },
        )
    }

    pub(super) fn domain(&self, name: &DomainName) -> Answer<Domain> {
        let row = self.domain_row(name.as_str())?;
        let DomainRow { alias_of } = row.ok_or(EngineError::NotFound)?;
        Ok(Domain {
            name: name.clone(),
            alias_of,
        })
    }
}

impl Write<'_> {
    pub(super) fn put_domain(
        &mut self,
        name: DomainName,
        put: DomainPut,
    ) -> Answer<Changed<Domain>> {
        if put.own && put.alias_of.is_some() {
            return Err(EngineError::Invalid("a domain is its own or an alias"));
        }
        let before = self.view().domain_row(name.as_str())?;
        let stays = before.as_ref().filter(|_| !put.own);
        let stays = stays.and_then(|before| before.alias_of.clone());
        let wanted = DomainRow {
            alias_of: put.alias_of.or(stays),
        };
        if before.as_ref() != Some(&wanted) {
            if let Some(of) = &wanted.alias_of {
                self.check_alias(&name, of, before.as_ref())?;
            }
            self.put(Table::Domains, name.as_str().as_bytes(), &wanted)?;
            self.changed(ChangeKind::Domain, name.as_str())?;
        }
        Ok(self.reply(Domain {
            name,
            alias_of: wanted.alias_of,
        }))
    }

    fn check_alias(
        &self,
        name: &DomainName,
        of: &DomainName,
        before: Option<&DomainRow>,
    ) -> Answer<()> {
        let row = self.view().domain_row(of.as_str())?;
        let row = row.ok_or_else(|| EngineError::UnknownDomain(of.clone()))?;
        if name == of || row.alias_of.is_some() {
            return Err(EngineError::Invalid(
                "an alias is of a domain that is none itself",
            ));
        }
        // Only a domain of its own has either, and to look for aliases goes through all domains: a
        // file of new aliases would cost the square of their number.
        if before.is_none_or(|before| before.alias_of.is_some()) {
            return Ok(());
        }
        if self.has_addresses(name)? {
            return Err(EngineError::InUse(
                "the domain has addresses of its own, remove them before it becomes an alias",
            ));
        }
        if self.has_aliases(name)? {
            return Err(EngineError::InUse("other domains are aliases of this one"));
        }
        Ok(())
    }

    fn has_addresses(&self, name: &DomainName) -> Answer<bool> {
        let prefix = [name.as_str().as_bytes(), b"\0"].concat();
        let mut rows = beginning_with(self.rows.as_rows(), Table::Addresses, &prefix)?;
        Ok(rows.next().transpose()?.is_some())
    }

    /// Looks through all domains: some milliseconds for ten thousand, and seldom asked.
    fn has_aliases(&self, name: &DomainName) -> Answer<bool> {
        let domains = self.view().rows.walk(Table::Domains, Bound::Unbounded)?;
        for row in domains {
            let DomainRow { alias_of } = decode(&row?.1)?;
            if alias_of.as_ref() == Some(name) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// An address may stand only in a domain of ours that is no alias.
    pub(super) fn check_domain(&self, address: &Address) -> Answer<()> {
        let domain = DomainName::new(address.domain())
            .map_err(|_| EngineError::Invalid("the address's domain is no name"))?;
        match self.view().domain_row(domain.as_str())? {
            None => Err(EngineError::UnknownDomain(domain)),
            Some(DomainRow { alias_of: Some(of) }) => Err(EngineError::AliasDomain { domain, of }),
            Some(DomainRow { alias_of: None }) => Ok(()),
        }
    }

    pub(super) fn delete_domain(&mut self, name: &DomainName) -> Answer<Changed<Domain>> {
        let was = self.view().domain(name)?;
        if self.has_addresses(name)? {
            return Err(EngineError::InUse("the domain still has addresses"));
        }
        if self.has_aliases(name)? {
            return Err(EngineError::InUse("other domains are aliases of this one"));
        }
        self.rows.delete(Table::Domains, name.as_str().as_bytes())?;
        self.changed(ChangeKind::Domain, name.as_str())?;
        Ok(self.reply(was))
    }
}
