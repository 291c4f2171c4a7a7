//! An old copy of a volume that is put back.

use std::collections::BTreeMap;
use std::fs;

use super::super::intake::Command;
use super::super::keeper::make_copy;
use super::moves::{MOVE, copy, items_of};
use super::*;

/// Copies a volume that nobody has open.
fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// UIDVALIDITY and UID, and the message that they name.
async fn names(volume: &Volume) -> BTreeMap<(u32, u32), [u8; 16]> {
    let mut names = BTreeMap::new();
    for mailbox in volume.mailboxes(ANN).await.unwrap() {
        for message in volume.messages(ANN, mailbox.mailbox).await.unwrap() {
            names.insert((mailbox.uidvalidity, message.uid), message.identity);
        }
    }
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_copy_gives_no_uid_and_no_modseq_again() {
    let (first, copy) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let volume = open(&first);
    for number in 1..=3 {
        deliver(&volume, number, b"Subject: kept\r\n\r\n", &[ANN]).await;
    }
    let work = volume
        .create_mailbox(ANN, E1, "Work", SpecialUse::default())
        .await
        .unwrap();
    let seen = FlagChange::Add(FlagSet {
        system: Flags::SEEN,
        keywords: vec!["$Label".into()],
    });
    volume
        .store_flags(ANN, E1, MailboxId::INBOX, vec![1], seen.clone(), None)
        .await
        .unwrap();
    let kept = names(&volume).await;
    let flags = volume.messages(ANN, MailboxId::INBOX).await.unwrap();
    volume.close();
    drop(volume);
    copy_folder(first.path(), copy.path());

    // What the copy knows nothing of: messages, a flag, an expunged message.
    let volume = open(&first);
    for number in 4..=6 {
        deliver(&volume, number, b"Subject: lost\r\n\r\n", &[ANN]).await;
    }
    volume
        .store_flags(ANN, E1, MailboxId::INBOX, vec![2], seen, None)
        .await
        .unwrap();
    let lost = names(&volume).await;
    let client = volume.mailbox(ANN, "INBOX").await.unwrap().unwrap();
    let life = volume.incarnation();
    volume.close();
    drop(volume);

    let volume = open(&copy);
    assert_eq!(volume.incarnation(), life);
    volume.mark_restored(3).await.unwrap();
    let next = volume.incarnation();
    assert_ne!(next, life);
    volume.inner.crash();
    drop(volume);
    let volume = open(&copy);
    assert!(volume.is_restored(), "a start in between changes nothing");
    assert_eq!(volume.incarnation(), next);
    assert_eq!(names(&volume).await, kept);
    volume.adopt().await.unwrap();
    assert!(!volume.is_restored());
    assert_eq!(names(&volume).await, kept, "what is kept has its names");

    let inbox = volume.mailbox(ANN, "INBOX").await.unwrap().unwrap();
    assert!(inbox.uidnext >= client.uidnext + (1 << 20));
    assert!(inbox.highestmodseq > client.highestmodseq);
    assert_eq!((inbox.message_count, inbox.unseen_count), (3, 2));
    // A client with what it knew before is told that the flag is not set, and which messages are gone.
    let changes = volume
        .changes_since(ANN, MailboxId::INBOX, client.highestmodseq)
        .await
        .unwrap()
        .unwrap();
    let told: Vec<u32> = changes.now.messages.iter().map(|one| one.uid).collect();
    assert_eq!(told, [1, 2, 3]);
    assert!(
        changes
            .vanished
            .iter()
            .any(|(first, last)| *first <= 4 && 6 <= *last)
    );
    let now = volume.messages(ANN, MailboxId::INBOX).await.unwrap();
    let plain = |messages: &[MessageInfo]| -> Vec<_> {
        let messages = messages.iter();
        messages
            .map(|one| (one.uid, one.flags, one.identity))
            .collect()
    };
    assert_eq!(plain(&now), plain(&flags));

    for number in 7..=9 {
        deliver(&volume, number, b"Subject: new\r\n\r\n", &[ANN]).await;
    }
    volume.settled(ANN).await.unwrap();
    volume
        .copy_messages(ANN, E1, MailboxId::INBOX, vec![1], work)
        .await
        .unwrap();
    let after = names(&volume).await;
    assert_eq!(after.len(), 7);
    for (name, identity) in &after {
        assert!(
            lost.get(name).is_none_or(|before| before == identity),
            "{name:?}"
        );
    }

    // Replay comes to the same, and the next life is that of the folder.
    let index = volume.dump_index().await.unwrap();
    volume.close();
    drop(volume);
    let volume = open(&copy);
    assert_eq!(volume.dump_index().await.unwrap(), index);
    assert_eq!((volume.incarnation(), volume.is_restored()), (next, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_with_few_uids_left_gets_a_new_uidvalidity() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    deliver(&volume, 1, b"Subject: one\r\n\r\n", &[ANN]).await;
    volume.settled(ANN).await.unwrap();
    let before = volume.mailbox(ANN, "INBOX").await.unwrap().unwrap();
    for _ in 0..3 {
        volume.mark_restored(u64::MAX).await.unwrap();
        volume.adopt().await.unwrap();
    }
    let after = volume.mailbox(ANN, "INBOX").await.unwrap().unwrap();
    assert!(after.uidvalidity > before.uidvalidity);
    let made = volume
        .create_mailbox(ANN, E1, "Work", SpecialUse::default())
        .await
        .unwrap();
    let work = volume.mailbox_status(ANN, made).await.unwrap().unwrap();
    assert!(work.uidvalidity > after.uidvalidity);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adoption_ends_every_restore_and_opens_what_has_come() {
    let (lost, new) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (backup, volume) = (open(&lost), open(&new));
    for number in 1..=3 {
        deliver(&backup, number, b"Subject: kept\r\n\r\n", &[ANN]).await;
    }
    backup.settled(ANN).await.unwrap();
    let items = items_of(&backup, ANN).await;
    let known = backup.mailbox(ANN, "INBOX").await.unwrap().unwrap();
    let kept = names(&backup).await;
    assert_eq!(
        volume.begin_import(ANN, MOVE, None).await,
        Err(Refusal::Adopted),
        "it was never lost"
    );
    volume.mark_restored(0).await.unwrap();
    // One that broke off is begun anew by the next.
    volume.begin_import(ANN, [1; 16], None).await.unwrap();
    volume.begin_import(ANN, MOVE, None).await.unwrap();
    copy(&backup, &volume, ANN).await;
    volume.begin_import(BOB, MOVE, None).await.unwrap();
    assert_eq!(
        volume.discard_import(BOB, MOVE, None).await,
        Err(Refusal::WrongState)
    );

    // Everything that a restore may ask for, behind the moment at which the adoption begins.
    let begin = Command::BeginAdoption;
    volume.inner.submit(begin).await.done().unwrap();
    let eve = AccountId(9);
    for refused in [
        volume.begin_import(eve, MOVE, None).await,
        volume.import_items(ANN, MOVE, items.clone()).await,
        volume.activate(ANN, E1, MOVE).await,
    ] {
        assert_eq!(refused, Err(Refusal::Adopted));
    }
    assert!(volume.is_restored(), "it is not adopted yet");
    volume.adopt().await.unwrap();
    let again = volume.activate(ANN, E1, MOVE).await;
    assert_eq!(again, Err(Refusal::WrongState));

    assert_eq!(names(&volume).await, kept);
    let ann = volume.mailbox(ANN, "INBOX").await.unwrap().unwrap();
    assert!(ann.uidnext >= known.uidnext + (1 << 20));
    let bob = volume.mailbox(BOB, "INBOX").await.unwrap().unwrap();
    assert!(
        bob.uidvalidity >= known.uidvalidity,
        "{} is not of this time",
        bob.uidvalidity
    );
    // The epoch is the directory's, of which they have not been told.
    let to = [ANN, BOB].map(|account| Recipient {
        epoch: Epoch(4),
        ..to(account)
    });
    for outcome in deliver_to(&volume, 4, b"Subject: new\r\n\r\n", to.into()).await {
        assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
    }
    settle_checkpoint(&volume);
    let index = volume.dump_index().await.unwrap();
    volume.close();
    drop(volume);
    assert_eq!(open(&new).dump_index().await.unwrap(), index);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_volume_whose_index_is_lost_is_made_anew() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    rebuild::much(&volume, 1000).await;
    make_copy(volume.inner.shared()).unwrap();
    volume.mark_restored(0).await.unwrap();
    volume.adopt().await.unwrap();
    rebuild::much(&volume, 2000).await;
    let before = names(&volume).await;
    let life = volume.incarnation();
    volume.close();
    drop(volume);
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    let volume = open(&dir);
    assert_eq!(names(&volume).await, before);
    assert_eq!((volume.incarnation(), volume.is_restored()), (life, false));
}
