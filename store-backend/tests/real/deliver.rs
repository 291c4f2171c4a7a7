//! The deliver stream.

use bytes::Bytes;
use daemon::clock::now_ms;
use daemon::identity::Role;
use daemon::link::Link;
use directory_api::{AccountId, Epoch};
use store_api::deliver::{
    CommitRecipient, DeliverClient, DeliverCommit, DeliverError, DeliverOpen, DeliverRecipient,
    DeliverReply, Outcome, Prologue,
};
use store_api::{BlobHash, ContentKey, TxnId};

use crate::site::{Backend, PATIENCE, Site, until_listed};

const MESSAGE: &[u8] = b"Subject: by the front-end\r\n\r\nhello\r\n";

async fn site() -> (Site, Backend, Link) {
    let site = Site::new().await;
    for (account, local) in [(1, "ann"), (2, "bob")] {
        site.directory.address(local, &[account]);
        site.directory.home(account, "b1", 1);
    }
    let backend = site.backend("b1").await;
    let link = site.link(Role::MxFrontend, &backend);
    (site, backend, link)
}

pub(crate) fn open(txn: u8, accounts: &[u64]) -> DeliverOpen {
    DeliverOpen {
        txn: TxnId([txn; 16]),
        trace_id: format!("t-{txn}"),
        reverse_path: "sender@elsewhere.test".into(),
        declared_octets: None,
        recipients: accounts
            .iter()
            .map(|account| DeliverRecipient {
                account: AccountId(*account),
                epoch: Epoch(1),
                hold: false,
            })
            .collect(),
    }
}

pub(crate) fn commit(message: &[u8], accounts: &[u64]) -> DeliverCommit {
    let hash = *blake3::hash(message).as_bytes();
    DeliverCommit {
        blob_hash: BlobHash(hash),
        content_key: ContentKey(hash),
        repeats: store_api::deliver::Repeats::Deliver,
        octets: message.len() as u64,
        received_ms: now_ms(),
        recipients: accounts
            .iter()
            .map(|account| CommitRecipient {
                account: AccountId(*account),
                epoch: Epoch(1),
                prologue: Prologue(b"Received: by test\r\n".to_vec()),
                detail: None,
                hold: None,
            })
            .collect(),
    }
}

pub(crate) async fn deliver(
    link: &Link,
    open: &DeliverOpen,
    message: &[u8],
    commit: &DeliverCommit,
) -> Result<DeliverReply, DeliverError> {
    let mut client = DeliverClient::open(link, open).await;
    // A refusal may come before the body was sent, and is told at the commit.
    let _ = client.write(Bytes::copy_from_slice(message)).await;
    client.commit(commit, PATIENCE).await
}

fn outcomes(reply: DeliverReply) -> Vec<Outcome> {
    reply
        .results
        .into_iter()
        .map(|result| result.outcome)
        .collect()
}

#[tokio::test]
async fn a_commit_is_kept_once_for_each_final_recipient() {
    let (_site, backend, link) = site().await;
    let first = deliver(
        &link,
        &open(1, &[1, 2, 3]),
        MESSAGE,
        &commit(MESSAGE, &[1, 2]),
    )
    .await
    .unwrap();
    assert_eq!(
        outcomes(first),
        [Outcome::Committed { uid: 1 }, Outcome::Committed { uid: 1 }]
    );
    let again = deliver(&link, &open(1, &[1, 2]), MESSAGE, &commit(MESSAGE, &[1, 2]))
        .await
        .unwrap();
    assert_eq!(outcomes(again), [Outcome::Duplicate, Outcome::Duplicate]);
    let expected = [b"Received: by test\r\n", MESSAGE].concat();
    for local in ["ann", "bob"] {
        assert_eq!(
            until_listed(&backend, local, 1).await.retrieve(1).await,
            expected
        );
    }
}

#[tokio::test]
async fn a_stream_cut_before_its_commit_leaves_nothing() {
    let (_site, backend, link) = site().await;
    // Large, so that it is on disk and not only in memory when it is cut.
    let large = b"0123456789abcdef\r\n".repeat(40_000);
    for _ in 0..3 {
        let mut client = DeliverClient::open(&link, &open(2, &[1])).await;
        client.write(Bytes::copy_from_slice(&large)).await.unwrap();
        drop(client);
    }
    deliver(&link, &open(3, &[1]), MESSAGE, &commit(MESSAGE, &[1]))
        .await
        .unwrap();
    assert!(
        until_listed(&backend, "ann", 1)
            .await
            .retrieve(1)
            .await
            .ends_with(MESSAGE)
    );
    let began = std::time::Instant::now();
    loop {
        let incoming = std::fs::read_dir(backend.data.join("incoming"));
        let left = incoming.map_or(0, |files| {
            files.flatten().filter(|file| file.path().is_file()).count()
        });
        if left == 0 {
            break;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "{left} files are left of cut streams"
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_commit_that_does_not_fit_its_stream_is_refused_and_nothing_is_kept() {
    let (_site, backend, link) = site().await;
    let refused = |answer: Result<DeliverReply, DeliverError>| match answer {
        Err(DeliverError::Refused(problem)) => problem.code.into_owned(),
        other => panic!("{other:?}"),
    };
    let wrong_hash = DeliverCommit {
        blob_hash: BlobHash([7; 32]),
        ..commit(MESSAGE, &[1])
    };
    assert_eq!(
        refused(deliver(&link, &open(1, &[1]), MESSAGE, &wrong_hash).await),
        "hash_mismatch"
    );
    let wrong_octets = DeliverCommit {
        octets: 1,
        ..commit(MESSAGE, &[1])
    };
    assert_eq!(
        refused(deliver(&link, &open(1, &[1]), MESSAGE, &wrong_octets).await),
        "hash_mismatch"
    );
    let unannounced = deliver(&link, &open(1, &[1]), MESSAGE, &commit(MESSAGE, &[1, 2])).await;
    assert_eq!(refused(unannounced), "malformed");
    let twice = deliver(&link, &open(1, &[1]), MESSAGE, &commit(MESSAGE, &[1, 1])).await;
    assert_eq!(refused(twice), "malformed");
    let nobody = deliver(&link, &open(1, &[]), MESSAGE, &commit(MESSAGE, &[])).await;
    assert_eq!(refused(nobody), "malformed");
    let announced = DeliverOpen {
        declared_octets: Some(1 << 50),
        ..open(1, &[1])
    };
    assert_eq!(
        refused(deliver(&link, &announced, MESSAGE, &commit(MESSAGE, &[1])).await),
        "too_large"
    );
    let long_path = DeliverOpen {
        reverse_path: "x".repeat(1025),
        ..open(1, &[1])
    };
    let long_path = deliver(&link, &long_path, MESSAGE, &commit(MESSAGE, &[1])).await;
    assert_eq!(refused(long_path), "malformed");
    deliver(&link, &open(9, &[1]), MESSAGE, &commit(MESSAGE, &[1]))
        .await
        .unwrap();
    drop(until_listed(&backend, "ann", 1).await);
    drop(until_listed(&backend, "bob", 0).await);
}

#[tokio::test]
async fn only_front_ends_and_siblings_deliver() {
    let (site, backend, _) = site().await;
    let proxy = site.link(Role::PopImapProxy, &backend);
    match deliver(&proxy, &open(1, &[1]), MESSAGE, &commit(MESSAGE, &[1])).await {
        Err(DeliverError::Refused(problem)) => assert_eq!(problem.code, "role_forbidden"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn known_epochs_are_delivered_while_the_directory_is_away_and_health_says_so() {
    let (mut site, backend, link) = site().await;
    site.stop_directory().await;
    let reply = deliver(&link, &open(1, &[1]), MESSAGE, &commit(MESSAGE, &[1]))
        .await
        .unwrap();
    assert_eq!(outcomes(reply), [Outcome::Committed { uid: 1 }]);
    let began = std::time::Instant::now();
    let waiting = format!("directory at {}", site.directory.address);
    while !backend.get("/health").await.unwrap().contains(&waiting) {
        assert!(
            began.elapsed() < PATIENCE,
            "health does not say what it waits for"
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    site.start_directory().await;
    backend.ready().await;
    let metrics = backend.get("/metrics").await.unwrap();
    assert!(
        metrics.contains("# HELP posthouse_store_deliveries_total "),
        "{metrics}"
    );
    assert!(metrics.contains("via=\"deliver\""), "{metrics}");
}
