//! Faults on purpose: delays, aborts, resets and slow bodies, for whom the route says, marked where they can be seen.

use std::io::Read;
use std::time::{Duration, Instant};

use onehop_tests::http2::{ask, connect, run};
use onehop_tests::{Origin, Proxy, eventually};

fn start(origin: &Origin, faults: &str) -> Proxy {
    Proxy::start_with(&origin.config("", &format!("name = \"r\"\nfaults = [{faults}]"), ""), &["--workers", "1"], None)
}

fn injected(proxy: &Proxy, kind: &str) -> f64 {
    proxy.metric("onehop_route_faults_injected_total", &format!("route=\"r\",kind=\"{kind}\""))
}

#[test]
fn aborts_and_delays_meet_only_whom_they_are_meant_for() {
    let origin = Origin::echo();
    let log = onehop_tests::folder().join("access.log");
    let faults = "{ abort = 418, headers = { x-fault = \"abort\" } }, { delay = \"300ms\", headers = { x-fault = { prefix = \"delay\" } } }";
    let config = origin.config("", &format!("name = \"r\"\nfaults = [{faults}]"), "");
    let proxy = Proxy::start(&format!("[access_log]\npath = \"{}\"\n{config}", log.display()));
    let mut client = proxy.connect("edge");
    let mut ask = |fault: &str| {
        let begun = Instant::now();
        let response = client.ask(format!("GET /x HTTP/1.1\r\nHost: a\r\nX-Fault: {fault}\r\n\r\n"));
        (response.status, response.head, begun.elapsed())
    };
    assert_eq!(ask("none").0, 200);
    let (status, head, _) = ask("abort");
    assert!(status == 418 && head.contains("fault-injected"), "{head}");
    let (status, _, took) = ask("delay-it");
    assert!(status == 200 && took >= Duration::from_millis(300), "{took:?}");
    assert_eq!((injected(&proxy, "abort"), injected(&proxy, "delay")), (1.0, 1.0));
    let recorded = || std::fs::read_to_string(&log).unwrap_or_default();
    eventually("all are recorded", || recorded().lines().count() == 3);
    let marks: Vec<bool> = recorded().lines().map(|line| line.contains("\"injected\":null")).collect();
    assert_eq!(marks, [true, false, false], "{}", recorded());
    assert_eq!(proxy.metric("onehop_cluster_requests_total", ""), 2.0, "an abort asks nobody");
}

#[test]
fn a_share_is_met() {
    let origin = Origin::echo();
    let proxy = start(&origin, "{ abort = 503, percent = 20 }");
    let mut client = proxy.connect("edge");
    let met = (0..400).filter(|_| client.get("/").status == 503).count();
    // Five standard deviations.
    assert!((40..=120).contains(&met), "{met}");
    assert_eq!(injected(&proxy, "abort"), met as f64);
}

#[test]
fn a_reset_is_one() {
    let origin = Origin::echo();
    let proxy = start(&origin, "{ reset = true }");
    let mut client = proxy.connect("edge");
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let read = client.stream().read(&mut [0; 16]);
    assert_eq!(read.expect_err("it is reset").kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(origin.accepted(), 0);
    run(async {
        let sender = connect(proxy.address("edge")).await;
        let request = http::Request::get("http://a/").body(()).expect("a request");
        let error = ask(&sender, request, Vec::new()).await.err().expect("its stream is reset");
        assert!(error.is_reset(), "{error}");
    });
    assert_eq!(injected(&proxy, "reset"), 2.0);
}

#[test]
fn a_slow_body_is_slow_and_whole() {
    let origin = Origin::start(|connection| {
        while let Some(head) = connection.head() {
            if head.starts_with("GET /chunked ") {
                connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1f4\r\n");
                connection.send([b'x'; 500]);
                connection.send("\r\n0\r\n\r\n");
            } else {
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n");
                connection.send([b'x'; 500]);
            }
        }
    });
    // Ten slices, nine waits of 50 ms between them.
    let proxy = start(&origin, "{ slow_body = \"1kB\" }");
    let mut client = proxy.connect("edge");
    for path in ["/", "/chunked"] {
        let begun = Instant::now();
        let response = client.get(path);
        assert!(response.whole && response.body == [b'x'; 500], "{path}: {response:?}");
        assert!(begun.elapsed() >= Duration::from_millis(400), "{path}: {:?}", begun.elapsed());
    }
    run(async {
        let sender = connect(proxy.address("edge")).await;
        let begun = Instant::now();
        let request = http::Request::get("http://a/").body(()).expect("a request");
        let answer = ask(&sender, request, Vec::new()).await.expect("answers");
        assert_eq!(answer.text().len(), 500);
        assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
    });
    assert_eq!(injected(&proxy, "slow-body"), 3.0);
}

#[test]
fn a_client_that_leaves_is_not_waited_for() {
    let origin = Origin::echo();
    let proxy = start(&origin, "{ delay = \"1h\" }");
    let mut client = proxy.connect("edge");
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it waits", || injected(&proxy, "delay") == 1.0);
    drop(client);
    eventually("it is over", || proxy.connections() == 0);
    assert_eq!(origin.accepted(), 0);
}
