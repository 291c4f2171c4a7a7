//! Why a backup or a restore did not go on.

use std::io;
use std::path::{Path, PathBuf};

use daemon::log::causes;
use directory_api::{AccountId, BackendName, DirectoryError, LoginName, VolumeName};
use rustix::io::Errno;
use store_api::backends::BackendAway;
use store_api::transfer::TransferError;

use super::moment::Moment;

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
    /// The run that did not end cannot be gone on with.
    #[error("{} cannot be gone on with: {why}; leave --resume out, what is there is not fetched again", path.display())]
    NotToResume { path: PathBuf, why: String },
    /// The backup has nothing of it.
    #[error("the backup has no account {0}{when}; `posthouse backup list` with its name or number shows what there is", when = .1)]
    NoSnapshot(String, String),
    /// It has nothing by that name or number.
    #[error(
        "the backup has no account {0}; give its number, or the whole login name as it was then"
    )]
    NoAccount(String),
    /// Its home has lost it.
    #[error(
        "back-end {backend} has lost it: `posthouse restore` of its mailboxes brings back what the backup of {at} has"
    )]
    Gone { backend: BackendName, at: Moment },
    /// Something else is there.
    #[error(
        "it is there and is not as in the backup, and is left as it is: once the volume is adopted, `posthouse restore` of its mailboxes brings back what it lacks; to have it whole, begin with an empty volume"
    )]
    Differs,
    /// Somebody else's, perhaps.
    #[error(
        "account {account} is {now} now and was {was} in the backup of {at}: if it has got another name, say --known-as {was}; if the directory was made anew, {now} has another number in the backup: say --known-as with it"
    )]
    OtherName {
        account: AccountId,
        now: LoginName,
        was: LoginName,
        at: Moment,
    },
    /// A name is not enough.
    #[error("the backup has more than one account {name}: say --known-as with a number: {numbers}")]
    Ambiguous { name: String, numbers: String },
    /// Its accounts are in use.
    #[error(
        "back-end {0} takes mail: accounts come back whole only to a new volume in place of a lost one, before it is adopted; `posthouse restore` of accounts gives messages back"
    )]
    TakesMail(BackendName),
    /// A name that nobody's home has.
    #[error("no account lives on volume {volume} of back-end {backend}; there are: {has}")]
    NoVolume {
        backend: BackendName,
        volume: VolumeName,
        has: String,
    },
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

    /// Of a file whose octets the disk has lost: it is as good as damaged, and no reason to leave all others. Anything else may
    /// pass, and the same command goes on then.
    pub(super) fn unread(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| {
            let errno = source.raw_os_error().map(Errno::from_raw_os_error);
            match errno {
                Some(Errno::IO | Errno::UCLEAN | Errno::ISDIR) => {
                    Self::damaged(&path, "it cannot be read")
                }
                _ => Self::io("read", &path)(source),
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_disk_has_lost_is_damage() {
        let unread = |errno: Errno| {
            let error = io::Error::from_raw_os_error(errno.raw_os_error());
            BackupError::unread(Path::new("body"))(error)
        };
        for errno in [Errno::IO, Errno::UCLEAN, Errno::ISDIR] {
            let found = unread(errno);
            assert!(matches!(found, BackupError::Damaged { .. }), "{found:?}");
        }
        for errno in [Errno::STALE, Errno::TIMEDOUT, Errno::INTR, Errno::MFILE] {
            let found = unread(errno);
            assert!(matches!(found, BackupError::Io { .. }), "{found:?}");
        }
    }
}
