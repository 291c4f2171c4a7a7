//! Power cuts at every point of a volume's life.
//!
//! A *story* is one run of random commands on a volume whose disk is recorded: every write, sync and change of a name in
//! order, every commit of the index beside it, and when each command was asked for and answered. For every point of the
//! recording, disks are made as a cut there may leave them: what was synced is there; the rest is lost, there up to some
//! sector, or there in parts (`testkit::fault_disk::Loss`). The index is one of the states that LMDB may be in then
//! (`index_tape`). Or only the process is killed there, and the power goes later. Such a disk is opened, and then
//!
//! - the accounts are as after some record of the story: not before the last answered command (P1), not behind the last
//!   one asked for, no command by half. That compares UIDs, UIDNEXT, MODSEQs, flags, dates, names, what was expunged, and
//!   a hash of each message's octets (P3, P9), of all accounts (P8);
//! - UIDVALIDITYs are the ones told before; the folders hold the messages' files and no others;
//! - deliveries that are tried again are there once (P2), and a new one gets the next UID;
//! - this is recorded too and the power cut again, at its end and at some points within the recovery: what was seen or
//!   answered is still there.
//!
//! By default some points of one story are tried. `POSTHOUSE_TEST_POWER_CUTS=10000` tries all points of as many stories as
//! it takes to have that many, each with two kinds of loss; on two processors that takes half an hour.
//! `POSTHOUSE_TEST_SEED` names the first story. Threads make the order of a story's disk operations differ a little from run
//! to run, so a failure prints what led to it.
//!
//! Not tried: a disk that breaks what `FORMAT-journal.md` and `FORMAT-store.md` assume, the blocks within a commit of the
//! index, commands on frozen, shared or imported accounts, annotations.

mod index_tape;
mod world;

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};

use durable::Disk as _;
use testkit::fault_disk::{FaultDisk, Loss, Tape};

use super::super::error::IndexError;
use super::model::random::Random;
use super::model::{Work, all};
use super::*;
pub(in crate::volume) use index_tape::IndexTape;
use world::{Op, Uidvalidities, World};

/// Segments as small as the bodies allow, so that they are released and recycled; few links, so that blobs are copied.
fn config(path: &Path) -> VolumeConfig {
    VolumeConfig {
        journal_segment_size_bytes: 64 << 10,
        checkpoint_bytes: 48 << 10,
        checkpoint_interval: Duration::from_secs(3600),
        links_max: 4,
        ..super::config(path)
    }
}

fn open_on(disk: &FaultDisk, root: &Path) -> Volume {
    Volume::open(config(root), Arc::new(disk.clone())).unwrap()
}

/// As a process that is killed.
fn kill(volume: Volume) {
    volume.inner.crash();
    drop(volume);
}

/// In memory where there is such a place: what a cut leaves is decided here and not by the disk below.
fn folder() -> TempDir {
    TempDir::new_in("/dev/shm").unwrap_or_else(|_| TempDir::new().unwrap())
}

/// One life of a volume, with all that is to be known of it.
struct Story {
    seed: u64,
    root: PathBuf,
    tape: Tape,
    index: Arc<IndexTape>,
    commands: Vec<Command>,
    /// The worlds it went through, one a record at most.
    worlds: Vec<World>,
    uidvalidities: Uidvalidities,
}

struct Command {
    op: Op,
    /// Points of the tape: it was not asked for before the one and not answered before the other.
    begun: usize,
    answered: usize,
    /// The worlds after each of its records.
    worlds: Vec<usize>,
}

impl Story {
    async fn live(seed: u64, count: usize) -> Self {
        let dir = folder();
        let root = dir.path();
        let index_folder = root.join("index");
        let (mut random, disk) = (Random(seed), FaultDisk::new(seed));
        disk.record();
        let index = IndexTape::begin(&index_folder, None, &disk);
        let mut volume = open_on(&disk, root);
        let (mut commands, mut worlds) = (Vec::<Command>::new(), vec![World::default()]);
        let mut uidvalidities = Uidvalidities::default();
        while commands.len() < count {
            let (mut ops, mut work) = (Vec::new(), Vec::<Work<_>>::new());
            let mut world = worlds.last().unwrap().clone();
            for _ in 0..1 + random.below(4) {
                let number = (commands.len() + ops.len()) as u64;
                let op = Op::draw(&mut random, &world, number);
                let (bodies, steps) = (op.bodies(&volume).await, op.apply(&world));
                let (volume, disk, before) = (volume.clone(), disk.clone(), world);
                world = steps.last().unwrap().clone();
                ops.push((op.clone(), steps));
                let one = async move {
                    let begun = disk.recorded();
                    let records: Vec<u64> = op.run(&volume, &before, bodies).await;
                    (begun, disk.recorded(), records)
                };
                work.push(Box::pin(one));
            }
            for ((op, steps), (begun, answered, records)) in ops.into_iter().zip(all(work).await) {
                let mut command = Command {
                    op,
                    begun,
                    answered,
                    worlds: Vec::new(),
                };
                for (step, world) in steps.into_iter().enumerate() {
                    // What stands in one record is there as a whole.
                    if records.get(step) != records.get(step + 1) {
                        command.worlds.push(worlds.len());
                        worlds.push(world);
                    }
                }
                commands.push(command);
            }
            match random.below(12) {
                0 => settle_checkpoint(&volume),
                1 => {
                    kill(volume);
                    volume = open_on(&disk, root);
                }
                2..7 => {
                    let seen = World::seen(&volume, &mut uidvalidities).await;
                    let difference = world.difference(&seen);
                    assert!(seen == world, "seed {seed}, without a cut:\n{difference}");
                }
                _ => {}
            }
        }
        settle_unlinked(&volume).await;
        volume.close();
        drop(volume);
        IndexTape::end(&index_folder);
        Self {
            seed,
            root: root.to_owned(),
            tape: disk.take_tape(),
            index,
            commands,
            worlds,
            uidvalidities,
        }
    }

    /// The worlds that may be there when the power goes at a point.
    fn possible(&self, point: usize) -> RangeInclusive<usize> {
        let begun = self.commands.iter().filter(|one| one.begun <= point);
        let answered = self.commands.iter().filter(|one| one.answered <= point);
        let last = |one: &Command| *one.worlds.last().unwrap();
        let (must, may) = (answered.map(last).max(), begun.map(last).max());
        must.unwrap_or(0)..=may.unwrap_or(0)
    }

    /// Which of them it is.
    fn find(&self, seen: &World, possible: &RangeInclusive<usize>) -> usize {
        let mut range = possible.clone();
        range
            .rfind(|world| self.worlds[*world] == *seen)
            .unwrap_or_else(|| {
                let wanted = &self.worlds[*possible.start()];
                panic!(
                    "none of the worlds {possible:?}; from the first one:\n{}",
                    wanted.difference(seen)
                )
            })
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
            eprintln!("seed {}, {cut:?}, after\n{tail}", story.seed);
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
    let image = Random(!cut.seed).one(&images).clone();
    IndexTape::begin(&to.join("index"), image, &disk);
    disk
}

/// Opens what a cut left, and goes on; again after a cut at the end of that, and after `within` cuts of the recovery.
/// Answers how many disks were opened.
async fn examine(story: &Story, disk: &FaultDisk, cut: Cut, root: &Path, within: u64) -> usize {
    let mut place = Place(story, cut, None);
    let (possible, index_folder) = (story.possible(cut.point), root.join("index"));
    let disk = power_off(disk, &story.index, cut, &story.root, root);
    let index = IndexTape::of(&index_folder).unwrap();
    let volume = open_on(&disk, root);
    let opened = disk.recorded();
    let mut uidvalidities = story.uidvalidities.clone();
    let seen = look(&volume, &disk, &mut uidvalidities).await;
    let found = story.find(&seen, &possible);
    let recovered = disk.recorded();
    let mut world = story.worlds[found].clone();
    uidvalidities.forget_new(&world);
    go_on(story, &volume, cut, found, &mut world).await;
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
        let volume = open_on(&disk, root);
        if number == 0 {
            let seen = look(&volume, &disk, &mut uidvalidities).await;
            let difference = world.difference(&seen);
            assert!(seen == world, "after going on:\n{difference}");
        } else {
            let mut uidvalidities = story.uidvalidities.clone();
            let seen = look(&volume, &disk, &mut uidvalidities).await;
            // What was seen once is seen for ever.
            let is_open = cut.point >= opened;
            let again = if is_open {
                found..=found
            } else {
                possible.clone()
            };
            story.find(&seen, &again);
        }
        volume.close();
        assert_eq!(volume.status().read_only, None);
    }
    IndexTape::end(&index_folder);
    2 + usize::try_from(within).unwrap()
}

/// The world a volume holds, once it has come to rest; its folders hold the same.
async fn look(volume: &Volume, disk: &FaultDisk, uidvalidities: &mut Uidvalidities) -> World {
    let rows = settle_blobs(volume);
    let seen = World::seen(volume, uidvalidities).await;
    let root = &volume.inner.shared().layout.root;
    let mut links = BTreeSet::new();
    list(disk, &root.join("mail"), &mut links);
    assert_eq!(links, seen.links(root));
    let mut blobs = BTreeSet::new();
    list(disk, &root.join("blobs"), &mut blobs);
    assert_eq!(rows, blobs.len() as u64, "{blobs:#?}");
    seen
}

/// Waits until index and files have all, and blobs without a message are gone; answers how many there are.
fn settle_blobs(volume: &Volume) -> u64 {
    let index = &volume.inner.shared().index;
    loop {
        settle(volume);
        let counts = index
            .read(|txn| Ok::<_, IndexError>((index.unlinked.len(txn)?, index.blobs.len(txn)?)));
        match counts.unwrap() {
            // Their removal is a record like others.
            (0, blobs) if volume.status().position == volume.status().applied => {
                settle(volume);
                return blobs;
            }
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn list(disk: &FaultDisk, folder: &Path, files: &mut BTreeSet<PathBuf>) {
    for name in disk.read_dir(folder).unwrap() {
        let path = folder.join(name);
        if disk.metadata(&path).unwrap().is_dir {
            list(disk, &path, files);
        } else {
            files.insert(path);
        }
    }
}

/// Tries the last deliveries again, as who was not answered does, and one more: each is there once (P2), with the next
/// UID (P3), whatever happens from now on.
async fn go_on(story: &Story, volume: &Volume, cut: Cut, found: usize, world: &mut World) {
    let begun = story.commands.iter().filter(|one| one.begun <= cut.point);
    let tried = begun.rev().take(RETRIED_COUNT);
    let mut deliveries = Vec::new();
    for command in tried.filter(|one| matches!(one.op, Op::Deliver(..))) {
        let is_there = *command.worlds.last().unwrap() <= found;
        deliveries.push((command.op.clone(), is_there));
    }
    deliveries.push((Op::new_delivery(), false));
    for (op, is_there) in deliveries {
        let bodies = op.bodies(volume).await;
        let records = op.clone().run(volume, world, bodies).await;
        assert!(!is_there || records.iter().all(|record| *record == 0));
        // One of several records may have been there.
        if let Some(after) = op.only(&records).apply(world).pop() {
            *world = after;
        }
    }
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
            let mut random = Random(story.seed ^ (done as u64) << 32);
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
    let first = std::env::var("POSTHOUSE_TEST_SEED").map_or(1, |seed| seed.parse().unwrap());
    let wanted: Option<usize> = std::env::var("POSTHOUSE_TEST_POWER_CUTS")
        .ok()
        .map(|count| count.parse().unwrap());
    let (mut points, mut opened) = (0, 0);
    for seed in first.. {
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
    let all: Vec<usize> = (0..=story.commands[0].begun).collect();
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
const RETRIED_COUNT: usize = 6;
/// Changes that are printed of what led to a failure.
const TAIL: usize = 16;
