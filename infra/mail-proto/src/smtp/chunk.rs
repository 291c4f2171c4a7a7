//! BDAT: a message in chunks of announced size. RFC 3030 §2.
//!
//! No octet of a chunk is ever looked at for an end, so no dot is stuffed and none can be smuggled. The message is
//! still text (BINARYMIME is not offered): its lines end with CRLF, across chunks too, by the rules of DATA.

use memchr::memchr2;

use super::body::BodyFault;

/// A BDAT command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Octets that follow the command.
    pub(super) length: u64,
    pub(super) is_last: bool,
}

impl Chunk {
    /// Reads what follows the verb. Without a size nobody knows where the next command begins.
    pub(super) fn parse(arguments: &str) -> Option<Self> {
        let mut words = arguments.split([' ', '\t']).filter(|word| !word.is_empty());
        let length = words.next()?;
        let is_number = length.bytes().all(|digit| digit.is_ascii_digit());
        let length = length.parse().ok().filter(|_| is_number)?;
        let is_last = match words.next() {
            None => false,
            Some(word) if word.eq_ignore_ascii_case("LAST") => true,
            Some(_) => return None,
        };
        words.next().is_none().then_some(Self { length, is_last })
    }
}

/// Checks the octets of one message, whatever the pieces.
#[derive(Debug)]
pub(super) struct ChunkReader {
    line_max_bytes: u64,
    size_max_bytes: u64,
    size: u64,
    line_length: u64,
    after_cr: bool,
}

impl ChunkReader {
    pub(super) fn new(line_max_bytes: u64, size_max_bytes: u64) -> Self {
        Self {
            line_max_bytes,
            size_max_bytes,
            size: 0,
            line_length: 0,
            after_cr: false,
        }
    }

    /// Octets of the message so far.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Whether so many more octets may come.
    pub(super) fn has_room(&self, octets: u64) -> Result<(), BodyFault> {
        if octets > self.size_max_bytes - self.size {
            return Err(BodyFault::TooLarge);
        }
        Ok(())
    }

    /// Takes the next octets, or says why the message cannot be accepted any more.
    pub(super) fn read(&mut self, octets: &[u8]) -> Result<(), BodyFault> {
        let mut rest = octets;
        while let Some(first) = rest.first() {
            if self.after_cr {
                if *first != b'\n' {
                    return Err(BodyFault::BareCr);
                }
                self.after_cr = false;
                self.line_length = 0;
                self.count(1)?;
                rest = &rest[1..];
                continue;
            }
            let text = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
            let wide = text as u64;
            // Which limit is met first must not depend on how the message was cut.
            let line_room = self.line_max_bytes - self.line_length;
            if wide > line_room && line_room < self.size_max_bytes - self.size {
                return Err(BodyFault::LineTooLong);
            }
            self.count(wide)?;
            self.line_length += wide;
            match rest.get(text) {
                None => break,
                Some(b'\n') => return Err(BodyFault::BareLf),
                Some(_) => {
                    self.count(1)?;
                    self.after_cr = true;
                    rest = &rest[text + 1..];
                }
            }
        }
        Ok(())
    }

    /// What is missing at the end of the message: a text's last line ends with CRLF, as in DATA it must.
    pub(super) fn end(&mut self) -> Result<&'static [u8], BodyFault> {
        if self.after_cr {
            return Err(BodyFault::BareCr);
        }
        if self.line_length == 0 {
            return Ok(b"");
        }
        self.line_length = 0;
        self.count(2)?;
        Ok(b"\r\n")
    }

    fn count(&mut self, octets: u64) -> Result<(), BodyFault> {
        self.has_room(octets)?;
        self.size += octets;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(
        octets: &[u8],
        piece: usize,
        line_max: u64,
        size_max: u64,
    ) -> Result<Vec<u8>, BodyFault> {
        let mut reader = ChunkReader::new(line_max, size_max);
        for part in octets.chunks(piece) {
            reader.read(part)?;
        }
        let message = [octets, reader.end()?].concat();
        assert_eq!(reader.size(), message.len() as u64);
        Ok(message)
    }

    #[test]
    fn a_message_is_the_same_for_every_cut() {
        use BodyFault::{BareCr, BareLf, LineTooLong, TooLarge};
        type Case = (&'static [u8], Result<&'static [u8], BodyFault>);
        let cases: [Case; 15] = [
            (b"", Ok(b"")),
            (b"a\r\n", Ok(b"a\r\n")),
            (b"a", Ok(b"a\r\n")),
            (b"\r\n", Ok(b"\r\n")),
            (b".\r\n..\r\n.\r\n", Ok(b".\r\n..\r\n.\r\n")),
            (b"a\0\xff\r\n", Ok(b"a\0\xff\r\n")),
            (b"12345678\r\n", Ok(b"12345678\r\n")),
            (b"123456789\r\n", Err(LineTooLong)),
            (b"a\nb\r\n", Err(BareLf)),
            (b"\n", Err(BareLf)),
            (b"a\rb\r\n", Err(BareCr)),
            (b"a\r\r\n", Err(BareCr)),
            (b"a\r", Err(BareCr)),
            (b"1234\r\n5678\r\n9012", Ok(b"1234\r\n5678\r\n9012\r\n")),
            (b"1234\r\n5678\r\n90123", Err(TooLarge)),
        ];
        for (sent, kept) in cases {
            for piece in 1..=sent.len().max(1) {
                let seen = read(sent, piece, 8, 18);
                assert_eq!(
                    seen.as_deref().map_err(|fault| *fault),
                    kept,
                    "{sent:?} in pieces of {piece}"
                );
            }
        }
    }

    #[test]
    fn a_command_without_a_size_is_none() {
        let chunk = |length, is_last| Some(Chunk { length, is_last });
        for (arguments, read) in [
            ("0", chunk(0, false)),
            ("86 last", chunk(86, true)),
            ("18446744073709551615 LAST", chunk(u64::MAX, true)),
            ("18446744073709551616", None),
            ("", None),
            ("LAST", None),
            ("+1", None),
            ("-1", None),
            ("1 LAST LAST", None),
            ("1 FIRST", None),
        ] {
            assert_eq!(Chunk::parse(arguments), read, "{arguments:?}");
        }
    }
}
