//! Annotations of mailboxes and of the account.

use bytes::Bytes;

use super::*;
use moves::items_of;

async fn set(
    volume: &Volume,
    of: Option<MailboxId>,
    changes: &[(&str, Option<usize>)],
) -> Result<(), Refusal> {
    let change = |(entry, octets): &(&str, Option<usize>)| {
        let value = octets.map(|octets| Bytes::from(vec![b'v'; octets]));
        ((*entry).to_owned(), value)
    };
    let changes = changes.iter().map(change).collect();
    volume.annotate(ANN, E1, of, changes).await
}

/// Entries and the octets of their values, however many pages they take.
async fn all(volume: &Volume, of: Option<MailboxId>) -> Vec<(String, usize)> {
    let mut found: Vec<(String, usize)> = Vec::new();
    loop {
        let after = found.last().map_or("", |(entry, _)| entry.as_str());
        let page = volume.annotations(ANN, of, after).await.unwrap();
        if page.is_empty() {
            return found;
        }
        let sizes = page.into_iter().map(|(entry, value)| (entry, value.len()));
        found.extend(sizes);
    }
}

const INBOX: Option<MailboxId> = Some(MailboxId::INBOX);

#[tokio::test(flavor = "multi_thread")]
async fn annotations_stay_with_a_renamed_mailbox_and_go_with_a_deleted_one() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    volume.ensure_account(ANN, E1).await.unwrap();
    let plain = SpecialUse::default();
    let made = volume.create_mailbox(ANN, E1, "a", plain).await.unwrap();
    set(
        &volume,
        Some(made),
        &[("/shared/comment", Some(3)), ("/private/x", Some(0))],
    )
    .await
    .unwrap();
    set(&volume, None, &[("/private/comment", Some(1))])
        .await
        .unwrap();
    volume.rename_mailbox(ANN, E1, "a", "b").await.unwrap();
    assert_eq!(
        all(&volume, Some(made)).await,
        [
            ("/private/x".to_owned(), 0),
            ("/shared/comment".to_owned(), 3)
        ]
    );
    volume.delete_mailbox(ANN, E1, "b").await.unwrap();
    assert_eq!(all(&volume, Some(made)).await, []);
    assert_eq!(all(&volume, None).await.len(), 1, "the account's own stay");
    let gone = set(&volume, Some(made), &[("/shared/comment", Some(1))]).await;
    assert_eq!(gone, Err(Refusal::NoMailbox));
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn annotations_at_their_limits_are_taken_and_beyond_refused_whole() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    volume.ensure_account(ANN, E1).await.unwrap();
    let max = ANNOTATION_MAX_BYTES;
    for octets in [max - 1, max] {
        set(&volume, INBOX, &[("/shared/a", Some(octets))])
            .await
            .unwrap();
    }
    let over = set(
        &volume,
        INBOX,
        &[("/shared/b", Some(1)), ("/shared/a", Some(max + 1))],
    )
    .await;
    assert_eq!(over, Err(Refusal::Full));
    assert_eq!(all(&volume, INBOX).await, [("/shared/a".to_owned(), max)]);

    let long = |octets: usize| format!("/private/{}", "x".repeat(octets - 9));
    for octets in [254, 255] {
        set(&volume, INBOX, &[(&long(octets), Some(1))])
            .await
            .unwrap();
        set(&volume, INBOX, &[(&long(octets), None)]).await.unwrap();
    }
    for bad in [
        long(256),
        "/private".into(),
        "/private/".into(),
        "/shared//x".into(),
        "/shared/x/".into(),
        "/shared/A".into(),
        "/shared/a*".into(),
        "/shared/ä".into(),
        "/other/x".into(),
        String::new(),
    ] {
        let refused = set(&volume, INBOX, &[(&bad, Some(1))]).await;
        assert_eq!(refused, Err(Refusal::BadName), "{bad}");
    }

    for number in all(&volume, INBOX).await.len()..ANNOTATIONS_MAX {
        set(&volume, INBOX, &[(&format!("/shared/{number}"), Some(1))])
            .await
            .unwrap();
    }
    assert_eq!(all(&volume, INBOX).await.len(), ANNOTATIONS_MAX);
    let over = set(&volume, INBOX, &[("/shared/one-more", Some(1))]).await;
    assert_eq!(over, Err(Refusal::Full));
    // In the place of another one, or instead of a value, there is room.
    let swap = [
        ("/shared/one-more", Some(1)),
        ("/shared/1", None),
        ("/shared/2", Some(2)),
    ];
    set(&volume, INBOX, &swap).await.unwrap();

    // The account as a whole: some sixty of the longest, wherever they are.
    let plain = SpecialUse::default();
    let other = volume.create_mailbox(ANN, E1, "a", plain).await.unwrap();
    let mut count = 0;
    let refused = loop {
        match set(
            &volume,
            Some(other),
            &[(&format!("/shared/{count}"), Some(max))],
        )
        .await
        {
            Ok(()) => count += 1,
            Err(refusal) => break refusal,
        }
    };
    assert_eq!((refused, count), (Refusal::Full, 62));
    assert_eq!(all(&volume, Some(other)).await.len(), 62);
    // What is full can be made empty.
    set(&volume, Some(other), &[("/shared/0", None)])
        .await
        .unwrap();
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_values_of_one_entry_the_last_one_holds_and_nothing_is_no_change() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    volume.ensure_account(ANN, E1).await.unwrap();
    let twice = [
        ("/shared/a", Some(1)),
        ("/shared/b", Some(1)),
        ("/shared/a", Some(5)),
    ];
    set(&volume, INBOX, &twice).await.unwrap();
    let both = [("/shared/a".to_owned(), 5), ("/shared/b".to_owned(), 1)];
    assert_eq!(all(&volume, INBOX).await, both);
    let position = volume.status().position;
    set(&volume, INBOX, &[("/shared/none", None)])
        .await
        .unwrap();
    assert_eq!(volume.status().position, position);
    // No account tells of another one's.
    assert_eq!(volume.annotations(BOB, INBOX, "").await.unwrap(), []);
    assert_eq!(items_of(&volume, ANN).await.len(), 4);
    volume.close();
}
