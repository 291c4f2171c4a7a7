//! A disk that gives no answer, or an error, to whoever reads the index.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

use lmdb::heed;

use super::Volume;

/// Whether reads hang, and how many do, or fail.
#[derive(Default)]
pub(crate) struct Hanging {
    hangs: AtomicBool,
    fails: AtomicBool,
    count: AtomicUsize,
}

/// The end of it when it is dropped, or a volume could not be closed.
pub(crate) struct Hung(Arc<Hanging>);

impl Hanging {
    /// Whoever reads the index of this volume from now on waits.
    pub(crate) fn begin(volume: &Volume) -> Hung {
        let hanging = Arc::clone(&volume.inner.shared().index.hanging);
        hanging.hangs.store(true, Ordering::SeqCst);
        Hung(hanging)
    }

    /// The same is told that it cannot be read.
    pub(crate) fn fail(volume: &Volume) -> Hung {
        let hanging = Arc::clone(&volume.inner.shared().index.hanging);
        hanging.fails.store(true, Ordering::SeqCst);
        Hung(hanging)
    }

    /// As long as it hangs.
    pub(in super::super) fn wait(&self) -> Result<(), heed::Error> {
        self.count.fetch_add(1, Ordering::SeqCst);
        while self.hangs.load(Ordering::SeqCst) {
            sleep(Duration::from_millis(1));
        }
        self.count.fetch_sub(1, Ordering::SeqCst);
        match self.fails.load(Ordering::SeqCst) {
            true => Err(io::Error::from_raw_os_error(EIO).into()),
            false => Ok(()),
        }
    }
}

impl Hung {
    /// How many wait.
    pub(crate) fn count(&self) -> usize {
        self.0.count.load(Ordering::SeqCst)
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        self.0.hangs.store(false, Ordering::SeqCst);
        self.0.fails.store(false, Ordering::SeqCst);
    }
}

/// On every system we run on.
const EIO: i32 = 5;
