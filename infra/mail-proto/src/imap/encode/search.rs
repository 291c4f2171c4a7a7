//! SEARCH, ESEARCH, SORT, THREAD. RFC 9051 §7.3.4, RFC 4731, 5256, 5267, 7162, 9394.

use super::super::sequence::{Addressing, PartialRange, SequenceSet};
use super::Encoder;
use super::string::string;
use crate::output::number;

/// What ESEARCH tells; only what is there.
#[derive(Debug, Clone, Copy)]
pub struct SearchResult<'a> {
    /// Of the command that asked; none when told unasked.
    pub tag: Option<&'a str>,
    /// What the numbers are.
    pub by: Addressing,
    /// MIN.
    pub min: Option<u32>,
    /// MAX.
    pub max: Option<u32>,
    /// ALL; left out by itself when it is empty.
    pub all: Option<Numbers<'a>>,
    /// COUNT.
    pub count: Option<u32>,
    /// PARTIAL: the window asked for and what is in it.
    pub partial: Option<(PartialRange, Numbers<'a>)>,
    /// MODSEQ: the highest of all that were found.
    pub modseq: Option<u64>,
}

/// Numbers of messages.
#[derive(Debug, Clone, Copy)]
pub enum Numbers<'a> {
    /// In no order: of SEARCH.
    Set(&'a SequenceSet),
    /// In this order: of SORT.
    Ordered(&'a [u32]),
}

/// One message of a THREAD response, in the order of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadEntry {
    /// How many messages it answers to are above it; 0 begins a thread.
    pub depth: u32,
    /// Its number; none for a message that is missing and holds its answers
    /// together. Only at depth 0, with two answers or more.
    pub number: Option<u32>,
}

impl Encoder<'_> {
    /// SEARCH, of IMAP4rev1, with the highest MODSEQ if the search used it.
    pub fn search(&mut self, numbers: impl IntoIterator<Item = u32>, modseq: Option<u64>) {
        self.numbers("* SEARCH", numbers);
        if let Some(modseq) = modseq {
            self.out.extend_from_slice(b" (MODSEQ ");
            number(self.out, modseq);
            self.out.push(b')');
        }
        self.end();
    }

    /// SORT, with the highest MODSEQ if the search used it.
    pub fn sort(&mut self, numbers: impl IntoIterator<Item = u32>, modseq: Option<u64>) {
        self.numbers("* SORT", numbers);
        if let Some(modseq) = modseq {
            self.out.extend_from_slice(b" (MODSEQ ");
            number(self.out, modseq);
            self.out.push(b')');
        }
        self.end();
    }

    /// ESEARCH, for SEARCH and SORT with RETURN.
    pub fn esearch(&mut self, result: &SearchResult<'_>) {
        self.out.extend_from_slice(b"* ESEARCH");
        if let Some(tag) = result.tag {
            self.out.extend_from_slice(b" (TAG ");
            string(self.out, tag.as_bytes(), self.form);
            self.out.push(b')');
        }
        if result.by == Addressing::Uid {
            self.out.extend_from_slice(b" UID");
        }
        let named = |out: &mut Vec<u8>, name: &str, value: Option<u64>| {
            if let Some(value) = value {
                out.extend_from_slice(name.as_bytes());
                number(out, value);
            }
        };
        named(self.out, " MIN ", result.min.map(u64::from));
        named(self.out, " MAX ", result.max.map(u64::from));
        named(self.out, " COUNT ", result.count.map(u64::from));
        if let Some(all) = result.all.filter(|all| !all.is_empty()) {
            self.out.extend_from_slice(b" ALL ");
            all.encode(self.out);
        }
        if let Some((window, found)) = result.partial {
            let sign = if window.from_end { "-" } else { "" };
            let (first, last) = (window.first, window.last);
            let text = format!(" PARTIAL ({sign}{first}:{sign}{last} ");
            self.out.extend_from_slice(text.as_bytes());
            match found.is_empty() {
                true => self.out.extend_from_slice(b"NIL"),
                false => found.encode(self.out),
            }
            self.out.push(b')');
        }
        named(self.out, " MODSEQ ", result.modseq);
        self.end();
    }

    /// THREAD. Linear and without recursion: threads are as deep as people
    /// answer each other.
    pub fn thread(&mut self, entries: &[ThreadEntry]) {
        self.out.extend_from_slice(b"* THREAD");
        if !entries.is_empty() {
            self.out.push(b' ');
        }
        let answers = answer_counts(entries);
        // Above the entry: its place, and whether it opened a parenthesis.
        let mut above: Vec<(usize, bool)> = Vec::new();
        for (place, entry) in entries.iter().enumerate() {
            while let Some((_, opened)) =
                above.pop_if(|(other, _)| entries[*other].depth >= entry.depth)
            {
                if opened {
                    self.out.push(b')');
                }
            }
            let parent = above.last().map(|(parent, _)| *parent);
            let opens = parent.is_none_or(|parent| answers[parent] > 1);
            let is_behind_number = parent
                .is_some_and(|parent| parent + 1 == place && entries[parent].number.is_some());
            if is_behind_number {
                self.out.push(b' ');
            }
            if opens {
                self.out.push(b'(');
            }
            if let Some(message) = entry.number {
                number(self.out, message.into());
            }
            above.push((place, opens));
        }
        for (_, opened) in above.into_iter().rev() {
            if opened {
                self.out.push(b')');
            }
        }
        self.end();
    }

    fn numbers(&mut self, what: &str, numbers: impl IntoIterator<Item = u32>) {
        self.out.extend_from_slice(what.as_bytes());
        for one in numbers {
            self.out.push(b' ');
            number(self.out, one.into());
        }
    }
}

/// How many entries answer directly to each.
fn answer_counts(entries: &[ThreadEntry]) -> Vec<u32> {
    let mut counts = vec![0; entries.len()];
    let mut above: Vec<usize> = Vec::new();
    for (place, entry) in entries.iter().enumerate() {
        while above
            .pop_if(|other| entries[*other].depth >= entry.depth)
            .is_some()
        {}
        if let Some(parent) = above.last() {
            counts[*parent] += 1;
        }
        above.push(place);
    }
    counts
}

impl Numbers<'_> {
    fn is_empty(&self) -> bool {
        match self {
            Self::Set(set) => set.is_empty(),
            Self::Ordered(numbers) => numbers.is_empty(),
        }
    }

    /// In `sequence-set` form; what is in order keeps it.
    fn encode(&self, out: &mut Vec<u8>) {
        let numbers = match self {
            Self::Set(set) => return set.encode(out),
            Self::Ordered(numbers) => numbers,
        };
        let runs = numbers.chunk_by(|one, next| one.checked_add(1) == Some(*next));
        for (index, run) in runs.enumerate() {
            if index > 0 {
                out.push(b',');
            }
            number(out, run[0].into());
            if run.len() > 1 {
                out.push(b':');
                number(out, run[run.len() - 1].into());
            }
        }
    }
}
