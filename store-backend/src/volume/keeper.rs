//! The keeper: a thread that looks after what is kept. It examines what readers have found wrong, makes the copies of the
//! index, makes the index small again, and scrubs.

use std::cell::Cell;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use durable::{Disk, Lsn, OpenMode};

use super::commit::now_ms;
use super::copy::{self, CopyError};
use super::error::IndexError;
use super::index::{CompactError, Compacted};
use super::kept_log;
use super::layout::KEPT_DIR;
use super::mend::{self, Mend};
use super::recovery::{Failed, Shared};
use super::rows::BlobRow;
use super::scrub::{self, Scrub};
use super::space::Level;
use super::types::Hash;
use crate::metrics;

/// Why something was not done, as it was told last.
#[derive(Default)]
struct Told(String);

impl Told {
    /// Whether it was another reason the last time.
    fn is_news(&mut self, why: &str) -> bool {
        // Its numbers are others each time.
        let why = if why.starts_with(NO_ROOM) {
            NO_ROOM
        } else {
            why
        };
        let is_news = self.0 != why;
        why.clone_into(&mut self.0);
        is_news
    }
}

/// Runs until the volume is closed.
pub(super) fn run(shared: &Shared) {
    // Until then the index may name files that are gone.
    while !shared.replayed.load(Ordering::Acquire) {
        if shared.suspects.take(shared.config.space_interval).is_none() {
            return;
        }
    }
    let mut copies = Copies::new(shared);
    let mut compactions = Compactions::new(shared);
    let mut scrub = Scrub::new(shared);
    let mut pause = scrub::IDLE_INTERVAL;
    while let Some(suspects) = shared.suspects.take(pause) {
        for number in suspects {
            if let Err(error) = examine(shared, number) {
                let volume = &shared.config.name;
                tracing::warn!(%volume, error = super::commit::chain(&error), "a blob cannot be examined");
            }
        }
        copies.make_if_due(shared);
        compactions.make_if_due(shared);
        pause = scrub.go_on(shared);
    }
    // After a crash it is not known whether the disk still answers.
    if shared.config.scrub_bytes_per_s > 0 && !shared.aborted() {
        scrub.note(shared);
    }
}

/// When the next copy of the index is due.
struct Copies {
    due: Option<Instant>,
    told: Told,
}

impl Copies {
    fn new(shared: &Shared) -> Self {
        let interval = shared.config.index_copy_interval;
        if interval.is_zero() {
            return Self {
                due: None,
                told: Told::default(),
            };
        }
        let (disk, folder) = (&*shared.disk, shared.layout.file(KEPT_DIR));
        let incarnation = &shared.kept_as;
        let head = copy::head(disk, &folder, incarnation).ok().flatten();
        let from = head.map_or(Lsn(0), |head| head.applied);
        let reaches = kept_log::reaches(disk, &folder, incarnation, from);
        if reaches.is_ok_and(|last| last >= shared.checkpoint()) {
            let age_ms = head.map_or(0, |head| now_ms().saturating_sub(head.made_ms));
            // A clock that went back makes no copy old, nor one that is due late.
            let age = Duration::from_millis(u64::try_from(age_ms).unwrap_or(0));
            let first = interval.min(FIRST_COPY_AFTER);
            let left = head.map_or(first, |_| interval.saturating_sub(age));
            return Self {
                due: Some(Instant::now() + left),
                told: Told::default(),
            };
        }
        // What was kept does not reach as far as the journal may begin one day: nothing would make the index anew.
        shared.kept_hole.store(true, Ordering::Relaxed);
        Self {
            due: Some(Instant::now()),
            told: Told::default(),
        }
    }

    fn make_if_due(&mut self, shared: &Shared) {
        let has_hole = shared.kept_hole.load(Ordering::Relaxed);
        let Some(due) = self.due else { return };
        let now = Instant::now();
        if now < due && !(has_hole && due > now + RETRY_INTERVAL) {
            return;
        }
        if shared.read_only().is_some() || shared.applied() == Lsn(0) {
            return;
        }
        let again = match make_copy(shared) {
            Ok(()) => {
                self.told = Told::default();
                shared.config.index_copy_interval
            }
            Err(CopyError::Stopped) => return,
            Err(error) => {
                let (volume, why) = (&shared.config.name, super::commit::chain(&error));
                if self.told.is_news(&why) {
                    tracing::error!(%volume, error = why, "the index cannot be copied; it is tried again each minute");
                }
                RETRY_INTERVAL.min(shared.config.index_copy_interval)
            }
        };
        self.due = Some(Instant::now() + again);
    }
}

/// Makes a copy of the index; the kept log before it goes.
pub(super) fn make_copy(shared: &Shared) -> Result<(), CopyError> {
    let began = Instant::now();
    let (disk, folder) = (&*shared.disk, shared.layout.file(KEPT_DIR));
    // What comes to be missing from here on is not in the copy.
    let had_hole = shared.kept_hole.swap(false, Ordering::Relaxed);
    let stops = || match shared.suspects.is_closed() {
        true => Err(CopyError::Stopped),
        false => check_room(shared, 0),
    };
    let incarnation = &shared.kept_as;
    let made = check_room(shared, copy_octets(shared, &folder))
        .and_then(|()| copy::make(&shared.index, disk, &folder, incarnation, now_ms(), &stops));
    let head = match made {
        Ok(head) => head,
        Err(error) => {
            shared.kept_hole.fetch_or(had_hole, Ordering::Relaxed);
            return Err(error);
        }
    };
    kept_log::forget(disk, &folder, head.applied).map_err(|source| CopyError::Io {
        action: "remove a file of",
        path: folder,
        source,
    })?;
    let (volume, seconds) = (&shared.config.name, began.elapsed().as_secs_f64());
    tracing::info!(%volume, applied = head.applied.0, seconds, "the index is copied and the copy verified");
    metrics::index_copied(&shared.config.backend, &shared.config.name, head.made_ms);
    Ok(())
}

fn check_room(shared: &Shared, copy: u64) -> Result<(), CopyError> {
    let short = shortage(shared, copy);
    short.map_or(Ok(()), |(free, needed)| {
        Err(CopyError::NoRoom { free, needed })
    })
}

/// Mail comes first: a copy takes no octet from below the mark, so none is begun that would. Octets that are free, and
/// needed.
fn shortage(shared: &Shared, copy: u64) -> Option<(u64, u64)> {
    if shared.space.level() == Level::Roomy && copy == 0 {
        return None;
    }
    let space = shared.space.status();
    let free = space.disk.map_or(u64::MAX, |disk| disk.free_bytes);
    let needed = space.mark_bytes.saturating_add(copy);
    (space.refuses || free < needed).then_some((free, needed))
}

/// About what the next one takes: as much as the last one, or the index.
fn copy_octets(shared: &Shared, folder: &Path) -> u64 {
    let last = shared.disk.open(&copy::path(folder), OpenMode::Read);
    last.and_then(|last| last.len()).unwrap_or_else(|_| {
        let index = shared.space.status().index;
        index.file_bytes.saturating_sub(index.free_bytes)
    })
}

/// When it is looked at next whether the index is to be made small.
struct Compactions {
    due: Instant,
    weigh_due: Instant,
    /// Octets that the rows would take, as they were weighed last.
    octets: u64,
    told: Told,
}

impl Compactions {
    fn new(shared: &Shared) -> Self {
        // Not in the rush of a start, nor again and again where one ends the process.
        let first = FIRST_COPY_AFTER.min(shared.config.index_compact_interval);
        let due = Instant::now() + first;
        Self {
            due,
            weigh_due: due,
            octets: u64::MAX,
            told: Told::default(),
        }
    }

    fn make_if_due(&mut self, shared: &Shared) {
        let above = shared.config.index_compact_above_bytes;
        let index = shared.space.status().index;
        let is_off = above == 0 || index.file_bytes <= above || shared.read_only().is_some();
        if is_off || Instant::now() < self.due {
            return;
        }
        let interval = shared.config.index_compact_interval;
        let has_free = index.free_bytes > index.file_bytes / 2;
        // Nothing says how empty the other pages are but their rows.
        let weighed = match !has_free && Instant::now() >= self.weigh_due {
            true => {
                self.weigh_due = Instant::now() + interval;
                let octets = shared.index.weigh(&pace(shared));
                octets.map(|octets| self.octets = octets)
            }
            false => Ok(()),
        };
        let done = match weighed {
            Ok(()) if has_free || self.octets < index.file_bytes / 2 => {
                compact(shared, self.octets).map(drop)
            }
            Ok(()) => return,
            Err(error) => Err(error),
        };
        let again = match done {
            Ok(()) => {
                self.told = Told::default();
                self.octets = u64::MAX;
                interval
            }
            // The volume is closed, or was failed for it.
            Err(CompactError::Stopped | CompactError::Doubtful { .. }) => return,
            Err(error) => {
                let (volume, why) = (&shared.config.name, super::commit::chain(&error));
                if self.told.is_news(&why) {
                    tracing::warn!(%volume, error = why, "the index cannot be made small; it stays as it is, and is tried again each hour");
                }
                COMPACT_RETRY_INTERVAL.min(interval)
            }
        };
        self.due = Instant::now() + again;
    }
}

/// Waits before each slice for as long as the one before it took: half of the time is that of deliveries and reads.
fn pace(shared: &Shared) -> impl Fn() -> Result<(), CompactError> {
    let slice_began = Cell::new(Instant::now());
    move || {
        let is_open = shared.space.pause(slice_began.get().elapsed());
        slice_began.set(Instant::now());
        match is_open && !shared.suspects.is_closed() {
            true => Ok(()),
            false => Err(CompactError::Stopped),
        }
    }
}

/// Makes the index small, while it is in use. `octets` is what its rows take, if it is known, or more.
pub(super) fn compact(shared: &Shared, octets: u64) -> Result<Compacted, CompactError> {
    let began = Instant::now();
    let check_room = |octets| {
        let short = shortage(shared, octets);
        short.map_or(Ok(()), |(free, needed)| {
            Err(CompactError::NoRoom { free, needed })
        })
    };
    let pace = pace(shared);
    let go_on = || pace().and_then(|()| check_room(0));
    let usage = shared.index.usage()?;
    check_room(octets.min(usage.file_bytes.saturating_sub(usage.free_bytes)))?;
    let map_size_bytes = shared.config.index_map_size_bytes;
    let done = shared.index.compact(&shared.layout, map_size_bytes, &go_on);
    if let Err(error @ CompactError::Doubtful { .. }) = &done {
        shared.fail(Failed::Index, error);
    }
    let done = done?;
    let (before, after) = (done.before_bytes, done.after_bytes);
    let (volume, rows) = (&shared.config.name, done.row_count);
    let (took, pause) = (began.elapsed(), done.pause);
    tracing::info!(
        %volume, before, after, rows, ms = took.as_millis(), pause_ms = pause.as_secs_f64() * 1000.0,
        "the index is made small"
    );
    let given_back = before.saturating_sub(after);
    metrics::index_compacted(&shared.config.backend, volume, given_back);
    Ok(done)
}

/// Reads a blob that a reader could not use. One that is not right is put aside.
fn examine(shared: &Shared, number: u64) -> Result<(), super::files::FilesError> {
    let row = shared.index.read(|txn| shared.index.blob(txn, number))?;
    let Some(row) = row.filter(|_| !shared.broken.has(number)) else {
        return Ok(());
    };
    let path = shared.layout.blob(number, &row.hash);
    let state =
        state_of(&*shared.disk, &path, &row).map_err(super::files::failed("read", &path))?;
    if state == FileState::Right || !is_settled(shared, number, &row)? {
        return Ok(());
    }
    let hash = row.hash;
    mend::mend(shared, Mend::Quarantine { number, hash });
    Ok(())
}

/// What a blob's file is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileState {
    Right,
    Missing,
    Wrong,
}

/// Reads the whole file.
pub(super) fn state_of(disk: &dyn Disk, path: &Path, row: &BlobRow) -> io::Result<FileState> {
    let file = match disk.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(FileState::Missing),
        Err(error) => return Err(error),
    };
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut offset = 0;
    loop {
        let count = file.read_at(&mut buffer, offset)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        offset += count as u64;
        if offset > row.octets.get() {
            return Ok(FileState::Wrong);
        }
    }
    let hash: Hash = *hasher.finalize().as_bytes();
    Ok(match hash == row.hash {
        true => FileState::Right,
        false => FileState::Wrong,
    })
}

/// Whether the files thread has made this blob, and it is still there: what was looked at before may be told.
pub(super) fn is_settled(shared: &Shared, number: u64, row: &BlobRow) -> Result<bool, IndexError> {
    if row.lsn.get() > shared.materialised.load(Ordering::Acquire) {
        return Ok(false);
    }
    let now = shared.index.read(|txn| shared.index.blob(txn, number))?;
    Ok(now.is_some_and(|now| now.lsn == row.lsn))
}

/// When a copy could not be made.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);
/// Of a volume that has none: the kept log alone makes its index anew until then.
const FIRST_COPY_AFTER: Duration = Duration::from_secs(600);
/// When the index could not be made small. It is no matter of minutes.
const COMPACT_RETRY_INTERVAL: Duration = Duration::from_secs(3600);
const READ_BYTES: usize = 256 << 10;
/// So begins what is said for want of room.
const NO_ROOM: &str = "no room";
