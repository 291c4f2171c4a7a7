//! A client's mistakes: counted, and forgiven when a message of its is taken, as Postfix's smtpd forgives them.

use super::super::reply::Reply;
use super::{CloseReason, Server, State};

/// How many mistakes are borne.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorLimits {
    /// Mistakes from which on [`Server::is_slowed`] is true. DESIGN §10: 10.
    pub soft: u32,
    /// Mistakes at which the connection is closed with 421. DESIGN §10: 20.
    pub hard: u32,
    /// Commands that bring no mail (NOOP, VRFY, RSET, ...) allowed between two
    /// messages; each beyond counts as a mistake. DESIGN §10: 100.
    pub junk: u32,
}

impl Default for ErrorLimits {
    fn default() -> Self {
        Self {
            soft: 10,
            hard: 20,
            junk: 100,
        }
    }
}

/// What the core refused by itself since it was asked last, for the shell to count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Mistakes of the client.
    pub errors: u32,
    /// Commands beyond [`ErrorLimits::junk`].
    pub junk: u32,
    /// Recipients beyond [`Config::recipients_max`](super::super::Config::recipients_max).
    pub recipients_over: u32,
    /// Messages whose declared size is over the limit.
    pub sizes_over: u32,
}

/// The counts of one connection.
#[derive(Debug, Default)]
pub(super) struct Mistakes {
    errors: u32,
    junk: u32,
    tally: Tally,
}

impl Mistakes {
    pub(super) fn forgive(&mut self) {
        self.errors = 0;
        self.junk = 0;
    }

    pub(super) fn tell_recipient_over(&mut self) {
        self.tally.recipients_over += 1;
    }

    /// Whether MAIL was refused for its size.
    pub(super) fn tell_size(&mut self, refusal: &Reply) {
        self.tally.sizes_over += u32::from(*refusal == super::super::mail::TOO_LARGE);
    }
}

impl Server {
    /// Whether replies should be delayed: the soft error limit is reached. Each then comes in a `Send` of its own.
    pub fn is_slowed(&self) -> bool {
        self.mistakes.errors >= self.config.errors.soft
    }

    /// From now on so many mistakes are borne; what was counted stays.
    pub fn set_error_limits(&mut self, limits: ErrorLimits) {
        self.config.errors = limits;
    }

    /// What was refused since the last call, and begins anew.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.mistakes.tally)
    }

    pub(super) fn count_error(&mut self) {
        self.mistakes.errors = self.mistakes.errors.saturating_add(1);
        self.mistakes.tally.errors += 1;
        if self.mistakes.errors >= self.config.errors.hard
            && !matches!(self.state, State::Closing(_))
        {
            TOO_MANY_ERRORS.write_to(self.out.octets_mut());
            self.close(CloseReason::TooManyErrors);
        }
    }

    pub(super) fn count_junk(&mut self) {
        self.mistakes.junk = self.mistakes.junk.saturating_add(1);
        if self.mistakes.junk > self.config.errors.junk {
            self.mistakes.tally.junk += 1;
            self.count_error();
        }
    }
}

const TOO_MANY_ERRORS: Reply = Reply::new(421, (4, 7, 0), "too many errors");
