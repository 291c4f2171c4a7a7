//! What a journal does with the bytes it finds: format, tails, rot, recycling.
#![allow(clippy::unwrap_used)]

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use durable::{
    Disk, Entry, Journal, JournalError, JournalOptions, Lsn, OpenMode, Place, RealDisk, Recovery,
};
use testkit::fault_disk::{FaultDisk, Operation};

const DIR: &str = "/volume/journal";
const OPTIONS: JournalOptions = JournalOptions {
    segment_size_bytes: 8192,
    first_lsn: Lsn(1),
    prepare_ahead: false,
};

fn open(disk: &FaultDisk) -> Result<(Journal, Recovery), JournalError> {
    Journal::open(Arc::new(disk.clone()), Path::new(DIR), OPTIONS)
}

fn segment(number: u32) -> PathBuf {
    Path::new(DIR).join(format!("{number:08}.seg"))
}

fn append(journal: &mut Journal, payloads: &[&[u8]]) -> Result<Vec<(Lsn, Place)>, JournalError> {
    let parts: Vec<[&[u8]; 1]> = payloads.iter().map(|payload| [*payload]).collect();
    let entries: Vec<Entry> = parts.iter().map(|parts| Entry { kind: 9, parts }).collect();
    journal.append(&entries)
}

fn replayed(recovery: &Recovery) -> Vec<(u64, u8, Vec<u8>)> {
    let mut all = Vec::new();
    recovery
        .replay(recovery.first_lsn(), |record| {
            all.push((record.lsn.0, record.kind, record.payload.to_vec()));
            Ok::<_, JournalError>(())
        })
        .unwrap();
    all
}

#[test]
fn a_golden_segment_of_version_1_is_read_and_continued() {
    let disk = FaultDisk::new(0);
    disk.place(&segment(7), include_bytes!("golden/segment-v1.seg"));
    let (mut journal, recovery) = open(&disk).unwrap();
    let long: Vec<u8> = (0..300_usize).map(|byte| (byte % 256) as u8).collect();
    let expected = [
        (100, 1, b"hello".to_vec()),
        (101, 2, Vec::new()),
        (102, 255, long),
    ];
    assert_eq!(replayed(&recovery), expected);
    assert_eq!(recovery.cut(), None);
    assert_eq!(append(&mut journal, &[b"next"]).unwrap()[0].0, Lsn(103));
    drop(journal);
    let (_, recovery) = open(&disk).unwrap();
    assert_eq!(replayed(&recovery)[3], (103, 9, b"next".to_vec()));
}

#[test]
fn parts_are_joined_and_read_back_by_place() {
    let disk = FaultDisk::new(0);
    let (mut journal, _) = open(&disk).unwrap();
    let parts: [&[u8]; 4] = [b"", b"pro", b"", b"logue"];
    let placed = journal
        .append(&[Entry {
            kind: 1,
            parts: &parts,
        }])
        .unwrap();
    let reader = journal.reader();
    assert_eq!(reader.read(placed[0].1).unwrap(), b"prologue");
    let mut range = [0; 3];
    reader.read_range(placed[0].1, 2, &mut range).unwrap();
    assert_eq!(&range, b"olo");
    let outside = reader.read_range(placed[0].1, 6, &mut range);
    assert!(
        matches!(outside, Err(JournalError::BadPlace { .. })),
        "{outside:?}"
    );
    for wrong in [
        Place {
            offset: 0,
            ..placed[0].1
        },
        Place {
            offset: placed[0].1.offset + 8,
            ..placed[0].1
        },
        Place {
            len: 7,
            ..placed[0].1
        },
        Place {
            len: u32::MAX,
            ..placed[0].1
        },
    ] {
        let refused = reader.read(wrong);
        assert!(
            matches!(refused, Err(JournalError::BadPlace { .. })),
            "{wrong:?}"
        );
    }
}

#[test]
fn a_last_record_cut_at_any_byte_is_dropped_and_the_journal_goes_on() {
    let whole = FaultDisk::new(0);
    let (mut journal, _) = open(&whole).unwrap();
    append(&mut journal, &[b"first"]).unwrap();
    let place = append(&mut journal, &[b"the last record"]).unwrap()[0].1;
    let bytes = whole.bytes(&segment(1));
    for cut in place.offset - 24..place.offset + place.len {
        let disk = FaultDisk::new(0);
        let mut torn = bytes.clone();
        torn[cut as usize..].fill(0);
        disk.place(&segment(1), &torn);
        let (mut journal, recovery) = open(&disk).unwrap();
        assert_eq!(
            replayed(&recovery),
            [(1, 9, b"first".to_vec())],
            "cut at {cut}"
        );
        // A record of which the head is there has begun; an octet of it that is zero anyway is not missed.
        let head = place.offset as usize - 24..place.offset as usize - 4;
        let began = torn[head.clone()] == bytes[head];
        assert_eq!(recovery.cut().is_some(), began, "cut at {cut}");
        append(&mut journal, &[b"instead"]).unwrap();
        drop(journal);
        let (_, recovery) = open(&disk).unwrap();
        let expected = [(1, 9, b"first".to_vec()), (2, 9, b"instead".to_vec())];
        assert_eq!(replayed(&recovery), expected, "cut at {cut}");
    }
}

#[test]
fn the_rest_of_a_torn_batch_never_comes_back() {
    let disk = FaultDisk::new(0);
    let (mut journal, _) = open(&disk).unwrap();
    append(&mut journal, &[b"kept"]).unwrap();
    // One batch of two records of equal length; the first is torn, the second is whole.
    let placed = append(&mut journal, &[b"torn record", b"ghost again"]).unwrap();
    drop(journal);
    disk.rot(&segment(1), placed[0].1.offset as usize, 0xff);
    let (mut journal, recovery) = open(&disk).unwrap();
    assert_eq!(replayed(&recovery).len(), 1);
    assert!(recovery.cut().is_some());
    // Of the torn record's length: were it written in its place, the ghost would follow it.
    append(&mut journal, &[b"fresh start"]).unwrap();
    drop(journal);
    let (_, recovery) = open(&disk).unwrap();
    let expected = [(1, 9, b"kept".to_vec()), (2, 9, b"fresh start".to_vec())];
    assert_eq!(replayed(&recovery), expected);
}

#[test]
fn rot_anywhere_in_an_acknowledged_record_is_refused_and_nothing_is_changed() {
    let disk = FaultDisk::new(0);
    let (mut journal, _) = open(&disk).unwrap();
    let mut places = Vec::new();
    for payload in [&[1; 1500][..], &[2; 1500], &[3; 1500], &[4; 1500], &[5; 10]] {
        places.push(append(&mut journal, &[payload]).unwrap()[0].1);
    }
    drop(journal);
    assert!(places[3].segment == 2, "the records cross a segment's end");
    for (index, place) in places[..4].iter().enumerate() {
        for byte in (place.offset - 24..place.offset + place.len).step_by(7) {
            disk.rot(&segment(place.segment), byte as usize, 0x10);
            let before = disk.operations();
            let refused = open(&disk).unwrap_err();
            let JournalError::Rot { path, lsn, .. } = &refused else {
                panic!("{refused:?}")
            };
            assert_eq!((path, lsn.0), (&segment(place.segment), index as u64 + 1));
            assert_eq!(disk.operations(), before);
            disk.rot(&segment(place.segment), byte as usize, 0x10);
        }
    }
    open(&disk).unwrap();
}

#[test]
fn rot_is_found_when_a_place_is_read() {
    let disk = FaultDisk::new(0);
    let (mut journal, _) = open(&disk).unwrap();
    let place = append(&mut journal, &[b"payload"]).unwrap()[0].1;
    disk.rot(&segment(1), place.offset as usize + 3, 1);
    let refused = journal.reader().read(place);
    assert!(
        matches!(refused, Err(JournalError::BadPlace { .. })),
        "{refused:?}"
    );
}

#[test]
fn missing_rotten_cut_foreign_and_newer_files_are_refused() {
    let fresh = || {
        let disk = FaultDisk::new(0);
        let (mut journal, _) = open(&disk).unwrap();
        for _ in 0..3 {
            append(&mut journal, &[&[7; 3000]]).unwrap();
        }
        disk
    };
    let disk = fresh();
    disk.remove_file(&segment(2)).unwrap();
    let refused = open(&disk).unwrap_err();
    assert!(
        matches!(refused, JournalError::MissingSegment { number: 2, .. }),
        "{refused:?}"
    );

    for offset in [0, 9, 12, 20, 62] {
        let disk = fresh();
        disk.rot(&segment(2), offset, 1);
        let refused = open(&disk).unwrap_err();
        assert!(
            matches!(refused, JournalError::RottenHeader { .. }),
            "{refused:?}"
        );
    }

    for len in [0, 4096, 8191] {
        let disk = fresh();
        disk.open(&segment(3), OpenMode::Write)
            .unwrap()
            .set_len(len)
            .unwrap();
        let refused = open(&disk).unwrap_err();
        assert!(
            matches!(refused, JournalError::RottenHeader { .. }),
            "{refused:?}"
        );
    }

    let disk = fresh();
    disk.place(&Path::new(DIR).join("notes.txt"), b"mine");
    let refused = open(&disk).unwrap_err();
    assert!(
        matches!(refused, JournalError::Foreign { .. }),
        "{refused:?}"
    );
    assert!(refused.to_string().contains("notes.txt"));
}

#[test]
fn a_batch_goes_on_in_the_next_segments() {
    let disk = FaultDisk::new(0);
    let (mut journal, _) = open(&disk).unwrap();
    let payloads: Vec<Vec<u8>> = (0..10).map(|index| vec![index; 1000]).collect();
    let slices: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
    let placed = append(&mut journal, &slices).unwrap();
    let segments: Vec<u32> = placed.iter().map(|(_, place)| place.segment).collect();
    assert_eq!(segments, [1, 1, 1, 1, 2, 2, 2, 2, 3, 3]);
    drop(journal);
    let (journal, recovery) = open(&disk).unwrap();
    let payloads_again: Vec<Vec<u8>> = replayed(&recovery)
        .into_iter()
        .map(|(_, _, payload)| payload)
        .collect();
    assert_eq!(payloads_again, payloads);
    for ((_, place), payload) in placed.iter().zip(&payloads) {
        assert_eq!(&journal.reader().read(*place).unwrap(), payload);
    }
}

#[test]
fn the_largest_record_fits_and_one_more_byte_is_refused_before_anything_is_written() {
    let disk = FaultDisk::new(0);
    let (mut journal, _) = open(&disk).unwrap();
    let before = disk.operations();
    let refused = append(&mut journal, &[b"fits", &[0; 4096 - 24 + 1]]).unwrap_err();
    assert!(
        matches!(
            refused,
            JournalError::TooLarge {
                len: 4073,
                max: 4072
            }
        ),
        "{refused:?}"
    );
    assert_eq!(disk.operations(), before);
    append(&mut journal, &[&[0; 4096 - 24]]).unwrap();
    append(&mut journal, &[&[1; 4096 - 24]]).unwrap();
    drop(journal);
    assert_eq!(replayed(&open(&disk).unwrap().1).len(), 2);
}

#[test]
fn a_recycled_segment_never_gives_back_its_old_records() {
    let disk = FaultDisk::new(0);
    let (mut journal, _) = open(&disk).unwrap();
    let mut first = None;
    for round in 0..20_u8 {
        let (lsn, place) = append(&mut journal, &[&[round; 1000]]).unwrap()[0];
        first.get_or_insert(place);
        journal.release(Lsn(lsn.0.saturating_sub(2)));
    }
    assert!(journal.size_bytes() <= 2 * 8192);
    let refused = journal.reader().read(first.unwrap()).unwrap_err();
    assert!(
        matches!(refused, JournalError::Released { segment: 1 }),
        "{refused:?}"
    );
    drop(journal);
    let names = disk.read_dir(Path::new(DIR)).unwrap();
    assert!(names.len() <= 4, "released files are reused: {names:?}");
    let (_, recovery) = open(&disk).unwrap();
    let all = replayed(&recovery);
    assert_eq!(all.last().unwrap(), &(20, 9, vec![19; 1000]));
    assert!(
        all.iter()
            .all(|(lsn, _, payload)| payload[0] == (lsn - 1) as u8)
    );
    let gone = recovery.replay(Lsn(1), |_| Ok::<_, JournalError>(()));
    assert!(
        matches!(gone, Err(JournalError::Gone { wanted: Lsn(1), .. })),
        "{gone:?}"
    );
}

#[test]
fn numbers_go_on_when_everything_was_released() {
    let disk = FaultDisk::new(0);
    let (mut journal, _) = open(&disk).unwrap();
    for _ in 0..5 {
        let (lsn, _) = append(&mut journal, &[&[0; 3000]]).unwrap()[0];
        journal.release(lsn);
    }
    drop(journal);
    let (journal, recovery) = open(&disk).unwrap();
    assert_eq!((recovery.first_lsn(), journal.next_lsn()), (Lsn(5), Lsn(6)));
}

#[test]
fn a_new_journal_begins_where_it_is_told() {
    let disk: Arc<dyn Disk> = Arc::new(FaultDisk::new(0));
    let options = JournalOptions {
        first_lsn: Lsn(500),
        ..OPTIONS
    };
    for _ in 0..2 {
        let (journal, _) = Journal::open(Arc::clone(&disk), Path::new(DIR), options).unwrap();
        assert_eq!(journal.next_lsn(), Lsn(500));
    }
    let (mut journal, recovery) = Journal::open(disk, Path::new(DIR), OPTIONS).unwrap();
    assert_eq!(recovery.first_lsn(), Lsn(500));
    assert_eq!(append(&mut journal, &[b""]).unwrap()[0].0, Lsn(500));
}

#[test]
fn a_failed_sync_or_write_poisons_the_journal_and_reads_go_on() {
    for operation in [Operation::Sync, Operation::Write] {
        let disk = FaultDisk::new(0);
        let (mut journal, _) = open(&disk).unwrap();
        let place = append(&mut journal, &[b"acknowledged"]).unwrap()[0].1;
        disk.fail(operation, 0, ErrorKind::Other);
        let failed = append(&mut journal, &[b"not acknowledged"]).unwrap_err();
        assert!(matches!(failed, JournalError::Io { .. }), "{failed:?}");
        for _ in 0..2 {
            let refused = append(&mut journal, &[b"refused"]).unwrap_err();
            assert!(
                matches!(refused, JournalError::Poisoned { .. }),
                "{refused:?}"
            );
        }
        assert_eq!(journal.reader().read(place).unwrap(), b"acknowledged");
        drop(journal);
        let (mut journal, recovery) = open(&disk).unwrap();
        assert_eq!(replayed(&recovery)[0], (1, 9, b"acknowledged".to_vec()));
        append(&mut journal, &[b"again"]).unwrap();
    }
}

#[test]
fn a_full_disk_refuses_the_batch_that_needs_room_and_only_that() {
    let disk = FaultDisk::new(0);
    let (mut journal, _) = open(&disk).unwrap();
    disk.set_capacity(8192 + 4096);
    append(&mut journal, &[&[1; 3000]]).unwrap();
    for _ in 0..2 {
        let full = append(&mut journal, &[b"small", &[2; 3000]]).unwrap_err();
        assert!(full.is_disk_full(), "{full:?}");
    }
    append(&mut journal, &[b"still fits"]).unwrap();
    disk.set_capacity(u64::MAX);
    append(&mut journal, &[b"small", &[2; 3000]]).unwrap();
    drop(journal);
    let payloads: Vec<_> = replayed(&open(&disk).unwrap().1)
        .into_iter()
        .map(|r| r.2)
        .collect();
    let expected = [
        vec![1; 3000],
        b"still fits".to_vec(),
        b"small".to_vec(),
        vec![2; 3000],
    ];
    assert_eq!(payloads, expected);
}

#[test]
fn a_failed_sync_beside_the_appends_is_told_and_never_tried_again() {
    // Releasing a segment syncs the folder; preparing one syncs a file and the folder, after it was recycled too.
    let mut failed = 0;
    for skip in 0.. {
        let disk = FaultDisk::new(0);
        let (mut journal, _) = open(&disk).unwrap();
        for _ in 0..3 {
            append(&mut journal, &[&[1; 3000]]).unwrap();
        }
        journal.check().unwrap();
        disk.fail(Operation::Sync, skip, ErrorKind::Other);
        journal.release(Lsn(2));
        let told = journal.check().is_err();
        let mut appended = 0;
        while appended < 8 && append(&mut journal, &[&[2; 3000]]).is_ok() {
            appended += 1;
            journal.release(Lsn(2 + appended));
        }
        if appended == 8 && journal.check().is_ok() {
            break;
        }
        failed += 1;
        assert!(
            !told || appended == 0,
            "skip {skip}: {appended} after it was told"
        );
        let syncs = disk.operations();
        for _ in 0..2 {
            assert!(append(&mut journal, &[b"refused"]).is_err(), "skip {skip}");
            journal.release(Lsn(3 + appended));
        }
        assert_eq!(
            disk.operations(),
            syncs,
            "skip {skip}: the disk is left alone"
        );
        assert!(journal.check().is_err());
    }
    assert!(failed > 8, "{failed}");
}

#[test]
fn a_write_without_room_leaves_nothing_that_a_recovery_could_take_for_a_record() {
    for seed in 0..40 {
        let sizes = [[8, 8, 8], [100, 8, 8], [8, 900, 8], [8, 8, 900]][seed as usize % 4];
        let disk = FaultDisk::new(seed);
        let (mut journal, _) = open(&disk).unwrap();
        append(&mut journal, &[b"first"]).unwrap();
        let refused = sizes.map(|size| vec![7; size]);
        let parts: Vec<&[u8]> = refused.iter().map(Vec::as_slice).collect();
        disk.copy_on_write();
        disk.fill_up_after(0);
        for _ in 0..2 {
            let full = append(&mut journal, &parts).unwrap_err();
            assert!(full.is_disk_full() && journal.is_soiled(), "{full:?}");
        }
        disk.give_room();
        append(&mut journal, &[b"12345678"]).unwrap();
        assert!(!journal.is_soiled());
        // What is refused now is cleared away at once.
        disk.fail(Operation::Write, 0, ErrorKind::StorageFull);
        let full = append(&mut journal, &parts).unwrap_err();
        assert!(full.is_disk_full() && !journal.is_soiled(), "{full:?}");
        drop(journal);
        let (mut journal, recovery) = open(&disk).unwrap();
        let payloads: Vec<_> = replayed(&recovery).into_iter().map(|r| r.2).collect();
        assert_eq!(
            payloads,
            [b"first".to_vec(), b"12345678".to_vec()],
            "{sizes:?}"
        );
        append(&mut journal, &[b"last"]).unwrap();
    }
}

#[test]
fn options_out_of_range_are_refused() {
    let disk: Arc<dyn Disk> = Arc::new(FaultDisk::new(0));
    for segment_size_bytes in [0, 4096, 8193, (1 << 30) + 4096] {
        let options = JournalOptions {
            segment_size_bytes,
            ..OPTIONS
        };
        let refused = Journal::open(Arc::clone(&disk), Path::new(DIR), options).unwrap_err();
        assert!(
            matches!(refused, JournalError::Options { .. }),
            "{refused:?}"
        );
    }
}

#[test]
fn a_real_disk_keeps_what_was_appended_while_segments_are_recycled_in_the_background() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("volume/journal");
    let options = JournalOptions {
        segment_size_bytes: 64 << 10,
        ..JournalOptions::default()
    };
    let (mut journal, _) = Journal::open(Arc::new(RealDisk), &dir, options).unwrap();
    // More parts than one system call takes.
    let parts: Vec<&[u8]> = vec![b"ab"; 3000];
    let (_, place) = journal
        .append(&[Entry {
            kind: 1,
            parts: &parts,
        }])
        .unwrap()[0];
    assert_eq!(journal.reader().read(place).unwrap(), b"ab".repeat(3000));
    let mut last = Lsn(1);
    for round in 0..200_u8 {
        let (lsn, place) = append(&mut journal, &[&[round; 5000]]).unwrap()[0];
        assert_eq!(journal.reader().read(place).unwrap(), [round; 5000]);
        last = lsn;
        journal.release(Lsn(lsn.0 - 1));
    }
    drop(journal);
    let (journal, recovery) = Journal::open(Arc::new(RealDisk), &dir, options).unwrap();
    assert_eq!(journal.next_lsn(), last.next());
    assert_eq!(
        replayed(&recovery).last().unwrap(),
        &(last.0, 9, vec![199; 5000])
    );
    assert!(std::fs::read_dir(&dir).unwrap().count() <= 6);
}
