use std::io::ErrorKind;

use durable::Disk as _;
use testkit::fault_disk::{FaultDisk, Loss, Operation};

use super::*;

const BODY: &[u8] = b"Subject: hello\r\n\r\nbody\r\n";

/// Journal, blobs and links on a disk that fails; the index on the real one, as far ahead as it can be.
fn open_on(disk: &FaultDisk, dir: &TempDir) -> Result<Volume, OpenError> {
    Volume::open(config(dir.path()), Arc::new(disk.clone()))
}

/// Waits until nobody uses the disk: the journal prepares its next segment beside us.
fn settle_disk(disk: &FaultDisk) {
    let mut before = u64::MAX;
    while before != disk.operations() {
        before = disk.operations();
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_of_the_journal_makes_the_volume_read_only_until_it_is_opened_again() {
    let dir = TempDir::new().unwrap();
    let disk = FaultDisk::new(1);
    let volume = open_on(&disk, &dir).unwrap();
    deliver(&volume, 1, BODY, &[ANN]).await;
    settle(&volume);
    settle_disk(&disk);
    disk.fail(Operation::Sync, 0, ErrorKind::Other);
    assert_eq!(deliver(&volume, 2, BODY, &[ANN]).await, [Outcome::ReadOnly]);
    assert!(
        volume
            .status()
            .read_only
            .unwrap()
            .starts_with("write the journal: ")
    );
    assert_eq!(deliver(&volume, 3, BODY, &[ANN]).await, [Outcome::ReadOnly]);
    assert_eq!(
        volume.expunge(ANN, E1, MailboxId::INBOX, vec![1]).await,
        Err(Refusal::ReadOnly)
    );
    assert_eq!(
        text(&volume, ANN, 1).await,
        expected(ANN, BODY),
        "reads are served"
    );
    volume.close();
    drop(volume);
    let volume = open_on(&disk, &dir).unwrap();
    assert_eq!(volume.status().read_only, None);
    assert_eq!(text(&volume, ANN, 1).await, expected(ANN, BODY));
    assert!(matches!(
        deliver(&volume, 4, BODY, &[ANN]).await[0],
        Outcome::Committed { .. }
    ));
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_made_makes_the_volume_read_only_and_is_made_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let disk = FaultDisk::new(1);
    let volume = open_on(&disk, &dir).unwrap();
    settle_disk(&disk);
    disk.fail(Operation::Name, 0, ErrorKind::Other);
    assert_eq!(uid(&deliver(&volume, 1, BODY, &[ANN]).await[0]), 1);
    while volume.status().read_only.is_none() {
        tokio::task::yield_now().await;
    }
    assert!(
        volume
            .status()
            .read_only
            .unwrap()
            .starts_with("make the files: ")
    );
    assert_eq!(
        text(&volume, ANN, 1).await,
        expected(ANN, BODY),
        "it is read from the journal"
    );
    volume.close();
    drop(volume);
    let volume = open_on(&disk, &dir).unwrap();
    settle(&volume);
    assert_eq!(text(&volume, ANN, 1).await, expected(ANN, BODY));
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn power_cuts_lose_and_double_nothing_that_was_acknowledged() {
    let mut cuts = 0;
    for (seed, loss) in Loss::ALL.into_iter().cycle().take(60).enumerate() {
        let dir = TempDir::new().unwrap();
        let disk = FaultDisk::new(seed as u64);
        let mut acknowledged = Vec::new();
        // Two cuts, the second while the recovery from the first may still be making files.
        for round in 0..2_u64 {
            disk.cut_power_after(3 + (seed as u64 * 7) % 83);
            if let Ok(volume) = open_on(&disk, &dir) {
                for number in 100 * round..100 * round + 40 {
                    let size = if number % 8 == 0 { 140_000 } else { 10 };
                    let body = vec![b'a' + (number % 5) as u8; size];
                    let mut writer = volume.begin_blob();
                    if writer.write(&body).await.is_err() {
                        break;
                    }
                    let Ok(blob) = writer.finish().await else {
                        break;
                    };
                    let delivery = Delivery {
                        txn: txn(number),
                        sender: Vec::new(),
                        content_key: [0; 32],
                        repeats: Repeats::Deliver,
                        blob,
                        trace: String::new(),
                        received_ms: 0,
                        recipients: vec![to(ANN), to(BOB)],
                    };
                    let outcomes = volume.deliver(delivery).await;
                    if let [Outcome::Committed { uid, .. }, Outcome::Committed { .. }] =
                        outcomes[..]
                    {
                        acknowledged.push((number, uid, body));
                    } else {
                        break;
                    }
                }
                volume.inner.crash();
            }
            cuts += 1;
            disk.power_on(loss);
        }
        let volume =
            open_on(&disk, &dir).unwrap_or_else(|error| panic!("seed {seed} {loss:?}: {error:?}"));
        settle(&volume);
        for (number, uid, body) in &acknowledged {
            for account in [ANN, BOB] {
                let found = text(&volume, account, *uid).await;
                assert!(
                    found == expected(account, body),
                    "seed {seed} {loss:?}: message {number}"
                );
            }
            let again = deliver(&volume, *number, BODY, &[ANN]).await;
            assert_eq!(
                again,
                [Outcome::Duplicate],
                "seed {seed} {loss:?}: message {number}"
            );
        }
        volume.close();
        assert_eq!(volume.status().read_only, None);
    }
    println!("{cuts} power cuts");
}

#[tokio::test(flavor = "multi_thread")]
async fn power_cuts_leave_a_replaced_message_or_the_one_in_its_place_never_both_or_neither() {
    let mut cuts_within = 0;
    for (seed, loss) in Loss::ALL.into_iter().cycle().take(60).enumerate() {
        let place = format!("seed {seed} {loss:?}");
        let dir = TempDir::new().unwrap();
        let disk = FaultDisk::new(seed as u64);
        // Bodies small and large, within a mailbox and from one to the other.
        let body = |number: u32| {
            vec![
                b'a';
                if number % 4 == 3 {
                    140_000
                } else {
                    10 + number as usize
                }
            ]
        };
        let message = async |volume: &Volume, number| {
            let mut writer = volume.begin_blob();
            writer.write(&body(number)).await.ok()?;
            Some(AppendMessage {
                body: AppendBody::Finished(writer.finish().await.ok()?),
                flags: Flags::DRAFT.into(),
                internal_date_ms: i64::from(number),
            })
        };
        let volume = open_on(&disk, &dir).unwrap();
        volume.ensure_account(ANN, E1).await.unwrap();
        let inbox = MailboxId::INBOX;
        let drafts = volume.create_mailbox(ANN, E1, "Drafts", SpecialUse::DRAFTS);
        let drafts = drafts.await.unwrap();
        let first = message(&volume, 0).await.unwrap();
        let first = volume.append(ANN, E1, drafts, vec![first]).await.unwrap();
        let mut known = (0, drafts, first.uids[0]);
        let mut tried = 0;
        disk.cut_power_after(1 + (seed as u64 * 7) % 61);
        for number in 1..40 {
            let Some(message) = message(&volume, number).await else {
                break;
            };
            tried = number;
            let target = if number % 3 == 0 { inbox } else { drafts };
            let replaced = volume.replace(ANN, E1, (known.1, known.2), target, message);
            match replaced.await {
                Ok(done) => known = (number, target, done.uids[0]),
                Err(_) => break,
            }
        }
        volume.inner.crash();
        drop(volume);
        disk.power_on(loss);
        let volume = open_on(&disk, &dir).unwrap_or_else(|error| panic!("{place}: {error:?}"));
        settle(&volume);
        let mut found = Vec::new();
        for mailbox in [inbox, drafts] {
            for one in volume.messages(ANN, mailbox).await.unwrap() {
                let number = u32::try_from(one.internal_date_ms).unwrap();
                found.push((number, mailbox, one.uid));
            }
        }
        let [(number, mailbox, uid)] = found[..] else {
            panic!("{place}: {found:?} when {known:?} was known and {tried} tried");
        };
        // What was not acknowledged may have been done.
        let is_known = (number, mailbox, uid) == known;
        assert!(
            is_known || number == tried && number == known.0 + 1,
            "{place}: {number}"
        );
        cuts_within += u32::from(known.0 + 1 == tried);
        let read = volume
            .read_message(ANN, mailbox, uid)
            .await
            .unwrap()
            .unwrap();
        assert!(
            read.blob.read_all().await.unwrap() == body(number),
            "{place}"
        );
        volume.close();
        assert_eq!(volume.status().read_only, None);
    }
    assert!(
        cuts_within > 10,
        "{cuts_within} cuts were within a replacement"
    );
}

#[test]
fn a_folder_that_is_not_ours_is_refused_and_untouched() {
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("letter.txt"), "dear").unwrap();
    let refused = Volume::open(config(dir.path()), Arc::new(RealDisk));
    assert!(
        matches!(refused, Err(OpenError::Foreign { .. })),
        "{refused:?}"
    );
    assert_eq!(files_below(dir.path()), [dir.path().join("letter.txt")]);
}

#[test]
fn a_newer_volume_one_of_another_owner_and_one_in_use_are_refused() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    let second = Volume::open(config(dir.path()), Arc::new(RealDisk));
    assert!(
        matches!(second, Err(OpenError::Locked { .. })),
        "{second:?}"
    );
    volume.close();
    drop(volume);
    let other = VolumeConfig {
        backend: BackendName::new("b2").unwrap(),
        ..config(dir.path())
    };
    let refused = Volume::open(other, Arc::new(RealDisk));
    assert!(
        matches!(refused, Err(OpenError::OtherOwner { key: "backend", .. })),
        "{refused:?}"
    );
    let marker = dir.path().join("FORMAT");
    let text = std::fs::read_to_string(&marker).unwrap();
    std::fs::write(&marker, text.replace("store 1", "store 2")).unwrap();
    let refused = Volume::open(config(dir.path()), Arc::new(RealDisk));
    assert!(
        matches!(refused, Err(OpenError::Version { .. })),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_with_a_wrong_octet_is_never_given_out_whole() {
    let body = vec![b'x'; 200_000];
    for wrong in [[&body[..199_999], b"y"].concat(), body[..100_000].to_vec()] {
        let dir = TempDir::new().unwrap();
        let volume = open(&dir);
        deliver(&volume, 1, &body, &[ANN]).await;
        settle(&volume);
        std::fs::write(link_path(dir.path(), ANN, 1), wrong).unwrap();
        let mut blob = volume
            .read_message(ANN, MailboxId::INBOX, 1)
            .await
            .unwrap()
            .unwrap()
            .blob;
        let mut read = 0;
        let error = loop {
            match blob.next().await {
                Ok(Some(piece)) => read += piece.len(),
                Ok(None) => panic!("{read} octets were given out"),
                Err(error) => break error,
            }
        };
        assert!(
            matches!(error, ReadError::Corrupt { .. }) && read < 200_000,
            "{error:?}"
        );
        volume.close();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_refused_by_a_full_disk_leaves_no_large_body_behind() {
    let dir = TempDir::new().unwrap();
    let disk = FaultDisk::new(1);
    let volume = open_on(&disk, &dir).unwrap();
    let finished = blob(&volume, &vec![b'x'; BLOB_INLINE_MAX_BYTES + 1]).await;
    let incoming = dir.path().join("incoming");
    assert_eq!(disk.read_dir(&incoming).unwrap().len(), 1);
    settle_disk(&disk);
    disk.set_capacity(0);
    // More than what is left of the segment.
    let recipients = (1..=RECIPIENTS_MAX as u64).map(|number| Recipient {
        prologue: vec![b'p'; 4000],
        ..to(AccountId(number))
    });
    let delivery = Delivery {
        txn: txn(1),
        sender: Vec::new(),
        content_key: [0; 32],
        repeats: Repeats::Deliver,
        blob: finished,
        trace: String::new(),
        received_ms: 0,
        recipients: recipients.collect(),
    };
    let outcomes = volume.deliver(delivery).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::NoRoom));
    disk.set_capacity(u64::MAX);
    // The next batch is decided when the refused one is forgotten.
    assert_eq!(uid(&deliver(&volume, 2, BODY, &[ANN]).await[0]), 1);
    assert_eq!(disk.read_dir(&incoming).unwrap().len(), 0);
    volume.close();
    assert_eq!(volume.status().read_only, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_outlives_the_inode_it_was_made_from() {
    for seed in 0..24 {
        let dir = TempDir::new().unwrap();
        let disk = FaultDisk::new(seed);
        let config = || VolumeConfig {
            links_max: 1,
            ..config_without_checkpoints(dir.path())
        };
        let volume = Volume::open(config(), Arc::new(disk.clone())).unwrap();
        deliver(&volume, 1, BODY, &[ANN]).await;
        settle_checkpoint(&volume);
        // A second inode, copied from the first, which goes when its only message goes.
        deliver(&volume, 2, BODY, &[BOB]).await;
        volume
            .expunge(ANN, E1, MailboxId::INBOX, vec![1])
            .await
            .unwrap();
        settle_unlinked(&volume).await;
        volume.inner.crash();
        drop(volume);
        disk.power_on(Loss::ALL[seed as usize % 3]);
        let volume = Volume::open(config(), Arc::new(disk.clone())).unwrap();
        settle(&volume);
        assert_eq!(
            text(&volume, BOB, 1).await,
            expected(BOB, BODY),
            "seed {seed}"
        );
        volume.close();
    }
}
