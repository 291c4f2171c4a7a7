//! TLS from the first octet, names, and sessions that are resumed at another front-end.

use mx_frontend::{Limits, Rates};
use rustls::HandshakeKind;

use crate::client::{Client, tls_config};
use crate::played::World;

#[tokio::test]
async fn mail_comes_in_tls_from_the_first_octet_and_each_name_has_its_certificate() {
    let world = World::with(Limits::default(), |config| {
        let first = config.tls.certificate.clone().unwrap();
        let folder = first.parent().unwrap().to_owned();
        config.tls.others = vec![daemon::public_tls::CertificateFiles {
            certificate: folder.join("second.pem"),
            key: folder.join("second.key"),
        }];
    })
    .await;
    world.start_directory().await;
    let mut b1 = world.backend("b1").await;
    world.directory.add("ann@example.test", &[(1, "b1", 1)]);
    let config = tls_config(world.folder.authority_pem());
    // A client that checks names takes both.
    for name in ["localhost", "mx.second.test"] {
        let client = Client::silent(world.smtps).await;
        let mut client = client.shake(&config, name).await;
        client.expect(&["220 mx.test"]).await;
        let hello = client.command("EHLO client.test").await;
        assert!(!hello.contains("STARTTLS"), "{hello}");
        assert!(client.command("STARTTLS").await.starts_with("503"));
        client.begin(&["ann@example.test"]).await;
        client.send("hello\r\n.\r\n").await;
        client.expect(&["250 2.0.0"]).await;
        b1.opened().await;
        let (commit, _) = b1.committed().await;
        let prologue = String::from_utf8(commit.recipients[0].prologue.0.clone()).unwrap();
        assert!(prologue.contains("ESMTPS"), "{prologue}");
    }
}

#[tokio::test]
async fn a_session_is_resumed_at_another_front_end_and_counts_as_no_new_one() {
    let keys = |config: &mut mx_frontend::Config| {
        let certificate = config.tls.certificate.as_ref().unwrap();
        let file = certificate.with_file_name("tickets");
        let line = |key: u8| data_encoding::BASE64.encode(&[key; 48]) + "\n";
        std::fs::write(&file, line(1) + &line(2)).unwrap();
        config.tls.ticket_keys = Some(file);
        config.tls.clone()
    };
    let mut files = None;
    let first = World::with(Limits::default(), |config| files = Some(keys(config))).await;
    let limits = Limits {
        exempt_networks: Vec::new(),
        ..Limits::default()
    };
    let second = World::with(limits, |config| {
        config.tls = files.unwrap();
        config.rates = Rates {
            tls_sessions_max: 1,
            ..Rates::default()
        };
    })
    .await;
    let config = tls_config(first.folder.authority_pem());
    for (address, kind) in [
        (first.smtps, HandshakeKind::Full),
        (second.smtps, HandshakeKind::Resumed),
        (second.smtps, HandshakeKind::Resumed),
        (second.smtps, HandshakeKind::Resumed),
    ] {
        let client = Client::silent(address).await;
        let mut client = client.shake(&config, "localhost").await;
        client.expect(&["220 "]).await;
        assert_eq!(client.stream.get_ref().1.handshake_kind(), Some(kind));
    }
}
