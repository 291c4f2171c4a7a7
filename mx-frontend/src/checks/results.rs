//! The field that tells whoever reads a message what the checks found. RFC 8601.

use std::fmt::Write;
use std::net::IpAddr;

use super::Looked;

/// The value of Authentication-Results; none where nothing was looked at.
pub(super) fn value(looked: &Looked, client: IpAddr, hostname: &str) -> Option<String> {
    if looked.reverse.is_none() && looked.spf.is_none() {
        return None;
    }
    let mut value = hostname.to_owned();
    if let Some(reverse) = &looked.reverse {
        let client = client.to_canonical().to_string();
        // Writing to a string cannot fail.
        _ = write!(
            value,
            "; iprev={} policy.iprev={}",
            reverse.word(),
            quoted(&client)
        );
    }
    if let Some(spf) = &looked.spf {
        let (property, identity) = (spf.property, shown(&spf.identity));
        _ = write!(value, "; spf={} {property}={identity}", spf.word());
    }
    Some(value)
}

/// A value that is a token, or in quotes. RFC 8601 §2.2, RFC 2045 §5.1.
fn quoted(value: &str) -> String {
    let is_token = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet);
    if !value.is_empty() && value.bytes().all(is_token) {
        value.to_owned()
    } else {
        let letters = value.chars().map(|letter| match letter {
            '"' | '\\' => '?',
            letter if letter.is_ascii_graphic() => letter,
            _ => '?',
        });
        format!("\"{}\"", letters.collect::<String>())
    }
}

/// An address as it may stand there; one whose local part would need quotes by its domain alone.
fn shown(identity: &str) -> String {
    let Some((local, domain)) = identity.rsplit_once('@') else {
        return quoted(identity);
    };
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.+=".contains(&octet);
    if !local.is_empty() && local.bytes().all(is_plain) && !domain.starts_with('[') {
        format!("{local}@{}", quoted(domain))
    } else {
        quoted(domain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::{Listed, Reverse, Spf};
    use mail_auth::SpfResult;

    fn looked(reverse: Option<Reverse>, spf: Option<(SpfResult, &str)>) -> Looked {
        Looked {
            reverse,
            listed: Listed::default(),
            spf: spf.map(|(result, identity)| Spf {
                result,
                property: "smtp.mailfrom",
                identity: identity.into(),
            }),
        }
    }

    #[test]
    fn each_method_stands_with_what_it_was_about() {
        let client = "192.0.2.7".parse().unwrap();
        let both = looked(
            Some(Reverse::Missing),
            Some((SpfResult::Pass, "bob+x@sender.test")),
        );
        assert_eq!(
            value(&both, client, "mx.test").unwrap(),
            "mx.test; iprev=permerror policy.iprev=192.0.2.7; spf=pass smtp.mailfrom=bob+x@sender.test"
        );
        let v6 = "2001:db8::7".parse().unwrap();
        let confirmed = looked(Some(Reverse::Confirmed("c.test".into())), None);
        assert_eq!(
            value(&confirmed, v6, "mx.test").unwrap(),
            "mx.test; iprev=pass policy.iprev=\"2001:db8::7\""
        );
        assert_eq!(value(&looked(None, None), client, "mx.test"), None);
    }

    #[test]
    fn nothing_a_sender_says_adds_a_result() {
        let client = "192.0.2.7".parse().unwrap();
        for (identity, expected) in [
            ("\"x; dkim=pass\"@sender.test", "sender.test"),
            ("a;b@sender.test", "sender.test"),
            ("bob@[192.0.2.1]", "\"[192.0.2.1]\""),
            ("bob@ü.test", "bob@\"?.test\""),
            ("a\"; dkim=pass", "\"a?;?dkim=pass\""),
            ("", "\"\""),
        ] {
            let one = looked(None, Some((SpfResult::Fail, identity)));
            let expected = format!("mx.test; spf=fail smtp.mailfrom={expected}");
            assert_eq!(value(&one, client, "mx.test").unwrap(), expected);
        }
    }
}
