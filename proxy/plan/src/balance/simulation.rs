//! A cluster in simulated time, seeded: open-loop arrivals on several cores, endpoints that serve at their own pace, and
//! the balancers between them. What users feel (the 99th percentile) is compared with that of healthy endpoints alone.

use super::tests::cluster;
use super::*;
use crate::model::BalanceKind;

struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }
}

const MS: f64 = 1e6;

/// The 99th percentile in milliseconds over requests that arrive in two seconds of simulated time. Each endpoint has
/// `lanes` places and serves a request in about `pace` milliseconds.
fn p99(kind: BalanceKind, paces: &[f64], rate_per_ms: f64, cores: usize) -> f64 {
    let cluster = cluster(kind, &vec![1; paces.len()], |_, _| {});
    let lanes = 8;
    let mut random = Random(11);
    let mut balancers: Vec<Balancer> =
        (0..cores).map(|core| Balancer::new(kind, core, cores, core as u64 + 9)).collect();
    let mut load = vec![vec![0u32; paces.len()]; cores];
    let mut latency = vec![vec![Ewma::default(); paces.len()]; cores];
    let mut free = vec![vec![0.0f64; lanes]; paces.len()];
    // What is under way: when it ends, where, on which core, and when it began.
    let mut running: Vec<(f64, usize, usize, f64)> = Vec::new();
    let mut took = Vec::new();
    let mut now = 1e9;
    let end = now + 2000.0 * MS;
    while now < end {
        now += random.exponential(MS / rate_per_ms);
        running.retain(|(until, index, core, begun)| {
            let done = *until <= now;
            if done {
                load[*core][*index] -= 1;
                latency[*core][*index].observe((until - begun) as u64, *until as u64);
            }
            !done
        });
        let core = (random.unit() * cores as f64) as usize;
        let ask = Ask {
            load: &|index| load[core][index],
            latency: &|index| latency[core][index].expected(now as u64),
            avoid: &[],
            hash: None,
            now: now as u64,
        };
        let index = balancers[core].pick(&cluster, &ask).expect("healthy");
        let lane = free[index].iter_mut().min_by(|one, other| one.total_cmp(other)).expect("lanes");
        let until = lane.max(now) + random.exponential(paces[index] * MS).max(0.1 * MS);
        *lane = until;
        load[core][index] += 1;
        running.push((until, index, core, now));
        // The first half second is for finding out.
        if now > 1.5e9 {
            took.push((until - now) / MS);
        }
    }
    took.sort_by(f64::total_cmp);
    took[took.len() * 99 / 100]
}

#[test]
fn one_slow_endpoint_of_ten_is_hardly_felt() {
    let mut paces = vec![5.0; 10];
    paces[3] = 100.0;
    // Nine endpoints with eight places at 5 ms serve 14.4 a millisecond; half of that arrives.
    let rate = 7.0;
    for cores in [2, 8] {
        let healthy = p99(BalanceKind::LeastRequest, &[5.0; 9], rate, cores);
        let ewma = p99(BalanceKind::PeakEwma, &paces, rate, cores);
        let least = p99(BalanceKind::LeastRequest, &paces, rate, cores);
        let turn = p99(BalanceKind::RoundRobin, &paces, rate, cores);
        assert!(ewma <= 2.0 * healthy, "{cores} cores: peak-ewma {ewma:.1} ms, healthy {healthy:.1} ms");
        assert!(least <= 4.0 * healthy, "{cores} cores: least-request {least:.1} ms, healthy {healthy:.1} ms");
        // What it is for.
        assert!(turn > 4.0 * healthy, "{cores} cores: round-robin {turn:.1} ms, healthy {healthy:.1} ms");
    }
}

#[test]
fn a_new_endpoint_is_probed_not_flooded() {
    let cluster = cluster(BalanceKind::PeakEwma, &[1; 3], |_, _| {});
    let mut known = Ewma::default();
    known.observe(5_000_000, 1);
    let mut balancer = Balancer::new(BalanceKind::PeakEwma, 0, 1, 2);
    let mut load = [0u32; 3];
    for _ in 0..100 {
        let latency = |index: usize| (index < 2).then(|| known.expected(2)).flatten();
        let ask = Ask { load: &|index| load[index], latency: &latency, avoid: &[], hash: None, now: 2 };
        load[balancer.pick(&cluster, &ask).expect("healthy")] += 1;
    }
    assert_eq!(load[2], 1, "{load:?}");
}

/// What a request met at an endpoint that refuses every connection at once, on several cores and without ejection.
#[test]
fn an_endpoint_that_refuses_is_no_quick_one() {
    for cores in [1, 8] {
        let cluster = cluster(BalanceKind::PeakEwma, &[1; 10], |_, _| {});
        let mut random = Random(5);
        let mut balancers: Vec<Balancer> =
            (0..cores).map(|core| Balancer::new(BalanceKind::PeakEwma, core, cores, core as u64 + 9)).collect();
        let mut latency = vec![vec![Ewma::default(); 10]; cores];
        let (mut refused, mut now) = (0, 1e9);
        // Two seconds, in which a healthy endpoint takes about 200 ms: much longer than a refusal does.
        while now < 3e9 {
            now += random.exponential(MS);
            let core = (random.unit() * cores as f64) as usize;
            let expected = |index: usize| latency[core][index].expected(now as u64);
            let ask = Ask { load: &|_| 0, latency: &expected, avoid: &[], hash: None, now: now as u64 };
            let index = balancers[core].pick(&cluster, &ask).expect("healthy");
            if index == 3 {
                refused += 1;
                latency[core][3].observe_failure(50_000, now as u64);
            } else {
                latency[core][index].observe((200.0 * MS) as u64, now as u64);
            }
        }
        // Each core finds out once.
        assert!(refused <= cores, "{cores} cores: {refused}");
    }
}

/// However many cores there are: an endpoint that fails each request gets those before the threshold and those that were
/// under way when it was reached, and no others.
#[test]
fn an_endpoint_that_fails_all_is_out_after_its_threshold_and_what_was_in_flight() {
    use crate::outlier::{Event, Outlier};
    let outlier = Outlier {
        consecutive_5xx: Some(5),
        consecutive_gateway: None,
        consecutive_connect: None,
        success_rate: None,
        latency_factor: None,
        min_requests: 100,
        interval: std::time::Duration::from_secs(10),
        base: std::time::Duration::from_secs(30),
        longest: std::time::Duration::from_secs(300),
        max_percent: 100,
    };
    let kinds = [BalanceKind::LeastRequest, BalanceKind::PeakEwma, BalanceKind::RoundRobin, BalanceKind::Random];
    for (kind, cores, under_way) in kinds.into_iter().flat_map(|kind| [(kind, 2, 8), (kind, 16, 8), (kind, 16, 1)]) {
        let cluster = cluster(kind, &[1; 10], |_, _| {});
        let vitals = &cluster.endpoints.endpoints[3].vitals;
        let mut random = Random(23);
        let mut balancers: Vec<Balancer> =
            (0..cores).map(|core| Balancer::new(kind, core, cores, core as u64 + 3)).collect();
        let mut load = vec![[0u32; 10]; cores];
        let mut running: Vec<(usize, usize)> = Vec::new();
        let (mut failed, mut in_flight) = (0, None);
        for step in 0..20_000u64 {
            let now = 1_000_000_000 + step * 10_000;
            if running.len() >= cores * under_way {
                let (core, index) = running.swap_remove((random.unit() * running.len() as f64) as usize);
                load[core][index] -= 1;
                if index == 3 {
                    failed += 1;
                    let all = cluster.endpoints.endpoints.iter().map(|endpoint| &*endpoint.vitals);
                    if let Some(cause) = vitals.book(&outlier, Event::GatewayError)
                        && cluster.ejector.eject(&outlier, all, (vitals, cause), now, 0)
                    {
                        in_flight = Some(load.iter().map(|core| core[3]).sum::<u32>());
                    }
                }
            }
            let core = step as usize % cores;
            let ask = Ask { load: &|index| load[core][index], latency: &|_| Some(MS), avoid: &[], hash: None, now };
            let index = balancers[core].pick(&cluster, &ask).expect("healthy");
            load[core][index] += 1;
            running.push((core, index));
        }
        let in_flight = in_flight.expect("it is out");
        assert!(in_flight <= (cores * under_way) as u32);
        assert_eq!(load.iter().map(|core| core[3]).sum::<u32>(), 0, "{kind:?}: nothing is sent there any more");
        assert_eq!(failed, 5 + in_flight, "{kind:?}, {cores} cores");
    }
}
