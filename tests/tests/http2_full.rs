//! Endpoints whose connections take no more streams, and that get no more connections: others are turned to.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use onehop_tests::frames::{frame, upstream};
use onehop_tests::{Client, Proxy, eventually};

const OK: &[(&str, &str)] = &[(":status", "200")];

/// A wait for a place has minutes, which no test has.
fn start(endpoints: &[SocketAddr], cluster: &str) -> Proxy {
    let endpoints: Vec<_> = endpoints.iter().map(|address| format!("\"{address}\"")).collect();
    let config = format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"a\"\ntimeout = \"off\"\n[[cluster]]\nname = \"a\"\nprotocol = \"http2\"\nbalance = \"round-robin\"\nconnect_timeout = \"10m\"\nendpoints = [{}]\n{cluster}\n",
        endpoints.join(", ")
    );
    Proxy::start_with(&config, &["--workers", "1"], None)
}

/// Answers all.
fn ready(asked: &Arc<AtomicUsize>) -> SocketAddr {
    let asked = asked.clone();
    upstream(move |peer| {
        peer.skip(24);
        peer.send(frame(4, 0, 0, &[]));
        while let Some(head) = peer.until(1) {
            asked.fetch_add(1, Ordering::SeqCst);
            peer.headers(head.stream, OK, true);
        }
    })
}

/// An endpoint is full with one connection of one stream.
const NARROW: &str = "http2 = { max_streams = 1 }\nlimits = { endpoint_connections = 1 }";

/// Answers each when it is told to.
fn late(waits: &Arc<Mutex<Receiver<()>>>) -> SocketAddr {
    let waits = waits.clone();
    upstream(move |peer| {
        peer.skip(24);
        peer.send(frame(4, 0, 0, &[]));
        while let Some(head) = peer.until(1) {
            let _ = waits.lock().expect("no panic").recv();
            peer.headers(head.stream, OK, true);
        }
    })
}

/// RFC 9113 6.5.2: it may take no streams for a while.
#[test]
fn an_endpoint_that_takes_no_streams_is_passed_by() {
    let (asked, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let count = refused.clone();
    let barred = upstream(move |peer| {
        peer.skip(24);
        // What was sent before anything was known is refused.
        while let Some(head) = peer.until(1) {
            peer.send([frame(4, 0, 0, &[0, 3, 0, 0, 0, 0]), frame(3, 0, head.stream, &[0, 0, 0, 7])].concat());
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let proxy = start(&[barred, ready(&asked)], "");
    let mut client = proxy.connect("edge");
    // Until it is known.
    while refused.load(Ordering::SeqCst) == 0 {
        assert_eq!(client.get("/").status, 200);
    }
    for _ in 0..10 {
        assert_eq!(client.get("/").status, 200);
    }
    assert!(asked.load(Ordering::SeqCst) >= 10);
}

/// The only connection that it may have is full.
#[test]
fn an_endpoint_that_is_full_is_passed_by() {
    let (asked, (go, waits)) = (Arc::new(AtomicUsize::new(0)), channel::<()>());
    let busy = late(&Arc::new(Mutex::new(waits)));
    let proxy = start(&[busy, ready(&asked)], NARROW);
    let edge = proxy.address("edge");
    let ask = || std::thread::spawn(move || Client::connect(edge).get("/").status);
    // One of them is there, the other is answered.
    let mut two = vec![ask(), ask()];
    eventually("one of them is answered", || two.iter().any(std::thread::JoinHandle::is_finished));
    eventually("the other waits", || proxy.metric("onehop_cluster_active", "") == 1.0);
    let mut client = Client::connect(edge);
    for _ in 0..10 {
        assert_eq!(client.get("/").status, 200);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 11);
    eventually("one waits still", || proxy.metric("onehop_cluster_active", "") == 1.0);
    go.send(()).expect("it waits");
    for answer in two.drain(..) {
        assert_eq!(answer.join().expect("no panic"), 200);
    }
}

/// There is no other: it is waited for.
#[test]
fn where_all_are_full_one_is_waited_for() {
    let (go, waits) = channel::<()>();
    let waits = Arc::new(Mutex::new(waits));
    let proxy = start(&[late(&waits), late(&waits)], NARROW);
    let edge = proxy.address("edge");
    let asked: Vec<_> = (0..6).map(|_| std::thread::spawn(move || Client::connect(edge).get("/").status)).collect();
    eventually("all have come", || proxy.metric("onehop_cluster_active", "") == 6.0);
    for _ in 0..6 {
        go.send(()).expect("they wait");
    }
    for answer in asked {
        assert_eq!(answer.join().expect("no panic"), 200);
    }
}
