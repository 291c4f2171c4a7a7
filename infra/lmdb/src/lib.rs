//! Opens LMDB environments safely.
//!
//! This is the only package of the workspace in which `unsafe` is allowed, and opening is the only use it has for it.
//! It knows no tables and no mail: it hands out a [`heed`] environment (re-exported here) that was opened with the
//! choices every environment of ours shares:
//!
//! - A large map is reserved once and never resized, because resizing under a running transaction is undefined
//!   behaviour. Address space is all it costs: the file stays as small as its content.
//! - Read transactions do not use thread-local storage: LMDB takes a `pthread` key per environment otherwise, and a
//!   process has 1024 of those.
//! - Every commit is synced. `MDB_NOSYNC` and `MDB_WRITEMAP` can corrupt after a power cut and are not offered. Who has
//!   what an environment says elsewhere too may let a power cut undo the last commit ([`Options::may_lose_last`]).
//!
//! A transaction is only taken through [`with_read`] and [`with_write`], or in closures like theirs, on a thread that may
//! block: a read transaction held across an `await` pins every page freed since, and the compiler does not stop it.

#[cfg(not(target_pointer_width = "64"))]
compile_error!("the index reserves large maps and needs a 64-bit address space");

use std::convert::Infallible;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::{fs, io};

pub use heed;
use heed::{
    CommitOrAbort, DatabaseOpener, EnvFlags, EnvOpenOptions, MdbError, OnCommit, RoTxn, RwTxn,
    WithoutTls,
};

/// An open environment; clones share it, and the last one dropped closes it.
pub type Env = heed::Env<WithoutTls>;

/// How an environment is opened.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Address space reserved for the map, in bytes: the size the data can ever reach until the next open. Rounded up
    /// to 64 KiB, which is a multiple of every page size we run on.
    pub map_size_bytes: usize,
    /// Read transactions that may be open at one time.
    pub readers_max: u32,
    /// Named databases in the environment.
    pub databases_max: u32,
    /// A commit syncs its pages but not the one that names them, which is half the wait: a power cut may undo the last
    /// commit, and nothing else (`MDB_NOMETASYNC`). For a view of something durable; [`sync`] before that is let go.
    pub may_lose_last: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            // A process can map 128 TiB: room for hundreds of environments, each larger than the index of a million
            // accounts (about 100 bytes a message).
            map_size_bytes: 256 << 30,
            // Twice the blocking threads tokio starts at most (512). LMDB's own default of 126 is too few.
            readers_max: 1024,
            // More than about eight cost every transaction time: LMDB copies the table of handles.
            databases_max: 16,
            may_lose_last: false,
        }
    }
}

/// Why an environment could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// This process has the same folder open already; two maps of one environment break LMDB's locks.
    #[error("open the index {path}: this process has it open already")]
    AlreadyOpen {
        /// The environment's folder.
        path: PathBuf,
    },
    /// The folder could not be made or reached.
    #[error("open the index {path}: create the folder")]
    Folder {
        /// The environment's folder.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The table of readers could not be written, on a full disk for example.
    #[error("open the index {path}: write its table of readers")]
    Readers {
        /// The environment's folder.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// `data.mdb` is not LMDB's, or of a version or page size that this build does not read. Nothing was changed.
    #[error("open the index {path}: data.mdb there is not an LMDB file this build can read")]
    Foreign {
        /// The environment's folder.
        path: PathBuf,
        /// What LMDB answered.
        source: heed::Error,
    },
    /// Anything else: no permission, no memory, a damaged page.
    #[error("open the index {path}")]
    Lmdb {
        /// The environment's folder.
        path: PathBuf,
        /// What LMDB answered.
        source: heed::Error,
    },
}

impl OpenError {
    /// Whether it may go well once the disk has room.
    #[must_use]
    pub fn is_no_room(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        let answer = match self {
            OpenError::Folder { source, .. } | OpenError::Readers { source, .. } => source,
            OpenError::Lmdb {
                source: heed::Error::Io(source),
                ..
            } => source,
            _ => return false,
        };
        matches!(answer.kind(), StorageFull | QuotaExceeded)
    }

    /// Whether the files themselves are the cause, so that no later try can succeed.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        use MdbError::{Corrupted, PageNotFound, Panic};
        match self {
            OpenError::Foreign { .. } => true,
            OpenError::Lmdb { source, .. } => {
                matches!(source, heed::Error::Mdb(Corrupted | PageNotFound | Panic))
            }
            OpenError::AlreadyOpen { .. }
            | OpenError::Folder { .. }
            | OpenError::Readers { .. } => false,
        }
    }
}

/// Opens the environment in the folder `path`, both made when absent.
///
/// The folder must be on a local file system and belong to this service alone: nothing else may write or cut
/// `data.mdb` while it is open. The caller holds the lock that keeps a second process out.
///
/// # Errors
/// See [`OpenError`]; nothing was changed, except that the folder may now exist.
pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Env, OpenError> {
    let path = path.as_ref();
    fs::create_dir_all(path).map_err(|source| OpenError::Folder {
        path: path.into(),
        source,
    })?;
    reserve_readers(path, options.readers_max).map_err(|source| OpenError::Readers {
        path: path.into(),
        source,
    })?;
    let mut builder = EnvOpenOptions::new().read_txn_without_tls();
    builder
        .map_size(options.map_size_bytes.next_multiple_of(MAP_SIZE_UNIT_BYTES))
        .max_readers(options.readers_max)
        .max_dbs(options.databases_max);
    if options.may_lose_last {
        // SAFETY: With this flag the map is as sound as without: it leaves out one sync of the file and nothing else.
        unsafe { builder.flags(EnvFlags::NO_META_SYNC) };
    }
    // SAFETY: The map is sound as long as its file changes only through LMDB and LMDB's locks hold. We set none of the
    // flags that weaken them (no NOLOCK, NOSYNC or WRITEMAP); heed refuses a second open of the same canonical path in
    // this process, which would drop the POSIX locks of the first; no code of ours opens `data.mdb` or `lock.mdb` by
    // itself; nobody resizes the map. That the folder is local and ours alone is the documented demand on the caller.
    let opened = unsafe { builder.open(path) };
    let env = opened.map_err(|source| match source {
        heed::Error::EnvAlreadyOpened => OpenError::AlreadyOpen { path: path.into() },
        heed::Error::Mdb(MdbError::Invalid | MdbError::VersionMismatch) => OpenError::Foreign {
            path: path.into(),
            source,
        },
        source => OpenError::Lmdb {
            path: path.into(),
            source,
        },
    })?;
    // A process killed inside a read leaves its slot behind, which would pin old pages for ever.
    env.clear_stale_readers()
        .map_err(|source| OpenError::Lmdb {
            path: path.into(),
            source,
        })?;
    Ok(env)
}

/// Writes the whole of `lock.mdb` before it is mapped. LMDB makes it with a hole, and whoever is the first to use a slot
/// of it on a full disk would be killed (SIGBUS), the process with him.
fn reserve_readers(path: &Path, readers_max: u32) -> io::Result<()> {
    // To open and close the file of an environment that is open here would drop its locks.
    if heed::env_closing_event(path.canonicalize()?).is_some() {
        return Ok(());
    }
    // A slot is a cache line, and the head less than eight of them.
    let octets = ((readers_max as usize + 8) * CACHE_LINE_BYTES).next_multiple_of(PAGE_BYTES);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path.join("lock.mdb"))?;
    let is_written = |found: &fs::Metadata| {
        found.len() >= octets as u64 && found.blocks() * BLOCK_BYTES >= found.len()
    };
    if is_written(&file.metadata()?) {
        return Ok(());
    }
    // LMDB fills it in anew when nobody else has it open.
    file.write_all_at(&vec![0; octets], 0)
}

/// Opens named databases, making those that are absent, in one transaction of its own. Do this once, after [`open`].
///
/// # Errors
/// What `make` or the commit answered; then no database was made.
pub fn create_databases<'a, D, E>(
    env: &'a Env,
    make: impl FnOnce(&DatabaseOpener<'a, WithoutTls>, &mut RwTxn<'a>) -> Result<D, E>,
) -> Result<D::Committed, E>
where
    D: OnCommit,
    E: From<heed::Error>,
{
    let outcome = env.create_databases_and_commit(env.write_txn()?, |opener, txn| {
        make(opener, txn).map(CommitOrAbort::<D, Infallible>::Commit)
    })?;
    Ok(outcome.unwrap_commit())
}

/// Runs `read` over one unchanging snapshot. Blocking; keep it short, what it sees is pinned on disk meanwhile.
///
/// # Errors
/// What `read` answered, or that no reader slot is free.
pub fn with_read<R, E: From<heed::Error>>(
    env: &Env,
    read: impl FnOnce(&RoTxn<'_, WithoutTls>) -> Result<R, E>,
) -> Result<R, E> {
    read(&env.read_txn()?)
}

/// Runs `write` in the environment's one write transaction and commits what it did, durably ([`Options::may_lose_last`]
/// apart), when it answers `Ok`.
/// Blocking; waits for another writer.
///
/// # Errors
/// What `write` or the commit answered; then nothing was written.
pub fn with_write<R, E: From<heed::Error>>(
    env: &Env,
    write: impl FnOnce(&mut RwTxn<'_>) -> Result<R, E>,
) -> Result<R, E> {
    let mut txn = env.write_txn()?;
    let result = write(&mut txn)?;
    txn.commit()?;
    Ok(result)
}

/// Makes every commit until now durable, where [`Options::may_lose_last`] leaves that open. Blocking.
///
/// # Errors
/// What the sync answered.
pub fn sync(env: &Env) -> heed::Result<()> {
    env.force_sync()
}

/// How much of the map is in use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// What the map can hold, in bytes.
    pub map_bytes: u64,
    /// What the file holds, pages given back included.
    pub file_bytes: u64,
    /// Pages given back, to be written anew before the file grows, in bytes. The pages that list them are among them.
    pub free_bytes: u64,
}

/// How much of the map is in use by these databases, which are all there are. Costs a page or so for each.
///
/// # Errors
/// What LMDB answered.
pub fn usage<'d, K: 'static, V: 'static>(
    env: &Env,
    databases: impl IntoIterator<Item = heed::Database<'d, K, V>>,
) -> heed::Result<Usage> {
    let txn = env.read_txn()?;
    let info = env.info();
    let main = env.unnamed_database_stat();
    let page_bytes = u64::from(main.page_size);
    // Two pages name the rest.
    let mut used = main.non_free_page_size() as u64 + 2 * page_bytes;
    for database in databases {
        used += database.stat(&txn)?.non_free_page_size() as u64;
    }
    let file_bytes = (info.last_page_number as u64 + 1) * page_bytes;
    Ok(Usage {
        map_bytes: info.map_size as u64,
        file_bytes,
        free_bytes: file_bytes.saturating_sub(used),
    })
}

/// 64 KiB is the largest page size of the systems we run on (arm64).
const MAP_SIZE_UNIT_BYTES: usize = 64 << 10;
const CACHE_LINE_BYTES: usize = 64;
const PAGE_BYTES: usize = 4096;
/// The unit of `st_blocks`, whatever the file system's own.
const BLOCK_BYTES: u64 = 512;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::thread;

    use heed::Database;
    use heed::types::{Bytes, Str};

    use super::*;

    type Table = Database<'static, Str, Bytes>;

    fn table(env: &Env) -> Table {
        create_databases(env, |opener, txn| {
            opener.create_database::<Str, Bytes>(txn, Some("t"))
        })
        .unwrap()
    }

    fn put(env: &Env, table: Table, key: &str) -> heed::Result<()> {
        with_write(env, |txn| table.put(txn, key, b"value"))
    }

    #[test]
    fn what_was_written_is_there_after_closing_and_opening_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made/by/open");
        let env = open(&path, Options::default()).unwrap();
        put(&env, table(&env), "key").unwrap();
        env.prepare_for_closing().wait();
        let env = open(&path, Options::default()).unwrap();
        let table = table(&env);
        let found: heed::Result<_> =
            with_read(&env, |txn| Ok(table.get(txn, "key")?.map(<[u8]>::to_vec)));
        assert_eq!(found.unwrap().unwrap(), b"value");
    }

    #[test]
    fn a_second_open_in_the_same_process_is_refused_under_any_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let _env = open(&path, Options::default()).unwrap();
        let other_name = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &other_name).unwrap();
        for path in [&path, &other_name] {
            let again = open(path, Options::default());
            assert!(
                matches!(again, Err(OpenError::AlreadyOpen { .. })),
                "{again:?}"
            );
        }
    }

    #[test]
    fn a_write_that_answers_an_error_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let env = open(dir.path(), Options::default()).unwrap();
        let table = table(&env);
        let refused: heed::Result<()> = with_write(&env, |txn| {
            table.put(txn, "key", b"value")?;
            Err(io::Error::other("changed my mind").into())
        });
        assert!(refused.is_err());
        let count: heed::Result<u64> = with_read(&env, |txn| table.len(txn));
        assert_eq!(count.unwrap(), 0);
    }

    #[test]
    fn a_foreign_file_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let text = b"this is somebody else's file\n".repeat(1000);
        fs::write(dir.path().join("data.mdb"), &text).unwrap();
        let refused = open(dir.path(), Options::default());
        assert!(
            matches!(refused, Err(OpenError::Foreign { .. })),
            "{refused:?}"
        );
        assert_eq!(fs::read(dir.path().join("data.mdb")).unwrap(), text);
    }

    #[test]
    fn one_thread_holds_many_readers_and_the_map_is_sparse() {
        let dir = tempfile::tempdir().unwrap();
        let env = open(dir.path(), Options::default()).unwrap();
        let table = table(&env);
        let readers: Vec<_> = (0..1000).map(|_| env.read_txn().unwrap()).collect();
        thread::scope(|scope| {
            scope.spawn(|| put(&env, table, "key").unwrap());
        });
        assert!(
            readers
                .iter()
                .all(|reader| table.get(reader, "key").unwrap().is_none())
        );
        let data = fs::metadata(dir.path().join("data.mdb")).unwrap();
        assert!(data.len() < 1 << 20 && data.blocks() * 512 < 1 << 20);
    }

    #[test]
    fn the_table_of_readers_has_its_room_before_a_disk_can_be_full() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock.mdb");
        for round in 0..3 {
            let env = open(dir.path(), Options::default()).unwrap();
            let readers: Vec<_> = (0..1024).map(|_| env.read_txn().unwrap()).collect();
            let found = fs::metadata(&path).unwrap();
            assert!(found.blocks() * BLOCK_BYTES >= found.len(), "round {round}");
            assert!(found.len() >= 64 << 10);
            drop(readers);
            env.prepare_for_closing().wait();
            if round == 1 {
                // As LMDB left it before.
                let file = File::create(&path).unwrap();
                file.set_len(64 << 10).unwrap();
            }
        }
    }

    #[test]
    fn what_is_given_back_is_free_and_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let env = open(dir.path(), Options::default()).unwrap();
        let table = table(&env);
        let big = vec![1; 4000];
        let fill = |env: &Env| {
            for number in 0..256 {
                let key = format!("{number}");
                let put: heed::Result<()> = with_write(env, |txn| table.put(txn, &key, &big));
                put.unwrap();
            }
        };
        fill(&env);
        let full = usage(&env, [table]).unwrap();
        assert_eq!(full.map_bytes, 256 << 30);
        assert!(full.file_bytes > 1 << 20 && full.free_bytes < full.file_bytes / 2);
        let cleared: heed::Result<()> = with_write(&env, |txn| table.clear(txn));
        cleared.unwrap();
        let empty = usage(&env, [table]).unwrap();
        assert!(empty.free_bytes > 1 << 20, "{empty:?}");
        fill(&env);
        let again = usage(&env, [table]).unwrap();
        assert!(
            again.file_bytes < full.file_bytes * 3 / 2,
            "{full:?} {again:?}"
        );
    }

    #[test]
    fn a_full_map_is_an_error_and_not_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        let env = open(
            dir.path(),
            Options {
                map_size_bytes: 1 << 20,
                ..Options::default()
            },
        )
        .unwrap();
        let table = table(&env);
        let full: heed::Result<()> =
            with_write(&env, |txn| table.put(txn, "key", &vec![0; 2 << 20]));
        assert!(
            matches!(full, Err(heed::Error::Mdb(MdbError::MapFull))),
            "{full:?}"
        );
        put(&env, table, "small").unwrap();
    }
}
