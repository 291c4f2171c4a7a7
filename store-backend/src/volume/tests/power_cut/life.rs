//! One life of a volume: random commands on a disk under record, with all that is to be known of them.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use durable::Disk;

use super::super::super::error::IndexError;
use super::super::super::keeper::{compact, make_copy};
use super::super::model::random::Random;
use super::super::model::{Work, all};
use super::super::*;
use super::world::{Op, Uidvalidities, World};

/// What a life takes place on.
pub(super) trait Medium: Clone + Send + 'static {
    fn disk(&self) -> Arc<dyn Disk>;

    /// Where its record is now.
    fn recorded(&self) -> usize;
}

pub(super) struct Life {
    pub(super) seed: u64,
    pub(super) commands: Vec<Command>,
    /// The worlds it went through, one a record at most.
    pub(super) worlds: Vec<World>,
    pub(super) uidvalidities: Uidvalidities,
}

pub(super) struct Command {
    op: Op,
    /// Points of the record: it was not asked for before the one and not answered before the other.
    pub(super) begun: usize,
    pub(super) answered: usize,
    /// The worlds after each of its records.
    worlds: Vec<usize>,
}

impl Life {
    /// Some commands at a time, on a volume that is killed now and then and closed in the end.
    pub(super) async fn live(medium: &impl Medium, root: &Path, seed: u64, count: usize) -> Self {
        let mut random = Random(seed);
        let mut keeps = true;
        let mut volume = open_with(&medium.disk(), &config(root, keeps));
        let (mut commands, mut worlds) = (Vec::<Command>::new(), vec![World::default()]);
        let mut uidvalidities = Uidvalidities::default();
        while commands.len() < count {
            let (mut ops, mut work) = (Vec::new(), Vec::<Work<_>>::new());
            let mut world = worlds.last().unwrap().clone();
            world.keeps = keeps;
            for _ in 0..1 + random.below(4) {
                let number = (commands.len() + ops.len()) as u64;
                let op = Op::draw(&mut random, &world, number);
                let comes_alone = op.comes_alone();
                if comes_alone && !ops.is_empty() {
                    break;
                }
                let (bodies, steps) = (op.bodies(&volume).await, op.apply(&world));
                let (volume, medium, before) = (volume.clone(), medium.clone(), world);
                world = steps.last().unwrap().clone();
                ops.push((op.clone(), steps));
                let one = async move {
                    let begun = medium.recorded();
                    let records: Vec<u64> = op.run(&volume, &before, bodies).await;
                    (begun, medium.recorded(), records)
                };
                work.push(Box::pin(one));
                if comes_alone {
                    break;
                }
            }
            let compaction = (random.below(8) == 0).then(|| {
                let volume = volume.clone();
                tokio::task::spawn_blocking(move || {
                    compact(volume.inner.shared(), u64::MAX).unwrap()
                })
            });
            let done = all(work).await;
            if let Some(compaction) = compaction {
                compaction.await.unwrap();
            }
            for ((op, steps), (begun, answered, records)) in ops.into_iter().zip(done) {
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
                7 => make_copy(volume.inner.shared()).unwrap(),
                1 => {
                    kill(volume);
                    // Who starts it again may have changed the setting.
                    keeps = !keeps;
                    volume = open_with(&medium.disk(), &config(root, keeps));
                }
                2..7 => {
                    let seen = World::seen(&volume, &mut uidvalidities).await;
                    let difference = world.difference(&seen);
                    assert!(seen == world, "seed {seed}, without a cut:\n{difference}");
                }
                _ => {}
            }
        }
        settle_blobs(&volume);
        volume.close();
        Self {
            seed,
            commands,
            worlds,
            uidvalidities,
        }
    }

    /// The worlds that may be there when the power goes at a point.
    pub(super) fn possible(&self, point: usize) -> RangeInclusive<usize> {
        let begun = self.commands.iter().filter(|one| one.begun <= point);
        let answered = self.commands.iter().filter(|one| one.answered <= point);
        let last = |one: &Command| *one.worlds.last().unwrap();
        let (must, may) = (answered.map(last).max(), begun.map(last).max());
        must.unwrap_or(0)..=may.unwrap_or(0)
    }

    /// Which of them it is.
    pub(super) fn find(&self, seen: &World, possible: &RangeInclusive<usize>) -> usize {
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

    /// Tries the last deliveries before a point again, as who was not answered does, and one more: each is there once (P2),
    /// with the next UID (P3), whatever happens from now on. `found` is the world that the volume has, and `world` becomes
    /// the one after it.
    pub(super) async fn go_on(
        &self,
        volume: &Volume,
        point: usize,
        found: usize,
        world: &mut World,
    ) {
        let begun = self.commands.iter().filter(|one| one.begun <= point);
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
}

/// Segments as small as the bodies allow, so that they are released and recycled; few links, so that blobs are copied. What is
/// expunged from now on can be brought back during the whole life, or not at all.
fn config(path: &Path, keeps: bool) -> VolumeConfig {
    VolumeConfig {
        expunge_grace: Duration::from_secs(if keeps { 3600 } else { 0 }),
        journal_segment_size_bytes: 64 << 10,
        checkpoint_bytes: 48 << 10,
        checkpoint_interval: Duration::from_secs(3600),
        links_max: 4,
        ..super::super::config(path)
    }
}

pub(super) fn open_on(disk: &Arc<dyn Disk>, root: &Path) -> Volume {
    open_with(disk, &config(root, false))
}

fn open_with(disk: &Arc<dyn Disk>, config: &VolumeConfig) -> Volume {
    let began = Instant::now();
    loop {
        match Volume::open(config.clone(), Arc::clone(disk)) {
            // Another thread starts a program, which has the lock too until it has become that program.
            Err(OpenError::Locked { .. }) if began.elapsed() < Duration::from_secs(5) => {
                std::thread::sleep(Duration::from_millis(1));
            }
            other => return other.unwrap(),
        }
    }
}

/// As a process that is killed.
pub(super) fn kill(volume: Volume) {
    volume.inner.crash();
    drop(volume);
}

/// The world a volume holds, once it has come to rest; its folders hold the same.
pub(super) async fn look(volume: &Volume, uidvalidities: &mut Uidvalidities) -> World {
    let rows = settle_blobs(volume);
    let seen = World::seen(volume, uidvalidities).await;
    let shared = volume.inner.shared();
    let (root, disk) = (&shared.layout.root, &*shared.disk);
    let mut links = BTreeSet::new();
    list(disk, &root.join("mail"), &mut links);
    assert_eq!(links, seen.links(root));
    let mut blobs = BTreeSet::new();
    list(disk, &root.join("blobs"), &mut blobs);
    assert_eq!(rows, blobs.len() as u64, "{blobs:#?}");
    seen
}

/// Waits until index and files have all, and blobs are gone that have no message and need not be kept; answers how many there
/// are.
fn settle_blobs(volume: &Volume) -> u64 {
    let index = &volume.inner.shared().index;
    loop {
        settle(volume);
        let counts = index.read(|txn| {
            let first = index.unlinked.first(txn)?;
            let until = first.map(|(key, _)| u64::from_be_bytes(key[..8].try_into().unwrap()));
            let is_due = until.is_some_and(|until| until <= daemon::clock::now_ms() as u64);
            Ok::<_, IndexError>((is_due, index.blobs.len(txn)?))
        });
        match counts.unwrap() {
            // Their removal is a record like others.
            (false, blobs) if volume.status().position == volume.status().applied => {
                settle(volume);
                return blobs;
            }
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn list(disk: &dyn Disk, folder: &Path, files: &mut BTreeSet<PathBuf>) {
    for name in disk.read_dir(folder).unwrap() {
        let path = folder.join(name);
        if disk.metadata(&path).unwrap().is_dir {
            list(disk, &path, files);
        } else {
            files.insert(path);
        }
    }
}

const RETRIED_COUNT: usize = 6;
