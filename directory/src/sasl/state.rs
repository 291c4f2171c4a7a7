//! What a dialogue has to remember between two steps, given to the caller sealed.
//!
//! So any replica of the directory that has the data folder's key takes the next step, and whoever
//! begins a million dialogues costs no memory. Text form: `v1.<payload>.<seal>`, both in base64url. The
//! payload is JSON that holds nothing the client has not heard; the seal is HMAC-SHA-256 over it and over
//! who it was given to, and for which connection: of another it is worth nothing.
//!
//! A state lives [`LIFE_MS`] and is good for [`USES_MAX`] tries here: a home that moves while it is opened, or is frozen before
//! the record of its move says so, makes the front ask again. A wrong proof ends it at once, so tries guess nothing. How often each was used is remembered by each replica for itself; a second one
//! may take it again, within its life, from the same caller, with a proof that the caller saw anyhow.

use std::time::Duration;

use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;
use moka::future::Cache;
use moka::ops::compute::Op;
use moka::policy::EvictionPolicy;
use serde::{Deserialize, Serialize};

/// Why a state is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum StateError {
    #[error("the state of the dialogue is cut, forged or another connection's")]
    Foreign,
    #[error("the state of the dialogue has expired")]
    Expired,
    #[error("the state of the dialogue was used before")]
    Used,
}

/// What is remembered of SCRAM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ScramState {
    /// The client's `n,,`.
    pub(super) header: String,
    pub(super) client_first_bare: String,
    pub(super) server_first: String,
    pub(super) expires_at_ms: i64,
}

/// Seals states and opens them.
pub(super) struct States {
    key: hmac::Key,
    /// By the first half of their seal.
    uses: Cache<[u8; 16], u32>,
}

/// The time for a login (DESIGN §13): a user may have to type the password yet.
pub(super) const LIFE_MS: i64 = 60_000;
/// As often as a front asks for one login: once a second while the home is frozen, for the 60 s that this may be waited for at
/// most, and some times more at its beginning.
const USES_MAX: u32 = 70;
/// Uses remembered at once: all of 60 s with 1,600 logins a second. 10 MB when full.
const REMEMBERED_MAX: u64 = 100_000;
/// Three names of 512 octets, escaped and in base64, and the nonces come to less.
const TEXT_MAX_OCTETS: usize = 32 * 1_024;
const VERSION: &str = "v1.";

impl States {
    pub(super) fn new(key: hmac::Key) -> Self {
        let life = Duration::from_millis(LIFE_MS.unsigned_abs());
        Self {
            key,
            uses: Cache::builder()
                .max_capacity(REMEMBERED_MAX)
                .time_to_live(life)
                // By default what is new gives way, and a use not kept in mind is one more.
                .eviction_policy(EvictionPolicy::lru())
                .build(),
        }
    }

    /// The state's text, for this caller and connection only.
    pub(super) fn seal(&self, state: &ScramState, whose: &str) -> String {
        let payload = serde_json::to_vec(state).expect("a state always serialises");
        let seal = hmac::sign(&self.key, &sealed_octets(&payload, whose));
        format!(
            "{VERSION}{}.{}",
            BASE64URL_NOPAD.encode(&payload),
            BASE64URL_NOPAD.encode(seal.as_ref())
        )
    }

    /// The state in a text that was given to this caller for this connection. It counts as a use.
    pub(super) async fn open(
        &self,
        text: &str,
        whose: &str,
        now_ms: i64,
    ) -> Result<ScramState, StateError> {
        let (state, id) = self.read(text, whose).ok_or(StateError::Foreign)?;
        if now_ms >= state.expires_at_ms {
            return Err(StateError::Expired);
        }
        let used = self
            .uses
            .entry(id)
            .and_compute_with(
                async |entry| match entry.map_or(0, moka::Entry::into_value) {
                    USES_MAX => Op::Nop,
                    count => Op::Put(count + 1),
                },
            )
            .await;
        match used {
            moka::ops::compute::CompResult::Unchanged(_) => Err(StateError::Used),
            _ => Ok(state),
        }
    }

    /// Takes no further use of a state: a proof with it was wrong.
    pub(super) async fn use_up(&self, text: &str, whose: &str) {
        if let Some((_, id)) = self.read(text, whose) {
            self.uses.insert(id, USES_MAX).await;
        }
    }

    /// Takes a use back: the home moves, and the caller asks again until it has.
    pub(super) async fn give_back(&self, text: &str, whose: &str) {
        if let Some((_, id)) = self.read(text, whose) {
            self.uses
                .entry(id)
                .and_compute_with(async |entry| match entry.map(moka::Entry::into_value) {
                    Some(count @ 1..) => Op::Put(count - 1),
                    _ => Op::Nop,
                })
                .await;
        }
    }

    fn read(&self, text: &str, whose: &str) -> Option<(ScramState, [u8; 16])> {
        if text.len() > TEXT_MAX_OCTETS {
            return None;
        }
        let (payload, seal) = text.strip_prefix(VERSION)?.split_once('.')?;
        let decoded = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).ok();
        let (payload, seal) = (decoded(payload)?, decoded(seal)?);
        hmac::verify(&self.key, &sealed_octets(&payload, whose), &seal).ok()?;
        let state = serde_json::from_slice(&payload).ok()?;
        Some((state, seal.get(..16)?.try_into().ok()?))
    }
}

/// The length keeps the two from running into each other.
fn sealed_octets(payload: &[u8], whose: &str) -> Vec<u8> {
    [
        &(payload.len() as u64).to_be_bytes(),
        payload,
        whose.as_bytes(),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const NOW_MS: i64 = 1_700_000_000_000;

    fn of_key(key: &[u8]) -> States {
        States::new(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    fn state() -> ScramState {
        ScramState {
            header: "n,,".to_owned(),
            client_first_bare: "n=ann,r=x".to_owned(),
            server_first: "r=xy,s=AAAA,i=4096".to_owned(),
            expires_at_ms: NOW_MS + LIFE_MS,
        }
    }

    #[tokio::test]
    async fn a_state_is_read_again_by_its_own_caller_within_its_minute() {
        let (states, replica) = (of_key(b"key"), of_key(b"key"));
        let text = states.seal(&state(), "p1 imap");
        assert_eq!(states.open(&text, "p1 imap", NOW_MS).await, Ok(state()));
        assert_eq!(
            replica.open(&text, "p1 imap", NOW_MS + LIFE_MS - 1).await,
            Ok(state())
        );
        let late = states.open(&text, "p1 imap", NOW_MS + LIFE_MS).await;
        assert_eq!(late, Err(StateError::Expired));
    }

    #[tokio::test]
    async fn what_is_cut_forged_or_another_s_is_foreign() {
        let states = of_key(b"key");
        let text = states.seal(&state(), "p1 imap");
        let foreign = async |text: &str, whose: &str| {
            let opened = states.open(text, whose, NOW_MS).await;
            assert_eq!(opened, Err(StateError::Foreign), "{text} {whose}");
        };
        foreign(&text, "p2 imap").await;
        foreign(&text, "p1 pop3").await;
        foreign(&of_key(b"another").seal(&state(), "p1 imap"), "p1 imap").await;
        for cut in 0..text.len() {
            foreign(&text[..cut], "p1 imap").await;
        }
        for at in 0..text.len() {
            let mut octets = text.clone().into_bytes();
            octets[at] = if octets[at] == b'A' { b'B' } else { b'A' };
            foreign(&String::from_utf8(octets).unwrap(), "p1 imap").await;
        }
        foreign(&format!("{text}A"), "p1 imap").await;
        foreign(&"A".repeat(TEXT_MAX_OCTETS + 1), "p1 imap").await;
    }

    #[tokio::test]
    async fn a_state_is_used_up_by_its_tries_or_a_wrong_proof_and_not_by_a_move() {
        let states = of_key(b"key");
        let text = states.seal(&state(), "p1");
        for _ in 0..USES_MAX {
            assert_eq!(states.open(&text, "p1", NOW_MS).await, Ok(state()));
        }
        assert_eq!(
            states.open(&text, "p1", NOW_MS).await,
            Err(StateError::Used)
        );
        let other = ScramState {
            server_first: "r=xz,s=AAAA,i=4096".to_owned(),
            ..state()
        };
        let text = states.seal(&other, "p1");
        for _ in 0..2 * USES_MAX {
            assert!(states.open(&text, "p1", NOW_MS).await.is_ok());
            states.give_back(&text, "p1").await;
        }
        states.use_up(&text, "p1").await;
        assert_eq!(
            states.open(&text, "p1", NOW_MS).await,
            Err(StateError::Used)
        );
    }
}
