//! What narrows the choice of an endpoint: subsets by label, the cookie that keeps a client where it was, limits of each
//! endpoint, and the age of the line for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use onehop_tests::{Client, Origin, Proxy, eventually};

/// An origin that answers with its name.
fn named(name: &'static str) -> Origin {
    Origin::start(move |connection| {
        while connection.head().is_some() {
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len()));
        }
    })
}

fn start(routes: &str, endpoints: &str, cluster: &str) -> Proxy {
    Proxy::start(&format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n{routes}\n[[cluster]]\nname = \"c\"\nendpoints = [{endpoints}]\n{cluster}\n"
    ))
}

fn labelled(origin: &Origin, labels: &str) -> String {
    format!("{{ address = \"{}\", labels = {{ {labels} }} }}", origin.address())
}

#[test]
fn a_route_asks_for_a_subset_and_falls_back_as_it_is_told() {
    let (one, two, three) = (named("one"), named("two"), named("three"));
    let endpoints = [
        labelled(&one, "version = \"1\", zone = \"a\""),
        labelled(&two, "version = \"2\", zone = \"a\""),
        labelled(&three, "version = \"2\", zone = \"b\""),
    ]
    .join(", ");
    let routes = "[[route]]\npath = { prefix = \"/v1\" }\ncluster = \"c\"\nsubset = { version = \"1\" }\n[[route]]\npath = { prefix = \"/v2b\" }\nsplit = [{ cluster = \"c\", subset = { version = \"2\", zone = \"b\" } }]\n[[route]]\npath = { prefix = \"/v2\" }\ncluster = \"c\"\nsubset = { version = \"2\" }\n[[route]]\ncluster = \"c\"\n";
    let seen = |proxy: &Proxy, path: &str| {
        let mut client = proxy.connect("edge");
        let mut names: Vec<String> = (0..12).map(|_| client.get(path).text()).collect();
        names.sort();
        names.dedup();
        names
    };
    for balance in ["round-robin", "least-request", "peak-ewma", "random"] {
        let proxy = start(routes, &endpoints, &format!("balance = \"{balance}\""));
        assert_eq!(seen(&proxy, "/v1"), ["one"], "{balance}");
        assert_eq!(seen(&proxy, "/v2b"), ["three"], "{balance}");
        let both = seen(&proxy, "/v2");
        assert!(both.iter().all(|name| name != "one"), "{balance}: {both:?}");
        // The others follow chance or latency, and may pass an endpoint by.
        if balance == "round-robin" {
            assert_eq!(both.len(), 2);
            assert_eq!(seen(&proxy, "/").len(), 3);
        }
    }
    let drain = |proxy: &Proxy| {
        let path = format!("/clusters/drain?cluster=c&endpoint={}", one.address());
        assert_eq!(proxy.admin_post(&path).0, 200);
    };
    let proxy = start(routes, &endpoints, "");
    drain(&proxy);
    assert_eq!(proxy.connect("edge").get("/v1").status, 503);
    let proxy = start(routes, &endpoints, "subset_fallback = \"any\"");
    drain(&proxy);
    assert_eq!(seen(&proxy, "/v1"), ["three", "two"]);
    let proxy = start(routes, &endpoints, "subset_fallback = \"default\"\ndefault_subset = { zone = \"b\" }");
    drain(&proxy);
    assert_eq!(seen(&proxy, "/v1"), ["three"]);
}

#[test]
fn a_subset_that_nobody_is_in_is_refused_with_its_position() {
    let folder = onehop_tests::folder();
    let config = folder.join("onehop.toml");
    let text = "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"c\"\nsubset = { version = \"3\" }\n[[cluster]]\nname = \"c\"\nendpoints = [{ address = \"127.0.0.1:9\", labels = { version = \"2\" } }]\n";
    std::fs::write(&config, text).expect("writes");
    let (code, _, said) = Proxy::run(&["check", "--config", &config.display().to_string()]);
    assert_eq!(code, 1);
    assert!(said.contains("onehop.toml:5:") && said.contains("no endpoint of cluster \"c\" has the labels"), "{said}");
}

#[test]
fn a_cookie_keeps_a_client_at_its_endpoint_while_that_is_there() {
    let origins = [named("one"), named("two"), named("three")];
    let endpoints: Vec<String> = origins.iter().map(|origin| format!("\"{}\"", origin.address())).collect();
    let sticky = "sticky = { cookie = \"srv\", ttl = \"1h\", same_site = \"Lax\", secret = \"0123456789abcdef\" }";
    let proxy = start("[[route]]\ncluster = \"c\"\n", &endpoints.join(", "), sticky);
    let first = proxy.connect("edge").get("/");
    let set = first.field("set-cookie").expect("a cookie").to_owned();
    assert!(set.starts_with("srv=") && set.ends_with("; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax"), "{set}");
    let cookie = set.split(';').next().expect("a pair").to_owned();
    let ask = |cookie: &str| {
        let mut client = proxy.connect("edge");
        client.ask(format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: a=b; {cookie}\r\n\r\n"))
    };
    for _ in 0..20 {
        let response = ask(&cookie);
        assert_eq!((response.text(), response.field("set-cookie")), (first.text(), None));
    }
    // What nobody has set names nobody: the balancer chooses, and the client gets a cookie that is true.
    for forged in ["srv=", "srv=0000000000000000", "srv=zzzzzzzzzzzzzzzz", "srv=1", "srv=00000000000000000000"] {
        assert!(ask(forged).field("set-cookie").is_some(), "{forged}");
    }
    // The endpoint goes: another one takes over, and the client stays with that one.
    let at = ["one", "two", "three"].iter().position(|name| *name == first.text()).expect("one of them");
    let address = origins[at].address();
    assert_eq!(proxy.admin_post(&format!("/clusters/drain?cluster=c&endpoint={address}")).0, 200);
    let moved = ask(&cookie);
    assert_ne!(moved.text(), first.text());
    let other = moved.field("set-cookie").expect("another cookie").split(';').next().expect("a pair").to_owned();
    for _ in 0..10 {
        assert_eq!(ask(&other).text(), moved.text());
    }
    // It comes back: who still has its cookie comes back to it.
    assert_eq!(proxy.admin_post(&format!("/clusters/restore?cluster=c&endpoint={address}")).0, 200);
    assert_eq!(ask(&cookie).text(), first.text());
    assert!(!set.contains(&address.port().to_string()), "it says where the endpoint is: {set}");
}

/// An origin that counts how many requests it has at once, and takes a moment for each.
fn counting(most: &Arc<AtomicUsize>, millis: u64) -> Origin {
    let (now, most) = (AtomicUsize::new(0), most.clone());
    Origin::start(move |connection| {
        while connection.head().is_some() {
            let here = now.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(here, Ordering::SeqCst);
            std::thread::sleep(std::time::Duration::from_millis(millis));
            now.fetch_sub(1, Ordering::SeqCst);
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    })
}

fn statuses(proxy: &Proxy, clients: usize, each: usize) -> Vec<u16> {
    let address = proxy.address("edge");
    let threads: Vec<_> = (0..clients)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                (0..each).map(|_| client.get("/").status).collect::<Vec<u16>>()
            })
        })
        .collect();
    threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
}

#[test]
fn an_endpoint_never_has_more_than_its_limit_over_all_cores() {
    let most = [Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0))];
    let origins = [counting(&most[0], 5), counting(&most[1], 5)];
    let endpoints: Vec<String> = origins.iter().map(|origin| format!("\"{}\"", origin.address())).collect();
    for (limits, bound) in [("endpoint_requests = 3", 3), ("endpoint_connections = 4", 4)] {
        most.iter().for_each(|most| most.store(0, Ordering::SeqCst));
        let proxy = start("[[route]]\ncluster = \"c\"\n", &endpoints.join(", "), &format!("limits = {{ {limits} }}"));
        // Twenty clients on both cores: those beyond the limit wait, and all are served.
        let statuses = statuses(&proxy, 20, 5);
        assert!(statuses.iter().all(|status| *status == 200), "{limits}: {statuses:?}");
        for most in &most {
            let most = most.load(Ordering::SeqCst);
            assert!(most <= bound && most > 0, "{limits}: {most}");
        }
    }
}

#[test]
fn a_line_that_stands_refuses_the_oldest() {
    let most = Arc::new(AtomicUsize::new(0));
    let origin = counting(&most, 20);
    let proxy = Proxy::start_with(
        &origin.config("", "", "connect_timeout = \"10s\"\nlimits = { connections = 1, queue_age = \"30ms\" }"),
        &["--workers", "1"],
        None,
    );
    // Thirty clients for one connection: each would wait for 600 ms.
    let statuses = statuses(&proxy, 30, 10);
    let served = statuses.iter().filter(|status| **status == 200).count();
    let refused = statuses.iter().filter(|status| **status == 503).count();
    assert!(served > 0 && refused > served && served + refused == 300, "{served} served, {refused} refused");
    // The last one is booked after its answer has gone out.
    eventually("all are counted", || proxy.metric("onehop_listener_faults_total", "queue-age") == refused as f64);
    // Where all can be served in turn, nobody is refused.
    eventually("it is quiet", || proxy.connect("edge").get("/").status == 200);
}

#[test]
fn a_line_has_an_end() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::start(move |connection| {
        while connection.head().is_some() && wait.lock().is_ok_and(|wait| wait.recv().is_ok()) {
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let proxy = Proxy::start_with(
        &origin.config("", "", "connect_timeout = \"20s\"\nlimits = { connections = 1, queue = 2 }"),
        &["--workers", "1"],
        None,
    );
    let mut clients: Vec<Client> = (0..8).map(|_| proxy.connect("edge")).collect();
    clients.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    // One is served, two wait, and the others are refused at once.
    eventually("five are refused", || proxy.metric("onehop_listener_faults_total", "overflow") == 5.0);
    (0..3).for_each(|_| go.send(()).expect("the origin waits"));
    let statuses: Vec<u16> = clients.iter_mut().map(|client| client.response().status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 3, "{statuses:?}");
}
