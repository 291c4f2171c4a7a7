//! A move that is given up leaves the account served, whoever is away and whoever else is at work.
#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use daemon::identity::{Authority, Identity, IdentityFiles, Role};
use daemon::link::{self, Problem};
use daemon::shutdown::Shutdown;
use directory_api::client::{ClientOptions, DirectoryClient};
use directory_api::wire::{
    AccountHome, Backend, Changed, MoveId, MoveRecord, MoveState, Page, Place, code,
};
use directory_api::{AccountId, BackendName, BackendState, ChangeNumber, Epoch, Home};
use http::StatusCode;
use migrator::perform::{Limits, MoveError, Mover, Watch};
use migrator::step::Step;
use store_api::transfer::{AccountState, PullProgress, Summary, Undo};
use store_api::{Backends, SetHash};
use testkit::address::unused_address;
use tokio::net::TcpListener;

const ACCOUNT: AccountId = AccountId(1);

/// A played directory and a played source `b1`. `b2`, the target, is not there, or hangs.
struct World {
    mover: Mover,
    played: Arc<Played>,
    shutdown: Shutdown,
    _folder: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

struct Played {
    source: SocketAddr,
    /// A target that takes a pull and says nothing.
    hangs_at: SocketAddr,
    /// None: `b2` was removed.
    target: Mutex<Option<SocketAddr>>,
    record: Mutex<MoveRecord>,
    refusal: Option<&'static str>,
    thawed: Mutex<Vec<MoveId>>,
    /// So many records are not taken, because the directory's database is away.
    away: AtomicUsize,
}

fn record(id: u8, state: MoveState) -> MoveRecord {
    MoveRecord {
        account: ACCOUNT,
        id: MoveId::from_octets([id; 16]),
        from: Home {
            backend: "b1".parse().unwrap(),
            volume: "v1".parse().unwrap(),
            epoch: Epoch(1),
        },
        to: Place {
            backend: "b2".parse().unwrap(),
            volume: "v1".parse().unwrap(),
        },
        state,
        started_ms: 1,
        updated_ms: 1,
    }
}

impl World {
    async fn start(known: MoveRecord, refusal: Option<&'static str>) -> Self {
        daemon::tier::install_crypto();
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(folder.path()).unwrap();
        let issue = |role, node: &str| -> Identity {
            let file = |kind: &str| folder.path().join(format!("{node}-{kind}.pem"));
            let files = IdentityFiles {
                ca: file("ca"),
                certificate: file("certificate"),
                key: file("key"),
            };
            authority.issue(role, node, &files).unwrap()
        };
        let listen = async || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (directory, source, hanging) = (listen().await, listen().await, listen().await);
        let hangs_at = hanging.local_addr().unwrap();
        let directory_address = directory.local_addr().unwrap().to_string();
        let played = Arc::new(Played {
            source: source.local_addr().unwrap(),
            hangs_at,
            target: Mutex::new(Some(unused_address())),
            record: Mutex::new(known),
            refusal,
            thawed: Mutex::default(),
            away: AtomicUsize::new(0),
        });
        let shutdown = Shutdown::new();
        for (listener, role, node) in [
            (directory, Role::Directory, "d1"),
            (source, Role::StoreBackend, "b1"),
            (hanging, Role::StoreBackend, "b2"),
        ] {
            let (identity, router) = (Arc::new(issue(role, node)), router(Arc::clone(&played)));
            shutdown.spawn(link::serve(listener, identity, router, shutdown.clone()));
        }
        let identity = Arc::new(issue(Role::Migrator, "m1"));
        let client = DirectoryClient::new(&directory_address, &identity, &ClientOptions::default());
        Self {
            mover: Mover::new(client.clone(), Backends::new(identity, client)),
            played,
            shutdown,
            _folder: folder,
        }
    }

    fn thawed(&self) -> usize {
        self.played.thawed.lock().unwrap().len()
    }
}

fn router(played: Arc<Played>) -> Router {
    Router::new()
        .route("/v1/homes/{account}", get(home))
        .route("/v1/backends/{name}", get(backend))
        .route("/v1/moves", get(moves))
        .route("/v1/moves/{account}", axum::routing::put(put_move))
        .route(store_api::transfer::path::OFFER, post(freeze))
        .route(store_api::transfer::path::FREEZE, post(freeze))
        .route(store_api::transfer::path::THAW, post(thaw))
        .route(
            store_api::transfer::path::PULL,
            post(std::future::pending::<()>),
        )
        .route(store_api::transfer::path::DISCARD, post(discard))
        .with_state(played)
}

async fn home() -> Json<AccountHome> {
    let home = record(1, MoveState::Planned).from;
    Json(AccountHome {
        account: ACCOUNT,
        home,
    })
}

async fn backend(
    State(played): State<Arc<Played>>,
    Path(name): Path<BackendName>,
) -> Result<Json<Backend>, Problem> {
    let address = match name.as_str() {
        "b1" => Some(played.source),
        _ => *played.target.lock().unwrap(),
    };
    let address = address.ok_or_else(|| Problem::not_found("no such back-end"))?;
    Ok(Json(Backend {
        name,
        address: address.to_string(),
        state: BackendState::Active,
        weight: 1,
        volumes: Vec::new(),
        accounts: 0,
        foreign: None,
    }))
}

async fn put_move(
    State(played): State<Arc<Played>>,
    Json(new): Json<MoveRecord>,
) -> Result<Json<Changed<MoveRecord>>, Problem> {
    let is_away = |left: usize| left.checked_sub(1);
    let order = Ordering::Relaxed;
    if played.away.fetch_update(order, order, is_away).is_ok() {
        return Err(Problem::unavailable("the database is away"));
    }
    let mut known = played.record.lock().unwrap();
    if known.id != new.id || !known.state.can_become(new.state) {
        let problem = Problem::new(StatusCode::CONFLICT, code::MOVE_IN_PROGRESS, "not now");
        return Err(problem.with_detail(serde_json::to_value(&*known).unwrap()));
    }
    *known = new.clone();
    Ok(Json(Changed {
        change: ChangeNumber(1),
        now: new,
    }))
}

fn summary(state: AccountState) -> Json<Summary> {
    Json(Summary {
        state,
        epoch: Epoch(1),
        move_id: None,
        messages: 0,
        octets: 0,
        set_hash: Some(SetHash([0; 32])),
    })
}

async fn freeze() -> Json<Summary> {
    summary(AccountState::Frozen)
}

async fn thaw(
    State(played): State<Arc<Played>>,
    Json(undo): Json<Undo>,
) -> Result<Json<Summary>, Problem> {
    if let Some(code) = played.refusal {
        return Err(Problem::new(StatusCode::CONFLICT, code, "not so"));
    }
    played.thawed.lock().unwrap().push(undo.move_id);
    Ok(summary(AccountState::Active))
}

async fn discard() -> Json<Summary> {
    summary(AccountState::Absent)
}

struct Silent;

impl Watch for Silent {
    fn step(&mut self, _: Step) {}

    fn copied(&mut self, _: &PullProgress) {}
}

#[tokio::test]
async fn the_source_serves_again_though_the_target_is_away_and_the_move_ends_with_its_removal() {
    let mut frozen = record(1, MoveState::Frozen);
    let world = World::start(frozen.clone(), None).await;
    let failed = world.mover.finish(&mut frozen, None, &mut Silent).await;
    assert!(
        matches!(failed, Err(MoveError::Transfer { .. })),
        "{failed:?}"
    );
    assert_eq!((frozen.state, world.thawed()), (MoveState::Aborting, 1));

    *world.played.target.lock().unwrap() = None;
    // Another process: this one has the address in its cache.
    let other = World::start(frozen.clone(), None).await;
    *other.played.target.lock().unwrap() = None;
    other
        .mover
        .finish(&mut frozen, None, &mut Silent)
        .await
        .unwrap();
    assert_eq!(frozen.state, MoveState::Aborted);
}

#[tokio::test]
async fn a_back_end_that_has_nothing_of_the_move_does_not_keep_it_from_ending() {
    for (code, ends) in [
        ("not_found", true),
        ("wrong_state", true),
        ("other_move", true),
        ("moved", true),
        ("unavailable", false),
    ] {
        let mut planned = record(1, MoveState::Planned);
        let world = World::start(planned.clone(), Some(code)).await;
        *world.played.target.lock().unwrap() = None;
        let undone = world.mover.abort(&mut planned, &mut Silent).await;
        assert_eq!(undone.is_ok(), ends, "{code}");
        let state = if ends {
            MoveState::Aborted
        } else {
            MoveState::Aborting
        };
        assert_eq!(planned.state, state, "{code}");
    }
}

#[tokio::test]
async fn a_freeze_that_comes_after_another_migrator_has_given_the_move_up_is_undone() {
    for known in [record(1, MoveState::Aborted), record(2, MoveState::Planned)] {
        let mut late = record(1, MoveState::Planned);
        let world = World::start(known, None).await;
        *world.played.target.lock().unwrap() = None;
        let failed = world.mover.finish(&mut late, None, &mut Silent).await;
        assert!(matches!(failed, Err(MoveError::Directory(_))), "{failed:?}");
        assert_eq!(*world.played.thawed.lock().unwrap(), [late.id]);
        assert_eq!(late.state, MoveState::Aborted);
    }
}

#[tokio::test]
async fn a_target_that_hangs_does_not_keep_an_account_frozen() {
    let mut frozen = record(1, MoveState::Frozen);
    let world = World::start(frozen.clone(), None).await;
    *world.played.target.lock().unwrap() = Some(world.played.hangs_at);
    let limits = Limits {
        frozen_max: Duration::from_millis(500),
        ..Limits::default()
    };
    let mover = world.mover.clone().within(limits);
    let failed = mover.finish(&mut frozen, None, &mut Silent).await;
    assert!(
        matches!(failed, Err(MoveError::FrozenTooLong(_))),
        "{failed:?}"
    );
    assert_eq!((frozen.state, world.thawed()), (MoveState::Aborted, 1));
}

#[tokio::test]
async fn a_directory_that_is_away_for_a_while_is_waited_for() {
    let mut frozen = record(1, MoveState::Frozen);
    let world = World::start(frozen.clone(), None).await;
    *world.played.target.lock().unwrap() = None;
    // Away when the move is given up: nobody but the directory can say whether it has switched.
    world.played.away.store(1000, Ordering::Relaxed);
    let undone = world.mover.abort(&mut frozen, &mut Silent).await;
    assert!(matches!(undone, Err(MoveError::Directory(_))), "{undone:?}");
    assert_eq!((frozen.state, world.thawed()), (MoveState::Frozen, 0));
    let mut planned = record(1, MoveState::Planned);
    let world = World::start(planned.clone(), None).await;
    world.played.away.store(2, Ordering::Relaxed);
    let until = Some(MoveState::Copying);
    let mover = &world.mover;
    mover
        .finish(&mut planned, until, &mut Silent)
        .await
        .unwrap();
    assert_eq!(planned.state, MoveState::Copying);
}

#[tokio::test]
async fn moves_whose_users_wait_are_the_first_to_be_taken_up() {
    let world = World::start(record(1, MoveState::Frozen), None).await;
    let states = |moves: Vec<MoveRecord>| moves.into_iter().map(|one| one.state);
    let left = states(world.mover.unfinished().await.unwrap());
    let wanted = [
        MoveState::Switched,
        MoveState::Frozen,
        MoveState::Copying,
        MoveState::Planned,
    ];
    assert_eq!(left.collect::<Vec<_>>(), wanted);
}

/// In the order of accounts.
async fn moves() -> Json<Page<MoveRecord>> {
    use MoveState::{Copying, Frozen, Planned, Released, Switched};
    let states = [Planned, Frozen, Released, Copying, Switched].into_iter();
    Json(Page {
        items: states.map(|state| record(1, state)).collect(),
        next: None,
    })
}
