//! Follows the directory's changes and drops the kept answers they touch.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use daemon::shutdown::Shutdown;
use http::Method;
use tracing::{debug, warn};

use super::{DirectoryClient, DirectoryError};
use crate::types::{AccountId, ChangeNumber};
use crate::wire::{Change, ChangeKind, ChangesReply, Verdict, code, path};

/// How long one poll waits at the server.
const WAIT: Duration = Duration::from_secs(25);
/// Pause after a failed poll. The answers kept stay usable meanwhile, within their times.
const RETRY: Duration = Duration::from_millis(500);

impl DirectoryClient {
    /// Follows the directory's changes in the background until shutdown. Call it once; without it
    /// kept answers are as old as their time to live at most.
    pub fn follow(&self, shutdown: &Shutdown) {
        let client = self.clone();
        let until = shutdown.clone();
        shutdown.spawn(async move {
            tokio::select! {
                () = until.requested() => {}
                () = client.follow_for_ever() => {}
            }
        });
    }

    async fn follow_for_ever(&self) {
        let mut known = false;
        // After a failure, and while there are more, the next poll is answered at once, not when a change comes.
        let mut wait = Duration::ZERO;
        loop {
            let polled = if known {
                self.poll(wait).await
            } else {
                self.start_following().await
            };
            let is_all = matches!(polled, Ok(true));
            self.inner.logins.set_followed(is_all);
            if is_all {
                self.inner.seen.note_complete();
            }
            wait = if is_all { WAIT } else { Duration::ZERO };
            match polled {
                Ok(_) => known = true,
                Err(DirectoryError::Refused(problem)) if problem.code == code::CHANGES_GONE => {
                    warn!("was away for more changes than the directory keeps, starting anew");
                    known = false;
                }
                Err(error) => {
                    debug!(%error, "cannot follow the directory's changes");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn start_following(&self) -> Result<bool, DirectoryError> {
        let reply = self
            .changes(ChangeNumber(u64::MAX), 0, Duration::ZERO)
            .await?;
        self.inner.seen.set(reply.last);
        self.drop_everything();
        Ok(true)
    }

    /// Whether those were all the changes there are.
    async fn poll(&self, wait: Duration) -> Result<bool, DirectoryError> {
        let after = self.inner.seen.number();
        let reply = self
            .changes(after, crate::wire::limit::CHANGES_MAX, wait)
            .await?;
        if reply.last < after {
            warn!(had = %after, has = %reply.last, "the directory went back in time, dropping all kept answers");
            self.inner.seen.set(reply.last);
            self.drop_everything();
        } else if let Some(newest) = reply.changes.last() {
            self.inner.seen.set(newest.number);
            self.apply(&reply.changes).await;
        }
        Ok(self.inner.seen.number() >= reply.last)
    }

    /// The changes after one; waits for the first of them as long as told.
    ///
    /// # Errors
    /// [`DirectoryError::Away`], or `Refused` with [`code::CHANGES_GONE`].
    pub async fn changes(
        &self,
        after: ChangeNumber,
        limit: usize,
        wait: Duration,
    ) -> Result<ChangesReply, DirectoryError> {
        let query = format!(
            "{}?after={after}&limit={limit}&wait_ms={}",
            path::CHANGES,
            wait.as_millis()
        );
        let reply = self
            .call(Method::GET, &query, &(), wait + super::CALL_DEADLINE)
            .await;
        if let Err(error) = &reply {
            self.inner.seen.note_silence(error.is_unreachable());
        }
        reply
    }

    fn drop_everything(&self) {
        self.inner.lookups.drop_all();
        self.inner.backends.drop_all();
        // After a restart it may decide others.
        self.inner.mechanisms.drop_all();
        self.inner.logins.drop_all();
        self.inner.tickets.drop_all();
    }

    async fn apply(&self, changes: &[Change]) {
        let mut addresses = HashSet::new();
        let mut domains = HashSet::new();
        let mut accounts = HashSet::new();
        let mut users = HashMap::new();
        let number = |change: &Change| change.key.parse::<u64>().ok();
        for change in changes {
            match change.kind {
                ChangeKind::Address => {
                    addresses.insert(change.key.as_str());
                }
                ChangeKind::Domain => {
                    domains.insert(change.key.as_str());
                    self.inner.tickets.drop_in(&change.key).await;
                }
                // A lookup says both.
                ChangeKind::Home | ChangeKind::Quota => {
                    accounts.extend(number(change));
                    users.extend(number(change).map(|account| (account, change.at_ms)));
                }
                ChangeKind::Backend => {
                    if let Ok(name) = change.key.parse() {
                        self.inner.backends.drop_key(&name).await;
                    }
                    // It may have been put out of service.
                    self.inner.logins.drop_all();
                }
                // The password is of the account; while it moves nobody is let in.
                ChangeKind::Account | ChangeKind::Move => {
                    users.extend(number(change).map(|account| (account, change.at_ms)));
                }
                ChangeKind::Key | ChangeKind::Hash => {}
                // Of a later version: it may forbid what was allowed.
                ChangeKind::Other => {
                    self.inner.logins.drop_all();
                    self.inner.tickets.drop_all();
                }
            }
        }
        if !domains.is_empty() {
            // It may have been the alias under which somebody logged in.
            self.inner.logins.drop_all();
        }
        if !users.is_empty() {
            let touched = |account: AccountId| users.contains_key(&account.0);
            self.inner.logins.drop_where(touched).await;
            self.inner.tickets.drop_of(&users).await;
        }
        if addresses.is_empty() && domains.is_empty() && accounts.is_empty() {
            return;
        }
        self.inner
            .lookups
            .drop_where(|address, result| {
                addresses.contains(address.as_str())
                    || domains.contains(address.domain())
                    || result.via.iter().any(|step| {
                        addresses.contains(step.as_str()) || domains.contains(step.domain())
                    })
                    || match &result.verdict {
                        Verdict::Accounts(located)
                        | Verdict::External {
                            accounts: located, ..
                        } => located.iter().any(|one| accounts.contains(&one.account.0)),
                        Verdict::UnknownAddress | Verdict::UnknownDomain => false,
                    }
            })
            .await;
    }
}
