//! The endpoints as a core sees them for some milliseconds: tiers by priority, the own zone and the others, and how
//! many are healthy. Which of them a request goes to is decided again each time; whether an endpoint is healthy is
//! looked at when it is picked.

use super::{Chosen, random};
use crate::snapshot::{Cluster, EndpointSet};

/// Priorities at most.
pub const MAX_TIERS: usize = 8;
/// How long the counts of healthy endpoints stand, in nanoseconds.
const STANDS_NS: u64 = 10_000_000;
/// A tier or a zone carries its whole load down to this share of healthy endpoints: Envoy's overprovisioning factor of
/// 1.4.
const OVERPROVISION: f64 = 1.4;

/// Some endpoints of a tier.
#[derive(Default)]
pub(super) struct Members {
    /// Their indices.
    pub indices: Vec<u32>,
    /// The sums of their weights up to each; empty where all weigh the same.
    pub sums: Vec<u64>,
}

impl Members {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn weigh(&mut self, set: &EndpointSet) {
        let weight = |index: &u32| u64::from(set.endpoints[*index as usize].weight);
        let first = self.indices.first().map(weight);
        if self.indices.iter().any(|index| Some(weight(index)) != first) {
            let mut sum = 0;
            self.sums.extend(self.indices.iter().map(|index| {
                sum += weight(index);
                sum
            }));
        }
    }
}

#[derive(Default)]
struct Tier {
    local: Members,
    others: Members,
    /// Share of healthy endpoints in each.
    local_health: f64,
    others_health: f64,
}

impl Tier {
    /// The share of the load that it can carry.
    fn capacity(&self) -> f64 {
        let (local, others) = (self.local.len() as f64, self.others.len() as f64);
        let healthy = local * self.local_health + others * self.others_health;
        if local + others == 0.0 { 0.0 } else { (healthy / (local + others) * OVERPROVISION).min(1.0) }
    }

    fn health(&self) -> f64 {
        self.capacity() / OVERPROVISION
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct View {
    /// The identity of the set that it was built from; zero: none.
    set: u64,
    until: u64,
    tiers: Vec<Tier>,
    panic_share: f64,
}

impl View {
    /// Looks again, if it is time or asked for; says whether it did.
    pub fn refresh(&mut self, cluster: &Cluster, set: &EndpointSet, now: u64, anew: bool) -> bool {
        if self.set == set.id && now < self.until && !anew {
            return false;
        }
        if self.set != set.id {
            self.build(cluster, set);
            self.set = set.id;
        }
        self.until = now.saturating_add(STANDS_NS);
        self.panic_share = f64::from(cluster.policy.panic_percent) / 100.0;
        let share = |list: &[u32]| {
            let healthy = list.iter().filter(|index| set.endpoints[**index as usize].is_usable()).count();
            if list.is_empty() { 0.0 } else { healthy as f64 / list.len() as f64 }
        };
        for tier in &mut self.tiers {
            tier.local_health = share(&tier.local.indices);
            tier.others_health = share(&tier.others.indices);
        }
        true
    }

    fn build(&mut self, cluster: &Cluster, set: &EndpointSet) {
        self.tiers.clear();
        let endpoints = &set.endpoints;
        let mut priorities: Vec<u32> = endpoints.iter().map(|endpoint| endpoint.placement.priority).collect();
        priorities.sort_unstable();
        priorities.dedup();
        self.tiers.resize_with(priorities.len().min(MAX_TIERS), Tier::default);
        let zone = cluster.policy.zone.as_deref();
        for (index, endpoint) in endpoints.iter().enumerate() {
            if endpoint.weight == 0 {
                continue;
            }
            let tier = priorities.iter().position(|known| *known == endpoint.placement.priority).unwrap_or(0);
            let Some(tier) = self.tiers.get_mut(tier) else { continue };
            let is_local = zone.is_none() || endpoint.placement.zone.as_deref() == zone;
            if is_local { &mut tier.local } else { &mut tier.others }.indices.push(index as u32);
        }
        for tier in &mut self.tiers {
            tier.local.weigh(set);
            tier.others.weigh(set);
        }
    }

    /// A group for one request.
    pub fn choose(&self, random: &mut random::State) -> Chosen {
        let mut chosen = Chosen { tier: 0, local: true, panics: false };
        if let [only] = self.tiers.as_slice()
            && only.others.indices.is_empty()
        {
            chosen.panics = only.local_health < self.panic_share;
            return chosen;
        }
        let total: f64 = self.tiers.iter().map(Tier::capacity).sum();
        if total <= 0.0 {
            chosen.panics = self.panic_share > 0.0;
            chosen.local = self.tiers.first().is_some_and(|tier| !tier.local.indices.is_empty());
            return chosen;
        }
        let unit = |random: &mut random::State| random.next() as f64 / u64::MAX as f64;
        // Each tier takes what it can carry of what those before it could not; what is left goes by their capacity.
        let scale = if total < 1.0 { total } else { 1.0 };
        let mut at = unit(random) * scale;
        for (number, tier) in self.tiers.iter().enumerate() {
            chosen.tier = number;
            if at < tier.capacity() {
                break;
            }
            at -= tier.capacity();
        }
        let tier = &self.tiers[chosen.tier];
        chosen.panics = total < 1.0 && tier.health() < self.panic_share;
        // The own zone keeps its requests while enough of it is healthy, and gives up the rest.
        chosen.local = !tier.local.indices.is_empty() && unit(random) < (tier.local_health * OVERPROVISION).min(1.0);
        chosen
    }

    /// The members of a group.
    pub fn members(&self, group: Chosen) -> &Members {
        static NONE: Members = Members { indices: Vec::new(), sums: Vec::new() };
        self.tiers.get(group.tier).map_or(&NONE, |tier| if group.local { &tier.local } else { &tier.others })
    }
}
