//! The examples of `configs/` that have to do with tunnels and with bulk over HTTP/2, each run as it stands, but for its
//! addresses: what their comments say is so.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use bytes::Bytes;
use onehop_tests::frames::{Frame, Frames, upstream};
use onehop_tests::http2::{Http2Origin, ask, connect, connect_to, open_tunnel, post, read, run};
use onehop_tests::{Client, Origin, Proxy};

/// The example with each endpoint replaced, and listeners on free ports.
fn start(name: &str, endpoints: &[(&str, SocketAddr)]) -> Proxy {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs").join(name);
    let mut text = std::fs::read_to_string(path).expect("an example");
    for (from, to) in endpoints {
        let from = format!("endpoints = [\"{from}\"]");
        assert!(text.contains(&from), "{name} has no {from}");
        text = text.replace(&from, &format!("endpoints = [\"{to}\"]"));
    }
    for port in ["8080", "3128"] {
        text = text.replace(&format!("address = \"127.0.0.1:{port}\""), "address = \"127.0.0.1:0\"");
    }
    Proxy::start_with(&text, &["--workers", "1"], None)
}

/// An app that is upgraded by HTTP/1.1, greets, and says four bytes again.
fn chat() -> Origin {
    Origin::start(|connection| {
        let head = connection.head().expect("a head");
        if !Client::wants_upgrade(&head) {
            return connection.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain");
        }
        connection.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello");
        let said = connection.read(4);
        connection.send(said);
        connection.wait_for_end();
    })
}

/// One that takes an extended CONNECT.
fn live() -> Http2Origin {
    Http2Origin::with_tunnels(|mut incoming| async move {
        let Ok(mut send) = incoming.respond.send_response(http::Response::new(()), false) else { return };
        let _ = send.send_data(Bytes::from_static(b"hello"), false);
        let body = incoming.request.body_mut();
        while let Some(Ok(chunk)) = body.data().await {
            let _ = body.flow_control().release_capacity(chunk.len());
            let _ = send.send_data(chunk, false);
        }
    })
}

fn forward_proxy() -> Origin {
    Origin::start(|connection| {
        let head = connection.head().unwrap_or_default();
        assert!(head.starts_with("CONNECT db.example.com:5432 HTTP/1.1\r\n"), "{head}");
        connection.send("HTTP/1.1 200 Established\r\n\r\nhello");
        let said = connection.read(4);
        connection.send(said);
        connection.wait_for_end();
    })
}

fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// The status; of a tunnel that was opened, also that it greets and says again what it is told.
fn over_http1(client: &mut Client, head: &str) -> u16 {
    client.send(head);
    let answer = client.head();
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
    if matches!(status, 101 | 200) {
        assert_eq!(client.read(5), b"hello");
        client.send("ping");
        assert_eq!(client.read(4), b"ping");
    }
    status
}

fn over_http2(address: SocketAddr, uri: &str, protocol: Option<&'static str>) -> u16 {
    run(async {
        let (answer, mut send) = open_tunnel(address, connect_to(uri, protocol)).await;
        let status = answer.status().as_u16();
        if status == 200 {
            let mut body = answer.into_body();
            let mut heard = Vec::new();
            let _ = send.send_data(Bytes::from_static(b"ping"), false);
            while heard.len() < 9 {
                heard.extend(body.data().await.expect("more").expect("whole"));
            }
            assert_eq!(heard, b"helloping");
        }
        status
    })
}

#[test]
fn tunnels() {
    let (chat, live, egress) = (chat(), live(), forward_proxy());
    let endpoints =
        [("127.0.0.1:9000", chat.address()), ("127.0.0.1:9001", live.address()), ("127.0.0.1:3129", egress.address())];
    let proxy = start("tunnels.toml", &endpoints);
    let (edge, forward) = (proxy.address("edge"), proxy.address("forward"));
    for (path, one, two) in [("/chat", 101, 200), ("/live", 101, 200), ("/other", 403, 403)] {
        assert_eq!(over_http1(&mut proxy.connect("edge"), &upgrade(path)), one, "{path}");
        assert_eq!(over_http2(edge, &format!("http://test{path}"), Some("websocket")), two, "{path}");
    }
    assert_eq!(proxy.connect("edge").get("/other").text(), "plain");
    for (to, status) in [("db.example.com:5432", 200), ("db.elsewhere.test:5432", 403)] {
        let head = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n");
        assert_eq!(over_http1(&mut proxy.connect("forward"), &head), status, "{to}");
        assert_eq!(over_http2(forward, to, None), status, "{to}");
    }
    assert_eq!(proxy.connect("forward").get("/").status, 403);
    let head = "CONNECT test:1 HTTP/1.1\r\nHost: test:1\r\n\r\n";
    assert_eq!(over_http1(&mut proxy.connect("edge"), head), 405);
}

/// The windows that a peer gives, of a stream and of the connection, in its first frames.
fn windows(peer: &mut Frames) -> (u32, u32) {
    let word = |bytes: &[u8]| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let (mut stream, mut connection) = (65_535, 65_535);
    loop {
        match peer.next().expect("more frames") {
            Frame { kind: 4, flags: 0, payload, .. } => {
                let setting = payload.chunks(6).find(|setting| setting[..2] == [0, 4]);
                stream = setting.map_or(stream, |setting| word(&setting[2..]));
            }
            Frame { kind: 8, stream: 0, payload, .. } => {
                connection += word(&payload);
                return (stream, connection);
            }
            _ => {}
        }
    }
}

#[test]
fn bulk() {
    const MIB: u32 = 1 << 20;
    let origin = Http2Origin::start(|mut incoming| async move {
        let Ok((body, _)) = read(incoming.request.body_mut()).await else { return };
        let Ok(mut send) = incoming.respond.send_response(http::Response::new(()), false) else { return };
        let _ = send.send_data(Bytes::from(body), true);
    });
    let proxy = start("bulk.toml", &[("127.0.0.1:9000", origin.address())]);
    let mut client = Frames::connect(proxy.address("edge"));
    assert_eq!(windows(&mut client), (MIB, 16 * MIB));
    // Several at once, each larger than its window.
    let sent: Vec<u8> = (0..4 * MIB).map(|at| (at % 251) as u8).collect();
    run(async {
        let sender = connect(proxy.address("edge")).await;
        let one = async || ask(&sender, post("/"), sent.clone()).await.expect("answers").body == sent;
        assert_eq!(tokio::join!(one(), one(), one()), (true, true, true));
    });
    // What the upstream is told.
    let (told, heard) = channel();
    let store = upstream(move |peer| {
        assert!(peer.skip(24));
        peer.send(onehop_tests::frames::frame(4, 0, 0, &[]));
        // The test may have ended.
        let _ = told.send(windows(peer));
        peer.verdict();
    });
    let proxy = start("bulk.toml", &[("127.0.0.1:9000", store)]);
    proxy.connect("edge").send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(heard.recv_timeout(Duration::from_secs(30)), Ok((MIB, 64 * MIB)));
}
