//! What each account costs this volume, counted as it is caused.
//!
//! ```text
//! commit, apply ─┐
//! reads          ├─▶ charge(): counters of this minute ──each minute──▶ Table: decayed sums, costs by hour of the week ─▶ the file `load`
//! sessions       ┘   (16 maps, by account)                             (32 octets an account)                           each ten minutes
//! ```
//! A charge is a lock that nobody holds for long and a look into a map, some ten nanoseconds beside operations that take some ten
//! microseconds at least. Processor time is sampled: one piece of work of [`SAMPLE`] is measured and counts for all of them.
//! Moves, backups and the replay at a start are nobody's cost. Whoever shares mailboxes pays for them.
//!
//! For a million accounts the table takes 32 MB, the weeks of the heaviest 65,536 of them 25 MB, and the counters of one
//! minute 50 octets for each account that was used in it.

mod file;
mod table;

use std::cell::Cell;
use std::collections::HashMap;
use std::ops::Bound;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use directory_api::AccountId;
use durable::DiskRoom;
use rustix::time::{ClockId, Timespec, clock_gettime};
use store_api::load::{AccountLoad, VolumeLoad};

use super::Volume;
use super::error::ReadError;
use super::holds::held_for;
use super::index::RoTxn;
use super::read::blocking;
use super::recovery::Shared;
use super::rows::{State, mailbox_key, mailbox_of};
use super::types::MailboxId;
pub(super) use table::Table;

/// What one thing cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Charge {
    pub(crate) synced_octets: u64,
    pub(crate) read_octets: u64,
    pub(crate) cpu_ns: u64,
    pub(crate) operations: u32,
    pub(crate) sessions: u32,
}

impl Charge {
    pub(crate) const OPERATION: Self = Self {
        operations: 1,
        ..Self::NONE
    };
    pub(crate) const SESSION: Self = Self {
        sessions: 1,
        ..Self::NONE
    };
    const NONE: Self = Self {
        synced_octets: 0,
        read_octets: 0,
        cpu_ns: 0,
        operations: 0,
        sessions: 0,
    };

    fn cpu(time: Duration) -> Self {
        Self {
            cpu_ns: u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
            ..Self::NONE
        }
    }

    pub(crate) fn read(octets: usize) -> Self {
        Self {
            read_octets: octets as u64,
            ..Self::NONE
        }
    }

    fn add(&mut self, other: &Self) {
        self.synced_octets = self.synced_octets.saturating_add(other.synced_octets);
        self.read_octets = self.read_octets.saturating_add(other.read_octets);
        self.cpu_ns = self.cpu_ns.saturating_add(other.cpu_ns);
        self.operations = self.operations.saturating_add(other.operations);
        self.sessions = self.sessions.saturating_add(other.sessions);
    }
}

/// The account of one volume.
pub(crate) struct Load {
    shards: [Mutex<HashMap<AccountId, Charge>>; SHARDS],
    outstanding: AtomicU64,
    table: Mutex<Table>,
}

impl Load {
    pub(super) fn new(half_life: Duration) -> Self {
        Self {
            shards: Default::default(),
            outstanding: AtomicU64::new(0),
            table: Mutex::new(Table::new(half_life)),
        }
    }

    /// Counts for the account.
    pub(crate) fn charge(&self, account: AccountId, charge: Charge) {
        // Numbers are given one after the other.
        let shard = &self.shards[(account.0 % SHARDS as u64) as usize];
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        shard.entry(account).or_default().add(&charge);
    }

    /// Counts what was written for the accounts together, each its octets and an equal part of the time.
    pub(super) fn charge_batch(&self, bill: &[(AccountId, u64)], cpu: Duration) {
        let Ok(count) = u32::try_from(bill.len()) else {
            return;
        };
        let cpu = Charge::cpu(cpu.checked_div(count).unwrap_or_default());
        for (account, octets) in bill {
            let charge = Charge {
                synced_octets: *octets,
                operations: 1,
                ..cpu
            };
            self.charge(*account, charge);
        }
    }

    /// The same of what the index was brought.
    pub(super) fn charge_cpu(&self, accounts: &[AccountId], cpu: Duration) {
        let count = u32::try_from(accounts.len()).unwrap_or(u32::MAX);
        let cpu = Charge::cpu(cpu.checked_div(count).unwrap_or_default());
        for account in accounts {
            self.charge(*account, cpu);
        }
    }

    /// Does some work for the account, and now and then looks how long the processor takes for it.
    pub(crate) fn sampled<T>(&self, account: AccountId, work: impl FnOnce() -> T) -> T {
        if !is_sampled() {
            return work();
        }
        let began = Cpu::now();
        let done = work();
        let cpu = Charge::cpu(began.elapsed() * SAMPLE);
        self.charge(account, cpu);
        done
    }

    /// Reads and writes that wait or are being done.
    pub(super) fn outstanding(&self) -> u64 {
        self.outstanding.load(Ordering::Relaxed)
    }

    /// Counts as one of them until it is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Outstanding {
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        Outstanding(Arc::clone(self))
    }

    /// Brings what was counted since into the table. Blocking: with a million accounts it takes some ten milliseconds.
    fn fold(&self, now_ms: i64) {
        let mut counted: Vec<(AccountId, Charge)> = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            // The map stays as large as it was, unless it is far too large now.
            let full = shard.len();
            counted.extend(shard.drain());
            if shard.capacity() > 8 * full.max(64) {
                shard.shrink_to(2 * full);
            }
        }
        counted.sort_unstable_by_key(|(account, _)| *account);
        self.table().fold(now_ms, &counted);
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One read or write.
pub(super) struct Outstanding(Arc<Load>);

impl Drop for Outstanding {
    fn drop(&mut self) {
        self.0.outstanding.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Who pays for what is read.
#[derive(Clone)]
pub(crate) struct Payer {
    pub(crate) load: Arc<Load>,
    pub(crate) account: AccountId,
}

impl Payer {
    pub(crate) fn charge(&self, charge: Charge) {
        self.load.charge(self.account, charge);
    }
}

/// See [`Volume::metered`]. A session that waits keeps it: no larger than it must be.
pub(crate) struct Metered<'a, F> {
    load: &'a Load,
    account: AccountId,
    work: F,
}

impl<F: Future + Unpin> Future for Metered<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Self {
            load,
            account,
            work,
        } = &mut *self;
        load.sampled(*account, || Pin::new(work).poll(cx))
    }
}

/// Processor time of the thread that asks. Asking is a system call, a quarter of a microsecond.
#[derive(Clone, Copy)]
pub(super) struct Cpu(Duration);

impl Cpu {
    pub(super) fn now() -> Self {
        let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ThreadCPUTime);
        let whole = Duration::from_secs(tv_sec.try_into().unwrap_or_default());
        Self(whole + Duration::from_nanos(tv_nsec.try_into().unwrap_or_default()))
    }

    pub(super) fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

fn is_sampled() -> bool {
    thread_local! {
        static COUNT: Cell<u32> = const { Cell::new(0) };
    }
    COUNT.with(|count| {
        let next = count.get().wrapping_add(1);
        count.set(next);
        next.is_multiple_of(SAMPLE)
    })
}

impl Volume {
    /// What accounts cost here.
    pub(crate) fn load(&self) -> &Arc<Load> {
        &self.inner.shared().load
    }

    /// Does something for the account, which pays for the time that it takes.
    pub(crate) fn metered<F: Future + Unpin>(&self, account: AccountId, work: F) -> Metered<'_, F> {
        Metered {
            load: self.load(),
            account,
            work,
        }
    }

    /// Accounts behind one, by number, each with its week if it has one: at most so many, and whether there are more.
    ///
    /// # Errors
    /// The index cannot be read.
    pub(crate) async fn loads_after(
        &self,
        after: Option<AccountId>,
        count: usize,
    ) -> Result<(Vec<AccountLoad>, bool), ReadError> {
        blocking(self.inner.shared(), move |shared| {
            shared.index.read(|txn| {
                let index = &shared.index;
                let mut found = Vec::new();
                let first = after.map_or(0, |after| after.0.saturating_add(1));
                let mut from = mailbox_key(AccountId(first), MailboxId(0));
                loop {
                    let range = (Bound::Included(&from[..]), Bound::Unbounded);
                    let Some(row) = index.mailboxes.range(txn, &range)?.next() else {
                        return Ok((found, false));
                    };
                    let Some((account, _)) = mailbox_of(row?.0) else {
                        return Ok((found, false));
                    };
                    // What holds for accounts of others comes last, and is nobody's to be moved.
                    if held_for(account).is_some() {
                        return Ok((found, false));
                    }
                    if found.len() == count {
                        return Ok((found, true));
                    }
                    found.extend(one(shared, txn, account, true)?);
                    from = mailbox_key(AccountId(account.0 + 1), MailboxId(0));
                }
            })
        })
        .await
    }

    /// The accounts that cost most, without their weeks.
    ///
    /// # Errors
    /// The index cannot be read.
    pub(crate) async fn heaviest(&self, count: usize) -> Result<Vec<AccountLoad>, ReadError> {
        blocking(self.inner.shared(), move |shared| {
            let heaviest = shared.load.table().heaviest(count);
            shared.index.read(|txn| {
                let mut found = Vec::new();
                for account in heaviest {
                    found.extend(one(shared, txn, account, false)?);
                }
                Ok(found)
            })
        })
        .await
    }

    /// How the volume is and what all accounts cost. Blocking for some milliseconds.
    pub(crate) fn load_of_all(&self) -> VolumeLoad {
        let status = self.status();
        let table = self.load().table();
        let (observed_h, observed, rest) = table.observed();
        let disk = status.space.disk;
        let placeable = |disk: DiskRoom| disk.free_bytes.saturating_sub(status.space.mark_bytes);
        VolumeLoad {
            name: self.inner.shared().config.name.clone(),
            is_open: true,
            accounts: status.account_count,
            size_bytes: disk.map_or(0, |disk| disk.size_bytes),
            free_bytes: disk.map_or(0, placeable),
            is_nearly_full: status.space.refuses,
            outstanding: status.outstanding,
            observed_h,
            total: table.total(),
            observed,
            rest,
        }
    }

    /// Takes note of what was counted since the last time. Blocking.
    pub fn fold_load(&self, now_ms: i64) {
        self.load().fold(now_ms);
    }
}

/// An account as the index and the table have it; none that is not in the index.
fn one(
    shared: &Shared,
    txn: &RoTxn<'_>,
    account: AccountId,
    with_week: bool,
) -> Result<Option<AccountLoad>, ReadError> {
    let Some(row) = shared.index.account(txn, account)? else {
        return Ok(None);
    };
    let (figures, week) = shared.load.table().of(account);
    Ok(Some(AccountLoad {
        account,
        volume: shared.config.name.clone(),
        is_home: matches!(row.state, State::Active | State::Frozen),
        stored_octets: row.size_octets,
        figures,
        week: week.filter(|_| with_week),
    }))
}

const SHARDS: usize = 16;
/// Of so many pieces of work one is measured.
const SAMPLE: u32 = 16;

#[cfg(test)]
mod tests;
