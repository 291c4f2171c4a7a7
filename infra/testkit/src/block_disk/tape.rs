//! What was done to a block device, and what it may hold when the power goes.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use crate::fault_disk::{Loss, below};

/// All octets of a device. Blocks are shared between images; those that are all zeros take no room.
#[derive(Clone)]
pub struct Image(Vec<Option<Arc<[u8]>>>);

impl Image {
    /// Reads one from a file.
    ///
    /// # Errors
    /// What the system answered.
    pub fn read(path: &Path) -> io::Result<Self> {
        let bytes = fs::read(path)?;
        let blocks = bytes.chunks(BLOCK_BYTES);
        let blocks = blocks.map(|block| {
            let is_empty = block.iter().all(|octet| *octet == 0);
            (!is_empty).then(|| block.into())
        });
        Ok(Self(blocks.collect()))
    }

    /// Makes a file of it, with holes.
    ///
    /// # Errors
    /// What the system answered.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let file = File::create(path)?;
        file.set_len((self.0.len() * BLOCK_BYTES) as u64)?;
        for (number, block) in self.0.iter().enumerate() {
            if let Some(block) = block {
                file.write_all_at(block, (number * BLOCK_BYTES) as u64)?;
            }
        }
        Ok(())
    }

    fn put(&mut self, mut offset: usize, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (number, begin) = (offset / BLOCK_BYTES, offset % BLOCK_BYTES);
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES - begin));
            let block = self.0[number].get_or_insert_with(|| [0; BLOCK_BYTES].as_slice().into());
            Arc::make_mut(block)[begin..][..now.len()].copy_from_slice(now);
            (offset, bytes) = (offset + now.len(), later);
        }
    }
}

enum Change {
    Write(usize, Arc<[u8]>),
    Flush,
}

/// Writes and flushes of a device, in the order in which it took them.
pub struct BlockTape {
    base: Image,
    changes: Vec<Change>,
    /// Where each ended in the record.
    ends: Vec<u64>,
}

impl BlockTape {
    pub(super) fn parse(base: Image, tape: &[u8]) -> Self {
        let (mut changes, mut ends, mut rest) = (Vec::new(), Vec::new(), tape);
        while let Some((head, behind)) = rest.split_first_chunk::<HEAD_BYTES>() {
            let (offset, count) = head.split_at(8);
            let offset = u64::from_le_bytes(offset.try_into().expect("8 octets"));
            let count = u64::from_le_bytes(count.try_into().expect("8 octets"));
            let count = usize::try_from(count).expect("it is in memory");
            // The last one may be under way.
            let Some((bytes, behind)) = behind.split_at_checked(count) else {
                break;
            };
            changes.push(match offset {
                FLUSH => Change::Flush,
                _ => Change::Write(
                    usize::try_from(offset).expect("the image is in memory"),
                    bytes.into(),
                ),
            });
            rest = behind;
            ends.push((tape.len() - rest.len()) as u64);
        }
        Self {
            base,
            changes,
            ends,
        }
    }

    /// How many writes and flushes there are: the power can be cut before the first, between any two and after the last.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// How many of them are flushes.
    #[must_use]
    pub fn flushes(&self) -> usize {
        let all = self.changes.iter();
        all.filter(|change| matches!(change, Change::Flush)).count()
    }

    /// The point that [`RecordedDisk::recorded`](super::RecordedDisk::recorded) told: so many were on record, whole.
    #[must_use]
    pub fn point(&self, recorded: u64) -> usize {
        self.ends.partition_point(|end| *end <= recorded)
    }

    /// How many of the changes before a point are durable for certain.
    #[must_use]
    pub fn flushed(&self, point: usize) -> usize {
        let before = self.changes[..point].iter();
        let last = before
            .enumerate()
            .rfind(|(_, one)| matches!(one, Change::Flush));
        last.map_or(0, |(index, _)| index + 1)
    }

    /// Plays it from its beginning.
    #[must_use]
    pub fn player(&self) -> Player<'_> {
        Player {
            tape: self,
            image: self.base.clone(),
            done: 0,
        }
    }

    /// The last changes before a point, one a line, for whoever looks into a failure.
    ///
    /// # Panics
    /// Never: text can be written to.
    #[must_use]
    pub fn tail(&self, point: usize, count: usize) -> String {
        let (from, mut lines) = (point.saturating_sub(count), String::new());
        for (index, change) in self.changes[from..point].iter().enumerate() {
            match change {
                Change::Write(offset, bytes) => {
                    let (block, length) = (offset / BLOCK_BYTES, bytes.len());
                    writeln!(
                        lines,
                        "  {}: write block {block}: {length} octets",
                        from + index
                    )
                }
                Change::Flush => writeln!(lines, "  {}: flush", from + index),
            }
            .expect("text can be written to");
        }
        lines
    }
}

/// A device on its way through a tape.
pub struct Player<'t> {
    tape: &'t BlockTape,
    /// With the changes before `done`, all of them durable.
    image: Image,
    done: usize,
}

impl Player<'_> {
    /// What a cut at a point may leave of the device; without a loss all that was written. Points must not go back.
    ///
    /// `sector_bytes` is what the device writes whole. The first block is always written whole: ext4's superblock has one
    /// checksum over two sectors.
    #[must_use]
    pub fn image(
        &mut self,
        point: usize,
        loss: Option<Loss>,
        seed: u64,
        sector_bytes: usize,
    ) -> Image {
        let flushed = self.tape.flushed(point);
        for change in &self.tape.changes[self.done..flushed] {
            if let Change::Write(offset, bytes) = change {
                self.image.put(*offset, bytes);
            }
        }
        self.done = flushed;
        let mut sectors: Vec<(usize, &[u8])> = Vec::new();
        for change in &self.tape.changes[flushed..point] {
            let Change::Write(mut offset, ref bytes) = *change else {
                continue;
            };
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let whole = if offset < BLOCK_BYTES {
                    BLOCK_BYTES
                } else {
                    sector_bytes
                };
                let (sector, later) = rest.split_at(rest.len().min(whole - offset % whole));
                sectors.push((offset, sector));
                (offset, rest) = (offset + sector.len(), later);
            }
        }
        let (mut image, mut random) = (self.image.clone(), seed);
        let kept = match loss {
            None => sectors.len(),
            Some(Loss::Lost) => 0,
            Some(Loss::Torn) => {
                let count = below(&mut random, sectors.len() as u64 + 1);
                usize::try_from(count).expect("below a length")
            }
            Some(Loss::Reordered) => {
                sectors.retain(|_| below(&mut random, 2) == 0);
                sectors.len()
            }
        };
        for (offset, sector) in &sectors[..kept] {
            image.put(*offset, sector);
        }
        image
    }
}

/// A write as it stands on the tape.
pub(super) fn write(offset: u64, bytes: &[u8]) -> Vec<u8> {
    let count = bytes.len() as u64;
    [&offset.to_le_bytes(), &count.to_le_bytes(), bytes].concat()
}

/// A flush as it stands on the tape.
pub(super) fn flush() -> Vec<u8> {
    write(FLUSH, &[])
}

/// No write has this offset.
const FLUSH: u64 = u64::MAX;
/// Offset and count.
const HEAD_BYTES: usize = 16;
const BLOCK_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Two writes, a flush, two writes.
    fn tape() -> BlockTape {
        let writes = [1, 2, 3, 4].map(|octet| write(u64::from(octet) * 4096, &[octet; 1024]));
        let [one, two, three, four] = writes;
        let tape = [one, two, flush(), three, four].concat();
        BlockTape::parse(Image(vec![None; 8]), &tape)
    }

    /// Of each write, how many of its two sectors are there.
    fn sectors(image: &Image) -> Vec<usize> {
        let mut counts = Vec::new();
        for (number, block) in image.0.iter().enumerate().skip(1).take(4) {
            let block = block.as_deref().unwrap_or(&[0; BLOCK_BYTES]);
            let there = |at: usize| usize::from(block[at] as usize == number);
            counts.push(there(0) + there(512));
        }
        counts
    }

    #[test]
    fn what_was_flushed_is_there_and_the_rest_as_far_as_the_loss_says() {
        let tape = tape();
        assert_eq!((tape.len(), tape.flushes(), tape.flushed(5)), (5, 1, 3));
        let mut player = tape.player();
        assert_eq!(sectors(&player.image(1, None, 0, 512)), [2, 0, 0, 0]);
        assert_eq!(
            sectors(&player.image(2, Some(Loss::Lost), 0, 512)),
            [0, 0, 0, 0]
        );
        assert_eq!(
            sectors(&player.image(5, Some(Loss::Lost), 0, 512)),
            [2, 2, 0, 0]
        );
        assert_eq!(sectors(&player.image(5, None, 0, 512)), [2, 2, 2, 2]);
        let (mut torn, mut reordered) = (Vec::new(), Vec::new());
        for seed in 0..64 {
            torn.push(sectors(&player.image(5, Some(Loss::Torn), seed, 512)));
            let image = player.image(5, Some(Loss::Reordered), seed, 512);
            reordered.push(sectors(&image));
            let image = player.image(5, Some(Loss::Reordered), seed, 4096);
            assert!(sectors(&image)[2..].iter().all(|count| count % 2 == 0));
        }
        assert!(torn.contains(&vec![2, 2, 1, 0]) && !torn.contains(&vec![2, 2, 0, 2]));
        assert!(reordered.contains(&vec![2, 2, 0, 2]) && reordered.contains(&vec![2, 2, 1, 1]));
    }

    #[test]
    fn a_point_has_what_was_on_record_whole() {
        let tape = tape();
        assert_eq!(tape.point(0), 0);
        assert_eq!(tape.point(1040), 1);
        assert_eq!(tape.point(2079), 1);
        assert_eq!(tape.point(2080 + 16), 3);
    }
}
