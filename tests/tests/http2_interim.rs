//! Interim responses and early final ones, where either side speaks HTTP/2: `100 Continue` reaches whom it is for, once; hints
//! pass; an answer that comes before the request's end is whole, and ends the upload without an error.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::Reason;
use http::Request;
use onehop_tests::frames::{Frames, block, frame, upstream};
use onehop_tests::http2::{connect, get, post, read, run};
use onehop_tests::{Origin, Proxy};

fn one_worker(config: &str) -> Proxy {
    Proxy::start_with(config, &["--workers", "1"], None)
}

fn to_http2(script: impl Fn(&mut Frames, u32) + Send + Sync + 'static) -> Proxy {
    let address = upstream(move |peer| {
        if let Some(stream) = peer.greet() {
            script(peer, stream);
            while peer.next().is_some() {}
        }
    });
    one_worker(&format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"a\"\n[[cluster]]\nname = \"a\"\nprotocol = \"http2\"\nendpoints = [\"{address}\"]\n"
    ))
}

fn head(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(1, flags, stream, &block(fields))
}

/// Reads DATA up to the end of the stream.
fn body(peer: &mut Frames) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(data) = peer.until(0) {
        body.extend(data.payload);
        if data.flags & 1 == 1 {
            break;
        }
    }
    body
}

const EXPECTS: &str = "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";

fn expects() -> Request<()> {
    let request = Request::put("http://test/").header("expect", "100-continue");
    request.header("content-length", "5").body(()).expect("well-formed")
}

#[test]
fn a_100_of_an_http2_upstream_reaches_whom_it_is_for() {
    let script = |peer: &mut Frames, stream: u32| {
        // Nothing of the body comes before it.
        peer.send(head(stream, 4, &[(":status", "100")]));
        assert_eq!(body(peer), b"hello");
        peer.send(head(stream, 5, &[(":status", "204")]));
    };
    let proxy = to_http2(script);
    let mut client = proxy.connect("edge");
    assert_eq!(client.ask(EXPECTS).status, 100);
    assert_eq!(client.ask("hello").status, 204, "told once");
    // Who did not ask for it hears nothing of it.
    let proxy = to_http2(script);
    let mut client = proxy.connect("edge");
    assert_eq!(client.ask("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").status, 204);
    let proxy = to_http2(script);
    run(upload_once_told(&proxy));
}

/// An HTTP/2 client sends its body once it was told to go on.
async fn upload_once_told(proxy: &Proxy) {
    let sender = connect(proxy.address("edge")).await;
    let (mut answer, mut send) = sender.ready().await.expect("ready").send_request(expects(), false).expect("sends");
    let interim = poll_fn(|cx| answer.poll_informational(cx)).await.expect("one").expect("whole");
    assert_eq!(interim.status(), 100);
    send.send_data(Bytes::from_static(b"hello"), true).expect("sends");
    assert!(poll_fn(|cx| answer.poll_informational(cx)).await.is_none(), "told once");
    assert_eq!(answer.await.expect("answers").status(), 204);
}

#[test]
fn a_100_of_an_http1_upstream_reaches_an_http2_client() {
    let origin = Origin::start(|connection| {
        let Some(head) = connection.head() else { return };
        assert!(head.to_lowercase().contains("expect: 100-continue"), "{head}");
        connection.send("HTTP/1.1 100 Continue\r\n\r\n");
        assert_eq!(connection.read(5), b"hello");
        connection.send("HTTP/1.1 204 No Content\r\n\r\n");
        connection.wait_for_end();
    });
    run(upload_once_told(&one_worker(&origin.config("", "", ""))));
}

#[test]
fn who_expects_100_and_is_refused_sends_no_body() {
    let got = Arc::new(Mutex::new(Vec::new()));
    let seen = got.clone();
    let proxy = to_http2(move |peer, stream| {
        peer.send(head(stream, 5, &[(":status", "417"), ("content-length", "0")]));
        while let Some(next) = peer.next() {
            if next.kind == 0 {
                seen.lock().expect("no panic").extend(next.payload);
            }
        }
    });
    let mut client = proxy.connect("edge");
    let response = client.ask(EXPECTS);
    assert_eq!(response.status, 417);
    // It cannot know whether the body comes after all, so the connection ends.
    assert_eq!(response.field("connection"), Some("close"));
    assert!(client.is_closed());
    assert!(got.lock().expect("no panic").is_empty());
}

#[test]
fn hints_of_an_http2_upstream_pass_to_those_who_know_them() {
    let script = |peer: &mut Frames, stream: u32| {
        peer.send(head(stream, 4, &[(":status", "103"), ("link", "</a>")]));
        peer.send(head(stream, 4, &[(":status", "103"), ("link", "</b>")]));
        peer.send(head(stream, 4, &[(":status", "200"), ("content-length", "4")]));
        peer.send(frame(0, 1, stream, b"body"));
    };
    let proxy = to_http2(script);
    let mut client = proxy.connect("edge");
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    for link in ["</a>", "</b>"] {
        let hint = client.response();
        assert_eq!((hint.status, hint.field("link")), (103, Some(link)));
    }
    let answer = client.response();
    assert_eq!((answer.status, answer.text()), (200, "body".to_owned()));
    // HTTP/1.0 knows none (RFC 9110 15.2).
    let proxy = to_http2(script);
    let answer = proxy.connect("edge").ask("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!((answer.status, answer.text()), (200, "body".to_owned()));
    let proxy = to_http2(script);
    run(async {
        let sender = connect(proxy.address("edge")).await;
        let (mut answer, _) = sender.ready().await.expect("ready").send_request(get("/"), true).expect("sends");
        for link in ["</a>", "</b>"] {
            let hint = poll_fn(|cx| answer.poll_informational(cx)).await.expect("one").expect("whole");
            assert_eq!((hint.status().as_u16(), hint.headers()["link"].as_bytes()), (103, link.as_bytes()));
        }
        let mut answer = answer.await.expect("answers").into_body();
        assert_eq!(read(&mut answer).await.expect("whole").0, b"body");
    });
}

#[test]
fn sixteen_hints_pass_and_one_more_is_a_bad_gateway() {
    for (count, status) in [(16, 200), (17, 502)] {
        let proxy = to_http2(move |peer, stream| {
            peer.send(head(stream, 4, &[(":status", "103")]).repeat(count));
            peer.send(head(stream, 5, &[(":status", "200")]));
        });
        run(async {
            let sender = connect(proxy.address("edge")).await;
            let (answer, _) = sender.ready().await.expect("ready").send_request(get("/"), true).expect("sends");
            assert_eq!(answer.await.expect("answers").status(), status, "{count}");
        });
        let origin = Origin::start(move |connection| {
            connection.head();
            connection.send("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(count));
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            connection.wait_for_end();
        });
        let proxy = one_worker(&origin.config("", "", ""));
        run(async {
            let sender = connect(proxy.address("edge")).await;
            let (answer, _) = sender.ready().await.expect("ready").send_request(get("/"), true).expect("sends");
            assert_eq!(answer.await.expect("answers").status(), status, "{count}");
        });
    }
}

/// Longer than one window, so that it is not all here when the upload is refused.
const LATE_BYTES: usize = 100_000;

/// Answers once some of the body has come, then asks for no more of it (RFC 9113 8.1).
fn refuses(length: bool, told: Arc<AtomicUsize>) -> impl Fn(&mut Frames, u32) + Send + Sync {
    move |peer, stream| {
        peer.until(0).expect("some of the body");
        peer.send(frame(8, 0, 0, &65_535u32.to_be_bytes()));
        let bytes = LATE_BYTES.to_string();
        let fields = [(":status", "413"), ("content-length", bytes.as_str())];
        peer.send(head(stream, 4, &fields[..1 + usize::from(length)]));
        let mut left = LATE_BYTES;
        // By parts that fit the window of 64 KiB.
        let mut window = 65_535;
        while left > 0 {
            while window == 0 {
                let Some(update) = peer.next() else { return };
                match update.kind {
                    8 if update.stream == stream => {
                        window += u32::from_be_bytes(update.payload.try_into().expect("four bytes")) as usize;
                    }
                    3 => drop(told.fetch_add(1, Ordering::SeqCst)),
                    _ => {}
                }
            }
            let part = left.min(window).min(16_384);
            left -= part;
            window -= part;
            peer.send(frame(0, u8::from(left == 0), stream, &vec![b'x'; part]));
        }
        peer.send(frame(3, 0, stream, &[0; 4]));
    }
}

#[test]
fn an_early_answer_of_an_http2_upstream_is_whole() {
    for length in [true, false] {
        let resets = Arc::new(AtomicUsize::new(0));
        let proxy = to_http2(refuses(length, resets.clone()));
        let mut client = proxy.connect("edge");
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n");
        // Some of it, and no more until it is answered.
        client.send(vec![b'x'; 20_000]);
        let response = client.response();
        assert_eq!((response.status, response.body.len(), response.whole), (413, LATE_BYTES, true));
        assert_eq!(response.field("connection"), Some("close"));
        let proxy = to_http2(refuses(length, resets.clone()));
        run(early(&proxy));
        assert_eq!(resets.load(Ordering::SeqCst), 0, "nothing is reset while it is answered");
    }
}

/// Uploads a part; the answer is whole, and the stream ends without an error.
async fn early(proxy: &Proxy) {
    let sender = connect(proxy.address("edge")).await;
    let (answer, mut send) =
        sender.clone().ready().await.expect("ready").send_request(post("/"), false).expect("sends");
    send.send_data(Bytes::from(vec![b'x'; 20_000]), false).expect("sends");
    let answer = answer.await.expect("answers");
    assert_eq!(answer.status(), 413);
    let mut answer = answer.into_body();
    assert_eq!(read(&mut answer).await.expect("whole").0.len(), LATE_BYTES);
    let reset = poll_fn(|cx| send.poll_reset(cx)).await.expect("a reset");
    assert_eq!(reset, Reason::NO_ERROR);
}

#[test]
fn an_early_answer_of_an_http1_upstream_is_whole() {
    for close in [true, false] {
        let origin = Origin::start(move |connection| {
            connection.head();
            let more = if close { "Connection: close\r\n" } else { "" };
            connection.send(format!("HTTP/1.1 413 Too Large\r\nContent-Length: {LATE_BYTES}\r\n{more}\r\n"));
            connection.send(vec![b'x'; LATE_BYTES]);
            if close {
                connection.finish();
            }
            connection.wait_for_end();
        });
        run(early(&one_worker(&origin.config("", "", ""))));
    }
}

#[test]
fn what_is_uploaded_behind_an_early_head_still_arrives() {
    // The answer begins at once, and ends with how much has come.
    let proxy = to_http2(|peer, stream| {
        peer.send(head(stream, 4, &[(":status", "200")]));
        let length = body(peer).len();
        peer.send(frame(0, 1, stream, length.to_string().as_bytes()));
    });
    run(async {
        let sender = connect(proxy.address("edge")).await;
        let (answer, mut send) = sender.ready().await.expect("ready").send_request(post("/"), false).expect("sends");
        let mut answer = answer.await.expect("a head before the body").into_body();
        send.send_data(Bytes::from(vec![b'x'; 30_000]), true).expect("sends");
        assert_eq!(read(&mut answer).await.expect("whole").0, b"30000");
    });
    let origin = Origin::start(|connection| {
        connection.head();
        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n=\r\n");
        connection.read(30_000);
        connection.send("4\r\nlate\r\n0\r\n\r\n");
        connection.wait_for_end();
    });
    let proxy = one_worker(&origin.config("", "", ""));
    run(async {
        let sender = connect(proxy.address("edge")).await;
        let request = Request::post("http://test/").header("content-length", "30000").body(()).expect("well-formed");
        let (answer, mut send) = sender.ready().await.expect("ready").send_request(request, false).expect("sends");
        let mut answer = answer.await.expect("a head before the body").into_body();
        send.send_data(Bytes::from(vec![b'x'; 30_000]), true).expect("sends");
        assert_eq!(read(&mut answer).await.expect("whole").0, b"=late");
    });
}
