//! The open sessions of this back-end, by account, so that a freeze can end them.
//!
//! A session enters itself *before* it asks the volume whether the account may be opened, and a
//! freeze marks the account *before* it looks here; so whichever comes first, no session of a
//! frozen account goes unseen.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use daemon::shutdown::Shutdown;
use directory_api::AccountId;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

/// All open sessions; clones share them.
#[derive(Clone)]
pub(crate) struct Sessions {
    by_account: Arc<Mutex<HashMap<AccountId, watch::Sender<bool>>>>,
    shutdown: Shutdown,
}

/// One open session; dropped, it is no longer open.
pub(crate) struct Registration {
    sessions: Sessions,
    account: AccountId,
    ending: watch::Receiver<bool>,
    /// Since it was noticed that the session shall end: when it has to have ended.
    overdue: Option<Instant>,
}

impl Sessions {
    /// None open; all end when `shutdown` begins.
    pub(crate) fn new(shutdown: Shutdown) -> Self {
        Self {
            by_account: Arc::default(),
            shutdown,
        }
    }

    /// Enters one session.
    pub(crate) fn register(&self, account: AccountId) -> Registration {
        let ending = self
            .lock()
            .entry(account)
            .or_insert_with(|| watch::channel(false).0)
            .subscribe();
        Registration {
            sessions: self.clone(),
            account,
            ending,
            overdue: None,
        }
    }

    /// Asks every session of the account to end at its next command's edge and waits until all
    /// have, `within` at most. Answers how many there were, and whether all are gone.
    pub(crate) async fn end(&self, account: AccountId, within: Duration) -> (usize, bool) {
        let Some(ending) = self.lock().remove(&account) else {
            return (0, true);
        };
        let open = ending.receiver_count();
        ending.send_replace(true);
        (open, timeout(within, ending.closed()).await.is_ok())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AccountId, watch::Sender<bool>>> {
        self.by_account
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registration {
    /// Waits until the session shall end: its account is frozen, or the process drains. Safe in `select!`.
    pub(crate) async fn ending(&mut self) {
        tokio::select! {
            () = self.sessions.shutdown.requested() => {}
            // An error means that the sender is gone, which happens only after it said `true`.
            _ = self.ending.wait_for(|ending| *ending) => {}
        }
    }

    /// Waits until the session shall have ended, whatever its client does: for a client that does not take the answer to
    /// its last command. Safe in `select!`.
    pub(crate) async fn overdue(&mut self) {
        let overdue = match self.overdue {
            Some(overdue) => overdue,
            None => {
                self.ending().await;
                *self.overdue.insert(Instant::now() + ENDING_GRACE)
            }
        };
        sleep_until(overdue).await;
    }

    /// Whether a command that is at work has to give up.
    pub(crate) fn is_overdue(&mut self) -> bool {
        let is_ending = *self.ending.borrow() || self.sessions.shutdown.is_requested();
        is_ending && {
            let now = Instant::now();
            *self.overdue.get_or_insert(now + ENDING_GRACE) <= now
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut by_account = self.sessions.lock();
        // After a freeze another channel may stand there, with sessions of its own.
        let ours_is_last = by_account.get(&self.account).is_some_and(|sender| {
            sender.receiver_count() == 1 && self.ending.same_channel(&sender.subscribe())
        });
        if ours_is_last {
            by_account.remove(&self.account);
        }
    }
}

/// A command at work when its session shall end may take so much longer: most are done, and a move waits for it.
const ENDING_GRACE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_freeze_ends_the_sessions_of_its_account_and_of_no_other() {
        let sessions = Sessions::new(Shutdown::new());
        let mut first = sessions.register(AccountId(1));
        let second = sessions.register(AccountId(1));
        let mut other = sessions.register(AccountId(2));
        let ending = tokio::spawn(async move {
            first.ending().await;
            drop((first, second));
        });
        assert_eq!(sessions.end(AccountId(1), SOON).await, (2, true));
        ending.await.expect("the session ends");
        assert!(
            timeout(Duration::from_millis(10), other.ending())
                .await
                .is_err()
        );
        drop(other);
        assert!(sessions.lock().is_empty());
    }

    #[tokio::test]
    async fn a_session_that_does_not_end_is_reported_and_harms_no_later_one() {
        let sessions = Sessions::new(Shutdown::new());
        let stuck = sessions.register(AccountId(1));
        assert_eq!(
            sessions.end(AccountId(1), Duration::from_millis(10)).await,
            (1, false)
        );
        let later = sessions.register(AccountId(1));
        drop(stuck);
        assert_eq!(sessions.lock().len(), 1);
        drop(later);
        assert!(sessions.lock().is_empty());
    }
}
