//! A client of IMAP, as plain as the RFC allows: it sets mailboxes up and tells what other programs left in them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use crate::wire::Wire;

/// One connection after its greeting.
pub struct Imap {
    wire: Wire,
    tags: u32,
}

/// One untagged response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Its text without the leading `* `; a literal is left out behind its `{size}`.
    pub text: String,
    /// Its literals in order.
    pub literals: Vec<Vec<u8>>,
    /// All of it as it came, without its last line end.
    pub octets: Vec<u8>,
}

impl Response {
    /// The items of a FETCH response by name, each value as it came.
    ///
    /// # Panics
    /// When this is no FETCH response of the message.
    #[must_use]
    pub fn items(&self, message: usize) -> Vec<(String, &[u8])> {
        let head = format!("* {message} FETCH (");
        let inner = self.octets.strip_prefix(head.as_bytes());
        let inner = inner.and_then(|octets| octets.strip_suffix(b")"));
        let mut rest = inner.unwrap_or_else(|| panic!("no {head}: {}", self.text));
        let mut items = Vec::new();
        while !rest.is_empty() {
            let name = String::from_utf8(one(&mut rest).to_vec()).unwrap();
            items.push((name, one(&mut rest)));
        }
        items
    }
}

/// One message as a client reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its UID.
    pub uid: u32,
    /// Its flags, `\Recent` aside.
    pub flags: BTreeSet<String>,
    /// All its octets.
    pub octets: Vec<u8>,
}

impl Imap {
    /// Connects and reads the greeting.
    ///
    /// # Panics
    /// When the server does not greet.
    #[must_use]
    pub fn connect(address: SocketAddr) -> Self {
        Self::greeted(Wire::connect(address))
    }

    /// Connects with TLS from the first octet.
    ///
    /// # Panics
    /// When the server does not greet.
    #[must_use]
    pub fn connect_tls(address: SocketAddr, ca: &Path) -> Self {
        Self::greeted(Wire::connect(address).start_tls(ca))
    }

    fn greeted(wire: Wire) -> Self {
        let mut imap = Self { wire, tags: 0 };
        let greeting = imap.response();
        assert!(greeting.text.starts_with("* OK "), "{}", greeting.text);
        imap
    }

    /// Logs in.
    ///
    /// # Panics
    /// When the server refuses.
    #[must_use]
    pub fn login(mut self, user: &str, password: &str) -> Self {
        self.command(&format!("LOGIN \"{user}\" \"{password}\""));
        self
    }

    /// Sends a command that must succeed; gives the untagged responses.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn command(&mut self, command: &str) -> Vec<Response> {
        let tag = self.send(command.as_bytes());
        self.completed(&tag, command)
    }

    /// Appends one message, in a literal that does not wait (RFC 7888).
    ///
    /// # Panics
    /// When the server refuses.
    pub fn append(&mut self, mailbox: &str, flags: &str, octets: &[u8]) {
        self.append_all(mailbox, flags, [octets]);
    }

    /// Appends messages, as many at a time as one command may have (RFC 3502).
    ///
    /// # Panics
    /// When the server refuses.
    pub fn append_all<'a>(
        &mut self,
        mailbox: &str,
        flags: &str,
        messages: impl IntoIterator<Item = &'a [u8]>,
    ) {
        let mut messages = messages.into_iter().peekable();
        while messages.peek().is_some() {
            let mut command = format!("APPEND \"{mailbox}\"").into_bytes();
            for octets in messages.by_ref().take(TOGETHER) {
                let head = format!(" ({flags}) {{{}+}}\r\n", octets.len());
                command.extend_from_slice(head.as_bytes());
                command.extend_from_slice(octets);
            }
            let tag = self.send(&command);
            self.completed(&tag, "APPEND");
        }
    }

    /// UIDNEXT, HIGHESTMODSEQ and how many messages there are: whatever changes a mailbox changes this.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn position(&mut self, mailbox: &str) -> String {
        let status = format!("STATUS \"{mailbox}\" (UIDNEXT HIGHESTMODSEQ MESSAGES)");
        self.command(&status).remove(0).text
    }

    /// The names of all mailboxes, as they are listed.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn mailboxes(&mut self) -> BTreeSet<String> {
        let listed = self.command("LIST \"\" \"*\"");
        let name = |response: Response| {
            let (_, name) = response.text.split_once(") \"/\" ")?;
            Some(match response.literals.into_iter().next() {
                Some(literal) => String::from_utf8(literal).unwrap(),
                None => name.trim_matches('"').to_owned(),
            })
        };
        listed.into_iter().filter_map(name).collect()
    }

    /// All messages of a mailbox, without a trace of the reading.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn messages(&mut self, mailbox: &str) -> Vec<Message> {
        self.command(&format!("EXAMINE \"{mailbox}\""));
        let answers = self.command("UID FETCH 1:* (UID FLAGS BODY.PEEK[])");
        answers.into_iter().filter_map(message).collect()
    }

    /// Goes into IDLE.
    ///
    /// # Panics
    /// When the server does not go along.
    pub fn idle(&mut self) {
        self.send(b"IDLE");
        let answer = self.response();
        assert!(answer.text.starts_with("+ "), "{}", answer.text);
    }

    fn send(&mut self, command: &[u8]) -> String {
        self.tags += 1;
        let tag = format!("T{}", self.tags);
        self.wire
            .write(&[tag.as_bytes(), b" ", command, b"\r\n"].concat());
        tag
    }

    fn completed(&mut self, tag: &str, command: &str) -> Vec<Response> {
        let mut untagged = Vec::new();
        loop {
            let mut response = self.response();
            if let Some(text) = response.text.strip_prefix("* ") {
                response.text = text.to_owned();
                untagged.push(response);
            } else {
                let told = response.text.strip_prefix(tag).map(str::trim_start);
                assert!(
                    told.is_some_and(|told| told.starts_with("OK")),
                    "{command}: {}",
                    response.text
                );
                return untagged;
            }
        }
    }

    /// A line and the literals it announces. A closed connection is an empty text.
    ///
    /// # Panics
    /// When nothing comes.
    pub fn response(&mut self) -> Response {
        let mut response = Response {
            text: String::new(),
            literals: Vec::new(),
            octets: Vec::new(),
        };
        loop {
            let line = self.wire.line();
            response.octets.extend_from_slice(&line);
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\r', '\n']);
            response.text.push_str(line);
            let announced = line
                .strip_suffix('}')
                .and_then(|line| line.rsplit_once('{'))
                .and_then(|(_, size)| size.parse().ok());
            match announced {
                Some(size) => {
                    let literal = self.wire.octets(size);
                    response.octets.extend_from_slice(&literal);
                    response.literals.push(literal);
                }
                None => {
                    let length = response.octets.len().saturating_sub(b"\r\n".len());
                    response.octets.truncate(length);
                    return response;
                }
            }
        }
    }
}

/// Few enough for any server's limits, many enough that syncs do not dominate.
const TOGETHER: usize = 100;

fn message(mut response: Response) -> Option<Message> {
    let (number, items) = response.text.split_once(" FETCH ")?;
    number.parse::<u32>().ok()?;
    let uid = behind(items, "UID ")?.split([' ', ')']).next()?;
    let flags = behind(items, "FLAGS (")?.split(')').next()?;
    let flags = flags.split(' ').filter(|flag| !flag.is_empty());
    Some(Message {
        uid: uid.parse().ok()?,
        flags: flags
            .filter(|flag| *flag != "\\Recent")
            .map(str::to_owned)
            .collect(),
        octets: response.literals.pop()?,
    })
}

/// Takes what stands before the next space outside of strings and brackets, and that space.
fn one<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let octets = *rest;
    let (mut at, mut depth) = (0, 0);
    while let Some(octet) = octets.get(at) {
        match octet {
            b' ' if depth == 0 => break,
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'"' => {
                at += 1;
                while octets[at] != b'"' {
                    at += usize::from(octets[at] == b'\\') + 1;
                }
            }
            b'{' => {
                let digits = octets[at + 1..].iter().take_while(|o| o.is_ascii_digit());
                let end = at + 1 + digits.count();
                let size = std::str::from_utf8(&octets[at + 1..end]).unwrap();
                at = end + b"}\r\n".len() + size.parse::<usize>().unwrap() - 1;
            }
            _ => {}
        }
        at += 1;
    }
    *rest = octets.get(at + 1..).unwrap_or_default();
    &octets[..at]
}

/// What a string holds, `None` for NIL.
///
/// # Panics
/// When it is neither.
#[must_use]
pub fn string(value: &[u8]) -> Option<Vec<u8>> {
    let literal = value.strip_prefix(b"~").unwrap_or(value);
    match literal {
        b"NIL" => None,
        [b'{', ..] => {
            let end = literal.iter().position(|octet| *octet == b'\n').unwrap();
            Some(literal[end + 1..].to_vec())
        }
        [b'"', inner @ .., b'"'] => {
            let mut text = Vec::new();
            let mut octets = inner.iter();
            while let Some(octet) = octets.next() {
                text.push(match octet {
                    b'\\' => *octets.next().unwrap(),
                    octet => *octet,
                });
            }
            Some(text)
        }
        other => panic!("no string: {}", other.escape_ascii()),
    }
}

fn behind<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    text.split_once(word).map(|(_, rest)| rest)
}
