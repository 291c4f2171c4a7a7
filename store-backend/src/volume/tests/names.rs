//! Mailboxes and their names.

use super::*;

const BODY: &[u8] = b"Subject: hello\r\n\r\nbody\r\n";

async fn names(volume: &Volume) -> Vec<String> {
    let all = volume.mailboxes(ANN).await.unwrap().into_iter();
    let mut names: Vec<_> = all.map(|info| info.name).collect();
    names.sort();
    names
}

async fn create(volume: &Volume, name: &str) -> Result<MailboxId, Refusal> {
    let plain = SpecialUse::default();
    volume.create_mailbox(ANN, E1, name, plain).await
}

async fn info(volume: &Volume, name: &str) -> MailboxInfo {
    volume.mailbox(ANN, name).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_made_again_has_another_identity_and_uidvalidity() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    volume.ensure_account(ANN, E1).await.unwrap();
    create(&volume, "a/b/").await.unwrap();
    assert_eq!(names(&volume).await, ["INBOX", "a", "a/b"]);
    let old = info(&volume, "a").await;
    let to_a = Recipient {
        mailbox: old.mailbox,
        ..to(ANN)
    };
    deliver_to(&volume, 1, BODY, vec![to_a]).await;
    volume.delete_mailbox(ANN, E1, "a").await.unwrap();
    assert_eq!(names(&volume).await, ["INBOX", "a/b"], "those below stay");
    settle_unlinked(&volume).await;
    assert_eq!(files_below(&dir.path().join("mail")), NO_FILES);
    assert_eq!(files_below(&dir.path().join("blobs")), NO_FILES);
    let account = volume.account(ANN).await.unwrap().unwrap();
    assert_eq!((account.message_count, account.size_octets), (0, 0));
    create(&volume, "a").await.unwrap();
    let new = info(&volume, "a").await;
    assert_ne!(old.identity, new.identity);
    assert!(new.mailbox > old.mailbox && new.uidvalidity > old.uidvalidity);
    let delete = |name| volume.delete_mailbox(ANN, E1, name);
    assert_eq!(delete("inbox").await, Err(Refusal::NotAllowed));
    assert_eq!(delete("none").await, Err(Refusal::NoMailbox));
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_mailbox_keeps_its_identity_and_those_below_follow() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    volume.ensure_account(ANN, E1).await.unwrap();
    for name in ["a/b/c", "ab", "x", "x/b"] {
        create(&volume, name).await.unwrap();
    }
    let before = info(&volume, "a/b").await;
    let rename = |from, to| volume.rename_mailbox(ANN, E1, from, to);
    assert_eq!(rename("a", "a/b/d").await, Err(Refusal::NotAllowed));
    assert_eq!(rename("a", "x").await, Err(Refusal::MailboxExists));
    assert_eq!(rename("none", "y").await, Err(Refusal::NoMailbox));
    assert_eq!(rename("a", "inbox").await, Err(Refusal::MailboxExists));
    volume.delete_mailbox(ANN, E1, "x").await.unwrap();
    // The place is free, but not one below it.
    assert_eq!(rename("a", "x").await, Err(Refusal::MailboxExists));
    rename("a", "new/place").await.unwrap();
    assert_eq!(
        names(&volume).await,
        [
            "INBOX",
            "ab",
            "new",
            "new/place",
            "new/place/b",
            "new/place/b/c",
            "x/b"
        ]
    );
    let after = info(&volume, "new/place/b").await;
    assert_eq!(
        (after.identity, after.uidvalidity, after.mailbox),
        (before.identity, before.uidvalidity, before.mailbox)
    );
    // Those below would get names that are too long or deep.
    let long = "l".repeat(MAILBOX_NAME_MAX_BYTES - 2);
    assert_eq!(rename("new", &long).await, Err(Refusal::BadName));
    let deep = vec!["d"; MAILBOX_DEPTH_MAX - 2].join("/");
    assert_eq!(rename("new", &deep).await, Err(Refusal::BadName));
    // Only the levels below have mailboxes.
    rename("x", "y").await.unwrap();
    assert!(names(&volume).await.contains(&"y/b".to_owned()));
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_inbox_moves_its_messages_and_stays() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    for number in 1..=3 {
        deliver(&volume, number, BODY, &[ANN]).await;
    }
    create(&volume, "inbox/below").await.unwrap();
    let before = info(&volume, "INBOX").await;
    settle(&volume);
    volume
        .rename_mailbox(ANN, E1, "inBOX", "old/mail")
        .await
        .unwrap();
    assert_eq!(
        names(&volume).await,
        ["INBOX", "INBOX/below", "old", "old/mail"]
    );
    let inbox = info(&volume, "INBOX").await;
    assert_eq!((inbox.message_count, inbox.uidnext), (0, 4));
    assert_eq!(inbox.identity, before.identity);
    assert_eq!(info(&volume, "old/mail").await.message_count, 3);
    assert_eq!(uid(&deliver(&volume, 4, BODY, &[ANN]).await[0]), 4);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_are_of_names_and_outlive_mailboxes_and_restarts() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    volume.ensure_account(ANN, E1).await.unwrap();
    create(&volume, "a").await.unwrap();
    for name in ["a", "inbox", "none/yet", "none/yet/"] {
        volume.subscribe(ANN, E1, name, true).await.unwrap();
    }
    volume.delete_mailbox(ANN, E1, "a").await.unwrap();
    volume.subscribe(ANN, E1, "never", false).await.unwrap();
    let bad = volume.subscribe(ANN, E1, "//", true).await;
    assert_eq!(bad, Err(Refusal::BadName));
    volume.close();
    drop(volume);
    let volume = open(&dir);
    let all = volume.listing(ANN).await.unwrap().subscriptions;
    assert_eq!(all.iter().collect::<Vec<_>>(), ["INBOX", "a", "none/yet"]);
    volume.subscribe(ANN, E1, "a", false).await.unwrap();
    assert_eq!(volume.listing(ANN).await.unwrap().subscriptions.len(), 2);
    assert!(volume.listing(BOB).await.unwrap().subscriptions.is_empty());
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn names_at_their_limits_are_taken() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    volume.ensure_account(ANN, E1).await.unwrap();
    let long = "l".repeat(MAILBOX_NAME_MAX_BYTES);
    let deep = vec!["d"; MAILBOX_DEPTH_MAX].join("/");
    create(&volume, &long).await.unwrap();
    create(&volume, &deep).await.unwrap();
    assert_eq!(names(&volume).await.len(), 2 + MAILBOX_DEPTH_MAX);
    let below = create(&volume, &format!("{deep}/e")).await;
    assert_eq!(below, Err(Refusal::BadName));
    let uses = SpecialUse::TRASH;
    let id = info(&volume, &long).await.mailbox;
    volume.set_special_use(ANN, E1, id, uses).await.unwrap();
    let status = volume.mailbox_status(ANN, id).await.unwrap().unwrap();
    assert_eq!(status.special_use, uses);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_inbox_is_renamed_whole() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    volume.ensure_account(ANN, E1).await.unwrap();
    for _ in 0..5 {
        let mut messages = Vec::new();
        for _ in 0..500 {
            messages.push(AppendMessage {
                body: AppendBody::Finished(blob(&volume, BODY).await),
                flags: FlagSet::default(),
                internal_date_ms: 0,
            });
        }
        let appended = volume.append(ANN, E1, MailboxId::INBOX, messages).await;
        assert_eq!(appended.unwrap().uids.len(), 500);
    }
    volume
        .rename_mailbox(ANN, E1, "INBOX", "old")
        .await
        .unwrap();
    let old = info(&volume, "old").await;
    assert_eq!((old.message_count, old.uidnext), (2500, 2501));
    assert_eq!(info(&volume, "INBOX").await.message_count, 0);
    volume.close();
}
