//! The settings of a proxy: each documented where it is declared.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use daemon::balancers::Balancers;
use daemon::config::{Problem, Settings};
use daemon::identity::IdentityFiles;
use daemon::log::LogSettings;
use daemon::public_tls::TlsFiles;
use directory_api::Service;
use directory_api::client::{LoginTurns, STALE_MAX_S};

use crate::announced;
use crate::foreign::ForeignLogin;

daemon::settings! {
    /// Settings of a POP3 and IMAP proxy.
    pub struct Config {
        /// Where POP3 is listened for. Leave a listener out to go without it.
        pub pop3: Option<SocketAddr> = None,
        /// Where POP3 in TLS from the first octet is listened for.
        pub pop3s: Option<SocketAddr> = None,
        /// Where IMAP is listened for.
        pub imap: Option<SocketAddr> = None,
        /// Where IMAP in TLS from the first octet is listened for.
        pub imaps: Option<SocketAddr> = None,
        /// Our name in greetings.
        pub hostname: String = "localhost".into(),
        /// What IMAP announces before the login; STARTTLS and AUTH=… follow from other settings. Each back-end tells its own list
        /// with the answer to the login; one that lacks any of these is named in the log and at /health.
        pub imap_capabilities: Vec<String> = announced::usual(),
        /// Where the directory listens, `host:port`.
        pub directory: String = "127.0.0.1:4205".into(),
        /// Where operators reach this process over mutual TLS: `posthouse connections`, `kick` and `drain`. Without it they cannot.
        pub inside_listen: Option<SocketAddr> = None,
        /// Where `GET /health` and `GET /metrics` are answered, without TLS.
        pub metrics_listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 9143)),
        /// Whether a client on loopback may log in without TLS. Others never may.
        pub plaintext_login_on_loopback: bool = false,
        /// The certificate of this process inside.
        pub identity: IdentityFiles = IdentityFiles::default(),
        /// The certificate shown to users.
        pub tls: TlsFiles = TlsFiles::default(),
        /// Authorities (PEM) of certificates that users may show in TLS, to log in by SASL EXTERNAL where the directory takes this
        /// proxy's word (its section `external`). Without it nobody is asked for a certificate; with it, who shows one of another
        /// authority is not served. Read at the start.
        pub users_ca: Option<PathBuf> = None,
        /// Master logins at back-ends that are other mail systems, one for each, such as [{ backend = "old", master = "posthouse",
        /// password_file = "/etc/posthouse/old.password", ca = "/etc/posthouse/old-ca.pem" }]. Besides, separator = "*" logs users in
        /// as user*master instead of by an authorization identity, plaintext = true lets the login go in the clear to another machine, and
        /// tell_client = true tells the other system the user's address: advisable where it trusts this proxy, for else all its logs and
        /// limits see one client. Without a separator all depends on that system's heeding the authorization identity: give the master
        /// no mailbox there, so that one which does not shows nobody's. Who can read that file can open every mailbox there. Read at
        /// the start.
        pub foreign: Vec<ForeignLogin> = Vec::new(),
        /// Load balancers in front of this process.
        pub balancers: Balancers = Balancers::default(),
        /// What one client and one session may take.
        pub limits: Limits = Limits::default(),
        /// The log.
        pub log: LogSettings = LogSettings::default(),
    }
}

daemon::settings! {
    /// What one client and one session may take.
    pub struct Limits {
        /// Connections open at once on each listener; those beyond are told so.
        pub connections_max: usize = 20_000,
        /// Connections open at once from one client, all listeners together: an IPv4 address or an IPv6 /64.
        pub client_connections_max: usize = 50,
        /// Logins of one such client that the directory is asked for, or that wait in the line of all clients, at once. More of them
        /// wait among themselves.
        pub client_logins_max: usize = 4,
        /// Whether these limits hold for clients on loopback too. A webmail on this machine speaks for many users.
        pub client_limit_on_loopback: bool = false,
        /// Sessions open at once of one user in this process, IMAP and POP3 together. A mail program opens five to ten for each
        /// device.
        pub user_sessions_max: usize = 100,
        /// Seconds from the connection to the login, the TLS handshake included.
        pub login_timeout_s: u64 = 60,
        /// Seconds that a login waits while its account is being moved; after that it is told to come again.
        pub move_wait_s: u64 = 10,
        /// Logins that the directory is asked for at once. More wait for their turn, first come first served.
        pub logins_at_once_max: usize = 64,
        /// Logins that wait for their turn in that line; those beyond are told to come again.
        pub logins_waiting_max: usize = 20_000,
        /// Seconds for which what was known of back-ends is good while the directory is away, from when it was last heard.
        pub directory_stale_max_s: u64 = STALE_MAX_S,
        /// Seconds that a back-end may take to open a session.
        pub open_timeout_s: u64 = 10,
        /// Seconds without an octet either way before an IMAP session is cut. More than the back-end's
        /// own 1800, so that the back-end ends it in words.
        pub imap_idle_timeout_s: u64 = 1860,
        /// The same for POP3, where the back-end has 600.
        pub pop3_idle_timeout_s: u64 = 660,
        /// Seconds without an octet from a client, or from a foreign back-end, after which the system asks whether it is still there; one
        /// that has vanished is noticed 90 s later. 0 never asks.
        pub keepalive_s: u64 = 120,
    }
}

impl Limits {
    pub(crate) fn login_timeout(&self) -> Duration {
        Duration::from_secs(self.login_timeout_s)
    }

    pub(crate) fn login_turns(&self) -> LoginTurns {
        LoginTurns {
            at_once_max: self.logins_at_once_max,
            waiting_max: self.logins_waiting_max,
            client_max: self.client_logins_max,
            client_limit_on_loopback: self.client_limit_on_loopback,
            ..LoginTurns::default()
        }
    }

    pub(crate) fn directory_stale_max(&self) -> Duration {
        Duration::from_secs(self.directory_stale_max_s)
    }

    pub(crate) fn open_timeout(&self) -> Duration {
        Duration::from_secs(self.open_timeout_s)
    }

    pub(crate) fn keepalive(&self) -> Duration {
        Duration::from_secs(self.keepalive_s)
    }

    pub(crate) fn idle_timeout(&self, service: Service) -> Duration {
        Duration::from_secs(match service {
            Service::Imap => self.imap_idle_timeout_s,
            Service::Pop3 => self.pop3_idle_timeout_s,
        })
    }
}

impl Settings for Config {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if [self.pop3, self.pop3s, self.imap, self.imaps]
            .iter()
            .all(Option::is_none)
        {
            problems.push(Problem::new(
                "imap",
                "",
                "no listener is set",
                "set one of pop3, pop3s, imap, imaps",
            ));
        }
        let has_certificate = self.tls.certificate.is_some();
        for (key, listener) in [("pop3s", self.pop3s), ("imaps", self.imaps)] {
            if let Some(address) = listener
                && !has_certificate
            {
                let remedy = "set tls.certificate and tls.key, or leave the listener out";
                problems.push(Problem::new(
                    key,
                    address,
                    "TLS needs a certificate",
                    remedy,
                ));
            }
        }
        if self.hostname.is_empty()
            || self
                .hostname
                .contains(|c: char| c.is_control() || c.is_whitespace())
        {
            problems.push(Problem::new(
                "hostname",
                &self.hostname,
                "not a host name",
                "write it like mail.example.test",
            ));
        }
        let wrong = self
            .imap_capabilities
            .iter()
            .find(|one| !announced::may_be_set(one));
        if let Some(wrong) = wrong {
            let remedy = "name capabilities of RFC 9051 and its extensions, one a text";
            let problem = "cannot be announced by this setting";
            problems.push(Problem::new("imap_capabilities", wrong, problem, remedy));
        }
        let version = |one: &String| one.to_ascii_uppercase().starts_with("IMAP4REV");
        if !self.imap_capabilities.iter().any(version) {
            let remedy = "name IMAP4rev1, IMAP4rev2, or both";
            problems.push(Problem::new(
                "imap_capabilities",
                "",
                "has no version of IMAP",
                remedy,
            ));
        }
        problems.extend(self.foreign.iter().filter_map(ForeignLogin::problem));
        for (at, login) in self.foreign.iter().enumerate() {
            let is_named = |before: &ForeignLogin| before.backend == login.backend;
            if self.foreign[..at].iter().any(is_named) {
                let remedy = "leave one master login for each back-end";
                problems.push(Problem::new(
                    "foreign",
                    &login.backend,
                    "is named twice",
                    remedy,
                ));
            }
        }
        if !self.directory.contains(':') {
            problems.push(Problem::new(
                "directory",
                &self.directory,
                "has no port",
                "write it like 127.0.0.1:4205",
            ));
        }
        problems
    }

    fn log(&self) -> LogSettings {
        self.log.clone()
    }
}

impl Settings for Limits {
    fn problems(&self) -> Vec<Problem> {
        let outside = [
            Problem::outside("connections_max", &self.connections_max, 1..=1_000_000),
            Problem::outside(
                "client_connections_max",
                &self.client_connections_max,
                1..=1_000_000,
            ),
            Problem::outside("client_logins_max", &self.client_logins_max, 1..=1_000_000),
            Problem::outside("user_sessions_max", &self.user_sessions_max, 1..=1_000_000),
            Problem::outside("login_timeout_s", &self.login_timeout_s, 1..=600),
            Problem::outside("move_wait_s", &self.move_wait_s, 0..=60),
            Problem::outside("logins_at_once_max", &self.logins_at_once_max, 1..=10_000),
            Problem::outside(
                "logins_waiting_max",
                &self.logins_waiting_max,
                1..=1_000_000,
            ),
            Problem::outside(
                "directory_stale_max_s",
                &self.directory_stale_max_s,
                0..=86_400,
            ),
            Problem::outside("open_timeout_s", &self.open_timeout_s, 1..=60),
            Problem::outside("keepalive_s", &self.keepalive_s, 0..=7200),
            // RFC 9051 §5.4: at least 30 minutes. RFC 1939 §3: at least 10.
            Problem::outside(
                "imap_idle_timeout_s",
                &self.imap_idle_timeout_s,
                1800..=86_400,
            ),
            Problem::outside(
                "pop3_idle_timeout_s",
                &self.pop3_idle_timeout_s,
                600..=86_400,
            ),
        ];
        outside.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(problems: Vec<Problem>) -> Vec<String> {
        problems.into_iter().map(|problem| problem.key).collect()
    }

    #[test]
    fn every_wrong_value_is_named() {
        assert_eq!(keys(Config::default().problems()), ["imap"]);
        let imap = Some(SocketAddr::from(([127, 0, 0, 1], 143)));
        assert_eq!(
            keys(
                Config {
                    imap,
                    ..Config::default()
                }
                .problems()
            ),
            [""; 0]
        );
        let config = Config {
            imaps: imap,
            directory: "here".into(),
            ..Config::default()
        };
        assert_eq!(keys(config.problems()), ["imaps", "directory"]);
        for wrong in ["STARTTLS", "AUTH=PLAIN", "ID IDLE", "", "A(B", "\u{e4}"] {
            let config = Config {
                imap,
                imap_capabilities: vec!["IMAP4rev1".into(), wrong.into()],
                ..Config::default()
            };
            assert_eq!(keys(config.problems()), ["imap_capabilities"], "{wrong}");
        }
        let login = |master: &str| ForeignLogin {
            backend: "old".parse().unwrap(),
            master: master.into(),
            password_file: "old.password".into(),
            separator: None,
            ca: None,
            plaintext: false,
            tell_client: false,
        };
        for (foreign, count) in [
            (vec![login("post")], 0),
            (vec![login("")], 1),
            (vec![login("post"), login("other")], 1),
        ] {
            let config = Config {
                imap,
                foreign,
                ..Config::default()
            };
            assert_eq!(keys(config.problems()), vec!["foreign"; count]);
        }
        assert_eq!(keys(Limits::default().problems()), [""; 0]);
        let limits = Limits {
            imap_idle_timeout_s: 1799,
            ..Limits::default()
        };
        assert_eq!(keys(limits.problems()), ["imap_idle_timeout_s"]);
    }

    #[test]
    fn the_sample_is_a_valid_file_and_a_bad_file_is_told_in_one_go() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("settings.toml");
        let sample = Config::sample();
        // Without a listener there is nothing to do; the sample leaves the choice open.
        let sample = format!("imap = \"127.0.0.1:143\"\n{sample}");
        std::fs::write(&file, sample).unwrap();
        daemon::config::load::<Config>(&file, "POP_IMAP_PROXY_TEST").unwrap();

        let bad = "imap = \"127.0.0.1:143\"\nimap4 = \"127.0.0.1:144\"\n[limits]\nlogin_timeout_s = 0\nopen_timeout_s = \"ten\"\n[tls]\nkey = \"a.key\"\n";
        std::fs::write(&file, bad).unwrap();
        let error = daemon::config::load::<Config>(&file, "POP_IMAP_PROXY_TEST")
            .unwrap_err()
            .to_string();
        for key in [
            "imap4",
            "limits.login_timeout_s",
            "limits.open_timeout_s",
            "tls.certificate",
        ] {
            let said = error
                .lines()
                .any(|line| line.contains("settings.toml") && line.contains(key));
            assert!(said, "{key} is missing: {error}");
        }
    }
}
