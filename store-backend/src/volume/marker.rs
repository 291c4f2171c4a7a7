//! What says whose a volume is and which life of it this is, and that nobody else has it open.

use std::fs::{File, TryLockError};
use std::io::{self, IoSlice, Read};
use std::path::Path;

use durable::{Disk, OpenMode};

use super::VolumeConfig;
use super::error::OpenError;
use super::layout::{FORMAT_FILE, FORMAT_VERSION, LOCK_FILE, Layout};

/// Held until the volume is dropped; the system lets it go when the process dies.
pub(super) fn lock(layout: &Layout) -> Result<File, OpenError> {
    let path = layout.file(LOCK_FILE);
    let opened = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = opened.map_err(OpenError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked {
            path: layout.root.clone(),
        }),
        Err(TryLockError::Error(source)) => Err(OpenError::io("lock", &path)(source)),
    }
}

/// What the marker says.
pub(super) struct Marker {
    pub(super) backend: String,
    pub(super) volume: String,
    pub(super) incarnation: String,
    /// What copy and kept log are known by, through all its lives: the incarnation of the first.
    pub(super) kept: String,
}

/// Checks version and owner.
pub(super) fn read_marker(
    disk: &dyn Disk,
    config: &VolumeConfig,
    layout: &Layout,
) -> Result<Marker, OpenError> {
    let marker = marker_of(disk, layout)?;
    for (key, found, wanted) in [
        ("backend", &marker.backend, config.backend.as_str()),
        ("volume", &marker.volume, config.name.as_str()),
    ] {
        if found != wanted {
            return Err(OpenError::OtherOwner {
                path: layout.root.clone(),
                key,
                found: found.clone(),
                wanted: wanted.into(),
            });
        }
    }
    Ok(marker)
}

/// Checks the version.
pub(super) fn marker_of(disk: &dyn Disk, layout: &Layout) -> Result<Marker, OpenError> {
    let path = layout.file(FORMAT_FILE);
    let mut bytes = vec![0; MARKER_MAX_BYTES];
    let read = disk
        .open(&path, OpenMode::Read)
        .and_then(|file| file.read_at(&mut bytes, 0));
    bytes.truncate(read.map_err(OpenError::io("read", &path))?);
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    if first != format!("{MARKER} {FORMAT_VERSION}") {
        let found = first.chars().take(64).collect();
        return Err(OpenError::Version {
            path: layout.root.clone(),
            found,
        });
    }
    let value = |key: &str| {
        let prefix = format!("{key} ");
        text.lines()
            .find_map(|line| line.strip_prefix(&prefix))
            .unwrap_or_default()
            .to_owned()
    };
    let (incarnation, kept) = (value("incarnation"), value("kept"));
    Ok(Marker {
        backend: value("backend"),
        volume: value("volume"),
        kept: if kept.is_empty() {
            incarnation.clone()
        } else {
            kept
        },
        incarnation,
    })
}

/// Durable on return, and never half written.
pub(super) fn write_marker(
    disk: &dyn Disk,
    config: &VolumeConfig,
    layout: &Layout,
    (incarnation, kept): (&str, &str),
) -> Result<(), OpenError> {
    let (backend, volume) = (&config.backend, &config.name);
    let mut text = format!(
        "{MARKER} {FORMAT_VERSION}\nbackend {backend}\nvolume {volume}\nincarnation {incarnation}\n"
    );
    if kept != incarnation {
        text += &format!("kept {kept}\n");
    }
    let path = layout.file(FORMAT_FILE);
    let written = replace(disk, layout, (MARKER_NEW, FORMAT_FILE), &text);
    written.map_err(OpenError::io("write", &path))
}

/// Writes a file of the volume's folder under its first name, then gives it its second one. Durable on return, and never half
/// written.
pub(super) fn replace(
    disk: &dyn Disk,
    layout: &Layout,
    (new, name): (&str, &str),
    text: &str,
) -> io::Result<()> {
    let new = layout.file(new);
    let file = disk.open(&new, OpenMode::Create)?;
    file.set_len(0)?;
    file.write_all_at(&[IoSlice::new(text.as_bytes())], 0)?;
    file.sync_all()?;
    disk.rename(&new, &layout.file(name))?;
    disk.sync_dir(&layout.root)
}

/// Octets that nobody can guess.
pub(super) fn random<const N: usize>() -> Result<[u8; N], OpenError> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; N];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(OpenError::io("read", path))?;
    Ok(bytes)
}

const MARKER: &str = "posthouse store";
pub(super) const MARKER_NEW: &str = "FORMAT.new";
/// Five short lines.
const MARKER_MAX_BYTES: usize = 4096;
