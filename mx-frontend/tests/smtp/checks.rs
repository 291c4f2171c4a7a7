//! Checks of clients and what comes of them.

use std::time::{Duration, Instant};

use mx_frontend::{Action, CheckSettings, Limits};

use crate::balancer::behind;
use crate::client::Client;
use crate::limits::counted;
use crate::played::{PlayedBackend, World};
use crate::trouble::get;

/// A front-end that looks at every client and limits it; `ann` lives on `b1`.
async fn looking(checks: CheckSettings) -> (World, PlayedBackend) {
    let limits = Limits {
        exempt_networks: Vec::new(),
        ..Limits::default()
    };
    let world = World::with(limits, |config| {
        config.checks = CheckSettings {
            exempt_networks: vec!["198.51.100.0/24".parse().unwrap()],
            ..checks
        };
        config.balancers.networks = vec!["127.0.0.1".parse().unwrap()];
        config.xclient_networks = vec!["203.0.113.1".parse().unwrap()];
    })
    .await;
    world.start_directory().await;
    let b1 = world.backend("b1").await;
    world.directory.add("ann@example.test", &[(1, "b1", 1)]);
    (world, b1)
}

async fn from(address: &str, world: &World) -> Client<tokio::net::TcpStream> {
    let header = format!("PROXY TCP4 {address} 198.51.100.1 4711 25\r\n");
    behind(&header, world.smtp).await
}

/// How often a check found something, as the metrics tell.
async fn found(world: &World, check: &str, action: &str) -> u64 {
    let line =
        format!("posthouse_mx_check_findings_total{{check=\"{check}\",action=\"{action}\"}} ");
    let metrics = get(world, "/metrics").await;
    let count = metrics.lines().find_map(|one| one.strip_prefix(&line));
    count.map_or(0, |count| count.trim().parse().unwrap())
}

fn early(action: Action, greeting_wait_ms: u64) -> CheckSettings {
    CheckSettings {
        early_talker: action,
        greeting_wait_ms,
        ..CheckSettings::default()
    }
}

#[tokio::test]
async fn who_talks_before_the_greeting_hears_no_greeting() {
    for (action, said) in [
        (Action::Reject, "554 5.5.0"),
        (Action::Defer, "421 4.5.0"),
        (Action::Log, "220 "),
        (Action::Off, "220 "),
    ] {
        // As long as a client that is slow to be started may take to be seen.
        let (world, _b1) = looking(early(action, 20_000)).await;
        let mut talker = from("192.0.2.7", &world).await;
        talker.send("EHLO client.test\r\n").await;
        talker.expect(&[said]).await;
        if matches!(action, Action::Reject | Action::Defer) {
            assert_eq!(talker.reply().await, "");
            counted(&world, "connection", "early_talker").await;
        } else {
            talker.expect(&["250"]).await;
            talker.send("QUIT\r\n").await;
            talker.expect(&["221"]).await;
        }
        let name = format!("{action:?}").to_lowercase();
        let expected = u64::from(action != Action::Off);
        assert!(found(&world, "early_talker", &name).await >= expected);
        // Nobody waits who is exempt, or under stress.
        let began = Instant::now();
        from("198.51.100.7", &world).await.expect(&["220 "]).await;
        let stressed = "PROXY TCP4 192.0.2.8 198.51.100.1 4711 25\r\n";
        let mut stressed = behind(stressed, world.stressed).await;
        stressed.expect(&["220 "]).await;
        assert!(began.elapsed() < Duration::from_secs(20));
    }
}

#[tokio::test]
async fn who_waits_for_the_greeting_gets_it_late_and_once_it_has_brought_mail_at_once() {
    let (world, _b1) = looking(early(Action::Reject, 3000)).await;
    let began = Instant::now();
    let mut client = from("192.0.2.7", &world).await;
    client.expect(&["220 "]).await;
    assert!(began.elapsed() >= Duration::from_secs(3));
    for _ in 0..2 {
        client.begin(&["ann@example.test"]).await;
        client.send("hello\r\n.\r\n").await;
        client.expect(&["250 2.0.0"]).await;
    }
    let mut again = from("192.0.2.7", &world).await;
    again.send("EHLO client.test\r\n").await;
    again.expect(&["220 ", "250"]).await;
    // Who is gone before is nobody's finding, and a shutdown is not waited for.
    drop(from("192.0.9.7", &world).await);
    let mut waiting = from("192.0.3.7", &world).await;
    world.frontend_shutdown.begin();
    waiting.expect(&["421 4.3.2"]).await;
    assert_eq!(waiting.reply().await, "");
}

#[tokio::test]
async fn who_sends_on_before_it_may_is_closed_and_its_message_is_not_read_as_commands() {
    let checks = CheckSettings {
        pipelining: Action::Reject,
        ..CheckSettings::default()
    };
    let (world, mut b1) = looking(checks.clone()).await;
    let mut client = from("192.0.2.7", &world).await;
    client
        .send("EHLO client.test\r\nMAIL FROM:<b@s.test>\r\n")
        .await;
    let mut said = String::new();
    loop {
        let reply = client.reply().await;
        if reply.is_empty() {
            break;
        }
        said = reply;
    }
    assert!(said.starts_with("554 5.5.0"), "{said}");
    counted(&world, "connection", "pipelining").await;

    // Groups that may be sent are.
    let mut client = from("192.0.2.7", &world).await;
    client.expect(&["220 "]).await;
    client.command("EHLO client.test").await;
    client
        .send("MAIL FROM:<b@s.test>\r\nRCPT TO:<ann@example.test>\r\nDATA\r\n")
        .await;
    client.expect(&["250", "250", "354"]).await;
    client.send("hello\r\n.\r\nQUIT\r\n").await;
    client.expect(&["250 2.0.0", "221"]).await;
    b1.opened().await;
    b1.committed().await;

    let mut client = from("192.0.2.7", &world).await;
    client.expect(&["220 "]).await;
    client.command("EHLO client.test").await;
    client
        .send("MAIL FROM:<b@s.test>\r\nRCPT TO:<ann@example.test>\r\nDATA\r\nNOOP\r\n.\r\n")
        .await;
    client.expect(&["250", "250", "554 5.5.0"]).await;
    assert_eq!(client.reply().await, "");
    assert!(b1.saw_nothing_more());

    // Where it is borne, mail comes, and once is one finding.
    let checks = CheckSettings {
        pipelining: Action::Log,
        ..checks
    };
    let before = found(&world, "pipelining", "log").await;
    let (world, mut b1) = looking(checks).await;
    let mut client = from("192.0.2.7", &world).await;
    client
        .send("EHLO c.test\r\nMAIL FROM:<b@s.test>\r\nRCPT TO:<ann@example.test>\r\nDATA\r\nhi\r\n.\r\nQUIT\r\n")
        .await;
    client
        .expect(&["220 ", "250", "250", "250", "354", "250 2.0.0", "221"])
        .await;
    b1.opened().await;
    assert!(found(&world, "pipelining", "log").await > before);
}

#[tokio::test]
async fn names_that_are_none_are_refused_at_rcpt_and_postmaster_hears_of_it() {
    let checks = CheckSettings {
        helo_syntax: Action::Reject,
        helo_own_name: Action::Defer,
        helo_literal: Action::Log,
        ..CheckSettings::default()
    };
    let (world, mut b1) = looking(checks).await;
    world
        .directory
        .add("postmaster@example.test", &[(1, "b1", 1)]);
    for (name, said, check) in [
        ("localhost", "550 5.7.1 HELO", Some("helo_syntax")),
        ("mx.test", "450 4.7.1 HELO", Some("helo_own_name")),
        ("[192.0.2.8]", "250 2.1.5", None),
        ("[192.0.2.7]", "250 2.1.5", None),
        ("client.test", "250 2.1.5", None),
    ] {
        let mut client = from("192.0.2.7", &world).await;
        client.expect(&["220 "]).await;
        client.command(&format!("EHLO {name}")).await;
        client.command("MAIL FROM:<b@s.test>").await;
        client
            .send("RCPT TO:<ann@example.test>\r\nRCPT TO:<ann@example.test>\r\nRCPT TO:<Postmaster>\r\n")
            .await;
        client.expect(&[said, said, "250 2.1.5"]).await;
        if let Some(check) = check {
            counted(&world, "rcpt", check).await;
        }
    }
    assert!(found(&world, "helo_literal", "log").await >= 1);
    // Another transaction under another name.
    let mut client = from("192.0.2.7", &world).await;
    client.expect(&["220 "]).await;
    client.command("EHLO localhost").await;
    client.command("MAIL FROM:<b@s.test>").await;
    let said = client.command("RCPT TO:<ann@example.test>").await;
    assert!(said.starts_with("550 5.7.1"), "{said}");
    client.begin(&["ann@example.test"]).await;
    client.send("hello\r\n.\r\n").await;
    client.expect(&["250 2.0.0"]).await;
    b1.opened().await;

    // Of a relay, whom it speaks for is looked at, and not itself.
    let mut relay = from("203.0.113.1", &world).await;
    relay.expect(&["220 "]).await;
    relay.command("EHLO localhost").await;
    relay.command("MAIL FROM:<b@s.test>").await;
    let said = relay.command("RCPT TO:<ann@example.test>").await;
    assert!(said.starts_with("250"), "{said}");
    relay.command("RSET").await;
    let said = relay.command("XCLIENT ADDR=192.0.2.9").await;
    assert!(said.starts_with("220"), "{said}");
    relay.command("EHLO localhost").await;
    relay.command("MAIL FROM:<b@s.test>").await;
    let said = relay.command("RCPT TO:<ann@example.test>").await;
    assert!(said.starts_with("550 5.7.1"), "{said}");
}
