//! No coordinated omission: an origin that stands still delays all whose turn it would have been meanwhile, not only
//! those that were on their way.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use onehop_tests::{Load, LoadOrigin};

const ARGUMENTS: [&str; 12] = [
    "--rate",
    "1000",
    "--arrivals",
    "constant",
    "--connections",
    "4",
    "--duration",
    "2s",
    "--warm-up",
    "100ms",
    "--timeout",
    "5s",
];

/// A run whose origin stands still for half a second after the first second.
fn paused(more: &[&str]) -> Load {
    let origin = LoadOrigin::start(&[]);
    let (mut child, folder) = Load::start(&[&ARGUMENTS[..], more, &[&origin.url]].concat());
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    while !lines.next().expect("it says how it goes").expect("text").contains("req/s") {}
    origin.signal("STOP");
    // The stimulus itself: nothing is waited for.
    std::thread::sleep(Duration::from_millis(500));
    origin.signal("CONT");
    lines.for_each(drop);
    Load::finish((child, folder))
}

#[test]
fn a_pause_is_seen_by_all_who_would_have_come() {
    let load = paused(&[]);
    // A quarter of all requests fall into the pause; the slowest tenth waited for at least 300 ms of it.
    assert!(load.number("/latency/p90") > 200e6, "{}", load.out);
    assert!(load.number("/service_time/p90") < 200e6, "{}", load.out);
    assert_eq!(load.number("/counts/sent") + load.number("/unsent"), 2000.0, "each is sent, or named: {}", load.out);
}

#[test]
fn the_broken_instrument_hides_it() {
    let load = paused(&["--omit-on-purpose"]);
    assert!(load.number("/latency/p90") < 200e6, "{}", load.out);
    assert!(load.out.contains("coordinated omission"), "{}", load.out);
}

#[test]
fn streams_of_http2_omit_nothing_either() {
    // Nothing is free meanwhile: all that would have been sent waits, and the wait is latency.
    let load = paused(&["--http2", "--streams", "2"]);
    assert!(load.number("/latency/p90") > 200e6, "{}", load.out);
    assert!(load.number("/service_time/p90") < 200e6, "{}", load.out);
    assert_eq!(load.number("/counts/sent") + load.number("/unsent"), 2000.0, "each is sent, or named: {}", load.out);
    // As many streams as the pause takes requests: each is sent in time, and both times show it.
    let load = paused(&["--http2", "--streams", "1000"]);
    assert!(load.number("/latency/p90") > 200e6 && load.number("/service_time/p90") > 200e6, "{}", load.out);
    assert!(load.number("/send_lateness/p50") < 100e6, "{}", load.out);
}
