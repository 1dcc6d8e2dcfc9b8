//! What two parsers could read differently is refused: exact status, a closed connection, counted by its rule.

use onehop_tests::{Origin, Proxy, eventually};

#[test]
fn ambiguous_requests_are_refused_by_name() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&origin.config("", "", ""));
    let long = "x".repeat(9000);
    let many = "A: b\r\n".repeat(120);
    let huge = "y".repeat(70_000);
    let with = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\n");
    let cases: Vec<(String, u16, &str)> = vec![
        (with("Content-Length: 5\r\nTransfer-Encoding: chunked"), 400, "length-and-transfer-encoding"),
        (with("Content-Length: 5\r\nContent-Length: 6"), 400, "bad-content-length"),
        (with("Content-Length: -1"), 400, "bad-content-length"),
        (with("Transfer-Encoding: gzip, chunked"), 501, "unknown-transfer-coding"),
        (with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), 400, "bad-transfer-encoding"),
        (with("Transfer-Encoding : chunked"), 400, "bad-field-name"),
        (with("X: a\r\n folded"), 400, "obs-fold"),
        (with("X: a\nY: b"), 400, "bare-lf"),
        (with("X: a\0b"), 400, "bad-field-value"),
        (with("Host: b"), 400, "duplicate-host"),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400, "missing-host"),
        ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, "host-mismatch"),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(), 505, "bad-version"),
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414, "request-line-too-long"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431, "too-many-fields"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {huge}\r\n\r\n"), 431, "head-too-large"),
        (
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
            400,
            "transfer-encoding-in-http-1.0",
        ),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\n\n".to_owned(), 400, "bare-lf"),
    ];
    for (request, status, rule) in &cases {
        let mut client = proxy.connect("edge");
        let response = client.ask(request);
        let shown: String = request.chars().take(120).collect();
        assert_eq!(response.status, *status, "{shown:?}: {}", response.head);
        assert!(
            response.field("proxy-status").is_some_and(|status| status.contains(rule)),
            "{shown:?}: {}",
            response.head
        );
        assert_eq!(response.field("connection"), Some("close"), "{shown:?}");
        assert!(client.is_closed(), "{shown:?} left the connection open");
        eventually("it is counted", || proxy.metric("onehop_listener_rejected_total", rule) >= 1.0);
    }
    assert_eq!(origin.accepted(), 0, "none of them may reach the origin");
}

#[test]
fn a_bad_chunk_ends_the_request_and_both_connections() {
    let origin = Origin::start(|connection| {
        if let Some(head) = connection.head() {
            connection.body(&head);
            connection.wait_for_end();
        }
    });
    let proxy = Proxy::start(&origin.config("", "", ""));
    for bad in ["x\r\n", "5 \r\nhello\r\n", "5\nhello\r\n", "5\r\nhelloX\r\n", "fffffffffffffffff\r\n"] {
        let mut client = proxy.connect("edge");
        let response =
            client.ask(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n{bad}"));
        assert_eq!(response.status, 400, "{bad:?}");
        assert!(client.is_closed(), "{bad:?}");
    }
}
