//! Logins with a token of an issuer, by OAUTHBEARER and XOAUTH2: at a real directory, and through the front.
#![allow(clippy::unwrap_used)]

mod site;

use std::time::{Duration, Instant};

use daemon::clock::now_ms;
use daemon::identity::Role;
use data_encoding::BASE64;
use directory::{Config, RunError};
use directory_api::wire::{AccountChange, SaslReply, SaslRequest, code};
use directory_api::{DirectoryClient, LoginError, Service};
use serde_json::{Value, json};
use site::{Site, eventually, secret};
use testkit::issuer::Issuer;

fn settings(config: &mut Config) {
    config.oauth.keys = Some(config.data.with_file_name("issuer.json"));
    config.oauth.issuer = "https://id.x.test".to_owned();
    config.oauth.audience = "mail".to_owned();
}

fn claims(changes: &Value) -> String {
    let now_s = now_ms() / 1_000;
    let mut claims = json!({
        "iss": "https://id.x.test", "aud": "mail", "email": "ann@x.test",
        "email_verified": true, "exp": now_s + 600,
    });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.to_string()
}

/// A directory that takes this issuer's tokens.
async fn start(issuer: &Issuer) -> Site {
    let mut site = Site::prepare();
    write_keys(&site, issuer);
    site.settle_config = settings;
    site.up().await;
    site.settle().await;
    site
}

fn write_keys(site: &Site, issuer: &Issuer) {
    std::fs::write(site.dir.path().join("issuer.json"), issuer.key_set()).unwrap();
}

fn oauthbearer(user: &str, token: &str) -> String {
    format!("n,{user},\x01host=mail.x.test\x01port=143\x01auth=Bearer {token}\x01\x01")
}

fn xoauth2(user: &str, token: &str) -> String {
    format!("user={user}\x01auth=Bearer {token}\x01\x01")
}

fn request(mechanism: &str, message: &str) -> SaslRequest {
    SaslRequest {
        mechanism: mechanism.to_owned(),
        message: secret(&BASE64.encode(message.as_bytes())),
        state: None,
        bindings: Vec::new(),
        certificates: Vec::new(),
        service: Service::Imap,
        client_address: [192, 0, 2, 1].into(),
        secured: true,
        backend: None,
    }
}

/// Who is let in, or what the client is told.
async fn enter(proxy: &DirectoryClient, mechanism: &str, message: &str) -> Result<String, Value> {
    match proxy.sasl(&request(mechanism, message)).await.unwrap() {
        SaslReply::LoggedIn {
            message: None,
            login,
        } => Ok(login.login_name.as_str().to_owned()),
        SaslReply::Refused { message } => {
            Err(serde_json::from_slice(&BASE64.decode(message.as_bytes()).unwrap()).unwrap())
        }
        reply => panic!("{reply:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_that_a_token_is_about_gets_in_and_nobody_else() {
    let issuer = Issuer::new();
    let site = start(&issuer).await;
    let proxy = site.client(Role::PopImapProxy, "p1");
    eventually(async || proxy.mechanisms().await == ["OAUTHBEARER", "XOAUTH2"]).await;
    let ann = Ok("ann@x.test".to_owned());
    for algorithm in ["EdDSA", "ES256", "RS256"] {
        let token = issuer.token(algorithm, &claims(&json!({})));
        for user in ["a=ann@x.test", "a=ANN@x.test", ""] {
            assert_eq!(
                enter(&proxy, "OAUTHBEARER", &oauthbearer(user, &token)).await,
                ann
            );
        }
        assert_eq!(
            enter(&proxy, "XOAUTH2", &xoauth2("ann@x.test", &token)).await,
            ann
        );
    }
    let good = issuer.token("EdDSA", &claims(&json!({})));
    let of = |changes| issuer.token("EdDSA", &claims(&changes));
    let strange = Issuer::new().token("EdDSA", &claims(&json!({})));
    for (user, token) in [
        ("bob@x.test", &good),
        ("no name", &good),
        ("ann@x.test", &of(json!({"email": "bob@x.test"}))),
        ("nobody@x.test", &of(json!({"email": "nobody@x.test"}))),
        ("ann@x.test", &of(json!({"email_verified": null}))),
        ("ann@x.test", &of(json!({"aud": "calendar"}))),
        ("ann@x.test", &of(json!({"exp": now_ms() / 1_000 - 60}))),
        ("ann@x.test", &strange),
        ("ann@x.test", &"no.token.".to_owned()),
        ("ann@x.test", &"x".repeat(40_000)),
    ] {
        let told = enter(
            &proxy,
            "OAUTHBEARER",
            &oauthbearer(&format!("a={user}"), token),
        )
        .await;
        let told = told.unwrap_err();
        assert_eq!(told["status"], "invalid_token", "{user} {token:.40}");
        assert_eq!(told["scope"], "openid email");
        let told = enter(&proxy, "XOAUTH2", &xoauth2(user, token))
            .await
            .unwrap_err();
        assert_eq!(told["status"], "401", "{user} {token:.40}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_may_say_another_name_of_the_account_than_the_client_does() {
    let issuer = Issuer::new();
    let site = start(&issuer).await;
    let operator = site.client(Role::Operator, "op");
    let (x, y) = ("x.test".parse().unwrap(), "y.test".parse().unwrap());
    operator.put_domain_alias(&y, &x).await.unwrap();
    let proxy = site.client(Role::PopImapProxy, "p1");
    let ann = Ok("ann@x.test".to_owned());
    for (said, asked) in [
        ("ann@x.test", "ann@y.test"),
        ("ann@y.test", "ann@x.test"),
        ("ann@y.test", "ann@y.test"),
    ] {
        let token = issuer.token("EdDSA", &claims(&json!({"email": said})));
        let entered = enter(&proxy, "XOAUTH2", &xoauth2(asked, &token)).await;
        assert_eq!(entered, ann, "{said} {asked}");
    }
    let token = issuer.token("EdDSA", &claims(&json!({"email": "ann@y.test"})));
    let told = enter(&proxy, "XOAUTH2", &xoauth2("bob@y.test", &token)).await;
    assert_eq!(told.unwrap_err()["status"], "401");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_holds_a_password_back_holds_back_a_token_and_nonsense_is_told_as_such() {
    let issuer = Issuer::new();
    let site = start(&issuer).await;
    let proxy = site.client(Role::PopImapProxy, "p1");
    let operator = site.client(Role::Operator, "op");
    let pop3_only = AccountChange {
        services: Some(vec![Service::Pop3]),
        ..AccountChange::default()
    };
    operator
        .change_account(directory_api::AccountId(1), &pop3_only)
        .await
        .unwrap();
    let good = oauthbearer("", &issuer.token("EdDSA", &claims(&json!({}))));
    let code_of = async |request: SaslRequest| {
        let answer: Result<SaslReply, LoginError> = proxy.sasl(&request).await;
        answer.unwrap_err().code()
    };
    assert_eq!(
        code_of(request("OAUTHBEARER", &good)).await,
        code::SERVICE_FORBIDDEN
    );
    for message in [
        "",
        "n,,",
        "\x01",
        &*good.replace("Bearer", "Basic"),
        &good[..good.len() - 1],
    ] {
        assert_eq!(
            code_of(request("OAUTHBEARER", message)).await,
            code::SASL_MALFORMED
        );
        assert_eq!(
            code_of(request("XOAUTH2", message)).await,
            code::SASL_MALFORMED
        );
    }
    let with_state = SaslRequest {
        state: Some("v1.x.y".to_owned()),
        ..request("OAUTHBEARER", &good)
    };
    assert_eq!(code_of(with_state).await, code::SASL_STATE);
    let scram = request("SCRAM-SHA-256", "n,,n=ann@x.test,r=x");
    assert_eq!(code_of(scram).await, code::SASL_NOT_OFFERED);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_change_are_read_again_and_unreadable_ones_change_nothing() {
    let (old, new) = (Issuer::new(), Issuer::new());
    let site = start(&old).await;
    let proxy = site.client(Role::PopImapProxy, "p1");
    let enter = async |issuer: &Issuer| {
        let token = issuer.token("ES256", &claims(&json!({})));
        enter(&proxy, "XOAUTH2", &xoauth2("ann@x.test", &token))
            .await
            .is_ok()
    };
    assert!(enter(&old).await);
    let file = site.dir.path().join("issuer.json");
    std::fs::write(&file, "{").unwrap();
    // Long enough for the file to have been looked at.
    let until = Instant::now() + Duration::from_millis(2_500);
    while Instant::now() < until {
        assert!(enter(&old).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    write_keys(&site, &new);
    let began = Instant::now();
    while !enter(&new).await {
        assert!(began.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!enter(&old).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_whose_issuer_has_no_keys_does_not_start() {
    let mut site = Site::prepare();
    site.settle_config = settings;
    let run = directory::run(site.config(), daemon::shutdown::Shutdown::new());
    let refused = run.await.unwrap_err();
    assert!(matches!(refused, RunError::Keys(_)), "{refused}");
    assert!(refused.to_string().contains("issuer.json"), "{refused}");
}
