//! One reply, with its enhanced code. RFC 5321 §4.2, RFC 2034.

use std::borrow::Cow;

/// A reply to one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Three digits, 200 to 599.
    pub code: u16,
    /// Enhanced status code, RFC 3463. None only where RFC 2034 §4 wants none.
    pub enhanced: Option<(u8, u8, u8)>,
    /// Text; `\n` separates the lines of a multi-line reply.
    pub text: Cow<'static, str>,
}

impl Reply {
    /// A reply with a fixed text.
    pub const fn new(code: u16, enhanced: (u8, u8, u8), text: &'static str) -> Self {
        Self {
            code,
            enhanced: Some(enhanced),
            text: Cow::Borrowed(text),
        }
    }

    /// A reply with a text made for the occasion. It may hold what a peer
    /// said: controls never reach the wire.
    pub fn with_text(code: u16, enhanced: (u8, u8, u8), text: impl Into<String>) -> Self {
        Self {
            code,
            enhanced: Some(enhanced),
            text: Cow::Owned(text.into()),
        }
    }

    /// A reply without enhanced code: greeting, EHLO, 354.
    pub const fn plain(code: u16, text: Cow<'static, str>) -> Self {
        Self {
            code,
            enhanced: None,
            text,
        }
    }

    /// Whether this is a yes (2xx or 3xx).
    pub fn is_positive(&self) -> bool {
        self.code < 400
    }

    /// Whether this is a no for good (5xx).
    pub fn is_permanent(&self) -> bool {
        self.code >= 500
    }

    /// Appends the reply as it goes over the wire. Every line carries code and
    /// enhanced code (RFC 2034 §4), and is cut at what a reply line may hold.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let mut lines = self.text.split('\n').peekable();
        while let Some(line) = lines.next() {
            let separator = if lines.peek().is_some() { '-' } else { ' ' };
            out.extend_from_slice(self.code.to_string().as_bytes());
            out.push(separator as u8);
            if let Some((class, subject, detail)) = self.enhanced {
                out.extend_from_slice(format!("{class}.{subject}.{detail} ").as_bytes());
            }
            let shown = line.bytes().take(TEXT_MAX);
            out.extend(shown.map(|octet| {
                if matches!(octet, b' '..=b'~') {
                    octet
                } else {
                    b'?'
                }
            }));
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// A reply line holds 512 octets with code and CRLF, RFC 5321 §4.5.3.1.5.
const TEXT_MAX: usize = 490;

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(reply: &Reply) -> String {
        let mut out = Vec::new();
        reply.write_to(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn every_line_carries_both_codes() {
        let reply = Reply::new(550, (5, 1, 1), "no such user\nask the postmaster");
        assert_eq!(
            wire(&reply),
            "550-5.1.1 no such user\r\n550 5.1.1 ask the postmaster\r\n"
        );
    }

    #[test]
    fn a_peer_cannot_inject_a_line() {
        let reply = Reply::with_text(451, (4, 0, 0), "a\r\0é");
        assert_eq!(wire(&reply), "451 4.0.0 a????\r\n");
    }

    #[test]
    fn a_reply_line_is_at_most_512_octets() {
        let reply = Reply::with_text(451, (4, 0, 0), "x".repeat(10_000));
        assert!(wire(&reply).len() <= 512);
    }
}
