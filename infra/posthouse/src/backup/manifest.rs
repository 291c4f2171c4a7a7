//! What one run of a backup did, a line of JSON each: which accounts, with which outcome, and at its end that it was whole.
//!
//! While it runs the file is called `<begun>.begun`; with its last line, which carries the BLAKE3 of all before it, it becomes
//! `<begun>.run`. So a run that was killed is never taken for a whole one, and another can go on where it stopped.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use directory_api::{AccountId, LoginName};
use serde::{Deserialize, Serialize};
use store_api::{BlobHash, SetHash};

use super::error::BackupError;
use super::folder::{Folder, names, new_file, private, sync_folder};
use super::moment::Moment;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub(super) enum Line {
    /// The first one.
    Begun {
        version: u32,
        at_ms: i64,
        /// Every account of the directory.
        all: bool,
        /// Else these.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        accounts: Vec<AccountId>,
    },
    /// What became of one account. The last line of an account counts.
    Account(Entry),
    /// The last one.
    Ended {
        at_ms: i64,
        /// Every account that was asked for is in the backup.
        whole: bool,
        blobs: u64,
        octets: u64,
        /// BLAKE3 of all octets before this line.
        checksum: BlobHash,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) account: AccountId,
    pub(super) login_name: LoginName,
    #[serde(flatten)]
    pub(super) outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(super) enum Outcome {
    /// A snapshot was written.
    Taken { snapshot: String, set_hash: SetHash },
    /// A snapshot was written, and its home cannot read the bodies of some messages now.
    Partial {
        snapshot: String,
        set_hash: SetHash,
        bodies_missing: u64,
    },
    /// The last snapshot shows it as it is.
    Unchanged { snapshot: String, set_hash: SetHash },
    /// Its home has nothing of it: nobody has written to it or logged in.
    Empty,
    /// Its home is another mail system, whose backups are its own.
    Abroad,
    /// It is not in the backup as it is now.
    Failed { why: String },
}

/// The manifest of a run that goes on.
pub(super) struct Manifest {
    begun: PathBuf,
    file: File,
    hasher: blake3::Hasher,
}

/// A run that goes on where it stopped.
pub(super) struct Resumed {
    pub(super) manifest: Manifest,
    /// What it was asked for; every account when `None`.
    pub(super) accounts: Option<Vec<AccountId>>,
    /// The accounts that need not be looked at again.
    pub(super) done: HashSet<AccountId>,
}

impl Manifest {
    /// `accounts`: what is asked for; every account when `None`.
    pub(super) fn begin(
        folder: &Folder,
        accounts: Option<&[AccountId]>,
    ) -> Result<Self, BackupError> {
        let at = Moment::now();
        folder.make_below(&folder.runs())?;
        let begun = folder.runs().join(format!("{at}.{BEGUN}"));
        let mut manifest = Self {
            file: new_file(&begun)?,
            begun,
            hasher: blake3::Hasher::new(),
        };
        manifest.write(&Line::Begun {
            version: 1,
            at_ms: at.0,
            all: accounts.is_none(),
            accounts: accounts.unwrap_or_default().to_vec(),
        })?;
        Ok(manifest)
    }

    /// Goes on with the last run that did not end.
    pub(super) fn resume(folder: &Folder) -> Result<Resumed, BackupError> {
        let mut begun = runs(folder)?;
        begun.retain(|path| is_begun(path));
        let (begun, text, lines) = loop {
            let path = begun.pop();
            let path =
                path.ok_or_else(|| BackupError::NothingToResume(folder.root().to_owned()))?;
            let text = whole_lines(&path)?;
            if !text.is_empty() {
                let lines = parse(&path, &text);
                break (path, text, lines);
            }
        };
        let not = |why: &str| BackupError::NotToResume {
            path: begun.clone(),
            why: why.to_owned(),
        };
        let lines = lines.map_err(|_| not("it is damaged"))?;
        let accounts = match lines.first() {
            Some(Line::Begun { all: true, .. }) => None,
            Some(Line::Begun { accounts, .. }) if !accounts.is_empty() => Some(accounts.clone()),
            _ => return Err(not("it does not say which accounts it was asked for")),
        };
        let mut done = HashSet::new();
        for entry in entries(lines) {
            match entry.outcome {
                Outcome::Failed { .. } | Outcome::Partial { .. } => done.remove(&entry.account),
                _ => done.insert(entry.account),
            };
        }
        let file = private().open(&begun);
        let mut file = file.map_err(BackupError::io("open", &begun))?;
        let length = text.len() as u64;
        let cut = file.set_len(length);
        let cut = cut.and_then(|()| file.seek(SeekFrom::Start(length)));
        cut.map_err(BackupError::io("write", &begun))?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&text);
        let manifest = Self {
            begun,
            file,
            hasher,
        };
        Ok(Resumed {
            manifest,
            accounts,
            done,
        })
    }

    pub(super) fn add(&mut self, entry: Entry) -> Result<(), BackupError> {
        self.write(&Line::Account(entry))
    }

    /// Ends the run; earlier ones that did not end are forgotten.
    pub(super) fn end(
        mut self,
        folder: &Folder,
        whole: bool,
        blobs: u64,
        octets: u64,
    ) -> Result<(), BackupError> {
        let line = Line::Ended {
            at_ms: Moment::now().0,
            whole,
            blobs,
            octets,
            checksum: BlobHash(*self.hasher.finalize().as_bytes()),
        };
        self.write(&line)?;
        let synced = self.file.sync_all();
        synced.map_err(BackupError::io("write", &self.begun))?;
        folder.put_in_place(&self.begun, &self.begun.with_extension(RUN))?;
        for path in runs(folder)? {
            if is_begun(&path) {
                fs::remove_file(&path).map_err(BackupError::io("remove", &path))?;
            }
        }
        sync_folder(&folder.runs())
    }

    fn write(&mut self, line: &Line) -> Result<(), BackupError> {
        let mut text = serde_json::to_vec(line).unwrap_or_default();
        text.push(b'\n');
        self.hasher.update(&text);
        let written = self.file.write_all(&text);
        written.map_err(BackupError::io("write", &self.begun))
    }
}

/// One run, as it is listed.
pub(super) struct Run {
    pub(super) begun: Moment,
    pub(super) all: bool,
    /// When it ended and whether it was whole; `None`: it was killed.
    pub(super) ended: Option<(Moment, bool)>,
    pub(super) entries: Vec<Entry>,
    pub(super) blobs: u64,
    pub(super) octets: u64,
}

impl Run {
    /// Reads one; `None`: it was killed before it had written its first line, and says nothing.
    ///
    /// # Errors
    /// [`BackupError::Damaged`]: it is not what was written. It says nothing then, and keeps nothing from being done.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, BackupError> {
        let text = whole_lines(path)?;
        if text.is_empty() && is_begun(path) {
            return Ok(None);
        }
        let lines = parse(path, &text)?;
        let Some(Line::Begun { at_ms, all, .. }) = lines.first() else {
            return Err(BackupError::damaged(path, "its first line is wrong"));
        };
        let mut run = Self {
            begun: Moment(*at_ms),
            all: *all,
            ended: None,
            entries: Vec::new(),
            blobs: 0,
            octets: 0,
        };
        match lines.last() {
            Some(Line::Ended {
                at_ms,
                whole,
                blobs,
                octets,
                checksum,
            }) => {
                let before = text[..text.len() - 1]
                    .iter()
                    .rposition(|octet| *octet == b'\n');
                let before = &text[..before.map_or(0, |at| at + 1)];
                if blake3::hash(before).as_bytes() != &checksum.0 {
                    return Err(BackupError::damaged(path, "its checksum is wrong"));
                }
                run.ended = Some((Moment(*at_ms), *whole));
                (run.blobs, run.octets) = (*blobs, *octets);
            }
            _ if is_begun(path) => {}
            _ => return Err(BackupError::damaged(path, "it is cut")),
        }
        run.entries = entries(lines);
        Ok(Some(run))
    }
}

/// The files of all runs, the oldest first.
pub(super) fn runs(folder: &Folder) -> Result<Vec<PathBuf>, BackupError> {
    let mut paths = names(&folder.runs())?;
    let is_one = |path: &PathBuf| {
        path.extension()
            .is_some_and(|end| end == RUN || end == BEGUN)
    };
    paths.retain(is_one);
    paths.sort_unstable();
    Ok(paths)
}

fn is_begun(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == BEGUN)
}

/// Without the last line, if it is cut.
fn whole_lines(path: &Path) -> Result<Vec<u8>, BackupError> {
    let mut text = fs::read(path).map_err(BackupError::unread(path))?;
    let whole = text.iter().rposition(|octet| *octet == b'\n');
    text.truncate(whole.map_or(0, |at| at + 1));
    Ok(text)
}

fn parse(path: &Path, text: &[u8]) -> Result<Vec<Line>, BackupError> {
    let lines = text.split_inclusive(|octet| *octet == b'\n');
    let lines: Result<Vec<Line>, _> = lines.map(serde_json::from_slice).collect();
    lines.map_err(|_| BackupError::damaged(path, "a line is not readable"))
}

fn entries(lines: Vec<Line>) -> Vec<Entry> {
    let entry = |line| match line {
        Line::Account(entry) => Some(entry),
        _ => None,
    };
    lines.into_iter().filter_map(entry).collect()
}

const BEGUN: &str = "begun";
const RUN: &str = "run";
