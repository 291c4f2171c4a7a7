//! The seam between the store and the operating system's files.
//!
//! Contents and names are made durable separately, as POSIX has it: [`DiskFile::sync_data`] says nothing about the name
//! of a new file, [`Disk::sync_dir`] nothing about what the files in the folder contain.

use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::path::Path;

/// A file system. Every call may block.
pub trait Disk: Send + Sync + 'static {
    /// Opens a file; see [`OpenMode`]. A new file is readable by its owner only.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>>;
    /// Makes a folder and those above it, for the owner only. Not durable: see [`create_dir_durable`].
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The names in a folder, in no order.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<OsString>>;
    /// Renames, replacing the target. Durable after [`Disk::sync_dir`] of both parents.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name (hard link). Fails with `AlreadyExists` when `link` is taken.
    fn link(&self, original: &Path, link: &Path) -> io::Result<()>;
    /// Removes one name of a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty folder.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Facts about what a path names.
    fn metadata(&self, path: &Path) -> io::Result<Metadata>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// How much room the file system that holds `path` has. Cheap: nothing is read from the disk.
    fn room(&self, path: &Path) -> io::Result<DiskRoom>;

    /// Whether the path names anything.
    fn exists(&self, path: &Path) -> io::Result<bool> {
        match self.metadata(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// An open file, usable from several threads at once: every access names its offset.
pub trait DiskFile: Send + Sync {
    /// Reads up to `buffer.len()` bytes; 0 means the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all parts, one after the other, beginning at `offset`. After an error any part of them may be there.
    fn write_all_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Makes the contents, and the length if it changed, durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Makes the contents and all of the file's attributes durable.
    fn sync_all(&self) -> io::Result<()>;
    /// Makes everything on the file system that holds this file durable, contents and names.
    ///
    /// Linux tells each open file once of what could not be written since it was opened, and tells nobody who opens a
    /// file after somebody else was told. Keep one open for as long as a loss must not go unseen.
    fn sync_fs(&self) -> io::Result<()>;
    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Cuts the file or extends it with a hole.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes the file `len` bytes of zeros, really written: a later overwrite needs no block allocation, so that its
    /// sync has no metadata to flush.
    fn allocate_zeroed(&self, len: u64) -> io::Result<()>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills the buffer; `UnexpectedEof` when the file ends before.
    fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_at(buffer, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    buffer = &mut buffer[count..];
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, to read.
    Read,
    /// An existing file, to read and write.
    Write,
    /// To read and write; made when absent.
    Create,
    /// To read and write; must not exist before.
    CreateNew,
}

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// Length in bytes; of no meaning for a folder.
    pub len: u64,
    /// Names the file has (hard links).
    pub links: u64,
    /// Tells two files of one file system apart.
    pub inode: u64,
    /// Whether it is a folder.
    pub is_dir: bool,
}

/// How much of a file system is left to a program without privileges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskRoom {
    /// All of it, in bytes.
    pub size_bytes: u64,
    /// What may still be written, in bytes.
    pub free_bytes: u64,
    /// Inodes, each a file or a folder; 0 on a file system that makes them as they are needed.
    pub inodes: u64,
    /// Inodes not in use.
    pub free_inodes: u64,
}

/// Whether the system refused for want of room: worth trying again once there is some.
#[must_use]
pub fn is_no_room(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Makes a folder and those above it, each name durable on return.
pub fn create_dir_durable(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = {
        let mut missing = Vec::new();
        for ancestor in path
            .ancestors()
            .filter(|ancestor| !ancestor.as_os_str().is_empty())
        {
            if disk.exists(ancestor)? {
                break;
            }
            missing.push(ancestor);
        }
        missing
    };
    disk.create_dir_all(path)?;
    for made in missing.into_iter().rev() {
        let parent = made
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        disk.sync_dir(parent.unwrap_or(Path::new(".")))?;
    }
    Ok(())
}
