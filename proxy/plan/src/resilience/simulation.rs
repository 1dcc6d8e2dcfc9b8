//! Retries in simulated time, seeded, over the very rules and budgets that the cores run: what they do to an upstream
//! that fails everything, and to the tier behind one that does.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::*;
use crate::balance::{Ask, Balancer};
use crate::model::{BalanceKind, ClusterPolicy, RetryOn};
use crate::outlier::{Event, Outlier};
use crate::snapshot::Cluster;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn exponential(&mut self, mean: f64) -> u64 {
        let unit = ((self.next() >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
        (-mean * unit.ln()) as u64
    }
}

/// A core, and what it has under way.
struct Core {
    balancer: Balancer,
    budget: Budget,
    in_flight: u32,
    begun: u64,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Request {
    core: usize,
    tried: u32,
    holds: bool,
    /// It began after things broke.
    counts: bool,
    avoid: Vec<usize>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    Arrival,
    Attempt(Request),
    Answer(Request, usize),
}

/// What happened: requests, and attempts by second and endpoint.
struct Seen {
    requests: u64,
    attempts: Vec<Vec<u64>>,
}

impl Seen {
    fn attempts(&self, endpoints: std::ops::Range<usize>) -> u64 {
        self.attempts.iter().flat_map(|second| &second[endpoints.clone()]).sum()
    }

    /// The most attempts of a second.
    fn peak(&self, endpoints: std::ops::Range<usize>) -> u64 {
        self.attempts.iter().map(|second| second[endpoints.clone()].iter().sum()).max().unwrap_or(0)
    }
}

/// Ten simulated seconds of `rate` requests a second over so many cores; from the second one on the endpoints that
/// `fails` names fail whatever they get, each attempt taking about `pace_ms`.
fn run(cluster: &Cluster, cores: usize, rate: f64, pace_ms: f64, retry: &Retry, fails: impl Fn(usize) -> bool) -> Seen {
    let mut random = Random(5);
    let core = |core| Core {
        balancer: Balancer::new(cluster.balance, core, cores, core as u64 + 3),
        budget: Budget::default(),
        in_flight: 0,
        begun: 0,
    };
    let mut all: Vec<Core> = (0..cores).map(core).collect();
    let mut queue = BinaryHeap::from([Reverse((SECOND, 0u64, Next::Arrival))]);
    let mut number = 0;
    let endpoints = cluster.endpoints.endpoints.len();
    let floor = Floor::default();
    let mut seen = Seen { requests: 0, attempts: vec![vec![0; endpoints]; 12] };
    while let Some(Reverse((now, _, next))) = queue.pop() {
        let broken = now > 2 * SECOND;
        let mut post = |at: u64, next: Next| {
            number += 1;
            queue.push(Reverse((at, number, next)));
        };
        match next {
            Next::Arrival => {
                if now < 11 * SECOND {
                    post(now + random.exponential(SECOND as f64 / rate), Next::Arrival);
                }
                let core = random.next() as usize % cores;
                all[core].in_flight += 1;
                all[core].begun += 1;
                seen.requests += u64::from(broken);
                post(now, Next::Attempt(Request { core, tried: 0, holds: false, counts: broken, avoid: Vec::new() }));
            }
            Next::Attempt(mut request) => {
                request.tried += 1;
                let ask = |avoid| Ask { load: &|_| 0, latency: &|_| None, avoid, hash: None, now };
                let balancer = &mut all[request.core].balancer;
                let picked = balancer.pick(cluster, &ask(&request.avoid)).or_else(|| balancer.pick(cluster, &ask(&[])));
                let endpoint = picked.expect("some endpoint");
                if request.counts {
                    seen.attempts[(now / SECOND) as usize % 12][endpoint] += 1;
                }
                request.avoid.push(endpoint);
                post(now + random.exponential(pace_ms * MS as f64).max(1000), Next::Answer(request, endpoint));
            }
            Next::Answer(mut request, endpoint) => {
                let failed = broken && fails(endpoint);
                book(cluster, endpoint, failed, now, random.next());
                let status = if failed { 503 } else { 200 };
                let answer = Happened::Answer { status, header: &|_| None };
                let verdict = retry.judge(request.tried, &answer, true, true, &mut Scratch::default());
                let core = &mut all[request.core];
                let load = Load { in_flight: core.in_flight, begun: core.begun, now };
                if verdict == Verdict::Again && core.budget.take(20, load, &floor, request.holds, false) {
                    request.holds = true;
                    let wait = retry.wait_ns(request.tried, random.next(), None).expect("no Retry-After");
                    post(now + wait, Next::Attempt(request));
                    continue;
                }
                core.in_flight -= 1;
                if request.holds {
                    core.budget.give_back(&floor);
                }
            }
        }
    }
    seen
}

fn book(cluster: &Cluster, endpoint: usize, failed: bool, now: u64, random: u64) {
    let Some(policy) = &cluster.policy.outlier else { return };
    let endpoint = &cluster.endpoints.endpoints[endpoint];
    let event = if failed { Event::GatewayError } else { Event::Success };
    if let Some(cause) = endpoint.vitals.book(policy, event) {
        endpoint.vitals.eject(policy, cause, now, random);
    }
}

fn retry(attempts: u32) -> Retry {
    let on = vec![RetryOn::GatewayError, RetryOn::ConnectFailure];
    Retry::new(&model::Retry { attempts, on, ..model::Retry::default() })
}

fn cluster(tiers: bool, outlier: bool) -> Cluster {
    let ejects = Outlier {
        consecutive_5xx: Some(5),
        consecutive_gateway: None,
        consecutive_connect: None,
        success_rate: None,
        latency_factor: None,
        min_requests: 100,
        interval: Duration::from_secs(10),
        base: Duration::from_secs(30),
        longest: Duration::from_secs(300),
        max_percent: 100,
    };
    let policy = ClusterPolicy { outlier: outlier.then_some(ejects), ..ClusterPolicy::default() };
    let place = |index: usize, placement: &mut model::Placement| placement.priority = u32::from(tiers && index >= 10);
    crate::balance::cluster_for_tests(BalanceKind::LeastRequest, &[1; 20], place, policy)
}

#[test]
fn a_full_brown_out_gets_at_most_a_fifth_more() {
    for (rate, pace_ms, cores) in
        [(1000.0, 50.0, 1), (1000.0, 0.2, 1), (5000.0, 300.0, 2), (20_000.0, 1.0, 8), (400.0, 1000.0, 4)]
    {
        for attempts in [1, 3, 10] {
            let seen = run(&cluster(false, false), cores, rate, pace_ms, &retry(attempts), |_| true);
            let factor = seen.attempts(0..20) as f64 / seen.requests as f64;
            assert!(factor <= 1.2, "{rate}/s, {pace_ms} ms, {attempts} attempts: {factor:.3}");
            // It is the budget that holds it down, not a policy that never fires.
            assert!(factor > 1.0, "{rate}/s, {pace_ms} ms, {attempts} attempts: {factor:.3}");
        }
    }
}

#[test]
fn without_a_failure_nothing_is_sent_twice() {
    let seen = run(&cluster(false, false), 2, 1000.0, 20.0, &retry(3), |_| false);
    assert_eq!(seen.attempts(0..20), seen.requests);
}

#[test]
fn few_failures_are_all_sent_again() {
    // One endpoint of twenty fails: that is less than the budget, which a cluster of failures by chance still exceeds.
    let seen = run(&cluster(false, false), 2, 2000.0, 20.0, &retry(3), |endpoint| endpoint == 4);
    let (failed, all) = (seen.attempts(4..5), seen.attempts(0..20));
    assert!(all - seen.requests >= failed * 9 / 10, "{failed} failed, {} were sent again", all - seen.requests);
}

#[test]
fn a_total_outage_does_not_multiply_the_load_on_the_next_tier() {
    for (rate, pace_ms, cores) in [(1000.0, 20.0, 1), (4000.0, 100.0, 4), (4000.0, 0.5, 2)] {
        let cluster = cluster(true, true);
        let seen = run(&cluster, cores, rate, pace_ms, &retry(3), |endpoint| endpoint < 10);
        let factor = seen.attempts(10..20) as f64 / seen.requests as f64;
        assert!((0.9..=1.2).contains(&factor), "{rate}/s, {pace_ms} ms: {factor:.3}");
        // Nor in any one second; what arrives in one varies by itself.
        let peak = seen.peak(10..20) as f64 / rate;
        assert!(peak <= 1.2, "{rate}/s, {pace_ms} ms: {peak:.3} in one second");
        let out = |index: usize| cluster.endpoints.endpoints[index].vitals.health.load(Ordering::Relaxed) != 0;
        assert!((0..10).all(out), "the first tier is out");
    }
}

#[test]
fn nor_does_one_of_both_tiers() {
    for outlier in [false, true] {
        let seen = run(&cluster(true, outlier), 2, 4000.0, 30.0, &retry(3), |_| true);
        let factor = seen.attempts(10..20) as f64 / seen.requests as f64;
        assert!(factor <= 1.2, "{factor:.3}");
        let all = seen.attempts(0..20) as f64 / seen.requests as f64;
        assert!(all <= 1.2, "{all:.3}");
    }
}

#[test]
fn where_there_is_little_traffic_three_a_second_are_sent_again_over_all_cores() {
    for (rate, pace_ms, cores) in [(5.0, 5.0, 1), (20.0, 5.0, 16), (40.0, 200.0, 8)] {
        let seen = run(&cluster(false, false), cores, rate, pace_ms, &retry(10), |_| true);
        let again = (seen.attempts(0..20) - seen.requests) as f64;
        // Nine seconds, and what may begin at once in the first.
        let bound = seen.requests as f64 * 0.2 + 3.0 * 10.0;
        assert!(again > 0.0 && again <= bound, "{rate}/s on {cores} cores: {again} of {}", seen.requests);
    }
}
