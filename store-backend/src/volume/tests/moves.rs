use super::*;

pub(super) const MOVE: MoveId = [9; 16];
const OTHER: MoveId = [8; 16];

pub(super) fn name(text: &str) -> BackendName {
    BackendName::new(text).unwrap()
}

pub(super) async fn items_of(volume: &Volume, account: AccountId) -> Vec<Item> {
    volume.items(account).await.unwrap()
}

/// Copies as a migrator does: try, send what is missing, try again.
pub(super) async fn copy(source: &Volume, target: &Volume, account: AccountId) {
    for items in items_of(source, account).await.chunks(100) {
        if let Err(refusal) = target.import_items(account, MOVE, items.to_vec()).await {
            let Refusal::MissingBlobs(missing) = refusal else {
                panic!("{refusal}")
            };
            assert_eq!(
                target.has_blobs(missing.clone()).await.unwrap(),
                vec![false; missing.len()]
            );
            let mut named: Vec<_> = items.iter().filter_map(Item::message).collect();
            named.retain(|message| missing.contains(&message.hash));
            named.sort_by_key(|message| message.hash);
            named.dedup_by_key(|message| message.hash);
            for message in named {
                let found = source
                    .read_message(account, message.mailbox, message.uid)
                    .await
                    .unwrap()
                    .unwrap();
                assert_eq!(found.blob.hash(), message.hash);
                let body = found.blob.read_all().await.unwrap();
                drop(target.put_blob(blob(target, &body).await).await.unwrap());
            }
            target
                .import_items(account, MOVE, items.to_vec())
                .await
                .unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_account_is_the_same_on_the_other_side() {
    let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (source, target) = (open(&here), open(&there));
    let shared_body = b"Subject: to both\r\n\r\n".to_vec();
    // The target knows one body already, by another account.
    deliver(&target, 1, &shared_body, &[BOB]).await;
    deliver(&source, 1, &shared_body, &[ANN]).await;
    deliver(&source, 2, &vec![b'x'; 300_000], &[ANN]).await;
    for number in 3..300 {
        deliver(
            &source,
            number,
            format!("n: {}\r\n\r\n", number % 50).as_bytes(),
            &[ANN],
        )
        .await;
    }
    let sent = source
        .create_mailbox(ANN, E1, "Sent", SpecialUse::SENT)
        .await
        .unwrap();
    deliver_to(
        &source,
        300,
        &shared_body,
        vec![Recipient {
            mailbox: sent,
            ..to(ANN)
        }],
    )
    .await;
    source
        .expunge(ANN, E1, MailboxId::INBOX, vec![299, 4])
        .await
        .unwrap();
    source
        .store_flags(
            ANN,
            E1,
            MailboxId::INBOX,
            vec![5, 6],
            FlagChange::Add(Flags::SEEN.into()),
            None,
        )
        .await
        .unwrap();

    source.freeze(ANN, E1, MOVE).await.unwrap();
    source.freeze(ANN, E1, MOVE).await.unwrap();
    assert_eq!(source.freeze(ANN, E1, OTHER).await, Err(Refusal::OtherMove));
    assert_eq!(deliver(&source, 900, b"x", &[ANN]).await, [Outcome::Frozen]);
    assert_eq!(
        source.expunge(ANN, E1, MailboxId::INBOX, vec![1]).await,
        Err(Refusal::Frozen)
    );
    assert_eq!(
        deliver(&source, 1, b"x", &[ANN]).await,
        [Outcome::Duplicate]
    );
    target
        .begin_import(ANN, MOVE, Some(name("b1")))
        .await
        .unwrap();
    target
        .begin_import(ANN, MOVE, Some(name("b1")))
        .await
        .unwrap();
    assert_eq!(deliver(&target, 901, b"x", &[ANN]).await, [Outcome::Frozen]);
    copy(&source, &target, ANN).await;
    // A resumed import sends everything again.
    copy(&source, &target, ANN).await;
    assert_eq!(
        source.set_hash(ANN).await.unwrap(),
        target.set_hash(ANN).await.unwrap()
    );
    let items = items_of(&source, ANN).await;
    assert_eq!(items, items_of(&target, ANN).await);
    assert_eq!(items.iter().filter_map(Item::message).count(), 298);

    target.activate(ANN, Epoch(2), MOVE).await.unwrap();
    target.activate(ANN, Epoch(2), MOVE).await.unwrap();
    source
        .release(ANN, MOVE, name("b2"), Epoch(2))
        .await
        .unwrap();
    source
        .release(ANN, MOVE, name("b2"), Epoch(2))
        .await
        .unwrap();
    let moved = Outcome::Moved {
        backend: name("b2"),
        epoch: Epoch(2),
    };
    assert_eq!(deliver(&source, 902, b"x", &[ANN]).await, [moved]);
    assert_eq!(
        source.mailboxes(ANN).await.unwrap(),
        target.mailboxes(ANN).await.unwrap()
    );
    for mailbox in [MailboxId::INBOX, sent] {
        let (one, other) = (
            source.messages(ANN, mailbox).await.unwrap(),
            target.messages(ANN, mailbox).await.unwrap(),
        );
        assert_eq!(one, other, "uids, flags, dates, sizes and uidl");
    }
    assert_eq!(
        source.account(ANN).await.unwrap().unwrap().size_octets,
        target.account(ANN).await.unwrap().unwrap().size_octets
    );
    settle(&target);
    assert_eq!(
        inode(&link_path(there.path(), ANN, 1)),
        inode(&link_path(there.path(), BOB, 1))
    );
    assert_eq!(inode(&link_path(there.path(), ANN, 1)).1, 4);
    assert_eq!(
        text(&target, ANN, 2).await,
        expected(ANN, &vec![b'x'; 300_000])
    );
    // Retries after the move are duplicates; UIDs go on.
    let at2 = |_| {
        vec![Recipient {
            epoch: Epoch(2),
            ..to(ANN)
        }]
    };
    assert_eq!(
        deliver_to(&target, 250, b"x", at2(())).await,
        [Outcome::Duplicate]
    );
    assert_eq!(uid(&deliver_to(&target, 903, b"x", at2(())).await[0]), 300);

    // And back: what was left here goes, what comes is the account.
    let back = [7; 16];
    target.freeze(ANN, Epoch(2), back).await.unwrap();
    source
        .begin_import(ANN, back, Some(name("b2")))
        .await
        .unwrap();
    settle(&source);
    assert_eq!(
        files_below(
            &Layout {
                root: here.path().into()
            }
            .account(ANN)
        ),
        NO_FILES
    );
    source.discard_import(ANN, back, None).await.unwrap();
    let moved = Outcome::Moved {
        backend: name("b2"),
        epoch: Epoch(2),
    };
    assert_eq!(deliver(&source, 904, b"x", &[ANN]).await, [moved]);
    source.close();
    target.close();
    for (volume, dir) in [(source, here), (target, there)] {
        drop(volume);
        open(&dir).close();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thaw_ends_a_freeze_and_survives_a_restart() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    deliver(&volume, 1, b"x", &[ANN]).await;
    volume.freeze(ANN, E1, MOVE).await.unwrap();
    volume.inner.crash();
    drop(volume);
    let volume = open(&dir);
    assert_eq!(deliver(&volume, 2, b"x", &[ANN]).await, [Outcome::Frozen]);
    assert_eq!(volume.thaw(ANN, OTHER).await, Err(Refusal::OtherMove));
    volume.thaw(ANN, MOVE).await.unwrap();
    volume.thaw(ANN, MOVE).await.unwrap();
    assert_eq!(uid(&deliver(&volume, 2, b"x", &[ANN]).await[0]), 2);
    assert_eq!(
        volume.release(ANN, MOVE, name("b2"), Epoch(2)).await,
        Err(Refusal::WrongState)
    );
    assert_eq!(
        volume.begin_import(ANN, MOVE, Some(name("b2"))).await,
        Err(Refusal::WrongState)
    );
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_set_hash_differs_when_one_flag_differs() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    for number in 0..20 {
        deliver(&volume, number, b"x", &[ANN]).await;
    }
    volume.ensure_account(ANN, E1).await.unwrap();
    let before = volume.set_hash(ANN).await.unwrap();
    assert_eq!(before, volume.set_hash(ANN).await.unwrap());
    volume
        .store_flags(
            ANN,
            E1,
            MailboxId::INBOX,
            vec![11],
            FlagChange::Add(Flags::SEEN.into()),
            None,
        )
        .await
        .unwrap();
    assert_ne!(before, volume.set_hash(ANN).await.unwrap());
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn items_that_do_not_belong_are_refused_and_nothing_of_them_is_kept() {
    let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (source, target) = (open(&here), open(&there));
    deliver(&source, 1, b"x", &[ANN]).await;
    source.freeze(ANN, E1, MOVE).await.unwrap();
    let items = items_of(&source, ANN).await;
    let import = |account, items| target.import_items(account, MOVE, items);
    assert_eq!(import(ANN, items.clone()).await, Err(Refusal::WrongState));
    target
        .begin_import(BOB, MOVE, Some(name("b1")))
        .await
        .unwrap();
    target
        .begin_import(ANN, MOVE, Some(name("b1")))
        .await
        .unwrap();
    let before = target.set_hash(ANN).await.unwrap();
    assert_eq!(import(BOB, items.clone()).await, Err(Refusal::BadItem));
    assert_eq!(
        import(ANN, vec![Item(b"junk".as_slice().into())]).await,
        Err(Refusal::BadItem)
    );
    assert!(matches!(
        import(ANN, items).await,
        Err(Refusal::MissingBlobs(_))
    ));
    assert_eq!(target.set_hash(ANN).await.unwrap(), before);
    source.close();
    target.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn items_with_long_prologues_and_full_inodes_are_taken_in_several_records() {
    let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let source = open(&here);
    let small = VolumeConfig {
        links_max: 7,
        ..config(there.path())
    };
    let target = Volume::open(small, Arc::new(RealDisk)).unwrap();
    for number in 0..40 {
        let long = Recipient {
            prologue: vec![b'p'; PROLOGUE_MAX_BYTES],
            ..to(ANN)
        };
        deliver_to(&source, number, b"x", vec![long]).await;
    }
    source.freeze(ANN, E1, MOVE).await.unwrap();
    target
        .begin_import(ANN, MOVE, Some(name("b1")))
        .await
        .unwrap();
    drop(target.put_blob(blob(&target, b"x").await).await.unwrap());
    let items = items_of(&source, ANN).await;
    target.import_items(ANN, MOVE, items).await.unwrap();
    assert_eq!(
        source.set_hash(ANN).await.unwrap(),
        target.set_hash(ANN).await.unwrap()
    );
    settle(&target);
    assert_eq!(
        files_below(&there.path().join("blobs")).len(),
        6,
        "40 links, 7 an inode"
    );
    let last = target
        .read_message(ANN, MailboxId::INBOX, 40)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(last.blob.read_all().await.unwrap(), b"x");
    source.close();
    target.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_pull_does_not_take_the_home_of_an_account_without_messages() {
    let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (source, target) = (open(&here), open(&there));
    // As POP3 users leave it: nothing is there, but UIDs were given.
    deliver(&source, 1, b"x", &[ANN]).await;
    source
        .expunge(ANN, E1, MailboxId::INBOX, vec![1])
        .await
        .unwrap();
    source.freeze(ANN, E1, MOVE).await.unwrap();
    target
        .begin_import(ANN, MOVE, Some(name("b1")))
        .await
        .unwrap();
    copy(&source, &target, ANN).await;
    target.activate(ANN, Epoch(2), MOVE).await.unwrap();
    let before = target.dump_index().await.unwrap();
    for late in [MOVE, OTHER] {
        assert_eq!(
            target.begin_import(ANN, late, Some(name("b1"))).await,
            Err(Refusal::WrongState)
        );
    }
    assert_eq!(target.dump_index().await.unwrap(), before);
    // At the first home too, and where nothing was ever delivered.
    source.thaw(ANN, MOVE).await.unwrap();
    target.ensure_account(BOB, E1).await.unwrap();
    target.freeze(BOB, E1, MOVE).await.unwrap();
    target.thaw(BOB, MOVE).await.unwrap();
    for (volume, account) in [(&source, ANN), (&target, BOB)] {
        assert_eq!(
            volume.begin_import(account, OTHER, Some(name("b3"))).await,
            Err(Refusal::WrongState)
        );
    }
    source.close();
    target.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_late_of_a_move_that_was_given_up_is_refused() {
    let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (mut source, mut target) = (open(&here), open(&there));
    deliver(&source, 1, b"x", &[ANN]).await;
    // Undone before anything was done: the requests come after it.
    source.thaw(ANN, MOVE).await.unwrap();
    for _ in 0..2 {
        let b1 = Some(name("b1"));
        target.discard_import(ANN, MOVE, b1).await.unwrap();
    }
    for restarted in [false, true] {
        if restarted {
            for (volume, dir) in [(&mut source, &here), (&mut target, &there)] {
                volume.inner.crash();
                // The lock on its folder goes with it.
                *volume = open(&TempDir::new().unwrap());
                *volume = open(dir);
            }
        }
        let frozen = source.freeze(ANN, E1, MOVE).await;
        assert_eq!(frozen, Err(Refusal::WrongState));
        let begun = target.begin_import(ANN, MOVE, Some(name("b1"))).await;
        assert_eq!(begun, Err(Refusal::WrongState));
        if restarted {
            // Others come and are given up, and it is known still.
            for number in 20..24 {
                source.freeze(ANN, E1, [number; 16]).await.unwrap();
                source.thaw(ANN, [number; 16]).await.unwrap();
                let b1 = Some(name("b1"));
                target
                    .begin_import(ANN, [number; 16], b1.clone())
                    .await
                    .unwrap();
                target.discard_import(ANN, [number; 16], b1).await.unwrap();
            }
            assert_eq!(source.freeze(ANN, E1, MOVE).await, Err(Refusal::WrongState));
            let begun = target.begin_import(ANN, MOVE, Some(name("b1"))).await;
            assert_eq!(begun, Err(Refusal::WrongState));
            assert!(source.has_ended(ANN, MOVE).await.unwrap());
            assert!(!source.has_ended(ANN, OTHER).await.unwrap());
            // Another move goes on.
            source.freeze(ANN, E1, OTHER).await.unwrap();
            let begun = target.begin_import(ANN, OTHER, Some(name("b1")));
            begun.await.unwrap();
            copy_of(&source, &target).await;
            source.close();
            target.close();
        }
    }
}

async fn copy_of(source: &Volume, target: &Volume) {
    drop(target.put_blob(blob(target, b"x").await).await.unwrap());
    let items = items_of(source, ANN).await;
    target.import_items(ANN, OTHER, items).await.unwrap();
    assert_eq!(
        source.set_hash(ANN).await.unwrap(),
        target.set_hash(ANN).await.unwrap()
    );
}
