//! Two disks that fail each by itself.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use durable::{Disk, DiskFile, DiskRoom, Metadata, OpenMode};
use testkit::fault_disk::FaultDisk;

/// What lies below `at` is on the second disk.
pub(super) struct Disks {
    pub(super) first: FaultDisk,
    pub(super) second: FaultDisk,
    pub(super) at: PathBuf,
}

impl Disks {
    fn of(&self, path: &Path) -> &FaultDisk {
        match path.starts_with(&self.at) {
            true => &self.second,
            false => &self.first,
        }
    }
}

impl Disk for Disks {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        self.of(path).open(path, mode)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.of(path).create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<OsString>> {
        self.of(path).read_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.of(from).rename(from, to)
    }

    fn link(&self, original: &Path, link: &Path) -> io::Result<()> {
        self.of(original).link(original, link)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.of(path).remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.of(path).remove_dir(path)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.of(path).metadata(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.of(path).sync_dir(path)
    }

    fn room(&self, path: &Path) -> io::Result<DiskRoom> {
        self.of(path).room(path)
    }
}
