//! One volume with few and with many accounts: how fast it takes mail, how long it takes to start, what it keeps in memory.
//!
//! Each account gets ten messages drawn from 10,000 bodies, as from lists and newsletters; then come messages for one account each, 32 at a
//! time. `POSTHOUSE_BENCH_ACCOUNTS` says with how many accounts, one volume after the other, `POSTHOUSE_BENCH_FOLDER` where.
//! A million accounts need some 15 GB of disk and a quarter of an hour.

mod volume;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use directory_api::AccountId;
use store_backend::volume::Volume;
use tokio::task::JoinSet;
use volume::{deliver, open, small_body};

const BODIES: u64 = 10_000;
const MESSAGES_EACH: u64 = 10;
/// Recipients of one message while the volume is filled.
const LIST: u64 = 500;
const CONCURRENT: u64 = 32;
/// Messages of which the rate is taken.
const MEASURED: u64 = 20_000;

fn main() {
    let counts = std::env::var("POSTHOUSE_BENCH_ACCOUNTS").unwrap_or("1000,20000".into());
    let folder =
        std::env::var_os("POSTHOUSE_BENCH_FOLDER").map_or(std::env::temp_dir(), PathBuf::from);
    let runtime = tokio::runtime::Runtime::new().expect("the runtime starts");
    println!(
        "| accounts | fill, deliveries/s | start, s | one each, deliveries/s | anonymous memory after start, after deliveries, MiB |"
    );
    println!("|---|---|---|---|---|");
    for count in counts.split(',') {
        let accounts: u64 = count
            .parse()
            .expect("POSTHOUSE_BENCH_ACCOUNTS is a list of numbers");
        let path = folder.join(format!("posthouse-bench-accounts-{}", std::process::id()));
        measure(&runtime, &path, accounts);
        std::fs::remove_dir_all(&path).expect("the volume can be removed");
    }
}

fn measure(runtime: &tokio::runtime::Runtime, path: &Path, accounts: u64) {
    let volume = open(path);
    let began = Instant::now();
    let lists = accounts.div_ceil(LIST) * MESSAGES_EACH;
    runtime.block_on(many(lists, "fill", |number| {
        let first = number % accounts.div_ceil(LIST) * LIST;
        // Which body comes to whom is spread, and the same in each run.
        let body = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % BODIES;
        let to = (first..accounts.min(first + LIST)).collect();
        send(volume.clone(), number, body, to)
    }));
    let filled = began.elapsed();
    volume.close();
    drop(volume);

    let began = Instant::now();
    let volume = open(path);
    let started = began.elapsed();
    let after_start = anonymous_mib();
    let began = Instant::now();
    runtime.block_on(many(MEASURED, "one each", |number| {
        let to = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % accounts;
        send(
            volume.clone(),
            u64::MAX / 2 + number,
            BODIES + number,
            vec![to],
        )
    }));
    let delivered = began.elapsed();
    println!(
        "| {accounts} | {:.0} | {:.2} | {:.0} | {after_start}, {} |",
        rate(accounts * MESSAGES_EACH, filled),
        started.as_secs_f64(),
        rate(MEASURED, delivered),
        anonymous_mib(),
    );
    volume.close();
}

/// Does `count` pieces of work, some at a time.
async fn many<F: Future<Output = ()> + Send + 'static>(
    count: u64,
    what: &str,
    work: impl Fn(u64) -> F,
) {
    let mut tasks = JoinSet::new();
    for number in 0..count {
        if tasks.len() as u64 == CONCURRENT {
            tasks
                .join_next()
                .await
                .expect("there are some")
                .expect("none panics");
        }
        tasks.spawn(work(number));
        if count >= 10_000 && number % (count / 10) == 0 {
            eprintln!("{what}: {number} of {count}");
        }
    }
    tasks.join_all().await;
}

async fn send(volume: Volume, number: u64, body: u64, to: Vec<u64>) {
    let to = to.into_iter().map(|account| AccountId(1 + account));
    let prologue = b"Return-Path: <list@example.test>\r\n";
    deliver(&volume, number, &small_body(body), to, prologue).await;
}

#[expect(clippy::cast_precision_loss, reason = "printed in whole numbers")]
fn rate(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// Memory that is no file's.
fn anonymous_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.expect("RssAnon is told in kB") / 1024
}
