//! What a request holds that is under way and for which nothing has come: a stream of an HTTP/2 client, and the HTTP/1
//! connection on which its answer is waited for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use onehop_tests::frames::{Frames, GET};
use onehop_tests::{Client, Origin, Proxy, eventually};

/// Streams of each connection.
const STREAMS: u32 = 100;
/// Connections.
const CONNECTIONS: u32 = 5;

fn waiting(proxy: &Proxy) -> u32 {
    proxy.metric("onehop_cluster_active", "cluster=\"origin\"") as u32
}

fn open(proxy: &Proxy) -> Vec<Frames> {
    let begin = |_| {
        let mut client = Frames::connect(proxy.address("edge"));
        for number in 0..STREAMS {
            client.headers(number * 2 + 1, &GET, true);
        }
        client
    };
    (0..CONNECTIONS).map(begin).collect()
}

fn anonymous_bytes(proxy: &Proxy) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", proxy.pid())).expect("it runs");
    let line = text.lines().find(|line| line.starts_with("Anonymous:")).expect("a figure");
    line.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok()).expect("a number") * 1024
}

#[test]
fn a_stream_that_waits_for_an_http1_upstream_holds_a_small_buffer() {
    let held = Arc::new(AtomicUsize::new(0));
    let origin = Origin::start({
        let held = held.clone();
        move |connection| {
            while connection.head().is_some() {
                held.fetch_add(1, Ordering::Relaxed);
                connection.wait_for_end();
            }
        }
    });
    let config = origin.config("http2 = { max_streams = 200 }", "timeout = \"off\"", "");
    let proxy = Proxy::start_with(&config, &["--workers", "1"], None);
    let clients = open(&proxy);
    let all = STREAMS * CONNECTIONS;
    eventually("all requests are at the origin", || held.load(Ordering::Relaxed) == all as usize);
    // One small buffer for each of them, and what the clients' own connections read into.
    eventually("the core has said what it holds", || {
        let (buffers, bytes) = (proxy.metric("onehop_core_buffers", ""), proxy.metric("onehop_core_buffer_bytes", ""));
        buffers >= f64::from(all) && bytes <= f64::from(all * 512 + CONNECTIONS * 17 * 1024)
    });
    assert_eq!(waiting(&proxy), all);
    drop(clients);
    eventually("nothing waits", || waiting(&proxy) == 0);
}

#[test]
fn a_stream_that_waits_costs_a_few_kib_in_all() {
    let silent = Arc::new(Mutex::new(Vec::new()));
    let upstream = onehop_tests::frames::upstream({
        let silent = silent.clone();
        move |connection| {
            let Some(first) = connection.greet() else { return };
            silent.lock().expect("no panic").push(first);
            while let Some(frame) = connection.next() {
                if frame.kind == 1 {
                    silent.lock().expect("no panic").push(frame.stream);
                }
            }
        }
    });
    let config = format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\nhttp2 = {{ max_streams = 200 }}\n\
         [[route]]\ncluster = \"origin\"\ntimeout = \"off\"\n\
         [[cluster]]\nname = \"origin\"\nendpoints = [\"{upstream}\"]\nprotocol = \"http2\"\nhttp2 = {{ max_streams = 1000 }}\n"
    );
    let proxy = Proxy::start_with(&config, &["--workers", "1"], None);
    let all = (STREAMS * CONNECTIONS) as usize;
    let begun = |wanted: usize| {
        eventually("all requests are at the origin", || silent.lock().expect("no panic").len() == wanted)
    };
    // What the first ones bring about is no cost of each.
    let first = open(&proxy);
    begun(all);
    let before = anonymous_bytes(&proxy);
    let second = open(&proxy);
    begun(2 * all);
    let each = (anonymous_bytes(&proxy).saturating_sub(before)) / all as u64;
    println!("{each} bytes for each stream, a hundredth of its connection included");
    assert!(each <= 5 * 1024 + 512, "{each} bytes for each stream");
    drop((first, second));
}

/// What is read first is small or large, by what came before: answers of any length are whole in any order.
#[test]
fn answers_are_whole_whatever_was_waited_with() {
    let lengths = [0, 1, 300, 440, 512, 513, 600, 17 * 1024, 40_000, 10, 40_000, 470, 20_000, 0];
    let origin = Origin::start(move |connection| {
        while let Some(head) = connection.head() {
            let length: usize = head.split(['/', ' ']).find_map(|word| word.parse().ok()).expect("a length");
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{}", "x".repeat(length)));
        }
    });
    let proxy = Proxy::start_with(&origin.config("", "", ""), &["--workers", "1"], None);
    let mut client = Client::connect(proxy.address("edge"));
    for length in lengths {
        let answer = client.get(&format!("/{length}"));
        assert_eq!((answer.status, answer.body.len()), (200, length));
    }
    assert_eq!(origin.accepted(), 1, "each answer left its connection fit for the next request");
}
