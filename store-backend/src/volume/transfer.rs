//! Moving an account: its items out, its items in, and a sum that shows they are the same.

use std::ops::Bound;

use bytes::Bytes;
use directory_api::{AccountId, BackendName, Epoch};

use super::Volume;
use super::apply::prologue;
use super::blob::FinishedBlob;
use super::error::{IndexError, ReadError};
use super::held::Held;
use super::index::{Index, RoTxn, Table};
use super::intake::Command;
use super::item::{Content, MessageItem, SetHash};
use super::read::blocking;
use super::rows::{
    MessageRow, TransactionRow, annotation_of, decode_annotation, decode_ranges, expunged_of,
    message_of,
};
use super::types::{Hash, Item, MoveId, Refusal};

impl Volume {
    /// Stops writes and sessions of the account at the source. Durable and in the index when it returns; repeatable.
    ///
    /// # Errors
    /// [`Refusal`]: wrong epoch, in another move, or elsewhere already.
    pub async fn freeze(
        &self,
        account: AccountId,
        epoch: Epoch,
        move_id: MoveId,
    ) -> Result<(), Refusal> {
        self.inner
            .submit(Command::Freeze {
                account,
                epoch,
                move_id,
            })
            .await
            .done()
    }

    /// Ends a freeze without a move, for good: this move does not freeze it again. Repeatable. Only the migrator may ask this: the
    /// source never does on its own.
    ///
    /// # Errors
    /// [`Refusal`]: in another move, or moved already.
    pub async fn thaw(&self, account: AccountId, move_id: MoveId) -> Result<(), Refusal> {
        self.inner
            .submit(Command::Thaw { account, move_id })
            .await
            .done()
    }

    /// Whether a move is over here, however it ended: what still comes of it is late.
    ///
    /// # Errors
    /// The index cannot be read.
    pub async fn has_ended(&self, account: AccountId, move_id: MoveId) -> Result<bool, ReadError> {
        self.settled(account).await?;
        blocking(self.inner.shared(), move |shared| {
            let row = shared
                .index
                .read(|txn| shared.index.account(txn, account))?;
            Ok::<_, ReadError>(row.is_some_and(|row| row.has_ended(&move_id)))
        })
        .await
    }

    /// After the switch, at the source: answers `Moved` from now on and keeps the data, read-only. Repeatable.
    ///
    /// # Errors
    /// [`Refusal`]: the account is not frozen by this move, or the epoch does not grow.
    pub async fn release(
        &self,
        account: AccountId,
        move_id: MoveId,
        backend: BackendName,
        epoch: Epoch,
    ) -> Result<(), Refusal> {
        self.inner
            .submit(Command::Release {
                account,
                move_id,
                backend,
                epoch,
            })
            .await
            .done()
    }

    /// Begins an import at the target. What an earlier stay has left here is removed. Repeatable within the move.
    /// `source`: where it comes from, or a backup without one; that begins anew what an earlier import has left unfinished.
    ///
    /// # Errors
    /// [`Refusal::WrongState`]: the account is active here with messages; [`Refusal::OtherMove`]; [`Refusal::Adopted`]: nothing
    /// comes from a backup here.
    pub async fn begin_import(
        &self,
        account: AccountId,
        move_id: MoveId,
        source: Option<BackendName>,
    ) -> Result<(), Refusal> {
        self.inner
            .submit(Command::BeginImport {
                account,
                move_id,
                source,
            })
            .await
            .done()
    }

    /// Takes items over bit for bit; a mailbox's item comes before those of its messages. Messages that are here
    /// already get the flags and the MODSEQ that their items have, so that an import can be resumed, and follow its source.
    /// Give some hundred at a time.
    ///
    /// # Errors
    /// [`Refusal::MissingBlobs`]: nothing was taken, put these first; [`Refusal::BadItem`]; [`Refusal::WrongState`].
    pub async fn import_items(
        &self,
        account: AccountId,
        move_id: MoveId,
        items: Vec<Item>,
    ) -> Result<(), Refusal> {
        self.inner
            .submit(Command::ImportItems {
                account,
                move_id,
                items,
            })
            .await
            .done()
    }

    /// Takes back what items name that were taken over, because the source has it no more. What is not here is passed over.
    /// A mailbox goes with all it has. Give some hundred at a time.
    ///
    /// # Errors
    /// [`Refusal::BadItem`]; [`Refusal::WrongState`].
    pub async fn import_gone(
        &self,
        account: AccountId,
        move_id: MoveId,
        items: Vec<Item>,
    ) -> Result<(), Refusal> {
        self.inner
            .submit(Command::ImportGone {
                account,
                move_id,
                items,
            })
            .await
            .done()
    }

    /// Keeps a body that items or messages to come will link. The caller compared its hash (P9).
    ///
    /// # Errors
    /// [`Refusal::ReadOnly`].
    pub async fn put_blob(&self, blob: FinishedBlob) -> Result<Held, Refusal> {
        // Before it is decided on, or what is there of these octets could go in between.
        let held = self.inner.shared().held.hold(blob.hash());
        self.inner.submit(Command::PutBlob { blob }).await.done()?;
        Ok(held)
    }

    /// Which of these bodies are here.
    ///
    /// # Errors
    /// The index cannot be read.
    pub async fn has_blobs(&self, hashes: Vec<Hash>) -> Result<Vec<bool>, ReadError> {
        blocking(self.inner.shared(), move |shared| {
            shared.index.read(|txn| {
                let has = |hash: &Hash| {
                    let found = shared.index.blob_of(txn, hash)?;
                    Ok(found.is_some_and(|(number, _)| !shared.broken.has(number)))
                };
                hashes.iter().map(has).collect()
            })
        })
        .await
    }

    /// Makes an imported account active with the epoch that the directory gave it. Repeatable.
    ///
    /// # Errors
    /// [`Refusal`]: not in this import, or the epoch does not grow.
    pub async fn activate(
        &self,
        account: AccountId,
        epoch: Epoch,
        move_id: MoveId,
    ) -> Result<(), Refusal> {
        self.inner
            .submit(Command::Activate {
                account,
                epoch,
                move_id,
            })
            .await
            .done()
    }

    /// Gives an import up and removes what came of it. Repeatable. The account's place stays known as elsewhere: with `source`
    /// also if nothing has come yet, so that nothing of this move can come later.
    ///
    /// # Errors
    /// [`Refusal`]: the account is not in this import.
    pub async fn discard_import(
        &self,
        account: AccountId,
        move_id: MoveId,
        source: Option<BackendName>,
    ) -> Result<(), Refusal> {
        self.inner
            .submit(Command::DiscardImport {
                account,
                move_id,
                source,
            })
            .await
            .done()
    }

    /// All items of an account: itself, its mailboxes and subscriptions, then annotations, what was expunged, messages and
    /// transactions. None if it is not here.
    #[cfg(test)]
    pub(super) async fn items(&self, account: AccountId) -> Result<Vec<Item>, ReadError> {
        self.settled(account).await?;
        blocking(self.inner.shared(), move |shared| {
            let (mut all, mut cursor) = (Vec::new(), Cursor::new(account));
            loop {
                let (items, more) = shared.index.read(|txn| cursor.page(&shared.index, txn))?;
                all.extend(items);
                if !more {
                    return Ok::<_, ReadError>(all);
                }
            }
        })
        .await
    }

    /// The sum over all items of the account: equal on two back-ends exactly when identity and content are.
    ///
    /// # Errors
    /// The index cannot be read.
    pub async fn set_hash(&self, account: AccountId) -> Result<Hash, ReadError> {
        self.settled(account).await?;
        blocking(self.inner.shared(), move |shared| {
            let mut sum = SetHash::default();
            let mut cursor = Some(Cursor::new(account));
            while let Some(mut here) = cursor.take() {
                // A snapshot a page: a long one would pin pages. The account is frozen when it matters.
                let (items, more) = shared.index.read(|txn| here.page(&shared.index, txn))?;
                items.iter().for_each(|item| sum.add(item));
                cursor = more.then_some(here);
            }
            Ok::<_, ReadError>(sum.bytes())
        })
        .await
    }
}

/// Where an export stands.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    account: AccountId,
    stage: Stage,
}

#[derive(Clone, Debug)]
enum Stage {
    Mailboxes,
    /// After this key.
    Annotations(Vec<u8>),
    Expunged(Vec<u8>),
    Messages(Vec<u8>),
    Transactions(Vec<u8>),
}

impl Cursor {
    pub(super) fn new(account: AccountId) -> Self {
        Self {
            account,
            stage: Stage::Mailboxes,
        }
    }

    /// One page, and whether there is another.
    pub(super) fn page(
        &mut self,
        index: &Index,
        txn: &RoTxn<'_>,
    ) -> Result<(Vec<Item>, bool), IndexError> {
        let first = self.account.0.to_be_bytes().to_vec();
        let mut items = Vec::new();
        match &self.stage {
            Stage::Mailboxes => {
                let Some(row) = index.account(txn, self.account)? else {
                    return Ok((items, false));
                };
                items.push(Content::account(self.account, &row).encode());
                for (mailbox, row) in index.mailboxes_of(txn, self.account)? {
                    items.push(Content::mailbox(mailbox, row).encode());
                }
                for name in index.subscriptions_of(txn, self.account)? {
                    items.push(Content::Subscription { name }.encode());
                }
                self.stage = Stage::Annotations(first);
            }
            Stage::Annotations(after) => {
                let last = page_of(index.annotations, txn, self.account, after, |key, value| {
                    let (mailbox, entry) = annotation_of(key)
                        .ok_or(IndexError::Contradiction("a key of annotations"))?;
                    items.push(
                        Content::Annotation {
                            mailbox,
                            entry: entry.to_owned(),
                            value: Bytes::copy_from_slice(decode_annotation(value)?),
                        }
                        .encode(),
                    );
                    Ok(())
                })?;
                self.stage = match last {
                    Some(key) => Stage::Annotations(key),
                    None => Stage::Expunged(first),
                };
            }
            Stage::Expunged(after) => {
                let last = page_of(index.expunged, txn, self.account, after, |key, value| {
                    let (mailbox, modseq) =
                        expunged_of(key).ok_or(IndexError::Contradiction("a key of expunged"))?;
                    let ranges = decode_ranges(value)?;
                    items.push(
                        Content::Expunged {
                            mailbox,
                            modseq,
                            ranges,
                        }
                        .encode(),
                    );
                    Ok(())
                })?;
                self.stage = match last {
                    Some(key) => Stage::Expunged(key),
                    None => Stage::Messages(first),
                };
            }
            Stage::Messages(after) => {
                let account = self.account;
                let last = page_of(index.messages, txn, account, after, |key, value| {
                    let (mailbox, uid) =
                        message_of(key).ok_or(IndexError::Contradiction("a message's key"))?;
                    let (row, keywords) = MessageRow::decode(value)?;
                    let blob = index
                        .blob(txn, row.blob.get())?
                        .ok_or(IndexError::Contradiction("a blob"))?;
                    let prologue = prologue(index, txn, account, mailbox, uid, &row)?;
                    let message = MessageItem::new(mailbox, uid, (&row, keywords), &blob, prologue);
                    items.push(Content::Message(message).encode());
                    Ok(())
                })?;
                self.stage = match last {
                    Some(key) => Stage::Messages(key),
                    None => Stage::Transactions(first),
                };
            }
            Stage::Transactions(after) => {
                let last = page_of(
                    index.transactions,
                    txn,
                    self.account,
                    after,
                    |key, value| {
                        let bad = IndexError::Contradiction("a transaction's key");
                        let id = key.get(8..).and_then(|id| id.try_into().ok()).ok_or(bad)?;
                        let row = TransactionRow::decode(value)?;
                        if row.moves_along() {
                            items.push(Content::transaction(id, &row).encode());
                        }
                        Ok(())
                    },
                )?;
                match last {
                    Some(key) => self.stage = Stage::Transactions(key),
                    None => return Ok((items, false)),
                }
            }
        }
        Ok((items, true))
    }
}

/// Calls `each` for a page of an account's rows after a key; the last key, unless these were the last rows.
fn page_of(
    table: Table,
    txn: &RoTxn<'_>,
    account: AccountId,
    after: &[u8],
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), IndexError>,
) -> Result<Option<Vec<u8>>, IndexError> {
    let prefix = account.0.to_be_bytes();
    let mut count = 0;
    for row in table.range(txn, &(Bound::Excluded(after), Bound::Unbounded))? {
        let (key, value) = row?;
        if !key.starts_with(&prefix) {
            return Ok(None);
        }
        each(key, value)?;
        count += 1;
        if count == PAGE_ROWS {
            return Ok(Some(key.to_vec()));
        }
    }
    Ok(None)
}

/// Items have some hundred octets, the largest 64 KiB: a page is seldom over a megabyte.
const PAGE_ROWS: usize = 256;
