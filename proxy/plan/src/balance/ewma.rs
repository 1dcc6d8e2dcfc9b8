//! Peak EWMA, as Finagle and Linkerd have it: latency decays exponentially towards what is observed, but a peak counts
//! at once. An endpoint of which nothing is known gets one request at a time until it has answered.

use super::{Ask, Choice};

/// Observations lose their weight with this time constant, in nanoseconds.
const DECAY_NS: f64 = 10e9;

/// What a failure counts as at least: refusing is quick, and must not look like a quick answer.
const FAILURE_NS: u64 = 1_000_000_000;

/// An endpoint's latency on one core.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ewma {
    value: f64,
    at: u64,
}

impl Ewma {
    /// An answer took so long.
    pub fn observe(&mut self, latency_ns: u64, now: u64) {
        let latency = latency_ns as f64;
        let old = self.value;
        self.value = if self.at == 0 || latency > old {
            latency
        } else {
            let weight = self.weight(now);
            old * weight + latency * (1.0 - weight)
        };
        self.at = now.max(1);
    }

    /// No answer came, after so long: a peak.
    pub fn observe_failure(&mut self, waited_ns: u64, now: u64) {
        self.observe(waited_ns.max(FAILURE_NS), now);
    }

    fn weight(&self, now: u64) -> f64 {
        // A clock that jumped back has not moved.
        (-(now.saturating_sub(self.at) as f64) / DECAY_NS).exp()
    }

    /// What is to be expected now; none before the first answer.
    pub fn expected(&self, now: u64) -> Option<f64> {
        (self.at != 0).then(|| self.value * self.weight(now))
    }
}

/// The cost of one more request.
pub(super) fn cost(choice: &Choice<'_>, ask: &Ask<'_>, index: usize) -> f64 {
    let load = f64::from((ask.load)(index));
    let weight = f64::from(choice.weight(index).max(1));
    match (ask.latency)(index) {
        // Idle, endpoints differ by latency alone: those looked at were drawn by their weights.
        Some(latency) => latency.max(1.0) * (load / weight + 1.0),
        // Unknown: the first request finds out, the others wait for what it finds.
        None if load == 0.0 => 0.0,
        None => f64::MAX,
    }
}
