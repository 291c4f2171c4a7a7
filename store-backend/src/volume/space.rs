//! How much room the disk and the index have, and what is refused while it is short.
//!
//! ```text
//!  Roomy ──free below the mark──▶ Low ──no room for a file──▶ Low      what takes room is refused, the rest goes on
//!    ▲                             │  ──no room in the index─▶ Stuck    every change is refused, reads go on
//!    └──── free above the mark ◀───┘◀──── it was written ──────┘
//! ```
//!
//! Below the mark deliveries, APPEND, COPY and imports are refused for now, while expunging, flags and all reads go on:
//! users can still make room, and what remains is kept for the journal, the index and the files of what was accepted.
//! Whatever finds no room all the same is tried again until there is some. Nothing of it needs a restart.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use durable::DiskRoom;
use lmdb::Usage;

use super::VolumeConfig;
use super::index::ReadersStatus;
use super::recovery::Shared;

/// What is short. Each is said in the log when it begins and when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shortage {
    /// The file system has less free than its mark.
    Disk,
    /// The file system has hardly any inodes left.
    Inodes,
    /// The index has used up nearly all of its map.
    Map,
    /// The journal found no room for a segment: only what fits into the one in use is taken.
    Journal,
    /// A file of the tree found no room: it is tried again, with all behind it.
    Files,
    /// The index found no room: it is tried again, with all behind it.
    Index,
}

impl Shortage {
    fn level(self) -> Level {
        match self {
            // Each batch tries by itself.
            Self::Journal => Level::Roomy,
            Self::Disk | Self::Inodes | Self::Map | Self::Files => Level::Low,
            Self::Index => Level::Stuck,
        }
    }

    /// A fixed word for metrics.
    fn word(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Inodes => "inodes",
            Self::Map => "index_map",
            Self::Journal => "journal",
            Self::Files => "files",
            Self::Index => "index",
        }
    }
}

/// What is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Level {
    /// Everything.
    Roomy,
    /// What takes no room to speak of.
    Low,
    /// No change at all.
    Stuck,
}

/// How much room there is, for status and metrics.
#[derive(Clone, Debug, Default)]
pub struct SpaceStatus {
    /// Of the file system.
    pub disk: Option<DiskRoom>,
    /// Below this, in octets, what takes room is refused.
    pub mark_bytes: u64,
    /// Of the index.
    pub index: Usage,
    /// Reads of the index under way.
    pub readers: ReadersStatus,
    /// What is short: fixed words.
    pub short: Vec<&'static str>,
    /// Whether what takes room is refused.
    pub refuses: bool,
}

/// Every reason that [`SpaceStatus::short`] may have.
pub(crate) const SHORTAGES: [&str; 6] =
    ["disk", "inodes", "index_map", "journal", "files", "index"];

#[derive(Default)]
pub(super) struct Space {
    level: AtomicU8,
    state: Mutex<State>,
    stopped: Mutex<bool>,
    stopping: Condvar,
}

#[derive(Default)]
struct State {
    short: BTreeMap<Shortage, ()>,
    disk: Option<DiskRoom>,
    mark_bytes: u64,
    index: Usage,
    unseen: bool,
}

impl Space {
    pub(super) fn level(&self) -> Level {
        match self.level.load(Ordering::Acquire) {
            0 => Level::Roomy,
            1 => Level::Low,
            _ => Level::Stuck,
        }
    }

    pub(super) fn status(&self) -> SpaceStatus {
        let state = self.lock();
        SpaceStatus {
            disk: state.disk,
            mark_bytes: state.mark_bytes,
            index: state.index,
            readers: ReadersStatus::default(),
            short: state.short.keys().map(|short| short.word()).collect(),
            refuses: self.level() > Level::Roomy,
        }
    }

    pub(super) fn is_short(&self, shortage: Shortage) -> bool {
        self.lock().short.contains_key(&shortage)
    }

    /// Ends every wait, now and later.
    pub(super) fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stopping.notify_all();
    }

    pub(super) fn is_stopped(&self) -> bool {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits before the next attempt. False: there must be none, the volume is closing.
    pub(super) fn pause(&self, interval: Duration) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .stopping
            .wait_timeout_while(stopped, interval, |stopped| !*stopped);
        !*waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Notes whether something is short; true when that is news.
    fn note(&self, shortage: Shortage, is_short: bool) -> bool {
        let mut state = self.lock();
        let is_news = if is_short {
            state.short.insert(shortage, ()).is_none()
        } else {
            state.short.remove(&shortage).is_some()
        };
        let levels = state.short.keys().map(|short| short.level());
        let level = levels.max().unwrap_or(Level::Roomy);
        self.level.store(level as u8, Ordering::Release);
        is_news
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Something found no room; `what` says on which file and what the system answered.
    pub(super) fn no_room(&self, shortage: Shortage, what: &str) {
        if self.space.note(shortage, true) {
            let (backend, volume) = (&self.config.backend, &self.config.name);
            tracing::error!(
                %backend, %volume, reason = shortage.word(), what,
                "no room: what takes room is refused, reads go on, and it is tried again until there is room; delete something or enlarge the disk"
            );
        }
    }

    /// The index found no room for what the journal has of before the start.
    pub(super) fn opened_behind(&self, records: u64, what: &str) {
        self.space.note(Shortage::Index, true);
        let (backend, volume, path) = (
            &self.config.backend,
            &self.config.name,
            self.config.path.display(),
        );
        let room = self.space.lock().disk;
        let free = room.map_or(0, |room| room.free_bytes);
        let missing = room.map_or(0, |room| Marks::of(&self.config).missing_bytes(&room));
        tracing::error!(
            %backend, %volume, %path, reason = Shortage::Index.word(), records, free, missing, what,
            "no room to replay the journal: every change is refused and the accounts that it is about are told to come again, all others read; it is tried again until there is room; delete something or enlarge the disk"
        );
    }

    /// It was written after all.
    pub(super) fn found_room(&self, shortage: Shortage) {
        if self.space.note(shortage, false) {
            let (backend, volume) = (&self.config.backend, &self.config.name);
            tracing::info!(%backend, %volume, reason = shortage.word(), "there is room again");
        }
    }

    /// Looks how much room there is. Some microseconds, and off the way of everything.
    pub(super) fn look_for_room(&self) {
        let config = &self.config;
        let (backend, volume, path) = (&config.backend, &config.name, config.path.display());
        match self.disk.room(&config.path) {
            Ok(disk) => {
                let mark = Marks::of(config).bytes(disk.size_bytes);
                {
                    let mut state = self.space.lock();
                    (state.disk, state.mark_bytes, state.unseen) = (Some(disk), mark, false);
                }
                if self.judge(Shortage::Disk, disk.free_bytes, mark) {
                    let (free, size) = (disk.free_bytes, disk.size_bytes);
                    if self.space.is_short(Shortage::Disk) {
                        tracing::warn!(%backend, %volume, %path, free, mark, size,
                            "the disk is nearly full: deliveries and all that takes room are refused for now, reads, flags and expunging go on; delete something or enlarge the disk");
                    } else {
                        tracing::info!(%backend, %volume, %path, free, mark, size, "the disk has room again");
                    }
                }
                let mark = percent_of(disk.inodes, config.free_min_percent);
                if self.judge(Shortage::Inodes, disk.free_inodes, mark) {
                    let (free, all) = (disk.free_inodes, disk.inodes);
                    if self.space.is_short(Shortage::Inodes) {
                        tracing::warn!(%backend, %volume, %path, free, mark, all,
                            "the file system has hardly any inodes left: deliveries and all that takes room are refused for now, reads, flags and expunging go on; delete something or make a file system with more");
                    } else {
                        tracing::info!(%backend, %volume, %path, free, mark, all, "the file system has inodes again");
                    }
                }
            }
            Err(error) => {
                let mut state = self.space.lock();
                if !std::mem::replace(&mut state.unseen, true) {
                    tracing::warn!(%backend, %volume, %path, %error, "cannot see how much room the disk has");
                }
            }
        }
        if let Ok(usage) = self.index.usage() {
            self.space.lock().index = usage;
            let used = usage.file_bytes.saturating_sub(usage.free_bytes);
            let free = usage.map_bytes.saturating_sub(used);
            let mark = percent_of(usage.map_bytes, MAP_FREE_MIN_PERCENT);
            if self.judge(Shortage::Map, free, mark) {
                let map = usage.map_bytes;
                if self.space.is_short(Shortage::Map) {
                    tracing::warn!(%backend, %volume, %path, used, map,
                        "the index has nearly filled its map: deliveries and all that takes room are refused for now, reads, flags and expunging go on; move accounts to another volume");
                } else {
                    tracing::info!(%backend, %volume, %path, used, map, "the index has room again");
                }
            }
        }
    }

    /// Enters below the mark, and leaves an eighth above it, so that it is not said each second. True when it is news.
    fn judge(&self, shortage: Shortage, free: u64, mark: u64) -> bool {
        let is_short = if self.space.is_short(shortage) {
            free < mark.saturating_add(mark / 8)
        } else {
            free < mark
        };
        self.space.note(shortage, is_short)
    }
}

/// Looks again and again. Runs until the volume is closed.
pub(super) fn run(shared: &Shared) {
    while shared.space.pause(shared.config.space_interval) {
        shared.look_for_room();
    }
}

/// How much has to be free.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks {
    min_bytes: u64,
    min_percent: u8,
}

impl Marks {
    pub(super) fn of(config: &VolumeConfig) -> Self {
        Self {
            min_bytes: config.free_min_bytes,
            min_percent: config.free_min_percent,
        }
    }

    /// Of a disk of this size: the larger of the two.
    fn bytes(self, size: u64) -> u64 {
        percent_of(size, self.min_percent).max(self.min_bytes)
    }

    /// What has to become free until everything is taken; 0 where not octets are short but inodes or the index's map.
    pub(super) fn missing_bytes(self, disk: &DiskRoom) -> u64 {
        let mark = self.bytes(disk.size_bytes);
        // It is left an eighth above the mark.
        let wanted = mark.saturating_add(mark / 8);
        wanted.saturating_sub(disk.free_bytes)
    }
}

fn percent_of(whole: u64, percent: u8) -> u64 {
    u64::try_from(u128::from(whole) * u128::from(percent) / 100).unwrap_or(u64::MAX)
}

/// To expunge from a full map takes pages too: a copy of each that is changed, until readers have let go of the old one.
const MAP_FREE_MIN_PERCENT: u8 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_the_larger_of_octets_and_share() {
        let mark = |size, min_bytes, min_percent| {
            let marks = Marks {
                min_bytes,
                min_percent,
            };
            marks.bytes(size)
        };
        assert_eq!(mark(1000, 10, 2), 20);
        assert_eq!(mark(1000, 30, 2), 30);
        assert_eq!(mark(u64::MAX, 0, 100), u64::MAX);
        assert_eq!(mark(1000, 0, 0), 0);
    }

    #[test]
    fn every_shortage_has_its_word() {
        use Shortage::{Disk, Files, Index, Inodes, Journal, Map};
        let all = [Disk, Inodes, Map, Journal, Files, Index];
        assert_eq!(all.map(Shortage::word), SHORTAGES);
    }
}
