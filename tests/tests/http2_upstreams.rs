//! Upstreams that break HTTP/2, each rule that one can break (RFC 9113 3 to 8): the client of either version gets the right
//! status, or where the head went out already a reset (a cut body): never a hang, and never a cut body as a whole one. What
//! the upstream is told is checked as well.

use onehop_tests::broken::Got::{Cut, Late, Status, Whole};
use onehop_tests::broken::{Case, OK, Script, as_http2, begun, config, head, judge, stream};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use onehop_tests::Proxy;
use onehop_tests::frames::{Frames, Verdict, block, frame, upstream};

const PROTOCOL: Verdict = Verdict::Connection(1);
const FLOW: Verdict = Verdict::Connection(3);
const SIZE: Verdict = Verdict::Connection(6);

#[test]
fn malformed_heads() {
    // A stream error; or, where HPACK gives no field that `h2` could hold, one of the connection (5.4.1 allows it).
    const STREAM: Option<Verdict> = Some(Verdict::Stream(1, 1));
    const ALL: Option<Verdict> = Some(PROTOCOL);
    macro_rules! case {
        ($name:literal, [$($field:expr),*], $told:expr) => {
            ($name, (|peer, stream| peer.send(head(&[$($field),*], 4, stream))) as Script, Status(502), $told)
        };
    }
    let cases: Vec<Case> = vec![
        case!("no :status (8.3.2)", [("a", "b")], STREAM),
        case!("nothing at all (8.3.2)", [], STREAM),
        case!("two of :status (8.3)", [OK, OK], STREAM),
        case!(":status of text (8.3.2)", [(":status", "fine")], ALL),
        case!(":status of two digits (8.3.2)", [(":status", "20")], ALL),
        case!(":status 101 (8.6)", [(":status", "101")], STREAM),
        case!("an unknown pseudo-header field (8.3)", [OK, (":a", "b")], ALL),
        case!("a pseudo-header field behind a field (8.3)", [("a", "b"), OK], STREAM),
        case!("an upper-case name (8.2.1)", [OK, ("Server", "x")], ALL),
        case!("a space in a name (8.2.1)", [OK, ("a b", "x")], ALL),
        case!("a line's end in a value (8.2.1)", [OK, ("a", "x\r\nset-cookie: evil")], ALL),
        case!("NUL in a value (8.2.1)", [OK, ("a", "x\0")], ALL),
        case!("a space before a value (8.2.1)", [OK, ("a", " x")], STREAM),
        case!("Connection (8.2.2)", [OK, ("connection", "close")], STREAM),
        case!("Keep-Alive (8.2.2)", [OK, ("keep-alive", "timeout=5")], STREAM),
        case!("Proxy-Connection (8.2.2)", [OK, ("proxy-connection", "close")], STREAM),
        case!("Transfer-Encoding (8.2.2)", [OK, ("transfer-encoding", "chunked")], STREAM),
        case!("Upgrade (8.2.2)", [OK, ("upgrade", "h2c")], STREAM),
        case!("TE (8.2.2)", [OK, ("te", "trailers")], STREAM),
        case!("a length that is no number (8.1.1)", [OK, ("content-length", "x")], STREAM),
        case!("two lengths (8.1.1)", [OK, ("content-length", "0"), ("content-length", "1")], STREAM),
        // These end their stream, so there is none to be reset.
        (
            "a length and no content (8.1.1)",
            |peer, stream| {
                peer.send(head(&[OK, ("content-length", "5")], 5, stream));
            },
            Status(502),
            None,
        ),
        (
            "an interim response that ends (8.1)",
            |peer, stream| peer.send(head(&[(":status", "103")], 5, stream)),
            Status(502),
            None,
        ),
        // `h2` leaves it out instead of refusing the message; it goes no further.
        (":path in a response (8.3)", |peer, stream| peer.send(head(&[OK, (":path", "/")], 5, stream)), Whole, None),
    ];
    judge("", &cases);
}

#[test]
fn bodies_that_are_not_what_was_said() {
    let cases: Vec<Case> = vec![
        (
            "less than the length (8.1.1)",
            |peer, stream| {
                peer.send([head(&[OK, ("content-length", "5")], 4, stream), frame(0, 1, stream, b"123")].concat());
            },
            Late,
            stream(1),
        ),
        (
            "more than the length (8.1.1)",
            |peer, stream| {
                peer.send([head(&[OK, ("content-length", "5")], 4, stream), frame(0, 1, stream, b"1234567")].concat());
            },
            Late,
            stream(1),
        ),
        (
            "less than the length, and trailers (8.1.1)",
            |peer, stream| {
                let body = frame(0, 0, stream, b"123");
                peer.send(
                    [head(&[OK, ("content-length", "5")], 4, stream), body, head(&[("a", "b")], 5, stream)].concat(),
                );
            },
            Cut,
            None,
        ),
        // `h2` leaves it out instead of refusing the message; it goes no further.
        (
            "trailers with a pseudo-header field (8.1)",
            |peer, stream| {
                peer.send([begun(stream), head(&[OK], 5, stream)].concat());
            },
            Whole,
            None,
        ),
        (
            "trailers that do not end (8.1)",
            |peer, stream| {
                peer.send([begun(stream), head(&[("a", "b")], 4, stream)].concat());
            },
            Cut,
            stream(1),
        ),
        (
            "trailers with an upper-case name (8.2.1)",
            |peer, stream| {
                peer.send([begun(stream), head(&[("A", "b")], 5, stream)].concat());
            },
            Cut,
            Some(PROTOCOL),
        ),
        (
            "DATA before the head (8.1)",
            |peer, stream| peer.send(frame(0, 0, stream, b"x")),
            Status(502),
            Some(PROTOCOL),
        ),
        (
            "DATA between an interim head and the head (8.1)",
            |peer, stream| {
                peer.send([head(&[(":status", "103")], 4, stream), frame(0, 0, stream, b"x")].concat());
            },
            Status(502),
            Some(PROTOCOL),
        ),
        (
            "interim heads without end",
            |peer, stream| {
                peer.send(head(&[(":status", "103")], 4, stream).repeat(40));
            },
            Status(502),
            stream(8),
        ),
        (
            "HEADERS after the end (5.1)",
            |peer, stream| {
                peer.send([head(&[OK], 5, stream), head(&[("a", "b")], 5, stream)].concat());
            },
            Whole,
            None,
        ),
        (
            "DATA after the end (5.1)",
            |peer, stream| {
                peer.send([head(&[OK], 5, stream), frame(0, 1, stream, b"x")].concat());
            },
            Whole,
            None,
        ),
    ];
    judge("", &cases);
}

/// What would be a response of its own on a connection that is kept.
const SPLIT: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";

/// All bytes that an HTTP/1 client gets for two requests on one connection, `late` being called once the first head is here.
fn two_requests(proxy: &Proxy, path: &str, late: impl FnOnce()) -> String {
    let mut client = proxy.connect("edge");
    client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
    let mut all = client.head();
    late();
    client.send("GET /none HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    all.push_str(&String::from_utf8_lossy(&client.read(1 << 20)));
    all
}

#[test]
fn content_where_none_may_be_is_no_response_of_its_own() {
    for status in ["204", "304"] {
        let head_of = move |stream| head(&[(":status", status)], 4, stream);
        let at_once = upstream(move |peer| {
            if let Some(stream) = peer.greet() {
                peer.send([head_of(stream), frame(0, 1, stream, SPLIT)].concat());
                peer.verdict();
            }
        });
        let (go, waits) = channel::<()>();
        let waits = Arc::new(Mutex::new(waits));
        let behind = upstream(move |peer| {
            if let Some(stream) = peer.greet() {
                peer.send(head_of(stream));
                let _ = waits.lock().expect("no panic").recv();
                peer.send(frame(0, 1, stream, SPLIT));
                peer.verdict();
            }
        });
        // An end in a frame of its own, and trailers, are in order.
        let empty = upstream(move |peer| {
            let mut asked = peer.greet();
            while let Some(stream) = asked {
                peer.send([head_of(stream), frame(0, 0, stream, &[]), frame(0, 1, stream, &[])].concat());
                asked = peer.until(1).map(|head| head.stream);
            }
        });
        let trailers = upstream(move |peer| {
            let mut asked = peer.greet();
            while let Some(stream) = asked {
                peer.send([head_of(stream), head(&[("a", "b")], 5, stream)].concat());
                asked = peer.until(1).map(|head| head.stream);
            }
        });
        let proxy = Proxy::start_with(&config("", &[at_once, behind, empty, trailers]), &["--workers", "1"], None);
        let got = two_requests(&proxy, "/0", || ());
        assert!(!got.contains("evil"), "{status}: {got}");
        let got = two_requests(&proxy, "/1", || go.send(()).expect("it waits"));
        assert!(got.starts_with(&format!("HTTP/1.1 {status} ")) && !got.contains("evil"), "{status}: {got}");
        assert!(!got.contains("404"), "{status}: the connection goes on: {got}");
        for path in ["/2", "/3"] {
            let got = two_requests(&proxy, path, || ());
            assert!(got.starts_with(&format!("HTTP/1.1 {status} ")), "{status} {path}: {got}");
            assert_eq!(got.matches("HTTP/1.1 404 ").count(), 1, "{status} {path}: {got}");
            assert!(!got.to_lowercase().contains("a: b"), "{status} {path}: {got}");
        }
        assert_eq!(as_http2(&proxy, "/0"), Cut, "{status}");
        go.send(()).expect("it waits");
        assert_eq!(as_http2(&proxy, "/1"), Cut, "{status}");
        assert_eq!((as_http2(&proxy, "/2"), as_http2(&proxy, "/3")), (Whole, Whole), "{status}");
    }
}

#[test]
fn frames_that_end_the_connection() {
    let cases: Vec<Case> = vec![
        ("DATA on an idle stream (5.1)", |peer, _| peer.send(frame(0, 0, 7, b"x")), Status(502), Some(PROTOCOL)),
        ("DATA on stream 0 (6.1)", |peer, _| peer.send(frame(0, 0, 0, b"x")), Status(502), Some(PROTOCOL)),
        ("HEADERS on an idle stream (5.1)", |peer, _| peer.send(head(&[OK], 5, 7)), Status(502), Some(PROTOCOL)),
        ("HEADERS on a stream of its own (5.1.1)", |peer, _| peer.send(head(&[OK], 5, 2)), Status(502), Some(PROTOCOL)),
        (
            "RST_STREAM on an idle stream (6.4)",
            |peer, _| peer.send(frame(3, 0, 7, &[0; 4])),
            Status(502),
            Some(PROTOCOL),
        ),
        (
            "PUSH_PROMISE, which was refused (6.6)",
            |peer, stream| {
                peer.send(frame(5, 4, stream, &[&[0, 0, 0, 2][..], &block(&onehop_tests::frames::GET)].concat()));
            },
            Status(502),
            Some(PROTOCOL),
        ),
        (
            "CONTINUATION without HEADERS (6.10)",
            |peer, stream| peer.send(frame(9, 4, stream, &block(&[OK]))),
            Status(502),
            Some(PROTOCOL),
        ),
        (
            "another frame within a header block (6.10)",
            |peer, stream| {
                peer.send([head(&[OK], 1, stream), frame(6, 0, 0, &[0; 8])].concat());
            },
            Status(502),
            Some(PROTOCOL),
        ),
        (
            "more padding than DATA (6.1)",
            |peer, stream| {
                peer.send([head(&[OK], 4, stream), frame(0, 9, stream, &[5, 0])].concat());
            },
            Late,
            Some(PROTOCOL),
        ),
        (
            "a header block that is no HPACK (4.3)",
            |peer, stream| peer.send(frame(1, 5, stream, &[0xff; 8])),
            Status(502),
            Some(PROTOCOL),
        ),
        (
            "ENABLE_PUSH of 1 (6.5.2)",
            |peer, stream| peer.send([frame(4, 0, 0, &[0, 2, 0, 0, 0, 1]), head(&[OK], 5, stream)].concat()),
            Status(502),
            Some(PROTOCOL),
        ),
        (
            "ENABLE_PUSH of 0 (6.5.2)",
            |peer, stream| peer.send([frame(4, 0, 0, &[0, 2, 0, 0, 0, 0]), head(&[OK], 5, stream)].concat()),
            Whole,
            None,
        ),
        (
            "INITIAL_WINDOW_SIZE of 2^31 (6.5.2)",
            |peer, _| peer.send(frame(4, 0, 0, &[0, 4, 0x80, 0, 0, 0])),
            Status(502),
            Some(Verdict::Connection(3)),
        ),
        (
            "MAX_FRAME_SIZE of 0 (6.5.2)",
            |peer, _| peer.send(frame(4, 0, 0, &[0, 5, 0, 0, 0, 0])),
            Status(502),
            Some(PROTOCOL),
        ),
        ("WINDOW_UPDATE of 0 (6.9)", |peer, _| peer.send(frame(8, 0, 0, &[0; 4])), Status(502), Some(PROTOCOL)),
        (
            "a window beyond 2^31-1 (6.9.1)",
            |peer, _| peer.send(frame(8, 0, 0, &[0x7f, 255, 255, 255]).repeat(2)),
            Status(502),
            Some(FLOW),
        ),
        (
            "a frame beyond MAX_FRAME_SIZE (4.2)",
            |peer, stream| {
                peer.send([head(&[OK], 4, stream), frame(0, 0, stream, &[0; 16_385])].concat());
            },
            Late,
            Some(SIZE),
        ),
        ("SETTINGS of five bytes (6.5)", |peer, _| peer.send(frame(4, 0, 0, &[0; 5])), Status(502), Some(SIZE)),
        ("PING of seven bytes (6.7)", |peer, _| peer.send(frame(6, 0, 0, &[0; 7])), Status(502), Some(SIZE)),
        ("WINDOW_UPDATE of three bytes (6.9)", |peer, _| peer.send(frame(8, 0, 0, &[0; 3])), Status(502), Some(SIZE)),
        (
            "RST_STREAM of three bytes (6.4)",
            |peer, stream| peer.send(frame(3, 0, stream, &[0; 3])),
            Status(502),
            Some(SIZE),
        ),
        (
            "PING without end",
            |peer, _| peer.send(frame(6, 0, 0, &[0; 8]).repeat(4000)),
            Status(502),
            Some(Verdict::Connection(11)),
        ),
        (
            "SETTINGS without end",
            |peer, _| peer.send(frame(4, 0, 0, &[]).repeat(2000)),
            Status(502),
            Some(Verdict::Connection(11)),
        ),
        ("random bytes", |peer, _| peer.send([0x5a; 4000]), Status(502), Some(SIZE)),
    ];
    judge("", &cases);
}

#[test]
fn more_data_than_there_is_credit_for() {
    let cases: Vec<Case> = vec![(
        "more DATA than its window (6.9.1)",
        |peer, stream| {
            // 64 KiB, the usual window, and then as much again and again: more than can have been passed on is sent at once.
            let mut all = head(&[OK], 4, stream);
            for _ in 0..2000 {
                all.extend(frame(0, 0, stream, &[0; 16_384]));
            }
            peer.send(all);
        },
        Cut,
        None,
    )];
    judge("", &cases);
}

#[test]
fn header_blocks_that_are_too_large() {
    fn large(peer: &mut Frames, stream: u32, count: usize) {
        let value = "x".repeat(4000);
        let fields = [&[OK][..], &vec![("a", value.as_str()); count]].concat();
        let block = block(&fields);
        let mut parts = block.chunks(16_384).peekable();
        let mut kind = 1;
        while let Some(part) = parts.next() {
            let end = if parts.peek().is_none() { 4 } else { 0 };
            peer.send(frame(kind, if kind == 1 { end | 1 } else { end }, stream, part));
            kind = 9;
        }
    }
    let cases: Vec<Case> = vec![
        ("more than the listener takes (10.5.1)", |peer, stream| large(peer, stream, 30), Status(502), None),
        ("more than any listener takes (10.5.1)", |peer, stream| large(peer, stream, 400), Status(502), None),
    ];
    judge("", &cases);
}
