//! What one flooded mailbox costs the others: the time that deliveries to twenty of them take, alone and while one more gets
//! fifty times as much as each of them; and when a thousand senders at once deliver to it as fast as they are answered.
//!
//! Mail comes at fixed times, whether or not what came before is answered, and its time is counted from then: a server that
//! stalls cannot hide it by being asked less (coordinated omission). Not a loop of calls, so no harness of such loops runs it.
//!
//! On two processors, p99: 4.7 ms alone, 5.8 ms beside the fifty-fold flood, 56 ms beside a thousand greedy senders (15,000 a second),
//! which is what syncs take while a checkpoint syncs the file system each second. With 64 of a batch for one account, and as
//! much however full the journal is, it was 300 ms to 1 s (16,000 to 19,000 a second): the journal had filled up, and everybody
//! waited for the files thread.

mod volume;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use directory_api::AccountId;
use store_backend::volume::Volume;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use volume::{deliver, small_body};

const MAILBOXES: u64 = 20;
/// To each of them. The peak hour of the design's provider has 13 a second for all of its 225,000 mailboxes.
const PER_SECOND: u32 = 10;
const FLOOD_FACTOR: u32 = 50;
const FLOODED: AccountId = AccountId(1_000);
/// Senders that wait for an answer and send at once again.
const GREEDY: usize = 1_000;
const PHASE: Duration = Duration::from_secs(20);

struct Fixture {
    volume: Volume,
    path: PathBuf,
    next: AtomicU64,
}

impl Fixture {
    fn new() -> Self {
        let folder =
            std::env::var_os("POSTHOUSE_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let path = folder.join(format!("posthouse-bench-fair-{}", std::process::id()));
        Self {
            volume: volume::open(&path),
            path,
            next: AtomicU64::new(0),
        }
    }

    async fn deliver(&self, account: AccountId) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let body = small_body(number);
        let prologue = b"Received: from bench\r\n";
        deliver(&self.volume, number, &body, [account], prologue).await;
    }

    /// Delivers at fixed times for one phase; answers how long each took.
    async fn paced(self: Arc<Self>, account: AccountId, per_second: u32) -> Vec<Duration> {
        let interval = Duration::from_secs(1) / per_second;
        // Not all at the same instant.
        let began = Instant::now() + interval * (account.0 % MAILBOXES) as u32 / MAILBOXES as u32;
        let mut running = JoinSet::new();
        for turn in 0..per_second * PHASE.as_secs() as u32 {
            let due = began + interval * turn;
            sleep_until(due).await;
            let fixture = Arc::clone(&self);
            running.spawn(async move {
                fixture.deliver(account).await;
                due.elapsed()
            });
        }
        running.join_all().await
    }

    /// What the others' mail takes.
    async fn others(self: &Arc<Self>) -> Vec<Duration> {
        let mut all = JoinSet::new();
        for account in 1..=MAILBOXES {
            all.spawn(Arc::clone(self).paced(AccountId(account), PER_SECOND));
        }
        let mut times = all.join_all().await.concat();
        times.sort_unstable();
        times
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.volume.close();
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn at(times: &[Duration], per_mille: usize) -> Duration {
    times[(times.len() - 1) * per_mille / 1000]
}

fn tell(what: &str, times: &[Duration], alone: Option<&[Duration]>) {
    let ms = |per_mille| at(times, per_mille).as_secs_f64() * 1000.0;
    let ratio = alone.map_or(1.0, |alone| {
        at(times, 990).as_secs_f64() / at(alone, 990).as_secs_f64()
    });
    println!(
        "{what:<44} n {:>6}  p50 {:>7.2} ms  p99 {:>7.2} ms  p99.9 {:>7.2} ms  p99 x {ratio:.2}",
        times.len(),
        ms(500),
        ms(990),
        ms(999),
    );
}

#[tokio::main]
async fn main() {
    let fixture = Arc::new(Fixture::new());
    // Accounts, folders and segments are there from now on.
    drop(fixture.others().await);
    let alone = fixture.others().await;
    tell("others alone", &alone, None);
    let (flooded, times) = tokio::join!(
        tokio::spawn(Arc::clone(&fixture).paced(FLOODED, PER_SECOND * FLOOD_FACTOR)),
        fixture.others()
    );
    tell(
        "others, one mailbox gets 50 times as much",
        &times,
        Some(&alone),
    );
    let mut flooded = flooded.expect("nothing panics");
    flooded.sort_unstable();
    tell("that one", &flooded, Some(&alone));

    let is_over = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU64::new(0));
    let mut greedy = JoinSet::new();
    for _ in 0..GREEDY {
        let (fixture, is_over, count) = (
            Arc::clone(&fixture),
            Arc::clone(&is_over),
            Arc::clone(&count),
        );
        greedy.spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                fixture.deliver(FLOODED).await;
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let times = fixture.others().await;
    is_over.store(true, Ordering::Relaxed);
    let rate = count.load(Ordering::Relaxed) / PHASE.as_secs();
    tell(
        &format!("others, one mailbox gets {rate}/s, all it can"),
        &times,
        Some(&alone),
    );
    greedy.join_all().await;
}
