//! A bounded buffer of octets received, and the framing of lines in it.
//!
//! Frame first, parse second: a line's edges are found before anybody asks
//! what it means, so that nonsense cannot shift where the next command begins.
//! Only CRLF ends a line (RFC 5321 §2.3.8). A line with a bare CR, a bare LF
//! or too many octets is reported once, at once, and skipped to its CRLF.

use std::ops::Range;

use memchr::{memchr, memchr2};

use crate::password::wipe;

/// Octets received and not yet used.
#[derive(Debug, Default)]
pub(crate) struct Input {
    octets: Vec<u8>,
    start: usize,
    /// Octets after `start` known to hold no end of line.
    scanned: usize,
    /// A faulty line is being skipped.
    skipping: bool,
    /// Octets before `start` that are of the last faulty line.
    faulty: usize,
    /// Octets of the faulty line that came so far.
    skipped: u64,
}

/// What stands at the front of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// No whole line yet.
    Partial,
    /// A whole line, without its CRLF; already counted as used.
    Line(Range<usize>),
    /// A line that is none. What is left of it will be skipped.
    Fault(LineFault),
}

/// Why a line is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineFault {
    TooLong,
    BareCr,
    BareLf,
}

impl Input {
    /// Octets waiting.
    pub(crate) fn len(&self) -> usize {
        self.octets.len() - self.start
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes as many octets as fit under `max_bytes` waiting; returns how many.
    pub(crate) fn receive(&mut self, octets: &[u8], max_bytes: usize) -> usize {
        if self.start > 0 {
            // What waits is the beginning of one line or an unread pipeline:
            // short, or read in large pieces. Either way one move per read.
            self.octets.copy_within(self.start.., 0);
            self.octets.truncate(self.len());
            self.start = 0;
        }
        let taken = octets.len().min(max_bytes.saturating_sub(self.len()));
        self.octets.extend_from_slice(&octets[..taken]);
        taken
    }

    /// What waits.
    pub(crate) fn waiting(&self) -> &[u8] {
        &self.octets[self.start..]
    }

    /// The octets of a range given by this buffer. Valid until `receive`.
    pub(crate) fn slice(&self, range: Range<usize>) -> &[u8] {
        &self.octets[range]
    }

    /// Drops everything that waits, and overwrites it.
    pub(crate) fn clear(&mut self) {
        wipe(&mut self.octets);
        self.octets.clear();
        self.start = 0;
        self.scanned = 0;
        self.skipping = false;
    }

    /// Overwrites octets that held a secret.
    pub(crate) fn wipe(&mut self, range: Range<usize>) {
        wipe(&mut self.octets[range]);
    }

    /// Takes everything that waits.
    pub(crate) fn take_all(&mut self) -> Vec<u8> {
        let all = self.octets[self.start..].to_vec();
        self.clear();
        all
    }

    /// Takes what waits, at most `count_max` octets.
    pub(crate) fn take_up_to(&mut self, count_max: usize) -> Range<usize> {
        self.consume(self.len().min(count_max))
    }

    /// Gives the memory back when nothing waits: an idle session costs none.
    pub(crate) fn release_when_idle(&mut self) {
        if self.is_empty() && self.octets.capacity() > 0 {
            wipe(&mut self.octets);
            self.octets = Vec::new();
            self.start = 0;
        }
    }

    /// The whole buffer and where the waiting octets begin, for a reader that
    /// rewrites them in place.
    pub(crate) fn waiting_mut(&mut self) -> (&mut [u8], usize) {
        (&mut self.octets, self.start)
    }

    /// Counts octets at the front as used.
    pub(crate) fn consume(&mut self, count: usize) -> Range<usize> {
        let from = self.start;
        self.start += count;
        self.scanned = 0;
        from..self.start
    }

    /// Takes the next line of at most `line_max_bytes` without CRLF.
    pub(crate) fn next_line(&mut self, line_max_bytes: usize) -> Frame {
        if self.skipping && !self.skip_to_line_end() {
            return Frame::Partial;
        }
        let waiting = &self.octets[self.start..];
        let Some(found) = memchr2(b'\r', b'\n', &waiting[self.scanned..]) else {
            self.scanned = waiting.len();
            if waiting.len() > line_max_bytes {
                return self.fault(LineFault::TooLong, waiting.len());
            }
            return Frame::Partial;
        };
        let at = self.scanned + found;
        if at > line_max_bytes {
            return self.fault(LineFault::TooLong, at);
        }
        if waiting[at] == b'\n' {
            return self.fault(LineFault::BareLf, at + 1);
        }
        match waiting.get(at + 1) {
            None => {
                self.scanned = at;
                Frame::Partial
            }
            Some(b'\n') => {
                let range = self.consume(at + 2);
                Frame::Line(range.start..range.end - 2)
            }
            Some(_) => self.fault(LineFault::BareCr, at + 1),
        }
    }

    /// Leaves the rest of a faulty line to the caller, who asks for it at once; gives what was used of it.
    pub(crate) fn take_over_skipping(&mut self) -> &[u8] {
        self.skipping = false;
        self.faulty()
    }

    /// What was used of a faulty line, right behind its fault.
    pub(crate) fn faulty(&self) -> &[u8] {
        &self.octets[self.start - self.faulty..self.start]
    }

    /// Octets of a faulty line that came so far; 0 when none is being skipped.
    pub(crate) fn skipped(&self) -> u64 {
        if self.skipping { self.skipped } else { 0 }
    }

    fn fault(&mut self, fault: LineFault, used: usize) -> Frame {
        self.skipped = used as u64;
        self.consume(used);
        self.skipping = true;
        self.faulty = used;
        Frame::Fault(fault)
    }

    /// True once the faulty line's CRLF was passed. Keeps a last CR: its LF
    /// may be the next octet to come.
    fn skip_to_line_end(&mut self) -> bool {
        loop {
            let waiting = &self.octets[self.start..];
            let Some(at) = memchr(b'\r', waiting) else {
                let skipped = self.consume(waiting.len());
                self.skipped += skipped.len() as u64;
                return false;
            };
            match waiting.get(at + 1) {
                None => {
                    self.skipped += self.consume(at).len() as u64;
                    return false;
                }
                Some(b'\n') => {
                    self.consume(at + 2);
                    self.skipping = false;
                    return true;
                }
                Some(_) => {
                    self.skipped += self.consume(at + 1).len() as u64;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn frames(octets: &[u8], piece: usize) -> Vec<String> {
        let mut input = Input::default();
        let mut seen = Vec::new();
        for part in octets.chunks(piece) {
            let mut part = part;
            while !part.is_empty() {
                let taken = input.receive(part, 12);
                assert!(taken > 0, "room whenever a line is awaited");
                part = &part[taken..];
                loop {
                    match input.next_line(8) {
                        Frame::Partial => break,
                        Frame::Line(range) => {
                            seen.push(String::from_utf8_lossy(input.slice(range)).into_owned());
                        }
                        Frame::Fault(fault) => seen.push(format!("{fault:?}")),
                    }
                }
            }
        }
        seen
    }

    #[test]
    fn lines_are_the_same_for_every_cut() {
        let octets = b"\r\nNOOP\r\n12345678\r\n123456789\r\na\nb\r\nc\rd\r\ne\r\r\nf\r\n12345678\n9\r\ng\r\n";
        let whole = frames(octets, octets.len());
        let expected = [
            "", "NOOP", "12345678", "TooLong", "BareLf", "BareCr", "BareCr", "f", "BareLf", "g",
        ];
        assert_eq!(whole, expected);
        for piece in 1..octets.len() {
            assert_eq!(frames(octets, piece), whole, "pieces of {piece}");
        }
    }

    #[test]
    fn a_fault_is_reported_before_the_line_ends() {
        let mut input = Input::default();
        input.receive(b"NOOP\n", 100);
        assert_eq!(input.next_line(10), Frame::Fault(LineFault::BareLf));
    }

    #[test]
    fn an_endless_line_holds_no_memory() {
        let mut input = Input::default();
        for _ in 0..1000 {
            assert_eq!(input.receive(&[b'x'; 64], 64), 64);
            input.next_line(10);
            assert_eq!(input.len(), 0);
        }
    }
}
