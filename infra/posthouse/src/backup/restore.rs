//! Puts mail back: messages of a mailbox as new ones, or the accounts of a lost volume as they were.

mod mailbox;
mod volume;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use bytes::Bytes;
use directory_api::{AccountId, LoginName};

pub(crate) use mailbox::{Wanted, restore_mailboxes};
pub(crate) use volume::restore_volume;

use super::check::hash_of;
use super::error::BackupError;
use super::folder::{Folder, Hash};
use super::moment::Moment;
use super::snapshot::Reader;

/// A beginning, then a file.
fn pieces(first: Bytes, mut file: File) -> impl AsyncFnMut() -> io::Result<Option<Bytes>> {
    let mut first = Some(first).filter(|first| !first.is_empty());
    async move || {
        if let Some(first) = first.take() {
            return Ok(Some(first));
        }
        let mut piece = vec![0; PIECE_OCTETS];
        let count = file.read(&mut piece)?;
        piece.truncate(count);
        Ok(Some(Bytes::from(piece)).filter(|piece| !piece.is_empty()))
    }
}

fn check_blob(folder: &Folder, hash: &Hash) -> Result<(), BackupError> {
    let path = folder.blob(hash);
    match hash_of(&path)? {
        Some(found) if found == *hash => Ok(()),
        Some(_) => Err(BackupError::damaged(&path, "it has another hash")),
        None => Err(BackupError::damaged(&path, "it is missing")),
    }
}

/// The directory gives no number twice, but one that was made anew begins again.
fn check_name(
    account: AccountId,
    now: &LoginName,
    at: Moment,
    path: &Path,
) -> Result<(), BackupError> {
    let was = Reader::open(path)?.head.login_name;
    if was == *now {
        return Ok(());
    }
    Err(BackupError::OtherName {
        account,
        now: now.clone(),
        was,
        at,
    })
}

const PIECE_OCTETS: usize = 64 << 10;
