//! What blocks allow to be said: quantiles of merged histograms, their differences, and how sure they are.
//! Differences of quantiles are no quantiles of differences: what one request lost cannot be seen from outside.

use hdrhistogram::Histogram;
use onehop_load::random::Random;
use serde::{Deserialize, Serialize};

/// A figure with its 95 % confidence interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// From all blocks.
    pub value: f64,
    /// The interval's ends.
    pub low: f64,
    /// See `low`.
    pub high: f64,
}

impl Estimate {
    /// Whether zero is no likely value.
    pub fn is_significant(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }

    /// Whether two intervals have values in common.
    pub fn overlaps(&self, other: &Estimate) -> bool {
        self.low <= other.high && other.low <= self.high
    }

    /// Value and ends in another unit, for a plot: a point where there is no interval.
    pub fn drawn(&self, unit: f64) -> (f64, f64, f64) {
        let end = |end: f64| if end.is_finite() { end / unit } else { self.value / unit };
        (self.value / unit, end(self.low), end(self.high))
    }

    /// Whether there is an interval: one round alone has none.
    pub fn has_interval(&self) -> bool {
        self.low.is_finite() && self.high.is_finite()
    }
}

/// Non-empty buckets: a value and how often it was seen.
pub type Sparse = Vec<(u64, u64)>;

/// A histogram's non-empty buckets.
pub fn sparse(histogram: &Histogram<u64>) -> Sparse {
    histogram.iter_recorded().map(|bucket| (bucket.value_iterated_to(), bucket.count_at_value())).collect()
}

/// Quantiles (each 0 to 1, ascending) of several blocks together, in nanoseconds.
pub fn quantiles(blocks: &[&Sparse], wanted: &[f64]) -> Vec<f64> {
    let mut all: Vec<(u64, u64)> = blocks.iter().flat_map(|block| block.iter().copied()).collect();
    all.sort_unstable();
    let total: u64 = all.iter().map(|(_, count)| count).sum();
    let mut found = Vec::with_capacity(wanted.len());
    let (mut at, mut seen) = (0, 0);
    for quantile in wanted {
        let rank = ((total as f64 * quantile).ceil() as u64).max(1);
        while at < all.len() && seen + all[at].1 < rank {
            seen += all[at].1;
            at += 1;
        }
        found.push(all.get(at).map_or(f64::NAN, |(value, _)| *value as f64));
    }
    found
}

/// The mean of several blocks together, in nanoseconds.
pub fn mean(blocks: &[&Sparse]) -> f64 {
    let (sum, count) = blocks
        .iter()
        .flat_map(|block| block.iter())
        .fold((0.0, 0.0), |(sum, all), (value, count)| (sum + *value as f64 * *count as f64, all + *count as f64));
    if count > 0.0 { sum / count } else { f64::NAN }
}

/// Where a block belongs: blocks of one life of the processes are more alike than others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Which life.
    pub restart: usize,
    /// Which round in it.
    pub round: usize,
}

/// How often blocks are drawn anew.
pub const DRAWS: usize = 400;

/// Draws rounds with replacement, in two steps: lives of the processes, and rounds within them. What was measured in
/// the same round is drawn together, so that drift of the machine cancels.
pub fn draws(places: &[Place], seed: u64) -> Vec<Vec<Place>> {
    let mut random = Random::new(seed, 77);
    let mut restarts: Vec<usize> = places.iter().map(|place| place.restart).collect();
    restarts.dedup();
    let rounds =
        |restart: usize| places.iter().filter(move |place| place.restart == restart).copied().collect::<Vec<_>>();
    let by_restart: Vec<Vec<Place>> = restarts.iter().map(|restart| rounds(*restart)).collect();
    let one = |_| {
        (0..by_restart.len())
            .flat_map(|_| {
                let life = &by_restart[random.below(by_restart.len() as u64) as usize];
                (0..life.len()).map(|_| life[random.below(life.len() as u64) as usize]).collect::<Vec<_>>()
            })
            .collect()
    };
    (0..DRAWS).map(one).collect()
}

/// By how much the interval of a bootstrap over so few units is too narrow: Student's t over the normal quantile, and the
/// variance that is divided by n instead of n - 1.
fn widening(units: usize) -> f64 {
    /// The 97.5 % quantile of Student's t by degrees of freedom, from one on.
    const T: [f64; 15] =
        [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131];
    let t = T.get(units.saturating_sub(2)).copied().unwrap_or(1.96);
    t / 1.96 * (units as f64 / (units.max(2) - 1) as f64).sqrt()
}

/// The figure from all rounds, with the interval that the draws give, widened for how few the lives are (the rounds, where
/// there is but one life). A single round has no interval: its ends are not numbers.
pub fn bootstrap(places: &[Place], draws: &[Vec<Place>], figure: impl Fn(&[Place]) -> f64) -> Estimate {
    let value = figure(places);
    let mut drawn: Vec<f64> = draws.iter().map(|places| figure(places)).filter(|figure| figure.is_finite()).collect();
    drawn.sort_unstable_by(f64::total_cmp);
    let mut lives: Vec<usize> = places.iter().map(|place| place.restart).collect();
    lives.dedup();
    let units = if lives.len() > 1 { lives.len() } else { places.len() };
    if drawn.is_empty() || units < 2 {
        return Estimate { value, low: f64::NAN, high: f64::NAN };
    }
    let at = |part: f64| drawn[((drawn.len() - 1) as f64 * part).round() as usize];
    // The value itself belongs to its interval, however few the blocks are.
    let (below, above) = ((value - at(0.025)).max(0.0), (at(0.975) - value).max(0.0));
    let wider = widening(units);
    Estimate { value, low: value - below * wider, high: value + above * wider }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(restarts: usize, rounds: usize) -> Vec<Place> {
        (0..restarts).flat_map(|restart| (0..rounds).map(move |round| Place { restart, round })).collect()
    }

    #[test]
    fn merged_quantiles_are_those_of_all_values() {
        let one: Sparse = (1..=50).map(|value| (value, 1)).collect();
        let two: Sparse = (51..=100).map(|value| (value, 1)).collect();
        assert_eq!(quantiles(&[&one, &two], &[0.5, 0.9, 0.99]), [50.0, 90.0, 99.0]);
        assert_eq!(mean(&[&one, &two]), 50.5);
        assert!(quantiles(&[], &[0.5])[0].is_nan());
    }

    #[test]
    fn intervals_cover_the_truth_about_as_often_as_they_say() {
        // Blocks around 100 with a spread of each life's own; the truth is 100. Few lives cover as well as many.
        let mut random = Random::new(5, 5);
        let mut normal = || (0..12).map(|_| random.unit()).sum::<f64>() - 6.0;
        for (restarts, rounds) in [(6, 5), (3, 1), (2, 3)] {
            let all = places(restarts, rounds);
            let mut covered = 0;
            for trial in 0..100 {
                let lives: Vec<f64> = (0..restarts).map(|_| normal() * 3.0).collect();
                let blocks: std::collections::BTreeMap<Place, f64> =
                    all.iter().map(|place| (*place, 100.0 + lives[place.restart] + normal())).collect();
                let mean = |drawn: &[Place]| drawn.iter().map(|place| blocks[place]).sum::<f64>() / drawn.len() as f64;
                let estimate = bootstrap(&all, &draws(&all, trial), mean);
                covered += usize::from(estimate.low <= 100.0 && 100.0 <= estimate.high);
            }
            assert!((88..=100).contains(&covered), "{covered} of 100 with {restarts} lives");
        }
    }

    #[test]
    fn a_single_round_has_no_interval() {
        let all = places(1, 1);
        let estimate = bootstrap(&all, &draws(&all, 1), |_| 5.0);
        assert!(estimate.value == 5.0 && !estimate.has_interval() && !estimate.is_significant());
    }

    #[test]
    fn a_shift_is_significant_and_noise_is_not() {
        let all = places(3, 4);
        let drawn = draws(&all, 1);
        let noisy = |place: &Place| [-1.0, 1.2, -0.7, 0.5][place.round];
        let shifted = bootstrap(&all, &drawn, |p| p.iter().map(|p| 10.0 + noisy(p)).sum::<f64>() / p.len() as f64);
        assert!(shifted.is_significant() && shifted.low > 8.0);
        let none = bootstrap(&all, &drawn, |p| p.iter().map(noisy).sum::<f64>() / p.len() as f64);
        assert!(!none.is_significant() && none.overlaps(&Estimate { value: 0.0, low: 0.0, high: 0.0 }));
    }
}
