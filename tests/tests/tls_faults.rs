//! What goes wrong with TLS: hellos in pieces, peers that stop or babble, files half-written during a rotation, roots and
//! lists past their time, upstreams that are none.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use onehop_tests::pki::{Authority, Leaf, files, put};
use onehop_tests::{Origin, Proxy, Tls, eventually, folder};

fn config(origin: &Origin, tls: &str) -> String {
    origin.config(&format!("tls = {tls}"), "", "")
}

fn failures(proxy: &Proxy, reason: &str) -> f64 {
    proxy.metric("onehop_listener_tls_failures_total", &format!("\"{reason}\""))
}

/// The same handshake messages in records of so many bytes.
fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
    let record = |part: &[u8]| [&[22, 3, 1, (part.len() >> 8) as u8, part.len() as u8], part].concat();
    hello[5..].chunks(size).flat_map(record).collect()
}

#[test]
fn a_hello_in_many_pieces_is_put_together() {
    let (folder, authority) = (folder(), Authority::new("root"));
    files(&folder, "server", &authority, &Leaf::server(&["server.test"]));
    let origin = Origin::echo();
    let proxy = Proxy::start_in(&folder, &config(&origin, "{ certificate = \"server.pem\", key = \"server.key\" }"));
    let address = proxy.address("edge");
    let text = format!(
        "[[listener]]\nname = \"pass\"\naddress = \"127.0.0.1:0\"\nlayer = \"tcp\"\n\
         sni = [{{ name = \"server.test\", cluster = \"inner\" }}]\n\
         [[cluster]]\nname = \"inner\"\nendpoints = [\"{address}\"]\n"
    );
    let passing = Proxy::start(&text);
    for to in [address, passing.address("pass")] {
        // A packet for each byte; then also a record for each few.
        for (records, packets) in [(16_000, 1), (40, 1_000_000), (3, 7)] {
            let pieces = |hello: &[u8]| in_records(hello, records).chunks(packets).map(<[u8]>::to_vec).collect();
            let mut client = Tls::new(None).connect_in_pieces(to, "server.test", pieces).expect("shakes hands");
            assert_eq!(client.get("server.test", "/pieces").expect("an answer"), (200, "/pieces".to_owned()));
        }
    }
}

/// Sends bytes and reads to the end, whatever comes.
fn told(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket option");
    stream.write_all(bytes).expect("sends");
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("it hangs after {answer:?}"),
        _ => answer,
    }
}

#[test]
fn who_stops_or_babbles_in_a_handshake_is_let_go_with_a_reason() {
    let (folder, authority) = (folder(), Authority::new("root"));
    files(&folder, "server", &authority, &Leaf::server(&["server.test"]));
    let origin = Origin::echo();
    let tls = "{ certificate = \"server.pem\", key = \"server.key\", handshake_timeout = \"3s\" }";
    let proxy = Proxy::start_in(&folder, &config(&origin, tls));
    let address = proxy.address("edge");
    let hello = Tls::new(None).hello("server.test");
    // The hello, and silence after the server's answer.
    assert_eq!(told(address, &hello).first(), Some(&22), "the server has answered");
    eventually("counted", || failures(&proxy, "timeout") >= 1.0);
    // The hello, and then what is none of a handshake: data, an alert, another hello, a record that is too long.
    let babble: [(&[u8], &str); 4] = [
        (
            &[
                23, 3, 3, 0, 30, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9,
                0,
            ],
            "malformed",
        ),
        (&[21, 3, 3, 0, 2, 2, 40], "alert"),
        (&hello, "malformed"),
        (&[22, 3, 3, 0xff, 0xff, 1], "malformed"),
    ];
    for (more, reason) in babble {
        let before = failures(&proxy, reason);
        told(address, &[&hello, more].concat());
        eventually(reason, || failures(&proxy, reason) > before);
    }
    // Who leaves is counted as well, and none of it has hurt anybody.
    let before = failures(&proxy, "left");
    drop(TcpStream::connect(address).and_then(|mut stream| stream.write_all(&hello[..20])));
    eventually("left", || failures(&proxy, "left") > before);
    assert!(Tls::new(None).get(address, "server.test", "/").is_ok());
}

#[test]
fn what_breaks_the_stream_later_ends_that_connection_alone() {
    let (folder, authority) = (folder(), Authority::new("root"));
    files(&folder, "server", &authority, &Leaf::server(&["server.test"]));
    let origin = Origin::echo();
    let proxy = Proxy::start_in(&folder, &config(&origin, "{ certificate = \"server.pem\", key = \"server.key\" }"));
    let address = proxy.address("edge");
    let mut bystander = Tls::new(None).connect(address, "server.test").expect("shakes hands");
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        for bytes in [
            // Plain in the middle, a record too long, an alert in the clear, one that nobody has sealed.
            &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
            &[23, 3, 3, 0xff, 0xff],
            &[21, 3, 3, 0, 2, 2, 40],
            &[23, 3, 3, 0, 19, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        ] {
            let mut client = Tls::with(None, &[version]).connect(address, "server.test").expect("shakes hands");
            assert!(client.get("server.test", "/before").is_ok());
            client.socket().write_all(bytes).expect("sends");
            assert!(client.line().is_err(), "it goes on after {bytes:?}");
        }
        // Cut within a request: nobody is told of half a request as if it were one.
        let mut client = Tls::with(None, &[version]).connect(address, "server.test").expect("shakes hands");
        client.send("POST /half HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf").expect("sends");
        client.socket().shutdown(std::net::Shutdown::Both).expect("open");
    }
    assert_eq!(bystander.get("server.test", "/still").expect("an answer").0, 200);
    eventually("all but one are gone", || proxy.connections() == 1);
    assert_eq!(proxy.metric("onehop_core_panics_total", ""), 0.0);
}

#[test]
fn a_file_that_is_half_written_changes_nothing_and_says_so() {
    let (folder, authority) = (folder(), Authority::new("root"));
    files(&folder, "server", &authority, &Leaf::server(&["server.test"]));
    let origin = Origin::echo();
    let proxy = Proxy::start_in(&folder, &config(&origin, "{ certificate = \"server.pem\", key = \"server.key\" }"));
    let address = proxy.address("edge");
    let shown = || Tls::new(None).get(address, "server.test", "/").map(|(client, ..)| client.certificate());
    let old = shown().expect("shakes hands");
    let (certificate, key) = (folder.join("server.pem"), folder.join("server.key"));
    let (good, good_key) = (std::fs::read_to_string(&certificate), std::fs::read_to_string(&key));
    let (good, good_key) = (good.expect("text"), good_key.expect("text"));
    // Written in place, as a careless tool does it: half, nothing, something else, away.
    for (text, said) in [
        (Some(&good[..good.len() / 2]), "server.pem"),
        (Some(""), "server.pem holds no certificate"),
        (Some("-----BEGIN CERTIFICATE-----\nbm9uZQ==\n-----END CERTIFICATE-----\n"), "server.pem"),
        (None, "server.pem cannot be read"),
    ] {
        match text {
            Some(text) => std::fs::write(&certificate, text).expect("writes"),
            None => std::fs::remove_file(&certificate).expect("removes"),
        }
        let line = proxy.wait_for_error(said);
        assert!(line.contains("server.pem"), "{line}");
        assert_eq!(shown().as_ref(), Ok(&old), "{line}");
    }
    std::fs::write(&certificate, &good).expect("writes");
    std::fs::write(&key, &good_key[..good_key.len() / 2]).expect("writes");
    proxy.wait_for_error("server.key");
    assert_eq!(shown().as_ref(), Ok(&old));
    // Whole again, and new.
    files(&folder, "server", &authority, &Leaf { serial: 9, ..Leaf::server(&["server.test"]) });
    eventually("the new one is shown", || shown().is_ok_and(|shown| shown != old));
}

#[test]
fn roots_and_lists_past_their_time_vouch_for_nobody() {
    let (folder, good) = (folder(), Authority::new("good"));
    let (late, early) = (Authority::lasting("late", -90, -30), Authority::lasting("early", 30, 90));
    put(&folder.join("ca.pem"), &[good.pem(), late.pem(), early.pem()].concat());
    files(&folder, "server", &good, &Leaf::server(&["server.test"]));
    let origin = Origin::echo();
    let tls = |more: &str| {
        format!(
            "{{ certificate = \"server.pem\", key = \"server.key\", client = \"required\", client_ca = \"ca.pem\"{more} }}"
        )
    };
    let proxy = Proxy::start_in(&folder, &config(&origin, &tls("")));
    let ask = |proxy: &Proxy, name: &str, authority: &Authority| {
        let (certificate, key) = files(&folder, name, authority, &Leaf::server(&["client.test"]));
        Tls::new(Some((&certificate, &key))).get(proxy.address("edge"), "server.test", "/").map(|(_, status, _)| status)
    };
    assert_eq!(ask(&proxy, "one", &good), Ok(200));
    for (name, authority, reason) in [("two", &late, "expired"), ("three", &early, "not-yet-valid")] {
        assert!(ask(&proxy, name, authority).is_err(), "{reason}");
        eventually(reason, || failures(&proxy, reason) >= 1.0);
    }
    put(&folder.join("crl.pem"), &good.revoke_until(&[66], -1));
    let stale = Proxy::start_in(&folder, &config(&origin, &tls(", crl = [\"crl.pem\"]")));
    assert!(ask(&stale, "four", &good).is_err(), "the list should have been renewed");
    eventually("counted", || failures(&stale, "revoked") >= 1.0);
    put(&folder.join("crl.pem"), &good.revoke(&[66]));
    eventually("renewed", || ask(&stale, "five", &good) == Ok(200));
}

#[test]
fn upstreams_that_are_none_are_given_up_with_a_reason() {
    let (folder, authority) = (folder(), Authority::new("root"));
    put(&folder.join("ca.pem"), authority.pem());
    let silent = Origin::start(|connection| while connection.line().is_some() {});
    let plain = Origin::start(|connection| connection.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"));
    let leaving = Origin::start(|_| {});
    let alert = Origin::start(|connection| connection.send([21, 3, 3, 0, 2, 2, 40]));
    for (origin, reason, text) in [
        (&silent, "timeout", "connect-timeout"),
        (&plain, "not-tls", "tls-failed"),
        (&leaving, "left", "tls-failed"),
        (&alert, "alert", "tls-failed"),
    ] {
        let proxy = Proxy::start_in(
            &folder,
            &format!(
                "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"web\"\nretry = {{ attempts = 0 }}\n\
                 [[cluster]]\nname = \"web\"\nconnect_timeout = \"3s\"\nendpoints = [\"{}\"]\ntls = {{ ca = \"ca.pem\" }}\n",
                origin.address()
            ),
        );
        let answer = proxy.connect("edge").get("/");
        assert!(matches!(answer.status, 503 | 504) && answer.head.contains(text), "{reason}: {}", answer.head);
        let counted = proxy.metric("onehop_cluster_tls_failures_total", &format!("\"{reason}\""));
        assert!(counted >= 1.0, "{reason}: {}", proxy.admin("/metrics").1);
    }
}
