//! Header blocks that begin and do not come to their end: nothing else of their connection can come meanwhile, so that no
//! stream's own time bounds them. They are given as long as a head has in HTTP/1.

use std::sync::mpsc::channel;
use std::time::Duration;

use onehop_tests::broken::{OK, config};
use onehop_tests::frames::{Frames, GET, Verdict, block, frame, upstream};
use onehop_tests::http2::{ask, connect, get, run};
use onehop_tests::{Client, Origin, Proxy, eventually};

/// ENHANCE_YOUR_CALM.
const CALM: Verdict = Verdict::Connection(11);

#[test]
fn a_client_that_does_not_end_its_block_is_told_to_go() {
    let origin = Origin::start(|connection| {
        while let Some(head) = connection.head() {
            if head.starts_with("GET /never ") {
                return connection.wait_for_end();
            }
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let proxy = Proxy::start_with(&origin.config("header_timeout = \"2s\"", "", ""), &["--workers", "1"], None);
    let whole = block(&GET);
    let long = frame(1, 5, 3, &[&whole[..], &block(&[("a", &"b".repeat(500))])].concat());
    let cases: [(&str, Vec<u8>); 4] = [
        ("HEADERS alone", frame(1, 1, 3, &whole)),
        ("half a frame", long[..long.len() - 1].to_vec()),
        ("CONTINUATION that is not the last", [frame(1, 1, 3, &whole[..5]), frame(9, 0, 3, &whole[5..])].concat()),
        ("half a CONTINUATION", [frame(1, 1, 3, &whole), long[..20].to_vec()].concat()),
    ];
    let mut ended = 0.0;
    for beside in [true, false] {
        for (name, bytes) in &cases {
            let mut bytes = bytes.clone();
            if *name == "half a CONTINUATION" {
                bytes[9 + whole.len() + 3] = 9;
            }
            let mut client = Frames::connect(proxy.address("edge"));
            if beside {
                client.headers(1, &[&GET[..3], &[(":path", "/never")]].concat(), true);
                eventually("it is forwarded", || proxy.metric("onehop_cluster_active", "") == 1.0);
            }
            client.send(&bytes);
            assert_eq!(client.verdict(), CALM, "{name}, {beside}");
            ended += 1.0;
            let reason = "reason=\"header-timeout\"";
            eventually(name, || proxy.metric("onehop_listener_faults_total", reason) == ended);
            eventually("its streams are over", || proxy.metric("onehop_cluster_active", "") == 0.0);
            assert_eq!(Client::connect(proxy.address("edge")).get("/beside").status, 200, "beside {name}");
        }
    }
    // One in pieces that does come to its end is a request as any other.
    let mut client = Frames::connect(proxy.address("edge"));
    client.send([frame(1, 1, 1, &whole[..7]), frame(9, 0, 1, &whole[7..20]), frame(9, 4, 1, &whole[20..])].concat());
    assert_eq!(client.verdict(), Verdict::Answered(1));
}

#[test]
fn an_upstream_that_does_not_end_its_block_is_left() {
    type Script = fn(&mut Frames, u32);
    let scripts: [Script; 3] = [
        |peer, stream| peer.send(frame(1, 0, stream, &block(&[OK]))),
        |peer, stream| peer.send(&frame(1, 5, stream, &block(&[OK, ("a", "b")]))[..15]),
        // Trailers.
        |peer, stream| {
            peer.send(
                [frame(1, 4, stream, &block(&[OK])), frame(0, 0, stream, b"x"), frame(1, 1, stream, &[])].concat(),
            );
        },
    ];
    let (told, heard) = channel();
    let addresses = scripts.map(|script| {
        let told = told.clone();
        upstream(move |peer| {
            if let Some(stream) = peer.greet() {
                script(peer, stream);
                // It reads for ten seconds at a time, which may be too short.
                let verdict = (0..3).map(|_| peer.verdict()).find(|verdict| *verdict != Verdict::Closed);
                let _ = told.send(verdict);
            }
        })
    });
    // Nothing else bounds them: there is no time-out, and bodies have their own time.
    let config =
        config("timeout = \"off\"", &addresses).replacen("127.0.0.1:0\"", "127.0.0.1:0\"\nbody_timeout = \"10m\"", 1);
    let proxy = Proxy::start_with(&config, &["--workers", "1"], None);
    let got = run(async {
        let sender = connect(proxy.address("edge")).await;
        let one = async |path: &str| match ask(&sender, get(path), Vec::new()).await {
            Ok(answer) => Ok(answer.head.status.as_u16()),
            Err(error) => Err(error.reason()),
        };
        tokio::join!(one("/0"), one("/1"), one("/2"))
    });
    assert_eq!(got, (Ok(502), Ok(502), Err(Some(h2::Reason::INTERNAL_ERROR))));
    for _ in scripts {
        assert_eq!(heard.recv_timeout(Duration::from_secs(30)), Ok(Some(CALM)));
    }
    let reason = "reason=\"header-timeout\"";
    eventually("they are counted", || proxy.metric("onehop_cluster_floods_total", reason) == 3.0);
}

/// The time is the cluster's own: of two open blocks, the later one is given up, and the other may end yet.
#[test]
fn a_cluster_says_how_long_a_block_may_take() {
    let (go, waits) = channel::<()>();
    let (began, begun) = channel::<()>();
    let waits = std::sync::Mutex::new(waits);
    let patient = upstream(move |peer| {
        let Some(stream) = peer.greet() else { return };
        peer.send(frame(1, 1, stream, &block(&[OK])));
        let _ = began.send(());
        let _ = waits.lock().expect("no panic").recv();
        peer.send(frame(9, 4, stream, &[]));
        peer.until(7);
    });
    let brief = upstream(|peer| {
        if let Some(stream) = peer.greet() {
            peer.send(frame(1, 1, stream, &block(&[OK])));
            peer.until(7);
        }
    });
    let mut config = config("timeout = \"off\"", &[patient, brief]);
    for (address, time) in [(patient, "10m"), (brief, "3s")] {
        let endpoints = format!("endpoints = [\"{address}\"]");
        config = config.replace(&endpoints, &format!("{endpoints}\nhttp2 = {{ header_timeout = \"{time}\" }}"));
    }
    let proxy = Proxy::start_with(&config, &["--workers", "1"], None);
    let edge = proxy.address("edge");
    let answer = std::thread::spawn(move || Client::connect(edge).get("/0").status);
    begun.recv_timeout(Duration::from_secs(30)).expect("it has begun");
    assert_eq!(Client::connect(edge).get("/1").status, 502);
    go.send(()).expect("it waits");
    assert_eq!(answer.join().expect("no panic"), 200);
}
