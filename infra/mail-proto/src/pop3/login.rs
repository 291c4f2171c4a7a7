//! AUTHORIZATION: POP3 up to the login. RFC 1939 §4, RFC 5034.

use std::borrow::Cow;

use data_encoding::BASE64;

use super::{LINE_MAX, Policy, shut_line};
use crate::input::{Frame, Input};
use crate::login::{
    CloseReason, Config, Credentials, LoginDialogue, LoginEvent, LoginStep, Mechanism, Refusal,
    SaslMessage, Shut, Tls,
};
use crate::output::Output;
use crate::password::{Password, wipe};
use crate::sasl::{Exchange, Progress, RESPONSE_MAX, SaslError, checked};

/// The dialogue before the login; see [`LoginDialogue`].
pub struct Login {
    config: Config,
    state: State,
    input: Input,
    out: Output,
    error_count: u32,
    /// The shell is to hear that a mechanism is over.
    sasl_is_over: bool,
}

enum State {
    AwaitCommand,
    /// USER was given.
    AwaitPass {
        user: Vec<u8>,
    },
    AwaitResponse(Exchange),
    /// What the client showed goes to the shell once `out` was written: after
    /// a yes the back-end speaks, and what is still here would be lost.
    Shown {
        event: Option<LoginEvent>,
        /// The mechanism that may go on.
        goes_on: Option<Mechanism>,
    },
    AwaitTls {
        asked: bool,
    },
    /// `take_leftover` was called.
    Done,
    Closing(CloseReason),
}

impl Login {
    /// A dialogue that greets first.
    pub fn new(config: Config) -> Self {
        let mut out = Output::default();
        out.line(&format!("+OK {} POP3 Posthouse", config.hostname));
        Self {
            config,
            state: State::AwaitCommand,
            input: Input::default(),
            out,
            error_count: 0,
            sasl_is_over: false,
        }
    }

    fn line_max(&self) -> usize {
        match self.state {
            State::AwaitResponse(_) => RESPONSE_MAX,
            _ => LINE_MAX,
        }
    }

    fn on_line(&mut self, line: &[u8]) {
        match std::mem::replace(&mut self.state, State::AwaitCommand) {
            State::AwaitResponse(exchange) => {
                let is_passed_on = exchange.is_passed_on();
                let progress = exchange.respond(line);
                self.sasl_is_over = is_passed_on && progress.is_err();
                self.on_progress(progress);
            }
            State::AwaitPass { user } => self.on_command(line, Some(user)),
            _ => self.on_command(line, None),
        }
    }

    fn on_command(&mut self, line: &[u8], user: Option<Vec<u8>>) {
        let word_end = line
            .iter()
            .position(|octet| *octet == b' ')
            .unwrap_or(line.len());
        let word = &line[..word_end];
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        // Only a password is anything with nothing but spaces in it.
        let arguments = line
            .get(word_end + 1..)
            .filter(|arguments| is("PASS") || arguments.iter().any(|octet| *octet != b' '));
        match (arguments, user) {
            (Some(user), _) if is("USER") => self.on_user(user),
            // The password is everything behind the first space, spaces
            // included. RFC 1939 §7.
            (Some(password), Some(user)) if is("PASS") => match checked(&user, password) {
                Ok((user, password)) => self.ask(user, password, Mechanism::UserPass),
                Err(_) => self.error(MALFORMED),
            },
            (_, None) if is("PASS") => self.error("-ERR USER first"),
            (Some(arguments), _) if is("AUTH") => self.on_auth(arguments),
            (None, _) if is("AUTH") => {
                self.out.line("+OK");
                for (_, mechanism) in self.config.offered() {
                    self.out.line(mechanism);
                }
                self.out.line(".");
            }
            (None, _) if is("CAPA") => {
                let policy = self.config.pop3_policy;
                write_capabilities(&mut self.out, Some(&self.config), policy);
            }
            (None, _) if is("STLS") => self.on_stls(),
            // RFC 6856 §2. There is nothing to switch: messages go out octet for octet as they are kept, in either mode.
            // Downgrading one would change octets that LIST has counted and other clients have.
            (None, _) if is("UTF8") => self.out.line("+OK UTF8 enabled"),
            (None, _) if is("QUIT") => {
                self.out.line("+OK bye");
                self.state = State::Closing(CloseReason::Quit);
            }
            _ if KNOWN.iter().any(|name| is(name)) => self.error("-ERR bad arguments"),
            _ => self.error("-ERR unknown command, or log in first"),
        }
    }

    fn on_user(&mut self, user: &[u8]) {
        if !self.config.allows_login() {
            return self.error(&refusal_line(Refusal::PlaintextForbidden));
        }
        self.state = State::AwaitPass {
            user: user.to_vec(),
        };
        // The same for every name: whether it exists is not told.
        self.out.line("+OK");
    }

    fn on_auth(&mut self, arguments: &[u8]) {
        if !self.config.allows_login() {
            return self.error(&refusal_line(Refusal::PlaintextForbidden));
        }
        let mut words = arguments.split(|octet| *octet == b' ');
        let mechanism = words
            .next()
            .and_then(|word| std::str::from_utf8(word).ok())
            .unwrap_or_default();
        let (initial, rest) = (words.next(), words.next());
        let Some(exchange) = Exchange::start(mechanism, &self.config) else {
            return self.error(NOT_OFFERED);
        };
        match (initial, rest) {
            (_, Some(_)) => self.error("-ERR bad arguments"),
            (Some(initial), None) => self.on_progress(exchange.respond_initially(initial)),
            (None, None) => self.on_progress(Ok(Progress::Continue(exchange))),
        }
    }

    fn on_progress(&mut self, progress: Result<Progress, SaslError>) {
        match progress {
            Ok(Progress::Continue(exchange)) => {
                self.out.line(&format!("+ {}", exchange.challenge()));
                self.state = State::AwaitResponse(exchange);
            }
            Ok(Progress::Done {
                user,
                password,
                mechanism,
            }) => self.ask(user, password, mechanism),
            Ok(Progress::Message {
                mechanism,
                is_first,
                message,
            }) => {
                self.state = State::Shown {
                    event: Some(LoginEvent::Sasl(SaslMessage {
                        mechanism,
                        is_first,
                        message,
                        tag: None,
                    })),
                    goes_on: Some(mechanism),
                };
            }
            Err(SaslError::Cancelled) => self.error("-ERR cancelled"),
            Err(SaslError::ActingAs) => self.error(&refusal_line(Refusal::BadCredentials)),
            Err(SaslError::Encoding | SaslError::Syntax | SaslError::TooLong) => {
                self.error(MALFORMED);
            }
        }
    }

    fn on_stls(&mut self) {
        match self.config.tls {
            Tls::Active => self.error("-ERR TLS is active already"),
            Tls::Absent => self.error("-ERR TLS is not available"),
            Tls::Offered => {
                self.out.line("+OK begin TLS");
                self.state = State::AwaitTls { asked: false };
            }
        }
    }

    fn ask(&mut self, user: String, password: Password, mechanism: Mechanism) {
        self.state = State::Shown {
            event: Some(LoginEvent::Login(Credentials {
                user,
                password,
                mechanism,
                tag: None,
            })),
            goes_on: None,
        };
    }

    fn error(&mut self, line: &str) {
        self.out.line(line);
        self.error_count += 1;
        if self.error_count >= self.config.errors_max {
            self.out.line("-ERR too many errors");
            self.state = State::Closing(CloseReason::TooManyErrors);
        }
    }
}

impl LoginDialogue for Login {
    fn room(&self) -> usize {
        match self.state {
            State::AwaitTls { .. } | State::Closing(_) => usize::MAX,
            _ => (self.line_max() + 2).saturating_sub(self.input.len()),
        }
    }

    fn receive(&mut self, octets: &[u8]) -> usize {
        match self.state {
            State::AwaitTls { .. } | State::Closing(_) => octets.len(),
            _ => self.input.receive(octets, self.line_max() + 2),
        }
    }

    fn next(&mut self) -> LoginStep<'_> {
        self.out.begin_step();
        loop {
            if std::mem::take(&mut self.sasl_is_over) {
                return LoginStep::Ask(LoginEvent::SaslOver);
            }
            match &mut self.state {
                State::Shown { event: None, .. }
                | State::Done
                | State::AwaitTls { asked: true } => {
                    return LoginStep::AwaitAnswer;
                }
                _ if self.out.is_full() => return LoginStep::Send(self.out.give()),
                State::AwaitCommand | State::AwaitPass { .. } | State::AwaitResponse(_) => {
                    match self.input.next_line(self.line_max()) {
                        Frame::Partial if self.out.is_empty() => {
                            self.input.release_when_idle();
                            return LoginStep::NeedInput;
                        }
                        Frame::Partial => return LoginStep::Send(self.out.give()),
                        Frame::Fault(_) => {
                            let state = std::mem::replace(&mut self.state, State::AwaitCommand);
                            if let State::AwaitResponse(exchange) = state {
                                self.sasl_is_over = exchange.is_passed_on();
                            }
                            self.error("-ERR line too long, or not ended by CRLF");
                        }
                        Frame::Line(range) => {
                            let mut line = self.input.slice(range.clone()).to_vec();
                            self.input.wipe(range);
                            self.on_line(&line);
                            wipe(&mut line);
                        }
                    }
                }
                _ if !self.out.is_empty() => return LoginStep::Send(self.out.give()),
                State::Shown { event, .. } => {
                    if let Some(event) = event.take() {
                        return LoginStep::Ask(event);
                    }
                }
                State::AwaitTls { asked } => {
                    *asked = true;
                    return LoginStep::Ask(LoginEvent::StartTls);
                }
                State::Closing(reason) => return LoginStep::Close(*reason),
            }
        }
    }

    fn refuse(&mut self, why: Refusal) {
        assert!(
            matches!(self.state, State::Shown { event: None, .. }),
            "an answer to no question"
        );
        self.state = State::AwaitCommand;
        self.error(&refusal_line(why));
    }

    fn challenge(&mut self, message: &[u8]) {
        let State::Shown {
            event: None,
            goes_on: Some(mechanism),
        } = self.state
        else {
            panic!("a challenge to no message")
        };
        self.out.line(&format!("+ {}", BASE64.encode(message)));
        self.state = State::AwaitResponse(Exchange::AwaitMessage {
            mechanism,
            is_first: false,
        });
    }

    fn tls_started(&mut self, has_binding: bool) {
        // Whatever was pipelined behind the command was injected.
        self.input.clear();
        self.config.tls = Tls::Active;
        self.config.has_binding = has_binding;
        self.state = State::AwaitCommand;
    }

    fn certificate_shown(&mut self) {
        self.config.has_certificate = true;
    }

    fn take_leftover(&mut self) -> Vec<u8> {
        self.state = State::Done;
        self.input.take_all()
    }

    fn client_id(&self) -> Option<&str> {
        None
    }

    fn shut(&mut self, why: Shut) {
        self.out.begin_step();
        if !matches!(self.state, State::Closing(_)) {
            self.out.line(shut_line(why));
            self.state = State::Closing(CloseReason::Shut);
        }
    }
}

/// The answer to CAPA: before the login with its configuration, after it
/// without. RFC 2449 §5. Rules that are not known are not told: a guess would
/// have clients remove too little or too much.
pub(super) fn write_capabilities(
    out: &mut Output,
    before_login: Option<&Config>,
    policy: Option<Policy>,
) {
    out.line("+OK");
    for capability in [
        "TOP",
        "UIDL",
        "RESP-CODES",
        "AUTH-RESP-CODE",
        "PIPELINING",
        "UTF8",
    ] {
        out.line(capability);
    }
    if let Some(policy) = policy {
        out.line(&format!("EXPIRE {}", policy.expiry));
        if let Some(delay_s) = policy.login_delay_s {
            out.line(&format!("LOGIN-DELAY {delay_s}"));
        }
    }
    if let Some(config) = before_login {
        if config.allows_login() {
            out.line("USER");
            let offered: Vec<&str> = config.offered().map(|(_, name)| name).collect();
            out.line(&format!("SASL {}", offered.join(" ")));
        }
        if config.tls == Tls::Offered {
            out.line("STLS");
        }
    }
    out.line("IMPLEMENTATION Posthouse");
    out.line(".");
}

fn refusal_line(why: Refusal) -> Cow<'static, str> {
    match why {
        Refusal::BadCredentials => "-ERR [AUTH] wrong user name or password",
        Refusal::Temporary => "-ERR [SYS/TEMP] login is not possible now, try again later",
        Refusal::PlaintextForbidden => "-ERR TLS first",
        Refusal::Malformed => "-ERR malformed response",
        Refusal::NotOffered => NOT_OFFERED,
        Refusal::ChannelBinding => "-ERR channel binding does not fit this connection",
        // RFC 3206 §4: the credentials are right, and a client that hears AUTH asks for others for ever.
        Refusal::NotAllowed => "-ERR [SYS/PERM] POP3 is not enabled for this account",
        Refusal::InUse => "-ERR [IN-USE] the maildrop is in use",
        // RFC 2449 §8.1.2: the credentials are right, and it is the user's own sessions that are in the way.
        Refusal::TooMany => "-ERR [IN-USE] too many sessions",
        Refusal::LoginDelay { wait_s } => {
            return format!("-ERR [LOGIN-DELAY] wait {wait_s} s").into();
        }
    }
    .into()
}

const KNOWN: [&str; 7] = ["USER", "PASS", "AUTH", "CAPA", "STLS", "UTF8", "QUIT"];
const NOT_OFFERED: &str = "-ERR mechanism not supported";
const MALFORMED: &str = "-ERR malformed user name or password";
