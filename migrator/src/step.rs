//! What a move does next: a pure function of its record.
//!
//! ```text
//! Planned ──▶ Copying ──▶ Frozen ──▶ Verified ──▶ Switched ──▶ Released
//!    │           │          │            │            (commit point passed: only forward)
//!    └───────────┴──────────┴────────────┴──▶ Aborting ──▶ Aborted
//! ```
//! While a move is `Copying` the source serves as ever. From `Frozen` to `Switched` nobody may write: there lies all that a user
//! can notice.

use directory_api::wire::MoveState;
use store_api::MoveId;
use store_api::transfer::{AccountState, Summary};

/// What to do for a move in a given state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Let the target read the account at the source.
    Offer,
    /// Let the target fetch the account in rounds while the source serves; when little is left, stop writers and sessions.
    Copy,
    /// Let the target fetch what is left, then compare both sides.
    Verify,
    /// Change the home at the directory; compare both sides first where this process has not.
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
        MoveState::Planned => Step::Offer,
        MoveState::Copying => Step::Copy,
        MoveState::Frozen => Step::Verify,
        MoveState::Verified => Step::Switch,
        MoveState::Switched => Step::Release,
        MoveState::Aborting => Step::Undo,
        MoveState::Released | MoveState::Aborted => Step::Done,
    }
}

/// In which order moves that were left are taken up, the smallest first: nobody may write from the freeze to the release, and the source of
/// a move that is being given up may be frozen still.
#[must_use]
pub fn urgency(state: MoveState) -> u8 {
    match state {
        MoveState::Switched => 0,
        MoveState::Verified => 1,
        MoveState::Frozen => 2,
        MoveState::Aborting => 3,
        MoveState::Copying => 4,
        MoveState::Planned => 5,
        MoveState::Released | MoveState::Aborted => 6,
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

/// Why two sides are not taken for the same.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// A side is not where the move left it: somebody else has acted on the account.
    #[error(
        "source is {source_state:?} and target {target_state:?}, not frozen and importing for this move"
    )]
    State {
        /// What the source would do with a writer.
        source_state: AccountState,
        /// What the target would do with one.
        target_state: AccountState,
    },
    /// Identities or contents differ.
    #[error(
        "source holds {source_messages} messages of {source_octets} octets, target {target_messages} of \
         {target_octets}; their set-hashes differ"
    )]
    Content {
        /// Messages at the source.
        source_messages: u64,
        /// Octets at the source.
        source_octets: u64,
        /// Messages at the target.
        target_messages: u64,
        /// Octets at the target.
        target_octets: u64,
    },
}

/// Compares what the two sides hold for a move: nobody may write at either, and the set-hashes,
/// counts and octets must be equal.
///
/// # Errors
/// [`Mismatch`].
pub fn compare(move_id: MoveId, source: &Summary, target: &Summary) -> Result<Verified, Mismatch> {
    let held = |side: &Summary, state| side.state == state && side.move_id == Some(move_id);
    if !held(source, AccountState::Frozen) || !held(target, AccountState::Importing) {
        return Err(Mismatch::State {
            source_state: source.state,
            target_state: target.state,
        });
    }
    let equal = source.set_hash.is_some()
        && source.set_hash == target.set_hash
        && source.messages == target.messages
        && source.octets == target.octets;
    if equal {
        Ok(Verified(()))
    } else {
        Err(Mismatch::Content {
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
    fn who_cannot_be_written_to_comes_before_who_is_served() {
        let mut states = STATES;
        states.sort_by_key(|state| urgency(*state));
        let waits = |state: &MoveState| {
            use MoveState::{Aborting, Frozen, Switched, Verified};
            matches!(state, Switched | Verified | Frozen | Aborting)
        };
        assert!(states[..4].iter().all(waits), "{states:?}");
        assert_eq!(states[0], MoveState::Switched);
    }

    fn side(state: AccountState) -> Summary {
        Summary {
            state,
            epoch: Epoch::FIRST,
            move_id: Some(MoveId::from_octets([1; 16])),
            messages: 3,
            octets: 900,
            set_hash: Some(SetHash([7; 32])),
        }
    }

    #[test]
    fn sides_that_differ_in_hash_count_or_octets_are_not_verified() {
        let id = MoveId::from_octets([1; 16]);
        let (source, target) = (side(AccountState::Frozen), side(AccountState::Importing));
        assert!(compare(id, &source, &target).is_ok());
        for other in [
            Summary {
                set_hash: Some(SetHash([8; 32])),
                ..target.clone()
            },
            Summary {
                set_hash: None,
                ..target.clone()
            },
            Summary {
                messages: 2,
                ..target.clone()
            },
            Summary {
                octets: 901,
                ..target.clone()
            },
        ] {
            let refused = compare(id, &source, &other);
            assert!(matches!(refused, Err(Mismatch::Content { .. })));
        }
    }

    #[test]
    fn equal_sides_are_not_verified_while_one_of_them_serves_or_belongs_to_another_move() {
        let id = MoveId::from_octets([1; 16]);
        let (source, target) = (side(AccountState::Frozen), side(AccountState::Importing));
        for state in [
            AccountState::Active,
            AccountState::Moved,
            AccountState::Absent,
        ] {
            let refused = compare(id, &side(state), &target);
            assert!(
                matches!(refused, Err(Mismatch::State { .. })),
                "source {state:?}"
            );
            let refused = compare(id, &source, &side(state));
            assert!(
                matches!(refused, Err(Mismatch::State { .. })),
                "target {state:?}"
            );
        }
        let unsummed = || Summary {
            set_hash: None,
            ..side(AccountState::Frozen)
        };
        let unsummed = compare(
            id,
            &unsummed(),
            &Summary {
                set_hash: None,
                ..target.clone()
            },
        );
        assert!(unsummed.is_err(), "two sums that nobody has are not equal");
        let other = compare(MoveId::from_octets([2; 16]), &source, &target);
        assert!(matches!(other, Err(Mismatch::State { .. })));
    }
}
