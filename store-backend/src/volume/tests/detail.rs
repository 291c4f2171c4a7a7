//! The mailbox of a subaddress, chosen with the commit.

use super::*;

const BODY: &[u8] = b"Subject: hello\r\n\r\nbody\r\n";

fn for_detail(name: &str, makes: bool) -> Recipient {
    let name = name.to_owned();
    Recipient {
        detail: Some(Detail { name, makes }),
        ..to(ANN)
    }
}

async fn create(volume: &Volume, name: &str, special_use: SpecialUse) {
    let made = volume.create_mailbox(ANN, E1, name, special_use).await;
    made.unwrap();
}

/// Where a message went, and which mailboxes there are then.
async fn went_to(volume: &Volume, number: u64, recipient: Recipient) -> (String, Vec<String>) {
    let count = async || {
        let all = volume.mailboxes(ANN).await.unwrap().into_iter();
        all.map(|info| (info.name, info.message_count))
    };
    let before: Vec<_> = count().await.collect();
    let outcomes = deliver_to(volume, number, BODY, vec![recipient]).await;
    assert!(
        matches!(&outcomes[..], [Outcome::Committed { .. }]),
        "{outcomes:?}"
    );
    // The reply comes before the index shows it.
    loop {
        let after: Vec<_> = count().await.collect();
        let grown = after.iter().filter(|(name, count)| {
            let had = before.iter().find(|(other, _)| other == name);
            had.map_or(0, |(_, count)| *count) < *count
        });
        let grown: Vec<String> = grown.map(|(name, _)| name.clone()).collect();
        if let [at] = &grown[..] {
            let at = at.clone();
            return (at, after.into_iter().map(|(name, _)| name).collect());
        }
        assert!(grown.is_empty(), "{grown:?}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detail_finds_the_mailbox_of_that_name_and_none_with_a_use() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    volume.ensure_account(ANN, E1).await.unwrap();
    let plain = SpecialUse::default();
    for name in [
        "Lists",
        "Lists/Rust",
        "Trash",
        "INBOX/Junk",
        "Trash/2024",
        "sent ITEMS",
        "ΟΔΟΣ",
    ] {
        create(&volume, name, plain).await;
    }
    // Of two that differ by their case alone, the one that may be written to by strangers.
    create(&volume, "NEWS", SpecialUse(1)).await;
    create(&volume, "News", plain).await;
    create(&volume, "Old", SpecialUse(1)).await;
    for (number, (detail, mailbox)) in [
        ("lists", "Lists"),
        ("lists/rust", "Lists/Rust"),
        ("οδος", "ΟΔΟΣ"),
        ("news", "News"),
        ("old", "INBOX"),
        ("trash", "INBOX"),
        ("trash/2024", "INBOX"),
        ("inbox/junk", "INBOX"),
        ("sent items", "INBOX"),
        ("inbox", "INBOX"),
        ("none", "INBOX"),
        ("list", "INBOX"),
        ("lists/", "INBOX"),
    ]
    .into_iter()
    .enumerate()
    {
        let (at, _) = went_to(&volume, number as u64, for_detail(detail, false)).await;
        assert_eq!(at, mailbox, "{detail}");
    }
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_is_made_for_a_detail_only_by_setting_and_within_limits() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    // Nothing is known of the account yet.
    let (at, names) = went_to(&volume, 1, for_detail("new", true)).await;
    assert_eq!((&*at, &names[..]), ("INBOX", &["INBOX".to_owned()][..]));
    for (number, (detail, mailbox)) in [
        ("new", "new"),
        ("a/b", "INBOX"),
        ("a*", "INBOX"),
        ("%", "INBOX"),
        ("drafts", "INBOX"),
        ("inbox", "INBOX"),
        ("new", "new"),
    ]
    .into_iter()
    .enumerate()
    {
        let recipient = for_detail(detail, true);
        let (at, names) = went_to(&volume, 2 + number as u64, recipient).await;
        assert_eq!((&*at, names.len()), (mailbox, 2), "{detail}: {names:?}");
    }
    let listing = volume.listing(ANN).await.unwrap();
    assert!(listing.subscriptions.contains("new"));
    // A message that is here already makes none.
    let again = deliver_to(&volume, 2, BODY, vec![for_detail("other", true)]).await;
    assert_eq!(again, [Outcome::Duplicate]);
    for number in 2..200 {
        create(&volume, &format!("m{number}"), SpecialUse::default()).await;
    }
    let (at, names) = went_to(&volume, 99, for_detail("other", true)).await;
    assert_eq!((&*at, names.len()), ("INBOX", 200));
    let (volume, names) = {
        volume.close();
        drop(volume);
        let volume = open(&dir);
        let names = volume.mailboxes(ANN).await.unwrap();
        (volume, names)
    };
    let made = names.iter().find(|info| info.name == "new").unwrap();
    assert_eq!(made.message_count, 2);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_message_may_make_mailboxes_for_several_and_goes_to_all() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    volume.ensure_account(ANN, E1).await.unwrap();
    volume.ensure_account(BOB, E1).await.unwrap();
    let of_bob = Recipient {
        account: BOB,
        ..for_detail("b", true)
    };
    let of_nobody = Recipient {
        account: AccountId(1 << 40),
        ..for_detail("c", true)
    };
    let all = vec![to(AccountId(9)), for_detail("a", true), of_bob, of_nobody];
    let mut outcomes = deliver_to(&volume, 1, BODY, all).await;
    assert_eq!(outcomes.pop(), Some(Outcome::NoAccount));
    assert!(
        outcomes
            .iter()
            .all(|one| matches!(one, Outcome::Committed { uid: 1, .. })),
        "{outcomes:?}"
    );
    volume.close();
    drop(volume);
    let volume = open(&dir);
    for (account, name) in [(ANN, "a"), (BOB, "b"), (AccountId(9), "INBOX")] {
        let mailbox = volume.mailbox(account, name).await.unwrap().unwrap();
        assert_eq!(mailbox.message_count, 1, "{name}");
    }
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_is_taken_though_its_mailbox_is_deleted_at_the_same_time() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    volume.ensure_account(ANN, E1).await.unwrap();
    for number in 0..40 {
        create(&volume, "Lists", SpecialUse::default()).await;
        let recipients = vec![for_detail("lists", false), to(BOB)];
        let (outcomes, deleted) = tokio::join!(
            deliver_to(&volume, number, BODY, recipients),
            volume.delete_mailbox(ANN, E1, "Lists"),
        );
        deleted.unwrap();
        let is_kept = |one: &Outcome| matches!(one, Outcome::Committed { .. });
        assert!(outcomes.iter().all(is_kept), "{outcomes:?}");
    }
    volume.close();
}
