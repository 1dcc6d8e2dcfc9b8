//! Heads and chunks: parsing in place, rewriting, framing, beside httparse alone and plain copying.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use onehop_wire::http1::{ChunkedDecoder, Edits, HeadScanner, Limits, RequestHead, encode_request, hop_by_hop};

const HEAD: &[u8] = b"GET /api/v1/users/4711?fields=name,mail HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: Mozilla/5.0 \
(X11; Linux x86_64) AppleWebKit/537.36\r\nAccept: application/json\r\nAccept-Encoding: gzip, br\r\nAccept-Language: en\r\n\
Connection: keep-alive\r\nCookie: session=0123456789abcdef0123456789abcdef\r\nX-Request-Id: 7f3c2d1e-0000-4000-8000-1\r\n\r\n";

fn head(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("head");
    group.throughput(Throughput::Bytes(HEAD.len() as u64));
    group.bench_function("find end and parse, strict", |bencher| {
        let (mut parsed, limits) = (RequestHead::default(), Limits::default());
        bencher.iter(|| {
            let end = HeadScanner::default().find_end(black_box(HEAD)).expect("whole");
            parsed.parse(&HEAD[..end], &limits).expect("good");
            parsed.fields.len()
        });
    });
    group.bench_function("httparse alone (yardstick)", |bencher| {
        bencher.iter(|| {
            let mut fields = [httparse::EMPTY_HEADER; 128];
            let mut parsed = httparse::Request::new(&mut fields);
            parsed.parse(black_box(HEAD)).expect("good").is_complete()
        });
    });
    group.bench_function("rewrite", |bencher| {
        let mut parsed = RequestHead::default();
        parsed.parse(HEAD, &Limits::default()).expect("good");
        let mut out = Vec::with_capacity(1024);
        let add: [(&[u8], &[u8]); 2] = [(b"x-forwarded-for", b"127.0.0.1"), (b"via", b"1.1 onehop")];
        bencher.iter(|| {
            out.clear();
            let edits = Edits { drop: hop_by_hop(&parsed.fields, parsed.named_by_connection), add: &add };
            encode_request(&mut out, &parsed, black_box(HEAD), parsed.target.of(HEAD), &edits);
            out.len()
        });
    });
    group.bench_function("copy (yardstick)", |bencher| {
        let mut out = Vec::with_capacity(1024);
        bencher.iter(|| {
            out.clear();
            out.extend_from_slice(black_box(HEAD));
            out.len()
        });
    });
    group.finish();
}

fn chunks(criterion: &mut Criterion) {
    let mut body = Vec::new();
    for _ in 0..16 {
        body.extend_from_slice(b"1000\r\n");
        body.extend_from_slice(&[b'x'; 4096]);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    let mut group = criterion.benchmark_group("chunked");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("walk 64 KiB in chunks of 4 KiB", |bencher| {
        bencher.iter(|| ChunkedDecoder::new().scan(black_box(&body)).expect("good").forward);
    });
    group.bench_function("copy (yardstick)", |bencher| {
        let mut out = Vec::with_capacity(body.len());
        bencher.iter(|| {
            out.clear();
            out.extend_from_slice(black_box(&body));
            out.len()
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_millis(1200));
    targets = head, chunks
}
criterion_main!(benches);
