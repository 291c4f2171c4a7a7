//! A real directory on loopback: what of the model its clients see through their caches and across restarts.
#![allow(clippy::unwrap_used)]

mod site;

use std::time::Duration;

use daemon::clock::now_ms;
use daemon::identity::Role;
use daemon::shutdown::Shutdown;
use directory_api::grant::GrantVerifier;
use directory_api::wire::{
    AccountChange, AppPassword, Credential, Import, ImportAddress, ImportOutcome, ImportRow,
    ImportTarget, KeyState, LoginRequest, Refused, Verdict, code, limit,
};
use directory_api::{
    AccountStatus, ClientOptions, DirectoryClient, DirectoryError, KeptLogins, Service,
};
use site::{Site, address, backend, eventually, is_kept, login};

#[tokio::test(flavor = "multi_thread")]
async fn an_app_password_opens_its_services_and_tells_when_it_was_used() {
    let mut site = Site::start().await;
    let ann = site.settle().await;
    let operator = site.client(Role::Operator, "op");
    let proxy = site.client(Role::PopImapProxy, "p1");
    let phone = AppPassword {
        name: "Phone".parse().unwrap(),
        credential: Credential::salted_sha256("made-by-a-program", b"salty"),
        services: Some(vec![Service::Pop3]),
    };
    let change = AccountChange {
        app_passwords: vec![phone],
        ..AccountChange::default()
    };
    operator.change_account(ann, &change).await.unwrap();
    let used = async |client: &DirectoryClient| {
        let items = client.credentials(ann).await.unwrap().items;
        let told = |one: directory_api::wire::CredentialEntry| {
            let name = one.name.map_or(String::new(), String::from);
            (name, one.scheme, one.last_used_ms)
        };
        items.into_iter().map(told).collect::<Vec<_>>()
    };
    let (own, phone) = (
        (String::new(), "ARGON2ID".to_owned()),
        ("phone".to_owned(), "SSHA256".to_owned()),
    );
    let before = used(&operator).await;
    assert_eq!(
        before,
        [
            (own.0.clone(), own.1.clone(), None),
            (phone.0.clone(), phone.1.clone(), None)
        ]
    );

    let pop3 = login("ann@x.test", "made-by-a-program");
    let imap = LoginRequest {
        service: Service::Imap,
        ..pop3.clone()
    };
    assert_eq!(
        proxy.login(&imap).await.unwrap_err().code(),
        code::SERVICE_FORBIDDEN
    );
    assert_eq!(
        used(&operator).await,
        before,
        "who is refused has used nothing"
    );
    let began = now_ms();
    proxy.login(&pop3).await.unwrap();
    let after = used(&operator).await;
    assert!(after[1].2.is_some_and(|at| at >= began), "{after:?}");
    assert_eq!(after[0].2, None);
    let imap = LoginRequest {
        service: Service::Imap,
        ..login("ann@x.test", "right")
    };
    proxy.login(&imap).await.unwrap();

    // It outlives the process, and the form in which it is kept stays.
    let told = used(&operator).await;
    site.down().await;
    site.up().await;
    let operator = site.client(Role::Operator, "op");
    assert_eq!(used(&operator).await, told);
    let remove = AccountChange {
        remove_app_passwords: vec!["phone".parse().unwrap()],
        ..AccountChange::default()
    };
    operator.change_account(ann, &remove).await.unwrap();
    let proxy = site.client(Role::PopImapProxy, "p1");
    assert_eq!(
        proxy.login(&pop3).await.unwrap_err().code(),
        code::BAD_CREDENTIALS
    );
    proxy.login(&imap).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_kept_about_an_alias_or_a_closing_account_go_with_the_change() {
    let site = Site::start().await;
    let ann = site.settle().await;
    let operator = site.client(Role::Operator, "op");
    let options = ClientOptions {
        positive_ttl: Duration::from_secs(600),
        negative_ttl: Duration::from_secs(600),
        logins: Some(KeptLogins {
            home: backend("b1"),
            time: Duration::from_secs(600),
        }),
        ..ClientOptions::default()
    };
    let client = site.client_with(Role::StoreBackend, "b1", &options);
    let shutdown = Shutdown::new();
    client.follow(&shutdown);
    let (x, y) = ("x.test".parse().unwrap(), "y.test".parse().unwrap());
    operator.put_domain_alias(&y, &x).await.unwrap();
    let is_known = async || {
        let verdict = client.lookup(&address("ann@y.test")).await.unwrap();
        matches!(verdict, Verdict::Accounts(_))
    };
    let user = login("ann@y.test", "right");
    let logs_in = async || client.login_or_kept(&user, false).await.is_ok();
    eventually(async || is_known().await && is_kept(&client, &user).await).await;
    let set = async |status| {
        let change = AccountChange {
            status: Some(status),
            ..AccountChange::default()
        };
        operator.change_account(ann, &change).await.unwrap();
    };
    set(AccountStatus::Closing).await;
    eventually(async || !is_known().await && !logs_in().await).await;
    set(AccountStatus::Active).await;
    eventually(async || is_known().await && is_kept(&client, &user).await).await;
    operator.put_domain_own(&y).await.unwrap();
    eventually(async || !is_known().await && !logs_in().await).await;
    operator.put_domain_alias(&y, &x).await.unwrap();
    eventually(async || is_known().await && logs_in().await).await;
    shutdown.begin();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_refusals_of_a_name_are_remembered_until_a_restart() {
    let mut site = Site::start().await;
    site.settle().await;
    let proxy = site.client(Role::PopImapProxy, "p1");
    let began = now_ms();
    for user in ["ANN@x.test", "nobody@x.test"] {
        for number in 1..=7 {
            let guess = LoginRequest {
                client_address: [192, 0, 2, number].into(),
                ..login(user, "wrong")
            };
            // The second one says no more than the first.
            proxy.login(&guess).await.unwrap_err();
            proxy.login(&guess).await.unwrap_err();
        }
    }
    let front = site.client(Role::MxFrontend, "m1");
    front.lookup(&address("nobody@x.test")).await.unwrap();
    front.lookup(&address("ann@y.test")).await.unwrap();
    let operator = site.client(Role::Operator, "op");
    operator.lookup(&address("nobody@x.test")).await.unwrap();
    let told = async |client: &DirectoryClient, name: &str| client.refusals(name).await.unwrap();
    let ann = told(&operator, "ann@X.test").await;
    assert!(ann.since_ms <= began);
    assert_eq!(ann.items.len(), 5, "the last ones");
    let last = &ann.items[0];
    let of = Refused::Login {
        service: Service::Pop3,
        client_address: [192, 0, 2, 7].into(),
    };
    let clients: std::collections::HashSet<String> = ann
        .items
        .iter()
        .map(|one| format!("{:?}", one.of))
        .collect();
    assert_eq!(clients.len(), 5);
    assert_eq!(
        (&last.of, &*last.code, &*last.by),
        (&of, code::BAD_CREDENTIALS, "p1")
    );
    assert!(last.at_ms >= began && ann.items.windows(2).all(|two| two[0].at_ms >= two[1].at_ms));
    let nobody = told(&operator, "nobody@x.test").await.items;
    let last = &nobody[0];
    assert_eq!(
        (&last.of, &*last.code, &*last.by),
        (&Refused::Recipient, "unknown_address", "m1")
    );
    assert!(
        nobody[1..]
            .iter()
            .all(|one| one.code == code::BAD_CREDENTIALS)
    );
    let foreign = told(&operator, "ann@y.test").await.items;
    assert_eq!((foreign.len(), &*foreign[0].code), (1, "unknown_domain"));
    assert!(
        proxy.refusals("ann@x.test").await.is_err(),
        "it is the operator's"
    );

    site.down().await;
    site.up().await;
    let again = told(&site.client(Role::Operator, "op"), "ann@x.test").await;
    assert!(again.items.is_empty() && again.since_ms > ann.since_ms);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_is_published_before_a_grant_is_signed_with_it() {
    let site = Site::start().await;
    site.settle().await;
    let operator = site.client(Role::Operator, "op");
    let proxy = site.client(Role::PopImapProxy, "p1");
    assert!(proxy.rotate_key().await.is_err(), "it is the operator's");
    let first = proxy.keys().await.unwrap();
    let both = operator.rotate_key().await.unwrap();
    let states: Vec<_> = both.iter().map(|key| key.state).collect();
    assert_eq!(states, [Some(KeyState::Used), Some(KeyState::Next)]);
    assert_eq!(both[0], first[0]);
    assert_eq!(proxy.keys().await.unwrap(), both);
    let again = operator.rotate_key().await;
    assert!(matches!(again, Err(DirectoryError::Refused(problem)) if problem.code == code::IN_USE));
    // Who knows the old key alone is served on.
    let verifier = GrantVerifier::new(now_ms());
    verifier.set_keys(&first);
    let reply = proxy.login(&login("ann@x.test", "right")).await.unwrap();
    verifier
        .verify(&reply.grant, now_ms(), &backend("b1"))
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_of_more_rows_than_the_limit_is_refused() {
    let site = Site::start().await;
    site.settle().await;
    let operator = site.client(Role::Operator, "op");
    let import = |count: usize| Import {
        rows: (0..count)
            .map(|n| {
                ImportRow::Address(ImportAddress {
                    address: address(&format!("a{n}@x.test")),
                    targets: vec![ImportTarget::Login("ann@x.test".parse().unwrap())],
                })
            })
            .collect(),
        update: false,
        update_passwords: false,
        on_trial: true,
    };
    let over = operator.import(&import(limit::IMPORT_ROWS_MAX + 1)).await;
    assert!(
        matches!(over, Err(DirectoryError::Refused(problem)) if problem.code == code::BAD_REQUEST)
    );
    let at = operator
        .import(&import(limit::IMPORT_ROWS_MAX))
        .await
        .unwrap();
    assert!(at.outcomes.iter().all(|one| *one == ImportOutcome::Created));
    assert_eq!(at.outcomes.len(), limit::IMPORT_ROWS_MAX);
    let proxy = site.client(Role::PopImapProxy, "p1");
    assert!(
        proxy.import(&import(1)).await.is_err(),
        "it is the operator's"
    );
}
