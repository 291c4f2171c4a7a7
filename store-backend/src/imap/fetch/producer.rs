//! Writes FETCH responses into a buffer until it is full, and goes on later.
//!
//! Everything here blocks. Whatever can fail is done before a response begins: then the message is left out.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use mail_proto::imap::command::{DateTime, FetchItem, Section, SectionText};
use mail_proto::imap::encode::FetchWriter;
use mail_proto::imap::mailbox::NameForm;
use mail_proto::mime::{BodyForm, Dialect, Envelope, write_body_structure};

use super::super::flags;
use super::super::message::{Message, Unreadable};
use super::super::text;
use super::super::transfer::Transfer;
use super::super::view::View;
use super::section::{PIECE_OCTETS, Part, decode_piece, decoded_part, octets_of, section_ranges};
use crate::volume::{Batch, Content, Flags, MailboxReader, ReadError, Stored, Summary};

/// What to tell of each message.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) items: Arc<[FetchItem]>,
    pub(super) uid: bool,
    pub(super) modseq: bool,
    pub(super) uid_only: bool,
    pub(super) condstore: bool,
    /// Those that have `\Recent`.
    pub(super) recent: View,
    pub(super) changed_since: Option<u64>,
    pub(super) form: NameForm,
    pub(super) dialect: Dialect,
}

impl Wanted {
    /// Whether it takes more than the rows that a scan of the mailbox gives.
    pub(super) fn needs_contents(&self) -> bool {
        self.items.iter().any(|item| {
            !matches!(
                item,
                FetchItem::Flags
                    | FetchItem::InternalDate
                    | FetchItem::Uid
                    | FetchItem::ModSeq
                    | FetchItem::Rfc822Size
                    | FetchItem::SaveDate
            )
        })
    }

    /// Whether it takes the structure.
    fn needs_scan(&self) -> bool {
        self.items.iter().any(|item| match item {
            FetchItem::Envelope
            | FetchItem::Body
            | FetchItem::BodyStructure
            | FetchItem::Rfc822Header
            | FetchItem::Rfc822Text
            | FetchItem::Preview { .. } => true,
            FetchItem::Section { section, .. } => *section != Section::default(),
            FetchItem::Binary { part, .. } | FetchItem::BinarySize(part) => !part.is_empty(),
            _ => false,
        })
    }

    /// Whether it takes octets behind the header.
    fn needs_blob(&self) -> bool {
        self.items.iter().any(|item| match item {
            FetchItem::Rfc822 | FetchItem::Rfc822Text | FetchItem::Preview { .. } => true,
            FetchItem::Section { section, .. } => {
                !section.part.is_empty()
                    || matches!(section.text, SectionText::All | SectionText::Text)
            }
            FetchItem::Binary { .. } | FetchItem::BinarySize(_) => true,
            _ => false,
        })
    }
}

/// Where a producer is.
#[derive(Debug)]
pub(super) enum Progress {
    /// The buffer is full; there is more.
    Full,
    /// What was loaded is written.
    Empty,
    /// A message cannot be read on: the stream cannot be saved.
    Broken(ReadError),
}

/// One FETCH at work.
#[derive(Debug)]
pub(super) struct Producer {
    reader: MailboxReader,
    wanted: Wanted,
    /// UIDs and sequence numbers not loaded yet.
    slice: VecDeque<(u32, u32)>,
    batch: Option<Batch>,
    /// What is loaded, in order.
    loaded: VecDeque<Loaded>,
    current: Option<Current>,
    /// To be sent.
    pub(super) out: Vec<u8>,
    /// A message was expunged meanwhile.
    pub(super) has_missing: bool,
    /// A part has an encoding that BINARY cannot undo.
    pub(super) unknown_encoding: bool,
    /// The first message that cannot be read.
    pub(super) failed: Option<ReadError>,
}

#[derive(Debug)]
struct Loaded {
    sequence: u32,
    summary: Summary,
    content: Option<Content>,
    /// `\Seen` was set for this command.
    tell_flags: bool,
}

/// A message whose response has begun.
#[derive(Debug)]
struct Current {
    writer: FetchWriter,
    summary: Summary,
    message: Option<Message>,
    /// The next item to write.
    item: usize,
    /// What is left of the last item's literal.
    literal: Literal,
}

/// Octets that are announced and not yet written.
#[derive(Debug)]
enum Literal {
    Plain(VecDeque<Range<u64>>),
    Decoded {
        range: Range<u64>,
        transfer: Transfer,
        skip: u64,
        left: u64,
    },
}

impl Producer {
    pub(super) fn new(reader: MailboxReader, wanted: Wanted) -> Self {
        Self {
            reader,
            wanted,
            slice: VecDeque::new(),
            batch: None,
            loaded: VecDeque::new(),
            current: None,
            out: Vec::new(),
            has_missing: false,
            unknown_encoding: false,
            failed: None,
        }
    }

    /// The next messages: UIDs, growing, and sequence numbers.
    pub(super) fn take_slice(&mut self, slice: Vec<(u32, u32)>) {
        self.slice = slice.into();
    }

    pub(super) fn has_slice(&self) -> bool {
        !self.slice.is_empty()
    }

    /// Loads the rows of the next messages. UIDs of those without `\Seen`, if they are to get it.
    pub(super) fn load(&mut self, sets_seen: bool) -> Result<Vec<u32>, ReadError> {
        let uids: Vec<u32> = self.slice.iter().map(|(uid, _)| *uid).collect();
        let contents = self.wanted.needs_contents();
        let Some(mut batch) = self.reader.messages(&uids, contents)? else {
            self.slice.clear();
            self.has_missing = true;
            return Ok(Vec::new());
        };
        let mut contents = std::mem::take(&mut batch.contents).into_iter();
        let mut messages = std::mem::take(&mut batch.now.messages)
            .into_iter()
            .peekable();
        for (uid, sequence) in self.slice.drain(..batch.done_count) {
            let Some(summary) = messages.next_if(|message| message.uid == uid) else {
                self.has_missing = true;
                continue;
            };
            let content = contents.next();
            let since = self.wanted.changed_since.unwrap_or(0);
            if summary.modseq > since {
                self.loaded.push_back(Loaded {
                    sequence,
                    summary,
                    content,
                    tell_flags: false,
                });
            }
        }
        self.batch = Some(batch);
        let unseen = self.loaded.iter().map(|loaded| &loaded.summary);
        let unseen = unseen.filter(|message| sets_seen && !message.flags.contains(Flags::SEEN));
        Ok(unseen.map(|message| message.uid).collect())
    }

    /// What was read of the slice.
    pub(super) fn batch(&self) -> Option<&Batch> {
        self.batch.as_ref()
    }

    /// `\Seen` was set for some that are loaded.
    pub(super) fn seen(&mut self, stored: &Stored) {
        for loaded in &mut self.loaded {
            let summary = &mut loaded.summary;
            if stored.changed.binary_search(&summary.uid).is_ok() {
                summary.flags = summary.flags | Flags::SEEN;
                summary.modseq = stored.modseq;
                loaded.tell_flags = true;
            }
        }
    }

    /// Writes on until the buffer is full or all that was loaded is written.
    pub(super) fn fill(&mut self) -> Progress {
        loop {
            if self.out.len() >= FILL_OCTETS {
                return Progress::Full;
            }
            let step = match self.current.take() {
                Some(current) => self.go_on(current),
                None => match self.loaded.pop_front() {
                    Some(loaded) => self.begin(loaded),
                    None => return Progress::Empty,
                },
            };
            match step {
                Ok(()) => {}
                // The file is open: it cannot go. If it did, the literal could not be kept either.
                Err(Unreadable::Gone) => return Progress::Broken(ReadError::Stopped),
                Err(Unreadable::Failed(error)) => return Progress::Broken(error),
            }
        }
    }

    fn begin(&mut self, loaded: Loaded) -> Result<(), Unreadable> {
        let message = loaded.content.map(Message::new);
        let message = match message.map(|message| self.prepare(message)).transpose() {
            Ok(message) => message,
            Err(Unreadable::Gone) => {
                self.has_missing = true;
                return Ok(());
            }
            Err(Unreadable::Failed(error)) => {
                self.failed.get_or_insert(error);
                return Ok(());
            }
        };
        let (wanted, summary, out) = (&self.wanted, loaded.summary, &mut self.out);
        let mut writer = match wanted.uid_only {
            true => FetchWriter::begin_uid(out, summary.uid, wanted.form),
            false => FetchWriter::begin(out, loaded.sequence, wanted.form),
        };
        if wanted.uid {
            writer.uid(out, summary.uid);
        }
        let asks_flags = wanted.items.contains(&FetchItem::Flags);
        if (asks_flags || loaded.tell_flags)
            && let Some(batch) = &self.batch
        {
            let is_recent = wanted.recent.contains(summary.uid);
            writer.flags(out, &flags::of_message(&batch.now, &summary), is_recent);
        }
        if wanted.modseq || (loaded.tell_flags && wanted.condstore) {
            writer.modseq(out, summary.modseq);
        }
        self.current = Some(Current {
            writer,
            summary,
            message,
            item: 0,
            literal: Literal::Plain(VecDeque::new()),
        });
        Ok(())
    }

    /// Does all that can fail.
    fn prepare(&self, mut message: Message) -> Result<Message, Unreadable> {
        if self.wanted.needs_blob() {
            message.open(&self.reader)?;
        }
        if self.wanted.needs_scan() {
            message.scan(&self.reader)?;
        }
        Ok(message)
    }

    /// Writes a piece of a literal, or the next item, or the end.
    fn go_on(&mut self, mut current: Current) -> Result<(), Unreadable> {
        if let Some(message) = &mut current.message
            && self.write_literal(message, &mut current.literal)?
        {
            self.current = Some(current);
            return Ok(());
        }
        let items = Arc::clone(&self.wanted.items);
        let Some(item) = items.get(current.item) else {
            current.writer.end(&mut self.out);
            return Ok(());
        };
        current.item += 1;
        self.write_item(&mut current, item)?;
        self.current = Some(current);
        Ok(())
    }

    /// Whether there was something to write.
    fn write_literal(
        &mut self,
        message: &mut Message,
        literal: &mut Literal,
    ) -> Result<bool, Unreadable> {
        match literal {
            Literal::Plain(ranges) => {
                let Some(range) = ranges.front_mut() else {
                    return Ok(false);
                };
                let piece = range.start..range.end.min(range.start + PIECE_OCTETS);
                message.read(&self.reader, piece.clone(), &mut self.out)?;
                range.start = piece.end;
                if range.is_empty() {
                    ranges.pop_front();
                }
            }
            Literal::Decoded {
                range,
                transfer,
                skip,
                left,
            } => {
                if *left == 0 {
                    return Ok(false);
                }
                let decoded = decode_piece(&self.reader, message, range, transfer)?;
                let from = usize::try_from(*skip).map_or(decoded.len(), |s| s.min(decoded.len()));
                let count = (decoded.len() - from) as u64;
                let count = count.min(*left);
                *skip -= from as u64;
                *left -= count;
                // It is at most what was decoded.
                let end = from + usize::try_from(count).unwrap_or(0);
                self.out.extend_from_slice(&decoded[from..end]);
            }
        }
        Ok(true)
    }

    fn write_item(&mut self, current: &mut Current, item: &FetchItem) -> Result<(), Unreadable> {
        let Current {
            writer, summary, ..
        } = current;
        let out = &mut self.out;
        match item {
            // Told at the beginning.
            FetchItem::Flags | FetchItem::Uid | FetchItem::ModSeq => return Ok(()),
            FetchItem::Rfc822Size => {
                writer.size(out, summary.size_octets);
                return Ok(());
            }
            FetchItem::InternalDate => {
                writer.internal_date(out, moment(summary.internal_date_ms));
                return Ok(());
            }
            FetchItem::SaveDate => {
                writer.save_date(out, Some(moment(summary.save_date_ms)));
                return Ok(());
            }
            _ => {}
        }
        let Some(message) = current.message.as_mut() else {
            return Ok(());
        };
        match item {
            FetchItem::EmailId => writer.email_id(out, &email_id(&message.content)),
            FetchItem::ThreadId => writer.thread_id(out, thread_id(&message.content).as_deref()),
            FetchItem::Envelope => {
                let scan = message.scan(&self.reader)?;
                writer.encoded(out, "ENVELOPE", b"");
                Envelope::read(&scan.header).write(self.wanted.dialect, out);
            }
            FetchItem::Body | FetchItem::BodyStructure => {
                let (name, form) = match item {
                    FetchItem::Body => ("BODY", BodyForm::Body),
                    _ => ("BODYSTRUCTURE", BodyForm::BodyStructure),
                };
                let scan = message.scan(&self.reader)?;
                writer.encoded(out, name, b"");
                write_body_structure(&scan.structure, form, self.wanted.dialect, out);
            }
            FetchItem::Preview { .. } => {
                let preview = text::preview(message, &self.reader)?;
                writer.preview(out, Some(&preview));
            }
            FetchItem::Section {
                section, window, ..
            } => {
                let ranges = section_ranges(&self.reader, message, section, *window)?;
                match &ranges {
                    None => writer.no_section(out, section),
                    Some(ranges) => {
                        let origin = window.map(|window| window.first);
                        writer.section(out, section, origin, octets_of(ranges));
                    }
                }
                current.literal = Literal::Plain(ranges.unwrap_or_default());
            }
            FetchItem::Rfc822 | FetchItem::Rfc822Header | FetchItem::Rfc822Text => {
                let (name, text) = match item {
                    FetchItem::Rfc822 => ("RFC822", SectionText::All),
                    FetchItem::Rfc822Header => ("RFC822.HEADER", SectionText::Header),
                    _ => ("RFC822.TEXT", SectionText::Text),
                };
                let part = Vec::new();
                let section = Section { part, text };
                let ranges = section_ranges(&self.reader, message, &section, None)?;
                let ranges = ranges.unwrap_or_default();
                writer.rfc822(out, name, octets_of(&ranges));
                current.literal = Literal::Plain(ranges);
            }
            FetchItem::Binary { part, window, .. } => {
                let origin = window.map(|window| window.first);
                match decoded_part(&self.reader, message, part)? {
                    Part::Decodable {
                        range,
                        transfer,
                        octets,
                        has_nul,
                    } => {
                        let skip = origin.unwrap_or(0).min(octets);
                        let most = window.map_or(u64::MAX, |window| window.count);
                        let left = (octets - skip).min(most);
                        writer.binary(out, part, origin, Some(left), has_nul);
                        current.literal = Literal::Decoded {
                            range,
                            transfer,
                            skip,
                            left,
                        };
                    }
                    Part::Missing => writer.binary(out, part, None, None, false),
                    Part::Unknown => {
                        self.unknown_encoding = true;
                        writer.binary(out, part, None, None, false);
                    }
                }
            }
            FetchItem::BinarySize(part) => match decoded_part(&self.reader, message, part)? {
                Part::Decodable { octets, .. } => writer.binary_size(out, part, octets),
                Part::Missing => writer.binary_size(out, part, 0),
                Part::Unknown => {
                    self.unknown_encoding = true;
                    writer.binary_size(out, part, 0);
                }
            },
            FetchItem::Flags
            | FetchItem::Uid
            | FetchItem::ModSeq
            | FetchItem::Rfc822Size
            | FetchItem::InternalDate
            | FetchItem::SaveDate => {}
        }
        Ok(())
    }
}

/// EMAILID: letters and digits. RFC 8474 §5.1.
pub(in super::super) fn email_id(content: &Content) -> String {
    data_encoding::HEXLOWER.encode(&content.identity)
}

/// THREADID, where it is known.
pub(in super::super) fn thread_id(content: &Content) -> Option<String> {
    (content.thread != 0).then(|| format!("{:016x}", content.thread))
}

fn moment(ms: i64) -> DateTime {
    DateTime {
        unix_s: ms.div_euclid(1000),
        offset_minutes: 0,
    }
}

/// Octets given to the session at once; the last item may go beyond it.
const FILL_OCTETS: usize = 128 << 10;
