//! Opening a journal: what is on disk, what of it was acknowledged, and where to go on.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::JournalError;
use super::format::{
    BadHeader, HEADER_BLOCK_BYTES, Identity, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES,
    SegmentHeader, began_here, intact_record, padded_bytes,
};
use super::segment::{FileName, Live, Segment, SegmentTable, segment_path};
use super::spare::Spares;
use super::{Journal, JournalOptions, Lsn, Place, Record};
use crate::disk::{Disk, OpenMode, create_dir_durable};

/// What [`Journal::open`] found: the records, to be replayed before the first append is released.
pub struct Recovery {
    kept: Vec<Kept>,
    first_lsn: Lsn,
    next_lsn: Lsn,
    cut: Option<Cut>,
}

/// A torn tail: the beginning of a batch whose append never returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The segment.
    pub path: PathBuf,
    /// Where its intact records end.
    pub offset: u32,
}

struct Kept {
    segment: Arc<Segment>,
    scan: Scan,
}

impl Recovery {
    /// The oldest record kept, or, without any, the number the next one gets.
    #[must_use]
    pub fn first_lsn(&self) -> Lsn {
        self.first_lsn
    }

    /// One past the last record. An owner whose views hold a higher number has lost acknowledged records.
    #[must_use]
    pub fn next_lsn(&self) -> Lsn {
        self.next_lsn
    }

    /// The torn tail that was cut off, if there was one.
    #[must_use]
    pub fn cut(&self) -> Option<&Cut> {
        self.cut.as_ref()
    }

    /// Hands over every record from `from` on, in order.
    ///
    /// # Errors
    /// [`JournalError::Gone`] when `from` was released already; [`JournalError::BadPlace`] and [`JournalError::Io`] when a
    /// segment cannot be read any more; what `apply` answered, at once.
    pub fn replay<E: From<JournalError>>(
        &self,
        from: Lsn,
        mut apply: impl FnMut(Record<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if from < self.first_lsn {
            return Err(JournalError::Gone {
                wanted: from,
                oldest: self.first_lsn,
            }
            .into());
        }
        let mut bytes = Vec::new();
        for Kept { segment, scan } in self.kept.iter().filter(|kept| kept.scan.next_lsn > from) {
            bytes.resize(scan.end as usize, 0);
            let read = segment.file.read_exact_at(&mut bytes, 0);
            read.map_err(|source| segment.io("read", source))?;
            let mut records = Records::new(&bytes, segment.identity);
            for record in records.by_ref() {
                // The number was checked when the journal was opened.
                if record.lsn >= from {
                    apply(record)?;
                }
            }
            if records.end != scan.end {
                let (path, offset, len) = (segment.path.clone(), records.end, scan.end);
                return Err(JournalError::BadPlace {
                    path,
                    offset,
                    len: len - offset,
                }
                .into());
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Recovery {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Recovery")
            .field("first_lsn", &self.first_lsn)
            .field("next_lsn", &self.next_lsn)
            .field("cut", &self.cut)
            .finish_non_exhaustive()
    }
}

pub(super) fn open(
    disk: Arc<dyn Disk>,
    dir: &Path,
    options: JournalOptions,
) -> Result<(Journal, Recovery), JournalError> {
    let segment_size_bytes = options.segment_size_bytes;
    if !segment_size_bytes.is_multiple_of(HEADER_BLOCK_BYTES)
        || !SEGMENT_SIZE_BYTES.contains(&segment_size_bytes)
    {
        return Err(JournalError::Options { segment_size_bytes });
    }
    create_dir_durable(&*disk, dir).map_err(|source| JournalError::io("create", dir, source))?;
    let files = Files::list(&*disk, dir)?;
    let found = read_segments(&*disk, dir, &files, options.first_lsn)?;

    // From here on the journal is known to be whole. A process may have died between a write and its sync: what was just
    // read could still be lost with the power, and must not be once somebody has replayed it.
    for Kept { segment, .. } in &found.segments {
        segment
            .file
            .sync_data()
            .map_err(|source| segment.io("sync", source))?;
    }
    disk.sync_dir(dir)
        .map_err(|source| JournalError::io("sync", dir, source))?;
    for path in &files.unfinished {
        disk.remove_file(path)
            .map_err(|source| JournalError::io("remove", path, source))?;
    }

    let Found {
        segments: mut kept,
        used,
        first_lsn,
        next_lsn,
    } = found;
    let table = Arc::new(SegmentTable::default());
    for kept in &kept {
        table.insert(&kept.segment);
    }
    let prepared = kept
        .split_off(used)
        .into_iter()
        .map(|kept| kept.segment)
        .collect();
    let next_number = files.segments.last().map_or(1, |last| last + 1);
    let spares = Spares::new(
        disk,
        dir.to_owned(),
        &options,
        next_number,
        prepared,
        files.free.into(),
    );
    let mut live: VecDeque<Live> = kept
        .iter()
        .map(|kept| Live {
            segment: Arc::clone(&kept.segment),
            end_lsn: kept.scan.next_lsn,
            end: kept.scan.end,
        })
        .collect();
    // A torn segment is never appended to: an intact record of the batch that was cut may lie behind the tear, and would
    // come to life when a new record ended just before it.
    if kept.last().is_none_or(|last| last.scan.torn) {
        for segment in spares.take(1, next_lsn)? {
            table.insert(&segment);
            live.push_back(Live::empty(segment, next_lsn));
        }
    }
    let cut = kept.last().filter(|last| last.scan.torn).map(|last| Cut {
        path: last.segment.path.clone(),
        offset: last.scan.end,
    });
    let journal = Journal {
        table,
        spares,
        live,
        next_lsn,
        segment_size_bytes,
        soiled: 0,
        poisoned: false,
        ahead_of: 0,
    };
    Ok((
        journal,
        Recovery {
            kept,
            first_lsn,
            next_lsn,
            cut,
        },
    ))
}

/// What one segment of a journal holds, as far as it can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentFacts {
    /// Its file.
    pub path: PathBuf,
    /// Its first record; `None` if it holds none, or none can be read.
    pub first_lsn: Option<Lsn>,
    /// Its intact records from its beginning on.
    pub record_count: u64,
}

/// What [`inspect`] found.
#[derive(Debug)]
pub struct Inspection {
    /// The segments, oldest first.
    pub segments: Vec<SegmentFacts>,
    /// The oldest record and one past the last; or why the journal cannot be opened.
    pub range: Result<(Lsn, Lsn), JournalError>,
    /// A torn tail, which opening it would cut.
    pub cut: Option<Cut>,
}

/// Reads a journal as [`Journal::open`] does, and changes nothing.
///
/// # Errors
/// [`JournalError::Io`] or [`JournalError::Foreign`]: the folder cannot be read; what is wrong with the journal itself is told.
pub fn inspect(disk: &dyn Disk, dir: &Path) -> Result<Inspection, JournalError> {
    let files = Files::list(disk, dir)?;
    let mut segments = Vec::new();
    for &number in &files.segments {
        let mut facts = SegmentFacts {
            path: segment_path(dir, number, "seg"),
            first_lsn: None,
            record_count: 0,
        };
        if let Ok((_, header, bytes)) = read_segment(disk, dir, number) {
            for record in Records::new(&bytes, header.identity) {
                facts.first_lsn.get_or_insert(record.lsn);
                facts.record_count += 1;
            }
        }
        segments.push(facts);
    }
    let found = read_segments(disk, dir, &files, Lsn(1));
    let last = found.as_ref().ok().and_then(|found| match found.used {
        0 => None,
        used => found.segments.get(used - 1),
    });
    let cut = last.filter(|last| last.scan.torn).map(|last| Cut {
        path: last.segment.path.clone(),
        offset: last.scan.end,
    });
    Ok(Inspection {
        segments,
        cut,
        range: found.map(|found| (found.first_lsn, found.next_lsn)),
    })
}

/// What lies in the journal's folder.
#[derive(Default)]
struct Files {
    segments: BTreeSet<u32>,
    free: Vec<PathBuf>,
    unfinished: Vec<PathBuf>,
}

impl Files {
    fn list(disk: &dyn Disk, dir: &Path) -> Result<Files, JournalError> {
        let names = disk
            .read_dir(dir)
            .map_err(|source| JournalError::io("list", dir, source))?;
        let mut files = Files::default();
        for name in names {
            let path = dir.join(&name);
            match name.to_str().and_then(FileName::parse) {
                Some(FileName::Segment(number)) => drop(files.segments.insert(number)),
                Some(FileName::Free) => files.free.push(path),
                Some(FileName::New) => files.unfinished.push(path),
                None => return Err(JournalError::Foreign { path }),
            }
        }
        Ok(files)
    }
}

/// The log as it stands on disk.
struct Found {
    segments: Vec<Kept>,
    /// How many of the segments were ever written to; those behind them are prepared and empty.
    used: usize,
    first_lsn: Lsn,
    next_lsn: Lsn,
}

fn read_segments(
    disk: &dyn Disk,
    dir: &Path,
    files: &Files,
    fresh_lsn: Lsn,
) -> Result<Found, JournalError> {
    let mut found = Found {
        segments: Vec::new(),
        used: 0,
        first_lsn: fresh_lsn,
        next_lsn: fresh_lsn,
    };
    // The first place at which an intact record was looked for in vain, should the log turn out to go on behind it.
    let mut stopped: Option<(PathBuf, u32)> = None;
    let mut begun = false;
    for (index, &number) in files.segments.iter().enumerate() {
        if index > 0 && !files.segments.contains(&(number - 1)) {
            return Err(JournalError::MissingSegment {
                dir: dir.to_owned(),
                number: number - 1,
            });
        }
        let (segment, header, bytes) = read_segment(disk, dir, number)?;
        if !begun {
            // Before the log's first record stand at most segments of batches that were cut, not yet recycled when the
            // power went.
            let first = Records::new(&bytes, header.identity).next();
            begun = first.is_some();
            let floor = if index == 0 {
                header.lsn_floor
            } else {
                found.first_lsn
            };
            found.first_lsn = first.map_or(floor, |record| record.lsn);
            found.next_lsn = found.first_lsn;
        }
        let rot = |path: PathBuf, offset, lsn| JournalError::Rot { path, offset, lsn };
        let scan =
            scan(&bytes, header.identity, found.next_lsn, begun).map_err(|gap| match &stopped {
                // The log goes on here with a later number than it ended with: the damage is where it ended.
                Some((path, offset)) if gap.jumped && gap.offset == HEADER_BLOCK_BYTES => {
                    rot(path.clone(), *offset, gap.lsn)
                }
                _ => rot(segment.path.clone(), gap.offset, gap.lsn),
            })?;
        if scan.torn || scan.next_lsn > found.next_lsn {
            found.used = index + 1;
            stopped = Some((segment.path.clone(), scan.end));
        }
        found.next_lsn = scan.next_lsn;
        found.segments.push(Kept {
            segment: Arc::new(segment),
            scan,
        });
    }
    Ok(found)
}

fn read_segment(
    disk: &dyn Disk,
    dir: &Path,
    number: u32,
) -> Result<(Segment, SegmentHeader, Vec<u8>), JournalError> {
    let path = segment_path(dir, number, "seg");
    let io = |action, source| JournalError::io(action, &path, source);
    let file = disk
        .open(&path, OpenMode::Write)
        .map_err(|source| io("open", source))?;
    let file_len = file.len().map_err(|source| io("read", source))?;
    if file_len < HEADER_BLOCK_BYTES.into() {
        return Err(JournalError::RottenHeader { path });
    }
    let mut header = [0; SEGMENT_HEADER_BYTES];
    file.read_exact_at(&mut header, 0)
        .map_err(|source| io("read", source))?;
    let header = SegmentHeader::decode(&header).map_err(|bad| match bad {
        BadHeader::Damaged => JournalError::RottenHeader { path: path.clone() },
        BadHeader::Version(found) => JournalError::Version {
            path: path.clone(),
            found,
        },
    })?;
    if header.identity.number != number || u64::from(header.file_len) != file_len {
        return Err(JournalError::RottenHeader { path });
    }
    let mut bytes = vec![0; header.file_len as usize];
    file.read_exact_at(&mut bytes, 0)
        .map_err(|source| io("read", source))?;
    Ok((Segment::new(path, file, &header), header, bytes))
}

/// What one segment's bytes say.
struct Scan {
    /// One past its last record's number.
    next_lsn: Lsn,
    /// Where its records end.
    end: u32,
    /// A batch was begun behind them that is not whole.
    torn: bool,
}

/// An acknowledged record is not there.
struct Gap {
    offset: u32,
    lsn: Lsn,
    /// An intact record of another number stands in its place.
    jumped: bool,
}

/// Reads a segment whose first record should be `expected`, which is exact unless the log has not `begun` yet.
fn scan(bytes: &[u8], identity: Identity, expected: Lsn, begun: bool) -> Result<Scan, Gap> {
    let mut records = Records::new(bytes, identity);
    let mut next_lsn = expected;
    let mut end = records.end;
    for record in records.by_ref() {
        if record.lsn != next_lsn {
            return Err(Gap {
                offset: end,
                lsn: next_lsn,
                jumped: true,
            });
        }
        next_lsn = next_lsn.next();
        end = record.end();
    }
    let mut torn = began_here(&bytes[end as usize..], identity);
    // Whatever intact record lies behind tells whether the one missing here was acknowledged: its unit began after the
    // missing one only if that one was synced.
    let mut missing = begun.then_some(next_lsn);
    for at in (end as usize + 8..bytes.len()).step_by(8) {
        if let Some((header, _)) = intact_record(&bytes[at..], identity) {
            // A missing record that begins the log, if it was never acknowledged, began the unit of what follows it.
            let lsn = *missing.get_or_insert(Lsn(header
                .lsn
                .saturating_sub(header.unit_index.max(1).into())));
            if header.unit_lsn() > lsn.0 {
                return Err(Gap {
                    offset: end,
                    lsn,
                    jumped: false,
                });
            }
            torn = true;
        }
    }
    Ok(Scan {
        next_lsn,
        end,
        torn,
    })
}

/// The intact records of a segment from its beginning.
struct Records<'a> {
    bytes: &'a [u8],
    identity: Identity,
    /// Where the last record yielded ends.
    end: u32,
}

impl<'a> Records<'a> {
    fn new(bytes: &'a [u8], identity: Identity) -> Records<'a> {
        Records {
            bytes,
            identity,
            end: HEADER_BLOCK_BYTES,
        }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let (header, payload) = intact_record(self.bytes.get(self.end as usize..)?, self.identity)?;
        let offset = self.end + RECORD_HEADER_BYTES;
        let place = Place {
            segment: self.identity.number,
            offset,
            len: header.len,
        };
        let record = Record {
            lsn: Lsn(header.lsn),
            kind: header.kind,
            payload,
            place,
        };
        self.end = record.end();
        Some(record)
    }
}

impl Record<'_> {
    /// Where the next record begins.
    fn end(&self) -> u32 {
        let padded = padded_bytes(self.place.len).expect("a record that was read fits a segment");
        self.place.offset - RECORD_HEADER_BYTES + padded
    }
}

/// From one that still has room for a page of records to one that recovery can hold in memory.
const SEGMENT_SIZE_BYTES: RangeInclusive<u32> = 8 << 10..=1 << 30;
