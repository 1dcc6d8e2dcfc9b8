//! What a core does beside parsing: leasing a pooled connection, and taking a snapshot over between two requests.

use std::fmt::Write;
use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::sync::{Arc, Mutex, RwLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use onehop_meter::Registry;
use onehop_net::runtime::{self, Options};
use onehop_plan::Snapshot;
use onehop_worker::measured::{Cluster, Core};

fn compile(text: &str, registry: &Registry, before: Option<&Snapshot>) -> Arc<Snapshot> {
    let loaded = onehop_config::parse(&[("bench.toml".to_owned(), text.to_owned())]).expect("the language");
    Arc::new(onehop_plan::compile(&loaded.model, registry, before).expect("compiles"))
}

fn config(clusters: usize, endpoints: &[String]) -> String {
    let mut text = "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\nlayer = \"http\"\n".to_owned();
    let endpoints = endpoints.iter().map(|endpoint| format!("\"{endpoint}\"")).collect::<Vec<_>>().join(", ");
    for number in 0..clusters {
        let _ = write!(
            text,
            "[[route]]\nname = \"r{number}\"\npath = {{ prefix = \"/service-{number}/v1\" }}\ncluster = \"c{number}\"\n\
             [[cluster]]\nname = \"c{number}\"\nendpoints = [{endpoints}]\n"
        );
    }
    text
}

/// What needs no waiting.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits, so something else is measured than is said"),
    }
}

fn leases(criterion: &mut Criterion, cluster: &Cluster) {
    let mut group = criterion.benchmark_group("lease");
    group.bench_function("pooled, given back within this burst", |bencher| {
        bencher.iter(|| assert_eq!(at_once(cluster.lease(black_box(true))), Some(true)));
    });
    group.bench_function("pooled, looked at first (a system call)", |bencher| {
        bencher.iter(|| assert_eq!(at_once(cluster.lease(black_box(false))), Some(true)));
    });
    group.bench_function("Mutex<Vec>, pop and push (yardstick)", |bencher| {
        let pool = Mutex::new(vec![Box::new([0u8; 64])]);
        bencher.iter(|| {
            let connection = pool.lock().expect("no panic").pop().expect("it was given back");
            pool.lock().expect("no panic").push(black_box(connection));
        });
    });
    group.finish();
}

/// Leasing needs an engine: criterion runs inside a core, whose pool holds one connection.
fn pool(criterion: &mut Criterion) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("bound").to_string();
    let registry = Registry::new(1);
    let snapshot = compile(&config(1, &[address]), &registry, None);
    let measured = runtime::run(
        &Options::default(),
        |_| {},
        |_| async move {
            let cluster = Core::new(snapshot, &registry).first_cluster().expect("there is one");
            assert_eq!(cluster.lease(true).await, Some(false), "the first one is connected");
            leases(criterion, &cluster);
        },
    );
    measured.expect("a core starts");
    drop(listener);
}

fn installs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("install on a core");
    let three = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"].map(str::to_owned);
    for count in [10usize, 1_000, 10_000] {
        let registry = Registry::new(1);
        let text = config(count, &three);
        let first = compile(&text, &registry, None);
        let same = compile(&text, &registry, Some(&first));
        // One cluster of all has a further endpoint.
        let other = text.replacen("\"10.0.0.3:80\"]", "\"10.0.0.3:80\", \"10.0.0.4:80\"]", 1);
        let changed = compile(&other, &registry, Some(&first));
        let core = Core::new(first.clone(), &registry);
        for (name, second) in [("nothing changed, clusters:", same), ("one changed, clusters:", changed)] {
            let mut turn = false;
            group.bench_with_input(BenchmarkId::new(name, count), &count, |bencher, _| {
                bencher.iter(|| {
                    turn = !turn;
                    core.install(if turn { second.clone() } else { first.clone() });
                });
            });
        }
    }
    group.bench_function("RwLock<Arc>, store (yardstick)", |bencher| {
        let (held, other) = (RwLock::new(Arc::new(0u64)), Arc::new(1u64));
        bencher.iter(|| *held.write().expect("no panic") = black_box(other.clone()));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_millis(1200));
    targets = pool, installs
}
criterion_main!(benches);
