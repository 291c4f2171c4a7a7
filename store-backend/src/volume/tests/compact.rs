//! The index is made small while it is in use.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use testkit::fault_disk::FaultDisk;

use super::super::error::IndexError;
use super::super::index::{CompactError, Compaction, Meta, RoTxn};
use super::super::keeper::compact;
use super::*;

/// Of each message in the index: large, so that few make a large index.
const PROLOGUE_OCTETS: usize = 3000;
const BODY: &[u8] = b"Subject: s\r\n\r\nb\r\n";

async fn deliver_large(volume: &Volume, number: u64, account: AccountId) -> Outcome {
    let recipient = Recipient {
        prologue: vec![b'p'; PROLOGUE_OCTETS],
        ..to(account)
    };
    deliver_to(volume, number, BODY, vec![recipient])
        .await
        .remove(0)
}

/// Mail came, and most of it went.
async fn wear_out(volume: &Volume, numbers: std::ops::Range<u64>) {
    let mut uids = Vec::new();
    for number in numbers {
        uids.push(uid(&deliver_large(volume, number, ANN).await));
    }
    uids.retain(|uid| uid % 10 != 0);
    for uids in uids.chunks(500) {
        let gone = volume.expunge(ANN, E1, MailboxId::INBOX, uids.to_vec());
        gone.await.unwrap();
    }
    settle(volume);
}

fn file_octets(dir: &Path) -> u64 {
    let file = std::fs::metadata(dir.join("index/data.mdb"));
    file.unwrap().len()
}

/// The index that the whole journal makes.
async fn replayed(dir: &Path) -> String {
    std::fs::remove_dir_all(dir.join("index")).unwrap();
    let volume = Volume::open(config_without_checkpoints(dir), Arc::new(RealDisk)).unwrap();
    let dump = volume.dump_index().await.unwrap();
    volume.inner.crash();
    dump
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_index_is_made_small_under_deliveries_and_reads() {
    let dir = TempDir::new().unwrap();
    let config = config_without_checkpoints(dir.path());
    let volume = Volume::open(config, Arc::new(RealDisk)).unwrap();
    wear_out(&volume, 1..1000).await;
    let before = file_octets(dir.path());
    let dump = volume.dump_index().await.unwrap();
    let shared = volume.inner.shared();
    // One that reads the old index from before the first compaction to behind the last one.
    let (opened, ended) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let old_reader = {
        let (shared, opened, ended) = (Arc::clone(shared), opened.clone(), ended.clone());
        std::thread::spawn(move || {
            let count = |txn: &RoTxn<'_>| {
                let index = &shared.index;
                let count = index.messages.iter(txn)?.count() as u64;
                Ok::<_, IndexError>((count, index.prologues.len(txn)?))
            };
            shared.index.read(|txn| {
                let before = count(txn)?;
                opened.wait();
                ended.wait();
                assert_eq!(count(txn)?, before);
                // Who comes now finds what has come since, also while he reads the old one.
                let now = shared.index.read(|txn| count(txn))?;
                assert!(now.0 > before.0, "{now:?} {before:?}");
                Ok::<_, IndexError>(())
            })
        })
    };
    opened.wait();
    let stop = Arc::new(AtomicBool::new(false));
    let delivered = Arc::new(AtomicU64::new(0));
    let mut work = Vec::new();
    for (task, account) in [(1, ANN), (2, BOB)] {
        let (volume, stop, delivered) = (volume.clone(), stop.clone(), delivered.clone());
        work.push(tokio::spawn(async move {
            let mut number = task * 1_000_000;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                let uid = uid(&deliver_large(&volume, number, account).await);
                // What was answered is seen, and what is changed and removed of it.
                let change = FlagChange::Add(Flags::SEEN.into());
                let inbox = MailboxId::INBOX;
                let stored = volume.store_flags(account, E1, inbox, vec![uid], change, None);
                stored.await.unwrap();
                let seen = volume.read_message(account, inbox, uid).await.unwrap();
                assert!(seen.unwrap().info.flags.contains(Flags::SEEN));
                if number % 3 == 0 {
                    let gone = volume.expunge(account, E1, inbox, vec![uid]).await;
                    gone.unwrap();
                    let seen = volume.read_message(account, inbox, uid).await.unwrap();
                    assert!(seen.is_none());
                }
                delivered.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    {
        let (volume, stop) = (volume.clone(), stop.clone());
        work.push(tokio::spawn(async move {
            let (mut uidnext, mut modseq) = (0, 0);
            while !stop.load(Ordering::Relaxed) {
                let seen = volume.snapshot(ANN, MailboxId::INBOX).await;
                let mailbox = seen.unwrap().unwrap().mailbox;
                assert!(mailbox.uidnext >= uidnext && mailbox.highestmodseq >= modseq);
                (uidnext, modseq) = (mailbox.uidnext, mailbox.highestmodseq);
            }
        }));
    }
    for round in 0..4 {
        // Some come before each, and some during it.
        let seen = delivered.load(Ordering::Relaxed);
        while delivered.load(Ordering::Relaxed) < seen + 10 {
            assert!(!work.iter().any(tokio::task::JoinHandle::is_finished));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let shared = Arc::clone(shared);
        let compacted = tokio::task::spawn_blocking(move || compact(&shared, u64::MAX));
        let done = compacted.await.unwrap().unwrap();
        println!("round {round}: {done:?}");
        if round == 0 {
            assert_eq!(done.before_bytes, before.max(done.before_bytes));
            assert!(done.after_bytes < done.before_bytes / 2, "{done:?}");
        }
        assert!(!dir.path().join("index.new").exists());
    }
    stop.store(true, Ordering::Relaxed);
    for task in work {
        task.await.unwrap();
    }
    settle(&volume);
    ended.wait();
    old_reader.join().unwrap().unwrap();
    assert!(file_octets(dir.path()) < before);
    let after = volume.dump_index().await.unwrap();
    assert_ne!(after, dump);
    volume.inner.crash();
    drop(volume);
    // The same again from the file, and from the journal.
    let config = config_without_checkpoints(dir.path());
    let volume = Volume::open(config, Arc::new(RealDisk)).unwrap();
    assert_eq!(volume.dump_index().await.unwrap(), after);
    volume.inner.crash();
    drop(volume);
    assert_eq!(replayed(dir.path()).await, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_between_any_two_slices_is_in_the_new_index() {
    let dir = TempDir::new().unwrap();
    let config = config_without_checkpoints(dir.path());
    let volume = Volume::open(config, Arc::new(RealDisk)).unwrap();
    wear_out(&volume, 1..200).await;
    // So many as to be copied in some slices.
    for number in 1000..4000 {
        deliver_large(&volume, number, BOB).await;
    }
    settle(&volume);
    let shared = Arc::clone(volume.inner.shared());
    let (runtime, number) = (tokio::runtime::Handle::current(), AtomicU64::new(10_000));
    let writer = volume.clone();
    let compacted = tokio::task::spawn_blocking(move || {
        let inbox = MailboxId::INBOX;
        let map_size_bytes = shared.config.index_map_size_bytes;
        // Rows before, in and behind the slice that is copied next come, change and go.
        let go_on = || {
            let number = number.fetch_add(10, Ordering::Relaxed);
            let first = u32::try_from(number - 9_999).unwrap();
            runtime.block_on(async {
                for (step, account) in [ANN, AccountId(3), AccountId(2_000_000)].iter().enumerate()
                {
                    deliver_large(&writer, number + step as u64, *account).await;
                }
                let uids: Vec<u32> = (first..first + 5).collect();
                let change = FlagChange::Add(Flags::FLAGGED.into());
                let stored = writer.store_flags(BOB, E1, inbox, uids, change, None);
                stored.await.unwrap();
                let gone = writer.expunge(BOB, E1, inbox, vec![first + 6, 2900 - first]);
                gone.await.unwrap();
            });
            settle(&writer);
            Ok(())
        };
        shared.index.compact(&shared.layout, map_size_bytes, &go_on)
    });
    let done = compacted.await.unwrap().unwrap();
    assert!(done.row_count > 9000, "{done:?}");
    let dump = volume.dump_index().await.unwrap();
    volume.inner.crash();
    drop(volume);
    assert_eq!(replayed(dir.path()).await, dump);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_step_leaves_one_whole_index() {
    let dir = TempDir::new().unwrap();
    let mut dump = None;
    for steps in 0..=4_u64 {
        let config = config_without_checkpoints(dir.path());
        let volume = Volume::open(config, Arc::new(RealDisk)).unwrap();
        assert!(!dir.path().join("index.new").exists(), "step {steps}");
        if let Some(dump) = dump.take() {
            assert_eq!(volume.dump_index().await.unwrap(), dump, "step {steps}");
        }
        wear_out(&volume, steps * 100 + 1..steps * 100 + 100).await;
        let shared = Arc::clone(volume.inner.shared());
        let layout = shared.layout.clone();
        let before = file_octets(dir.path());
        let mut compaction = Compaction::begin(&shared.index, &layout, 1 << 30).unwrap();
        let mut done = None;
        for step in 0..steps {
            match step {
                0 => compaction.copy(&|| Ok(())).unwrap(),
                1 => compaction.catch_up(&|| Ok(())).unwrap(),
                2 => done = Some(compaction.put_in_place().unwrap()),
                _ => {}
            }
            // Taken, applied, and in whichever is left.
            deliver_large(&volume, 10_000 + steps * 10 + step, BOB).await;
            settle(&volume);
        }
        assert!(dir.path().join("index.new").exists());
        if let Some(done) = done {
            assert!(done.after_bytes < before);
        }
        dump = Some(volume.dump_index().await.unwrap());
        compaction.abandon();
        volume.inner.crash();
        drop((volume, shared));
    }
    let dump = dump.unwrap();
    assert_eq!(replayed(dir.path()).await, dump);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_that_cannot_be_finished_leaves_all_as_it_was() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    wear_out(&volume, 1..400).await;
    settle_checkpoint(&volume);
    let shared = volume.inner.shared();
    let (dump, octets) = (volume.dump_index().await.unwrap(), file_octets(dir.path()));
    let refusing = Refusing::of_volume(dir.path());
    let (map, small) = (shared.config.index_map_size_bytes, 256 << 10);
    // The disk is full at the n-th slice or write; the map is; somebody stops it.
    let mut met = 0;
    for skip in 0.. {
        let slices = AtomicU64::new(0);
        let full = || {
            let slice = slices.fetch_add(1, Ordering::Relaxed);
            refusing.begin(if slice == skip { ENOSPC } else { 0 }, 0);
            Ok(())
        };
        let done = shared.index.compact(&shared.layout, map, &full);
        refusing.end();
        if done.is_ok() {
            break;
        }
        let error = done.unwrap_err();
        assert!(
            matches!(&error, CompactError::Index(error) if shared.has_no_room(error)),
            "{error}"
        );
        met += 1;
        assert!(!dir.path().join("index.new").exists());
        assert_eq!(file_octets(dir.path()), octets);
        assert_eq!(volume.dump_index().await.unwrap(), dump);
    }
    assert!(met >= 16, "{met}");
    assert!(file_octets(dir.path()) < octets);
    wear_out(&volume, 1000..1400).await;
    settle_checkpoint(&volume);
    let (dump, octets) = (volume.dump_index().await.unwrap(), file_octets(dir.path()));
    let full = shared.index.compact(&shared.layout, small, &|| Ok(()));
    assert!(matches!(full, Err(CompactError::Index(_))), "{full:?}");
    let stopped = || Err(CompactError::Stopped);
    let stopped = shared.index.compact(&shared.layout, map, &stopped);
    assert!(matches!(stopped, Err(CompactError::Stopped)), "{stopped:?}");
    assert!(!dir.path().join("index.new").exists());
    assert_eq!(file_octets(dir.path()), octets);
    assert_eq!(volume.dump_index().await.unwrap(), dump);
    // And it is used as before.
    assert!(matches!(
        deliver_large(&volume, 5000, ANN).await,
        Outcome::Committed { .. }
    ));
    volume.close();
    assert_eq!(volume.status().read_only, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_relies_on_a_name_that_a_power_cut_may_take_back() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    wear_out(&volume, 1..400).await;
    settle_checkpoint(&volume);
    let shared = Arc::clone(volume.inner.shared());
    let (data, old) = (dir.path().join("index/data.mdb"), dir.path().join("old"));
    std::fs::hard_link(&data, &old).unwrap();
    let mut compaction = Compaction::begin(&shared.index, &shared.layout, 1 << 30).unwrap();
    compaction.copy(&|| Ok(())).unwrap();
    compaction.catch_up(&|| Ok(())).unwrap();
    shared.index.name_errno.store(EIO, Ordering::Relaxed);
    let done = compaction.put_in_place();
    assert!(
        matches!(done, Err(CompactError::Doubtful { .. })),
        "{done:?}"
    );
    drop(compaction);
    // Also where the disk answers again. It has the new one.
    shared.index.name_errno.store(0, Ordering::Relaxed);
    assert_ne!(inode(&data), inode(&old));
    let checkpoint = shared.checkpoint();
    let expected = uid(&deliver_large(&volume, 5000, BOB).await);
    let until = Instant::now() + Duration::from_secs(60);
    while volume.status().read_only.is_none() {
        assert!(Instant::now() < until, "{:?}", volume.status());
        shared.wants_checkpoint.store(true, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(shared.checkpoint(), checkpoint);
    assert!(shared.index.sync().is_err());
    let again = compact(&shared, u64::MAX);
    assert!(matches!(again, Err(CompactError::Index(_))), "{again:?}");
    volume.inner.crash();
    drop((volume, shared));
    // The power cut takes it back. What was answered is there.
    std::fs::rename(&old, &data).unwrap();
    let volume = open(&dir);
    let found = volume.read_message(BOB, MailboxId::INBOX, expected).await;
    assert!(found.unwrap().is_some());
    wear_out(&volume, 1000..1100).await;
    settle_checkpoint(&volume);
    volume.close();
    assert_eq!(volume.status().read_only, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keeper_fails_a_volume_whose_smaller_index_may_lose_its_name() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    wear_out(&volume, 1..100).await;
    let shared = volume.inner.shared();
    shared.index.name_errno.store(EIO, Ordering::Relaxed);
    let done = compact(shared, u64::MAX);
    assert!(
        matches!(done, Err(CompactError::Doubtful { .. })),
        "{done:?}"
    );
    assert!(volume.status().read_only.is_some());
    assert!(volume.dump_index().await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smaller_index_stays_where_it_may_be_the_one_that_has_the_name() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    wear_out(&volume, 1..100).await;
    let dump = volume.dump_index().await.unwrap();
    let shared = Arc::clone(volume.inner.shared());
    let mut compaction = Compaction::begin(&shared.index, &shared.layout, 1 << 30).unwrap();
    compaction.copy(&|| Ok(())).unwrap();
    compaction.catch_up(&|| Ok(())).unwrap();
    // A folder that can be neither entered nor looked into.
    let made = std::fs::read_dir(dir.path().join("index.new")).unwrap();
    let made = made.map(|one| one.unwrap().path()).next().unwrap();
    let aside = dir.path().join("aside");
    std::fs::rename(&made, &aside).unwrap();
    std::os::unix::fs::symlink(&made, &made).unwrap();
    let done = compaction.put_in_place();
    assert!(
        matches!(done, Err(CompactError::Doubtful { .. })),
        "{done:?}"
    );
    std::fs::remove_file(&made).unwrap();
    std::fs::rename(&aside, &made).unwrap();
    drop(compaction);
    assert!(made.join("data.mdb").exists());
    let written = shared.index.write(|txn| {
        let set = shared.index.set_number(txn, Meta::Accounts, 0);
        set.map(drop)
    });
    assert!(written.is_err());
    assert_eq!(volume.dump_index().await.unwrap(), dump);
    volume.inner.crash();
    drop((volume, shared));
    let volume = open(&dir);
    assert!(!dir.path().join("index.new").exists());
    assert_eq!(volume.dump_index().await.unwrap(), dump);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_at_a_time_makes_an_index_small_and_only_as_fast_as_it_is_written() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    wear_out(&volume, 1..400).await;
    settle_checkpoint(&volume);
    let shared = volume.inner.shared();
    let (dump, octets) = (volume.dump_index().await.unwrap(), file_octets(dir.path()));
    let (layout, map) = (&shared.layout, shared.config.index_map_size_bytes);
    let mut first = Compaction::begin(&shared.index, layout, map).unwrap();
    first.copy(&|| Ok(())).unwrap();
    let second = compact(shared, u64::MAX);
    assert!(matches!(second, Err(CompactError::Busy)), "{second:?}");
    // It took nothing from the first one, which has all of this.
    let write = |rows: u64| {
        let table = shared.index.cards;
        let written: Result<(), IndexError> = shared.index.write(|txn| {
            for row in 0..rows {
                table.put(txn, &(row + 1_000_000).to_be_bytes(), b"card")?;
            }
            for row in 0..rows {
                table.delete(txn, &(row + 1_000_000).to_be_bytes())?;
            }
            Ok(())
        });
        written.unwrap();
    };
    write(1000);
    first.catch_up(&|| Ok(())).unwrap();
    // As much as it has just written comes again, each time.
    let rounds = AtomicU64::new(0);
    let outrun = first.catch_up(&|| {
        rounds.fetch_add(1, Ordering::Relaxed);
        write(10_000);
        Ok(())
    });
    assert!(matches!(outrun, Err(CompactError::Outrun)), "{outrun:?}");
    assert_eq!(rounds.load(Ordering::Relaxed), 10);
    drop(first);
    assert!(!dir.path().join("index.new").exists());
    assert!(file_octets(dir.path()) >= octets);
    assert_eq!(volume.dump_index().await.unwrap(), dump);
    // The next one has a better time.
    compact(shared, u64::MAX).unwrap();
    assert!(file_octets(dir.path()) < octets);
    assert_eq!(volume.dump_index().await.unwrap(), dump);
    volume.close();
    assert_eq!(volume.status().read_only, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_larger_than_what_is_noted_ends_a_compaction_and_nothing_else() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    wear_out(&volume, 1..100).await;
    settle_checkpoint(&volume);
    let shared = volume.inner.shared();
    let index = &shared.index;
    let (dump, slices) = (volume.dump_index().await.unwrap(), AtomicU64::new(0));
    let row = vec![7; 1 << 20];
    let done = index.compact(&shared.layout, 1 << 30, &|| {
        if slices.fetch_add(1, Ordering::Relaxed) == 3 {
            let written: Result<bool, IndexError> = index.write(|txn| {
                for _ in 0..70 {
                    index.cards.put(txn, b"a large one", &row)?;
                }
                Ok(index.cards.delete(txn, b"a large one")?)
            });
            assert!(written.unwrap());
        }
        Ok(())
    });
    assert!(matches!(done, Err(CompactError::Outrun)), "{done:?}");
    assert_eq!(volume.dump_index().await.unwrap(), dump);
    compact(shared, u64::MAX).unwrap();
    assert_eq!(volume.dump_index().await.unwrap(), dump);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_index_is_made_small_where_that_takes_room_from_mail() {
    let dir = TempDir::new().unwrap();
    let disk = FaultDisk::new(1);
    let marked = VolumeConfig {
        free_min_bytes: 20 << 20,
        ..config(dir.path())
    };
    disk.set_capacity(100 << 20);
    let volume = Volume::open(marked, Arc::new(disk.clone())).unwrap();
    wear_out(&volume, 1..400).await;
    settle_unlinked(&volume).await;
    settle_checkpoint(&volume);
    let octets = file_octets(dir.path());
    // With the smaller one beside it, less than the mark would be free.
    let shared = volume.inner.shared();
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        disk.set_capacity(100 << 20);
        shared.look_for_room();
        let room = volume.status().space.disk.unwrap();
        disk.set_capacity(room.size_bytes - room.free_bytes + (20 << 20) + 1000);
        shared.look_for_room();
        // The journal may have taken its next segment meanwhile.
        if !volume.status().space.refuses {
            break;
        }
        assert!(Instant::now() < until, "{:?}", volume.status());
    }
    let refused = compact(shared, u64::MAX).unwrap_err().to_string();
    assert!(refused.starts_with("no room"), "{refused}");
    assert_eq!(file_octets(dir.path()), octets);
    disk.set_capacity(100 << 20);
    shared.look_for_room();
    compact(shared, u64::MAX).unwrap();
    assert!(file_octets(dir.path()) < octets);
    volume.close();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keeper_makes_an_index_small_of_which_most_is_free() {
    let dir = TempDir::new().unwrap();
    let wanted = VolumeConfig {
        index_compact_above_bytes: 1 << 20,
        index_compact_interval: Duration::from_millis(100),
        ..config(dir.path())
    };
    let volume = Volume::open(wanted, Arc::new(RealDisk)).unwrap();
    let data = dir.path().join("index/data.mdb");
    let (first, _) = inode(&data);
    wear_out(&volume, 1..1000).await;
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let index = volume.inner.shared().index.usage().unwrap();
        let is_small = index.file_bytes <= 1 << 20 || index.free_bytes <= index.file_bytes / 2;
        if is_small && inode(&data).0 != first {
            break;
        }
        assert!(Instant::now() < until, "{index:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    volume.close();
    assert_eq!(volume.status().read_only, None);
}

/// Rows that came in order and of which two of three went: most of each page is empty, and hardly one is free.
fn loosen(volume: &Volume) {
    let index = &volume.inner.shared().index;
    let rows: Vec<u64> = (0..20_000).map(|row| row + 1_000_000).collect();
    for rows in rows.chunks(500) {
        let written: Result<(), IndexError> = index.write(|txn| {
            let mut rows = rows.iter();
            Ok(rows.try_for_each(|row| index.cards.put(txn, &row.to_be_bytes(), &[b'c'; 250]))?)
        });
        written.unwrap();
    }
    for rows in rows.chunks(500) {
        let written: Result<(), IndexError> = index.write(|txn| {
            for row in rows.iter().filter(|row| *row % 3 != 0) {
                index.cards.delete(txn, &row.to_be_bytes())?;
            }
            Ok(())
        });
        written.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rows_would_take_is_known_before_they_are_copied() {
    let dir = TempDir::new().unwrap();
    let volume = open(&dir);
    // Large rows and small ones, in some tables and of the kind that has pages of its own too.
    wear_out(&volume, 1..100).await;
    for number in 1000..1200 {
        deliver_large(&volume, number, BOB).await;
        deliver_to(&volume, 10_000 + number, BODY, vec![to(BOB)]).await;
    }
    loosen(&volume);
    settle_checkpoint(&volume);
    let shared = volume.inner.shared();
    let usage = shared.index.usage().unwrap();
    let weight = shared.index.weigh(&|| Ok(())).unwrap();
    assert!(usage.free_bytes < usage.file_bytes / 2, "{usage:?}");
    let done = compact(shared, u64::MAX).unwrap();
    println!("{usage:?} {weight} {done:?}");
    assert!(done.after_bytes < usage.file_bytes / 2, "{done:?}");
    assert!(
        weight.abs_diff(done.after_bytes) <= done.after_bytes / 20,
        "{weight} {done:?}"
    );
    // It is another one now, of the same rows.
    assert_eq!(shared.index.weigh(&|| Ok(())).unwrap(), weight);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keeper_makes_an_index_small_whose_pages_are_half_empty() {
    let dir = TempDir::new().unwrap();
    let wanted = VolumeConfig {
        index_compact_above_bytes: 1 << 20,
        index_compact_interval: Duration::from_millis(100),
        ..config(dir.path())
    };
    // Where none is made, so that it is as it is wanted when one may be.
    let volume = open(&dir);
    loosen(&volume);
    volume.close();
    drop(volume);
    let data = dir.path().join("index/data.mdb");
    let (first, octets) = (inode(&data).0, file_octets(dir.path()));
    let volume = Volume::open(wanted, Arc::new(RealDisk)).unwrap();
    let usage = volume.inner.shared().index.usage().unwrap();
    assert!(usage.free_bytes < usage.file_bytes / 2, "{usage:?}");
    let until = Instant::now() + Duration::from_secs(60);
    while inode(&data).0 == first {
        assert!(Instant::now() < until, "{usage:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(file_octets(dir.path()) < octets / 2);
    volume.close();
    assert_eq!(volume.status().read_only, None);
}

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
