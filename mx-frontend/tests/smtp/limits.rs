//! What one client may do, and how often.

use std::time::{Duration, Instant};

use mx_frontend::{Limits, Rates};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::client::Client;
use crate::played::{LONG, PlayedBackend, World};
use crate::trouble::get;

fn nobody_exempt() -> Limits {
    Limits {
        exempt_networks: Vec::new(),
        ..Limits::default()
    }
}

async fn with_rates(limits: Limits, rates: Rates) -> (World, PlayedBackend) {
    let world = World::with(limits, |config| config.rates = rates).await;
    world.start_directory().await;
    let b1 = world.backend("b1").await;
    world.directory.add("ann@example.test", &[(1, "b1", 1)]);
    (world, b1)
}

/// Waits until a refusal with this reason is in the metrics.
pub(crate) async fn counted(world: &World, stage: &str, reason: &str) {
    let line = format!("posthouse_mx_refusals_total{{stage=\"{stage}\",reason=\"{reason}\"}}");
    let deadline = Instant::now() + LONG;
    while !get(world, "/metrics").await.contains(&line) {
        assert!(Instant::now() < deadline, "never counted: {line}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn connections_beyond_the_rate_are_told_so_and_who_is_exempt_is_not() {
    let rates = Rates {
        connections_max: 2,
        ..Rates::default()
    };
    let (world, _b1) = with_rates(nobody_exempt(), rates.clone()).await;
    for _ in 0..2 {
        Client::connect(world.smtp).await.command("QUIT").await;
    }
    let mut third = Client::silent(world.smtp).await;
    third.expect(&["421 4.7.0"]).await;
    assert_eq!(third.reply().await, "");
    // In TLS there is nobody to be told.
    let mut fourth = Client::silent(world.smtps).await;
    assert_eq!(fourth.reply().await, "");
    counted(&world, "connection", "connection_rate").await;

    let (world, _b1) = with_rates(Limits::default(), rates).await;
    for _ in 0..5 {
        Client::connect(world.smtp).await;
    }
}

#[tokio::test]
async fn messages_and_recipients_beyond_their_rates_are_deferred_and_the_session_goes_on() {
    let rates = Rates {
        messages_max: 2,
        recipients_max: 3,
        ..Rates::default()
    };
    let (world, mut b1) = with_rates(nobody_exempt(), rates).await;
    let mut client = Client::connect(world.smtp).await;
    client.begin(&["ann@example.test"; 3]).await;
    client.send("one\r\n.\r\n").await;
    client.expect(&["250 2.0.0"]).await;
    b1.opened().await;
    client
        .send("MAIL FROM:<b@s.test>\r\nRCPT TO:<ann@example.test>\r\n")
        .await;
    client.expect(&["250", "450 4.7.1 too many recip"]).await;
    client
        .send("RSET\r\nMAIL FROM:<b@s.test>\r\nNOOP\r\n")
        .await;
    client
        .expect(&["250", "450 4.7.1 too many messages", "250"])
        .await;
    counted(&world, "mail", "message_rate").await;
    counted(&world, "rcpt", "recipient_rate").await;
    // It is the client's, not the connection's.
    let mut again = Client::connect(world.smtp).await;
    again.command("EHLO client.test").await;
    let said = again.command("MAIL FROM:<b@s.test>").await;
    assert!(said.starts_with("450 4.7.1"), "{said}");
    // Under stress nobody asks for ever.
    let mut eager = Client::connect(world.stressed).await;
    eager.command("EHLO client.test").await;
    eager
        .send("MAIL FROM:<b@s.test>\r\nMAIL FROM:<b@s.test>\r\n")
        .await;
    eager.expect(&["450 4.7.1", "450 4.7.1", "421 4.7.0"]).await;
}

#[tokio::test]
async fn a_relay_is_not_limited_as_one_client_but_each_for_whom_it_speaks_is() {
    let limits = Limits {
        client_connections_max: 1,
        ..nobody_exempt()
    };
    let world = World::with(limits, |config| {
        config.xclient_networks = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let mut relays = Vec::new();
    for told in ["192.0.2.9", "192.0.3.9", "[UNAVAILABLE]", "[UNAVAILABLE]"] {
        let mut relay = Client::connect(world.smtp).await;
        let said = relay.command(&format!("XCLIENT ADDR={told}")).await;
        assert!(said.starts_with("220"), "{told}: {said}");
        relays.push(relay);
    }
    let mut again = Client::connect(world.smtp).await;
    let said = again.command("XCLIENT ADDR=192.0.2.8").await;
    assert!(said.starts_with("421 4.7.0"), "{said}");
}

#[tokio::test]
async fn handshakes_that_fail_count_too() {
    let rates = Rates {
        tls_sessions_max: 2,
        ..Rates::default()
    };
    let (world, _b1) = with_rates(nobody_exempt(), rates).await;
    for _ in 0..2 {
        let mut client = Client::silent(world.smtps).await;
        client.send("EHLO client.test\r\n").await;
        client.closed().await;
    }
    // Counted when it is over, which is a moment after its end is seen.
    let mut is_refused = false;
    for _ in 0..10 {
        let mut third = Client::silent(world.smtps).await;
        let closed = timeout(Duration::from_secs(2), third.closed()).await;
        is_refused = closed.is_ok();
        if is_refused {
            break;
        }
    }
    assert!(is_refused, "a handshake is begun");
    counted(&world, "connection", "tls_session_rate").await;
}

#[tokio::test]
async fn handshakes_and_auth_beyond_their_rates_are_refused_and_mail_still_comes_in_the_clear() {
    let rates = Rates {
        tls_sessions_max: 1,
        auths_max: 1,
        ..Rates::default()
    };
    let (world, _b1) = with_rates(nobody_exempt(), rates).await;
    let mut first = Client::connect(world.smtp).await;
    first.command("EHLO client.test").await;
    assert!(first.command("STARTTLS").await.starts_with("220"));
    let mut first = first.handshake(world.folder.authority_pem()).await;
    assert!(first.command("EHLO client.test").await.starts_with("250"));

    let mut second = Client::connect(world.smtp).await;
    second.command("EHLO client.test").await;
    let said = second.command("STARTTLS").await;
    assert!(said.starts_with("454 4.7.0"), "{said}");
    let said = second.command("AUTH PLAIN AGEAYg==").await;
    assert!(said.starts_with("502 5.5.1"), "{said}");
    let said = second.command("AUTH PLAIN AGEAYg==").await;
    assert!(said.starts_with("450 4.7.1"), "{said}");
    second.begin(&["ann@example.test"]).await;
    second.send("hello\r\n.\r\n").await;
    second.expect(&["250 2.0.0"]).await;
    counted(&world, "starttls", "tls_session_rate").await;
    counted(&world, "auth", "auth_rate").await;

    let mut third = Client::silent(world.smtps).await;
    let mut rest = Vec::new();
    _ = third.stream.read_to_end(&mut rest).await;
    assert_eq!(rest, b"", "no handshake is begun");
}

#[tokio::test]
async fn each_reply_after_many_mistakes_comes_late_and_nobody_else_s() {
    let delay = Duration::from_millis(700);
    let limits = Limits {
        soft_error_limit: 2,
        error_delay_ms: 700,
        ..Limits::default()
    };
    let (world, _b1) = with_rates(limits, Rates::default()).await;
    let mut slowed = Client::connect(world.smtp).await;
    let began = Instant::now();
    // One group, and each of its replies by itself.
    slowed.send("A\r\nB\r\nC\r\nD\r\nNOOP\r\n").await;
    slowed.expect(&["500", "500"]).await;
    let slowed = tokio::spawn(async move {
        slowed.expect(&["500", "500", "250"]).await;
        (began.elapsed(), slowed)
    });
    let others_began = Instant::now();
    for _ in 0..20 {
        let mut other = Client::connect(world.smtp).await;
        other.begin(&["ann@example.test"]).await;
        other.send("hello\r\n.\r\n").await;
        other.expect(&["250 2.0.0"]).await;
    }
    // 120 replies: late as those, they would take twice as long.
    let others_took = others_began.elapsed();
    assert!(others_took < delay * 60, "{others_took:?}");
    let (took, mut slowed) = slowed.await.unwrap();
    assert!(took >= delay * 3, "{took:?}");
    // A message that is taken forgives them.
    slowed.begin(&["ann@example.test"]).await;
    slowed.send("hello\r\n.\r\n").await;
    slowed.expect(&["250 2.0.0"]).await;
    let metrics = get(&world, "/metrics").await;
    assert!(metrics.contains("posthouse_mx_delayed_replies_total"));
    assert!(metrics.contains("posthouse_mx_errors_total"));
}

#[tokio::test]
async fn a_command_in_small_pieces_is_waited_for_and_by_setting_no_longer_than_for_one_piece() {
    for command_deadline in [false, true] {
        let limits = Limits {
            command_timeout_s: 3,
            command_deadline,
            ..Limits::default()
        };
        let (world, _b1) = with_rates(limits, Rates::default()).await;
        let mut client = Client::connect(world.smtp).await;
        client.send("NOOP ").await;
        // With the deadline an end comes while pieces still do; without one, none in twice its time.
        let mut said = String::new();
        let pieces = if command_deadline { 40 } else { 12 };
        for _ in 0..pieces {
            _ = client.stream.try_write(b"x");
            let reply = timeout(Duration::from_millis(500), client.reply());
            if let Ok(reply) = reply.await {
                said = reply;
                break;
            }
        }
        if command_deadline {
            assert!(said.starts_with("421 4.4.2"), "{said}");
        } else {
            assert_eq!(said, "");
            client.send("\r\n").await;
            client.expect(&["250"]).await;
        }
    }
}

#[tokio::test]
async fn recipients_beyond_the_limit_are_deferred_and_counted() {
    let limits = Limits {
        recipients_max: 100,
        ..Limits::default()
    };
    let (world, mut b1) = with_rates(limits, Rates::default()).await;
    let mut client = Client::connect(world.smtp).await;
    client.command("EHLO client.test").await;
    client.command("MAIL FROM:<bob@sender.test>").await;
    for count in 1..=101 {
        let said = client.command("RCPT TO:<ann@example.test>").await;
        let expected = if count <= 100 { "250" } else { "452 4.5.3" };
        assert!(said.starts_with(expected), "{count}: {said}");
    }
    client.command("DATA").await;
    client.send("hello\r\n.\r\n").await;
    client.expect(&["250 2.0.0"]).await;
    b1.opened().await;
    counted(&world, "rcpt", "recipients_max").await;
}
