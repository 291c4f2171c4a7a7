//! What can go wrong with a journal.

use std::io;
use std::path::{Path, PathBuf};

use super::{Lsn, WRITE};
use crate::disk::is_no_room;

/// Why the journal refused.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The operating system answered an error.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// An earlier write or sync failed; only opening the journal again tells what is on disk.
    #[error(
        "append to the journal {dir}: an earlier write or sync failed; restart to recover what is on disk"
    )]
    Poisoned {
        /// The journal's folder.
        dir: PathBuf,
    },
    /// The record does not fit into a segment; nothing was written.
    #[error("append a record of {len} bytes: a segment holds at most {max}")]
    TooLarge {
        /// The payload's length in bytes.
        len: u64,
        /// The longest payload that fits.
        max: u32,
    },
    /// An acknowledged record is damaged: later ones are behind it. Nothing was changed.
    #[error(
        "read {path}: record {lsn} at byte {offset} is damaged and later ones follow it; restore the file from a copy"
    )]
    Rot {
        /// The segment.
        path: PathBuf,
        /// Where the damage begins.
        offset: u32,
        /// The record that should be there.
        lsn: Lsn,
    },
    /// The header of a segment is damaged. Nothing was changed.
    #[error("read {path}: the segment's header is damaged; restore the file from a copy")]
    RottenHeader {
        /// The segment.
        path: PathBuf,
    },
    /// A segment between others is gone. Nothing was changed.
    #[error("read the journal {dir}: segment {number:08} is missing; restore it from a copy")]
    MissingSegment {
        /// The journal's folder.
        dir: PathBuf,
        /// The number that is missing.
        number: u32,
    },
    /// A newer build wrote the segment. Nothing was changed.
    #[error("read {path}: format version {found}, this build reads version 1; use the newer build")]
    Version {
        /// The segment.
        path: PathBuf,
        /// The version found.
        found: u32,
    },
    /// A file in the folder is not ours. Nothing was changed.
    #[error("open the journal: {path} does not belong here; move it away")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The options are out of range.
    #[error(
        "open the journal: segment size {segment_size_bytes} is not a multiple of 4096 from 8192 to 1073741824"
    )]
    Options {
        /// The size given.
        segment_size_bytes: u32,
    },
    /// The place's segment was released; its content lives elsewhere by now.
    #[error("read segment {segment:08}: it was released")]
    Released {
        /// The segment's number.
        segment: u32,
    },
    /// What lies at the place is not the record it should be (a place this journal never gave, or rot).
    #[error("read {path}: no intact record of {len} bytes at byte {offset}")]
    BadPlace {
        /// The segment.
        path: PathBuf,
        /// The place's offset.
        offset: u32,
        /// The place's length.
        len: u32,
    },
    /// Replay was asked for records that were released.
    #[error("replay from record {wanted}: the oldest one kept is {oldest}")]
    Gone {
        /// The first record asked for.
        wanted: Lsn,
        /// The first record there is.
        oldest: Lsn,
    },
}

impl JournalError {
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> JournalError {
        JournalError::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// Whether it was in a segment that records or zeros could not be written.
    #[must_use]
    pub fn is_of_write(&self) -> bool {
        matches!(self, JournalError::Io { action: WRITE, .. })
    }

    /// Whether the disk is full (or the quota used up): worth trying again once there is room.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, JournalError::Io { source, .. } if is_no_room(source))
    }
}
