//! Routes, balancers, and the compiling of snapshots, by size; beside `matchit` and a `HashMap`.

use std::collections::HashMap;
use std::fmt::Write;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use onehop_meter::Registry;
use onehop_plan::balance::{Ask, Balancer};
use onehop_plan::route::{Facts, Scratch};
use onehop_plan::{BalanceKind, Snapshot};

fn compile(text: String) -> Arc<Snapshot> {
    let loaded = onehop_config::parse(&[("bench.toml".to_owned(), text)]).expect("the language");
    Arc::new(onehop_plan::compile(&loaded.model, &Registry::new(1), None).expect("compiles"))
}

fn config(routes: usize, endpoints: usize) -> String {
    let mut text = "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\nlayer = \"http\"\n".to_owned();
    for number in 0..routes {
        let _ = write!(
            text,
            "[[route]]\nname = \"r{number}\"\npath = {{ prefix = \"/service-{number}/v1\" }}\ncluster = \"c\"\n"
        );
    }
    let all: Vec<String> =
        (0..endpoints).map(|at| format!("\"10.{}.{}.{}:80\"", at >> 16, at >> 8 & 255, at & 255)).collect();
    let _ = write!(text, "[[cluster]]\nname = \"c\"\nendpoints = [{}]\n", all.join(", "));
    text
}

/// A plain request.
fn facts<'a>(host: &'a [u8], path: &'a str) -> Facts<'a> {
    Facts {
        host,
        path: path.as_bytes(),
        query: b"",
        method: b"GET",
        header: &|_| None,
        source: IpAddr::V4(Ipv4Addr::LOCALHOST),
        sni: None,
    }
}

fn routes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    for count in [10usize, 1_000, 100_000] {
        let snapshot = compile(config(count, 1));
        let table = snapshot.tables[0].clone();
        let paths: Vec<String> = (0..1024).map(|at| format!("/service-{}/v1/users/7", at * 7919 % count)).collect();
        let mut router = matchit::Router::new();
        let mut map = HashMap::new();
        for number in 0..count {
            router.insert(format!("/service-{number}/v1/{{*rest}}"), number).expect("no overlap");
            map.insert(format!("/service-{number}/v1"), number);
        }
        let mut at = 0;
        let mut next = || -> &str {
            at = (at + 1) & 1023;
            &paths[at]
        };
        group.bench_with_input(BenchmarkId::new("prefix among", count), &count, |bencher, _| {
            let mut scratch = Scratch::default();
            bencher.iter(|| {
                let path = black_box(next());
                let facts = facts(b"api.example.com", path);
                table.find(&facts, &mut scratch).is_some()
            });
        });
        group.bench_with_input(BenchmarkId::new("matchit (yardstick) among", count), &count, |bencher, _| {
            bencher.iter(|| router.at(black_box(next())).is_ok());
        });
        group.bench_with_input(BenchmarkId::new("HashMap, exact (yardstick) among", count), &count, |bencher, _| {
            bencher.iter(|| map.contains_key(black_box(next().trim_end_matches("/users/7"))));
        });
    }
    group.finish();
}

/// Routes by host and prefix: half of the hosts are exact, half are wildcards, five routes for each.
fn hosts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    for count in [10usize, 1_000, 100_000] {
        let mut text = config(0, 1);
        for number in 0..count {
            let host = number / 5;
            let any = if host % 2 == 0 { "" } else { "*." };
            let _ = write!(
                text,
                "[[route]]\nname = \"r{number}\"\nhost = \"{any}shop-{host}.example.com\"\npath = {{ prefix = \"/service-{number}/v1\" }}\ncluster = \"c\"\n"
            );
        }
        let snapshot = compile(text);
        let table = snapshot.tables[0].clone();
        let targets: Vec<(String, String)> = (0..1024)
            .map(|at| {
                let number = at * 7919 % count;
                let host = number / 5;
                let label = if host % 2 == 0 { "" } else { "eu." };
                (format!("{label}shop-{host}.example.com"), format!("/service-{number}/v1/users/7"))
            })
            .collect();
        let mut at = 0;
        group.bench_with_input(BenchmarkId::new("host and prefix among", count), &count, |bencher, _| {
            let mut scratch = Scratch::default();
            bencher.iter(|| {
                at = (at + 1) & 1023;
                let (host, path) = black_box(&targets[at]);
                let facts = facts(host.as_bytes(), path);
                assert!(table.find(&facts, &mut scratch).is_some());
            });
        });
    }
    group.finish();
}

/// A thousand regular expressions, and paths that all of them have to be tried on to their ends.
fn expressions(criterion: &mut Criterion) {
    let mut text = "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\nlayer = \"http\"\n".to_owned();
    for number in 0..1000 {
        let _ = write!(
            text,
            "[[route]]\nname = \"r{number}\"\npath = {{ regex = \"/v[0-9]+/s{number}(/[a-z0-9]+)*/end{number}\" }}\ncluster = \"c\"\n"
        );
    }
    text.push_str("[[cluster]]\nname = \"c\"\nendpoints = [\"10.0.0.1:80\"]\n");
    let snapshot = compile(text);
    let table = snapshot.tables[0].clone();
    let mut group = criterion.benchmark_group("1000 expressions");
    for length in [64usize, 256, 1024, 4096] {
        let path = format!("/v1/s500{}/end500", "/abc".repeat(length / 4 - 4));
        group.bench_with_input(BenchmarkId::new("path of bytes:", length), &length, |bencher, _| {
            let mut scratch = Scratch::default();
            let facts = facts(b"api.example.com", &path);
            assert!(table.find(&facts, &mut scratch).is_some());
            bencher.iter(|| table.find(black_box(&facts), &mut scratch).is_some());
        });
    }
    group.finish();
}

/// A rate limit's one atomic word, among many keys.
fn rates(criterion: &mut Criterion) {
    let wanted = onehop_plan::model::RateLimit {
        requests: 1_000_000,
        per: std::time::Duration::from_secs(1),
        burst: 1_000_000,
        by: None,
        keys: 100_000,
        fields: onehop_plan::model::RateFields::Off,
    };
    let mut group = criterion.benchmark_group("rate limit");
    for keys in [1u64, 1_000, 100_000] {
        let rate = onehop_plan::limit::Rate::new(&wanted);
        let mut now = 1u64 << 40;
        group.bench_with_input(BenchmarkId::new("keys:", keys), &keys, |bencher, _| {
            bencher.iter(|| {
                now += 1_000;
                rate.take(&(now.wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys).to_le_bytes(), now).is_ok()
            });
        });
    }
    group.finish();
}

fn balancers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("balance");
    for count in [3usize, 100, 10_000] {
        let kinds = [
            ("round-robin", BalanceKind::RoundRobin),
            ("least-request", BalanceKind::LeastRequest),
            ("peak-ewma", BalanceKind::PeakEwma),
            ("random", BalanceKind::Random),
            ("ring-hash", BalanceKind::RingHash),
            ("maglev", BalanceKind::Maglev),
        ];
        for (name, kind) in kinds {
            let by_value = matches!(kind, BalanceKind::RingHash | BalanceKind::Maglev);
            let hashed = if by_value { "hash_on = { header = \"x-user\" }\n" } else { "" };
            let snapshot = compile(config(1, count) + &format!("balance = \"{name}\"\n{hashed}"));
            let cluster = snapshot.clusters[0].clone();
            let mut balancer = Balancer::new(kind, 0, 1, 7);
            group.bench_with_input(BenchmarkId::new(name, count), &count, |bencher, _| {
                let load = |index: usize| index as u32 & 3;
                let latency = |index: usize| Some(1e6 + (index & 7) as f64 * 1e5);
                let mut hash = 1u64;
                bencher.iter(|| {
                    hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17);
                    let hash = by_value.then_some(hash);
                    let ask = Ask { load: &load, latency: &latency, avoid: &[], hash, now: 1 };
                    balancer.pick(black_box(&cluster), &ask)
                });
            });
        }
        group.bench_with_input(BenchmarkId::new("index modulo (yardstick)", count), &count, |bencher, _| {
            let mut at = 0usize;
            bencher.iter(|| {
                at = at.wrapping_add(7919);
                black_box(at) % black_box(count)
            });
        });
    }
    group.finish();
}

fn snapshots(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("snapshot");
    group.sample_size(10);
    for count in [10usize, 1_000, 10_000] {
        let loaded = onehop_config::parse(&[("bench.toml".to_owned(), config(count, 3))]).expect("the language");
        let registry = Registry::new(1);
        let before = onehop_plan::compile(&loaded.model, &registry, None).expect("compiles");
        group.bench_with_input(BenchmarkId::new("compile again, routes:", count), &count, |bencher, _| {
            bencher
                .iter(|| onehop_plan::compile(&loaded.model, &registry, Some(&before)).expect("compiles").generation);
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_millis(1200));
    targets = routes, hosts, expressions, rates, balancers, snapshots
}
criterion_main!(benches);
