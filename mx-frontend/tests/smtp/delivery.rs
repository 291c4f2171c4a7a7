//! What is delivered, where, and how often.

use directory_api::{AccountId, BackendName, Epoch};
use mx_frontend::Limits;
use store_api::deliver::Outcome;

use crate::client::Client;
use crate::played::{Play, World};

fn accounts(commit: &store_api::deliver::DeliverCommit) -> Vec<u64> {
    commit.recipients.iter().map(|one| one.account.0).collect()
}

#[tokio::test]
async fn one_transaction_is_streamed_to_both_homes_as_it_arrives_and_answered_after_both_commits() {
    let world = World::start(Limits::default()).await;
    let (mut b1, mut b2) = (world.backend("b1").await, world.backend("b2").await);
    world.directory.add("ann@example.test", &[(1, "b1", 3)]);
    world.directory.add("ben@example.test", &[(2, "b2", 7)]);
    let mut client = Client::connect(world.smtp).await;
    client
        .begin(&["ann@example.test", "Ben@Example.TEST"])
        .await;

    let line = format!("{}\r\n", "x".repeat(70));
    let half = line.repeat(2000);
    client.send(&half).await;
    let (one, two) = (b1.opened().await, b2.opened().await);
    assert_eq!(one.txn, two.txn);
    assert_eq!(one.reverse_path, "bob@sender.test");
    assert_eq!(
        (one.recipients[0].account, one.recipients[0].epoch),
        (AccountId(1), Epoch(3))
    );
    assert_eq!(
        (two.recipients[0].account, two.recipients[0].epoch),
        (AccountId(2), Epoch(7))
    );
    b1.data(half.len() / 2).await;
    b2.data(half.len() / 2).await;

    client.send("..stuffed\r\n.\r\n").await;
    let reply = client.reply().await;
    assert!(
        reply.starts_with("250 2.0.0") && reply.contains(&one.trace_id),
        "{reply}"
    );
    let whole = format!("{half}.stuffed\r\n");
    for (backend, account, address) in [
        (&mut b1, 1, "ann@example.test"),
        (&mut b2, 2, "Ben@Example.TEST"),
    ] {
        let (commit, body) = backend.committed().await;
        assert_eq!(body, whole.as_bytes());
        assert_eq!(
            commit.blob_hash.0,
            *blake3::hash(whole.as_bytes()).as_bytes()
        );
        assert_eq!(commit.content_key.0, commit.blob_hash.0);
        assert_eq!(accounts(&commit), [account]);
        let prologue = String::from_utf8(commit.recipients[0].prologue.0.clone()).unwrap();
        assert!(
            prologue.starts_with("Return-Path: <bob@sender.test>\r\n"),
            "{prologue}"
        );
        let delivered = prologue.to_lowercase();
        assert!(
            delivered.contains(&format!("\r\ndelivered-to: {}\r\n", address.to_lowercase())),
            "{prologue}"
        );
        let received = prologue
            .split("Received: ")
            .nth(1)
            .unwrap()
            .replace("\r\n\t", " ");
        for word in [
            "from client.test",
            "by mx.test",
            "with ESMTP",
            one.trace_id.as_str(),
        ] {
            assert!(received.contains(word), "{word}: {prologue}");
        }
    }
    assert!(client.command("QUIT").await.starts_with("221"));
}

#[tokio::test]
async fn an_account_reached_by_two_recipients_gets_the_message_once() {
    let world = World::start(Limits::default()).await;
    let mut b1 = world.backend("b1").await;
    world.directory.add("ann@example.test", &[(1, "b1", 1)]);
    world
        .directory
        .add("all@example.test", &[(1, "b1", 1), (2, "b1", 1)]);
    let mut client = Client::connect(world.smtp).await;
    client
        .begin(&["ann@example.test", "all@example.test"])
        .await;
    client.send("hello\r\n.\r\n").await;
    client.expect(&["250 2.0.0"]).await;
    assert_eq!(b1.opened().await.recipients.len(), 2);
    let (commit, body) = b1.committed().await;
    assert_eq!(
        (accounts(&commit), body.as_slice()),
        (vec![1, 2], b"hello\r\n".as_slice())
    );
    assert!(b1.saw_nothing_more());
}

#[tokio::test]
async fn postmaster_without_a_domain_is_ours_and_an_empty_message_is_one() {
    let world = World::start(Limits::default()).await;
    let mut b1 = world.backend("b1").await;
    world
        .directory
        .add("postmaster@example.test", &[(9, "b1", 1)]);
    let mut client = Client::connect(world.smtp).await;
    client.send("HELO old\r\nMAIL FROM:<>\r\n").await;
    client.expect(&["250", "250"]).await;
    assert!(
        client
            .command("RCPT TO:<Postmaster>")
            .await
            .starts_with("250")
    );
    assert!(client.command("DATA").await.starts_with("354"));
    client.send(".\r\n").await;
    client.expect(&["250 2.0.0"]).await;
    assert_eq!(b1.opened().await.reverse_path, "");
    let (commit, body) = b1.committed().await;
    assert_eq!((commit.octets, body.len()), (0, 0));
    let prologue = String::from_utf8(commit.recipients[0].prologue.0.clone()).unwrap();
    assert!(prologue.starts_with("Return-Path: <>\r\n"), "{prologue}");
}

#[tokio::test]
async fn every_domain_of_ours_has_a_postmaster() {
    let world = World::start(Limits::default()).await;
    let mut b1 = world.backend("b1").await;
    world
        .directory
        .add("postmaster@example.test", &[(9, "b1", 1)]);
    let mut client = Client::connect(world.smtp).await;
    client.begin(&["PostMaster@second.test"]).await;
    client.send("x\r\n.\r\n").await;
    client.expect(&["250 2.0.0"]).await;
    assert_eq!(b1.opened().await.recipients[0].account, AccountId(9));
    client.command("MAIL FROM:<>").await;
    let said = client.command("RCPT TO:<postmaster@elsewhere.test>").await;
    assert!(said.starts_with("550 5.7.1"), "{said}");
}

#[tokio::test]
async fn a_postmaster_who_is_not_set_up_is_never_unknown() {
    let world = World::start(Limits::default()).await;
    world.directory.add("ann@example.test", &[(1, "b1", 1)]);
    let mut client = Client::connect(world.smtp).await;
    client.send("HELO old\r\nMAIL FROM:<>\r\n").await;
    client.expect(&["250", "250"]).await;
    for postmaster in [
        "Postmaster",
        "postmaster@example.test",
        "PostMaster@EXAMPLE.test",
        "postmaster@second.test",
    ] {
        let said = client.command(&format!("RCPT TO:<{postmaster}>")).await;
        assert!(said.starts_with("451 4.3.5"), "{postmaster}: {said}");
    }
    let said = client.command("RCPT TO:<nobody@example.test>").await;
    assert!(said.starts_with("550 5.1.1"), "{said}");
}

#[tokio::test]
async fn a_duplicate_is_as_good_as_a_commit() {
    let world = World::start(Limits::default()).await;
    let b1 = world.backend("b1").await;
    world.directory.add("ann@example.test", &[(1, "b1", 1)]);
    b1.play(Play::Answer(Outcome::Duplicate));
    let mut client = Client::connect(world.smtp).await;
    client.begin(&["ann@example.test"]).await;
    client.send("hello\r\n.\r\n").await;
    client.expect(&["250 2.0.0"]).await;
}

#[tokio::test]
async fn a_moved_home_gets_the_same_transaction_and_the_sender_notices_nothing() {
    let world = World::start(Limits::default()).await;
    let (mut b1, mut b2) = (world.backend("b1").await, world.backend("b2").await);
    world.directory.add("ann@example.test", &[(1, "b1", 1)]);
    world.directory.add("ben@example.test", &[(2, "b1", 1)]);
    let moved = Outcome::Moved {
        backend: BackendName::new("b2").unwrap(),
        epoch: Epoch(2),
    };
    b1.play(Play::Answer(moved));
    let mut client = Client::connect(world.smtp).await;
    client.begin(&["ann@example.test"]).await;
    client.send("hello\r\n.\r\n").await;
    client.expect(&["250 2.0.0"]).await;
    let (first, second) = (b1.opened().await, b2.opened().await);
    assert_eq!((first.txn, &first.trace_id), (second.txn, &second.trace_id));
    assert_eq!(second.recipients[0].epoch, Epoch(2));
    let (one, two) = (b1.committed().await, b2.committed().await);
    assert_eq!(one.1, two.1);
    assert_eq!(one.0.blob_hash, two.0.blob_hash);
    assert_eq!(one.0.recipients[0].prologue, two.0.recipients[0].prologue);
    assert_eq!(two.0.recipients[0].epoch, Epoch(2));
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_with_the_same_transaction() {
    let world = World::start(Limits::default()).await;
    let mut b1 = world.backend("b1").await;
    world.directory.add("ann@example.test", &[(1, "b1", 1)]);
    b1.play(Play::Mumble);
    b1.play(Play::Answer(Outcome::Duplicate));
    let mut client = Client::connect(world.smtp).await;
    client.begin(&["ann@example.test"]).await;
    client.send("hello\r\n.\r\n").await;
    client.expect(&["250 2.0.0"]).await;
    let first = b1.opened().await;
    b1.committed().await;
    assert_eq!(b1.opened().await.txn, first.txn);
}

#[tokio::test]
async fn two_transactions_of_one_connection_are_two() {
    let world = World::start(Limits::default()).await;
    let mut b1 = world.backend("b1").await;
    world.directory.add("ann@example.test", &[(1, "b1", 1)]);
    let mut client = Client::connect(world.smtp).await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        client.begin(&["ann@example.test"]).await;
        client.send("the same\r\n.\r\n").await;
        client.expect(&["250 2.0.0"]).await;
        seen.push(b1.opened().await.txn);
        b1.committed().await;
    }
    assert_ne!(seen[0], seen[1]);
}
