//! What a back-end can do without the directory, by what the directory left with it: tickets of logins.
#![allow(clippy::unwrap_used)]

mod site;

use std::time::Duration;

use daemon::clock::now_ms;
use daemon::identity::Role;
use daemon::shutdown::Shutdown;
use directory_api::client::NoTicket;
use directory_api::grant::{Grant, GrantVerifier};
use directory_api::wire::{AccountChange, AppPassword, Credential, LoginRequest};
use directory_api::{AccountStatus, ClientOptions, DirectoryClient, LoginError, Service};
use site::{Site, backend, eventually, login, secret};

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
    let began = std::time::Instant::now();
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
