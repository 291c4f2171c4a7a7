//! Mail held here for accounts that live elsewhere and could not be given theirs (P6): what is kept with it, how much there is.
//!
//! ```text
//! front-end ──deliver, hold──▶ volume: INBOX of the account's holder ──▶ feed: where does it live now? ──deliver, same txn──▶ home
//!                                                  ▲                                  │ kept there, or was before
//!                                                  └──────────── expunge ─────────────┘
//! ```
//! A kill anywhere leaves the message here, there, or in both places; then the home says that it has had the transaction (P2).
//! The volume's half is `volume/holds.rs`.

mod delays;
mod feed;
mod homes;
mod operate;
mod turn;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use directory_api::{AccountId, VolumeName};
use serde::{Deserialize, Serialize};
use store_api::deliver::DeliverOpen;
use store_api::{ContentKey, TxnId};
use tokio::sync::Notify;

use crate::backend::Backend;
use delays::Delays;
use homes::Homes;

pub(crate) use feed::run;
pub(crate) use operate::routes;

/// What is known of held mail besides what the volumes have.
#[derive(Default)]
pub(crate) struct Holds {
    /// All octets that ever came.
    came: AtomicU64,
    /// What is held is so much more: as the last look at the volumes found it. It may wrap.
    besides: AtomicU64,
    /// Something was held, or an operator does not want to wait.
    wake: Notify,
    known: Mutex<Known>,
}

/// What the feeder has learnt. All of it is of mail that is held now, so it is bounded as that is; a restart forgets it.
struct Known {
    homes: Homes,
    /// Octets by account, as the last look found them, and what came since.
    octets: HashMap<AccountId, u64>,
    /// Accounts that their home, or we, can do nothing for now.
    accounts: Delays<AccountId>,
    /// Messages that wait by themselves.
    aside: Delays<Place>,
    /// How often a home was lost at the commit of one.
    lost: HashMap<Place, u32>,
}

/// Where one held message is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    volume: VolumeName,
    /// For whom it is held.
    account: AccountId,
    uid: u32,
}

/// An account that is being moved is back in a moment; one whose volume is full there is asked for every two minutes.
const ACCOUNT_WAITS_FIRST: Duration = Duration::from_secs(2);
const ACCOUNT_WAITS_MAX: Duration = Duration::from_secs(128);
/// A message that was refused is, as a rule, refused again: somebody has to act. The longest is Postfix's `maximal_backoff_time`.
const MESSAGE_WAITS_FIRST: Duration = Duration::from_secs(60);
const MESSAGE_WAITS_MAX: Duration = Duration::from_secs(4000);

impl Default for Known {
    fn default() -> Self {
        Self {
            homes: Homes::default(),
            octets: HashMap::new(),
            accounts: Delays::new(ACCOUNT_WAITS_FIRST, ACCOUNT_WAITS_MAX),
            aside: Delays::new(MESSAGE_WAITS_FIRST, MESSAGE_WAITS_MAX),
            lost: HashMap::new(),
        }
    }
}

impl Holds {
    /// A message is held.
    pub(crate) fn came(&self, account: AccountId, octets: u64) {
        self.came.fetch_add(octets, Ordering::Relaxed);
        *self.known().octets.entry(account).or_default() += octets;
        self.wake.notify_one();
    }

    fn all_came(&self) -> u64 {
        self.came.load(Ordering::Relaxed)
    }

    /// What is held was counted, when so much had come; what came meanwhile counts twice until the next time.
    fn found(&self, of_accounts: HashMap<AccountId, u64>, all_came: u64) {
        let octets: u64 = of_accounts.values().sum();
        let besides = octets.wrapping_sub(all_came);
        self.besides.store(besides, Ordering::Relaxed);
        let mut known = self.known();
        known
            .homes
            .retain(|account| of_accounts.contains_key(&account));
        known
            .accounts
            .retain(|account| of_accounts.contains_key(account));
        known.forget_messages(|place| !of_accounts.contains_key(&place.account));
        known.octets = of_accounts;
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why nothing more is held, or nothing more for one account: reason codes.
pub(crate) const FULL: &str = "hold_full";
pub(crate) const ACCOUNT_FULL: &str = "hold_account_full";
pub(crate) const DISK_FULL: &str = "hold_disk_full";

impl Backend {
    /// Whether there is room to hold mail for others.
    ///
    /// # Errors
    /// The reason code.
    pub(crate) fn may_hold(&self) -> Result<(), &'static str> {
        let besides = self.holds.besides.load(Ordering::Relaxed);
        if besides.wrapping_add(self.holds.all_came()) >= self.config.hold.max_bytes {
            return Err(FULL);
        }
        match self.volumes.takes_held() {
            true => Ok(()),
            false => Err(DISK_FULL),
        }
    }

    /// Whether more may be held for this account.
    pub(crate) fn may_hold_for(&self, account: AccountId) -> bool {
        let held = self.holds.known().octets.get(&account).copied();
        held.unwrap_or_default() < self.config.hold.account_max_bytes
    }
}

impl Known {
    /// How often a message has been set aside; none: it is not due.
    fn tries(&self, place: &Place, now: Instant) -> Option<u32> {
        self.aside
            .is_due(place, now)
            .then(|| self.aside.tries(place))
    }

    /// It is there.
    fn given(&mut self, place: &Place) {
        self.aside.forget(place);
        self.lost.remove(place);
        self.accounts.forget(&place.account);
    }

    /// The home was lost at its commit, so often by now.
    fn lost_at(&mut self, place: &Place) -> u32 {
        let lost = self.lost.entry(place.clone()).or_default();
        *lost += 1;
        *lost
    }

    fn set_aside(&mut self, place: Place, why: &'static str) -> u32 {
        self.aside.failed(place, why, Instant::now())
    }

    fn account_waits(&mut self, account: AccountId, why: &'static str) -> u32 {
        self.homes.doubt(account);
        self.accounts.failed(account, why, Instant::now())
    }

    fn forget_messages(&mut self, is_gone: impl Fn(&Place) -> bool) {
        self.aside.retain(|place| !is_gone(place));
        self.lost.retain(|place, _| !is_gone(place));
    }

    /// An operator does not want to wait.
    fn end_delays(&mut self) {
        self.homes.doubt_all();
        self.accounts.end_all(Instant::now());
        self.aside.end_all(Instant::now());
    }
}

/// What stands before the trace lines of a held message: all that a delivery says besides them and the body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Envelope {
    /// The transaction by which it was accepted, and by which it is fed.
    pub(crate) txn: TxnId,
    pub(crate) trace_id: String,
    pub(crate) reverse_path: String,
    /// As RCPT named it.
    pub(crate) address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
    pub(crate) content_key: ContentKey,
}

/// The field that it is written as: what is held can be read as a message, by whoever has to.
const FIELD: &[u8] = b"Posthouse-Held: ";

impl Envelope {
    pub(crate) fn new(
        open: &DeliverOpen,
        content_key: ContentKey,
        address: &str,
        detail: Option<String>,
    ) -> Self {
        Self {
            txn: open.txn,
            trace_id: open.trace_id.clone(),
            reverse_path: open.reverse_path.clone(),
            address: address.to_owned(),
            detail,
            content_key,
        }
    }

    /// Of a message of which only the body was found again (`posthouse fsck --new-uidvalidity`): whatever it was accepted by is lost, and
    /// the home is told a transaction that is always the same for this message. If it had it before, it has it twice: nobody
    /// knows, and mail that was promised comes (P1).
    fn found_again(account: AccountId, uid: u32, hash: [u8; 32]) -> Self {
        let mut txn = blake3::Hasher::new_derive_key("posthouse held message found again");
        txn.update(&account.0.to_be_bytes());
        txn.update(&uid.to_be_bytes());
        txn.update(&hash);
        let mut octets = [0; 16];
        octets.copy_from_slice(&txn.finalize().as_bytes()[..16]);
        Self {
            txn: TxnId(octets),
            trace_id: "found-again".to_owned(),
            reverse_path: String::new(),
            address: String::new(),
            detail: None,
            content_key: ContentKey(hash),
        }
    }

    /// The line and the trace lines behind it. JSON has no line ends but escaped ones.
    pub(crate) fn before(&self, prologue: &[u8]) -> Vec<u8> {
        let line = serde_json::to_vec(self).expect("strings are JSON");
        [FIELD, &line, b"\r\n", prologue].concat()
    }

    /// The opposite; none if it is none of ours.
    pub(crate) fn split(held: &[u8]) -> Option<(Self, &[u8])> {
        let rest = held.strip_prefix(FIELD)?;
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let envelope = serde_json::from_slice(&rest[..end]).ok()?;
        Some((envelope, &rest[end + 2..]))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_comes_apart_as_it_was_put_together() {
        let open = DeliverOpen {
            txn: TxnId([7; 16]),
            trace_id: "t1".into(),
            reverse_path: String::new(),
            declared_octets: None,
            recipients: Vec::new(),
        };
        let address = "\"a\\\r\nb\"@x.test";
        let detail = Some("lists".to_owned());
        let envelope = Envelope::new(&open, ContentKey([9; 32]), address, detail);
        for prologue in [&b"Received: by mx\r\n\tfor x\r\n"[..], b""] {
            let held = envelope.before(prologue);
            let (back, rest) = Envelope::split(&held).unwrap();
            assert_eq!((&back, rest), (&envelope, prologue));
            assert_eq!(back.content_key, ContentKey([9; 32]));
        }
        for none in [
            &b""[..],
            b"Received: by mx\r\n",
            b"Posthouse-Held: {}\r\n",
            b"Posthouse-Held: {",
        ] {
            assert!(Envelope::split(none).is_none());
        }
    }

    #[test]
    fn a_message_that_was_found_again_has_one_transaction_always_and_none_of_another() {
        let txn =
            |account, uid, octet| Envelope::found_again(AccountId(account), uid, [octet; 32]).txn;
        assert_eq!(txn(1, 1, 1), txn(1, 1, 1));
        for other in [txn(2, 1, 1), txn(1, 2, 1), txn(1, 1, 2)] {
            assert_ne!(txn(1, 1, 1), other);
        }
    }
}
