//! Finds the messages that match, in slices. Everything here blocks.
//!
//! Three rounds, each only for messages that the one before could not decide: by row, by the fields on the card, by all that
//! there is. The first two are one walk through the index that copies nothing; whatever the keys are, a body is read only
//! if it matters.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::super::message::{Message, Unreadable};
use super::super::text::fold::{Folded, Needles};
use super::super::text::{Place, each_text, header_text};
use super::facts::Facts;
use super::key::Keys;
use crate::card::Card;
use crate::volume::{Content, MailboxReader, ReadError, Sight, Snapshot, Summary, Want};

/// One search at work.
#[derive(Debug)]
pub(super) struct Searcher {
    reader: MailboxReader,
    keys: Keys,
    /// The messages to look at, growing.
    uids: Vec<u32>,
    /// Up to here rows have been looked at.
    next_row: usize,
    /// What the rows left open, growing; up to `next_open` it is decided.
    open: Vec<u32>,
    next_open: usize,
    needles: Needles,
    /// For text at work.
    scratch: Folded,
    /// UID and MODSEQ of those that match, growing.
    pub(super) found: Vec<(u32, u64)>,
    /// The first message that could not be read.
    pub(super) failed: Option<ReadError>,
    pub(super) has_failed: bool,
    /// Messages were expunged meanwhile.
    pub(super) has_missing: bool,
}

impl Searcher {
    pub(super) fn new(reader: MailboxReader, uids: Vec<u32>, keys: Keys) -> Self {
        Self {
            reader,
            needles: Needles::new(keys.strings.iter().map(|(text, _)| text.as_str())),
            scratch: Folded::default(),
            keys,
            uids,
            next_row: 0,
            open: Vec::new(),
            next_open: 0,
            found: Vec::new(),
            failed: None,
            has_failed: false,
            has_missing: false,
        }
    }

    /// Messages done.
    pub(super) fn done(&self) -> usize {
        self.next_row - (self.open.len() - self.next_open)
    }

    /// Messages in all.
    pub(super) fn goal(&self) -> usize {
        self.uids.len()
    }

    /// Works for a while; whether that was all.
    pub(super) fn step(&mut self) -> Result<bool, ReadError> {
        let until = Instant::now() + STEP;
        while Instant::now() < until {
            if self.next_open < self.open.len() {
                self.look_into(until)?;
            } else if self.next_row < self.uids.len() {
                self.look_at_rows(until)?;
            } else {
                // Rows and contents were decided in turns.
                self.found.sort_unstable();
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The first two rounds, where the index has what they take.
    fn look_at_rows(&mut self, until: Instant) -> Result<(), ReadError> {
        let end = self.uids.len().min(self.next_row + ROWS_SLICE);
        let uids = &self.uids[self.next_row..end];
        self.open.clear();
        self.next_open = 0;
        let mut count = 0;
        let looked = self.reader.look(uids, |sight| {
            match from_index(&self.keys, sight, &mut self.scratch)? {
                Some(true) => {
                    let Summary { uid, modseq, .. } = sight.summary;
                    self.found.push((uid, modseq));
                }
                Some(false) => {}
                None => self.open.push(sight.summary.uid),
            }
            count += 1;
            // The clock is not read for each: that costs a good part of what a message costs.
            Ok(match count % CLOCK_COUNT == 0 && Instant::now() >= until {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            })
        })?;
        match looked {
            Some(done_count) => {
                self.has_missing |= count < done_count;
                self.next_row += done_count;
            }
            None => {
                self.has_missing = true;
                self.next_row = end;
            }
        }
        Ok(())
    }

    fn look_into(&mut self, until: Instant) -> Result<(), ReadError> {
        let end = self.open.len().min(self.next_open + CONTENTS_SLICE);
        let uids = &self.open[self.next_open..end];
        let Some(batch) = self.reader.messages(uids, Want::HEADER)? else {
            self.has_missing = true;
            self.next_open = self.open.len();
            return Ok(());
        };
        self.has_missing |= batch.now.messages.len() < batch.done_count;
        let last_done = uids[..batch.done_count].last().copied();
        for (summary, content) in batch.now.messages.iter().zip(batch.contents) {
            match self.decide(&batch.now, summary, content) {
                Ok(true) => self.found.push((summary.uid, summary.modseq)),
                Ok(false) => {}
                Err(Unreadable::Gone) => self.has_missing = true,
                Err(Unreadable::Failed(error)) => {
                    self.has_failed = true;
                    self.failed.get_or_insert(error);
                }
            }
            self.next_open = self.open.partition_point(|uid| *uid <= summary.uid);
            if Instant::now() >= until {
                return Ok(());
            }
        }
        if let Some(last) = last_done {
            self.next_open = self.open.partition_point(|uid| *uid <= last);
        }
        Ok(())
    }

    /// The third round.
    fn decide(
        &mut self,
        now: &Snapshot,
        summary: &Summary,
        content: Content,
    ) -> Result<bool, Unreadable> {
        let (root, scratch) = (&self.keys.root, &mut self.scratch);
        let has_keyword = |keyword: &str| {
            let mut has = now.keywords_of(summary);
            has.any(|has| has.eq_ignore_ascii_case(keyword))
        };
        let mut facts = Facts {
            summary,
            has_keyword: &has_keyword,
            ids: (content.identity, content.thread),
            header: None,
            strings: None,
        };
        let mut message = Message::new(content);
        let block = match self.keys.needs_header {
            true => message.header(&self.reader)?,
            false => message.fields(&self.reader)?,
        };
        let prologue = message.content.prologue.clone();
        let blocks = [&prologue[..], &block[..]];
        facts.header = Some((blocks, self.keys.needs_header));
        let is_text = |at: usize| self.keys.strings[at].1;
        let needles = &mut self.needles;
        needles.begin();
        if self.keys.strings.iter().any(|(_, is_text)| *is_text) {
            for block in blocks {
                needles.push(&header_text(block), is_text);
                needles.end_text();
            }
        }
        facts.strings = Some((needles.found().to_vec(), self.keys.strings.is_empty()));
        if let Some(decided) = facts.decide(root, scratch) {
            return Ok(decided);
        }
        each_text(&mut message, &self.reader, |place, piece| {
            match piece {
                Some(piece) => needles.push(piece, |at| place == Place::Body || is_text(at)),
                None => needles.end_text(),
            }
            match needles.is_done() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
        facts.strings = Some((needles.found().to_vec(), true));
        Ok(facts.decide(root, scratch).unwrap_or(false))
    }
}

/// What a row and, if it matters, the card and the trace lines say.
fn from_index(
    keys: &Keys,
    sight: &mut Sight<'_, '_>,
    scratch: &mut Folded,
) -> Result<Option<bool>, ReadError> {
    let (numbers, names, summary) = (sight.keywords, sight.names, sight.summary);
    let has_keyword = |keyword: &str| {
        let names = numbers
            .iter()
            .filter_map(|number| names.get(usize::from(number.get())));
        names
            .into_iter()
            .any(|has| has.eq_ignore_ascii_case(keyword))
    };
    let mut facts = Facts {
        summary: &summary,
        has_keyword: &has_keyword,
        ids: (sight.identity, sight.thread),
        header: None,
        strings: None,
    };
    let decided = facts.decide(&keys.root, scratch);
    if decided.is_some() || !keys.reads_fields {
        return Ok(decided);
    }
    let prologue = sight.prologue()?;
    let Some((fields, is_whole)) = sight.card()?.and_then(Card::fields_in) else {
        return Ok(None);
    };
    facts.header = Some(([&prologue, fields], is_whole));
    Ok(facts.decide(&keys.root, scratch))
}

/// How long one visit to a thread takes, a large message aside.
const STEP: Duration = Duration::from_millis(50);
/// Messages whose rows are looked at in one read of the index.
const ROWS_SLICE: usize = 4000;
/// Messages looked at between two looks at the clock.
const CLOCK_COUNT: usize = 64;
/// Messages whose prologues and places are looked up in one read of the index.
const CONTENTS_SLICE: usize = 100;
