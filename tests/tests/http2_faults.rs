//! What goes wrong between an HTTP/2 client and its upstream: never a hang, never a cut body passed off as whole, and no
//! request lost that the upstream promises not to have acted on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::Reason;
use http::Response;
use onehop_tests::frames::{Frames, GET};
use onehop_tests::http2::{Http2Origin, Incoming, ask, connect, get, post, run};
use onehop_tests::{Origin, Proxy, eventually};

fn one_worker(config: &str) -> Proxy {
    Proxy::start_with(config, &["--workers", "1"], None)
}

fn fine(incoming: &mut Incoming) {
    if let Ok(mut send) = incoming.respond.send_response(Response::new(()), false) {
        let _ = send.send_data(Bytes::from_static(b"fine"), true);
    }
}

#[test]
fn refused_streams_are_sent_again_whatever_the_method() {
    let refusals = Arc::new(AtomicUsize::new(0));
    let count = refusals.clone();
    let origin = Http2Origin::start(move |mut incoming| {
        let refuse = count.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
        async move {
            if refuse {
                incoming.respond.send_reset(Reason::REFUSED_STREAM);
            } else {
                fine(&mut incoming);
            }
        }
    });
    let proxy = one_worker(&origin.config("", "", ""));
    run(async {
        let sender = connect(proxy.address("edge")).await;
        for _ in 0..5 {
            assert_eq!(ask(&sender, post("/"), Vec::new()).await.expect("answers").text(), "fine");
        }
    });
    assert_eq!(proxy.connect("edge").get("/").text(), "fine");
    assert_eq!(refusals.load(Ordering::SeqCst), 12);
}

/// An origin by hand: answers some streams, says GOAWAY for the others, and closes.
fn goes_away(listener: std::net::TcpListener, answered: Arc<AtomicUsize>) {
    use onehop_tests::frames::frame;
    use std::io::{Read, Write};
    for stream in listener.incoming().flatten() {
        let answered = answered.clone();
        std::thread::spawn(move || {
            let (mut reader, mut writer) = (stream.try_clone().expect("clones"), stream);
            let mut preface = [0; 24];
            let _ = reader.read_exact(&mut preface);
            let _ = writer.write_all(&frame(4, 0, 0, &[]));
            let mut first = 0;
            let mut head = [0; 9];
            while reader.read_exact(&mut head).is_ok() {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                let _ = reader.read_exact(&mut vec![0; length]);
                let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                if head[3] == 4 && head[4] == 0 {
                    let _ = writer.write_all(&frame(4, 1, 0, &[]));
                }
                if head[3] != 1 {
                    continue;
                }
                if first == 0 {
                    // The last one that it acts on; what follows is left out.
                    first = stream;
                    let _ = writer.write_all(&frame(7, 0, 0, &[stream.to_be_bytes(), [0; 4]].concat()));
                    answered.fetch_add(1, Ordering::SeqCst);
                    let _ = writer.write_all(&frame(1, 5, stream, &[0x88]));
                }
            }
        });
    }
}

#[test]
fn a_goaway_in_the_middle_of_a_burst_loses_no_request() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("bound");
    let answered = Arc::new(AtomicUsize::new(0));
    let count = answered.clone();
    std::thread::spawn(move || goes_away(listener, count));
    let proxy = one_worker(&format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"a\"\nretry = {{ attempts = 10 }}\n[[cluster]]\nname = \"a\"\nprotocol = \"http2\"\nendpoints = [\"{address}\"]\n"
    ));
    run(async {
        let sender = connect(proxy.address("edge")).await;
        let mut waiting = Vec::new();
        for _ in 0..4 {
            let (answer, _) =
                sender.clone().ready().await.expect("ready").send_request(post("/"), true).expect("sends");
            waiting.push(answer);
        }
        for answer in waiting {
            assert_eq!(answer.await.expect("answers").status(), 200);
        }
    });
    assert_eq!(answered.load(Ordering::SeqCst), 4);
}

/// Answers forty requests, says so by GOAWAY, and leaves out all that have come besides.
fn answers_forty(peer: &mut Frames, answered: &AtomicUsize) {
    use onehop_tests::frames::{block, frame};
    let mut next = peer.greet();
    for number in 1..=40 {
        let Some(stream) = next else { return };
        if number == 40 {
            peer.send(frame(7, 0, 0, &[stream.to_be_bytes(), [0; 4]].concat()));
        }
        answered.fetch_add(1, Ordering::SeqCst);
        peer.send(frame(1, 5, stream, &block(&[(":status", "204")])));
        if number < 40 {
            next = peer.until(1).map(|head| head.stream);
        }
    }
    while peer.next().is_some() {}
}

#[test]
fn a_burst_of_a_hundred_is_served_once_each_whatever_goaways_come() {
    let answered = Arc::new(AtomicUsize::new(0));
    let count = answered.clone();
    let address = onehop_tests::frames::upstream(move |peer| answers_forty(peer, &count));
    // Neither the number of retries nor their budget stands in the way: by default there is one, for a fifth of them.
    let proxy = one_worker(&format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"a\"\n[[cluster]]\nname = \"a\"\nprotocol = \"http2\"\nendpoints = [\"{address}\"]\n"
    ));
    run(async {
        let sender = connect(proxy.address("edge")).await;
        let mut waiting = Vec::new();
        for _ in 0..100 {
            let (answer, _) =
                sender.clone().ready().await.expect("ready").send_request(post("/"), true).expect("sends");
            waiting.push(answer);
        }
        for answer in waiting {
            assert_eq!(answer.await.expect("answers").status(), 204);
        }
    });
    assert_eq!(answered.load(Ordering::SeqCst), 100, "none twice");
}

#[test]
fn resets_before_and_after_the_head() {
    let origin = Http2Origin::start(|mut incoming| async move {
        match incoming.request.uri().path() {
            "/before" => incoming.respond.send_reset(Reason::INTERNAL_ERROR),
            _ => {
                let mut send = incoming.respond.send_response(Response::new(()), false).expect("sends");
                send.send_data(Bytes::from_static(b"half"), false).expect("sends");
                // The half is out before the reset overtakes it.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                send.send_reset(Reason::INTERNAL_ERROR);
            }
        }
    });
    let proxy = one_worker(&origin.config("", "", ""));
    run(async {
        let sender = connect(proxy.address("edge")).await;
        let answer = ask(&sender, get("/before"), Vec::new()).await.expect("answers");
        assert_eq!(answer.head.status, 503);
        assert!(answer.text().contains("upstream-reset"), "{}", answer.text());
        let cut = ask(&sender, get("/after"), Vec::new()).await.err().expect("a reset");
        assert_eq!(cut.reason(), Some(Reason::INTERNAL_ERROR));
        // The client's connection goes on.
        assert_eq!(ask(&sender, get("/before"), Vec::new()).await.expect("answers").head.status, 503);
    });
    let cut = proxy.connect("edge").get("/after");
    assert!(!cut.whole, "a cut body must not look whole");
}

#[test]
fn a_cut_http1_body_resets_the_stream() {
    let origin = Origin::start(|connection| {
        connection.head();
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    });
    let proxy = one_worker(&origin.config("", "", ""));
    run(async {
        let sender = connect(proxy.address("edge")).await;
        let cut = ask(&sender, get("/"), Vec::new()).await.err().expect("a reset");
        assert_eq!(cut.reason(), Some(Reason::INTERNAL_ERROR));
    });
}

#[test]
fn an_upstream_that_speaks_no_http2_is_a_bad_gateway() {
    let origin = Origin::start(|connection| {
        connection.head();
        connection.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        // To close now would reset the connection, since what follows the preface is unread; the answer could get lost.
        connection.wait_for_end();
    });
    let config = origin.config("", "", "protocol = \"http2\"");
    let proxy = one_worker(&config);
    let response = proxy.connect("edge").get("/");
    assert_eq!(response.status, 502, "{}", response.text());
    run(async {
        let sender = connect(proxy.address("edge")).await;
        assert_eq!(ask(&sender, get("/"), Vec::new()).await.expect("answers").head.status, 502);
    });
}

#[test]
fn more_connections_when_streams_are_full() {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(4);
    // None is answered before all are there.
    let arrived = Arc::new(AtomicUsize::new(0));
    let origin = Http2Origin::start_with(builder, move |mut incoming| {
        let arrived = arrived.clone();
        async move {
            arrived.fetch_add(1, Ordering::SeqCst);
            while arrived.load(Ordering::SeqCst) < 12 {
                tokio::task::yield_now().await;
            }
            fine(&mut incoming);
        }
    });
    let proxy = one_worker(&origin.config("", "", "http2 = { max_streams = 4 }"));
    run(async {
        let sender = connect(proxy.address("edge")).await;
        let asked = (0..12).map(|_| {
            let sender = sender.clone();
            tokio::spawn(async move { ask(&sender, get("/"), Vec::new()).await.expect("answers").text() })
        });
        for answer in asked.collect::<Vec<_>>() {
            assert_eq!(answer.await.expect("no panic"), "fine");
        }
    });
    assert_eq!(origin.accepted(), 3);
}

#[test]
fn a_client_that_leaves_cancels_upstream() {
    let (arrived, cancelled) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (arrived.clone(), cancelled.clone());
    let origin = Http2Origin::start(move |mut incoming| {
        let (arrived, count) = counts.clone();
        async move {
            arrived.fetch_add(1, Ordering::SeqCst);
            let reset = std::future::poll_fn(|cx| incoming.respond.poll_reset(cx)).await;
            assert_eq!(reset.expect("a reset"), Reason::CANCEL);
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let proxy = one_worker(&origin.config("", "", ""));
    run(async {
        let sender = connect(proxy.address("edge")).await;
        let (answer, send) = sender.clone().ready().await.expect("ready").send_request(get("/"), true).expect("sends");
        // Once it has arrived there.
        while arrived.load(Ordering::SeqCst) < 1 {
            tokio::task::yield_now().await;
        }
        drop((answer, send));
        tokio::task::yield_now().await;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    });
    eventually("the upstream hears of it", || cancelled.load(Ordering::SeqCst) == 1);
}

#[test]
fn an_early_answer_ends_the_upload_without_an_error() {
    let origin = Http2Origin::start(|mut incoming| async move {
        let mut response = Response::new(());
        *response.status_mut() = http::StatusCode::PAYLOAD_TOO_LARGE;
        incoming.respond.send_response(response, true).expect("sends");
    });
    let proxy = one_worker(&origin.config("", "", ""));
    run(async {
        let sender = connect(proxy.address("edge")).await;
        let (answer, mut send) =
            sender.clone().ready().await.expect("ready").send_request(post("/"), false).expect("sends");
        assert_eq!(answer.await.expect("answers").status(), 413);
        let reset = std::future::poll_fn(|cx| send.poll_reset(cx)).await.expect("a reset");
        assert_eq!(reset, Reason::NO_ERROR);
    });
}

#[test]
fn a_drain_says_goaway_twice_and_lets_streams_finish() {
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let origin = Origin::start(move |connection| {
        connection.head();
        gone.lock().expect("no panic").recv().expect("the test lets it go on");
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow");
    });
    let proxy = one_worker(&origin.config("", "", ""));
    let mut client = Frames::connect(proxy.address("edge"));
    client.headers(1, &GET, true);
    eventually("it is under way", || proxy.metric("onehop_endpoint_requests_total", "") == 1.0);
    proxy.signal("TERM");
    let first = client.until(7).expect("a GOAWAY");
    assert_eq!(first.payload[..4], 0x7fff_ffffu32.to_be_bytes());
    let ping = client.until(6).expect("a PING");
    client.send(onehop_tests::frames::frame(6, 1, 0, &ping.payload));
    go.send(()).expect("the origin waits");
    let mut last = None;
    let mut body = Vec::new();
    while let Some(frame) = client.next() {
        match frame.kind {
            7 => last = Some(frame.payload[..4].to_vec()),
            0 => body.extend(frame.payload),
            _ => {}
        }
    }
    assert_eq!(last.as_deref(), Some(&1u32.to_be_bytes()[..]));
    assert_eq!(body, b"slow");
}
