//! The file `load` of a volume: the table, so that a restart forgets some minutes and no more.
//!
//! ```text
//! "PHLOAD01"  8
//! at_ms i64, observed_h f64, hour i64, hour_observed f64
//! observed, rest                         168 × f32 each
//! rows u64    then each: account u64, sums 5 × f32, hour f32
//! weeks u64   then each: account u64, 168 × u16 (upper half of an f32)
//! BLAKE3 of all before                   32
//! ```
//! Little-endian. It is written beside the old one and takes its place when it is whole. One that is not whole, or of another
//! version, is as none: everything is counted from the beginning, and nothing else is lost.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::path::Path;

use directory_api::AccountId;
use durable::{Disk, DiskFile, OpenMode};
use store_api::load::{HOURS, Packed};

use super::table::{ROWS_MAX, Row, SUM_MAX, Table, WEEKS_MAX};
use crate::volume::Volume;

impl Volume {
    /// Goes on from what the process before has counted. A file that cannot be used is as none. Blocking.
    pub fn restore_load(&self, now_ms: i64) {
        let shared = self.inner.shared();
        let path = shared.layout.file(FILE);
        let mut table = shared.load.table();
        match read(&*shared.disk, &path) {
            Ok(Some(kept)) => table.restore(kept, now_ms),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(volume = %shared.config.name, path = %path.display(), %error, "what accounts cost is counted from the beginning, for the file of it cannot be used");
            }
        }
    }

    /// Writes down what was counted up to the last [`Volume::fold_load`]. Durable on return. Blocking.
    ///
    /// # Errors
    /// It is not written; the one before is still there.
    pub fn save_load(&self) -> io::Result<()> {
        let shared = self.inner.shared();
        // Written of a copy: whoever asks meanwhile must not wait for the disk, or the volume would count as one that does not
        // answer.
        let table = shared.load.table().clone();
        save(&*shared.disk, &shared.layout.root, &table)
    }
}

/// Writes a new file and puts it in the place of the old one.
pub(super) fn save(disk: &dyn Disk, folder: &Path, table: &Table) -> io::Result<()> {
    let new = folder.join(NEW);
    if let Err(error) = write(disk, &new, table) {
        // The room that half of it takes is needed by others.
        let _ = disk.remove_file(&new);
        return Err(error);
    }
    disk.rename(&new, &folder.join(FILE))?;
    disk.sync_dir(folder)
}

/// Writes in pieces, and hashes what it writes.
struct Writer {
    file: Box<dyn DiskFile>,
    at: u64,
    piece: Vec<u8>,
    hasher: blake3::Hasher,
}

impl Writer {
    fn put(&mut self, octets: &[u8]) -> io::Result<()> {
        self.piece.extend_from_slice(octets);
        match self.piece.len() < PIECE_OCTETS {
            true => Ok(()),
            false => self.flush(),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hasher.update(&self.piece);
        self.file
            .write_all_at(&[IoSlice::new(&self.piece)], self.at)?;
        self.at += self.piece.len() as u64;
        self.piece.clear();
        Ok(())
    }
}

fn write(disk: &dyn Disk, path: &Path, table: &Table) -> io::Result<()> {
    let file = disk.open(path, OpenMode::Create)?;
    file.set_len(0)?;
    let mut out = Writer {
        file,
        at: 0,
        piece: Vec::with_capacity(PIECE_OCTETS),
        hasher: blake3::Hasher::new(),
    };
    out.put(MAGIC)?;
    out.put(&table.at_ms.to_le_bytes())?;
    out.put(&table.observed_h.to_le_bytes())?;
    out.put(&table.hour.to_le_bytes())?;
    out.put(&table.hour_observed.to_le_bytes())?;
    for load in table.observed.iter().chain(&table.rest) {
        out.put(&load.to_le_bytes())?;
    }
    out.put(&(table.rows.len() as u64).to_le_bytes())?;
    for row in &table.rows {
        out.put(&row.account.0.to_le_bytes())?;
        for sum in row.sums.iter().chain([&row.hour]) {
            out.put(&sum.to_le_bytes())?;
        }
    }
    out.put(&(table.weeks.len() as u64).to_le_bytes())?;
    for (account, week) in &table.weeks {
        out.put(&account.0.to_le_bytes())?;
        for hour in week.iter() {
            out.put(&hour.octets())?;
        }
    }
    out.flush()?;
    let hash = out.hasher.finalize();
    out.put(hash.as_bytes())?;
    out.flush()?;
    out.file.sync_all()
}

/// None where there is none.
pub(super) fn read(disk: &dyn Disk, path: &Path) -> io::Result<Option<Table>> {
    let file = match disk.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let len = file.len()?;
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "it is not whole");
    let octets = usize::try_from(len).ok().filter(|len| *len <= OCTETS_MAX);
    let mut octets = vec![0; octets.ok_or_else(broken)?];
    file.read_exact_at(&mut octets, 0)?;
    let end = octets.len().checked_sub(blake3::OUT_LEN);
    let (body, hash) = octets.split_at(end.ok_or_else(broken)?);
    if !body.starts_with(MAGIC) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is not of this version",
        ));
    }
    if blake3::hash(body).as_bytes() != hash {
        return Err(broken());
    }
    // A file with its hash is one that was written here.
    table(&body[MAGIC.len()..]).map(Some).ok_or_else(broken)
}

fn table(octets: &[u8]) -> Option<Table> {
    let mut take = Take(octets);
    let at_ms = i64::from_le_bytes(take.array()?);
    let observed_h = f64::from_le_bytes(take.array()?);
    let hour = i64::from_le_bytes(take.array()?);
    let hour_observed = f64::from_le_bytes(take.array()?);
    let is_time = |time: f64| (0.0..1e9).contains(&time);
    if at_ms < 0 || !is_time(observed_h) || !is_time(hour_observed) {
        return None;
    }
    let mut weeks_of_all = [[0.0; HOURS]; 2];
    for load in weeks_of_all.iter_mut().flatten() {
        *load = take.sum()?;
    }
    let [observed, rest] = weeks_of_all;
    let count = usize::try_from(u64::from_le_bytes(take.array()?)).ok()?;
    let mut rows: Vec<Row> = Vec::with_capacity(count.min(ROWS_MAX));
    for _ in 0..count {
        let account = AccountId(u64::from_le_bytes(take.array()?));
        let mut sums = [0.0; 5];
        for sum in &mut sums {
            *sum = take.sum()?;
        }
        let hour = take.sum()?;
        if rows.last().is_some_and(|last| last.account >= account) {
            return None;
        }
        rows.push(Row {
            account,
            sums,
            hour,
        });
    }
    let count = usize::try_from(u64::from_le_bytes(take.array()?)).ok()?;
    let mut weeks = HashMap::with_capacity(count.min(WEEKS_MAX));
    for _ in 0..count {
        let account = AccountId(u64::from_le_bytes(take.array()?));
        let mut week = Box::new([Packed::default(); HOURS]);
        for hour in week.iter_mut() {
            *hour = Packed::of(take.array()?)?;
        }
        weeks.insert(account, week);
    }
    Some(Table {
        at_ms,
        observed_h,
        hour,
        hour_observed,
        rows,
        weeks,
        observed,
        rest,
        ..Table::new(std::time::Duration::from_secs(3600))
    })
}

struct Take<'a>(&'a [u8]);

impl Take<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, left) = self.0.split_first_chunk::<N>()?;
        self.0 = left;
        Some(*taken)
    }

    fn sum(&mut self) -> Option<f32> {
        let sum = f32::from_le_bytes(self.array()?);
        (0.0..=2.0 * SUM_MAX).contains(&sum).then_some(sum)
    }
}

pub(super) const FILE: &str = "load";
const NEW: &str = "load.new";
const MAGIC: &[u8; 8] = b"PHLOAD01";
const PIECE_OCTETS: usize = 1 << 20;
/// All rows and weeks that there may be.
const OCTETS_MAX: usize = 40 * ROWS_MAX;
