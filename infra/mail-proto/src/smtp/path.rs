//! Reverse and forward paths. RFC 5321 §4.1.2.

use std::fmt;

use crate::address::{Address, AddressError, Letters, PATH_MAX, domain_length};

/// Where a message came from: the argument of MAIL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// `<>`: no answer wanted, RFC 5321 §4.5.5.
    Null,
    /// A mailbox.
    Mailbox(Address),
}

/// Where a message goes: the argument of RCPT.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ForwardPath {
    /// `<postmaster>` without a domain, in any case: this server's own,
    /// RFC 5321 §4.5.1.
    Postmaster,
    /// A mailbox.
    Mailbox(Address),
}

impl ReversePath {
    /// The address, if there is one.
    pub fn address(&self) -> Option<&Address> {
        match self {
            Self::Null => None,
            Self::Mailbox(address) => Some(address),
        }
    }
}

impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("<>"),
            Self::Mailbox(address) => write!(f, "<{address}>"),
        }
    }
}

impl fmt::Display for ForwardPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postmaster => f.write_str("<postmaster>"),
            Self::Mailbox(address) => write!(f, "<{address}>"),
        }
    }
}

/// Reads a path in angle brackets at the front of `text`; returns what it
/// names, if anything, and what follows it.
fn parse(text: &str, letters: Letters) -> Result<(Path, &str), AddressError> {
    let inner = text.strip_prefix('<').ok_or(AddressError::Syntax)?;
    if let Some(rest) = inner.strip_prefix('>') {
        return Ok((Path::Empty, rest));
    }
    const POSTMASTER: &str = "postmaster>";
    if inner
        .get(..POSTMASTER.len())
        .is_some_and(|front| front.eq_ignore_ascii_case(POSTMASTER))
    {
        return Ok((Path::Postmaster, &inner[POSTMASTER.len()..]));
    }
    let mailbox = skip_source_route(inner, letters)?;
    let (address, length) = Address::parse_prefix(mailbox, letters)?;
    let rest = mailbox[length..]
        .strip_prefix('>')
        .ok_or(AddressError::Syntax)?;
    // The whole path counts, brackets and route included. RFC 5321 §4.5.3.1.3.
    if text.len() - rest.len() > PATH_MAX {
        return Err(AddressError::TooLong);
    }
    Ok((Path::Mailbox(address), rest))
}

enum Path {
    Empty,
    Postmaster,
    Mailbox(Address),
}

/// `@one,@two:` is accepted and ignored. RFC 5321 §4.1.1.3, appendix C.
fn skip_source_route(text: &str, letters: Letters) -> Result<&str, AddressError> {
    if !text.starts_with('@') {
        return Ok(text);
    }
    let mut rest = text;
    loop {
        rest = rest.strip_prefix('@').ok_or(AddressError::Syntax)?;
        rest = &rest[domain_length(rest, letters)?..];
        if let Some(mailbox) = rest.strip_prefix(':') {
            return Ok(mailbox);
        }
        rest = rest.strip_prefix(',').ok_or(AddressError::Syntax)?;
    }
}

/// The same, and says why letters beyond ASCII are wrong that would be right elsewhere. RFC 6531 §3.5.
fn checked(text: &str, letters: Letters) -> Result<(Path, &str), AddressError> {
    parse(text, letters).map_err(|error| {
        let would_do = !text.is_ascii() && parse(text, Letters::Utf8).is_ok();
        if would_do {
            AddressError::NotAscii
        } else {
            error
        }
    })
}

impl ReversePath {
    /// Reads the path of MAIL; returns it with what follows.
    pub(super) fn parse(text: &str, letters: Letters) -> Result<(Self, &str), AddressError> {
        match checked(text, letters)? {
            (Path::Empty, rest) => Ok((Self::Null, rest)),
            (Path::Mailbox(address), rest) => Ok((Self::Mailbox(address), rest)),
            // Only recipients may be a bare postmaster. RFC 5321 §4.1.1.2.
            (Path::Postmaster, _) => Err(AddressError::Syntax),
        }
    }
}

impl ForwardPath {
    /// Reads the path of RCPT; returns it with what follows.
    pub(super) fn parse(text: &str, letters: Letters) -> Result<(Self, &str), AddressError> {
        match checked(text, letters)? {
            (Path::Postmaster, rest) => Ok((Self::Postmaster, rest)),
            (Path::Mailbox(address), rest) => Ok((Self::Mailbox(address), rest)),
            (Path::Empty, _) => Err(AddressError::Syntax),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_source_route_is_dropped() {
        let (path, rest) =
            ForwardPath::parse("<@a.test,@[192.0.2.1]:joe@b.test> X=1", Letters::Ascii).unwrap();
        assert_eq!(path.to_string(), "<joe@b.test>");
        assert_eq!(rest, " X=1");
    }

    #[test]
    fn postmaster_needs_no_domain_as_a_recipient_only() {
        assert_eq!(
            ForwardPath::parse("<PostMaster>", Letters::Ascii)
                .unwrap()
                .0,
            ForwardPath::Postmaster
        );
        assert!(ReversePath::parse("<postmaster>", Letters::Ascii).is_err());
        assert_eq!(
            ReversePath::parse("<>", Letters::Ascii).unwrap().0,
            ReversePath::Null
        );
        assert!(ForwardPath::parse("<>", Letters::Ascii).is_err());
    }

    #[test]
    fn broken_paths_are_refused() {
        for text in [
            "",
            "a@b",
            "<a@b",
            "<a@b>>"[..5].trim_end_matches('>'),
            "<@a:>",
            "<@a@b>",
            "<@:a@b>",
            "< a@b>",
            "<a@b >",
        ] {
            assert!(
                ForwardPath::parse(text, Letters::Ascii).is_err(),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_path_is_kept_at_256_octets_and_refused_one_above() {
        let path = |local: usize| {
            format!(
                "<{}@{}.{}.{}.{}>",
                "l".repeat(local),
                "d".repeat(63),
                "d".repeat(63),
                "d".repeat(63),
                "d".repeat(58)
            )
        };
        assert_eq!(path(3).len(), 256);
        assert!(ForwardPath::parse(&path(3), Letters::Ascii).is_ok());
        assert_eq!(
            ForwardPath::parse(&path(4), Letters::Ascii),
            Err(AddressError::TooLong)
        );
    }
}
