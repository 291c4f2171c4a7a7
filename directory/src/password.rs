//! Checks passwords, at a bounded rate, and remembers for minutes which were right.
//!
//! An unknown user and a wrong password take the same (P8): either costs exactly one Argon2id,
//! whatever scheme the account has. A right password of a fast scheme, or one that was right a
//! moment ago, costs microseconds; only who knows it can see that.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use aws_lc_rs::hmac;
use data_encoding::BASE64;
use directory_api::wire::{Credential, Secret, salted_sha256};
use moka::future::Cache;
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::engine::StoredCredential;

/// Logins that may wait for their turn: at 50 hashes a second and core, ten seconds' worth on two.
const WAITING_MAX: usize = 1_000;
/// The longest wait for a turn; a client that waits longer has given up.
const WAIT_MAX: Duration = Duration::from_secs(8);
/// Verified passwords remembered: every user of a large site who polls. About 100 octets each.
const VERIFIED_MAX: u64 = 500_000;

const ARGON2ID: &str = "{ARGON2ID}";
const SSHA256: &str = "{SSHA256}";

/// Too many passwords wait to be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords wait to be checked")]
pub(crate) struct Throttled;

/// Why a credential cannot be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HashError {
    #[error("too many passwords wait to be hashed")]
    Throttled,
    #[error("the stored form is of no scheme this directory checks: {{ARGON2ID}} or {{SSHA256}}")]
    Scheme,
    #[error("the password is empty")]
    Empty,
    #[error("the password could not be hashed")]
    Failed,
}

/// Checks passwords. One for the whole process.
pub(crate) struct Passwords {
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// Keyed hashes of (stored form, password) pairs that matched. The key lives as long as the
    /// process and a new stored form makes another hash, so a changed password is forgotten at once.
    verified: Option<Cache<[u8; 32], ()>>,
    key: hmac::Key,
    /// What is hashed for users that do not exist.
    decoy: Arc<StoredCredential>,
}

impl Passwords {
    /// `threads` of 0 is one for each core; `kept` of 0 remembers nothing.
    pub(crate) fn new(threads: usize, kept: Duration) -> Result<Self, HashError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut key = [0; 32];
        daemon::random::fill(&mut key);
        let decoy = hash(&data_encoding::HEXLOWER.encode(&daemon::random::token128()))?;
        Ok(Self {
            turns: Arc::new(Semaphore::new(if threads == 0 { cores } else { threads })),
            waiting: AtomicUsize::new(0),
            verified: (!kept.is_zero()).then(|| {
                Cache::builder()
                    .max_capacity(VERIFIED_MAX)
                    .time_to_live(kept)
                    .build()
            }),
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            decoy: Arc::new(decoy),
        })
    }

    /// Whether the password matches one of the credentials; none is a user that does not exist.
    pub(crate) async fn verify(
        &self,
        credentials: Vec<StoredCredential>,
        password: &Secret,
    ) -> Result<bool, Throttled> {
        for credential in &credentials {
            let right = match &self.verified {
                Some(verified) => verified.contains_key(&self.tag(credential, password)),
                None => false,
            };
            if right || matches_fast(credential, password) {
                return Ok(true);
            }
        }
        let decoy = Arc::clone(&self.decoy);
        let password_moved = password.clone();
        let matched = self
            .in_turn(move || {
                let mut slow = credentials
                    .into_iter()
                    .filter(|stored| scheme(stored) == ARGON2ID);
                let Some(first) = slow.next() else {
                    matches_slow(&decoy, &password_moved);
                    return None;
                };
                std::iter::once(first)
                    .chain(slow)
                    .find(|credential| matches_slow(credential, &password_moved))
            })
            .await?;
        if let (Some(verified), Some(credential)) = (&self.verified, &matched) {
            verified.insert(self.tag(credential, password), ()).await;
        }
        Ok(matched.is_some())
    }

    /// Gives the form in which a credential is stored.
    pub(crate) async fn store(
        &self,
        credential: Credential,
    ) -> Result<StoredCredential, HashError> {
        match credential {
            Credential::Password(password) if password.reveal().is_empty() => Err(HashError::Empty),
            Credential::Password(password) => self
                .in_turn(move || hash(password.reveal()))
                .await
                .map_err(|Throttled| HashError::Throttled)?,
            Credential::Hashed(secret) => {
                let stored = StoredCredential { secret };
                let readable = match scheme(&stored) {
                    ARGON2ID => PasswordHash::new(text(&stored)).is_ok(),
                    SSHA256 => ssha256(&stored).is_some(),
                    _ => false,
                };
                if readable {
                    Ok(stored)
                } else {
                    Err(HashError::Scheme)
                }
            }
        }
    }

    /// Runs hashing on a thread of its own when there is a turn.
    async fn in_turn<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> Result<R, Throttled> {
        let waiting = Waiting::enter(&self.waiting)?;
        let turn = timeout(WAIT_MAX, Arc::clone(&self.turns).acquire_owned()).await;
        drop(waiting);
        let Ok(Ok(turn)) = turn else {
            return Err(Throttled);
        };
        tokio::task::spawn_blocking(move || {
            let result = work();
            drop(turn);
            result
        })
        .await
        .map_err(|_| Throttled)
    }

    fn tag(&self, credential: &StoredCredential, password: &Secret) -> [u8; 32] {
        let stored = credential.secret.reveal();
        let octets = [
            &(stored.len() as u64).to_be_bytes()[..],
            stored.as_bytes(),
            password.reveal().as_bytes(),
        ]
        .concat();
        let tag = hmac::sign(&self.key, &octets);
        tag.as_ref().try_into().expect("HMAC-SHA-256 has 32 octets")
    }
}

/// Counts one who waits, until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize) -> Result<Self, Throttled> {
        let waiting = Self(count);
        if count.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            return Err(Throttled);
        }
        Ok(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn scheme(stored: &StoredCredential) -> &str {
    let secret = stored.secret.reveal();
    secret.find('}').map_or("", |end| &secret[..=end])
}

fn text(stored: &StoredCredential) -> &str {
    &stored.secret.reveal()[scheme(stored).len()..]
}

fn ssha256(stored: &StoredCredential) -> Option<([u8; 32], Vec<u8>)> {
    let octets = BASE64.decode(text(stored).as_bytes()).ok()?;
    let (hash, salt) = octets.split_first_chunk()?;
    Some((*hash, salt.to_vec()))
}

fn matches_fast(stored: &StoredCredential, password: &Secret) -> bool {
    if scheme(stored) != SSHA256 {
        return false;
    }
    ssha256(stored).is_some_and(|(hash, salt)| {
        salted_sha256(password.reveal().as_bytes(), &salt)
            .ct_eq(&hash)
            .into()
    })
}

fn matches_slow(stored: &StoredCredential, password: &Secret) -> bool {
    PasswordHash::new(text(stored)).is_ok_and(|hash| {
        Argon2::default()
            .verify_password(password.reveal().as_bytes(), &hash)
            .is_ok()
    })
}

fn hash(password: &str) -> Result<StoredCredential, HashError> {
    let hash = Argon2::default()
        .hash_password(password.as_bytes())
        .map_err(|_| HashError::Failed)?;
    Ok(StoredCredential {
        secret: Secret::new(format!("{ARGON2ID}{hash}")),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    fn passwords() -> Passwords {
        Passwords::new(2, Duration::from_secs(60)).unwrap()
    }

    #[tokio::test]
    async fn a_password_matches_its_own_stored_form_only() {
        let passwords = passwords();
        for credential in [
            Credential::Password(secret("right")),
            Credential::salted_sha256("right", b"salty"),
        ] {
            let stored = passwords.store(credential).await.unwrap();
            assert!(!stored.secret.reveal().contains("right"));
            for _ in 0..2 {
                let stored = vec![stored.clone()];
                assert!(
                    passwords
                        .verify(stored.clone(), &secret("right"))
                        .await
                        .unwrap()
                );
                assert!(!passwords.verify(stored, &secret("wrong")).await.unwrap());
            }
        }
        assert!(!passwords.verify(vec![], &secret("right")).await.unwrap());
    }

    #[tokio::test]
    async fn a_verified_password_is_forgotten_with_its_stored_form() {
        let passwords = passwords();
        let old = passwords
            .store(Credential::Password(secret("old")))
            .await
            .unwrap();
        assert!(passwords.verify(vec![old], &secret("old")).await.unwrap());
        let new = passwords
            .store(Credential::Password(secret("new")))
            .await
            .unwrap();
        assert!(!passwords.verify(vec![new], &secret("old")).await.unwrap());
    }

    #[tokio::test]
    async fn every_refusal_costs_one_slow_hash() {
        let passwords = passwords();
        let fast = passwords
            .store(Credential::salted_sha256("right", b"salty"))
            .await
            .unwrap();
        let slow = passwords
            .store(Credential::Password(secret("right")))
            .await
            .unwrap();
        let time = async |credentials: Vec<StoredCredential>, password| {
            let start = std::time::Instant::now();
            for _ in 0..5 {
                let _ = passwords
                    .verify(credentials.clone(), &secret(password))
                    .await
                    .unwrap();
            }
            start.elapsed()
        };
        let quick = time(vec![fast.clone()], "right").await;
        for credentials in [vec![], vec![fast], vec![slow]] {
            assert!(time(credentials, "wrong").await > quick * 5);
        }
    }

    #[tokio::test]
    async fn a_stored_form_of_an_unknown_scheme_is_refused() {
        for text in [
            "plain",
            "{MD5}x",
            "{ARGON2ID}x",
            "{SSHA256}AAAA",
            "{SSHA256}!",
            "}{",
            "",
        ] {
            let refused = passwords().store(Credential::Hashed(secret(text))).await;
            assert_eq!(refused.unwrap_err(), HashError::Scheme, "{text:?}");
        }
    }
}
