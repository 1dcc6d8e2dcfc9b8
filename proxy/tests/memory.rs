//! What a large configuration occupies, counted byte by byte as it is asked of the allocator: compiled, with its metrics and
//! a core's own state, and while configurations follow one another under connections that stay. `cargo test -p onehop
//! --test memory -- --nocapture` prints the figures.

use std::alloc::System;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use onehop_agent::Publisher;
use onehop_config::Loaded;
use onehop_meter::Registry;
use onehop_plan::Snapshot;
use onehop_worker::measured::Core;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const ROUTES: usize = 10_000;
const CLUSTERS: usize = 1_000;
const MIB: f64 = 1024.0 * 1024.0;

/// Every byte of the process is counted: the tests take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// MiB that are allocated and not freed.
fn held() -> f64 {
    let stats = ALLOCATOR.stats();
    (stats.bytes_allocated as f64 - stats.bytes_deallocated as f64) / MIB
}

fn text(tag: &str) -> String {
    let mut text = "[[listener]]\nname = \"l\"\naddress = \"127.0.0.1:0\"\n".to_owned();
    for number in 0..ROUTES {
        let (host, cluster) = (number % 500, number % CLUSTERS);
        let _ = write!(
            text,
            "[[route]]\nname = \"r{number}\"\nhost = \"h{host}.example.com\"\npath = {{ prefix = \"/service-{number}{tag}\" }}\ncluster = \"c{cluster}\"\n"
        );
    }
    for number in 0..CLUSTERS {
        let (last, port) = (number % 250 + 1, 9000 + number);
        let _ = write!(
            text,
            "[[cluster]]\nname = \"c{number}\"\nendpoints = [\"127.0.0.{last}:{port}\", \"127.0.1.{last}:{port}\"]\n"
        );
    }
    text
}

fn load(tag: &str) -> Loaded {
    onehop_config::parse(&[("large.toml".to_owned(), text(tag))]).expect("the language")
}

fn compiled(tag: &str, registry: &Registry, previous: Option<&Snapshot>) -> Arc<Snapshot> {
    Arc::new(onehop_plan::compile(&load(tag).model, registry, previous).expect("compiles"))
}

/// What is made once in a process, whatever is compiled, is none of the configuration's.
fn baseline() -> f64 {
    drop(compiled("-first", &Registry::new(1), None));
    held()
}

#[test]
fn ten_thousand_routes_and_a_thousand_clusters() {
    let _turn = alone();
    let empty = baseline();
    let registry = Registry::new(16);
    let snapshot = compiled("", &registry, None);
    let compiled = held() - empty;
    let core = Core::new(snapshot.clone(), &registry);
    let state = held() - empty - compiled;
    println!("compiled, with the series of 16 cores: {compiled:.1} MiB; a core's own state: {state:.2} MiB");
    assert!(compiled < 14.0, "{compiled:.1} MiB");
    assert!(state < 1.5, "{state:.2} MiB");
    drop((core, snapshot, registry));
    let left = held() - empty;
    assert!(left < 0.1, "{left:.2} MiB are left when all is dropped");
}

#[test]
fn the_series_of_routes_that_are_all_in_use() {
    let _turn = alone();
    let empty = baseline();
    let cores = 2;
    let registry = Registry::new(cores);
    let snapshot = compiled("", &registry, None);
    let unused = held() - empty;
    for number in 0..ROUTES {
        let series = registry.route(&format!("r{number}"));
        for core in 0..cores {
            let block = series.core(core);
            block.requests.add(1);
            block.hop.record(5_000);
            block.total.record(500_000);
        }
    }
    for cluster in &snapshot.clusters {
        for core in 0..cores {
            cluster.meters.core(core).requests.add(1);
            cluster.endpoints.endpoints.iter().for_each(|endpoint| endpoint.meters.core(core).requests.add(1));
        }
    }
    let used = held() - empty;
    println!("compiled: {unused:.1} MiB; when {cores} cores have used every route and endpoint: {used:.1} MiB");
    assert!(used < 40.0, "{used:.1} MiB");
    drop(snapshot);
}

#[test]
fn changes_that_follow_one_another_keep_one_old_configuration_and_no_connection_keeps_another() {
    let _turn = alone();
    let empty = baseline();
    let registry = Registry::new(1);
    let mut publisher = Publisher::new(registry.clone(), Vec::new());
    let first = publisher.first(&load("-0").model, Vec::new());
    drop(first.unwrap_or_else(|refused| panic!("{refused}")));
    let one = held() - empty;
    let (mut connections, mut most) = (Vec::new(), 0.0f64);
    for turn in 1..=8 {
        // A connection came in, and stays.
        connections.extend(publisher.snapshot().map(|snapshot| snapshot.listeners[0].clone()));
        let loaded = load(&format!("-{turn}"));
        publisher.publish(&loaded.model).unwrap_or_else(|refused| panic!("{refused}"));
        drop(loaded);
        most = most.max(held() - empty);
    }
    println!("one: {one:.1} MiB; at most, after each of eight changes that follow at once: {most:.1} MiB");
    assert!(most < 2.2 * one, "{most:.1} MiB, one is {one:.1}");
    drop(publisher.sweep());
    registry.retire();
    let after = held() - empty;
    assert!(after < 1.1 * one, "{after:.1} MiB, one is {one:.1}: {} connections hold on", connections.len());
}
