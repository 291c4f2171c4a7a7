//! A real directory on loopback: roles, logins, grants, the client's cache, restarts.
#![allow(clippy::unwrap_used)]

mod site;

use std::path::Path;
use std::time::{Duration, Instant};

use daemon::clock::now_ms;
use daemon::identity::Role;
use daemon::shutdown::Shutdown;
use directory::{Config, RunError};
use directory_api::grant::{GrantError, GrantVerifier};
use directory_api::wire::{
    AccountBatch, AccountChange, AccountNew, AddressPut, BackendPut, ChangeKind, CompareAndSet,
    Credential, ListQuery, LoginRequest, MoveId, MoveRecord, MoveState, Place, Target, Verdict,
    code,
};
use directory_api::{
    AccountStatus, Address, BackendState, ChangeNumber, ClientOptions, DirectoryClient,
    DirectoryError, Epoch, KeptLogins, LoginError, Service,
};
use site::{Site, address, announcement, backend, eventually, is_kept, login, secret};
use testkit::address::unused_address;

fn to_b2(epoch: u64) -> CompareAndSet {
    CompareAndSet {
        from_epoch: Epoch(epoch),
        to: Place {
            backend: backend("b2"),
            volume: "v1".parse().unwrap(),
        },
        move_id: None,
    }
}

fn is_forbidden<T>(answer: &Result<T, DirectoryError>) -> bool {
    matches!(answer, Err(DirectoryError::Refused(problem)) if problem.code == code::ROLE_FORBIDDEN)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_may_do_its_own_work_and_no_other() {
    let site = Site::start().await;
    let ann = site.settle().await;
    let of = |role| site.client(role, "n1");
    let ask = address("ann@x.test");
    for (role, may_look_up, may_log_in, may_move, may_write) in [
        (Role::MxFrontend, true, false, false, false),
        (Role::PopImapProxy, false, true, false, false),
        (Role::StoreBackend, true, true, false, false),
        (Role::Migrator, false, false, true, false),
        (Role::Operator, true, false, true, true),
        (Role::Directory, false, false, false, false),
    ] {
        let client = of(role);
        assert_eq!(
            is_forbidden(&client.lookup(&ask).await),
            !may_look_up,
            "{role} lookup"
        );
        let logged_in = client.login(&login("ann@x.test", "right")).await;
        assert_eq!(logged_in.is_ok(), may_log_in, "{role} login");
        let moved = client.compare_and_set(ann, &to_b2(99)).await;
        assert_eq!(is_forbidden(&moved), !may_move, "{role} compare-and-set");
        let written = client.put_domain(&"y.test".parse().unwrap()).await;
        assert_eq!(is_forbidden(&written), !may_write, "{role} put domain");
        let listed = client.addresses(&ListQuery::default()).await;
        assert_eq!(is_forbidden(&listed), !may_write, "{role} list addresses");
        assert!(
            client.backend(&backend("b1")).await.is_ok(),
            "{role} back-end"
        );
        assert!(client.keys().await.is_ok(), "{role} keys");
    }
    assert!(is_forbidden(
        &of(Role::Operator).announce(&announcement("b1")).await
    ));
    let b2 = site.client(Role::StoreBackend, "b2");
    assert!(is_forbidden(&b2.announce(&announcement("b1")).await));
    let own = |name| LoginRequest {
        backend: Some(backend(name)),
        ..login("ann@x.test", "right")
    };
    // A user who came to the wrong back-end is passed on with a grant for the right one.
    assert_eq!(
        b2.login(&own("b1")).await.unwrap().home.backend,
        backend("b1")
    );
    assert!(matches!(
        b2.login(&own("b2")).await,
        Err(LoginError::ForeignBackend)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_gives_a_grant_or_one_reason() {
    let site = Site::start().await;
    let ann = site.settle().await;
    let operator = site.client(Role::Operator, "op");
    let proxy = site.client(Role::PopImapProxy, "p1");
    let refused = async |request: &LoginRequest| proxy.login(request).await.unwrap_err().code();

    let reply = proxy.login(&login("ANN@x.test", "right")).await.unwrap();
    assert_eq!(
        (reply.account, reply.login_name.as_str()),
        (ann, "ann@x.test")
    );
    assert_eq!(
        (reply.home.backend.as_str(), reply.backend_address.as_str()),
        ("b1", "b1.test:4300")
    );

    let long = "x".repeat(2_000);
    for (user, password) in [
        ("ann@x.test", "wrong"),
        ("nobody@x.test", "right"),
        ("ann@x.test", ""),
        ("", "right"),
        ("ann@x.test\0", "right"),
        ("../ann@x.test", "right"),
        (&*long, "right"),
        ("ann@x.test", &*long),
    ] {
        let code = refused(&login(user, password)).await;
        assert_eq!(code, code::BAD_CREDENTIALS, "{user:.20?} {password:.20?}");
    }

    let right = login("ann@x.test", "right");
    let change = async |change: AccountChange| operator.change_account(ann, &change).await.unwrap();
    change(AccountChange {
        status: Some(AccountStatus::Suspended),
        ..Default::default()
    })
    .await;
    assert_eq!(refused(&right).await, code::SUSPENDED);
    change(AccountChange {
        status: Some(AccountStatus::Closing),
        ..Default::default()
    })
    .await;
    assert_eq!(refused(&right).await, code::CLOSING);
    assert_eq!(
        refused(&login("ann@x.test", "wrong")).await,
        code::BAD_CREDENTIALS
    );
    let imap_only = AccountChange {
        status: Some(AccountStatus::Active),
        services: Some(vec![Service::Imap]),
        ..Default::default()
    };
    change(imap_only).await;
    assert_eq!(refused(&right).await, code::SERVICE_FORBIDDEN);
    change(AccountChange {
        services: Some(vec![Service::Pop3]),
        ..Default::default()
    })
    .await;

    let mut record = MoveRecord {
        account: ann,
        id: MoveId::from_octets([1; 16]),
        from: reply.home.clone(),
        to: to_b2(1).to,
        state: MoveState::Planned,
        started_ms: 1,
        updated_ms: 1,
    };
    operator.put_move(&record).await.unwrap();
    record.state = MoveState::Frozen;
    operator.put_move(&record).await.unwrap();
    assert_eq!(refused(&right).await, code::MOVING);
    for state in [MoveState::Aborting, MoveState::Aborted] {
        record.state = state;
        operator.put_move(&record).await.unwrap();
    }

    let down = BackendPut {
        state: Some(BackendState::Down),
        ..BackendPut::default()
    };
    operator.put_backend(&backend("b1"), &down).await.unwrap();
    assert_eq!(refused(&right).await, code::HOME_DOWN);
    let up = BackendPut {
        state: Some(BackendState::Draining),
        ..BackendPut::default()
    };
    operator.put_backend(&backend("b1"), &up).await.unwrap();

    let moved = operator.compare_and_set(ann, &to_b2(1)).await.unwrap();
    let reply = proxy.login(&right).await.unwrap();
    assert_eq!(
        (reply.home, reply.backend_address.as_str()),
        (moved.home, "b2.test:4300")
    );
    let stale = operator.compare_and_set(ann, &to_b2(1)).await.unwrap_err();
    assert_eq!(stale.stale_home().unwrap().epoch, Epoch(2));

    change(AccountChange {
        credential: Some(Credential::Password(secret("new"))),
        ..Default::default()
    })
    .await;
    assert_eq!(refused(&right).await, code::BAD_CREDENTIALS);
    assert!(proxy.login(&login("ann@x.test", "new")).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_of_the_directory_opens_one_back_end_once() {
    let mut site = Site::start().await;
    site.settle().await;
    let verifier = GrantVerifier::new(now_ms());
    let proxy = site.client(Role::PopImapProxy, "p1");
    let right = login("ann@x.test", "right");
    let grant = proxy.login(&right).await.unwrap().grant;
    let check = |text: &str, name| verifier.verify(text, now_ms(), &backend(name));
    assert_eq!(check(&grant, "b1"), Err(GrantError::UnknownKey));
    verifier.set_keys(&proxy.keys().await.unwrap());
    assert_eq!(check(&grant, "b2"), Err(GrantError::ForeignBackend));
    let opened = check(&grant, "b1").unwrap();
    assert_eq!(
        (opened.service, opened.epoch),
        (Service::Pop3, Epoch::FIRST)
    );
    assert_eq!(check(&grant, "b1"), Err(GrantError::Replayed));
    // The key outlives the directory's process.
    site.down().await;
    site.up().await;
    let grant = proxy.login(&right).await.unwrap().grant;
    assert!(check(&grant, "b1").is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_reaches_the_caches_of_clients_that_follow() {
    let site = Site::start().await;
    let ann = site.settle().await;
    let operator = site.client(Role::Operator, "op");
    let client = lasting(&site);
    let shutdown = Shutdown::new();
    client.follow(&shutdown);
    let alias = address("alias@x.test");
    assert_eq!(
        client.lookup(&alias).await.unwrap(),
        Verdict::UnknownAddress
    );
    let other = address("a@y.test");
    assert_eq!(client.lookup(&other).await.unwrap(), Verdict::UnknownDomain);

    let put = AddressPut {
        targets: vec![Target::Address(address("ann@x.test"))],
    };
    operator.put_address(&alias, &put).await.unwrap();
    let on = async |address: &Address| match client.lookup(address).await.unwrap() {
        Verdict::Accounts(located) => Some(located[0].home.backend.to_string()),
        _ => None,
    };
    eventually(async || on(&alias).await.as_deref() == Some("b1")).await;
    operator.compare_and_set(ann, &to_b2(1)).await.unwrap();
    eventually(async || on(&alias).await.as_deref() == Some("b2")).await;
    operator
        .delete_address(&address("ann@x.test"))
        .await
        .unwrap();
    eventually(async || client.lookup(&alias).await.unwrap() == Verdict::UnknownAddress).await;
    operator
        .put_domain(&"y.test".parse().unwrap())
        .await
        .unwrap();
    eventually(async || client.lookup(&other).await.unwrap() == Verdict::UnknownAddress).await;

    assert_eq!(
        client.backend(&backend("b1")).await.unwrap().state,
        BackendState::Active
    );
    let drain = BackendPut {
        state: Some(BackendState::Draining),
        ..BackendPut::default()
    };
    operator.put_backend(&backend("b1"), &drain).await.unwrap();
    eventually(async || {
        client.backend(&backend("b1")).await.unwrap().state == BackendState::Draining
    })
    .await;
    shutdown.begin();
    assert!(shutdown.drained(Duration::from_secs(5)).await);
}

/// A front-end's client whose answers live for an hour: only the feed can make these go.
fn lasting(site: &Site) -> DirectoryClient {
    let hour = Duration::from_secs(3_600);
    let options = ClientOptions {
        positive_ttl: hour,
        negative_ttl: hour,
        ..ClientOptions::default()
    };
    site.client_with(Role::MxFrontend, "mx1", &options)
}

/// A back-end's client that keeps logins for an hour: only the feed can make these go.
fn keeping(site: &Site) -> DirectoryClient {
    let options = ClientOptions {
        logins: Some(KeptLogins {
            home: backend("b1"),
            time: Duration::from_secs(3_600),
        }),
        ..ClientOptions::default()
    };
    site.client_with(Role::StoreBackend, "b1", &options)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_at_home_is_kept_until_the_feed_tells_of_a_change() {
    let site = Site::start().await;
    let ann = site.settle().await;
    let operator = site.client(Role::Operator, "op");
    let client = keeping(&site);
    let right = login("ann@x.test", "right");
    assert!(!is_kept(&client, &right).await, "nobody tells of changes");
    let shutdown = Shutdown::new();
    client.follow(&shutdown);
    let kept = async |request: &LoginRequest| {
        let request = request.clone();
        eventually(async || is_kept(&client, &request).await).await;
    };
    kept(&right).await;
    // Neither another password, service nor connection has anything of it.
    for wrong in ["wrong", "", "right "] {
        let refused = client
            .login_or_kept(&login("ann@x.test", wrong), false)
            .await;
        assert!(matches!(refused, Err(LoginError::BadCredentials)));
    }
    let asked = client.login_or_kept(&right, false).await.unwrap();
    for other in [
        LoginRequest {
            service: Service::Imap,
            ..right.clone()
        },
        LoginRequest {
            secured: false,
            ..right.clone()
        },
    ] {
        let reply = client.login_or_kept(&other, false).await.unwrap();
        assert_ne!(reply.grant, asked.grant);
    }
    let again = client.login_or_kept(&right, true).await.unwrap();
    assert_ne!(again.grant, asked.grant, "who looks again is told anew");

    let change = async |change: AccountChange| {
        operator.change_account(ann, &change).await.unwrap();
    };
    let refused_as = async |request: &LoginRequest, code: &str| {
        eventually(async || {
            let answer = client.login_or_kept(request, false).await;
            answer.is_err_and(|error| error.code() == code)
        })
        .await;
    };
    kept(&right).await;
    change(AccountChange {
        credential: Some(Credential::Password(secret("new"))),
        ..Default::default()
    })
    .await;
    refused_as(&right, code::BAD_CREDENTIALS).await;
    let right = login("ann@x.test", "new");
    kept(&right).await;
    change(AccountChange {
        status: Some(AccountStatus::Suspended),
        ..Default::default()
    })
    .await;
    refused_as(&right, code::SUSPENDED).await;
    change(AccountChange {
        status: Some(AccountStatus::Active),
        ..Default::default()
    })
    .await;
    kept(&right).await;
    let down = BackendPut {
        state: Some(BackendState::Down),
        ..BackendPut::default()
    };
    operator.put_backend(&backend("b1"), &down).await.unwrap();
    refused_as(&right, code::HOME_DOWN).await;
    let up = BackendPut {
        state: Some(BackendState::Active),
        ..BackendPut::default()
    };
    operator.put_backend(&backend("b1"), &up).await.unwrap();
    kept(&right).await;
    // Who lives elsewhere needs a fresh grant each time.
    operator.compare_and_set(ann, &to_b2(1)).await.unwrap();
    eventually(async || {
        let reply = client.login_or_kept(&right, false).await.unwrap();
        reply.home.backend == backend("b2")
    })
    .await;
    assert!(!is_kept(&client, &right).await);
    shutdown.begin();
    assert!(shutdown.drained(Duration::from_secs(5)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_login_is_of_no_use_while_the_directory_tells_of_no_changes() {
    let mut site = Site::start().await;
    site.settle().await;
    let client = keeping(&site);
    let shutdown = Shutdown::new();
    client.follow(&shutdown);
    let right = login("ann@x.test", "right");
    eventually(async || is_kept(&client, &right).await).await;
    let before = client.login_or_kept(&right, false).await.unwrap();
    site.down().await;
    eventually(async || {
        let answer = client.login_or_kept(&right, false).await;
        answer.is_err_and(|error| matches!(error, LoginError::Away(_)))
    })
    .await;
    site.up().await;
    eventually(async || client.login_or_kept(&right, false).await.is_ok()).await;
    eventually(async || is_kept(&client, &right).await).await;
    let after = client.login_or_kept(&right, false).await.unwrap();
    assert_ne!(after.grant, before.grant, "from before the gap");
    shutdown.begin();
    assert!(shutdown.drained(Duration::from_secs(5)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_password_drops_no_answer_that_clients_keep() {
    let mut site = Site::start().await;
    let ann = site.settle().await;
    let operator = site.client(Role::Operator, "op");
    let client = lasting(&site);
    let shutdown = Shutdown::new();
    client.follow(&shutdown);
    let imported = AccountChange {
        credential: Some(Credential::Hashed(secret(
            "{SSHA256}hi4gWHjm5z9yOSyWBH2RWOqf7vzbWsmXdjwRlNEMSxiNT+gU",
        ))),
        ..AccountChange::default()
    };
    let changed = operator.change_account(ann, &imported).await.unwrap();
    let known = address("ann@x.test");
    // It follows by now: something that was unknown came to be known.
    let heard_of = async |alias: &Address| {
        client.lookup(alias).await.unwrap();
        let put = AddressPut {
            targets: vec![Target::Account(ann)],
        };
        operator.put_address(alias, &put).await.unwrap();
        eventually(async || client.lookup(alias).await.unwrap() != Verdict::UnknownAddress).await;
    };
    heard_of(&address("first@x.test")).await;
    let answer = client.lookup(&known).await.unwrap();

    let proxy = site.client(Role::PopImapProxy, "p1");
    proxy.login(&login("ann@x.test", "secret")).await.unwrap();
    eventually(async || {
        let news = operator.changes(changed.change, 100, Duration::ZERO).await;
        let mut news = news.unwrap().changes.into_iter();
        news.any(|change| change.kind == ChangeKind::Hash && change.key == ann.to_string())
    })
    .await;
    heard_of(&address("second@x.test")).await;
    site.down().await;
    assert_eq!(
        client.lookup(&known).await.unwrap(),
        answer,
        "it was dropped"
    );
    shutdown.begin();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_directory_gone_known_answers_go_on_and_nobody_becomes_unknown() {
    let mut site = Site::start().await;
    site.settle().await;
    let options = ClientOptions {
        positive_ttl: Duration::from_millis(50),
        negative_ttl: Duration::from_millis(50),
        ..ClientOptions::default()
    };
    let client = site.client_with(Role::MxFrontend, "mx1", &options);
    let proxy = site.client(Role::PopImapProxy, "p1");
    let (known, unknown) = (address("ann@x.test"), address("nobody@x.test"));
    let answer = client.lookup(&known).await.unwrap();
    assert!(matches!(answer, Verdict::Accounts(_)));
    assert_eq!(
        client.lookup(&unknown).await.unwrap(),
        Verdict::UnknownAddress
    );
    client.backend(&backend("b1")).await.unwrap();

    site.down().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let start = Instant::now();
    assert_eq!(client.lookup(&known).await.unwrap(), answer);
    assert!(client.lookup(&unknown).await.unwrap_err().is_away());
    assert!(client.backend(&backend("b1")).await.is_ok());
    assert!(client.backend(&backend("b9")).await.unwrap_err().is_away());
    let refused = proxy
        .login(&login("ann@x.test", "right"))
        .await
        .unwrap_err();
    assert!(matches!(refused, LoginError::Away(_)), "{refused:?}");
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );

    site.up().await;
    eventually(async || {
        client
            .lookup(&unknown)
            .await
            .is_ok_and(|verdict| verdict == Verdict::UnknownAddress)
    })
    .await;
    eventually(async || proxy.login(&login("ann@x.test", "right")).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_start_before_its_directory() {
    let mut site = Site::prepare();
    let client = site.client(Role::MxFrontend, "mx1");
    let shutdown = Shutdown::new();
    client.follow(&shutdown);
    let start = Instant::now();
    assert!(
        client
            .lookup(&address("a@x.test"))
            .await
            .unwrap_err()
            .is_away()
    );
    assert!(start.elapsed() < Duration::from_secs(2));
    site.up().await;
    eventually(async || {
        client
            .lookup(&address("a@x.test"))
            .await
            .is_ok_and(|it| it == Verdict::UnknownDomain)
    })
    .await;
    shutdown.begin();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_everything() {
    let mut site = Site::start().await;
    let ann = site.settle().await;
    let operator = site.client(Role::Operator, "op");
    operator.compare_and_set(ann, &to_b2(1)).await.unwrap();
    let before = (
        operator.account(ann).await.unwrap(),
        operator.backends(&ListQuery::default()).await.unwrap(),
        operator.keys().await.unwrap(),
        operator
            .changes(ChangeNumber(0), 1000, Duration::ZERO)
            .await
            .unwrap(),
    );
    site.down().await;
    site.up().await;
    let after = (
        operator.account(ann).await.unwrap(),
        operator.backends(&ListQuery::default()).await.unwrap(),
        operator.keys().await.unwrap(),
        operator
            .changes(ChangeNumber(0), 1000, Duration::ZERO)
            .await
            .unwrap(),
    );
    assert_eq!(before, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_accounts_are_made_in_seconds_and_twice_is_once() {
    let site = Site::start().await;
    site.settle().await;
    let operator = site.client(Role::Operator, "op");
    let credential = Credential::salted_sha256("pass", b"saltsalt");
    let accounts: Vec<_> = (0..10_000)
        .map(|number| {
            let name = format!("user{number:05}@x.test");
            AccountNew {
                addresses: vec![address(&name)],
                ..AccountNew::new(name.parse().unwrap(), Some(credential.clone()))
            }
        })
        .collect();
    let batch = AccountBatch { accounts };
    let start = Instant::now();
    let reply = operator.create_accounts(&batch).await.unwrap();
    assert_eq!((reply.created, reply.existing), (10_000, 0));
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
    let again = operator.create_accounts(&batch).await.unwrap();
    assert_eq!((again.created, again.existing), (0, 10_000));
    let counts: Vec<u64> = operator
        .backends(&ListQuery::default())
        .await
        .unwrap()
        .items
        .iter()
        .map(|one| one.accounts)
        .collect();
    assert!(counts[0].abs_diff(counts[1]) <= 1, "{counts:?}");
    let proxy = site.client(Role::PopImapProxy, "p1");
    assert!(
        proxy
            .login(&login("user09999@x.test", "pass"))
            .await
            .is_ok()
    );
    let one = operator
        .account_of(&"user00000@x.test".parse().unwrap())
        .await
        .unwrap();
    operator.delete_account(one.id).await.unwrap();
    let gone = operator
        .account_of(&"user00000@x.test".parse().unwrap())
        .await;
    assert!(matches!(gone, Err(DirectoryError::Unknown)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_makes_no_sense_is_refused_with_its_reason() {
    let site = Site::start().await;
    site.settle().await;
    let operator = site.client(Role::Operator, "op");
    let code_of = |error: DirectoryError| match error {
        DirectoryError::Refused(problem) => problem.code.into_owned(),
        other => panic!("{other:?}"),
    };
    let weightless = BackendPut {
        weight: Some(0),
        ..BackendPut::default()
    };
    let refused = operator
        .put_backend(&backend("b1"), &weightless)
        .await
        .unwrap_err();
    assert_eq!(code_of(refused), code::BAD_REQUEST);
    let nowhere = BackendPut {
        address: Some("b3".into()),
        ..BackendPut::default()
    };
    let refused = operator
        .put_backend(&backend("b3"), &nowhere)
        .await
        .unwrap_err();
    assert_eq!(code_of(refused), code::BAD_REQUEST);
    let strange = AccountNew::new(
        "s@x.test".parse().unwrap(),
        Some(Credential::Hashed(secret("{ROT13}cnff"))),
    );
    let refused = operator.create_account(&strange).await.unwrap_err();
    assert_eq!(code_of(refused), code::BAD_REQUEST);
    let again = AccountNew::new("ann@x.test".parse().unwrap(), None);
    let refused = operator.create_account(&again).await.unwrap_err();
    assert_eq!(code_of(refused), code::EXISTS);
    let odd = address("a/b?c%d@x.test");
    let put = AddressPut {
        targets: vec![Target::Address(address("ann@x.test"))],
    };
    operator.put_address(&odd, &put).await.unwrap();
    assert_eq!(operator.address(&odd).await.unwrap().address, odd);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_hash_lets_its_owner_in_and_one_beyond_the_limits_is_refused_by_name() {
    let site = Site::start().await;
    site.settle().await;
    let operator = site.client(Role::Operator, "op");
    let proxy = site.client(Role::PopImapProxy, "p1");
    let account = |name: &str, stored: &str| {
        let credential = Credential::Hashed(secret(stored));
        AccountNew::new(name.parse().unwrap(), Some(credential))
    };
    let batch = AccountBatch {
        accounts: vec![
            account(
                "bob",
                "{BLF-CRYPT}$2y$06$Xss15/ED03fWfCHGv67Ncer9MHl3o5s/6wV5TAfPGPRqmGQa5ewni",
            ),
            account("cid", "{plain}secret"),
            // The empty password's own.
            account("eve", "{SMD5.HEX}ceb20772e0c9d240c75eb26b0e37abee73616c74"),
        ],
    };
    operator.create_accounts(&batch).await.unwrap();
    for name in ["bob", "cid"] {
        assert!(proxy.login(&login(name, "secret")).await.is_ok(), "{name}");
        for wrong in ["Secret", "", "secret\0"] {
            let refused = proxy.login(&login(name, wrong)).await.unwrap_err();
            assert_eq!(refused.code(), code::BAD_CREDENTIALS, "{name} {wrong:?}");
        }
    }
    let refused = proxy.login(&login("eve", "")).await.unwrap_err();
    assert_eq!(refused.code(), code::BAD_CREDENTIALS);

    let over = "{PBKDF2}$1$salt$2000001$0c60c80f961f0e71f3a9b524af6012062fe037a6";
    let batch = AccountBatch {
        accounts: vec![account("dan", "{PLAIN}secret"), account("fay", over)],
    };
    let Err(DirectoryError::Refused(problem)) = operator.create_accounts(&batch).await else {
        panic!("it was taken");
    };
    assert_eq!(problem.code, code::BAD_REQUEST);
    for part in ["fay", "iterations", "2000001", "2000000"] {
        assert!(problem.message.contains(part), "{}", problem.message);
    }
    let dan = operator.account_of(&"dan".parse().unwrap()).await;
    assert!(matches!(dan, Err(DirectoryError::Unknown)), "{dan:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_cannot_start_says_why() {
    let mut site = Site::start().await;
    let busy = directory::run(site.config(), Shutdown::new())
        .await
        .unwrap_err();
    assert!(matches!(busy, RunError::Bind(_)), "{busy}");
    let elsewhere = Config {
        listen: unused_address(),
        metrics_listen: unused_address(),
        ..site.config()
    };
    let locked = directory::run(elsewhere, Shutdown::new())
        .await
        .unwrap_err();
    assert!(
        locked
            .to_string()
            .contains("another directory serves this folder"),
        "{locked}"
    );
    site.down().await;
    let config = Config {
        identity: site.files(Role::Migrator, "m1"),
        ..site.config()
    };
    let wrong = directory::run(config, Shutdown::new()).await.unwrap_err();
    assert!(
        matches!(
            wrong,
            RunError::WrongRole {
                role: Role::Migrator
            }
        ),
        "{wrong}"
    );
    let config = Config {
        data: Path::new("/proc/nowhere").into(),
        ..site.config()
    };
    let wrong = directory::run(config, Shutdown::new()).await.unwrap_err();
    assert!(wrong.to_string().starts_with("/proc/nowhere: "), "{wrong}");
}
