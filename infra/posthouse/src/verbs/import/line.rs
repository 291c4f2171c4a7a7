//! One line of a file that is imported or exported, as JSON or as CSV, and the row that it means.
//!
//! ```text
//! {"domain":"x.test"}                                {"domain":"y.test","alias_of":"x.test"}
//! {"account":"ann@x.test","hashed":"{SHA512-CRYPT}$6$…","quota_octets":1000000000}
//! {"address":"info@x.test","targets":["ann@x.test","=bob@x.test","#7"]}
//! ```
//!
//! A target is a login name, `=` and another address, or `#` and an account's number. In CSV the
//! first line names the columns by the same names, and lists stand in one field, with spaces between.

use std::fmt::Display;
use std::str::FromStr;

use directory_api::wire::{
    AddressEntry, Credential, Domain, ImportAccount, ImportAddress, ImportDomain, ImportRow,
    ImportTarget, Secret,
};
use directory_api::{AccountStatus, Service};
use serde::{Deserialize, Serialize};

use super::csv;

/// The fields of a line; which of them belong together, [`Line::row`] says.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) domain: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) alias_of: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) account: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hashed: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) password: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) services: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quota_octets: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quota_messages: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) backend: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) volume: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) targets: Option<Vec<String>>,
}

/// The columns of each kind of CSV file, as they are written; the first one makes the kind.
pub(crate) const DOMAIN: &[&str] = &["domain", "alias_of"];
pub(crate) const ACCOUNT: &[&str] = &[
    "account",
    "hashed",
    "password",
    "status",
    "services",
    "quota_octets",
    "quota_messages",
    "backend",
    "volume",
];
pub(crate) const ADDRESS: &[&str] = &["address", "targets"];

impl Line {
    /// Reads a line of JSON.
    pub(crate) fn from_json(text: &str) -> Result<Self, String> {
        serde_json::from_str(text)
            .map_err(|error| format!("{error}; a line is one JSON object, see --help"))
    }

    /// Takes the fields of a CSV record.
    pub(crate) fn from_fields(columns: &[String], fields: Vec<String>) -> Result<Self, String> {
        if fields.len() != columns.len() {
            return Err(format!(
                "{} fields, and the first line names {}",
                fields.len(),
                columns.len()
            ));
        }
        let mut line = Self::default();
        for (column, field) in columns.iter().zip(fields) {
            if !field.is_empty() {
                line.set(column, field)?;
            }
        }
        Ok(line)
    }

    fn set(&mut self, column: &str, field: String) -> Result<(), String> {
        let words = |field: &str| field.split_whitespace().map(str::to_owned).collect();
        match column {
            "domain" => self.domain = Some(field),
            "alias_of" => self.alias_of = Some(field),
            "account" => self.account = Some(field),
            "hashed" => self.hashed = Some(field),
            "password" => self.password = Some(field),
            "status" => self.status = Some(field),
            "services" => self.services = Some(words(&field)),
            "quota_octets" => self.quota_octets = Some(read(column, &field)?),
            "quota_messages" => self.quota_messages = Some(read(column, &field)?),
            "backend" => self.backend = Some(field),
            "volume" => self.volume = Some(field),
            "address" => self.address = Some(field),
            "targets" => self.targets = Some(words(&field)),
            other => return Err(unknown_column(other)),
        }
        Ok(())
    }

    /// Whether a column is called so.
    pub(super) fn has(column: &str) -> bool {
        [DOMAIN, ACCOUNT, ADDRESS].concat().contains(&column)
    }

    fn field(&self, column: &str) -> String {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let number = |value: Option<u64>| value.map_or(String::new(), |value| value.to_string());
        let words = |value: &Option<Vec<String>>| value.as_deref().unwrap_or_default().join(" ");
        match column {
            "domain" => text(&self.domain),
            "alias_of" => text(&self.alias_of),
            "account" => text(&self.account),
            "hashed" => text(&self.hashed),
            "password" => text(&self.password),
            "status" => text(&self.status),
            "services" => words(&self.services),
            "quota_octets" => number(self.quota_octets),
            "quota_messages" => number(self.quota_messages),
            "backend" => text(&self.backend),
            "volume" => text(&self.volume),
            "address" => text(&self.address),
            _ => words(&self.targets),
        }
    }

    /// The line as CSV, in these columns.
    pub(crate) fn to_csv(&self, columns: &[&str]) -> String {
        let fields: Vec<String> = columns.iter().map(|column| self.field(column)).collect();
        csv::joined(fields.iter().map(String::as_str))
    }

    /// What the line wants.
    pub(crate) fn row(self) -> Result<ImportRow, String> {
        let columns = match (&self.domain, &self.account, &self.address) {
            (Some(_), None, None) => DOMAIN,
            (None, Some(_), None) => ACCOUNT,
            (None, None, Some(_)) => ADDRESS,
            _ => {
                return Err("a line has exactly one of domain, account and address".to_owned());
            }
        };
        let stranger = [DOMAIN, ACCOUNT, ADDRESS]
            .concat()
            .into_iter()
            .find(|column| !columns.contains(column) && !self.field(column).is_empty());
        if let Some(stranger) = stranger {
            return Err(format!("{stranger} says nothing about the {}", columns[0]));
        }
        if let Some(name) = self.domain {
            return Ok(ImportRow::Domain(ImportDomain {
                name: read("domain", &name)?,
                alias_of: optional("alias_of", self.alias_of.as_deref())?,
            }));
        }
        if let Some(address) = self.address {
            let texts = self.targets.unwrap_or_default();
            if texts.is_empty() {
                return Err("targets is empty; an address delivers to something".to_owned());
            }
            let targets = texts.iter().map(|text| target(text));
            return Ok(ImportRow::Address(ImportAddress {
                address: read("address", &address)?,
                targets: targets.collect::<Result<_, _>>()?,
            }));
        }
        let credential = match (self.hashed, self.password) {
            (Some(_), Some(_)) => return Err("hashed and password are two passwords".to_owned()),
            (Some(hashed), None) => Some(hashed),
            // Hashed slowly by the next login, not now: a file of them would take hours.
            (None, Some(password)) => Some(format!("{{PLAIN}}{password}")),
            (None, None) => None,
        };
        let services = self.services.map(|names| {
            let named = names.iter().map(|name| service(name));
            named.collect::<Result<Vec<Service>, String>>()
        });
        Ok(ImportRow::Account(ImportAccount {
            login_name: read("account", &self.account.unwrap_or_default())?,
            credential: credential.map(|text| Credential::Hashed(Secret::new(text))),
            status: self.status.as_deref().map(status).transpose()?,
            services: services.transpose()?,
            quota_octets: self.quota_octets,
            quota_messages: self.quota_messages,
            backend: optional("backend", self.backend.as_deref())?,
            volume: optional("volume", self.volume.as_deref())?,
        }))
    }

    /// A domain as it is exported.
    pub(crate) fn of_domain(domain: Domain) -> Self {
        Self {
            domain: Some(domain.name.into()),
            alias_of: domain.alias_of.map(Into::into),
            ..Self::default()
        }
    }

    /// An account as it is exported: without its passwords, which the directory gives to nobody.
    pub(crate) fn of_account(account: &directory_api::wire::Account) -> Self {
        let name = |service: &Service| service.as_str().to_owned();
        Self {
            account: Some(account.login_name.to_string()),
            status: Some(format!("{:?}", account.status).to_lowercase()),
            services: Some(account.services.iter().map(name).collect()),
            quota_octets: account.quota_octets,
            quota_messages: account.quota_messages,
            backend: Some(account.home.backend.to_string()),
            volume: Some(account.home.volume.to_string()),
            ..Self::default()
        }
    }

    /// An address as it is exported; `login` tells an account's login name.
    pub(crate) fn of_address(
        entry: AddressEntry,
        login: impl Fn(directory_api::AccountId) -> Option<String>,
    ) -> Self {
        use directory_api::wire::Target;
        let target = |target| match target {
            Target::Address(address) => format!("={address}"),
            Target::Account(account) => login(account).unwrap_or_else(|| format!("#{account}")),
        };
        Self {
            address: Some(entry.address.into()),
            targets: Some(entry.targets.into_iter().map(target).collect()),
            ..Self::default()
        }
    }
}

pub(super) fn unknown_column(name: &str) -> String {
    format!(
        "no column is called {name:?}; there are {}; {}; {}",
        DOMAIN.join(", "),
        ACCOUNT.join(", "),
        ADDRESS.join(", ")
    )
}

fn read<T: FromStr<Err: Display>>(what: &str, text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|error| format!("{what} {text:?}: {error}"))
}

fn optional<T: FromStr<Err: Display>>(what: &str, text: Option<&str>) -> Result<Option<T>, String> {
    text.map(|text| read(what, text)).transpose()
}

fn target(text: &str) -> Result<ImportTarget, String> {
    if let Some(address) = text.strip_prefix('=') {
        return Ok(ImportTarget::Address(read("target", address)?));
    }
    if let Some(number) = text.strip_prefix('#') {
        return Ok(ImportTarget::Account(read("target", number)?));
    }
    Ok(ImportTarget::Login(read("target", text)?))
}

fn service(name: &str) -> Result<Service, String> {
    let found = Service::ALL.into_iter().find(|one| one.as_str() == name);
    found.ok_or_else(|| {
        let all = Service::ALL.map(Service::as_str).join(", ");
        format!("no service is called {name:?}; there are {all}")
    })
}

fn status(name: &str) -> Result<AccountStatus, String> {
    match name {
        "active" => Ok(AccountStatus::Active),
        "suspended" => Ok(AccountStatus::Suspended),
        "closing" => Ok(AccountStatus::Closing),
        _ => Err(format!(
            "no status is called {name:?}; there are active, suspended, closing"
        )),
    }
}
