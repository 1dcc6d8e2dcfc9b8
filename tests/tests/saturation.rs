//! A core that is really saturated: it is asked for more, without pause, than it can pass on. It refuses what matters
//! least, and only for as long as that lasts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use onehop_tests::{Client, Origin, Proxy};

/// Chunks of a byte each: cheap to send and to receive, but the proxy looks at every one of them.
const CHUNK: &[u8] = b"1\r\nx\r\n";
const CHUNKS: usize = 40_000;
const END: &[u8] = b"0\r\n\r\n";
const CLIENTS: usize = 48;

/// Waits until something holds. The machine may be busy with other things; nothing but the state decides.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "in vain: {what}");
    }
}

fn origin() -> Origin {
    let long = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &*CHUNK.repeat(CHUNKS), END].concat();
    Origin::start(move |connection| {
        while let Some(head) = connection.head() {
            if head.starts_with("GET /low ") {
                connection.send(&long);
            } else {
                connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        }
    })
}

/// One long answer or its refusal.
fn ask_low(client: &mut Client) -> u16 {
    client.send("GET /low HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.head();
    if head.starts_with("HTTP/1.1 200 ") {
        let length = CHUNK.len() * CHUNKS + END.len();
        assert_eq!(client.read(length).len(), length, "an answer that is begun is whole");
        return 200;
    }
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.trim().parse().ok());
    let body = client.read(length.expect("a length"));
    assert!(head.starts_with("HTTP/1.1 503 ") && body.ends_with(b"shed\n"), "{head}");
    503
}

/// Clients that ask without pause.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<std::thread::JoinHandle<()>>,
    /// Served and refused.
    counts: Arc<[AtomicUsize; 2]>,
}

impl Load {
    fn start(address: std::net::SocketAddr) -> Load {
        let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new([const { AtomicUsize::new(0) }; 2]));
        let client = |_| {
            let (stop, counts) = (stop.clone(), counts.clone());
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                while !stop.load(Ordering::SeqCst) {
                    let refused = ask_low(&mut client) == 503;
                    counts[usize::from(refused)].fetch_add(1, Ordering::SeqCst);
                }
            })
        };
        let clients = (0..CLIENTS).map(client).collect();
        Load { stop, clients, counts }
    }

    fn counts(&self) -> [usize; 2] {
        [0, 1].map(|at| self.counts[at].load(Ordering::SeqCst))
    }

    fn finish(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.clients.into_iter().for_each(|client| client.join().expect("no panic"));
    }
}

/// A turn of the core's loop serves all who wait: of many long answers it takes several times the target, of as many
/// refusals a fraction of it.
#[test]
fn the_lowest_priority_is_refused_while_a_core_is_saturated_and_no_longer() {
    let route = |name: &str| {
        format!(
            "[[route]]\nname = \"{name}\"\npath = {{ prefix = \"/{name}\" }}\npriority = \"{name}\"\ncluster = \"origin\"\n"
        )
    };
    let routes = ["low", "high", "critical"].map(route).concat();
    let config = format!("[runtime]\nshed_after = \"3ms\"\n{}{routes}", origin().config("", "name = \"rest\"", ""));
    let proxy = Proxy::start_with(&config, &["--workers", "1"], None);
    let mut client = proxy.connect("edge");
    assert_eq!((ask_low(&mut client), client.get("/high").status, client.get("/critical").status), (200, 200, 200));
    let shed = |name: &str| proxy.metric("onehop_route_shed_total", &format!("route=\"{name}\""));
    assert_eq!(shed("low"), 0.0, "at rest");

    let load = Load::start(proxy.address("edge"));
    until("low priority is refused", || load.counts()[1] >= 100);
    for _ in 0..20 {
        assert_eq!(client.get("/high").status, 200);
        assert_eq!(client.get("/critical").status, 200);
        assert_eq!(proxy.admin("/live").0, 200);
    }
    // Some are served all the time, and it goes on.
    let [served, refused] = load.counts();
    until("some are served", || load.counts()[0] > served);
    until("others are refused", || load.counts()[1] > refused);
    assert_eq!((shed("high"), shed("critical")), (0.0, 0.0));

    load.finish();
    until("the pressure is gone", || proxy.metric("onehop_core_pressure_milli", "") == 0.0);
    let before = shed("low");
    for _ in 0..50 {
        assert_eq!(ask_low(&mut client), 200);
    }
    assert_eq!(shed("low"), before);
}
