//! What watching costs: the ledger's stamps, histograms, scrapes; and the pooled buffers beside the allocator.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use onehop_meter::ledger::{Ledger, State, Step};
use onehop_meter::{LazyHistogram, Registry};
use onehop_net::{Buf, Size, clock};

fn ledger(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ledger");
    group.bench_function("one request, six clock reads", |bencher| {
        bencher.iter(|| {
            let mut ledger = Ledger::new(clock::now());
            ledger.mark(Step::HeadComplete, ledger.latest());
            ledger.mark(Step::Routed, ledger.latest());
            ledger.mark(Step::Leased, clock::now());
            ledger.mark(Step::RequestWritten, clock::now());
            ledger.enter(State::UpstreamWait, ledger.latest());
            let first = clock::now();
            ledger.enter(State::Hop, first);
            ledger.mark(Step::FirstByte, first);
            ledger.mark(Step::ResponseWritten, clock::now());
            black_box(ledger.finish(clock::now()))
        });
    });
    group.bench_function("Instant::now (yardstick)", |bencher| bencher.iter(Instant::now));
    group.bench_function("histogram, record", |bencher| {
        let (histogram, mut ns) = (LazyHistogram::default(), 1_000u64);
        bencher.iter(|| {
            ns = ns * 21 % 10_000_019;
            histogram.record(black_box(ns));
        });
    });
    group.bench_function("hdrhistogram, record (yardstick)", |bencher| {
        let mut histogram = hdrhistogram::Histogram::<u64>::new_with_bounds(1, 3_600_000_000_000, 3).expect("bounds");
        let mut ns = 1_000u64;
        bencher.iter(|| {
            ns = ns * 21 % 10_000_019;
            histogram.saturating_record(black_box(ns));
        });
    });
    group.finish();
}

fn scrape(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scrape");
    group.sample_size(20);
    for count in [10usize, 1_000] {
        let registry = Registry::new(2);
        let routes: Vec<_> = (0..count).map(|number| registry.route(&format!("route-{number}"))).collect();
        for route in &routes {
            route.core(0).hop.record(12_345);
        }
        group.bench_with_input(BenchmarkId::new("routes", count), &count, |bencher, _| {
            bencher.iter(|| registry.scrape().len());
        });
    }
    group.finish();
}

fn buffers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("buffer");
    group.bench_function("lease 16 KiB from the pool", |bencher| {
        bencher.iter(|| Buf::take(black_box(Size::Medium)).room())
    });
    group.bench_function("allocate 16 KiB zeroed (yardstick)", |bencher| {
        bencher.iter(|| vec![0u8; black_box(16 * 1024)].len());
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_millis(1200));
    targets = ledger, scrape, buffers
}
criterion_main!(benches);
