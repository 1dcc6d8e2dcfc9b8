//! Peers that stop taking: a client whose stream has no window, an upstream that reads no more of a request. The stream
//! ends by its time-out with the right status, what is kept for it meanwhile is bounded, and its neighbours go on.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::Response;
use onehop_tests::frames::{Frames, frame, upstream};
use onehop_tests::http2::{Http2Origin, ask, connect, get, post, run};
use onehop_tests::{Origin, Proxy, eventually};

/// More than all windows and all of the kernel's buffers on the way hold.
const BODY_BYTES: usize = 256 << 20;
/// What they do hold at most: four buffers of a few MiB each, and our own, which are far smaller.
const HELD_BYTES: usize = 64 << 20;

fn one_worker(config: &str) -> Proxy {
    Proxy::start_with(config, &["--workers", "1"], None)
}

/// Asks for the small body, with a window for it, and reads it; the error code if the first stream was reset meanwhile.
fn neighbour(client: &mut Frames, stream: u32) -> Option<u32> {
    let small = [(":method", "GET"), (":scheme", "http"), (":authority", "test"), (":path", "/small")];
    client.headers(stream, &small, true);
    client.send(frame(8, 0, stream, &100u32.to_be_bytes()));
    let (mut body, mut reset) = (Vec::new(), None);
    loop {
        let next = client.next().expect("the connection goes on");
        match (next.kind, next.stream) {
            (0, at) if at == stream => body.extend(next.payload),
            (3, 1) => reset = Some(u32::from_be_bytes(next.payload.try_into().expect("four bytes"))),
            (3 | 7, _) => panic!("{next:?}"),
            _ => {}
        }
        if next.stream == stream && next.kind < 2 && next.flags & 1 == 1 {
            assert_eq!(body, b"small");
            return reset;
        }
    }
}

#[test]
fn a_stream_that_takes_nothing_ends_and_its_neighbours_go_on() {
    let large = Bytes::from(vec![b'x'; 1 << 20]);
    let text = large.clone();
    let http1 = Origin::start(move |connection| {
        while let Some(head) = connection.head() {
            let body: &[u8] = if head.contains("/large") { &text } else { b"small" };
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()));
            connection.send(body);
        }
    });
    let http2 = Http2Origin::start(move |mut incoming| {
        let is_large = incoming.request.uri().path() == "/large";
        let body = if is_large { large.clone() } else { Bytes::from_static(b"small") };
        async move {
            let Ok(mut send) = incoming.respond.send_response(Response::new(()), false) else { return };
            let _ = send.send_data(body, true);
        }
    });
    let listener = "body_timeout = \"2s\"";
    for config in [http1.config(listener, "", ""), http2.config(listener, "", "")] {
        let proxy = one_worker(&config);
        let mut client = Frames::bare(proxy.address("edge"));
        client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        // Streams begin without a window (RFC 9113 6.5.2); the connection as a whole has enough.
        client.send(frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]));
        client.send(frame(8, 0, 0, &(1u32 << 30).to_be_bytes()));
        client.headers(
            1,
            &[(":method", "GET"), (":scheme", "http"), (":authority", "test"), (":path", "/large")],
            true,
        );
        assert_eq!(client.until(1).expect("a head").stream, 1);
        let mut stream = 3;
        let code = loop {
            match neighbour(&mut client, stream) {
                Some(code) => break code,
                None => stream += 2,
            }
        };
        assert_eq!(code, 8, "CANCEL");
        assert_eq!(neighbour(&mut client, stream + 2), None);
        let stalled = || proxy.metric("onehop_listener_faults_total", "reason=\"write-timeout\"");
        eventually("it is counted", || stalled() == 1.0);
    }
}

/// Its answers are whole, and wait behind a socket that nobody reads: the connection ends, and says why.
#[test]
fn a_client_that_takes_nothing_of_its_connection_is_left() {
    const ANSWERS: u32 = 1000;
    // Less than waits on one stream, so that no exchange waits itself; more than the kernel holds, all together.
    let body = Bytes::from(vec![b'x'; 60_000]);
    let origin = Http2Origin::start(move |mut incoming| {
        let body = body.clone();
        async move {
            let Ok(mut send) = incoming.respond.send_response(Response::new(()), false) else { return };
            let _ = send.send_data(body, true);
        }
    });
    let proxy = one_worker(&origin.config("body_timeout = \"3s\"\nhttp2 = { max_streams = 1000 }", "", ""));
    let mut client = Frames::bare(proxy.address("edge"));
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    client.send(frame(4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]));
    client.send(frame(8, 0, 0, &(1u32 << 30).to_be_bytes()));
    for number in 0..ANSWERS {
        client.headers(number * 2 + 1, &onehop_tests::frames::GET, true);
    }
    let stalled = || proxy.metric("onehop_listener_faults_total", "reason=\"write-timeout\"");
    eventually("it is counted", || stalled() >= 1.0);
    eventually("it is closed", || proxy.metric("onehop_listener_connections", "") == 0.0);
    assert_eq!(proxy.connect("edge").get("/beside").status, 200);
}

/// Reads the request's head, and then nothing ever.
fn deaf_http1() -> SocketAddr {
    let origin = Origin::start(|connection| {
        connection.head();
        forever();
    });
    origin.address()
}

/// Gives no credit beyond what every stream begins with.
fn stingy_http2() -> SocketAddr {
    upstream(|peer| {
        peer.greet();
        while peer.next().is_some() {}
        forever();
    })
}

/// Gives all the credit that there is, and does not even read.
fn deaf_http2() -> SocketAddr {
    upstream(|peer| {
        let Some(stream) = peer.greet() else { return };
        for stream in [0, stream] {
            peer.send(frame(8, 0, stream, &(0x7fff_ffffu32 - 65_535).to_be_bytes()));
        }
        forever();
    })
}

/// The thread holds its socket until the test's process ends.
fn forever() -> ! {
    loop {
        std::thread::park();
    }
}

/// Uploads go to `/`, where nobody reads them; `/live` is answered.
fn proxy_to(deaf: SocketAddr, protocol: &str, live: &Origin) -> Proxy {
    // Nobody's pieces are ten seconds apart; three are over only for who takes nothing.
    one_worker(&format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\nbody_timeout = \"10s\"\n[[route]]\ncluster = \"deaf\"\ntimeout = \"3s\"\n[[route]]\npath = {{ exact = \"/live\" }}\ncluster = \"live\"\n[[cluster]]\nname = \"deaf\"\nprotocol = \"{protocol}\"\nendpoints = [\"{deaf}\"]\n[[cluster]]\nname = \"live\"\nendpoints = [\"{}\"]\n",
        live.address()
    ))
}

/// Bounded memory, and bytes taken of the client, at the moment when it was answered.
fn is_bounded(proxy: &Proxy, before: u64, sent: &AtomicUsize) {
    let sent = sent.load(Ordering::SeqCst);
    assert!(sent < HELD_BYTES, "{sent} bytes went nowhere");
    assert!(sent > 64 * 1024, "a part of it is taken before anyone stalls: {sent} bytes");
    let grown = proxy.memory_kib("VmHWM").saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB");
}

fn from_http1(deaf: SocketAddr, protocol: &str) {
    let live = Origin::echo();
    let proxy = proxy_to(deaf, protocol, &live);
    assert_eq!(proxy.connect("edge").get("/live").status, 200);
    let before = proxy.memory_kib("VmRSS");
    let mut client = proxy.connect("edge");
    let sent = Arc::new(AtomicUsize::new(0));
    let (mut stream, count) = (client.stream().try_clone().expect("a descriptor"), sent.clone());
    let sender = std::thread::spawn(move || {
        let head = format!("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
        let mut chunk = head.into_bytes();
        // Until the proxy closes: it does so with bytes unread, which resets the connection.
        while let Ok(bytes @ 1..) = stream.write(&chunk) {
            count.fetch_add(bytes, Ordering::SeqCst);
            chunk.resize(65_536, b'x');
            chunk.fill(b'x');
        }
    });
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
    is_bounded(&proxy, before, &sent);
    sender.join().expect("no panic");
    assert_eq!(proxy.connect("edge").get("/live").status, 200);
}

fn from_http2(deaf: SocketAddr, protocol: &str) {
    let live = Origin::echo();
    let proxy = proxy_to(deaf, protocol, &live);
    run(async {
        let sender = connect(proxy.address("edge")).await;
        assert_eq!(ask(&sender, get("/live"), Vec::new()).await.expect("answers").head.status, 200);
        let before = proxy.memory_kib("VmRSS");
        let sent = Arc::new(AtomicUsize::new(0));
        let (answer, mut send) =
            sender.clone().ready().await.expect("ready").send_request(post("/"), false).expect("sends");
        let count = sent.clone();
        let upload = tokio::spawn(async move {
            loop {
                send.reserve_capacity(16_384);
                // Until the stream is reset.
                let Some(Ok(room)) = std::future::poll_fn(|cx| send.poll_capacity(cx)).await else { return };
                if send.send_data(Bytes::from(vec![b'x'; room]), false).is_err() {
                    return;
                }
                count.fetch_add(room, Ordering::SeqCst);
            }
        });
        assert_eq!(answer.await.expect("answers").status(), 504);
        is_bounded(&proxy, before, &sent);
        upload.await.expect("no panic");
        // The client's other streams go on.
        assert_eq!(ask(&sender, get("/live"), Vec::new()).await.expect("answers").head.status, 200);
    });
}

#[test]
fn an_upload_from_http1_to_http1_that_reads_no_more_is_a_time_out() {
    from_http1(deaf_http1(), "http1");
}

#[test]
fn an_upload_from_http2_to_http1_that_reads_no_more_is_a_time_out() {
    from_http2(deaf_http1(), "http1");
}

#[test]
fn an_upload_to_http2_that_gives_no_credit_is_a_time_out() {
    from_http1(stingy_http2(), "http2");
    from_http2(stingy_http2(), "http2");
}

#[test]
fn an_upload_to_http2_that_reads_no_more_is_a_time_out() {
    from_http1(deaf_http2(), "http2");
    from_http2(deaf_http2(), "http2");
}
