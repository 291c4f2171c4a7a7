//! An index made of the files alone, where nothing else is left of it. What the files cannot tell is not guessed: every
//! mailbox gets a new UIDVALIDITY, so that no program takes a UID for one that it knew (P3). Messages keep their numbers
//! and their octets; flags, trace lines, shares, subscriptions and most names are lost.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use directory_api::{AccountId, Epoch};
use durable::{Journal, JournalOptions, Lsn, OpenMode, Place};
use zerocopy::IntoBytes;

use super::super::Volume;
use super::super::broken;
use super::super::commit::now_ms;
use super::super::error::{IndexError, OpenError};
use super::super::index::{Index, Meta};
use super::super::kept_log;
use super::super::layout::{INDEX_DIR, JOURNAL_DIR, KEPT_DIR};
use super::super::rebuild;
use super::super::record::{Body, Record};
use super::super::rows::{AccountRow, BlobRow, MailboxRow, MessageRow, message_key};
use super::super::types::{Flags, Hash, MailboxId};
use super::{FsckError, Run, tree};

/// What is known of accounts besides their files.
#[derive(Default)]
struct Facts {
    epochs: BTreeMap<AccountId, Epoch>,
    names: BTreeMap<(AccountId, MailboxId), String>,
    uidvalidities: BTreeMap<AccountId, u32>,
}

impl Facts {
    fn note(&mut self, record: &Record) {
        match record {
            Record::Deliver(deliver) => {
                for to in &deliver.recipients {
                    self.epochs.insert(to.account, to.epoch);
                    self.given(to.account, to.inbox_uidvalidity);
                }
            }
            Record::Account(account) => {
                self.epochs.insert(account.account, account.epoch);
                self.given(account.account, account.inbox_uidvalidity);
            }
            Record::Mailbox(made) => {
                for new in &made.created {
                    self.names
                        .insert((made.account, new.mailbox), new.name.clone());
                    self.given(made.account, new.uidvalidity);
                }
            }
            Record::Rename(renamed) => {
                for (mailbox, name) in &renamed.renamed {
                    self.names.insert((renamed.account, *mailbox), name.clone());
                }
            }
            _ => {}
        }
    }

    fn given(&mut self, account: AccountId, uidvalidity: u32) {
        let last = self.uidvalidities.entry(account).or_default();
        *last = (*last).max(uidvalidity);
    }
}

/// UID, blob, octets and date of each message.
type Mailboxes = BTreeMap<MailboxId, Vec<(u32, u64, u64, i64)>>;
/// A blob by its inode.
type Blobs = HashMap<u64, (u64, Hash, u64)>;

/// Makes the index; answers what it holds, in words.
pub(super) fn refind(run: &mut Run<'_>) -> Result<String, FsckError> {
    let layout = run.layout.clone();
    let kept_folder = layout.file(KEPT_DIR);
    let mut facts = Facts::default();
    run.progress("reading what is left of the kept log and the journal");
    for (first, _) in
        kept_log::files(&*run.disk, &kept_folder).map_err(OpenError::io("list", &kept_folder))?
    {
        let before = Lsn(first.0.saturating_sub(1));
        let read =
            kept_log::read::<io::Error>(&*run.disk, &kept_folder, &run.kept_as, before, |record| {
                if let Ok(record) = record.decode() {
                    facts.note(&record);
                }
                Ok(())
            });
        read.map_err(OpenError::io("read", &kept_folder))?;
    }
    let options = JournalOptions {
        segment_size_bytes: u32::try_from(run.config.journal_segment_size_bytes)
            .unwrap_or(u32::MAX),
        ..JournalOptions::default()
    };
    let opened = Journal::open(Arc::clone(&run.disk), &layout.file(JOURNAL_DIR), options);
    let (journal, recovery) = opened.map_err(OpenError::from)?;
    recovery.replay(recovery.first_lsn(), |record| {
        let payload = bytes::Bytes::copy_from_slice(record.payload);
        if let Ok(record) = Record::decode(record.kind, payload) {
            facts.note(&record);
        }
        Ok::<_, OpenError>(())
    })?;
    let (first, last) = (recovery.first_lsn(), Lsn(recovery.next_lsn().0 - 1));
    drop((journal, recovery));
    // What was kept belongs to the index that is lost.
    for (_, path) in
        kept_log::files(&*run.disk, &kept_folder).map_err(OpenError::io("list", &kept_folder))?
    {
        tree::put_away(&*run.disk, &layout, &path).map_err(OpenError::io("put away", &path))?;
    }
    let index_path = layout.file(INDEX_DIR);
    if index_path.join("data.mdb").exists() {
        rebuild::set_aside(&layout)?;
    }
    // An index that says that it has every record, and none of what they brought: opening the volume with it makes the files
    // of all that the journal still has (P1).
    let index = Index::open(&index_path, run.config.index_map_size_bytes)?;
    index.write(|txn| {
        index.set_number(txn, Meta::Applied, last.0)?;
        index.set_number(txn, Meta::Checkpoint, first.0.saturating_sub(1))
    })?;
    index.sync().map_err(IndexError::from)?;
    index.close();
    run.progress("making the files that the journal has");
    let volume = Volume::open(run.config.clone(), Arc::clone(&run.disk))?;
    volume.close();
    drop(volume);
    let index = Index::open(&index_path, run.config.index_map_size_bytes)?;
    let found = Finder {
        run,
        facts,
        index: &index,
        next_blob: 1,
        aside: Blobs::new(),
    }
    .find(last);
    index.sync().map_err(IndexError::from)?;
    index.close();
    found
}

struct Finder<'f, 'r> {
    run: &'f mut Run<'r>,
    facts: Facts,
    index: &'f Index,
    next_blob: u64,
    /// Of what was put aside messages still have names. It is not served under another hash: they are messages of the blob that
    /// they were, or of a whole one with the same octets if there is one.
    aside: Blobs,
}

impl Finder<'_, '_> {
    fn find(mut self, last: Lsn) -> Result<String, FsckError> {
        let layout = self.run.layout.clone();
        let disk = Arc::clone(&self.run.disk);
        let mut blobs = self.blobs()?;
        // Numbers are not given twice, nor those of what is in quarantine.
        let mut links: HashMap<u64, u64> = HashMap::new();
        let mut accounts: BTreeMap<AccountId, Mailboxes> = BTreeMap::new();
        let mut count = 0_u64;
        let mail = layout.file(super::super::layout::MAIL_DIR);
        let mut paths = Vec::new();
        tree::each_file(&*disk, &mail, &mut |path| {
            if let Some(message) = tree::message_of(&layout, path) {
                paths.push((message, path.to_owned()));
            }
            Ok(())
        })?;
        for ((account, mailbox, uid), path) in paths {
            let facts = disk
                .metadata(&path)
                .map_err(OpenError::io("look at", &path))?;
            let (number, _, octets) = match blobs.get(&facts.inode) {
                Some(known) => *known,
                None => match self.aside.get(&facts.inode) {
                    Some(blob) => *blobs.entry(facts.inode).or_insert(*blob),
                    None => self.adopt(&path, facts.inode, &mut blobs)?,
                },
            };
            *links.entry(number).or_default() += 1;
            // Of the file: when it was made, about.
            let date_ms = std::fs::metadata(&path).map_or(0, |facts| facts.mtime() * 1000);
            let messages = accounts
                .entry(account)
                .or_default()
                .entry(mailbox)
                .or_default();
            messages.push((uid, number, octets, date_ms));
            count += 1;
            if count.is_multiple_of(10_000) {
                self.run.progress(&format!("{count} messages found"));
            }
        }
        let by_number: BTreeMap<u64, (Hash, u64)> = blobs
            .values()
            .map(|(number, hash, octets)| (*number, (*hash, *octets)))
            .collect();
        self.put_blobs(&by_number, &links, last)?;
        let (account_count, mailbox_count) = (
            accounts.len(),
            accounts.values().map(BTreeMap::len).sum::<usize>(),
        );
        let now_s = u32::try_from(now_ms() / 1000).unwrap_or(u32::MAX);
        for (account, mailboxes) in accounts {
            self.put_account(account, mailboxes, now_s)?;
        }
        self.index.write(|txn| {
            self.index
                .set_number(txn, Meta::Accounts, account_count as u64)?;
            self.index.set_number(txn, Meta::BlobNext, self.next_blob)?;
            self.index.set_number(txn, Meta::Checkpoint, last.0)
        })?;
        Ok(format!(
            "found {count} messages in {mailbox_count} mailboxes of {account_count} accounts by their files, with new UIDVALIDITYs"
        ))
    }

    fn blobs(&mut self) -> Result<Blobs, FsckError> {
        self.run.progress("looking for blobs");
        let layout = self.run.layout.clone();
        let disk = Arc::clone(&self.run.disk);
        let mut blobs = Blobs::new();
        let mut last = 0;
        let folder = layout.file(super::super::layout::BLOBS_DIR);
        tree::each_file(&*disk, &folder, &mut |path| {
            if let Some((number, hash)) = tree::blob_of(&layout, path) {
                let facts = disk
                    .metadata(path)
                    .map_err(OpenError::io("look at", path))?;
                blobs.insert(facts.inode, (number, hash, facts.len));
                last = last.max(number);
            }
            Ok(())
        })?;
        let whole: HashMap<Hash, (u64, Hash, u64)> =
            blobs.values().map(|blob| (blob.1, *blob)).collect();
        for (number, hash, path) in broken::in_quarantine(&*disk, &layout)? {
            last = last.max(number);
            let facts = disk
                .metadata(&path)
                .map_err(OpenError::io("look at", &path))?;
            let blob = whole.get(&hash).copied();
            let blob = blob.unwrap_or((number, hash, facts.len));
            self.aside.insert(facts.inode, blob);
        }
        self.next_blob = last + 1;
        Ok(blobs)
    }

    /// A message whose file has lost its name in `blobs/`: it gets one again.
    fn adopt(
        &mut self,
        path: &Path,
        inode: u64,
        blobs: &mut Blobs,
    ) -> Result<(u64, Hash, u64), FsckError> {
        let disk = &*self.run.disk;
        let io = |action| OpenError::io(action, path);
        let file = disk.open(path, OpenMode::Read).map_err(io("open"))?;
        let octets = file.len().map_err(io("read"))?;
        let mut hasher = blake3::Hasher::new();
        let (mut buffer, mut offset) = (vec![0; 256 << 10], 0);
        loop {
            let count = file.read_at(&mut buffer, offset).map_err(io("read"))?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            offset += count as u64;
        }
        let hash = *hasher.finalize().as_bytes();
        let number = self.next_blob;
        self.next_blob += 1;
        let blob = self.run.layout.blob(number, &hash);
        let folder = blob.parent().expect("a blob lies in a folder");
        disk.create_dir_all(folder)
            .map_err(OpenError::io("create", folder))?;
        disk.link(path, &blob)
            .map_err(OpenError::io("link", &blob))?;
        blobs.insert(inode, (number, hash, octets));
        Ok((number, hash, octets))
    }

    fn put_blobs(
        &self,
        blobs: &BTreeMap<u64, (Hash, u64)>,
        links: &HashMap<u64, u64>,
        last: Lsn,
    ) -> Result<(), FsckError> {
        let index = self.index;
        // Somebody may yet find whose they were.
        let keep_until_ms = now_ms() + UNLINKED_KEEP_MS;
        let none = Place {
            segment: 0,
            offset: 0,
            len: 0,
        };
        let all: Vec<_> = blobs.iter().collect();
        for some in all.chunks(RUN_ROWS) {
            index.write(|txn| -> Result<(), IndexError> {
                for (number, (hash, octets)) in some {
                    // Its octets are in its file: no record is asked for them.
                    let mut row = BlobRow::new(
                        *hash,
                        *octets,
                        last,
                        Body::INLINE,
                        [0; 16],
                        none,
                        0,
                        keep_until_ms,
                    );
                    let count = links.get(number).copied().unwrap_or(0);
                    row.link_count = count.into();
                    if count > 0 {
                        row.keep_until_ms = 0.into();
                    }
                    index
                        .blobs
                        .put(txn, &number.to_be_bytes(), row.as_bytes())?;
                    index.hashes.put(txn, hash, &number.to_le_bytes())?;
                    if count == 0 {
                        let key = super::super::rows::unlinked_key(keep_until_ms, **number);
                        index.unlinked.put(txn, &key, &[])?;
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn put_account(
        &self,
        account: AccountId,
        mailboxes: Mailboxes,
        now_s: u32,
    ) -> Result<(), FsckError> {
        let index = self.index;
        // 0: the first who comes with a newer one knows it from the directory.
        let mut row = AccountRow::new(self.facts.epochs.get(&account).copied().unwrap_or(Epoch(0)));
        let given = self.facts.uidvalidities.get(&account).copied().unwrap_or(0);
        row.uidvalidity_last = now_s.max(given);
        let mut mailboxes = mailboxes;
        mailboxes.entry(MailboxId::INBOX).or_default();
        index.write(|txn| -> Result<(), IndexError> {
            for (mailbox, mut messages) in mailboxes {
                messages.sort_unstable();
                row.uidvalidity_last += 1;
                row.mailbox_next = row.mailbox_next.max(mailbox.0 + 1);
                let known = self.facts.names.get(&(account, mailbox)).cloned();
                let name = match mailbox {
                    MailboxId::INBOX => "INBOX".to_owned(),
                    _ => known.unwrap_or_else(|| format!("Found {}", mailbox.0)),
                };
                let mut to = MailboxRow::new(account, mailbox, name, row.uidvalidity_last);
                to.highestmodseq = 2;
                for (uid, number, octets, date_ms) in messages {
                    let key = message_key(account, mailbox, uid);
                    let mut hasher = blake3::Hasher::new();
                    hasher.update(&key);
                    hasher.update(&row.uidvalidity_last.to_be_bytes());
                    let mut identity = [0; 16];
                    identity.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
                    let message = MessageRow {
                        version: 1,
                        reserved: [0; 3],
                        flags: Flags::default().0.into(),
                        modseq: 2.into(),
                        blob: number.into(),
                        blob_octets: octets.into(),
                        internal_date_ms: date_ms.into(),
                        identity,
                        prologue_octets: 0.into(),
                        keyword_count: 0.into(),
                        save_date_ms: date_ms.into(),
                        thread: 0.into(),
                        header_octets: 0.into(),
                        bundle: 0.into(),
                        bundle_recipient: 0.into(),
                    };
                    index.messages.put(txn, &key, &message.encode(&[]))?;
                    to.uidnext = to.uidnext.max(uid.saturating_add(1));
                    for (messages, size) in [
                        (&mut row.message_count, &mut row.size_octets),
                        (&mut to.message_count, &mut to.size_octets),
                    ] {
                        *messages += 1;
                        *size += octets;
                    }
                    to.unseen_count += 1;
                }
                index.put_mailbox(txn, account, mailbox, &to)?;
            }
            index.put_account(txn, account, &row)
        })?;
        Ok(())
    }
}

/// Rows of one transaction.
const RUN_ROWS: usize = 20_000;
/// Blobs without a message.
const UNLINKED_KEEP_MS: i64 = 30 * 24 * 3600 * 1000;
