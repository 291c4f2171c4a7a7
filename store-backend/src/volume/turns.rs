//! Threads that wait for this volume's disk, no more than so many at once.
//!
//! All volumes of a back-end share the threads that may block. A disk that gives no answer, not even an error, would keep one for
//! each command of its users, until the users of the other volumes had none (P7). So whoever has no turn waits without a thread.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, spawn_blocking};

use super::Volume;

/// The turns of one volume; clones share them.
#[derive(Clone)]
pub(crate) struct Turns(Arc<Semaphore>);

impl Turns {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(TURNS)))
    }

    /// How many could begin at once.
    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.0.available_permits()
    }

    /// Runs what may block, in the order of asking. It begins at once if there is a turn, and otherwise when the answer is
    /// waited for and there is one. `None` if it did not end: the process goes down.
    pub(crate) fn run<T, W>(&self, work: W) -> impl Future<Output = Option<T>> + Send + use<T, W>
    where
        T: Send + 'static,
        W: FnOnce() -> T + Send + 'static,
    {
        let turns = Arc::clone(&self.0);
        let begun = match Arc::clone(&turns).try_acquire_owned() {
            Ok(turn) => Ok(begin(turn, work)),
            Err(_) => Err(work),
        };
        async move {
            let running = match begun {
                Ok(running) => running,
                Err(work) => begin(turns.acquire_owned().await.ok()?, work),
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
}

fn begin<T: Send + 'static>(
    turn: OwnedSemaphorePermit,
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
