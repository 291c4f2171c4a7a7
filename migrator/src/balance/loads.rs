//! Load by hour of the week, of an account and of a back-end.

use super::Snapshot;

pub use store_api::load::HOURS;

/// A load for each hour of the week. The unit is the source's: only ratios matter.
pub type Hours = [f64; HOURS];

/// The load of each back-end by hour of the week, in the snapshot's order.
#[derive(Clone, Debug, PartialEq)]
pub struct Loads(pub Vec<Hours>);

impl Loads {
    /// As the accounts live now.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut loads = vec![[0.0; HOURS]; snapshot.backends().len()];
        for (index, account) in snapshot.accounts().iter().enumerate() {
            let profile = snapshot.packed(index);
            for (sum, hour) in loads[account.home as usize].iter_mut().zip(profile) {
                *sum += f64::from(hour.load());
            }
        }
        Self(loads)
    }

    /// Takes `hours` from one back-end to another.
    pub fn carry(&mut self, hours: &Hours, from: usize, to: usize) {
        for (hour, load) in hours.iter().enumerate() {
            self.0[from][hour] -= load;
            self.0[to][hour] += load;
        }
    }
}

/// Each hour with half of its own load and a quarter of each neighbour's: a single hour of a week
/// is measured two or three times in a half-life and is mostly noise.
pub(super) fn smooth(hours: &Hours) -> Hours {
    std::array::from_fn(|hour| {
        let before = hours[(hour + HOURS - 1) % HOURS];
        let after = hours[(hour + 1) % HOURS];
        hours[hour] / 2.0 + (before + after) / 4.0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_moves_load_between_hours_and_loses_none() {
        let mut hours = [0.0; HOURS];
        hours[0] = 4.0;
        let smoothed = smooth(&hours);
        assert_eq!(
            (smoothed[167], smoothed[0], smoothed[1], smoothed[2]),
            (1.0, 2.0, 1.0, 0.0)
        );
        assert_eq!(smoothed.iter().sum::<f64>(), 4.0);
    }
}
