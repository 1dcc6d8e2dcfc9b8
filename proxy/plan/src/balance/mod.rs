//! Choosing an endpoint: one picker a file, pure functions over a state that the core owns, shared by HTTP and TCP.

mod least_request;
mod random;
mod round_robin;

use crate::model::BalanceKind;
use crate::snapshot::EndpointSet;

/// The hash that choices by a value are made with: XXH64, as Envoy's hash policies have it.
pub fn hash_of(value: &[u8]) -> u64 {
    xxhash_rust::xxh64::xxh64(value, 0)
}

/// A core's balancer of one cluster.
pub enum Balancer {
    /// In turn.
    RoundRobin(round_robin::State),
    /// The less loaded of two.
    LeastRequest(random::State),
    /// By chance.
    Random(random::State),
}

impl Balancer {
    /// Cores begin at different places, so that they do not all send to the same endpoint at once.
    pub fn new(kind: BalanceKind, core: usize, cores: usize, seed: u64) -> Balancer {
        match kind {
            BalanceKind::RoundRobin => Balancer::RoundRobin(round_robin::State::new(core, cores)),
            BalanceKind::LeastRequest => Balancer::LeastRequest(random::State::new(seed)),
            BalanceKind::Random => Balancer::Random(random::State::new(seed)),
        }
    }

    /// The index of the chosen endpoint. `load` gives the requests in flight by index; `avoid` lists those that
    /// failed this request already. `None` when nothing usable is left.
    pub fn pick(&mut self, set: &EndpointSet, load: &dyn Fn(usize) -> u32, avoid: &[usize]) -> Option<usize> {
        if let [only] = set.endpoints.as_slice() {
            return (only.is_usable() && only.weight > 0 && avoid.is_empty()).then_some(0);
        }
        match self {
            Balancer::RoundRobin(state) => round_robin::pick(state, set, avoid),
            Balancer::LeastRequest(state) => least_request::pick(state, set, load, avoid),
            Balancer::Random(state) => random::pick(state, set, avoid),
        }
    }
}

fn is_candidate(set: &EndpointSet, index: usize, avoid: &[usize]) -> bool {
    let endpoint = &set.endpoints[index];
    endpoint.weight > 0 && endpoint.is_usable() && !avoid.contains(&index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Address;
    use crate::snapshot::{DRAINED, Endpoint, endpoint};
    use onehop_meter::Registry;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    fn set(weights: &[u32]) -> EndpointSet {
        let registry = Registry::new(1);
        let endpoints = weights.iter().enumerate().map(|(index, weight)| {
            let address = Address::Tcp(([127, 0, 0, 1], 1000 + index as u16).into());
            let endpoint: Endpoint = endpoint("c", address, *weight, &registry, |_| false);
            Arc::new(endpoint)
        });
        EndpointSet { endpoints: endpoints.collect() }
    }

    fn counts(kind: BalanceKind, set: &EndpointSet, cores: usize, picks: usize) -> Vec<usize> {
        let mut counts = vec![0; set.endpoints.len()];
        for core in 0..cores {
            let mut balancer = Balancer::new(kind, core, cores, 42 + core as u64);
            for _ in 0..picks / cores {
                counts[balancer.pick(set, &|_| 0, &[]).expect("healthy")] += 1;
            }
        }
        counts
    }

    #[test]
    fn round_robin_is_even_and_follows_weights() {
        assert_eq!(counts(BalanceKind::RoundRobin, &set(&[1, 1, 1]), 1, 300), [100, 100, 100]);
        assert_eq!(counts(BalanceKind::RoundRobin, &set(&[5, 1, 1]), 1, 700), [500, 100, 100]);
        // One request on each of several cores goes to different endpoints.
        assert!(counts(BalanceKind::RoundRobin, &set(&[1; 16]), 16, 16).iter().all(|count| *count == 1));
    }

    #[test]
    fn random_follows_weights_roughly() {
        let counts = counts(BalanceKind::Random, &set(&[3, 1]), 2, 40_000);
        assert!((29_000..31_000).contains(&counts[0]), "{counts:?}");
    }

    #[test]
    fn least_request_prefers_the_less_loaded() {
        let set = set(&[1, 1, 1]);
        let mut balancer = Balancer::new(BalanceKind::LeastRequest, 0, 1, 7);
        let mut in_flight = [0u32, 0, 50];
        for _ in 0..60 {
            let index = balancer.pick(&set, &|index| in_flight[index], &[]).expect("healthy");
            in_flight[index] += 1;
        }
        assert!(in_flight[2] <= 52, "{in_flight:?}");
    }

    #[test]
    fn the_drained_and_the_failed_are_avoided_while_others_are_left() {
        for kind in [BalanceKind::RoundRobin, BalanceKind::LeastRequest, BalanceKind::Random] {
            let set = set(&[1, 1, 1]);
            set.endpoints[0].health.store(DRAINED, Ordering::Relaxed);
            let mut balancer = Balancer::new(kind, 0, 1, 3);
            for _ in 0..20 {
                assert_eq!(balancer.pick(&set, &|_| 0, &[1]), Some(2));
            }
            assert_eq!(balancer.pick(&set, &|_| 0, &[1, 2]), None);
        }
    }
}
