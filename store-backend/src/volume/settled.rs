//! Changes are answered when the journal has them, and are seen in whatever is read of the account next.
//!
//! The answer to STORE, EXPUNGE, APPEND, COPY or a delivery needs nothing of the index: the sequencer knows it all. So it does not
//! wait for the index to be written; instead whoever *reads* the account waits until the index has what was answered
//! for it. A client that sends one command after the other mostly finds that this has happened meanwhile, and the
//! index is written in fewer and larger transactions. Nothing is weaker by it: what is answered is durable (P1), and
//! no reader of the account, in this session or another one, sees a state from before an answered change.

use std::sync::atomic::{AtomicU64, Ordering};

use directory_api::AccountId;
use durable::Lsn;
use tokio::sync::watch;

use super::Volume;
use super::error::ReadError;
use super::recovery::Shared;

/// How far answers and the index are.
pub(super) struct Settled {
    /// The last record answered for, of all accounts that share the place.
    answered: Box<[AtomicU64]>,
    applied: watch::Sender<Progress>,
}

/// How far the index is.
#[derive(Clone, Copy)]
struct Progress {
    /// The last record in it; `u64::MAX` when all are and no more will come.
    applied: u64,
    /// It waits for room on the disk, or has failed.
    is_behind: bool,
}

impl Settled {
    pub(super) fn new(applied: Lsn) -> Self {
        Self {
            answered: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            applied: watch::Sender::new(Progress {
                applied: applied.0,
                is_behind: false,
            }),
        }
    }

    /// Call it before the answer is given.
    pub(super) fn answered(&self, account: AccountId, last: Lsn) {
        self.place(account).fetch_max(last.0, Ordering::Release);
    }

    /// The index has everything up to here.
    pub(super) fn applied(&self, last: Lsn) {
        self.applied.send_replace(Progress {
            applied: last.0,
            is_behind: false,
        });
    }

    /// As [`Settled::applied`] for a part of what the index lacks: who waits for the rest goes on being told so.
    pub(super) fn advanced(&self, last: Lsn) {
        self.applied
            .send_modify(|progress| progress.applied = last.0);
    }

    /// The index waits for room, or gets no more: who waits for it is told so. Who needs nothing of what it lacks is served.
    pub(super) fn behind(&self) {
        self.applied
            .send_modify(|progress| progress.is_behind = true);
    }

    /// The index has everything, and nothing more will come.
    pub(super) fn end(&self) {
        self.applied.send_replace(Progress {
            applied: u64::MAX,
            is_behind: false,
        });
    }

    /// Whether somebody waits for the index.
    pub(super) fn is_awaited(&self) -> bool {
        self.applied.receiver_count() > 0
    }

    fn place(&self, account: AccountId) -> &AtomicU64 {
        // Numbers are given one after the other.
        &self.answered[usize::try_from(account.0 % PLACES).unwrap_or_default()]
    }
}

impl Shared {
    /// Waits until the index has what was answered for the account.
    ///
    /// # Errors
    /// [`ReadError::Behind`].
    pub(super) async fn settled(&self, account: AccountId) -> Result<(), ReadError> {
        let answered = self.settled.place(account).load(Ordering::Acquire);
        self.until(answered).await
    }

    /// Waits until the index has all that the journal has now.
    ///
    /// # Errors
    /// [`ReadError::Behind`].
    pub(super) async fn settled_all(&self) -> Result<(), ReadError> {
        self.until(self.position.load(Ordering::Acquire)).await
    }

    async fn until(&self, wanted: u64) -> Result<(), ReadError> {
        if self.applied() >= Lsn(wanted) {
            return Ok(());
        }
        let mut progress = self.settled.applied.subscribe();
        self.apply_queue.wake();
        let is_enough = |progress: &Progress| progress.applied >= wanted || progress.is_behind;
        match progress.wait_for(is_enough).await {
            Ok(progress) if progress.applied < wanted => Err(ReadError::Behind),
            // It ends with the volume only.
            _ => Ok(()),
        }
    }
}

impl Volume {
    /// Waits until what was answered for the account can be read and its watches have rung; the volume's own reads do so
    /// by themselves.
    ///
    /// # Errors
    /// [`ReadError::Behind`]: it cannot be read until there is room on the disk.
    pub async fn settled(&self, account: AccountId) -> Result<(), ReadError> {
        self.inner.shared().settled(account).await
    }
}

/// Accounts that share a place wait for each other's changes too, a millisecond as a rule, and are told to come again with
/// each other while the index has no room: 32 KiB make that rare.
const PLACES: u64 = 4096;
