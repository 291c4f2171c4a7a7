//! Builds the prologue: the trace lines put before a blob, per delivery.
//!
//! Whatever a peer said enters a line only here, and only sanitised: no CR,
//! LF, NUL or other control, no octet over 127, and cut in length. So nothing
//! sent can begin a header field of its own.

use std::fmt::Write;
use std::net::IpAddr;

use crate::address::Address;
use crate::smtp::ReversePath;

/// Facts for one Received field. RFC 5321 §4.4.
#[derive(Debug, Clone)]
pub struct Received<'a> {
    /// What the client called itself in HELO, EHLO or LHLO.
    pub client_name: &'a str,
    /// Where it connected from.
    pub client_address: IpAddr,
    /// Its name by reverse look-up, if it was confirmed.
    pub client_host: Option<&'a str>,
    /// Our name.
    pub by: &'a str,
    /// The word after "with": `Server::protocol()`.
    pub protocol: &'a str,
    /// TLS facts for a comment, such as "TLSv1.3 TLS_AES_256_GCM_SHA384".
    pub tls: Option<&'a str>,
    /// Our identifier for this transaction.
    pub id: &'a str,
    /// The recipient, where naming it tells nobody of another.
    pub recipient: Option<&'a Address>,
    /// Date and time as RFC 5322 §3.3 writes it.
    pub date: &'a str,
}

/// The lines put before a blob. Received comes last by construction: a blob
/// that begins with white space continues the line before it, and one without
/// a header has its first lines taken for fields. Received, whose form only
/// people read, stands there to bear that; Return-Path, Delivered-To and
/// Authentication-Results, on which decisions rest, are out of reach.
#[derive(Debug, Default)]
pub struct Prologue {
    octets: String,
}

impl Prologue {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds Return-Path. It comes first, RFC 5321 §4.4.
    #[must_use]
    pub fn return_path(self, path: &ReversePath) -> Self {
        self.unfolded("Return-Path", &path.to_string())
    }

    /// Adds any field, such as Authentication-Results. The value is folded at
    /// its spaces.
    #[must_use]
    pub fn field(self, name: &'static str, value: &str) -> Self {
        self.line(name, value)
    }

    /// Adds Delivered-To.
    #[must_use]
    pub fn delivered_to(self, address: &Address) -> Self {
        self.unfolded("Delivered-To", &address.to_string())
    }

    /// Adds Received and gives the finished octets.
    #[must_use]
    pub fn received(self, received: &Received<'_>) -> Vec<u8> {
        let mut value = format!("from {} (", token(received.client_name));
        if let Some(host) = received.client_host {
            let _ = write!(value, "{} ", token(host));
        }
        let _ = match received.client_address.to_canonical() {
            IpAddr::V4(address) => write!(value, "[{address}])"),
            IpAddr::V6(address) => write!(value, "[IPv6:{address}])"),
        };
        let _ = write!(
            value,
            " by {} with {}",
            token(received.by),
            token(received.protocol)
        );
        if let Some(tls) = received.tls {
            let words: Vec<_> = tls.split(' ').map(token).collect();
            let _ = write!(value, " ({})", words.join(" "));
        }
        let _ = write!(value, " id {}", token(received.id));
        // A space in a quoted local part would be taken for a place to fold.
        if let Some(recipient) = received
            .recipient
            .filter(|recipient| !recipient.local().contains(' '))
        {
            let _ = write!(value, " for <{recipient}>");
        }
        let _ = write!(value, "; {}", received.date);
        self.line("Received", &value).octets.into_bytes()
    }

    /// A path is one word, spaces in its quotes included; it fits a line.
    fn unfolded(mut self, name: &str, path: &str) -> Self {
        let _ = write!(self.octets, "{name}: {path}\r\n");
        self
    }

    fn line(mut self, name: &str, value: &str) -> Self {
        self.octets.push_str(name);
        self.octets.push(':');
        let mut length = name.len() + 1;
        for word in value.split(' ').filter(|word| !word.is_empty()) {
            // A folded line begins with white space and is never empty, for
            // an empty line would end the header.
            if length + 1 + word.len() > FOLD_AT && length > name.len() + 1 {
                self.octets.push_str("\r\n\t");
                length = 1;
            } else {
                self.octets.push(' ');
                length += 1;
            }
            let shown = word.chars().take(WORD_MAX).map(|letter| {
                if letter.is_ascii_graphic() {
                    letter
                } else {
                    '?'
                }
            });
            let before = self.octets.len();
            self.octets.extend(shown);
            length += self.octets.len() - before;
        }
        self.octets.push_str("\r\n");
        self
    }
}

/// One word as a peer gave it, made safe outside and inside a comment.
fn token(text: &str) -> String {
    let safe = |letter: char| match letter {
        '(' | ')' | '\\' | '"' | ';' | '<' | '>' => '?',
        letter if letter.is_ascii_graphic() => letter,
        _ => '?',
    };
    if text.is_empty() {
        "unknown".to_owned()
    } else {
        text.chars().take(TOKEN_MAX).map(safe).collect()
    }
}

/// RFC 5322 §2.1.1 wants lines within 78.
const FOLD_AT: usize = 78;
/// A word that cannot be folded still leaves the line within 998 octets.
const WORD_MAX: usize = 900;
/// RFC 5321 §4.5.3.1.2: no name is longer.
const TOKEN_MAX: usize = 255;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn received<'a>(client_name: &'a str, recipient: Option<&'a Address>) -> Received<'a> {
        Received {
            client_name,
            client_address: "192.0.2.7".parse().unwrap(),
            client_host: None,
            by: "mx.example.test",
            protocol: "ESMTPS",
            tls: Some("TLSv1.3 TLS_AES_256_GCM_SHA384"),
            id: "0123456789abcdef",
            recipient,
            date: "Sun, 22 Nov 2026 14:20:28 +0000",
        }
    }

    fn text(prologue: Vec<u8>) -> String {
        String::from_utf8(prologue).unwrap()
    }

    #[test]
    fn received_is_the_last_line() {
        let joe: Address = "joe@example.test".parse().unwrap();
        let prologue = Prologue::new()
            .return_path(&ReversePath::Null)
            .field("Authentication-Results", "mx.example.test; spf=pass")
            .delivered_to(&joe)
            .received(&received("client.test", Some(&joe)));
        assert_eq!(
            text(prologue),
            "Return-Path: <>\r\n\
             Authentication-Results: mx.example.test; spf=pass\r\n\
             Delivered-To: joe@example.test\r\n\
             Received: from client.test ([192.0.2.7]) by mx.example.test with ESMTPS\r\n\
             \t(TLSv1.3 TLS_AES_256_GCM_SHA384) id 0123456789abcdef for <joe@example.test>;\r\n\
             \tSun, 22 Nov 2026 14:20:28 +0000\r\n"
        );
    }

    #[test]
    fn nothing_a_peer_says_begins_a_field_or_leaves_its_place() {
        let prologue = text(
            Prologue::new()
                .field("X-Filter", "a\r\nEvil: 1\r\n\r\n b\0é")
                .received(&received("x\r\nEvil: 1) (\"\0é", None)),
        );
        let lines: Vec<_> = prologue.split_terminator("\r\n").collect();
        assert!(
            lines
                .iter()
                .all(|line| line.starts_with(['\t', 'X', 'R']) && line.len() > 1),
            "{prologue}"
        );
        assert!(prologue.is_ascii() && !prologue.contains('\0'));
        assert_eq!(
            prologue.matches('\n').count(),
            prologue.matches("\r\n").count()
        );
        assert_eq!(prologue.matches('(').count(), 2, "{prologue}");
    }

    #[test]
    fn no_line_is_over_998_octets() {
        let long = "x".repeat(5000);
        let local = format!("\"{}\"@{}", "\\\"".repeat(31), ["d"; 90].join("."));
        let address: Address = local.parse().unwrap();
        let prologue = text(
            Prologue::new()
                .field("X-Filter", &long)
                .delivered_to(&address)
                .received(&received(&long, Some(&address))),
        );
        assert!(
            prologue.split("\r\n").all(|line| line.len() <= 998),
            "{prologue}"
        );
    }

    #[test]
    fn a_quoted_local_part_with_spaces_survives_folding() {
        let address: Address = "\"a  b\"@example.test".parse().unwrap();
        assert!(
            text(
                Prologue::new()
                    .delivered_to(&address)
                    .received(&received("c", None))
            )
            .contains("\"a  b\"@example.test")
        );
    }
}
