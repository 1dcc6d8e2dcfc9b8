//! Clients that give requests up after these went to the upstream: what serves others is kept, within bounds, and no
//! upstream is made to lose its patience.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use onehop_tests::frames::{Frames, GET, frame, upstream};
use onehop_tests::{Connection, Origin, Proxy, eventually};

/// Opened once.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn open(&self) {
        *self.0.lock().expect("no panic") = true;
        self.1.notify_all();
    }

    fn pass(&self) {
        let closed = self.0.lock().expect("no panic");
        drop(self.1.wait_while(closed, |open| !*open).expect("no panic"));
    }
}

fn one_worker(config: &str) -> Proxy {
    Proxy::start_with(config, &["--workers", "1"], None)
}

fn reset(stream: u32) -> Vec<u8> {
    frame(3, 0, stream, &[0, 0, 0, 8])
}

/// Everything that was sent before has been looked at.
fn settle(client: &mut Frames) {
    client.send(frame(6, 0, 0, &[5; 8]));
    while client.until(6).is_some_and(|answer| answer.payload != [5; 8]) {}
}

/// An origin whose answers wait for a gate; `begin` is what it sends before.
fn gated(begin: &'static str, rest: &'static str) -> (Origin, Arc<Gate>, Arc<AtomicUsize>) {
    let (gate, arrived) = (Arc::new(Gate::default()), Arc::new(AtomicUsize::new(0)));
    let (at, count) = (gate.clone(), arrived.clone());
    let origin = Origin::start(move |connection: &mut Connection| {
        while connection.head().is_some() {
            connection.send(begin);
            count.fetch_add(1, Ordering::SeqCst);
            at.pass();
            connection.send(rest);
        }
    });
    (origin, gate, arrived)
}

#[test]
fn connections_of_requests_that_were_given_up_serve_again() {
    let (origin, gate, arrived) = gated("", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine");
    // A request for which there is no connection waits for one: a new one would show.
    let proxy = one_worker(&origin.config("", "", "limits = { connections = 20 }"));
    let mut client = Frames::connect(proxy.address("edge"));
    for number in 0..20 {
        client.headers(number * 2 + 1, &GET, true);
    }
    eventually("all of them are there", || arrived.load(Ordering::SeqCst) == 20);
    for number in 0..20 {
        client.send(reset(number * 2 + 1));
    }
    settle(&mut client);
    gate.open();
    let mut beside = proxy.connect("edge");
    for _ in 0..40 {
        assert_eq!(beside.get("/after").text(), "fine");
    }
    assert_eq!(origin.accepted(), 20);
}

#[test]
fn a_body_that_nobody_wants_is_read_to_its_end() {
    let (origin, gate, _) = gated("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf", "half");
    let proxy = one_worker(&origin.config("", "", "limits = { connections = 1 }"));
    let mut client = Frames::connect(proxy.address("edge"));
    client.headers(1, &GET, true);
    let data = client.until(0).expect("half of it");
    assert_eq!(data.payload, b"half");
    client.send(reset(1));
    settle(&mut client);
    gate.open();
    assert_eq!(proxy.connect("edge").get("/after").text(), "halfhalf");
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn what_is_large_or_never_comes_costs_its_connection() {
    let large: &'static str = Box::leak(
        format!("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{}", "x".repeat(200_000)).into_boxed_str(),
    );
    for rest in
        [large, "HTTP/1.1 200 OK\r\n\r\nuntil it closes", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\ncut", ""]
    {
        let (origin, gate, arrived) = gated("", rest);
        let proxy = one_worker(&origin.config("", "", ""));
        let mut client = Frames::connect(proxy.address("edge"));
        client.headers(1, &GET, true);
        eventually("it is there", || arrived.load(Ordering::SeqCst) == 1);
        client.send(reset(1));
        settle(&mut client);
        gate.open();
        eventually("it is closed", || proxy.metric("onehop_cluster_connections", "") == 0.0);
    }
}

#[test]
fn an_http2_upstream_is_not_sent_more_resets_than_such_bear() {
    // Resets of each connection, and streams that ended with it; none of its requests is answered.
    let seen = Arc::new(Mutex::new(Vec::<(usize, usize)>::new()));
    let arrived = Arc::new(AtomicUsize::new(0));
    let (resets, count) = (seen.clone(), arrived.clone());
    let address = upstream(move |peer| {
        let at = {
            let mut seen = resets.lock().expect("no panic");
            seen.push((0, 0));
            seen.len() - 1
        };
        peer.skip(24);
        peer.send(frame(4, 0, 0, &[]));
        let mut open = 0;
        while let Some(next) = peer.next() {
            match next.kind {
                1 => {
                    open += 1;
                    count.fetch_add(1, Ordering::SeqCst);
                }
                3 => {
                    open -= 1;
                    resets.lock().expect("no panic")[at].0 += 1;
                }
                4 if next.flags == 0 => peer.send(frame(4, 1, 0, &[])),
                _ => {}
            }
        }
        resets.lock().expect("no panic")[at].1 = open;
    });
    let proxy = one_worker(&format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"a\"\n[[cluster]]\nname = \"a\"\nprotocol = \"http2\"\nendpoints = [\"{address}\"]\n"
    ));
    let mut client = Frames::connect(proxy.address("edge"));
    for batch in 0..8 {
        let streams = (batch * 100..(batch + 1) * 100).map(|number| number * 2 + 1);
        client.send(
            streams
                .clone()
                .flat_map(|stream| frame(1, 5, stream, &onehop_tests::frames::block(&GET)))
                .collect::<Vec<u8>>(),
        );
        let all = (batch as usize + 1) * 100;
        eventually("they are there", || arrived.load(Ordering::SeqCst) == all);
        client.send(streams.flat_map(reset).collect::<Vec<u8>>());
        // Each is cancelled in the end: nobody works for nothing.
        eventually("they are cancelled", || {
            let seen = seen.lock().expect("no panic");
            seen.iter().map(|(resets, ended)| resets + ended).sum::<usize>() == all
        });
    }
    let seen = seen.lock().expect("no panic");
    // The 65th lets no more requests on it, of which there are at most 128.
    assert!(seen.len() >= 3 && seen.iter().all(|(resets, _)| *resets <= 65 + 128), "{seen:?}");
}
