//! Sends one message as a multi-line response. RFC 1939 §5 RETR, §7 TOP.

use memchr::memchr;

use crate::stuffing::DotStuffer;

/// Encodes one message: status line, dot-stuffed octets, final dot.
///
/// The octets are those stored, bare CR and LF included. A message that does
/// not end with CRLF gets one before the final dot, because RFC 1939 §3 cannot
/// express its absence; the size in LIST stays that of what is stored.
#[derive(Debug)]
pub struct MessageEncoder {
    /// Announced, and not yet written.
    status: Option<u64>,
    stuffer: DotStuffer,
    top: Option<Top>,
}

impl MessageEncoder {
    pub(super) fn new(size: u64, top_lines: Option<u64>) -> Self {
        let top = top_lines.map(|lines| Top {
            lines_left: lines,
            in_header: true,
            line_is_empty: true,
        });
        Self {
            status: Some(size),
            stuffer: DotStuffer::default(),
            top,
        }
    }

    /// Appends the encoded form of the next octets of the message to `out`.
    /// True when nothing more is needed (TOP is satisfied): the rest of the
    /// message need not be read.
    pub fn encode(&mut self, octets: &[u8], out: &mut Vec<u8>) -> bool {
        self.write_status(out);
        let Some(top) = &mut self.top else {
            self.stuffer.encode(octets, out);
            return false;
        };
        let wanted = top.take(octets);
        self.stuffer.encode(&octets[..wanted], out);
        top.is_done()
    }

    /// Appends what ends the response. Call once, after the last octets.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        self.write_status(out);
        self.stuffer.finish(out);
    }

    fn write_status(&mut self, out: &mut Vec<u8>) {
        if let Some(size) = self.status.take() {
            match self.top {
                None => out.extend_from_slice(format!("+OK {size} octets\r\n").as_bytes()),
                Some(_) => out.extend_from_slice(b"+OK top of message follows\r\n"),
            }
        }
    }
}

/// Cuts a message off after its header, the empty line, and some lines.
/// A bare LF counts as a line end here, so that TOP of a message that lacks
/// CRLF is still only its top.
#[derive(Debug)]
struct Top {
    lines_left: u64,
    in_header: bool,
    line_is_empty: bool,
}

impl Top {
    fn is_done(&self) -> bool {
        !self.in_header && self.lines_left == 0
    }

    /// How many of these octets are wanted.
    fn take(&mut self, octets: &[u8]) -> usize {
        let mut at = 0;
        while !self.is_done() && at < octets.len() {
            let line_end = memchr(b'\n', &octets[at..]).map(|found| at + found);
            let text = &octets[at..line_end.unwrap_or(octets.len())];
            self.line_is_empty &= text.iter().all(|octet| *octet == b'\r');
            let Some(line_end) = line_end else {
                return octets.len();
            };
            if !self.in_header {
                self.lines_left -= 1;
            } else if self.line_is_empty {
                self.in_header = false;
            }
            self.line_is_empty = true;
            at = line_end + 1;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(message: &[u8], piece: usize, top_lines: Option<u64>) -> String {
        let mut encoder = MessageEncoder::new(message.len() as u64, top_lines);
        let mut out = Vec::new();
        for part in message.chunks(piece) {
            if encoder.encode(part, &mut out) {
                break;
            }
        }
        encoder.finish(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn top_sends_header_and_as_many_lines_for_every_cut() {
        let message = b"A: 1\r\nB: 2\r\n\r\none\r\n.two\r\n\r\nfour";
        let status = "+OK top of message follows\r\n";
        for (lines, top) in [
            (0, "A: 1\r\nB: 2\r\n\r\n.\r\n"),
            (1, "A: 1\r\nB: 2\r\n\r\none\r\n.\r\n"),
            (2, "A: 1\r\nB: 2\r\n\r\none\r\n..two\r\n.\r\n"),
            (4, "A: 1\r\nB: 2\r\n\r\none\r\n..two\r\n\r\nfour\r\n.\r\n"),
            (
                u64::MAX,
                "A: 1\r\nB: 2\r\n\r\none\r\n..two\r\n\r\nfour\r\n.\r\n",
            ),
        ] {
            for piece in 1..=message.len() {
                assert_eq!(
                    encode(message, piece, Some(lines)),
                    format!("{status}{top}"),
                    "{lines} lines, pieces of {piece}"
                );
            }
        }
    }

    #[test]
    fn an_empty_message_is_a_status_line_and_a_dot() {
        assert_eq!(encode(b"", 1, None), "+OK 0 octets\r\n.\r\n");
        assert_eq!(
            encode(b"", 1, Some(3)),
            "+OK top of message follows\r\n.\r\n"
        );
    }
}
