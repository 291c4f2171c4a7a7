//! Where the LDAP server is, and what its entries say.

use std::net::IpAddr;
use std::path::PathBuf;

use daemon::config::{Problem, Settings};

daemon::settings! {
    /// Users, their addresses and their passwords from an LDAP server, OpenLDAP or one like it, which stays as it is. Where they
    /// live, their app passwords, groups and domains are kept here. infra/docs/LDAP.md tells how it goes.
    pub struct LdapSettings {
        /// Servers with the same entries, such as ["ldap://ldap1.example.org", "ldaps://ldap2.example.org"]; the first that answers
        /// is asked. Without one there are no users from LDAP.
        pub urls: Vec<String> = Vec::new(),
        /// The certificates (PEM) of who signed the servers'. Needed but on loopback: with it ldap:// begins TLS (StartTLS)
        /// before anything else is said.
        pub tls_ca: Option<PathBuf> = None,
        /// Who may read the entries, such as "cn=posthouse,ou=services,dc=example,dc=org".
        pub bind_dn: Option<String> = None,
        /// A file with that one's password in one line.
        pub bind_password_file: Option<PathBuf> = None,
        /// Under which entry the users are.
        pub base: String = String::new(),
        /// Which of the entries there are users (RFC 4515).
        pub filter: String = "(objectClass=inetOrgPerson)".to_owned(),
        /// What an entry keeps for ever, so that a renamed user keeps the mail: "objectGUID" in Active Directory.
        pub id_attribute: String = "entryUUID".to_owned(),
        /// When an entry was changed last: "whenChanged" in Active Directory.
        pub modified_attribute: String = "modifyTimestamp".to_owned(),
        /// What a user logs in with.
        pub login_attribute: String = "mail".to_owned(),
        /// Addresses of a user. Their domains are to be there (`posthouse domain add`).
        pub address_attributes: Vec<String> = vec!["mail".to_owned()],
        /// What says whether a user may log in; without it an operator says it.
        pub status_attribute: Option<String> = None,
        /// The values of `status_attribute`, in any case, of users who may not log in; mail still comes to them.
        pub suspended_values: Vec<String> = vec!["suspended".to_owned(), "disabled".to_owned(), "inactive".to_owned()],
        /// The most that a user may keep: octets, or a number with K, M, G or T behind it; without it an operator says it.
        pub quota_attribute: Option<String> = None,
        /// Whether an account that is there already and has a user's login name becomes that user's, with the mail that it
        /// has: for who brings a site over. Otherwise the user is left out.
        pub adopt: bool = false,
        /// Whether a user may get an address of a domain whose catch-all delivers to somebody else: for who has all users of
        /// the domain in LDAP, and lets nobody write there whose word is not the site's. Otherwise an operator adds it
        /// (`posthouse address add`).
        pub over_catch_all: bool = false,
        /// How often it is looked for what has changed.
        pub look_every_s: u64 = 60,
        /// How often everything is looked at, by which it is seen that a user is gone.
        pub look_at_all_every_s: u64 = 900,
        /// Percent of the users who may lose their account, an address or their login between two looks at everything, of 3
        /// users at least; more are kept as they are until an operator says so (`posthouse ldap sync --losses-max`).
        pub losses_max_percent: u64 = 5,
        /// Entries that are asked for at once.
        pub page_entries: u32 = 500,
        /// Connections for users who log in; each checks one password at a time.
        pub connections_max: usize = 8,
        /// How long a server may take to connect.
        pub connect_timeout_s: u64 = 2,
        /// How long it may take to answer.
        pub answer_timeout_s: u64 = 4,
    }
}

impl Settings for LdapSettings {
    fn problems(&self) -> Vec<Problem> {
        if self.urls.is_empty() {
            return Vec::new();
        }
        let mut problems: Vec<_> = [
            Problem::outside("look_every_s", &self.look_every_s, 1..=3_600),
            Problem::outside(
                "look_at_all_every_s",
                &self.look_at_all_every_s,
                self.look_every_s..=86_400,
            ),
            Problem::outside("losses_max_percent", &self.losses_max_percent, 0..=100),
            Problem::outside("page_entries", &self.page_entries, 1..=10_000),
            Problem::outside("connections_max", &self.connections_max, 1..=256),
            // A login is waited for 10 s.
            Problem::outside("connect_timeout_s", &self.connect_timeout_s, 1..=5),
            Problem::outside("answer_timeout_s", &self.answer_timeout_s, 1..=5),
        ]
        .into_iter()
        .flatten()
        .collect();
        problems.extend(self.urls.iter().filter_map(|url| self.problem_of(url)));
        for (key, value) in [
            ("base", &self.base),
            ("id_attribute", &self.id_attribute),
            ("modified_attribute", &self.modified_attribute),
            ("login_attribute", &self.login_attribute),
        ] {
            if value.is_empty() {
                problems.push(Problem::new(
                    key,
                    "",
                    "empty, though urls are given",
                    "say it",
                ));
            }
        }
        if ldap3::parse_filter(&self.filter).is_err() {
            problems.push(Problem::new(
                "filter",
                &self.filter,
                "it is no filter (RFC 4515)",
                "write it like \"(objectClass=inetOrgPerson)\"",
            ));
        }
        if self.bind_dn.is_some() != self.bind_password_file.is_some() {
            problems.push(Problem::new(
                "bind_password_file",
                "",
                "of bind_dn and bind_password_file one is missing",
                "give both, or none if everybody may read the entries",
            ));
        }
        problems
    }
}

impl LdapSettings {
    fn problem_of(&self, url: &str) -> Option<Problem> {
        let wrong = |problem, remedy| Some(Problem::new("urls", url, problem, remedy));
        let Some((scheme, host)) = parts(url) else {
            return wrong(
                "it is no URL of an LDAP server",
                "write it like \"ldap://ldap.example.org\", with a port behind it if need be",
            );
        };
        let is_near = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        match (scheme, &self.tls_ca) {
            ("ldaps", None) => wrong(
                "it wants TLS, and there is no tls_ca",
                "name the certificate of who signed the server's",
            ),
            ("ldap", None) if !is_near => wrong(
                "the server is on another machine, and there is no tls_ca: passwords would be told to whoever listens",
                "name the certificate of who signed the server's",
            ),
            _ => None,
        }
    }

    /// What is asked for of each entry.
    pub(super) fn attributes(&self) -> Vec<String> {
        let mut all = vec![
            self.id_attribute.clone(),
            self.modified_attribute.clone(),
            self.login_attribute.clone(),
        ];
        all.extend(self.address_attributes.iter().cloned());
        all.extend(self.status_attribute.clone());
        all.extend(self.quota_attribute.clone());
        let of = |name: &String| name.to_ascii_lowercase();
        all.sort_by_key(of);
        all.dedup_by_key(|name| of(name));
        all
    }
}

/// The scheme and the host of a URL that names nothing else but a port.
fn parts(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    if !["ldap", "ldaps"].contains(&scheme) {
        return None;
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let host = match rest.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        Some(_) => return None,
        None => rest,
    };
    let may = |one: char| one.is_ascii_alphanumeric() || "-._".contains(one);
    (!host.is_empty() && host.chars().all(may)).then_some((scheme, host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(settings: &LdapSettings) -> Vec<String> {
        let told = |one: Problem| format!("{}: {}", one.key, one.problem);
        settings.problems().into_iter().map(told).collect()
    }

    fn at(url: &str, tls_ca: Option<&str>) -> LdapSettings {
        LdapSettings {
            urls: vec![url.to_owned()],
            base: "dc=x".to_owned(),
            tls_ca: tls_ca.map(PathBuf::from),
            ..LdapSettings::default()
        }
    }

    #[test]
    fn nothing_is_asked_of_who_has_no_ldap() {
        assert_eq!(problems(&LdapSettings::default()), [""; 0]);
    }

    #[test]
    fn a_password_goes_to_another_machine_by_tls_alone() {
        for (url, tls_ca, wrong) in [
            ("ldap://127.0.0.1:389", None, None),
            ("ldap://localhost", None, None),
            ("ldap://ldap.x.test", Some("ca.pem"), None),
            ("ldaps://ldap.x.test:636/", Some("ca.pem"), None),
            ("ldap://ldap.x.test", None, Some("another machine")),
            ("ldap://localhost.x.test", None, Some("another machine")),
            ("ldaps://127.0.0.1", None, Some("no tls_ca")),
            ("http://ldap.x.test", Some("ca.pem"), Some("no URL")),
            ("ldap://ann@ldap.x.test", Some("ca.pem"), Some("no URL")),
            ("ldap://ldap.x.test/dc=x", Some("ca.pem"), Some("no URL")),
            ("ldap://", Some("ca.pem"), Some("no URL")),
        ] {
            let found = problems(&at(url, tls_ca)).concat();
            match wrong {
                None => assert_eq!(found, "", "{url}"),
                Some(wrong) => assert!(found.contains(wrong), "{url}: {found}"),
            }
        }
    }

    #[test]
    fn what_cannot_work_is_told_before_the_start() {
        let wrong = LdapSettings {
            base: String::new(),
            filter: "(objectClass=".to_owned(),
            bind_dn: Some("cn=reader".to_owned()),
            look_every_s: 0,
            connections_max: 0,
            ..at("ldap://127.0.0.1", None)
        };
        let found = problems(&wrong).concat();
        for key in [
            "base",
            "filter",
            "bind_password_file",
            "look_every_s",
            "connections_max",
        ] {
            assert!(found.contains(key), "{key}: {found}");
        }
    }
}
