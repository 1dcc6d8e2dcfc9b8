//! `configs/grpc.toml` as it stands, with grpcio's servers at its endpoints, and grpcio and grpc-js as clients. An address is
//! replaced only where its port is taken.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;

use onehop_tests::{Proxy, eventually, folder};

const ENDPOINTS: [u16; 3] = [9001, 9002, 9003];
/// So many calls come by both servers, whatever the balancer's dice say.
const MANY: usize = 60;
/// Between finding the port free and listening there, no other test of this file may look.
static STARTING: Mutex<()> = Mutex::new(());

/// The shop's servers; ended with the test.
struct Shop {
    child: Child,
    input: ChildStdin,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    /// Where they listen, in the order of `ENDPOINTS`.
    ports: Vec<u16>,
}

impl Shop {
    fn start() -> Shop {
        let script = root().join("tests/judges/grpc_shop.py");
        let command = &mut Command::new("python3");
        let command = command.arg(script).args(ENDPOINTS.map(|port| port.to_string())).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let ports = lines.next().expect("a line").expect("text");
        let ports = ports.split(' ').map(|port| port.parse().expect("a port")).collect();
        Shop { input: child.stdin.take().expect("piped"), child, lines, ports }
    }

    /// Gives it a command; what it says to that.
    fn tell(&mut self, command: &str) -> String {
        writeln!(self.input, "{command}").expect("it listens");
        self.lines.next().expect("a line").expect("text")
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

fn has_grpcio() -> bool {
    let status = Command::new("python3").args(["-c", "import grpc, grpc_health.v1"]).stderr(Stdio::null()).status();
    let found = status.is_ok_and(|status| status.success());
    if !found {
        eprintln!("skipped: grpcio and grpcio-health-checking are not installed (tests/install-peers installs them)");
    }
    found
}

/// The proxy with the example, whose endpoints are the shop's servers.
fn start(shop: &Shop) -> Proxy {
    let mut text = std::fs::read_to_string(root().join("configs/grpc.toml")).expect("the example");
    let mut replace = |from: &str, to: &str| {
        assert!(text.contains(from), "the example has no {from}");
        text = text.replace(from, to);
    };
    for (endpoint, port) in ENDPOINTS.iter().zip(&shop.ports) {
        replace(&format!("\"127.0.0.1:{endpoint}\""), &format!("\"127.0.0.1:{port}\""));
    }
    // Built before, since that takes its time.
    onehop_tests::binary();
    let _starting = STARTING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if TcpListener::bind("127.0.0.1:8080").is_err() {
        replace("\"127.0.0.1:8080\"", "\"127.0.0.1:0\"");
    }
    let path = folder().join("grpc.toml");
    std::fs::write(&path, text).expect("writes");
    Proxy::start_file(path, &[], None)
}

/// Runs a client to its end; what it said.
fn client(program: &str, script: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program).arg(script).args(arguments).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// Status and server of `MANY` calls of one connection to the cart, one after the other.
fn finds(proxy: &Proxy) -> Vec<(String, String)> {
    let script = root().join("tests/judges/grpc_shop_calls.py");
    let said = client("python3", &script, &[&proxy.address("edge").to_string(), "finds", &MANY.to_string()]);
    let pair = |line: &str| line.split_once(' ').map(|(status, port)| (status.to_owned(), port.to_owned()));
    said.lines().map(|line| pair(line).expect("a status and a port")).collect()
}

/// The ports of servers that answered well; all calls must have.
fn servers(calls: &[(String, String)]) -> Vec<u16> {
    assert!(calls.iter().all(|(status, _)| status == "OK"), "{calls:?}");
    let mut ports: Vec<u16> = calls.iter().map(|(_, port)| port.parse().expect("a port")).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

#[test]
fn all_kinds_of_calls_on_every_route() {
    if !has_grpcio() {
        return;
    }
    let mut shop = Shop::start();
    let proxy = start(&shop);
    let (edge, streams) = (proxy.address("edge").to_string(), shop.ports[2].to_string());
    let script = root().join("tests/judges/grpc_shop_calls.py");
    client("python3", &script, &[&edge, "kinds", &streams]);
    assert_eq!(shop.tell("cancelled 2"), "done", "what its client gives up is given up at the service");
    for status in ["0", "9"] {
        let calls = || proxy.metric("onehop_route_grpc_calls_total", &format!("status=\"{status}\""));
        eventually(&format!("calls that ended with {status} are counted"), || calls() > 0.0);
    }

    let folder = root().join("target/grpc-js");
    let is_installed = folder.join("node_modules/@grpc/grpc-js").exists();
    std::fs::create_dir_all(&folder).expect("a folder");
    let mut npm = Command::new("npm");
    let npm =
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]).arg(&folder).arg("@grpc/grpc-js@1");
    if !is_installed && !npm.status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: Node is not here, or npm cannot install @grpc/grpc-js");
        return;
    }
    let script = folder.join("grpc_shop_calls.cjs");
    std::fs::copy(root().join("tests/judges/grpc_shop_calls.cjs"), &script).expect("copies");
    client("node", &script, &[&edge, &streams]);
    assert_eq!(shop.tell("cancelled 1"), "done", "so it is by grpc-js");
}

#[test]
fn a_call_that_was_refused_is_made_elsewhere() {
    if !has_grpcio() {
        return;
    }
    let mut shop = Shop::start();
    let proxy = start(&shop);
    // Two attempts: as many as there are servers, one of which refuses.
    shop.tell("refuse 0 1");
    servers(&finds(&proxy));
    assert_eq!(proxy.metric("onehop_route_retries_total", ""), 1.0);
}

#[test]
fn the_health_service_takes_a_server_out_and_brings_it_back() {
    if !has_grpcio() {
        return;
    }
    let mut shop = Shop::start();
    let proxy = start(&shop);
    let (first, second) = (shop.ports[0], shop.ports[1]);
    let is_healthy = |port: u16| proxy.metric("onehop_endpoint_healthy", &format!("127.0.0.1:{port}")) == 1.0;
    assert_eq!(servers(&finds(&proxy)), sorted([first, second]));
    shop.tell("health 1 NOT_SERVING");
    eventually("the second is taken out", || !is_healthy(second));
    assert_eq!(servers(&finds(&proxy)), [first]);
    shop.tell("health 1 SERVING");
    eventually("the second is brought back", || is_healthy(second));
    assert_eq!(servers(&finds(&proxy)), sorted([first, second]));
}

#[test]
fn a_server_whose_calls_fail_is_ejected() {
    if !has_grpcio() {
        return;
    }
    let mut shop = Shop::start();
    let proxy = start(&shop);
    shop.tell("refuse 0 1000000");
    // Some may find the budget of retries used up; five failures in a row are what the first gets.
    finds(&proxy);
    eventually("the first is ejected", || proxy.metric("onehop_cluster_ejections_total", "") == 1.0);
    let before = shop.tell("calls 0");
    assert_eq!(servers(&finds(&proxy)), [shop.ports[1]]);
    assert_eq!(shop.tell("calls 0"), before, "nothing is sent to the one that is out");
}

fn sorted(mut ports: [u16; 2]) -> [u16; 2] {
    ports.sort_unstable();
    ports
}
