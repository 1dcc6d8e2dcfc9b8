//! Requests with bodies that an HTTP/2 upstream promises not to have acted on: refused, or left out by its GOAWAY, with
//! their DATA already sent. Each is served once, its body whole, by a route without a policy of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::Reason;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response};
use onehop_tests::Proxy;
use onehop_tests::frames::{Frames, block, frame, upstream};
use onehop_tests::http2::{Http2Origin, Incoming, ask, connect, post, read, run};

/// More than the hundred streams that many servers allow.
const BURST: usize = 128;

fn proxy_to(address: std::net::SocketAddr) -> Proxy {
    let config = format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"a\"\n[[cluster]]\nname = \"a\"\nprotocol = \"http2\"\nendpoints = [\"{address}\"]\n"
    );
    Proxy::start_with(&config, &["--workers", "1"], None)
}

/// A kilobyte that tells which one it is.
fn body(number: usize) -> Vec<u8> {
    let mut body = vec![number as u8; 1024];
    body[..4].copy_from_slice(&(number as u32).to_be_bytes());
    body
}

fn number_of(body: &[u8]) -> usize {
    let number = u32::from_be_bytes(body[..4].try_into().expect("four bytes")) as usize;
    assert_eq!(body, self::body(number), "the body is whole");
    number
}

fn call() -> Request<()> {
    let request = Request::post("http://test/Service/Method").header("content-type", "application/grpc");
    request.header("te", "trailers").body(()).expect("well-formed")
}

/// Asks for all of them at once, over two connections; each must be answered.
async fn burst(proxy: &Proxy, count: usize, request: impl Fn() -> Request<()>) {
    let senders: [SendRequest<Bytes>; 2] = [connect(proxy.address("edge")).await, connect(proxy.address("edge")).await];
    let asked = (0..count).map(|number| {
        let (sender, request) = (senders[number % 2].clone(), request());
        tokio::spawn(async move { (number, ask(&sender, request, body(number)).await) })
    });
    for answer in asked.collect::<Vec<_>>() {
        let (number, answer) = answer.await.expect("no panic");
        let answer = answer.expect("an answer");
        assert_eq!((number, answer.head.status.as_u16()), (number, 200), "{}", answer.text());
        let status = answer.trailers.get("grpc-status").or(answer.head.headers.get("grpc-status"));
        assert!(status.is_none_or(|status| status == "0"), "{number}: {status:?}");
        assert_eq!(answer.body, number.to_string().into_bytes());
    }
}

/// Answers with the number that the body says.
fn answer(incoming: &mut Incoming, number: usize, is_call: bool) {
    let mut send = incoming.respond.send_response(Response::new(()), false).expect("sends");
    send.send_data(Bytes::from(number.to_string()), !is_call).expect("sends");
    if is_call {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().expect("a value"));
        send.send_trailers(trailers).expect("sends");
    }
}

/// An origin of a hundred streams that answers nobody before all have come.
fn of_a_hundred_streams() -> (Http2Origin, Arc<Mutex<BTreeSet<usize>>>) {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(100).initial_connection_window_size(1 << 20);
    let served = Arc::new(Mutex::new(BTreeSet::new()));
    let (seen, gate) = (served.clone(), Arc::new(tokio::sync::Barrier::new(BURST)));
    let origin = Http2Origin::start_with(builder, move |mut incoming| {
        let (seen, gate) = (seen.clone(), gate.clone());
        async move {
            let is_call = incoming.request.headers().contains_key("te");
            let Ok((body, _)) = read(incoming.request.body_mut()).await else { return };
            let number = number_of(&body);
            assert!(seen.lock().expect("no panic").insert(number), "{number} came twice");
            gate.wait().await;
            answer(&mut incoming, number, is_call);
        }
    });
    (origin, served)
}

#[test]
fn a_burst_against_a_hundred_streams_loses_no_post() {
    let (origin, served) = of_a_hundred_streams();
    let proxy = proxy_to(origin.address());
    run(burst(&proxy, BURST, || post("/")));
    assert_eq!(served.lock().expect("no panic").len(), BURST);
}

#[test]
fn a_burst_against_a_hundred_streams_loses_no_call() {
    let (origin, served) = of_a_hundred_streams();
    let proxy = proxy_to(origin.address());
    run(burst(&proxy, BURST, call));
    assert_eq!(served.lock().expect("no panic").len(), BURST);
}

/// Reads what is left of `BURST` to the last body, answers the first forty, and leaves the others out.
fn answers_forty(peer: &mut Frames, served: &Mutex<BTreeSet<usize>>) {
    let Some(first) = peer.greet() else { return };
    peer.send(frame(8, 0, 0, &(1u32 << 20).to_be_bytes()));
    let left = 100 - served.lock().expect("no panic").len();
    let mut bodies = BTreeMap::from([(first, Vec::new())]);
    let mut whole = 0;
    while whole < left {
        let Some(frame) = peer.next() else { return };
        match frame.kind {
            1 => drop(bodies.insert(frame.stream, Vec::new())),
            0 => {
                bodies.get_mut(&frame.stream).expect("it is open").extend(frame.payload);
                whole += usize::from(frame.flags & 1);
            }
            _ => {}
        }
    }
    for body in bodies.values().take(40) {
        // Before anybody hears that the others are left out: what comes again asks how many are still to come.
        let number = number_of(body);
        assert!(served.lock().expect("no panic").insert(number), "{number} came twice");
    }
    let last = *bodies.keys().take(40).next_back().expect("there are some");
    if left > 40 {
        peer.send(frame(7, 0, 0, &[last.to_be_bytes(), [0; 4]].concat()));
    }
    for (stream, body) in bodies.iter().take(40) {
        let number = number_of(body);
        peer.send(frame(1, 4, *stream, &block(&[(":status", "200"), ("grpc-status", "0")])));
        peer.send(frame(0, 1, *stream, number.to_string().as_bytes()));
    }
    while peer.next().is_some() {}
}

#[test]
fn what_a_goaway_leaves_out_is_sent_again_with_its_body() {
    for request in [call as fn() -> Request<()>, || post("/")] {
        let served = Arc::new(Mutex::new(BTreeSet::new()));
        let seen = served.clone();
        let proxy = proxy_to(upstream(move |peer| answers_forty(peer, &seen)));
        run(burst(&proxy, 100, request));
        assert_eq!(served.lock().expect("no panic").len(), 100);
    }
}

#[test]
fn refusals_are_outside_the_budget_of_retries() {
    let refused = Arc::new(Mutex::new(BTreeSet::new()));
    let count = refused.clone();
    let mut builder = h2::server::Builder::new();
    builder.initial_connection_window_size(1 << 20);
    let origin = Http2Origin::start_with(builder, move |mut incoming| {
        let refused = count.clone();
        async move {
            let Ok((body, _)) = read(incoming.request.body_mut()).await else { return };
            let number = number_of(&body);
            if refused.lock().expect("no panic").insert(number) {
                incoming.respond.send_reset(Reason::REFUSED_STREAM);
            } else {
                answer(&mut incoming, number, false);
            }
        }
    });
    let proxy = proxy_to(origin.address());
    run(burst(&proxy, 90, || post("/")));
    assert_eq!(refused.lock().expect("no panic").len(), 90);
}

#[test]
fn an_upstream_that_refuses_all_is_not_asked_for_ever() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let origin = Http2Origin::start(move |mut incoming| {
        count.fetch_add(1, Ordering::SeqCst);
        async move { incoming.respond.send_reset(Reason::REFUSED_STREAM) }
    });
    let proxy = proxy_to(origin.address());
    run(async {
        let sender = connect(proxy.address("edge")).await;
        assert_eq!(ask(&sender, post("/"), body(0)).await.expect("answers").head.status, 503);
    });
    // Two refusals are free of charge, two retries are the default.
    assert_eq!(asked.load(Ordering::SeqCst), 5);
}

#[test]
fn a_body_beyond_the_bound_is_not_kept() {
    let origin = Http2Origin::start(move |mut incoming| async move {
        let mut seen = 0;
        while let Some(Ok(chunk)) = incoming.request.body_mut().data().await {
            seen += chunk.len();
            let _ = incoming.request.body_mut().flow_control().release_capacity(chunk.len());
            if seen > 80 * 1024 {
                return incoming.respond.send_reset(Reason::REFUSED_STREAM);
            }
        }
    });
    let proxy = proxy_to(origin.address());
    run(async {
        let sender = connect(proxy.address("edge")).await;
        assert_eq!(ask(&sender, post("/"), vec![0; 200 * 1024]).await.expect("answers").head.status, 503);
    });
}
