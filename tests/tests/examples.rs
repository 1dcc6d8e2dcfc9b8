//! The examples of `configs/` that have to do with TLS and the mesh, each run as it stands, but for its ports.

use std::path::{Path, PathBuf};
use std::process::Command;

use onehop_tests::pki::put;
use onehop_tests::{Origin, Proxy, eventually, folder};

/// Makes `certs` beside the example, as its first lines say.
fn certs(folder: &Path, arguments: &[&str]) {
    let to = folder.join("certs");
    let all = [&["certs", to.to_str().expect("text")], arguments].concat();
    assert_eq!(Proxy::run(&all).0, 0);
}

/// The example in this folder, with each of these texts, which must be in it, replaced.
fn example(folder: &Path, name: &str, replaced: &[(&str, &str)]) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs").join(name);
    let mut text = std::fs::read_to_string(path).expect("an example");
    for (from, to) in replaced {
        assert!(text.contains(from), "{name} has no {from}");
        text = text.replace(from, to);
    }
    let path = folder.join(name);
    put(&path, &text);
    path
}

/// What curl says of a URL of this host, with the head.
fn curl(folder: &Path, host: &str, proxy: &Proxy, listener: &str, scheme: &str, more: &[&str]) -> String {
    let port = proxy.address(listener).port();
    let (ca, resolve) = (folder.join("certs/bundle.pem"), format!("{host}:{port}:127.0.0.1"));
    let output = Command::new("curl")
        .args(["-sS", "-i", "--max-time", "10", "--cacert", ca.to_str().expect("text"), "--resolve", &resolve])
        .args(more)
        .arg(format!("{scheme}://{host}:{port}/shop?q=1"))
        .output()
        .expect("curl runs");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_edge_sends_http_to_https_and_tells_browsers_to_stay_there() {
    let folder = folder();
    certs(&folder, &["--service", "www", "--service", "api", "--dns", "www.localhost", "--dns", "localhost"]);
    let origin = Origin::echo();
    // The upstream that is reached by TLS.
    let upstream = format!(
        "[[listener]]\nname = \"app\"\naddress = \"127.0.0.1:0\"\ntls = {{ certificate = \"certs/api/cert.pem\", key = \"certs/api/key.pem\" }}\n\
         [[route]]\ncluster = \"o\"\n[[cluster]]\nname = \"o\"\nendpoints = [\"{}\"]\n",
        origin.address()
    );
    put(&folder.join("app.toml"), &upstream);
    let app = Proxy::start_file(folder.join("app.toml"), &[], None);
    let to = app.address("app").to_string();
    let ports = [("0.0.0.0:8443", "127.0.0.1:0"), ("0.0.0.0:8080", "127.0.0.1:0"), ("127.0.0.1:9443", to.as_str())];
    let edge = Proxy::start_file(example(&folder, "edge-tls.toml", &ports), &[], None);

    let moved = curl(&folder, "www.localhost", &edge, "http", "http", &[]);
    assert!(moved.starts_with("HTTP/1.1 308 "), "{moved}");
    assert!(moved.contains("https://www.localhost:8443/shop?q=1"), "method, path and query are kept: {moved}");
    assert!(!moved.to_ascii_lowercase().contains("strict-transport-security"), "not over plain HTTP: {moved}");

    for (http, version) in [("--http1.1", "HTTP/1.1 200"), ("--http2", "HTTP/2 200")] {
        let answer = curl(&folder, "www.localhost", &edge, "https", "https", &[http]);
        assert!(answer.starts_with(version), "{answer}");
        assert!(answer.to_ascii_lowercase().contains("strict-transport-security: max-age=31536000"), "{answer}");
        assert!(answer.ends_with("/shop?q=1"), "{answer}");
    }
    let other = curl(&folder, "elsewhere.test", &edge, "https", "https", &[]);
    assert!(other.contains("certificate subject name") || other.contains("no alternative certificate"), "{other}");
    assert!(app.metric("onehop_listener_tls_handshakes_total", "") >= 1.0, "the upstream was reached by TLS");
}

#[test]
fn the_mesh_pair_carries_requests_by_mutual_tls() {
    let folder = folder();
    certs(&folder, &["--service", "web", "--service", "api"]);
    let origin = Origin::echo();
    let app = origin.address().to_string();
    let ports = [("127.0.0.1:9443", "127.0.0.1:0"), ("127.0.0.1:9000", app.as_str())];
    let api = Proxy::start_file(example(&folder, "mesh-api.toml", &ports), &[], None);
    let inbound = api.address("inbound-443");
    let to = inbound.to_string();
    let ports = [("127.0.0.1:9001", "127.0.0.1:0"), ("127.0.0.1:9443", to.as_str())];
    let web = Proxy::start_file(example(&folder, "mesh-web.toml", &ports), &[], None);
    assert_eq!(web.connect("outbound-api").get("/mesh").text(), "/mesh");
    let peer = "spiffe://example.org/ns/default/sa/";
    assert!(api.metric("onehop_listener_peer_connections_total", &format!("{peer}web")) >= 1.0);
    assert!(web.metric("onehop_cluster_peer_connections_total", &format!("{peer}api")) >= 1.0);
    // Only web may: with another identity of the same domain the rule at the end of mesh-api.toml refuses.
    certs(&folder, &["--service", "other"]);
    let ports = [("127.0.0.1:9001", "127.0.0.1:0"), ("127.0.0.1:9443", to.as_str()), ("certs/web/", "certs/other/")];
    let other = Proxy::start_file(example(&folder, "mesh-web.toml", &ports), &[], None);
    assert_eq!(other.connect("outbound-api").get("/mesh").status, 403);
    eventually("counted", || api.metric("onehop_listener_faults_total", "\"access-denied\"") >= 1.0);
}
