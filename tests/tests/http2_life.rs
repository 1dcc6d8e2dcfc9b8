//! The life of an HTTP/2 connection on either side: asked whether it lives, told to make room for a new one, left when
//! the peer is dead.

use onehop_tests::frames::{Frame, Frames, GET, block, frame, upstream};
use onehop_tests::{Origin, Proxy, eventually};

fn one_worker(config: &str) -> Proxy {
    Proxy::start_with(config, &["--workers", "1"], None)
}

fn ask(client: &mut Frames) -> Frame {
    loop {
        let asked = client.until(6).expect("a PING");
        if asked.flags == 0 {
            return asked;
        }
    }
}

#[test]
fn a_silent_client_is_asked_and_left() {
    let origin = Origin::echo();
    let proxy = one_worker(&origin.config("http2 = { ping_interval = \"500ms\" }", "", ""));
    // One that answers stays, however long it is silent otherwise.
    let mut lives = Frames::connect(proxy.address("edge"));
    for _ in 0..3 {
        let asked = ask(&mut lives);
        lives.send(frame(6, 1, 0, &asked.payload));
    }
    lives.headers(1, &GET, true);
    assert_eq!(lives.until(1).expect("an answer").stream, 1);
    // One that does not is left.
    let mut dead = Frames::connect(proxy.address("edge"));
    ask(&mut dead);
    while dead.next().is_some() {}
}

#[test]
fn an_old_connection_is_replaced_without_losing_a_request() {
    // Answered only once the client was told to go.
    let (origin, told) = late();
    let proxy = one_worker(&origin.config("http2 = { max_age = \"300ms\" }", "", ""));
    let begun = std::time::Instant::now();
    let mut client = Frames::connect(proxy.address("edge"));
    client.headers(1, &GET, true);
    let first = client.until(7).expect("a GOAWAY");
    assert!(begun.elapsed() >= std::time::Duration::from_millis(270), "it lives nine tenths of its age at least");
    assert_eq!(first.payload, [0x7fff_ffffu32.to_be_bytes(), [0; 4]].concat(), "the first says nothing yet");
    // What was sent before the client could know is still taken.
    client.headers(3, &GET, true);
    let asked = ask(&mut client);
    client.send(frame(6, 1, 0, &asked.payload));
    let second = client.until(7).expect("a second GOAWAY");
    assert_eq!(second.payload, [3u32.to_be_bytes(), [0; 4]].concat());
    for _ in 0..2 {
        told.send(()).expect("the origin waits");
    }
    let mut body = Vec::new();
    while let Some(frame) = client.next() {
        if frame.kind == 0 {
            body.extend(frame.payload);
        }
    }
    assert_eq!(body, b"latelate", "and then it is closed");
}

/// What a client sends before it knows of the end, credit above all, meets no closed socket: it would take the reset for the loss of
/// answers that it has not read yet.
#[test]
fn a_client_that_writes_on_is_heard_to_its_end() {
    let origin = Origin::echo();
    let proxy = one_worker(&origin.config("max_requests = 1", "", ""));
    // It has two seconds for it: more than one try, for machines that stand still.
    let heard = (0..5).any(|_| {
        let mut client = Frames::connect(proxy.address("edge"));
        client.headers(1, &GET, true);
        // The PING of the orderly end is awaited before it.
        let asked = ask(&mut client);
        client.send(frame(6, 1, 0, &asked.payload));
        while client.next().is_some() {}
        // A reset that the first one meets is here before the next is written.
        (0..20).all(|_| client.try_send(frame(8, 0, 0, &[0, 0, 0, 1])).is_ok())
    });
    assert!(heard);
    eventually("nobody is waited for any longer", || proxy.connections() == 0);
}

#[test]
fn an_upstream_that_is_dead_is_found_by_pings() {
    let origin = Origin::echo();
    let far = one_worker(&origin.config("", "", ""));
    let config = format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"far\"\ntimeout = \"off\"\n[[cluster]]\nname = \"far\"\nprotocol = \"http2\"\nhttp2 = {{ ping_interval = \"500ms\" }}\nendpoints = [\"{}\"]\n",
        far.address("edge")
    );
    let near = one_worker(&config);
    let mut client = near.connect("edge");
    assert_eq!(client.get("/before").text(), "/before");
    // Its kernel goes on acknowledging; nothing else shows that it is dead, and there is no time-out.
    far.signal("STOP");
    let lost = near.connect("edge").ask("POST /lost HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n");
    far.signal("CONT");
    assert_eq!(lost.status, 503, "{}", lost.head);
    eventually("a new connection serves", || client.get("/after").text() == "/after");
    assert!(near.metric("onehop_cluster_connects_total", "") >= 2.0);
}

/// An origin that answers when it is told to.
fn late() -> (Origin, std::sync::mpsc::Sender<()>) {
    let (told, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::start(move |connection| {
        connection.head();
        let _ = wait.lock().expect("no panic").recv();
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate");
    });
    (origin, told)
}

fn rest_of(client: &mut Frames) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(frame) = client.next() {
        if frame.kind == 0 {
            body.extend(frame.payload);
        }
    }
    body
}

#[test]
fn a_client_that_acknowledges_nothing_leaves_all_the_same() {
    let (origin, told) = late();
    let proxy = one_worker(&origin.config("http2 = { max_age = \"300ms\" }", "", ""));
    let mut client = Frames::connect(proxy.address("edge"));
    client.headers(1, &GET, true);
    let first = client.until(7).expect("a GOAWAY");
    assert_eq!(first.payload, [0x7fff_ffffu32.to_be_bytes(), [0; 4]].concat());
    // It says nothing to the PING, and goes on as if nothing were.
    client.headers(3, &GET, true);
    let second = client.until(7).expect("a second GOAWAY");
    assert_eq!(second.payload, [3u32.to_be_bytes(), [0; 4]].concat());
    client.headers(5, &GET, true);
    // What it asked for in time is answered, and the connection is closed.
    told.send(()).expect("the origin waits");
    told.send(()).expect("the origin waits");
    assert_eq!(rest_of(&mut client), b"latelate");
}

#[test]
fn the_last_request_of_a_connection_ends_it_even_if_nothing_is_acknowledged() {
    let origin = Origin::echo();
    let proxy = one_worker(&origin.config("max_requests = 2", "", ""));
    let mut client = Frames::connect(proxy.address("edge"));
    client.headers(1, &GET, true);
    assert_eq!(client.until(1).expect("an answer").stream, 1);
    client.headers(3, &GET, true);
    let mut goaways = Vec::new();
    let mut answered = 0;
    while let Some(frame) = client.next() {
        match frame.kind {
            7 => goaways.push(frame.payload[..4].to_vec()),
            1 => answered += 1,
            _ => {}
        }
    }
    assert_eq!(answered, 1);
    assert_eq!(goaways[0], 0x7fff_ffffu32.to_be_bytes());
    assert_eq!(goaways.last().expect("the last"), &3u32.to_be_bytes());
}

/// An upstream that answers its first request with many frames, and then each other one.
fn of_small_frames(frames: usize, length: usize) -> std::net::SocketAddr {
    upstream(move |peer| {
        let Some(first) = peer.greet() else { return };
        peer.send(frame(1, 4, first, &block(&[(":status", "200")])));
        peer.send(frame(0, 0, first, &vec![b'.'; length]).repeat(frames));
        while let Some(head) = peer.until(1) {
            peer.send(frame(1, 4, head.stream, &block(&[(":status", "200")])));
            peer.send(frame(0, 1, head.stream, b"live"));
        }
    })
}

fn proxy_to(address: std::net::SocketAddr, cluster: &str) -> Proxy {
    one_worker(&format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"a\"\n[[cluster]]\nname = \"a\"\nprotocol = \"http2\"\n{cluster}\nendpoints = [\"{address}\"]\n"
    ))
}

#[test]
fn a_stalled_stream_of_small_frames_ends_no_shared_connection() {
    // A window of single bytes; and as many messages as would use up a budget that were a share of a small window.
    for (frames, length, cluster) in
        [(65_000, 1, ""), (6500, 10, ""), (1000, 10, "http2 = { connection_window = \"64KiB\" }")]
    {
        let proxy = proxy_to(of_small_frames(frames, length), cluster);
        let mut slow = Frames::bare(proxy.address("edge"));
        slow.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        // Its streams have no window at all (RFC 9113 6.5.2).
        slow.send(frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]));
        slow.headers(1, &GET, true);
        slow.until(1).expect("a head");
        let live = proxy.connect("edge").get("/");
        assert_eq!((live.status, live.text()), (200, "live".to_owned()), "{frames} of {length}");
        assert_eq!(proxy.metric("onehop_cluster_connects_total", ""), 1.0, "on the same connection");
        // And what was stalled is whole.
        slow.send(frame(8, 0, 1, &(1u32 << 20).to_be_bytes()));
        slow.send(frame(8, 0, 0, &(1u32 << 20).to_be_bytes()));
        let mut got = 0;
        while got < frames * length {
            let frame = slow.until(0).expect("more of it");
            got += frame.payload.len();
        }
    }
}

#[test]
fn empty_frames_count_by_their_rate_alone() {
    let address = upstream(|peer| {
        let Some(stream) = peer.greet() else { return };
        peer.send(frame(1, 4, stream, &block(&[(":status", "200")])));
        // A hundred in its whole life is all that `h2` takes; ten a second are within the budget.
        for count in [90, 30] {
            peer.send(frame(0, 0, stream, b"").repeat(count));
            peer.send(frame(0, 0, stream, b"part"));
            std::thread::sleep(std::time::Duration::from_secs(3));
        }
        peer.send(frame(0, 1, stream, b""));
        while peer.next().is_some() {}
    });
    let answer = proxy_to(address, "").connect("edge").get("/");
    assert_eq!((answer.status, answer.text(), answer.whole), (200, "partpart".to_owned(), true));
}

#[test]
fn what_an_upstream_floods_with_is_counted() {
    let address = upstream(|peer| {
        if peer.greet().is_some() {
            peer.send(frame(6, 0, 0, &[7; 8]).repeat(1100));
            while peer.next().is_some() {}
        }
    });
    let proxy = proxy_to(address, "");
    assert_eq!(proxy.connect("edge").get("/").status, 502);
    assert_eq!(proxy.metric("onehop_cluster_floods_total", "reason=\"flood-of-pings\""), 1.0);
}
