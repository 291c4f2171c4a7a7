//! IMAP up to the login: the not authenticated state. RFC 9051 §6.1, §6.2.

use data_encoding::BASE64;

use super::framing::announcement::Announcement;
use super::framing::skip::{Skip, Skipped};
use super::syntax::CommandText;
use crate::input::{Frame, Input, LineFault};
use crate::login::{
    CloseReason, Config, Credentials, LoginDialogue, LoginEvent, LoginStep, Mechanism, Refusal,
    SaslMessage, Shut, Tls,
};
use crate::output::Output;
use crate::password::{Password, wipe};
use crate::sasl::{Exchange, PASSWORD_MAX, Progress, RESPONSE_MAX, SaslError, checked};

/// The dialogue before the login; see [`LoginDialogue`].
pub struct Login {
    config: Config,
    state: State,
    input: Input,
    out: Output,
    command: CommandText,
    client_id: Option<String>,
    error_count: u32,
    /// The shell is to hear that a mechanism is over.
    sasl_is_over: bool,
}

enum State {
    AwaitCommand,
    /// Octets of a literal are awaited.
    AwaitLiteral {
        left: u64,
    },
    /// What is left of a refused command is read and dropped, so that no
    /// literal of it is taken for a command.
    Skipping(Skip),
    AwaitResponse {
        tag: String,
        exchange: Exchange,
    },
    /// What the client showed goes to the shell once `out` was written: after
    /// a yes the back-end speaks, and what is still here would be lost.
    Shown {
        tag: String,
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
        out.line(&format!(
            "* OK [CAPABILITY {}] {} IMAP Posthouse",
            capabilities(&config),
            config.hostname
        ));
        Self {
            config,
            state: State::AwaitCommand,
            input: Input::default(),
            out,
            command: CommandText::default(),
            client_id: None,
            error_count: 0,
            sasl_is_over: false,
        }
    }

    fn line_max(&self) -> usize {
        match self.state {
            State::AwaitResponse { .. } => RESPONSE_MAX,
            // RFC 2971 §3.3 lets it be that long, and at this place too.
            _ if self.command.is_empty() && begins(self.input.waiting(), b"ID") => ID_MAX,
            // A response is not shorter where it comes with the command (RFC 4959): a token may be long.
            _ if self.command.is_empty() && begins(self.input.waiting(), b"AUTHENTICATE") => {
                RESPONSE_MAX
            }
            // An ID that goes on behind a literal may have used up more than that already.
            _ => COMMAND_MAX.saturating_sub(self.command.text_length()),
        }
    }

    fn input_max(&self) -> usize {
        self.line_max().max(COMMAND_MAX) + 2
    }

    fn on_line(&mut self, line: &[u8]) {
        if let State::AwaitResponse { tag, exchange } =
            std::mem::replace(&mut self.state, State::AwaitCommand)
        {
            let is_passed_on = exchange.is_passed_on();
            let progress = exchange.respond(line);
            self.sasl_is_over = is_passed_on && progress.is_err();
            return self.on_progress(tag, progress);
        }
        if self.command.is_empty() && line.trim_ascii().is_empty() {
            return;
        }
        self.command.push_line(line);
        match Announcement::at_end_of(line) {
            None => {
                let command = std::mem::take(&mut self.command);
                self.on_command(&command);
            }
            Some(announcement) => self.on_announcement(announcement),
        }
    }

    fn on_announcement(&mut self, announcement: Announcement) {
        let is_refused =
            announcement.size > LITERAL_MAX || self.command.literal_count() >= LITERALS_MAX;
        match (is_refused, announcement.unasked) {
            (false, unasked) => {
                self.command.begin_literal(announcement);
                self.state = State::AwaitLiteral {
                    left: announcement.size,
                };
                if !unasked {
                    self.out.line("+ go ahead");
                }
            }
            // No go-ahead, so its octets do not come.
            (true, false) => self.refuse_literal(State::AwaitCommand),
            (true, true) if announcement.size <= DROPPED_MAX => {
                self.refuse_literal(State::Skipping(Skip::literal(announcement.size)));
            }
            (true, true) => self.hang_up(),
        }
    }

    /// RFC 7888 §4 lets us hang up on what would have to be dropped.
    fn hang_up(&mut self) {
        self.out.line("* BYE [TOOBIG] literal too long");
        self.close(CloseReason::TooManyErrors);
    }

    fn refuse_literal(&mut self, next: State) {
        let command = std::mem::take(&mut self.command);
        self.state = next;
        self.bad(command.split_tag().0, "literal too long before login");
    }

    fn skip(&mut self) {
        let State::Skipping(skip) = &mut self.state else {
            return;
        };
        let mut rest = self.input.waiting();
        let skipped = skip.take(&mut rest, DROPPED_MAX);
        let used = self.input.len() - rest.len();
        self.input.consume(used);
        match skipped {
            Skipped::Partly => {}
            Skipped::Wholly => self.state = State::AwaitCommand,
            Skipped::TooMuch => self.hang_up(),
        }
    }

    fn on_literal_octets(&mut self, left: u64) {
        let count_max = usize::try_from(left).unwrap_or(usize::MAX);
        let range = self.input.take_up_to(count_max);
        let left = left - range.len() as u64;
        self.command.push_literal(self.input.slice(range.clone()));
        self.input.wipe(range);
        self.state = match left {
            0 => State::AwaitCommand,
            left => State::AwaitLiteral { left },
        };
    }

    fn on_command(&mut self, command: &CommandText) {
        let (tag, mut words) = command.split_tag();
        let Some(tag) = tag else {
            return self.bad(None, "no valid tag");
        };
        let verb = words.atom().unwrap_or_default();
        let is = |name: &str| verb.eq_ignore_ascii_case(name);
        let takes_none = ["CAPABILITY", "NOOP", "LOGOUT", "STARTTLS"]
            .iter()
            .any(|name| is(name));
        if takes_none && !words.is_at_end() {
            return self.bad(Some(tag), "this command takes no argument");
        }
        if is("CAPABILITY") {
            self.out
                .line(&format!("* CAPABILITY {}", capabilities(&self.config)));
            self.ok(tag, "done");
        } else if is("NOOP") {
            self.ok(tag, "done");
        } else if is("ID") {
            match words.rest() {
                Some(list)
                    if list.eq_ignore_ascii_case(b"NIL")
                        || (list.starts_with(b"(") && list.ends_with(b")")) =>
                {
                    self.client_id = Some(calm(list)).filter(|id| id.starts_with('('));
                    self.out.line("* ID (\"name\" \"Posthouse\")");
                    self.ok(tag, "done");
                }
                _ => self.bad(Some(tag), "syntax: ID NIL, or a list"),
            }
        } else if is("LOGOUT") {
            self.out.line("* BYE good-bye");
            self.ok(tag, "done");
            self.close(CloseReason::Quit);
        } else if is("STARTTLS") {
            self.on_starttls(tag);
        } else if is("LOGIN") {
            if !self.config.allows_login() {
                return self.no(tag, refusal_text(Refusal::PlaintextForbidden));
            }
            let (user, password) = (words.astring(), words.astring());
            match (user, password, words.is_at_end()) {
                (Some(user), Some(password), true) => match checked(&user, &password) {
                    Ok((user, password)) => {
                        self.ask(tag.to_owned(), user, password, Mechanism::LoginCommand);
                    }
                    Err(_) => self.bad(Some(tag), MALFORMED),
                },
                _ => self.bad(Some(tag), "syntax: LOGIN user password"),
            }
        } else if is("AUTHENTICATE") {
            let (mechanism, initial) = (words.atom(), words.rest());
            self.on_authenticate(tag, mechanism.unwrap_or_default(), initial);
        } else {
            self.bad(Some(tag), "unknown command, or log in first");
        }
    }

    fn on_authenticate(&mut self, tag: &str, mechanism: &str, initial: Option<&[u8]>) {
        if !self.config.allows_login() {
            return self.no(tag, refusal_text(Refusal::PlaintextForbidden));
        }
        match (Exchange::start(mechanism, &self.config), initial) {
            (None, _) => self.no(tag, NOT_OFFERED),
            (Some(exchange), Some(initial)) => {
                self.on_progress(tag.to_owned(), exchange.respond_initially(initial));
            }
            (Some(exchange), None) => {
                self.on_progress(tag.to_owned(), Ok(Progress::Continue(exchange)));
            }
        }
    }

    fn on_progress(&mut self, tag: String, progress: Result<Progress, SaslError>) {
        match progress {
            Ok(Progress::Continue(exchange)) => {
                self.out.line(&format!("+ {}", exchange.challenge()));
                self.state = State::AwaitResponse { tag, exchange };
            }
            Ok(Progress::Done {
                user,
                password,
                mechanism,
            }) => self.ask(tag, user, password, mechanism),
            Ok(Progress::Message {
                mechanism,
                is_first,
                message,
            }) => {
                let message = SaslMessage {
                    mechanism,
                    is_first,
                    message,
                    tag: Some(tag.clone()),
                };
                self.state = State::Shown {
                    tag,
                    event: Some(LoginEvent::Sasl(message)),
                    goes_on: Some(mechanism),
                };
            }
            Err(SaslError::Cancelled) => self.bad(Some(&tag), "cancelled"),
            Err(SaslError::ActingAs) => self.no(&tag, refusal_text(Refusal::BadCredentials)),
            Err(SaslError::Encoding | SaslError::Syntax | SaslError::TooLong) => {
                self.bad(Some(&tag), MALFORMED);
            }
        }
    }

    fn on_starttls(&mut self, tag: &str) {
        match self.config.tls {
            Tls::Active => self.bad(Some(tag), "TLS is active already"),
            Tls::Absent => self.bad(Some(tag), "TLS is not available"),
            Tls::Offered => {
                self.ok(tag, "begin TLS");
                self.state = State::AwaitTls { asked: false };
            }
        }
    }

    fn ask(&mut self, tag: String, user: String, password: Password, mechanism: Mechanism) {
        let credentials = Credentials {
            user,
            password,
            mechanism,
            tag: Some(tag.clone()),
        };
        self.state = State::Shown {
            tag,
            event: Some(LoginEvent::Login(credentials)),
            goes_on: None,
        };
    }

    fn ok(&mut self, tag: &str, text: &str) {
        self.out.line(&format!("{tag} OK {text}"));
    }

    fn no(&mut self, tag: &str, text: &str) {
        self.out.line(&format!("{tag} NO {text}"));
        self.count_error();
    }

    fn bad(&mut self, tag: Option<&str>, text: &str) {
        self.out.line(&format!("{} BAD {text}", tag.unwrap_or("*")));
        self.count_error();
    }

    fn count_error(&mut self) {
        self.error_count += 1;
        if self.error_count >= self.config.errors_max {
            self.out.line("* BYE too many errors");
            self.close(CloseReason::TooManyErrors);
        }
    }

    fn close(&mut self, reason: CloseReason) {
        self.input.clear();
        self.command.clear();
        self.state = State::Closing(reason);
    }

    fn on_frame(&mut self, frame: Frame) {
        match frame {
            Frame::Partial => {}
            Frame::Fault(fault) => {
                let line = self.input.take_over_skipping();
                // A bare line end was its end: nothing before it announces a literal, or is a tag.
                let line: &[u8] = match fault {
                    LineFault::TooLong => line,
                    LineFault::BareCr | LineFault::BareLf => &[],
                };
                let tag = match std::mem::replace(&mut self.state, State::AwaitCommand) {
                    State::AwaitResponse { tag, exchange } => {
                        self.sasl_is_over = exchange.is_passed_on();
                        Some(tag)
                    }
                    _ => {
                        // Else the command is broken behind a literal, and has its tag.
                        if self.command.is_empty() {
                            self.command.push_line(first_word(line));
                        }
                        self.command.split_tag().0.map(str::to_owned)
                    }
                };
                self.command.clear();
                let skip = Skip::text(line);
                self.state = State::Skipping(skip);
                self.bad(tag.as_deref(), "line too long, or not ended by CRLF");
            }
            Frame::Line(range) => {
                let mut line = self.input.slice(range.clone()).to_vec();
                self.input.wipe(range);
                self.on_line(&line);
                wipe(&mut line);
            }
        }
    }
}

impl LoginDialogue for Login {
    fn room(&self) -> usize {
        match self.state {
            State::AwaitTls { .. } | State::Closing(_) => usize::MAX,
            _ => self.input_max().saturating_sub(self.input.len()),
        }
    }

    fn receive(&mut self, octets: &[u8]) -> usize {
        match self.state {
            State::AwaitTls { .. } | State::Closing(_) => octets.len(),
            _ => self.input.receive(octets, self.input_max()),
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
                State::AwaitLiteral { left } if *left == 0 || !self.input.is_empty() => {
                    let left = *left;
                    self.on_literal_octets(left);
                }
                State::Skipping(_) if !self.input.is_empty() => self.skip(),
                State::AwaitCommand
                | State::AwaitResponse { .. }
                | State::AwaitLiteral { .. }
                | State::Skipping(_) => {
                    let frame = match self.state {
                        State::AwaitLiteral { .. } | State::Skipping(_) => Frame::Partial,
                        _ => self.input.next_line(self.line_max()),
                    };
                    match frame {
                        Frame::Partial if self.out.is_empty() => {
                            self.input.release_when_idle();
                            return LoginStep::NeedInput;
                        }
                        Frame::Partial => return LoginStep::Send(self.out.give()),
                        frame => self.on_frame(frame),
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
        match std::mem::replace(&mut self.state, State::AwaitCommand) {
            State::Shown {
                tag, event: None, ..
            } => match why {
                Refusal::Malformed => self.bad(Some(&tag), refusal_text(why)),
                _ => self.no(&tag, refusal_text(why)),
            },
            _ => panic!("an answer to no question"),
        }
    }

    fn challenge(&mut self, message: &[u8]) {
        match std::mem::replace(&mut self.state, State::AwaitCommand) {
            State::Shown {
                tag,
                event: None,
                goes_on: Some(mechanism),
            } => {
                self.out.line(&format!("+ {}", BASE64.encode(message)));
                self.state = State::AwaitResponse {
                    tag,
                    exchange: Exchange::AwaitMessage {
                        mechanism,
                        is_first: false,
                    },
                };
            }
            _ => panic!("a challenge to no message"),
        }
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
        self.client_id.as_deref()
    }

    fn shut(&mut self, why: Shut) {
        self.out.begin_step();
        if !matches!(self.state, State::Closing(_)) {
            self.out.line(match why {
                Shut::TimedOut => "* BYE idle for too long",
                Shut::GoingDown => "* BYE [UNAVAILABLE] come back in a moment",
                Shut::Overloaded => "* BYE [UNAVAILABLE] too many connections",
            });
            self.close(CloseReason::Shut);
        }
    }
}

/// Whether these octets are of a command with this verb and arguments, as far as they go.
fn begins(line: &[u8], verb: &[u8]) -> bool {
    let mut words = as_any_command(line).splitn(3, |octet| *octet == b' ');
    let is_verb = |word: &[u8]| word.eq_ignore_ascii_case(verb);
    words.nth(1).is_some_and(is_verb) && words.next().is_some()
}

/// The first word of a line that is too long; nothing if there is no end of it.
fn first_word(line: &[u8]) -> &[u8] {
    let line = as_any_command(line);
    let end = line.iter().position(|octet| *octet == b' ');
    &line[..end.unwrap_or(0)]
}

/// What may be looked at before it is known how long the line may be: more has come in one cut than in another.
fn as_any_command(line: &[u8]) -> &[u8] {
    &line[..line.len().min(COMMAND_MAX)]
}

/// A client's own words, as many as a log wants and without what would move a terminal's cursor.
fn calm(list: &[u8]) -> String {
    let list = &list[..list.len().min(CLIENT_ID_MAX)];
    let calm = |one: char| if one.is_control() { '?' } else { one };
    String::from_utf8_lossy(list).chars().map(calm).collect()
}

/// Before the login, what a client needs for it, and what some look for here and never again although it is of use only
/// behind it (Python's imaplib: ENABLE, IDLE). Each back-end tells its own list with the answer to the login.
pub const CAPABILITIES_BEFORE_LOGIN: &[&str] = &[
    "IMAP4rev1",
    "IMAP4rev2",
    "ENABLE",
    "ID",
    "IDLE",
    "LITERAL+",
    "NAMESPACE",
    "SASL-IR",
    "UTF8=ACCEPT",
];

fn capabilities(config: &Config) -> String {
    let mut text = match &config.imap_capabilities {
        Some(told) => told.to_string(),
        None => CAPABILITIES_BEFORE_LOGIN.join(" "),
    };
    if config.tls == Tls::Offered {
        text.push_str(" STARTTLS");
    }
    for (_, mechanism) in config.offered() {
        text.push_str(" AUTH=");
        text.push_str(mechanism);
    }
    if !config.allows_login() {
        text.push_str(" LOGINDISABLED");
    }
    text
}

/// RFC 5530 gives each its response code.
fn refusal_text(why: Refusal) -> &'static str {
    match why {
        Refusal::BadCredentials => "[AUTHENTICATIONFAILED] wrong user name or password",
        Refusal::Temporary => "[UNAVAILABLE] login is not possible now, try again later",
        Refusal::PlaintextForbidden => "[PRIVACYREQUIRED] TLS first",
        Refusal::Malformed => MALFORMED_RESPONSE,
        Refusal::NotOffered => NOT_OFFERED,
        Refusal::ChannelBinding => "[CANNOT] channel binding does not fit this connection",
        Refusal::NotAllowed => "[AUTHORIZATIONFAILED] IMAP is not enabled for this account",
        Refusal::InUse => "[INUSE] the account is in use",
        Refusal::TooMany | Refusal::LoginDelay { .. } => "[LIMIT] too many sessions",
    }
}

/// Longest command before the login, without literals. DESIGN §13.
const COMMAND_MAX: usize = 8 * 1024;
/// Longest ID in one line: 30 fields of 30 octets with values of 1,024 (RFC 2971 §3.3), quoted.
const ID_MAX: usize = 33 * 1024;
/// Of an ID, so much is kept.
const CLIENT_ID_MAX: usize = 1_024;
/// Longest literal: LOGIN's password is the longest thing worth sending in one.
const LITERAL_MAX: u64 = PASSWORD_MAX as u64;
/// LOGIN has two; ID may have some more.
const LITERALS_MAX: usize = 8;
/// A literal over the limit that comes unasked is read and dropped up to here.
const DROPPED_MAX: u64 = 64 * 1024;
const MALFORMED: &str = "malformed user name or password";
const MALFORMED_RESPONSE: &str = "malformed response";
const NOT_OFFERED: &str = "[CANNOT] mechanism not supported";
