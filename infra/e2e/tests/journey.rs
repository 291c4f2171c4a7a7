//! A message through every tier, on real sockets: the promise of the whole system in small.
#![allow(clippy::unwrap_used)]

use e2e::pop3::Pop3;
use e2e::samples::{assert_delivered, own};
use e2e::smtp::Smtp;
use e2e::system::System;

const SENDER: &str = "carla@elsewhere.test";

/// Plaintext login is for load tests; with it the samples can be read from every port.
const PLAINTEXT: [&str; 2] = ["--seed-accounts", "4"];

#[test]
fn every_sample_comes_out_as_it_went_in_at_both_back_ends() {
    let system = System::start(&PLAINTEXT);
    let accounts = [system.demo(0), system.demo(1)];
    let to = [accounts[0].0.as_str(), accounts[1].0.as_str()];
    let samples = own();
    let mut smtp = Smtp::connect(system.endpoints.mx.smtp);
    for sample in &samples {
        let reply = smtp.send(SENDER, &to, &sample.octets);
        assert_eq!(reply.code, 250, "{}: {}", sample.name, reply.text);
    }
    smtp.command("QUIT").expect(221);

    for (user, password) in &accounts {
        let mut seen = Vec::new();
        // Through the proxy, at home, and at the back-end where the account does not live.
        for address in [
            system.endpoints.proxy.pop3,
            system.backend_pop3(0),
            system.backend_pop3(1),
        ] {
            let mut pop3 = Pop3::connect(address).login(user, password);
            let messages = pop3.messages();
            assert_eq!(messages.len(), samples.len(), "{user} at {address}");
            for (message, sample) in messages.iter().zip(&samples) {
                assert_delivered(message, sample, SENDER);
            }
            seen.push((messages, pop3.lines("UIDL")));
            pop3.command("QUIT");
        }
        assert!(
            seen.iter().all(|one| *one == seen[0]),
            "{user}: the proxy and both back-ends show the same"
        );
    }

    // Later starts keep everything.
    let system = system.restarted(&PLAINTEXT);
    assert_eq!([system.demo(0), system.demo(1)], accounts);
    let (user, password) = &accounts[0];
    let mut pop3 = Pop3::connect(system.endpoints.proxy.pop3).login(user, password);
    assert_eq!(pop3.count(), samples.len());
}

#[test]
fn users_get_in_by_tls_and_by_nothing_less() {
    let system = System::start(&[]);
    let (user, password) = system.demo(0);
    let proxy = &system.endpoints.proxy;
    let mut smtp = Smtp::connect(system.endpoints.mx.smtp).start_tls(&system.ca());
    smtp.send(SENDER, &[&user], b"Subject: over TLS\r\n\r\nx\r\n")
        .expect(250);

    let mut pop3 = Pop3::connect(proxy.pop3)
        .start_tls(&system.ca())
        .login(&user, &password);
    assert_eq!(pop3.count(), 1);
    pop3.command("QUIT");
    let mut pop3 = Pop3::connect_tls(proxy.pop3s, &system.ca()).login(&user, &password);
    assert_eq!(pop3.count(), 1);
    pop3.command("QUIT");

    let mut pop3 = Pop3::connect(proxy.pop3);
    // Either of the two may be the one that is refused.
    let refused = pop3
        .try_command(&format!("USER {user}"))
        .and_then(|_| pop3.try_command(&format!("PASS {password}")));
    assert!(refused.is_err(), "login without TLS");
    let mut pop3 = Pop3::connect_tls(proxy.pop3s, &system.ca());
    pop3.command(&format!("USER {user}"));
    assert!(pop3.try_command("PASS wrong").is_err());
}

#[test]
fn an_unknown_user_is_refused_before_the_body_and_known_aliases_are_not() {
    let system = System::start(&PLAINTEXT);
    let mut smtp = Smtp::connect(system.endpoints.mx.smtp);
    smtp.command(&format!("MAIL FROM:<{SENDER}>")).expect(250);
    let reply = smtp.command("RCPT TO:<nobody@example.test>");
    assert!(reply.expect(550).text.contains("5.1.1"), "{}", reply.text);
    assert!(smtp.command("RCPT TO:<anna@elsewhere.test>").code >= 550);
    smtp.command("RSET").expect(250);
    smtp.send(
        SENDER,
        &["postmaster@example.test"],
        b"Subject: hello\r\n\r\nx\r\n",
    )
    .expect(250);
    let (user, password) = system.demo(0);
    assert_eq!(
        Pop3::connect(system.endpoints.proxy.pop3)
            .login(&user, &password)
            .count(),
        1
    );
}

#[test]
fn seeded_accounts_take_mail_by_lmtp_and_are_spread_evenly() {
    let system = System::start(&PLAINTEXT);
    for (at, user) in ["user00002@example.test", "user00003@example.test"]
        .into_iter()
        .enumerate()
    {
        let mut lmtp = Smtp::connect_lmtp(system.endpoints.backends[at].lmtp);
        lmtp.send(SENDER, &[user], b"Subject: by LMTP\r\n\r\nx\r\n")
            .expect(250);
        let mut pop3 = Pop3::connect(system.backend_pop3(at)).login(user, "pass");
        assert_eq!(pop3.count(), 1);
    }
}
