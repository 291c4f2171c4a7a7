//! One mail address, `local@domain`. RFC 5321 §4.1.2; beyond ASCII RFC 6531 §3.3.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address with its local part unquoted, as it is compared and looked up.
///
/// `Display` gives a valid path without the angle brackets: the local part is
/// quoted again where the grammar asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    local: String,
    domain: String,
}

/// Why octets are not an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The grammar of RFC 5321 §4.1.2 does not allow it.
    #[error("not an address by RFC 5321")]
    Syntax,
    /// Local part over 64, domain over 255, or path over 256 octets.
    #[error("address longer than RFC 5321 allows")]
    TooLong,
    /// Letters beyond ASCII where they were not announced.
    #[error("address beyond ASCII without SMTPUTF8")]
    NotAscii,
}

/// Which letters an address may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Letters {
    /// RFC 5321.
    Ascii,
    /// All of UTF-8 but controls. RFC 6531 §3.3.
    Utf8,
}

impl Letters {
    /// Whether a letter beyond ASCII may stand in an address.
    fn allow(self, letter: char) -> bool {
        self == Self::Utf8 && !letter.is_ascii() && !letter.is_control()
    }
}

impl Address {
    /// The local part without quotes and escapes, case as given.
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The domain or bracketed address literal, case as given.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The same address with the domain in lower case: the form to look up.
    /// The local part stays as it is, for only its host may judge its case.
    #[must_use]
    pub fn normalised(&self) -> Address {
        Address {
            local: self.local.clone(),
            domain: self.domain.to_ascii_lowercase(),
        }
    }

    /// Reads the address at the front of `text`; returns it with its length.
    pub(crate) fn parse_prefix(
        text: &str,
        letters: Letters,
    ) -> Result<(Address, usize), AddressError> {
        let (local, local_length) = parse_local(text, letters)?;
        let rest = text[local_length..]
            .strip_prefix('@')
            .ok_or(AddressError::Syntax)?;
        let domain_length = domain_length(rest, letters)?;
        let length = local_length + 1 + domain_length;
        // Limits hold for what was sent, quotes included. RFC 5321 §4.5.3.1.1-2.
        if local_length > LOCAL_MAX || domain_length > DOMAIN_MAX {
            return Err(AddressError::TooLong);
        }
        Ok((
            Address {
                local,
                domain: rest[..domain_length].to_owned(),
            },
            length,
        ))
    }
}

impl FromStr for Address {
    type Err = AddressError;

    /// Reads an address without angle brackets.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (address, length) = Self::parse_prefix(text, Letters::Ascii)?;
        if length != text.len() {
            return Err(AddressError::Syntax);
        }
        // The path's limit counts its angle brackets. RFC 5321 §4.5.3.1.3.
        if length + 2 > PATH_MAX {
            Err(AddressError::TooLong)
        } else {
            Ok(address)
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_dot_string(&self.local, Letters::Utf8) {
            return write!(f, "{}@{}", self.local, self.domain);
        }
        f.write_str("\"")?;
        for letter in self.local.chars() {
            if matches!(letter, '"' | '\\') {
                f.write_str("\\")?;
            }
            write!(f, "{letter}")?;
        }
        write!(f, "\"@{}", self.domain)
    }
}

/// Reads a local part; returns it unquoted with its length as sent.
fn parse_local(text: &str, letters: Letters) -> Result<(String, usize), AddressError> {
    if text.starts_with('"') {
        return parse_quoted(text, letters);
    }
    let length = text.find('@').ok_or(AddressError::Syntax)?;
    let local = &text[..length];
    if is_dot_string(local, letters) {
        Ok((local.to_owned(), length))
    } else {
        Err(AddressError::Syntax)
    }
}

fn parse_quoted(text: &str, letters: Letters) -> Result<(String, usize), AddressError> {
    let mut local = String::new();
    let mut rest = text.char_indices().skip(1);
    while let Some((at, letter)) = rest.next() {
        match letter {
            '"' => {
                // Grammar allows `""`; nobody can be meant by it.
                return if local.is_empty() {
                    Err(AddressError::Syntax)
                } else {
                    Ok((local, at + 1))
                };
            }
            '\\' => match rest.next() {
                Some((_, escaped @ ' '..='~')) => local.push(escaped),
                _ => return Err(AddressError::Syntax),
            },
            ' '..='~' => local.push(letter),
            other if letters.allow(other) => local.push(other),
            _ => return Err(AddressError::Syntax),
        }
    }
    Err(AddressError::Syntax)
}

/// Dot-string: atoms with single dots between. RFC 5321 §4.1.2.
fn is_dot_string(local: &str, letters: Letters) -> bool {
    let is_allowed = |letter| is_atext(letter) || letters.allow(letter);
    local
        .split('.')
        .all(|atom| !atom.is_empty() && atom.chars().all(is_allowed))
}

/// RFC 5322 §3.2.3.
fn is_atext(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(letter)
}

/// Length of the domain or address literal at the front.
pub(crate) fn domain_length(text: &str, letters: Letters) -> Result<usize, AddressError> {
    if text.starts_with('[') {
        let end = text.find(']').ok_or(AddressError::Syntax)?;
        let literal = &text[1..end];
        let is_valid = match literal.get(..5) {
            Some(tag) if tag.eq_ignore_ascii_case("IPv6:") => {
                literal[5..].parse::<Ipv6Addr>().is_ok()
            }
            _ => literal.parse::<Ipv4Addr>().is_ok(),
        };
        return if is_valid {
            Ok(end + 1)
        } else {
            Err(AddressError::Syntax)
        };
    }
    let is_part = |letter: char| {
        letter.is_ascii_alphanumeric()
            || "-_.".contains(letter)
            || (letter.is_alphanumeric() && letters.allow(letter))
    };
    let length = text.find(|letter| !is_part(letter)).unwrap_or(text.len());
    // Underscore is no letter of RFC 1035, but senders on such hosts exist.
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= LABEL_MAX
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if length > DOMAIN_MAX {
        return Err(AddressError::TooLong);
    }
    if text[..length].split('.').all(is_label) {
        Ok(length)
    } else {
        Err(AddressError::Syntax)
    }
}

/// RFC 5321 §4.5.3.1.1.
const LOCAL_MAX: usize = 64;
/// RFC 5321 §4.5.3.1.2.
const DOMAIN_MAX: usize = 255;
/// RFC 5321 §4.5.3.1.3, with punctuation.
pub(crate) const PATH_MAX: usize = 256;
/// RFC 1035 §2.3.4.
const LABEL_MAX: usize = 63;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_address_is_shown_as_it_must_be_sent() {
        for (sent, local, shown) in [
            ("joe@example.test", "joe", "joe@example.test"),
            ("\"joe\"@example.test", "joe", "joe@example.test"),
            ("\"a b\"@example.test", "a b", "\"a b\"@example.test"),
            (
                r#""a\"\\@\b"@example.test"#,
                r#"a"\@b"#,
                r#""a\"\\@b"@example.test"#,
            ),
            ("a.b+c@[192.0.2.1]", "a.b+c", "a.b+c@[192.0.2.1]"),
            ("x@[IPv6:2001:db8::1]", "x", "x@[IPv6:2001:db8::1]"),
            ("x@_srv.a-b.test", "x", "x@_srv.a-b.test"),
        ] {
            let address: Address = sent.parse().unwrap();
            assert_eq!(address.local(), local);
            assert_eq!(address.to_string(), shown);
            assert_eq!(shown.parse::<Address>().unwrap(), address);
        }
    }

    #[test]
    fn what_the_grammar_forbids_is_refused() {
        for text in [
            "",
            "@",
            "a",
            "a@",
            "@b",
            "a@b@c",
            ".a@b",
            "a.@b",
            "a..b@c",
            "a b@c",
            "\"a@b",
            "\"\"@b",
            "\"a\"b@c",
            "a@.b",
            "a@b.",
            "a@b..c",
            "a@-b",
            "a@b-",
            "a@[300.1.1.1]",
            "a@[IPv6:zz]",
            "a@[x",
            "a@b c",
            "é@b",
            "a@é",
            "a\u{0}@b",
            "a<b@c",
            "\"a\u{7f}\"@b",
            "a@[IPvé]",
        ] {
            assert_eq!(
                text.parse::<Address>(),
                Err(AddressError::Syntax),
                "{text:?}"
            );
        }
    }

    #[test]
    fn lengths_are_kept_at_the_limit_and_refused_one_above() {
        let domain = |length: usize| {
            let mut text = "d.".repeat(length / 2);
            text.push_str(if length.is_multiple_of(2) { "" } else { "d" });
            text.trim_end_matches('.').to_owned()
        };
        assert!(format!("{}@d", "l".repeat(64)).parse::<Address>().is_ok());
        assert_eq!(
            format!("{}@d", "l".repeat(65)).parse::<Address>(),
            Err(AddressError::TooLong)
        );
        assert!(
            format!("l@{}.test", "d".repeat(63))
                .parse::<Address>()
                .is_ok()
        );
        assert!(
            format!("l@{}.test", "d".repeat(64))
                .parse::<Address>()
                .is_err()
        );
        assert_eq!(domain_length(&domain(255), Letters::Ascii), Ok(255));
        assert_eq!(
            domain_length(&domain(257), Letters::Ascii),
            Err(AddressError::TooLong)
        );
        assert!(
            format!("ll@{}", domain(251)).parse::<Address>().is_ok(),
            "a path of 256 octets"
        );
        assert_eq!(
            format!("lll@{}", domain(251)).parse::<Address>(),
            Err(AddressError::TooLong)
        );
    }

    #[test]
    fn only_the_domain_is_lowered_for_a_look_up() {
        let address: Address = "Joe@Example.TEST".parse().unwrap();
        assert_eq!(address.normalised().to_string(), "Joe@example.test");
    }
}
