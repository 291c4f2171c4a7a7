//! Takes a backup: of each account its items at one instant, then the blobs that are not there yet.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use daemon::output::print_line;
use directory_api::wire::{Account, ListQuery, limit};
use directory_api::{AccountId, DirectoryClient, DirectoryError};
use store_api::backends::BackendAway;
use store_api::backup::{BackupClient, Blob, Snapshot};
use store_api::session::problem;
use store_api::transfer::TransferError;
use store_api::{Backends, BlobHash, SetHash};
use store_backend::volume::{Item, NamedMessage};
use tokio::task::JoinSet;

use super::error::BackupError;
use super::folder::{Folder, Hash, names, new_file, sync_folder};
use super::manifest::{Entry, Manifest, Outcome, Resumed};
use super::moment::Moment;
use super::progress::{Progress, octets};
use super::snapshot::{Foot, Head, Reader, Writer};

/// What to take.
pub(crate) enum Taking {
    /// These; every account of the directory when `None`.
    Accounts(Option<Vec<AccountId>>),
    /// What is left of the run that did not end.
    Resume,
}

/// Takes a backup; true when it is whole.
///
/// # Errors
/// [`BackupError`]: the folder cannot be used, or the directory is away. What became of single accounts is told and written
/// down, and goes on with the next.
pub(crate) async fn take(
    folder: &Folder,
    directory: &DirectoryClient,
    backends: &Backends,
    taking: Taking,
) -> Result<bool, BackupError> {
    let Resumed {
        manifest,
        accounts,
        done,
    } = match taking {
        Taking::Resume => Manifest::resume(folder)?,
        Taking::Accounts(accounts) => Resumed {
            manifest: Manifest::begin(folder, accounts.as_deref())?,
            accounts,
            done: HashSet::new(),
        },
    };
    let mut run = Run {
        folder,
        directory,
        backends,
        done,
        is_thorough: !names(&folder.damaged())?.is_empty(),
        manifest,
        progress: Progress::new(),
        counts: Counts::default(),
    };
    match &accounts {
        Some(accounts) => Box::pin(run.named(accounts)).await?,
        None => Box::pin(run.all()).await?,
    }
    run.end(accounts.is_none())
}

struct Run<'a> {
    folder: &'a Folder,
    directory: &'a DirectoryClient,
    backends: &'a Backends,
    manifest: Manifest,
    done: HashSet<AccountId>,
    /// A check has found damage: accounts are compared with what is there, although they have not changed.
    is_thorough: bool,
    progress: Progress,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    taken: u64,
    unchanged: u64,
    empty: u64,
    abroad: u64,
    failed: u64,
    passed_over: u64,
    blobs: u64,
    octets: u64,
}

impl Run<'_> {
    async fn all(&mut self) -> Result<(), BackupError> {
        let mut query = ListQuery {
            limit: Some(limit::PAGE_ROWS_MAX),
            ..ListQuery::default()
        };
        loop {
            let page = self.directory.accounts(&query).await?;
            for account in page.items {
                self.account(account).await?;
            }
            let Some(next) = page.next else { return Ok(()) };
            query.after = Some(next);
        }
    }

    async fn named(&mut self, accounts: &[AccountId]) -> Result<(), BackupError> {
        for account in accounts {
            match self.directory.account(*account).await {
                Ok(account) => self.account(account).await?,
                // Since it was named.
                Err(DirectoryError::Unknown) => self.progress.say(&format!(
                    "account {account}: the directory does not have it any more"
                )),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn account(&mut self, account: Account) -> Result<(), BackupError> {
        if self.done.contains(&account.id) {
            self.counts.passed_over += 1;
            return Ok(());
        }
        let name = account.login_name.clone();
        let id = account.id;
        let outcome = match self.tries(account).await {
            Ok(outcome) => outcome,
            // What this machine cannot write, it cannot write for the next account either.
            Err(error @ BackupError::Io { .. }) => return Err(error),
            Err(error) => Outcome::Failed {
                why: error.to_string(),
            },
        };
        match &outcome {
            Outcome::Taken { .. } => self.counts.taken += 1,
            Outcome::Partial { bodies_missing, .. } => {
                self.counts.failed += 1;
                self.progress.say(&format!(
                    "{name}: taken, but its home cannot read {bodies_missing} of its messages' bodies now"
                ));
            }
            Outcome::Unchanged { .. } => self.counts.unchanged += 1,
            Outcome::Empty => self.counts.empty += 1,
            Outcome::Abroad => self.counts.abroad += 1,
            Outcome::Failed { why } => {
                self.counts.failed += 1;
                self.progress.say(&format!("{name}: {why}"));
            }
        }
        self.manifest.add(Entry {
            account: id,
            login_name: name,
            outcome,
        })?;
        let counts = &self.counts;
        self.progress.show(|| {
            let accounts =
                counts.taken + counts.unchanged + counts.empty + counts.abroad + counts.failed;
            format!(
                "{accounts} accounts, {} messages' bodies fetched, {}",
                counts.blobs,
                octets(counts.octets)
            )
        });
        Ok(())
    }

    /// Takes an account, again when it was moved or something of it went meanwhile. The last time, what cannot be read is
    /// left: one rotten body must not keep all others out of the backup.
    async fn tries(&mut self, mut account: Account) -> Result<Outcome, BackupError> {
        let mut tries_left = TRIES;
        loop {
            tries_left -= 1;
            let error = match self.once(&account, tries_left == 0).await {
                Ok(outcome) => return Ok(outcome),
                Err(error) => error,
            };
            let is_passing = match error.code() {
                Some(problem::MOVED) => {
                    account.home = self.directory.home(account.id).await?.home;
                    true
                }
                // A blob that was dropped since the snapshot: the next one does not name it. Or one that cannot be read.
                Some(NOT_FOUND | UNAVAILABLE) => true,
                Some(_) => false,
                None => matches!(error, BackupError::Transfer(TransferError::Cut)),
            };
            if tries_left == 0 || !is_passing {
                return Err(error);
            }
        }
    }

    async fn once(
        &mut self,
        account: &Account,
        leave_unreadable: bool,
    ) -> Result<Outcome, BackupError> {
        let link = match self.backends.link(&account.home.backend).await {
            Err(BackendAway::Foreign(_)) => return Ok(Outcome::Abroad),
            link => link?,
        };
        let client = BackupClient::new(link);
        let last = self.folder.snapshot_at(account.id, None)?;
        // A last one that cannot be read is no reason to take none. One that tells another name is written anew, so that a
        // restore finds whose it is.
        let known = last.as_ref().and_then(|(_, path)| {
            let head = Reader::open(path).ok()?.head;
            let foot = Foot::of(path).ok()?;
            (head.login_name == account.login_name).then_some((path, foot))
        });
        let at = Moment::now();
        let head = Head {
            account: account.id,
            login_name: account.login_name.clone(),
            backend: account.home.backend.clone(),
            volume: account.home.volume.clone(),
            at_ms: at.0,
        };
        let request = Snapshot {
            account: account.id,
            known: known
                .filter(|_| !self.is_thorough)
                .map(|(_, foot)| SetHash(foot.set_hash)),
        };
        let mut items = match client.snapshot(&request).await {
            Err(TransferError::Refused(problem)) if problem.code == NOT_FOUND => {
                let Some((at, _)) = last else {
                    return Ok(Outcome::Empty);
                };
                return Err(BackupError::Gone {
                    backend: account.home.backend.clone(),
                    at,
                });
            }
            items => items?,
        };
        let new = self.folder.incoming_file("snapshot");
        let mut writer = Writer::begin(&new, &head)?;
        let mut missing: HashMap<Hash, NamedMessage> = HashMap::new();
        while let Some(item) = items.next().await? {
            let item = Item(item);
            writer.item(&item)?;
            if let Some(message) = item.message()
                && !missing.contains_key(&message.hash)
                && !self.folder.blob(&message.hash).exists()
            {
                missing.insert(message.hash, message);
            }
        }
        let end = items.end().ok_or(TransferError::Cut)?;
        if end.unchanged
            && let Some(known) = known
        {
            return Ok(self.unchanged(known));
        }
        let missing = missing.into_values().collect();
        let left = self
            .fetch(&client, account, missing, leave_unreadable)
            .await?;
        let foot = writer.finish(end.epoch.0)?;
        if foot.set_hash != end.set_hash.0 || foot.items != end.items {
            return Err(TransferError::Cut.into());
        }
        let known = known.filter(|(_, known)| known.set_hash == foot.set_hash);
        if let Some(known) = known.filter(|_| left == 0) {
            return Ok(self.unchanged(known));
        }
        let path = match known {
            Some((path, _)) => path.clone(),
            None => {
                // Last: what has the name of a snapshot has every blob.
                let path = self.folder.snapshot(account.id, at);
                self.folder.put_in_place(&new, &path)?;
                path
            }
        };
        if left > 0 {
            return Ok(Outcome::Partial {
                snapshot: self.name_of(&path),
                set_hash: end.set_hash,
                bodies_missing: left,
            });
        }
        Ok(Outcome::Taken {
            snapshot: self.name_of(&path),
            set_hash: end.set_hash,
        })
    }

    /// Fetches blobs, several at once; each is compared with its hash before it has its name (P9). Answers how many it had to
    /// leave, which is noted, so that the next run looks for them.
    async fn fetch(
        &mut self,
        client: &BackupClient,
        account: &Account,
        missing: Vec<NamedMessage>,
        leave_unreadable: bool,
    ) -> Result<u64, BackupError> {
        let mut left = 0;
        let mut missing = missing.into_iter();
        let mut fetching = JoinSet::new();
        let mut folders = HashSet::new();
        loop {
            while fetching.len() < BLOBS_IN_FLIGHT
                && let Some(named) = missing.next()
            {
                let blob = Blob {
                    account: account.id,
                    mailbox: named.mailbox.0,
                    uid: named.uid,
                    hash: BlobHash(named.hash),
                };
                let path = self.folder.blob(&named.hash);
                let parent = path.parent().unwrap_or(self.folder.root()).to_owned();
                self.folder.make_below(&parent)?;
                folders.insert(parent);
                let new = self.folder.incoming_file(&blob.hash.to_string());
                let client = client.clone();
                fetching.spawn(async move {
                    let fetched = fetch_one(&client, &blob, new, path).await;
                    fetched.map_err(|error| (blob.hash, error))
                });
            }
            let Some(fetched) = fetching.join_next().await else {
                break;
            };
            match fetched.map_err(|_| TransferError::Cut)? {
                Ok(octets) => {
                    self.counts.octets += octets;
                    self.counts.blobs += 1;
                }
                Err((hash, BackupError::Transfer(TransferError::Cut))) if leave_unreadable => {
                    self.folder.note_missing(&hash.0)?;
                    left += 1;
                }
                Err((hash, error)) if leave_unreadable && error.code() == Some(UNAVAILABLE) => {
                    self.folder.note_missing(&hash.0)?;
                    left += 1;
                }
                Err((_, error)) => {
                    // What is being written is not left to write on into what the next try begins.
                    fetching.shutdown().await;
                    return Err(error);
                }
            }
            let counts = &self.counts;
            self.progress.show(|| {
                format!(
                    "{}: {} messages' bodies fetched, {}",
                    account.login_name,
                    counts.blobs,
                    octets(counts.octets)
                )
            });
        }
        for folder in folders {
            sync_folder(&folder)?;
        }
        Ok(left)
    }

    fn unchanged(&self, (path, foot): (&PathBuf, Foot)) -> Outcome {
        Outcome::Unchanged {
            snapshot: self.name_of(path),
            set_hash: SetHash(foot.set_hash),
        }
    }

    /// Relative to the backup.
    fn name_of(&self, path: &std::path::Path) -> String {
        let name = path.strip_prefix(self.folder.root()).unwrap_or(path);
        name.display().to_string()
    }

    fn end(mut self, all: bool) -> Result<bool, BackupError> {
        self.progress.clear();
        let Counts {
            taken,
            unchanged,
            empty,
            abroad,
            failed,
            passed_over,
            blobs,
            octets: size,
        } = self.counts;
        let whole = failed == 0;
        if whole && all && self.is_thorough && passed_over == 0 {
            // All was compared with what is there. What was damaged is there again, or belonged to what no account has any more.
            let damaged = self.folder.damaged();
            fs::remove_dir_all(&damaged).map_err(BackupError::io("remove", &damaged))?;
        }
        self.manifest.end(self.folder, whole, blobs, size)?;
        let abroad = match abroad {
            0 => String::new(),
            count => format!(", {count} live on other mail systems"),
        };
        let passed = match passed_over {
            0 => String::new(),
            count => format!(", {count} done before"),
        };
        print_line(format_args!(
            "{taken} accounts taken, {unchanged} unchanged, {empty} empty{abroad}, {failed} failed{passed}; {blobs} bodies fetched, {}",
            octets(size)
        ));
        if !whole {
            print_line("the backup is not whole: run it again");
        }
        Ok(whole)
    }
}

async fn fetch_one(
    client: &BackupClient,
    blob: &Blob,
    new: PathBuf,
    path: PathBuf,
) -> Result<u64, BackupError> {
    let mut stream = client.blob(blob).await?;
    let mut file = new_file(&new)?;
    let mut hasher = blake3::Hasher::new();
    let mut size = 0;
    while let Some(piece) = stream.next().await? {
        hasher.update(&piece);
        size += piece.len() as u64;
        file.write_all(&piece)
            .map_err(BackupError::io("write", &new))?;
    }
    if hasher.finalize().as_bytes() != &blob.hash.0 {
        return Err(TransferError::Cut.into());
    }
    file.sync_all().map_err(BackupError::io("write", &new))?;
    fs::rename(&new, &path).map_err(BackupError::io("name", &path))?;
    Ok(size)
}

impl Taking {
    /// The accounts of these names, numbers too.
    ///
    /// # Errors
    /// The directory has none of the name, or is away.
    pub(crate) async fn named(
        directory: &DirectoryClient,
        names: &[String],
    ) -> Result<Vec<AccountId>, (String, DirectoryError)> {
        let mut accounts = Vec::new();
        for name in names {
            let found = match (name.parse(), name.parse()) {
                (Ok(number), _) => directory.account(number).await,
                (_, Ok(login_name)) => directory.account_of(&login_name).await,
                _ => Err(DirectoryError::Unknown),
            };
            accounts.push(found.map_err(|error| (name.clone(), error))?.id);
        }
        Ok(accounts)
    }
}

/// A snapshot is taken so often before an account counts as failed: each time fewer blobs are missing.
const TRIES: usize = 5;
/// Hides the round trip and the disk's sync.
const BLOBS_IN_FLIGHT: usize = 8;
/// The back-end has no such account, or the account no such message any more.
const NOT_FOUND: &str = "not_found";
/// It cannot be read now.
const UNAVAILABLE: &str = "unavailable";
