//! Mail held here for accounts that live elsewhere and could not be given theirs (P6): what is kept with it, how much there is.
//!
//! ```text
//! front-end ──deliver, hold──▶ volume: INBOX of the account's holder ──▶ feed: where does it live now? ──deliver, same txn──▶ home
//!                                                  ▲                                  │ kept there, or was before
//!                                                  └──────────── expunge ─────────────┘
//! ```
//! A kill anywhere leaves the message here, there, or in both places; then the home says that it has had the transaction (P2).
//! The volume's half is `volume/holds.rs`.

mod feed;
mod operate;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use directory_api::{AccountId, Home};
use serde::{Deserialize, Serialize};
use store_api::deliver::DeliverOpen;
use store_api::{ContentKey, TxnId};
use tokio::sync::Notify;

use crate::config::Config;

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
    homes: Mutex<HashMap<AccountId, (Home, Instant)>>,
}

/// How long what the directory said of a home is not asked again, unless the home itself knows better.
const HOMES_KEPT: Duration = Duration::from_secs(300);

impl Holds {
    /// Whether as much as is held now leaves room for more.
    pub(crate) fn has_room(&self, config: &Config) -> bool {
        let besides = self.besides.load(Ordering::Relaxed);
        besides.wrapping_add(self.all_came()) < config.hold.max_bytes
    }

    /// A message is held.
    pub(crate) fn came(&self, octets: u64) {
        self.came.fetch_add(octets, Ordering::Relaxed);
        self.wake.notify_one();
    }

    fn all_came(&self) -> u64 {
        self.came.load(Ordering::Relaxed)
    }

    /// What is held was counted, when so much had come; what came meanwhile counts twice until the next time.
    fn found(&self, octets: u64, all_came: u64) {
        let besides = octets.wrapping_sub(all_came);
        self.besides.store(besides, Ordering::Relaxed);
    }

    fn known_home(&self, account: AccountId) -> Option<Home> {
        let homes = self.lock();
        let (home, at) = homes.get(&account)?;
        (at.elapsed() < HOMES_KEPT).then(|| home.clone())
    }

    /// The same, however old.
    fn last_home(&self, account: AccountId) -> Option<Home> {
        self.lock().get(&account).map(|(home, _)| home.clone())
    }

    fn note_home(&self, account: AccountId, home: Home) {
        self.lock().insert(account, (home, Instant::now()));
    }

    /// It was shown to be wrong, or nothing is held for it any more.
    fn forget_home(&self, account: AccountId) {
        self.lock().remove(&account);
    }

    fn forget_homes(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AccountId, (Home, Instant)>> {
        self.homes.lock().unwrap_or_else(PoisonError::into_inner)
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
}
