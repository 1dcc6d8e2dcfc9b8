//! Whom an exchange waits for, in all pairings: the wait ends in time wherever it stands, and the fault is of the side that
//! owed something.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::ext::Protocol;
use http::Response;
use onehop_tests::frames::{Frames, POST, frame, upstream};
use onehop_tests::http2::{Http2Origin, Incoming};
use onehop_tests::{Client, Origin, Proxy, eventually};

fn one_worker(config: &str) -> Proxy {
    Proxy::start_with(config, &["--workers", "1"], None)
}

fn config(protocol: &str, address: SocketAddr, listener: &str, route: &str) -> String {
    format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n{listener}\n[[route]]\ncluster = \"origin\"\n{route}\n[[cluster]]\nname = \"origin\"\nprotocol = \"{protocol}\"\nendpoints = [\"{address}\"]\n"
    )
}

/// Reads, and answers nothing.
fn listeners() -> [(&'static str, SocketAddr); 2] {
    let http1 = Origin::start(|connection| connection.wait_for_end());
    let http2 = upstream(|peer| {
        peer.greet();
        while peer.next().is_some() {}
    });
    [("http1", http1.address()), ("http2", http2)]
}

/// The upstream has nothing to answer yet: that the body does not come is not its fault, and must not be held against it.
#[test]
fn a_body_that_does_not_come_is_its_clients_fault() {
    for (protocol, address) in listeners() {
        let proxy = one_worker(&config(protocol, address, "body_timeout = \"1s\"", "timeout = \"60s\""));
        for round in 0..3 {
            let slow = "POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhalf";
            let response = proxy.connect("edge").ask(slow);
            assert_eq!(response.status, 408, "HTTP/1 to {protocol}, round {round}: {}", response.head);
            let mut client = Frames::connect(proxy.address("edge"));
            client.headers(1, &POST, false);
            client.send(frame(0, 0, 1, b"half"));
            let head = client.until(1).expect("an answer");
            assert_eq!(head.stream, 1);
            let text = client.body();
            assert!(text.contains("body-timeout"), "HTTP/2 to {protocol}, round {round}: {text}");
        }
        assert_eq!(proxy.metric("onehop_listener_faults_total", "body-timeout"), 6.0, "to {protocol}");
        assert_eq!(proxy.metric("onehop_cluster_timeouts_total", ""), 0.0, "to {protocol}");
        assert_eq!(proxy.metric("onehop_endpoint_failures_total", ""), 0.0, "to {protocol}");
    }
}

/// Sends half of a body at once, and then nothing ever.
fn stallers() -> [(&'static str, SocketAddr); 2] {
    let http1 = Origin::start(|connection| {
        connection.head();
        connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n{}", "x".repeat(1000)));
        connection.wait_for_end();
    });
    let http2 = upstream(|peer| {
        let Some(stream) = peer.greet() else { return };
        peer.headers(stream, &[(":status", "200"), ("content-length", "2000")], false);
        peer.send(frame(0, 0, stream, &[b'x'; 1000]));
        while peer.next().is_some() {}
    });
    [("http1", http1.address()), ("http2", http2)]
}

/// The client was slow before, so that it was waited for; from then on it is the upstream.
#[test]
fn an_upstream_that_stalls_behind_a_slow_reader_is_waited_for_no_longer_than_others() {
    for (protocol, address) in stallers() {
        let proxy = one_worker(&config(protocol, address, "body_timeout = \"1s\"", "timeout = \"60s\""));
        let mut client = Frames::bare(proxy.address("edge"));
        client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        // Ten bytes for each stream.
        client.send(frame(4, 0, 0, &[0, 4, 0, 0, 0, 10]));
        client.headers(1, &onehop_tests::frames::GET, true);
        let first = client.until(0).expect("a part");
        assert_eq!(first.payload.len(), 10);
        client.send(frame(8, 0, 1, &5000u32.to_be_bytes()));
        let mut read = 10;
        let reset = loop {
            let next = client.next().expect("a reset");
            match next.kind {
                0 => read += next.payload.len(),
                3 => break next,
                7 => panic!("{next:?}"),
                _ => {}
            }
        };
        assert_eq!((read, reset.stream), (1000, 1), "{protocol}");
        eventually("it is the upstream's fault", || {
            proxy.metric("onehop_listener_faults_total", "upstream-idle-timeout") == 1.0
        });
        assert_eq!(proxy.metric("onehop_listener_faults_total", "write-timeout"), 0.0);
        eventually("nothing is left", || proxy.metric("onehop_cluster_active", "") == 0.0);
    }
}

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// Agree to tunnels; `floods`: they send without an end; else they end their way at once.
fn tunnellers(floods: bool) -> [(&'static str, SocketAddr); 2] {
    let http1 = Origin::start(move |connection| {
        connection.head();
        connection.send(SWITCHED);
        if floods {
            // Far more than all buffers on the way hold.
            for _ in 0..4096 {
                connection.send([b'x'; 65_536]);
            }
        } else {
            connection.send("bye");
            connection.finish();
        }
        connection.wait_for_end();
    });
    let http2 = Http2Origin::with_tunnels(move |mut incoming: Incoming| async move {
        assert!(incoming.request.extensions().get::<Protocol>().is_some());
        let Ok(mut send) = incoming.respond.send_response(Response::new(()), false) else { return };
        let data = if floods { Bytes::from(vec![b'x'; 64 << 20]) } else { Bytes::from_static(b"bye") };
        let _ = send.send_data(data, !floods);
        // Until the proxy gives it up.
        while let Some(Ok(_)) = incoming.request.body_mut().data().await {}
        let _ = std::future::poll_fn(|cx| send.poll_reset(cx)).await;
    });
    [("http1", http1.address()), ("http2", http2.address())]
}

/// `Some` is held by who stays silent: what it said must not be taken for its end.
fn silent(proxy: &Proxy, http2: bool) -> (Option<Client>, Option<Frames>) {
    if !http2 {
        let mut client = proxy.connect("edge");
        client.send(UPGRADE);
        return (Some(client), None);
    }
    let mut client = Frames::connect(proxy.address("edge"));
    client.until(4).expect("its SETTINGS");
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", "test"),
        (":path", "/chat"),
    ];
    client.headers(1, &fields, false);
    (None, Some(client))
}

/// Nobody ends such a tunnel: its client takes nothing, or says nothing after the other side has ended.
#[test]
fn a_tunnel_in_which_nothing_moves_ends_in_all_pairings() {
    for floods in [false, true] {
        for (protocol, address) in tunnellers(floods) {
            let log = onehop_tests::folder().join("access.log");
            let text = config(protocol, address, "tcp_idle_timeout = \"1s\"", "");
            let proxy = one_worker(&format!("[access_log]\npath = \"{}\"\n{text}", log.display()));
            for (ended, http2) in [false, true].into_iter().enumerate() {
                let _client = silent(&proxy, http2);
                // A tunnel is recorded when it is over.
                let records = || std::fs::read_to_string(&log).unwrap_or_default();
                let name = format!("from HTTP/{} to {protocol}, floods: {floods}", 1 + u8::from(http2));
                eventually(&name, || records().lines().count() == ended + 1);
                assert!(
                    records().lines().all(|line| line.contains("\"bytes_out\":") && !line.contains("\"bytes_out\":0,")),
                    "{}",
                    records()
                );
            }
        }
    }
}

/// A copy has the route's time too, with a body as without one: it would hold its place for ever.
#[test]
fn a_copy_that_is_never_answered_is_given_up() {
    let live = Origin::echo();
    // Longer than any wait of a test: the origin's own patience must not end it.
    let http1 = Origin::start(|connection| {
        connection.head();
        loop {
            std::thread::park();
        }
    });
    let http2 = upstream(|peer| {
        peer.greet();
        loop {
            std::thread::park();
        }
    });
    for (protocol, address) in [("http1", http1.address()), ("http2", http2)] {
        let route = "timeout = \"1s\"\nmirror = { cluster = \"shadow\" }";
        let shadow =
            format!("[[cluster]]\nname = \"shadow\"\nprotocol = \"{protocol}\"\nendpoints = [\"{address}\"]\n");
        let proxy = one_worker(&(live.config("", route, "") + &shadow));
        for body in ["", "hello"] {
            let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            assert_eq!(proxy.connect("edge").ask(request).status, 200);
        }
        eventually("both are copied", || proxy.metric("onehop_cluster_requests_total", "cluster=\"shadow\"") == 2.0);
        let under_way = || proxy.metric("onehop_cluster_active", "cluster=\"shadow\"");
        eventually(protocol, || under_way() == 0.0);
    }
}
