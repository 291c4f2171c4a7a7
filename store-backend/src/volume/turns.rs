//! Threads that wait for this volume's disk, no more than so many at once.
//!
//! All volumes of a back-end share the threads that may block. A disk that gives no answer, not even an error, would keep one for
//! each command of its users, until the users of the other volumes had none (P7). So whoever has no turn waits without a thread.

use std::sync::Arc;

use directory_api::AccountId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, spawn_blocking};

use super::Volume;
use super::load::{Charge, Outstanding, Payer};
use super::recovery::Shared;

/// The turns of one volume; clones share them.
#[derive(Clone)]
pub(crate) struct Turns {
    free: Arc<Semaphore>,
    /// Whose time it is.
    payer: Option<Payer>,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self {
            free: Arc::new(Semaphore::new(TURNS)),
            payer: None,
        }
    }

    /// The same, paid for.
    pub(super) fn paid_by(&self, payer: Payer) -> Self {
        Self {
            free: Arc::clone(&self.free),
            payer: Some(payer),
        }
    }

    /// Counts octets that were read.
    pub(super) fn charge_read(&self, octets: usize) {
        if let Some(payer) = &self.payer {
            payer.charge(Charge::read(octets));
        }
    }

    /// How many could begin at once.
    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.free.available_permits()
    }

    /// Runs what may block, in the order of asking. It begins at once if there is a turn, and otherwise when the answer is
    /// waited for and there is one. `None` if it did not end: the process goes down.
    pub(crate) fn run<T, W>(&self, work: W) -> impl Future<Output = Option<T>> + Send + use<T, W>
    where
        T: Send + 'static,
        W: FnOnce() -> T + Send + 'static,
    {
        let turns = Arc::clone(&self.free);
        let payer = self.payer.clone();
        let outstanding = payer.as_ref().map(|payer| payer.load.begin());
        let work = move || match payer {
            Some(payer) => payer.load.sampled(payer.account, work),
            None => work(),
        };
        let begun = match Arc::clone(&turns).try_acquire_owned() {
            Ok(turn) => Ok(begin((turn, outstanding), work)),
            Err(_) => Err((outstanding, work)),
        };
        async move {
            let running = match begun {
                Ok(running) => running,
                Err((outstanding, work)) => {
                    let turn = turns.acquire_owned().await.ok()?;
                    begin((turn, outstanding), work)
                }
            };
            running.await.ok()
        }
    }
}

impl Volume {
    /// The turns of what reads it on a thread of its own.
    pub(crate) fn turns(&self) -> Turns {
        self.inner.shared().turns.clone()
    }

    /// The same, whose time the account pays for.
    pub(crate) fn turns_of(&self, account: AccountId) -> Turns {
        self.inner.shared().turns_of(account)
    }
}

impl Shared {
    pub(super) fn turns_of(&self, account: AccountId) -> Turns {
        self.turns.paid_by(Payer {
            load: Arc::clone(&self.load),
            account,
        })
    }
}

fn begin<T: Send + 'static>(
    turn: (OwnedSemaphorePermit, Option<Outstanding>),
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    spawn_blocking(move || {
        let result = work();
        drop(turn);
        result
    })
}

/// More than a disk answers at once, and of the 512 threads that tokio has a share that leaves the others theirs with six
/// disks that hang.
const TURNS: usize = 64;
