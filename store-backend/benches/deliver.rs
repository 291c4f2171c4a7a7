//! Delivering to a volume on the real disk: one at a time, and 32 at a time, which share a journal sync.

mod volume;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use directory_api::AccountId;
use divan::Bencher;
use divan::counter::ItemsCount;
use store_backend::volume::Volume;
use tokio::task::JoinSet;
use volume::{deliver, small_body};

fn main() {
    divan::main();
}

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
        let runtime = tokio::runtime::Runtime::new().expect("the runtime starts");
        Self {
            volume: volume::open(&path),
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
                let volume = self.volume.clone();
                tasks.spawn(async move {
                    let to = [AccountId(1 + number % 100)];
                    let body = small_body(number);
                    deliver(&volume, number, &body, to, b"Received: from bench\r\n").await;
                });
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

#[divan::bench(args = [1, 32])]
fn deliver_at_once(bencher: Bencher<'_, '_>, count: usize) {
    let fixture = Fixture::new(&count.to_string());
    bencher
        .counter(ItemsCount::new(count))
        .bench(|| fixture.deliver(count));
}
