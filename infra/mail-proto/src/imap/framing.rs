//! Cuts what arrives into commands, before anybody asks what they mean.
//!
//! The shell keeps the octets it has read and lends them to [`Framer::next`],
//! which uses them up from the front; an idle session therefore holds no
//! buffer here at all, and what follows `COMPRESS` is still the shell's.
//!
//! ```text
//! loop {
//!     match framer.next(&mut unread) {
//!         NeedInput        => read more
//!         Continue         => write "+ OK", flush
//!         Command(frame)   => parse::command(&frame, form), do it
//!         Message(frame..) => parse::message_head / message_next, then
//!                             accept_message() or say NO and refuse_message()
//!         MessageOctets(o) => store them
//!         MessageEnd       => one message is whole
//!         AppendEnd(frame) => parse::message_end(&frame, ..), commit, say OK
//!         Line(frame)      => what expect_line() asked for: IDLE's DONE
//!         Fault(fault)     => say BAD; the rest is skipped by itself
//!         HangUp(fault)    => say BYE and close
//!     }
//! }
//! ```
//!
//! The old wound closed here is literals read as commands: whatever is refused,
//! in whatever state, the octets announced as a literal that comes unasked are
//! swallowed, also when the line that announces them was itself too long, and
//! also when they are announced behind another refused literal.
//!
//! Only CRLF ends a line. A bare LF could smuggle a command through a web mail
//! that puts a folder's name between quotes, and no client sends one.
//! Empty lines between commands and before DONE are passed over (see [`crate::quirks`]).

pub(super) mod announcement;
mod frame;
pub(super) mod skip;

use memchr::memchr2;

use announcement::Announcement;
pub use frame::Frame;
use skip::{Skip, Skipped};

/// What one command may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Octets outside literals, without line ends.
    pub text_max_bytes: usize,
    /// Literals of one command.
    pub literals_max: usize,
    /// Octets in its literals together, messages aside.
    pub literals_max_bytes: usize,
    /// Octets that are read and dropped for one refused command. Beyond, it is
    /// cheaper for everybody to close. RFC 7888 §4.
    pub swallow_max_bytes: u64,
}

impl Default for Limits {
    /// DESIGN, limits; swallowing: a message of the size accepted by default.
    fn default() -> Self {
        Self {
            text_max_bytes: 64 * 1024,
            literals_max: 1000,
            literals_max_bytes: 1024 * 1024,
            swallow_max_bytes: 50 * 1024 * 1024,
        }
    }
}

/// Finds the edges of commands. Between two commands it holds nothing but its
/// limits and whether a line is awaited.
#[derive(Debug)]
pub struct Framer {
    limits: Limits,
    state: State,
    frame: Frame,
    /// A CR was seen; its LF must be next.
    has_cr: bool,
    /// Literals of this command so far, messages included.
    literal_count: usize,
    /// Known once a message was announced.
    tag: Option<String>,
}

#[derive(Debug)]
enum State {
    /// The text of a command.
    AwaitCommand,
    /// The text behind a message: the next one, or the end.
    AwaitRest,
    /// [`Framer::expect_line`] was called.
    AwaitLine,
    AwaitLiteral {
        left: u64,
    },
    AwaitAnswer(Announcement),
    /// The go-ahead of a message is to be given.
    AwaitGoAhead {
        size: u64,
    },
    AwaitMessage {
        left: u64,
    },
    Skipping(Skip),
    HungUp(FaultKind),
}

/// What to do next.
#[derive(Debug)]
pub enum Step<'i> {
    /// All input is used up.
    NeedInput,
    /// Write a continuation request; the client waits for it.
    Continue,
    /// A whole command.
    Command(Frame),
    /// The head of APPEND or REPLACE, or of a further message of APPEND; the
    /// message comes next. Answer with `accept_message` or `refuse_message`.
    Message {
        /// Everything since the command began or the last message ended.
        frame: Frame,
        /// Octets announced.
        size: u64,
    },
    /// The question asked by `Message` is not answered yet.
    AwaitAnswer,
    /// Octets of the message.
    MessageOctets(&'i [u8]),
    /// The message is whole.
    MessageEnd,
    /// The command that had messages is whole; this is what followed the last.
    AppendEnd(Frame),
    /// The line asked for.
    Line(Frame),
    /// Not a command. What is left of it will be skipped.
    Fault(Fault),
    /// Too much to skip, or asked again after that: close.
    HangUp(Fault),
}

/// Something that is no command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Its tag, if that much could be read.
    pub tag: Option<String>,
    /// What is wrong.
    pub kind: FaultKind,
}

/// Why something is no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// Over `text_max_bytes`.
    TooLong,
    /// A CR without LF.
    BareCr,
    /// A LF without CR.
    BareLf,
    /// Over `literals_max`.
    TooManyLiterals,
    /// Over `literals_max_bytes`.
    LiteralTooLong,
}

impl FaultKind {
    /// What the client is told; fixed and safe.
    pub fn text(self) -> &'static str {
        match self {
            Self::TooLong => "command line too long",
            Self::BareCr => "bare CR in command, lines end in CRLF",
            Self::BareLf => "bare LF in command, lines end in CRLF",
            Self::TooManyLiterals => "too many literals in one command",
            Self::LiteralTooLong => "literal too long",
        }
    }
}

impl Framer {
    /// A framer before the first command.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::AwaitCommand,
            frame: Frame::default(),
            has_cr: false,
            literal_count: 0,
            tag: None,
        }
    }

    /// Whether no octet of a command was used yet, so that a session can be
    /// written out. True also while a line is awaited and has not begun.
    pub fn is_between_commands(&self) -> bool {
        matches!(self.state, State::AwaitCommand | State::AwaitLine)
            && self.frame.is_empty()
            && !self.has_cr
    }

    /// The next line is not a command but the end of the one before: IDLE's
    /// DONE. To be called between commands. A fault instead of it ends IDLE too.
    pub fn expect_line(&mut self) {
        debug_assert!(self.is_between_commands());
        self.state = State::AwaitLine;
    }

    /// Takes the message announced; the client gets its go-ahead.
    pub fn accept_message(&mut self) {
        if let State::AwaitAnswer(announcement) = self.state {
            let size = announcement.size;
            self.state = match announcement.unasked {
                true => State::AwaitMessage { left: size },
                false => State::AwaitGoAhead { size },
            };
        }
    }

    /// Gives the command up, before its message or within: what is left of it
    /// is skipped. The tagged answer is due now, and ends the command.
    ///
    /// A message that waits for its go-ahead is taken not to come. A client that
    /// sends it all the same (ImapEngine for PHP does) would have it read as
    /// commands: where the size is bearable, rather accept, drop the octets and
    /// say NO at `AppendEnd`.
    pub fn refuse_message(&mut self) {
        match self.state {
            State::AwaitAnswer(announcement) => self.refuse_literal(announcement),
            State::AwaitGoAhead { .. } => self.begin_command(),
            State::AwaitMessage { left } => self.state = State::Skipping(Skip::literal(left)),
            State::AwaitRest => self.state = State::Skipping(self.skip_text()),
            _ => debug_assert!(false, "no message to refuse"),
        }
    }

    /// What comes next in the input; uses up its octets.
    pub fn next<'i>(&mut self, input: &mut &'i [u8]) -> Step<'i> {
        loop {
            match &mut self.state {
                State::AwaitAnswer(_) => return Step::AwaitAnswer,
                State::HungUp(kind) => {
                    let kind = *kind;
                    return Step::HangUp(self.fault(kind));
                }
                State::AwaitGoAhead { size } => {
                    self.state = State::AwaitMessage { left: *size };
                    return Step::Continue;
                }
                State::AwaitMessage { left: 0 } => {
                    self.state = State::AwaitRest;
                    return Step::MessageEnd;
                }
                State::AwaitLiteral { left: 0 } => self.state = State::AwaitCommand,
                _ if input.is_empty() => return Step::NeedInput,
                State::AwaitMessage { left } => {
                    return Step::MessageOctets(take(input, left));
                }
                State::AwaitLiteral { left } => {
                    let octets = take(input, left);
                    self.frame.push_literal(octets);
                }
                State::Skipping(skip) => match skip.take(input, self.limits.swallow_max_bytes) {
                    Skipped::Partly => {}
                    Skipped::Wholly => self.begin_command(),
                    Skipped::TooMuch => {
                        self.state = State::HungUp(FaultKind::LiteralTooLong);
                    }
                },
                State::AwaitCommand | State::AwaitRest | State::AwaitLine => {
                    if let Some(step) = self.take_text(input) {
                        return step;
                    }
                }
            }
        }
    }

    fn take_text<'i>(&mut self, input: &mut &'i [u8]) -> Option<Step<'i>> {
        if self.has_cr {
            self.has_cr = false;
            // The octet behind a bare CR stays: it may begin the real CRLF.
            return match take_lf(input) {
                true => self.on_line(),
                false => Some(self.refuse_text(FaultKind::BareCr)),
            };
        }
        let end = memchr2(b'\r', b'\n', input);
        let text = input
            .split_off(..end.unwrap_or(input.len()))
            .unwrap_or_default();
        let room = self.limits.text_max_bytes - self.frame.text_length();
        if text.len() > room {
            self.frame.push_text(&text[..room]);
            let mut skip = self.skip_text();
            skip.pass_text(&text[room..]);
            let fault = self.fault(FaultKind::TooLong);
            self.drop_frame();
            self.state = State::Skipping(skip);
            return Some(Step::Fault(fault));
        }
        self.frame.push_text(text);
        match end.and_then(|_| input.split_off_first()) {
            Some(b'\r') => {
                self.has_cr = true;
                None
            }
            Some(_) => Some(self.refuse_text(FaultKind::BareLf)),
            None => None,
        }
    }

    fn on_line<'i>(&mut self) -> Option<Step<'i>> {
        if matches!(self.state, State::AwaitLine) {
            if self.frame.is_empty() {
                return None;
            }
            // Whoever sends a command instead of DONE may send its literal.
            let announced = Announcement::at_end_of(self.frame.last_line());
            let line = self.end_command();
            if let Some(literal) = announced {
                self.refuse_literal(literal);
            }
            return Some(Step::Line(line));
        }
        let is_rest = matches!(self.state, State::AwaitRest);
        match Announcement::at_end_of(self.frame.last_line()) {
            None if is_rest => Some(Step::AppendEnd(self.end_command())),
            None if self.frame.is_empty() => None,
            None => Some(Step::Command(self.end_command())),
            Some(announcement) => self.on_announcement(announcement, is_rest),
        }
    }

    fn on_announcement<'i>(&mut self, literal: Announcement, is_rest: bool) -> Option<Step<'i>> {
        self.literal_count += 1;
        if self.literal_count > self.limits.literals_max {
            return Some(self.refuse_literal_with(literal, FaultKind::TooManyLiterals));
        }
        if is_rest || self.frame.awaits_message(literal) {
            if self.tag.is_none() {
                self.tag = self.frame.tag().map(str::to_owned);
            }
            self.frame.end_with_message(literal);
            self.state = State::AwaitAnswer(literal);
            return Some(Step::Message {
                frame: std::mem::take(&mut self.frame),
                size: literal.size,
            });
        }
        let room = self.limits.literals_max_bytes - self.frame.literal_octets();
        if literal.size > room as u64 {
            return Some(self.refuse_literal_with(literal, FaultKind::LiteralTooLong));
        }
        self.frame.begin_literal(literal);
        self.state = State::AwaitLiteral { left: literal.size };
        (!literal.unasked).then_some(Step::Continue)
    }

    fn refuse_text<'i>(&mut self, kind: FaultKind) -> Step<'i> {
        let fault = self.fault(kind);
        self.drop_frame();
        self.state = State::Skipping(Skip::text(&[]));
        Step::Fault(fault)
    }

    fn refuse_literal_with<'i>(&mut self, literal: Announcement, kind: FaultKind) -> Step<'i> {
        let fault = self.fault(kind);
        self.refuse_literal(literal);
        match self.state {
            State::HungUp(_) => Step::HangUp(fault),
            _ => Step::Fault(fault),
        }
    }

    /// A literal that waits for our go-ahead does not come without it; one that
    /// does not wait is swallowed.
    fn refuse_literal(&mut self, literal: Announcement) {
        self.drop_frame();
        if !literal.unasked {
            self.begin_command();
        } else if literal.size > self.limits.swallow_max_bytes {
            self.state = State::HungUp(FaultKind::LiteralTooLong);
        } else {
            self.state = State::Skipping(Skip::literal(literal.size));
        }
    }

    /// Skips from where the text stands: its last octets may be the beginning
    /// of an announcement.
    fn skip_text(&self) -> Skip {
        let mut skip = Skip::text(self.frame.last_line());
        skip.has_cr = self.has_cr;
        skip
    }

    fn fault(&self, kind: FaultKind) -> Fault {
        let tag = self.tag.as_deref().or_else(|| self.frame.tag());
        Fault {
            tag: tag.map(str::to_owned),
            kind,
        }
    }

    fn begin_command(&mut self) {
        self.state = State::AwaitCommand;
        self.drop_frame();
        self.literal_count = 0;
        self.tag = None;
    }

    fn end_command(&mut self) -> Frame {
        let frame = std::mem::take(&mut self.frame);
        self.begin_command();
        frame
    }

    fn drop_frame(&mut self) {
        self.frame = Frame::default();
        self.has_cr = false;
    }
}

/// Takes a LF if it is next.
fn take_lf(input: &mut &[u8]) -> bool {
    let is_lf = input.first() == Some(&b'\n');
    if is_lf {
        input.split_off_first();
    }
    is_lf
}

/// Takes what is there of an awaited number of octets.
fn take<'i>(input: &mut &'i [u8], left: &mut u64) -> &'i [u8] {
    let count = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
    *left -= count as u64;
    input.split_off(..count).unwrap_or_default()
}

#[cfg(test)]
mod tests;
