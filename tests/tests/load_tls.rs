//! The load generator speaks TLS: it shows a certificate, verifies, resumes, and tells handshake time apart.

use std::process::Command;

use onehop_tests::pki::{Authority, Leaf, files, put};
use onehop_tests::{Origin, Proxy, build, folder};
use serde_json::Value;

fn load(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(build("onehop-load")).arg("run").args(arguments).output().expect("runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn handshakes_are_told_apart_full_and_resumed() {
    let (folder, authority) = (folder(), Authority::new("root"));
    put(&folder.join("ca.pem"), authority.pem());
    files(&folder, "server", &authority, &Leaf::server(&["localhost"]));
    files(&folder, "client", &authority, &Leaf::server(&["client.test"]));
    let origin = Origin::echo();
    let text = format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n\
         tls = {{ certificate = \"server.pem\", key = \"server.key\", client = \"required\", client_ca = \"ca.pem\" }}\n\
         [[route]]\ncluster = \"web\"\n[[cluster]]\nname = \"web\"\nendpoints = [\"{}\"]\n",
        origin.address()
    );
    let proxy = Proxy::start_in(&folder, &text);
    let url = format!("https://localhost:{}/load", proxy.address("edge").port());
    let at = |name: &str| folder.join(name).to_str().expect("text").to_owned();
    let (ca, certificate, key, report) = (at("ca.pem"), at("client.pem"), at("client.key"), at("report.json"));
    let base = [
        &url,
        "--ca",
        &ca,
        "--cert",
        &certificate,
        "--key",
        &key,
        "--closed",
        "-c",
        "4",
        "-d",
        "300ms",
        "--warm-up",
        "100ms",
    ];
    let run = |more: &[&str]| {
        let mut arguments = base.to_vec();
        arguments.extend(["--new-connections", "--json", &report]);
        arguments.extend(more);
        let (good, said) = load(&arguments);
        assert!(good, "{said}");
        assert!(said.contains("TLS handshake"), "{said}");
        let text = std::fs::read_to_string(&report).expect("a report");
        let value: Value = serde_json::from_str(&text).expect("JSON");
        value.to_string()
    };
    let before = proxy.metric("onehop_listener_tls_handshakes_total", "kind=\"resumed\"");
    run(&[]);
    let resumed = proxy.metric("onehop_listener_tls_handshakes_total", "kind=\"resumed\"");
    assert!(resumed > before, "sessions are resumed");
    run(&["--no-resumption"]);
    assert_eq!(proxy.metric("onehop_listener_tls_handshakes_total", "kind=\"resumed\""), resumed, "none is resumed");
    // Without the root, and without a certificate.
    let (good, said) = load(&[&url, "--closed", "-c", "1", "-d", "100ms", "--ca", &certificate]);
    assert!(!good && said.contains("tls-handshake"), "{said}");
    let (good, said) = load(&[&url, "--closed", "-c", "1", "-d", "100ms", "--insecure"]);
    assert!(!good, "{said}");
}
