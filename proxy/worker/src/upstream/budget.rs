//! What a cluster may be asked beyond its requests: retries and hedges, each within a budget of its own, and when a hedge
//! is due.

use std::rc::Rc;

use onehop_net::clock::{self, Nanos};
use onehop_plan::resilience::{Load, Quantile};

use super::ClusterState;

/// A place in a budget, until the request that holds it has ended.
pub struct Held {
    cluster: Rc<ClusterState>,
    hedges: bool,
}

impl Drop for Held {
    fn drop(&mut self) {
        let floors = self.cluster.cluster.borrow().floors.clone();
        let (kept, floor) = match self.hedges {
            true => (&self.cluster.hedges, &floors.hedges),
            false => (&self.cluster.retries, &floors.retries),
        };
        let mut budget = kept.get();
        budget.give_back(floor);
        kept.set(budget);
    }
}

impl ClusterState {
    fn load(&self) -> Load {
        let begun = self.cluster.borrow().meters.core(self.core).requests.get();
        Load { in_flight: self.active.get(), begun, now: clock::now() }
    }

    /// A place in the retry budget for one more attempt (see [`onehop_plan::resilience::Budget`]), which the request keeps
    /// until it ends; `held` is the place that it has already, and `untouched` says that nobody can have acted on it.
    /// `None`: there is to be no further attempt.
    pub fn may_retry(self: &Rc<Self>, held: Option<Held>, untouched: bool) -> Option<Held> {
        let cluster = self.cluster.borrow();
        let mut budget = self.retries.get();
        let (percent, floor) = (cluster.policy.retry_percent, &cluster.floors.retries);
        let taken = budget.take(percent, self.load(), floor, held.is_some(), untouched);
        self.retries.set(budget);
        if !taken {
            return None;
        }
        Some(held.unwrap_or_else(|| Held { cluster: self.clone(), hedges: false }))
    }

    /// A place in the budget for hedges.
    pub fn may_hedge(self: &Rc<Self>, percent: u32) -> Option<Held> {
        let mut budget = self.hedges.get();
        let taken = budget.take(percent, self.load(), &self.cluster.borrow().floors.hedges, false, false);
        self.hedges.set(budget);
        taken.then(|| Held { cluster: self.clone(), hedges: true })
    }

    /// The time within which this share of the answers came lately; `None` while hardly anything is known.
    pub fn quantile(&self, share: Option<f64>) -> Option<u64> {
        let quantile = self.quantile.borrow();
        let (kept, quantile) = quantile.as_ref()?;
        if Some(*kept) == share { quantile.estimate() } else { None }
    }

    /// Counts an answer towards it.
    pub fn observe(&self, share: f64, latency_ns: u64, now: Nanos) {
        let mut quantile = self.quantile.borrow_mut();
        if quantile.as_ref().is_none_or(|(kept, _)| *kept != share) {
            *quantile = Some((share, Box::new(Quantile::new(share))));
        }
        if let Some((_, quantile)) = &mut *quantile {
            quantile.observe(latency_ns, now);
        }
    }
}
