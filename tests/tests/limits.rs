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
    // The last one is booked after its answer has gone out.
    eventually("all are counted", || {
        proxy.metric("onehop_route_rate_limited_total", "") == 51.0
            && proxy.metric("onehop_listener_faults_total", "rate-limited") == 51.0
    });
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

/// One subscriber has a /64 of IPv6 addresses: whoever counts single ones counts nobody. Of IPv4 each address counts.
#[test]
fn a_rate_by_address_counts_each_64_of_ipv6() {
    let origin = Origin::echo();
    let rate = "rate_limits = [{ requests = 3, per = \"1h\", by = { source = true } }]";
    // The address that a PROXY header tells is the client's, and so is the one that a trusted proxy writes down.
    for listener in ["proxy_protocol = true", "trusted_hops = 1"] {
        let proxy = start_with(&origin, &format!("[[route]]\ncluster = \"o\"\n{rate}\n"), listener, "");
        let status = |ip: &str| {
            let family = if ip.contains(':') { "TCP6" } else { "TCP4" };
            let (before, field) = match listener.starts_with("proxy") {
                true => (format!("PROXY {family} {ip} {ip} 4000 80\r\n"), String::new()),
                false => (String::new(), format!("X-Forwarded-For: 198.51.100.9, {ip}\r\n")),
            };
            proxy.connect("edge").ask(format!("{before}GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n")).status
        };
        for (ips, wanted) in [
            (["2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:1:8000::"], 429),
            (["2001:db8:0:2::1", "2001:db8::1", "2001:db8:1:1::1", "::1"], 200),
            (["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"], 200),
            // Not four of one /64.
            (["::ffff:192.0.2.5", "::ffff:192.0.2.6", "::ffff:192.0.2.7", "::ffff:192.0.2.8"], 200),
            (["::ffff:192.0.2.9", "192.0.2.9", "::ffff:192.0.2.9", "192.0.2.9"], 429),
        ] {
            let statuses = ips.map(status);
            assert_eq!(statuses, [200, 200, 200, wanted], "{listener}: {ips:?}");
        }
    }
}

/// A path has no rate of its own for each of its spellings.
#[test]
fn a_rate_by_path_knows_every_spelling_of_one() {
    let origin = Origin::echo();
    let proxy = start(
        &origin,
        "[[route]]\ncluster = \"o\"\nrate_limits = [{ requests = 3, per = \"1h\", by = { path = true } }]\n",
    );
    let mut client = proxy.connect("edge");
    let mut statuses = |paths: [&str; 4]| paths.map(|path| client.get(path).status);
    assert_eq!(statuses(["/a/b", "/a/./b", "//a/x/../%62?q=1", "/a%2fb"]), [200, 200, 200, 429]);
    assert_eq!(statuses(["/a/c", "/a/d", "/a/b/", "/a"]), [200; 4]);
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
fn a_clusters_limit_is_not_exceeded_over_cores() {
    let (origin, go, asked) = held();
    let cluster = |limit: u32| {
        format!(
            "[[route]]\ncluster = \"c\"\n[[cluster]]\nname = \"c\"\nendpoints = [\"{}\"]\nlimits = {{ requests = {limit} }}\n",
            origin.address()
        )
    };
    // An odd one over two cores: one core has a place more than the other.
    let proxy = start(&origin, &cluster(3));
    let mut clients: Vec<Client> = (0..20).map(|_| proxy.connect("edge")).collect();
    clients.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    let overflows = || proxy.metric("onehop_cluster_overflow_total", "cluster=\"c\"");
    eventually("three are in flight, the others are refused", || {
        asked.load(Ordering::SeqCst) == 3 && overflows() == 17.0
    });
    (0..3).for_each(|_| go.send(()).expect("the origin waits"));
    let statuses: Vec<u16> = clients.iter_mut().map(|client| client.response().status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 3);
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 17);
    drop(clients);
    (0..100).for_each(|_| go.send(()).expect("the origin waits"));
    eventually("their places are free again", || proxy.connect("edge").get("/").status == 200);
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
    let begun = std::time::Instant::now();
    let mut ask = || client.ask("GET /api/x HTTP/1.1\r\nHost: a\r\nX-Api-Key: k\r\n\r\n").status;
    let passed = (0..1000).take_while(|_| ask() == 200).count();
    // A burst of a hundred, and what the minute's rate replenished meanwhile.
    let most = 101.0 + begun.elapsed().as_secs_f64() * 1000.0 / 60.0;
    assert!(passed >= 100 && passed as f64 <= most, "{passed} of {most}");
    // On a busy machine it may be shed for a while.
    eventually("reports are served", || client.get("/reports").status == 200);
    assert_eq!(client.get("/healthz").text(), "ok");
}

#[test]
fn what_is_left_is_told_as_the_rule_says() {
    let origin = Origin::start(|connection| {
        while connection.head().is_some() {
            connection.send("HTTP/1.1 200 OK\r\nRateLimit: \"theirs\";r=7\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let route = |name: &str, what: &str, fields: &str| {
        let by = "by = { header = \"x-key\" }";
        format!(
            "[[route]]\nname = \"{name}\"\npath = {{ prefix = \"/{name}\" }}\n{what}\nrate_limits = [{{ requests = 3, per = \"1h\", {by}, fields = \"{fields}\" }}, {{ requests = 100, per = \"1m\", {by}, fields = \"{fields}\" }}]\n"
        )
    };
    let routes = |kept: &str| {
        let forwarded: String =
            ["off", "refusals", "always"].map(|fields| route(fields, "cluster = \"o\"", fields)).concat();
        forwarded + &route("ours", "respond = { text = \"ok\" }", "always") + &route("kept", "cluster = \"o\"", kept)
    };
    let proxy = start_with(&origin, &routes("off"), "http2 = {}", "");
    let mut client = proxy.connect("edge");
    let mut ask = |name: &str| {
        let response = client.get(&format!("/{name}"));
        let all = |field: &str| {
            let lines = response.head.lines().filter_map(|line| line.split_once(':'));
            let values = lines.filter(|(name, _)| name.eq_ignore_ascii_case(field)).map(|(_, value)| value.trim());
            values.collect::<Vec<_>>().join(" | ")
        };
        (response.status, all("ratelimit-policy"), all("ratelimit"), all("retry-after"))
    };
    let policy = "\"header\";q=3;w=3600, \"header-2\";q=100;w=60".to_owned();
    for name in ["always", "ours"] {
        let theirs = if name == "ours" { "" } else { "\"theirs\";r=7 | " };
        for (left, after) in [(2, 1200), (1, 2400), (0, 1200)] {
            let (status, policies, state, _) = ask(name);
            assert_eq!((status, &policies), (200, &policy));
            let first = state.strip_prefix(theirs).and_then(|state| state.split(", ").next()).expect("two");
            // What was used up before this request is replenished meanwhile.
            let (front, seconds) = first.rsplit_once('=').expect("a time");
            assert_eq!(front, format!("\"header\";r={left};t"));
            let seconds: u32 = seconds.parse().expect("seconds");
            assert!((after - 60..=after).contains(&seconds), "{state}");
            assert!(state.contains(", \"header-2\";r=9"), "{state}");
        }
        let (status, policies, state, wait) = ask(name);
        // Only the one that refuses, whose next request passes when Retry-After says so.
        assert_eq!((status, policies.as_str()), (429, "\"header\";q=3;w=3600"));
        assert_eq!(state, format!("\"header\";r=0;t={wait}"));
    }
    for name in ["off", "refusals"] {
        (0..3).for_each(|_| {
            assert_eq!(ask(name), (200, String::new(), "\"theirs\";r=7".to_owned(), String::new()));
        });
        let (status, policies, _, wait) = ask(name);
        assert_eq!((status, policies.is_empty(), wait.is_empty()), (429, name == "off", false));
    }
    // By HTTP/2 it is the same; what was counted goes on when what is told is changed.
    (0..2).for_each(|_| assert_eq!(ask("kept").0, 200));
    let text = std::fs::read_to_string(&proxy.config).expect("readable");
    let at = text.find("name = \"kept\"").expect("it is there");
    let (before, after) = text.split_at(at);
    std::fs::write(&proxy.config, before.to_owned() + &after.replace("\"off\"", "\"always\"")).expect("writes");
    proxy.wait_for_error("is in force");
    onehop_tests::http2::run(async {
        let sender = onehop_tests::http2::connect(proxy.address("edge")).await;
        let ask = async |path| {
            onehop_tests::http2::ask(&sender, onehop_tests::http2::get(path), Vec::new()).await.expect("answers")
        };
        let last = ask("/kept").await;
        assert_eq!((last.head.status.as_u16(), last.field("ratelimit-policy")), (200, Some(policy.as_str())));
        let states: Vec<_> = last.head.headers.get_all("ratelimit").iter().collect();
        assert!(states.iter().any(|state| state.as_bytes().starts_with(b"\"header\";r=0;t=")), "{states:?}");
        let refused = ask("/kept").await;
        assert_eq!(refused.head.status.as_u16(), 429);
        assert_eq!(refused.field("ratelimit-policy"), Some("\"header\";q=3;w=3600"));
        assert!(refused.field("retry-after").is_some());
    });
}

#[test]
fn a_hundred_thousand_keys_take_no_more_memory_than_their_bound() {
    let route = "[[route]]\nrespond = { status = 204 }\nrate_limits = [{ requests = 1, per = \"1h\", by = { header = \"x-key\" }, keys = 10_000 }]\n";
    let proxy = start(&Origin::echo(), route);
    let mut client = proxy.connect("edge");
    let mut ask = |keys: std::ops::Range<u32>| {
        let count = keys.len();
        let all: String = keys.map(|key| format!("GET / HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\n\r\n")).collect();
        client.send(all);
        (0..count).filter(|_| client.response().status == 204).count()
    };
    // Whatever a first connection takes is there before it is looked at.
    (0..100).for_each(|round| assert_eq!(ask(round * 10..round * 10 + 10), 10));
    let before = proxy.memory_kib("VmRSS");
    for round in 10..1000 {
        assert_eq!(ask(round * 100..round * 100 + 100), 100, "nobody shares a new key's allowance");
    }
    // Room for twice ten thousand keys of sixteen bytes, and what else a busy process takes.
    let grown = proxy.memory_kib("VmRSS").saturating_sub(before);
    assert!(grown < 4096, "{grown} KiB");
    // Those that came last are remembered, but for buckets that overflowed; the first ones are long forgotten.
    let passed: usize = (0..20).map(|round| ask(99_000 + round * 50..99_050 + round * 50)).sum();
    assert!(passed < 100, "{passed} of the last thousand are forgotten");
    let passed: usize = (0..20).map(|round| ask(round * 50..round * 50 + 50)).sum();
    assert!(passed > 950, "{passed} of the first thousand are forgotten");
    // A table of 32768 places holds that many of those hundred thousand.
    let forgotten = proxy.metric("onehop_route_rate_keys_forgotten_total", "");
    assert!(forgotten > 60_000.0, "{forgotten}");
}
