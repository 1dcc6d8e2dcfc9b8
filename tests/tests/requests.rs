//! Requests and responses of every framing pass as they are.

use onehop_tests::{Client, Origin, Proxy, eventually};

fn through(origin: &Origin) -> Proxy {
    Proxy::start(&origin.config("", "", ""))
}

#[test]
fn connections_are_kept_on_both_sides() {
    let origin = Origin::echo();
    let proxy = Proxy::start_with(&origin.config("", "", ""), &["--workers", "1"], None);
    let mut client = proxy.connect("edge");
    for number in 0..20 {
        let response = client.get(&format!("/{number}"));
        assert_eq!((response.status, response.text()), (200, format!("/{number}")));
    }
    assert_eq!(origin.accepted(), 1);
    // The books are closed after the answer is out.
    eventually("every request is counted", || proxy.metric("onehop_route_requests_total", "") == 20.0);
    assert_eq!(proxy.metric("onehop_hop_seconds_count", ""), 20.0);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::echo();
    let proxy = through(&origin);
    let mut client = proxy.connect("edge");
    let requests: String = (0..50).map(|number| format!("GET /{number} HTTP/1.1\r\nHost: test\r\n\r\n")).collect();
    client.send(requests);
    for number in 0..50 {
        assert_eq!(client.response().text(), format!("/{number}"));
    }
}

#[test]
fn request_bodies_of_both_framings_arrive() {
    let origin = Origin::echo();
    let proxy = through(&origin);
    let mut client = proxy.connect("edge");
    let large = "x".repeat(300_000);
    let response =
        client.ask(format!("POST /l HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n{large}", large.len()));
    assert_eq!((response.status, response.field("X-Body")), (200, Some("300000")));
    // Extensions and trailers pass; the framing is relayed byte for byte.
    let chunked = "5;note=1\r\nhello\r\n0\r\nX-Sum: 5\r\n\r\n";
    let response = client.ask(format!("POST /c HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"));
    assert_eq!((response.status, response.field("X-Body")), (200, Some(chunked.len().to_string().as_str())));
    assert_eq!(client.get("/after").text(), "/after");
}

fn fixed(response: &'static str) -> Origin {
    Origin::start(move |connection| {
        while connection.head().is_some() {
            connection.send(response);
        }
    })
}

#[test]
fn chunked_responses_keep_their_trailers() {
    let origin = fixed(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-End: yes\r\nContent-Length: 1\r\n\r\n",
    );
    let proxy = through(&origin);
    let mut client = proxy.connect("edge");
    for _ in 0..3 {
        let response = client.get("/");
        assert_eq!((response.text().as_str(), response.whole), ("abc", true));
        assert_eq!(response.trailers.trim(), "X-End: yes");
    }
}

#[test]
fn close_delimited_responses_become_chunked() {
    let origin = Origin::start(|connection| {
        connection.head();
        connection.send("HTTP/1.0 200 OK\r\n\r\nuntil the end");
        connection.finish();
    });
    let proxy = through(&origin);
    let mut client = proxy.connect("edge");
    let response = client.get("/");
    assert_eq!((response.text().as_str(), response.whole), ("until the end", true));
    assert!(response.field("transfer-encoding").is_some());
    assert_eq!(client.get("/again").text(), "until the end");
}

#[test]
fn heads_without_bodies_leave_the_connection_usable() {
    let origin = Origin::start(|connection| {
        while let Some(head) = connection.head() {
            let answer = match head.split(' ').nth(1) {
                Some("/204") => "HTTP/1.1 204 No Content\r\n\r\n",
                Some("/304") => "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
                Some("/early") => {
                    "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
                }
                _ if head.starts_with("HEAD ") => "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            };
            connection.send(answer);
        }
    });
    let proxy = through(&origin);
    let mut client = proxy.connect("edge");
    client.send("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n");
    let head = client.response_to("HEAD");
    assert_eq!((head.status, head.field("content-length")), (200, Some("99")));
    assert_eq!(client.get("/204").status, 204);
    assert_eq!(client.get("/304").status, 304);
    let hint = client.get("/early");
    assert_eq!((hint.status, hint.field("link")), (103, Some("</a>")));
    assert_eq!(client.response().text(), "ok");
    assert_eq!(client.get("/").text(), "ok");
}

#[test]
fn an_expecting_client_is_told_to_go_on_by_the_upstream() {
    let origin = Origin::start(|connection| {
        while let Some(head) = connection.head() {
            if head.contains("/refuse") {
                connection.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n");
                continue;
            }
            connection.send("HTTP/1.1 100 Continue\r\n\r\n");
            let body = connection.body(&head);
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()));
            connection.send(body);
        }
    });
    let proxy = through(&origin);
    let request =
        |path: &str| format!("PUT {path} HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    let mut client = proxy.connect("edge");
    assert_eq!(client.ask(request("/")).status, 100);
    assert_eq!(client.ask("body").text(), "body");
    let refused = client.ask(request("/refuse"));
    assert_eq!((refused.status, refused.field("connection")), (417, Some("close")));
}

#[test]
fn an_old_client_gets_what_it_understands() {
    let origin = fixed("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    let proxy = through(&origin);
    let mut client = proxy.connect("edge");
    let response = client.ask("GET / HTTP/1.0\r\n\r\n");
    assert_eq!((response.text().as_str(), response.field("transfer-encoding")), ("abc", None));
    assert!(client.is_closed());
    let origin = Origin::echo();
    let proxy = through(&origin);
    let mut client = proxy.connect("edge");
    let keep = "GET /k HTTP/1.0\r\nHost: test\r\nConnection: keep-alive\r\n\r\n";
    assert_eq!(client.ask(keep).field("connection"), Some("keep-alive"));
    assert_eq!(client.ask(keep).text(), "/k");
}

#[test]
fn a_websocket_is_tunnelled_and_h2c_is_not() {
    let origin = Origin::start(|connection| {
        while let Some(head) = connection.head() {
            if onehop_tests::Client::wants_upgrade(&head) {
                connection
                    .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi");
                let bytes = connection.read(5);
                connection.send(bytes);
                connection.wait_for_end();
                return;
            }
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain");
        }
    });
    let proxy = through(&origin);
    let upgrade = |protocol: &str| {
        format!("GET /ws HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n")
    };
    let mut client = proxy.connect("edge");
    let response = client.ask(upgrade("websocket"));
    assert_eq!((response.status, response.field("upgrade")), (101, Some("websocket")));
    assert_eq!(client.read(2), b"hi");
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
    assert_eq!(proxy.connect("edge").ask(upgrade("h2c")).text(), "plain");
    assert_eq!(proxy.connect("edge").ask(upgrade("other")).status, 403);
    assert_eq!(proxy.connect("edge").ask("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n").status, 405);
}

#[test]
fn both_bodies_of_one_exchange_move_at_the_same_time() {
    let origin = Origin::start(|connection| {
        connection.head();
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n");
        for _ in 0..3 {
            let part = connection.read(2);
            connection.send(part);
        }
        connection.wait_for_end();
    });
    let proxy = through(&origin);
    let mut client: Client = proxy.connect("edge");
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 6\r\n\r\nab");
    assert!(client.head().starts_with("HTTP/1.1 200"));
    assert_eq!(client.read(2), b"ab");
    client.send("cd");
    assert_eq!(client.read(2), b"cd");
    client.send("ef");
    assert_eq!(client.read(2), b"ef");
}

#[test]
fn connect_is_refused_unless_configured_and_then_tunnelled() {
    let proxies = || {
        Origin::start(|connection| {
            let head = connection.head().unwrap_or_default();
            assert!(head.starts_with("CONNECT far.example:443 HTTP/1.1\r\n"), "{head}");
            // Framing fields of such an answer mean nothing.
            connection.send("HTTP/1.1 200 Established\r\nContent-Length: 5\r\n\r\n");
            let sent = connection.read(4);
            connection.send(sent);
            connection.finish();
            connection.wait_for_end();
        })
    };
    let request = "CONNECT far.example:443 HTTP/1.1\r\nHost: far.example:443\r\n\r\n";
    let origin = proxies();
    let proxy = through(&origin);
    let response = proxy.connect("edge").ask(request);
    assert_eq!((response.status, origin.accepted()), (405, 0), "{}", response.head);
    let proxy = Proxy::start(&proxies().config("", "connect = true", ""));
    let mut client = proxy.connect("edge");
    client.send(request);
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 200 ") && !head.contains("Content-Length"), "{head}");
    client.send("ping");
    assert_eq!(client.read(4), b"ping");
    assert!(client.is_closed());
    // A refusal is a plain response.
    let origin = fixed("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let proxy = Proxy::start(&origin.config("", "connect = true", ""));
    assert_eq!(proxy.connect("edge").ask(request).text(), "no");
}
