use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::super::keeper::compact;
use super::*;

const BODY: &[u8] = b"Subject: hello\r\n\r\nbody\r\n";

/// Everything an account has, with the bodies.
pub(super) async fn contents(volume: &Volume, account: AccountId) -> Vec<(MessageInfo, Vec<u8>)> {
    let mut all = Vec::new();
    for info in volume.messages(account, MailboxId::INBOX).await.unwrap() {
        let body = text(volume, account, info.uid).await;
        all.push((info, body));
    }
    all
}

pub(super) async fn busy(volume: &Volume) {
    for number in 0..40 {
        deliver(
            volume,
            number,
            format!("n: {}\r\n\r\n", number % 7).as_bytes(),
            &[ANN, BOB],
        )
        .await;
    }
    let large = vec![b'z'; 200_000];
    deliver(volume, 100, &large, &[ANN]).await;
    deliver(volume, 101, &[large, vec![b'q']].concat(), &[BOB]).await;
    volume
        .expunge(ANN, E1, MailboxId::INBOX, vec![2, 41])
        .await
        .unwrap();
    volume
        .store_flags(
            BOB,
            E1,
            MailboxId::INBOX,
            (1..20).collect(),
            FlagChange::Add(Flags::SEEN.into()),
            None,
        )
        .await
        .unwrap();
    volume
        .create_mailbox(ANN, E1, "Sent", SpecialUse::SENT)
        .await
        .unwrap();
    volume.freeze(BOB, E1, [3; 16]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_volume_opens_as_it_was() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    busy(&volume).await;
    settle_unlinked(&volume).await;
    let before = (
        volume.dump_index().await.unwrap(),
        contents(&volume, ANN).await,
    );
    let status = volume.status();
    volume.close();
    assert_eq!(
        deliver(&volume, 200, BODY, &[ANN]).await,
        [Outcome::ReadOnly]
    );
    drop(volume);
    let volume = open(&dir);
    assert_eq!(
        (
            volume.dump_index().await.unwrap(),
            contents(&volume, ANN).await
        ),
        before
    );
    assert_eq!(
        volume.status().checkpoint,
        volume.status().position,
        "nothing was left to replay"
    );
    assert_eq!(volume.status().incarnation, status.incarnation);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_stop_without_a_close_everything_acknowledged_is_there_once() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    busy(&volume).await;
    volume.inner.crash();
    drop(volume);
    let volume = open(&dir);
    settle_unlinked(&volume).await;
    assert_eq!(contents(&volume, ANN).await.len(), 39);
    assert_eq!(contents(&volume, BOB).await.len(), 41);
    for number in 0..40 {
        assert_eq!(
            deliver(&volume, number, BODY, &[ANN, BOB]).await,
            [Outcome::Duplicate, Outcome::Duplicate]
        );
    }
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_rebuilt_from_the_whole_journal_is_the_same_index() {
    let dir = TempDir::new().unwrap();
    let config = config_without_checkpoints(dir.path());
    let volume = Volume::open(config.clone(), Arc::new(RealDisk)).unwrap();
    busy(&volume).await;
    settle_unlinked(&volume).await;
    let before = (
        volume.dump_index().await.unwrap(),
        contents(&volume, ANN).await,
    );
    let files = files_below(&dir.path().join("mail"));
    volume.close();
    drop(volume);
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let volume = Volume::open(config.clone(), Arc::new(RealDisk)).unwrap();
    assert_eq!(volume.dump_index().await.unwrap(), before.0);
    settle(&volume);
    assert_eq!(contents(&volume, ANN).await, before.1);
    assert_eq!(files_below(&dir.path().join("mail")), files);
    volume.close();
    drop(volume);
    // And the files too, those apart that went straight to a file.
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    std::fs::remove_dir_all(dir.path().join("mail")).unwrap();
    for blob in files_below(&dir.path().join("blobs")) {
        if std::fs::metadata(&blob).unwrap().len() < 100_000 {
            std::fs::remove_file(blob).unwrap();
        }
    }
    let volume = Volume::open(config, Arc::new(RealDisk)).unwrap();
    settle_unlinked(&volume).await;
    assert_eq!(volume.dump_index().await.unwrap(), before.0);
    assert_eq!(contents(&volume, ANN).await, before.1);
    assert_eq!(files_below(&dir.path().join("mail")), files);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_cannot_be_rebuilt_is_not_guessed() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    for number in 0..60 {
        deliver(
            &volume,
            number,
            &vec![b'a' + (number % 20) as u8; 90_000 + number as usize],
            &[ANN],
        )
        .await;
    }
    settle(&volume);
    volume.close();
    drop(volume);
    let volume = open(&dir);
    deliver(&volume, 100, BODY, &[ANN]).await;
    volume.close();
    drop(volume);
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    std::fs::remove_dir_all(dir.path().join("kept")).unwrap();
    let refused = Volume::open(config(dir.path()), Arc::new(RealDisk));
    assert!(
        matches!(refused, Err(OpenError::IndexLost { .. })),
        "{refused:?}"
    );
    std::fs::remove_dir_all(dir.path().join("journal")).unwrap();
    let refused = Volume::open(config(dir.path()), Arc::new(RealDisk));
    assert!(
        matches!(refused, Err(OpenError::JournalLost { .. })),
        "{refused:?}"
    );
}

/// The process that is killed; it does nothing unless the test below started it.
#[tokio::test(flavor = "multi_thread")]
async fn child_delivers_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD_VOLUME) else {
        return;
    };
    let first: u64 = std::env::var(CHILD_FIRST).unwrap().parse().unwrap();
    let volume = Volume::open(config(Path::new(&path)), Arc::new(RealDisk)).unwrap();
    let shared = Arc::clone(volume.inner.shared());
    // A kill mostly meets a compaction, too.
    std::thread::spawn(move || while compact(&shared, u64::MAX).is_ok() {});
    let mut tasks = Vec::new();
    for lane in 0..8 {
        let volume = volume.clone();
        tasks.push(tokio::spawn(async move {
            for number in (first + lane..first + 1_000_000).step_by(8) {
                let outcomes = deliver(&volume, number, &child_body(number), &[ANN, BOB]).await;
                assert!(
                    outcomes
                        .iter()
                        .all(|outcome| matches!(outcome, Outcome::Committed { .. })),
                    "{outcomes:?}"
                );
                println!("acknowledged {number}");
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

const CHILD_VOLUME: &str = "POSTHOUSE_TEST_CHILD_VOLUME";
const CHILD_FIRST: &str = "POSTHOUSE_TEST_CHILD_FIRST";

/// Small, shared and large ones.
fn child_body(number: u64) -> Vec<u8> {
    match number % 16 {
        0 => [vec![b'x'; 150_000], number.to_string().into_bytes()].concat(),
        1..4 => b"the same\r\n".to_vec(),
        _ => format!("n: {number}\r\n\r\n").into_bytes(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_during_deliveries_loses_and_doubles_nothing() {
    let dir = TempDir::new().unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..5_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "child_delivers_until_it_is_killed",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(CHILD_VOLUME, dir.path())
            .env(CHILD_FIRST, (round * 1_000_000).to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut count = 0;
        for line in lines.map_while(Result::ok) {
            if let Some((_, number)) = line.split_once("acknowledged ") {
                acknowledged.push(number.trim().parse::<u64>().unwrap());
                count += 1;
                if count == 60 + 37 * round {
                    child.kill().unwrap();
                }
            }
        }
        assert!(!child.wait().unwrap().success());
        assert!(count >= 60, "the child ended by itself");
    }
    let volume = open(&dir);
    // None of them left an index that was too old.
    assert!(!dir.path().join("quarantine").exists());
    assert!(!dir.path().join("index.new").exists());
    settle(&volume);
    for account in [ANN, BOB] {
        let found = contents(&volume, account).await;
        for number in &acknowledged {
            let wanted = 1_700_000_000_000 + i64::try_from(*number).unwrap();
            let same: Vec<_> = found
                .iter()
                .filter(|(info, _)| info.internal_date_ms == wanted)
                .collect();
            assert_eq!(same.len(), 1, "message {number} of {account}");
            assert!(
                same[0].1 == expected(account, &child_body(*number)),
                "message {number} of {account}"
            );
        }
        for (info, _) in &found {
            assert!(link_path(dir.path(), account, info.uid).exists());
        }
        let uids: Vec<_> = found.iter().map(|(info, _)| info.uid).collect();
        assert!(uids.windows(2).all(|pair| pair[0] < pair[1]));
    }
    for number in &acknowledged {
        assert_eq!(
            deliver(&volume, *number, BODY, &[ANN]).await,
            [Outcome::Duplicate]
        );
    }
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_whose_journal_and_index_are_gone_is_not_taken_for_an_empty_one() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    deliver(&volume, 1, BODY, &[ANN]).await;
    volume.close();
    drop(volume);
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    for segment in files_below(&dir.path().join("journal")) {
        std::fs::remove_file(segment).unwrap();
    }
    for _ in 0..2 {
        let refused = Volume::open(config(dir.path()), Arc::new(RealDisk));
        assert!(
            matches!(refused, Err(OpenError::JournalLost { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(files_below(&dir.path().join("mail")).len(), 1);
}
