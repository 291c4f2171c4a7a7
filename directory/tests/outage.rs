//! What others can do without the directory: a back-end by what the directory left with it, tickets of logins; all of them
//! with one that is there, and slow, or wrong, or only half there.
#![allow(clippy::unwrap_used)]

mod site;

use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use daemon::clock::now_ms;
use daemon::identity::{Identity, Role};
use daemon::link::{LinkBody, Problem, serve};
use daemon::listener::bind;
use daemon::shutdown::Shutdown;
use data_encoding::BASE64;
use directory_api::client::NoTicket;
use directory_api::grant::{Grant, GrantVerifier};
use directory_api::wire::{
    AccountChange, AppPassword, Credential, LoginRequest, SaslReply, SaslRequest, Verdict, code,
    path,
};
use directory_api::{
    AccountStatus, ChangeNumber, ClientOptions, DirectoryClient, LoginError, Service,
};
use site::{Site, address, backend, eventually, login, secret};
use testkit::scram::ScramClient;

/// A proxy that users come to, and their home.
struct Tiers {
    proxy: DirectoryClient,
    home: DirectoryClient,
    grants: GrantVerifier,
    shutdown: Shutdown,
}

impl Tiers {
    async fn of(site: &Site) -> Self {
        let home = site.client_with(Role::StoreBackend, "b1", &ClientOptions::default());
        let grants = GrantVerifier::new(0);
        grants.set_keys(&home.keys().await.unwrap());
        let shutdown = Shutdown::new();
        home.follow(&shutdown);
        Self {
            proxy: site.client(Role::PopImapProxy, "p1"),
            home,
            grants,
            shutdown,
        }
    }

    /// Logs in, and leaves the ticket with the home.
    async fn log_in(&self, request: &LoginRequest) -> Grant {
        let reply = self.proxy.login(request).await.unwrap();
        let grant = self.grants.verify(&reply.grant, now_ms(), &backend("b1"));
        self.home.keep_ticket(grant.clone().unwrap()).await;
        grant.unwrap()
    }

    /// By what was left there.
    async fn check(&self, request: &LoginRequest) -> Result<Grant, NoTicket> {
        self.home.check_ticket(request, in_time()).await
    }

    async fn refusal(&self, request: &LoginRequest) -> NoTicket {
        self.check(request).await.unwrap_err()
    }
}

fn in_time() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(30)
}

fn imap(user: &str, password: &str) -> LoginRequest {
    LoginRequest {
        service: Service::Imap,
        ..login(user, password)
    }
}

/// As `account app-password add` makes them.
const APP: &str = "kvoxgltvqvgh4lmzbhvxpaq3zi";

#[tokio::test(flavor = "multi_thread")]
async fn a_login_leaves_what_checks_its_own_password_and_no_other_for_what_it_opens() {
    let mut site = Site::start().await;
    let ann = site.settle().await;
    let operator = site.client(Role::Operator, "op");
    let app = |name: &str, password: &str| AppPassword {
        name: name.parse().unwrap(),
        credential: Credential::Password(secret(password)),
        services: Some(vec![Service::Imap]),
    };
    let change = AccountChange {
        app_passwords: vec![app("phone", APP), app("short", "guess me")],
        ..AccountChange::default()
    };
    operator.change_account(ann, &change).await.unwrap();
    let tiers = Tiers::of(&site).await;
    let own = tiers.log_in(&login("ann@x.test", "right")).await;
    let ticket = own.ticket.unwrap();
    assert_eq!(ticket.services, [Service::Pop3, Service::Imap]);
    let life_ms = ticket.expires_at_ms - own.issued_at_ms;
    assert!((0..=12 * 3_600_000).contains(&life_ms), "{life_ms}");
    let phone = tiers.log_in(&imap("ann@x.test", APP)).await;
    assert_eq!(phone.ticket.unwrap().services, [Service::Imap]);
    let short = tiers.log_in(&imap("ann@x.test", "guess me")).await;
    assert_eq!(short.ticket, None, "it could be guessed fast");

    site.down().await;
    for request in [
        login("ann@x.test", "right"),
        imap("Ann@X.test", "right"),
        imap("ann@x.test", APP),
    ] {
        let opened = tiers.check(&request).await.unwrap();
        assert_eq!((opened.account, opened.epoch), (ann, own.epoch));
    }
    for (request, why) in [
        (imap("ann@x.test", "wrong"), NoTicket::WrongPassword),
        (imap("ann@x.test", "guess me"), NoTicket::WrongPassword),
        (login("ann@x.test", APP), NoTicket::WrongPassword),
        (imap("nobody@x.test", "right"), NoTicket::Absent),
    ] {
        assert_eq!(tiers.refusal(&request).await, why);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_feed_tells_of_an_account_ends_its_tickets() {
    let mut site = Site::start().await;
    let ann = site.settle().await;
    let operator = site.client(Role::Operator, "op");
    let tiers = Tiers::of(&site).await;
    let mut password = "right";
    let status = |status| AccountChange {
        status: Some(status),
        ..AccountChange::default()
    };
    let credential = |password| AccountChange {
        credential: Some(Credential::Password(secret(password))),
        ..AccountChange::default()
    };
    for (change, next, lets_in) in [
        (credential("new"), "new", true),
        (status(AccountStatus::Suspended), "new", false),
    ] {
        let old = login("ann@x.test", password);
        // The feed may still bring what made the account: the login knew that.
        let mut grant = tiers.log_in(&old).await;
        tiers.check(&old).await.unwrap();
        operator.change_account(ann, &change).await.unwrap();
        eventually(async || tiers.check(&old).await.is_err()).await;
        // Another login has seen the account before that, and its grant comes behind it: from a directory whose clock is
        // ahead, or that was slow to make it.
        grant.issued_at_ms += 60_000;
        tiers.home.keep_ticket(grant).await;
        assert_eq!(tiers.refusal(&old).await, NoTicket::Absent);
        password = next;
        let asked = tiers.proxy.login(&login("ann@x.test", password)).await;
        assert_eq!(asked.is_ok(), lets_in, "{asked:?}");
    }
    // The directory has told all of it: nothing comes back while it is away.
    site.down().await;
    for password in ["right", "new"] {
        let request = login("ann@x.test", password);
        assert_eq!(tiers.refusal(&request).await, NoTicket::Absent);
    }
    // And once it is back it decides again, at once.
    site.up().await;
    eventually(async || {
        let asked = tiers.proxy.login(&login("ann@x.test", "new")).await;
        matches!(asked, Err(LoginError::Suspended))
    })
    .await;
    tiers.shutdown.begin();
}

/// What was told of the old history says nothing of the new one, though that has come further by now.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_was_restored_and_has_gone_on_ends_the_tickets_of_what_it_lost() {
    let mut site = Site::start().await;
    let ann = site.settle().await;
    let (data, copy) = (site.config().data, site.dir.path().join("copy"));
    site.down().await;
    copy_folder(&data, &copy);
    site.up().await;
    let tiers = Tiers::of(&site).await;
    let before = login("ann@x.test", "right");
    tiers.log_in(&before).await;
    let change = AccountChange {
        credential: Some(Credential::Password(secret("new"))),
        ..AccountChange::default()
    };
    let operator = site.client(Role::Operator, "op");
    operator.change_account(ann, &change).await.unwrap();
    eventually(async || tiers.check(&before).await.is_err()).await;
    let lost = login("ann@x.test", "new");
    tiers.log_in(&lost).await;
    tiers.check(&lost).await.unwrap();

    site.down().await;
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&copy, &data).unwrap();
    // Where nobody follows it yet, it makes as many changes and more.
    let elsewhere = directory::Config {
        listen: testkit::address::unused_address(),
        metrics_listen: testkit::address::unused_address(),
        ..site.config()
    };
    let (shutdown, listen) = (Shutdown::new(), elsewhere.listen);
    let running = tokio::spawn(directory::run(elsewhere, shutdown.clone()));
    let options = ClientOptions::default();
    let operator = site.client_at(listen, Role::Operator, "op", &options);
    site::comes_up(&operator).await;
    let suspended = AccountChange {
        status: Some(AccountStatus::Suspended),
        ..AccountChange::default()
    };
    operator.change_account(ann, &suspended).await.unwrap();
    for name in ["y.test", "z.test"] {
        operator.put_domain(&name.parse().unwrap()).await.unwrap();
    }
    shutdown.begin();
    running.await.unwrap().unwrap();
    assert!(tiers.check(&lost).await.is_ok(), "nobody has told of it");
    site.up().await;
    eventually(async || tiers.check(&lost).await.is_err()).await;
    tiers.shutdown.begin();
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (from, name) = (entry.as_ref().unwrap().path(), entry.unwrap().file_name());
        match from.is_dir() {
            true => copy_folder(&from, &to.join(name)),
            false => _ = std::fs::copy(&from, to.join(name)).unwrap(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_by_scram_leaves_a_ticket_too_which_the_password_opens() {
    let mut site = Site::start_with_scram().await;
    site.settle().await;
    let tiers = Tiers::of(&site).await;
    let request = |message: &str, state| SaslRequest {
        mechanism: "SCRAM-SHA-256".to_owned(),
        message: secret(&BASE64.encode(message.as_bytes())),
        state,
        bindings: Vec::new(),
        certificates: Vec::new(),
        service: Service::Imap,
        client_address: [192, 0, 2, 1].into(),
        secured: true,
        backend: None,
    };
    let client = ScramClient::new("ann@x.test", "right");
    let first = tiers.proxy.sasl(&request(&client.first(), None)).await;
    let SaslReply::Challenge { message, state } = first.unwrap() else {
        panic!("no challenge")
    };
    let challenge = String::from_utf8(BASE64.decode(message.as_bytes()).unwrap()).unwrap();
    let (last, _) = client.last(&challenge);
    let proved = tiers.proxy.sasl(&request(&last, Some(state))).await;
    let SaslReply::LoggedIn { login: granted, .. } = proved.unwrap() else {
        panic!("not let in")
    };
    let grant = tiers
        .grants
        .verify(&granted.grant, now_ms(), &backend("b1"));
    tiers.home.keep_ticket(grant.unwrap()).await;
    site.down().await;
    tiers.check(&login("ann@x.test", "right")).await.unwrap();
    let wrong = login("ann@x.test", "wrong");
    assert_eq!(tiers.refusal(&wrong).await, NoTicket::WrongPassword);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_guesses_is_answered_late_and_others_are_not() {
    let mut site = Site::start().await;
    site.settle().await;
    let tiers = Tiers::of(&site).await;
    let right = login("ann@x.test", "right");
    tiers.log_in(&right).await;
    site.down().await;
    let began = Instant::now();
    let guesses = (0..12).map(|number| {
        let (home, guess) = (
            tiers.home.clone(),
            login("ann@x.test", &format!("guess {number}")),
        );
        tokio::spawn(async move { home.check_ticket(&guess, in_time()).await.unwrap_err() })
    });
    let guesses: Vec<_> = guesses.collect();
    let elsewhere = LoginRequest {
        client_address: [198, 51, 100, 1].into(),
        ..right
    };
    tiers.check(&elsewhere).await.unwrap();
    for guess in guesses {
        assert_eq!(guess.await.unwrap(), NoTicket::WrongPassword);
    }
    // Four at a time, half a second each.
    assert!(began.elapsed() >= Duration::from_millis(1_500));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_told_to_leave_none_leaves_none() {
    let mut site = Site::prepare();
    site.settle_config = |config| config.ticket_life_h = 0;
    site.up().await;
    site.settle().await;
    let tiers = Tiers::of(&site).await;
    let grant = tiers.log_in(&login("ann@x.test", "right")).await;
    assert_eq!(grant.ticket, None);
}

/// What is wrong with every answer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Says(u16, &'static str),
    /// Says it, and cuts the stream.
    Cut(&'static str),
    Endless,
    /// An octet at a time.
    Drips,
    Hangs,
}

const FAULTS: [Fault; 14] = [
    Fault::Says(500, r#"{"code":"internal","message":"no"}"#),
    Fault::Says(503, r#"{"code":"storage","message":"no"}"#),
    Fault::Says(502, "<html>Bad Gateway</html>"),
    Fault::Says(404, ""),
    Fault::Says(200, ""),
    Fault::Says(200, "{}"),
    Fault::Says(200, r#"{"change":9,"results":[]}"#),
    Fault::Says(
        200,
        r#"{"change":9,"results":[{"address":"eve@x.test","verdict":"unknown_address","via":[]}]}"#,
    ),
    Fault::Says(
        200,
        r#"{"change":9,"results":[{"address":"ann@x.test","verd"#,
    ),
    Fault::Cut(r#"{"change":9,"results":[{"address":"ann@x.test","verd"#),
    Fault::Endless,
    Fault::Drips,
    Fault::Hangs,
    // That there is no such back-end is an answer, and ends what was known of it.
    Fault::Says(404, r#"{"code":"not_found","message":"no such path"}"#),
];

/// A directory of which every answer is wrong.
#[derive(Clone)]
struct Wrong {
    fault: Arc<Mutex<Fault>>,
    /// The most octets that were taken of one answer.
    taken_max: Arc<AtomicUsize>,
}

impl Wrong {
    async fn start(site: &Site, shutdown: &Shutdown) -> Self {
        let wrong = Self {
            fault: Arc::new(Mutex::new(FAULTS[0])),
            taken_max: Arc::default(),
        };
        let config = site.config();
        let identity = Arc::new(Identity::load(&config.identity).unwrap());
        let listener = bind(config.listen, "a wrong directory").unwrap();
        let router = Router::new().fallback(answer).with_state(wrong.clone());
        shutdown.spawn(serve(listener, identity, router, shutdown.clone()));
        wrong
    }
}

async fn answer(State(wrong): State<Wrong>) -> Response {
    let fault = *wrong.fault.lock().unwrap();
    if fault == Fault::Hangs {
        pending::<()>().await;
    }
    if let Fault::Says(status, said) = fault {
        let status = StatusCode::from_u16(status).unwrap();
        return (status, said).into_response();
    }
    let (sender, body) = LinkBody::channel(1);
    tokio::spawn(async move {
        let piece = match fault {
            Fault::Endless => vec![b' '; 64 << 10],
            _ => vec![b' '],
        };
        if let Fault::Cut(said) = fault {
            // Dropped without an end.
            _ = sender.send(said.into()).await;
            return;
        }
        let mut taken = 0;
        while sender.send(piece.clone().into()).await.is_ok() {
            taken += piece.len();
            wrong.taken_max.fetch_max(taken, Ordering::Relaxed);
            if fault == Fault::Drips {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    });
    Response::new(Body::new(body))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_slow_or_wrong_or_half_there_is_away_and_nobody_becomes_unknown() {
    let mut site = Site::start().await;
    site.settle().await;
    let options = ClientOptions {
        positive_ttl: Duration::from_millis(20),
        negative_ttl: Duration::from_millis(20),
        ..ClientOptions::default()
    };
    let client = site.client_with(Role::MxFrontend, "mx1", &options);
    let (ann, nobody) = (address("ann@x.test"), address("nobody@x.test"));
    let known = client.lookup(&ann).await.unwrap();
    assert_eq!(
        client.lookup(&nobody).await.unwrap(),
        Verdict::UnknownAddress
    );
    client.backend(&backend("b1")).await.unwrap();
    site.down().await;

    let shutdown = Shutdown::new();
    let wrong = Wrong::start(&site, &shutdown).await;
    // What was heard a moment ago is believed, whatever the directory says now.
    tokio::time::sleep(2 * options.negative_ttl).await;
    for fault in FAULTS {
        *wrong.fault.lock().unwrap() = fault;
        let proxy = site.client(Role::PopImapProxy, "p1");
        let began = Instant::now();
        tokio::join!(
            async {
                assert_eq!(client.lookup(&ann).await.unwrap(), known, "{fault:?}");
            },
            async {
                let answer = client.lookup(&nobody).await;
                assert!(answer.is_err_and(|error| error.is_away()), "{fault:?}");
            },
            async {
                let answer = client.backend(&backend("b1")).await;
                let says_so = matches!(fault, Fault::Says(404, said) if !said.is_empty());
                assert_eq!(answer.is_ok(), !says_so, "{fault:?}");
            },
            async {
                // As the proxy's own look at its health finds out.
                for _ in 0..2 {
                    let changes = proxy.changes(ChangeNumber(1), 0, Duration::ZERO).await;
                    assert!(changes.is_err(), "{fault:?}");
                }
                let refused = proxy.login(&login("ann@x.test", "right")).await;
                let Err(LoginError::Away(error)) = refused else {
                    panic!("{fault:?}: {refused:?}")
                };
                // What is not found there is no reason to let anybody in by a ticket.
                let says_so = matches!(fault, Fault::Says(404, said) if !said.is_empty());
                assert_eq!(error.is_away(), !says_so, "{fault:?}");
                assert_eq!(proxy.mechanisms().await, Vec::<String>::new());
            },
        );
        // Two seconds a question; a login, which has ten, is not asked for where nobody answers.
        assert!(began.elapsed() < Duration::from_secs(12), "{fault:?}");
    }
    let taken = wrong.taken_max.load(Ordering::Relaxed);
    assert!(
        (1..32 << 20).contains(&taken),
        "{taken} octets of one answer"
    );
    shutdown.begin();
}

/// It answers all but logins, so that nobody who only asks for changes finds out.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_answers_no_logins_holds_one_at_a_time() {
    let site = Site::prepare();
    let is_mended = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let identity = Arc::new(Identity::load(&site.config().identity).unwrap());
    let listener = bind(site.config().listen, "a directory without logins").unwrap();
    let (mended, asking) = (Arc::clone(&is_mended), Arc::clone(&asked));
    let answers = async move |Json(request): Json<LoginRequest>| {
        asking.lock().unwrap().push(request.user);
        while !mended.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Problem::new(StatusCode::UNAUTHORIZED, code::BAD_CREDENTIALS, "no")
    };
    let router = Router::new().route(path::LOGIN, post(answers));
    let shutdown = Shutdown::new();
    shutdown.spawn(serve(listener, identity, router, shutdown.clone()));

    let client = site.client(Role::PopImapProxy, "p1");
    let asks = async |user: &str, deadline| {
        let request = login(user, "right");
        client
            .login_or_kept_within(&request, false, deadline, pending())
            .await
    };
    let four = async |user: &'static str, deadline| {
        let ask = || asks(user, deadline);
        let four = tokio::join!(ask(), ask(), ask(), ask());
        for refused in [four.0, four.1, four.2, four.3] {
            assert!(matches!(refused, Err(LoginError::Away(error)) if error.is_away()));
        }
        let asked = asked.lock().unwrap();
        assert_eq!(asked.iter().filter(|one| *one == user).count(), 4, "{user}");
    };
    // That some had little time is no word of the directory's.
    four("hasty@x.test", Duration::from_millis(200)).await;
    four("first@x.test", Duration::from_secs(10)).await;
    // One finds out whether it answers again; the others do not wait for that.
    let long = Duration::from_secs(60);
    let trial = asks("trial@x.test", long);
    tokio::pin!(trial);
    let has_asked = |user: &str| asked.lock().unwrap().iter().any(|one| one == user);
    let others = async {
        eventually(async || has_asked("trial@x.test")).await;
        for _ in 0..100 {
            let refused = asks("other@x.test", long).await;
            assert!(matches!(refused, Err(LoginError::Away(error)) if error.is_away()));
        }
    };
    tokio::select! {
        () = others => {}
        found = &mut trial => panic!("{found:?}"),
    }
    assert!(!has_asked("other@x.test"));
    is_mended.store(true, Ordering::Relaxed);
    assert!(matches!(trial.await, Err(LoginError::BadCredentials)));
    let next = asks("next@x.test", long).await;
    assert!(matches!(next, Err(LoginError::BadCredentials)));
    shutdown.begin();
}
