//! Choosing an endpoint: one picker a file, pure functions over a state that the core owns, shared by HTTP and TCP.
//! First a tier (priority), then a group within it (the own zone or the others), then an endpoint of the group.

mod ewma;
mod hashed;
mod least_request;
mod random;
mod round_robin;
mod view;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::cluster_with as cluster_for_tests;

pub use ewma::Ewma;
pub use hashed::HashTable;

use crate::model::BalanceKind;
use crate::snapshot::{Cluster, EndpointSet, Subset};
pub(crate) use view::MAX_TIERS;
use view::View;

/// The hash that choices by a value are made with: XXH64, as Envoy's hash policies have it.
pub fn hash_of(value: &[u8]) -> u64 {
    xxhash_rust::xxh64::xxh64(value, 0)
}

/// What is known when an endpoint is asked for.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// Requests in flight on this core, by index.
    pub load: &'a dyn Fn(usize) -> u32,
    /// Latency that is to be expected in nanoseconds, by index; none where nothing was observed yet.
    pub latency: &'a dyn Fn(usize) -> Option<f64>,
    /// Endpoints that failed this request already.
    pub avoid: &'a [usize],
    /// What a choice by value is made by; a random one is taken without it.
    pub hash: Option<u64>,
    /// The monotonic clock, in nanoseconds.
    pub now: u64,
}

enum Picker {
    RoundRobin(round_robin::State),
    LeastRequest,
    PeakEwma,
    Random,
    Hashed,
}

/// A core's balancer of one cluster.
pub struct Balancer {
    picker: Picker,
    random: random::State,
    view: View,
}

impl Balancer {
    /// Cores begin at different places, so that they do not all send to the same endpoint at once.
    pub fn new(kind: BalanceKind, core: usize, cores: usize, seed: u64) -> Balancer {
        let picker = match kind {
            BalanceKind::RoundRobin => Picker::RoundRobin(round_robin::State::new(core, cores)),
            BalanceKind::LeastRequest => Picker::LeastRequest,
            BalanceKind::PeakEwma => Picker::PeakEwma,
            BalanceKind::Random => Picker::Random,
            BalanceKind::RingHash | BalanceKind::Maglev => Picker::Hashed,
        };
        Balancer { picker, random: random::State::new(seed), view: View::default() }
    }

    /// The index of the chosen endpoint. `None` when nothing usable is left.
    pub fn pick(&mut self, cluster: &Cluster, ask: &Ask<'_>) -> Option<usize> {
        self.pick_from(cluster, &cluster.endpoints, ask)
    }

    /// The same among a subset, whose own balancer this is; all indices are those of the whole cluster.
    pub fn pick_subset(&mut self, cluster: &Cluster, subset: &Subset, ask: &Ask<'_>) -> Option<usize> {
        let whole = |index: usize| subset.index[index] as usize;
        let at = |index: &usize| subset.index.iter().position(|known| *known as usize == *index);
        let avoid: Vec<usize> = ask.avoid.iter().filter_map(at).collect();
        let (load, latency) = (|index| (ask.load)(whole(index)), |index| (ask.latency)(whole(index)));
        let inner = Ask { load: &load, latency: &latency, avoid: &avoid, ..*ask };
        self.pick_from(cluster, &subset.set, &inner).map(whole)
    }

    fn pick_from(&mut self, cluster: &Cluster, set: &EndpointSet, ask: &Ask<'_>) -> Option<usize> {
        if let [only] = set.endpoints.as_slice() {
            let usable = only.may_panic() && only.weight > 0 && (only.is_usable() || cluster.policy.panic_percent > 0);
            return (usable && ask.avoid.is_empty()).then_some(0);
        }
        // Before nobody is found the healthy are counted once more: the last ones may just have gone out.
        for anew in [false, true] {
            let is_fresh = self.view.refresh(cluster, set, ask.now, anew);
            let chosen = self.view.choose(&mut self.random);
            let found = chosen.order().find_map(|group| self.pick_of(cluster, set, group, ask));
            if found.is_some() || is_fresh {
                return found;
            }
        }
        None
    }

    fn pick_of(&mut self, cluster: &Cluster, set: &EndpointSet, group: Chosen, ask: &Ask<'_>) -> Option<usize> {
        let members = self.view.members(group);
        let candidate = |index: usize| {
            let endpoint = &set.endpoints[index];
            let usable = if group.panics { endpoint.may_panic() } else { endpoint.is_usable() };
            endpoint.weight > 0 && usable && !ask.avoid.contains(&index)
        };
        let choice = Choice { set, members: &members.indices, sums: &members.sums, candidate: &candidate };
        // An endpoint that has just come takes its share step by step. What it does not take goes to whom the next looks find;
        // those that a value chooses would find it again, so they look past it. Where all have just come, each look is as
        // good as another.
        let mut found = None;
        for _ in 0..3 {
            let passed_over = found.filter(|_| matches!(self.picker, Picker::Hashed));
            let candidate = |index: usize| candidate(index) && Some(index) != passed_over;
            let choice = Choice { candidate: &candidate, ..choice };
            let Some(next) = (match &mut self.picker {
                Picker::RoundRobin(state) => round_robin::pick(state, &choice),
                Picker::LeastRequest => {
                    least_request::pick(&mut self.random, &choice, least_request::BY_LOAD, &|index| {
                        f64::from((ask.load)(index)) / f64::from(set.endpoints[index].weight.max(1))
                    })
                }
                Picker::PeakEwma => {
                    least_request::pick(&mut self.random, &choice, least_request::BY_LATENCY, &|index| {
                        ewma::cost(&choice, ask, index)
                    })
                }
                Picker::Random => random::pick(&mut self.random, &choice),
                Picker::Hashed => {
                    let hash = ask.hash.unwrap_or_else(|| self.random.next());
                    hashed::pick(hash, &choice, ask.load)
                }
            }) else {
                break;
            };
            found = Some(next);
            let share = cluster.policy.slow_start_share(set.endpoints[next].vitals.since_ns(), ask.now);
            if share >= 1.0 || self.random.next() as f64 <= share * u64::MAX as f64 {
                break;
            }
        }
        found
    }
}

/// A group to choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chosen {
    tier: usize,
    /// The own zone, or the others; without a zone everything is local.
    local: bool,
    /// So few are healthy that health is not looked at.
    panics: bool,
}

impl Chosen {
    /// The group itself, then the other one of its tier, then every tier as it comes.
    fn order(self) -> impl Iterator<Item = Chosen> {
        let other = Chosen { local: !self.local, ..self };
        let tiers = (0..view::MAX_TIERS).filter(move |tier| *tier != self.tier);
        let rest =
            tiers.flat_map(move |tier| [Chosen { tier, local: true, ..self }, Chosen { tier, local: false, ..self }]);
        [self, other].into_iter().chain(rest)
    }
}

/// What a picker chooses from.
#[derive(Clone, Copy)]
struct Choice<'a> {
    set: &'a EndpointSet,
    members: &'a [u32],
    /// The sums of their weights up to each; empty where all weigh the same.
    sums: &'a [u64],
    candidate: &'a dyn Fn(usize) -> bool,
}

impl Choice<'_> {
    fn is_candidate(&self, index: usize) -> bool {
        (self.candidate)(index)
    }

    fn weight(&self, index: usize) -> u32 {
        self.set.endpoints[index].weight
    }

    fn indices(&self) -> impl Iterator<Item = usize> {
        self.members.iter().map(|index| *index as usize)
    }
}
