//! The dialogue of one connection.
//!
//! ```text
//!                 MAIL              RCPT             DATA
//!  AwaitCommand ───────▶ AwaitAnswer ─accept/refuse─▶ AwaitCommand ...
//!  AwaitCommand ──DATA─▶ AwaitAnswer ──accept───────▶ Body ──final dot──▶ AwaitAnswer ──finish──▶ AwaitCommand
//!                                                     Body ──fault, final dot───────────────────▶ AwaitCommand
//!  AwaitCommand ──BDAT─▶ AwaitAnswer ──accept───────▶ Chunk ──its octets──▶ AwaitCommand ...
//!                                                     Chunk ──those of the last──▶ AwaitAnswer ──finish──▶ AwaitCommand
//!  AwaitCommand ──STARTTLS──▶ AwaitAnswer ──accept──▶ AwaitTls ──tls_started──▶ AwaitCommand
//!  AwaitCommand ──AUTH, XCLIENT──▶ AwaitAnswer ──accept, refuse──▶ AwaitCommand
//!  any ──QUIT, too many errors, shut──▶ Closing
//! ```
//!
//! Replies gather in one buffer and go out together when the input holds no
//! further whole command, so that a pipelined group costs one write. The reply
//! to a body waits for nothing behind it (RFC 2920 §3.2): a sender that is cut
//! off before it has read a 250 sends the message again. Replies to a client that is
//! slowed go out one by one, so that each can be delayed.

mod chunks;
mod errors;
mod transaction;
mod turn;

pub use errors::{ErrorLimits, Tally};

use chunks::Chunks;
use errors::Mistakes;
use transaction::Transaction;

use super::body::{BodyFault, BodyReader};
use super::chunk::Chunk;
use super::command::{Command, CommandFault, Verb};
use super::config::{Config, Mode};
use super::mail::Mail;
use super::path::ForwardPath;
use super::reply::Reply;
use super::xclient::XClient;
use super::{data, hello, rcpt};
use crate::address::Letters;
use crate::input::{Frame, Input, LineFault};
use crate::output::Output;

/// What the shell does next.
#[derive(Debug)]
pub enum Step<'a> {
    /// Read from the peer.
    NeedInput,
    /// Write these octets: all replies since the last write, together.
    Send(&'a [u8]),
    /// A transaction is asked for. Answer: [`Server::accept`] or [`Server::refuse`].
    Mail(Mail),
    /// A recipient. Answer: [`Server::accept`] or [`Server::refuse`].
    Recipient(ForwardPath),
    /// DATA, or the first BDAT, with at least one recipient. Answer: [`Server::accept`] (354
    /// goes out for DATA) or [`Server::refuse`].
    BodyStart,
    /// Octets of the body, dots unstuffed. No answer. Commands may come between two of them: RSET, EHLO and QUIT end the
    /// body, NOOP and another BDAT do not.
    BodyChunk(&'a [u8]),
    /// The body cannot be accepted: drop what came of it, now. The core reads
    /// to its true end, in BDAT that of the chunk, and replies by itself. No answer; the transaction is over.
    BodyBroken(BodyFault),
    /// The final dot, or the last chunk, was read. Answer: [`Server::finish`].
    BodyEnd {
        /// Octets of the body in all.
        size: u64,
    },
    /// The transaction is over without a message (RSET, EHLO). No answer.
    Reset,
    /// STARTTLS is possible. Answer: [`Server::accept`] (220 goes out, then comes `StartTls`) or [`Server::refuse`].
    StartTlsAsked,
    /// AUTH, which this server does not have. Answer: [`Server::accept`] (it is told so) or [`Server::refuse`].
    AuthAsked,
    /// The peer, who may, tells whom it speaks for. Answer: [`Server::accept`] (the dialogue begins anew, with a greeting)
    /// or [`Server::refuse`].
    XClient(XClient),
    /// Start the TLS handshake; the 220 was sent. Answer: [`Server::tls_started`]
    /// or close the connection.
    StartTls,
    /// The question asked before is not answered yet.
    AwaitAnswer,
    /// Close the connection; everything was said.
    Close(CloseReason),
}

/// Why the core closes the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// QUIT.
    Quit,
    /// The hard error limit was reached.
    TooManyErrors,
    /// A BDAT did not say where the next command begins, or that it is too far away.
    UnreadChunk,
    /// A command line or a refused body that did not end.
    Endless,
    /// [`Server::shut`] was called.
    Shut,
}

/// One connection's dialogue.
pub struct Server {
    config: Config,
    state: State,
    input: Input,
    /// Replies not yet written.
    out: Output,
    /// They go out before the next command is looked at.
    flush: bool,
    client: Option<Client>,
    tls_active: bool,
    transaction: Option<Transaction>,
    /// The last MAIL was refused for now: what was pipelined behind it is no mistake.
    is_deferred: bool,
    is_out_of_turn: bool,
    mistakes: Mistakes,
}

enum State {
    AwaitCommand,
    AwaitAnswer(Question),
    Body {
        reader: BodyReader,
        ended: bool,
        fault_told: bool,
    },
    /// A chunk of this length is still to come.
    Chunk {
        chunk: Chunk,
        /// What is said at its end, when it is not taken.
        refusal: Option<Reply>,
    },
    AwaitTls {
        asked: bool,
    },
    Closing(CloseReason),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    Mail(Letters),
    Recipient,
    BodyStart,
    /// The same, asked by a BDAT.
    FirstChunk(Chunk),
    BodyEnd,
    StartTls,
    Auth,
    XClient,
}

/// Who the client says it is.
struct Client {
    name: String,
    extended: bool,
}

impl Server {
    /// A server that greets first.
    pub fn new(config: Config) -> Self {
        let mut out = Output::default();
        hello::greeting(&config).write_to(out.octets_mut());
        let tls_active = config.implicit_tls;
        Self {
            config,
            state: State::AwaitCommand,
            input: Input::default(),
            out,
            flush: false,
            client: None,
            tls_active,
            transaction: None,
            is_deferred: false,
            is_out_of_turn: false,
            mistakes: Mistakes::default(),
        }
    }

    /// How many octets [`receive`](Self::receive) takes now. Positive whenever
    /// the last step was `NeedInput`.
    pub fn room(&self) -> usize {
        match self.state {
            State::AwaitTls { .. } | State::Closing(_) => usize::MAX,
            _ => self.input_max_bytes().saturating_sub(self.input.len()),
        }
    }

    /// Takes octets from the peer and returns how many it took. While
    /// `StartTls` is unanswered it takes all and drops them (RFC 3207 §4.2:
    /// what came in plain text must not be read as if it came through TLS).
    pub fn receive(&mut self, octets: &[u8]) -> usize {
        match self.state {
            State::AwaitTls { .. } | State::Closing(_) => octets.len(),
            _ => self.input.receive(octets, self.input_max_bytes()),
        }
    }

    /// The next thing to do.
    #[expect(
        clippy::should_implement_trait,
        reason = "lends, which Iterator cannot"
    )]
    pub fn next(&mut self) -> Step<'_> {
        self.out.begin_step();
        loop {
            match &mut self.state {
                State::AwaitAnswer(_) => return Step::AwaitAnswer,
                _ if self.out.is_full() || self.flush => {
                    self.flush = false;
                    return Step::Send(self.out.give());
                }
                State::AwaitCommand => {
                    match self.input.next_line(self.config.command_line_max_bytes) {
                        Frame::Partial if self.input.skipped() > LINE_SKIPPED_MAX => {
                            self.endless();
                        }
                        Frame::Partial if self.out.is_empty() => {
                            self.input.release_when_idle();
                            return Step::NeedInput;
                        }
                        Frame::Partial => return Step::Send(self.out.give()),
                        Frame::Fault(fault) => self.on_fault(fault),
                        Frame::Line(range) => {
                            // The line is copied once so that its parsed parts may
                            // outlive changes to the state; it is at most 4 KiB.
                            let line = self.input.slice(range).to_vec();
                            if let Some(step) = self.on_line(&line) {
                                return step;
                            }
                        }
                    }
                }
                _ if !self.out.is_empty() => return Step::Send(self.out.give()),
                State::AwaitTls { asked: true } => return Step::AwaitAnswer,
                State::AwaitTls { asked } => {
                    *asked = true;
                    return Step::StartTls;
                }
                State::Closing(reason) => return Step::Close(*reason),
                State::Body {
                    reader,
                    ended,
                    fault_told,
                } => {
                    if !*ended {
                        let pass = reader.read(&mut self.input);
                        let used = self.input.consume(pass.used);
                        *ended = pass.ended;
                        if let (Some(fault), false) = (reader.fault(), *fault_told) {
                            *fault_told = true;
                            return Step::BodyBroken(fault);
                        }
                        if pass.chunk_length > 0 {
                            return Step::BodyChunk(
                                self.input.slice(used.start..used.start + pass.chunk_length),
                            );
                        }
                        if !pass.ended {
                            // Nobody waits for ever for the end of what is refused.
                            let Some(fault) = reader.fault().filter(|_| {
                                reader.passed_over() > self.config.size_max_bytes + PASSED_OVER_MIN
                            }) else {
                                return Step::NeedInput;
                            };
                            data::broken(fault).write_to(self.out.octets_mut());
                            self.endless();
                            continue;
                        }
                    }
                    let (size, fault) = (reader.size(), reader.fault());
                    match fault {
                        None => {
                            self.state = State::AwaitAnswer(Question::BodyEnd);
                            return Step::BodyEnd { size };
                        }
                        Some(fault) => self.end_body(&[], &data::broken(fault), true),
                    }
                }
                State::Chunk { chunk, refusal } => {
                    if let (None, Some(Chunks::Taken(reader))) =
                        (&refusal, chunks_of(&mut self.transaction))
                        && let Err(fault) = reader.has_room(chunk.length)
                    {
                        *refusal = Some(data::broken(fault));
                        return Step::BodyBroken(fault);
                    }
                    if chunk.length > 0 {
                        let room = usize::try_from(chunk.length).unwrap_or(usize::MAX);
                        let range = self.input.take_up_to(room);
                        if range.is_empty() {
                            return Step::NeedInput;
                        }
                        chunk.length -= range.len() as u64;
                        if let (None, Some(Chunks::Taken(reader))) =
                            (&refusal, chunks_of(&mut self.transaction))
                        {
                            if let Err(fault) = reader.read(self.input.slice(range.clone())) {
                                *refusal = Some(data::broken(fault));
                                return Step::BodyBroken(fault);
                            }
                            return Step::BodyChunk(self.input.slice(range));
                        }
                        continue;
                    }
                    let (is_last, refusal) = (chunk.is_last, refusal.take());
                    if let Some(step) = self.end_chunk(is_last, refusal) {
                        return step;
                    }
                }
            }
        }
    }

    /// Answers `Mail`, `Recipient`, `BodyStart`, `StartTlsAsked`, `AuthAsked` and `XClient` with yes.
    ///
    /// # Panics
    /// When none of these was asked: the shell is wrong.
    pub fn accept(&mut self) {
        match self.take_question() {
            Question::Mail(letters) => {
                self.is_deferred = false;
                self.transaction = Some(Transaction::new(letters));
                self.say(&SENDER_ACCEPTED);
            }
            Question::Recipient => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.accepted_count += 1;
                }
                self.say(&RECIPIENT_ACCEPTED);
            }
            Question::BodyStart => {
                let reader =
                    BodyReader::new(self.config.text_line_max_bytes, self.config.size_max_bytes);
                self.state = State::Body {
                    reader,
                    ended: false,
                    fault_told: false,
                };
                self.say(&data::START);
            }
            Question::FirstChunk(chunk) => self.first_chunk(chunk, None),
            Question::StartTls => {
                self.say(&TLS_READY);
                self.state = State::AwaitTls { asked: false };
            }
            Question::Auth => self.say(&UNSUPPORTED),
            Question::XClient => {
                // As if the other had connected just now.
                self.client = None;
                self.is_out_of_turn = false;
                self.mistakes.forgive();
                self.say(&hello::greeting(&self.config));
            }
            Question::BodyEnd => panic!("BodyEnd is answered with finish"),
        }
    }

    /// Answers the same with no. Refusing `BodyStart` ends the transaction.
    ///
    /// # Panics
    /// When none of these was asked: the shell is wrong.
    pub fn refuse(&mut self, reply: Reply) {
        debug_assert!(!reply.is_positive(), "a refusal that says yes");
        match self.take_question() {
            Question::BodyEnd => panic!("BodyEnd is answered with finish"),
            Question::BodyStart => {
                self.transaction = None;
                self.say(&reply);
            }
            Question::FirstChunk(chunk) => self.first_chunk(chunk, Some(reply)),
            Question::Mail(_) => {
                self.is_deferred = !reply.is_permanent();
                self.say(&reply);
            }
            Question::Recipient => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.deferred_count += usize::from(!reply.is_permanent());
                }
                self.say(&reply);
            }
            Question::StartTls | Question::Auth | Question::XClient => self.say(&reply),
        }
    }

    /// Answers `BodyEnd`: one reply in SMTP, one per accepted recipient, in
    /// their order, in LMTP. A missing reply is said as 451.
    ///
    /// # Panics
    /// When `BodyEnd` was not asked: the shell is wrong.
    pub fn finish(&mut self, replies: &[Reply]) {
        assert_eq!(
            self.take_question(),
            Question::BodyEnd,
            "only BodyEnd is answered with finish"
        );
        if replies.iter().any(Reply::is_positive) {
            self.mistakes.forgive();
        }
        self.end_body(replies, &NO_VERDICT, true);
    }

    /// Answers `StartTls`: the handshake is done. The client starts anew
    /// (RFC 3207 §4.2).
    pub fn tls_started(&mut self) {
        // Whatever was pipelined behind STARTTLS was injected, or is a mistake.
        self.input.clear();
        self.client = None;
        self.transaction = None;
        self.tls_active = true;
        self.state = State::AwaitCommand;
    }

    /// Ends the connection from our side with this reply (421), then `Close`.
    /// Possible at any time; a transaction under way is over. Before the greeting it takes its place. Of a body that is refused already the verdict is said
    /// first: else its sender would send it again, for days.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "callers make a reply to give it away"
    )]
    pub fn shut(&mut self, reply: Reply) {
        self.out.begin_step();
        if !matches!(self.state, State::Closing(_)) {
            let verdict = match &mut self.state {
                State::Body { reader, .. } => reader.fault().map(data::broken),
                State::Chunk { refusal, .. } => refusal.take(),
                _ => None,
            };
            if let Some(verdict) = verdict {
                self.end_body(&[], &verdict, false);
            }
            if !self.out.has_begun() {
                self.out.octets_mut().clear();
            }
            reply.write_to(self.out.octets_mut());
            self.close(CloseReason::Shut);
        }
    }

    /// The name the client gave in HELO, EHLO or LHLO; empty before.
    pub fn client_name(&self) -> &str {
        self.client.as_ref().map_or("", |client| &client.name)
    }

    /// The word after "with" in Received. RFC 3848, RFC 6531 §4.3.
    pub fn protocol(&self) -> &'static str {
        let extended = self.client.as_ref().is_some_and(|client| client.extended);
        let transaction = self.transaction.as_ref();
        let utf8 = transaction.is_some_and(|one| one.letters == Letters::Utf8);
        match (self.config.mode, extended, self.tls_active) {
            (Mode::Lmtp, _, false) if utf8 => "UTF8LMTP",
            (Mode::Lmtp, _, true) if utf8 => "UTF8LMTPS",
            (Mode::Smtp, true, false) if utf8 => "UTF8SMTP",
            (Mode::Smtp, true, true) if utf8 => "UTF8SMTPS",
            (Mode::Lmtp, _, false) => "LMTP",
            (Mode::Lmtp, _, true) => "LMTPS",
            (Mode::Smtp, false, _) => "SMTP",
            (Mode::Smtp, true, false) => "ESMTP",
            (Mode::Smtp, true, true) => "ESMTPS",
        }
    }

    /// Whether the client sent something beyond what was used: it pipelines
    /// and cannot have read the reply to come.
    pub fn has_unread_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// The configuration given.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn input_max_bytes(&self) -> usize {
        // A line must fit with its CRLF, whatever was configured.
        self.config
            .input_max_bytes
            .max(self.config.command_line_max_bytes + 2)
    }

    fn take_question(&mut self) -> Question {
        let State::AwaitAnswer(question) = self.state else {
            panic!("an answer to no question")
        };
        self.state = State::AwaitCommand;
        question
    }

    /// Queues a reply and counts it when it is the client's fault.
    fn say(&mut self, reply: &Reply) {
        self.say_of(reply, reply.is_permanent());
    }

    fn say_of(&mut self, reply: &Reply, is_mistake: bool) {
        reply.write_to(self.out.octets_mut());
        if is_mistake {
            self.count_error();
        }
        self.flush |= self.is_slowed();
    }

    fn close(&mut self, reason: CloseReason) {
        self.state = State::Closing(reason);
        self.transaction = None;
        self.input.clear();
    }

    /// Says the replies to a body. In LMTP each recipient gets one.
    fn end_body(&mut self, replies: &[Reply], missing: &Reply, is_news: bool) {
        let accepted_count = self
            .transaction
            .take()
            .map_or(0, |transaction| transaction.accepted_count);
        let reply_count = match self.config.mode {
            Mode::Smtp => 1,
            Mode::Lmtp => accepted_count,
        };
        self.state = State::AwaitCommand;
        self.flush = reply_count > 0;
        for index in 0..reply_count {
            replies
                .get(index)
                .unwrap_or(missing)
                .write_to(self.out.octets_mut());
        }
        // One body is one mistake, however many recipients hear of it.
        if is_news
            && !replies.iter().any(Reply::is_positive)
            && replies.first().unwrap_or(missing).is_permanent()
        {
            self.count_error();
        }
    }

    /// Does one command; gives a step when the shell has a part in it.
    fn on_line(&mut self, line: &[u8]) -> Option<Step<'static>> {
        let command = match Command::parse(line) {
            Ok(command) => command,
            Err(_) if chunks::is_bdat(line) => return self.unknown_chunk(),
            Err(CommandFault::Control) => return self.refused(&CONTROL),
            Err(CommandFault::NotUtf8) => return self.refused(&NOT_UTF8),
        };
        self.see_turn(command.verb);
        let takes_none = matches!(
            command.verb,
            Verb::Data | Verb::Rset | Verb::Quit | Verb::StartTls
        );
        if takes_none && !command.arguments.is_empty() {
            return self.refused(&NO_ARGUMENTS);
        }
        match command.verb {
            Verb::Mail => self.on_mail(command.arguments),
            Verb::Rcpt => self.on_rcpt(command.arguments),
            Verb::Data => self.on_data(),
            Verb::Bdat => self.on_bdat(command.arguments),
            Verb::Helo | Verb::Ehlo | Verb::Lhlo => self.on_hello(command),
            Verb::Rset => self.on_rset(),
            Verb::Noop => {
                self.say(&OK);
                self.count_junk();
                None
            }
            Verb::Vrfy if command.arguments.is_empty() => self.refused(&VRFY_SYNTAX),
            Verb::Vrfy => {
                self.say(&VRFY);
                self.count_junk();
                None
            }
            Verb::Quit => {
                self.say(&BYE);
                self.close(CloseReason::Quit);
                None
            }
            Verb::StartTls => self.on_starttls(),
            Verb::Auth if self.config.mode == Mode::Smtp => {
                self.ask(Question::Auth, Step::AuthAsked)
            }
            Verb::Auth => self.refused(&UNSUPPORTED),
            Verb::XClient => self.on_xclient(command.arguments),
            Verb::Unsupported => self.refused(&UNSUPPORTED),
            Verb::Unknown => self.refused(&UNKNOWN),
        }
    }

    fn on_fault(&mut self, fault: LineFault) {
        if chunks::is_bdat(self.input.faulty()) {
            self.unknown_chunk();
        } else {
            self.say(&line_fault(fault));
        }
    }

    fn on_hello(&mut self, command: Command<'_>) -> Option<Step<'static>> {
        let is_ours = match self.config.mode {
            Mode::Smtp => command.verb != Verb::Lhlo,
            // RFC 2033 §4.1: HELO and EHLO must not succeed here.
            Mode::Lmtp => command.verb == Verb::Lhlo,
        };
        if !is_ours {
            return self.refused(&OTHER_PROTOCOL);
        }
        let name = match hello::parse_name(command.arguments) {
            Ok(name) => name.to_owned(),
            Err(reply) => return self.refused(&reply),
        };
        let extended = command.verb != Verb::Helo;
        let reply = if extended {
            hello::extensions(&self.config, &name, self.tls_active)
        } else {
            Reply::plain(250, self.config.hostname.clone().into())
        };
        self.say(&reply);
        if self.client.replace(Client { name, extended }).is_some() {
            self.count_junk();
        }
        // EHLO also works as RSET. RFC 5321 §4.1.4.
        self.transaction.take().map(|_| Step::Reset)
    }

    fn on_mail(&mut self, arguments: &str) -> Option<Step<'static>> {
        self.is_deferred = false;
        if self.client.is_none() {
            return self.refused(&HELLO_FIRST);
        }
        if self
            .transaction
            .as_ref()
            .is_some_and(|one| !one.has_failed())
        {
            return self.refused(&NESTED_MAIL);
        }
        match Mail::parse(arguments, self.config.size_max_bytes) {
            Ok(mail) => {
                let letters = if mail.utf8 {
                    Letters::Utf8
                } else {
                    Letters::Ascii
                };
                self.ask(Question::Mail(letters), Step::Mail(mail))
            }
            Err(reply) => {
                self.mistakes.tell_size(&reply);
                self.refused(&reply)
            }
        }
    }

    fn on_rcpt(&mut self, arguments: &str) -> Option<Step<'static>> {
        let Some(transaction) = &mut self.transaction else {
            self.say_unless_deferred(&MAIL_FIRST);
            return None;
        };
        if transaction.chunks.is_some() {
            return self.refused(&BODY_BEGUN);
        }
        let path = match rcpt::parse(arguments, transaction.letters) {
            Ok(path) => path,
            Err(reply) => return self.refused(&reply),
        };
        transaction.asked_count += 1;
        if transaction.asked_count > self.config.recipients_max {
            // Temporary, so the client sends the rest in a further
            // transaction. RFC 5321 §4.5.3.1.10. A client that pipelines its
            // whole list learns of the limit late: closing on it would cut
            // every attempt of its at the same place.
            let overshoots = transaction.asked_count / 2 >= self.config.recipients_max;
            transaction.deferred_count += 1;
            self.say(&TOO_MANY_RECIPIENTS);
            self.mistakes.tell_recipient_over();
            if overshoots {
                self.count_junk();
            }
            return None;
        }
        self.ask(Question::Recipient, Step::Recipient(path))
    }

    fn on_data(&mut self) -> Option<Step<'static>> {
        match &self.transaction {
            None => {
                self.say_unless_deferred(&MAIL_FIRST);
                None
            }
            Some(transaction) if transaction.accepted_count == 0 => {
                self.say_unless_deferred(&data::no_recipients(self.config.mode));
                None
            }
            Some(Transaction {
                chunks: Some(_), ..
            }) => self.refused(&BODY_BEGUN),
            Some(_) => self.ask(Question::BodyStart, Step::BodyStart),
        }
    }

    fn on_starttls(&mut self) -> Option<Step<'static>> {
        if !self.config.starttls {
            return self.refused(&UNSUPPORTED);
        }
        if self.tls_active || self.client.is_none() || self.transaction.is_some() {
            return self.refused(&BAD_SEQUENCE);
        }
        self.ask(Question::StartTls, Step::StartTlsAsked)
    }

    fn on_xclient(&mut self, arguments: &str) -> Option<Step<'static>> {
        if !self.config.xclient {
            return self.refused(&NOT_AUTHORISED);
        }
        if self.transaction.is_some() {
            return self.refused(&BAD_SEQUENCE);
        }
        match XClient::parse(arguments) {
            Ok(told) => self.ask(Question::XClient, Step::XClient(told)),
            Err(reply) => self.refused(&reply),
        }
    }

    /// What should have ended long ago is waited for no longer.
    fn endless(&mut self) {
        ENDLESS.write_to(self.out.octets_mut());
        self.close(CloseReason::Endless);
    }

    fn ask(&mut self, question: Question, step: Step<'static>) -> Option<Step<'static>> {
        self.state = State::AwaitAnswer(question);
        Some(step)
    }

    fn refused(&mut self, reply: &Reply) -> Option<Step<'static>> {
        self.say(reply);
        None
    }
}

fn chunks_of(transaction: &mut Option<Transaction>) -> Option<&mut Chunks> {
    transaction.as_mut()?.chunks.as_mut()
}

fn line_fault(fault: LineFault) -> Reply {
    let text = match fault {
        LineFault::TooLong => "line too long",
        LineFault::BareCr => "bare CR: lines end with CRLF",
        LineFault::BareLf => "bare LF: lines end with CRLF",
    };
    Reply::new(500, (5, 5, 2), text)
}

const OK: Reply = Reply::new(250, (2, 0, 0), "ok");
const BYE: Reply = Reply::new(221, (2, 0, 0), "bye");
const SENDER_ACCEPTED: Reply = Reply::new(250, (2, 1, 0), "sender ok");
const RECIPIENT_ACCEPTED: Reply = Reply::new(250, (2, 1, 5), "recipient ok");
const TLS_READY: Reply = Reply::new(220, (2, 0, 0), "go ahead");
/// RFC 5321 §3.5.3: it says neither yes nor no, so nobody can harvest names.
const VRFY: Reply = Reply::new(252, (2, 0, 0), "send mail to find out");
const VRFY_SYNTAX: Reply = Reply::new(501, (5, 5, 4), "syntax: VRFY address");
const NO_ARGUMENTS: Reply = Reply::new(501, (5, 5, 4), "this command takes no argument");
const CONTROL: Reply = Reply::new(500, (5, 5, 2), "control character in a command");
const NOT_UTF8: Reply = Reply::new(500, (5, 5, 2), "a command that is not UTF-8");
/// RFC 3463 §3.6: X.5.2 is for what is not recognised, X.5.1 for what is
/// recognised and not available.
const UNKNOWN: Reply = Reply::new(500, (5, 5, 2), "command not recognised");
const UNSUPPORTED: Reply = Reply::new(502, (5, 5, 1), "command not implemented");
const OTHER_PROTOCOL: Reply = Reply::new(
    500,
    (5, 5, 1),
    "wrong protocol: HELO and EHLO are SMTP, LHLO is LMTP",
);
const HELLO_FIRST: Reply = Reply::new(503, (5, 5, 1), "name yourself first");
const MAIL_FIRST: Reply = Reply::new(503, (5, 5, 1), "MAIL first");
const NESTED_MAIL: Reply = Reply::new(503, (5, 5, 1), "a transaction is open already");
const BODY_BEGUN: Reply = Reply::new(503, (5, 5, 1), "the message has begun: BDAT or RSET");
const NOT_AUTHORISED: Reply = Reply::new(550, (5, 7, 0), "you may not speak for others");
const ENDLESS: Reply = Reply::new(421, (4, 5, 4), "this does not end, closing");
/// Octets of a faulty command line, at most: the longest that anybody has been seen to send is some kilobytes.
const LINE_SKIPPED_MAX: u64 = 2 << 20;
/// What is read of a refused body, besides as much again as a message may have.
const PASSED_OVER_MIN: u64 = 1 << 20;
const BAD_SEQUENCE: Reply = Reply::new(503, (5, 5, 1), "not now");
const TOO_MANY_RECIPIENTS: Reply = Reply::new(452, (4, 5, 3), "too many recipients");
/// A shell that answers for too few recipients must not lose the others' mail.
const NO_VERDICT: Reply = Reply::new(451, (4, 3, 0), "try again later");
