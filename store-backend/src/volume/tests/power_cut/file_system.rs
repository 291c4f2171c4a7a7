//! Power cuts under a real file system, and the real LMDB on it.
//!
//! The story's volume lies on a file system of the kernel's, on a device that records every write of a block and every flush
//! (`testkit::block_disk`). For a point of the record, the device is made as a cut there may leave it: what was written
//! before the last flush is there, and of what came after all, or a beginning, or any of its sectors. That is mounted, which
//! is the file system's own recovery, opened by `Volume::open`, and held against the same worlds as in the other rig. After
//! some of the cuts the recovery is recorded too, and cut at its end and somewhere within.
//!
//! Mounting takes root, so by default the story is lived in a folder, and only its process killed. `cargo xtask peers` sets
//! `POSTHOUSE_TEST_FILE_SYSTEM` to one of the names below and tries some points; `POSTHOUSE_TEST_POWER_CUTS=5000` tries
//! all points of as many stories as it takes to have that many.

use std::process::Command;
use std::sync::atomic::AtomicU64;

use testkit::block_disk::{BlockTape, Image, Mounted, RecordedDisk, in_own_namespace, serve};

use super::life::Medium;
use super::world::{Uidvalidities, World};
use super::*;

struct FileSystem {
    name: &'static str,
    make: &'static [&'static str],
    /// One story after the other has one of these added.
    kinds: &'static [&'static [&'static str]],
    /// Options of its mounts.
    mount: &'static str,
    size_bytes: u64,
    /// What it expects the device to write whole.
    sector_bytes: usize,
}

/// As small as each lets itself be made, and those of ext4 whole from the start, so that no thread of the kernel goes on
/// making it.
const FILE_SYSTEMS: [FileSystem; 3] = [
    FileSystem {
        name: "ext4",
        make: &[
            "mkfs.ext4",
            "-q",
            "-F",
            "-J",
            "size=4",
            "-E",
            "lazy_itable_init=0,lazy_journal_init=0",
        ],
        // The usual size of a block, and one that parts the pages of the index.
        kinds: &[&["-b", "4096"], &["-b", "1024"]],
        mount: "defaults",
        size_bytes: 32 << 20,
        sector_bytes: 512,
    },
    FileSystem {
        name: "xfs",
        make: &["mkfs.xfs", "-q", "-f", "-s", "size=4096"],
        kinds: &[&[]],
        // Several of one UUID may be mounted at a time.
        mount: "nouuid",
        size_bytes: 300 << 20,
        sector_bytes: 4096,
    },
    FileSystem {
        name: "btrfs",
        make: &["mkfs.btrfs", "-q", "-m", "single", "-d", "single"],
        kinds: &[&[]],
        mount: "defaults",
        size_bytes: 128 << 20,
        sector_bytes: 4096,
    },
];

impl FileSystem {
    fn named(name: &str) -> &'static Self {
        let found = FILE_SYSTEMS.iter().find(|one| one.name == name);
        found.unwrap_or_else(|| panic!("no recipe for the file system {name}"))
    }

    fn make(&self, seed: u64) -> Image {
        let dir = folder();
        let file = dir.path().join("image");
        let image = std::fs::File::create_new(&file).unwrap();
        image.set_len(self.size_bytes).unwrap();
        let mut command = Command::new(self.make[0]);
        let kind = self.kinds[usize::try_from(seed).unwrap() % self.kinds.len()];
        let made = command.args(&self.make[1..]).args(kind).arg(&file).status();
        let made = made.unwrap();
        assert!(made.success(), "{:?}", self.make);
        Image::read(&file).unwrap()
    }
}

/// The disk that is mounted; a server of another process keeps the record.
#[derive(Clone)]
struct OnDisk(Arc<RecordedDisk>);

impl OnDisk {
    fn start(folder: &Path, image: &Image) -> Self {
        let name = concat!(module_path!(), "::child_serves_a_recorded_disk");
        let (_, name) = name.split_once("::").unwrap();
        let mut server = Command::new(std::env::current_exe().unwrap());
        server.args(["--exact", name, "--nocapture", "--test-threads=1"]);
        server.env(SERVED, folder);
        Self(Arc::new(RecordedDisk::start(folder, image, &mut server)))
    }

    fn end(self) -> BlockTape {
        let disk = Arc::try_unwrap(self.0);
        disk.ok().expect("nobody uses the disk any more").end()
    }
}

impl Medium for OnDisk {
    fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(RealDisk)
    }

    fn recorded(&self) -> usize {
        usize::try_from(self.0.recorded()).unwrap()
    }
}

/// A folder of no record: what is done there is done.
#[derive(Clone)]
struct InFolder;

impl Medium for InFolder {
    fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(RealDisk)
    }

    fn recorded(&self) -> usize {
        0
    }
}

struct Story {
    file_system: &'static FileSystem,
    tape: BlockTape,
    life: Life,
}

impl Story {
    fn live(file_system: &'static FileSystem, seed: u64) -> Self {
        let (dir, mount_point) = (folder(), folder());
        let disk = OnDisk::start(dir.path(), &file_system.make(seed));
        let mounted = disk.0.mount(mount_point.path(), file_system.mount);
        let root = mount_point.path().join(VOLUME);
        let mut life = on_threads().block_on(Life::live(&disk, &root, seed, COMMANDS));
        drop(mounted);
        let tape = disk.end();
        for command in &mut life.commands {
            for point in [&mut command.begun, &mut command.answered] {
                *point = tape.point(*point as u64);
            }
        }
        Self {
            file_system,
            tape,
            life,
        }
    }
}

/// A volume was opened after a cut, and mail went on.
struct Visit {
    found: usize,
    /// As it is now.
    world: World,
    uidvalidities: Uidvalidities,
    /// Points of the medium's record: when it was open, when it had been looked at, and now.
    opened: usize,
    recovered: usize,
    ended: usize,
}

impl Visit {
    /// Ends with the process killed.
    async fn pay(life: &Life, point: usize, root: &Path, medium: &impl Medium) -> Self {
        let volume = open_on(&medium.disk(), root);
        let opened = medium.recorded();
        let mut uidvalidities = life.uidvalidities.clone();
        let seen = look(&volume, &mut uidvalidities).await;
        let found = life.find(&seen, &life.possible(point));
        let recovered = medium.recorded();
        let mut world = life.worlds[found].clone();
        uidvalidities.forget_new(&world);
        life.go_on(&volume, point, found, &mut world).await;
        let ended = medium.recorded();
        kill(volume);
        Self {
            found,
            world,
            uidvalidities,
            opened,
            recovered,
            ended,
        }
    }

    /// What was seen and answered in it is still there.
    async fn check(&mut self, root: &Path) {
        let volume = open_on(&InFolder.disk(), root);
        let seen = look(&volume, &mut self.uidvalidities).await;
        let difference = self.world.difference(&seen);
        assert!(seen == self.world, "after going on:\n{difference}");
        close(&volume);
    }
}

fn close(volume: &Volume) {
    volume.close();
    assert_eq!(volume.status().read_only, None);
}

/// Tells where it was when something failed, and stops the others.
struct Place<'s> {
    story: &'s Story,
    cut: Cut,
    within: Option<(BlockTape, Cut)>,
    next: &'s AtomicUsize,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.next.store(usize::MAX / 2, Ordering::Relaxed);
            let (name, seed, cut) = (self.story.file_system.name, self.story.life.seed, self.cut);
            let tail = self.story.tape.tail(cut.point, TAIL);
            eprintln!("{name}, seed {seed}, {cut:?}, after\n{tail}");
            if let Some((tape, cut)) = &self.within {
                let tail = tape.tail(cut.point, TAIL);
                eprintln!("and within the recovery, {cut:?}, after\n{tail}");
            }
        }
    }
}

/// One worker's room.
struct Bench {
    runtime: tokio::runtime::Runtime,
    dir: TempDir,
}

impl Bench {
    /// Mounts an image, and opens the volume on it.
    fn examine(&self, story: &Story, image: &Image, cut: Cut) {
        let (_mounted, root) = self.mount(story, image);
        self.runtime.block_on(async {
            let mut visit = Visit::pay(&story.life, cut.point, &root, &InFolder).await;
            visit.check(&root).await;
        });
    }

    /// The same under record, which is cut in its turn. Answers how many disks that were.
    fn examine_twice(&self, story: &Story, image: &Image, place: &mut Place<'_>) -> usize {
        let (life, cut, record) = (&story.life, place.cut, folder());
        let disk = OnDisk::start(record.path(), image);
        let mounted = disk.0.mount(&self.mount_point(), story.file_system.mount);
        let root = self.root();
        let visit = Visit::pay(life, cut.point, &root, &disk);
        let mut visit = self.runtime.block_on(visit);
        drop(mounted);
        let tape = disk.end();
        let mut random = Random(cut.seed);
        let ended = tape.point(visit.ended as u64);
        let recovered = tape.point(visit.recovered as u64);
        let mut points = vec![ended];
        for _ in 0..WITHIN {
            points.push(usize::try_from(random.below(recovered as u64 + 1)).unwrap());
        }
        points.sort_unstable();
        let mut player = tape.player();
        let mut images = Vec::new();
        for point in points {
            let cut = Cut {
                point,
                loss: *random.one(&LOSSES),
                seed: random.next(),
            };
            images.push((
                cut,
                player.image(point, cut.loss, cut.seed, story.file_system.sector_bytes),
            ));
        }
        let opened = tape.point(visit.opened as u64);
        place.within = Some((tape, cut));
        let count = images.len();
        for (again, image) in images {
            if let Some((_, cut)) = &mut place.within {
                *cut = again;
            }
            let (_mounted, root) = self.mount(story, &image);
            self.runtime.block_on(async {
                if again.point >= ended {
                    return visit.check(&root).await;
                }
                let volume = open_on(&InFolder.disk(), &root);
                let seen = look(&volume, &mut life.uidvalidities.clone()).await;
                // What was seen once is seen for ever.
                let possible = match again.point >= opened {
                    true => visit.found..=visit.found,
                    false => life.possible(cut.point),
                };
                life.find(&seen, &possible);
                close(&volume);
            });
        }
        1 + count
    }

    fn mount(&self, story: &Story, image: &Image) -> (Mounted, PathBuf) {
        let file = self.dir.path().join("image");
        // A new file each time: the last one may still have its loop device, which would be used again with its cache.
        let _ = std::fs::remove_file(&file);
        image.write(&file).unwrap();
        let mounted = Mounted::new(&file, &self.mount_point(), story.file_system.mount);
        (mounted, self.root())
    }

    fn mount_point(&self) -> PathBuf {
        let path = self.dir.path().join("mounted");
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    fn root(&self) -> PathBuf {
        self.mount_point().join(VOLUME)
    }
}

/// Cuts a story at some points, on some threads: as it was written, and with a loss where there was something to lose.
/// Answers the disks that were opened, and how many of those after a second cut.
fn cut_at(story: &Story, points: &[usize]) -> (u64, u64) {
    let (next, opened, twice) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let work = || {
        let bench = Bench {
            runtime: on_threads(),
            dir: folder(),
        };
        let mut player = story.tape.player();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(point) = points.get(number).copied() else {
                return;
            };
            let mut random = Random(story.life.seed ^ (point as u64) << 32);
            let mut losses = vec![None];
            if story.tape.flushed(point) < point {
                losses.push(Some(*random.one(&[Loss::Torn, Loss::Reordered])));
            }
            for loss in losses {
                let seed = random.next();
                let cut = Cut { point, loss, seed };
                let image = player.image(point, loss, seed, story.file_system.sector_bytes);
                let mut place = Place {
                    story,
                    cut,
                    within: None,
                    next: &next,
                };
                if number % TWICE_EACH == 0 {
                    let count = bench.examine_twice(story, &image, &mut place);
                    opened.fetch_add(count as u64, Ordering::Relaxed);
                    twice.fetch_add(count as u64 - 1, Ordering::Relaxed);
                } else {
                    bench.examine(story, &image, cut);
                    opened.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        // Half of the time is the kernel's, which waits before it lets a mount go.
        let threads = 2 * std::thread::available_parallelism().map_or(1, usize::from);
        (0..threads.min(WORKERS_MAX)).for_each(|_| drop(scope.spawn(work)));
    });
    (opened.into_inner(), twice.into_inner())
}

fn on_threads() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).build().unwrap()
}

#[test]
fn a_power_cut_under_a_real_file_system_loses_and_doubles_nothing() {
    let Ok(name) = std::env::var("POSTHOUSE_TEST_FILE_SYSTEM") else {
        let dir = TempDir::new().unwrap();
        let root = dir.path().join(VOLUME);
        return on_threads().block_on(async {
            let life = Life::live(&InFolder, &root, first_seed(), COMMANDS).await;
            let mut visit = Visit::pay(&life, usize::MAX, &root, &InFolder).await;
            visit.check(&root).await;
        });
    };
    let file_system = FileSystem::named(&name);
    if std::env::var_os(IN_NAMESPACE).is_none() {
        let own = std::env::current_exe().unwrap();
        let thread = std::thread::current();
        let mut again = in_own_namespace(&own);
        again.args(["--exact", thread.name().unwrap(), "--nocapture"]);
        let status = again.env(IN_NAMESPACE, "1").status().unwrap();
        assert!(status.success(), "failed in the mount namespace: {status}");
        return;
    }
    let (wanted, mut points) = (wanted_cuts(), 0);
    for seed in first_seed().. {
        let story = Story::live(file_system, seed);
        let count = story.tape.len();
        let step = match wanted {
            Some(_) => 1,
            None => 1 + count / REDUCED_POINTS,
        };
        let all: Vec<usize> = (0..=count).step_by(step).collect();
        let (opened, twice) = cut_at(&story, &all);
        points += all.len();
        let flushes = story.tape.flushes();
        println!(
            "{name}, seed {seed}: {count} changes of blocks, {flushes} of them flushes: cut at {} points, {opened} disks opened, {twice} of them after a second cut",
            all.len()
        );
        if points >= wanted.unwrap_or(0) {
            break;
        }
    }
}

/// Of a recorded disk; not a test by itself.
#[test]
fn child_serves_a_recorded_disk() {
    if let Some(folder) = std::env::var_os(SERVED) {
        serve(Path::new(&folder)).unwrap();
    }
}

const SERVED: &str = "POSTHOUSE_TEST_SERVED_DISK";
const IN_NAMESPACE: &str = "POSTHOUSE_TEST_IN_NAMESPACE";
const VOLUME: &str = "volume";
const LOSSES: [Option<Loss>; 4] = super::LOSSES;
/// So many points have one whose recovery is cut again …
const TWICE_EACH: usize = 16;
/// … at its end, and so many times within.
const WITHIN: usize = 2;
const REDUCED_POINTS: usize = 60;
/// Each needs a loop device or two, of which there are eight by default.
const WORKERS_MAX: usize = 4;
