//! Load by hour of the week, of an account and of a back-end.

use super::Snapshot;

/// Hours of a week; hour 0 begins on Monday at 00:00 UTC.
pub const HOURS: usize = 168;

/// A load for each hour of the week. The unit is the source's: only ratios matter.
pub type Hours = [f64; HOURS];

/// The load of one hour in two octets: the upper half of an `f32`.
///
/// A million accounts have 168 million of them: 336 MB instead of 672. Seven bits after the point
/// are an error of 0.4 % at most, in either direction, which is far below what an hour of a week
/// is known by; the load of a back-end is summed from the same values, so that nothing appears or
/// vanishes when an account moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packed(u16);

impl Packed {
    /// `load` is finite and not negative.
    pub(super) fn new(load: f32) -> Self {
        let bits = load.to_bits();
        // Rounded to the nearest. What is checked at the entry is far below the largest exponent.
        Self(u16::try_from((bits + 0x8000) >> 16).unwrap_or(u16::MAX))
    }

    pub(super) fn load(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
}

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
    fn a_packed_load_is_right_within_four_thousandths_and_zero_stays_zero() {
        assert_eq!(Packed::new(0.0).load(), 0.0);
        for load in [1e-30_f32, 0.001, 0.999, 1.0, 1.003, 77.7, 1e15] {
            let packed = Packed::new(load).load();
            assert!((packed / load - 1.0).abs() <= 0.004, "{load} {packed}");
        }
    }

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
