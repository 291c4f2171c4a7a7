//! The contents of one file: as programs see them, and what of them a power cut leaves.

use std::io::ErrorKind;
use std::sync::Arc;

use super::{Loss, below};

/// Contents are shared with the forks of a disk until one of them writes.
#[derive(Clone, Default)]
pub(super) struct File {
    pub(super) now: Arc<Vec<u8>>,
    pub(super) durable: Arc<Vec<u8>>,
    pub(super) pending: Vec<Pending>,
    /// A sync of the file system lost what was pending; the next one of the file says so too, once.
    pub(super) failed: Option<ErrorKind>,
}

#[derive(Clone)]
pub(super) enum Pending {
    Write(usize, Arc<[u8]>),
    Cut(usize),
}

impl File {
    pub(super) fn sync(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let durable = Arc::make_mut(&mut self.durable);
        for pending in self.pending.drain(..) {
            match pending {
                Pending::Write(offset, bytes) => put(durable, offset, &bytes),
                Pending::Cut(len) => durable.truncate(len),
            }
        }
    }

    pub(super) fn fail(&mut self, kind: ErrorKind) {
        if !self.pending.is_empty() {
            self.pending.clear();
            self.failed = Some(kind);
        }
    }

    pub(super) fn lose(&mut self, loss: Loss, random: &mut u64) {
        let mut sectors: Vec<Pending> = Vec::new();
        for pending in self.pending.drain(..) {
            match pending {
                Pending::Cut(len) => sectors.push(Pending::Cut(len)),
                Pending::Write(mut offset, bytes) => {
                    let mut rest = &bytes[..];
                    while !rest.is_empty() {
                        let count = rest.len().min(SECTOR_BYTES - offset % SECTOR_BYTES);
                        let (sector, later) = rest.split_at(count);
                        sectors.push(Pending::Write(offset, sector.into()));
                        offset += count;
                        rest = later;
                    }
                }
            }
        }
        let prefix = below(random, sectors.len() as u64 + 1) as usize;
        self.pending = match loss {
            Loss::Lost => Vec::new(),
            Loss::Torn => sectors.into_iter().take(prefix).collect(),
            Loss::Reordered => sectors
                .into_iter()
                .filter(|_| below(random, 2) == 0)
                .collect(),
        };
        self.failed = None;
        self.sync();
        self.now.clone_from(&self.durable);
    }
}

/// Overwrites or extends, a hole before it reading as zeros.
pub(super) fn put(target: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if target.len() < end {
        target.resize(end, 0);
    }
    target[offset..end].copy_from_slice(bytes);
}

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;
