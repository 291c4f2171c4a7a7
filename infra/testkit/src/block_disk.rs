//! A block device whose writes and flushes are recorded, under a real file system of the kernel's.
//!
//! The device is a loop device over the only file of a small FUSE file system, which [`serve`] is: the kernel hands it each
//! write of the loop device as it is made, and each flush as an `fsync`. The record ([`BlockTape`]) can then be played to
//! any point of it, and what a power cut may leave there be mounted ([`Mounted`]).
//!
//! The server must be a process of its own. In the process that writes to the device, a signal would end the server's
//! thread while others wait for it inside the kernel, for ever: the file that tells the kernel that nobody serves any more
//! is only closed when all threads are gone.
//!
//! Needs root, `/dev/fuse` and loop devices. Call from within a mount namespace of its own ([`in_own_namespace`]): whatever
//! happens to the process, the kernel then takes away what it mounted.

mod server;
mod tape;

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub use server::serve;
pub use tape::{BlockTape, Image, Player};

/// A device under record.
pub struct RecordedDisk {
    folder: PathBuf,
    base: Image,
    server: Child,
}

impl RecordedDisk {
    /// Makes a device in an empty folder, beginning with `base`. `server` is a program that calls [`serve`] on that folder.
    ///
    /// # Panics
    /// When the server does not serve.
    #[must_use]
    pub fn start(folder: &Path, base: &Image, server: &mut Command) -> Self {
        base.write(&folder.join(IMAGE))
            .expect("the folder takes an image");
        for name in [TAPE, DEVICE] {
            File::create_new(folder.join(name)).expect("the folder is empty");
        }
        let server = server.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut disk = Self {
            folder: folder.to_owned(),
            base: base.clone(),
            server: server.spawn().expect("the server starts"),
        };
        let said = disk.server.stdout.take().expect("it was asked for");
        let mut lines = BufReader::new(said).lines().map_while(Result::ok);
        assert!(
            lines.any(|line| line.ends_with(SERVING)),
            "the server of a recorded disk ended at once: is there root, is there /dev/fuse?"
        );
        disk
    }

    /// Mounts its file system, with these options of mount(8).
    ///
    /// # Panics
    /// When it cannot be mounted.
    #[must_use]
    pub fn mount(&self, at: &Path, options: &str) -> Mounted {
        Mounted::new(&self.folder.join(DEVICE), at, options)
    }

    /// Where the record is now: a number for [`BlockTape::point`]. What was flushed before the call is on it.
    ///
    /// # Panics
    /// When the record is gone.
    #[must_use]
    pub fn recorded(&self) -> u64 {
        let tape = fs::metadata(self.folder.join(TAPE));
        tape.expect("the server keeps a record").len()
    }

    /// Ends the recording; its file system is no longer mounted.
    ///
    /// # Panics
    /// When the record cannot be read.
    #[must_use]
    pub fn end(self) -> BlockTape {
        let tape = fs::read(self.folder.join(TAPE)).expect("the server keeps a record");
        BlockTape::parse(self.base.clone(), &tape)
    }
}

impl Drop for RecordedDisk {
    fn drop(&mut self) {
        // It ends when nobody holds the other end any more, or when its file system goes.
        drop(self.server.stdin.take());
        let _ = self.server.wait();
        let _ = run("umount", &["--lazy".as_ref(), &self.folder.join(DEVICE)]);
    }
}

/// A mounted file system, on a loop device over a file. Unmounted when dropped.
pub struct Mounted {
    at: PathBuf,
}

impl Mounted {
    /// Mounts what is in the file, which must not have been mounted before.
    ///
    /// # Panics
    /// When it cannot be mounted.
    #[must_use]
    pub fn new(file: &Path, at: &Path, options: &str) -> Self {
        // The loop device lets the file go by itself when the last mount of it is gone.
        let options = format!("loop,{options}");
        let said = run("mount", &["-o".as_ref(), options.as_ref(), file, at]);
        said.unwrap_or_else(|error| panic!("cannot mount {}: {error}", file.display()));
        Self { at: at.to_owned() }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let began = Instant::now();
        // Threads of a volume that was dropped may take a moment to let go.
        while let Err(error) = run("umount", &[&self.at]) {
            if began.elapsed() > PATIENCE {
                let _ = run("umount", &["--lazy".as_ref(), &self.at]);
                // A second panic would hide the first.
                assert!(
                    std::thread::panicking(),
                    "cannot unmount {}: {error}",
                    self.at.display()
                );
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A command that does the same as another one, in a mount namespace of its own.
#[must_use]
pub fn in_own_namespace(program: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "--"]);
    command.arg(program);
    command
}

fn run(program: &str, arguments: &[&Path]) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let output = output.map_err(|error: io::Error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

/// What the device held when the server was asked to serve, and holds since.
const IMAGE: &str = "image";
/// All writes and flushes, in order.
const TAPE: &str = "tape";
/// The only file of the FUSE file system, as itself.
const DEVICE: &str = "device";
/// What the server says when it serves.
const SERVING: &str = "serving a recorded disk";
const PATIENCE: Duration = Duration::from_secs(10);
