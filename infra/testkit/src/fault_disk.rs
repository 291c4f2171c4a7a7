//! A disk in memory that loses power, fills up and fails on demand.
//!
//! It keeps what programs see apart from what would survive a power cut. Contents become durable by a sync of the file,
//! names by a sync of their folder, both by [`DiskFile::sync_fs`]. When power returns, what was not synced is gone, torn or
//! reordered ([`Loss`]), at the granularity of 512-byte sectors and of single name changes. A failed sync behaves as
//! Linux does: the pages count as clean afterwards, so that the next sync succeeds although nothing was written.
//!
//! What is done to it can be recorded ([`Tape`]), so that a test may cut the power at every point of one run.

mod file;
mod tape;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use durable::{Disk, DiskFile, DiskRoom, Metadata, OpenMode};

use file::{File, Pending, put};
use tape::Change;
pub use tape::Tape;

/// The disk; clones are the same disk.
#[derive(Clone)]
pub struct FaultDisk(Arc<Mutex<State>>);

/// What happens to everything unsynced when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// None of it is there.
    Lost,
    /// It was written in order up to some sector, drawn at random.
    Torn,
    /// Each sector and each name change is there or not, drawn at random.
    Reordered,
}

impl Loss {
    /// Every kind, for tests that try them all.
    pub const ALL: [Loss; 3] = [Loss::Lost, Loss::Torn, Loss::Reordered];
}

/// Operations that can be told to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Reading a file.
    Read,
    /// Writing or extending a file.
    Write,
    /// Syncing a file, a folder or the file system.
    Sync,
    /// Changing a name: create, rename, link, remove.
    Name,
}

impl FaultDisk {
    /// An empty disk with only the folder `/`. The seed decides what random losses take; print it when a test fails.
    #[must_use]
    pub fn new(seed: u64) -> FaultDisk {
        let mut names = BTreeMap::new();
        names.insert(PathBuf::from("/"), Node::Dir);
        FaultDisk(Arc::new(Mutex::new(State {
            durable_names: names.clone(),
            names,
            name_changes: Vec::new(),
            files: Vec::new(),
            operations: 0,
            syncs: 0,
            power_cut_after: None,
            boots: 0,
            failing: None,
            capacity_bytes: u64::MAX,
            allocations: 0,
            full_after: None,
            refused: 0,
            copies_on_write: false,
            held: None,
            waiting: 0,
            random: seed,
            tape: None,
        })))
    }

    /// How many changing operations (writes, syncs, name changes) were done so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Cuts the power once `count` more changing operations were done: all later ones fail, reads too.
    pub fn cut_power_after(&self, count: u64) {
        let mut state = self.lock();
        state.power_cut_after = Some(state.operations + count);
    }

    /// Cuts the power if it is not cut yet, lets go what was not synced and starts again: files opened before are dead.
    pub fn power_on(&self, loss: Loss) {
        let mut state = self.lock();
        state.lose(loss);
        state.power_cut_after = None;
        state.failing = None;
        state.boots += 1;
    }

    /// Makes the operation of that kind fail after `skip` successful ones, once.
    pub fn fail(&self, operation: Operation, skip: u64, kind: ErrorKind) {
        self.lock().failing = Some(Failing {
            operation,
            skip,
            kind,
        });
    }

    /// Whether what [`FaultDisk::fail`] asked for has happened.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.lock().failing.is_none()
    }

    /// How many syncs were asked for so far, those that failed too.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// Sets how many bytes all files together may hold.
    pub fn set_capacity(&self, bytes: u64) {
        self.lock().capacity_bytes = bytes;
    }

    /// How many operations were done so far that need room: a file that grows, a new name.
    #[must_use]
    pub fn allocations(&self) -> u64 {
        self.lock().allocations
    }

    /// Makes every operation that needs room fail for want of it once `count` more have been done, until
    /// [`FaultDisk::give_room`].
    pub fn fill_up_after(&self, count: u64) {
        let mut state = self.lock();
        state.full_after = Some(state.allocations + count);
        state.refused = 0;
    }

    /// Ends what [`FaultDisk::fill_up_after`] began.
    pub fn give_room(&self) {
        self.lock().full_after = None;
    }

    /// Makes overwriting need room too, as on Btrfs and ZFS: without room it fails, having written some of it or nothing.
    pub fn copy_on_write(&self) {
        self.lock().copies_on_write = true;
    }

    /// How many operations found no room since [`FaultDisk::fill_up_after`].
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.lock().refused
    }

    /// Makes whoever opens, links or removes something below a folder wait until it is asked for none.
    pub fn hold(&self, folder: Option<&Path>) {
        self.lock().held = folder.map(Path::to_owned);
    }

    /// Whether somebody waits for the end of [`FaultDisk::hold`].
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.lock().waiting > 0
    }

    fn pass(&self, path: &Path) {
        let is_held = |state: &State| {
            let held = state.held.as_ref();
            held.is_some_and(|folder| path.starts_with(folder))
        };
        if !is_held(&self.lock()) {
            return;
        }
        self.lock().waiting += 1;
        while is_held(&self.lock()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.lock().waiting -= 1;
    }

    /// Inverts the bits of `mask` in one byte of a file, durably: rot.
    ///
    /// # Panics
    /// When there is no such byte.
    pub fn rot(&self, path: &Path, offset: usize, mask: u8) {
        let mut state = self.lock();
        let id = state.file(path).expect("the file to rot exists");
        let file = &mut state.files[id];
        Arc::make_mut(&mut file.now)[offset] ^= mask;
        Arc::make_mut(&mut file.durable)[offset] ^= mask;
    }

    /// A file's bytes as programs see them.
    ///
    /// # Panics
    /// When there is no such file.
    #[must_use]
    pub fn bytes(&self, path: &Path) -> Vec<u8> {
        let state = self.lock();
        state.files[state.file(path).expect("the file exists")]
            .now
            .to_vec()
    }

    /// Puts a file there, durably, folders included.
    pub fn place(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.lock();
        let id = state.files.len();
        state.files.push(File {
            durable: Arc::new(bytes.to_vec()),
            now: Arc::new(bytes.to_vec()),
            pending: Vec::new(),
            failed: None,
        });
        for folder in path.ancestors().skip(1) {
            state.names.insert(folder.to_owned(), Node::Dir);
            state.durable_names.insert(folder.to_owned(), Node::Dir);
        }
        state.names.insert(path.to_owned(), Node::File(id));
        state.durable_names.insert(path.to_owned(), Node::File(id));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for FaultDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        self.pass(path);
        let mut state = self.lock();
        state.powered()?;
        let id = match (state.names.get(path), mode) {
            (Some(Node::Dir), _) => return Err(ErrorKind::IsADirectory.into()),
            (Some(Node::File(_)), OpenMode::CreateNew) => {
                return Err(ErrorKind::AlreadyExists.into());
            }
            (Some(Node::File(id)), _) => *id,
            (None, OpenMode::Read | OpenMode::Write) => return Err(ErrorKind::NotFound.into()),
            (None, OpenMode::Create | OpenMode::CreateNew) => {
                state.parent_exists(path)?;
                state.allocate()?;
                state.change(Operation::Name)?;
                let id = state.files.len();
                state.perform(Change::Name(NameChange::Put(
                    path.to_owned(),
                    Node::File(id),
                )));
                id
            }
        };
        let writable = mode != OpenMode::Read;
        Ok(Box::new(Handle {
            disk: self.clone(),
            id,
            boot: state.boots,
            writable,
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.powered()?;
        let mut missing: Vec<&Path> = Vec::new();
        for folder in path.ancestors() {
            match state.names.get(folder) {
                Some(Node::Dir) => break,
                Some(Node::File(_)) => return Err(ErrorKind::NotADirectory.into()),
                None => missing.push(folder),
            }
        }
        for folder in missing.into_iter().rev() {
            state.allocate()?;
            state.change(Operation::Name)?;
            state.perform(Change::Name(NameChange::Put(folder.to_owned(), Node::Dir)));
        }
        Ok(())
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let state = self.lock();
        state.powered()?;
        state.is_dir(path)?;
        Ok(state
            .children(path)
            .filter_map(|child| Some(child.file_name()?.to_owned()))
            .collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.powered()?;
        let node = *state.names.get(from).ok_or(ErrorKind::NotFound)?;
        state.parent_exists(to)?;
        state.change(Operation::Name)?;
        state.perform(Change::Name(NameChange::Rename(
            from.to_owned(),
            to.to_owned(),
            node,
        )));
        Ok(())
    }

    fn link(&self, original: &Path, link: &Path) -> io::Result<()> {
        self.pass(link);
        let mut state = self.lock();
        state.powered()?;
        let id = state.file(original)?;
        state.parent_exists(link)?;
        if state.names.contains_key(link) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        state.allocate()?;
        state.change(Operation::Name)?;
        state.perform(Change::Name(NameChange::Put(
            link.to_owned(),
            Node::File(id),
        )));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.pass(path);
        let mut state = self.lock();
        state.powered()?;
        state.file(path)?;
        state.change(Operation::Name)?;
        state.perform(Change::Name(NameChange::Remove(path.to_owned())));
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.powered()?;
        state.is_dir(path)?;
        if state.children(path).next().is_some() {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        state.change(Operation::Name)?;
        state.perform(Change::Name(NameChange::Remove(path.to_owned())));
        Ok(())
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let state = self.lock();
        state.powered()?;
        match state.names.get(path) {
            None => Err(ErrorKind::NotFound.into()),
            Some(Node::Dir) => Ok(Metadata {
                len: 0,
                links: 1,
                inode: u64::MAX,
                is_dir: true,
            }),
            Some(&Node::File(id)) => Ok(Metadata {
                len: state.files[id].now.len() as u64,
                links: state
                    .names
                    .values()
                    .filter(|node| **node == Node::File(id))
                    .count() as u64,
                inode: id as u64,
                is_dir: false,
            }),
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.powered()?;
        state.is_dir(path)?;
        state.change(Operation::Sync)?;
        state.perform(Change::SyncDir(path.to_owned()));
        Ok(())
    }

    fn room(&self, _path: &Path) -> io::Result<DiskRoom> {
        let state = self.lock();
        state.powered()?;
        let used: u64 = state.files.iter().map(|file| file.now.len() as u64).sum();
        Ok(DiskRoom {
            size_bytes: state.capacity_bytes,
            free_bytes: state.capacity_bytes.saturating_sub(used),
            inodes: 0,
            free_inodes: 0,
        })
    }
}

/// An open file; dead after the power was cut.
struct Handle {
    disk: FaultDisk,
    id: usize,
    boot: u64,
    writable: bool,
}

impl Handle {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.lock();
        state.powered()?;
        if state.boots == self.boot {
            Ok(state)
        } else {
            Err(power_is_off())
        }
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if !self.writable {
            return Err(ErrorKind::PermissionDenied.into());
        }
        let mut state = self.state()?;
        let offset = usize::try_from(offset).map_err(|_| ErrorKind::FileTooLarge)?;
        let grown = (offset + bytes.len()).saturating_sub(state.files[self.id].now.len()) as u64;
        let used: u64 = state.files.iter().map(|file| file.now.len() as u64).sum();
        if grown > 0 {
            state.allocate()?;
            if used + grown > state.capacity_bytes {
                return Err(ErrorKind::StorageFull.into());
            }
        }
        let has_room = match state.copies_on_write && grown == 0 {
            true => state.allocate(),
            false => Ok(()),
        };
        let is_full = has_room.is_err();
        let changed = has_room.and_then(|()| state.change(Operation::Write));
        if changed.is_err() && state.powered().is_err() {
            return changed;
        }
        // A write that fails has written some of it.
        let count = match (&changed, is_full) {
            (Ok(()), _) => bytes.len(),
            (Err(_), true) if below(&mut state.random, 2) == 0 => 0,
            (Err(_), true) => below(&mut state.random, bytes.len() as u64 + 1) as usize,
            (Err(_), false) => bytes.len() / 2,
        };
        state.perform(Change::Write(self.id, offset, bytes[..count].into()));
        changed
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state()?;
        if let Err(error) = state.change(Operation::Sync) {
            if state.powered().is_ok() {
                state.files[self.id].pending.clear();
            }
            return Err(error);
        }
        if let Some(kind) = state.files[self.id].failed.take() {
            return Err(kind.into());
        }
        state.perform(Change::Sync(self.id));
        Ok(())
    }
}

impl DiskFile for Handle {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.state()?;
        state.fail_if_told(Operation::Read)?;
        let bytes = &state.files[self.id].now;
        let begin = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let count = buffer.len().min(bytes.len() - begin);
        buffer[..count].copy_from_slice(&bytes[begin..begin + count]);
        Ok(count)
    }

    fn write_all_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let parts: Vec<&[u8]> = parts.iter().map(|part| &**part).collect();
        self.write(offset, &parts.concat())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_fs(&self) -> io::Result<()> {
        let mut state = self.state()?;
        if let Err(error) = state.change(Operation::Sync) {
            if state.powered().is_ok() {
                for file in &mut state.files {
                    file.fail(error.kind());
                }
            }
            return Err(error);
        }
        state.perform(Change::SyncFs);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.state()?.files[self.id].now.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let now = self.len()?;
        if len > now {
            let grown = usize::try_from(len - now).map_err(|_| ErrorKind::FileTooLarge)?;
            return self.write(now, &vec![0; grown]);
        }
        let mut state = self.state()?;
        state.change(Operation::Write)?;
        // Shorter than a length that fits.
        state.perform(Change::Cut(self.id, len as usize));
        Ok(())
    }

    fn allocate_zeroed(&self, len: u64) -> io::Result<()> {
        if self.len()? > len {
            self.set_len(len)?;
        }
        self.write(
            0,
            &vec![0; usize::try_from(len).map_err(|_| ErrorKind::FileTooLarge)?],
        )
    }
}

#[derive(Clone)]
struct State {
    /// The names programs see, and those that survive.
    names: BTreeMap<PathBuf, Node>,
    durable_names: BTreeMap<PathBuf, Node>,
    /// What changed between the two, in order.
    name_changes: Vec<NameChange>,
    /// By inode number; never removed, a test is short.
    files: Vec<File>,
    operations: u64,
    syncs: u64,
    power_cut_after: Option<u64>,
    boots: u64,
    failing: Option<Failing>,
    capacity_bytes: u64,
    /// Operations that needed room, after how many there is none, and how many found none since.
    allocations: u64,
    full_after: Option<u64>,
    refused: u64,
    copies_on_write: bool,
    /// The folder below which everybody waits, and how many do.
    held: Option<PathBuf>,
    waiting: usize,
    random: u64,
    /// What was done, if it is recorded.
    tape: Option<Tape>,
}

#[derive(Clone)]
struct Failing {
    operation: Operation,
    skip: u64,
    kind: ErrorKind,
}

impl State {
    fn powered(&self) -> io::Result<()> {
        match self.power_cut_after {
            Some(cut) if self.operations >= cut => Err(power_is_off()),
            _ => Ok(()),
        }
    }

    /// Counts a changing operation, unless it is to fail.
    fn change(&mut self, operation: Operation) -> io::Result<()> {
        self.powered()?;
        self.syncs += u64::from(operation == Operation::Sync);
        self.fail_if_told(operation)?;
        self.operations += 1;
        Ok(())
    }

    /// Counts an operation that needs room, unless there is none.
    fn allocate(&mut self) -> io::Result<()> {
        if self.full_after.is_some_and(|full| self.allocations >= full) {
            self.refused += 1;
            return Err(ErrorKind::StorageFull.into());
        }
        self.allocations += 1;
        Ok(())
    }

    fn fail_if_told(&mut self, operation: Operation) -> io::Result<()> {
        match &mut self.failing {
            Some(failing) if failing.operation == operation && failing.skip == 0 => {
                let kind = failing.kind;
                self.failing = None;
                Err(kind.into())
            }
            Some(failing) if failing.operation == operation => {
                failing.skip -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Does what was asked for, and records it.
    fn perform(&mut self, change: Change) {
        match &change {
            Change::Name(name) => {
                if let NameChange::Put(_, Node::File(id)) = name
                    && *id == self.files.len()
                {
                    self.files.push(File::default());
                }
                name.apply(&mut self.names);
                self.name_changes.push(name.clone());
            }
            Change::Write(id, offset, bytes) => {
                let file = &mut self.files[*id];
                put(Arc::make_mut(&mut file.now), *offset, bytes);
                file.pending
                    .push(Pending::Write(*offset, Arc::clone(bytes)));
            }
            Change::Cut(id, len) => {
                let file = &mut self.files[*id];
                Arc::make_mut(&mut file.now).truncate(*len);
                file.pending.push(Pending::Cut(*len));
            }
            Change::Sync(id) => self.files[*id].sync(),
            Change::SyncDir(path) => {
                let (synced, pending) = std::mem::take(&mut self.name_changes)
                    .into_iter()
                    .partition(|change| change.is_in(path));
                self.name_changes = pending;
                let synced: Vec<NameChange> = synced;
                synced
                    .iter()
                    .for_each(|change| change.apply(&mut self.durable_names));
            }
            Change::SyncFs => {
                self.files.iter_mut().for_each(File::sync);
                self.name_changes.clear();
                self.durable_names = self.names.clone();
            }
        }
        if let Some(tape) = &mut self.tape {
            tape.push(change);
        }
    }

    fn lose(&mut self, loss: Loss) {
        let mut random = self.random;
        let changes = std::mem::take(&mut self.name_changes);
        let prefix = match loss {
            Loss::Torn => below(&mut random, changes.len() as u64 + 1) as usize,
            Loss::Lost | Loss::Reordered => 0,
        };
        for (index, change) in changes.iter().enumerate() {
            if index < prefix || (loss == Loss::Reordered && below(&mut random, 2) == 0) {
                change.apply(&mut self.durable_names);
            }
        }
        // A name in a folder that does not exist is out of reach.
        let mut reachable: BTreeMap<PathBuf, Node> = BTreeMap::new();
        for (path, node) in &self.durable_names {
            let parent = path.parent();
            if parent.is_none_or(|parent| reachable.get(parent) == Some(&Node::Dir)) {
                reachable.insert(path.clone(), *node);
            }
        }
        self.names.clone_from(&reachable);
        self.durable_names = reachable;
        for file in &mut self.files {
            file.lose(loss, &mut random);
        }
        self.random = random;
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        match self.names.get(path) {
            Some(Node::File(id)) => Ok(*id),
            Some(Node::Dir) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn is_dir(&self, path: &Path) -> io::Result<()> {
        match self.names.get(path) {
            Some(Node::Dir) => Ok(()),
            Some(Node::File(_)) => Err(ErrorKind::NotADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn parent_exists(&self, path: &Path) -> io::Result<()> {
        self.is_dir(path.parent().ok_or(ErrorKind::NotFound)?)
    }

    fn children<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = &'a PathBuf> {
        self.names
            .keys()
            .filter(move |name| name.parent() == Some(path))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Dir,
    File(usize),
}

#[derive(Debug, Clone)]
enum NameChange {
    Put(PathBuf, Node),
    Remove(PathBuf),
    /// Names the file it moved: an older one of the same name is not moved in its stead.
    Rename(PathBuf, PathBuf, Node),
}

impl NameChange {
    fn is_in(&self, folder: &Path) -> bool {
        match self {
            NameChange::Put(path, _) | NameChange::Remove(path) => path.parent() == Some(folder),
            NameChange::Rename(from, to, _) => {
                from.parent() == Some(folder) || to.parent() == Some(folder)
            }
        }
    }

    /// A change whose ground did not survive is without effect.
    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            NameChange::Put(path, node) => drop(names.insert(path.clone(), *node)),
            NameChange::Remove(path) => drop(names.remove(path)),
            NameChange::Rename(from, to, node @ Node::File(_)) => {
                if names.get(from) == Some(node) {
                    names.remove(from);
                }
                names.insert(to.clone(), *node);
            }
            NameChange::Rename(from, to, Node::Dir) => {
                let moved: Vec<PathBuf> = names
                    .keys()
                    .filter(|name| name.starts_with(from))
                    .cloned()
                    .collect();
                for name in moved {
                    let rest = name.strip_prefix(from).expect("the name starts with it");
                    // Joining nothing would add a slash.
                    let new = if rest.as_os_str().is_empty() {
                        to.clone()
                    } else {
                        to.join(rest)
                    };
                    if let Some(node) = names.remove(&name) {
                        names.insert(new, node);
                    }
                }
            }
        }
    }
}

/// The next of a fixed sequence of numbers (SplitMix64), below `limit`.
pub(crate) fn below(random: &mut u64, limit: u64) -> u64 {
    *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *random;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) % limit
}

fn power_is_off() -> io::Error {
    io::Error::other("the power is off")
}
