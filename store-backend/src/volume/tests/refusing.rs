//! Makes writes of an index fail, from before it is opened.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use lmdb::heed;

use super::super::layout::INDEX_DIR;

/// Of the index in one folder, however often it is opened.
#[derive(Debug, Default)]
pub(in crate::volume) struct Refusing {
    /// What is answered; or 0.
    errno: AtomicI32,
    /// How many writes go well before that.
    passing: AtomicU32,
}

static ALL: Mutex<BTreeMap<PathBuf, Arc<Refusing>>> = Mutex::new(BTreeMap::new());

impl Refusing {
    pub(in crate::volume) fn of(folder: &Path) -> Arc<Self> {
        let mut all = ALL.lock().unwrap();
        Arc::clone(all.entry(folder.to_owned()).or_default())
    }

    pub(super) fn of_volume(root: &Path) -> Arc<Self> {
        Self::of(&root.join(INDEX_DIR))
    }

    /// From now on writes are answered so, after some that go well.
    pub(super) fn begin(&self, errno: i32, passing: u32) {
        self.passing.store(passing, Ordering::Relaxed);
        self.errno.store(errno, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.begin(0, 0);
    }

    pub(in crate::volume) fn pass(&self) -> heed::Result<()> {
        let errno = self.errno.load(Ordering::Relaxed);
        let passes = self
            .passing
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            });
        match errno {
            0 => Ok(()),
            _ if passes.is_ok() => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno).into()),
        }
    }
}
