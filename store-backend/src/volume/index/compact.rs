//! Makes the index small again while it is read and written: LMDB uses pages again that were given back, but gives none
//! to the disk.
//!
//! ```text
//! begin         an empty environment in index.new/N; from now on each write is also noted
//! copy          all rows, slice by slice, behind one another; with each slice what was noted of the rows copied before
//! catch up      what was noted, until it is little
//! put in place  nobody writes: the rest, compare, sync; rename data.mdb over index/data.mdb; sync index/; change over
//! ```
//!
//! Each slice is of another instant. That is no matter: a row that changed after it was copied has been noted and is
//! written again, and one that is yet to be copied will be found as it is then. So no snapshot is held, which would keep
//! the old file growing, and what is noted stays small, however long the copy takes.
//!
//! A power cut or a kill leaves the old file under the name or the new one, both whole and with the same rows; what was
//! being made is removed at the next start. Until the name has changed nothing has happened, whatever fails. Where it is
//! not known whether it has, or would after a power cut, nobody writes any more: the journal keeps all that is new until the
//! next start. Who reads the old environment goes on in it: its file has no name then, and its room comes back when the
//! last one is done.
//!
//! LMDB's rules: a process opens a folder once, by the name it had then (heed keeps a list), so that each environment is
//! made under a name of its own; and a table of readers belongs to one environment, so that `lock.mdb` goes the way of
//! its `data.mdb`. What is open is not touched by renaming it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use lmdb::heed;

use super::super::error::{IndexError, OpenError};
use super::super::layout::{INDEX_DIR, Layout};
use super::super::rebuild::NEW_DIR;
use super::environment::{Environment, RoTxn, RwTxn, Table};
use super::notes::{Change, Notes};
use super::{Index, Writer};

/// What a compaction has done.
#[derive(Clone, Copy, Debug)]
pub(in crate::volume) struct Compacted {
    /// Octets of the file that was left …
    pub(in crate::volume) before_bytes: u64,
    /// … and of the one that took its place.
    pub(in crate::volume) after_bytes: u64,
    pub(in crate::volume) row_count: u64,
    /// For so long nobody could write to the index.
    pub(in crate::volume) pause: Duration,
}

/// Why the index stayed as it was; or, in one case, may have.
#[derive(Debug, thiserror::Error)]
pub(in crate::volume) enum CompactError {
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("no room for a smaller one beside it: {free} octets are free, {needed} are needed")]
    NoRoom { free: u64, needed: u64 },
    #[error("it is being made small already")]
    Busy,
    #[error("the index is written faster than it can be copied")]
    Outrun,
    #[error("the volume is closed")]
    Stopped,
    /// Which of the two files has the name, or would have it after a power cut, is not known. Nobody writes to either until
    /// the next start.
    #[error("{action} {path}")]
    Doubtful {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl From<heed::Error> for CompactError {
    fn from(error: heed::Error) -> Self {
        Self::Index(error.into())
    }
}

impl Index {
    /// Makes a smaller index and changes over to it. `go_on` is asked before each slice. Blocking, for as long as it takes
    /// to copy all rows.
    ///
    /// # Errors
    /// Why there is none; but for [`CompactError::Doubtful`] the index is what it was.
    pub(in crate::volume) fn compact(
        &self,
        layout: &Layout,
        map_size_bytes: usize,
        go_on: &dyn Fn() -> Result<(), CompactError>,
    ) -> Result<Compacted, CompactError> {
        let mut compaction = Compaction::begin(self, layout, map_size_bytes)?;
        compaction.copy(go_on)?;
        compaction.catch_up(go_on)?;
        compaction.put_in_place()
    }
}

/// A smaller index that is being made. Its drop clears away what is not in use.
pub(in crate::volume) struct Compaction<'i> {
    index: &'i Index,
    /// Where the index is …
    path: PathBuf,
    /// … and the same, open: it is synced when nothing may fail any more, for want of a descriptor least of all.
    name: fs::File,
    /// Where the new one is made …
    folder: PathBuf,
    /// … and whether that stays, for the new one may be needed.
    is_kept: bool,
    new: Arc<Environment>,
    row_count: u64,
    is_synced: bool,
}

impl<'i> Compaction<'i> {
    pub(in crate::volume) fn begin(
        index: &'i Index,
        layout: &Layout,
        map_size_bytes: usize,
    ) -> Result<Self, CompactError> {
        {
            let mut writer = index.lock_writer();
            writer.check()?;
            if writer.notes.is_some() {
                return Err(CompactError::Busy);
            }
            writer.notes = Some(Notes::default());
        }
        let begun = Self::begin_alone(index, layout, map_size_bytes);
        if begun.is_err() {
            index.lock_writer().notes = None;
        }
        begun
    }

    fn begin_alone(
        index: &'i Index,
        layout: &Layout,
        map_size_bytes: usize,
    ) -> Result<Self, CompactError> {
        let path = layout.file(INDEX_DIR);
        let name = fs::File::open(&path).map_err(OpenError::io("open", &path))?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = layout.file(NEW_DIR).join(number.to_string());
        // What an earlier process has left there would be opened as it is.
        remove_dir(&folder).map_err(OpenError::io("remove", &folder))?;
        let opened = Environment::open(&folder, map_size_bytes);
        if opened.is_err() {
            let _ = remove_dir(&folder);
        }
        Ok(Self {
            index,
            path,
            name,
            folder,
            is_kept: false,
            new: Arc::new(opened?),
            row_count: 0,
            is_synced: false,
        })
    }

    /// Copies every row there is.
    pub(in crate::volume) fn copy(
        &mut self,
        go_on: &dyn Fn() -> Result<(), CompactError>,
    ) -> Result<(), CompactError> {
        for table in Table::all() {
            let mut last: Option<Vec<u8>> = None;
            loop {
                go_on()?;
                // In this order: what is noted after it and stands in the slice is written twice, and else not at all.
                let changes = self.take_changes()?;
                let slice = self.index.read(|txn| slice(table, txn, last.as_deref()));
                let (mut rows, is_end) = slice?;
                let is_copied = |change: &&Change| {
                    let in_table = last.as_ref().is_some_and(|last| *change.key <= **last);
                    change.table < table || (change.table == table && in_table)
                };
                self.write(|txn| {
                    let mut changes = changes.iter().filter(is_copied);
                    changes.try_for_each(|change| txn.apply(change))?;
                    let mut rows = rows.iter();
                    rows.try_for_each(|(key, value)| table.append(txn, key, value))
                })?;
                self.row_count += rows.len() as u64;
                if is_end {
                    // What comes behind it from now on is noted: to wait for an end that moves would be to wait for ever.
                    break;
                }
                last = rows.pop().map(|(key, _)| key);
            }
        }
        Ok(())
    }

    /// Brings the new one so near that the rest is a moment's work.
    pub(in crate::volume) fn catch_up(
        &mut self,
        go_on: &dyn Fn() -> Result<(), CompactError>,
    ) -> Result<(), CompactError> {
        let mut left = usize::MAX;
        for _ in 0..ROUNDS_MAX {
            go_on()?;
            let changes = self.take_changes()?;
            self.write(|txn| changes.iter().try_for_each(|change| txn.apply(change)))?;
            left = changes.len();
            if left <= FEW_CHANGES {
                break;
            }
        }
        if left > MANY_CHANGES {
            return Err(CompactError::Outrun);
        }
        self.sync()
    }

    /// Changes over. Nobody writes meanwhile.
    pub(in crate::volume) fn put_in_place(&mut self) -> Result<Compacted, CompactError> {
        let (index, new) = (self.index, Arc::clone(&self.new));
        let mut writer = index.lock_writer();
        let began = Instant::now();
        let changes = take(&mut writer)?;
        self.write(|txn| changes.iter().try_for_each(|change| txn.apply(change)))?;
        let before = index.environment();
        compare(&before, &new)?;
        self.sync()?;
        debug_assert!(
            self.is_synced,
            "what gets the name is whole after a power cut"
        );
        let (before_bytes, after_bytes) = (before.usage()?.file_bytes, new.usage()?.file_bytes);
        // For good, unless all that follows is done: once a checkpoint relies on what is written then, the old one is too
        // old to come back.
        writer.is_sealed = true;
        let renamed = self.rename();
        if let Err(source) = renamed {
            match self.folder.join(DATA_FILE).try_exists() {
                Ok(true) => {
                    writer.is_sealed = false;
                    return Err(OpenError::io("rename to", &self.path)(source).into());
                }
                // It has the name for all that.
                Ok(false) => {}
                Err(_) => self.is_kept = true,
            }
            return Err(self.doubtful("rename to")(source));
        }
        {
            let current = index.environment.write();
            *current.unwrap_or_else(PoisonError::into_inner) = Arc::clone(&new);
        }
        // Where that fails, the next start makes it anew.
        let _ = fs::rename(self.folder.join(LOCK_FILE), self.path.join(LOCK_FILE));
        self.sync_name().map_err(self.doubtful("sync"))?;
        (writer.is_sealed, writer.notes) = (false, None);
        Ok(Compacted {
            before_bytes,
            after_bytes,
            row_count: self.row_count,
            pause: began.elapsed(),
        })
    }

    fn rename(&self) -> io::Result<()> {
        #[cfg(test)]
        let _renaming = self.index.tape.as_ref().map(|tape| tape.rename());
        fs::rename(self.folder.join(DATA_FILE), self.path.join(DATA_FILE))
    }

    fn sync_name(&self) -> io::Result<()> {
        #[cfg(test)]
        match self.index.name_errno.load(Ordering::Relaxed) {
            0 => {}
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
        self.name.sync_all()?;
        #[cfg(test)]
        if let Some(tape) = &self.index.tape {
            tape.named();
        }
        Ok(())
    }

    fn doubtful(&self, action: &'static str) -> impl FnOnce(io::Error) -> CompactError {
        let path = self.path.clone();
        move |source| CompactError::Doubtful {
            action,
            path,
            source,
        }
    }

    /// Leaves all as a kill would.
    #[cfg(test)]
    pub(in crate::volume) fn abandon(mut self) {
        self.is_kept = true;
    }

    fn take_changes(&self) -> Result<Vec<Change>, CompactError> {
        take(&mut self.index.lock_writer())
    }

    /// Writes to the new one.
    fn write(
        &mut self,
        write: impl FnOnce(&mut RwTxn<'_>) -> heed::Result<()>,
    ) -> Result<(), CompactError> {
        #[cfg(test)]
        self.index.refusing.pass()?;
        self.is_synced = false;
        let mut txn = self.new.write(None)?;
        write(&mut txn)?;
        txn.commit()?;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), CompactError> {
        lmdb::sync(&self.new.env)?;
        self.is_synced = true;
        Ok(())
    }
}

impl Drop for Compaction<'_> {
    fn drop(&mut self) {
        self.index.lock_writer().notes = None;
        if self.is_kept {
            return;
        }
        let _ = remove_dir(&self.folder);
        if let Some(folder) = self.folder.parent() {
            // Unless another one is made there.
            let _ = fs::remove_dir(folder);
        }
    }
}

fn take(writer: &mut Writer) -> Result<Vec<Change>, CompactError> {
    let changes = writer.notes.as_mut().and_then(Notes::take);
    changes.ok_or(CompactError::Outrun)
}

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// Some rows of a table behind a key, and whether they are the last ones.
fn slice(table: Table, txn: &RoTxn<'_>, last: Option<&[u8]>) -> Result<(Rows, bool), heed::Error> {
    use std::ops::Bound::{Excluded, Unbounded};
    let (mut rows, mut octets) = (Vec::new(), 0);
    let range = (last.map_or(Unbounded, Excluded), Unbounded);
    for row in table.range(txn, &range)? {
        let (key, value) = row?;
        octets += key.len() + value.len();
        rows.push((key.to_vec(), value.to_vec()));
        if octets >= SLICE_OCTETS {
            return Ok((rows, false));
        }
    }
    Ok((rows, true))
}

/// Both have as many rows, table by table.
fn compare(old: &Environment, new: &Environment) -> Result<(), CompactError> {
    let (old, new) = (old.read()?, new.read()?);
    for table in Table::all() {
        if table.len(&old)? != table.len(&new)? {
            return Err(IndexError::Contradiction("a row").into());
        }
    }
    Ok(())
}

/// Removes what a compaction, or one who made the index anew, has left when he was killed.
pub(in crate::volume) fn remove_left_over(layout: &Layout) -> Result<(), OpenError> {
    let folder = layout.file(NEW_DIR);
    remove_dir(&folder).map_err(OpenError::io("remove", &folder))
}

fn remove_dir(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A process opens no two environments under one name, whatever became of the first.
static NUMBER: AtomicU64 = AtomicU64::new(1);

const DATA_FILE: &str = "data.mdb";
const LOCK_FILE: &str = "lock.mdb";
/// Rows of one transaction: a disk that is asked to sync them keeps others waiting for some ten milliseconds.
const SLICE_OCTETS: usize = 1 << 20;
/// So many are written within the pause: some milliseconds.
const FEW_CHANGES: usize = 1000;
/// Each round has less to do than the one before it, unless as much is written meanwhile.
const ROUNDS_MAX: usize = 10;
/// So many would keep the writer waiting for some hundred milliseconds.
const MANY_CHANGES: usize = 10_000;
