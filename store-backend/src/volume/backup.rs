//! One account at one instant, for a backup.

use std::time::{Duration, Instant};

use directory_api::{AccountId, Epoch};
use tokio::sync::mpsc;

use super::Volume;
use super::error::{IndexError, ReadError};
use super::item::SetHash;
use super::rows::State;
use super::transfer::Cursor;
use super::types::{Hash, Item};

/// The items of an account as they were at one instant. Dropped, nothing more is read.
#[derive(Debug)]
pub struct AccountItems(mpsc::Receiver<Result<Piece, ReadError>>);

/// What comes of an account.
#[derive(Debug)]
pub enum Piece {
    /// Some of its items, in canonical order.
    Items(Vec<Item>),
    /// There are no more.
    End(ItemsEnd),
}

/// What the items were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemsEnd {
    /// The account's epoch.
    pub epoch: Epoch,
    /// Over all items.
    pub set_hash: Hash,
    /// How many there are.
    pub items: u64,
    /// The caller knows them: none were given.
    pub unchanged: bool,
}

impl AccountItems {
    /// The next piece, the last one `End`; `None` without one: the account is not here, or who asks is too slow.
    ///
    /// # Errors
    /// The index cannot be read.
    pub async fn next(&mut self) -> Result<Option<Piece>, ReadError> {
        self.0.recv().await.transpose()
    }
}

impl Volume {
    /// All items of an account that is active or frozen here, in one transaction of the index. `known`: what the caller has
    /// already, by its set-hash. A transaction that stays open keeps pages from being used again: it ends after some minutes.
    pub async fn items_at_once(&self, account: AccountId, known: Option<Hash>) -> AccountItems {
        let settled = self.settled(account).await;
        let shared = std::sync::Arc::clone(self.inner.shared());
        let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = settled {
                // Who does not wait for it need not know.
                let _ = sender.blocking_send(Err(error));
                return;
            }
            let index = &shared.index;
            let began = Instant::now();
            let read = index.read(|txn| {
                let Some(row) = index.account(txn, account)? else {
                    return Ok(());
                };
                if !matches!(row.state, State::Active | State::Frozen) {
                    return Ok(());
                }
                let pages = |each: &mut dyn FnMut(Vec<Item>) -> bool| {
                    let mut cursor = Cursor::new(account);
                    loop {
                        let (items, more) = cursor.page(index, txn)?;
                        if !each(items) {
                            return Ok::<_, IndexError>(false);
                        }
                        if !more {
                            return Ok(true);
                        }
                    }
                };
                let (mut sum, mut count) = (SetHash::default(), 0);
                let mut unchanged = false;
                if let Some(known) = known {
                    pages(&mut |items| {
                        items.iter().for_each(|item| sum.add(item));
                        count += items.len() as u64;
                        true
                    })?;
                    unchanged = sum.bytes() == known;
                }
                if !unchanged {
                    (sum, count) = (SetHash::default(), 0);
                    let all = pages(&mut |items| {
                        items.iter().for_each(|item| sum.add(item));
                        count += items.len() as u64;
                        began.elapsed() < OPEN_MAX
                            && sender.blocking_send(Ok(Piece::Items(items))).is_ok()
                    })?;
                    if !all {
                        return Ok(());
                    }
                }
                let end = ItemsEnd {
                    epoch: row.epoch,
                    set_hash: sum.bytes(),
                    items: count,
                    unchanged,
                };
                // Who asked may be gone.
                let _ = sender.blocking_send(Ok(Piece::End(end)));
                Ok::<_, ReadError>(())
            });
            if let Err(error) = read {
                let _ = sender.blocking_send(Err(error));
            }
        });
        AccountItems(receiver)
    }
}

/// Pages of items that wait for who asked.
const PIECES_AHEAD: usize = 4;
/// A million messages are read in seconds: longer takes only who does not read.
const OPEN_MAX: Duration = Duration::from_secs(120);
