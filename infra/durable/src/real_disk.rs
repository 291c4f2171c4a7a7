//! The operating system's files behind the [`Disk`] seam.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::disk::{Disk, DiskFile, DiskRoom, Metadata, OpenMode};

/// The operating system's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(mode != OpenMode::Read)
            .mode(FILE_MODE);
        options
            .create(mode == OpenMode::Create)
            .create_new(mode == OpenMode::CreateNew);
        Ok(Box::new(RealFile(options.open(path)?)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(DIR_MODE)
            .create(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(path)?
            .map(|entry| Ok(entry?.file_name()))
            .collect()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, original: &Path, link: &Path) -> io::Result<()> {
        fs::hard_link(original, link)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let found = fs::metadata(path)?;
        Ok(Metadata {
            len: found.len(),
            links: found.nlink(),
            inode: found.ino(),
            is_dir: found.is_dir(),
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn room(&self, path: &Path) -> io::Result<DiskRoom> {
        let found = rustix::fs::statvfs(path)?;
        Ok(DiskRoom {
            size_bytes: found.f_blocks.saturating_mul(found.f_frsize),
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            inodes: found.f_files,
            free_inodes: found.f_favail,
        })
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_all_at(&self, parts: &[IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        let mut parts = parts.to_vec();
        let mut rest = &mut parts[..];
        // Leading empty parts would make a write of 0 bytes look like a full disk.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let now = &rest[..rest.len().min(PARTS_PER_CALL_MAX)];
            match rustix::io::pwritev(&self.0, now, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    offset += count as u64;
                    IoSlice::advance_slices(&mut rest, count);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn sync_fs(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.0)?)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate_zeroed(&self, len: u64) -> io::Result<()> {
        let zeros = vec![0; ZEROS_PER_CALL_BYTES.min(usize::try_from(len).unwrap_or(usize::MAX))];
        self.0.set_len(len)?;
        let mut offset = 0;
        while offset < len {
            let count = (len - offset).min(zeros.len() as u64);
            // The count is at most the buffer's length, so it fits.
            self.0.write_all_at(&zeros[..count as usize], offset)?;
            offset += count;
        }
        Ok(())
    }
}

/// Mail is private: nobody but the service's own user reads its files.
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;
/// Linux refuses more than 1024 parts a call (`IOV_MAX`).
const PARTS_PER_CALL_MAX: usize = 1024;
/// Large enough that the system call does not count, small enough to stay in a cache.
const ZEROS_PER_CALL_BYTES: usize = 1 << 20;
