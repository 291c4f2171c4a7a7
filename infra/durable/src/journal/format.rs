//! The bytes on disk, version 1. All numbers are little-endian. See also `infra/docs/FORMAT-journal.md`.
//!
//! ```text
//! segment:  header block (4096 bytes), then records back to back, each beginning at a multiple of 8,
//!           then zeros or what an earlier life of the file left
//!
//! segment header                        record header
//!  0  magic "PHJSEG01"                   0  payload length    u32
//!  8  format version, 1      u32         4  kind, caller's    u8
//! 12  segment number         u32         5  0                 u8
//! 16  generation, random     u64         6  index in unit     u16
//! 24  lowest lsn it may hold u64         8  lsn               u64
//! 32  file length            u32        16  generation's low  u32
//! 36  zeros to byte 60                  20  crc32c            u32   over generation u64, bytes 0..20, payload
//! 60  crc32c of bytes 0..60  u32        24  payload, then zeros up to a multiple of 8
//! ```
//!
//! The generation is drawn anew whenever a file becomes a segment, so that a record left by the file's earlier life is
//! told from a new one. It is random and 64 bits wide (half of it enters only the checksum) because payloads come from
//! strangers: a mail must not be able to contain bytes that recovery, looking behind a torn record, takes for a record.

use super::Lsn;

/// Drawn for a segment when its file is prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) number: u32,
    pub(super) generation: u64,
}

impl Identity {
    /// The half of the generation that stands in each record.
    pub(super) fn record_generation(self) -> u32 {
        (self.generation & u64::from(u32::MAX)) as u32
    }
}

/// The first bytes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) identity: Identity,
    /// No record in the segment has a lower number; exact in the first segment of a new journal.
    pub(super) lsn_floor: Lsn,
    /// Length of the whole file.
    pub(super) file_len: u32,
}

/// Why a segment header could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadHeader {
    Damaged,
    Version(u32),
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.identity.number.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.identity.generation.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.lsn_floor.0.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.file_len.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Result<Self, BadHeader> {
        // The checksum stands at the same place in every version, so that a newer version and rot are told apart.
        if bytes[..8] != MAGIC || crc32c::crc32c(&bytes[..60]) != u32_at(bytes, 60) {
            return Err(BadHeader::Damaged);
        }
        match u32_at(bytes, 8) {
            VERSION => Ok(SegmentHeader {
                identity: Identity {
                    number: u32_at(bytes, 12),
                    generation: u64_at(bytes, 16),
                },
                lsn_floor: Lsn(u64_at(bytes, 24)),
                file_len: u32_at(bytes, 32),
            }),
            found => Err(BadHeader::Version(found)),
        }
    }
}

/// The bytes before a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) len: u32,
    pub(super) kind: u8,
    /// How many records of the same unit (one write, one sync) stand before this one.
    pub(super) unit_index: u16,
    pub(super) lsn: u64,
    pub(super) generation: u32,
}

impl RecordHeader {
    pub(super) fn encode(&self, identity: &Identity, payload: &[&[u8]]) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..4].copy_from_slice(&self.len.to_le_bytes());
        bytes[4] = self.kind;
        bytes[6..8].copy_from_slice(&self.unit_index.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.lsn.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.generation.to_le_bytes());
        let crc = record_crc(*identity, &bytes[..20], payload);
        bytes[20..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The lsn of the first record of this record's unit.
    pub(super) fn unit_lsn(&self) -> u64 {
        self.lsn.saturating_sub(self.unit_index.into())
    }
}

/// Reads the record whose header begins `bytes`; `None` unless it is whole, intact and of this segment's life.
pub(super) fn intact_record(bytes: &[u8], identity: Identity) -> Option<(RecordHeader, &[u8])> {
    let (header, rest) = bytes.split_at_checked(RECORD_HEADER_BYTES as usize)?;
    let generation = u32_at(header, 16);
    if generation != identity.record_generation() {
        return None;
    }
    let len = u32_at(header, 0);
    let payload = rest.get(..len as usize)?;
    if record_crc(identity, &header[..20], &[payload]) != u32_at(header, 20) {
        return None;
    }
    let header = RecordHeader {
        len,
        kind: header[4],
        unit_index: u16::from_le_bytes([header[6], header[7]]),
        lsn: u64_at(header, 8),
        generation,
    };
    Some((header, payload))
}

/// Whether a record of this segment's life began at the start of `bytes`, intact or not.
pub(super) fn began_here(bytes: &[u8], identity: Identity) -> bool {
    bytes.len() >= 20 && u32_at(bytes, 16) == identity.record_generation()
}

/// The bytes a record of this payload length takes; `None` when that does not fit into 32 bits.
pub(super) fn padded_bytes(len: u32) -> Option<u32> {
    len.checked_add(RECORD_HEADER_BYTES)?
        .checked_next_multiple_of(8)
}

fn record_crc(identity: Identity, header: &[u8], payload: &[&[u8]]) -> u32 {
    let crc = crc32c::crc32c(&identity.generation.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, header);
    payload
        .iter()
        .fold(crc, |crc, part| crc32c::crc32c_append(crc, part))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(
        bytes[at..at + 4]
            .try_into()
            .expect("the range is 4 bytes long"),
    )
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(
        bytes[at..at + 8]
            .try_into()
            .expect("the range is 8 bytes long"),
    )
}

const MAGIC: [u8; 8] = *b"PHJSEG01";
const VERSION: u32 = 1;
pub(super) const SEGMENT_HEADER_BYTES: usize = 64;
/// Records begin in a block of their own: the header is never written again while they live, not even by the kernel
/// writing back the page it stands in.
pub(super) const HEADER_BLOCK_BYTES: u32 = 4096;
pub(super) const RECORD_HEADER_BYTES: u32 = 24;
pub(super) const PADDING: [u8; 7] = [0; 7];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Computed by another program from the description at the top of this file.
    const GOLDEN: &[u8] = include_bytes!("../../tests/golden/segment-v1.seg");
    const IDENTITY: Identity = Identity {
        number: 7,
        generation: 0x1122_3344_5566_7788,
    };

    #[test]
    fn the_segment_header_is_the_golden_one() {
        let header = SegmentHeader {
            identity: IDENTITY,
            lsn_floor: Lsn(100),
            file_len: 8192,
        };
        assert_eq!(header.encode(), GOLDEN[..64]);
        assert_eq!(
            SegmentHeader::decode(GOLDEN[..64].try_into().unwrap()),
            Ok(header)
        );
    }

    #[test]
    fn the_records_are_the_golden_ones() {
        let long: Vec<u8> = (0..300_usize).map(|byte| (byte % 256) as u8).collect();
        let records = [
            (100, 1, 0, &b"hello"[..]),
            (101, 2, 1, b""),
            (102, 255, 0, &long),
        ];
        let mut at = HEADER_BLOCK_BYTES as usize;
        for (lsn, kind, unit_index, payload) in records {
            let header = RecordHeader {
                len: payload.len() as u32,
                kind,
                unit_index,
                lsn,
                generation: IDENTITY.record_generation(),
            };
            let (left, right) = payload.split_at(payload.len() / 2);
            assert_eq!(
                header.encode(&IDENTITY, &[left, right]),
                GOLDEN[at..at + 24]
            );
            assert_eq!(
                intact_record(&GOLDEN[at..], IDENTITY),
                Some((header, payload))
            );
            at += padded_bytes(header.len).unwrap() as usize;
        }
        assert_eq!(
            intact_record(&GOLDEN[at..], IDENTITY),
            None,
            "an earlier life's record"
        );
    }

    #[test]
    fn every_flipped_bit_of_a_header_or_record_is_found() {
        let header: &[u8; 64] = GOLDEN[..64].try_into().unwrap();
        for bit in 0..64 * 8 {
            let mut bytes = *header;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                SegmentHeader::decode(&bytes),
                Err(BadHeader::Damaged),
                "bit {bit}"
            );
        }
        let record = &GOLDEN[4096..4096 + 29];
        for bit in 0..record.len() * 8 {
            let mut bytes = record.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(intact_record(&bytes, IDENTITY), None, "bit {bit}");
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes: [u8; 64] = GOLDEN[..64].try_into().unwrap();
        bytes[8] = 2;
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(BadHeader::Version(2)));
    }
}
