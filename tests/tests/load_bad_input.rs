//! What can be wrong with a run's target or arguments: a clear message, an exit code, and what was measured is kept.

use std::net::TcpListener;

use onehop_tests::{Load, LoadOrigin};

fn refused(arguments: &[&str], code: i32, part: &str) {
    let load = Load::run(arguments);
    assert_eq!(load.code, code, "{arguments:?}: {}", load.error);
    assert!(load.error.contains(part), "{arguments:?}: {}", load.error);
}

/// An address where nobody listens: the listener that got it is gone.
fn nowhere() -> String {
    TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("bound").to_string()
}

#[test]
fn targets_that_cannot_be_reached_are_named() {
    let url = format!("http://{}/", nowhere());
    refused(&["--rate", "10", &url], 1, "nobody listens there");
    refused(&["--rate", "10", "http://no-such-host.invalid/"], 1, "no-such-host.invalid does not resolve");
    refused(&["--rate", "10", "gopher://x/"], 1, "scheme gopher is not known");
    refused(&["--rate", "10", "http://127.0.0.1:0x/"], 1, "is no port");
    // A queue that nobody accepts from: connected, and never answered.
    let silent = TcpListener::bind("127.0.0.1:0").expect("binds");
    let url = format!("http://{}/", silent.local_addr().expect("bound"));
    let load = Load::run(&["--rate", "20", "-c", "2", "-d", "200ms", "--warm-up", "0s", "--timeout", "100ms", &url]);
    assert_eq!(load.code, 3, "{}", load.error);
    assert_eq!(load.number("/counts/ok"), 0.0);
    assert!(load.number("/counts/failures/timeout") > 0.0);
}

#[test]
fn wrong_arguments_say_what_is_right() {
    refused(&["http://127.0.0.1:1/"], 2, "--rate");
    refused(&["--rate", "fast", "http://127.0.0.1:1/"], 2, "requests a second");
    refused(&["--rate", "5", "--duration", "5", "http://127.0.0.1:1/"], 2, "is no duration");
    refused(&["--rate", "5", "--arrivals", "never", "http://127.0.0.1:1/"], 2, "constant, poisson or uniform");
    refused(&["--rate", "5", "--threads", "9", "-c", "3", "http://127.0.0.1:1/"], 1, "--connections");
    refused(&["--rate", "5", "--urls", "/no/such/file"], 1, "/no/such/file");
    refused(&["--rate", "5", "-H", "nonsense", "http://127.0.0.1:1/"], 1, "is no field");
    refused(&["--rate", "5", "--cpus", "4096", "http://127.0.0.1:1/"], 1, "may not run there");
    refused(&["--rate", "5", "--interval-log", "/no/such/folder/x", "http://127.0.0.1:1/"], 1, "cannot write");
    let taken = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = taken.local_addr().expect("bound").to_string();
    refused(&["--rate", "5", "--with-origin", &address, "http://127.0.0.1:1/"], 1, "the port is in use");
}

#[test]
fn a_rate_that_cannot_be_reached_is_told_as_a_queue() {
    // One connection and 20 ms a request: 50 a second at most.
    let origin = LoadOrigin::start(&["--service", "20ms"]);
    let arguments = ["--rate", "500", "-c", "1", "-d", "600ms", "--warm-up", "0s", &origin.url];
    let load = Load::run(&arguments);
    assert_eq!(load.code, 3, "{}", load.out);
    assert!(load.out.contains("rate was not reached") && load.out.contains("queue"), "{}", load.out);
    assert!(load.number("/unsent") > 200.0);
    assert!(load.number("/counts/ok") > 1.0);
}

#[test]
fn an_origin_that_dies_ends_the_run_and_keeps_what_was_measured() {
    let origin = LoadOrigin::start(&[]);
    let started = Load::start(&["--rate", "200", "-d", "60s", "--warm-up", "0s", "-c", "4", &origin.url]);
    let pid = started.0.id();
    let begun = std::time::Instant::now();
    onehop_tests::eventually("it is under way", || begun.elapsed().as_millis() > 1500 || pid == 0);
    drop(origin);
    let load = Load::finish(started);
    assert_eq!(load.code, 3, "{}", load.error);
    assert!(load.out.contains("stopped answering"), "{}", load.out);
    assert!(load.number("/counts/ok") > 50.0 && load.number("/counts/failures/connect-refused") > 50.0, "{}", load.out);
    assert!(load.number("/seconds") < 50.0);
}

#[test]
fn an_interrupted_run_keeps_what_was_measured() {
    let origin = LoadOrigin::start(&[]);
    let (mut child, folder) = Load::start(&["--rate", "200", "-d", "60s", "--warm-up", "0s", "-c", "4", &origin.url]);
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().expect("piped")));
    while !lines.next().expect("it says how it goes").expect("text").contains("req/s") {}
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().expect("kill runs").success());
    lines.for_each(drop);
    let load = Load::finish((child, folder));
    assert_eq!(load.code, 3, "{}", load.out);
    assert!(load.out.contains("interrupted") && load.number("/counts/ok") > 50.0, "{}", load.out);
}
