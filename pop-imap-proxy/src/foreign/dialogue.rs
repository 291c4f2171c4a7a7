//! The master login at a foreign back-end, as a pure core: octets in, steps out.
//!
//! ```text
//!                  ┌─────── STARTTLS, STLS ──────┐      ┌── ID, XCLIENT ──┐
//! AwaitGreeting ───┤  AwaitTls ─▶ AwaitHandshake ├──────┤ AwaitIntroduced ├─▶ AwaitChallenge ─▶ AwaitVerdict ─┬────────────────────▶ In
//!                  └─────────────────────────────┘      └─────────────────┘                                    └─ AwaitCapability ─┘
//! ```
//!
//! The other side is not ours: it is taken at its word only where the figure expects one, and whatever else it says, says
//! too long, or says before its TLS began, ends the attempt.

use std::net::SocketAddr;

use data_encoding::BASE64;
use directory_api::Service;
use mail_proto::login::Refusal;

use super::Fault;

/// What is said there.
pub(super) struct Plan<'a> {
    pub(super) service: Service,
    pub(super) starttls: bool,
    /// Who the user's program is and how the session is called in our logs; told before the login.
    pub(super) client: Option<(SocketAddr, &'a str)>,
    pub(super) authorization: &'a str,
    pub(super) authentication: &'a str,
    pub(super) password: &'a str,
}

/// What the shell does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    NeedInput,
    Send(Vec<u8>),
    /// Do the handshake, then say `tls_started`.
    StartTls,
    /// The user is in.
    In(Welcome),
}

/// How it let the user in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Welcome {
    /// What it told of its capabilities with its yes; IMAP.
    pub(crate) capabilities: Option<String>,
    /// What it said behind its yes, though nothing was asked.
    pub(crate) more: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    AwaitGreeting,
    AwaitTls,
    AwaitHandshake,
    AwaitIntroduced,
    AwaitChallenge,
    AwaitVerdict,
    AwaitCapability,
    In,
}

pub(super) struct Dialogue<'a> {
    plan: Plan<'a>,
    state: State,
    input: Vec<u8>,
    octets_count: usize,
    command_count: u32,
    to_send: Option<Vec<u8>>,
    capabilities: Option<String>,
}

/// One line of the other side.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Ok(String),
    No(String),
    /// IMAP: it ends the connection.
    Bye(String),
    Continue,
    /// IMAP: what is no answer to a command.
    Untagged(String),
}

impl<'a> Dialogue<'a> {
    pub(super) fn new(plan: Plan<'a>) -> Self {
        Self {
            plan,
            state: State::AwaitGreeting,
            input: Vec::new(),
            octets_count: 0,
            command_count: 0,
            to_send: None,
            capabilities: None,
        }
    }

    /// Takes what came.
    pub(super) fn receive(&mut self, octets: &[u8]) {
        self.octets_count += octets.len();
        self.input.extend_from_slice(octets);
    }

    /// The handshake is done.
    pub(super) fn tls_started(&mut self) {
        debug_assert_eq!(self.state, State::AwaitHandshake);
        self.introduce();
    }

    pub(super) fn next(&mut self) -> Result<Step, Fault> {
        loop {
            if let Some(octets) = self.to_send.take() {
                return Ok(Step::Send(octets));
            }
            match self.state {
                // What came before the handshake is anybody's (CVE-2011-0411).
                State::AwaitHandshake if !self.input.is_empty() => {
                    return Err(Fault::Nonsense("more, before TLS began".to_owned()));
                }
                State::AwaitHandshake => return Ok(Step::StartTls),
                State::In => {
                    return Ok(Step::In(Welcome {
                        capabilities: self.capabilities.take(),
                        more: std::mem::take(&mut self.input),
                    }));
                }
                _ => {}
            }
            if self.octets_count > OCTETS_MAX {
                return Err(Fault::TooLong);
            }
            let Some(end) = self.input.iter().position(|octet| *octet == b'\n') else {
                return match self.input.len() > LINE_MAX_OCTETS {
                    true => Err(Fault::TooLong),
                    false => Ok(Step::NeedInput),
                };
            };
            if end > LINE_MAX_OCTETS {
                return Err(Fault::TooLong);
            }
            let line: Vec<u8> = self.input.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            self.hear(line.trim_end_matches(['\r', '\n']))?;
        }
    }

    fn hear(&mut self, line: &str) -> Result<(), Fault> {
        let state = self.state;
        let nonsense = || Fault::Nonsense(shown(state, line));
        let said = match self.plan.service {
            Service::Imap => self.said_in_imap(line),
            Service::Pop3 => said_in_pop3(line),
        };
        match (state, said.ok_or_else(nonsense)?) {
            (State::AwaitGreeting, Said::Ok(_)) => match self.plan.starttls {
                true => self.say("STARTTLS", "STLS", State::AwaitTls),
                false => self.introduce(),
            },
            (State::AwaitTls, Said::Ok(_)) => self.state = State::AwaitHandshake,
            // Who does not know the command, or does not trust us, may still let the user in.
            (State::AwaitIntroduced, Said::Ok(_) | Said::No(_)) => self.authenticate(),
            (_, Said::Bye(text)) => return Err(self.refused(&text)),
            (State::AwaitChallenge, Said::Continue) => {
                let Plan {
                    authorization,
                    authentication,
                    password,
                    ..
                } = &self.plan;
                // RFC 4616 §2.
                let message = format!("{authorization}\0{authentication}\0{password}");
                let mut octets = BASE64.encode(message.as_bytes()).into_bytes();
                octets.extend_from_slice(b"\r\n");
                self.to_send = Some(octets);
                self.state = State::AwaitVerdict;
            }
            (State::AwaitVerdict, Said::Ok(text)) => {
                if let Some(told) = in_code(&text, "CAPABILITY") {
                    self.capabilities = sensible(told);
                }
                match (self.plan.service, &self.capabilities) {
                    // With a yes most servers tell; some have others for a user than before.
                    (Service::Imap, None) => {
                        self.say("CAPABILITY", "CAPA", State::AwaitCapability);
                    }
                    (Service::Imap | Service::Pop3, _) => self.state = State::In,
                }
            }
            (State::AwaitCapability, Said::Ok(_) | Said::No(_)) => self.state = State::In,
            (State::AwaitGreeting | State::AwaitTls | State::AwaitChallenge, Said::No(text))
            | (State::AwaitVerdict, Said::No(text)) => {
                return Err(self.refused(&text));
            }
            (State::AwaitVerdict | State::AwaitCapability, Said::Untagged(text)) => {
                if let Some(told) = after_word(&text, "CAPABILITY") {
                    self.capabilities = sensible(told);
                }
            }
            (
                State::AwaitTls | State::AwaitIntroduced | State::AwaitChallenge,
                Said::Untagged(_),
            ) => {}
            (_, _) => return Err(nonsense()),
        }
        Ok(())
    }

    fn refused(&self, text: &str) -> Fault {
        Fault::Refused {
            why: why(self.plan.service, text),
            text: shown(self.state, text),
        }
    }

    fn introduce(&mut self) {
        let Some((client, trace_id)) = self.plan.client else {
            return self.authenticate();
        };
        let (ip, port) = (client.ip().to_canonical(), client.port());
        let imap = format!(
            "ID (\"x-originating-ip\" \"{ip}\" \"x-originating-port\" \"{port}\" \"x-session-ext-id\" \"{trace_id}\")"
        );
        let pop3 = format!("XCLIENT ADDR={ip} PORT={port} SESSION={trace_id}");
        self.say(&imap, &pop3, State::AwaitIntroduced);
    }

    fn authenticate(&mut self) {
        self.say("AUTHENTICATE PLAIN", "AUTH PLAIN", State::AwaitChallenge);
    }

    fn say(&mut self, imap: &str, pop3: &str, then: State) {
        self.command_count += 1;
        let line = match self.plan.service {
            Service::Imap => format!("{} {imap}\r\n", self.tag()),
            Service::Pop3 => format!("{pop3}\r\n"),
        };
        self.to_send = Some(line.into_bytes());
        self.state = then;
    }

    /// The tag of the command that is to be answered.
    fn tag(&self) -> String {
        format!("p{}", self.command_count)
    }

    fn said_in_imap(&self, line: &str) -> Option<Said> {
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        if first == "+" {
            return Some(Said::Continue);
        }
        let (word, text) = rest.split_once(' ').unwrap_or((rest, ""));
        let word = word.to_ascii_uppercase();
        let is_greeting = self.state == State::AwaitGreeting;
        match (first, word.as_str()) {
            ("*", "OK") if is_greeting => Some(Said::Ok(text.to_owned())),
            // A session that is open already is not this user's.
            ("*", "PREAUTH") => None,
            ("*", "BYE") => Some(Said::Bye(text.to_owned())),
            ("*", _) => Some(Said::Untagged(rest.to_owned())),
            (tag, "OK") if tag == self.tag() => Some(Said::Ok(text.to_owned())),
            (tag, "NO" | "BAD") if tag == self.tag() => Some(Said::No(text.to_owned())),
            _ => None,
        }
    }
}

fn said_in_pop3(line: &str) -> Option<Said> {
    let (first, text) = line.split_once(' ').unwrap_or((line, ""));
    match first {
        "+OK" => Some(Said::Ok(text.to_owned())),
        "-ERR" => Some(Said::No(text.to_owned())),
        "+" => Some(Said::Continue),
        _ => None,
    }
}

/// What stands in the response code of this name, if the text begins with it.
fn in_code<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let (code, _) = text.strip_prefix('[')?.split_once(']')?;
    after_word(code, name)
}

fn after_word<'t>(text: &'t str, word: &str) -> Option<&'t str> {
    let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
    first.eq_ignore_ascii_case(word).then_some(rest)
}

/// Only what can be told to the user within an answer of ours.
fn sensible(capabilities: &str) -> Option<String> {
    let is_fit = |octet: u8| octet == b' ' || octet.is_ascii_graphic() && octet != b']';
    (!capabilities.is_empty() && capabilities.bytes().all(is_fit)).then(|| capabilities.to_owned())
}

/// What the user hears. A master login that is refused is our trouble or theirs, and never the user's password (P6).
fn why(service: Service, text: &str) -> Refusal {
    let is = |code| in_code(text, code).is_some();
    match service {
        Service::Imap if is("LIMIT") => Refusal::TooMany,
        Service::Imap | Service::Pop3 if is("INUSE") || is("IN-USE") => Refusal::InUse,
        Service::Pop3 if is("LOGIN-DELAY") => Refusal::TooMany,
        Service::Imap | Service::Pop3 => Refusal::Temporary,
    }
}

/// For the log. What is said behind the password may repeat it: of that only the response code is shown.
fn shown(state: State, text: &str) -> String {
    if !matches!(state, State::AwaitVerdict | State::AwaitCapability) {
        return text.chars().take(SHOWN_MAX).collect();
    }
    let code = text.strip_prefix('[').and_then(|text| text.split_once(']'));
    let is_known = |code: &&str| CODES_SHOWN.iter().any(|one| one.eq_ignore_ascii_case(code));
    let code = code.map(|(code, _)| code).filter(is_known).unwrap_or("?");
    format!("[{code}] in {} octets", text.len())
}

/// One line; servers tell some hundred octets of capabilities.
pub(super) const LINE_MAX_OCTETS: usize = 8192;
/// All that is said up to the login.
pub(super) const OCTETS_MAX: usize = 64 * 1024;
/// Characters of an answer that the log shows.
const SHOWN_MAX: usize = 200;
/// Response codes that a login is refused with: RFC 5530, RFC 2449, RFC 3206.
const CODES_SHOWN: &[&str] = &[
    "ALERT",
    "AUTHENTICATIONFAILED",
    "AUTHORIZATIONFAILED",
    "CONTACTADMIN",
    "EXPIRED",
    "INUSE",
    "LIMIT",
    "NOPERM",
    "PRIVACYREQUIRED",
    "SERVERBUG",
    "UNAVAILABLE",
    "AUTH",
    "IN-USE",
    "LOGIN-DELAY",
    "SYS/PERM",
    "SYS/TEMP",
];

#[cfg(test)]
mod tests;
