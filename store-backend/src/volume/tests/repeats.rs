//! What a sender who did not read the answer sends again is there once; what he sends a second time is there twice (P2).

use super::*;

const BODY: &[u8] = b"Subject: again\r\n\r\nbody\r\n";
const KEY: Hash = [3; 32];
const MOVE: MoveId = [9; 16];

async fn send(volume: &Volume, number: u64, repeats: Repeats, recipient: Recipient) -> Outcome {
    let delivery = Delivery {
        txn: txn(number),
        sender: b"ben@example.test".to_vec(),
        content_key: KEY,
        repeats,
        blob: blob(volume, BODY).await,
        trace: format!("t{number}"),
        received_ms: 0,
        recipients: vec![recipient],
    };
    volume.deliver(delivery).await.remove(0)
}

fn is_new(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Committed { .. } => true,
        Outcome::Duplicate => false,
        other => panic!("{other:?}"),
    }
}

/// Whether a message is taken as a new one.
async fn takes(volume: &Volume, number: u64, repeats: Repeats) -> bool {
    is_new(&send(volume, number, repeats, to(ANN)).await)
}

fn key(sender: &[u8], detail: Option<&str>) -> TransactionId {
    let detail = detail.map(|name| Detail {
        name: name.to_owned(),
        makes: false,
    });
    repeat_key(sender, &KEY, detail.as_ref())
}

#[test]
fn a_key_tells_sender_octets_and_detail_apart() {
    let keys = [
        key(b"a@x", None),
        key(b"a@x", Some("b")),
        key(b"a@xb", None),
        key(b"", None),
        repeat_key(b"a@x", &[4; 32], None),
    ];
    for (at, key) in keys.iter().enumerate() {
        assert!(!keys[..at].contains(key), "{at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_a_duplicate_until_the_answer_was_read() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    let ours = key(b"ben@example.test", None);
    assert!(takes(&volume, 1, Repeats::Suppress).await);
    // While it is in flight, when it is applied, and after a restart.
    assert!(!takes(&volume, 2, Repeats::Suppress).await);
    settle(&volume);
    assert!(!takes(&volume, 3, Repeats::Suppress).await);
    volume.close();
    drop(volume);
    let volume = open(&dir);
    assert!(!takes(&volume, 4, Repeats::Suppress).await);
    assert!(!takes(&volume, 5, Repeats::SuppressRead).await);

    // Somebody else's answer says nothing.
    volume
        .answered(vec![(BOB, ours), (ANN, key(b"", None))])
        .await;
    assert!(!takes(&volume, 6, Repeats::Suppress).await);

    volume.answered(vec![(ANN, ours)]).await;
    // Of what was held nobody knows whether it is the same.
    assert!(!takes(&volume, 7, Repeats::SuppressRead).await);
    assert!(takes(&volume, 8, Repeats::Suppress).await);
    // Of which the answer was not read.
    assert!(!takes(&volume, 9, Repeats::Suppress).await);
    volume.answered(vec![(ANN, ours), (ANN, ours)]).await;
    settle(&volume);
    volume.close();
    drop(volume);
    let volume = open(&dir);
    assert!(!takes(&volume, 10, Repeats::SuppressRead).await);
    assert!(takes(&volume, 11, Repeats::Suppress).await);
    // Who does not say so gets whatever he sends, and the same transaction never twice.
    assert!(takes(&volume, 12, Repeats::Deliver).await);
    assert!(!takes(&volume, 12, Repeats::Deliver).await);
    let account = volume.account(ANN).await.unwrap().unwrap();
    assert_eq!(account.message_count, 4);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_account_or_detail_makes_another_message() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    let detailed = |name: &str| Recipient {
        detail: Some(Detail {
            name: name.to_owned(),
            makes: false,
        }),
        ..to(ANN)
    };
    let recipients = [to(ANN), to(BOB), detailed("a"), detailed("b")];
    for (number, is_first) in [(10, true), (20, false)] {
        for (at, recipient) in (0..).zip(&recipients) {
            let outcome = send(&volume, number + at, Repeats::Suppress, recipient.clone()).await;
            assert_eq!(is_new(&outcome), is_first, "{at}");
        }
    }
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_account_knows_its_repeats() {
    let ours = key(b"ben@example.test", None);
    for was_read in [false, true] {
        let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let (old, new) = (open(&one), open(&two));
        assert!(takes(&old, 1, Repeats::Suppress).await);
        settle(&old);
        let tally = old.tally(ANN).await.unwrap();
        if was_read {
            old.answered(vec![(ANN, ours)]).await;
        }
        old.freeze(ANN, E1, MOVE).await.unwrap();
        // Too late, and no harm.
        old.answered(vec![(ANN, ours)]).await;
        settle(&old);
        let followed = old.refresh(tally).await.unwrap();
        assert_eq!(followed.set_hash(), old.set_hash(ANN).await.unwrap());
        let from = Some(BackendName::new("b1").unwrap());
        new.begin_import(ANN, MOVE, from).await.unwrap();
        drop(new.put_blob(blob(&new, BODY).await).await.unwrap());
        let items = moves::items_of(&old, ANN).await;
        new.import_items(ANN, MOVE, items).await.unwrap();
        new.activate(ANN, Epoch(2), MOVE).await.unwrap();
        let again = Recipient {
            epoch: Epoch(2),
            ..to(ANN)
        };
        let outcome = send(&new, 2, Repeats::Suppress, again.clone()).await;
        assert_eq!(is_new(&outcome), was_read);
        new.answered(vec![(ANN, ours)]).await;
        assert!(is_new(&send(&new, 3, Repeats::Suppress, again).await));
        old.close();
        new.close();
    }
}
