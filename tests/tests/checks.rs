//! Active checks beyond a plain GET: gRPC's health protocol against grpcio's own service, TLS against openssl, HTTP/2,
//! another port, expected statuses; and how metrics tell each endpoint's state.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use onehop_tests::http2::Http2Origin;
use onehop_tests::pki::{Authority, Leaf, files, put};
use onehop_tests::{Origin, Proxy, eventually, folder};

fn start(folder: &Path, endpoint: SocketAddr, cluster: &str) -> Proxy {
    let text = format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"c\"\n[[cluster]]\nname = \"c\"\nendpoints = [\"{endpoint}\"]\n{cluster}\n"
    );
    Proxy::start_in(folder, &text)
}

/// State and reason of the only endpoint in `/clusters`.
fn state(proxy: &Proxy) -> (String, String) {
    let clusters: serde_json::Value = serde_json::from_str(&proxy.admin("/clusters").1).expect("JSON");
    let endpoint = &clusters[0]["endpoints"][0];
    let text = |key: &str| endpoint[key].as_str().unwrap_or("").to_owned();
    (text("state"), text("reason"))
}

fn becomes(proxy: &Proxy, wanted: &str, reason: &str) {
    eventually(&format!("{wanted}: {reason}"), || {
        let (state, why) = state(proxy);
        state == wanted && why.contains(reason)
    });
}

/// Waits until a metric shows a value: under load a check may fail for another reason in between.
fn shows(proxy: &Proxy, name: &str, labels: &str, value: f64) {
    eventually(&format!("{name} {labels}"), || proxy.metric(name, labels) == value);
}

/// A peer that is ended with the test.
struct Peer {
    child: Child,
    input: ChildStdin,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Peer {
    fn start(command: &mut Command) -> Peer {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Peer { input: child.stdin.take().expect("piped"), child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("a line").expect("text")
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("it listens");
        assert_eq!(self.line(), "set");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn has_grpcio() -> bool {
    let status = Command::new("python3").args(["-c", "import grpc, grpc_health.v1"]).stderr(Stdio::null()).status();
    let found = status.is_ok_and(|status| status.success());
    if !found {
        eprintln!("skipped: grpcio-health-checking is not installed (tests/install-peers installs it)");
    }
    found
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/judges/health_service.py");

#[test]
fn grpcio_s_health_service_decides() {
    if !has_grpcio() {
        return;
    }
    let mut peer = Peer::start(Command::new("python3").arg(SCRIPT));
    let address = SocketAddr::from(([127, 0, 0, 1], peer.line().parse().expect("a port")));
    let proxy = start(
        &folder(),
        address,
        "protocol = \"http2\"\nhealth = { grpc = \"web\", interval = \"50ms\", unhealthy = 1, healthy = 1, timeout = \"5s\" }",
    );
    becomes(&proxy, "unhealthy", "it does not know the service \"web\"");
    peer.tell("SERVING web");
    becomes(&proxy, "healthy", "");
    peer.tell("NOT_SERVING web");
    becomes(&proxy, "unhealthy", "it is NOT_SERVING");
    let labels = "state=\"unhealthy\",reason=\"not-serving\"";
    shows(&proxy, "onehop_endpoint_state", labels, 1.0);
    shows(&proxy, "onehop_endpoint_healthy", "", 0.0);
    shows(&proxy, "onehop_cluster_endpoints", "state=\"unhealthy\"", 1.0);
    peer.tell("SERVING web");
    becomes(&proxy, "healthy", "");
    drop(peer);
    becomes(&proxy, "unhealthy", "connect");
    shows(&proxy, "onehop_endpoint_state", "reason=\"connect\"", 1.0);
}

#[test]
fn grpcio_s_health_service_is_asked_over_tls() {
    if !has_grpcio() {
        return;
    }
    let (folder, authority) = (folder(), Authority::new("root"));
    put(&folder.join("ca.pem"), authority.pem());
    let (certificate, key) = files(&folder, "server", &authority, &Leaf::server(&["grpc.test"]));
    let mut peer = Peer::start(Command::new("python3").arg(SCRIPT).arg(certificate).arg(key));
    let address = SocketAddr::from(([127, 0, 0, 1], peer.line().parse().expect("a port")));
    let health = "health = { grpc = \"\", interval = \"50ms\", unhealthy = 1, healthy = 1, timeout = \"5s\" }";
    let tls =
        |name: &str| format!("protocol = \"http2\"\ntls = {{ ca = \"ca.pem\", server_name = \"{name}\" }}\n{health}");
    let proxy = start(&folder, address, &tls("grpc.test"));
    eventually("it was asked", || proxy.metric("onehop_health_checks_total", "") >= 3.0);
    becomes(&proxy, "healthy", "");
    peer.tell("NOT_SERVING ");
    becomes(&proxy, "unhealthy", "it is NOT_SERVING");
    let proxy = start(&folder, address, &tls("other.test"));
    becomes(&proxy, "unhealthy", "TLS: ");
    shows(&proxy, "onehop_endpoint_state", "reason=\"tls\"", 1.0);
}

#[test]
fn openssl_is_asked_over_tls() {
    let (folder, authority, stranger) = (folder(), Authority::new("root"), Authority::new("stranger"));
    put(&folder.join("ca.pem"), authority.pem());
    put(&folder.join("stranger.pem"), stranger.pem());
    let (certificate, key) = files(&folder, "server", &authority, &Leaf::server(&["server.test"]));
    let mut server = Command::new("openssl");
    server.args(["s_server", "-www", "-accept", "127.0.0.1:0", "-cert"]).arg(certificate).arg("-key").arg(key);
    let mut peer = Peer::start(&mut server);
    let address = loop {
        if let Some(address) = peer.line().strip_prefix("ACCEPT ") {
            break address.parse().expect("an address");
        }
    };
    let health = "health = { http = \"/\", interval = \"50ms\", unhealthy = 1, healthy = 1, timeout = \"5s\" }";
    let proxy =
        start(&folder, address, &format!("tls = {{ ca = \"ca.pem\", server_name = \"server.test\" }}\n{health}"));
    eventually("it was asked", || proxy.metric("onehop_health_checks_total", "") >= 3.0);
    becomes(&proxy, "healthy", "");
    let proxy =
        start(&folder, address, &format!("tls = {{ ca = \"stranger.pem\", server_name = \"server.test\" }}\n{health}"));
    becomes(&proxy, "unhealthy", "TLS: ");
}

#[test]
fn host_path_port_and_statuses_are_as_configured() {
    let origin = Origin::echo();
    let is_ready = Arc::new(AtomicBool::new(true));
    let ready = is_ready.clone();
    let checked = Origin::start(move |connection| {
        while let Some(head) = connection.head() {
            let asked =
                head.starts_with("GET /ready?deep=1 HTTP/1.1\r\n") && head.contains("\r\nHost: health.test\r\n");
            let status = if asked && ready.load(Ordering::SeqCst) { "404 As Wanted" } else { "200 OK" };
            connection.send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
        }
    });
    let port = checked.address().port();
    let health = format!(
        "health = {{ http = \"/ready?deep=1\", host = \"health.test\", port = {port}, expect = [\"204\", \"400-404\"], interval = \"50ms\", unhealthy = 1, healthy = 1 }}"
    );
    let proxy = start(&folder(), origin.address(), &health);
    eventually("it was asked", || proxy.metric("onehop_health_checks_total", "") >= 3.0);
    becomes(&proxy, "healthy", "");
    is_ready.store(false, Ordering::SeqCst);
    becomes(&proxy, "unhealthy", "it answered 200");
    shows(&proxy, "onehop_endpoint_state", "reason=\"status\"", 1.0);
}

#[test]
fn a_cluster_that_speaks_http2_is_asked_by_http2() {
    let is_sick = Arc::new(AtomicBool::new(false));
    let sick = is_sick.clone();
    let origin = Http2Origin::start(move |mut incoming| {
        let is_right = incoming.request.uri().path() == "/healthz" && !sick.load(Ordering::SeqCst);
        async move {
            let status = if is_right { 204 } else { 503 };
            let response = http::Response::builder().status(status).body(()).expect("well-formed");
            let _ = incoming.respond.send_response(response, true);
        }
    });
    let health = "health = { http = \"/healthz\", interval = \"50ms\", unhealthy = 1, healthy = 1 }";
    let proxy = start(&folder(), origin.address(), &format!("protocol = \"http2\"\n{health}"));
    eventually("it was asked", || proxy.metric("onehop_health_checks_total", "") >= 3.0);
    becomes(&proxy, "healthy", "");
    is_sick.store(true, Ordering::SeqCst);
    becomes(&proxy, "unhealthy", "it answered 503");
}

#[test]
fn a_check_by_grpc_that_is_never_answered_fails() {
    let silent = Origin::start(onehop_tests::Connection::wait_for_end);
    let health = "health = { grpc = \"web\", interval = \"50ms\", timeout = \"100ms\", unhealthy = 1 }";
    let proxy = start(&folder(), silent.address(), &format!("protocol = \"http2\"\n{health}"));
    becomes(&proxy, "unhealthy", "no answer in time");
    shows(&proxy, "onehop_endpoint_state", "reason=\"timeout\"", 1.0);
    // One that speaks something else is told from one that is silent.
    let other = Origin::echo();
    let patient = health.replace("100ms", "5s");
    let proxy = start(&folder(), other.address(), &format!("protocol = \"http2\"\n{patient}"));
    // Not even HTTP/2's preface is understood by HTTP/1.
    becomes(&proxy, "unhealthy", "it does not speak HTTP/2");
    shows(&proxy, "onehop_endpoint_state", "reason=\"protocol\"", 1.0);
}
