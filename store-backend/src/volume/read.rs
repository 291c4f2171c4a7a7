//! Reading: mailboxes and messages from the index, bodies from file or journal.

mod batch;
mod scan;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use directory_api::AccountId;
use durable::{DiskFile, JournalError, OpenMode};
use zerocopy::little_endian::U16;

pub use batch::{Batch, Content, MailboxReader, Want};
pub(super) use scan::Prologues;
pub(crate) use scan::Sight;

use super::Volume;
use super::acl::{Shared as SharedMailbox, shared_by};
use super::apply::prologue;
use super::broken::Suspects;
use super::error::{IndexError, ReadError};
use super::index::{Index, RoTxn};
use super::load::Charge;
use super::record::Body;
use super::recovery::Shared;
use super::rows::{
    BlobRow, MailboxRow, MessageRow, decode_ranges, expunged_key, mailbox_key, message_key,
    message_of,
};
use super::sequencer::canonical;
use super::turns::Turns;
use super::types::{
    AccountInfo, Changes, Flags, Hash, MailboxId, MailboxInfo, MessageInfo, OpenedMailbox,
    Snapshot, Summary, TransactionId,
};

impl Volume {
    /// The account, if it has a row here.
    ///
    /// # Errors
    /// The index cannot be read.
    pub async fn account(&self, account: AccountId) -> Result<Option<AccountInfo>, ReadError> {
        self.query(account, move |shared, txn| {
            let row = shared.index.account(txn, account)?;
            Ok(row.map(|row| row.info(account)).transpose()?)
        })
        .await
    }

    /// Whether the sender of a message, known by this key, may not have read the answer.
    ///
    /// # Errors
    /// The index cannot be read.
    pub async fn may_be_repeated(
        &self,
        account: AccountId,
        uid: u32,
        key: TransactionId,
    ) -> Result<bool, ReadError> {
        self.query(account, move |shared, txn| {
            let row = shared.index.transaction(txn, account, &key)?;
            // A later one with the same key came when the answer to this one was read.
            Ok(row.is_some_and(|row| row.uid.get() == uid && row.is_answered.get() == 0))
        })
        .await
    }

    /// The mailbox of that name; `INBOX` in any case.
    ///
    /// # Errors
    /// The index cannot be read.
    pub async fn mailbox(
        &self,
        account: AccountId,
        name: &str,
    ) -> Result<Option<MailboxInfo>, ReadError> {
        // No mailbox has a name that is none.
        let Ok(name) = canonical(name) else {
            return Ok(None);
        };
        self.query(account, move |shared, txn| {
            let found = find_mailbox(&shared.index, txn, account, &name)?;
            Ok(found.map(|(id, row)| row.info(id)))
        })
        .await
    }

    /// What STATUS and POP3 STAT ask, from one record. Counts are exact.
    ///
    /// # Errors
    /// The index cannot be read.
    pub async fn mailbox_status(
        &self,
        account: AccountId,
        mailbox: MailboxId,
    ) -> Result<Option<MailboxInfo>, ReadError> {
        self.query(account, move |shared, txn| {
            let row = shared.index.mailbox(txn, account, mailbox)?;
            Ok(row.map(|row| row.info(mailbox)))
        })
        .await
    }

    /// All mailboxes of the account, by number.
    ///
    /// # Errors
    /// The index cannot be read.
    pub async fn mailboxes(&self, account: AccountId) -> Result<Vec<MailboxInfo>, ReadError> {
        self.query(account, move |shared, txn| {
            let all = shared.index.mailboxes_of(txn, account)?;
            Ok(all.into_iter().map(|(id, row)| row.info(id)).collect())
        })
        .await
    }

    /// All that LIST tells of, in one visit to the index.
    ///
    /// # Errors
    /// The index cannot be read.
    pub async fn listing(&self, account: AccountId) -> Result<Listing, ReadError> {
        self.query(account, move |shared, txn| {
            let index = &shared.index;
            let mailboxes = index.mailboxes_of(txn, account)?.into_iter();
            Ok(Listing {
                mailboxes: mailboxes.map(|(id, row)| row.info(id)).collect(),
                subscriptions: index.subscriptions_of(txn, account)?,
                shared: shared_by(index, txn, account, None)?,
            })
        })
        .await
    }

    /// A mailbox with all its messages, by UID, at one instant: one sequential scan.
    ///
    /// # Errors
    /// The index cannot be read.
    pub async fn snapshot(
        &self,
        account: AccountId,
        mailbox: MailboxId,
    ) -> Result<Option<Snapshot>, ReadError> {
        self.query(account, move |shared, txn| {
            let Some(row) = shared.index.mailbox(txn, account, mailbox)? else {
                return Ok(None);
            };
            let mut taken = Taking::new(usize::try_from(row.message_count).unwrap_or_default());
            shared.index.each_message::<ReadError>(
                txn,
                &mailbox_key(account, mailbox),
                |_, uid, row, keywords| {
                    taken.add(uid, row, keywords);
                    Ok(())
                },
            )?;
            Ok(Some(taken.finish(mailbox, row)))
        })
        .await
    }

    /// What SELECT tells of the mailbox of that name: one sequential scan of the rows, of which nothing but the UIDs is
    /// kept.
    ///
    /// # Errors
    /// The index cannot be read.
    pub async fn opened(
        &self,
        account: AccountId,
        name: &str,
    ) -> Result<Option<OpenedMailbox>, ReadError> {
        let Ok(name) = canonical(name) else {
            return Ok(None);
        };
        self.query(account, move |shared, txn| {
            let Some((mailbox, mut row)) = find_mailbox(&shared.index, txn, account, &name)? else {
                return Ok(None);
            };
            let mut uids: Vec<(u32, u32)> = Vec::new();
            let (mut count, mut first_unseen) = (0, None);
            let prefix = mailbox_key(account, mailbox);
            shared
                .index
                .each_message::<ReadError>(txn, &prefix, |_, uid, row, _| {
                    count += 1;
                    if first_unseen.is_none() && !row.flags().contains(Flags::SEEN) {
                        first_unseen = Some(count);
                    }
                    match uids.last_mut() {
                        Some((_, last)) if *last + 1 == uid => *last = uid,
                        _ => uids.push((uid, uid)),
                    }
                    Ok(())
                })?;
            Ok(Some(OpenedMailbox {
                keywords: std::mem::take(&mut row.keywords),
                mailbox: row.info(mailbox),
                uids,
                first_unseen,
            }))
        })
        .await
    }

    /// What has changed in a mailbox since a MODSEQ: for a session that has seen all up to it, and for QRESYNC.
    /// Costs what has changed while the account is watched and that is not much, and after arrivals and expunges alone;
    /// else the mailbox is scanned.
    ///
    /// # Errors
    /// The index cannot be read.
    pub async fn changes_since(
        &self,
        account: AccountId,
        mailbox: MailboxId,
        modseq: u64,
    ) -> Result<Option<Changes>, ReadError> {
        self.query(account, move |shared, txn| {
            let index = &shared.index;
            let Some(row) = index.mailbox(txn, account, mailbox)? else {
                return Ok(None);
            };
            let mut taken = Taking::new(0);
            let prefix = mailbox_key(account, mailbox);
            let knows_expunged = modseq >= row.expunged_floor;
            let mut vanished = Vec::new();
            // Changes of flags that the client does not know: none, or few enough to be remembered.
            let flagged = match modseq >= row.stored_modseq {
                true => Some(Vec::new()),
                false => shared.watchers.flagged_since(account, mailbox, modseq),
            };
            if let (true, Some(flagged)) = (knows_expunged, flagged) {
                // What has arrived is at the end: look backwards to the first message that is not new.
                let mut first_new = u32::MAX;
                for found in index.messages.rev_prefix_iter(txn, &prefix)? {
                    let (key, bytes) = found?;
                    let (_, uid) =
                        message_of(key).ok_or(IndexError::Contradiction("a message's key"))?;
                    let (row, keywords) = MessageRow::decode(bytes)?;
                    if row.modseq.get() <= modseq {
                        break;
                    }
                    taken.add(uid, &row, keywords);
                    first_new = uid;
                }
                for uid in flagged.into_iter().rev().filter(|uid| *uid < first_new) {
                    if let Some(bytes) = index
                        .messages
                        .get(txn, &message_key(account, mailbox, uid))?
                    {
                        let (row, keywords) = MessageRow::decode(bytes)?;
                        if row.modseq.get() > modseq {
                            taken.add(uid, &row, keywords);
                        }
                    }
                }
                taken.messages.reverse();
            } else {
                let mut next = 1;
                index.each_message::<ReadError>(txn, &prefix, |_, uid, row, keywords| {
                    if !knows_expunged && next < uid {
                        vanished.push((next, uid - 1));
                    }
                    next = uid + 1;
                    if row.modseq.get() > modseq {
                        taken.add(uid, row, keywords);
                    }
                    Ok(())
                })?;
                if !knows_expunged && next < row.uidnext {
                    vanished.push((next, row.uidnext - 1));
                }
            }
            if knows_expunged {
                vanished = expunged_since(index, txn, account, mailbox, modseq)?;
            }
            Ok(Some(Changes {
                now: taken.finish(mailbox, row),
                vanished,
            }))
        })
        .await
    }

    /// All messages of a mailbox, by UID: one sequential scan.
    ///
    /// # Errors
    /// The index cannot be read.
    pub async fn messages(
        &self,
        account: AccountId,
        mailbox: MailboxId,
    ) -> Result<Vec<MessageInfo>, ReadError> {
        self.query(account, move |shared, txn| {
            let mut found = Vec::new();
            shared.index.each_message::<ReadError>(
                txn,
                &mailbox_key(account, mailbox),
                |_, uid, row, _| {
                    found.push(row.info(uid));
                    Ok(())
                },
            )?;
            Ok(found)
        })
        .await
    }

    /// One message to read, at nobody's cost: for a move, a backup or the feeding of held mail. `None` when it does not exist (any more).
    ///
    /// # Errors
    /// The index or the body cannot be read.
    pub async fn read_message(
        &self,
        account: AccountId,
        mailbox: MailboxId,
        uid: u32,
    ) -> Result<Option<MessageBytes>, ReadError> {
        self.settled(account).await?;
        let read = blocking(self.inner.shared(), move |shared| {
            open_messages(shared, &shared.turns, account, mailbox, &[uid])
        });
        let read = read.await?.into_iter().next();
        read.unwrap_or(Err(ReadError::Stopped))
    }

    /// As [`Volume::read_message`] for several, at the account's cost, in one visit to a thread that may block, in their order.
    ///
    /// # Errors
    /// [`ReadError::Stopped`], or the index cannot be read; what befalls one message is told in its place.
    pub async fn read_messages(
        &self,
        account: AccountId,
        mailbox: MailboxId,
        uids: Vec<u32>,
    ) -> Result<Vec<Result<Option<MessageBytes>, ReadError>>, ReadError> {
        self.settled(account).await?;
        paid(self.inner.shared(), account, move |shared, turns| {
            open_messages(shared, turns, account, mailbox, &uids)
        })
        .await
    }

    /// Reads of the account what was answered for it, or later.
    pub(super) async fn query<T: Send + 'static>(
        &self,
        account: AccountId,
        read: impl FnOnce(&Shared, &RoTxn<'_>) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        self.settled(account).await?;
        paid(self.inner.shared(), account, move |shared, _| {
            shared.index.read(|txn| read(shared, txn))
        })
        .await
    }
}

/// The mailbox of a canonical name.
fn find_mailbox(
    index: &Index,
    txn: &RoTxn<'_>,
    account: AccountId,
    name: &str,
) -> Result<Option<(MailboxId, MailboxRow)>, IndexError> {
    if name == "INBOX" {
        let row = index.mailbox(txn, account, MailboxId::INBOX)?;
        return Ok(row.map(|row| (MailboxId::INBOX, row)));
    }
    let all = index.mailboxes_of(txn, account)?;
    Ok(all.into_iter().find(|(_, row)| row.name == name))
}

/// Collects a snapshot. Few distinct sets of keywords occur in a mailbox: each is kept once.
struct Taking {
    sets: HashMap<Vec<u16>, u32>,
    keyword_sets: Vec<Vec<u16>>,
    messages: Vec<Summary>,
}

impl Taking {
    fn new(count: usize) -> Self {
        Self {
            sets: HashMap::new(),
            keyword_sets: vec![Vec::new()],
            messages: Vec::with_capacity(count),
        }
    }

    fn add(&mut self, uid: u32, row: &MessageRow, keywords: &[U16]) {
        let keyword_set = if keywords.is_empty() {
            0
        } else {
            let set: Vec<u16> = keywords.iter().map(|number| number.get()).collect();
            *self.sets.entry(set).or_insert_with_key(|set| {
                self.keyword_sets.push(set.clone());
                u32::try_from(self.keyword_sets.len() - 1).expect("UIDs have 32 bits")
            })
        };
        self.messages.push(summary(uid, row, keyword_set));
    }

    fn finish(self, mailbox: MailboxId, mut row: MailboxRow) -> Snapshot {
        Snapshot {
            keywords: std::mem::take(&mut row.keywords),
            mailbox: row.info(mailbox),
            keyword_sets: self.keyword_sets,
            messages: self.messages,
        }
    }
}

fn summary(uid: u32, row: &MessageRow, keyword_set: u32) -> Summary {
    Summary {
        uid,
        flags: row.flags(),
        modseq: row.modseq.get(),
        size_octets: row.size_octets(),
        internal_date_ms: row.internal_date_ms.get(),
        save_date_ms: row.save_date_ms.get(),
        keyword_set,
    }
}

/// UIDs expunged after a MODSEQ, as ranges, growing.
fn expunged_since(
    index: &Index,
    txn: &RoTxn<'_>,
    account: AccountId,
    mailbox: MailboxId,
    modseq: u64,
) -> Result<Vec<(u32, u32)>, IndexError> {
    let prefix = mailbox_key(account, mailbox);
    let after = expunged_key(account, mailbox, modseq);
    let mut ranges = Vec::new();
    let range = (Bound::Excluded(&after[..]), Bound::Unbounded);
    for row in index.expunged.range(txn, &range)? {
        let (key, value) = row?;
        if !key.starts_with(&prefix) {
            break;
        }
        ranges.extend(decode_ranges(value)?);
    }
    // No UID goes twice: they do not overlap, but may touch.
    ranges.sort_unstable();
    let mut joined: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            Some((_, end)) if *end + 1 == first => *end = last,
            _ => joined.push((first, last)),
        }
    }
    Ok(joined)
}

/// Messages to read, all found in one look into the index. Blocking.
fn open_messages(
    shared: &Shared,
    turns: &Turns,
    account: AccountId,
    mailbox: MailboxId,
    uids: &[u32],
) -> Result<Vec<Result<Option<MessageBytes>, ReadError>>, ReadError> {
    let index = &shared.index;
    let find = |txn: &RoTxn<'_>, uid| -> Result<_, IndexError> {
        let Some((row, _)) = index.message(txn, account, mailbox, uid)? else {
            return Ok(None);
        };
        let number = row.blob.get();
        let blob = index.blob(txn, number)?;
        let blob = blob.ok_or(IndexError::Contradiction("a blob"))?;
        let prologue = prologue(index, txn, account, mailbox, uid, &row)?;
        Ok(Some((row.info(uid), prologue, number, blob)))
    };
    let open = |(info, prologue, number, row)| {
        let blob =
            BlobReader::open(shared, turns, number, &row).and_then(BlobReader::if_small_read)?;
        Ok(Some(MessageBytes {
            info,
            prologue,
            blob,
        }))
    };
    let found = index.read(|txn| -> Result<Vec<_>, IndexError> {
        Ok(uids.iter().map(|uid| find(txn, *uid)).collect())
    })?;
    let opened = uids.iter().zip(found).map(|(uid, found)| {
        let Some(found) = found? else {
            return Ok(None);
        };
        open(found).or_else(|first: ReadError| {
            // It may have been expunged since, and its blob removed. By this second look one that cannot be read may be in
            // quarantine: what is told is the first failure.
            match index.read(|txn| find(txn, *uid))? {
                None => Ok(None),
                Some(found) => open(found).map_err(|_| first),
            }
        })
    });
    Ok(opened.collect())
}

/// Runs on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    shared: &Arc<Shared>,
    work: impl FnOnce(&Arc<Shared>) -> Result<T, ReadError> + Send + 'static,
) -> Result<T, ReadError> {
    let owned = Arc::clone(shared);
    let ran = shared.turns.run(move || work(&owned));
    ran.await.unwrap_or(Err(ReadError::Stopped))
}

/// The same at the cost of the account. The work is told in whose turns it goes on.
fn paid<T: Send + 'static>(
    shared: &Arc<Shared>,
    account: AccountId,
    work: impl FnOnce(&Arc<Shared>, &Turns) -> Result<T, ReadError> + Send + 'static,
) -> impl Future<Output = Result<T, ReadError>> + Send {
    let owned = Arc::clone(shared);
    shared.load.charge(account, Charge::OPERATION);
    let turns = shared.turns_of(account);
    let theirs = turns.clone();
    let ran = turns.run(move || work(&owned, &theirs));
    async move { ran.await.unwrap_or(Err(ReadError::Stopped)) }
}

/// The mailboxes that an account may see, at one instant.
#[derive(Debug)]
pub struct Listing {
    /// Its own, by number.
    pub mailboxes: Vec<MailboxInfo>,
    /// The names it has subscribed; not every one has a mailbox.
    pub subscriptions: BTreeSet<String>,
    /// Those of others, as [`Volume::shared_with`] gives them.
    pub shared: Vec<SharedMailbox>,
}

/// A message: the client reads the prologue, then the blob.
#[derive(Debug)]
pub struct MessageBytes {
    /// Its row.
    pub info: MessageInfo,
    /// The trace lines of this delivery.
    pub prologue: Bytes,
    /// The body as it was accepted.
    pub blob: BlobReader,
}

/// Reads a blob from the front, in pieces of at most 64 KiB. The last piece is only given when all the octets read have
/// the blob's hash (P9).
pub struct BlobReader {
    source: Source,
    number: u64,
    suspects: Arc<Suspects>,
    turns: Turns,
    hash: Hash,
    size: u64,
    offset: u64,
    hasher: blake3::Hasher,
}

impl std::fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobReader")
            .field("size", &self.size)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

enum Source {
    Memory(Bytes),
    /// All of it, with its hash compared.
    Checked(Bytes),
    File(Arc<dyn DiskFile>, std::path::PathBuf),
}

impl BlobReader {
    /// Blocking.
    pub(super) fn open(
        shared: &Shared,
        turns: &Turns,
        number: u64,
        row: &BlobRow,
    ) -> Result<Self, ReadError> {
        if shared.broken.has(number) {
            let hash = data_encoding::HEXLOWER.encode(&row.hash);
            return Err(ReadError::Quarantined { hash });
        }
        let source =
            open_source(shared, number, row).inspect_err(|_| shared.suspects.tell(number))?;
        Ok(Self {
            source,
            number,
            suspects: Arc::clone(&shared.suspects),
            turns: turns.clone(),
            hash: row.hash,
            size: row.octets.get(),
            offset: 0,
            hasher: blake3::Hasher::new(),
        })
    }

    /// Reads a body of one piece at once, on the thread that has just opened it. Blocking.
    fn if_small_read(mut self) -> Result<Self, ReadError> {
        if self.size <= CHUNK_BYTES as u64
            && let Source::File(file, path) = &self.source
        {
            let mut octets = vec![0; usize::try_from(self.size).unwrap_or(CHUNK_BYTES)];
            match file.read_exact_at(&mut octets, 0) {
                // Here already, so that nothing was said of it to anybody yet (P9).
                Ok(()) if *blake3::hash(&octets).as_bytes() == self.hash => {
                    self.turns.charge_read(octets.len());
                    self.source = Source::Checked(octets.into());
                }
                Ok(()) => return Err(self.corrupt()),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(self.corrupt());
                }
                Err(source) => {
                    let path = path.clone();
                    return Err(ReadError::Io { path, source });
                }
            }
        }
        Ok(self)
    }

    /// Octets in all.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// BLAKE3 of the octets.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`]: what was read before must not be taken for the message; [`ReadError::Io`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        let count = usize::try_from(self.size - self.offset)
            .map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        if count == 0 {
            return Ok(None);
        }
        let piece = match &self.source {
            Source::Memory(bytes) | Source::Checked(bytes) => {
                let begin = usize::try_from(self.offset)
                    .expect("it is below the length of bytes in memory");
                bytes.slice(begin..begin + count)
            }
            Source::File(file, path) => {
                let (file, path, offset) = (Arc::clone(file), path.clone(), self.offset);
                let read = self.turns.run(move || {
                    let mut buffer = vec![0; count];
                    file.read_exact_at(&mut buffer, offset).map(|()| buffer)
                });
                match read.await.ok_or(ReadError::Stopped)? {
                    Ok(buffer) => buffer.into(),
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        return Err(self.corrupt());
                    }
                    Err(source) => return Err(ReadError::Io { path, source }),
                }
            }
        };
        self.offset += count as u64;
        if matches!(self.source, Source::Checked(_)) {
            return Ok(Some(piece));
        }
        self.turns.charge_read(count);
        self.hasher.update(&piece);
        if self.offset == self.size && *self.hasher.finalize().as_bytes() != self.hash {
            return Err(self.corrupt());
        }
        Ok(Some(piece))
    }

    /// All of it; for small bodies and tests.
    ///
    /// # Errors
    /// As [`BlobReader::next`].
    pub async fn read_all(mut self) -> Result<Vec<u8>, ReadError> {
        let mut all = Vec::new();
        while let Some(piece) = self.next().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    fn corrupt(&self) -> ReadError {
        let hash = data_encoding::HEXLOWER.encode(&self.hash);
        // The keeper looks at the whole file, puts it aside and says so.
        self.suspects.tell(self.number);
        ReadError::Corrupt { hash }
    }
}

/// The file, or until it is made: the journal record, the incoming file, the blob it is a copy of.
fn open_source(shared: &Shared, number: u64, row: &BlobRow) -> Result<Source, ReadError> {
    let path = shared.layout.blob(number, &row.hash);
    let file = |path: &std::path::Path| shared.disk.open(path, OpenMode::Read);
    let opened = |file: Box<dyn DiskFile>, path| Ok(Source::File(Arc::from(file), path));
    if row.lsn.get() > shared.materialised.load(Ordering::Acquire) {
        match row.source {
            Body::INLINE => {
                let mut bytes =
                    vec![0; usize::try_from(row.octets.get()).expect("an inline body is small")];
                match shared
                    .journal
                    .read_range(row.place(), row.body_offset.get(), &mut bytes)
                {
                    Ok(()) => return Ok(Source::Memory(bytes.into())),
                    Err(JournalError::Released { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Body::SPILLED => {
                let incoming = shared.layout.incoming(&row.token);
                if let Ok(found) = file(&incoming) {
                    return opened(found, incoming);
                }
            }
            _ => {
                let from = Body::copied_from(&row.token);
                if let Some(row) = shared.index.read(|txn| shared.index.blob(txn, from))? {
                    return open_source(shared, from, &row);
                }
                // Dropped since; its file stays until the copy is made.
                let source = shared.layout.blob(from, &row.hash);
                if let Ok(found) = file(&source) {
                    return opened(found, source);
                }
            }
        }
    }
    match file(&path) {
        Ok(found) => opened(found, path),
        Err(source) => Err(ReadError::Io { path, source }),
    }
}

const CHUNK_BYTES: usize = 64 << 10;
