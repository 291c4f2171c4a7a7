//! Bytes that survive a power cut: the disk seam and the journal. Knows no mail.
//!
//! - [`Disk`] is the seam: everything the store does to files goes through it, so that tests can cut the power between
//!   any two operations. [`RealDisk`] is the operating system.
//! - [`Journal`] is a log of records in pre-allocated segments: one write and one `fdatasync` make a whole batch durable.
//!
//! This package never interprets a payload, never retries a failed sync and never decides what to do about damage: it
//! reports it.

mod disk;
mod journal;
mod real_disk;

pub use disk::{Disk, DiskFile, DiskRoom, Metadata, OpenMode, create_dir_durable, is_no_room};
pub use journal::{
    Cut, Entry, Inspection, Journal, JournalError, JournalOptions, JournalReader, Lsn, Place,
    Record, Recovery, SegmentFacts, inspect as inspect_journal,
};
pub use real_disk::RealDisk;
