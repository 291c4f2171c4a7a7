//! What sessions do to messages: append, copy, move, keywords, the history of what went.

use std::collections::BTreeSet;

use super::*;

const BODY: &[u8] = b"Subject: hello\r\n\r\nbody\r\n";
const INBOX: MailboxId = MailboxId::INBOX;

async fn with_sent(volume: &Volume) -> MailboxId {
    volume.ensure_account(ANN, E1).await.unwrap();
    volume
        .create_mailbox(ANN, E1, "Sent", SpecialUse::SENT)
        .await
        .unwrap()
}

async fn message(volume: &Volume, body: &[u8]) -> AppendMessage {
    AppendMessage {
        body: AppendBody::Finished(blob(volume, body).await),
        flags: Flags::SEEN.into(),
        internal_date_ms: 12_345,
    }
}

async fn append(volume: &Volume, mailbox: MailboxId, count: usize) -> Appended {
    let mut messages = Vec::new();
    for _ in 0..count {
        messages.push(message(volume, BODY).await);
    }
    volume.append(ANN, E1, mailbox, messages).await.unwrap()
}

async fn snapshot(volume: &Volume, mailbox: MailboxId) -> Snapshot {
    volume.snapshot(ANN, mailbox).await.unwrap().unwrap()
}

fn keywords(names: &[&str]) -> FlagSet {
    FlagSet {
        system: Flags::default(),
        keywords: names.iter().map(|&name| name.to_owned()).collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn append_adds_all_messages_as_they_were_written_and_shares_their_octets() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    let sent = with_sent(&volume).await;
    deliver(&volume, 1, BODY, &[ANN]).await;
    let large = vec![b'l'; BLOB_INLINE_MAX_BYTES + 1];
    let put = blob(&volume, b"put before\r\n").await;
    let (hash, octets) = (put.hash(), put.size());
    let _held = volume.put_blob(put).await.unwrap();
    let messages = vec![
        message(&volume, BODY).await,
        message(&volume, &large).await,
        AppendMessage {
            body: AppendBody::Put {
                hash,
                octets,
                identity: None,
            },
            flags: keywords(&["$Forwarded"]),
            internal_date_ms: -1,
        },
        message(&volume, BODY).await,
    ];
    let done = volume.append(ANN, E1, sent, messages).await.unwrap();
    assert_eq!(done.uids, [1, 2, 3, 4]);
    let now = snapshot(&volume, sent).await;
    assert_eq!(now.mailbox.uidvalidity, done.uidvalidity);
    assert_eq!((now.mailbox.uidnext, now.mailbox.unseen_count), (5, 1));
    let dates: Vec<_> = now
        .messages
        .iter()
        .map(|one| one.internal_date_ms)
        .collect();
    assert_eq!(dates, [12_345, 12_345, -1, 12_345]);
    assert!(now.messages.iter().all(|one| one.modseq == done.modseq));
    assert!(
        now.messages
            .iter()
            .all(|one| one.save_date_ms > 1_600_000_000_000)
    );
    let third = now.keywords_of(&now.messages[2]).collect::<Vec<_>>();
    assert_eq!(third, ["$Forwarded"]);
    settle(&volume);
    for (uid, body) in [(1, BODY), (2, &large), (3, b"put before\r\n"), (4, BODY)] {
        let read = volume.read_message(ANN, sent, uid).await.unwrap().unwrap();
        assert!(read.prologue.is_empty());
        assert_eq!(read.blob.read_all().await.unwrap(), body);
    }
    let path = |mailbox, uid| {
        Layout {
            root: dir.path().into(),
        }
        .message(ANN, mailbox, uid)
    };
    assert_eq!(inode(&path(sent, 1)), inode(&path(INBOX, 1)));
    assert_eq!(inode(&path(sent, 1)).1, 4, "three messages and the blob");
    let all = volume.messages(ANN, sent).await.unwrap();
    let identities: BTreeSet<_> = all.iter().map(|one| one.identity).collect();
    assert_eq!(identities.len(), 4);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_is_refused_adds_nothing() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    let sent = with_sent(&volume).await;
    let before = volume.dump_index().await.unwrap();
    let append = |messages| volume.append(ANN, E1, sent, messages);
    let missing = AppendMessage {
        body: AppendBody::Put {
            hash: [7; 32],
            octets: 3,
            identity: None,
        },
        ..message(&volume, BODY).await
    };
    assert_eq!(
        append(vec![message(&volume, BODY).await, missing]).await,
        Err(Refusal::MissingBlobs(vec![[7; 32]]))
    );
    let bad = AppendMessage {
        flags: keywords(&["not an atom"]),
        ..message(&volume, BODY).await
    };
    assert_eq!(
        append(vec![message(&volume, BODY).await, bad]).await,
        Err(Refusal::BadName)
    );
    assert_eq!(append(Vec::new()).await, Err(Refusal::Full));
    let mut many = Vec::new();
    for _ in 0..=APPEND_MESSAGES_MAX {
        many.push(message(&volume, b"").await);
    }
    assert_eq!(append(many).await, Err(Refusal::Full));
    assert_eq!(volume.dump_index().await.unwrap(), before);
    let elsewhere = volume.append(ANN, E1, MailboxId(9), vec![message(&volume, BODY).await]);
    assert_eq!(elsewhere.await, Err(Refusal::NoMailbox));
    let stale = volume.append(ANN, Epoch(9), sent, vec![message(&volume, BODY).await]);
    assert_eq!(stale.await, Err(Refusal::StaleEpoch { ours: E1 }));
    volume.freeze(ANN, E1, [1; 16]).await.unwrap();
    assert_eq!(
        append(vec![message(&volume, BODY).await]).await,
        Err(Refusal::Frozen)
    );
    let copied = volume.copy_messages(ANN, E1, INBOX, vec![1], sent).await;
    assert_eq!(copied, Err(Refusal::Frozen));
    let renamed = volume.rename_mailbox(ANN, E1, "Sent", "x").await;
    assert_eq!(renamed, Err(Refusal::Frozen));
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_and_move_keep_identity_prologue_and_inode() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    let sent = with_sent(&volume).await;
    for number in 1..=3 {
        deliver(&volume, number, BODY, &[ANN]).await;
    }
    let change = FlagChange::Add(keywords(&["a", "b"]));
    volume
        .store_flags(ANN, E1, INBOX, vec![3], change, None)
        .await
        .unwrap();
    let own = FlagChange::Add(keywords(&["B"]));
    append(&volume, sent, 1).await;
    volume
        .store_flags(ANN, E1, sent, vec![1], own, None)
        .await
        .unwrap();
    let before = volume.messages(ANN, INBOX).await.unwrap();
    let copied = volume
        .copy_messages(ANN, E1, INBOX, vec![3, 1, 3, 77], sent)
        .await
        .unwrap();
    assert_eq!(copied.uids, [(1, 2), (3, 3)]);
    assert_eq!(copied.source_modseq, 0);
    let moved = volume
        .move_messages(ANN, E1, INBOX, vec![1, 2], sent)
        .await
        .unwrap();
    assert_eq!(moved.uids, [(1, 4), (2, 5)]);
    let inbox = snapshot(&volume, INBOX).await;
    assert_eq!(inbox.mailbox.highestmodseq, moved.source_modseq);
    assert_eq!(inbox.messages.len(), 1);
    let now = snapshot(&volume, sent).await;
    let third = now.keywords_of(&now.messages[2]).collect::<Vec<_>>();
    assert_eq!(third, ["B", "a"], "in the spelling the mailbox knows");
    let after = volume.messages(ANN, sent).await.unwrap();
    for (source, target) in [(0, 1), (2, 2), (0, 3), (1, 4)] {
        assert_eq!(after[target].identity, before[source].identity);
        assert_eq!(
            after[target].internal_date_ms,
            before[source].internal_date_ms
        );
        assert!(after[target].save_date_ms >= before[source].save_date_ms);
    }
    settle(&volume);
    let read = volume.read_message(ANN, sent, 4).await.unwrap().unwrap();
    let text = [read.prologue.to_vec(), read.blob.read_all().await.unwrap()].concat();
    assert_eq!(text, expected(ANN, BODY));
    assert!(!link_path(dir.path(), ANN, 1).exists());
    // Five in Sent, one in INBOX, and the blob itself.
    assert_eq!(inode(&link_path(dir.path(), ANN, 3)).1, 7);
    assert_eq!(files_below(&dir.path().join("blobs")).len(), 1);
    let nothing = volume.move_messages(ANN, E1, INBOX, vec![9], sent).await;
    assert_eq!((nothing.unwrap().uids, now.mailbox.uidnext), (vec![], 6));
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_does_not_fit_into_a_record_is_refused_and_a_part_of_it_is_not() {
    let dir = TempDir::new().unwrap();
    let small = VolumeConfig {
        journal_segment_size_bytes: 128 << 10,
        ..config(dir.path())
    };
    let volume = Volume::open(small, Arc::new(RealDisk)).unwrap();
    let sent = with_sent(&volume).await;
    append(&volume, INBOX, 600).await;
    append(&volume, INBOX, 600).await;
    let copy = |uids| volume.copy_messages(ANN, E1, INBOX, uids, sent);
    assert_eq!(copy((1..=1200).collect()).await, Err(Refusal::Full));
    assert_eq!(copy((1..=600).collect()).await.unwrap().uids.len(), 600);
    assert_eq!(snapshot(&volume, sent).await.messages.len(), 600);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn keywords_have_limits_and_one_spelling() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    with_sent(&volume).await;
    append(&volume, INBOX, 5).await;
    let store = |uid, change| volume.store_flags(ANN, E1, INBOX, vec![uid], change, None);
    let numbered = |numbers: std::ops::Range<usize>| FlagSet {
        system: Flags::default(),
        keywords: numbers.map(|number| format!("k{number}")).collect(),
    };
    let max = MESSAGE_KEYWORDS_MAX;
    let over = FlagChange::Add(numbered(0..max + 1));
    assert_eq!(store(1, over).await, Err(Refusal::Full));
    assert_eq!(snapshot(&volume, INBOX).await.keywords.len(), 0);
    for uid in 1..=4 {
        let place = (uid as usize - 1) * max;
        let change = FlagChange::Add(numbered(place..place + max));
        assert_eq!(store(uid, change).await.unwrap().changed, [uid]);
    }
    assert_eq!(snapshot(&volume, INBOX).await.keywords.len(), KEYWORDS_MAX);
    let new = FlagChange::Add(keywords(&["onemore"]));
    assert_eq!(store(5, new.clone()).await, Err(Refusal::Full));
    assert_eq!(store(1, new).await, Err(Refusal::Full));
    let more = FlagChange::Add(numbered(200..201));
    assert_eq!(store(1, more).await, Err(Refusal::Full));
    let known = FlagChange::Replace(keywords(&["K0", "k511"]));
    assert_eq!(store(5, known).await.unwrap().changed, [5]);
    let gone = FlagChange::Remove(keywords(&["k0", "unknown"]));
    assert_eq!(store(5, gone).await.unwrap().changed, [5]);
    let now = snapshot(&volume, INBOX).await;
    let last = now.keywords_of(&now.messages[4]).collect::<Vec<_>>();
    assert_eq!(last, ["k511"]);
    let long = "x".repeat(KEYWORD_MAX_BYTES + 1);
    for bad in ["", "a b", "\\Seen", "a]", "ä", "a\0", &long] {
        let change = FlagChange::Add(keywords(&[bad]));
        assert_eq!(store(5, change).await, Err(Refusal::BadName), "{bad:?}");
    }
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn unchangedsince_names_the_messages_that_others_have_changed() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    with_sent(&volume).await;
    let appended = append(&volume, INBOX, 3).await;
    let store = |uids, flags: Flags, since| {
        let change = FlagChange::Add(flags.into());
        volume.store_flags(ANN, E1, INBOX, uids, change, since)
    };
    let other = store(vec![2], Flags::FLAGGED, None).await.unwrap();
    let mine = store(vec![1, 2, 3], Flags::DELETED, Some(appended.modseq)).await;
    let mine = mine.unwrap();
    assert_eq!((mine.changed, mine.failed), (vec![1, 3], vec![2]));
    assert_eq!(mine.modseq, other.modseq + 1);
    let none = store(vec![1, 2, 3], Flags::DELETED, Some(0)).await.unwrap();
    assert_eq!((none.modseq, none.failed), (0, vec![1, 2, 3]));
    let gone = volume.expunge_deleted(ANN, E1, INBOX, vec![(1, 2)]).await;
    assert_eq!(gone.unwrap().uids, [1]);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_of_expunged_uids_is_bounded_and_never_wrong() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    with_sent(&volume).await;
    append(&volume, INBOX, 1000).await;
    let last = append(&volume, INBOX, 1000).await;
    let expunge = |uids| volume.expunge(ANN, E1, INBOX, uids);
    let odd = |from: u32| (from..from + 1000).step_by(2).collect::<Vec<_>>();
    let since = |modseq| {
        let volume = volume.clone();
        async move {
            let changes = volume.changes_since(ANN, INBOX, modseq).await;
            let changes = changes.unwrap().unwrap();
            assert_eq!(changes.now.messages, []);
            changes.vanished
        }
    };
    let first = expunge(odd(1)).await.unwrap();
    expunge(odd(1001)).await.unwrap();
    assert_eq!(since(last.modseq).await.len(), 1000, "the limit");
    assert_eq!(since(first.modseq).await.len(), 500);
    let third = expunge(vec![2]).await.unwrap();
    assert_eq!(since(first.modseq).await.len(), 501, "still whole");
    assert_eq!(since(first.modseq).await[0], (2, 2));
    // Further back: every UID without a message.
    let mut all = since(last.modseq).await;
    assert_eq!(all.remove(0), (1, 3));
    assert_eq!(all.len(), 998);
    assert_eq!(since(third.modseq).await, []);
    // One command beyond the limit leaves no history, and the answer stays right.
    append(&volume, INBOX, 1000).await;
    append(&volume, INBOX, 1000).await;
    let huge = expunge((2002..=4000).step_by(2).chain([2001]).collect()).await;
    assert_eq!(huge.unwrap().uids.len(), 1001);
    expunge((2003..=3999).step_by(2).collect()).await.unwrap();
    let changes = volume.changes_since(ANN, INBOX, 0).await.unwrap().unwrap();
    assert_eq!(*changes.vanished.last().unwrap(), (2001, 4000));
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_what_changed_after_it_can_be_read_and_costs_nothing_when_it_ends() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    let sent = with_sent(&volume).await;
    let (mut watch, mut other) = (volume.watch(ANN), volume.watch(BOB));
    for new in [&mut watch, &mut other] {
        // What came before is not known.
        let changed = new.changed().await.unwrap();
        assert!(changed.list && changed.annotations && changed.mailboxes.is_empty());
        assert_eq!(new.rung(), None);
    }
    deliver(&volume, 1, BODY, &[ANN]).await;
    let changed = watch.changed().await.unwrap();
    let inbox = snapshot(&volume, INBOX).await;
    assert_eq!(inbox.messages.len(), 1);
    let at = (INBOX, inbox.mailbox.highestmodseq);
    assert_eq!((changed.mailboxes, changed.list), (vec![at], false));
    let moved = volume.move_messages(ANN, E1, INBOX, vec![1], sent).await;
    let moved = moved.unwrap();
    volume.subscribe(ANN, E1, "x", true).await.unwrap();
    let changed = watch.rung().unwrap();
    assert_eq!(
        changed.mailboxes,
        [(INBOX, moved.source_modseq), (sent, moved.modseq)]
    );
    assert!(changed.list);
    assert!(
        tokio::time::timeout(Duration::from_millis(20), other.changed())
            .await
            .is_err()
    );
    let shared = volume.inner.shared();
    assert_eq!(shared.watchers.account_count(), 2);
    let second = volume.watch(ANN);
    drop(watch);
    assert_eq!(shared.watchers.account_count(), 2);
    drop(second);
    assert_eq!(shared.watchers.account_count(), 1);
    volume.close();
    assert_eq!((other.changed().await, other.rung()), (None, None));
    assert_eq!(volume.watch(ANN).changed().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_set_hash_covers_all_that_a_session_can_change() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    let sent = with_sent(&volume).await;
    append(&volume, sent, 2).await;
    let mut seen = BTreeSet::from([volume.set_hash(ANN).await.unwrap()]);
    let mut differs = async |what: &str| {
        let hash = volume.set_hash(ANN).await.unwrap();
        assert!(seen.insert(hash), "{what}");
    };
    let change = FlagChange::Add(keywords(&["a"]));
    let stored = volume.store_flags(ANN, E1, sent, vec![1], change, None);
    stored.await.unwrap();
    differs("keyword").await;
    volume.subscribe(ANN, E1, "Sent", true).await.unwrap();
    differs("subscription").await;
    let special_use = SpecialUse::ARCHIVE;
    let set = volume.set_special_use(ANN, E1, sent, special_use);
    set.await.unwrap();
    differs("special use").await;
    let renamed = volume.rename_mailbox(ANN, E1, "Sent", "Old");
    renamed.await.unwrap();
    differs("name").await;
    let moved = volume.move_messages(ANN, E1, sent, vec![1], sent);
    moved.await.unwrap();
    differs("uid").await;
    volume.expunge(ANN, E1, sent, vec![3]).await.unwrap();
    differs("expunged history").await;
    volume.delete_mailbox(ANN, E1, "Old").await.unwrap();
    differs("mailbox").await;
    volume.close();
}
