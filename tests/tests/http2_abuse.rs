//! Attacks that go on for some seconds, all of them at once and with new connections as soon as the old ones are closed:
//! whoever behaves is served meanwhile, and what the attack costs is bounded: memory by the streams and windows that are
//! allowed, CPU by what one connection may do before it is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use onehop_tests::frames::{Frames, GET, block, frame};
use onehop_tests::http2::{Http2Origin, ask, connect, get, run};
use onehop_tests::{Client, Proxy, eventually};

const LASTS: Duration = Duration::from_secs(4);

fn resets(client: &mut Frames) {
    for number in 0..2000u32 {
        let stream = number * 2 + 1;
        client.send([frame(1, 5, stream, &block(&GET)), frame(3, 0, stream, &8u32.to_be_bytes())].concat());
    }
}

/// The same, once each request is under way.
fn late_resets(client: &mut Frames) {
    for batch in 0..20u32 {
        let streams: Vec<u32> = (0..100).map(|number| (batch * 100 + number) * 2 + 1).collect();
        client.send(streams.iter().flat_map(|stream| frame(1, 5, *stream, &block(&GET))).collect::<Vec<u8>>());
        // The answer shows that they have been looked at.
        client.send(frame(6, 0, 0, &[batch as u8; 8]));
        client.until(6);
        client.send(streams.iter().flat_map(|stream| frame(3, 0, *stream, &[0, 0, 0, 8])).collect::<Vec<u8>>());
    }
}

fn continuations(client: &mut Frames) {
    client.send(frame(1, 0, 1, &block(&GET)));
    for _ in 0..2000 {
        client.send(frame(9, 0, 1, &block(&[("a", "b")])));
    }
}

fn settings(client: &mut Frames) {
    client.send(frame(4, 0, 0, &[]).repeat(2000));
}

fn pings(client: &mut Frames) {
    client.send(frame(6, 0, 0, &[7; 8]).repeat(4000));
}

/// Streams whose answers are never read: no window for the last of each, and no credit ever. Held for as long as the
/// attack lasts.
fn slow_reads(client: &mut Frames, over: &AtomicBool) {
    let large = [(":method", "GET"), (":scheme", "http"), (":authority", "test"), (":path", "/large")];
    for number in 0..100u32 {
        client.headers(number * 2 + 1, &large, true);
    }
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A figure of the process, in KiB.
fn memory_kib(proxy: &Proxy, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).expect("it runs");
    let line = text.lines().find(|line| line.starts_with(name)).expect("a figure");
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number")
}

/// CPU time that the process has used, in milliseconds.
fn cpu_ms(proxy: &Proxy) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", proxy.pid())).expect("it runs");
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().expect("a number") + fields[12].parse::<u64>().expect("a number");
    ticks * 10
}

#[test]
fn others_are_served_and_the_cost_is_bounded() {
    // Over HTTP/2: an upstream's stream can be cancelled, where an HTTP/1 connection would have to be closed.
    let large = bytes::Bytes::from(vec![b'x'; 4_000_000]);
    // With the library's own limits on streams that are given up: whoever attacks must not have it close the connection
    // that all share.
    let origin = Http2Origin::start(move |mut incoming| {
        let large = large.clone();
        async move {
            let body = if incoming.request.uri().path() == "/large" { large } else { large.slice(..5) };
            let Ok(mut send) = incoming.respond.send_response(http::Response::new(()), false) else { return };
            let _ = send.send_data(body, true);
        }
    });
    let proxy = Proxy::start_with(&origin.config("", "", ""), &["--workers", "1"], None);
    let address = proxy.address("edge");
    assert_eq!(Client::connect(address).get("/warm").status, 200);
    let (memory, cpu) = (memory_kib(&proxy, "VmRSS"), cpu_ms(&proxy));
    let (over, attacks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut attackers = Vec::new();
    for attack in [resets, late_resets, continuations, settings, pings] {
        let (over, attacks) = (over.clone(), attacks.clone());
        attackers.push(std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let mut client = Frames::connect(address);
                attack(&mut client);
                // Until it is closed: every one of them is.
                while client.next().is_some() {}
                attacks.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    for _ in 0..2 {
        let over = over.clone();
        attackers.push(std::thread::spawn(move || slow_reads(&mut Frames::connect(address), &over)));
    }
    let begun = Instant::now();
    let mut beside = Client::connect(address);
    let mut served = 0;
    run(async {
        let sender = connect(address).await;
        while begun.elapsed() < LASTS || served < 20 {
            assert_eq!(beside.get("/small").text(), "xxxxx");
            assert_eq!(ask(&sender, get("/small"), Vec::new()).await.expect("answers").text(), "xxxxx");
            served += 2;
        }
    });
    let (peak, spent) = (memory_kib(&proxy, "VmHWM"), cpu_ms(&proxy) - cpu);
    over.store(true, Ordering::Relaxed);
    for attacker in attackers {
        attacker.join().expect("no panic");
    }
    let attacks = attacks.load(Ordering::Relaxed);
    println!(
        "{served} requests served beside {attacks} attacks: {spent} ms of CPU, {} KiB more at the peak",
        peak - memory
    );
    assert!(attacks >= 4, "the attack went on");
    // 200 stalled streams hold at most a window and a buffer each: 64 KiB and 64 KiB.
    assert!(peak - memory < 48 * 1024, "{} KiB", peak - memory);
    assert!(spent < 200 * (attacks + served), "{spent} ms of CPU for {attacks} attacks");
    for reason in ["flood-of-resets", "flood-of-settings", "flood-of-pings"] {
        let labels = format!("reason=\"{reason}\"");
        assert!(proxy.metric("onehop_listener_faults_total", &labels) >= 1.0, "{reason}");
    }
    // Nothing of it stays.
    drop(beside);
    eventually("all connections are gone", || proxy.metric("onehop_listener_connections", "") == 0.0);
    assert_eq!(Client::connect(address).get("/after").status, 200);
}
