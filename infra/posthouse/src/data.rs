//! The data folder of `posthouse up`: whose it is, which format it has, and that only one process uses it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Changes when an older `posthouse` would damage the folder.
const FORMAT: u32 = 1;
const PRODUCT: &str = "posthouse";
const MARKER: &str = "posthouse.json";
const LOCK: &str = "lock";

/// Says whose folder this is. Fields may be added; older builds ignore them.
#[derive(Serialize, Deserialize)]
struct Marker {
    product: String,
    format: u32,
}

/// The folder, locked for this process as long as this value lives.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    _lock: File,
}

/// Why a folder cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// Holds files and is not ours.
    #[error("{}: holds files that are not Posthouse's; choose another folder with --data", .0.display())]
    Foreign(PathBuf),
    /// Is no folder.
    #[error("{}: is not a folder; choose another one with --data", .0.display())]
    NoFolder(PathBuf),
    /// Written by a later version.
    #[error("{}: has format {found}, this posthouse knows {FORMAT}; use the newer posthouse that made it", path.display())]
    Newer {
        /// The folder.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Another process uses it.
    #[error("{}: posthouse already runs there{}; stop it with `posthouse down --data {}`", path.display(), pid_text(*pid), path.display())]
    Running {
        /// The folder.
        path: PathBuf,
        /// The process, when it has said so already.
        pid: Option<u32>,
    },
    /// Nothing is there.
    #[error("{}: no Posthouse data there; name the folder of `posthouse up` with --data", .0.display())]
    Missing(PathBuf),
    /// Cannot be read or written.
    #[error("{}: {source}; check who may write there, or choose another folder with --data", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn pid_text(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" as process {pid}"))
        .unwrap_or_default()
}

impl DataFolder {
    /// Opens the folder, making it when it is missing or empty, and locks it.
    ///
    /// # Errors
    /// [`DataError`]; a folder that is refused is left as it was.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let failed = |source| DataError::Io {
            path: path.to_owned(),
            source,
        };
        match fs::metadata(path) {
            Ok(found) if !found.is_dir() => return Err(DataError::NoFolder(path.to_owned())),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Private keys and mail lie inside.
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(path)
                    .map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        }
        let path = path.canonicalize().map_err(failed)?;
        if !is_ours(&path)? {
            let text =
                serde_json::json!({ "product": PRODUCT, "format": FORMAT }).to_string() + "\n";
            write_atomically(&path.join(MARKER), text.as_bytes(), 0o644)?;
        }
        let lock = path.join(LOCK);
        let failed = |source| DataError::Io {
            path: lock.clone(),
            source,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = pid_in(&mut file);
                return Err(DataError::Running { path, pid });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0)
            .and_then(|()| file.write_all(std::process::id().to_string().as_bytes()))
            .map_err(failed)?;
        Ok(Self { path, _lock: file })
    }

    /// The folder, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The process that runs in a folder; none when nobody does.
///
/// # Errors
/// `Missing` and `Foreign` when it is not ours; `Io`.
pub fn running(path: &Path) -> Result<Option<Holder>, DataError> {
    if !path.is_dir() || !is_ours(path)? {
        return Err(DataError::Missing(path.to_owned()));
    }
    let lock = path.join(LOCK);
    let mut file = match File::open(&lock) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DataError::Io { path: lock, source }),
    };
    // A shared lock, given back with the file at once: it only asks.
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some(Holder {
            pid: pid_in(&mut file),
        })),
        Err(TryLockError::Error(source)) => Err(DataError::Io { path: lock, source }),
    }
}

/// Who holds a folder's lock.
#[derive(Clone, Copy, Debug)]
pub struct Holder {
    /// None in the instant between its locking and its writing.
    pub pid: Option<u32>,
}

/// Whether the marker stands there; false for a folder with nothing in it.
fn is_ours(path: &Path) -> Result<bool, DataError> {
    let marker = path.join(MARKER);
    match fs::read(&marker) {
        Ok(text) => match serde_json::from_slice::<Marker>(&text) {
            Ok(marker) if marker.product == PRODUCT && marker.format <= FORMAT => Ok(true),
            Ok(marker) if marker.product == PRODUCT => Err(DataError::Newer {
                path: path.to_owned(),
                found: marker.format,
            }),
            _ => Err(DataError::Foreign(path.to_owned())),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let failed = |source| DataError::Io {
                path: path.to_owned(),
                source,
            };
            for entry in fs::read_dir(path).map_err(failed)? {
                // Left by a first start that was cut off before its marker stood.
                if entry.map_err(failed)?.file_name() != beside(Path::new(MARKER)).as_os_str() {
                    return Err(DataError::Foreign(path.to_owned()));
                }
            }
            Ok(false)
        }
        Err(source) => Err(DataError::Io {
            path: marker,
            source,
        }),
    }
}

fn pid_in(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Replaces a file so that a reader or a crash meets the old text or the new one, never half of it.
/// Durable when it returns.
///
/// # Errors
/// `Io` names the file.
pub fn write_atomically(path: &Path, text: &[u8], mode: u32) -> Result<(), DataError> {
    let new = beside(path);
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&new)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        // A path without a folder part lies in the working directory.
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    };
    write().map_err(|source| DataError::Io {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_made_once_and_held_by_one() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("deep/data");
        let held = DataFolder::open(&path).unwrap();
        assert!(held.path().is_absolute());
        let said = DataFolder::open(&path).unwrap_err().to_string();
        assert!(
            said.contains(&format!("process {}", std::process::id())),
            "{said}"
        );
        assert_eq!(
            running(&path).unwrap().unwrap().pid,
            Some(std::process::id())
        );
        drop(held);
        assert!(running(&path).unwrap().is_none());
        DataFolder::open(&path).unwrap();
    }

    #[test]
    fn a_folder_of_others_or_of_a_later_version_is_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let thesis = place.path().join("thesis.txt");
        fs::write(&thesis, "years of work").unwrap();
        assert!(matches!(
            DataFolder::open(place.path()),
            Err(DataError::Foreign(_))
        ));
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
        assert!(matches!(
            DataFolder::open(&thesis),
            Err(DataError::NoFolder(_))
        ));

        let marker = place.path().join(MARKER);
        for (text, newer) in [
            (r#"{"product":"posthouse","format":2}"#, true),
            (r#"{"product":"x","format":1}"#, false),
            ("{", false),
        ] {
            fs::write(&marker, text).unwrap();
            let error = DataFolder::open(place.path()).unwrap_err();
            assert_eq!(
                matches!(error, DataError::Newer { found: 2, .. }),
                newer,
                "{error}"
            );
            assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
        }
    }

    #[test]
    fn a_first_start_cut_off_before_its_marker_can_be_repeated() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("posthouse.json.new"), "{").unwrap();
        DataFolder::open(place.path()).unwrap();
    }
}
