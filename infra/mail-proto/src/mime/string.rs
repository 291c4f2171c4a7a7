//! Writes IMAP strings that no value can break out of.

use crate::output::number;

/// Which strings a client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// IMAP4rev1: octets over 127 only in literals. RFC 3501 §4.3. What is
    /// written so is valid for every client.
    Rev1,
    /// The client enabled UTF8=ACCEPT or IMAP4rev2: UTF-8 in quoted strings
    /// (RFC 6855 §3, RFC 9051 §4.3), other octets over 127 in literals;
    /// message/global shown with its inside.
    Utf8,
}

impl Dialect {
    /// Appends a string: quoted where the grammar allows, else a literal.
    pub(super) fn string(self, value: &[u8], out: &mut Vec<u8>) {
        let plain = value.iter().all(|octet| !matches!(octet, b'\r' | b'\n'));
        let readable =
            value.is_ascii() || (self == Self::Utf8 && std::str::from_utf8(value).is_ok());
        if !(plain && readable) {
            out.push(b'{');
            number(out, value.len() as u64);
            out.extend_from_slice(b"}\r\n");
            out.extend(value.iter().map(|octet| without_nul(*octet)));
            return;
        }
        out.push(b'"');
        for octet in value {
            if matches!(octet, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(without_nul(*octet));
        }
        out.push(b'"');
    }

    /// Appends a string, or NIL for none.
    pub(super) fn nstring(self, value: Option<&[u8]>, out: &mut Vec<u8>) {
        match value {
            Some(value) => self.string(value, out),
            None => out.extend_from_slice(b"NIL"),
        }
    }
}

fn without_nul(octet: u8) -> u8 {
    if octet == 0 { b'?' } else { octet }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_quoted_where_the_dialect_allows() {
        for (value, rev1, utf8) in [
            (
                &b"a\"b\\"[..],
                &b"\"a\\\"b\\\\\""[..],
                &b"\"a\\\"b\\\\\""[..],
            ),
            ("é".as_bytes(), b"{2}\r\n\xc3\xa9", b"\"\xc3\xa9\""),
            (b"\xe9", b"{1}\r\n\xe9", b"{1}\r\n\xe9"),
            (b"a\rb\0", b"{4}\r\na\rb?", b"{4}\r\na\rb?"),
            (b"\0", b"\"?\"", b"\"?\""),
        ] {
            for (dialect, wire) in [(Dialect::Rev1, rev1), (Dialect::Utf8, utf8)] {
                let mut out = Vec::new();
                dialect.string(value, &mut out);
                assert_eq!(out, wire);
            }
        }
    }
}
