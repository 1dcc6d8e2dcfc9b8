//! The load generator and its origin speak HTTP/2: what is sent is answered, what fails is counted by its kind, and
//! nothing that a target does makes a run hang.

use std::io::{Read, Write};
use std::net::TcpListener;

use onehop_tests::frames::frame;
use onehop_tests::{Load, LoadOrigin};
use serde_json::json;

fn run(origin: &str, more: &[&str]) -> Load {
    let base = ["--http2", "-d", "300ms", "--warm-up", "0s", "--spin", "0us"];
    Load::run(&[&base[..], more, &[origin]].concat())
}

#[test]
fn streams_of_few_connections_carry_what_is_asked() {
    let origin = LoadOrigin::start(&["--size", "1000"]);
    for pace in [&["--closed"][..], &["--rate", "1000"]] {
        let load = run(&origin.url, &[pace, &["-c", "2", "--streams", "16", "--expect-length", "1000"]].concat());
        // On a busy machine the last arrival may come too late; what was sent is answered.
        assert_eq!(load.number("/counts/failed"), 0.0, "{}{}", load.out, load.error);
        assert!(load.number("/counts/ok") > 100.0);
        assert_eq!(load.number("/counts/ok") * 1000.0, load.number("/counts/bytes"));
        assert_eq!(load.number("/counts/statuses/2xx"), load.number("/counts/sent"));
        // Sixteen streams of two connections are all that the run needs.
        assert_eq!(load.number("/counts/connects"), 0.0);
        assert_eq!((load.json["plan"]["protocol"].as_str(), load.number("/plan/streams")), (Some("h2"), 16.0));
        assert!(load.error.contains("HTTP/2, 16 streams a connection"), "{}", load.error);
        assert!(load.number("/latency/p50") >= load.number("/service_time/p50"));
    }
}

#[test]
fn bodies_go_both_ways_within_small_windows() {
    let origin = LoadOrigin::start(&["--echo-body", "--origin-window", "1000"]);
    let more = ["--closed", "-c", "2", "--streams", "8", "--body-size", "100KiB", "--window", "777"];
    let load = run(&origin.url, &[&more[..], &["--expect-length", "100KiB", "--expect-crc32", "d98d68b2"]].concat());
    // The checksum is wrong on purpose: it is really computed.
    assert_eq!(load.number("/counts/failures/content"), load.number("/counts/sent"), "{}", load.out);
    let load = run(&origin.url, &[&more[..], &["--expect-length", "100KiB"]].concat());
    assert!(load.succeeded(), "{}{}", load.out, load.error);
    assert!(load.number("/counts/ok") > 5.0);
}

#[test]
fn methods_lengths_and_slow_bodies_are_understood() {
    let origin = LoadOrigin::start(&["--size", "5000"]);
    let load = run(&origin.url, &["--closed", "-X", "HEAD", "--expect-length", "0"]);
    assert!(load.succeeded(), "{}", load.out);
    let load = run(&origin.url, &["--closed", "--expect-length", "4999"]);
    assert_eq!(load.number("/counts/failures/length"), load.number("/counts/sent"));
    assert_eq!(load.number("/latency/count"), 0.0);
    let random = LoadOrigin::start(&["--size", "0-3000", "--chunked"]);
    let load = run(&random.url, &["--closed", "--streams", "5"]);
    assert!(load.succeeded(), "{}", load.out);
    let slow = LoadOrigin::start(&["--size", "300", "--body-piece", "100", "--service", "1ms"]);
    let load = run(&slow.url, &["--closed", "--streams", "50", "--expect-length", "300"]);
    assert!(load.succeeded(), "{}", load.out);
    assert!(load.number("/latency/min") > 16e6, "three pieces with a pause after each");
    let load = run(&origin.url, &["--rate", "100", "--new-connections"]);
    assert_eq!(load.number("/counts/failed"), 0.0, "{}", load.out);
    assert_eq!(load.number("/counts/connects"), load.number("/counts/sent"));
}

#[test]
fn failures_are_counted_by_kind_and_have_no_latency() {
    let kinds = [
        ("--errors", "status", json!({})),
        ("--resets", "stream-reset", json!({ "INTERNAL_ERROR": 0 })),
        ("--refusals", "stream-refused", json!({ "REFUSED_STREAM": 0 })),
    ];
    for (fault, failure, codes) in kinds {
        let origin = LoadOrigin::start(&[fault, "0.2"]);
        let load = run(&origin.url, &["--rate", "1000", "-c", "2", "--streams", "4"]);
        assert_eq!(load.code, 3, "{}", load.out);
        let (failed, sent) = (load.number("/counts/failed"), load.number("/counts/sent"));
        assert_eq!(load.number(&format!("/counts/failures/{failure}")), failed, "{}", load.out);
        assert!(failed > 0.05 * sent && failed < 0.4 * sent, "{failed} of {sent}");
        assert_eq!(load.number("/latency/count"), load.number("/counts/ok"));
        let named = load.json["counts"]["reset_codes"].as_object().expect("an object");
        assert_eq!(named.keys().collect::<Vec<_>>(), codes.as_object().expect("an object").keys().collect::<Vec<_>>());
        assert!(named.values().all(|count| count.as_f64() == Some(failed)));
        // No connection was lost over it.
        assert_eq!(load.number("/counts/connects"), 0.0);
    }
}

#[test]
fn goaway_moves_what_follows_to_a_new_connection() {
    let origin = LoadOrigin::start(&["--goaway-after", "50"]);
    // One at a time, nothing is under way when it comes: nothing fails.
    let load = run(&origin.url, &["--closed", "-c", "1"]);
    assert!(load.succeeded(), "{}", load.out);
    let (ok, connects) = (load.number("/counts/ok"), load.number("/counts/connects"));
    assert!(connects >= (ok / 50.0).floor() - 1.0 && connects <= (ok / 50.0).ceil(), "{ok} {connects}");
    let load = run(&origin.url, &["--closed", "-c", "2", "--streams", "20"]);
    assert_eq!(load.number("/counts/failures/goaway"), load.number("/counts/failed"), "{}", load.out);
    assert!(load.number("/counts/failed") > 0.0 && load.number("/counts/ok") > load.number("/counts/connects"));
}

#[test]
fn fewer_streams_than_asked_for_are_waited_for() {
    let origin = LoadOrigin::start(&["--max-streams", "3", "--service", "2ms"]);
    let load = run(&origin.url, &["--closed", "-c", "1", "--streams", "30"]);
    assert!(load.succeeded(), "{}", load.out);
    assert!(load.number("/counts/ok") > 30.0);
    assert!(load.number("/latency/p50") > 10e6, "ten turns of two milliseconds: {}", load.out);
}

#[test]
fn a_window_that_never_opens_times_out() {
    let origin = LoadOrigin::start(&["--stalled", "--origin-window", "20000"]);
    let more = ["--closed", "-c", "1", "--streams", "4", "--body-size", "100KiB", "--timeout", "100ms"];
    let load = run(&origin.url, &more);
    assert_eq!(load.code, 3, "{}", load.error);
    assert_eq!(load.number("/counts/failures/timeout"), load.number("/counts/sent"), "{}", load.out);
    // What fits into the window is answered, on the same connections.
    let load = run(&origin.url, &["--closed", "--streams", "4", "--body-size", "20000"]);
    assert!(load.succeeded(), "{}", load.out);
}

#[test]
fn targets_that_do_not_speak_it_are_named() {
    // The generator's answers, whatever a listener sends to the preface.
    let answers: [(&[u8], &str); 4] = [
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "does not speak HTTP/2"),
        (b"", "does not speak HTTP/2"),
        (b"\x00\x00\x08\x06\x00\x00\x00\x00\x00\x01\x02\x03\x04\x05\x06\x07\x08", "does not speak HTTP/2"),
        (b"SSH-2.0-x\r\n", "does not speak HTTP/2"),
    ];
    for (answer, part) in answers {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let url = format!("http://{}/", listener.local_addr().expect("bound"));
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut preface = [0; 24];
            stream.read_exact(&mut preface).expect("the preface");
            assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
            stream.write_all(answer).expect("writes");
        });
        let load = run(&url, &["--rate", "10", "-c", "1"]);
        assert_eq!(load.code, 1, "{}", load.error);
        assert!(load.error.contains(part), "{}", load.error);
        server.join().expect("a server");
    }
}

#[test]
fn a_target_that_breaks_the_rules_or_falls_silent_is_counted() {
    // Settings, and then for each request something else that no server may send.
    let wrongs: [(Vec<u8>, &str); 5] = [
        (frame(0, 1, 1, b"no head before it"), "malformed"),
        (frame(1, 5, 1, &[0x80]), "http2-broken"),
        (frame(5, 4, 1, &[0, 0, 0, 2, 0x82]), "http2-broken"),
        (frame(8, 0, 0, &[0, 0, 0, 0]), "http2-broken"),
        (Vec::new(), "timeout"),
    ];
    for (wrong, failure) in wrongs {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let url = format!("http://{}/", listener.local_addr().expect("bound"));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, wrong) = (stream.expect("a client"), wrong.clone());
                std::thread::spawn(move || {
                    let mut bytes = [0; 65_536];
                    let _ = stream.write_all(&frame(4, 0, 0, &[]));
                    let mut seen = 0;
                    while let Ok(count @ 1..) = stream.read(&mut bytes) {
                        seen += count;
                        // Preface, settings, window and acknowledgement are over: the rest are requests.
                        if seen > 24 + 9 + 12 + 13 + 9 {
                            let _ = stream.write_all(&wrong);
                        }
                    }
                });
            }
        });
        let load = run(&url, &["--closed", "-c", "1", "--timeout", "150ms"]);
        assert_eq!(load.code, 3, "{failure}: {}", load.error);
        let kinds = &load.json["counts"]["failures"];
        assert!(load.number(&format!("/counts/failures/{failure}")) > 0.0, "{failure}: {kinds:#}");
        assert_eq!(load.number("/counts/ok"), 0.0, "{failure}");
    }
}

#[test]
fn wrong_arguments_say_what_is_right() {
    let refused = |arguments: &[&str], code: i32, part: &str| {
        let load = Load::run(arguments);
        assert_eq!(load.code, code, "{arguments:?}: {}", load.error);
        assert!(load.error.contains(part), "{arguments:?}: {}", load.error);
    };
    let url = "http://127.0.0.1:1/";
    refused(&["--closed", "--streams", "5", url], 1, "--streams goes with --http2");
    refused(&["--closed", "--http2", "--streams", "0", url], 1, "--streams is at least 1");
    refused(&["--closed", "--http2", "--streams", "5", "--new-connections", url], 1, "--streams is 1 then");
    refused(&["--closed", "--http2", "--window", "0", url], 1, "at least 1 byte");
    refused(&["--closed", "--http2", "tcp://127.0.0.1:1"], 1, "HTTP/2 is spoken to http://");
    refused(&["--closed", "--grpc=both", url], 2, "unary, client, server or bidi");
    refused(&["--closed", "--messages", "5", url], 2, "--grpc");
    refused(&["--closed", "--grpc", "--grpc-method", "x", url], 1, "/package.Service/Method");
}
