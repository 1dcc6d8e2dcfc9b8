//! When requests are meant to be sent. The moments are fixed in advance and depend on nothing that happens, which is
//! what makes a loop open.

use onehop_net::clock::Nanos;

use crate::random::Random;

/// How arrivals are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// One each interval.
    Constant,
    /// As independent users make them: exponential gaps.
    Poisson,
    /// One at a random moment of each interval, so that nothing falls into step.
    Uniform,
}

impl Arrivals {
    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Arrivals::Constant => "constant",
            Arrivals::Poisson => "poisson",
            Arrivals::Uniform => "uniform",
        }
    }

    /// The one of that name.
    ///
    /// # Errors
    /// The names that there are.
    pub fn named(name: &str) -> Result<Arrivals, String> {
        [Arrivals::Constant, Arrivals::Poisson, Arrivals::Uniform]
            .into_iter()
            .find(|arrivals| arrivals.name() == name)
            .ok_or_else(|| format!("\"{name}\" is no kind of arrivals: they are constant, poisson or uniform"))
    }
}

/// One thread's part of the arrivals, generated as it is used up.
#[derive(Clone, Debug)]
pub struct Schedule {
    arrivals: Arrivals,
    start: Nanos,
    /// Nanoseconds between this thread's arrivals.
    interval: f64,
    /// Where in the first interval this thread begins: threads take turns.
    phase: f64,
    index: u64,
    elapsed: f64,
    due: Nanos,
    random: Random,
}

impl Schedule {
    /// For thread `thread` of `threads`, which share `rate` requests a second.
    pub fn new(arrivals: Arrivals, rate: f64, start: Nanos, seed: u64, thread: usize, threads: usize) -> Schedule {
        let interval = 1e9 / rate * threads as f64;
        let phase = 1e9 / rate * thread as f64;
        let random = Random::new(seed, thread as u64);
        let mut schedule = Schedule { arrivals, start, interval, phase, index: 0, elapsed: 0.0, due: start, random };
        schedule.due = schedule.compute();
        schedule
    }

    fn compute(&mut self) -> Nanos {
        let at = match self.arrivals {
            // From the index, so that rounding never adds up.
            Arrivals::Constant => self.phase + self.index as f64 * self.interval,
            Arrivals::Uniform => (self.index as f64 + self.random.unit()) * self.interval,
            Arrivals::Poisson => {
                self.elapsed += self.random.exponential() * self.interval;
                self.elapsed
            }
        };
        self.start + at as Nanos
    }

    /// When the next one is due.
    #[inline]
    pub fn due(&self) -> Nanos {
        self.due
    }

    /// Takes the next one.
    #[inline]
    pub fn take(&mut self) -> Nanos {
        let due = self.due;
        self.index += 1;
        self.due = self.compute();
        due
    }

    /// How many were taken.
    pub fn taken(&self) -> u64 {
        self.index
    }

    /// How many more are due before `end`.
    pub fn left_before(&self, end: Nanos) -> u64 {
        let mut rest = self.clone();
        while rest.due() < end {
            rest.take();
        }
        rest.index - self.index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(arrivals: Arrivals, seed: u64, count: usize) -> Vec<Nanos> {
        let mut schedule = Schedule::new(arrivals, 10_000.0, 1_000_000_000, seed, 0, 1);
        (0..count).map(|_| schedule.take()).collect()
    }

    #[test]
    fn every_kind_keeps_its_rate_and_order_and_repeats_with_its_seed() {
        for arrivals in [Arrivals::Constant, Arrivals::Poisson, Arrivals::Uniform] {
            let taken = times(arrivals, 7, 100_000);
            assert!(taken.is_sorted());
            let elapsed = (taken[99_999] - 1_000_000_000) as f64 / 1e9;
            assert!((9.9..10.1).contains(&elapsed), "{arrivals:?} {elapsed}");
            assert_eq!(taken, times(arrivals, 7, 100_000));
            assert_eq!(taken == times(arrivals, 8, 100_000), arrivals == Arrivals::Constant);
        }
    }

    #[test]
    fn poisson_gaps_vary_as_much_as_they_measure() {
        let taken = times(Arrivals::Poisson, 1, 50_000);
        let gaps: Vec<f64> = taken.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((0.97..1.03).contains(&(variance.sqrt() / mean)));
    }

    #[test]
    fn threads_take_turns_and_what_is_left_is_counted() {
        let mut all: Vec<Nanos> = (0..4)
            .flat_map(|thread| {
                let mut schedule = Schedule::new(Arrivals::Constant, 1000.0, 0, 1, thread, 4);
                (0..25).map(move |_| schedule.take())
            })
            .collect();
        all.sort_unstable();
        assert_eq!(all, (0..100).map(|k| k * 1_000_000).collect::<Vec<_>>());
        let mut schedule = Schedule::new(Arrivals::Constant, 1000.0, 0, 1, 0, 1);
        schedule.take();
        assert_eq!(schedule.left_before(10_000_000), 9);
        assert_eq!(schedule.taken(), 1);
    }
}
