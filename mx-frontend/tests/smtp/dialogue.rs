//! What senders do wrong, on purpose or not, and STARTTLS.

use mx_frontend::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::Client;
use crate::played::World;
use crate::trouble::get;

const SESSION: &str = "EHLO client.test\r\n\
    MAIL FROM:<bob@sender.test>\r\n\
    RCPT TO:<ann@example.test>\r\n\
    DATA\r\n\
    Subject: one write\r\n\r\nhello\r\n.\r\n\
    QUIT\r\n";

async fn one_home() -> (World, crate::played::PlayedBackend) {
    with_limits(Limits::default()).await
}

async fn with_limits(limits: Limits) -> (World, crate::played::PlayedBackend) {
    let world = World::start(limits).await;
    let b1 = world.backend("b1").await;
    world.directory.add("ann@example.test", &[(1, "b1", 1)]);
    (world, b1)
}

#[tokio::test]
async fn a_whole_session_in_one_write_is_served_in_order() {
    let (world, mut b1) = one_home().await;
    let mut client = Client::silent(world.smtp).await;
    client.send(SESSION).await;
    client
        .expect(&[
            "220 ",
            "250",
            "250 2.1.0",
            "250 2.1.5",
            "354",
            "250 2.0.0",
            "221",
        ])
        .await;
    assert_eq!(client.reply().await, "");
    b1.opened().await;
    assert_eq!(
        b1.committed().await.1,
        b"Subject: one write\r\n\r\nhello\r\n"
    );
    let metrics = get(&world, "/metrics").await;
    assert!(
        metrics.contains("posthouse_mx_deliveries_total{outcome=\"kept\"}"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_message_in_chunks_is_one_message_and_of_one_that_is_reset_nothing_comes() {
    let (world, mut b1) = one_home().await;
    let mut client = Client::connect(world.smtp).await;
    let envelope = "MAIL FROM:<bob@sender.test>\r\nRCPT TO:<ann@example.test>\r\n";
    client
        .send(format!("EHLO client.test\r\n{envelope}BDAT 5\r\ngone\r"))
        .await;
    client.expect(&["250", "250", "250", "250 2.0.0"]).await;
    b1.opened().await;
    assert!(client.command("RSET").await.starts_with("250 2.0.0"));
    b1.cut().await;

    client
        .send(format!(
            "{envelope}BDAT 6\r\none\r\n.BDAT 7 LAST\r\n\r\ntwo\r\nQUIT\r\n"
        ))
        .await;
    client
        .expect(&["250", "250", "250", "250 2.0.0", "221"])
        .await;
    b1.opened().await;
    assert_eq!(b1.committed().await.1, b"one\r\n.\r\ntwo\r\n");
}

#[tokio::test]
async fn an_address_beyond_ascii_is_as_good_as_another() {
    let (world, mut b1) = one_home().await;
    world.directory.add("änn@example.test", &[(2, "b1", 1)]);
    let mut client = Client::connect(world.smtp).await;
    client
        .send(
            "EHLO client.test\r\nMAIL FROM:<jö@b\u{fc}cher.test> SMTPUTF8\r\n\
             RCPT TO:<Änn@example.test>\r\nDATA\r\n",
        )
        .await;
    client.expect(&["250", "250", "250 2.1.5", "354"]).await;
    client.send("Subject: ü\r\n\r\n.\r\n").await;
    client.expect(&["250 2.0.0"]).await;
    assert_eq!(b1.opened().await.reverse_path, "jö@bücher.test");
    let (commit, body) = b1.committed().await;
    assert_eq!(body, "Subject: ü\r\n\r\n".as_bytes());
    let prologue = String::from_utf8_lossy(&commit.recipients[0].prologue.0);
    assert!(
        prologue.contains("Delivered-To: Änn@example.test\r\n"),
        "{prologue}"
    );
    assert!(prologue.contains(" with UTF8SMTP"), "{prologue}");
}

#[tokio::test]
async fn a_transaction_pipelined_behind_a_final_dot_is_another_and_the_first_is_answered_at_once() {
    let (world, mut b1) = one_home().await;
    let mut client = Client::silent(world.smtp).await;
    let transaction = |text: &str| {
        format!(
            "MAIL FROM:<bob@sender.test>\r\nRCPT TO:<ann@example.test>\r\nDATA\r\n{text}\r\n.\r\n"
        )
    };
    let (one, two) = (transaction("one"), transaction("two"));
    client
        .send(format!("EHLO client.test\r\n{one}{two}{one}QUIT\r\n"))
        .await;
    client.expect(&["220 ", "250"]).await;
    for text in ["one\r\n", "two\r\n", "one\r\n"] {
        client.expect(&["250", "250", "354", "250 2.0.0"]).await;
        b1.opened().await;
        assert_eq!(b1.committed().await.1, text.as_bytes());
    }
    client.expect(&["221"]).await;

    // The next recipient's home takes its time to be found away; the 250 does not wait for it.
    world
        .directory
        .add("ben@example.test", &[(2, "unheard-of", 1)]);
    let mut client = Client::connect(world.smtp).await;
    client.begin(&["ann@example.test"]).await;
    client
        .send("x\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<ben@example.test>\r\nQUIT\r\n")
        .await;
    client.expect(&["250 2.0.0", "250", "451", "221"]).await;
}

#[tokio::test]
async fn a_session_cut_at_any_octet_before_the_end_of_its_final_dot_commits_nothing() {
    let (world, mut b1) = one_home().await;
    let before_end = SESSION.find("\r\n.\r\n").unwrap() + 4;
    for cut in 0..=before_end {
        let mut client = Client::silent(world.smtp).await;
        client.send(&SESSION[..cut]).await;
        client.stream.shutdown().await.unwrap();
        // The server closes when the session has ended.
        client.closed().await;
    }
    let mut client = Client::connect(world.smtp).await;
    client.begin(&["ann@example.test"]).await;
    client.send("the first commit\r\n.\r\n").await;
    client.expect(&["250"]).await;
    let body = loop {
        match b1.next().await {
            crate::played::Seen::Commit(_, body) => break body,
            _ => continue,
        }
    };
    assert_eq!(body, b"the first commit\r\n");
}

#[tokio::test]
async fn a_large_body_cut_half_way_is_cut_at_the_home_too() {
    let (world, mut b1) = one_home().await;
    let mut client = Client::connect(world.smtp).await;
    client.begin(&["ann@example.test"]).await;
    client
        .send(format!("{}\r\n", "x".repeat(98)).repeat(5000))
        .await;
    b1.opened().await;
    b1.data(100_000).await;
    drop(client);
    assert!(b1.cut().await >= 100_000);
}

#[tokio::test]
async fn a_refused_body_is_dropped_at_once_and_the_session_goes_on() {
    let (world, mut b1) = with_limits(Limits {
        message_size_max_bytes: 100_000,
        ..Limits::default()
    })
    .await;
    let mut client = Client::connect(world.smtp).await;

    client.begin(&["ann@example.test"]).await;
    client
        .send(format!("{}\r\n", "x".repeat(98)).repeat(1001))
        .await;
    b1.opened().await;
    // Before the final dot was sent.
    b1.cut().await;
    client.send(".\r\n").await;
    client.expect(&["552 5.3.4"]).await;

    for broken in ["a bare\nline feed\r\n", "a bare\rreturn\r\n"] {
        client.begin(&["ann@example.test"]).await;
        client.send(broken).await;
        b1.opened().await;
        b1.cut().await;
        client.send(".\r\n").await;
        client.expect(&["550 5."]).await;
    }

    client.begin(&["ann@example.test"]).await;
    client.send("fine\r\n.\r\n").await;
    client.expect(&["250 2.0.0"]).await;
    b1.opened().await;
    b1.committed().await;
}

#[tokio::test]
async fn a_declared_size_over_the_limit_is_refused_before_the_body() {
    let (world, _b1) = with_limits(Limits {
        message_size_max_bytes: 100_000,
        ..Limits::default()
    })
    .await;
    let mut client = Client::connect(world.smtp).await;
    assert!(
        client
            .command("EHLO client.test")
            .await
            .contains("SIZE 100000")
    );
    assert!(
        client
            .command("MAIL FROM:<b@s.test> SIZE=100001")
            .await
            .starts_with("552")
    );
    assert!(
        client
            .command("MAIL FROM:<b@s.test> SIZE=100000")
            .await
            .starts_with("250")
    );
}

#[tokio::test]
async fn commands_injected_before_starttls_are_never_carried_out() {
    let (world, mut b1) = one_home().await;
    let mut client = Client::connect(world.smtp).await;
    assert!(
        client
            .command("EHLO client.test")
            .await
            .contains("STARTTLS")
    );
    client
        .send("STARTTLS\r\nEHLO evil.test\r\nMAIL FROM:<evil@sender.test>\r\n")
        .await;
    client.expect(&["220 2.0.0"]).await;
    let mut client = client.handshake(world.folder.authority_pem()).await;
    // Neither the greeting nor the sender of before counts.
    assert!(
        client
            .command("RCPT TO:<ann@example.test>")
            .await
            .starts_with("503")
    );
    let hello = client.command("EHLO client.test").await;
    assert!(!hello.contains("STARTTLS"), "{hello}");
    assert!(
        client
            .command("RCPT TO:<ann@example.test>")
            .await
            .starts_with("503")
    );

    client.begin(&["ann@example.test"]).await;
    client.send("hello\r\n.\r\n").await;
    client.expect(&["250 2.0.0"]).await;
    assert_eq!(b1.opened().await.reverse_path, "bob@sender.test");
    let (commit, _) = b1.committed().await;
    let prologue = String::from_utf8(commit.recipients[0].prologue.0.clone()).unwrap();
    assert!(
        prologue
            .replace("\r\n\t", " ")
            .contains("with ESMTPS (TLSv1.3"),
        "{prologue}"
    );
}

#[tokio::test]
async fn a_connection_in_tls_ends_with_a_close_that_is_said() {
    let (world, _b1) = one_home().await;
    let mut client = Client::connect(world.smtp).await;
    client.command("EHLO client.test").await;
    assert!(client.command("STARTTLS").await.starts_with("220"));
    let mut client = client.handshake(world.folder.authority_pem()).await;
    assert!(client.command("QUIT").await.starts_with("221"));
    let mut rest = Vec::new();
    // Without close_notify this is an error.
    let read = client.stream.read_to_end(&mut rest);
    let read = tokio::time::timeout(crate::played::LONG, read).await;
    assert_eq!(read.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn a_megabyte_without_an_end_of_line_is_one_mistake() {
    let (world, _b1) = one_home().await;
    let mut client = Client::connect(world.smtp).await;
    client.send(vec![b'a'; 1 << 20]).await;
    client.send("\r\nNOOP\r\n").await;
    client.expect(&["500 5.5", "250"]).await;
}

#[tokio::test]
async fn too_many_mistakes_end_the_connection() {
    let limits = Limits {
        soft_error_limit: 2,
        error_delay_ms: 1,
        hard_error_limit: 3,
        ..Limits::default()
    };
    let (world, _b1) = with_limits(limits).await;
    let mut client = Client::connect(world.smtp).await;
    client.send("A\r\nB\r\nC\r\nNOOP\r\n").await;
    client.expect(&["5", "5", "5", "421"]).await;
    assert_eq!(client.reply().await, "");
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut_and_nobody_waits_for_it() {
    let limits = Limits {
        command_timeout_s: 2,
        junk_command_limit: 100_000,
        ..Limits::default()
    };
    let (world, _b1) = with_limits(limits).await;
    let mut slow = Client::silent(world.smtp).await;
    let flood = "EHLO client.test\r\n".repeat(10_000);
    let stuck = tokio::spawn(async move {
        while slow.stream.write_all(flood.as_bytes()).await.is_ok() {}
        // The server closed with our octets unread.
        slow
    });
    for _ in 0..3 {
        let mut other = Client::connect(world.smtp).await;
        other.begin(&["ann@example.test"]).await;
        other.send("hello\r\n.\r\n").await;
        other.expect(&["250 2.0.0"]).await;
    }
    let mut slow = tokio::time::timeout(crate::played::LONG, stuck)
        .await
        .unwrap()
        .unwrap();
    let mut rest = Vec::new();
    _ = slow.stream.read_to_end(&mut rest).await;
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_cut_and_leaves_nothing() {
    let limits = Limits {
        sender_window_s: 1,
        ..Limits::default()
    };
    let (world, mut b1) = with_limits(limits).await;
    let mut client = Client::connect(world.smtp).await;
    client.begin(&["ann@example.test"]).await;
    client.send("slow\r\n").await;
    client.expect(&["421 4.4.2"]).await;
    b1.opened().await;
    b1.cut().await;
}

#[tokio::test]
async fn a_silent_body_ends_even_where_any_pace_is_allowed() {
    let limits = Limits {
        command_timeout_s: 2,
        sender_octets_per_s_min: 0,
        sender_window_s: 1,
        ..Limits::default()
    };
    let (world, mut b1) = with_limits(limits).await;
    let mut client = Client::connect(world.smtp).await;
    client.begin(&["ann@example.test"]).await;
    client.expect(&["421 4.4.2"]).await;
    b1.opened().await;
    b1.cut().await;
}

#[tokio::test]
async fn silence_between_commands_ends_with_words() {
    let (world, _b1) = with_limits(Limits {
        command_timeout_s: 1,
        ..Limits::default()
    })
    .await;
    let mut client = Client::connect(world.smtp).await;
    client.expect(&["421 4.4.2"]).await;
    assert_eq!(client.reply().await, "");
}

#[tokio::test]
async fn one_client_has_only_so_many_connections() {
    let limits = Limits {
        client_connections_max: 2,
        exempt_networks: Vec::new(),
        ..Limits::default()
    };
    let (world, _b1) = with_limits(limits).await;
    let mut first = Client::connect(world.smtp).await;
    let _second = Client::connect(world.smtp).await;
    let mut third = Client::silent(world.smtp).await;
    third.expect(&["421 4.7.0"]).await;
    assert_eq!(third.reply().await, "");
    assert!(first.command("QUIT").await.starts_with("221"));
    assert_eq!(first.reply().await, "");
    Client::connect(world.smtp).await;
}

#[tokio::test]
async fn a_drain_tells_idle_clients_and_finishes_the_message_under_way() {
    let (world, mut b1) = one_home().await;
    let mut idle = Client::connect(world.smtp).await;
    let mut busy = Client::connect(world.smtp).await;
    busy.begin(&["ann@example.test"]).await;
    b1.opened().await;
    // The played neighbours end with the world, so only the front-end's own end is begun here.
    world.frontend_shutdown.begin();
    idle.expect(&["421 4.3.2"]).await;
    busy.send("hello\r\n.\r\n").await;
    busy.expect(&["250 2.0.0", "421 4.3.2"]).await;
    b1.committed().await;
    assert!(world.frontend_shutdown.drained(crate::played::LONG).await);
}
