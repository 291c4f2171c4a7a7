//! Logins that show no password: through the proxy and at a back-end, with a real directory behind both.
#![allow(clippy::unwrap_used)]

use daemon::clock::now_ms;
use data_encoding::BASE64;
use e2e::pop3::Pop3;
use e2e::provider::Provider;
use posthouse::ports::Port;
use testkit::issuer::Issuer;
use testkit::scram::ScramClient;
use testkit::user_certificate::{UserAuthority, UserCertificate};

const USER: &str = "dora@example.test";
const PASSWORD: &str = "open sesame";

#[test]
fn a_user_gets_to_her_mail_with_a_proof_or_a_token_through_the_proxy_and_at_home() {
    let provider = Provider::new();
    let issuer = Issuer::new();
    provider.take_proofs_and_tokens(&issuer.key_set());
    let _running = provider.start_for(USER, PASSWORD);

    let through_the_proxy = || Pop3::connect_tls(provider.at(Port::Pop3s), &provider.ca());
    let at_home = || Pop3::connect(provider.at(Port::BackendPop3(0))).start_tls(&provider.ca());
    for connect in [&through_the_proxy as &dyn Fn() -> Pop3, &at_home] {
        let mut user = connect();
        // What the directory decides is learnt from it, and kept for a while.
        let offered = String::from_utf8(user.lines("CAPA")).unwrap();
        let sasl = "SASL SCRAM-SHA-256-PLUS SCRAM-SHA-256 OAUTHBEARER XOAUTH2 PLAIN LOGIN";
        assert!(offered.contains(sasl), "{offered}");

        let refused = prove(&mut user, "open barley");
        assert!(refused.starts_with("-ERR [AUTH]"), "{refused}");
        let last_words = prove(&mut user, PASSWORD);
        assert!(last_words.starts_with("+ "), "{last_words}");
        user.command("");
        assert_eq!(user.count(), 0);
        user.command("QUIT");

        let mut user = connect();
        let told = show_token(&mut user, "no.token.x").unwrap_err();
        assert!(told.starts_with("+ "), "{told}");
        let refused = user.try_command("").unwrap_err();
        assert!(refused.starts_with("-ERR [AUTH]"), "{refused}");
        let expires = now_ms() / 1_000 + 600;
        let claims = format!(
            r#"{{"iss":"https://id.test","aud":"mail","email":"{USER}","email_verified":true,"exp":{expires}}}"#
        );
        show_token(&mut user, &issuer.token("ES256", &claims)).unwrap();
        assert_eq!(user.count(), 0);
        user.command("QUIT");
    }
}

#[test]
fn a_user_gets_to_her_mail_by_a_certificate_where_it_was_shown_and_by_no_other() {
    let provider = Provider::new();
    let (users, others) = (UserAuthority::new(), UserAuthority::new());
    provider.take_certificates(users.pem());
    let _running = provider.start_for(USER, PASSWORD);
    let (ca, pop3s) = (provider.ca(), provider.at(Port::Pop3s));
    let (dora, stranger) = (users.issue(USER), users.issue("eve@example.test"));
    let of = |one: &UserCertificate| (one.certificate.clone(), one.key.clone());
    let implicit = |one: &UserCertificate| {
        let (certificate, key) = of(one);
        Pop3::connect_showing(pop3s, &ca, (&certificate, &key))
    };
    let by_stls = |one: &UserCertificate| {
        let (certificate, key) = of(one);
        let plain = Pop3::connect(provider.at(Port::Pop3));
        plain.start_tls_showing(&ca, (&certificate, &key))
    };
    for connect in [&implicit as &dyn Fn(&UserCertificate) -> Pop3, &by_stls] {
        let mut user = connect(&dora);
        let offered = String::from_utf8(user.lines("CAPA")).unwrap();
        assert!(offered.contains("SASL EXTERNAL "), "{offered}");
        user.command("AUTH EXTERNAL =");
        assert_eq!(user.count(), 0);
        user.command("QUIT");
        // Who shows it may still log in by a password, and as nobody else by it.
        let mut user = connect(&dora);
        let refused = user.try_command(&format!(
            "AUTH EXTERNAL {}",
            BASE64.encode(b"eve@example.test")
        ));
        assert!(refused.unwrap_err().starts_with("-ERR [AUTH]"));
        user.login(USER, PASSWORD).command("QUIT");
        let mut user = connect(&stranger);
        let refused = user.try_command("AUTH EXTERNAL =").unwrap_err();
        assert!(refused.starts_with("-ERR [AUTH]"), "{refused}");
    }
    // Without one nobody is offered it, nor let in by it.
    let mut user = Pop3::connect_tls(pop3s, &ca);
    let offered = String::from_utf8(user.lines("CAPA")).unwrap();
    assert!(!offered.contains("EXTERNAL"), "{offered}");
    assert!(user.try_command("AUTH EXTERNAL =").is_err());
    user.login(USER, PASSWORD).command("QUIT");
    // One of another authority ends the handshake.
    let forged = others.issue(USER);
    let refused = std::panic::catch_unwind(|| drop(implicit(&forged)));
    assert!(refused.is_err());
}

/// A dialogue up to the server's last words, which must be right, or its refusal.
fn prove(user: &mut Pop3, password: &str) -> String {
    let client = ScramClient::new(USER, password);
    let first = BASE64.encode(client.first().as_bytes());
    let challenge = user.try_command(&format!("AUTH SCRAM-SHA-256 {first}"));
    let challenge = challenge.unwrap_err();
    let challenge = BASE64.decode(challenge.strip_prefix("+ ").unwrap().as_bytes());
    let (last, server_final) = client.last(&String::from_utf8(challenge.unwrap()).unwrap());
    let said = user
        .try_command(&BASE64.encode(last.as_bytes()))
        .unwrap_err();
    if said.starts_with('+') {
        assert_eq!(
            said,
            format!("+ {}", BASE64.encode(server_final.as_bytes()))
        );
    }
    said
}

/// A token is longer than a line of POP3: it comes as a response.
fn show_token(user: &mut Pop3, token: &str) -> Result<String, String> {
    assert_eq!(user.try_command("AUTH XOAUTH2").unwrap_err(), "+");
    let message = format!("user={USER}\x01auth=Bearer {token}\x01\x01");
    user.try_command(&BASE64.encode(message.as_bytes()))
}
