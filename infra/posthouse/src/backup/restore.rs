//! Puts mail back: messages of a mailbox as new ones, or the accounts of a lost volume as they were.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use daemon::output::print_line;
use directory_api::wire::{AccountHome, ListQuery, limit};
use directory_api::{AccountId, BackendName, DirectoryClient, LoginName, VolumeName};
use store_api::backup::{Append, BackupClient, Begin, Finish, HASHES_MAX, Missing, Put, Snapshot};
use store_api::transfer::{AccountState, SummaryQuery, TransferError};
use store_api::{Backends, BlobHash, EmailId, MoveId, SetHash as WireSetHash};
use store_backend::volume::{
    Flags, Item, ItemContent, MailboxId, MessageTold, NamedMessage, SetHash,
};

use super::check::{hash_of, passing_damage};
use super::error::BackupError;
use super::folder::{Folder, Hash};
use super::manifest::{Outcome, Run, runs};
use super::moment::Moment;
use super::progress::Progress;
use super::snapshot::Reader;
use crate::verbs::is_same_mailbox;

/// Which mailbox of which account.
pub(crate) struct Wanted {
    pub(crate) account: AccountId,
    /// As the backup knows the account, by name or number; as the directory does when `None`.
    pub(crate) known_as: Option<String>,
    pub(crate) mailbox: String,
    /// The same one when `None`.
    pub(crate) into: Option<String>,
    /// As it was then, or last.
    pub(crate) at: Option<Moment>,
}

/// Puts the messages of one mailbox back that its account does not have there any more; true when none is missing then.
///
/// # Errors
/// [`BackupError`]: the backup has no such mailbox, or a back-end refuses all of it.
pub(crate) async fn restore_mailbox(
    folder: &Folder,
    directory: &DirectoryClient,
    backends: &Backends,
    wanted: &Wanted,
) -> Result<bool, BackupError> {
    let (account, name) = (wanted.account, &*wanted.mailbox);
    let (there, taken, path) = match &wanted.known_as {
        Some(known_as) => known(folder, known_as, account, wanted.at)?,
        None => {
            let login_name = directory.account(account).await?.login_name;
            let (taken, path) = snapshot(folder, account, &login_name, wanted.at)?;
            check_name(account, &login_name, taken, &path)?;
            (account, taken, path)
        }
    };
    let _one_at_a_time = folder.lock_account(there)?;
    let into = wanted.into.as_deref();
    let mut mailboxes: HashMap<MailboxId, (String, Vec<String>)> = HashMap::new();
    let mut wanted = None;
    let mut messages: Vec<MessageTold> = Vec::new();
    Reader::open(&path)?.each(|item| {
        match item.content() {
            Some(ItemContent::Mailbox(mailbox)) => {
                if is_same_mailbox(&mailbox.name, name) {
                    wanted = Some(mailbox.mailbox);
                }
                mailboxes.insert(mailbox.mailbox, (mailbox.name, mailbox.keywords));
            }
            Some(ItemContent::Message(message)) if Some(message.named.mailbox) == wanted => {
                messages.push(*message);
            }
            Some(_) => {}
            None => return Err(BackupError::damaged(&path, "an item is of a newer build")),
        }
        Ok(())
    })?;
    let Some((name, keywords)) = wanted.and_then(|wanted| mailboxes.remove(&wanted)) else {
        let mut names: Vec<String> = mailboxes.into_values().map(|(name, _)| name).collect();
        names.sort_unstable();
        return Err(BackupError::NoMailbox {
            at: taken.to_string(),
            name: name.to_owned(),
            has: names.join(", "),
        });
    };
    let target = into.unwrap_or(&name);
    let home = directory.home(account).await?.home;
    let client = BackupClient::new(backends.link(&home.backend).await?);
    let here = identities(&client, account, target).await?;
    let mut progress = Progress::new();
    let (mut back, mut there, mut failed) = (0u64, 0u64, 0u64);
    let total = messages.len();
    // One after the other, so that their UIDs have the order that the old ones had.
    for message in messages {
        if here.contains(&message.identity) {
            there += 1;
            continue;
        }
        let put = put_back(folder, &client, account, target, &message, &keywords);
        match put.await {
            Ok(()) => back += 1,
            Err(error @ BackupError::Damaged { .. }) => {
                failed += 1;
                progress.say(&error.to_string());
            }
            Err(error) => {
                progress.clear();
                print_line(format_args!(
                    "{target:?}: {back} messages put back before this failed"
                ));
                return Err(error);
            }
        }
        progress.show(|| format!("{back} of {total} messages put back"));
    }
    progress.clear();
    print_line(format_args!(
        "{target}: {back} messages put back as of {taken}, {there} were there, {failed} cannot be read"
    ));
    Ok(failed == 0)
}

/// The messages that a mailbox has now.
async fn identities(
    client: &BackupClient,
    account: AccountId,
    name: &str,
) -> Result<HashSet<[u8; 16]>, BackupError> {
    let request = Snapshot {
        account,
        known: None,
    };
    let mut items = client.snapshot(&request).await?;
    let mut wanted = None;
    let mut found = HashSet::new();
    while let Some(item) = items.next().await? {
        match Item(item).content() {
            Some(ItemContent::Mailbox(mailbox)) if is_same_mailbox(&mailbox.name, name) => {
                wanted = Some(mailbox.mailbox);
            }
            Some(ItemContent::Message(message)) if Some(message.named.mailbox) == wanted => {
                found.insert(message.identity);
            }
            _ => {}
        }
    }
    Ok(found)
}

/// One message, octet by octet as a client read it.
async fn put_back(
    folder: &Folder,
    client: &BackupClient,
    account: AccountId,
    mailbox: &str,
    message: &MessageTold,
    keywords: &[String],
) -> Result<(), BackupError> {
    let path = folder.blob(&message.named.hash);
    check_blob(folder, &message.named.hash)?;
    // It was just compared: what is sent now is compared again at the other side.
    let mut hasher = blake3::Hasher::new();
    hasher.update(&message.prologue);
    let mut file = File::open(&path).map_err(BackupError::io("open", &path))?;
    io::copy(&mut file, &mut hasher).map_err(BackupError::io("read", &path))?;
    let request = Append {
        account,
        mailbox: mailbox.to_owned(),
        // Brought back to be kept: the next EXPUNGE is not to take it again.
        flags: message.flags.0 & !Flags::DELETED.0,
        keywords: message
            .keywords
            .iter()
            .filter_map(|number| keywords.get(usize::from(*number)).cloned())
            .collect(),
        internal_date_ms: message.internal_date_ms,
        identity: EmailId(message.identity),
        hash: BlobHash(*hasher.finalize().as_bytes()),
    };
    let file = File::open(&path).map_err(BackupError::io("open", &path))?;
    client
        .append(&request, pieces(message.prologue.clone(), file))
        .await?;
    Ok(())
}

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

/// The account that the backup knows by a name or number, and what it has of it.
fn known(
    folder: &Folder,
    name: &str,
    account: AccountId,
    at: Option<Moment>,
) -> Result<(AccountId, Moment, PathBuf), BackupError> {
    if let Ok(number) = name.parse() {
        let (taken, path) = snapshot(folder, number, &name, at)?;
        return Ok((number, taken, path));
    }
    let mut found = Vec::new();
    for number in folder.accounts()? {
        if let Some((taken, path)) = folder.snapshot_at(number, at)?
            // One that is damaged is none of this name, unless it is asked for by its number.
            && Reader::open(&path).is_ok_and(|one| one.head.login_name.as_str() == name)
        {
            found.push((number, taken, path));
        }
    }
    // A name that was given again.
    if let Some(same) = found.iter().position(|(number, ..)| *number == account) {
        return Ok(found.swap_remove(same));
    }
    match found.len() {
        0 => Err(BackupError::NoAccount(name.to_owned())),
        1 => Ok(found.remove(0)),
        _ => {
            let numbers: Vec<String> = found.iter().map(|(one, ..)| one.to_string()).collect();
            Err(BackupError::Ambiguous {
                name: name.to_owned(),
                numbers: numbers.join(", "),
            })
        }
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

fn snapshot(
    folder: &Folder,
    account: AccountId,
    name: &impl ToString,
    at: Option<Moment>,
) -> Result<(Moment, PathBuf), BackupError> {
    let when = at.map_or(String::new(), |at| format!(" as early as {at}"));
    folder
        .snapshot_at(account, at)?
        .ok_or_else(|| BackupError::NoSnapshot(name.to_string(), when))
}

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
    // Refused by one that takes mail, before anything is said of adopting it.
    client.missing(&Missing::default()).await?;
    let mut progress = Progress::new();
    let (mut restored, mut there, mut failed, mut left_out) = (0u64, 0u64, 0u64, 0u64);
    let nothing = empty_accounts(folder, at)?;
    let mut empty = 0u64;
    let mut without: Vec<AccountId> = Vec::new();
    let mut volumes = BTreeMap::new();
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
            volumes.insert(home.home.volume.to_string(), is_wanted);
            if !is_wanted {
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
                // Nothing else would go better.
                Err(error) if matches!(error.code(), Some("operator_not_named" | "takes_mail")) => {
                    progress.clear();
                    return Err(error);
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
    let whole = failed == 0 && none == 0 && left_out == 0;
    if failed > 0 {
        print_line("what failed is tried again by the same command, until the volume is adopted");
    }
    for (volume, _) in volumes.iter().filter(|(_, is_wanted)| **is_wanted) {
        print_line(format_args!(
            "volume {volume} is read, and takes mail once it is adopted: `posthouse backend set {backend} --adopt-volume {volume}`"
        ));
    }
    Ok(whole)
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
                Outcome::Failed { .. } => false,
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
    let was_there = summary.state == AccountState::Active && summary.set_hash.0 == set_hash;
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
    let asked = Missing {
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
                .put(&Put { hash }, pieces(Bytes::new(), file))
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

const PIECE_OCTETS: usize = 64 << 10;
/// Far below what one request may bring.
const BATCH_OCTETS: usize = 1 << 20;
const TRIES: usize = 3;
/// Accounts that are named in a summary.
const SHOWN_MAX: usize = 20;
