//! How much an account may still take: `POST /v1/room`, asked at RCPT (DESIGN §6).
//!
//! Quota refuses at RCPT alone: a message whose recipient was accepted is kept. So the answer may be some seconds
//! old, and no answer is a yes: a quota is the provider's rule, and no reason to keep mail waiting. Nothing is reserved at RCPT: who
//! only asks, with a size that is never sent, must not make a mailbox full for others.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use directory_api::wire::Located;
use directory_api::{AccountId, Quota};
use http::Method;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::Backends;

/// The path of version 1.
pub const PATH: &str = "/v1/room";

/// Asks for one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoomRequest {
    /// The account.
    pub account: AccountId,
    /// Its limits as the caller knows them; the home takes the newer ones.
    pub quota: Quota,
}

/// What an account may still take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Room {
    /// Messages; none when they are not limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<u64>,
    /// Octets; none when they are not limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub octets: Option<u64>,
}

impl Room {
    /// Nothing is limited, or nobody could say.
    pub const ANY: Self = Self {
        messages: None,
        octets: None,
    };

    /// What is left of `quota` when so much is used.
    #[must_use]
    pub fn left(quota: &Quota, messages: u64, octets: u64) -> Self {
        Self {
            messages: quota.messages.map(|most| most.saturating_sub(messages)),
            octets: quota.octets.map(|most| most.saturating_sub(octets)),
        }
    }

    /// The same for mail: an account that is not full yet may be taken over its limit of octets by one message, as far as
    /// `grace_percent` of that limit. A mailbox that is nearly full would else take short messages and refuse longer ones, which nobody
    /// understands who asks why a message came back.
    #[must_use]
    pub fn left_with_grace(quota: &Quota, messages: u64, octets: u64, grace_percent: u8) -> Self {
        let room = Self::left(quota, messages, octets);
        let grace = |most: u64| {
            let grace = u128::from(most) * u128::from(grace_percent) / 100;
            u64::try_from(grace).unwrap_or(u64::MAX)
        };
        let octets = match (room.octets, quota.octets) {
            (Some(left), Some(most)) if left > 0 => Some(left.saturating_add(grace(most))),
            (left, _) => left,
        };
        Self { octets, ..room }
    }

    /// Whether one message more fits. One of unknown size fits where any does.
    #[must_use]
    pub fn takes(&self, declared_octets: Option<u64>) -> bool {
        self.messages != Some(0)
            && self
                .octets
                .is_none_or(|left| left > 0 && declared_octets.unwrap_or(1) <= left)
    }
}

/// What homes have answered in the last seconds.
#[derive(Debug, Default)]
pub struct Rooms {
    known: Mutex<HashMap<AccountId, (Instant, Room)>>,
}

impl Rooms {
    /// Whether all of these accounts are full. An alias of which one account has room is not: its mail must not wait for
    /// another one's owner.
    pub async fn are_full(
        &self,
        backends: &Backends,
        located: &[Located],
        declared_octets: Option<u64>,
    ) -> bool {
        for one in located {
            if self.of(backends, one).await.takes(declared_octets) {
                return false;
            }
        }
        !located.is_empty()
    }

    /// The room of one account: as its home said some seconds ago, or says now.
    pub async fn of(&self, backends: &Backends, located: &Located) -> Room {
        if !located.quota.is_limited() {
            return Room::ANY;
        }
        if let Some(room) = self.kept(located.account, Instant::now()) {
            return room;
        }
        let request = RoomRequest {
            account: located.account,
            quota: located.quota,
        };
        let link = match backends.link(&located.home.backend).await {
            Ok(link) => link,
            Err(error) => {
                warn!(account = %located.account, %error, "home cannot be found, its quota is passed over");
                return Room::ANY;
            }
        };
        match link.json(Method::POST, PATH, &request, ASK_WITHIN).await {
            Ok(room) => {
                self.keep(located.account, room, Instant::now());
                room
            }
            Err(error) => {
                warn!(account = %located.account, %error, "home does not tell its quota, it is passed over");
                Room::ANY
            }
        }
    }

    /// They have got a message: what their homes answered before does not hold for the next one, which may be the one too many.
    pub fn forget(&self, accounts: impl IntoIterator<Item = AccountId>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for account in accounts {
            known.remove(&account);
        }
    }

    fn kept(&self, account: AccountId, now: Instant) -> Option<Room> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, room) = known.get(&account)?;
        (now.saturating_duration_since(*at) < KEEP).then_some(*room)
    }

    fn keep(&self, account: AccountId, room: Room, now: Instant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT_MAX {
            known.retain(|_, (at, _)| now.saturating_duration_since(*at) < KEEP);
        }
        if known.len() < KEPT_MAX {
            known.insert(account, (now, room));
        }
    }
}

/// A mailbox that is full stays so for hours; one that is emptied takes mail again within seconds.
const KEEP: Duration = Duration::from_secs(5);
/// Five seconds of 20,000 recipients each: some megabytes.
const KEPT_MAX: usize = 100_000;
/// The answer is one row of an index.
const ASK_WITHIN: Duration = Duration::from_secs(2);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use directory_api::ChangeNumber;

    use super::*;

    #[test]
    fn a_message_fits_up_to_what_is_left() {
        let quota = Quota {
            octets: Some(100),
            messages: Some(3),
            as_of: ChangeNumber(1),
        };
        let room = Room::left(&quota, 2, 90);
        assert!(room.takes(None) && room.takes(Some(10)) && !room.takes(Some(11)));
        assert!(!Room::left(&quota, 3, 0).takes(None));
        assert!(!Room::left(&quota, 0, 100).takes(None));
        assert!(!Room::left(&quota, 0, 100).takes(Some(0)));
        assert!(!Room::left(&quota, 9, 999).takes(Some(1)));
        assert!(Room::ANY.takes(Some(u64::MAX)));
    }

    #[test]
    fn one_message_may_go_over_the_limit_by_the_grace_and_none_when_it_is_reached() {
        let quota = Quota {
            octets: Some(1000),
            messages: None,
            as_of: ChangeNumber(1),
        };
        let room = |used| Room::left_with_grace(&quota, 0, used, 10);
        assert!(room(999).takes(Some(101)) && !room(999).takes(Some(102)));
        assert!(room(0).takes(Some(1100)) && !room(0).takes(Some(1101)));
        assert!(!room(1000).takes(None) && !room(1050).takes(Some(1)));
        assert_eq!(
            Room::left_with_grace(&quota, 0, 90, 0),
            Room::left(&quota, 0, 90)
        );
        assert_eq!(Room::left_with_grace(&Quota::NONE, 1, 1, 10), Room::ANY);
    }

    #[test]
    fn an_answer_is_kept_for_seconds_and_the_memory_of_them_is_bounded() {
        let rooms = Rooms::default();
        let began = Instant::now();
        rooms.keep(AccountId(1), Room::ANY, began);
        assert_eq!(rooms.kept(AccountId(1), began + KEEP / 2), Some(Room::ANY));
        assert_eq!(rooms.kept(AccountId(1), began + KEEP), None);
        for account in 1..=KEPT_MAX as u64 + 1 {
            rooms.keep(AccountId(account), Room::ANY, began);
        }
        assert_eq!(rooms.known.lock().unwrap().len(), KEPT_MAX);
        rooms.keep(AccountId(0), Room::ANY, began + KEEP);
        assert_eq!(rooms.known.lock().unwrap().len(), 1);
        rooms.forget([AccountId(0)]);
        assert_eq!(rooms.kept(AccountId(0), began + KEEP), None);
    }
}
