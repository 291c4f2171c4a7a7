//! A directory on loopback for the tests.
#![allow(dead_code, reason = "each test file uses a part")]

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use daemon::identity::{Authority, Identity, IdentityFiles, Role};
use daemon::shutdown::Shutdown;
use directory::{Config, RunError};
use directory_api::wire::{
    AccountNew, AnnounceRequest, Credential, Incarnation, LoginRequest, Secret, VolumePosition,
};
use directory_api::{
    AccountId, Address, BackendName, ClientOptions, DirectoryClient, DirectoryError, Service,
};
use tempfile::TempDir;
use testkit::address::unused_address;
use tokio::task::JoinHandle;

/// A private authority and one directory that can be stopped and started again.
pub(crate) struct Site {
    pub(crate) dir: TempDir,
    pub(crate) authority: Authority,
    listen: SocketAddr,
    metrics: SocketAddr,
    /// Changes the settings before each start.
    pub(crate) settle_config: fn(&mut Config),
    running: Option<(Shutdown, JoinHandle<Result<(), RunError>>)>,
}

impl Site {
    pub(crate) fn prepare() -> Self {
        daemon::tier::install_crypto();
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca");
        std::fs::create_dir(&ca).unwrap();
        let authority = Authority::create(&ca).unwrap();
        Self {
            dir,
            authority,
            listen: unused_address(),
            metrics: unused_address(),
            settle_config: |_| (),
            running: None,
        }
    }

    pub(crate) async fn start() -> Self {
        let mut site = Self::prepare();
        site.up().await;
        site
    }

    /// One that offers SCRAM.
    pub(crate) async fn start_with_scram() -> Self {
        let mut site = Self::prepare();
        site.settle_config = |config| config.scram_iterations = 4_096;
        site.up().await;
        site
    }

    pub(crate) async fn up(&mut self) {
        let shutdown = Shutdown::new();
        let task = tokio::spawn(directory::run(self.config(), shutdown.clone()));
        self.running = Some((shutdown, task));
        let client = self.client(Role::Operator, "probe");
        let start = Instant::now();
        while client.keys().await.is_err() {
            assert!(start.elapsed() < PATIENCE, "directory does not come up");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn down(&mut self) {
        let (shutdown, task) = self.running.take().unwrap();
        shutdown.begin();
        task.await.unwrap().unwrap();
    }

    pub(crate) fn config(&self) -> Config {
        let mut config = Config {
            listen: self.listen,
            metrics_listen: self.metrics,
            data: self.dir.path().join("data"),
            identity: self.files(Role::Directory, "d1"),
            ..Config::default()
        };
        (self.settle_config)(&mut config);
        config
    }

    pub(crate) fn files(&self, role: Role, node: &str) -> IdentityFiles {
        let file = |name: &str| self.dir.path().join(format!("{role}-{node}.{name}"));
        let files = IdentityFiles {
            ca: self.dir.path().join("ca.pem"),
            certificate: file("pem"),
            key: file("key"),
        };
        self.authority.issue(role, node, &files).unwrap();
        files
    }

    pub(crate) fn client(&self, role: Role, node: &str) -> DirectoryClient {
        let options = ClientOptions {
            positive_ttl: Duration::from_millis(300),
            ..ClientOptions::default()
        };
        self.client_with(role, node, &options)
    }

    pub(crate) fn client_with(
        &self,
        role: Role,
        node: &str,
        options: &ClientOptions,
    ) -> DirectoryClient {
        self.client_at(self.listen, role, node, options)
    }

    pub(crate) fn client_at(
        &self,
        listen: SocketAddr,
        role: Role,
        node: &str,
        options: &ClientOptions,
    ) -> DirectoryClient {
        let identity = Identity::load(&self.files(role, node)).unwrap();
        DirectoryClient::new(&listen.to_string(), &identity, options)
    }

    /// Two back-ends, a domain, and ann on b1.
    pub(crate) async fn settle(&self) -> AccountId {
        self.settle_by(|role, node| self.client(role, node)).await
    }

    pub(crate) async fn settle_by(
        &self,
        client: impl Fn(Role, &str) -> DirectoryClient,
    ) -> AccountId {
        for name in ["b1", "b2"] {
            let (backend, announced) = (client(Role::StoreBackend, name), announcement(name));
            patiently(async || backend.announce(&announced).await).await;
        }
        let operator = client(Role::Operator, "op");
        let domain = "x.test".parse().unwrap();
        patiently(async || operator.put_domain(&domain).await).await;
        let ann = AccountNew {
            addresses: vec![address("ann@x.test")],
            ..AccountNew::new(
                "ann@x.test".parse().unwrap(),
                Some(Credential::Password(secret("right"))),
            )
        };
        let name = ann.login_name.clone();
        patiently(async || match operator.create_account(&ann).await {
            // One that was given up after 2 s may have been made.
            Err(DirectoryError::Refused(_)) => operator.account_of(&name).await,
            created => created.map(|created| created.now),
        })
        .await
        .id
    }
}

/// What a client gives up after 2 s is asked again: machines are busy.
async fn patiently<T>(mut ask: impl AsyncFnMut() -> Result<T, DirectoryError>) -> T {
    let start = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) if error.is_away() && start.elapsed() < PATIENCE => {}
            Err(error) => panic!("{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

/// A directory as a process of its own, which is killed when it is dropped.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(site: &Site) -> Self {
        Self::start_with(site, "")
    }

    pub(crate) fn start_with(site: &Site, setting: &str) -> Self {
        Self::start_at(site, &site.config(), setting)
    }

    pub(crate) fn start_at(site: &Site, config: &Config, setting: &str) -> Self {
        let port = config.listen.port();
        let file = site.dir.path().join(format!("directory-{port}.toml"));
        let quoted = |path: &std::path::Path| format!("{:?}", path.display().to_string());
        let text = format!(
            "listen = \"{}\"\nmetrics_listen = \"{}\"\ndata = {}\n{setting}\n[identity]\nca = {}\ncertificate = {}\nkey = {}\n",
            config.listen,
            config.metrics_listen,
            quoted(&config.data),
            quoted(&config.identity.ca),
            quoted(&config.identity.certificate),
            quoted(&config.identity.key),
        );
        std::fs::write(&file, text).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_directory"))
            .arg("--config")
            .arg(&file)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    pub(crate) fn stop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) async fn comes_up(operator: &DirectoryClient) {
    let start = Instant::now();
    while operator.keys().await.is_err() {
        assert!(start.elapsed() < PATIENCE, "it does not come up");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

pub(crate) fn address(text: &str) -> Address {
    text.parse().unwrap()
}

pub(crate) fn backend(name: &str) -> BackendName {
    name.parse().unwrap()
}

pub(crate) fn announcement(name: &str) -> AnnounceRequest {
    AnnounceRequest {
        backend: backend(name),
        address: format!("{name}.test:4300"),
        volumes: vec![VolumePosition {
            name: "v1".parse().unwrap(),
            incarnation: Incarnation(1),
            position: 1,
        }],
    }
}

pub(crate) fn login(user: &str, password: &str) -> LoginRequest {
    LoginRequest {
        user: user.to_owned(),
        password: secret(password),
        service: Service::Pop3,
        client_address: [192, 0, 2, 1].into(),
        secured: true,
        backend: None,
    }
}

/// Whether a login was answered without the directory: its grant is one that was there before.
pub(crate) async fn is_kept(client: &DirectoryClient, request: &LoginRequest) -> bool {
    let first = client.login_or_kept(request, false).await.unwrap();
    let second = client.login_or_kept(request, false).await.unwrap();
    first.grant == second.grant
}

/// Waits until it holds.
pub(crate) async fn eventually(mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < PATIENCE, "it never came to hold");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
