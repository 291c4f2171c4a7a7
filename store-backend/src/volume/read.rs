//! Reading: mailboxes and messages from the index, bodies from file or journal.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use directory_api::AccountId;
use durable::{DiskFile, JournalError, OpenMode};
use lmdb::heed::RoTxn;

use super::Volume;
use super::apply::prologue;
use super::error::{IndexError, ReadError};
use super::record::Body;
use super::recovery::Shared;
use super::rows::{BlobRow, mailbox_key};
use super::sequencer::same_name;
use super::types::{AccountInfo, Hash, MailboxId, MailboxInfo, MessageInfo};

impl Volume {
    /// The account, if it has a row here.
    ///
    /// # Errors
    /// The index cannot be read.
    pub async fn account(&self, account: AccountId) -> Result<Option<AccountInfo>, ReadError> {
        self.query(move |shared, txn| {
            let row = shared.index.account(txn, account)?;
            Ok(row.map(|row| row.info(account)).transpose()?)
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
        let name = name.to_owned();
        self.query(move |shared, txn| {
            if name.eq_ignore_ascii_case("INBOX") {
                let row = shared.index.mailbox(txn, account, MailboxId::INBOX)?;
                return Ok(row.map(|row| row.info(MailboxId::INBOX)));
            }
            let all = shared.index.mailboxes_of(txn, account)?;
            let found = all.into_iter().find(|(_, row)| same_name(&row.name, &name));
            Ok(found.map(|(id, row)| row.info(id)))
        })
        .await
    }

    /// All mailboxes of the account, by number.
    ///
    /// # Errors
    /// The index cannot be read.
    pub async fn mailboxes(&self, account: AccountId) -> Result<Vec<MailboxInfo>, ReadError> {
        self.query(move |shared, txn| {
            let all = shared.index.mailboxes_of(txn, account)?;
            Ok(all.into_iter().map(|(id, row)| row.info(id)).collect())
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
        self.query(move |shared, txn| {
            let mut found = Vec::new();
            shared.index.each_message::<ReadError>(
                txn,
                &mailbox_key(account, mailbox),
                |_, uid, row| {
                    found.push(row.info(uid));
                    Ok(())
                },
            )?;
            Ok(found)
        })
        .await
    }

    /// One message to read; `None` when it does not exist (any more).
    ///
    /// # Errors
    /// The index or the body cannot be read.
    pub async fn read_message(
        &self,
        account: AccountId,
        mailbox: MailboxId,
        uid: u32,
    ) -> Result<Option<MessageBytes>, ReadError> {
        blocking(self.inner.shared(), move |shared| {
            let find = || {
                shared.index.read(|txn| -> Result<_, IndexError> {
                    let Some(row) = shared.index.message(txn, account, mailbox, uid)? else {
                        return Ok(None);
                    };
                    let blob = shared
                        .index
                        .blob(txn, row.blob.get())?
                        .ok_or(IndexError::Contradiction("a blob"))?;
                    Ok(Some((
                        row.info(uid),
                        prologue(&shared.index, txn, account, mailbox, uid)?,
                        row.blob.get(),
                        blob,
                    )))
                })
            };
            let mut failure = None;
            // Between the look into the index and the opening it may be expunged, and its blob removed.
            for _ in 0..2 {
                let Some((info, prologue, number, row)) = find()? else {
                    return Ok(None);
                };
                match BlobReader::open(shared, number, &row) {
                    Ok(blob) => {
                        return Ok(Some(MessageBytes {
                            info,
                            prologue,
                            blob,
                        }));
                    }
                    Err(error) => failure = Some(error),
                }
            }
            Err(failure.unwrap_or(ReadError::Stopped))
        })
        .await
    }

    async fn query<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Shared, &RoTxn<'_>) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        blocking(self.inner.shared(), move |shared| {
            shared.index.read(|txn| read(shared, txn))
        })
        .await
    }
}

/// Runs on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    shared: &Arc<Shared>,
    work: impl FnOnce(&Arc<Shared>) -> Result<T, ReadError> + Send + 'static,
) -> Result<T, ReadError> {
    let shared = Arc::clone(shared);
    tokio::task::spawn_blocking(move || work(&shared))
        .await
        .unwrap_or(Err(ReadError::Stopped))
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
    File(Arc<dyn DiskFile>, std::path::PathBuf),
}

impl BlobReader {
    /// Blocking.
    pub(super) fn open(shared: &Shared, number: u64, row: &BlobRow) -> Result<Self, ReadError> {
        let source = open_source(shared, number, row)?;
        Ok(Self {
            source,
            hash: row.hash,
            size: row.octets.get(),
            offset: 0,
            hasher: blake3::Hasher::new(),
        })
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
            Source::Memory(bytes) => {
                let begin = usize::try_from(self.offset)
                    .expect("it is below the length of bytes in memory");
                bytes.slice(begin..begin + count)
            }
            Source::File(file, path) => {
                let (file, path, offset) = (Arc::clone(file), path.clone(), self.offset);
                let read = tokio::task::spawn_blocking(move || {
                    let mut buffer = vec![0; count];
                    file.read_exact_at(&mut buffer, offset).map(|()| buffer)
                });
                match read.await.map_err(|_| ReadError::Stopped)? {
                    Ok(buffer) => buffer.into(),
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        return Err(self.corrupt());
                    }
                    Err(source) => return Err(ReadError::Io { path, source }),
                }
            }
        };
        self.hasher.update(&piece);
        self.offset += count as u64;
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
        tracing::error!(
            blob = hash,
            "a blob's octets do not have its hash; restore the file from a copy"
        );
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
            }
        }
    }
    match file(&path) {
        Ok(found) => opened(found, path),
        Err(source) => Err(ReadError::Io { path, source }),
    }
}

const CHUNK_BYTES: usize = 64 << 10;
