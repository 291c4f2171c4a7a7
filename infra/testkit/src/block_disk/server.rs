//! The server of a recorded disk: a FUSE file system that is one regular file.
//!
//! It speaks the kernel's protocol itself (`linux/fuse.h`, version 7.31 or later): one file needs six of its requests. The
//! kernel is told of no cache that writes late, so a write comes as it is made, and is on the tape before it is answered.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use super::tape::{flush, write};
use super::{DEVICE, IMAGE, SERVING, TAPE};

/// Serves the disk in this folder until its file system is unmounted. Ends the process when its standard input ends: then
/// nobody is left who could want the disk.
///
/// # Errors
/// What the kernel answered.
pub fn serve(folder: &Path) -> io::Result<()> {
    std::thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(0);
    });
    let mut server = Server {
        image: File::options()
            .read(true)
            .write(true)
            .open(folder.join(IMAGE))?,
        tape: File::options().append(true).open(folder.join(TAPE))?,
        size: 0,
    };
    server.size = server.image.metadata()?.len();
    let mut kernel = File::options().read(true).write(true).open("/dev/fuse")?;
    // The root itself is the file, so that there are no names to be looked up.
    let data = format!(
        "fd={},rootmode={MODE:o},user_id=0,group_id=0",
        kernel.as_raw_fd()
    );
    let data = CString::new(data).map_err(|_| ErrorKind::InvalidInput)?;
    mount(
        "posthouse-recorded",
        folder.join(DEVICE),
        "fuse",
        MountFlags::empty(),
        data.as_c_str(),
    )?;
    println!("{SERVING}");
    let mut buffer = vec![0; WRITE_MAX_BYTES + HEADROOM_BYTES];
    loop {
        let count = match kernel.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => {
                return Ok(());
            }
            // A request that was taken back before we read it.
            Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => continue,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let request = &buffer[..count];
        let (opcode, unique) = (u32_at(request, 4), u64_at(request, 8));
        if [FORGET, INTERRUPT, BATCH_FORGET].contains(&opcode) {
            continue;
        }
        let (error, body) = match server.answer(opcode, &request[IN_HEADER_BYTES..]) {
            Ok(body) => (0, body),
            Err(error) => (-error.raw_os_error(), Vec::new()),
        };
        let length = u32::try_from(OUT_HEADER_BYTES + body.len()).unwrap_or(u32::MAX);
        let mut reply = length.to_ne_bytes().to_vec();
        reply.extend(error.to_ne_bytes());
        reply.extend(unique.to_ne_bytes());
        reply.extend(body);
        match kernel.write_all(&reply) {
            // Nobody waits for it any more.
            Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {}
            other => other?,
        }
    }
}

struct Server {
    image: File,
    tape: File,
    size: u64,
}

impl Server {
    fn answer(&mut self, opcode: u32, body: &[u8]) -> Result<Vec<u8>, Errno> {
        let failed = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        match opcode {
            INIT => Ok(initialised(body)),
            GETATTR | SETATTR => Ok(self.attributes()),
            OPEN => Ok(vec![0; 16]),
            READ => {
                let (offset, count) = (u64_at(body, 8), u64::from(u32_at(body, 16)));
                let count = count.min(self.size.saturating_sub(offset));
                let mut bytes = vec![0; usize::try_from(count).unwrap_or(0)];
                self.image
                    .read_exact_at(&mut bytes, offset)
                    .map_err(failed)?;
                Ok(bytes)
            }
            WRITE => {
                let (offset, count) = (u64_at(body, 8), u32_at(body, 16));
                let bytes = &body[40..][..count as usize];
                self.image.write_all_at(bytes, offset).map_err(failed)?;
                self.tape.write_all(&write(offset, bytes)).map_err(failed)?;
                Ok([count, 0].map(u32::to_ne_bytes).concat())
            }
            FSYNC => {
                self.tape.write_all(&flush()).map_err(failed)?;
                Ok(Vec::new())
            }
            RELEASE | FLUSH | DESTROY => Ok(Vec::new()),
            // Discards among them: what was discarded may still be read.
            _ => Err(Errno::NOSYS),
        }
    }

    /// `struct fuse_attr_out`; the time of validity is 0.
    fn attributes(&self) -> Vec<u8> {
        let mut reply = vec![0; 16];
        for number in [ROOT_INODE, self.size, self.size / 512, 0, 0, 0] {
            reply.extend(number.to_ne_bytes());
        }
        for number in [0, 0, 0, MODE, 1, 0, 0, 0, 4096, 0] {
            reply.extend(number.to_ne_bytes());
        }
        reply
    }
}

/// `struct fuse_init_out`.
fn initialised(body: &[u8]) -> Vec<u8> {
    let readahead = u32_at(body, 8);
    let mut reply: Vec<u8> = [VERSION.0, VERSION.1, readahead, MAX_PAGES]
        .map(u32::to_ne_bytes)
        .concat();
    // Requests in the background, and from how many on the kernel calls it crowded.
    reply.extend([64_u16, 48].map(u16::to_ne_bytes).concat());
    let write_max = u32::try_from(WRITE_MAX_BYTES).unwrap_or(u32::MAX);
    reply.extend([write_max, 1].map(u32::to_ne_bytes).concat());
    let pages_max = u16::try_from(WRITE_MAX_BYTES / 4096).unwrap_or(u16::MAX);
    reply.extend(pages_max.to_ne_bytes());
    reply.resize(64, 0);
    reply
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let bytes = bytes[offset..][..4].try_into();
    u32::from_ne_bytes(bytes.expect("the kernel sends requests whole"))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let bytes = bytes[offset..][..8].try_into();
    u64::from_ne_bytes(bytes.expect("the kernel sends requests whole"))
}

const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const RELEASE: u32 = 18;
const FSYNC: u32 = 20;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const DESTROY: u32 = 38;
const BATCH_FORGET: u32 = 42;

const VERSION: (u32, u32) = (7, 31);
/// The flag that makes the number of pages a request may have count.
const MAX_PAGES: u32 = 1 << 22;
const IN_HEADER_BYTES: usize = 40;
const OUT_HEADER_BYTES: usize = 16;
const ROOT_INODE: u64 = 1;
/// A regular file.
const MODE: u32 = 0o100_600;
/// 256 pages, the most the kernel takes by default.
const WRITE_MAX_BYTES: usize = 1 << 20;
/// More than any header.
const HEADROOM_BYTES: usize = 4096;
