//! Tickets by which a client resumes a session, sealed with keys that several processes share.
//!
//! rustls makes its own keys and gives no way to share them, therefore this is ours; the sealing is the library's (AES-256-GCM-SIV,
//! which a nonce that falls twice among many processes does not break). A ticket is the key's name, the nonce and what is sealed, bound to
//! the certificates that were shown: after a renewal a client shakes hands in full, once, and never resumes
//! a session in which it saw another certificate than we take it to have seen.

use std::{fmt, fs, path::Path};

use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    digest::{self, SHA256},
};
use data_encoding::BASE64;
use rustls::{server::ProducesTickets, sign::CertifiedKey};

use crate::identity::IdentityError;

/// The keys of a file, in its order.
pub(super) struct SharedTickets {
    keys: Vec<Key>,
    bound_to: Vec<u8>,
}

struct Key {
    name: [u8; NAME_OCTETS],
    sealing: RandomizedNonceKey,
}

impl SharedTickets {
    /// Reads the keys; their tickets are good for sessions with these certificates.
    pub(super) fn load<'a>(
        path: &Path,
        certificates: impl Iterator<Item = &'a CertifiedKey>,
    ) -> Result<Self, IdentityError> {
        let text = fs::read_to_string(path).map_err(|source| IdentityError::Read {
            path: path.to_owned(),
            source,
        })?;
        let wrong = |problem| IdentityError::TicketKeys {
            path: path.to_owned(),
            problem,
        };
        let lines = text.lines().map(str::trim);
        let keys: Vec<_> = lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| Key::read(line).ok_or_else(|| wrong("a line is not 48 octets in base64")))
            .collect::<Result<_, _>>()?;
        if !(KEYS_MIN..=KEYS_MAX).contains(&keys.len()) {
            return Err(wrong("it needs 2 to 16 keys, one a line"));
        }
        let mut hash = digest::Context::new(&SHA256);
        for octets in certificates.flat_map(|key| &key.cert) {
            hash.update(&(octets.len() as u64).to_be_bytes());
            hash.update(octets);
        }
        Ok(Self {
            keys,
            bound_to: hash.finish().as_ref().to_vec(),
        })
    }

    fn context(&self, key: &Key) -> Aad<Vec<u8>> {
        Aad::from([&key.name[..], &self.bound_to].concat())
    }
}

impl Key {
    fn read(line: &str) -> Option<Self> {
        let octets = BASE64.decode(line.as_bytes()).ok()?;
        let (name, key) = octets.split_first_chunk::<NAME_OCTETS>()?;
        Some(Self {
            name: *name,
            // It refuses a key of another length.
            sealing: RandomizedNonceKey::new(&AES_256_GCM_SIV, key).ok()?,
        })
    }
}

impl fmt::Debug for SharedTickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedTickets({} keys)", self.keys.len())
    }
}

impl ProducesTickets for SharedTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_S
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        // The last one may not have come to all processes yet.
        let key = &self.keys[self.keys.len() - 2];
        let mut sealed = plain.to_vec();
        let nonce = key
            .sealing
            .seal_in_place_append_tag(self.context(key), &mut sealed)
            .ok()?;
        let nonce: &[u8; NONCE_LEN] = nonce.as_ref();
        Some([&key.name[..], &nonce[..], &sealed[..]].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_OCTETS>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let key = self.keys.iter().find(|key| key.name == *name)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = key
            .sealing
            .open_in_place(nonce, self.context(key), &mut sealed);
        opened.ok().map(|plain| plain.to_vec())
    }
}

const NAME_OCTETS: usize = 16;
const KEYS_MIN: usize = 2;
const KEYS_MAX: usize = 16;
/// What clients are told; how long a ticket is good is for those to say who roll the keys.
const LIFETIME_S: u32 = 12 * 3600;

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u8) -> String {
        BASE64.encode(&[number; 48])
    }

    fn tickets(lines: &[String]) -> Result<SharedTickets, IdentityError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        fs::write(&path, lines.join("\n")).unwrap();
        SharedTickets::load(&path, std::iter::empty())
    }

    #[test]
    fn the_last_but_one_seals_and_all_open_so_that_keys_can_be_rolled_anywhere_first() {
        let old = tickets(&[line(1), line(2), line(3)]).unwrap();
        let new = tickets(&["# rolled".into(), line(2), line(3), line(4)]).unwrap();
        let by_old = old.encrypt(b"session").unwrap();
        let by_new = new.encrypt(b"session").unwrap();
        assert_eq!((by_old[0], by_new[0]), (2, 3));
        for opens in [&old, &new] {
            assert_eq!(opens.decrypt(&by_old).unwrap(), b"session");
            assert_eq!(opens.decrypt(&by_new).unwrap(), b"session");
        }
        let newest = tickets(&[line(3), line(4), line(5)]).unwrap();
        assert_eq!(newest.decrypt(&by_old), None, "its key is gone");
    }

    #[test]
    fn what_was_not_sealed_here_is_not_opened() {
        let tickets = tickets(&[line(1), line(2)]).unwrap();
        let sealed = tickets.encrypt(b"session").unwrap();
        for cut in 0..sealed.len() {
            assert_eq!(tickets.decrypt(&sealed[..cut]), None);
            let mut changed = sealed.clone();
            changed[cut] ^= 1;
            assert_eq!(tickets.decrypt(&changed), None);
        }
        let other = SharedTickets {
            bound_to: vec![7],
            ..tickets
        };
        assert_eq!(other.decrypt(&sealed), None, "another certificate");
    }

    #[test]
    fn a_file_that_is_none_is_refused() {
        let short = BASE64.encode(&[1; 47]);
        for lines in [
            vec![line(1)],
            vec![],
            vec![line(1), short],
            vec![line(1), "x".into()],
            vec![line(1); 17],
        ] {
            assert!(tickets(&lines).is_err(), "{lines:?}");
        }
        let most = vec![line(1); 16];
        assert!(tickets(&most).is_ok());
    }
}
