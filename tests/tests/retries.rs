//! Attempts that are repeated: upon what, elsewhere, with the whole body, within a budget and within their time.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use onehop_tests::{Client, Connection, Origin, Proxy, eventually};

/// Heads and bodies.
type Notes = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// An origin that notes the heads and bodies that it gets and answers by a script.
struct Noting {
    origin: Origin,
    seen: Notes,
}

/// `script` gets the connection and the number of the request, from 0; false ends the connection.
fn noting(script: impl Fn(&mut Connection, usize) -> bool + Send + Sync + 'static) -> Noting {
    let seen: Notes = Arc::default();
    let notes = seen.clone();
    let origin = Origin::start(move |connection| {
        while let Some(head) = connection.head() {
            let body = connection.body(&head);
            let number = {
                let mut notes = notes.lock().expect("no panic");
                notes.push((head, body));
                notes.len() - 1
            };
            if !script(connection, number) {
                return;
            }
        }
    });
    Noting { origin, seen }
}

impl Noting {
    fn count(&self) -> usize {
        self.seen.lock().expect("no panic").len()
    }

    fn heads(&self) -> Vec<String> {
        self.seen.lock().expect("no panic").iter().map(|(head, _)| head.clone()).collect()
    }

    fn bodies(&self) -> Vec<Vec<u8>> {
        self.seen.lock().expect("no panic").iter().map(|(_, body)| body.clone()).collect()
    }
}

fn answer(connection: &mut Connection, status: u16, fields: &str) -> bool {
    connection.send(format!("HTTP/1.1 {status} S\r\nContent-Length: 2\r\n{fields}\r\nok"));
    true
}

/// Fails so often before it serves.
fn failing(times: usize, status: u16) -> Noting {
    noting(move |connection, number| answer(connection, if number < times { status } else { 200 }, ""))
}

fn start(noting: &Noting, retry: &str) -> Proxy {
    let route = format!("name = \"r\"\nretry = {{ backoff = \"1ms\", {retry} }}");
    Proxy::start_with(&noting.origin.config("", &route, ""), &["--workers", "1"], None)
}

#[test]
fn answers_that_the_policy_names_are_asked_for_again() {
    for (status, retry, attempts) in [
        (503, "on = [\"gateway-error\"]", 2),
        (500, "on = [\"gateway-error\"]", 1),
        (500, "on = [\"5xx\"]", 2),
        (429, "on = [\"5xx\"]", 1),
        (429, "on = [], statuses = [409, 429]", 2),
        (418, "on = [], headers = { x-again = { present = true } }", 1),
    ] {
        let noting = failing(1, status);
        let proxy = start(&noting, retry);
        let response = proxy.connect("edge").get("/");
        assert_eq!(noting.count(), attempts, "{status} with {retry}");
        assert_eq!(response.status, if attempts == 1 { status } else { 200 });
        assert_eq!(proxy.metric("onehop_route_retries_total", ""), (attempts - 1) as f64);
    }
    let noting = noting(|connection, number| answer(connection, 200, if number == 0 { "X-Again: 1\r\n" } else { "" }));
    let proxy = start(&noting, "on = [], headers = { x-again = { present = true } }");
    assert_eq!(proxy.connect("edge").get("/").status, 200);
    let counts: Vec<bool> = noting.heads().iter().map(|head| head.contains("X-Attempt-Count: ")).collect();
    assert_eq!(counts, [true, true]);
    assert!(noting.heads()[1].contains("X-Attempt-Count: 2\r\n"), "{}", noting.heads()[1]);
}

#[test]
fn attempts_end_and_the_last_answer_is_passed_on() {
    let noting = failing(100, 503);
    let proxy = start(&noting, "attempts = 3, on = [\"5xx\"]");
    let mut client = proxy.connect("edge");
    // What a client says of attempts is not believed.
    let response = client.ask("GET / HTTP/1.1\r\nHost: a\r\nX-Attempt-Count: 77\r\n\r\n");
    assert_eq!((response.status, response.text().as_str()), (503, "ok"));
    assert_eq!(noting.count(), 4);
    assert!(noting.heads().iter().all(|head| !head.contains("Count: 77")));
    assert_eq!(proxy.metric("onehop_route_retries_denied_total", "why=\"attempts\""), 1.0);
    // Answers that were given up leave their connection in use.
    assert_eq!(noting.origin.accepted(), 1);
    assert_eq!(client.get("/").status, 503);
}

#[test]
fn only_what_may_happen_twice_is_sent_twice() {
    let ask = |method: &str, fields: &str| {
        let noting = failing(1, 503);
        let proxy = start(&noting, "on = [\"5xx\"]");
        let text = format!("{method} / HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: 4\r\n\r\nbody");
        let status = proxy.connect("edge").ask(text).status;
        let denied = proxy.metric("onehop_route_retries_denied_total", "why=\"not-idempotent\"");
        (status, noting.bodies(), denied)
    };
    let body = b"body".to_vec();
    assert_eq!(ask("POST", ""), (503, vec![body.clone()], 1.0));
    assert_eq!(ask("POST", "Idempotency-Key: \"8e03978e\"\r\n"), (200, vec![body.clone(), body.clone()], 0.0));
    assert_eq!(ask("PUT", ""), (200, vec![body.clone(), body], 0.0));
}

#[test]
fn a_body_that_streamed_out_is_sent_again_whole() {
    // The first attempt is cut after half of the body has come.
    let seen: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let notes = seen.clone();
    let origin = Origin::start(move |connection| {
        let Some(head) = connection.head() else { return };
        if connection.number == 0 {
            connection.read(5);
            notes.lock().expect("no panic").push(b"cut".to_vec());
            return;
        }
        let body = connection.body(&head);
        notes.lock().expect("no panic").push(body);
        answer(connection, 200, "");
    });
    let proxy = Proxy::start(&origin.config("", "retry = { on = [\"reset-before-response\"], backoff = \"1ms\" }", ""));
    let mut client = proxy.connect("edge");
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    eventually("the first attempt is cut", || !seen.lock().expect("no panic").is_empty());
    client.send("6\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n");
    assert_eq!(client.response().status, 200);
    let bodies = seen.lock().expect("no panic").clone();
    let text = String::from_utf8_lossy(&bodies[1]).into_owned();
    let unframed: String = text.split("\r\n").filter(|line| ["hello", " world"].contains(line)).collect();
    assert_eq!(unframed, "hello world", "{text:?}");
    assert!(text.contains("X-Sum: 1\r\n"), "{text:?}");
    // The connection is at its next request's beginning.
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn a_body_that_is_too_long_is_sent_once_and_that_is_said() {
    let noting = failing(100, 503);
    let log = onehop_tests::folder().join("access.log");
    let access = format!("[access_log]\npath = \"{}\"\n", log.display());
    let route = "name = \"r\"\nretry = { on = [\"5xx\"], max_body = \"1KiB\" }";
    let proxy = Proxy::start(&format!("{access}{}", noting.origin.config("", route, "")));
    let body = "x".repeat(200_000);
    let put = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let response = proxy.connect("edge").ask(put);
    assert_eq!((response.status, noting.count()), (503, 1));
    assert_eq!(noting.bodies()[0].len(), body.len());
    assert_eq!(proxy.metric("onehop_route_retries_denied_total", "route=\"r\",why=\"body-too-long\""), 1.0);
    let recorded = || std::fs::read_to_string(&log).unwrap_or_default();
    eventually("it is recorded", || recorded().contains("\"retry_denied\":\"body-too-long\""));
    // One that is kept is asked for again.
    assert_eq!(proxy.connect("edge").ask("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").status, 503);
    assert_eq!(noting.count(), 4);
}

#[test]
fn a_client_that_expects_100_is_told_once() {
    let origin = Origin::start(|connection| {
        let Some(head) = connection.head() else { return };
        connection.send("HTTP/1.1 100 Continue\r\n\r\n");
        let body = connection.body(&head);
        assert_eq!(body, b"hello");
        answer(connection, if connection.number == 0 { 503 } else { 200 }, "Connection: close\r\n");
    });
    let proxy = Proxy::start(&origin.config("", "retry = { on = [\"5xx\"], backoff = \"1ms\" }", ""));
    let mut client = proxy.connect("edge");
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(client.response().status, 100);
    client.send("hello");
    assert_eq!(client.response().status, 200);
    assert_eq!(origin.accepted(), 2);
}

#[test]
fn another_endpoint_and_zone_is_asked_first() {
    let origins = [failing(100, 503), failing(100, 503), failing(0, 200)];
    let address = |at: usize| origins[at].origin.address();
    let proxy = Proxy::start(&format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"c\"\nretry = {{ attempts = 1, on = [\"5xx\"], backoff = \"1ms\" }}\n[[cluster]]\nname = \"c\"\nretry_budget = 100\nzone = \"a\"\nendpoints = [{{ address = \"{}\", zone = \"a\" }}, {{ address = \"{}\", zone = \"a\" }}, {{ address = \"{}\", zone = \"b\" }}]\n",
        address(0),
        address(1),
        address(2)
    ));
    let mut client = proxy.connect("edge");
    for _ in 0..10 {
        // The own zone is asked first; both of its endpoints fail, so it is the zone that decides.
        assert_eq!(client.get("/").status, 200);
    }
    assert_eq!((origins[0].count() + origins[1].count(), origins[2].count()), (10, 10));
}

/// A value that always leads to the same endpoint does not lead there again.
#[test]
fn another_endpoint_is_asked_where_a_value_chooses_it() {
    for balance in ["maglev", "ring-hash"] {
        let origins = [failing(1000, 503), failing(0, 200)];
        let proxy = Proxy::start(&format!(
            "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"c\"\nretry = {{ attempts = 1, on = [\"5xx\"], backoff = \"1ms\" }}\n[[cluster]]\nname = \"c\"\nretry_budget = 100\nbalance = \"{balance}\"\nhash_on = {{ header = \"x-user\" }}\nendpoints = [\"{}\", \"{}\"]\n",
            origins[0].origin.address(),
            origins[1].origin.address()
        ));
        let mut client = proxy.connect("edge");
        for user in 0..20 {
            assert_eq!(client.ask(format!("GET / HTTP/1.1\r\nHost: a\r\nX-User: {user}\r\n\r\n")).status, 200);
        }
        let failed = origins[0].count();
        assert!((1..20).contains(&failed), "{balance}: {failed} of twenty were sent to the one that fails");
        assert_eq!(origins[1].count(), 20);
    }
}

#[test]
fn a_spent_budget_ends_it() {
    let noting = failing(1000, 503);
    let route = "name = \"r\"\nretry = { on = [\"5xx\"], backoff = \"1ms\" }";
    let proxy = Proxy::start(&noting.origin.config("", route, "retry_budget = 0"));
    assert_eq!(proxy.connect("edge").get("/").status, 503);
    assert_eq!(noting.count(), 1);
    assert_eq!(proxy.metric("onehop_route_retries_denied_total", "why=\"budget\""), 1.0);
    // With the default of a fifth, but at least some: far less than each request thrice.
    let noting = failing(1000, 503);
    let proxy = Proxy::start_with(&noting.origin.config("", route, ""), &["--workers", "1"], None);
    let begun = Instant::now();
    let mut client = proxy.connect("edge");
    (0..200).for_each(|_| assert_eq!(client.get("/").status, 503));
    let allowed = 200.0 * 1.2 + 3.0 * (begun.elapsed().as_secs_f64() + 1.0);
    assert!((noting.count() as f64) <= allowed, "{} of {allowed}", noting.count());
    assert!(noting.count() > 200);
}

#[test]
fn a_retry_after_is_waited_for_and_a_long_one_passed_on() {
    let again = |seconds: &'static str| {
        let noting = noting(move |connection, number| match number {
            0 => answer(connection, 503, &format!("Retry-After: {seconds}\r\n")),
            _ => answer(connection, 200, ""),
        });
        let proxy = start(&noting, "on = [\"5xx\"]");
        let begun = Instant::now();
        let status = proxy.connect("edge").get("/").status;
        let denied = proxy.metric("onehop_route_retries_denied_total", "why=\"retry-after\"");
        (status, denied, begun.elapsed())
    };
    let (status, denied, took) = again("1");
    assert_eq!((status, denied), (200, 0.0));
    assert!(took >= Duration::from_secs(1), "{took:?}");
    let (status, denied, _) = again("3600");
    assert_eq!((status, denied), (503, 1.0));
    assert_eq!(again("Sun, 06 Nov 1994 08:49:37 GMT").0, 200);
}

#[test]
fn a_try_that_takes_too_long_is_made_elsewhere() {
    let silent = Origin::start(|connection| {
        connection.head();
        connection.wait_for_end();
    });
    let good = failing(0, 200);
    // One core, whose turns go from one endpoint to the other.
    let config = format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"c\"\nretry = {{ attempts = 1, on = [\"reset-before-response\"], per_try_timeout = \"2s\", backoff = \"1ms\" }}\n[[cluster]]\nname = \"c\"\nendpoints = [\"{}\", \"{}\"]\n",
        silent.address(),
        good.origin.address()
    );
    let proxy = Proxy::start_with(&config, &["--workers", "1"], None);
    let mut client = proxy.connect("edge");
    for _ in 0..2 {
        assert_eq!(client.get("/").status, 200);
    }
    assert!(silent.accepted() > 0);
    // It is not idempotent and may have been acted on.
    let mut posts: Vec<u16> = (0..2)
        .map(|_| proxy.connect("edge").ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").status)
        .collect();
    posts.sort_unstable();
    assert_eq!(posts, [200, 504]);
}

#[test]
fn a_routes_time_covers_all_attempts_together() {
    // Each attempt by itself is well within the time-out; all ten of them are not. A slower machine only makes it later.
    let noting = noting(|connection, _| {
        std::thread::sleep(Duration::from_millis(150));
        answer(connection, 503, "")
    });
    let route = "name = \"r\"\ntimeout = \"400ms\"\nretry = { attempts = 10, on = [\"5xx\"], backoff = \"1ms\" }";
    let proxy = Proxy::start(&noting.origin.config("", route, "retry_budget = 100"));
    let response = proxy.connect("edge").get("/");
    assert_eq!(response.status, 504, "{}", response.head);
    assert!(response.field("proxy-status").is_some_and(|status| status.contains("upstream-timeout")));
    assert!(noting.count() <= 3, "{} attempts", noting.count());
    // And a wait that would not leave time for another attempt is not begun.
    let route = "name = \"r\"\ntimeout = \"20s\"\nretry = { on = [\"5xx\"], max_retry_after = \"1m\" }";
    let busy = self::noting(|connection, _| answer(connection, 503, "Retry-After: 30\r\n"));
    let proxy = Proxy::start(&busy.origin.config("", route, ""));
    assert_eq!(proxy.connect("edge").get("/").status, 503);
    assert_eq!(proxy.metric("onehop_route_retries_denied_total", "why=\"deadline\""), 1.0);
}

#[test]
fn a_slow_upload_does_not_use_up_the_time_of_the_answer() {
    let noting = failing(0, 200);
    let proxy = Proxy::start(&noting.origin.config("", "timeout = \"1s\"", ""));
    let mut client = proxy.connect("edge");
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n");
    for byte in ["b", "o", "d", "y"] {
        // Altogether longer than the time-out, which counts from the request's end.
        std::thread::sleep(Duration::from_millis(400));
        client.send(byte);
    }
    assert_eq!(client.response().status, 200);
    // But it counts from there.
    let silent = Origin::start(|connection| {
        connection.head();
        connection.wait_for_end();
    });
    let proxy = Proxy::start(&silent.config("", "timeout = \"100ms\"", ""));
    let mut client = proxy.connect("edge");
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n");
    client.send("bo");
    eventually("it is under way", || silent.accepted() == 1);
    client.send("dy");
    assert_eq!(client.response().status, 504);
}

#[test]
fn a_clients_deadline_is_kept_and_passed_on_where_it_is_trusted() {
    let trusting = |origin: &Origin| Proxy::start(&origin.config("trust_request_timeout = true", "", ""));
    let ask = |proxy: &Proxy, timeout: &str| -> onehop_tests::Response {
        let mut client: Client = proxy.connect("edge");
        client.ask(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Timeout: {timeout}\r\n\r\n"))
    };
    let silent = Origin::start(|connection| {
        connection.head();
        connection.wait_for_end();
    });
    assert_eq!(ask(&trusting(&silent), "80ms").status, 504);
    assert_eq!(ask(&trusting(&silent), "0.08").status, 504);
    let mirror = Origin::mirror();
    let proxy = trusting(&mirror);
    let told = |timeout: &str| {
        let text = ask(&proxy, timeout).text().to_lowercase();
        let line = text.lines().find_map(|line| line.strip_prefix("x-request-timeout: ").map(str::to_owned));
        line.expect("it is passed on")
    };
    let seconds: f64 = told("20").parse().expect("seconds");
    assert!(seconds > 0.0 && seconds <= 20.0, "{seconds}");
    let ms: u64 = told("20s").strip_suffix("ms").and_then(|ms| ms.parse().ok()).expect("milliseconds");
    assert!(ms > 0 && ms <= 20_000, "{ms}");
    // What cannot be read is not ours to change; nor is any where it is not trusted.
    assert_eq!(told("soon"), "soon");
    let plain = Proxy::start(&mirror.config("", "", ""));
    assert!(ask(&plain, "1ms").text().contains("X-Request-Timeout: 1ms\r\n"));
}

#[test]
fn a_clients_deadline_takes_no_retry_away() {
    let origin = Origin::echo();
    // Where nobody listens: of two requests by turns one is refused there, and made elsewhere.
    let config = origin.config("trust_request_timeout = true", "", "balance = \"round-robin\"\nretry_budget = 100");
    let proxy = Proxy::start_with(
        &config.replace("endpoints = [", "endpoints = [\"127.0.0.1:1\", "),
        &["--workers", "1"],
        None,
    );
    let mut client = proxy.connect("edge");
    let mut retries = 0.0;
    for deadline in ["", "X-Request-Timeout: 30s\r\n"] {
        for _ in 0..2 {
            let answer = client.ask(format!("GET /a HTTP/1.1\r\nHost: a\r\n{deadline}\r\n"));
            assert_eq!(answer.status, 200, "{deadline}{}", answer.head);
        }
        let before = std::mem::replace(&mut retries, proxy.metric("onehop_cluster_retries_total", ""));
        assert!(retries > before, "{deadline}");
    }
}
