//! Power cuts after every operation: what was acknowledged is there, what was not is whole or absent.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use durable::{Entry, Journal, JournalError, JournalOptions, Lsn};
use testkit::fault_disk::{FaultDisk, Loss};

const DIR: &str = "/volume/journal";

/// What a journal has to hold.
#[derive(Default)]
struct Model {
    /// By number, beginning with 1: acknowledged, or replayed once.
    kept: Vec<Vec<u8>>,
    /// How many of them must be there.
    acknowledged: usize,
    /// Up to here records may be gone.
    released: u64,
    /// The batch whose append did not return.
    in_flight: Vec<Vec<u8>>,
    /// Makes every payload ever written a different one.
    written: u64,
}

impl Model {
    /// Opens, checks what is replayed against the model, and takes it over: replayed once is replayed for ever.
    fn recover(
        &mut self,
        disk: &FaultDisk,
        options: JournalOptions,
    ) -> Result<Journal, JournalError> {
        let (journal, recovery) = Journal::open(Arc::new(disk.clone()), Path::new(DIR), options)?;
        let first = recovery.first_lsn().0;
        assert!(
            first <= self.released + 1,
            "record {} is lost",
            self.released + 1
        );
        let mut found = Vec::new();
        recovery.replay(Lsn(first), |record| {
            assert_eq!((record.lsn.0, record.kind), (first + found.len() as u64, 3));
            found.push(record.payload.to_vec());
            Ok::<_, JournalError>(())
        })?;
        self.kept.append(&mut self.in_flight);
        assert!(
            found == self.kept[first as usize - 1..][..found.len()],
            "other records"
        );
        let end = first as usize - 1 + found.len();
        assert!(
            end >= self.acknowledged,
            "records {} to {} are lost",
            end + 1,
            self.acknowledged
        );
        self.kept.truncate(end);
        self.acknowledged = end;
        assert_eq!(journal.next_lsn().0, end as u64 + 1);
        Ok(journal)
    }
}

impl Model {
    /// Appends batches of changing sizes and releases old records, until done or the power is gone.
    fn work(&mut self, journal: &mut Journal, batches: u64) -> Result<(), JournalError> {
        for _ in 0..batches {
            let count = 1 + self.written % 4;
            self.in_flight = (0..count)
                .map(|index| payload(self.written + index))
                .collect();
            self.written += count;
            let parts: Vec<[&[u8]; 2]> = self
                .in_flight
                .iter()
                .map(|payload| payload.split_at(7).into())
                .collect();
            let entries: Vec<Entry> = parts.iter().map(|parts| Entry { kind: 3, parts }).collect();
            let placed = journal.append(&entries)?;
            self.kept.append(&mut self.in_flight);
            self.acknowledged = self.kept.len();
            assert_eq!(placed.last().unwrap().0, Lsn(self.acknowledged as u64));
            for (lsn, place) in placed {
                assert!(journal.reader().read(place)? == self.kept[lsn.0 as usize - 1]);
            }
            if self.written.is_multiple_of(3) {
                self.released = self.released.max(self.kept.len() as u64 / 2);
                journal.release(Lsn(self.released));
            }
        }
        Ok(())
    }
}

/// From 8 to 2,900 bytes, all different.
fn payload(number: u64) -> Vec<u8> {
    let len = 8 + (number * 7919) % 2893;
    number
        .to_le_bytes()
        .into_iter()
        .cycle()
        .take(len as usize)
        .collect()
}

fn options(prepare_ahead: bool) -> JournalOptions {
    JournalOptions {
        segment_size_bytes: 8192,
        prepare_ahead,
        ..JournalOptions::default()
    }
}

/// One life: recovers, works, and dies when the power does.
fn live(
    model: &mut Model,
    disk: &FaultDisk,
    options: JournalOptions,
    batches: u64,
) -> Result<(), JournalError> {
    let mut journal = model.recover(disk, options)?;
    model.work(&mut journal, batches)
}

/// Runs one life whose power is cut after `count` operations, then two that must succeed.
/// Answers whether the power was cut at all.
fn cut_once(count: u64, loss: Loss, seed: u64, prepare_ahead: bool) -> bool {
    let disk = FaultDisk::new(seed);
    let mut model = Model::default();
    disk.cut_power_after(count);
    let cut = live(&mut model, &disk, options(prepare_ahead), 18).is_err();
    for _ in 0..2 {
        disk.power_on(loss);
        live(&mut model, &disk, options(prepare_ahead), 5)
            .unwrap_or_else(|error| panic!("cut {count} {loss:?} seed {seed}: {error}: {error:?}"));
    }
    cut
}

#[test]
fn acknowledged_records_survive_a_cut_after_every_operation() {
    for loss in Loss::ALL {
        let mut count = 0;
        while cut_once(count, loss, count, false) {
            count += 1;
        }
        assert!(
            count > 100,
            "the work has many operations to cut after: {count}"
        );
    }
}

#[test]
fn acknowledged_records_survive_a_cut_while_segments_are_prepared_in_the_background() {
    for loss in Loss::ALL {
        for count in 0..150 {
            cut_once(count, loss, count, true);
        }
    }
}

#[test]
fn acknowledged_records_survive_many_cuts_one_after_the_other() {
    for seed in 0..100 {
        let disk = FaultDisk::new(seed);
        let mut model = Model::default();
        let mut random = seed;
        for _ in 0..12 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            disk.cut_power_after((random >> 33) % 40);
            if let Err(error) = live(&mut model, &disk, options(false), 30) {
                let JournalError::Io { .. } = error else {
                    panic!("seed {seed}: {error}: {error:?}")
                };
            }
            disk.power_on(Loss::ALL[(random >> 40) as usize % 3]);
        }
        live(&mut model, &disk, options(false), 5)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}: {error:?}"));
    }
}

#[test]
fn acknowledged_records_survive_a_process_killed_between_write_and_sync() {
    // Killed, recovered from the page cache, replayed; only then the power goes.
    for count in 0..60 {
        let disk = FaultDisk::new(count);
        let mut model = Model::default();
        disk.cut_power_after(count);
        let _ = live(&mut model, &disk, options(false), 30);
        disk.cut_power_after(u64::MAX / 2);
        live(&mut model, &disk, options(false), 0).unwrap();
        disk.power_on(Loss::Lost);
        live(&mut model, &disk, options(false), 5).unwrap();
    }
}
