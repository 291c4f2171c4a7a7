//! Writes FETCH responses into a buffer until it is full, and goes on later.
//!
//! Everything here blocks. Whatever can fail is done before a response begins: then the message is left out.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use mail_proto::imap::command::{DateTime, FetchItem, Section, SectionText};
use mail_proto::imap::encode::FetchWriter;
use mail_proto::imap::mailbox::NameForm;
use mail_proto::mime::{BodyForm, Dialect, FieldFilter};

use super::super::flags;
use super::super::message::{Message, Unreadable};
use super::super::text;
use super::super::transfer::Transfer;
use super::super::view::View;
use super::section::{
    PIECE_OCTETS, Part, decode_piece, decoded_part, octets_of, section_ranges, write_header,
};
use crate::card;
use crate::volume::{Batch, Content, Flags, MailboxReader, ReadError, Stored, Summary, Want};

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

/// What a command takes of each message, and what of it must be there before its response begins.
#[derive(Clone, Copy, Debug, Default)]
struct Needs {
    /// Identity or anything below.
    content: bool,
    prologue: bool,
    card: bool,
    /// The fields that cards keep.
    fields: bool,
    /// The whole header of the blob.
    header: bool,
    /// Octets behind it.
    blob: bool,
}

impl Needs {
    fn of(items: &[FetchItem]) -> Self {
        let mut needs = Self::default();
        for item in items {
            match item {
                FetchItem::Flags
                | FetchItem::InternalDate
                | FetchItem::Uid
                | FetchItem::ModSeq
                | FetchItem::Rfc822Size
                | FetchItem::SaveDate => continue,
                FetchItem::EmailId | FetchItem::ThreadId => {}
                FetchItem::Envelope => (needs.card, needs.fields) = (true, true),
                FetchItem::Body | FetchItem::BodyStructure => needs.card = true,
                FetchItem::Section { section, .. } if is_header(section) => {
                    (needs.prologue, needs.card) = (true, true);
                    match names_kept(section) {
                        true => needs.fields = true,
                        false => needs.header = true,
                    }
                }
                FetchItem::Rfc822Header => {
                    (needs.prologue, needs.card, needs.header) = (true, true, true);
                }
                FetchItem::Rfc822 => (needs.prologue, needs.blob) = (true, true),
                FetchItem::Section { section, .. } => {
                    (needs.prologue, needs.blob) = (true, true);
                    needs.card |= *section != Section::default();
                }
                FetchItem::Binary { part, .. } | FetchItem::BinarySize(part) => {
                    (needs.prologue, needs.blob) = (true, true);
                    needs.card |= !part.is_empty();
                }
                FetchItem::Rfc822Text | FetchItem::Preview { .. } => {
                    (needs.prologue, needs.blob, needs.card) = (true, true, true);
                }
            }
            needs.content = true;
        }
        needs
    }

    /// About as many octets as the response to a message takes.
    fn octets(self, message: &Summary) -> u64 {
        let blob = if self.blob { message.size_octets } else { 0 };
        let card = if self.card { USUAL_CARD_OCTETS } else { 0 };
        blob.saturating_add(card) + USUAL_ROW_OCTETS
    }

    fn want(self) -> Want {
        Want {
            card: self.card,
            // For the identity alone anything will do.
            prologue: self.prologue || (self.content && !self.card),
            blob: self.blob,
        }
    }
}

/// Whether it is of the message's own header.
fn is_header(section: &Section) -> bool {
    let of_header = matches!(
        section.text,
        SectionText::Header | SectionText::HeaderFields { .. }
    );
    of_header && section.part.is_empty()
}

/// Whether it is fields that cards have.
fn names_kept(section: &Section) -> bool {
    match &section.text {
        SectionText::HeaderFields { not: false, names } => {
            names.iter().all(|name| card::is_kept(name.as_bytes()))
        }
        _ => false,
    }
}

/// Where a producer is.
#[derive(Debug)]
pub(super) enum Progress {
    /// The buffer is full; there is more.
    Full,
    /// What was loaded is written.
    Empty,
    /// The messages just loaded may have keywords that those before did not.
    Keywords,
    /// The next messages cannot be loaded; what is written ends with a whole response.
    Unloaded(ReadError),
    /// A message cannot be read on: the stream cannot be saved.
    Broken(ReadError),
}

/// One FETCH at work.
#[derive(Debug)]
pub(super) struct Producer {
    reader: MailboxReader,
    wanted: Wanted,
    needs: Needs,
    /// For each item that names fields.
    filters: Arc<[Option<FieldFilter>]>,
    /// UIDs and sequence numbers not loaded yet.
    slice: VecDeque<(u32, u32)>,
    batch: Option<Batch>,
    /// Keywords of the batch before; they only ever grow.
    keyword_count: usize,
    /// What is loaded, in order.
    loaded: VecDeque<Loaded>,
    current: Option<Current>,
    /// To be sent.
    pub(super) out: Vec<u8>,
    /// Memory for the next message's blob.
    spare: Vec<u8>,
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
    /// It cannot be read, and so is not marked as read.
    is_unreadable: bool,
    /// Read already, to know that.
    prepared: Option<Message>,
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
        let filter = |item: &FetchItem| match item {
            FetchItem::Section { section, .. } => match &section.text {
                SectionText::HeaderFields { not, names } => Some(FieldFilter::new(names, *not)),
                _ => None,
            },
            _ => None,
        };
        Self {
            reader,
            needs: Needs::of(&wanted.items),
            filters: wanted.items.iter().map(filter).collect(),
            wanted,
            slice: VecDeque::new(),
            batch: None,
            keyword_count: 0,
            loaded: VecDeque::new(),
            current: None,
            out: Vec::new(),
            spare: Vec::new(),
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

    /// Whether what was written ends in the middle of a response.
    pub(super) fn is_within_response(&self) -> bool {
        self.current.is_some()
    }

    /// Loads the next messages; UIDs of those without `\Seen` that can be read. A small one is read whole to know that, a
    /// large one opened.
    pub(super) fn load_to_see(self: &mut Box<Self>) -> Result<Vec<u32>, ReadError> {
        self.load()?;
        let mut unseen = Vec::new();
        let mut kept_octets = 0;
        let mut loaded = std::mem::take(&mut self.loaded);
        for one in &mut loaded {
            if one.summary.flags.contains(Flags::SEEN) {
                continue;
            }
            let message = one.content.clone().map(Message::new);
            match message.map(|message| self.prepare(message)).transpose() {
                Err(Unreadable::Failed(error)) => {
                    one.is_unreadable = true;
                    self.failed.get_or_insert(error);
                }
                Ok(message) => {
                    unseen.push(one.summary.uid);
                    kept_octets += message.as_ref().map_or(0, Message::size);
                    // Others are read again, from the system's cache.
                    one.prepared = message.filter(|_| kept_octets <= PREPARED_MAX_OCTETS);
                }
                // It is told where it is missed.
                Err(Unreadable::Gone) => unseen.push(one.summary.uid),
            }
        }
        self.loaded = loaded;
        Ok(unseen)
    }

    fn load(&mut self) -> Result<(), ReadError> {
        let next = self.slice.iter().take(LOAD_MAX);
        let uids: Vec<u32> = next.map(|(uid, _)| *uid).collect();
        let Some(mut batch) = self.reader.messages(&uids, self.needs.want())? else {
            self.slice.clear();
            self.has_missing = true;
            return Ok(());
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
                    is_unreadable: false,
                    prepared: None,
                });
            }
        }
        self.batch = Some(batch);
        // Room for all of it at once: growing from nothing copies as much again.
        let octets = self
            .loaded
            .iter()
            .map(|one| self.needs.octets(&one.summary));
        let octets = octets.fold(0, u64::saturating_add).min(FILL_OCTETS as u64);
        self.out.reserve(octets as usize);
        Ok(())
    }

    fn has_new_keywords(&mut self) -> bool {
        let count = self
            .batch
            .as_ref()
            .map_or(0, |batch| batch.now.keywords.len());
        std::mem::replace(&mut self.keyword_count, count) != count
    }

    /// What was read of the slice.
    pub(super) fn batch(&self) -> Option<&Batch> {
        self.batch.as_ref()
    }

    /// `\Seen` was set for some that are loaded. Others may have changed their flags after they were loaded: with this MODSEQ
    /// the client knows that too.
    pub(super) fn seen(&mut self, stored: Stored) {
        let Some(batch) = &mut self.batch else {
            return;
        };
        let now = &mut batch.now;
        if stored.keywords.len() > now.keywords.len() {
            now.keywords = stored.keywords;
        }
        let mut changed = stored.now.into_iter().peekable();
        for loaded in &mut self.loaded {
            let summary = &mut loaded.summary;
            while changed.next_if(|one| one.uid < summary.uid).is_some() {}
            let Some(message) = changed.next_if(|one| one.uid == summary.uid) else {
                continue;
            };
            if message.modseq != stored.modseq {
                continue;
            }
            let before = now.keyword_sets.get(summary.keyword_set as usize);
            if before != Some(&message.keywords) {
                summary.keyword_set = u32::try_from(now.keyword_sets.len()).unwrap_or_default();
                now.keyword_sets.push(message.keywords);
            }
            summary.flags = message.flags;
            summary.modseq = message.modseq;
            loaded.tell_flags = true;
        }
    }

    /// Writes on until the buffer is full or all that was loaded is written; with `loads`, until all of the slice is.
    pub(super) fn fill(&mut self, loads: bool) -> Progress {
        loop {
            if self.out.len() >= FILL_OCTETS {
                return Progress::Full;
            }
            let step = match self.current.take() {
                Some(current) => self.go_on(current),
                None => match self.loaded.pop_front() {
                    Some(loaded) => {
                        self.begin(loaded);
                        continue;
                    }
                    None if loads && self.has_slice() => match self.load() {
                        Ok(()) if self.has_new_keywords() => return Progress::Keywords,
                        Ok(()) => continue,
                        Err(error) => return Progress::Unloaded(error),
                    },
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

    fn begin(&mut self, loaded: Loaded) {
        if loaded.is_unreadable {
            return;
        }
        let content = loaded.content;
        let within = |content| Message::within(content, std::mem::take(&mut self.spare));
        let message = loaded.prepared.or_else(|| content.map(within));
        let message = match message.map(|message| self.prepare(message)).transpose() {
            Ok(message) => Some(message),
            Err(Unreadable::Gone) => {
                self.has_missing = true;
                None
            }
            Err(Unreadable::Failed(error)) => {
                self.failed.get_or_insert(error);
                None
            }
        };
        // Of one that cannot be read only the flag is told that the command has set.
        if message.is_none() && !loaded.tell_flags {
            return;
        }
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
        match message {
            Some(message) => {
                self.current = Some(Current {
                    writer,
                    summary,
                    message,
                    item: 0,
                    literal: Literal::Plain(VecDeque::new()),
                });
            }
            None => writer.end(out),
        }
    }

    /// Does all that can fail.
    fn prepare(&self, mut message: Message) -> Result<Message, Unreadable> {
        if self.needs.blob {
            message.open(&self.reader)?;
        }
        if self.needs.card {
            message.structure(&self.reader)?;
        }
        if self.needs.header {
            message.header(&self.reader)?;
        } else if self.needs.fields {
            message.fields(&self.reader)?;
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
            if let Some(message) = current.message {
                self.spare = message.into_spare();
            }
            return Ok(());
        };
        let filters = Arc::clone(&self.filters);
        let filter = filters.get(current.item).and_then(Option::as_ref);
        current.item += 1;
        self.write_item(&mut current, item, filter)?;
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

    fn write_item(
        &mut self,
        current: &mut Current,
        item: &FetchItem,
        filter: Option<&FieldFilter>,
    ) -> Result<(), Unreadable> {
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
                writer.encoded(out, "ENVELOPE", b"");
                message.write_envelope(&self.reader, self.wanted.dialect, out)?;
            }
            FetchItem::Body | FetchItem::BodyStructure => {
                let (name, form) = match item {
                    FetchItem::Body => ("BODY", BodyForm::Body),
                    _ => ("BODYSTRUCTURE", BodyForm::BodyStructure),
                };
                writer.encoded(out, name, b"");
                message.write_body(&self.reader, form, self.wanted.dialect, out)?;
            }
            FetchItem::Preview { .. } => {
                let preview = text::preview(message, &self.reader)?;
                writer.preview(out, Some(&preview));
            }
            FetchItem::Section {
                section, window, ..
            } if is_header(section) => {
                let block = match names_kept(section) {
                    true => message.fields(&self.reader)?,
                    false => message.header(&self.reader)?,
                };
                let prologue = &message.content.prologue;
                let origin = window.map(|window| window.first);
                let announce = |out: &mut Vec<u8>, octets| {
                    writer.section(out, section, origin, octets);
                };
                write_header(prologue, &block, filter, *window, out, announce);
            }
            FetchItem::Rfc822Header => {
                let block = message.header(&self.reader)?;
                let prologue = &message.content.prologue;
                let announce =
                    |out: &mut Vec<u8>, octets| writer.rfc822(out, "RFC822.HEADER", octets);
                write_header(prologue, &block, None, None, out, announce);
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
            FetchItem::Rfc822 | FetchItem::Rfc822Text => {
                let (name, text) = match item {
                    FetchItem::Rfc822 => ("RFC822", SectionText::All),
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
/// ENVELOPE and BODYSTRUCTURE or a header of most messages; and what else is told of one.
const USUAL_CARD_OCTETS: u64 = 700;
const USUAL_ROW_OCTETS: u64 = 100;
/// Messages loaded at once, if all they take is rows.
const LOAD_MAX: usize = 1000;
/// What messages that were read to see whether they can be read may take until they are written.
const PREPARED_MAX_OCTETS: u64 = 512 << 10;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use directory_api::{AccountId, BackendName, Epoch, VolumeName};
    use durable::RealDisk;
    use tempfile::TempDir;

    use super::*;
    use crate::volume::{
        AppendBody, AppendMessage, FlagChange, FlagSet, MailboxId, Volume, VolumeConfig,
    };

    const ANN: AccountId = AccountId(1);
    const E1: Epoch = Epoch::FIRST;

    async fn with_one_message(dir: &TempDir) -> Volume {
        let (backend, name) = (BackendName::new("b1"), VolumeName::new("v1"));
        let config = VolumeConfig {
            journal_segment_size_bytes: 2 << 20,
            index_map_size_bytes: 1 << 30,
            ..VolumeConfig::new(dir.path(), backend.unwrap(), name.unwrap())
        };
        let volume = Volume::open(config, Arc::new(RealDisk)).unwrap();
        volume.ensure_account(ANN, E1).await.unwrap();
        let mut writer = volume.begin_blob();
        writer.write(b"Subject: x\r\n\r\n").await.unwrap();
        let message = AppendMessage {
            body: AppendBody::Finished(writer.finish().await.unwrap()),
            flags: FlagSet::default(),
            internal_date_ms: 0,
        };
        let appended = volume.append(ANN, E1, MailboxId::INBOX, vec![message]);
        appended.await.unwrap();
        volume
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_others_changed_after_a_message_was_loaded_is_told_with_seen() {
        let dir = TempDir::new().unwrap();
        let volume = with_one_message(&dir).await;
        let reader = volume.mailbox_reader(ANN, MailboxId::INBOX).await;
        let wanted = Wanted {
            items: Arc::new([]),
            uid: false,
            modseq: false,
            uid_only: false,
            condstore: true,
            recent: View::default(),
            changed_since: None,
            form: NameForm::Utf7,
            dialect: Dialect::Rev1,
        };
        let mut producer = Box::new(Producer::new(reader, wanted));
        producer.take_slice(vec![(1, 1)]);
        assert_eq!(producer.load_to_see().unwrap(), [1]);
        let store = async |flags: FlagSet| {
            let change = FlagChange::Add(flags);
            let stored = volume.store_flags(ANN, E1, MailboxId::INBOX, vec![1], change, None);
            stored.await.unwrap()
        };
        store(FlagSet {
            system: Flags::FLAGGED,
            keywords: vec!["key".to_owned()],
        })
        .await;
        producer.seen(store(Flags::SEEN.into()).await);
        assert!(matches!(producer.fill(false), Progress::Empty));
        assert_eq!(
            String::from_utf8_lossy(&producer.out),
            "* 1 FETCH (FLAGS (\\Flagged \\Seen key) MODSEQ (4))\r\n"
        );
        volume.close();
    }
}
