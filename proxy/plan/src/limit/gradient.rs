//! Adaptive concurrency: how many requests in flight a cluster bears is found from latency alone. The latency of an idle
//! upstream is the baseline; while answers take about as long, more is let in, and when they take longer, requests queue
//! somewhere and less is (the gradient of Netflix' concurrency-limits, with Envoy's measuring of the minimum).

use crate::model::Adaptive;

/// Answers that make up one judgement.
const SAMPLE: usize = 32;
/// A judgement is made at the latest after this, if there are some answers.
const SPAN_NS: u64 = 250_000_000;
/// While the baseline is measured anew, only this part of the limit is used.
const PROBE: f64 = 0.25;

/// One core's limit for one cluster.
#[derive(Clone, Debug)]
pub struct Gradient {
    wanted: Adaptive,
    limit: f64,
    /// The latency of an upstream that is not loaded, and when it was seen last.
    baseline_ns: f64,
    seen_at: u64,
    /// The baseline is measured anew.
    probing: bool,
    sample: Vec<u64>,
    begun: u64,
    /// The most requests in flight during this sample.
    most: u32,
}

impl Gradient {
    /// Nothing is known yet.
    pub fn new(wanted: &Adaptive) -> Gradient {
        Gradient {
            wanted: wanted.clone(),
            limit: f64::from(wanted.initial).clamp(f64::from(wanted.min), f64::from(wanted.max)),
            baseline_ns: 0.0,
            seen_at: 0,
            probing: false,
            sample: Vec::with_capacity(SAMPLE),
            begun: 0,
            most: 0,
        }
    }

    /// What it was made from.
    pub fn wanted(&self) -> &Adaptive {
        &self.wanted
    }

    /// Requests in flight that are let in now.
    pub fn limit(&self) -> u32 {
        let limit = if self.probing { self.limit * PROBE } else { self.limit };
        (limit as u32).max(self.wanted.min)
    }

    /// Whether one more is let in beside those in flight.
    pub fn admits(&mut self, in_flight: u32) -> bool {
        let admits = in_flight < self.limit();
        self.most = self.most.max(in_flight + u32::from(admits));
        admits
    }

    /// An answer took so long.
    pub fn observe(&mut self, latency_ns: u64, now: u64) {
        if self.sample.is_empty() {
            self.begun = now;
        }
        self.sample.push(latency_ns);
        if self.sample.len() < SAMPLE && now.saturating_sub(self.begun) < SPAN_NS {
            return;
        }
        self.sample.sort_unstable();
        let median = self.sample[self.sample.len() / 2] as f64;
        self.sample.clear();
        self.judge(median, now);
        self.most = 0;
    }

    fn judge(&mut self, median: f64, now: u64) {
        let is_first = self.baseline_ns == 0.0;
        if is_first || self.probing || median <= self.baseline_ns * 1.1 {
            // An upstream that was measured under little load may have become slower for good; one that answers as fast
            // as ever confirms what is known.
            let known = self.baseline_ns;
            self.baseline_ns = if is_first || self.probing { median } else { known.min(median) };
            self.seen_at = now;
            if std::mem::take(&mut self.probing) {
                return;
            }
        } else if now.saturating_sub(self.seen_at) > self.wanted.window.as_nanos() as u64 {
            self.probing = true;
            return;
        }
        let tolerated = self.baseline_ns * (1.0 + self.wanted.tolerance);
        let gradient = (tolerated / median.max(1.0)).clamp(0.5, 1.0);
        let wanted = self.limit * gradient + self.limit.sqrt();
        // What is not used up shows nothing of what could be borne.
        let used = f64::from(self.most) >= self.limit / 2.0;
        if wanted < self.limit || used {
            let smooth = self.limit * 0.8 + wanted * 0.2;
            self.limit = smooth.clamp(f64::from(self.wanted.min), f64::from(self.wanted.max));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Random(u64);

    impl Random {
        fn exponential(&mut self, mean: f64) -> f64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            -mean * (1.0 - (self.0 >> 11) as f64 / (1u64 << 53) as f64).ln()
        }
    }

    const MS: f64 = 1e6;

    /// An upstream with `lanes` places that takes 10 ms a request, and is offered `load` times what it can serve, for
    /// twenty seconds: the median limit of the second half, the median latency in milliseconds, the share served.
    fn run(lanes: usize, load: f64, slower_after: Option<f64>) -> (f64, f64, f64) {
        let window = std::time::Duration::from_secs(3);
        let mut gradient = Gradient::new(&Adaptive { window, ..Adaptive::default() });
        let mut random = Random(5);
        let mut free = vec![0.0f64; lanes];
        let mut running: Vec<(f64, f64)> = Vec::new();
        let (mut limits, mut latencies, mut offered, mut served) = (Vec::new(), Vec::new(), 0u32, 0u32);
        let mut now = 1e9;
        while now < 21e9 {
            let pace = if slower_after.is_some_and(|after| now > after) { 20.0 } else { 10.0 };
            now += random.exponential(10.0 * MS / lanes as f64 / load);
            running.sort_by(|one, other| one.0.total_cmp(&other.0));
            while running.first().is_some_and(|(until, _)| *until <= now) {
                let (until, begun) = running.remove(0);
                gradient.observe((until - begun) as u64, until as u64);
                if now > 11e9 {
                    latencies.push((until - begun) / MS);
                }
            }
            offered += 1;
            if gradient.admits(running.len() as u32) {
                served += 1;
                let lane = free.iter_mut().min_by(|one, other| one.total_cmp(other)).expect("lanes");
                let until = lane.max(now) + pace * MS * (0.9 + random.exponential(0.1));
                *lane = until;
                running.push((until, now));
            }
            if now > 11e9 {
                limits.push(f64::from(gradient.limit()));
            }
        }
        let median = |list: &mut Vec<f64>| {
            list.sort_by(f64::total_cmp);
            list[list.len() / 2]
        };
        (median(&mut limits), median(&mut latencies), f64::from(served) / f64::from(offered))
    }

    #[test]
    fn overload_is_refused_instead_of_queued() {
        let (limit, latency, served) = run(20, 2.0, None);
        assert!((15.0..60.0).contains(&limit), "limit {limit}");
        assert!(latency < 30.0, "{latency} ms");
        // About as much as can be served at all.
        assert!((0.44..0.56).contains(&served), "{served}");
    }

    #[test]
    fn what_can_be_borne_is_let_in() {
        let (_, latency, served) = run(20, 0.6, None);
        assert!(served > 0.98, "{served}");
        assert!(latency < 15.0, "{latency} ms");
    }

    #[test]
    fn an_upstream_that_became_slower_for_good_is_measured_anew() {
        // Twice as slow from the fifth second on, at 40 % of what it could serve before.
        let (limit, _, served) = run(20, 0.4, Some(5e9));
        assert!(limit >= 10.0, "limit {limit}");
        assert!(served > 0.9, "{served}");
    }
}
