//! The settings of an MX front-end: each documented where it is declared.

mod checks;
mod limits;
mod stress;

pub use checks::{Action, CheckSettings, DnsList, DnsSettings};
pub use limits::{Limits, Rates};
pub use stress::StressSettings;

use std::net::SocketAddr;

use daemon::balancers::{Balancers, Network};
use daemon::config::{Problem, Settings};
use daemon::identity::IdentityFiles;
use daemon::log::LogSettings;
use daemon::public_tls::TlsFiles;
use mail_proto::Address;

daemon::settings! {
    /// Settings of an MX front-end.
    pub struct Config {
        /// Where SMTP is listened for.
        pub listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 2525)),
        /// Where SMTP in TLS from the first octet is listened for. Leave it out to go without it.
        pub smtps_listen: Option<SocketAddr> = None,
        /// Where SMTP is listened for and everybody is treated as under stress, to try out what the section `stress` does. Leave it
        /// out to go without it.
        pub stressed_listen: Option<SocketAddr> = None,
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
        /// Networks or addresses, such as ["192.0.2.0/28"], of filters and relays in front of this process that may tell by XCLIENT
        /// whom they speak for. No limit counts them themselves, only those they speak for.
        pub xclient_networks: Vec<Network> = Vec::new(),
        /// What one client and one message may take, counted by this process alone: where there are several, a client has as much
        /// at each.
        pub limits: Limits = Limits::default(),
        /// How often one client may do what costs us something.
        pub rates: Rates = Rates::default(),
        /// What is looked at before mail is taken.
        pub checks: CheckSettings = CheckSettings::default(),
        /// What changes when connections run out.
        pub stress: StressSettings = StressSettings::default(),
        /// The log.
        pub log: LogSettings = LogSettings::default(),
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
        if let (Some(address), None) = (self.smtps_listen, &self.tls.certificate) {
            problems.push(Problem::new(
                "smtps_listen",
                address,
                "TLS needs a certificate",
                "set tls.certificate and tls.key, or leave the listener out",
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
        for (soft, problem) in [
            (4, None),
            (5, None),
            (6, Some("above hard_error_limit (5)")),
        ] {
            let limits = Limits {
                soft_error_limit: soft,
                hard_error_limit: 5,
                ..Limits::default()
            };
            let problems = limits.problems();
            let told = problems
                .first()
                .map(|one| (one.key.as_str(), &*one.problem));
            assert_eq!(told, problem.map(|problem| ("soft_error_limit", problem)));
        }
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
