//! What is in a backup, whether it is what was written, and what of it may go.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use daemon::output::print_line;
use data_encoding::HEXLOWER;
use serde::Serialize;

use super::error::BackupError;
use super::folder::{Folder, Hash, sync_folder};
use super::manifest::{Outcome, Run, runs};
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
    empty: usize,
    abroad: usize,
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
        "EMPTY",
        "ABROAD",
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
            self.empty.to_string(),
            self.abroad.to_string(),
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
    account: String,
    login_name: String,
    backend: String,
    messages: u64,
    octets: u64,
}

impl Row for SnapshotRow {
    const HEADINGS: &'static [&'static str] = &[
        "SNAPSHOT",
        "ACCOUNT",
        "LOGIN NAME",
        "BACKEND",
        "MESSAGES",
        "OCTETS",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.at.clone(),
            self.account.clone(),
            self.login_name.clone(),
            self.backend.clone(),
            self.messages.to_string(),
            octets(self.octets),
        ]
    }
}

impl RunRow {
    fn of(run: &Run) -> Self {
        let count = |is: fn(&Outcome) -> bool| {
            let entries = run.entries.iter();
            entries.filter(|entry| is(&entry.outcome)).count()
        };
        Self {
            begun: run.begun.to_string(),
            ended: run.ended.map(|(at, _)| at.to_string()),
            all: run.all,
            whole: run.ended.is_some_and(|(_, whole)| whole),
            taken: count(|one| matches!(one, Outcome::Taken { .. })),
            unchanged: count(|one| matches!(one, Outcome::Unchanged { .. })),
            empty: count(|one| matches!(one, Outcome::Empty)),
            abroad: count(|one| matches!(one, Outcome::Abroad)),
            failed: count(|one| matches!(one, Outcome::Failed { .. } | Outcome::Partial { .. })),
            bodies: run.blobs,
            octets: run.octets,
        }
    }
}

/// Prints the runs, or the snapshots of one account; true when all of them can be read.
///
/// # Errors
/// [`BackupError`].
pub(crate) fn list(
    folder: &Folder,
    account: Option<&str>,
    output: &Output,
) -> Result<bool, BackupError> {
    let mut damaged = 0;
    let Some(name) = account else {
        let (mut rows, mut last) = (Vec::new(), None);
        for path in runs(folder)? {
            if let Some(run) = passing_damage(Run::read(&path), &mut damaged)?.flatten() {
                rows.push(RunRow::of(&run));
                last = Some(run);
            }
        }
        output.rows(&rows);
        if let (Some(last), false) = (last, output.json) {
            tell_failures(&last);
        }
        return Ok(damaged == 0);
    };
    let mut rows = Vec::new();
    for account in folder.accounts()? {
        for (at, path) in folder.snapshots(account)? {
            let read = Reader::open(&path).and_then(|one| Ok((one.head, Foot::of(&path)?)));
            let Some((head, foot)) = passing_damage(read, &mut damaged)? else {
                continue;
            };
            if account.to_string() != name && head.login_name.as_str() != name {
                continue;
            }
            rows.push(SnapshotRow {
                at: at.to_string(),
                account: account.to_string(),
                login_name: head.login_name.to_string(),
                backend: head.backend.to_string(),
                messages: foot.messages,
                octets: foot.octets,
            });
        }
    }
    if rows.is_empty() {
        return Err(BackupError::NoAccount(name.to_owned()));
    }
    output.rows(&rows);
    Ok(damaged == 0)
}

/// What the last run could not take.
fn tell_failures(run: &Run) {
    // The last line of an account counts.
    let mut failed = BTreeMap::new();
    for entry in &run.entries {
        let why = match &entry.outcome {
            Outcome::Failed { why } => why.clone(),
            Outcome::Partial { bodies_missing, .. } => {
                format!("its home cannot read {bodies_missing} of its messages' bodies")
            }
            _ => {
                failed.remove(&entry.account);
                continue;
            }
        };
        failed.insert(entry.account, (&entry.login_name, why));
    }
    for (name, why) in failed.values().take(FAILURES_SHOWN_MAX) {
        print_line(format_args!("{}: {name}: {why}", run.begun));
    }
    if failed.len() > FAILURES_SHOWN_MAX {
        print_line(format_args!("{}: …", run.begun));
    }
}

/// What was read, if it is what was written; else tells that it is not.
pub(super) fn passing_damage<T>(
    read: Result<T, BackupError>,
    damaged: &mut u64,
) -> Result<Option<T>, BackupError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error @ BackupError::Damaged { .. }) => {
            *damaged += 1;
            eprintln!("{error}; `posthouse backup verify` puts it aside");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Reads every octet of a backup; true when all is what was written. A blob that is not is put aside, so that the next run
/// fetches it again; on a disk that cannot be written it is told alone.
///
/// # Errors
/// [`BackupError`]: the folder cannot be read, or not be written.
pub(crate) fn verify(folder: &Folder) -> Result<bool, BackupError> {
    let mut progress = Progress::new();
    let mut problems = 0u64;
    for path in runs(folder)? {
        // Its checksum is compared as it is read.
        match Run::read(&path) {
            Ok(_) => {}
            Err(error @ BackupError::Damaged { .. }) => {
                problems += 1;
                progress.say(&error.to_string());
                put_aside(folder, &path)?;
            }
            Err(error) => return Err(error),
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
                match hash_of(&blob) {
                    Ok(Some(hash)) if hash == message.hash => size += message.octets,
                    Ok(Some(_)) => {
                        problems += 1;
                        progress.say(&format!("{} has another hash", blob.display()));
                        put_aside(folder, &blob)?;
                    }
                    Err(error @ BackupError::Damaged { .. }) => {
                        problems += 1;
                        progress.say(&error.to_string());
                        put_aside(folder, &blob)?;
                    }
                    Err(error) => return Err(error),
                    Ok(None) => {
                        missing += 1;
                        progress.say(&format!("{} is missing", blob.display()));
                        if folder.is_writable() {
                            folder.note_missing(&message.hash)?;
                        }
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
    if problems + missing > 0 && folder.is_writable() {
        print_line("the next run of `posthouse backup` fetches again what accounts still have");
    }
    Ok(problems + missing == 0)
}

fn put_aside(folder: &Folder, path: &Path) -> Result<(), BackupError> {
    if !folder.is_writable() {
        return Ok(());
    }
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
        let count = file.read(&mut piece).map_err(BackupError::unread(path))?;
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
    folder.each_blob(|path| {
        let hash = path.file_name().and_then(|name| {
            let hash = HEXLOWER.decode(name.to_str()?.as_bytes()).ok()?;
            Hash::try_from(hash).ok()
        });
        if hash.is_some_and(|hash| !named.contains(&hash)) {
            let metadata = fs::metadata(path).map_err(BackupError::io("read", path))?;
            fs::remove_file(path).map_err(BackupError::io("remove", path))?;
            blobs += 1;
            size += metadata.len();
        }
        Ok(())
    })?;
    // Runs that tell of no snapshot any more.
    let (mut forgotten, mut damaged) = (0u64, 0);
    let all = runs(folder)?;
    let last = all.len().saturating_sub(keep);
    for path in all.into_iter().take(last) {
        let Some(run) = passing_damage(Run::read(&path), &mut damaged)?.flatten() else {
            continue;
        };
        let tells = run.entries.iter().any(|entry| match &entry.outcome {
            Outcome::Taken { snapshot, .. }
            | Outcome::Partial { snapshot, .. }
            | Outcome::Unchanged { snapshot, .. } => folder.root().join(snapshot).exists(),
            Outcome::Empty | Outcome::Abroad | Outcome::Failed { .. } => false,
        });
        if !tells && run.ended.is_some() {
            fs::remove_file(&path).map_err(BackupError::io("remove", &path))?;
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
const FAILURES_SHOWN_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_whose_octets_cannot_be_read_is_damaged() {
        // A folder is opened, and gives no octets.
        let found = hash_of(&std::env::temp_dir());
        assert!(
            matches!(found, Err(BackupError::Damaged { .. })),
            "{found:?}"
        );
    }
}
