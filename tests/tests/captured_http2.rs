//! Captured connections whose requests go on by HTTP/2 to where they were meant to go: the connections there are found nowhere in
//! the configuration, and are let go all the same when they have idled or are of age. Needs root, `ip`, `nft` and `curl`;
//! skipped, and said so, without them.

use onehop_tests::net::{MARK, Net, Running};
use onehop_tests::pki::put;
use onehop_tests::{eventually, folder};

/// A gateway that takes what the first namespace's programs connect to, and a service in the second, which answers `/held` late.
fn setting(number: u8, pool: &str) -> Option<(Net, [Running; 2])> {
    let net = match Net::new(number) {
        Ok(net) => net,
        Err(why) => {
            eprintln!("SKIPPED: network namespaces cannot be made here: {why}");
            return None;
        }
    };
    let folder = folder();
    let admin = "[runtime]\nadmin = \"127.0.0.1:9901\"\nworkers = 1\n";
    let service = "[[listener]]\nname = \"app\"\naddress = \"0.0.0.0:9000\"\n[[route]]\nrespond = { text = \"hello\" }\n\
         [[route]]\npath = { exact = \"/held\" }\nfaults = [{ delay = \"5s\" }, { abort = 418 }]\ncluster = \"nobody\"\n\
         [[cluster]]\nname = \"nobody\"\nendpoints = [\"127.0.0.1:9\"]\n";
    let capturing = format!(
        "mark = {MARK}\n[[listener]]\nname = \"out\"\naddress = \"127.0.0.1:15001\"\ncapture = true\n\
         [[route]]\ncluster = \"there\"\ntimeout = \"off\"\n\
         [[cluster]]\nname = \"there\"\noriginal = \"as-is\"\nprotocol = \"http2\"\npool = {pool}\n"
    );
    put(&folder.join("service.toml"), &format!("{admin}{service}"));
    put(&folder.join("capturing.toml"), &format!("{admin}{capturing}"));
    let running = [net.gateway(1, &folder.join("service.toml")), net.gateway(0, &folder.join("capturing.toml"))];
    net.redirect(0, &["up", "--mark", MARK]);
    Some((net, running))
}

fn url(net: &Net, path: &str) -> String {
    format!("http://{}:9000{path}", net.four[1])
}

/// A figure of the cluster of captured destinations.
fn figure(net: &Net, name: &str) -> f64 {
    let text = net.metrics(0);
    let lines =
        text.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains("cluster=\"there\""));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn open(net: &Net) -> f64 {
    figure(net, "onehop_cluster_connections")
}

#[test]
fn one_that_has_idled_is_closed() {
    let Some((net, _running)) = setting(21, "{ idle_timeout = \"1s\" }") else { return };
    for made in 1..=2 {
        assert_eq!(net.curl(&url(&net, "/")).as_deref(), Ok("hello"));
        assert_eq!(figure(&net, "onehop_cluster_connects_total"), f64::from(made));
        eventually("it is closed", || open(&net) == 0.0);
    }
}

#[test]
fn one_of_age_is_left_to_its_last_stream() {
    let Some((net, _running)) = setting(22, "{ max_age = \"1s\", idle_timeout = \"10m\" }") else { return };
    let held = ["curl", "-sS", "--max-time", "60", "-o", "/dev/null", "-w", "%{http_code}"];
    let held = net.spawn(0, &[&held[..], &[&*url(&net, "/held")]].concat());
    eventually("it is under way", || open(&net) == 1.0);
    // Others get new ones, while it has its own.
    eventually("others have a connection of their own", || {
        assert_eq!(net.curl(&url(&net, "/")).as_deref(), Ok("hello"));
        figure(&net, "onehop_cluster_connects_total") > 1.0
    });
    let output = held.wait_with_output().expect("a child");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "418", "what was under way is answered");
    // Nothing is said of when the last of them was made: all of them are of age at last, and none has idled.
    eventually("all are closed", || open(&net) == 0.0);
}
