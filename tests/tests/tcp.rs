//! Bytes both ways: half-close, resets, limits, PROXY headers, and HTTP told apart by its first bytes.

use onehop_tests::{Origin, Proxy, eventually};

fn config(origin: &Origin, listener: &str, cluster: &str) -> String {
    format!(
        "[[listener]]\nname = \"tcp\"\naddress = \"127.0.0.1:0\"\nlayer = \"tcp\"\ncluster = \"o\"\n{listener}\n[[cluster]]\nname = \"o\"\nendpoints = [\"{}\"]\n{cluster}\n",
        origin.address()
    )
}

#[test]
fn each_direction_ends_by_itself() {
    let origin = Origin::start(|connection| {
        let mut all = Vec::new();
        loop {
            let part = connection.read(4096);
            if part.is_empty() {
                break;
            }
            all.extend(part);
        }
        all.reverse();
        connection.send(all);
    });
    let proxy = Proxy::start(&config(&origin, "", ""));
    let mut client = proxy.connect("tcp");
    client.send("abc");
    client.finish();
    assert_eq!(client.read(100), b"cba");
    assert!(client.is_closed());
}

#[test]
fn a_silent_connection_is_ended_and_a_refused_one_reset() {
    let origin = Origin::start(|connection| connection.wait_for_end());
    let proxy = Proxy::start(&config(&origin, "tcp_idle_timeout = \"100ms\"", ""));
    let mut client = proxy.connect("tcp");
    client.send("x");
    client.was_reset();
    eventually("it is counted", || proxy.metric("onehop_listener_faults_total", "idle-timeout") >= 1.0);
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    let proxy = Proxy::start(&config(&origin, "", "").replace(&origin.address().to_string(), &free.to_string()));
    assert!(proxy.connect("tcp").was_reset());
}

/// Failed connections are in a row only while no other one is made: there is no answer that could tell otherwise.
#[test]
fn an_endpoint_that_is_away_now_and_then_is_not_ejected_for_it() {
    let greets = |name: &'static str| {
        move |connection: &mut onehop_tests::Connection| {
            connection.send(name);
            connection.wait_for_end();
        }
    };
    let steady = Origin::start(greets("steady\n"));
    // An address of its own: nothing else takes the port while it is away.
    let place = std::net::TcpListener::bind("127.0.9.1:0").expect("binds");
    let address = place.local_addr().expect("bound");
    drop(place);
    let proxy = Proxy::start_with(
        &format!(
            "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\nlayer = \"tcp\"\ncluster = \"c\"\n[[cluster]]\nname = \"c\"\nbalance = \"round-robin\"\nendpoints = [\"{address}\", \"{}\"]\noutlier = {{ consecutive_connect_failures = 2, ejection = \"600s\" }}\n",
            steady.address()
        ),
        &["--workers", "1"],
        None,
    );
    let of = |name: &str| proxy.metric(name, &format!("endpoint=\"{address}\""));
    for round in 1..=5 {
        // Away: one connection fails, and its client is served elsewhere.
        eventually("a connection fails", || {
            assert_eq!(proxy.connect("edge").line(), "steady\n");
            of("onehop_endpoint_connect_failures_total") >= f64::from(round)
        });
        assert_eq!(proxy.metric("onehop_cluster_ejections_total", ""), 0.0, "round {round}");
        // Back for one connection.
        let listener = std::net::TcpListener::bind(address).expect("its port is free");
        let serves = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accepts");
            std::io::Write::write_all(&mut stream, b"back\n").expect("writes");
        });
        eventually("it serves", || {
            let line = proxy.connect("edge").line();
            assert!(line == "steady\n" || line == "back\n", "{line}");
            line == "back\n"
        });
        serves.join().expect("no panic");
    }
}

#[test]
fn proxy_headers_are_sent_and_read() {
    let origin = Origin::start(|connection| {
        let line = connection.read(12);
        connection.send(if line.starts_with(b"PROXY TCP4 ") {
            "v1"
        } else if line.starts_with(b"\r\n\r\n\0\r\nQUIT\n") {
            "v2"
        } else {
            "no"
        });
    });
    for version in ["v1", "v2"] {
        let proxy = Proxy::start(&config(&origin, "", &format!("proxy_protocol = \"{version}\"")));
        assert_eq!(proxy.connect("tcp").read(2), version.as_bytes());
    }
    let mirror = Origin::mirror();
    let proxy = Proxy::start(&mirror.config("proxy_protocol = true", "", ""));
    let response =
        proxy.connect("edge").ask("PROXY TCP4 9.8.7.6 127.0.0.1 1234 80\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(response.text().contains("X-Forwarded-For: 9.8.7.6\r\n"), "{}", response.text());
    assert!(
        proxy.connect("edge").ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").head.is_empty(),
        "a client without the header must not pass"
    );
}

#[test]
fn first_bytes_tell_http_from_anything_else() {
    let origin = Origin::start(|connection| {
        let bytes = connection.read(4);
        connection.send(bytes);
        connection.wait_for_end();
    });
    let web = Origin::echo();
    let text = config(&origin, "", "").replace("\"tcp\"\ncluster", "\"sniff\"\ncluster");
    let proxy = Proxy::start(&format!(
        "{text}[[route]]\ncluster = \"w\"\n[[cluster]]\nname = \"w\"\nendpoints = [\"{}\"]\n",
        web.address()
    ));
    assert_eq!(proxy.connect("tcp").get("/http").text(), "/http");
    let mut client = proxy.connect("tcp");
    client.send([0, 1, 2, 3]);
    assert_eq!(client.read(4), [0, 1, 2, 3]);
    // Byte by byte, so that the decision has to wait.
    let mut client = proxy.connect("tcp");
    for byte in b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n" {
        client.send([*byte]);
    }
    assert_eq!(client.response().text(), "/slow");
}

#[test]
fn bulk_passes_both_ways_at_once() {
    let origin = Origin::start(|connection| {
        for _ in 0..100 {
            let part = connection.read(100_000);
            connection.send(part);
        }
    });
    let proxy = Proxy::start(&config(&origin, "", ""));
    let mut client = proxy.connect("tcp");
    let mut stream = client.stream().try_clone().expect("a descriptor");
    let sender = std::thread::spawn(move || {
        for number in 0..100u8 {
            std::io::Write::write_all(&mut stream, &vec![number; 100_000]).expect("sends");
        }
    });
    for number in 0..100u8 {
        assert_eq!(client.read(100_000), vec![number; 100_000]);
    }
    sender.join().expect("no panic");
}
