//! Planning for 1,000,000 accounts on 100 back-ends, one of them new.
//!
//! `cargo bench -p migrator`. The goal is 10 s and 2 GiB; the memory is in the line `peak memory`.
#![allow(clippy::unwrap_used)]

use directory_api::{AccountId, BackendName, BackendState};
use divan::Bencher;
use migrator::balance::{Account, Backend, HOURS, Policy, Random, Snapshot, peak, plan, reference};
use migrator::simulate::{shapes, sizes};

fn main() {
    divan::main();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find(|line| line.starts_with("VmHWM"));
    println!("peak memory {}", peak.unwrap_or("is not known here"));
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn by_peak(bencher: Bencher<'_, '_>) {
    let million = million();
    let policy = Policy::Peak(peak::Settings::default());
    bencher.bench_local(|| plan(&million, &policy, 1));
}

#[divan::bench(sample_count = 3, sample_size = 1)]
fn by_reference(bencher: Bencher<'_, '_>) {
    let million = million();
    let policy = Policy::Reference(reference::Settings::default());
    bencher.bench_local(|| plan(&million, &policy, 1));
}

/// Heavy tails in size and load, four kinds of weeks; ten back-ends have half as much again as the
/// others, and the last has nothing.
fn million() -> Snapshot {
    let backends = (0..100).map(|number| Backend {
        name: BackendName::new(format!("store{number}")).unwrap(),
        state: BackendState::Active,
        weight: 1,
        free: u64::MAX / 200,
    });
    let mut snapshot = Snapshot::new(0, backends.collect()).unwrap();
    let mut random = Random::new(1);
    let shapes = shapes::all();
    for id in 1..=1_000_000 {
        let (size, activity) = sizes::correlated(&mut random, 0.6);
        let shape = &shapes[random.below(shapes.len())];
        let level = (1.4 * activity).exp() as f32;
        let hours: [f32; HOURS] =
            std::array::from_fn(|hour| level * shape[hour] * (0.5 + random.share() as f32));
        let home = random.below(104);
        let account = Account {
            id: AccountId(id),
            home: if home < 99 { home } else { home * 2 % 10 } as u32,
            octets: sizes::octets_at(size) as u64,
            pinned: false,
            group: None,
            moved_ms: None,
        };
        snapshot.push(account, &hours).unwrap();
    }
    snapshot
}
