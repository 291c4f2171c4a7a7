//! Delivering to a volume on the real disk: one at a time, and 32 at a time, which share a journal sync.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use directory_api::{AccountId, BackendName, Epoch, VolumeName};
use divan::Bencher;
use divan::counter::ItemsCount;
use durable::RealDisk;
use store_backend::volume::{Delivery, MailboxId, Outcome, Recipient, Volume, VolumeConfig};
use tokio::task::JoinSet;

fn main() {
    divan::main();
}

/// The small-message profile of the design: 4.7 KB, all different.
const BODY_OCTETS: usize = 4_700;

/// A volume in a folder of its own, removed afterwards.
struct Fixture {
    volume: Volume,
    runtime: tokio::runtime::Runtime,
    path: PathBuf,
    next: AtomicU64,
}

impl Fixture {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("posthouse-bench-{name}-{}", std::process::id()));
        let backend = BackendName::new("bench").expect("the name is valid");
        let volume = VolumeName::new("v1").expect("the name is valid");
        let config = VolumeConfig::new(&path, backend, volume);
        let volume = Volume::open(config, Arc::new(RealDisk)).expect("the volume opens");
        let runtime = tokio::runtime::Runtime::new().expect("the runtime starts");
        Self {
            volume,
            runtime,
            path,
            next: AtomicU64::new(0),
        }
    }

    fn deliver(&self, count: usize) {
        self.runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for _ in 0..count {
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                tasks.spawn(deliver(self.volume.clone(), number));
            }
            tasks.join_all().await;
        });
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.volume.close();
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

async fn deliver(volume: Volume, number: u64) {
    let mut body = vec![b'x'; BODY_OCTETS];
    body[..8].copy_from_slice(&number.to_le_bytes());
    let mut writer = volume.begin_blob();
    writer.write(&body).await.expect("the body is taken");
    let mut txn = [0; 16];
    txn[..8].copy_from_slice(&number.to_le_bytes());
    let delivery = Delivery {
        txn,
        sender: Vec::new(),
        content_key: [0; 32],
        blob: writer.finish().await.expect("the body is whole"),
        trace: String::new(),
        received_ms: 0,
        recipients: vec![Recipient {
            account: AccountId(1 + number % 100),
            epoch: Epoch::FIRST,
            mailbox: MailboxId::INBOX,
            prologue: b"Received: from bench\r\n".to_vec(),
        }],
    };
    let outcomes = volume.deliver(delivery).await;
    assert!(
        matches!(outcomes[..], [Outcome::Committed { .. }]),
        "{outcomes:?}"
    );
}

#[divan::bench(args = [1, 32])]
fn deliver_at_once(bencher: Bencher<'_, '_>, count: usize) {
    let fixture = Fixture::new(&count.to_string());
    bencher
        .counter(ItemsCount::new(count))
        .bench(|| fixture.deliver(count));
}
