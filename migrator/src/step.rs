//! What a move does next: a pure function of its record.
//!
//! ```text
//! Planned ──▶ Frozen ──▶ Verified ──▶ Switched ──▶ Released
//!    │          │            │            (commit point passed: only forward)
//!    └──────────┴────────────┴──▶ Aborting ──▶ Aborted
//! ```
//! `Copying`, before `Frozen`, is the place of a copy made while the source still serves.

use directory_api::wire::MoveState;
use store_api::transfer::Summary;

/// What to do for a move in a given state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Stop writers and sessions at the source.
    Freeze,
    /// Let the target fetch everything, then compare both sides.
    CopyAndVerify,
    /// Compare both sides again and change the home at the directory.
    Switch,
    /// Open the account at the target, then release the source.
    Release,
    /// Thaw the source, then discard the target's copy.
    Undo,
    /// Nothing: the move is over.
    Done,
}

/// The next step of a move.
#[must_use]
pub fn next(state: MoveState) -> Step {
    match state {
        MoveState::Planned | MoveState::Copying => Step::Freeze,
        MoveState::Frozen => Step::CopyAndVerify,
        MoveState::Verified => Step::Switch,
        MoveState::Switched => Step::Release,
        MoveState::Aborting => Step::Undo,
        MoveState::Released | MoveState::Aborted => Step::Done,
    }
}

/// Whether a move in this state can still be given up.
#[must_use]
pub fn can_abort(state: MoveState) -> bool {
    match state {
        MoveState::Planned
        | MoveState::Copying
        | MoveState::Frozen
        | MoveState::Verified
        | MoveState::Aborting => true,
        MoveState::Switched | MoveState::Released | MoveState::Aborted => false,
    }
}

/// Both sides hold the same identities and the same content. Only [`compare`] makes one, and the
/// change of home demands one.
#[derive(Debug)]
pub struct Verified(());

/// What differs between the sides.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "source holds {source_messages} messages of {source_octets} octets, target {target_messages} of \
     {target_octets}; their set-hashes differ"
)]
pub struct Different {
    /// Messages at the source.
    pub source_messages: u64,
    /// Octets at the source.
    pub source_octets: u64,
    /// Messages at the target.
    pub target_messages: u64,
    /// Octets at the target.
    pub target_octets: u64,
}

/// Compares what the two sides hold.
///
/// # Errors
/// [`Different`] when the set-hashes, the counts or the octets are not equal.
pub fn compare(source: &Summary, target: &Summary) -> Result<Verified, Different> {
    let equal = source.set_hash == target.set_hash
        && source.messages == target.messages
        && source.octets == target.octets;
    if equal {
        Ok(Verified(()))
    } else {
        Err(Different {
            source_messages: source.messages,
            source_octets: source.octets,
            target_messages: target.messages,
            target_octets: target.octets,
        })
    }
}

#[cfg(test)]
mod tests {
    use directory_api::Epoch;
    use store_api::SetHash;
    use store_api::transfer::AccountState;

    use super::*;

    const STATES: [MoveState; 8] = [
        MoveState::Planned,
        MoveState::Copying,
        MoveState::Frozen,
        MoveState::Verified,
        MoveState::Switched,
        MoveState::Released,
        MoveState::Aborting,
        MoveState::Aborted,
    ];

    #[test]
    fn a_move_past_its_commit_point_only_goes_forward() {
        assert!(!can_abort(MoveState::Switched));
        assert_eq!(next(MoveState::Switched), Step::Release);
    }

    #[test]
    fn every_unfinished_state_has_a_step_and_every_final_one_has_none() {
        for state in STATES {
            assert_eq!(next(state) == Step::Done, state.is_final(), "{state:?}");
        }
    }

    #[test]
    fn sides_that_differ_in_hash_count_or_octets_are_not_verified() {
        let side = Summary {
            state: AccountState::Frozen,
            epoch: Epoch::FIRST,
            move_id: None,
            messages: 3,
            octets: 900,
            set_hash: SetHash([7; 32]),
        };
        assert!(compare(&side, &side).is_ok());
        for other in [
            Summary {
                set_hash: SetHash([8; 32]),
                ..side.clone()
            },
            Summary {
                messages: 2,
                ..side.clone()
            },
            Summary {
                octets: 901,
                ..side.clone()
            },
        ] {
            assert!(compare(&side, &other).is_err());
        }
    }
}
