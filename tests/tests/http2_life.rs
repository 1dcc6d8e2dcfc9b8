//! The life of an HTTP/2 connection on either side: asked whether it lives, told to make room for a new one, left when
//! the peer is dead.

use onehop_tests::frames::{Frame, Frames, GET, frame};
use onehop_tests::{Origin, Proxy, eventually};

fn one_worker(config: &str) -> Proxy {
    Proxy::start_with(config, &["--workers", "1"], None)
}

fn ask(client: &mut Frames) -> Frame {
    loop {
        let asked = client.until(6).expect("a PING");
        if asked.flags == 0 {
            return asked;
        }
    }
}

#[test]
fn a_silent_client_is_asked_and_left() {
    let origin = Origin::echo();
    let proxy = one_worker(&origin.config("http2 = { ping_interval = \"500ms\" }", "", ""));
    // One that answers stays, however long it is silent otherwise.
    let mut lives = Frames::connect(proxy.address("edge"));
    for _ in 0..3 {
        let asked = ask(&mut lives);
        lives.send(frame(6, 1, 0, &asked.payload));
    }
    lives.headers(1, &GET, true);
    assert_eq!(lives.until(1).expect("an answer").stream, 1);
    // One that does not is left.
    let mut dead = Frames::connect(proxy.address("edge"));
    ask(&mut dead);
    while dead.next().is_some() {}
}

#[test]
fn an_old_connection_is_replaced_without_losing_a_request() {
    let (told, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::start(move |connection| {
        connection.head();
        // Answered only once the client was told to go.
        let _ = wait.lock().expect("no panic").recv();
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate");
    });
    let proxy = one_worker(&origin.config("http2 = { max_age = \"300ms\" }", "", ""));
    let begun = std::time::Instant::now();
    let mut client = Frames::connect(proxy.address("edge"));
    client.headers(1, &GET, true);
    let first = client.until(7).expect("a GOAWAY");
    assert!(begun.elapsed() >= std::time::Duration::from_millis(270), "it lives nine tenths of its age at least");
    assert_eq!(first.payload, [0x7fff_ffffu32.to_be_bytes(), [0; 4]].concat(), "the first says nothing yet");
    // What was sent before the client could know is still taken.
    client.headers(3, &GET, true);
    let asked = ask(&mut client);
    client.send(frame(6, 1, 0, &asked.payload));
    let second = client.until(7).expect("a second GOAWAY");
    assert_eq!(second.payload, [3u32.to_be_bytes(), [0; 4]].concat());
    for _ in 0..2 {
        told.send(()).expect("the origin waits");
    }
    let mut body = Vec::new();
    while let Some(frame) = client.next() {
        if frame.kind == 0 {
            body.extend(frame.payload);
        }
    }
    assert_eq!(body, b"latelate", "and then it is closed");
}

#[test]
fn an_upstream_that_is_dead_is_found_by_pings() {
    let origin = Origin::echo();
    let far = one_worker(&origin.config("", "", ""));
    let config = format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"far\"\ntimeout = \"off\"\n[[cluster]]\nname = \"far\"\nprotocol = \"http2\"\nhttp2 = {{ ping_interval = \"500ms\" }}\nendpoints = [\"{}\"]\n",
        far.address("edge")
    );
    let near = one_worker(&config);
    let mut client = near.connect("edge");
    assert_eq!(client.get("/before").text(), "/before");
    // Its kernel goes on acknowledging; nothing else shows that it is dead, and there is no time-out.
    far.signal("STOP");
    let lost = near.connect("edge").ask("POST /lost HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n");
    far.signal("CONT");
    assert_eq!(lost.status, 503, "{}", lost.head);
    eventually("a new connection serves", || client.get("/after").text() == "/after");
    assert!(near.metric("onehop_cluster_connects_total", "") >= 2.0);
}
