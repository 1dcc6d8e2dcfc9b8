//! What frames a client must not send, in the order of RFC 9113 (3 to 6), with RFC 7541, 8441 and 9218: the error code and
//! the scope of each. Where `h2` names another code than the RFC, or ends the connection for what need only end a stream
//! (5.4.1 allows that), the case says so. `http2_rules` has those that it shares with messages (8); `http2_upstreams` has the other side.

use onehop_tests::frames::{Frames, GET, POST, Verdict, block, frame};
use onehop_tests::rules::{Case, judge};
use onehop_tests::{Client, Origin, Proxy};

const PROTOCOL: u32 = 1;
const FLOW: u32 = 3;
const CLOSED: u32 = 5;
const SIZE: u32 = 6;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn proxy() -> (Origin, Proxy) {
    let origin = Origin::echo();
    let proxy = Proxy::start_with(&origin.config("", "", ""), &["--workers", "1"], None);
    (origin, proxy)
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    frame(4, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn update(stream: u32, by: u32) -> Vec<u8> {
    frame(8, 0, stream, &by.to_be_bytes())
}

#[test]
fn the_preface() {
    let (_origin, proxy) = proxy();
    let first = [
        ("HEADERS", frame(1, 5, 1, &block(&GET))),
        ("PING", frame(6, 0, 0, &[0; 8])),
        ("WINDOW_UPDATE", update(0, 1)),
        ("an acknowledgement of SETTINGS", frame(4, 1, 0, &[])),
    ];
    for (name, bytes) in first {
        let mut client = Frames::bare(proxy.address("edge"));
        client.send([PREFACE, &bytes].concat());
        assert_eq!(client.verdict(), Verdict::Connection(PROTOCOL), "{name} where SETTINGS must come (3.4)");
    }
    // One that ends within the preface, or within its first frame, is closed without a word.
    for cut in [10, PREFACE.len(), PREFACE.len() + 5] {
        let mut client = Frames::bare(proxy.address("edge"));
        client.send(&[PREFACE, &frame(4, 0, 0, &[])].concat()[..cut]);
        client.finish();
        assert!(matches!(client.verdict(), Verdict::Closed | Verdict::Connection(PROTOCOL)), "cut at {cut}");
    }
    assert_eq!(Client::connect(proxy.address("edge")).get("/after").status, 200);
}

#[test]
fn what_is_to_be_ignored_is() {
    let cases: [Case; 9] = [
        (
            "a frame of an unknown type (4.1, 5.5)",
            |client| client.send([frame(77, 255, 0, b"?"), frame(1, 5, 1, &block(&GET))].concat()),
            Verdict::Answered(1),
        ),
        (
            "the reserved bit of a stream's number (4.1)",
            |client| client.send(frame(1, 5, 0x8000_0001, &block(&GET))),
            Verdict::Answered(1),
        ),
        (
            "flags that mean nothing (4.1)",
            |client| client.send([frame(6, 0xfe, 0, &[0; 8]), frame(1, 0xd5, 1, &block(&GET))].concat()),
            Verdict::Answered(1),
        ),
        (
            "an unknown setting (6.5.2)",
            |client| client.send([setting(0xf0f0, 7), frame(1, 5, 1, &block(&GET))].concat()),
            Verdict::Answered(1),
        ),
        (
            "PRIORITY of an idle stream (5.3, 6.3)",
            |client| client.send([frame(2, 0, 9, &[0, 0, 0, 0, 16]), frame(1, 5, 1, &block(&GET))].concat()),
            Verdict::Answered(1),
        ),
        (
            "PRIORITY_UPDATE (RFC 9218 7.1)",
            |client| client.send([frame(16, 0, 0, b"\0\0\0\x01u=1"), frame(1, 5, 1, &block(&GET))].concat()),
            Verdict::Answered(1),
        ),
        (
            "NO_RFC7540_PRIORITIES (RFC 9218 2.1)",
            // Of no interest to us, so that its value is not looked at.
            |client| client.send([setting(9, 2), frame(1, 5, 1, &block(&GET))].concat()),
            Verdict::Answered(1),
        ),
        (
            "an answer to a PING that was not sent (6.7)",
            |client| client.send([frame(6, 1, 0, &[9; 8]), frame(1, 5, 1, &block(&GET))].concat()),
            Verdict::Answered(1),
        ),
        (
            "WINDOW_UPDATE of a stream that has ended (5.1)",
            |client| {
                client.headers(1, &GET, true);
                assert_eq!(client.verdict(), Verdict::Answered(1));
                client.send([update(1, 1), frame(1, 5, 3, &block(&GET))].concat());
            },
            Verdict::Answered(3),
        ),
    ];
    judge(&cases);
}

#[test]
fn sizes_and_padding() {
    let cases: [Case; 13] = [
        (
            "HEADERS beyond MAX_FRAME_SIZE (4.2)",
            |client| client.send(frame(1, 5, 1, &[0; 16_385])),
            Verdict::Connection(SIZE),
        ),
        (
            "SETTINGS beyond MAX_FRAME_SIZE (4.2)",
            |client| client.send(frame(4, 0, 0, &[0; 16_386])),
            Verdict::Connection(SIZE),
        ),
        (
            "an unknown frame beyond MAX_FRAME_SIZE (4.2)",
            |client| client.send(frame(77, 0, 0, &[0; 16_385])),
            Verdict::Connection(SIZE),
        ),
        (
            "WINDOW_UPDATE of three bytes (6.9)",
            |client| client.send(frame(8, 0, 0, &[0; 3])),
            Verdict::Connection(SIZE),
        ),
        (
            "an acknowledgement with content (6.5)",
            |client| client.send(frame(4, 1, 0, &[0; 6])),
            Verdict::Connection(SIZE),
        ),
        ("PING of nine bytes (6.7)", |client| client.send(frame(6, 0, 0, &[0; 9])), Verdict::Connection(SIZE)),
        ("RST_STREAM of three bytes (6.4)", |client| client.send(frame(3, 0, 1, &[0; 3])), Verdict::Connection(SIZE)),
        ("GOAWAY of seven bytes (4.2)", |client| client.send(frame(7, 0, 0, &[0; 7])), Verdict::Connection(SIZE)),
        ("PRIORITY of four bytes (6.3)", |client| client.send(frame(2, 0, 1, &[0; 4])), Verdict::Connection(SIZE)),
        (
            "HEADERS too short for their priority (4.2)",
            |client| client.send(frame(1, 0x25, 1, &[0; 4])),
            Verdict::Connection(SIZE),
        ),
        (
            "HEADERS too short for their padding (4.2)",
            |client| client.send(frame(1, 0xd, 1, &[])),
            Verdict::Connection(SIZE),
        ),
        (
            "more padding than DATA (6.1)",
            |client| {
                client.headers(1, &POST, false);
                client.send(frame(0, 9, 1, &[5, 0, 0, 0, 0]));
            },
            Verdict::Connection(PROTOCOL),
        ),
        (
            "more padding than HEADERS (6.2)",
            |client| client.send(frame(1, 0xd, 1, &[9, 0x82])),
            Verdict::Connection(PROTOCOL),
        ),
    ];
    judge(&cases);
}

#[test]
fn streams_and_their_states() {
    let cases: [Case; 14] = [
        (
            "PRIORITY on stream 0 (6.3)",
            |client| client.send(frame(2, 0, 0, &[0, 0, 0, 0, 16])),
            Verdict::Connection(PROTOCOL),
        ),
        ("RST_STREAM on stream 0 (6.4)", |client| client.send(frame(3, 0, 0, &[0; 4])), Verdict::Connection(PROTOCOL)),
        (
            "PUSH_PROMISE (8.4)",
            |client| {
                client.headers(1, &POST, false);
                client.send(frame(5, 4, 1, &[&[0, 0, 0, 2][..], &block(&GET)].concat()));
            },
            Verdict::Connection(PROTOCOL),
        ),
        ("PING on a stream (6.7)", |client| client.send(frame(6, 0, 1, &[0; 8])), Verdict::Connection(PROTOCOL)),
        ("GOAWAY on a stream (6.8)", |client| client.send(frame(7, 0, 1, &[0; 8])), Verdict::Connection(PROTOCOL)),
        (
            "CONTINUATION on stream 0 (6.10)",
            |client| client.send([frame(1, 1, 1, &block(&GET)), frame(9, 4, 0, &[])].concat()),
            Verdict::Connection(PROTOCOL),
        ),
        (
            "CONTINUATION of another stream (6.10)",
            |client| client.send([frame(1, 1, 1, &block(&GET)), frame(9, 4, 3, &[])].concat()),
            Verdict::Connection(PROTOCOL),
        ),
        (
            "CONTINUATION of a block that has ended (6.10)",
            |client| client.send([frame(1, 4, 1, &block(&POST)), frame(9, 4, 1, &[])].concat()),
            Verdict::Connection(PROTOCOL),
        ),
        (
            "an unknown frame within a header block (5.5)",
            |client| client.send([frame(1, 1, 1, &block(&GET)), frame(77, 0, 0, &[])].concat()),
            Verdict::Connection(PROTOCOL),
        ),
        ("WINDOW_UPDATE of an idle stream (5.1)", |client| client.send(update(7, 1)), Verdict::Connection(PROTOCOL)),
        (
            "CONTINUATION of an idle stream (5.1)",
            |client| client.send(frame(9, 4, 7, &block(&GET))),
            Verdict::Connection(PROTOCOL),
        ),
        (
            "HEADERS after the stream's end, while it is answered (5.1)",
            |client| {
                client.send([frame(1, 5, 1, &block(&GET)), frame(1, 5, 1, &block(&GET))].concat());
            },
            // STREAM_CLOSED of the stream in 5.1; `h2` ends the connection.
            Verdict::Connection(PROTOCOL),
        ),
        (
            "DATA after the client's reset (5.1)",
            |client| {
                client.headers(1, &POST, false);
                client.send([frame(3, 0, 1, &[0, 0, 0, 8]), frame(0, 0, 1, b"x")].concat());
            },
            Verdict::Stream(1, CLOSED),
        ),
        (
            "HEADERS after the client's reset (5.1)",
            |client| {
                client.headers(1, &POST, false);
                client.send([frame(3, 0, 1, &[0, 0, 0, 8]), frame(1, 5, 1, &block(&GET))].concat());
            },
            // STREAM_CLOSED in 5.1; `h2` says PROTOCOL_ERROR.
            Verdict::Connection(PROTOCOL),
        ),
    ];
    judge(&cases);
}

#[test]
fn settings() {
    let cases: [Case; 7] = [
        ("ENABLE_PUSH of 7 (6.5.2)", |client| client.send(setting(2, 7)), Verdict::Connection(PROTOCOL)),
        ("INITIAL_WINDOW_SIZE of 2^31 (6.5.2)", |client| client.send(setting(4, 1 << 31)), Verdict::Connection(FLOW)),
        ("MAX_FRAME_SIZE of 16383 (6.5.2)", |client| client.send(setting(5, 16_383)), Verdict::Connection(PROTOCOL)),
        ("MAX_FRAME_SIZE of 2^24 (6.5.2)", |client| client.send(setting(5, 1 << 24)), Verdict::Connection(PROTOCOL)),
        (
            "ENABLE_CONNECT_PROTOCOL of 2 (RFC 8441 3)",
            |client| client.send(setting(8, 2)),
            Verdict::Connection(PROTOCOL),
        ),
        (
            "an acknowledgement too many (6.5.3)",
            |client| client.send(frame(4, 1, 0, &[]).repeat(3)),
            Verdict::Connection(PROTOCOL),
        ),
        (
            "a window that grows beyond 2^31-1 by SETTINGS (6.9.2)",
            |client| {
                client.headers(1, &POST, false);
                client.send([update(1, 0x7fff_ffff - 65_535), setting(4, 65_536)].concat());
            },
            Verdict::Connection(FLOW),
        ),
    ];
    judge(&cases);
}

#[test]
fn flow_control() {
    let cases: [Case; 3] = [
        (
            "WINDOW_UPDATE of 0 for a stream (6.9)",
            |client| {
                client.headers(1, &POST, false);
                client.send(update(1, 0));
            },
            // A stream error in 6.9; `h2` ends the connection.
            Verdict::Connection(PROTOCOL),
        ),
        (
            "a stream's window beyond 2^31-1 (6.9.1)",
            |client| {
                client.headers(1, &POST, false);
                client.send([update(1, 0x7fff_ffff), update(1, 0x7fff_ffff)].concat());
            },
            Verdict::Stream(1, FLOW),
        ),
        (
            "WINDOW_UPDATE of 0 for the connection (6.9)",
            |client| client.send(update(0, 0)),
            Verdict::Connection(PROTOCOL),
        ),
    ];
    judge(&cases);
    // More DATA than there is credit for: of the stream's window, and of the connection's.
    let origin = Origin::start(|connection| {
        connection.head();
        connection.wait_for_end();
    });
    let listener = "http2 = { window = \"64KiB\", connection_window = \"64KiB\" }";
    let proxy = Proxy::start_with(&origin.config(listener, "", ""), &["--workers", "1"], None);
    let mut client = Frames::connect(proxy.address("edge"));
    // Held back, since the client's head is not whole: nothing of it is consumed.
    client.headers(1, &[&POST[..], &[("expect", "100-continue")]].concat(), false);
    for _ in 0..5 {
        client.send(frame(0, 0, 1, &[0; 16_384]));
    }
    assert!(matches!(client.verdict(), Verdict::Connection(FLOW) | Verdict::Stream(1, FLOW)), "(6.9.1)");
}

#[test]
fn header_compression() {
    fn sends(block: &'static [u8]) -> impl Fn(&mut Frames) {
        move |client| client.send(frame(1, 5, 1, block))
    }
    let cases: [(&str, &'static [u8]); 9] = [
        ("index 0 (RFC 7541 6.1)", &[0x80]),
        ("an index beyond the tables (RFC 7541 2.3.3)", &[0xff, 0x20]),
        ("a name's index beyond the tables (RFC 7541 2.3.3)", &[0x7f, 0x20, 1, b'x']),
        ("an integer without end (RFC 7541 5.1)", &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        ("a string longer than its block (RFC 7541 5.2)", &[0, 5, b'a']),
        ("padding of a Huffman code that is not all ones (RFC 7541 5.2)", &[0, 0x81, 0x18, 1, b'x']),
        ("padding of a Huffman code of eight bits (RFC 7541 5.2)", &[0, 0x82, 0x1f, 0xff, 1, b'x']),
        ("a table larger than was allowed (RFC 7541 6.3)", &[0x3f, 0xe2, 0x1f, 0x82]),
        ("a table's size after a field (RFC 7541 4.2)", &[0x82, 0x20, 0x86, 0x84, 0x01, 1, b'x']),
    ];
    let (_origin, proxy) = proxy();
    let mut wrong = Vec::new();
    for (name, block) in cases {
        let mut client = Frames::connect(proxy.address("edge"));
        sends(block)(&mut client);
        let got = client.verdict();
        // 4.3 asks for COMPRESSION_ERROR; `h2` says PROTOCOL_ERROR, and the connection ends all the same.
        if got != Verdict::Connection(PROTOCOL) {
            wrong.push(format!("{name}: {got:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(Client::connect(proxy.address("edge")).get("/after").status, 200);
}
