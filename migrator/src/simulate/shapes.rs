//! How the load of an account spreads over the week, by what kind of user it has.

use crate::balance::{HOURS, Random};

/// Load by hour of the week with mean 1.
pub type Shape = [f32; HOURS];

/// What kind of user an account has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// At work from Monday to Friday, 8 to 18.
    Office,
    /// In the evening, and during the day at weekends.
    Home,
    /// A phone that polls while its owner is awake.
    Phone,
    /// A program: all hours alike.
    Machine,
}

/// Each kind once for each hour that its users may be early or late.
pub const SHAPES: usize = 4 * OFFSETS.len();

/// Some begin an hour earlier or later.
const OFFSETS: [usize; 3] = [HOURS - 1, 0, 1];

/// All shapes, in the order in which [`pick`] numbers them.
#[must_use]
pub fn all() -> Vec<Shape> {
    let mut shapes = Vec::with_capacity(SHAPES);
    for kind in [Kind::Office, Kind::Home, Kind::Phone, Kind::Machine] {
        for offset in OFFSETS {
            let raw: [f32; HOURS] =
                std::array::from_fn(|hour| level(kind, (hour + offset) % HOURS));
            shapes.push(normalised(&raw));
        }
    }
    shapes
}

/// A shape for a user of this kind.
pub fn pick(kind: Kind, random: &mut Random) -> u32 {
    let first = match kind {
        Kind::Office => 0,
        Kind::Home => 1,
        Kind::Phone => 2,
        Kind::Machine => 3,
    };
    (first * OFFSETS.len() + random.below(OFFSETS.len())) as u32
}

/// The same with mean 1; all hours alike where there is no load.
#[must_use]
pub fn normalised(hours: &[f32; HOURS]) -> Shape {
    let mean = hours.iter().map(|hour| f64::from(*hour)).sum::<f64>() / HOURS as f64;
    if mean > 0.0 {
        hours.map(|hour| (f64::from(hour) / mean) as f32)
    } else {
        [1.0; HOURS]
    }
}

/// Ours: the profile gives only the peak hour's share of a day (48,000 of 450,000 messages, 2.6
/// times the mean hour), which the mix of kinds has too.
fn level(kind: Kind, hour: usize) -> f32 {
    let (day, hour) = (hour / 24, hour % 24);
    let weekend = day >= 5;
    match kind {
        Kind::Office if weekend => match hour {
            9..=20 => 0.3,
            _ => 0.1,
        },
        Kind::Office => match hour {
            8 => 3.5,
            9..=11 => 5.0,
            12 => 3.5,
            13..=16 => 4.5,
            17 => 3.0,
            18..=21 => 0.8,
            _ => 0.2,
        },
        Kind::Home if weekend => match hour {
            9..=17 => 2.2,
            18..=22 => 2.8,
            7 | 8 | 23 => 1.0,
            _ => 0.3,
        },
        Kind::Home => match hour {
            7..=16 => 1.0,
            17 => 2.0,
            18..=21 => 4.0,
            22 => 2.5,
            6 | 23 => 0.8,
            _ => 0.2,
        },
        Kind::Phone => match hour {
            7..=22 => 2.0,
            6 | 23 => 1.0,
            _ => 0.5,
        },
        Kind::Machine => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_has_mean_one_and_none_is_without_load() {
        let shapes = all();
        assert_eq!(shapes.len(), SHAPES);
        for shape in shapes {
            assert!((shape.iter().sum::<f32>() / HOURS as f32 - 1.0).abs() < 1e-3);
            assert!(shape.iter().all(|hour| *hour > 0.0));
        }
    }
}
