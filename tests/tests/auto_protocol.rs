//! `protocol = "auto"`: each endpoint's TLS says which HTTP version it is spoken to in. nginx without and with HTTP/2, and
//! nghttpd, which speaks nothing else, side by side and in each other's place.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};

use onehop_tests::http2::{ask, connect, get, run};
use onehop_tests::pki::{Authority, Leaf, files, put};
use onehop_tests::{Client, Proxy, eventually, folder};

/// A server of somebody else's; ended when it is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Certificates, and room for the servers' files.
struct Place {
    folder: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("free")
}

impl Place {
    fn new() -> Place {
        let folder = folder();
        let authority = Authority::new("servers");
        put(&folder.join("ca.pem"), authority.pem());
        let (certificate, key) = files(&folder, "server", &authority, &Leaf::server(&["localhost"]));
        std::fs::create_dir_all(folder.join("www")).expect("a folder");
        std::fs::write(folder.join("www/index.html"), "nghttpd").expect("writes");
        Place { folder, certificate, key }
    }

    fn run(&self, address: SocketAddr, command: &mut Command) -> Server {
        let server = Server(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts"));
        eventually("it listens", || std::net::TcpStream::connect(address).is_ok());
        server
    }

    /// Answers with the version that it was spoken to in.
    fn nginx(&self, address: SocketAddr, http2: bool) -> Server {
        let folder = self.folder.join(format!("nginx-{}", address.port()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {}/{kind};\n", folder.display()));
        let config = format!(
            "daemon off;\nmaster_process off;\npid {0}/pid;\nerror_log {0}/error.log;\nevents {{ worker_connections 512; }}\nhttp {{\naccess_log off;\n{1}server {{ listen {address} ssl{2}; ssl_certificate {3}; ssl_certificate_key {4}; location / {{ return 200 \"$server_protocol\"; }} }}\n}}\n",
            folder.display(),
            paths.concat(),
            if http2 { " http2" } else { "" },
            self.certificate.display(),
            self.key.display(),
        );
        std::fs::write(folder.join("nginx.conf"), config).expect("writes");
        self.run(address, Command::new("nginx").arg("-p").arg(&folder).arg("-c").arg(folder.join("nginx.conf")))
    }

    fn nghttpd(&self, address: SocketAddr) -> Server {
        let port = address.port().to_string();
        let mut command = Command::new("nghttpd");
        command.arg("-a").arg("127.0.0.1").arg("-d").arg(self.folder.join("www")).arg(port);
        self.run(address, command.arg(&self.key).arg(&self.certificate))
    }

    fn proxy(&self, endpoints: &[SocketAddr], more: &str) -> Proxy {
        let endpoints: Vec<String> = endpoints.iter().map(|address| format!("\"{address}\"")).collect();
        let config = format!(
            "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"a\"\n[[cluster]]\nname = \"a\"\nprotocol = \"auto\"\nendpoints = [{}]\ntls = {{ ca = \"{}\", server_name = \"localhost\" }}\n{more}\n",
            endpoints.join(", "),
            self.folder.join("ca.pem").display()
        );
        Proxy::start_with(&config, &["--workers", "1"], None)
    }
}

fn installed(program: &str) -> bool {
    let found = Path::new("/usr/sbin").join(program).exists()
        || Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        println!("skipped: {program} is not installed (tests/install-peers installs it)");
    }
    found
}

#[test]
fn each_endpoint_is_spoken_to_in_its_own_version() {
    if !installed("nginx") || !installed("nghttpd") {
        return;
    }
    let place = Place::new();
    let (one, two, three) = (free(), free(), free());
    let _servers = (place.nginx(one, false), place.nginx(two, true), place.nghttpd(three));
    let proxy = place.proxy(&[one, two, three], "");
    let mut client = proxy.connect("edge");
    let mut texts: Vec<String> = (0..30).map(|_| client.get("/").text()).collect();
    texts.sort();
    texts.dedup();
    assert_eq!(texts, ["HTTP/1.1", "HTTP/2.0", "nghttpd"]);
    assert_eq!(
        proxy.metric("onehop_cluster_connects_total", ""),
        3.0,
        "each is asked once, and that connection serves"
    );
    // A burst shares the two connections of those that share, and makes new ones to the other.
    run(async {
        let sender = connect(proxy.address("edge")).await;
        let asked = (0..60).map(|_| {
            let sender = sender.clone();
            tokio::spawn(async move { ask(&sender, get("/"), Vec::new()).await.expect("answers").text() })
        });
        let mut counts = [0; 3];
        for answer in asked.collect::<Vec<_>>() {
            match answer.await.expect("no panic").as_str() {
                "HTTP/1.1" => counts[0] += 1,
                "HTTP/2.0" => counts[1] += 1,
                "nghttpd" => counts[2] += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(counts, [20; 3]);
    });
    let shared = |address: SocketAddr| proxy.metric("onehop_endpoint_connects_total", &address.to_string());
    assert_eq!((shared(two), shared(three)), (1.0, 1.0));
}

#[test]
fn a_burst_to_a_stranger_waits_for_one_answer() {
    if !installed("nginx") {
        return;
    }
    let place = Place::new();
    let (one, two) = (free(), free());
    let _servers = (place.nginx(one, false), place.nginx(two, true));
    for (address, text) in [(one, "HTTP/1.1"), (two, "HTTP/2.0")] {
        let proxy = place.proxy(&[address], "");
        run(async {
            let sender = connect(proxy.address("edge")).await;
            let asked = (0..40).map(|_| {
                let sender = sender.clone();
                tokio::spawn(async move { ask(&sender, get("/"), Vec::new()).await.expect("answers").text() })
            });
            for answer in asked.collect::<Vec<_>>() {
                assert_eq!(answer.await.expect("no panic"), text);
            }
        });
        if text == "HTTP/2.0" {
            assert_eq!(proxy.metric("onehop_cluster_connects_total", ""), 1.0);
        }
    }
}

#[test]
fn another_server_in_its_place_is_spoken_to_in_its_version() {
    if !installed("nginx") || !installed("nghttpd") {
        return;
    }
    let place = Place::new();
    let address = free();
    // The checks speak as it does: nghttpd knows no HTTP/1.1.
    let checks = "health = { http = \"/\", interval = \"50ms\", healthy = 1, unhealthy = 1 }";
    let first = place.nginx(address, false);
    let proxy = place.proxy(&[address], checks);
    let mut client = proxy.connect("edge");
    assert_eq!(client.get("/").text(), "HTTP/1.1");
    drop(first);
    let second = place.nghttpd(address);
    eventually("nghttpd is found", || client.get("/").text() == "nghttpd");
    for _ in 0..10 {
        assert_eq!(client.get("/").text(), "nghttpd");
    }
    drop(second);
    let third = place.nginx(address, true);
    eventually("HTTP/2 goes on", || client.get("/").text() == "HTTP/2.0");
    drop(third);
    let _fourth = place.nginx(address, false);
    eventually("HTTP/1.1 is found again", || client.get("/").text() == "HTTP/1.1");
}

/// Over HTTP/1 a call of gRPC-Web is not translated, and its status is a part of the body: whoever answers it so did not fail.
#[test]
fn a_call_of_grpc_web_that_http1_answers_is_no_failure() {
    if !installed("nginx") {
        return;
    }
    let place = Place::new();
    let (one, two) = (free(), free());
    let _servers = (place.nginx(one, false), place.nginx(two, false));
    let outlier = "outlier = { consecutive_5xx = 2, max_ejected = 50 }";
    let route = "[[route]]\npath = { prefix = \"/web.S\" }\ngrpc_web = true\ncluster = \"a\"";
    let proxy = place.proxy(&[one, two], &format!("{outlier}\n{route}"));
    let mut client = proxy.connect("edge");
    let call = "POST /web.S/M HTTP/1.1\r\nHost: test\r\nContent-Type: application/grpc-web\r\nContent-Length: 5\r\n\r\n\0\0\0\0\0";
    for _ in 0..20 {
        assert_eq!(client.ask(call).text(), "HTTP/1.1");
    }
    assert_eq!(proxy.metric("onehop_cluster_ejections_total", ""), 0.0);
}

/// Passes connections on to `address`, each once the gate is open; counts those that have come, and those that the client's
/// side has closed.
fn relay(address: SocketAddr, gate: Receiver<()>) -> (SocketAddr, Arc<[AtomicUsize; 2]>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let (here, counts) = (listener.local_addr().expect("bound"), Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]));
    let seen = counts.clone();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            seen[0].fetch_add(1, Ordering::SeqCst);
            let _ = gate.recv();
            let mut server = TcpStream::connect(address).expect("connects");
            let (mut back, mut front) =
                (client.try_clone().expect("a descriptor"), server.try_clone().expect("another"));
            std::thread::spawn(move || std::io::copy(&mut front, &mut back));
            let seen = seen.clone();
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut client, &mut server);
                seen[1].fetch_add(1, Ordering::SeqCst);
            });
        }
    });
    (here, counts)
}

/// It serves those who wait for it, and nobody sweeps it later.
#[test]
fn a_connection_to_an_endpoint_that_went_while_it_was_made_ends() {
    if !installed("nghttpd") {
        return;
    }
    let place = Place::new();
    let address = free();
    let _server = place.nghttpd(address);
    let (open, gate) = channel();
    let (held, counts) = relay(address, gate);
    let path = place.folder.join("onehop.toml");
    let write = |endpoint: SocketAddr| {
        let text = format!(
            "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"a\"\ntimeout = \"off\"\n[[cluster]]\nname = \"a\"\nprotocol = \"http2\"\nconnect_timeout = \"10m\"\nendpoints = [\"{endpoint}\"]\ntls = {{ ca = \"{}\", server_name = \"localhost\" }}\n",
            place.folder.join("ca.pem").display()
        );
        std::fs::write(&path, text).expect("writes");
    };
    write(held);
    let proxy = Proxy::start_file(path.clone(), &["--workers", "1"], None);
    let edge = proxy.address("edge");
    let waits = std::thread::spawn(move || Client::connect(edge).get("/").text());
    eventually("it is being made", || counts[0].load(Ordering::SeqCst) == 1);
    write(address);
    proxy.signal("HUP");
    eventually("it is read", || proxy.metric("onehop_config_reloads_total", "") >= 1.0);
    // Whoever comes now goes straight there, once the core has heard.
    while counts[0].load(Ordering::SeqCst) == 1 && proxy.metric("onehop_cluster_connects_total", "") == 0.0 {
        std::thread::spawn(move || Client::connect(edge).get("/").text());
        assert_eq!(proxy.admin("/live").0, 200);
    }
    drop(open);
    assert_eq!(waits.join().expect("no panic"), "nghttpd");
    eventually("it ends", || {
        let [came, closed] = &*counts;
        closed.load(Ordering::SeqCst) == came.load(Ordering::SeqCst)
    });
}
