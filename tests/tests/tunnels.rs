//! Tunnels in all four pairings: WebSocket by Upgrade and by extended CONNECT (RFC 8441), and plain CONNECT.

use bytes::Bytes;
use h2::client::SendRequest;
use h2::ext::Protocol;
use http::{Request, Response};
use onehop_tests::http2::{Http2Origin, Incoming, connect, run};
use onehop_tests::{Origin, Proxy, eventually};

fn one_worker(config: &str) -> Proxy {
    Proxy::start_with(config, &["--workers", "1"], None)
}

/// Agrees to a tunnel, greets, and echoes until the client ends.
async fn echoes(mut incoming: Incoming) {
    let protocol = incoming.request.extensions().get::<Protocol>().map(|protocol| protocol.as_str().to_owned());
    let uri = incoming.request.uri().to_string();
    assert!(!incoming.request.headers().contains_key("sec-websocket-key"));
    let mut response = Response::new(());
    response.headers_mut().insert("x-asked", format!("{protocol:?} {uri}").parse().expect("a value"));
    let Ok(mut send) = incoming.respond.send_response(response, false) else { return };
    let _ = send.send_data(Bytes::from_static(b"hello"), false);
    let body = incoming.request.body_mut();
    while let Some(Ok(chunk)) = body.data().await {
        let _ = body.flow_control().release_capacity(chunk.len());
        let _ = send.send_data(chunk, false);
    }
    let _ = send.send_data(Bytes::new(), true);
}

fn with_connect() -> Http2Origin {
    Http2Origin::with_tunnels(echoes)
}

const UPGRADE: &str = "GET /chat?x HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[test]
fn an_upgrade_becomes_an_extended_connect() {
    let origin = with_connect();
    let proxy = one_worker(&origin.config("", "", ""));
    // The second rides on the same connection.
    for _ in 0..2 {
        let mut client = proxy.connect("edge");
        client.send(UPGRADE);
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        // The proof that RFC 6455 1.3 gives for this key.
        assert!(head.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
        assert!(head.contains("Upgrade: websocket\r\n") && head.contains("http://test/chat?x"), "{head}");
        assert_eq!(client.read(5), b"hello");
        client.send("ping");
        assert_eq!(client.read(4), b"ping");
        client.finish();
        assert!(client.is_closed());
    }
    assert_eq!(origin.accepted(), 1);
}

async fn tunnel(sender: SendRequest<Bytes>, request: Request<()>) -> Response<()> {
    let mut sender = sender.ready().await.expect("ready");
    let (answer, mut send) = sender.send_request(request, false).expect("sends");
    let (parts, mut body) = answer.await.expect("answers").into_parts();
    if parts.status == 200 {
        assert_eq!(body.data().await.expect("some").expect("whole"), "hello");
        send.send_data(Bytes::from_static(b"ping"), false).expect("sends");
        assert_eq!(body.data().await.expect("some").expect("whole"), "ping");
        send.send_data(Bytes::new(), true).expect("sends");
        // The end may come in a frame of its own.
        while let Some(rest) = body.data().await {
            assert!(rest.expect("in order").is_empty());
        }
    }
    Response::from_parts(parts, ())
}

async fn websocket(proxy: &Proxy) -> Response<()> {
    extended(proxy, "websocket").await
}

async fn extended(proxy: &Proxy, protocol: &'static str) -> Response<()> {
    let sender = connect(proxy.address("edge")).await.ready().await.expect("ready");
    while !sender.is_extended_connect_protocol_enabled() {
        tokio::task::yield_now().await;
    }
    let mut request = Request::builder().method("CONNECT").uri("http://test/chat").body(()).expect("well-formed");
    request.extensions_mut().insert(Protocol::from_static(protocol));
    tunnel(sender, request).await
}

#[test]
fn an_extended_connect_passes_to_http2() {
    let origin = with_connect();
    let proxy = one_worker(&origin.config("", "", ""));
    let answer = run(websocket(&proxy));
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["x-asked"], "Some(\"websocket\") http://test/chat");
    eventually("the stream is over", || proxy.metric("onehop_cluster_active", "") == 0.0);
}

/// It holds the place of a request for as long as it is open, whichever versions it passes.
#[test]
fn a_tunnel_is_a_request_under_way() {
    let http1 = Origin::start(|connection| {
        while let Some(head) = connection.head() {
            if !head.contains("Upgrade: websocket\r\n") {
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                continue;
            }
            connection.send("HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
            connection.wait_for_end();
            return;
        }
    });
    let http2 = Http2Origin::with_tunnels(|mut incoming| async move {
        let is_plain = incoming.request.method() != http::Method::CONNECT;
        let Ok(mut send) = incoming.respond.send_response(Response::new(()), is_plain) else { return };
        while let Some(Ok(_)) = incoming.request.body_mut().data().await {}
        if !is_plain {
            let _ = send.send_data(Bytes::new(), true);
        }
    });
    let route = "name = \"r\"\nlimits = { requests = 1 }";
    for config in [http1.config("", route, ""), http2.config("", route, "")] {
        let proxy = one_worker(&config);
        let status = || proxy.connect("edge").get("/").status;
        let active = || proxy.metric("onehop_cluster_active", "");
        let is_held = |name: &str| {
            assert_eq!((status(), active()), (503, 1.0), "{name}");
        };
        let is_free = |name: &str| eventually(name, || active() == 0.0 && status() == 200);
        is_free("at first");
        let mut client = proxy.connect("edge");
        client.send(UPGRADE);
        assert!(client.head().starts_with("HTTP/1.1 101 "));
        is_held("from HTTP/1");
        drop(client);
        is_free("from HTTP/1");
        run(async {
            let request = onehop_tests::http2::connect_to("http://test/chat", Some("websocket"));
            let (answer, send) = onehop_tests::http2::open_tunnel(proxy.address("edge"), request).await;
            assert_eq!(answer.status(), 200);
            is_held("from HTTP/2");
            drop((answer, send));
            // The client's own task has yet to say so.
            while active() != 0.0 {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        });
        is_free("from HTTP/2");
    }
}

/// To a client of HTTP/2 any success opens the tunnel (RFC 8441 5), so only an upstream's 101 may become one.
#[test]
fn an_extended_connect_is_no_request_for_content() {
    for (said, wanted) in
        [("200 OK", 502), ("204 No Content", 502), ("206 Partial Content", 502), ("403 Forbidden", 403)]
    {
        let origin = Origin::start(move |connection| {
            while let Some(head) = connection.head() {
                assert!(head.contains("Upgrade: websocket\r\n"), "{head}");
                let length = if said.starts_with("204") { "" } else { "Content-Length: 5\r\n" };
                let body = if length.is_empty() { "" } else { "hello" };
                connection.send(format!("HTTP/1.1 {said}\r\n{length}\r\n{body}"));
            }
        });
        let proxy = one_worker(&origin.config("", "", ""));
        let answer = run(websocket(&proxy));
        assert_eq!(answer.status(), wanted, "{said}");
        assert_eq!(answer.headers().contains_key("proxy-status"), wanted == 502, "{said}");
        eventually("the stream is over", || proxy.metric("onehop_cluster_active", "") == 0.0);
    }
    // Nor is it one for an answer of the route's own.
    let proxy = one_worker(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\nrespond = { status = 200, text = \"hello\" }\n",
    );
    assert_eq!(run(websocket(&proxy)).status(), 403);
}

#[test]
fn h2c_is_no_protocol_of_an_extended_connect() {
    let origin = Origin::start(|_| unreachable!("it was asked"));
    let proxy = one_worker(&origin.config("", "", ""));
    let answer = run(extended(&proxy, "h2c"));
    assert_eq!(answer.status(), 403);
    assert!(answer.headers()["proxy-status"].to_str().expect("text").contains("upgrade-refused"));
}

#[test]
fn an_upstream_that_takes_no_extended_connect_is_not_asked() {
    let origin = Http2Origin::start(|_| async { unreachable!("it was asked") });
    let proxy = one_worker(&origin.config("", "", ""));
    let refused = proxy.connect("edge").ask(UPGRADE);
    assert_eq!(refused.status, 403, "{}", refused.head);
    assert!(refused.text().contains("upgrade-refused"), "{}", refused.text());
    assert_eq!(run(websocket(&proxy)).status(), 403);
    // One that says nothing at all is waited for no longer than for a connection.
    let mute = Origin::start(|connection| connection.wait_for_end());
    let proxy = one_worker(&mute.config("", "", "protocol = \"http2\"\nconnect_timeout = \"200ms\""));
    assert_eq!(proxy.connect("edge").ask(UPGRADE).status, 403);
}

/// A forward proxy that speaks HTTP/1: it answers CONNECT, greets, and echoes four bytes.
fn forward_proxy() -> Origin {
    Origin::start(|connection| {
        let head = connection.head().unwrap_or_default();
        assert!(head.starts_with("CONNECT far.example:443 HTTP/1.1\r\n"), "{head}");
        assert!(!head.to_lowercase().contains("transfer-encoding"), "{head}");
        connection.send("HTTP/1.1 200 Established\r\n\r\nhello");
        let sent = connection.read(4);
        connection.send(sent);
        connection.finish();
        connection.wait_for_end();
    })
}

fn plain_connect() -> Request<()> {
    Request::builder().method("CONNECT").uri("far.example:443").body(()).expect("well-formed")
}

#[test]
fn plain_connect_in_all_pairings() {
    let (one, two) = (forward_proxy(), Http2Origin::start(echoes));
    for config in [one.config("", "connect = true", ""), two.config("", "connect = true", "")] {
        let proxy = one_worker(&config);
        let answer = run(async { tunnel(connect(proxy.address("edge")).await, plain_connect()).await });
        assert_eq!(answer.status(), 200);
        let mut client = proxy.connect("edge");
        client.send("CONNECT far.example:443 HTTP/1.1\r\nHost: far.example:443\r\n\r\n");
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(client.read(5), b"hello");
        client.send("ping");
        assert_eq!(client.read(4), b"ping");
        client.finish();
        assert!(client.is_closed());
    }
    // Not where it is not configured.
    let proxy = one_worker(&two.config("", "", ""));
    let answer = run(async { tunnel(connect(proxy.address("edge")).await, plain_connect()).await });
    assert_eq!(answer.status(), 405);
}
