//! Many things brought at once. Each row checks everything before it writes, so that one that is
//! refused leaves nothing.

use std::borrow::Cow;

use directory_api::wire::{
    Changed, DomainPut, ImportAccount, ImportAddress, ImportDomain, ImportTarget, Target,
};
use directory_api::{AccountStatus, Quota, Service};

use super::accounts::{Backends, login_key};
use super::addresses::address_key;
use super::{Answer, EngineError, Table, Write};
use crate::engine::{AccountDraft, AccountEdit, Brought, ImportDraft, RowDraft, StoredCredential};

impl Write<'_> {
    pub(super) fn import(&mut self, import: ImportDraft) -> Answer<Changed<Vec<Answer<Brought>>>> {
        self.fetch(&import.rows)?;
        let mut backends = Backends::read(self)?;
        let (update, passwords) = (import.update, import.update_passwords);
        let mut outcomes = Vec::with_capacity(import.rows.len());
        for row in import.rows {
            let outcome = match row {
                RowDraft::Domain(domain) => self.import_domain(domain, update),
                RowDraft::Address(address) => self.import_address(address, update),
                RowDraft::Account(account, credential) => {
                    let update = Update {
                        all: update,
                        passwords,
                    };
                    self.import_account(account, credential, update, &mut backends)
                }
            };
            match outcome {
                Err(EngineError::Storage(error)) => return Err(EngineError::Storage(error)),
                outcome => outcomes.push(outcome),
            }
        }
        backends.write(self)?;
        Ok(self.reply(outcomes))
    }

    fn fetch(&mut self, rows: &[RowDraft]) -> Answer<()> {
        let (mut domains, mut addresses, mut logins) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            match row {
                RowDraft::Domain(row) => domains.push(row.name.as_str().as_bytes().to_vec()),
                RowDraft::Account(row, _) => logins.push(login_key(&row.login_name).to_vec()),
                RowDraft::Address(row) => {
                    addresses.push(address_key(&row.address));
                    domains.push(row.address.domain().as_bytes().to_vec());
                    for target in &row.targets {
                        if let ImportTarget::Login(name) = target {
                            logins.push(login_key(name).to_vec());
                        }
                    }
                }
            }
        }
        domains.sort();
        domains.dedup();
        self.rows.fetch(Table::Domains, &domains)?;
        self.rows.fetch(Table::Addresses, &addresses)?;
        // An account that is there already is compared with its row.
        let found = self.rows.get_all(Table::Logins, &logins)?;
        let accounts: Vec<_> = found.into_iter().flatten().map(Cow::into_owned).collect();
        self.rows.fetch(Table::Accounts, &accounts)
    }

    fn import_domain(&mut self, row: ImportDomain, update: bool) -> Answer<Brought> {
        let before = self.view().domain_row(row.name.as_str())?;
        let put = DomainPut {
            alias_of: row.alias_of,
            own: false,
        };
        let brought = match before {
            None => Brought::Created,
            // A list of names says of none what it is an alias of: aliases stay what they are.
            Some(before) if put.alias_of.is_none() || before.alias_of == put.alias_of => {
                return Ok(Brought::Equal);
            }
            Some(_) if update => Brought::Updated,
            Some(before) => {
                let what = before
                    .alias_of
                    .map_or("has addresses of its own".to_owned(), |of| {
                        format!("is an alias of {of}")
                    });
                return Err(EngineError::Exists(format!(
                    "domain {}, which {what},",
                    row.name
                )));
            }
        };
        self.put_domain(row.name, put)?;
        Ok(brought)
    }

    fn import_address(&mut self, row: ImportAddress, update: bool) -> Answer<Brought> {
        let mut targets = Vec::with_capacity(row.targets.len());
        for target in row.targets {
            targets.push(match target {
                ImportTarget::Account(account) => Target::Account(account),
                ImportTarget::Address(address) => Target::Address(address),
                ImportTarget::Login(name) => match self.view().account_of(&name)? {
                    Some((account, _)) => Target::Account(account),
                    None => return Err(EngineError::UnknownLogin(name)),
                },
            });
        }
        targets.sort();
        targets.dedup();
        let key = address_key(&row.address);
        let before: Option<Vec<Target>> = self.view().read(Table::Addresses, &key)?;
        let brought = match before {
            None => Brought::Created,
            Some(before) if before == targets => return Ok(Brought::Equal),
            Some(_) if update => Brought::Updated,
            Some(before) => {
                return Err(EngineError::Exists(format!(
                    "address {}, with {} other targets,",
                    row.address,
                    before.len()
                )));
            }
        };
        self.put_address(row.address, targets)?;
        Ok(brought)
    }

    fn import_account(
        &mut self,
        row: ImportAccount,
        credential: Option<StoredCredential>,
        update: Update,
        backends: &mut Backends,
    ) -> Answer<Brought> {
        let Some((id, before)) = self.view().account_of(&row.login_name)? else {
            let draft = AccountDraft {
                login_name: row.login_name,
                credential,
                addresses: Vec::new(),
                status: row.status.unwrap_or(AccountStatus::Active),
                services: row.services.unwrap_or_else(|| Service::ALL.to_vec()),
                quota_octets: row.quota_octets.filter(|most| *most > 0),
                quota_messages: row.quota_messages.filter(|most| *most > 0),
                backend: row.backend,
                volume: row.volume,
            };
            self.create_one(draft, backends)?;
            return Ok(Brought::Created);
        };
        let Quota {
            octets, messages, ..
        } = before.quota;
        let differs = |wanted: Option<u64>, is: Option<u64>| {
            wanted.is_some_and(|most| most != is.unwrap_or(0))
        };
        let edit = AccountEdit {
            status: row.status.filter(|status| *status != before.status),
            services: row
                .services
                .filter(|services| !is_same(services, &before.services)),
            quota_octets: row
                .quota_octets
                .filter(|_| differs(row.quota_octets, octets)),
            quota_messages: row
                .quota_messages
                .filter(|_| differs(row.quota_messages, messages)),
            credential: credential.filter(|new| {
                let is_own =
                    |one: &StoredCredential| one.name.is_none() && one.secret == new.secret;
                update.passwords && !before.credentials.iter().any(is_own)
            }),
            ..AccountEdit::default()
        };
        let parts = [
            (edit.status.is_some(), "status"),
            (edit.services.is_some(), "services"),
            (edit.quota_octets.is_some(), "quota_octets"),
            (edit.quota_messages.is_some(), "quota_messages"),
        ];
        let other: Vec<&str> = parts
            .iter()
            .filter_map(|(differs, part)| differs.then_some(*part))
            .collect();
        if other.is_empty() && edit.credential.is_none() {
            return Ok(Brought::Equal);
        }
        if !other.is_empty() && !update.all {
            let (name, other) = (before.login_name, other.join(", "));
            return Err(EngineError::Exists(format!(
                "account {name}, with other {other},"
            )));
        }
        self.check_not_ldaps(id, &edit)?;
        self.change_account(id, edit)?;
        Ok(Brought::Updated)
    }
}

/// What of an account that is there may be changed.
#[derive(Clone, Copy)]
struct Update {
    all: bool,
    passwords: bool,
}

/// The order in which services are named says nothing.
fn is_same(one: &[Service], other: &[Service]) -> bool {
    one.iter().all(|service| other.contains(service))
        && other.iter().all(|service| one.contains(service))
}
