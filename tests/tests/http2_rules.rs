//! Each rule of RFC 9113 that a client can break, with the error code and the scope that it gets, and that other
//! connections do not notice.

use onehop_tests::frames::{Frames, GET, POST, Verdict, block, frame};
use onehop_tests::{Client, Origin, Proxy};

const PROTOCOL: u32 = 1;
const FLOW: u32 = 3;
const CLOSED: u32 = 5;
const SIZE: u32 = 6;
const COMPRESSION: u32 = 9;

fn proxy() -> (Origin, Proxy) {
    let origin = Origin::echo();
    let proxy = Proxy::start_with(&origin.config("", "", ""), &["--workers", "1"], None);
    (origin, proxy)
}

fn verdict(proxy: &Proxy, send: impl FnOnce(&mut Frames)) -> Verdict {
    let mut client = Frames::connect(proxy.address("edge"));
    send(&mut client);
    client.verdict()
}

#[test]
fn errors_of_the_connection() {
    let (_origin, proxy) = proxy();
    type Case = (&'static str, fn(&mut Frames), u32);
    let cases: [Case; 14] = [
        ("DATA on stream 0 (6.1)", |client| client.send(frame(0, 0, 0, b"x")), PROTOCOL),
        ("HEADERS on stream 0 (6.2)", |client| client.headers(0, &GET, true), PROTOCOL),
        ("HEADERS on an even stream (5.1.1)", |client| client.headers(2, &GET, true), PROTOCOL),
        (
            "a lower stream than the last (5.1.1)",
            |client| {
                client.headers(5, &GET, true);
                client.headers(3, &GET, true);
            },
            PROTOCOL,
        ),
        ("DATA on an idle stream (5.1)", |client| client.send(frame(0, 0, 7, b"x")), PROTOCOL),
        ("RST_STREAM on an idle stream (6.4)", |client| client.send(frame(3, 0, 7, &[0; 4])), PROTOCOL),
        ("RST_STREAM of five bytes (6.4)", |client| client.send(frame(3, 0, 1, &[0; 5])), SIZE),
        ("SETTINGS of five bytes (6.5)", |client| client.send(frame(4, 0, 0, &[0; 5])), SIZE),
        ("SETTINGS on a stream (6.5)", |client| client.send(frame(4, 0, 1, &[])), PROTOCOL),
        ("ENABLE_PUSH of 2 (6.5.2)", |client| client.send(frame(4, 0, 0, &[0, 2, 0, 0, 0, 2])), PROTOCOL),
        ("PING of seven bytes (6.7)", |client| client.send(frame(6, 0, 0, &[0; 7])), SIZE),
        ("a header block that is no HPACK (4.3)", |client| client.send(frame(1, 5, 1, &[0xff; 8])), COMPRESSION),
        (
            "another frame within a header block (6.10)",
            |client| {
                client.send(frame(1, 0, 1, &block(&GET)));
                client.send(frame(6, 0, 0, &[0; 8]));
            },
            PROTOCOL,
        ),
        ("CONTINUATION without HEADERS (6.10)", |client| client.send(frame(9, 4, 1, &block(&GET))), PROTOCOL),
    ];
    for (name, send, code) in cases {
        let got = verdict(&proxy, send);
        // The `h2` crate calls a broken header block a PROTOCOL_ERROR.
        let as_h2 = code == COMPRESSION && got == Verdict::Connection(PROTOCOL);
        assert!(as_h2 || got == Verdict::Connection(code), "{name}: {got:?}");
    }
    let oversized = verdict(&proxy, |client| client.send(frame(0, 0, 1, &vec![0; 20_000])));
    assert_eq!(oversized, Verdict::Connection(SIZE), "a frame beyond SETTINGS_MAX_FRAME_SIZE (4.2)");
    let window = verdict(&proxy, |client| {
        client.send(frame(8, 0, 0, &0x7fff_ffffu32.to_be_bytes()));
        client.send(frame(8, 0, 0, &0x7fff_ffffu32.to_be_bytes()));
    });
    assert_eq!(window, Verdict::Connection(FLOW), "a window beyond 2^31-1 (6.9.1)");
    let mut broken = Frames::bare(proxy.address("edge"));
    broken.send(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n");
    assert!(matches!(broken.verdict(), Verdict::Closed | Verdict::Connection(PROTOCOL)), "a broken preface (3.4)");
    assert_eq!(Client::connect(proxy.address("edge")).get("/after").status, 200);
}

#[test]
fn errors_of_a_stream() {
    let (_origin, proxy) = proxy();
    let with = |extra: &'static [(&'static str, &'static str)]| [&GET[..], extra].concat();
    let cases: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("an upper-case name (8.2.1)", with(&[("Accept", "x")])),
        ("a space in a name (8.2.1)", with(&[("a b", "x")])),
        ("CR and LF in a value (8.2.1)", with(&[("a", "x\r\nevil: 1")])),
        ("NUL in a value (8.2.1)", with(&[("a", "x\0")])),
        ("a value that begins with a space (8.2.1)", with(&[("a", " x")])),
        ("Connection (8.2.2)", with(&[("connection", "close")])),
        ("Transfer-Encoding (8.2.2)", with(&[("transfer-encoding", "chunked")])),
        ("Upgrade (8.2.2)", with(&[("upgrade", "h2c")])),
        ("TE other than trailers (8.2.2)", with(&[("te", "gzip")])),
        ("a pseudo-header field after a field (8.3)", vec![GET[0], GET[1], GET[2], ("a", "x"), GET[3]]),
        ("an unknown pseudo-header field (8.3)", with(&[(":a", "x")])),
        ("a doubled :path (8.3)", with(&[(":path", "/x")])),
        ("a pseudo-header field of responses (8.3)", with(&[(":status", "200")])),
        ("no :method (8.3.1)", GET[1..].to_vec()),
        ("no :scheme (8.3.1)", vec![GET[0], GET[2], GET[3]]),
        ("no :path (8.3.1)", GET[..3].to_vec()),
        ("an empty :path (8.3.1)", vec![GET[0], GET[1], GET[2], (":path", "")]),
        ("a space in :path", vec![GET[0], GET[1], GET[2], (":path", "/a b")]),
        ("a line's end in :path", vec![GET[0], GET[1], GET[2], (":path", "/ HTTP/1.1\r\nx: y")]),
        ("no authority and no host", vec![GET[0], GET[1], GET[3]]),
        ("Host that differs (8.3.1)", with(&[("host", "other")])),
        ("two lengths (8.1.1)", with(&[("content-length", "0"), ("content-length", "0")])),
        ("a length that is no number (8.1.1)", with(&[("content-length", "x")])),
        ("a length without content (8.1.1)", with(&[("content-length", "5")])),
        (":path in CONNECT (8.5)", vec![(":method", "CONNECT"), (":authority", "a:1"), (":path", "/")]),
    ];
    for (name, fields) in cases {
        let mut client = Frames::connect(proxy.address("edge"));
        client.headers(1, &fields, true);
        match client.verdict() {
            // RFC 9113 5.4.2 lets a connection end for it; the `h2` crate does where HPACK gives no valid name or value.
            Verdict::Connection(PROTOCOL) if name.contains("8.2.1") || name.contains("8.3)") => {}
            verdict => {
                assert_eq!(verdict, Verdict::Stream(1, PROTOCOL), "{name}");
                // The connection goes on.
                client.headers(3, &GET, true);
                assert_eq!(client.verdict(), Verdict::Answered(3), "after {name}");
            }
        }
    }
}

/// RFC 9113 8.3.1: a request without `:authority` is to be taken if it has a Host field, as those have that were HTTP/1.
#[test]
fn host_stands_in_for_the_authority() {
    let origin = Origin::mirror();
    let proxy = Proxy::start_with(&origin.config("", "host = \"test\"", ""), &["--workers", "1"], None);
    let mut client = Frames::connect(proxy.address("edge"));
    client.headers(1, &[GET[0], GET[1], GET[3], ("host", "test")], true);
    assert_eq!(client.verdict(), Verdict::Answered(1));
    let seen = client.body();
    assert!(seen.starts_with("GET / HTTP/1.1\r\n") && seen.matches("\r\nHost: test\r\n").count() == 1, "{seen}");
}

/// Browsers send each cookie as a field of its own (RFC 9113 8.2.3): they are one field, which no count of fields bounds.
#[test]
fn a_cookie_may_come_in_many_crumbs() {
    let origin = Origin::mirror();
    let proxy = Proxy::start_with(&origin.config("", "", ""), &["--workers", "1"], None);
    let crumbs: Vec<String> = (0..300).map(|number| format!("c{number}=v")).collect();
    let with = |crumbs: &[String]| -> Vec<(String, String)> {
        let own = GET.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        own.chain(crumbs.iter().map(|crumb| ("cookie".to_owned(), crumb.clone()))).collect()
    };
    let send = |client: &mut Frames, stream, fields: &[(String, String)]| {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        client.headers(stream, &fields, true);
    };
    let mut client = Frames::connect(proxy.address("edge"));
    send(&mut client, 1, &with(&crumbs));
    assert_eq!(client.verdict(), Verdict::Answered(1));
    let seen = client.body();
    assert!(seen.contains(&format!("ookie: {}\r\n", crumbs.join("; "))), "{seen}");
}

#[test]
fn lengths_are_checked_against_data_and_nothing_is_smuggled() {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let heads = seen.clone();
    let origin = Origin::start(move |connection| {
        while let Some(head) = connection.head() {
            heads.lock().expect("unpoisoned").push(head.clone());
            connection.body(&head);
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let proxy = Proxy::start_with(&origin.config("", "", ""), &["--workers", "1"], None);
    let with_length = [&POST[..], &[("content-length", "5")]].concat();
    for data in [&b"1234"[..], b"1234GET /evil HTTP/1.1\r\n\r\n"] {
        let mut client = Frames::connect(proxy.address("edge"));
        client.headers(1, &with_length, false);
        client.send(frame(0, 1, 1, data));
        assert_eq!(client.verdict(), Verdict::Stream(1, PROTOCOL));
    }
    assert_eq!(Client::connect(proxy.address("edge")).get("/fine").status, 200);
    let seen = seen.lock().expect("unpoisoned");
    assert!(seen.iter().all(|head| !head.contains("evil")), "{seen:?}");
}

#[test]
fn data_after_the_end_and_zero_window_updates() {
    let (_origin, proxy) = proxy();
    let mut client = Frames::connect(proxy.address("edge"));
    client.headers(1, &GET, true);
    client.send(frame(0, 1, 1, b"x"));
    // The answer may be out before.
    let after = match client.verdict() {
        Verdict::Answered(1) => client.verdict(),
        verdict => verdict,
    };
    assert!(matches!(after, Verdict::Stream(1, CLOSED) | Verdict::Connection(CLOSED | PROTOCOL)), "{after:?}");
    let zero = verdict(&proxy, |client| client.send(frame(8, 0, 0, &[0; 4])));
    assert_eq!(zero, Verdict::Connection(PROTOCOL), "WINDOW_UPDATE of 0 on the connection (6.9)");
}

#[test]
fn too_large_heads_and_unexpected_expectations_are_answered() {
    let (_origin, proxy) = proxy();
    let long = "x".repeat(9000);
    let mut client = Frames::connect(proxy.address("edge"));
    client.headers(1, &[GET[0], GET[1], GET[2], (":path", &format!("/{long}"))], true);
    assert_eq!(client.verdict(), Verdict::Answered(1));
    client.headers(3, &[&POST[..], &[("content-length", "0"), ("expect", "miracles")]].concat(), true);
    assert_eq!(client.verdict(), Verdict::Answered(3));
    let many: Vec<(String, String)> = (0..110).map(|number| (format!("x-{number}"), "y".to_owned())).collect();
    let mut fields = GET.to_vec();
    fields.extend(many.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    client.headers(5, &fields, true);
    assert_eq!(client.verdict(), Verdict::Answered(5));
}
