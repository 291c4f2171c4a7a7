//! An index that is lost and made anew from what outlives it.

use std::io::Read as _;

use flate2::read::ZlibDecoder;

use super::super::keeper::make_copy;
use super::recovery::{busy, contents};
use super::*;

const BODY: &[u8] = b"Subject: hello\r\n\r\nbody\r\n";

/// Enough that the journal's first segments are released.
pub(super) async fn much(volume: &Volume, first: u64) {
    for number in first..first + 60 {
        let size = 90_000 + usize::try_from(number).unwrap();
        let body = vec![b'a' + (number % 20) as u8; size];
        deliver(volume, number, &body, &[ANN]).await;
    }
    settle_checkpoint(volume);
}

async fn all_of(volume: &Volume) -> (String, Vec<(MessageInfo, Vec<u8>)>) {
    settle_unlinked(volume).await;
    let dump = volume.dump_index().await.unwrap();
    (dump, contents(volume, ANN).await)
}

fn oldest_segment(dir: &TempDir) -> PathBuf {
    let mut all = files_below(&dir.path().join("journal")).into_iter();
    all.find(|path| path.extension().unwrap() == "seg").unwrap()
}

/// A volume with work before and after a copy of its index, and the first segment of its journal gone.
async fn lived(dir: &TempDir) -> Volume {
    let volume = open(dir);
    busy(&volume).await;
    much(&volume, 1000).await;
    make_copy(volume.inner.shared()).unwrap();
    much(&volume, 2000).await;
    let uids = (1..20).collect();
    let flags = FlagChange::Add(Flags::FLAGGED.into());
    let flagged = volume.store_flags(ANN, E1, MailboxId::INBOX, uids, flags, None);
    flagged.await.unwrap();
    volume
        .rename_mailbox(ANN, E1, "Sent", "Gesendet")
        .await
        .unwrap();
    volume
        .expunge(ANN, E1, MailboxId::INBOX, vec![50])
        .await
        .unwrap();
    assert!(
        !oldest_segment(dir).ends_with("00000001.seg"),
        "nothing was released"
    );
    volume
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_was_deleted_is_made_anew_as_of_the_last_commit() {
    for crashes in [false, true] {
        let dir = TempDir::new().unwrap();
        let volume = lived(&dir).await;
        let before = all_of(&volume).await;
        let last = deliver(&volume, 3000, BODY, &[ANN]).await;
        let before_last = volume.messages(ANN, MailboxId::INBOX).await.unwrap();
        match crashes {
            true => volume.inner.crash(),
            false => volume.close(),
        }
        drop(volume);
        std::fs::remove_dir_all(dir.path().join("index")).unwrap();
        let volume = open(&dir);
        assert_eq!(
            volume.messages(ANN, MailboxId::INBOX).await.unwrap(),
            before_last
        );
        volume
            .expunge(ANN, E1, MailboxId::INBOX, vec![uid(&last[0])])
            .await
            .unwrap();
        let after = all_of(&volume).await;
        assert_eq!(after.1, before.1);
        // No UID is given twice, and nothing that was delivered is taken again.
        let next = deliver(&volume, 3001, BODY, &[ANN]).await;
        assert_eq!(uid(&next[0]), uid(&last[0]) + 1);
        assert_eq!(
            deliver(&volume, 3000, BODY, &[ANN]).await,
            [Outcome::Duplicate]
        );
        volume.close();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_made_anew_is_row_for_row_the_one_that_was_lost() {
    let dir = TempDir::new().unwrap();
    let volume = lived(&dir).await;
    let before = all_of(&volume).await;
    volume.close();
    drop(volume);
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let volume = open(&dir);
    assert!(all_of(&volume).await == before);
    // And once more, with what came since.
    much(&volume, 4000).await;
    let before = all_of(&volume).await;
    volume.close();
    drop(volume);
    std::fs::write(dir.path().join("index/data.mdb"), vec![b'x'; 1 << 20]).unwrap();
    let volume = open(&dir);
    assert!(all_of(&volume).await == before);
    let aside = files_below(&dir.path().join("quarantine"));
    assert!(
        aside.iter().any(|path| path.ends_with("data.mdb")),
        "{aside:?}"
    );
    volume.close();
}

/// The same copy as builds wrote it that did not pack its blocks.
fn as_version_1(copy: &[u8]) -> Vec<u8> {
    let number = |at: usize| u32::from_le_bytes(copy[at..at + 4].try_into().unwrap()) as usize;
    let mut plain = copy[..64].to_vec();
    plain[8] = 1;
    let mut at = 64;
    while at < copy.len() {
        let (packed, octets) = (number(at), number(at + 4));
        let mut rows = Vec::new();
        let read = ZlibDecoder::new(&copy[at + 16..at + 16 + packed]).read_to_end(&mut rows);
        assert_eq!(read.unwrap(), octets);
        if rows[0] == 0 {
            let end = rows.len() - 32;
            rows[end..].copy_from_slice(blake3::hash(&plain).as_bytes());
        }
        let octets = u32::try_from(octets).unwrap().to_le_bytes();
        plain.extend_from_slice(&[octets, [0; 4]].concat());
        plain.extend_from_slice(&blake3::hash(&rows).as_bytes()[..8]);
        plain.extend_from_slice(&rows);
        at += 16 + packed;
    }
    plain
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_whose_blocks_are_not_packed_is_read_too() {
    let dir = TempDir::new().unwrap();
    let volume = lived(&dir).await;
    let before = all_of(&volume).await;
    volume.close();
    drop(volume);
    let path = dir.path().join("kept/index.copy");
    let packed = std::fs::read(&path).unwrap();
    let plain = as_version_1(&packed);
    assert!(
        plain.len() > 2 * packed.len(),
        "{} {}",
        plain.len(),
        packed.len()
    );
    std::fs::write(&path, plain).unwrap();
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let volume = open(&dir);
    assert!(all_of(&volume).await == before);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_from_an_old_copy_is_put_aside_and_made_anew() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    busy(&volume).await;
    volume.close();
    drop(volume);
    let index = dir.path().join("index/data.mdb");
    let old = std::fs::read(&index).unwrap();
    let volume = open(&dir);
    much(&volume, 1000).await;
    much(&volume, 2000).await;
    let before = all_of(&volume).await;
    volume.close();
    drop(volume);
    std::fs::write(&index, old).unwrap();
    let volume = open(&dir);
    assert!(all_of(&volume).await == before);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_copy_the_kept_log_makes_the_index_from_the_first_record() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    busy(&volume).await;
    much(&volume, 1000).await;
    much(&volume, 2000).await;
    let before = all_of(&volume).await;
    volume.close();
    drop(volume);
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let volume = open(&dir);
    assert!(all_of(&volume).await == before);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_copy_and_kept_log_do_not_reach_the_journal_nothing_is_guessed() {
    let damages: [fn(&Path); 4] = [
        |kept| std::fs::remove_dir_all(kept).unwrap(),
        |kept| std::fs::remove_file(kept.join("index.copy")).unwrap(),
        // One bit in the middle of the copy.
        |kept| flip(&kept.join("index.copy"), 1000),
        // One bit in the first record behind the copy, and the file before it is gone.
        |kept| {
            let log = files_below(kept)
                .into_iter()
                .find(|path| path.extension().unwrap() == "log");
            flip(&log.unwrap(), 64 + 3);
        },
    ];
    for damage in damages {
        let dir = TempDir::new().unwrap();
        let volume = lived(&dir).await;
        // Also the kept log before it is gone then.
        make_copy(volume.inner.shared()).unwrap();
        let kept = dir.path().join("kept");
        much(&volume, 5000).await;
        much(&volume, 6000).await;
        volume.close();
        drop(volume);
        damage(&kept);
        std::fs::remove_dir_all(dir.path().join("index")).unwrap();
        for _ in 0..2 {
            let refused = Volume::open(config(dir.path()), Arc::new(RealDisk));
            let is_refused = matches!(refused, Err(OpenError::IndexLost { .. }));
            assert!(is_refused, "{refused:?}");
        }
    }
}

fn flip(path: &Path, at: usize) {
    let mut octets = std::fs::read(path).unwrap();
    octets[at] ^= 1;
    std::fs::write(path, octets).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_and_a_kept_log_of_another_volume_are_not_taken() {
    let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let volume = lived(&dir).await;
    volume.close();
    drop(volume);
    let volume = lived(&other).await;
    volume.close();
    drop(volume);
    let (kept, foreign) = (dir.path().join("kept"), other.path().join("kept"));
    std::fs::remove_dir_all(&kept).unwrap();
    std::fs::rename(&foreign, &kept).unwrap();
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let refused = Volume::open(config(dir.path()), Arc::new(RealDisk));
    let is_refused = matches!(refused, Err(OpenError::IndexLost { .. }));
    assert!(is_refused, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_costs_the_kept_log_its_trace_lines_and_little_more() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    let size = || -> u64 {
        let files = files_below(&dir.path().join("kept")).into_iter();
        files.map(|path| path.metadata().unwrap().len()).sum()
    };
    deliver(&volume, 1, BODY, &[ANN]).await;
    settle_checkpoint(&volume);
    let before = size();
    for number in 0..100 {
        deliver(
            &volume,
            100 + number,
            &vec![b'x'; 5000 + number as usize],
            &[ANN],
        )
        .await;
    }
    settle_checkpoint(&volume);
    let each = (size() - before) / 100;
    println!("{each} octets of the kept log for a delivery");
    assert!(each < 400, "{each}");
    volume.close();
}
