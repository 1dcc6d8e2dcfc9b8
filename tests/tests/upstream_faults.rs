//! Upstreams that refuse, fall silent, break off or talk nonsense: the right status, or a reset, and nothing leaks.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use onehop_tests::{Origin, Proxy, eventually};

fn nobody() -> String {
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"c\"\n[[cluster]]\nname = \"c\"\nendpoints = [\"{free}\"]\n"
    )
}

#[test]
fn a_refused_connection_is_503_or_502_as_configured() {
    let proxy = Proxy::start(&nobody());
    let mut client = proxy.connect("edge");
    let response = client.get("/");
    assert_eq!(response.status, 503);
    assert!(
        response.field("proxy-status").is_some_and(|status| status.contains("connect-refused")),
        "{}",
        response.head
    );
    // The client did nothing wrong: its connection goes on.
    assert_eq!(client.get("/").status, 503);
    let proxy = Proxy::start(&nobody().replace("127.0.0.1:0\"", "127.0.0.1:0\"\nconnect_failure_status = 502"));
    assert_eq!(proxy.connect("edge").get("/").status, 502);
}

#[test]
fn the_next_endpoint_is_tried_when_one_refuses() {
    let origin = Origin::echo();
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    let config = origin.config("", "", "").replace("endpoints = [", &format!("endpoints = [\"{free}\", "));
    let proxy = Proxy::start(&config);
    for _ in 0..10 {
        assert_eq!(proxy.connect("edge").ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").status, 200);
    }
    assert!(proxy.metric("onehop_cluster_retries_total", "") >= 1.0);
}

#[test]
fn a_silent_upstream_is_504() {
    let origin = Origin::start(|connection| {
        connection.head();
        connection.wait_for_end();
    });
    let proxy = Proxy::start(&origin.config("", "timeout = \"100ms\"", ""));
    let response = proxy.connect("edge").get("/");
    assert_eq!(response.status, 504);
    assert!(
        response.field("proxy-status").is_some_and(|status| status.contains("upstream-timeout")),
        "{}",
        response.head
    );
}

#[test]
fn nonsense_is_502() {
    for nonsense in [
        "garbage\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 99 Low\r\n\r\n",
        "HTTP/1.1 200 OK\r\nBad Name: 1\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: surprise\r\n\r\n",
    ] {
        let origin = Origin::start(move |connection| {
            connection.head();
            connection.send(nonsense);
            connection.wait_for_end();
        });
        let proxy = Proxy::start(&origin.config("", "", ""));
        assert_eq!(proxy.connect("edge").get("/").status, 502, "{nonsense:?}");
    }
}

#[test]
fn a_break_before_the_response_is_503_and_within_the_head_502() {
    let origin = Origin::start(|connection| {
        connection.head();
    });
    let proxy = Proxy::start(&origin.config("", "", ""));
    assert_eq!(proxy.connect("edge").get("/").status, 503);
    let origin = Origin::start(|connection| {
        connection.head();
        connection.send("HTTP/1.1 200 OK\r\nContent-");
    });
    let proxy = Proxy::start(&origin.config("", "", ""));
    assert_eq!(proxy.connect("edge").get("/").status, 502);
}

#[test]
fn a_truncated_body_is_never_passed_off_as_complete() {
    for head in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let origin = Origin::start(move |connection| {
            connection.head();
            connection.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n5\r\nhello\r\n"));
        });
        let proxy = Proxy::start(&origin.config("", "", ""));
        let mut client = proxy.connect("edge");
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = client.response();
        assert!(!response.whole, "{head}: {response:?}");
        eventually("it is counted", || proxy.metric("onehop_listener_faults_total", "upstream-truncated") >= 1.0);
    }
}

#[test]
fn a_connection_that_the_upstream_closed_is_never_handed_out() {
    let origin = Origin::start(|connection| {
        // One answer, and then the end.
        connection.head();
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let proxy = Proxy::start_with(&origin.config("", "", ""), &["--workers", "1"], None);
    let mut client = proxy.connect("edge");
    for number in 1..=50 {
        // POST must not be repeated: only a connection that is open will do.
        let response = if number % 2 == 0 {
            client.get("/")
        } else {
            let before = number - 1;
            eventually("the last connection is closed", || origin.accepted() >= before);
            client.get("/")
        };
        assert_eq!((response.status, response.text().as_str()), (200, "ok"), "request {number}");
    }
}

#[test]
fn a_close_at_the_moment_of_reuse_is_repeated_for_idempotent_requests() {
    // The second request on every connection is read and then dropped without an answer.
    let origin = Origin::start(|connection| {
        connection.head();
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        connection.head();
    });
    let proxy = Proxy::start_with(&origin.config("", "", ""), &["--workers", "1"], None);
    let mut client = proxy.connect("edge");
    for number in 0..20 {
        let response = client.get("/");
        assert_eq!(response.status, 200, "request {number}: {}", response.head);
    }
    assert!(proxy.metric("onehop_route_retries_total", "") >= 5.0);
}

#[test]
fn a_post_on_a_connection_that_died_is_not_repeated() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let origin = Origin::start(move |connection| {
        while let Some(head) = connection.head() {
            connection.body(&head);
            if head.starts_with("POST") {
                count.fetch_add(1, Ordering::SeqCst);
                return;
            }
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let proxy = Proxy::start_with(&origin.config("", "", ""), &["--workers", "1"], None);
    let mut client = proxy.connect("edge");
    assert_eq!(client.get("/").status, 200);
    assert_eq!(client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").status, 503);
    assert_eq!(seen.load(Ordering::SeqCst), 1);
}

#[test]
fn an_early_answer_reaches_a_client_that_still_sends() {
    let origin = Origin::start(|connection| {
        connection.head();
        connection.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig");
        connection.finish();
        connection.wait_for_end();
    });
    let proxy = Proxy::start(&origin.config("", "", ""));
    let mut client = proxy.connect("edge");
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n");
    let mut stream = client.stream().try_clone().expect("a descriptor");
    let sender = std::thread::spawn(move || {
        let chunk = vec![b'x'; 65_536];
        // The proxy may close before all is sent.
        for _ in 0..20 {
            if stream.write_all(&chunk).is_err() {
                return;
            }
        }
    });
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (413, "big"));
    sender.join().expect("no panic");
}

#[test]
fn nothing_is_left_behind() {
    let origin = Origin::start(|connection| {
        connection.head();
        if connection.number % 2 == 0 {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort");
        }
    });
    let proxy = Proxy::start(&origin.config("", "", ""));
    proxy.connect("edge").get("/");
    eventually("the first is over", || proxy.connections() == 0);
    let before = proxy.descriptors();
    for _ in 0..100 {
        let mut client = proxy.connect("edge");
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.response();
    }
    eventually("every connection is gone", || proxy.connections() == 0);
    eventually("every descriptor is closed", || proxy.descriptors() <= before + 2);
    eventually("nothing is under way", || proxy.metric("onehop_cluster_active", "") == 0.0);
}
