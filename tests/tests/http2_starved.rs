//! Upstreams that are starved for a while, and clients that give many requests up meanwhile: what the upstream finds when it
//! goes on is no attack, and whoever else shares its connection is served.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use bytes::Bytes;
use http::Response;
use onehop_tests::frames::{Frames, block, frame, upstream};
use onehop_tests::http2::Http2Origin;
use onehop_tests::{Client, Proxy, eventually};

/// Opened once.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn open(&self) {
        *self.0.0.lock().expect("no panic") = true;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let closed = self.0.0.lock().expect("no panic");
        drop(self.0.1.wait_while(closed, |open| !*open).expect("no panic"));
    }
}

/// Requests to `/timed` have three seconds, all others as long as they want.
fn start(address: std::net::SocketAddr) -> Proxy {
    let config = format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"a\"\ntimeout = \"off\"\n[[route]]\npath = {{ exact = \"/timed\" }}\ncluster = \"a\"\ntimeout = \"3s\"\n[[cluster]]\nname = \"a\"\nprotocol = \"http2\"\nendpoints = [\"{address}\"]\n"
    );
    Proxy::start_with(&config, &["--workers", "1"], None)
}

fn path(path: &str) -> [(&str, &str); 4] {
    [(":method", "GET"), (":scheme", "http"), (":authority", "test"), (":path", path)]
}

/// Opens so many streams, waits until they went on, and gives them up.
fn give_up(proxy: &Proxy, count: u32) -> Frames {
    let mut client = Frames::connect(proxy.address("edge"));
    let before = proxy.metric("onehop_endpoint_requests_total", "");
    let streams = (0..count).map(|number| number * 2 + 1);
    client.send(streams.clone().flat_map(|stream| frame(1, 5, stream, &block(&path("/")))).collect::<Vec<u8>>());
    eventually("they are under way", || {
        proxy.metric("onehop_endpoint_requests_total", "") == before + f64::from(count)
    });
    client.send(streams.flat_map(|stream| frame(3, 0, stream, &[0, 0, 0, 8])).collect::<Vec<u8>>());
    client
}

/// Three seconds have passed for the proxy, and with them the time that it gives to answers that nobody wants.
fn time_passes(proxy: &Proxy) {
    assert_eq!(proxy.connect("edge").get("/timed").status, 504);
}

/// The whole process of the origin stands still, which knows the `h2` crate's own limits and no others.
fn bystanders_are_served(given_up: u32, clients: u32) {
    let (gate, stands) = (Gate::default(), Arc::new(AtomicBool::new(false)));
    let (at, told) = (gate.clone(), stands.clone());
    let origin = Http2Origin::start(move |mut incoming| {
        if incoming.request.uri().path() == "/stop" {
            told.store(true, Ordering::SeqCst);
            at.pass();
        }
        async move {
            let Ok(mut send) = incoming.respond.send_response(Response::new(()), false) else { return };
            let _ = send.send_data(Bytes::from_static(b"fine"), true);
        }
    });
    let proxy = start(origin.address());
    assert_eq!(proxy.connect("edge").get("/warm").text(), "fine");
    let address = proxy.address("edge");
    let ask = |path: &'static str| std::thread::spawn(move || Client::connect(address).get(path).text());
    let stopped = ask("/stop");
    eventually("it stands", || stands.load(Ordering::SeqCst));
    let near = ask("/near");
    eventually("it is under way", || proxy.metric("onehop_cluster_active", "") == 2.0);
    let clients: Vec<_> = (0..clients).map(|_| give_up(&proxy, given_up)).collect();
    time_passes(&proxy);
    gate.open();
    for answer in [stopped, near] {
        assert_eq!(answer.join().expect("no panic"), "fine");
    }
    drop(clients);
    eventually("nothing stays", || proxy.metric("onehop_cluster_active", "") == 0.0);
    assert_eq!(proxy.connect("edge").get("/after").text(), "fine");
    assert_eq!(proxy.metric("onehop_cluster_resets_total", ""), 0.0);
}

#[test]
fn few_that_give_up_harm_nobody() {
    bystanders_are_served(50, 1);
}

#[test]
fn many_that_give_up_harm_nobody() {
    bystanders_are_served(100, 5);
}

/// An upstream says by its acknowledgements what it has read.
#[test]
fn resets_wait_for_signs_that_they_are_read() {
    const GIVEN_UP: u32 = 50;
    let gate = Gate::default();
    // Resets since the last sign, most of them, and all.
    let counts = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0)]);
    let (at, seen) = (gate.clone(), counts.clone());
    let address = upstream(move |peer| {
        peer.skip(24);
        peer.send(frame(4, 0, 0, &[]));
        let (mut settings, mut waits) = (0, Vec::new());
        while let Some(next) = peer.next() {
            match next.kind {
                // The others come later.
                1 if next.stream == 1 => waits.push(next.stream),
                3 => {
                    let unread = seen[0].fetch_add(1, Ordering::SeqCst) + 1;
                    seen[1].fetch_max(unread, Ordering::SeqCst);
                    seen[2].fetch_add(1, Ordering::SeqCst);
                }
                4 if next.flags & 1 == 0 => {
                    settings += 1;
                    if settings == 2 {
                        // Starved, in the midst of it.
                        at.pass();
                    }
                    seen[0].store(0, Ordering::SeqCst);
                    peer.send(frame(4, 1, 0, &[]));
                }
                _ => {}
            }
            // Who waits is answered when all others have been cancelled.
            if seen[2].load(Ordering::SeqCst) == GIVEN_UP as usize + 1 {
                for stream in waits.drain(..) {
                    peer.headers(stream, &[(":status", "200")], true);
                }
            }
        }
    });
    let proxy = start(address);
    let edge = proxy.address("edge");
    let near = std::thread::spawn(move || Client::connect(edge).get("/near").status);
    eventually("it is under way", || proxy.metric("onehop_cluster_active", "") == 1.0);
    let _client = give_up(&proxy, GIVEN_UP);
    time_passes(&proxy);
    gate.open();
    assert_eq!(near.join().expect("no panic"), 200);
    let [_, most, all] = &*counts;
    assert_eq!(all.load(Ordering::SeqCst), GIVEN_UP as usize + 1);
    assert!(most.load(Ordering::SeqCst) <= 8, "{} at once", most.load(Ordering::SeqCst));
    assert_eq!(proxy.metric("onehop_cluster_connections", ""), 1.0);
}

/// A connection with many of them is left to whoever still waits there, and ends with them: nobody is waited for who does not read.
#[test]
fn a_connection_of_streams_that_nobody_waits_for_ends() {
    let (gate, accepted, ended) = (Gate::default(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (at, count, over) = (gate.clone(), accepted.clone(), ended.clone());
    let address = upstream(move |peer| {
        if count.fetch_add(1, Ordering::SeqCst) > 0 {
            let Some(stream) = peer.greet() else { return };
            peer.headers(stream, &[(":status", "200")], true);
            return at.pass();
        }
        peer.skip(24);
        peer.send(frame(4, 0, 0, &[]));
        // It reads, and says nothing ever.
        while peer.next().is_some() {}
        over.fetch_add(1, Ordering::SeqCst);
    });
    let proxy = start(address);
    let _client = give_up(&proxy, 100);
    eventually("it ends", || ended.load(Ordering::SeqCst) == 1);
    assert_eq!(proxy.connect("edge").get("/after").status, 200);
    assert_eq!(accepted.load(Ordering::SeqCst), 2);
    gate.open();
}
