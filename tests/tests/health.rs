//! Endpoints that fail are left alone for a while, whether requests or checks find out, and hands can take them out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use onehop_tests::{Client, Origin, Proxy, eventually};

/// An origin whose answers to `/healthz` and to everything else can be turned bad.
struct Sick {
    origin: Origin,
    is_sick: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

fn origin() -> Sick {
    let (is_sick, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (sick, count) = (is_sick.clone(), asked.clone());
    let origin = Origin::start(move |connection| {
        while let Some(head) = connection.head() {
            if !head.starts_with("GET /healthz ") {
                count.fetch_add(1, Ordering::SeqCst);
            }
            let status = if sick.load(Ordering::SeqCst) { "500 Bad" } else { "200 OK" };
            connection.send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
        }
    });
    Sick { origin, is_sick, asked }
}

fn start(origins: &[Sick], cluster: &str) -> Proxy {
    let endpoints: Vec<String> = origins.iter().map(|sick| format!("\"{}\"", sick.origin.address())).collect();
    Proxy::start(&format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"c\"\n[[cluster]]\nname = \"c\"\nendpoints = [{}]\n{cluster}\n",
        endpoints.join(", ")
    ))
}

fn state(proxy: &Proxy, sick: &Sick) -> (String, String) {
    let (_, text) = proxy.admin("/clusters");
    let clusters: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let address = sick.origin.address().to_string();
    let endpoints = clusters[0]["endpoints"].as_array().expect("endpoints").clone();
    let found = endpoints.into_iter().find(|endpoint| endpoint["address"] == address.as_str()).expect("it is there");
    (found["state"].as_str().unwrap_or("").to_owned(), found["reason"].as_str().unwrap_or("").to_owned())
}

#[test]
fn an_endpoint_that_fails_all_is_out_after_its_threshold_over_all_cores() {
    let origins = [origin(), origin(), origin()];
    origins[1].is_sick.store(true, Ordering::SeqCst);
    let proxy = start(&origins, "outlier = { consecutive_5xx = 5, ejection = \"60s\" }");
    // Many connections land on both cores.
    let mut clients: Vec<Client> = (0..20).map(|_| proxy.connect("edge")).collect();
    let mut failed = 0;
    for _ in 0..10 {
        for client in &mut clients {
            failed += usize::from(client.get("/").status == 500);
        }
    }
    // One request is in flight at a time: exactly the threshold fails.
    assert_eq!(failed, 5);
    assert_eq!(origins[1].asked.load(Ordering::SeqCst), 5);
    assert_eq!(state(&proxy, &origins[1]), ("ejected".to_owned(), "consecutive-5xx".to_owned()));
    assert_eq!(proxy.metric("onehop_cluster_ejections_total", ""), 1.0);
    assert_eq!(state(&proxy, &origins[0]).0, "healthy");
    // Health is no change of configuration: nothing was compiled, and the cores have taken nothing over.
    assert_eq!(proxy.metric("onehop_core_installs_total", ""), 0.0);
}

#[test]
fn an_ejected_endpoint_comes_back() {
    let origins = [origin(), origin()];
    origins[0].is_sick.store(true, Ordering::SeqCst);
    let proxy = start(&origins, "outlier = { consecutive_5xx = 2, ejection = \"1s\" }");
    let mut client = proxy.connect("edge");
    eventually("it is ejected", || {
        client.get("/");
        state(&proxy, &origins[0]).0 == "ejected"
    });
    let said = proxy.wait_for_error("is ejected for ");
    assert!(said.contains(&origins[0].origin.address().to_string()) && said.ends_with(": consecutive-5xx"), "{said}");
    origins[0].is_sick.store(false, Ordering::SeqCst);
    let before = origins[0].asked.load(Ordering::SeqCst);
    eventually("it serves again", || {
        client.get("/");
        origins[0].asked.load(Ordering::SeqCst) > before
    });
    proxy.wait_for_error("is no longer ejected");
}

#[test]
fn an_ejection_ends_by_hand() {
    let origins = [origin(), origin()];
    origins[0].is_sick.store(true, Ordering::SeqCst);
    let proxy = start(&origins, "outlier = { consecutive_5xx = 1, ejection = \"600s\" }");
    let mut client = proxy.connect("edge");
    eventually("it is ejected", || {
        client.get("/");
        state(&proxy, &origins[0]).0 == "ejected"
    });
    // What begins and ends between two looks of the agent would be said of neither.
    proxy.wait_for_error("is ejected for");
    origins[0].is_sick.store(false, Ordering::SeqCst);
    let path = format!("/clusters/restore?cluster=c&endpoint={}", origins[0].origin.address());
    assert_eq!(proxy.admin_post(&path).0, 200);
    assert_eq!(state(&proxy, &origins[0]).0, "healthy");
    let before = origins[0].asked.load(Ordering::SeqCst);
    eventually("it serves again", || {
        assert_eq!(client.get("/").status, 200);
        origins[0].asked.load(Ordering::SeqCst) > before
    });
    proxy.wait_for_error("is no longer ejected");
}

#[test]
fn never_more_than_the_allowed_share_is_ejected() {
    let origins = [origin(), origin(), origin(), origin()];
    origins.iter().for_each(|sick| sick.is_sick.store(true, Ordering::SeqCst));
    let proxy = start(&origins, "outlier = { consecutive_5xx = 1, ejection = \"60s\", max_ejected = 50 }");
    let mut client = proxy.connect("edge");
    for _ in 0..40 {
        assert_eq!(client.get("/").status, 500);
    }
    let ejected = origins.iter().filter(|sick| state(&proxy, sick).0 == "ejected").count();
    assert_eq!(ejected, 2);
}

#[test]
fn checks_take_an_endpoint_out_and_bring_it_back() {
    let origins = [origin(), origin()];
    origins[0].is_sick.store(true, Ordering::SeqCst);
    let health = "health = { http = \"/healthz\", interval = \"50ms\", unhealthy = 2, healthy = 2 }";
    let proxy = start(&origins, health);
    eventually("it is unhealthy", || state(&proxy, &origins[0]).0 == "unhealthy");
    assert_eq!(state(&proxy, &origins[0]).1, "it answered 500");
    let before = origins[0].asked.load(Ordering::SeqCst);
    let mut client = proxy.connect("edge");
    for _ in 0..20 {
        assert_eq!(client.get("/").status, 200);
    }
    assert_eq!(origins[0].asked.load(Ordering::SeqCst), before, "an unhealthy endpoint was asked");
    origins[0].is_sick.store(false, Ordering::SeqCst);
    eventually("it serves again", || {
        client.get("/");
        origins[0].asked.load(Ordering::SeqCst) > before
    });
    assert!(proxy.metric("onehop_health_checks_total", "") > 3.0);
}

#[test]
fn a_check_that_is_accepted_and_never_answered_fails() {
    let silent = Origin::start(onehop_tests::Connection::wait_for_end);
    let good = origin();
    let proxy = Proxy::start(&format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"c\"\n[[cluster]]\nname = \"c\"\nendpoints = [\"{}\", \"{}\"]\nhealth = {{ http = \"/healthz\", interval = \"50ms\", timeout = \"2s\", unhealthy = 1 }}\n",
        silent.address(),
        good.origin.address()
    ));
    eventually("it is unhealthy", || proxy.admin("/clusters").1.contains("no answer in time"));
    let mut client = proxy.connect("edge");
    for _ in 0..10 {
        assert_eq!(client.get("/").status, 200);
    }
}

#[test]
fn priorities_fail_over_and_back() {
    let origins = [origin(), origin()];
    let proxy = Proxy::start(&format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"c\"\n[[cluster]]\nname = \"c\"\nendpoints = [\"{}\", {{ address = \"{}\", priority = 1 }}]\nhealth = {{ http = \"/healthz\", interval = \"50ms\", unhealthy = 1, healthy = 1 }}\n",
        origins[0].origin.address(),
        origins[1].origin.address()
    ));
    let asked = |at: usize| origins[at].asked.load(Ordering::SeqCst);
    let mut client = proxy.connect("edge");
    for _ in 0..20 {
        assert_eq!(client.get("/").status, 200);
    }
    assert_eq!((asked(0), asked(1)), (20, 0));
    origins[0].is_sick.store(true, Ordering::SeqCst);
    eventually("the second tier serves", || client.get("/").status == 200 && asked(1) > 0);
    origins[0].is_sick.store(false, Ordering::SeqCst);
    let before = asked(0);
    eventually("the first tier serves again", || client.get("/").status == 200 && asked(0) > before);
}

#[test]
fn a_value_stays_with_its_endpoint() {
    let origins = [origin(), origin(), origin()];
    for balance in ["maglev", "ring-hash"] {
        let proxy = start(&origins, &format!("balance = \"{balance}\"\nhash_on = {{ header = \"x-user\" }}"));
        for user in 0..10 {
            let before: Vec<usize> = origins.iter().map(|sick| sick.asked.load(Ordering::SeqCst)).collect();
            for _ in 0..6 {
                let mut client = proxy.connect("edge");
                client.ask(format!("GET / HTTP/1.1\r\nHost: a\r\nX-User: {user}\r\n\r\n"));
            }
            let moved =
                origins.iter().zip(before).filter(|(sick, old)| sick.asked.load(Ordering::SeqCst) > *old).count();
            assert_eq!(moved, 1, "{balance}: user {user} was sent to {moved} endpoints");
        }
    }
}

#[test]
fn when_every_endpoint_is_out_the_panic_threshold_decides() {
    for (threshold, status) in [(50, 500), (0, 503)] {
        let origins = [origin(), origin()];
        origins.iter().for_each(|sick| sick.is_sick.store(true, Ordering::SeqCst));
        let health = format!(
            "panic_threshold = {threshold}\nhealth = {{ http = \"/healthz\", interval = \"50ms\", unhealthy = 1, healthy = 1 }}"
        );
        let proxy = start(&origins, &health);
        eventually("all are out", || origins.iter().all(|sick| state(&proxy, sick).0 == "unhealthy"));
        // Either health is not looked at, and the endpoints' own answers come through, or nobody is asked.
        eventually("the threshold decides", || proxy.connect("edge").get("/").status == status);
        origins.iter().for_each(|sick| sick.is_sick.store(false, Ordering::SeqCst));
        eventually("they serve again", || proxy.connect("edge").get("/").status == 200);
    }
}

/// Requests alone never put out all endpoints of a cluster, and the one that is left goes on being asked. With another one
/// drained by hand all are out, and the panic threshold decides; whoever is drained stays so.
#[test]
fn when_requests_put_out_every_endpoint_the_panic_threshold_decides() {
    for (threshold, status) in [(50, 500), (0, 503)] {
        let origins = [origin(), origin(), origin()];
        origins.iter().for_each(|sick| sick.is_sick.store(true, Ordering::SeqCst));
        let outlier = "outlier = { consecutive_5xx = 1, ejection = \"600s\", max_ejected = 100 }";
        let proxy = start(&origins, &format!("panic_threshold = {threshold}\n{outlier}"));
        let mut client = proxy.connect("edge");
        let out = || origins.iter().filter(|sick| state(&proxy, sick).0 == "ejected").count();
        eventually("two are out", || {
            assert_eq!(client.get("/").status, 500, "the third one always answers");
            out() == 2
        });
        for _ in 0..10 {
            assert_eq!(client.get("/").status, 500);
        }
        assert_eq!(out(), 2);
        let last = origins.iter().find(|sick| state(&proxy, sick).0 == "healthy").expect("one is left");
        let path = |action: &str| format!("/clusters/{action}?cluster=c&endpoint={}", last.origin.address());
        assert_eq!(proxy.admin_post(&path("drain")).0, 200);
        let before = last.asked.load(Ordering::SeqCst);
        for _ in 0..10 {
            // Either the ejected ones are asked all the same, and their own answers come through, or nobody is.
            assert_eq!(client.get("/").status, status);
        }
        assert_eq!(last.asked.load(Ordering::SeqCst), before, "a drained endpoint was asked");
        // Panic lets nobody in again: that is what the end of the ejection is for.
        assert_eq!(out(), 2);
        last.is_sick.store(false, Ordering::SeqCst);
        assert_eq!(proxy.admin_post(&path("restore")).0, 200);
        eventually("it serves again", || client.get("/").status == 200);
    }
}

/// The clock jumps for a process that is stopped for a while, as for a machine that was suspended or moved: everything that
/// was timed is due at once.
#[test]
fn a_process_that_stood_still_goes_on() {
    let origins = [origin(), origin()];
    let cluster = "outlier = { consecutive_5xx = 3, ejection = \"200ms\", interval = \"100ms\" }\nhealth = { http = \"/healthz\", interval = \"50ms\", timeout = \"300ms\", unhealthy = 1, healthy = 1 }\npool = { idle_timeout = \"500ms\" }";
    let proxy = start(&origins, cluster);
    let mut idle = proxy.connect("edge");
    for _ in 0..4 {
        assert_eq!(idle.get("/").status, 200);
    }
    eventually("checks are made", || proxy.metric("onehop_health_checks_total", "") >= 4.0);
    proxy.signal("STOP");
    let mut waiting = proxy.connect("edge");
    waiting.send("GET /meanwhile HTTP/1.1\r\nHost: a\r\n\r\n");
    // The fault itself: longer than every time-out above.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    proxy.signal("CONT");
    assert_eq!(waiting.response().status, 200);
    assert_eq!(idle.get("/").status, 200);
    eventually("it is alive and ready", || proxy.admin("/live").0 == 200 && proxy.admin("/ready").0 == 200);
    // What was found out about the endpoints before is worth nothing by now; they are found out about anew.
    eventually("both are healthy", || origins.iter().all(|sick| state(&proxy, sick).0 == "healthy"));
    let asked = || origins.iter().map(|sick| sick.asked.load(Ordering::SeqCst)).collect::<Vec<_>>();
    let before = asked();
    eventually("both serve", || {
        assert_eq!(idle.get("/").status, 200);
        asked().iter().zip(&before).all(|(now, before)| now > before)
    });
}

/// Answers in turn by these statuses, each after a while.
fn answering(statuses: &'static [&'static str], millis: u64) -> Origin {
    let count = AtomicUsize::new(0);
    Origin::start(move |connection| {
        while connection.head().is_some() {
            std::thread::sleep(std::time::Duration::from_millis(millis));
            let status = statuses[count.fetch_add(1, Ordering::SeqCst) % statuses.len()];
            connection.send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
        }
    })
}

#[test]
fn each_kind_of_failure_ejects_by_its_name() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    let window = "min_requests = 10, interval = \"300ms\"";
    for (policy, bad, cause) in [
        ("consecutive_gateway_errors = 3".to_owned(), Some(answering(&["503 Busy"], 0)), "consecutive-gateway-errors"),
        ("consecutive_connect_failures = 2".to_owned(), None, "consecutive-connect-failures"),
        (format!("success_rate = 0.8, {window}"), Some(answering(&["500 Bad", "200 OK"], 0)), "success-rate"),
        (format!("latency_factor = 4, {window}"), Some(answering(&["200 OK"], 30)), "latency"),
    ] {
        let good = [answering(&["200 OK"], 0), answering(&["200 OK"], 0)];
        let bad = bad.as_ref().map_or(free, Origin::address);
        let proxy = Proxy::start(&format!(
            "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"c\"\n[[cluster]]\nname = \"c\"\nendpoints = [\"{bad}\", \"{}\", \"{}\"]\noutlier = {{ consecutive_5xx = 1000, {policy}, ejection = \"60s\" }}\n",
            good[0].address(),
            good[1].address()
        ));
        let mut client = proxy.connect("edge");
        eventually(cause, || {
            client.get("/");
            let shown = proxy
                .metric("onehop_endpoint_state", &format!("endpoint=\"{bad}\",state=\"ejected\",reason=\"{cause}\""));
            shown == 1.0
        });
        let said = proxy.wait_for_error(&format!("{bad} is ejected for "));
        assert!(said.ends_with(&format!(": {cause}")), "{said}");
    }
}
