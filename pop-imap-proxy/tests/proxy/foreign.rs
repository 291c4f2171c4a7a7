//! Users whose home is another mail system, played here by a script.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use daemon::identity::{Authority, IdentityFiles, Role};
use daemon::public_tls::TlsFiles;
use daemon::stream::UserStream;
use directory_api::wire::{ChangeKind, Foreign, ForeignService, ForeignTls};
use directory_api::{BackendName, LoginName};
use pop_imap_proxy::operate::{Drain, ListConnections, Which};
use pop_imap_proxy::{Config, ForeignLogin, Limits, Proxy};
use tempfile::TempDir;
use testkit::address::unused_address;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use crate::played::{LONG, World, any_port};
use crate::user::User;

/// What the other system does next on a connection.
#[derive(Clone)]
pub(crate) enum Act {
    Say(Vec<u8>),
    /// Takes one line, which `heard` gives.
    Hear,
    Tls(TlsFiles),
    /// Says nothing more, and keeps the connection.
    Hang,
    /// Answers each line with itself, until one is `BYE`.
    Echo,
    /// Gives back all octets, and says `bye` behind the last.
    Return,
    /// Takes all octets; `heard` gives how many.
    Count,
}

pub(crate) fn say(text: &str) -> Act {
    Act::Say(text.replace('\n', "\r\n").into_bytes())
}

pub(crate) struct Other {
    address: SocketAddr,
    scripts: Arc<Mutex<VecDeque<Vec<Act>>>>,
    heard: UnboundedReceiver<String>,
}

impl Other {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(any_port()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let scripts = Arc::<Mutex<VecDeque<Vec<Act>>>>::default();
        let (tell, heard) = unbounded_channel();
        let next = Arc::clone(&scripts);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let script = next.lock().unwrap().pop_front().expect("a script");
                tokio::spawn(perform(UserStream::plain(socket), script, tell.clone()));
            }
        });
        Self {
            address,
            scripts,
            heard,
        }
    }

    /// What happens on the next connection that has no script yet.
    pub(crate) fn plays(&self, script: impl Into<Vec<Act>>) {
        self.scripts.lock().unwrap().push_back(script.into());
    }

    pub(crate) async fn heard(&mut self) -> String {
        timeout(LONG, self.heard.recv()).await.unwrap().unwrap()
    }

    pub(crate) fn imap(&self, tls: ForeignTls) -> Foreign {
        Foreign {
            imap: Some(ForeignService {
                address: format!("localhost:{}", self.address.port()),
                tls,
            }),
            pop3: None,
        }
    }

    /// Both at one address: the script says what is spoken.
    pub(crate) fn plain(&self) -> Foreign {
        let service = Some(ForeignService {
            address: self.address.to_string(),
            tls: ForeignTls::Plain,
        });
        Foreign {
            imap: service.clone(),
            pop3: service,
        }
    }
}

async fn perform(stream: UserStream, script: Vec<Act>, tell: UnboundedSender<String>) {
    let mut user = User {
        stream,
        pending: Vec::new(),
    };
    for act in script {
        match act {
            // The proxy may have had enough of it.
            Act::Say(octets) => _ = user.stream.write_all(&octets).await,
            Act::Hear => _ = tell.send(user.line().await),
            Act::Tls(files) => {
                assert_eq!(user.pending, b"");
                let tls = files.load().unwrap().unwrap();
                let Ok(stream) = user.stream.starttls(&tls, LONG).await else {
                    return;
                };
                user.stream = stream;
            }
            Act::Hang => {
                let mut rest = Vec::new();
                _ = user.stream.read_to_end(&mut rest).await;
            }
            Act::Return => {
                let (mut read, mut write) = tokio::io::split(user.stream);
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                write.write_all(b"bye\r\n").await.unwrap();
                write.shutdown().await.unwrap();
                return;
            }
            Act::Count => {
                let mut sink = tokio::io::sink();
                let count = tokio::io::copy(&mut user.stream, &mut sink).await;
                _ = tell.send(count.unwrap().to_string());
            }
            Act::Echo => loop {
                let line = user.line().await;
                _ = tell.send(line.clone());
                if line.is_empty() || line == "BYE" {
                    _ = user.stream.shutdown().await;
                    return;
                }
                _ = user
                    .stream
                    .write_all(format!("{line}\r\n").as_bytes())
                    .await;
            },
        }
    }
}

pub(crate) fn imap_login() -> Vec<Act> {
    vec![
        say("* OK other\n"),
        Act::Hear,
        say("+\n"),
        Act::Hear,
        say("p1 OK [CAPABILITY IMAP4rev1 X-OTHER] in\n"),
        Act::Echo,
    ]
}

/// The master login of these tests; the folder holds its password.
fn master(folder: &Path) -> ForeignLogin {
    let password_file = folder.join("password");
    std::fs::write(&password_file, "master's own\n").unwrap();
    ForeignLogin {
        backend: BackendName::new("old").unwrap(),
        master: "post".into(),
        password_file,
        separator: None,
        ca: None,
        plaintext: false,
        tell_client: false,
    }
}

pub(crate) async fn world(
    limits: Limits,
    change: impl FnOnce(&mut ForeignLogin),
) -> (World, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut login = master(folder.path());
    change(&mut login);
    let world = World::with(|config| {
        config.limits = limits;
        config.foreign = vec![login];
    });
    (world.await, folder)
}

pub(crate) fn failures(reason: &str) -> String {
    format!("posthouse_proxy_open_failures_total{{listener=\"imap\",reason=\"{reason}\"}}")
}

fn plain(authorization: &str, authentication: &str) -> String {
    let message = format!("{authorization}\0{authentication}\0master's own");
    data_encoding::BASE64.encode(message.as_bytes())
}

#[tokio::test]
async fn a_user_of_another_system_is_logged_in_there_and_then_only_octets_pass() {
    let (world, _folder) = world(Limits::default(), |_| {}).await;
    let mut other = Other::start().await;
    world.directory.live_abroad("old", other.plain());
    other.plays(imap_login());
    let mut user = User::connect(world.imap).await;
    user.expect("* OK").await;
    let wrong = user.command("a1 LOGIN ann wrong").await;
    assert!(wrong.starts_with("a1 NO [AUTHENTICATIONFAILED]"));
    user.send("a2 LOGIN ann right\r\na3 NOOP\r\n").await;
    let told = user.line().await;
    assert_eq!(told, "a2 OK [CAPABILITY IMAP4rev1 X-OTHER] logged in");
    let health = world.ready().await;
    assert!(
        health.contains("\"back-end old\":\"does not have"),
        "{health}"
    );
    assert_eq!(user.line().await, "a3 NOOP");
    assert_eq!(other.heard().await, "p1 AUTHENTICATE PLAIN");
    assert_eq!(other.heard().await, plain("ann", "post"));
    assert_eq!(other.heard().await, "a3 NOOP");

    let operator = world.operator(Role::Operator);
    let all = ListConnections::default();
    let listed = operator.connections(&all).await.unwrap().connections;
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].backend.as_str(), listed[0].octets_from_user),
        ("old", 9)
    );
    user.send("BYE\r\n").await;
    assert_eq!(user.line().await, "");

    other.plays([
        say("+OK other\n"),
        Act::Hear,
        say("+ \n"),
        Act::Hear,
        say("+OK in\n"),
        Act::Echo,
    ]);
    let mut user = User::connect(world.pop3).await;
    user.expect("+OK").await;
    user.command("USER bob").await;
    assert_eq!(user.command("PASS right").await, "+OK logged in");
    assert_eq!(user.command("STAT").await, "STAT");
    assert_eq!(other.heard().await, "BYE");
    assert_eq!(other.heard().await, "AUTH PLAIN");
    assert_eq!(other.heard().await, plain("bob", "post"));
    // A user who goes is gone there too.
    drop(user);
    assert_eq!(other.heard().await, "STAT");
    assert_eq!(other.heard().await, "");
}

#[tokio::test]
async fn sessions_there_are_ended_and_held_back_by_an_operator_like_all_others() {
    let (world, _folder) = world(Limits::default(), |_| {}).await;
    let other = Other::start().await;
    world.directory.live_abroad("old", other.plain());
    other.plays(imap_login());
    let mut user = User::connect(world.imap).await;
    user.expect("* OK").await;
    user.command("a1 LOGIN ann right").await;
    let operator = world.operator(Role::Operator);
    let old = Some(BackendName::new("old").unwrap());
    let drain = Drain {
        backend: old.clone(),
        on: Some(true),
    };
    assert_eq!(operator.drain(&drain).await.unwrap().open, 1);
    let which = Which {
        user: Some(LoginName::new("ann").unwrap()),
        ..Which::default()
    };
    assert_eq!(operator.kick(&which).await.unwrap().ended, 1);
    assert_eq!(user.line().await, "");
    let mut user = User::connect(world.imap).await;
    user.expect("* OK").await;
    let told = user.command("a1 LOGIN ann right").await;
    assert!(told.starts_with("a1 NO [UNAVAILABLE]"), "{told}");
}

#[tokio::test]
async fn who_is_kicked_within_an_answer_from_there_has_nothing_else_as_its_end() {
    let (world, _folder) = world(Limits::default(), |_| {}).await;
    let other = Other::start().await;
    world.directory.live_abroad("old", other.plain());
    let mut script = imap_login();
    script.truncate(5);
    let half = "* 1 FETCH (BODY[] {5000}\n".to_owned() + &"half a message\n".repeat(100);
    // As Dovecot does: it stops within a literal when its client has no more to say.
    script.extend([Act::Hear, say(&half), Act::Hang]);
    other.plays(script);
    let user = User::connect(world.imaps).await;
    let mut user = user.handshake(world.authority_pem()).await;
    user.expect("* OK").await;
    user.command("a1 LOGIN ann right").await;
    user.send("a2 FETCH 1 BODY[]\r\n").await;
    user.expect("* 1 FETCH").await;
    let operator = world.operator(Role::Operator);
    assert_eq!(operator.kick(&Which::default()).await.unwrap().ended, 1);
    let mut got = std::mem::take(&mut user.pending);
    let ended = timeout(LONG, user.stream.read_to_end(&mut got)).await;
    // No orderly close of TLS either: it would make the half a whole.
    let ended = ended.unwrap().unwrap_err();
    assert_eq!(ended.kind(), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(got, "half a message\r\n".repeat(100).as_bytes());
}

#[tokio::test]
async fn who_is_changed_over_does_not_go_on_there() {
    let (world, _folder) = world(Limits::default(), |_| {}).await;
    world.ready().await;
    let mut other = Other::start().await;
    world.directory.live_abroad("old", other.plain());
    let mut users = Vec::new();
    for name in ["ann", "bob"] {
        other.plays(imap_login());
        let mut user = User::connect(world.imap).await;
        user.expect("* OK").await;
        let told = user.command(&format!("a1 LOGIN {name} right")).await;
        assert!(told.starts_with("a1 OK"), "{told}");
        users.push(user);
    }
    // bob has another password and a move that is recorded; both stay where they are.
    let directory = &world.directory;
    directory.tells(ChangeKind::Account, "8");
    directory.tells(ChangeKind::Move, "8");
    directory.tells(ChangeKind::Home, "7");
    assert_eq!(users[0].line().await, "");
    assert_eq!(users[1].command("a2 NOOP").await, "a2 NOOP");
    for _ in 0..4 {
        other.heard().await;
    }
    // ann's end there, bob's command, in either order.
    let heard = [other.heard().await, other.heard().await];
    assert!(heard.contains(&String::new()), "{heard:?}");
}

#[tokio::test]
async fn a_dead_one_is_said_at_once_and_an_account_that_was_changed_over_is_served_by_us() {
    let (world, _folder) = world(Limits::default(), |_| {}).await;
    let b1 = world.backend("b1").await;
    let dead = Foreign {
        imap: Some(ForeignService {
            address: unused_address().to_string(),
            tls: ForeignTls::Plain,
        }),
        pop3: None,
    };
    world.directory.live_abroad("old", dead);
    let before = world.count(&failures("foreign_away")).await;
    let began = Instant::now();
    let mut user = User::connect(world.imap).await;
    user.expect("* OK").await;
    let told = user.command("a1 LOGIN ann right").await;
    assert!(told.starts_with("a1 NO [UNAVAILABLE]"), "{told}");
    // It has no POP3 at all: that is no outage.
    let mut pop3 = User::connect(world.pop3).await;
    pop3.expect("+OK").await;
    pop3.command("USER ann").await;
    let told = pop3.command("PASS right").await;
    assert!(
        told.starts_with("-ERR") && !told.contains("SYS/TEMP"),
        "{told}"
    );
    assert!(began.elapsed() < Duration::from_secs(8));
    world
        .counted_to(&failures("foreign_away"), before + 1.0)
        .await;
    world.directory.live_at(&[("b1", b1.address)]);
    assert_eq!(user.command("a2 LOGIN ann right").await, "+OK welcome");
}

#[tokio::test]
async fn one_that_is_cut_slow_hostile_or_endless_costs_the_user_a_temporary_answer() {
    let limits = Limits {
        open_timeout_s: 2,
        ..Limits::default()
    };
    let (world, _folder) = world(limits, |_| {}).await;
    let other = Other::start().await;
    world.directory.live_abroad("old", other.plain());
    let login = |then: Act| {
        let mut script = imap_login();
        script.truncate(4);
        script.extend([then, Act::Hang]);
        script
    };
    let flood = Act::Say(b"* 1 EXISTS\r\n".repeat(10_000));
    for (script, reason) in [
        (vec![], "foreign_away"),
        (vec![say("* OK oth")], "foreign_away"),
        (vec![say("* PREAUTH root\n"), Act::Hang], "foreign_nonsense"),
        (vec![say("SSH-2.0-x\n"), Act::Hang], "foreign_nonsense"),
        (
            vec![Act::Say(vec![b'x'; 100_000]), Act::Hang],
            "foreign_nonsense",
        ),
        (login(flood), "foreign_nonsense"),
        (
            login(say("p1 NO [AUTHENTICATIONFAILED] no\n")),
            "foreign_refused",
        ),
        (login(say("p1 OK in")), "foreign_away"),
        (vec![Act::Hang], "foreign_away"),
    ] {
        other.plays(script);
        let line = failures(reason);
        let before = world.count(&line).await;
        let mut user = User::connect(world.imap).await;
        user.expect("* OK").await;
        let told = user.command("a1 LOGIN ann right").await;
        assert!(told.starts_with("a1 NO [UNAVAILABLE]"), "{reason}: {told}");
        world.counted_to(&line, before + 1.0).await;
        assert!(user.command("a2 NOOP").await.starts_with("a2 OK"));
    }
}

#[tokio::test]
async fn one_slow_login_there_does_not_shorten_the_patience_with_the_next() {
    let limits = Limits {
        open_timeout_s: 2,
        ..Limits::default()
    };
    let (world, _folder) = world(limits, |_| {}).await;
    let other = Other::start().await;
    world.directory.live_abroad("old", other.plain());
    for _ in 0..2 {
        // The verdict may wait for somebody's disk, or for a time that each wrong password costs.
        let mut script = imap_login();
        script.truncate(4);
        script.push(Act::Hang);
        other.plays(script);
        let mut user = User::connect(world.imap).await;
        user.expect("* OK").await;
        let began = Instant::now();
        let told = user.command("a1 LOGIN ann right").await;
        assert!(told.starts_with("a1 NO [UNAVAILABLE]"), "{told}");
        assert!(began.elapsed() >= Duration::from_secs(2));
    }
}

/// An authority of the other system's own: its certificate's file, and the files of a server for `localhost`.
pub(crate) fn certificates(folder: &Path) -> (PathBuf, TlsFiles) {
    let authority = Authority::create(folder).unwrap();
    let path = |what: &str| folder.join(what);
    let ca = path("other-ca.pem");
    std::fs::write(&ca, authority.certificate_pem()).unwrap();
    let (certificate, key) = (path("other.pem"), path("other.key"));
    authority
        .issue_public(&["localhost"], &certificate, &key)
        .unwrap();
    let files = TlsFiles {
        certificate: Some(certificate),
        key: Some(key),
        ..TlsFiles::default()
    };
    (ca, files)
}

#[tokio::test]
async fn in_tls_the_other_side_is_checked_and_told_whom_the_user_s_client_is() {
    let (here, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ca, files) = certificates(here.path());
    let (_, strange) = certificates(elsewhere.path());
    let (world, _folder) = world(Limits::default(), |login| {
        login.separator = Some('*');
        login.tell_client = true;
        login.ca = Some(ca);
    })
    .await;
    let mut other = Other::start().await;
    let answers = |greeting: Vec<Act>, first: u32| {
        let mut script = greeting;
        script.push(Act::Hear);
        script.push(say(&format!("p{first} BAD what\n")));
        script.extend([Act::Hear, say("+ \n"), Act::Hear]);
        script.extend([say(&format!("p{} OK in\n", first + 1)), Act::Hear]);
        let told = format!("* CAPABILITY IMAP4rev1\np{} OK\n", first + 2);
        script.extend([say(&told), Act::Echo]);
        script
    };
    let begin = |files: &TlsFiles| {
        let tls = Act::Tls(files.clone());
        vec![say("* OK\n"), Act::Hear, say("p1 OK begin\n"), tls]
    };
    world
        .directory
        .live_abroad("old", other.imap(ForeignTls::StartTls));
    other.plays(answers(begin(&files), 2));
    let mut user = User::connect(world.imap).await;
    user.expect("* OK").await;
    let told = user.command("a1 LOGIN ann right").await;
    assert_eq!(told, "a1 OK [CAPABILITY IMAP4rev1] logged in");
    assert_eq!(user.command("a2 NOOP").await, "a2 NOOP");
    assert_eq!(other.heard().await, "p1 STARTTLS");
    let client = user.stream.local_addr().unwrap();
    let id = format!(
        "p2 ID (\"x-originating-ip\" \"127.0.0.1\" \"x-originating-port\" \"{}\" \"x-session-ext-id\" \"",
        client.port()
    );
    let told = other.heard().await;
    assert!(told.starts_with(&id), "{told}");
    assert_eq!(other.heard().await, "p3 AUTHENTICATE PLAIN");
    assert_eq!(other.heard().await, plain("", "ann*post"));
    assert_eq!(other.heard().await, "p4 CAPABILITY");
    assert_eq!(other.heard().await, "a2 NOOP");

    world
        .directory
        .live_abroad("old", other.imap(ForeignTls::Implicit));
    let implicit = vec![Act::Tls(files.clone()), say("* OK\n")];
    other.plays(answers(implicit, 1));
    let mut user = User::connect(world.imap).await;
    user.expect("* OK").await;
    let told = user.command("a1 LOGIN ann right").await;
    assert_eq!(told, "a1 OK [CAPABILITY IMAP4rev1] logged in");
    let id = other.heard().await;
    assert!(id.starts_with("p1 ID"), "{id}");
    for _ in 0..3 {
        other.heard().await;
    }

    // Whose certificate is another authority's, or who will not begin TLS, hears no password.
    world
        .directory
        .live_abroad("old", other.imap(ForeignTls::StartTls));
    other.plays(begin(&strange));
    other.plays([say("* OK\n"), Act::Hear, say("p1 NO not here\n"), Act::Hang]);
    for reason in ["foreign_tls_failed", "foreign_refused"] {
        let line = failures(reason);
        let before = world.count(&line).await;
        let mut user = User::connect(world.imap).await;
        user.expect("* OK").await;
        let told = user.command("a1 LOGIN ann right").await;
        assert!(told.starts_with("a1 NO [UNAVAILABLE]"), "{told}");
        assert_eq!(other.heard().await, "p1 STARTTLS");
        world.counted_to(&line, before + 1.0).await;
    }
}

#[tokio::test]
async fn one_that_no_settings_name_is_not_asked() {
    let world = World::start(Limits::default()).await;
    let other = Other::start().await;
    world.directory.live_abroad("old", other.plain());
    let mut user = User::connect(world.imap).await;
    user.expect("* OK").await;
    let told = user.command("a1 LOGIN ann right").await;
    assert!(told.starts_with("a1 NO [UNAVAILABLE]"), "{told}");
    world.counted(&failures("foreign_not_set")).await;
}

#[tokio::test]
async fn a_file_of_the_settings_that_cannot_be_used_is_told_at_the_start() {
    daemon::tier::install_crypto();
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::create(folder.path()).unwrap();
    let path = |what: &str| folder.path().join(what);
    let identity = IdentityFiles {
        ca: path("ca2.pem"),
        certificate: path("p1.pem"),
        key: path("p1.key"),
    };
    authority
        .issue(Role::PopImapProxy, "p1", &identity)
        .unwrap();
    for (text, wrong) in [("\n", "no password"), ("right\n", "ca-that-is-not.pem")] {
        let mut login = master(folder.path());
        std::fs::write(&login.password_file, text).unwrap();
        login.ca = Some(path("ca-that-is-not.pem"));
        let config = Config {
            imap: Some(any_port()),
            identity: identity.clone(),
            metrics_listen: any_port(),
            foreign: vec![login],
            ..Config::default()
        };
        let error = Proxy::bind(config).err().unwrap().to_string();
        assert!(error.contains(wrong), "{error}");
    }
}
