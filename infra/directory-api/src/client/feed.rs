//! Follows the directory's changes and drops the kept answers they touch.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

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

/// Where one is in the feed.
#[derive(Default)]
struct Feed {
    /// Which change was told last is known.
    is_known: bool,
    /// It was known before.
    has_begun: bool,
    /// When that change was made. Another one of its number shows that the directory was restored from an older state, and
    /// has gone on since.
    at_ms: Option<i64>,
    /// The last question was not answered.
    is_broken: bool,
    /// After a failure, and while there are more, the next poll is answered at once, not when a change comes.
    wait: Duration,
}

impl Feed {
    fn is_other(&self, at_ms: Option<i64>) -> bool {
        self.at_ms.zip(at_ms).is_some_and(|(had, has)| had != has)
    }
}

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
        let mut feed = Feed::default();
        loop {
            let polled = if feed.is_known {
                self.poll(&mut feed).await
            } else {
                self.start_following(&mut feed).await
            };
            let is_all = matches!(polled, Ok(true));
            self.inner.logins.set_followed(is_all);
            if is_all {
                self.inner.seen.note_complete(Instant::now());
            }
            feed.wait = if is_all { WAIT } else { Duration::ZERO };
            match polled {
                Ok(_) => (feed.is_known, feed.is_broken) = (true, false),
                Err(DirectoryError::Refused(problem)) if problem.code == code::CHANGES_GONE => {
                    warn!("was away for more changes than the directory keeps, starting anew");
                    feed.is_known = false;
                }
                Err(error) => {
                    debug!(%error, "cannot follow the directory's changes");
                    feed.is_broken = true;
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn start_following(&self, feed: &mut Feed) -> Result<bool, DirectoryError> {
        let reply = self
            .changes(ChangeNumber(u64::MAX), 0, Duration::ZERO)
            .await?;
        self.begin_at(reply.last, feed.has_begun).await;
        (feed.at_ms, feed.has_begun) = (reply.after_at_ms, true);
        Ok(true)
    }

    /// Whether those were all the changes there are.
    async fn poll(&self, feed: &mut Feed) -> Result<bool, DirectoryError> {
        let after = self.inner.seen.number();
        let reply = self
            .changes(after, crate::wire::limit::CHANGES_MAX, feed.wait)
            .await?;
        if reply.last < after || feed.is_other(reply.after_at_ms) {
            warn!(had = %after, has = %reply.last, "the directory went back in time, dropping all that is kept");
            let newest = reply.changes.last();
            feed.at_ms = newest
                .filter(|newest| newest.number == reply.last)
                .map(|newest| newest.at_ms);
            self.begin_at(reply.last, true).await;
            return Ok(true);
        }
        if feed.is_broken {
            self.inner.tickets.drop_behind(after).await;
        }
        feed.at_ms = reply.after_at_ms.or(feed.at_ms);
        if let Some(newest) = reply.changes.last() {
            feed.at_ms = Some(newest.at_ms);
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
        let began = Instant::now();
        let reply = self
            .call(Method::GET, &query, &(), wait + super::CALL_DEADLINE)
            .await;
        if let Err(error) = &reply {
            let (seen, is_unreachable) = (&self.inner.seen, error.is_unreachable());
            seen.note_silence(began, Instant::now(), is_unreachable);
        }
        reply
    }

    /// What is kept is dropped, for what the feed would have told of it is not known. Tickets that are newer stay, unless
    /// their numbers may be those of another history.
    async fn begin_at(&self, last: ChangeNumber, may_be_other: bool) {
        self.inner.seen.set(last);
        self.inner.changed.begin_at(last);
        self.inner.lookups.drop_all();
        self.inner.backends.drop_all();
        // After a restart it may decide others.
        self.inner.mechanisms.drop_all();
        self.inner.logins.drop_all();
        match may_be_other {
            true => self.inner.tickets.drop_all(),
            false => self.inner.tickets.drop_before(last).await,
        }
    }

    async fn apply(&self, changes: &[Change]) {
        let mut addresses = HashSet::new();
        let mut domains = HashSet::new();
        let mut homes = HashSet::new();
        let mut users = HashMap::new();
        // Of whom it is not said.
        let mut any = None;
        let number = |change: &Change| change.key.parse().ok().map(AccountId);
        for change in changes {
            match change.kind {
                ChangeKind::Address => {
                    addresses.insert(change.key.as_str());
                }
                // It may have been the alias under which somebody logged in.
                ChangeKind::Domain => {
                    domains.insert(change.key.as_str());
                    any = Some(change.number);
                }
                // A lookup says both.
                ChangeKind::Home | ChangeKind::Quota => {
                    homes.extend(number(change));
                    users.extend(number(change).map(|account| (account, change.number)));
                }
                ChangeKind::Backend => {
                    if let Ok(name) = change.key.parse() {
                        self.inner.backends.drop_key(&name).await;
                    }
                    // It may have been put out of service.
                    any = Some(change.number);
                }
                // The password is of the account; while it moves nobody is let in.
                ChangeKind::Account | ChangeKind::Move => {
                    users.extend(number(change).map(|account| (account, change.number)));
                }
                ChangeKind::Key | ChangeKind::Hash => {}
                // Of a later version: it may forbid what was allowed.
                ChangeKind::Other => {
                    any = Some(change.number);
                    self.inner.tickets.drop_before(change.number).await;
                }
            }
        }
        if let Some(change) = any {
            self.inner.changed.note_any(change);
            self.inner.logins.drop_all();
            if !domains.is_empty() {
                self.inner.tickets.drop_in(&domains, change).await;
            }
        }
        let mut users: Vec<_> = users.into_iter().collect();
        users.sort_by_key(|(_, change)| *change);
        for (account, change) in &users {
            self.inner.changed.note(*account, *change);
        }
        self.inner.tickets.drop_of(&users).await;
        for account in &homes {
            self.inner.homes.drop_of(*account).await;
        }
        if addresses.is_empty() && domains.is_empty() && homes.is_empty() {
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
                        } => located.iter().any(|one| homes.contains(&one.account)),
                        Verdict::UnknownAddress | Verdict::UnknownDomain => false,
                    }
            })
            .await;
    }
}
