//! The UIDs of messages in the order of their sequence numbers. RFC 9051 §2.3.1.2.

use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};

/// A set of UIDs. As the messages a client knows, it gives them their sequence numbers.
///
/// A mailbox without gaps costs some octets per 65,536 messages, one that is all gaps two octets a
/// message; finding a number does not walk the mailbox.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<(u32, u32)>", into = "Vec<(u32, u32)>")]
pub(super) struct View(RoaringBitmap);

impl View {
    /// How many: what EXISTS tells.
    pub(super) fn count(&self) -> u32 {
        // UIDs are below u32::MAX, so their count is too.
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn contains(&self, uid: u32) -> bool {
        self.0.contains(uid)
    }

    /// The UID of this sequence number.
    pub(super) fn uid(&self, sequence: u32) -> Option<u32> {
        self.0.select(sequence.checked_sub(1)?)
    }

    /// The sequence number of this UID.
    pub(super) fn sequence(&self, uid: u32) -> Option<u32> {
        self.contains(uid).then(|| self.count_up_to(uid))
    }

    /// How many UIDs are not above this one.
    pub(super) fn count_up_to(&self, uid: u32) -> u32 {
        u32::try_from(self.0.rank(uid)).unwrap_or(u32::MAX)
    }

    /// The largest UID: what `*` means.
    pub(super) fn last(&self) -> Option<u32> {
        self.0.max()
    }

    /// The smallest and the largest UID.
    pub(super) fn ends(&self) -> Option<(u32, u32)> {
        self.0.min().zip(self.0.max())
    }

    /// Leaves the `count` largest. The smallest of these, if any others were there.
    pub(super) fn keep_last(&mut self, count: u32) -> Option<u32> {
        let lowest = self.uid((self.count().checked_sub(count)?).checked_add(1)?);
        let lowest = lowest.filter(|lowest| self.0.min() < Some(*lowest))?;
        self.0.remove_range(..lowest);
        Some(lowest)
    }

    /// Every UID, growing.
    pub(super) fn uids(&self) -> impl DoubleEndedIterator<Item = u32> + '_ {
        self.0.iter()
    }

    /// The UIDs from `first` to `last`, growing.
    pub(super) fn uids_between(&self, first: u32, last: u32) -> impl Iterator<Item = u32> + '_ {
        // An empty range is no range to the library.
        let range = (first <= last).then(|| self.0.range(first..=last));
        range.into_iter().flatten()
    }

    /// Adds one; whether it was not there.
    pub(super) fn insert(&mut self, uid: u32) -> bool {
        self.0.insert(uid)
    }

    /// Takes all of `other` away.
    pub(super) fn subtract(&mut self, other: &Self) {
        self.0 -= &other.0;
    }

    /// Leaves those that are in `other` too.
    pub(super) fn intersect(&mut self, other: &Self) {
        self.0 &= &other.0;
    }

    /// Adds all of `other`.
    pub(super) fn unite(&mut self, other: &Self) {
        self.0 |= &other.0;
    }

    /// As few ranges, both ends included, growing.
    pub(super) fn ranges(&self) -> Vec<(u32, u32)> {
        let mut iter = self.0.iter();
        std::iter::from_fn(|| {
            iter.next_range()
                .map(|range| (*range.start(), *range.end()))
        })
        .fold(Vec::new(), |mut ranges: Vec<(u32, u32)>, (first, last)| {
            match ranges.last_mut() {
                // The library's ranges end where its chunks do.
                Some(before) if before.1.checked_add(1) == Some(first) => before.1 = last,
                _ => ranges.push((first, last)),
            }
            ranges
        })
    }
}

impl FromIterator<u32> for View {
    /// Of UIDs in any order.
    fn from_iter<I: IntoIterator<Item = u32>>(uids: I) -> Self {
        Self(uids.into_iter().collect())
    }
}

impl From<Vec<(u32, u32)>> for View {
    fn from(ranges: Vec<(u32, u32)>) -> Self {
        let mut bitmap = RoaringBitmap::new();
        for (first, last) in ranges {
            bitmap.insert_range(first..=last);
        }
        bitmap.optimize();
        Self(bitmap)
    }
}

impl From<View> for Vec<(u32, u32)> {
    fn from(view: View) -> Self {
        view.ranges()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sequence_numbers_are_places_and_close_up_behind_what_goes() {
        let mut view: View = [3, 5, 9, 70_000].into_iter().collect();
        assert_eq!((view.count(), view.last()), (4, Some(70_000)));
        assert_eq!(view.uid(0), None);
        assert_eq!(
            [1, 2, 3, 4, 5].map(|n| view.uid(n)),
            [Some(3), Some(5), Some(9), Some(70_000), None]
        );
        assert_eq!((view.sequence(9), view.sequence(4)), (Some(3), None));
        view.subtract(&[5, 6].into_iter().collect());
        assert_eq!((view.sequence(9), view.uid(2)), (Some(2), Some(9)));
        assert_eq!(view.uids_between(4, 69_999).collect::<Vec<_>>(), [9]);
        assert_eq!(view.uids_between(9, 8).count(), 0);
    }

    #[test]
    fn the_last_messages_are_kept() {
        let uids = [3, 5, 9, 70_000];
        for (count, lowest, kept) in [
            (3, Some(5), &uids[1..]),
            (4, None, &uids[..]),
            (5, None, &uids[..]),
        ] {
            let mut view: View = uids.into_iter().collect();
            assert_eq!(view.keep_last(count), lowest);
            assert!(view.uids().eq(kept.iter().copied()));
            assert_eq!(view.ends(), Some((kept[0], 70_000)));
        }
        assert_eq!(View::default().keep_last(1), None);
        assert_eq!(View::default().ends(), None);
    }

    #[test]
    fn a_view_is_written_as_ranges_and_read_back() {
        for uids in [
            vec![],
            vec![1],
            (1..200_000).collect(),
            (1..100_000).step_by(2).collect(),
        ] {
            let view: View = uids.iter().copied().collect();
            let text = serde_json::to_string(&view).unwrap();
            let back: View = serde_json::from_str(&text).unwrap();
            assert_eq!(back, view);
            assert!(back.uids().eq(uids.iter().copied()));
            assert_eq!(
                view.ranges().len(),
                uids.chunk_by(|a, b| a + 1 == *b).count()
            );
        }
    }
}
