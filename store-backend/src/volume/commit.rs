//! The commit and apply threads: decide a batch, write and sync it, answer; bring the index after it.
//!
//! Self-clocking: while one batch is synced the next gathers in the intake, so that a busy volume writes large batches
//! and an idle one waits for nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{io, iter};

use durable::{Entry, Journal, JournalError, Lsn};

use super::apply::{NewCard, Placed, apply_run};
use super::error::IndexError;
use super::files::FilesItem;
use super::intake::{Reply, Request, Taken, Waiter, account_share};
use super::layout::INDEX_DIR;
use super::load::Cpu;
use super::patience::Patience;
use super::record::{Encoded, Record};
use super::recovery::{Failed, Shared};
use super::replay::Replay;
use super::sequencer::{Batch, Decided, Sequencer};
use super::space::{Level, Shortage};
use super::types::Refusal;

/// What the apply thread is handed: one batch in the journal and who waits for it.
pub(super) struct ApplyItem {
    records: Vec<Arc<Placed>>,
    waiters: Vec<(Waiter, Reply)>,
    cards: Vec<NewCard>,
}

impl ApplyItem {
    /// Cards to keep, for nobody waits.
    pub(super) fn cards(cards: Vec<NewCard>) -> Self {
        Self {
            records: Vec::new(),
            waiters: Vec::new(),
            cards,
        }
    }
}

pub(super) struct Committer {
    pub(super) shared: Arc<Shared>,
    pub(super) journal: Journal,
    pub(super) sequencer: Sequencer,
    pub(super) released: Lsn,
    pub(super) unlinked_checked: Instant,
    /// A batch was decided and not written: it must be forgotten once the index has all up to here.
    pub(super) refused_at: Option<Lsn>,
    /// The segment of the last record …
    pub(super) segment: u32,
    /// … and of the last one when the journal found no room for more.
    pub(super) short_in: Option<u32>,
    /// Bodies of the batch that was refused and has left records: they stay until those are cleared away.
    pub(super) refused_bodies: Vec<PathBuf>,
    /// Deliveries to accounts that are just being moved, and when each is answered whatever has become of that.
    pub(super) waiting: Vec<(Instant, Request)>,
    pub(super) patience: Patience,
}

impl Committer {
    /// Runs until the intake is closed and empty.
    pub(super) fn run(mut self) {
        loop {
            self.release();
            if let Err(error) = self.journal.check() {
                self.shared.fail(Failed::Journal, &error);
            }
            if self.must_wait() {
                continue;
            }
            let share = account_share(self.journal.unreleased_bytes(), self.unreleased_max());
            match self.shared.intake.take(self.idle(), share) {
                Taken::Batch(requests) => self.batch(requests),
                Taken::Closed => break,
            }
        }
        if !self.shared.aborted() {
            let _ = self.clean();
            if self.journal.is_soiled() {
                let volume = &self.shared.config.name;
                tracing::warn!(%volume, "closed without room to clear away a refused batch: some of it may be there after the next start");
            }
        }
        self.shared.apply_queue.close();
    }

    /// Lets the journal forget what index and files have.
    fn release(&mut self) {
        let checkpoint = self.shared.checkpoint();
        if checkpoint > self.released {
            self.journal.release(checkpoint);
            self.released = checkpoint;
        }
        self.shared
            .unreleased_bytes
            .store(self.journal.unreleased_bytes(), Ordering::Relaxed);
    }

    /// Whether too much journal waits for a checkpoint.
    fn is_full(&self) -> bool {
        self.journal.unreleased_bytes() > self.unreleased_max()
    }

    fn unreleased_max(&self) -> u64 {
        let config = &self.shared.config;
        // Released are whole segments, and one is always in use: less than four could never be kept.
        config
            .unreleased_max_bytes
            .max(4 * config.journal_segment_size_bytes)
    }

    /// Back-pressure: true after waiting a moment, when too much journal waits for a checkpoint. Who would wait for room
    /// on the disk is refused instead.
    fn must_wait(&self) -> bool {
        let shared = &self.shared;
        if !self.is_full()
            || shared.read_only().is_some()
            || shared.aborted()
            // At a close without room: nobody makes a checkpoint any more.
            || shared.files_queue.is_closed()
            || shared.space.is_short(Shortage::Files)
            || shared.space.level() == Level::Stuck
        {
            return false;
        }
        shared.wants_checkpoint.store(true, Ordering::Relaxed);
        shared.files_queue.wake();
        std::thread::sleep(BACK_PRESSURE_POLL);
        true
    }

    /// How long nothing needs to be done if nothing comes.
    fn idle(&self) -> Duration {
        let first = self.waiting.iter().map(|(until, _)| *until).min();
        let left = first.map(|until| until.saturating_duration_since(Instant::now()));
        left.unwrap_or(IDLE_INTERVAL).min(IDLE_INTERVAL)
    }

    fn batch(&mut self, mut requests: Vec<Request>) {
        let began = Cpu::now();
        let check_unlinked = self.shared.unlinked_hint.swap(false, Ordering::Relaxed)
            || self.unlinked_checked.elapsed() >= self.unlinked_interval();
        if requests.is_empty() {
            // Else it is tried again, or the next look at the journal finds it poisoned.
            let _ = self.clean();
        }
        let now = Instant::now();
        let is_due = self.waiting.iter().any(|(until, _)| *until <= now);
        if requests.is_empty() && !check_unlinked && !is_due {
            return;
        }
        let came = iter::repeat_n(now + self.shared.config.move_wait, requests.len());
        // Behind what has come, which may end the move that they wait for.
        let (untils, waited): (Vec<_>, Vec<_>) = self.waiting.drain(..).unzip();
        requests.extend(waited);
        if self.shared.read_only().is_some() {
            return refuse(
                requests.into_iter().map(|one| one.waiter),
                &Refusal::ReadOnly,
            );
        }
        let level = self.shared.space.level();
        if level == Level::Stuck || self.is_full() || !self.has_forgotten() {
            return refuse(requests.into_iter().map(|one| one.waiter), &Refusal::NoRoom);
        }
        if check_unlinked {
            self.unlinked_checked = Instant::now();
        }
        // In this order: what the sequencer forgets now is in the snapshot it decides on.
        let (applied, checkpoint) = (self.shared.applied(), self.shared.checkpoint());
        self.sequencer.begin(applied, checkpoint);
        let (shared, sequencer, first) =
            (&self.shared, &mut self.sequencer, self.journal.next_lsn());
        let patience = &mut self.patience;
        let mut untils = came.chain(untils);
        let (mut waiting, mut waiting_bytes) = (Vec::new(), 0);
        let decided = shared.index.read(|txn| {
            let mut batch = Batch::new(txn, now_ms(), first, level == Level::Low);
            let mut decided = Vec::with_capacity(requests.len());
            for request in requests {
                let moving = sequencer.moving(&batch, &request.command)?;
                let until = untils.next().unwrap_or(now);
                let until = until.min(patience.until(&moving, now));
                if until > now && waiting_bytes + request.cost_bytes() <= WAITING_MAX_BYTES {
                    waiting_bytes += request.cost_bytes();
                    waiting.push((until, request));
                    continue;
                }
                decided.push(decide(sequencer, &mut batch, request)?);
            }
            // What came behind them in this batch may have ended the move.
            for (until, request) in std::mem::take(&mut waiting) {
                match sequencer.moving(&batch, &request.command)?.is_empty() {
                    true => decided.push(decide(sequencer, &mut batch, request)?),
                    false => waiting.push((until, request)),
                }
            }
            if check_unlinked && sequencer.drop_unlinked(&mut batch)? {
                shared.unlinked_hint.store(true, Ordering::Relaxed);
            }
            Ok::<_, IndexError>((batch.records, decided))
        });
        match decided {
            Ok((records, decided)) => {
                self.waiting = waiting;
                self.write(records, decided, began);
            }
            // Who waits is told that the volume takes no writes when its waiter goes.
            Err(error) => self.shared.fail(Failed::Decide, &error),
        }
    }

    /// How often it is looked for what may go: it stays a minute longer than its grace at most, and as long again where that is
    /// shorter.
    fn unlinked_interval(&self) -> Duration {
        match self.shared.config.expunge_grace {
            Duration::ZERO => UNLINKED_INTERVAL,
            grace => grace.min(UNLINKED_INTERVAL),
        }
    }

    /// One write, one sync; then and only then the answers (P1).
    fn write(&mut self, records: Vec<Record>, decided: Vec<(Waiter, Decided)>, began: Cpu) {
        let encoded: Vec<Encoded> = records.iter().map(Record::encode).collect();
        let parts: Vec<[&[u8]; 2]> = encoded
            .iter()
            .map(|one| [&one.head[..], &one.body[..]])
            .collect();
        let entries: Vec<Entry<'_>> = encoded
            .iter()
            .zip(&parts)
            .map(|(one, parts)| Entry {
                kind: one.kind,
                parts,
            })
            .collect();
        let (mut appended, mut is_left) = (Ok(Vec::new()), false);
        if !entries.is_empty() {
            // While a refused batch is still there, nothing is written behind it.
            appended = self.clean().map(|()| Vec::new());
            if appended.is_ok() {
                appended = self.journal.append(&entries);
                is_left = self.journal.is_soiled();
            }
        }
        let places = match appended {
            Ok(places) => places,
            Err(error) => {
                let waiters = decided.into_iter().map(|(waiter, _)| waiter);
                return self.not_written(&error, &records, is_left, waiters);
            }
        };
        if let Some((_, place)) = places.last() {
            self.segment = place.segment;
            if self.short_in.is_some_and(|short| short != self.segment) {
                self.short_in = None;
                self.shared.found_room(Shortage::Journal);
            }
        }
        // Without records: what came before.
        let last = Lsn(self.journal.next_lsn().0 - 1);
        self.shared.position.store(last.0, Ordering::Release);
        for record in &records {
            self.shared.recent.note(record);
            // Whoever logs in or looks after our 250 finds the message.
            if let Record::Deliver(deliver) = record {
                for to in &deliver.recipients {
                    self.shared.settled.answered(to.account, last);
                }
            }
        }
        let mut waiters = Vec::new();
        for (waiter, decided) in decided {
            match decided {
                Decided::AfterSync(reply) => waiter.answer(reply),
                Decided::Settling(account, reply) => {
                    self.shared.settled.answered(account, last);
                    waiter.answer(reply);
                }
                Decided::AfterApply(reply) => waiters.push((waiter, reply)),
            }
        }
        let mut bill = Vec::with_capacity(records.len());
        for (record, encoded) in records.iter().zip(&encoded) {
            record.bill(encoded.len() as u64, &mut bill);
        }
        let cost = encoded.iter().map(|one| ITEM_BYTES + one.len()).sum();
        let records: Vec<_> = records
            .into_iter()
            .zip(places)
            .map(|(record, (lsn, place))| Arc::new(Placed { lsn, place, record }))
            .collect();
        if !records.is_empty() || !waiters.is_empty() {
            let item = ApplyItem {
                records,
                waiters,
                cards: Vec::new(),
            };
            let is_awaited = !item.waiters.is_empty();
            self.shared.apply_queue.push(item, cost);
            if is_awaited {
                self.shared.apply_queue.wake();
            }
        }
        // Nobody waits for that.
        self.shared.load.charge_batch(&bill, began.elapsed());
    }

    /// `is_left`: records of the batch may be in the journal for now.
    fn not_written(
        &mut self,
        error: &JournalError,
        records: &[Record],
        is_left: bool,
        waiters: impl Iterator<Item = Waiter>,
    ) {
        // A failed write or sync leaves unknown octets behind and is never tried again: reads only, until a restart.
        if self.journal.check().is_err() {
            self.shared.fail(Failed::Journal, error);
            return refuse(waiters, &Refusal::ReadOnly);
        }
        let tokens = records.iter().filter_map(Record::spilled);
        let bodies: Vec<PathBuf> = tokens
            .map(|token| self.shared.layout.incoming(token))
            .collect();
        if is_left {
            // A start before it is cleared away finds records that name them.
            self.refused_bodies = bodies;
        } else {
            // Nothing was written, and no record will ever name these bodies: a full disk needs their room.
            remove_bodies(&self.shared, bodies);
        }
        if error.is_disk_full() {
            self.shared.no_room(Shortage::Journal, &chain(error));
            // Where there was no room to overwrite, the next batch that is written has found some.
            let short_in = match error.is_of_write() {
                true => NO_SEGMENT,
                false => self.segment,
            };
            self.short_in.get_or_insert(short_in);
            refuse(waiters, &Refusal::NoRoom);
        } else {
            tracing::warn!(volume = %self.shared.config.name, error = chain(error), "journal: a batch was refused");
            refuse(waiters, &Refusal::ReadOnly);
        }
        self.refused_at = Some(Lsn(self.journal.next_lsn().0 - 1));
    }

    /// Clears away what a refused batch has left, as soon as there is room for that.
    fn clean(&mut self) -> Result<(), JournalError> {
        self.journal.clean()?;
        remove_bodies(&self.shared, self.refused_bodies.drain(..));
        Ok(())
    }

    /// Forgets what was decided and not written, once the index has what came before. False: it cannot have it now.
    fn has_forgotten(&mut self) -> bool {
        let Some(last) = self.refused_at else {
            return true;
        };
        while self.shared.applied() < last {
            if self.shared.read_only().is_some()
                || self.shared.aborted()
                || self.shared.space.level() == Level::Stuck
            {
                return false;
            }
            std::thread::sleep(BACK_PRESSURE_POLL);
        }
        if let Err(error) = self.sequencer.forget() {
            self.shared.fail(Failed::Decide, &error);
            return false;
        }
        self.refused_at = None;
        true
    }
}

/// Decides one request.
fn decide(
    sequencer: &mut Sequencer,
    batch: &mut Batch<'_>,
    request: Request,
) -> Result<(Waiter, Decided), IndexError> {
    let Request {
        user,
        command,
        waiter,
        ..
    } = request;
    Ok((waiter, sequencer.decide(batch, user, command)?))
}

/// The apply thread: first what the start found no room for. Runs until its queue is closed and empty.
pub(super) fn apply(shared: &Arc<Shared>, replay: Option<Replay>) {
    if let Some(replay) = replay {
        if !replay.catch_up(shared) {
            // Who waits for an account that is behind was told so.
            shared.apply_queue.abort();
            shared.files_queue.close();
            return;
        }
        shared.replayed.store(true, Ordering::Release);
    }
    let mut is_whole = true;
    while let Some(mut items) = shared.apply_queue.take(IDLE_INTERVAL) {
        if items.is_empty() {
            continue;
        }
        gather(shared, &mut items);
        let began = Cpu::now();
        let mut run = items
            .iter()
            .flat_map(|item| &item.records)
            .map(AsRef::as_ref)
            .peekable();
        for placed in items.iter().flat_map(|item| &item.records) {
            shared.watchers.note(&placed.record);
        }
        // Commands that changed nothing, as most logins, waited for what came before and cost no sync.
        let mut cards = items.iter().flat_map(|item| &item.cards).peekable();
        let mut applied = match run.peek().is_some() || cards.peek().is_some() {
            true => apply_run(&shared.index, run, cards),
            false => Ok(shared.applied()),
        };
        while let Err(error) = &applied
            && shared.has_no_room(error)
        {
            shared.no_room(Shortage::Index, &index_chain(shared, error));
            shared.settled.behind();
            if !shared.space.pause(shared.config.space_interval) {
                break;
            }
            let run = items.iter().flat_map(|item| &item.records);
            // Cards are made again.
            applied = apply_run(&shared.index, run.map(AsRef::as_ref), iter::empty());
        }
        match applied {
            Ok(last) => {
                if shared.space.level() == Level::Stuck {
                    shared.found_room(Shortage::Index);
                }
                // The bells first: who has waited for the index finds what it was told of.
                for placed in items.iter().flat_map(|item| &item.records) {
                    shared.watchers.tell(&placed.record);
                }
                shared.applied.store(last.0, Ordering::Release);
                shared.settled.applied(last);
            }
            // The next start goes on where this ends.
            Err(error) if shared.has_no_room(&error) => {
                tracing::warn!(volume = %shared.config.name, error = index_chain(shared, &error), "closed behind the journal");
                shared.apply_queue.abort();
                is_whole = false;
                break;
            }
            Err(error) => {
                shared.fail(
                    Failed::Index,
                    &io::Error::other(index_chain(shared, &error)),
                );
                shared.apply_queue.abort();
                is_whole = false;
                break;
            }
        }
        let records = items.iter().flat_map(|item| &item.records);
        let payers: Vec<_> = records
            .flat_map(|placed| placed.record.accounts())
            .collect();
        for item in items {
            for (waiter, reply) in item.waiters {
                waiter.answer(reply);
            }
            for placed in item.records {
                hand_to_files(shared, &placed);
            }
        }
        shared.load.charge_cpu(&payers, began.elapsed());
    }
    match is_whole {
        true => shared.settled.end(),
        // What it lacks was answered: nobody is shown an older state.
        false => shared.settled.behind(),
    }
    shared.files_queue.close();
}

/// Adds to a run what comes within a moment, as long as nobody waits for it: the answers are given, and one larger
/// transaction costs the disk less than two. Whoever reads an account that was answered wakes us.
fn gather(shared: &Shared, items: &mut Vec<ApplyItem>) {
    if shared.settled.is_awaited() || items.iter().any(|item| !item.waiters.is_empty()) {
        return;
    }
    shared.apply_queue.linger(GATHER_ITEMS_MAX, GATHER_MAX);
    if let Some(more) = shared.apply_queue.take(Duration::ZERO) {
        items.extend(more);
    }
}

/// The files thread reads the record from the journal when memory is short.
pub(super) fn hand_to_files(shared: &Shared, placed: &Arc<Placed>) {
    if placed.record.may_unlink() && shared.config.expunge_grace.is_zero() {
        shared.unlinked_hint.store(true, Ordering::Relaxed);
        shared.intake.wake();
    }
    let roomy = shared.files_queue.is_roomy();
    let cost = ITEM_BYTES + if roomy { placed.place.len as usize } else { 0 };
    let record = roomy.then(|| Arc::clone(placed));
    let item = FilesItem {
        lsn: placed.lsn,
        place: placed.place,
        kind: placed.record.kind(),
        record,
    };
    shared.files_queue.push(item, cost);
}

fn remove_bodies(shared: &Shared, paths: impl IntoIterator<Item = PathBuf>) {
    for path in paths {
        // What cannot be removed now is removed at the next start.
        let _ = shared.disk.remove_file(&path);
    }
}

fn refuse(waiters: impl IntoIterator<Item = Waiter>, refusal: &Refusal) {
    for waiter in waiters {
        waiter.answer(Reply::Refused(refusal.clone()));
    }
}

/// An error of the index with its place and causes, for the log.
fn index_chain(shared: &Shared, error: &IndexError) -> String {
    let path = shared.layout.file(INDEX_DIR);
    format!("write {}: {}", path.display(), chain(error))
}

pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// An error with its causes, for the log.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// How long a thread sleeps when nothing comes; everything urgent wakes it.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);
/// Of deliveries that wait so, a quarter of the intake's memory: the rest is for everybody else.
const WAITING_MAX_BYTES: usize = 16 << 20;
/// A push to an idle session and the listing of a delivered message are later by this much: nobody sees it.
const GATHER_MAX: Duration = Duration::from_millis(10);
/// Batches of one transaction: it ends in time for who comes to wait for it.
const GATHER_ITEMS_MAX: usize = 64;
/// Segments are numbered from 1.
const NO_SEGMENT: u32 = 0;
const BACK_PRESSURE_POLL: Duration = Duration::from_millis(5);
/// Blobs past their grace period are looked for this often.
const UNLINKED_INTERVAL: Duration = Duration::from_secs(60);
/// What a queue's item takes besides its payload.
pub(super) const ITEM_BYTES: usize = 128;
