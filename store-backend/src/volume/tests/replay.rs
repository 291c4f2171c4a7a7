//! Starts on a full disk, with records in the journal that the index does not have.

use std::ffi::OsString;

use durable::Disk as _;
use testkit::fault_disk::{FaultDisk, Loss};

use super::super::layout::{INCOMING_DIR, INDEX_DIR};
use super::*;

const ENOSPC: i32 = 28;
const BODY: &[u8] = b"Subject: x\r\n\r\n";
const CAT: AccountId = AccountId(8);
const DAN: AccountId = AccountId(9);
const EVE: AccountId = AccountId(10);
/// More than the index is given in one transaction.
const COUNT: u64 = 700;

/// All is in the journal until the end, but what the first start had.
fn open_on(disk: &FaultDisk, root: &Path) -> Result<Volume, OpenError> {
    let config = VolumeConfig {
        journal_segment_size_bytes: 512 << 10,
        ..config_without_checkpoints(root)
    };
    Volume::open(config, Arc::new(disk.clone()))
}

fn large() -> Vec<u8> {
    vec![b'l'; BLOB_INLINE_MAX_BYTES + 1]
}

/// A volume that was stopped by a crash: the index has what ann got and that cat shares an INBOX with dan, and lacks bob's
/// mail, that dan may see cat's no more and that eve may. One body in `incoming/` has a record, the other none.
async fn crashed(disk: &FaultDisk, root: &Path) {
    let volume = open_on(disk, root).unwrap();
    for number in 1..=2 {
        deliver(&volume, number, BODY, &[ANN]).await;
    }
    volume.ensure_account(BOB, E1).await.unwrap();
    for account in [CAT, DAN, EVE] {
        volume.ensure_account(account, E1).await.unwrap();
    }
    share(&volume, DAN, Rights::ALL).await;
    settle_checkpoint(&volume);
    volume.close();
    drop(volume);
    let index = root.join(INDEX_DIR).join("data.mdb");
    let before = std::fs::read(&index).unwrap();
    let volume = open_on(disk, root).unwrap();
    share(&volume, DAN, Rights::default()).await;
    share(&volume, EVE, Rights::ALL).await;
    deliver(&volume, 3, &large(), &[BOB]).await;
    for number in 4..4 + COUNT {
        deliver(&volume, number, BODY, &[BOB]).await;
    }
    settle(&volume);
    volume.inner.crash();
    drop(volume);
    std::fs::write(&index, before).unwrap();
    let orphan = "0".repeat(32);
    disk.place(&root.join(INCOMING_DIR).join(orphan), &large());
}

async fn share(volume: &Volume, with: AccountId, rights: Rights) {
    let change = AclChange::Replace(rights);
    let inbox = MailboxId::INBOX;
    let done = volume.set_acl(CAT, E1, inbox, Some("cat"), with, "one", change);
    done.await.unwrap();
}

fn incoming(disk: &FaultDisk, root: &Path) -> Vec<OsString> {
    disk.read_dir(&root.join(INCOMING_DIR)).unwrap()
}

/// What is right while the index lacks the rest.
async fn check_behind(volume: &Volume, knows_rights: bool) {
    let inbox = MailboxId::INBOX;
    let status = volume.status();
    assert_eq!(status.space.short, ["index"], "{status:?}");
    assert!(status.space.refuses && status.applied < status.position);
    assert_eq!(status.read_only, None);
    for uid in 1..=2 {
        assert_eq!(text(volume, ANN, uid).await, expected(ANN, BODY));
    }
    let bobs = volume.snapshot(BOB, inbox).await;
    assert!(matches!(bobs, Err(ReadError::Behind)), "{bobs:?}");
    for (account, count) in [(DAN, 0), (EVE, 1)] {
        let shared = volume.shared_with(account, None).await;
        match knows_rights {
            true => assert_eq!(shared.unwrap().len(), count),
            false => assert!(matches!(shared, Err(ReadError::Behind)), "{shared:?}"),
        }
    }
    for account in [ANN, BOB] {
        let refused = deliver(volume, 9000, BODY, &[account]).await;
        assert_eq!(refused, [Outcome::NoRoom]);
    }
    let expunged = volume.expunge(ANN, E1, inbox, vec![1]).await;
    assert_eq!(expunged, Err(Refusal::NoRoom));
}

async fn check_whole(volume: &Volume, next: u32) {
    let bobs = volume
        .snapshot(BOB, MailboxId::INBOX)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(bobs.mailbox.uidnext, next);
    assert_eq!(bobs.messages.len() as u32, next - 1);
    assert_eq!(text(volume, BOB, 1).await, expected(BOB, &large()));
    assert_eq!(text(volume, BOB, 2).await, expected(BOB, BODY));
    assert_eq!(volume.shared_with(DAN, None).await.unwrap().len(), 0);
    let again = deliver(volume, 3 + COUNT, BODY, &[BOB]).await;
    assert_eq!(again, [Outcome::Duplicate]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_whose_index_has_no_room_serves_who_lacks_nothing_and_catches_up_without_a_restart()
{
    // How much of it finds room, and whether what was not synced is lost.
    for (passing, is_lost) in [(0, false), (1, true)] {
        let (dir, disk) = (TempDir::new().unwrap(), FaultDisk::new(1));
        let root = dir.path();
        crashed(&disk, root).await;
        if is_lost {
            disk.power_on(Loss::Lost);
        }
        let refusing = Refusing::of_volume(root);
        refusing.begin(ENOSPC, passing);
        disk.fill_up_after(0);
        let volume = open_on(&disk, root).unwrap();
        assert_eq!(
            incoming(&disk, root).len(),
            1,
            "the orphan's room is given back"
        );
        check_behind(&volume, passing > 0).await;
        // A restart in between changes nothing.
        volume.close();
        assert_eq!(volume.status().read_only, None);
        drop(volume);
        refusing.begin(ENOSPC, 0);
        let volume = open_on(&disk, root).unwrap();
        check_behind(&volume, passing > 0).await;
        refusing.end();
        disk.give_room();
        let until = Instant::now() + Duration::from_secs(20);
        while volume.status().space.refuses {
            assert!(Instant::now() < until, "{:?}", volume.status());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let next = u32::try_from(COUNT).unwrap() + 2;
        check_whole(&volume, next).await;
        assert_eq!(uid(&deliver(&volume, 9000, BODY, &[BOB]).await[0]), next);
        settle_checkpoint(&volume);
        // The names go once the checkpoint is made.
        let until = Instant::now() + Duration::from_secs(20);
        while !incoming(&disk, root).is_empty() {
            assert!(Instant::now() < until, "{:?}", incoming(&disk, root));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        volume.inner.crash();
        drop(volume);
        disk.power_on(Loss::Lost);
        let volume = open_on(&disk, root).unwrap();
        check_whole(&volume, next + 1).await;
        volume.close();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_volume_that_catches_up_is_told_of_what_it_lacked() {
    let (dir, disk) = (TempDir::new().unwrap(), FaultDisk::new(1));
    crashed(&disk, dir.path()).await;
    let refusing = Refusing::of_volume(dir.path());
    refusing.begin(ENOSPC, 0);
    let volume = open_on(&disk, dir.path()).unwrap();
    let mut watch = volume.watch(BOB);
    // The first one is as of now.
    watch.changed().await;
    refusing.end();
    let changed = tokio::time::timeout(Duration::from_secs(20), watch.changed()).await;
    changed.expect("it is told");
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_fails_while_it_catches_up_shows_nobody_an_older_state() {
    // What fails is the first of it, or what comes behind that.
    for passing in [0, 1] {
        fails_catching_up(passing).await;
    }
}

async fn fails_catching_up(passing: u32) {
    let (dir, disk) = (TempDir::new().unwrap(), FaultDisk::new(1));
    crashed(&disk, dir.path()).await;
    let refusing = Refusing::of_volume(dir.path());
    refusing.begin(ENOSPC, 0);
    let volume = open_on(&disk, dir.path()).unwrap();
    refusing.begin(13, passing);
    let until = Instant::now() + Duration::from_secs(20);
    while volume.status().read_only.is_none() {
        assert!(Instant::now() < until, "{:?}", volume.status());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(volume.status().failed, Some("index_write"));
    let bobs = volume.snapshot(BOB, MailboxId::INBOX);
    let bobs = tokio::time::timeout(Duration::from_secs(20), bobs).await;
    let bobs = bobs.expect("nobody waits for what does not come");
    assert!(matches!(bobs, Err(ReadError::Behind)), "{bobs:?}");
    assert_eq!(text(&volume, ANN, 1).await, expected(ANN, BODY));
    assert_eq!(
        deliver(&volume, 9000, BODY, &[ANN]).await,
        [Outcome::ReadOnly]
    );
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_cannot_do_without_room_says_where_and_how_much_is_missing() {
    let (dir, disk) = (TempDir::new().unwrap(), FaultDisk::new(1));
    disk.set_capacity(100 << 20);
    disk.fill_up_after(0);
    let config = VolumeConfig {
        free_min_bytes: 90 << 20,
        ..config(dir.path())
    };
    let open = || Volume::open(config.clone(), Arc::new(disk.clone()));
    let refused = open().unwrap_err();
    assert!(refused.is_no_room());
    let OpenError::NoRoom {
        path,
        free,
        missing,
        ..
    } = refused
    else {
        panic!("{refused:?}");
    };
    assert_eq!((&*path, free), (dir.path(), 100 << 20));
    // An eighth above the mark it takes mail again.
    assert_eq!(missing, (90 << 20) + (90 << 20) / 8 - (100 << 20));
    disk.give_room();
    let volume = open().unwrap();
    settle(&volume);
    volume.close();
}
