//! When connections of HTTP/2 that are well all the same come to their end: upstream after they have idled, by age, after so
//! many requests; a client's after it has idled. What is under way on them goes on.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use onehop_tests::frames::{Frames, GET, frame};
use onehop_tests::http2::{Http2Origin, ask, connect, get, run};
use onehop_tests::{Proxy, eventually};

/// Answers with the number of the connection; `/held` once it is let go.
fn numbered() -> (Http2Origin, Arc<tokio::sync::Semaphore>) {
    let held = Arc::new(tokio::sync::Semaphore::new(0));
    let gate = held.clone();
    let origin = Http2Origin::start(move |mut incoming| {
        let gate = gate.clone();
        async move {
            if incoming.request.uri().path() == "/held" {
                gate.acquire().await.expect("it is never closed").forget();
            }
            let Ok(mut send) = incoming.respond.send_response(Response::new(()), false) else { return };
            let _ = send.send_data(Bytes::from(incoming.connection.to_string()), true);
        }
    });
    (origin, held)
}

fn one_worker(config: &str) -> Proxy {
    Proxy::start_with(config, &["--workers", "1"], None)
}

/// Connections to the upstream that are open now.
fn open(proxy: &Proxy) -> f64 {
    proxy.metric("onehop_cluster_connections", "cluster=\"origin\"")
}

#[test]
fn an_upstream_connection_is_closed_when_it_has_idled() {
    let (origin, held) = numbered();
    let proxy = one_worker(&origin.config("", "timeout = \"off\"", "pool = { idle_timeout = \"1s\" }"));
    let mut client = proxy.connect("edge");
    assert_eq!(client.get("/").text(), "0");
    eventually("it is closed", || open(&proxy) == 0.0);
    assert_eq!(client.get("/").text(), "1");
    // A stream on which nothing moves keeps its connection, though it is no sign of life: others idle out meanwhile.
    eventually("it is closed", || open(&proxy) == 0.0);
    let mut waits = proxy.connect("edge");
    waits.send("GET /held HTTP/1.1\r\nHost: test\r\n\r\n");
    eventually("it is under way", || open(&proxy) == 1.0);
    let (other, _) = numbered();
    let beside = one_worker(&other.config("", "", "pool = { idle_timeout = \"1s\" }"));
    for _ in 0..2 {
        assert_eq!(beside.connect("edge").get("/").status, 200);
        eventually("one that idles beside it is closed", || open(&beside) == 0.0);
    }
    held.add_permits(1);
    assert_eq!(waits.response().text(), "2");
    assert_eq!((origin.accepted(), open(&proxy)), (3, 1.0));
}

#[test]
fn an_old_upstream_connection_is_left_to_its_last_stream() {
    let (origin, held) = numbered();
    let proxy =
        one_worker(&origin.config("", "timeout = \"off\"", "pool = { max_age = \"1s\", idle_timeout = \"60s\" }"));
    let mut waits = proxy.connect("edge");
    waits.send("GET /held HTTP/1.1\r\nHost: test\r\n\r\n");
    eventually("it is under way", || open(&proxy) == 1.0);
    let mut client = proxy.connect("edge");
    eventually("others have a new connection", || client.get("/").text() != "0");
    held.add_permits(1);
    let answer = waits.response();
    assert_eq!((answer.status, answer.text(), answer.whole), (200, "0".to_owned(), true));
    // The new one comes of age, too, and nobody asks for another.
    eventually("all are closed", || open(&proxy) == 0.0);
}

#[test]
fn an_upstream_connection_takes_so_many_requests() {
    let (origin, _) = numbered();
    let proxy = one_worker(&origin.config("", "", "pool = { max_requests = 3 }"));
    run(async {
        let sender = connect(proxy.address("edge")).await;
        for number in 0..9 {
            let answer = ask(&sender, get("/"), Vec::new()).await.expect("answers");
            assert_eq!(answer.text(), (number / 3).to_string());
        }
    });
    eventually("those that are spent are closed", || open(&proxy) <= 1.0);
}

#[test]
fn a_client_that_idles_is_told_to_go_and_one_that_waits_is_not() {
    let (origin, held) = numbered();
    let proxy = one_worker(&origin.config("idle_timeout = \"1s\"", "timeout = \"off\"", ""));
    let mut waits = Frames::connect(proxy.address("edge"));
    let path = [&GET[..3], &[(":path", "/held")]].concat();
    waits.headers(1, &path, true);
    for served in [0, 1] {
        let mut idles = Frames::connect(proxy.address("edge"));
        for number in 0..served {
            idles.headers(2 * number + 1, &GET, true);
            assert_eq!(idles.until(0).expect("an answer").payload, b"0");
        }
        // Twice as an orderly end has it, and without an error (RFC 9113 6.8).
        let first = idles.until(7).expect("a GOAWAY");
        assert_eq!(first.payload, [0x7fff_ffffu32.to_be_bytes(), [0; 4]].concat());
        let asked = idles.until(6).expect("a PING");
        idles.send(frame(6, 1, 0, &asked.payload));
        let last = idles.until(7).expect("a second GOAWAY");
        assert_eq!(last.payload, [served.to_be_bytes(), [0; 4]].concat());
        assert!(idles.next().is_none(), "and then it is closed");
    }
    // Two others have idled out since: it was not told to go.
    held.add_permits(1);
    loop {
        let next = waits.next().expect("the connection lives");
        assert_ne!(next.kind, 7, "it was told to go while it waited");
        if next.kind == 0 {
            assert_eq!(next.payload, b"0");
            break;
        }
    }
}
