//! Power cuts at every point of a volume's life.
//!
//! A *story* is one run of random commands on a volume whose disk is recorded: every write, sync and change of a name in
//! order, every commit of the index beside it, and when each command was asked for and answered. For every point of the
//! recording, disks are made as a cut there may leave them: what was synced is there; the rest is lost, there up to some
//! sector, or there in parts (`testkit::fault_disk::Loss`). The index is one of the states that LMDB may be in then
//! (`index_tape`), or gone altogether: then it is made anew from its copy, the kept log and the journal. Or only the process is killed there, and the power goes later. Such a disk is opened, and then
//!
//! - the accounts are as after some record of the story: not before the last answered command (P1), not behind the last
//!   one asked for, no command by half. That compares UIDs, UIDNEXT, MODSEQs, flags, dates, names, what was expunged, and
//!   a hash of each message's octets (P3, P9), of all accounts (P8);
//! - UIDVALIDITYs are the ones told before; the folders hold the messages' files and no others;
//! - deliveries that are tried again are there once (P2), and a new one gets the next UID;
//! - this is recorded too and the power cut again, at its end and at some points within the recovery: what was seen or
//!   answered is still there.
//!
//! Here both the disk and what LMDB does on it are models. [`file_system`] does the same with the real ones.
//!
//! By default some points of one story are tried. `POSTHOUSE_TEST_POWER_CUTS=10000` tries all points of as many stories as
//! it takes to have that many, each with two kinds of loss; on two processors that takes half an hour.
//! `POSTHOUSE_TEST_SEED` names the first story. Threads make the order of a story's disk operations differ a little from run
//! to run, so a failure prints what led to it.
//!
//! Not tried: a disk that breaks what `FORMAT-journal.md` and `FORMAT-store.md` assume, commands on frozen, shared or imported
//! accounts, annotations.

mod file_system;
mod index_tape;
mod life;
mod world;

use std::sync::atomic::{AtomicUsize, Ordering};

use durable::Disk;
use testkit::fault_disk::{FaultDisk, Loss, Tape};

use super::model::random::Random;
use super::*;
pub(in crate::volume) use index_tape::IndexTape;
use life::{Life, Medium, kill, look, open_on};

/// In memory where there is such a place: what a cut leaves is decided here and not by the disk below.
fn folder() -> TempDir {
    TempDir::new_in("/dev/shm").unwrap_or_else(|_| TempDir::new().unwrap())
}

impl Medium for FaultDisk {
    fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    fn recorded(&self) -> usize {
        FaultDisk::recorded(self)
    }
}

/// Of the first story.
fn first_seed() -> u64 {
    let seed = std::env::var("POSTHOUSE_TEST_SEED");
    seed.map_or(1, |seed| seed.parse().unwrap())
}

/// How many points are to be tried in a full run.
fn wanted_cuts() -> Option<usize> {
    let count = std::env::var("POSTHOUSE_TEST_POWER_CUTS").ok()?;
    Some(count.parse().unwrap())
}

/// One life of a volume on a recorded disk.
struct Story {
    root: PathBuf,
    tape: Tape,
    index: Arc<IndexTape>,
    life: Life,
}

impl Story {
    async fn live(seed: u64, count: usize) -> Self {
        let dir = folder();
        let root = dir.path();
        let (index_folder, disk) = (root.join("index"), FaultDisk::new(seed));
        disk.record();
        let index = IndexTape::begin(&index_folder, None, &disk);
        let life = Life::live(&disk, root, seed, count).await;
        IndexTape::end(&index_folder);
        Self {
            root: root.to_owned(),
            tape: disk.take_tape(),
            index,
            life,
        }
    }
}

/// Where and how the power goes; without a loss only the process is killed, and what it wrote stays for the next one.
#[derive(Clone, Copy, Debug)]
struct Cut {
    point: usize,
    loss: Option<Loss>,
    seed: u64,
}

/// Tells where it was when something failed.
struct Place<'s>(&'s Story, Cut, Option<(Tape, Cut)>);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(story, cut, within) = self;
            let tail = story.tape.tail(cut.point, TAIL);
            eprintln!("seed {}, {cut:?}, after\n{tail}", story.life.seed);
            if let Some((tape, cut)) = within {
                let tail = tape.tail(cut.point, TAIL);
                eprintln!("and within the recovery, {cut:?}, after\n{tail}");
            }
        }
    }
}

/// Cuts the power of a disk that has the changes up to the cut's point, and puts an index beside it.
fn power_off(disk: &FaultDisk, index: &IndexTape, cut: Cut, from: &Path, to: &Path) -> FaultDisk {
    let disk = disk.fork(cut.seed);
    if let Some(loss) = cut.loss {
        disk.power_on(loss);
    }
    disk.remount(from, to);
    disk.record();
    let images = index.at(cut.point);
    let mut random = Random(!cut.seed);
    let image = match random.below(4) {
        // The cut was the end of it: copy, kept log and journal have what it had.
        0 => None,
        _ => random.one(&images).clone(),
    };
    IndexTape::begin(&to.join("index"), image, &disk);
    disk
}

/// No cut leaves an index that the journal does not reach back to: it would have been put aside.
fn assert_is_new_enough(root: &Path) {
    let aside = std::fs::read_dir(root.join("quarantine"));
    let aside: Vec<_> = aside.into_iter().flatten().collect();
    assert!(aside.is_empty(), "{aside:?}");
}

/// Opens what a cut left, and goes on; again after a cut at the end of that, and after `within` cuts of the recovery.
/// Answers how many disks were opened.
async fn examine(story: &Story, disk: &FaultDisk, cut: Cut, root: &Path, within: u64) -> usize {
    let mut place = Place(story, cut, None);
    let (life, index_folder) = (&story.life, root.join("index"));
    let possible = life.possible(cut.point);
    let disk = power_off(disk, &story.index, cut, &story.root, root);
    let index = IndexTape::of(&index_folder).unwrap();
    let volume = open_on(&disk.disk(), root);
    assert_is_new_enough(root);
    let opened = disk.recorded();
    let mut uidvalidities = life.uidvalidities.clone();
    let seen = look(&volume, &mut uidvalidities).await;
    let found = life.find(&seen, &possible);
    let recovered = disk.recorded();
    let mut world = life.worlds[found].clone();
    uidvalidities.forget_new(&world);
    life.go_on(&volume, cut.point, found, &mut world).await;
    kill(volume);
    let tape = disk.take_tape();
    let mut random = Random(cut.seed);
    for number in 0..=within {
        let point = match number {
            0 => tape.len(),
            _ => usize::try_from(random.below(recovered as u64)).unwrap(),
        };
        let cut = Cut {
            point,
            loss: Some(*random.one(&Loss::ALL)),
            seed: random.next(),
        };
        place.2 = Some((tape.clone(), cut));
        let disk = tape.disk();
        tape.play(&disk, 0, cut.point);
        let disk = power_off(&disk, &index, cut, root, root);
        let volume = open_on(&disk.disk(), root);
        assert_is_new_enough(root);
        if number == 0 {
            let seen = look(&volume, &mut uidvalidities).await;
            let difference = world.difference(&seen);
            assert!(seen == world, "after going on:\n{difference}");
        } else {
            let mut uidvalidities = life.uidvalidities.clone();
            let seen = look(&volume, &mut uidvalidities).await;
            // What was seen once is seen for ever.
            let is_open = cut.point >= opened;
            let again = if is_open {
                found..=found
            } else {
                possible.clone()
            };
            life.find(&seen, &again);
        }
        volume.close();
        assert_eq!(volume.status().read_only, None);
    }
    IndexTape::end(&index_folder);
    2 + usize::try_from(within).unwrap()
}

/// Cuts a story at some points, on some threads, with so many losses each; answers the disks that were opened.
fn cut_at(story: &Story, points: &[usize], losses: usize, within: u64) -> usize {
    let (next, opened) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let (runtime, dir) = (runtime.unwrap(), folder());
        let (disk, mut done) = (story.tape.disk(), 0);
        while let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
            story.tape.play(&disk, done, *point);
            done = *point;
            let mut random = Random(story.life.seed ^ (done as u64) << 32);
            let first = random.next() as usize;
            for loss in 0..losses {
                let cut = Cut {
                    point: done,
                    loss: LOSSES[first.wrapping_add(loss) % LOSSES.len()],
                    seed: random.next(),
                };
                let count = examine(story, &disk, cut, dir.path(), random.below(within + 1));
                opened.fetch_add(runtime.block_on(count), Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
    opened.into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_at_any_point_loses_and_doubles_nothing() {
    let wanted = wanted_cuts();
    let (mut points, mut opened) = (0, 0);
    for seed in first_seed().. {
        let story = Story::live(seed, COMMANDS).await;
        let (step, losses) = match wanted {
            Some(_) => (1, LOSSES_TRIED),
            None => (1 + story.tape.len() / REDUCED_POINTS, 1),
        };
        let all: Vec<usize> = (0..=story.tape.len()).step_by(step).collect();
        let changes = story.tape.tail(story.tape.len(), usize::MAX);
        assert!(changes.contains(".free\" to"), "no segment was recycled");
        let disks = cut_at(&story, &all, losses, 1);
        (points, opened) = (points + all.len(), opened + disks);
        println!("seed {seed}: {points} points, {opened} disks");
        if points >= wanted.unwrap_or(0) {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_that_is_cut_short_anywhere_loses_nothing_that_comes_later() {
    let story = Story::live(1, 1).await;
    let all: Vec<usize> = (0..=story.life.commands[0].begun).collect();
    cut_at(&story, &all, LOSSES.len(), 0);
}

/// Of these, one after the other, at each point of a full run.
const LOSSES_TRIED: usize = 2;
const LOSSES: [Option<Loss>; 4] = [
    None,
    Some(Loss::Lost),
    Some(Loss::Torn),
    Some(Loss::Reordered),
];
/// Commands of a story: enough to fill some segments.
const COMMANDS: usize = 80;
/// What a debug build tries in some seconds.
const REDUCED_POINTS: usize = 150;
/// Changes that are printed of what led to a failure.
const TAIL: usize = 16;
