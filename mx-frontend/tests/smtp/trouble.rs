//! Neighbours that fail: never a false `250`, never a false "no such user", never a long wait.

use std::time::{Duration, Instant};

use directory_api::{BackendName, Epoch};
use http::StatusCode;
use mx_frontend::Limits;
use store_api::deliver::{DeliverCommit, Outcome};
use testkit::address::unused_address;

use crate::client::Client;
use crate::played::{Play, World};

#[tokio::test]
async fn unknown_users_and_foreign_domains_are_refused_and_the_session_goes_on() {
    let world = World::start(Limits::default()).await;
    let _b1 = world.backend("b1").await;
    world.directory.add("ann@example.test", &[(1, "b1", 1)]);
    let mut client = Client::connect(world.smtp).await;
    client.command("EHLO client.test").await;
    client.command("MAIL FROM:<bob@sender.test>").await;
    for (recipient, reply) in [
        ("nobody@example.test", "550 5.1.1"),
        ("ann@elsewhere.test", "550 5.7.1"),
        ("ann@[127.0.0.1]", "550 5.7.1"),
        ("ann@example.test", "250 2.1.5"),
    ] {
        let said = client.command(&format!("RCPT TO:<{recipient}>")).await;
        assert!(said.starts_with(reply), "{recipient}: {said}");
    }
}

#[tokio::test]
async fn mail_for_a_home_on_another_system_waits_at_its_sender_and_others_get_theirs() {
    let world = World::start(Limits::default()).await;
    let mut b1 = world.backend("b1").await;
    // Nobody listens there: it is not even tried.
    world.directory.add_foreign("old", unused_address());
    world.directory.add("ann@example.test", &[(1, "old", 2)]);
    world
        .directory
        .add("both@example.test", &[(1, "old", 2), (2, "b1", 1)]);
    world.directory.add("bob@example.test", &[(2, "b1", 1)]);
    let mut client = Client::connect(world.smtp).await;
    client.command("EHLO client.test").await;
    client.command("MAIL FROM:<bob@sender.test>").await;
    for recipient in ["ann", "both"] {
        let said = client
            .command(&format!("RCPT TO:<{recipient}@example.test>"))
            .await;
        assert!(said.starts_with("451 4.3.2 "), "{said}");
        assert!(said.contains("another system"), "{said}");
    }
    let said = client.command("RCPT TO:<bob@example.test>").await;
    assert!(said.starts_with("250"), "{said}");
    client.command("DATA").await;
    let said = client.command("Subject: x\r\n\r\nx\r\n.").await;
    assert!(said.starts_with("250"), "{said}");
    let opened = b1.opened().await;
    assert_eq!(opened.recipients.len(), 1);
}

#[tokio::test]
async fn a_full_mailbox_is_deferred_at_rcpt_or_refused_by_setting_and_asked_of_its_home_once() {
    for (over_quota_is_permanent, refusal) in [(false, "452 4.2.2"), (true, "552 5.2.2")] {
        let limits = Limits {
            over_quota_is_permanent,
            ..Limits::default()
        };
        let world = World::start(limits).await;
        let b1 = world.backend("b1").await;
        world.directory.add("ann@example.test", &[(1, "b1", 1)]);
        world.directory.add("bob@example.test", &[(2, "b1", 1)]);
        world
            .directory
            .add("both@example.test", &[(1, "b1", 1), (2, "b1", 1)]);
        for address in ["ann@example.test", "both@example.test"] {
            world.directory.limit(address, 2000);
        }
        let mut client = Client::connect(world.smtp).await;
        client.command("EHLO client.test").await;
        for (size, recipient, expected) in [
            (1000, "ann", "250 2.1.5"),
            (1001, "ann", refusal),
            (1001, "bob", "250 2.1.5"),
            // One of its accounts has room.
            (1001, "both", "250 2.1.5"),
        ] {
            let mail = format!("MAIL FROM:<bob@sender.test> SIZE={size}");
            client.command(&mail).await;
            let said = client
                .command(&format!("RCPT TO:<{recipient}@example.test>"))
                .await;
            assert!(said.starts_with(expected), "{size} {recipient}: {said}");
            client.command("RSET").await;
        }
        assert_eq!(
            b1.rooms_asked(),
            1,
            "asked once in some seconds, and only of who has a limit"
        );
        // Who has got a message may be full by it.
        for expected in [1, 2] {
            client.command("MAIL FROM:<bob@sender.test>").await;
            client.command("RCPT TO:<ann@example.test>").await;
            assert_eq!(b1.rooms_asked(), expected);
            client.command("DATA").await;
            let said = client.command("Subject: one\r\n\r\n.").await;
            assert!(said.starts_with("250 "), "{said}");
        }
    }
}

#[tokio::test]
async fn a_directory_that_is_away_defers_and_health_says_what_is_waited_for() {
    let world = World::without_directory(Limits::default()).await;
    let mut client = Client::connect(world.smtp).await;
    client.command("EHLO client.test").await;
    client.command("MAIL FROM:<bob@sender.test>").await;
    let said = client.command("RCPT TO:<ann@example.test>").await;
    assert!(said.starts_with("451 4.3.0"), "{said}");
    let health = get(&world, "/health").await;
    assert!(
        health.starts_with("HTTP/1.1 503") && health.contains("directory at 127.0.0.1:"),
        "{health}"
    );

    let _b1 = world.backend("b1").await;
    world.directory.add("ann@example.test", &[(1, "b1", 1)]);
    world.start_directory().await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while !get(&world, "/health").await.starts_with("HTTP/1.1 200") {
        assert!(Instant::now() < deadline, "never ready");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let said = client.command("RCPT TO:<ann@example.test>").await;
    assert!(said.starts_with("250"), "{said}");
}

#[tokio::test]
async fn a_home_that_is_down_is_known_at_rcpt() {
    let world = World::start(Limits::default()).await;
    world.directory.add("ann@example.test", &[(1, "b1", 1)]);
    world.directory.add_backend("b1", unused_address());
    world
        .directory
        .add("ben@example.test", &[(2, "unheard-of", 1)]);
    let mut client = Client::connect(world.smtp).await;
    client.command("EHLO client.test").await;
    client.command("MAIL FROM:<bob@sender.test>").await;
    for recipient in ["ann@example.test", "ben@example.test"] {
        let said = client.command(&format!("RCPT TO:<{recipient}>")).await;
        assert!(said.starts_with("451 4.3.2"), "{said}");
    }
    assert!(client.command("DATA").await.starts_with("554"));
}

#[tokio::test]
async fn a_home_that_fails_before_the_commit_keeps_the_others_from_committing() {
    let world = World::start(Limits::default()).await;
    let (mut b1, mut b2) = (world.backend("b1").await, world.backend("b2").await);
    world.directory.add("ann@example.test", &[(1, "b1", 1)]);
    world.directory.add("ben@example.test", &[(2, "b2", 1)]);
    b2.play(Play::Refuse);
    let mut client = Client::connect(world.smtp).await;
    client
        .begin(&["ann@example.test", "ben@example.test"])
        .await;
    b2.opened().await;
    b2.cut().await;
    // Enough that the refusal is noticed while the body still passes.
    client
        .send(format!("{}\r\n", "x".repeat(70)).repeat(60_000))
        .await;
    client.send(".\r\n").await;
    client.expect(&["451 4.3.2"]).await;
    b1.opened().await;
    assert!(b1.cut().await > 0);
    assert!(client.command("NOOP").await.starts_with("250"));
}

#[tokio::test]
async fn a_home_that_fails_at_the_commit_leaves_no_250() {
    let world = World::start(Limits::default()).await;
    let (mut b1, mut b2) = (world.backend("b1").await, world.backend("b2").await);
    world.directory.add("ann@example.test", &[(1, "b1", 1)]);
    world.directory.add("ben@example.test", &[(2, "b2", 1)]);
    for _ in 0..3 {
        b2.play(Play::Mumble);
    }
    let mut client = Client::connect(world.smtp).await;
    client
        .begin(&["ann@example.test", "ben@example.test"])
        .await;
    client.send("hello\r\n.\r\n").await;
    client.expect(&["451 4.4.2"]).await;
    b1.opened().await;
    b1.committed().await;
    let txn = b2.opened().await.txn;
    b2.committed().await;
    for _ in 0..2 {
        let again = b2.opened().await.txn;
        assert_eq!(again, txn, "asked again, about the same transaction");
        b2.committed().await;
    }
    assert!(b2.saw_nothing_more() && b1.saw_nothing_more());
}

#[tokio::test]
async fn every_outcome_but_kept_is_temporary() {
    let world = World::start(Limits::default()).await;
    let b1 = world.backend("b1").await;
    world.directory.add("ann@example.test", &[(1, "b1", 5)]);
    let behind = Outcome::Moved {
        backend: BackendName::new("b2").unwrap(),
        epoch: Epoch(4),
    };
    let outcomes = [
        (Outcome::Frozen, "451 4.3.2"),
        (Outcome::Unavailable, "451 4.3.2"),
        (Outcome::Full, "452 4.3.1"),
        (Outcome::StaleEpoch { epoch: Epoch(4) }, "451 4.3.2"),
        (behind, "451 4.3.2"),
    ];
    let mut client = Client::connect(world.smtp).await;
    for (outcome, reply) in outcomes {
        b1.play(Play::Answer(outcome));
        client.begin(&["ann@example.test"]).await;
        client.send("hello\r\n.\r\n").await;
        client.expect(&[reply]).await;
    }
}

/// A sibling would hold it, and is not asked: the home would refuse it for ever, and the sender would never hear of it.
#[tokio::test]
async fn what_a_home_never_takes_is_refused_to_the_sender_and_not_held() {
    let too_large = (StatusCode::PAYLOAD_TOO_LARGE, "too_large");
    let malformed = (StatusCode::BAD_REQUEST, "malformed");
    let full = (StatusCode::INSUFFICIENT_STORAGE, "full");
    for ((status, code), reply, is_held) in [
        (too_large, "552 5.3.4", false),
        (malformed, "451 4.3.5", false),
        (full, "250 2.0.0", true),
    ] {
        for is_late in [false, true] {
            let world = World::start(Limits::default()).await;
            let (mut b1, mut b2) = (world.backend("b1").await, world.backend("b2").await);
            world.directory.add("ann@example.test", &[(1, "b1", 1)]);
            world.directory.add("ben@example.test", &[(2, "b2", 1)]);
            b2.holds();
            let mut client = Client::connect(world.smtp).await;
            b1.play(match is_late {
                false => Play::RefuseWith(status, code),
                true => Play::RefuseCommit(status, code),
            });
            client
                .begin(&["ann@example.test", "ben@example.test"])
                .await;
            b1.opened().await;
            b2.opened().await;
            if !is_late {
                b1.cut().await;
            }
            // Before the commit: enough that the refusal is noticed while the body still passes.
            let lines = if is_late { 1 } else { 60_000 };
            client
                .send(format!("{}\r\n", "x".repeat(70)).repeat(lines))
                .await;
            client.send(".\r\n").await;
            client.expect(&[reply]).await;
            if is_late {
                b1.committed().await;
            }
            if is_held {
                let (commit, _) = b2.committed().await;
                let holds = |commit: &DeliverCommit| {
                    let mut all = commit.recipients.iter();
                    all.any(|one| one.hold.as_ref().is_some_and(|hold| hold.only))
                };
                if !holds(&commit) {
                    b2.opened().await;
                    assert!(holds(&b2.committed().await.0));
                }
            } else if is_late {
                let (commit, _) = b2.committed().await;
                assert_eq!(commit.recipients.len(), 1, "{code}");
            } else {
                b2.cut().await;
            }
            assert!(b2.saw_nothing_more(), "{code}");
        }
    }
}

#[tokio::test]
async fn a_body_too_large_to_keep_is_not_sent_again() {
    let world = World::start(Limits {
        retry_body_max_bytes: 1000,
        ..Limits::default()
    })
    .await;
    let (mut b1, mut b2) = (world.backend("b1").await, world.backend("b2").await);
    world.directory.add("ann@example.test", &[(1, "b1", 1)]);
    b1.play(Play::Answer(Outcome::Moved {
        backend: BackendName::new("b2").unwrap(),
        epoch: Epoch(2),
    }));
    let mut client = Client::connect(world.smtp).await;
    client.begin(&["ann@example.test"]).await;
    client
        .send(format!("{}\r\n", "x".repeat(98)).repeat(11))
        .await;
    client.send(".\r\n").await;
    client.expect(&["451 4.3.2"]).await;
    b1.opened().await;
    b1.committed().await;
    assert!(b2.saw_nothing_more());
}

#[tokio::test]
async fn a_home_that_never_answers_the_commit_costs_the_deadline_and_no_more() {
    let world = World::start(Limits {
        commit_timeout_s: 1,
        ..Limits::default()
    })
    .await;
    let b1 = world.backend("b1").await;
    world.directory.add("ann@example.test", &[(1, "b1", 1)]);
    for _ in 0..3 {
        b1.play(Play::Hang);
    }
    let mut client = Client::connect(world.smtp).await;
    client.begin(&["ann@example.test"]).await;
    let dot = Instant::now();
    client.send("hello\r\n.\r\n").await;
    client.expect(&["451 4.4."]).await;
    assert!(
        dot.elapsed() < Duration::from_secs(5),
        "{:?}",
        dot.elapsed()
    );
    assert!(client.command("NOOP").await.starts_with("250"));
}

#[tokio::test]
async fn a_home_that_stalls_is_given_up_and_other_sessions_never_wait_for_it() {
    let world = World::start(Limits {
        stall_timeout_s: 3,
        ..Limits::default()
    })
    .await;
    let (mut b1, mut b2) = (world.backend("b1").await, world.backend("b2").await);
    world.directory.add("ann@example.test", &[(1, "b1", 1)]);
    world.directory.add("ben@example.test", &[(2, "b2", 1)]);
    b2.play(Play::Stall);
    let mut client = Client::connect(world.smtp).await;
    client
        .begin(&["ann@example.test", "ben@example.test"])
        .await;
    b2.opened().await;
    let large = format!("{}\r\n", "x".repeat(70)).repeat(60_000);
    let stalled = tokio::spawn(async move {
        let began = Instant::now();
        client.send(large + ".\r\n").await;
        client.expect(&["451 4.3.2"]).await;
        began.elapsed()
    });
    b1.opened().await;
    b1.data(1).await;
    let mut other = Client::connect(world.smtp).await;
    other.begin(&["ann@example.test"]).await;
    let dot = Instant::now();
    other.send("hello\r\n.\r\n").await;
    other.expect(&["250 2.0.0"]).await;
    assert!(
        dot.elapsed() < Duration::from_secs(3),
        "{:?}",
        dot.elapsed()
    );
    let took = stalled.await.unwrap();
    assert!(took < Duration::from_secs(15), "{took:?}");
}

#[tokio::test]
async fn two_homes_that_stall_cost_no_more_than_one() {
    let stall = Duration::from_secs(3);
    let world = World::start(Limits {
        stall_timeout_s: stall.as_secs(),
        ..Limits::default()
    })
    .await;
    let mut backends = Vec::new();
    for (account, name) in [(1, "b1"), (2, "b2"), (3, "b3")] {
        backends.push(world.backend(name).await);
        let address = format!("{name}@example.test");
        world.directory.add(&address, &[(account, name, 1)]);
    }
    backends[0].play(Play::Stall);
    backends[1].play(Play::Stall);
    let mut client = Client::connect(world.smtp).await;
    client
        .begin(&["b1@example.test", "b2@example.test", "b3@example.test"])
        .await;
    let began = Instant::now();
    client
        .send(format!("{}\r\n", "x".repeat(70)).repeat(30_000))
        .await;
    client.send(".\r\n").await;
    client.expect(&["451 4.3.2"]).await;
    assert!(began.elapsed() < stall * 2, "{:?}", began.elapsed());
}

/// One plain HTTP exchange with the observability listener.
pub(crate) async fn get(world: &World, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(world.metrics).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
