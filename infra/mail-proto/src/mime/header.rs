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
    fn unfolding_takes_out_only_line_ends() {
        assert_eq!(&*unfold(b" a\r\n  b\n\tc\0\rd \r\n"), b"a  b\tc?\rd");
        assert!(matches!(unfold(b" a b\r\n"), Cow::Borrowed(b"a b")));
    }
}
