//! Homes and moves.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::types::{AccountId, BackendName, ChangeNumber, Epoch, Home, VolumeName};

/// A place an account can live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The back-end.
    pub backend: BackendName,
    /// The volume on it.
    pub volume: VolumeName,
}

/// An account and its home.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountHome {
    /// The account.
    pub account: AccountId,
    /// Where it lives.
    pub home: Home,
}

/// Moves a home: the commit point of a move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompareAndSet {
    /// The epoch the caller believes in; with any other the answer is [`super::code::STALE_EPOCH`].
    pub from_epoch: Epoch,
    /// The new place; the epoch becomes `from_epoch` + 1.
    pub to: Place,
    /// The move that asks. Its record must then be the account's and stand at
    /// [`MoveState::Verified`], or the answer is [`super::code::MOVE_IN_PROGRESS`] with the record:
    /// a request that was long on its way cannot commit a move that has been given up meanwhile.
    /// Without one, no move of the account may be unfinished unless it is being given up, or the
    /// answer is the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub move_id: Option<MoveId>,
}

/// The home was moved; durable when the reply is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompareAndSetReply {
    /// The number of the change.
    pub change: ChangeNumber,
    /// The new home.
    pub home: Home,
}

/// Names one move, so that a second migrator cannot take a running one for its own. 128 bit, random.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MoveId(pub super::Incarnation);

impl MoveId {
    /// From 16 random octets.
    #[must_use]
    pub fn from_octets(octets: [u8; 16]) -> Self {
        Self(super::Incarnation(u128::from_be_bytes(octets)))
    }
}

impl fmt::Display for MoveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for MoveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// How far a move is. `Aborting` can follow any state before `Switched`, and only `Aborted` follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MoveState {
    /// Written down, nothing done.
    Planned,
    /// The target is being filled; the source serves.
    Copying,
    /// The source takes no writes; logins are answered `moving`.
    Frozen,
    /// Both sides hold the same; logins are answered `moving`.
    Verified,
    /// The home has changed; the source still keeps its copy.
    Switched,
    /// The source's copy is let go. Final.
    Released,
    /// Given up, not yet undone at the back-ends. No change of home is accepted for it any more.
    Aborting,
    /// Given up; the source serves again. Final.
    Aborted,
}

impl MoveState {
    /// Whether nothing follows.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Released | Self::Aborted)
    }

    /// Whether a record in this state may be replaced by one of the same move in the state `next`.
    ///
    /// A move goes forward, possibly past a state it has no use for, or is given up before its
    /// commit point. Writing the same state again changes nothing and is allowed, so that a
    /// request that was answered into the void can be repeated; one that arrives late is refused.
    #[must_use]
    pub fn can_become(self, next: Self) -> bool {
        use MoveState::{
            Aborted, Aborting, Copying, Frozen, Planned, Released, Switched, Verified,
        };
        match self {
            Planned => matches!(next, Planned | Copying | Frozen | Aborting),
            Copying => matches!(next, Copying | Frozen | Aborting),
            Frozen => matches!(next, Frozen | Verified | Aborting),
            Verified => matches!(next, Verified | Switched | Aborting),
            Switched => matches!(next, Switched | Released),
            Aborting => matches!(next, Aborting | Aborted),
            Released | Aborted => next == self,
        }
    }

    /// Whether nobody may log in to the account. While a move is undone the source itself tells:
    /// it serves again before a target that is away has let its copy go.
    #[must_use]
    pub fn holds_logins(self) -> bool {
        matches!(self, Self::Frozen | Self::Verified)
    }
}

/// The record of the last move of an account: PUT to its path writes the whole of it.
///
/// A new record begins at `Planned`, once the one before is final; after that only states that
/// [`MoveState::can_become`] allows are taken. `Switched` is refused with
/// [`super::code::STALE_EPOCH`] until the home has changed, and `Aborting` once it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveRecord {
    /// The account.
    pub account: AccountId,
    /// Which move.
    pub id: MoveId,
    /// The home before.
    pub from: Home,
    /// The place after.
    pub to: Place,
    /// How far it is.
    pub state: MoveState,
    /// Unix milliseconds.
    pub started_ms: i64,
    /// Unix milliseconds of the last change of state.
    pub updated_ms: i64,
}
