//! What the rows of the index would take if its pages were full.
//!
//! LMDB tells how many pages are free, not how full the others are: where every second message of a mailbox went, half of
//! each page is empty, and none is free. So the rows are read and laid out as a compaction would, which appends them.

use std::ops::Bound::{Excluded, Unbounded};

use super::Index;
use super::compact::CompactError;
use super::environment::Table;

impl Index {
    /// About how many octets a compaction would leave. `go_on` is asked before each slice. Blocking, for as long as it takes to
    /// read all rows.
    ///
    /// # Errors
    /// The index cannot be read, or what `go_on` answers.
    pub(in crate::volume) fn weigh(
        &self,
        go_on: &dyn Fn() -> Result<(), CompactError>,
    ) -> Result<u64, CompactError> {
        let page_bytes = self.environment().env.unnamed_database_stat().page_size as usize;
        // Two pages name the rest; then the tables' own names.
        let mut page_count = 3;
        for table in Table::all() {
            let mut pages = Pages::new(page_bytes);
            let mut last: Option<Vec<u8>> = None;
            loop {
                go_on()?;
                last = self.read(|txn| -> Result<_, CompactError> {
                    let mut octets = 0;
                    let range = (last.as_deref().map_or(Unbounded, Excluded), Unbounded);
                    for row in table.range(txn, &range)? {
                        let (key, value) = row?;
                        pages.append(key.len(), value.len());
                        octets += key.len() + value.len();
                        if octets >= SLICE_OCTETS {
                            return Ok(Some(key.to_vec()));
                        }
                    }
                    Ok(None)
                })?;
                if last.is_none() {
                    break;
                }
            }
            page_count += pages.count();
        }
        Ok(page_count * page_bytes as u64)
    }
}

/// The pages of one table, as LMDB fills them with rows that come behind one another.
struct Pages {
    page_bytes: usize,
    leaf_count: u64,
    overflow_count: u64,
    /// Of the keys that name the leaves.
    branch_octets: usize,
    /// Room in the last leaf.
    room: usize,
}

impl Pages {
    fn new(page_bytes: usize) -> Self {
        Self {
            page_bytes,
            leaf_count: 0,
            overflow_count: 0,
            branch_octets: 0,
            room: 0,
        }
    }

    fn append(&mut self, key: usize, value: usize) {
        let room = self.page_bytes - PAGE_HEAD_BYTES;
        let mut node = NODE_HEAD_BYTES + key + value;
        // Two nodes must fit in a page. The value of a larger one has pages of its own, and the node their number.
        if node > room / 2 - POINTER_BYTES {
            self.overflow_count += (PAGE_HEAD_BYTES + value).div_ceil(self.page_bytes) as u64;
            node = NODE_HEAD_BYTES + key + size_of::<u64>();
        }
        let node = node.next_multiple_of(2) + POINTER_BYTES;
        if node > self.room {
            self.leaf_count += 1;
            self.branch_octets += NODE_HEAD_BYTES + key.next_multiple_of(2) + POINTER_BYTES;
            self.room = room;
        }
        self.room -= node;
    }

    fn count(&self) -> u64 {
        // A full one is split in the middle, also where all comes at the end.
        let room = (self.page_bytes - PAGE_HEAD_BYTES) / 2;
        let branch_count = match self.leaf_count {
            0 | 1 => 0,
            _ => self.branch_octets.div_ceil(room) as u64,
        };
        self.leaf_count + self.overflow_count + branch_count
    }
}

/// LMDB 0.9's `PAGEHDRSZ`, `NODESIZE` and `indx_t`.
const PAGE_HEAD_BYTES: usize = 16;
const NODE_HEAD_BYTES: usize = 8;
const POINTER_BYTES: usize = 2;
/// Read in one transaction: it is over before the pages it holds are missed.
const SLICE_OCTETS: usize = 4 << 20;
