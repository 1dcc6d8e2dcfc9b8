//! Peers that read slowly are served for as long as they take something: a client of its answer, an upstream of a request's
//! body. What is more than next to nothing counts, though it be less than a chunk of ours or than what makes room in a full
//! socket; next to nothing does not. All that has to be so slow is so at the same time.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use onehop_tests::frames::{Frames, frame, upstream};
use onehop_tests::pki::{Authority, Leaf, files};
use onehop_tests::{Origin, Proxy, Tls, eventually, folder};

/// More than all of the kernel's buffers on the way hold.
const BODY_BYTES: usize = 256 << 20;
/// What a peer that takes nothing has; one that lives is far from so much silence, even on a machine that stalls.
const SPAN: &str = "10s";
/// How long they go on: more than twice as long.
const LASTS: Duration = Duration::from_secs(25);
const PAUSE: Duration = Duration::from_millis(500);

fn one_worker(config: &str) -> Proxy {
    Proxy::start_with(config, &["--workers", "1"], None)
}

/// Takes a piece now and then, for as long as it lasts: in all of a peer's time less than a chunk of ours, which is 256 KiB, but
/// enough for the kernel to tell of it more than once, which on loopback it does for each 64 KiB.
fn sip(stream: &mut impl Read, piece: usize) -> std::io::Result<()> {
    let until = Instant::now() + LASTS;
    let mut chunk = vec![0; piece];
    while Instant::now() < until {
        stream.read_exact(&mut chunk)?;
        std::thread::sleep(PAUSE);
    }
    stream.read_exact(&mut chunk)
}

/// Answers with more than anybody takes.
fn generous() -> Origin {
    Origin::start(|connection| {
        while connection.head().is_some() {
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY_BYTES}\r\n\r\n"));
            let chunk = vec![b'x'; 1 << 20];
            (0..BODY_BYTES >> 20).for_each(|_| connection.send(&chunk));
        }
    })
}

fn answer_to_http1() {
    let origin = generous();
    let proxy = one_worker(&origin.config(&format!("body_timeout = \"{SPAN}\""), "", ""));
    let mut client = proxy.connect("edge");
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 200 "));
    sip(&mut client.stream(), 8 << 10).expect("an answer to HTTP/1 goes on");
}

fn answer_by_tls() {
    let (origin, folder) = (generous(), folder());
    let (certificate, key) = files(&folder, "edge", &Authority::new("ca"), &Leaf::server(&["edge.test"]));
    let tls = format!("tls = {{ certificate = \"{}\", key = \"{}\" }}", certificate.display(), key.display());
    let proxy = one_worker(&origin.config(&format!("body_timeout = \"{SPAN}\"\n{tls}"), "", ""));
    let mut client = Tls::new(None).connect(proxy.address("edge"), "edge.test").expect("shakes hands");
    client.send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n").expect("sends");
    // What it says does not matter, only that it comes.
    sip(client.socket(), 8 << 10).expect("an answer by TLS goes on");
}

/// A client whose streams begin without a window (RFC 9113 6.5.2), and that asks for the whole.
fn without_a_window(proxy: &Proxy) -> Frames {
    let mut client = Frames::bare(proxy.address("edge"));
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    client.send(frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]));
    client.send(frame(8, 0, 0, &(1u32 << 30).to_be_bytes()));
    client.headers(1, &[(":method", "GET"), (":scheme", "http"), (":authority", "test"), (":path", "/")], true);
    assert_eq!(client.until(1).expect("a head").stream, 1);
    client
}

/// Gives credit for so many bytes and takes them; the error code if the stream is reset.
fn take_credit(client: &mut Frames, bytes: u32) -> Option<u32> {
    client.send(frame(8, 0, 1, &bytes.to_be_bytes()));
    let mut taken = 0;
    while taken < bytes as usize {
        let next = client.next().expect("the connection goes on");
        match next.kind {
            0 => taken += next.payload.len(),
            3 => return Some(u32::from_be_bytes(next.payload.try_into().expect("four bytes"))),
            7 => panic!("{next:?}"),
            _ => {}
        }
    }
    None
}

fn answer_to_http2() {
    let origin = generous();
    let proxy = one_worker(&origin.config(&format!("body_timeout = \"{SPAN}\""), "", ""));
    let mut client = without_a_window(&proxy);
    let until = Instant::now() + LASTS;
    while Instant::now() < until {
        assert_eq!(take_credit(&mut client, 512), None, "an answer to HTTP/2 goes on");
        std::thread::sleep(PAUSE);
    }
}

/// Uploads to a cluster whose time for an answer is shorter than the upload; the answer's status.
fn upload(address: SocketAddr, protocol: &str) -> u16 {
    let proxy = one_worker(&format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"slow\"\ntimeout = \"{SPAN}\"\n[[cluster]]\nname = \"slow\"\nprotocol = \"{protocol}\"\nendpoints = [\"{address}\"]\n"
    ));
    let mut client = proxy.connect("edge");
    client.stream().set_read_timeout(Some(LASTS * 3)).expect("a socket option");
    let mut stream = client.stream().try_clone().expect("a descriptor");
    let sender = std::thread::spawn(move || {
        let head = format!("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
        let mut chunk = head.into_bytes();
        while stream.write_all(&chunk).is_ok() {
            chunk.resize(65_536, b'x');
        }
    });
    let status = client.response().status;
    drop(client);
    drop(proxy);
    sender.join().expect("no panic");
    status
}

fn upload_to_http1() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        let mut stream: TcpStream = listener.accept().expect("accepts").0;
        sip(&mut stream, 8 << 10).expect("an upload to HTTP/1 goes on");
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        // Until the proxy closes, so that nothing unread resets the answer.
        while matches!(stream.read(&mut [0; 65_536]), Ok(1..)) {}
    });
    assert_eq!(upload(address, "http1"), 200);
}

fn upload_to_http2() {
    let address = upstream(|peer| {
        let Some(stream) = peer.greet() else { return };
        // Nobody waits for what it sends; what comes fits the kernel's buffers.
        let until = Instant::now() + LASTS;
        while Instant::now() < until {
            for stream in [0, stream] {
                peer.send(frame(8, 0, stream, &512u32.to_be_bytes()));
            }
            std::thread::sleep(PAUSE);
        }
        peer.headers(stream, &[(":status", "200")], true);
        while peer.next().is_some() {}
    });
    assert_eq!(upload(address, "http2"), 200);
}

#[test]
fn whoever_takes_something_is_served() {
    let all = [answer_to_http1, answer_by_tls, answer_to_http2, upload_to_http1, upload_to_http2];
    let threads = all.map(std::thread::spawn);
    for thread in threads {
        thread.join().expect("no panic");
    }
}

/// A byte now and then would else hold an exchange for ever.
#[test]
fn next_to_nothing_does_not_count() {
    let origin = generous();
    let proxy = one_worker(&origin.config("body_timeout = \"2s\"", "", ""));
    let mut client = without_a_window(&proxy);
    let until = Instant::now() + Duration::from_secs(60);
    let code = loop {
        if let Some(code) = take_credit(&mut client, 1) {
            break code;
        }
        assert!(Instant::now() < until, "it goes on for ever");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(code, 8, "CANCEL");
    eventually("it is counted", || proxy.metric("onehop_listener_faults_total", "reason=\"write-timeout\"") == 1.0);
}

/// An answer whose receiver has caught up leaves no deadline of the receiver's behind.
#[test]
fn the_receivers_time_ends_when_it_has_caught_up() {
    let origin = Origin::start(|connection| {
        connection.head();
        // More than a socket takes at once, then a pause that is longer than the receiver's time, then the end.
        let chunk = vec![b'x'; 16 << 20];
        connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", chunk.len() + 3));
        connection.send(&chunk);
        connection.wait_for_end();
    });
    let proxy = one_worker(&origin.config("body_timeout = \"2s\"", "", ""));
    let mut client = proxy.connect("edge");
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 200 "));
    assert_eq!(client.read(16 << 20).len(), 16 << 20);
    // It is the upstream that is silent now, and it is said to be so.
    assert!(client.was_reset());
    let faults = |reason: &str| proxy.metric("onehop_listener_faults_total", &format!("reason=\"{reason}\""));
    eventually("it is counted", || faults("upstream-idle-timeout") == 1.0);
    assert_eq!((faults("write-timeout"), faults("client-left")), (0.0, 0.0));
}
