use super::*;

const ALL: Want = Want {
    card: true,
    prologue: true,
    blob: true,
};

/// All of `uids`, batch after batch: UIDs, and how many batches it took.
fn read_all(reader: &MailboxReader, uids: &[u32], want: Want) -> (Vec<u32>, usize) {
    let (mut found, mut batches, mut rest) = (Vec::new(), 0, uids);
    while !rest.is_empty() {
        let batch = reader.messages(rest, want).unwrap().unwrap();
        assert!(batch.done_count > 0);
        rest = &rest[batch.done_count..];
        found.extend(batch.now.messages.iter().map(|message| message.uid));
        let count = match want == Want::ROWS {
            true => 0,
            false => batch.now.messages.len(),
        };
        assert_eq!(batch.contents.len(), count);
        batches += 1;
    }
    (found, batches)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_the_messages_there_are_of_those_asked_for() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    for number in 1..=60 {
        deliver(&volume, number, b"Subject: x\r\n\r\nx", &[ANN, BOB]).await;
    }
    let gone: Vec<u32> = (1..60).step_by(7).collect();
    let inbox = MailboxId::INBOX;
    volume.expunge(ANN, E1, inbox, gone.clone()).await.unwrap();
    let reader = volume.mailbox_reader(ANN, inbox).await;
    for step in [1, 2, 16, 17, 30] {
        for want in [Want::ROWS, Want::HEADER, ALL] {
            let asked: Vec<u32> = (1..80).step_by(step).collect();
            let is_there = |uid: &&u32| **uid <= 60 && !gone.contains(*uid);
            let there: Vec<u32> = asked.iter().filter(is_there).copied().collect();
            assert_eq!(read_all(&reader, &asked, want), (there, 1));
        }
    }
    let nowhere = volume.mailbox_reader(ANN, MailboxId(99)).await;
    assert!(nowhere.messages(&[1], Want::ROWS).unwrap().is_none());
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_with_large_prologues_is_cut_short() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    for number in 1..=20 {
        let recipient = Recipient {
            prologue: b"X: y\r\n".repeat(9_000),
            ..to(ANN)
        };
        deliver_to(&volume, number, b"\r\nx", vec![recipient]).await;
    }
    let inbox = MailboxId::INBOX;
    while volume.messages(ANN, inbox).await.unwrap().len() < 20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let reader = volume.mailbox_reader(ANN, inbox).await;
    let uids: Vec<u32> = (1..=20).collect();
    assert_eq!(read_all(&reader, &uids, Want::ROWS), (uids.clone(), 1));
    assert_eq!(read_all(&reader, &uids, ALL), (uids, 4));
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn octets_read_from_the_front_are_checked_at_the_end() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    let body = b"0123456789".repeat(30_000);
    deliver(&volume, 1, &body, &[ANN]).await;
    let inbox = MailboxId::INBOX;
    while volume.messages(ANN, inbox).await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    settle_unlinked(&volume).await;
    let reader = volume.mailbox_reader(ANN, inbox).await;
    let batch = reader.messages(&[1], ALL).unwrap().unwrap();
    let mut out = Vec::new();
    let mut blob = reader.open(&batch.contents[0]).unwrap().unwrap();
    blob.read_at(299_995, 5, &mut out).unwrap();
    assert!(!blob.has_begun());
    blob.read_at(0, 150_000, &mut out).unwrap();
    blob.read_at(150_000, 150_000, &mut out).unwrap();
    assert_eq!(out[5..], body);
    assert!(blob.read_at(299_999, 2, &mut out).is_err());
    volume.expunge(ANN, E1, inbox, vec![1]).await.unwrap();
    settle_unlinked(&volume).await;
    assert!(reader.open(&batch.contents[0]).unwrap().is_none());
    volume.close();
}
