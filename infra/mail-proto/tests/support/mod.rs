//! The cores as the dialogue runner and the property tests drive them.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::VecDeque;

use mail_proto::login::{Config, Mechanism, Tls};
use mail_proto::pop3::{Entry, Maildrop, Policy, RetrieveError, Transaction};
use mail_proto::smtp::{self, Mode, Reply, Server, Step};
use mail_proto::{LoginDialogue, LoginEvent, LoginStep, Refusal, imap, pop3};
use testkit::dialogue::{Core, Seen};

/// SMTP or LMTP. `@config key=value`, `@mail|rcpt|data|end CODE X.Y.Z text`
/// (the next such question is refused; also `starttls`, `auth`, `xclient`), `@tls`, `@shut`.
pub(crate) struct Smtp {
    config: smtp::Config,
    server: Option<Server>,
    refusals: VecDeque<(String, Reply)>,
    recipient_count: usize,
    body: Vec<u8>,
    /// The most octets the core said it would take at a `NeedInput`.
    pub(crate) room_max: usize,
}

impl Smtp {
    pub(crate) fn new(mode: Mode) -> Self {
        let mut config = smtp::Config::new(mode, "mx.test");
        config.starttls = true;
        Self {
            config,
            server: None,
            refusals: VecDeque::new(),
            recipient_count: 0,
            body: Vec::new(),
            room_max: 0,
        }
    }

    pub(crate) fn with_config(config: smtp::Config) -> Self {
        Self {
            config,
            ..Self::new(Mode::Smtp)
        }
    }

    fn refusal(&mut self, what: &str) -> Option<Reply> {
        let index = self.refusals.iter().position(|(name, _)| name == what)?;
        self.refusals.remove(index).map(|(_, reply)| reply)
    }

    fn answer(&mut self, what: &str) {
        let refusal = self.refusal(what);
        let server = self.server.as_mut().unwrap();
        match refusal {
            Some(reply) => server.refuse(reply),
            None => {
                server.accept();
                self.recipient_count += usize::from(what == "rcpt");
            }
        }
    }

    fn server(&mut self) -> &mut Server {
        self.server
            .get_or_insert_with(|| Server::new(self.config.clone()))
    }
}

impl Core for Smtp {
    fn receive(&mut self, octets: &[u8]) -> usize {
        self.server().receive(octets)
    }

    fn settle(&mut self, seen: &mut Seen) {
        self.server();
        while let Some(server) = &mut self.server {
            match server.next() {
                Step::NeedInput => {
                    let room = self.server().room();
                    assert!(room > 0, "NeedInput without room");
                    self.room_max = self.room_max.max(room);
                    return;
                }
                Step::AwaitAnswer => return,
                Step::Close(_) => {
                    seen.closed = true;
                    return;
                }
                Step::Send(octets) => seen.output.extend_from_slice(octets),
                Step::Mail(mail) => {
                    seen.events.push(format!(
                        "mail {} size={:?} {:?}",
                        mail.reverse_path, mail.size, mail.body
                    ));
                    self.recipient_count = 0;
                    self.answer("mail");
                }
                Step::Recipient(path) => {
                    seen.events.push(format!("rcpt {path}"));
                    self.answer("rcpt");
                }
                Step::BodyStart => {
                    let (name, protocol) = (
                        self.server().client_name().to_owned(),
                        self.server().protocol(),
                    );
                    seen.events
                        .push(format!("data from {name} with {protocol}"));
                    self.body.clear();
                    self.answer("data");
                }
                Step::BodyChunk(octets) => {
                    assert!(!octets.is_empty());
                    self.body.extend_from_slice(octets);
                }
                Step::BodyBroken(fault) => seen.events.push(format!("broken {fault:?}")),
                Step::BodyEnd { size } => {
                    assert_eq!(size, self.body.len() as u64);
                    seen.events
                        .push(format!("body {:?}", String::from_utf8_lossy(&self.body)));
                    let count = if self.config.mode == Mode::Lmtp {
                        self.recipient_count
                    } else {
                        1
                    };
                    let accepted = Reply::new(250, (2, 0, 0), "kept");
                    let replies: Vec<_> = (0..count)
                        .map(|_| self.refusal("end").unwrap_or(accepted.clone()))
                        .collect();
                    self.server().finish(&replies);
                }
                Step::Reset => seen.events.push("reset".to_owned()),
                Step::StartTlsAsked => self.answer("starttls"),
                Step::AuthAsked => self.answer("auth"),
                Step::XClient(told) => {
                    seen.events.push(format!(
                        "xclient {:?} {:?} {:?}",
                        told.address, told.port, told.name
                    ));
                    self.answer("xclient");
                }
                Step::StartTls => {
                    seen.events.push("starttls".to_owned());
                    return;
                }
            }
        }
    }

    fn direct(&mut self, words: &str) -> Result<(), String> {
        let (verb, rest) = words.split_once(' ').unwrap_or((words, ""));
        match verb {
            "config" => {
                for (key, value) in rest.split(' ').filter_map(|pair| pair.split_once('=')) {
                    let number: u64 = value.parse().map_err(|_| format!("no number: {value}"))?;
                    match key {
                        "size" => self.config.size_max_bytes = number,
                        "recipients" => {
                            self.config.recipients_max = usize::try_from(number).unwrap();
                        }
                        "text_line" => self.config.text_line_max_bytes = number,
                        "hard_errors" => {
                            self.config.errors.hard = u32::try_from(number).unwrap();
                        }
                        "junk" => self.config.errors.junk = u32::try_from(number).unwrap(),
                        "xclient" => self.config.xclient = number != 0,
                        "starttls" => self.config.starttls = number != 0,
                        _ => return Err(format!("no such setting: {key}")),
                    }
                }
            }
            "tls" => self.server().tls_started(),
            "shut" => self
                .server()
                .shut(Reply::new(421, (4, 3, 2), "shutting down")),
            "mail" | "rcpt" | "data" | "end" | "starttls" | "auth" | "xclient" => {
                let words: Vec<_> = rest.splitn(3, ' ').collect();
                let [code, enhanced, text] = words[..] else {
                    return Err("CODE X.Y.Z text".to_owned());
                };
                let digits: Vec<u8> = enhanced
                    .split('.')
                    .map(|digit| digit.parse().unwrap())
                    .collect();
                let reply = Reply::with_text(
                    code.parse().unwrap(),
                    (digits[0], digits[1], digits[2]),
                    text,
                );
                self.refusals.push_back((verb.to_owned(), reply));
            }
            _ => return Err(format!("no such direction: {words}")),
        }
        Ok(())
    }
}

/// POP3 or IMAP up to the login; POP3 goes on behind it with a small maildrop.
/// The password is `secret`. `@config tls=offered|active|absent plaintext=1
/// errors=N delay=S expire=DAYS`, `@refuse temporary|...` (the next login), `@tls`,
/// `@shut`, `@fail` (the next message or commit), `@age MS MS MS` of the messages at
/// QUIT, `@seen NUMBER` (has been read in IMAP).
pub(crate) struct Login {
    is_imap: bool,
    config: Config,
    login: Option<Box<dyn LoginDialogue>>,
    transaction: Option<Transaction>,
    refusal: Option<Refusal>,
    /// What is answered to messages of a mechanism, in turn; behind the end it is a yes.
    challenges: VecDeque<String>,
    fails: bool,
    ages_ms: [i64; 3],
    seen: [bool; 3],
    done: bool,
    /// Octets copied behind an IMAP login.
    relayed: Vec<u8>,
}

/// When QUIT is done.
const QUIT_MS: i64 = 1_700_000_000_000;
const MESSAGES: [&[u8]; 3] = [
    b"A: 1\r\n\r\none\r\n.two\r\nthree\r\n",
    b"B: 2\r\n\r\n",
    b"no end",
];

impl Login {
    pub(crate) fn new(is_imap: bool) -> Self {
        Self {
            is_imap,
            config: Config::new("mail.test", Tls::Active),
            login: None,
            transaction: None,
            refusal: None,
            challenges: VecDeque::new(),
            fails: false,
            ages_ms: [0; 3],
            seen: [false; 3],
            done: false,
            relayed: Vec::new(),
        }
    }

    fn policy(&mut self) -> &mut Policy {
        self.config.pop3_policy.get_or_insert_default()
    }

    fn login(&mut self) -> &mut Box<dyn LoginDialogue> {
        let (is_imap, config) = (self.is_imap, &self.config);
        self.login.get_or_insert_with(|| match is_imap {
            true => Box::new(imap::Login::new(config.clone())),
            false => Box::new(pop3::Login::new(config.clone())),
        })
    }

    fn settle_login(&mut self, seen: &mut Seen) {
        loop {
            let event = match self.login().next() {
                LoginStep::NeedInput | LoginStep::AwaitAnswer => return,
                LoginStep::Close(_) => {
                    seen.closed = true;
                    return;
                }
                LoginStep::Send(octets) => {
                    seen.output.extend_from_slice(octets);
                    continue;
                }
                LoginStep::Ask(event) => event,
            };
            match event {
                LoginEvent::StartTls => {
                    seen.events.push("starttls".to_owned());
                    return;
                }
                LoginEvent::Login(credentials) => {
                    let tag = credentials
                        .tag
                        .map(|tag| format!(" tag {tag}"))
                        .unwrap_or_default();
                    seen.events.push(format!(
                        "login {} by {}{tag}",
                        credentials.user,
                        credentials.mechanism.name()
                    ));
                    let is_right = credentials.password.as_bytes() == b"secret";
                    let refusal = self
                        .refusal
                        .take()
                        .or((!is_right).then_some(Refusal::BadCredentials));
                    match refusal {
                        Some(why) => self.login().refuse(why),
                        None => return self.log_in(seen),
                    }
                }
                LoginEvent::SaslOver => seen.events.push("sasl is over".to_owned()),
                LoginEvent::Sasl(message) => {
                    seen.events.push(format!(
                        "{} {} {}{}",
                        message.mechanism.name(),
                        if message.is_first {
                            "begins"
                        } else {
                            "goes on"
                        },
                        message.message.as_bytes().escape_ascii(),
                        message
                            .tag
                            .map_or(String::new(), |tag| format!(" tag {tag}"))
                    ));
                    match (self.refusal.take(), self.challenges.pop_front()) {
                        (Some(why), _) => self.login().refuse(why),
                        (None, Some(text)) => self.login().challenge(text.as_bytes()),
                        (None, None) => return self.log_in(seen),
                    }
                }
            }
        }
    }

    fn log_in(&mut self, seen: &mut Seen) {
        let leftover = self.login().take_leftover();
        self.done = true;
        if self.is_imap {
            seen.output.extend_from_slice(b"<relay>\r\n");
            self.relayed = leftover;
            return;
        }
        let entry = |(index, message): (usize, &&[u8])| {
            let (uid, saved_ms) = (index as u32 * 2 + 1, QUIT_MS - self.ages_ms[index]);
            Entry::new(uid, message.len() as u64, saved_ms, self.seen[index])
        };
        let maildrop = Maildrop::new(0xabc, MESSAGES.iter().enumerate().map(entry).collect());
        let policy = self.config.pop3_policy.unwrap_or_default();
        self.transaction = Some(Transaction::new(maildrop, policy, &leftover));
    }

    fn settle_transaction(&mut self, seen: &mut Seen) {
        let Some(transaction) = &mut self.transaction else {
            return;
        };
        loop {
            match transaction.next() {
                pop3::Step::NeedInput | pop3::Step::AwaitAnswer => return,
                pop3::Step::Close(_) => {
                    seen.closed = true;
                    return;
                }
                pop3::Step::Send(octets) => seen.output.extend_from_slice(octets),
                pop3::Step::SendMessage(_) if std::mem::take(&mut self.fails) => {
                    transaction.message_failed(RetrieveError::Temporary);
                }
                pop3::Step::SendMessage(retrieve) => {
                    let mut encoder = transaction.message_found();
                    for part in MESSAGES[retrieve.index].chunks(5) {
                        if encoder.encode(part, &mut seen.output) {
                            break;
                        }
                    }
                    encoder.finish(&mut seen.output);
                    transaction.message_sent();
                }
                pop3::Step::Commit => {
                    let update = transaction.update(QUIT_MS);
                    let mut event = format!("commit {:?}", update.deleted);
                    for (what, uids) in [("seen", &update.seen), ("expired", &update.expired)] {
                        if !uids.is_empty() {
                            event += &format!(" {what} {uids:?}");
                        }
                    }
                    seen.events.push(event);
                    transaction.committed(!std::mem::take(&mut self.fails));
                }
            }
        }
    }
}

impl Core for Login {
    fn receive(&mut self, octets: &[u8]) -> usize {
        match &mut self.transaction {
            Some(transaction) => transaction.receive(octets),
            None if self.done => {
                self.relayed.extend_from_slice(octets);
                octets.len()
            }
            None => self.login().receive(octets),
        }
    }

    fn settle(&mut self, seen: &mut Seen) {
        if !self.done {
            self.settle_login(seen);
        }
        seen.output.append(&mut self.relayed);
        self.settle_transaction(seen);
    }

    fn direct(&mut self, words: &str) -> Result<(), String> {
        let (verb, rest) = words.split_once(' ').unwrap_or((words, ""));
        match (verb, rest) {
            ("config", _) => {
                for (key, value) in rest.split(' ').filter_map(|pair| pair.split_once('=')) {
                    match (key, value) {
                        ("tls", "offered") => self.config.tls = Tls::Offered,
                        ("tls", "absent") => self.config.tls = Tls::Absent,
                        ("plaintext", _) => self.config.plaintext_login = value == "1",
                        ("binding", _) => self.config.has_binding = value == "1",
                        ("mechanisms", "scram") => {
                            self.config.mechanisms =
                                vec![Mechanism::ScramSha256Plus, Mechanism::ScramSha256];
                        }
                        ("errors", _) => self.config.errors_max = value.parse().unwrap(),
                        ("delay", _) => {
                            self.policy().login_delay_s = Some(value.parse().unwrap());
                        }
                        ("expire", _) => {
                            self.policy().expiry = Some(value.parse().unwrap()).into();
                        }
                        _ => return Err(format!("no such setting: {key}={value}")),
                    }
                }
            }
            ("refuse", "temporary") => self.refusal = Some(Refusal::Temporary),
            ("refuse", "notallowed") => self.refusal = Some(Refusal::NotAllowed),
            ("refuse", "inuse") => self.refusal = Some(Refusal::InUse),
            ("refuse", "malformed") => self.refusal = Some(Refusal::Malformed),
            ("refuse", "notoffered") => self.refusal = Some(Refusal::NotOffered),
            ("refuse", "binding") => self.refusal = Some(Refusal::ChannelBinding),
            ("challenge", text) => self.challenges.push_back(text.to_owned()),
            ("tls", "") => self.login().tls_started(false),
            ("tls", "bound") => self.login().tls_started(true),
            ("fail", "") => self.fails = true,
            ("age", _) => {
                let mut ages = rest.split(' ').map(|age| age.parse().unwrap());
                self.ages_ms = std::array::from_fn(|_| ages.next().unwrap());
            }
            ("seen", _) => self.seen[rest.parse::<usize>().unwrap() - 1] = true,
            ("shut", "") => match &mut self.transaction {
                Some(transaction) => transaction.shut(mail_proto::login::Shut::GoingDown),
                None => self.login().shut(mail_proto::login::Shut::TimedOut),
            },
            _ => return Err(format!("no such direction: {words}")),
        }
        Ok(())
    }
}
