//! A client of SMTP and LMTP, as plain as the RFC allows.

use std::net::SocketAddr;
use std::path::Path;

use crate::wire::Wire;

/// One connection after its greeting.
pub struct Smtp {
    wire: Wire,
}

/// One reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The three digits; 0 when the connection was closed instead.
    pub code: u16,
    /// All lines, each with its code.
    pub text: String,
}

impl Reply {
    /// Panics unless the code is this one.
    pub fn expect(&self, code: u16) -> &Self {
        assert_eq!(self.code, code, "{}", self.text);
        self
    }
}

impl Smtp {
    /// Connects, reads the greeting, says EHLO.
    ///
    /// # Panics
    /// When the server does not greet.
    #[must_use]
    pub fn connect(address: SocketAddr) -> Self {
        let mut smtp = Self::greeted(address);
        smtp.command("EHLO client.example.test").expect(250);
        smtp
    }

    /// Connects, reads the greeting, says LHLO.
    ///
    /// # Panics
    /// When the server does not greet.
    #[must_use]
    pub fn connect_lmtp(address: SocketAddr) -> Self {
        let mut lmtp = Self::greeted(address);
        lmtp.command("LHLO client.example.test").expect(250);
        lmtp
    }

    fn greeted(address: SocketAddr) -> Self {
        let mut smtp = Self {
            wire: Wire::connect(address),
        };
        smtp.reply().expect(220);
        smtp
    }

    /// Goes on in TLS.
    ///
    /// # Panics
    /// When the server refuses.
    #[must_use]
    pub fn start_tls(mut self, ca: &Path) -> Self {
        self.command("STARTTLS").expect(220);
        let mut smtp = Self {
            wire: self.wire.start_tls(ca),
        };
        smtp.command("EHLO client.example.test").expect(250);
        smtp
    }

    /// Sends one command and reads its reply.
    pub fn command(&mut self, command: &str) -> Reply {
        self.wire.write(format!("{command}\r\n").as_bytes());
        self.reply()
    }

    /// Reads one reply.
    pub fn reply(&mut self) -> Reply {
        let mut text = String::new();
        loop {
            let line = String::from_utf8(self.wire.line()).expect("replies are ASCII");
            text.push_str(&line);
            if line.as_bytes().get(3) != Some(&b'-') {
                let code = line
                    .get(..3)
                    .and_then(|code| code.parse().ok())
                    .unwrap_or(0);
                return Reply { code, text };
            }
        }
    }

    /// One transaction up to the final dot, which every recipient must be accepted for.
    ///
    /// # Panics
    /// When MAIL, RCPT or DATA is refused.
    pub fn begin(&mut self, from: &str, to: &[&str], octets: &[u8]) {
        self.command(&format!("MAIL FROM:<{from}> BODY=8BITMIME"))
            .expect(250);
        for recipient in to {
            self.command(&format!("RCPT TO:<{recipient}>")).expect(250);
        }
        self.command("DATA").expect(354);
        self.wire.write(&stuffed(octets));
    }

    /// The same, of which each command may be refused: the reply to the final dot, or the first refusal.
    pub fn try_send(&mut self, from: &str, to: &[&str], octets: &[u8]) -> Reply {
        let mut commands = vec![format!("MAIL FROM:<{from}> BODY=8BITMIME")];
        commands.extend(to.iter().map(|to| format!("RCPT TO:<{to}>")));
        commands.push("DATA".to_owned());
        for command in commands {
            let reply = self.command(&command);
            if reply.code >= 400 || reply.code == 0 {
                return reply;
            }
        }
        self.say(octets)
    }

    /// What comes behind DATA; gives the reply to the final dot.
    pub fn say(&mut self, octets: &[u8]) -> Reply {
        self.write(octets);
        self.reply()
    }

    /// What comes behind DATA, for whoever does not listen now.
    pub fn write(&mut self, octets: &[u8]) {
        self.wire.write(&stuffed(octets));
    }

    /// One whole transaction; gives the reply to the final dot.
    ///
    /// # Panics
    /// When MAIL, RCPT or DATA is refused.
    pub fn send(&mut self, from: &str, to: &[&str], octets: &[u8]) -> Reply {
        self.begin(from, to, octets);
        self.reply()
    }
}

/// Dots doubled at the beginning of lines, a last CRLF added where there is none, and the final dot.
fn stuffed(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len() + 64);
    for line in ended(octets).split_inclusive(|octet| *octet == b'\n') {
        if line.first() == Some(&b'.') {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    out.extend_from_slice(b".\r\n");
    out
}

/// The octets with the CRLF that every message sent by DATA ends with.
#[must_use]
pub fn ended(octets: &[u8]) -> Vec<u8> {
    let mut out = octets.to_vec();
    if !out.is_empty() && !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out
}
