//! Where the accounts live for which something is held. It is asked right before an account is fed, so that a home which comes back
//! is given nothing of an account that has gone elsewhere meanwhile; what such a home knows itself it refuses besides (P4).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use directory_api::{AccountId, DirectoryError, Home};
use tracing::debug;

use crate::backend::Backend;

/// What the directory has said.
#[derive(Default)]
pub(super) struct Homes {
    of: HashMap<AccountId, Heard>,
    /// It gave no answer a moment ago.
    silent_until: Option<Instant>,
}

struct Heard {
    home: Home,
    at: Instant,
    /// The home itself has said otherwise, or an operator wants it asked.
    is_doubtful: bool,
}

/// Of many accounts only the first waits for a directory that gives no answer.
const SILENT: Duration = Duration::from_secs(5);

impl Homes {
    /// What was heard last, however long ago: good for telling it to people, and for where to look first.
    pub(super) fn last(&self, account: AccountId) -> Option<&Home> {
        self.of.get(&account).map(|heard| &heard.home)
    }

    /// What was heard no longer ago than that.
    fn heard_within(&self, account: AccountId, within: Duration, now: Instant) -> Option<Home> {
        let heard = self.of.get(&account)?;
        let age = now.saturating_duration_since(heard.at);
        (!heard.is_doubtful && age < within).then(|| heard.home.clone())
    }

    fn is_silent(&self, now: Instant) -> bool {
        self.silent_until.is_some_and(|until| now < until)
    }

    fn hear(&mut self, account: AccountId, home: Home, at: Instant) {
        self.silent_until = None;
        let is_doubtful = false;
        let heard = Heard {
            home,
            at,
            is_doubtful,
        };
        self.of.insert(account, heard);
    }

    /// It is not fed to where it was heard to live before it was asked for again.
    pub(super) fn doubt(&mut self, account: AccountId) {
        if let Some(heard) = self.of.get_mut(&account) {
            heard.is_doubtful = true;
        }
    }

    pub(super) fn doubt_all(&mut self) {
        self.silent_until = None;
        for heard in self.of.values_mut() {
            heard.is_doubtful = true;
        }
    }

    pub(super) fn retain(&mut self, keeps: impl Fn(AccountId) -> bool) {
        self.of.retain(|account, _| keeps(*account));
    }
}

/// Why it is not known where an account lives.
pub(super) const NO_ACCOUNT: &str = "hold_no_account";
pub(super) const DIRECTORY_AWAY: &str = "directory_away";

/// Where an account lives now: asked, unless it was heard no longer ago than `fresh`. While the directory is away, what it said no longer ago than `limits.directory_stale_max_s`, as for mail
/// that arrives.
///
/// # Errors
/// One of the two words: the directory does not know the account, or nobody knows where it lives.
pub(super) async fn home_of(
    backend: &Backend,
    account: AccountId,
    fresh: Duration,
) -> Result<Home, &'static str> {
    let asked = Instant::now();
    let (fresh, is_silent) = {
        let known = backend.holds.known();
        let fresh = known.homes.heard_within(account, fresh, asked);
        (fresh, known.homes.is_silent(asked))
    };
    if let Some(fresh) = fresh {
        return Ok(fresh);
    }
    if !is_silent {
        match backend.directory.home(account).await {
            Ok(now) => {
                let mut known = backend.holds.known();
                known.homes.hear(account, now.home.clone(), asked);
                return Ok(now.home);
            }
            Err(DirectoryError::Unknown) => {
                backend.holds.known().homes.of.remove(&account);
                return Err(NO_ACCOUNT);
            }
            Err(error) => {
                debug!(%account, %error, "home of held mail cannot be asked for");
                if error.is_away() {
                    backend.holds.known().homes.silent_until = Some(Instant::now() + SILENT);
                }
            }
        }
    }
    let stale_max = Duration::from_secs(backend.config.limits.directory_stale_max_s);
    let known = backend.holds.known();
    let heard = known.homes.heard_within(account, stale_max, asked);
    heard.ok_or(DIRECTORY_AWAY)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use directory_api::Epoch;

    use super::*;

    #[test]
    fn what_was_heard_is_good_for_a_time_and_never_again_once_it_is_doubted() {
        let home = Home {
            backend: "b1".parse().unwrap(),
            volume: "main".parse().unwrap(),
            epoch: Epoch(3),
        };
        let (mut homes, now, ann) = (Homes::default(), Instant::now(), AccountId(1));
        let age = Duration::from_secs(60);
        assert_eq!(homes.heard_within(ann, age, now), None);
        homes.hear(ann, home.clone(), now);
        let late = now + age;
        let before = late - Duration::from_millis(1);
        assert_eq!(homes.heard_within(ann, age, before), Some(home.clone()));
        assert_eq!(homes.heard_within(ann, age, late), None);
        homes.doubt(ann);
        assert_eq!(homes.heard_within(ann, age, now), None);
        assert_eq!(homes.last(ann), Some(&home), "it is told still");
        homes.hear(ann, home.clone(), now);
        assert!(homes.heard_within(ann, age, now).is_some());
        homes.silent_until = Some(late);
        homes.doubt_all();
        assert_eq!(homes.heard_within(ann, age, now), None);
        assert!(!homes.is_silent(now), "an operator does not wait");
        homes.retain(|_| false);
        assert_eq!(homes.last(ann), None);
    }
}
