//! Attacks that go on for some seconds, all of them at once and again with new connections as soon as they are ended: each is
//! ended by its limit, whoever behaves is served meanwhile, and what it costs is bounded: memory by the streams and windows
//! that are allowed, CPU by what a connection may do before it is closed. No bound is one of time: a budget that refills
//! is asked for as much as the time gave that really passed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use onehop_tests::frames::{Frames, GET, POST, block, frame};
use onehop_tests::http2::Http2Origin;
use onehop_tests::{Client, Proxy, eventually};

/// How long they go on at least; longer, until each has been ended twice.
const LASTS: Duration = Duration::from_secs(4);
const CALM: u32 = 11;
/// More frames than any budget lets pass; who takes them does not end it.
const FRAMES: u64 = 1_000_000;
const LARGE: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":authority", "test"), (":path", "/large")];
const SMALL: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":authority", "test"), (":path", "/small")];

/// How one round ended.
struct Ended {
    /// Frames that the proxy may have looked at.
    frames: u64,
    /// The code of its GOAWAY; none where streams were ended instead, or the round did no more.
    code: Option<u32>,
}

/// One kind of attack.
struct Attack {
    name: &'static str,
    round: fn(&mut Frames) -> Ended,
    /// The code that it is ended with.
    code: Option<u32>,
    /// How it is counted; nothing: streams by themselves.
    reason: &'static str,
    /// Frames that are taken at once, and one more for each so many nanoseconds (0: never).
    budget: (u64, u64),
    /// Microseconds of CPU that one may cost, with its part of a new connection: some twenty times what it does.
    cost_us: u64,
}

const MS: u64 = 1_000_000;

const ATTACKS: [Attack; 16] = [
    attack("rapid resets", rapid, Some(CALM), "flood-of-resets", (2000 + 402, 30 * MS / 4), 60),
    attack("late resets", late, Some(CALM), "flood-of-resets", (2000 + 402, 30 * MS / 4), 300),
    attack("CONTINUATION", continuations, Some(CALM), "flood-of-frames", (2001, 0), 2),
    attack("empty CONTINUATION", empty_continuations, Some(CALM), "", (2001, 0), 2),
    attack("SETTINGS that move windows", settings, Some(CALM), "flood-of-settings", (100 + 102 + 20, 1000 * MS), 200),
    attack("PING", pings, Some(CALM), "flood-of-pings", (1000 + 251, 10 * MS), 40),
    attack("PRIORITY", priorities, Some(CALM), "flood-of-priorities", (1000 + 502, 10 * MS), 8),
    attack("WINDOW_UPDATE", updates, Some(CALM), "flood-of-window-updates", (50_000 + 40_001, MS / 20), 5),
    attack("empty DATA", empty_data, Some(CALM), "flood-of-empty-frames", (100 + 54, 100 * MS), 60),
    attack("padded empty DATA", padded_data, Some(CALM), "flood-of-frames", (100 + 54, 0), 60),
    attack("frames of an unknown type", unknown, Some(CALM), "flood-of-unknown-frames", (1000 + 502, 10 * MS), 5),
    attack("fields without a name", nameless, Some(1), "bad-http2", (1, 0), 4_000),
    attack("WINDOW_UPDATE of nothing", no_update, Some(1), "bad-http2", (2, 0), 2_500),
    attack("a bomb of header fields", bomb, Some(CALM), "flood-of-frames", (1, 0), 9_000),
    attack("answers that nobody reads", unread, None, "write-timeout", (100, 0), 5_000),
    attack("requests that do not end", unfinished, None, "body-timeout", (100, 0), 2_000),
];

const fn attack(
    name: &'static str,
    round: fn(&mut Frames) -> Ended,
    code: Option<u32>,
    reason: &'static str,
    budget: (u64, u64),
    cost_us: u64,
) -> Attack {
    Attack { name, round, code, reason, budget, cost_us }
}

fn code_of(goaway: &[u8]) -> u32 {
    u32::from_be_bytes(goaway[4..8].try_into().expect("four bytes"))
}

/// Waits for GOAWAY.
fn told(client: &mut Frames, frames: u64) -> Ended {
    Ended { frames, code: client.until(7).map(|goaway| code_of(&goaway.payload)) }
}

/// Sends slice after slice, each once the one before it was looked at, until the connection is ended.
fn flood(client: &mut Frames, in_slice: u64, slice: impl Fn(u32) -> Vec<u8>) -> Ended {
    let mut frames = 0;
    for number in 0u32.. {
        client.send(slice(number));
        let asked =
            [0, 0, 0, 0, number.to_be_bytes()[0], number.to_be_bytes()[1], number.to_be_bytes()[2], number as u8];
        client.send(frame(6, 0, 0, &asked));
        frames += in_slice + 1;
        if frames > FRAMES {
            break;
        }
        loop {
            match client.next() {
                Some(next) if next.kind == 7 => return Ended { frames, code: Some(code_of(&next.payload)) },
                Some(next) if next.kind == 6 && next.flags & 1 == 1 && next.payload == asked => break,
                Some(_) => {}
                None => return Ended { frames, code: None },
            }
        }
    }
    Ended { frames, code: None }
}

fn rapid(client: &mut Frames) -> Ended {
    flood(client, 200, |slice| {
        let pair = |number: u32| {
            let stream = (slice * 100 + number) * 2 + 1;
            [frame(1, 5, stream, &block(&GET)), frame(3, 0, stream, &[0, 0, 0, 8])].concat()
        };
        (0..100).flat_map(pair).collect()
    })
}

/// The same, once each request is under way.
fn late(client: &mut Frames) -> Ended {
    flood(client, 100, |slice| {
        let streams = (0..100).map(|number| (slice / 2 * 100 + number) * 2 + 1);
        match slice % 2 {
            0 => streams.flat_map(|stream| frame(1, 5, stream, &block(&GET))).collect(),
            _ => streams.flat_map(|stream| frame(3, 0, stream, &[0, 0, 0, 8])).collect(),
        }
    })
}

fn continuations(client: &mut Frames) -> Ended {
    client.send(frame(1, 0, 1, &block(&GET)));
    client.send(frame(9, 0, 1, &block(&[("a", "b")])).repeat(2000));
    told(client, 2001)
}

fn empty_continuations(client: &mut Frames) -> Ended {
    client.send(frame(1, 0, 1, &block(&GET)));
    client.send(frame(9, 0, 1, &[]).repeat(2000));
    told(client, 2001)
}

/// Each moves the windows of all streams that have something to send.
fn settings(client: &mut Frames) -> Ended {
    for number in 0..20 {
        client.headers(number * 2 + 1, &LARGE, true);
    }
    let mut ended = flood(client, 50, |_| {
        [frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]), frame(4, 0, 0, &[0, 4, 0, 0, 0, 9])].concat().repeat(25)
    });
    ended.frames += 20;
    ended
}

fn pings(client: &mut Frames) -> Ended {
    flood(client, 250, |_| frame(6, 0, 0, &[7; 8]).repeat(250))
}

fn priorities(client: &mut Frames) -> Ended {
    flood(client, 500, |_| frame(2, 0, 1, &[0, 0, 0, 0, 16]).repeat(500))
}

fn updates(client: &mut Frames) -> Ended {
    flood(client, 40_000, |_| frame(8, 0, 0, &[0, 0, 0, 1]).repeat(40_000))
}

fn empty_data(client: &mut Frames) -> Ended {
    client.headers(1, &POST, false);
    let mut ended = flood(client, 50, |_| frame(0, 0, 1, &[]).repeat(50));
    ended.frames += 1;
    ended
}

fn padded_data(client: &mut Frames) -> Ended {
    client.headers(1, &POST, false);
    let mut ended = flood(client, 50, |_| frame(0, 8, 1, &[0]).repeat(50));
    ended.frames += 1;
    ended
}

fn unknown(client: &mut Frames) -> Ended {
    flood(client, 500, |_| frame(99, 0, 0, b"?").repeat(500))
}

/// Names and values of no length, which cost nothing to send (CVE-2019-9516).
fn nameless(client: &mut Frames) -> Ended {
    client.send(frame(1, 5, 1, &[block(&GET), [0, 0, 0].repeat(5000)].concat()));
    told(client, 1)
}

fn no_update(client: &mut Frames) -> Ended {
    client.headers(1, &LARGE, true);
    client.send(frame(8, 0, 1, &[0; 4]));
    told(client, 2)
}

/// One long field goes into the table (RFC 7541 6.2.1), and is then named by one byte each time: 32 MB of fields.
fn bomb(client: &mut Frames) -> Ended {
    let mut bomb = block(&GET);
    bomb.extend([0x40, 1, b'a', 127, 0x81, 0x1e]);
    bomb.extend([b'x'; 4000]);
    bomb.extend([0xbe; 8000]);
    client.send(frame(1, 5, 1, &bomb));
    told(client, 1)
}

/// Each of a hundred streams is ended by a reset of ours.
fn resets(client: &mut Frames) -> Ended {
    for _ in 0..100 {
        client.until(3).expect("a reset of each stream");
    }
    Ended { frames: 100, code: None }
}

/// No window for the last of each answer, and no credit ever.
fn unread(client: &mut Frames) -> Ended {
    for number in 0..100 {
        client.headers(number * 2 + 1, &LARGE, true);
    }
    resets(client)
}

/// Each is answered with 408, and then reset: what is left of it is not wanted.
fn unfinished(client: &mut Frames) -> Ended {
    for number in 0..100 {
        client.headers(number * 2 + 1, &POST, false);
    }
    resets(client)
}

/// CPU time that the process has used, in microseconds. (That of its threads, which the kernel counts to the nanosecond.)
fn cpu_us(proxy: &Proxy) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{}/task", proxy.pid())).expect("it runs").flatten();
    let texts = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("schedstat")).ok());
    texts.filter_map(|text| text.split(' ').next()?.parse::<u64>().ok()).sum::<u64>() / 1000
}

/// Rounds that were ended, and frames that they took.
type Tally = Arc<[(AtomicU64, AtomicU64); ATTACKS.len()]>;

/// Attacks again and again; each round is ended as it should be.
fn keep_on(kind: usize, address: SocketAddr, tally: &Tally, over: &AtomicBool) {
    let Attack { name, round, code, budget, .. } = &ATTACKS[kind];
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let ended = round(&mut Frames::connect(address));
        let refilled = (begun.elapsed().as_nanos() as u64).checked_div(budget.1).unwrap_or(0);
        assert_eq!(ended.code, *code, "{name}");
        assert!(ended.frames <= budget.0 + refilled + 1, "{name}: {} frames, {refilled} more by time", ended.frames);
        tally[kind].0.fetch_add(1, Ordering::Relaxed);
        tally[kind].1.fetch_add(ended.frames, Ordering::Relaxed);
        // So that the machine's cores are not the attackers' alone.
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A request of someone who behaves.
fn small(client: &mut Frames, stream: u32) {
    client.headers(stream, &SMALL, true);
    let mut body = Vec::new();
    loop {
        let next = client.next().expect("the connection goes on");
        assert!(!matches!(next.kind, 3 | 7), "{next:?}");
        if next.kind == 0 {
            body.extend(next.payload);
        }
        if next.kind < 2 && next.flags & 1 == 1 {
            return assert_eq!(body, b"xxxxx");
        }
    }
}

/// Over HTTP/2: an upstream's stream can be cancelled, where an HTTP/1 connection would have to be closed. Whoever
/// attacks must not have it close the connection that all share: it bears as little as the library does by itself.
fn origin() -> Http2Origin {
    let large = bytes::Bytes::from(vec![b'x'; 4_000_000]);
    Http2Origin::start(move |mut incoming| {
        let large = large.clone();
        async move {
            if incoming.request.method() == "POST" {
                // It waits for the body, as long as there may be one.
                let _ = onehop_tests::http2::read(incoming.request.body_mut()).await;
            }
            let body = if incoming.request.uri().path() == "/large" { large } else { large.slice(..5) };
            let Ok(mut send) = incoming.respond.send_response(http::Response::new(()), false) else { return };
            let _ = send.send_data(body, true);
        }
    })
}

fn start(origin: &Http2Origin) -> Proxy {
    let proxy = Proxy::start_with(&origin.config("body_timeout = \"2s\"", "", ""), &["--workers", "1"], None);
    assert_eq!(proxy.connect("edge").get("/warm").status, 200);
    proxy
}

/// One kind after the other, so that each frame's cost shows.
#[test]
fn each_frame_costs_little() {
    let origin = origin();
    let proxy = start(&origin);
    let mut dear = Vec::new();
    for Attack { name, round, code, cost_us, .. } in &ATTACKS {
        // Those that wait for a time-out have frames enough in one.
        let rounds = if code.is_some() { 10 } else { 1 };
        let before = cpu_us(&proxy);
        let frames: u64 = (0..rounds).map(|_| round(&mut Frames::connect(proxy.address("edge"))).frames).sum();
        let cost = (cpu_us(&proxy) - before) as f64 / frames as f64;
        let text = format!("{name}: {cost:.2} us for each of {frames} frames, where {cost_us} are allowed");
        println!("{text}");
        if cost > *cost_us as f64 {
            dear.push(text);
        }
    }
    assert!(dear.is_empty(), "{}", dear.join("\n"));
}

#[test]
fn others_are_served_and_the_cost_is_bounded() {
    let origin = origin();
    let proxy = start(&origin);
    let address = proxy.address("edge");
    let (memory, cpu) = (proxy.memory_kib("VmRSS"), cpu_us(&proxy));
    let (over, tally) = (Arc::new(AtomicBool::new(false)), Tally::default());
    let attackers: Vec<_> = (0..ATTACKS.len())
        .map(|kind| {
            let (over, tally) = (over.clone(), tally.clone());
            std::thread::spawn(move || keep_on(kind, address, &tally, &over))
        })
        .collect();
    let begun = Instant::now();
    let (mut beside, mut near) = (Client::connect(address), Frames::connect(address));
    let mut served = 0;
    let ended_twice = || tally.iter().all(|(rounds, _)| rounds.load(Ordering::Relaxed) >= 2);
    while begun.elapsed() < LASTS || served < 20 || !ended_twice() {
        assert_eq!(beside.get("/small").text(), "xxxxx");
        small(&mut near, served + 1);
        served += 2;
        let ended = attackers.iter().position(std::thread::JoinHandle::is_finished);
        assert_eq!(ended.map(|kind| ATTACKS[kind].name), None, "an attack did not end as it should");
        assert!(begun.elapsed() < Duration::from_secs(120), "in vain: each attack is ended twice");
    }
    let (peak, spent) = (proxy.memory_kib("VmHWM"), (cpu_us(&proxy) - cpu) / 1000);
    over.store(true, Ordering::Relaxed);
    for attacker in attackers {
        attacker.join().expect("no panic");
    }
    let mut allowed_us = 10_000 * u64::from(served);
    for (attack, (rounds, taken)) in ATTACKS.iter().zip(tally.iter()) {
        let taken = taken.load(Ordering::Relaxed);
        println!("{} x {}: {taken} frames", rounds.load(Ordering::Relaxed), attack.name);
        allowed_us += taken * attack.cost_us;
    }
    let (grown, allowed) = (peak.saturating_sub(memory), allowed_us / 1000);
    println!("{served} requests beside: {spent} of {allowed} ms of CPU, {grown} KiB more at the peak");
    // 200 stalled streams hold at most a window and a buffer each: 64 KiB and 64 KiB.
    assert!(grown < 48 * 1024, "{grown} KiB");
    assert!(spent < allowed, "{spent} ms of CPU, where {allowed} are allowed");
    for attack in ATTACKS.iter().filter(|attack| !attack.reason.is_empty()) {
        let labels = format!("reason=\"{}\"", attack.reason);
        assert!(proxy.metric("onehop_listener_faults_total", &labels) >= 1.0, "{}", attack.name);
    }
    // The upstream has nothing to complain of, and nothing of it stays.
    assert_eq!(proxy.metric("onehop_cluster_floods_total", ""), 0.0);
    drop((beside, near));
    eventually("all connections are gone", || proxy.metric("onehop_listener_connections", "") == 0.0);
    assert_eq!(Client::connect(address).get("/after").status, 200);
}
