//! Rules of RFC 9113 that an upstream breaks, beyond those of `http2_upstreams`: what each client gets, and what it is told.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use onehop_tests::Proxy;
use onehop_tests::broken::Got::{Cut, Status, Whole};
use onehop_tests::broken::{Case, OK, Script, begun, config, head, judge, stream};
use onehop_tests::frames::{Verdict, block, frame, upstream};
use onehop_tests::http2::{connect, post, run};

const PROTOCOL: Option<Verdict> = Some(Verdict::Connection(1));
const SIZE: Option<Verdict> = Some(Verdict::Connection(6));

#[test]
fn frames() {
    macro_rules! sends {
        ($name:literal, $frame:expr, $told:expr) => {
            ($name, (|peer, _| peer.send($frame)) as Script, Status(502), $told)
        };
    }
    let cases: Vec<Case> = vec![
        sends!("HEADERS on stream 0 (6.2)", head(&[OK], 5, 0), PROTOCOL),
        sends!("PRIORITY on stream 0 (6.3)", frame(2, 0, 0, &[0; 5]), PROTOCOL),
        sends!("RST_STREAM on stream 0 (6.4)", frame(3, 0, 0, &[0; 4]), PROTOCOL),
        sends!("SETTINGS on a stream (6.5)", frame(4, 0, 1, &[]), PROTOCOL),
        sends!("PUSH_PROMISE on stream 0 (6.6)", frame(5, 4, 0, &[0, 0, 0, 2, 0x82]), PROTOCOL),
        sends!("PING on a stream (6.7)", frame(6, 0, 1, &[0; 8]), PROTOCOL),
        sends!("GOAWAY on a stream (6.8)", frame(7, 0, 1, &[0; 8]), PROTOCOL),
        sends!(
            "an unknown frame within a header block (5.5)",
            [head(&[OK], 1, 1), frame(77, 0, 0, &[])].concat(),
            PROTOCOL
        ),
        sends!("CONTINUATION of another stream (6.10)", [head(&[OK], 1, 1), frame(9, 4, 3, &[])].concat(), PROTOCOL),
        sends!("WINDOW_UPDATE of an idle stream (5.1)", frame(8, 0, 7, &[0, 0, 0, 1]), PROTOCOL),
        sends!("more padding than HEADERS (6.2)", frame(1, 0xd, 1, &[9, 0x88]), PROTOCOL),
        sends!("HEADERS too short for their padding (4.2)", frame(1, 0xd, 1, &[]), SIZE),
        sends!("HEADERS beyond MAX_FRAME_SIZE (4.2)", frame(1, 5, 1, &[0; 16_385]), SIZE),
        sends!("an unknown frame beyond MAX_FRAME_SIZE (4.2)", frame(77, 0, 0, &[0; 16_385]), SIZE),
        sends!("an acknowledgement with content (6.5)", frame(4, 1, 0, &[0; 6]), SIZE),
        sends!("PRIORITY of four bytes (6.3)", frame(2, 0, 1, &[0; 4]), SIZE),
        sends!("GOAWAY of seven bytes (4.2)", frame(7, 0, 0, &[0; 7]), SIZE),
        sends!("MAX_FRAME_SIZE of 2^24 (6.5.2)", frame(4, 0, 0, &[0, 5, 1, 0, 0, 0]), PROTOCOL),
        sends!("an acknowledgement too many (6.5.3)", frame(4, 1, 0, &[]).repeat(3), PROTOCOL),
        // A stream error in 6.9; `h2` ends the connection.
        sends!("WINDOW_UPDATE of 0 for a stream (6.9)", frame(8, 0, 1, &[0; 4]), PROTOCOL),
        sends!(
            "GOAWAY that takes back an earlier one (6.8)",
            [frame(7, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]), frame(7, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0])].concat(),
            PROTOCOL
        ),
        (
            "CONTINUATION beyond MAX_FRAME_SIZE (4.2)",
            |peer, stream| peer.send([head(&[OK], 1, stream), frame(9, 4, stream, &[0; 16_385])].concat()),
            Status(502),
            SIZE,
        ),
        (
            "DATA on a stream that was reset (5.1)",
            |peer, stream| peer.send([frame(3, 0, stream, &[0, 0, 0, 2]), frame(0, 0, stream, b"x")].concat()),
            Status(503),
            Some(Verdict::Stream(1, 5)),
        ),
    ];
    judge("retry = { on = [] }", &cases);
}

#[test]
fn messages() {
    macro_rules! head_of {
        ($name:literal, [$($field:expr),*], $told:expr) => {
            ($name, (|peer, stream| peer.send(head(&[$($field),*], 4, stream))) as Script, Status(502), $told)
        };
    }
    let cases: Vec<Case> = vec![
        head_of!("a colon in a name (8.2.1)", [OK, ("a:b", "x")], PROTOCOL),
        head_of!("an empty name (8.2.1)", [OK, ("", "x")], PROTOCOL),
        head_of!("LF in a value (8.2.1)", [OK, ("a", "x\nb")], PROTOCOL),
        head_of!("a tab behind a value (8.2.1)", [OK, ("a", "x\t")], stream(1)),
        head_of!("HTTP2-Settings (RFC 7540 3.2.1)", [OK, ("http2-settings", "AAAA")], stream(1)),
        head_of!(":status of 099 (8.3.2)", [(":status", "099")], PROTOCOL),
        head_of!(":status of 600 (8.3.2)", [(":status", "600")], stream(1)),
        head_of!(":status of four digits (8.3.2)", [(":status", "2000")], PROTOCOL),
        head_of!("a signed length (8.1.1)", [OK, ("content-length", "+5")], stream(1)),
        head_of!("a list of lengths (8.1.1)", [OK, ("content-length", "5, 5")], stream(1)),
        head_of!("a negative length (8.1.1)", [OK, ("content-length", "-1")], stream(1)),
        head_of!("a length beyond all bounds (8.1.1)", [OK, ("content-length", "99999999999999999999")], stream(1)),
        head_of!("a malformed interim response (8.2.2)", [(":status", "103"), ("connection", "close")], stream(1)),
        // `h2` leaves it out instead of refusing the message; it goes no further.
        (
            ":method in a response (8.3)",
            |peer, stream| peer.send(head(&[OK, (":method", "GET")], 5, stream)),
            Whole,
            None,
        ),
        (
            "trailers with Connection (8.2.2)",
            |peer, stream| peer.send([begun(stream), head(&[("connection", "close")], 5, stream)].concat()),
            Cut,
            None,
        ),
        (
            "trailers with a space before a value (8.2.1)",
            |peer, stream| peer.send([begun(stream), head(&[("a", " b")], 5, stream)].concat()),
            Cut,
            None,
        ),
        (
            "a second head (8.1)",
            |peer, stream| peer.send([begun(stream), head(&[OK], 4, stream)].concat()),
            Cut,
            stream(1),
        ),
        (
            "an interim response behind the head (8.1)",
            |peer, stream| peer.send([begun(stream), head(&[(":status", "103")], 4, stream)].concat()),
            Cut,
            stream(1),
        ),
        (
            "content behind trailers (5.1)",
            |peer, stream| {
                peer.send([begun(stream), head(&[("a", "b")], 5, stream), frame(0, 1, stream, b"x")].concat());
            },
            Whole,
            None,
        ),
        (
            "a PUSH_PROMISE behind the head (8.4)",
            |peer, stream| {
                let promise = [&[0, 0, 0, 2][..], &block(&onehop_tests::frames::GET)].concat();
                peer.send([begun(stream), frame(5, 4, stream, &promise)].concat());
            },
            Cut,
            PROTOCOL,
        ),
    ];
    judge("retry = { on = [] }", &cases);
}

/// Windows of a stream matter while there is something to be sent on it: `h2` looks at them no longer then.
#[test]
fn windows_of_an_upload_under_way() {
    let update = |by: u32| frame(8, 0, 1, &by.to_be_bytes());
    let cases = [
        ("a stream's window beyond 2^31-1 (6.9.1)", update(0x7fff_ffff).repeat(2), Verdict::Stream(1, 3)),
        (
            "a window that grows beyond 2^31-1 by SETTINGS (6.9.2)",
            [update(0x7fff_ffff - 65_535), frame(4, 0, 0, &[0, 4, 0, 1, 0, 0])].concat(),
            Verdict::Connection(3),
        ),
    ];
    for (name, bytes, wanted) in cases {
        let (told, heard) = channel();
        let address = upstream(move |peer| {
            if peer.greet().is_some() {
                peer.send(&bytes);
                // The test may have ended.
                let _ = told.send(peer.verdict());
            }
        });
        let proxy = Proxy::start_with(&config("retry = { on = [] }", &[address]), &["--workers", "1"], None);
        let status = run(async {
            let mut sender = connect(proxy.address("edge")).await.ready().await.expect("ready");
            let (answer, _open) = sender.send_request(post("/0"), false).expect("sends");
            answer.await.expect("answers").status().as_u16()
        });
        assert_eq!(status, 502, "{name}");
        assert_eq!(heard.recv_timeout(Duration::from_secs(30)), Ok(wanted), "{name}");
    }
}

/// In HTTP/1.0 nothing but the connection's end tells where a body ends: one that is cut must not end in order.
#[test]
fn a_cut_body_is_no_whole_one_in_http10() {
    let (go, waits) = channel::<()>();
    let waits = Mutex::new(waits);
    let address = upstream(move |peer| {
        if let Some(stream) = peer.greet() {
            peer.send(begun(stream));
            // Half is out before it is cut.
            let _ = waits.lock().expect("no panic").recv();
            peer.send(frame(3, 0, stream, &[0, 0, 0, 2]));
            peer.verdict();
        }
    });
    let proxy = Proxy::start_with(&config("", &[address]), &["--workers", "1"], None);
    let mut client = proxy.connect("edge");
    client.send("GET /0 HTTP/1.0\r\nHost: test\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 200 "));
    assert_eq!(client.read(4), b"half");
    go.send(()).expect("it waits");
    assert!(client.was_reset(), "what came of it is not whole");
}

/// 6.5.2: a server may take no streams for a while. Requests wait for it, and make no further connections meanwhile.
#[test]
fn an_upstream_that_takes_no_streams_is_waited_for() {
    fn streams(count: u8) -> Vec<u8> {
        frame(4, 0, 0, &[0, 3, 0, 0, 0, count])
    }
    let (refused, is_refused) = channel();
    let (go, waits) = channel::<()>();
    let waits = Mutex::new(waits);
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    let address = upstream(move |peer| {
        count.fetch_add(1, Ordering::SeqCst);
        if !peer.skip(24) {
            return;
        }
        // Sent before anything is known of how many there may be.
        let Some(early) = peer.until(1) else { return };
        peer.send([streams(0), frame(3, 0, early.stream, &[0, 0, 0, 7])].concat());
        let _ = refused.send(());
        let _ = waits.lock().expect("no panic").recv();
        peer.send(streams(10));
        while let Some(asked) = peer.until(1) {
            peer.send(head(&[OK], 5, asked.stream));
        }
    });
    let proxy = Proxy::start_with(&config("timeout = \"off\"", &[address]), &["--workers", "1"], None);
    let mut clients: Vec<_> = (0..3).map(|_| proxy.connect("edge")).collect();
    clients.iter_mut().for_each(|client| client.send("GET /0 HTTP/1.1\r\nHost: test\r\n\r\n"));
    is_refused.recv_timeout(Duration::from_secs(30)).expect("one came early");
    // Long enough for thousands of connections; what is asserted does not hang on it.
    for _ in 0..200 {
        assert_eq!(proxy.admin("/live").0, 200);
    }
    drop(go);
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    let connections = accepted.load(Ordering::SeqCst);
    assert!(connections <= 2, "{connections} connections");
}
