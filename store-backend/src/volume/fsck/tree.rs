//! Files that belong to nothing, and where they are put.

use std::io;
use std::path::{Path, PathBuf};

use directory_api::AccountId;
use durable::{Disk, create_dir_durable};

use super::super::check::Ground;
use super::super::error::{IndexError, OpenError};
use super::super::layout::{BLOBS_DIR, Layout, MAIL_DIR, QUARANTINE_DIR, number_of};
use super::super::types::{Hash, MailboxId};
use super::{FsckError, Part};

/// Moves a file to quarantine, under a name that tells where it was.
pub(super) fn put_away(disk: &dyn Disk, layout: &Layout, path: &Path) -> io::Result<PathBuf> {
    let folder = layout.file(QUARANTINE_DIR);
    create_dir_durable(disk, &folder)?;
    let inside = path.strip_prefix(&layout.root).unwrap_or(path);
    let name = format!("stray.{}", inside.to_string_lossy().replace('/', "."));
    let mut aside = folder.join(&name);
    let mut count = 1;
    while disk.exists(&aside)? {
        count += 1;
        aside = folder.join(format!("{name}.{count}"));
    }
    disk.rename(path, &aside)?;
    disk.sync_dir(&folder)?;
    if let Some(parent) = path.parent() {
        disk.sync_dir(parent)?;
    }
    Ok(aside)
}

/// Names in `mail/` without a message and files in `blobs/` without a blob.
pub(super) fn strays(ground: &Ground<'_>) -> Result<Vec<(Part, PathBuf)>, FsckError> {
    let (layout, index) = (ground.layout, ground.index);
    let mut found = Vec::new();
    each_file(ground.disk, &layout.file(MAIL_DIR), &mut |path| {
        let has_message = match message_of(layout, path) {
            Some((account, mailbox, uid)) => index.read(|txn| {
                let message = index.message(txn, account, mailbox, uid)?;
                Ok::<_, IndexError>(message.is_some())
            })?,
            None => false,
        };
        if !has_message {
            found.push((Part::Links, path.to_owned()));
        }
        Ok(())
    })?;
    each_file(ground.disk, &layout.file(BLOBS_DIR), &mut |path| {
        let has_row = match blob_of(layout, path) {
            Some((number, hash)) => index
                .read(|txn| index.blob(txn, number))?
                .is_some_and(|row| row.hash == hash),
            None => false,
        };
        if !has_row {
            found.push((Part::Blobs, path.to_owned()));
        }
        Ok(())
    })?;
    Ok(found)
}

/// Calls `each` for every file below a folder.
pub(super) fn each_file(
    disk: &dyn Disk,
    folder: &Path,
    each: &mut dyn FnMut(&Path) -> Result<(), FsckError>,
) -> Result<(), FsckError> {
    let mut names = match disk.read_dir(folder) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(OpenError::io("list", folder)(error).into()),
    };
    names.sort();
    for name in names {
        let path = folder.join(name);
        let facts = disk
            .metadata(&path)
            .map_err(OpenError::io("look at", &path))?;
        match facts.is_dir {
            true => each_file(disk, &path, each)?,
            false => each(&path)?,
        }
    }
    Ok(())
}

/// The message that a path in `mail/` is the name of.
pub(super) fn message_of(layout: &Layout, path: &Path) -> Option<(AccountId, MailboxId, u32)> {
    let inside = path.strip_prefix(layout.file(MAIL_DIR)).ok()?;
    let mut steps = inside.iter().map(|step| step.to_str());
    let mut digits = String::new();
    for _ in 0..4 {
        digits.push_str(steps.next()??);
    }
    let account = AccountId(number_of(&digits)?);
    let mut grown = || -> Option<u32> {
        let first = steps.next()??;
        let deeper = match first {
            "b" => 1,
            "c" => 2,
            "d" => 3,
            number => return number.parse().ok(),
        };
        steps.nth(deeper)??.parse().ok()
    };
    let (mailbox, uid) = (MailboxId(grown()?), grown()?);
    (layout.message(account, mailbox, uid) == path).then_some((account, mailbox, uid))
}

/// The blob that a path in `blobs/` is the file of.
pub(super) fn blob_of(layout: &Layout, path: &Path) -> Option<(u64, Hash)> {
    let inside = path.strip_prefix(layout.file(BLOBS_DIR)).ok()?;
    let joined: String = inside
        .iter()
        .map(|step| step.to_str())
        .collect::<Option<_>>()?;
    let (digits, hash) = joined.split_once('-')?;
    let hash = data_encoding::HEXLOWER.decode(hash.as_bytes()).ok()?;
    let found = (number_of(digits)?, hash.try_into().ok()?);
    (layout.blob(found.0, &found.1) == path).then_some(found)
}
