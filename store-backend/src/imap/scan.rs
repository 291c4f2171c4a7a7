//! The MIME structure and the header of a blob, remembered while there is room.
//!
//! Found once per blob, whoever asks: a blob is named by its hash, so what is remembered is never stale
//! and holds nothing that the account asking could not read itself. A row of the index will hold it later; then only
//! this module goes.

use std::sync::{Arc, LazyLock};

use mail_proto::mime::{Scanner, Structure};
use moka::sync::Cache;

use crate::volume::{BlobReader, Hash, ReadError};

/// What was found in a blob.
#[derive(Debug)]
pub(super) struct Scan {
    /// Its parts.
    pub(super) structure: Structure,
    /// Its header block, empty line included.
    pub(super) header: Vec<u8>,
}

impl Scan {
    /// What is remembered of the blob.
    pub(super) fn remembered(hash: &Hash) -> Option<Arc<Self>> {
        REMEMBERED.get(hash)
    }

    /// Scans a blob that is in memory.
    pub(super) fn of(hash: Hash, octets: &[u8]) -> Arc<Self> {
        let mut scanner = Scanner::new();
        scanner.push(octets);
        Self::remember(hash, scanner)
    }

    /// Scans a blob as it is read. Blocking.
    pub(super) fn read(hash: Hash, blob: &mut BlobReader) -> Result<Arc<Self>, ReadError> {
        let mut scanner = Scanner::new();
        let mut piece = Vec::with_capacity(PIECE_OCTETS);
        let mut at = 0;
        while at < blob.size() {
            let count = usize::try_from(blob.size() - at)
                .map_or(PIECE_OCTETS, |left| left.min(PIECE_OCTETS));
            piece.clear();
            blob.read_at(at, count, &mut piece)?;
            scanner.push(&piece);
            at += count as u64;
        }
        Ok(Self::remember(hash, scanner))
    }

    fn remember(hash: Hash, scanner: Scanner) -> Arc<Self> {
        let scanned = scanner.finish();
        let mut header = scanned.header;
        header.shrink_to_fit();
        let scan = Arc::new(Self {
            structure: scanned.structure,
            header,
        });
        REMEMBERED.insert(hash, Arc::clone(&scan));
        scan
    }

    fn octets(&self) -> u32 {
        let octets = OVERHEAD_OCTETS + self.structure.as_bytes().len() + self.header.len();
        u32::try_from(octets).unwrap_or(u32::MAX)
    }
}

static REMEMBERED: LazyLock<Cache<Hash, Arc<Scan>>> = LazyLock::new(|| {
    Cache::builder()
        .weigher(|_, scan: &Arc<Scan>| scan.octets())
        .max_capacity(REMEMBERED_MAX_OCTETS)
        .build()
});

/// For all sessions together: some 20,000 usual messages.
const REMEMBERED_MAX_OCTETS: u64 = 64 << 20;
/// What an entry costs besides, about.
const OVERHEAD_OCTETS: usize = 256;
const PIECE_OCTETS: usize = 64 << 10;
