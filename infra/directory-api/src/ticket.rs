//! Tickets: what a login leaves with the home back-end, so that it can check the same password itself while the directory is
//! away (DESIGN §8).
//!
//! A ticket is a part of the [grant](crate::grant) that the login brought: signed with it, good for the same account,
//! back-end and epoch, and taken only with it, which is accepted once and within seconds. So nobody can leave one but by a
//! login that the directory has just let in, and one of an older password cannot be brought again. The back-end keeps it in
//! memory. A proxy passes it on together with the password that it is about; it stores none.
//!
//! What checks the password is made of what the directory keeps, without another slow hash: a login with it costs the
//! directory an HMAC, so that each can leave a ticket.
//!
//! ```text
//! own password:   HMAC-SHA-256(salt, Argon2id(password, the stored form's salt and cost))
//! app password:   HMAC-SHA-256(salt, password)
//! ```
//!
//! The salt is a ticket's own. The verifier is not the stored hash, and nobody comes from one ticket to another or to the
//! database but by guessing, each guess an Argon2id. An app password is so checked only if it is long enough to be 128 random
//! bits; for these the directory keeps a fast hash too. Passwords kept in other forms have no ticket until they are Argon2id.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};

use crate::types::{ChangeNumber, CredentialName, LoginName, Service};

/// Lets a back-end check one password of an account for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ticket {
    /// The name under which the user logged in, which may be one in an alias of the domain.
    pub user: LoginName,
    /// Which password it is; the account's own when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialName>,
    /// What it opens.
    pub services: Vec<Service>,
    /// The newest change that the login has seen: one of the account behind it ends the ticket.
    /// From a directory of an older version, which does not say it, there is none that can be kept.
    #[serde(default = "never")]
    pub as_of: ChangeNumber,
    /// The first millisecond, of the directory's clock, at which it is of no use any more.
    pub expires_at_ms: i64,
    /// Knows the password when it sees it.
    pub verifier: Verifier,
}

fn never() -> ChangeNumber {
    ChangeNumber(0)
}

/// Knows a password when it sees it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verifier {
    /// What the password goes through first; nothing if it is long and random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    argon2id: Option<Argon2id>,
    #[serde(with = "octets")]
    salt: Vec<u8>,
    #[serde(with = "octets")]
    tag: Vec<u8>,
}

/// How a password is hashed (RFC 9106).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Argon2id {
    /// Memory.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
    /// The stored form's.
    #[serde(with = "octets")]
    pub salt: Vec<u8>,
}

/// 128 random bits in base64 are 22 characters, in base32 26: a password of so many may be checked by a fast hash.
pub const RANDOM_MIN_OCTETS: usize = 22;

/// Sets these verifiers apart from whatever else is made of a password.
const CONTEXT: &[u8] = b"posthouse ticket ";

impl Verifier {
    /// Of a password that is kept as this hash of it.
    #[must_use]
    pub fn of_argon2id(argon2id: Argon2id, hash: &[u8]) -> Self {
        Self::new(Some(argon2id), hash)
    }

    /// Of an app password; none when it is too short to be a random one.
    #[must_use]
    pub fn of_random(password: &str) -> Option<Self> {
        let is_long = password.len() >= RANDOM_MIN_OCTETS;
        is_long.then(|| Self::new(None, password.as_bytes()))
    }

    fn new(argon2id: Option<Argon2id>, shown: &[u8]) -> Self {
        let salt = daemon::random::token128().to_vec();
        let tag = hmac::sign(&key(&salt), &message(shown)).as_ref().to_vec();
        Self {
            argon2id,
            salt,
            tag,
        }
    }

    /// Whether a check takes milliseconds of a processor.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        self.argon2id.is_some()
    }

    /// Whether this is the password.
    #[must_use]
    pub fn matches(&self, password: &str) -> bool {
        let hashed;
        let shown = match &self.argon2id {
            None => password.as_bytes(),
            Some(argon2id) => match argon2id.hash(password) {
                Some(hash) => {
                    hashed = hash;
                    &hashed
                }
                None => return false,
            },
        };
        hmac::verify(&key(&self.salt), &message(shown), &self.tag).is_ok()
    }
}

impl Argon2id {
    fn hash(&self, password: &str) -> Option<[u8; Params::DEFAULT_OUTPUT_LEN]> {
        let params = Params::new(self.memory_kib, self.passes, self.lanes, None).ok()?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let mut hash = [0; Params::DEFAULT_OUTPUT_LEN];
        let hashed = argon2.hash_password_into(password.as_bytes(), &self.salt, &mut hash);
        hashed.ok().map(|()| hash)
    }
}

/// Hides what one could guess at.
impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(hidden)")
    }
}

fn key(salt: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, salt)
}

fn message(shown: &[u8]) -> Vec<u8> {
    [CONTEXT, shown].concat()
}

mod octets {
    use data_encoding::BASE64URL_NOPAD;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(octets: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64URL_NOPAD.encode(octets))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        let octets = BASE64URL_NOPAD.decode(text.as_bytes());
        octets.map_err(|_| D::Error::custom("not base64url"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn argon2id() -> Argon2id {
        Argon2id {
            memory_kib: 64,
            passes: 1,
            lanes: 1,
            salt: b"salt of a stored form".to_vec(),
        }
    }

    #[test]
    fn a_verifier_knows_its_password_alone_and_shows_nothing_of_it() {
        let hash = argon2id().hash("right").unwrap();
        let own = Verifier::of_argon2id(argon2id(), &hash);
        let app = Verifier::of_random("kvoxgltvqvgh4lmzbhvxpaq3zi").unwrap();
        for (verifier, right) in [(&own, "right"), (&app, "kvoxgltvqvgh4lmzbhvxpaq3zi")] {
            let text = serde_json::to_string(verifier).unwrap();
            let read: Verifier = serde_json::from_str(&text).unwrap();
            assert!(read.matches(right), "{text}");
            for wrong in ["", "Right", "right ", "kvoxgltvqvgh4lmzbhvxpaq3zj"] {
                assert!(!read.matches(wrong), "{wrong:?}");
            }
            assert!(!text.contains(right) && !format!("{read:?}").contains("salt"));
        }
        assert_ne!(own, Verifier::of_argon2id(argon2id(), &hash), "a new salt");
        // Whoever steals one has neither the stored hash nor, with it, the password.
        assert!(!Verifier::of_argon2id(argon2id(), &own.tag).matches("right"));
    }

    #[test]
    fn only_an_app_password_that_may_be_random_has_a_fast_verifier() {
        assert!(Verifier::of_random(&"x".repeat(RANDOM_MIN_OCTETS)).is_some());
        assert!(Verifier::of_random(&"x".repeat(RANDOM_MIN_OCTETS - 1)).is_none());
    }

    #[test]
    fn a_cost_that_cannot_be_is_nobodys_password() {
        let none = Argon2id {
            passes: 0,
            ..argon2id()
        };
        assert!(!Verifier::of_argon2id(none, b"").matches(""));
    }
}
