//! Plays the neighbours of a proxy: a directory that signs grants, and back-ends that check them.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use daemon::clock;
use daemon::identity::{Authority, Identity, IdentityFiles, Role};
use daemon::link::{self, BodySender, LinkBody, Problem, next_data};
use daemon::random;
use daemon::shutdown::Shutdown;
use directory_api::grant::{Grant, GrantSigner, GrantVerifier};
use directory_api::wire::{
    Backend, Change, ChangeKind, ChangesReply, Foreign, LoginReply, LoginRequest, code,
};
use directory_api::{
    AccountId, BackendName, BackendState, ChangeNumber, Epoch, Home, LoginName, Quota, VolumeName,
};
use pop_imap_proxy::operate::ProxyClient;
use pop_imap_proxy::{Config, Limits, Proxy};
use store_api::frame::{Decoder, Event, Kind, frame, json_frame};
use store_api::session::{
    CAPABILITIES, Elsewhere, MovedTo, Offsets, Resume, SessionOpen, SessionResume, Wait, problem,
};
use tempfile::TempDir;
use testkit::address::unused_address;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedMutexGuard;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

/// A step that takes longer than this has failed.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// A proxy and its neighbours; dropped, all end.
pub(crate) struct World {
    pub(crate) pop3: SocketAddr,
    pub(crate) imap: SocketAddr,
    pub(crate) imaps: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) inside: SocketAddr,
    pub(crate) directory: PlayedDirectory,
    pub(crate) proxy_shutdown: Shutdown,
    shutdown: Shutdown,
    folder: TempDir,
    authority: Authority,
    directory_address: SocketAddr,
    bundles: Bundles,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

impl World {
    /// With the directory there, and plaintext logins allowed on loopback.
    pub(crate) async fn start(limits: Limits) -> Self {
        Self::with(|config| config.limits = limits).await
    }

    /// The same with other settings.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let world = Self::without_directory(change).await;
        world.start_directory().await;
        // Until it has found that out, it holds the directory to be away.
        world.ready().await;
        world
    }

    /// Where nobody answers for the directory yet.
    pub(crate) async fn without_directory(change: impl FnOnce(&mut Config)) -> Self {
        daemon::tier::install_crypto();
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(folder.path()).unwrap();
        let public = (
            folder.path().join("public.pem"),
            folder.path().join("public.key"),
        );
        authority
            .issue_public(&["localhost", "127.0.0.1"], &public.0, &public.1)
            .unwrap();
        let directory_address = unused_address();
        let mut config = Config {
            pop3: Some(any_port()),
            imap: Some(any_port()),
            imaps: Some(any_port()),
            inside_listen: Some(any_port()),
            metrics_listen: any_port(),
            hostname: "proxy.test".into(),
            directory: directory_address.to_string(),
            plaintext_login_on_loopback: true,
            identity: issue(&authority, &folder, Role::PopImapProxy, "p1").0,
            ..Config::default()
        };
        config.tls.certificate = Some(public.0);
        config.tls.key = Some(public.1);
        change(&mut config);
        let proxy = Proxy::bind(config).unwrap();
        let shutdown = Shutdown::new();
        let proxy_shutdown = shutdown.child();
        let world = Self {
            pop3: proxy.address("pop3").unwrap(),
            imap: proxy.address("imap").unwrap(),
            imaps: proxy.address("imaps").unwrap(),
            metrics: proxy.metrics_address().unwrap(),
            inside: proxy.inside_address().unwrap(),
            directory: PlayedDirectory::new(),
            proxy_shutdown: proxy_shutdown.clone(),
            shutdown,
            folder,
            authority,
            directory_address,
            bundles: Bundles::default(),
        };
        assert_eq!(proxy.address("pop3s"), None);
        proxy_shutdown.spawn(proxy.serve(proxy_shutdown.clone()));
        world
    }

    pub(crate) async fn start_directory(&self) {
        let listener = TcpListener::bind(self.directory_address).await.unwrap();
        let identity = issue(&self.authority, &self.folder, Role::Directory, "d1").1;
        let router = self.directory.router();
        self.shutdown.spawn(link::serve(
            listener,
            identity.into(),
            router,
            self.shutdown.clone(),
        ));
    }

    pub(crate) async fn backend(&self, name: &str) -> PlayedBackend {
        let listener = TcpListener::bind(any_port()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let backends = &self.directory.backends;
        backends.lock().unwrap().insert(name.to_owned(), address);
        let identity = issue(&self.authority, &self.folder, Role::StoreBackend, name).1;
        let (seen, receiver) = unbounded_channel();
        let verifier = GrantVerifier::new(clock::now_ms() - 1000);
        verifier.set_keys(&[self.directory.signer.public_key()]);
        let stage = Arc::new(Stage {
            name: BackendName::new(name).unwrap(),
            verifier,
            plays: Mutex::default(),
            bundles: Arc::clone(&self.bundles),
            seen,
        });
        let router = Router::new()
            .route(store_api::session::PATH, post(session))
            .with_state(Arc::clone(&stage));
        self.shutdown.spawn(link::serve(
            listener,
            identity.into(),
            router,
            self.shutdown.clone(),
        ));
        PlayedBackend {
            address,
            stage,
            seen: receiver,
        }
    }

    /// An operator's way to the proxy, or another's who may not go it.
    pub(crate) fn operator(&self, role: Role) -> ProxyClient {
        let identity = issue(&self.authority, &self.folder, role, role.as_str()).1;
        ProxyClient::new(&self.inside.to_string(), &identity)
    }

    /// One plain HTTP exchange with the observability listener.
    pub(crate) async fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.metrics).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Waits until the proxy says that it is ready; what it says.
    pub(crate) async fn ready(&self) -> String {
        let deadline = Instant::now() + LONG;
        loop {
            let health = self.get("/health").await;
            if health.starts_with("HTTP/1.1 200") {
                return health;
            }
            assert!(Instant::now() < deadline, "never ready: {health}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How often something was counted. All tests of this process share the metrics, and some may count the same.
    pub(crate) async fn count(&self, beginning: &str) -> f64 {
        let metrics = self.get("/metrics").await;
        let line = metrics.lines().find(|line| line.starts_with(beginning));
        let value = line.and_then(|line| line.rsplit(' ').next());
        value.map_or(0.0, |text| text.parse().unwrap())
    }

    /// Waits until the metrics have a line that begins so. All tests of this process share them.
    pub(crate) async fn counted(&self, beginning: &str) {
        self.counted_to(beginning, 0.0).await;
    }

    /// The same, until one of these lines has at least that value.
    pub(crate) async fn counted_to(&self, beginning: &str, least: f64) {
        let deadline = Instant::now() + LONG;
        let reaches = |line: &str| {
            let value = line.rsplit(' ').next().and_then(|text| text.parse().ok());
            line.starts_with(beginning) && value.is_some_and(|value: f64| value >= least)
        };
        loop {
            let metrics = self.get("/metrics").await;
            if metrics.lines().any(reaches) {
                return;
            }
            assert!(Instant::now() < deadline, "no {beginning} in {metrics}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn authority_pem(&self) -> &str {
        self.authority.certificate_pem()
    }
}

fn issue(
    authority: &Authority,
    folder: &TempDir,
    role: Role,
    node: &str,
) -> (IdentityFiles, Identity) {
    let path = |what: &str| folder.path().join(format!("{node}{what}"));
    let files = IdentityFiles {
        ca: path("-ca.pem"),
        certificate: path(".pem"),
        key: path(".key"),
    };
    let identity = authority.issue(role, node, &files).unwrap();
    (files, identity)
}

pub(crate) fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Sessions on their way from one back-end to another, by token: what the first one was sent and had not looked at, and
/// how far both directions were.
type Bundles = Arc<Mutex<HashMap<String, (Vec<u8>, Offsets)>>>;

/// Knows two users, `ann` and `bob`, with the password `right`.
#[derive(Clone)]
pub(crate) struct PlayedDirectory {
    signer: Arc<GrantSigner>,
    homes: Arc<Mutex<VecDeque<(String, SocketAddr)>>>,
    asked: Arc<Mutex<Vec<LoginRequest>>>,
    /// Logins to which the answer is still that the account is being moved.
    moving: Arc<Mutex<usize>>,
    pace: Arc<Mutex<Pace>>,
    /// No wrong password is answered while a test has it.
    refusals: Arc<tokio::sync::Mutex<()>>,
    backends: Arc<Mutex<HashMap<String, SocketAddr>>>,
    foreign: Arc<Mutex<HashMap<String, Foreign>>>,
    changes: Arc<Mutex<Vec<Change>>>,
}

/// How long a login takes the directory, and how many it had at once.
#[derive(Default)]
struct Pace {
    takes: Duration,
    now: usize,
    most: usize,
}

impl PlayedDirectory {
    fn new() -> Self {
        let (signer, _) = GrantSigner::generate().unwrap();
        Self {
            signer: Arc::new(signer),
            homes: Arc::default(),
            asked: Arc::default(),
            moving: Arc::default(),
            pace: Arc::default(),
            refusals: Arc::default(),
            backends: Arc::default(),
            foreign: Arc::default(),
            changes: Arc::default(),
        }
    }

    /// Where both live from the next login on; several are answered in turn, the last one for ever.
    pub(crate) fn live_at(&self, homes: &[(&str, SocketAddr)]) {
        let homes = homes
            .iter()
            .map(|(name, address)| ((*name).to_owned(), *address));
        *self.homes.lock().unwrap() = homes.collect();
    }

    /// Where both live from the next login on: on another mail system.
    pub(crate) fn live_abroad(&self, name: &str, foreign: Foreign) {
        let services = [&foreign.imap, &foreign.pop3];
        let address = services.into_iter().flatten().next().unwrap();
        let address = address.address.parse().unwrap_or_else(|_| any_port());
        self.live_at(&[(name, address)]);
        self.foreign
            .lock()
            .unwrap()
            .insert(name.to_owned(), foreign);
    }

    /// Tells of one more change.
    pub(crate) fn tells(&self, kind: ChangeKind, key: &str) {
        let mut changes = self.changes.lock().unwrap();
        let number = changes.last().map_or(1, |last| last.number.0) + 1;
        changes.push(Change {
            number: ChangeNumber(number),
            at_ms: clock::now_ms(),
            kind,
            key: key.into(),
        });
    }

    /// Answers so many logins that the account is being moved.
    pub(crate) fn is_moving(&self, logins: usize) {
        *self.moving.lock().unwrap() = logins;
    }

    /// Takes so long for each login.
    pub(crate) fn answers_after(&self, takes: Duration) {
        self.pace.lock().unwrap().takes = takes;
    }

    /// Answers no wrong password until what is given is dropped.
    pub(crate) fn holds_refusals(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.refusals).try_lock_owned().unwrap()
    }

    /// The most logins that were asked for at once.
    pub(crate) fn asked_at_once(&self) -> usize {
        self.pace.lock().unwrap().most
    }

    /// The logins asked for so far.
    pub(crate) fn asked(&self) -> Vec<LoginRequest> {
        self.asked.lock().unwrap().clone()
    }

    fn router(&self) -> Router {
        Router::new()
            .route("/v1/login", post(login))
            .route("/v1/changes", get(changes))
            .route("/v1/backends/{name}", get(backend))
            .with_state(self.clone())
    }
}

async fn changes(
    State(directory): State<PlayedDirectory>,
    Query(asked): Query<HashMap<String, String>>,
) -> Json<ChangesReply> {
    let after = ChangeNumber(asked["after"].parse().unwrap());
    let until = Instant::now() + Duration::from_millis(asked["wait_ms"].parse().unwrap());
    let has_news = || {
        let changes = directory.changes.lock().unwrap();
        changes.last().is_some_and(|last| last.number > after)
    };
    while Instant::now() < until && !has_news() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let changes = directory.changes.lock().unwrap();
    let last = changes.last().map_or(ChangeNumber(1), |last| last.number);
    let changes = changes.iter().filter(|change| change.number > after);
    let changes = changes.take(asked["limit"].parse().unwrap()).cloned();
    Json(ChangesReply {
        changes: changes.collect(),
        last,
        after_at_ms: None,
    })
}

async fn backend(
    State(directory): State<PlayedDirectory>,
    Path(name): Path<String>,
) -> Result<Json<Backend>, Problem> {
    let address = directory.backends.lock().unwrap().get(&name).copied();
    let address = address.ok_or_else(|| Problem::not_found("no such back-end"))?;
    Ok(Json(Backend {
        name: BackendName::new(name.as_str()).unwrap(),
        address: address.to_string(),
        state: BackendState::Active,
        weight: 1,
        volumes: Vec::new(),
        accounts: 0,
        foreign: None,
    }))
}

async fn login(
    State(directory): State<PlayedDirectory>,
    Json(request): Json<LoginRequest>,
) -> Result<Json<LoginReply>, Problem> {
    directory.asked.lock().unwrap().push(request.clone());
    let takes = {
        let mut pace = directory.pace.lock().unwrap();
        pace.now += 1;
        pace.most = pace.most.max(pace.now);
        pace.takes
    };
    tokio::time::sleep(takes).await;
    directory.pace.lock().unwrap().now -= 1;
    let account = match request.user.as_str() {
        "ann" => Some(7),
        "bob" => Some(8),
        _ => None,
    };
    let account = account.filter(|_| request.password.reveal() == "right");
    let Some(account) = account else {
        drop(directory.refusals.lock().await);
        return Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            code::BAD_CREDENTIALS,
            "no",
        ));
    };
    {
        let mut moving = directory.moving.lock().unwrap();
        if *moving > 0 {
            *moving -= 1;
            return Err(Problem::new(StatusCode::CONFLICT, code::MOVING, "wait"));
        }
    }
    let (name, address) = {
        let mut homes = directory.homes.lock().unwrap();
        if homes.len() > 1 {
            homes.pop_front().unwrap()
        } else {
            homes[0].clone()
        }
    };
    let foreign = directory.foreign.lock().unwrap().get(&name).cloned();
    let now = clock::now_ms();
    let grant = Grant {
        ticket: None,
        account: AccountId(account),
        backend: BackendName::new(name.as_str()).unwrap(),
        epoch: Epoch(1),
        service: request.service,
        login_name: LoginName::new(request.user.as_str()).unwrap(),
        quota: Quota::NONE,
        issued_at_ms: now,
        expires_at_ms: now + 10_000,
        nonce: random::token128(),
    };
    Ok(Json(LoginReply {
        account: grant.account,
        login_name: grant.login_name.clone(),
        home: Home {
            backend: grant.backend.clone(),
            volume: VolumeName::new("v1").unwrap(),
            epoch: grant.epoch,
        },
        backend_address: address.to_string(),
        quota: grant.quota,
        grant: directory.signer.sign(&grant),
        foreign,
    }))
}

/// What a back-end does with the next session.
#[derive(Clone, Debug)]
pub(crate) enum Play {
    /// Says that the account has moved.
    Moved,
    /// Says that the epoch is old.
    StaleEpoch,
    /// Says that it starts up.
    Unavailable,
    /// Says that ann logged in so recently that she must wait for so many seconds.
    LoginDelay(u64),
    /// Says that the account is being moved.
    Frozen,
    /// Greets, then drops the stream without an end at the user's first octet.
    Cut,
    /// Pauses behind so many octets of the user's, and goes on here or hands the session to another back-end.
    Pause {
        behind: usize,
        elsewhere: Option<&'static str>,
    },
    /// Pauses at the user's first octet and goes on from offsets that are not the proxy's.
    PauseAndLie,
}

/// What a back-end saw.
#[derive(Debug)]
pub(crate) enum Seen {
    Open(SessionOpen),
    /// A session comes from another back-end.
    Resume(SessionResume),
    /// The user has no more to say, after so many octets.
    End(usize),
    /// The stream broke off.
    Broken,
}

/// One back-end and what it saw. It greets with `+OK welcome`, sends back whatever comes, and
/// answers the end of that with `bye` and its own end.
pub(crate) struct PlayedBackend {
    pub(crate) address: SocketAddr,
    stage: Arc<Stage>,
    seen: UnboundedReceiver<Seen>,
}

struct Stage {
    name: BackendName,
    verifier: GrantVerifier,
    plays: Mutex<VecDeque<Play>>,
    bundles: Bundles,
    seen: UnboundedSender<Seen>,
}

impl PlayedBackend {
    pub(crate) fn play(&self, play: Play) {
        self.stage.plays.lock().unwrap().push_back(play);
    }

    pub(crate) async fn next(&mut self) -> Seen {
        timeout(LONG, self.seen.recv())
            .await
            .expect("the back-end sees something")
            .unwrap()
    }

    pub(crate) async fn opened(&mut self) -> SessionOpen {
        match self.next().await {
            Seen::Open(open) => open,
            other => panic!("not a new session: {other:?}"),
        }
    }
}

async fn session(State(stage): State<Arc<Stage>>, mut body: Body) -> Response {
    let mut decoder = Decoder::default();
    let (kind, first) = loop {
        match decoder.next().unwrap() {
            Some(Event::Control(kind, json)) => break (kind, json),
            Some(other) => panic!("not an open: {other:?}"),
            None => decoder.push(next_data(&mut body).await.unwrap().unwrap()),
        }
    };
    let refusal = |code, detail| {
        let problem = Problem::new(StatusCode::CONFLICT, code, "no");
        problem.with_detail(detail).into_response()
    };
    let (rest, here) = match kind {
        Kind::Open => {
            let open: SessionOpen = serde_json::from_slice(&first).unwrap();
            let checked = stage
                .verifier
                .verify(&open.grant, clock::now_ms(), &stage.name);
            assert_eq!(checked.unwrap().service, open.service);
            _ = stage.seen.send(Seen::Open(open));
            (b"+OK welcome\r\n".to_vec(), Offsets::default())
        }
        Kind::Resume => {
            let resume: SessionResume = serde_json::from_slice(&first).unwrap();
            let bundle = stage.bundles.lock().unwrap().remove(&resume.token);
            let Some((rest, here)) = bundle else {
                return refusal(problem::MALFORMED, serde_json::Value::Null);
            };
            assert_eq!(
                (here.from_user, here.to_user),
                (resume.from_user, resume.to_user)
            );
            _ = stage.seen.send(Seen::Resume(resume));
            (rest, here)
        }
        other => panic!("not an open: {other:?}"),
    };
    let play = stage.plays.lock().unwrap().pop_front();
    match play {
        Some(Play::Moved) => {
            let to = MovedTo {
                backend: BackendName::new("b2").unwrap(),
                epoch: Epoch(2),
            };
            return refusal(problem::MOVED, serde_json::to_value(to).unwrap());
        }
        Some(Play::StaleEpoch) => return refusal(problem::STALE_EPOCH, serde_json::Value::Null),
        Some(Play::Frozen) => return refusal(problem::FROZEN, serde_json::Value::Null),
        Some(Play::LoginDelay(wait_s)) => {
            let detail = serde_json::to_value(Wait { wait_s }).unwrap();
            return refusal(problem::LOGIN_DELAY, detail);
        }
        Some(Play::Unavailable) => return refusal(problem::UNAVAILABLE, serde_json::Value::Null),
        Some(Play::Cut | Play::Pause { .. } | Play::PauseAndLie) | None => {}
    }
    let (out, answer) = LinkBody::channel(4);
    let scene = Scene {
        stage,
        body,
        decoder,
        out,
        here,
    };
    tokio::spawn(scene.run(rest, play));
    let mut response = Response::new(Body::new(answer));
    let told = HeaderValue::from_static("IMAP4rev1 ENABLE ID IDLE SASL-IR");
    response.headers_mut().insert(CAPABILITIES, told);
    response
}

/// One session at a back-end.
struct Scene {
    stage: Arc<Stage>,
    body: Body,
    decoder: Decoder,
    out: BodySender,
    here: Offsets,
}

impl Scene {
    async fn send(&mut self, octets: &[u8]) {
        self.here.to_user += octets.len() as u64;
        _ = self.out.send(frame(Kind::Data, octets)).await;
    }

    async fn event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.decoder.next().unwrap() {
                return Some(event);
            }
            match next_data(&mut self.body).await {
                Ok(Some(piece)) => self.decoder.push(piece),
                Ok(None) | Err(_) => {
                    _ = self.stage.seen.send(Seen::Broken);
                    return None;
                }
            }
        }
    }

    async fn run(mut self, first: Vec<u8>, mut play: Option<Play>) {
        self.send(&first).await;
        loop {
            let Some(event) = self.event().await else {
                return;
            };
            match event {
                Event::Data(_) if matches!(play, Some(Play::Cut)) => return,
                Event::Data(piece) if matches!(play, Some(Play::PauseAndLie)) => {
                    self.here.from_user += piece.len() as u64;
                    play = None;
                    _ = self.out.send(json_frame(Kind::Pause, &self.here)).await;
                    self.event().await;
                    let resume = Resume {
                        from_user: self.here.from_user + 1,
                        to_user: self.here.to_user,
                        elsewhere: None,
                    };
                    _ = self.out.send(json_frame(Kind::Resume, &resume)).await;
                }
                Event::Data(piece) => {
                    self.here.from_user += piece.len() as u64;
                    let taken = usize::try_from(self.here.from_user).unwrap();
                    let paused = match play {
                        Some(Play::Pause { behind, elsewhere }) if taken >= behind => {
                            Some((piece.len() - (taken - behind), elsewhere))
                        }
                        _ => None,
                    };
                    let Some((edge, elsewhere)) = paused else {
                        self.send(&piece).await;
                        continue;
                    };
                    play = None;
                    self.send(&piece[..edge]).await;
                    if !self.pause(piece.slice(edge..), elsewhere).await {
                        // In order: a stream that is reset may lose what was sent last.
                        return self.out.finish();
                    }
                }
                Event::Control(Kind::End, _) => return self.end().await,
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    async fn end(mut self) {
        let octets = usize::try_from(self.here.from_user).unwrap();
        _ = self.stage.seen.send(Seen::End(octets));
        self.send(b"bye\r\n").await;
        _ = self.out.send(frame(Kind::End, &[])).await;
        self.out.finish();
    }

    /// Pauses with `unread` behind the edge; whether the session goes on here.
    async fn pause(&mut self, unread: Bytes, elsewhere: Option<&str>) -> bool {
        let edge = Offsets {
            from_user: self.here.from_user - unread.len() as u64,
            ..self.here
        };
        _ = self.out.send(json_frame(Kind::Pause, &edge)).await;
        let mut rest = unread.to_vec();
        let mut ended = false;
        let there: Offsets = loop {
            match self.event().await {
                Some(Event::Data(piece)) => {
                    self.here.from_user += piece.len() as u64;
                    rest.extend_from_slice(&piece);
                }
                Some(Event::Control(Kind::Pause, json)) => {
                    break serde_json::from_slice(&json).unwrap();
                }
                // Who has no more to say has said how much there was.
                Some(Event::Control(Kind::End, _)) => {
                    ended = true;
                    break self.here;
                }
                other => panic!("unexpected {other:?}"),
            }
        };
        assert_eq!(there, self.here);
        let mut resume = Resume {
            from_user: there.from_user,
            to_user: there.to_user,
            elsewhere: None,
        };
        if let Some(name) = elsewhere {
            let token = data_encoding::HEXLOWER.encode(&random::token128());
            resume.elsewhere = Some(Elsewhere {
                backend: BackendName::new(name).unwrap(),
                token: token.clone(),
            });
            let mut bundles = self.stage.bundles.lock().unwrap();
            bundles.insert(token, (rest.clone(), there));
        }
        _ = self.out.send(json_frame(Kind::Resume, &resume)).await;
        if elsewhere.is_none() {
            assert!(!ended, "not played");
            self.send(&rest).await;
        }
        elsewhere.is_none()
    }
}
