//! Nonsense at every door: a clear answer or a close, and nobody else notices.

use daemon::identity::Role;
use daemon::link::{CallError, LinkBody};
use http::{Method, Request};
use store_api::frame::{Kind, frame, json_frame};
use store_api::{deliver as deliver_api, session as session_api, transfer as transfer_api};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::deliver::{commit, open};
use crate::site::{Dialogue, Site, until_listed};

#[tokio::test]
async fn streams_that_are_not_of_the_version_are_refused_as_malformed() {
    let site = Site::new().await;
    let backend = site.backend("b1").await;
    let opened = json_frame(Kind::Open, &open(1, &[1]));
    let too_large = [&[Kind::Open as u8][..], &(5u32 << 20).to_be_bytes()].concat();
    let bodies: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        frame(Kind::Open, b"{}").to_vec(),
        frame(Kind::Open, b"{\"txn\":\"zz\"").to_vec(),
        frame(Kind::Data, b"before the open").to_vec(),
        too_large,
        opened.to_vec(),
        [&opened[..], &opened[..]].concat(),
        [&opened[..], &frame(Kind::End, b"")[..]].concat(),
        [&opened[..], &frame(Kind::Commit, b"not json")[..]].concat(),
        [&opened[..], &frame(Kind::Data, b"cut in the frame")[..9]].concat(),
        [
            &opened[..],
            &json_frame(Kind::Commit, &commit(b"", &[1]))[..],
            &frame(Kind::Data, b"after")[..],
        ]
        .concat(),
    ];
    for (role, path) in [
        (Role::MxFrontend, deliver_api::PATH),
        (Role::PopImapProxy, session_api::PATH),
    ] {
        let link = site.link(role, &backend);
        for body in &bodies {
            let request = Request::builder()
                .method(Method::POST)
                .uri(path)
                .body(LinkBody::full(body.clone()))
                .unwrap();
            match link.answer::<serde_json::Value>(request).await {
                Err(CallError::Refused(problem)) => {
                    assert_eq!(problem.code, "malformed", "{path} {body:?}")
                }
                other => panic!("{path} {body:?}: {other:?}"),
            }
        }
    }
    let link = site.link(Role::Migrator, &backend);
    for path in [
        transfer_api::path::FREEZE,
        transfer_api::path::PULL,
        transfer_api::path::SUMMARY,
    ] {
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .body(LinkBody::full(&b"{\"account\":-1}"[..]));
        match link.answer::<serde_json::Value>(request.unwrap()).await {
            Err(CallError::Refused(problem)) => assert_eq!(problem.code, "malformed", "{path}"),
            other => panic!("{path}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_megabyte_without_a_line_end_costs_no_memory_and_harms_no_other_session() {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let backend = site.backend("b1").await;
    let mut neighbour = Dialogue::lmtp(&backend).await;
    let before = backend.resident_octets();
    let mut floods = Vec::new();
    for address in [
        backend.lmtp,
        backend.pop3,
        backend.imap,
        backend.link,
        backend.metrics,
    ] {
        for octet in [b'A', 0, b'\r', b'\n', 0xff] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // It may be closed in the middle, which is an answer too.
            let _ = stream.write_all(&vec![octet; 1 << 20]).await;
            floods.push(stream);
        }
    }
    let held = backend.resident_octets().saturating_sub(before);
    assert!(
        held < 24 << 20,
        "25 floods of a megabyte hold {held} octets"
    );
    assert!(
        neighbour
            .deliver(&["ann"], b"Subject: beside\r\n\r\n")
            .await[0]
            .starts_with("250 ")
    );
    let mut pop3 = until_listed(&backend, "ann", 1).await;
    pop3.say(&"x".repeat(10_000)).await;
    pop3.expect("-ERR").await;
    pop3.ask("NOOP", "+OK").await;
    neighbour.say(&"x".repeat(10_000)).await;
    neighbour.expect("500 ").await;
    neighbour.ask("NOOP", "250 ").await;
}

#[tokio::test]
async fn an_lmtp_body_that_is_not_clean_is_refused_and_the_connection_goes_on() {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let backend = site.backend_starting("b1", "message_size_max_bytes = 65536");
    backend.ready().await;
    let mut lmtp = Dialogue::lmtp(&backend).await;
    let smuggled = b"Subject: x\r\n\r\n.\nMAIL FROM:<>\r\nRCPT TO:<ann@example.test>\r\n";
    for body in [
        &smuggled[..],
        b"bare \r return\r\n",
        &b"0123456789\r\n".repeat(6_000),
    ] {
        let replies = lmtp.deliver(&["ann"], body).await;
        assert!(
            replies.len() == 1 && replies[0].starts_with('5'),
            "{replies:?}"
        );
    }
    lmtp.ask("MAIL FROM:<> SIZE=65537", "552 ").await;
    assert!(lmtp.deliver(&["ann"], b"Subject: clean\r\n\r\n").await[0].starts_with("250 "));
    assert!(
        until_listed(&backend, "ann", 1)
            .await
            .retrieve(1)
            .await
            .ends_with(b"Subject: clean\r\n\r\n")
    );
}
