//! An issuer of OAuth 2 tokens: keys of each kind that are made for one test, its JWK set, and what it signs.

#![allow(clippy::unwrap_used)]

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
};
use data_encoding::BASE64URL_NOPAD;

/// Signs whatever it is told to.
#[derive(Debug)]
pub struct Issuer {
    ed25519: Ed25519KeyPair,
    p256: EcdsaKeyPair,
    rsa: RsaKeyPair,
}

impl Default for Issuer {
    fn default() -> Self {
        Self::new()
    }
}

impl Issuer {
    /// Makes its keys.
    ///
    /// # Panics
    /// Without randomness.
    #[must_use]
    pub fn new() -> Self {
        Self {
            ed25519: Ed25519KeyPair::generate().unwrap(),
            p256: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
        }
    }

    /// Its public keys, each a JWK named by its algorithm.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        let base64 = |octets: &[u8]| BASE64URL_NOPAD.encode(octets);
        let ed25519 = base64(self.ed25519.public_key().as_ref());
        // Behind the octet that says "uncompressed".
        let (x, y) = self.p256.public_key().as_ref()[1..].split_at(32);
        // A sequence of two integers, the first of 2,048 bits and an octet for its sign (RFC 8017 §A.1.1).
        let rsa = self.rsa.public_key().as_ref();
        let (n, e) = (&rsa[9..9 + 256], &rsa[9 + 256 + 2..]);
        vec![
            format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"EdDSA","use":"sig","x":"{ed25519}"}}"#),
            format!(
                r#"{{"kty":"EC","crv":"P-256","kid":"ES256","alg":"ES256","x":"{}","y":"{}"}}"#,
                base64(x),
                base64(y)
            ),
            format!(
                r#"{{"kty":"RSA","kid":"RS256","use":"sig","alg":"RS256","n":"{}","e":"{}"}}"#,
                base64(n),
                base64(e)
            ),
        ]
    }

    /// Its JWK set.
    #[must_use]
    pub fn key_set(&self) -> String {
        format!(r#"{{"keys":[{}]}}"#, self.keys().join(","))
    }

    /// A token with these claims (JSON), signed by the key for an algorithm: `EdDSA`, `ES256` or `RS256`.
    #[must_use]
    pub fn token(&self, algorithm: &str, claims: &str) -> String {
        let header = format!(r#"{{"typ":"JWT","alg":"{algorithm}","kid":"{algorithm}"}}"#);
        self.signed(algorithm, &header, claims)
    }

    /// The same with a header (JSON) of one's own.
    ///
    /// # Panics
    /// When there is no key for the algorithm.
    #[must_use]
    pub fn signed(&self, algorithm: &str, header: &str, claims: &str) -> String {
        let base64 = |octets: &[u8]| BASE64URL_NOPAD.encode(octets);
        let signed = format!(
            "{}.{}",
            base64(header.as_bytes()),
            base64(claims.as_bytes())
        );
        let octets = signed.as_bytes();
        let random = SystemRandom::new();
        let signature = match algorithm {
            "EdDSA" => self.ed25519.sign(octets).as_ref().to_vec(),
            "ES256" => self.p256.sign(&random, octets).unwrap().as_ref().to_vec(),
            "RS256" => {
                let mut signature = vec![0; self.rsa.public_modulus_len()];
                self.rsa
                    .sign(&RSA_PKCS1_SHA256, &random, octets, &mut signature)
                    .unwrap();
                signature
            }
            other => panic!("no key for {other}"),
        };
        format!("{signed}.{}", base64(&signature))
    }
}
