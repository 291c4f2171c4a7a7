//! What is written to the index while a smaller one is made of it: noted for that, and bounded.

use super::environment::Table;

/// A row that was written, or removed.
pub(super) struct Change {
    pub(super) table: Table,
    pub(super) key: Box<[u8]>,
    pub(super) value: Option<Box<[u8]>>,
}

/// Changes in the order in which they were made, unless they have become too many to be kept.
#[derive(Default)]
pub(super) struct Notes {
    changes: Vec<Change>,
    /// What they take in memory; of a transaction's, with those it came behind.
    octets: usize,
    has_overflown: bool,
}

impl Notes {
    /// For a transaction, whose changes count when it has committed. Together they keep to the limit.
    pub(super) fn behind(before: &Self) -> Self {
        Self {
            changes: Vec::new(),
            octets: before.octets,
            has_overflown: before.has_overflown,
        }
    }

    pub(super) fn add(&mut self, table: Table, key: &[u8], value: Option<&[u8]>) {
        self.octets = self
            .octets
            .saturating_add(size_of::<Change>() + key.len() + value.map_or(0, <[u8]>::len));
        if self.has_overflown || self.octets > OCTETS_MAX {
            self.has_overflown = true;
            self.changes = Vec::new();
            return;
        }
        self.changes.push(Change {
            table,
            key: key.into(),
            value: value.map(Into::into),
        });
    }

    /// Adds those of a transaction that was begun behind these.
    pub(super) fn join(&mut self, committed: Self) {
        (self.octets, self.has_overflown) = (committed.octets, committed.has_overflown);
        match self.has_overflown {
            true => self.changes = Vec::new(),
            false => self.changes.extend(committed.changes),
        }
    }

    /// What was added since it was asked for last; `None`: some of it was not kept.
    pub(super) fn take(&mut self) -> Option<Vec<Change>> {
        if self.has_overflown {
            return None;
        }
        self.octets = 0;
        Some(std::mem::take(&mut self.changes))
    }
}

/// A disk that does not keep up has the compaction given up rather than memory used up; so has a transaction that is larger.
const OCTETS_MAX: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_transaction_writes_is_bounded_and_given_up_as_a_whole() {
        let (row, mut kept) = (vec![0; 1 << 20], Notes::default());
        let table = Table::all()[0];
        let write = |kept: &mut Notes, rows: usize| {
            let mut notes = Notes::behind(kept);
            for _ in 0..rows {
                notes.add(table, b"key", Some(&row));
                let octets = |notes: &Notes| notes.changes.len() << 20;
                assert!(octets(kept) + octets(&notes) <= OCTETS_MAX);
            }
            notes
        };
        // One that does not commit is as one that was not begun.
        drop(write(&mut kept, 100));
        let one = write(&mut kept, 40);
        kept.join(one);
        assert_eq!(kept.take().map(|changes| changes.len()), Some(40));
        for _ in 0..2 {
            let one = write(&mut kept, 40);
            kept.join(one);
        }
        assert!(kept.changes.is_empty() && kept.take().is_none());
        // Nor is there a gap in what it has.
        let one = write(&mut kept, 1);
        kept.join(one);
        assert!(kept.take().is_none());
    }
}
