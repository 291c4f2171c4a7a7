//! Sets of message numbers: `sequence-set`, kept as few ranges. RFC 9051 §9.

use serde::{Deserialize, Serialize};

/// A set of message sequence numbers or UIDs, as sent; `*` is resolved when used.
///
/// Kept sorted and merged, so that `1:*,1:*,…` is one range whatever its length.
/// The order in which numbers were sent is lost; no command depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
pub struct SequenceSet {
    /// First and last of each range; ascending, apart by at least one number.
    ranges: Vec<(u32, u32)>,
    /// The lowest `n` of all `n:*`. A lone `*` counts as `u32::MAX:*`: both mean
    /// every number from `n` on, and in any case the largest in use.
    star_from: Option<u32>,
}

/// What a command names messages by: a set, or `$`, the result of the last
/// search that was saved. RFC 5182.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageSet {
    /// Numbers as sent.
    Numbers(SequenceSet),
    /// `$`.
    Saved,
}

/// Whether numbers are message sequence numbers or UIDs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addressing {
    /// The plain command.
    Sequence,
    /// The command behind `UID`.
    Uid,
}

/// A window of a result, counted from its beginning or its end. RFC 9394.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialRange {
    /// First position, from 1; never above `last`.
    pub first: u32,
    /// Last position, included.
    pub last: u32,
    /// Whether position 1 is the last result.
    pub from_end: bool,
}

impl SequenceSet {
    /// The set of these ranges, given in any order, ends in any order.
    pub fn from_ranges(ranges: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let mut set = Self::default();
        for (one, other) in ranges {
            set.push(one, other);
        }
        set.normalise();
        set
    }

    /// The set of these numbers.
    pub fn from_numbers(numbers: impl IntoIterator<Item = u32>) -> Self {
        Self::from_ranges(numbers.into_iter().map(|number| (number, number)))
    }

    /// Whether it has no number at all. Never true of a set that was parsed.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.star_from.is_none()
    }

    /// Whether `*` is part of it.
    pub fn has_star(&self) -> bool {
        self.star_from.is_some()
    }

    /// The largest number named, `*` aside. Tells a sequence number beyond the
    /// end of the mailbox.
    pub fn largest(&self) -> Option<u32> {
        let star = self.star_from.filter(|from| *from != u32::MAX);
        self.ranges.last().map(|range| range.1).max(star)
    }

    /// The ranges, `*` being the number given: ascending, disjoint, none above
    /// `largest_in_use`. Nothing when that is 0.
    pub fn resolve(&self, largest_in_use: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
        let star = self
            .star_from
            .filter(|_| largest_in_use > 0)
            .map(|from| (from.min(largest_in_use), largest_in_use));
        // `n:*` may begin inside or beside the last ranges below it.
        let (below, last) = match star {
            None => (largest_in_use, None),
            Some((from, to)) => {
                let touching = self
                    .ranges
                    .iter()
                    .find(|range| range.1 >= from.saturating_sub(1))
                    .map_or(from, |range| range.0.min(from));
                (touching.saturating_sub(1), Some((touching, to)))
            }
        };
        self.ranges
            .iter()
            .take_while(move |range| range.0 <= below)
            .map(move |range| (range.0, range.1.min(below)))
            .chain(last)
    }

    /// Whether a number is in it. Logarithmic in the number of ranges.
    pub fn contains(&self, number: u32, largest_in_use: u32) -> bool {
        if let Some(from) = self.star_from
            && (number == largest_in_use || (number >= from && number < largest_in_use))
        {
            return true;
        }
        let after = self.ranges.partition_point(|range| range.0 <= number);
        after > 0 && self.ranges[after - 1].1 >= number
    }

    /// The ranges without `*`. For sets where `*` cannot stand.
    pub fn ranges(&self) -> &[(u32, u32)] {
        &self.ranges
    }

    /// Adds a range in any place; [`normalise`](Self::normalise) follows.
    pub(super) fn push(&mut self, one: u32, other: u32) {
        let (first, last) = (one.min(other), one.max(other));
        // Most sets are sent in order: merge at once, so that they never grow.
        if let Some(end) = self.ranges.last_mut()
            && first >= end.0
            && first <= end.1.saturating_add(1)
        {
            end.1 = end.1.max(last);
            return;
        }
        self.ranges.push((first, last));
    }

    /// Adds `from:*`.
    pub(super) fn push_star(&mut self, from: u32) {
        self.star_from = Some(self.star_from.map_or(from, |lowest| lowest.min(from)));
    }

    pub(super) fn normalise(&mut self) {
        if !self.ranges.is_sorted() {
            self.ranges.sort_unstable();
        }
        self.ranges.dedup_by(|next, kept| {
            let touches = next.0 <= kept.1.saturating_add(1);
            if touches {
                kept.1 = kept.1.max(next.1);
            }
            touches
        });
        self.ranges.shrink_to_fit();
    }

    /// Writes it as `sequence-set`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let star = self.star_from.map(|from| match from {
            u32::MAX => "*".to_owned(),
            from => format!("{from}:*"),
        });
        let mut separator = "";
        for (first, last) in &self.ranges {
            let part = match first == last {
                true => format!("{separator}{first}"),
                false => format!("{separator}{first}:{last}"),
            };
            out.extend_from_slice(part.as_bytes());
            separator = ",";
        }
        if let Some(star) = star {
            out.extend_from_slice(separator.as_bytes());
            out.extend_from_slice(star.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(set: &SequenceSet, largest: u32) -> Vec<(u32, u32)> {
        set.resolve(largest).collect()
    }

    fn with_star(ranges: &[(u32, u32)], from: u32) -> SequenceSet {
        let mut set = SequenceSet::from_ranges(ranges.iter().copied());
        set.push_star(from);
        set
    }

    #[test]
    fn ranges_merge_in_any_order() {
        let set = SequenceSet::from_ranges([(7, 5), (1, 2), (3, 3), (9, 20), (10, 11), (5, 6)]);
        assert_eq!(set.ranges(), [(1, 3), (5, 7), (9, 20)]);
        assert_eq!(set.largest(), Some(20));
        assert_eq!(resolved(&set, 10), [(1, 3), (5, 7), (9, 10)]);
        assert_eq!(resolved(&set, 4), [(1, 3)]);
        assert_eq!(resolved(&set, 0), []);
    }

    #[test]
    fn a_star_is_the_largest_in_use_and_all_from_its_other_end() {
        assert_eq!(resolved(&with_star(&[], u32::MAX), 5), [(5, 5)]);
        assert_eq!(resolved(&with_star(&[], 3), 5), [(3, 5)]);
        // RFC 9051 §9: `9:*` with 5 in use still is the fifth.
        assert_eq!(resolved(&with_star(&[], 9), 5), [(5, 5)]);
        assert_eq!(resolved(&with_star(&[(1, 4)], 9), 5), [(1, 5)]);
        assert_eq!(
            resolved(&with_star(&[(1, 2), (4, 4)], 5), 8),
            [(1, 2), (4, 8)]
        );
        assert_eq!(resolved(&with_star(&[(1, 20)], 5), 8), [(1, 8)]);
        assert_eq!(
            resolved(&with_star(&[(1, 2), (12, 20)], 30), 8),
            [(1, 2), (8, 8)]
        );
        assert_eq!(resolved(&with_star(&[(1, 2)], 1), 0), []);
    }

    #[test]
    fn contains_agrees_with_resolve() {
        for set in [
            SequenceSet::from_ranges([(2, 3), (6, 8)]),
            with_star(&[(2, 3)], 6),
            with_star(&[(2, 3), (9, 12)], u32::MAX),
            with_star(&[(5, 7)], 6),
        ] {
            for largest in 1..12 {
                for number in 1..=largest {
                    let is_in = set.resolve(largest).any(|(a, b)| (a..=b).contains(&number));
                    assert_eq!(
                        set.contains(number, largest),
                        is_in,
                        "{set:?} {number} {largest}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_ends_of_the_number_range_do_not_overflow() {
        let set = SequenceSet::from_ranges([(1, u32::MAX), (u32::MAX, u32::MAX), (5, 6)]);
        assert_eq!(set.ranges(), [(1, u32::MAX)]);
        assert!(set.contains(u32::MAX, u32::MAX));
    }

    #[test]
    fn a_set_is_written_as_it_is_read() {
        let mut out = Vec::new();
        with_star(&[(1, 1), (3, 5)], 9).encode(&mut out);
        out.push(b' ');
        with_star(&[], u32::MAX).encode(&mut out);
        assert_eq!(out, b"1,3:5,9:* *");
    }
}
