//! A second try beside a slow first one: elsewhere, the first answer wins, the other is cancelled, within a budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use onehop_tests::http2::Http2Origin;
use onehop_tests::{Connection, Origin, Proxy, eventually};

fn answer(connection: &mut Connection, text: &str) {
    connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()));
}

fn config(endpoints: &[std::net::SocketAddr], route: &str, cluster: &str) -> String {
    let endpoints: Vec<String> = endpoints.iter().map(|address| format!("\"{address}\"")).collect();
    format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\nname = \"r\"\ncluster = \"c\"\n{route}\n[[cluster]]\nname = \"c\"\nendpoints = [{}]\n{cluster}\n",
        endpoints.join(", ")
    )
}

fn one_core(config: &str) -> Proxy {
    Proxy::start_with(config, &["--workers", "1"], None)
}

/// Takes requests and answers none; tells when the proxy has closed.
fn stuck() -> (Origin, Arc<AtomicUsize>, mpsc::Receiver<()>) {
    stuck_with(|_| true)
}

/// The same, counting and telling only of those whose head is one of these.
fn stuck_with(counts: fn(&str) -> bool) -> (Origin, Arc<AtomicUsize>, mpsc::Receiver<()>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let (count, (closed, closes)) = (asked.clone(), mpsc::channel());
    let closed = std::sync::Mutex::new(closed);
    let origin = Origin::start(move |connection| {
        if let Some(head) = connection.head() {
            connection.body(&head);
            if !counts(&head) {
                connection.wait_for_end();
                return;
            }
            count.fetch_add(1, Ordering::SeqCst);
            connection.wait_for_end();
            // The test may be over.
            let _ = closed.lock().expect("no panic").send(());
        }
    });
    (origin, asked, closes)
}

#[test]
fn the_first_answer_wins_and_the_loser_is_closed() {
    // Where the machine is slow the quick one may be late as well, and lose a hedge to nobody: only first tries count.
    let (slow, asked, closes) = stuck_with(|head| head.contains("X-Attempt-Count: 1\r\n"));
    let quick = Origin::echo();
    let proxy = one_core(&config(&[slow.address(), quick.address()], "hedge = { after = \"20ms\", budget = 50 }", ""));
    let mut client = proxy.connect("edge");
    // Whichever comes first in the balancer's turn, every request is answered by the quick one.
    for number in 0..3 {
        let text = format!("PUT /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        let response = client.ask(text);
        assert_eq!((response.status, response.text()), (200, format!("/{number}")));
        assert_eq!(response.field("x-body"), Some("5"), "the body went along");
    }
    let won = proxy.metric("onehop_route_hedges_won_total", "route=\"r\"");
    assert!(won >= 1.0);
    eventually("each that was stuck was won by its hedge", || asked.load(Ordering::SeqCst) as f64 == won);
    for _ in 0..asked.load(Ordering::SeqCst) {
        closes.recv_timeout(std::time::Duration::from_secs(10)).expect("the loser's connection is closed");
    }
    eventually("nothing is left under way", || proxy.metric("onehop_cluster_active", "") == 0.0);
}

#[test]
fn a_losing_stream_is_reset_with_cancel() {
    let (tell, told) = mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let (slow, quick) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let counts = Arc::new((slow, quick));
    // Both endpoints behave alike: of every pair of streams the first one is never answered.
    let tell = Arc::new(tell);
    let origin = || {
        let (tell, counts) = (tell.clone(), counts.clone());
        Http2Origin::start(move |mut incoming| {
            let (tell, counts) = (tell.clone(), counts.clone());
            async move {
                if counts.0.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
                    let reset = std::future::poll_fn(|cx| incoming.respond.poll_reset(cx)).await;
                    let _ = tell.lock().expect("no panic").send(reset.expect("it is reset"));
                } else {
                    let _ = incoming.respond.send_response(http::Response::new(()), true);
                }
            }
        })
    };
    let (one, two) = (origin(), origin());
    let route = "hedge = { after = \"20ms\", budget = 50 }";
    let proxy = one_core(&config(&[one.address(), two.address()], route, "protocol = \"http2\""));
    assert_eq!(proxy.connect("edge").get("/").status, 200);
    let reason = told.recv_timeout(std::time::Duration::from_secs(10)).expect("the loser hears of it");
    assert_eq!(reason, h2::Reason::CANCEL);
    assert_eq!((one.accepted(), two.accepted()), (1, 1), "the second try goes elsewhere");
}

#[test]
fn only_safe_requests_are_sent_twice() {
    let (slow, asked, _closes) = stuck();
    let route = "timeout = \"1s\"\nhedge = { after = \"1ms\" }";
    let proxy = one_core(&config(&[slow.address()], route, ""));
    let ask = |text: &str| {
        let hedges = || proxy.metric("onehop_route_hedges_total", "") as usize;
        let before = (asked.load(Ordering::SeqCst), hedges());
        assert_eq!(proxy.connect("edge").ask(text).status, 504);
        let sent = 1 + hedges() - before.1;
        eventually("all that was sent arrives", || asked.load(Ordering::SeqCst) == before.0 + sent);
        sent
    };
    assert_eq!(ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"), 1);
    assert_eq!(ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), 2);
    assert_eq!(ask("POST / HTTP/1.1\r\nHost: a\r\nIdempotency-Key: 1\r\nContent-Length: 2\r\n\r\nhi"), 2);
    // A body that is longer than what is kept is sent once, and whole.
    let long = "x".repeat(100_000);
    assert_eq!(ask(&format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n{long}")), 1);
}

#[test]
fn a_budget_bounds_them() {
    let (slow, asked, _closes) = stuck();
    let route = "timeout = \"1s\"\nhedge = { after = \"1ms\", budget = 10 }";
    let proxy = one_core(&config(&[slow.address()], route, ""));
    let begun = std::time::Instant::now();
    let mut clients: Vec<_> = (0..40).map(|_| proxy.connect("edge")).collect();
    clients.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    clients.iter_mut().for_each(|client| assert_eq!(client.response().status, 504));
    let hedges = proxy.metric("onehop_route_hedges_total", "");
    eventually("all that was sent arrives", || asked.load(Ordering::SeqCst) as f64 == 40.0 + hedges);
    // A tenth of them, at least three a second; a busy machine takes longer to send them all.
    let most = 4.0 + 3.0 * (begun.elapsed().as_secs_f64() + 1.0);
    assert!(hedges >= 1.0 && hedges <= most, "{hedges} of {most}");
}

#[test]
fn it_learns_when_to_hedge() {
    let slow = Arc::new(AtomicUsize::new(0));
    let is_slow = slow.clone();
    let origin = Origin::start(move |connection| {
        while let Some(head) = connection.head() {
            if head.starts_with("GET /slow ") && is_slow.fetch_add(1, Ordering::SeqCst) == 0 {
                connection.wait_for_end();
                return;
            }
            answer(connection, "ok");
        }
    });
    let proxy = one_core(&config(&[origin.address()], "hedge = { quantile = 0.95, budget = 50 }", ""));
    let mut client = proxy.connect("edge");
    // Nothing is known at first, and so nothing is hedged; afterwards it is known how long answers take.
    (0..80).for_each(|_| assert_eq!(client.get("/").status, 200));
    assert_eq!(client.get("/slow").status, 200);
    assert!(proxy.metric("onehop_route_hedges_won_total", "") >= 1.0);
    assert_eq!(slow.load(Ordering::SeqCst), 2);
}

#[test]
fn a_client_that_leaves_ends_both() {
    let (slow, asked, closes) = stuck();
    let proxy = one_core(&config(&[slow.address()], "hedge = { after = \"1ms\" }", ""));
    let mut client = proxy.connect("edge");
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("both are under way", || asked.load(Ordering::SeqCst) == 2);
    drop(client);
    for _ in 0..2 {
        closes.recv_timeout(std::time::Duration::from_secs(10)).expect("each is closed");
    }
    eventually("it is counted", || proxy.metric("onehop_listener_faults_total", "client-left") == 1.0);
}
