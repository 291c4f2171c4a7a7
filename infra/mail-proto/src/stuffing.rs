//! Dot-stuffing for what is sent: POP3 multi-line responses (RFC 1939 §3) and
//! the data of SMTP and LMTP (RFC 5321 §4.5.2).

use memchr::memmem;

/// Stuffs one message that comes in pieces.
///
/// Octets go out exactly as they are; only a dot after CRLF (or at the very
/// beginning) is doubled. A bare LF or CR is no line end and is not touched.
#[derive(Debug, Default)]
pub struct DotStuffer {
    at: Position,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Position {
    #[default]
    LineStart,
    InLine,
    AfterCr,
}

impl DotStuffer {
    /// One for the beginning of a message.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the stuffed form of the next octets to `out`.
    pub fn encode(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        if octets.is_empty() {
            return;
        }
        let mut copied = 0;
        match self.at {
            Position::LineStart if octets[0] == b'.' => out.push(b'.'),
            Position::AfterCr if octets.starts_with(b"\n.") => {
                out.extend_from_slice(b"\n.");
                copied = 1;
            }
            _ => {}
        }
        for found in memmem::find_iter(octets, b"\r\n.") {
            out.extend_from_slice(&octets[copied..found + 3]);
            copied = found + 2;
        }
        out.extend_from_slice(&octets[copied..]);
        self.at = match octets {
            [.., b'\r', b'\n'] => Position::LineStart,
            [b'\n'] if self.at == Position::AfterCr => Position::LineStart,
            [.., b'\r'] => Position::AfterCr,
            _ => Position::InLine,
        };
    }

    /// Appends the final dot. A message that does not end with CRLF gets one,
    /// for the dot must stand on a line of its own: the receiver sees these
    /// two octets more than were stored.
    pub fn finish(self, out: &mut Vec<u8>) {
        if self.at != Position::LineStart {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_stuffed_the_same_for_every_cut() {
        for (message, wire) in [
            (&b""[..], &b".\r\n"[..]),
            (b".", b"..\r\n.\r\n"),
            (b"a\r\n", b"a\r\n.\r\n"),
            (b"a\r\n.\r\n..\r\n", b"a\r\n..\r\n...\r\n.\r\n"),
            (b"\r\n.\r\n.", b"\r\n..\r\n..\r\n.\r\n"),
            (b"a\n.\r.\r\r\n.b", b"a\n.\r.\r\r\n..b\r\n.\r\n"),
            (b"a\r", b"a\r\r\n.\r\n"),
            (b"a\n", b"a\n\r\n.\r\n"),
        ] {
            for piece in 1..=message.len().max(1) {
                let mut stuffer = DotStuffer::new();
                let mut out = Vec::new();
                message
                    .chunks(piece)
                    .for_each(|part| stuffer.encode(part, &mut out));
                stuffer.finish(&mut out);
                assert_eq!(out, wire, "{message:?} in pieces of {piece}");
            }
        }
    }
}
