//! The open sessions of this back-end, by account, so that a freeze can end them.
//!
//! A session enters itself *before* it asks the volume whether the account may be opened, and a
//! freeze marks the account *before* it looks here; so whichever comes first, no session of a
//! frozen account goes unseen.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use daemon::shutdown::Shutdown;
use directory_api::{AccountId, Service};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

/// All open sessions; clones share them.
#[derive(Clone)]
pub(crate) struct Sessions {
    open: Arc<Mutex<Open>>,
    shutdown: Shutdown,
}

#[derive(Default)]
struct Open {
    by_account: HashMap<AccountId, watch::Sender<bool>>,
    /// How many of an account are of POP3, and not told to end.
    pop3: HashMap<AccountId, usize>,
    /// Accounts of which none may open now.
    closing: HashSet<AccountId>,
}

/// One open session; dropped, it is no longer open.
pub(crate) struct Registration {
    sessions: Sessions,
    account: AccountId,
    service: Service,
    ending: watch::Receiver<bool>,
    /// Since it was noticed that the session shall end: when it has to have ended.
    overdue: Option<Instant>,
}

/// While this is there, no session of the account opens.
pub(crate) struct Closing {
    sessions: Sessions,
    account: AccountId,
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.sessions.lock().closing.remove(&self.account);
    }
}

impl Sessions {
    /// None open; all end when `shutdown` begins.
    pub(crate) fn new(shutdown: Shutdown) -> Self {
        Self {
            open: Arc::default(),
            shutdown,
        }
    }

    /// Enters one session; `None` while its account is about to be frozen.
    pub(crate) fn register(&self, account: AccountId, service: Service) -> Option<Registration> {
        let mut open = self.lock();
        if open.closing.contains(&account) {
            return None;
        }
        if service == Service::Pop3 {
            *open.pop3.entry(account).or_default() += 1;
        }
        let ending = open
            .by_account
            .entry(account)
            .or_insert_with(|| watch::channel(false).0)
            .subscribe();
        drop(open);
        Some(Registration {
            sessions: self.clone(),
            account,
            service,
            ending,
            overdue: None,
        })
    }

    /// Lets no session of the account open. `None`: one of POP3 is open, which would lose what its user has deleted, and it is
    /// not to be forced.
    pub(crate) fn close(&self, account: AccountId, force: bool) -> Option<Closing> {
        let mut open = self.lock();
        if !force && open.pop3.contains_key(&account) {
            return None;
        }
        open.closing.insert(account);
        drop(open);
        Some(Closing {
            sessions: self.clone(),
            account,
        })
    }

    /// Asks every session of the account to end at its next command's edge and waits until all
    /// have, `within` at most. Answers how many there were, and whether all are gone.
    pub(crate) async fn end(&self, account: AccountId, within: Duration) -> (usize, bool) {
        let ending = {
            let mut open = self.lock();
            open.pop3.remove(&account);
            open.by_account.remove(&account)
        };
        let Some(ending) = ending else {
            return (0, true);
        };
        let open = ending.receiver_count();
        ending.send_replace(true);
        (open, timeout(within, ending.closed()).await.is_ok())
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut open = self.sessions.lock();
        let open = &mut *open;
        // After a freeze another channel may stand there, with sessions of its own.
        let is_counted = open
            .by_account
            .get(&self.account)
            .map(|sender| (sender.receiver_count(), sender.subscribe()))
            .filter(|(_, theirs)| self.ending.same_channel(theirs));
        let Some((count, _)) = is_counted else {
            return;
        };
        if count == 1 {
            open.by_account.remove(&self.account);
        }
        if self.service == Service::Pop3
            && let Some(pop3) = open.pop3.get_mut(&self.account)
        {
            *pop3 -= 1;
            if *pop3 == 0 {
                open.pop3.remove(&self.account);
            }
        }
    }
}

/// A command at work when its session shall end may take so much longer: most are done, and a move waits for it.
const ENDING_GRACE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    fn opened(sessions: &Sessions, account: u64) -> Registration {
        let opened = sessions.register(AccountId(account), Service::Imap);
        opened.expect("the account is not closing")
    }

    #[tokio::test]
    async fn nothing_opens_while_an_account_is_closed_and_pop3_is_waited_for_unless_forced() {
        let (sessions, ann) = (Sessions::new(Shutdown::new()), AccountId(1));
        let imap = opened(&sessions, 1);
        let pop3 = sessions.register(ann, Service::Pop3);
        let also = sessions.register(ann, Service::Pop3);
        assert!(sessions.close(ann, false).is_none());
        assert!(sessions.close(AccountId(2), false).is_some());
        drop(pop3);
        assert!(sessions.close(ann, false).is_none());
        drop(also);
        let closing = sessions.close(ann, false).expect("only IMAP is open");
        assert!(sessions.register(ann, Service::Imap).is_none());
        drop(opened(&sessions, 2));
        drop((closing, imap));
        let pop3 = sessions.register(ann, Service::Pop3);
        let closing = sessions.close(ann, true);
        assert!(closing.is_some());
        let ending = sessions.end(ann, Duration::ZERO).await;
        assert_eq!(ending, (1, false));
        // It was told to end: it is not waited for any more, whenever it does.
        assert!(sessions.lock().pop3.is_empty());
        drop((pop3, closing));
        let open = sessions.lock();
        assert!(open.by_account.is_empty() && open.pop3.is_empty() && open.closing.is_empty());
    }

    #[tokio::test]
    async fn a_freeze_ends_the_sessions_of_its_account_and_of_no_other() {
        let sessions = Sessions::new(Shutdown::new());
        let mut first = opened(&sessions, 1);
        let second = opened(&sessions, 1);
        let mut other = opened(&sessions, 2);
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
        assert!(sessions.lock().by_account.is_empty());
    }

    #[tokio::test]
    async fn a_session_that_does_not_end_is_reported_and_harms_no_later_one() {
        let sessions = Sessions::new(Shutdown::new());
        let stuck = opened(&sessions, 1);
        assert_eq!(
            sessions.end(AccountId(1), Duration::from_millis(10)).await,
            (1, false)
        );
        let later = opened(&sessions, 1);
        drop(stuck);
        assert_eq!(sessions.lock().by_account.len(), 1);
        drop(later);
        assert!(sessions.lock().by_account.is_empty());
    }
}
