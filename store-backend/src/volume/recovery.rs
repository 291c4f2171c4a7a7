//! Opening a volume: whose it is, what its journal says that index and files do not have yet, and its threads.

use std::error::Error;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use directory_api::AccountId;
use durable::{
    Disk, DiskFile, Journal, JournalOptions, JournalReader, Lsn, OpenMode, Recovery,
    create_dir_durable,
};

use super::broken::{Broken, Suspects};
use super::commit::{ApplyItem, Committer, apply, chain};
use super::error::{IndexError, OpenError};
use super::file_system::refuse_untrusted;
use super::files::{self, FilesItem};
use super::held::HeldBodies;
use super::index::{Index, Meta, remove_left_over};
use super::intake::{Command, Intake, Reply};
use super::keeper;
use super::kept_log::KeptLog;
use super::layout::{
    BLOBS_DIR, FORMAT_FILE, INCOMING_DIR, INDEX_DIR, JOURNAL_DIR, KEPT_DIR, LOCK_FILE, Layout,
    MAIL_DIR,
};
use super::life::Life;
use super::load::Load;
use super::marker::{MARKER_NEW, lock, random, read_marker, write_marker};
use super::mend::Mends;
use super::patience::Patience;
use super::pipe::Pipe;
use super::rebuild::{self, NEW_DIR};
use super::recent::Recent;
use super::replay::Replay;
use super::sequencer::{Rules, Sequencer};
use super::settled::Settled;
use super::space::{self, Marks, Space, SpaceStatus};
use super::turns::Turns;
use super::watch::Watchers;
use super::{VolumeConfig, VolumeStatus};
use crate::metrics;

/// What made the volume take no more writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// The journal was not written or synced.
    Journal,
    /// The index cannot be read by who decides.
    Decide,
    /// The index was not written.
    Index,
    /// A file of the tree was not made or removed.
    Files,
    /// The file system or the index was not synced.
    Checkpoint,
    /// The file of a large body was not synced.
    Body,
    /// A thread panicked.
    Thread,
}

impl Failed {
    /// For people.
    fn action(self) -> &'static str {
        match self {
            Self::Journal => "write the journal",
            Self::Decide => "read the index",
            Self::Index => "write the index",
            Self::Files => "make the files",
            Self::Checkpoint => "make a checkpoint",
            Self::Body => "write a large message",
            Self::Thread => "go on",
        }
    }

    /// A fixed word for metrics.
    fn word(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::Decide => "index_read",
            Self::Index => "index_write",
            Self::Files => "files",
            Self::Checkpoint => "checkpoint",
            Self::Body => "body",
            Self::Thread => "thread",
        }
    }
}

/// What the threads and the callers share.
pub(super) struct Shared {
    pub(super) config: VolumeConfig,
    pub(super) layout: Layout,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) index: Index,
    pub(super) journal: JournalReader,
    /// Open for as long as the volume, so that a checkpoint hears of everything that could not be written since.
    pub(super) marker: Box<dyn DiskFile>,
    pub(super) intake: Intake,
    pub(super) apply_queue: Pipe<ApplyItem>,
    pub(super) files_queue: Pipe<FilesItem>,
    pub(super) watchers: Arc<Watchers>,
    pub(super) recent: Recent,
    pub(super) settled: Settled,
    /// Whoever may wait for the disk on a thread of the runtime.
    pub(super) turns: Turns,
    /// What accounts cost.
    pub(super) load: Arc<Load>,
    pub(super) held: Arc<HeldBodies>,
    pub(super) broken: Arc<Broken>,
    /// What readers have found wrong.
    pub(super) suspects: Arc<Suspects>,
    pub(super) mends: Mends,
    /// The last record in the journal, in the index, in the file tree, in the file tree on disk.
    pub(super) position: AtomicU64,
    pub(super) applied: AtomicU64,
    pub(super) materialised: AtomicU64,
    pub(super) checkpoint: AtomicU64,
    pub(super) unreleased_bytes: AtomicU64,
    pub(super) wants_checkpoint: AtomicBool,
    pub(super) unlinked_hint: AtomicBool,
    pub(super) space: Space,
    /// Index and files thread were given all that the journal had when the volume was opened.
    pub(super) replayed: AtomicBool,
    /// The kept log could not be written: only a new copy of the index makes it whole.
    pub(super) kept_hole: AtomicBool,
    read_only: OnceLock<String>,
    failed: OnceLock<&'static str>,
    aborted: AtomicBool,
    pub(super) life: Arc<Life>,
    /// What copy and kept log are known by.
    pub(super) kept_as: String,
    token_seed: [u8; 32],
    token_count: AtomicU64,
    _lock: File,
}

impl Shared {
    pub(super) fn applied(&self) -> Lsn {
        Lsn(self.applied.load(Ordering::Acquire))
    }

    pub(super) fn checkpoint(&self) -> Lsn {
        Lsn(self.checkpoint.load(Ordering::Acquire))
    }

    pub(super) fn read_only(&self) -> Option<&String> {
        self.read_only.get()
    }

    pub(super) fn aborted(&self) -> bool {
        self.aborted.load(Ordering::Acquire)
    }

    /// Takes no more writes, for good, and says so once. What failed is never tried again: after a failed sync the next
    /// one would succeed, whatever is on the disk.
    pub(super) fn fail(&self, failed: Failed, error: &dyn Error) {
        let cause = format!("{}: {}", failed.action(), chain(error));
        if self.read_only.set(cause.clone()).is_ok() {
            let _ = self.failed.set(failed.word());
            let (backend, volume, reason) =
                (&self.config.backend, &self.config.name, failed.word());
            tracing::error!(
                %backend, %volume, reason, cause,
                "the volume takes no more writes, reads go on; look for the disk in the system's log, mend the cause, and restart"
            );
            metrics::volume_failed(backend, volume, reason);
        }
    }

    /// Whether the index may be written once there is room.
    pub(super) fn has_no_room(&self, error: &IndexError) -> bool {
        error.is_no_room_on(&*self.disk, &self.layout.root)
    }

    /// A name that nobody else has.
    pub(super) fn random_token(&self) -> [u8; 16] {
        let count = self.token_count.fetch_add(1, Ordering::Relaxed);
        let hash = blake3::keyed_hash(&self.token_seed, &count.to_le_bytes());
        let mut token = [0; 16];
        token.copy_from_slice(&hash.as_bytes()[..16]);
        token
    }

    fn abort(&self) {
        self.aborted.store(true, Ordering::Release);
        self.suspects.close();
        self.space.stop();
        self.intake.close(true);
        self.apply_queue.abort();
        self.files_queue.abort();
        self.watchers.close();
        // What the index lacks may have been answered: nobody is shown an older state.
        self.settled.behind();
    }
}

/// An open volume and its threads.
pub(super) struct Inner {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Inner {
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn path(&self) -> &Path {
        &self.shared.layout.root
    }

    /// Of the owner, or of the system.
    pub(super) async fn submit(&self, command: Command) -> Reply {
        self.submit_by(None, command).await
    }

    /// The same of another user, if one is named.
    pub(super) async fn submit_by(&self, user: Option<AccountId>, command: Command) -> Reply {
        let _one = self.shared.load.begin();
        self.shared.intake.submit(user, command).await
    }

    pub(super) fn status(&self) -> VolumeStatus {
        let shared = &self.shared;
        let count = shared
            .index
            .read(|txn| shared.index.number(txn, Meta::Accounts));
        VolumeStatus {
            incarnation: shared.life.incarnation(),
            position: Lsn(shared.position.load(Ordering::Acquire)),
            applied: shared.applied(),
            checkpoint: shared.checkpoint(),
            unreleased_bytes: shared.unreleased_bytes.load(Ordering::Relaxed),
            read_only: shared.read_only().cloned(),
            failed: shared.failed.get().copied(),
            space: SpaceStatus {
                readers: shared.index.readers(),
                ..shared.space.status()
            },
            account_count: count.unwrap_or_default(),
            outstanding: shared.load.outstanding(),
        }
    }

    pub(super) fn close(&self) {
        self.shared.suspects.close();
        self.shared.space.stop();
        self.shared.intake.close(false);
        self.join();
        self.shared.watchers.close();
    }

    /// Stops at once, as a crash would, and waits until the threads are gone.
    #[cfg(test)]
    pub(super) fn crash(&self) {
        self.shared.abort();
        self.join();
    }

    fn join(&self) {
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A panic has been reported by the thread's guard.
            let _ = thread.join();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.abort();
    }
}

/// Turns a thread's panic into a read-only volume instead of one that never answers.
struct Guard(Arc<Shared>);

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(
                Failed::Thread,
                &io::Error::other("a thread of the volume panicked"),
            );
            self.0.abort();
        }
    }
}

pub(super) fn open(config: VolumeConfig, disk: Arc<dyn Disk>) -> Result<Arc<Inner>, OpenError> {
    let (path, marks, asked) = (config.path.clone(), Marks::of(&config), Arc::clone(&disk));
    open_with_room(config, disk).map_err(|error| {
        let is_full = match &error {
            OpenError::Replay(error) => error.is_no_room_on(&*asked, &path),
            error => error.is_no_room(),
        };
        if !is_full {
            return error;
        }
        let (free, missing) = asked
            .room(&path)
            .map_or((0, 0), |room| (room.free_bytes, marks.missing_bytes(&room)));
        OpenError::NoRoom {
            path,
            free,
            missing,
            source: Box::new(error),
        }
    })
}

fn open_with_room(config: VolumeConfig, disk: Arc<dyn Disk>) -> Result<Arc<Inner>, OpenError> {
    let layout = Layout {
        root: config.path.clone(),
    };
    let root = &layout.root;
    refuse_untrusted(root)?;
    create_dir_durable(&*disk, root).map_err(OpenError::io("create", root))?;
    let is_new = look_at(&*disk, &layout)?;
    let lock = lock(&layout)?;
    sync_names(&*disk, root, is_new)?;
    let marker = if is_new {
        None
    } else {
        Some(read_marker(&*disk, &config, &layout)?)
    };
    for folder in [INCOMING_DIR, BLOBS_DIR, MAIL_DIR] {
        let folder = layout.file(folder);
        create_dir_durable(&*disk, &folder).map_err(OpenError::io("create", &folder))?;
    }
    remove_left_over(&layout)?;
    let mut index = open_index(&config, &layout, is_new)?;
    let (mut applied, mut checkpoint) = reach(&index)?;
    let journal_dir = layout.file(JOURNAL_DIR);
    if !is_new && !has_segment(&*disk, &journal_dir)? {
        return Err(OpenError::JournalLost {
            path: root.clone(),
            applied: applied.0,
            next: 1,
        });
    }
    let options = JournalOptions {
        segment_size_bytes: u32::try_from(config.journal_segment_size_bytes).unwrap_or(u32::MAX),
        ..JournalOptions::default()
    };
    let (journal, recovery) = Journal::open(Arc::clone(&disk), &journal_dir, options)?;
    if let Some(marker) = &marker
        && applied.min(checkpoint).next() < recovery.first_lsn()
        && applied < recovery.next_lsn()
    {
        // It is lost, or from an old copy: there are records that neither it nor the journal has.
        let first = recovery.first_lsn();
        index = rebuild_index(&config, &layout, &*disk, &marker.kept, index, first)?;
        (applied, checkpoint) = reach(&index)?;
    }
    if applied >= recovery.next_lsn() {
        let next = recovery.next_lsn().0;
        return Err(OpenError::JournalLost {
            path: root.clone(),
            applied: applied.0,
            next,
        });
    }
    // Both views are behind the journal, each by its own distance; a lost index has position 0.
    let done = applied.min(checkpoint);
    if done.next() < recovery.first_lsn() {
        let oldest = recovery.first_lsn().0;
        return Err(OpenError::IndexLost {
            path: root.clone(),
            applied: done.0,
            oldest,
        });
    }
    let (incarnation, kept_as) = match marker {
        Some(marker) => (marker.incarnation, marker.kept),
        // Last of all: a folder with a marker is a whole volume.
        None => {
            let fresh: [u8; 16] = random()?;
            let incarnation = data_encoding::HEXLOWER.encode(&fresh);
            write_marker(&*disk, &config, &layout, (&incarnation, &incarnation))?;
            (incarnation.clone(), incarnation)
        }
    };
    let life = Arc::new(Life::load(&*disk, &layout, incarnation)?);
    let marker_path = layout.file(FORMAT_FILE);
    let marker = disk
        .open(&marker_path, OpenMode::Read)
        .map_err(OpenError::io("open", &marker_path))?;
    let broken = Broken::load(&*disk, &layout, &index)?;
    let shared = Arc::new(Shared {
        layout,
        marker,
        disk,
        index,
        journal: journal.reader(),
        intake: Intake::new(),
        apply_queue: Pipe::new(QUEUE_MAX_BYTES),
        files_queue: Pipe::new(QUEUE_MAX_BYTES),
        watchers: Arc::default(),
        recent: Recent::default(),
        settled: Settled::new(applied),
        turns: Turns::new(),
        load: Arc::new(Load::new(config.load_half_life)),
        held: Arc::default(),
        broken: Arc::new(broken),
        suspects: Arc::default(),
        mends: Mends::default(),
        position: AtomicU64::new(recovery.next_lsn().0 - 1),
        applied: AtomicU64::new(applied.0),
        materialised: AtomicU64::new(done.0),
        checkpoint: AtomicU64::new(done.0),
        unreleased_bytes: AtomicU64::new(journal.unreleased_bytes()),
        wants_checkpoint: AtomicBool::new(false),
        unlinked_hint: AtomicBool::new(true),
        space: Space::default(),
        replayed: AtomicBool::new(false),
        kept_hole: AtomicBool::new(false),
        read_only: OnceLock::new(),
        failed: OnceLock::new(),
        aborted: AtomicBool::new(false),
        life,
        kept_as,
        token_seed: random()?,
        token_count: AtomicU64::new(0),
        _lock: lock,
        config,
    });
    let inner = Arc::new(Inner {
        shared: Arc::clone(&shared),
        threads: Mutex::default(),
    });
    if let Err(error) = start(&inner, journal, recovery, done) {
        // The lock goes with the threads: whoever tries again must not find it held.
        shared.abort();
        inner.join();
        return Err(error);
    }
    Ok(inner)
}

fn reach(index: &Index) -> Result<(Lsn, Lsn), OpenError> {
    index.read(|txn| {
        let applied = index.lsn(txn, Meta::Applied)?;
        Ok((applied, index.lsn(txn, Meta::Checkpoint)?))
    })
}

/// Opens the index; one that is damaged so that LMDB refuses it is put aside, and an empty one takes its place.
fn open_index(config: &VolumeConfig, layout: &Layout, is_new: bool) -> Result<Index, OpenError> {
    let path = layout.file(INDEX_DIR);
    match Index::open(&path, config.index_map_size_bytes) {
        Err(OpenError::Index(error)) if !is_new && error.is_damage() => {
            let (volume, error) = (&config.name, chain(&error));
            tracing::error!(%volume, error, "the index cannot be read");
            rebuild::set_aside(layout)?;
            Index::open(&path, config.index_map_size_bytes)
        }
        opened => opened,
    }
}

/// Makes the index anew, in the place of one that is empty or too old; where that cannot be done the old one stays.
fn rebuild_index(
    config: &VolumeConfig,
    layout: &Layout,
    disk: &dyn Disk,
    incarnation: &str,
    old: Index,
    journal_first: Lsn,
) -> Result<Index, OpenError> {
    let (volume, began) = (&config.name, Instant::now());
    tracing::warn!(%volume, "the index is gone or too old; making it anew from its copy and the kept log");
    let is_empty = reach(&old)?.0 == Lsn(0);
    old.close();
    let rebuilt = rebuild::build(config, layout, disk, incarnation, journal_first)
        // Half of one only takes the room that the next attempt may find.
        .inspect_err(|_| rebuild::forget(layout))?;
    if let Some(rebuilt) = rebuilt {
        rebuild::put_in_place(layout, is_empty)?;
        tracing::warn!(
            %volume, copied = rebuilt.copied.0, replayed = rebuilt.replayed.0, rows = rebuilt.rows,
            seconds = began.elapsed().as_secs_f64(), "the index is made anew, as of the last commit"
        );
    }
    Index::open(&layout.file(INDEX_DIR), config.index_map_size_bytes)
}

/// Brings the views up to the journal and starts the threads.
fn start(inner: &Inner, journal: Journal, recovery: Recovery, done: Lsn) -> Result<(), OpenError> {
    let shared = &inner.shared;
    let spawn = |name: &str, work: Box<dyn FnOnce(&Shared) + Send>| {
        let guard = Guard(Arc::clone(shared));
        let named = std::thread::Builder::new().name(format!("{name}-{}", shared.config.name));
        let thread = named
            .spawn(move || work(&guard.0))
            .map_err(OpenError::io("start a thread for", inner.path()))?;
        inner
            .threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(thread);
        Ok::<_, OpenError>(())
    };
    let folder = shared.layout.file(KEPT_DIR);
    let kept = KeptLog::open(&*shared.disk, folder.clone(), &shared.kept_as, done)
        .map_err(OpenError::io("open the kept log in", &folder))?;
    // Before the replay, whose queue it empties.
    spawn(
        "files",
        Box::new(move |shared: &Shared| files::run(shared, kept)),
    )?;
    shared.look_for_room();
    let last = Lsn(recovery.next_lsn().0 - 1);
    let replay = Replay::new(shared, recovery, done)?;
    let replay = replay.run(shared)?.then_some(replay);
    shared.replayed.store(replay.is_none(), Ordering::Release);
    let refused_at = replay.is_some().then_some(last);
    spawn("room", Box::new(space::run))?;
    let rules = Rules {
        links_max: shared.config.links_max,
        quota_warning_percent: shared.config.quota_warning_percent,
        expunge_grace_ms: i64::try_from(shared.config.expunge_grace.as_millis())
            .unwrap_or(i64::MAX / 2),
        record_max_bytes: usize::try_from(shared.config.journal_segment_size_bytes / 2)
            .unwrap_or(usize::MAX),
    };
    let sequencer = Sequencer::new(
        shared.index.clone(),
        rules,
        Arc::clone(&shared.held),
        Arc::clone(&shared.broken),
        Arc::clone(&shared.life),
        random()?,
    )?;
    let applying = Arc::clone(shared);
    spawn("apply", Box::new(move |_| apply(&applying, replay)))?;
    spawn("keeper", Box::new(keeper::run))?;
    let committer = Committer {
        shared: Arc::clone(shared),
        journal,
        sequencer,
        released: Lsn(0),
        unlinked_checked: Instant::now(),
        refused_at,
        segment: 0,
        short_in: None,
        refused_bodies: Vec::new(),
        waiting: Vec::new(),
        patience: Patience::new(shared.config.move_wait),
    };
    spawn("commit", Box::new(move |_| committer.run()))
}

/// Whether the folder is to become a volume; refuses one that belongs to somebody else.
fn look_at(disk: &dyn Disk, layout: &Layout) -> Result<bool, OpenError> {
    let root = &layout.root;
    let names = disk.read_dir(root).map_err(OpenError::io("list", root))?;
    if names.iter().any(|name| name == FORMAT_FILE) {
        return Ok(false);
    }
    // What a start leaves that was killed before it wrote the marker.
    let ours = [
        LOCK_FILE,
        MARKER_NEW,
        JOURNAL_DIR,
        INDEX_DIR,
        INCOMING_DIR,
        BLOBS_DIR,
        MAIL_DIR,
        KEPT_DIR,
        NEW_DIR,
        "lost+found",
    ];
    let mut unfinished = names.iter().all(|name| ours.iter().any(|our| name == our));
    for folder in [BLOBS_DIR, MAIL_DIR].map(|folder| layout.file(folder)) {
        if unfinished
            && disk
                .exists(&folder)
                .map_err(OpenError::io("look for", &folder))?
        {
            unfinished = disk
                .read_dir(&folder)
                .map_err(OpenError::io("list", &folder))?
                .is_empty();
        }
    }
    if unfinished {
        Ok(true)
    } else {
        Err(OpenError::Foreign { path: root.clone() })
    }
}

/// Makes durable what a start that was killed may have named and not synced: the volume's folder, those above it, or the
/// marker. A later power cut would take the name and all that was acknowledged below it (P1).
fn sync_names(disk: &dyn Disk, root: &Path, is_new: bool) -> Result<(), OpenError> {
    if !is_new {
        return disk.sync_dir(root).map_err(OpenError::io("sync", root));
    }
    for folder in root.ancestors().skip(1) {
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        match disk.sync_dir(folder) {
            Ok(()) => {}
            // Not to be read, on a read-only file system or on one that syncs no folders: nothing of ours was made there.
            Err(error) if NOT_OURS.contains(&error.kind()) => break,
            Err(error) => return Err(OpenError::io("sync", folder)(error)),
        }
    }
    Ok(())
}

/// Whether anything of the journal is left. A volume with a marker has a segment: without one it was lost, and with the
/// index lost too nothing else would tell an emptied volume from a new one, which would give UIDs again (P3).
fn has_segment(disk: &dyn Disk, journal_dir: &Path) -> Result<bool, OpenError> {
    match disk.read_dir(journal_dir) {
        Ok(names) => Ok(names
            .iter()
            .any(|name| Path::new(name).extension() == Some(OsStr::new("seg")))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(OpenError::io("list", journal_dir)(error)),
    }
}

const NOT_OURS: [io::ErrorKind; 3] = [
    io::ErrorKind::PermissionDenied,
    io::ErrorKind::ReadOnlyFilesystem,
    io::ErrorKind::InvalidInput,
];
/// What each of the two queues between threads may hold in memory.
const QUEUE_MAX_BYTES: usize = 32 << 20;
