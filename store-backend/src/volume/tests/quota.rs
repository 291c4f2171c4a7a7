//! What an account may keep: exact, whatever is in flight.

use directory_api::{ChangeNumber, Quota};

use super::moves::{MOVE, copy, name};
use super::*;

const BODY: &[u8] = b"Subject: hello\r\n\r\nbody\r\n";
const INBOX: MailboxId = MailboxId::INBOX;

fn octets(most: u64) -> Quota {
    Quota {
        octets: Some(most),
        messages: None,
        as_of: ChangeNumber(1),
    }
}

fn messages(most: u64) -> Quota {
    Quota {
        octets: None,
        messages: Some(most),
        as_of: ChangeNumber(1),
    }
}

async fn append(volume: &Volume, body: &[u8]) -> Result<Appended, Refusal> {
    let message = AppendMessage {
        body: AppendBody::Finished(blob(volume, body).await),
        flags: FlagSet::default(),
        internal_date_ms: 1,
    };
    volume.append(ANN, E1, INBOX, vec![message]).await
}

async fn used(volume: &Volume) -> (u64, u64) {
    let info = volume.account(ANN).await.unwrap().unwrap();
    (info.message_count, info.size_octets)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_may_be_reached_and_not_passed_by_append_and_copy() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    let size = BODY.len() as u64;
    volume
        .limit_account(ANN, E1, octets(3 * size))
        .await
        .unwrap();
    append(&volume, BODY).await.unwrap();
    let too_long = [BODY, BODY, b"x"].concat();
    assert_eq!(append(&volume, &too_long).await, Err(Refusal::OverQuota));
    append(&volume, &too_long[..2 * BODY.len() - 1])
        .await
        .unwrap();
    append(&volume, b"x").await.unwrap();
    assert_eq!(used(&volume).await, (3, 3 * size));
    assert_eq!(append(&volume, b"x").await, Err(Refusal::OverQuota));
    let all = volume.copy_messages(ANN, E1, INBOX, vec![3], INBOX).await;
    assert_eq!(all, Err(Refusal::OverQuota));
    volume.expunge(ANN, E1, INBOX, vec![1]).await.unwrap();
    // One octet as often as it fits.
    for _ in 0..size {
        let one = volume.copy_messages(ANN, E1, INBOX, vec![3], INBOX).await;
        assert_eq!(one.unwrap().uids.len(), 1);
    }
    let one = volume.copy_messages(ANN, E1, INBOX, vec![3], INBOX).await;
    assert_eq!(one, Err(Refusal::OverQuota));
    assert_eq!(used(&volume).await.1, 3 * size);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_within_the_account_and_a_delivery_are_never_over_quota() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    volume.limit_account(ANN, E1, messages(1)).await.unwrap();
    let sent = volume
        .create_mailbox(ANN, E1, "Sent", SpecialUse::SENT)
        .await
        .unwrap();
    append(&volume, BODY).await.unwrap();
    let moved = volume.move_messages(ANN, E1, INBOX, vec![1], sent).await;
    assert_eq!(moved.unwrap().uids.len(), 1);
    for number in 0..3 {
        uid(&deliver(&volume, number, BODY, &[ANN]).await[0]);
    }
    assert_eq!(append(&volume, b"x").await, Err(Refusal::OverQuota));
    // What a rename of INBOX takes along is what the index shows.
    settle(&volume);
    volume
        .rename_mailbox(ANN, E1, "INBOX", "Old")
        .await
        .unwrap();
    settle(&volume);
    assert_eq!(used(&volume).await.0, 4);
    // A deleted mailbox gives back what it held.
    volume.delete_mailbox(ANN, E1, "Old").await.unwrap();
    volume.delete_mailbox(ANN, E1, "Sent").await.unwrap();
    append(&volume, BODY).await.unwrap();
    assert_eq!(append(&volume, b"x").await, Err(Refusal::OverQuota));
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_too_many_messages_may_replace_one_by_a_longer_one() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    volume.limit_account(ANN, E1, messages(1)).await.unwrap();
    for number in 0..3 {
        uid(&deliver(&volume, number, BODY, &[ANN]).await[0]);
    }
    let longer = AppendMessage {
        body: AppendBody::Finished(blob(&volume, &[BODY, BODY].concat()).await),
        flags: FlagSet::default(),
        internal_date_ms: 1,
    };
    // Of messages it brings no more, and octets are not limited.
    let replaced = volume.replace(ANN, E1, (INBOX, 2), INBOX, longer).await;
    assert_eq!(replaced.unwrap().uids, [4]);
    assert_eq!(used(&volume).await.0, 3);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_appends_and_copies_at_once_exactly_those_are_taken_that_fit() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    volume.limit_account(ANN, E1, messages(40)).await.unwrap();
    append(&volume, BODY).await.unwrap();
    let mut running = Vec::new();
    for number in 0..100u64 {
        let volume = volume.clone();
        running.push(tokio::spawn(async move {
            match number % 4 {
                0 => {
                    deliver(&volume, number, BODY, &[ANN]).await;
                    true
                }
                1 => {
                    let copied = volume.copy_messages(ANN, E1, INBOX, vec![1], INBOX).await;
                    copied.is_ok()
                }
                _ => append(&volume, format!("n: {number}\r\n\r\n").as_bytes())
                    .await
                    .is_ok(),
            }
        }));
    }
    let mut taken = 1;
    for one in running {
        taken += u64::from(one.await.unwrap());
    }
    settle(&volume);
    let (count, size) = used(&volume).await;
    assert_eq!(count, taken);
    // Deliveries count and are not refused: between what fits and that many more.
    assert!((40..=65).contains(&taken), "{taken}");
    assert_eq!(append(&volume, BODY).await, Err(Refusal::OverQuota));
    // The counters that decide are those of the index, to the octet.
    let exactly = Quota {
        octets: Some(size + 1),
        messages: Some(count + 1),
        as_of: ChangeNumber(2),
    };
    volume.limit_account(ANN, E1, exactly).await.unwrap();
    assert_eq!(append(&volume, b"xx").await, Err(Refusal::OverQuota));
    append(&volume, b"x").await.unwrap();
    assert_eq!(used(&volume).await, (count + 1, size + 1));
    volume.close();
}

/// Messages and octets as the volume counts them, and as all mailboxes hold them.
async fn counted(volume: &Volume) -> [(u64, u64); 2] {
    let mut held = (0, 0);
    for mailbox in volume.mailboxes(ANN).await.unwrap() {
        for message in volume.messages(ANN, mailbox.mailbox).await.unwrap() {
            held = (held.0 + 1, held.1 + message.size_octets);
        }
    }
    [used(volume).await, held]
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_are_exact_while_all_kinds_of_writers_meet_at_the_limit() {
    let dir = TempDir::new().unwrap();
    let volume = Volume::open(
        VolumeConfig {
            expunge_grace: Duration::from_secs(3600),
            ..config(dir.path())
        },
        Arc::new(RealDisk),
    )
    .unwrap();
    volume.limit_account(ANN, E1, messages(30)).await.unwrap();
    let sent = volume.create_mailbox(ANN, E1, "Sent", SpecialUse::SENT);
    let sent = sent.await.unwrap();
    for _ in 0..30 {
        append(&volume, BODY).await.unwrap();
    }
    // Whatever is taken, the limit is never passed: nobody may see it, at no moment.
    let mut running = Vec::new();
    for number in 0..240u32 {
        let volume = volume.clone();
        running.push(tokio::spawn(async move {
            let uid = 1 + number / 4;
            match number % 4 {
                0 => drop(volume.expunge(ANN, E1, INBOX, vec![uid]).await.unwrap()),
                1 => drop(
                    volume
                        .copy_messages(ANN, E1, INBOX, vec![uid + 1], sent)
                        .await,
                ),
                2 => drop(
                    volume
                        .move_messages(ANN, E1, INBOX, vec![uid + 2], sent)
                        .await,
                ),
                _ => drop(append(&volume, BODY).await),
            }
            used(&volume).await.0
        }));
    }
    for one in running {
        assert!(one.await.unwrap() <= 30);
    }
    let [used, held] = counted(&volume).await;
    assert_eq!(used, held);
    // Mail and what an operator brings back are never refused, and count.
    let gone = volume.kept(ANN, None, 100, 0).await.unwrap();
    let gone: Vec<u32> = gone.iter().map(|one| one.uid).collect();
    assert!(!gone.is_empty());
    let mut running = Vec::new();
    for number in 0..120u32 {
        let (volume, gone) = (volume.clone(), gone.clone());
        running.push(tokio::spawn(async move {
            match number % 3 {
                0 => drop(deliver(&volume, number.into(), BODY, &[ANN]).await),
                1 => drop(
                    volume
                        .expunge(ANN, E1, INBOX, vec![40 + number])
                        .await
                        .unwrap(),
                ),
                _ => drop(volume.undelete(ANN, E1, INBOX, gone, None).await.unwrap()),
            }
        }));
    }
    for one in running {
        one.await.unwrap();
    }
    let [used, held] = counted(&volume).await;
    assert_eq!(used, held);
    // What decides has counted the same.
    let exactly = Quota {
        octets: Some(used.1 + 1),
        messages: Some(used.0 + 1),
        as_of: ChangeNumber(2),
    };
    volume.limit_account(ANN, E1, exactly).await.unwrap();
    assert_eq!(append(&volume, b"xx").await, Err(Refusal::OverQuota));
    append(&volume, b"x").await.unwrap();
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_outlive_a_restart_and_go_along_with_a_move() {
    let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let source = open(&here);
    let size = BODY.len() as u64;
    source.limit_account(ANN, E1, octets(size)).await.unwrap();
    append(&source, BODY).await.unwrap();
    let position = source.status().position;
    // The same again is no news.
    source.limit_account(ANN, E1, octets(size)).await.unwrap();
    source.ensure_account(ANN, E1).await.unwrap();
    assert_eq!(source.status().position, position);
    source.close();
    drop(source);

    let (source, target) = (open(&here), open(&there));
    assert_eq!(append(&source, b"x").await, Err(Refusal::OverQuota));
    source.freeze(ANN, E1, MOVE).await.unwrap();
    assert_eq!(
        source.limit_account(ANN, E1, octets(9)).await,
        Err(Refusal::Frozen)
    );
    target
        .begin_import(ANN, MOVE, Some(name("b1")))
        .await
        .unwrap();
    copy(&source, &target, ANN).await;
    assert_eq!(
        source.set_hash(ANN).await.unwrap(),
        target.set_hash(ANN).await.unwrap()
    );
    target.activate(ANN, Epoch(2), MOVE).await.unwrap();
    let info = target.account(ANN).await.unwrap().unwrap();
    assert_eq!((info.quota, info.size_octets), (octets(size), size));
    let message = AppendMessage {
        body: AppendBody::Finished(blob(&target, b"x").await),
        flags: FlagSet::default(),
        internal_date_ms: 1,
    };
    let refused = target.append(ANN, Epoch(2), INBOX, vec![message]).await;
    assert_eq!(refused, Err(Refusal::OverQuota));
    source.close();
    target.close();
}
