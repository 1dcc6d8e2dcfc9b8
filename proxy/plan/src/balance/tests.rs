//! Each picker by itself: evenness, weights, stability.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use onehop_meter::Registry;

use super::*;
use crate::model::{self, Address, ClusterPolicy, Model, Placement};
use crate::outlier::{DRAINED, EJECTED};

pub(super) fn cluster(kind: BalanceKind, weights: &[u32], change: impl Fn(usize, &mut Placement)) -> Cluster {
    cluster_with(kind, weights, change, ClusterPolicy::default())
}

pub(crate) fn cluster_with(
    kind: BalanceKind,
    weights: &[u32],
    change: impl Fn(usize, &mut Placement),
    policy: ClusterPolicy,
) -> Cluster {
    let endpoints = weights.iter().enumerate().map(|(index, weight)| {
        let mut placement = Placement::default();
        change(index, &mut placement);
        let address = Address::Tcp(([10, 0, (index >> 8) as u8, index as u8], 80).into());
        model::Endpoint { target: model::EndpointTarget::Address(address), weight: *weight, placement }
    });
    let hash_on = matches!(kind, BalanceKind::RingHash | BalanceKind::Maglev).then_some(model::HashOn::Source);
    let model = Model {
        listeners: vec![model::Listener { name: "l".to_owned(), ..model::Listener::default() }],
        clusters: vec![model::Cluster {
            name: "c".to_owned(),
            endpoints: endpoints.collect(),
            balance: kind,
            policy: ClusterPolicy { hash_on, ..policy },
            ..model::Cluster::default()
        }],
        ..Model::default()
    };
    let snapshot = crate::compile(&model, &Registry::new(1), None).unwrap_or_else(|problems| panic!("{problems:?}"));
    let cluster = snapshot.clusters.into_iter().next().expect("one");
    Arc::into_inner(cluster).expect("ours alone")
}

pub(super) fn ask<'a>(load: &'a dyn Fn(usize) -> u32, avoid: &'a [usize], hash: Option<u64>) -> Ask<'a> {
    Ask { load, latency: &|_| None, avoid, hash, now: 1 }
}

fn counts(cluster: &Cluster, kind: BalanceKind, cores: usize, picks: usize) -> Vec<usize> {
    let mut counts = vec![0; cluster.endpoints.endpoints.len()];
    for core in 0..cores {
        let mut balancer = Balancer::new(kind, core, cores, 42 + core as u64);
        for _ in 0..picks / cores {
            counts[balancer.pick(cluster, &ask(&|_| 0, &[], None)).expect("healthy")] += 1;
        }
    }
    counts
}

#[test]
fn round_robin_is_even_and_follows_weights_over_any_number_of_cores() {
    let even = |weights: &[u32]| cluster(BalanceKind::RoundRobin, weights, |_, _| {});
    assert_eq!(counts(&even(&[1, 1, 1]), BalanceKind::RoundRobin, 1, 300), [100, 100, 100]);
    assert_eq!(counts(&even(&[5, 1, 1]), BalanceKind::RoundRobin, 1, 700), [500, 100, 100]);
    for cores in [2, 16] {
        // One request on each of several cores goes to different endpoints: they do not march in step.
        assert!(counts(&even(&[1; 16]), BalanceKind::RoundRobin, cores, cores).iter().all(|count| *count <= 1));
        let spread = counts(&even(&[1; 10]), BalanceKind::RoundRobin, cores, 16_000);
        let (least, most) = (spread.iter().min().expect("some"), spread.iter().max().expect("some"));
        assert!(most - least <= cores, "{spread:?}");
    }
}

#[test]
fn cores_do_not_march_in_step_through_weights() {
    for weights in [[5, 1, 1], [3, 2, 2]] {
        let cluster = cluster(BalanceKind::RoundRobin, &weights, |_, _| {});
        let total: u32 = weights.iter().sum();
        for cores in [2, 16] {
            let mut balancers: Vec<Balancer> =
                (0..cores).map(|core| Balancer::new(BalanceKind::RoundRobin, core, cores, 1)).collect();
            let mut sent = [0u32; 3];
            for turn in 1..=70 {
                for balancer in &mut balancers {
                    sent[balancer.pick(&cluster, &ask(&|_| 0, &[], None)).expect("healthy")] += 1;
                }
                for (sent, weight) in sent.iter().zip(weights) {
                    let due = f64::from(turn * cores as u32 * weight) / f64::from(total);
                    let off = (f64::from(*sent) - due).abs();
                    // In step, the heaviest would be most of the cores ahead after the first turn.
                    assert!(
                        off <= 1.0 + cores as f64 / 8.0,
                        "{weights:?}, {cores} cores, turn {turn}: {sent}, due {due}"
                    );
                }
            }
        }
    }
}

#[test]
fn weights_are_followed_with_and_without_load() {
    for kind in [BalanceKind::LeastRequest, BalanceKind::PeakEwma] {
        for weights in [&[3, 1][..], &[3, 1, 3, 1, 3, 1], &[1, 3]] {
            let cluster = cluster(kind, weights, |_, _| {});
            let mut balancer = Balancer::new(kind, 0, 1, 7);
            let (mut idle, mut load) = (vec![0u32; weights.len()], vec![0u32; weights.len()]);
            for _ in 0..40_000 {
                let alike = Ask { latency: &|_| Some(1e6), ..ask(&|_| 0, &[], None) };
                idle[balancer.pick(&cluster, &alike).expect("healthy")] += 1;
            }
            // Nothing ends: what is in flight is what was sent.
            for _ in 0..4_000 {
                let under_way = |index: usize| load[index];
                let busy = Ask { latency: &|_| Some(1e6), ..ask(&under_way, &[], None) };
                let index = balancer.pick(&cluster, &busy).expect("healthy");
                load[index] += 1;
            }
            let heavy = |sent: &[u32]| {
                let of = sent.iter().zip(weights).filter(|(_, weight)| **weight == 3).map(|(sent, _)| sent);
                f64::from(of.sum::<u32>()) / f64::from(sent.iter().sum::<u32>())
            };
            assert!((0.72..0.78).contains(&heavy(&load)), "{kind:?}, under load: {load:?}");
            assert!((0.73..0.77).contains(&heavy(&idle)), "{kind:?}, idle: {idle:?}");
        }
    }
}

#[test]
fn chance_is_even_enough_over_any_number_of_cores() {
    for kind in [BalanceKind::Random, BalanceKind::LeastRequest] {
        for cores in [2, 16] {
            let spread = counts(&cluster(kind, &[1; 10], |_, _| {}), kind, cores, 32_000);
            assert!(spread.iter().all(|count| (2900..3500).contains(count)), "{spread:?}");
        }
    }
    // All endpoints known to be alike: chance decides here too.
    for cores in [2, 16] {
        let cluster = cluster(BalanceKind::PeakEwma, &[1; 10], |_, _| {});
        let alike = Ask { latency: &|_| Some(1e6), ..ask(&|_| 0, &[], None) };
        let mut spread = [0; 10];
        for core in 0..cores {
            let mut balancer = Balancer::new(BalanceKind::PeakEwma, core, cores, 42 + core as u64);
            (0..32_000 / cores).for_each(|_| spread[balancer.pick(&cluster, &alike).expect("healthy")] += 1);
        }
        assert!(spread.iter().all(|count| (2900..3500).contains(count)), "{spread:?}");
    }
    let weighted = counts(&cluster(BalanceKind::Random, &[3, 1], |_, _| {}), BalanceKind::Random, 2, 40_000);
    assert!((29_000..31_000).contains(&weighted[0]), "{weighted:?}");
}

#[test]
fn the_drained_and_the_failed_are_avoided_while_others_are_left() {
    for kind in [
        BalanceKind::RoundRobin,
        BalanceKind::LeastRequest,
        BalanceKind::Random,
        BalanceKind::PeakEwma,
        BalanceKind::RingHash,
        BalanceKind::Maglev,
    ] {
        let cluster = cluster(kind, &[1, 1, 1], |_, _| {});
        cluster.endpoints.endpoints[0].vitals.health.store(DRAINED, Ordering::Relaxed);
        let mut balancer = Balancer::new(kind, 0, 1, 3);
        for _ in 0..20 {
            assert_eq!(balancer.pick(&cluster, &ask(&|_| 0, &[1], None)), Some(2), "{kind:?}");
        }
        assert_eq!(balancer.pick(&cluster, &ask(&|_| 0, &[1, 2], None)), None);
    }
}

#[test]
fn when_hardly_any_is_healthy_health_is_not_looked_at() {
    let cluster = cluster(BalanceKind::RoundRobin, &[1; 4], |_, _| {});
    let endpoints = &cluster.endpoints.endpoints;
    endpoints[0].vitals.health.store(EJECTED, Ordering::Relaxed);
    endpoints[1].vitals.health.store(EJECTED, Ordering::Relaxed);
    let spread = |cluster: &Cluster| counts(cluster, BalanceKind::RoundRobin, 1, 400);
    assert_eq!(spread(&cluster), [0, 0, 200, 200]);
    endpoints[2].vitals.health.store(EJECTED, Ordering::Relaxed);
    assert_eq!(spread(&cluster), [100, 100, 100, 100]);
    // By hand is by hand.
    endpoints[3].vitals.health.store(DRAINED, Ordering::Relaxed);
    assert_eq!(spread(&cluster)[3], 0);
}

#[test]
fn the_next_tier_takes_what_the_first_cannot_carry() {
    let kind = BalanceKind::Random;
    let cluster = cluster(kind, &[1; 20], |index, placement| placement.priority = u32::from(index >= 10));
    let first = |out: usize| {
        for (index, endpoint) in cluster.endpoints.endpoints.iter().enumerate().take(10) {
            endpoint.vitals.health.store(if index < out { EJECTED } else { 0 }, Ordering::Relaxed);
        }
        counts(&cluster, kind, 1, 10_000)[..10].iter().sum::<usize>()
    };
    assert_eq!(first(0), 10_000);
    assert_eq!(first(2), 10_000);
    assert!((6_500..7_500).contains(&first(5)), "{}", first(5));
    assert_eq!(first(10), 0);
}

#[test]
fn the_own_zone_comes_first_and_gives_up_what_it_cannot_carry() {
    let policy = ClusterPolicy { zone: Some("a".to_owned()), ..ClusterPolicy::default() };
    let place =
        |index: usize, placement: &mut Placement| placement.zone = Some(if index < 10 { "a" } else { "b" }.into());
    let cluster = cluster_with(BalanceKind::LeastRequest, &[1; 20], place, policy);
    let own = || counts(&cluster, BalanceKind::LeastRequest, 1, 10_000)[..10].iter().sum::<usize>();
    assert_eq!(own(), 10_000);
    for endpoint in &cluster.endpoints.endpoints[..5] {
        endpoint.vitals.health.store(EJECTED, Ordering::Relaxed);
    }
    assert!((6_500..7_500).contains(&own()), "{}", own());
}

#[test]
fn a_new_endpoint_takes_its_share_step_by_step() {
    let second = 1_000_000_000;
    let policy = ClusterPolicy { slow_start: Some(std::time::Duration::from_secs(10)), ..ClusterPolicy::default() };
    let cluster = cluster_with(BalanceKind::Random, &[1; 4], |_, _| {}, policy);
    cluster.endpoints.endpoints[3].vitals.begins(100 * second);
    let share = |now: u64| {
        let mut balancer = Balancer::new(BalanceKind::Random, 0, 1, 5);
        let asked = Ask { now, ..ask(&|_| 0, &[], None) };
        (0..10_000).filter(|_| balancer.pick(&cluster, &asked) == Some(3)).count()
    };
    assert!(share(100 * second) < 800, "{}", share(100 * second));
    assert!((1000..2000).contains(&share(105 * second)), "{}", share(105 * second));
    assert!((2300..2700).contains(&share(111 * second)), "{}", share(111 * second));
}

/// Picks by five thousand values in the first moment of endpoints that have just come.
fn at_once(kind: BalanceKind, new: impl Fn(usize) -> bool) -> [usize; 5] {
    let now = 100_000_000_000;
    let policy = ClusterPolicy { slow_start: Some(std::time::Duration::from_secs(10)), ..ClusterPolicy::default() };
    let cluster = cluster_with(kind, &[1; 5], |_, _| {}, policy);
    let endpoints = cluster.endpoints.endpoints.iter().enumerate();
    endpoints.filter(|(at, _)| new(*at)).for_each(|(_, endpoint)| endpoint.vitals.begins(now));
    let mut balancer = Balancer::new(kind, 0, 1, 5);
    let mut counts = [0; 5];
    for key in 0..5_000 {
        let hash = Some(hash_of(format!("key-{key}").as_bytes()));
        counts[balancer.pick(&cluster, &Ask { now, ..ask(&|_| 0, &[], hash) }).expect("healthy")] += 1;
    }
    counts
}

/// After an outage all come back at once, and nobody is to take what the others do not take yet.
#[test]
fn endpoints_that_have_all_just_come_share_evenly() {
    use BalanceKind::*;
    for kind in [RoundRobin, LeastRequest, PeakEwma, Random, RingHash, Maglev] {
        let counts = at_once(kind, |_| true);
        assert!(counts.iter().all(|count| (500..1700).contains(count)), "{kind:?}: {counts:?}");
    }
}

/// What a new endpoint does not take yet of the values that are its own goes to the others, and not all to one.
#[test]
fn values_wait_elsewhere_for_an_endpoint_that_has_just_come() {
    for kind in [BalanceKind::RingHash, BalanceKind::Maglev] {
        let counts = at_once(kind, |at| at == 3);
        assert!((30..300).contains(&counts[3]), "{kind:?}: {counts:?}");
        let others = || counts.iter().enumerate().filter(|(at, _)| *at != 3).map(|(_, count)| *count);
        assert!(others().all(|count| (700..1800).contains(&count)), "{kind:?}: {counts:?}");
    }
}

/// The counts of healthy endpoints stand for a while, but not where that would mean that nobody is asked.
#[test]
fn panic_begins_with_the_last_endpoint_that_goes_out() {
    for (panic_percent, is_served) in [(50, true), (0, false)] {
        let policy = ClusterPolicy { panic_percent, ..ClusterPolicy::default() };
        let cluster = cluster_with(BalanceKind::RoundRobin, &[1; 3], |_, _| {}, policy);
        let mut balancer = Balancer::new(BalanceKind::RoundRobin, 0, 1, 5);
        let mut pick = |now| balancer.pick(&cluster, &Ask { now, ..ask(&|_| 0, &[], None) });
        assert!(pick(1).is_some());
        for (endpoint, why) in cluster.endpoints.endpoints.iter().zip([EJECTED, DRAINED, EJECTED]) {
            endpoint.vitals.health.store(why, Ordering::Relaxed);
        }
        for now in 2..10 {
            assert_eq!(pick(now).is_some_and(|index| index != 1), is_served, "{panic_percent}");
        }
    }
}

/// Where nobody is left, nobody is looked for at every place of the table.
#[test]
fn a_cluster_that_is_out_costs_a_look_at_each_endpoint() {
    for kind in [BalanceKind::RingHash, BalanceKind::Maglev] {
        let cluster = cluster(kind, &[1; 100], |_, _| {});
        let members: Vec<u32> = (0..100).collect();
        let looks = std::cell::Cell::new(0);
        let candidate = |_| {
            looks.set(looks.get() + 1);
            false
        };
        let choice = Choice { set: &cluster.endpoints, members: &members, sums: &[], candidate: &candidate };
        assert_eq!(hashed::pick(7, &choice, &|_| 0), None);
        assert_eq!(looks.get(), 100, "{kind:?}");
    }
}

fn choices(kind: BalanceKind, weights: &[u32], out: Option<usize>, keys: usize) -> Vec<usize> {
    let cluster = cluster(kind, weights, |_, _| {});
    if let Some(out) = out {
        cluster.endpoints.endpoints[out].vitals.health.store(EJECTED, Ordering::Relaxed);
    }
    let mut balancer = Balancer::new(kind, 0, 1, 1);
    let pick = |key: usize| balancer.pick(&cluster, &ask(&|_| 0, &[], Some(hash_of(format!("key-{key}").as_bytes()))));
    (0..keys).map(pick).map(|found| found.expect("healthy")).collect()
}

#[test]
fn a_value_keeps_its_endpoint_and_few_move_when_one_goes() {
    for (kind, moved_at_most) in [(BalanceKind::RingHash, 0.0), (BalanceKind::Maglev, 0.0)] {
        let before = choices(kind, &[1; 10], None, 10_000);
        assert_eq!(before, choices(kind, &[1; 10], None, 10_000));
        let mut counts = BTreeMap::new();
        before.iter().for_each(|index| *counts.entry(*index).or_insert(0) += 1);
        assert!(counts.len() == 10 && counts.values().all(|count| (500..1600).contains(count)), "{kind:?} {counts:?}");
        let after = choices(kind, &[1; 10], Some(4), 10_000);
        let moved = before.iter().zip(&after).filter(|(old, new)| **old != 4 && old != new).count();
        assert!(moved as f64 <= moved_at_most * 10_000.0, "{kind:?}: {moved}");
        assert!(!after.contains(&4));
        // Weights are followed.
        let heavy = choices(kind, &[3, 1, 1], None, 10_000).iter().filter(|index| **index == 0).count();
        assert!((5_000..7_000).contains(&heavy), "{kind:?} {heavy}");
    }
    // An eleventh takes about its share from the others, and little else moves: the maglev paper's second property.
    let (ten, eleven) =
        (choices(BalanceKind::Maglev, &[1; 10], None, 10_000), choices(BalanceKind::Maglev, &[1; 11], None, 10_000));
    let moved = ten.iter().zip(&eleven).filter(|(old, new)| **new != 10 && old != new).count();
    assert!(moved < 600, "{moved}");
}

#[test]
fn all_cores_send_a_value_to_the_same_endpoint_and_are_even_together() {
    for kind in [BalanceKind::RingHash, BalanceKind::Maglev] {
        let cluster = cluster(kind, &[1; 10], |_, _| {});
        for cores in [2, 16] {
            let mut balancers: Vec<Balancer> =
                (0..cores).map(|core| Balancer::new(kind, core, cores, 7 + core as u64)).collect();
            let mut spread = [0; 10];
            for key in 0..10_000 {
                let hash = Some(hash_of(format!("key-{key}").as_bytes()));
                let mut picks = balancers.iter_mut().map(|balancer| balancer.pick(&cluster, &ask(&|_| 0, &[], hash)));
                let first = picks.next().flatten().expect("healthy");
                assert!(picks.all(|pick| pick == Some(first)), "{kind:?} over {cores} cores");
                spread[first] += 1;
            }
            assert!(spread.iter().all(|count| (500..1600).contains(count)), "{kind:?} {spread:?}");
        }
    }
}

#[test]
fn a_maglev_table_is_nearly_even() {
    let cluster = cluster(BalanceKind::Maglev, &[1; 100], |_, _| {});
    let Some(HashTable::Maglev(places)) = cluster.endpoints.table.as_deref() else { panic!("a table") };
    let mut counts = vec![0usize; 100];
    places.iter().for_each(|index| counts[*index as usize] += 1);
    let (least, most) = (counts.iter().min().expect("some"), counts.iter().max().expect("some"));
    // 65537 places for 100: each gets 655 or 656.
    assert!(most - least <= 1, "{least} to {most}");
}

#[test]
fn a_ring_s_loads_are_bounded() {
    let cluster = cluster(BalanceKind::RingHash, &[1; 4], |_, _| {});
    let mut balancer = Balancer::new(BalanceKind::RingHash, 0, 1, 1);
    let mut load = [0u32; 4];
    // One key, many requests in flight: it must not drown one endpoint.
    for _ in 0..400 {
        let found = balancer.pick(&cluster, &ask(&|index| load[index], &[], Some(7))).expect("healthy");
        load[found] += 1;
    }
    assert!(load.iter().all(|load| *load <= 126), "{load:?}");
}
