//! Which accounts have changed lately, as the feed tells: what is known of one from before its last change is of no use any
//! more, also where it only comes in behind that change.
//!
//! By the numbers of the changes, not by clocks. So many of the last are kept one by one; of what is older than those nothing
//! can be said, and it counts as changed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::types::{AccountId, ChangeNumber};

/// The last changes of accounts. Clones are one.
#[derive(Clone)]
pub(super) struct ChangedAccounts(Arc<Mutex<Known>>);

struct Known {
    /// What was true before this change may not be so any more, whoever it is about.
    floor: ChangeNumber,
    last_of: HashMap<AccountId, ChangeNumber>,
    /// In the order of their numbers.
    order: VecDeque<(ChangeNumber, AccountId)>,
    kept_max: usize,
}

impl ChangedAccounts {
    pub(super) fn new() -> Self {
        Self::keeping(KEPT_MAX)
    }

    fn keeping(kept_max: usize) -> Self {
        Self(Arc::new(Mutex::new(Known {
            floor: ChangeNumber(0),
            last_of: HashMap::new(),
            order: VecDeque::new(),
            kept_max,
        })))
    }

    /// An account has changed. Changes come in order.
    pub(super) fn note(&self, account: AccountId, change: ChangeNumber) {
        let mut known = self.known();
        known.last_of.insert(account, change);
        known.order.push_back((change, account));
        while known.order.len() > known.kept_max {
            let Some((change, account)) = known.order.pop_front() else {
                break;
            };
            known.floor = known.floor.max(change);
            if known.last_of.get(&account) == Some(&change) {
                known.last_of.remove(&account);
            }
        }
    }

    /// Any account may have changed.
    pub(super) fn note_any(&self, change: ChangeNumber) {
        let mut known = self.known();
        known.floor = known.floor.max(change);
    }

    /// The numbers are counted anew from this one: the feed begins there, or tells of another history.
    pub(super) fn begin_at(&self, change: ChangeNumber) {
        let mut known = self.known();
        known.floor = change;
        known.last_of.clear();
        known.order.clear();
    }

    /// Whether what was true of an account behind the change `as_of` is so still, as far as the feed has told.
    pub(super) fn holds(&self, account: AccountId, as_of: ChangeNumber) -> bool {
        let known = self.known();
        let last = known.last_of.get(&account).copied();
        as_of >= known.floor.max(last.unwrap_or(known.floor))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An import changes many at once. Some 2 MB when full.
const KEPT_MAX: usize = 20_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_the_last_change_of_its_account_does_not_hold() {
        let changed = ChangedAccounts::keeping(3);
        let note = |account, change| changed.note(AccountId(account), ChangeNumber(change));
        let holds = |account, as_of| changed.holds(AccountId(account), ChangeNumber(as_of));
        assert!(holds(7, 0));
        note(7, 5);
        assert!(!holds(7, 4) && holds(7, 5) && holds(8, 0));
        note(7, 9);
        note(8, 10);
        assert!(!holds(7, 8) && holds(7, 9) && !holds(8, 9) && holds(9, 0));
        // One more than are kept: of what is older than the forgotten one nothing is said.
        note(9, 11);
        assert!(!holds(1, 4) && holds(1, 5) && !holds(7, 8) && holds(7, 9));
        changed.note_any(ChangeNumber(20));
        assert!(!holds(1, 19) && holds(1, 20) && holds(7, 20));
        changed.begin_at(ChangeNumber(3));
        assert!(!holds(7, 2) && holds(7, 3));
        for change in 4..100 {
            note(change, change);
        }
        let known = changed.known();
        assert_eq!((known.order.len(), known.last_of.len()), (3, 3));
    }
}
