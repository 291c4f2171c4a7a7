//! The messages of one mailbox, as new ones in an account that is in use.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::PathBuf;

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
        let put = put_back(
            folder,
            &client,
            (account, home.epoch),
            target,
            &message,
            &keywords,
        );
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
    let (mut wanted, mut found) = (None, HashSet::new());
    let mut items = match client.snapshot(&request).await {
        // Its home has lost it, or it was never used.
        Err(TransferError::Refused(problem)) if problem.code == "not_found" => return Ok(found),
        items => items?,
    };
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
    (account, epoch): (AccountId, Epoch),
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
        epoch,
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
