//! Why a backup or a restore did not go on.

use std::io;
use std::path::{Path, PathBuf};

use daemon::log::causes;
use directory_api::DirectoryError;
use store_api::backends::BackendAway;
use store_api::transfer::TransferError;

/// What stops it, by who has to do something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    /// The operating system answered an error.
    #[error("{}: {action}: {source}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// The folder is in use by somebody else.
    #[error("{} is not empty, and no backup: give another folder", .0.display())]
    Foreign(PathBuf),
    /// There is nothing there.
    #[error("{} holds no backup", .0.display())]
    NoBackup(PathBuf),
    /// A newer build has made it.
    #[error("{} begins {found:?}; this build reads \"posthouse backup 1\"", path.display())]
    Version { path: PathBuf, found: String },
    /// Another command works in the folder.
    #[error("{} is in use by another posthouse command", .0.display())]
    Locked(PathBuf),
    /// A file is not what was written.
    #[error("{} is damaged: {what}", path.display())]
    Damaged { path: PathBuf, what: &'static str },
    /// There is no run to go on with.
    #[error("{} has no unfinished run; leave --resume out", .0.display())]
    NothingToResume(PathBuf),
    /// The backup has nothing of it.
    #[error("the backup has no account {0}{when}", when = .1)]
    NoSnapshot(String, String),
    /// The snapshot has no such mailbox.
    #[error("the backup of {at} has no mailbox {name:?}; it has: {has}")]
    NoMailbox {
        at: String,
        name: String,
        has: String,
    },
    /// The directory gave no answer or refused.
    #[error("directory: {}", causes(.0))]
    Directory(#[from] DirectoryError),
    /// A back-end cannot be found.
    #[error("{}", causes(.0))]
    Backend(#[from] BackendAway),
    /// A back-end refused, or broke off.
    #[error("{}", causes(.0))]
    Transfer(#[from] TransferError),
}

impl BackupError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    pub(super) fn damaged(path: &Path, what: &'static str) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            what,
        }
    }

    /// The code of a back-end's refusal.
    pub(super) fn code(&self) -> Option<&str> {
        match self {
            Self::Transfer(TransferError::Refused(problem)) => Some(&problem.code),
            _ => None,
        }
    }
}
