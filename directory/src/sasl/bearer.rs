//! OAUTHBEARER (RFC 7628) and XOAUTH2: the one message of a client with a token, and the answer to a bad one.
//!
//! ```text
//! n,a=ann@x.test,^Ahost=mail.x.test^Aauth=Bearer <token>^A^A     OAUTHBEARER
//! user=ann@x.test^Aauth=Bearer <token>^A^A                       XOAUTH2
//! ```

use std::fmt;

use serde_json::json;

use crate::oauth::OauthSettings;
use crate::scram::{Malformed, unescaped};

/// What the client says.
#[derive(PartialEq, Eq)]
pub(super) struct Message<'a> {
    /// Who it wants to be; none where the token is to say it.
    pub(super) user: Option<String>,
    pub(super) token: &'a str,
}

/// Without the token: whoever has it is the user.
impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Message");
        shown.field("user", &self.user).finish_non_exhaustive()
    }
}

impl<'a> Message<'a> {
    pub(super) fn parse_oauthbearer(message: &'a [u8]) -> Result<Self, Malformed> {
        let (header, pairs) = text(message)?.split_once(SEPARATOR).ok_or(Malformed)?;
        // There is nothing to bind to in this mechanism: "p" has no business here.
        let header = header.strip_suffix(',').ok_or(Malformed)?;
        let user = match header.split_once(',') {
            Some(("n" | "y", "")) => None,
            Some(("n" | "y", name)) => Some(unescaped(name.strip_prefix("a=").ok_or(Malformed)?)?),
            _ => return Err(Malformed),
        };
        Self::with_pairs(user, pairs)
    }

    pub(super) fn parse_xoauth2(message: &'a [u8]) -> Result<Self, Malformed> {
        let (user, pairs) = text(message)?.split_once(SEPARATOR).ok_or(Malformed)?;
        let user = user.strip_prefix("user=").filter(|user| !user.is_empty());
        Self::with_pairs(Some(user.ok_or(Malformed)?.to_owned()), pairs)
    }

    fn with_pairs(user: Option<String>, pairs: &'a str) -> Result<Self, Malformed> {
        let pairs = pairs.strip_suffix("\x01\x01").ok_or(Malformed)?;
        let mut token = None;
        for pair in pairs.split(SEPARATOR) {
            let (key, value) = pair.split_once('=').ok_or(Malformed)?;
            if key.is_empty() || !key.bytes().all(|octet| octet.is_ascii_alphabetic()) {
                return Err(Malformed);
            }
            if key.eq_ignore_ascii_case("auth") {
                let (scheme, value) = value.split_once(' ').ok_or(Malformed)?;
                if token.is_some() || !scheme.eq_ignore_ascii_case("Bearer") {
                    return Err(Malformed);
                }
                token = Some(value);
            }
        }
        let token = token.filter(|token| !token.is_empty()).ok_or(Malformed)?;
        Ok(Self { user, token })
    }
}

/// What a client hears whose token is refused (RFC 7628 §3.2.2); its response to it says nothing.
pub(super) fn refusal(settings: &OauthSettings, status: &str) -> String {
    let mut said = json!({"status": status, "schemes": "bearer", "scope": settings.scope});
    if let Some(address) = &settings.openid_configuration {
        said["openid-configuration"] = address.as_str().into();
    }
    said.to_string()
}

fn text(message: &[u8]) -> Result<&str, Malformed> {
    let text = std::str::from_utf8(message).map_err(|_| Malformed)?;
    match text.contains('\0') {
        true => Err(Malformed),
        false => Ok(text),
    }
}

const SEPARATOR: char = '\x01';

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn both_forms_are_read() {
        // RFC 7628 §4.1.
        let message = b"n,a=user@example.com,\x01host=server.example.com\x01port=143\x01auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01";
        let read = Message::parse_oauthbearer(message).unwrap();
        assert_eq!(read.user.as_deref(), Some("user@example.com"));
        assert_eq!(read.token, "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==");
        let read = Message::parse_oauthbearer(b"y,,\x01auth=bearer t\x01\x01").unwrap();
        assert_eq!((&read.user, read.token), (&None, "t"));
        assert_eq!(format!("{read:?}"), "Message { user: None, .. }");
        let read = Message::parse_xoauth2(b"user=ann@x.test\x01auth=Bearer t\x01\x01").unwrap();
        assert_eq!(
            (read.user.as_deref(), read.token),
            (Some("ann@x.test"), "t")
        );
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for message in [
            "",
            "\x01",
            "n,,",
            "n,,\x01\x01",
            "n,,\x01\x01\x01",
            "n,\x01auth=Bearer t\x01\x01",
            "p=tls-exporter,,\x01auth=Bearer t\x01\x01",
            "n,b=ann,\x01auth=Bearer t\x01\x01",
            "n,a=,\x01auth=Bearer t\x01\x01",
            "n,,\x01auth=Bearer t\x01",
            "n,,\x01auth=Basic t\x01\x01",
            "n,,\x01auth=Bearer \x01\x01",
            "n,,\x01auth=Bearer\x01\x01",
            "n,,\x01host=x\x01\x01",
            "n,,\x01auth=Bearer t\x01auth=Bearer u\x01\x01",
            "n,,\x01auth\x01\x01",
            "n,,\x011=x\x01auth=Bearer t\x01\x01",
            "n,,x\x01auth=Bearer t\x01\x01",
            "n,,\x01auth=Bearer \0\x01\x01",
        ] {
            assert_eq!(
                Message::parse_oauthbearer(message.as_bytes()),
                Err(Malformed),
                "{message:?}"
            );
        }
        for message in [
            "",
            "auth=Bearer t\x01\x01",
            "user=\x01auth=Bearer t\x01\x01",
            "user=ann\x01\x01",
            "user=ann",
        ] {
            assert_eq!(
                Message::parse_xoauth2(message.as_bytes()),
                Err(Malformed),
                "{message:?}"
            );
        }
        assert_eq!(
            Message::parse_xoauth2(b"user=\xff\x01auth=Bearer t\x01\x01"),
            Err(Malformed)
        );
    }
}
