use super::super::error::IndexError;
use super::super::record::Record;
use super::super::sequencer::Batch;
use super::*;

const BODY: &[u8] = b"Subject: hello\r\n\r\nbody\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn one_message_to_two_accounts_is_one_inode() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    let outcomes = deliver(&volume, 1, BODY, &[ANN, BOB]).await;
    assert_eq!(outcomes.iter().map(uid).collect::<Vec<_>>(), [1, 1]);
    settle(&volume);
    let (ann, links) = inode(&link_path(dir.path(), ANN, 1));
    assert_eq!(inode(&link_path(dir.path(), BOB, 1)), (ann, links));
    assert_eq!(links, 3, "the blob's own name and two messages");
    for account in [ANN, BOB] {
        assert_eq!(text(&volume, account, 1).await, expected(account, BODY));
    }
    // The same body tomorrow is the same inode.
    deliver(&volume, 2, BODY, &[ANN]).await;
    settle(&volume);
    assert_eq!(inode(&link_path(dir.path(), ANN, 2)), (ann, 4));
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_inode_is_followed_by_a_new_one() {
    let dir = TempDir::new().unwrap();
    let volume = Volume::open(
        VolumeConfig {
            links_max: 2,
            ..config(dir.path())
        },
        Arc::new(RealDisk),
    )
    .unwrap();
    let accounts: Vec<_> = (1..=5).map(AccountId).collect();
    deliver(&volume, 1, BODY, &accounts).await;
    settle(&volume);
    let found: Vec<_> = accounts
        .iter()
        .map(|account| inode(&link_path(dir.path(), *account, 1)))
        .collect();
    assert_eq!(
        found.iter().map(|(_, links)| *links).collect::<Vec<_>>(),
        [3, 3, 3, 3, 2]
    );
    assert!(found[0].0 != found[2].0 && found[2].0 != found[4].0);
    for account in accounts {
        assert_eq!(text(&volume, account, 1).await, expected(account, BODY));
    }
    volume.close();
}

/// With the limit that is used, on the file system of the temporary folder: ext4 refuses the 65,001st name.
#[tokio::test(flavor = "multi_thread")]
async fn the_message_after_sixty_thousand_of_one_inode_begins_a_new_one() {
    const ALL: u32 = 60_002;
    let dir = TempDir::new().unwrap();
    let config = VolumeConfig {
        journal_segment_size_bytes: 16 << 20,
        checkpoint_bytes: 64 << 20,
        ..config(dir.path())
    };
    assert_eq!(config.links_max, 60_000);
    let volume = Volume::open(config, Arc::new(RealDisk)).unwrap();
    let body = b"Subject: to everybody\r\n\r\n";
    deliver(&volume, 1, body, &[ANN]).await;
    let inbox = MailboxId::INBOX;
    let mut count = 1;
    while count < ALL {
        let more = count.min(ALL - count);
        let uids = (1..=more).collect();
        let copied = volume.copy_messages(ANN, E1, inbox, uids, inbox).await;
        assert_eq!(copied.unwrap().uids.len(), more as usize);
        count += more;
    }
    // Until then whoever has the octets brings them.
    settle_checkpoint(&volume);
    deliver(&volume, 2, body, &[BOB]).await;
    settle(&volume);
    // Their own names, 60,000 messages, and the rest.
    let first = inode(&link_path(dir.path(), ANN, 1));
    let second = inode(&link_path(dir.path(), ANN, ALL));
    assert_eq!(first.1, 60_001);
    assert_eq!(second.1, u64::from(ALL) - 60_000 + 2);
    assert_eq!(inode(&link_path(dir.path(), ANN, 60_000)), first);
    assert_eq!(inode(&link_path(dir.path(), ANN, 60_001)), second);
    assert_eq!(inode(&link_path(dir.path(), BOB, 1)), second);
    for uid in [1, 60_000, 60_001, ALL] {
        assert!(text(&volume, ANN, uid).await.ends_with(body));
    }
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_transaction_is_a_duplicate_also_in_flight_and_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    let twice = deliver(&volume, 1, BODY, &[ANN, ANN]).await;
    assert_eq!((uid(&twice[0]), &twice[1]), (1, &Outcome::Duplicate));
    let mut tasks = Vec::new();
    for _ in 0..20 {
        let volume = volume.clone();
        tasks.push(tokio::spawn(async move {
            deliver(&volume, 2, BODY, &[ANN]).await.remove(0)
        }));
    }
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.push(task.await.unwrap());
    }
    assert_eq!(
        outcomes
            .iter()
            .filter(|outcome| matches!(outcome, Outcome::Committed { .. }))
            .count(),
        1
    );
    assert_eq!(
        outcomes
            .iter()
            .filter(|outcome| **outcome == Outcome::Duplicate)
            .count(),
        19
    );
    volume.close();
    drop(volume);
    let volume = open(&dir);
    for number in [1, 2] {
        assert_eq!(
            deliver(&volume, number, BODY, &[ANN]).await,
            [Outcome::Duplicate]
        );
    }
    assert_eq!(uid(&deliver(&volume, 3, BODY, &[ANN]).await[0]), 3);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_is_not_the_accounts_is_refused_unless_the_account_is_empty() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    let at = |epoch| {
        vec![Recipient {
            epoch: Epoch(epoch),
            ..to(ANN)
        }]
    };
    volume.ensure_account(ANN, Epoch(2)).await.unwrap();
    let stale = |ours| [Outcome::StaleEpoch { ours: Epoch(ours) }];
    assert_eq!(deliver_to(&volume, 1, BODY, at(1)).await, stale(2));
    assert_eq!(uid(&deliver_to(&volume, 2, BODY, at(3)).await[0]), 1);
    assert_eq!(deliver_to(&volume, 3, BODY, at(2)).await, stale(3));
    assert_eq!(deliver_to(&volume, 4, BODY, at(4)).await, stale(3));
    let nowhere = vec![Recipient {
        mailbox: MailboxId(9),
        ..to(BOB)
    }];
    assert_eq!(
        deliver_to(&volume, 5, BODY, nowhere).await,
        [Outcome::NoMailbox]
    );
    assert_eq!(volume.account(BOB).await.unwrap(), None);
    assert_eq!(
        deliver(&volume, 6, BODY, &[AccountId(1 << 40)]).await,
        [Outcome::NoAccount]
    );
    assert_eq!(volume.status().account_count, 1);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_goes_to_a_file_and_not_to_the_journal() {
    let dir = TempDir::new().unwrap();
    // Segments of 2 MiB: the journal could not hold it.
    let volume = open(&dir);
    let body: Vec<u8> = (0..3 << 20).map(|i: u32| (i % 251) as u8).collect();
    let edge = &body[..BLOB_INLINE_MAX_BYTES];
    deliver(&volume, 1, &body, &[ANN, BOB]).await;
    deliver(&volume, 2, &body[..=BLOB_INLINE_MAX_BYTES], &[ANN]).await;
    deliver(&volume, 3, edge, &[ANN]).await;
    assert!(volume.status().unreleased_bytes < 1 << 20);
    // Read at once, wherever it is by now.
    while volume.messages(ANN, MailboxId::INBOX).await.unwrap().len() < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(text(&volume, ANN, 1).await, expected(ANN, &body));
    settle_checkpoint(&volume);
    assert_eq!(text(&volume, BOB, 1).await, expected(BOB, &body));
    assert_eq!(
        text(&volume, ANN, 2).await,
        expected(ANN, &body[..=BLOB_INLINE_MAX_BYTES])
    );
    assert_eq!(text(&volume, ANN, 3).await, expected(ANN, edge));
    assert_eq!(inode(&link_path(dir.path(), ANN, 1)).1, 3);
    // Unused bodies leave nothing: a writer, a finished one, and one whose octets were known.
    let mut unused = volume.begin_blob();
    unused.write(&body).await.unwrap();
    assert_eq!(files_below(&dir.path().join("incoming")).len(), 1);
    drop(unused);
    drop(blob(&volume, &body).await);
    deliver(&volume, 4, &body, &[ANN]).await;
    settle_checkpoint(&volume);
    assert_eq!(files_below(&dir.path().join("incoming")), NO_FILES);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_recipients_with_long_prologues_are_several_records() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    let recipients: Vec<_> = (1..=RECIPIENTS_MAX as u64)
        .map(|number| Recipient {
            prologue: vec![b'x'; 4000],
            ..to(AccountId(number))
        })
        .collect();
    let outcomes = deliver_to(&volume, 1, BODY, recipients.clone()).await;
    assert!(outcomes.iter().all(|outcome| uid(outcome) == 1));
    let too_many = [recipients, vec![to(BOB)]].concat();
    assert!(
        deliver_to(&volume, 2, BODY, too_many)
            .await
            .iter()
            .all(|outcome| *outcome == Outcome::Full)
    );
    let long = |octets| {
        vec![Recipient {
            prologue: vec![b'x'; octets],
            ..to(BOB)
        }]
    };
    assert_eq!(
        deliver_to(&volume, 3, BODY, long(PROLOGUE_MAX_BYTES + 1)).await,
        [Outcome::Full]
    );
    assert_eq!(
        uid(&deliver_to(&volume, 4, BODY, long(PROLOGUE_MAX_BYTES)).await[0]),
        1
    );
    settle(&volume);
    assert_eq!(inode(&link_path(dir.path(), AccountId(1), 1)).1, 1002);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn journal_segments_are_released_and_used_again() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    for number in 0..200_u64 {
        let body = [number.to_le_bytes().as_slice(), &vec![b'y'; 60_000]].concat();
        assert!(matches!(
            deliver(&volume, number, &body, &[ANN]).await[0],
            Outcome::Committed { .. }
        ));
    }
    settle(&volume);
    let segments = files_below(&dir.path().join("journal"));
    let bytes: u64 = segments
        .iter()
        .map(|path| std::fs::metadata(path).unwrap().len())
        .sum();
    assert!(bytes <= 16 << 20, "12 MB went through it: {segments:?}");
    for uid in [1, 100, 200] {
        assert_eq!(
            text(&volume, ANN, uid).await.len(),
            60_008 + expected(ANN, b"").len()
        );
    }
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inode_that_fills_up_in_flight_is_not_dropped() {
    let dir = TempDir::new().unwrap();
    let one_link = VolumeConfig {
        links_max: 1,
        expunge_grace: Duration::from_secs(3600),
        ..config(dir.path())
    };
    let volume = Volume::open(one_link, Arc::new(RealDisk)).unwrap();
    deliver(&volume, 1, BODY, &[ANN]).await;
    volume
        .expunge(ANN, E1, MailboxId::INBOX, vec![1])
        .await
        .unwrap();
    // The grace period ends while a delivery fills the old inode again and begins a new one.
    let finished = blob(&volume, BODY).await;
    let shared = volume.inner.shared();
    let mut sequencer = sequencer(&volume, 1);
    let delivery = Delivery {
        txn: txn(2),
        sender: Vec::new(),
        content_key: [0; 32],
        repeats: Repeats::Deliver,
        blob: finished,
        trace: String::new(),
        received_ms: 0,
        recipients: vec![to(ANN), to(BOB)],
    };
    let dropped = shared
        .index
        .read(|txn| {
            let mut batch = Batch::new(txn, i64::MAX, shared.applied().next(), false);
            sequencer.decide(&mut batch, None, Command::Deliver(delivery))?;
            sequencer.drop_unlinked(&mut batch)?;
            Ok::<_, IndexError>(drops(&batch))
        })
        .unwrap();
    assert_eq!(dropped, 0, "the first message is linked to it");
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_inode_that_lost_its_links_is_dropped_once() {
    let dir = TempDir::new().unwrap();
    let one_link = VolumeConfig {
        links_max: 1,
        expunge_grace: Duration::from_secs(3600),
        ..config(dir.path())
    };
    let volume = Volume::open(one_link, Arc::new(RealDisk)).unwrap();
    for number in 1..=2 {
        deliver(&volume, number, BODY, &[ANN]).await;
    }
    volume
        .expunge(ANN, E1, MailboxId::INBOX, vec![1])
        .await
        .unwrap();
    let shared = volume.inner.shared();
    shared.settled_all().await.unwrap();
    let mut sequencer = sequencer(&volume, 1);
    let dropped = shared
        .index
        .read(|txn| {
            let mut batch = Batch::new(txn, i64::MAX, shared.applied().next(), false);
            // The second time the first is not applied yet.
            sequencer.drop_unlinked(&mut batch)?;
            sequencer.drop_unlinked(&mut batch)?;
            Ok::<_, IndexError>(drops(&batch))
        })
        .unwrap();
    assert_eq!(dropped, 1);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_a_command_will_name_is_not_dropped() {
    let dir = TempDir::new().unwrap();
    let keeps = VolumeConfig {
        expunge_grace: Duration::from_secs(3600),
        ..config(dir.path())
    };
    let volume = Volume::open(keeps, Arc::new(RealDisk)).unwrap();
    deliver(&volume, 1, BODY, &[ANN]).await;
    let held = [blob(&volume, BODY).await, blob(&volume, BODY).await];
    let [first, second] = held.map(|blob| volume.put_blob(blob));
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    volume
        .expunge(ANN, E1, MailboxId::INBOX, vec![1])
        .await
        .unwrap();
    let shared = volume.inner.shared();
    shared.settled_all().await.unwrap();
    // The grace period is over.
    let dropped = || {
        let mut sequencer = sequencer(&volume, 100);
        let batch = shared.index.read(|txn| {
            let mut batch = Batch::new(txn, i64::MAX, shared.applied().next(), false);
            sequencer.drop_unlinked(&mut batch)?;
            Ok::<_, IndexError>(drops(&batch))
        });
        batch.unwrap()
    };
    assert_eq!(dropped(), 0);
    drop(first);
    assert_eq!(dropped(), 0, "another one holds it still");
    drop(second);
    assert_eq!(dropped(), 1);
    volume.close();
}

fn drops(batch: &Batch<'_>) -> usize {
    let is_drop = |record: &&Record| matches!(record, Record::Drop(_));
    batch.records.iter().filter(is_drop).count()
}
