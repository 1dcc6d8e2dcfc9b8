//! nginx as upstreams, killed, paused, slowed and brought back under load: no caller notices.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use onehop_tests::{Client, Origin, Proxy, eventually, folder};

/// One nginx, a single process, so that it can be stopped as a whole.
struct Nginx {
    folder: PathBuf,
    address: SocketAddr,
    child: Child,
}

impl Nginx {
    fn start() -> Nginx {
        Nginx::start_with("return 200 \"ok\";")
    }

    /// With something else to do for each request.
    fn start_with(what: &str) -> Nginx {
        let address = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("free");
        let folder = folder();
        let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {}/{kind};\n", folder.display()));
        let config = format!(
            "daemon off;\nmaster_process off;\npid {0}/pid;\nerror_log {0}/error.log;\nevents {{ worker_connections 512; }}\nhttp {{\naccess_log off;\nkeepalive_requests 50;\n{1}server {{ listen {address}; location / {{ {what} }} }}\n}}\n",
            folder.display(),
            paths.concat()
        );
        std::fs::write(folder.join("nginx.conf"), config).expect("writes");
        let child = Nginx::spawn(&folder, address);
        Nginx { folder, address, child }
    }

    fn spawn(folder: &PathBuf, address: SocketAddr) -> Child {
        let mut command = Command::new("nginx");
        command.arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
        eventually("nginx listens", || std::net::TcpStream::connect(address).is_ok());
        child
    }

    fn signal(&self, signal: &str) {
        onehop_tests::signal(self.child.id(), signal);
    }

    fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    fn start_again(&mut self) {
        self.child = Nginx::spawn(&self.folder, self.address);
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // It may have ended already; SIGKILL ends a stopped one too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Clients that ask without pause.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(address: SocketAddr) -> Load {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = |_| {
            let (stop, served) = (stop.clone(), served.clone());
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                let mut failures = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let response = client.get("/");
                    if response.status == 200 && response.whole {
                        served.fetch_add(1, Ordering::SeqCst);
                    } else {
                        failures.push(response.head);
                        client = Client::connect(address);
                    }
                }
                failures
            })
        };
        let clients = (0..4).map(client).collect();
        Load { stop, served, clients }
    }

    /// Until so many more were served.
    fn go_on(&self, count: usize) {
        let until = self.served.load(Ordering::SeqCst) + count;
        eventually("requests are served", || {
            std::thread::sleep(Duration::from_millis(1));
            self.served.load(Ordering::SeqCst) >= until
        });
    }

    fn finish(self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        self.clients.into_iter().flat_map(|client| client.join().expect("no panic")).collect()
    }
}

#[test]
fn what_happens_to_them_is_not_felt() {
    if Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_err() {
        println!("skipped: nginx is not installed (tests/install-peers installs it)");
        return;
    }
    let mut upstreams = [Nginx::start(), Nginx::start(), Nginx::start()];
    let endpoints: Vec<String> = upstreams.iter().map(|nginx| format!("\"{}\"", nginx.address)).collect();
    let proxy = Proxy::start(&format!(
        "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"c\"\ntimeout = \"15s\"\nretry = {{ attempts = 3, on = [\"connect-failure\", \"reset-before-response\", \"gateway-error\"], per_try_timeout = \"2s\", backoff = \"1ms\" }}\n[[cluster]]\nname = \"c\"\nretry_budget = 100\nendpoints = [{}]\nhealth = {{ http = \"/\", interval = \"50ms\", timeout = \"1s\", unhealthy = 1, healthy = 1 }}\n",
        endpoints.join(", ")
    ));
    let address = |at: usize| upstreams_address(&endpoints, at);
    let asked = |at: usize| proxy.metric("onehop_endpoint_requests_total", &address(at));
    let serves_again = |at: usize| {
        let before = asked(at);
        eventually("it serves again", || asked(at) > before);
    };
    let load = Load::start(proxy.address("edge"));
    load.go_on(300);
    upstreams[0].kill();
    load.go_on(300);
    upstreams[0].start_again();
    serves_again(0);
    // Paused: it accepts, by its backlog, and answers nothing.
    upstreams[1].signal("STOP");
    eventually("its checks tell", || proxy.admin("/clusters").1.contains("unhealthy"));
    load.go_on(300);
    upstreams[1].signal("CONT");
    serves_again(1);
    // Slowed: it runs a part of the time.
    for _ in 0..20 {
        upstreams[2].signal("STOP");
        std::thread::sleep(Duration::from_millis(20));
        upstreams[2].signal("CONT");
        std::thread::sleep(Duration::from_millis(5));
    }
    load.go_on(300);
    serves_again(2);
    let failures = load.finish();
    assert!(failures.is_empty(), "{failures:?}");
    assert!(proxy.metric("onehop_route_retries_total", "") >= 1.0);
    // All of them at once, and back: only meanwhile anyone fails, and is told so.
    let load = Load::start(proxy.address("edge"));
    load.go_on(50);
    upstreams.iter_mut().for_each(Nginx::kill);
    upstreams.iter_mut().for_each(Nginx::start_again);
    let client_sees = || proxy.connect("edge").get("/").status == 200;
    eventually("they are back", client_sees);
    load.go_on(300);
    let failures = load.finish();
    let others = failures.iter().filter(|head| !head.contains(" 503 ")).count();
    assert_eq!(others, 0, "{failures:?}");
}

/// An origin behind nginx that can be made slow.
fn slowable() -> (Origin, Arc<AtomicBool>) {
    let slow = Arc::new(AtomicBool::new(false));
    let is_slow = slow.clone();
    let origin = Origin::start(move |connection| {
        while connection.head().is_some() {
            if is_slow.load(Ordering::SeqCst) {
                // The fault itself.
                std::thread::sleep(Duration::from_millis(300));
            }
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    (origin, slow)
}

#[test]
fn one_whose_origin_is_slow_gets_little_until_it_is_quick_again() {
    if Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_err() {
        println!("skipped: nginx is not installed (tests/install-peers installs it)");
        return;
    }
    let (origin, slow) = slowable();
    let passes_on = format!("proxy_pass http://{};", origin.address());
    let upstreams = [Nginx::start(), Nginx::start(), Nginx::start_with(&passes_on)];
    let endpoints: Vec<String> = upstreams.iter().map(|nginx| format!("\"{}\"", nginx.address)).collect();
    for balance in ["least-request", "peak-ewma"] {
        let config = format!(
            "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n[[route]]\ncluster = \"c\"\n[[cluster]]\nname = \"c\"\nbalance = \"{balance}\"\nendpoints = [{}]\n",
            endpoints.join(", ")
        );
        let proxy = Proxy::start_with(&config, &["--workers", "1"], None);
        let asked = |at: usize| proxy.metric("onehop_endpoint_requests_total", &upstreams_address(&endpoints, at));
        slow.store(false, Ordering::SeqCst);
        let load = Load::start(proxy.address("edge"));
        eventually("all three serve", || (0..3).all(|at| asked(at) > 0.0));
        slow.store(true, Ordering::SeqCst);
        load.go_on(100);
        // From here on it is known to be slow. An even share would be a third; at most all four clients at once wait for it,
        // a third of a second each, while the others answer in a thousandth, or a few where the machine is busy.
        let before: Vec<f64> = (0..3).map(asked).collect();
        load.go_on(2000);
        let now: Vec<f64> = (0..3).map(asked).collect();
        let served: Vec<f64> = now.iter().zip(&before).map(|(now, before)| now - before).collect();
        let share = served[2] / served.iter().sum::<f64>();
        assert!(share < 0.1, "{balance}: {served:?}");
        slow.store(false, Ordering::SeqCst);
        // (What peak EWMA knows of a slow one fades within minutes.)
        if balance == "least-request" {
            let before = asked(2);
            eventually("it serves again", || asked(2) > before + 20.0);
        }
        let failures = load.finish();
        assert!(failures.is_empty(), "{balance}: {failures:?}");
    }
}

fn upstreams_address(endpoints: &[String], at: usize) -> String {
    format!("endpoint={}", endpoints[at])
}
