use super::*;

const BODY: &[u8] = b"Subject: hello\r\n\r\nbody\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn flags_are_replaced_added_and_removed_with_a_growing_modseq() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    for number in 1..=3 {
        deliver(&volume, number, BODY, &[ANN]).await;
    }
    let store = |uids, change| volume.store_flags(ANN, E1, MailboxId::INBOX, uids, change, None);
    let first = store(vec![1, 2, 9], FlagChange::Add(Flags::SEEN.into()))
        .await
        .unwrap();
    assert_eq!(first.changed, [1, 2]);
    let again = store(vec![1, 9], FlagChange::Add(Flags::SEEN.into()))
        .await
        .unwrap();
    assert_eq!((again.modseq, again.changed.len()), (0, 0));
    let now: Vec<_> = again.now.iter().map(|one| (one.uid, one.flags)).collect();
    assert_eq!(now, [(1, Flags::SEEN)]);
    assert_eq!(again.now[0].modseq, first.modseq);
    store(
        vec![1],
        FlagChange::Replace((Flags::FLAGGED | Flags::DRAFT).into()),
    )
    .await
    .unwrap();
    let last = store(vec![1], FlagChange::Remove(Flags::DRAFT.into()))
        .await
        .unwrap();
    assert!(last.modseq > first.modseq);
    let inbox = volume.mailbox(ANN, "inbox").await.unwrap().unwrap();
    assert_eq!(
        (inbox.highestmodseq, inbox.uidnext, inbox.message_count),
        (last.modseq, 4, 3)
    );
    let messages = volume.messages(ANN, MailboxId::INBOX).await.unwrap();
    assert_eq!(
        messages.iter().map(|m| m.flags).collect::<Vec<_>>(),
        [Flags::FLAGGED, Flags::SEEN, Flags::default()]
    );
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn expunge_removes_the_link_and_with_the_last_one_the_blob_and_no_uid_comes_back() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    deliver(&volume, 1, BODY, &[ANN, BOB]).await;
    let expunge = |account, uids| volume.expunge(account, E1, MailboxId::INBOX, uids);
    assert_eq!(expunge(ANN, vec![1, 1, 5]).await.unwrap().uids, [1]);
    assert_eq!(expunge(ANN, vec![1]).await.unwrap(), Expunged::default());
    settle_unlinked(&volume).await;
    assert!(!link_path(dir.path(), ANN, 1).exists());
    assert_eq!(inode(&link_path(dir.path(), BOB, 1)).1, 2);
    assert!(
        volume
            .read_message(ANN, MailboxId::INBOX, 1)
            .await
            .unwrap()
            .is_none()
    );
    let open_reader = volume
        .read_message(BOB, MailboxId::INBOX, 1)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(expunge(BOB, vec![1]).await.unwrap().uids, [1]);
    settle_unlinked(&volume).await;
    assert_eq!(files_below(&dir.path().join("blobs")), NO_FILES);
    assert_eq!(
        open_reader.blob.read_all().await.unwrap(),
        BODY,
        "who has begun to read reads to the end"
    );
    let ann = volume.account(ANN).await.unwrap().unwrap();
    assert_eq!((ann.message_count, ann.size_octets), (0, 0));
    assert_eq!(uid(&deliver(&volume, 2, BODY, &[ANN]).await[0]), 2);
    settle(&volume);
    assert_eq!(text(&volume, ANN, 2).await, expected(ANN, BODY));
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_is_delivered_again_while_its_last_message_goes_is_not_lost() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    let mut last = uid(&deliver(&volume, 0, BODY, &[ANN]).await[0]);
    for number in 1..60 {
        let (gone, outcomes) = tokio::join!(
            volume.expunge(ANN, E1, MailboxId::INBOX, vec![last]),
            deliver(&volume, number, BODY, &[ANN])
        );
        assert_eq!(gone.unwrap().uids.len(), 1);
        last = uid(&outcomes[0]);
    }
    settle_unlinked(&volume).await;
    assert_eq!(text(&volume, ANN, last).await, expected(ANN, BODY));
    assert_eq!(files_below(&dir.path().join("blobs")).len(), 1);
    assert_eq!(files_below(&dir.path().join("mail")).len(), 1);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_kept_for_the_grace_period() {
    let dir = TempDir::new().unwrap();
    let grace = VolumeConfig {
        expunge_grace: Duration::from_secs(3600),
        ..config(dir.path())
    };
    let volume = Volume::open(grace, Arc::new(RealDisk)).unwrap();
    deliver(&volume, 1, BODY, &[ANN]).await;
    volume
        .expunge(ANN, E1, MailboxId::INBOX, vec![1])
        .await
        .unwrap();
    settle(&volume);
    assert_eq!(files_below(&dir.path().join("blobs")).len(), 1);
    assert_eq!(files_below(&dir.path().join("mail")).len(), 0);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn mailboxes_have_their_own_numbers_and_growing_uidvalidity() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    assert_eq!(
        volume
            .create_mailbox(ANN, E1, "Sent", SpecialUse::default())
            .await,
        Err(Refusal::NoAccount)
    );
    volume.ensure_account(ANN, E1).await.unwrap();
    let sent = volume
        .create_mailbox(ANN, E1, "Sent", SpecialUse::default())
        .await
        .unwrap();
    let work = volume
        .create_mailbox(ANN, E1, "Work/Ärger", SpecialUse::default())
        .await
        .unwrap();
    for taken in ["Sent", "iNbOx"] {
        assert_eq!(
            volume
                .create_mailbox(ANN, E1, taken, SpecialUse::default())
                .await,
            Err(Refusal::MailboxExists)
        );
    }
    for bad in [
        "",
        "/",
        "/a",
        "a//b",
        "a\0b",
        &"x".repeat(MAILBOX_NAME_MAX_BYTES + 1),
        &"x/".repeat(MAILBOX_DEPTH_MAX + 1),
    ] {
        assert_eq!(
            volume
                .create_mailbox(ANN, E1, bad, SpecialUse::default())
                .await,
            Err(Refusal::BadName)
        );
    }
    let all = volume.mailboxes(ANN).await.unwrap();
    assert_eq!(
        all.iter().map(|m| &*m.name).collect::<Vec<_>>(),
        ["INBOX", "Sent", "Work", "Work/Ärger"]
    );
    assert_eq!((all[1].mailbox, all[3].mailbox), (sent, work));
    assert!(
        all.windows(2)
            .all(|pair| pair[0].uidvalidity < pair[1].uidvalidity)
    );
    let outcomes = deliver_to(
        &volume,
        1,
        BODY,
        vec![Recipient {
            mailbox: sent,
            ..to(ANN)
        }],
    )
    .await;
    assert_eq!(uid(&outcomes[0]), 1);
    settle(&volume);
    assert_eq!(volume.messages(ANN, sent).await.unwrap().len(), 1);
    assert_eq!(
        volume.messages(ANN, MailboxId::INBOX).await.unwrap().len(),
        0
    );
    volume.close();
}
