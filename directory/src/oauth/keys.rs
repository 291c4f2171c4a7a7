//! An issuer's public keys: a JWK set (RFC 7517, RFC 7518 §6, RFC 8037).
//!
//! A key says which algorithm it is for, and that alone: a token is not asked. So there is no `none`, and no
//! secret of HMAC that is somebody's public key.

use aws_lc_rs::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;

/// Why a set is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// No JSON of that form.
    #[error("it is no JWK set")]
    Malformed,
    /// Nothing would be taken.
    #[error("it has no key for RS256, ES256 or EdDSA")]
    Empty,
    /// More than an issuer has.
    #[error("it has more than {KEYS_MAX} keys")]
    TooMany,
    /// A token could not say which it means.
    #[error("two of its keys have the same id, or it has several and one of them has none")]
    Ambiguous,
}

/// The keys that tokens may be signed with.
#[derive(Debug)]
pub(super) struct KeySet(Vec<Key>);

#[derive(Debug)]
pub(super) struct Key {
    id: Option<String>,
    public: Public,
}

#[derive(Debug)]
enum Public {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// A point, uncompressed.
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Keys of other kinds and uses are passed over.
    pub(super) fn parse(octets: &[u8]) -> Result<Self, KeySetError> {
        let set: Jwks = serde_json::from_slice(octets).map_err(|_| KeySetError::Malformed)?;
        if set.keys.len() > KEYS_MAX {
            return Err(KeySetError::TooMany);
        }
        let keys: Vec<Key> = set.keys.into_iter().filter_map(Key::read).collect();
        let is_lone = keys.len() == 1;
        for (at, key) in keys.iter().enumerate() {
            let is_told_apart = match &key.id {
                None => is_lone,
                Some(_) => keys[..at].iter().all(|other| other.id != key.id),
            };
            if !is_told_apart {
                return Err(KeySetError::Ambiguous);
            }
        }
        match keys.is_empty() {
            true => Err(KeySetError::Empty),
            false => Ok(Self(keys)),
        }
    }

    /// The key that a token names; the only one if it names none.
    pub(super) fn find(&self, id: Option<&str>) -> Option<&Key> {
        match (id, &self.0[..]) {
            (None, [lone]) => Some(lone),
            (None, _) => None,
            (Some(id), keys) => keys.iter().find(|key| key.id.as_deref() == Some(id)),
        }
    }
}

impl Key {
    fn read(value: serde_json::Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let octets = |text: &Option<String>| BASE64URL_NOPAD.decode(text.as_ref()?.as_bytes()).ok();
        let coordinate = |text| octets(text).filter(|octets| octets.len() == COORDINATE_OCTETS);
        let public = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => {
                let n = octets(&jwk.n)?;
                let is_long = RSA_OCTETS.contains(&n.len());
                is_long.then_some(Public::Rsa {
                    n,
                    e: octets(&jwk.e)?,
                })?
            }
            ("EC", Some("P-256")) => Public::P256(
                [
                    &[UNCOMPRESSED][..],
                    &coordinate(&jwk.x)?,
                    &coordinate(&jwk.y)?,
                ]
                .concat(),
            ),
            ("OKP", Some("Ed25519")) => Public::Ed25519(coordinate(&jwk.x)?),
            _ => return None,
        };
        let key = Self {
            id: jwk.kid,
            public,
        };
        let is_to_sign = jwk.usage.is_none_or(|usage| usage == "sig");
        let is_of_its_kind = jwk.alg.is_none_or(|alg| alg == key.algorithm());
        (is_to_sign && is_of_its_kind).then_some(key)
    }

    /// The only algorithm that it is for, as a token names it.
    pub(super) fn algorithm(&self) -> &'static str {
        match self.public {
            Public::Rsa { .. } => "RS256",
            Public::P256(_) => "ES256",
            Public::Ed25519(_) => "EdDSA",
        }
    }

    /// Whether it has signed the octets.
    pub(super) fn has_signed(&self, octets: &[u8], signature: &[u8]) -> bool {
        let verified = match &self.public {
            Public::Rsa { n, e } => RsaPublicKeyComponents { n, e }.verify(
                &signature::RSA_PKCS1_2048_8192_SHA256,
                octets,
                signature,
            ),
            Public::P256(point) => {
                UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point)
                    .verify(octets, signature)
            }
            Public::Ed25519(point) => {
                UnparsedPublicKey::new(&signature::ED25519, point).verify(octets, signature)
            }
        };
        verified.is_ok()
    }
}

/// Issuers have two to four; some rotate daily and keep a month's.
const KEYS_MAX: usize = 100;
/// 2,048 to 8,192 bits: RFC 7518 §3.3, and what can be verified.
const RSA_OCTETS: std::ops::RangeInclusive<usize> = 256..=1_024;
const COORDINATE_OCTETS: usize = 32;
/// SEC 1 §2.3.3.
const UNCOMPRESSED: u8 = 4;
