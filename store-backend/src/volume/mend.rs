//! What is mended of the file tree while the volume runs. The files thread alone does it, between records, so that it never
//! meets itself. A mend that fails is told and changes nothing for the volume.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use directory_api::AccountId;
use durable::{OpenMode, create_dir_durable};

use super::broken;
use super::files::{FilesError, in_folder, remove};
use super::layout::QUARANTINE_DIR;
use super::recovery::Shared;
use super::rows::BlobRow;
use super::types::{Hash, MailboxId};
use crate::metrics;

/// One thing to mend.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mend {
    /// The file of a blob has another hash, or is gone.
    Quarantine { number: u64, hash: Hash },
    /// A lost blob of which another inode, which is right, has the octets.
    Heal { number: u64, hash: Hash, from: u64 },
    /// The name of a message is missing, or of another inode.
    Link {
        account: AccountId,
        mailbox: MailboxId,
        uid: u32,
    },
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mended {
    /// As it should be.
    Whole,
    /// It is put aside, and not served; no other copy of the octets is known.
    Aside,
    /// It was right, or has gone meanwhile.
    Needless,
    /// It could not be done.
    Failed,
}

/// What waits to be mended. Bounded by who asks: each waits for its answer.
#[derive(Default)]
pub(super) struct Mends(Mutex<VecDeque<(Mend, SyncSender<Mended>)>>);

impl Mends {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(Mend, SyncSender<Mended>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has one thing mended, and waits for it. Blocking; not for the files thread.
pub(super) fn mend(shared: &Shared, what: Mend) -> Mended {
    if let Mend::Quarantine { number, hash } = what {
        // From here on it is not served, whatever becomes of the file.
        shared.broken.add(number, hash);
    }
    let (sender, receiver) = sync_channel(1);
    shared.mends.lock().push_back((what, sender));
    loop {
        shared.files_queue.wake();
        match receiver.recv_timeout(WAIT) {
            Ok(mended) => return mended,
            Err(_) if shared.read_only().is_some() || shared.suspects.is_closed() => {
                return Mended::Failed;
            }
            Err(_) => {}
        }
    }
}

/// The files thread's part.
pub(super) fn run(shared: &Shared) {
    loop {
        let next = shared.mends.lock().pop_front();
        let Some((what, answer)) = next else { return };
        let mended = match what {
            Mend::Quarantine { number, hash } => quarantine(shared, number, &hash),
            Mend::Heal { number, hash, from } => heal_by(shared, number, &hash, from),
            Mend::Link {
                account,
                mailbox,
                uid,
            } => link(shared, account, mailbox, uid),
        };
        let mended = mended.unwrap_or_else(|error| {
            let volume = &shared.config.name;
            tracing::error!(%volume, ?what, error = super::commit::chain(&error), "cannot be mended");
            Mended::Failed
        });
        // Nobody may wait any more.
        let _ = answer.try_send(mended);
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FilesError {
    super::files::failed(action, path)
}

/// Puts the file of a blob aside, and makes it anew if another inode has the octets.
fn quarantine(shared: &Shared, number: u64, hash: &Hash) -> Result<Mended, FilesError> {
    let Some(row) = row_of(shared, number, hash)? else {
        shared.broken.remove(number);
        return Ok(Mended::Needless);
    };
    let path = shared.layout.blob(number, hash);
    let aside = put_aside(shared, number, hash, &path)?;
    let healed = heal(shared, number, hash)?;
    let (volume, messages) = (&shared.config.name, row.link_count.get());
    let blob = data_encoding::HEXLOWER.encode(hash);
    metrics::quarantined(
        &shared.config.backend,
        &shared.config.name,
        shared.broken.count(),
    );
    if healed {
        tracing::error!(%volume, blob, messages, aside = %aside.display(), "a blob's file had other octets or was gone; made anew from another copy");
        return Ok(Mended::Whole);
    }
    tracing::error!(%volume, blob, messages, aside = %aside.display(), file = %path.display(), "a blob's file has other octets or is gone: put aside and not served; put a good copy in its place and restart");
    Ok(Mended::Aside)
}

/// The file gets a name in quarantine before it loses its own, so that at no cut it is nowhere. Without a file, an empty one
/// stands for it.
fn put_aside(
    shared: &Shared,
    number: u64,
    hash: &Hash,
    path: &Path,
) -> Result<std::path::PathBuf, FilesError> {
    let disk = &*shared.disk;
    let folder = shared.layout.file(QUARANTINE_DIR);
    create_dir_durable(disk, &folder).map_err(failed("create", &folder))?;
    let aside = broken::place(disk, &shared.layout, number, hash);
    let aside = aside.map_err(failed("look into", &folder))?;
    match disk.link(path, &aside) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let made = disk.open(&aside, OpenMode::CreateNew);
            made.and_then(|file| file.sync_all())
                .map_err(failed("create", &aside))?;
        }
        Err(error) => return Err(failed("link", &aside)(error)),
    }
    disk.sync_dir(&folder).map_err(failed("sync", &folder))?;
    remove(disk, path)?;
    Ok(aside)
}

/// Notes that a blob has no file, so that nothing waits for it.
pub(super) fn mark_missing(shared: &Shared, number: u64, hash: &Hash) -> Result<(), FilesError> {
    shared.broken.add(number, *hash);
    let path = shared.layout.blob(number, hash);
    put_aside(shared, number, hash, &path)?;
    let (volume, blob) = (&shared.config.name, data_encoding::HEXLOWER.encode(hash));
    tracing::error!(%volume, blob, file = %path.display(), "a blob's file is gone; put a good copy in its place and restart");
    metrics::quarantined(
        &shared.config.backend,
        &shared.config.name,
        shared.broken.count(),
    );
    Ok(())
}

/// The blob has come again under another number: what was lost of these octets is made from it.
pub(super) fn heal_from(shared: &Shared, number: u64, hash: &Hash) {
    for lost in shared.broken.of_hash(hash) {
        if lost == number {
            continue;
        }
        match copy_checked(shared, number, lost, hash) {
            Ok(true) => healed(shared, lost, hash),
            Ok(false) => {}
            Err(error) => {
                let volume = &shared.config.name;
                tracing::warn!(%volume, error = super::commit::chain(&error), "a blob cannot be made anew yet");
            }
        }
    }
}

fn heal_by(shared: &Shared, number: u64, hash: &Hash, from: u64) -> Result<Mended, FilesError> {
    if !shared.broken.has(number) || row_of(shared, number, hash)?.is_none() {
        return Ok(Mended::Needless);
    }
    if shared.broken.has(from) || !copy_checked(shared, from, number, hash)? {
        return Ok(Mended::Needless);
    }
    healed(shared, number, hash);
    Ok(Mended::Whole)
}

/// Those that have lost the octets of a blob that was looked at and has them, healed by it. The blob that takes new links is
/// asked when one is lost; only who looks at all of them comes by its full ones. Answers how many.
pub(super) fn heal_all(shared: &Shared, from: u64, hash: &Hash) -> u64 {
    let lost = shared.broken.of_hash(hash).into_iter();
    let heal = |number| {
        let hash = *hash;
        mend(shared, Mend::Heal { number, hash, from }) == Mended::Whole
    };
    lost.map(|number| u64::from(heal(number))).sum()
}

fn healed(shared: &Shared, number: u64, hash: &Hash) {
    shared.broken.remove(number);
    let (volume, blob) = (&shared.config.name, data_encoding::HEXLOWER.encode(hash));
    tracing::info!(%volume, blob, number, "a blob that was lost is whole again");
    metrics::quarantined(
        &shared.config.backend,
        &shared.config.name,
        shared.broken.count(),
    );
}

/// Makes the file of a blob from another inode with the same octets, if there is one.
pub(super) fn heal(shared: &Shared, number: u64, hash: &Hash) -> Result<bool, FilesError> {
    let other = shared.index.read(|txn| shared.index.blob_of(txn, hash))?;
    let Some((other, _)) = other.filter(|(other, _)| *other != number) else {
        return Ok(false);
    };
    let is_healed = !shared.broken.has(other) && copy_checked(shared, other, number, hash)?;
    if is_healed {
        healed(shared, number, hash);
    }
    Ok(is_healed)
}

/// Copies a blob's file to that of another number of the same octets, durably, under its name only when it has the hash.
fn copy_checked(shared: &Shared, from: u64, to: u64, hash: &Hash) -> Result<bool, FilesError> {
    let disk = &*shared.disk;
    let (source, target) = (shared.layout.blob(from, hash), shared.layout.blob(to, hash));
    let mut new = shared.layout.quarantined(to, hash).into_os_string();
    new.push(".new");
    let new = Path::new(&new);
    let copied = copy_hashed(shared, &source, new);
    let is_right = match copied {
        Ok(found) => found == *hash,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => {
            // On a full disk others need its room.
            let _ = remove(disk, new);
            return Err(failed("copy to", new)(error));
        }
    };
    if !is_right {
        remove(disk, new)?;
        return Ok(false);
    }
    in_folder(shared, &target, || disk.rename(new, &target))
        .map_err(failed("rename to", &target))?;
    let folder = target.parent().expect("a blob lies in a folder");
    disk.sync_dir(folder).map_err(failed("sync", folder))?;
    Ok(true)
}

fn copy_hashed(shared: &Shared, from: &Path, to: &Path) -> io::Result<Hash> {
    let source = shared.disk.open(from, OpenMode::Read)?;
    let target = in_folder(shared, to, || shared.disk.open(to, OpenMode::Create))?;
    target.set_len(0)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; COPY_BYTES];
    let mut offset = 0;
    loop {
        let count = source.read_at(&mut buffer, offset)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        target.write_all_at(&[IoSlice::new(&buffer[..count])], offset)?;
        offset += count as u64;
    }
    target.sync_all()?;
    Ok(*hasher.finalize().as_bytes())
}

fn row_of(shared: &Shared, number: u64, hash: &Hash) -> Result<Option<BlobRow>, FilesError> {
    let row = shared.index.read(|txn| shared.index.blob(txn, number))?;
    Ok(row.filter(|row| row.hash == *hash))
}

/// Gives a message its name. The index may be ahead of the files: a message that it does not have gets none, and one that
/// a later record removes loses it again with that record.
fn link(
    shared: &Shared,
    account: AccountId,
    mailbox: MailboxId,
    uid: u32,
) -> Result<Mended, FilesError> {
    let index = &shared.index;
    let blob = index.read(|txn| -> Result<_, super::error::IndexError> {
        let Some((row, _)) = index.message(txn, account, mailbox, uid)? else {
            return Ok(None);
        };
        let number = row.blob.get();
        Ok(index.blob(txn, number)?.map(|blob| (number, blob)))
    })?;
    let Some((number, blob)) = blob.filter(|(number, _)| !shared.broken.has(*number)) else {
        return Ok(Mended::Needless);
    };
    let disk = &*shared.disk;
    let original = shared.layout.blob(number, &blob.hash);
    let path = shared.layout.message(account, mailbox, uid);
    let inode = |path: &Path| match disk.metadata(path) {
        Ok(metadata) => Ok(Some(metadata.inode)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("look at", path)(error)),
    };
    let Some(wanted) = inode(&original)? else {
        // The files thread has not made it yet, or somebody finds that it is gone.
        return Ok(Mended::Needless);
    };
    let found = inode(&path)?;
    if found == Some(wanted) {
        return Ok(Mended::Needless);
    }
    // What is rotten gets no more names, and takes none from what may be right.
    let state = super::keeper::state_of(disk, &original, &blob);
    if state.map_err(failed("read", &original))? != super::keeper::FileState::Right {
        shared.suspects.tell(number);
        return Ok(Mended::Needless);
    }
    if found.is_some() {
        remove(disk, &path)?;
    }
    in_folder(shared, &path, || disk.link(&original, &path)).map_err(failed("link", &path))?;
    let (volume, path) = (&shared.config.name, path.display());
    tracing::warn!(%volume, %path, "the name of a message was missing or of another file; made anew");
    Ok(Mended::Whole)
}

const COPY_BYTES: usize = 256 << 10;
const WAIT: Duration = Duration::from_millis(100);
