//! Undoes Content-Transfer-Encoding, piece by piece. RFC 2045 §6.
//!
//! Forgiving as mail readers are: what is no part of the encoding is passed over (base64) or kept as it is
//! (quoted-printable). However the input is cut, the output is the same.

/// A decoder of one body.
#[derive(Clone, Debug)]
pub(super) enum Transfer {
    /// 7bit, 8bit, binary.
    Identity,
    /// base64.
    Base64 { bits: u32, count: u32 },
    /// quoted-printable.
    Quoted(Quoted),
}

/// Where in a quoted-printable line the decoder is.
#[derive(Clone, Debug, Default)]
pub(super) struct Quoted {
    /// What began with `=`, up to where it can be told what it is: `=`, `=4`, `= \t`, `=\r`.
    escape: Vec<u8>,
    /// White space that is dropped if the line ends behind it (RFC 2045 §6.7, rule 3).
    blanks: Vec<u8>,
}

impl Transfer {
    /// The decoder of a Content-Transfer-Encoding; `None` for one that is not known.
    pub(super) fn of(encoding: &[u8]) -> Option<Self> {
        let is = |name: &str| encoding.eq_ignore_ascii_case(name.as_bytes());
        if is("7bit") || is("8bit") || is("binary") {
            Some(Self::Identity)
        } else if is("base64") {
            Some(Self::Base64 { bits: 0, count: 0 })
        } else if is("quoted-printable") {
            Some(Self::Quoted(Quoted::default()))
        } else {
            None
        }
    }

    /// Appends what the next octets stand for.
    pub(super) fn push(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Identity => out.extend_from_slice(octets),
            Self::Base64 { bits, count } => {
                for octet in octets {
                    let value = BASE64[usize::from(*octet)];
                    if value == PADDING {
                        // What follows begins anew: bodies put together from several exist.
                        (*bits, *count) = (0, 0);
                    } else if value != FOREIGN {
                        *bits = *bits << 6 | u32::from(value);
                        *count += 6;
                        if *count >= 8 {
                            *count -= 8;
                            out.push((*bits >> *count) as u8);
                        }
                    }
                }
            }
            Self::Quoted(quoted) => {
                let mut rest = octets;
                while !rest.is_empty() {
                    let plain = match quoted.escape.is_empty() {
                        true => memchr::memchr3(b'=', b'\n', b'\r', rest).unwrap_or(rest.len()),
                        false => 0,
                    };
                    quoted.text(&rest[..plain], out);
                    rest = &rest[plain..];
                    if let Some((octet, after)) = rest.split_first() {
                        quoted.mark(*octet, out);
                        rest = after;
                    }
                }
            }
        }
    }

    /// Appends what the end leaves.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        if let Self::Quoted(quoted) = self {
            // `=` at the very end is a soft line break that lost its line end.
            if quoted.escape.len() > 1 && !quoted.escape[1].is_ascii_whitespace() {
                out.append(&mut quoted.escape);
            }
            quoted.escape.clear();
            quoted.blanks.clear();
        }
    }
}

impl Quoted {
    /// Octets that stand for themselves.
    fn text(&mut self, text: &[u8], out: &mut Vec<u8>) {
        let end = text
            .iter()
            .rposition(|octet| !matches!(octet, b' ' | b'\t'))
            .map_or(0, |last| last + 1);
        if end > 0 || self.blanks.len() > BLANKS_MAX {
            out.append(&mut self.blanks);
        }
        out.extend_from_slice(&text[..end]);
        self.blanks.extend_from_slice(&text[end..]);
    }

    /// An octet that may mean something.
    fn mark(&mut self, octet: u8, out: &mut Vec<u8>) {
        match (self.escape.as_slice(), octet) {
            ([], b'=') => {
                out.append(&mut self.blanks);
                self.escape.push(octet);
            }
            ([], b'\n' | b'\r') => {
                self.blanks.clear();
                out.push(octet);
            }
            ([], _) => self.text(&[octet], out),
            // A soft line break, perhaps with white space before its end.
            ([_, ..], b'\n') if self.escape[1..].iter().all(u8::is_ascii_whitespace) => {
                self.escape.clear();
            }
            ([_, blanks @ ..], b' ' | b'\t' | b'\r')
                if !blanks.contains(&b'\r')
                    && blanks.len() <= BLANKS_MAX
                    && blanks.iter().all(u8::is_ascii_whitespace) =>
            {
                self.escape.push(octet);
            }
            ([_], digit) if digit.is_ascii_hexdigit() => self.escape.push(octet),
            ([_, first], second) if first.is_ascii_hexdigit() && second.is_ascii_hexdigit() => {
                let digit = |octet: u8| char::from(octet).to_digit(16).unwrap_or_default();
                out.push((digit(*first) << 4 | digit(second)) as u8);
                self.escape.clear();
            }
            // Not an escape at all.
            _ => {
                out.append(&mut self.escape);
                self.mark(octet, out);
            }
        }
    }
}

const FOREIGN: u8 = 0xff;
const PADDING: u8 = 0xfe;
const BASE64: [u8; 256] = {
    let mut table = [FOREIGN; 256];
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut value = 0;
    while value < alphabet.len() {
        table[alphabet[value] as usize] = value as u8;
        value += 1;
    }
    table[b'=' as usize] = PADDING;
    table
};
/// White space that may have to be dropped; no line should be longer (RFC 5322 §2.1.1).
const BLANKS_MAX: usize = 998;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn decoded(encoding: &str, text: &[u8], piece: usize) -> Vec<u8> {
        let mut transfer = Transfer::of(encoding.as_bytes()).unwrap();
        let mut out = Vec::new();
        for octets in text.chunks(piece) {
            transfer.push(octets, &mut out);
        }
        transfer.finish(&mut out);
        out
    }

    #[test]
    fn bodies_are_decoded_however_they_are_cut() {
        for (encoding, text, expected) in [
            ("8BIT", &b"a=\r\n\0"[..], &b"a=\r\n\0"[..]),
            ("base64", b"aGVs\r\nbG8=\r\n", b"hello"),
            ("base64", b"aGVsbG8", b"hello"),
            ("base64", b"aGk=aGk=!", b"hihi"),
            (
                "Quoted-Printable",
                b"a=3Db=c3=A9 \t\r\nc  d",
                b"a=b\xc3\xa9\r\nc  d",
            ),
            ("quoted-printable", b"so=\r\nft= \t\r\n er=\n.", b"soft er."),
            ("quoted-printable", b"=zz =4z == =", b"=zz =4z == "),
            ("quoted-printable", b"=\rx=", b"=\rx"),
        ] {
            for piece in 1..=text.len() {
                assert_eq!(
                    decoded(encoding, text, piece).escape_ascii().to_string(),
                    expected.escape_ascii().to_string(),
                    "{encoding} in pieces of {piece}"
                );
            }
        }
        assert!(Transfer::of(b"x-uuencode").is_none());
    }
}
