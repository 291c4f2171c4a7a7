//! One line of a file that is imported or exported, as JSON or as CSV, and the row that it means.
//!
//! ```text
//! {"domain":"x.test"}                                {"domain":"y.test","alias_of":"x.test"}
//! {"account":"ann@x.test","hashed":"{SHA512-CRYPT}$6$…","quota_octets":1000000000}
//! {"address":"info@x.test","targets":["ann@x.test","=bob@x.test","#7"]}
//! ```
//!
//! A target is a login name, `=` and another address, or `#` and an account's number; `\` stands
//! before a login name that begins with one of the three. In CSV the first line names the columns by
//! the same names, and lists stand in one field, with spaces between; `none` is no service at all.
//!
//! What is wrong with a line is said without its fields where it has a password: in a file whose
//! columns are shifted, any of them may be that.

use std::collections::HashMap;
use std::fmt::Display;
use std::str::FromStr;

use directory_api::wire::{
    AddressEntry, Credential, Domain, ImportAccount, ImportAddress, ImportDomain, ImportRow,
    ImportTarget, Secret, Target, limit,
};
use directory_api::{AccountId, AccountStatus, Service};
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
    pub(crate) hashed: Option<Secret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) password: Option<Secret>,
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
    /// A password may stand in any of them.
    #[serde(skip)]
    is_secret: bool,
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
        serde_json::from_str(text).map_err(|error| {
            if ["hashed", "password"].iter().any(|name| text.contains(name)) {
                let at = error.column();
                return format!(
                    "is wrong before its character {at}, which is not shown, for there is a password; \
                     a line is one JSON object, see --help"
                );
            }
            format!("{error}; a line is one JSON object, see --help")
        })
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
        let mut line = Self {
            is_secret: columns
                .iter()
                .any(|column| ["hashed", "password"].contains(&column.as_str())),
            ..Self::default()
        };
        for (column, field) in columns.iter().zip(fields) {
            if !field.is_empty() {
                line.set(column, field, line.fields())?;
            }
        }
        Ok(line)
    }

    fn fields(&self) -> Fields {
        if self.is_secret || self.hashed.is_some() || self.password.is_some() {
            Fields::Hidden
        } else {
            Fields::Shown
        }
    }

    fn set(&mut self, column: &str, field: String, fields: Fields) -> Result<(), String> {
        let words = |field: &str| field.split_whitespace().map(str::to_owned).collect();
        match column {
            "domain" => self.domain = Some(field),
            "alias_of" => self.alias_of = Some(field),
            "account" => self.account = Some(field),
            "hashed" => self.hashed = Some(Secret::new(field)),
            "password" => self.password = Some(Secret::new(field)),
            "status" => self.status = Some(field),
            "services" if field == NO_SERVICE => self.services = Some(Vec::new()),
            "services" => self.services = Some(words(&field)),
            "quota_octets" => self.quota_octets = Some(fields.read(column, &field)?),
            "quota_messages" => self.quota_messages = Some(fields.read(column, &field)?),
            "backend" => self.backend = Some(field),
            "volume" => self.volume = Some(field),
            "address" => self.address = Some(field),
            "targets" => self.targets = Some(words(&field)),
            _ => return Err("has a column of no name".to_owned()),
        }
        Ok(())
    }

    /// Whether a column is called so.
    pub(super) fn has(column: &str) -> bool {
        [DOMAIN, ACCOUNT, ADDRESS].concat().contains(&column)
    }

    fn field(&self, column: &str) -> String {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let secret = |value: &Option<Secret>| value.as_ref().map_or("", Secret::reveal).to_owned();
        let number = |value: Option<u64>| value.map_or(String::new(), |value| value.to_string());
        let words = |value: &Option<Vec<String>>| value.as_deref().unwrap_or_default().join(" ");
        match column {
            "domain" => text(&self.domain),
            "alias_of" => text(&self.alias_of),
            "account" => text(&self.account),
            "hashed" => secret(&self.hashed),
            "password" => secret(&self.password),
            "status" => text(&self.status),
            "services" if self.services.as_ref().is_some_and(Vec::is_empty) => {
                NO_SERVICE.to_owned()
            }
            "services" => words(&self.services),
            "quota_octets" => number(self.quota_octets),
            "quota_messages" => number(self.quota_messages),
            "backend" => text(&self.backend),
            "volume" => text(&self.volume),
            "address" => text(&self.address),
            _ => words(&self.targets),
        }
    }

    /// The line as CSV, in these columns; none, when a target holds what stands between targets.
    pub(crate) fn to_csv(&self, columns: &[&str]) -> Option<String> {
        let has_space = |target: &String| target.contains(char::is_whitespace);
        if self.targets.iter().flatten().any(has_space) {
            return None;
        }
        let fields: Vec<String> = columns.iter().map(|column| self.field(column)).collect();
        Some(csv::joined(fields.iter().map(String::as_str)))
    }

    /// What the line wants.
    pub(crate) fn row(self) -> Result<ImportRow, String> {
        let fields = self.fields();
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
                name: fields.read("domain", &name)?,
                alias_of: fields.optional("alias_of", self.alias_of.as_deref())?,
            }));
        }
        if let Some(address) = self.address {
            let texts = self.targets.unwrap_or_default();
            if texts.is_empty() {
                return Err("targets is empty; an address delivers to something".to_owned());
            }
            if texts.len() > limit::TARGETS_MAX {
                return Err(format!(
                    "has {} targets, and an address has at most {}",
                    texts.len(),
                    limit::TARGETS_MAX
                ));
            }
            let targets = texts.iter().map(|text| fields.target(text));
            return Ok(ImportRow::Address(ImportAddress {
                address: fields.read("address", &address)?,
                targets: targets.collect::<Result<_, _>>()?,
            }));
        }
        let credential = match (self.hashed, self.password) {
            (Some(_), Some(_)) => return Err("hashed and password are two passwords".to_owned()),
            (Some(hashed), None) => Some(hashed),
            // Hashed slowly by the next login, not now: a file of them would take hours.
            (None, Some(password)) => Some(Secret::new(format!("{{PLAIN}}{}", password.reveal()))),
            (None, None) => None,
        };
        let services = self.services.map(|names| {
            let named = names.iter().map(|name| fields.service(name));
            named.collect::<Result<Vec<Service>, String>>()
        });
        Ok(ImportRow::Account(ImportAccount {
            login_name: fields.read("account", &self.account.unwrap_or_default())?,
            credential: credential.map(Credential::Hashed),
            status: self
                .status
                .as_deref()
                .map(|name| fields.status(name))
                .transpose()?,
            services: services.transpose()?,
            quota_octets: self.quota_octets,
            quota_messages: self.quota_messages,
            backend: fields.optional("backend", self.backend.as_deref())?,
            volume: fields.optional("volume", self.volume.as_deref())?,
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

    /// An address as it is exported; of accounts it wants the login names.
    pub(crate) fn of_address(
        entry: &AddressEntry,
        logins: &HashMap<AccountId, String>,
    ) -> Option<Self> {
        let target = |target: &Target| match target {
            Target::Address(address) => Some(format!("={address}")),
            Target::Account(account) => {
                let login = logins.get(account)?;
                let escape = if login.starts_with(['=', '#', '\\']) {
                    "\\"
                } else {
                    ""
                };
                Some(format!("{escape}{login}"))
            }
        };
        Some(Self {
            address: Some(entry.address.to_string()),
            targets: Some(entry.targets.iter().map(target).collect::<Option<_>>()?),
            ..Self::default()
        })
    }
}

/// In CSV, where an empty field says nothing.
const NO_SERVICE: &str = "none";

/// `number` counts from 1.
pub(super) fn unknown_column(number: usize) -> String {
    format!(
        "column {number} has another name than any; there are {}; {}; {}",
        DOMAIN.join(", "),
        ACCOUNT.join(", "),
        ADDRESS.join(", ")
    )
}

/// Whether what is said of a line may show its fields.
#[derive(Clone, Copy)]
enum Fields {
    Shown,
    Hidden,
}

impl Fields {
    /// A field as it is shown, behind its name.
    fn quoted(self, text: &str) -> String {
        match self {
            Self::Shown => format!(" {text:?}"),
            Self::Hidden => " (not shown, for the line has a password)".to_owned(),
        }
    }

    fn read<T: FromStr<Err: Display>>(self, what: &str, text: &str) -> Result<T, String> {
        text.parse()
            .map_err(|error| format!("{what}{}: {error}", self.quoted(text)))
    }

    fn optional<T: FromStr<Err: Display>>(
        self,
        what: &str,
        text: Option<&str>,
    ) -> Result<Option<T>, String> {
        text.map(|text| self.read(what, text)).transpose()
    }

    fn target(self, text: &str) -> Result<ImportTarget, String> {
        if let Some(address) = text.strip_prefix('=') {
            return Ok(ImportTarget::Address(self.read("target", address)?));
        }
        if let Some(number) = text.strip_prefix('#') {
            return Ok(ImportTarget::Account(self.read("target", number)?));
        }
        let login = text.strip_prefix('\\').unwrap_or(text);
        Ok(ImportTarget::Login(self.read("target", login)?))
    }

    fn service(self, name: &str) -> Result<Service, String> {
        let found = Service::ALL.into_iter().find(|one| one.as_str() == name);
        found.ok_or_else(|| {
            let all = Service::ALL.map(Service::as_str).join(", ");
            format!("no service is called{}; there are {all}", self.quoted(name))
        })
    }

    fn status(self, name: &str) -> Result<AccountStatus, String> {
        match name {
            "active" => Ok(AccountStatus::Active),
            "suspended" => Ok(AccountStatus::Suspended),
            "closing" => Ok(AccountStatus::Closing),
            _ => Err(format!(
                "no status is called{}; there are active, suspended, closing",
                self.quoted(name)
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn from_csv(columns: &[&str], record: &str) -> Result<Line, String> {
        let columns: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
        Line::from_fields(&columns, csv::split(record).unwrap().unwrap())
    }

    #[test]
    fn what_is_wrong_with_a_line_never_shows_a_password() {
        let columns = ["account", "password", "status", "quota_octets"];
        for record in [
            "ann@x.test,,hunter2,",
            "ann@x.test,,,hunter2",
            "hunter2 x,b,,",
            "ann@x.test,a,hunter2,5",
        ] {
            let wrong = from_csv(&columns, record).and_then(Line::row).unwrap_err();
            assert!(!wrong.contains("hunter2"), "{record}: {wrong}");
        }
        for text in [
            r#"{"account":"a","password":"b","status":"hunter2"}"#,
            r#"{"account":"a","password":"b","quota_octets":"hunter2"}"#,
            r#"{"account":"a","password":["hunter2"]}"#,
        ] {
            let wrong = Line::from_json(text).and_then(Line::row).unwrap_err();
            assert!(!wrong.contains("hunter2"), "{text}: {wrong}");
        }
        let line = Line::from_json(r#"{"account":"a","password":"hunter2"}"#).unwrap();
        assert!(!format!("{line:?}").contains("hunter2"));
        // Without one, what is wrong is shown.
        let wrong = from_csv(&["account", "status"], "ann@x.test,actve");
        assert!(wrong.and_then(Line::row).unwrap_err().contains("actve"));
    }

    #[test]
    fn what_is_exported_is_read_as_the_same() {
        let none = Line {
            account: Some("ann".to_owned()),
            services: Some(Vec::new()),
            ..Line::default()
        };
        let logins: HashMap<AccountId, String> = ["ann", "=bob", "#7", "\\cid"]
            .into_iter()
            .zip(1..)
            .map(|(name, id)| (AccountId(id), name.to_owned()))
            .collect();
        let mut entry = AddressEntry {
            address: "all@x.test".parse().unwrap(),
            targets: (1..5).map(|id| Target::Account(AccountId(id))).collect(),
        };
        let all = Line::of_address(&entry, &logins).unwrap();
        for (line, columns) in [(&none, ACCOUNT), (&all, ADDRESS)] {
            let csv = from_csv(columns, &line.to_csv(columns).unwrap()).unwrap();
            let json = Line::from_json(&serde_json::to_string(line).unwrap()).unwrap();
            assert_eq!(csv.row().unwrap(), json.row().unwrap());
        }
        let ImportRow::Account(account) = none.row().unwrap() else {
            unreachable!()
        };
        assert_eq!(account.services, Some(Vec::new()));
        let ImportRow::Address(address) = all.row().unwrap() else {
            unreachable!()
        };
        let read: Vec<String> = address
            .targets
            .iter()
            .map(|target| match target {
                ImportTarget::Login(name) => name.to_string(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(read, ["ann", "=bob", "#7", "\\cid"]);

        // A space would be read as the end of a target; of JSON it is none.
        entry.targets = vec![Target::Address("a b@x.test".parse().unwrap())];
        let space = Line::of_address(&entry, &logins).unwrap();
        assert!(space.to_csv(ADDRESS).is_none());
        let json = serde_json::to_string(&space).unwrap();
        assert!(Line::from_json(&json).unwrap().row().is_ok());
        entry.targets = vec![Target::Account(AccountId(9))];
        assert!(Line::of_address(&entry, &logins).is_none());
    }

    #[test]
    fn an_address_has_no_more_targets_than_a_request() {
        let with = |count: usize| Line {
            address: Some("all@x.test".to_owned()),
            targets: Some(vec!["a".to_owned(); count]),
            ..Line::default()
        };
        assert!(with(limit::TARGETS_MAX).row().is_ok());
        assert!(with(limit::TARGETS_MAX + 1).row().is_err());
    }
}
