//! The directory's settings.

use std::net::SocketAddr;
use std::path::PathBuf;

use daemon::config::{Problem, Settings};
use daemon::identity::IdentityFiles;

daemon::settings! {
    /// The directory: users, addresses, homes.
    pub struct Config {
        /// Where the other tiers reach the directory (HTTP/2, mutual TLS).
        pub listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 4205)),
        /// Where `/health` and `/metrics` are served, in plain text.
        pub metrics_listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 4206)),
        /// The data folder: the database and the key that signs grants. Back it up, keep it secret.
        pub data: PathBuf = "/var/lib/posthouse/directory".into(),
        /// How long a verified password is remembered as a keyed hash, so that clients which poll
        /// do not cost a full check each time. 0 turns it off.
        pub verified_passwords_kept_s: u64 = 300,
        /// Passwords checked at once, each on a thread of its own with 19 MiB, or for an imported
        /// {ARGON2ID} what that says, at most 256 MiB. 0: one for each core.
        pub password_threads: usize = 0,
        /// Whether a password that was imported as another server's hash is kept as Argon2id from
        /// its owner's next login on. Turn it off where hashes are brought from elsewhere again and
        /// again, or are read back by something that does not know Argon2id.
        pub upgrade_passwords: bool = true,
        /// How and what to log.
        pub log: daemon::log::LogSettings = daemon::log::LogSettings::default(),
        /// Who this process is to the other tiers.
        pub identity: IdentityFiles = IdentityFiles::default(),
    }
}

impl Settings for Config {
    fn problems(&self) -> Vec<Problem> {
        [
            Problem::outside(
                "verified_passwords_kept_s",
                &self.verified_passwords_kept_s,
                0..=3_600,
            ),
            Problem::outside("password_threads", &self.password_threads, 0..=256),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn log(&self) -> daemon::log::LogSettings {
        self.log.clone()
    }
}
