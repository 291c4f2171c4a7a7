//! What is left of a refused command, read and dropped.

use memchr::memchr;

use super::announcement::{Announcement, TAIL};

/// Reads to the end of a command without keeping it: text to its CRLF, and
/// every literal announced there that comes unasked.
#[derive(Debug)]
pub(in crate::imap) struct Skip {
    literal_left: u64,
    swallowed: u64,
    /// The last octets of the line.
    tail: [u8; TAIL],
    tail_length: usize,
    pub(super) has_cr: bool,
}

/// How far it came.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::imap) enum Skipped {
    Partly,
    Wholly,
    /// The literals come to more than anybody should read.
    TooMuch,
}

impl Skip {
    /// From within a line, of which this is known.
    pub(in crate::imap) fn text(line: &[u8]) -> Self {
        let mut skip = Self {
            literal_left: 0,
            swallowed: 0,
            tail: [0; TAIL],
            tail_length: 0,
            has_cr: false,
        };
        skip.pass_text(line);
        skip
    }

    /// From within a literal of which this much is to come.
    pub(in crate::imap) fn literal(left: u64) -> Self {
        Self {
            literal_left: left,
            swallowed: left,
            ..Self::text(&[])
        }
    }

    /// Uses up input until a decision is due.
    pub(in crate::imap) fn take(&mut self, input: &mut &[u8], swallow_max_bytes: u64) -> Skipped {
        if self.literal_left > 0 {
            super::take(input, &mut self.literal_left);
            return Skipped::Partly;
        }
        if std::mem::take(&mut self.has_cr) && super::take_lf(input) {
            return self.on_line(swallow_max_bytes);
        }
        let end = memchr(b'\r', input);
        let text = input
            .split_off(..end.unwrap_or(input.len()))
            .unwrap_or_default();
        self.pass_text(text);
        if input.split_off_first().is_some() {
            self.has_cr = true;
        }
        Skipped::Partly
    }

    pub(super) fn pass_text(&mut self, text: &[u8]) {
        let text = &text[text.len().saturating_sub(TAIL)..];
        let kept = self.tail_length.min(TAIL - text.len());
        self.tail
            .copy_within(self.tail_length - kept..self.tail_length, 0);
        self.tail[kept..kept + text.len()].copy_from_slice(text);
        self.tail_length = kept + text.len();
    }

    fn on_line(&mut self, swallow_max_bytes: u64) -> Skipped {
        let announced = Announcement::at_end_of(&self.tail[..self.tail_length]);
        self.tail_length = 0;
        match announced {
            // A client that waits for our go-ahead reads the refusal instead.
            None | Some(Announcement { unasked: false, .. }) => Skipped::Wholly,
            Some(literal) => {
                self.literal_left = literal.size;
                self.swallowed = self.swallowed.saturating_add(literal.size);
                match self.swallowed > swallow_max_bytes {
                    true => Skipped::TooMuch,
                    false => Skipped::Partly,
                }
            }
        }
    }
}
