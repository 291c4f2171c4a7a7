//! Finds the messages that match, in slices. Everything here blocks.
//!
//! Three rounds, each only for messages that the one before could not decide: by row, by header, by body. A key
//! that cannot be answered yet is unknown, and so is what depends on it (Kleene's logic): whatever the keys are, a body is
//! read only if it matters.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use mail_proto::mime::{AddressEntry, Addresses, Fields, decode_words, parse_date, unfold};
use memchr::memmem::Finder;

use super::super::fetch::producer::{email_id, thread_id};
use super::super::message::{Message, Unreadable};
use super::super::text::fold::{Folded, Needles};
use super::super::text::{Place, each_text, header_text};
use super::key::{Key, Keys, is_day};
use crate::volume::{Content, MailboxReader, ReadError, Snapshot, Summary, Want};

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
                self.look_at_rows()?;
            } else {
                // Rows and contents were decided in turns.
                self.found.sort_unstable();
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn look_at_rows(&mut self) -> Result<(), ReadError> {
        let end = self.uids.len().min(self.next_row + ROWS_SLICE);
        let uids = &self.uids[self.next_row..end];
        self.next_row = end;
        self.open.clear();
        self.next_open = 0;
        let Some(batch) = self.reader.messages(uids, Want::ROWS)? else {
            self.has_missing = true;
            return Ok(());
        };
        self.has_missing |= batch.now.messages.len() < uids.len();
        for summary in &batch.now.messages {
            let facts = Facts::of_row(&batch.now, summary);
            match facts.decide(&self.keys.root) {
                Some(true) => self.found.push((summary.uid, summary.modseq)),
                Some(false) => {}
                None => self.open.push(summary.uid),
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

    fn decide(
        &self,
        now: &Snapshot,
        summary: &Summary,
        content: Content,
    ) -> Result<bool, Unreadable> {
        let mut facts = Facts::of_row(now, summary);
        facts.content = Some((email_id(&content), thread_id(&content)));
        if let Some(decided) = facts.decide(&self.keys.root) {
            return Ok(decided);
        }
        let mut message = Message::new(content);
        let block = match self.keys.needs_header {
            true => message.header(&self.reader)?,
            false => message.fields(&self.reader)?,
        };
        let prologue = message.content.prologue.clone();
        let blocks = [&prologue[..], &block[..]];
        facts.header = Some(blocks);
        if self.keys.strings.is_empty() {
            return Ok(facts.decide(&self.keys.root).unwrap_or(false));
        }
        let strings = self.keys.strings.iter().map(|(text, _)| text.as_str());
        let mut needles = Needles::new(strings);
        if self.keys.strings.iter().any(|(_, is_text)| *is_text) {
            for block in blocks {
                needles.push(&header_text(block), |at| self.keys.strings[at].1);
                needles.end_text();
            }
        }
        facts.strings = Some((needles.found().to_vec(), false));
        if let Some(decided) = facts.decide(&self.keys.root) {
            return Ok(decided);
        }
        each_text(&mut message, &self.reader, |place, piece| {
            match piece {
                Some(piece) => {
                    needles.push(piece, |at| place == Place::Body || self.keys.strings[at].1)
                }
                None => needles.end_text(),
            }
            match needles.is_done() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
        facts.strings = Some((needles.found().to_vec(), true));
        Ok(facts.decide(&self.keys.root).unwrap_or(false))
    }
}

/// What is known of one message so far.
struct Facts<'a> {
    now: &'a Snapshot,
    summary: &'a Summary,
    /// EMAILID, THREADID.
    content: Option<(String, Option<String>)>,
    /// Prologue and header of the blob.
    header: Option<[&'a [u8]; 2]>,
    /// Which strings were found, and whether the search for them is over.
    strings: Option<(Vec<bool>, bool)>,
}

impl<'a> Facts<'a> {
    fn of_row(now: &'a Snapshot, summary: &'a Summary) -> Self {
        Self {
            now,
            summary,
            content: None,
            header: None,
            strings: None,
        }
    }

    /// `None`: it cannot be told yet.
    fn decide(&self, key: &Key) -> Option<bool> {
        let summary = self.summary;
        Some(match key {
            Key::Constant(is) => *is,
            Key::And(keys) => return self.all(keys, true),
            Key::Or(keys) => return self.all(keys, false),
            Key::Not(key) => return self.decide(key).map(|is| !is),
            Key::Uids(uids) => uids.contains(summary.uid),
            Key::System(flags) => summary.flags.contains(*flags),
            Key::Keyword(keyword) => {
                let mut has = self.now.keywords_of(summary);
                has.any(|has| has.eq_ignore_ascii_case(keyword))
            }
            Key::Internal(test, day) => is_day(*test, days(summary.internal_date_ms), *day),
            Key::Saved(test, day) => is_day(*test, days(summary.save_date_ms), *day),
            Key::Larger(octets) => summary.size_octets > *octets,
            Key::Smaller(octets) => summary.size_octets < *octets,
            Key::NotAfter(ms) => summary.internal_date_ms <= *ms,
            Key::NotBefore(ms) => summary.internal_date_ms >= *ms,
            Key::ModSeq(modseq) => summary.modseq >= *modseq,
            Key::EmailId(id) => self.content.as_ref()?.0 == *id,
            Key::ThreadId(id) => self.content.as_ref()?.1.as_ref() == Some(id),
            Key::Sent(test, day) => {
                let sent = sent_day(self.header?);
                sent.is_some_and(|sent| is_day(*test, sent, *day))
            }
            Key::Header(name, finder) => has_field(self.header?, name, finder),
            Key::Body(at) | Key::Text(at) => {
                let (found, is_over) = self.strings.as_ref()?;
                return match found[*at] {
                    true => Some(true),
                    false => is_over.then_some(false),
                };
            }
        })
    }

    /// AND, or with `is_and` false OR.
    fn all(&self, keys: &[Key], is_and: bool) -> Option<bool> {
        let mut answer = Some(is_and);
        for key in keys {
            match self.decide(key) {
                Some(is) if is != is_and => return Some(!is_and),
                Some(_) => {}
                None => answer = None,
            }
        }
        answer
    }
}

/// The day in the Date field, as written there.
fn sent_day(header: [&[u8]; 2]) -> Option<i64> {
    let fields = header.into_iter().flat_map(Fields::new);
    let date = fields.filter(|field| field.is("Date")).last()?;
    parse_date(&unfold(date.value)).map(|date| date.written_day())
}

/// Whether a field of that name holds a text.
fn has_field(header: [&[u8]; 2], name: &str, finder: &Finder<'_>) -> bool {
    let is_addresses = ADDRESS_FIELDS
        .iter()
        .any(|one| name.eq_ignore_ascii_case(one));
    let mut folded = Folded::default();
    let mut has = |text: &str| finder.find(folded.again(text)).is_some();
    let mut named = header
        .into_iter()
        .flat_map(Fields::new)
        .filter(|field| field.is(name));
    named.any(|field| {
        // White space around a value is none of it.
        let value = unfold(field.value);
        // RFC 9051 §6.4.4: FROM and its like search what ENVELOPE tells. It differs where an address holds comments,
        // quotes or white space.
        has(decode_words(&value).trim())
            || (is_addresses && is_written_otherwise(&value) && has(&plain_addresses(&value)))
    })
}

/// Whether an address in it may be written with more than its octets.
fn is_written_otherwise(value: &[u8]) -> bool {
    [&b"("[..], b"\"@", b" @", b"@ "]
        .iter()
        .any(|sign| memchr::memmem::find(value, sign).is_some())
}

/// The addresses alone, as `local@domain`.
fn plain_addresses(value: &[u8]) -> String {
    let mut text = Vec::new();
    for entry in Addresses::new(value).take(ADDRESSES_MAX) {
        if let AddressEntry::Mailbox(mailbox) = entry {
            text.extend_from_slice(&mailbox.local.unwrap_or_default());
            text.push(b'@');
            text.extend_from_slice(&mailbox.domain.unwrap_or_default());
            text.extend_from_slice(b", ");
        }
    }
    decode_words(&text)
}

fn days(ms: i64) -> i64 {
    ms.div_euclid(86_400_000)
}

/// Fields whose addresses are searched apart from how they are written.
const ADDRESS_FIELDS: &[&str] = &["From", "To", "Cc", "Bcc", "Sender", "Reply-To"];
/// As many as ENVELOPE lists. DESIGN §13.
const ADDRESSES_MAX: usize = 10_000;
/// How long one visit to a thread takes, a large message aside.
const STEP: Duration = Duration::from_millis(50);
/// Messages whose rows are looked at in one read of the index.
const ROWS_SLICE: usize = 4000;
/// Messages whose prologues and places are looked up in one read of the index.
const CONTENTS_SLICE: usize = 100;
