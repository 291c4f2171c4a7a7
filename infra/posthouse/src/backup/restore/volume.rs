//! The accounts of a lost volume, bit for bit, into the new one in its place.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::path::Path;

use bytes::Bytes;
use daemon::output::print_line;
use directory_api::wire::{AccountHome, ListQuery, limit};
use directory_api::{AccountId, BackendName, DirectoryClient, VolumeName};
use store_api::backup::{BackupClient, Begin, Finish, HASHES_MAX, Missing, Put};
use store_api::transfer::{AccountState, SummaryQuery, TransferError};
use store_api::{Backends, BlobHash, MoveId, SetHash as WireSetHash};
use store_backend::volume::{Item, NamedMessage, SetHash};

use super::super::check::passing_damage;
use super::super::error::BackupError;
use super::super::folder::{Folder, Hash};
use super::super::manifest::{Outcome, Run, runs};
use super::super::moment::Moment;
use super::super::progress::Progress;
use super::super::snapshot::Reader;
use super::{check_blob, check_name, pieces};

/// Puts every account of a lost volume back, as the directory knows them; true when all are there then.
///
/// # Errors
/// [`BackupError`]: the directory is away. What became of single accounts is told, and the next one is tried.
pub(crate) async fn restore_volume(
    folder: &Folder,
    directory: &DirectoryClient,
    backends: &Backends,
    backend: &BackendName,
    volume: Option<&VolumeName>,
    at: Option<Moment>,
    takes_renamed: bool,
) -> Result<bool, BackupError> {
    let client = BackupClient::new(backends.link(backend).await?);
    let mut progress = Progress::new();
    let (mut restored, mut there, mut failed, mut left_out) = (0u64, 0u64, 0u64, 0u64);
    let nothing = empty_accounts(folder, at)?;
    let mut empty = 0u64;
    let mut without: Vec<AccountId> = Vec::new();
    let mut volumes: BTreeMap<String, Standing> = BTreeMap::new();
    let mut query = ListQuery {
        filter: Some(backend.to_string()),
        limit: Some(limit::PAGE_ROWS_MAX),
        ..ListQuery::default()
    };
    loop {
        let page = directory.homes(&query).await?;
        for home in page.items {
            if home.home.backend != *backend {
                continue;
            }
            let is_wanted = volume.is_none_or(|volume| *volume == home.home.volume);
            let standing = match volumes.entry(home.home.volume.to_string()) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) if is_wanted => new.insert(standing(&client, &home).await?),
                Entry::Vacant(new) => new.insert(Standing::Unasked),
            };
            if *standing != Standing::Restored {
                continue;
            }
            let Some((taken, path)) = folder.snapshot_at(home.account, at)? else {
                if nothing.contains(&home.account) {
                    empty += 1;
                } else {
                    without.push(home.account);
                }
                continue;
            };
            let name = directory.account(home.account).await?.login_name;
            let named = match takes_renamed {
                true => Ok(()),
                false => check_name(home.account, &name, taken, &path),
            };
            let whole = match named {
                Ok(()) => whole_account(folder, &client, &home, &path).await,
                Err(error) => Err(error),
            };
            match whole {
                Ok(whole) => {
                    if whole.was_there {
                        there += 1;
                    } else {
                        restored += 1;
                    }
                    if whole.left_out > 0 {
                        left_out += whole.left_out;
                        progress.say(&format!(
                            "{name}: {} messages left out, whose bodies the backup has not, or damaged",
                            whole.left_out
                        ));
                    }
                }
                Err(BackupError::OtherName {
                    account, was, at, ..
                }) => {
                    failed += 1;
                    progress.say(&format!(
                        "{name}: account {account} was {was} in the backup of {at}: it is restored with --renamed, if no directory was made anew since"
                    ));
                }
                Err(error) => {
                    failed += 1;
                    progress.say(&format!("{name}: {error}"));
                }
            }
            progress.show(|| format!("{restored} accounts restored, {there} were there"));
        }
        let Some(next) = page.next else { break };
        query.after = Some(next);
    }
    progress.clear();
    if let Some(volume) = volume
        && !volumes.contains_key(volume.as_str())
    {
        let has: Vec<String> = volumes.into_keys().collect();
        return Err(BackupError::NoVolume {
            backend: backend.clone(),
            volume: volume.clone(),
            has: has.join(", "),
        });
    }
    let is = |standing| move |found: &&Standing| **found == standing;
    let in_use = volumes.values().filter(is(Standing::TakesMail)).count();
    if in_use > 0 && volumes.values().filter(is(Standing::Restored)).count() == 0 {
        return Err(BackupError::TakesMail(backend.clone()));
    }
    let none = without.len();
    print_line(format_args!(
        "{restored} accounts restored, {there} were there, {empty} were empty, {failed} failed, {none} are not in the backup; {left_out} messages left out"
    ));
    if none > 0 {
        let shown = without.iter().take(SHOWN_MAX).map(ToString::to_string);
        let shown = shown.collect::<Vec<_>>().join(", ");
        let more = if none > SHOWN_MAX { ", …" } else { "" };
        print_line(format_args!("not in the backup: accounts {shown}{more}"));
    }
    let is_one_away = volumes.values().any(|one| *one == Standing::Away);
    let whole = failed == 0 && none == 0 && left_out == 0 && !is_one_away;
    for (volume, standing) in &volumes {
        match standing {
            Standing::Restored => {}
            Standing::TakesMail => {
                print_line(format_args!(
                    "volume {volume} takes mail, and was passed over"
                ));
                continue;
            }
            Standing::Away => {
                print_line(format_args!(
                    "volume {volume} is not available now, and was passed over"
                ));
                continue;
            }
            Standing::Unasked => continue,
        }
        if !whole {
            print_line(format_args!(
                "until volume {volume} is adopted the same command goes on; what is missing then comes back as new messages only"
            ));
        }
        print_line(format_args!(
            "volume {volume} is read, and takes mail once it is adopted: `posthouse backend set {backend} --adopt-volume {volume}`"
        ));
    }
    Ok(whole)
}

/// A volume of the back-end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Of which nothing is wanted.
    Unasked,
    /// It is in use.
    TakesMail,
    /// It does not answer: its disk is missing, perhaps. That is no reason to leave the others.
    Away,
    /// Accounts come whole.
    Restored,
}

/// Asked of the volume of an account.
async fn standing(client: &BackupClient, home: &AccountHome) -> Result<Standing, BackupError> {
    let nothing = Missing {
        account: home.account,
        hashes: Vec::new(),
    };
    match client.missing(&nothing).await {
        Ok(_) => Ok(Standing::Restored),
        Err(TransferError::Refused(problem)) if problem.code == "takes_mail" => {
            Ok(Standing::TakesMail)
        }
        Err(TransferError::Refused(problem)) if problem.code == "unavailable" => Ok(Standing::Away),
        Err(error) => Err(error.into()),
    }
}

/// Accounts of which their homes had nothing when the backup was taken.
fn empty_accounts(folder: &Folder, at: Option<Moment>) -> Result<HashSet<AccountId>, BackupError> {
    let (mut empty, mut damaged) = (HashSet::new(), 0);
    for path in runs(folder)? {
        let Some(run) = passing_damage(Run::read(&path), &mut damaged)?.flatten() else {
            continue;
        };
        if at.is_some_and(|at| run.begun > at) {
            break;
        }
        for entry in run.entries {
            match entry.outcome {
                // It says nothing of what there was.
                Outcome::Failed { .. } | Outcome::Abroad => false,
                Outcome::Empty => empty.insert(entry.account),
                _ => empty.remove(&entry.account),
            };
        }
    }
    Ok(empty)
}

/// What became of one account.
struct Whole {
    /// As the backup has it.
    was_there: bool,
    /// Messages without a body.
    left_out: u64,
}

/// One account, but for messages whose bodies cannot be read.
async fn whole_account(
    folder: &Folder,
    client: &BackupClient,
    home: &AccountHome,
    path: &Path,
) -> Result<Whole, BackupError> {
    let account = home.account;
    let (mut good, mut bad) = (HashSet::new(), HashSet::new());
    let (mut sum, mut left_out) = (SetHash::default(), 0);
    // To its end, so that its checksum was compared before anything of it is believed.
    Reader::open(path)?.each(|item| {
        if let Some(NamedMessage { hash, .. }) = item.message() {
            if !good.contains(&hash) && !bad.contains(&hash) {
                match check_blob(folder, &hash) {
                    Ok(()) => good.insert(hash),
                    Err(BackupError::Damaged { .. }) => bad.insert(hash),
                    Err(error) => return Err(error),
                };
            }
            if bad.contains(&hash) {
                left_out += 1;
                return Ok(());
            }
        }
        sum.add(&item);
        Ok(())
    })?;
    drop(good);
    let set_hash = sum.bytes();
    // One that broke off goes on, and one of another snapshot begins anew.
    let mut id = [0; 16];
    id.copy_from_slice(&set_hash[..16]);
    let restore_id = MoveId::from_octets(id);
    let summary = client.summary(&SummaryQuery { account }).await?;
    let was_there = summary.state == AccountState::Active
        && summary.set_hash.is_some_and(|sum| sum.0 == set_hash);
    if was_there {
        return Ok(Whole {
            was_there,
            left_out,
        });
    }
    let begin = Begin {
        account,
        restore_id,
    };
    client.begin(&begin).await.map_err(|error| match error {
        TransferError::Refused(problem) if problem.code == "wrong_state" => BackupError::Differs,
        error => error.into(),
    })?;
    let mut reader = Reader::open(path)?;
    let (mut batch, mut size) = (Vec::new(), 0);
    while let Some(item) = reader.next()? {
        if item
            .message()
            .is_some_and(|message| bad.contains(&message.hash))
        {
            continue;
        }
        size += item.0.len();
        batch.push(item);
        if batch.len() >= HASHES_MAX || size >= BATCH_OCTETS {
            give(folder, client, &begin, &batch).await?;
            (batch, size) = (Vec::new(), 0);
        }
    }
    give(folder, client, &begin, &batch).await?;
    let finish = Finish {
        account,
        restore_id,
        epoch: home.home.epoch,
        set_hash: WireSetHash(set_hash),
    };
    client.finish(&finish).await?;
    Ok(Whole {
        was_there,
        left_out,
    })
}

/// Some items, after the blobs that they name.
async fn give(
    folder: &Folder,
    client: &BackupClient,
    begin: &Begin,
    items: &[Item],
) -> Result<(), BackupError> {
    let hashes: BTreeSet<Hash> = items
        .iter()
        .filter_map(Item::message)
        .map(|message| message.hash)
        .collect();
    let account = begin.account;
    let asked = Missing {
        account,
        hashes: hashes.into_iter().map(BlobHash).collect(),
    };
    let octets: Vec<Bytes> = items.iter().map(|item| item.0.clone()).collect();
    let mut tries_left = TRIES;
    loop {
        tries_left -= 1;
        for hash in client.missing(&asked).await?.hashes {
            // Its hash is compared at the other side, too.
            let path = folder.blob(&hash.0);
            let file = File::open(&path).map_err(BackupError::io("open", &path))?;
            client
                .put(&Put { account, hash }, pieces(Bytes::new(), file))
                .await?;
        }
        match client.items(begin, &octets).await {
            // One that only something just discarded had named was still there when it was asked for.
            Err(TransferError::Refused(problem))
                if problem.code == "missing_blobs" && tries_left > 0 => {}
            given => return Ok(given?),
        }
    }
}

/// Far below what one request may bring.
const BATCH_OCTETS: usize = 1 << 20;
const TRIES: usize = 3;
/// Accounts that are named in a summary.
const SHOWN_MAX: usize = 20;
