//! Malformed messages of clients (RFC 9113 8), beyond those of `http2_rules`: names and values, pseudo-header fields, CONNECT,
//! lengths, trailers. All are stream errors (8.1.1), but that `h2` ends the connection where HPACK gives no valid field.

use onehop_tests::Proxy;
use onehop_tests::frames::{Frames, GET, POST, Verdict, block, frame};
use onehop_tests::rules::{Case, judge};

const STREAM: Verdict = Verdict::Stream(1, 1);
const CONNECTION: Verdict = Verdict::Connection(1);

/// A request without a body whose fields are these.
macro_rules! head {
    ($name:literal, [$($field:expr),* $(,)?], $wanted:expr) => {
        ($name, (|client| client.headers(1, &[$($field),*], true)) as fn(&mut Frames), $wanted)
    };
}
/// The same with the fields of a GET before them.
macro_rules! get {
    ($name:literal, [$($field:expr),*], $wanted:expr) => {
        head!($name, [GET[0], GET[1], GET[2], GET[3], $($field),*], $wanted)
    };
}

#[test]
fn names_and_values() {
    let cases: Vec<Case> = vec![
        get!("a colon in a name (8.2.1)", [("a:b", "x")], CONNECTION),
        get!("an empty name (8.2.1)", [("", "x")], CONNECTION),
        get!("DEL in a name (8.2.1)", [("a\u{7f}", "x")], CONNECTION),
        get!("a control byte in a name (8.2.1)", [("a\u{1}", "x")], CONNECTION),
        get!("a byte beyond ASCII in a name (8.2.1)", [("a\u{e9}", "x")], CONNECTION),
        get!("LF in a value (8.2.1)", [("a", "x\nb")], CONNECTION),
        get!("CR in a value (8.2.1)", [("a", "x\rb")], CONNECTION),
        get!("a tab behind a value (8.2.1)", [("a", "x\t")], STREAM),
        get!("a control byte in a value", [("a", "x\u{1}")], CONNECTION),
        get!("Keep-Alive (8.2.2)", [("keep-alive", "timeout=5")], STREAM),
        get!("Proxy-Connection (8.2.2)", [("proxy-connection", "close")], STREAM),
        get!("TE of more than trailers (8.2.2)", [("te", "trailers, gzip")], STREAM),
        get!("HTTP2-Settings (RFC 7540 3.2.1)", [("http2-settings", "AAAA")], STREAM),
    ];
    judge(&cases);
}

#[test]
fn pseudo_header_fields() {
    const CONNECT: (&str, &str) = (":method", "CONNECT");
    const PROTOCOL: (&str, &str) = (":protocol", "websocket");
    let cases: Vec<Case> = vec![
        get!("a doubled :method (8.3)", [(":method", "GET")], STREAM),
        get!("a doubled :scheme (8.3)", [(":scheme", "http")], STREAM),
        get!("a doubled :authority (8.3)", [(":authority", "test")], STREAM),
        get!(":protocol without CONNECT (RFC 8441 4)", [PROTOCOL], STREAM),
        head!("a :path without a slash (8.3.1)", [GET[0], GET[1], GET[2], (":path", "x")], STREAM),
        head!("an asterisk in GET (8.3.1)", [GET[0], GET[1], GET[2], (":path", "*")], STREAM),
        // `http` drops it; it goes no further.
        head!("a fragment in :path", [GET[0], GET[1], GET[2], (":path", "/#x")], Verdict::Answered(1)),
        head!("a :scheme that is neither http nor https", [GET[0], (":scheme", "ftp"), GET[2], GET[3]], STREAM),
        head!("user information in :authority (8.3.1)", [GET[0], GET[1], (":authority", "u@test"), GET[3]], STREAM),
        head!("a space in :authority (8.3.1)", [GET[0], GET[1], (":authority", "a b"), GET[3]], STREAM),
        head!("an empty :method (8.3.1)", [(":method", ""), GET[1], GET[2], GET[3]], CONNECTION),
        head!("a space in :method (8.3.1)", [(":method", "GET /x"), GET[1], GET[2], GET[3]], CONNECTION),
        head!("CONNECT without an authority (8.5)", [CONNECT], STREAM),
        head!("CONNECT without a port (8.5)", [CONNECT, (":authority", "a")], STREAM),
        head!("CONNECT with :scheme (8.5)", [CONNECT, (":authority", "a:1"), GET[1]], STREAM),
        head!("CONNECT with a length (8.5)", [CONNECT, (":authority", "a:1"), ("content-length", "0")], STREAM),
        head!("an extended CONNECT without :scheme (RFC 8441 4)", [CONNECT, PROTOCOL, GET[2], GET[3]], STREAM),
        head!("an extended CONNECT without :path (RFC 8441 4)", [CONNECT, PROTOCOL, GET[1], GET[2]], STREAM),
        head!("an extended CONNECT without an authority (RFC 8441 4)", [CONNECT, PROTOCOL, GET[1], GET[3]], STREAM),
    ];
    judge(&cases);
}

#[test]
fn bodies_and_trailers() {
    fn post(client: &mut Frames, fields: &[(&str, &str)], rest: &[Vec<u8>]) {
        client.headers(1, &[&POST[..], fields].concat(), false);
        client.send(rest.concat());
    }
    let cases: Vec<Case> = vec![
        (
            "content where the length is 0 (8.1.1)",
            |client| post(client, &[("content-length", "0")], &[frame(0, 1, 1, b"x")]),
            STREAM,
        ),
        (
            "more than the length, in frames (8.1.1)",
            |client| post(client, &[("content-length", "5")], &[frame(0, 0, 1, b"123"), frame(0, 0, 1, b"456")]),
            STREAM,
        ),
        (
            "less than the length, and trailers (8.1.1)",
            |client| {
                let trailers = frame(1, 5, 1, &block(&[("a", "b")]));
                post(client, &[("content-length", "5")], &[frame(0, 0, 1, b"123"), trailers]);
            },
            STREAM,
        ),
        (
            "trailers that do not end (8.1)",
            |client| post(client, &[], &[frame(1, 4, 1, &block(&[("a", "b")]))]),
            STREAM,
        ),
        // `h2` leaves it out instead of refusing the message; it goes no further.
        (
            "trailers with a pseudo-header field (8.1)",
            |client| post(client, &[], &[frame(1, 5, 1, &block(&[(":path", "/x")]))]),
            Verdict::Answered(1),
        ),
        (
            "trailers with an upper-case name (8.2.1)",
            |client| post(client, &[], &[frame(1, 5, 1, &block(&[("A", "b")]))]),
            CONNECTION,
        ),
        (
            "trailers with Connection (8.2.2)",
            |client| post(client, &[], &[frame(1, 5, 1, &block(&[("connection", "close")]))]),
            STREAM,
        ),
        (
            "trailers with a space before a value (8.2.1)",
            |client| post(client, &[], &[frame(1, 5, 1, &block(&[("a", " b")]))]),
            STREAM,
        ),
        (
            "trailers in a tunnel (8.5)",
            |client| {
                client.headers(1, &[(":method", "CONNECT"), (":authority", "a:1")], false);
                assert_eq!(client.verdict(), Verdict::Answered(1));
                client.send(frame(1, 5, 1, &block(&[("a", "b")])));
            },
            STREAM,
        ),
    ];
    judge(&cases);
}

/// A tunnel's bytes in HTTP/1 have no trailers either: who is at the other end is told that it broke.
#[test]
fn trailers_of_an_upstreams_tunnel() {
    let (told, heard) = std::sync::mpsc::channel();
    let address = onehop_tests::frames::upstream(move |peer| {
        if let Some(stream) = peer.greet() {
            peer.send([frame(1, 4, stream, &block(&[(":status", "200")])), frame(0, 0, stream, b"hello")].concat());
            peer.send(frame(1, 5, stream, &block(&[("a", "b")])));
            // The test may have ended.
            let _ = told.send(peer.verdict());
        }
    });
    let config = onehop_tests::broken::config("", &[address]).replace("path = { exact = \"/0\" }", "connect = true");
    let proxy = Proxy::start_with(&config, &["--workers", "1"], None);
    let mut client = proxy.connect("edge");
    client.send("CONNECT far.test:443 HTTP/1.1\r\nHost: far.test:443\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 200 "));
    assert!(client.was_reset(), "what came of it is not whole");
    assert_eq!(heard.recv_timeout(std::time::Duration::from_secs(30)), Ok(Verdict::Stream(1, 1)));
}
