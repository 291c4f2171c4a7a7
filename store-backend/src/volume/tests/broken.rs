//! Rot: blobs that are put aside, and what heals them.

use super::super::scrub::Scrub;
use super::*;

const GOOD: &[u8] = b"Subject: good\r\n\r\nbody\r\n";
const ROTTEN: &[u8] = b"Subject: rotten\r\n\r\nbody\r\n";

/// The oldest file of these octets below a folder.
fn file_of(dir: &TempDir, folder: &str, octets: &[u8]) -> PathBuf {
    let hash = data_encoding::HEXLOWER.encode(blake3::hash(octets).as_bytes());
    let mut all = files_below(&dir.path().join(folder)).into_iter();
    let is_of = |path: &PathBuf| path.to_str().unwrap().contains(&hash);
    all.find(is_of).unwrap()
}

/// Inverts a bit of a file, with which every name of it has it.
fn rot(path: &Path) {
    let mut octets = std::fs::read(path).unwrap();
    octets[3] ^= 1;
    std::fs::write(path, octets).unwrap();
}

async fn read(volume: &Volume, account: AccountId, uid: u32) -> Result<Vec<u8>, ReadError> {
    let found = volume.read_message(account, MailboxId::INBOX, uid).await?;
    found.unwrap().blob.read_all().await
}

/// Waits until so many blobs are broken.
fn settle_broken(volume: &Volume, count: usize) {
    let until = Instant::now() + Duration::from_secs(20);
    while volume.inner.shared().broken.count() != count
        || files_below(&volume.inner.shared().layout.file("quarantine")).is_empty()
    {
        assert!(Instant::now() < until && volume.status().read_only.is_none());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Two messages for two accounts, of which one has rotted and was found by a reader.
async fn rotten(dir: &TempDir) -> Volume {
    rotten_in(dir, config(dir.path())).await
}

async fn rotten_in(dir: &TempDir, config: VolumeConfig) -> Volume {
    let volume = Volume::open(config, Arc::new(RealDisk)).unwrap();
    deliver(&volume, 1, GOOD, &[ANN, BOB]).await;
    deliver(&volume, 2, ROTTEN, &[ANN, BOB]).await;
    settle(&volume);
    rot(&file_of(dir, "blobs", ROTTEN));
    let first = read(&volume, ANN, 2).await;
    assert!(matches!(first, Err(ReadError::Corrupt { .. })), "{first:?}");
    settle_broken(&volume, 1);
    volume
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotten_blob_is_put_aside_and_never_served_and_the_others_are() {
    let dir = TempDir::new().unwrap();
    let mut volume = rotten(&dir).await;
    // A replay would bring the octets again and heal it.
    settle_checkpoint(&volume);
    for _ in 0..2 {
        for account in [ANN, BOB] {
            let second = read(&volume, account, 2).await;
            let refused = matches!(second, Err(ReadError::Quarantined { .. }));
            assert!(refused, "{second:?}");
            assert_eq!(read(&volume, account, 1).await.unwrap(), GOOD);
        }
        let aside = std::fs::read(file_of(&dir, "quarantine", ROTTEN)).unwrap();
        assert_eq!(aside.len(), ROTTEN.len(), "it is kept as it was found");
        // What has lost its octets can be copied, flagged and removed as before, and replayed.
        let box_name = format!("box{}", volume.status().position);
        let other = volume.create_mailbox(ANN, E1, &box_name, SpecialUse::default());
        let other = other.await.unwrap();
        let copied = volume.copy_messages(ANN, E1, MailboxId::INBOX, vec![1, 2], other);
        assert_eq!(copied.await.unwrap().uids.len(), 2);
        settle(&volume);
        volume.inner.crash();
        drop(volume);
        volume = open(&dir);
        settle(&volume);
        assert_eq!(volume.status().read_only, None);
    }
    volume
        .expunge(ANN, E1, MailboxId::INBOX, vec![2])
        .await
        .unwrap();
    volume
        .expunge(BOB, E1, MailboxId::INBOX, vec![2])
        .await
        .unwrap();
    settle(&volume);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_octets_delivered_again_begin_a_new_inode_and_heal_the_others() {
    let dir = TempDir::new().unwrap();
    let volume = rotten(&dir).await;
    let aside = file_of(&dir, "quarantine", ROTTEN);
    assert_eq!(uid(&deliver(&volume, 3, ROTTEN, &[ANN]).await[0]), 3);
    settle(&volume);
    for (account, uid) in [(ANN, 2), (BOB, 2), (ANN, 3)] {
        assert_eq!(read(&volume, account, uid).await.unwrap(), ROTTEN);
    }
    assert_eq!(volume.inner.shared().broken.count(), 0);
    let link = link_path(dir.path(), ANN, 3);
    assert_ne!(inode(&link).0, inode(&aside).0);
    assert_eq!(std::fs::read(&link).unwrap(), ROTTEN);
    volume.close();
    drop(volume);
    let volume = open(&dir);
    assert_eq!(read(&volume, BOB, 2).await.unwrap(), ROTTEN);
    assert!(aside.exists(), "what was put aside stays");
    // One goes without the other.
    volume
        .expunge(ANN, E1, MailboxId::INBOX, vec![3])
        .await
        .unwrap();
    settle_unlinked(&volume).await;
    assert_eq!(read(&volume, ANN, 2).await.unwrap(), ROTTEN);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_gone_costs_its_own_messages_and_nothing_else() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    deliver(&volume, 1, ROTTEN, &[ANN]).await;
    settle(&volume);
    std::fs::remove_file(file_of(&dir, "blobs", ROTTEN)).unwrap();
    // Nobody has noticed yet: the next message of it cannot have a link.
    deliver(&volume, 2, ROTTEN, &[BOB]).await;
    deliver(&volume, 3, GOOD, &[BOB]).await;
    settle(&volume);
    assert_eq!(volume.status().read_only, None);
    settle_broken(&volume, 1);
    let lost = read(&volume, BOB, 1).await;
    assert!(
        matches!(lost, Err(ReadError::Quarantined { .. })),
        "{lost:?}"
    );
    assert_eq!(read(&volume, BOB, 2).await.unwrap(), GOOD);
    deliver(&volume, 4, ROTTEN, &[BOB]).await;
    settle(&volume);
    assert_eq!(read(&volume, ANN, 1).await.unwrap(), ROTTEN);
    volume.close();
}

/// With so few links to an inode.
fn open_with(dir: &TempDir, links_max: u64) -> Volume {
    let config = VolumeConfig {
        links_max,
        ..config(dir.path())
    };
    Volume::open(config, Arc::new(RealDisk)).unwrap()
}

/// The first command, and a delivery that is decided before the files thread has done anything for it.
async fn then_deliver<T>(volume: &Volume, first: impl Future<Output = T>, number: u64) -> T {
    let body = blob(volume, ROTTEN).await;
    let delivery = Delivery {
        txn: txn(number),
        sender: Vec::new(),
        content_key: [0; 32],
        repeats: Repeats::Deliver,
        blob: body,
        trace: String::new(),
        received_ms: 0,
        recipients: vec![to(BOB)],
    };
    // Asked for in this order.
    let (done, delivered) = tokio::join!(first, volume.deliver(delivery));
    uid(&delivered[0]);
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn octets_that_come_right_after_a_copy_of_broken_ones_are_kept_and_heal_the_copy() {
    let dir = TempDir::new().unwrap();
    let volume = rotten(&dir).await;
    let copies = volume.create_mailbox(ANN, E1, "Copies", SpecialUse::default());
    let copies = copies.await.unwrap();
    let copied = volume.copy_messages(ANN, E1, MailboxId::INBOX, vec![2], copies);
    let copied = then_deliver(&volume, copied, 3).await.unwrap();
    settle(&volume);
    for (account, uid) in [(BOB, 3), (BOB, 2), (ANN, 2)] {
        assert_eq!(read(&volume, account, uid).await.unwrap(), ROTTEN);
    }
    let copy = volume.read_message(ANN, copies, copied.uids[0].1).await;
    assert_eq!(
        copy.unwrap().unwrap().blob.read_all().await.unwrap(),
        ROTTEN
    );
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn octets_that_come_right_after_an_undelete_of_broken_ones_are_kept_and_heal_it() {
    let dir = TempDir::new().unwrap();
    let config = VolumeConfig {
        expunge_grace: Duration::from_secs(3600),
        ..config(dir.path())
    };
    let volume = rotten_in(&dir, config).await;
    for account in [ANN, BOB] {
        let gone = volume.expunge(account, E1, MailboxId::INBOX, vec![2]);
        gone.await.unwrap();
    }
    settle(&volume);
    let back = volume.undelete(ANN, E1, MailboxId::INBOX, vec![2], None);
    let back = then_deliver(&volume, back, 3).await.unwrap();
    settle(&volume);
    for (account, uid) in [(BOB, 3), (ANN, back.uids[0].1)] {
        assert_eq!(read(&volume, account, uid).await.unwrap(), ROTTEN);
    }
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn octets_at_hand_do_not_wait_for_a_copy_of_an_inode_that_may_be_rotten() {
    let dir = TempDir::new().unwrap();
    let volume = open_with(&dir, 2);
    deliver(&volume, 1, ROTTEN, &[ANN, BOB]).await;
    settle(&volume);
    // Nobody knows of it.
    rot(&file_of(&dir, "blobs", ROTTEN));
    let inbox = MailboxId::INBOX;
    let copied = volume.copy_messages(ANN, E1, inbox, vec![1], inbox);
    then_deliver(&volume, copied, 2).await.unwrap();
    settle(&volume);
    // The delivered one, and the copy that was not to be had.
    for (account, uid) in [(BOB, 2), (ANN, 2)] {
        assert_eq!(read(&volume, account, uid).await.unwrap(), ROTTEN);
    }
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn octets_at_hand_are_brought_where_the_inode_is_full() {
    let dir = TempDir::new().unwrap();
    let volume = open_with(&dir, 2);
    deliver(&volume, 1, ROTTEN, &[ANN]).await;
    settle(&volume);
    rot(&file_of(&dir, "blobs", ROTTEN));
    // The last link of the rotten one, and two more.
    deliver(&volume, 2, ROTTEN, &[ANN, BOB, BOB]).await;
    settle(&volume);
    assert_eq!(read(&volume, BOB, 1).await.unwrap(), ROTTEN);
    assert_eq!(inode(&link_path(dir.path(), BOB, 1)).1, 2);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotten_inode_is_not_copied_to_a_new_one() {
    let dir = TempDir::new().unwrap();
    let volume = open_with(&dir, 1);
    deliver(&volume, 1, ROTTEN, &[ANN]).await;
    settle(&volume);
    rot(&file_of(&dir, "blobs", ROTTEN));
    let inbox = MailboxId::INBOX;
    let copied = volume.copy_messages(ANN, E1, inbox, vec![1], inbox);
    copied.await.unwrap();
    settle_broken(&volume, 2);
    let until = Instant::now() + Duration::from_secs(20);
    while !files_below(&dir.path().join("blobs")).is_empty() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(2));
    }
    deliver(&volume, 3, ROTTEN, &[BOB]).await;
    settle(&volume);
    for (account, uid) in [(ANN, 1), (ANN, 2), (BOB, 1)] {
        assert_eq!(read(&volume, account, uid).await.unwrap(), ROTTEN);
    }
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_dropped_is_not_broken_any_more_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let volume = rotten(&dir).await;
    for account in [ANN, BOB] {
        let gone = volume.expunge(account, E1, MailboxId::INBOX, vec![2]);
        gone.await.unwrap();
    }
    settle_unlinked(&volume).await;
    assert_eq!(volume.inner.shared().broken.count(), 0);
    volume.close();
    drop(volume);
    let volume = open(&dir);
    assert_eq!(volume.inner.shared().broken.count(), 0);
    deliver(&volume, 3, ROTTEN, &[ANN]).await;
    settle(&volume);
    let blobs = files_below(&dir.path().join("blobs"));
    assert_eq!(blobs.len(), 2, "nothing is made of what is dropped");
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_blob_is_made_anew_from_a_full_inode_by_the_scrub_and_by_fsck() {
    for by_fsck in [false, true] {
        let dir = TempDir::new().unwrap();
        let volume = open_with(&dir, 1);
        deliver(&volume, 1, ROTTEN, &[ANN]).await;
        deliver(&volume, 2, ROTTEN, &[BOB]).await;
        settle_checkpoint(&volume);
        // The one that would get the next link.
        rot(&files_below(&dir.path().join("blobs"))[1]);
        assert!(read(&volume, BOB, 1).await.is_err());
        settle_broken(&volume, 1);
        assert!(read(&volume, BOB, 1).await.is_err());
        let volume = match by_fsck {
            false => {
                let shared = Arc::clone(volume.inner.shared());
                let pass = move || Scrub::new(&shared).pass(&shared);
                tokio::task::spawn_blocking(pass).await.unwrap();
                volume
            }
            true => {
                volume.close();
                drop(volume);
                let found = fsck::check(&dir, fsck::REPAIR);
                assert!(found.iter().all(|one| one.mended), "{found:#?}");
                open(&dir)
            }
        };
        assert_eq!(read(&volume, BOB, 1).await.unwrap(), ROTTEN);
        assert_eq!(read(&volume, ANN, 1).await.unwrap(), ROTTEN);
        volume.close();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_found_by_their_files_are_not_served_what_was_put_aside() {
    for is_healed in [false, true] {
        let dir = TempDir::new().unwrap();
        let volume = rotten(&dir).await;
        // Beyond what the journal has.
        for number in 10..70 {
            let body = vec![b'a'; 90_000 + number as usize];
            deliver(&volume, number, &body, &[BOB]).await;
        }
        if is_healed {
            deliver(&volume, 3, ROTTEN, &[BOB]).await;
        }
        settle_checkpoint(&volume);
        volume.close();
        drop(volume);
        std::fs::remove_dir_all(dir.path().join("index")).unwrap();
        std::fs::remove_dir_all(dir.path().join("kept")).unwrap();
        let options = FsckOptions {
            new_uidvalidity: true,
            ..fsck::REPAIR
        };
        fsck::check(&dir, options);
        let volume = open(&dir);
        assert_eq!(read(&volume, ANN, 1).await.unwrap(), GOOD);
        if !is_healed {
            let second = read(&volume, ANN, 2).await;
            let refused = matches!(second, Err(ReadError::Quarantined { .. }));
            assert!(refused, "{second:?}");
            volume.ensure_account(BOB, E1).await.unwrap();
            deliver(&volume, 100, ROTTEN, &[BOB]).await;
            settle(&volume);
        }
        for account in [ANN, BOB] {
            assert_eq!(read(&volume, account, 2).await.unwrap(), ROTTEN);
        }
        volume.close();
    }
}
