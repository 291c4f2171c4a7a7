//! A client of SCRAM-SHA-256, written from RFC 5802 apart from the server it tries.

#![allow(clippy::unwrap_used)]

use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use data_encoding::BASE64;

/// One dialogue of a client. Each part may be bent before it is sent.
#[derive(Clone, Debug)]
pub struct ScramClient {
    /// `n,,`, `y,,` or `p=kind,,`.
    pub header: String,
    /// What it believes the channel to be.
    pub binding: Vec<u8>,
    /// As typed; not escaped.
    pub user: String,
    /// In its prepared form.
    pub password: String,
    /// Ours alone.
    pub nonce: String,
}

impl ScramClient {
    /// A client that cannot bind.
    #[must_use]
    pub fn new(user: &str, password: &str) -> Self {
        Self {
            header: "n,,".to_owned(),
            binding: Vec::new(),
            user: user.to_owned(),
            password: password.to_owned(),
            nonce: "fyko+d2lbbFgONRv9qkxdawL".to_owned(),
        }
    }

    /// The same client, bound to a channel.
    #[must_use]
    pub fn bound(self, kind: &str, binding: &[u8]) -> Self {
        Self {
            header: format!("p={kind},,"),
            binding: binding.to_vec(),
            ..self
        }
    }

    fn bare(&self) -> String {
        let user = self.user.replace('=', "=3D").replace(',', "=2C");
        format!("n={user},r={}", self.nonce)
    }

    /// The first message.
    #[must_use]
    pub fn first(&self) -> String {
        format!("{}{}", self.header, self.bare())
    }

    /// The final message, and what the server must say to it.
    ///
    /// # Panics
    /// When the server's message is none, or is not an answer to ours.
    #[must_use]
    pub fn last(&self, server_first: &str) -> (String, String) {
        let mut parts = server_first.split(',');
        let mut part = |name: &str| parts.next().unwrap().strip_prefix(name).unwrap();
        let (nonce, salt, iterations) = (part("r="), part("s="), part("i="));
        assert!(nonce.starts_with(&self.nonce) && nonce.len() > self.nonce.len());
        let mut salted = [0; 32];
        let iterations: NonZeroU32 = iterations.parse().unwrap();
        assert!(iterations.get() >= 4_096, "{iterations}");
        let salt = BASE64.decode(salt.as_bytes()).unwrap();
        let password = self.password.as_bytes();
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::derive(algorithm, iterations, &salt, password, &mut salted);
        let bound_to = [self.header.as_bytes(), &self.binding].concat();
        let without_proof = format!("c={},r={nonce}", BASE64.encode(&bound_to));
        let said = format!("{},{server_first},{without_proof}", self.bare());
        let client_key = mac(&salted, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, &client_key);
        let signature = mac(stored_key.as_ref(), said.as_bytes());
        let proof: Vec<u8> = client_key
            .iter()
            .zip(&signature)
            .map(|(key, sign)| key ^ sign)
            .collect();
        let answer = mac(&mac(&salted, b"Server Key"), said.as_bytes());
        (
            format!("{without_proof},p={}", BASE64.encode(&proof)),
            format!("v={}", BASE64.encode(&answer)),
        )
    }
}

fn mac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, message).as_ref().to_vec()
}
