//! Segments to come: prepared ahead, from released files where there are some, else from zeros.
//!
//! Each step is durable before the next begins, so that at any cut a file named `.seg` has a whole header of its own
//! number, and what a released file held is out of the log before the file is overwritten.
//!
//! A sync that fails is the last one: what it should have made durable may look so ever after and not be. No segment is
//! prepared or released from then on, and the journal is told ([`Spares::check`]).

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{self, JoinHandle};

use super::error::JournalError;
use super::format::{Identity, SegmentHeader};
use super::segment::{Segment, segment_path};
use super::{JournalOptions, Lsn};
use crate::disk::{Disk, DiskFile, OpenMode};

/// The journal's supply of fresh segments, and where released ones go.
pub(super) struct Spares {
    preparer: Arc<Mutex<Preparer>>,
    dir: PathBuf,
    /// `None` when work is done inline, and while shutting down.
    background: Option<(Sender<Work>, JoinHandle<()>)>,
}

#[derive(Clone, Copy)]
enum Work {
    Retire(u32),
    Prepare(Lsn),
}

impl Spares {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        options: &JournalOptions,
        next_number: u32,
        prepared: VecDeque<Arc<Segment>>,
        free: VecDeque<PathBuf>,
    ) -> Spares {
        let preparer = Arc::new(Mutex::new(Preparer {
            disk,
            dir: dir.clone(),
            segment_size_bytes: options.segment_size_bytes,
            next_number,
            prepared,
            free,
            retiring: VecDeque::new(),
            failed: None,
        }));
        let background = options.prepare_ahead.then(|| {
            let (sender, receiver) = mpsc::channel();
            let preparer = Arc::clone(&preparer);
            let thread = thread::spawn(move || {
                for work in receiver {
                    lock(&preparer).work(work);
                }
            });
            (sender, thread)
        });
        Spares {
            preparer,
            dir,
            background,
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Takes `count` fresh segments, all or none; makes those that are not prepared.
    pub(super) fn take(
        &self,
        count: usize,
        next_lsn: Lsn,
    ) -> Result<Vec<Arc<Segment>>, JournalError> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut preparer = lock(&self.preparer);
        preparer.check()?;
        while preparer.prepared.len() < count {
            preparer.prepare(next_lsn)?;
        }
        Ok(preparer.prepared.drain(..count).collect())
    }

    /// Whether no sync has failed here.
    pub(super) fn check(&self) -> Result<(), JournalError> {
        // Somebody is at work there; he tells the next who asks.
        match self.preparer.try_lock() {
            Ok(preparer) => preparer.check(),
            Err(TryLockError::Poisoned(preparer)) => preparer.into_inner().check(),
            Err(TryLockError::WouldBlock) => Ok(()),
        }
    }

    /// Has one segment prepared, so that the next [`Spares::take`] need not.
    pub(super) fn prepare_ahead(&self, next_lsn: Lsn) {
        if self.background.is_some() {
            self.order(Work::Prepare(next_lsn));
        }
    }

    /// Takes a segment out of the log, to be recycled. The order of calls is the order on disk.
    pub(super) fn retire(&self, number: u32) {
        self.order(Work::Retire(number));
    }

    fn order(&self, work: Work) {
        match &self.background {
            // The thread ends only after the sender is gone.
            Some((sender, _)) => sender.send(work).expect("the preparing thread lives"),
            None => lock(&self.preparer).work(work),
        }
    }
}

impl Drop for Spares {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.background.take() {
            drop(sender);
            // A panic there was printed; nothing waits for its result.
            let _ = thread.join();
        }
    }
}

fn lock(preparer: &Mutex<Preparer>) -> MutexGuard<'_, Preparer> {
    preparer.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Preparer {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_size_bytes: u32,
    next_number: u32,
    prepared: VecDeque<Arc<Segment>>,
    /// Files out of the log, to be overwritten.
    free: VecDeque<PathBuf>,
    /// Released segments whose files still bear their old names, oldest first.
    retiring: VecDeque<u32>,
    /// The sync that failed: on which file, and what the system answered.
    failed: Option<(PathBuf, io::ErrorKind, String)>,
}

impl Preparer {
    /// Does what can wait. An error here costs nothing yet: the work is tried again when its result is needed, and then
    /// the error is somebody's answer.
    fn work(&mut self, work: Work) {
        if self.failed.is_some() {
            return;
        }
        match work {
            Work::Retire(number) => {
                self.retiring.push_back(number);
                let _ = self.retire();
            }
            Work::Prepare(next_lsn) => {
                if self.prepared.is_empty() {
                    let _ = self.prepare(next_lsn);
                }
            }
        }
    }

    /// Takes released segments out of the log one at a time: without the sync between, a power cut could take the second
    /// and leave the first, which would look like a missing segment.
    fn retire(&mut self) -> io::Result<()> {
        while let Some(&number) = self.retiring.front() {
            let free = segment_path(&self.dir, number, "free");
            // Some file systems have no room for a name when they are full: the next release tries again.
            let old = segment_path(&self.dir, number, "seg");
            self.disk.rename(&old, &free)?;
            let synced = self.disk.sync_dir(&self.dir);
            self.synced(&self.dir.clone(), synced)?;
            self.retiring.pop_front();
            if self.free.len() < FREE_FILES_MAX {
                self.free.push_back(free);
            } else {
                self.disk.remove_file(&free)?;
            }
        }
        Ok(())
    }

    /// Makes the next segment, durable with its name, and keeps it in `prepared`.
    fn prepare(&mut self, next_lsn: Lsn) -> Result<(), JournalError> {
        self.check()?;
        let header = SegmentHeader {
            identity: Identity {
                number: self.next_number,
                generation: fresh_generation(),
            },
            lsn_floor: next_lsn,
            file_len: self.segment_size_bytes,
        };
        let path = segment_path(&self.dir, self.next_number, "seg");
        let file = match self.recycle(&header, &path) {
            Some(file) => file,
            None => self
                .make(&header, &path)
                .map_err(|source| JournalError::io("prepare the journal segment", &path, source))?,
        };
        self.next_number += 1;
        self.prepared
            .push_back(Arc::new(Segment::new(path, file, &header)));
        Ok(())
    }

    /// Overwrites a free file; `None` when there is none or it will not do, and then it is gone.
    fn recycle(&mut self, header: &SegmentHeader, path: &Path) -> Option<Box<dyn DiskFile>> {
        while self.failed.is_none() {
            let free = self.free.pop_front()?;
            let opened = self.disk.open(&free, OpenMode::Write).and_then(|file| {
                if file.len()? != u64::from(header.file_len) {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                file.write_all_at(&[IoSlice::new(&header.encode())], 0)?;
                Ok(file)
            });
            let recycled = opened.and_then(|file| {
                self.synced(&free, file.sync_data())?;
                self.name(&free, path)?;
                Ok(file)
            });
            match recycled {
                Ok(file) => return Some(file),
                Err(_) => drop(self.disk.remove_file(&free)),
            }
        }
        None
    }

    fn make(&mut self, header: &SegmentHeader, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        // The one to be recycled may have failed to be synced.
        self.check().map_err(io::Error::other)?;
        let new = segment_path(&self.dir, header.identity.number, "new");
        let opened = self.disk.open(&new, OpenMode::Create);
        let made = opened.and_then(|file| {
            file.allocate_zeroed(header.file_len.into())?;
            file.write_all_at(&[IoSlice::new(&header.encode())], 0)?;
            self.synced(&new, file.sync_all())?;
            self.name(&new, path)?;
            Ok(file)
        });
        // What was written of it is room that a full disk needs.
        made.inspect_err(|_| drop(self.disk.remove_file(&new)))
    }

    fn name(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)?;
        let synced = self.disk.sync_dir(&self.dir);
        self.synced(&self.dir.clone(), synced)
    }

    /// Notes a sync that failed, for good.
    fn synced(&mut self, path: &Path, synced: io::Result<()>) -> io::Result<()> {
        synced.inspect_err(|error| {
            self.failed = Some((path.to_owned(), error.kind(), error.to_string()));
        })
    }

    fn check(&self) -> Result<(), JournalError> {
        match &self.failed {
            None => Ok(()),
            Some((path, kind, text)) => {
                let source = io::Error::new(*kind, text.clone());
                Err(JournalError::io("sync", path, source))
            }
        }
    }
}

/// A number no stranger can guess, whose low half is not that of a record header of zeros.
fn fresh_generation() -> u64 {
    // Each `RandomState` has keys from the system's random source; what SipHash makes of nothing under an unknown key
    // is not predictable.
    RandomState::new().hash_one(0) | 1
}

/// Enough for the next roll-overs; more would only hold disk space.
const FREE_FILES_MAX: usize = 2;
