//! SASL dialogues with a real directory on loopback: what a proxy sends for a client, step by step.
#![allow(clippy::unwrap_used)]

mod site;

use std::time::{Duration, Instant};

use daemon::clock::now_ms;
use daemon::identity::Role;
use data_encoding::BASE64;
use directory::Config;
use directory_api::grant::GrantVerifier;
use directory_api::wire::{
    AccountChange, AccountNew, AppPassword, ChangeKind, ChannelBinding, Credential, LoginReply,
    SaslReply, SaslRequest, code,
};
use directory_api::{AccountStatus, ChangeNumber, DirectoryClient, LoginError, Service};
use site::{Site, backend, login, secret};
use testkit::scram::ScramClient;

const SCRAM: &str = "SCRAM-SHA-256";
const SCRAM_PLUS: &str = "SCRAM-SHA-256-PLUS";

fn request(message: &str, state: Option<String>) -> SaslRequest {
    SaslRequest {
        mechanism: SCRAM.to_owned(),
        message: secret(&BASE64.encode(message.as_bytes())),
        state,
        bindings: Vec::new(),
        certificates: Vec::new(),
        service: Service::Imap,
        client_address: [192, 0, 2, 1].into(),
        secured: true,
        backend: None,
    }
}

fn text(base64: &str) -> String {
    String::from_utf8(BASE64.decode(base64.as_bytes()).unwrap()).unwrap()
}

/// The server's first message and its state.
async fn begin(proxy: &DirectoryClient, first: &str) -> (String, String) {
    match proxy.sasl(&request(first, None)).await.unwrap() {
        SaslReply::Challenge { message, state } => (text(&message), state),
        reply => panic!("{reply:?}"),
    }
}

fn logged_in(reply: SaslReply, server_final: &str) -> LoginReply {
    match reply {
        SaslReply::LoggedIn { message, login } => {
            assert_eq!(text(&message.unwrap()), server_final);
            *login
        }
        reply => panic!("{reply:?}"),
    }
}

/// A whole dialogue.
async fn enter(proxy: &DirectoryClient, client: &ScramClient) -> Result<LoginReply, LoginError> {
    let (server_first, state) = begin(proxy, &client.first()).await;
    let (last, server_final) = client.last(&server_first);
    let reply = proxy.sasl(&request(&last, Some(state))).await?;
    Ok(logged_in(reply, &server_final))
}

fn code_of<T: std::fmt::Debug>(answer: Result<T, LoginError>) -> &'static str {
    answer.unwrap_err().code()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_the_password_gets_a_grant_without_sending_it() {
    let site = Site::start_with_scram().await;
    let ann = site.settle().await;
    let proxy = site.client(Role::PopImapProxy, "p1");
    eventually(async || proxy.mechanisms().await == [SCRAM_PLUS, SCRAM]).await;
    let reply = enter(&proxy, &ScramClient::new("ANN@x.test", "right"))
        .await
        .unwrap();
    assert_eq!(
        (reply.account, reply.login_name.as_str()),
        (ann, "ann@x.test")
    );
    let verifier = GrantVerifier::new(0);
    verifier.set_keys(&proxy.keys().await.unwrap());
    let grant = verifier
        .verify(&reply.grant, now_ms(), &backend("b1"))
        .unwrap();
    assert_eq!((grant.account, grant.service), (ann, Service::Imap));

    for (user, password) in [
        ("ann@x.test", "wrong"),
        ("nobody@x.test", "right"),
        ("ann@x.test ", "right"),
        ("a,n=n", "right"),
        (&*"x".repeat(2_000), "right"),
    ] {
        let code = code_of(enter(&proxy, &ScramClient::new(user, password)).await);
        assert_eq!(code, code::BAD_CREDENTIALS, "{user:.20} {password}");
    }
    // Neither another's name for the session, nor anybody but proxies and back-ends.
    let mut acting = ScramClient::new("ann@x.test", "right");
    acting.header = "n,a=root,".to_owned();
    let code = code_of(proxy.sasl(&request(&acting.first(), None)).await);
    assert_eq!(code, code::BAD_CREDENTIALS);
    acting.header = "n,a=ann@x.test,".to_owned();
    assert!(enter(&proxy, &acting).await.is_ok());
    // The longest nonce that is taken at first is taken with the server's behind it.
    acting.nonce = "x".repeat(1_024);
    assert!(enter(&proxy, &acting).await.is_ok());
    let operator = site.client(Role::Operator, "op");
    let code = code_of(operator.sasl(&request(&acting.first(), None)).await);
    assert_eq!(code, "directory_refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_user_looks_and_takes_as_a_wrong_password_does() {
    let site = Site::start_with_scram().await;
    site.settle().await;
    let operator = site.client(Role::Operator, "op");
    let keyless = AccountNew::new("bob@x.test".parse().unwrap(), None);
    operator.create_account(&keyless).await.unwrap();
    let proxy = site.client(Role::PopImapProxy, "p1");
    let mut salts = Vec::new();
    for user in ["ann@x.test", "bob@x.test", "nobody@x.test", "no\u{7f}name"] {
        let client = ScramClient::new(user, "wrong");
        let (first, _) = begin(&proxy, &client.first()).await;
        let (again, state) = begin(&proxy, &client.first()).await;
        let (_, shape) = first.split_once(",s=").unwrap();
        assert_eq!(
            Some(shape),
            again.split_once(",s=").map(|(_, rest)| rest),
            "{user}"
        );
        assert_ne!(first, again, "the nonces differ");
        let (salt, iterations) = shape.split_once(",i=").unwrap();
        assert_eq!((salt.len(), iterations), (24, "4096"), "{user}");
        salts.push(salt.to_owned());
        let (last, _) = client.last(&again);
        let began = Instant::now();
        let code = code_of(proxy.sasl(&request(&last, Some(state))).await);
        assert_eq!(code, code::BAD_CREDENTIALS, "{user}");
        assert!(began.elapsed() >= Duration::from_millis(250), "{user}");
    }
    salts.sort();
    salts.dedup();
    assert_eq!(salts.len(), 4);

    // A user who gets a password does not get another salt: that would tell that there is one.
    let salt_of_bob = async || {
        let (first, _) = begin(&proxy, &ScramClient::new("bob@x.test", "").first()).await;
        first.split_once(",s=").unwrap().1.to_owned()
    };
    let before = salt_of_bob().await;
    let page = operator
        .accounts(&directory_api::wire::ListQuery::default())
        .await
        .unwrap();
    let bob = page
        .items
        .iter()
        .find(|one| one.login_name.as_str() == "bob@x.test")
        .unwrap();
    let change = AccountChange {
        credential: Some(Credential::Password(secret("new"))),
        ..AccountChange::default()
    };
    operator.change_account(bob.id, &change).await.unwrap();
    assert_eq!(salt_of_bob().await, before);
    assert!(
        enter(&proxy, &ScramClient::new("bob@x.test", "new"))
            .await
            .is_ok()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_is_not_this_dialogue_s_is_refused() {
    let site = Site::start_with_scram().await;
    site.settle().await;
    let proxy = site.client(Role::PopImapProxy, "p1");
    let client = ScramClient::new("ann@x.test", "right");
    let (server_first, state) = begin(&proxy, &client.first()).await;
    let (last, server_final) = client.last(&server_first);
    let right = request(&last, Some(state.clone()));
    let refused = async |proxy: &DirectoryClient, request: &SaslRequest| {
        assert_eq!(
            code_of(proxy.sasl(request).await),
            code::SASL_STATE,
            "{request:?}"
        );
    };
    let other = site.client(Role::PopImapProxy, "p2");
    refused(&other, &right).await;
    let cut = state[..state.len() - 1].to_owned();
    for bent in [
        SaslRequest {
            service: Service::Pop3,
            ..right.clone()
        },
        SaslRequest {
            client_address: [192, 0, 2, 2].into(),
            ..right.clone()
        },
        SaslRequest {
            secured: false,
            ..right.clone()
        },
        SaslRequest {
            mechanism: SCRAM_PLUS.to_owned(),
            ..right.clone()
        },
        SaslRequest {
            state: Some(cut),
            ..right.clone()
        },
        SaslRequest {
            state: Some("v1..".to_owned()),
            ..right.clone()
        },
        SaslRequest {
            state: Some("A".repeat(100_000)),
            ..right.clone()
        },
    ] {
        refused(&proxy, &bent).await;
    }
    // A front asks again while a home moves or is frozen: so often in all, and then it was used.
    for _ in 0..70 {
        logged_in(proxy.sasl(&right).await.unwrap(), &server_final);
    }
    refused(&proxy, &right).await;
    // A wrong proof is one guess and no more.
    let (server_first, state) = begin(&proxy, &client.first()).await;
    let (last, _) = ScramClient::new("ann@x.test", "wrong").last(&server_first);
    let code = code_of(proxy.sasl(&request(&last, Some(state.clone()))).await);
    assert_eq!(code, code::BAD_CREDENTIALS);
    let (last, _) = client.last(&server_first);
    refused(&proxy, &request(&last, Some(state))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_of_the_mechanism_is_told_as_such() {
    let site = Site::start_with_scram().await;
    site.settle().await;
    let proxy = site.client(Role::PopImapProxy, "p1");
    let client = ScramClient::new("ann@x.test", "right");
    let malformed = async |request: &SaslRequest| {
        assert_eq!(
            code_of(proxy.sasl(request).await),
            code::SASL_MALFORMED,
            "{request:?}"
        );
    };
    for first in [
        "",
        "n,,",
        "n,,n=,r=x",
        "p=tls-exporter,,n=ann,r=x",
        &*"x".repeat(60_000),
    ] {
        malformed(&request(first, None)).await;
    }
    let no_base64 = SaslRequest {
        message: secret("?"),
        ..request("", None)
    };
    malformed(&no_base64).await;
    // Another nonce, a final message in pieces.
    for bend in [
        (|last: &str| last.replace("r=fyko", "r=fykx")) as fn(&str) -> String,
        |last| last.replace(",p=", ",q="),
        |last| last[..last.len() - 4].to_owned(),
        |_| String::new(),
    ] {
        let (server_first, state) = begin(&proxy, &client.first()).await;
        let (last, _) = client.last(&server_first);
        malformed(&request(&bend(&last), Some(state))).await;
    }
    for name in ["", "PLAIN", "GSSAPI", "scram-sha-256"] {
        let other = SaslRequest {
            mechanism: name.to_owned(),
            ..request("n,,n=ann,r=x", None)
        };
        assert_eq!(code_of(proxy.sasl(&other).await), code::SASL_NOT_OFFERED);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_bound_to_the_channel_that_ends_here_or_refused() {
    let site = Site::start_with_scram().await;
    site.settle().await;
    let proxy = site.client(Role::PopImapProxy, "p1");
    let bindings = vec![ChannelBinding {
        kind: "tls-exporter".to_owned(),
        data: BASE64.encode(b"this channel"),
    }];
    let run = async |mechanism: &str, client: ScramClient| {
        let ask = |message: String, state| SaslRequest {
            mechanism: mechanism.to_owned(),
            bindings: bindings.clone(),
            ..request(&message, state)
        };
        let (server_first, state) = match proxy.sasl(&ask(client.first(), None)).await {
            Ok(SaslReply::Challenge { message, state }) => (text(&message), state),
            Ok(reply) => panic!("{reply:?}"),
            Err(error) => return error.code(),
        };
        let (last, server_final) = client.last(&server_first);
        match proxy.sasl(&ask(last, Some(state))).await {
            Ok(reply) => {
                logged_in(reply, &server_final);
                "ok"
            }
            Err(error) => error.code(),
        }
    };
    let client = || ScramClient::new("ann@x.test", "right");
    let with_header = |header: &str| ScramClient {
        header: header.to_owned(),
        ..client()
    };
    let bound = |kind: &str, data: &[u8]| client().bound(kind, data);
    assert_eq!(
        run(SCRAM_PLUS, bound("tls-exporter", b"this channel")).await,
        "ok"
    );
    assert_eq!(run(SCRAM, client()).await, "ok");
    for (mechanism, client, code) in [
        (
            SCRAM_PLUS,
            bound("tls-exporter", b"another"),
            code::CHANNEL_BINDING,
        ),
        (
            SCRAM_PLUS,
            bound("tls-exporter", b""),
            code::CHANNEL_BINDING,
        ),
        (
            SCRAM_PLUS,
            bound("tls-unique", b"this channel"),
            code::CHANNEL_BINDING,
        ),
        // It was offered to bind, and has heard otherwise.
        (SCRAM, with_header("y,,"), code::CHANNEL_BINDING),
        (SCRAM_PLUS, with_header("y,,"), code::SASL_MALFORMED),
        (SCRAM_PLUS, with_header("n,,"), code::SASL_MALFORMED),
        (
            SCRAM,
            bound("tls-exporter", b"this channel"),
            code::SASL_MALFORMED,
        ),
    ] {
        assert_eq!(
            run(mechanism, client.clone()).await,
            code,
            "{mechanism} {client:?}"
        );
    }
    // Where nothing was offered, who could bind and does not is let in.
    assert!(enter(&proxy, &with_header("y,,")).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_holds_a_password_back_holds_back_a_proof() {
    let site = Site::start_with_scram().await;
    let ann = site.settle().await;
    let operator = site.client(Role::Operator, "op");
    let proxy = site.client(Role::PopImapProxy, "p1");
    let right = ScramClient::new("ann@x.test", "right");
    let wrong = ScramClient::new("ann@x.test", "wrong");
    let change = async |change: AccountChange| operator.change_account(ann, &change).await.unwrap();
    change(AccountChange {
        services: Some(vec![Service::Pop3]),
        ..AccountChange::default()
    })
    .await;
    assert_eq!(
        code_of(enter(&proxy, &right).await),
        code::SERVICE_FORBIDDEN
    );
    assert_eq!(code_of(enter(&proxy, &wrong).await), code::BAD_CREDENTIALS);
    change(AccountChange {
        status: Some(AccountStatus::Suspended),
        ..AccountChange::default()
    })
    .await;
    assert_eq!(code_of(enter(&proxy, &right).await), code::SUSPENDED);
    assert_eq!(code_of(enter(&proxy, &wrong).await), code::BAD_CREDENTIALS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_changes_in_mid_dialogue_is_the_old_one() {
    let site = Site::start_with_scram().await;
    let ann = site.settle().await;
    let proxy = site.client(Role::PopImapProxy, "p1");
    let client = ScramClient::new("ann@x.test", "right");
    let (server_first, state) = begin(&proxy, &client.first()).await;
    let change = AccountChange {
        credential: Some(Credential::Password(secret("new"))),
        ..AccountChange::default()
    };
    let operator = site.client(Role::Operator, "op");
    operator.change_account(ann, &change).await.unwrap();
    let (last, _) = client.last(&server_first);
    let code = code_of(proxy.sasl(&request(&last, Some(state))).await);
    assert_eq!(code, code::BAD_CREDENTIALS);
    assert!(
        enter(&proxy, &ScramClient::new("ann@x.test", "new"))
            .await
            .is_ok()
    );
}

/// "pencil", as RFC 7677 §3 has it: as Dovecot and as PostgreSQL keep it.
const IMPORTED: [&str; 2] = [
    "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
];

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_another_server_let_their_owner_in_by_either_way() {
    let site = Site::start_with_scram().await;
    site.settle().await;
    let operator = site.client(Role::Operator, "op");
    let proxy = site.client(Role::PopImapProxy, "p1");
    for (user, text) in ["dora@x.test", "eve@x.test"].into_iter().zip(IMPORTED) {
        let hashed = Some(Credential::Hashed(secret(text)));
        let account = AccountNew::new(user.parse().unwrap(), hashed);
        let made = operator.create_account(&account).await.unwrap();
        // Keys of our own beside do not put the imported ones out of use.
        let phone = AppPassword {
            name: "phone".parse().unwrap(),
            credential: Credential::Password(secret("made-by-a-program")),
            services: None,
        };
        let change = AccountChange {
            app_passwords: vec![phone],
            ..AccountChange::default()
        };
        operator.change_account(made.now.id, &change).await.unwrap();
        let client = ScramClient::new(user, "pencil");
        let (first, _) = begin(&proxy, &client.first()).await;
        assert!(
            first.ends_with(",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"),
            "{first}"
        );
        assert!(enter(&proxy, &client).await.is_ok());
        let code = code_of(proxy.login(&login(user, "pen")).await);
        assert_eq!(code, code::BAD_CREDENTIALS);
        assert!(proxy.login(&login(user, "pencil")).await.is_ok());
        // Behind that login it is kept as every password is, with keys of our own beside.
        eventually(async || {
            let (first, _) = begin(&proxy, &client.first()).await;
            !first.contains("W22ZaJ0SNY7soEsUEjb6gQ==")
        })
        .await;
        assert!(enter(&proxy, &client).await.is_ok());
        assert!(proxy.login(&login(user, "pencil")).await.is_ok());
        let phone = ScramClient::new(user, "made-by-a-program");
        assert!(enter(&proxy, &phone).await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_come_and_go_with_the_setting_behind_the_next_login() {
    let mut site = Site::start().await;
    let ann = site.settle().await;
    let operator = site.client(Role::Operator, "op");
    let phone = AppPassword {
        name: "phone".parse().unwrap(),
        credential: Credential::salted_sha256("made-by-a-program", b"salty"),
        services: None,
    };
    let change = AccountChange {
        app_passwords: vec![phone],
        ..AccountChange::default()
    };
    operator.change_account(ann, &change).await.unwrap();
    let proxy = site.client(Role::PopImapProxy, "p1");
    assert!(proxy.mechanisms().await.is_empty());
    let client = ScramClient::new("ann@x.test", "right");
    let code = code_of(proxy.sasl(&request(&client.first(), None)).await);
    assert_eq!(code, code::SASL_NOT_OFFERED);

    let clients = [
        client.clone(),
        ScramClient::new("ann@x.test", "made-by-a-program"),
    ];
    let come = async || {
        for client in &clients {
            let code = code_of(enter(&proxy, client).await);
            assert_eq!(code, code::BAD_CREDENTIALS, "there are no keys yet");
            let by_password = login(&client.user, &client.password);
            assert!(proxy.login(&by_password).await.is_ok());
            eventually(async || enter(&proxy, client).await.is_ok()).await;
        }
    };
    let set = |config: &mut Config| config.scram_iterations = 5_000;
    site.down().await;
    site.settle_config = set;
    site.up().await;
    come().await;
    let stored = || {
        let file = site.dir.path().join("data/data/data.mdb");
        let octets = std::fs::read(file).unwrap();
        octets
            .windows(20)
            .any(|part| part == b"{SCRAM-SHA-256}5000,")
    };
    assert!(stored());
    // The form of an app password stays: it is long, and a slow one would slow down every refusal.
    let items = operator.credentials(ann).await.unwrap().items;
    let schemes: Vec<_> = items.iter().map(|one| one.scheme.as_str()).collect();
    assert_eq!(schemes, ["ARGON2ID", "SSHA256"]);

    // A replica, or the same directory after a restart, takes the next step of a dialogue.
    let (server_first, state) = begin(&proxy, &client.first()).await;
    assert!(server_first.ends_with(",i=5000"), "{server_first}");
    site.down().await;
    site.up().await;
    let (last, server_final) = client.last(&server_first);
    let reply = proxy.sasl(&request(&last, Some(state))).await.unwrap();
    logged_in(reply, &server_final);

    // Another number: both passwords get other keys.
    let renewed = async || {
        let before = renewals(&operator).await;
        for (count, client) in (1..).zip(&clients) {
            let by_password = login(&client.user, &client.password);
            assert!(proxy.login(&by_password).await.is_ok());
            eventually(async || renewals(&operator).await == before + count).await;
        }
    };
    site.down().await;
    site.settle_config = |config| config.scram_iterations = 6_000;
    site.up().await;
    renewed().await;
    let (server_first, _) = begin(&proxy, &client.first()).await;
    assert!(server_first.ends_with(",i=6000"), "{server_first}");
    for client in &clients {
        assert!(enter(&proxy, client).await.is_ok());
    }

    // None: they go, and have to come anew.
    site.down().await;
    site.settle_config = |_| ();
    site.up().await;
    renewed().await;
    site.down().await;
    site.settle_config = set;
    site.up().await;
    come().await;
}

/// How often a password came to be kept otherwise.
async fn renewals(operator: &DirectoryClient) -> usize {
    let none = ChangeNumber(0);
    let reply = operator.changes(none, 1_000, Duration::ZERO).await.unwrap();
    let hashes = reply.changes.iter();
    hashes
        .filter(|change| change.kind == ChangeKind::Hash)
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_is_renamed_has_the_salt_of_the_new_name_behind_the_next_login() {
    let site = Site::start_with_scram().await;
    let ann = site.settle().await;
    let operator = site.client(Role::Operator, "op");
    let proxy = site.client(Role::PopImapProxy, "p1");
    let client = ScramClient::new("bob@x.test", "right");
    let salt = async || {
        let (first, _) = begin(&proxy, &client.first()).await;
        first.split_once(",s=").unwrap().1.to_owned()
    };
    let of_nobody = salt().await;
    let change = AccountChange {
        login_name: Some("bob@x.test".parse().unwrap()),
        ..AccountChange::default()
    };
    operator.change_account(ann, &change).await.unwrap();
    assert!(enter(&proxy, &client).await.is_ok());
    assert_ne!(salt().await, of_nobody, "it is still that of ann");
    let by_password = login("bob@x.test", "right");
    assert!(proxy.login(&by_password).await.is_ok());
    eventually(async || salt().await == of_nobody).await;
    assert!(enter(&proxy, &client).await.is_ok());
}

async fn eventually(mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
