//! The states of an index, commit by commit, and which of them a power cut may leave.
//!
//! LMDB does not go through the disk seam. What is assumed of it is what it promises for the way we open it
//! (`MDB_NOMETASYNC`): a commit syncs its pages, which makes the commit before it durable too, and then writes the page
//! that names them without a sync. So a cut leaves the last commit or the one before it, whole; after a sync of the
//! environment the last one. A new environment's name may be lost until the first checkpoint has synced the file system.
//! What the disk does within one commit is not tried here.
//!
//! A compaction gives the index's name to another file. A cut before the folder is synced may take the name back, whatever
//! was synced in the file since.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use testkit::fault_disk::FaultDisk;

const DATA_FILE: &str = "data.mdb";
const PAGE_BYTES: usize = 4096;

/// One state of an index; `None` when there is none. Pages are shared with the states around it.
pub(super) type Image = Option<Vec<Arc<[u8]>>>;

/// All states of one index since it was opened, with the points of the disk's tape between which each came to be.
pub(in crate::volume) struct IndexTape {
    folder: PathBuf,
    disk: FaultDisk,
    states: Mutex<Vec<State>>,
    /// Syncs of the whole environment: the point, and the state that is durable since.
    syncs: Mutex<Vec<(usize, usize)>>,
    /// Syncs of the folder, after another file was given the name: the point, and the first state of that file.
    names: Mutex<Vec<(usize, usize)>>,
}

struct State {
    begun: usize,
    ended: usize,
    image: Image,
    /// It is another file than before.
    is_renamed: bool,
}

/// The indexes that are being recorded, by folder.
static TAPES: Mutex<BTreeMap<PathBuf, Arc<IndexTape>>> = Mutex::new(BTreeMap::new());

/// One commit under way; its drop takes a picture of what it left.
pub(in crate::volume) struct Commit<'t> {
    tape: &'t IndexTape,
    states: MutexGuard<'t, Vec<State>>,
    begun: usize,
    is_renamed: bool,
}

/// A sync of the environment under way.
pub(in crate::volume) struct Sync<'t> {
    tape: &'t IndexTape,
    /// The last state when it began.
    state: usize,
}

impl IndexTape {
    /// The recording of the index in this folder, if there is one.
    pub(in crate::volume) fn of(folder: &Path) -> Option<Arc<Self>> {
        TAPES.lock().unwrap().get(folder).map(Arc::clone)
    }

    /// Puts the index there and records it, beside the disk's own recording.
    pub(super) fn begin(folder: &Path, image: Image, disk: &FaultDisk) -> Arc<Self> {
        let _ = fs::remove_dir_all(folder);
        if let Some(pages) = &image {
            fs::create_dir_all(folder).unwrap();
            fs::write(folder.join(DATA_FILE), pages.concat()).unwrap();
        }
        let (begun, ended) = (0, 0);
        let tape = Arc::new(Self {
            folder: folder.to_owned(),
            disk: disk.clone(),
            states: Mutex::new(vec![State {
                begun,
                ended,
                image,
                is_renamed: false,
            }]),
            syncs: Mutex::default(),
            names: Mutex::default(),
        });
        let mut tapes = TAPES.lock().unwrap();
        tapes.insert(folder.to_owned(), Arc::clone(&tape));
        tape
    }

    /// Forgets the recording; who has it keeps it.
    pub(super) fn end(folder: &Path) {
        TAPES.lock().unwrap().remove(folder);
    }

    /// To be held for as long as a transaction is written.
    pub(in crate::volume) fn commit(&self) -> Commit<'_> {
        // One writer at a time, as in LMDB, so that nobody writes while the picture is taken.
        let states = self.states.lock().unwrap();
        Commit {
            tape: self,
            begun: self.disk.recorded(),
            states,
            is_renamed: false,
        }
    }

    /// To be held for as long as another file, which is whole on the disk, is given the name.
    pub(in crate::volume) fn rename(&self) -> Commit<'_> {
        let mut commit = self.commit();
        commit.is_renamed = true;
        commit
    }

    /// The folder was synced after that.
    pub(in crate::volume) fn named(&self) {
        let point = self.disk.recorded();
        let state = self.states.lock().unwrap().len() - 1;
        self.names.lock().unwrap().push((point, state));
        self.syncs.lock().unwrap().push((point, state));
    }

    /// To be held for as long as the environment is synced.
    pub(in crate::volume) fn sync(&self) -> Sync<'_> {
        Sync {
            tape: self,
            state: self.states.lock().unwrap().len() - 1,
        }
    }

    /// The states a cut at a point of the disk's tape may leave, oldest first.
    pub(super) fn at(&self, point: usize) -> Vec<Image> {
        let (states, syncs) = (self.states.lock().unwrap(), self.syncs.lock().unwrap());
        let synced = syncs.iter().filter(|(at, _)| *at <= point);
        let synced = synced.map(|(_, state)| *state).max();
        let committed = states.iter().rposition(|state| state.ended <= point);
        let floor = committed.unwrap_or(0).saturating_sub(1);
        let floor = floor.max(synced.unwrap_or(0));
        let begun = states.iter().skip(floor);
        let begun = begun.filter(|state| state.begun <= point);
        let mut images: Vec<Image> = begun.map(|state| state.image.clone()).collect();
        let mut renamed = states.iter();
        let renamed = renamed.rposition(|state| state.is_renamed && state.begun <= point);
        let names = self.names.lock().unwrap();
        let is_named = |state| {
            names
                .iter()
                .any(|(at, named)| *at <= point && *named >= state)
        };
        if let Some(state) = renamed.filter(|state| !is_named(*state)) {
            images.insert(0, states[state - 1].image.clone());
        }
        if synced.is_none() && states[0].image.is_none() && floor > 0 {
            images.insert(0, None);
        }
        images
    }
}

impl Drop for Commit<'_> {
    fn drop(&mut self) {
        let ended = self.tape.disk.recorded();
        let bytes = fs::read(self.tape.folder.join(DATA_FILE)).unwrap_or_default();
        let before = self.states.last().and_then(|state| state.image.as_ref());
        let pages = bytes.chunks(PAGE_BYTES).enumerate().map(|(number, page)| {
            let same = before.and_then(|pages| pages.get(number));
            match same.filter(|same| ***same == *page) {
                Some(same) => Arc::clone(same),
                None => page.into(),
            }
        });
        let image = Some(pages.collect());
        self.states.push(State {
            begun: self.begun,
            ended,
            image,
            is_renamed: self.is_renamed,
        });
    }
}

impl Drop for Sync<'_> {
    fn drop(&mut self) {
        let point = self.tape.disk.recorded();
        self.tape.syncs.lock().unwrap().push((point, self.state));
    }
}
