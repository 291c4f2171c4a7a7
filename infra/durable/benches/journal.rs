//! Durable appends of small messages on the real disk: how much one sync for many is worth.
//!
//! `cargo bench -p durable`; set `TMPDIR` to the disk to be measured.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use durable::{Entry, Journal, JournalOptions, RealDisk};

/// The workload's small message: 4.7 KB.
const MESSAGE_BYTES: usize = 4700;

fn main() {
    divan::main();
}

#[divan::bench(args = [1, 8, 64])]
fn append(bencher: Bencher<'_, '_>, batch: usize) {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(
        Arc::new(RealDisk),
        &dir.path().join("journal"),
        JournalOptions::default(),
    )
    .unwrap();
    let message = vec![b'm'; MESSAGE_BYTES];
    let parts: [&[u8]; 2] = [&message[..300], &message[300..]];
    let entries = vec![
        Entry {
            kind: 1,
            parts: &parts
        };
        batch
    ];
    bencher
        .counter(ItemsCount::new(batch))
        .counter(BytesCount::new(batch * MESSAGE_BYTES))
        .bench_local(|| {
            let placed = journal.append(&entries).unwrap();
            journal.release(placed[0].0);
        });
}
