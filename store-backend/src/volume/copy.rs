//! The copy of the index: every row but the cards, in one file beside it, verified before it counts.
//!
//! It is rows and not LMDB's pages, so that it can be read whatever has become of the index, shows that each row of the
//! index could be read, and goes through the disk seam like all else that must outlive a power cut. A transaction is held
//! while it is made: it is the index at one instant.
//!
//! ```text
//! kept/index.copy      the newest whole one: it takes this name when it was synced and read back
//!
//! header (64)                           block (16, then its rows, as zlib makes them)
//!  0  magic "PHCOPY01"                   0  octets behind this            u32
//!  8  version, 2              u32        4  octets of the rows            u32
//! 12  0                       u32        8  check of the octets behind    8
//! 16  last record in it       u64          unpacked: table: length u8, name
//! 24  made at, milliseconds   i64           then for each row: key length u16, value length u32, key, value
//! 32  incarnation, text       32
//!                                       the last block has a table without name, and behind it
//!                                       for each table: length u8, name, rows u64; then the BLAKE3 of all before it
//! ```
//!
//! In version 1 the rows stand as they are, and the octets at 4 are zero.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::path::{Path, PathBuf};

use durable::{Disk, DiskFile, Lsn, OpenMode, create_dir_durable};
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use lmdb::heed;

use super::error::IndexError;
use super::index::{Index, Meta};
use super::kept_log::{check, fixed};

/// What the first octets of a copy say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CopyHead {
    /// The last record in it.
    pub(super) applied: Lsn,
    pub(super) made_ms: i64,
}

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub(super) enum CopyError {
    #[error("{action} {path}")]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("read {path}: {what}")]
    Damaged { path: PathBuf, what: &'static str },
    #[error(
        "no room for another beside the last one: {free} octets are free, {needed} are needed; delete something or enlarge the disk"
    )]
    NoRoom { free: u64, needed: u64 },
    #[error("the volume is closed")]
    Stopped,
}

impl From<heed::Error> for CopyError {
    fn from(error: heed::Error) -> Self {
        Self::Index(error.into())
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CopyError {
    let path = path.to_owned();
    move |source| CopyError::Io {
        action,
        path,
        source,
    }
}

/// Makes a copy, verifies it, and only then puts it in the place of the one before.
pub(super) fn make(
    index: &Index,
    disk: &dyn Disk,
    folder: &Path,
    incarnation: &str,
    now_ms: i64,
    stops: &dyn Fn() -> Result<(), CopyError>,
) -> Result<CopyHead, CopyError> {
    create_dir_durable(disk, folder).map_err(failed("create", folder))?;
    let (new, path) = (folder.join(NEW_FILE), path(folder));
    let made = make_new(index, disk, &new, incarnation, now_ms, stops).and_then(|head| {
        disk.rename(&new, &path)
            .map_err(failed("rename to", &path))?;
        Ok(head)
    });
    if made.is_err() {
        // Its room is needed elsewhere.
        let _ = disk.remove_file(&new);
    }
    let head = made?;
    disk.sync_dir(folder).map_err(failed("sync", folder))?;
    Ok(head)
}

/// Writes one under another name, synced and verified.
fn make_new(
    index: &Index,
    disk: &dyn Disk,
    new: &Path,
    incarnation: &str,
    now_ms: i64,
    stops: &dyn Fn() -> Result<(), CopyError>,
) -> Result<CopyHead, CopyError> {
    let file = disk.open(new, OpenMode::Create);
    let file = file.map_err(failed("create", new))?;
    file.set_len(0).map_err(failed("cut", new))?;
    let mut out = Out {
        file: &*file,
        path: new,
        offset: 0,
        hasher: blake3::Hasher::new(),
        rows: Vec::new(),
        packed: Vec::new(),
        stops,
    };
    let (head, counts) = index.read(|txn| {
        let head = CopyHead {
            applied: index.lsn(txn, Meta::Applied)?,
            made_ms: now_ms,
        };
        out.write(&header(VERSION, head, &fixed(incarnation)))?;
        let mut counts = Vec::new();
        for (name, table) in index
            .tables()
            .into_iter()
            .filter(|(name, _)| *name != CARDS)
        {
            let mut count = 0_u64;
            for row in table.iter(txn)? {
                let (key, value) = row?;
                out.row(name, key, value)?;
                count += 1;
            }
            if count != table.len(txn)? {
                return Err(IndexError::Contradiction("a row").into());
            }
            out.block()?;
            counts.push((name, count));
        }
        out.end(&counts)?;
        Ok::<_, CopyError>((head, counts))
    })?;
    file.sync_all().map_err(failed("sync", new))?;
    drop(file);
    // Read back whole: a copy that cannot be read is found now, while there is an index and an older copy.
    let mut found = Vec::<(String, u64)>::new();
    let read = read(disk, new, incarnation, |table, _, _| {
        match found.last_mut() {
            Some((last, count)) if last == table => *count += 1,
            _ => found.push((table.to_owned(), 1)),
        }
        stops()
    })?;
    let wanted = counts.iter().filter(|(_, count)| *count > 0);
    let is_same = wanted
        .map(|(name, count)| (*name, *count))
        .eq(found.iter().map(|(name, count)| (&**name, *count)));
    if read != head || !is_same {
        let (path, what) = (new.to_owned(), "it has other rows than the index");
        return Err(CopyError::Damaged { path, what });
    }
    Ok(head)
}

struct Out<'f> {
    file: &'f dyn DiskFile,
    path: &'f Path,
    offset: u64,
    hasher: blake3::Hasher,
    /// Of the block that is being made, with the table before them.
    rows: Vec<u8>,
    /// Empty memory for them packed.
    packed: Vec<u8>,
    stops: &'f dyn Fn() -> Result<(), CopyError>,
}

impl Out<'_> {
    fn write(&mut self, octets: &[u8]) -> Result<(), CopyError> {
        self.hasher.update(octets);
        let written = self.file.write_all_at(&[IoSlice::new(octets)], self.offset);
        written.map_err(failed("write", self.path))?;
        self.offset += octets.len() as u64;
        Ok(())
    }

    fn row(&mut self, table: &str, key: &[u8], value: &[u8]) -> Result<(), CopyError> {
        if self.rows.is_empty() {
            put_name(&mut self.rows, table);
        }
        let key_octets = u16::try_from(key.len()).expect("LMDB's keys are short");
        let value_octets = u32::try_from(value.len()).expect("LMDB's values are below 4 GiB");
        self.rows.extend_from_slice(&key_octets.to_le_bytes());
        self.rows.extend_from_slice(&value_octets.to_le_bytes());
        self.rows.extend_from_slice(key);
        self.rows.extend_from_slice(value);
        match self.rows.len() >= BLOCK_OCTETS {
            true => self.block(),
            false => Ok(()),
        }
    }

    fn block(&mut self) -> Result<(), CopyError> {
        (self.stops)()?;
        if self.rows.is_empty() {
            return Ok(());
        }
        let mut header = [0; BLOCK_HEADER_OCTETS];
        let count = |octets: &[u8]| u32::try_from(octets.len()).expect("a block is small");
        header[4..8].copy_from_slice(&count(&self.rows).to_le_bytes());
        let mut packed = ZlibEncoder::new(std::mem::take(&mut self.packed), Compression::fast());
        let written = packed.write_all(&self.rows);
        let packed = written.and_then(|()| packed.finish());
        let mut packed = packed.map_err(failed("pack a block of", self.path))?;
        header[..4].copy_from_slice(&count(&packed).to_le_bytes());
        header[8..].copy_from_slice(&check(&[&packed]));
        self.write(&header)?;
        self.write(&packed)?;
        packed.clear();
        self.packed = packed;
        self.rows.clear();
        Ok(())
    }

    fn end(&mut self, counts: &[(&str, u64)]) -> Result<(), CopyError> {
        put_name(&mut self.rows, "");
        for (table, count) in counts {
            put_name(&mut self.rows, table);
            self.rows.extend_from_slice(&count.to_le_bytes());
        }
        let hash = self.hasher.finalize();
        self.rows.extend_from_slice(hash.as_bytes());
        self.block()
    }
}

fn put_name(out: &mut Vec<u8>, name: &str) {
    out.push(u8::try_from(name.len()).expect("names of tables are short"));
    out.extend_from_slice(name.as_bytes());
}

/// Hands over every row: table, key, value. Only what it answers in the end says that they are all there and right.
pub(super) fn read<E: From<CopyError>>(
    disk: &dyn Disk,
    path: &Path,
    incarnation: &str,
    mut each: impl FnMut(&str, &[u8], &[u8]) -> Result<(), E>,
) -> Result<CopyHead, E> {
    let damaged = |what| CopyError::Damaged {
        path: path.to_owned(),
        what,
    };
    let file = disk.open(path, OpenMode::Read);
    let file = file.map_err(failed("open", path))?;
    let mut bytes = vec![0; HEADER_OCTETS];
    let mut offset = 0;
    let mut hasher = blake3::Hasher::new();
    let mut read = |bytes: &mut [u8]| {
        let read = file.read_exact_at(bytes, offset);
        offset += bytes.len() as u64;
        read.map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => damaged("it ends too early"),
            _ => failed("read", path)(source),
        })
    };
    read(&mut bytes)?;
    let head =
        head_of(&bytes, &fixed(incarnation)).ok_or_else(|| damaged("it is none of this volume"))?;
    hasher.update(&bytes);
    let mut counts: Vec<(String, u64)> = Vec::new();
    let mut unpacked = Vec::new();
    loop {
        let mut header = [0; BLOCK_HEADER_OCTETS];
        read(&mut header)?;
        let octets = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let row_octets = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        if octets.max(row_octets) > BLOCK_MAX_OCTETS {
            return Err(damaged("a block is too long").into());
        }
        bytes.resize(octets, 0);
        read(&mut bytes)?;
        if header[8..] != check(&[&bytes]) {
            return Err(damaged("a block has another check").into());
        }
        let mut rest = match row_octets {
            0 => &bytes[..],
            _ => {
                unpacked.resize(row_octets, 0);
                let mut packed = ZlibDecoder::new(&bytes[..]);
                let read = packed.read_exact(&mut unpacked);
                read.map_err(|_| damaged("a block cannot be unpacked"))?;
                &unpacked[..]
            }
        };
        let table = take_name(&mut rest).ok_or_else(|| damaged("a block names no table"))?;
        if table.is_empty() {
            let told = ending(rest).ok_or_else(|| damaged("its end is malformed"))?;
            let (told_counts, hash) = told;
            let told_counts: Vec<_> = told_counts
                .into_iter()
                .filter(|(_, rows)| *rows > 0)
                .collect();
            if hash != *hasher.finalize().as_bytes() || told_counts != counts {
                return Err(damaged("it has other rows than its end says").into());
            }
            return Ok(head);
        }
        hasher.update(&header);
        hasher.update(&bytes);
        if counts.last().is_none_or(|(last, _)| last != table) {
            counts.push((table.to_owned(), 0));
        }
        while !rest.is_empty() {
            let (key, value) = take_row(&mut rest).ok_or_else(|| damaged("a row is malformed"))?;
            counts.last_mut().expect("it was pushed").1 += 1;
            each(table, key, value)?;
        }
    }
}

/// The head of the newest copy, if there is one; nothing behind it was looked at.
pub(super) fn head(
    disk: &dyn Disk,
    folder: &Path,
    incarnation: &str,
) -> io::Result<Option<CopyHead>> {
    let mut bytes = [0; HEADER_OCTETS];
    let file = match disk.open(&path(folder), OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => Ok(head_of(&bytes, &fixed(incarnation))),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where the newest copy lies.
pub(super) fn path(folder: &Path) -> PathBuf {
    folder.join("index.copy")
}

fn header(version: u32, head: CopyHead, incarnation: &[u8; 32]) -> [u8; HEADER_OCTETS] {
    let mut header = [0; HEADER_OCTETS];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&version.to_le_bytes());
    header[16..24].copy_from_slice(&head.applied.0.to_le_bytes());
    header[24..32].copy_from_slice(&head.made_ms.to_le_bytes());
    header[32..].copy_from_slice(incarnation);
    header
}

fn head_of(bytes: &[u8], incarnation: &[u8; 32]) -> Option<CopyHead> {
    let eight = |at: usize| bytes[at..at + 8].try_into().expect("eight octets");
    let head = CopyHead {
        applied: Lsn(u64::from_le_bytes(eight(16))),
        made_ms: i64::from_le_bytes(eight(24)),
    };
    let is_known = |version| bytes == header(version, head, incarnation);
    (1..=VERSION).any(is_known).then_some(head)
}

fn take_name<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let (octets, behind) = rest.split_first()?;
    let (name, behind) = behind.split_at_checked(usize::from(*octets))?;
    *rest = behind;
    std::str::from_utf8(name).ok()
}

fn take_row<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (sizes, behind) = rest.split_first_chunk::<6>()?;
    let key_octets = u16::from_le_bytes([sizes[0], sizes[1]]);
    let value_octets = u32::from_le_bytes([sizes[2], sizes[3], sizes[4], sizes[5]]);
    let (key, behind) = behind.split_at_checked(usize::from(key_octets))?;
    let (value, behind) = behind.split_at_checked(value_octets as usize)?;
    *rest = behind;
    Some((key, value))
}

/// Rows by table.
type Counts = Vec<(String, u64)>;

fn ending(mut rest: &[u8]) -> Option<(Counts, [u8; 32])> {
    let mut counts = Vec::new();
    while rest.len() > 32 {
        let table = take_name(&mut rest)?.to_owned();
        let (count, behind) = rest.split_first_chunk::<8>()?;
        counts.push((table, u64::from_le_bytes(*count)));
        rest = behind;
    }
    Some((counts, rest.try_into().ok()?))
}

/// Made again from the blobs when they are asked for.
const CARDS: &str = "cards";
const VERSION: u32 = 2;
const MAGIC: &[u8; 8] = b"PHCOPY01";
const NEW_FILE: &str = "copy.new";
const HEADER_OCTETS: usize = 64;
const BLOCK_HEADER_OCTETS: usize = 16;
/// A block ends with the row that makes it this long.
const BLOCK_OCTETS: usize = 256 << 10;
/// The longest row, a list of rights or an annotation of 64 KiB, fits many times.
const BLOCK_MAX_OCTETS: usize = 64 << 20;
