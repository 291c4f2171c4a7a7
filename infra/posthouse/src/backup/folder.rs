//! Where things lie in a backup's folder, and how they get there: whole, synced, then named.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use directory_api::AccountId;

use super::error::BackupError;
use super::moment::Moment;

/// A backup's folder, locked.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    is_writable: bool,
    /// None where nothing can be written, nor by anybody else.
    _lock: Option<File>,
}

/// What a blob is named by.
pub(super) type Hash = [u8; 32];

impl Folder {
    /// To write: made when it is absent or empty. Nobody else may have it open.
    ///
    /// # Errors
    /// [`BackupError`].
    pub(crate) fn create(root: &Path) -> Result<Self, BackupError> {
        make_folder(root)?;
        let format = root.join(FORMAT_FILE);
        if !format.exists() {
            let mut names = fs::read_dir(root).map_err(BackupError::io("list", root))?;
            // What a start leaves that was killed before it wrote the marker.
            let ours = [LOCK_FILE, "FORMAT.new", "lost+found"];
            let is_foreign = names.any(|name| {
                name.is_ok_and(|name| !ours.iter().any(|our| name.file_name() == **our))
            });
            if is_foreign {
                return Err(BackupError::Foreign(root.to_owned()));
            }
        }
        let path = root.join(LOCK_FILE);
        let file = private().create(true).truncate(false).open(&path);
        let file = file.map_err(BackupError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(BackupError::Locked(root.to_owned())),
            Err(TryLockError::Error(source)) => return Err(BackupError::io("lock", &path)(source)),
        }
        let folder = Self {
            root: root.to_owned(),
            is_writable: true,
            _lock: Some(file),
        };
        if !format.exists() {
            let new = root.join("FORMAT.new");
            write_synced(&new, format!("{FORMAT}\n").as_bytes())?;
            folder.put_in_place(&new, &format)?;
        }
        folder.check_format()?;
        // What a run that was killed has left.
        let incoming = folder.incoming();
        if incoming.exists() {
            fs::remove_dir_all(&incoming).map_err(BackupError::io("remove", &incoming))?;
        }
        make_folder(&incoming)?;
        Ok(folder)
    }

    /// To write in one that must be there.
    ///
    /// # Errors
    /// [`BackupError`].
    pub(crate) fn change(root: &Path) -> Result<Self, BackupError> {
        if !root.join(FORMAT_FILE).exists() {
            return Err(BackupError::NoBackup(root.to_owned()));
        }
        Self::create(root)
    }

    /// To be looked through, and changed where something is wrong, if its disk can be written.
    ///
    /// # Errors
    /// [`BackupError`].
    pub(crate) fn examine(root: &Path) -> Result<Self, BackupError> {
        match Self::change(root) {
            Err(BackupError::Io { source, .. })
                if [
                    io::ErrorKind::ReadOnlyFilesystem,
                    io::ErrorKind::PermissionDenied,
                ]
                .contains(&source.kind()) =>
            {
                Self::read(root)
            }
            folder => folder,
        }
    }

    /// To read, from a disk too that cannot be written: nobody may write meanwhile.
    ///
    /// # Errors
    /// [`BackupError`].
    pub(crate) fn read(root: &Path) -> Result<Self, BackupError> {
        if !root.join(FORMAT_FILE).exists() {
            return Err(BackupError::NoBackup(root.to_owned()));
        }
        let path = root.join(LOCK_FILE);
        // Made with the folder: it is missing only in a copy.
        let lock = match File::open(&path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(BackupError::io("open", &path)(error)),
        };
        if let Some(file) = &lock
            && matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
        {
            return Err(BackupError::Locked(root.to_owned()));
        }
        let folder = Self {
            root: root.to_owned(),
            is_writable: false,
            _lock: lock,
        };
        folder.check_format()?;
        Ok(folder)
    }

    /// Until it is dropped, others who put mail of this account back from this folder wait: what one has put back, the next
    /// finds there.
    pub(super) fn lock_account(&self, account: AccountId) -> Result<File, BackupError> {
        let path = self.account(account);
        let folder = File::open(&path).map_err(BackupError::io("open", &path))?;
        if matches!(folder.try_lock(), Err(TryLockError::WouldBlock)) {
            eprintln!(
                "account {account} is being restored by another command, which is waited for"
            );
            folder.lock().map_err(BackupError::io("lock", &path))?;
        }
        Ok(folder)
    }

    fn check_format(&self) -> Result<(), BackupError> {
        let path = self.root.join(FORMAT_FILE);
        let mut text = String::new();
        let read = File::open(&path).and_then(|file| file.take(256).read_to_string(&mut text));
        read.map_err(BackupError::io("read", &path))?;
        let found = text.lines().next().unwrap_or_default();
        if found == FORMAT {
            return Ok(());
        }
        Err(BackupError::Version {
            path,
            found: found.to_owned(),
        })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    fn incoming(&self) -> PathBuf {
        self.root.join("incoming")
    }

    /// Where a file is written before it has its name.
    pub(super) fn incoming_file(&self, name: &str) -> PathBuf {
        self.incoming().join(name)
    }

    /// `blobs/ab/cd/<hash>`
    pub(super) fn blob(&self, hash: &Hash) -> PathBuf {
        let name = HEXLOWER.encode(hash);
        let blobs = self.root.join("blobs");
        blobs.join(&name[..2]).join(&name[2..4]).join(name)
    }

    /// Whether what is wrong may be put aside.
    pub(super) fn is_writable(&self) -> bool {
        self.is_writable
    }

    /// Where a blob is put that proved damaged.
    pub(super) fn damaged(&self) -> PathBuf {
        self.root.join("damaged")
    }

    /// Notes that a blob is not there, so that the next run looks for it although its account has not changed.
    pub(super) fn note_missing(&self, hash: &Hash) -> Result<(), BackupError> {
        self.make_below(&self.damaged())?;
        let note = self.damaged().join(HEXLOWER.encode(hash));
        new_file(&note).map(drop)
    }

    pub(super) fn runs(&self) -> PathBuf {
        self.root.join("runs")
    }

    fn account(&self, account: AccountId) -> PathBuf {
        let thousand = (account.0 / 1000).to_string();
        let accounts = self.root.join("accounts");
        accounts.join(thousand).join(account.0.to_string())
    }

    pub(super) fn snapshot(&self, account: AccountId, at: Moment) -> PathBuf {
        self.account(account).join(format!("{at}.{SNAPSHOT}"))
    }

    /// The snapshots of an account, the oldest first.
    pub(super) fn snapshots(
        &self,
        account: AccountId,
    ) -> Result<Vec<(Moment, PathBuf)>, BackupError> {
        let mut found = Vec::new();
        for path in names(&self.account(account))? {
            let is_one = path.extension().is_some_and(|end| end == SNAPSHOT);
            let at = path
                .file_stem()
                .and_then(|name| name.to_str()?.parse().ok());
            if let (true, Some(at)) = (is_one, at) {
                found.push((at, path));
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// The snapshot that shows an account as it was at an instant, or as it was last.
    pub(super) fn snapshot_at(
        &self,
        account: AccountId,
        at: Option<Moment>,
    ) -> Result<Option<(Moment, PathBuf)>, BackupError> {
        let mut all = self.snapshots(account)?;
        all.retain(|(taken, _)| at.is_none_or(|at| *taken <= at));
        Ok(all.pop())
    }

    /// Every account that has a snapshot, by number.
    pub(super) fn accounts(&self) -> Result<Vec<AccountId>, BackupError> {
        let mut found = Vec::new();
        for thousand in names(&self.root.join("accounts"))? {
            for path in names(&thousand)? {
                let number = path
                    .file_name()
                    .and_then(|name| name.to_str()?.parse().ok());
                found.extend(number.map(AccountId));
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Calls `each` for every blob's file.
    pub(super) fn each_blob(
        &self,
        mut each: impl FnMut(&Path) -> Result<(), BackupError>,
    ) -> Result<(), BackupError> {
        for first in names(&self.root.join("blobs"))? {
            for second in names(&first)? {
                for path in names(&second)? {
                    each(&path)?;
                }
            }
        }
        Ok(())
    }

    /// Gives a file that is whole and synced its name, for good.
    pub(super) fn put_in_place(&self, from: &Path, to: &Path) -> Result<(), BackupError> {
        let parent = to.parent().unwrap_or(&self.root);
        self.make_below(parent)?;
        fs::rename(from, to).map_err(BackupError::io("name", to))?;
        sync_folder(parent)
    }

    /// Makes a folder below the root; each name is durable.
    pub(super) fn make_below(&self, folder: &Path) -> Result<(), BackupError> {
        if folder.is_dir() {
            return Ok(());
        }
        let parent = folder.parent().filter(|_| folder != self.root);
        if let Some(parent) = parent {
            self.make_below(parent)?;
            make_folder(folder)?;
            sync_folder(parent)?;
        }
        Ok(())
    }
}

/// A new file that only its owner reads: it is mail.
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

/// Opens a file to be written from its beginning.
pub(super) fn new_file(path: &Path) -> Result<File, BackupError> {
    let opened = private().create(true).truncate(true).open(path);
    opened.map_err(BackupError::io("make", path))
}

pub(super) fn write_synced(path: &Path, octets: &[u8]) -> Result<(), BackupError> {
    let mut file = new_file(path)?;
    let written = file.write_all(octets).and_then(|()| file.sync_all());
    written.map_err(BackupError::io("write", path))
}

/// What is in a folder; nothing when it is not there.
pub(super) fn names(folder: &Path) -> Result<Vec<PathBuf>, BackupError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(BackupError::io("list", folder)(error)),
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let paths: io::Result<Vec<PathBuf>> = paths.collect();
    paths.map_err(BackupError::io("list", folder))
}

pub(super) fn sync_folder(folder: &Path) -> Result<(), BackupError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(BackupError::io("sync", folder))
}

fn make_folder(path: &Path) -> Result<(), BackupError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(BackupError::io("make", path))
}

const FORMAT_FILE: &str = "FORMAT";
const FORMAT: &str = "posthouse backup 1";
const LOCK_FILE: &str = "LOCK";
const SNAPSHOT: &str = "snapshot";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_written_by_one_and_only_if_it_is_a_backup() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("a/b");
        assert!(matches!(Folder::read(&root), Err(BackupError::NoBackup(_))));
        let first = Folder::create(&root).unwrap();
        assert!(matches!(Folder::create(&root), Err(BackupError::Locked(_))));
        assert!(matches!(Folder::read(&root), Err(BackupError::Locked(_))));
        drop(first);
        let (one, other) = (Folder::read(&root), Folder::read(&root));
        assert!(one.is_ok() && other.is_ok(), "readers do not mind readers");
        drop((one, other));
        // A copy on a disk that cannot be written.
        fs::remove_file(root.join(LOCK_FILE)).unwrap();
        Folder::read(&root).unwrap();
        assert!(!root.join(LOCK_FILE).exists());
        fs::write(root.join(FORMAT_FILE), "posthouse backup 2\n").unwrap();
        assert!(matches!(
            Folder::change(&root),
            Err(BackupError::Version { .. })
        ));
        assert!(matches!(
            Folder::create(dir.path()),
            Err(BackupError::Foreign(_))
        ));
    }

    #[test]
    fn a_snapshot_is_found_by_the_instant_that_it_shows() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(dir.path()).unwrap();
        let account = AccountId(1_234);
        for at in [10, 20, 30] {
            let new = folder.incoming_file("snapshot");
            write_synced(&new, b"x").unwrap();
            let path = folder.snapshot(account, Moment(at));
            folder.put_in_place(&new, &path).unwrap();
        }
        let found = |at: Option<i64>| {
            let found = folder.snapshot_at(account, at.map(Moment)).unwrap();
            found.map(|(at, _)| at.0)
        };
        assert_eq!(found(None), Some(30));
        assert_eq!((found(Some(29)), found(Some(20))), (Some(20), Some(20)));
        assert_eq!(found(Some(9)), None);
        assert_eq!(folder.accounts().unwrap(), [account]);
        assert_eq!(folder.snapshots(AccountId(1)).unwrap(), []);
    }
}
