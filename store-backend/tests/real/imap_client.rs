//! An IMAP client that reads responses with their literals.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::site::{Backend, PATIENCE};

/// One connection.
pub(crate) struct Imap {
    stream: BufReader<TcpStream>,
    tag: u32,
}

/// The answer to a command.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Untagged responses, literals and all, without the last CRLF.
    pub(crate) untagged: Vec<Vec<u8>>,
    /// The tagged line behind its tag.
    pub(crate) tagged: String,
}

/// What a response holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Atom(String),
    Text(Vec<u8>),
    List(Vec<Value>),
}

impl Imap {
    /// After the login, with INBOX selected.
    pub(crate) async fn inbox(backend: &Backend, local: &str) -> Self {
        let mut imap = Self::login(backend, local).await;
        imap.ok("SELECT INBOX").await;
        imap
    }

    pub(crate) async fn login(backend: &Backend, local: &str) -> Self {
        let imap = Self::login_unless_cut(backend.imap, local).await;
        imap.expect("the connection lasts")
    }

    /// `None`: the connection ended before it was logged in.
    pub(crate) async fn login_unless_cut(address: SocketAddr, local: &str) -> Option<Self> {
        let stream = TcpStream::connect(address).await.ok()?;
        let mut imap = Self {
            stream: BufReader::new(stream),
            tag: 0,
        };
        imap.response().await;
        let login = format!("LOGIN {local}@example.test pass");
        let answer = imap.command_unless_cut(login.as_bytes()).await?;
        assert!(answer.tagged.starts_with("OK"), "{login}: {answer:?}");
        Some(imap)
    }

    /// A command that must succeed.
    pub(crate) async fn ok(&mut self, command: &str) -> Answer {
        let answer = self.command(command.as_bytes()).await;
        assert!(answer.tagged.starts_with("OK"), "{command}: {answer:?}");
        answer
    }

    pub(crate) async fn command(&mut self, command: &[u8]) -> Answer {
        let answer = self.command_unless_cut(command).await;
        answer.expect("the connection lasts")
    }

    /// `None`: the connection ended before the answer did.
    pub(crate) async fn command_unless_cut(&mut self, command: &[u8]) -> Option<Answer> {
        self.tag += 1;
        let tag = format!("t{} ", self.tag);
        let octets = [tag.as_bytes(), command, b"\r\n"].concat();
        self.stream.write_all(&octets).await.ok()?;
        let mut untagged = Vec::new();
        loop {
            let response = self.response().await;
            if let Some(tagged) = response.strip_prefix(tag.as_bytes()) {
                return Some(Answer {
                    untagged,
                    tagged: String::from_utf8(tagged.to_vec()).unwrap(),
                });
            }
            if response.is_empty() {
                return None;
            }
            untagged.push(response);
        }
    }

    /// A command in whose answer the connection ends.
    pub(crate) async fn command_until_cut(&mut self, command: &[u8]) {
        let octets = [b"cut ", command, b"\r\n"].concat();
        self.stream.write_all(&octets).await.unwrap();
        let mut rest = Vec::new();
        let reading = self.stream.read_to_end(&mut rest);
        // Whether or not by a reset.
        let _ = timeout(PATIENCE, reading).await.expect("in time");
        let tagged = b"\r\ncut ";
        assert!(!rest.windows(tagged.len()).any(|window| window == tagged));
    }

    pub(crate) async fn append(&mut self, message: &[u8]) {
        let head = format!("APPEND INBOX {{{}+}}\r\n", message.len());
        let answer = self.command(&[head.as_bytes(), message].concat()).await;
        assert!(answer.tagged.starts_with("OK"), "{answer:?}");
    }

    pub(crate) async fn send(&mut self, octets: &[u8]) {
        self.stream.write_all(octets).await.unwrap();
    }

    /// Whether the server says something within a time.
    pub(crate) async fn speaks_within(&mut self, time: Duration) -> bool {
        timeout(time, self.stream.fill_buf()).await.is_ok()
    }

    /// The next response, literals and all, without the last CRLF; empty at the end of the connection.
    pub(crate) async fn response(&mut self) -> Vec<u8> {
        let reading = timeout(PATIENCE, self.read_response());
        // A reset is an end too.
        reading.await.expect("in time").unwrap_or_default()
    }

    async fn read_response(&mut self) -> io::Result<Vec<u8>> {
        let mut response = Vec::new();
        loop {
            self.stream.read_until(b'\n', &mut response).await?;
            let Some(size) = literal_at_end(&response) else {
                let is_whole = response.ends_with(b"\r\n");
                response.truncate(response.len().saturating_sub(2));
                return Ok(if is_whole { response } else { Vec::new() });
            };
            let start = response.len();
            response.resize(start + size, 0);
            self.stream.read_exact(&mut response[start..]).await?;
        }
    }

    /// The only literal or string of one item.
    pub(crate) async fn item(&mut self, message: u32, item: &str) -> Option<Vec<u8>> {
        let answer = self.ok(&format!("FETCH {message} ({item})")).await;
        let values = answer.fetch(message);
        match &values[1] {
            Value::Text(octets) => Some(octets.clone()),
            Value::Atom(nil) if nil == "NIL" => None,
            other => panic!("{item}: {other:?}"),
        }
    }
}

fn literal_at_end(line: &[u8]) -> Option<usize> {
    let digits = line.strip_suffix(b"}\r\n")?;
    let start = digits.iter().rposition(|octet| *octet == b'{')? + 1;
    std::str::from_utf8(&digits[start..]).ok()?.parse().ok()
}

impl Answer {
    /// The items of the FETCH response of a message.
    pub(crate) fn fetch(&self, message: u32) -> Vec<Value> {
        let head = format!("* {message} FETCH ");
        let found = self
            .untagged
            .iter()
            .find_map(|line| line.strip_prefix(head.as_bytes()));
        let items = found.unwrap_or_else(|| panic!("no {head}in {self:?}"));
        Value::list_of(items)
    }

    /// Untagged responses as text.
    pub(crate) fn lines(&self) -> Vec<String> {
        let lines = self.untagged.iter();
        lines
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect()
    }
}

impl Value {
    /// What stands between parentheses.
    pub(crate) fn list_of(mut octets: &[u8]) -> Vec<Self> {
        match Self::read(&mut octets) {
            Self::List(items) => items,
            other => panic!("{other:?}"),
        }
    }

    fn read(rest: &mut &[u8]) -> Self {
        match rest[0] {
            b'(' => {
                *rest = &rest[1..];
                let mut items = Vec::new();
                while rest[0] != b')' {
                    if rest[0] == b' ' {
                        *rest = &rest[1..];
                    }
                    items.push(Self::read(rest));
                }
                *rest = &rest[1..];
                Self::List(items)
            }
            b'"' => {
                let mut text = Vec::new();
                let mut at = 1;
                while rest[at] != b'"' {
                    at += usize::from(rest[at] == b'\\');
                    text.push(rest[at]);
                    at += 1;
                }
                *rest = &rest[at + 1..];
                Self::Text(text)
            }
            b'{' | b'~' => {
                let end = rest.iter().position(|octet| *octet == b'\n').unwrap() + 1;
                let size = literal_at_end(&rest[..end]).unwrap();
                let text = rest[end..end + size].to_vec();
                *rest = &rest[end + size..];
                Self::Text(text)
            }
            _ => {
                let mut brackets = 0;
                let is_end = |octet: &u8| {
                    match octet {
                        b'[' => brackets += 1,
                        b']' => brackets -= 1,
                        _ => {}
                    }
                    brackets == 0 && matches!(octet, b' ' | b')')
                };
                let end = rest.iter().position(is_end).unwrap_or(rest.len());
                let (atom, after) = rest.split_at(end);
                *rest = after;
                Self::Atom(String::from_utf8(atom.to_vec()).unwrap())
            }
        }
    }

    pub(crate) fn list(&self) -> &[Self] {
        match self {
            Self::List(items) => items,
            other => panic!("no list: {other:?}"),
        }
    }

    pub(crate) fn text(&self) -> String {
        match self {
            Self::Text(text) => String::from_utf8_lossy(text).into_owned(),
            Self::Atom(atom) => atom.clone(),
            other => panic!("no text: {other:?}"),
        }
    }

    pub(crate) fn number(&self) -> usize {
        self.text().parse().unwrap()
    }
}
