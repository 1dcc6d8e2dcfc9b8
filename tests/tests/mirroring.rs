//! Copies of requests to another cluster: whole, unanswered, and of no consequence for the caller.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use onehop_tests::{Origin, Proxy, eventually};

type Notes = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

fn noting(answer: &'static str) -> (Origin, Notes) {
    let notes: Notes = Arc::default();
    let seen = notes.clone();
    let origin = Origin::start(move |connection| {
        while let Some(head) = connection.head() {
            let body = connection.body(&head);
            seen.lock().expect("no panic").push((head, body));
            connection.send(answer);
        }
    });
    (origin, notes)
}

fn config(origin: &Origin, shadow: std::net::SocketAddr, mirror: &str) -> String {
    let route = format!("name = \"r\"\nmirror = {{ cluster = \"shadow\"{mirror} }}");
    format!(
        "{}[[cluster]]\nname = \"shadow\"\nendpoints = [\"{shadow}\"]\nconnect_timeout = \"300ms\"\n",
        origin.config("", &route, "")
    )
}

const FINE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n";

#[test]
fn copies_are_whole_and_keep_their_connection() {
    let origin = Origin::echo();
    let (shadow, notes) = noting("HTTP/1.1 500 Broken\r\nContent-Length: 6\r\n\r\nbroken");
    let proxy =
        Proxy::start_with(&config(&origin, shadow.address(), ", shadow_host = true"), &["--workers", "1"], None);
    let mut client = proxy.connect("edge");
    for number in 0..5 {
        assert_eq!(client.get(&format!("/{number}")).status, 200);
        eventually("the copy is there", || notes.lock().expect("no panic").len() == number + 1);
        // Its answer too has been read, and its connection is free.
        eventually("the copy has ended", || proxy.metric("onehop_cluster_active", "cluster=\"shadow\"") == 0.0);
    }
    let text =
        "POST /post HTTP/1.1\r\nHost: a:81\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    assert_eq!(client.ask(text).status, 200);
    eventually("the copy is there", || notes.lock().expect("no panic").len() == 6);
    let notes = notes.lock().expect("no panic").clone();
    assert!(notes[0].0.contains("Host: test-shadow\r\n"), "{}", notes[0].0);
    let (head, body) = &notes[5];
    assert!(head.starts_with("POST /post ") && head.contains("Host: a-shadow:81\r\n"), "{head}");
    let body = String::from_utf8_lossy(body);
    let unframed: String = body.split("\r\n").filter(|line| ["hello", " world"].contains(line)).collect();
    assert_eq!(unframed, "hello world", "{body:?}");
    assert_eq!(shadow.accepted(), 1);
    assert_eq!(proxy.metric("onehop_route_mirrored_total", "route=\"r\""), 6.0);
    // The caller's own host is not touched.
    assert_eq!(proxy.metric("onehop_route_responses_total", "class=\"5xx\""), 0.0);
}

#[test]
fn a_share_of_the_requests_is_copied() {
    let origin = Origin::echo();
    let (shadow, notes) = noting("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let proxy = Proxy::start(&config(&origin, shadow.address(), ", percent = 25"));
    let mut client = proxy.connect("edge");
    (0..400).for_each(|_| assert_eq!(client.get("/").status, 200));
    let mirrored = || proxy.metric("onehop_route_mirrored_total", "");
    eventually("all copies are there", || notes.lock().expect("no panic").len() as f64 == mirrored());
    // Five standard deviations.
    assert!((55.0..=145.0).contains(&mirrored()), "{}", mirrored());
}

#[test]
fn a_mirror_that_is_stuck_or_gone_is_not_felt() {
    let origin = Origin::echo();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let stuck = Origin::start(move |connection| {
        connection.head();
        count.fetch_add(1, Ordering::SeqCst);
        connection.wait_for_end();
    });
    let config_of = |shadow| config(&origin, shadow, ", max_in_flight = 2");
    let proxy = Proxy::start_with(&config_of(stuck.address()), &["--workers", "1"], None);
    let mut client = proxy.connect("edge");
    (0..20).for_each(|_| assert_eq!(client.get("/").status, 200));
    assert_eq!(proxy.metric("onehop_route_mirrors_dropped_total", ""), 18.0);
    eventually("two are under way", || asked.load(Ordering::SeqCst) == 2);
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    let proxy = Proxy::start(&config_of(free));
    let mut client = proxy.connect("edge");
    for _ in 0..5 {
        assert_eq!(client.get("/").status, 200);
    }
    eventually("they failed", || {
        let figure = |name| proxy.metric(name, "");
        figure("onehop_route_mirrors_failed_total") + figure("onehop_route_mirrors_dropped_total") == 5.0
    });
}

#[test]
fn what_is_too_long_is_not_copied_and_a_long_answer_is_read_within_bounds() {
    let (origin, bodies) = noting("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let answered = Arc::new(AtomicUsize::new(0));
    let count = answered.clone();
    let shadow = Origin::start(move |connection| {
        while let Some(head) = connection.head() {
            connection.body(&head);
            connection.send(FINE);
            connection.send(vec![b'x'; 300_000]);
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let configured = config(&origin, shadow.address(), ", max_body = \"1KiB\"");
    let proxy = Proxy::start_with(&configured, &["--workers", "1"], None);
    let mut client = proxy.connect("edge");
    let put =
        |length: usize| format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{}", "x".repeat(length));
    assert_eq!(client.ask(put(100_000)).status, 200);
    let chunked = format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        90_000,
        "x".repeat(90_000)
    );
    assert_eq!(client.ask(chunked).status, 200);
    eventually("both are dropped", || proxy.metric("onehop_route_mirrors_dropped_total", "") == 2.0);
    assert_eq!(bodies.lock().expect("no panic")[0].1.len(), 100_000);
    for number in 1..=3 {
        assert_eq!(client.ask(put(1000)).status, 200);
        eventually("its copy is answered", || answered.load(Ordering::SeqCst) == number);
        eventually("and over", || proxy.metric("onehop_cluster_active", "cluster=\"shadow\"") == 0.0);
    }
    assert_eq!(shadow.accepted(), 1, "answers are read to their end");
}

#[test]
fn a_mirror_that_leads_back_is_refused() {
    let folder = onehop_tests::folder();
    let check = |listener: &str, shadow: &str| {
        let text = format!(
            "[[listener]]\nname = \"edge\"\naddress = \"{listener}\"\n[[route]]\ncluster = \"a\"\nmirror = {{ cluster = \"b\" }}\n[[cluster]]\nname = \"a\"\nendpoints = [\"127.0.0.1:9\"]\n[[cluster]]\nname = \"b\"\nendpoints = [\"{shadow}\"]\n"
        );
        let path = folder.join("onehop.toml");
        std::fs::write(&path, text).expect("writes");
        let output =
            std::process::Command::new(onehop_tests::binary()).arg("check").arg("--config").arg(&path).output();
        let output = output.expect("runs");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert!(check("127.0.0.1:14080", "127.0.0.1:9").0);
    let (fits, why) = check("127.0.0.1:14080", "127.0.0.1:14080");
    assert!(!fits && why.contains("leads back"), "{why}");
    let (fits, why) = check("0.0.0.0:14080", "127.0.0.1:14080");
    assert!(!fits && why.contains("leads back"), "{why}");
}

/// A circle over another process cannot be seen in a configuration: the copy that comes back is refused, and neither
/// copied again nor passed on.
#[test]
fn a_circle_over_another_proxy_ends_where_it_began() {
    let origin = Origin::echo();
    // The other proxy passes everything on to wherever the first one listens, which is known only once it runs.
    let other = Proxy::start(&origin.config("", "", ""));
    let first = Proxy::start(&config(&origin, other.address("edge"), ""));
    let text = std::fs::read_to_string(&other.config).expect("readable");
    let back = text.replace(&origin.address().to_string(), &first.address("edge").to_string());
    std::fs::write(&other.config, back).expect("writes");
    other.wait_for_error("is in force");
    for number in 1..=5 {
        assert_eq!(first.connect("edge").get("/").status, 200);
        eventually("the copy is back and refused", || {
            first.metric("onehop_listener_faults_total", "\"loop\"") == f64::from(number)
        });
    }
    assert_eq!(first.metric("onehop_route_mirrored_total", ""), 5.0);
}

/// What became of a call is in its trailers, whoever reads them.
#[test]
fn how_mirrored_calls_end_is_booked_with_their_endpoints() {
    use onehop_tests::http2::{Http2Origin, ask, connect, run};
    let ends_with = |status: &'static str| {
        Http2Origin::start(move |mut incoming| async move {
            let mut head = http::Response::new(());
            let field = http::HeaderValue::from_static;
            head.headers_mut().insert("content-type", field("application/grpc"));
            let Ok(mut send) = incoming.respond.send_response(head, false) else { return };
            let _ = send.send_data(bytes::Bytes::from_static(&[0; 5]), false);
            let status = (http::HeaderName::from_static("grpc-status"), field(status));
            let _ = send.send_trailers(http::HeaderMap::from_iter([status]));
        })
    };
    let origin = ends_with("0");
    for (status, ejects) in [("14", true), ("5", false)] {
        let (bad, good) = (ends_with(status), ends_with("0"));
        let shadow = format!(
            "[[cluster]]\nname = \"shadow\"\nprotocol = \"http2\"\nendpoints = [\"{}\", \"{}\"]\noutlier = {{ consecutive_5xx = 3, ejection = \"10m\" }}\n",
            bad.address(),
            good.address()
        );
        let config = origin.config("", "name = \"r\"\nmirror = { cluster = \"shadow\" }", "") + &shadow;
        let proxy = Proxy::start_with(&config, &["--workers", "1"], None);
        run(async {
            let sender = connect(proxy.address("edge")).await;
            for number in 1..=8 {
                let request = http::Request::post("http://test/s/m").header("content-type", "application/grpc");
                let request = request.header("te", "trailers").body(()).expect("well-formed");
                let answer = ask(&sender, request, vec![0; 5]).await.expect("answers");
                assert_eq!(answer.trailers["grpc-status"], "0");
                eventually("the copy has ended", || {
                    proxy.metric("onehop_route_mirrored_total", "") == f64::from(number)
                        && proxy.metric("onehop_cluster_active", "cluster=\"shadow\"") == 0.0
                });
            }
        });
        let ejections = || proxy.metric("onehop_cluster_ejections_total", "cluster=\"shadow\"");
        if ejects {
            eventually("it is ejected", || ejections() == 1.0);
        } else {
            assert_eq!(ejections(), 0.0);
        }
        // They are no calls of the route's callers.
        assert_eq!(proxy.metric("onehop_route_grpc_calls_total", "status=\"14\""), 0.0);
    }
}
