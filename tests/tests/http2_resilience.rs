//! Retries, mirrors, hedges and deadlines where either side speaks HTTP/2.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use onehop_tests::http2::{Http2Origin, Incoming, ask_with, connect, read, run};
use onehop_tests::{Origin, Proxy, eventually};

/// What an origin got of a stream: its authority, its body, and the trailer `x-sum`.
type Notes = Arc<Mutex<Vec<(String, Vec<u8>, String)>>>;

async fn note(incoming: &mut Incoming, notes: &Notes) -> bool {
    let authority = incoming.request.uri().authority().map(ToString::to_string).unwrap_or_default();
    let Ok((body, trailers)) = read(incoming.request.body_mut()).await else { return false };
    let sum = trailers.and_then(|trailers| Some(trailers.get("x-sum")?.to_str().ok()?.to_owned())).unwrap_or_default();
    notes.lock().expect("no panic").push((authority, body, sum));
    true
}

fn answer(incoming: &mut Incoming, status: u16) {
    let head = Response::builder().status(status).body(()).expect("well-formed");
    // The proxy may have left.
    let _ = incoming.respond.send_response(head, true);
}

fn one_core(config: &str) -> Proxy {
    Proxy::start_with(config, &["--workers", "1"], None)
}

fn put(path: &str) -> Request<()> {
    Request::put(format!("http://test{path}")).body(()).expect("well-formed")
}

fn sum() -> Option<HeaderMap> {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "42".parse().expect("a value"));
    Some(trailers)
}

const BODY_BYTES: usize = 50_000;

/// A body that tells where each of its parts belongs.
fn body() -> Vec<u8> {
    (0..BODY_BYTES).map(|at| (at / 251) as u8).collect()
}

/// The first stream is reset in the middle of its body, the second is answered with 503 after all of it, the third is well.
fn fails_twice(notes: &Notes) -> Http2Origin {
    let (notes, count) = (notes.clone(), Arc::new(AtomicUsize::new(0)));
    Http2Origin::start(move |mut incoming| {
        let (notes, number) = (notes.clone(), count.fetch_add(1, Ordering::SeqCst));
        async move {
            if number == 0 {
                let _ = incoming.request.body_mut().data().await;
                incoming.respond.send_reset(h2::Reason::INTERNAL_ERROR);
                return;
            }
            if note(&mut incoming, &notes).await {
                answer(&mut incoming, if number == 1 { 503 } else { 200 });
            }
        }
    })
}

const RETRY: &str =
    "retry = { attempts = 3, on = [\"reset-before-response\", \"5xx\"], backoff = \"1ms\", max_body = \"64KiB\" }";

#[test]
fn a_body_is_sent_again_whole_from_http2_to_http2() {
    let notes = Notes::default();
    let origin = fails_twice(&notes);
    let proxy = one_core(&origin.config("", RETRY, ""));
    run(async {
        let sender = connect(proxy.address("edge")).await;
        let whole = ask_with(&sender, put("/"), body(), sum()).await.expect("answers");
        assert_eq!(whole.head.status, 200);
    });
    let notes = notes.lock().expect("no panic");
    assert_eq!(notes.len(), 2, "both after the one that was cut");
    for (_, seen, sum) in notes.iter() {
        assert!(*seen == body(), "{} bytes", seen.len());
        assert_eq!(sum, "42");
    }
    assert_eq!(proxy.metric("onehop_route_retries_total", ""), 2.0);
}

#[test]
fn a_body_that_is_still_coming_is_sent_again_whole_from_http2_to_http2() {
    let notes = Notes::default();
    let (origin, body) = (fails_twice(&notes), body());
    let proxy = one_core(&origin.config("", RETRY, ""));
    run(async {
        let mut sender = connect(proxy.address("edge")).await.ready().await.expect("ready");
        let (answer, mut send) = sender.send_request(put("/"), false).expect("sends");
        send.send_data(Bytes::copy_from_slice(&body[..20_000]), false).expect("sends");
        // The rest comes only once the first attempt has been given up.
        while proxy.metric("onehop_route_retries_total", "") < 1.0 {
            tokio::task::yield_now().await;
        }
        send.send_data(Bytes::copy_from_slice(&body[20_000..]), false).expect("sends");
        send.send_trailers(sum().expect("some")).expect("sends");
        assert_eq!(answer.await.expect("answers").status(), 200);
    });
    let notes = notes.lock().expect("no panic");
    assert_eq!(notes.len(), 2);
    assert!(notes.iter().all(|(_, seen, sum)| *seen == body && sum == "42"));
}

#[test]
fn a_body_is_sent_again_whole_from_http1_to_http2() {
    let notes = Notes::default();
    let origin = fails_twice(&notes);
    let proxy = one_core(&origin.config("", RETRY, ""));
    let mut client = proxy.connect("edge");
    client.send(format!("PUT / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n{BODY_BYTES:x}\r\n"));
    client.send(body());
    client.send("\r\n0\r\nX-Sum: 42\r\n\r\n");
    assert_eq!(client.response().status, 200);
    let seen = notes.lock().expect("no panic").clone();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|(_, seen, sum)| *seen == body() && sum == "42"));
    // The connection is at its next request's beginning.
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn a_body_is_sent_again_whole_from_http2_to_http1() {
    let bodies: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let seen = bodies.clone();
    let origin = Origin::start(move |connection| {
        while let Some(head) = connection.head() {
            let number = {
                let body = connection.body(&head);
                let mut seen = seen.lock().expect("no panic");
                seen.push(body);
                seen.len()
            };
            let status = if number == 1 { "503 Busy" } else { "200 OK" };
            connection.send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
        }
    });
    let proxy = one_core(&origin.config("http2 = {}", RETRY, ""));
    run(async {
        let sender = connect(proxy.address("edge")).await;
        let request = Request::put("http://test/").header("content-length", BODY_BYTES).body(()).expect("well-formed");
        assert_eq!(ask_with(&sender, request, body(), None).await.expect("answers").head.status, 200);
    });
    let bodies = bodies.lock().expect("no panic");
    assert!(bodies.len() == 2 && bodies.iter().all(|seen| *seen == body()));
}

#[test]
fn what_is_longer_than_the_bound_is_sent_once_and_whole() {
    let notes = Notes::default();
    let seen = notes.clone();
    let origin = Http2Origin::start(move |mut incoming| {
        let seen = seen.clone();
        async move {
            if note(&mut incoming, &seen).await {
                answer(&mut incoming, 503);
            }
        }
    });
    let proxy = one_core(&origin.config("", &RETRY.replace("64KiB", "16KiB"), ""));
    run(async {
        let sender = connect(proxy.address("edge")).await;
        assert_eq!(ask_with(&sender, put("/"), body(), sum()).await.expect("answers").head.status, 503);
    });
    let seen = notes.lock().expect("no panic");
    assert!(seen.len() == 1 && seen[0].1 == body());
    assert_eq!(proxy.metric("onehop_route_retries_denied_total", "why=\"body-too-long\""), 1.0);
}

#[test]
fn a_mirror_may_speak_http2() {
    let (notes, copies) = (Notes::default(), Notes::default());
    let noting = |notes: &Notes, status: u16| {
        let notes = notes.clone();
        Http2Origin::start(move |mut incoming| {
            let notes = notes.clone();
            async move {
                if note(&mut incoming, &notes).await {
                    answer(&mut incoming, status);
                }
            }
        })
    };
    let (origin, shadow) = (noting(&notes, 200), noting(&copies, 500));
    let config = origin.config("", "mirror = { cluster = \"shadow\", shadow_host = true }", "")
        + &format!("[[cluster]]\nname = \"shadow\"\nprotocol = \"http2\"\nendpoints = [\"{}\"]\n", shadow.address());
    let proxy = one_core(&config);
    let copied = |count: usize| {
        eventually("the copy is there", || copies.lock().expect("no panic").len() == count);
        eventually("and over", || proxy.metric("onehop_cluster_active", "cluster=\"shadow\"") == 0.0);
    };
    run(async {
        let sender = connect(proxy.address("edge")).await;
        assert_eq!(ask_with(&sender, put("/two"), body(), sum()).await.expect("answers").head.status, 200);
    });
    copied(1);
    let mut client = proxy.connect("edge");
    client.send(format!("POST /one HTTP/1.1\r\nHost: test\r\nContent-Length: {BODY_BYTES}\r\n\r\n"));
    client.send(body());
    assert_eq!(client.response().status, 200);
    copied(2);
    let copies = copies.lock().expect("no panic");
    assert!(copies.iter().all(|(authority, seen, _)| authority == "test-shadow" && *seen == body()));
    assert_eq!(copies[0].2, "42", "trailers go along");
    assert!(notes.lock().expect("no panic").iter().all(|(authority, seen, _)| authority == "test" && *seen == body()));
    assert_eq!(shadow.accepted(), 1, "copies share a connection");
    assert_eq!(proxy.metric("onehop_route_mirrored_total", ""), 2.0);
    assert_eq!(proxy.metric("onehop_route_responses_total", "class=\"5xx\""), 0.0);
}

#[test]
fn a_hedge_between_http2_upstreams_takes_the_body_along() {
    let (tell, told) = mpsc::channel();
    let (tell, asked, notes) = (Arc::new(Mutex::new(tell)), Arc::new(AtomicUsize::new(0)), Notes::default());
    // Both behave alike: of all streams the first one is never answered.
    let origin = || {
        let (tell, asked, notes) = (tell.clone(), asked.clone(), notes.clone());
        Http2Origin::start(move |mut incoming| {
            let (tell, asked, notes) = (tell.clone(), asked.clone(), notes.clone());
            async move {
                let is_first = asked.fetch_add(1, Ordering::SeqCst) == 0;
                note(&mut incoming, &notes).await;
                if is_first {
                    let reset = std::future::poll_fn(|cx| incoming.respond.poll_reset(cx)).await;
                    // The test may be over.
                    let _ = tell.lock().expect("no panic").send(reset);
                } else {
                    answer(&mut incoming, 200);
                }
            }
        })
    };
    let (one, two) = (origin(), origin());
    let both = format!("[\"{}\", \"{}\"]", one.address(), two.address());
    let config = one.config("", "hedge = { after = \"200ms\", budget = 50 }", "");
    let proxy = one_core(&config.replace(&format!("[\"{}\"]", one.address()), &both));
    run(async {
        let sender = connect(proxy.address("edge")).await;
        assert_eq!(ask_with(&sender, put("/"), body(), sum()).await.expect("answers").head.status, 200);
        // Now, since on a slow machine the next request may be hedged too, although it is answered.
        assert_eq!(proxy.metric("onehop_route_hedges_won_total", ""), 1.0);
        // The client's own connection and its other streams go on.
        assert_eq!(ask_with(&sender, put("/"), body(), sum()).await.expect("answers").head.status, 200);
    });
    let reset = told.recv_timeout(Duration::from_secs(10)).expect("the loser hears of it");
    assert_eq!(reset.expect("by itself, not with its connection"), h2::Reason::CANCEL);
    assert_eq!((one.accepted(), two.accepted()), (1, 1), "the second try goes elsewhere");
    assert!(notes.lock().expect("no panic").iter().all(|(_, seen, sum)| *seen == body() && sum == "42"));
}

#[test]
fn a_clients_deadline_over_http2_is_kept_and_passed_on() {
    let (tell, told) = mpsc::channel();
    let tell = Arc::new(Mutex::new(tell));
    let origin = Http2Origin::start(move |mut incoming| {
        let tell = tell.clone();
        async move {
            let left = incoming.request.headers().get("x-request-timeout").cloned();
            if incoming.request.uri().path() == "/never" {
                let reset = std::future::poll_fn(|cx| incoming.respond.poll_reset(cx)).await;
                // The test may be over.
                let _ = tell.lock().expect("no panic").send(reset);
                return;
            }
            let mut head = Response::new(());
            if let Some(left) = left {
                head.headers_mut().insert("x-left", left);
            }
            let _ = incoming.respond.send_response(head, true);
        }
    });
    let proxy = one_core(&origin.config("trust_request_timeout = true", "", ""));
    run(async {
        let sender = connect(proxy.address("edge")).await;
        let ask = async |path: &str, timeout: &str| {
            let request = Request::get(format!("http://test{path}")).header("x-request-timeout", timeout);
            let request = request.body(()).expect("well-formed");
            ask_with(&sender, request, Vec::new(), None).await.expect("answers")
        };
        let left = ask("/", "20s").await.field("x-left").expect("it is passed on").to_owned();
        let ms: u64 = left.strip_suffix("ms").and_then(|ms| ms.parse().ok()).expect("milliseconds");
        assert!(ms > 0 && ms <= 20_000, "{ms}");
        let late = ask("/never", "300ms").await;
        assert_eq!(late.head.status, 504);
        assert!(late.field("proxy-status").is_some_and(|text| text.contains("upstream-timeout")));
        // Others on the same two connections are not hurt.
        assert_eq!(ask("/", "20s").await.head.status, 200);
    });
    let reset = told.recv_timeout(Duration::from_secs(10)).expect("the upstream hears of it");
    assert_eq!(reset.expect("by itself, not with its connection"), h2::Reason::CANCEL);
    assert_eq!(origin.accepted(), 1);
}
