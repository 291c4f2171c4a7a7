//! The dialogue before login, over real sockets, in front of a real directory.
#![allow(clippy::unwrap_used)]

mod site;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use daemon::identity::Role;
use daemon::public_tls::PublicTls;
use daemon::shutdown::Shutdown;
use daemon::stream::UserStream;
use data_encoding::BASE64;
use directory_api::front::{Ended, Entry, FrontOptions, LoggedIn, OpenError, SHOWN_WITHIN, log_in};
use directory_api::{DirectoryClient, Service};
use mail_proto::login::Refusal;
use mail_proto::{imap, pop3};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use site::Site;
use testkit::issuer::Issuer;
use testkit::scram::ScramClient;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

type Outcome = Result<LoggedIn<Session>, Ended>;

/// A session of this account, counted while it is open.
#[derive(Debug)]
struct Session {
    account: u64,
    /// The password by which it was opened, if the directory did not grant it.
    shown: Option<String>,
    open: Arc<AtomicUsize>,
}

impl Session {
    fn open(login: &Entry, open: Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        let shown = match login {
            Entry::Shown(shown) => Some(shown.request.password.reveal().to_owned()),
            Entry::Granted(_) => None,
        };
        Self {
            account: login.account().0,
            shown,
            open,
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the session's opener answers, call by call, and none that it never does; behind the end it opens.
type Script = &'static [Option<OpenError>];

struct Front {
    site: Site,
    directory: DirectoryClient,
    options: FrontOptions,
    shutdown: Shutdown,
    sessions: Arc<AtomicUsize>,
}

impl Front {
    async fn start(service: Service) -> Self {
        Self::of(Site::start().await, service).await
    }

    async fn of(site: Site, service: Service) -> Self {
        site.settle().await;
        let file = |name: &str| site.dir.path().join(name);
        site.authority
            .issue_public(&["localhost"], &file("public.pem"), &file("public.key"))
            .unwrap();
        let options = FrontOptions {
            service,
            hostname: "mail.x.test".to_owned(),
            tls: Some(PublicTls::load(&file("public.pem"), &file("public.key")).unwrap()),
            plaintext_on_loopback: true,
            login_timeout: Duration::from_secs(10),
            move_wait: Duration::ZERO,
            ask_home: None,
            imap_capabilities: None,
            backend: None,
            pop3_policy: None,
        };
        Self {
            directory: site.client(Role::PopImapProxy, "p1"),
            site,
            options,
            shutdown: Shutdown::new(),
            sessions: Arc::default(),
        }
    }

    /// One connection: the user's end, and what became of ours.
    async fn connect(&self, script: Script) -> (User<TcpStream>, JoinHandle<Outcome>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let user = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (socket, client) = listener.accept().await.unwrap();
        let directory = self.directory.clone();
        let (options, shutdown) = (self.options.clone(), self.shutdown.clone());
        let calls = Arc::new(AtomicUsize::new(0));
        let sessions = Arc::clone(&self.sessions);
        let task = tokio::spawn(async move {
            let stream = UserStream::plain(socket);
            let config = options.dialogue(&stream, client, &directory).await;
            let open = move |login: Entry, _| {
                let call = calls.fetch_add(1, Ordering::Relaxed);
                let sessions = Arc::clone(&sessions);
                async move {
                    match script.get(call) {
                        Some(Some(error)) => Err(*error),
                        Some(None) => std::future::pending().await,
                        None => Ok(Session::open(&login, sessions)),
                    }
                }
            };
            match options.service {
                Service::Pop3 => {
                    let core = pop3::Login::new(config);
                    log_in(stream, core, client, &directory, &options, &shutdown, open).await
                }
                Service::Imap => {
                    let core = imap::Login::new(config);
                    log_in(stream, core, client, &directory, &options, &shutdown, open).await
                }
            }
        });
        (User(BufStream::new(user)), task)
    }
}

impl Front {
    /// TLS as a client makes it, and what it may bind to: the exporter's octets and the certificate's hash.
    async fn handshake(
        &self,
        user: User<TcpStream>,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> (User<TlsStream<TcpStream>>, Vec<u8>, Vec<u8>) {
        let mut roots = rustls::RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.site.authority.certificate_pem().as_bytes());
        roots.add(ca.unwrap()).unwrap();
        let config = rustls::ClientConfig::builder_with_protocol_versions(&[version])
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let plain = user.0.into_inner();
        let tls = TlsConnector::from(Arc::new(config))
            .connect(name, plain)
            .await
            .unwrap();
        let session = tls.get_ref().1;
        let label = b"EXPORTER-Channel-Binding";
        let exported = session
            .export_keying_material([0; 32], label, None)
            .unwrap();
        let shown = session.peer_certificates().unwrap()[0].to_vec();
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &shown);
        let end_point = hash.as_ref().to_vec();
        (User(BufStream::new(tls)), exported.to_vec(), end_point)
    }
}

struct User<S: AsyncRead + AsyncWrite>(BufStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> User<S> {
    async fn says(&mut self, line: &str) {
        self.0.write_all(line.as_bytes()).await.unwrap();
        self.0.flush().await.unwrap();
    }

    async fn hears(&mut self, start: &str) {
        let line = self.line().await;
        assert!(line.starts_with(start), "{line:?} instead of {start:?}");
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).await.unwrap();
        line
    }

    /// Says the first message as the argument of a command; gives the last words that it heard.
    async fn proves(&mut self, command: &str, client: &ScramClient) -> String {
        let first = BASE64.encode(client.first().as_bytes());
        self.says(&format!("{command} {first}\r\n")).await;
        let line = self.line().await;
        let challenge = line.trim_end().strip_prefix("+ ").unwrap();
        let server_first = String::from_utf8(BASE64.decode(challenge.as_bytes()).unwrap()).unwrap();
        let (last, server_final) = client.last(&server_first);
        let last = BASE64.encode(last.as_bytes());
        self.says(&format!("{last}\r\n")).await;
        format!("+ {}\r\n", BASE64.encode(server_final.as_bytes()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pop3_user_gets_in_and_what_came_behind_the_password_is_kept() {
    let front = Front::start(Service::Pop3).await;
    let (mut user, ours) = front.connect(&[]).await;
    user.hears("+OK").await;
    user.says("USER ann@x.test\r\n").await;
    user.hears("+OK").await;
    user.says("PASS wrong\r\n").await;
    user.hears("-ERR [AUTH]").await;
    user.says("USER ann@x.test\r\nPASS right\r\nSTAT\r\n").await;
    user.hears("+OK").await;
    let logged_in = ours.await.unwrap().unwrap();
    assert_eq!(
        (logged_in.session.account, logged_in.leftover.as_slice()),
        (1, &b"STAT\r\n"[..])
    );
    assert_eq!(logged_in.facts.tls, None);
    assert_eq!(logged_in.login.backend.as_str(), "b1");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imap_user_gets_in_with_a_tag_still_to_be_answered() {
    let front = Front::start(Service::Imap).await;
    let (mut user, ours) = front.connect(&[]).await;
    user.hears("* OK").await;
    user.says("a7 LOGIN ann@x.test right\r\na8 SELECT INBOX\r\n")
        .await;
    let logged_in = ours.await.unwrap().unwrap();
    assert_eq!(logged_in.facts.tag.as_deref(), Some("a7"));
    assert_eq!(logged_in.leftover, b"a8 SELECT INBOX\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imap_user_gets_in_by_scram_and_hears_that_the_server_has_the_keys() {
    let front = Front::of(Site::start_with_scram().await, Service::Imap).await;
    let (mut user, ours) = front.connect(&[Some(OpenError::LookAgain)]).await;
    let greeting = user.line().await;
    let offered = " AUTH=SCRAM-SHA-256 AUTH=PLAIN AUTH=LOGIN]";
    assert!(greeting.contains(offered), "{greeting}");
    let wrong = ScramClient::new("ann@x.test", "wrong");
    user.proves("a1 AUTHENTICATE SCRAM-SHA-256", &wrong).await;
    user.hears("a1 NO [AUTHENTICATIONFAILED]").await;
    let right = ScramClient::new("ann@x.test", "right");
    // The client finds that the server has no keys, and cancels: nobody is in.
    let sessions = || front.sessions.load(Ordering::Relaxed);
    let last_words = user.proves("a2 AUTHENTICATE SCRAM-SHA-256", &right).await;
    user.hears(&last_words).await;
    assert_eq!(sessions(), 1);
    user.says("*\r\n").await;
    user.hears("a2 BAD cancelled").await;
    assert_eq!(sessions(), 0);
    let last_words = user.proves("a3 AUTHENTICATE SCRAM-SHA-256", &right).await;
    user.hears(&last_words).await;
    user.says("bm90IGVtcHR5\r\n").await;
    user.hears("a3 BAD malformed").await;
    assert_eq!(sessions(), 0);
    user.says("a4 AUTHENTICATE SCRAM-SHA-256 bm8=\r\n").await;
    user.hears("a4 BAD malformed").await;
    let last_words = user.proves("a5 AUTHENTICATE SCRAM-SHA-256", &right).await;
    user.hears(&last_words).await;
    user.says("\r\na6 SELECT INBOX\r\n").await;
    let logged_in = ours.await.unwrap().unwrap();
    assert_eq!(logged_in.facts.tag.as_deref(), Some("a5"));
    assert_eq!(logged_in.facts.mechanism.name(), "scram-sha-256");
    assert_eq!(logged_in.leftover, b"a6 SELECT INBOX\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_that_refuses_a_pop3_user_does_so_before_the_last_words() {
    let front = Front::of(Site::start_with_scram().await, Service::Pop3).await;
    let (mut user, ours) = front
        .connect(&[Some(OpenError::Refused(Refusal::InUse))])
        .await;
    user.hears("+OK").await;
    let right = ScramClient::new("ann@x.test", "right");
    user.proves("AUTH SCRAM-SHA-256", &right).await;
    user.hears("-ERR [IN-USE]").await;
    let last_words = user.proves("AUTH SCRAM-SHA-256", &right).await;
    user.hears(&last_words).await;
    user.says("\r\nSTAT\r\n").await;
    let logged_in = ours.await.unwrap().unwrap();
    assert_eq!(logged_in.leftover, b"STAT\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_sent_behind_stls_in_plain_text_are_never_read() {
    let front = Front::start(Service::Pop3).await;
    let (mut user, ours) = front.connect(&[]).await;
    user.hears("+OK").await;
    // One segment: the core takes the whole of it before it asks for TLS.
    user.says("STLS\r\nUSER ann@x.test\r\nPASS right\r\n").await;
    user.hears("+OK").await;
    let (mut user, _, _) = front.handshake(user, &rustls::version::TLS13).await;
    user.says("NOOP\r\n").await;
    user.hears("-ERR").await;
    user.says("USER ann@x.test\r\n").await;
    user.hears("+OK").await;
    user.says("PASS right\r\n").await;
    let logged_in = ours.await.unwrap().unwrap();
    assert!(logged_in.facts.tls.is_some());
    assert!(logged_in.leftover.is_empty());
}

/// RFC 7628 §4.3: the error is a challenge, the client answers it with anything, and then the command fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_a_token_gets_in_and_one_with_a_bad_one_hears_where_to_get_another() {
    let issuer = Issuer::new();
    let mut site = Site::prepare();
    std::fs::write(site.dir.path().join("issuer.json"), issuer.key_set()).unwrap();
    site.settle_config = |config| {
        config.oauth.keys = Some(config.data.with_file_name("issuer.json"));
        config.oauth.issuer = "https://id.x.test".to_owned();
        config.oauth.audience = "mail".to_owned();
    };
    site.up().await;
    let front = Front::of(site, Service::Imap).await;
    let (mut user, ours) = front.connect(&[]).await;
    let greeting = user.line().await;
    assert!(
        greeting.contains(" AUTH=OAUTHBEARER AUTH=XOAUTH2 AUTH=PLAIN "),
        "{greeting}"
    );
    let expires = daemon::clock::now_ms() / 1_000 + 600;
    let claims = format!(
        r#"{{"iss":"https://id.x.test","aud":"mail","email":"ann@x.test","email_verified":true,"exp":{expires}}}"#
    );
    let token = issuer.token("RS256", &claims);
    let base64 = |text: String| BASE64.encode(text.as_bytes());
    let bearer = |token: &str| base64(format!("n,a=ann@x.test,\x01auth=Bearer {token}\x01\x01"));
    let older = |token: &str| base64(format!("user=ann@x.test\x01auth=Bearer {token}\x01\x01"));
    for (mechanism, message) in [
        ("OAUTHBEARER", bearer("no.token.x")),
        ("XOAUTH2", older("no.token.x")),
    ] {
        user.says(&format!("a1 AUTHENTICATE {mechanism} {message}\r\n"))
            .await;
        let told = user.line().await;
        let told = BASE64.decode(&told.trim_end().as_bytes()[2..]).unwrap();
        let told = String::from_utf8(told).unwrap();
        assert!(told.contains(r#""schemes":"bearer""#), "{told}");
        user.says("AQ==\r\n").await;
        user.hears("a1 NO [AUTHENTICATIONFAILED]").await;
    }
    // Given up in the middle, and another mechanism begun.
    user.says(&format!("a2 AUTHENTICATE XOAUTH2 {}\r\n", older("x")))
        .await;
    user.hears("+ ").await;
    user.says("*\r\n").await;
    user.hears("a2 BAD cancelled").await;
    user.says("a3 AUTHENTICATE OAUTHBEARER\r\n").await;
    user.hears("+ ").await;
    user.says(&format!("{}\r\na4 NOOP\r\n", bearer(&token)))
        .await;
    let logged_in = ours.await.unwrap().unwrap();
    assert_eq!(logged_in.facts.tag.as_deref(), Some("a3"));
    assert_eq!(logged_in.facts.mechanism.name(), "oauthbearer");
    assert_eq!(logged_in.leftover, b"a4 NOOP\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_binds_the_login_to_the_tls_that_ends_here_and_to_no_other() {
    let front = Front::of(Site::start_with_scram().await, Service::Imap).await;
    let scram = || ScramClient::new("ann@x.test", "right");
    let plus = "a5 AUTHENTICATE SCRAM-SHA-256-PLUS";
    for (version, kind) in [
        (&rustls::version::TLS13, "tls-exporter"),
        (&rustls::version::TLS13, "tls-server-end-point"),
        (&rustls::version::TLS12, "tls-server-end-point"),
    ] {
        let (mut user, ours) = front.connect(&[]).await;
        assert!(!user.line().await.contains("-PLUS"), "there is no TLS yet");
        user.says("a1 STARTTLS\r\n").await;
        user.hears("a1 OK").await;
        let (mut user, exported, end_point) = front.handshake(user, version).await;
        user.says("a2 CAPABILITY\r\n").await;
        let offered = user.line().await;
        assert!(
            offered.contains("AUTH=SCRAM-SHA-256-PLUS AUTH=SCRAM-SHA-256 "),
            "{offered}"
        );
        user.hears("a2 OK").await;
        let right = match kind {
            "tls-exporter" => exported,
            _ => end_point,
        };
        let another: Vec<u8> = right.iter().map(|octet| !octet).collect();
        user.proves(plus, &scram().bound(kind, &another)).await;
        user.hears("a5 NO [CANNOT] channel binding").await;
        // Who is told that there is nothing to bind to, was told so by somebody in the middle.
        let mut fooled = scram();
        fooled.header = "y,,".to_owned();
        let first = BASE64.encode(fooled.first().as_bytes());
        user.says(&format!("a4 AUTHENTICATE SCRAM-SHA-256 {first}\r\n"))
            .await;
        user.hears("a4 NO [CANNOT] channel binding").await;
        let last_words = user.proves(plus, &scram().bound(kind, &right)).await;
        user.hears(&last_words).await;
        user.says("\r\n").await;
        let logged_in = ours.await.unwrap().unwrap();
        assert_eq!(logged_in.facts.mechanism.name(), "scram-sha-256-plus");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_without_tls_is_refused_where_it_is_not_allowed() {
    let mut front = Front::start(Service::Pop3).await;
    front.options.plaintext_on_loopback = false;
    let (mut user, ours) = front.connect(&[]).await;
    user.hears("+OK").await;
    user.says("USER ann@x.test\r\n").await;
    user.hears("-ERR").await;
    user.says("QUIT\r\n").await;
    user.hears("+OK").await;
    assert!(matches!(ours.await.unwrap(), Err(Ended::Closed(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_that_moved_is_looked_up_again_three_times_at_most() {
    const AGAIN: Option<OpenError> = Some(OpenError::LookAgain);
    let front = Front::start(Service::Pop3).await;
    let enter = async |script| {
        let (mut user, ours) = front.connect(script).await;
        user.hears("+OK").await;
        user.says("USER ann@x.test\r\nPASS right\r\n").await;
        user.hears("+OK").await;
        (user, ours)
    };
    let (_user, ours) = enter(&[AGAIN, AGAIN]).await;
    assert_eq!(ours.await.unwrap().unwrap().session.account, 1);
    let (mut user, ours) = enter(&[AGAIN, AGAIN, AGAIN]).await;
    user.hears("-ERR [SYS/TEMP]").await;
    user.says("USER ann@x.test\r\nPASS right\r\n").await;
    user.hears("+OK").await;
    assert!(ours.await.unwrap().is_ok());
    let (mut user, ours) = enter(&[Some(OpenError::Refused(Refusal::InUse))]).await;
    user.hears("-ERR [IN-USE]").await;
    drop(user);
    assert!(matches!(
        ours.await.unwrap(),
        Err(Ended::Disconnected | Ended::Failed(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_directory_gone_the_user_hears_that_it_is_temporary() {
    let mut front = Front::start(Service::Pop3).await;
    front.site.down().await;
    let (mut user, _ours) = front.connect(&[]).await;
    user.hears("+OK").await;
    user.says("USER ann@x.test\r\nPASS right\r\n").await;
    user.hears("+OK").await;
    user.hears("-ERR [SYS/TEMP]").await;
}

/// What lets them in or not is the home's to say; here it is known of Ann alone where that is.
#[tokio::test(flavor = "multi_thread")]
async fn with_the_directory_gone_a_known_home_decides_and_who_is_refused_cannot_tell() {
    let mut front = Front::start(Service::Pop3).await;
    let says = async |front: &Front, script, user: &str| {
        let (mut connection, ours) = front.connect(script).await;
        connection.hears("+OK").await;
        connection
            .says(&format!("USER {user}\r\nPASS right\r\n"))
            .await;
        connection.hears("+OK").await;
        (connection, ours)
    };
    let (_connection, ours) = says(&front, &[], "ann@x.test").await;
    assert_eq!(ours.await.unwrap().unwrap().session.shown, None);
    front.site.down().await;
    front.options.login_timeout = Duration::from_secs(60);
    // However long the home takes.
    let refused = [
        (
            &[Some(OpenError::Refused(Refusal::Temporary))][..],
            "ann@x.test",
        ),
        (&[Some(OpenError::Refused(Refusal::TooMany))], "ann@x.test"),
        (&[Some(OpenError::Moving)], "ann@x.test"),
        (&[Some(OpenError::LookAgain)], "ann@x.test"),
        (&[None], "ann@x.test"),
        (&[], "nobody@x.test"),
    ];
    let mut heard = tokio::task::JoinSet::new();
    for (script, user) in refused {
        let began = Instant::now();
        let (mut connection, ours) = says(&front, script, user).await;
        heard.spawn(async move {
            connection.hears("-ERR [SYS/TEMP]").await;
            (began.elapsed(), connection, ours)
        });
    }
    while let Some(heard) = heard.join_next().await {
        assert!(heard.unwrap().0 >= SHOWN_WITHIN);
    }
    let (_connection, ours) = says(&front, &[], "Ann@X.test").await;
    let logged_in = ours.await.unwrap().unwrap();
    assert_eq!(logged_in.session.account, 1);
    assert_eq!(logged_in.session.shown.as_deref(), Some("right"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_user_and_a_draining_process_end_the_dialogue() {
    let mut front = Front::start(Service::Pop3).await;
    let (mut user, ours) = front.connect(&[]).await;
    user.hears("+OK").await;
    front.shutdown.begin();
    assert!(matches!(ours.await.unwrap(), Err(Ended::GoingDown)));
    front.shutdown = Shutdown::new();
    front.options.login_timeout = Duration::from_millis(50);
    let (mut user, ours) = front.connect(&[]).await;
    user.hears("+OK").await;
    assert!(matches!(ours.await.unwrap(), Err(Ended::TimedOut)));
    user.hears("-ERR").await;
}
