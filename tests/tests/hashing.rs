//! What chooses an endpoint where a value does: the client's address, however it is learnt, its identity, and the path in
//! whichever spelling. With `health` (a header) and `policy_examples` (a cookie) that is each kind of value.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use onehop_tests::pki::{Authority, Leaf, files, put};
use onehop_tests::{Client, Origin, Proxy, Tls, eventually, folder};

fn origins() -> Vec<Origin> {
    let origin = |number: usize| {
        Origin::start(move |connection| {
            while connection.head().is_some() {
                connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}"));
            }
        })
    };
    (0..5).map(origin).collect()
}

fn cluster(origins: &[Origin], balance: &str, hash_on: &str) -> String {
    let endpoints: Vec<String> = origins.iter().map(|origin| format!("\"{}\"", origin.address())).collect();
    format!(
        "[[route]]\ncluster = \"c\"\n[[cluster]]\nname = \"c\"\nbalance = \"{balance}\"\nhash_on = {{ {hash_on} = true }}\nendpoints = [{}]\n",
        endpoints.join(", ")
    )
}

/// A ring passes over an endpoint that has more than its share: one request at a time is never more.
fn is_quiet(proxy: &Proxy) {
    eventually("nothing is under way", || proxy.metric("onehop_cluster_active", "") == 0.0);
}

/// A connection from an address of this host.
fn from(source: &str, to: SocketAddr) -> Client {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind(format!("{source}:0").parse().expect("an address")).expect("all of 127/8 is here");
        socket.connect(to).await.expect("connects").into_std().expect("a socket")
    });
    stream.set_nonblocking(false).expect("a socket option");
    Client::over(stream)
}

#[test]
fn a_clients_address_chooses_its_endpoint_however_it_is_learnt() {
    let origins = origins();
    for balance in ["ring-hash", "maglev"] {
        let listener =
            |name: &str, more: &str| format!("[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\n{more}\n");
        let proxy = Proxy::start(
            &(listener("plain", "")
                + &listener("told", "proxy_protocol = true")
                + &listener("behind", "trusted_hops = 1")
                + &cluster(&origins, balance, "source")),
        );
        let told = |ip: &str| {
            is_quiet(&proxy);
            let family = if ip.contains(':') { "TCP6" } else { "TCP4" };
            let request = format!("PROXY {family} {ip} {ip} 4000 80\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
            proxy.connect("told").ask(request).text()
        };
        let behind = |ip: &str| {
            is_quiet(&proxy);
            proxy
                .connect("behind")
                .ask(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 9.9.9.9, {ip}\r\n\r\n"))
                .text()
        };
        let mut chosen = BTreeSet::new();
        for number in 1..=20 {
            let ip = format!("127.0.1.{number}");
            let first = told(&ip);
            is_quiet(&proxy);
            // Each time from another port, and on whichever core.
            let direct = from(&ip, proxy.address("plain")).get("/").text();
            let rest = [told(&ip), behind(&ip), behind(&format!("::ffff:{ip}")), direct];
            assert!(rest.iter().all(|other| *other == first), "{balance}: {ip} {first} {rest:?}");
            let six = format!("2001:db8::{number}");
            assert_eq!(told(&six), behind(&six), "{balance}: {six}");
            chosen.insert(first);
        }
        assert!(chosen.len() >= 3, "{balance}: twenty addresses are spread, not {chosen:?}");
        // Everything that a client says of itself is as nothing where it is not believed.
        is_quiet(&proxy);
        let mut client = from("127.0.1.1", proxy.address("plain"));
        let forged = client.ask("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 127.0.1.7\r\n\r\n").text();
        assert_eq!(forged, told("127.0.1.1"), "{balance}");
    }
}

#[test]
fn an_identity_chooses_its_endpoint_whichever_certificate_shows_it() {
    let (folder, authority, origins) = (folder(), Authority::new("root"), origins());
    put(&folder.join("ca.pem"), authority.pem());
    files(&folder, "server", &authority, &Leaf::server(&["one.test"]));
    let listener = "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\ntls = { certificate = \"server.pem\", key = \"server.key\", client = \"optional\", client_ca = \"ca.pem\" }\n";
    for balance in ["ring-hash", "maglev"] {
        let text = format!("{listener}{}", cluster(&origins, balance, "identity"));
        let proxy = Proxy::start_in(&folder, &text);
        let ask = |tls: Tls| {
            is_quiet(&proxy);
            let (_, status, body) = tls.get(proxy.address("edge"), "one.test", "/").expect("an answer");
            assert_eq!(status, 200);
            body
        };
        let mut chosen: BTreeMap<String, usize> = BTreeMap::new();
        for service in 0..20 {
            let leaf = Leaf::svid(&format!("spiffe://mesh.test/ns/shop/sa/service-{service}"));
            // Rotated: the identity is the same, and the key is another one.
            let shown: Vec<_> = ["old", "new"]
                .iter()
                .map(|name| files(&folder, &format!("{name}-{service}"), &authority, &leaf))
                .collect();
            let tls = |at: usize| Tls::new(Some((shown[at].0.as_path(), shown[at].1.as_path())));
            let picks = [ask(tls(0)), ask(tls(1)), ask(tls(0)), ask(tls(1))];
            assert!(picks.iter().all(|pick| *pick == picks[0]), "{balance}: service {service} {picks:?}");
            *chosen.entry(picks[0].clone()).or_default() += 1;
        }
        assert!(chosen.len() >= 3, "{balance}: twenty identities are spread, not {chosen:?}");
        // Who has shown nothing is served all the same, and has no place of its own.
        let nobody: BTreeSet<String> = (0..40).map(|_| ask(Tls::new(None))).collect();
        assert!(nobody.len() >= 2, "{balance}: {nobody:?}");
    }
}

#[test]
fn every_spelling_of_a_path_chooses_the_same_endpoint() {
    let origins = origins();
    for balance in ["ring-hash", "maglev"] {
        let listener = "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n";
        let verbatim = "[[listener]]\nname = \"verbatim\"\naddress = \"127.0.0.1:0\"\npath = { normalise = false }\n";
        let proxy = Proxy::start(&format!("{listener}{verbatim}{}", cluster(&origins, balance, "path")));
        let ask = |listener: &str, path: &str| {
            is_quiet(&proxy);
            proxy.connect(listener).get(path).text()
        };
        let mut chosen = BTreeSet::new();
        let mut differ = false;
        for file in 0..12 {
            let plain = ask("edge", &format!("/a/{file}.js"));
            for path in [
                format!("/a/./{file}.js"),
                format!("//a/{file}.js"),
                format!("/b/../a/{file}.js"),
                format!("/%61/{file}%2ejs"),
                format!("/a%2F{file}.js"),
                format!("/a/{file}.js?v=2"),
            ] {
                assert_eq!(ask("edge", &path), plain, "{balance}: {path}");
            }
            // Where paths are taken as they are, a spelling is a path of its own.
            differ |= ask("verbatim", &format!("/a/./{file}.js")) != ask("verbatim", &format!("/a/{file}.js"));
            chosen.insert(plain);
        }
        assert!(chosen.len() >= 3 && differ, "{balance}: {chosen:?}");
    }
}

/// A TCP connection has an address, and over TLS an identity.
#[test]
fn tcp_connections_are_placed_by_address_and_by_identity() {
    let (folder, authority) = (folder(), Authority::new("root"));
    put(&folder.join("ca.pem"), authority.pem());
    files(&folder, "server", &authority, &Leaf::server(&["one.test"]));
    let greeting = |number: usize| {
        Origin::start(move |connection| {
            connection.send(format!("{number}\n"));
            connection.wait_for_end();
        })
    };
    let origins: Vec<Origin> = (0..5).map(greeting).collect();
    let endpoints: Vec<String> = origins.iter().map(|origin| format!("\"{}\"", origin.address())).collect();
    let endpoints = endpoints.join(", ");
    let tls =
        "tls = { certificate = \"server.pem\", key = \"server.key\", client = \"required\", client_ca = \"ca.pem\" }";
    let listener = |name: &str, more: &str| {
        format!(
            "[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\nlayer = \"tcp\"\ncluster = \"{name}\"\n{more}\n\
             [[cluster]]\nname = \"{name}\"\nbalance = \"maglev\"\nhash_on = {{ {name} = true }}\nendpoints = [{endpoints}]\n"
        )
    };
    let proxy = Proxy::start_in(&folder, &(listener("source", "") + &listener("identity", tls)));
    let (mut by_source, mut by_identity) = (BTreeSet::new(), BTreeSet::new());
    for number in 1..=12 {
        let ask = || from(&format!("127.0.2.{number}"), proxy.address("source")).line();
        let first = ask();
        assert_eq!([ask(), ask()], [first.clone(), first.clone()]);
        by_source.insert(first);
        let leaf = Leaf::svid(&format!("spiffe://mesh.test/ns/shop/sa/service-{number}"));
        let (certificate, key) = files(&folder, &format!("service-{number}"), &authority, &leaf);
        let ask = || {
            let tls = Tls::new(Some((certificate.as_path(), key.as_path())));
            let mut client = tls.connect(proxy.address("identity"), "one.test").expect("shakes hands");
            client.line().expect("a greeting")
        };
        let first = ask();
        assert_eq!([ask(), ask()], [first.clone(), first.clone()]);
        by_identity.insert(first);
    }
    assert!(by_source.len() >= 3 && by_identity.len() >= 3, "{by_source:?} {by_identity:?}");
}
