//! Which file systems a volume may lie on: those whose locks and syncs can be trusted.

use std::path::Path;

use super::error::OpenError;

/// Refuses a file system whose locks and syncs cannot be trusted, and each that is not known to be one that can.
/// Nothing was made yet: it is looked at where the folder will lie.
pub(super) fn refuse_untrusted(root: &Path) -> Result<(), OpenError> {
    let absolute = std::path::absolute(root).map_err(OpenError::io("look at", root))?;
    let mut found = Err(rustix::io::Errno::NOENT);
    for folder in absolute.ancestors() {
        found = rustix::fs::statfs(folder);
        if !matches!(found, Err(rustix::io::Errno::NOENT)) {
            break;
        }
    }
    let found = found.map_err(|error| OpenError::io("look at", root)(error.into()))?;
    let path = root.display();
    match file_system(u32::try_from(found.f_type).unwrap_or_default()) {
        FileSystem::Disk => Ok(()),
        FileSystem::Memory => {
            tracing::warn!(%path, "the volume lies in memory: the next restart of the machine takes all mail with it");
            Ok(())
        }
        FileSystem::Layers => {
            tracing::warn!(%path, "the volume lies in the layers of a container: they go with it; mount a disk there");
            Ok(())
        }
        FileSystem::Untrusted(kind) => Err(OpenError::FileSystem {
            path: root.to_owned(),
            kind: kind.into(),
        }),
        FileSystem::Unknown(magic) => Err(OpenError::FileSystem {
            path: root.to_owned(),
            kind: format!("a file system that is not known here ({magic:#x})"),
        }),
    }
}

/// What a file system is good for.
#[derive(Debug, PartialEq, Eq)]
enum FileSystem {
    /// On local disks.
    Disk,
    /// Gone with the machine's power.
    Memory,
    /// Syncs as the disk below does; mostly thrown away with the container.
    Layers,
    /// Over a network, or in another process.
    Untrusted(&'static str),
    Unknown(u32),
}

/// By the magic numbers of statfs(2).
fn file_system(magic: u32) -> FileSystem {
    match magic {
        // ext2, ext3 and ext4 have one; XFS, Btrfs, ZFS, F2FS, bcachefs.
        0xEF53 | 0x5846_5342 | 0x9123_683E | 0x2FC1_2FC1 | 0xF2F5_2010 | 0xCA45_1A4E => {
            FileSystem::Disk
        }
        0x0102_1994 => FileSystem::Memory,
        0x794C_7630 => FileSystem::Layers,
        0x6969 => FileSystem::Untrusted("NFS"),
        0xFF53_4D42 | 0xFE53_4D42 | 0x517B => FileSystem::Untrusted("SMB"),
        0x6573_5546 => FileSystem::Untrusted("FUSE"),
        0x0102_1997 => FileSystem::Untrusted("9p"),
        0x00C3_6400 => FileSystem::Untrusted("CephFS"),
        0x5346_414F => FileSystem::Untrusted("AFS"),
        0x0BD0_0BD0 => FileSystem::Untrusted("Lustre"),
        magic => FileSystem::Unknown(magic),
    }
}

/// What [`refuse_untrusted`] takes.
pub(super) const FILE_SYSTEMS: &str = "ext4, XFS, Btrfs, ZFS, F2FS or bcachefs";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_and_unknown_ones_are_not_trusted() {
        for magic in [0x6969, 0x517B, 0x6573_5546, 0x0102_1997, 0x00C3_6400] {
            let found = file_system(magic);
            assert!(
                matches!(found, FileSystem::Untrusted(_)),
                "{magic:#x}: {found:?}"
            );
        }
        assert_eq!(file_system(0x9FA0), FileSystem::Unknown(0x9FA0), "/proc");
        for magic in [0xEF53, 0x5846_5342, 0x9123_683E, 0x2FC1_2FC1] {
            assert_eq!(file_system(magic), FileSystem::Disk);
        }
    }
}
