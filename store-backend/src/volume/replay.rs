//! What the journal has and index or files do not have yet, as a start finds it.
//!
//! ```text
//! index, to the end ──▶ files thread ──▶ bodies that no record names go
//!   └ no room ─▶ the volume is open all the same: accounts that these records are about are told to come again, all
//!                others read, nobody changes anything; the apply thread tries on until there is room
//! ```
//! The index comes first and to its end: it then knows which files later records have removed.

use std::collections::HashSet;
use std::io;
use std::iter;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use durable::{Lsn, Recovery};

use super::apply::{Placed, apply_run};
use super::commit::{chain, hand_to_files};
use super::error::{IndexError, OpenError};
use super::layout::INCOMING_DIR;
use super::record::Record;
use super::recovery::{Failed, Shared};
use super::space::Shortage;

/// What a start has to do.
pub(super) struct Replay {
    recovery: Recovery,
    /// Index and files have all up to here.
    done: Lsn,
    /// What lies in `incoming/` before anybody can bring a new body.
    incoming: Vec<PathBuf>,
    began: Instant,
}

impl Replay {
    /// Call it before bodies can be written.
    ///
    /// # Errors
    /// A folder cannot be listed.
    pub(super) fn new(shared: &Shared, recovery: Recovery, done: Lsn) -> Result<Self, OpenError> {
        if let Some(cut) = recovery.cut() {
            let (path, offset) = (cut.path.display(), cut.offset);
            tracing::info!(%path, offset, "journal: cut a batch that was never acknowledged");
        }
        let folder = shared.layout.file(INCOMING_DIR);
        let names = shared.disk.read_dir(&folder);
        let names = names.map_err(OpenError::io("list", &folder))?.into_iter();
        Ok(Self {
            recovery,
            done,
            incoming: names.map(|name| folder.join(name)).collect(),
            began: Instant::now(),
        })
    }

    /// Brings both views up to the journal. True: the index finds no room for it, and [`Replay::catch_up`] has to be called;
    /// until then nothing of what it lacks is read or changed.
    ///
    /// # Errors
    /// The journal cannot be read, or the index not be written for another reason.
    pub(super) fn run(&self, shared: &Arc<Shared>) -> Result<bool, OpenError> {
        match self.index(shared) {
            Err(OpenError::Replay(error)) if shared.has_no_room(&error) => {
                self.open_behind(shared, &error)?;
                Ok(true)
            }
            Err(error) => Err(error),
            Ok(()) => {
                self.files(shared)?;
                Ok(false)
            }
        }
    }

    /// The same for a volume that is open, as soon as there is room. False: it is not done; the volume is closing, or takes
    /// no more writes.
    pub(super) fn catch_up(&self, shared: &Arc<Shared>) -> bool {
        loop {
            if !shared.space.pause(shared.config.space_interval) {
                tracing::warn!(volume = %shared.config.name, "closed behind the journal");
                return false;
            }
            let caught_up = match self.index(shared) {
                Err(OpenError::Replay(error)) if shared.has_no_room(&error) => {
                    continue;
                }
                Err(error) => Err((Failed::Index, error)),
                Ok(()) => self.files(shared).map_err(|error| (Failed::Files, error)),
            };
            if let Err((failed, error)) = caught_up {
                shared.fail(failed, &error);
                return false;
            }
            shared.settled.applied(shared.applied());
            shared.found_room(Shortage::Index);
            return true;
        }
    }

    /// Applies what the index lacks.
    fn index(&self, shared: &Arc<Shared>) -> Result<(), OpenError> {
        let mut run = Run::new(shared);
        let from = shared.applied().next();
        self.recovery
            .replay(from, |record| run.push(record, Run::apply))?;
        run.apply()
    }

    /// Hands over to the files thread what the file tree may lack. Once, and when the index is at its end.
    fn files(&self, shared: &Arc<Shared>) -> Result<(), OpenError> {
        let mut run = Run::new(shared);
        let mut named = HashSet::new();
        self.recovery.replay(self.done.next(), |record| {
            run.push(record, Run::hand_over)?;
            let last = run.placed.last();
            named.extend(last.and_then(|placed| placed.record.spilled().copied()));
            Ok::<_, OpenError>(())
        })?;
        run.hand_over()?;
        self.remove_orphans(shared, &named)?;
        let records = self
            .recovery
            .next_lsn()
            .0
            .saturating_sub(self.done.next().0);
        if records > 0 {
            let seconds = self.began.elapsed().as_secs_f64();
            tracing::info!(volume = %shared.config.name, records, seconds, "journal replayed");
        }
        Ok(())
    }

    /// Sees to it that nobody reads of an account what a record that waits has changed, and says what is missing.
    fn open_behind(&self, shared: &Shared, error: &IndexError) -> Result<(), OpenError> {
        let (applied, next) = (shared.applied(), self.recovery.next_lsn());
        let (mut named, mut changed, mut sharers) =
            (HashSet::new(), HashSet::new(), HashSet::new());
        self.recovery.replay(self.done.next(), |found| {
            let record = decode(&found)?;
            named.extend(record.spilled().copied());
            if found.lsn > applied {
                changed.extend(record.accounts());
                sharers.extend(record.sharer());
                if let Record::Acl(list) = &record {
                    changed.extend(list.acl.entries.iter().map(|one| one.account));
                }
            }
            Ok::<_, OpenError>(())
        })?;
        // Whose rights may have been taken away is shown nothing of it either (P8), and to whom some were given does not take
        // for gone what he saw before (P6).
        shared.index.read(|txn| {
            for owner in sharers {
                for (_, mailbox) in shared.index.mailboxes_of(txn, owner)? {
                    changed.extend(mailbox.acl.entries.iter().map(|one| one.account));
                }
            }
            Ok::<_, IndexError>(())
        })?;
        for account in changed {
            shared.settled.answered(account, Lsn(next.0 - 1));
        }
        shared.settled.behind();
        shared.opened_behind(next.0 - applied.next().0, &chain(error));
        // That may be the room that is wanted.
        match self.remove_orphans(shared, &named) {
            Err(error) if !error.is_no_room() => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes bodies whose record was never written.
    fn remove_orphans(&self, shared: &Shared, named: &HashSet<[u8; 16]>) -> Result<(), OpenError> {
        let named: HashSet<PathBuf> = named
            .iter()
            .map(|token| shared.layout.incoming(token))
            .collect();
        for path in self.incoming.iter().filter(|path| !named.contains(*path)) {
            match shared.disk.remove_file(path) {
                // By an attempt before this one.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.map_err(OpenError::io("remove", path))?,
            }
        }
        Ok(())
    }
}

/// Some records of a replay.
struct Run<'s> {
    shared: &'s Arc<Shared>,
    placed: Vec<Arc<Placed>>,
    bytes: usize,
}

impl<'s> Run<'s> {
    fn new(shared: &'s Arc<Shared>) -> Self {
        Self {
            shared,
            placed: Vec::new(),
            bytes: 0,
        }
    }

    /// Adds a record, after doing the ones before it if they are enough.
    fn push(
        &mut self,
        record: durable::Record<'_>,
        work: fn(&mut Self) -> Result<(), OpenError>,
    ) -> Result<(), OpenError> {
        if self.placed.len() >= RUN_COUNT || self.bytes >= RUN_BYTES {
            work(self)?;
        }
        self.bytes += record.payload.len();
        self.placed.push(Arc::new(Placed {
            lsn: record.lsn,
            place: record.place,
            record: decode(&record)?,
        }));
        Ok(())
    }

    fn apply(&mut self) -> Result<(), OpenError> {
        if !self.placed.is_empty() {
            // Of a volume that is open already somebody may be watching.
            for placed in &self.placed {
                self.shared.watchers.note(&placed.record);
            }
            let run = self.placed.iter().map(AsRef::as_ref);
            let last = apply_run(&self.shared.index, run, iter::empty())?;
            for placed in &self.placed {
                self.shared.watchers.tell(&placed.record);
            }
            self.shared.applied.store(last.0, Ordering::Release);
            self.shared.settled.advanced(last);
        }
        (self.placed, self.bytes) = (Vec::new(), 0);
        Ok(())
    }

    fn hand_over(&mut self) -> Result<(), OpenError> {
        self.placed
            .drain(..)
            .for_each(|placed| hand_to_files(self.shared, &placed));
        self.bytes = 0;
        Ok(())
    }
}

fn decode(record: &durable::Record<'_>) -> Result<Record, OpenError> {
    let payload = Bytes::copy_from_slice(record.payload);
    Ok(Record::decode(record.kind, payload).map_err(IndexError::from)?)
}

const RUN_COUNT: usize = 512;
const RUN_BYTES: usize = 8 << 20;
