//! Chance that a seed repeats.

use super::super::*;
use super::KEYWORDS;

/// Numbers of a seed.
pub(in super::super) struct Random(pub(in super::super) u64);

impl Random {
    /// SplitMix64.
    pub(in super::super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(in super::super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    pub(in super::super) fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }

    pub(in super::super) fn keywords(&mut self) -> Vec<String> {
        let set = self.below(32) & self.below(32);
        let chosen = (0..5).filter(|bit| set & (1 << bit) != 0);
        chosen.map(|bit| KEYWORDS[bit].to_owned()).collect()
    }

    pub(in super::super) fn flags(&mut self) -> FlagSet {
        FlagSet {
            system: Flags(u32::try_from(self.below(32) & self.below(32)).unwrap()),
            keywords: self.keywords(),
        }
    }
}
