//! Users who show a token of an OAuth 2 issuer instead of a password: whom the token is about.
//!
//! The token is a signed JWT (RFC 7519, RFC 9068), checked here alone, with the issuer's public keys from a
//! file: nobody is asked, and an issuer that is away keeps nobody out. Whoever renews that file (a timer that
//! fetches the issuer's `jwks_uri`) need not tell us: it is read again when it has changed. A file that cannot be
//! read then leaves the keys as they were, and the log says so.

mod keys;
mod token;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, TryLockError};
use std::time::{Duration, Instant, SystemTime};

use daemon::config::{Problem, Settings};
use daemon::log::causes;
use tracing::{error, info};

use keys::KeySet;
pub use keys::KeySetError;
pub(crate) use token::TokenError;

daemon::settings! {
    /// Logins by a token of an OAuth 2 issuer (OAUTHBEARER and XOAUTH2) instead of a password.
    pub struct OauthSettings {
        /// The issuer's public keys: its JWK set (RFC 7517), as it stands at its `jwks_uri`, in a file. It is read
        /// again within some seconds when it has changed. RSA, P-256 and Ed25519 keys are used (RS256, ES256, EdDSA).
        /// Without it no tokens are taken.
        pub keys: Option<PathBuf> = None,
        /// Who must have issued a token, as its `iss` says it.
        pub issuer: String = String::new(),
        /// For whom it must be: one of its `aud`.
        pub audience: String = String::new(),
        /// The claim that says who the user is; it must be the login name. With "email" a token
        /// must say `email_verified` too.
        pub user_claim: String = "email".into(),
        /// Takes the "email" of a token that does not say whether it is verified, as those of some issuers never do.
        /// Only where nobody can enter an address at the issuer that is not theirs.
        pub trust_unsaid_email: bool = false,
        /// The scope that a client is told to ask for when its token is refused.
        pub scope: String = "openid email".into(),
        /// Where a client may learn how to get a token, told to it when its own is refused.
        pub openid_configuration: Option<String> = None,
    }
}

impl Settings for OauthSettings {
    fn problems(&self) -> Vec<Problem> {
        if self.keys.is_none() {
            return Vec::new();
        }
        let given = [
            ("issuer", &self.issuer),
            ("audience", &self.audience),
            ("user_claim", &self.user_claim),
        ];
        let empty = given.into_iter().filter(|(_, value)| value.is_empty());
        let problem = |(key, value): (&str, &String)| {
            Problem::new(
                key,
                value,
                "empty, though keys are given",
                "say it: nothing else keeps tokens for others out",
            )
        };
        empty.map(problem).collect()
    }
}

/// Why the keys cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file.
    #[error("{}: the issuer's keys cannot be read", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// What stands in it.
    #[error("{}: the issuer's keys cannot be used", .0.display())]
    Use(PathBuf, #[source] KeySetError),
}

/// Checks tokens. One for the whole process.
pub(crate) struct Issuer {
    settings: OauthSettings,
    file: PathBuf,
    keys: RwLock<Arc<KeySet>>,
    looked: Mutex<Looked>,
}

/// The last look at the file.
struct Looked {
    stamp: Option<Stamp>,
    at: Instant,
}

type Stamp = (SystemTime, u64);

impl Issuer {
    /// None: no tokens are taken. Blocking.
    pub(crate) fn open(settings: OauthSettings) -> Result<Option<Self>, KeysError> {
        let Some(file) = settings.keys.clone() else {
            return Ok(None);
        };
        let stamp = stamp(&file);
        let keys = Arc::new(read(&file)?);
        let at = Instant::now();
        Ok(Some(Self {
            settings,
            file,
            keys: RwLock::new(keys),
            looked: Mutex::new(Looked { stamp, at }),
        }))
    }

    pub(crate) fn settings(&self) -> &OauthSettings {
        &self.settings
    }

    /// Whom a token is about, if it is good. Blocking: it may read the keys again.
    pub(crate) fn user_of(&self, token: &str, now_ms: i64) -> Result<String, TokenError> {
        token::user_of(token, &self.keys(), &self.settings, now_ms / 1_000)
    }

    fn keys(&self) -> Arc<KeySet> {
        // While one looks, and perhaps waits for a disk, the others go on with the keys there are.
        match self.looked.try_lock() {
            Ok(mut looked) => self.look(&mut looked),
            Err(TryLockError::Poisoned(looked)) => self.look(&mut looked.into_inner()),
            Err(TryLockError::WouldBlock) => {}
        }
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn look(&self, looked: &mut Looked) {
        if looked.at.elapsed() < LOOK_INTERVAL {
            return;
        }
        looked.at = Instant::now();
        let now = stamp(&self.file);
        if now == looked.stamp {
            return;
        }
        looked.stamp = now;
        match read(&self.file) {
            Ok(keys) => {
                info!(file = %self.file.display(), "the issuer's keys are read again");
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
            }
            Err(error) => error!(cause = causes(&error), "the issuer's old keys stay"),
        }
    }
}

/// None where there is no file now, as between two steps of whoever renews it.
fn stamp(file: &Path) -> Option<Stamp> {
    let about = fs::metadata(file).ok()?;
    Some((about.modified().ok()?, about.len()))
}

fn read(file: &Path) -> Result<KeySet, KeysError> {
    let mut octets = Vec::new();
    let opened =
        File::open(file).and_then(|file| file.take(FILE_MAX_OCTETS).read_to_end(&mut octets));
    opened.map_err(|source| KeysError::Read(file.to_owned(), source))?;
    KeySet::parse(&octets).map_err(|source| KeysError::Use(file.to_owned(), source))
}

/// How often the file is looked at while tokens come.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A key is some 500 octets; with certificates some thousand.
const FILE_MAX_OCTETS: u64 = 1024 * 1024;
