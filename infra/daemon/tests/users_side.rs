//! Listeners and streams towards users.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::{LONG, Site, any_port};
use daemon::{
    listener::{accept_each, accept_each_or, bind},
    public_tls::{CertificateFiles, PublicTls, TlsFiles},
    shutdown::Shutdown,
    stream::UserStream,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

fn public(site: &Site) -> PublicTls {
    let names = ["localhost", "mail.example.test", "127.0.0.1", "::1"];
    site.authority
        .issue_public(&names, &site.path("public.pem"), &site.path("public.key"))
        .unwrap();
    PublicTls::load(&site.path("public.pem"), &site.path("public.key")).unwrap()
}

fn client(site: &Site, version: &'static SupportedProtocolVersion) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(site.path("ca.pem")).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

fn name(name: &'static str) -> ServerName<'static> {
    ServerName::try_from(name).unwrap()
}

async fn pair() -> (TcpStream, UserStream) {
    let listener = bind(any_port(), "test").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (far, _) = listener.accept().await.unwrap();
    (near, UserStream::plain(far))
}

#[tokio::test]
async fn implicit_tls_serves_every_name_in_both_versions_and_says_what_was_agreed() {
    let site = Site::new();
    let tls = public(&site);
    for (version, text) in [
        (&rustls::version::TLS13, "TLSv1.3"),
        (&rustls::version::TLS12, "TLSv1.2"),
    ] {
        for host in ["localhost", "mail.example.test", "127.0.0.1", "::1"] {
            let (near, far) = pair().await;
            let UserStream::Plain(far) = far else {
                unreachable!()
            };
            let (served, used) = tokio::join!(
                UserStream::implicit_tls(far, &tls, LONG),
                client(&site, version).connect(name(host), near)
            );
            used.unwrap();
            let facts = served.unwrap().tls_facts().unwrap();
            assert_eq!(facts.version, text);
            assert!(facts.cipher.starts_with("TLS"), "{}", facts.cipher);
        }
    }
}

#[tokio::test]
async fn octets_pipelined_before_starttls_are_not_taken_into_tls() {
    let site = Site::new();
    let tls = public(&site);
    let (mut near, mut far) = pair().await;
    assert!(far.tls_facts().is_none() && !far.is_tls());
    let server = async {
        let mut before = [0; 100];
        let read = far.read(&mut before).await.unwrap();
        // The session reads the command with what was injected behind it, answers, and throws the rest away.
        assert_eq!(&before[..read], b"STARTTLS\r\nMAIL FROM:<injected>\r\n");
        far.write_all(b"220 go\r\n").await.unwrap();
        let mut far = far.starttls(&tls, LONG).await.unwrap();
        assert!(far.is_tls());
        let mut inside = [0; 6];
        far.read_exact(&mut inside).await.unwrap();
        assert_eq!(&inside, b"EHLO\r\n");
        far.write_all(b"250\r\n").await.unwrap();
        far.shutdown().await.unwrap();
    };
    let user = async {
        near.write_all(b"STARTTLS\r\nMAIL FROM:<injected>\r\n")
            .await
            .unwrap();
        let mut reply = [0; 8];
        near.read_exact(&mut reply).await.unwrap();
        let mut tls = client(&site, &rustls::version::TLS13)
            .connect(name("localhost"), near)
            .await
            .unwrap();
        tls.write_all(b"EHLO\r\n").await.unwrap();
        let mut answer = Vec::new();
        tls.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"250\r\n");
    };
    tokio::join!(server, user);
}

#[tokio::test]
async fn octets_still_unread_at_starttls_spoil_the_handshake() {
    let site = Site::new();
    let tls = public(&site);
    let (mut near, mut far) = pair().await;
    near.write_all(b"STARTTLS\r\nMAIL FROM:<injected>\r\n")
        .await
        .unwrap();
    let mut command = [0; 10];
    far.read_exact(&mut command).await.unwrap();
    assert!(far.starttls(&tls, LONG).await.is_err());
}

#[tokio::test]
async fn starttls_inside_tls_and_a_client_that_says_nothing_are_refused() {
    let site = Site::new();
    let tls = public(&site);
    let (near, far) = pair().await;
    let (far, near) = tokio::join!(
        far.starttls(&tls, LONG),
        client(&site, &rustls::version::TLS13).connect(name("::1"), near)
    );
    let _near = near.unwrap();
    assert!(far.unwrap().starttls(&tls, LONG).await.is_err());
    let (_silent, far) = pair().await;
    let error = far
        .starttls(&tls, Duration::from_millis(20))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
}

/// A user's connection in TLS, from both ends.
async fn session(site: &Site, tls: &PublicTls) -> (TlsStream<TcpStream>, UserStream) {
    let (near, far) = pair().await;
    let connector = client(site, &rustls::version::TLS13);
    let (far, near) = tokio::join!(
        far.starttls(tls, LONG),
        connector.connect(name("localhost"), near)
    );
    (near.unwrap(), far.unwrap())
}

/// The certificate that the user was shown.
fn shown(near: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    near.get_ref().1.peer_certificates().unwrap()[0].clone()
}

#[tokio::test]
async fn a_reload_takes_the_new_certificate_and_a_broken_file_keeps_the_old() {
    let site = Site::new();
    let tls = public(&site);
    let shown = async || shown(&session(&site, &tls).await.0);
    let first = shown().await;
    site.authority
        .issue_public(
            &["localhost"],
            &site.path("public.pem"),
            &site.path("public.key"),
        )
        .unwrap();
    assert_eq!(shown().await, first);
    tls.reload().unwrap();
    let second = shown().await;
    assert_ne!(second, first);
    std::fs::write(site.path("public.key"), "nothing").unwrap();
    assert!(
        tls.reload()
            .unwrap_err()
            .to_string()
            .contains("public.key: holds no usable private key")
    );
    assert_eq!(shown().await, second);
}

#[tokio::test]
async fn a_client_is_shown_the_certificate_for_the_name_it_asks_for() {
    let site = Site::new();
    let issue = |names: &[&str], file: &str| {
        let (certificate, key) = (
            site.path(&format!("{file}.pem")),
            site.path(&format!("{file}.key")),
        );
        site.authority
            .issue_public(names, &certificate, &key)
            .unwrap();
        CertificateFiles { certificate, key }
    };
    let first = issue(&["mail.example.test", "127.0.0.1"], "first");
    let others = vec![
        issue(&["mail.other.test"], "second"),
        issue(&["*.third.test"], "third"),
    ];
    let files = TlsFiles {
        certificate: Some(first.certificate),
        key: Some(first.key),
        others,
        ..TlsFiles::default()
    };
    let tls = files.load().unwrap().unwrap();
    // A client that checks names takes each, so each name was answered with its own certificate; an address is no SNI.
    for host in [
        "mail.example.test",
        "mail.other.test",
        "imap.third.test",
        "127.0.0.1",
    ] {
        let (near, far) = pair().await;
        let connector = client(&site, &rustls::version::TLS13);
        let (far, near) = tokio::join!(
            far.starttls(&tls, LONG),
            connector.connect(name(host), near)
        );
        near.unwrap_or_else(|error| panic!("{host}: {error}"));
        far.unwrap();
    }
    // For a name that nobody has, the first is shown, and the client says what it thinks of it.
    let (near, far) = pair().await;
    let connector = client(&site, &rustls::version::TLS13);
    let (_far, near) = tokio::join!(
        far.starttls(&tls, LONG),
        connector.connect(name("mail.unknown.test"), near)
    );
    let error = near.unwrap_err().to_string();
    assert!(error.contains("mail.example.test"), "{error}");
}

/// A handshake, and whether it resumed a session of before; octets pass both ways, so that tickets arrive.
async fn resumes(tls: &PublicTls, connector: &TlsConnector) -> bool {
    let (near, far) = pair().await;
    let (far, near) = tokio::join!(
        far.starttls(tls, LONG),
        connector.connect(name("localhost"), near)
    );
    let (mut far, mut near) = (far.unwrap(), near.unwrap());
    far.write_all(b"220 \r\n").await.unwrap();
    near.read_exact(&mut [0; 6]).await.unwrap();
    let seen = near.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
    assert_eq!(far.is_resumed(), seen);
    seen
}

#[tokio::test]
async fn a_session_begun_at_one_process_is_resumed_at_another_with_the_same_keys_and_certificate() {
    let site = Site::new();
    public(&site);
    let write_keys = |file: &str, keys: &[u8]| {
        let line = |key: &u8| data_encoding::BASE64.encode(&[*key; 48]) + "\n";
        std::fs::write(site.path(file), keys.iter().map(line).collect::<String>()).unwrap();
    };
    let process = |keys: &str| {
        let files = TlsFiles {
            certificate: Some(site.path("public.pem")),
            key: Some(site.path("public.key")),
            ticket_keys: Some(site.path(keys)),
            ..TlsFiles::default()
        };
        files.load().unwrap().unwrap()
    };
    write_keys("a.keys", &[1, 2, 3]);
    write_keys("b.keys", &[1, 2, 3]);
    let (a, b) = (process("a.keys"), process("b.keys"));
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let connector = client(&site, version);
        assert!(!resumes(&a, &connector).await);
        assert!(resumes(&b, &connector).await, "{version:?}");
        assert!(resumes(&a, &connector).await);
    }
    // One has rolled its keys already.
    let connector = client(&site, &rustls::version::TLS13);
    assert!(!resumes(&a, &connector).await);
    write_keys("a.keys", &[2, 3, 4]);
    a.reload().unwrap();
    assert!(resumes(&a, &connector).await);
    assert!(resumes(&b, &connector).await, "by the key that b has last");
    // A file that is none changes nothing.
    std::fs::write(site.path("a.keys"), "x").unwrap();
    assert!(a.reload().is_err());
    assert!(resumes(&a, &connector).await);
    write_keys("a.keys", &[2, 3, 4]);
    // Another certificate, another session.
    public(&site);
    a.reload().unwrap();
    assert!(!resumes(&a, &connector).await);
    assert!(resumes(&a, &connector).await);
    // Without a file a process resumes its own.
    let own = public(&site);
    let connector = client(&site, &rustls::version::TLS13);
    assert!(!resumes(&own, &connector).await);
    assert!(resumes(&own, &connector).await);
    assert!(!resumes(&a, &connector).await);
}

#[tokio::test]
async fn a_hangup_takes_the_new_certificate_and_open_sessions_go_on() {
    let site = Site::new();
    let tls = public(&site);
    let shutdown = Shutdown::new();
    tls.follow(&shutdown);
    let (mut near, mut far) = session(&site, &tls).await;
    let first = shown(&near);
    site.authority
        .issue_public(
            &["localhost"],
            &site.path("public.pem"),
            &site.path("public.key"),
        )
        .unwrap();
    let this = rustix::process::getpid();
    rustix::process::kill_process(this, rustix::process::Signal::HUP).unwrap();
    let renewed = async {
        while shown(&session(&site, &tls).await.0) == first {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, renewed).await.unwrap();
    // The session from before has seen nothing of it.
    near.write_all(b"a1 NOOP\r\n").await.unwrap();
    let mut octets = [0; 9];
    timeout(LONG, far.read_exact(&mut octets))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&octets, b"a1 NOOP\r\n");
    shutdown.begin();
    assert!(shutdown.drained(LONG).await);
}

#[tokio::test]
async fn a_busy_or_foreign_address_is_explained() {
    let listener = bind(any_port(), "mx smtp").unwrap();
    let address = listener.local_addr().unwrap();
    assert_eq!(
        bind(address, "mx smtp").unwrap_err().to_string(),
        format!(
            "cannot listen on {address} for mx smtp: address in use; stop what uses it or choose another port (`posthouse up`: --port-base)"
        )
    );
    let foreign: SocketAddr = "192.0.2.1:0".parse().unwrap();
    let error = bind(foreign, "proxy pop3").unwrap_err().to_string();
    assert!(
        error.ends_with("this machine does not have that address; correct the setting"),
        "{error}"
    );
}

async fn greeting(to: SocketAddr) -> (String, TcpStream) {
    let mut socket = TcpStream::connect(to).await.unwrap();
    let mut octet = [0; 8];
    let read = timeout(LONG, socket.read(&mut octet))
        .await
        .unwrap()
        .unwrap_or(0);
    (String::from_utf8_lossy(&octet[..read]).into_owned(), socket)
}

fn listening() -> (TcpListener, SocketAddr) {
    let listener = bind(any_port(), "test").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test]
async fn connections_over_the_limit_are_told_so_and_a_freed_slot_is_used_again() {
    let (listener, to) = listening();
    let shutdown = Shutdown::new();
    let hold = |mut socket: TcpStream, _| async move {
        assert!(socket.nodelay().unwrap());
        socket.write_all(b"welcome").await.unwrap();
        _ = socket.read_u8().await;
    };
    let full = |mut socket: TcpStream, _| async move { _ = socket.write_all(b"full").await };
    tokio::spawn(accept_each_or(listener, 2, shutdown.clone(), hold, full));
    let (first, one) = greeting(to).await;
    let (second, _two) = greeting(to).await;
    assert_eq!((first.as_str(), second.as_str()), ("welcome", "welcome"));
    assert_eq!(greeting(to).await.0, "full");
    drop(one);
    while greeting(to).await.0 != "welcome" {}
}

#[tokio::test]
async fn who_is_not_told_for_there_are_too_many_is_counted_all_the_same() {
    let (listener, to) = listening();
    let counted = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&counted);
    let full = move |socket: TcpStream, _| {
        counts.fetch_add(1, Ordering::SeqCst);
        async move {
            let _socket = socket;
            std::future::pending::<()>().await;
        }
    };
    let hold = |_: TcpStream, _| std::future::pending();
    tokio::spawn(accept_each_or(listener, 0, Shutdown::new(), hold, full));
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(TcpStream::connect(to).await.unwrap());
    }
    let all = async {
        while counted.load(Ordering::SeqCst) < 100 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, all).await.unwrap();
}

#[tokio::test]
async fn without_a_word_for_them_connections_over_the_limit_are_closed() {
    let (listener, to) = listening();
    tokio::spawn(accept_each(listener, 0, Shutdown::new(), |_, _| {
        std::future::pending()
    }));
    assert_eq!(greeting(to).await.0, "");
}

#[tokio::test]
async fn a_shutdown_closes_the_listener_and_waits_for_sessions() {
    let (listener, to) = listening();
    let shutdown = Shutdown::new();
    let hold = |mut socket: TcpStream, _| async move {
        socket.write_all(b"welcome").await.unwrap();
        _ = socket.read_u8().await;
    };
    let accepting = tokio::spawn(accept_each(listener, 10, shutdown.clone(), hold));
    let (_, session) = greeting(to).await;
    shutdown.begin();
    accepting.await.unwrap();
    assert!(TcpStream::connect(to).await.is_err());
    assert!(!shutdown.drained(Duration::from_millis(20)).await);
    drop(session);
    assert!(shutdown.drained(LONG).await);
}
