//! TRANSACTION and UPDATE: the session after the login. RFC 1939 §5, §6.

use super::command::{Command, CommandError};
use super::login::write_capabilities;
use super::maildrop::{Maildrop, Update};
use super::policy::{Expiry, Policy};
use super::retrieve::MessageEncoder;
use super::{LINE_MAX, shut_line};
use crate::input::{Frame, Input};
use crate::login::{CloseReason, Shut};
use crate::output::{Output, number};

/// What the shell does next.
#[derive(Debug)]
pub enum Step<'a> {
    /// Read from the peer.
    NeedInput,
    /// Write these octets.
    Send(&'a [u8]),
    /// Send this message. Answer: [`Transaction::message_found`], then write
    /// what the encoder makes of the message, then [`Transaction::message_sent`];
    /// or [`Transaction::message_failed`].
    SendMessage(Retrieve),
    /// UPDATE: do what [`Transaction::update`] says. Answer: [`Transaction::committed`].
    Commit,
    /// The question asked before is not answered yet.
    AwaitAnswer,
    /// Close the connection; everything was said.
    Close(CloseReason),
}

/// Which message to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retrieve {
    /// Place in the snapshot, from 0.
    pub index: usize,
    /// Its UID.
    pub uid: u32,
    /// Its size in octets.
    pub size: u64,
    /// Body lines wanted by TOP; None for RETR.
    pub top_lines: Option<u64>,
}

/// Why a message cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetrieveError {
    /// It was expunged by another session meanwhile.
    Gone,
    /// Ours, for now.
    Temporary,
}

/// One session after its login.
pub struct Transaction {
    maildrop: Maildrop,
    state: State,
    input: Input,
    out: Output,
    mistake_count: u32,
    policy: Policy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    AwaitCommand,
    /// A listing goes out in parts, so that a maildrop of any size needs
    /// little memory.
    Listing {
        ids: bool,
        next_index: usize,
    },
    /// A message is to be asked for once `out` was written.
    MessageWanted(Retrieve),
    AwaitMessage(Retrieve),
    SendingMessage(Retrieve),
    CommitWanted,
    AwaitCommit,
    Closing(CloseReason),
}

impl Transaction {
    /// Starts by saying `+OK` to the login. `leftover` is what the client sent
    /// beyond it.
    pub fn new(maildrop: Maildrop, policy: Policy, leftover: &[u8]) -> Self {
        let mut out = Output::default();
        out.line(&format!(
            "+OK {} messages ({} octets)",
            maildrop.count(),
            maildrop.octets()
        ));
        let mut input = Input::default();
        input.receive(leftover, leftover.len());
        Self {
            maildrop,
            state: State::AwaitCommand,
            input,
            out,
            mistake_count: 0,
            policy,
        }
    }

    /// How many octets [`receive`](Self::receive) takes now. Positive whenever
    /// the last step was `NeedInput`.
    pub fn room(&self) -> usize {
        INPUT_MAX.saturating_sub(self.input.len())
    }

    /// Takes octets from the peer and returns how many it took.
    pub fn receive(&mut self, octets: &[u8]) -> usize {
        self.input.receive(octets, INPUT_MAX)
    }

    /// The next thing to do.
    #[expect(
        clippy::should_implement_trait,
        reason = "lends, which Iterator cannot"
    )]
    pub fn next(&mut self) -> Step<'_> {
        self.out.begin_step();
        loop {
            if self.out.is_full() {
                return Step::Send(self.out.give());
            }
            match self.state {
                State::AwaitCommand => match self.input.next_line(LINE_MAX) {
                    Frame::Partial if self.out.is_empty() => {
                        self.input.release_when_idle();
                        return Step::NeedInput;
                    }
                    Frame::Partial => return Step::Send(self.out.give()),
                    Frame::Fault(_) => self.mistake("-ERR line too long, or not ended by CRLF"),
                    Frame::Line(range) => match Command::parse(self.input.slice(range)) {
                        Ok(command) => self.on_command(command),
                        Err(CommandError::Unknown) => self.mistake("-ERR unknown command"),
                        Err(CommandError::Arguments) => self.mistake("-ERR bad arguments"),
                    },
                },
                State::Listing { ids, next_index } => self.list_on(ids, next_index),
                State::AwaitMessage(_) | State::SendingMessage(_) | State::AwaitCommit => {
                    return Step::AwaitAnswer;
                }
                _ if !self.out.is_empty() => return Step::Send(self.out.give()),
                State::MessageWanted(retrieve) => {
                    self.state = State::AwaitMessage(retrieve);
                    return Step::SendMessage(retrieve);
                }
                State::CommitWanted => {
                    self.state = State::AwaitCommit;
                    return Step::Commit;
                }
                State::Closing(reason) => return Step::Close(reason),
            }
        }
    }

    /// Answers `SendMessage`: the message is there and will be sent. The
    /// encoder writes the positive reply too. Should the message break off,
    /// close the connection: there is no way to say so in the middle.
    ///
    /// # Panics
    /// When `SendMessage` was not asked: the shell is wrong.
    pub fn message_found(&mut self) -> MessageEncoder {
        let State::AwaitMessage(retrieve) = self.state else {
            panic!("an answer to no question")
        };
        self.state = State::SendingMessage(retrieve);
        MessageEncoder::new(retrieve.size, retrieve.top_lines)
    }

    /// The message announced by `message_found` was written to its end.
    ///
    /// # Panics
    /// When no message is being sent: the shell is wrong.
    pub fn message_sent(&mut self) {
        let State::SendingMessage(retrieve) = self.state else {
            panic!("no message is being sent")
        };
        // However many lines TOP asked for: its client did not ask for the message.
        if retrieve.top_lines.is_none() {
            self.maildrop.note_retrieved(retrieve.index);
        }
        self.state = State::AwaitCommand;
    }

    /// Answers `SendMessage`: it cannot be sent.
    ///
    /// # Panics
    /// When `SendMessage` was not asked: the shell is wrong.
    pub fn message_failed(&mut self, why: RetrieveError) {
        let State::AwaitMessage(_) = self.state else {
            panic!("an answer to no question")
        };
        self.state = State::AwaitCommand;
        self.out.line(match why {
            RetrieveError::Gone => "-ERR message was removed by another session",
            RetrieveError::Temporary => "-ERR [SYS/TEMP] message cannot be read now",
        });
    }

    /// What `Commit` is to do, at this time in milliseconds since 1970.
    pub fn update(&self, now_ms: i64) -> Update {
        self.maildrop.update(self.policy.expiry, now_ms)
    }

    /// Answers `Commit`: whether the deletions are durable. What else there was to do the
    /// client did not ask for, and hears nothing of it.
    ///
    /// # Panics
    /// When `Commit` was not asked: the shell is wrong.
    pub fn committed(&mut self, done: bool) {
        assert_eq!(self.state, State::AwaitCommit, "an answer to no question");
        self.state = State::Closing(CloseReason::Quit);
        self.out.line(if done {
            BYE
        } else {
            "-ERR [SYS/TEMP] deleted messages not removed"
        });
    }

    /// Ends the session from our side without UPDATE: says why, then `Close`.
    pub fn shut(&mut self, why: Shut) {
        self.out.begin_step();
        // In the middle of a message a line would be taken for part of it.
        if !matches!(self.state, State::SendingMessage(_) | State::Closing(_)) {
            self.out.line(shut_line(why));
        }
        self.state = State::Closing(CloseReason::Shut);
    }

    /// The session's state as a value.
    pub fn maildrop(&self) -> &Maildrop {
        &self.maildrop
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Stat => {
                let line = format!("+OK {} {}", self.maildrop.count(), self.maildrop.octets());
                self.out.line(&line);
            }
            Command::List(None) | Command::Uidl(None) => {
                self.out.line("+OK");
                self.state = State::Listing {
                    ids: matches!(command, Command::Uidl(_)),
                    next_index: 0,
                };
            }
            Command::List(Some(number)) | Command::Uidl(Some(number)) => {
                if let Some(index) = self.index(number) {
                    self.out.octets_mut().extend_from_slice(b"+OK ");
                    self.list(matches!(command, Command::Uidl(_)), index);
                }
            }
            Command::Retr(number) => self.on_retrieve(number, None),
            Command::Top { number, lines } => self.on_retrieve(number, Some(lines)),
            Command::Dele(number) => {
                if let Some(index) = self.index(number) {
                    self.maildrop.mark(index);
                    self.out.line("+OK marked");
                }
            }
            Command::Rset => {
                self.maildrop.unmark_all();
                self.out.line("+OK");
            }
            Command::Noop => self.out.line("+OK"),
            Command::Capa => write_capabilities(&mut self.out, None, Some(self.policy)),
            // Nothing marked and no rule: nothing to wait for.
            Command::Quit
                if self.maildrop.count() == self.maildrop.entries().len()
                    && self.policy.expiry == Expiry::Never =>
            {
                self.out.line(BYE);
                self.state = State::Closing(CloseReason::Quit);
            }
            Command::Quit => self.state = State::CommitWanted,
        }
    }

    fn on_retrieve(&mut self, number: u64, top_lines: Option<u64>) {
        if let Some(index) = self.index(number) {
            let entry = self.maildrop.entries()[index];
            self.state = State::MessageWanted(Retrieve {
                index,
                uid: entry.uid,
                size: entry.size,
                top_lines,
            });
        }
    }

    /// The place of an unmarked message, or says that there is none.
    fn index(&mut self, number: u64) -> Option<usize> {
        let index = self.maildrop.index(number);
        if index.is_none() {
            self.out.line("-ERR no such message");
        }
        index
    }

    /// Writes one part of a listing.
    fn list_on(&mut self, ids: bool, from: usize) {
        let mut index = from;
        while let Some(entry) = self.maildrop.entries().get(index) {
            if self.out.is_full() {
                self.state = State::Listing {
                    ids,
                    next_index: index,
                };
                return;
            }
            if !entry.deleted {
                self.list(ids, index);
            }
            index += 1;
        }
        self.out.line(".");
        self.state = State::AwaitCommand;
    }

    /// Writes the line of one message. A formatter would take longer than all else of a session that looks for new mail.
    fn list(&mut self, ids: bool, index: usize) {
        let entry = &self.maildrop.entries()[index];
        let out = self.out.octets_mut();
        number(out, index as u64 + 1);
        out.push(b' ');
        match ids {
            true => out.extend_from_slice(&self.maildrop.unique_id(entry)),
            false => number(out, entry.size),
        }
        out.extend_from_slice(b"\r\n");
    }

    fn mistake(&mut self, line: &str) {
        self.out.line(line);
        self.mistake_count += 1;
        if self.mistake_count >= MISTAKES_MAX {
            self.out.line("-ERR too many errors");
            self.state = State::Closing(CloseReason::TooManyErrors);
        }
    }
}

/// Commands that may wait while one is done; a longer pipeline waits in the
/// socket.
const INPUT_MAX: usize = 4096;
/// Lines that are no commands, after which the session is closed.
const MISTAKES_MAX: u32 = 20;
const BYE: &str = "+OK bye";
