//! Who means no good: the right words or a close, nothing half-delivered, and others are served meanwhile.

use std::time::{Duration, Instant};

use mx_frontend::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::client::Client;
use crate::played::{LONG, PlayedBackend, Seen, World};

async fn world(limits: Limits) -> (World, PlayedBackend) {
    let world = World::start(limits).await;
    let b1 = world.backend("b1").await;
    world.directory.add("ann@example.test", &[(1, "b1", 1)]);
    (world, b1)
}

/// One message of a client that behaves, and how long it took from the final dot.
async fn good(world: &World, b1: &mut PlayedBackend) -> Duration {
    let mut client = Client::connect(world.smtp).await;
    client.begin(&["ann@example.test"]).await;
    let dot = Instant::now();
    client.send("hello\r\n.\r\n").await;
    client.expect(&["250 2.0.0"]).await;
    let took = dot.elapsed();
    b1.opened().await;
    b1.committed().await;
    took
}

#[tokio::test]
async fn whatever_does_not_end_is_ended() {
    let (world, mut b1) = world(Limits {
        message_size_max_bytes: 64 << 10,
        ..Limits::default()
    })
    .await;
    let piece = "x".repeat(998) + "\r\n";
    for (in_body, piece) in [(true, piece.as_str()), (false, &piece[..998])] {
        let mut client = Client::connect(world.smtp).await;
        if in_body {
            client.begin(&["ann@example.test"]).await;
        }
        let mut sent = 0;
        let sending = async {
            while client.stream.write_all(piece.as_bytes()).await.is_ok() {
                sent += piece.len();
                // What the sockets hold is more than what was read.
                assert!(sent < 64 << 20, "nobody ends it");
            }
        };
        timeout(LONG, sending).await.unwrap();
    }
    b1.opened().await;
    b1.cut().await;
    good(&world, &mut b1).await;
}

#[tokio::test]
async fn two_gigabytes_are_refused_before_they_come() {
    let (world, mut b1) = world(Limits::default()).await;
    let mut client = Client::connect(world.smtp).await;
    client.command("EHLO client.test").await;
    for size in [2_u64 << 30, u64::MAX] {
        let said = client
            .command(&format!("MAIL FROM:<b@s.test> SIZE={size}"))
            .await;
        assert!(said.starts_with("552 5.3.4"), "{said}");
    }
    good(&world, &mut b1).await;
}

#[tokio::test]
async fn a_flood_of_unknown_recipients_is_cut_after_the_last_mistake_that_is_borne() {
    let (world, mut b1) = world(Limits {
        error_delay_ms: 1,
        ..Limits::default()
    })
    .await;
    let mut client = Client::connect(world.smtp).await;
    client.command("EHLO client.test").await;
    client.command("MAIL FROM:<b@s.test>").await;
    let flood: String = (0..10_000)
        .map(|number| format!("RCPT TO:<nobody{number}@example.test>\r\n"))
        .collect();
    let (mut reading, mut writing) = client.stream.split();
    let mut said = Vec::new();
    let both = async {
        tokio::join!(
            writing.write_all(flood.as_bytes()),
            reading.read_to_end(&mut said)
        )
    };
    _ = timeout(LONG, both).await.unwrap();
    let said = String::from_utf8(said).unwrap();
    // A reset may have overtaken some of it.
    assert!(said.matches("550 5.1.1").count() <= 20, "{said}");
    good(&world, &mut b1).await;
}

#[tokio::test]
async fn a_header_of_many_fields_is_only_octets() {
    let (world, mut b1) = world(Limits::default()).await;
    let mut client = Client::connect(world.smtp).await;
    client.begin(&["ann@example.test"]).await;
    let header: String = (0..50_000)
        .map(|number| format!("X-{number}: {number}\r\n"))
        .collect();
    client.send(&header).await;
    client.send(".\r\n").await;
    client.expect(&["250 2.0.0"]).await;
    b1.opened().await;
    assert_eq!(b1.committed().await.1, header.as_bytes());
}

#[tokio::test]
async fn chunks_that_cannot_be_read_and_octets_that_are_no_tls_end_their_connection_alone() {
    let (world, mut b1) = world(Limits::default()).await;
    for bdat in [
        "BDAT",
        "BDAT -1",
        "BDAT 18446744073709551616 LAST",
        "BDAT 5 5",
        "BDAT 5\0",
    ] {
        let mut client = Client::connect(world.smtp).await;
        client.command("EHLO client.test").await;
        client.command("MAIL FROM:<b@s.test>").await;
        client.command("RCPT TO:<ann@example.test>").await;
        client.send(format!("{bdat}\r\nRSET\r\n")).await;
        client.expect(&["501 5.5.4", "421 4.5.4"]).await;
        assert_eq!(client.reply().await, "", "{bdat}");
    }
    let garbage: Vec<u8> = (0..=255).cycle().take(20_000).collect();
    for at_once in [true, false] {
        let address = if at_once { world.smtps } else { world.smtp };
        let mut client = Client::silent(address).await;
        if !at_once {
            client.expect(&["220"]).await;
            client.command("EHLO client.test").await;
            assert!(client.command("STARTTLS").await.starts_with("220"));
        }
        _ = client.stream.write_all(&garbage).await;
        let mut rest = Vec::new();
        let ended = timeout(LONG, client.stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "closed");
        assert!(rest.len() < 100, "an alert at most");
    }
    good(&world, &mut b1).await;
}

#[tokio::test]
async fn a_cut_at_any_octet_leaves_a_whole_message_or_none() {
    const SESSION: &str = "EHLO c.test\r\nMAIL FROM:<b@s.test>\r\nRCPT TO:<ann@example.test>\r\n\
        DATA\r\nhello\r\n.\r\nMAIL FROM:<b@s.test>\r\nRCPT TO:<ann@example.test>\r\n\
        BDAT 7\r\nhello\r\nBDAT 0 LAST\r\nQUIT\r\n";
    let (world, mut b1) = world(Limits::default()).await;
    let dot = SESSION.find("\r\n.\r\n").unwrap() + 5;
    let last = SESSION.find("LAST\r\n").unwrap() + 6;
    let mut expected = 0;
    for cut in 0..=SESSION.len() {
        let mut client = Client::silent(world.smtp).await;
        client.send(&SESSION[..cut]).await;
        client.stream.shutdown().await.unwrap();
        let mut said = Vec::new();
        let ended = timeout(LONG, client.stream.read_to_end(&mut said)).await;
        assert!(ended.is_ok(), "cut at {cut}");
        expected += usize::from(cut >= dot) + usize::from(cut >= last);
    }
    // One more, whose octets tell it apart, is the last.
    let mut client = Client::connect(world.smtp).await;
    client.begin(&["ann@example.test"]).await;
    client.send("the last\r\n.\r\n").await;
    client.expect(&["250 2.0.0"]).await;
    let mut kept = 0;
    loop {
        match b1.next().await {
            Seen::Commit(_, body) if body == b"the last\r\n" => break,
            Seen::Commit(_, body) => {
                assert_eq!(body, b"hello\r\n");
                kept += 1;
            }
            Seen::Open(_) | Seen::Data(_) | Seen::Cut(_) => {}
        }
    }
    assert_eq!(kept, expected);
}

#[tokio::test]
async fn silent_connections_hold_nobody_up() {
    let (world, mut b1) = world(Limits::default()).await;
    let mut silent = Vec::new();
    // Both ends are files of this process, which may have no more than 1,024.
    for number in 0..300 {
        let address = if number % 2 == 0 {
            world.smtp
        } else {
            world.smtps
        };
        silent.push(Client::silent(address).await);
    }
    let mut took: Vec<Duration> = Vec::new();
    for _ in 0..50 {
        took.push(good(&world, &mut b1).await);
    }
    took.sort();
    println!(
        "from the final dot, beside 300 silent ones: p50 {:?}, p98 {:?}",
        took[25], took[48]
    );
    assert_eq!(silent.len(), 300);
}
