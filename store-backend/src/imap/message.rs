//! One message as a client reads it, prologue and blob, opened no further than it is asked for.
//!
//! Everything here blocks: it is used on threads that may.

use std::ops::Range;
use std::sync::Arc;

use super::scan::Scan;
use crate::volume::{BlobReader, Content, MailboxReader, ReadError};

/// A message to be read.
#[derive(Debug)]
pub(super) struct Message {
    /// Which, and its prologue.
    pub(super) content: Content,
    blob: Blob,
    scan: Option<Arc<Scan>>,
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
            scan: None,
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

    /// Its structure and the header of its blob.
    pub(super) fn scan(&mut self, reader: &MailboxReader) -> Result<Arc<Scan>, Unreadable> {
        let hash = self.content.hash;
        self.scan = self.scan.take().or_else(|| Scan::remembered(&hash));
        if let Some(scan) = &self.scan {
            return Ok(Arc::clone(scan));
        }
        self.open(reader)?;
        let scan = match &mut self.blob {
            Blob::Memory(octets) => Scan::of(hash, octets),
            Blob::Open(blob) => Scan::read(hash, blob)?,
            Blob::Closed => return Err(Unreadable::Gone),
        };
        self.scan = Some(Arc::clone(&scan));
        Ok(scan)
    }

    /// Makes ready to read the blob; if it is small, this is the only thing that can fail.
    pub(super) fn open(&mut self, reader: &MailboxReader) -> Result<(), Unreadable> {
        if !matches!(self.blob, Blob::Closed) {
            return Ok(());
        }
        let mut blob = reader.open(&self.content)?.ok_or(Unreadable::Gone)?;
        self.blob = match usize::try_from(blob.size()) {
            Ok(size) if size <= MEMORY_MAX_OCTETS => {
                let mut octets = Vec::new();
                blob.read_at(0, size, &mut octets)?;
                Blob::Memory(octets)
            }
            _ => Blob::Open(Box::new(blob)),
        };
        Ok(())
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
        if let Some(scan) = &self.scan
            && to <= scan.header.len() as u64
        {
            out.extend_from_slice(&scan.header[to_index(from)..to_index(to)]);
            return Ok(());
        }
        self.open(reader)?;
        if let Blob::Open(blob) = &self.blob
            && from == 0
            && blob.has_begun()
        {
            // From the front again, so that the octets are checked again.
            let blob = reader.open(&self.content)?.ok_or(Unreadable::Gone)?;
            self.blob = Blob::Open(Box::new(blob));
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
