//! Ring and maglev choose what Envoy chooses: the same endpoints, the same header, the same values. Envoy documents the
//! keys (the endpoint's address, and with it the number of the point), the hash (XXH64) and the sizes.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use onehop_tests::net::Running;
use onehop_tests::{Client, Origin, Proxy, eventually, folder};

fn envoy() -> Option<PathBuf> {
    let script = "import envoy, pathlib; print(pathlib.Path(envoy.__file__).parent / '_bin' / 'envoy')";
    let output = Command::new("python3").args(["-c", script]).output().ok()?;
    let packaged = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    // One that was built for another system is none.
    let runs = Command::new(&packaged).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    runs.is_ok_and(|status| status.success()).then_some(packaged)
}

fn start_envoy(program: &PathBuf, policy: &str, listen: SocketAddr, endpoints: &[SocketAddr]) -> Running {
    let all: Vec<String> = endpoints
        .iter()
        .map(|at| {
            format!(
                "{{ endpoint: {{ address: {{ socket_address: {{ address: {}, port_value: {} }} }} }} }}",
                at.ip(),
                at.port()
            )
        })
        .collect();
    let types = "type.googleapis.com/envoy.extensions.filters";
    let config = format!(
        "static_resources:\n  listeners:\n  - name: l\n    address: {{ socket_address: {{ address: {}, port_value: {} }} }}\n    \
         filter_chains:\n    - filters:\n      - name: envoy.filters.network.http_connection_manager\n        typed_config:\n          \
         \"@type\": {types}.network.http_connection_manager.v3.HttpConnectionManager\n          stat_prefix: x\n          \
         route_config: {{ name: all, virtual_hosts: [ {{ name: all, domains: [\"*\"], routes: [ {{ match: {{ prefix: \"/\" }}, \
         route: {{ cluster: c, hash_policy: [ {{ header: {{ header_name: x-key }} }} ] }} }} ] }} ] }}\n          http_filters:\n          \
         - name: envoy.filters.http.router\n            typed_config: {{ \"@type\": {types}.http.router.v3.Router }}\n  \
         clusters:\n  - name: c\n    type: STATIC\n    lb_policy: {policy}\n    \
         load_assignment: {{ cluster_name: c, endpoints: [ {{ lb_endpoints: [ {} ] }} ] }}\n",
        listen.ip(),
        listen.port(),
        all.join(", ")
    );
    let path = folder().join("envoy.yaml");
    std::fs::write(&path, config).expect("writes");
    let mut command = Command::new(program);
    command.arg("-c").arg(&path).args(["--concurrency", "1", "-l", "error", "--disable-hot-restart"]);
    Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts"))
}

fn picks(address: SocketAddr) -> Vec<String> {
    let mut client = Client::connect(address);
    let ask = |key: usize| client.ask(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Key: user-{key}\r\n\r\n"));
    (0..300).map(ask).map(|response| response.text()).collect()
}

#[test]
fn a_value_goes_where_envoy_sends_it() {
    let Some(program) = envoy() else {
        eprintln!("skipped: Envoy is not installed, or does not run here (tests/install-peers installs it)");
        return;
    };
    let origins: Vec<Origin> = (0..5)
        .map(|number| {
            Origin::start(move |connection| {
                while connection.head().is_some() {
                    connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}"));
                }
            })
        })
        .collect();
    let endpoints: Vec<SocketAddr> = origins.iter().map(Origin::address).collect();
    for (theirs, ours) in [("RING_HASH", "ring-hash"), ("MAGLEV", "maglev")] {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("binds");
        let _envoy = start_envoy(&program, theirs, free, &endpoints);
        eventually("Envoy listens", || TcpStream::connect(free).is_ok());
        // The order in which endpoints are written changes nothing.
        let listed: Vec<String> = endpoints.iter().rev().map(|address| format!("\"{address}\"")).collect();
        let proxy = Proxy::start(&format!(
            "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"c\"\n[[cluster]]\nname = \"c\"\nbalance = \"{ours}\"\nhash_on = {{ header = \"x-key\" }}\nendpoints = [{}]\n",
            listed.join(", ")
        ));
        let (envoy, onehop) = (picks(free), picks(proxy.address("edge")));
        let different = envoy.iter().zip(&onehop).filter(|(one, other)| one != other).count();
        assert_eq!(different, 0, "{ours}: of {} values, {envoy:?} {onehop:?}", envoy.len());
        assert_eq!(envoy.iter().collect::<BTreeSet<_>>().len(), 5);
    }
}
