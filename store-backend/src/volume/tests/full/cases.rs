//! Single cases of disks that are full or fail, where the order of what happens matters.

use super::super::super::mend::{self, Mend, Mended};
use super::super::super::recovery::Failed;
use super::super::super::space::Shortage;
use super::*;

/// One message with a body of its own file, to three accounts that each get a record, on a disk that writes elsewhere what
/// is overwritten, and is full.
async fn refused_half_written(disk: &FaultDisk, root: &Path) -> Volume {
    let config = VolumeConfig {
        links_max: 1,
        ..config(root)
    };
    let volume = Volume::open(config, Arc::new(disk.clone())).unwrap();
    for account in [ANN, BOB, CAT] {
        volume.ensure_account(account, E1).await.unwrap();
    }
    let delivery = large(&volume).await;
    settle(&volume);
    disk.copy_on_write();
    disk.fill_up_after(0);
    let outcomes = volume.deliver(delivery).await;
    assert_eq!(outcomes, [const { Outcome::NoRoom }; 3]);
    assert_eq!(files(disk, &root.join("incoming")), 1);
    volume
}

const CAT: AccountId = AccountId(8);

async fn large(volume: &Volume) -> Delivery {
    Delivery {
        txn: txn(1),
        sender: Vec::new(),
        content_key: [0; 32],
        repeats: Repeats::Deliver,
        blob: written(volume, 0).await.unwrap(),
        trace: String::new(),
        received_ms: 0,
        recipients: [ANN, BOB, CAT].map(to).to_vec(),
    }
}

/// It comes again, as senders do, and is there once for each. Answers how many had it.
async fn comes_again(disk: &FaultDisk, root: &Path) -> usize {
    let volume = open_on(disk, root).unwrap();
    let outcomes = volume.deliver(large(&volume).await).await;
    settle_checkpoint(&volume);
    for account in [ANN, BOB, CAT] {
        assert_eq!(text(&volume, account, 1).await, expected(account, &body(0)));
        let inbox = volume.snapshot(account, MailboxId::INBOX).await.unwrap();
        assert_eq!(inbox.unwrap().messages.len(), 1);
    }
    assert_eq!(files(disk, &root.join("incoming")), 0);
    assert_eq!(volume.status().read_only, None);
    volume.close();
    let is_known = |outcome: &&Outcome| **outcome == Outcome::Duplicate;
    outcomes.iter().filter(is_known).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_was_refused_half_written_is_cleared_away_as_soon_as_there_is_room() {
    for is_closed in [true, false] {
        let (dir, disk) = (TempDir::new().unwrap(), FaultDisk::new(1));
        let volume = refused_half_written(&disk, dir.path()).await;
        disk.give_room();
        if is_closed {
            volume.close();
        }
        let until = Instant::now() + Duration::from_secs(20);
        while files(&disk, &dir.path().join("incoming")) > 0 {
            assert!(Instant::now() < until, "the body is let go");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        volume.inner.crash();
        drop(volume);
        assert_eq!(comes_again(&disk, dir.path()).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_refused_batch_has_left_finds_its_body_when_it_is_replayed() {
    let mut left = 0;
    for seed in 0..12 {
        let (dir, disk) = (TempDir::new().unwrap(), FaultDisk::new(seed));
        let volume = refused_half_written(&disk, dir.path()).await;
        match seed % 2 {
            0 => volume.close(),
            _ => volume.inner.crash(),
        }
        drop(volume);
        disk.give_room();
        let volume = open_on(&disk, dir.path()).unwrap();
        settle_checkpoint(&volume);
        volume.close();
        drop(volume);
        left += comes_again(&disk, dir.path()).await;
    }
    assert!(left > 0, "nothing was left to be replayed");
}

/// The journal still has some of one refused batch when the next one is refused too: whatever of the two a start finds, it finds
/// the bodies that go with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_batch_that_is_refused_half_written_leaves_a_volume_that_opens() {
    for seed in 0..32 {
        let (dir, disk) = (TempDir::new().unwrap(), FaultDisk::new(seed));
        let volume = refused_half_written(&disk, dir.path()).await;
        disk.give_room();
        let second = Delivery {
            txn: txn(2),
            blob: written(&volume, 5).await.unwrap(),
            ..large(&volume).await
        };
        disk.fill_up_after(seed % 8);
        let outcomes = volume.deliver(second).await;
        volume.inner.crash();
        drop(volume);
        disk.give_room();
        let volume = open_on(&disk, dir.path()).unwrap();
        settle_checkpoint(&volume);
        assert_eq!(volume.status().read_only, None, "{seed}: {outcomes:?}");
        for account in [ANN, BOB, CAT] {
            for message in volume.messages(account, MailboxId::INBOX).await.unwrap() {
                text(&volume, account, message.uid).await;
            }
        }
        volume.close();
    }
}

/// Waits for what the files thread does.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_ends_though_the_journal_is_full_and_the_files_find_no_room_then() {
    let (dir, disk) = (TempDir::new().unwrap(), FaultDisk::new(1));
    let config = VolumeConfig {
        unreleased_max_bytes: 0,
        ..config(dir.path())
    };
    let volume = Volume::open(config, Arc::new(disk.clone())).unwrap();
    let blobs = dir.path().join("blobs");
    disk.hold(Some(&blobs));
    let mut number = 0;
    // Until one waits for the journal to forget.
    loop {
        number += 1;
        let body = vec![b'a'; 100_000 + number as usize];
        let accounts = [ANN];
        let delivered = deliver(&volume, number, &body, &accounts);
        match tokio::time::timeout(Duration::from_millis(500), delivered).await {
            Ok(outcomes) => drop(uid(&outcomes[0])),
            Err(_) => break,
        }
    }
    assert!(number > 10 && disk.is_awaited());
    let closing = volume.clone();
    let closed = tokio::task::spawn_blocking(move || closing.close());
    until("it is closing", || volume.inner.shared().space.is_stopped()).await;
    disk.fill_up_after(0);
    disk.hold(None);
    let closed = tokio::time::timeout(Duration::from_secs(20), closed).await;
    closed.expect("the close ends").unwrap();
    disk.give_room();
    drop(volume);
    let volume = open_on(&disk, dir.path()).unwrap();
    settle_checkpoint(&volume);
    let inbox = volume.snapshot(ANN, MailboxId::INBOX).await.unwrap();
    let count = inbox.unwrap().messages.len() as u64;
    assert!(count == number || count == number - 1, "{count} {number}");
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_of_a_copy_stays_while_nothing_makes_the_copy_durable() {
    let (dir, disk) = (TempDir::new().unwrap(), FaultDisk::new(1));
    let config = VolumeConfig {
        links_max: 1,
        ..config(dir.path())
    };
    let volume = Volume::open(config, Arc::new(disk.clone())).unwrap();
    deliver(&volume, 1, BODY, &[ANN]).await;
    settle_checkpoint(&volume);
    let shared = Arc::clone(volume.inner.shared());
    let source = shared.layout.blob(1, blake3::hash(BODY).as_bytes());
    let copy = shared.layout.blob(2, blake3::hash(BODY).as_bytes());
    assert!(disk.exists(&source).unwrap());
    disk.hold(Some(&dir.path().join("blobs")));
    let inbox = MailboxId::INBOX;
    let copied = volume.copy_messages(ANN, E1, inbox, vec![1], inbox);
    copied.await.unwrap();
    volume.expunge(ANN, E1, inbox, vec![1]).await.unwrap();
    let has_gone = || {
        let row = shared.index.read(|txn| shared.index.blob(txn, 1));
        row.unwrap().is_none()
    };
    until("the source is dropped", has_gone).await;
    // From here on there is no checkpoint.
    shared.fail(Failed::Body, &std::io::Error::other("a disk that fails"));
    disk.hold(None);
    let last = volume.status().position.0;
    until("the files are made", || {
        shared.materialised.load(Ordering::Acquire) == last
    })
    .await;
    // The disk keeps names and loses octets.
    let folder = copy.parent().unwrap();
    disk.sync_dir(folder.parent().unwrap()).unwrap();
    disk.sync_dir(folder).unwrap();
    volume.inner.crash();
    drop((volume, shared));
    disk.power_on(Loss::Lost);
    let volume = open_on(&disk, dir.path()).unwrap();
    settle_checkpoint(&volume);
    assert_eq!(text(&volume, ANN, 2).await, expected(ANN, BODY));
    assert!(!disk.exists(&source).unwrap());
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_to_be_mended_does_not_wait_for_room() {
    let (dir, disk) = (TempDir::new().unwrap(), FaultDisk::new(1));
    let volume = open_on(&disk, dir.path()).unwrap();
    deliver(&volume, 1, BODY, &[ANN]).await;
    settle(&volume);
    let shared = Arc::clone(volume.inner.shared());
    let hash = *blake3::hash(BODY).as_bytes();
    let file = shared.layout.blob(1, &hash);
    disk.fill_up_after(0);
    deliver(&volume, 2, b"another", &[ANN]).await;
    until("there is no room", || {
        shared.space.is_short(Shortage::Files)
    })
    .await;
    disk.rot(&file, 0, 1);
    let mending = Arc::clone(&shared);
    let mend = move || mend::mend(&mending, Mend::Quarantine { number: 1, hash });
    let mended = tokio::task::spawn_blocking(mend);
    let mended = tokio::time::timeout(Duration::from_secs(20), mended).await;
    assert_eq!(mended.expect("it is told").unwrap(), Mended::Failed);
    assert!(disk.exists(&file).unwrap());
    disk.give_room();
    settle(&volume);
    volume.close();
}

/// Ann's second message is a copy of her first one, which is gone with its blob; the files thread has done nothing of it.
async fn copied_from_dropped(disk: &FaultDisk, root: &Path) -> Volume {
    let config = VolumeConfig {
        links_max: 1,
        ..config(root)
    };
    let volume = Volume::open(config, Arc::new(disk.clone())).unwrap();
    deliver(&volume, 1, BODY, &[ANN]).await;
    settle_checkpoint(&volume);
    // What it cannot finish keeps it from what follows.
    disk.hold(Some(&root.join("mail")));
    deliver(&volume, 2, b"another", &[BOB]).await;
    let inbox = MailboxId::INBOX;
    let copied = volume.copy_messages(ANN, E1, inbox, vec![1], inbox);
    copied.await.unwrap();
    volume.expunge(ANN, E1, inbox, vec![1]).await.unwrap();
    let shared = Arc::clone(volume.inner.shared());
    until("the source is dropped", || {
        let row = shared.index.read(|txn| shared.index.blob(txn, 1));
        row.unwrap().is_none()
    })
    .await;
    volume
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_read_from_a_source_that_was_dropped_until_it_is_made() {
    let (dir, disk) = (TempDir::new().unwrap(), FaultDisk::new(1));
    let volume = copied_from_dropped(&disk, dir.path()).await;
    let copy = volume
        .inner
        .shared()
        .layout
        .blob(3, blake3::hash(BODY).as_bytes());
    assert!(!disk.exists(&copy).unwrap());
    assert_eq!(text(&volume, ANN, 2).await, expected(ANN, BODY));
    disk.hold(None);
    settle(&volume);
    assert!(disk.exists(&copy).unwrap());
    assert_eq!(text(&volume, ANN, 2).await, expected(ANN, BODY));
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_whose_source_was_dropped_and_put_aside_costs_its_own_messages_and_nothing_else() {
    let (dir, disk) = (TempDir::new().unwrap(), FaultDisk::new(1));
    let volume = copied_from_dropped(&disk, dir.path()).await;
    let shared = Arc::clone(volume.inner.shared());
    let hash = *blake3::hash(BODY).as_bytes();
    let (source, aside) = (
        shared.layout.blob(1, &hash),
        shared.layout.quarantined(1, &hash),
    );
    // The process ends where it is.
    let crashing = volume.clone();
    let crashed = tokio::task::spawn_blocking(move || crashing.inner.crash());
    until("it stops", || shared.aborted()).await;
    disk.hold(None);
    crashed.await.unwrap();
    drop((volume, shared));
    disk.power_on(Loss::Lost);
    // Its rot was found before that.
    disk.place(&aside, b"rotten");
    disk.remove_file(&source).unwrap();
    let volume = open_on(&disk, dir.path()).unwrap();
    settle_checkpoint(&volume);
    assert_eq!(volume.status().read_only, None);
    let copy = volume.read_message(ANN, MailboxId::INBOX, 2).await;
    assert!(
        matches!(copy, Err(ReadError::Quarantined { .. })),
        "{copy:?}"
    );
    assert_eq!(text(&volume, BOB, 1).await, expected(BOB, b"another"));
    // The same octets heal it.
    deliver(&volume, 3, BODY, &[BOB]).await;
    settle(&volume);
    assert_eq!(text(&volume, ANN, 2).await, expected(ANN, BODY));
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_finds_no_room_to_be_healed_is_healed_with_the_record_that_waits_and_leaves_nothing_behind()
 {
    let mut met = 0;
    for place in 0..8 {
        let (dir, disk) = (TempDir::new().unwrap(), FaultDisk::new(1));
        let volume = open_on(&disk, dir.path()).unwrap();
        deliver(&volume, 1, BODY, &[ANN]).await;
        settle_checkpoint(&volume);
        let shared = Arc::clone(volume.inner.shared());
        let hash = *blake3::hash(BODY).as_bytes();
        let file = shared.layout.blob(1, &hash);
        disk.rot(&file, 0, 1);
        assert!(volume.read_message(ANN, MailboxId::INBOX, 1).await.is_err());
        until("it is put aside", || !disk.exists(&file).unwrap()).await;
        disk.fill_up_after(place);
        deliver(&volume, 2, BODY, &[BOB]).await;
        until("it is tried", || {
            disk.refused() > 0
                || shared.materialised.load(Ordering::Acquire) == volume.status().position.0
        })
        .await;
        met += u64::from(disk.refused() > 0);
        disk.give_room();
        settle(&volume);
        assert_eq!(shared.broken.count(), 0, "{place}");
        assert_eq!(files(&disk, &dir.path().join("quarantine")), 1, "{place}");
        for account in [ANN, BOB] {
            let found = text(&volume, account, 1).await;
            assert_eq!(found, expected(account, BODY), "{place}");
        }
        volume.close();
    }
    assert!(met > 3, "{met}");
}
