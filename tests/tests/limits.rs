//! What is refused so that the rest is served: rates by key, requests in flight, and what a saturated core sheds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};

use onehop_tests::{Client, Origin, Proxy, eventually};

fn start(origin: &Origin, routes: &str) -> Proxy {
    start_with(origin, routes, "", "")
}

fn start_with(origin: &Origin, routes: &str, listener: &str, runtime: &str) -> Proxy {
    Proxy::start(&format!(
        "[runtime]\n{runtime}\n[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n{listener}\n{routes}\n[[cluster]]\nname = \"o\"\nendpoints = [\"{}\"]\n",
        origin.address()
    ))
}

#[test]
fn a_rate_by_header_is_exact_over_all_cores() {
    let origin = Origin::echo();
    let proxy = start(
        &origin,
        "[[route]]\ncluster = \"o\"\nrate_limits = [{ requests = 10, per = \"1h\", by = { header = \"x-api-key\" } }]\n",
    );
    // Twenty connections land on both cores.
    let mut clients: Vec<Client> = (0..20).map(|_| proxy.connect("edge")).collect();
    let mut passed = |key: &str| {
        let ask = |client: &mut Client| client.ask(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\n\r\n"));
        clients.iter_mut().map(ask).filter(|response| response.status == 200).count()
    };
    assert_eq!((passed("one"), passed("one"), passed("two")), (10, 0, 10));
    let refused = clients[0].ask("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: one\r\n\r\n");
    assert_eq!(refused.status, 429);
    let number = |name: &str| refused.field(name).and_then(|text| text.parse::<u64>().ok());
    assert!(number("retry-after").is_some_and(|seconds| (1..=360).contains(&seconds)), "{}", refused.head);
    assert_eq!(refused.field("ratelimit-policy"), Some("\"header\";q=10;w=3600"));
    assert!(refused.field("ratelimit").is_some_and(|text| text.starts_with("\"header\";r=0;t=")), "{}", refused.head);
    assert!(refused.field("proxy-status").is_some_and(|text| text.contains("rate-limited")), "{}", refused.head);
    // Those who lack the value share one allowance; the connection that was refused goes on.
    let passed = (0..20).filter(|_| clients[0].get("/").status == 200).count();
    assert_eq!(passed, 10);
    assert_eq!(proxy.metric("onehop_route_rate_limited_total", ""), 51.0);
    assert_eq!(proxy.metric("onehop_listener_faults_total", "rate-limited"), 51.0);
}

#[test]
fn a_rate_goes_on_over_a_change_of_configuration() {
    let origin = Origin::echo();
    let proxy = start(
        &origin,
        "[[route]]\nname = \"r\"\ncluster = \"o\"\nrate_limits = [{ requests = 3, per = \"1h\", by = { source = true } }]\n",
    );
    let mut client = proxy.connect("edge");
    let mut statuses = || (0..4).map(|_| client.get("/").status).collect::<Vec<_>>();
    assert_eq!(statuses(), [200, 200, 200, 429]);
    let text = std::fs::read_to_string(&proxy.config).expect("readable");
    std::fs::write(&proxy.config, format!("{text}\n[[route]]\npath = {{ prefix = \"/x\" }}\ncluster = \"o\"\n"))
        .expect("writes");
    proxy.wait_for_error("is in force");
    assert_eq!(statuses(), [429; 4]);
}

/// An origin that holds its answers until it is told to go on.
fn held() -> (Origin, Sender<()>, Arc<AtomicUsize>) {
    let (go, wait): (Sender<()>, Receiver<()>) = channel();
    let (wait, asked) = (Mutex::new(wait), Arc::new(AtomicUsize::new(0)));
    let count = asked.clone();
    let origin = Origin::start(move |connection| {
        while connection.head().is_some() {
            count.fetch_add(1, Ordering::SeqCst);
            let told = wait.lock().unwrap_or_else(PoisonError::into_inner).recv();
            if told.is_err() {
                return;
            }
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    (origin, go, asked)
}

#[test]
fn requests_in_flight_are_bounded_by_route_and_by_listener() {
    let (origin, go, asked) = held();
    let proxy = start_with(
        &origin,
        "[[route]]\npath = { prefix = \"/a\" }\ncluster = \"o\"\nlimits = { requests = 3 }\n[[route]]\ncluster = \"o\"\n",
        "limits = { requests = 5 }",
        "",
    );
    let mut clients: Vec<Client> = (0..12).map(|_| proxy.connect("edge")).collect();
    let send = |client: &mut Client, path: &str| client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    clients[..3].iter_mut().for_each(|client| send(client, "/a"));
    eventually("three are in flight", || asked.load(Ordering::SeqCst) == 3);
    for client in &mut clients[5..8] {
        let refused = client.get("/a");
        assert_eq!(refused.status, 503);
        assert!(refused.field("proxy-status").is_some_and(|text| text.contains("overflow")), "{}", refused.head);
        assert!(refused.field("retry-after").is_some());
    }
    clients[3..5].iter_mut().for_each(|client| send(client, "/b"));
    eventually("five are in flight", || asked.load(Ordering::SeqCst) == 5);
    assert_eq!(clients[8].get("/b").status, 503);
    (0..5).for_each(|_| go.send(()).expect("the origin waits"));
    for client in &mut clients[..5] {
        assert_eq!(client.response().status, 200);
    }
    // Every place is free again, also those of refused requests and of clients that left.
    clients[..3].iter_mut().for_each(|client| send(client, "/a"));
    eventually("three are in flight", || asked.load(Ordering::SeqCst) == 8);
    drop(clients);
    (0..100).for_each(|_| go.send(()).expect("the origin waits"));
    eventually("the places of those who left are free", || proxy.connect("edge").get("/a").status == 200);
}

#[test]
fn a_saturated_core_sheds_the_lowest_priority_first_and_live_answers() {
    let origin = Origin::echo();
    let route =
        |name: &str| format!("[[route]]\npath = {{ prefix = \"/{name}\" }}\npriority = \"{name}\"\ncluster = \"o\"\n");
    let routes = ["low", "normal", "high", "critical"].map(route).concat();
    // No task ever has its turn within a nanosecond: to this target the core is always saturated.
    let proxy = start_with(&origin, &routes, "", "shed_after = \"0.001us\"");
    let mut client = proxy.connect("edge");
    let mut shed_at = Vec::new();
    for name in ["low", "normal", "high"] {
        eventually("it is shed", || {
            let response = client.get(&format!("/{name}"));
            assert_eq!(client.get("/critical").status, 200);
            response.status == 503 && response.field("proxy-status").is_some_and(|text| text.contains("\"shed\""))
        });
        shed_at.push(proxy.metric("onehop_core_pressure_milli", ""));
    }
    // The next priority is touched only once all of the lower one is refused.
    assert!(shed_at[1] > 1000.0 && shed_at[2] > 2000.0, "{shed_at:?}");
    assert_eq!(proxy.admin("/live").0, 200);
    assert!(proxy.metric("onehop_route_shed_total", "") >= 3.0);
}

#[test]
fn without_saturation_nothing_is_shed() {
    let origin = Origin::echo();
    let proxy = start_with(&origin, "[[route]]\npriority = \"low\"\ncluster = \"o\"\n", "", "shed_after = \"5s\"");
    let mut client = proxy.connect("edge");
    for _ in 0..200 {
        assert_eq!(client.get("/").status, 200);
    }
}

#[test]
fn adaptive_concurrency_lets_in_no_more_than_its_limit() {
    let (origin, go, asked) = held();
    let proxy =
        Proxy::start_with(&origin.config("", "", "adaptive = { initial = 4, max = 100 }"), &["--workers", "1"], None);
    let mut clients: Vec<Client> = (0..6).map(|_| proxy.connect("edge")).collect();
    for client in &mut clients[..4] {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    eventually("four are in flight", || asked.load(Ordering::SeqCst) == 4);
    assert_eq!(clients[4].get("/").status, 503);
    assert_eq!(proxy.metric("onehop_cluster_overflow_total", ""), 1.0);
    // Which of the waiting connections takes a turn is open: all get theirs before any answer is waited for.
    for _ in 0..4 {
        go.send(()).expect("the origin waits");
    }
    for client in &mut clients[..4] {
        assert_eq!(client.response().status, 200);
    }
}

#[test]
fn the_example_does_what_it_says() {
    let origin = Origin::echo();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/limits.toml");
    let text = std::fs::read_to_string(path).expect("readable");
    let text = text
        .replace("0.0.0.0:8080", "127.0.0.1:0")
        .replace("\"10.0.0.1:8080\", \"10.0.0.2:8080\"", &format!("\"{}\"", origin.address()))
        .replace("admin = \"127.0.0.1:9901\"\n", "");
    let proxy = Proxy::start(&text);
    let mut client = proxy.connect("edge");
    let statuses: Vec<u16> = (0..7).map(|_| client.get("/login").status).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 429, 429]);
    let passed =
        (0..120).filter(|_| client.ask("GET /api/x HTTP/1.1\r\nHost: a\r\nX-Api-Key: k\r\n\r\n").status == 200).count();
    // A burst of a hundred, and what the minute's rate replenished meanwhile.
    assert!((100..120).contains(&passed), "{passed}");
    assert_eq!(client.get("/reports").status, 200);
    assert_eq!(client.get("/healthz").text(), "ok");
}
