//! The time within which a share of a cluster's answers come, as one core has lately seen it: counts in buckets whose
//! width is an eighth of their value, halved every few seconds. Pure: time is an argument.

/// The first octave's exponent: everything below 65 us shares its first bucket.
const LOWEST: u32 = 16;
const OCTAVES: usize = 21;
const PARTS: usize = 8;
/// Fewer answers than this say nothing.
const ENOUGH: u32 = 50;
/// How often the past is halved.
const HALVED_NS: u64 = 5_000_000_000;
/// How many answers an estimate stands for.
const STANDS: u32 = 16;

/// See the module.
#[derive(Debug)]
pub struct Quantile {
    counts: [u32; OCTAVES * PARTS],
    total: u32,
    halved_at: u64,
    estimate: Option<u64>,
    share: f64,
    stands: u32,
}

fn bucket(ns: u64) -> usize {
    let ns = ns.max(1 << LOWEST);
    let octave = 63 - ns.leading_zeros();
    let part = (ns >> (octave - 3)) as usize & (PARTS - 1);
    ((octave - LOWEST) as usize * PARTS + part).min(OCTAVES * PARTS - 1)
}

/// The bucket's upper bound.
fn bound(bucket: usize) -> u64 {
    let (octave, part) = (bucket / PARTS, bucket % PARTS);
    ((PARTS + part + 1) as u64) << (LOWEST as usize + octave - 3)
}

impl Quantile {
    /// Of this share: 0.95.
    pub fn new(share: f64) -> Quantile {
        Quantile { counts: [0; OCTAVES * PARTS], total: 0, halved_at: 0, estimate: None, share, stands: 0 }
    }

    /// Counts an answer that took this long.
    pub fn observe(&mut self, latency_ns: u64, now: u64) {
        if now.saturating_sub(self.halved_at) > HALVED_NS {
            if self.halved_at != 0 {
                self.counts.iter_mut().for_each(|count| *count /= 2);
                self.total = self.counts.iter().sum();
            }
            self.halved_at = now;
        }
        self.counts[bucket(latency_ns)] += 1;
        self.total += 1;
        self.stands = self.stands.saturating_sub(1);
        if self.stands == 0 && self.total >= ENOUGH {
            self.stands = STANDS;
            self.estimate = Some(self.look());
        }
    }

    /// The time within which the share came; `None` while hardly anything is known.
    pub fn estimate(&self) -> Option<u64> {
        self.estimate
    }

    fn look(&self) -> u64 {
        let wanted = (f64::from(self.total) * self.share).ceil() as u32;
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return bound(at);
            }
        }
        bound(OCTAVES * PARTS - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn it_finds_the_share_within_a_bucket() {
        let mut quantile = Quantile::new(0.95);
        for at in 1..=1000 {
            quantile.observe(at * MS, 1);
        }
        let found = quantile.estimate().expect("enough");
        assert!((950 * MS..=950 * MS * 9 / 8 + MS).contains(&found), "{found}");
    }

    #[test]
    fn little_says_nothing_and_the_past_fades() {
        let mut quantile = Quantile::new(0.95);
        for _ in 0..ENOUGH - 1 {
            quantile.observe(10 * MS, 1);
            assert_eq!(quantile.estimate(), None);
        }
        for _ in 0..2000 {
            quantile.observe(10 * MS, 1);
        }
        // Slower by ten times: within some halvings that is what it says.
        for second in 1..60 {
            for _ in 0..50 {
                quantile.observe(100 * MS, second * 1_000_000_000);
            }
        }
        assert!(quantile.estimate().is_some_and(|found| found >= 100 * MS), "{:?}", quantile.estimate());
    }

    #[test]
    fn every_time_has_a_bucket() {
        let mut last = 0;
        for exponent in 0..64 {
            let ns = 1u64 << exponent;
            assert!(bucket(ns) >= last);
            last = bucket(ns);
            if (LOWEST..LOWEST + OCTAVES as u32).contains(&exponent) {
                assert!(bound(bucket(ns)) > ns && bound(bucket(ns)) <= ns + ns / 8, "{exponent}");
            }
        }
        assert_eq!(bucket(u64::MAX), OCTAVES * PARTS - 1);
    }
}
