//! Volumes that are damaged, what fsck says of them and what it makes of them.

use super::super::blob::BLOB_INLINE_MAX_BYTES;
use super::super::error::IndexError;
use super::super::index::Index;
use super::super::keeper::make_copy;
use super::super::scrub::Scrub;
use super::recovery::{busy, contents};
use super::*;

const ONE: &[u8] = b"Subject: one\r\n\r\nbody\r\n";
const TWO: &[u8] = b"Subject: two\r\n\r\nmore\r\n";

const REPORT: FsckOptions = FsckOptions {
    repair: false,
    hashes: true,
    new_uidvalidity: false,
};
pub(super) const REPAIR: FsckOptions = FsckOptions {
    repair: true,
    ..REPORT
};

/// What fsck finds: part, whether it is right now, and in words.
pub(super) fn check(dir: &TempDir, options: FsckOptions) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut tell = |event: Event<'_>| {
        if let Event::Found(finding) = event {
            found.push(finding.clone());
        }
    };
    let verdict = fsck(dir.path(), Arc::new(RealDisk), options, &mut tell).unwrap();
    assert_eq!(verdict.found_count, found.len() as u64);
    found
}

/// One pass of the scrub: how many faults it found, and how many of them it mended.
async fn scrubbed(volume: &Volume) -> (u64, u64) {
    let shared = Arc::clone(volume.inner.shared());
    let pass = tokio::task::spawn_blocking(move || {
        let mut scrub = Scrub::new(&shared);
        scrub.pass(&shared);
        scrub.faults()
    });
    pass.await.unwrap()
}

fn parts(found: &[Finding]) -> Vec<(Part, bool)> {
    found.iter().map(|one| (one.part, one.mended)).collect()
}

/// A volume with some of everything, closed.
async fn volume(dir: &TempDir) {
    let volume = open(dir);
    busy(&volume).await;
    deliver(&volume, 500, ONE, &[ANN, BOB]).await;
    deliver(&volume, 501, TWO, &[ANN, BOB]).await;
    settle_checkpoint(&volume);
    settle_unlinked(&volume).await;
    volume.close();
}

fn blob_of(dir: &TempDir, octets: &[u8]) -> PathBuf {
    let hash = data_encoding::HEXLOWER.encode(blake3::hash(octets).as_bytes());
    let mut all = files_below(&dir.path().join("blobs")).into_iter();
    all.find(|path| path.to_str().unwrap().ends_with(&hash))
        .unwrap()
}

/// Two links of Ann's.
fn two_links(dir: &TempDir) -> [PathBuf; 2] {
    let mut all = files_below(&dir.path().join("mail")).into_iter();
    let mut of = |octets: &[u8]| {
        all.find(|path| std::fs::read(path).unwrap() == octets)
            .unwrap()
    };
    [of(ONE), of(TWO)]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_volume_is_found_to_be_so_and_is_not_changed_by_a_look() {
    let dir = TempDir::new().unwrap();
    volume(&dir).await;
    let before = files_below(dir.path());
    assert_eq!(check(&dir, REPORT), []);
    assert_eq!(files_below(dir.path()), before);
    assert_eq!(check(&dir, REPAIR), []);
    let held = open(&dir);
    let refused = fsck(dir.path(), Arc::new(RealDisk), REPORT, &mut |_| {});
    assert!(matches!(
        refused,
        Err(FsckError::Open(OpenError::Locked { .. }))
    ));
    held.close();
    let empty = TempDir::new().unwrap();
    let refused = fsck(empty.path(), Arc::new(RealDisk), REPORT, &mut |_| {});
    assert!(matches!(refused, Err(FsckError::NoVolume { .. })));
    assert_eq!(files_below(empty.path()), NO_FILES);
}

#[tokio::test(flavor = "multi_thread")]
async fn links_that_are_gone_or_of_another_file_are_made_anew() {
    let dir = TempDir::new().unwrap();
    volume(&dir).await;
    let [one, two] = two_links(&dir);
    std::fs::remove_file(&one).unwrap();
    std::fs::rename(&two, dir.path().join("incoming/swap")).unwrap();
    std::fs::hard_link(blob_of(&dir, ONE), &two).unwrap();
    std::fs::remove_file(dir.path().join("incoming/swap")).unwrap();
    // And one that belongs to no message.
    let stray = dir.path().join("mail/00/00/00/07/1/400");
    std::fs::hard_link(blob_of(&dir, TWO), &stray).unwrap();
    let found = check(&dir, REPORT);
    let links = |mended| (Part::Links, mended);
    assert!(
        parts(&found).iter().all(|part| *part == links(false)) && found.len() >= 3,
        "{found:#?}"
    );
    assert!(!one.exists(), "nothing was to be mended");
    let found = check(&dir, REPAIR);
    assert_eq!(parts(&found), [links(true); 3], "{found:#?}");
    assert_eq!(std::fs::read(&one).unwrap(), ONE);
    assert_eq!(std::fs::read(&two).unwrap(), TWO);
    assert!(!stray.exists());
    assert_eq!(
        files_below(&dir.path().join("quarantine")),
        NO_FILES,
        "its octets have other names"
    );
    assert_eq!(check(&dir, REPORT), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn swapped_and_rotten_blobs_are_put_aside() {
    let dir = TempDir::new().unwrap();
    volume(&dir).await;
    let (one, two, swap) = (
        blob_of(&dir, ONE),
        blob_of(&dir, TWO),
        dir.path().join("incoming/x"),
    );
    std::fs::rename(&one, &swap).unwrap();
    std::fs::rename(&two, &one).unwrap();
    std::fs::rename(&swap, &two).unwrap();
    let found = check(&dir, REPORT);
    assert_eq!(
        found.iter().filter(|one| one.part == Part::Blobs).count(),
        2,
        "{found:#?}"
    );
    let found = check(&dir, REPAIR);
    assert_eq!(
        found.iter().filter(|one| one.part == Part::Blobs).count(),
        2,
        "{found:#?}"
    );
    assert!(!one.exists() && !two.exists());
    assert_eq!(files_below(&dir.path().join("quarantine")).len(), 2);
    let again = check(&dir, REPORT);
    assert_eq!(parts(&again), [(Part::Blobs, false)], "{again:#?}");
    // The same mail comes again.
    let volume = open(&dir);
    deliver(&volume, 600, ONE, &[ANN]).await;
    deliver(&volume, 601, TWO, &[ANN]).await;
    settle(&volume);
    volume.close();
    drop(volume);
    check(&dir, REPAIR);
    assert_eq!(check(&dir, REPORT), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_follow_from_others_are_counted_anew() {
    let dir = TempDir::new().unwrap();
    volume(&dir).await;
    let damage = |index: &Index| {
        index.write(|txn| -> Result<(), IndexError> {
            let mut row = index.mailbox(txn, ANN, MailboxId::INBOX)?.unwrap();
            row.message_count += 5;
            row.uidnext = 3;
            index.put_mailbox(txn, ANN, MailboxId::INBOX, &row)?;
            let (number, mut blob) = index.blob_of(txn, blake3::hash(ONE).as_bytes())?.unwrap();
            blob.link_count = 5.into();
            let octets = zerocopy::IntoBytes::as_bytes(&blob).to_vec();
            index.blobs.put(txn, &number.to_be_bytes(), &octets)?;
            Ok(())
        })
    };
    let dump = {
        let volume = open(&dir);
        let dump = volume.dump_index().await.unwrap();
        damage(&volume.inner.shared().index).unwrap();
        volume.close();
        dump
    };
    let found = check(&dir, REPORT);
    let index = found.iter().filter(|one| one.part == Part::Index).count();
    assert_eq!(index, 2, "{found:#?}");
    let found = check(&dir, REPAIR);
    assert_eq!(parts(&found), [(Part::Index, true); 2], "{found:#?}");
    assert_eq!(check(&dir, REPORT), []);
    let volume = open(&dir);
    // UIDNEXT never goes back, even where it could: it is what it was.
    assert_eq!(volume.dump_index().await.unwrap(), dump);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_contradicts_itself_is_made_anew() {
    let dir = TempDir::new().unwrap();
    volume(&dir).await;
    let volume = open(&dir);
    let dump = volume.dump_index().await.unwrap();
    let index = &volume.inner.shared().index;
    index
        .write(|txn| index.bundles.clear(txn).map_err(IndexError::from))
        .unwrap();
    volume.close();
    drop(volume);
    let found = check(&dir, REPORT);
    assert!(
        found.len() > 10 && found.iter().all(|one| !one.mended),
        "{found:#?}"
    );
    check(&dir, REPAIR);
    assert_eq!(check(&dir, REPORT), []);
    let volume = open(&dir);
    assert_eq!(volume.dump_index().await.unwrap(), dump);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_index_is_told_and_made_anew() {
    let dir = TempDir::new().unwrap();
    volume(&dir).await;
    let volume = open(&dir);
    make_copy(volume.inner.shared()).unwrap();
    deliver(&volume, 700, ONE, &[ANN]).await;
    settle(&volume);
    let before = (
        volume.dump_index().await.unwrap(),
        contents(&volume, ANN).await,
    );
    volume.close();
    drop(volume);
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let found = check(&dir, REPORT);
    assert_eq!(parts(&found), [(Part::Index, false)], "{found:#?}");
    assert!(!dir.path().join("index").exists());
    let found = check(&dir, REPAIR);
    assert_eq!(parts(&found), [(Part::Index, true)], "{found:#?}");
    let volume = open(&dir);
    assert_eq!(volume.dump_index().await.unwrap(), before.0);
    assert_eq!(contents(&volume, ANN).await, before.1);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_segment_is_told_and_nothing_is_guessed() {
    let dir = TempDir::new().unwrap();
    volume(&dir).await;
    let segment = files_below(&dir.path().join("journal"))
        .into_iter()
        .find(|path| path.extension().unwrap() == "seg")
        .unwrap();
    let octets = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, &octets[..octets.len() / 2]).unwrap();
    for options in [REPORT, REPAIR] {
        let found = check(&dir, options);
        assert!(
            found
                .iter()
                .any(|one| one.part == Part::Journal && !one.mended),
            "{found:#?}"
        );
    }
    std::fs::write(&segment, octets).unwrap();
    assert_eq!(check(&dir, REPORT), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_copy_and_log_messages_are_found_by_their_files_under_new_uidvalidities() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    let holder = holder_of(BOB).unwrap();
    deliver(&volume, 200, TWO, &[holder]).await;
    for number in 0..60 {
        let body = vec![b'a' + (number % 20) as u8; 90_000 + number as usize];
        deliver(&volume, number, &body, &[ANN]).await;
    }
    let box_id = volume
        .create_mailbox(ANN, E1, "box", SpecialUse::default())
        .await
        .unwrap();
    let copied = volume.copy_messages(ANN, E1, MailboxId::INBOX, vec![3, 5], box_id);
    copied.await.unwrap();
    deliver(&volume, 100, ONE, &[BOB]).await;
    settle_checkpoint(&volume);
    let uidvalidity = volume
        .mailbox(ANN, "INBOX")
        .await
        .unwrap()
        .unwrap()
        .uidvalidity;
    let mut bodies = Vec::new();
    for info in volume.messages(ANN, MailboxId::INBOX).await.unwrap() {
        let read = volume
            .read_message(ANN, MailboxId::INBOX, info.uid)
            .await
            .unwrap()
            .unwrap();
        bodies.push((info.uid, read.blob.read_all().await.unwrap()));
    }
    volume.inner.crash();
    drop(volume);
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    std::fs::remove_dir_all(dir.path().join("kept")).unwrap();
    let found = check(&dir, REPAIR);
    assert!(
        found
            .iter()
            .any(|one| !one.mended && one.what.contains("--new-uidvalidity")),
        "{found:#?}"
    );
    let options = FsckOptions {
        new_uidvalidity: true,
        ..REPAIR
    };
    let found = check(&dir, options);
    assert!(found.iter().all(|one| one.mended), "{found:#?}");
    assert_eq!(check(&dir, REPORT), []);
    let volume = open(&dir);
    let inbox = volume.mailbox(ANN, "INBOX").await.unwrap().unwrap();
    assert!(inbox.uidvalidity > uidvalidity);
    for (uid, body) in bodies {
        let read = volume
            .read_message(ANN, MailboxId::INBOX, uid)
            .await
            .unwrap()
            .unwrap();
        assert!(read.blob.read_all().await.unwrap() == body, "UID {uid}");
    }
    let names: Vec<_> = volume
        .mailboxes(ANN)
        .await
        .unwrap()
        .into_iter()
        .map(|one| (one.name, one.message_count))
        .collect();
    assert_eq!(names.len(), 2);
    assert_eq!(names[1].1, 2);
    volume.ensure_account(BOB, E1).await.unwrap();
    assert_eq!(
        volume.messages(BOB, MailboxId::INBOX).await.unwrap().len(),
        1
    );
    // What was held for him is fed, and then removed.
    let held = volume.held_mail().await.unwrap();
    assert_eq!((held.len(), held[0].account, held[0].messages), (1, BOB, 1));
    let read = volume.read_message(holder, MailboxId::INBOX, 1);
    assert!(read.await.unwrap().unwrap().prologue.is_empty());
    let expunge = || volume.expunge(holder, HOLD_EPOCH, MailboxId::INBOX, vec![1]);
    assert!(matches!(expunge().await, Err(Refusal::StaleEpoch { .. })));
    volume.ensure_account(holder, HOLD_EPOCH).await.unwrap();
    assert_eq!(expunge().await.unwrap().uids, [1]);
    assert_eq!(volume.held_mail().await.unwrap(), []);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scrub_mends_links_and_puts_rot_aside_while_mail_arrives() {
    let dir = TempDir::new().unwrap();
    volume(&dir).await;
    let [one, two] = two_links(&dir);
    std::fs::remove_file(&one).unwrap();
    std::fs::remove_file(&two).unwrap();
    std::fs::hard_link(blob_of(&dir, ONE), &two).unwrap();
    let volume = open(&dir);
    let rotten = blob_of(&dir, b"n: 3\r\n\r\n");
    let mut octets = std::fs::read(&rotten).unwrap();
    octets[0] ^= 1;
    std::fs::write(&rotten, octets).unwrap();
    let busy = volume.clone();
    let arriving = tokio::spawn(async move {
        for number in 0..200 {
            let body = format!("m: {}\r\n\r\n", number % 9);
            deliver(&busy, 2000 + number, body.as_bytes(), &[ANN, BOB]).await;
            let uids = vec![45 + u32::try_from(number).unwrap()];
            busy.expunge(ANN, E1, MailboxId::INBOX, uids).await.unwrap();
        }
    });
    let faults = scrubbed(&volume).await;
    arriving.await.unwrap();
    settle(&volume);
    assert_eq!(
        faults,
        (3, 2),
        "two links and a blob, which has no other copy"
    );
    assert_eq!(std::fs::read(&one).unwrap(), ONE);
    assert!(files_below(&dir.path().join("quarantine")).len() == 1);
    assert_eq!(volume.status().read_only, None);
    // Whoever comes second finds nothing but what is known.
    assert_eq!(scrubbed(&volume).await, (0, 0));
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_that_still_has_the_name_it_came_by_is_no_fault() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    volume.ensure_account(ANN, E1).await.unwrap();
    let body = [
        b"n: large\r\n\r\n".as_slice(),
        &[b'x'; 2 * BLOB_INLINE_MAX_BYTES],
    ]
    .concat();
    deliver(&volume, 1, &body, &[ANN]).await;
    settle(&volume);
    assert_eq!(files_below(&dir.path().join("incoming")).len(), 1);
    assert_eq!(scrubbed(&volume).await, (0, 0));
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrub_begins_by_itself_and_finds_rot_that_nobody_reads() {
    let dir = TempDir::new().unwrap();
    volume(&dir).await;
    let blob = blob_of(&dir, TWO);
    let mut octets = std::fs::read(&blob).unwrap();
    octets[0] ^= 1;
    std::fs::write(&blob, octets).unwrap();
    let config = VolumeConfig {
        scrub_bytes_per_s: 64 << 20,
        ..config(dir.path())
    };
    let volume = Volume::open(config, Arc::new(RealDisk)).unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while blob.exists() || !dir.path().join("kept/scrub").exists() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(10));
    }
    volume.close();
}
