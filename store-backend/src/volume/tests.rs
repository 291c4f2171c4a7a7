//! A volume on a real disk, as its callers see it.
#![allow(clippy::unwrap_used)]

mod acl;
mod annotations;
mod batch;
mod broken;
mod bundles;
mod cards;
mod compact;
mod deliver;
mod detail;
mod failure;
mod follow;
mod fsck;
mod full;
mod golden;
mod hanging;
mod kept;
mod life;
mod mailbox;
mod messages;
mod model;
mod moves;
mod names;
mod octets;
mod power_cut;
mod quota;
mod rebuild;
mod recovery;
mod refusing;
mod repeats;
mod replay;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use directory_api::{AccountId, BackendName, Epoch, VolumeName};
use durable::RealDisk;
use store_api::deliver::Repeats;
use tempfile::TempDir;

use super::layout::Layout;
use super::sequencer::{Rules, Sequencer};
use super::*;
pub(crate) use hanging::Hanging;
pub(super) use power_cut::IndexTape;
pub(super) use refusing::Refusing;

const ANN: AccountId = AccountId(7);
const BOB: AccountId = AccountId(1_000_000);
const NO_FILES: [PathBuf; 0] = [];
const E1: Epoch = Epoch::FIRST;

/// A small volume, so that segments roll over and checkpoints happen.
fn config(path: &Path) -> VolumeConfig {
    VolumeConfig {
        journal_segment_size_bytes: 2 << 20,
        checkpoint_bytes: 1 << 20,
        checkpoint_interval: Duration::from_millis(20),
        index_map_size_bytes: 1 << 30,
        free_min_bytes: 0,
        free_min_percent: 0,
        // What a frozen account answers is asked for often.
        move_wait: Duration::ZERO,
        space_interval: Duration::from_millis(10),
        index_compact_above_bytes: 0,
        scrub_bytes_per_s: 0,
        ..VolumeConfig::new(
            path,
            BackendName::new("b1").unwrap(),
            VolumeName::new("v1").unwrap(),
        )
    }
}

/// Without checkpoints, so that the journal stays complete.
fn config_without_checkpoints(path: &Path) -> VolumeConfig {
    VolumeConfig {
        checkpoint_bytes: u64::MAX,
        checkpoint_interval: Duration::from_secs(3600),
        ..config(path)
    }
}

fn open(dir: &TempDir) -> Volume {
    Volume::open(config(dir.path()), Arc::new(RealDisk)).unwrap()
}

fn txn(number: u64) -> TransactionId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_le_bytes());
    id
}

fn to(account: AccountId) -> Recipient {
    let prologue = format!("Delivered-To: {account}\r\n").into_bytes();
    Recipient {
        account,
        epoch: E1,
        mailbox: MailboxId::INBOX,
        detail: None,
        prologue,
    }
}

async fn blob(volume: &Volume, body: &[u8]) -> FinishedBlob {
    let mut writer = volume.begin_blob();
    for piece in body.chunks(50_000) {
        writer.write(piece).await.unwrap();
    }
    let finished = writer.finish().await.unwrap();
    assert_eq!(finished.hash(), *blake3::hash(body).as_bytes());
    finished
}

async fn deliver_to(
    volume: &Volume,
    number: u64,
    body: &[u8],
    recipients: Vec<Recipient>,
) -> Vec<Outcome> {
    let delivery = Delivery {
        txn: txn(number),
        sender: b"sender@example.test".to_vec(),
        content_key: [0; 32],
        repeats: Repeats::Deliver,
        blob: blob(volume, body).await,
        trace: format!("t{number}"),
        received_ms: 1_700_000_000_000 + i64::try_from(number).unwrap(),
        recipients,
    };
    volume.deliver(delivery).await
}

async fn deliver(
    volume: &Volume,
    number: u64,
    body: &[u8],
    accounts: &[AccountId],
) -> Vec<Outcome> {
    deliver_to(
        volume,
        number,
        body,
        accounts.iter().map(|account| to(*account)).collect(),
    )
    .await
}

fn uid(outcome: &Outcome) -> u32 {
    match outcome {
        Outcome::Committed { uid, .. } => *uid,
        other => panic!("not committed: {other:?}"),
    }
}

/// A second sequencer, of which nothing is ever written: what it would decide. It keeps nothing that was expunged.
fn sequencer(volume: &Volume, links_max: u64) -> Sequencer {
    let shared = volume.inner.shared();
    let rules = Rules {
        links_max,
        expunge_grace_ms: 0,
        record_max_bytes: 1 << 20,
        quota_warning_percent: 90,
    };
    let held = Arc::clone(&shared.held);
    let broken = Arc::clone(&shared.broken);
    let life = Arc::clone(&shared.life);
    Sequencer::new(shared.index.clone(), rules, held, broken, life, [0; 32]).unwrap()
}

/// Waits until index and files have all that is in the journal.
fn settle(volume: &Volume) {
    let shared = volume.inner.shared();
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let status = volume.status();
        let materialised = shared
            .materialised
            .load(std::sync::atomic::Ordering::Acquire);
        if status.applied == status.position && materialised == status.position.0 {
            return;
        }
        assert!(
            Instant::now() < until && status.read_only.is_none(),
            "{status:?}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits for a checkpoint after everything.
fn settle_checkpoint(volume: &Volume) {
    settle(volume);
    let shared = volume.inner.shared();
    while !files_below(&shared.layout.file("incoming")).is_empty()
        || volume.status().checkpoint != volume.status().position
    {
        shared
            .wants_checkpoint
            .store(true, std::sync::atomic::Ordering::Relaxed);
        shared.files_queue.wake();
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until blobs without links are gone.
async fn settle_unlinked(volume: &Volume) {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        settle(volume);
        let dump = volume.dump_index().await.unwrap();
        if !dump.lines().any(|line| line.starts_with("unlinked ")) {
            return settle(volume);
        }
        assert!(Instant::now() < until, "{dump}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

async fn text(volume: &Volume, account: AccountId, uid: u32) -> Vec<u8> {
    let message = volume
        .read_message(account, MailboxId::INBOX, uid)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        message.info.size_octets,
        message.prologue.len() as u64 + message.blob.size()
    );
    [
        message.prologue.to_vec(),
        message.blob.read_all().await.unwrap(),
    ]
    .concat()
}

fn expected(account: AccountId, body: &[u8]) -> Vec<u8> {
    [format!("Delivered-To: {account}\r\n").as_bytes(), body].concat()
}

fn link_path(dir: &Path, account: AccountId, uid: u32) -> PathBuf {
    Layout { root: dir.into() }.message(account, MailboxId::INBOX, uid)
}

fn inode(path: &Path) -> (u64, u64) {
    let metadata = std::fs::metadata(path).unwrap();
    (metadata.ino(), metadata.nlink())
}

fn files_below(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}
