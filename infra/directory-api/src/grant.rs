//! Grants: short-lived signed statements of the directory that a user may open one account on one
//! back-end.
//!
//! Text form, version 1: `v1.<key id>.<payload>.<signature>`. The payload is JSON in base64url, the
//! signature is Ed25519 (RFC 8032) over the octets `posthouse grant ` and then the text before its
//! last dot; nothing is parsed before it is verified. A back-end checks a grant alone, without
//! asking the directory (P8):
//!
//! ```text
//! text ── form ok? ── key known? ── signature ok? ── for this back-end? ── in its 10 seconds?
//!          Malformed   UnknownKey    Forged           ForeignBackend        NotYetValid, Expired
//!      ── made since this back-end started? ── nonce never seen?
//!          BeforeStart                          Replayed, Overloaded
//! ```
//!
//! The nonce memory lives as long as the process, therefore a grant made before the process
//! started is refused: it may have been used on the process before.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use aws_lc_rs::signature::{self, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};

use crate::ticket::Ticket;
use crate::types::{AccountId, BackendName, Epoch, LoginName, Quota, Service};
use crate::wire::PublicKey;

/// How long a grant is valid. Opening a session takes milliseconds; the rest is for slow networks.
pub const LIFE_MS: i64 = 10_000;

/// How far the clocks of directory and back-end may differ. NTP keeps them within milliseconds.
pub const CLOCK_SKEW_MAX_MS: i64 = 2_000;

/// A text longer than this is refused unread. A name of 512 octets takes 3 times that when every
/// character is escaped and then written in base64, and with a ticket there are two of them.
pub const TEXT_MAX_OCTETS: usize = 4_096;

/// Nonces remembered at once: 12 s of 80,000 logins a second. 40 MB when full.
const NONCES_MAX: usize = 1_000_000;

const VERSION: &str = "v1";
const CONTEXT: &[u8] = b"posthouse grant ";

/// What a grant states.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Whose mail may be opened.
    pub account: AccountId,
    /// The only back-end that may accept it.
    pub backend: BackendName,
    /// The home's epoch when it was made: a writer with an older one is refused (P4).
    pub epoch: Epoch,
    /// What may be opened.
    pub service: Service,
    /// The user's canonical name.
    pub login_name: LoginName,
    /// What the account may keep, as of now: the home keeps it until it hears of a newer one.
    #[serde(default, skip_serializing_if = "Quota::is_none")]
    pub quota: Quota,
    /// By which the home can check the password itself for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<Box<Ticket>>,
    /// Unix milliseconds of the directory's clock.
    pub issued_at_ms: i64,
    /// The first millisecond at which it is no longer valid.
    pub expires_at_ms: i64,
    /// Makes it acceptable once.
    #[serde(with = "nonce_text")]
    pub nonce: [u8; 16],
}

/// Why a grant was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// The text is not a grant of a version we know.
    #[error("grant is malformed")]
    Malformed,
    /// It names a signing key we do not have; asking the directory for its keys may help.
    #[error("grant is signed with a key that is not known")]
    UnknownKey,
    /// The signature does not belong to the text.
    #[error("grant is forged")]
    Forged,
    /// It was made for another back-end.
    #[error("grant is for another back-end")]
    ForeignBackend,
    /// Its seconds are over.
    #[error("grant has expired")]
    Expired,
    /// It was made in our future: the clocks of directory and back-end differ too much.
    #[error("grant is not valid yet: the clocks of directory and back-end differ")]
    NotYetValid,
    /// It was made before this process began to remember which were used.
    #[error("grant was made before this back-end started")]
    BeforeStart,
    /// It was used before.
    #[error("grant was used before")]
    Replayed,
    /// Too many grants were accepted within their lifetime to remember one more.
    #[error("too many grants at once")]
    Overloaded,
}

impl GrantError {
    /// The reason in logs and metrics.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Malformed => "grant_malformed",
            Self::UnknownKey => "grant_unknown_key",
            Self::Forged => "grant_forged",
            Self::ForeignBackend => "grant_foreign_backend",
            Self::Expired => "grant_expired",
            Self::NotYetValid => "grant_not_yet_valid",
            Self::BeforeStart => "grant_before_start",
            Self::Replayed => "grant_replayed",
            Self::Overloaded => "grant_overloaded",
        }
    }
}

/// The signing key could not be made or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("signing key is not an Ed25519 key in PKCS#8 form")]
pub struct KeyError;

/// Signs grants; only the directory has one.
pub struct GrantSigner {
    key_id: String,
    pair: Ed25519KeyPair,
}

impl fmt::Debug for GrantSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrantSigner({})", self.key_id)
    }
}

impl GrantSigner {
    /// Makes a new key and returns it with its PKCS#8 form, which must be kept secret.
    ///
    /// # Errors
    /// [`KeyError`] when the system gives no randomness.
    pub fn generate() -> Result<(Self, Vec<u8>), KeyError> {
        let document = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new())
            .map_err(|_| KeyError)?;
        let octets = document.as_ref().to_vec();
        Ok((Self::from_pkcs8(&octets)?, octets))
    }

    /// Reads a key made by [`GrantSigner::generate`].
    ///
    /// # Errors
    /// [`KeyError`] when the octets are anything else.
    pub fn from_pkcs8(octets: &[u8]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8(octets).map_err(|_| KeyError)?;
        // The id only has to tell a handful of keys apart: 60 bits of the key itself do.
        let digest =
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, pair.public_key().as_ref());
        let mut key_id = BASE64URL_NOPAD.encode(digest.as_ref());
        key_id.truncate(10);
        Ok(Self { key_id, pair })
    }

    /// The key by which others check.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey {
            id: self.key_id.clone(),
            key: BASE64URL_NOPAD.encode(self.pair.public_key().as_ref()),
            state: None,
        }
    }

    /// Signs the grant and returns its text form.
    #[must_use]
    pub fn sign(&self, grant: &Grant) -> String {
        let payload = serde_json::to_vec(grant).expect("a grant always serialises");
        let mut text = format!(
            "{VERSION}.{}.{}",
            self.key_id,
            BASE64URL_NOPAD.encode(&payload)
        );
        let signature = self.pair.sign(&signed_octets(&text));
        text.push('.');
        text.push_str(&BASE64URL_NOPAD.encode(signature.as_ref()));
        text
    }
}

/// Checks grants and remembers which were used. One for each back-end process, shared by reference.
pub struct GrantVerifier {
    started_at_ms: i64,
    keys: RwLock<Arc<HashMap<String, Vec<u8>>>>,
    used: Mutex<Used>,
}

impl fmt::Debug for GrantVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrantVerifier(since {})", self.started_at_ms)
    }
}

impl GrantVerifier {
    /// A verifier without keys: every grant is [`GrantError::UnknownKey`] until
    /// [`GrantVerifier::set_keys`]. `started_at_ms` is the present time.
    #[must_use]
    pub fn new(started_at_ms: i64) -> Self {
        Self {
            started_at_ms,
            keys: RwLock::default(),
            used: Mutex::new(Used::new(NONCES_MAX)),
        }
    }

    /// Replaces the keys by those the directory has published. A key that cannot be read is left out.
    pub fn set_keys(&self, keys: &[PublicKey]) {
        let read = keys
            .iter()
            .filter_map(|key| {
                let octets = BASE64URL_NOPAD.decode(key.key.as_bytes()).ok()?;
                Some((key.id.clone(), octets))
            })
            .collect();
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(read);
    }

    /// Whether any key is known, that is whether any grant can be accepted at all.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        !self
            .keys
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }

    /// Accepts a grant, once.
    ///
    /// # Errors
    /// [`GrantError`], in the order of the figure above.
    pub fn verify(
        &self,
        text: &str,
        now_ms: i64,
        backend: &BackendName,
    ) -> Result<Grant, GrantError> {
        let grant = self.check(text, now_ms, backend)?;
        let keep_until_ms = grant.expires_at_ms.saturating_add(CLOCK_SKEW_MAX_MS);
        self.used
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remember(grant.nonce, keep_until_ms, now_ms)?;
        Ok(grant)
    }

    /// Reads a grant as [`verify`](Self::verify) does, without using it up.
    ///
    /// # Errors
    /// The same, but `Replayed` and `Overloaded`.
    pub fn check(
        &self,
        text: &str,
        now_ms: i64,
        backend: &BackendName,
    ) -> Result<Grant, GrantError> {
        if text.len() > TEXT_MAX_OCTETS {
            return Err(GrantError::Malformed);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(GrantError::Malformed)?;
        let mut parts = signed.split('.');
        let (Some(VERSION), Some(key_id), Some(payload), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(GrantError::Malformed);
        };
        let signature = BASE64URL_NOPAD
            .decode(signature.as_bytes())
            .map_err(|_| GrantError::Malformed)?;
        let keys = Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner));
        let key = keys.get(key_id).ok_or(GrantError::UnknownKey)?;
        UnparsedPublicKey::new(&signature::ED25519, key)
            .verify(&signed_octets(signed), &signature)
            .map_err(|_| GrantError::Forged)?;
        let payload = BASE64URL_NOPAD
            .decode(payload.as_bytes())
            .map_err(|_| GrantError::Malformed)?;
        let grant: Grant = serde_json::from_slice(&payload).map_err(|_| GrantError::Malformed)?;
        if grant.backend != *backend {
            return Err(GrantError::ForeignBackend);
        }
        if grant.issued_at_ms.saturating_sub(CLOCK_SKEW_MAX_MS) > now_ms {
            return Err(GrantError::NotYetValid);
        }
        if now_ms >= grant.expires_at_ms.saturating_add(CLOCK_SKEW_MAX_MS) {
            return Err(GrantError::Expired);
        }
        if grant.issued_at_ms < self.started_at_ms {
            return Err(GrantError::BeforeStart);
        }
        Ok(grant)
    }
}

/// Nonces that were used and have not yet expired, in the order they were used.
struct Used {
    nonces: HashSet<[u8; 16]>,
    order: VecDeque<(i64, [u8; 16])>,
    nonces_max: usize,
}

impl Used {
    fn new(nonces_max: usize) -> Self {
        Self {
            nonces: HashSet::new(),
            order: VecDeque::new(),
            nonces_max,
        }
    }

    fn remember(
        &mut self,
        nonce: [u8; 16],
        keep_until_ms: i64,
        now_ms: i64,
    ) -> Result<(), GrantError> {
        // Every grant lives equally long, so the order of use is the order of expiry but for
        // seconds; one kept a little longer behind another does no harm.
        while let Some((until_ms, oldest)) = self.order.front().copied() {
            if until_ms > now_ms {
                break;
            }
            self.order.pop_front();
            self.nonces.remove(&oldest);
        }
        if self.nonces.contains(&nonce) {
            return Err(GrantError::Replayed);
        }
        if self.nonces.len() >= self.nonces_max {
            return Err(GrantError::Overloaded);
        }
        self.nonces.insert(nonce);
        self.order.push_back((keep_until_ms, nonce));
        Ok(())
    }
}

fn signed_octets(text: &str) -> Vec<u8> {
    [CONTEXT, text.as_bytes()].concat()
}

mod nonce_text {
    use data_encoding::BASE64URL_NOPAD;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(nonce: &[u8; 16], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64URL_NOPAD.encode(nonce))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 16], D::Error> {
        let text = String::deserialize(from)?;
        BASE64URL_NOPAD
            .decode(text.as_bytes())
            .ok()
            .and_then(|octets| octets.try_into().ok())
            .ok_or_else(|| D::Error::custom("nonce is not 16 octets"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::ticket::{Argon2id, Verifier};
    use crate::types::ChangeNumber;

    const START: i64 = 1_000_000;

    struct Made {
        signer: GrantSigner,
        verifier: GrantVerifier,
    }

    impl Made {
        fn new() -> Self {
            let (signer, _) = GrantSigner::generate().unwrap();
            let verifier = GrantVerifier::new(START);
            verifier.set_keys(&[signer.public_key()]);
            Self { signer, verifier }
        }

        fn verify(&self, text: &str, now_ms: i64) -> Result<Grant, GrantError> {
            self.verifier.verify(text, now_ms, &backend("b1"))
        }
    }

    fn backend(name: &str) -> BackendName {
        name.parse().unwrap()
    }

    fn grant(issued_at_ms: i64, nonce: u8) -> Grant {
        Grant {
            account: AccountId(7),
            backend: backend("b1"),
            epoch: Epoch(3),
            service: Service::Imap,
            login_name: "ann@example.test".parse().unwrap(),
            quota: Quota::NONE,
            ticket: None,
            issued_at_ms,
            expires_at_ms: issued_at_ms + LIFE_MS,
            nonce: [nonce; 16],
        }
    }

    fn ticket(user: &str) -> Box<Ticket> {
        let argon2id = Argon2id {
            memory_kib: 19_456,
            passes: 2,
            lanes: 1,
            salt: vec![7; 16],
        };
        Box::new(Ticket {
            user: user.parse().unwrap(),
            credential: None,
            services: vec![Service::Imap, Service::Pop3],
            as_of: ChangeNumber(u64::MAX),
            expires_at_ms: i64::MAX,
            verifier: Verifier::of_argon2id(argon2id, &[7; 32]),
        })
    }

    #[test]
    fn a_grant_is_accepted_once_within_its_seconds() {
        let made = Made::new();
        for (nonce, age_ms, expected) in [
            (1, -CLOCK_SKEW_MAX_MS - 1, Some(GrantError::NotYetValid)),
            (2, -CLOCK_SKEW_MAX_MS, None),
            (3, 0, None),
            (4, LIFE_MS + CLOCK_SKEW_MAX_MS - 1, None),
            (5, LIFE_MS + CLOCK_SKEW_MAX_MS, Some(GrantError::Expired)),
        ] {
            let issued = grant(START + 5_000, nonce);
            let text = made.signer.sign(&issued);
            let now_ms = issued.issued_at_ms + age_ms;
            match expected {
                None => {
                    assert_eq!(made.verify(&text, now_ms), Ok(issued));
                    assert_eq!(made.verify(&text, now_ms), Err(GrantError::Replayed));
                }
                Some(error) => assert_eq!(made.verify(&text, now_ms), Err(error), "age {age_ms}"),
            }
        }
    }

    #[test]
    fn a_grant_made_before_the_back_end_started_is_refused() {
        let made = Made::new();
        let text = |issued| made.signer.sign(&grant(issued, 1));
        assert_eq!(
            made.verify(&text(START - 1), START),
            Err(GrantError::BeforeStart)
        );
        assert!(made.verify(&text(START), START).is_ok());
    }

    #[test]
    fn a_grant_for_another_back_end_or_of_an_unknown_key_is_refused() {
        let made = Made::new();
        let text = made.signer.sign(&grant(START, 1));
        let foreign = made.verifier.verify(&text, START, &backend("b2"));
        assert_eq!(foreign, Err(GrantError::ForeignBackend));
        let (other, _) = GrantSigner::generate().unwrap();
        let text = other.sign(&grant(START, 2));
        assert_eq!(made.verify(&text, START), Err(GrantError::UnknownKey));
        made.verifier
            .set_keys(&[made.signer.public_key(), other.public_key()]);
        assert!(made.verify(&text, START).is_ok());
        made.verifier.set_keys(&[]);
        assert!(!made.verifier.has_keys());
    }

    #[test]
    fn any_octet_changed_or_cut_is_refused() {
        let made = Made::new();
        let text = made.signer.sign(&grant(START, 1));
        for at in 0..text.len() {
            assert!(made.verify(&text[..at], START).is_err(), "cut at {at}");
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            // The last character of base64 may carry bits that mean nothing; they must be zero.
            assert!(made.verify(&changed, START).is_err(), "changed at {at}");
        }
        assert!(made.verify(&text, START).is_ok());
    }

    #[test]
    fn another_keys_signature_under_a_known_id_is_forged() {
        let made = Made::new();
        let (other, _) = GrantSigner::generate().unwrap();
        let text = other.sign(&grant(START, 1));
        let borrowed = text.replace(&other.public_key().id, &made.signer.public_key().id);
        assert_eq!(made.verify(&borrowed, START), Err(GrantError::Forged));
    }

    #[test]
    fn nonsense_is_malformed_whatever_its_length() {
        let made = Made::new();
        let long = "v1.".repeat(100_000);
        for text in [
            "",
            ".",
            "...",
            "v1.a.b",
            "v2.a.b.c",
            "v1.a.b.c.d",
            "v1.a.b.ü",
            &*long,
        ] {
            let refused = made.verify(text, START).unwrap_err();
            assert!(
                matches!(refused, GrantError::Malformed | GrantError::UnknownKey),
                "{text:.20}: {refused}"
            );
        }
    }

    /// A proxy that was taken over may have grants of many logins, and the passwords that came with them.
    #[test]
    fn a_ticket_is_of_its_grant_alone() {
        let made = Made::new();
        let of = |account, user| Grant {
            account: AccountId(account),
            ticket: Some(ticket(user)),
            ..grant(START, 1)
        };
        let text = made.signer.sign(&of(7, "ann@example.test"));
        let payload = |text: &str| text.split('.').nth(2).unwrap().to_owned();
        for other in [of(8, "ann@example.test"), of(7, "eve@example.test")] {
            let other = made.signer.sign(&other);
            let put_in = text.replace(&payload(&text), &payload(&other));
            assert_eq!(made.verify(&put_in, START), Err(GrantError::Forged));
        }
        assert!(made.verifier.check(&text, START, &backend("b1")).is_ok());
        assert!(made.verify(&text, START).is_ok());
        assert_eq!(made.verify(&text, START), Err(GrantError::Replayed));
    }

    #[test]
    fn the_longest_login_name_fits() {
        let made = Made::new();
        let name = "\"".repeat(512);
        let long = Grant {
            login_name: name.parse().unwrap(),
            ticket: Some(ticket(&name)),
            ..grant(START, 1)
        };
        let text = made.signer.sign(&long);
        assert!(text.len() <= TEXT_MAX_OCTETS, "{}", text.len());
        assert_eq!(made.verify(&text, START), Ok(long));
    }

    #[test]
    fn the_memory_of_nonces_is_bounded_and_forgets_what_expired() {
        let mut used = Used::new(2);
        assert_eq!(used.remember([1; 16], 100, 0), Ok(()));
        assert_eq!(used.remember([2; 16], 200, 0), Ok(()));
        assert_eq!(used.remember([3; 16], 300, 99), Err(GrantError::Overloaded));
        assert_eq!(used.remember([3; 16], 300, 100), Ok(()));
        assert_eq!(used.remember([2; 16], 200, 100), Err(GrantError::Replayed));
        assert_eq!((used.nonces.len(), used.order.len()), (2, 2));
    }

    #[test]
    fn a_key_survives_being_stored() {
        let (signer, octets) = GrantSigner::generate().unwrap();
        assert_eq!(
            GrantSigner::from_pkcs8(&octets).unwrap().public_key(),
            signer.public_key()
        );
        assert_eq!(GrantSigner::from_pkcs8(b"rust").unwrap_err(), KeyError);
        assert!(!format!("{signer:?}").contains("PRIVATE"));
    }
}
