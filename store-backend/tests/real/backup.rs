//! What a backup reads, who may read it, and what a restore puts back.

use std::collections::BTreeMap;

use bytes::Bytes;
use daemon::identity::Role;
use directory_api::{AccountId, Epoch};
use store_api::backup::{
    Append, BackupClient, Begin, Blob, Finish, HASHES_MAX, Missing, Put, Snapshot, SnapshotEnd,
};
use store_api::transfer::{AccountState, SummaryQuery, TransferError};
use store_api::{BlobHash, EmailId, MoveId};
use store_backend::volume::{Item, ItemContent, MessageTold};

use crate::site::{Backend, Dialogue, Site, until_listed};

const ANN: AccountId = AccountId(1);

/// A back-end whose settings name the operator that the tests are.
async fn backend(site: &Site, name: &str) -> Backend {
    let mut backend = site.backend(name).await;
    backend.terminate().await;
    backend.configure(|config| {
        config.replacen("[identity]", "backup_operators = [\"t1\"]\n[identity]", 1)
    });
    backend.restart().await;
    backend
}

fn operator(site: &Site, backend: &Backend) -> BackupClient {
    BackupClient::new(site.link(Role::Operator, backend))
}

async fn items(
    client: &BackupClient,
    known: Option<store_api::SetHash>,
) -> (Vec<Bytes>, SnapshotEnd) {
    let request = Snapshot {
        account: ANN,
        known,
    };
    let mut stream = client.snapshot(&request).await.unwrap();
    let mut items = Vec::new();
    while let Some(item) = stream.next().await.unwrap() {
        items.push(item);
    }
    (items, stream.end().unwrap())
}

fn messages(items: &[Bytes]) -> Vec<MessageTold> {
    let contents = items.iter().filter_map(|item| Item(item.clone()).content());
    contents
        .filter_map(|content| match content {
            ItemContent::Message(message) => Some(*message),
            _ => None,
        })
        .collect()
}

fn blob_of(message: &MessageTold) -> Blob {
    Blob {
        account: ANN,
        mailbox: message.named.mailbox.0,
        uid: message.named.uid,
        hash: BlobHash(message.named.hash),
    }
}

async fn octets(client: &BackupClient, blob: &Blob) -> Result<Vec<u8>, TransferError> {
    let mut stream = client.blob(blob).await?;
    let mut octets = Vec::new();
    while let Some(piece) = stream.next().await? {
        octets.extend_from_slice(&piece);
    }
    Ok(octets)
}

fn code<T: std::fmt::Debug>(outcome: Result<T, TransferError>) -> String {
    match outcome {
        Err(TransferError::Refused(problem)) => problem.code.into_owned(),
        other => panic!("not refused: {other:?}"),
    }
}

/// Gives octets in two pieces.
fn pieces(octets: &[u8]) -> impl AsyncFnMut() -> std::io::Result<Option<Bytes>> {
    let (first, second) = octets.split_at(octets.len() / 2);
    let mut left = vec![
        Bytes::copy_from_slice(second),
        Bytes::copy_from_slice(first),
    ];
    async move || Ok(left.pop())
}

#[tokio::test]
async fn only_an_operator_whom_the_settings_name_reads_mail() {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    site.directory.home(2, "b2", 1);
    let (named, other) = (backend(&site, "b1").await, site.backend("b2").await);
    let mut lmtp = Dialogue::lmtp(&named).await;
    assert!(lmtp.deliver(&["ann"], b"Subject: hers\r\n\r\n").await[0].starts_with("250 "));
    drop(until_listed(&named, "ann", 1).await);
    let snapshot = Snapshot {
        account: ANN,
        known: None,
    };
    for role in [
        Role::Migrator,
        Role::StoreBackend,
        Role::MxFrontend,
        Role::PopImapProxy,
    ] {
        let client = BackupClient::new(site.link(role, &named));
        assert_eq!(code(client.snapshot(&snapshot).await), "role_forbidden");
    }
    let unnamed = operator(&site, &other);
    assert_eq!(
        code(unnamed.snapshot(&snapshot).await),
        "operator_not_named"
    );
    let client = operator(&site, &named);
    let (read, end) = items(&client, None).await;
    assert_eq!((read.len() as u64, end.unchanged), (end.items, false));
    let (none, again) = items(&client, Some(end.set_hash)).await;
    assert_eq!(
        (none.len(), again),
        (
            0,
            SnapshotEnd {
                unchanged: true,
                ..end
            }
        )
    );
    let message = &messages(&read)[0];
    let body = octets(&client, &blob_of(message)).await.unwrap();
    assert_eq!(body, b"Subject: hers\r\n\r\n");
    assert!(message.prologue.starts_with(b"Return-Path:"));
    // A hash alone opens nothing.
    let foreign = Blob {
        uid: 9,
        ..blob_of(message)
    };
    assert_eq!(code(client.blob(&foreign).await), "not_found");
    assert_eq!(
        code(unnamed.blob(&blob_of(message)).await),
        "operator_not_named"
    );
    let begin = Begin {
        account: ANN,
        restore_id: MoveId::from_octets([1; 16]),
    };
    assert_eq!(code(unnamed.begin(&begin).await), "operator_not_named");
    // Nor is an account put over one in use.
    assert_eq!(code(client.begin(&begin).await), "takes_mail");
    let put = Put {
        account: ANN,
        hash: BlobHash([0; 32]),
    };
    assert_eq!(code(client.put(&put, pieces(b"xy")).await), "takes_mail");
}

#[tokio::test]
async fn a_message_is_put_back_as_a_new_one_with_all_it_had() {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    let backend = backend(&site, "b1").await;
    let mut lmtp = Dialogue::lmtp(&backend).await;
    assert!(lmtp.deliver(&["ann"], b"Subject: kept\r\n\r\nx\r\n").await[0].starts_with("250 "));
    let mut pop3 = until_listed(&backend, "ann", 1).await;
    let whole = pop3.retrieve(1).await;
    pop3.ask("DELE 1", "+OK").await;
    let client = operator(&site, &backend);
    let (read, _) = items(&client, None).await;
    let message = &messages(&read)[0];
    let body = octets(&client, &blob_of(message)).await.unwrap();
    pop3.ask("QUIT", "+OK").await;
    let octets = [&message.prologue[..], &body].concat();
    let request = Append {
        account: ANN,
        epoch: Epoch(1),
        mailbox: "Found/Again".into(),
        flags: 1,
        keywords: vec!["$Label".into()],
        internal_date_ms: message.internal_date_ms,
        identity: EmailId(message.identity),
        hash: BlobHash(*blake3::hash(&octets).as_bytes()),
    };
    let wrong = Append {
        hash: BlobHash([0; 32]),
        ..request.clone()
    };
    assert_eq!(
        code(client.append(&wrong, pieces(&octets)).await),
        "malformed"
    );
    let stale = Append {
        epoch: Epoch(0),
        ..request.clone()
    };
    assert_eq!(
        code(client.append(&stale, pieces(&octets)).await),
        "stale_epoch"
    );
    // One that its home has nothing of begins with what comes back.
    let lost = Append {
        account: AccountId(2),
        ..request.clone()
    };
    assert_eq!(client.append(&lost, pieces(&octets)).await.unwrap().uid, 1);
    let first = client.append(&request, pieces(&octets)).await.unwrap();
    let second = client.append(&request, pieces(&octets)).await.unwrap();
    assert_eq!((first.uid, second.uid), (1, 2));
    let inbox = Append {
        mailbox: "inbox".into(),
        ..request
    };
    let back = client.append(&inbox, pieces(&octets)).await.unwrap();
    assert_eq!(back.uid, 2, "UIDs are not given again");
    let mut pop3 = until_listed(&backend, "ann", 1).await;
    assert_eq!(pop3.retrieve(1).await, whole);
    let (read, _) = items(&client, None).await;
    for now in messages(&read) {
        assert_eq!(now.identity, message.identity);
        assert_eq!(now.internal_date_ms, message.internal_date_ms);
        assert_eq!((now.flags.0, now.keywords.len()), (1, 1));
    }
    assert_eq!(messages(&read).len(), 3);
}

#[tokio::test]
async fn an_account_is_restored_whole_into_a_new_volume_and_skips_ahead_when_that_is_adopted() {
    let site = Site::new().await;
    site.directory.address("ann", &[1]);
    site.directory.home(1, "b1", 1);
    site.directory.address("bob", &[2]);
    site.directory.home(2, "b1", 1);
    let mut backend = backend(&site, "b1").await;
    let mut lmtp = Dialogue::lmtp(&backend).await;
    let large = b"0123456789abcdef\r\n".repeat(30_000);
    for body in [
        &b"Subject: one\r\n\r\n"[..],
        &large,
        b"Subject: one\r\n\r\n",
    ] {
        assert!(lmtp.deliver(&["ann"], body).await[0].starts_with("250 "));
    }
    let mut pop3 = until_listed(&backend, "ann", 3).await;
    let client = operator(&site, &backend);
    let (read, end) = items(&client, None).await;
    let mut blobs = BTreeMap::new();
    for message in messages(&read) {
        let body = octets(&client, &blob_of(&message)).await.unwrap();
        assert_eq!(blake3::hash(&body).as_bytes(), &message.named.hash);
        blobs.insert(message.named.hash, body);
    }
    // Lost with the volume.
    assert!(lmtp.deliver(&["ann"], b"Subject: lost\r\n\r\n").await[0].starts_with("250 "));
    let mut listed = Vec::new();
    for number in 1..=3 {
        listed.push(pop3.ask(&format!("UIDL {number}"), "+OK").await);
    }
    pop3.ask("QUIT", "+OK").await;
    let mut pop3 = until_listed(&backend, "ann", 4).await;
    let lost = pop3.ask("UIDL 4", "+OK").await;
    backend.kill();
    std::fs::remove_dir_all(&backend.data).unwrap();
    backend.start();
    backend.fails("older than the directory knows").await;

    let client = operator(&site, &backend);
    let begin = Begin {
        account: ANN,
        restore_id: MoveId::from_octets([1; 16]),
    };
    client.begin(&begin).await.unwrap();
    assert_eq!(code(client.items(&begin, &read).await), "missing_blobs");
    let missing = Missing {
        account: ANN,
        hashes: blobs.keys().copied().map(BlobHash).collect(),
    };
    assert_eq!(client.missing(&missing).await.unwrap(), missing);
    for (count, allowed) in [
        (HASHES_MAX - 1, true),
        (HASHES_MAX, true),
        (HASHES_MAX + 1, false),
    ] {
        let many = Missing {
            account: ANN,
            hashes: vec![BlobHash([1; 32]); count],
        };
        assert_eq!(client.missing(&many).await.is_ok(), allowed, "{count}");
    }
    for (hash, octets) in &blobs {
        let put = Put {
            account: ANN,
            hash: BlobHash(*hash),
        };
        client.put(&put, pieces(octets)).await.unwrap();
    }
    assert_eq!(client.missing(&missing).await.unwrap().hashes, []);
    let finish = Finish {
        account: ANN,
        restore_id: begin.restore_id,
        epoch: Epoch(1),
        set_hash: end.set_hash,
    };
    assert_eq!(code(client.finish(&finish).await), "different");
    client.items(&begin, &read).await.unwrap();
    client.finish(&finish).await.unwrap();
    client.finish(&finish).await.unwrap();
    let query = SummaryQuery { account: ANN };
    let summary = client.summary(&query).await.unwrap();
    assert_eq!(
        (summary.state, summary.set_hash),
        (AccountState::Active, Some(end.set_hash))
    );
    // Of another one nothing comes but its beginning; a third one is not there yet, which is no account without mail.
    let broken_off = Begin {
        account: AccountId(2),
        restore_id: begin.restore_id,
    };
    client.begin(&broken_off).await.unwrap();
    let other = Snapshot {
        account: AccountId(3),
        known: None,
    };
    assert_eq!(code(client.snapshot(&other).await), "unavailable");
    // It is read, and takes no mail before it is adopted.
    drop(until_listed(&backend, "ann", 3).await);
    let mut lmtp = Dialogue::lmtp(&backend).await;
    assert!(lmtp.deliver(&["ann"], b"Subject: new\r\n\r\n").await[0].starts_with("451 "));
    site.directory.adopt();
    backend.ready().await;
    let mut lmtp = Dialogue::lmtp(&backend).await;
    assert!(lmtp.deliver(&["ann"], b"Subject: new\r\n\r\n").await[0].starts_with("250 "));
    let mut pop3 = until_listed(&backend, "ann", 4).await;
    for (number, listed) in (1..).zip(&listed) {
        assert_eq!(pop3.ask(&format!("UIDL {number}"), "+OK").await, *listed);
    }
    assert_ne!(pop3.ask("UIDL 4", "+OK").await, lost);
    assert_eq!(code(client.begin(&begin).await), "takes_mail");
    assert!(lmtp.deliver(&["bob"], b"Subject: new\r\n\r\n").await[0].starts_with("250 "));
    drop(until_listed(&backend, "bob", 1).await);
}
