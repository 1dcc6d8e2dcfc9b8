//! What a client may do too much of: each flood is bounded, named in the metrics, and answered with ENHANCE_YOUR_CALM,
//! and a client beside it is served meanwhile.

use std::time::{Duration, Instant};

use onehop_tests::frames::{Frames, GET, POST, Verdict, block, frame};
use onehop_tests::{Client, Origin, Proxy, eventually};

const CALM: u32 = 11;

fn flooded(reason: &str, name: &str, flood: Vec<u8>) {
    let origin = Origin::echo();
    let proxy = Proxy::start_with(&origin.config("", "", ""), &["--workers", "1"], None);
    let address = proxy.address("edge");
    let mut beside = Client::connect(address);
    assert_eq!(beside.get("/before").status, 200);
    let attack = std::thread::spawn(move || {
        let mut client = Frames::connect(address);
        // A little over the budget, and no more: what is said to it is not lost in a reset.
        client.send(flood);
        loop {
            match client.verdict() {
                Verdict::Answered(_) | Verdict::Stream(..) => {}
                verdict => return verdict,
            }
        }
    });
    // Served while it lasts.
    for _ in 0..20 {
        assert_eq!(beside.get("/meanwhile").status, 200);
    }
    assert_eq!(attack.join().expect("no panic"), Verdict::Connection(CALM), "{name}");
    let labels = format!("reason=\"{reason}\"");
    eventually(name, || proxy.metric("onehop_listener_faults_total", &labels) == 1.0);
    assert_eq!(beside.get("/after").status, 200);
}

#[test]
fn rapid_resets() {
    let pair = |number: u32| {
        let stream = number * 2 + 1;
        [frame(1, 5, stream, &block(&GET)), frame(3, 0, stream, &8u32.to_be_bytes())].concat()
    };
    flooded("flood-of-resets", "HEADERS and RST_STREAM", (0..1300).flat_map(pair).collect());
}

#[test]
fn settings_pings_priorities_window_updates_and_the_unknown() {
    flooded("flood-of-settings", "SETTINGS", frame(4, 0, 0, &[]).repeat(130));
    flooded("flood-of-pings", "PING", frame(6, 0, 0, &[7; 8]).repeat(1300));
    let priority = |number: u32| frame(2, 0, number * 2 + 1, &[0, 0, 0, 0, 16]);
    flooded("flood-of-priorities", "PRIORITY", (0..1300).flat_map(priority).collect());
    flooded("flood-of-window-updates", "WINDOW_UPDATE", frame(8, 0, 0, &1u32.to_be_bytes()).repeat(100_000));
    flooded("flood-of-unknown-frames", "frames of an unknown type", frame(99, 0, 0, b"?").repeat(1300));
}

#[test]
fn empty_frames_and_continuations_without_end() {
    let post = frame(1, 4, 1, &block(&POST));
    let empty = frame(0, 0, 1, &[]).repeat(130);
    flooded("flood-of-empty-frames", "empty DATA", [post.clone(), empty].concat());
    // Padded, they are `h2`'s to count.
    let padded = frame(0, 8, 1, &[0]).repeat(130);
    flooded("flood-of-frames", "padded empty DATA", [post, padded].concat());
    // More than the list of fields could fill: `h2` counts them too, and stops earlier than our budget does.
    let more = frame(9, 0, 1, &block(&[("a", "b")])).repeat(10);
    flooded("flood-of-frames", "CONTINUATION", [frame(1, 0, 1, &block(&GET)), more].concat());
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
    let before = proxy.memory_kib("VmHWM");
    client.send(frame(1, 5, 1, &bomb));
    let verdict = client.verdict();
    let grown = proxy.memory_kib("VmHWM").saturating_sub(before);
    // 32 MB of fields: answered with 431, or the connection is given up.
    assert!(matches!(verdict, Verdict::Answered(1) | Verdict::Stream(1, _) | Verdict::Connection(_)), "{verdict:?}");
    // Of those, less than the list's limit of 64 KiB is ever made.
    assert!(grown < 4096, "{grown} KiB");
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
