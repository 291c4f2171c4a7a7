//! What a row needs that the same file brings: on a trial nothing is there that came before.

use directory_api::wire::{ImportAccount, ImportDomain, ImportRow, ImportTarget};
use directory_api::{DomainName, LoginName};

use super::file::{Counted, login_hash};

/// What the file brings that others in it need.
pub(super) struct Needs<'a>(&'a Counted);

impl<'a> Needs<'a> {
    pub(super) fn new(counted: &'a Counted) -> Self {
        Self(counted)
    }

    /// The rows, as far as others need them, in their order.
    pub(super) fn of(&self, row: &ImportRow) -> Vec<ImportRow> {
        let mut needed = Vec::new();
        match row {
            ImportRow::Domain(domain) => {
                if let Some(of) = &domain.alias_of {
                    needed.extend(self.domain(of));
                }
            }
            ImportRow::Account(_) => {}
            ImportRow::Address(address) => {
                if let Ok(domain) = DomainName::new(address.address.domain()) {
                    let alias_of = self.0.domains.get(&domain).cloned().flatten();
                    needed.extend(alias_of.and_then(|of| self.domain(&of)));
                    needed.extend(self.domain(&domain));
                }
                for target in &address.targets {
                    if let ImportTarget::Login(name) = target {
                        needed.extend(self.account(name));
                    }
                }
            }
        }
        needed
    }

    fn domain(&self, name: &DomainName) -> Option<ImportRow> {
        let alias_of = self.0.domains.get(name)?.clone();
        let name = name.clone();
        Some(ImportRow::Domain(ImportDomain { name, alias_of }))
    }

    fn account(&self, name: &LoginName) -> Option<ImportRow> {
        let is_brought = self.0.logins.contains(&login_hash(name.as_str()));
        is_brought.then(|| {
            ImportRow::Account(ImportAccount {
                login_name: name.clone(),
                credential: None,
                status: None,
                services: None,
                quota_octets: None,
                quota_messages: None,
                backend: None,
                volume: None,
            })
        })
    }
}
