//! Cards follow their blobs: made with them, copied with them, gone with them; a missing one is kept when it is made.

use super::*;
use crate::card::Card;

/// The cards in the index: numbers of their blobs, their octets.
fn cards(volume: &Volume) -> Vec<(u64, Vec<u8>)> {
    let index = &volume.inner.shared().index;
    let read = index.read(|txn| {
        let mut found = Vec::new();
        for row in index.cards.iter(txn)? {
            let (key, octets) = row?;
            found.push((u64::from_be_bytes(key.try_into().unwrap()), octets.to_vec()));
        }
        Ok::<_, error::IndexError>(found)
    });
    read.unwrap()
}

fn large_body() -> Vec<u8> {
    let text = b"0123456789\r\n".repeat(20_000);
    [b"Subject: large\r\n\r\n", &text[..]].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_is_made_with_its_blob_and_goes_with_it() {
    let dir = TempDir::new().unwrap();
    let config = VolumeConfig {
        links_max: 2,
        ..config(dir.path())
    };
    let volume = Volume::open(config, Arc::new(RealDisk)).unwrap();
    let bodies = [&b"Subject: a\r\n\r\nx"[..], b"Subject: b\r\n\r\nx"];
    deliver(&volume, 1, bodies[0], &[ANN, BOB]).await;
    deliver(&volume, 2, bodies[1], &[ANN]).await;
    settle(&volume);
    let told: Vec<Vec<u8>> = cards(&volume).into_iter().map(|(_, card)| card).collect();
    assert_eq!(told, bodies.map(Card::of_blob));
    // A new inode of the same octets.
    let inbox = MailboxId::INBOX;
    let copied = volume.copy_messages(ANN, E1, inbox, vec![1], inbox).await;
    copied.unwrap();
    settle(&volume);
    let copies = cards(&volume);
    let same = copies
        .iter()
        .filter(|(_, card)| *card == Card::of_blob(bodies[0]));
    assert_eq!((copies.len(), same.count()), (3, 2));
    for account in [ANN, BOB] {
        let all = volume.messages(account, inbox).await.unwrap();
        let uids = all.into_iter().map(|message| message.uid).collect();
        volume.expunge(account, E1, inbox, uids).await.unwrap();
        settle_unlinked(&volume).await;
    }
    assert_eq!(cards(&volume), []);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_card_is_kept_once_it_is_made_and_not_after_its_blob_went() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    let body = large_body();
    deliver(&volume, 1, &body, &[ANN]).await;
    settle(&volume);
    // A large body is not at hand when its record is applied.
    assert_eq!(cards(&volume), []);
    let reader = volume.mailbox_reader(ANN, MailboxId::INBOX).await;
    let batch = reader.messages(&[1], Want::HEADER).unwrap().unwrap();
    assert!(batch.contents[0].card.is_none());
    let card = Card::of_blob(&body);
    reader.keep_card(&batch.contents[0], card.clone());
    // What is applied next is behind it.
    deliver(&volume, 2, b"\r\n", &[BOB]).await;
    settle(&volume);
    assert_eq!(cards(&volume)[0].1, card);
    let again = reader.messages(&[1], Want::HEADER).unwrap().unwrap();
    assert_eq!(again.contents[0].prologue, batch.contents[0].prologue);
    let header = again.contents[0].card.as_ref().and_then(Card::header);
    assert_eq!(header.unwrap(), body[..18]);
    let inbox = MailboxId::INBOX;
    volume.expunge(ANN, E1, inbox, vec![1]).await.unwrap();
    settle_unlinked(&volume).await;
    assert_eq!(cards(&volume).len(), 1);
    reader.keep_card(&batch.contents[0], card);
    deliver(&volume, 3, b"\r\n", &[BOB]).await;
    settle(&volume);
    assert_eq!(cards(&volume).len(), 1);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_rebuilt_from_the_journal_has_its_cards() {
    let dir = TempDir::new().unwrap();
    let config = config_without_checkpoints(dir.path());
    let volume = Volume::open(config.clone(), Arc::new(RealDisk)).unwrap();
    for number in 1..=5 {
        let body = format!("Subject: {number}\r\n\r\nx");
        deliver(&volume, number, body.as_bytes(), &[ANN]).await;
    }
    settle(&volume);
    let before = cards(&volume);
    volume.inner.crash();
    drop(volume);
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let volume = Volume::open(config, Arc::new(RealDisk)).unwrap();
    assert_eq!(before.len(), 5);
    assert_eq!(cards(&volume), before);
    volume.close();
}
