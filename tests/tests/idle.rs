//! What stands still ends, and what goes on does not, however long it takes: tunnels of every pairing, and streams of one
//! HTTP/2 connection. The time-out is one that only the silent reach: whoever talks does so many times within it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Response};
use onehop_tests::http2::{Http2Origin, Incoming, connect, post, run};
use onehop_tests::{Client, Connection, Origin, Proxy, eventually};

/// What ends the silent.
const IDLE: Duration = Duration::from_secs(7);
/// How often those who talk say something. No moment of theirs decides anything.
const PAUSE: Duration = Duration::from_millis(50);

/// Opens a tunnel of either kind, and sends back all that it gets.
fn echo(connection: &mut Connection) {
    let head = connection.head().unwrap_or_default();
    let connect = "HTTP/1.1 200 Established\r\n\r\n";
    let upgrade = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    connection.send(if head.starts_with("CONNECT ") { connect } else { upgrade });
    loop {
        let byte = connection.read(1);
        if byte.is_empty() {
            return;
        }
        connection.send(byte);
    }
}

async fn echo_stream(mut incoming: Incoming) {
    let Ok(mut send) = incoming.respond.send_response(Response::new(()), false) else { return };
    let body = incoming.request.body_mut();
    while let Some(Ok(chunk)) = body.data().await {
        let _ = body.flow_control().release_capacity(chunk.len());
        let _ = send.send_data(chunk, false);
    }
    let _ = send.send_data(Bytes::new(), true);
}

/// A tunnel over either version: says a byte and hears it, or waits for its end.
enum Tunnel {
    Plain(Box<Client>),
    Stream(SendStream<Bytes>, RecvStream),
}

impl Tunnel {
    fn plain(edge: SocketAddr, request: &str) -> Tunnel {
        let mut client = Client::connect(edge);
        client.send(request);
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 101 ") || head.starts_with("HTTP/1.1 200 "), "{head}");
        Tunnel::Plain(Box::new(client))
    }

    async fn stream(edge: SocketAddr, request: Request<()>) -> Tunnel {
        let mut sender = connect(edge).await.ready().await.expect("ready");
        while !sender.is_extended_connect_protocol_enabled() {
            tokio::task::yield_now().await;
        }
        let (answer, send) = sender.send_request(request, false).expect("sends");
        let answer = answer.await.expect("answers");
        assert_eq!(answer.status(), 200);
        Tunnel::Stream(send, answer.into_body())
    }

    async fn says(&mut self) {
        match self {
            Tunnel::Plain(client) => {
                client.send("x");
                assert_eq!(client.read(1), b"x", "a tunnel that is used was ended");
            }
            Tunnel::Stream(send, body) => {
                send.send_data(Bytes::from_static(b"x"), false).expect("a tunnel that is used was ended");
                let heard = body.data().await.expect("a tunnel that is used was ended").expect("in order");
                body.flow_control().release_capacity(heard.len()).expect("credit");
                assert_eq!(heard, "x");
            }
        }
    }

    async fn ends(&mut self) {
        match self {
            Tunnel::Plain(client) => assert!(client.is_closed()),
            Tunnel::Stream(_, body) => {
                let end = tokio::time::timeout(Duration::from_secs(20), body.data()).await.expect("it ends");
                assert_eq!(end.and_then(Result::err).and_then(|error| error.reason()), Some(Reason::CANCEL));
            }
        }
    }
}

/// Says that it is over, even if what it waits for fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// One tunnel talks while others, one after the other, are silent to their ends.
fn outlives(proxy: &Proxy, open: impl AsyncFn(SocketAddr) -> Tunnel + Sync) {
    let edge = proxy.address("edge");
    let (has_begun, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    let talk = async || {
        let mut talker = open(edge).await;
        while !is_over.load(Ordering::SeqCst) {
            talker.says().await;
            has_begun.store(true, Ordering::SeqCst);
            tokio::time::sleep(PAUSE).await;
        }
        talker.says().await;
    };
    std::thread::scope(|scope| {
        let over = Over(&is_over);
        let talker = scope.spawn(|| run(talk()));
        eventually("it talks", || has_begun.load(Ordering::SeqCst) || talker.is_finished());
        for _ in 0..2 {
            run(async {
                let mut silent = open(edge).await;
                silent.says().await;
                let begun = Instant::now();
                silent.ends().await;
                assert!(begun.elapsed() > IDLE / 2, "it was not the time that ended it");
            });
        }
        drop(over);
        talker.join().expect("it talked to its end");
    });
    eventually("the upstreams know", || proxy.metric("onehop_cluster_active", "") == 0.0);
}

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const CONNECT: &str = "CONNECT far.example:443 HTTP/1.1\r\nHost: far.example:443\r\n\r\n";

fn extended() -> Request<()> {
    let mut request = Request::builder().method("CONNECT").uri("http://test/chat").body(()).expect("well-formed");
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    request
}

fn plain_connect() -> Request<()> {
    Request::builder().method("CONNECT").uri("far.example:443").body(()).expect("well-formed")
}

#[test]
fn a_silent_tunnel_ends_and_one_that_talks_does_not() {
    let one = Origin::start(echo);
    let two = Http2Origin::with_tunnels(echo_stream);
    let bytes = Origin::start(|connection| {
        loop {
            let byte = connection.read(1);
            if byte.is_empty() {
                return;
            }
            connection.send(byte);
        }
    });
    let idle = format!("tcp_idle_timeout = \"{}s\"\nbody_timeout = \"300s\"", IDLE.as_secs());
    let (to_one, to_two) = (one.config(&idle, "connect = true", ""), two.config(&idle, "connect = true", ""));
    let tcp = format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\nlayer = \"tcp\"\ncluster = \"c\"\n{idle}\n[[cluster]]\nname = \"c\"\nendpoints = [\"{}\"]\n",
        bytes.address()
    );
    std::thread::scope(|scope| {
        for config in [&to_one, &to_two] {
            scope.spawn(|| outlives(&Proxy::start(config), async |edge| Tunnel::plain(edge, UPGRADE)));
            scope.spawn(|| outlives(&Proxy::start(config), async |edge| Tunnel::plain(edge, CONNECT)));
            scope.spawn(|| outlives(&Proxy::start(config), async |edge| Tunnel::stream(edge, extended()).await));
            scope.spawn(|| outlives(&Proxy::start(config), async |edge| Tunnel::stream(edge, plain_connect()).await));
        }
        scope.spawn(|| outlives(&Proxy::start(&tcp), async |edge| Tunnel::Plain(Box::new(Client::connect(edge)))));
    });
}

/// Answers an upload with its length, and anything else with a body that goes on until it is over, or stands still.
fn bodies(is_over: &Arc<AtomicBool>) -> Origin {
    let is_over = is_over.clone();
    Origin::start(move |connection| {
        while let Some(head) = connection.head() {
            if head.starts_with("POST ") {
                let body = connection.body(&head);
                let length = body.iter().filter(|byte| **byte == b'x').count().to_string();
                connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{length}", length.len()));
                continue;
            }
            connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
            if head.starts_with("GET /hang ") {
                connection.wait_for_end();
                return;
            }
            while !is_over.load(Ordering::SeqCst) {
                std::thread::sleep(PAUSE);
                connection.send("1\r\nx\r\n");
            }
            connection.send("0\r\n\r\n");
        }
    })
}

#[test]
fn a_silent_stream_ends_alone() {
    let is_over = Arc::new(AtomicBool::new(false));
    let origin = bodies(&is_over);
    let listener = format!("body_timeout = \"{}s\"", IDLE.as_secs());
    let proxy = Proxy::start_with(&origin.config(&listener, "timeout = \"off\"", ""), &["--workers", "1"], None);
    run(async {
        let sender = connect(proxy.address("edge")).await;
        let open = async |request: Request<()>, ends: bool| {
            let (answer, send) =
                sender.clone().ready().await.expect("ready").send_request(request, ends).expect("sends");
            (answer, send)
        };
        let get = |path: &str| Request::builder().uri(format!("http://test{path}")).body(()).expect("well-formed");
        let upload = async {
            let (answer, mut send) = open(post("/up"), false).await;
            let mut sent = 0;
            while !is_over.load(Ordering::SeqCst) {
                send.send_data(Bytes::from_static(b"x"), false).expect("a stream that is used was ended");
                sent += 1;
                tokio::time::sleep(PAUSE).await;
            }
            send.send_data(Bytes::new(), true).expect("open");
            let mut answer = answer.await.expect("answers");
            let (body, _) = onehop_tests::http2::read(answer.body_mut()).await.expect("whole");
            assert_eq!((answer.status().as_u16(), body), (200, sent.to_string().into_bytes()));
        };
        let download = async {
            let (answer, _send) = open(get("/down"), true).await;
            let mut answer = answer.await.expect("answers");
            let (body, _) = onehop_tests::http2::read(answer.body_mut()).await.expect("whole");
            assert!(body.len() > 10 && is_over.load(Ordering::SeqCst), "{} bytes", body.len());
        };
        let silent = async {
            let _over = Over(&is_over);
            for _ in 0..2 {
                let begun = Instant::now();
                let (late, mut send) = open(post("/up"), false).await;
                send.send_data(Bytes::from_static(b"x"), false).expect("sends");
                let (hung, _send) = open(get("/hang"), true).await;
                let mut hung = hung.await.expect("answers");
                assert_eq!(hung.body_mut().data().await.expect("a byte").expect("in order"), "x");
                // An upload that stands still is told so; a download cannot be any more, and must not look whole.
                assert_eq!(late.await.expect("answers").status(), 408);
                let cut = hung.body_mut().data().await.expect("it does not end in order");
                assert!(cut.is_err_and(|error| error.is_reset()), "the stream alone is reset");
                assert!(begun.elapsed() > IDLE / 2, "it was not the time that ended it");
            }
        };
        tokio::join!(upload, download, silent);
    });
}
