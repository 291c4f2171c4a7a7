//! The kept log: the journal's records without the bodies, for as long as no copy of the index has them.
//!
//! The files thread adds each record when it has made its files, and writes what it has added before a checkpoint syncs
//! the file system. So at every point of time the records up to the checkpoint are durable here, and only those may the
//! journal forget: an index that is lost is the last copy ([`super::copy`]), this log from there on, and the journal. No
//! delivery waits for it, and it costs no sync of its own.
//!
//! ```text
//! kept/<20 digits>.log    named by the first record in it; a few MiB each
//!
//! header (64)                           record (40, then the payload without its body)
//!  0  magic "PHKEPT01"                   0  octets behind this    u32
//!  8  version, 2              u32        4  kind                  u8, three zeros
//! 12  0                       u32        8  lsn                   u64
//! 16  first record            u64       16  place in the journal: segment, offset, length  3 × u32
//! 24  incarnation, text       32        28  octets of the payload, which then is packed as zlib does; else 0  u32
//! 56  check of the 56 octets  8         32  check of incarnation, header to here, the octets behind           8
//! ```
//!
//! Each record is packed by itself, so that the log ends anywhere: the trace lines of many recipients are mostly the same.
//! In version 1 none is packed; nothing is added to such a file.
//!
//! A check is the beginning of the BLAKE3. Numbers are little-endian. The incarnation is the volume's, so that a file of
//! another volume is not taken for one of this.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io::{self, IoSlice, Read as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use durable::{Disk, DiskFile, Lsn, OpenMode, Place, create_dir_durable};
use flate2::read::ZlibDecoder;
use flate2::{Compress, Compression, FlushCompress, Status};

use super::record::Record;

/// What of the log is being written.
pub(super) struct KeptLog {
    folder: PathBuf,
    incarnation: [u8; 32],
    /// The number of the next record to add.
    next: Lsn,
    file: Option<Open>,
    /// Added and not yet written.
    buffer: Vec<u8>,
    /// The first record in the buffer.
    buffered: Lsn,
    packer: Compress,
    /// Memory for one record, packed.
    packed: Vec<u8>,
}

struct Open {
    file: Box<dyn DiskFile>,
    len: u64,
}

/// One record of the log.
pub(super) struct KeptRecord<'a> {
    pub(super) lsn: Lsn,
    pub(super) kind: u8,
    pub(super) place: Place,
    pub(super) payload: Cow<'a, [u8]>,
}

impl KeptRecord<'_> {
    pub(super) fn decode(&self) -> Result<Record, super::codec::Malformed> {
        Record::decode_kept(self.kind, Bytes::copy_from_slice(&self.payload))
    }
}

impl KeptLog {
    /// Goes on behind record `done`, with which the files are known to be on disk. What is there of later ones was not, and
    /// goes: those records come again.
    pub(super) fn open(
        disk: &dyn Disk,
        folder: PathBuf,
        incarnation: &str,
        done: Lsn,
    ) -> io::Result<Self> {
        create_dir_durable(disk, &folder)?;
        let incarnation = fixed(incarnation);
        let mut log = Self {
            folder,
            incarnation,
            next: done.next(),
            file: None,
            buffer: Vec::new(),
            buffered: done.next(),
            packer: Compress::new(Compression::fast(), true),
            packed: Vec::new(),
        };
        let files = files(disk, &log.folder)?;
        for (first, path) in files.iter().rev() {
            if *first > done.next() {
                disk.remove_file(path)?;
                continue;
            }
            let (mut end, mut last) = (HEADER_OCTETS as u64, Lsn(first.0 - 1));
            let version = read_file(disk, path, &incarnation, *first, |record, ends| {
                if record.lsn <= done {
                    (end, last) = (ends, record.lsn);
                }
                Ok::<_, io::Error>(())
            })?;
            // Otherwise there is a hole: a new file begins behind it, and a copy of the index makes good for it.
            if version.is_some() && last == done {
                let file = disk.open(path, OpenMode::Write)?;
                file.set_len(end)?;
                if version == Some(VERSION) {
                    log.file = Some(Open { file, len: end });
                }
            } else if *first == done.next() {
                disk.remove_file(path)?;
            }
            break;
        }
        Ok(log)
    }

    /// Adds a record, without its body. Not written yet.
    pub(super) fn add(&mut self, lsn: Lsn, place: Place, kind: u8, payload: &[u8]) {
        if lsn != self.next {
            // Never, unless some could not be written.
            self.begin_anew(lsn);
        }
        let count =
            |octets: &[u8]| u32::try_from(octets.len()).expect("a record is below 2^32 octets");
        let mut header = [0; RECORD_OCTETS];
        let kept = if self.pack(payload) {
            header[28..32].copy_from_slice(&count(payload).to_le_bytes());
            &self.packed
        } else {
            payload
        };
        header[..4].copy_from_slice(&count(kept).to_le_bytes());
        header[4] = kind;
        header[8..16].copy_from_slice(&lsn.0.to_le_bytes());
        header[16..20].copy_from_slice(&place.segment.to_le_bytes());
        header[20..24].copy_from_slice(&place.offset.to_le_bytes());
        header[24..28].copy_from_slice(&place.len.to_le_bytes());
        let check = check(&[&self.incarnation, &header[..32], kept]);
        header[32..].copy_from_slice(&check);
        self.buffer.extend_from_slice(&header);
        self.buffer.extend_from_slice(kept);
        self.next = lsn.next();
    }

    /// Whether a payload is shorter packed, which it then is.
    fn pack(&mut self, payload: &[u8]) -> bool {
        if payload.len() < PACKED_MIN_OCTETS {
            return false;
        }
        self.packed.clear();
        self.packed.reserve(payload.len());
        self.packer.reset();
        // It writes no more than there is room for, and says whether that was all.
        let done = self
            .packer
            .compress_vec(payload, &mut self.packed, FlushCompress::Finish);
        matches!(done, Ok(Status::StreamEnd)) && self.packed.len() < payload.len()
    }

    /// Whether so much was added that it should be written before the next checkpoint.
    pub(super) fn is_full(&self) -> bool {
        self.buffer.len() >= BUFFER_OCTETS
    }

    /// Writes what was added; a sync of the file system makes it durable.
    ///
    /// # Errors
    /// What was added is forgotten: the log has a hole, and begins anew behind it.
    pub(super) fn write(&mut self, disk: &dyn Disk) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = self.write_buffer(disk);
        if written.is_err() {
            self.begin_anew(self.next);
        }
        self.buffer.clear();
        self.buffered = self.next;
        written
    }

    fn write_buffer(&mut self, disk: &dyn Disk) -> io::Result<()> {
        if self
            .file
            .as_ref()
            .is_some_and(|open| open.len >= FILE_OCTETS)
        {
            self.file = None;
        }
        let open = match &mut self.file {
            Some(open) => open,
            None => {
                let path = path_of(&self.folder, self.buffered);
                let file = disk.open(&path, OpenMode::Create)?;
                file.set_len(0)?;
                let header = header(VERSION, self.buffered, &self.incarnation);
                file.write_all_at(&[IoSlice::new(&header)], 0)?;
                let len = HEADER_OCTETS as u64;
                self.file.insert(Open { file, len })
            }
        };
        open.file
            .write_all_at(&[IoSlice::new(&self.buffer)], open.len)?;
        open.len += self.buffer.len() as u64;
        Ok(())
    }

    fn begin_anew(&mut self, lsn: Lsn) {
        // What may be there of it in part is not whole, which its check tells.
        (self.file, self.next, self.buffered) = (None, lsn, lsn);
        self.buffer.clear();
    }
}

/// Hands over every record behind `from` for as long as there is no hole; answers the last one.
///
/// # Errors
/// What `each` answered, or that a file cannot be read.
pub(super) fn read<E: From<io::Error>>(
    disk: &dyn Disk,
    folder: &Path,
    incarnation: &str,
    from: Lsn,
    mut each: impl FnMut(&KeptRecord<'_>) -> Result<(), E>,
) -> Result<Lsn, E> {
    let files = files(disk, folder)?;
    let begin = files.partition_point(|(first, _)| *first <= from.next());
    let mut last = from;
    for (first, path) in &files[begin.saturating_sub(1)..] {
        if *first > last.next() {
            break;
        }
        read_file(disk, path, &fixed(incarnation), *first, |record, _| {
            if record.lsn == last.next() {
                each(record)?;
                last = record.lsn;
            }
            Ok::<_, E>(())
        })?;
    }
    Ok(last)
}

/// The last record there is behind `from`, without a hole.
pub(super) fn reaches(
    disk: &dyn Disk,
    folder: &Path,
    incarnation: &str,
    from: Lsn,
) -> io::Result<Lsn> {
    read(disk, folder, incarnation, from, |_| Ok::<_, io::Error>(()))
}

/// Removes the files of which a copy that has all up to `applied` has every record. The last file always stays.
pub(super) fn forget(disk: &dyn Disk, folder: &Path, applied: Lsn) -> io::Result<()> {
    let files = files(disk, folder)?;
    for pair in files.windows(2) {
        if pair[1].0 <= applied.next() {
            disk.remove_file(&pair[0].1)?;
        }
    }
    Ok(())
}

/// The files by their first record.
pub(super) fn files(disk: &dyn Disk, folder: &Path) -> io::Result<Vec<(Lsn, PathBuf)>> {
    let names = match disk.read_dir(folder) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let first_of = |name: &OsStr| {
        let digits = name.to_str()?.strip_suffix(".log")?;
        digits.parse().ok().map(Lsn)
    };
    let mut found: Vec<_> = names
        .iter()
        .filter_map(|name| Some((first_of(name)?, folder.join(name))))
        .collect();
    found.sort();
    Ok(found)
}

/// Hands over the whole records of a file in order, each with where it ends; answers its version. `None`: its header is not
/// one of this volume.
fn read_file<E: From<io::Error>>(
    disk: &dyn Disk,
    path: &Path,
    incarnation: &[u8; 32],
    first: Lsn,
    mut each: impl FnMut(&KeptRecord<'_>, u64) -> Result<(), E>,
) -> Result<Option<u32>, E> {
    let file = disk.open(path, OpenMode::Read)?;
    let len = usize::try_from(file.len()?).unwrap_or(usize::MAX);
    // Few MiB: the file ends when it is longer than some, and one checkpoint's records at most follow.
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0)?;
    let Some((head, mut rest)) = bytes.split_at_checked(HEADER_OCTETS) else {
        return Ok(None);
    };
    let is_known = |version: &u32| head == header(*version, first, incarnation);
    let Some(version) = (1..=VERSION).find(is_known) else {
        return Ok(None);
    };
    let (mut ends, mut expected) = (HEADER_OCTETS as u64, first);
    while let Some((record, behind)) = take_record(rest, incarnation) {
        if record.lsn != expected {
            break;
        }
        expected = expected.next();
        ends += (rest.len() - behind.len()) as u64;
        each(&record, ends)?;
        rest = behind;
    }
    Ok(Some(version))
}

fn take_record<'a>(bytes: &'a [u8], incarnation: &[u8; 32]) -> Option<(KeptRecord<'a>, &'a [u8])> {
    let (header, rest) = bytes.split_at_checked(RECORD_OCTETS)?;
    let u32_at = |at: usize| {
        let octets = header[at..at + 4].try_into();
        u32::from_le_bytes(octets.expect("four octets"))
    };
    let (kept, behind) = rest.split_at_checked(u32_at(0) as usize)?;
    if header[32..] != check(&[incarnation, &header[..32], kept]) {
        return None;
    }
    let payload = match u32_at(28) as usize {
        0 => Cow::Borrowed(kept),
        octets => {
            let mut payload = vec![0; octets];
            let read = ZlibDecoder::new(kept).read_exact(&mut payload);
            read.ok()?;
            Cow::Owned(payload)
        }
    };
    let lsn = header[8..16].try_into().expect("eight octets");
    let record = KeptRecord {
        lsn: Lsn(u64::from_le_bytes(lsn)),
        kind: header[4],
        place: Place {
            segment: u32_at(16),
            offset: u32_at(20),
            len: u32_at(24),
        },
        payload,
    };
    Some((record, behind))
}

fn header(version: u32, first: Lsn, incarnation: &[u8; 32]) -> [u8; HEADER_OCTETS] {
    let mut header = [0; HEADER_OCTETS];
    header[..8].copy_from_slice(b"PHKEPT01");
    header[8..12].copy_from_slice(&version.to_le_bytes());
    header[16..24].copy_from_slice(&first.0.to_le_bytes());
    header[24..56].copy_from_slice(incarnation);
    let check = check(&[&header[..56]]);
    header[56..].copy_from_slice(&check);
    header
}

/// As the header holds it: 32 hexadecimal digits.
pub(super) fn fixed(incarnation: &str) -> [u8; 32] {
    let mut fixed = [0; 32];
    let octets = incarnation.as_bytes();
    let count = octets.len().min(32);
    fixed[..count].copy_from_slice(&octets[..count]);
    fixed
}

pub(super) fn check(parts: &[&[u8]]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let mut check = [0; 8];
    check.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    check
}

fn path_of(folder: &Path, first: Lsn) -> PathBuf {
    folder.join(format!("{:020}.log", first.0))
}

const VERSION: u32 = 2;
const HEADER_OCTETS: usize = 64;
const RECORD_OCTETS: usize = 40;
/// A record is packed in some 12 µs, however short it is. That of a delivery to one has some 450 octets and would be no
/// tenth shorter, that of one to ten has 2,700 and is a fifth then.
const PACKED_MIN_OCTETS: usize = 600;
/// What may wait for a checkpoint in memory.
const BUFFER_OCTETS: usize = 1 << 20;
/// From here on the next record begins a new file: what a copy has made needless goes in such pieces.
const FILE_OCTETS: u64 = if cfg!(test) { 16 << 10 } else { 4 << 20 };
