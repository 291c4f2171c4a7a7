//! Reads a header block field by field.

use std::borrow::Cow;
use std::ops::Range;

use memchr::{memchr, memchr2};

/// One field of a header block, or a line there that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name, without white space before the colon (which RFC 5322 §4.5
    /// allows). Empty for lines without a colon.
    pub name: &'a [u8],
    /// What follows the colon, as it stands, line ends included.
    pub value: &'a [u8],
    start: usize,
    end: usize,
}

impl Field<'_> {
    /// True if this is the field `name`, in any case.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// Where the whole field stands in its block, last line end included.
    pub fn range(&self) -> Range<usize> {
        self.start..self.end
    }
}

/// Iterates the fields of a header block up to its empty line.
///
/// Lines end with LF, before which one CR belongs to the line end. A line that
/// begins with white space continues the one before it; at the very beginning
/// it stands alone.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    block: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// The fields of `block`.
    pub fn new(block: &'a [u8]) -> Self {
        Self { block, at: 0 }
    }

    /// Where the next field begins: after the last, the empty line.
    pub fn position(&self) -> usize {
        self.at
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let start = self.at;
        let rest = &self.block[start..];
        if rest.is_empty() || rest.starts_with(b"\n") || rest.starts_with(b"\r\n") {
            return None;
        }
        let mut end = line_end(self.block, start);
        while matches!(self.block.get(end), Some(b' ' | b'\t')) {
            end = line_end(self.block, end);
        }
        self.at = end;
        let octets = &self.block[start..end];
        let (name, value) = match memchr2(b':', b'\n', octets) {
            Some(colon) if octets[colon] == b':' => {
                (octets[..colon].trim_ascii_end(), &octets[colon + 1..])
            }
            _ => (&octets[..0], octets),
        };
        // A name with white space inside or before it ("Fr om:") is none:
        // taking it for From would let a sender show one thing to us and
        // another to the reader.
        let (name, value) = if name.iter().all(|octet| *octet > b' ' && *octet != 127) {
            (name, value)
        } else {
            (&octets[..0], octets)
        };
        Some(Field {
            name,
            value,
            start,
            end,
        })
    }
}

/// The values of a block's fields of one name, in any case, as [`Field::value`]
/// gives them: without a look at what the other fields hold.
pub fn values_of<'a>(block: &'a [u8], name: &str) -> impl Iterator<Item = &'a [u8]> {
    let name = name.as_bytes();
    let is_possible = |octet: &u8| !matches!(octet, 0..=b' ' | b':' | 127);
    let first = name.first().filter(|_| name.iter().all(is_possible));
    let mut rest = if first.is_some() { block } else { &[] };
    let first = first.map_or(0, u8::to_ascii_lowercase);
    std::iter::from_fn(move || {
        loop {
            let start = match rest {
                [] | [b'\n', ..] | [b'\r', b'\n', ..] => return None,
                [octet, ..] if octet.to_ascii_lowercase() == first => value_start(rest, name),
                // Also lines that go on with the one before: no name begins so.
                _ => None,
            };
            let mut end = line_end(rest, start.unwrap_or(0));
            if start.is_some() {
                while let Some(b' ' | b'\t') = rest.get(end) {
                    end = line_end(rest, end);
                }
            }
            let (field, after) = rest.split_at(end);
            rest = after;
            if let Some(start) = start {
                return Some(&field[start..]);
            }
        }
    })
}

/// Where the value begins if the first line begins with this name.
fn value_start(block: &[u8], name: &[u8]) -> Option<usize> {
    let (first, behind) = block.split_at_checked(name.len())?;
    if !first.eq_ignore_ascii_case(name) {
        return None;
    }
    let is_blank = |octet: &u8| octet.is_ascii_whitespace() && *octet != b'\n';
    let colon = behind.iter().position(|octet| !is_blank(octet))?;
    (behind[colon] == b':').then_some(name.len() + colon + 1)
}

/// A field's value on one line: line ends taken out, white space at both ends
/// too. RFC 5322 §2.2.3. NUL, which no IMAP string can carry, becomes `?`.
pub fn unfold(value: &[u8]) -> Cow<'_, [u8]> {
    let value = value.trim_ascii();
    if memchr2(b'\n', 0, value).is_none() {
        return Cow::Borrowed(value);
    }
    let mut line = Vec::with_capacity(value.len());
    for piece in value.split_inclusive(|octet| *octet == b'\n') {
        let piece = match piece {
            [kept @ .., b'\r', b'\n'] | [kept @ .., b'\n'] => kept,
            kept => kept,
        };
        line.extend(piece.iter().map(|octet| match octet {
            0 => b'?',
            octet => *octet,
        }));
    }
    Cow::Owned(line)
}

#[inline]
fn line_end(block: &[u8], from: usize) -> usize {
    memchr(b'\n', &block[from..]).map_or(block.len(), |found| from + found + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_they_stand() {
        let block =
            b" lone\r\nA: 1\r\n 2\nB :x\r\nno colon\r\n c:d\r\nFr om: e\r\n: f\r\n\r\nG: h\r\n";
        let mut fields = Fields::new(block);
        let read: Vec<_> = fields
            .by_ref()
            .map(|field| (field.name, field.range().len()))
            .collect();
        assert_eq!(
            read,
            [
                (&b""[..], 7),
                (b"A", 9),
                (b"B", 6),
                (b"", 16),
                (b"", 10),
                (b"", 5)
            ]
        );
        assert!(block[fields.position()..].starts_with(b"\r\nG"));
    }

    #[test]
    fn values_of_a_name_are_those_of_the_fields() {
        let block =
            b" A: 0\r\n\tA: 1\r\na: 2\r\n 3\r\nA\t :4\nAB: 5\r\nA\r\nA b: 6\r\nA:\r\n \r\n: 7\r\n\
            B: A: 8\r\nA: 9\r\n\r\nA: 10\r\n";
        for name in ["A", "a", "AB", "B", "b ", "", ":", " A", "A:", "A b"] {
            let fields = Fields::new(block).filter(|field| !name.is_empty() && field.is(name));
            let found: Vec<_> = fields.map(|field| field.value).collect();
            assert_eq!(values_of(block, name).collect::<Vec<_>>(), found, "{name}");
        }
        assert_eq!(values_of(block, "A").count(), 4);
    }

    #[test]
    fn unfolding_takes_out_only_line_ends() {
        assert_eq!(&*unfold(b" a\r\n  b\n\tc\0\rd \r\n"), b"a  b\tc?\rd");
        assert!(matches!(unfold(b" a b\r\n"), Cow::Borrowed(b"a b")));
    }
}
