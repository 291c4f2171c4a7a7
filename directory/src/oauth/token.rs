//! One token: form, signature, and what it claims. RFC 7515, RFC 7519, RFC 8725.
//!
//! ```text
//! three parts? ── header ours? ── key known, and for this algorithm? ── signed? ── issuer? audience? time? ── user
//!   Malformed       Malformed       UnknownKey                          Forged       Foreign        Expired    NoUser
//! ```
//!
//! Nothing that the claims say is looked at before the signature is right.
//!
//! The crate `jsonwebtoken` (10.4; MIT, and it can do with aws-lc-rs) reads `crit` and does not heed it, and has no limits for tokens and
//! sets of keys: these checks would stay, and only the one call that checks a signature would go.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::OauthSettings;
use super::keys::KeySet;

/// Why a token is refused. For the log: a client hears that it is, and not why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("the token is no signed JWT, or demands what is not known here")]
    Malformed,
    #[error("the token's key is not in the issuer's set, or not for its algorithm")]
    UnknownKey,
    #[error("the token's signature is wrong")]
    Forged,
    #[error("the token is of another issuer, or for somebody else")]
    Foreign,
    #[error("the token has expired, or does not say when it will")]
    Expired,
    #[error("the token is not valid yet")]
    NotYetValid,
    #[error("the token does not say who the user is")]
    NoUser,
    #[error("the token does not say that its address is verified")]
    Unverified,
}

/// Longest token taken. Those of large issuers with many groups in them are some 8 KiB.
pub(crate) const TOKEN_MAX_OCTETS: usize = 16 * 1_024;
/// How far the issuer's clock and ours may differ.
const LEEWAY_S: i64 = 30;

/// Whom a good token is about.
pub(super) fn user_of(
    token: &str,
    keys: &KeySet,
    settings: &OauthSettings,
    now_s: i64,
) -> Result<String, TokenError> {
    if token.len() > TOKEN_MAX_OCTETS {
        return Err(TokenError::Malformed);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
    let header = object(header)?;
    let signature = decoded(signature)?;
    let text = |name: &str| match header.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(TokenError::Malformed),
    };
    // What must be understood is not (RFC 7515 §4.1.11), and what is typed otherwise is for something else.
    let typ = text("typ")?.unwrap_or("JWT").to_ascii_lowercase();
    let typ = typ.strip_prefix("application/").unwrap_or(&typ);
    if header.contains_key("crit") || !["jwt", "at+jwt"].contains(&typ) {
        return Err(TokenError::Malformed);
    }
    let key = keys.find(text("kid")?).ok_or(TokenError::UnknownKey)?;
    if text("alg")? != Some(key.algorithm()) {
        return Err(TokenError::UnknownKey);
    }
    if !key.has_signed(signed.as_bytes(), &signature) {
        return Err(TokenError::Forged);
    }
    user_in(&object(claims)?, settings, now_s)
}

fn user_in(claims: &Claims, settings: &OauthSettings, now_s: i64) -> Result<String, TokenError> {
    let is = |value: &Value, wanted: &str| value.as_str() == Some(wanted);
    let is_issuer = claims
        .get("iss")
        .is_some_and(|one| is(one, &settings.issuer));
    let is_audience = match claims.get("aud") {
        Some(Value::Array(all)) => all.iter().any(|one| is(one, &settings.audience)),
        Some(one) => is(one, &settings.audience),
        None => false,
    };
    if !(is_issuer && is_audience) {
        return Err(TokenError::Foreign);
    }
    let expires = seconds(claims, "exp")?.ok_or(TokenError::Expired)?;
    if now_s >= expires.saturating_add(LEEWAY_S) {
        return Err(TokenError::Expired);
    }
    for name in ["nbf", "iat"] {
        if seconds(claims, name)?.is_some_and(|from| now_s < from.saturating_sub(LEEWAY_S)) {
            return Err(TokenError::NotYetValid);
        }
    }
    let user = claims.get(&settings.user_claim).and_then(Value::as_str);
    let user = user
        .filter(|user| !user.is_empty())
        .ok_or(TokenError::NoUser)?;
    // Whoever may enter an address at the issuer without showing that it is theirs may enter yours.
    let is_verified = match claims.get("email_verified") {
        None => settings.trust_unsaid_email,
        Some(said) => *said == Value::Bool(true) || said.as_str() == Some("true"),
    };
    if settings.user_claim == "email" && !is_verified {
        return Err(TokenError::Unverified);
    }
    Ok(user.to_owned())
}

/// A NumericDate (RFC 7519 §2), cut to seconds; a cast from a float saturates.
fn seconds(claims: &Claims, name: &str) -> Result<Option<i64>, TokenError> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => {
            let whole = number
                .as_i64()
                .or(number.as_f64().map(|number| number as i64));
            whole.map(Some).ok_or(TokenError::Malformed)
        }
        Some(_) => Err(TokenError::Malformed),
    }
}

fn decoded(text: &str) -> Result<Vec<u8>, TokenError> {
    BASE64URL_NOPAD
        .decode(text.as_bytes())
        .map_err(|_| TokenError::Malformed)
}

fn object(text: &str) -> Result<Claims, TokenError> {
    let Unique(members) =
        serde_json::from_slice(&decoded(text)?).map_err(|_| TokenError::Malformed)?;
    Ok(members)
}

type Claims = Map<String, Value>;

/// A JSON object none of whose names comes twice: of two, the issuer may have checked the other.
struct Unique(Claims);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Unique;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object whose names are unique")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
                let mut members = Map::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if members.insert(name, value).is_some() {
                        return Err(A::Error::custom("a name comes twice"));
                    }
                }
                Ok(Unique(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests;
