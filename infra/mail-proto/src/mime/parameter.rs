//! Reads the parameters of Content-Type and Content-Disposition.

use super::PARAMETERS_MAX;
use super::token::{comment_end, quoted_string};
use super::word::{decode_bare, decode_charset, decode_words, hex};

/// A name and a value, as the mail has them.
pub(super) type Parameter = (Vec<u8>, Vec<u8>);

/// Reads parameters from an unfolded value that begins behind the type, as
/// real mail has them: missing semicolons, unquoted values with spaces.
/// RFC 2231 continuations are joined. `None` if there are too many.
pub(super) fn read_parameters(value: &[u8]) -> Option<Vec<Parameter>> {
    let mut parameters = Vec::new();
    let mut reader = Reader { value, at: 0 };
    while reader.skip_space_and(b";") {
        let name = reader.token();
        if name.is_empty() {
            reader.at += 1;
            continue;
        }
        reader.skip_space_and(b"");
        // A word without a value is no parameter, nor is what follows it.
        if value.get(reader.at) != Some(&b'=') {
            reader.skip_to_semicolon();
            continue;
        }
        reader.at += 1;
        if parameters.len() == PARAMETERS_MAX {
            return None;
        }
        parameters.push((name.to_vec(), reader.parameter_value()));
    }
    Some(join_continuations(parameters))
}

/// Octets of a token of RFC 2045 §5.1 at the beginning of `value`.
pub(super) fn token(value: &[u8]) -> &[u8] {
    let length = value.iter().position(|octet| !is_token(*octet));
    &value[..length.unwrap_or(value.len())]
}

struct Reader<'a> {
    value: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Passes white space, comments and octets of `others`; false at the end.
    fn skip_space_and(&mut self, others: &[u8]) -> bool {
        while let Some(octet) = self.value.get(self.at) {
            match octet {
                b'(' => self.at = comment_end(self.value, self.at),
                octet if octet.is_ascii_whitespace() || others.contains(octet) => self.at += 1,
                _ => return true,
            }
        }
        false
    }

    fn token(&mut self) -> &'a [u8] {
        let token = token(&self.value[self.at..]);
        self.at += token.len();
        token
    }

    fn parameter_value(&mut self) -> Vec<u8> {
        self.skip_white_space();
        let start = self.at;
        let rest = &self.value[start..];
        if rest.first() == Some(&b'"') {
            let (text, end) = quoted_string(self.value, start);
            self.at = end;
            return text.into_owned();
        }
        let is_end = |octet: &u8| matches!(octet, b';' | b'(') || octet.is_ascii_whitespace();
        self.at += rest.iter().position(is_end).unwrap_or(rest.len());
        let word_end = self.at;
        self.skip_white_space();
        let next = self.at;
        if !matches!(self.value.get(next), None | Some(b';' | b'(')) {
            let name = self.token();
            self.skip_space_and(b"");
            let is_parameter = !name.is_empty() && self.value.get(self.at) == Some(&b'=');
            self.at = next;
            if !is_parameter {
                // `name=my file.pdf`: what a person meant is the whole.
                self.skip_to_semicolon();
                return self.value[start..self.at].trim_ascii_end().to_vec();
            }
        }
        self.value[start..word_end].to_vec()
    }

    fn skip_white_space(&mut self) {
        let rest = &self.value[self.at..];
        self.at += rest.len() - rest.trim_ascii_start().len();
    }

    fn skip_to_semicolon(&mut self) {
        let rest = &self.value[self.at..];
        self.at += memchr::memchr(b';', rest).unwrap_or(rest.len());
    }
}

fn is_token(octet: u8) -> bool {
    octet.is_ascii_graphic()
        && !matches!(
            octet,
            b'(' | b')'
                | b'<'
                | b'>'
                | b'@'
                | b','
                | b';'
                | b':'
                | b'\\'
                | b'"'
                | b'/'
                | b'['
                | b']'
                | b'?'
                | b'='
        )
}

/// A piece of `name*1*=…`.
struct Piece {
    /// Which parameter of the list it is.
    at: usize,
    base_length: usize,
    section: usize,
    encoded: bool,
}

impl Piece {
    fn read(at: usize, name: &[u8]) -> Option<Self> {
        let (name, encoded) = match name.strip_suffix(b"*") {
            Some(name) => (name, true),
            None => (name, false),
        };
        let base_length = memchr::memrchr(b'*', name)?;
        let digits = &name[base_length + 1..];
        let section = std::str::from_utf8(digits).ok()?.parse().ok()?;
        Some(Self {
            at,
            base_length,
            section,
            encoded,
        })
    }
}

/// Joins the pieces of RFC 2231 §3, so that clients that do not know them see
/// one `name` or `name*`. Pieces that do not count up from 0 stay as they are.
fn join_continuations(mut parameters: Vec<Parameter>) -> Vec<Parameter> {
    let mut pieces: Vec<Piece> = parameters
        .iter()
        .enumerate()
        .filter_map(|(at, (name, _))| Piece::read(at, name))
        .collect();
    if pieces.is_empty() {
        return parameters;
    }
    // Pieces of one name come to stand together, in their order.
    let base = |piece: &Piece| {
        let (name, _) = &parameters[piece.at];
        name[..piece.base_length].to_ascii_lowercase()
    };
    pieces.sort_by_cached_key(|piece| (base(piece), piece.section));
    let mut joined = Vec::new();
    for group in pieces.chunk_by(|one, other| base(one) == base(other)) {
        let counts_up = group
            .iter()
            .enumerate()
            .all(|(count, piece)| piece.section == count);
        if counts_up {
            joined.push(join(group, &parameters));
        }
    }
    let mut gone = vec![false; parameters.len()];
    for (group, place, parameter) in joined {
        group.iter().for_each(|at| gone[*at] = true);
        gone[place] = false;
        parameters[place] = parameter;
    }
    let mut gone = gone.into_iter();
    parameters.retain(|_| !gone.next().unwrap_or(false));
    parameters
}

/// Joins one group; gives which parameters it was, and where it goes.
fn join(group: &[Piece], parameters: &[Parameter]) -> (Vec<usize>, usize, Parameter) {
    let members: Vec<usize> = group.iter().map(|piece| piece.at).collect();
    let place = members.iter().copied().min().unwrap_or(0);
    let encoded = group.iter().any(|piece| piece.encoded);
    let mut name = parameters[place].0[..group[0].base_length].to_vec();
    let mut value = Vec::new();
    if encoded {
        name.push(b'*');
        if !group[0].encoded {
            value.extend_from_slice(b"''");
        }
    }
    for piece in group {
        let text = &parameters[piece.at].1;
        if !encoded || piece.encoded {
            value.extend_from_slice(text);
            continue;
        }
        for octet in text {
            if is_token(*octet) && !matches!(octet, b'%' | b'\'' | b'*') {
                value.push(*octet);
            } else {
                value.extend_from_slice(format!("%{octet:02X}").as_bytes());
            }
        }
    }
    (members, place, (name, value))
}

/// The decoded value of the parameter `name`: its RFC 2231 form if it is
/// there, else the plain one, in which encoded words are taken too, for many
/// mailers write them there.
pub fn decode_parameter<'a>(
    parameters: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    name: &str,
) -> Option<String> {
    let mut plain = None;
    for (found, value) in parameters {
        let (base, extended) = match found.strip_suffix(b"*") {
            Some(base) => (base, true),
            None => (found, false),
        };
        if !base.eq_ignore_ascii_case(name.as_bytes()) {
            continue;
        }
        if extended {
            return Some(decode_extended(value));
        }
        plain = plain.or(Some(value));
    }
    plain.map(decode_words)
}

/// `charset'language'percent-encoded`. RFC 2231 §4.
fn decode_extended(value: &[u8]) -> String {
    let mut parts = value.splitn(3, |octet| *octet == b'\'');
    let (charset, text) = match (parts.next(), parts.next(), parts.next()) {
        (Some(charset), Some(_), Some(text)) => (charset, text),
        _ => (&value[..0], value),
    };
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [octet, after @ ..] = rest {
        rest = after;
        match (octet, hex(after)) {
            (b'%', Some(decoded)) => {
                octets.push(decoded);
                rest = &after[2..];
            }
            _ => octets.push(*octet),
        }
    }
    decode_charset(charset, &octets)
        .unwrap_or_else(|| decode_bare(&octets))
        .into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(value: &str) -> Vec<String> {
        let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
        read_parameters(value.as_bytes())
            .unwrap()
            .into_iter()
            .map(|(name, value)| format!("{}={}", text(name), text(value)))
            .collect()
    }

    #[test]
    fn parameters_are_read_however_broken() {
        for (value, parameters) in [
            (
                "; charset=utf-8; Format=flowed",
                vec!["charset=utf-8", "Format=flowed"],
            ),
            (
                " charset = \"a\\\"b;c\" (x;y) name=d",
                vec!["charset=a\"b;c", "name=d"],
            ),
            (";; =x; y; z=; w", vec!["z="]),
            (
                "; name=my file (1).pdf ; b=c",
                vec!["name=my file (1).pdf", "b=c"],
            ),
            ("; name=file(1).pdf; na me=x", vec!["name=file"]),
            ("; charset=us-ascii (Plain text)", vec!["charset=us-ascii"]),
            (
                "; boundary==_x/y; a=b?c=d",
                vec!["boundary==_x/y", "a=b?c=d"],
            ),
            ("; name=\"open; x=y", vec!["name=open; x=y"]),
            (
                "; a*1=b; x=y; A*0=\"a \"; a*2=c; d*1=e",
                vec!["a=a bc", "x=y", "d*1=e"],
            ),
            ("; a*0=\"a %\"; a*1*=%42", vec!["a*=''a%20%25%42"]),
            ("; a*0=1; a*0=2; a*x=3", vec!["a*0=1", "a*0=2", "a*x=3"]),
        ] {
            assert_eq!(read(value), parameters, "{value}");
        }
    }

    #[test]
    fn a_hundred_parameters_are_read_and_one_more_is_too_many() {
        for (count, read) in [(99, true), (100, true), (101, false)] {
            let value: String = (0..count).map(|at| format!("; n*{at}=v")).collect();
            assert_eq!(read_parameters(value.as_bytes()).is_some(), read, "{count}");
        }
    }

    #[test]
    fn values_are_decoded() {
        for (value, name) in [
            ("; name*=utf-8'de'%C3%A9%zz", "é%zz"),
            ("; name*=%41; name=x", "A"),
            ("; NAME==?utf-8?Q?=C3=A9?=", "é"),
            ("; name*0*=iso-8859-1''%E9; name*1=.txt", "é.txt"),
        ] {
            let parameters = read_parameters(value.as_bytes()).unwrap();
            let pairs = parameters
                .iter()
                .map(|(name, value)| (&name[..], &value[..]));
            assert_eq!(decode_parameter(pairs, "name").unwrap(), name);
        }
    }
}
