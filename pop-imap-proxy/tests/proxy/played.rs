//! Plays the neighbours of a proxy: a directory that signs grants, and back-ends that check them.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use daemon::clock;
use daemon::identity::{Authority, Identity, IdentityFiles, Role};
use daemon::link::{self, LinkBody, Problem, next_data};
use daemon::random;
use daemon::shutdown::Shutdown;
use directory_api::grant::{Grant, GrantSigner, GrantVerifier};
use directory_api::wire::{ChangesReply, LoginReply, LoginRequest, code};
use directory_api::{
    AccountId, BackendName, ChangeNumber, Epoch, Home, LoginName, Quota, VolumeName,
};
use pop_imap_proxy::{Config, Limits, Proxy};
use store_api::frame::{Decoder, Event, Kind, frame};
use store_api::session::{MovedTo, SessionOpen, Wait, problem};
use tempfile::TempDir;
use testkit::address::unused_address;
use tokio::net::TcpListener;
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
    pub(crate) directory: PlayedDirectory,
    pub(crate) proxy_shutdown: Shutdown,
    shutdown: Shutdown,
    folder: TempDir,
    authority: Authority,
    directory_address: SocketAddr,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

impl World {
    /// With the directory there, and plaintext logins allowed on loopback.
    pub(crate) async fn start(limits: Limits) -> Self {
        let world = Self::without_directory(limits, true).await;
        world.start_directory().await;
        world
    }

    /// Where nobody answers for the directory yet.
    pub(crate) async fn without_directory(limits: Limits, plaintext: bool) -> Self {
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
            metrics_listen: any_port(),
            hostname: "proxy.test".into(),
            directory: directory_address.to_string(),
            plaintext_login_on_loopback: plaintext,
            identity: issue(&authority, &folder, Role::PopImapProxy, "p1").0,
            limits,
            ..Config::default()
        };
        config.tls.certificate = Some(public.0);
        config.tls.key = Some(public.1);
        let proxy = Proxy::bind(config).unwrap();
        let shutdown = Shutdown::new();
        let proxy_shutdown = shutdown.child();
        let world = Self {
            pop3: proxy.address("pop3").unwrap(),
            imap: proxy.address("imap").unwrap(),
            imaps: proxy.address("imaps").unwrap(),
            metrics: proxy.metrics_address().unwrap(),
            directory: PlayedDirectory::new(),
            proxy_shutdown: proxy_shutdown.clone(),
            shutdown,
            folder,
            authority,
            directory_address,
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
        let identity = issue(&self.authority, &self.folder, Role::StoreBackend, name).1;
        let (seen, receiver) = unbounded_channel();
        let verifier = GrantVerifier::new(clock::now_ms() - 1000);
        verifier.set_keys(&[self.directory.signer.public_key()]);
        let stage = Arc::new(Stage {
            name: BackendName::new(name).unwrap(),
            verifier,
            plays: Mutex::default(),
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

/// Knows one user, `ann` with the password `right`.
#[derive(Clone)]
pub(crate) struct PlayedDirectory {
    signer: Arc<GrantSigner>,
    homes: Arc<Mutex<VecDeque<(String, SocketAddr)>>>,
    asked: Arc<Mutex<Vec<LoginRequest>>>,
}

impl PlayedDirectory {
    fn new() -> Self {
        let (signer, _) = GrantSigner::generate().unwrap();
        Self {
            signer: Arc::new(signer),
            homes: Arc::default(),
            asked: Arc::default(),
        }
    }

    /// Where ann lives from the next login on; several are answered in turn, the last one for ever.
    pub(crate) fn live_at(&self, homes: &[(&str, SocketAddr)]) {
        let homes = homes
            .iter()
            .map(|(name, address)| ((*name).to_owned(), *address));
        *self.homes.lock().unwrap() = homes.collect();
    }

    /// The logins asked for so far.
    pub(crate) fn asked(&self) -> Vec<LoginRequest> {
        self.asked.lock().unwrap().clone()
    }

    fn router(&self) -> Router {
        Router::new()
            .route("/v1/login", post(login))
            .route("/v1/changes", get(changes))
            .with_state(self.clone())
    }
}

async fn changes() -> Json<ChangesReply> {
    Json(ChangesReply {
        changes: Vec::new(),
        last: ChangeNumber(1),
    })
}

async fn login(
    State(directory): State<PlayedDirectory>,
    Json(request): Json<LoginRequest>,
) -> Result<Json<LoginReply>, Problem> {
    directory.asked.lock().unwrap().push(request.clone());
    if (request.user.as_str(), request.password.reveal()) != ("ann", "right") {
        return Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            code::BAD_CREDENTIALS,
            "no",
        ));
    }
    let (name, address) = {
        let mut homes = directory.homes.lock().unwrap();
        if homes.len() > 1 {
            homes.pop_front().unwrap()
        } else {
            homes[0].clone()
        }
    };
    let now = clock::now_ms();
    let grant = Grant {
        account: AccountId(7),
        backend: BackendName::new(name.as_str()).unwrap(),
        epoch: Epoch(1),
        service: request.service,
        login_name: LoginName::new("ann").unwrap(),
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
    /// Greets, then drops the stream without an end at the user's first octet.
    Cut,
}

/// What a back-end saw.
#[derive(Debug)]
pub(crate) enum Seen {
    Open(SessionOpen),
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
    let open: SessionOpen = loop {
        match decoder.next().unwrap() {
            Some(Event::Control(Kind::Open, json)) => break serde_json::from_slice(&json).unwrap(),
            Some(other) => panic!("not an open: {other:?}"),
            None => decoder.push(next_data(&mut body).await.unwrap().unwrap()),
        }
    };
    let checked = stage
        .verifier
        .verify(&open.grant, clock::now_ms(), &stage.name);
    assert_eq!(checked.unwrap().service, open.service);
    _ = stage.seen.send(Seen::Open(open));
    let refusal = |code, detail| {
        let problem = Problem::new(StatusCode::CONFLICT, code, "no");
        problem.with_detail(detail).into_response()
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
        Some(Play::LoginDelay(wait_s)) => {
            let detail = serde_json::to_value(Wait { wait_s }).unwrap();
            return refusal(problem::LOGIN_DELAY, detail);
        }
        Some(Play::Unavailable) => return refusal(problem::UNAVAILABLE, serde_json::Value::Null),
        Some(Play::Cut) | None => {}
    }
    let (out, answer) = LinkBody::channel(4);
    tokio::spawn(async move {
        let send = async |octets: Bytes| {
            _ = out.send(frame(Kind::Data, &octets)).await;
        };
        send(Bytes::from_static(b"+OK welcome\r\n")).await;
        let mut octets = 0;
        loop {
            match decoder.next().unwrap() {
                Some(Event::Data(_)) if matches!(play, Some(Play::Cut)) => return,
                Some(Event::Data(piece)) => {
                    octets += piece.len();
                    send(piece).await;
                }
                Some(Event::Control(Kind::End, _)) => {
                    _ = stage.seen.send(Seen::End(octets));
                    send(Bytes::from_static(b"bye\r\n")).await;
                    _ = out.send(frame(Kind::End, &[])).await;
                    return out.finish();
                }
                Some(other) => panic!("unexpected {other:?}"),
                None => match next_data(&mut body).await {
                    Ok(Some(piece)) => decoder.push(piece),
                    Ok(None) | Err(_) => {
                        _ = stage.seen.send(Seen::Broken);
                        return;
                    }
                },
            }
        }
    });
    Response::new(Body::new(answer))
}
