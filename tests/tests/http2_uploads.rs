//! What ends in the middle of an upload, where either side speaks HTTP/2: the upstream resets, says GOAWAY or closes, before
//! and after more of the body has passed than is kept; or the client leaves. Each client gets the right status at once,
//! though it has not sent all of it, and no upstream takes a cut body for a whole one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;
use onehop_tests::frames::{Frames, block, frame, upstream};
use onehop_tests::http2::{ask, connect, post, read, run};
use onehop_tests::{Client, Origin, Proxy};

/// Less than is kept to be sent again, which is 64 KiB, and more than that.
const SHORT: usize = 20_000;
const LONG: usize = 150_000;

/// What the client gets.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Got {
    /// The answer to the whole body.
    Served,
    /// An answer of ours.
    Status(u16),
    /// A head, and a body that does not look whole.
    Cut,
}
use Got::{Cut, Served, Status};

/// What an upstream does once so much of the first body has come; false: it leaves.
type Fault = fn(&mut Frames, u32) -> bool;
/// Its name, what a client gets while all is kept, and when it is not.
type Case = (&'static str, Fault, Got, Got);

const CASES: [Case; 12] = [
    ("RST_STREAM CANCEL", |peer, at| reset(peer, at, 8), Status(503), Status(503)),
    ("RST_STREAM INTERNAL_ERROR", |peer, at| reset(peer, at, 2), Status(503), Status(503)),
    ("RST_STREAM NO_ERROR without an answer", |peer, at| reset(peer, at, 0), Status(503), Status(503)),
    ("RST_STREAM REFUSED_STREAM", |peer, at| reset(peer, at, 7), Served, Status(503)),
    ("GOAWAY that leaves it out", |peer, _| goaway(peer, 0, 0), Served, Status(503)),
    ("GOAWAY that leaves it out, and an end", |peer, _| goaway(peer, 0, 0) && end(peer), Served, Status(503)),
    ("GOAWAY of an error that leaves it out", |peer, _| goaway(peer, 0, 11) && end(peer), Served, Status(503)),
    ("GOAWAY that takes it", |peer, at| goaway(peer, at, 0), Served, Served),
    ("GOAWAY that takes it, and an end", |peer, at| goaway(peer, at, 0) && end(peer), Status(503), Status(503)),
    ("an end", |peer, _| end(peer), Status(503), Status(503)),
    ("an end with bytes unread", |_, _| false, Status(503), Status(503)),
    ("an answer that begins, and RST_STREAM", begins, Cut, Cut),
];

fn reset(peer: &mut Frames, stream: u32, code: u32) -> bool {
    peer.send(frame(3, 0, stream, &code.to_be_bytes()));
    true
}

fn goaway(peer: &mut Frames, last: u32, code: u32) -> bool {
    peer.send(frame(7, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat()));
    true
}

/// Ends in order: a close with bytes unread resets the connection, and what was said last may be lost.
fn end(peer: &mut Frames) -> bool {
    peer.finish();
    while peer.next().is_some() {}
    false
}

fn begins(peer: &mut Frames, stream: u32) -> bool {
    peer.send(frame(1, 4, stream, &block(&[(":status", "200")])));
    peer.send(frame(0, 0, stream, b"half"));
    // Once that has reached the proxy, which says so.
    peer.send(frame(6, 0, 0, b"received"));
    while peer.until(6).is_some_and(|pong| pong.flags & 1 == 0) {}
    reset(peer, stream, 2)
}

/// Gives credit for all, does what it does to the first request, and serves all others: with length and sum of the body.
fn serve(peer: &mut Frames, at: usize, fault: Fault, done: &AtomicBool) {
    let Some(first) = peer.greet() else { return };
    let credit = |peer: &mut Frames, stream: u32| peer.send(frame(8, 0, stream, &(1u32 << 24).to_be_bytes()));
    credit(peer, 0);
    credit(peer, first);
    let mut bodies = BTreeMap::from([(first, Vec::new())]);
    while let Some(next) = peer.next() {
        match next.kind {
            1 => {
                bodies.insert(next.stream, Vec::new());
                credit(peer, next.stream);
            }
            // What was on its way to a stream that is over goes nowhere.
            0 if bodies.contains_key(&next.stream) => {
                let body = bodies.get_mut(&next.stream).expect("it is open");
                body.extend(next.payload);
                if body.len() >= at && !done.swap(true, Ordering::SeqCst) {
                    if !fault(peer, next.stream) {
                        return;
                    }
                    // Only a GOAWAY leaves it open.
                    continue;
                }
                if next.flags & 1 == 1 {
                    peer.send(frame(1, 4, next.stream, &block(&[(":status", "200")])));
                    peer.send(frame(0, 1, next.stream, summary(body).as_bytes()));
                }
            }
            _ => {}
        }
    }
}

fn summary(body: &[u8]) -> String {
    format!("{} {}", body.len(), body.iter().map(|byte| u64::from(*byte)).sum::<u64>())
}

fn body(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 7) as u8).collect()
}

fn proxy_to(address: SocketAddr, protocol: &str) -> Proxy {
    let config = format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"a\"\n[[cluster]]\nname = \"a\"\nprotocol = \"{protocol}\"\nendpoints = [\"{address}\"]\n"
    );
    Proxy::start_with(&config, &["--workers", "1"], None)
}

#[derive(Clone, Copy, Debug)]
enum From {
    Length,
    Chunks,
    Http2,
}

/// Sends twice `at`; if the answer does not depend on the rest, only a part of it.
fn upload(proxy: &Proxy, from: From, at: usize, whole: bool) -> Got {
    let body = body(2 * at);
    let part = if whole { body.len() } else { at + at / 2 };
    if matches!(from, From::Http2) {
        return run(upload_http2(proxy, &body, part));
    }
    let mut client = proxy.connect("edge");
    let chunked = matches!(from, From::Chunks);
    let (framing, begin, end) = match chunked {
        true => ("Transfer-Encoding: chunked".to_owned(), format!("{:x}\r\n", body.len()), "\r\n0\r\n\r\n"),
        false => (format!("Content-Length: {}", body.len()), String::new(), ""),
    };
    client.send(format!("POST / HTTP/1.1\r\nHost: test\r\n{framing}\r\n\r\n{begin}"));
    client.send(&body[..part]);
    if whole {
        client.send(end);
    }
    let response = client.response();
    match (response.status, response.whole) {
        (200, true) => {
            assert_eq!(response.text(), summary(&body));
            Served
        }
        (200, false) => Cut,
        (status, _) => Status(status),
    }
}

async fn upload_http2(proxy: &Proxy, body: &[u8], part: usize) -> Got {
    let sender = connect(proxy.address("edge")).await;
    let (answer, mut send) =
        sender.clone().ready().await.expect("ready").send_request(post("/"), false).expect("sends");
    send.send_data(Bytes::copy_from_slice(&body[..part]), part == body.len()).expect("sends");
    let answer = answer.await.expect("a head");
    let status = answer.status().as_u16();
    let mut answer = answer.into_body();
    let got = match (status, read(&mut answer).await) {
        (200, Ok((text, _))) => {
            assert_eq!(text, summary(body).into_bytes());
            Served
        }
        (200, Err(_)) => Cut,
        (status, Ok(_)) => Status(status),
        (status, Err(error)) => panic!("{status}, and {error}"),
    };
    // The client's connection goes on; its next request is served.
    let next = ask(&sender, post("/"), vec![1; 100]).await.expect("answers");
    assert_eq!((next.head.status.as_u16(), next.text()), (200, "100 100".to_owned()));
    got
}

#[test]
fn an_http2_upstream_that_ends_an_upload() {
    let mut wrong = Vec::new();
    for (name, fault, kept, passed) in CASES {
        for from in [From::Length, From::Chunks, From::Http2] {
            for (at, wanted) in [(SHORT, kept), (LONG, passed)] {
                let done = AtomicBool::new(false);
                let proxy = proxy_to(upstream(move |peer| serve(peer, at, fault, &done)), "http2");
                let got = upload(&proxy, from, at, wanted == Served);
                if got != wanted {
                    wrong.push(format!("{name} at {at}, {from:?}: {got:?}, not {wanted:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_http1_upstream_that_ends_an_upload_of_an_http2_client() {
    for at in [SHORT, LONG] {
        for (resets, begins) in [(false, false), (true, false), (false, true), (true, true)] {
            if resets && at == SHORT {
                // All of it is read at once, and a close with nothing unread is no reset.
                continue;
            }
            let done = AtomicBool::new(false);
            let origin = Origin::start(move |connection| {
                while let Some(head) = connection.head() {
                    if done.swap(true, Ordering::SeqCst) {
                        // Chunked, as an upload of unknown length becomes.
                        assert!(!connection.body(&head).is_empty());
                        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n100 100");
                        continue;
                    }
                    assert_eq!(connection.read(at).len(), at);
                    if begins {
                        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
                    }
                    if resets {
                        return connection.reset();
                    }
                    connection.finish();
                    return connection.wait_for_end();
                }
            });
            let proxy = proxy_to(origin.address(), "http1");
            let body = body(2 * at);
            let got = run(upload_http2(&proxy, &body, at + at / 2));
            // A reset may overtake the beginning of the answer.
            let fits = if begins { got == Cut || (resets && got == Status(503)) } else { got == Status(503) };
            assert!(fits, "at {at}, resets {resets}, begins {begins}: {got:?}");
        }
    }
}

/// An HTTP/2 upstream that tells how the first stream ended: by END_STREAM (true), or by a reset or with its connection.
fn watched() -> (SocketAddr, Receiver<bool>) {
    let (told, heard) = channel();
    let address = upstream(move |peer| {
        let Some(stream) = peer.greet() else { return };
        for stream in [0, stream] {
            peer.send(frame(8, 0, stream, &(1u32 << 24).to_be_bytes()));
        }
        let mut whole = false;
        while let Some(next) = peer.next() {
            whole |= next.stream == stream && next.kind < 2 && next.flags & 1 == 1;
            if next.kind == 3 && next.stream == stream {
                break;
            }
        }
        let _ = told.send(whole);
    });
    (address, heard)
}

#[test]
fn a_client_that_leaves_its_upload_ends_it_upstream_as_cut() {
    for from in [From::Length, From::Chunks, From::Http2] {
        for length in [SHORT, LONG] {
            let (address, heard) = watched();
            let proxy = proxy_to(address, "http2");
            leave(&proxy, from, length);
            assert_eq!(heard.recv_timeout(std::time::Duration::from_secs(30)), Ok(false), "{from:?}, {length}");
            let (told, heard) = channel();
            let origin = Origin::start(move |connection| {
                connection.head();
                let mut text = Vec::new();
                loop {
                    let more = connection.read(1);
                    if more.is_empty() {
                        break;
                    }
                    text.extend(more);
                }
                let _ = told.send(text.ends_with(b"0\r\n\r\n") || text.len() >= 2 * length);
            });
            let proxy = proxy_to(origin.address(), "http1");
            leave(&proxy, from, length);
            assert_eq!(heard.recv_timeout(std::time::Duration::from_secs(30)), Ok(false), "{from:?}, {length}");
        }
    }
}

/// Sends `length` of twice as much, and leaves: HTTP/1 by a close, HTTP/2 by RST_STREAM.
fn leave(proxy: &Proxy, from: From, length: usize) {
    if matches!(from, From::Http2) {
        let mut client = Frames::connect(proxy.address("edge"));
        let announced = (2 * length).to_string();
        let fields = [(":method", "POST"), (":scheme", "http"), (":authority", "test"), (":path", "/")];
        client.headers(1, &[&fields[..], &[("content-length", announced.as_str())]].concat(), false);
        // As the stream's window of 64 KiB comes back.
        let (mut left, mut window) = (length, 65_535);
        while left > 0 {
            let part = left.min(window).min(16_384);
            client.send(frame(0, 0, 1, &vec![b'x'; part]));
            (left, window) = (left - part, window - part);
            while window == 0 {
                let update = client.until(8).expect("credit");
                if update.stream == 1 {
                    window += u32::from_be_bytes(update.payload.try_into().expect("four bytes")) as usize;
                }
            }
        }
        client.send(frame(3, 0, 1, &[0, 0, 0, 8]));
        // The connection stays: it is the stream that was given up.
        client.send(frame(6, 0, 0, b"received"));
        while client.until(6).is_some_and(|pong| pong.flags & 1 == 0) {}
        return;
    }
    let mut client: Client = proxy.connect("edge");
    let head = match from {
        From::Chunks => format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", 2 * length),
        _ => format!("Content-Length: {}\r\n\r\n", 2 * length),
    };
    client.send(format!("POST / HTTP/1.1\r\nHost: test\r\n{head}"));
    client.send(vec![b'x'; length]);
}
