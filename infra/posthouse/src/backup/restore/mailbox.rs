//! The messages of mailboxes, as new ones in an account that is in use.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use daemon::output::print_line;
use directory_api::{AccountId, DirectoryClient, Epoch};
use store_api::backup::{Append, BackupClient, Snapshot};
use store_api::transfer::TransferError;
use store_api::{Backends, BlobHash, EmailId};
use store_backend::volume::{Flags, Item, ItemContent, MailboxId, MessageTold};

use super::super::error::BackupError;
use super::super::folder::Folder;
use super::super::moment::Moment;
use super::super::progress::Progress;
use super::super::snapshot::Reader;
use super::{check_blob, check_name, pieces};
use crate::verbs::is_same_mailbox;

/// What of which account.
pub(crate) struct Wanted {
    pub(crate) account: AccountId,
    /// As the backup knows the account, by name or number; as the directory does when `None`.
    pub(crate) known_as: Option<String>,
    /// All of them when `None`.
    pub(crate) mailbox: Option<String>,
    /// The same one when `None`.
    pub(crate) into: Option<String>,
    /// As it was then, or last.
    pub(crate) at: Option<Moment>,
}

/// Puts the messages of mailboxes back that its account does not have there any more; true when none is missing then.
///
/// # Errors
/// [`BackupError`]: the backup has no such mailbox, or a back-end refuses all of it.
pub(crate) async fn restore_mailboxes(
    folder: &Folder,
    directory: &DirectoryClient,
    backends: &Backends,
    wanted: &Wanted,
) -> Result<bool, BackupError> {
    let account = wanted.account;
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
    let mut mailboxes = mailboxes(&path, taken, wanted.mailbox.as_deref())?;
    if let Some(into) = &wanted.into {
        mailboxes
            .values_mut()
            .for_each(|one| one.name.clone_from(into));
    }
    let home = directory.home(account).await?.home;
    let client = BackupClient::new(backends.link(&home.backend).await?);
    let here = identities(&client, account).await?;
    let mut progress = Progress::new();
    let mut all_back = 0;
    // One after the other, so that their UIDs have the order that the old ones had.
    let mut reader = Reader::open(&path)?;
    while let Some(item) = reader.next()? {
        let Some(ItemContent::Message(message)) = item.content() else {
            continue;
        };
        let Some(mailbox) = mailboxes.get_mut(&message.named.mailbox) else {
            continue;
        };
        let has = here.get(&canonical(&mailbox.name));
        if has.is_some_and(|has| has.contains(&message.identity)) {
            mailbox.there += 1;
            continue;
        }
        let to = (account, home.epoch);
        match put_back(folder, &client, to, mailbox, &message).await {
            Ok(()) => (mailbox.back, all_back) = (mailbox.back + 1, all_back + 1),
            Err(error @ BackupError::Damaged { .. }) => {
                mailbox.failed += 1;
                progress.say(&error.to_string());
            }
            Err(error) => {
                progress.clear();
                print_line(format_args!(
                    "{:?}: {} messages put back before this failed",
                    mailbox.name, mailbox.back
                ));
                return Err(error);
            }
        }
        progress.show(|| format!("{}: {all_back} messages put back", mailbox.name));
    }
    progress.clear();
    for one in mailboxes.values() {
        print_line(format_args!(
            "{}: {} messages put back as of {taken}, {} were there, {} cannot be read",
            one.name, one.back, one.there, one.failed
        ));
    }
    Ok(mailboxes.values().all(|one| one.failed == 0))
}

/// A mailbox of the backup, and what became of its messages.
struct Mailbox {
    /// That they go into.
    name: String,
    keywords: Vec<String>,
    back: u64,
    there: u64,
    failed: u64,
}

/// The mailboxes of a snapshot, or the one of a name. The snapshot is read to its end, before anything of it is believed.
fn mailboxes(
    path: &Path,
    taken: Moment,
    name: Option<&str>,
) -> Result<BTreeMap<MailboxId, Mailbox>, BackupError> {
    let mut found = BTreeMap::new();
    Reader::open(path)?.each(|item| {
        match item.content() {
            Some(ItemContent::Mailbox(mailbox)) => {
                let one = Mailbox {
                    name: mailbox.name,
                    keywords: mailbox.keywords,
                    back: 0,
                    there: 0,
                    failed: 0,
                };
                found.insert(mailbox.mailbox, one);
            }
            Some(_) => {}
            None => return Err(BackupError::damaged(path, "an item is of a newer build")),
        }
        Ok(())
    })?;
    let Some(name) = name else {
        return Ok(found);
    };
    let is_it = |one: &Mailbox| is_same_mailbox(&one.name, name);
    if !found.values().any(is_it) {
        let names: BTreeSet<String> = found.into_values().map(|one| one.name).collect();
        return Err(BackupError::NoMailbox {
            at: taken.to_string(),
            name: name.to_owned(),
            has: names.into_iter().collect::<Vec<_>>().join(", "),
        });
    }
    found.retain(|_, one| is_it(one));
    Ok(found)
}

/// The messages that the account has now, by the names of their mailboxes.
async fn identities(
    client: &BackupClient,
    account: AccountId,
) -> Result<HashMap<String, HashSet<[u8; 16]>>, BackupError> {
    let request = Snapshot {
        account,
        known: None,
    };
    let (mut names, mut found) = (HashMap::new(), HashMap::new());
    let mut items = match client.snapshot(&request).await {
        // Its home has lost it, or it was never used.
        Err(TransferError::Refused(problem)) if problem.code == "not_found" => return Ok(found),
        items => items?,
    };
    while let Some(item) = items.next().await? {
        match Item(item).content() {
            Some(ItemContent::Mailbox(mailbox)) => {
                names.insert(mailbox.mailbox, canonical(&mailbox.name));
            }
            Some(ItemContent::Message(message)) => {
                if let Some(name) = names.get(&message.named.mailbox) {
                    let of_it: &mut HashSet<_> = found.entry(name.clone()).or_default();
                    of_it.insert(message.identity);
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// INBOX is one name in any case.
fn canonical(name: &str) -> String {
    match is_same_mailbox(name, "INBOX") {
        true => "INBOX".to_owned(),
        false => name.to_owned(),
    }
}

/// One message, octet by octet as a client read it.
async fn put_back(
    folder: &Folder,
    client: &BackupClient,
    (account, epoch): (AccountId, Epoch),
    mailbox: &Mailbox,
    message: &MessageTold,
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
        epoch,
        mailbox: mailbox.name.clone(),
        // Brought back to be kept: the next EXPUNGE is not to take it again.
        flags: message.flags.0 & !Flags::DELETED.0,
        keywords: message
            .keywords
            .iter()
            .filter_map(|number| mailbox.keywords.get(usize::from(*number)).cloned())
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
