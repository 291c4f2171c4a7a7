//! What can go wrong with a volume, by who must do something about it.

use std::io;
use std::path::{Path, PathBuf};

use durable::{Disk, JournalError, is_no_room};
use lmdb::heed;

use super::codec::Malformed;
use super::file_system::FILE_SYSTEMS;

/// Why a volume could not be opened. It was left as it was.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The operating system answered an error.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// The folder has files in it, but no marker of ours.
    #[error(
        "open the volume {path}: the folder is not empty and has no FORMAT file; give an empty folder"
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
    },
    /// The marker cannot be read, or names a version this build does not know.
    #[error(
        "open the volume {path}: its FORMAT file begins {found:?}, this build reads \"posthouse store 1\""
    )]
    Version {
        /// The folder.
        path: PathBuf,
        /// The first line.
        found: String,
    },
    /// It belongs to another back-end or has another name.
    #[error(
        "open the volume {path}: its FORMAT file says {key} {found}, the configuration says {wanted}"
    )]
    OtherOwner {
        /// The folder.
        path: PathBuf,
        /// `backend` or `volume`.
        key: &'static str,
        /// What the marker says.
        found: String,
        /// What was asked for.
        wanted: String,
    },
    /// Another process has it open.
    #[error("open the volume {path}: another process has it open")]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// Locks and syncs cannot be trusted there.
    #[error(
        "open the volume {path}: it lies on {kind}, whose locks and syncs cannot be trusted; use a local disk with {FILE_SYSTEMS}"
    )]
    FileSystem {
        /// The folder.
        path: PathBuf,
        /// The kind of file system.
        kind: String,
    },
    /// The journal is damaged or not ours.
    #[error("open the journal")]
    Journal(#[from] JournalError),
    /// The index could not be opened.
    #[error("open the index")]
    Index(#[from] lmdb::OpenError),
    /// The index is damaged, or a record does not fit it.
    #[error("bring the index up to date")]
    Replay(#[from] IndexError),
    /// The disk is full, and without room it cannot be opened. It can as soon as there is some.
    #[error(
        "open the volume {path}: its disk is full: {free} octets are free, {missing} are missing until it takes mail; delete something or enlarge the disk, it is tried again until there is room"
    )]
    NoRoom {
        /// The folder.
        path: PathBuf,
        /// Octets that are free.
        free: u64,
        /// Octets that are missing to the mark below which no mail is taken.
        missing: u64,
        /// What found no room.
        source: Box<Self>,
    },
    /// The index is gone or too old, and the records to rebuild it are released.
    #[error(
        "open the volume {path}: the index ends at record {applied}, but the journal begins at {oldest}, and copy and kept log in `kept/` do not reach as far; restore index/ or kept/ from a backup, or see `posthouse fsck`"
    )]
    IndexLost {
        /// The folder.
        path: PathBuf,
        /// The last record in index and files.
        applied: u64,
        /// The oldest record in the journal.
        oldest: u64,
    },
    /// The index holds records that the journal does not.
    #[error(
        "open the volume {path}: the index ends at record {applied}, but the journal ends before {next}; restore the journal from its copy"
    )]
    JournalLost {
        /// The folder.
        path: PathBuf,
        /// The last record in the index.
        applied: u64,
        /// The next record of the journal.
        next: u64,
    },
}

impl OpenError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

impl OpenError {
    /// Whether it may go well once there is room.
    #[must_use]
    pub fn is_no_room(&self) -> bool {
        match self {
            Self::NoRoom { .. } => true,
            Self::Io { source, .. } => is_no_room(source),
            Self::Journal(error) => error.is_disk_full(),
            Self::Index(error) => error.is_no_room(),
            Self::Replay(error) => error.is_no_room(),
            _ => false,
        }
    }
}

impl From<heed::Error> for OpenError {
    fn from(error: heed::Error) -> Self {
        Self::Replay(error.into())
    }
}

/// The index cannot be read or written, or contradicts the journal.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// LMDB answered an error.
    #[error("use the index")]
    Lmdb(#[from] heed::Error),
    /// A row or record cannot be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A record relies on a row that is not there.
    #[error("record does not fit the index: {0} is missing")]
    Contradiction(&'static str),
}

impl IndexError {
    /// Whether the map or the disk was full.
    fn is_no_room(&self) -> bool {
        match self {
            Self::Lmdb(heed::Error::Mdb(heed::MdbError::MapFull)) => true,
            Self::Lmdb(heed::Error::Io(error)) => is_no_room(error),
            _ => false,
        }
    }

    /// The same on a disk that can be asked: LMDB says "input/output error" when a part was written.
    pub(super) fn is_no_room_on(&self, disk: &dyn Disk, root: &Path) -> bool {
        let is_partly_written =
            matches!(self, Self::Lmdb(heed::Error::Io(error)) if error.raw_os_error() == Some(EIO));
        let is_full = || {
            let room = disk.room(root);
            room.is_ok_and(|room| room.free_bytes < FULL_BELOW_BYTES)
        };
        self.is_no_room() || is_partly_written && is_full()
    }
}

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The index cannot be read.
    #[error("read the index")]
    Index(#[from] IndexError),
    /// The journal cannot be read.
    #[error("read the journal")]
    Journal(#[from] JournalError),
    /// A file cannot be read.
    #[error("read {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// The octets of a blob do not have its hash (P9). What was read before must not be taken for the message.
    #[error("read the blob {hash}: its octets have another hash")]
    Corrupt {
        /// The hash it should have.
        hash: String,
    },
    /// The blob's file had another hash, or was gone, and is put aside: it is not served.
    #[error("read the blob {hash}: it is in quarantine; restore the file from a copy")]
    Quarantined {
        /// The hash it should have.
        hash: String,
    },
    /// What was answered for the account is not in the index yet, which waits for room.
    #[error("read the account: the index waits for room on the disk")]
    Behind,
    /// Its disk gives no answer, not even an error.
    #[error("read the volume: its disk does not answer")]
    Silent,
    /// The thread that read was stopped.
    #[error("read the volume: the process is stopping")]
    Stopped,
}

impl From<heed::Error> for ReadError {
    fn from(error: heed::Error) -> Self {
        Self::Index(error.into())
    }
}

impl From<Malformed> for ReadError {
    fn from(error: Malformed) -> Self {
        Self::Index(error.into())
    }
}

impl WriteError {
    /// Whether it may go well once there is room.
    #[must_use]
    pub fn is_no_room(&self) -> bool {
        match self {
            Self::NoRoom => true,
            Self::Io { source, .. } => is_no_room(source),
            Self::ReadOnly | Self::Stopped => false,
        }
    }

    /// Whether the log had a line of it when it began.
    pub(crate) fn is_known(&self) -> bool {
        matches!(self, Self::NoRoom | Self::ReadOnly)
    }
}

/// Why a body could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The file of a large body could not be written or synced.
    #[error("write {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// The disk is full or nearly so.
    #[error("write the body: the disk is nearly full")]
    NoRoom,
    /// The volume takes no more writes.
    #[error("write the body: the volume takes no writes")]
    ReadOnly,
    /// The thread that wrote was stopped.
    #[error("write the body: the process is stopping")]
    Stopped,
}

/// `errno` of an input or output error, on every system we run on.
const EIO: i32 = 5;
/// Less than this is no room for what LMDB writes at once.
const FULL_BELOW_BYTES: u64 = 1 << 20;
