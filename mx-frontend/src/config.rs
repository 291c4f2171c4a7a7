//! The settings of an MX front-end: each documented where it is declared.

use std::net::SocketAddr;
use std::time::Duration;

use daemon::balancers::Balancers;
use daemon::config::{Problem, Settings};
use daemon::identity::IdentityFiles;
use daemon::log::LogSettings;
use daemon::public_tls::TlsFiles;
use directory_api::client::STALE_MAX_S;
use mail_proto::Address;

daemon::settings! {
    /// Settings of an MX front-end.
    pub struct Config {
        /// Where SMTP is listened for.
        pub listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 2525)),
        /// Our name: in the greeting, in the reply to EHLO, in Received.
        pub hostname: String = "localhost".into(),
        /// Where the directory listens, `host:port`.
        pub directory: String = "127.0.0.1:4205".into(),
        /// Where `GET /health` and `GET /metrics` are answered, without TLS.
        pub metrics_listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 9525)),
        /// Receives what is sent to `<postmaster>` without a domain, or at a domain of ours that has none.
        /// Empty: `postmaster@` and our own name.
        pub postmaster: String = String::new(),
        /// The certificate of this process inside.
        pub identity: IdentityFiles = IdentityFiles::default(),
        /// The certificate shown to senders.
        pub tls: TlsFiles = TlsFiles::default(),
        /// Load balancers in front of this process.
        pub balancers: Balancers = Balancers::default(),
        /// What one client and one message may take.
        pub limits: Limits = Limits::default(),
        /// The log.
        pub log: LogSettings = LogSettings::default(),
    }
}

daemon::settings! {
    /// What one client and one message may take.
    pub struct Limits {
        /// Connections open at once; those beyond are told 421.
        pub connections_max: usize = 10_000,
        /// Connections open at once from one client: an IPv4 address or an IPv6 /64.
        pub client_connections_max: usize = 50,
        /// Whether that limit holds for clients on loopback too. A relay on this machine speaks for many senders.
        pub client_limit_on_loopback: bool = false,
        /// Seconds that a client may take for a command, for each piece of a body, and to take a reply.
        pub command_timeout_s: u64 = 300,
        /// Seconds for the TLS handshake.
        pub starttls_timeout_s: u64 = 300,
        /// Octets of a message.
        pub message_size_max_bytes: u64 = 50 << 20,
        /// Recipients of one message.
        pub recipients_max: usize = 1000,
        /// Accounts that the recipients of one message come to, all aliases resolved.
        pub accounts_max: usize = 1000,
        /// Octets of a text line without its CRLF. RFC 5321 has 998; more is accepted up to 65536.
        pub text_line_max_bytes: u64 = 998,
        /// Refused commands after which each reply is delayed.
        pub soft_error_limit: u32 = 10,
        /// Milliseconds of that delay.
        pub error_delay_ms: u64 = 1000,
        /// Refused commands after which the connection is closed.
        pub hard_error_limit: u32 = 20,
        /// Commands that bring no mail (NOOP, RSET, VRFY) before each further one counts as an error.
        pub junk_command_limit: u32 = 100,
        /// Octets a second that a body must bring; slower ones are cut. 0 allows any.
        pub sender_octets_per_s_min: u64 = 100,
        /// Seconds over which that is seen.
        pub sender_window_s: u64 = 60,
        /// Seconds that a back-end may take no octets before it is given up for this message.
        pub stall_timeout_s: u64 = 10,
        /// Seconds from the final dot to the reply, at most.
        pub commit_timeout_s: u64 = 30,
        /// Whether mail for a full account is refused for good (552) or until later (452).
        pub over_quota_is_permanent: bool = false,
        /// Seconds for which what was known of recipients and back-ends is good while the directory is away, from when it
        /// was last heard; after that, mail is answered `451`.
        pub directory_stale_max_s: u64 = STALE_MAX_S,
        /// Bodies up to this size stay in memory until the reply, to be sent once more when a home has moved.
        pub retry_body_max_bytes: u64 = 256 << 10,
        /// Seconds without an octet from a client after which the system asks whether it is still there; one that has vanished is
        /// noticed 90 s later. 0 never asks.
        pub keepalive_s: u64 = 120,
    }
}

impl Limits {
    pub(crate) fn command_timeout(&self) -> Duration {
        Duration::from_secs(self.command_timeout_s)
    }

    pub(crate) fn starttls_timeout(&self) -> Duration {
        Duration::from_secs(self.starttls_timeout_s)
    }

    pub(crate) fn keepalive(&self) -> Duration {
        Duration::from_secs(self.keepalive_s)
    }

    pub(crate) fn error_delay(&self) -> Duration {
        Duration::from_millis(self.error_delay_ms)
    }

    pub(crate) fn sender_window(&self) -> Duration {
        Duration::from_secs(self.sender_window_s)
    }

    pub(crate) fn stall_timeout(&self) -> Duration {
        Duration::from_secs(self.stall_timeout_s)
    }

    pub(crate) fn directory_stale_max(&self) -> Duration {
        Duration::from_secs(self.directory_stale_max_s)
    }

    pub(crate) fn commit_timeout(&self) -> Duration {
        Duration::from_secs(self.commit_timeout_s)
    }
}

impl Config {
    /// The address behind `<postmaster>`, or nothing when the setting makes none.
    pub(crate) fn postmaster_address(&self) -> Option<Address> {
        if self.postmaster.is_empty() {
            format!("postmaster@{}", self.hostname).parse().ok()
        } else {
            self.postmaster.parse().ok()
        }
    }
}

impl Settings for Config {
    fn problems(&self) -> Vec<Problem> {
        let name_fits =
            |character: char| character.is_ascii_alphanumeric() || "-._".contains(character);
        let mut problems = Vec::new();
        if self.hostname.is_empty()
            || self.hostname.len() > 255
            || !self.hostname.chars().all(name_fits)
        {
            problems.push(Problem::new(
                "hostname",
                &self.hostname,
                "not a host name",
                "write it like mx1.example.test",
            ));
        }
        if !self.directory.contains(':') {
            problems.push(Problem::new(
                "directory",
                &self.directory,
                "has no port",
                "write it like 127.0.0.1:4205",
            ));
        }
        if self.postmaster_address().is_none() {
            let remedy = "write it like postmaster@example.test";
            problems.push(Problem::new(
                "postmaster",
                &self.postmaster,
                "not an address",
                remedy,
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
            Problem::outside("command_timeout_s", &self.command_timeout_s, 1..=3600),
            Problem::outside("starttls_timeout_s", &self.starttls_timeout_s, 1..=3600),
            // RFC 5321 §4.5.3.1.7: at least 64 KiB must be taken.
            Problem::outside(
                "message_size_max_bytes",
                &self.message_size_max_bytes,
                64 << 10..=1 << 40,
            ),
            // RFC 5321 §4.5.3.1.8: at least 100. The deliver stream carries 1000.
            Problem::outside("recipients_max", &self.recipients_max, 100..=1000),
            Problem::outside("accounts_max", &self.accounts_max, 100..=1000),
            Problem::outside(
                "text_line_max_bytes",
                &self.text_line_max_bytes,
                998..=64 << 10,
            ),
            Problem::outside("soft_error_limit", &self.soft_error_limit, 1..=1000),
            Problem::outside("keepalive_s", &self.keepalive_s, 0..=7200),
            Problem::outside("error_delay_ms", &self.error_delay_ms, 0..=60_000),
            Problem::outside("hard_error_limit", &self.hard_error_limit, 1..=1000),
            Problem::outside("junk_command_limit", &self.junk_command_limit, 1..=100_000),
            Problem::outside(
                "sender_octets_per_s_min",
                &self.sender_octets_per_s_min,
                0..=1 << 20,
            ),
            Problem::outside("sender_window_s", &self.sender_window_s, 1..=3600),
            Problem::outside("stall_timeout_s", &self.stall_timeout_s, 1..=300),
            Problem::outside("commit_timeout_s", &self.commit_timeout_s, 1..=300),
            Problem::outside(
                "directory_stale_max_s",
                &self.directory_stale_max_s,
                0..=86_400,
            ),
            Problem::outside(
                "retry_body_max_bytes",
                &self.retry_body_max_bytes,
                0..=256 << 10,
            ),
        ];
        outside.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_have_no_problem_and_every_wrong_value_is_named() {
        assert_eq!(Config::default().problems(), []);
        assert_eq!(Limits::default().problems(), []);
        let limits = Limits {
            recipients_max: 99,
            commit_timeout_s: 0,
            ..Limits::default()
        };
        let keys: Vec<_> = limits
            .problems()
            .into_iter()
            .map(|problem| problem.key)
            .collect();
        assert_eq!(keys, ["recipients_max", "commit_timeout_s"]);
        let config = Config {
            hostname: "mx 1".into(),
            directory: "here".into(),
            ..Config::default()
        };
        let keys: Vec<_> = config
            .problems()
            .into_iter()
            .map(|problem| problem.key)
            .collect();
        assert_eq!(keys, ["hostname", "directory", "postmaster"]);
    }

    #[test]
    fn the_sample_is_a_valid_file_and_a_bad_file_is_told_in_one_go() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("settings.toml");
        let sample = Config::sample();
        std::fs::write(&file, sample).unwrap();
        daemon::config::load::<Config>(&file, "MX_FRONTEND_TEST").unwrap();

        let bad = "listen = \"127.0.0.1:25\"\nhostnam = \"mx\"\n[limits]\nrecipients_max = 99\ncommit_timeout_s = \"30\"\n[tls]\ncertificate = \"a.pem\"\n";
        std::fs::write(&file, bad).unwrap();
        let error = daemon::config::load::<Config>(&file, "MX_FRONTEND_TEST")
            .unwrap_err()
            .to_string();
        for key in [
            "hostnam",
            "limits.recipients_max",
            "limits.commit_timeout_s",
            "tls.key",
        ] {
            let said = error
                .lines()
                .any(|line| line.contains("settings.toml") && line.contains(key));
            assert!(said, "{key} is missing: {error}");
        }
    }
}
