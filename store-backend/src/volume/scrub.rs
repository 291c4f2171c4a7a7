//! The scrub: walks the names of messages and then the blobs, slowly, and mends what is safe to mend. A pass begins once a
//! day at most; where it is survives a restart, coarsely. It holds no transaction but to find its next few rows.

use std::io::{self, IoSlice};
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use directory_api::AccountId;
use durable::OpenMode;

use super::check::{BlobFault, Ground};
use super::commit::{chain, now_ms};
use super::error::IndexError;
use super::files::FilesError;
use super::keeper::is_settled;
use super::layout::KEPT_DIR;
use super::mend::{self, Mend, Mended};
use super::recovery::Shared;
use super::rows::{BlobRow, MessageRow, mailbox_of, message_key, message_of};
use super::types::MailboxId;
use crate::metrics;

/// One volume's scrub.
pub(super) struct Scrub {
    place: Place,
    /// When this pass began, in milliseconds since 1970.
    begun_ms: i64,
    /// Octets it may read before it waits.
    budget: i64,
    filled: Instant,
    noted: Instant,
    found: Found,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Messages behind this one.
    Links(AccountId, MailboxId, u32),
    /// Blobs behind this number.
    Blobs(u64),
    /// The pass is over.
    Done,
}

#[derive(Default)]
struct Found {
    links: u64,
    blobs: u64,
    octets: u64,
    faults: u64,
    mended: u64,
}

impl Scrub {
    pub(super) fn new(shared: &Shared) -> Self {
        let (place, begun_ms) = read_place(shared).unwrap_or((Place::Done, 0));
        Self {
            place,
            begun_ms,
            budget: 0,
            filled: Instant::now(),
            noted: Instant::now(),
            found: Found::default(),
        }
    }

    /// Does what may be done now; answers when to come again.
    pub(super) fn go_on(&mut self, shared: &Shared) -> Duration {
        let rate = shared.config.scrub_bytes_per_s;
        if rate == 0 || shared.read_only().is_some() {
            return IDLE_INTERVAL;
        }
        if self.place == Place::Done {
            // A clock that went back begins one too many.
            if (now_ms() - self.begun_ms).unsigned_abs() < PASS_INTERVAL_MS {
                return IDLE_INTERVAL;
            }
            self.begin();
        }
        let rate = i64::try_from(rate).unwrap_or(i64::MAX);
        let passed = i64::try_from(self.filled.elapsed().as_millis()).unwrap_or(1000);
        self.filled = Instant::now();
        // What was not used in a second is not saved up.
        self.budget = (self.budget + rate.saturating_mul(passed.min(1000)) / 1000).min(rate);
        while self.budget > 0 && self.place != Place::Done && !shared.suspects.is_closed() {
            if let Err(error) = self.step(shared) {
                let (volume, error) = (&shared.config.name, chain(&error));
                tracing::warn!(%volume, error, "the scrub waits: the volume cannot be read");
                self.budget = -rate.saturating_mul(10);
            }
        }
        if self.noted.elapsed() >= NOTE_INTERVAL {
            self.note(shared);
        }
        STEP_INTERVAL
    }

    pub(super) fn begin(&mut self) {
        self.place = Place::Links(AccountId(0), MailboxId(0), 0);
        (self.begun_ms, self.found) = (now_ms(), Found::default());
    }

    /// One whole pass at once.
    #[cfg(test)]
    pub(super) fn pass(&mut self, shared: &Shared) {
        self.begin();
        while self.place != Place::Done {
            self.step(shared).unwrap_or_else(|error| panic!("{error}"));
        }
    }

    /// Notes where it is.
    pub(super) fn note(&mut self, shared: &Shared) {
        self.noted = Instant::now();
        let text = match self.place {
            Place::Links(account, mailbox, uid) => format!("links {account} {} {uid}", mailbox.0),
            Place::Blobs(number) => format!("blobs {number}"),
            Place::Done => "done".to_owned(),
        };
        let text = format!("{} {text}\n", self.begun_ms);
        let (path, new) = place_paths(shared);
        let write = || -> io::Result<()> {
            let file = shared.disk.open(&new, OpenMode::Create)?;
            file.set_len(0)?;
            file.write_all_at(&[IoSlice::new(text.as_bytes())], 0)?;
            shared.disk.rename(&new, &path)
        };
        if let Err(error) = write() {
            let volume = &shared.config.name;
            tracing::warn!(%volume, %error, "where the scrub is cannot be noted");
        }
    }

    fn step(&mut self, shared: &Shared) -> Result<(), FilesError> {
        match self.place {
            Place::Links(account, mailbox, uid) => self.links(shared, account, mailbox, uid),
            Place::Blobs(number) => self.blobs(shared, number),
            Place::Done => Ok(()),
        }
    }

    fn links(
        &mut self,
        shared: &Shared,
        account: AccountId,
        mailbox: MailboxId,
        uid: u32,
    ) -> Result<(), FilesError> {
        let index = &shared.index;
        let after = message_key(account, mailbox, uid);
        let rows = index.read(|txn| -> Result<_, IndexError> {
            let range = (Bound::Excluded(&after[..]), Bound::Unbounded);
            let mut rows = Vec::with_capacity(STEP_ROWS);
            for row in index.messages.range(txn, &range)?.take(STEP_ROWS) {
                let (key, bytes) = row?;
                let bad = IndexError::Contradiction("a message's key");
                let (Some((account, _)), Some((mailbox, uid))) = (mailbox_of(key), message_of(key))
                else {
                    return Err(bad);
                };
                let number = MessageRow::decode(bytes)?.0.blob.get();
                rows.push((account, mailbox, uid, number, index.blob(txn, number)?));
            }
            Ok(rows)
        })?;
        let Some((account, mailbox, uid, ..)) = rows.last() else {
            self.place = Place::Blobs(0);
            return Ok(());
        };
        self.place = Place::Links(*account, *mailbox, *uid);
        for (account, mailbox, uid, number, row) in rows {
            self.budget -= LINK_COST;
            self.found.links += 1;
            let Some(row) = row.filter(|_| !shared.broken.has(number)) else {
                continue;
            };
            let look = || ground(shared).link(account, mailbox, uid, number, &row);
            if look().map_err(told(shared))?.is_none() {
                continue;
            }
            // The files may be behind the index: once they are where that was, it is wrong or has gone.
            wait_for_files(shared);
            if look().map_err(told(shared))?.is_some() {
                let link = Mend::Link {
                    account,
                    mailbox,
                    uid,
                };
                self.count(shared, "link", mend::mend(shared, link));
            }
        }
        Ok(())
    }

    fn blobs(&mut self, shared: &Shared, number: u64) -> Result<(), FilesError> {
        let index = &shared.index;
        let after = number.to_be_bytes();
        let next = index.read(|txn| -> Result<_, IndexError> {
            let range = (Bound::Excluded(&after[..]), Bound::Unbounded);
            let Some(row) = index.blobs.range(txn, &range)?.next() else {
                return Ok(None);
            };
            let (key, bytes) = row?;
            let number = key.try_into().map(u64::from_be_bytes);
            let number = number.map_err(|_| IndexError::Contradiction("a blob's key"))?;
            Ok(Some((number, BlobRow::decode(bytes)?)))
        })?;
        let Some((number, row)) = next else {
            self.place = Place::Done;
            self.end(shared);
            return Ok(());
        };
        self.place = Place::Blobs(number);
        self.budget -= i64::try_from(row.octets.get())
            .unwrap_or(i64::MAX)
            .max(BLOB_COST);
        if shared.broken.has(number) || row.lsn.get() > shared.materialised.load(Ordering::Acquire)
        {
            return Ok(());
        }
        self.found.blobs += 1;
        self.found.octets += row.octets.get();
        metrics::scrubbed(
            &shared.config.backend,
            &shared.config.name,
            row.octets.get(),
        );
        let fault = ground(shared)
            .blob(number, &row, true)
            .map_err(told(shared))?;
        match fault {
            Some(BlobFault::Links { .. }) => self.link_count(shared, number)?,
            Some(BlobFault::Missing | BlobFault::Wrong) if is_settled(shared, number, &row)? => {
                let hash = row.hash;
                let mended = mend::mend(shared, Mend::Quarantine { number, hash });
                self.count(shared, "blob", mended);
            }
            // Not made yet, or gone meanwhile.
            Some(BlobFault::Missing | BlobFault::Wrong) => {}
            None => {
                for _ in 0..mend::heal_all(shared, number, &row.hash) {
                    self.count(shared, "blob", Mended::Whole);
                }
            }
        }
        Ok(())
    }

    /// A count that differs again and again while nothing of the blob changes and the files have all that the index has.
    fn link_count(&mut self, shared: &Shared, number: u64) -> Result<(), FilesError> {
        let mut last = None;
        for _ in 0..COUNT_TRIES {
            wait_for_files(shared);
            let read = shared.index.read(|txn| shared.index.blob(txn, number));
            let Some(row) = read? else { return Ok(()) };
            wait_for_files(shared);
            let fault = ground(shared).blob(number, &row, false);
            let fault = fault.map_err(told(shared))?;
            let Some(BlobFault::Links { found, wanted }) = fault else {
                return Ok(());
            };
            if last.is_some_and(|last| last != (found, wanted, row.hash)) {
                return Ok(());
            }
            last = Some((found, wanted, row.hash));
        }
        if let Some((found, wanted, hash)) = last {
            let (volume, blob) = (&shared.config.name, data_encoding::HEXLOWER.encode(&hash));
            tracing::warn!(%volume, blob, found, wanted, "a blob's file has another number of names than its messages need; `posthouse fsck` finds which");
            self.count(shared, "link count", Mended::Failed);
        }
        Ok(())
    }

    fn count(&mut self, shared: &Shared, what: &'static str, mended: Mended) {
        if mended == Mended::Needless {
            return;
        }
        self.found.faults += 1;
        self.found.mended += u64::from(mended == Mended::Whole);
        metrics::scrub_found(
            &shared.config.backend,
            &shared.config.name,
            what,
            mended == Mended::Whole,
        );
    }

    fn end(&mut self, shared: &Shared) {
        let Found {
            links,
            blobs,
            octets,
            faults,
            mended,
        } = self.found;
        let volume = &shared.config.name;
        tracing::info!(%volume, links, blobs, octets, faults, mended, "scrubbed");
        metrics::scrub_ended(&shared.config.backend, &shared.config.name, now_ms());
        self.note(shared);
    }

    #[cfg(test)]
    pub(super) fn faults(&self) -> (u64, u64) {
        (self.found.faults, self.found.mended)
    }
}

fn ground(shared: &Shared) -> Ground<'_> {
    Ground {
        layout: &shared.layout,
        disk: &*shared.disk,
        index: &shared.index,
    }
}

fn told(shared: &Shared) -> impl FnOnce(io::Error) -> FilesError {
    super::files::failed("look into", &shared.layout.root)
}

/// Until the files have what the index has now; not for ever.
fn wait_for_files(shared: &Shared) {
    let (wanted, began) = (shared.applied().0, Instant::now());
    while shared.materialised.load(Ordering::Acquire) < wanted
        && began.elapsed() < FILES_WAIT
        && !shared.suspects.is_closed()
    {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn place_paths(shared: &Shared) -> (PathBuf, PathBuf) {
    let folder = shared.layout.file(KEPT_DIR);
    (folder.join("scrub"), folder.join("scrub.new"))
}

/// Where the last run was. Without it, or with one that cannot be read, a pass begins.
fn read_place(shared: &Shared) -> Option<(Place, i64)> {
    let file = shared
        .disk
        .open(&place_paths(shared).0, OpenMode::Read)
        .ok()?;
    let mut bytes = [0; 128];
    let count = file.read_at(&mut bytes, 0).ok()?;
    let text = std::str::from_utf8(&bytes[..count]).ok()?;
    let mut words = text.split_whitespace();
    let begun_ms = words.next()?.parse().ok()?;
    let place = match words.next()? {
        "links" => Place::Links(
            AccountId(words.next()?.parse().ok()?),
            MailboxId(words.next()?.parse().ok()?),
            words.next()?.parse().ok()?,
        ),
        "blobs" => Place::Blobs(words.next()?.parse().ok()?),
        "done" => Place::Done,
        _ => return None,
    };
    Some((place, begun_ms))
}

/// What it costs to look at a name: a visit to a folder that nobody has read lately.
const LINK_COST: i64 = 16 << 10;
/// What the smallest file costs: a disk that turns reads a megabyte while it finds ten of them.
const BLOB_COST: i64 = 64 << 10;
const STEP_ROWS: usize = 64;
const STEP_INTERVAL: Duration = Duration::from_millis(100);
pub(super) const IDLE_INTERVAL: Duration = Duration::from_secs(1);
/// After a crash this much is looked at twice.
const NOTE_INTERVAL: Duration = Duration::from_secs(60);
const PASS_INTERVAL_MS: u64 = 24 * 3600 * 1000;
const FILES_WAIT: Duration = Duration::from_secs(30);
const COUNT_TRIES: usize = 3;
