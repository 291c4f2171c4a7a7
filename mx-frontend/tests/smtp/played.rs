//! Plays the neighbours of a front-end: a directory and back-ends, over real links.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use daemon::identity::{Authority, Identity, IdentityFiles, Role};
use daemon::link::{self, Problem, next_data};
use daemon::shutdown::Shutdown;
use directory_api::wire::{
    Backend, ChangesReply, Foreign, Located, LookupReply, LookupRequest, LookupResult, Verdict,
};
use directory_api::{
    AccountId, BackendName, BackendState, ChangeNumber, Epoch, Home, Quota, VolumeName,
};
use mx_frontend::{Action, Config, Frontend, Limits};
use store_api::away::Away;
use store_api::deliver::{DeliverCommit, DeliverOpen, DeliverReply, DeliverResult, Outcome};
use store_api::frame::{Decoder, Event, Kind};
use store_api::room::{Room, RoomRequest};
use tempfile::TempDir;
use testkit::address::unused_address;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

/// A step that takes longer than this has failed.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// A front-end and its neighbours; dropped, all end.
pub(crate) struct World {
    pub(crate) smtp: SocketAddr,
    /// In TLS from the first octet.
    pub(crate) smtps: SocketAddr,
    /// Always as under stress.
    pub(crate) stressed: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) frontend_shutdown: Shutdown,
    shutdown: Shutdown,
    pub(crate) directory: PlayedDirectory,
    pub(crate) folder: Folder,
    directory_address: SocketAddr,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

impl World {
    /// With the directory there.
    pub(crate) async fn start(limits: Limits) -> Self {
        let world = Self::without_directory(limits).await;
        world.start_directory().await;
        world
    }

    /// Where nobody answers for the directory yet.
    pub(crate) async fn without_directory(limits: Limits) -> Self {
        Self::with(limits, |_| {}).await
    }

    /// The same with other settings.
    pub(crate) async fn with(limits: Limits, change: impl FnOnce(&mut Config)) -> Self {
        daemon::tier::install_crypto();
        let folder = Folder::new();
        let directory_address = unused_address();
        let mut config = Config {
            listen: any_port(),
            smtps_listen: Some(any_port()),
            stressed_listen: Some(any_port()),
            metrics_listen: any_port(),
            hostname: "mx.test".into(),
            directory: directory_address.to_string(),
            postmaster: "postmaster@example.test".into(),
            identity: folder.issue(Role::MxFrontend, "mx1").0,
            limits,
            ..Config::default()
        };
        config.tls.certificate = Some(folder.path("public.pem"));
        config.tls.key = Some(folder.path("public.key"));
        // No test asks the DNS of its machine.
        config.checks.reverse_dns = Action::Off;
        config.checks.spf = Action::Off;
        change(&mut config);
        let frontend = Frontend::bind(config).unwrap();
        let shutdown = Shutdown::new();
        let frontend_shutdown = shutdown.child();
        let world = Self {
            smtp: frontend.address("listen").unwrap(),
            smtps: frontend.address("smtps_listen").unwrap(),
            stressed: frontend.address("stressed_listen").unwrap(),
            metrics: frontend.metrics_address().unwrap(),
            directory: PlayedDirectory::default(),
            directory_address,
            folder,
            frontend_shutdown: frontend_shutdown.clone(),
            shutdown,
        };
        frontend_shutdown.spawn(frontend.serve(frontend_shutdown.clone()));
        world
    }

    pub(crate) async fn start_directory(&self) {
        let listener = TcpListener::bind(self.directory_address).await.unwrap();
        let identity = Arc::new(self.folder.issue(Role::Directory, "d1").1);
        let router = self.directory.router();
        self.shutdown.spawn(link::serve(
            listener,
            identity,
            router,
            self.shutdown.clone(),
        ));
    }

    pub(crate) async fn backend(&self, name: &str) -> PlayedBackend {
        let listener = TcpListener::bind(any_port()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let identity = Arc::new(self.folder.issue(Role::StoreBackend, name).1);
        let (stage, seen) = Stage::new();
        self.shutdown.spawn(link::serve(
            listener,
            identity,
            stage.router(),
            self.shutdown.clone(),
        ));
        self.directory.add_backend(name, address);
        PlayedBackend { stage, seen }
    }
}

/// Certificates in a temporary folder.
pub(crate) struct Folder {
    folder: TempDir,
    authority: Authority,
}

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(folder.path()).unwrap();
        let this = Self { folder, authority };
        let names = ["localhost", "127.0.0.1"];
        this.authority
            .issue_public(&names, &this.path("public.pem"), &this.path("public.key"))
            .unwrap();
        let names = ["mx.second.test"];
        this.authority
            .issue_public(&names, &this.path("second.pem"), &this.path("second.key"))
            .unwrap();
        this
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn issue(&self, role: Role, node: &str) -> (IdentityFiles, Identity) {
        let files = IdentityFiles {
            ca: self.path(&format!("{node}-ca.pem")),
            certificate: self.path(&format!("{node}.pem")),
            key: self.path(&format!("{node}.key")),
        };
        let identity = self.authority.issue(role, node, &files).unwrap();
        (files, identity)
    }

    pub(crate) fn authority_pem(&self) -> &str {
        self.authority.certificate_pem()
    }
}

pub(crate) fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Knows the addresses it was told.
#[derive(Clone, Default)]
pub(crate) struct PlayedDirectory {
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    addresses: HashMap<String, Vec<Located>>,
    backends: HashMap<String, Backend>,
}

impl PlayedDirectory {
    /// `accounts`: number, home, epoch. The domain of the address becomes ours.
    pub(crate) fn add(&self, address: &str, accounts: &[(u64, &str, u64)]) {
        let located = accounts.iter().map(|(account, home, epoch)| Located {
            account: AccountId(*account),
            home: Home {
                backend: BackendName::new(*home).unwrap(),
                volume: VolumeName::new("v1").unwrap(),
                epoch: Epoch(*epoch),
            },
            quota: Quota::NONE,
            detail: None,
            is_caught: false,
        });
        self.known
            .lock()
            .unwrap()
            .addresses
            .insert(address.into(), located.collect());
    }

    /// Limits the account to which a known address leads.
    pub(crate) fn limit(&self, address: &str, octets: u64) {
        let mut known = self.known.lock().unwrap();
        known.addresses.get_mut(address).unwrap()[0].quota = Quota {
            octets: Some(octets),
            messages: None,
            as_of: ChangeNumber(1),
        };
    }

    /// A back-end that is another mail system.
    pub(crate) fn add_foreign(&self, name: &str, address: SocketAddr) {
        self.add_backend(name, address);
        let foreign = Foreign {
            imap: Some(format!("plain:{address}").parse().unwrap()),
            pop3: None,
        };
        let mut known = self.known.lock().unwrap();
        known.backends.get_mut(name).unwrap().foreign = Some(foreign);
    }

    pub(crate) fn add_backend(&self, name: &str, address: SocketAddr) {
        let backend = Backend {
            name: BackendName::new(name).unwrap(),
            address: address.to_string(),
            state: BackendState::Active,
            weight: 1,
            volumes: Vec::new(),
            accounts: 0,
            foreign: None,
        };
        self.known
            .lock()
            .unwrap()
            .backends
            .insert(name.into(), backend);
    }

    fn router(&self) -> Router {
        Router::new()
            .route("/v1/lookup", post(lookup))
            .route("/v1/backends/{name}", get(backend))
            .route("/v1/changes", get(changes))
            .with_state(self.clone())
    }

    fn verdict(&self, address: &directory_api::Address) -> Verdict {
        let known = self.known.lock().unwrap();
        match known.addresses.get(address.as_str()) {
            Some(located) => Verdict::Accounts(located.clone()),
            None if ["example.test", "second.test"].contains(&address.domain()) => {
                Verdict::UnknownAddress
            }
            None => Verdict::UnknownDomain,
        }
    }
}

async fn lookup(
    State(directory): State<PlayedDirectory>,
    Json(request): Json<LookupRequest>,
) -> Json<LookupReply> {
    let result = |address: directory_api::Address| LookupResult {
        verdict: directory.verdict(&address),
        address,
        via: Vec::new(),
        is_derived: false,
    };
    let results = request.addresses.into_iter().map(result).collect();
    Json(LookupReply {
        change: ChangeNumber(1),
        results,
    })
}

async fn backend(
    State(directory): State<PlayedDirectory>,
    Path(name): Path<String>,
) -> Result<Json<Backend>, Problem> {
    let known = directory.known.lock().unwrap();
    let backend = known.backends.get(&name).cloned();
    backend
        .map(Json)
        .ok_or_else(|| Problem::not_found("no such back-end"))
}

async fn changes(uri: http::Uri) -> Json<ChangesReply> {
    if !uri.query().unwrap_or_default().contains("wait_ms=0") {
        // Nothing ever changes here.
        std::future::pending::<()>().await;
    }
    Json(ChangesReply {
        changes: Vec::new(),
        last: ChangeNumber(1),
        after_at_ms: None,
    })
}

/// What a back-end does with the next delivery.
#[derive(Clone, Debug)]
pub(crate) enum Play {
    /// Refuses the stream once it has read the first frame.
    Refuse,
    /// Refuses it with this status, and code, once it has read the first frame.
    RefuseWith(StatusCode, &'static str),
    /// The same once it has read the commit.
    RefuseCommit(StatusCode, &'static str),
    /// Never reads on after the first frame.
    Stall,
    /// Answers nothing that can be read after the commit.
    Mumble,
    /// Takes the commit and never answers.
    Hang,
    /// Answers this for every recipient.
    Answer(Outcome),
}

/// What a back-end saw.
#[derive(Debug)]
pub(crate) enum Seen {
    Open(DeliverOpen),
    /// Octets so far.
    Data(usize),
    Commit(DeliverCommit, Vec<u8>),
    /// The stream ended without a commit after so many octets.
    Cut(usize),
}

/// One back-end and what it saw.
pub(crate) struct PlayedBackend {
    stage: Stage,
    seen: UnboundedReceiver<Seen>,
}

impl PlayedBackend {
    /// What to do with the next delivery; without a play all is committed.
    pub(crate) fn play(&self, play: Play) {
        self.stage.plays.lock().unwrap().push_back(play);
    }

    pub(crate) async fn next(&mut self) -> Seen {
        timeout(LONG, self.seen.recv())
            .await
            .expect("the back-end sees something")
            .unwrap()
    }

    /// The next delivery's first frame.
    pub(crate) async fn opened(&mut self) -> DeliverOpen {
        match self.next().await {
            Seen::Open(open) => open,
            other => panic!("not a new delivery: {other:?}"),
        }
    }

    /// Waits until so many octets of the delivery under way have come.
    pub(crate) async fn data(&mut self, octets_min: usize) {
        loop {
            match self.next().await {
                Seen::Data(octets) if octets >= octets_min => return,
                Seen::Data(_) => {}
                other => panic!("no data: {other:?}"),
            }
        }
    }

    /// The commit of the delivery under way.
    pub(crate) async fn committed(&mut self) -> (DeliverCommit, Vec<u8>) {
        loop {
            match self.next().await {
                Seen::Data(_) => {}
                Seen::Commit(commit, body) => return (commit, body),
                other => panic!("no commit: {other:?}"),
            }
        }
    }

    /// Waits until the delivery under way is cut; a commit is a failure.
    pub(crate) async fn cut(&mut self) -> usize {
        loop {
            match self.next().await {
                Seen::Data(_) => {}
                Seen::Cut(octets) => return octets,
                other => panic!("not cut: {other:?}"),
            }
        }
    }

    /// From now on it holds mail for accounts of others.
    pub(crate) fn holds(&self) {
        self.stage.holds.store(true, Ordering::Relaxed);
    }

    /// How often it was asked for an account's room.
    pub(crate) fn rooms_asked(&self) -> usize {
        self.stage.rooms_asked.load(Ordering::Relaxed)
    }

    /// Whether everything that was seen has been taken.
    pub(crate) fn saw_nothing_more(&mut self) -> bool {
        self.seen.try_recv().is_err()
    }
}

#[derive(Clone)]
struct Stage {
    plays: Arc<Mutex<VecDeque<Play>>>,
    seen: UnboundedSender<Seen>,
    rooms_asked: Arc<AtomicUsize>,
    holds: Arc<AtomicBool>,
}

impl Stage {
    fn new() -> (Self, UnboundedReceiver<Seen>) {
        let (seen, receiver) = unbounded_channel();
        (
            Self {
                plays: Arc::default(),
                seen,
                rooms_asked: Arc::default(),
                holds: Arc::default(),
            },
            receiver,
        )
    }

    fn router(&self) -> Router {
        Router::new()
            .route(store_api::deliver::PATH, post(deliver))
            .route(store_api::room::PATH, post(room))
            .route(store_api::away::PATH, get(away))
            .with_state(self.clone())
    }
}

async fn away(State(stage): State<Stage>) -> Json<Away> {
    Json(Away {
        volumes: Vec::new(),
        holds: stage.holds.load(Ordering::Relaxed),
    })
}

/// Half of what the account may hold is used.
async fn room(State(stage): State<Stage>, Json(request): Json<RoomRequest>) -> Json<Room> {
    stage.rooms_asked.fetch_add(1, Ordering::Relaxed);
    let used = request.quota.octets.unwrap() / 2;
    Json(Room::left(&request.quota, 0, used))
}

/// Tells of a stream that ended without a commit, however its handler ended.
struct Watch {
    seen: UnboundedSender<Seen>,
    body: Vec<u8>,
    over: bool,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.over {
            _ = self.seen.send(Seen::Cut(self.body.len()));
        }
    }
}

async fn deliver(State(stage): State<Stage>, body: Body) -> Response {
    let play = stage.plays.lock().unwrap().pop_front();
    let mut watch = Watch {
        seen: stage.seen.clone(),
        body: Vec::new(),
        over: false,
    };
    let mut body = body;
    let mut decoder = Decoder::default();
    loop {
        while let Some(event) = decoder.next().unwrap() {
            match event {
                Event::Control(Kind::Open, json) => {
                    _ = stage
                        .seen
                        .send(Seen::Open(serde_json::from_slice(&json).unwrap()));
                    match play {
                        Some(Play::Refuse) => {
                            return Problem::unavailable("read-only").into_response();
                        }
                        Some(Play::RefuseWith(status, code)) => {
                            return Problem::new(status, code, "never").into_response();
                        }
                        Some(Play::Stall) => return std::future::pending().await,
                        _ => {}
                    }
                }
                Event::Data(octets) => {
                    watch.body.extend_from_slice(&octets);
                    _ = stage.seen.send(Seen::Data(watch.body.len()));
                }
                Event::Control(Kind::Commit, json) => {
                    let commit: DeliverCommit = serde_json::from_slice(&json).unwrap();
                    watch.over = true;
                    let body = std::mem::take(&mut watch.body);
                    assert_eq!(commit.octets, body.len() as u64);
                    return answer(&stage, play, commit, body).await;
                }
                Event::Control(kind, _) => panic!("unexpected frame {kind:?}"),
            }
        }
        match next_data(&mut body).await {
            Ok(Some(piece)) => decoder.push(piece),
            Ok(None) | Err(_) => return StatusCode::BAD_REQUEST.into_response(),
        }
    }
}

async fn answer(
    stage: &Stage,
    play: Option<Play>,
    commit: DeliverCommit,
    body: Vec<u8>,
) -> Response {
    let results: Vec<_> = commit
        .recipients
        .iter()
        .map(|one| DeliverResult {
            account: one.account,
            outcome: match &play {
                Some(Play::Answer(outcome)) => outcome.clone(),
                _ => Outcome::Committed { uid: 1 },
            },
        })
        .collect();
    _ = stage.seen.send(Seen::Commit(commit, body));
    match play {
        Some(Play::Mumble) => (StatusCode::INTERNAL_SERVER_ERROR, "mumble").into_response(),
        Some(Play::Hang) => std::future::pending().await,
        Some(Play::RefuseCommit(status, code)) => {
            Problem::new(status, code, "never").into_response()
        }
        _ => Json(DeliverReply { results }).into_response(),
    }
}
