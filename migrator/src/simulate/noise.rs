//! What an hour makes of the load that is expected of it.

use super::workload::Parameters;
use crate::balance::Random;

/// Draws loads: a number of events (Poisson), each with a cost of its own (log-normal), times what
/// the hour is like for its user (log-normal).
///
/// So the heavy accounts, of many events, are steadier than the light ones, which are silent in most
/// hours. Tables of drawn values stand for the distributions: hundreds of millions are needed.
pub(super) struct Noise {
    /// Costs of events with mean `1 / events`.
    costs: Vec<f32>,
    /// What an hour is like, with mean 1.
    hours: Vec<f32>,
    /// From the normal distribution.
    normals: Vec<f32>,
    events: f32,
    /// Deviation of the sum of many events, times the root of their number.
    spread: f32,
}

impl Noise {
    pub(super) fn new(cohort: u64, parameters: &Parameters, random: &mut Random) -> Self {
        // What hours are like for so many users of unequal weight: the deviation of a sum of n
        // whose squared coefficient of variation is v falls like the root of n / (1 + v).
        let unequal = (parameters.activity_sigma * parameters.activity_sigma).exp();
        let narrower = (cohort as f64 / unequal).max(1.0).sqrt();
        let event_sigma = (1.0 + parameters.event_variation).ln().sqrt();
        let costs = table(event_sigma, random).map(|cost| cost / parameters.events);
        let hours = table(parameters.hour_sigma, random).map(|hour| 1.0 + (hour - 1.0) / narrower);
        Self {
            costs: costs.map(|cost| cost as f32).collect(),
            hours: hours.map(|hour| hour as f32).collect(),
            normals: (0..ENTRIES).map(|_| random.normal() as f32).collect(),
            events: parameters.events as f32,
            spread: (1.0 + parameters.event_variation).sqrt() as f32,
        }
    }

    /// A load with the mean `level`.
    pub(super) fn around(&self, level: f32, random: &mut Random) -> f32 {
        let bits = random.bits();
        let expected = level * self.events;
        let hour = self.hours[(bits & MASK) as usize];
        let sum = if expected > MANY {
            let normal = self.normals[(bits >> 16 & MASK) as usize];
            let number = expected + self.spread * expected.sqrt() * normal;
            number.max(0.0) / self.events
        } else {
            // Knuth's way: as many events as uniform draws have a product above e^-expected.
            let limit = (-expected).exp();
            let mut product = (bits >> 40) as f32 / (1 << 24) as f32;
            let mut sum = 0.0;
            while product > limit {
                let bits = random.bits();
                sum += self.costs[(bits & MASK) as usize];
                product *= (bits >> 40) as f32 / (1 << 24) as f32;
            }
            sum
        };
        sum * hour
    }
}

/// Log-normal values with mean 1.
fn table(sigma: f64, random: &mut Random) -> impl Iterator<Item = f64> + use<> {
    let table: Vec<f64> = (0..ENTRIES)
        .map(|_| (sigma * random.normal()).exp())
        .collect();
    let mean = table.iter().sum::<f64>() / table.len() as f64;
    table.into_iter().map(move |value| value / mean)
}

const ENTRIES: usize = 1 << 16;
const MASK: u64 = ENTRIES as u64 - 1;

/// Above this the number of events and their costs are taken from one normal distribution.
const MANY: f32 = 12.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_have_the_mean_asked_for_and_heavy_accounts_are_steadier() {
        let mut random = Random::new(1);
        let noise = Noise::new(1, &Parameters::default(), &mut random);
        let mut variation = Vec::new();
        for level in [0.1_f32, 1.0, 10.0, 30.0, 300.0] {
            let loads: Vec<f64> = (0..400_000)
                .map(|_| f64::from(noise.around(level, &mut random)))
                .collect();
            let mean = loads.iter().sum::<f64>() / loads.len() as f64;
            let square = loads.iter().map(|load| load * load).sum::<f64>() / loads.len() as f64;
            assert!(
                (mean / f64::from(level) - 1.0).abs() < 0.03,
                "{level}: {mean}"
            );
            variation.push((square / mean / mean - 1.0).sqrt());
        }
        assert!(variation.is_sorted_by(|a, b| a > b), "{variation:?}");
        assert!(variation[4] > 0.3 && variation[0] > 5.0, "{variation:?}");
    }
}
