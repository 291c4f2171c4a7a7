//! One message as a client reads it, prologue and blob, opened no further than it is asked for: what its card has
//! ([`Card`]) opens nothing.
//!
//! Everything here blocks: it is used on threads that may.

use std::ops::Range;

use bytes::Bytes;
use mail_proto::mime::{BodyForm, Dialect, Envelope, Scanner, Structure};

use crate::card::Card;
use crate::volume::{BlobReader, Content, MailboxReader, ReadError};

/// A message to be read.
#[derive(Debug)]
pub(super) struct Message {
    /// Which, and its prologue.
    pub(super) content: Content,
    blob: Blob,
    /// The blob's header block, empty line included, once it is known.
    header: Option<Bytes>,
    /// Empty memory for a small blob.
    spare: Vec<u8>,
}

#[derive(Debug)]
enum Blob {
    Closed,
    /// A small one is read at once, and so with its hash checked (P9).
    Memory(Vec<u8>),
    Open(Box<BlobReader>),
}

/// Why a message cannot be read.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// It was expunged meanwhile.
    Gone,
    /// The volume has failed.
    Failed(ReadError),
}

impl From<ReadError> for Unreadable {
    fn from(error: ReadError) -> Self {
        Self::Failed(error)
    }
}

impl Message {
    /// A message that nothing was read of.
    pub(super) fn new(content: Content) -> Self {
        Self {
            content,
            blob: Blob::Closed,
            header: None,
            spare: Vec::new(),
        }
    }

    /// The same, with memory that another message leaves: a fetch of thousands takes it once.
    pub(super) fn within(content: Content, mut spare: Vec<u8>) -> Self {
        spare.clear();
        Self {
            spare,
            ..Self::new(content)
        }
    }

    /// The memory it took.
    pub(super) fn into_spare(self) -> Vec<u8> {
        match self.blob {
            Blob::Memory(octets) => octets,
            Blob::Closed | Blob::Open(_) => self.spare,
        }
    }

    /// Octets of the prologue.
    pub(super) fn prologue_octets(&self) -> u64 {
        self.content.prologue.len() as u64
    }

    /// Octets of it all: RFC822.SIZE.
    pub(super) fn size(&self) -> u64 {
        self.prologue_octets() + self.content.blob_octets
    }

    /// Its card; made, and kept, if there is none.
    pub(super) fn card(&mut self, reader: &MailboxReader) -> Result<&Card, Unreadable> {
        if self.content.card.is_none() {
            self.scan(reader)?;
        }
        self.content.card.as_ref().ok_or(Unreadable::Gone)
    }

    /// The structure of its blob.
    pub(super) fn structure(
        &mut self,
        reader: &MailboxReader,
    ) -> Result<Structure<Bytes>, Unreadable> {
        if let Some(structure) = self.card(reader)?.structure() {
            return Ok(structure);
        }
        // The card is damaged.
        self.scan(reader)?;
        self.card(reader)?.structure().ok_or(Unreadable::Gone)
    }

    /// A header block of its blob with all the fields that cards keep, at least.
    pub(super) fn fields(&mut self, reader: &MailboxReader) -> Result<Bytes, Unreadable> {
        match self.card(reader)?.fields() {
            Some(fields) => Ok(fields),
            None => self.header(reader),
        }
    }

    /// The header block of its blob.
    pub(super) fn header(&mut self, reader: &MailboxReader) -> Result<Bytes, Unreadable> {
        let card = self.card(reader)?;
        let (kept, octets) = (card.header(), card.header_octets());
        if let Some(header) = self.header.clone().or(kept) {
            self.header = Some(header.clone());
            return Ok(header);
        }
        let ours = self.prologue_octets();
        let mut header = Vec::new();
        self.read(reader, ours..ours + octets, &mut header)?;
        let header = Bytes::from(header);
        self.header = Some(header.clone());
        Ok(header)
    }

    /// Appends ENVELOPE.
    pub(super) fn write_envelope(
        &mut self,
        reader: &MailboxReader,
        dialect: Dialect,
        out: &mut Vec<u8>,
    ) -> Result<(), Unreadable> {
        if !self.card(reader)?.write_envelope(dialect, out) {
            Envelope::read(&self.header(reader)?).write(dialect, out);
        }
        Ok(())
    }

    /// Appends BODY or BODYSTRUCTURE.
    pub(super) fn write_body(
        &mut self,
        reader: &MailboxReader,
        form: BodyForm,
        dialect: Dialect,
        out: &mut Vec<u8>,
    ) -> Result<(), Unreadable> {
        if !self.card(reader)?.write_body(form, dialect, out) {
            self.scan(reader)?;
            self.card(reader)?.write_body(form, dialect, out);
        }
        Ok(())
    }

    fn scan(&mut self, reader: &MailboxReader) -> Result<(), Unreadable> {
        // Checked to the end: a card of damaged octets would be kept longer than the damage (P9).
        self.open_anew(reader)?;
        let mut scanner = Scanner::new();
        match &mut self.blob {
            Blob::Memory(octets) => scanner.push(octets),
            Blob::Open(blob) => {
                let mut piece = Vec::with_capacity(PIECE_OCTETS);
                let mut at = 0;
                while at < blob.size() {
                    let count = usize::try_from(blob.size() - at);
                    let count = count.map_or(PIECE_OCTETS, |left| left.min(PIECE_OCTETS));
                    piece.clear();
                    blob.read_at(at, count, &mut piece)?;
                    scanner.push(&piece);
                    at += count as u64;
                }
            }
            Blob::Closed => return Err(Unreadable::Gone),
        }
        let scanned = scanner.finish();
        let card = Card::of(&scanned);
        reader.keep_card(&self.content, card.clone());
        self.content.card = Card::read(card.into());
        self.header = Some(scanned.header.into());
        Ok(())
    }

    /// Makes ready to read the blob; if it is small, this is the only thing that can fail.
    pub(super) fn open(&mut self, reader: &MailboxReader) -> Result<(), Unreadable> {
        if !matches!(self.blob, Blob::Closed) {
            return Ok(());
        }
        let mut blob = reader.open(&self.content)?.ok_or(Unreadable::Gone)?;
        self.blob = match usize::try_from(blob.size()) {
            Ok(size) if size <= MEMORY_MAX_OCTETS => {
                let mut octets = std::mem::take(&mut self.spare);
                blob.read_at(0, size, &mut octets)?;
                Blob::Memory(octets)
            }
            _ => Blob::Open(Box::new(blob)),
        };
        Ok(())
    }

    /// As [`open`](Self::open), to read from the front, so that the octets are checked, again if they were before.
    fn open_anew(&mut self, reader: &MailboxReader) -> Result<(), Unreadable> {
        if let Blob::Open(blob) = &self.blob
            && blob.has_begun()
        {
            self.blob = Blob::Closed;
        }
        self.open(reader)
    }

    /// Appends octets of the message; the range must be in it.
    pub(super) fn read(
        &mut self,
        reader: &MailboxReader,
        range: Range<u64>,
        out: &mut Vec<u8>,
    ) -> Result<(), Unreadable> {
        let ours = self.prologue_octets();
        if range.start < ours {
            let prologue = &self.content.prologue;
            let end = range.end.min(ours);
            out.extend_from_slice(&prologue[to_index(range.start)..to_index(end)]);
        }
        let (from, to) = (range.start.max(ours) - ours, range.end.max(ours) - ours);
        if from == to {
            return Ok(());
        }
        if let Some(header) = &self.header
            && to <= header.len() as u64
        {
            out.extend_from_slice(&header[to_index(from)..to_index(to)]);
            return Ok(());
        }
        match from {
            0 => self.open_anew(reader)?,
            _ => self.open(reader)?,
        }
        match &mut self.blob {
            Blob::Memory(octets) => {
                out.extend_from_slice(&octets[to_index(from)..to_index(to)]);
            }
            Blob::Open(blob) => blob.read_at(from, to_index(to - from), out)?,
            Blob::Closed => return Err(Unreadable::Gone),
        }
        Ok(())
    }
}

/// Of something that is in memory.
fn to_index(octets: u64) -> usize {
    usize::try_from(octets).expect("what is in memory can be counted")
}

/// Every blob that waits in the journal is no larger.
const MEMORY_MAX_OCTETS: usize = 128 << 10;
const PIECE_OCTETS: usize = 64 << 10;
