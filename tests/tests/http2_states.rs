//! What a connection's state comes to when streams break rules or end: the state of header compression is everybody's, credit
//! is given for padding, and what comes late is no error (RFC 9113 4.3, 5.1, 6).

use std::sync::{Arc, Mutex};

use onehop_tests::frames::{Frames, GET, POST, Verdict, block, frame};
use onehop_tests::rules::{Case, judge};
use onehop_tests::{Origin, Proxy};

fn proxy(origin: &Origin, listener: &str) -> Proxy {
    Proxy::start_with(&origin.config(listener, "", ""), &["--workers", "1"], None)
}

/// A block that enters a field into the dynamic table (RFC 7541 6.2.1), behind others.
fn with_indexed(fields: &[(&str, &str)], name: &str, value: &str) -> Vec<u8> {
    let mut block = block(fields);
    block.extend([0x40, name.len() as u8]);
    block.extend(name.as_bytes());
    block.push(value.len() as u8);
    block.extend(value.as_bytes());
    block
}

/// A GET and the latest field of the dynamic table.
fn get_with_latest() -> Vec<u8> {
    [&block(&GET)[..], &[0xbe]].concat()
}

/// 4.3: a block is decoded whatever becomes of its stream, since those behind it build on it.
#[test]
fn compression_goes_on_behind_streams_that_are_refused() {
    let origin = Origin::mirror();
    let proxy = proxy(&origin, "");
    let long = format!("/{}", "x".repeat(9000));
    let cases = [
        ("malformed", [&GET[..], &[("connection", "close")]].concat(), Verdict::Stream(1, 1)),
        ("a length and no content", [&GET[..], &[("content-length", "5")]].concat(), Verdict::Stream(1, 1)),
        ("too long a target", vec![GET[0], GET[1], GET[2], (":path", &long)], Verdict::Answered(1)),
    ];
    for (name, fields, wanted) in cases {
        let mut client = Frames::connect(proxy.address("edge"));
        client.send(frame(1, 5, 1, &with_indexed(&fields, "x-kept", name)));
        assert_eq!(client.verdict(), wanted, "{name}");
        client.send(frame(1, 5, 3, &get_with_latest()));
        assert_eq!(client.verdict(), Verdict::Answered(3), "{name}");
        let seen = client.body();
        assert!(seen.contains(&format!("x-kept: {name}\r\n")), "{seen}");
    }
    // Reset by the client, and one stream more than there may be (5.1.2).
    let mut client = Frames::connect(proxy.address("edge"));
    client.send([frame(1, 4, 1, &with_indexed(&POST, "x-kept", "reset")), frame(3, 0, 1, &[0, 0, 0, 8])].concat());
    client.send(frame(1, 5, 3, &get_with_latest()));
    assert_eq!(client.verdict(), Verdict::Answered(3));
    assert!(client.body().contains("x-kept: reset\r\n"));
    let narrow = self::proxy(&origin, "http2 = { max_streams = 1 }");
    let mut client = Frames::connect(narrow.address("edge"));
    client.headers(1, &POST, false);
    client.send(frame(1, 5, 3, &with_indexed(&GET, "x-kept", "refused")));
    assert_eq!(client.verdict(), Verdict::Stream(3, 7));
    client.send(frame(0, 1, 1, b"x"));
    assert_eq!(client.verdict(), Verdict::Answered(1));
    client.body();
    client.send(frame(1, 5, 5, &get_with_latest()));
    assert_eq!(client.verdict(), Verdict::Answered(5));
    assert!(client.body().contains("x-kept: refused\r\n"));
}

#[test]
fn what_comes_late_or_is_unknown() {
    fn answered(client: &mut Frames) {
        client.headers(1, &GET, true);
        assert_eq!(client.verdict(), Verdict::Answered(1));
        client.body();
    }
    let cases: Vec<Case> = vec![
        (
            "RST_STREAM of a stream that has ended (5.1)",
            |client| {
                answered(client);
                client.send([frame(3, 0, 1, &[0, 0, 0, 8]), frame(1, 5, 3, &block(&GET))].concat());
            },
            Verdict::Answered(3),
        ),
        (
            "PRIORITY of a stream that has ended (5.1)",
            |client| {
                answered(client);
                client.send([frame(2, 0, 1, &[0, 0, 0, 0, 16]), frame(1, 5, 3, &block(&GET))].concat());
            },
            Verdict::Answered(3),
        ),
        (
            "RST_STREAM of an unknown code (7)",
            |client| {
                client.headers(1, &POST, false);
                client.send([frame(3, 0, 1, &[0xde, 0xad, 0, 1]), frame(1, 5, 3, &block(&GET))].concat());
            },
            Verdict::Answered(3),
        ),
        (
            "GOAWAY, and a stream that was opened before (6.8)",
            |client| client.send([frame(1, 5, 1, &block(&GET)), frame(7, 0, 0, &[0; 8])].concat()),
            Verdict::Answered(1),
        ),
        (
            "HEADERS of a stream that has ended (5.1)",
            |client| {
                answered(client);
                client.send(frame(1, 5, 1, &block(&GET)));
            },
            // STREAM_CLOSED of the connection in 5.1, PROTOCOL_ERROR for a lower number in 5.1.1.
            Verdict::Connection(1),
        ),
        (
            "CONTINUATION beyond MAX_FRAME_SIZE (4.2)",
            |client| client.send([frame(1, 1, 1, &block(&GET)), frame(9, 4, 1, &[0; 16_385])].concat()),
            Verdict::Connection(6),
        ),
        (
            "DATA behind trailers (5.1)",
            |client| {
                let (head, trailers) = (frame(1, 4, 1, &block(&POST)), frame(1, 5, 1, &block(&[("a", "b")])));
                client.send([head, trailers, frame(0, 1, 1, b"x")].concat());
            },
            // STREAM_CLOSED of the stream in 5.1; `h2` ends the connection.
            Verdict::Connection(1),
        ),
    ];
    judge(&cases);
}

/// 6.7: what was asked is what is answered.
#[test]
fn a_ping_is_answered_with_what_it_said() {
    let origin = Origin::echo();
    let proxy = proxy(&origin, "");
    let mut client = Frames::connect(proxy.address("edge"));
    for asked in [*b"01234567", [0; 8], [255; 8]] {
        client.send(frame(6, 0, 0, &asked));
        let answer = client.until(6).expect("an answer");
        assert_eq!((answer.flags, answer.stream, &answer.payload[..]), (1, 0, &asked[..]));
    }
}

/// gRPC for Go asks with each round trip of a transfer, behind a WINDOW_UPDATE: on a short way that is thousands a second.
#[test]
fn who_measures_its_way_is_no_flood() {
    let origin = Origin::echo();
    let proxy = proxy(&origin, "");
    let mut client = Frames::connect(proxy.address("edge"));
    for _ in 0..3000 {
        client.send([frame(8, 0, 0, &[0, 0, 0, 1]), frame(6, 0, 0, &[7; 8])].concat());
        assert!(client.until(6).is_some(), "it is answered");
    }
    client.headers(1, &GET, true);
    assert_eq!(client.verdict(), Verdict::Answered(1));
}

/// 6.9.1: padding takes credit like content, and nobody reads it: it has to be given back all the same.
#[test]
fn padding_gets_its_credit_back() {
    let seen = Arc::new(Mutex::new(0));
    let counted = seen.clone();
    let origin = Origin::start(move |connection| {
        let head = connection.head().unwrap_or_default();
        *counted.lock().expect("no panic") = connection.body(&head).len();
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    });
    let proxy = proxy(&origin, "http2 = { window = \"64KiB\", connection_window = \"64KiB\" }");
    let mut client = Frames::connect(proxy.address("edge"));
    client.headers(1, &[&POST[..], &[("content-length", "1000")]].concat(), false);
    let (mut stream, mut connection) = (65_535, 65_535);
    // One byte of content and 255 of padding with its length: 256 KiB in all.
    let padded = [&[255, b'x'][..], &[0; 255]].concat();
    for number in 1..=1000 {
        while stream.min(connection) < padded.len() {
            let update = client.until(8).expect("credit");
            let by = u32::from_be_bytes([update.payload[0], update.payload[1], update.payload[2], update.payload[3]]);
            *(if update.stream == 0 { &mut connection } else { &mut stream }) += by as usize;
        }
        client.send(frame(0, if number == 1000 { 9 } else { 8 }, 1, &padded));
        stream -= padded.len();
        connection -= padded.len();
    }
    assert_eq!(client.verdict(), Verdict::Answered(1));
    assert_eq!(*seen.lock().expect("no panic"), 1000);
}
