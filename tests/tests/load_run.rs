//! The load generator against its own origin: what is counted, checked and written.

use std::io::Read;
use std::process::Command;

use onehop_tests::{Load, LoadOrigin, folder};

const SHORT: [&str; 6] = ["--duration", "400ms", "--warm-up", "50ms", "--connections", "8"];

fn short<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&SHORT[..], more].concat()
}

#[test]
fn an_open_loop_sends_its_schedule_and_reports_it() {
    let origin = LoadOrigin::start(&["--size", "1000"]);
    let load = Load::run(&short(&["--rate", "500", "--arrivals", "constant", "--expect-length", "1000", &origin.url]));
    assert!(load.succeeded(), "{}{}", load.out, load.error);
    // All were sent, unless the machine stood still at the end: then the rest is named.
    let ok = load.number("/counts/ok");
    assert_eq!(ok + load.number("/unsent"), 200.0);
    assert!(ok > 100.0, "{}", load.out);
    assert_eq!(load.number("/counts/bytes"), 1000.0 * ok);
    assert_eq!(load.number("/counts/statuses/2xx"), ok);
    assert_eq!(load.number("/latency/count"), ok);
    assert!(load.number("/latency/p50") >= load.number("/latency/min"));
    assert!(load.json["latency"]["hdr"].as_str().is_some_and(|text| text.starts_with("HISTF")));
    assert!(load.out.contains("send lateness") && load.error.contains("req/s"), "{}{}", load.out, load.error);
}

#[test]
fn a_reader_that_leaves_costs_no_report() {
    let origin = LoadOrigin::start(&[]);
    let (mut child, folder) = Load::start(&short(&["--rate", "100", "--quiet", &origin.url]));
    drop(child.stdout.take());
    let load = Load::finish((child, folder));
    assert!(load.succeeded(), "{}", load.error);
    assert!(load.number("/counts/ok") > 10.0);
}

#[test]
fn a_closed_loop_and_several_threads_answer_all_they_send() {
    let origin = LoadOrigin::start(&["--chunked", "--size", "40KiB"]);
    for protocol in [&["--new-connections"][..], &[]] {
        let arguments = ["--closed", "--threads", "2", "--expect-length", "40KiB", &origin.url];
        let load = Load::run(&short(&[&arguments[..], protocol].concat()));
        assert!(load.succeeded(), "{}{}", load.out, load.error);
        assert!(load.number("/counts/ok") > 8.0);
        assert_eq!(load.number("/counts/ok"), load.number("/counts/sent"));
        let connects = load.number("/counts/connects");
        assert_eq!(connects, if protocol.is_empty() { 0.0 } else { load.number("/counts/sent") });
    }
}

#[test]
fn one_process_can_be_generator_and_origin() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("bound");
    let address = port.to_string();
    let url = format!("http://{address}/");
    let load = Load::run(&short(&["--rate", "300", "--spin", "always", "--with-origin", &address, &url]));
    assert!(load.succeeded(), "{}{}", load.out, load.error);
    assert!(load.number("/counts/ok") > 60.0);
}

#[test]
fn every_answer_is_checked_and_failures_have_no_latency() {
    let origin = LoadOrigin::start(&["--errors", "0.5", "--size", "10"]);
    let load = Load::run(&short(&["--rate", "500", "--arrivals", "constant", &origin.url]));
    assert_eq!(load.code, 3, "{}", load.out);
    let failed = load.number("/counts/failures/status");
    assert!((40.0..160.0).contains(&failed), "{failed}");
    // A machine that stood still may have left some unsent, or unanswered at the end: those are accounted for as well.
    assert_eq!(load.number("/counts/sent") + load.number("/unsent"), 200.0);
    assert_eq!(load.number("/counts/ok") + load.number("/counts/failed"), load.number("/counts/sent"));
    assert_eq!(load.number("/latency/count"), load.number("/counts/ok"));
    assert!(failed <= load.number("/counts/failed"));
    assert_eq!(load.number("/counts/statuses/5xx"), failed);
    let origin = LoadOrigin::start(&["--resets", "0.5"]);
    let load = Load::run(&short(&["--rate", "500", &origin.url]));
    assert!(load.number("/counts/failures/reset") > 20.0, "{}", load.out);
    // Ten x: the checksum is theirs, not ours.
    let origin = LoadOrigin::start(&["--size", "10"]);
    let crc = format!("{:08x}", crc32(b"xxxxxxxxxx"));
    assert!(Load::run(&short(&["--rate", "100", "--expect-crc32", &crc, &origin.url])).succeeded());
    let load = Load::run(&short(&["--rate", "100", "--expect-crc32", "1", &origin.url]));
    assert_eq!(load.number("/counts/ok"), 0.0);
    assert!(load.number("/counts/failures/content") > 10.0);
    let load = Load::run(&short(&["--rate", "100", "--expect-length", "11", &origin.url]));
    assert_eq!(load.number("/counts/failures/length"), load.number("/counts/sent"));
}

/// Bit by bit, as the standard has it.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

#[test]
fn bytes_come_back_over_tcp() {
    let origin = LoadOrigin::start(&["--echo"]);
    for size in ["1", "300KiB"] {
        let load = Load::run(&short(&["--rate", "100", "--body-size", size, &origin.url]));
        assert!(load.succeeded(), "{}{}", load.out, load.error);
        assert!(load.number("/counts/ok") > 10.0);
    }
    // An HTTP origin does not send back what it gets.
    let origin = LoadOrigin::start(&[]);
    let url = format!("tcp://{}", origin.address());
    let load = Load::run(&short(&["--rate", "50", &url]));
    assert_eq!(load.number("/counts/ok"), 0.0);
}

#[test]
fn requests_go_out_as_they_were_asked_for() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let url = format!("http://{}/path?x=1", listener.local_addr().expect("bound"));
    let started = Load::start(&[
        "--rate",
        "5",
        "-c",
        "1",
        "-d",
        "300ms",
        "--timeout",
        "200ms",
        "-H",
        "X-Test: yes",
        "--body",
        "abc",
        &url,
    ]);
    let (mut client, _) = listener.accept().expect("accepts");
    let mut seen = Vec::new();
    let mut buffer = [0; 1024];
    while !seen.ends_with(b"\r\n\r\nabc") {
        let count = client.read(&mut buffer).expect("reads");
        assert!(count > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..count]);
    }
    let text = String::from_utf8(seen).expect("text");
    assert!(text.starts_with("POST /path?x=1 HTTP/1.1\r\n") && text.contains("\r\nX-Test: yes\r\n"), "{text}");
    assert!(text.contains("\r\nContent-Length: 3\r\n"), "{text}");
    Load::finish(started);
}

#[test]
fn standard_tools_read_the_interval_log() {
    let origin = LoadOrigin::start(&[]);
    let log = folder().join("latency.hlog");
    let path = log.to_str().expect("text");
    let load = Load::run(&short(&["--rate", "200", "--arrivals", "constant", "--interval-log", path, &origin.url]));
    assert!(load.succeeded(), "{}", load.error);
    let script = "import sys\nfrom hdrh.log import HistogramLogReader\nfrom hdrh.histogram import HdrHistogram\n\
                  total = HdrHistogram(1, 3600000000000, 3)\nreader = HistogramLogReader(sys.argv[1], total)\n\
                  while reader.add_next_interval_histogram(): pass\nprint(total.get_total_count())";
    let output = Command::new("python3").args(["-c", script, path]).output().expect("python3 runs");
    if String::from_utf8_lossy(&output.stderr).contains("No module named 'hdrh'") {
        println!("skipped: the Python package hdrhistogram is not installed (tests/install-peers does)");
        return;
    }
    let counted = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert_eq!(counted, "80", "{}", String::from_utf8_lossy(&output.stderr));
}
