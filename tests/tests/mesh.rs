//! Two sidecars: identities by SPIFFE ID on both sides, refusals with their reasons, rotation under load.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use onehop_tests::pki::{Authority, Leaf, files, put};
use onehop_tests::{Client, Origin, Proxy, Tls, eventually, folder};

const WEB: &str = "spiffe://mesh.test/ns/shop/sa/web";
const API: &str = "spiffe://mesh.test/ns/shop/sa/api";

struct Mesh {
    folder: PathBuf,
    authority: Authority,
}

impl Mesh {
    fn new() -> Mesh {
        let mesh = Mesh { folder: folder(), authority: Authority::new("mesh") };
        put(&mesh.folder.join("bundle.pem"), mesh.authority.pem());
        for (name, id) in [("web", WEB), ("api", API)] {
            files(&mesh.folder, name, &mesh.authority, &Leaf::svid(id));
        }
        mesh
    }

    fn identity(name: &str) -> String {
        format!("[identity]\ncertificate = \"{name}.pem\"\nkey = \"{name}.key\"\nbundle = \"bundle.pem\"\n")
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.join(name);
        std::fs::write(&path, text).expect("writes");
        path
    }

    /// The sidecar before `api`: mutual TLS in, plain to the origin.
    fn inner(&self, origin: &Origin, more: &str) -> Proxy {
        let text = format!(
            "{}{more}[sidecar]\noutbound = []\ninbound = []\n[[sidecar.port]]\nlisten = \"127.0.0.1:0\"\nport = 80\napp = \"{}\"\n",
            Mesh::identity("api"),
            origin.address()
        );
        Proxy::start_file(self.write("inner.toml", &text), &[], None)
    }

    /// The sidecar beside `web`: plain in, mutual TLS to the inner one.
    fn outer(&self, inner: &Proxy, expected: &str) -> Proxy {
        let text = format!(
            "{}[sidecar]\noutbound = []\ninbound = []\n[[sidecar.service]]\nname = \"api\"\nlisten = \"127.0.0.1:0\"\nendpoints = [\"{}\"]\nidentity = [\"{expected}\"]\n",
            Mesh::identity("web"),
            inner.address("inbound-80")
        );
        Proxy::start_file(self.write("outer.toml", &text), &[], None)
    }
}

#[test]
fn a_request_passes_two_sidecars_and_both_know_each_other() {
    let mesh = Mesh::new();
    let origin = Origin::echo();
    let inner = mesh.inner(&origin, "");
    let outer = mesh.outer(&inner, API);
    let mut client = outer.connect("outbound-api");
    for _ in 0..20 {
        assert_eq!(client.get("/through/two").text(), "/through/two");
    }
    let body = vec![b'x'; 3_000_000];
    client.send(format!("POST /big HTTP/1.1\r\nHost: api\r\nContent-Length: {}\r\n\r\n", body.len()));
    client.send(&body);
    assert_eq!(client.response().field("x-body"), Some("3000000"));
    assert!(inner.metric("onehop_listener_peer_connections_total", WEB) >= 1.0);
    assert!(outer.metric("onehop_cluster_peer_connections_total", API) >= 1.0);
    let (_, text) = inner.admin("/metrics");
    assert!(text.contains(&format!("identity=\"{API}\"")), "{text}");
    // A server whose SVID has expired is refused.
    let late = files(&mesh.folder, "late", &mesh.authority, &Leaf { from: -20, until: -5, ..Leaf::svid(API) });
    let config = format!(
        "[[listener]]\nname = \"late\"\naddress = \"127.0.0.1:0\"\ntls = {{ certificate = \"{}\", key = \"{}\" }}\n\
         [[route]]\ncluster = \"o\"\n[[cluster]]\nname = \"o\"\nendpoints = [\"{}\"]\n",
        late.0.display(),
        late.1.display(),
        origin.address()
    );
    let expired = Proxy::start(&config);
    let text = format!(
        "{}[sidecar]\noutbound = []\ninbound = []\n[[sidecar.service]]\nname = \"api\"\nlisten = \"127.0.0.1:0\"\nendpoints = [\"{}\"]\n",
        Mesh::identity("web"),
        expired.address("late")
    );
    let to_expired = Proxy::start_file(mesh.write("to-expired.toml", &text), &[], None);
    assert_eq!(to_expired.connect("outbound-api").get("/").status, 503);
    assert!(to_expired.metric("onehop_cluster_tls_failures_total", "\"expired\"") >= 1.0);
    // A wrong expectation is refused, and says so.
    let wrong = mesh.outer(&inner, WEB);
    assert_eq!(wrong.connect("outbound-api").get("/").status, 503);
    assert!(wrong.metric("onehop_cluster_tls_failures_total", "\"wrong-name\"") >= 1.0);
}

#[test]
fn two_sidecars_speak_http2_where_both_may() {
    let mesh = Mesh::new();
    let origin = Origin::echo();
    let more = "alpn = [\"h2\", \"http/1.1\"]\n";
    let text = format!(
        "{}[sidecar]\noutbound = []\ninbound = []\n{more}[[sidecar.port]]\nlisten = \"127.0.0.1:0\"\nport = 80\nprotocol = \"http\"\napp = \"{}\"\n",
        Mesh::identity("api"),
        origin.address()
    );
    let inner = Proxy::start_file(mesh.write("inner2.toml", &text), &["--workers", "1"], None);
    let text = format!(
        "{}[sidecar]\noutbound = []\ninbound = []\n{more}[[sidecar.service]]\nname = \"api\"\nprotocol = \"http\"\nlisten = \"127.0.0.1:0\"\nendpoints = [\"{}\"]\nidentity = [\"{API}\"]\n",
        Mesh::identity("web"),
        inner.address("inbound-80")
    );
    let outer = Proxy::start_file(mesh.write("outer2.toml", &text), &["--workers", "1"], None);
    let mut clients: Vec<_> = (0..8).map(|_| outer.connect("outbound-api")).collect();
    for client in &mut clients {
        assert_eq!(client.get("/multiplexed").text(), "/multiplexed");
    }
    let body = vec![b'x'; 1_000_000];
    clients[0].send(format!("POST /big HTTP/1.1\r\nHost: api\r\nContent-Length: {}\r\n\r\n", body.len()));
    clients[0].send(&body);
    assert_eq!(clients[0].response().field("x-body"), Some("1000000"));
    assert_eq!(inner.metric("onehop_listener_peer_connections_total", WEB), 1.0, "one connection for all");
}

#[test]
fn a_sidecar_without_http2_is_spoken_to_in_http1() {
    let mesh = Mesh::new();
    let origin = Origin::echo();
    let inner = mesh.inner(&origin, "");
    let text = format!(
        "{}[sidecar]\noutbound = []\ninbound = []\nalpn = [\"h2\", \"http/1.1\"]\n[[sidecar.service]]\nname = \"api\"\nprotocol = \"http\"\nlisten = \"127.0.0.1:0\"\nendpoints = [\"{}\"]\nidentity = [\"{API}\"]\n",
        Mesh::identity("web"),
        inner.address("inbound-80")
    );
    let outer = Proxy::start_file(mesh.write("outer4.toml", &text), &["--workers", "1"], None);
    let mut client = outer.connect("outbound-api");
    for _ in 0..10 {
        assert_eq!(client.get("/fallback").text(), "/fallback");
    }
    assert_eq!(outer.metric("onehop_cluster_connects_total", "service-api"), 1.0, "the first connection is kept");
}

#[test]
fn what_is_sniffed_to_be_http_shares_http2_and_bytes_go_by_themselves() {
    let mesh = Mesh::new();
    let origin = Origin::start(|connection| {
        while let Some(line) = connection.line() {
            if line.starts_with("GET ") {
                while connection.line().is_some_and(|line| !line.trim().is_empty()) {}
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            } else {
                connection.send(format!("250 {line}"));
            }
        }
    });
    let more = "alpn = [\"h2\", \"http/1.1\"]\n";
    let text = format!(
        "{}[sidecar]\noutbound = []\ninbound = []\n{more}[[sidecar.port]]\nlisten = \"127.0.0.1:0\"\nport = 80\napp = \"{}\"\n",
        Mesh::identity("api"),
        origin.address()
    );
    let inner = Proxy::start_file(mesh.write("inner3.toml", &text), &["--workers", "1"], None);
    let text = format!(
        "{}[sidecar]\noutbound = []\ninbound = []\n{more}[[sidecar.service]]\nname = \"api\"\nlisten = \"127.0.0.1:0\"\nendpoints = [\"{}\"]\nidentity = [\"{API}\"]\n",
        Mesh::identity("web"),
        inner.address("inbound-80")
    );
    let outer = Proxy::start_file(mesh.write("outer3.toml", &text), &["--workers", "1"], None);
    let mut clients: Vec<_> = (0..4).map(|_| outer.connect("outbound-api")).collect();
    for client in &mut clients {
        assert_eq!(client.get("/sniffed").text(), "ok");
    }
    let peers = || inner.metric("onehop_listener_peer_connections_total", WEB);
    assert_eq!(peers(), 1.0, "one connection for all requests");
    for _ in 0..2 {
        let mut bytes = outer.connect("outbound-api");
        bytes.send("\x01raw\r\n");
        assert_eq!(bytes.line(), "250 \x01raw\r\n");
    }
    assert_eq!(peers(), 3.0, "and one for each that carries bytes");
    assert_eq!(clients[0].get("/again").text(), "ok");
}

#[test]
fn every_bad_identity_is_refused_with_its_reason() {
    let mesh = Mesh::new();
    put(&mesh.folder.join("crl.pem"), &mesh.authority.revoke(&[99]));
    let origin = Origin::echo();
    let inner = mesh.inner(&origin, "crl = [\"crl.pem\"]\n");
    let address = inner.address("inbound-80");
    let good = Leaf::svid(WEB);
    let other = Authority::new("elsewhere");
    let only_server = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let cases: Vec<(&str, &Authority, Leaf)> = vec![
        ("expired", &mesh.authority, Leaf { from: -20, until: -5, ..good.clone() }),
        ("not-yet-valid", &mesh.authority, Leaf { from: 5, until: 20, ..good.clone() }),
        ("wrong-trust-domain", &mesh.authority, Leaf::svid("spiffe://other.test/ns/shop/sa/web")),
        ("uri-names", &mesh.authority, Leaf { uris: vec![WEB.to_owned(), API.to_owned()], ..good.clone() }),
        ("uri-names", &mesh.authority, Leaf::server(&["web.test"])),
        ("uri-names", &mesh.authority, Leaf::svid("https://mesh.test/web")),
        ("uri-names", &mesh.authority, Leaf::svid("spiffe://mesh.test")),
        ("wrong-usage", &mesh.authority, Leaf { usages: Vec::new(), ..good.clone() }),
        ("wrong-usage", &mesh.authority, Leaf { usages: only_server, ..good.clone() }),
        ("unknown-issuer", &other, good.clone()),
        ("revoked", &mesh.authority, Leaf { serial: 99, ..good.clone() }),
    ];
    for (number, (reason, authority, leaf)) in cases.iter().enumerate() {
        let (certificate, key) = files(&mesh.folder, &format!("bad-{number}"), authority, leaf);
        let before = inner.metric("onehop_listener_tls_failures_total", &format!("\"{reason}\""));
        let refused = Tls::new(Some((&certificate, &key))).get(address, "api.test", "/");
        assert!(refused.is_err(), "{number}: {reason}");
        eventually(reason, || inner.metric("onehop_listener_tls_failures_total", &format!("\"{reason}\"")) > before);
        inner.wait_for_error(&format!("({reason})"));
    }
    let (certificate, key) = (mesh.folder.join("web.pem"), mesh.folder.join("web.key"));
    assert_eq!(
        Tls::new(Some((&certificate, &key))).get(address, "api.test", "/ok").map(|(_, status, _)| status),
        Ok(200)
    );
    // Strict: nothing plain.
    assert_eq!(Client::connect(address).get("/").status, 400);
}

#[test]
fn permissive_takes_both_and_a_server_may_speak_first() {
    let mesh = Mesh::new();
    let origin = Origin::start(|connection| {
        connection.send("220 ready\r\n");
        while let Some(line) = connection.line() {
            connection.send(format!("250 {line}"));
        }
    });
    let text = format!(
        "{}[sidecar]\noutbound = []\ninbound = []\ndetect_timeout = \"700ms\"\n[[sidecar.port]]\nlisten = \"127.0.0.1:0\"\nport = 25\napp = \"{}\"\nmode = \"permissive\"\n",
        Mesh::identity("api"),
        origin.address()
    );
    let inner = Proxy::start_file(mesh.write("mail.toml", &text), &[], None);
    let mut plain = inner.connect("inbound-25");
    assert_eq!(plain.line(), "220 ready\r\n", "nobody has to speak first");
    plain.send("HELO x\r\n");
    assert_eq!(plain.line(), "250 HELO x\r\n");
    // The same by mutual TLS, through another sidecar.
    let text = format!(
        "{}[sidecar]\noutbound = []\ninbound = []\ndetect_timeout = \"700ms\"\n[[sidecar.service]]\nname = \"mail\"\nlisten = \"127.0.0.1:0\"\nendpoints = [\"{}\"]\nprotocol = \"tcp\"\n",
        Mesh::identity("web"),
        inner.address("inbound-25")
    );
    let outer = Proxy::start_file(mesh.write("outer-mail.toml", &text), &[], None);
    let mut secured = outer.connect("outbound-mail");
    assert_eq!(secured.line(), "220 ready\r\n");
    secured.send("HELO y\r\n");
    assert_eq!(secured.line(), "250 HELO y\r\n");
    assert!(inner.metric("onehop_listener_peer_connections_total", WEB) >= 1.0);
}

/// Clients that ask until they are told to stop; each asks on new connections half of the time.
fn load(
    address: std::net::SocketAddr,
    stop: &Arc<AtomicBool>,
    done: &Arc<AtomicUsize>,
) -> Vec<std::thread::JoinHandle<()>> {
    (0..4)
        .map(|number| {
            let (stop, done) = (stop.clone(), done.clone());
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                while !stop.load(Ordering::SeqCst) {
                    let response = client.get("/load");
                    assert_eq!((response.status, response.text().as_str()), (200, "/load"), "{}", response.head);
                    done.fetch_add(1, Ordering::SeqCst);
                    if number % 2 == 0 || response.field("connection") == Some("close") {
                        client = Client::connect(address);
                    }
                }
            })
        })
        .collect()
}

fn generation(proxy: &Proxy) -> f64 {
    proxy.metric("onehop_config_reloads_total", "")
}

fn rotate(proxies: &[&Proxy], done: &AtomicUsize, change: impl FnOnce()) {
    let before: Vec<f64> = proxies.iter().map(|proxy| generation(proxy)).collect();
    change();
    for (proxy, before) in proxies.iter().zip(before) {
        eventually("the change is in force", || generation(proxy) > before);
    }
    let until = done.load(Ordering::SeqCst) + 100;
    eventually("the load goes on", || done.load(Ordering::SeqCst) >= until);
}

#[test]
fn keys_and_roots_are_rotated_under_load_without_a_failed_request() {
    let mesh = Mesh::new();
    let origin = Origin::echo();
    let inner = mesh.inner(&origin, "");
    let outer = mesh.outer(&inner, API);
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let threads = load(outer.address("outbound-api"), &stop, &done);
    let folder: &Path = &mesh.folder;
    let both = [&inner, &outer];
    // New SVIDs of the same root.
    rotate(&both, &done, || {
        for (name, id) in [("web", WEB), ("api", API)] {
            files(folder, name, &mesh.authority, &Leaf { serial: 8, ..Leaf::svid(id) });
        }
    });
    // A new root: first trusted beside the old one, then SVIDs by it, then alone.
    let next = Authority::new("next");
    rotate(&both, &done, || put(&folder.join("bundle.pem"), &format!("{}{}", mesh.authority.pem(), next.pem())));
    rotate(&both, &done, || {
        for (name, id) in [("web", WEB), ("api", API)] {
            files(folder, name, &next, &Leaf::svid(id));
        }
    });
    rotate(&both, &done, || put(&folder.join("bundle.pem"), next.pem()));
    // A key that does not fit: the old one stays, and it says so.
    let (_, stray) = mesh.authority.issue(&Leaf::svid(API));
    put(&folder.join("api.key"), &stray);
    inner.wait_for_error("does not belong to the certificate");
    let until = done.load(Ordering::SeqCst) + 100;
    eventually("the load goes on", || done.load(Ordering::SeqCst) >= until);
    stop.store(true, Ordering::SeqCst);
    threads.into_iter().for_each(|thread| thread.join().expect("no request failed"));
    // Whoever still shows an SVID of the old root is refused, a ticket of old notwithstanding.
    let (certificate, key) = files(folder, "old", &mesh.authority, &Leaf::svid(WEB));
    assert!(Tls::new(Some((&certificate, &key))).get(inner.address("inbound-80"), "api.test", "/").is_err());
}

#[test]
fn an_old_ticket_does_not_outlive_its_root_or_its_certificate() {
    let mesh = Mesh::new();
    let origin = Origin::echo();
    let inner = mesh.inner(&origin, "");
    let address = inner.address("inbound-80");
    let (certificate, key) = (mesh.folder.join("web.pem"), mesh.folder.join("web.key"));
    let tls = Tls::new(Some((&certificate, &key)));
    tls.get(address, "api.test", "/").expect("an answer");
    let (client, ..) = tls.get(address, "api.test", "/").expect("an answer");
    assert!(client.resumed());
    let (before, next) = (generation(&inner), Authority::new("next"));
    files(&mesh.folder, "api", &next, &Leaf::svid(API));
    put(&mesh.folder.join("bundle.pem"), next.pem());
    eventually("the change is in force", || generation(&inner) > before);
    assert!(tls.get(address, "api.test", "/").is_err(), "its root is no longer trusted");
}

#[test]
fn readiness_and_metrics_speak_of_an_identity_that_expires() {
    let mesh = Mesh::new();
    files(&mesh.folder, "api", &mesh.authority, &Leaf { until: 5, ..Leaf::svid(API) });
    let origin = Origin::echo();
    let inner = mesh.inner(&origin, "");
    eventually("it is ready, and warns", || {
        let (status, text) = inner.admin("/ready");
        status == 200 && text.contains("expires in")
    });
    eventually("the metric is there", || inner.metric("onehop_identity_remaining_seconds", "") > 200.0);
    let before = generation(&inner);
    files(&mesh.folder, "api", &mesh.authority, &Leaf { from: -9, until: -1, ..Leaf::svid(API) });
    eventually("the change is in force", || generation(&inner) > before);
    let (status, text) = inner.admin("/ready");
    assert!(status == 503 && text.contains("has expired"), "{text}");
}

#[test]
fn onehop_certs_makes_what_a_mesh_needs() {
    let folder = folder();
    let to = folder.to_str().expect("text");
    let make = || {
        Proxy::run(&[
            "certs",
            to,
            "--trust-domain",
            "demo.test",
            "--service",
            "web",
            "--service",
            "ns/shop/sa/api",
            "--dns",
            "localhost",
        ])
    };
    let (code, out, error) = make();
    assert_eq!(code, 0, "{error}");
    assert!(
        out.contains("spiffe://demo.test/ns/default/sa/web") && out.contains("spiffe://demo.test/ns/shop/sa/api"),
        "{out}"
    );
    let verify = |name: &str| {
        let output = std::process::Command::new("openssl")
            .args([
                "verify",
                "-CAfile",
                &format!("{to}/bundle.pem"),
                "-untrusted",
                &format!("{to}/{name}/cert.pem"),
                &format!("{to}/{name}/cert.pem"),
            ])
            .output()
            .expect("openssl runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(verify("web").contains("OK") && verify("api").contains("OK"));
    let first = std::fs::read_to_string(folder.join("web/cert.pem")).expect("there");
    let root = std::fs::read_to_string(folder.join("bundle.pem")).expect("there");
    assert_eq!(make().0, 0);
    assert_ne!(std::fs::read_to_string(folder.join("web/cert.pem")).expect("there"), first, "renewed");
    assert_eq!(std::fs::read_to_string(folder.join("bundle.pem")).expect("there"), root, "the root stays");
    assert_eq!(Proxy::run(&["certs", to, "--trust-domain", "Demo", "--service", "web"]).0, 1);
}
