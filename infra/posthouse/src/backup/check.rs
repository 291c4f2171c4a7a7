//! What is in a backup, whether it is what was written, and what of it may go.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use daemon::output::print_line;
use data_encoding::HEXLOWER;
use serde::Serialize;

use super::error::BackupError;
use super::folder::{Folder, Hash, sync_folder};
use super::manifest::{Outcome, runs};
use super::progress::{Progress, octets};
use super::snapshot::{Foot, Reader};
use crate::verbs::{Output, Row};

/// One run.
#[derive(Serialize)]
struct RunRow {
    begun: String,
    ended: Option<String>,
    all: bool,
    whole: bool,
    taken: usize,
    unchanged: usize,
    failed: usize,
    bodies: u64,
    octets: u64,
}

impl Row for RunRow {
    const HEADINGS: &'static [&'static str] = &[
        "RUN",
        "ACCOUNTS",
        "TAKEN",
        "UNCHANGED",
        "FAILED",
        "BODIES",
        "FETCHED",
        "",
    ];

    fn cells(&self) -> Vec<String> {
        let state = match (&self.ended, self.whole) {
            (None, _) => "not finished: --resume goes on",
            (Some(_), false) => "not whole",
            (Some(_), true) => "whole",
        };
        vec![
            self.begun.clone(),
            if self.all { "all" } else { "some" }.to_owned(),
            self.taken.to_string(),
            self.unchanged.to_string(),
            self.failed.to_string(),
            self.bodies.to_string(),
            octets(self.octets),
            state.to_owned(),
        ]
    }
}

/// One snapshot of one account.
#[derive(Serialize)]
struct SnapshotRow {
    at: String,
    login_name: String,
    backend: String,
    messages: u64,
    octets: u64,
}

impl Row for SnapshotRow {
    const HEADINGS: &'static [&'static str] =
        &["SNAPSHOT", "LOGIN NAME", "BACKEND", "MESSAGES", "OCTETS"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.at.clone(),
            self.login_name.clone(),
            self.backend.clone(),
            self.messages.to_string(),
            octets(self.octets),
        ]
    }
}

/// Prints the runs, or the snapshots of one account.
///
/// # Errors
/// [`BackupError`].
pub(crate) fn list(
    folder: &Folder,
    account: Option<&str>,
    output: &Output,
) -> Result<(), BackupError> {
    let Some(name) = account else {
        let rows: Vec<RunRow> = runs(folder)?
            .into_iter()
            .map(|run| {
                let count = |is: fn(&Outcome) -> bool| {
                    run.entries
                        .iter()
                        .filter(|entry| is(&entry.outcome))
                        .count()
                };
                RunRow {
                    begun: run.begun.to_string(),
                    ended: run.ended.map(|(at, _)| at.to_string()),
                    all: run.all,
                    whole: run.ended.is_some_and(|(_, whole)| whole),
                    taken: count(|one| matches!(one, Outcome::Taken { .. })),
                    unchanged: count(|one| matches!(one, Outcome::Unchanged { .. })),
                    failed: count(|one| {
                        matches!(one, Outcome::Failed { .. } | Outcome::Partial { .. })
                    }),
                    bodies: run.blobs,
                    octets: run.octets,
                }
            })
            .collect();
        output.rows(&rows);
        return Ok(());
    };
    let mut rows = Vec::new();
    for account in folder.accounts()? {
        for (at, path) in folder.snapshots(account)? {
            let head = Reader::open(&path)?.head;
            if account.to_string() != name && head.login_name.as_str() != name {
                continue;
            }
            let foot = Foot::of(&path)?;
            rows.push(SnapshotRow {
                at: at.to_string(),
                login_name: head.login_name.to_string(),
                backend: head.backend.to_string(),
                messages: foot.messages,
                octets: foot.octets,
            });
        }
    }
    if rows.is_empty() {
        return Err(BackupError::NoSnapshot(name.to_owned(), String::new()));
    }
    output.rows(&rows);
    Ok(())
}

/// Reads every octet of a backup; true when all is what was written. A blob that is not is put aside, so that the next run
/// fetches it again.
///
/// # Errors
/// [`BackupError`]: the folder cannot be read, or not be written.
pub(crate) fn verify(folder: &Folder) -> Result<bool, BackupError> {
    let mut progress = Progress::new();
    let mut problems = 0u64;
    // Their checksums are compared as they are read.
    if let Err(error) = runs(folder) {
        match error {
            BackupError::Damaged { .. } => {
                problems += 1;
                progress.say(&error.to_string());
            }
            error => return Err(error),
        }
    }
    let (mut snapshots, mut missing) = (0u64, 0u64);
    let mut checked: HashSet<Hash> = HashSet::new();
    let mut size = 0;
    for account in folder.accounts()? {
        for (_, path) in folder.snapshots(account)? {
            let mut named = Vec::new();
            let read = Reader::open(&path).and_then(|reader| {
                reader.each(|item| {
                    named.extend(item.message());
                    Ok(())
                })
            });
            match read {
                Ok(_) => snapshots += 1,
                Err(error @ BackupError::Damaged { .. }) => {
                    problems += 1;
                    progress.say(&error.to_string());
                    // It must not be taken for what the account was; the next run takes it anew.
                    put_aside(folder, &path)?;
                    continue;
                }
                Err(error) => return Err(error),
            }
            for message in named {
                if !checked.insert(message.hash) {
                    continue;
                }
                let blob = folder.blob(&message.hash);
                match hash_of(&blob)? {
                    Some(hash) if hash == message.hash => size += message.octets,
                    Some(_) => {
                        problems += 1;
                        progress.say(&format!("{} has another hash", blob.display()));
                        put_aside(folder, &blob)?;
                    }
                    None => {
                        missing += 1;
                        progress.say(&format!("{} is missing", blob.display()));
                        folder.note_missing(&message.hash)?;
                    }
                }
                progress.show(|| {
                    format!(
                        "{snapshots} snapshots, {} bodies, {}",
                        checked.len(),
                        octets(size)
                    )
                });
            }
        }
    }
    progress.clear();
    print_line(format_args!(
        "{snapshots} snapshots and {} bodies read, {}; {problems} damaged, {missing} missing",
        checked.len(),
        octets(size)
    ));
    if problems + missing > 0 {
        print_line("the next run of `posthouse backup` fetches again what accounts still have");
    }
    Ok(problems + missing == 0)
}

fn put_aside(folder: &Folder, path: &Path) -> Result<(), BackupError> {
    let name = path.file_name().unwrap_or_default();
    folder.put_in_place(path, &folder.damaged().join(name))
}

/// `None`: it is not there.
pub(super) fn hash_of(path: &Path) -> Result<Option<Hash>, BackupError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(BackupError::io("open", path)(error)),
    };
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; PIECE_OCTETS];
    loop {
        let count = file
            .read(&mut piece)
            .map_err(BackupError::io("read", path))?;
        if count == 0 {
            return Ok(Some(*hasher.finalize().as_bytes()));
        }
        hasher.update(&piece[..count]);
    }
}

/// Keeps the newest `keep` snapshots of each account, and the blobs that they name.
///
/// # Errors
/// [`BackupError`]: a snapshot that stays cannot be read, so that nothing was removed; or the folder cannot be written.
pub(crate) fn prune(folder: &Folder, keep: usize) -> Result<(), BackupError> {
    let mut old = Vec::new();
    let mut named: HashSet<Hash> = HashSet::new();
    for account in folder.accounts()? {
        let mut snapshots = folder.snapshots(account)?;
        let stay = snapshots.split_off(snapshots.len().saturating_sub(keep));
        old.extend(snapshots.into_iter().map(|(_, path)| path));
        for (_, path) in stay {
            Reader::open(&path)?.each(|item| {
                named.extend(item.message().map(|message| message.hash));
                Ok(())
            })?;
        }
    }
    // Snapshots first, and for good: none may name a blob that is gone.
    let mut folders = HashSet::new();
    for path in &old {
        fs::remove_file(path).map_err(BackupError::io("remove", path))?;
        folders.extend(path.parent());
    }
    for folder in folders {
        sync_folder(folder)?;
    }
    let (mut blobs, mut size) = (0u64, 0);
    for path in folder.blobs()? {
        let hash = path.file_name().and_then(|name| {
            let hash = HEXLOWER.decode(name.to_str()?.as_bytes()).ok()?;
            Hash::try_from(hash).ok()
        });
        if hash.is_some_and(|hash| !named.contains(&hash)) {
            let metadata = fs::metadata(&path).map_err(BackupError::io("read", &path))?;
            fs::remove_file(&path).map_err(BackupError::io("remove", &path))?;
            blobs += 1;
            size += metadata.len();
        }
    }
    // Runs that tell of no snapshot any more.
    let mut forgotten = 0u64;
    let all = runs(folder)?;
    let last = all.len().saturating_sub(keep);
    for run in all.into_iter().take(last) {
        let tells = run.entries.iter().any(|entry| match &entry.outcome {
            Outcome::Taken { snapshot, .. }
            | Outcome::Partial { snapshot, .. }
            | Outcome::Unchanged { snapshot, .. } => folder.root().join(snapshot).exists(),
            Outcome::Empty | Outcome::Failed { .. } => false,
        });
        if !tells && run.ended.is_some() {
            fs::remove_file(&run.path).map_err(BackupError::io("remove", &run.path))?;
            forgotten += 1;
        }
    }
    print_line(format_args!(
        "{} snapshots and {blobs} bodies removed, {}; {forgotten} runs forgotten",
        old.len(),
        octets(size)
    ));
    Ok(())
}

const PIECE_OCTETS: usize = 64 << 10;
