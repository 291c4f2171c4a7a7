//! Expunged messages: brought back as they were, until their grace is over.

use directory_api::{ChangeNumber, Quota};

use super::moves::{MOVE, name};
use super::*;

const BODY: &[u8] = b"From: Eve <eve@example.test>\r\nSubject: hello\r\n\r\nbody\r\n";
const INBOX: MailboxId = MailboxId::INBOX;
const HOUR: Duration = Duration::from_secs(3600);

fn keeping(path: &Path, grace: Duration) -> VolumeConfig {
    VolumeConfig {
        expunge_grace: grace,
        ..config(path)
    }
}

fn open_keeping(dir: &TempDir, grace: Duration) -> Volume {
    Volume::open(keeping(dir.path(), grace), Arc::new(RealDisk)).unwrap()
}

async fn kept(volume: &Volume) -> Vec<KeptMessage> {
    volume.kept(ANN, None, 100, 0).await.unwrap()
}

async fn undelete(volume: &Volume, mailbox: MailboxId, uids: &[u32]) -> (String, Vec<(u32, u32)>) {
    let back = volume.undelete(ANN, E1, mailbox, uids.to_vec(), None).await;
    let back = back.unwrap();
    (back.name, back.uids)
}

async fn message(volume: &Volume, uid: u32) -> MessageInfo {
    let all = volume.messages(ANN, INBOX).await.unwrap();
    all.into_iter().find(|one| one.uid == uid).unwrap()
}

/// Its home has it: the disk has its octets again at the next look at what may go, for a holder and not for a user.
#[tokio::test(flavor = "multi_thread")]
async fn mail_held_for_others_is_not_kept_when_it_goes() {
    let dir = TempDir::new().unwrap();
    let volume = open_keeping(&dir, HOUR);
    let holder = holder_of(ANN).unwrap();
    deliver(&volume, 1, BODY, &[holder]).await;
    deliver(&volume, 2, BODY, &[ANN]).await;
    for account in [holder, ANN] {
        let gone = volume.expunge(account, E1, INBOX, vec![1]).await.unwrap();
        assert_eq!(gone.uids, [1]);
    }
    assert!(volume.kept(holder, None, 100, 0).await.unwrap().is_empty());
    assert_eq!(kept(&volume).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_expunged_comes_back_as_a_new_message_with_all_it_had() {
    let dir = TempDir::new().unwrap();
    let volume = open_keeping(&dir, HOUR);
    deliver(&volume, 1, BODY, &[ANN]).await;
    deliver(&volume, 2, BODY, &[ANN]).await;
    let marks = FlagSet {
        system: Flags::SEEN | Flags::DELETED,
        keywords: vec!["$Forwarded".into(), "work".into()],
    };
    let change = FlagChange::Add(marks);
    let stored = volume.store_flags(ANN, E1, INBOX, vec![1], change, None);
    stored.await.unwrap();
    let before = message(&volume, 1).await;
    volume.expunge(ANN, E1, INBOX, vec![1]).await.unwrap();
    let listed = kept(&volume).await;
    let [one] = &listed[..] else {
        panic!("{listed:?}");
    };
    assert_eq!((one.mailbox, one.uid, &one.name[..]), (INBOX, 1, "INBOX"));
    assert_eq!(one.size_octets, before.size_octets);
    assert_eq!(one.internal_date_ms, before.internal_date_ms);
    assert_eq!(one.until_ms - one.expunged_ms, 3_600_000);
    let fields = one.fields.as_ref().unwrap();
    assert!(fields.starts_with(b"From: Eve"), "{fields:?}");
    // What may go at any moment is not offered.
    let late = volume.kept(ANN, None, 100, one.until_ms).await.unwrap();
    assert_eq!(late, []);
    assert_eq!(volume.account(ANN).await.unwrap().unwrap().message_count, 1);

    // Two operators at once, and a UID that was never expunged.
    let (one, other) = tokio::join!(
        undelete(&volume, INBOX, &[1, 2]),
        undelete(&volume, INBOX, &[1])
    );
    let came = [one.1, other.1].concat();
    assert_eq!(came, [(1, 3)]);
    assert_eq!(kept(&volume).await, []);
    let after = message(&volume, 3).await;
    assert_eq!(after.identity, before.identity);
    assert_eq!(after.internal_date_ms, before.internal_date_ms);
    assert_eq!(after.flags, Flags::SEEN);
    assert!(after.modseq > before.modseq);
    let snapshot = volume.snapshot(ANN, INBOX).await.unwrap().unwrap();
    let set = snapshot.messages.last().unwrap().keyword_set;
    let named = snapshot.keyword_sets[usize::try_from(set).unwrap()].iter();
    let named: Vec<&str> = named
        .map(|number| &snapshot.keywords[usize::from(*number)][..])
        .collect();
    assert_eq!(named, ["$Forwarded", "work"]);
    assert_eq!(text(&volume, ANN, 3).await, expected(ANN, BODY));
    assert_eq!(volume.account(ANN).await.unwrap().unwrap().message_count, 2);
    // It is like any other from now on.
    volume.expunge(ANN, E1, INBOX, vec![2, 3]).await.unwrap();
    assert_eq!(kept(&volume).await.len(), 2);
    let before = volume.dump_index().await.unwrap();
    volume.close();
    drop(volume);
    let volume = open_keeping(&dir, HOUR);
    assert_eq!(volume.dump_index().await.unwrap(), before);
    assert_eq!(undelete(&volume, INBOX, &[3]).await.1, [(3, 4)]);
    assert_eq!(text(&volume, ANN, 4).await, expected(ANN, BODY));
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_mailbox_comes_back_under_its_last_name_or_the_one_that_is_wanted() {
    let dir = TempDir::new().unwrap();
    let volume = open_keeping(&dir, HOUR);
    for number in 1..=3 {
        deliver(&volume, number, BODY, &[ANN]).await;
    }
    let none = SpecialUse::default();
    let old = volume.create_mailbox(ANN, E1, "a/old", none).await.unwrap();
    let moved = volume.move_messages(ANN, E1, INBOX, vec![1, 2, 3], old);
    moved.await.unwrap();
    assert_eq!(kept(&volume).await, [], "a move is no deletion");
    volume.expunge(ANN, E1, old, vec![1]).await.unwrap();
    volume.rename_mailbox(ANN, E1, "a/old", "b").await.unwrap();
    // There still: it comes to it, whatever it is called.
    assert_eq!(kept(&volume).await[0].name, "b");
    let back = undelete(&volume, old, &[1]).await;
    assert_eq!(back, ("b".into(), vec![(1, 4)]));
    volume.rename_mailbox(ANN, E1, "b", "c/d").await.unwrap();
    volume.delete_mailbox(ANN, E1, "c/d").await.unwrap();
    volume.delete_mailbox(ANN, E1, "c").await.unwrap();
    assert_eq!(volume.account(ANN).await.unwrap().unwrap().message_count, 0);
    let names: Vec<_> = kept(&volume)
        .await
        .into_iter()
        .map(|one| one.name)
        .collect();
    assert_eq!(names, ["c/d", "c/d", "c/d"]);
    let back = undelete(&volume, old, &[2, 4]).await;
    assert_eq!(back, ("c/d".into(), vec![(2, 1), (4, 2)]));
    let again = volume.mailbox(ANN, "c/d").await.unwrap().unwrap();
    assert_ne!(again.mailbox, old);
    assert_eq!(again.message_count, 2);
    let to = Some("Restored/".to_owned());
    let back = volume.undelete(ANN, E1, old, vec![3], to).await.unwrap();
    assert_eq!(
        (&back.name[..], &back.uids[..]),
        ("Restored", &[(3, 1)][..])
    );
    let read = volume.mailbox(ANN, "Restored").await.unwrap().unwrap();
    let read = volume.read_message(ANN, read.mailbox, 1).await.unwrap();
    let read = read.unwrap();
    assert_eq!(read.blob.read_all().await.unwrap(), BODY);
    let many = |count| (1..=count).collect::<Vec<u32>>();
    let most = volume.undelete(ANN, E1, INBOX, many(1000), None).await;
    assert_eq!(most, Ok(Undeleted::default()));
    let more = volume.undelete(ANN, E1, INBOX, many(1001), None).await;
    assert_eq!(more, Err(Refusal::Full));
    let bad = volume.undelete(ANN, E1, old, vec![3], Some("a//b".into()));
    assert_eq!(bad.await, Err(Refusal::BadName));
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_message_is_kept_and_quota_does_not_keep_it_from_coming_back() {
    let dir = TempDir::new().unwrap();
    let volume = open_keeping(&dir, HOUR);
    let quota = Quota {
        octets: None,
        messages: Some(1),
        as_of: ChangeNumber(1),
    };
    volume.limit_account(ANN, E1, quota).await.unwrap();
    let append = |body| AppendMessage {
        body: AppendBody::Finished(body),
        flags: Flags::DRAFT.into(),
        internal_date_ms: 1,
    };
    let first = append(blob(&volume, b"first").await);
    volume.append(ANN, E1, INBOX, vec![first]).await.unwrap();
    let second = append(blob(&volume, b"second").await);
    let replaced = volume.replace(ANN, E1, (INBOX, 1), INBOX, second).await;
    assert_eq!(replaced.unwrap().uids, [2]);
    let used = async || volume.account(ANN).await.unwrap().unwrap().message_count;
    assert_eq!(used().await, 1, "what is kept counts for nothing");
    assert_eq!(undelete(&volume, INBOX, &[1]).await.1, [(1, 3)]);
    assert_eq!(used().await, 2);
    assert_eq!(text_of(&volume, 3).await, b"first");
    let more = append(blob(&volume, b"x").await);
    let refused = volume.append(ANN, E1, INBOX, vec![more]).await;
    assert_eq!(refused, Err(Refusal::OverQuota));
    volume.close();
}

async fn text_of(volume: &Volume, uid: u32) -> Vec<u8> {
    let message = volume.read_message(ANN, INBOX, uid).await.unwrap();
    message.unwrap().blob.read_all().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_grace_is_over_row_and_file_go_and_without_one_nothing_is_kept() {
    let dir = TempDir::new().unwrap();
    let volume = open_keeping(&dir, Duration::from_millis(300));
    deliver(&volume, 1, BODY, &[ANN]).await;
    volume.expunge(ANN, E1, INBOX, vec![1]).await.unwrap();
    settle(&volume);
    assert_eq!(files_below(&dir.path().join("blobs")).len(), 1);
    settle_unlinked(&volume).await;
    let dump = volume.dump_index().await.unwrap();
    assert!(!dump.lines().any(|line| line.starts_with("kept")), "{dump}");
    assert_eq!(files_below(&dir.path().join("blobs")), NO_FILES);
    assert_eq!(undelete(&volume, INBOX, &[1]).await.1, []);
    volume.close();
    drop(volume);

    let volume = open(&dir);
    deliver(&volume, 2, BODY, &[ANN]).await;
    volume.expunge(ANN, E1, INBOX, vec![2]).await.unwrap();
    let dump = volume.dump_index().await.unwrap();
    assert!(!dump.lines().any(|line| line.starts_with("kept")), "{dump}");
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_grace_takes_nothing_from_what_was_kept_before() {
    let dir = TempDir::new().unwrap();
    let volume = open_keeping(&dir, HOUR);
    for number in 1..=2 {
        deliver(&volume, number, BODY, &[ANN]).await;
    }
    volume.expunge(ANN, E1, INBOX, vec![1]).await.unwrap();
    volume.close();
    drop(volume);
    let volume = open(&dir);
    // The last message of the blob goes, and need not be kept; the other one needs the blob.
    volume.expunge(ANN, E1, INBOX, vec![2]).await.unwrap();
    deliver(&volume, 3, b"other", &[ANN]).await;
    volume.expunge(ANN, E1, INBOX, vec![3]).await.unwrap();
    let blobs = dir.path().join("blobs");
    let until = Instant::now() + Duration::from_secs(20);
    while files_below(&blobs).len() != 1 {
        assert!(Instant::now() < until);
        settle(&volume);
    }
    assert_eq!(undelete(&volume, INBOX, &[1]).await.1, [(1, 4)]);
    assert_eq!(text(&volume, ANN, 4).await, expected(ANN, BODY));
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_kept_stays_behind_when_the_account_moves() {
    let dir = TempDir::new().unwrap();
    let volume = open_keeping(&dir, HOUR);
    deliver(&volume, 1, BODY, &[ANN]).await;
    volume.expunge(ANN, E1, INBOX, vec![1]).await.unwrap();
    volume.freeze(ANN, E1, MOVE).await.unwrap();
    let ask = || volume.undelete(ANN, E1, INBOX, vec![1], None);
    assert_eq!(ask().await, Err(Refusal::Frozen));
    volume
        .release(ANN, MOVE, name("b2"), Epoch(2))
        .await
        .unwrap();
    let moved = ask().await;
    assert!(matches!(moved, Err(Refusal::Moved { .. })), "{moved:?}");
    // It comes back by another move, whose messages have the UIDs that they had.
    volume
        .begin_import(ANN, [8; 16], Some(name("b2")))
        .await
        .unwrap();
    assert_eq!(kept(&volume).await, []);
    let dump = volume.dump_index().await.unwrap();
    assert!(!dump.lines().any(|line| line.starts_with("kept")), "{dump}");
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_gives_the_same_rows_and_a_full_inode_is_copied() {
    let dir = TempDir::new().unwrap();
    let config = VolumeConfig {
        links_max: 2,
        expunge_grace: HOUR,
        ..config_without_checkpoints(dir.path())
    };
    let volume = Volume::open(config.clone(), Arc::new(RealDisk)).unwrap();
    for number in 1..=5 {
        deliver(&volume, number, BODY, &[ANN]).await;
    }
    let old = volume.create_mailbox(ANN, E1, "old", SpecialUse::default());
    let old = old.await.unwrap();
    volume
        .copy_messages(ANN, E1, INBOX, vec![1, 2], old)
        .await
        .unwrap();
    volume.expunge(ANN, E1, INBOX, vec![1, 3, 5]).await.unwrap();
    volume.delete_mailbox(ANN, E1, "old").await.unwrap();
    deliver(&volume, 6, BODY, &[ANN]).await;
    assert_eq!(undelete(&volume, INBOX, &[1, 3]).await.1, [(1, 7), (3, 8)]);
    assert_eq!(undelete(&volume, old, &[1, 2]).await.1.len(), 2);
    for uid in [2, 4, 6, 7, 8] {
        assert_eq!(text(&volume, ANN, uid).await, expected(ANN, BODY));
    }
    settle(&volume);
    for blob in files_below(&dir.path().join("blobs")) {
        assert!(inode(&blob).1 <= 3, "two messages and its own name");
    }
    let dump = volume.dump_index().await.unwrap();
    let files = files_below(dir.path().join("mail").as_path());
    volume.close();
    drop(volume);
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    std::fs::remove_dir_all(dir.path().join("mail")).unwrap();
    let volume = Volume::open(config, Arc::new(RealDisk)).unwrap();
    settle(&volume);
    assert_eq!(volume.dump_index().await.unwrap(), dump);
    assert_eq!(files_below(dir.path().join("mail").as_path()), files);
    volume.close();
}
