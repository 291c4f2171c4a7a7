//! Dot-stuffing for what is sent: POP3 multi-line responses (RFC 1939 §3) and
//! the data of SMTP and LMTP (RFC 5321 §4.5.2).

use memchr::memmem;

/// Stuffs one message that comes in pieces.
///
/// Octets go out exactly as they are; only a dot after LF (or at the very beginning) is doubled. A bare LF is no line end,
/// but many receivers take it for one: to them `LF.CRLF` would be the end of the message, and what follows the next reply.
/// They take the second dot off again; those who know better find one dot more in a message that has no right to be so
/// written. No CRLF is made of the LF: then nothing would be left as it was stored, and no size told would be right.
#[derive(Debug)]
pub struct DotStuffer {
    /// The last two octets.
    last: [u8; 2],
}

impl Default for DotStuffer {
    /// One for the beginning of a message.
    fn default() -> Self {
        Self { last: *b"\r\n" }
    }
}

impl DotStuffer {
    /// Appends the stuffed form of the next octets to `out`.
    pub fn encode(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        if self.last[1] == b'\n' && octets.starts_with(b".") {
            out.push(b'.');
        }
        let mut copied = 0;
        for found in memmem::find_iter(octets, b"\n.") {
            out.extend_from_slice(&octets[copied..found + 2]);
            copied = found + 1;
        }
        out.extend_from_slice(&octets[copied..]);
        self.last = match octets {
            [] => self.last,
            [one] => [self.last[1], *one],
            [.., one, other] => [*one, *other],
        };
    }

    /// Appends the final dot. A message that does not end with CRLF gets one,
    /// for the dot must stand on a line of its own: the receiver sees these
    /// two octets more than were stored.
    pub fn finish(self, out: &mut Vec<u8>) {
        if self.last != *b"\r\n" {
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
            (b"a\n.\r.\r\r\n.b", b"a\n..\r.\r\r\n..b\r\n.\r\n"),
            (b"a\n.\r\n", b"a\n..\r\n.\r\n"),
            (b"a\r", b"a\r\r\n.\r\n"),
            (b"a\n", b"a\n\r\n.\r\n"),
        ] {
            for piece in 1..=message.len().max(1) {
                let mut stuffer = DotStuffer::default();
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
