//! One account at one instant, as a file.
//!
//! ```text
//! posthouse snapshot 1\n
//! u32 length, JSON: Head
//! u32 length, item       …  one each, in canonical order (FORMAT-store.md)
//! u32 0
//! set-hash 32, items u64, messages u64, octets u64, epoch u64      the foot
//! BLAKE3 of everything before 32
//! ```
//! Numbers are little-endian. It is written whole, synced, and then named: what has the name of a snapshot is one, and every
//! blob that it names was there before it.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use directory_api::{AccountId, BackendName, LoginName, VolumeName};
use serde::{Deserialize, Serialize};
use store_backend::volume::{Item, SetHash};

use super::error::BackupError;
use super::folder::{Hash, new_file};

/// Whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) account: AccountId,
    pub(super) login_name: LoginName,
    /// Where it lived.
    pub(super) backend: BackendName,
    pub(super) volume: VolumeName,
    /// When it was asked for, in milliseconds since 1970.
    pub(super) at_ms: i64,
}

/// What is in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Foot {
    pub(super) set_hash: Hash,
    pub(super) items: u64,
    pub(super) messages: u64,
    /// Of the messages' blobs, a shared one each time.
    pub(super) octets: u64,
    /// The account's epoch there.
    pub(super) epoch: u64,
}

/// Writes one into a file that has no name yet.
pub(super) struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
    hasher: blake3::Hasher,
    sum: SetHash,
    foot: Foot,
}

impl Writer {
    pub(super) fn begin(path: &Path, head: &Head) -> Result<Self, BackupError> {
        let mut writer = Self {
            path: path.to_owned(),
            file: BufWriter::new(new_file(path)?),
            hasher: blake3::Hasher::new(),
            sum: SetHash::default(),
            foot: Foot::default(),
        };
        writer.write(MAGIC)?;
        let head = serde_json::to_vec(head).unwrap_or_default();
        writer.part(&head)?;
        Ok(writer)
    }

    pub(super) fn item(&mut self, item: &Item) -> Result<(), BackupError> {
        self.sum.add(item);
        self.foot.items += 1;
        if let Some(message) = item.message() {
            self.foot.messages += 1;
            self.foot.octets += message.octets;
        }
        self.part(&item.0)
    }

    /// Ends it, synced. The caller gives it its name.
    pub(super) fn finish(mut self, epoch: u64) -> Result<Foot, BackupError> {
        self.write(&0u32.to_le_bytes())?;
        self.foot.set_hash = self.sum.bytes();
        self.foot.epoch = epoch;
        let foot = self.foot;
        self.write(&foot.encode())?;
        let checksum = *self.hasher.finalize().as_bytes();
        self.write(&checksum)?;
        let Self { path, file, .. } = self;
        let synced = file.into_inner().map_err(io::IntoInnerError::into_error);
        let synced = synced.and_then(|file| file.sync_all());
        synced.map_err(BackupError::io("write", &path))?;
        Ok(foot)
    }

    fn part(&mut self, octets: &[u8]) -> Result<(), BackupError> {
        let length = u32::try_from(octets.len()).unwrap_or(u32::MAX);
        self.write(&length.to_le_bytes())?;
        self.write(octets)
    }

    fn write(&mut self, octets: &[u8]) -> Result<(), BackupError> {
        self.hasher.update(octets);
        let written = self.file.write_all(octets);
        written.map_err(BackupError::io("write", &self.path))
    }
}

impl Foot {
    fn encode(&self) -> [u8; FOOT_OCTETS] {
        let mut out = [0; FOOT_OCTETS];
        out[..32].copy_from_slice(&self.set_hash);
        let numbers = [self.items, self.messages, self.octets, self.epoch];
        for (place, number) in out[32..].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        out
    }

    fn decode(octets: &[u8; FOOT_OCTETS]) -> Self {
        let mut set_hash = [0; 32];
        set_hash.copy_from_slice(&octets[..32]);
        let number = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&octets[32 + 8 * at..40 + 8 * at]);
            u64::from_le_bytes(number)
        };
        Self {
            set_hash,
            items: number(0),
            messages: number(1),
            octets: number(2),
            epoch: number(3),
        }
    }

    /// That of a file, without reading the rest: for telling what is there, not for believing it.
    pub(super) fn of(path: &Path) -> Result<Self, BackupError> {
        let read = || -> io::Result<[u8; FOOT_OCTETS]> {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::End(-((FOOT_OCTETS + CHECKSUM_OCTETS) as i64)))?;
            let mut foot = [0; FOOT_OCTETS];
            file.read_exact(&mut foot)?;
            Ok(foot)
        };
        match read() {
            Ok(foot) => Ok(Self::decode(&foot)),
            // Before its beginning.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                Err(BackupError::damaged(path, "it is cut"))
            }
            Err(error) => Err(BackupError::io("read", path)(error)),
        }
    }
}

/// Reads one, item by item; what was read counts only once the end was reached.
pub(super) struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    left: u64,
    hasher: blake3::Hasher,
    sum: SetHash,
    counted: Foot,
    pub(super) head: Head,
    foot: Option<Foot>,
}

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Self, BackupError> {
        let file = File::open(path).map_err(BackupError::io("open", path))?;
        let length = fs::metadata(path).map_err(BackupError::io("read", path))?;
        let mut file = BufReader::new(file);
        let mut hasher = blake3::Hasher::new();
        let mut left = length.len();
        let mut take = |octets: &mut [u8]| -> Result<(), BackupError> {
            file.read_exact(octets)
                .map_err(|_| BackupError::damaged(path, "it is cut"))?;
            left = left.saturating_sub(octets.len() as u64);
            hasher.update(octets);
            Ok(())
        };
        let mut magic = [0; MAGIC.len()];
        take(&mut magic)?;
        if magic != *MAGIC {
            return Err(BackupError::damaged(path, "it is no snapshot of version 1"));
        }
        let mut length = [0; 4];
        take(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > PART_MAX_OCTETS {
            return Err(BackupError::damaged(path, "its head is too long"));
        }
        let mut head = vec![0; length];
        take(&mut head)?;
        let head = serde_json::from_slice(&head)
            .map_err(|_| BackupError::damaged(path, "its head is not readable"))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            left,
            hasher,
            sum: SetHash::default(),
            counted: Foot::default(),
            head,
            foot: None,
        })
    }

    /// The next item; `None` after the last, when all of the file has proved to be what was written.
    pub(super) fn next(&mut self) -> Result<Option<Item>, BackupError> {
        if self.foot.is_some() {
            return Ok(None);
        }
        let mut length = [0; 4];
        self.take(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length == 0 {
            return self.end().map(|()| None);
        }
        if length > PART_MAX_OCTETS {
            return Err(BackupError::damaged(&self.path, "an item is too long"));
        }
        let mut octets = vec![0; length];
        self.take(&mut octets)?;
        let item = Item(Bytes::from(octets));
        self.sum.add(&item);
        self.counted.items += 1;
        if let Some(message) = item.message() {
            self.counted.messages += 1;
            self.counted.octets += message.octets;
        }
        Ok(Some(item))
    }

    /// Reads it to its end for `each` item.
    pub(super) fn each(
        mut self,
        mut each: impl FnMut(Item) -> Result<(), BackupError>,
    ) -> Result<(Head, Foot), BackupError> {
        while let Some(item) = self.next()? {
            each(item)?;
        }
        let foot = self.foot.unwrap_or_default();
        Ok((self.head, foot))
    }

    fn end(&mut self) -> Result<(), BackupError> {
        let mut foot = [0; FOOT_OCTETS];
        self.take(&mut foot)?;
        let expected = *self.hasher.finalize().as_bytes();
        let mut checksum = [0; CHECKSUM_OCTETS];
        self.take(&mut checksum)?;
        let foot = Foot::decode(&foot);
        self.counted.set_hash = self.sum.bytes();
        self.counted.epoch = foot.epoch;
        if checksum != expected || self.left != 0 {
            return Err(BackupError::damaged(&self.path, "its checksum is wrong"));
        }
        if foot != self.counted {
            return Err(BackupError::damaged(&self.path, "its set-hash is wrong"));
        }
        self.foot = Some(foot);
        Ok(())
    }

    fn take(&mut self, octets: &mut [u8]) -> Result<(), BackupError> {
        self.file
            .read_exact(octets)
            .map_err(|_| BackupError::damaged(&self.path, "it is cut"))?;
        self.left = self.left.saturating_sub(octets.len() as u64);
        self.hasher.update(octets);
        Ok(())
    }
}

const MAGIC: &[u8; 21] = b"posthouse snapshot 1\n";
const FOOT_OCTETS: usize = 64;
const CHECKSUM_OCTETS: usize = 32;
/// An item is sent in a frame of this size at most.
const PART_MAX_OCTETS: usize = store_api::frame::CONTROL_MAX_OCTETS;

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head {
            account: AccountId(7),
            login_name: "ann@example.test".parse().unwrap(),
            backend: "b1".parse().unwrap(),
            volume: "main".parse().unwrap(),
            at_ms: 5,
        }
    }

    fn read(path: &Path) -> Result<Vec<Item>, BackupError> {
        let mut items = Vec::new();
        Reader::open(path)?.each(|item| {
            items.push(item);
            Ok(())
        })?;
        Ok(items)
    }

    #[test]
    fn a_snapshot_reads_back_and_is_refused_cut_or_changed_anywhere() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let items: Vec<Item> = [&b"one"[..], b"another"]
            .map(|octets| Item(Bytes::copy_from_slice(octets)))
            .into();
        let mut writer = Writer::begin(&path, &head()).unwrap();
        items.iter().for_each(|item| writer.item(item).unwrap());
        let foot = writer.finish(3).unwrap();
        assert_eq!((foot.items, foot.epoch), (2, 3));
        assert_eq!(Foot::of(&path).unwrap(), foot);
        assert_eq!(Reader::open(&path).unwrap().head, head());
        assert_eq!(read(&path).unwrap(), items);

        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            assert!(
                matches!(read(&path), Err(BackupError::Damaged { .. })),
                "{cut}"
            );
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).unwrap();
            assert!(
                matches!(read(&path), Err(BackupError::Damaged { .. })),
                "{at}"
            );
        }
        fs::write(&path, [&whole[..], b"x"].concat()).unwrap();
        assert!(matches!(read(&path), Err(BackupError::Damaged { .. })));
    }
}
