//! The examples of `configs/` that have to do with requests and where they go, each run as it stands, but for its
//! addresses: what their comments say is so. (`limits.toml` and `resilience.toml` are exercised by tests of those names.)

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use onehop_tests::{Client, Origin, Proxy, eventually};

/// Answers with its name and with what it was asked: the target, and the head in a field-like form.
fn named(name: &str) -> Origin {
    let name = name.to_owned();
    Origin::start(move |connection| {
        while let Some(head) = connection.head() {
            connection.body(&head);
            let body = format!("{name}\n{head}");
            let length = body.len();
            connection.send(format!("HTTP/1.1 200 OK\r\nX-Powered-By: test\r\nContent-Length: {length}\r\n\r\n{body}"));
        }
    })
}

/// The example's text with listeners on free ports.
fn text(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs").join(name);
    let text = std::fs::read_to_string(path).expect("an example");
    let mut out = String::new();
    // Files of its own, too.
    let text = text.replace("\"/tmp/", &format!("\"{}/", onehop_tests::folder().display()));
    for line in text.lines() {
        let is_listener = line.starts_with("address = \"");
        let line = if is_listener { "address = \"127.0.0.1:0\"" } else { line };
        out += &format!("{line}\n");
    }
    out
}

/// The example with an origin in the place of each of these endpoints.
fn run(name: &str, endpoints: &[(&str, &Origin)], workers: &str) -> Proxy {
    let mut text = text(name);
    for (address, origin) in endpoints {
        let quoted = format!("\"{address}\"");
        assert!(text.contains(&quoted), "{name} has no {address}");
        text = text.replace(&quoted, &format!("\"{}\"", origin.address()));
    }
    Proxy::start_with(&text, &["--workers", workers], None)
}

fn ask(client: &mut Client, host: &str, target: &str, fields: &str) -> onehop_tests::Response {
    client.ask(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"))
}

/// Who answered.
fn who(client: &mut Client, target: &str, fields: &str) -> String {
    let response = ask(client, "a", target, fields);
    assert_eq!(response.status, 200, "{target}: {}", response.head);
    response.text().lines().next().unwrap_or_default().to_owned()
}

#[test]
fn routing() {
    let (web, next) = (named("web"), named("next"));
    let proxy = run("routing.toml", &[("127.0.0.1:9000", &web), ("127.0.0.1:9001", &next)], "2");
    let mut client = proxy.connect("edge");
    let moved = ask(&mut client, "old.example.com", "/a?b", "");
    assert_eq!((moved.status, moved.field("location")), (301, Some("https://shop.example.com/a?b")));
    assert_eq!(ask(&mut client, "a", "/healthz", "").text(), "ok\n");
    // Not from 127.0.0.1, however it is spelled.
    for path in ["/admin", "//admin", "/x/../admin", "/%61dmin", "/admin%2fusers"] {
        assert_eq!(ask(&mut client, "a", path, "").status, 403, "{path}");
    }
    let beta = ask(
        &mut client,
        "shop.example.com",
        "/users/7?preview",
        "X-Beta: 1\r\nUser-Agent: a Firefox b\r\nCookie: secret\r\nX-Old: kept\r\n",
    );
    let text = beta.text();
    assert!(text.starts_with("next\nGET /v2/accounts/7?preview HTTP/1.1\r\n"), "{text}");
    for line in ["Host: accounts.internal\r\n", "X-Account: 7\r\n", "X-Client: 127.0.0.1\r\n", "X-New: kept\r\n"] {
        assert!(text.contains(line), "{text}");
    }
    assert!(!text.contains("secret") && !text.contains("X-Old"), "{text}");
    let one = |client: &mut Client, session: usize| {
        let fields = format!("Cookie: session={session}\r\nOrigin: https://app.example.com\r\n");
        let answer = ask(client, "a", "/api/x", &fields);
        assert_eq!(answer.field("x-served-by"), Some("api"));
        assert_eq!(answer.field("x-powered-by"), None);
        assert_eq!(answer.field("access-control-allow-origin"), Some("https://app.example.com"));
        assert!(answer.text().contains("\nGET /x HTTP/1.1\r\n"), "{}", answer.text());
        answer.text().starts_with("next\n")
    };
    let split: Vec<bool> = (0..300).map(|session| one(&mut client, session)).collect();
    let share = split.iter().filter(|next| **next).count();
    assert!((5..80).contains(&share), "{share} of 300 where thirty are meant");
    assert!((0..30).all(|session| one(&mut client, session) == split[session]), "a session stays where it is");
    assert_eq!(ask(&mut client, "a", "/items/17/x", "").status, 200);
    assert_eq!(ask(&mut client, "a", "/items/x", "").status, 404);
}

#[test]
fn canary() {
    let (one, two) = (named("one"), named("two"));
    let proxy = run("canary.toml", &[("web-v1.internal:8080", &one), ("web-v2.internal:8080", &two)], "2");
    let mut client = proxy.connect("edge");
    let two = (0..500).filter(|_| who(&mut client, "/", "") == "two").count();
    assert!((15..100).contains(&two), "{two} of 500 where fifty are meant");
    for _ in 0..20 {
        assert!(ask(&mut client, "canary.example.com", "/", "").text().starts_with("two\n"));
    }
}

#[test]
fn gateway() {
    let origins = [named("users-1"), named("users-2"), named("web")];
    let endpoints = [("10.0.0.1:8080", &origins[0]), ("10.0.0.2:8080", &origins[1]), ("127.0.0.1:9000", &origins[2])];
    let proxy = run("gateway.toml", &endpoints, "2");
    let mut client = proxy.connect("edge");
    let users = ask(&mut client, "api.example.com", "/users/7", "");
    assert!(users.text().starts_with("users-"), "{}", users.text());
    assert!(users.field("server-timing").is_some_and(|timing| timing.contains("onehop;dur=")), "{}", users.head);
    // Of the most specific host that matches, the routes alone are tried.
    assert_eq!(ask(&mut client, "api.example.com", "/users2", "").status, 404);
    assert!(ask(&mut client, "a", "/users/7", "").text().starts_with("web\n"));
}

#[test]
fn balancing() {
    let names = ["10.0.0.1", "10.0.1.1", "10.9.0.1", "10.0.2.1", "10.0.2.2", "10.0.2.3", "10.0.3.1", "10.0.3.2"];
    let names = [&names[..], &["10.0.3.3", "10.0.4.1", "10.0.4.2"]].concat();
    let origins: Vec<(String, Origin)> = names.iter().map(|name| (format!("{name}:8080"), named(name))).collect();
    let endpoints: Vec<(&str, &Origin)> = origins.iter().map(|(name, origin)| (name.as_str(), origin)).collect();
    let proxy = run("balancing.toml", &endpoints, "1");
    let mut client = proxy.connect("edge");
    // Its own zone, then the rest of the tier, then the next tier, and back.
    let by_hand = |what: &str, at: usize| {
        let address = origins[at].1.address();
        assert_eq!(proxy.admin_post(&format!("/clusters/{what}?cluster=api&endpoint={address}")).0, 200);
    };
    let mut all = |count: usize| (0..count).map(|_| who(&mut client, "/api", "")).collect::<Vec<_>>();
    assert!(all(20).iter().all(|name| name == names[0]));
    by_hand("drain", 0);
    // Half of a tier carries 0.7 of the load (Envoy's overprovisioning factor); the next tier carries the rest.
    let rest = all(200);
    let second = rest.iter().filter(|name| *name == names[1]).count();
    assert!(rest.iter().all(|name| names[1..3].contains(&name.as_str())), "{rest:?}");
    assert!((100..180).contains(&second), "{second} of 200 where 140 are meant");
    by_hand("drain", 1);
    assert!(all(20).iter().all(|name| name == names[2]));
    by_hand("drain", 2);
    assert_eq!(ask(&mut client, "a", "/api", "").status, 503);
    let (_, clusters) = proxy.admin("/clusters");
    assert_eq!(clusters.matches("\"drained\"").count(), 3, "{clusters}");
    (0..3).for_each(|at| by_hand("restore", at));
    eventually("its own zone serves again", || who(&mut client, "/api", "") == names[0]);
    // A value stays where it is, and not all of them at one place.
    for (path, field) in [("/carts", "Cookie: cart="), ("/files/", "")] {
        let mut one = |value: usize| match field {
            "" => who(&mut client, &format!("{path}{value}"), ""),
            field => who(&mut client, path, &format!("{field}{value}\r\n")),
        };
        let first: Vec<String> = (0..30).map(&mut one).collect();
        assert_eq!((0..30).map(&mut one).collect::<Vec<_>>(), first, "{path}");
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 3, "{path}");
    }
    let heavy = (0..40).filter(|_| who(&mut client, "/", "") == "10.0.4.1").count();
    assert_eq!(heavy, 30, "three of four");
}

/// An origin that can be turned bad: `checks` fail, or answers do.
struct Sick {
    origin: Origin,
    checks: Arc<AtomicBool>,
    answers: Arc<AtomicBool>,
}

fn sick() -> Sick {
    let (checks, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (bad_checks, bad_answers) = (checks.clone(), answers.clone());
    let origin = Origin::start(move |connection| {
        while let Some(head) = connection.head() {
            let is_check = head.starts_with("GET /healthz ");
            let bad = if is_check { &bad_checks } else { &bad_answers }.load(Ordering::SeqCst);
            // 302 would be healthy by default; the example says otherwise.
            let status = match (is_check, bad) {
                (true, true) => "302 Elsewhere",
                (false, true) => "500 Broken",
                _ => "200 OK",
            };
            connection.send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
        }
    });
    Sick { origin, checks, answers }
}

#[test]
fn health() {
    let web = [sick(), sick(), sick()];
    let database = |name: &'static str| {
        Origin::start(move |connection| {
            connection.send(name);
            connection.wait_for_end();
        })
    };
    let (second, calls) = (database("second"), sick());
    // Nobody listens where the first database is meant to be.
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    let mut text = text("health.toml").replace("10.0.1.1:5432", &nowhere.to_string());
    let all = [
        ("10.0.0.1:8080", &web[0].origin),
        ("10.0.0.2:8080", &web[1].origin),
        ("10.0.0.3:8080", &web[2].origin),
        ("10.0.1.2:5432", &second),
        ("10.0.2.1:8080", &calls.origin),
    ];
    for (address, origin) in all {
        assert!(text.contains(address), "{address}");
        text = text.replace(address, &origin.address().to_string());
    }
    let proxy = Proxy::start(&text);
    let state = |address: std::net::SocketAddr| {
        let clusters: serde_json::Value = serde_json::from_str(&proxy.admin("/clusters").1).expect("JSON");
        let endpoints = clusters.as_array().into_iter().flatten().filter_map(|cluster| cluster["endpoints"].as_array());
        let found = endpoints.flatten().find(|endpoint| endpoint["address"] == address.to_string().as_str());
        let found = found.expect("it is there");
        (found["state"].as_str().unwrap_or("").to_owned(), found["reason"].as_str().unwrap_or("").to_owned())
    };
    let mut client = proxy.connect("edge");
    // By checks.
    web[0].checks.store(true, Ordering::SeqCst);
    let address = web[0].origin.address();
    eventually("its checks tell", || state(address) == ("unhealthy".to_owned(), "it answered 302".to_owned()));
    web[0].checks.store(false, Ordering::SeqCst);
    // By requests: five failures in a row, over both cores.
    web[1].answers.store(true, Ordering::SeqCst);
    let address = web[1].origin.address();
    eventually("requests tell", || {
        client.get("/");
        state(address) == ("ejected".to_owned(), "consecutive-5xx".to_owned())
    });
    web[1].answers.store(false, Ordering::SeqCst);
    // Each by itself: a port that nobody listens on, and a server without gRPC's health service.
    eventually("the first database is out", || state(nowhere).0 == "unhealthy");
    eventually("the second one serves", || proxy.connect("database").read(6) == b"second");
    eventually("calls are out", || state(calls.origin.address()).0 == "unhealthy");
    eventually("all are back", || web.iter().all(|sick| state(sick.origin.address()).0 == "healthy"));
    assert!(proxy.metric("onehop_cluster_ejections_total", "cluster=\"web\"") >= 1.0);
}

#[test]
fn timeouts() {
    let never = || {
        Origin::start(|connection| {
            let Some(head) = connection.head() else { return };
            if head.contains(" /reports") {
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole");
            }
            connection.wait_for_end();
        })
    };
    let origins = [never(), never()];
    let endpoints = [("10.0.0.1:8080", &origins[0]), ("10.0.0.2:8080", &origins[1])];
    let proxy = run("timeouts.toml", &endpoints, "1");
    let late = |target: &str, fields: &str| {
        let response = ask(&mut proxy.connect("edge"), "a", target, fields);
        assert!(
            response.field("proxy-status").is_some_and(|why| why.contains("upstream-timeout")),
            "{}",
            response.head
        );
        response.status
    };
    assert_eq!(late("/", ""), 504);
    assert_eq!(late("/", "X-Request-Timeout: 50ms\r\n"), 504);
    let asked = || origins.iter().map(Origin::accepted).sum::<usize>();
    let before = asked();
    assert_eq!(late("/search", ""), 504);
    eventually("each try has its time", || asked() - before == 2);
    assert_eq!(ask(&mut proxy.connect("edge"), "a", "/reports", "").text(), "whole");
    let mut slow = proxy.connect("edge");
    slow.send("GET / HTTP/1.1\r\nHost: a");
    assert_eq!(slow.response().status, 408);
}

#[test]
fn subsets() {
    let origins = [named("1-a"), named("1-b"), named("2")];
    let endpoints = [("10.0.0.1:8080", &origins[0]), ("10.0.0.2:8080", &origins[1]), ("10.0.0.3:8080", &origins[2])];
    // The origins answer checks like anything else.
    let proxy = run("subsets.toml", &endpoints, "2");
    let mut client = proxy.connect("edge");
    (0..20).for_each(|_| assert_eq!(who(&mut client, "/", "X-Version: 2\r\n"), "2"));
    let mut two = 0;
    for session in 0..200 {
        let fields = format!("Cookie: session={session}\r\n");
        let first = ask(&mut client, "a", "/", &fields);
        let name = first.text().lines().next().unwrap_or_default().to_owned();
        let cookie = first.field("set-cookie").and_then(|set| set.split(';').next()).expect("a cookie").to_owned();
        // Both cookies together: the same version, and of that the same endpoint.
        assert_eq!(who(&mut client, "/", &format!("Cookie: session={session}; {cookie}\r\n")), name);
        two += usize::from(name == "2");
    }
    assert!((3..60).contains(&two), "{two} of 200 where twenty are meant");
}

#[test]
fn tcp() {
    let speaks = Origin::start(|connection| {
        let header = connection.read(12);
        assert_eq!(header, b"\r\n\r\n\0\r\nQUIT\n", "a PROXY header of version 2");
        connection.send("database");
        connection.wait_for_end();
    });
    let echo = Origin::start(|connection| {
        while let Some(line) = connection.line() {
            connection.send(line);
        }
    });
    let web = named("web");
    let socket = [("10.0.0.5:5432", &speaks), ("127.0.0.1:7", &echo), ("unix:/run/web.sock", &web)];
    let proxy = run("tcp.toml", &socket, "2");
    let mut client = proxy.connect("postgres");
    assert_eq!(client.read(8), b"database");
    let mut client = proxy.connect("mixed");
    client.send("\u{1}no HTTP\n");
    assert_eq!(client.line(), "\u{1}no HTTP\n");
    assert!(proxy.connect("mixed").get("/").text().starts_with("web\n"));
    let mut client = proxy.connect("behind-a-balancer");
    client.send("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nhello\n");
    assert_eq!(client.line(), "hello\n");
}

#[test]
fn the_lines_of_the_readme() {
    let readme = include_str!("../../README.md");
    let block = readme.split("A canary, a failover and a rate limit:\n").nth(1).expect("it is shown");
    let lines = block.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    let mut text: String = lines.map(|line| format!("{}\n", line.trim_start())).collect();
    let down = Arc::new(AtomicBool::new(false));
    let is_down = down.clone();
    let first = Origin::start(move |connection| {
        while connection.head().is_some() {
            let status = if is_down.load(Ordering::SeqCst) { "503 Down" } else { "200 OK" };
            connection.send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
        }
    });
    let (second, canary) = (named("second"), named("canary"));
    let origins = [("9000", &first), ("9001", &second), ("9002", &canary)];
    for (port, origin) in origins {
        text = text.replace(&format!("127.0.0.1:{port}"), &origin.address().to_string());
    }
    let proxy = Proxy::start(&text.replace("127.0.0.1:8080", "127.0.0.1:0"));
    let mut client = proxy.connect("edge");
    let mut ask = |key: usize| client.ask(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\n\r\n"));
    // Each with a key of its own: none is refused.
    let canaries = (0..500).filter(|key| ask(*key).text().starts_with("canary\n")).count();
    assert!((15..100).contains(&canaries), "{canaries} of 500 where fifty are meant");
    let mut key = 1000;
    down.store(true, Ordering::SeqCst);
    eventually("the second one serves", || {
        key += 1;
        ask(key).text().starts_with("second\n")
    });
    let refused = (0..130).map(|_| ask(0)).find(|answer| answer.status == 429).expect("one too many");
    assert!(refused.field("retry-after").is_some() && refused.field("ratelimit").is_some(), "{}", refused.head);
}
