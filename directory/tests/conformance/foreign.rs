//! Back-ends that are another mail system.

use directory::engine::{Engine, EngineError};
use directory_api::Service;
use directory_api::wire::{
    BackendPut, CompareAndSet, FOREIGN_VOLUME, Foreign, ForeignService, MoveId, MoveRecord,
    MoveState, Place,
};

use super::{announcement, backend, create, draft, place, prepare};

fn foreign(imap: &str) -> BackendPut {
    BackendPut {
        foreign: Some(Foreign {
            imap: Some(imap.parse().unwrap()),
            pop3: None,
        }),
        ..BackendPut::default()
    }
}

fn there() -> Place {
    Place {
        backend: backend("old"),
        volume: FOREIGN_VOLUME.parse().unwrap(),
    }
}

pub(super) async fn a_foreign_back_end_is_a_home_by_hand_and_takes_no_part_in_moves<E: Engine>(
    engine: E,
) {
    prepare(&engine).await;
    let put = foreign("starttls:old.test:143");
    let added = engine.put_backend(backend("old"), put.clone(), 1).await;
    assert_eq!(added.unwrap().now.foreign, put.foreign);
    let ann = create(&engine, "ann@x.test").await;
    let at = |epoch| CompareAndSet {
        from_epoch: epoch,
        to: there(),
        move_id: None,
    };
    let moving = async |from, to| {
        let record = MoveRecord {
            account: ann.id,
            id: MoveId::from_octets([1; 16]),
            from,
            to,
            state: MoveState::Planned,
            started_ms: 1,
            updated_ms: 2,
        };
        let refused = engine.put_move(record, 1).await;
        assert!(
            matches!(refused, Err(EngineError::Invalid(why)) if why.contains("foreign")),
            "{refused:?}"
        );
    };
    moving(ann.home.clone(), there()).await;
    let set = engine.compare_and_set(ann.id, at(ann.home.epoch), 1).await;
    let home = set.unwrap().home;
    let login = engine.login_record("ann@x.test".parse().unwrap()).await;
    let login = login.unwrap().unwrap();
    let imap = login.foreign.as_ref().unwrap().service(Service::Imap);
    assert_eq!(imap, Some(&"starttls:old.test:143".parse().unwrap()));
    assert!(login.backend.is_some());

    moving(home.clone(), place("b1")).await;
    let back = CompareAndSet {
        from_epoch: home.epoch,
        to: place("b1"),
        move_id: None,
    };
    engine.compare_and_set(ann.id, back, 1).await.unwrap();
    let login = engine.login_record("ann@x.test".parse().unwrap()).await;
    assert_eq!(login.unwrap().unwrap().foreign, None);
}

pub(super) async fn a_foreign_back_end_gets_no_new_accounts_unasked_and_stays_what_it_is<
    E: Engine,
>(
    engine: E,
) {
    let old = backend("old");
    let nowhere = BackendPut {
        foreign: Some(Foreign {
            imap: None,
            pop3: None,
        }),
        ..BackendPut::default()
    };
    let portless = BackendPut {
        foreign: Some(Foreign {
            imap: Some(ForeignService {
                address: "old.test".into(),
                .."plain:old.test:143".parse().unwrap()
            }),
            pop3: None,
        }),
        ..BackendPut::default()
    };
    for wrong in [nowhere, portless] {
        let refused = engine.put_backend(old.clone(), wrong, 1).await;
        assert!(matches!(refused, Err(EngineError::Invalid(_))));
    }
    let put = foreign("implicit:old.test:993");
    engine.put_backend(old.clone(), put, 1).await.unwrap();
    let refused = engine.create_account(draft("eve"), 1).await;
    assert!(matches!(refused, Err(EngineError::NoBackend)));

    prepare(&engine).await;
    for name in ["ann@x.test", "bob@x.test", "cid@x.test"] {
        assert_ne!(create(&engine, name).await.home.backend, old);
    }
    let mut asked = draft("dan");
    asked.backend = Some(old.clone());
    let dan = engine.create_account(asked, 1).await.unwrap().now;
    assert_eq!(dan.home.volume.as_str(), FOREIGN_VOLUME);

    let as_ours = engine.announce(announcement("old", 7, 1), 1).await;
    assert!(matches!(as_ours, Err(EngineError::Invalid(_))));
    let address = BackendPut {
        address: Some("old.test:4300".into()),
        ..BackendPut::default()
    };
    let as_ours = engine.put_backend(old, address, 1).await;
    assert!(matches!(as_ours, Err(EngineError::Invalid(_))));
    let put = foreign("implicit:old.test:993");
    let ours = engine.put_backend(backend("b1"), put, 1).await;
    assert!(matches!(ours, Err(EngineError::Invalid(_))));
}
