//! The directory's settings.

use std::net::SocketAddr;
use std::path::PathBuf;

use daemon::config::{Problem, Settings};
use daemon::identity::IdentityFiles;

use crate::engine::PostgresSettings;
use crate::ldap::LdapSettings;
use crate::oauth::OauthSettings;
use crate::sasl::ExternalSettings;
use crate::scram::{ITERATIONS_MAX, ITERATIONS_MIN};

daemon::settings! {
    /// The directory: users, addresses, homes.
    pub struct Config {
        /// Where the other tiers reach the directory (HTTP/2, mutual TLS).
        pub listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 4205)),
        /// Where `/health` and `/metrics` are served, in plain text.
        pub metrics_listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 4206)),
        /// The data folder: the database and the key that signs grants. Back it up, keep it secret.
        /// With `postgres` it is not used.
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
        /// Lets users log in by SCRAM-SHA-256, so that their password is not even told to the proxy. Keys
        /// for it are made with so many iterations, 4,096 to 1,000,000 (15,000 is a usual number), and kept
        /// beside each password that is set in clear or shown at a login (`upgrade_passwords`); until then a user
        /// who tries SCRAM is refused as with a wrong password. 0, the default, offers no SCRAM and
        /// takes the keys away at the next login: whoever steals the database guesses faster at these keys
        /// than at Argon2id, and most mail programs send the password in TLS anyway. Keys of other iterations, imported
        /// {SCRAM-SHA-256} or those from before a change of this number, become such at the next login that sends the
        /// password, which tells who asks before and behind it that there is such a user. Choose it once, as most of the
        /// imported ones have it.
        pub scram_iterations: u32 = 0,
        /// Hours for which the back-end where a user lives may check the password of a login itself while the
        /// directory is away, 0 to 72. Each login that shows a password which is kept as Argon2id, or a long app
        /// password, leaves it a ticket, in its memory alone. A change of the account ends it as soon as the back-end
        /// hears of it, and so does the back-end's own `directory_stale_max_s`. 0 leaves none: with the directory away
        /// nobody logs in. Back-ends that are older than this setting refuse logins with a ticket: update them first.
        pub ticket_life_h: u32 = 12,
        /// A database that several directory servers share, instead of the data folder.
        pub postgres: PostgresSettings = PostgresSettings::default(),
        /// Users, their addresses and passwords from LDAP.
        pub ldap: LdapSettings = LdapSettings::default(),
        /// Users who show a token instead of a password.
        pub oauth: OauthSettings = OauthSettings::default(),
        /// Users who show a certificate to a proxy.
        pub external: ExternalSettings = ExternalSettings::default(),
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
            Problem::outside("ticket_life_h", &self.ticket_life_h, 0..=72),
            Problem::outside("password_threads", &self.password_threads, 0..=256),
            (self.scram_iterations != 0)
                .then(|| {
                    Problem::outside(
                        "scram_iterations",
                        &self.scram_iterations,
                        ITERATIONS_MIN..=ITERATIONS_MAX,
                    )
                })
                .flatten(),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn log(&self) -> daemon::log::LogSettings {
        self.log.clone()
    }
}
