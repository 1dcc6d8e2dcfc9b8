//! Endpoints given by name, against a name server that returns nothing, flaps, and comes back. It needs port 53 on a
//! loopback address and a mount namespace for its resolv.conf, so it is skipped where the tests do not run as root.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use onehop_tests::{Proxy, eventually, folder};

/// What the name server says now: an answer for each query in turn; an answer without addresses says that there are none.
struct Zone {
    answers: Mutex<Vec<Vec<Ipv4Addr>>>,
    asked: AtomicUsize,
}

impl Zone {
    fn set(&self, answers: &[&[Ipv4Addr]]) {
        *self.answers.lock().expect("no panic") = answers.iter().map(|one| one.to_vec()).collect();
    }

    /// The answer to a query (RFC 1035 4.1): its question again, and a record for each address, valid for a second.
    fn answer(&self, query: &[u8]) -> Vec<u8> {
        let name_end = 12 + query[12..].iter().position(|byte| *byte == 0).expect("a name") + 1;
        let is_a = query[name_end..name_end + 2] == [0, 1];
        let answers = self.answers.lock().expect("no panic");
        let addresses = if is_a && !answers.is_empty() {
            answers[self.asked.fetch_add(1, Ordering::SeqCst) % answers.len()].clone()
        } else {
            Vec::new()
        };
        let mut out = query[..2].to_vec();
        out.extend_from_slice(&[0x81, 0x80, 0, 1, 0, addresses.len() as u8, 0, 0, 0, 0]);
        out.extend_from_slice(&query[12..name_end + 4]);
        for address in addresses {
            out.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
            out.extend_from_slice(&address.octets());
        }
        out
    }
}

/// Answers every request with a name, on an address of its own.
fn named(address: SocketAddr, name: &'static str) -> Option<SocketAddr> {
    let listener = TcpListener::bind(address).ok()?;
    let address = listener.local_addr().ok()?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut chunk = [0; 4096];
                while matches!(stream.read(&mut chunk), Ok(1..)) {
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    Some(address)
}

/// Runs a program with this name server.
fn launcher(server: &str, options: &str) -> Option<PathBuf> {
    let folder = folder();
    let (resolv, script) = (folder.join("resolv.conf"), folder.join("launch"));
    std::fs::write(&resolv, format!("nameserver {server}\noptions {options}\n")).ok()?;
    let inner = format!("mount --bind {} /etc/resolv.conf && exec \"$0\" \"$@\"", resolv.display());
    std::fs::write(&script, format!("#!/bin/sh\nexec unshare -m sh -c '{inner}' \"$@\"\n")).ok()?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).ok()?;
    let works = std::process::Command::new(&script).args(["cat", "/etc/resolv.conf"]).output().ok()?;
    works.stdout.starts_with(format!("nameserver {server}\n").as_bytes()).then_some(script)
}

/// A name server's socket, and what runs a program with it; none where that is not allowed.
fn name_server(address: &str, options: &str) -> Option<(UdpSocket, PathBuf)> {
    let socket = UdpSocket::bind((address, 53)).ok();
    let found = socket.zip(launcher(address, options));
    if found.is_none() {
        eprintln!("skipped: it needs root for port 53 and for a mount namespace");
    }
    found
}

#[test]
fn names_that_vanish_and_flap_keep_what_was_known() {
    let Some((socket, launcher)) = name_server("127.77.0.1", "timeout:1 attempts:1") else { return };
    let (one, two) = (Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2));
    let first = named(SocketAddr::from((one, 0)), "one").expect("binds");
    named(SocketAddr::from((two, first.port())), "two").expect("binds");
    let zone = Arc::new(Zone { answers: Mutex::default(), asked: AtomicUsize::new(0) });
    let served = zone.clone();
    std::thread::spawn(move || {
        let mut query = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            // The proxy may have ended.
            let _ = socket.send_to(&served.answer(&query[..length]), from);
        }
    });
    // At first it returns nothing at all.
    zone.set(&[&[]]);
    let port = first.port();
    let text = format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"c\"\n[[cluster]]\nname = \"c\"\nendpoints = [\"app.test:{port}\"]\n"
    );
    let proxy = Proxy::start_with(&text, &[], Some(&launcher));
    let ask = || {
        let response = proxy.connect("edge").get("/");
        (response.status, response.text())
    };
    let served = |name: &str| (200, name.to_owned());
    assert_eq!(proxy.connect("edge").get("/").status, 503);
    zone.set(&[&[one]]);
    eventually("the name is resolved", || ask() == served("one"));
    // It returns nothing: what was known goes on.
    zone.set(&[&[]]);
    let failures = proxy.metric("onehop_dns_failures_total", "");
    eventually("nothing is returned", || proxy.metric("onehop_dns_failures_total", "") > failures);
    assert_eq!(ask(), served("one"));
    // It moves.
    zone.set(&[&[two]]);
    eventually("it has moved", || ask() == served("two"));
    // It flaps: every request is served by one or the other.
    zone.set(&[&[one], &[two], &[], &[two, one]]);
    let from = zone.asked.load(Ordering::SeqCst);
    eventually("it has flapped", || {
        let (status, name) = ask();
        assert!(status == 200 && (name == "one" || name == "two"), "{status} {name}");
        zone.asked.load(Ordering::SeqCst) >= from + 4
    });
    // No route was compiled again for any of it.
    assert_eq!(proxy.metric("onehop_config_reloads_total", ""), 0.0);
}

#[test]
fn a_mute_name_server_keeps_nothing_waiting() {
    // It takes queries and never answers.
    let Some((mute, launcher)) = name_server("127.77.0.2", "timeout:30 attempts:1") else { return };
    let checked = TcpListener::bind("127.0.0.1:0").expect("binds");
    // A thousand names: whatever is awaited below, the look-ups of some have not even begun by then.
    let names: Vec<String> = (0..1000).map(|name| format!("\"n{name}.test:80\"")).collect();
    let port = checked.local_addr().expect("bound").port();
    let text = format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"c\"\n[[cluster]]\nname = \"c\"\n\
         endpoints = [{}]\n[[cluster]]\nname = \"checked\"\nendpoints = [\"127.0.0.1:{port}\"]\n\
         health = {{ tcp = true, interval = \"10ms\", timeout = \"60s\" }}\n",
        names.join(", ")
    );
    let mut proxy = Proxy::start_with(&text, &[], Some(&launcher));
    mute.recv(&mut [0; 1500]).expect("a query");
    // Look-ups are outstanding as long as not every name has been given up once.
    let given_up = |proxy: &Proxy| proxy.metric("onehop_dns_failures_total", "");
    checked.accept().expect("a check");
    checked.accept().expect("another check");
    std::fs::write(&proxy.config, text + "[[cluster]]\nname = \"further\"\nendpoints = [\"127.0.0.1:9\"]\n")
        .expect("writes");
    proxy.signal("HUP");
    eventually("it is reloaded", || proxy.metric("onehop_config_reloads_total", "") >= 1.0);
    let before = given_up(&proxy);
    assert!(before < 1000.0, "all of that came before the last look-up had ended: {before}");
    proxy.signal("TERM");
    assert_eq!(proxy.wait(), 0);
}
