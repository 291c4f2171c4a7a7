//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, the server's side: messages and proofs. RFC 5802, RFC 7677.
//!
//! ```text
//! C: n,,n=user,r=abc                      ClientFirst::parse
//! S: r=abcXYZ,s=<salt>,i=15000            server_first
//! C: c=biws,r=abcXYZ,p=<proof>            ClientFinal::parse, Exchange::is_proved_by
//! S: v=<signature>                        Exchange::server_final
//! ```
//!
//! Ours and not rsasl's: a dialogue here has no memory between its steps, so that any replica of the
//! directory can take the next one, and rsasl's sessions cannot be written down. What is left of
//! SCRAM then are these two hundred lines over the hash functions that are linked anyway.

mod prep;

use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use data_encoding::BASE64;
use subtle::ConstantTimeEq;

pub(crate) use prep::prepared;

/// What is stored of a password, so that who knows it can be recognised and who reads it here
/// cannot log in with it. A guess at the password costs what the iterations cost, and no memory:
/// less than with Argon2id.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) salt: Vec<u8>,
    pub(crate) iterations: NonZeroU32,
    pub(crate) stored_key: Key,
    pub(crate) server_key: Key,
}

/// As long as SHA-256's output.
pub(crate) type Key = [u8; KEY_OCTETS];

/// SHA-256's length.
pub(crate) const KEY_OCTETS: usize = 32;
/// The fewest iterations that RFC 7677 §4 allows.
pub(crate) const ITERATIONS_MIN: u32 = 4_096;
/// 0.3 s of a password's check here, and as much in the client, which has to do them too.
pub(crate) const ITERATIONS_MAX: u32 = 1_000_000;

impl Keys {
    /// The keys of a password, which is [`prepared`] first. None: nobody could type it in a client.
    pub(crate) fn of(password: &str, salt: Vec<u8>, iterations: NonZeroU32) -> Option<Self> {
        let password = prepared(password)?;
        let mut salted = Key::default();
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            iterations,
            &salt,
            password.as_bytes(),
            &mut salted,
        );
        Some(Self {
            salt,
            iterations,
            stored_key: hash(&mac(&salted, b"Client Key")),
            server_key: mac(&salted, b"Server Key"),
        })
    }

    /// Whether they are this password's. Takes as long, right or wrong.
    pub(crate) fn match_password(&self, password: &str) -> bool {
        let found = Self::of(password, self.salt.clone(), self.iterations);
        found.is_some_and(|found| found.stored_key.ct_eq(&self.stored_key).into())
    }

    /// How they are written, as Dovecot does.
    pub(crate) fn text(&self) -> String {
        format!(
            "{{SCRAM-SHA-256}}{},{},{},{}",
            self.iterations,
            BASE64.encode(&self.salt),
            BASE64.encode(&self.stored_key),
            BASE64.encode(&self.server_key)
        )
    }
}

/// Why a message is no message of SCRAM. RFC 5802 §7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Whether the client binds to the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flag<'a> {
    /// It cannot.
    Unable,
    /// It can, and thinks that the server cannot.
    ThinksServerUnable,
    /// It does, to this kind.
    Binds(&'a str),
}

/// The client's first message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ClientFirst<'a> {
    pub(crate) flag: Flag<'a>,
    /// Everything before the bare message, which the client repeats in its final one.
    pub(crate) header: &'a str,
    /// Whom it wants to act as, if it says so.
    pub(crate) acts_as: Option<String>,
    pub(crate) bare: &'a str,
    pub(crate) user: String,
    pub(crate) nonce: &'a str,
}

impl<'a> ClientFirst<'a> {
    pub(crate) fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
        let text = text(message)?;
        let (flag, rest) = text.split_once(',').ok_or(Malformed)?;
        let (acts_as, bare) = rest.split_once(',').ok_or(Malformed)?;
        let flag = match flag.split_once('=') {
            None if flag == "n" => Flag::Unable,
            None if flag == "y" => Flag::ThinksServerUnable,
            Some(("p", kind)) if is_binding_name(kind) => Flag::Binds(kind),
            _ => return Err(Malformed),
        };
        let acts_as = match acts_as {
            "" => None,
            name => Some(unescaped(name.strip_prefix("a=").ok_or(Malformed)?)?),
        };
        let header = &text[..text.len() - bare.len()];
        // An `m=` in front would be an extension that must be understood: there is none.
        let mut attributes = bare.split(',');
        let user = attributes.next().and_then(|text| text.strip_prefix("n="));
        let nonce = attributes.next().and_then(|text| text.strip_prefix("r="));
        let (Some(user), Some(nonce)) = (user, nonce) else {
            return Err(Malformed);
        };
        if !is_nonce(nonce, NONCE_MAX_OCTETS) || !attributes.all(is_extension) {
            return Err(Malformed);
        }
        Ok(Self {
            flag,
            header,
            acts_as,
            bare,
            user: unescaped(user)?,
            nonce,
        })
    }
}

/// The client's final message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ClientFinal<'a> {
    /// The header it sent first, then what it is bound to.
    pub(crate) bound_to: Vec<u8>,
    pub(crate) nonce: &'a str,
    pub(crate) without_proof: &'a str,
    pub(crate) proof: Key,
}

impl<'a> ClientFinal<'a> {
    pub(crate) fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
        let text = text(message)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(Malformed)?;
        let proof = decoded(proof)?.try_into().map_err(|_| Malformed)?;
        let mut attributes = without_proof.split(',');
        let bound_to = attributes.next().and_then(|text| text.strip_prefix("c="));
        let nonce = attributes.next().and_then(|text| text.strip_prefix("r="));
        let (Some(bound_to), Some(nonce)) = (bound_to, nonce) else {
            return Err(Malformed);
        };
        if !is_nonce(nonce, NONCE_MAX_OCTETS + OUR_NONCE_MAX_OCTETS)
            || !attributes.all(is_extension)
        {
            return Err(Malformed);
        }
        Ok(Self {
            bound_to: decoded(bound_to)?,
            nonce,
            without_proof,
            proof,
        })
    }
}

/// The server's first message. `nonce` is the client's with ours behind it.
pub(crate) fn server_first(nonce: &str, salt: &[u8], iterations: NonZeroU32) -> String {
    format!("r={nonce},s={},i={iterations}", BASE64.encode(salt))
}

/// What was said before the proof, all of which it proves.
pub(crate) struct Exchange {
    message: String,
}

impl Exchange {
    pub(crate) fn new(
        client_first_bare: &str,
        server_first: &str,
        final_without_proof: &str,
    ) -> Self {
        Self {
            message: format!("{client_first_bare},{server_first},{final_without_proof}"),
        }
    }

    /// Whether it is the proof of one who has these keys' password. Takes as long, right or wrong.
    pub(crate) fn is_proved_by(&self, proof: &Key, keys: &Keys) -> bool {
        let signature = mac(&keys.stored_key, self.message.as_bytes());
        let client_key: Key = std::array::from_fn(|at| proof[at] ^ signature[at]);
        hash(&client_key).ct_eq(&keys.stored_key).into()
    }

    /// The server's final message: that it has the keys too.
    pub(crate) fn server_final(&self, keys: &Keys) -> String {
        let signature = mac(&keys.server_key, self.message.as_bytes());
        format!("v={}", BASE64.encode(&signature))
    }
}

fn text(message: &[u8]) -> Result<&str, Malformed> {
    if message.len() > MESSAGE_MAX_OCTETS {
        return Err(Malformed);
    }
    let text = std::str::from_utf8(message).map_err(|_| Malformed)?;
    match text.contains('\0') {
        true => Err(Malformed),
        false => Ok(text),
    }
}

/// A name of which `,` and `=` are written `=2C` and `=3D`.
pub(crate) fn unescaped(name: &str) -> Result<String, Malformed> {
    let mut pieces = name.split('=');
    let mut whole = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (sign, rest) = match (piece.strip_prefix("2C"), piece.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return Err(Malformed),
        };
        whole.push(sign);
        whole.push_str(rest);
    }
    match whole.is_empty() {
        true => Err(Malformed),
        false => Ok(whole),
    }
}

fn is_binding_name(text: &str) -> bool {
    let is_part = |octet: u8| octet.is_ascii_alphanumeric() || b".-".contains(&octet);
    !text.is_empty() && text.bytes().all(is_part)
}

/// Printable ASCII without the comma.
fn is_nonce(text: &str, octets_max: usize) -> bool {
    let is_printable = |octet: u8| octet.is_ascii_graphic() && octet != b',';
    (1..=octets_max).contains(&text.len()) && text.bytes().all(is_printable)
}

/// One that may be passed over: a letter, `=` and something.
fn is_extension(text: &str) -> bool {
    matches!(text.as_bytes(), [letter, b'=', _, ..] if letter.is_ascii_alphabetic() && *letter != b'm')
}

fn decoded(text: &str) -> Result<Vec<u8>, Malformed> {
    BASE64.decode(text.as_bytes()).map_err(|_| Malformed)
}

fn mac(key: &Key, message: &[u8]) -> Key {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    tag.as_ref().try_into().expect("HMAC-SHA-256 has 32 octets")
}

fn hash(octets: &[u8]) -> Key {
    let hash = digest::digest(&digest::SHA256, octets);
    hash.as_ref().try_into().expect("SHA-256 has 32 octets")
}

/// A user name of 512 octets is up to 1,536 when escaped, and so is whom they act as.
const MESSAGE_MAX_OCTETS: usize = 8 * 1_024;
/// Clients send 16 to 64.
const NONCE_MAX_OCTETS: usize = 1_024;
/// Ours stands behind the client's in its final message, and has 24.
const OUR_NONCE_MAX_OCTETS: usize = 32;

#[cfg(test)]
mod tests;
