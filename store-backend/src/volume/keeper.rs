//! The keeper: a thread that looks after what is kept. It examines what readers have found wrong.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use durable::{Disk, OpenMode};

use super::error::IndexError;
use super::mend::{self, Mend};
use super::recovery::Shared;
use super::rows::BlobRow;
use super::types::Hash;

/// Runs until the volume is closed.
pub(super) fn run(shared: &Shared) {
    while let Some(suspects) = shared.suspects.take(IDLE_INTERVAL) {
        for number in suspects {
            if let Err(error) = examine(shared, number) {
                let volume = &shared.config.name;
                tracing::warn!(%volume, error = super::commit::chain(&error), "a blob cannot be examined");
            }
        }
    }
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

const IDLE_INTERVAL: Duration = Duration::from_secs(1);
const READ_BYTES: usize = 256 << 10;
