//! Sizes of mailboxes as the workload profile of the design has them (its section 11).

use crate::balance::Random;

/// Octets of a mailbox at a normal score: the quantiles of the profile, joined by straight lines in
/// normal score and logarithm, which is a log-normal between each two of them.
///
/// Below the median the line of the upper half goes on; above the last quantile a Pareto tail with
/// the exponent that the last two have between them. The profile gives the mean, too (690 KB), and
/// it comes out within a tenth of itself, so nothing else is fitted.
#[must_use]
pub fn octets_at(score: f64) -> f64 {
    let last = QUANTILES[QUANTILES.len() - 1];
    if score >= last.0 {
        let beyond = survival(score) / survival(last.0);
        return (last.1 * beyond.powf(-1.0 / TAIL_EXPONENT)).min(OCTETS_MAX);
    }
    let upper = QUANTILES
        .iter()
        .position(|(at, _)| score < *at)
        .unwrap_or(1)
        .max(1);
    let ((from, low), (to, high)) = (QUANTILES[upper - 1], QUANTILES[upper]);
    let share = (score - from) / (to - from);
    low * (high / low).powf(share)
}

/// A pair of normal scores with correlation `correlation`.
pub fn correlated(random: &mut Random, correlation: f64) -> (f64, f64) {
    let first = random.normal();
    let own = random.normal();
    (
        first,
        correlation * first + (1.0 - correlation * correlation).sqrt() * own,
    )
}

/// Normal score and octets: median, 90, 95, 99 and 99.9 % of the profile.
const QUANTILES: [(f64, f64); 5] = [
    (0.0, 9_282.0),
    (1.281_552, 1.1e6),
    (1.644_854, 3.35e6),
    (2.326_348, 12e6),
    (3.090_232, 42.1e6),
];

/// ln 10 / ln (42.1 / 12).
const TAIL_EXPONENT: f64 = 1.835;

/// No mailbox is larger; one in a hundred million would be.
const OCTETS_MAX: f64 = 1e12;

/// The share of a normal distribution above a score ≥ 3, by its asymptotic series: right within
/// one part in two hundred there.
fn survival(score: f64) -> f64 {
    let square = score * score;
    (-square / 2.0).exp() / (score * std::f64::consts::TAU.sqrt())
        * (1.0 - 1.0 / square + 3.0 / (square * square))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_quantiles_and_the_mean_of_the_profile() {
        let mut random = Random::new(1);
        let mut sizes: Vec<f64> = (0..400_000).map(|_| octets_at(random.normal())).collect();
        sizes.sort_by(f64::total_cmp);
        let at = |share: f64| sizes[(sizes.len() as f64 * share) as usize];
        for (share, octets) in [
            (0.5, 9_282.0),
            (0.9, 1.1e6),
            (0.95, 3.35e6),
            (0.99, 12e6),
            (0.999, 42.1e6),
        ] {
            assert!(
                (at(share) / octets - 1.0).abs() < 0.1,
                "{share}: {}",
                at(share)
            );
        }
        let mean = sizes.iter().sum::<f64>() / sizes.len() as f64;
        assert!((mean / 690e3 - 1.0).abs() < 0.1, "mean {mean}");
    }
}
