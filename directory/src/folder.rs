//! The data folder: who it belongs to, the lock, and the key that signs grants.
//!
//! ```text
//! FORMAT        "posthouse directory 1", written first
//! lock          held while a directory serves the folder
//! data/         the database
//! signing.key   Ed25519 in PKCS#8, mode 0600, written last: where it stands there was a database
//! signing.next  the one after it, while it is only published
//! signing.old   the one before it, while its grants may live
//! derived.key   32 random octets, mode 0600, for ever: SCRAM's salts and the states of its dialogues
//!               are made with keys derived from it
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use directory_api::grant::KeyError;

use crate::engine::{Answer, Lmdb, LmdbError, NamedKey, Postgres};
use crate::keys::{self, Keys};

/// The files with keys, the one that is written last at the end.
pub(crate) const KEY_FILES: [&str; 4] =
    ["derived.key", "signing.old", "signing.next", "signing.key"];

const MARK: &str = "posthouse directory ";
const VERSION: &str = "1";

/// Why the data folder cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The system refuses.
    #[error("{}: {what}: check that the folder exists, is writable and has room", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Another process serves it.
    #[error("{}: another directory serves this folder: stop it, or choose another folder", .0.display())]
    Locked(PathBuf),
    /// It holds something else.
    #[error("{}: the folder is not empty and not a directory's: choose another folder", .0.display())]
    Foreign(PathBuf),
    /// It was written by another version.
    #[error("{}: the folder has format {found:?}, this program reads {VERSION:?}: use the version that wrote it", path.display())]
    Version {
        /// The folder.
        path: PathBuf,
        /// The version in it.
        found: String,
    },
    /// The database is gone and the rest is there: starting empty would make every user unknown.
    #[error("{}: the database is missing though it was there: restore the folder from a backup", .0.display())]
    Lost(PathBuf),
    /// The database cannot be used.
    #[error("{}: the database cannot be used: restore the folder from a backup, or see the cause", path.display())]
    Database {
        /// The database's folder.
        path: PathBuf,
        /// Why.
        source: LmdbError,
    },
    /// The signing key cannot be used.
    #[error("{}: the signing key cannot be used: restore it, or remove it to have a new one made", path.display())]
    Key {
        /// The key's file.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
}

/// An open data folder. The lock lasts as long as this value.
pub(crate) struct Folder {
    pub(crate) engine: Lmdb,
    pub(crate) keys: Keys,
    pub(crate) derived: DerivedKeys,
    /// Held while the folder is served.
    pub(crate) lock: File,
}

impl Folder {
    /// Opens the folder, or makes it. Blocking.
    pub(crate) fn open(path: &Path) -> Result<Self, FolderError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io_error(path, "cannot be made"))?;
        check_mark(path)?;
        let lock = lock(path)?;
        let data = path.join("data");
        let key_file = path.join("signing.key");
        if exists(&key_file)? && !exists(&data.join("data.mdb"))? {
            return Err(FolderError::Lost(data));
        }
        let engine = Lmdb::open(&data).map_err(|source| FolderError::Database {
            path: data.clone(),
            source,
        })?;
        let derived = derived(path)?;
        let keys = Keys::open(path, keys::STEP)?;
        Ok(Self {
            engine,
            keys,
            derived,
            lock,
        })
    }
}

impl Folder {
    /// A new folder with these keys and an empty database. Blocking.
    pub(crate) fn made_of(path: &Path, keys: &[NamedKey]) -> Result<(Lmdb, File), FolderError> {
        DirBuilder::new()
            .mode(0o700)
            .create(path)
            .map_err(io_error(path, "cannot be made"))?;
        check_mark(path)?;
        let lock = lock(path)?;
        for name in KEY_FILES {
            if let Some((_, octets)) = keys.iter().find(|(key, _)| key == name) {
                write_synced(path, name, octets, 0o600)?;
            }
        }
        let data = path.join("data");
        let engine = Lmdb::open(&data).map_err(|source| FolderError::Database {
            path: data.clone(),
            source,
        })?;
        Ok((engine, lock))
    }
}

/// Marks an empty folder as ours; refuses what is not.
fn check_mark(path: &Path) -> Result<(), FolderError> {
    let file = path.join("FORMAT");
    match fs::read(&file) {
        Ok(octets) => {
            let text = String::from_utf8_lossy(&octets);
            match text.trim_end().strip_prefix(MARK) {
                Some(VERSION) => Ok(()),
                Some(found) => Err(FolderError::Version {
                    path: path.into(),
                    found: found.to_owned(),
                }),
                None => Err(FolderError::Foreign(path.into())),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut entries = fs::read_dir(path).map_err(io_error(path, "cannot be listed"))?;
            // A first start cut short may leave the temporary file behind.
            if entries.any(|entry| entry.is_ok_and(|entry| entry.file_name() != "FORMAT.new")) {
                return Err(FolderError::Foreign(path.into()));
            }
            write_synced(
                path,
                "FORMAT",
                format!("{MARK}{VERSION}\n").as_bytes(),
                0o644,
            )
        }
        Err(source) => Err(FolderError::Io {
            path: file,
            what: "cannot be read",
            source,
        }),
    }
}

fn lock(path: &Path) -> Result<File, FolderError> {
    let file = path.join("lock");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&file)
        .map_err(io_error(&file, "cannot be opened"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(FolderError::Locked(path.into())),
        Err(TryLockError::Error(source)) => Err(FolderError::Io {
            path: file,
            what: "cannot be locked",
            source,
        }),
    }
}

/// Keys for hashes that the directory alone makes and checks, derived from one that is never changed:
/// the salt that SCRAM shows for a name that is nobody's must stay the same, as those of users do, when
/// the key that signs grants is another one.
pub(crate) struct DerivedKeys(hmac::Key);

impl DerivedKeys {
    /// From the key that a database keeps for all servers on it.
    pub(crate) async fn shared(database: &Postgres) -> Answer<Self> {
        let mut octets = [0; 32];
        daemon::random::fill(&mut octets);
        let kept = database.key_or("derived.key", &octets).await?;
        Ok(Self::new(&kept))
    }

    fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The key for one purpose.
    pub(crate) fn key(&self, purpose: &str) -> hmac::Key {
        let key = hmac::sign(&self.0, format!("posthouse {purpose}").as_bytes());
        hmac::Key::new(hmac::HMAC_SHA256, key.as_ref())
    }
}

fn derived(path: &Path) -> Result<DerivedKeys, FolderError> {
    let file = path.join("derived.key");
    match fs::read(&file) {
        Ok(octets) => Ok(DerivedKeys::new(&octets)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut octets = [0; 32];
            daemon::random::fill(&mut octets);
            write_synced(path, "derived.key", &octets, 0o600)?;
            Ok(DerivedKeys::new(&octets))
        }
        Err(source) => Err(FolderError::Io {
            path: file,
            what: "cannot be read",
            source,
        }),
    }
}

/// Writes a file whole or not at all, durable when it returns.
pub(crate) fn write_synced(
    folder: &Path,
    name: &str,
    octets: &[u8],
    mode: u32,
) -> Result<(), FolderError> {
    let path = folder.join(name);
    let temporary = folder.join(format!("{name}.new"));
    let written = (|| {
        let _ = fs::remove_file(&temporary);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)?;
        file.write_all(octets)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(folder)?.sync_all()
    })();
    written.map_err(io_error(&path, "cannot be written"))
}

/// Gives a file the name of another, which goes; durable when it returns.
pub(crate) fn rename_synced(folder: &Path, from: &str, to: &str) -> Result<(), FolderError> {
    fs::rename(folder.join(from), folder.join(to))
        .and_then(|()| File::open(folder)?.sync_all())
        .map_err(io_error(&folder.join(to), "cannot be renamed"))
}

/// Removes a file that is there; durable when it returns.
pub(crate) fn remove_synced(folder: &Path, name: &str) -> Result<(), FolderError> {
    fs::remove_file(folder.join(name))
        .and_then(|()| File::open(folder)?.sync_all())
        .map_err(io_error(&folder.join(name), "cannot be removed"))
}

fn exists(path: &Path) -> Result<bool, FolderError> {
    path.try_exists().map_err(io_error(path, "cannot be read"))
}

fn io_error<'a>(path: &'a Path, what: &'static str) -> impl Fn(io::Error) -> FolderError + 'a {
    move |source| FolderError::Io {
        path: path.into(),
        what,
        source,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn refused(path: &Path) -> FolderError {
        Folder::open(path).err().unwrap()
    }

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_folder_is_made_once_and_keeps_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made/by/open");
        let first = Folder::open(&path).unwrap();
        let key = first.keys.published().unwrap();
        assert!(matches!(refused(&path), FolderError::Locked(_)));
        let Folder { engine, lock, .. } = first;
        engine.close();
        drop(lock);
        let again = Folder::open(&path).unwrap();
        assert_eq!(again.keys.published().unwrap(), key);
        let mode = fs::metadata(path.join("signing.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_foreign_or_newer_folder_is_refused_untouched() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("holiday.jpg"), b"x").unwrap();
        assert!(matches!(refused(dir.path()), FolderError::Foreign(_)));
        assert_eq!(names(dir.path()), ["holiday.jpg"]);
        fs::remove_file(dir.path().join("holiday.jpg")).unwrap();
        fs::write(dir.path().join("FORMAT"), b"posthouse directory 2\n").unwrap();
        assert!(matches!(refused(dir.path()), FolderError::Version { found, .. } if found == "2"));
        fs::write(dir.path().join("FORMAT"), b"posthouse volume 1\n").unwrap();
        assert!(matches!(refused(dir.path()), FolderError::Foreign(_)));
        assert_eq!(names(dir.path()), ["FORMAT"]);
    }

    #[test]
    fn a_lost_or_damaged_database_and_a_damaged_key_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        Folder::open(dir.path()).unwrap().engine.close();
        let data = dir.path().join("data/data.mdb");
        fs::write(&data, b"this is no database\n".repeat(1000)).unwrap();
        assert!(matches!(refused(dir.path()), FolderError::Database { .. }));
        fs::remove_file(&data).unwrap();
        assert!(matches!(refused(dir.path()), FolderError::Lost(_)));

        let dir = tempfile::tempdir().unwrap();
        Folder::open(dir.path()).unwrap().engine.close();
        fs::write(dir.path().join("signing.key"), b"rust").unwrap();
        assert!(matches!(refused(dir.path()), FolderError::Key { .. }));
    }
}
