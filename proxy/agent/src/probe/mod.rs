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
    /// The snapshot that was looked at last.
    generation: u64,
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
            generation: 0,
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
        if self.generation != snapshot.generation {
            self.follow(snapshot);
        }
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
    }

    /// Forgets what is gone, so that a name that flaps does not fill the memory, and lets in whom nobody would let in any
    /// more: a state outlives the configuration that led to it.
    fn follow(&mut self, snapshot: &Snapshot) {
        let mut known: HashSet<Key> = HashSet::new();
        for cluster in &snapshot.clusters {
            let policy = &cluster.policy;
            let kept = [(EJECTED, policy.outlier.is_some()), (UNHEALTHY, policy.probe.is_some())];
            let orphaned = kept.iter().filter(|(_, is_kept)| !is_kept).fold(0, |bits, (bit, _)| bits | bit);
            for endpoint in &cluster.endpoints.endpoints {
                if endpoint.vitals.health.load(Relaxed) & orphaned != 0 {
                    endpoint.vitals.health.fetch_and(!orphaned, Relaxed);
                }
                if policy.probe.is_some() {
                    known.insert((cluster.name.clone(), endpoint.address.clone()));
                }
            }
        }
        self.checked.retain(|key, _| known.contains(key));
        self.generation = snapshot.generation;
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
            // It has ended, whether or not anybody wants to know what it found.
            let Some(checked) = self.checked.get_mut(&key) else { continue };
            checked.under_way = false;
            let Some(cluster) = snapshot.clusters.iter().find(|cluster| cluster.name == key.0) else { continue };
            let endpoint = cluster.endpoints.endpoints.iter().find(|endpoint| endpoint.address == key.1);
            let (Some(endpoint), Some(probe)) = (endpoint, &cluster.policy.probe) else { continue };
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
        for (index, cause) in stand_out(policy, &windows) {
            let all = endpoints.iter().map(|endpoint| &*endpoint.vitals);
            let random = self.random();
            cluster.ejector.eject(policy, all, (&endpoints[index].vitals, cause), clock::now(), random);
        }
    }
}

#[cfg(test)]
mod tests {
    use onehop_plan::model::{self, EndpointTarget, Listener, Model, ProbeKind};
    use onehop_plan::outlier::DRAINED;

    use super::*;

    fn model(address: std::net::SocketAddr, probe: Option<Probe>) -> Model {
        let target = EndpointTarget::Address(Address::Tcp(address));
        let endpoints = vec![model::Endpoint { target, weight: 1, placement: Default::default() }];
        let policy = model::ClusterPolicy { probe, ..model::ClusterPolicy::default() };
        Model {
            listeners: vec![Listener { name: "l".to_owned(), ..Listener::default() }],
            clusters: vec![model::Cluster { name: "c".to_owned(), endpoints, policy, ..model::Cluster::default() }],
            ..Model::default()
        }
    }

    fn probe() -> Probe {
        Probe {
            kind: ProbeKind::Tcp,
            interval: Duration::from_millis(10),
            timeout: Duration::from_secs(60),
            healthy: 1,
            unhealthy: 1,
            ..Probe::default()
        }
    }

    async fn until(health: &mut Health, snapshot: &Snapshot, registry: &Registry, under_way: usize) {
        let looks = async {
            while health.under_way != under_way {
                health.tick(snapshot, registry);
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), looks).await.expect("checks go on");
    }

    #[tokio::test]
    async fn an_endpoint_that_comes_back_is_checked_again() {
        let origin = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = origin.local_addr().expect("bound");
        let registry = Registry::new(1);
        let there = onehop_plan::compile(&model(address, Some(probe())), &registry, None).expect("compiles");
        // Elsewhere, and nothing of it is checked: what ends is the check that was under way.
        let gone = model(([127, 0, 0, 2], 9).into(), None);
        let gone = onehop_plan::compile(&gone, &registry, Some(&there)).expect("compiles");
        let mut health = Health::new();
        until(&mut health, &there, &registry, 1).await;
        until(&mut health, &gone, &registry, 0).await;
        assert!(health.checked.is_empty(), "it is forgotten");
        let back = onehop_plan::compile(&model(address, Some(probe())), &registry, Some(&gone)).expect("compiles");
        until(&mut health, &back, &registry, 1).await;
    }

    #[tokio::test]
    async fn who_was_put_out_by_what_is_no_longer_configured_is_let_in() {
        let address = ([127, 0, 0, 1], 9).into();
        let registry = Registry::new(1);
        let first = onehop_plan::compile(&model(address, Some(probe())), &registry, None).expect("compiles");
        let bits = |snapshot: &Snapshot| snapshot.clusters[0].endpoints.endpoints[0].vitals.health.load(Relaxed);
        let vitals = &first.clusters[0].endpoints.endpoints[0].vitals;
        vitals.health.store(DRAINED | UNHEALTHY | EJECTED, Relaxed);
        let mut health = Health::new();
        health.tick(&first, &registry);
        assert_eq!(bits(&first), DRAINED | UNHEALTHY, "nothing ejects here");
        let second = onehop_plan::compile(&model(address, None), &registry, Some(&first)).expect("compiles");
        health.tick(&second, &registry);
        assert_eq!(bits(&second), DRAINED, "by hand is by hand");
    }
}
