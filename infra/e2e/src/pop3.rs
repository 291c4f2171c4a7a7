//! A client of POP3, as plain as the RFC allows.

use std::net::SocketAddr;
use std::path::Path;

use crate::wire::Wire;

/// One connection after its greeting.
pub struct Pop3 {
    wire: Wire,
}

impl Pop3 {
    /// Connects and reads the greeting.
    ///
    /// # Panics
    /// When the server does not greet.
    #[must_use]
    pub fn connect(address: SocketAddr) -> Self {
        let mut pop3 = Self {
            wire: Wire::connect(address),
        };
        pop3.ok();
        pop3
    }

    /// Connects with TLS from the first octet.
    ///
    /// # Panics
    /// When the server does not greet.
    #[must_use]
    pub fn connect_tls(address: SocketAddr, ca: &Path) -> Self {
        let mut pop3 = Self {
            wire: Wire::connect(address).start_tls(ca),
        };
        pop3.ok();
        pop3
    }

    /// The same, with a certificate (PEM) of the user's own and its key.
    ///
    /// # Panics
    /// When the server does not greet.
    #[must_use]
    pub fn connect_showing(address: SocketAddr, ca: &Path, shown: (&str, &str)) -> Self {
        let mut pop3 = Self {
            wire: Wire::connect(address).start_tls_showing(ca, Some(shown)),
        };
        pop3.ok();
        pop3
    }

    /// Goes on in TLS, with such a certificate.
    ///
    /// # Panics
    /// When the server refuses.
    #[must_use]
    pub fn start_tls_showing(mut self, ca: &Path, shown: (&str, &str)) -> Self {
        self.command("STLS");
        Self {
            wire: self.wire.start_tls_showing(ca, Some(shown)),
        }
    }

    /// Goes on in TLS.
    ///
    /// # Panics
    /// When the server refuses.
    #[must_use]
    pub fn start_tls(mut self, ca: &Path) -> Self {
        self.command("STLS");
        Self {
            wire: self.wire.start_tls(ca),
        }
    }

    /// Logs in.
    ///
    /// # Panics
    /// When the server refuses.
    #[must_use]
    pub fn login(mut self, user: &str, password: &str) -> Self {
        self.command(&format!("USER {user}"));
        self.command(&format!("PASS {password}"));
        self
    }

    /// Sends a command that must succeed; gives the text behind `+OK`.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn command(&mut self, command: &str) -> String {
        let answer = self.try_command(command);
        answer.unwrap_or_else(|refused| panic!("{command}: {refused:?}"))
    }

    /// Sends a command; the line itself when it is not `+OK`.
    ///
    /// # Errors
    /// The refusal, empty when the connection was closed.
    pub fn try_command(&mut self, command: &str) -> Result<String, String> {
        self.wire.write(format!("{command}\r\n").as_bytes());
        self.answer()
    }

    fn ok(&mut self) {
        self.answer().expect("a greeting");
    }

    /// The next line, whether asked for or not: the text behind `+OK`.
    ///
    /// # Errors
    /// The line itself when it is not `+OK`, empty when the connection was closed.
    pub fn answer(&mut self) -> Result<String, String> {
        let line = String::from_utf8_lossy(&self.wire.line())
            .trim_end()
            .to_owned();
        line.strip_prefix("+OK")
            .map(|text| text.trim_start().to_owned())
            .ok_or(line)
    }

    /// A command with an answer of many lines; dots unstuffed.
    ///
    /// # Panics
    /// When the server refuses or closes in the middle.
    pub fn lines(&mut self, command: &str) -> Vec<u8> {
        self.command(command);
        let mut out = Vec::new();
        loop {
            let line = self.wire.line();
            assert!(
                !line.is_empty(),
                "{command}: closed in the middle of the answer"
            );
            match line.strip_prefix(b".") {
                Some(b"\r\n") => return out,
                Some(stuffed) => out.extend_from_slice(stuffed),
                None => out.extend_from_slice(&line),
            }
        }
    }

    /// How many messages there are.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn count(&mut self) -> usize {
        self.command("STAT")
            .split(' ')
            .next()
            .and_then(|count| count.parse().ok())
            .expect("a count")
    }

    /// All messages in order.
    ///
    /// # Panics
    /// When the server refuses, or a message's size is not the one listed.
    pub fn messages(&mut self) -> Vec<Vec<u8>> {
        let listed = String::from_utf8(self.lines("LIST")).unwrap();
        let sizes: Vec<usize> = listed
            .lines()
            .map(|line| {
                line.split(' ')
                    .nth(1)
                    .and_then(|size| size.parse().ok())
                    .unwrap()
            })
            .collect();
        let message = |(at, size): (usize, &usize)| {
            let message = self.lines(&format!("RETR {}", at + 1));
            assert_eq!(message.len(), *size, "size of message {}", at + 1);
            message
        };
        sizes.iter().enumerate().map(message).collect()
    }
}
