//! Which messages no session was told of yet: what gives `\Recent`. RFC 3501 §2.3.2.
//!
//! IMAP4rev2 has no such flag any more, and nothing else depends on it. So it is not worth a write for each SELECT: it is kept in
//! memory alone. The RFC asks that a message be recent when nobody can tell; here a restart, and too many mailboxes that
//! have such, make messages old instead, for no client wants to hear of a thousand new ones because a server was restarted.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use directory_api::AccountId;

use super::Volume;
use super::record::Record;
use super::types::MailboxId;

impl Volume {
    /// The first UID that no session was told of, looking only.
    #[must_use]
    pub fn first_recent(&self, account: AccountId, mailbox: MailboxId) -> Option<u32> {
        self.inner.shared().recent.first((account, mailbox))
    }

    /// The first UID that no session was told of; from here to `uid_next` they count as told.
    #[must_use]
    pub fn take_recent(
        &self,
        account: AccountId,
        mailbox: MailboxId,
        uid_next: u32,
    ) -> Option<u32> {
        self.inner
            .shared()
            .recent
            .take((account, mailbox), uid_next)
    }
}

type Place = (AccountId, MailboxId);

/// First and last UID that nobody was told of, of mailboxes that have such.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<HashMap<Place, (u32, u32)>>);

impl Recent {
    /// Notes what a record brings. Call it before the record is answered, or a session might know of a message
    /// before it is recent.
    pub(super) fn note(&self, record: &Record) {
        match record {
            Record::Deliver(record) => {
                for to in &record.recipients {
                    self.arrived((to.account, to.mailbox), to.uid, to.uid);
                }
            }
            Record::Append(record) => {
                let uids = record.messages.iter().map(|message| message.flags.uid);
                self.run((record.account, record.mailbox), uids);
            }
            Record::Copy(record) | Record::Undelete(record) => {
                let uids = record.messages.iter().map(|message| message.flags.uid);
                self.run((record.account, record.target), uids);
            }
            // A number may come back with a move, and its messages were told of elsewhere.
            Record::Account(record) if record.wipe => self.forget(record.account),
            Record::Delete(record) => {
                self.lock().remove(&(record.account, record.mailbox));
            }
            _ => {}
        }
    }

    fn run(&self, place: Place, mut uids: impl DoubleEndedIterator<Item = u32>) {
        if let Some(first) = uids.next() {
            self.arrived(place, first, uids.next_back().unwrap_or(first));
        }
    }

    fn arrived(&self, place: Place, first: u32, last: u32) {
        let mut places = self.lock();
        if places.len() >= PLACES_MAX && !places.contains_key(&place) {
            // Those that nobody ever opens would keep out all others until a restart.
            places.clear();
        }
        places.entry(place).or_insert((first, last)).1 = last;
    }

    fn forget(&self, account: AccountId) {
        self.lock().retain(|(of, _), _| *of != account);
    }

    fn first(&self, place: Place) -> Option<u32> {
        self.lock().get(&place).map(|(first, _)| *first)
    }

    fn take(&self, place: Place, uid_next: u32) -> Option<u32> {
        let mut places = self.lock();
        let untold = places.get_mut(&place)?;
        let first = untold.0;
        if untold.1 < uid_next {
            places.remove(&place);
        } else {
            // More has come than the session has seen.
            untold.0 = first.max(uid_next);
        }
        (first < uid_next).then_some(first)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, (u32, u32)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Mailboxes with such messages: some megabytes at most. Most accounts are read by POP3 or IMAP before so many others got mail.
const PLACES_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_recent_to_the_first_who_takes_it() {
        let recent = Recent::default();
        let place = (AccountId(1), MailboxId(1));
        assert_eq!(recent.take(place, 9), None);
        recent.arrived(place, 3, 3);
        recent.arrived(place, 4, 6);
        assert_eq!(recent.first(place), Some(3));
        assert_eq!(recent.first((AccountId(1), MailboxId(2))), None);
        // The session has seen the mailbox up to 4 only.
        assert_eq!(recent.take(place, 5), Some(3));
        assert_eq!(recent.take(place, 5), None);
        assert_eq!(recent.take(place, 7), Some(5));
        assert_eq!(recent.first(place), None);
    }

    #[test]
    fn over_the_limit_messages_are_old() {
        let recent = Recent::default();
        let place = |account| (AccountId(account), MailboxId(1));
        let max = PLACES_MAX as u64;
        for account in 0..max {
            recent.arrived(place(account), 1, 1);
        }
        recent.arrived(place(0), 2, 2);
        assert_eq!(recent.first(place(max - 1)), Some(1));
        recent.arrived(place(max), 1, 1);
        assert_eq!(recent.first(place(max)), Some(1));
        assert_eq!(recent.take(place(0), 3), None);
    }

    #[test]
    fn what_was_wiped_is_not_recent_when_it_comes_back() {
        let recent = Recent::default();
        let place = |account| (AccountId(account), MailboxId(1));
        recent.arrived(place(1), 3, 3);
        recent.arrived(place(2), 3, 3);
        recent.forget(AccountId(1));
        recent.arrived(place(1), 9, 9);
        assert_eq!(recent.take(place(1), 10), Some(9));
        assert_eq!(recent.take(place(2), 10), Some(3));
    }
}
