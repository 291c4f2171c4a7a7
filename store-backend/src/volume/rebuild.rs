//! An index made anew from what outlives it: the last copy, the kept log from there on, and then, as after any stop, the
//! journal. The result is the index as of the last commit: UIDs, UIDVALIDITYs, flags, names and prologues are those that
//! clients have seen (P3). Where one of the three does not reach the next, nothing is guessed.

use std::fs;
use std::io;
use std::iter;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use durable::{Disk, Lsn};

use super::VolumeConfig;
use super::apply::{Placed, apply_run};
use super::copy::{self, CopyError};
use super::error::{IndexError, OpenError};
use super::index::{Index, Meta};
use super::kept_log;
use super::layout::{INDEX_DIR, KEPT_DIR, Layout, QUARANTINE_DIR};

/// What an index was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rebuilt {
    /// The last record in the copy, 0 without one.
    pub(super) copied: Lsn,
    /// The last record from the kept log.
    pub(super) replayed: Lsn,
    pub(super) rows: u64,
}

/// Makes the index anew up to where the journal begins, beside the old one. `None`: copy and kept log do not reach as far;
/// nothing was changed.
pub(super) fn build(
    config: &VolumeConfig,
    layout: &Layout,
    disk: &dyn Disk,
    incarnation: &str,
    journal_first: Lsn,
) -> Result<Option<Rebuilt>, OpenError> {
    let new = layout.file(NEW_DIR);
    let volume = &config.name;
    remove_dir(&new)?;
    let folder = layout.file(KEPT_DIR);
    let mut built = None;
    for use_copy in [true, false] {
        let index = Index::open(&new, config.index_map_size_bytes)?;
        let mut build = Build {
            index: &index,
            rows: Vec::new(),
            bytes: 0,
            total: 0,
            told: Instant::now(),
            volume: volume.as_str(),
        };
        let copied = match use_copy {
            true => build.load(disk, &folder, incarnation)?,
            false => Some(Lsn(0)),
        };
        let reached = match copied {
            Some(copied) => Some((
                copied,
                build.replay(disk, &folder, incarnation, copied, journal_first)?,
            )),
            None => None,
        };
        let rows = build.total;
        if let Some((copied, replayed)) = reached.filter(|(_, last)| last.next() >= journal_first) {
            // The journal forgets nothing before its files are on disk.
            let files = Lsn(journal_first.0.saturating_sub(1));
            index.write(|txn| {
                let known = index.lsn(txn, Meta::Checkpoint)?;
                index.set_number(txn, Meta::Checkpoint, known.max(files).0)
            })?;
            index.sync().map_err(IndexError::from)?;
            built = Some(Rebuilt {
                copied,
                replayed,
                rows,
            });
        }
        index.close();
        if built.is_some() {
            break;
        }
        remove_dir(&new)?;
    }
    Ok(built)
}

/// Removes what was built of one that cannot be finished. What stays, the next attempt removes.
pub(super) fn forget(layout: &Layout) {
    let _ = remove_dir(&layout.file(NEW_DIR));
}

/// Gives what was built the index's name; the old one, unless it is empty, is put aside.
pub(super) fn put_in_place(layout: &Layout, is_empty: bool) -> Result<(), OpenError> {
    let (new, path) = (layout.file(NEW_DIR), layout.file(INDEX_DIR));
    sync_dir(&new).map_err(OpenError::io("sync", &new))?;
    match is_empty {
        true => remove_dir(&path)?,
        false => set_aside(layout)?,
    }
    fs::rename(&new, &path).map_err(OpenError::io("rename to", &path))?;
    sync_dir(&layout.root).map_err(OpenError::io("sync", &layout.root))
}

struct Build<'i> {
    index: &'i Index,
    rows: Vec<(usize, Vec<u8>, Vec<u8>)>,
    bytes: usize,
    total: u64,
    told: Instant,
    volume: &'i str,
}

impl Build<'_> {
    /// Loads the copy; answers its last record. `None`: there is none that is whole.
    fn load(
        &mut self,
        disk: &dyn Disk,
        folder: &Path,
        incarnation: &str,
    ) -> Result<Option<Lsn>, OpenError> {
        let path = copy::path(folder);
        let tables = self.index.tables();
        let read = copy::read(disk, &path, incarnation, |name, key, value| {
            // A newer build's table: this one cannot keep it right.
            let number = tables.iter().position(|(known, _)| *known == name);
            let number = number.ok_or_else(|| CopyError::Damaged {
                path: path.clone(),
                what: "it has a table that this build does not know",
            })?;
            self.bytes += key.len() + value.len();
            self.rows.push((number, key.to_vec(), value.to_vec()));
            match self.bytes >= RUN_BYTES {
                true => self.put().map_err(CopyError::from),
                false => Ok(()),
            }
        });
        match read {
            Ok(head) => {
                self.put()?;
                Ok(Some(head.applied))
            }
            Err(CopyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(CopyError::Index(error)) => Err(error.into()),
            Err(error) => {
                let error = super::commit::chain(&error);
                tracing::error!(
                    volume = self.volume,
                    error,
                    "the copy of the index cannot be used"
                );
                Ok(None)
            }
        }
    }

    fn put(&mut self) -> Result<(), IndexError> {
        let tables = self.index.tables();
        self.index.write(|txn| {
            for (table, key, value) in &self.rows {
                tables[*table].1.put(txn, key, value)?;
            }
            Ok::<_, IndexError>(())
        })?;
        self.tell(self.rows.len(), "rows of its copy");
        (self.rows, self.bytes) = (Vec::new(), 0);
        Ok(())
    }

    /// Applies the kept log from behind the copy to where the journal begins; answers the last record in the index.
    fn replay(
        &mut self,
        disk: &dyn Disk,
        folder: &Path,
        incarnation: &str,
        from: Lsn,
        journal_first: Lsn,
    ) -> Result<Lsn, OpenError> {
        let mut run: Vec<Placed> = Vec::new();
        let mut bytes = 0;
        let mut last = from;
        let mut apply = |run: &mut Vec<Placed>, build: &mut Self| -> Result<(), OpenError> {
            if !run.is_empty() {
                last = apply_run(build.index, run.iter(), iter::empty())?;
                build.tell(run.len(), "records kept since");
                run.clear();
            }
            Ok(())
        };
        kept_log::read::<Replay>(disk, folder, incarnation, from, |record| {
            if record.lsn >= journal_first {
                return Ok(());
            }
            bytes += record.payload.len();
            let decoded = record
                .decode()
                .map_err(IndexError::from)
                .map_err(OpenError::from)?;
            run.push(Placed {
                lsn: record.lsn,
                place: record.place,
                record: decoded,
            });
            if bytes >= RUN_BYTES {
                bytes = 0;
                apply(&mut run, self)?;
            }
            Ok(())
        })
        .map_err(|Replay(error)| error)?;
        apply(&mut run, self)?;
        Ok(last)
    }

    fn tell(&mut self, count: usize, what: &'static str) {
        self.total += count as u64;
        if self.told.elapsed() >= TELL_INTERVAL {
            self.told = Instant::now();
            tracing::info!(
                volume = self.volume,
                done = self.total,
                what,
                "rebuilding the index"
            );
        }
    }
}

/// What stops the reading of the kept log.
struct Replay(OpenError);

impl From<OpenError> for Replay {
    fn from(error: OpenError) -> Self {
        Self(error)
    }
}

impl From<io::Error> for Replay {
    fn from(error: io::Error) -> Self {
        Self(OpenError::io("read", Path::new(KEPT_DIR))(error))
    }
}

/// Puts an index that cannot be used aside: it is never deleted.
pub(super) fn set_aside(layout: &Layout) -> Result<(), OpenError> {
    let path = layout.file(INDEX_DIR);
    let folder = layout.file(QUARANTINE_DIR);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let aside = folder.join(format!("index.{}", now.as_millis()));
    // LMDB's own files do not go through the disk seam.
    fs::create_dir_all(&folder).map_err(OpenError::io("create", &folder))?;
    fs::rename(&path, &aside).map_err(OpenError::io("rename", &path))?;
    sync_dir(&folder).map_err(OpenError::io("sync", &folder))?;
    sync_dir(&layout.root).map_err(OpenError::io("sync", &layout.root))?;
    tracing::error!(path = %aside.display(), "the index cannot be used and was put aside");
    Ok(())
}

fn remove_dir(path: &Path) -> Result<(), OpenError> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(OpenError::io("remove", path)(error)),
    }
}

fn sync_dir(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

/// Made here first; left over only when the process was killed.
pub(super) const NEW_DIR: &str = "index.new";
/// Rows and records of one transaction.
const RUN_BYTES: usize = 8 << 20;
const TELL_INTERVAL: Duration = Duration::from_secs(10);
