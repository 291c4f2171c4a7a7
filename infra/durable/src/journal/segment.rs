//! One segment file, and the table by which readers find it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::Lsn;
use super::error::JournalError;
use super::format::{HEADER_BLOCK_BYTES, Identity, SegmentHeader};
use crate::disk::DiskFile;

/// An open segment.
pub(super) struct Segment {
    pub(super) number: u32,
    pub(super) identity: Identity,
    pub(super) path: PathBuf,
    pub(super) file: Box<dyn DiskFile>,
    /// Length of the file in bytes.
    pub(super) len: u32,
    /// Set before the file may be overwritten: what was read before looking at this is from the segment's own life.
    pub(super) released: AtomicBool,
}

impl Segment {
    pub(super) fn new(path: PathBuf, file: Box<dyn DiskFile>, header: &SegmentHeader) -> Segment {
        let SegmentHeader {
            identity, file_len, ..
        } = *header;
        let released = AtomicBool::new(false);
        Segment {
            number: identity.number,
            identity,
            path,
            file,
            len: file_len,
            released,
        }
    }

    pub(super) fn io(&self, action: &'static str, source: io::Error) -> JournalError {
        JournalError::io(action, &self.path, source)
    }
}

/// A segment that holds part of the log.
pub(super) struct Live {
    pub(super) segment: Arc<Segment>,
    /// One past its last record's number.
    pub(super) end_lsn: Lsn,
    /// Where its records end.
    pub(super) end: u32,
}

impl Live {
    pub(super) fn empty(segment: Arc<Segment>, next_lsn: Lsn) -> Live {
        Live {
            segment,
            end_lsn: next_lsn,
            end: HEADER_BLOCK_BYTES,
        }
    }
}

/// The segments that can be read, by number.
#[derive(Default)]
pub(super) struct SegmentTable(RwLock<BTreeMap<u32, Arc<Segment>>>);

impl SegmentTable {
    pub(super) fn find(&self, number: u32) -> Result<Arc<Segment>, JournalError> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        table
            .get(&number)
            .map(Arc::clone)
            .ok_or(JournalError::Released { segment: number })
    }

    pub(super) fn insert(&self, segment: &Arc<Segment>) {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        table.insert(segment.number, Arc::clone(segment));
    }

    pub(super) fn remove(&self, number: u32) {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(segment) = table.remove(&number) {
            segment.released.store(true, Ordering::SeqCst);
        }
    }
}

/// What a file in the journal's folder is, by its name.
pub(super) enum FileName {
    /// `00000001.seg`: a segment.
    Segment(u32),
    /// `00000001.free`: a released segment, kept to be overwritten.
    Free,
    /// `00000001.new`: a segment that was being made.
    New,
}

impl FileName {
    pub(super) fn parse(name: &str) -> Option<FileName> {
        let (digits, kind) = name.split_once('.')?;
        if digits.len() < 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        let number = digits.parse().ok()?;
        match kind {
            "seg" => Some(FileName::Segment(number)),
            "free" => Some(FileName::Free),
            "new" => Some(FileName::New),
            _ => None,
        }
    }
}

pub(super) fn segment_path(dir: &Path, number: u32, kind: &str) -> PathBuf {
    dir.join(format!("{number:08}.{kind}"))
}
