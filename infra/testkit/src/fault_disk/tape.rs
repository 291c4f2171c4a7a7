//! A recording of all that was done to a disk, to be played again up to any point of it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::{FaultDisk, NameChange, Node, State};

/// One change, as the disk performed it. Files are named by their inode numbers, which a replay gives again.
#[derive(Clone)]
pub(super) enum Change {
    Name(NameChange),
    Write(usize, usize, Arc<[u8]>),
    Cut(usize, usize),
    Sync(usize),
    SyncDir(PathBuf),
    SyncFs,
}

/// What was done to a disk since [`FaultDisk::record`], in order.
#[derive(Clone)]
pub struct Tape {
    /// The disk when the recording began.
    begin: Box<State>,
    changes: Vec<Change>,
}

impl Tape {
    pub(super) fn push(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// How many changes were recorded: the power can be cut before the first, between any two and after the last.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether nothing was done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The disk as it was when the recording began, to be moved on by [`Tape::play`].
    #[must_use]
    pub fn disk(&self) -> FaultDisk {
        FaultDisk(Arc::new(Mutex::new((*self.begin).clone())))
    }

    /// Does to a disk, which has the changes before `from`, those up to `to`.
    pub fn play(&self, disk: &FaultDisk, from: usize, to: usize) {
        let mut state = disk.lock();
        for change in &self.changes[from..to] {
            state.perform(change.clone());
        }
    }

    /// The last changes before a point, one a line, for whoever looks into a failure.
    #[must_use]
    pub fn tail(&self, point: usize, count: usize) -> String {
        let from = point.saturating_sub(count);
        let lines = self.changes[from..point].iter().enumerate();
        lines
            .map(|(index, change)| format!("  {}: {change:?}\n", from + index))
            .collect()
    }
}

impl FaultDisk {
    /// Records from now on; what was recorded before is forgotten.
    pub fn record(&self) {
        let mut state = self.lock();
        state.tape = None;
        let (begin, changes) = (Box::new(state.clone()), Vec::new());
        state.tape = Some(Tape { begin, changes });
    }

    /// How many changes are on the tape now.
    #[must_use]
    pub fn recorded(&self) -> usize {
        self.lock().tape.as_ref().map_or(0, Tape::len)
    }

    /// Ends the recording.
    ///
    /// # Panics
    /// When there was none.
    #[must_use]
    pub fn take_tape(&self) -> Tape {
        let tape = self.lock().tape.take();
        tape.expect("the disk is being recorded")
    }

    /// Another disk that is now as this one is, what is not synced included; it goes its own way from here, and draws its
    /// losses from `seed`.
    #[must_use]
    pub fn fork(&self, seed: u64) -> FaultDisk {
        let mut state = self.lock().clone();
        (state.random, state.tape) = (seed, None);
        FaultDisk(Arc::new(Mutex::new(state)))
    }

    /// Gives everything below the folder `from` names below `to`: the same disk, mounted elsewhere. What lay beside it is
    /// gone.
    pub fn remount(&self, from: &Path, to: &Path) {
        let moved = |path: &Path| -> Option<PathBuf> {
            let rest = path.strip_prefix(from).ok()?;
            Some(to.join(rest).components().collect())
        };
        let state = &mut *self.lock();
        for names in [&mut state.names, &mut state.durable_names] {
            let below = std::mem::take(names).into_iter();
            names.extend(below.filter_map(|(path, node)| Some((moved(&path)?, node))));
            let above = to.ancestors().skip(1);
            names.extend(above.map(|folder| (folder.to_owned(), Node::Dir)));
        }
        let changes = std::mem::take(&mut state.name_changes).into_iter();
        state.name_changes = changes
            .filter_map(|change| {
                Some(match change {
                    NameChange::Put(path, node) => NameChange::Put(moved(&path)?, node),
                    NameChange::Remove(path) => NameChange::Remove(moved(&path)?),
                    NameChange::Rename(old, new, node) => {
                        NameChange::Rename(moved(&old)?, moved(&new)?, node)
                    }
                })
            })
            .collect();
    }
}

impl fmt::Debug for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Name(NameChange::Put(path, node)) => write!(formatter, "put {path:?} {node:?}"),
            Change::Name(NameChange::Remove(path)) => write!(formatter, "remove {path:?}"),
            Change::Name(NameChange::Rename(from, to, node)) => {
                write!(formatter, "rename {from:?} to {to:?} {node:?}")
            }
            Change::Write(id, offset, bytes) => {
                write!(formatter, "write {id} at {offset}: {} octets", bytes.len())
            }
            Change::Cut(id, len) => write!(formatter, "cut {id} to {len}"),
            Change::Sync(id) => write!(formatter, "sync {id}"),
            Change::SyncDir(path) => write!(formatter, "sync the folder {path:?}"),
            Change::SyncFs => write!(formatter, "sync the file system"),
        }
    }
}
