//! The records of moves, and the commit point.

use directory::engine::{Engine, EngineError};
use directory_api::Epoch;
use directory_api::wire::{CompareAndSet, ListQuery, MoveId, MoveRecord, MoveState, PlacedBy};

use super::{backend, create, place, prepare};

pub(super) async fn a_move_is_not_taken_over_by_another<E: Engine>(engine: E) {
    prepare(&engine).await;
    let ann = create(&engine, "ann@x.test").await;
    let record = |id: u8, state| MoveRecord {
        account: ann.id,
        id: MoveId::from_octets([id; 16]),
        from: ann.home.clone(),
        to: place("b2"),
        state,
        started_ms: 1,
        updated_ms: 2,
    };
    engine
        .put_move(record(1, MoveState::Planned), 1)
        .await
        .unwrap();
    engine
        .put_move(record(1, MoveState::Copying), 1)
        .await
        .unwrap();
    match engine.put_move(record(2, MoveState::Planned), 1).await {
        Err(EngineError::MoveInProgress(other)) => {
            assert_eq!(*other, record(1, MoveState::Copying))
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        engine.delete_move(ann.id, 1).await,
        Err(EngineError::InUse(_))
    ));
    assert!(matches!(
        engine.delete_account(ann.id, 1).await,
        Err(EngineError::InUse(_))
    ));
    let held = async |state| {
        engine.put_move(record(1, state), 1).await.unwrap();
        let record = engine
            .login_record("ann@x.test".parse().unwrap())
            .await
            .unwrap();
        record.unwrap().held_by_move
    };
    assert!(held(MoveState::Frozen).await);
    assert!(held(MoveState::Verified).await);
    // The source serves again before the target has let its copy go.
    assert!(!held(MoveState::Aborting).await);
    assert!(!held(MoveState::Aborted).await);
    engine
        .put_move(record(2, MoveState::Planned), 1)
        .await
        .unwrap();
    let query = ListQuery {
        filter: Some("planned".into()),
        ..ListQuery::default()
    };
    assert_eq!(engine.moves(query).await.unwrap().items.len(), 1);
}

pub(super) async fn a_move_commits_its_home_only_when_verified<E: Engine>(engine: E) {
    prepare(&engine).await;
    let ann = create(&engine, "ann@x.test").await;
    let id = MoveId::from_octets([1; 16]);
    let set = async |id| {
        let request = CompareAndSet {
            from_epoch: Epoch::FIRST,
            to: place("b2"),
            move_id: Some(id),
        };
        engine.compare_and_set(ann.id, request, 1).await
    };
    assert!(matches!(set(id).await, Err(EngineError::Invalid(_))));
    let put = async |id, state| {
        let record = MoveRecord {
            account: ann.id,
            id,
            from: ann.home.clone(),
            to: place("b2"),
            state,
            started_ms: 1,
            updated_ms: 2,
        };
        engine.put_move(record, 1).await.map(drop)
    };
    assert!(matches!(
        put(id, MoveState::Frozen).await,
        Err(EngineError::Invalid(_))
    ));
    for state in [MoveState::Planned, MoveState::Frozen] {
        put(id, state).await.unwrap();
        assert!(matches!(set(id).await, Err(EngineError::MoveInProgress(_))));
    }
    put(id, MoveState::Verified).await.unwrap();
    let mut by_hand = CompareAndSet {
        from_epoch: Epoch::FIRST,
        to: place("b2"),
        move_id: None,
    };
    let refused = engine.compare_and_set(ann.id, by_hand.clone(), 1).await;
    assert!(matches!(refused, Err(EngineError::MoveInProgress(_))));
    (by_hand.to, by_hand.move_id) = (place("b1"), Some(id));
    let refused = engine.compare_and_set(ann.id, by_hand, 1).await;
    assert!(matches!(refused, Err(EngineError::Invalid(_))));
    let target_removed = async || engine.delete_backend(backend("b2"), 1).await.map(drop);
    assert!(matches!(target_removed().await, Err(EngineError::InUse(_))));
    let early = put(id, MoveState::Switched).await;
    assert!(
        matches!(early, Err(EngineError::StaleEpoch(_))),
        "the home has not changed yet"
    );

    // Given up: the compare-and-set that was already on its way comes too late, and so does
    // whatever else the move still says.
    put(id, MoveState::Aborting).await.unwrap();
    assert!(matches!(set(id).await, Err(EngineError::MoveInProgress(_))));
    for late in [MoveState::Frozen, MoveState::Verified, MoveState::Switched] {
        assert!(matches!(
            put(id, late).await,
            Err(EngineError::MoveInProgress(_))
        ));
    }
    put(id, MoveState::Aborted).await.unwrap();

    let id = MoveId::from_octets([3; 16]);
    for state in [MoveState::Planned, MoveState::Frozen, MoveState::Verified] {
        put(id, state).await.unwrap();
    }
    let other = set(MoveId::from_octets([2; 16])).await;
    assert!(matches!(other, Err(EngineError::MoveInProgress(_))));
    assert_eq!(set(id).await.unwrap().home.epoch, Epoch(2));
    let placed = engine.account(ann.id).await.unwrap().placed.unwrap();
    assert_eq!(placed.by, PlacedBy::Move);
    let late = put(id, MoveState::Aborting).await;
    assert!(
        matches!(late, Err(EngineError::StaleEpoch(_))),
        "the commit point has passed"
    );
    put(id, MoveState::Switched).await.unwrap();
    put(id, MoveState::Released).await.unwrap();
}

pub(super) async fn a_move_is_given_up_even_when_its_target_was_removed<E: Engine>(engine: E) {
    prepare(&engine).await;
    let ann = create(&engine, "ann@x.test").await;
    let put = async |state| {
        let record = MoveRecord {
            account: ann.id,
            id: MoveId::from_octets([1; 16]),
            from: ann.home.clone(),
            to: place("b2"),
            state,
            started_ms: 1,
            updated_ms: 2,
        };
        engine.put_move(record, 1).await.map(drop)
    };
    put(MoveState::Planned).await.unwrap();
    put(MoveState::Frozen).await.unwrap();
    let remove = async || engine.delete_backend(backend("b2"), 1).await.map(drop);
    assert!(matches!(remove().await, Err(EngineError::InUse(_))));
    put(MoveState::Aborting).await.unwrap();
    remove().await.unwrap();
    put(MoveState::Aborted).await.unwrap();
    assert!(matches!(
        put(MoveState::Planned).await,
        Err(EngineError::UnknownPlace(_))
    ));
}
