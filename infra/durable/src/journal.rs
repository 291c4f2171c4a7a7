//! The journal: a log of records, durable when an append returns.
//!
//! ```text
//! <dir>/00000001.seg 00000002.seg …   one sequence of records, numbered by Lsn without a gap
//!       └ released ─▶ 00000001.free ─▶ header rewritten ─▶ 00000007.seg      (recycled)
//!                     00000007.new  ─▶ zero-filled      ─▶ 00000007.seg      (made)
//! ```
//!
//! A batch is one write and one `fdatasync`, split only where a segment ends; the part in one segment is a *unit*, and a
//! unit is written only after the one before it was synced. Recovery leans on that: a damaged record with nothing after
//! it but records of its own unit was never acknowledged and is cut; one with a later unit behind it was, and is rot.

mod error;
mod format;
mod reader;
mod recovery;
mod segment;
mod spare;

use std::collections::VecDeque;
use std::fmt;
use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

pub use error::JournalError;
pub use reader::JournalReader;
pub use recovery::{Cut, Inspection, Recovery, SegmentFacts, inspect};

use crate::disk::{Disk, is_no_room};
use format::{HEADER_BLOCK_BYTES, PADDING, RECORD_HEADER_BYTES, RecordHeader, padded_bytes};
use segment::{Live, Segment, SegmentTable};
use spare::Spares;

/// Log sequence number: 1, 2, 3 … one per record, never given to two acknowledged records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Lsn {
        Lsn(self.0 + 1)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Where a record's payload lies, until its segment is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The segment's number.
    pub segment: u32,
    /// Bytes from the beginning of the segment's file to the payload.
    pub offset: u32,
    /// The payload's length in bytes.
    pub len: u32,
}

/// One record to append: its payload is the parts, one after the other.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The caller's kind; the journal attaches no meaning to it.
    pub kind: u8,
    /// The payload, in pieces so that nobody needs to copy it together.
    pub parts: &'a [&'a [u8]],
}

/// One record read back by [`Recovery::replay`].
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The record's number.
    pub lsn: Lsn,
    /// The kind given at [`Journal::append`].
    pub kind: u8,
    /// The payload, checksum verified.
    pub payload: &'a [u8],
    /// Where [`JournalReader`] finds the payload.
    pub place: Place,
}

/// How a journal is opened.
#[derive(Debug, Clone, Copy)]
pub struct JournalOptions {
    /// Size of segments made from now on, in bytes: a multiple of 4096 from 8 KiB to 1 GiB. Segments of another size
    /// that are there already are used up. A record must fit into one; recovery reads one into memory at a time.
    pub segment_size_bytes: u32,
    /// The first number of a journal that has no segment yet. An owner whose views already hold numbers of a lost journal
    /// begins above them.
    pub first_lsn: Lsn,
    /// Prepare the next segment on a thread of its own, so that rolling over does not wait for zeros to be written. Off
    /// makes the order of disk operations deterministic, which tests want.
    pub prepare_ahead: bool,
}

impl Default for JournalOptions {
    fn default() -> Self {
        JournalOptions {
            segment_size_bytes: 64 << 20,
            first_lsn: Lsn(1),
            prepare_ahead: true,
        }
    }
}

/// The log's one writer.
pub struct Journal {
    table: Arc<SegmentTable>,
    spares: Spares,
    /// Segments that hold the log, oldest first; the last is appended to. Never empty.
    live: VecDeque<Live>,
    next_lsn: Lsn,
    segment_size_bytes: u32,
    /// The segment for which a successor was asked for.
    ahead_of: u32,
    /// Bytes behind the last record that a write without room for all of it may have left.
    soiled: u32,
    /// A write or sync failed: what is on disk is unknown until recovery reads it.
    poisoned: bool,
}

impl Journal {
    /// Opens the journal in the folder `dir`, making both when absent, and verifies everything in it.
    ///
    /// A torn tail is cut ([`Recovery::cut`]). What recovery found is synced before this returns, so that records
    /// replayed now are still there after the next power cut. The caller keeps other processes out.
    ///
    /// # Errors
    /// [`JournalError::Rot`] or [`JournalError::MissingSegment`]: acknowledged records are damaged or gone;
    /// [`JournalError::Version`] and [`JournalError::Foreign`]: not ours to touch; [`JournalError::Options`];
    /// [`JournalError::Io`].
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: JournalOptions,
    ) -> Result<(Journal, Recovery), JournalError> {
        recovery::open(disk, dir, options)
    }

    /// Appends records in order and returns the number and place of each. Durable when it returns.
    ///
    /// # Errors
    /// [`JournalError::TooLarge`] or an [`JournalError::Io`] for which [`JournalError::is_disk_full`]: the journal goes on.
    /// Nothing was written, or, on a file system that needs room to overwrite, it was cleared away; where even that finds
    /// no room ([`Journal::is_soiled`]) the next append does it first, and an open before that finds records of this batch:
    /// what they name must stay until then. Any other `Io`: the journal is poisoned ([`Journal::check`]),
    /// whether the records are there is known only after the next open, and every later append answers
    /// [`JournalError::Poisoned`]; reads still work.
    pub fn append(&mut self, records: &[Entry<'_>]) -> Result<Vec<(Lsn, Place)>, JournalError> {
        self.clean()?;
        let units = self.plan(records)?;
        let rolls = units.iter().filter(|unit| unit.rolls).count();
        // Every segment the batch needs is there before its first byte is written: a full disk refuses a whole batch.
        let taken = self.spares.take(rolls, self.next_lsn);
        let mut fresh = taken
            .inspect_err(|_| self.poisoned = self.spares.check().is_err())?
            .into_iter();
        let mut placed = Vec::with_capacity(records.len());
        let mut rest = records;
        for (index, unit) in units.iter().enumerate() {
            if unit.rolls {
                let segment = fresh.next().expect("one fresh segment was taken per roll");
                self.table.insert(&segment);
                self.live.push_back(Live::empty(segment, self.next_lsn));
            }
            let (now, later) = rest.split_at(unit.lens.len());
            rest = later;
            if let Err(error) = self.write_unit(now, &unit.lens, &mut placed) {
                // What was not synced yet can be overwritten. A unit before this one is there for good.
                if index == 0 && error.is_of_write() && error.is_disk_full() {
                    self.soiled = unit.lens.iter().filter_map(|len| padded_bytes(*len)).sum();
                    // It is told by `is_soiled` and `check` if that did not go.
                    let _ = self.clean();
                } else {
                    self.poisoned = true;
                }
                return Err(error);
            }
        }
        self.prepare_ahead();
        Ok(placed)
    }

    /// Whether records can still be appended: no write failed, and no sync, neither of a batch nor of a segment that was
    /// prepared or released beside it.
    ///
    /// # Errors
    /// What failed.
    pub fn check(&self) -> Result<(), JournalError> {
        if self.poisoned {
            let dir = self.spares.dir().to_owned();
            return Err(JournalError::Poisoned { dir });
        }
        self.spares.check()
    }

    /// Whether a batch that was refused for want of room has left records behind, which an open would find.
    #[must_use]
    pub fn is_soiled(&self) -> bool {
        self.soiled > 0
    }

    /// Makes zeros of what a write has left that found no room: an open would find whole records of it, and so it would
    /// behind the next unit, should that be shorter. [`Journal::append`] does it by itself; an owner who has nothing to
    /// append, or closes the journal, asks for it.
    ///
    /// # Errors
    /// An [`JournalError::Io`] for which [`JournalError::is_disk_full`]: to be tried again. Any other: the journal is poisoned.
    pub fn clean(&mut self) -> Result<(), JournalError> {
        self.check()?;
        if self.soiled == 0 {
            return Ok(());
        }
        let active = self.live.back().expect("a journal has an active segment");
        let segment = &active.segment;
        let zeros = vec![0; self.soiled as usize];
        let written = segment
            .file
            .write_all_at(&[IoSlice::new(&zeros)], active.end.into());
        written.map_err(|source| {
            self.poisoned = !is_no_room(&source);
            segment.io(WRITE, source)
        })?;
        segment.file.sync_data().map_err(|source| {
            self.poisoned = true;
            segment.io("sync", source)
        })?;
        self.soiled = 0;
        Ok(())
    }

    /// Gives back the segments whose records are all numbered `up_to` or less, to be recycled.
    ///
    /// Their places are void from now on. The segment of the last record always stays, so that numbers go on after it.
    pub fn release(&mut self, up_to: Lsn) {
        while self.live.len() > 1 {
            let oldest = &self.live[0];
            // `end_lsn` equal to `next_lsn` means that the segments behind it hold no record yet.
            if oldest.end_lsn.0 > up_to.0.saturating_add(1) || oldest.end_lsn == self.next_lsn {
                break;
            }
            self.table.remove(oldest.segment.number);
            self.spares.retire(oldest.segment.number);
            self.live.pop_front();
        }
    }

    /// A handle to read records by their place, for any thread.
    #[must_use]
    pub fn reader(&self) -> JournalReader {
        JournalReader::new(Arc::clone(&self.table))
    }

    /// The number the next record gets.
    #[must_use]
    pub fn next_lsn(&self) -> Lsn {
        self.next_lsn
    }

    /// Bytes of the segments that hold the log (those kept for recycling not counted).
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.live
            .iter()
            .map(|live| u64::from(live.segment.len))
            .sum()
    }

    /// Bytes of records not released yet: what back-pressure is measured by.
    #[must_use]
    pub fn unreleased_bytes(&self) -> u64 {
        self.live
            .iter()
            .map(|live| u64::from(live.end - HEADER_BLOCK_BYTES))
            .sum()
    }

    /// Has the next segment prepared once the active one is half full: early enough for the disk, late enough that a
    /// small journal stays small.
    fn prepare_ahead(&mut self) {
        let active = self.live.back().expect("a journal has an active segment");
        if active.end > active.segment.len / 2 && active.segment.number != self.ahead_of {
            self.ahead_of = active.segment.number;
            self.spares.prepare_ahead(self.next_lsn);
        }
    }

    /// Lays the records out over the active segment and fresh ones, without writing anything.
    fn plan(&self, records: &[Entry<'_>]) -> Result<Vec<Unit>, JournalError> {
        let active = self.live.back().expect("a journal has an active segment");
        let mut room = active.segment.len - active.end;
        let max = self.segment_size_bytes - HEADER_BLOCK_BYTES;
        let mut units: Vec<Unit> = Vec::new();
        for record in records {
            let len: u64 = record.parts.iter().map(|part| part.len() as u64).sum();
            let (len, padded) = u32::try_from(len)
                .ok()
                .and_then(|len| Some((len, padded_bytes(len)?)))
                .filter(|(_, padded)| *padded <= max)
                .ok_or(JournalError::TooLarge {
                    len,
                    max: max - RECORD_HEADER_BYTES,
                })?;
            let rolls = padded > room;
            if rolls {
                room = max;
            }
            room -= padded;
            match units.last_mut() {
                Some(unit) if !rolls && unit.lens.len() <= usize::from(u16::MAX) => {
                    unit.lens.push(len);
                }
                _ => units.push(Unit {
                    rolls,
                    lens: vec![len],
                }),
            }
        }
        Ok(units)
    }

    /// Writes and syncs one unit at the end of the active segment.
    fn write_unit(
        &mut self,
        records: &[Entry<'_>],
        lens: &[u32],
        placed: &mut Vec<(Lsn, Place)>,
    ) -> Result<(), JournalError> {
        let active = self
            .live
            .back_mut()
            .expect("a journal has an active segment");
        let segment: &Segment = &active.segment;
        let mut end = active.end;
        let mut headers = Vec::with_capacity(records.len());
        for (index, (record, &len)) in records.iter().zip(lens).enumerate() {
            let header = RecordHeader {
                len,
                kind: record.kind,
                unit_index: u16::try_from(index).expect("plan ends a unit at 65,536 records"),
                lsn: self.next_lsn.0 + index as u64,
                generation: segment.identity.record_generation(),
            };
            headers.push(header.encode(&segment.identity, record.parts));
            let offset = end + RECORD_HEADER_BYTES;
            placed.push((
                Lsn(header.lsn),
                Place {
                    segment: segment.number,
                    offset,
                    len,
                },
            ));
            end += padded_bytes(len).expect("plan checked the length");
        }
        let mut slices = Vec::with_capacity(records.iter().map(|r| r.parts.len() + 2).sum());
        for ((record, &len), header) in records.iter().zip(lens).zip(&headers) {
            slices.push(IoSlice::new(header));
            slices.extend(record.parts.iter().map(|part| IoSlice::new(part)));
            slices.push(IoSlice::new(
                &PADDING[..(len.next_multiple_of(8) - len) as usize],
            ));
        }
        let written = segment.file.write_all_at(&slices, active.end.into());
        written.map_err(|source| segment.io(WRITE, source))?;
        segment
            .file
            .sync_data()
            .map_err(|source| segment.io("sync", source))?;
        active.end = end;
        self.next_lsn.0 += records.len() as u64;
        active.end_lsn = self.next_lsn;
        Ok(())
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Journal")
            .field("dir", &self.spares.dir())
            .field("next_lsn", &self.next_lsn)
            .field("segments", &self.live.len())
            .field("poisoned", &self.poisoned)
            .finish_non_exhaustive()
    }
}

const WRITE: &str = "write";

/// What of a batch goes into one segment: one write, one sync.
struct Unit {
    /// Begins a fresh segment.
    rolls: bool,
    /// Payload lengths of its records.
    lens: Vec<u32>,
}
