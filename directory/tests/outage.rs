//! What others can do without the directory: a back-end by what the directory left with it, tickets of logins; all of them
//! with one that is there, and slow, or wrong, or only half there.
#![allow(clippy::unwrap_used)]

mod site;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use daemon::clock::now_ms;
use daemon::identity::{Identity, Role};
use daemon::link::{LinkBody, serve};
use daemon::listener::bind;
use daemon::shutdown::Shutdown;
use directory_api::client::NoTicket;
use directory_api::grant::{Grant, GrantVerifier};
use directory_api::wire::{AccountChange, AppPassword, Credential, LoginRequest, Verdict};
use directory_api::{
    AccountStatus, ChangeNumber, ClientOptions, DirectoryClient, LoginError, Service,
};
use site::{Site, address, backend, eventually, login, secret};

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

    async fn refusal(&self, request: &LoginRequest) -> NoTicket {
        self.home.check_ticket(request).await.unwrap_err()
    }
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
        let opened = tiers.home.check_ticket(&request).await.unwrap();
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
        // The feed may still bring what made the account: its ticket is dropped then, too.
        eventually(async || {
            tiers.log_in(&old).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            tiers.home.check_ticket(&old).await.is_ok()
        })
        .await;
        operator.change_account(ann, &change).await.unwrap();
        eventually(async || tiers.home.check_ticket(&old).await.is_err()).await;
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
        tokio::spawn(async move { home.check_ticket(&guess).await.unwrap_err() })
    });
    let guesses: Vec<_> = guesses.collect();
    let elsewhere = LoginRequest {
        client_address: [198, 51, 100, 1].into(),
        ..right
    };
    tiers.home.check_ticket(&elsewhere).await.unwrap();
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
        std::future::pending::<()>().await;
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
                let changes = proxy.changes(ChangeNumber(1), 0, Duration::ZERO).await;
                assert!(changes.is_err(), "{fault:?}");
                let refused = proxy.login(&login("ann@x.test", "right")).await;
                assert!(
                    matches!(refused, Err(LoginError::Away(_))),
                    "{fault:?}: {refused:?}"
                );
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
