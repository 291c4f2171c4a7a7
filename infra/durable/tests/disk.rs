//! The real disk and the fault disk answer alike, so that what passes on one holds on the other.
#![allow(clippy::unwrap_used)]

use std::io::{ErrorKind, IoSlice};
use std::path::Path;

use durable::{Disk, OpenMode, RealDisk, create_dir_durable};
use testkit::fault_disk::{FaultDisk, Loss, Operation};

fn kind<T>(result: std::io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

fn behaves_like_a_file_system(disk: &dyn Disk, root: &Path) {
    let dir = root.join("a/b");
    assert_eq!(kind(disk.read_dir(&dir)), Some(ErrorKind::NotFound));
    create_dir_durable(disk, &dir).unwrap();
    create_dir_durable(disk, &dir).unwrap();
    let (one, two, three) = (dir.join("one"), dir.join("two"), dir.join("three"));
    for mode in [OpenMode::Read, OpenMode::Write] {
        assert_eq!(kind(disk.open(&one, mode)), Some(ErrorKind::NotFound));
    }
    assert_eq!(
        kind(disk.open(&root.join("x/y"), OpenMode::Create)),
        Some(ErrorKind::NotFound)
    );
    let file = disk.open(&one, OpenMode::CreateNew).unwrap();
    assert_eq!(
        kind(disk.open(&one, OpenMode::CreateNew)),
        Some(ErrorKind::AlreadyExists)
    );
    assert!(file.is_empty().unwrap());

    let parts = [&b""[..], b"hello", b"", b" world"].map(IoSlice::new);
    file.write_all_at(&parts, 2).unwrap();
    file.write_all_at(&[], 2).unwrap();
    let mut bytes = [1; 20];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), 13);
    assert_eq!(&bytes[..13], b"\0\0hello world");
    assert_eq!(file.read_at(&mut bytes, 13).unwrap(), 0);
    assert_eq!(
        kind(file.read_exact_at(&mut bytes, 0)),
        Some(ErrorKind::UnexpectedEof)
    );
    file.set_len(4).unwrap();
    file.set_len(6).unwrap();
    file.read_exact_at(&mut bytes[..6], 0).unwrap();
    assert_eq!(&bytes[..6], b"\0\0he\0\0");
    file.allocate_zeroed(5).unwrap();
    assert_eq!(file.len().unwrap(), 5);
    file.read_exact_at(&mut bytes[..5], 0).unwrap();
    assert_eq!(bytes[..5], [0; 5]);
    file.sync_data().unwrap();
    file.sync_all().unwrap();

    disk.link(&one, &two).unwrap();
    assert_eq!(kind(disk.link(&one, &two)), Some(ErrorKind::AlreadyExists));
    let (first, second) = (disk.metadata(&one).unwrap(), disk.metadata(&two).unwrap());
    assert_eq!((first.links, first.len, first.is_dir), (2, 5, false));
    assert_eq!(first, second);
    disk.rename(&two, &three).unwrap();
    assert_eq!(kind(disk.rename(&two, &three)), Some(ErrorKind::NotFound));
    disk.remove_file(&one).unwrap();
    assert_eq!(kind(disk.remove_file(&one)), Some(ErrorKind::NotFound));
    assert_eq!(disk.metadata(&three).unwrap().links, 1);
    assert_eq!(disk.read_dir(&dir).unwrap(), ["three"]);
    assert_eq!(
        kind(disk.remove_dir(&dir)),
        Some(ErrorKind::DirectoryNotEmpty)
    );
    disk.sync_dir(&dir).unwrap();

    disk.rename(&dir, &root.join("moved")).unwrap();
    assert!(disk.exists(&root.join("moved/three")).unwrap() && !disk.exists(&three).unwrap());
    let open = disk.open(&root.join("moved/three"), OpenMode::Read);
    open.unwrap().sync_fs().unwrap();
    disk.remove_file(&root.join("moved/three")).unwrap();
    disk.remove_dir(&root.join("moved")).unwrap();
    assert!(disk.metadata(&root.join("a")).unwrap().is_dir);
}

#[test]
fn the_real_disk_behaves_like_a_file_system() {
    let root = tempfile::tempdir().unwrap();
    behaves_like_a_file_system(&RealDisk, root.path());
}

#[test]
fn the_fault_disk_behaves_like_a_file_system() {
    behaves_like_a_file_system(&FaultDisk::new(0), Path::new("/"));
}

#[test]
fn without_a_sync_the_fault_disk_loses_contents_and_names() {
    let path = Path::new("/dir/file");
    // Neither the folder's name, nor the file's, nor the contents survive unless each was synced.
    for (sync_root, sync_dir, sync_file) in [
        (true, true, true),
        (false, true, true),
        (true, false, true),
        (true, true, false),
    ] {
        let disk = FaultDisk::new(0);
        disk.create_dir_all(Path::new("/dir")).unwrap();
        let file = disk.open(path, OpenMode::Create).unwrap();
        file.write_all_at(&[IoSlice::new(b"bytes")], 0).unwrap();
        if sync_root {
            disk.sync_dir(Path::new("/")).unwrap();
        }
        if sync_dir {
            disk.sync_dir(Path::new("/dir")).unwrap();
        }
        if sync_file {
            file.sync_data().unwrap();
        }
        disk.power_on(Loss::Lost);
        assert!(file.len().is_err(), "a file opened before the cut is dead");
        assert_eq!(disk.exists(path).unwrap(), sync_root && sync_dir);
        if sync_root && sync_dir {
            assert_eq!(disk.bytes(path) == b"bytes", sync_file);
        }
    }
}

#[test]
fn after_a_failed_sync_the_next_one_succeeds_and_saves_nothing() {
    let disk = FaultDisk::new(0);
    let file = disk.open(Path::new("/file"), OpenMode::Create).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    file.write_all_at(&[IoSlice::new(b"bytes")], 0).unwrap();
    disk.fail(Operation::Sync, 0, ErrorKind::Other);
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    disk.power_on(Loss::Torn);
    assert_eq!(disk.bytes(Path::new("/file")), b"");
}
