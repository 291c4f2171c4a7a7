//! The forms in which a credential is stored: how each is written, how far it may go, how it is checked.
//!
//! A form is a scheme in braces and its text, as Dovecot and LDAP servers write it. Names are read
//! in any case; `.B64`, `.BASE64` or `.HEX` behind one says how its text is encoded:
//!
//! ```text
//! {ARGON2ID}$argon2id$v=19$m=19456,t=2,p=1$salt$hash       PHC string (RFC 9106)
//! {BLF-CRYPT}$2y$12$…                                      bcrypt; 2a, 2b and 2y are the same here
//! {SHA512-CRYPT}$6$[rounds=N$]salt$hash                    crypt(3); SHA256-CRYPT is $5$
//! {CRYPT}…                                                 one of the three above, by its prefix
//! {PBKDF2}$1$salt$iterations$hex                           HMAC-SHA-1, 20 octets (RFC 8018)
//! {SCRAM-SHA-256}iterations,salt,StoredKey,ServerKey       the last three in base64; without braces:
//! SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey        RFC 5803, as PostgreSQL writes it
//! {SSHA} {SSHA256} {SSHA512} {SMD5}                        base64 of the hash of password and salt, then the salt
//! {PLAIN} {CLEAR} {CLEARTEXT}                              the password
//! ```
//!
//! What is imported is somebody else's input: each number that decides how long a check takes or
//! how much memory it needs has a limit, at the import and again at each check.

use std::num::NonZeroU32;

use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, Params};
use aws_lc_rs::{digest, pbkdf2};
use bcrypt::HashParts;
use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use directory_api::ticket::{Argon2id, Verifier};
use directory_api::wire::limit;
use md5::{Digest as _, Md5};
use sha_crypt::ShaCrypt;
use subtle::ConstantTimeEq;

use crate::scram::{ITERATIONS_MAX, ITERATIONS_MIN, Keys};

/// Why a stored form is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormError {
    #[error("the stored form is of no scheme this directory checks: {SCHEMES}")]
    Scheme,
    #[error("the stored form is not as {scheme} is written: {wrong}")]
    Malformed {
        scheme: &'static str,
        wrong: &'static str,
    },
    #[error(
        "the stored form's {what} of {found} is outside the limits of {scheme}: {least} to {most}"
    )]
    OutOfLimits {
        scheme: &'static str,
        what: &'static str,
        found: u64,
        least: u64,
        most: u64,
    },
}

/// A stored form that was read and is within the limits.
pub(super) enum Form {
    Argon2id {
        hash: Box<PasswordHash>,
        params: Params,
    },
    Bcrypt {
        text: String,
        cost: u32,
    },
    ShaCrypt {
        text: String,
        wide: bool,
        rounds: u32,
    },
    Pbkdf2 {
        salt: String,
        iterations: NonZeroU32,
        hash: [u8; PBKDF2_OCTETS],
    },
    Scram(Keys),
    Salted {
        with: Salted,
        hash: Vec<u8>,
        salt: Vec<u8>,
    },
    Plain(String),
}

/// The hash functions that are run once over password and salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Salted {
    Md5,
    Sha1,
    Sha256,
    Sha512,
}

/// What a slow check runs, for its time is counted in steps of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    /// One KiB of memory, passed over once.
    Argon2,
    /// One of the 2^cost rounds.
    Bcrypt,
    /// One block of 64 octets.
    Sha256,
    /// One block of 128 octets.
    Sha512,
    /// One iteration of PBKDF2 with HMAC-SHA-1.
    Pbkdf2,
    /// One with HMAC-SHA-256.
    Pbkdf2Sha256,
}

/// How much a slow check has to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    pub(super) function: Function,
    pub(super) steps: f64,
    /// So many more for each octet of the password.
    pub(super) steps_per_octet: f64,
}

impl Form {
    /// Reads a stored form.
    pub(super) fn parse(stored: &str) -> Result<Self, FormError> {
        within(
            ANY,
            "length in octets",
            stored.len() as u64,
            1,
            STORED_MAX_OCTETS,
        )?;
        if let Some(text) = stored.strip_prefix("SCRAM-SHA-256$") {
            return scram_sha_256(&text.replace([':', '$'], ","));
        }
        let (name, text) = stored
            .strip_prefix('{')
            .and_then(|rest| rest.split_once('}'))
            .ok_or(FormError::Scheme)?;
        let name = name.to_ascii_uppercase();
        let (name, encoding) = match name.split_once('.') {
            None => (name.as_str(), None),
            Some((name, "B64" | "BASE64")) => (name, Some(BASE64)),
            Some((name, "HEX")) => (name, Some(HEXLOWER_PERMISSIVE)),
            Some(_) => return Err(FormError::Scheme),
        };
        if let Some(with) = Salted::named(name) {
            let octets = encoding.unwrap_or(BASE64).decode(text.as_bytes());
            return with.read(octets.map_err(|_| with.malformed("it cannot be decoded"))?);
        }
        let scheme = match name {
            "ARGON2ID" => ARGON2ID,
            "BLF-CRYPT" => BLF_CRYPT,
            "SHA512-CRYPT" => SHA512_CRYPT,
            "SHA256-CRYPT" => SHA256_CRYPT,
            "CRYPT" => CRYPT,
            "PBKDF2" => PBKDF2,
            "SCRAM-SHA-256" => SCRAM_SHA_256,
            "PLAIN" | "CLEAR" | "CLEARTEXT" => PLAIN,
            _ => return Err(FormError::Scheme),
        };
        let text = match encoding {
            None => text.to_owned(),
            Some(encoding) => encoding
                .decode(text.as_bytes())
                .ok()
                .and_then(|octets| String::from_utf8(octets).ok())
                .ok_or(malformed(scheme, "it cannot be decoded"))?,
        };
        match scheme {
            ARGON2ID => argon2id(&text),
            PBKDF2 => pbkdf2_hmac_sha1(&text),
            SCRAM_SHA_256 => scram_sha_256(&text),
            PLAIN => plain(text),
            // As Dovecot does: crypt(3) goes by the text and not by the name.
            _ if text.starts_with("$2") => blf_crypt(text),
            _ if text.starts_with("$5$") => sha_crypt(text, false),
            _ if text.starts_with("$6$") => sha_crypt(text, true),
            _ => Err(malformed(scheme, "it does not begin with $2y$, $5$ or $6$")),
        }
    }

    /// Whether the password is the one. Takes as long as [`work`](Self::work) says, right or wrong.
    pub(super) fn matches(&self, password: &str) -> bool {
        let octets = password.as_bytes();
        match self {
            Self::Argon2id { hash, .. } => Argon2::default()
                .verify_password(octets, hash.as_ref())
                .is_ok(),
            // crypt(3) takes what stands before the first NUL, and bcrypt the first 72 octets of
            // that: as there, a longer password is right if it begins right. But the library goes
            // on behind a NUL, where "a", NUL, "a" is to bcrypt what "a" is.
            Self::Bcrypt { text, .. } => {
                bcrypt::verify(octets, text).unwrap_or(false) & !octets.contains(&0)
            }
            Self::ShaCrypt { text, rounds, .. } => {
                let hashed =
                    u64::from(*rounds).saturating_mul(octets.len() as u64 + SHA_OCTETS_MORE);
                hashed <= SHA_CRYPT_OCTETS_MAX
                    && ShaCrypt::SHA512
                        .verify_password(octets, text.as_str())
                        .is_ok()
            }
            Self::Pbkdf2 {
                salt,
                iterations,
                hash,
            } => {
                let mut found = [0; PBKDF2_OCTETS];
                let salt = salt.as_bytes();
                pbkdf2::derive(
                    pbkdf2::PBKDF2_HMAC_SHA1,
                    *iterations,
                    salt,
                    octets,
                    &mut found,
                );
                // Nor does HMAC tell a short key from one with NULs behind it.
                bool::from(found.ct_eq(hash)) & !octets.contains(&0)
            }
            // The preparation refuses NULs.
            Self::Scram(keys) => keys.match_password(password),
            Self::Salted { with, hash, salt } => with.hash(octets, salt).ct_eq(hash).into(),
            Self::Plain(text) => text.as_bytes().ct_eq(octets).into(),
        }
    }

    /// Whether a password that matches is known to its last octet. Of one that bcrypt cut it is not:
    /// it may have been mistyped behind that, and must not become the one that counts.
    pub(super) fn proves(&self, password: &str) -> bool {
        match self {
            Self::Bcrypt { .. } => password.len() < BCRYPT_OCTETS,
            _ => true,
        }
    }

    /// Whether it is what a new password becomes.
    pub(super) fn is_current(&self) -> bool {
        let Self::Argon2id { hash, params } = self else {
            return false;
        };
        let now = Params::default();
        (params.m_cost(), params.t_cost(), params.p_cost())
            == (now.m_cost(), now.t_cost(), now.p_cost())
            && hash.version == Some(ARGON2_VERSION)
            && hash
                .hash
                .as_ref()
                .is_some_and(|hash| hash.len() == Params::DEFAULT_OUTPUT_LEN)
    }

    /// What lets somebody else check the same password, if it is what a new password becomes.
    pub(super) fn verifier(&self) -> Option<Verifier> {
        let Self::Argon2id { hash, params } = self else {
            return None;
        };
        let (Some(salt), Some(output), true) = (&hash.salt, &hash.hash, self.is_current()) else {
            return None;
        };
        let argon2id = Argon2id {
            memory_kib: params.m_cost(),
            passes: params.t_cost(),
            lanes: params.p_cost(),
            salt: salt.to_vec(),
        };
        Some(Verifier::of_argon2id(argon2id, output.as_bytes()))
    }

    /// What a check has to do; none for the fast ones, which take microseconds.
    pub(super) fn work(&self) -> Option<Work> {
        let work = |function, steps, steps_per_octet| {
            Some(Work {
                function,
                steps,
                steps_per_octet,
            })
        };
        match self {
            Self::Argon2id { params, .. } => {
                let steps = f64::from(params.m_cost()) * f64::from(params.t_cost());
                work(Function::Argon2, steps, 0.0)
            }
            Self::Bcrypt { cost, .. } => work(Function::Bcrypt, f64::from(1_u32 << cost), 0.0),
            Self::ShaCrypt { wide, rounds, .. } => {
                let (function, block, hash) = if *wide {
                    (Function::Sha512, 128.0, 64.0)
                } else {
                    (Function::Sha256, 64.0, 32.0)
                };
                let rounds = f64::from(*rounds);
                // A round hashes the last hash, most times the salt, and the password 1.86 times on
                // the average: in each second round, in six of seven, and in each other.
                work(
                    function,
                    rounds * (1.0 + hash / block),
                    rounds * 1.86 / block,
                )
            }
            Self::Pbkdf2 { iterations, .. } => {
                work(Function::Pbkdf2, f64::from(iterations.get()), 0.0)
            }
            Self::Scram(keys) => work(
                Function::Pbkdf2Sha256,
                f64::from(keys.iterations.get()),
                0.0,
            ),
            Self::Salted { .. } | Self::Plain(_) => None,
        }
    }

    /// What a check of a new password has to do.
    pub(super) fn current_work() -> Work {
        Work {
            function: Function::Argon2,
            steps: f64::from(Params::DEFAULT_M_COST) * f64::from(Params::DEFAULT_T_COST),
            steps_per_octet: 0.0,
        }
    }

    /// Its scheme, as metrics and the log name it.
    pub(super) fn scheme(&self) -> &'static str {
        match self {
            Self::Argon2id { .. } => ARGON2ID,
            Self::Bcrypt { .. } => BLF_CRYPT,
            Self::ShaCrypt { wide: true, .. } => SHA512_CRYPT,
            Self::ShaCrypt { wide: false, .. } => SHA256_CRYPT,
            Self::Pbkdf2 { .. } => PBKDF2,
            Self::Scram(_) => SCRAM_SHA_256,
            Self::Salted { with, .. } => with.scheme(),
            Self::Plain(_) => PLAIN,
        }
    }
}

/// The stored form `{SSHA512}` of a password.
pub(super) fn salted_sha512(password: &str, salt: &[u8]) -> String {
    let mut octets = Salted::Sha512.hash(password.as_bytes(), salt);
    octets.extend_from_slice(salt);
    format!("{{{SSHA512}}}{}", BASE64.encode(&octets))
}

impl Salted {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            SMD5 => Self::Md5,
            SSHA => Self::Sha1,
            SSHA256 => Self::Sha256,
            SSHA512 => Self::Sha512,
            _ => return None,
        })
    }

    fn scheme(self) -> &'static str {
        match self {
            Self::Md5 => SMD5,
            Self::Sha1 => SSHA,
            Self::Sha256 => SSHA256,
            Self::Sha512 => SSHA512,
        }
    }

    fn malformed(self, wrong: &'static str) -> FormError {
        malformed(self.scheme(), wrong)
    }

    fn octets(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    fn read(self, mut octets: Vec<u8>) -> Result<Form, FormError> {
        if octets.len() <= self.octets() {
            return Err(self.malformed("it is shorter than a hash and a salt"));
        }
        let salt = octets.split_off(self.octets());
        within(
            self.scheme(),
            "salt in octets",
            salt.len() as u64,
            1,
            SALT_MAX_OCTETS,
        )?;
        Ok(Form::Salted {
            with: self,
            hash: octets,
            salt,
        })
    }

    fn hash(self, password: &[u8], salt: &[u8]) -> Vec<u8> {
        let by = |algorithm| {
            let mut context = digest::Context::new(algorithm);
            context.update(password);
            context.update(salt);
            context.finish().as_ref().to_vec()
        };
        match self {
            Self::Md5 => Md5::new()
                .chain_update(password)
                .chain_update(salt)
                .finalize()
                .to_vec(),
            Self::Sha1 => by(&digest::SHA1_FOR_LEGACY_USE_ONLY),
            Self::Sha256 => by(&digest::SHA256),
            Self::Sha512 => by(&digest::SHA512),
        }
    }
}

fn argon2id(text: &str) -> Result<Form, FormError> {
    let wrong = malformed(ARGON2ID, "it is no PHC string of argon2id");
    let hash = Box::new(PasswordHash::new(text).map_err(|_| wrong)?);
    let whole = hash.algorithm.as_str() == "argon2id" && hash.salt.is_some() && hash.hash.is_some();
    let params = Params::try_from(&*hash).map_err(|_| wrong)?;
    if !whole {
        return Err(wrong);
    }
    let (memory, passes) = (u64::from(params.m_cost()), u64::from(params.t_cost()));
    within(
        ARGON2ID,
        "memory (m) in KiB",
        memory,
        8,
        ARGON2_MEMORY_MAX_KIB,
    )?;
    within(
        ARGON2ID,
        "memory times passes (m × t) in KiB",
        memory * passes,
        8,
        ARGON2_WORK_MAX_KIB,
    )?;
    within(
        ARGON2ID,
        "parallelism (p)",
        params.p_cost().into(),
        1,
        ARGON2_LANES_MAX,
    )?;
    Ok(Form::Argon2id { hash, params })
}

fn blf_crypt(text: String) -> Result<Form, FormError> {
    // $2x$ marks hashes of a broken crypt(3) that only the same mistake verifies.
    if !["$2a$", "$2b$", "$2y$"]
        .iter()
        .any(|known| text.starts_with(known))
    {
        return Err(malformed(
            BLF_CRYPT,
            "it does not begin with $2a$, $2b$ or $2y$",
        ));
    }
    let parts: HashParts = text
        .parse()
        .map_err(|_| malformed(BLF_CRYPT, "it is not 60 characters of bcrypt"))?;
    let cost = parts.get_cost();
    within(BLF_CRYPT, "cost", cost.into(), 4, BCRYPT_COST_MAX)?;
    Ok(Form::Bcrypt { text, cost })
}

fn sha_crypt(text: String, wide: bool) -> Result<Form, FormError> {
    let (scheme, characters) = if wide {
        (SHA512_CRYPT, 86)
    } else {
        (SHA256_CRYPT, 43)
    };
    let fields: Vec<&str> = text.split('$').skip(2).collect();
    let (rounds, salt, hash) = match fields[..] {
        [rounds, salt, hash] => {
            let digits = rounds.strip_prefix("rounds=").and_then(number);
            (
                digits.ok_or(malformed(scheme, "its rounds are no number"))?,
                salt,
                hash,
            )
        }
        [salt, hash] => (SHA_CRYPT_ROUNDS_UNSAID, salt, hash),
        _ => {
            return Err(malformed(
                scheme,
                "it does not have the fields salt and hash",
            ));
        }
    };
    within(
        scheme,
        "rounds",
        rounds,
        SHA_CRYPT_ROUNDS_MIN,
        SHA_CRYPT_ROUNDS_MAX,
    )?;
    let written = |text: &str| {
        text.chars()
            .all(|c| c.is_ascii_alphanumeric() || "./".contains(c))
    };
    within(
        scheme,
        "salt in characters",
        salt.len() as u64,
        1,
        SHA_CRYPT_SALT_MAX,
    )?;
    if !written(salt) {
        return Err(malformed(
            scheme,
            "its salt has characters besides ./0-9A-Za-z",
        ));
    }
    if hash.len() != characters || !written(hash) {
        return Err(malformed(
            scheme,
            "its hash is cut or has characters besides ./0-9A-Za-z",
        ));
    }
    let rounds = u32::try_from(rounds).expect("the limit is below 2^32");
    Ok(Form::ShaCrypt { text, wide, rounds })
}

fn pbkdf2_hmac_sha1(text: &str) -> Result<Form, FormError> {
    let fields = text
        .strip_prefix("$1$")
        .map(|rest| rest.split('$').collect::<Vec<_>>());
    let Some([salt, iterations, hash]) = fields.as_deref() else {
        return Err(malformed(PBKDF2, "it is not $1$salt$iterations$hash"));
    };
    let iterations = number(iterations).ok_or(malformed(PBKDF2, "its iterations are no number"))?;
    within(PBKDF2, "iterations", iterations, 1, PBKDF2_ITERATIONS_MAX)?;
    within(
        PBKDF2,
        "salt in octets",
        salt.len() as u64,
        1,
        SALT_MAX_OCTETS,
    )?;
    let hash = HEXLOWER_PERMISSIVE
        .decode(hash.as_bytes())
        .ok()
        .and_then(|hash| hash.try_into().ok());
    let hash = hash.ok_or(malformed(PBKDF2, "its hash is not 40 digits of base 16"))?;
    let iterations = u32::try_from(iterations).ok().and_then(NonZeroU32::new);
    Ok(Form::Pbkdf2 {
        salt: (*salt).to_owned(),
        iterations: iterations.expect("the limits are 1 and below 2^32"),
        hash,
    })
}

fn scram_sha_256(text: &str) -> Result<Form, FormError> {
    let wrong = malformed(
        SCRAM_SHA_256,
        "it is not iterations,salt,StoredKey,ServerKey",
    );
    let [iterations, salt, stored_key, server_key] = text.split(',').collect::<Vec<_>>()[..] else {
        return Err(wrong);
    };
    let iterations =
        number(iterations).ok_or(malformed(SCRAM_SHA_256, "its iterations are no number"))?;
    let (least, most) = (ITERATIONS_MIN.into(), ITERATIONS_MAX.into());
    within(SCRAM_SHA_256, "iterations", iterations, least, most)?;
    let decoded = |text: &str| BASE64.decode(text.as_bytes()).map_err(|_| wrong);
    let key = |text: &str| decoded(text)?.try_into().map_err(|_| wrong);
    let salt = decoded(salt)?;
    within(
        SCRAM_SHA_256,
        "salt in octets",
        salt.len() as u64,
        1,
        SALT_MAX_OCTETS,
    )?;
    let iterations = u32::try_from(iterations).ok().and_then(NonZeroU32::new);
    Ok(Form::Scram(Keys {
        salt,
        iterations: iterations.expect("the limits are 4,096 and below 2^32"),
        stored_key: key(stored_key)?,
        server_key: key(server_key)?,
    }))
}

fn plain(text: String) -> Result<Form, FormError> {
    let most = limit::PASSWORD_MAX_OCTETS as u64;
    within(PLAIN, "password in octets", text.len() as u64, 1, most)?;
    Ok(Form::Plain(text))
}

fn malformed(scheme: &'static str, wrong: &'static str) -> FormError {
    FormError::Malformed { scheme, wrong }
}

fn within(
    scheme: &'static str,
    what: &'static str,
    found: u64,
    least: u64,
    most: u64,
) -> Result<(), FormError> {
    if (least..=most).contains(&found) {
        return Ok(());
    }
    Err(FormError::OutOfLimits {
        scheme,
        what,
        found,
        least,
        most,
    })
}

/// Digits only; one that is too large for 64 bits is the largest, which is over every limit.
fn number(digits: &str) -> Option<u64> {
    let formed = !digits.is_empty() && digits.bytes().all(|octet| octet.is_ascii_digit());
    formed.then(|| digits.parse().unwrap_or(u64::MAX))
}

const ANY: &str = "any scheme";
const ARGON2ID: &str = "ARGON2ID";
const BLF_CRYPT: &str = "BLF-CRYPT";
const SHA512_CRYPT: &str = "SHA512-CRYPT";
const SHA256_CRYPT: &str = "SHA256-CRYPT";
const CRYPT: &str = "CRYPT";
const PBKDF2: &str = "PBKDF2";
const SCRAM_SHA_256: &str = "SCRAM-SHA-256";
const SSHA: &str = "SSHA";
const SSHA256: &str = "SSHA256";
const SSHA512: &str = "SSHA512";
const SMD5: &str = "SMD5";
const PLAIN: &str = "PLAIN";
const SCHEMES: &str = "ARGON2ID, BLF-CRYPT, SHA512-CRYPT, SHA256-CRYPT, CRYPT, PBKDF2, SCRAM-SHA-256, SSHA, SSHA256, SSHA512, SMD5, PLAIN";

/// A password of 1,024 octets in base 16 and a scheme, twice over.
const STORED_MAX_OCTETS: u64 = 4_096;
/// LDAP servers write 4 to 16.
const SALT_MAX_OCTETS: u64 = 64;
/// What Argon2 is since 2016 (RFC 9106 §3.1: 0x13).
const ARGON2_VERSION: u32 = 0x13;
/// The second recommendation of RFC 9106 §4 is 64 MiB, libsodium's "moderate" 256. Each turn of the pool may hold it.
const ARGON2_MEMORY_MAX_KIB: u64 = 256 * 1024;
/// 0.75 s where the checks of new passwords take 28 ms.
const ARGON2_WORK_MAX_KIB: u64 = 1024 * 1024;
/// Lanes are passed over one after the other: they cost no threads, but each is a part of the memory.
const ARGON2_LANES_MAX: u64 = 16;
/// 1.2 s there; Dovecot's own is 5, PHP's 10 to 12.
const BCRYPT_COST_MAX: u64 = 14;
/// What of a password bcrypt takes, the NUL behind it included.
const BCRYPT_OCTETS: usize = 72;
/// What crypt(3) does when the text does not say.
const SHA_CRYPT_ROUNDS_UNSAID: u64 = 5_000;
/// crypt(3) writes no fewer.
const SHA_CRYPT_ROUNDS_MIN: u64 = 1_000;
/// 0.4 s there with a short password; passlib's own are 656,000.
const SHA_CRYPT_ROUNDS_MAX: u64 = 1_000_000;
/// crypt(3) cuts a longer one before it writes it.
const SHA_CRYPT_SALT_MAX: u64 = 16;
/// A round hashes the password about twice: 1,024 octets at a million rounds would be 6 s. Up to
/// 235,000 rounds every password is checked, at a million those up to 192 octets; longer ones are wrong.
const SHA_CRYPT_OCTETS_MAX: u64 = 256_000_000;
/// What a round hashes besides.
const SHA_OCTETS_MORE: u64 = 64;
/// 0.35 s there. Dovecot's own is 5,000.
const PBKDF2_ITERATIONS_MAX: u64 = 2_000_000;
/// SHA-1's length.
const PBKDF2_OCTETS: usize = 20;

#[cfg(test)]
mod tests;
