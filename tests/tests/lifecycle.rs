//! Configuration changes, drain and hand-over under load: no request fails and no connection is cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use onehop_tests::{Client, Origin, Proxy, eventually, folder};

/// Clients that ask until they are told to stop, some on one connection, some on a new one each time.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    threads: Vec<std::thread::JoinHandle<usize>>,
}

impl Load {
    fn start(address: SocketAddr) -> Load {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let threads = (0..8)
            .map(|number| {
                let (stop, done) = (stop.clone(), done.clone());
                std::thread::spawn(move || ask(address, number % 2 == 0, &stop, &done))
            })
            .collect();
        Load { stop, done, threads }
    }

    fn wait_for(&self, more: usize) {
        let until = self.done.load(Ordering::SeqCst) + more;
        eventually("the load goes on", || self.done.load(Ordering::SeqCst) >= until);
    }

    /// Ends it; how many keep-alive connections were closed without having been told.
    fn end(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        self.threads.into_iter().map(|thread| thread.join().expect("no request failed")).sum()
    }
}

fn ask(address: SocketAddr, keep: bool, stop: &AtomicBool, done: &AtomicUsize) -> usize {
    let mut client = Client::connect(address);
    let mut announced = 0;
    while !stop.load(Ordering::SeqCst) {
        let response = client.get("/load");
        assert_eq!((response.status, response.text().as_str()), (200, "/load"), "{}", response.head);
        done.fetch_add(1, Ordering::SeqCst);
        let closes = response.field("connection") == Some("close");
        announced += usize::from(closes && keep);
        if closes || !keep {
            client = Client::connect(address);
        }
    }
    announced
}

#[test]
fn a_hundred_reloads_under_load_cost_no_request_and_no_connection() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&origin.config("", "", ""));
    let load = Load::start(proxy.address("edge"));
    for number in 0..100 {
        std::fs::write(&proxy.config, origin.config("", &format!("name = \"r{number}\""), "")).expect("writes");
        proxy.signal("HUP");
        proxy.wait_for_error("is in force");
    }
    assert_eq!(load.end(), 0, "a reload closes no connection");
    assert!(proxy.metric("onehop_config_reloads_total", "") >= 100.0);
}

#[test]
fn a_changed_file_is_taken_over_and_a_bad_one_is_not() {
    let origin = Origin::echo();
    let proxy = Proxy::start(&origin.config("", "", ""));
    let mut client = proxy.connect("edge");
    assert_eq!(client.get("/").status, 200);
    std::fs::write(&proxy.config, origin.config("", "path = { prefix = \"/only\" }", "")).expect("writes");
    proxy.wait_for_error("is in force");
    eventually("the same connection sees the new routes", || client.get("/").status == 404);
    assert_eq!(client.get("/only/this").status, 200);
    std::fs::write(&proxy.config, "[[listener]]\nnme = \"x\"\n").expect("writes");
    proxy.wait_for_error("was refused");
    proxy.wait_for_error("did you mean \"name\"?");
    assert_eq!(client.get("/only/this").status, 200);
    assert_eq!(proxy.metric("onehop_config_valid", ""), 0.0);
    assert!(proxy.admin("/config").1.contains("unknown key"), "the error is shown");
    // Replaced by a rename, as editors and configuration managers do.
    let new = folder().join("new.toml");
    std::fs::write(&new, origin.config("", "", "")).expect("writes");
    std::fs::rename(&new, &proxy.config).expect("replaces");
    proxy.wait_for_error("is in force");
    eventually("it is back", || client.get("/").status == 200);
    assert_eq!(proxy.metric("onehop_config_valid", ""), 1.0);
}

#[test]
fn listeners_come_and_go() {
    let origin = Origin::echo();
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    let proxy = Proxy::start(&origin.config("", "", ""));
    let more = format!("[[listener]]\nname = \"more\"\naddress = \"{free}\"\n{}", origin.config("", "", ""));
    std::fs::write(&proxy.config, more).expect("writes");
    proxy.wait_for_error("is in force");
    assert_eq!(Client::connect(free).get("/new").text(), "/new");
    std::fs::write(&proxy.config, origin.config("", "", "")).expect("writes");
    proxy.wait_for_error("is in force");
    eventually("nobody listens any more", || std::net::TcpStream::connect(free).is_err());
    assert_eq!(proxy.connect("edge").get("/old").text(), "/old");
}

#[test]
fn a_drain_finishes_what_runs_and_ends() {
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let origin = Origin::start(move |connection| {
        connection.head();
        gone.lock().expect("no panic").recv().expect("the test lets it go on");
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
        connection.wait_for_end();
    });
    let mut proxy = Proxy::start(&origin.config("", "timeout = \"off\"", ""));
    let address = proxy.address("edge");
    let mut running = proxy.connect("edge");
    running.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it runs", || origin.accepted() == 1);
    proxy.signal("TERM");
    proxy.wait_for_error("draining");
    eventually("no new connection is taken", || std::net::TcpStream::connect(address).is_err());
    assert_eq!(proxy.admin("/ready").0, 503);
    go.send(()).expect("the origin waits");
    let response = running.response();
    assert_eq!((response.text().as_str(), response.field("connection")), ("done", Some("close")));
    assert_eq!(proxy.wait(), 0);
}

#[test]
fn a_second_signal_ends_at_once() {
    let origin = Origin::start(|connection| connection.wait_for_end());
    let mut proxy = Proxy::start(&origin.config("", "timeout = \"off\"", ""));
    let mut running = proxy.connect("edge");
    running.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it runs", || origin.accepted() == 1);
    proxy.signal("TERM");
    proxy.wait_for_error("draining");
    proxy.signal("INT");
    assert_eq!(proxy.wait(), 1);
}

#[test]
fn a_successor_takes_over_without_a_failed_request() {
    let origin = Origin::echo();
    let socket = folder().join("takeover");
    let mut config = origin.config("", "", "");
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
    config = config.replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
    config.insert_str(0, &format!("[runtime]\ntakeover = \"{}\"\n", socket.display()));
    let mut first = Proxy::start(&config);
    let load = Load::start(first.address("edge"));
    load.wait_for(200);
    let mut second = Proxy::start_file(first.config.clone(), &["--takeover"], None);
    assert_eq!(second.address("edge"), first.address("edge"));
    assert_eq!(first.wait(), 0);
    load.wait_for(200);
    // And once more, from the successor.
    let third = Proxy::start_file(first.config.clone(), &["--takeover"], None);
    assert_eq!(second.wait(), 0);
    load.wait_for(200);
    load.end();
    assert!(third.metric("onehop_route_requests_total", "") > 0.0);
}
