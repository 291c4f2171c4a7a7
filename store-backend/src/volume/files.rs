//! Makes the file tree from the journal: blobs, links, checkpoints.
//!
//! Nothing here is synced by itself. A checkpoint syncs the whole file system, notes the position in the index, and
//! only then may the journal forget. After a crash everything since the checkpoint is done again, whatever part of it
//! the disk has kept: every step ends in the same files, done once or twice.

use std::collections::HashSet;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use durable::{Disk, JournalError, Lsn, OpenMode, Place};
use lmdb::heed;

use super::apply::Placed;
use super::error::{IndexError, ReadError};
use super::index::Meta;
use super::item::Content;
use super::mend;
use super::record::{BlobRef, Body, Record};
use super::recovery::Shared;
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
    #[error("read the journal")]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl From<heed::Error> for FilesError {
    fn from(error: heed::Error) -> Self {
        Self::Index(error.into())
    }
}

impl From<FilesError> for ReadError {
    fn from(error: FilesError) -> Self {
        match error {
            FilesError::Io { path, source, .. } => Self::Io { path, source },
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
pub(super) fn run(shared: &Shared) {
    let mut state = Progress {
        done: shared.checkpoint(),
        bytes: 0,
        since: Instant::now(),
        incoming: Vec::new(),
        copied: HashSet::new(),
    };
    let mut result = Ok(());
    while let Some(items) = shared.files_queue.take(shared.config.checkpoint_interval) {
        result = work(shared, &mut state, items);
        if result.is_err() {
            break;
        }
    }
    if result.is_ok() && !shared.aborted() && shared.read_only().is_none() {
        result = checkpoint(shared, &mut state);
    }
    if let Err(error) = result {
        shared.fail("make the files", &error);
        // The others must not wait for a queue that nobody empties.
        shared.files_queue.abort();
    }
}

struct Progress {
    done: Lsn,
    /// Journal octets since the last checkpoint.
    bytes: u64,
    since: Instant,
    /// Names in `incoming/` to be removed once the others are on disk.
    incoming: Vec<PathBuf>,
    /// Blobs of which a copy was made since the last checkpoint.
    copied: HashSet<u64>,
}

fn work(shared: &Shared, state: &mut Progress, items: Vec<FilesItem>) -> Result<(), FilesError> {
    for item in items {
        match item.record {
            Some(placed) => materialise(shared, state, &placed.record)?,
            None => {
                let payload = shared.journal.read(item.place)?;
                let record = Record::decode(item.kind, payload.into()).map_err(IndexError::from)?;
                materialise(shared, state, &record)?;
            }
        }
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

/// Files first, then the position, then the journal may go.
fn checkpoint(shared: &Shared, state: &mut Progress) -> Result<(), FilesError> {
    shared.wants_checkpoint.store(false, Ordering::Relaxed);
    if state.done > shared.checkpoint() {
        let root = &shared.layout.root;
        shared.marker.sync_fs().map_err(failed("sync", root))?;
        shared
            .index
            .write(|txn| shared.index.set_number(txn, Meta::Checkpoint, state.done.0))?;
        shared.index.sync().map_err(IndexError::from)?;
        shared.checkpoint.store(state.done.0, Ordering::Release);
        shared.intake.wake();
        for incoming in state.incoming.drain(..) {
            remove(&*shared.disk, &incoming)?;
        }
    }
    state.copied.clear();
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
        Record::Copy(record) => {
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
        Record::Undelete(record) => {
            for copy in &record.copies {
                make_blob(shared, state, copy)?;
            }
            for message in &record.messages {
                let path = layout.message(record.account, record.target, message.flags.uid);
                link(shared, &known(message.blob, message.hash), &path)?;
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
                remove(&*shared.disk, &layout.blob(*number, hash))?;
                shared.broken.remove(*number);
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
        | Record::Purge(_) => {}
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
        Body::Known => Ok(true),
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
            state.incoming.push(incoming.clone());
            link_once(shared, blob, &incoming, &path)
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
                    if shared.broken.has(*from) {
                        mend::mark_missing(shared, blob.number, &blob.hash)?;
                        return Ok(false);
                    }
                    present_or_dropped(shared, blob, error)
                }
                Err(error) => Err(failed("copy to", &path)(error)),
            }
        }
    }
}

/// What a missing source means: done before a crash, dropped later in the journal, or lost.
fn present_or_dropped(
    shared: &Shared,
    blob: &BlobRef,
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
    if wanted {
        Err(failed("find the octets of", path)(error))
    } else {
        Ok(false)
    }
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
                (Err(error), _) => present_or_dropped(shared, blob, error),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            present_or_dropped(shared, blob, error)
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
