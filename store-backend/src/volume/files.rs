//! Makes the file tree from the journal: blobs, links, checkpoints.
//!
//! Nothing here is synced by itself. A checkpoint syncs the whole file system, notes the position in the index, and
//! only then may the journal forget. After a crash everything since the checkpoint is done again, whatever part of it
//! the disk has kept: every step ends in the same files, done once or twice.
//!
//! When the disk is full, the record that finds no room waits for some, and those behind it with it. What they remove is
//! removed at once, though, and again when their turn comes: only that may make the room. It is what a crash does too,
//! that keeps a later step and loses an earlier one.

use std::collections::{HashSet, VecDeque};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use durable::{Disk, JournalError, Lsn, OpenMode, Place, is_no_room};
use lmdb::heed;

use super::apply::Placed;
use super::commit::chain;
use super::error::{IndexError, ReadError};
use super::index::Meta;
use super::item::Content;
use super::kept_log::KeptLog;
use super::layout::INDEX_DIR;
use super::mend;
use super::record::{BlobRef, Body, Record};
use super::recovery::{Failed, Shared};
use super::space::Shortage;
use super::types::Hash;

/// What the files thread is handed: a record, or its place when memory is short.
pub(super) struct FilesItem {
    pub(super) lsn: Lsn,
    pub(super) place: Place,
    pub(super) kind: u8,
    pub(super) record: Option<Arc<Placed>>,
}

/// Why the files thread stopped.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilesError {
    #[error("{action} {path}")]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// Never tried again, whatever the answer.
    #[error("sync {path}")]
    Sync { path: PathBuf, source: io::Error },
    #[error("sync the index {path}")]
    SyncIndex { path: PathBuf, source: heed::Error },
    #[error("read the journal")]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl FilesError {
    /// Whether it may go well once there is room.
    fn is_no_room(&self, shared: &Shared) -> bool {
        match self {
            Self::Io { source, .. } => is_no_room(source),
            Self::Index(error) => shared.has_no_room(error),
            Self::Sync { .. } | Self::SyncIndex { .. } | Self::Journal(_) => false,
        }
    }

    fn failed(&self) -> Failed {
        match self {
            Self::Sync { .. } | Self::SyncIndex { .. } => Failed::Checkpoint,
            Self::Io { .. } | Self::Journal(_) | Self::Index(_) => Failed::Files,
        }
    }
}

impl From<heed::Error> for FilesError {
    fn from(error: heed::Error) -> Self {
        Self::Index(error.into())
    }
}

impl From<FilesError> for ReadError {
    fn from(error: FilesError) -> Self {
        match error {
            FilesError::Io { path, source, .. } | FilesError::Sync { path, source } => {
                Self::Io { path, source }
            }
            FilesError::SyncIndex { source, .. } => Self::Index(source.into()),
            FilesError::Journal(source) => Self::Journal(source),
            FilesError::Index(source) => Self::Index(source),
        }
    }
}

pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FilesError {
    let path = path.to_owned();
    move |source| FilesError::Io {
        action,
        path,
        source,
    }
}

/// Runs until the queue is closed and empty.
pub(super) fn run(shared: &Shared, kept: KeptLog) {
    let mut state = Progress {
        kept,
        done: shared.checkpoint(),
        bytes: 0,
        since: Instant::now(),
        incoming: Vec::new(),
        copied: HashSet::new(),
    };
    let mut result = Ok(());
    let mut waiting = Waiting {
        items: VecDeque::new(),
        is_short: false,
        eased: Lsn(0),
        copied: HashSet::new(),
    };
    while let Some(items) = shared.files_queue.take(waiting.pause(shared)) {
        waiting.items.extend(items);
        result = match work(shared, &mut state, &mut waiting.items) {
            Err(error) if error.is_no_room(shared) && !shared.space.is_stopped() => {
                shared.no_room(Shortage::Files, &chain(&error));
                let made = waiting.make_room(shared, &mut state);
                // Who asks for it waits, and must not wait for room.
                mend::run(shared);
                made
            }
            worked => {
                if waiting.is_short && worked.is_ok() {
                    shared.found_room(Shortage::Files);
                    waiting.is_short = false;
                }
                worked
            }
        };
        if result.is_err() {
            break;
        }
    }
    if result.is_ok() && !shared.aborted() && shared.read_only().is_none() {
        result = checkpoint(shared, &mut state);
    }
    match result {
        Ok(()) => {}
        // The next start goes on where this ends.
        Err(error) if error.is_no_room(shared) => {
            tracing::warn!(volume = %shared.config.name, error = chain(&error), "closed without a last checkpoint");
            shared.files_queue.abort();
        }
        Err(error) => {
            shared.fail(error.failed(), &error);
            // The others must not wait for a queue that nobody empties.
            shared.files_queue.abort();
        }
    }
}

/// What was taken from the queue and is not done.
struct Waiting {
    items: VecDeque<FilesItem>,
    /// The first of them found no room.
    is_short: bool,
    /// The last of them that has removed what it removes …
    eased: Lsn,
    /// … and the blobs of which they will make copies.
    copied: HashSet<u64>,
}

impl Waiting {
    fn pause(&self, shared: &Shared) -> Duration {
        match self.is_short {
            true => shared.config.space_interval,
            false => shared.config.checkpoint_interval,
        }
    }

    /// Removes what the records that wait remove.
    fn make_room(&mut self, shared: &Shared, state: &mut Progress) -> Result<(), FilesError> {
        let unless_short = |result: Result<(), FilesError>| match result {
            Err(error) if error.is_no_room(shared) => Ok(()),
            result => result,
        };
        // Lets go of what the ones before them have in `incoming/` and in the journal.
        unless_short(checkpoint(shared, state))?;
        if !std::mem::replace(&mut self.is_short, true) {
            self.copied.clear();
        }
        self.copied.extend(&state.copied);
        let eased = self.eased;
        for item in self.items.iter_mut().filter(|item| item.lsn > eased) {
            // Their number has no other bound than the journal's: they are read from there when their turn comes.
            let placed = match item.record.take() {
                Some(placed) => placed,
                None => Arc::new(read(shared, item)?),
            };
            self.copied.extend(copies_from(&placed.record));
            unless_short(remove_early(shared, &placed.record, &self.copied))?;
            self.eased = item.lsn;
        }
        Ok(())
    }
}

fn read(shared: &Shared, item: &FilesItem) -> Result<Placed, FilesError> {
    let payload = shared.journal.read(item.place)?;
    let record = Record::decode(item.kind, payload.into()).map_err(IndexError::from)?;
    Ok(Placed {
        lsn: item.lsn,
        place: item.place,
        record,
    })
}

/// The blobs that a record makes copies of.
fn copies_from(record: &Record) -> impl Iterator<Item = u64> {
    let blobs = match record {
        Record::Deliver(record) => std::slice::from_ref(&record.blob),
        Record::Append(record) => &record.copies,
        Record::Copy(record) | Record::Undelete(record) => &record.copies,
        Record::Import(record) => &record.copies,
        _ => &[],
    };
    blobs.iter().filter_map(|blob| match blob.body {
        Body::Copied(from) => Some(from),
        _ => None,
    })
}

/// Of what a record does, that which gives room.
fn remove_early(shared: &Shared, record: &Record, copied: &HashSet<u64>) -> Result<(), FilesError> {
    let (disk, layout) = (&*shared.disk, &shared.layout);
    match record {
        Record::Expunge(record) => {
            for uid in &record.uids {
                remove(disk, &layout.message(record.account, record.mailbox, *uid))?;
            }
        }
        Record::Delete(record) => {
            remove_tree(disk, &layout.mailbox(record.account, record.mailbox))?;
        }
        Record::Account(record) if record.wipe => {
            remove_tree(disk, &layout.account(record.account))?;
        }
        Record::Drop(record) => {
            // A copy that waits is made from it.
            for (number, hash) in &record.blobs {
                if !copied.contains(number) {
                    remove(disk, &layout.blob(*number, hash))?;
                }
            }
        }
        _ => {}
    }
    Ok(())
}

struct Progress {
    /// The records without their bodies, for when the index is lost.
    kept: KeptLog,
    done: Lsn,
    /// Journal octets since the last checkpoint.
    bytes: u64,
    since: Instant,
    /// Names in `incoming/` to be removed once the others are on disk.
    incoming: Vec<PathBuf>,
    /// Blobs of which a copy was made since the last checkpoint.
    copied: HashSet<u64>,
}

/// Does what waits, as far as it goes: what remains in `items` was not done.
fn work(
    shared: &Shared,
    state: &mut Progress,
    items: &mut VecDeque<FilesItem>,
) -> Result<(), FilesError> {
    while let Some(item) = items.front() {
        let head = match &item.record {
            Some(placed) => {
                materialise(shared, state, &placed.record)?;
                placed.record.encode().head
            }
            None => {
                let placed = read(shared, item)?;
                materialise(shared, state, &placed.record)?;
                placed.record.encode().head
            }
        };
        state.kept.add(item.lsn, item.place, item.kind, &head);
        if state.kept.is_full() {
            write_kept(shared, state);
        }
        let item = items.pop_front().expect("it was there before it was done");
        state.done = item.lsn;
        state.bytes += u64::from(item.place.len);
        shared.materialised.store(item.lsn.0, Ordering::Release);
        if state.bytes >= shared.config.checkpoint_bytes
            || shared.wants_checkpoint.load(Ordering::Relaxed)
        {
            checkpoint(shared, state)?;
        }
    }
    mend::run(shared);
    if state.since.elapsed() >= shared.config.checkpoint_interval
        || shared.wants_checkpoint.load(Ordering::Relaxed)
    {
        checkpoint(shared, state)?;
    }
    Ok(())
}

/// Writes what was added to the kept log. Mail does not wait for it: where it cannot be written it gets a hole, and the
/// keeper makes a new copy of the index, from which it goes on.
fn write_kept(shared: &Shared, state: &mut Progress) {
    if let Err(error) = state.kept.write(&*shared.disk) {
        let volume = &shared.config.name;
        tracing::warn!(%volume, %error, "the kept log cannot be written: a new copy of the index will be made");
        shared.kept_hole.store(true, Ordering::Relaxed);
    }
}

/// Files first, then the position, then the journal may go.
fn checkpoint(shared: &Shared, state: &mut Progress) -> Result<(), FilesError> {
    shared.wants_checkpoint.store(false, Ordering::Relaxed);
    // What the journal has is the last thing to be let go when something failed.
    if state.done > shared.checkpoint() && shared.read_only().is_none() {
        let root = &shared.layout.root;
        write_kept(shared, state);
        shared.marker.sync_fs().map_err(|source| FilesError::Sync {
            path: root.clone(),
            source,
        })?;
        shared
            .index
            .write(|txn| shared.index.set_number(txn, Meta::Checkpoint, state.done.0))?;
        shared
            .index
            .sync()
            .map_err(|source| FilesError::SyncIndex {
                path: shared.layout.file(INDEX_DIR),
                source,
            })?;
        shared.checkpoint.store(state.done.0, Ordering::Release);
        shared.intake.wake();
    }
    while state.done <= shared.checkpoint()
        && let Some(incoming) = state.incoming.last()
    {
        remove(&*shared.disk, incoming)?;
        state.incoming.pop();
    }
    if state.done <= shared.checkpoint() {
        state.copied.clear();
    }
    (state.bytes, state.since) = (0, Instant::now());
    Ok(())
}

/// Does what a record means for files; again, if it was done before.
fn materialise(shared: &Shared, state: &mut Progress, record: &Record) -> Result<(), FilesError> {
    let layout = &shared.layout;
    match record {
        Record::Deliver(record) => {
            let present = make_blob(shared, state, &record.blob)?;
            for to in record.recipients.iter().filter(|_| present) {
                link(
                    shared,
                    &record.blob,
                    &layout.message(to.account, to.mailbox, to.uid),
                )?;
            }
        }
        Record::Expunge(record) => {
            for uid in &record.uids {
                remove(
                    &*shared.disk,
                    &layout.message(record.account, record.mailbox, *uid),
                )?;
            }
        }
        Record::Account(record) if record.wipe => {
            remove_tree(&*shared.disk, &layout.account(record.account))?;
        }
        Record::Append(record) => {
            for copy in &record.copies {
                make_blob(shared, state, copy)?;
            }
            for message in &record.messages {
                let path = layout.message(record.account, record.mailbox, message.flags.uid);
                link(shared, &known(message.blob, message.hash), &path)?;
            }
            if let Some(gone) = &record.replaced {
                let path = layout.message(record.account, gone.mailbox, gone.uid);
                remove(&*shared.disk, &path)?;
            }
        }
        Record::Copy(record) | Record::Undelete(record) => {
            for copy in &record.copies {
                make_blob(shared, state, copy)?;
            }
            for message in &record.messages {
                let path = layout.message(record.account, record.target, message.flags.uid);
                link(shared, &known(message.blob, message.hash), &path)?;
            }
            for message in record.messages.iter().filter(|_| record.source_modseq > 0) {
                remove(
                    &*shared.disk,
                    &layout.message(record.account, record.source, message.source_uid),
                )?;
            }
        }
        Record::Delete(record) => {
            remove_tree(
                &*shared.disk,
                &layout.mailbox(record.account, record.mailbox),
            )?;
        }
        Record::Import(record) => {
            for copy in &record.copies {
                make_blob(shared, state, copy)?;
            }
            let mut numbers = record.numbers.iter();
            for item in &record.items {
                if let Content::Message(message) =
                    Content::decode(item).map_err(IndexError::from)?
                {
                    let number = *numbers
                        .next()
                        .ok_or(IndexError::Contradiction("a blob's number"))?;
                    link(
                        shared,
                        &known(number, message.hash),
                        &layout.message(record.account, message.mailbox, message.uid),
                    )?;
                }
            }
        }
        Record::Blob(record) => {
            make_blob(shared, state, &record.blob)?;
        }
        Record::Drop(record) => {
            // The octets of a copy stand in no record: the file they came from may only go when the copy is on disk.
            if record
                .blobs
                .iter()
                .any(|(number, _)| state.copied.contains(number))
            {
                checkpoint(shared, state)?;
            }
            for (number, hash) in &record.blobs {
                shared.broken.remove(*number);
                // There are no checkpoints any more: the next start removes it.
                if state.copied.contains(number) {
                    continue;
                }
                remove(&*shared.disk, &layout.blob(*number, hash))?;
            }
        }
        Record::Account(_)
        | Record::Flags(_)
        | Record::Mailbox(_)
        | Record::Rename(_)
        | Record::Subscribe(_)
        | Record::SpecialUse(_)
        | Record::Annotate(_)
        | Record::Acl(_)
        | Record::Purge(_)
        | Record::Answered(_) => {}
    }
    Ok(())
}

/// A blob that an earlier record brought, to be linked.
fn known(number: u64, hash: Hash) -> BlobRef {
    BlobRef {
        number,
        hash,
        octets: 0,
        body: Body::Known,
    }
}

/// Sees to it that the blob's file is there. `false`: it is not, because a later record has dropped it.
fn make_blob(shared: &Shared, state: &mut Progress, blob: &BlobRef) -> Result<bool, FilesError> {
    let present = bring_blob(shared, state, blob)?;
    if present && !shared.broken.is_empty() && blob.body != Body::Known {
        shared.broken.remove(blob.number);
        mend::heal_from(shared, blob.number, &blob.hash);
    }
    Ok(present)
}

fn bring_blob(shared: &Shared, state: &mut Progress, blob: &BlobRef) -> Result<bool, FilesError> {
    let path = shared.layout.blob(blob.number, &blob.hash);
    match &blob.body {
        Body::Known | Body::Left => Ok(true),
        Body::Inline(bytes) => {
            // Over an old file if there is one: its inode may have links already, its octets may be lost.
            let file = in_folder(shared, &path, || shared.disk.open(&path, OpenMode::Create));
            let file = file.map_err(failed("create", &path))?;
            file.write_all_at(&[IoSlice::new(bytes)], 0)
                .map_err(failed("write", &path))?;
            Ok(true)
        }
        Body::Spilled(token) => {
            // A second name now, the first one removed after the checkpoint: a rename is not one step on every disk,
            // and a synced `incoming/` would make the loss of the old name durable before the new one.
            let incoming = shared.layout.incoming(token);
            let present = link_once(shared, blob, &incoming, &path)?;
            state.incoming.push(incoming);
            Ok(present)
        }
        Body::Copied(from) => {
            state.copied.insert(*from);
            let source = shared.layout.blob(*from, &blob.hash);
            match copy(shared, &source, &path) {
                Ok(found) if found == blob.hash => Ok(true),
                Ok(_) => {
                    // What is rotten is not made twice (P9).
                    remove(&*shared.disk, &path)?;
                    shared.suspects.tell(*from);
                    mend::mark_missing(shared, blob.number, &blob.hash)?;
                    Ok(false)
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    present_or_dropped(shared, blob, *from, error)
                }
                Err(error) => Err(failed("copy to", &path)(error)),
            }
        }
    }
}

/// What a missing source means: done before a crash, dropped later in the journal, rotten and put aside, or lost. `from` is
/// whose octets it should get, if not its own.
fn present_or_dropped(
    shared: &Shared,
    blob: &BlobRef,
    from: u64,
    error: io::Error,
) -> Result<bool, FilesError> {
    let path = &shared.layout.blob(blob.number, &blob.hash);
    if shared.disk.exists(path).map_err(failed("look for", path))? {
        return Ok(true);
    }
    // The index is ahead of the files: it knows what becomes of the blob.
    let wanted = shared
        .index
        .read(|txn| shared.index.blob(txn, blob.number))?
        .is_some();
    if !wanted {
        return Ok(false);
    }
    for number in [from, blob.number] {
        // Also one that was dropped since: nobody counts that one any more.
        let aside = shared.layout.quarantined(number, &blob.hash);
        if shared.broken.has(number)
            || shared
                .disk
                .exists(&aside)
                .map_err(failed("look for", &aside))?
        {
            mend::mark_missing(shared, blob.number, &blob.hash)?;
            return Ok(false);
        }
    }
    Err(failed("find the octets of", path)(error))
}

fn link(shared: &Shared, blob: &BlobRef, message: &Path) -> Result<(), FilesError> {
    let original = shared.layout.blob(blob.number, &blob.hash);
    if shared.broken.has(blob.number) {
        return Ok(());
    }
    match link_once(shared, blob, &original, message) {
        // Lost long ago: that is no reason to refuse everybody else's mail.
        Err(FilesError::Io { source, .. })
            if blob.body == Body::Known && source.kind() == io::ErrorKind::NotFound =>
        {
            mend::mark_missing(shared, blob.number, &blob.hash)
        }
        linked => linked.map(drop),
    }
}

/// Gives `original` the name `path`, unless it has it. `false`: the blob is not there, because a later record dropped it.
fn link_once(
    shared: &Shared,
    blob: &BlobRef,
    original: &Path,
    path: &Path,
) -> Result<bool, FilesError> {
    let disk = &*shared.disk;
    match in_folder(shared, path, || disk.link(original, path)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // From before a crash; the right inode if both names of it were kept.
            let inode = |path: &Path| disk.metadata(path).map(|metadata| metadata.inode);
            match (inode(original), inode(path)) {
                (Ok(one), Ok(other)) if one == other => Ok(true),
                (Ok(_), _) => {
                    remove(disk, path)?;
                    disk.link(original, path).map_err(failed("link", path))?;
                    Ok(true)
                }
                (Err(error), _) => present_or_dropped(shared, blob, blob.number, error),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            present_or_dropped(shared, blob, blob.number, error)
        }
        Err(error) => Err(failed("link", path)(error)),
    }
}

/// Tries, and tries once more when the folder was missing.
pub(super) fn in_folder<T>(
    shared: &Shared,
    path: &Path,
    mut action: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    match action() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = path
                .parent()
                .expect("every file of a volume lies in a folder of it");
            shared.disk.create_dir_all(folder)?;
            action()
        }
        other => other,
    }
}

/// Answers the hash of what was copied.
fn copy(shared: &Shared, from: &Path, to: &Path) -> io::Result<Hash> {
    let source = shared.disk.open(from, OpenMode::Read)?;
    let target = in_folder(shared, to, || shared.disk.open(to, OpenMode::Create))?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; COPY_BYTES];
    let mut offset = 0;
    loop {
        let count = source.read_at(&mut buffer, offset)?;
        if count == 0 {
            return Ok(*hasher.finalize().as_bytes());
        }
        hasher.update(&buffer[..count]);
        target.write_all_at(&[IoSlice::new(&buffer[..count])], offset)?;
        offset += count as u64;
    }
}

pub(super) fn remove(disk: &dyn Disk, path: &Path) -> Result<(), FilesError> {
    match disk.remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("remove", path)(error)),
    }
}

fn remove_tree(disk: &dyn Disk, path: &Path) -> Result<(), FilesError> {
    let names = match disk.read_dir(path) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("list", path)(error)),
    };
    for name in names {
        let entry = path.join(name);
        if disk
            .metadata(&entry)
            .map_err(failed("look at", &entry))?
            .is_dir
        {
            remove_tree(disk, &entry)?;
        } else {
            remove(disk, &entry)?;
        }
    }
    disk.remove_dir(path).map_err(failed("remove", path))
}

const COPY_BYTES: usize = 256 << 10;
