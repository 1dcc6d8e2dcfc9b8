//! What a client may do too much of: each flood is bounded, named in the metrics, and answered with ENHANCE_YOUR_CALM,
//! and a client beside it is served meanwhile.

use std::time::{Duration, Instant};

use onehop_tests::frames::{Frames, GET, POST, Verdict, block, frame};
use onehop_tests::{Client, Origin, Proxy, eventually};

const CALM: u32 = 11;

fn flooded(reason: &str, name: &str, flood: impl Fn(&mut Frames, u32) + Send + 'static) {
    let origin = Origin::echo();
    let proxy = Proxy::start_with(&origin.config("", "", ""), &["--workers", "1"], None);
    let address = proxy.address("edge");
    let mut beside = Client::connect(address);
    assert_eq!(beside.get("/before").status, 200);
    let attack = std::thread::spawn(move || {
        let mut client = Frames::connect(address);
        for number in 0..4000 {
            flood(&mut client, number);
        }
        client.verdict()
    });
    // Served while it lasts.
    for _ in 0..20 {
        assert_eq!(beside.get("/meanwhile").status, 200);
    }
    let verdict = attack.join().expect("no panic");
    assert!(matches!(verdict, Verdict::Connection(CALM) | Verdict::Closed), "{name}: {verdict:?}");
    let labels = format!("reason=\"{reason}\"");
    eventually(name, || proxy.metric("onehop_listener_faults_total", &labels) >= 1.0);
    assert_eq!(beside.get("/after").status, 200);
}

#[test]
fn rapid_resets() {
    flooded("flood-of-resets", "HEADERS and RST_STREAM", |client, number| {
        let stream = number * 2 + 1;
        let mut both = frame(1, 5, stream, &block(&GET));
        both.extend(frame(3, 0, stream, &8u32.to_be_bytes()));
        client.send(both);
    });
}

#[test]
fn settings_pings_and_priorities() {
    flooded("flood-of-settings", "SETTINGS", |client, _| client.send(frame(4, 0, 0, &[])));
    flooded("flood-of-pings", "PING", |client, _| client.send(frame(6, 0, 0, &[7; 8])));
    flooded("flood-of-priorities", "PRIORITY", |client, number| {
        client.send(frame(2, 0, number * 2 + 1, &[0, 0, 0, 0, 16]));
    });
    flooded("flood-of-unknown-frames", "frames of an unknown type", |client, _| client.send(frame(99, 0, 0, b"?")));
}

#[test]
fn empty_frames_and_continuations_without_end() {
    let origin = Origin::echo();
    let proxy = Proxy::start_with(&origin.config("", "", ""), &["--workers", "1"], None);
    let mut client = Frames::connect(proxy.address("edge"));
    client.headers(1, &POST, false);
    for _ in 0..2000 {
        client.send(frame(0, 0, 1, &[]));
    }
    let verdict = client.verdict();
    assert!(matches!(verdict, Verdict::Connection(CALM) | Verdict::Closed), "empty DATA: {verdict:?}");
    let mut client = Frames::connect(proxy.address("edge"));
    client.send(frame(1, 0, 1, &block(&GET)));
    for _ in 0..2000 {
        client.send(frame(9, 0, 1, &block(&[("a", "b")])));
    }
    let verdict = client.verdict();
    assert!(matches!(verdict, Verdict::Connection(_) | Verdict::Closed), "CONTINUATION: {verdict:?}");
    assert_eq!(Client::connect(proxy.address("edge")).get("/after").status, 200);
}

#[test]
fn a_bomb_of_header_fields_costs_little_memory() {
    let origin = Origin::echo();
    let proxy = Proxy::start_with(&origin.config("", "", ""), &["--workers", "1"], None);
    let mut client = Frames::connect(proxy.address("edge"));
    // One long field goes into the table (RFC 7541 6.2.1), and is then named by one byte each time.
    let mut bomb = block(&GET);
    bomb.push(0x40);
    bomb.extend([1, b'a', 127, 0x81, 0x1e]);
    bomb.extend(vec![b'x'; 4000]);
    bomb.extend(vec![0xbe; 8000]);
    client.send(frame(1, 5, 1, &bomb));
    let verdict = client.verdict();
    // 32 MB of fields: answered with 431, or the connection is given up.
    assert!(matches!(verdict, Verdict::Answered(1) | Verdict::Stream(1, _) | Verdict::Connection(_)), "{verdict:?}");
    assert_eq!(Client::connect(proxy.address("edge")).get("/after").status, 200);
}

#[test]
fn streams_that_are_opened_and_never_finished_time_out() {
    let origin = Origin::echo();
    let proxy = Proxy::start_with(
        &origin.config("body_timeout = \"1s\"\nhttp2 = { max_streams = 10 }", "", ""),
        &["--workers", "1"],
        None,
    );
    let mut client = Frames::connect(proxy.address("edge"));
    let begun = Instant::now();
    for number in 0..10 {
        client.headers(number * 2 + 1, &POST, false);
    }
    for _ in 0..10 {
        // 408, or a reset.
        assert!(matches!(client.verdict(), Verdict::Answered(_) | Verdict::Stream(..)));
    }
    assert!(begun.elapsed() < Duration::from_secs(20));
    // One more than is allowed is refused (RFC 9113 5.1.2), and the others go on.
    let mut client = Frames::connect(proxy.address("edge"));
    client.until(4);
    client.send(frame(4, 1, 0, &[]));
    for number in 0..11 {
        client.headers(number * 2 + 1, &POST, false);
    }
    assert_eq!(client.verdict(), Verdict::Stream(21, 7));
}
