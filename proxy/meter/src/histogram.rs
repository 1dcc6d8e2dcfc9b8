//! Log-linear histograms of nanoseconds: eight buckets per power of two, so that a value is known within 12.5 %.

use std::sync::OnceLock;

use crate::core::Counter;

/// Buckets per power of two.
const STEPS: u32 = 8;
/// The first bucket ends at about a microsecond (2^10 ns), the last at about 69 s (2^36 ns).
const LOWEST: u32 = 10;
const HIGHEST: u32 = 36;
const BUCKETS: usize = ((HIGHEST - LOWEST) * STEPS + 2) as usize;

/// One core's histogram.
#[derive(Debug)]
pub struct Histogram {
    counts: [Counter; BUCKETS],
    sum_ns: Counter,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: std::array::from_fn(|_| Counter::default()), sum_ns: Counter::default() }
    }
}

fn bucket(ns: u64) -> usize {
    if ns < 1 << LOWEST {
        return 0;
    }
    let power = ns.ilog2();
    if power >= HIGHEST {
        return BUCKETS - 1;
    }
    let step = (ns >> (power - STEPS.ilog2())) as u32 & (STEPS - 1);
    ((power - LOWEST) * STEPS + step + 1) as usize
}

/// The upper bound of a bucket, in nanoseconds.
fn bound(bucket: usize) -> u64 {
    let at = bucket as u32;
    let (power, step) = (LOWEST + at / STEPS, at % STEPS);
    (1u64 << power) + u64::from(step) * (1u64 << (power - STEPS.ilog2()))
}

impl Histogram {
    /// Counts one value.
    #[inline]
    pub fn record(&self, ns: u64) {
        self.counts[bucket(ns)].add(1);
        self.sum_ns.add(ns);
    }
}

/// How many values and their sum, without how they are spread.
#[derive(Debug, Default)]
struct Totals {
    count: Counter,
    sum_ns: Counter,
}

#[derive(Debug)]
enum Kept {
    Spread(Box<Histogram>),
    Totals(Box<Totals>),
}

/// A histogram that takes memory only once it is used; a coarse one knows no more than count and sum.
#[derive(Debug, Default)]
pub struct LazyHistogram(OnceLock<Kept>);

impl LazyHistogram {
    /// One without buckets: of a series beyond those that are shown with them.
    pub fn coarse() -> LazyHistogram {
        LazyHistogram(OnceLock::from(Kept::Totals(Box::default())))
    }

    /// Counts one value.
    #[inline]
    pub fn record(&self, ns: u64) {
        match self.0.get_or_init(|| Kept::Spread(Box::default())) {
            Kept::Spread(histogram) => histogram.record(ns),
            Kept::Totals(totals) => {
                totals.count.add(1);
                totals.sum_ns.add(ns);
            }
        }
    }
}

/// Histograms of several cores, added up.
#[derive(Debug)]
pub struct Merged {
    counts: [u64; BUCKETS],
    /// Values of which no more is known than their sum.
    coarse: u64,
    /// Sum of the values, in nanoseconds.
    pub sum_ns: u64,
}

impl Default for Merged {
    fn default() -> Merged {
        Merged { counts: [0; BUCKETS], coarse: 0, sum_ns: 0 }
    }
}

impl Merged {
    /// Adds one core's.
    pub fn add(&mut self, histogram: &LazyHistogram) {
        match histogram.0.get() {
            None => {}
            Some(Kept::Totals(totals)) => {
                self.coarse += totals.count.get();
                self.sum_ns += totals.sum_ns.get();
            }
            Some(Kept::Spread(histogram)) => {
                for (sum, count) in self.counts.iter_mut().zip(&histogram.counts) {
                    *sum += count.get();
                }
                self.sum_ns += histogram.sum_ns.get();
            }
        }
    }

    /// How many values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.coarse
    }

    /// Whether it is known how the values are spread.
    pub fn is_spread(&self) -> bool {
        self.coarse == 0
    }

    /// The upper bound of the bucket that holds the quantile (0 to 1), in nanoseconds.
    pub fn quantile(&self, quantile: f64) -> u64 {
        let rank = (self.count() as f64 * quantile).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return bound(at.min(BUCKETS - 2));
            }
        }
        0
    }

    /// Cumulative counts at bounds that a scrape can show: powers of two from 1 us to 69 s, in nanoseconds.
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut seen = 0;
        self.counts[..BUCKETS - 1].iter().enumerate().filter_map(move |(at, count)| {
            seen += count;
            (at as u32).is_multiple_of(STEPS).then(|| (bound(at), seen))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_below_its_bound_and_within_an_eighth() {
        let mut ns = 1u64;
        while ns < 60_000_000_000 {
            let at = bucket(ns);
            assert!(ns < bound(at), "{ns}");
            assert!(at == 0 || ns >= bound(at - 1), "{ns}");
            if at > 0 {
                assert!(bound(at) - ns <= ns / 8 + 1, "{ns}");
            }
            ns = ns * 21 / 20 + 1;
        }
    }

    #[test]
    fn merging_adds_and_quantiles_follow() {
        let (one, two) = (LazyHistogram::default(), LazyHistogram::default());
        for ns in 1..=1000u64 {
            one.record(ns * 1000);
            two.record(ns * 1000);
        }
        let mut merged = Merged::default();
        merged.add(&one);
        merged.add(&two);
        merged.add(&LazyHistogram::default());
        assert_eq!(merged.count(), 2000);
        let median = merged.quantile(0.5);
        assert!((500_000..570_000).contains(&median), "{median}");
        assert_eq!(merged.cumulative().last().map(|(_, count)| count), Some(2000));
    }

    #[test]
    fn a_coarse_one_knows_count_and_sum() {
        let coarse = LazyHistogram::coarse();
        coarse.record(5_000);
        coarse.record(7_000);
        let mut merged = Merged::default();
        merged.add(&coarse);
        assert_eq!((merged.count(), merged.sum_ns, merged.is_spread()), (2, 12_000, false));
    }
}
