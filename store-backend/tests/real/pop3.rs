//! POP3 at the back-end's own listener.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::imap_dialogue::imap;
use crate::site::{Dialogue, PATIENCE, Site, until_listed};

async fn site_with(messages: usize) -> (Site, crate::site::Backend) {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let backend = site.backend("b1").await;
    let mut lmtp = Dialogue::lmtp(&backend).await;
    for number in 1..=messages {
        let message = format!("Subject: {number}\r\n\r\none\r\n.two\r\nthree\r\n");
        assert!(lmtp.deliver(&["ann"], message.as_bytes()).await[0].starts_with("250 "));
    }
    drop(until_listed(&backend, "ann", messages).await);
    (site, backend)
}

#[tokio::test]
async fn dele_takes_effect_at_quit_and_an_abrupt_close_deletes_nothing() {
    let (_site, backend) = site_with(3).await;
    let mut abrupt = Dialogue::pop3(&backend, "ann").await;
    abrupt.ask("DELE 1", "+OK").await;
    abrupt.ask("STAT", "+OK 2 ").await;
    drop(abrupt);
    let mut undone = Dialogue::pop3(&backend, "ann").await;
    undone.ask("STAT", "+OK 3 ").await;
    undone.ask("DELE 2", "+OK").await;
    undone.ask("RSET", "+OK").await;
    undone.ask("QUIT", "+OK").await;
    let mut orderly = Dialogue::pop3(&backend, "ann").await;
    // A second session at the same time: there is no lock, and its snapshot stays.
    let mut beside = Dialogue::pop3(&backend, "ann").await;
    orderly.ask("DELE 2", "+OK").await;
    orderly.ask("QUIT", "+OK").await;
    assert_eq!(orderly.line().await, "");
    beside.ask("STAT", "+OK 3 ").await;
    beside.ask("RETR 2", "-ERR").await;
    assert!(beside.retrieve(3).await.ends_with(b".two\r\nthree\r\n"));
    let mut after = Dialogue::pop3(&backend, "ann").await;
    after.ask("STAT", "+OK 2 ").await;
    assert!(
        String::from_utf8(after.retrieve(2).await)
            .unwrap()
            .contains("Subject: 3\r\n")
    );
}

#[tokio::test]
async fn uidl_is_the_same_after_a_restart() {
    let (_site, mut backend) = site_with(2).await;
    let mut before = Dialogue::pop3(&backend, "ann").await;
    before.ask("UIDL", "+OK").await;
    let listed = before.lines().await;
    drop(before);
    backend.kill();
    backend.restart().await;
    let mut after = Dialogue::pop3(&backend, "ann").await;
    after.ask("UIDL", "+OK").await;
    assert_eq!(after.lines().await, listed);
    assert_eq!(String::from_utf8(listed).unwrap().lines().count(), 2);
}

#[tokio::test]
async fn top_capa_and_wrong_commands_are_answered() {
    let (_site, backend) = site_with(1).await;
    let mut pop3 = Dialogue::pop3(&backend, "ann").await;
    pop3.ask("CAPA", "+OK").await;
    let capabilities = String::from_utf8(pop3.lines().await).unwrap();
    for capability in ["UIDL", "TOP", "PIPELINING", "RESP-CODES"] {
        assert!(capabilities.contains(capability), "{capabilities}");
    }
    pop3.ask("TOP 1 2", "+OK").await;
    assert!(pop3.lines().await.ends_with(b"\r\n\r\none\r\n.two\r\n"));
    for wrong in [
        "RETR 2",
        "RETR 0",
        "RETR",
        "LIST x",
        "DELE 99999999999999999999",
        "NONSENSE",
    ] {
        pop3.ask(wrong, "-ERR").await;
    }
    pop3.send(b"NOOP\r\nSTAT\r\nLIST 1\r\nQUIT\r\n").await;
    for _ in 0..4 {
        pop3.expect("+OK").await;
    }
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_the_right_one_taken_after_it() {
    let (_site, backend) = site_with(1).await;
    let mut pop3 = Dialogue::open(backend.pop3).await;
    pop3.expect("+OK").await;
    pop3.ask("USER ann@example.test", "+OK").await;
    let wrong_password = pop3.ask("PASS wrong", "-ERR").await;
    pop3.ask("USER nobody@example.test", "+OK").await;
    assert_eq!(
        pop3.ask("PASS pass", "-ERR").await,
        wrong_password,
        "unknown user and wrong password look the same"
    );
    pop3.ask("USER ann@example.test", "+OK").await;
    pop3.ask("PASS pass", "+OK").await;
    pop3.ask("STAT", "+OK 1 ").await;
}

#[tokio::test]
async fn a_slow_reader_gets_every_octet() {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let backend = site.backend("b1").await;
    let message = [
        &b"Subject: large\r\n\r\n"[..],
        &b"0123456789abcdef0123456789abcdef0123456789abcdef\r\n".repeat(60_000),
    ]
    .concat();
    let mut lmtp = Dialogue::lmtp(&backend).await;
    assert!(lmtp.deliver(&["ann"], &message).await[0].starts_with("250 "));
    drop(until_listed(&backend, "ann", 1).await);
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(backend.pop3).await.unwrap();
    stream
        .write_all(b"USER ann@example.test\r\nPASS pass\r\nRETR 1\r\nQUIT\r\n")
        .await
        .unwrap();
    let mut got = Vec::new();
    let mut piece = vec![0; 32 << 10];
    loop {
        let count = tokio::time::timeout(PATIENCE, stream.read(&mut piece))
            .await
            .unwrap()
            .unwrap();
        if count == 0 {
            break;
        }
        got.extend_from_slice(&piece[..count]);
        if got.len() < 400_000 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let at = got
        .windows(16)
        .position(|window| window == b"Subject: large\r\n")
        .unwrap();
    assert!(got[at..].starts_with(&message), "the message is whole");
    assert!(got[at + message.len()..].starts_with(b".\r\n+OK"));
}

#[tokio::test]
async fn a_peer_that_stops_reading_is_cut_off_with_bounded_memory() {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let backend = site.backend_starting("b1", "stall_s = 1");
    backend.ready().await;
    let message = [
        &b"Subject: large\r\n\r\n"[..],
        &b"0123456789abcdef0123456789abcdef0123456789abcdef\r\n".repeat(400_000),
    ]
    .concat();
    let mut lmtp = Dialogue::lmtp(&backend).await;
    assert!(lmtp.deliver(&["ann"], &message).await[0].starts_with("250 "));
    drop(until_listed(&backend, "ann", 1).await);
    let before = backend.resident_octets();
    let mut stuck = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(backend.pop3).await.unwrap();
        stream
            .write_all(b"USER ann@example.test\r\nPASS pass\r\nRETR 1\r\n")
            .await
            .unwrap();
        stuck.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    let held = backend.resident_octets().saturating_sub(before);
    assert!(held < 32 << 20, "eight readers of 20 MB hold {held} octets");
    // Cut, not ended in order: the final dot never comes.
    for mut stream in stuck {
        let mut got = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, async {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            stream.read_to_end(&mut got).await
        });
        let _ = ended.await.expect("it is closed");
        assert!(got.len() < message.len(), "the rest was not sent");
    }
    let mut alive = Dialogue::pop3(&backend, "ann").await;
    alive.ask("NOOP", "+OK").await;
}

/// Who takes one message after the other has the next ones read along: each must be the one asked for, whatever the
/// order, the sizes and what others remove meanwhile.
#[tokio::test]
async fn messages_in_any_order_are_the_ones_asked_for() {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let backend = site.backend("b1").await;
    let mut lmtp = Dialogue::lmtp(&backend).await;
    // Small ones, two that are together more than is read along, and one of several pieces.
    let filling = [
        1, 1, 1, 700, 1, 1, 500, 500, 1, 1, 3_000, 1, 1, 1, 1, 1, 1, 1,
    ];
    let body = |number: usize| {
        let line = format!("message {number}, {}\r\n", "x".repeat(30));
        line.repeat(filling[number - 1])
    };
    for number in 1..=filling.len() {
        let message = format!("Subject: {number}\r\n\r\n{}", body(number));
        assert!(lmtp.deliver(&["ann"], message.as_bytes()).await[0].starts_with("250 "));
    }
    drop(until_listed(&backend, "ann", filling.len()).await);
    let mut pop3 = Dialogue::pop3(&backend, "ann").await;
    let growing: Vec<usize> = (1..=filling.len()).collect();
    let falling: Vec<usize> = (1..=filling.len()).rev().collect();
    let mixed = vec![1, 2, 2, 3, 6, 7, 5, 6, 9, 10, 11, 12, 1, 13, 14, 14, 16, 18];
    for number in [growing, falling, mixed].concat() {
        let message = String::from_utf8(pop3.retrieve(number).await).unwrap();
        assert!(message.contains(&format!("\r\nSubject: {number}\r\n\r\n")));
        assert!(message.ends_with(&body(number)), "message {number}");
    }
    // Two in a row, the third marked: what follows is read along without it, and it is there again after RSET.
    for number in [1, 2] {
        pop3.retrieve(number).await;
        pop3.ask(&format!("DELE {number}"), "+OK").await;
    }
    pop3.ask("DELE 3", "+OK").await;
    pop3.ask("RETR 3", "-ERR").await;
    let message = String::from_utf8(pop3.retrieve(4).await).unwrap();
    assert!(message.ends_with(&body(4)));
    pop3.ask("RSET", "+OK").await;
    let message = String::from_utf8(pop3.retrieve(3).await).unwrap();
    assert!(message.ends_with(&body(3)));
    // Removed by another meanwhile: whole or gone, and those behind it as ever.
    pop3.retrieve(12).await;
    pop3.retrieve(13).await;
    let mut other = Dialogue::pop3(&backend, "ann").await;
    for number in [14, 15] {
        other.ask(&format!("DELE {number}"), "+OK").await;
    }
    other.ask("QUIT", "+OK").await;
    for number in [14, 15] {
        pop3.send(format!("RETR {number}\r\n").as_bytes()).await;
        let answer = pop3.line().await;
        match answer.starts_with("+OK") {
            true => assert!(pop3.lines().await.ends_with(body(number).as_bytes())),
            false => assert!(answer.starts_with("-ERR "), "{answer}"),
        }
    }
    let message = String::from_utf8(pop3.retrieve(16).await).unwrap();
    assert!(message.ends_with(&body(16)));
}

#[tokio::test]
async fn an_account_waits_between_two_logins_and_is_told_how_long() {
    let site = Site::new().await;
    for (local, account) in [("ann", 1), ("bob", 2)] {
        site.directory.address(local, &[account]);
        site.directory.home(account, "b1", 1);
    }
    let backend = site.backend_starting("b1", "pop3_login_delay_s = 3");
    backend.ready().await;
    let mut pop3 = Dialogue::open(backend.pop3).await;
    pop3.expect("+OK").await;
    pop3.ask("CAPA", "+OK").await;
    let before = String::from_utf8(pop3.lines().await).unwrap();
    assert!(before.contains("\r\nLOGIN-DELAY 3\r\n"), "{before}");
    let mut first = Dialogue::pop3(&backend, "ann").await;
    first.ask("CAPA", "+OK").await;
    let after = String::from_utf8(first.lines().await).unwrap();
    assert!(
        after.contains("\r\nLOGIN-DELAY 3\r\n") && !after.contains("USER"),
        "{after}"
    );
    let mut again = Dialogue::open(backend.pop3).await;
    again.expect("+OK").await;
    again.ask("USER ann@example.test", "+OK").await;
    let refused = again.ask("PASS pass", "-ERR [LOGIN-DELAY] wait ").await;
    let wait: u64 = refused.split(' ').nth(3).unwrap().parse().unwrap();
    assert!((1..=3).contains(&wait), "{refused}");
    // The rule is each account's own, and of POP3 alone.
    drop(Dialogue::pop3(&backend, "bob").await);
    drop(imap(&backend, "ann").await);
    tokio::time::sleep(Duration::from_secs(wait)).await;
    again.ask("USER ann@example.test", "+OK").await;
    again.ask("PASS pass", "+OK 0 messages").await;
}

#[tokio::test]
async fn a_session_keeps_its_snapshot_while_imap_removes_and_mail_arrives() {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let backend = site.backend("b1").await;
    let mut lmtp = Dialogue::lmtp(&backend).await;
    for number in 1..=3 {
        let message = format!("Subject: {number}\r\n\r\n.\r\n..dots\r\n");
        assert!(lmtp.deliver(&["ann"], message.as_bytes()).await[0].starts_with("250 "));
        drop(until_listed(&backend, "ann", number).await);
    }
    let mut pop3 = Dialogue::pop3(&backend, "ann").await;
    let stat = pop3.ask("STAT", "+OK 3 ").await;
    let ids = [
        pop3.ask("UIDL 2", "+OK 2 ").await,
        pop3.ask("UIDL 3", "+OK 3 ").await,
    ];
    let mut imap = imap(&backend, "ann").await;
    imap.ask("a SELECT INBOX", "* ").await;
    while !imap.line().await.starts_with("a OK") {}
    imap.ask("b STORE 1 +FLAGS.SILENT (\\Deleted)", "b OK")
        .await;
    imap.ask("c EXPUNGE", "* 1 EXPUNGE").await;
    imap.expect("c OK").await;
    assert!(lmtp.deliver(&["ann"], b"Subject: 4\r\n\r\n").await[0].starts_with("250 "));
    drop(until_listed(&backend, "ann", 3).await);
    // Nothing is renumbered; what is gone is said to be gone.
    assert_eq!(pop3.ask("STAT", "+OK").await, stat);
    pop3.ask("RETR 1", "-ERR message was removed by another session")
        .await;
    pop3.ask("TOP 1 0", "-ERR message was removed by another session")
        .await;
    pop3.ask("RETR 4", "-ERR no such message").await;
    assert!(
        pop3.retrieve(2)
            .await
            .ends_with(b"Subject: 2\r\n\r\n.\r\n..dots\r\n")
    );
    pop3.ask("DELE 1", "+OK").await;
    pop3.ask("DELE 2", "+OK").await;
    pop3.ask("QUIT", "+OK bye").await;
    let mut left = until_listed(&backend, "ann", 2).await;
    assert_eq!(
        left.ask("UIDL 1", "+OK 1 ").await[6..],
        ids[1][6..],
        "the same message has the same id"
    );
    assert!(left.retrieve(2).await.ends_with(b"Subject: 4\r\n\r\n"));
}

/// Closes without QUIT, and waits until the back-end is through with the session.
async fn close_abruptly(pop3: Dialogue) {
    let mut wire = pop3.into_wire();
    wire.shutdown().await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, wire.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
}

/// What an IMAP session hears at a NOOP.
async fn news(imap: &mut Dialogue) -> Vec<String> {
    imap.say("n NOOP").await;
    let mut heard = Vec::new();
    loop {
        let line = imap.line().await;
        if line.starts_with("n ") {
            assert!(line.starts_with("n OK"), "{line}");
            return heard;
        }
        heard.push(line.trim_end().to_owned());
    }
}

async fn selected(backend: &crate::site::Backend) -> Dialogue {
    let mut imap = imap(backend, "ann").await;
    imap.say("s SELECT INBOX").await;
    while !imap.line().await.starts_with("s OK") {}
    imap
}

async fn capabilities(pop3: &mut Dialogue) -> String {
    pop3.ask("CAPA", "+OK").await;
    String::from_utf8(pop3.lines().await).unwrap()
}

#[tokio::test]
async fn retention_removes_what_was_retrieved_or_read_and_nothing_else() {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let mut backend = site.backend_starting("b1", "pop3_expire_days = 1");
    backend.ready().await;
    let mut lmtp = Dialogue::lmtp(&backend).await;
    for number in 1..=4 {
        let message = format!("Subject: {number}\r\n\r\n{number}\r\n");
        assert!(lmtp.deliver(&["ann"], message.as_bytes()).await[0].starts_with("250 "));
        drop(until_listed(&backend, "ann", number).await);
    }
    let mut imap = selected(&backend).await;

    // Within its day a message stays, and is remembered as retrieved; only QUIT and only RETR do that.
    let mut abrupt = Dialogue::pop3(&backend, "ann").await;
    abrupt.retrieve(2).await;
    close_abruptly(abrupt).await;
    let mut pop3 = Dialogue::pop3(&backend, "ann").await;
    let told = capabilities(&mut pop3).await;
    assert!(told.contains("\r\nEXPIRE 1\r\n"), "{told}");
    pop3.retrieve(1).await;
    pop3.ask("TOP 3 99", "+OK").await;
    pop3.lines().await;
    pop3.ask("QUIT", "+OK bye").await;
    assert_eq!(
        news(&mut imap).await,
        ["* 1 FETCH (UID 1 FLAGS (\\Seen \\Recent))"]
    );

    // A day is over for all of them when it has no hours.
    backend.kill();
    backend.configure(|text| text.replace("pop3_expire_days = 1", "pop3_expire_days = 0"));
    backend.restart().await;
    let mut before = Dialogue::open(backend.pop3).await;
    before.expect("+OK").await;
    let told = capabilities(&mut before).await;
    assert!(told.contains("\r\nEXPIRE 0\r\n"), "{told}");
    let mut imap = selected(&backend).await;
    imap.ask("a STORE 3:4 +FLAGS.SILENT (\\Seen)", "a OK").await;
    let mut abrupt = Dialogue::pop3(&backend, "ann").await;
    abrupt.retrieve(2).await;
    close_abruptly(abrupt).await;
    assert_eq!(news(&mut imap).await, [""; 0]);
    // The third is marked unread while the session is open.
    let mut pop3 = Dialogue::pop3(&backend, "ann").await;
    pop3.ask("STAT", "+OK 4 ").await;
    imap.ask("b STORE 3 -FLAGS.SILENT (\\Seen)", "b OK").await;
    pop3.ask("QUIT", "+OK bye").await;
    let mut gone = news(&mut imap).await;
    gone.sort();
    assert!(
        gone == ["* 1 EXPUNGE", "* 3 EXPUNGE"] || gone == ["* 1 EXPUNGE", "* 4 EXPUNGE"],
        "{gone:?}"
    );
    let mut pop3 = Dialogue::pop3(&backend, "ann").await;
    pop3.ask("STAT", "+OK 2 ").await;
    pop3.ask("TOP 1 0", "+OK").await;
    assert!(pop3.lines().await.ends_with(b"Subject: 2\r\n\r\n"));
    assert!(pop3.retrieve(2).await.ends_with(b"Subject: 3\r\n\r\n3\r\n"));
    pop3.ask("QUIT", "+OK bye").await;
    let heard = news(&mut imap).await;
    assert!(heard.contains(&"* 2 EXPUNGE".to_owned()), "{heard:?}");
    let mut left = Dialogue::pop3(&backend, "ann").await;
    left.ask("STAT", "+OK 1 ").await;
    let figures = backend.get("/metrics").await.unwrap();
    assert!(
        figures.contains("\nposthouse_store_pop3_expired_messages_total 3\n"),
        "{figures}"
    );
}

#[tokio::test]
async fn without_retention_retr_leaves_a_message_unread() {
    let (_site, backend) = site_with(1).await;
    let mut imap = selected(&backend).await;
    let mut pop3 = Dialogue::pop3(&backend, "ann").await;
    let told = capabilities(&mut pop3).await;
    assert!(told.contains("\r\nEXPIRE NEVER\r\n"), "{told}");
    pop3.retrieve(1).await;
    pop3.ask("QUIT", "+OK bye").await;
    assert_eq!(news(&mut imap).await, [""; 0]);
    imap.ask("a STATUS INBOX (UNSEEN)", "* STATUS INBOX (UNSEEN 1)")
        .await;
}

#[tokio::test]
async fn a_message_cannot_end_itself_for_a_client_that_takes_a_lone_lf_for_a_line_end() {
    let (_site, backend) = site_with(0).await;
    let mut imap = imap(&backend, "ann").await;
    let message = "Subject: x\n\n.\r\n+OK 1 octets\r\nforged\n.\n..\r\n.end";
    imap.ask(
        &format!("a APPEND INBOX {{{}+}}\r\n{message}", message.len()),
        "a OK",
    )
    .await;
    // It reads as such a client does.
    let mut pop3 = Dialogue::pop3(&backend, "ann").await;
    let whole = format!("{message}\r\n").into_bytes();
    assert_eq!(pop3.retrieve(1).await, whole);
    pop3.ask("TOP 1 9", "+OK").await;
    assert_eq!(pop3.lines().await, whole);
    pop3.ask("STAT", "+OK 1 ").await;
}

#[tokio::test]
async fn who_lives_on_another_mail_system_gets_there_through_a_proxy_alone() {
    let site = Site::new().await;
    site.directory.address("bob", &[2]);
    site.directory.foreign("old");
    site.directory.home(2, "old", 1);
    let backend = site.backend("b1").await;
    let mut pop3 = Dialogue::open(backend.pop3).await;
    pop3.expect("+OK").await;
    pop3.ask("USER bob@example.test", "+OK").await;
    let told = pop3.ask("PASS pass", "-ERR").await;
    // To come again would not help.
    assert!(!told.contains("SYS/TEMP"), "{told}");
    assert!(backend.log().contains("the way there is through a proxy"));
}
