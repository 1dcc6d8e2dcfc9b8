//! Ten thousand clients on one worker, over a fifth as many upstream connections.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use onehop_tests::net::Running;
use onehop_tests::{Client, Proxy, build, eventually};

const CLIENTS: usize = 10_000;
const UPSTREAM: f64 = 2_000.0;

fn origin(arguments: &[&str]) -> (Running, String) {
    let mut command = Command::new(build("onehop-load"));
    command.args(["origin", "--listen", "127.0.0.1:0"]).args(arguments).stdout(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    let address = line.trim().strip_prefix("origin http://").expect("an address").to_owned();
    (Running(child), address)
}

#[test]
fn ten_thousand_clients_share_two_thousand_upstream_connections() {
    let files = onehop_net::raise_open_files().expect("a limit");
    if files < CLIENTS as u64 + 500 {
        eprintln!("skipped: only {files} files may be open here");
        return;
    }
    let (_running, address) = origin(&["--service", "20ms", "--size", "100"]);
    let config = format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"origin\"\n[[cluster]]\nname = \"origin\"\nendpoints = [\"{address}\"]\nlimits = {{ connections = {UPSTREAM} }}\npool = {{ max_idle = {UPSTREAM} }}\nconnect_timeout = \"30s\"\n"
    );
    let proxy = Proxy::start_with(&config, &["--workers", "1"], None);
    let before = proxy.descriptors();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| proxy.connect("edge")).collect();
    for round in 0..3 {
        for client in &mut clients {
            client.send(format!("GET /{round} HTTP/1.1\r\nHost: a\r\n\r\n"));
        }
        for client in &mut clients {
            let response = client.response();
            assert_eq!((response.status, response.body.len()), (200, 100), "{}", response.head);
        }
        assert!(proxy.metric("onehop_cluster_connections", "") <= UPSTREAM);
        assert_eq!(proxy.connections(), CLIENTS);
    }
    assert!(proxy.metric("onehop_cluster_connects_total", "") <= UPSTREAM, "connections are reused");
    drop(clients);
    eventually("every client is gone", || proxy.connections() == 0);
    eventually("their descriptors are closed", || proxy.descriptors() <= before + UPSTREAM as usize + 20);
    assert_eq!(proxy.connect("edge").get("/after").status, 200);
}
