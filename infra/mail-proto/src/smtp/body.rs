//! Reads the mail data up to the final dot. RFC 5321 §4.1.1.4, §4.5.2.
//!
//! Only CRLF begins a line, so only CRLF.CRLF ends the data: a dot after a
//! bare LF or bare CR is an ordinary octet of a message already refused.
//! That is what closes SMTP smuggling.

use memchr::memchr2;

use crate::input::Input;

/// Why a body cannot be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFault {
    /// A CR without LF after it.
    BareCr,
    /// An LF without CR before it.
    BareLf,
    /// A text line over the limit.
    LineTooLong,
    /// More octets than the limit.
    TooLarge,
}

/// One body being read.
#[derive(Debug)]
pub(super) struct BodyReader {
    line_max_bytes: u64,
    size_max_bytes: u64,
    at_line_start: bool,
    line_length: u64,
    size: u64,
    fault: Option<BodyFault>,
    /// Octets read since the fault.
    passed_over: u64,
}

/// What one pass over the input found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BodyRead {
    /// Octets of the message at the front of the input's waiting part.
    pub(super) chunk_length: usize,
    /// Octets of the input they were made of.
    pub(super) used: usize,
    /// Whether the final dot was read.
    pub(super) ended: bool,
}

impl BodyReader {
    pub(super) fn new(line_max_bytes: u64, size_max_bytes: u64) -> Self {
        Self {
            line_max_bytes,
            size_max_bytes,
            at_line_start: true,
            line_length: 0,
            size: 0,
            fault: None,
            passed_over: 0,
        }
    }

    /// Octets of the message so far.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The first fault found.
    pub(super) fn fault(&self) -> Option<BodyFault> {
        self.fault
    }

    /// Octets of the input that came behind the fault, and with it.
    pub(super) fn passed_over(&self) -> u64 {
        self.passed_over
    }

    /// Reads what waits, taking the stuffed dots out in place: octets move
    /// only behind the first stuffed dot of a pass, in whole lines. A CR or a
    /// dot whose meaning the next octet decides stays in the input.
    pub(super) fn read(&mut self, input: &mut Input) -> BodyRead {
        let pass = self.pass(input);
        if self.fault.is_some() {
            self.passed_over += pass.used as u64;
        }
        pass
    }

    fn pass(&mut self, input: &mut Input) -> BodyRead {
        let (octets, start) = input.waiting_mut();
        let mut read = start;
        let mut write = start;
        loop {
            if self.at_line_start {
                match &octets[read..] {
                    [] | [b'.'] | [b'.', b'\r'] => break,
                    [b'.', b'\r', b'\n', ..] => {
                        return BodyRead {
                            chunk_length: write - start,
                            used: read + 3 - start,
                            ended: true,
                        };
                    }
                    [b'.', ..] => read += 1,
                    _ => {}
                }
                self.at_line_start = false;
                self.line_length = 0;
            }
            let Some(found) = memchr2(b'\r', b'\n', &octets[read..]) else {
                let length = octets.len() - read;
                write = self.keep_text(octets, read, write, length);
                read += length;
                break;
            };
            write = self.keep_text(octets, read, write, found);
            read += found;
            if octets[read] == b'\n' {
                self.mark(BodyFault::BareLf);
                read += 1;
                continue;
            }
            match octets.get(read + 1) {
                None => break,
                Some(b'\n') => {
                    write = self.keep_line_end(octets, read, write);
                    read += 2;
                    self.at_line_start = true;
                }
                Some(_) => {
                    self.mark(BodyFault::BareCr);
                    read += 1;
                }
            }
        }
        BodyRead {
            chunk_length: write - start,
            used: read - start,
            ended: false,
        }
    }

    /// Keeps octets of a line. Which limit is met first must not depend on
    /// how the input was cut, so the limits are compared octet for octet.
    fn keep_text(&mut self, octets: &mut [u8], from: usize, to: usize, length: usize) -> usize {
        let length_wide = length as u64;
        let size_room = self.size_max_bytes - self.size;
        let line_room = self.line_max_bytes.saturating_sub(self.line_length);
        if length_wide > size_room.min(line_room) {
            let is_size = size_room <= line_room;
            self.mark(if is_size {
                BodyFault::TooLarge
            } else {
                BodyFault::LineTooLong
            });
        }
        self.line_length += length_wide;
        self.keep(octets, from, to, length)
    }

    /// Keeps a CRLF. It counts for the size, not for the line.
    fn keep_line_end(&mut self, octets: &mut [u8], from: usize, to: usize) -> usize {
        if self.size_max_bytes - self.size < 2 {
            self.mark(BodyFault::TooLarge);
        }
        self.keep(octets, from, to, 2)
    }

    /// Counts octets and moves them to where the chunk ends; returns its new
    /// end. After a fault nothing is kept.
    fn keep(&mut self, octets: &mut [u8], from: usize, to: usize, length: usize) -> usize {
        if self.fault.is_some() {
            return to;
        }
        if from != to {
            octets.copy_within(from..from + length, to);
        }
        self.size += length as u64;
        to + length
    }

    fn mark(&mut self, fault: BodyFault) {
        self.fault.get_or_insert(fault);
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
    ) -> (Vec<u8>, Option<BodyFault>, usize) {
        let mut reader = BodyReader::new(line_max, size_max);
        let mut input = Input::default();
        let mut message = Vec::new();
        for part in octets.chunks(piece) {
            assert_eq!(input.receive(part, 1 << 20), part.len());
            let pass = reader.read(&mut input);
            let range = input.consume(pass.used);
            message.extend_from_slice(input.slice(range.start..range.start + pass.chunk_length));
            if pass.ended {
                if reader.fault().is_none() {
                    assert_eq!(reader.size(), message.len() as u64);
                }
                return (message, reader.fault(), input.len());
            }
        }
        (message, reader.fault(), usize::MAX)
    }

    #[test]
    fn a_body_is_the_same_for_every_cut() {
        use BodyFault::{BareCr, BareLf, LineTooLong, TooLarge};
        let cases: [(&[u8], &[u8], Option<BodyFault>); 16] = [
            (b".\r\n", b"", None),
            (b"\r\n.\r\n", b"\r\n", None),
            (b"..\r\n.\r\n", b".\r\n", None),
            (
                b"...\r\n..a\r\nb..\r\n.c\r\n.\r\n",
                b"..\r\n.a\r\nb..\r\nc\r\n",
                None,
            ),
            (b"a.\r\n\r\n.\r\n", b"a.\r\n\r\n", None),
            (b"a\0\xff\r\n.\r\n", b"a\0\xff\r\n", None),
            (b"12345678\r\n.\r\n", b"12345678\r\n", None),
            (b".12345678\r\n.\r\n", b"12345678\r\n", None),
            (b"123456789\r\n.\r\n", b"", Some(LineTooLong)),
            (b"a\n.\n.\r\nb\r\n.\r\n", b"", Some(BareLf)),
            (b"a\r.\r\n.\r\n", b"", Some(BareCr)),
            (b".\rx\r\n.\r\n", b"", Some(BareCr)),
            (b"\r\r\n.\r\n", b"", Some(BareCr)),
            (b"a\r\n.\nb\r\n.\r\n", b"", Some(BareLf)),
            (b"1234\r\n5678\r\n9012\r\n345\r\n.\r\n", b"", Some(TooLarge)),
            (
                b"1234\r\n5678\r\n9012\r\n34\r\n.\r\n",
                b"1234\r\n5678\r\n9012\r\n34\r\n",
                None,
            ),
        ];
        for (sent, kept, fault) in cases {
            for piece in 1..=sent.len() {
                let (message, seen, left) = read(sent, piece, 8, 22);
                assert_eq!(seen, fault, "{sent:?} in pieces of {piece}");
                assert_eq!(left, 0, "{sent:?} ends at its last octet");
                if fault.is_none() {
                    assert_eq!(message, kept, "{sent:?} in pieces of {piece}");
                }
            }
        }
    }

    #[test]
    fn what_follows_the_final_dot_is_left_alone() {
        let (message, fault, left) = read(b"a\r\n.\r\nQUIT\r\n", 100, 998, 100);
        assert_eq!((message.as_slice(), fault, left), (&b"a\r\n"[..], None, 6));
    }
}
