//! `configs/resilience.toml` as it stands, with origins of the test in place of its endpoints: each part does what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex};

use onehop_tests::{Client, Origin, Proxy, eventually};

/// How often each path was asked for, at all origins together; and the hosts that the canary saw.
#[derive(Default)]
struct Seen {
    paths: BTreeMap<String, usize>,
    canary: Vec<String>,
}

/// Paths that end in `once` fail the first time, those in `stuck` are not answered the first time, those in `never` never.
fn origin(seen: &Arc<Mutex<Seen>>, is_canary: bool) -> Origin {
    let seen = seen.clone();
    Origin::start(move |connection| {
        while let Some(head) = connection.head() {
            connection.body(&head);
            let path = head.split(' ').nth(1).unwrap_or("").to_owned();
            let times = {
                let mut seen = seen.lock().expect("no panic");
                if is_canary {
                    let host = head.lines().find_map(|line| line.strip_prefix("Host: ")).unwrap_or("").to_owned();
                    seen.canary.push(host);
                }
                let times = seen.paths.entry(path.clone()).or_insert(0);
                *times += 1;
                *times
            };
            if (path.ends_with("stuck") && times == 1) || path.ends_with("never") {
                connection.wait_for_end();
                return;
            }
            let status = if path.ends_with("once") && times == 1 { "503 Busy" } else { "200 OK" };
            connection.send(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{path}", path.len()));
        }
    })
}

#[test]
fn the_example_does_what_it_says() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/resilience.toml");
    let mut text = std::fs::read_to_string(file).expect("it is there").replace("0.0.0.0:8080", "127.0.0.1:0");
    let seen: Arc<Mutex<Seen>> = Arc::default();
    let quoted = |text: &str| -> BTreeSet<String> {
        text.split('"').filter(|part| part.starts_with("10.") && part.contains(':')).map(str::to_owned).collect()
    };
    let mut origins = Vec::new();
    for address in quoted(&text) {
        let origin = origin(&seen, address.starts_with("10.0.3."));
        text = text.replace(&format!("\"{address}\""), &format!("\"{}\"", origin.address()));
        origins.push(origin);
    }
    assert!(origins.len() >= 8, "an endpoint each");
    let proxy = Proxy::start_with(&text, &["--workers", "1"], None);
    let mut client = proxy.connect("edge");
    let times = |path: &str| seen.lock().expect("no panic").paths.get(path).copied().unwrap_or(0);
    // Tried again elsewhere.
    let put = "PUT /orders/once HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
    assert_eq!((client.ask(put).status, times("/orders/once")), (200, 2));
    assert_eq!(client.ask(put.replace("PUT", "POST").replace("once", "2/once")).status, 503, "a POST is not");
    // Hedged.
    assert_eq!((client.get("/search/stuck").status, times("/search/stuck")), (200, 2));
    // A deadline of the client's.
    let hurried = "GET /never HTTP/1.1\r\nHost: a\r\nX-Request-Timeout: 100ms\r\n\r\n";
    assert_eq!(client.ask(hurried).status, 504);
    // Mirrored: of two hundred at least one, but for one run in a billion.
    (0..200).for_each(|_| assert_eq!(client.get("/catalogue/x").status, 200));
    eventually("a copy", || seen.lock().expect("no panic").canary.iter().any(|host| host == "test-shadow"));
    drill(&proxy, &mut client);
}

fn drill(proxy: &Proxy, client: &mut Client) {
    let ask = |client: &mut Client, fault: &str| {
        client.send(format!("GET /drill HTTP/1.1\r\nHost: a\r\nX-Fault: {fault}\r\n\r\n"));
    };
    for (fault, status) in [("none", 200), ("delay", 200), ("abort", 503), ("slow", 200)] {
        ask(client, fault);
        assert_eq!(client.response().status, status, "{fault}");
    }
    ask(client, "reset");
    assert!(client.stream().read(&mut [0; 16]).is_err(), "it is reset");
    for kind in ["delay", "abort", "slow-body", "reset"] {
        assert_eq!(proxy.metric("onehop_route_faults_injected_total", &format!("kind=\"{kind}\"")), 1.0, "{kind}");
    }
}
