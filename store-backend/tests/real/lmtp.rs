//! LMTP in, POP3 out.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::site::{Dialogue, Site, until_listed};

/// Octets that a careless server changes: dots at line starts, 8-bit, an empty line first, no header.
fn awkward() -> Vec<u8> {
    let mut message = b"\r\n.\r\n..\r\n.dot\r\n \tfolded?\r\n\x80\xff\x00 octets\r\n".to_vec();
    message.extend_from_slice(&b"0123456789abcdef".repeat(20_000));
    message.extend_from_slice(b"\r\n.\r\n");
    let mut lines = Vec::with_capacity(message.len() * 2);
    for (index, octet) in message.iter().enumerate() {
        lines.push(*octet);
        if index % 900 == 899 && index > 100 {
            lines.extend_from_slice(b"\r\n");
        }
    }
    lines
}

#[tokio::test]
async fn octets_out_are_the_prologue_followed_by_exactly_the_octets_in() {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let backend = site.backend("b1").await;
    let messages = [
        awkward(),
        b"Subject: small\r\n\r\nhello\r\n".to_vec(),
        Vec::new(),
        awkward(),
    ];
    let mut lmtp = Dialogue::lmtp(&backend).await;
    let (in_chunks, others) = messages.split_last().unwrap();
    for message in others {
        assert!(lmtp.deliver(&["ann"], message).await[0].starts_with("250 2.0.0"));
    }
    lmtp.ask("MAIL FROM:<sender@elsewhere.test>", "250 ").await;
    lmtp.ask("RCPT TO:<ann@example.test>", "250 ").await;
    for chunk in in_chunks.chunks(9_001) {
        lmtp.send(format!("BDAT {}\r\n", chunk.len()).as_bytes())
            .await;
        lmtp.send(chunk).await;
        lmtp.expect("250 2.0.0").await;
    }
    lmtp.ask("BDAT 0 LAST", "250 2.0.0").await;
    let mut pop3 = until_listed(&backend, "ann", messages.len()).await;
    for (index, message) in messages.iter().enumerate() {
        let listed = pop3.ask(&format!("LIST {}", index + 1), "+OK ").await;
        let whole = pop3.retrieve(index + 1).await;
        assert_eq!(listed, format!("+OK {} {}", index + 1, whole.len()));
        assert!(
            whole.ends_with(message),
            "message {index} came back changed"
        );
        let prologue = String::from_utf8(whole[..whole.len() - message.len()].to_vec()).unwrap();
        let prologue = prologue.replace("\r\n\t", " ");
        assert!(prologue.starts_with("Return-Path: <sender@elsewhere.test>\r\nDelivered-To: ann@example.test\r\nReceived: from client.example.test"), "{prologue}");
        assert!(prologue.contains(" with LMTP"), "{prologue}");
        assert!(prologue.ends_with("\r\n"), "{prologue}");
    }
}

#[tokio::test]
async fn two_recipients_of_one_message_share_one_inode_and_each_gets_a_reply() {
    let site = Site::new().await;
    for (local, accounts) in [("ann", &[1][..]), ("bob", &[2]), ("both", &[1, 2])] {
        site.directory.address(local, accounts);
    }
    site.directory.home(1, "b1", 1);
    site.directory.home(2, "b1", 1);
    let backend = site.backend("b1").await;
    let mut lmtp = Dialogue::lmtp(&backend).await;
    let message = b"Subject: shared by two\r\n\r\nonly once on disk\r\n";
    let replies = lmtp
        .deliver(&["ann", "nobody", "bob", "both"], message)
        .await;
    assert_eq!(replies.len(), 3, "nobody was refused at RCPT");
    assert!(
        replies.iter().all(|reply| reply.starts_with("250 ")),
        "{replies:?}"
    );
    for local in ["ann", "bob"] {
        let mut pop3 = until_listed(&backend, local, 1).await;
        assert!(
            pop3.retrieve(1).await.ends_with(message),
            "once, although named twice"
        );
    }
    let began = std::time::Instant::now();
    loop {
        let mut links = Vec::new();
        inodes(&backend.data.join("mail"), &mut links);
        if links.len() == 2 {
            assert_eq!(links[0], links[1]);
            break;
        }
        assert!(began.elapsed() < crate::site::PATIENCE, "{links:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

fn inodes(folder: &Path, found: &mut Vec<u64>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            inodes(&entry.path(), found);
        } else {
            found.push(entry.metadata().unwrap().ino());
        }
    }
}

#[tokio::test]
async fn unknown_is_550_and_away_is_451() {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.address("bob", &[2]);
    site.directory.home(1, "b1", 1);
    site.directory.home(2, "b1", 1);
    let backend = site.backend("b1").await;
    let mut lmtp = Dialogue::lmtp(&backend).await;
    lmtp.ask("MAIL FROM:<>", "250 ").await;
    lmtp.ask("RCPT TO:<nobody@example.test>", "550 5.1.1").await;
    lmtp.ask("RCPT TO:<ann@example.test>", "250 ").await;
    lmtp.ask("RSET", "250 ").await;
    site.stop_directory().await;
    lmtp.ask("MAIL FROM:<>", "250 ").await;
    lmtp.ask("RCPT TO:<bob@example.test>", "451 4.3.0").await;
    lmtp.ask("RSET", "250 ").await;
    let known = lmtp.deliver(&["ann"], b"Subject: known\r\n\r\n").await;
    assert!(
        known[0].starts_with("250 "),
        "a known recipient needs no directory: {known:?}"
    );
}

#[tokio::test]
async fn recipients_on_a_sibling_are_delivered_there_in_the_same_transaction() {
    let site = Site::new().await;
    for (account, local) in [(1, "ann"), (2, "bob")] {
        site.directory.address(local, &[account]);
    }
    site.directory.address("list", &[1, 2]);
    site.directory.home(1, "b1", 1);
    site.directory.home(2, "b2", 1);
    let (first, second) = (site.backend("b1").await, site.backend("b2").await);
    let message = awkward();
    let mut lmtp = Dialogue::lmtp(&first).await;
    let replies = lmtp.deliver(&["ann", "bob"], &message).await;
    assert!(
        replies.iter().all(|reply| reply.starts_with("250 ")),
        "{replies:?}"
    );
    let replies = lmtp.deliver(&["list"], b"Subject: list\r\n\r\n").await;
    assert!(replies[0].starts_with("250 "), "{replies:?}");
    assert!(
        until_listed(&first, "ann", 2)
            .await
            .retrieve(1)
            .await
            .ends_with(&message)
    );
    assert!(
        until_listed(&second, "bob", 2)
            .await
            .retrieve(1)
            .await
            .ends_with(&message)
    );
    // Any back-end may be asked for any user.
    assert!(
        until_listed(&first, "bob", 2)
            .await
            .retrieve(1)
            .await
            .ends_with(&message)
    );
}

#[tokio::test]
async fn a_sibling_that_is_away_is_451_for_its_recipients_alone() {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.address("bob", &[2]);
    site.directory.home(1, "b1", 1);
    site.directory.home(2, "b2", 1);
    let first = site.backend("b1").await;
    let mut second = site.backend("b2").await;
    second.kill();
    let mut lmtp = Dialogue::lmtp(&first).await;
    let replies = lmtp
        .deliver(&["bob", "ann"], b"Subject: half\r\n\r\n")
        .await;
    assert!(replies[0].starts_with("451 "), "{replies:?}");
    assert!(replies[1].starts_with("250 "), "{replies:?}");
}

#[tokio::test]
async fn a_recipient_who_lives_on_another_mail_system_is_451_before_the_body() {
    let site = Site::new().await;
    for (local, accounts) in [("ann", &[1][..]), ("bob", &[2]), ("list", &[1, 2])] {
        site.directory.address(local, accounts);
    }
    site.directory.foreign("old");
    site.directory.home(1, "b1", 1);
    site.directory.home(2, "old", 1);
    let backend = site.backend("b1").await;
    let mut lmtp = Dialogue::lmtp(&backend).await;
    lmtp.ask("MAIL FROM:<sender@elsewhere.test>", "250 ").await;
    lmtp.ask("RCPT TO:<bob@example.test>", "451 4.3.2 ").await;
    lmtp.ask("RCPT TO:<list@example.test>", "451 4.3.2 ").await;
    lmtp.ask("RCPT TO:<ann@example.test>", "250 ").await;
    assert!(backend.log().contains("foreign_home"));
}

#[tokio::test]
async fn a_postmaster_who_is_not_set_up_is_never_unknown() {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let backend = site.backend("b1").await;
    let mut lmtp = Dialogue::lmtp(&backend).await;
    lmtp.ask("MAIL FROM:<sender@elsewhere.test>", "250 ").await;
    lmtp.ask("RCPT TO:<nobody@example.test>", "550 5.1.1 ")
        .await;
    for postmaster in ["Postmaster", "PostMaster@example.test"] {
        let command = format!("RCPT TO:<{postmaster}>");
        lmtp.ask(&command, "451 4.3.5 ").await;
    }
    assert!(backend.log().contains("postmaster_unset"));
}

#[tokio::test]
async fn a_pipelined_session_is_answered_in_order_and_a_cut_body_leaves_nothing() {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let backend = site.backend("b1").await;
    let mut lmtp = Dialogue::lmtp(&backend).await;
    lmtp.send(b"MAIL FROM:<>\r\nRCPT TO:<ann@example.test>\r\nDATA\r\nSubject: one\r\n\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<ann@example.test>\r\nDATA\r\nSubject: cut").await;
    for prefix in ["250 ", "250 ", "354 ", "250 ", "250 ", "250 ", "354 "] {
        lmtp.expect(prefix).await;
    }
    drop(lmtp);
    let mut pop3 = until_listed(&backend, "ann", 1).await;
    assert!(pop3.retrieve(1).await.ends_with(b"Subject: one\r\n\r\n"));
}
