//! Blobs whose octets cannot be had: the file has another hash, or is gone. They are known by a file in `quarantine/`, are
//! never served and take no links; the same octets, delivered again, begin a new inode and heal them ([`super::mend`]).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use durable::Disk;

use super::error::OpenError;
use super::index::Index;
use super::layout::{Layout, QUARANTINE_DIR, number_of};
use super::types::Hash;

/// The broken blobs by number.
#[derive(Debug, Default)]
pub(super) struct Broken(RwLock<Arc<BTreeMap<u64, Hash>>>);

impl Broken {
    /// Those in quarantine that have no file again since, and that the index has: what was dropped stays there.
    pub(super) fn load(disk: &dyn Disk, layout: &Layout, index: &Index) -> Result<Self, OpenError> {
        let mut found = BTreeMap::new();
        for (number, hash, _) in in_quarantine(disk, layout)? {
            let path = layout.blob(number, &hash);
            let row = index.read(|txn| index.blob(txn, number))?;
            if row.is_some_and(|row| row.hash == hash)
                && !disk
                    .exists(&path)
                    .map_err(OpenError::io("look for", &path))?
            {
                found.insert(number, hash);
            }
        }
        Ok(Self(RwLock::new(Arc::new(found))))
    }

    pub(super) fn has(&self, number: u64) -> bool {
        self.read().contains_key(&number)
    }

    pub(super) fn count(&self) -> usize {
        self.read().len()
    }

    /// All of them, as of one instant.
    pub(super) fn now(&self) -> Arc<BTreeMap<u64, Hash>> {
        Arc::clone(&self.read())
    }

    /// Those that have lost the same octets.
    pub(super) fn of_hash(&self, hash: &Hash) -> Vec<u64> {
        let all = self.read();
        let same = all.iter().filter(|(_, lost)| *lost == hash);
        same.map(|(number, _)| *number).collect()
    }

    /// Whether any is broken: most volumes have none, and ask no further.
    pub(super) fn is_empty(&self) -> bool {
        self.read().is_empty()
    }

    pub(super) fn add(&self, number: u64, hash: Hash) {
        Arc::make_mut(&mut self.write()).insert(number, hash);
    }

    /// Its file is there again, or nobody needs it any more.
    pub(super) fn remove(&self, number: u64) {
        Arc::make_mut(&mut self.write()).remove(&number);
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Arc<BTreeMap<u64, Hash>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Arc<BTreeMap<u64, Hash>>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The files in quarantine: number and hash of the blob, and where it lies.
pub(super) fn in_quarantine(
    disk: &dyn Disk,
    layout: &Layout,
) -> Result<Vec<(u64, Hash, PathBuf)>, OpenError> {
    let folder = layout.file(QUARANTINE_DIR);
    let names = match disk.read_dir(&folder) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(OpenError::io("list", &folder)(error)),
    };
    let found = names.iter().filter_map(|name| {
        let (number, hash) = blob_of(name)?;
        Some((number, hash, folder.join(name)))
    });
    Ok(found.collect())
}

/// Number and hash of a file in quarantine; a second one of the same blob has a number of its own behind a dot.
fn blob_of(name: &OsStr) -> Option<(u64, Hash)> {
    let (number, hash) = name.to_str()?.split_once('-')?;
    let hash = hash.split('.').next()?;
    let hash = data_encoding::HEXLOWER.decode(hash.as_bytes()).ok()?;
    Some((number_of(number)?, hash.try_into().ok()?))
}

/// Where the next file of this blob goes.
pub(super) fn place(
    disk: &dyn Disk,
    layout: &Layout,
    number: u64,
    hash: &Hash,
) -> io::Result<PathBuf> {
    let first = layout.quarantined(number, hash);
    let mut path = first.clone();
    let mut count = 1;
    while disk.exists(&path)? {
        count += 1;
        let mut name = first.clone().into_os_string();
        name.push(format!(".{count}"));
        path = name.into();
    }
    Ok(path)
}

/// What readers have found wrong, for the keeper to look at. Bounded: what does not fit is found by the next reader.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    blobs: BTreeSet<u64>,
    closed: bool,
    woken: bool,
}

impl Suspects {
    pub(super) fn tell(&self, number: u64) {
        let mut state = self.lock();
        if state.blobs.len() < SUSPECTS_MAX {
            state.blobs.insert(number);
        }
        self.changed.notify_all();
    }

    /// Waits for some; after the timeout or a wake-up there may be none. `None`: the volume stops.
    pub(super) fn take(&self, timeout: Duration) -> Option<Vec<u64>> {
        let mut state = self.lock();
        if state.blobs.is_empty() && !state.closed && !state.woken {
            let waited = self.changed.wait_timeout(state, timeout);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.woken = false;
        if state.closed {
            return None;
        }
        Some(std::mem::take(&mut state.blobs).into_iter().collect())
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const SUSPECTS_MAX: usize = 1000;
