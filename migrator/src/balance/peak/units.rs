//! What moves as one: an account, or the members of a group that live on one back-end.

use std::collections::BTreeMap;

use super::super::loads::smooth;
use super::super::{HOURS, Hours, Snapshot};

/// One account or several.
#[derive(Debug)]
pub(super) struct Unit {
    members: Members,
    pub(super) octets: u64,
    /// It may move to relieve its back-end.
    pub(super) free: bool,
    /// It may move from a back-end that is being emptied.
    pub(super) pinned: bool,
    /// Where another part of the same group lives, the one with most octets.
    pub(super) other_part: Option<u32>,
}

#[derive(Debug)]
enum Members {
    One(u32),
    Group(Box<[u32]>),
}

impl Unit {
    pub(super) fn members(&self) -> &[u32] {
        match &self.members {
            Members::One(account) => std::slice::from_ref(account),
            Members::Group(accounts) => accounts,
        }
    }

    /// Its load, smoothed.
    pub(super) fn hours(&self, snapshot: &Snapshot) -> Hours {
        let mut sum = [0.0; HOURS];
        for member in self.members() {
            for (sum, hour) in sum.iter_mut().zip(snapshot.packed(*member as usize)) {
                *sum += f64::from(hour.load());
            }
        }
        smooth(&sum)
    }

    /// How much of its load falls into hours, by their weight.
    pub(super) fn weighted(&self, snapshot: &Snapshot, weights: &[f32; HOURS]) -> f64 {
        let mut sum = 0.0;
        for member in self.members() {
            let packed = snapshot.packed(*member as usize);
            // Eight sums side by side, which the processor adds at once.
            let mut lanes = [0.0_f32; 8];
            for (hours, weights) in packed.chunks_exact(8).zip(weights.chunks_exact(8)) {
                for lane in 0..8 {
                    lanes[lane] += hours[lane].load() * weights[lane];
                }
            }
            sum += f64::from(lanes.iter().sum::<f32>());
        }
        sum
    }
}

/// The units that live on each back-end.
pub(super) fn by_home(snapshot: &Snapshot, memory_days: f64) -> Vec<Vec<Unit>> {
    let mut homes: Vec<Vec<Unit>> = Vec::new();
    homes.resize_with(snapshot.backends().len(), Vec::new);
    let mut groups: BTreeMap<u32, BTreeMap<u32, Vec<u32>>> = BTreeMap::new();
    for (index, account) in snapshot.accounts().iter().enumerate() {
        let index = index as u32;
        match account.group {
            Some(group) => {
                let parts = groups.entry(group).or_default();
                parts.entry(account.home).or_default().push(index);
            }
            None => homes[account.home as usize].push(unit(
                snapshot,
                Members::One(index),
                memory_days,
                None,
            )),
        }
    }
    for parts in groups.into_values() {
        let octets = |members: &[u32]| -> u64 {
            let octets = members
                .iter()
                .map(|m| snapshot.accounts()[*m as usize].octets);
            octets.sum()
        };
        let sizes: Vec<(u32, u64)> = parts.iter().map(|(home, m)| (*home, octets(m))).collect();
        for (home, members) in parts {
            let others = sizes.iter().filter(|(other, _)| *other != home);
            let other_part = others
                .max_by_key(|(_, octets)| *octets)
                .map(|(home, _)| *home);
            let members = Members::Group(members.into());
            homes[home as usize].push(unit(snapshot, members, memory_days, other_part));
        }
    }
    homes
}

fn unit(snapshot: &Snapshot, members: Members, memory_days: f64, other_part: Option<u32>) -> Unit {
    let mut unit = Unit {
        members,
        octets: 0,
        free: other_part.is_none(),
        pinned: false,
        other_part,
    };
    let (mut octets, mut pinned, mut rested) = (0, false, true);
    for member in unit.members() {
        let account = &snapshot.accounts()[*member as usize];
        octets += account.octets;
        pinned |= account.pinned;
        rested &= snapshot
            .days_since_move(account)
            .is_none_or(|days| days >= memory_days);
    }
    unit.octets = octets;
    unit.pinned = pinned;
    unit.free &= !pinned && rested;
    unit
}
