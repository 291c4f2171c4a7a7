//! What the tests stand on: a directory, certificates, back-end processes, and plain dialogues.

#[path = "site/abroad.rs"]
mod abroad;
#[path = "site/logins.rs"]
mod logins;
#[path = "site/within.rs"]
mod within;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::{Path as Segment, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use daemon::clock::now_ms;
use daemon::identity::{Authority, Identity, IdentityFiles, Role};
use daemon::link::{self, Link, LinkOptions, LinkTarget, Problem};
use daemon::shutdown::Shutdown;
use directory_api::grant::{Grant, GrantSigner};
use directory_api::wire::{
    AccountHome, AnnounceReply, AnnounceRequest, Backend as Announced, KeysReply, Located,
    LookupReply, LookupRequest, LookupResult, Verdict, Volume as AnnouncedVolume, VolumePosition,
    path,
};
use directory_api::{
    AccountId, Address, BackendName, BackendState, ChangeNumber, Epoch, Home, LoginName, Quota,
    Service,
};
pub(crate) use logins::Logins;
use tempfile::TempDir;
use testkit::address::unused_address;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A directory, an authority and a folder.
pub(crate) struct Site {
    folder: TempDir,
    authority: Authority,
    pub(crate) directory: Directory,
    shutdown: Shutdown,
}

impl Site {
    pub(crate) async fn new() -> Self {
        daemon::tier::install_crypto();
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(folder.path()).unwrap();
        let shutdown = Shutdown::new();
        let address = unused_address();
        let mut site = Self {
            directory: Directory::new(address),
            folder,
            authority,
            shutdown,
        };
        site.start_directory().await;
        site
    }

    /// Starts the directory again at its address.
    pub(crate) async fn start_directory(&mut self) {
        self.shutdown = Shutdown::new();
        let identity = Arc::new(self.identity(Role::Directory, "d1"));
        let listener = daemon::listener::bind(self.directory.address, "test directory").unwrap();
        let router = self.directory.router();
        tokio::spawn(link::serve(
            listener,
            identity,
            router,
            self.shutdown.clone(),
        ));
    }

    /// Stops the directory, its connections included.
    pub(crate) async fn stop_directory(&self) {
        self.shutdown.begin();
        self.shutdown.drained(PATIENCE).await;
    }

    pub(crate) fn identity(&self, role: Role, node: &str) -> Identity {
        Identity::load(&self.files(role, node)).unwrap()
    }

    /// Where the volume of a back-end lies, which may not have been started.
    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.data"))
    }

    fn files(&self, role: Role, node: &str) -> IdentityFiles {
        let at = |end: &str| self.folder.path().join(format!("{node}.{role}.{end}"));
        let files = IdentityFiles {
            ca: at("ca"),
            certificate: at("pem"),
            key: at("key"),
        };
        self.authority.issue(role, node, &files).unwrap();
        files
    }

    /// A link to a back-end, as a process of this role.
    pub(crate) fn link(&self, role: Role, backend: &Backend) -> Link {
        self.link_of(role, "t1", backend)
    }

    /// As a process of this name.
    pub(crate) fn link_of(&self, role: Role, node: &str, backend: &Backend) -> Link {
        let target = LinkTarget {
            address: backend.link.to_string(),
            server_name: format!("{}.store-backend.posthouse.internal", backend.name),
        };
        Link::new(target, &self.identity(role, node), LinkOptions::default())
    }

    /// Starts a back-end and waits until it is ready.
    pub(crate) async fn backend(&self, name: &str) -> Backend {
        let backend = self.backend_starting(name, "");
        backend.ready().await;
        backend
    }

    /// Starts a back-end with more settings of `[limits]`.
    pub(crate) fn backend_starting(&self, name: &str, limits: &str) -> Backend {
        self.backend_with(name, "plaintext_login = true", limits)
    }

    /// What TLS clients trust.
    pub(crate) fn authority_pem(&self) -> String {
        self.authority.certificate_pem().to_owned()
    }

    /// Starts a back-end with more settings of `[listen]` and `[limits]`.
    pub(crate) fn backend_with(&self, name: &str, listen: &str, limits: &str) -> Backend {
        let data = format!("data = {:?}", self.data(name));
        self.backend_of(name, &data, listen, limits)
    }

    /// Starts a back-end with this line for its volumes, and more settings of `[listen]` and `[limits]`.
    pub(crate) fn backend_of(
        &self,
        name: &str,
        volumes: &str,
        listen: &str,
        limits: &str,
    ) -> Backend {
        let files = self.files(Role::StoreBackend, name);
        let public = |end: &str| self.folder.path().join(format!("{name}.public.{end}"));
        self.authority
            .issue_public(&["localhost"], &public("pem"), &public("key"))
            .unwrap();
        let port = unused_address;
        let (link, metrics, lmtp, pop3, pop3s, imap) =
            (port(), port(), port(), port(), port(), port());
        let data = self.data(name);
        let config = self.folder.path().join(format!("{name}.toml"));
        let text = format!(
            "name = {name:?}\n{volumes}\nhostname = \"store.example.test\"\nlink_listen = \"{link}\"\n\
             metrics_listen = \"{metrics}\"\ndirectory = \"{}\"\n\
             [identity]\nca = {:?}\ncertificate = {:?}\nkey = {:?}\n\
             [listen]\nlmtp = \"{lmtp}\"\npop3 = \"{pop3}\"\npop3s = \"{pop3s}\"\nimap = \"{imap}\"\n{listen}\n\
             [tls]\ncertificate = {:?}\nkey = {:?}\n[limits]\n{limits}\n",
            self.directory.address,
            files.ca,
            files.certificate,
            files.key,
            public("pem"),
            public("key"),
        );
        std::fs::write(&config, text).unwrap();
        let name = name.parse().unwrap();
        let process = Some(start(&config));
        Backend {
            name,
            process,
            started: Instant::now(),
            config,
            data,
            link,
            metrics,
            lmtp,
            pop3,
            pop3s,
            imap,
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

/// One back-end process; killed when dropped.
pub(crate) struct Backend {
    pub(crate) name: BackendName,
    /// None: it runs in this process.
    process: Option<Child>,
    pub(crate) started: Instant,
    config: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) link: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) lmtp: SocketAddr,
    pub(crate) pop3: SocketAddr,
    pub(crate) pop3s: SocketAddr,
    pub(crate) imap: SocketAddr,
}

impl Backend {
    /// Kills it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child().kill().unwrap();
        self.child().wait().unwrap();
    }

    fn child(&mut self) -> &mut Child {
        self.process.as_mut().expect("it is a process of its own")
    }

    fn id(&self) -> u32 {
        self.process
            .as_ref()
            .map_or_else(std::process::id, Child::id)
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.config.with_extension("log")).unwrap_or_default()
    }

    /// Asks it to drain, and gives its exit code.
    pub(crate) async fn terminate(&mut self) -> Option<i32> {
        let id = rustix::process::Pid::from_child(self.child());
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        let began = Instant::now();
        loop {
            if let Some(status) = self.child().try_wait().unwrap() {
                return status.code();
            }
            assert!(began.elapsed() < PATIENCE, "{} does not end", self.name);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Starts a second process from the same settings; gives its exit code and what it said.
    pub(crate) fn twin(&self, change: impl Fn(&str) -> String) -> (Option<i32>, String) {
        let config = self.config.with_extension("twin.toml");
        std::fs::write(
            &config,
            change(&std::fs::read_to_string(&self.config).unwrap()),
        )
        .unwrap();
        let twin = Command::new(env!("CARGO_BIN_EXE_store-backend"))
            .arg("--config")
            .arg(&config)
            .env("RUST_LOG", "off")
            .output()
            .unwrap();
        (twin.status.code(), String::from_utf8(twin.stderr).unwrap())
    }

    /// Changes the settings that it is started with next.
    pub(crate) fn configure(&self, change: impl Fn(&str) -> String) {
        let text = std::fs::read_to_string(&self.config).unwrap();
        std::fs::write(&self.config, change(&text)).unwrap();
    }

    pub(crate) fn start(&mut self) {
        self.process = Some(start(&self.config));
    }

    pub(crate) async fn restart(&mut self) {
        self.start();
        self.ready().await;
    }

    pub(crate) async fn ready(&self) {
        let began = Instant::now();
        while self
            .get("/health")
            .await
            .is_none_or(|answer| !answer.starts_with("HTTP/1.1 200"))
        {
            assert!(began.elapsed() < PATIENCE, "{} is not ready", self.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until its health says so.
    pub(crate) async fn fails(&self, why: &str) {
        let began = Instant::now();
        while self
            .get("/health")
            .await
            .is_none_or(|answer| !answer.contains(why))
        {
            assert!(began.elapsed() < PATIENCE, "{} does not say so", self.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Memory it holds, as the kernel counts it.
    pub(crate) fn resident_octets(&self) -> usize {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.id())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    /// Calls it has made to read from files.
    pub(crate) fn reads(&self) -> u64 {
        let path = format!("/proc/{}/io", self.id());
        let io = std::fs::read_to_string(path).unwrap();
        let line = io.lines().find_map(|line| line.strip_prefix("syscr: "));
        line.unwrap().parse().unwrap()
    }

    /// What its plain HTTP listener answers.
    pub(crate) async fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.metrics).await.ok()?;
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
            .await
            .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            println!("what {} logged:\n{}", self.name, self.log());
        }
    }
}

fn start(config: &Path) -> Child {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(config.with_extension("log"))
        .unwrap();
    Command::new(env!("CARGO_BIN_EXE_store-backend"))
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// Answers what a back-end asks a directory.
#[derive(Clone)]
pub(crate) struct Directory {
    pub(crate) address: SocketAddr,
    pub(crate) signer: Arc<GrantSigner>,
    state: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    addresses: HashMap<Address, Vec<AccountId>>,
    homes: HashMap<AccountId, Home>,
    quotas: HashMap<AccountId, Quota>,
    backends: HashMap<BackendName, Announced>,
    /// What was announced; a later position replaces an earlier one, never the other way round.
    positions: HashMap<BackendName, Vec<VolumePosition>>,
    /// Volumes of which no life is known any more.
    adopted: HashMap<BackendName, Vec<VolumePosition>>,
    logins: Logins,
}

impl Directory {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            signer: Arc::new(GrantSigner::generate().unwrap().0),
            state: Arc::default(),
        }
    }

    /// Makes `local@example.test` deliver to accounts. The first one logs in by that name with "pass".
    pub(crate) fn address(&self, local: &str, accounts: &[u64]) {
        let address = format!("{local}@example.test").parse().unwrap();
        self.state
            .lock()
            .unwrap()
            .addresses
            .insert(address, accounts.iter().copied().map(AccountId).collect());
    }

    pub(crate) fn home(&self, account: u64, backend: &str, epoch: u64) {
        self.home_on(account, backend, "main", epoch);
    }

    pub(crate) fn home_on(&self, account: u64, backend: &str, volume: &str, epoch: u64) {
        let home = Home {
            backend: backend.parse().unwrap(),
            volume: volume.parse().unwrap(),
            epoch: Epoch(epoch),
        };
        self.state
            .lock()
            .unwrap()
            .homes
            .insert(AccountId(account), home);
    }

    /// Limits what an account may keep.
    pub(crate) fn quota(&self, account: u64, octets: Option<u64>, messages: Option<u64>) {
        let mut state = self.state.lock().unwrap();
        let quota = state.quotas.entry(AccountId(account)).or_default();
        *quota = Quota {
            octets,
            messages,
            as_of: ChangeNumber(quota.as_of.0 + 1),
        };
    }

    fn quota_of(&self, account: AccountId) -> Quota {
        let state = self.state.lock().unwrap();
        state.quotas.get(&account).copied().unwrap_or_default()
    }

    /// Claims to have seen this position of every volume.
    pub(crate) fn claim_position(&self, position: u64) {
        let mut state = self.state.lock().unwrap();
        let volumes = state.positions.values_mut().flatten();
        volumes.for_each(|volume| volume.position = position);
    }

    /// Adopts every volume: the next announcement is taken as it is.
    pub(crate) fn adopt(&self) {
        let mut state = self.state.lock().unwrap();
        state.adopted = std::mem::take(&mut state.positions);
    }

    pub(crate) fn grant(&self, account: u64, backend: &str, epoch: u64, service: Service) -> Grant {
        Grant {
            ticket: None,
            account: AccountId(account),
            backend: backend.parse().unwrap(),
            epoch: Epoch(epoch),
            service,
            login_name: self.login_name(account),
            quota: self.quota_of(AccountId(account)),
            issued_at_ms: now_ms(),
            expires_at_ms: now_ms() + 10_000,
            nonce: daemon::random::token128(),
        }
    }

    /// The address that logs in to an account.
    fn login_name(&self, account: u64) -> LoginName {
        let state = self.state.lock().unwrap();
        let mut known = state.addresses.iter();
        let named = known.find(|(_, accounts)| accounts[0].0 == account);
        let name = named.map_or("ann@example.test", |(address, _)| address.as_str());
        name.parse().unwrap()
    }

    fn router(&self) -> Router {
        Router::new()
            .route(path::LOOKUP, post(lookup))
            .route(path::LOGIN, post(logins::login))
            .route(path::KEYS, get(keys))
            .route(path::ANNOUNCE, post(announce))
            .route("/v1/backends/{name}", get(backend))
            .route("/v1/homes/{account}", get(home))
            .with_state(self.clone())
    }
}

async fn lookup(
    State(directory): State<Directory>,
    Json(request): Json<LookupRequest>,
) -> Json<LookupReply> {
    let known = directory.state.lock().unwrap();
    let results = request.addresses.into_iter().map(|address| {
        let verdict = match known.addresses.get(&address) {
            Some(accounts) => Verdict::Accounts(
                accounts
                    .iter()
                    .map(|account| Located {
                        account: *account,
                        home: known.homes[account].clone(),
                        quota: known.quotas.get(account).copied().unwrap_or_default(),
                        detail: None,
                        is_caught: false,
                    })
                    .collect(),
            ),
            None => Verdict::UnknownAddress,
        };
        LookupResult {
            address,
            verdict,
            via: Vec::new(),
            is_derived: false,
        }
    });
    Json(LookupReply {
        change: ChangeNumber(1),
        results: results.collect(),
    })
}

async fn keys(State(directory): State<Directory>) -> Json<KeysReply> {
    Json(KeysReply {
        keys: vec![directory.signer.public_key()],
    })
}

async fn announce(
    State(directory): State<Directory>,
    Json(request): Json<AnnounceRequest>,
) -> Json<AnnounceReply> {
    let backend = Announced {
        name: request.backend.clone(),
        address: request.address,
        state: BackendState::Active,
        weight: 1,
        volumes: Vec::new(),
        accounts: 0,
        foreign: None,
    };
    let mut state = directory.state.lock().unwrap();
    state.backends.insert(request.backend.clone(), backend);
    let positions = state.positions.entry(request.backend).or_default();
    let known = positions.clone();
    for announced in request.volumes {
        match positions.iter_mut().find(|one| one.name == announced.name) {
            None => positions.push(announced),
            Some(one)
                if one.incarnation == announced.incarnation
                    && one.position <= announced.position =>
            {
                *one = announced;
            }
            Some(_) => {}
        }
    }
    Json(AnnounceReply {
        change: ChangeNumber(1),
        state: BackendState::Active,
        known,
    })
}

async fn home(
    State(directory): State<Directory>,
    Segment(account): Segment<u64>,
) -> Result<Json<AccountHome>, Problem> {
    let account = AccountId(account);
    let known = directory.state.lock().unwrap();
    let home = known.homes.get(&account).cloned();
    let home = home.ok_or_else(|| Problem::not_found("no such account"))?;
    Ok(Json(AccountHome { account, home }))
}

async fn backend(
    State(directory): State<Directory>,
    Segment(name): Segment<BackendName>,
) -> Result<Json<Announced>, Problem> {
    let known = directory.state.lock().unwrap();
    let mut shown = known
        .backends
        .get(&name)
        .cloned()
        .ok_or_else(|| Problem::not_found("no such back-end"))?;
    let positions = known.positions.get(&name).into_iter().flatten();
    shown.volumes = positions
        .map(|known| AnnouncedVolume {
            name: known.name.clone(),
            incarnation: Some(known.incarnation),
            position: known.position,
        })
        .collect();
    for adopted in known.adopted.get(&name).into_iter().flatten() {
        if shown.volumes.iter().all(|one| one.name != adopted.name) {
            shown.volumes.push(AnnouncedVolume {
                name: adopted.name.clone(),
                incarnation: None,
                position: 0,
            });
        }
    }
    Ok(Json(shown))
}

/// A conversation in lines.
pub(crate) struct Dialogue {
    stream: BufReader<Box<dyn Wire>>,
}

/// A socket, plain or in TLS.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

impl Dialogue {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }

    pub(crate) fn over(stream: impl Wire + 'static) -> Self {
        Self {
            stream: BufReader::new(Box::new(stream)),
        }
    }

    /// The connection below, with nothing read ahead.
    pub(crate) fn into_wire(self) -> Box<dyn Wire> {
        assert!(self.stream.buffer().is_empty(), "nothing was sent unasked");
        self.stream.into_inner()
    }

    /// What was read ahead, and the connection below.
    pub(crate) fn into_unread(self) -> (Vec<u8>, Box<dyn Wire>) {
        (self.stream.buffer().to_vec(), self.stream.into_inner())
    }

    /// So many octets.
    pub(crate) async fn octets(&mut self, count: usize) -> Vec<u8> {
        let mut octets = vec![0; count];
        timeout(PATIENCE, self.stream.read_exact(&mut octets))
            .await
            .expect("octets in time")
            .unwrap();
        octets
    }

    /// LMTP after LHLO.
    pub(crate) async fn lmtp(backend: &Backend) -> Self {
        let mut lmtp = Self::open(backend.lmtp).await;
        lmtp.expect("220 ").await;
        lmtp.say("LHLO client.example.test").await;
        while lmtp.expect("250").await.as_bytes()[3] == b'-' {}
        lmtp
    }

    /// POP3 after the login as `local@example.test`.
    pub(crate) async fn pop3(backend: &Backend, local: &str) -> Self {
        let mut pop3 = Self::open(backend.pop3).await;
        pop3.expect("+OK").await;
        pop3.ask(&format!("USER {local}@example.test"), "+OK").await;
        pop3.ask("PASS pass", "+OK").await;
        pop3
    }

    pub(crate) async fn send(&mut self, octets: &[u8]) {
        self.stream.write_all(octets).await.unwrap();
    }

    pub(crate) async fn say(&mut self, line: &str) {
        self.send(format!("{line}\r\n").as_bytes()).await;
    }

    /// The next line without CRLF; empty at the end of the connection.
    pub(crate) async fn line(&mut self) -> String {
        let mut line = Vec::new();
        timeout(PATIENCE, self.stream.read_until(b'\n', &mut line))
            .await
            .expect("an answer in time")
            .unwrap();
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }

    pub(crate) async fn expect(&mut self, prefix: &str) -> String {
        let line = self.line().await;
        assert!(
            line.starts_with(prefix),
            "expected {prefix:?}, got {line:?}"
        );
        line
    }

    pub(crate) async fn ask(&mut self, line: &str, prefix: &str) -> String {
        self.say(line).await;
        self.expect(prefix).await
    }

    /// A multi-line answer of POP3 after its status line, dots unstuffed, the final dot taken off.
    pub(crate) async fn lines(&mut self) -> Vec<u8> {
        let mut octets = Vec::new();
        loop {
            let mut line = Vec::new();
            timeout(PATIENCE, self.stream.read_until(b'\n', &mut line))
                .await
                .expect("an answer in time")
                .unwrap();
            if line == b".\r\n" || line.is_empty() {
                return octets;
            }
            octets.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        }
    }

    pub(crate) async fn retrieve(&mut self, number: usize) -> Vec<u8> {
        self.ask(&format!("RETR {number}"), "+OK").await;
        self.lines().await
    }

    /// Sends one message by LMTP and gives the reply of each recipient that was accepted.
    pub(crate) async fn deliver(&mut self, recipients: &[&str], message: &[u8]) -> Vec<String> {
        self.ask("MAIL FROM:<sender@elsewhere.test>", "250 ").await;
        let mut accepted = 0;
        for recipient in recipients {
            self.say(&format!("RCPT TO:<{recipient}@example.test>"))
                .await;
            accepted += usize::from(self.line().await.starts_with("250 "));
        }
        self.ask("DATA", "354 ").await;
        self.send(&stuffed(message)).await;
        let mut replies = Vec::new();
        for _ in 0..accepted {
            replies.push(self.line().await);
        }
        replies
    }
}

/// Dots stuffed, the final dot added.
pub(crate) fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 8);
    for line in message.split_inclusive(|octet| *octet == b'\n') {
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    assert!(
        out.is_empty() || out.ends_with(b"\r\n"),
        "a message ends with CRLF"
    );
    out.extend_from_slice(b".\r\n");
    out
}

/// Waits until a mailbox has this many messages and leaves a session open on it.
pub(crate) async fn until_listed(backend: &Backend, local: &str, count: usize) -> Dialogue {
    let began = Instant::now();
    loop {
        let mut pop3 = Dialogue::pop3(backend, local).await;
        let stat = pop3.ask("STAT", "+OK ").await;
        if stat.split(' ').nth(1).unwrap().parse::<usize>().unwrap() == count {
            return pop3;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "{count} messages are not listed: {stat}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
