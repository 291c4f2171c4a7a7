//! Single cases of disks that are full or fail, where the order of what happens matters.

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
