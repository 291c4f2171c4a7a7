//! How long ago each account last logged in: the provider's interval between two logins. RFC 2449 §6.5, §8.1.1.
//!
//! Kept at the account's home, the one place that every login comes by, whichever proxy it came through. In memory: after a
//! restart or a move the next login is let in, which errs towards the user.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use directory_api::AccountId;

/// The last login of each account that had one within the interval.
#[derive(Debug, Default)]
pub(crate) struct LoginDelays {
    last: Mutex<HashMap<AccountId, Instant>>,
}

impl LoginDelays {
    /// Lets the account in and notes it, or tells how many seconds are still to wait. A refused login does not count.
    pub(crate) fn enter(
        &self,
        account: AccountId,
        delay: Duration,
        now: Instant,
    ) -> Result<(), u64> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let since = |at: &Instant| now.saturating_duration_since(*at);
        if let Some(left) = last
            .get(&account)
            .and_then(|at| delay.checked_sub(since(at)))
            .filter(|left| !left.is_zero())
        {
            return Err(left.as_secs() + u64::from(left.subsec_nanos() > 0));
        }
        if last.len() >= ACCOUNTS_MAX {
            last.retain(|_, at| since(at) < delay);
        }
        // Full of logins that are all recent: who is not noted is let in once too often, and nobody is kept out.
        if last.len() < ACCOUNTS_MAX {
            last.insert(account, now);
        }
        Ok(())
    }

    /// The login that was let in was refused after all.
    pub(crate) fn leave(&self, account: AccountId) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.remove(&account);
    }
}

/// As many as one back-end is made for: some 40 MB when all of them log in within the interval.
const ACCOUNTS_MAX: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_waits_for_the_rest_of_the_interval_and_others_do_not() {
        let delays = LoginDelays::default();
        let (delay, began) = (Duration::from_secs(60), Instant::now());
        let enter = |account, after_ms| {
            let now = began + Duration::from_millis(after_ms);
            delays.enter(AccountId(account), delay, now)
        };
        assert_eq!(enter(1, 0), Ok(()));
        assert_eq!(enter(1, 0), Err(60));
        assert_eq!(enter(1, 500), Err(60));
        assert_eq!(enter(2, 500), Ok(()));
        assert_eq!(enter(1, 59_001), Err(1));
        assert_eq!(
            enter(1, 60_000),
            Ok(()),
            "a refused login does not begin it anew"
        );
        assert_eq!(enter(1, 60_001), Err(60));
        delays.leave(AccountId(1));
        assert_eq!(enter(1, 60_002), Ok(()));
    }
}
