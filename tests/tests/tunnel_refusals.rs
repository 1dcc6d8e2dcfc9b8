//! Requests for tunnels that meet an answer of ours: a success would look like an open tunnel, whose bytes nobody relays
//! (RFC 9110 9.3.6, RFC 8441 5); whatever else is said goes as it is.

use onehop_tests::http2::{connect_to, open_tunnel, run};
use onehop_tests::{Client, Origin, Proxy};

/// What a client that asks for a tunnel gets from a route: status, and our reason if it is a failure.
type Said = (u16, Option<&'static str>);

fn proxy(route: &str) -> Proxy {
    let config = format!("[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\n{route}\n");
    Proxy::start_with(&config, &["--workers", "1"], None)
}

fn said(status: u16, proxy_status: Option<&str>) -> (u16, Option<String>) {
    let reason = proxy_status.and_then(|text| text.split('"').nth(1));
    (status, reason.map(str::to_owned))
}

fn plain_over_http1(proxy: &Proxy, fields: &str) -> (u16, Option<String>) {
    let mut client = proxy.connect("edge");
    let answer = client.ask(format!("CONNECT far.test:443 HTTP/1.1\r\nHost: far.test:443\r\n{fields}\r\n"));
    assert!(answer.whole);
    said(answer.status, answer.field("proxy-status"))
}

fn over_http2(proxy: &Proxy, protocol: Option<&'static str>, kind: Option<&str>) -> (u16, Option<String>) {
    run(async {
        let uri = if protocol.is_some() { "http://far.test/chat" } else { "far.test:443" };
        let mut request = connect_to(uri, protocol);
        if let Some(kind) = kind {
            request.headers_mut().insert("content-type", kind.parse().expect("a value"));
        }
        let (answer, _open) = open_tunnel(proxy.address("edge"), request).await;
        let text = answer.headers().get("proxy-status").map(|value| value.to_str().expect("text").to_owned());
        let status = answer.status().as_u16();
        let mut body = answer.into_body();
        while let Some(chunk) = body.data().await {
            let _ = body.flow_control().release_capacity(chunk.expect("whole").len());
        }
        said(status, text.as_deref())
    })
}

fn wanted((status, reason): Said) -> (u16, Option<String>) {
    (status, reason.map(str::to_owned))
}

#[test]
fn a_route_that_answers_by_itself_opens_no_tunnel() {
    let refused: Said = (405, Some("connect-method-refused"));
    let not_upgraded: Said = (403, Some("upgrade-refused"));
    for (route, plain, extended) in [
        ("respond = { status = 200, text = \"hello\" }", refused, not_upgraded),
        ("respond = { status = 204 }", refused, not_upgraded),
        ("connect = true\nrespond = { status = 200, text = \"hello\" }", refused, not_upgraded),
        ("respond = { status = 404, text = \"no\" }", (404, None), (404, None)),
        ("respond = { status = 503 }", (503, None), (503, None)),
        ("redirect = { status = 308, host = \"other.test\" }", (308, None), (308, None)),
    ] {
        let proxy = proxy(route);
        assert_eq!(plain_over_http1(&proxy, ""), wanted(plain), "{route}");
        assert_eq!(over_http2(&proxy, None, None), wanted(plain), "{route}");
        assert_eq!(over_http2(&proxy, Some("websocket"), None), wanted(extended), "{route}");
        // A call has no tunnel, and so a tunnel is no call, whose failures are a success to HTTP.
        for kind in ["application/grpc", "application/grpc-web+proto"] {
            assert_eq!(plain_over_http1(&proxy, &format!("Content-Type: {kind}\r\n")), wanted(plain), "{route}");
            assert_eq!(over_http2(&proxy, None, Some(kind)), wanted(plain), "{route}");
            assert_eq!(over_http2(&proxy, Some("websocket"), Some(kind)), wanted(extended), "{route}");
        }
    }
}

#[test]
fn no_failure_opens_a_tunnel() {
    let origin = Origin::start(|_| unreachable!("it was asked"));
    for (route, plain, extended) in [
        ("path = { prefix = \"/x\" }", (404, Some("no-route")), (404, Some("no-route"))),
        ("connect = true\nfaults = [{ abort = 200 }]", (503, Some("fault-injected")), (503, Some("fault-injected"))),
        ("connect = true\nfaults = [{ abort = 418 }]", (418, Some("fault-injected")), (418, Some("fault-injected"))),
        ("upgrade = []", (405, Some("connect-method-refused")), (403, Some("upgrade-refused"))),
    ] {
        let proxy = Proxy::start_with(&origin.config("", route, ""), &["--workers", "1"], None);
        for kind in [None, Some("application/grpc"), Some("application/grpc-web-text")] {
            let fields = kind.map_or_else(String::new, |kind| format!("Content-Type: {kind}\r\n"));
            assert_eq!(plain_over_http1(&proxy, &fields), wanted(plain), "{route} {kind:?}");
            assert_eq!(over_http2(&proxy, None, kind), wanted(plain), "{route} {kind:?}");
            assert_eq!(over_http2(&proxy, Some("websocket"), kind), wanted(extended), "{route} {kind:?}");
        }
    }
}

/// In HTTP/1 an upgrade may be passed over (RFC 9110 7.8): the answer is one to the request, and the connection goes on.
#[test]
fn an_upgrade_that_meets_an_answer_of_ours_is_a_request() {
    for (route, status, body) in [
        ("respond = { status = 200, text = \"hello\" }", 200, "hello"),
        ("respond = { status = 403, text = \"no\" }", 403, "no"),
        ("redirect = { status = 307, host = \"other.test\" }", 307, ""),
    ] {
        let proxy = proxy(route);
        let mut client = Client::connect(proxy.address("edge"));
        for _ in 0..2 {
            let answer = client.ask("GET /chat HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
            assert_eq!((answer.status, answer.text().as_str()), (status, body), "{route}");
            assert_eq!(
                (answer.field("upgrade"), answer.field("sec-websocket-accept")),
                (None, None),
                "{}",
                answer.head
            );
            assert_eq!(answer.field("location").is_some(), status == 307, "{}", answer.head);
        }
    }
}
