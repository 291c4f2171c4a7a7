//! Asks every task of a process to end, and tells when all have.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

/// One request to end, shared by all clones, and the tasks that have to end because of it.
#[derive(Clone, Debug)]
pub struct Shutdown {
    token: CancellationToken,
    tasks: TaskTracker,
    /// A task of a child counts for its ancestors too, so that the process waits for it.
    ancestors: Arc<[TaskTracker]>,
}

impl Shutdown {
    /// Makes one that nobody has begun.
    #[must_use]
    pub fn new() -> Self {
        Self {
            token: CancellationToken::new(),
            tasks: TaskTracker::new(),
            ancestors: Arc::new([]),
        }
    }

    /// Makes one that begins with this one, and may begin alone.
    #[must_use]
    pub fn child(&self) -> Self {
        let ancestors = self.ancestors.iter().chain([&self.tasks]).cloned();
        Self {
            token: self.token.child_token(),
            tasks: TaskTracker::new(),
            ancestors: ancestors.collect(),
        }
    }

    /// Asks everything to end. Doing so twice is harmless.
    pub fn begin(&self) {
        self.token.cancel();
    }

    /// Waits until the end is asked for. Safe in `select!`.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// Tells whether the end has been asked for.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Starts a task that [`drained`](Self::drained) waits for.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        if self.ancestors.is_empty() {
            return self.tasks.spawn(task);
        }
        let counted: Vec<_> = self.ancestors.iter().map(TaskTracker::token).collect();
        // In a box, because a task that awaits what it was given holds it twice.
        let task = Box::pin(task);
        self.tasks.spawn(async move {
            let _counted = counted;
            task.await
        })
    }

    /// Waits until every task has ended; false when some still run after `within`.
    pub async fn drained(&self, within: Duration) -> bool {
        self.tasks.close();
        timeout(within, self.tasks.wait()).await.is_ok()
    }

    /// Counts the tasks that still run, those of children included.
    #[must_use]
    pub fn tasks_running(&self) -> usize {
        self.tasks.len()
    }

    /// Begins at SIGINT or SIGTERM, and at SIGHUP where that ends the process; a second signal ends it at once with code 130.
    ///
    /// From the call on, and not only when the future first runs, signals are caught: none is lost in between.
    ///
    /// # Panics
    /// When the system refuses a signal handler, which it does not for these.
    pub fn on_signals(self, on_hangup: Hangup) -> impl Future<Output = ()> + Send + 'static {
        let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be handled");
        let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be handled");
        // Caught in either case: by default it would kill the process.
        let mut hangup = signal(SignalKind::hangup()).expect("SIGHUP can be handled");
        async move {
            let mut next = async || {
                tokio::select! {
                    _ = interrupt.recv() => "SIGINT",
                    _ = terminate.recv() => "SIGTERM",
                    Some(()) = hangup.recv(), if on_hangup == Hangup::Ends => "SIGHUP",
                }
            };
            let signal = next().await;
            info!(signal, "draining; a second signal ends at once");
            self.begin();
            let signal = next().await;
            warn!(signal, "ended before everything was drained");
            std::process::exit(130);
        }
    }
}

/// What SIGHUP means to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hangup {
    /// The terminal it was started in is gone.
    Ends,
    /// Something is to be read again, by whoever has something to read ([`PublicTls::follow`](crate::public_tls::PublicTls::follow)).
    Passes,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn drained_waits_for_the_tasks_of_children() {
        let parent = Shutdown::new();
        let child = parent.child().child();
        let task = child.clone();
        child.spawn(async move { task.requested().await });
        assert_eq!(parent.tasks_running(), 1);
        assert!(!parent.drained(SHORT).await);
        parent.begin();
        assert!(child.is_requested());
        assert!(parent.drained(LONG).await);
        assert!(child.drained(LONG).await);
    }

    #[tokio::test]
    async fn a_child_that_begins_leaves_its_parent_running() {
        let parent = Shutdown::new();
        let child = parent.child();
        child.begin();
        child.requested().await;
        assert!(!parent.is_requested());
    }
}
