//! Health that the agent looks after: active checks, and what passive ejection needs now and then (endpoints that come
//! back, those that stand out over an interval). What it finds is one word per endpoint, which every core reads.

mod ask;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use onehop_meter::Registry;
use onehop_net::clock;
use onehop_plan::model::Probe;
use onehop_plan::outlier::{Cause, EJECTED, UNHEALTHY, Window, stand_out};
use onehop_plan::{Address, Cluster, Endpoint, Snapshot};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

pub use ask::Failure;
use ask::{Asked, ask};

/// Checks under way at once; the rest waits its turn.
const MAX_UNDER_WAY: usize = 256;

/// An endpoint is its cluster and its address.
type Key = (Arc<str>, Address);

/// What a check found.
type Found = (Key, Result<(), Failure>);
/// When an interval began, and what the endpoints' meters said then.
type Interval = (Instant, Vec<(Address, Window)>);

struct Checked {
    due: Instant,
    under_way: bool,
    successes: u32,
    failures: u32,
    /// What the last check found, for `/clusters`.
    last: Option<Failure>,
}

/// The agent's knowledge of endpoints.
pub struct Health {
    checked: HashMap<Key, Checked>,
    windows: HashMap<Arc<str>, Interval>,
    /// Endpoints that are said to be ejected.
    ejected: HashSet<Key>,
    results: (UnboundedSender<Found>, UnboundedReceiver<Found>),
    under_way: usize,
    seed: u64,
}

impl Health {
    /// Nothing is known.
    pub fn new() -> Health {
        Health {
            checked: HashMap::new(),
            windows: HashMap::new(),
            ejected: HashSet::new(),
            results: unbounded_channel(),
            under_way: 0,
            seed: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// What the last check of an endpoint failed by.
    pub fn last_failure(&self, cluster: &Arc<str>, address: &Address) -> Option<&Failure> {
        self.checked.get(&(cluster.clone(), address.clone()))?.last.as_ref()
    }

    /// Called several times a second.
    pub fn tick(&mut self, snapshot: &Snapshot, registry: &Registry) {
        let now = Instant::now();
        self.take_results(snapshot, registry);
        let watched = |cluster: &&Arc<Cluster>| cluster.policy.probe.is_some() || cluster.policy.outlier.is_some();
        for cluster in snapshot.clusters.iter().filter(watched) {
            if let Some(probe) = &cluster.policy.probe {
                for endpoint in &cluster.endpoints.endpoints {
                    self.check(cluster, endpoint, probe, now);
                }
            }
            if let Some(outlier) = &cluster.policy.outlier {
                for endpoint in &cluster.endpoints.endpoints {
                    endpoint.vitals.review(clock::now(), outlier.interval);
                }
                self.compare(cluster, now);
            }
        }
        self.tell(snapshot);
        // What is gone is forgotten, so that a name that flaps does not fill the memory.
        let known = |key: &Key| {
            snapshot.clusters.iter().any(|cluster| {
                cluster.name == key.0
                    && cluster.policy.probe.is_some()
                    && cluster.endpoints.endpoints.iter().any(|endpoint| endpoint.address == key.1)
            })
        };
        if self.checked.len() > snapshot.clusters.iter().map(|cluster| cluster.endpoints.endpoints.len()).sum() {
            self.checked.retain(|key, _| known(key));
        }
    }

    /// Says which endpoints have been ejected since it was called last, and which are let in again.
    fn tell(&mut self, snapshot: &Snapshot) {
        let mut out = HashSet::new();
        let judged = snapshot.clusters.iter().filter(|cluster| cluster.policy.outlier.is_some());
        for (cluster, endpoint) in
            judged.flat_map(|cluster| cluster.endpoints.endpoints.iter().map(move |it| (cluster, it)))
        {
            let key = || (cluster.name.clone(), endpoint.address.clone());
            if endpoint.vitals.health.load(Relaxed) & EJECTED != 0 {
                let key = key();
                if !self.ejected.contains(&key) {
                    let cause = endpoint.vitals.cause().map_or("unknown", Cause::name);
                    let left = endpoint.vitals.ejected_until_ns().saturating_sub(clock::now()) as f64 / 1e9;
                    eprintln!("onehop: cluster {}: {} is ejected for {left:.1} s: {cause}", key.0, key.1);
                }
                out.insert(key);
            } else if !self.ejected.is_empty() && self.ejected.contains(&key()) {
                eprintln!("onehop: cluster {}: {} is no longer ejected", cluster.name, endpoint.address);
            }
        }
        self.ejected = out;
    }

    fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.seed >> 11
    }

    fn jittered(&mut self, interval: Duration) -> Duration {
        let share = (self.random() % 2000) as f64 / 10_000.0 - 0.1;
        interval.mul_f64(1.0 + share)
    }

    fn check(&mut self, cluster: &Arc<Cluster>, endpoint: &Arc<Endpoint>, probe: &Probe, now: Instant) {
        let key = (cluster.name.clone(), endpoint.address.clone());
        if !self.checked.contains_key(&key) {
            // The first checks are spread over an interval, but soon.
            let first = self.jittered(probe.interval / 10);
            let new = Checked { due: now + first, under_way: false, successes: 0, failures: 0, last: None };
            self.checked.insert(key.clone(), new);
        }
        let next = self.jittered(probe.interval);
        if self.under_way >= MAX_UNDER_WAY {
            return;
        }
        let Some(checked) = self.checked.get_mut(&key).filter(|checked| !checked.under_way && checked.due <= now)
        else {
            return;
        };
        checked.under_way = true;
        checked.due = now + next;
        self.under_way += 1;
        let (timeout, sender) = (probe.timeout, self.results.0.clone());
        let asked = Asked::new(cluster, &endpoint.address, probe);
        tokio::spawn(async move {
            let checked = tokio::time::timeout(timeout, ask(&asked)).await;
            let result = checked.unwrap_or_else(|_| Err(Failure::new("timeout", "no answer in time")));
            // The receiver lives as long as the agent.
            let _ = sender.send((key, result));
        });
    }

    fn take_results(&mut self, snapshot: &Snapshot, registry: &Registry) {
        while let Ok((key, result)) = self.results.1.try_recv() {
            self.under_way = self.under_way.saturating_sub(1);
            let Some(cluster) = snapshot.clusters.iter().find(|cluster| cluster.name == key.0) else { continue };
            let endpoint = cluster.endpoints.endpoints.iter().find(|endpoint| endpoint.address == key.1);
            let (Some(endpoint), Some(probe)) = (endpoint, &cluster.policy.probe) else { continue };
            let Some(checked) = self.checked.get_mut(&key) else { continue };
            checked.under_way = false;
            let is_out = endpoint.vitals.health.load(Relaxed) & UNHEALTHY != 0;
            match result {
                Ok(()) => {
                    (checked.failures, checked.last) = (0, None);
                    checked.successes = checked.successes.saturating_add(1);
                    if is_out && checked.successes >= probe.healthy {
                        endpoint.vitals.begins(clock::now());
                        endpoint.vitals.health.fetch_and(!UNHEALTHY, Relaxed);
                        eprintln!("onehop: cluster {}: {} is healthy again", key.0, key.1);
                    }
                }
                Err(why) => {
                    registry.add("onehop_health_check_failures_total", "Active checks that failed.", 1.0);
                    checked.successes = 0;
                    checked.failures = checked.failures.saturating_add(1);
                    if !is_out && checked.failures >= probe.unhealthy {
                        endpoint.vitals.health.fetch_or(UNHEALTHY, Relaxed);
                        eprintln!("onehop: cluster {}: {} is unhealthy: {why}", key.0, key.1);
                    }
                    checked.last = Some(why);
                }
            }
            registry.add("onehop_health_checks_total", "Active checks made.", 1.0);
        }
    }

    /// Ejects the endpoints that stand out over an interval.
    fn compare(&mut self, cluster: &Arc<Cluster>, now: Instant) {
        let Some(policy) = cluster
            .policy
            .outlier
            .as_ref()
            .filter(|policy| policy.success_rate.is_some() || policy.latency_factor.is_some())
        else {
            return;
        };
        let read = || {
            let totals = cluster.endpoints.endpoints.iter().map(|endpoint| {
                let meters = &endpoint.meters;
                let window = Window {
                    requests: meters.sum(|core| core.requests.get()),
                    failures: meters.sum(|core| core.errors.get()),
                    latency_ns: meters.sum(|core| core.latency_ns.get()),
                };
                (endpoint.address.clone(), window)
            });
            totals.collect::<Vec<_>>()
        };
        let Some((since, before)) = self.windows.get(&cluster.name) else {
            self.windows.insert(cluster.name.clone(), (now, read()));
            return;
        };
        if now.duration_since(*since) < policy.interval {
            return;
        }
        let totals = read();
        let windows: Vec<Window> = totals
            .iter()
            .map(|(address, total)| {
                let old =
                    before.iter().find(|(known, _)| known == address).map(|(_, window)| *window).unwrap_or_default();
                Window {
                    requests: total.requests.saturating_sub(old.requests),
                    failures: total.failures.saturating_sub(old.failures),
                    latency_ns: total.latency_ns.saturating_sub(old.latency_ns),
                }
            })
            .collect();
        self.windows.insert(cluster.name.clone(), (now, totals));
        let endpoints = &cluster.endpoints.endpoints;
        let allowed =
            (endpoints.len() * policy.max_percent as usize / 100).max(1).min(endpoints.len().saturating_sub(1));
        for (index, cause) in stand_out(policy, &windows) {
            let ejected =
                endpoints.iter().filter(|endpoint| endpoint.vitals.health.load(Relaxed) & EJECTED != 0).count();
            if ejected >= allowed {
                return;
            }
            let random = self.random();
            let endpoint = &endpoints[index];
            endpoint.vitals.eject(policy, cause, clock::now(), random);
        }
    }
}
